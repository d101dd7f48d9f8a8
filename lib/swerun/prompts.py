"""What an agent is asked: plain templates in lib/prompts, with {{variables}} filled in."""

import re
from pathlib import Path
from typing import Any, Mapping

from swerun import paths
from swerun.errors import Usage

SOLVE, RETRY, GO_ON, NUDGE = "solve.md", "retry.md", "go-on.md", "nudge.md"
VARIABLES = {
    "problem_statement": "the issue", "instance_id": "the task", "repo": "owner/name", "version": "the project's version", "base_commit": "what is checked out",
    "worktree": "where it is checked out", "attempt": "1 for the first", "feedback": "what came of the last attempt: its tests and their output",
    "previous_patch": "what the last attempt changed",
}
SECTION = re.compile(r"^## When you solve a task\n(.*?)(?=^## |\Z)", re.M | re.S)


def help_text() -> str:
    return "variables of a prompt template (--prompt): " + "; ".join(f"{{{{{name}}}}} {what}" for name, what in VARIABLES.items())


def read(file: str | Path) -> str:
    """A template's text. Raises Usage."""
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read the prompt template '{file}': {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


def template(chosen: str) -> str:
    """The text of PROMPT, or of the default one. Raises Usage."""
    return read(chosen or paths.PROMPTS / SOLVE)


def fill(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: known.get(found[1], found[0]), text)


def render(row: dict[str, Any], chosen: str, checkout: Path, attempt: int = 1, told: Mapping[str, str] | None = None, goes_on: bool = False) -> bytes:
    """The prompt of an attempt. `told` is what came of the last one: {feedback, previous_patch}.

    A later attempt is asked the same again, and then told; a session that goes on is only told. A template that names
    {{feedback}} itself says all.
    """
    text = template(chosen)
    known = {key: str(row.get(key, "")) for key in ("problem_statement", "instance_id", "repo", "version", "base_commit")}
    known |= {"worktree": str(checkout), "attempt": str(attempt), "feedback": "", "previous_patch": "", **(told or {})}
    if told and "{{feedback}}" not in text:
        more = read(paths.PROMPTS / (GO_ON if goes_on else RETRY if told.get("previous_patch") else NUDGE))
        text = more if goes_on else f"{text.rstrip()}\n\n{more}"
    return fill(text, known).encode("utf-8", "surrogatepass")


def instructions() -> str:
    """The part of CLAUDE.md that is for whoever solves a task, and never the other, which is for whoever works on this toolkit."""
    file = paths.TOOLKIT / "CLAUDE.md"
    found = SECTION.search(file.read_text("utf-8")) if file.is_file() else None
    return found[1].strip() + "\n" if found else ""
