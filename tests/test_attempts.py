"""Attempts: an agent is told what it could have found out itself, the best attempt is the prediction, and no money is burnt."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, TOOLKIT, Place

ID = "swerun-sample__textkit-14"
IDS = [name for name in ROWS if "textkit" in name]
MODULE = "src/textkit/slug.py"
BREAKS = f"echo 'raise ValueError(\"broken in attempt '$AGENT_ATTEMPT'\")' >> {MODULE}"
TEST = "tests/test_slug.py"
COSTS = """echo '{"cost_usd": 0.2, "tokens": {"input": 10}}' > "$AGENT_OUT/usage.json" """


@pytest.fixture
def run(warm: Place, tmp_path: Path, agent):
    """Run a shell script as the agent of one task: run(script, **options) -> (record, folder of its attempts)."""

    def start(script: str, code: int | None = 0, name: str = "an-agent", **options: str) -> tuple[dict[str, Any], Path]:
        words = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", value)]
        made = agent(script, name)
        done = warm.run("bin/run-agent", "--dataset", "sample", "--run", tmp_path.name, "--agent", made, *words, ID, code=code)
        folder = warm.artifacts / "runs" / tmp_path.name / ID
        return json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}, folder / "attempts"

    return start


def test_an_agent_is_told_which_visible_tests_it_broke_in_a_fresh_worktree_each_time(run):
    record, attempts = run(f"git status --porcelain > $AGENT_OUT/status; {BREAKS}", iterations="3")
    assert (record["agent"]["attempts"], record["agent"]["feedback"], record["agent"]["comparable"]) == (3, "visible", True)
    first, second = ((attempts / str(number) / "prompt.md").read_text() for number in (1, 2))
    assert ROWS[ID]["problem_statement"] in second and "broken in attempt 1" not in first
    assert "broken in attempt 1" in second and "+raise ValueError" in second and TEST in second
    assert (attempts / "2/feedback.md").read_text() in second and "broken in attempt 2" in (attempts / "3/prompt.md").read_text()
    assert [(attempts / str(number) / "status").read_text() for number in (1, 2, 3)] == [""] * 3
    hidden = [name for name in json.loads(ROWS[ID]["FAIL_TO_PASS"]) if name.split("::")[1].split("[")[0] not in subprocess.run(
        ["git", "-C", str(attempts.parents[3] / "cache/mirrors/swerun-sample__textkit.git"), "show", f"{ROWS[ID]['base_commit']}:{TEST}"], capture_output=True, text=True, check=True).stdout]
    assert hidden and not [name for name in hidden if name in second]  # nothing of the tests that decide


def test_without_reset_the_next_attempt_goes_on_in_the_worktree_and_the_session_of_the_last(run):
    script = f'echo $AGENT_SESSION:$AGENT_RESUME > $AGENT_OUT/session; [ $AGENT_ATTEMPT = 1 ] && {{ {BREAKS}; exit; }}; grep -c "broken in attempt" {MODULE} > $AGENT_OUT/found; sed -i "/broken in/d" {MODULE}; echo "# right" >> {MODULE}'
    record, attempts = run(script, reset="0", iterations="4")
    assert record["agent"]["attempts"] == record["agent"]["best_attempt"] == 2 and "# right" in record["model_patch"]
    assert (attempts / "2/found").read_text() == "1\n"
    one, two = ((attempts / str(number) / "session").read_text().strip().split(":") for number in (1, 2))
    assert one[0] == two[0] and (one[1], two[1]) == ("", "1")
    told = (attempts / "2/prompt.md").read_text()
    assert ROWS[ID]["problem_statement"] not in told and "broken in attempt 1" in told


def test_the_best_attempt_by_visible_tests_is_the_prediction_and_one_that_passes_ends_them(run):
    record, attempts = run(f'case $AGENT_ATTEMPT in 1) {BREAKS};; 2) sed -i "s/lower()/upper()/" {MODULE};; *) {BREAKS};; esac', iterations="3")
    assert record["agent"]["attempts"] == 3 and record["agent"]["best_attempt"] == 2 and "upper()" in record["model_patch"]
    record, attempts = run("echo '# fine' >> src/textkit/slug.py", iterations="5", name="other", run=attempts.parents[1].name + "-b")
    assert record["agent"]["attempts"] == 1


def test_a_test_that_the_agent_wrote_is_run_too_and_one_that_fails_anyway_is_not_its_fault(run):
    own = "printf 'def test_mine():\\n    assert 1 == 2, \"my own test\"\\n' > tests/test_mine.py"
    record, attempts = run(f"{own}; echo '# x' >> {MODULE}", iterations="2")
    assert record["agent"]["attempts"] == 2 and "my own test" in (attempts / "2/prompt.md").read_text() and "test_mine" in (attempts / "2/feedback.md").read_text()


def test_an_empty_patch_gets_one_nudge_and_feedback_none_one_attempt(run, tmp_path: Path):
    record, attempts = run("true", iterations="5")
    assert record["agent"]["attempts"] == 2 and "left no change" in (attempts / "2/prompt.md").read_text()
    record, _ = run(BREAKS, feedback="none", iterations="5", run=f"{tmp_path.name}-none", name="none")
    assert record["agent"]["attempts"] == 1 and record["agent"]["feedback"] == "none"


def test_hidden_feedback_names_the_grading_tests_and_marks_every_result_and_report(run, warm: Place, tmp_path: Path):
    record, attempts = run("echo '# nothing' >> README.md", feedback="hidden", iterations="2")
    assert json.loads(ROWS[ID]["FAIL_TO_PASS"])[0] in (attempts / "2/prompt.md").read_text()
    assert record["agent"]["comparable"] is False
    graded = warm.records("bin/run-tests", "--run", tmp_path.name, input=json.dumps(record) + "\n")
    assert graded[0]["agent"]["comparable"] is False
    done = warm.run("bin/collect", "--run", tmp_path.name)
    assert "not comparable" in done.stdout + done.stderr
    assert "not comparable" in json.dumps(json.loads((warm.artifacts / "results" / tmp_path.name / "report.json").read_text()))


def test_an_attempt_that_has_ended_is_not_paid_for_again_after_a_kill(run, warm: Place, tmp_path: Path, agent):
    made = agent(f"echo $AGENT_ATTEMPT >> {tmp_path}/started; {COSTS}; [ $AGENT_ATTEMPT = 2 ] && [ ! -e {tmp_path}/killed ] && {{ touch {tmp_path}/killed; kill -9 $PPID; }}; {BREAKS}")
    words = ("bin/run-agent", "--dataset", "sample", "--run", tmp_path.name, "--agent", made, "--iterations", "3", ID)
    assert warm.run(*words, code=None).returncode in (-9, 137)
    [record] = warm.records(*words)
    assert (tmp_path / "started").read_text().split() == ["1", "2", "2", "3"]
    assert record["agent"]["attempts"] == 3 and record["agent"]["cost_usd"] == pytest.approx(0.6)
    costs = [json.loads(line) for line in (warm.artifacts / "runs" / tmp_path.name / "costs.jsonl").read_text().splitlines()]
    assert sum(entry["event"] == "start" for entry in costs) == sum(entry["event"] == "end" for entry in costs) == 4
    assert [entry["usd"] for entry in costs if entry.get("assumed")] == [pytest.approx(0.2)]  # what the killed one was expected to cost


def test_a_task_stops_where_its_cost_reaches_its_cap_and_the_agent_is_told_what_is_left(run):
    record, attempts = run(f"echo $AGENT_MAX_COST > $AGENT_OUT/cap; {COSTS}; {BREAKS}", max_cost="0.5", iterations="9")
    assert record["agent"]["attempts"] == 3
    assert [float((attempts / str(number) / "cap").read_text()) for number in (1, 2, 3)] == pytest.approx([0.5, 0.3, 0.1])


@pytest.mark.parametrize("known", ["0.2", ""], ids=["cap", "no-cap"])
def test_a_budget_is_passed_by_one_task_at_most_and_the_run_says_how_to_go_on(warm: Place, agent, tmp_path: Path, known: str):
    made = agent(f"sleep 1; {COSTS}; echo '# fine' >> README.md")
    env = {"DATASET": "sample", "AGENT": str(made), "RUN": tmp_path.name, "BUDGET": "0.50", "FEEDBACK": "none"} | ({"MAX_COST": known} if known else {})
    done = warm.run("make", "-s", "run", "-j4", code=2, **env)
    spent = sum(json.loads(line)["usd"] for line in (warm.artifacts / "runs" / tmp_path.name / "costs.jsonl").read_text().splitlines() if '"end"' in line)
    assert 0.3 < spent <= 0.7 + 1e-9 and spent == pytest.approx(0.4)
    assert "was stopped: BUDGET is 0.5 $" in done.stderr and "goes on" in done.stderr
    graded = list(warm.artifacts.glob(f"runs/{tmp_path.name}/*/tests.json"))
    assert len(graded) == len(list(warm.artifacts.glob(f"runs/{tmp_path.name}/*/agent.json"))) == 2  # what was paid for is graded
    warm.run("make", "-s", "run", "-j4", **env | {"BUDGET": "9"})
    assert len(list(warm.artifacts.glob(f"runs/{tmp_path.name}/*/tests.json"))) == 5


def test_what_a_killed_process_had_begun_counts_and_nobody_waits_for_it(warm: Place, agent, tmp_path: Path):
    made = agent(f"[ $AGENT_INSTANCE_ID = {ID} ] && [ ! -e {tmp_path}/killed ] && {{ touch {tmp_path}/killed; kill -9 $PPID; sleep 9; }}; {COSTS}; echo '# x' >> README.md")
    words = ("bin/run-agent", "--dataset", "sample", "--run", tmp_path.name, "--agent", made, "--budget", "0.5", "--max-cost", "0.3", "--feedback", "none")
    assert warm.run(*words, ID, code=None).returncode in (-9, 137)
    [record] = warm.records(*words, IDS[1], timeout=60)  # the killed one counts with half of what it might have cost
    assert record["agent"]["cost_usd"] == 0.2
    done = warm.run(*words, ID, code=1, timeout=60)  # and its task is not shut out: it is the budget that has no room
    assert "BUDGET is 0.5 $, 0.35 $ are spent and one more attempt may cost 0.30 $" in done.stderr


def test_what_a_killed_agent_left_in_place_of_its_usage_shuts_nobody_out(warm: Place, agent, tmp_path: Path):
    made = agent(f"[ -e {tmp_path}/killed ] || {{ touch {tmp_path}/killed; mkdir $AGENT_OUT/usage.json; kill -9 $PPID; sleep 9; }}; echo '# x' >> README.md")
    words = ("bin/run-agent", "--dataset", "sample", "--run", tmp_path.name, "--agent", made, "--max-cost", "0.3", "--feedback", "none", ID)
    assert warm.run(*words, code=None).returncode in (-9, 137)
    assert "+# x" in warm.records(*words, timeout=60)[0]["model_patch"]


def test_leave_that_was_given_for_what_never_started_costs_nothing(warm: Place, agent, tmp_path: Path):
    rows = [ROWS[ID] | {"repo": "no/where", "instance_id": "nowhere", "base_commit": "1" * 40}, ROWS[ID]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = {"DATASET": str(tmp_path / "rows.jsonl"), "AGENT": str(agent(f"{COSTS}; echo '# x' >> README.md")), "RUN": tmp_path.name, "BUDGET": "0.3", "FEEDBACK": "none", "REMOTE": f"{tmp_path}/no"}
    done = warm.run("make", "-s", "run", "-j1", code=2, **env)
    assert "nowhere: failed" in done.stderr and "was stopped" not in done.stderr
    assert warm.state(tmp_path.name, ID, "tests.json")["agent"]["cost_usd"] == 0.2


def test_caps_given_at_once_never_pass_the_budget(warm: Place, agent, tmp_path: Path):
    spends_all = agent('c=0.02; [ "$(cat $COUNT/n 2>/dev/null)" ] && c=$AGENT_MAX_COST; echo x >> $COUNT/n; echo "{\\"cost_usd\\": $c}" > $AGENT_OUT/usage.json; sleep 1; echo "# x" >> README.md'.replace("$COUNT", str(tmp_path)).replace('\\\\"', '\\"'))
    warm.run("make", "-s", "run", "-j4", code=None, DATASET="sample", AGENT=str(spends_all), RUN=tmp_path.name, BUDGET="0.10", FEEDBACK="none")
    spent = sum(json.loads(line)["usd"] for line in (warm.artifacts / "runs" / tmp_path.name / "costs.jsonl").read_text().splitlines() if '"end"' in line)
    assert 0.05 < spent <= 0.10 + 1e-9


def test_redo_asks_the_agent_again(run, warm: Place, tmp_path: Path):
    run(f"echo x >> {tmp_path}/started; echo '# x' >> README.md", feedback="none")
    warm.run("make", "-s", "redo", RUN=tmp_path.name, STAGE="agent", IDS=ID)
    run(f"echo x >> {tmp_path}/started; echo '# x' >> README.md", feedback="none")
    assert (tmp_path / "started").read_text() == "x\nx\n"


def test_where_the_budget_ends_between_attempts_those_that_were_paid_for_decide(run):
    record, _ = run(f"{COSTS}; {BREAKS}", budget="0.45", iterations="5")
    assert record["agent"]["attempts"] == 2 and record["agent"]["cost_usd"] == pytest.approx(0.4) and "broken in attempt" in record["model_patch"]


def test_tests_that_an_attempt_removed_are_missed(run):
    record, attempts = run(f"{BREAKS}; git rm -q {TEST}", iterations="2")
    assert record["agent"]["attempts"] == 2 and "did not run at all" in (attempts / "2/feedback.md").read_text()


def test_only_new_tests_run_alone(run):
    record, attempts = run("printf 'def test_new():\n    assert True\n' > tests/test_new.py", iterations="3")
    assert record["agent"]["attempts"] == 1


def test_a_suite_that_prints_bytes_is_judged(run):
    record, _ = run("printf 'import os\ndef test_new():\n    os.write(1, bytes([255]))\n    assert True\n' > tests/test_new.py", iterations="3")
    assert record["agent"]["attempts"] == 1 and record["agent"]["status"] == "completed"


LITTER = {
    "a folder": "mkdir $AGENT_OUT/usage.json $AGENT_OUT/patch.diff", "deep": "python3 -c 'print(\"[\" * 900 + \"]\" * 900)' > $AGENT_OUT/usage.json",
    "a link": "ln -s /etc/passwd $AGENT_OUT/usage.json", "a forged attempt": "mkdir -p $AGENT_OUT/../2; echo '{}' > $AGENT_OUT/../2/attempt.json; echo '{}' > $AGENT_OUT/attempt.json",
    "odd kinds": """echo '{"cost_usd": "9", "tokens": {"input": "x", "output": -1}, "mcp_servers": 5, "notes": {"a": 1}, "status": [], "turns": 1e400}' > $AGENT_OUT/usage.json""",
}


@pytest.mark.parametrize("what", list(LITTER))
def test_what_an_agent_leaves_where_its_usage_belongs_costs_no_attempt(run, what: str):
    record, _ = run(f"{LITTER[what]}; echo '# x' >> README.md", iterations="2")
    assert record["agent"]["status"] == "completed" and record["agent"]["cost_usd"] is None and "+# x" in record["model_patch"]


def test_one_that_says_try_later_is_started_again_in_its_session_when_all_may(run, warm: Place, tmp_path: Path):
    script = f"""echo "$AGENT_SESSION $AGENT_RESUME" >> {tmp_path}/starts; echo half >> half.txt
        [ $(wc -l < {tmp_path}/starts) -gt 2 ] || {{ echo '{{"cost_usd": 0.1}}' > $AGENT_OUT/usage.json; echo 'rate limited' >&2; exit 75; }}
        echo '{{"cost_usd": 0.3}}' > $AGENT_OUT/usage.json"""
    record, _ = run(script, name="limited")
    starts = [line.split() for line in (tmp_path / "starts").read_text().splitlines()]
    assert len(starts) == 3 and len({line[0] for line in starts}) == 1 and [line[1:] for line in starts] == [[], ["1"], ["1"]]
    assert record["model_patch"].count("+half") == 3 and record["agent"]["cost_usd"] == pytest.approx(0.5) and record["agent"]["waited_seconds"] > 5
    assert not (warm.artifacts / "cache/backoff/limited.json").exists()


def test_one_limit_makes_all_workers_wait(warm: Place, agent, tmp_path: Path):
    made = agent(f"""date +%s.%N >> {tmp_path}/starts
        if mkdir {tmp_path}/first 2>/dev/null; then sleep 0.5; echo "until=$(( $(date +%s) + 8 ))" > {tmp_path}/until
        echo "{{\\"retry_at\\": $(( $(date +%s) + 8 ))}}" > $AGENT_OUT/usage.json; echo limited >&2; exit 75; fi
        sleep 2; echo '# x' >> README.md""", "shared-limit")
    warm.run("make", "-s", "run", "-j2", DATASET="sample", AGENT=str(made), RUN=tmp_path.name, FEEDBACK="none", IDS=" ".join(IDS))
    until = float((tmp_path / "until").read_text().split("=")[1])
    starts = sorted(float(line) for line in (tmp_path / "starts").read_text().split())
    assert len(starts) == 4 and sum(start < until - 7 for start in starts) <= 2 and all(start >= until - 0.1 for start in starts[2:])


def test_an_agent_that_cannot_run_stops_the_run_with_one_line(warm: Place, agent, tmp_path: Path):
    made = agent(f"echo x >> {tmp_path}/started; echo 'the log-in has expired' >&2; exit 78")
    done = warm.run("make", "-s", "run", "-j1", DATASET="sample", AGENT=str(made), RUN=tmp_path.name, code=2)
    assert (tmp_path / "started").read_text() == "x\n" and not list(warm.artifacts.glob(f"runs/{tmp_path.name}/*/agent.json"))
    assert len(re.findall(r"was stopped: .*the log-in has expired", done.stderr)) == 1
    made.write_text("#!/bin/sh\necho '# x' >> README.md\n")
    warm.run("make", "-s", "run", "-j2", DATASET="sample", AGENT=str(made), RUN=tmp_path.name)


def test_make_stop_finishes_what_runs_and_starts_no_more(warm: Place, agent, tmp_path: Path):
    made = agent(f"touch {tmp_path}/$AGENT_INSTANCE_ID; sleep 4; echo '# x' >> README.md")
    env = warm.env | {"DATASET": "sample", "AGENT": str(made), "RUN": tmp_path.name}
    process = subprocess.Popen(["make", "-s", "-C", str(TOOLKIT), "run", "-j2"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    limit = time.monotonic() + 60
    while len(list(tmp_path.glob("swerun*"))) < 2:
        assert time.monotonic() < limit
        time.sleep(0.1)
    warm.run("make", "-s", "stop", RUN=tmp_path.name)
    process.communicate(timeout=120)
    assert len(list(tmp_path.glob("swerun*"))) == len(list(warm.artifacts.glob(f"runs/{tmp_path.name}/*/agent.json"))) == 2


PATCH = ROWS[ID]["patch"]
SAID = {
    "fenced": f"Here it is:\n\n```diff\n{PATCH}```\nDone.\n",
    "marked": f"Thoughts with a ```diff\n--- a/x\n+++ b/x\n``` in them\n<FINAL_DIFF>\n{PATCH}</FINAL_DIFF>\n",
    "bare": f"I would do:\n{PATCH}",
    "wrong counts": "```diff\n" + re.sub(r"^@@ -(\d+),\d+ \+(\d+),\d+ @@", r"@@ -\1,3 +\2,9 @@", PATCH, flags=re.M) + "```\n",
    "crlf": f"```diff\n{PATCH}```\n".replace("\n", "\r\n"),
}


@pytest.mark.parametrize("way", list(SAID))
def test_a_patch_in_what_the_agent_said_is_taken_and_what_was_done_to_it_recorded(run, warm: Place, tmp_path: Path, way: str):
    (tmp_path / "said").write_bytes(SAID[way].encode())
    record, _ = run(f"cat {tmp_path}/said", feedback="none")
    assert record["agent"]["extracted"]["source"] == ("final diff" if way == "marked" else "printed diff")
    assert record["agent"]["extracted"]["applied"].startswith("git apply") and ("--recount" in record["agent"]["extracted"]["applied"]) == (way == "wrong counts")
    [graded] = warm.records("bin/run-tests", input=json.dumps(record) + "\n")
    assert graded["resolved"]


def test_whole_files_in_what_the_agent_said_are_taken_and_pieces_of_one_are_not(run, tmp_path: Path):
    (tmp_path / "said").write_text(f"The file `{MODULE}` becomes:\n```python\n" + "x = 1\n" * 60 + f"```\nas `tests/test_slug.py` says:\n```python\nimport pytest\n```\n")
    record, _ = run(f"cat {tmp_path}/said", feedback="none")
    assert record["agent"]["extracted"] == {"source": "whole files", "applied": None}
    assert re.findall(r"^diff --git a/(\S+)", record["model_patch"], re.M) == [MODULE] and record["model_patch"].count("\n+x = 1") == 60


def test_a_diff_of_another_commit_is_merged(run, tmp_path: Path):
    moved = re.sub(r"^@@ -(\d+),(\d+) \+(\d+),(\d+) @@.*$", lambda found: f"@@ -{int(found[1]) + 40},{found[2]} +{int(found[3]) + 40},{found[4]} @@", PATCH, flags=re.M)
    (tmp_path / "said").write_text(f"```diff\n{moved}```\n")
    record, _ = run(f"cat {tmp_path}/said", feedback="none")
    assert record["agent"]["extracted"]["applied"] and "max_length" in record["model_patch"]


FLOODS = {
    "100 MB": 'head -c 100000000 /dev/zero | tr "\\0" x',
    "no UTF-8": "head -c 100000 /dev/urandom; echo '{\"type\": \"half' > $AGENT_OUT/transcript.jsonl; head -c 1000 /dev/urandom >> $AGENT_OUT/transcript.jsonl",
    "half a line of JSON": "printf '{\"cost_usd\": 0.' > $AGENT_OUT/usage.json; printf '{\"type\":\"resu' > $AGENT_OUT/transcript.jsonl",
    "commits": "git add -A; git -c user.name=a -c user.email=a@b commit -qam x",
    "another branch": "git checkout -qb other; git -c user.name=a -c user.email=a@b commit -qam x; git checkout -q main 2>/dev/null",
    "no .git": "rm -rf .git",
}


@pytest.mark.parametrize("what", list(FLOODS))
def test_whatever_an_agent_does_besides_its_patch_is_right(run, what: str):
    record, _ = run(f"echo '# fine' >> README.md; {FLOODS[what]}; grep -q fine README.md || echo '# fine' >> README.md", feedback="none")
    assert record["agent"]["status"] in ("completed", "error") and record["model_patch"].count("diff --git") == 1 and "+# fine" in record["model_patch"]


def test_ten_thousand_files_are_in_the_patch(run):
    record, _ = run("mkdir many; for i in $(seq 10000); do echo $i > many/$i; done", feedback="none")
    assert record["model_patch"].count("diff --git") == 10000


def test_an_edit_of_the_linked_configuration_is_in_no_patch_and_is_said(run, tmp_path: Path, monkeypatch):
    (tmp_path / "config/.claude").mkdir(parents=True)
    (tmp_path / "config/.claude/settings.json").write_text("{}")
    (tmp_path / "config/.claude/projects").mkdir()
    record, _ = run("ls -a .claude > $AGENT_OUT/there; echo ' ' >> .claude/settings.json; echo '# x' >> README.md", config=str(tmp_path / "config"), feedback="none")
    assert record["model_patch"].count("diff --git") == 1
    assert "the agent changed the linked configuration" in record["agent"]["notes"][0] and "settings.json" in record["agent"]["notes"][0]


def test_check_says_what_is_missing_and_what_is_right(warm: Place, agent):
    good = agent(f"{COSTS}; echo '{{}}' > $AGENT_OUT/transcript.jsonl; echo '# x' >> README.md", "good")
    said = warm.run("bin/run-agent", "--check", good).stderr
    assert said.count("ok: ") == 3 and "missing" not in said and "note:" not in said
    assert "missing: it changed nothing" in warm.run("bin/run-agent", "--check", agent("true", "idle"), code=1).stderr
    needs = agent("# agent: hosts=api.example.com env=NO_SUCH_KEY needs=no-such-cli install='get it'\ntrue", "needs")
    said = warm.run("bin/run-agent", "--check", needs, code=1).stderr
    assert "no 'no-such-cli' on PATH" in said and "set NO_SUCH_KEY" in said
    assert "declares 'colour'" in warm.run("bin/run-agent", "--check", agent("# agent: colour=red\ntrue", "odd"), code=2).stderr


def test_dry_gives_the_bound_on_cost(warm: Place, agent):
    made = agent("true")
    env = {"DATASET": "sample", "AGENT": str(made), "RUN": "bound", "DRY": "1"}
    assert "at most 2.50 $" in warm.run("make", "-s", "run", MAX_COST="0.5", **env).stderr
    assert "at most 1.00 $" in warm.run("make", "-s", "run", MAX_COST="0.5", BUDGET="1", **env).stderr
    assert "no bound" in warm.run("make", "-s", "run", **env).stderr


def test_the_readmes_five_lines_are_an_agent(warm: Place, tmp_path: Path):
    [script] = re.findall(r"```bash\n(#!/bin/bash\n# agent: .*?)```", (TOOLKIT / "README.md").read_text(), re.S)
    assert len(script.strip().splitlines()) <= 6
    (tmp_path / "five").write_text(script)
    (tmp_path / "five").chmod(0o755)
    (tmp_path / "script.json").write_text(json.dumps([{"text": f"It is:\n<FINAL_DIFF>\n{PATCH}</FINAL_DIFF>"}]))
    server = subprocess.Popen([TOOLKIT / ".venv/bin/python", TOOLKIT / "tests/scripted_api.py", tmp_path / "script.json", "--sequential"], stdout=subprocess.PIPE, text=True)
    try:
        env = {"ANTHROPIC_BASE_URL": server.stdout.readline().strip(), "ANTHROPIC_API_KEY": "dummy", "DATASET": "sample", "AGENT": str(tmp_path / "five"), "RUN": "five-lines", "IDS": ID}
        warm.run("make", "-s", "run", "-j1", **env)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    assert warm.state("five-lines", ID, "tests.json")["resolved"]


assert os.environ["ARTIFACTS"].startswith("/dev/null")
