"""What a run is asked to be: its options with their origins, and its rows. Checked before anything is done."""

import os
from typing import Callable, Mapping

import orjson

from swerun import agents, datasets, options, prompts, runs, selection, spec as specs
from swerun.errors import Usage
from swerun.options import Value

SELECTING = ("IDS", "WHERE", "START", "SAMPLE", "SEED")
Rows = list[tuple[str, bytes]]


def choose(flags: Mapping[str, str]) -> tuple[dict[str, Value], runs.Run | None]:
    """Every option of a run from flags (by lower-case name), environment, run.json or default; and the run if it is there."""
    names = list(options.BY_NAME)
    run = flags.get("run") or os.environ.get("RUN")
    origin = "flag" if flags.get("run") else "environment" if run else "default"
    if not run:
        first = options.resolve(("DATASET", "AGENT"), flags)
        run = runs.default_name(first["DATASET"].value, first["AGENT"].value)
    known = runs.read(run)
    chosen = options.resolve(names, flags, (known or {}).get("options"))
    specs.SPECS.set(chosen["SPECS"].value)
    return chosen | {"RUN": Value(run, origin)}, known


def rows_of(chosen: Mapping[str, str], say: Callable[[str], None]) -> list[datasets.Row]:
    """The rows that the selecting options choose of a dataset, which says those it cannot use. Raises Usage where none is left."""
    dataset = datasets.load(chosen["DATASET"], chosen["SPLIT"], say)
    for sentence in dataset.refused:
        say(sentence)
    rows = [orjson.loads(row) for _, row in selection.select(dataset.rows, chosen)]
    if not rows:
        raise Usage(f"no tasks left of the {len(dataset.rows)} in dataset '{chosen['DATASET']}' (look at IDS, WHERE, START and SAMPLE)")
    return rows


def check_agent_options(chosen: Mapping[str, str]) -> None:
    """Raises Usage for what no agent can be run with."""
    prompts.template(chosen["PROMPT"])
    for name in ("TIMEOUT", "TEST_TIMEOUT", "ITERATIONS", "BUDGET", "MAX_COST"):
        if chosen[name]:
            options.number(name, chosen[name])
    for name in ("PATIENCE", "MAX_TURNS"):
        options.count(name, chosen[name])
    if chosen["FEEDBACK"] not in ("none", "visible", "hidden"):
        raise Usage(f"FEEDBACK is '{chosen['FEEDBACK']}' (none, visible or hidden)")


def check(chosen: dict[str, str], known: runs.Run | None, say: Callable[[str], None]) -> Rows:
    """The rows of the run: those chosen, else those it had before. Raises Usage for every option that cannot be."""
    runs.check_name(chosen["RUN"])
    chosen["AGENT"] = agents.check(chosen["AGENT"])
    check_agent_options(chosen)
    if chosen.get("DISK_LIMIT"):
        options.number("DISK_LIMIT", chosen["DISK_LIMIT"])
    found = datasets.load(chosen["DATASET"], chosen["SPLIT"], say)
    for sentence in found.refused:
        say(sentence)
    if known and known.get("instance_ids") and not any(chosen[name] for name in SELECTING):
        gone = [i for i in known["instance_ids"] if i not in found.rows]
        if gone:
            raise Usage(f"run '{chosen['RUN']}' has '{gone[0]}', which dataset '{chosen['DATASET']}' has not (take another name with RUN=…)")
        rows = [(i, found.rows[i]) for i in known["instance_ids"]]
    else:
        rows = selection.select(found.rows, chosen)
        if chosen["AGENT"].startswith("replay:"):
            predicted = agents.predictions(chosen["AGENT"].removeprefix("replay:"))
            rows = [(i, row) for i, row in rows if i in predicted]
    if not rows:
        raise Usage(f"no tasks left of the {len(found.rows)} in dataset '{chosen['DATASET']}' (look at IDS, WHERE, START and SAMPLE)")
    if known:
        runs.open_run(chosen["RUN"], chosen, rows)
    return rows
