"""What builds and tests use of the machine besides a compiler: headers, libraries, programs. Facts of the specs, asked of the machine.

A spec's `system` is a list of tables: `name`; one of `program` (on PATH), `header` (the C compiler finds it), `pkg_config` (a module)
or `probe` (a shell command that succeeds); `packages` for apt, dnf, brew and conda (`-` for none, `+` between several); `tests`, a
pattern of the test ids that need it (none: the build does); `reason`.
"""

import functools
import re
import shutil
from typing import Any

from swerun.process import clean_env, run

Fact = dict[str, str]
KINDS = ("program", "header", "pkg_config", "probe")


def concerned(fact: Fact, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that cannot be graded rightly without it: those whose expected tests need it, or all where the build does."""
    if not fact.get("tests"):
        return rows
    wanted = re.compile(fact["tests"])
    return [row for row in rows if any(wanted.search(name) for name in (*row["FAIL_TO_PASS"], *row["PASS_TO_PASS"]))]


def found(fact: Fact) -> str:
    """Where it is, or the word `there`; an empty text where it is not."""
    kind = next(kind for kind in KINDS if kind in fact)
    return _found(kind, fact[kind])


@functools.cache
def _found(kind: str, what: str) -> str:
    if kind == "program":
        return shutil.which(what) or ""
    if kind == "pkg_config":
        return "there" if shutil.which("pkg-config") and _succeeds("pkg-config", "--exists", what) else ""
    if kind == "header":
        return "there" if shutil.which("cc") and _succeeds("cc", "-E", "-x", "c", "-", text=f"#include <{what}>\n") else ""
    return "there" if _succeeds("bash", "-c", what) else ""


def _succeeds(*words: str, text: str = "") -> bool:
    return run(*words, input=text.encode(), env=clean_env(), check=False).returncode == 0
