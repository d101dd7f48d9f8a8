"""Attempts at a task: one, its tests, what the agent is told of them, the next; the best of them is the prediction.

An attempt that has ended is kept as `attempts/<n>.json`, so that whoever goes on after a kill pays for none twice.
"""

import uuid
from pathlib import Path
from typing import Any

from swerun import answers, checkouts, launches, leavings, options, prompts, spending, workspace
from swerun.errors import Fatal
from swerun.launches import Task
from swerun.leavings import left
from swerun.runs import agent_label
from swerun.state import read_json, write_json
from swerun.workspace import Workspace

Attempt = dict[str, Any]
MOST_PATCH = 30_000  # characters of the last patch that the next prompt repeats
TOLD = ("model", "agent_version", "stop_reason", "mcp_servers", "notes")  # what an agent says of itself that its record repeats


def run(agent: str, task: Task) -> dict[str, Any]:
    """What an executable agent adds to a record: model_patch, model_name_or_path, agent. Raises Fatal where nothing is a result yet."""
    chosen, tried = task.chosen, []
    most = 1 if chosen["FEEDBACK"] == "none" else int(options.number("ITERATIONS", chosen["ITERATIONS"])) or 1
    space: Workspace | None = None
    for number in range(1, most + 1):
        last = tried[-1] if tried else None
        if last and not _again(tried):
            break
        one = read_json(_kept(task, number))
        if one is None:
            space = _space(task, space, last)
            leave = _leave(task, number, bool(tried))
            if leave is None:
                break
            one = _attempt(agent, task, space, number, last, leave)
            write_json(_kept(task, number), one)  # what was paid for is kept before anything else can fail
        if most > 1 and not one["judged"]:
            one |= _judged(task, one)
            write_json(_kept(task, number), one)
        tried.append(one)
        if one["status"] == "budget":
            break
    if not tried:
        raise Fatal("its attempts have cost MAX_COST, and none has ended (raise it, then run again)")
    return _record(agent, task, tried)


def _folder(task: Task, number: int) -> Path:
    """What an attempt's agent has as AGENT_OUT; nothing of ours is believed that stands in it."""
    return task.folder / "attempts" / str(number)


def _kept(task: Task, number: int) -> Path:
    return task.folder / "attempts" / f"{number}.json"


def _leave(task: Task, number: int, tried: bool) -> spending.Leave | None:
    """Leave to begin an attempt; None where there is no money for it: then those that were made decide."""
    budget, most = (options.dollars(name, task.chosen[name]) for name in ("BUDGET", "MAX_COST"))
    try:
        return spending.ask(task.record["run"], task.record["instance_id"], number, budget, most, task.since, task.say)
    except Fatal as error:
        if not tried:
            raise
        task.say(f"no further attempt: {error}")
        return None


def _again(tried: list[Attempt]) -> bool:
    """Whether another attempt is worth its price: the last one failed the tests it can be told of, or left nothing, once."""
    last = tried[-1]
    if not last["model_patch"].strip():
        return sum(not one["model_patch"].strip() for one in tried) == 1
    return not last["passed"]


def _space(task: Task, space: Workspace | None, last: Attempt | None) -> Workspace:
    """The place of the next attempt: fresh, or with RESET=0 as the last one left it (after a kill: fresh all the same)."""
    if last is None:
        made = workspace.existing(task.record, task.row)
        if made:
            return made
    elif space and not options.flag(task.chosen["RESET"]):
        return space
    place = workspace.agent_place(task.record)
    return workspace.make(task.row, place, task.folder, task.chosen["REMOTE"], checkouts.config_folder(task.chosen["CONFIG"]), task.say)


