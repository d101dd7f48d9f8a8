"""Shared environments: what was changed under them is noticed and built again, whatever is killed or races with what."""

import contextlib
import fcntl
import json
import os
import signal
import stat
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place

ROW = ROWS["swerun-sample__textkit-19"]
# resolved and built in two seconds: no pip, no project; rows that differ in the commit alone share it
TINY = ROW["install_config"] | {"seed": [], "pip_packages": ["iniconfig==2.0.0", "pluggy==1.5.0"], "install": "", "test_cmd": "python -c 'import iniconfig, pluggy'; true"}
CHANGED = "for its files were changed"


def dataset(folder: Path, **config: object) -> Path:
    """Two tasks at two commits whose environment is the same."""
    file = folder / "tasks.jsonl"
    rows = [row | {"instance_id": f"tiny-{number}", "install_config": TINY | config} for number, row in enumerate((ROW, ROWS["swerun-sample__textkit-14"]))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def setup(place: Place, tasks: Path, run: str = "r", name: str = "tiny-0") -> tuple[Path, str]:
    """(the shared environment, what was said)"""
    done = place.run("bin/setup-venv", "--dataset", tasks, "--run", run, name)
    return place.artifacts / "cache/environments" / json.loads(done.stdout)["env_key"], done.stderr


def files(environment: Path) -> list[Path]:
    return [file for file in environment.rglob("*") if not file.is_dir() and file.name not in ("complete.json", "sealed")]


def content(environment: Path) -> dict[Path, bytes]:
    return {file.relative_to(environment): file.read_bytes() for file in files(environment) if "__pycache__" not in file.parts}


def sealed(environment: Path) -> None:
    """Nobody writes into it by accident; what it shares, it shares with sealed folders alone, by way of the pool."""
    pool = Counter(file.stat().st_ino for file in (environment.parents[1] / "pool").glob("*/*"))
    links = Counter(file.stat().st_ino for kind in ("environments", "layers") for file in (environment.parents[1] / kind).rglob("*") if file.is_file() and not file.is_symlink())
    for path in (path for name in ("venv", "build") for path in (environment / name).rglob("*") if "__pycache__" not in path.parts and not path.is_symlink()):
        at = path.stat()
        assert not at.st_mode & 0o222, f"{path} has mode {at.st_mode:o}"
        assert path.is_dir() or at.st_nlink == links[at.st_ino] + pool[at.st_ino], f"{path} is linked from elsewhere, {at.st_nlink} times"


def built(said: str) -> int:
    return said.count("building environment")


def writable(folder: Path) -> Path:
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> tuple[Place, Path, Path, dict[Path, bytes]]:
    """A place with the environment of two tasks in it, which each test leaves whole: (place, dataset, environment, its content)."""
    root = tmp_path_factory.mktemp("environments")
    place, tasks = Place(root, uv_cache), dataset(root)
    environment, said = setup(place, tasks)
    assert built(said) == 1
    return place, tasks, environment, content(environment)


def package(environment: Path) -> Path:
    [folder] = environment.glob("venv/lib/python3*/site-packages/iniconfig")
    return folder


def append(environment: Path) -> None:
    with open(package(environment) / "__init__.py", "a") as file:
        file.write("raise SystemExit('changed')\n")


def edit(old: bytes, new: bytes):
    """Change bytes for as many others, and put the times of the file and its folder back."""

    def change(environment: Path) -> None:
        file = package(environment) / "__init__.py"
        before, folder_before = file.stat(), file.parent.stat()
        assert old in file.read_bytes()
        writable(file).write_bytes(file.read_bytes().replace(old, new))
        for path, at in ((file, before), (file.parent, folder_before)):
            path.chmod(stat.S_IMODE(at.st_mode))
            os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        assert file.stat().st_size == before.st_size and file.stat().st_mtime_ns == before.st_mtime_ns

    return change


def replace(environment: Path) -> None:
    """As an editor or `sed -i` does: another file of that name, as long and as old."""
    file = writable(package(environment)) / "__init__.py"
    other = file.with_name("other")
    other.write_bytes(file.read_bytes().replace(b"return", b"retrun"))
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.rename(file)


def settings(environment: Path) -> None:
    file = environment / "venv/pyvenv.cfg"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("packages = false", "packages = true"))


