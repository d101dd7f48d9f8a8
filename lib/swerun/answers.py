"""The patch in what an agent said, where it edited nothing: a diff, marked, fenced or bare, or whole files; and what was done to it."""

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

from swerun import patches
from swerun.git import git
from swerun.patches import Trusted
from swerun.process import clean_env, run
from swerun.workspace import Workspace

DIFF = re.compile(r"^(diff --git |--- \S.*\n\+\+\+ \S)", re.M)
MARKED = re.compile(r"<FINAL_DIFF>\s*(?:```\w*\n)?(.*?)(?:```\s*)?</FINAL_DIFF>", re.S)
PATH = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*\.\w+")
# from the strictest on; the first that takes the whole patch is what was done to it
NAMED = re.compile(r"\W*(?:the )?(?:new )?(?:file|path|in)?\W*([\w.+-]+(?:/[\w.+-]+)*\.\w+)\W*(?:becomes|is now|now|is)?\W*", re.I)
FENCE = re.compile(r"`{3,}")
HEADER = re.compile(r"^(?:---|\+\+\+) \S+", re.M)
PREFIXED = re.compile(r"^(?:--- a/|\+\+\+ b/)", re.M)
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


class Block(NamedTuple):
    before: str  # the line before the fence
    info: str    # the rest of the fence's own line
    body: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text."""
    found: list[Block] = []
    fence, begun = "", 0
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        ticks = FENCE.match(line)
        if not fence and ticks:
            fence, begun = ticks[0], number
        elif fence and line.rstrip() == fence:
            found.append(Block(lines[begun - 1].strip() if begun else "", lines[begun].strip().lstrip("`"), "".join(lines[begun + 1:number])))
            fence = ""
    return found


def find(text: str) -> str:
    """The diff in what an agent printed: its fenced blocks of one, or all from the first `diff --git` line; else ""."""
    diffs: dict[tuple[str, ...], str] = {}
    for block in blocks(text):
        if DIFF.search(block.body):
            diffs[tuple(HEADER.findall(block.body))] = block.body  # a second one for the same files is the better thought
    if diffs:
        return "".join(diffs.values())
    bare = DIFF.search(text)
    return text[bare.start():].rstrip() + "\n" if bare else ""


def whole_files(text: str, checkout: Path) -> dict[str, str]:
    """{path: content} of the fenced blocks that are a file of the checkout: named in the fence's own line, or alone in the line before it.

    One of less than half the file's lines is no whole file, but a piece that is talked about; what is to be Python must be Python.
    """
    found = {}
    for block in blocks(text):
        alone = NAMED.fullmatch(block.before)
        for name in [*PATH.findall(block.info), *([alone[1]] if alone else [])]:
            if _is_file_of(checkout, name) and 2 * block.body.count("\n") >= (checkout / name).read_bytes().count(b"\n") and _plausible(name, block.body):
                found[name] = block.body
                break
    return found


def _plausible(name: str, text: str) -> bool:
    if not name.endswith(".py"):
        return True
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _is_file_of(checkout: Path, name: str) -> bool:
    path = checkout / name
    inside = ".." not in Path(name).parts and ".git" not in Path(name).parts
    return inside and path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(checkout.resolve())


def apply(row: dict[str, Any], space: Workspace, patch: str) -> str | None:
    """Apply a diff that an agent said to its own worktree; the command that took it, None where none does."""
    data = patch.encode("utf-8", "surrogateescape")
    with Trusted(row, space) as trusted:
        trusted.start_tree()
        for words in (words for words in WAYS if "-p0" not in words or not PREFIXED.search(patch)):
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
