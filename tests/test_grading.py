"""run-tests: what it judges and by whose word, what it puts back, what it leaves behind."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place

TEXT, C = "swerun-sample__textkit-19", "swerun-sample__gridlab-11"
WRONG_FIX = (TOOLKIT / "lib/sample/wrong-fix.diff").read_text()
PYTHON = TOOLKIT / ".venv/bin/python"
OFFICIAL = """
import json, sys
from swebench.harness.grading import get_eval_report
from swebench.types import TestSpec
for row, patch, log in json.load(sys.stdin):
    spec = TestSpec(row["instance_id"], "", [], row["repo"], row["version"], json.loads(row["FAIL_TO_PASS"]), json.loads(row["PASS_TO_PASS"]),
                    row["install_config"]["log_parser"], "pass_and_fail")
    report = get_eval_report(spec, {"instance_id": row["instance_id"], "model_patch": patch}, log, True)[row["instance_id"]]
    counts = {kind: {how: len(names) for how, names in report.get("tests_status", {}).get(kind, {"success": (), "failure": ()}).items()} for kind in ("FAIL_TO_PASS", "PASS_TO_PASS")}
    print(json.dumps([report["resolved"], counts]))
"""
EVERYTHING_PASSES = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""


@pytest.fixture
def edited(tmp_path: Path):
    """Make a patch: edited(instance_id, edit) gives the diff of what edit(checkout) changed at the base commit."""

    def make(instance_id: str, edit, gold: bool = False) -> str:
        row, checkout = ROWS[instance_id], tmp_path / "edited"
        git = lambda *words, **more: subprocess.run(["git", "-C", checkout, *words], check=True, capture_output=True, text=True, **more).stdout
        subprocess.run(["git", "clone", "-q", TOOLKIT / "lib/sample" / f"{row['repo'].replace('/', '__')}.bundle", checkout], check=True)
        git("checkout", "-q", row["base_commit"])
        if gold:
            git("apply", input=row["patch"])
        edit(checkout)
        git("add", "-A")
        patch = git("diff", "--cached", row["base_commit"])
        shutil.rmtree(checkout)
        return patch

    return make


def graded(place: Place, run: str, instance_id: str, patch: str, **env: str) -> dict:
    record = {"instance_id": instance_id, "dataset": "sample", "run": run, "model_patch": patch, "model_name_or_path": "a-test"}
    return place.records("bin/run-tests", input=json.dumps(record) + "\n", **env)[0]


def log_of(place: Place, record: dict) -> Path:
    return place.artifacts / "runs" / record["run"] / record["instance_id"] / "test_output.txt"


def counts(record: dict) -> dict:
    return {name: record["tests"][name] for name in ("FAIL_TO_PASS", "PASS_TO_PASS")}


def test_a_fix_that_breaks_another_test_is_not_resolved(warm: Place):
    made = graded(warm, "wrong-fix", TEXT, WRONG_FIX)
    assert counts(made) == {"FAIL_TO_PASS": {"success": 2, "failure": 0}, "PASS_TO_PASS": {"success": 5, "failure": 1}}
    assert (made["resolved"], made["tests"]["status"]) == (False, "ran")


def test_the_c_task_resolves_only_because_its_extension_was_rebuilt(warm: Place):
    made = graded(warm, "c-gold", C, ROWS[C]["patch"], KEEP="1")
    assert made["resolved"]
    place = warm.artifacts / "worktrees/c-gold" / C / "grading"
    (rebuilt,) = (place / "testbed").glob("gridlab/_core*.so")
    (old,) = (warm.artifacts / "cache/layers").glob(f"*{ROWS[C]['base_commit'][:12]}*/kept/testbed/gridlab/{rebuilt.name}")
    assert rebuilt.read_bytes() != old.read_bytes()
    shutil.copy(old, rebuilt)
    again = warm.run(place / "venv/bin/python", "-m", "pytest", "-q", "tests/test_fill.py", cwd=place / "testbed", code=1)
    assert "3 failed" in again.stdout


def test_c_code_that_does_not_compile_is_an_unresolved_patch_and_no_failure_of_the_machine(warm: Place, edited):
    broken = edited(C, lambda at: (at / "gridlab/_core.c").write_text("#error broken\n" + (at / "gridlab/_core.c").read_text()), gold=True)
    made = graded(warm, "c-broken", C, broken)
    assert not made["resolved"] and made["tests"]["FAIL_TO_PASS"]["success"] == 0
    assert "#error broken" in warm.state("c-broken", C, "setup.log")
    assert warm.state("c-broken", C, "tests.json") == made


def test_an_empty_patch_is_an_outcome_without_a_test_run(warm: Place):
    for patch in ("", " \n"):
        made = graded(warm, "empty", TEXT, patch)
        assert (made["resolved"], made["tests"]["status"], log_of(warm, made).exists()) == (False, "empty_patch", False)


def test_a_patch_that_does_not_apply_is_an_outcome_without_a_test_run(warm: Place):
    made = graded(warm, "does-not-apply", TEXT, WRONG_FIX.replace("src/textkit/template.py", "src/textkit/elsewhere.py"))
    assert (made["resolved"], made["tests"]["status"], log_of(warm, made).exists()) == (False, "patch_failed", False)
    assert "elsewhere.py" in warm.state("does-not-apply", TEXT, "setup.log")


@pytest.mark.parametrize("patch", ["", "no diff at all\n"], ids=["empty", "failed"])
def test_the_log_of_an_earlier_patch_does_not_stay_beside_the_verdict_of_another(warm: Place, patch: str):
    run = f"stale-{bool(patch)}"
    assert log_of(warm, graded(warm, run, TEXT, ROWS[TEXT]["patch"])).exists()
    assert not log_of(warm, graded(warm, run, TEXT, patch)).exists()


def rewritten(at: Path) -> None:
    names = ("test_zero_is_a_value", "test_false_and_the_empty_string_are_values")
    (at / "tests/test_template.py").write_text("".join(f"def {name}():\n    pass\n" for name in names))


def deleted(at: Path) -> None:
    (at / "tests/test_template.py").unlink()


def a_folder(at: Path) -> None:
    deleted(at)
    (at / "tests/test_template.py").mkdir()
    (at / "tests/test_template.py/inside.py").write_text("")


def a_link(at: Path) -> None:
    rewritten(at)
    (at / "tests/test_template.py").rename(at / "tests/elsewhere.py")
    (at / "tests/test_template.py").symlink_to("elsewhere.py")


@pytest.mark.parametrize("edit", [rewritten, deleted, a_folder, a_link])
def test_what_a_patch_does_to_the_tests_is_undone(warm: Place, edited, edit):
    assert counts(graded(warm, edit.__name__, TEXT, edited(TEXT, edit)))["FAIL_TO_PASS"] == {"success": 0, "failure": 2}
    assert graded(warm, edit.__name__, TEXT, edited(TEXT, edit, gold=True))["resolved"]


def test_tests_that_hang_time_out_and_nothing_of_them_stays_alive(warm: Place, edited):
    seconds = str(10**6 + os.getpid())
    hang = f"import subprocess, time\nsubprocess.Popen(['sleep', '{seconds}'], env={{}}, start_new_session=True)\nsubprocess.Popen(['sleep', '{seconds}'])\ntime.sleep({seconds})\n"
    start = time.monotonic()
    made = graded(warm, "hangs", TEXT, edited(TEXT, lambda at: (at / "src/textkit/template.py").write_text(hang)), TEST_TIMEOUT="4")
    assert time.monotonic() - start < 20
    assert (made["resolved"], made["tests"]["status"]) == (False, "timeout")
    assert "4 seconds" in log_of(warm, made).read_text()
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if os.access(file, os.R_OK)]
    assert f"sleep\0{seconds}\0".encode() not in commands


def test_the_official_package_gives_the_same_verdict_on_the_same_log(warm: Place, edited):
    does_not_import = edited(TEXT, lambda at: (at / "src/textkit/__init__.py").write_text("import nothing_of_that_name\n"))
    exits = edited(TEXT, lambda at: (at / "src/textkit/template.py").write_text("import os\nos._exit(0)\n"))
    patches = [(TEXT, ROWS[TEXT]["patch"]), (TEXT, WRONG_FIX), (TEXT, does_not_import), (TEXT, exits)]
    ours, asked = [], []
    for number, (instance_id, patch) in enumerate(patches):
        made = graded(warm, f"official-{number}", instance_id, patch)
        ours.append([made["resolved"], counts(made)])
        asked.append([ROWS[instance_id] | {"install_config": config(instance_id)}, patch, str(log_of(warm, made))])
    theirs = [json.loads(line) for line in warm.run(PYTHON, "-c", OFFICIAL, input=json.dumps(asked)).stdout.splitlines()]
    assert ours == theirs
    assert [resolved for resolved, _ in ours] == [True, False, False, False]


def config(instance_id: str) -> dict:
    found = ROWS[instance_id]["install_config"]
    return json.loads(found) if isinstance(found, str) else found


def test_verdicts_come_from_the_swebench_they_were_written_for_and_cost_no_second():
    program = """
