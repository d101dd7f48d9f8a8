"""What tasks need of a machine, and whether it is there: tools, interpreters, specs, headers, an index; and what a run gets by itself."""

import re
import shutil
import sys
import time
from collections import defaultdict
from typing import Any, Iterator

from swerun import disk, interpreters, paths, spec as specs, supplies, system
from swerun.errors import CommandFailed, Fatal, NotYet
from swerun.needs import Group, Need, Row
from swerun.process import clean_env, run

# program, the oldest that will do, a word that its --version has, its package for each of MANAGERS
TOOLS = (
    ("git", (2, 31), "", "git git git git"),  # the first with GIT_CONFIG_COUNT
    ("make", (4, 2), "GNU", "make make make make"),
    ("parallel", (), "GNU", "parallel parallel parallel parallel"),  # moreutils has another of that name
    ("jq", (), "", "jq jq jq jq"),
    ("patch", (), "", "patch patch gpatch patch"),
    ("bash", (), "", "bash bash bash bash"),
    ("cc", (), "", "build-essential gcc gcc c-compiler"),
)
MANAGERS = {"apt-get": "apt-get install", "dnf": "dnf install", "brew": "brew install", "conda": "conda install -c conda-forge"}
INDEX_TIMEOUT = 5  # seconds


def needs(rows: list[Row], remote: str) -> Iterator[Need]:
    """Everything that the tasks of these rows need, one after the other, what is there as well as what is missing."""
    yield from (_tool(rows, *tool) for tool in TOOLS)
    groups, undescribed = _groups(rows)
    yield from undescribed
    yield from _interpreters(groups)
    found = list(supplies.locks_of(groups))
    yield from found
    yield from supplies.services_of(groups)
    yield from supplies.downloads_of(groups)
    yield from supplies.mirrors_of(rows, remote)
    yield from _system(groups)
    yield from _internet(groups)
    yield _index(rows, any(need.need == "locks to make" for need in found))
    yield supplies.disk_of(rows, groups)
    taken, told = disk.summary()
    if taken > disk.GIB / 100:
        yield Need("disk taken", rows, f"{told} in '{paths.cache()}' ('make gc' frees what nobody needs)")


def _tool(rows: list[Row], program: str, oldest: tuple[int, ...], word: str, packages: str) -> Need:
    named = " ".join(filter(None, (word, program, oldest and f"{'.'.join(map(str, oldest))} or newer")))
    at = shutil.which(program)
    told = run(at, "--version", check=False).stdout if at else ""
    version = re.search(r"\d+(\.\d+)*", told)
    fits = at and word in told and tuple(map(int, version[0].split(".") if version else ())) >= oldest
    return Need(named if program != "cc" else "C compiler (cc)", rows, f"{at} ({version[0] if version else '?'})" if fits else "", _package(packages))


def _groups(rows: list[Row]) -> tuple[list[Group], list[Need]]:
    """The environments of the rows, and a need for each that nobody has described."""
    by_key: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        by_key[specs.group(row)].append(row)
    groups, undescribed = [], []
    for found in by_key.values():
        try:
            groups.append(Group(found, specs.of(found[0])))
        except Fatal as error:
            named = f"spec of {found[0]['repo']} {found[0]['version']}".strip()
            undescribed.append(Need(named, found, "", str(error), comes=isinstance(error, NotYet)))
    return groups, undescribed


def _interpreters(groups: list[Group]) -> Iterator[Need]:
    by_version: dict[str, list[Row]] = defaultdict(list)
    for group in groups:
        by_version[group.spec.python] += group.rows
    for version, rows in sorted(by_version.items(), key=lambda one: [int(number) for number in re.findall(r"\d+", str(one[0]))]):
        found, get = "", ""
        try:
            best, _ = interpreters.search(version)
            if best:
                numbers = ".".join(map(str, best.version))
                found = f"{best.path} ({numbers}{'' if best.headers else ', without Python.h: it builds no C extensions'})"
            else:
                get = " or ".join(interpreters.commands(version))
        except Fatal as error:
            get = str(error)
        yield Need(f"Python {version}" if version != "3" else "Python 3 of any minor version", rows, found, get)


def _system(groups: list[Group]) -> Iterator[Need]:
    """Headers and programs that builds and tests use, each with the tasks that it costs where it is missing."""
    found: dict[str, tuple[system.Fact, list[Row]]] = {}
    for group in groups:
        for fact in group.spec.system:
            found.setdefault(repr(sorted(fact.items())), (fact, []))[1].extend(system.concerned(fact, group.rows))
    for fact, rows in found.values():
        if rows:
            yield Need(fact["name"], rows, system.found(fact), _package(fact["packages"]), costs=True)


def _internet(groups: list[Group]) -> Iterator[Need]:
    """Tests that need the internet whatever is on this machine."""
    for group in groups:
        for mark in group.spec.internet:
            rows = system.concerned(mark, group.rows)
            if rows:
                yield Need("internet, for tests", rows, f"marked in the spec: {' '.join(mark['reason'].split())}")


def _package(packages: str) -> str:
    """The command that installs one of these packages, which stand in the order of MANAGERS; `-` for one that a manager has not got."""
    by = {manager: name.replace("+", " ") for manager, name in zip(MANAGERS, packages.split(), strict=True) if name != "-"}
    manager = next(filter(shutil.which, by), next(iter(by)))
    return f"{MANAGERS[manager]} {by[manager]}"


def _index(rows: list[Row], dated: bool) -> Need:
    """Asked for what every environment has; as of a date where locks are to be made, for not every registry knows its dates."""
    limit = ("--exclude-newer", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())) if dated else ()
    env = clean_env({"UV_HTTP_TIMEOUT": str(INDEX_TIMEOUT), "UV_HTTP_RETRIES": "0"})
    words = ("pip", "compile", "--quiet", "--no-deps", "--no-cache", "--python", sys.executable, *limit, "-")
    try:
        run(paths.UV, *words, input=b"wheel\n", env=env)
    except CommandFailed as error:
        reason = error.stderr.strip().rpartition("\n")[2].strip().removeprefix("cause: ")
        return Need("package index", rows, "", f"set UV_DEFAULT_INDEX to one that uv can reach: {reason[:160]}")
    return Need("package index", rows, "reached by uv")
