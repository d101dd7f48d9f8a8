"""make validate: what it runs, what it tells, what it keeps in the ledger, and who reads that."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROWS, SAMPLE_IDS, TOOLKIT, Place

TEXT = "swerun-sample__textkit-19"
THREE = [name for name in SAMPLE_IDS if "textkit" in name]
OURS = TOOLKIT / "lib/swerun/ledger"
# what a command opens and imports, from inside it
WATCHED = """
import runpy, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "os.listdir", "os.scandir") else None)
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("watched", *opened, *(name for name in sys.modules if name.startswith("swerun.")), sep="\\n", file=sys.stderr)
"""


def validate(place: Place, ledger: Path, *flags: str, code: int = 0, **env: str) -> subprocess.CompletedProcess:
    return place.make("validate", "-j2", *flags, code=code, LEDGER=str(ledger), **env)


def table(done: subprocess.CompletedProcess) -> tuple[dict[str, list[int]], list[str]]:
    """The table's numbers by repository, and the lines below it."""
    lines = done.stdout.splitlines()
    start, end = (next(number for number, line in enumerate(lines) if line.startswith(word)) for word in ("repository ", "all "))
    return {line.split()[0]: list(map(int, line.split()[1:])) for line in lines[start + 1:end + 1]}, [line for line in lines[end + 1:] if not line.startswith("make: ")]


def entries(ledger: Path, name: str = "swerun-sample__textkit") -> dict[str, dict]:
    found = [json.loads(line) for line in (ledger / f"{name}.jsonl").read_text().splitlines()]
    assert [one["instance_id"] for one in found] == sorted(one["instance_id"] for one in found)
    return {one["instance_id"]: one for one in found}


def states(place: Place, run: str) -> dict[str, int]:
    folder = place.artifacts / "runs" / run
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.glob("*/tests.json")}


def toolkits_own() -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in OURS.glob("*")}


@pytest.fixture(scope="module")
def sample(warm: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """The ledger of the sample, and what the validation that wrote it said."""
    ledger, before = tmp_path_factory.mktemp("sample") / "ledger", toolkits_own()
    done = validate(warm, ledger, DATASET="sample")
    assert toolkits_own() == before
    return ledger, done


def test_every_fix_of_the_sample_resolves_and_no_empty_patch_does(warm: Place, sample):
    ledger, done = sample
    assert table(done) == ({"swerun-sample/gridlab": [2, 2, 0, 0, 0, 0], "swerun-sample/textkit": [3, 3, 0, 0, 0, 0], "all": [5, 5, 0, 0, 0, 0]}, [])
    assert "jobserver" not in done.stderr and "no effect" not in done.stderr
    found = entries(ledger) | entries(ledger, "swerun-sample__gridlab")
    assert sorted(found) == sorted(SAMPLE_IDS)
    made = found[TEXT]
    day, key = made.pop("date"), made.pop("lock")
    assert abs(time.mktime(time.strptime(day, "%Y-%m-%d")) - time.time()) < 3 * 86400 and key == warm.state("validate-sample.gold", TEXT, "tests.json")["env_key"]
    where = made.pop("platform").split("-")
    assert where[:2] == [os.uname().sysname.lower(), os.uname().machine]
    assert made == {"instance_id": TEXT, "gold": "resolved", "runs": 1, "failing": [], "null": "unresolved", "python": interpreter(warm, key)}


def interpreter(place: Place, key: str) -> str:
    (library,) = (place.artifacts / "cache/environments" / key / "venv/lib").glob("python3*")
    return library.name.removeprefix("python")


def test_an_empty_patch_is_really_run_and_the_official_report_stays_official(warm: Place, sample):
    for instance_id in SAMPLE_IDS:
        made = warm.state("validate-sample.null", instance_id, "tests.json")
        assert (made["resolved"], made["tests"]["status"], made["model_patch"]) == (False, "ran", "")
        assert made["tests"]["FAIL_TO_PASS"] == {"success": 0, "failure": len(json.loads(ROWS[instance_id]["FAIL_TO_PASS"]))}
        assert made["tests"]["PASS_TO_PASS"]["success"] > 0
    report = json.loads((warm.artifacts / "results/validate-sample.null/report.json").read_text())
    assert sorted(report["empty_patch_ids"]) == sorted(SAMPLE_IDS)


def test_the_same_command_again_runs_nothing_and_writes_the_same_bytes(warm: Place, sample):
    ledger, before = sample[0], {run: states(warm, run) for run in ("validate-sample.gold", "validate-sample.null")}
    written = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in ledger.iterdir()}
    assert validate(warm, ledger, DATASET="sample").stdout == sample[1].stdout
    assert {run: states(warm, run) for run in before} == before
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in ledger.iterdir()} == written


