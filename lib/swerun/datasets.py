"""Datasets: rows from wherever they come, checked, normalised and kept under cache/datasets with their gold in them."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Callable, NamedTuple

import orjson

from swerun import dates, languages, paths
from swerun.errors import Fatal, Usage
from swerun.state import read_json, write_file, write_json

Row = dict[str, Any]

HUGGING_FACE = {
    "lite": "SWE-bench/SWE-bench_Lite",
    "verified": "SWE-bench/SWE-bench_Verified",
    "full": "SWE-bench/SWE-bench",
    "multimodal": "SWE-bench/SWE-bench_Multimodal",
}
FILES = (".jsonl", ".json", ".parquet")
NEEDED = ("instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement", "FAIL_TO_PASS", "PASS_TO_PASS")
PUBLIC = ("instance_id", "repo", "base_commit", "version", "problem_statement", "created_at")
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
REPO = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*")


class Dataset(NamedTuple):
    rows: dict[str, bytes]  # instance_id: the normalised row as one JSON line
    refused: list[str]      # one sentence for each row that cannot be used


def canonical(dataset: str) -> str:
    """The name that a record carries: a file's absolute path, so that it means the same from every folder."""
    return os.path.abspath(dataset) if dataset.endswith(FILES) else dataset


def label(dataset: str) -> str:
    """What a run of this dataset is called by default."""
    name = Path(dataset).stem if dataset.endswith(FILES) else dataset.replace("/", "__")
    return re.sub(r"[^A-Za-z0-9._+-]", "-", name)


def _stored(dataset: str, split: str) -> Path:
    name = label(dataset) + ("" if split == "test" else f"-{split}")
    if dataset.endswith(FILES):
        name += "-" + hashlib.sha256(canonical(dataset).encode()).hexdigest()[:8]
    return paths.cache("datasets", f"{name}.jsonl")


def load(dataset: str, split: str = "test", say: Callable[[str], None] = lambda text: None) -> Dataset:
    """All rows of a dataset, in its order. A file is read again each time, one from Hugging Face once."""
    stored = _stored(dataset, split)
    index = read_json(stored.with_suffix(".index"))
    local = dataset == "sample" or dataset.endswith(FILES)
    if local or index is None or not stored.is_file():
        return _store(stored, _read(dataset, split, say))
    data = stored.read_bytes()
    return Dataset({i: data[start:start + length] for i, (start, length) in index["rows"].items()}, index["refused"])


def row(dataset: str, split: str, instance_id: str) -> Row:
    """One row with everything in it. Raises Fatal where the dataset has none of that name."""
    stored = _stored(dataset, split)
    index = read_json(stored.with_suffix(".index"))
    if index is None or instance_id not in index["rows"] or not stored.is_file():
        load(dataset, split)
        index = read_json(stored.with_suffix(".index"))
    if instance_id not in index["rows"]:
        raise Fatal(f"no instance '{instance_id}' in dataset '{dataset}' (run 'bin/tasks --dataset {dataset}' to see them)")
    start, length = index["rows"][instance_id]
    with open(stored, "rb") as file:
        file.seek(start)
        return orjson.loads(file.read(length))


def public(row: Row) -> Row:
    """The part of a row that may leave the cache: never the fix, the test patch or the names of tests."""
    return {key: row.get(key, "") for key in PUBLIC}


def _store(stored: Path, raw: list[Any]) -> Dataset:
    rows: dict[str, bytes] = {}
    refused: list[str] = []
    foreign: dict[str, list[str]] = {}  # by language
    for number, raw_row in enumerate(raw, 1):
        try:
            made = normalise(raw_row)
            if made["instance_id"] in rows:
                raise Fatal("a second row of that name")
            rows[made["instance_id"]] = orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE)
        except languages.Foreign as error:
            foreign.setdefault(error.language, []).append(raw_row["instance_id"])
        except Fatal as error:
            name = raw_row.get("instance_id") if isinstance(raw_row, dict) else None
            refused.append(f"row {number} ({name!r}) refused: {error}")
    for language, names in foreign.items():
        what = f"row {names[0]!r} refused: it is" if len(names) == 1 else f"{len(names)} rows refused, {names[0]!r} for one: they are"
        refused.append(f"{what} {language}, and this toolkit runs Python projects")
    places, offset = {}, 0
    for instance_id, line in rows.items():
        places[instance_id] = [offset, len(line)]
        offset += len(line)
    data = b"".join(rows.values())
    index = {"rows": places, "refused": refused}
    if not stored.is_file() or stored.read_bytes() != data or read_json(stored.with_suffix(".index")) != index:
        write_file(stored, data)
        write_json(stored.with_suffix(".index"), index)
    return Dataset(rows, refused)