import importlib.metadata, resource, sys
from swerun import verdicts
assert verdicts.parsers()
used = resource.getrusage(resource.RUSAGE_SELF)
print(verdicts.VERSION, importlib.metadata.version("swebench"), used.ru_utime + used.ru_stime, *sorted({name.split(".")[0] for name in sys.modules} & {"docker", "datasets", "modal"}))
"""
    wanted, installed, cpu, *heavy = subprocess.run([PYTHON, "-I", "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert wanted == installed == "5.0.2"
    assert float(cpu) < 1 and not heavy


def test_the_same_record_graded_twice_gives_the_same_verdict(warm: Place):
    first, second = (graded(warm, "twice", TEXT, WRONG_FIX) for _ in range(2))
    for made in (first, second):
        del made["tests"]["seconds"], made["tests"]["overhead_seconds"]
    assert first == second


def test_grading_without_a_patch_is_an_error_of_one_line_that_names_what_is_missing(warm: Place):
    done = warm.run("bin/run-tests", "--dataset", "sample", "--run", "no-agent", TEXT, code=1)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"{TEXT}: failed: no model_patch" in done.stderr and "run-agent" in done.stderr
    assert not (warm.artifacts / "runs/no-agent" / TEXT / "tests.json").exists()


def test_worktrees_are_gone_after_grading_unless_they_are_to_be_kept(warm: Place):
    for keep in ("0", "1"):
        graded(warm, f"keep-{keep}", TEXT, WRONG_FIX, KEEP=keep)
        assert (warm.artifacts / f"worktrees/keep-{keep}" / TEXT).exists() == (keep == "1")


def test_what_an_agent_leaves_in_its_worktree_and_venv_does_not_reach_grading(warm: Place, agent, tmp_path: Path):
    (tmp_path / "conftest.py").write_text(EVERYTHING_PASSES)
    cheat = agent(f"""