def _attempt(agent: str, task: Task, space: Workspace, number: int, last: Attempt | None, leave: spending.Leave) -> Attempt:
    chosen, out = task.chosen, launches.fresh(_folder(task, number))
    goes_on = _goes_on(task, space, last)
    session = last["session"] if last and goes_on else str(uuid.uuid4())
    told = {"feedback": last["feedback"], "previous_patch": _short(last["model_patch"])} if last else None
    if told:
        leavings.put(out / "feedback.md", told["feedback"].encode("utf-8", "surrogateescape"))
    leavings.put(out / "prompt.md", prompts.render(task.row, chosen["PROMPT"], space.checkout, number, told, goes_on))
    env = launches.environment(task, space, out, number, session, bool(told), goes_on)
    checkouts.mark_used(space.checkout)
    task.say("running the agent" if number == 1 else f"running the agent, attempt {number}")
    config, spent = checkouts.config_state(space.checkout), launches.Spent()
    try:
        done = launches.launch(agent, task, space, out, env, leave.cap, spent)
    except Fatal:  # the agent has ended, and said what it said
        spending.end(task.record["run"], leave, task.record["instance_id"], spent.usage.get("cost_usd") or (None if spent.starts else 0.0))
        raise
    except BaseException:
        spending.cut_off(task.record["run"], leave, task.record["instance_id"])
        raise
    spending.end(task.record["run"], leave, task.record["instance_id"], done.usage.get("cost_usd"))
    changed = sorted(name for name, state in config.items() if checkouts.state_of(Path(name)) != state)
    said = left(out / "answer.md") or left(out / "stdout.txt")
    taken = answers.take(task.row, space, left(out / "patch.diff"), said)
    leavings.put(out / "patch.diff", taken.patch.encode())
    return {"attempt": number, "status": done.status, "seconds": round(done.seconds, 3), "waited_seconds": round(done.waited, 3), "session": session,
            "model_patch": taken.patch, "extracted": taken.extracted, "usage": done.usage | ({"notes": [*_notes(done.usage), f"the agent changed the linked configuration: {', '.join(changed[:5])}"]} if changed else {}), "judged": False, "passed": False, "feedback": "", "rank": [False, False, 0]}


def _notes(usage: dict[str, Any]) -> list[Any]:
    return usage["notes"] if isinstance(usage.get("notes"), list) else []


def _judged(task: Task, one: Attempt) -> Attempt:
    """What its tests say of an attempt, and what the next one is told."""
    from swerun import visible  # all of grading, which a single attempt never needs
    from swerun.visible import Judged

    if not one["model_patch"].strip():
        found = Judged(False, 0, [], visible.NOTHING)
    else:
        found = (visible.hidden if task.chosen["FEEDBACK"] == "hidden" else visible.judge)(task, one["model_patch"])
    text = "" if one["status"] in ("completed", "error") else f"(The attempt ended before its time: {one['status']}.)\n"
    failed = [name[:300] for name in found.failed[:200]]
    return {"judged": True, "passed": found.passed, "tests": found.count, "failed": failed, "feedback": text + found.feedback, "rank": list(found.rank())}


def _short(patch: str) -> str:
    return patch if len(patch) <= MOST_PATCH else f"{patch[:MOST_PATCH]}\n[… {len(patch) - MOST_PATCH} characters left out …]"


def _goes_on(task: Task, space: Workspace, last: Attempt | None) -> bool:
    """Whether an attempt goes on where the last one was: in its worktree, with its session's state."""
    return last is not None and not options.flag(task.chosen["RESET"]) and launches.home(task).is_dir() and not checkouts.is_complete(space.checkout)


def _record(agent: str, task: Task, tried: list[Attempt]) -> dict[str, Any]:
    best = max(tried, key=lambda one: (bool(one["model_patch"].strip()), *one["rank"], one["attempt"]))
    usage: dict[str, Any] = {}
    for one in tried:
        usage = leavings.add(usage, one["usage"])
    told = {name: usage[name] for name in TOLD if usage.get(name) is not None}
    agent_says = {
        "status": best["status"],
        "attempts": len(tried),
        "best_attempt": best["attempt"],
        "seconds": round(sum(one["seconds"] for one in tried), 3),
        "waited_seconds": round(sum(one["waited_seconds"] for one in tried), 3),
        **{name: usage.get(name) for name in ("cost_usd", "tokens", "turns", "tool_calls", "permission_denials")},
        "session_id": best["usage"].get("session_id") or best["session"],
        "isolation": "none",
        "feedback": task.chosen["FEEDBACK"],
        "comparable": task.chosen["FEEDBACK"] != "hidden",
        "extracted": best["extracted"],
        **told,
    }
    name = agent_label(agent) + (f"-{task.chosen['MODEL']}" if task.chosen["MODEL"] else "")
    return {"model_patch": best["model_patch"], "model_name_or_path": name, "agent": agent_says}
