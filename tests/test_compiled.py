"""Compiled projects: whatever a task writes stays with it, and a build that cannot be done or is killed is one line and no layer."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place
from test_commands import tools
from test_rebuild import CONFIG, FILES, WAYS

NO_MODULE = {"setup.py": "from setuptools import setup\nsetup(name='pair', version='1', packages=['pair'])\n"}


class Tasks:
    """Two tasks at two commits of one compiled project, and a third that compiles nothing."""

    def __init__(self, place: Place, git_repository, folder: Path, **config):
        repository, commits = git_repository("pair", [FILES, {"pair/more.py": ""}, NO_MODULE])
        packages = ["pytest==8.3.4", "setuptools==75.8.0", "pip==24.3.1", "wheel==0.45.1"]
        made = CONFIG | {"install": WAYS["legacy"], "pre_install": [], "test_cmd": "pytest -rA", "pip_packages": packages} | config
        rows = [ROWS["swerun-sample__gridlab-11"] | {"instance_id": name, "repo": "a/pair", "base_commit": commit, "install_config": made, "test_patch": "",
                "FAIL_TO_PASS": json.dumps(["tests/test_pair.py::test_values"]), "PASS_TO_PASS": "[]"} for name, commit in zip(("one", "two", "plain"), commits)]
        self.place, self.dataset = place, folder / "pair.jsonl"
        self.dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.env = {"REMOTE": str(repository), "DATASET": str(self.dataset)}

    def layers(self) -> list[Path]:
        return [path for path in (self.place.artifacts / "cache/layers").glob("*") if path.is_dir() and path.suffix != ".making"]


@pytest.fixture
def tasks(place: Place, git_repository, tmp_path: Path) -> Tasks:
    return Tasks(place, git_repository, tmp_path)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts}


def test_a_task_that_overwrites_every_file_it_can_write_changes_nothing_that_another_sees(tasks: Tasks):
    place = tasks.place
    mine, other = place.records("bin/setup-venv", "--run", "r", "one", "two", **tasks.env)
    cache = place.artifacts / "cache"
    before = {kind: contents(cache / kind) for kind in ("layers", "histories", "mirrors", "environments")} | {"other": contents(Path(other["worktree"])) | contents(Path(other["venv"]))}
    assert all(before.values()) and any(path.suffix == ".so" for path in before["other"])
    written = 0
    for base in (mine["worktree"], mine["venv"], place.artifacts / "worktrees/r/one"):
        for path in [path for path in Path(base).rglob("*") if path.is_file() and not path.is_symlink()]:
            assert path.stat().st_nlink == 1, f"{path} is a hardlink"
            path.chmod(path.stat().st_mode | 0o200)
            with open(path, "r+b") as file:  # in place, as whoever has the inode would see it
                file.truncate(0)
                file.write(b"overwritten")
            written += 1
    assert written > 50
    shutil.rmtree(mine["worktree"])
    after = {kind: contents(cache / kind) for kind in ("layers", "histories", "mirrors", "environments")} | {"other": contents(Path(other["worktree"])) | contents(Path(other["venv"]))}
    assert after == before
    subprocess.run([f"{other['venv']}/bin/python", "-m", "pytest", "-q"], cwd=other["worktree"], check=True, capture_output=True)
    again = place.run("bin/setup-venv", "--run", "again", "one", **tasks.env)
    assert "building" not in again.stderr and "installing" not in again.stderr
    subprocess.run([f"{json.loads(again.stdout)['venv']}/bin/python", "-c", "from pair import one"], check=True, capture_output=True)


BROKEN = {
    "no compiler": (("cc", "gcc", "c++", "g++", "clang", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"), {}, r"(?i)no C compiler.*make doctor"),
    "no header": ((), {"pair/one.h": "#include <no_such_header.h>\n"}, r"no_such_header\.h.*make doctor"),
}


@pytest.mark.parametrize("what", [pytest.param("no compiler", marks=pytest.mark.slow), "no header"])
def test_what_a_build_lacks_is_said_in_a_line_and_other_tasks_go_on(place: Place, git_repository, tmp_path: Path, what: str):
    without, files, line = BROKEN[what]
    tasks = Tasks(place, git_repository, tmp_path, pre_install=[f"printf '%s' '{text}' > {name}" for name, text in files.items()])
    if without:
        tasks.env["PATH"] = tools(tmp_path / "tools", *without)
    done = place.run("make", "-s", "run", "-j1", AGENT="gold", RUN="r", code=2, **tasks.env)
    said = [told for told in done.stderr.splitlines() if "failed:" in told]
    assert {told.split(": ")[1] for told in said} >= {"one", "two"} and all(re.search(line, told) for told in said if ": one:" in told), said
    assert all(len(told) < 700 for told in said)
    assert not (place.artifacts / "runs/r/one/tests.json").exists() and (place.artifacts / "runs/r/plain/tests.json").exists()
    assert len(tasks.layers()) == 1
    if without:  # mended, the same command completes
        del tasks.env["PATH"]
        place.run("make", "-s", "run", "-j1", AGENT="gold", RUN="r", code=None, **tasks.env)
        assert len(tasks.layers()) == 3 and (place.artifacts / "runs/r/one/tests.json").exists()


def test_a_build_that_is_killed_leaves_no_layer_and_no_process_and_is_done_again(tasks: Tasks, tmp_path: Path):
    place, slow = tasks.place, tmp_path / "compilers"
    slow.mkdir()
    for name in ("cc", "gcc", "clang"):
        if real := shutil.which(name):
            (slow / name).write_text(f'#!/bin/sh\ncase " $* " in *" -c "*) echo x >> {tmp_path}/begun; sleep 300;; esac\nexec {real} "$@"\n')
            (slow / name).chmod(0o755)
    env = place.env | tasks.env | {"PATH": f"{slow}:{place.env['PATH']}"}
    process = subprocess.Popen([TOOLKIT / "bin/setup-venv", "--run", "r", "one"], env=env, cwd=TOOLKIT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    limit = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert process.poll() is None and time.monotonic() < limit, process.stderr.read()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert tasks.layers() == []
    done = place.run("bin/setup-venv", "--run", "r", "one", **tasks.env)
    assert len(tasks.layers()) == 1 and not list(place.artifacts.glob("cache/layers/*.making"))
    assert not subprocess.run(["pgrep", "-f", str(slow)], capture_output=True, text=True).stdout
    subprocess.run([f"{json.loads(done.stdout)['venv']}/bin/python", "-c", "from pair import one, two"], check=True, capture_output=True)
