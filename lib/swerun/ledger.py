"""The ledger: which instances the reference fix resolves where. `make validate` writes it, reports read it, grading never looks at it."""

import os
import platform
import time
from pathlib import Path
from typing import Any, Iterable, NamedTuple

import orjson

from swerun import locks, paths, spec as specs, verdicts
from swerun.errors import Fatal
from swerun.state import locked, read_json, write_file

NAMED = 20  # names of tests in an entry: enough to know what it is about, and its line stays one that can be read
Entry = dict[str, Any]
Row = dict[str, Any]


class Outcome(NamedTuple):
    """How one run of an instance ended."""

    resolved: bool
    status: str           # as in tests.json
    failing: list[str]
    dice: list[str]       # tests that differed between the runs that its spec asks for
    env_key: str | None
    day: str              # YYYY-MM-DD, UTC
    log: Path


def folder(chosen: str) -> Path:
    """The folder of LEDGER, else that of the toolkit."""
    return Path(os.path.abspath(chosen)) if chosen else paths.LEDGER


def this_platform() -> str:
    """What a verdict depends on beside the lock: linux-x86_64-glibc2.36."""
    return "-".join(filter(None, (platform.system().lower(), platform.machine(), "".join(platform.libc_ver()))))


def outcome(row: Row, run: str) -> Outcome | None:
    """What a run says of an instance, from its files; None where it has no result."""
    task = paths.task_dir(run, row["instance_id"])
    made = read_json(task / "tests.json")
    if made is None:
        return None
    status, log = made["tests"]["status"], task / "test_output.txt"
    failing = verdicts.failing(row, specs.of(row), made["model_patch"], log) if status == "ran" and not made["resolved"] else []
    day = time.strftime("%Y-%m-%d", time.gmtime((task / "tests.json").stat().st_mtime))
    return Outcome(made["resolved"], status, failing, made["tests"]["flaky"] or [], made.get("env_key"), day, log if log.is_file() else task / "setup.log")


def entry(row: Row, gold: list[Outcome], null: list[Outcome], kept: Path) -> Entry:
    """The entry of an instance from as many runs of its fix and of an empty patch; `kept` is where a run keeps a lock of its own."""
    spec, names = specs.of(row), [set(one.failing) for one in gold]
    alike = all((one.resolved, one.status, mine) == (gold[0].resolved, gold[0].status, names[0]) for one, mine in zip(gold, names))
    differ = set.union(*names) - (set() if alike else set.intersection(*names))
    failing = list(dict.fromkeys(name for one in gold for name in one.failing if name in differ))
    found = [lock for lock in (locks.read(kept, spec), *locks.shipped(row, spec).values()) if lock]
    # a run that timed out does not say it
    env_key = next((one.env_key for one in [*gold, *null] if one.env_key), found[0].key() if found else None)
    python = next((lock.python for lock in found if lock.key() == env_key), spec.python)
    made = {
        "instance_id": row["instance_id"],
        "gold": ("resolved" if gold[0].resolved else "unresolved") if alike else "flaky",
        "runs": len(gold),
        "failing": failing[:NAMED],
        "null": "resolved" if any(one.resolved for one in null) else "unresolved",
        "date": max(one.day for one in gold),
        "lock": env_key,
        "python": python,
        "platform": this_platform(),
    }
    dice = sorted({name for one in gold for name in one.dice})
    odd = sorted({one.status for one in gold} - {"ran"})
    return made | ({"more_failing": len(failing) - NAMED} if failing[NAMED:] else {}) | ({"status": " ".join(odd)} if odd else {}) | ({"dice": dice} if dice else {})


def read(at: Path, repo: str) -> dict[str, Entry]:
    """The entries of a repository by instance id. Raises Fatal with the line that is not one."""
    file, found = at / f"{paths.slug(repo)}.jsonl", {}
    try:
        lines = file.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Fatal(f"cannot read '{file}': {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            made = orjson.loads(line)
            found[made["instance_id"]] = made
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise Fatal(f"line {number} of '{file}' is not an entry of a ledger (mend it, or delete it and validate again)") from None
    return found


def keep(at: Path, repo: str, entries: Iterable[Entry]) -> dict[str, Entry]:
    """Write a repository's entries over those of the same instances; returns all it has now. A `cause` holds as long as the verdict does."""
    with locked(paths.cache("ledger.lock")):  # not beside the ledger, which is under version control
        known = read(at, repo)
        for one in entries:
            old = known.get(one["instance_id"], {})
            same = all(old.get(key) == one[key] for key in ("gold", "null"))
            known[one["instance_id"]] = one | ({"cause": old["cause"]} if same and "cause" in old else {})
        lines = b"".join(orjson.dumps(known[name], option=orjson.OPT_APPEND_NEWLINE) for name in sorted(known))
        file = at / f"{paths.slug(repo)}.jsonl"
        if lines and not (file.is_file() and file.read_bytes() == lines):
            write_file(file, lines)
    return known


def mark_lock(repo: str, version: str, known: dict[str, Entry]) -> None:
    """Write into a shipped lock whether a reference fix has resolved in its environment, as the entries of its repository say."""
    for file in locks.shipped_files(repo, version):
        facts = locks.read_facts(file)
        key = locks.from_facts(facts).key()
        said = {one["gold"] for one in known.values() if one["lock"] == key}
        for validated, proof in ((True, "resolved" in said), (False, said == {"unresolved"})):
            if proof and facts.get("validated") is not validated:
                locks.mark_validated(file, validated)


def reference(at: Path, records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """{instance_id: resolved, unresolved or flaky}: what the reference fix gave on a platform like this one."""
    repos = {record["repo"] for record in records if record.get("repo")}
    known = [one for repo in sorted(repos) for one in read(at, repo).values()]
    return {one["instance_id"]: one.get("gold", "") for one in known if one.get("platform") == this_platform()}
