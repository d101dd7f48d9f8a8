"""CPU slots: however many tasks are in flight, so many suites and builds at once, and waiting for one costs no time limit."""

import fcntl
import json
import os
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place

ROW = ROWS["swerun-sample__textkit-19"]
TINY = ROW["install_config"] | {"seed": [], "pip_packages": ["iniconfig==2.0.0"], "install": ""}


def writes(log: Path, seconds: float) -> str:
    """A test command that writes when it starts and when it ends."""
    return f"date +%s.%N >>{log}; sleep {seconds}; date +%s.%N >>{log}; true"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> Place:
    """A place in which nothing is left to build for the tasks of `tasks`."""
    root = tmp_path_factory.mktemp("slots")
    place = Place(root, uv_cache)
    place.run("bin/setup-venv", "--dataset", tasks(root, place, 0.0), "first")
    return place


def tasks(folder: Path, place: Place, seconds: float) -> Path:
    file, logs = folder / "tasks.jsonl", place.root
    # the layer is one of the spec, test command and all: two tasks of one command share it
    rows = [ROW | {"instance_id": name, "install_config": TINY | {"test_cmd": f"sh {logs}/suite.sh"}} for name in ("first", "second")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (logs / "suite.sh").write_text(writes(logs / "times", seconds))
    (logs / "times").write_text("")
    return file


def grading(place: Place, data: Path, name: str, run: str, said: Path, **env: str) -> subprocess.Popen:
    record = {"instance_id": name, "dataset": str(data), "run": run, "model_patch": ROW["patch"], "model_name_or_path": "x"}
    said.with_suffix(".in").write_text(json.dumps(record) + "\n")
    with open(said.with_suffix(".in")) as source, open(said, "w") as errors:
        return subprocess.Popen([TOOLKIT / "bin/run-tests"], env=place.env | env, stdin=source, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)


def spans(place: Place) -> list[float]:
    return [float(line) for line in (place.root / "times").read_text().split()]


@contextmanager
def all_slots_held(place: Place, count: int = 1):
    """This process has the slots."""
    folder = place.artifacts / "cache/slots" / os.uname().nodename
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        for number in range(count):
            fcntl.flock(files.enter_context(open(folder / str(number), "ab")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_many_suites_as_TEST_JOBS_run_at_once(made: Place, tmp_path: Path, jobs: int):
    data = tasks(tmp_path, made, 3.0)
    both = [grading(made, data, name, f"jobs-{jobs}", tmp_path / name, TEST_JOBS=str(jobs)) for name in ("first", "second")]
    assert [process.wait(100) for process in both] == [0, 0]
    events = (made.root / "times").read_text().split()
    assert len(events) == 4 and events == sorted(events)
    starts_and_ends = spans(made)
    overlap = starts_and_ends[1] - starts_and_ends[0] < 2.9  # the second event is a start, not the first one's end
    assert overlap == (jobs == 2)
    for name in ("first", "second"):
        assert 2.9 < made.state(f"jobs-{jobs}", name, "tests.json")["tests"]["seconds"] < 5.5


def test_the_time_limit_and_the_seconds_begin_with_the_slot(made: Place, tmp_path: Path):
    data = tasks(tmp_path, made, 1.0)
    with all_slots_held(made):
        process = grading(made, data, "first", "limit", tmp_path / "said", TEST_JOBS="1", TEST_TIMEOUT="3")
        time.sleep(5)
        assert process.poll() is None and spans(made) == []
    assert process.wait(30) == 0
    tests = made.state("limit", "first", "tests.json")["tests"]
    assert tests["status"] != "timeout" and 1 <= tests["seconds"] < 3 and tests["overhead_seconds"] < 4


def test_a_suite_that_outlives_its_limit_gives_its_slot_back(made: Place, tmp_path: Path):
    data = tasks(tmp_path, made, 60.0)
    start = time.monotonic()
    both = [grading(made, data, name, "slow", tmp_path / name, TEST_JOBS="1", TEST_TIMEOUT="2") for name in ("first", "second")]
    assert [process.wait(60) for process in both] == [0, 0] and time.monotonic() - start < 40
    assert [made.state("slow", name, "tests.json")["tests"]["status"] for name in ("first", "second")] == ["timeout"] * 2


def test_the_slot_of_a_killed_process_is_free_again_and_its_suite_is_gone(made: Place, tmp_path: Path):
    data = tasks(tmp_path, made, 600.0)
    holder = grading(made, data, "first", "killed", tmp_path / "first", TEST_JOBS="1")
    limit = time.monotonic() + 30
    while not spans(made):
        assert holder.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    (made.root / "suite.sh").write_text(writes(made.root / "times", 0.1))
    waiting = grading(made, data, "second", "killed", tmp_path / "second", TEST_JOBS="1")
    time.sleep(2.5)
    assert waiting.poll() is None and len(spans(made)) == 1
    os.kill(holder.pid, signal.SIGKILL)
    assert waiting.wait(20) == 0 and len(spans(made)) == 3
    assert not (made.artifacts / "runs/killed/first/tests.json").exists() and made.state("killed", "second", "tests.json")


@pytest.mark.parametrize("jobs", ["x", "0", "-1", "nan", "1e99"])
def test_a_number_of_slots_that_is_none_is_a_usage_error_in_a_line(made: Place, tmp_path: Path, jobs: str):
    record = {"instance_id": "first", "dataset": str(tasks(tmp_path, made, 0.0)), "run": f"usage-{jobs}", "model_patch": ROW["patch"], "model_name_or_path": "x"}
    for more, env in (((f"--test-jobs={jobs}",), {}), ((), {"TEST_JOBS": jobs})):
        done = made.run("bin/run-tests", *more, input=json.dumps(record) + "\n", code=2, **env)
        assert done.stdout == "" and done.stderr == f"run-tests: TEST_JOBS is '{jobs}', not a number over 0\n"
    assert spans(made) == [] and not (made.artifacts / f"runs/usage-{jobs}/first/tests.json").exists()


def test_resolving_and_building_wait_for_a_slot_too(place: Place, tmp_path: Path):
    words = ("bin/setup-venv", "--dataset", tasks(tmp_path, place, 0.0), "--run", "r", "--test-jobs", "2", "first")
    environments = place.artifacts / "cache/environments"
    with all_slots_held(place, 2), pytest.raises(subprocess.TimeoutExpired) as waited:
        place.run(*words, timeout=9)
    assert b"waiting for one of 2 CPU slots (TEST_JOBS)" in waited.value.stderr and b"resolving" not in waited.value.stderr
    place.run(*words)
    # now there is a lock, and only the building waits
    subprocess.run(["rm", "-rf", *environments.iterdir(), place.artifacts / "cache/layers"], check=True)
    with all_slots_held(place, 2), pytest.raises(subprocess.TimeoutExpired):
        place.run(*words, timeout=3)
    assert [file for file in environments.iterdir() if file.is_dir()] == []
    said = place.run(*words).stderr
    assert "building environment" in said and "resolving" not in said