def doctored(folder: Path) -> Path:
    """Rows whose fix is wrong, works each third time, is not needed, and one at a commit that is nowhere."""
    wrong = (TOOLKIT / "lib/sample/wrong-fix.diff").read_text()
    passes = json.loads(ROWS[TEXT]["PASS_TO_PASS"])[0]
    count = f"echo x >>{folder}/count; [ $(wc -l <{folder}/count) != 3 ] || git show HEAD:src/textkit/template.py >src/textkit/template.py"
    config = ROWS[TEXT]["install_config"]
    config = json.loads(config) if isinstance(config, str) else config
    rows = {"wrong": {"patch": wrong}, "flaky": {"install_config": config | {"eval_commands": [count]}},
            "needless": {"FAIL_TO_PASS": json.dumps([passes])}, "nowhere": {"base_commit": "0" * 40}}
    (folder / "odd.jsonl").write_text("".join(json.dumps(ROWS[TEXT] | row | {"instance_id": name}) + "\n" for name, row in rows.items()))
    return folder / "odd.jsonl"


@pytest.fixture(scope="module")
def odd(warm: Place, tmp_path_factory: pytest.TempPathFactory):
    """(ledger, dataset, what was said) of two rounds over the doctored rows; the ledger had entries before."""
    folder = tmp_path_factory.mktemp("odd")
    ledger, dataset = folder / "ledger", doctored(folder)
    ledger.mkdir()
    before = [{"instance_id": "another", "gold": "resolved", "null": "unresolved"}, {"instance_id": "wrong", "gold": "unresolved", "null": "unresolved", "cause": "a wrong fix"},
              {"instance_id": "flaky", "gold": "unresolved", "null": "unresolved", "cause": "another verdict"}]
    (ledger / "swerun-sample__textkit.jsonl").write_text("".join(json.dumps(one) + "\n" for one in before))
    return ledger, dataset, validate(warm, ledger, f"DATASET={dataset}", "REPEAT=2", "AGENT=null", code=2)


def test_what_is_not_clean_is_named_with_its_tests_and_its_log(warm: Place, odd):
    ledger, _, done = odd
    numbers, lines = table(done)
    assert numbers["all"] == numbers["swerun-sample/textkit"] == [4, 1, 1, 1, 1, 1]
    said = dict(line.split(" ", 1) for line in lines)
    (failing,) = entries(ledger)["wrong"]["failing"]
    runs = warm.artifacts / "runs"
    assert failing in json.loads(ROWS[TEXT]["PASS_TO_PASS"])
    assert said.pop("wrong") == f"unresolved: {failing} ({runs}/validate-odd.gold.1/wrong/test_output.txt)"
    assert said.pop("flaky") == f"flaky: {', '.join(json.loads(ROWS[TEXT]['FAIL_TO_PASS']))} ({runs}/validate-odd.gold.2/flaky/test_output.txt)"
    assert said.pop("needless") == f"resolved by an empty patch ({runs}/validate-odd.null.1/needless/test_output.txt)"
    assert said.pop("nowhere").startswith("could not be run: base commit 000000000000") and not said


def test_the_ledger_keeps_other_entries_and_a_cause_as_long_as_its_verdict_and_no_failure_of_the_machine(odd):
    found = entries(odd[0])
    assert {name: (one["gold"], one["null"], one.get("runs"), one.get("cause")) for name, one in found.items()} == {
        "another": ("resolved", "unresolved", None, None), "wrong": ("unresolved", "unresolved", 2, "a wrong fix"),
        "flaky": ("flaky", "unresolved", 2, None), "needless": ("resolved", "resolved", 2, None)}
    assert found["flaky"]["failing"] == json.loads(ROWS[TEXT]["FAIL_TO_PASS"]) and found["needless"]["failing"] == []


def test_entries_come_as_json_where_they_are_asked_for(warm: Place, odd, tmp_path: Path):
    ledger, dataset, _ = odd
    before = (ledger / "swerun-sample__textkit.jsonl").read_bytes()
    made = warm.records("scripts/validate", "--json", "--dataset", dataset.name, "--repeat", "2", "--ledger", "ledger", cwd=dataset.parent, code=1)
    assert made == [entries(ledger)[name] for name in ("wrong", "flaky", "needless")]
    assert (ledger / "swerun-sample__textkit.jsonl").read_bytes() == before


