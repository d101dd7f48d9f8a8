"""What a run gets and makes by itself for its tasks: locks, services, downloads, mirrors, the disk for it all. For doctor."""

import os
import re
import shutil
from collections import defaultdict
from typing import Iterator

from swerun import downloads, environments, locks, mirrors, paths, services
from swerun.errors import Fatal
from swerun.needs import Group, Need, Row

# MiB, rounded up from what fourteen tasks of eight repositories of SWE-bench Lite took
MIRROR_SIZE, ENVIRONMENT_SIZE, TASK_SIZE = 150, 180, 20


def locks_of(groups: list[Group]) -> Iterator[Need]:
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


def services_of(groups: list[Group]) -> Iterator[Need]:
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


def downloads_of(groups: list[Group]) -> Iterator[Need]:
    """What builds would download."""
    found: dict[str, tuple[dict, list[Row]]] = {}
    for rows, spec in groups:
        for table in spec.downloads:
            found.setdefault(table["sha256"], (table, []))[1].extend(rows)
    for table, rows in found.values():
        file = downloads.cached(table)
        instead = f", or else stands in: {' '.join(table['otherwise']['reason'].split())}" if "otherwise" in table else ""
        yield Need(f"download {table['name']}", rows, str(file) if file.is_file() else "", f"a run fetches it from {table['urls'][0]}{instead}", comes=True)


def mirrors_of(rows: list[Row], remote: str) -> Iterator[Need]:
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


def disk_of(rows: list[Row], groups: list[Group]) -> Need:
    """A rough estimate of what is not in the cache yet."""
    repos = {row["repo"] for row in rows if not paths.mirror(row["repo"]).is_dir()}
    tasks = {row["instance_id"] for row in rows if not paths.history(row["repo"], row["base_commit"]).is_dir()}
    environments = sum(any(row["instance_id"] in tasks for row in group.rows) for group in groups)
    needed = (len(repos) * MIRROR_SIZE + environments * ENVIRONMENT_SIZE + len(tasks) * TASK_SIZE) / 1024
    root = next(path for path in (paths.artifacts(), *paths.artifacts().parents) if path.is_dir())
    free = shutil.disk_usage(root).free / 2**30
    found = f"{free:.1f} GiB free at {root}" if free > needed else ""
    return Need(f"disk, about {needed:.1f} GiB more", rows, found, f"set ARTIFACTS to a folder with room: {free:.1f} GiB are free at '{root}'")
