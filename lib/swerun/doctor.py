"""What tasks need of a machine, and whether it is there: tools, interpreters, specs, locks, mirrors, an index, disk."""

import os
import re
import shutil
import sys
import time
from collections import defaultdict
from typing import Any, Iterator, NamedTuple

from swerun import disk, environments, interpreters, locks, mirrors, paths, services, spec as specs, system
from swerun.errors import CommandFailed, Fatal
from swerun.process import clean_env, run
from swerun.spec import Spec

Row = dict[str, Any]

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
# MiB, rounded up from what fourteen tasks of eight repositories of SWE-bench Lite took
MIRROR_SIZE, ENVIRONMENT_SIZE, TASK_SIZE = 150, 180, 20


class Need(NamedTuple):
    need: str
    rows: list[Row]  # of the tasks that need it
    found: str       # where it is, "" where it is not
    get: str = ""    # the command that gets it
    comes: bool = False  # a run gets it by itself
    costs: bool = False  # single tasks cannot be graded rightly without it, whatever else is there

    def missing(self) -> bool:
        return not self.found and not self.comes


class Group(NamedTuple):
    """Rows of one environment: of a repository and version, or of the same description of their own."""

    rows: list[Row]
    spec: Spec


def needs(rows: list[Row], remote: str) -> Iterator[Need]:
    """Everything that the tasks of these rows need, one after the other, what is there as well as what is missing."""
    yield from (_tool(rows, *tool) for tool in TOOLS)
    groups, undescribed = _groups(rows)
    yield from undescribed
    yield from _interpreters(groups)
    found = list(_locks(groups))
    yield from found
    yield from _services(groups)
    yield from _mirrors(rows, remote)
    yield from _system(groups)
    yield _index(rows, any(need.need == "locks to make" for need in found))
    yield _disk(rows, groups)
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
        by_key[repr(row["install_config"]) if locks.is_from_row(row) else "", row["repo"], row["version"]].append(row)
    groups, undescribed = [], []
    for found in by_key.values():
        try:
            groups.append(Group(found, specs.of(found[0])))
        except Fatal as error:
            undescribed.append(Need(f"spec of {found[0]['repo']} {found[0]['version']}", found, "", str(error)))
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


def _locks(groups: list[Group]) -> Iterator[Need]:
    kinds: dict[str, list[Row]] = {"locks, validated": [], "locks, not validated": [], "locks to make": []}
    for rows, spec in groups:
        try:
            facts = [locks.read_facts(file) for file in locks.shipped(rows[0], spec)]
        except Fatal as error:
            yield Need(f"lock of {rows[0]['repo']} {rows[0]['version']}", rows, "", str(error))
            continue
        kind = "locks to make" if not facts else "locks, validated" if any(one["validated"] for one in facts) else "locks, not validated"
        kinds[kind] += rows
    for kind, rows in kinds.items():
        if rows:
            made = kind != "locks to make"
            yield Need(kind, rows, str(paths.LOCKS) if made else "", "" if made else "a run resolves their specs", comes=True)


def _services(groups: list[Group]) -> Iterator[Need]:
    """What tests talk to on this machine."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for rows, spec in groups:
        try:
            for name in services.named(spec):
                by_name[name] += rows
        except Fatal as error:
            yield Need(f"services of {rows[0]['repo']} {rows[0]['version']}", rows, "", str(error))
    for name, rows in sorted(by_name.items()):
        own = services.lock(name)
        at = paths.environment(own.key()) if own else paths.SERVICES / name
        there = own is None or environments.why_not(own.key()) is None
        yield Need(f"service {name}", rows, str(at) if there else "", "" if there else "a run builds it", comes=True)


def _mirrors(rows: list[Row], remote: str) -> Iterator[Need]:
    by_repo: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_repo[row["repo"]].append(row)
    there: list[Row] = []
    coming: dict[str, list[Row]] = defaultdict(list)
    for repo, found in by_repo.items():
        if paths.mirror(repo).is_dir():
            there += found
            continue
        try:
            source = mirrors.remote_of(repo, remote)
        except Fatal as error:
            yield Need(f"mirror of {repo}", found, "", str(error))
            continue
        if os.path.exists(source.removeprefix("file://")):
            coming["a run copies them from this disk"] += found
        elif re.match(r"(?!file:)[\w.+-]+://|[^/]+:", source):
            coming[f"a run fetches them from {source.replace(repo, '{repo}')}"] += found
        else:
            yield Need(f"mirror of {repo}", found, "", f"set REMOTE to where it can be had: nothing is at '{source}'")
    if there:
        yield Need("mirrors", there, str(paths.cache("mirrors")))
    for how, found in coming.items():
        yield Need("mirrors to make", found, "", how, comes=True)


def _system(groups: list[Group]) -> Iterator[Need]:
    """Headers and programs that builds and tests use, each with the tasks that it costs where it is missing."""
    found: dict[str, tuple[system.Fact, list[Row]]] = {}
    for group in groups:
        for fact in group.spec.system:
            found.setdefault(repr(sorted(fact.items())), (fact, []))[1].extend(system.concerned(fact, group.rows))
    for fact, rows in found.values():
        if rows:
            yield Need(fact["name"], rows, system.found(fact), _package(fact["packages"]), costs=True)


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


def _disk(rows: list[Row], groups: list[Group]) -> Need:
    """A rough estimate of what is not in the cache yet."""
    repos = {row["repo"] for row in rows if not paths.mirror(row["repo"]).is_dir()}
    tasks = {row["instance_id"] for row in rows if not paths.history(row["repo"], row["base_commit"]).is_dir()}
    environments = sum(any(row["instance_id"] in tasks for row in group.rows) for group in groups)
    needed = (len(repos) * MIRROR_SIZE + environments * ENVIRONMENT_SIZE + len(tasks) * TASK_SIZE) / 1024
    root = next(path for path in (paths.artifacts(), *paths.artifacts().parents) if path.is_dir())
    free = shutil.disk_usage(root).free / 2**30
    found = f"{free:.1f} GiB free at {root}" if free > needed else ""
    return Need(f"disk, about {needed:.1f} GiB more", rows, found, f"set ARTIFACTS to a folder with room: {free:.1f} GiB are free at '{root}'")
