"""A spec for a repository that nobody has described, from its packaging files and the date of the task."""

import datetime
import os
import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from swerun import evalscripts, interpreters, wishes
from swerun import declared as declarations
from swerun.declared import Declared
from swerun.spec import Spec
from swerun.trees import Tree, opened

# when each minor version of Python came out (peps.python.org: the release schedules)
RELEASED = {6: "2016-12-23", 7: "2018-06-27", 8: "2019-10-14", 9: "2020-10-05", 10: "2021-10-04", 11: "2022-10-24", 12: "2023-10-02", 13: "2024-10-07",
            14: "2025-10-07"}
SETTLED = datetime.timedelta(days=180)   # until the packages that a project needs have wheels for a new Python
LIFETIME = datetime.timedelta(days=365 * 5 + 60)
# The date of a task is that of what its project sees, not of the tool that installs it. These know both ways of an editable install (PEP 660,
# and `setup.py develop`): pips before 21.3 refuse a pyproject.toml that names its builder, and pips of 2025 give up the other way
PIPS = {"3.6": "21.3.1", "3.7": "24.0"}
PIP = "24.2"
# pytest 4.6 is the first that lists what passed, with -rA, in the words that the official parsers read
REPORTING = "2019-06-10T00:00:00Z"
PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
PLACES = re.compile(r"HOME|TMPDIR|TEMP|TMP|PATH|COVERAGE_\w+|PIP_\w+|PYTHON\w+|TOX_\w+|VIRTUALENV_\w+")  # of tox, or of how Python itself runs: builds would see that too


def spec_of(repo: str, commit: str, date: str, install: list[str]) -> Spec:
    """The spec of a commit as of a date, its own where there is none. Raises NotYet where its repository is not there yet.

    `install` are the commands that are known to install the project, if they are.
    """
    with opened(repo, commit) as tree:
        return made_from(tree, date or tree.date(), install)


def made_from(tree: Tree, date: str, install: list[str]) -> Spec:
    declared = declarations.read(tree)
    packages, files = evalscripts.asked_for(install)
    asked = [*packages, *(line for name in files for line in wishes.requirements(tree, os.path.normpath(name)))]
    commands = [one for one in install if not re.search(r"\bpip3? install\b", one)]  # those of pip are ours
    minor = python(declared, tree, datetime.date.fromisoformat(date[:10]))
    return Spec(
        python=f"3.{minor}",
        test_cmd="pytest -rA",
        log_parser="parse_log_pytest",
        seed=[f"pip=={PIPS.get(f'3.{minor}', PIP)}", "setuptools", "wheel"],
        pip_packages=["pytest"],
        wishes=wishes.sound([*asked, *wishes.listed(tree, declared, minor)]),
        install="\n".join([*["python -m pip install -e ."] * bool(tree.names & set(PROJECT_FILES)), *commands]),
        environment=environment(tree),
        exclude_newer=max(date, REPORTING),
    )


def python(declared: Declared, tree: Tree, date: datetime.date) -> int:
    """The newest minor version that was settled at the date, that the project allows and, where it says so, names."""
    out = {minor: datetime.date.fromisoformat(day) for minor, day in RELEASED.items()}
    allowed = [minor for minor in out if all(_allows(text, minor) for text in declared.requires_python)] or list(out)
    settled = [minor for minor in allowed if out[minor] + SETTLED <= date] or allowed[:1]
    named = declared.minors | tox_minors(tree)
    # names that ended with the lives of their Pythons are names that nobody keeps up
    kept = [minor for minor in settled if minor in named and out[minor] + LIFETIME >= date]
    if named and max(named) < min(out):
        kept = [minor for minor in allowed if minor == min(out)]
    choice = sorted(kept or settled, reverse=True)
    # of those that can be had here the newest, else the newest, so that the message says how to get it
    return next((minor for minor in choice if interpreters.search(f"3.{minor}")[0] or interpreters.downloadable(f"3.{minor}")), choice[0])


def _allows(text: str, minor: int) -> bool:
    """Whether a specifier leaves any patch release of a minor version."""
    try:
        found = SpecifierSet(text)
    except InvalidSpecifier:
        return True
    return any(found.contains(f"3.{minor}.{patch}") for patch in (0, 5, 30))


def tox_minors(tree: Tree) -> set[int]:
    """The Pythons of tox's envlist: `py{36,37}-x, py3.8` are 6, 7 and 8."""
    text = tree.read("tox.ini")
    found = re.search(r"^env_?list\s*=(.*(?:\n[ \t]+.*)*)", text, re.M)
    listed = found[1] if found else ""
    while braces := re.search(r"([^\s,{}]*)\{([^{}]*)\}([^\s,{}]*)", listed):
        listed = listed.replace(braces[0], ",".join(f"{braces[1]}{one.strip()}{braces[3]}" for one in braces[2].split(",")))
    return {int(one) for one in re.findall(r"py3\.?(\d+)", listed)}


def environment(tree: Tree) -> dict[str, str]:
    """What tox sets for tests, where that is the same in every place."""
    parser = declarations.ini(tree.read("tox.ini"))
    pairs = re.findall(r"^\s*(\w+)\s*=\s*([^{\n]*?)\s*$", parser.get("testenv", "setenv", fallback="") or "", re.M)
    return {name: value for name, value in pairs if not PLACES.fullmatch(name)}
