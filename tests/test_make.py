"""make run and its relatives: what is run, gone on with, refused, and said."""

import ast
import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROWS, SAMPLE_IDS, TOOLKIT, Place

TEXT = "swerun-sample__textkit-19"
THREE = [name for name in SAMPLE_IDS if "textkit" in name]
# whatever of these an agent or a test saw would change how its own make or git, or another of our commands, behaves
OURS = set("ARTIFACTS DATASET SPLIT IDS WHERE START SAMPLE SEED AGENT MODEL EFFORT MAX_TURNS PROMPT RUN ITERATIONS TIMEOUT TEST_TIMEOUT MCP CONFIG REMOTE "
           "KEEP DRY V MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES PLAN".split())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> Place:
    """A place in which nothing was precached before `make run-sample` was its first command."""
    made = Place(tmp_path_factory.mktemp("fresh"), uv_cache)
    made.make("run-sample", "-j2", timeout=600)
    return made


def started(place: Place, *words: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(["make", "-C", TOOLKIT, *words], env=place.env | env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def until(what, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def states(place: Place, run: str, name: str = "*.json") -> dict[str, int]:
    """{path: its time stamp} of the state files of a run's tasks."""
    folder = place.artifacts / "runs" / run
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.glob(f"*/{name}")}


def report(place: Place, run: str) -> dict:
    return json.loads((place.artifacts / "results" / run / "report.json").read_text())


def log_lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_run_sample_as_the_first_command_resolves_all_of_it(fresh: Place):
    made = report(fresh, "sample-gold")
    assert sorted(made["resolved_ids"]) == sorted(SAMPLE_IDS)
    assert len((fresh.artifacts / "results/sample-gold/predictions.jsonl").read_text().splitlines()) == 5


def test_the_report_has_the_keys_of_the_official_one(fresh: Place):
    (source,) = (TOOLKIT / ".venv/lib").glob("python3*/site-packages/swebench/harness/reporting.py")
    (written,) = [node.value for node in ast.walk(ast.parse(source.read_text()))
                  if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "report" and isinstance(node.value, ast.Dict)]
    made = report(fresh, "sample-gold")
    assert made.keys() == {key.value for key in written.keys}
    assert (made["schema_version"], made["total_instances"], made["submitted_instances"], made["completed_instances"]) == (2, 5, 5, 5)


def test_agent_results_outlive_a_run_and_a_second_run_does_nothing(fresh: Place):
    before = states(fresh, "sample-gold")
    assert len([name for name in before if name.endswith("agent.json")]) == 5
    fresh.make("run-sample", "-j2")
    fresh.make("run", "-j2", RUN="sample-gold")
    assert states(fresh, "sample-gold") == before


def test_an_agent_that_does_nothing_resolves_nothing(fresh: Place):
    fresh.make("run-sample", "-j2", AGENT="null")
    made = report(fresh, "sample-null")
    assert (made["resolved_instances"], sorted(made["empty_patch_ids"])) == (0, sorted(SAMPLE_IDS))


def test_one_task_that_fails_does_not_end_a_run_and_the_next_run_makes_up_for_it(warm: Place, agent, tmp_path: Path):
    later = agent(f'[ "$AGENT_INSTANCE_ID" != {TEXT} ] || [ -e {tmp_path}/ready ] || {{ echo rate limit >&2; exit 75; }}')
    options = {"DATASET": "sample", "AGENT": str(later), "RUN": "one-fails", "IDS": " ".join(THREE), "PATIENCE": "10"}
    done = warm.make("run", "-j2", code=2, **options)
    assert f"{TEXT}: failed: " in done.stderr and "rate limit" in done.stderr
    assert not [name for name in states(warm, "one-fails") if name.startswith(TEXT) and not name.endswith("task.json")]
    made = report(warm, "one-fails")
    assert (made["incomplete_ids"], made["submitted_instances"], made["total_instances"]) == ([TEXT], 2, 3)
    (tmp_path / "ready").touch()
    warm.make("run", "-j2", RUN="one-fails")
    assert report(warm, "one-fails")["submitted_instances"] == 3


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_what_a_user_wrote_arrives_as_it_was_written(warm: Place, how: str):
    values = {"MODEL": "a$b \"c\" #d 'e' $$ $(shell id) ${HOME} \\f %g", "WHERE": f'. as $row | $row.instance_id == "{TEXT}" # and no other'}
    options = {"DATASET": "sample", "AGENT": "null", "RUN": f"as-written-{how}"} | values
    if how == "environment":
        warm.make("run", **options)
    else:
        warm.make("run", *(f"{name}={value}" for name, value in options.items()))
    known = json.loads((warm.artifacts / f"runs/as-written-{how}/run.json").read_text())
    assert (known["options"]["MODEL"], known["instance_ids"]) == (values["MODEL"], [TEXT])


def test_agents_and_tests_see_no_variable_of_make_or_of_ours(warm: Place, agent, tmp_path: Path):
    told = f"import os\nopen('{tmp_path}/tests', 'w').write(chr(10).join(os.environ))\n"
    (tmp_path / "told.py").write_text(told)
    shows = agent(f"env -0 | sed -z 's/=.*//' | tr '\\0' '\\n' >{tmp_path}/agent; cat {tmp_path}/told.py src/textkit/template.py >new && mv new src/textkit/template.py")
    warm.make("run", "-j2", DATASET="sample", AGENT=str(shows), RUN="environment", IDS=TEXT, MODEL="m", KEEP="0", V="0", CONFIG=str(tmp_path))
    for who in ("agent", "tests"):
        seen = set((tmp_path / who).read_text().split())
        assert {"PATH", "AGENT_RUN_MARK"} < seen
        assert seen & OURS == set()


def test_agents_and_tests_get_signals_as_in_a_terminal(warm: Place, agent, tmp_path: Path):
    # what a shell starts in the background ignores ^C, and all below it: suites that test their own ^C would fail
    code = f"import pathlib; pathlib.Path('{tmp_path}/tests').write_text(pathlib.Path('/proc/self/status').read_text())"
    shows = agent(f'cat /proc/self/status >{tmp_path}/agent; echo "{code}" >>src/textkit/__init__.py')
    warm.make("run", DATASET="sample", AGENT=str(shows), RUN="signals", IDS=TEXT)
    for who in ("agent", "tests"):
        (ignored,) = [int(line.split()[1], 16) for line in log_lines(tmp_path / who) if line.startswith("SigIgn")]
        assert not [number for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM) if ignored >> number - 1 & 1]


@pytest.mark.parametrize("flags, at_once", [((), 4), (("-j2",), 2)], ids=["no -j", "-j2"])
def test_so_many_tasks_run_at_once(warm: Place, agent, tmp_path: Path, flags: tuple[str, ...], at_once: int):
    log = tmp_path / "log"
    counts = agent(f"""
echo +1 >>{log}
for wait in {{1..400}}; do [ $(grep -c +1 {log}) -ge {at_once} ] && break; sleep 0.05; done
sleep 0.7  # for one too many to come
echo -1 >>{log}""")
    warm.make("run", *flags, DATASET="sample", AGENT=str(counts), FEEDBACK="none", RUN=f"at-once-{at_once}")
    steps = [int(line) for line in log_lines(log)]
    assert len(steps) == 10 and max(sum(steps[:end]) for end in range(11)) == at_once


def test_redo_forgets_what_it_is_told_and_the_next_run_makes_that_again(warm: Place):
    options = {"DATASET": "sample", "AGENT": "null", "RUN": "redone"}
    warm.make("run", IDS=" ".join(THREE), **options)
    first = states(warm, "redone")
    warm.make("redo", RUN="redone", STAGE="tests", IDS=TEXT)
    assert states(warm, "redone").keys() == first.keys() - {f"{TEXT}/tests.json"}
    warm.make("run", RUN="redone")
    second = states(warm, "redone")
    assert {name for name in first if second[name] != first[name]} == {f"{TEXT}/tests.json"}
    warm.make("redo", RUN="redone", STAGE="agent", IDS="all")
    assert not states(warm, "redone", "agent.json") and not states(warm, "redone", "tests.json")
    warm.make("run", RUN="redone")
    assert states(warm, "redone").keys() == first.keys()
    assert "STAGE" in warm.make("redo", RUN="redone", IDS=TEXT, code=2).stderr


def test_a_stopped_run_ends_what_it_is_at_starts_nothing_more_and_goes_on_when_told(warm: Place, agent, tmp_path: Path):
    log, options = tmp_path / "log", {"DATASET": "sample", "FEEDBACK": "none", "RUN": "stopped"}
    waits = agent(f'echo $AGENT_INSTANCE_ID >>{log}; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done')
    run = started(warm, "run", "-j2", AGENT=str(waits), **options)
    until(lambda: len(log_lines(log)) == 2)
    warm.make("stop", **options)
    (tmp_path / "go").touch()
    run.communicate(timeout=60)
    assert sorted(states(warm, "stopped", "agent.json")) == sorted(f"{name}/agent.json" for name in log_lines(log)) and len(log_lines(log)) == 2
    warm.make("run", "-j2", RUN="stopped")
    assert sorted(log_lines(log)) == sorted(SAMPLE_IDS) and report(warm, "stopped")["submitted_instances"] == 5


@pytest.mark.parametrize("other, said", [({"AGENT": "gold"}, "AGENT is 'null', not 'gold'"), ({"IDS": SAMPLE_IDS[0]}, "rows"), ({"TIMEOUT": "7"}, "TIMEOUT is '600', not '7'")])
def test_a_name_that_is_taken_by_another_run_is_refused(warm: Place, other: dict[str, str], said: str):
    options = {"DATASET": "sample", "AGENT": "null", "RUN": "taken", "IDS": TEXT}
    warm.make("run", **options)
    before = states(warm, "taken")
    assert said in warm.make("run", code=2, **options | other).stderr
    flags = [word for name, value in (options | other).items() for word in (f"--{'run-name' if name == 'RUN' else name.lower()}", value)]
    done = warm.run("bin/dispatch", *flags, code=2)
    assert said in done.stderr and "run 'taken'" in done.stderr
    assert states(warm, "taken") == before


@pytest.mark.parametrize("options, said", [
    ({"AGENT": "nobody"}, "no agent 'nobody'"), ({"SAMPLE": "x"}, "SAMPLE is 'x'"), ({"IDS": "nothing-1"}, "no instance 'nothing-1'"), ({"WHERE": "]"}, "WHERE"),
    ({"RUN": "../up"}, "RUN is '../up'"), ({"TIMEOUT": "soon"}, "TIMEOUT is 'soon'"), ({"DATASET": "nowhere"}, "no dataset 'nowhere'"), ({"START": "5"}, "no tasks left")])
def test_wrong_options_are_refused_before_anything_is_run(warm: Place, options: dict[str, str], said: str):
    values = {"DATASET": "sample", "AGENT": "null"} | options
    assert said in warm.make("run", code=2, **values).stderr
    flags = [word for name, value in values.items() for word in (f"--{'run-name' if name == 'RUN' else name.lower()}", value)]
    done = warm.run("bin/dispatch", *flags, code=2)
    assert done.stderr.count("\n") == 1 and said in done.stderr


def test_predictions_are_graded_and_those_without_one_left_out(warm: Place, tmp_path: Path):
    wrong = (TOOLKIT / "lib/sample/wrong-fix.diff").read_text()
    patches = {TEXT: wrong, THREE[0]: ROWS[THREE[0]]["patch"]}
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"instance_id": name, "model_name_or_path": "me", "model_patch": patch}) + "\n" for name, patch in patches.items()))
    warm.make("evaluate", "-j2", DATASET="sample", PREDICTIONS=str(tmp_path / "mine.jsonl"))
    made = report(warm, "sample-replay-mine")
    assert (made["resolved_ids"], made["unresolved_ids"], made["total_instances"]) == ([THREE[0]], [TEXT], 2)


