"""Resolving a spec to a lock, with uv, in the order in which the official harness installs things."""

import re
import tomllib
from pathlib import Path
from typing import Any

import orjson

from swerun import interpreters, listed, paths, process, wishing
from swerun.errors import Fatal
from swerun.locks import Lock
from swerun.spec import Spec
from swerun.state import remove_tree
from swerun.uv import uv

# run in a project's folder: the last line printed is what its setup.py or setup.cfg asks to have before it is run
LEGACY = "from setuptools.build_meta import __legacy__ as legacy"
IS_OLD = 3
OLD = f"import setuptools, sys\ntry: {LEGACY}\nexcept ImportError: sys.exit({IS_OLD})"
ASK = f"import json; {LEGACY}; print('\\n' + json.dumps(legacy.get_requires_for_build_wheel()))"
PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
HOOKED = {"hatchling": "editables", "flit_scm": "flit-core", "mesonpy": "ninja", "scikit_build_core": "ninja"}


def upload_limit(spec: Spec, row: dict[str, Any]) -> str:
    """The date after which no upload counts: the spec's, else the one on which the row was made; none where neither is known."""
    return spec.exclude_newer or str(row.get("created_at") or "")


def resolve(spec: Spec, row: dict[str, Any], checkout: Path, scratch: Path, log: Path) -> Lock:
    """Resolve a spec against a checkout (pre_install done), in a scratch environment that is thrown away.

    In steps, as the images were made: what conda brings, the packages, the pip packages, then the project's own
    requirements; a later step may change what an earlier one chose, and one resolution of all would refuse that.
    """
    python, limit = interpreters.find(spec.python), upload_limit(spec, row)
    remove_tree(scratch)
    uv("venv", "--quiet", "--python", python, scratch, log=log)
    target = ("pip", "install", "--quiet", "--python", scratch / "bin" / "python")
    pins = scratch / "pins.txt"
    pins.write_text("\n".join(spec.pins))
    for wanted in (spec.seed, listed.packages(spec, row), spec.pip_packages):
        if wanted:
            file = scratch / "wanted.txt"
            file.write_text("\n".join(wanted))
            uv(*target, "-r", file, "-c", pins, limit=limit, log=log)
    build: list[str] = []
    project = bool(spec.install) and any((checkout / name).is_file() for name in PROJECT_FILES)
    if project or spec.wishes:
        build = _add_project(spec, checkout if project else None, scratch, target, pins, limit, log)
    packages = _installed(scratch)
    minor = next((scratch / "lib").glob("python*")).name.removeprefix("python")
    remove_tree(scratch)
    if spec.pip == "masked":  # builds have it still
        build = sorted({*build, *(pin for pin in packages if pin.startswith("pip=="))})
        packages = [pin for pin in packages if not pin.startswith("pip==")]
    return Lock(minor, packages, build, limit)


def _add_project(spec: Spec, checkout: Path | None, scratch: Path, target: tuple[str | Path, ...], pins: Path, limit: str, log: Path) -> list[str]:
    """Install what the project (none for None) and the wishes of its files ask for; returns the pins that only its build needs."""
    build: list[str] = []
    requires = _build_requires(checkout) if checkout and "--no-build-isolation" not in spec.install else []
    isolation, env, asked = (), dict(spec.environment), None
    if checkout and not requires:
        # what setuptools fetches joins what is installed; what pip installs for an isolated build does not see that
        build = _compile(_setup_requires(spec, checkout, scratch), _installed(scratch), scratch, limit, log)
        if build:
            uv("pip", "install", "--quiet", "--no-deps", "--target", scratch / "build", "--python", scratch / "bin" / "python", *build, limit=limit, log=log)
            env["PYTHONPATH"] = str(scratch / "build")
        isolation = ("--no-build-isolation",)
        if process.run(scratch / "bin" / "python", "-c", OLD, env=process.clean_env(), check=False).returncode == IS_OLD:
            asked = _asked_of_setup_py(spec, checkout, scratch)

    def attempt(wished: list[str]) -> str:
        """What an installation of the project and these wishes would do, in uv's words."""
        extras = ",".join(dict.fromkeys([*spec.extras(), *(extra for one in wished if one.startswith(".[") for extra in re.split(r"[\s,]+", one[2:-1]))]))
        file = scratch / "wished.txt"
        file.write_text("\n".join([*(one for one in wished if not one.startswith(".[")), *spec.pip_packages] if wished else []))
        # the project itself takes part, for some of what it needs asks for a version of it; but it is not installed
        words = asked or ([f"{checkout}[{extras}]" if extras else checkout] if checkout else [])
        tried = uv(*target[:2], "--dry-run", *target[3:], *isolation, *words, "-r", file, "-c", pins, limit=limit, log=log, env=env).stderr
        added = re.findall(r"^ [+~] (\S+==\S+)$", tried, re.M)
        if added:
            uv(*target, "--no-deps", *added, limit=limit, log=log)
        return tried

    tried = wishing.most(spec.wishes, attempt, log)
    # a copy from the index goes, as when pip installs the project: behind an editable install it would be the one that is imported
    own = re.findall(r"^ [+~] (\S+?)(?: @|==\S+ \(from) file:", tried, re.M)
    if own:
        uv("pip", "uninstall", "--quiet", "--python", scratch / "bin" / "python", *own, log=log)
    return _compile([*requires, *_hooked(checkout)], [], scratch, limit, log) if requires else build


