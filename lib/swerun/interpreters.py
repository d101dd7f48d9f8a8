"""Python interpreters: found on PATH, in pyenv, conda or uv, the newest patch release; else installed by uv."""

import functools
import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

import orjson

from swerun.errors import CommandFailed, Fatal
from swerun.paths import UV
from swerun.process import clean_env, run

Version = tuple[int, ...]
UNKNOWN: Version = (999,)  # sorts before every version that a path names: it has to be asked
PROBE_TIMEOUT = 20  # seconds
# neither venv nor ensurepip, which Debian leaves out: uv makes environments without them. The rest the official images have
PROBE = """
import sys
assert not hasattr(sys, "gettotalrefcount"), "it is a debug build"
import _ctypes, _sqlite3, _ssl, zlib, importlib.util, json, os, sysconfig
assert sys.version_info > (3, 12) or importlib.util.find_spec("distutils.core"), "it has no distutils"
print(json.dumps({
    "version": sys.version_info[:3], "name": sys.implementation.name, "final": sys.version_info[3] == "final",
    "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"), "path": getattr(sys, "_base_executable", None) or sys.executable,
    "headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))}))
"""
CONDAS = ("micromamba", "mamba", "conda")
CONDA_ROOTS = [f"{place}/{name}" for name in ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba", "conda") for place in ("~", "/opt")]


class Interpreter(NamedTuple):
    headers: bool  # first, for it ranks: one that builds C extensions is better than a newer one that cannot
    version: Version
    path: str


def find(version: str) -> str:
    """The path of an interpreter of this version; "3" is any, so the toolkit's own. Raises Fatal saying how to get one."""
    best, passed = search(version)
    if best:
        return best.path
    reasons = passed[:1]
    if downloadable(version):
        try:
            run(UV, "python", "install", "--no-bin", version)  # not --quiet, which keeps the reason to itself
        except CommandFailed as error:
            reasons.append(_last_line(error.stderr))
        else:
            best, passed = search(version)
            if best:
                return best.path
    how = " or ".join(f"'{command}'" for command in commands(version))
    raise Fatal(f"no Python {version} (get it with {how})" + (f": {'; '.join(reasons)}" if reasons else ""))


def search(version: str) -> tuple[Interpreter | None, list[str]]:
    """The best interpreter of this version that is on the machine, and a sentence for each that was passed over."""
    if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+){0,2}", version):  # 3.10 as a number is 3.1
        raise Fatal(f"{version!r} is not a version of Python (a spec names one as '3.9')")
    if version == "3":
        own = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        return _probe(own)[0] or Interpreter(False, sys.version_info[:3], own), []
    wanted = tuple(map(int, version.split(".")))
    best, passed = None, []
    for path, guess in sorted(_candidates(wanted).items(), key=lambda one: one[1], reverse=True):
        if best and (best.headers, best.version) >= (True, guess):
            break
        found, why = _probe(path)
        if found is None:
            passed.append(f"'{path}' {why}")
        elif found.version[:len(wanted)] == wanted and (best is None or found[:2] > best[:2]):
            best = found
    return best, passed


def commands(version: str) -> list[str]:
    """The commands that get an interpreter of this version: of the tools that are here, else of any that can."""
    if downloadable(version):
        return [f"{'uv' if shutil.which('uv') else UV} python install {version}"]
    conda = next(filter(shutil.which, CONDAS), None)
    pyenv = shutil.which("pyenv") or any(os.access(root / "bin" / "pyenv", os.X_OK) for root in _pyenv_roots())
    by_pyenv, by_conda = f"pyenv install {version}", f"{conda or CONDAS[0]} create -y -n py{version} -c conda-forge python={version}"
    return [by_pyenv] * bool(pyenv) + [by_conda] * bool(conda) or [by_pyenv, by_conda]


@functools.cache
def downloadable(version: str) -> bool:
    """Whether uv would install this version: it has none of 3.7 and older. Asks no network."""
    listed = run(UV, "python", "list", "--only-downloads", "--all-versions", f"cpython@{version}", check=False)
    return listed.returncode == 0 and bool(listed.stdout.strip())


def stamp(path: str) -> str:
    """What changes when an interpreter is upgraded or removed."""
    try:
        at = os.stat(path)
    except OSError:
        return "gone"
    return f"{at.st_size}-{at.st_mtime_ns}"


