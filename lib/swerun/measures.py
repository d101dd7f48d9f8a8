"""Measures: what a command costs, and rows of samples that set our way beside the naive one and a physical limit."""

import os
import resource
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, Collection, Mapping, NamedTuple

from swerun.errors import CommandFailed

COLUMNS = ("ours", "naive", "limit")


class Spent(NamedTuple):
    seconds: float
    cpu: float  # seconds, user and system, of the whole tree
    stdout: bytes


def spent(*words: str | Path, env: Mapping[str, str], cwd: Path, input: bytes | None = None, timeout: float | None = None) -> Spent:
    """Run a command to its end. Raises CommandFailed, for one that is too slow too."""
    argv = tuple(map(str, words))
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as child:
        try:
            stdout, stderr = child.communicate(input, timeout=timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGTERM)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandFailed(argv, -signal.SIGTERM, "", f"not done in {timeout:.0f} s") from None
            raise
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise CommandFailed(argv, child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    return Spent(seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, stdout)


def percentile(values: Collection[float], part: float) -> float:
    """Between the two nearest samples; that of one sample is itself."""
    ordered = sorted(values)
    at = part * (len(ordered) - 1)
    low = int(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


class Row:
    """Samples of one quantity, in seconds, by column and task."""

    def __init__(self, title: str, limit: str):
        self.title, self.limit = title, limit
        self.samples: dict[str, dict[str, list[float]]] = {column: {} for column in COLUMNS}

    def add(self, task: str, **values: float) -> None:
        for column, value in values.items():
            self.samples[column].setdefault(task, []).append(value)

    def median_of(self, column: str, task: str) -> float | None:
        found = self.samples[column].get(task)
        return statistics.median(found) if found else None

    def summary(self, tasks: Collection[str] | None = None) -> dict[str, Any]:
        """Each column's p50, p95 and count of samples (null where there are none), and our ratio to the other two."""
        made: dict[str, Any] = {"title": self.title, "limit_is": self.limit}
        for column, by_task in self.samples.items():
            values = [value for task, found in by_task.items() if tasks is None or task in tasks for value in found]
            made[column] = {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "samples": len(values)} if values else None
        return made | {f"ours_to_{column}": self._ratio(column, tasks) for column in COLUMNS[1:]}

    def _ratio(self, column: str, tasks: Collection[str] | None) -> float | None:
        """The median over the tasks that have both: columns may be over different tasks, ratios must not."""
        both = [task for task in self.samples["ours"] if self.samples[column].get(task) and (tasks is None or task in tasks)]
        ratios = [self.median_of("ours", task) / self.median_of(column, task) for task in both]
        return statistics.median(ratios) if ratios else None


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for a terminal: medians in seconds, our p95, our ratios."""
    lines = [f"{'seconds':<34} {'ours':>8} {'p95':>8} {'naive':>8} {'limit':>8} {'/naive':>7} {'/limit':>7}  the limit is"]
    for name, row in rows.items():
        ours, naive, limit = (row[column] or {} for column in COLUMNS)
        ratios = f"{_number(row['ours_to_naive']):>7} {_number(row['ours_to_limit'], '.2f'):>7}"
        values = f"{_number(ours.get('p50')):>8} {_number(ours.get('p95')):>8} {_number(naive.get('p50')):>8} {_number(limit.get('p50')):>8}"
        lines.append(f"{row['title']:<34} {values} {ratios}  {row['limit_is']}")
    return lines


def told(results: Mapping[str, Any]) -> list[str]:
    """The whole of a bench's results for a terminal."""
    lines = table(results["rows"])
    if len(results["repositories"]) > 1:
        lines += ["", f"{'repository':<28} {'files':>6} {'tasks':>5}  {'checkout: p50':>13} {'p95':>8} {'/cp -a':>7}  {'set-up: p50':>11} {'p95':>8}"]
    for repo, found in results["repositories"].items() if len(results["repositories"]) > 1 else ():
        checkout, whole = found["rows"]["checkout"], found["rows"]["set_up"]
        one = f"{checkout['ours']['p50']:>13.3f} {checkout['ours']['p95']:>8.3f} {_number(checkout['ours_to_limit'], '.2f'):>7}"
        lines.append(f"{repo:<28} {found['files']:>6} {found['tasks']:>5}  {one}  {whole['ours']['p50']:>11.3f} {whole['ours']['p95']:>8.3f}")
    once, naive = results["checkouts_at_once"], results["naive"]
    lines += ["", f"on {results['cores']} cores with a load of {results['load_before']:.1f} before it began; medians, and our 95th percentile; ratios are medians over tasks"]
    lines += [f"{once['right']} of {once['count']} simultaneous checkouts were right"]
    lines.append(f"naive: {naive['tasks']} tasks, {naive['repeats']} times each, by {naive['from']}://; {len(naive['failed'])} failed, and are not in its times")
    return [*lines, *(f"  {one['instance_id']}: {one['step']} failed after {one['seconds']:.1f} s: {one['why']}" for one in naive["failed"])]
