"""One bare mirror a repository, without pull requests: on GitHub refs/pull/N/head is the fix of task N."""

import os
from pathlib import Path
from typing import Callable

import orjson

from swerun import paths, uses
from swerun.errors import CommandFailed, Fatal, Usage
from swerun.git import git
from swerun.process import telling
from swerun.state import locked, remove_tree

REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
QUIET = ("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "protocol.file.allow=always")
BUNDLE = b"# v"


def remote_of(repo: str, remote: str) -> str:
    """Where a repository comes from: REMOTE filled in, or looked up where REMOTE is a mapping file."""
    bundled = paths.SAMPLE / f"{paths.slug(repo)}.bundle"
    if bundled.is_file():
        return str(bundled)
    if "{" not in remote and Path(remote).is_file() and not _is_bundle(Path(remote)):
        mapping = read_mapping(Path(remote))
        found = mapping.get(repo) or mapping.get("*")
        if not found:
            raise Fatal(f"'{remote}' names no remote for '{repo}' (add a line '{repo} URL', or '* URL' for all others)")
        remote = found
    owner, _, name = repo.partition("/")
    filled = remote.replace("{repo}", repo).replace("{owner}", owner).replace("{name}", name)
    return os.path.abspath(filled) if os.path.exists(filled) else filled


def _is_bundle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == BUNDLE


def read_mapping(path: Path) -> dict[str, str]:
    """`owner/name URL` a line (`*` for all others, `#` starts a comment), or one JSON object."""
    text = path.read_text()
    if text.lstrip().startswith("{"):
        return orjson.loads(text)
    mapping = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].replace("=", " ", 1).split()
        if len(words) not in (0, 2):
            raise Usage(f"'{path}' line {number} is not 'owner/name URL'")
        mapping.update([words] if words else [])
    return mapping


def ensure(repo: str, commits: list[str], remote: str, say: Callable[[str], None] = lambda text: None) -> tuple[Path, dict[str, str]]:
    """The mirror, made if it is not there, with these commits in it (fetched by id where no branch holds them).

    Also {commit: why not} for those that cannot be had.
    """
    mirror = paths.mirror(repo)
    uses.hold(mirror)
    if mirror.is_dir() and not missing(mirror, commits):
        return mirror, {}
    with locked(mirror.with_suffix(".lock"), lambda: say("waiting for another process that fetches it")):
        if not mirror.is_dir():
            _make(mirror, remote_of(repo, remote), say)
        absent = missing(mirror, commits)
        if absent:
            source = remote_of(repo, remote)
            say(f"fetching what is newer than the mirror from {source}")
            _fetch(mirror, source, say, *REFS)
            for commit in missing(mirror, commits):
                _fetch(mirror, source, say, commit, check=False)
            absent = missing(mirror, commits)
    return mirror, {commit: f"base commit {commit} of '{repo}' is not at '{source}' (name another REMOTE that has it)" for commit in absent}


def missing(mirror: Path, commits: list[str]) -> list[str]:
    """Those of the commits that the mirror has not got."""
    import pygit2

    pygit2.option(pygit2.enums.Option.SET_OWNER_VALIDATION, 0)
    repository = pygit2.Repository(str(mirror))
    return [commit for commit in dict.fromkeys(commits) if commit not in repository]


def _make(mirror: Path, source: str, say: Callable[[str], None]) -> None:
    paths.make_dir(mirror.parent)
    making = mirror.with_suffix(".making")
    local = os.path.isdir(source)
    say(f"{'copying' if local else 'fetching'} the mirror from {source}")
    if local:
        remove_tree(making)
        # --local takes the objects by hardlinks, and does not mind a few that are not there
        git(mirror.parent, *QUIET, "clone", "--quiet", "--bare", "--local", "--template=", source, making, trusted=(source,))
    else:
        # init again mends what a killed init left; the fetch goes on with what an interrupted one stored
        git(mirror.parent, "init", "--quiet", "--bare", "--template=", making)
        _fetch(making, source, say, *REFS)
    git(making, "config", "gc.auto", "0")
    making.rename(mirror)


def _fetch(mirror: Path, source: str, say: Callable[[str], None], *refs: str, check: bool = True) -> None:
    try:
        words = ("fetch", "--no-tags", "--no-write-fetch-head", "--force", source, *refs)
        git(mirror, *QUIET, *words, remote=True, check=check, tick=telling(say, f"fetching {source}"))
    except CommandFailed as error:
        why = str(error).rsplit(": ", 1)[-1]
        raise Fatal(f"cannot fetch '{source}': {why} (set REMOTE to where the repository can be had)") from None
