"""kill -9, ^C and a full disk, at any moment: the same command again, and nothing is lost, doubled or half."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import ROWS, SAMPLE_IDS, TOOLKIT, Place

TEXT = "swerun-sample__textkit-19"
MARK = b"AGENT_RUN_MARK="
THREE = SAMPLE_IDS[::2]


def started(place: Place, *words: str | Path, **env: str) -> subprocess.Popen:
    """A command of ours in a process group of its own, as a shell at a terminal would start it.

    A suite that runs in the background of a script has interrupts ignored, and make would inherit that.
    """
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(words, env=place.env | env, cwd=TOOLKIT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=heed)


def end(process: subprocess.Popen, number: int, whole_group: bool = True) -> int:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if whole_group else os.kill)(process.pid, number)
    return process.wait(30)


def alive(place: Place, run: str) -> list[str]:
    """The processes that an agent or a test run of this run started and that still live."""
    found, mark = [], MARK + bytes(place.artifacts / "worktrees" / run) + b"/"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def until(what, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def results(place: Place, run: str) -> tuple[dict, dict]:
    """The predictions of a run and its verdicts."""
    lines = (place.artifacts / "results" / run / "predictions.jsonl").read_text().splitlines()
    states = [json.loads(file.read_text()) for file in (place.artifacts / "runs" / run).glob("*/tests.json")]
    return {one["instance_id"]: one for one in map(json.loads, lines)}, {one["instance_id"]: (one["resolved"], one["tests"]["status"]) for one in states}


@contextlib.contextmanager
def watched(place: Place):
    """Read every state file all the time; yields the list of those that were not whole."""
    broken, seen, stop = [], set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for file in (place.artifacts / "runs").rglob("*.json"):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        json.loads(file.read_bytes())
                    except ValueError:
                        broken.append(str(file))
                    seen.add(file.name)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield broken
    finally:
        stop.set()
        watcher.join()
    assert {"run.json", "task.json", "agent.json", "tests.json"} <= seen


@pytest.fixture
def solver(agent, tmp_path: Path) -> Path:
    """An agent that takes a while, starts a process that outlives it, and then applies the reference fix."""
    for name, row in ROWS.items():
        (tmp_path / f"{name}.diff").write_text(row["patch"])
    return agent(f"sleep 600 & sleep 0.4; git apply {tmp_path}/$AGENT_INSTANCE_ID.diff", "solver")


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(warm: Place, place: Place, solver: Path):
    command, options = ("make", "run", "-j2"), {"DATASET": "sample", "AGENT": str(solver), "RUN": "killed", "IDS": " ".join(THREE)}
    warm.run(*command, **options)
    with watched(place) as broken:
        # nothing was precached here: the first ones hit fetching, resolving and building
        for seconds in (0.5, 1.5, 3.0, 4.0, 2.0):
            run = started(place, *command, **options)
            time.sleep(seconds)
            end(run, signal.SIGKILL)
        place.run(*command, **options)
    assert broken == []
    assert results(place, "killed") == results(warm, "killed")
    assert results(place, "killed")[1] == {name: (True, "ran") for name in THREE}
    assert alive(place, "killed") == []
    assert not [file for file in (place.artifacts / "cache").glob("*/*.making")] and not list((place.artifacts / "worktrees").glob("*/*"))


@pytest.mark.parametrize("seconds", [0.8, 2.0])
def test_a_run_killed_at_some_moment_goes_on_without_repeating_what_was_done(warm: Place, solver: Path, seconds: float):
    command, options = ("make", "run", "-j2"), {"DATASET": "sample", "AGENT": str(solver), "RUN": f"killed-at-{seconds}", "IDS": " ".join(THREE)}
    run = started(warm, *command, **options)
    time.sleep(seconds)
    end(run, signal.SIGKILL)
    stamps = lambda: {file: file.stat().st_mtime_ns for file in (warm.artifacts / "runs" / options["RUN"]).glob("*/[at]*.json")}
    done = stamps()
    warm.run(*command, **options)
    assert done.items() <= stamps().items() and len(stamps()) == 9
    assert results(warm, options["RUN"])[1] == {name: (True, "ran") for name in THREE}
    assert alive(warm, options["RUN"]) == []


def test_an_agent_whose_runner_is_killed_dies_and_what_it_started_is_swept_by_the_next_run(warm: Place, agent, tmp_path: Path):
    slow = agent(f"sleep 31417 & echo $$ >>{tmp_path}/pids; [ -e {tmp_path}/again ] || exec sleep 31418", "slow")
    words = (TOOLKIT / "bin/run-agent", "--dataset", "sample", "--agent", slow, "--feedback", "none", "--run", "runner-killed", TEXT)
    run = started(warm, *words)
    until(lambda: (tmp_path / "pids").exists())
    end(run, signal.SIGKILL, whole_group=False)
    until(lambda: not [name for name in alive(warm, "runner-killed") if "31418" in name], 5)
    assert not (warm.artifacts / "runs/runner-killed" / TEXT / "agent.json").exists()
    (tmp_path / "again").touch()
    warm.run(*words)
    assert alive(warm, "runner-killed") == [] and len((tmp_path / "pids").read_text().split()) == 2


@pytest.mark.parametrize("command", ["make", "dispatch"])
def test_an_interrupted_run_ends_at_once_and_its_agents_with_it(warm: Place, agent, tmp_path: Path, command: str):
    slow = agent(f"touch {tmp_path}/$AGENT_INSTANCE_ID; trap '' INT TERM; sleep 31419")
    options = {"DATASET": "sample", "AGENT": str(slow), "RUN": f"interrupted-{command}"}
    run = started(warm, *(("make", "run", "-j2") if command == "make" else (TOOLKIT / "bin/dispatch", "--workers", "2")), **options)
    until(lambda: len(list(tmp_path.glob("swerun*"))) == 2)
    start = time.monotonic()
    code = end(run, signal.SIGINT)
    assert code in ((2, -2) if command == "make" else (130,)) and time.monotonic() - start < 8
    until(lambda: alive(warm, options["RUN"]) == [], 5)
    assert not list((warm.artifacts / "runs" / options["RUN"]).glob("*/agent.json"))


@pytest.mark.parametrize("command", ["make", "dispatch"])
def test_a_run_that_is_told_to_terminate_leaves_nothing_running(warm: Place, agent, tmp_path: Path, command: str):
    slow = agent(f"echo $AGENT_INSTANCE_ID >>{tmp_path}/log; sleep 2")
    options = {"DATASET": "sample", "AGENT": str(slow), "RUN": f"terminated-{command}"}
    run = started(warm, *(("make", "run", "-j2") if command == "make" else (TOOLKIT / "bin/dispatch", "--workers", "2")), **options)
    until(lambda: (tmp_path / "log").exists() and len((tmp_path / "log").read_text().split()) == 2)
    # as a batch system, `timeout` or `kill` do it: only the process that was started hears of it
    end(run, signal.SIGTERM, whole_group=False)
    time.sleep(3)
    assert len((tmp_path / "log").read_text().split()) == 2
    end(run, signal.SIGKILL)


def test_a_verdict_that_is_written_is_not_lost_to_an_interrupt(warm: Place, agent, tmp_path: Path):
    # it takes a while to remove what these tests leave behind, and the verdict is written before
    litters = agent("""echo "import pathlib; [pathlib.Path(f'left-{number}').touch() for number in range(30000)]" >>src/textkit/__init__.py""")
    run = started(warm, "make", "run", DATASET="sample", AGENT=str(litters), FEEDBACK="none", RUN="written", IDS=TEXT)
    verdict = warm.artifacts / "runs/written" / TEXT / "tests.json"
    until(verdict.exists)
    assert end(run, signal.SIGINT) != 0
    assert verdict.exists()


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """A file system of so many bytes at a folder; yields what gives it another size."""
    mount = lambda options: subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode == 0
    folder.mkdir()
    if os.geteuid() or not mount(f"size={size}"):
        pytest.skip("cannot mount a small file system here")
    try:
        yield lambda new: mount(f"remount,size={new}")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_in_a_line_and_when_there_is_space_the_same_commands_complete(place: Place):
    precache = ("bin/precache", "--dataset", "sample", TEXT)
    agent = ("bin/run-agent", "--dataset", "sample", "--agent", "gold", "--run", "full", TEXT)
    with small_disk(place.artifacts, "12m") as resize:
        for words in (precache, agent):
            done = place.run(*words, code=1)
            assert done.stdout == "" and "Traceback" not in done.stderr
            assert len([line for line in done.stderr.splitlines() if "space" in line]) == 1
        finished = [*place.artifacts.glob("cache/environments/*/complete.json"), *place.artifacts.glob("cache/layers/*/manifest.json"), *place.artifacts.glob("runs/*/*/agent.json")]
        assert finished == []
        assert resize("2g")
        place.run(*precache)
        assert json.loads(place.run("bin/run-tests", input=place.run(*agent).stdout).stdout)["resolved"]


slow = lambda value: pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize("moment", [slow("mirrors/*"), slow("layers/*.making"), "environments/*/venv"])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_that_passes_for_whole(place: Place, moment: str):
    words = ("bin/run-tests", "--dataset", "sample", "--run", "full", TEXT)
    with small_disk(place.artifacts, "230m"):
        place.run("bin/run-agent", "--dataset", "sample", "--agent", "gold", "--run", "full", TEXT)
        run = started(place, TOOLKIT / words[0], *words[1:])
        until(lambda: list((place.artifacts / "cache").glob(moment)))
        filler = place.artifacts / "filler"
        with open(filler, "wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**20))
        code = run.wait(60)
        filler.unlink()
        verdict = place.artifacts / "runs/full" / TEXT / "tests.json"
        # an outcome only if all was written before the disk was full; a patch is never to blame for the disk
        assert code == 1 and not verdict.exists() or code == 0 and json.loads(verdict.read_text())["resolved"]
        assert json.loads(place.run(*words).stdout)["resolved"]
