"""Which instances of a dataset: by id, by a jq expression, shuffled, a slice."""

import random
import re
from pathlib import Path
from typing import Any, Mapping

import orjson

from swerun import datasets
from swerun.errors import Usage
from swerun.options import count


def listed(ids: str) -> list[str]:
    """The instance ids of IDS: separated by spaces or commas, or one a line in @file."""
    if ids.startswith("@"):
        try:
            ids = Path(ids[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(f"cannot read the list of ids '{ids[1:]}': {getattr(error, 'strerror', None) or 'it is not text'}") from None
    return list(dict.fromkeys(filter(None, re.split(r"[\s,]+", ids))))


def select(rows: Mapping[str, bytes], chosen: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """(instance_id, row as JSON) of what IDS, WHERE, SEED, START and SAMPLE leave, in that order. Raises Usage."""
    start, sample = count("START", chosen.get("START", "")) or 0, count("SAMPLE", chosen.get("SAMPLE", ""))
    ids = listed(chosen.get("IDS", ""))
    unknown = [instance_id for instance_id in ids if instance_id not in rows]
    if unknown:
        others = f", nor {len(unknown) - 1} others of IDS" if unknown[1:] else ""
        raise Usage(f"no instance '{unknown[0]}' in dataset '{chosen['DATASET']}'{others} (bin/tasks lists them)")
    kept = [(instance_id, rows[instance_id]) for instance_id in ids or rows]
    if chosen.get("WHERE"):
        kept = _where(kept, chosen["WHERE"])
    if chosen.get("SEED"):
        random.Random(chosen["SEED"]).shuffle(kept)
    return kept[start:None if sample is None else start + sample]


def _where(kept: list[tuple[str, bytes]], expression: str) -> list[tuple[str, bytes]]:
    import jq

    try:
        program = jq.compile(expression)
    except ValueError as error:
        raise Usage(f"WHERE is not a jq expression: {str(error).splitlines()[0]} in '{expression}' (for example '.repo == \"psf/requests\"')") from None
    chosen = []
    for instance_id, row in kept:
        try:
            chosen += [(instance_id, row)] if any(program.input_text(row.decode())) else []
        except ValueError as error:
            raise Usage(f"WHERE fails on '{instance_id}': {str(error).splitlines()[0]} in '{expression}'") from None
    return chosen


def record(row: bytes, chosen: Mapping[str, str], run: str) -> dict[str, Any]:
    """The public record of a row."""
    made = datasets.public(orjson.loads(row)) | {"dataset": datasets.canonical(chosen["DATASET"]), "run": run}
    return made | ({"split": chosen["SPLIT"]} if chosen["SPLIT"] != "test" else {})
