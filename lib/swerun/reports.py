"""What a run leaves behind: predictions, the official report, a table."""

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import Any, Mapping

import orjson

from swerun import paths, runs
from swerun.state import read_json, write_file

Record = dict[str, Any]
COLUMNS = ("instance_id", "repo", "version", "resolved", "status", "agent_status", "agent_seconds", "test_seconds", "cost_usd", "patch_bytes", "reference_resolves", "comparable")
# statuses for which the official harness writes no report of the instance and counts an error
ERRORS = ("patch_failed", "timeout", "out_of_memory")
REFERENCE = {"resolved": "yes", "unresolved": "no", "flaky": "flaky"}
TABLE = ("repository", "tasks", "resolved", "unresolved", "empty patch", "errors", "not done", "agent s", "tests s")


def of_run(run: str) -> list[Record]:
    """The last state of each task of a run, in the order of run.json: tests.json, else agent.json, else the bare task."""
    known = runs.read(run) or {}
    folder = paths.run_dir(run)
    ids = known.get("instance_ids") or sorted(path.parent.name for path in folder.glob("*/agent.json"))
    names = ("tests.json", "agent.json", "task.json")
    return [next(filter(None, (read_json(folder / i / name) for name in names)), {"instance_id": i}) for i in ids]


def kind(record: Record) -> str:
    """How a task ended, as the official report counts it."""
    if "model_patch" not in record:
        return "not done"
    if not (record["model_patch"] or "").strip():
        return "empty patch"
    if "tests" not in record or record["tests"]["status"] in ERRORS:
        return "errors"
    return "resolved" if record["resolved"] else "unresolved"


def not_comparable(records: list[Record]) -> str:
    """A sentence on tasks whose agents were told of the grading tests, and no word where there are none."""
    found = sum(not (record.get("agent") or {}).get("comparable", True) for record in records)
    return f"not comparable with other runs: FEEDBACK=hidden told the agent of the grading tests, in {found} of {len(records)} tasks" if found else ""


def official(records: list[Record], total: int) -> Record:
    """The run report of swebench 5 (reporting.make_run_report, schema_version 2)."""
    ids: dict[str, list[str]] = defaultdict(list)
    reasons = {}
    for record in records:
        ended = kind(record)
        ids[ended].append(record["instance_id"])
        if ended == "errors":
            reasons[record["instance_id"]] = record.get("tests", {}).get("status", "not_graded")
    done = ids["resolved"] + ids["unresolved"]
    submitted = done + ids["empty patch"] + ids["errors"]
    lists = {"completed": done, "incomplete": ids["not done"], "empty_patch": ids["empty patch"], "submitted": submitted, "resolved": ids["resolved"],
             "unresolved": ids["unresolved"], "infra_failure": [], "ambiguous_failure": [], "error": ids["errors"]}
    counted = ("submitted", "completed", "resolved", "unresolved", "infra_failure", "ambiguous_failure", "empty_patch", "error")
    return {
        "total_instances": total,
        **{f"{name}_instances": len(lists[name]) for name in counted},
        **{f"{name}_ids": sorted(found) for name, found in lists.items()},
        "failure_reasons": reasons,
        "schema_version": 2,
        **({"note": note} if (note := not_comparable(records)) else {}),
    }


def write(run: str, records: list[Record], total: int, reference: Mapping[str, str]) -> Path:
    """Write predictions.jsonl, report.json and results.csv of a run; returns their folder.

    `reference` is what the ledger says of instances: resolved, unresolved or flaky with the reference fix.
    """
    folder = paths.results(run)
    keys = ("instance_id", "model_name_or_path", "model_patch")
    submitted = [record for record in records if "model_patch" in record]
    lines = [orjson.dumps({key: record[key] for key in keys}, option=orjson.OPT_APPEND_NEWLINE) for record in submitted]
    write_file(folder / "predictions.jsonl", b"".join(lines))
    report = orjson.dumps(official(records, total), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_file(folder / "report.json", report)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_csv_row(record, reference.get(record["instance_id"])) for record in records)
    write_file(folder / "results.csv", text.getvalue().encode())
    return folder


def _csv_row(record: Record, reference: str | None) -> Record:
    agent, tests = record.get("agent") or {}, record.get("tests") or {}
    return {
        "instance_id": record["instance_id"],
        "repo": record.get("repo"),
        "version": record.get("version"),
        "resolved": record.get("resolved"),
        "status": tests.get("status", "not_done"),
        "agent_status": agent.get("status"),
        "agent_seconds": agent.get("seconds"),
        "test_seconds": tests.get("seconds"),
        "cost_usd": agent.get("cost_usd"),
        "patch_bytes": len((record.get("model_patch") or "").encode()) if "model_patch" in record else None,
        "reference_resolves": REFERENCE.get(reference or ""),
        "comparable": agent.get("comparable", True),
    }


def beyond_reach(records: list[Record], reference: Mapping[str, str]) -> str:
    """A sentence on the unresolved tasks that the reference fix does not resolve either, and no word where there are none."""
    found = [record["instance_id"] for record in records if kind(record) == "unresolved" and reference.get(record["instance_id"]) == "unresolved"]
    return f"{len(found)} of the unresolved cannot be resolved here with the reference fix either (ledger): {' '.join(found)}" if found else ""


def table(records: list[Record]) -> list[list[str]]:
    """Rows of TABLE by repository, the sum last; times in seconds."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.get("repo") or record["instance_id"].rpartition("-")[0].replace("__", "/")].append(record)
    rows = [_table_row(repo, found) for repo, found in sorted(groups.items())]
    return [*rows, _table_row("all", records)]


def _table_row(name: str, records: list[Record]) -> list[str]:
    kinds = [kind(record) for record in records]
    agent = sum((record.get("agent") or {}).get("seconds") or 0 for record in records)
    tests = sum((record.get("tests") or {}).get("seconds") or 0 for record in records)
    return [name, str(len(records)), *(str(kinds.count(one)) for one in TABLE[2:7]), f"{agent:.0f}", f"{tests:.0f}"]