def test_evaluate_without_predictions_runs_no_agent(place: Place):
    assert "PREDICTIONS" in place.make("evaluate", DATASET="sample", AGENT="null", code=2).stderr
    assert not (place.artifacts / "runs").exists()


def test_a_dry_run_says_what_would_be_done_and_does_none_of_it(place: Place):
    done = place.make("run", "-j2", DATASET="sample", AGENT="gold", DRY="1")
    for words in ("5 tasks", "cached: 0 of 2 mirrors", "disk: ", "cost: "):
        assert words in done.stderr
    # the rows of the dataset are what the answer is made from
    assert [file.parent for file in place.artifacts.rglob("*") if file.is_file()] in ([], [place.artifacts / "cache/datasets"] * 2)


def test_the_first_line_of_a_run_says_every_option_and_where_it_came_from(place: Place):
    place.make("run", DATASET="sample", AGENT="null", RUN="known", TIMEOUT="11")
    first = place.make("run", "KEEP=1", RUN="known", DRY="1").stderr.splitlines()[0]
    for words in ("DATASET=sample (run.json)", "AGENT=null (run.json)", "RUN=known (environment)", "TIMEOUT=11 (run.json)", "SEED= (default)", "REMOTE=https://github.com/{repo} (default)", "KEEP=1 (environment)"):
        assert words in first


