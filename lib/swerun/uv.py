"""uv, which resolves and installs: with the toolkit's cache, told in a log, its reason in one line when it fails."""

import os
import re
import subprocess
from pathlib import Path

from swerun import paths
from swerun.errors import CommandFailed, Fatal
from swerun.process import clean_env, run

TELLING = re.compile(r"[×╰▶├]|error:|Error")  # where the reason begins, after warnings

LATER = {
    # a limit is the date of what a project sees, not of the tool that installs it: pips of before 2022 know no PEP 660
    "pip": "2024-12-01T00:00:00Z",
    # its author deleted all of it and uploaded it again on 8 July 2022: without it, pytest is 3.5, the last one that did not need it
    "atomicwrites": "2022-07-10T00:00:00Z",
}


def uv(*words: str | Path, limit: str = "", env: dict[str, str] | None = None, log: Path | None = None) -> subprocess.CompletedProcess:
    """Run uv; `limit` is the date after which no upload counts. Raises Fatal with the lines in which it gives its reason."""
    cache = {} if os.environ.get("UV_CACHE_DIR") else {"UV_CACHE_DIR": str(paths.cache("uv"))}
    newer = ("--exclude-newer", limit, *(word for name, date in LATER.items() for word in ("--exclude-newer-package", f"{name}={max(limit, date)}"))) if limit else ()
    try:
        done = run(paths.UV, *words, *newer, env=clean_env({"TZ": "UTC", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", **cache, **(env or {})}))
    except CommandFailed as error:
        _tell(log, words, error.stderr)
        lines = [line.strip(" ×╰─▶│├^") for line in error.stderr.splitlines()]
        first = next((number for number, line in enumerate(error.stderr.splitlines()) if TELLING.search(line)), 0)
        telling = " ".join(filter(None, lines[first:]))
        where = f" (the log is {log})" if log else ""
        raise Fatal(f"'uv {' '.join(map(str, words[:2]))}' failed: {telling[:600] or error}{where}") from None
    _tell(log, words, done.stderr)
    return done


def _tell(log: Path | None, words: tuple[str | Path, ...], text: str) -> None:
    if log:
        with open(log, "a") as file:
            file.write(f"+ uv {' '.join(map(str, words))}\n{text}")
