"""The files of a base commit, read from the mirror or from its sealed history: what a repository says of itself."""

import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple

from swerun import histories, mirrors, paths
from swerun.errors import NotYet
from swerun.git import git

SIZE = 2**20  # bytes: no packaging file is longer


class Tree(NamedTuple):
    folder: Path        # a repository that has the commit
    commit: str
    names: frozenset[str]

    def read(self, name: str) -> str:
        """The text of a file, "" where there is none."""
        if name not in self.names:
            return ""
        shown = git(self.folder, "show", f"{self.commit}:{name}", check=False)
        return shown.stdout[:SIZE] if shown.returncode == 0 else ""

    def grep(self, pattern: str, *pathspecs: str) -> list[str]:
        """What matches an extended regular expression, each text once."""
        found = git(self.folder, "grep", "-I", "-h", "-o", "-E", pattern, self.commit, "--", *pathspecs, check=False)
        return list(dict.fromkeys(found.stdout.splitlines()))

    def date(self) -> str:
        """When it was committed: 2020-01-31T12:00:00+00:00."""
        return git(self.folder, "show", "--no-patch", "--format=%cI", self.commit).stdout.strip()


@contextmanager
def opened(repo: str, commit: str) -> Iterator[Tree]:
    """The files of a commit. Raises NotYet where neither the mirror nor the sealed history is there."""
    mirror = paths.mirror(repo)
    if mirror.is_dir() and not mirrors.missing(mirror, [commit]):
        yield _tree(mirror, commit)
        return
    if not histories.is_complete(repo, commit):
        raise NotYet(f"the packaging files of '{repo}' at {commit[:12]} come with its mirror (run 'make precache' first)")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "repository"
        git(Path(folder), "init", "--quiet", "--bare", "--template=", made)
        (made / "objects" / "info").mkdir(exist_ok=True)
        (made / "objects" / "info" / "alternates").write_text(f"{paths.history(repo, commit)}/objects\n")
        yield _tree(made, commit)


def _tree(folder: Path, commit: str) -> Tree:
    listed = git(folder, "ls-tree", "-r", "-z", "--name-only", commit).stdout
    return Tree(folder, commit, frozenset(name for name in listed.split("\0") if re.search(r"\S", name)))
