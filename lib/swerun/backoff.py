"""One back-off for all who talk to a model API: when it limits one of them, all wait, and none burns what is left.

A file an agent under `cache/backoff`, whatever the run. It says since when the API has not worked, until when to wait, and why.
"""

import random
import time
from pathlib import Path
from typing import Any, Callable

from swerun import paths
from swerun.errors import TryLater
from swerun.state import locked, read_json, write_json

FIRST, MOST = 4.0, 300.0  # seconds: each failure after a wait doubles the next one
WEEK = 7 * 86400.0
POLL = 0.2
Say = Callable[[str], None]


def _file(agent: str) -> Path:
    return paths.cache("backoff", f"{agent}.json")


def failed(agent: str, why: str, retry_at: float | None, patience: float) -> bool:
    """Note that the API did not work; whether it is worth waiting for. `retry_at` (a Unix time) where it said one."""
    file = _file(agent)
    with locked(file.with_suffix(".lock")):
        now = time.time()
        known: dict[str, Any] = read_json(file) or {}
        if not known or known["until"] < now - MOST or known["since"] > now:  # of another day, or of a clock that went back
            known = {"since": now, "until": 0.0, "count": 0}
        if known["until"] <= now:  # else another one has just found out the same
            known["count"] += 1
            known["until"] = now + min(MOST, FIRST * 2 ** (known["count"] - 1))
        said = retry_at if retry_at and retry_at < now + WEEK else 0.0  # else it is no Unix time in seconds
        known |= {"until": max(known["until"], said), "at": now, "why": why}
        write_json(file, known)
    return known["until"] - known["since"] <= patience


def worked(agent: str, begun: float) -> None:
    """Note that the API works again; what was begun (a Unix time) before the last failure says nothing of that."""
    file = _file(agent)
    if file.exists():
        with locked(file.with_suffix(".lock")):
            if ((read_json(file) or {}).get("at") or 0.0) < begun:
                file.unlink(missing_ok=True)


def wait(agent: str, patience: float, say: Say, stopped: Callable[[], str | None] = lambda: None) -> float:
    """Wait until the API may be asked again, or the run is stopped; returns the seconds waited. Raises TryLater where that is too long."""
    start, told = time.time(), 0.0
    while True:
        known, now = read_json(_file(agent)), time.time()
        if known is None or known["until"] <= now or known["until"] - now > WEEK + 60 or stopped():  # a clock that went back
            break
        if known["until"] - now > patience:
            raise TryLater(f"the model API is to be asked again in {known['until'] - now:.0f} s, and PATIENCE is {patience:g}: {known['why']} (run again later)")
        if now - told > 60:
            told = now
            say(f"waiting {known['until'] - now:.0f} s for the model API: {known['why']}")
        time.sleep(POLL)
    if told:
        time.sleep(random.uniform(0, 1))  # not all in the same moment
    return time.time() - start
