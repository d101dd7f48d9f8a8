"""What a run costs: a ledger that every process of the run reads before it starts something, and that survives its writers.

`costs.jsonl` in the run's folder, one line a `start` (with what it may cost) and one an `end` (with what it did). An attempt that
has begun and not ended counts with what it may cost. One whose process was killed is ended by whoever sees it next, at what
its agent had said, else at what attempts cost on average; such an assumed amount counts for the run, and not against its task.
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
from swerun.leavings import read_usage
from swerun.state import is_locked, locked

POLL = 0.5
LEAST = 0.005  # dollars: with less than that left nothing is begun
ROOM = 3       # how many times the average an attempt may cost where only BUDGET bounds it
Say = Callable[[str], None]
Entry = dict[str, Any]


class Account(NamedTuple):
    spent: float               # dollars of attempts that have ended
    running: list[Entry]       # what has begun and not ended: `usd` is what it may cost, None where nothing bounds it
    costs: list[float]         # of each attempt that has ended and said it
    by_task: dict[str, float]  # what each task is known to have cost

    def average(self) -> float | None:
        return sum(self.costs) / len(self.costs) if self.costs else None

    def reserved(self) -> float:
        return sum(entry["usd"] or 0.0 for entry in self.running)


class Leave(NamedTuple):
    """That an attempt may start: the key of its entry, and the dollars it may cost at most (None: no limit)."""

    key: str
    cap: float | None


def _file(run: str) -> Path:
    return paths.run_dir(run) / "costs.jsonl"


def _alone(run: str) -> Any:
    return locked(_file(run).with_suffix(".lock"))


def _entries(run: str) -> Iterator[Entry]:
    for line in _file(run).read_bytes().splitlines() if _file(run).is_file() else ():
        with contextlib.suppress(orjson.JSONDecodeError):  # half a line of a full disk
            entry = orjson.loads(line)
            if isinstance(entry, dict) and {"event", "key", "instance_id", "usd"} <= entry.keys():
                yield entry


def _add(run: str, entry: Entry) -> None:
    with open(_file(run), "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            whole = file.read() == b"\n"
            file.write(b"" if whole else b"\n")
        file.write(orjson.dumps(entry | {"at": round(time.time(), 3)}, option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())


def read(run: str) -> Account:
    starts: dict[str, Entry] = {}
    spent, costs, by_task = 0.0, [], {}
    for entry in _entries(run):
        if entry["event"] == "start":
            starts[entry["key"]] = entry
            continue
        starts.pop(entry["key"], None)
        usd = entry["usd"] or 0.0
        spent += usd
        if not entry.get("assumed"):
            by_task[entry["instance_id"]] = by_task.get(entry["instance_id"], 0.0) + usd
            costs += [usd] if usd else []
    return Account(spent, list(starts.values()), costs, by_task)


def settle(run: str, mine: str) -> None:
    """End what killed processes of this host began. The caller holds the task `mine`, so that none of its own still runs."""
    if not _file(run).is_file():
        return
    with _alone(run):
        account = read(run)
        for entry in account.running:
            if entry["instance_id"] == mine or not _alive(run, entry):
                _add(run, {"event": "end", "key": entry["key"], "instance_id": entry["instance_id"], "usd": _assumed(run, account, entry), "assumed": True})


def _alive(run: str, entry: Entry) -> bool:
    """Whether an attempt that has not ended still runs: its process holds the task. Of another host nobody knows."""
    lock = paths.task_dir(run, entry["instance_id"]) / ".lock"
    return entry.get("host") != os.uname().nodename or (lock.exists() and is_locked(lock))


def _assumed(run: str, account: Account, entry: Entry) -> float:
    """What an attempt has cost whose process did not live to say it: as its agent said, as others, or half of what it might."""
    said = read_usage(paths.task_dir(run, entry["instance_id"]) / "attempts" / str(entry.get("attempt")) / "usage.json").get("cost_usd")
    if said is not None:
        return said
    average, most = account.average(), entry["usd"] or 0.0
    return min(average, most or average) if average is not None else most / 2


def ask(run: str, instance_id: str, attempt: int, budget: float | None, max_cost: float | None, since: float, say: Say) -> Leave | None:
    """Leave to start an attempt, noted before it starts; None where its task has spent what it may.

    Waits while what runs might use up the budget. Raises Fatal, and stops the run, where the budget has no room for it.
    """
    told = False
    while True:
        settle(run, instance_id)
        with _alone(run):
            account = read(run)
            left_of_task = None if max_cost is None else max_cost - account.by_task.get(instance_id, 0.0)
            if left_of_task is not None and left_of_task < LEAST:
                return None
            cap = _cap(account, budget, left_of_task)
            if cap is None or cap >= LEAST:
                key = uuid.uuid4().hex
                _add(run, {"event": "start", "key": key, "instance_id": instance_id, "attempt": attempt, "usd": cap, "host": os.uname().nodename})
                return Leave(key, cap)
        if why := runs.stopped(run, since):
            raise Fatal(f"the run was stopped: {why}")
        if not account.running:
            expected = left_of_task if left_of_task is not None else account.average() or 0.0
            why = f"BUDGET is {budget:g} $, {account.spent:.2f} $ are spent and one more attempt may cost {expected:.2f} $"
            runs.stop(run, f"{why} (BUDGET={(budget or 0) * 2:g} RUN={run} goes on)")
            raise Fatal(f"not started: {why}")
        if not told:
            told = True
            say(f"waiting for what runs: BUDGET is {budget:g} $, {account.spent:.2f} $ are spent and {account.reserved():.2f} $ may be")
        time.sleep(POLL)


def _cap(account: Account, budget: float | None, left_of_task: float | None) -> float | None:
    """The dollars that one more attempt may cost; None: any; 0 where it must wait.

    All caps given together never pass the budget. The first attempt, of which nothing is known, runs alone and may cost all.
    """
    if budget is None:
        return left_of_task
    left = budget - account.spent - account.reserved()
    if left_of_task is not None:
        return left_of_task if left_of_task <= left + 1e-9 else 0.0
    average = account.average()
    if average is None:
        return 0.0 if account.running else left
    return min(left, ROOM * average) if average <= left + 1e-9 else 0.0


def end(run: str, leave: Leave, instance_id: str, usd: float | None) -> None:
    """Note what an attempt has cost; None where its agent does not say."""
    with _alone(run):
        _add(run, {"event": "end", "key": leave.key, "instance_id": instance_id, "usd": usd})


def cut_off(run: str, leave: Leave, instance_id: str) -> None:
    """Note an attempt that an interrupt ended before its agent could say what it had cost."""
    with _alone(run):
        account = read(run)
        entry = next((one for one in account.running if one["key"] == leave.key), None)
        if entry:
            _add(run, {"event": "end", "key": leave.key, "instance_id": instance_id, "usd": _assumed(run, account, entry), "assumed": True})
