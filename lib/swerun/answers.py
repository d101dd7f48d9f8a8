"""The patch in what an agent said, where it edited nothing: a diff, marked, fenced or bare, or whole files; and what was done to it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from swerun import patches
from swerun.git import git
from swerun.patches import Trusted
from swerun.process import clean_env, run
from swerun.spec import changed_files
from swerun.workspace import Workspace

DIFF = re.compile(r"^(diff --git |--- \S.*\n\+\+\+ \S)", re.M)
MARKED = re.compile(r"<FINAL_DIFF>\s*(?:```\w*\n)?(.*?)(?:```\s*)?</FINAL_DIFF>", re.S)
FENCED = re.compile(r"^(?P<before>[^\n]*\n)?^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
PATH = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*\.\w+")
# from the strictest on; the first that takes the whole patch is what was done to it
WAYS = (("apply",), ("apply", "--recount", "--ignore-whitespace"), ("apply", "--recount", "--ignore-whitespace", "-p0"), ("apply", "--3way", "--recount"))
FUZZY = ("patch", "--batch", "--forward", "--fuzz=5", "-p1", "--no-backup-if-mismatch", "--reject-file=-")


class Taken(NamedTuple):
    patch: str
    extracted: dict[str, str | None] | None  # {source, applied}: where it was found, and the command that took it (None: none did)


def take(row: dict[str, Any], space: Workspace, left: str, said: str) -> Taken:
    """What the agent changed, else the diff that it left in a file, else what is in its words."""
    patch = patches.take(row, space)
    if patch.strip():
        return Taken(patch, None)
    said = said.replace("\r\n", "\n")
    for source, found in (("patch.diff", left), ("final diff", _marked(said)), ("printed diff", find(said))):
        if not found.strip():
            continue
        applied = apply(row, space, found)
        # one that does not apply is handed on as it is: grading has more ways to apply it, and then says so
        return Taken(patches.take(row, space) if applied else found, {"source": source, "applied": applied})
    files = whole_files(said, space.checkout)
    for name, text in files.items():
        (space.checkout / name).write_text(text, "utf-8", newline="")
    return Taken(patches.take(row, space), {"source": "whole files", "applied": None} if files else None)


def _marked(text: str) -> str:
    found = MARKED.findall(text)
    return found[-1].rstrip() + "\n" if found and found[-1].strip() else ""  # the last one is the better thought


def find(text: str) -> str:
    """The diff in what an agent printed: its fenced blocks of one, or all from the first `diff --git` line; else ""."""
    blocks: dict[tuple[str, ...], str] = {}
    for found in FENCED.finditer(text):
        if DIFF.search(found["body"]):
            blocks[tuple(changed_files(found["body"]))] = found["body"]  # a second one for the same files is the better thought
    if blocks:
        return "".join(blocks.values())
    bare = DIFF.search(text)
    return text[bare.start():].rstrip() + "\n" if bare else ""


def whole_files(text: str, checkout: Path) -> dict[str, str]:
    """{path: content} of the fenced blocks that name a file of the checkout, in the fence's own line or in the line before it.

    One of less than half the file's lines is no whole file, but a piece that is talked about.
    """
    found = {}
    for block in FENCED.finditer(text):
        for line in (block["info"], block["before"] or ""):
            names = [name for name in PATH.findall(line) if _is_file_of(checkout, name)]
            if len(names) == 1 and 2 * block["body"].count("\n") >= (checkout / names[0]).read_bytes().count(b"\n"):
                found[names[0]] = block["body"]
                break
    return found


def _is_file_of(checkout: Path, name: str) -> bool:
    path = checkout / name
    inside = ".." not in Path(name).parts and ".git" not in Path(name).parts
    return inside and path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(checkout.resolve())


def apply(row: dict[str, Any], space: Workspace, patch: str) -> str | None:
    """Apply a diff that an agent said to its own worktree; the command that took it, None where none does."""
    data = patch.encode("utf-8", "surrogateescape")
    with Trusted(row, space) as trusted:
        trusted.start_tree()
        for words in WAYS:
            if "--3way" in words:
                trusted.git("add", "--all", check=False)
            done = git(space.checkout, *words, "--whitespace=nowarn", "-", input=data, check=False, env=trusted.env, trusted=(trusted.folder,))
            if done.returncode == 0:
                return " ".join(("git", *words))
        trusted.git("checkout", "--quiet", "--force", trusted.start_tree(), "--", ".", check=False)  # a merge with conflicts leaves both sides
        for words in ((*FUZZY, "--dry-run"), FUZZY):
            if run(*words, cwd=space.checkout, input=data, check=False, env=clean_env()).returncode:
                return None
    return " ".join(FUZZY)