def add(name: str, text: str = "raise SystemExit('added')\n"):
    return lambda environment: (writable(package(environment).parent) / name).write_text(text)


def redirect(environment: Path) -> None:
    python = writable(environment / "venv/bin") / "python"
    python.unlink(), python.symlink_to("/bin/false")


def remove(environment: Path) -> None:
    (writable(package(environment)) / "__init__.py").unlink()


CHANGES = {
    "appended": append, "edited and its time put back": edit(b"return", b"retrun"), "replaced": replace, "sitecustomize added": add("sitecustomize.py"),
    "pth added": add("zzz.pth", "import sys; sys.exit('added')\n"), "pyc without a source added": add("colorama.pyc", ""), "python redirected": redirect,
    "removed": remove, "settings changed": settings,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_whatever_is_changed_in_an_environment_is_said_and_built_again(made, change):
    place, tasks, environment, right = made
    change(environment)
    assert content(environment) != right
    found, said = setup(place, tasks)
    assert built(said) == 1 and CHANGED in said
    assert found == environment and content(environment) == right
    sealed(environment)
    assert built(setup(place, tasks)[1]) == 0


def test_grading_uses_no_environment_that_was_changed(made):
    place, tasks, environment, right = made
    add("sitecustomize.py", "print('PASSED tests/test_x.py::test_it')\n")(environment)
    record = {"instance_id": "tiny-0", "dataset": str(tasks), "run": "graded", "model_patch": ROW["patch"], "model_name_or_path": "x"}
    done = place.run("bin/run-tests", input=json.dumps(record) + "\n")
    assert built(done.stderr) == 1 and CHANGED in done.stderr
    assert content(environment) == right and "PASSED" not in place.state("graded", "tiny-0", "test_output.txt")


def test_what_python_caches_later_is_no_change(made):
    place, tasks, environment, right = made
    caches = [folder for folder in environment.rglob("__pycache__")]
    assert caches  # compiled when it was built
    for folder in caches:
        (writable(folder) / "later.cpython-399-pytest-99.pyc").write_bytes(b"later")
    new = writable(package(environment).parent / "pluggy-1.5.0.dist-info") / "__pycache__"
    new.mkdir()
    (new / "x.pyc").write_bytes(b"later")
    assert built(setup(place, tasks)[1]) == 0


def test_no_file_of_an_environment_can_be_written_or_is_one_of_a_task(warm: Place):
    environments = [file.parent for file in warm.artifacts.glob("cache/environments/*/complete.json")]
    assert environments and any((one / "build").is_dir() for one in environments)
    for one in environments:
        sealed(one)


def test_environments_that_have_the_same_files_take_their_room_once_and_what_changes_in_both_is_built_again_in_both(tmp_path: Path, uv_cache: Path):
    place = Place(tmp_path, uv_cache)
    (tmp_path / "more").mkdir()
    few, more = dataset(tmp_path, pip_packages=["iniconfig==2.0.0"]), dataset(tmp_path / "more")
    one, two = setup(place, few, "few")[0], setup(place, more, "more")[0]
    assert one != two and built(setup(place, few, "again")[1]) == 0  # its links are more than when it was sealed, which is no change
    same = [file for file in files(one) if file.stat().st_ino in {other.stat().st_ino for other in files(two)}]
    assert {"__init__.py", "_parse.py"} <= {file.name for file in same} and {file.suffix for file in same} >= {".py", ".pyc"}
    right = content(one), content(two)
    assert {name for name, data in right[0].items() if right[1].get(name) == data and data} <= {file.relative_to(one) for file in same}
    for environment in (one, two):
        python = environment / "venv/bin/python"
        told = subprocess.run([python, "-v", "-c", "import iniconfig; print(iniconfig.__file__, iniconfig.IniConfig.__init__.__code__.co_filename)"], check=True, capture_output=True, text=True)
        assert told.stdout.count(f"{environment}/venv/lib/") == 2 and "matches" in told.stderr and "wrote" not in told.stderr  # what was compiled fits
    edit(b"return", b"retrun")(one)
    assert content(two) != right[1]
    assert CHANGED in setup(place, more, "mended")[1] and CHANGED in setup(place, few, "mended")[1]
    assert (content(one), content(two)) == right
    place.run("rm", "-rf", *(place.artifacts / "worktrees").glob("*"))
    before = disk(place)
    place.run("scripts/gc", "--dataset", few)
    assert one.is_dir() and not two.exists() and built(setup(place, few, "left")[1]) == 0 and disk(place) < before
    names = {file.stat().st_nlink for file in (place.artifacts / "cache/pool").glob("*/*")}
    assert min(names) > 1


def disk(place: Place) -> int:
    return int(place.run("du", "-s", place.artifacts / "cache").stdout.split()[0])


def started(place: Place, tasks: Path, name: str, run: str, said: Path) -> subprocess.Popen:
    with open(said, "w") as file:
        words = (TOOLKIT / "bin/setup-venv", "--dataset", tasks, "--run", run, name)
        return subprocess.Popen(words, env=place.env, cwd=TOOLKIT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)


def until(what, process: subprocess.Popen) -> None:
    limit = time.monotonic() + 60
    while True:
        with contextlib.suppress(FileNotFoundError):  # it removes what is looked at
            if what():
                return
        assert process.poll() is None and time.monotonic() < limit, "waited in vain"
        time.sleep(0.001)


def begun(place: Place, tasks: Path, run: str, environment: Path, said: Path) -> subprocess.Popen:
    """A setup-venv that has begun to build the environment again, what was there before being gone."""
    start = time.time_ns()
    process = started(place, tasks, "tiny-0", run, said)
    until(lambda: any(file.stat().st_mtime_ns > start - 10**7 for file in environment.glob("lock.txt")), process)
    return process


MOMENTS = ("lock.txt", "venv/bin/python", "venv/lib/python3*/site-packages/iniconfig", "venv/lib/python3*/site-packages/iniconfig/__pycache__")


def test_a_build_that_was_killed_is_done_again_and_nothing_half_built_is_used(made, tmp_path: Path):
    place, tasks, environment, right = made
    for number, moment in enumerate(MOMENTS):
        remove(environment)
        process = begun(place, tasks, f"killed-{number}", environment, tmp_path / "said")
        until(lambda: list(environment.glob(moment)), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (environment / "complete.json").exists() and not list(place.artifacts.glob(f"worktrees/killed-{number}/*/venv/complete"))
        found, said = setup(place, tasks, f"killed-{number}")
        assert (built(said), found) == (1, environment) and "for its build did not end" in said
        assert content(environment) == right


def test_a_killed_build_leaves_no_process_that_goes_on_writing(made, tmp_path: Path):
    place, tasks, environment, right = made
    remove(environment)
    process = begun(place, tasks, "orphans", environment, tmp_path / "said")
    until(lambda: list(environment.glob("venv/bin")), process)
    os.kill(process.pid, signal.SIGKILL)  # it alone, as the kernel does it when memory ends
    process.wait()
    time.sleep(0.2)
    before = sorted(environment.rglob("*"))
    time.sleep(0.5)
    assert sorted(environment.rglob("*")) == before
    assert built(setup(place, tasks)[1]) == 1 and content(environment) == right


def test_two_tasks_at_once_build_their_environment_once(tmp_path: Path, uv_cache: Path):
    place, tasks = Place(tmp_path, uv_cache), dataset(tmp_path, pip_packages=["iniconfig==2.0.0"])
    both = [started(place, tasks, f"tiny-{number}", "both", tmp_path / f"said-{number}") for number in (0, 1)]
    assert [process.wait(60) for process in both] == [0, 0]
    said = [(tmp_path / f"said-{number}").read_text() for number in (0, 1)]
    assert built("".join(said)) == 1, said
    [environment] = place.artifacts.glob("cache/environments/*/complete.json")
    for number in (0, 1):
        python = place.artifacts / f"worktrees/both/tiny-{number}/venv/bin/python"
        assert subprocess.run([python, "-c", "import iniconfig; print(iniconfig.__file__)"], check=True, capture_output=True, text=True).stdout.startswith(str(environment.parent))


def test_an_environment_that_another_process_builds_is_waited_for(made, tmp_path: Path):
    place, tasks, environment, right = made
    remove(environment)
    with open(environment.with_suffix(".lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = started(place, tasks, "tiny-0", "waits", tmp_path / "said")
        until(lambda: "waiting for another process that builds its environment" in (tmp_path / "said").read_text(), process)
        assert not (package(environment) / "__init__.py").exists()
    assert process.wait(60) == 0 and content(environment) == right
