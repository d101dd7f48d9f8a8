"""One attempt of an executable agent: what it is given, how it ended, and when it is told to try again."""

import os
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

import orjson

from swerun import backoff, checkouts, options, paths, prompts, runs, services, spec as specs, spending, venvs, workspace
from swerun.errors import Fatal, TryLater
from swerun.leavings import add, put, read_usage
from swerun.process import MARK, clean_env, run_limited
from swerun.runs import agent_label
from swerun.state import remove_tree
from swerun.workspace import Workspace

AGAIN_LATER, CANNOT_RUN = 75, 78  # EX_TEMPFAIL and EX_CONFIG of sysexits.h
GRACE = 12.0  # seconds between the request to end and the end: a CLI writes down what it cost
STATUSES = ("completed", "max_turns", "budget", "error")  # that an agent may tell of itself
Say = Callable[[str], None]


class Task(NamedTuple):
    """What an attempt is of."""

    row: dict[str, Any]
    record: dict[str, Any]
    chosen: Mapping[str, str]
    say: Say
    since: float  # when it was begun, a Unix time: a run that was stopped before is gone on with

    @property
    def folder(self) -> Path:
        return paths.task_dir(self.record["run"], self.record["instance_id"])


class Done(NamedTuple):
    status: str
    seconds: float  # without what was waited for the model API
    waited: float
    usage: dict[str, Any]


class Spent:
    """What the starts of an attempt have said of their cost, known to whoever asks also when they end by an exception."""

    def __init__(self) -> None:
        self.starts = 0
        self.usage: dict[str, Any] = {}


def home(task: Task) -> Path:
    """A folder for the agent's own state that lasts for all attempts of the task."""
    return workspace.agent_place(task.record) / "agent"


def environment(task: Task, space: Workspace, out: Path, attempt: int, session: str, told: bool, goes_on: bool) -> dict[str, str]:
    chosen, config = task.chosen, checkouts.config_of(space.checkout, task.chosen["CONFIG"])
    with_mcp = options.flag(chosen["MCP"])
    mcp = with_mcp and config is not None and (config / ".mcp.json").is_file()
    put(out / "instructions.md", prompts.instructions().encode())
    return venvs.activated(space.venv, clean_env()) | {
        "AGENT_PROMPT_FILE": str(out / "prompt.md"),
        "AGENT_OUT": str(out),
        "AGENT_HOME": str(paths.make_dir(home(task))),
        "AGENT_INSTANCE_ID": task.row["instance_id"],
        "AGENT_ATTEMPT": str(attempt),
        "AGENT_TIMEOUT_S": chosen["TIMEOUT"],
        "AGENT_MODEL": chosen["MODEL"],
        "AGENT_EFFORT": chosen["EFFORT"],
        "AGENT_MAX_TURNS": chosen["MAX_TURNS"],
        "AGENT_MAX_COST": "",  # launch says it, for it is less after each start
        "AGENT_INSTRUCTIONS_FILE": str(out / "instructions.md"),
        "AGENT_CONFIG": str(config or ""),
        "AGENT_MCP": "1" if with_mcp else "0",
        "AGENT_MCP_CONFIG": str(config / ".mcp.json") if config and mcp else "",
        "AGENT_FEEDBACK_FILE": str(out / "feedback.md") if told else "",
        "AGENT_SESSION": session,
        "AGENT_RESUME": "1" if goes_on else "",
        # without a .git of its own, its git must not find a repository that the worktree lies in
        "GIT_CEILING_DIRECTORIES": str(space.checkout.parent),
        MARK: str(workspace.agent_place(task.record)),
    }


def launch(agent: str, task: Task, space: Workspace, out: Path, env: dict[str, str], cap: float | None, spent: Spent) -> Done:
    """Run an agent to its end; one that says that its model cannot be had is started again in its own session, in the same worktree.

    Raises TryLater where PATIENCE ends before that, and Fatal, with the run stopped, where the agent cannot run at all.
    """
    place, label = workspace.agent_place(task.record), agent_label(agent)
    patience, timeout = float(task.chosen["PATIENCE"]), float(task.chosen["TIMEOUT"])
    stopped = lambda: runs.stopped(task.record["run"], task.since)
    seconds = waited = 0.0
    while True:
        waited_now = backoff.wait(label, patience, task.say, stopped)
        waited += waited_now
        if why := runs.stopped(task.record["run"], task.since, by_itself=waited_now < 1):
            raise Fatal(f"the run was stopped: {why}")
        if cap is not None:
            env = env | {"AGENT_MAX_COST": f"{cap - (spent.usage.get('cost_usd') or 0.0):.4f}"}
        start, begun = time.monotonic(), time.time()
        spent.starts += 1
        with services.running(specs.of(task.row), space.venv, place, env) as inner:
            with open(out / "prompt.md", "rb") as stdin, open(out / "stdout.txt", "ab") as stdout, open(out / "stderr.txt", "ab") as stderr:
                said_before = stderr.tell()
                ended = run_limited([agent], cwd=space.checkout, env=inner, timeout=max(1.0, timeout - seconds), stdin=stdin, stdout=stdout, stderr=stderr, grace=GRACE)
        seconds += time.monotonic() - start
        paths.make_dir(out)  # an agent may delete even that
        told = read_usage(out / "usage.json")
        usage = spent.usage = add(spent.usage, told)
        put(out / "usage.json", orjson.dumps(usage, option=orjson.OPT_APPEND_NEWLINE))
        if ended.timed_out or ended.returncode not in (AGAIN_LATER, CANNOT_RUN):
            if not ended.timed_out and ended.returncode >= 0:
                backoff.worked(label, begun)
            return Done(_status(ended.returncode, ended.timed_out, told), seconds, waited, usage)
        why = _last_line(out / "stderr.txt", said_before)
        if ended.returncode == CANNOT_RUN:
            runs.stop(task.record["run"], f"agent '{label}' cannot run: {why}")
            raise Fatal(f"'{agent}' exited {CANNOT_RUN}: {why} (the agent cannot run at all here)")
        retry_at = told.get("retry_at")
        if not backoff.failed(label, why, retry_at, patience) or waited > patience:
            raise TryLater(f"'{agent}' exited {AGAIN_LATER}: {why} (run again later)")
        if cap is not None and cap - (usage.get("cost_usd") or 0.0) < spending.LEAST:
            return Done("budget", seconds, waited, usage)
        (out / "usage.json").unlink(missing_ok=True)
        env = env | {"AGENT_RESUME": "1"}


def _status(returncode: int, timed_out: bool, told: dict[str, Any]) -> str:
    if timed_out:
        return "timeout"
    if returncode < 0:
        return "crashed"
    if told.get("status") in STATUSES:
        return told["status"]
    return "completed" if returncode == 0 else "error"


def _last_line(file: Path, offset: int) -> str:
    if not file.is_file():
        return "it said nothing"
    with open(file, "rb") as opened:
        opened.seek(max(offset, os.path.getsize(file) - 4096))
        said = opened.read().decode("utf-8", "replace").strip().splitlines()
    return said[-1][:300] if said else "it said nothing"


def fresh(out: Path) -> Path:
    remove_tree(out)
    return paths.make_dir(out)