def test_dispatch_is_make_run_with_options_and_an_exit_code_that_says_more(warm: Place, agent, tmp_path: Path):
    agent("exit 78", "cannot")
    flags = ("--dataset", "sample", "--workers", "2", "--sample", "2", "--start", "1", "--no-mcp", "--iterations", "3", "--timeout", "77")
    warm.run("bin/dispatch", *flags, "--agent", "null", "--run-name", "dispatched", cwd=tmp_path)
    known = json.loads((warm.artifacts / "runs/dispatched/run.json").read_text())
    assert known["instance_ids"] == SAMPLE_IDS[1:3]
    assert [known["options"][name] for name in ("MCP", "ITERATIONS", "TIMEOUT")] == ["0", "3", "77"]
    warm.run("bin/dispatch", *flags, "--agent", "./cannot", "--run-name", "cannot", cwd=tmp_path, code=1)
    assert warm.run("bin/dispatch", "--workers", "0", code=2).stderr and warm.run("bin/dispatch", "--no-such-option", code=2).stderr


def test_dispatch_means_the_folder_it_was_called_in(place: Place, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[TEXT]) + "\n")
    (tmp_path / "ids").write_text(TEXT)
    # below a folder here, and below a file in the toolkit, where make runs
    place.run("bin/dispatch", "--dataset", "rows.jsonl", "--ids", "@ids", "--agent", "null", cwd=tmp_path, ARTIFACTS="Makefile/artifacts")
    assert (tmp_path / "Makefile/artifacts/results/rows-null/report.json").is_file()


