"""Python interpreters: found on PATH, in pyenv, conda or uv, the newest patch release; else installed by uv."""

import os
import re
import shutil
import sys
from pathlib import Path

from swerun.errors import CommandFailed, Fatal
from swerun.paths import UV
from swerun.process import run

HOMES = (
    "{PYENV_ROOT}/versions/{version}*/bin/python",
    "~/.pyenv/versions/{version}*/bin/python",
    "~/.local/share/uv/python/cpython-{version}*/bin/python3",
    "{CONDA_ROOT}/envs/*/bin/python{version}",
    "~/miniconda3/envs/*/bin/python{version}",
    "~/miniforge3/envs/*/bin/python{version}",
    "/opt/conda/envs/*/bin/python{version}",
)


def find(version: str) -> str:
    """The path of an interpreter of this version; "3" is any, so the toolkit's own. Raises Fatal saying how to get one."""
    if version == "3":
        return os.path.realpath(sys.executable)
    best = max(filter(None, map(_probe, _candidates(version))), default=None)
    if best and best[0][:2] == tuple(map(int, version.split(".")[:2])):
        return best[1]
    try:
        run(UV, "python", "install", "--quiet", version)
        return run(UV, "python", "find", "--managed-python", version).stdout.strip()
    except CommandFailed as error:
        how = f"'uv python install {version}' or 'pyenv install {version}'"
        if tuple(map(int, version.split(".")[:2])) < (3, 7):  # which uv does not install
            how = f"'pyenv install {version}' or 'micromamba create -n py{version} python={version}'"
        raise Fatal(f"no Python {version} (get it with {how}): {str(error).rsplit(': ', 1)[-1]}") from None


def stamp(path: str) -> str:
    """What changes when an interpreter is upgraded or removed."""
    try:
        at = os.stat(path)
    except OSError:
        return "gone"
    return f"{at.st_size}-{at.st_mtime_ns}"


def _candidates(version: str) -> list[str]:
    folders = [folder for folder in os.get_exec_path() if "shims" not in folder]
    found = [path for folder in folders if (path := shutil.which(f"python{version}", path=folder))]
    for pattern in HOMES:
        roots = {name: os.environ.get(name, "/nonexistent") for name in ("PYENV_ROOT", "CONDA_ROOT")}
        filled = os.path.expanduser(pattern.format(version=version, **roots))
        found += map(str, Path("/").glob(filled.lstrip("/")))
    return found


def _probe(path: str) -> tuple[tuple[int, ...], str] | None:
    """(version, path) of a CPython that runs and can make environments."""
    done = run(path, "-I", "-c", "import sys, venv, ensurepip; print(*sys.version_info[:3], sys.implementation.name)", check=False)
    found = re.fullmatch(r"(\d+) (\d+) (\d+) cpython\s*", done.stdout)
    return (tuple(map(int, found.groups())), os.path.realpath(path)) if found and done.returncode == 0 else None
