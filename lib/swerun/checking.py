"""Trying an agent on a toy task: the first task of the sample, one attempt, and a word on each thing the contract asks of it."""

import time
from pathlib import Path
from typing import Any, Callable

from swerun import agents, attempts, datasets, options, paths, plans, runs, workspace
from swerun.errors import Fatal
from swerun.launches import Task
from swerun.leavings import read_usage
from swerun.process import clean_env
from swerun.state import remove_tree

NAMES = ("MODEL", "EFFORT", "MAX_TURNS", "PROMPT", "TIMEOUT", "TEST_TIMEOUT", "BUDGET", "MAX_COST", "MCP", "CONFIG", "REMOTE", "KEEP")
Say = Callable[[str], None]


def check(agent: str, flags: dict[str, Any], say: Say) -> int:
    """0 where the agent ran and changed something; 1, each fault said in a line, where not."""
    found = agents.check(agent)
    if not agents.needs_worktree(found):
        say(f"'{agent}' is built in: there is nothing to check")
        return 0
    missing = agents.lacking(found, clean_env())
    for sentence in missing:
        say(f"missing: {sentence}")
    if missing:
        return 1
    declared = agents.needs(found)
    say(f"ok: it can be started; it declares hosts {', '.join(declared.hosts) or 'none: it will have no network'}")
    chosen = {name: value.value for name, value in options.resolve(NAMES, flags).items()}
    chosen |= {"AGENT": found, "ITERATIONS": "1", "FEEDBACK": "none", "RESET": "1", "PATIENCE": "0", "DATASET": "sample", "RUN": f"check-{runs.agent_label(found)}"}
    plans.check_agent_options(chosen)
    row = datasets.row("sample", "test", next(iter(datasets.load("sample").rows)))
    record = datasets.public(row) | {"dataset": "sample", "run": chosen["RUN"]}
    folder = paths.task_dir(chosen["RUN"], row["instance_id"])
    remove_tree(folder.parent)
    paths.make_dir(folder)
    say(f"running it on {row['instance_id']} (at most {float(chosen['TIMEOUT']):.0f} s; what it leaves is in {folder / 'attempts/1'})")
    try:
        made = attempts.run(found, Task(row, record, chosen, say, time.time()))
    except Fatal as error:
        say(f"missing: {error}")
        return 1
    finally:
        workspace.remove(record)
    return 0 if _told(made, folder / "attempts" / "1", say) else 1


def _told(made: dict[str, Any], out: Path, say: Say) -> bool:
    told, usage = made["agent"], read_usage(out / "usage.json")
    good = told["status"] == "completed" and bool(made["model_patch"].strip())
    say(f"{'ok' if told['status'] == 'completed' else 'missing'}: it ended as '{told['status']}' after {told['seconds']:.1f} s")
    files = made["model_patch"].count("diff --git ")
    how = f", taken from its {told['extracted']['source']}" if told["extracted"] else ""
    say(f"ok: it changed {files} file{'s' * (files != 1)}{how}" if made["model_patch"].strip() else "missing: it changed nothing, and no diff was found in what it said")
    if not (out / "transcript.jsonl").is_file():
        say("note: it left no transcript.jsonl in AGENT_OUT, so what it did cannot be looked at")
    if usage.get("cost_usd") is None:
        say("note: it says no cost_usd in usage.json, so BUDGET and MAX_COST cannot hold for it")
    return good