def _installed(scratch: Path) -> list[str]:
    return _pins(uv("pip", "freeze", "--python", scratch / "bin" / "python").stdout)


def _compile(requires: list[str], beside: list[str], scratch: Path, limit: str, log: Path) -> list[str]:
    """Pins for all that these requirements need beside what is installed."""
    if not requires:
        return []
    wanted, given = scratch / "build.txt", scratch / "beside.txt"
    wanted.write_text("\n".join(requires))
    given.write_text("\n".join(beside))
    words = ("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", scratch / "bin" / "python")
    compiled = uv(*words, wanted, "-c", given, limit=limit, log=log)
    return [pin for pin in _pins(compiled.stdout) if pin not in beside]


def _pins(text: str) -> list[str]:
    return sorted(line.strip() for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line))


def _build_requires(checkout: Path) -> list[str]:
    """What the project's build system asks for; nothing where it predates pyproject.toml and builds with the environment's setuptools."""
    file = checkout / "pyproject.toml"
    try:
        system = tomllib.loads(file.read_text()).get("build-system", {}) if file.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise Fatal(f"'{file}' is not TOML: {error}") from None
    requires = list(system.get("requires", ()))
    # setuptools asked for wheel through a hook until 70.1, which a build without isolation does not call
    return [*requires, "wheel"] if requires else []


def _hooked(checkout: Path) -> list[str]:
    """What a build backend asks for only when it is asked to install editably, which pip does not ask without isolation."""
    text = (checkout / "pyproject.toml").read_text(errors="replace")
    return [needed for backend, needed in HOOKED.items() if re.search(rf"build-backend\s*=\s*[\"']{re.escape(backend)}", text)]


def _setup_requires(spec: Spec, checkout: Path, scratch: Path) -> list[str]:
    """The `setup_requires` of setup.py or setup.cfg, which setuptools would fetch from an index in the middle of a build; asked of setuptools itself.

    Nothing where it cannot answer: its setup.py does not run, which the installation will say, or it is older than 40.8.
    """
    asked = process.run(scratch / "bin" / "python", "-c", ASK, cwd=checkout, env=process.clean_env(spec.environment), check=False)
    wanted = orjson.loads(asked.stdout.splitlines()[-1]) if asked.returncode == 0 else []
    return [name for name in wanted if name != "wheel"]  # its own, not the project's


def _asked_of_setup_py(spec: Spec, checkout: Path, scratch: Path) -> list[str]:
    """What a project needs, asked in the way that a setuptools older than 40.8 knows; uv knows only a newer one."""
    base = paths.make_dir(scratch / "egg")
    process.run(scratch / "bin" / "python", "setup.py", "-q", "egg_info", "--egg-base", base, cwd=checkout, env=process.clean_env(spec.environment))
    wanted, section = [], ""
    for file in base.glob("*.egg-info/requires.txt"):
        for line in filter(None, map(str.strip, file.read_text().splitlines())):
            extra, _, marker = section.partition(":")
            if line.startswith("["):
                section = line.strip("[]")
            elif not extra or extra in spec.extras():
                wanted.append(f"{line}; {marker}" if marker else line)
    return wanted or ["setuptools"]
