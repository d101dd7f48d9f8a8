"""Resolving a spec to a lock, with uv, in the order in which the official harness installs things."""

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import orjson

from swerun import interpreters, paths, process, uses, wishing
from swerun.errors import Fatal
from swerun.git import git
from swerun.locks import Lock
from swerun.spec import Spec
from swerun.state import remove_tree
from swerun.uv import uv

# run in a project's folder: the last line printed is what its setup.py or setup.cfg asks to have before it is run
LEGACY = "from setuptools.build_meta import __legacy__ as legacy"
ASK = f"import json; {LEGACY}; print('\\n' + json.dumps(legacy.get_requires_for_build_wheel()))"
PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
HOOKED = {"hatchling": "editables", "flit_scm": "flit-core", "mesonpy": "ninja", "scikit_build_core": "ninja"}
# yanked from the index, and what the official harness puts in its place (REPLACE_REQ_PACKAGES)
REPLACED = {"types-pkg_resources": "types-setuptools"}


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
    for wanted in (spec.seed, _packages(spec, row), spec.pip_packages):
        if wanted:
            listed = scratch / "wanted.txt"
            listed.write_text("\n".join(wanted))
            uv(*target, "-r", listed, "-c", pins, limit=limit, log=log)
    build: list[str] = []
from swerun import interpreters, paths, process, uses, wishing
        isolation, env = (), dict(spec.environment)
        if project and not requires:
            # what setuptools fetches joins what is installed; what pip installs for an isolated build does not see that
            build = _compile(_setup_requires(spec, checkout, scratch), _installed(scratch), scratch, limit, log)
            if build:
                uv("pip", "install", "--quiet", "--no-deps", "--target", scratch / "build", "--python", scratch / "bin" / "python", *build, limit=limit, log=log)
                env["PYTHONPATH"] = str(scratch / "build")
            isolation = ("--no-build-isolation",)
from swerun import interpreters, paths, process, uses, wishing
        # a copy from the index goes, as when pip installs the project: behind an editable install it would be the one that is imported
        own = re.findall(r"^ [+~] (\S+?)(?: @|==\S+ \(from) file:", tried, re.M)
        if own:
            uv("pip", "uninstall", "--quiet", "--python", scratch / "bin" / "python", *own, log=log)
        if requires:
            build = _compile([*requires, *_hooked(checkout)], [], scratch, limit, log)
    packages = _installed(scratch)
    minor = next((scratch / "lib").glob("python*")).name.removeprefix("python")
    remove_tree(scratch)
    if spec.pip == "masked":  # builds have it still
        build = sorted({*build, *(pin for pin in packages if pin.startswith("pip=="))})
        packages = [pin for pin in packages if not pin.startswith("pip==")]
    return Lock(minor, packages, build, limit)


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


def _packages(spec: Spec, row: dict[str, Any]) -> list[str]:
    """The spec's `packages`: words for conda, or the requirements or environment file of the set-up commit."""
    commit = row.get("environment_setup_commit") or row["base_commit"]
    if spec.packages == "requirements.txt":
        return _requirements(row["repo"], commit, row["base_commit"], spec.requirements_paths)
    if spec.packages == "environment.yml":
        return _conda_file(spec, row["repo"], commit, row["base_commit"])
    return shlex.split(spec.packages)


def read_from_mirror(repo: str, commits: tuple[str, ...], names: list[str]) -> tuple[str, str]:
    """(path, text) of the first of these files that a commit has; a commit that is gone from the repository is passed over."""
    mirror = paths.mirror(repo)
    uses.hold(mirror)
    for commit in commits:
        for name in names:
            shown = git(mirror, "show", f"{commit}:{name}", check=False)
            if shown.returncode == 0:
                return name, shown.stdout
    raise Fatal(f"none of {', '.join(names) or 'no files'} is in '{repo}' at {commits[0][:12]}")


def _requirements(repo: str, commit: str, base_commit: str, names: list[str]) -> list[str]:
    """A requirements file with the files it includes, less the project itself, as get_requirements of the harness reads it."""
    name, text = read_from_mirror(repo, (commit, base_commit), names)
    lines: list[str] = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("-r"):
            other = os.path.normpath(os.path.join(os.path.dirname(name), line[2:].strip()))
            lines += _requirements(repo, commit, base_commit, [other])
        elif line and not line.startswith(("-e .", "#", ".[test")):
            lines.append(line)
    return [re.sub(r"^([\w.-]+)([<>=!~].*)?$", lambda m: REPLACED.get(m[1], m[0]), line) for line in lines]


def _conda_file(spec: Spec, repo: str, commit: str, base_commit: str) -> list[str]:
    """The packages of a conda environment file under their names on PyPI; what has none there stands in the spec."""
    import yaml

    _, text = read_from_mirror(repo, (commit, base_commit), spec.environment_yml_paths)
    wanted: list[str] = []
    for item in yaml.safe_load(text).get("dependencies", ()):
        if isinstance(item, dict):
            wanted += [line for line in item.get("pip", ()) if not line.startswith("-")]
            continue
        name, rest = re.fullmatch(r"([\w.-]+)\s*(.*)", str(item).split("::")[-1].strip()).groups()
        if name == "python" or name in spec.conda_absent:
            continue
        version = re.sub(r"^=(?!=)([\d.]+).*$", r"==\1.*", rest.replace(" ", ""))
        wanted.append(spec.conda_to_pip.get(name, name) + version)
    return wanted
