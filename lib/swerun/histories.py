"""Sealed histories: for each base commit an object store that holds its past, its merged tags, and nothing newer.

They stand on each other like the rungs of a ladder: a base commit's own pack holds what no earlier rung has, and its
store links the packs of the rungs that are its ancestors. The last commit of each year is a rung, too: tasks that come
one by one, in any order, then share all but the last months of their past (without them each would hold it whole).
"""

import os
from pathlib import Path
from typing import Callable, NamedTuple

from swerun import mirrors, paths, uses
from swerun.errors import Fatal
from swerun.git import git
from swerun.state import locked, remove_tree, write_file

TAG_FORMAT = "%(refname)%00%(objectname)%00%(objecttype)%00%(*objectname)%00%(*objecttype)%00%(creatordate:unix)"


class Tag(NamedTuple):
    ref: str
    target: str         # what the ref points at
    peeled: str | None  # the commit below an annotated tag


def is_complete(repo: str, base_commit: str) -> bool:
    return (paths.history(repo, base_commit) / "complete").is_file()


def ensure(repo: str, base_commits: list[str], remote: str, say: Callable[[str], None] = lambda text: None) -> dict[str, str]:
    """Build the stores that are not there. Returns {base_commit: why it cannot be used} for those whose files the mirror lacks."""
    wanted = [commit for commit in dict.fromkeys(base_commits) if not is_complete(repo, commit)]
    if not wanted:
        return {}
    mirror, problems = mirrors.ensure(repo, wanted, remote, say)
    with locked(paths.cache("histories", f"{paths.slug(repo)}.lock"), lambda: say("waiting for another process that seals its history")):
        done = [path.parent.name for path in paths.cache("histories", paths.slug(repo)).glob("*/complete")]
        wanted = [commit for commit in wanted if commit not in done and commit not in problems]
        if not wanted:
            return problems
        rungs = [*wanted, *(commit for commit in _milestones(mirror, wanted) if commit not in (*done, *wanted))]
        order, ancestors = _ancestry(mirror, [*done, *rungs])
        for number, commit in enumerate([commit for commit in order if commit in rungs], 1):
            absent = missing_files(mirror, commit) if commit in wanted else ()
            if absent:
                lacks = f"lacks {len(absent)} files of {commit[:12]}, '{absent[0]}' for one"
                problems[commit] = f"the mirror of '{repo}' {lacks} (name another REMOTE that has them)"
                continue
            if number % 10 == 1:
                say(f"sealing its history, step {number} of {len(rungs)}")
            _build(repo, mirror, commit, [other for other in ancestors[commit] if other in done])
            done.append(commit)
    return problems


def require(repo: str, base_commit: str, remote: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """One store, built on demand. Raises Fatal where the mirror lacks its files."""
    uses.hold(paths.history(repo, base_commit))
    problems = ensure(repo, [base_commit], remote, say)
    if problems:
        raise Fatal(problems[base_commit])
    return paths.history(repo, base_commit)


def missing_files(mirror: Path, commit: str) -> list[str]:
    """Paths in a commit's tree whose content is not in the repository (submodules aside)."""
    import pygit2

    repository = pygit2.Repository(str(mirror))
    absent: list[str] = []

    def walk(tree_id: "pygit2.Oid", prefix: str) -> None:
        if tree_id not in repository:
            absent.append(prefix)
            return
        for entry in repository[tree_id]:
            if entry.filemode == pygit2.enums.FileMode.TREE:
                walk(entry.id, f"{prefix}{entry.name}/")
            elif entry.filemode != pygit2.enums.FileMode.COMMIT and entry.id not in repository:
                absent.append(prefix + entry.name)

    walk(repository[commit].tree_id, "")
    return absent


def _milestones(mirror: Path, commits: list[str]) -> list[str]:
    """The last commit of each year on the first-parent lines that lead to these commits."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    newest_first = git(mirror, "rev-list", "--no-walk=sorted", "--stdin", input="\n".join(commits).encode()).stdout.split()
    for commit in newest_first:
        if commit in seen:
            continue
        year = ""
        for line in git(mirror, "log", "--first-parent", "--format=%H %cd", "--date=format:%Y", commit).stdout.splitlines():
            parent, in_year = line.split()
            if parent in seen:
                break
            seen.add(parent)
            if year and in_year != year:
                found[parent] = None
            year = in_year
    return list(found)


def _ancestry(mirror: Path, commits: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The commits with ancestors first, and for each those of the others that are its ancestors; one walk for all."""
    bit = {commit: 1 << number for number, commit in enumerate(commits)}
    walk = git(mirror, "rev-list", "--topo-order", "--reverse", "--parents", "--stdin", input="\n".join(commits).encode()).stdout
    masks: dict[str, int] = {}
    order = []
    for line in walk.splitlines():
        commit, *parents = line.split()
        mask = 0
        for parent in parents:
            mask |= masks.get(parent, 0) | bit.get(parent, 0)
        masks[commit] = mask
        if commit in bit:
            order.append(commit)
    return order, {commit: [other for other in commits if masks[commit] & bit[other]] for commit in commits}


def merged_tags(mirror: Path, commit: str) -> list[Tag]:
    """The tags on a commit's past. One that was written later than the commit keeps its name, and loses its message."""
    now = int(git(mirror, "show", "--no-patch", "--format=%ct", commit).stdout)
    tags = []
    for line in git(mirror, "for-each-ref", f"--merged={commit}", f"--format={TAG_FORMAT}", "refs/tags").stdout.splitlines():
        ref, target, kind, below, below_kind, date = line.split("\0")
        if kind == "commit":
            tags.append(Tag(ref, target, None))
        elif kind == "tag" and below_kind == "commit":
            newer = not date or int(date) > now
            tags.append(Tag(ref, below, None) if newer else Tag(ref, target, below))
    return tags


def _build(repo: str, mirror: Path, commit: str, ancestors: list[str]) -> None:
    final = paths.history(repo, commit)
    making = final.with_name(f"{commit}.making")
    remove_tree(making)
    pack = paths.make_dir(making / "objects" / "pack")
    paths.make_dir(making / "objects" / "info")
    tags = merged_tags(mirror, commit)
    for other in ancestors:
        store = paths.history(repo, other)
        for file in (store / "objects" / "pack").glob("pack-*"):
            if not (pack / file.name).exists():
                os.link(file, pack / file.name)
    rules = [commit, *(f"^{other}" for other in ancestors)]
    flags = ("--quiet", "--revs", "--missing=allow-any", "--delta-base-offset")
    git(mirror, "pack-objects", *flags, pack / "pack", input="\n".join([*rules, ""]).encode())
    annotated = sorted({tag.target for tag in tags if tag.peeled})
    if annotated:
        # not in the rung: where dates run backwards, a tag old enough for an ancestor is newer than the commit that stands on it
        git(mirror, "pack-objects", "--quiet", pack / "tags", input="\n".join([*annotated, ""]).encode())
    lines = ["# pack-refs with: peeled fully-peeled sorted "]
    for tag in sorted(tags):
        lines += [f"{tag.target} {tag.ref}"] + ([f"^{tag.peeled}"] if tag.peeled else [])
    (making / "packed-refs").write_text("\n".join([*lines, ""]))
    remove_tree(final)
    making.rename(final)
    write_file(final / "complete", b"")
