"""The packages that a spec names: words for conda, or the files of the repository that list them."""

import os
import re
import shlex
from typing import Any

from swerun import paths, uses
from swerun.errors import Fatal
from swerun.git import git
from swerun.spec import Spec

# yanked from the index, and what the official harness puts in its place (REPLACE_REQ_PACKAGES)
REPLACED = {"types-pkg_resources": "types-setuptools"}


def packages(spec: Spec, row: dict[str, Any]) -> list[str]:
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
