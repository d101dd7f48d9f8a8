"""As much of what is wished for as can be had together: a list read off packaging files was never tried by anybody."""

import re
from pathlib import Path
from typing import Callable

from packaging.utils import canonicalize_name

from swerun.declared import name_of
from swerun.errors import Fatal

ABSENT = re.compile(r"Failed to (?:build|download and build|download) [`']?([\w.-]+?)(?:==|[`' ])|([\w.-]+) was not found in the"
                    r"|there (?:are|is) no versions? of ([\w.-]+?)(?:==|[ ,<>=!])")


def most(wishes: list[str], attempt: Callable[[list[str]], str], log: Path) -> str:
    """What the attempt with the most of the wishes gave; earlier ones go first. Raises Fatal where it fails with none of them."""
    try:
        return attempt(wishes)
    except Fatal as error:
        if not wishes:
            raise
        # what uv says cannot be had at all goes at once; a conflict is found by halves
        absent = {canonicalize_name(name) for found in ABSENT.findall(str(error)) for name in found if name}
        left = [one for one in wishes if name_of(one) not in absent]
        if len(left) < len(wishes):
            _tell(log, f"{', '.join(sorted(absent))}: {error}")
            return most(left, attempt, log)
    made, kept = attempt([]), []

    def add(more: list[str]) -> None:
        nonlocal made, kept
        try:
            made, kept = attempt([*kept, *more]), [*kept, *more]
        except Fatal as error:
            if len(more) > 1:
                add(more[:len(more) // 2])
                add(more[len(more) // 2:])
                return
            _tell(log, f"{more[0]}: {error}")

    add(wishes)
    return made


def _tell(log: Path, what: str) -> None:
    with open(log, "a") as file:
        file.write(f"+ left out: {what}\n")