def _candidates(wanted: Version) -> dict[str, Version]:
    """Executables that may be of this version, each once, with the version that its place names."""
    minor = ".".join(map(str, wanted[:2]))
    # shims choose by the folder that they are called in
    folders = [folder for folder in os.get_exec_path() if os.path.isabs(folder) and os.path.basename(folder.rstrip("/")) != "shims"]
    places = [f"{folder}/{name}" for folder in folders for name in (f"python{minor}", "python3", "python")]
    places += [f"{prefix}/bin/python{minor}" for prefix in _prefixes()]
    found: dict[str, Version] = {}
    for path in map(os.path.realpath, places):
        other = re.search(r"/python(\d\.\d+)$", path)
        if path not in found and _runs(path) and (not other or other[1] == minor):
            guess = _named_version(Path(path).parent.parent)
            found[path] = guess if guess[:2] == wanted[:2] else UNKNOWN
    return found


def _runs(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _pyenv_roots() -> list[Path]:
    return _folders(os.environ.get("PYENV_ROOT"), "~/.pyenv")


def _folders(*names: str | None) -> list[Path]:
    return list(dict.fromkeys(Path(os.path.expanduser(name)) for name in names if name))


def _prefixes() -> Iterator[Path]:
    """Where pyenv, uv and conda keep interpreters: one folder each, with a bin in it."""
    env = os.environ.get
    for root in _pyenv_roots():
        yield from _in(root, "versions/*")
    for root in _folders(env("UV_PYTHON_INSTALL_DIR"), f"{env('XDG_DATA_HOME') or '~/.local/share'}/uv/python"):
        yield from _in(root, "cpython-*")
    programs = filter(None, (env("CONDA_EXE"), shutil.which("conda")))
    roots = [str(Path(program).resolve().parent.parent) for program in programs]  # ROOT/bin/conda
    for root in _folders(env("CONDA_PREFIX"), env("MAMBA_ROOT_PREFIX"), *roots, *CONDA_ROOTS, "~/.local/share/mamba", "~/.conda"):
        yield root
        yield from _in(root, "envs/*")
    for folder in _folders(*(env("CONDA_ENVS_PATH") or env("CONDA_ENVS_DIRS") or "").split(":")):
        yield from _in(folder, "*")
    listed = Path(os.path.expanduser("~/.conda/environments.txt"))
    if os.access(listed, os.R_OK):
        yield from map(Path, listed.read_text(errors="replace").splitlines())


def _in(root: Path, pattern: str) -> Iterator[Path]:
    return map(Path, sorted(glob.glob(f"{glob.escape(str(root))}/{pattern}")))


def _named_version(prefix: Path) -> Version:
    """The version that pyenv and uv have in a folder's name, conda in that of a file."""
    records = _in(prefix, "conda-meta/python-[0-9]*.json")
    names = (prefix.name.removeprefix("cpython-"), *(record.name.removeprefix("python-") for record in records))
    found = next(filter(None, (re.match(r"(\d+)\.(\d+)\.(\d+)(?![.\w])", name) for name in names)), None)
    return tuple(map(int, found.groups())) if found else UNKNOWN


@functools.cache
def _probe(path: str) -> tuple[Interpreter | None, str]:
    """What an interpreter says of itself, or why environments cannot be made with it."""
    try:
        # -S: what somebody installed into it is slow, and no concern of ours
        done = subprocess.run((path, "-I", "-S", "-W", "ignore", "-c", PROBE), stdin=subprocess.DEVNULL, capture_output=True,
                              env=clean_env(), cwd="/", timeout=PROBE_TIMEOUT)
    except OSError as error:
        return None, f"does not run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return None, f"does not answer in {PROBE_TIMEOUT} s"
    if done.returncode:
        return None, f"does not run: {_last_line(done.stderr.decode(errors='replace')) or f'exit code {done.returncode}'}"
    try:
        facts = orjson.loads(done.stdout.strip().rpartition(b"\n")[2])
        fits = facts["name"] == "cpython" and facts["gil"] and facts["final"]
    except (orjson.JSONDecodeError, TypeError):
        fits = False
    if not fits:
        return None, "is not a released CPython"
    base = os.path.realpath(facts["path"])  # a wrapper or a copy in a venv stands for this one
    return Interpreter(facts["headers"], tuple(facts["version"]), base if _runs(base) else path), ""


def _last_line(text: str) -> str:
    """The reason that a command gives last, without the addresses of archives, which are longer than all the rest."""
    line = next(reversed(text.strip().splitlines()), "").strip()
    return re.sub(r"^(cause|error): |[:,]? ?`?\w+://\S+", "", line)[:200]