def normalise(raw: Any) -> Row:
    """A row with lists for the test names and strings for the rest. Raises Fatal with what is wrong with it."""
    if not isinstance(raw, dict):
        raise Fatal("not an object")
    missing = [key for key in NEEDED if raw.get(key) is None]
    if missing:
        raise Fatal(f"no field {', '.join(missing)}")
    made = {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in raw.items()}
    made["version"] = str(made.get("version") or "")
    made["created_at"] = dates.text(made.get("created_at"))
    if not isinstance(made["instance_id"], str) or not paths.safe_name(made["instance_id"]):
        raise Fatal("instance_id is not made of letters, digits and . _ + -")
    if not isinstance(made["repo"], str) or not REPO.fullmatch(made["repo"]):
        raise Fatal(f"repo {made['repo']!r} is not 'owner/name'")
    if not isinstance(made["base_commit"], str) or not COMMIT.fullmatch(made["base_commit"]):
        raise Fatal(f"base_commit {made['base_commit']!r} is not a full commit id")
    for key in ("patch", "test_patch", "problem_statement"):
        if not isinstance(made[key], str):
            raise Fatal(f"{key} is not text")
    for key in ("FAIL_TO_PASS", "PASS_TO_PASS", "install_config"):
        if isinstance(made.get(key), str):
            try:
                made[key] = orjson.loads(made[key])
            except orjson.JSONDecodeError:
                raise Fatal(f"{key} is not JSON") from None
        if key != "install_config" and not (isinstance(made[key], list) and all(isinstance(name, str) for name in made[key])):
            raise Fatal(f"{key} is not a list of test names")
    for key in ("eval_script", "log_parser", "eval_type"):
        if made.get(key) is not None and not isinstance(made[key], str):
            raise Fatal(f"{key} is not text")
    languages.check(made)
    return made


def _read(dataset: str, split: str, say: Callable[[str], None]) -> list[Any]:
    path = paths.SAMPLE / "sample.jsonl" if dataset == "sample" else Path(dataset)
    if dataset != "sample" and not dataset.endswith(FILES):
        return _from_hugging_face(dataset, split, say)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            return [_line(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
        rows = orjson.loads(data)
    except (OSError, ValueError) as error:
        raise Usage(f"cannot read dataset '{dataset}': {getattr(error, 'strerror', None) or error}") from None
    if isinstance(rows, dict):
        rows = list(rows.values())
    if not isinstance(rows, list):
        raise Usage(f"cannot read dataset '{dataset}': it is neither a list nor an object of rows")
    return rows


def _line(number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"line {number}: {error}"  # refused by name like any other bad row


def _from_hugging_face(dataset: str, split: str, say: Callable[[str], None]) -> list[Any]:
    name = HUGGING_FACE.get(dataset, dataset)
    if "/" not in name:
        known = ", ".join(("sample", *HUGGING_FACE))
        raise Usage(f"no dataset '{dataset}' (use {known}, a Hugging Face id 'owner/name', or a .jsonl, .json or .parquet file)")
    say(f"fetching dataset '{name}' from Hugging Face")
    import logging

    import datasets as hugging_face

    for noisy in ("datasets", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # its retries are 12 lines where one will do
    hugging_face.disable_progress_bars()
    try:
        return [dict(one) for one in hugging_face.load_dataset(name, split=split)]
    except (OSError, ValueError, RuntimeError, hugging_face.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Fatal(f"cannot fetch dataset '{name}' ({split}) from Hugging Face: {reason[:200]} (give a local file as DATASET)") from None
