"""As much of what is wished for as can be had together: a list read off packaging files was never tried by anybody."""

from pathlib import Path
from typing import Callable

from swerun.errors import Fatal


def most(wishes: list[str], attempt: Callable[[list[str]], str], log: Path) -> str:
    """What the attempt with the most of the wishes gave; earlier ones go first. Raises Fatal where it fails with none of them."""
    try:
        return attempt(wishes)
    except Fatal:
        if not wishes:
            raise
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
            with open(log, "a") as file:
                file.write(f"+ left out: {more[0]}: {error}\n")

    add(wishes)
    return made