def test_clean_temp_removes_what_no_process_works_in(warm: Place):
    idle, busy = (warm.artifacts / "worktrees/cleaned" / name for name in THREE[:2])
    half = warm.artifacts / "cache/layers/half-built.making"
    for folder in (idle, busy, half):
        (folder / "testbed").mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "600"], env={"AGENT_RUN_MARK": str(idle)})
    lock = warm.artifacts / "runs/cleaned" / busy.name / ".lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        warm.make("clean-temp")
    assert (idle.exists(), busy.exists(), half.exists()) == (False, True, False)
    assert sleeper.wait(5) == -9


def test_two_runs_of_one_name_share_the_work(warm: Place, agent, tmp_path: Path):
    log = tmp_path / "log"
    logs = agent(f"echo $AGENT_INSTANCE_ID >>{log}; sleep 0.5")
    runs = [started(warm, "run", "-j2", DATASET="sample", AGENT=str(logs), FEEDBACK="none", RUN="two") for _ in range(2)]
    ends = [(run.communicate(timeout=120)[1].decode(), run.returncode) for run in runs]
    assert [code for _, code in ends] == [0, 0], ends
    assert sorted(log_lines(log)) == sorted(SAMPLE_IDS) and report(warm, "two")["submitted_instances"] == 5
    assert not list((warm.artifacts / "runs/two").glob(".plan*"))


