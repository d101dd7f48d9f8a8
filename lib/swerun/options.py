"""The options of a run: what each is called, its default, and where a value came from."""

import os
from typing import Any, Iterable, Mapping, NamedTuple

from swerun.errors import Usage


class Option(NamedTuple):
    name: str
    default: str
    help: str
    fixed: bool = False  # part of what a run is: a run cannot go on with another value


OPTIONS = (
    Option("DATASET", "verified", "sample, lite, verified, full, multimodal, a Hugging Face id, or a .jsonl/.json/.parquet file", True),
    Option("SPLIT", "test", "split of a Hugging Face dataset", True),
    Option("IDS", "", "instance ids, separated by spaces or commas, or @file"),
    Option("WHERE", "", "a jq expression over the dataset's rows: keep those it is true for"),
    Option("START", "", "skip so many instances"),
    Option("SAMPLE", "", "then take so many"),
    Option("SEED", "", "shuffle first, by this seed"),
    Option("AGENT", "claude", "gold, null, replay:<predictions.jsonl>, a name in lib/agents, or any executable", True),
    Option("MODEL", "", "the model, passed to the agent", True),
    Option("EFFORT", "", "the effort, passed to the agent", True),
    Option("MAX_TURNS", "", "the turn limit, passed to the agent", True),
    Option("PROMPT", "", "a prompt template (default lib/prompts/solve.md)", True),
    Option("RUN", "", "the run's name (default <dataset>-<agent>)"),
    Option("ITERATIONS", "5", "attempts a task at most; one that passes the tests it is told of ends them", True),
    Option("FEEDBACK", "visible", "what an agent is told of its last attempt: none, visible (tests of the base commit and its own), hidden (the grading tests: not comparable)", True),
    Option("RESET", "1", "0: the next attempt goes on in the worktree and session of the last, instead of in a fresh one", True),
    Option("TIMEOUT", "600", "seconds an attempt may take", True),
    Option("TEST_TIMEOUT", "1800", "seconds a test run may take", True),
    Option("TEST_JOBS", "", "test suites and builds at once on a host, however many tasks are in flight (default: its cores)"),
    Option("BUDGET", "", "dollars that the run may cost: nothing is started that would pass it (default: no limit)"),
    Option("MAX_COST", "", "dollars that a task may cost, all its attempts together (default: no limit)"),
    Option("PATIENCE", "300", "seconds that a model API may be limited, overloaded or down before tasks give up until the next run"),
    Option("MCP", "1", "0: no MCP tools", True),
    Option("CONFIG", "", "where .claude, .mcp.json, .mcp-the-force and claude_hooks come from (default: the parent of the toolkit)"),
    Option("REMOTE", "https://github.com/{repo}", "where mirrors come from: URL or path with {repo} {owner} {name}, or a file that maps repositories to such"),
    Option("SPECS", "", "a folder of spec files of your own, which come before the toolkit's; none: no tables, what packaging files say", True),
    Option("PREDICTIONS", "", "evaluate: the predictions to grade"),
    Option("STAGE", "", "redo: agent or tests"),
    Option("EMPTY_PATCH", "0", "1: run the tests of an empty patch too, as 'make validate' does", True),
    Option("REPEAT", "1", "validate: so many runs of each instance, to find what is flaky"),
    Option("LEDGER", "", "the folder of the ledger, which validate writes and reports read (default lib/swerun/ledger)"),
    Option("DISK_LIMIT", "", "GiB that the cache may take: what is used least recently goes, and is made again when it is needed (default: no limit)"),
    Option("KEEP", "0", "1: keep worktrees"),
    Option("DRY", "0", "1: only say what would be done"),
    Option("V", "0", "1: print the commands that are run"),
)
BY_NAME = {option.name: option for option in OPTIONS}
# what a run knows nothing of yet (REPEAT: only validate does)
LATER = ("REPEAT", "HOSTS", "ENGINE", "MEM", "ISOLATION", "NET", "ALLOW")
# every variable that is ours, those of later features included: agents, builds and tests see none
NAMES = tuple(dict.fromkeys((*BY_NAME, *LATER)))
FIXED = tuple(option.name for option in OPTIONS if option.fixed)


class Value(NamedTuple):
    value: str
    origin: str  # flag, environment, run.json or default


def resolve(names: Iterable[str], flags: Mapping[str, Any], recorded: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Each option from its flag, else the environment, else the run's run.json, else its default."""
    found = {}
    for name in names:
        flag = flags.get(name.lower())
        told = ((flag, "flag"), (os.environ.get(name), "environment"), ((recorded or {}).get(name), "run.json"))
        value, origin = next(((str(v), o) for v, o in told if v not in (None, "")), (BY_NAME[name].default, "default"))
        found[name] = Value(value, origin)
    return found


def number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1e9:  # nan is neither
        raise Usage(f"{name} is '{text}', not a number over 0")
    return value


def count(name: str, text: str) -> int | None:
    """A whole number of 0 or more, None where the option is not set."""
    if text == "":
        return None
    if not text.isdecimal():  # isdigit takes ² too, and int does not
        raise Usage(f"{name} is '{text}', not a whole number")
    return int(text)


def dollars(name: str, text: str) -> float | None:
    """An amount of money, None where the option is not set."""
    return number(name, text) if text else None


def flag(text: str) -> bool:
    return text not in ("", "0", "no", "false")