def test_a_report_says_what_the_reference_fix_does_not_resolve_either(warm: Place, odd):
    ledger, dataset, _ = odd
    done = warm.make("run", "-j2", DATASET=str(dataset), AGENT="gold", RUN="told", IDS="wrong needless", LEDGER=str(ledger))
    sentence = "1 of the unresolved cannot be resolved here with the reference fix either (ledger): wrong"
    assert sentence in done.stdout.splitlines()
    with open(warm.artifacts / "results/told/results.csv") as file:
        assert {row["instance_id"]: row["reference_resolves"] for row in csv.DictReader(file)} == {"wrong": "no", "needless": "yes"}
    report = json.loads((warm.artifacts / "results/told/report.json").read_text())
    assert "wrong" in report["unresolved_ids"] and "reference" not in json.dumps(report)


@pytest.mark.parametrize("line, said", [('{"instance_id": "wrong", "gold": "unresolved", "platform": "plan9-vax"}', ""), ("no entry", "line 1 of '{}'")], ids=["another platform", "broken"])
def test_a_ledger_that_does_not_hold_here_costs_no_report(warm: Place, odd, tmp_path: Path, line: str, said: str):
    file = tmp_path / "swerun-sample__textkit.jsonl"
    file.write_text(line + "\n")
    done = warm.run("bin/collect", "--run", "validate-odd.gold.1", "--ledger", tmp_path)
    assert "reference fix" not in done.stdout and said.format(file) in done.stderr
    with open(warm.artifacts / "results/validate-odd.gold.1/results.csv") as results:
        assert {row["reference_resolves"] for row in csv.DictReader(results)} == {""}