@pytest.mark.parametrize("where", ["/proc/nowhere", "a-file/below"])
def test_artifacts_that_cannot_be_written_are_said_in_one_line(place: Place, tmp_path: Path, where: str):
    (tmp_path / "a-file").touch()
    root = str(tmp_path / where)
    for words in (("bin/tasks", "--dataset", "sample"), ("bin/run-agent", "--dataset", "sample", "--agent", "null", TEXT)):
        done = place.run(*words, code=1, ARTIFACTS=root)
        assert done.stderr.count("\n") == 1 and root in done.stderr
    lines = place.make("run", DATASET="sample", AGENT="null", code=2, ARTIFACTS=root).stderr.splitlines()
    assert len([line for line in lines if root in line]) == 1 and "Traceback" not in str(lines)


def test_artifacts_with_a_space_are_refused_in_one_line(place: Place, tmp_path: Path):
    for words in (("bin/tasks", "--dataset", "sample"), ("bin/make-worktree", TEXT), ("bin/collect", "--run", "x"), ("scripts/clean-temp",)):
        done = place.run(*words, code=2, ARTIFACTS=f"{tmp_path}/a b")
        assert done.stderr.count("\n") == 1 and "space" in done.stderr
    assert "space" in place.make("run", f"ARTIFACTS={tmp_path}/a b", "DATASET=sample", "AGENT=null", code=2).stderr
    assert not (tmp_path / "a b").exists() and not (tmp_path / "a").exists()


def test_a_make_that_is_too_old_is_refused_and_told_what_is_needed(place: Place):
    for version in ("3.81", "4.1", "4.0.90"):
        assert "4.2 or newer" in place.make("help", f"MAKE_VERSION={version}", code=2).stderr
    assert "run-sample" in place.make("help", "MAKE_VERSION=4.2").stdout


def many(place: Place, tmp_path: Path, run: str, done: int) -> Path:
    """A dataset of 10,000 rows, and a run of it in which so many are done."""
    row = {"repo": "fake/repo", "base_commit": "0" * 40, "version": "1", "problem_statement": "p" * 500, "patch": "", "test_patch": "", "FAIL_TO_PASS": "[]", "PASS_TO_PASS": "[]"}
    rows = [{"instance_id": f"fake__repo-{number}"} | row for number in range(10_000)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    for one in rows[:done]:
        folder = place.artifacts / "runs" / run / one["instance_id"]
        folder.mkdir(parents=True)
        record = {"instance_id": one["instance_id"], "repo": "fake/repo", "version": "1", "model_patch": "", "model_name_or_path": "null", "resolved": False, "tests": {"status": "empty_patch"}}
        for name in ("agent.json", "tests.json"):
            (folder / name).write_text(json.dumps(record))
    return tmp_path / "many.jsonl"


@pytest.mark.parametrize("done", [9_990, pytest.param(9_000, marks=pytest.mark.slow)])
def test_a_run_may_have_ten_thousand_tasks(place: Place, tmp_path: Path, done: int):
    place.make("run", "-j2", DATASET=str(many(place, tmp_path, "many", done)), AGENT="null", RUN="many", timeout=3600)
    assert report(place, "many")["empty_patch_instances"] == 10_000