echo /conftest.py >>.gitignore && cp {tmp_path}/conftest.py . || exit 1
for packages in "$VIRTUAL_ENV"/lib/python*/site-packages; do echo 'open("{tmp_path}/seen", "a").write("x")' >"$packages/sitecustomize.py"; done
python -c pass""")
    task = warm.run("bin/tasks", "--dataset", "sample", "--run", "cheat", TEXT).stdout
    ready = warm.run("bin/setup-venv", input=warm.run("bin/make-worktree", input=task).stdout)
    done = warm.records("bin/run-agent", "--agent", cheat, input=ready.stdout)[0]
    assert (tmp_path / "seen").exists() and Path(done["worktree"], "conftest.py").exists()
    cheated = warm.run(Path(done["venv"], "bin/python"), "-m", "pytest", "-q", "tests", cwd=Path(done["worktree"]))
    assert "passed" in cheated.stdout
    (tmp_path / "seen").unlink()
    made = warm.records("bin/run-tests", input=json.dumps(done) + "\n", KEEP="1")[0]
    assert counts(made)["FAIL_TO_PASS"] == {"success": 0, "failure": 2} and not made["resolved"]
    assert not (tmp_path / "seen").exists()


def test_no_record_carries_a_test_name_or_a_reference_patch(warm: Place):
    stages = ("bin/tasks", "bin/make-worktree", "bin/setup-venv", "bin/run-agent", "bin/run-tests")
    record, told = TEXT, []
    for words in (stages[:1] + ("--dataset", "sample", "--run", "names", TEXT), *((stage,) for stage in stages[1:3]), (stages[3], "--agent", "null")):
        record = warm.run(*words, input=None if words[0] == "bin/tasks" else record).stdout
        told.append(record)
    told.append(warm.run("bin/run-tests", input=json.dumps(json.loads(record) | {"model_patch": WRONG_FIX}) + "\n").stdout)
    told += [file.read_text() for file in (warm.artifacts / "runs/names").rglob("*.json")]
    assert len(told) >= 9
    names = [name for kind in ("FAIL_TO_PASS", "PASS_TO_PASS") for name in json.loads(ROWS[TEXT][kind])]
    for text in told:
        assert not [name for name in names if name.partition("::")[2] in text]
        assert not {"patch", "test_patch"} & json.loads(text).keys()
