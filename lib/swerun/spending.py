"""What a run costs: a ledger that every process of the run reads before it starts something, and that survives its writers.

`costs.jsonl` in the run's folder, one line a `start` (with what it is expected to cost) and one an `end` (with what it did).
An attempt that has begun and not ended counts with its expected cost, whether it runs or its process was killed.
"""

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import orjson

from swerun import paths, runs
from swerun.errors import Fatal
from swerun.state import locked

POLL = 0.5
Say = Callable[[str], None]


class Account(NamedTuple):
    spent: float            # dollars of attempts that have ended
    running: dict[str, float | None]  # {attempt: expected dollars; None where nothing is known}
    costs: list[float]      # of each attempt that has ended and said it
    by_task: dict[str, float]

    def expected(self) -> float | None:
        """What an attempt costs, by those that have ended."""
        return sum(self.costs) / len(self.costs) if self.costs else None


class Leave(NamedTuple):
    """That an attempt may start: the number of its entry, and the dollars it may cost at most (None: no limit)."""

    key: str
    cap: float | None


def _file(run: str) -> Path:
    return paths.run_dir(run) / "costs.jsonl"


def read(run: str) -> Account:
    starts: dict[str, dict[str, Any]] = {}
    spent, costs, by_task = 0.0, [], {}
    for entry in _entries(run):
        if entry["event"] == "start":
            starts[entry["key"]] = entry
            continue
        started = starts.pop(entry["key"], entry)
        usd = entry["usd"] or 0.0
        spent += usd
        by_task[started["instance_id"]] = by_task.get(started["instance_id"], 0.0) + usd
        if entry["usd"] is not None and not entry.get("assumed"):
            costs.append(usd)
    return Account(spent, {key: entry["usd"] for key, entry in starts.items()}, costs, by_task)


def _entries(run: str) -> Iterator[dict[str, Any]]:
    for line in _file(run).read_bytes().splitlines() if _file(run).is_file() else ():
        with contextlib.suppress(orjson.JSONDecodeError):  # half a line of a full disk
            yield orjson.loads(line)


def _add(run: str, entry: dict[str, Any]) -> None:
    with open(_file(run), "ab") as file:
        file.write(orjson.dumps(entry | {"at": round(time.time(), 3)}, option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())


def settle(run: str, instance_id: str) -> None:
    """Count what earlier processes began for this task and did not live to end at what it was expected to cost. Its caller holds the task."""
    if not _file(run).is_file():
        return
    with locked(_file(run).with_suffix(".lock")):
        ended, open_ones = set(), []
        for entry in _entries(run):
            if entry["event"] == "end":
                ended.add(entry["key"])
            elif entry["instance_id"] == instance_id:
                open_ones.append(entry)
        for entry in open_ones:
            if entry["key"] not in ended:
                _add(run, {"event": "end", "key": entry["key"], "instance_id": instance_id, "usd": entry["usd"], "assumed": True})


def ask(run: str, instance_id: str, attempt: int, budget: float | None, max_cost: float | None, since: float, say: Say) -> Leave | None:
    """Leave to start an attempt, noted before it starts; None where its task has spent what it may.

    Waits while what runs might use up the budget. Raises Fatal, and stops the run, where the budget has no room for it.
    """
    told = False
    while True:
        with locked(_file(run).with_suffix(".lock")):
            account = read(run)
            left_of_task = None if max_cost is None else max_cost - account.by_task.get(instance_id, 0.0)
            if left_of_task is not None and left_of_task <= 0:
                return None
            expected = left_of_task if left_of_task is not None else account.expected()
            if budget is None or _fits(account, budget, expected):
                left = None if budget is None else budget - account.spent
                caps = [cap for cap in (left_of_task, left) if cap is not None]
                key = uuid.uuid4().hex
                noted = expected if expected is not None else left
                _add(run, {"event": "start", "key": key, "instance_id": instance_id, "attempt": attempt, "usd": noted, "host": os.uname().nodename})
                return Leave(key, min(caps) if caps else None)
        if why := runs.stopped(run, since):
            raise Fatal(f"the run was stopped: {why}")
        if not account.running:
            why = f"BUDGET is {budget:g} $, {account.spent:.2f} $ are spent and one more attempt is expected to cost {expected or 0:.2f} $"
            runs.stop(run, f"{why} (BUDGET={budget * 2:g} RUN={run} goes on)")
            raise Fatal(f"not started: {why}")
        if not told:
            told = True
            say(f"waiting for what runs: BUDGET is {budget:g} $, {account.spent:.2f} $ are spent")
        time.sleep(POLL)


def _fits(account: Account, budget: float, expected: float | None) -> bool:
    """Whether one more fits; the first, of which nothing is known, runs alone and may cost all that is there."""
    if expected is None or None in account.running.values():
        return not account.running and account.spent < budget
    return account.spent + sum(filter(None, account.running.values())) + expected <= budget + 1e-9


def end(run: str, leave: Leave, instance_id: str, usd: float | None) -> None:
    with locked(_file(run).with_suffix(".lock")):
        _add(run, {"event": "end", "key": leave.key, "instance_id": instance_id, "usd": usd})