def test_a_validation_that_was_killed_goes_on_where_it_was(warm: Place, tmp_path: Path):
    options = {"DATASET": "sample", "IDS": " ".join(THREE), "RUN": "killed", "LEDGER": str(tmp_path / "ledger")}
    started = subprocess.Popen(["make", "-C", TOOLKIT, "validate", "-j2"], env=warm.env | options, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    limit = time.monotonic() + 60
    while len(states(warm, "killed.gold")) < 1:
        assert time.monotonic() < limit and started.poll() is None
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    before = states(warm, "killed.gold")
    assert not (tmp_path / "ledger").exists() and not states(warm, "killed.null")
    numbers, lines = table(validate(warm, tmp_path / "ledger", DATASET="sample", RUN="killed"))
    assert (numbers["all"], lines) == ([3, 3, 0, 0, 0, 0], [])
    after = states(warm, "killed.gold")
    assert {name: after[name] for name in before} == before and len(after) == 3


def test_a_ledger_that_cannot_be_written_costs_no_table(warm: Place, sample):
    done = validate(warm, Path("/proc/nowhere"), DATASET="sample", code=2)
    assert table(done) == table(sample[1]) and len([line for line in done.stderr.splitlines() if line.startswith("validate: cannot write '/proc/nowhere'")]) == 1


def test_a_dry_validation_only_says_what_it_would_run(place: Place):
    done = place.make("validate", DATASET="sample", DRY="1", SAMPLE="2")
    assert done.stderr.count("2 tasks: 0 graded") == 2 and "resolved" not in done.stdout
    assert not (place.artifacts / "runs").exists()


@pytest.mark.parametrize("options, said", [({"REPEAT": "0"}, "REPEAT is '0'"), ({"REPEAT": "some"}, "REPEAT is 'some'"), ({"RUN": "a/b"}, "RUN is 'a/b.gold'"), ({"WHERE": "]"}, "WHERE"),
                                           ({"RUN": "validate-sample", "IDS": TEXT}, "run 'validate-sample.gold' is there already and differs")])
def test_wrong_options_are_refused_before_anything_is_run(warm: Place, sample, options: dict[str, str], said: str):
    before = sorted((warm.artifacts / "runs").iterdir())
    done = warm.run("scripts/validate", code=2, **({"DATASET": "sample", "LEDGER": str(sample[0])} | options))
    assert said in done.stderr and done.stdout == "" and sorted((warm.artifacts / "runs").iterdir()) == before


def watched(place: Place, *words: str | Path, **more) -> tuple[str, list[str]]:
    """What a command printed; and the paths it opened and the modules of ours it has imported."""
    done = place.run(TOOLKIT / ".venv/bin/python", "-I", "-c", WATCHED, TOOLKIT / words[0], *words[1:], **more)
    return done.stdout, done.stderr.rpartition("\nwatched\n" if "\nwatched\n" in done.stderr else "watched\n")[2].splitlines()


def test_grading_never_reads_the_ledger(warm: Place, sample, tmp_path: Path):
    lies = tmp_path / "lies"
    lies.mkdir()
    lie = {"instance_id": TEXT, "gold": "unresolved", "null": "resolved", "platform": entries(sample[0])[TEXT]["platform"]}
    (lies / "swerun-sample__textkit.jsonl").write_text(json.dumps(lie) + "\n")
    touches = lambda seen: [one for one in seen if one.startswith((str(lies), str(OURS))) or one == "swerun.ledger"]
    for patch, resolved in ((ROWS[TEXT]["patch"], True), ("", False)):
        record = {"instance_id": TEXT, "dataset": "sample", "run": "lied-to", "model_patch": patch, "model_name_or_path": "a-test"}
        out, seen = watched(warm, "bin/run-tests", input=json.dumps(record) + "\n", LEDGER=str(lies), EMPTY_PATCH="1")
        made = json.loads(out)
        assert (made["resolved"], made["tests"]["status"]) == (resolved, "ran")
        assert "swerun.grading" in seen and not touches(seen)
    _, seen = watched(warm, "bin/collect", input=out, LEDGER=str(lies))
    assert str(lies / "swerun-sample__textkit.jsonl") in touches(seen)  # the watch does see who reads it


SPEC = """
repo = "swerun-sample/textkit"
log_parser = "parse_log_pytest"
"""
OFFICIAL = """
[[official]]
versions = ["{version}"]
python = "{python}"
install = "python -m pip install -e ."
pip_packages = ["{version}"]
test_cmd = "pytest --no-header -rA --tb=short -p no:cacheprovider"
"""
# two locks of the same packages: in another order they are another environment
LOCKS = """
import sys
from pathlib import Path
from swerun import locks, spec
folder, commit, python = Path(sys.argv[1]), *sys.argv[2:]
packages, build = ((folder / name).read_text().split() for name in ("lock.txt", "build.txt"))
for version, validated in (("good", False), ("bad", True)):
    row = {"repo": "swerun-sample/textkit", "version": version, "base_commit": commit}
    locks.write(locks.shipped_file(row["repo"], version), locks.Lock(python, packages, build, ""), row, spec.from_tables(row["repo"], version), validated)
    packages.reverse()
"""


@pytest.fixture
def shipping(warm: Place, sample, tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """A toolkit of its own that ships two locks of textkit, of which one was validated: (its folder, {version: file})."""
    toolkit = tmp_path / "toolkit"
    shutil.copytree(TOOLKIT, toolkit, ignore=shutil.ignore_patterns(".venv", "artifacts", ".git", "__pycache__", "ledger", "locks"), symlinks=True)
    (toolkit / ".venv").symlink_to(TOOLKIT / ".venv")
    key = entries(sample[0])[TEXT]["lock"]
    python = interpreter(warm, key)
    (toolkit / "lib/swerun/specs/swerun-sample__textkit.toml").write_text(SPEC + "".join(OFFICIAL.format(version=name, python=python) for name in ("good", "bad")))
    warm.run(toolkit / ".venv/bin/python", "-I", "-c", LOCKS, warm.artifacts / "cache/environments" / key, ROWS[TEXT]["base_commit"], python)
    return toolkit, {name: toolkit / f"lib/swerun/locks/swerun-sample__textkit-{name}.toml" for name in ("good", "bad")}


@pytest.mark.slow
def test_a_shipped_lock_is_validated_by_a_fix_that_resolves_and_no_longer_where_none_does(warm: Place, shipping, tmp_path: Path):
    toolkit, files = shipping
    patches = {"good": ROWS[TEXT]["patch"], "bad": (TOOLKIT / "lib/sample/wrong-fix.diff").read_text()}
    rows = [ROWS[TEXT] | {"instance_id": name, "version": name, "patch": patch, "install_config": None} for name, patch in patches.items()]
    (tmp_path / "locked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = {name: file.read_text() for name, file in files.items()}
    go = lambda **env: warm.run("make", "-C", toolkit, "validate", "-j2", f"DATASET={tmp_path}/locked.jsonl", code=2, **env)
    go(LEDGER=str(tmp_path / "elsewhere"))
    assert {name: file.read_text() for name, file in files.items()} == before and not (toolkit / "lib/swerun/ledger").exists()
    go()
    now = {"good": before["good"].replace("validated = false", "validated = true"), "bad": before["bad"].replace("validated = true", "validated = false")}
    assert {name: file.read_text() for name, file in files.items()} == now and now["good"] != before["good"] and now["bad"] != before["bad"]
    assert {name: one["gold"] for name, one in entries(toolkit / "lib/swerun/ledger").items()} == {"good": "resolved", "bad": "unresolved"}
