"""Shared environments, one a lock, built once and never written again: whole, unchanged, on the interpreter it was made with."""

import hashlib
import os
from pathlib import Path
from typing import Callable

from swerun import disk, interpreters, paths, process, slots, uses
from swerun.locks import Lock
from swerun.state import locked, read_json, remove_tree, write_json
from swerun.uv import uv

Say = Callable[[str], None]
# where builds have another version of what is installed: a backend that pip starts sees theirs, pip itself what is installed
APART = """import os, sys
if {{"_PYPROJECT_HOOKS_BUILD_BACKEND", "PEP517_BUILD_BACKEND"}} & set(os.environ):
    sys.path.insert(0, {build!r})
"""


def why_not(env_key: str) -> str | None:
    """Why an environment cannot be used; None where it can be."""
    folder = paths.environment(env_key)
    made = read_json(folder / "complete.json")
    if made is None:
        return "its build did not end" if folder.exists() else "not there"
    if made.get("folder") != str(folder):
        return f"made for another place, '{made.get('folder')}'"  # it holds its own path
    if made["interpreter"] != interpreters.stamp(made["python"]):
        return f"its interpreter '{made['python']}' was removed or changed"
    return None if made["files"] == stamp(folder) else "its files were changed"


def held(env_key: str) -> bool:
    """Whether an environment can be used; if so it stays until this process is done with it."""
    uses.hold(paths.environment(env_key))
    return why_not(env_key) is None


def stamp(folder: Path) -> str:
    """A digest of the name, size and change time of every file, which nothing that writes one leaves as it was.

    Python's caches are left out: Python and pytest write some of them later.
    """
    found: list[str] = []
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        waiting.append(entry.path)
                elif entry.name != "complete.json":
                    at = entry.stat(follow_symlinks=False)
                    found.append(f"{entry.path}\0{at.st_size}\0{at.st_ctime_ns}")
    found.sort()
    return hashlib.blake2b("\n".join(found).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def ensure(lock: Lock, say: Say = lambda text: None, log: Path | None = None) -> str:
    """Build the environment of a lock if it is not there as it was built; returns its key."""
    key = lock.key()
    folder = paths.environment(key)
    if held(key):
        return key
    with locked(folder.with_suffix(".lock"), lambda: say("waiting for another process that builds its environment")):
        reason = why_not(key)
        if reason:
            with slots.slot(say):
                again = "" if reason == "not there" else f", for {reason}"
                say(f"building environment {key} (Python {lock.python}, {len(lock.packages)} packages){again}")
                _build(lock, folder, log)
    return key


def _build(lock: Lock, folder: Path, log: Path | None) -> None:
    """Built in place, for a venv holds its own path; what says that it is whole comes last."""
    found = interpreters.find(lock.python)
    remove_tree(folder)
    paths.make_dir(folder)
    (folder / "lock.txt").write_text("\n".join([*lock.packages, ""]))
    (folder / "build.txt").write_text("\n".join([*lock.build, ""]))
    uv("venv", "--quiet", "--python", found, folder / "venv", log=log)
    python = folder / "venv" / "bin" / "python"
    # copies: by a hardlink, one edit would be in uv's cache and in every environment
    install = ("pip", "install", "--quiet", "--no-deps", "--link-mode", "copy", "--python", python)
    uv(*install, "-r", folder / "lock.txt", limit=lock.exclude_newer, log=log)
    if lock.build:
        uv(*install, "--target", folder / "build", "-r", folder / "build.txt", limit=lock.exclude_newer, log=log)
        if {pin.split("==")[0] for pin in set(lock.build) - set(lock.packages)} & {pin.split("==")[0] for pin in lock.packages}:
            (paths.make_dir(folder / "apart") / "sitecustomize.py").write_text(APART.format(build=str(folder / "build")))
    # uv's own --compile-bytecode needs Python 3.7; files that do not compile (templates, Python 2) are meant not to
    process.run(python, "-I", "-m", "compileall", "-qq", site_packages(folder / "venv"), check=False)
    process.run("chmod", "-R", "a-w", *(path for path in (folder / "venv", folder / "build", folder / "apart") if path.is_dir()))
    write_json(folder / "complete.json", {"folder": str(folder), "python": found, "interpreter": interpreters.stamp(found), "files": stamp(folder), "bytes": disk.size(folder)})


def build_path(env_key: str) -> Path | None:
    """What builds have on PYTHONPATH: the packages that only they see, or what shows them those."""
    folder = paths.environment(env_key)
    return next((folder / name for name in ("apart", "build") if (folder / name).is_dir()), None)


def site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python*")) / "site-packages"
