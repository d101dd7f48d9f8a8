"""Patches: taken from a worktree without running anything that an agent left in it, found in text, applied."""

import os
import re
from pathlib import Path
from typing import Any

from swerun import paths
from swerun.checkouts import LINKED
from swerun.git import git
from swerun.process import clean_env, run
from swerun.state import remove_tree
from swerun.workspace import Workspace

# what running Python, tests and builds leaves in a tree; none of it is ever part of a fix
LEFTOVERS = ("__pycache__/", "*.py[co]", "*.egg-info/", ".eggs/", ".pytest_cache/", ".tox/", ".nox/", ".hypothesis/", ".mypy_cache/",
             ".ruff_cache/", ".coverage", ".coverage.*", "*.so", "*.o", "*.orig", "*.rej", ".venv/", "/build/")


class Trusted:
    """A repository of our own beside the agent's: its objects are the sealed history, its configuration and attributes ours."""

    def __init__(self, row: dict[str, Any], space: Workspace):
        self.row, self.space = row, space
        self.folder = space.checkout.with_name(f".trusted-{os.getpid()}")
        self.env = {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": str(space.checkout), "GIT_ATTR_NOSYSTEM": "1"}

    def __enter__(self) -> "Trusted":
        if self.space.checkout.is_symlink() or not self.space.checkout.is_dir():
            # the agent removed it all; a link that it put there leads to what is not its work
            remove_tree(self.space.checkout)
            paths.make_dir(self.space.checkout)
        remove_tree(self.folder)
        for name in ("objects/info", "objects/pack", "refs", "info"):
            paths.make_dir(self.folder / name)
        (self.folder / "objects/info/alternates").write_text(f"{paths.history(self.row['repo'], self.row['base_commit'])}/objects\n")
        (self.folder / "HEAD").write_text("ref: refs/heads/none\n")
        (self.folder / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tattributesFile = /dev/null\n\thooksPath = /dev/null\n")
        ignored = [*LEFTOVERS, *(f"/{_escape(name)}" for name in self.space.manifest["outputs"])]
        (self.folder / "info/exclude").write_text("\n".join([*ignored, ""]))
        return self

    def __exit__(self, *_: Any) -> None:
        remove_tree(self.folder)

    def git(self, *words: str, input: bytes | None = None, check: bool = True) -> str:
        return git(self.space.checkout, *words, input=input, check=check, env=self.env, trusted=(self.folder,)).stdout

    def start_tree(self) -> str:
        """The tree that the agent was given: the base commit and the spec's own edits."""
        self.git("read-tree", self.row["base_commit"])
        manifest, lines = self.space.manifest, []
        if not manifest["edits"] and not manifest["deleted"]:
            return self.row["base_commit"]
        for name in manifest["edits"]:
            kept = self.space.layer / "kept" / "testbed" / name
            blob = self.git("hash-object", "-w", "--no-filters", str(kept)).strip()
            lines.append(f"{'100755' if os.access(kept, os.X_OK) else '100644'} {blob}\t{name}")
        lines += [f"0 {'0' * 40}\t{name}" for name in manifest["deleted"]]
        self.git("update-index", "-z", "--index-info", input="\0".join([*lines, ""]).encode())
        return self.git("write-tree").strip()

    def restore_edits(self, start: str) -> None:
        """An agent that undid the spec's own edits (git checkout, git stash) has not made a change; what else it did to those files is kept."""
        names = [*self.space.manifest["edits"], *self.space.manifest["deleted"]]
        reverted = self.git("diff", "--cached", "--name-only", "-z", start, "--", *names).split("\0")
        still = set(self.git("diff", "--cached", "--name-only", "-z", self.row["base_commit"], "--", *names).split("\0"))
        for name in filter(None, reverted):
            if name not in still:
                self.git("reset", "--quiet", start, "--", name)
            elif name in self.space.manifest["edits"]:
                self._merge_edit(name, start)

    def _merge_edit(self, name: str, start: str) -> None:
        entry = self.git("ls-files", "--stage", "-z", "--", f":(literal){name}").rstrip("\0")
        if not entry.startswith("100"):
            return
        mode, mine = entry.split()[:2]
        for part, source in (("mine", mine), ("base", f"{self.row['base_commit']}:{name}"), ("edited", f"{start}:{name}")):
            (self.folder / part).write_bytes(self.git("cat-file", "blob", source).encode("utf-8", "surrogateescape"))
        merged = git(self.folder, "merge-file", "-p", "--quiet", "mine", "base", "edited", check=False, env=self.env, trusted=(self.folder,))
        if merged.returncode == 0:  # else the agent edited the very lines that the spec edits
            blob = self.git("hash-object", "-w", "--no-filters", "--stdin", input=merged.stdout.encode("utf-8", "surrogateescape")).strip()
            self.git("update-index", "--cacheinfo", f"{mode},{blob},{name}")


def _escape(name: str) -> str:
    return re.sub(r"([\\*?\[!# ])", r"\\\1", name)


def take(row: dict[str, Any], space: Workspace) -> str:
    """The worktree against what the agent was given, as `git diff --binary`: commits, branches and a lost .git change nothing."""
    with Trusted(row, space) as trusted:
        start = trusted.start_tree()
        # git looks into submodules with their own configuration, which is the agent's
        tracked = [line.split("\t", 1) for line in trusted.git("ls-files", "--stage", "-z").split("\0") if line]
        links = [name for entry, name in tracked if entry.startswith("160000")]
        own = {name.split("/")[0] for _, name in tracked}  # a repository that has a .claude of its own may get new files in it
        left_out = [*links, *(name for name in LINKED if name not in own)]
        trusted.git("add", "--all", "--ignore-errors", "--", ".", *(f":(exclude,literal){name}" for name in left_out), check=False)
        if start != row["base_commit"]:
            trusted.restore_edits(start)
        diff = ("diff", "--cached", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", start)
        patch = trusted.git(*diff)
        if not _is_text(patch):
            # a patch travels as JSON: a file that is not UTF-8 goes as a binary one
            names = trusted.git("diff", "--cached", "--name-only", "--no-renames", "-z", start).split("\0")
            odd = [name for name in filter(None, names) if not _is_text(trusted.git(*diff, "--", f":(literal){name}"))]
            patch = trusted.git(*diff, "--", ".", *(f":(exclude,literal){name}" for name in odd))
            (trusted.folder / "info/attributes").write_text("* -diff\n")
            patch += trusted.git(*diff, "--", *(f":(literal){name}" for name in odd))
    return patch


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# swebench 5.0.2, run_evaluation.GIT_APPLY_CMDS
APPLY = (
    ("git", "apply", "--verbose"),
    ("git", "apply", "--verbose", "--3way"),
    ("git", "apply", "--verbose", "--reject"),
    ("patch", "--batch", "--forward", "--fuzz=5", "-p1", "-i"),
)


def apply_as_official(checkout: Path, patch: Path, afresh: Any) -> tuple[bool, str]:
    """(applied, log) of the official harness's chain of commands; `afresh` makes the checkout anew after one that failed half-way."""
    log = []
    for number, words in enumerate(APPLY):
        if number > 1:
            afresh()
        if words[0] == "git":
            done = git(checkout, *words[1:], patch, check=False)
        else:
            done = run(*words, patch, cwd=checkout, check=False, env=clean_env())
        log.append(f"+ {' '.join(words)}\n{done.stdout}{done.stderr}")
        if done.returncode == 0:
            return True, "".join(log)
    undone = git(checkout, "apply", "--check", "--reverse", patch, check=False)
    return undone.returncode == 0, "".join(log)
