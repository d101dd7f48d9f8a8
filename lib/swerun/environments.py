"""Shared environments, one a lock, built once and never written again: whole, unchanged, on the interpreter it was made with."""

from pathlib import Path
from typing import Callable

from swerun import disk, interpreters, paths, pool, process, seals, slots, uses
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
    return None if seals.unbroken(folder, folder / seals.RECORD) else "its files were changed"


def held(env_key: str) -> bool:
    """Whether an environment can be used; if so it stays until this process is done with it."""
    uses.hold(paths.environment(env_key))
    return why_not(env_key) is None


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
    pool.date(folder)
    packages = site_packages(folder / "venv")
    # uv's own --compile-bytecode needs Python 3.7; files that do not compile (templates, Python 2) are meant not to
    # named without this environment's folder, what was compiled is the same in all; Python puts the path right on import
    process.run(python, "-I", "-m", "compileall", "-qq", "-d", packages.relative_to(folder), packages, check=False)
    process.run("chmod", "-R", "a-w", *(path for path in (folder / "venv", folder / "build", folder / "apart") if path.is_dir()))
    pool.share(folder)
    seals.seal(folder, folder / seals.RECORD)
    write_json(folder / "complete.json", {"folder": str(folder), "python": found, "interpreter": interpreters.stamp(found), "bytes": disk.own_size(folder)})


def build_path(env_key: str) -> Path | None:
    """What builds have on PYTHONPATH: the packages that only they see, or what shows them those."""
    folder = paths.environment(env_key)
    return next((folder / name for name in ("apart", "build") if (folder / name).is_dir()), None)


def site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python*")) / "site-packages"
