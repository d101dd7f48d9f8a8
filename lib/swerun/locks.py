"""Locks: every package of an environment pinned. One small file each: shipped in locks/, or kept with the run that resolved it."""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from swerun import paths, spec as specs
from swerun.errors import Fatal
from swerun.spec import Spec
from swerun.state import write_file

HEAD = """\
# {repo} {version}: every package of its environment. Written by 'bin/setup-venv --relock'; 'validated' is written by
# 'make validate', when a reference fix has resolved in this very environment.
"""
PIN = re.compile(r"[A-Za-z0-9][\w.-]*(==[\w.!+-]+| @ \S+)")


class Lock(NamedTuple):
    python: str           # minor version of the interpreter: 3.9
    packages: list[str]   # name==version: what tasks see
    build: list[str]      # name==version: what builds see besides, in place of pip's build isolation
    exclude_newer: str    # no later upload counts where a package that has no wheel is built, with tools of its own choice

    def key(self) -> str:
        """Names an environment by what is in it."""
        return hashlib.sha256(orjson.dumps([self.python, self.packages, self.build])).hexdigest()[:16]


def shipped_file(repo: str, version: str) -> Path:
    return paths.LOCKS / f"{paths.slug(repo)}-{version}.toml"


def is_from_row(row: dict[str, Any]) -> bool:
    """Whether no lock of a (repository, version) speaks for a row: it, its repository or a user's own table describes its environment."""
    return not specs.is_shipped(row)


def shipped_files(repo: str, version: str) -> list[Path]:
    """The files that the toolkit has: the version's own, then those for commits of it that ask for something else."""
    more = paths.LOCKS.glob(f"{paths.slug(repo)}-{version}~*.toml")
    return [file for file in (shipped_file(repo, version), *sorted(more)) if file.is_file()]


def shipped(row: dict[str, Any], spec: Spec) -> dict[Path, Lock]:
    """The toolkit's locks for a row's repository and version that were made from this spec, by file, the likeliest first."""
    files = [] if is_from_row(row) else shipped_files(row["repo"], row["version"])
    return {file: lock for file in files if (lock := read(file, spec))}


def file_to_renew(row: dict[str, Any], spec: Spec, env_key: str | None) -> Path:
    """The shipped file that a new resolution for a row belongs in; `env_key` is what its commit is installed in now."""
    files = shipped_files(row["repo"], row["version"])
    current = {from_facts(facts).key(): file for file in files if (facts := read_if_sound(file)) and facts["spec"] == spec.digest()}
    stale = [file for file in files if file not in current.values()]
    if env_key in current:
        return current[env_key]
    if not files or stale:
        return stale[0] if stale else shipped_file(row["repo"], row["version"])
    return paths.LOCKS / f"{paths.slug(row['repo'])}-{row['version']}~{len(files) + 1}.toml"


def read(file: Path, spec: Spec) -> Lock | None:
    """The lock in a file; None where there is none, or one of another spec. Raises Fatal where it is not a lock."""
    facts = read_facts(file)
    if not facts or facts["spec"] != spec.digest():
        return None
    return from_facts(facts)


def read_if_sound(file: Path) -> dict[str, Any] | None:
    try:
        return read_facts(file)
    except Fatal:
        return None


def from_facts(facts: dict[str, Any]) -> Lock:
    return Lock(facts["python"], facts["packages"], facts["build"], facts["exclude_newer"])


def read_facts(file: Path) -> dict[str, Any] | None:
    """All that a lock's file says: repo version spec python base_commit exclude_newer validated packages build."""
    try:
        facts = tomllib.loads(file.read_text())
        wrong = [pin for name in ("packages", "build") for pin in facts[name] if not PIN.fullmatch(pin)]
        if wrong or not re.fullmatch(r"\d+\.\d+", facts["python"]) or not isinstance(facts["spec"] + facts["exclude_newer"], str):
            raise ValueError(f"'{wrong[0]}' is no pin" if wrong else "its 'python' is no minor version")
        return facts
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise Fatal(f"'{file}' is not a lock: {error} (delete it, or renew it with 'bin/setup-venv --relock')") from None


def write(file: Path, lock: Lock, row: dict[str, Any], spec: Spec, validated: bool = False) -> None:
    facts = {"repo": row["repo"], "version": row.get("version") or "", "spec": spec.digest(), "python": lock.python,
             "base_commit": row["base_commit"], "exclude_newer": lock.exclude_newer, "validated": validated}
    lines = [f"{name} = {orjson.dumps(value).decode()}" for name, value in facts.items()]
    for name, pins in (("packages", lock.packages), ("build", lock.build)):
        lines += [f"{name} = [", *(f'    "{pin}",' for pin in pins), "]"] if pins else [f"{name} = []"]
    write_file(file, (HEAD.format(**facts) + "\n".join(lines) + "\n").encode())


def mark_validated(file: Path, validated: bool) -> None:
    """Set what a lock's file says of its validation; the rest of it stays as it is."""
    text = file.read_text()
    write_file(file, text.replace(f"validated = {str(not validated).lower()}\n", f"validated = {str(validated).lower()}\n").encode())
