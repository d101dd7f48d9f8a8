"""The naive way to set a task up, to compare with: clone from a git server, check out, `python -m venv`, `pip install -e .`."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from swerun import interpreters, paths, spec as specs
from swerun.errors import CommandFailed
from swerun.git import environment
from swerun.measures import spent
from swerun.process import clean_env, die_with_parent
from swerun.state import remove_tree

LIMIT = 1800.0  # seconds a step may take


class Naive(NamedTuple):
    seconds: dict[str, float]  # of the steps that worked: checkout, environment, patches
    cpu: float
    failed: dict[str, Any] | None


@contextlib.contextmanager
def server(mirrors: list[Path]) -> Iterator[str]:
    """Serve mirrors on the loopback; gives the URL of the folder they are in. Where git has no daemon, a file:// URL."""
    folder, port = mirrors[0].parent, _free_port()
    words = ("git", "daemon", "--export-all", f"--base-path={folder}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr")
    child = subprocess.Popen(words, env=environment(*mirrors), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True, preexec_fn=lambda: die_with_parent(signal.SIGTERM))  # which git passes on to the daemon
    try:
        yield f"git://127.0.0.1:{port}" if _answers(child, port) else f"file://{folder}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # `git` and the `git-daemon` that it starts
        child.wait()


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def _answers(child: subprocess.Popen, port: int) -> bool:
    for _ in range(200):
        if child.poll() is not None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


class Way:
    """The naive set-ups of some of the tasks, so many times each; what fails is counted apart."""

    def __init__(self, url: str, rows: list[dict[str, Any]], repeats: int, root: Path, say: Callable[..., None]):
        self.url, self.left, self.root, self.say = url, {row["instance_id"]: repeats for row in rows}, root, say
        self.warm: set[str] = set()  # repositories of which pip's cache has what it needs
        self.failed: list[dict[str, Any]] = []

    def once(self, row: dict[str, Any]) -> Naive | None:
        """One measured set-up; None for a task that is not to be measured, or not any more."""
        task = row["instance_id"]
        if not self.left.get(task):
            return None
        python = interpreters.find(specs.of(row).python)
        if row["repo"] not in self.warm:
            self.say(task, "the naive way, to warm pip's cache")
            self.warm.add(row["repo"])
            set_up(self.url, row, python, self.root / "naive", self.root / "pip")
        self.say(task, "the naive way")
        made = set_up(self.url, row, python, self.root / "naive", self.root / "pip")
        self.left[task] = 0 if made.failed else self.left[task] - 1
        if made.failed:
            self.say(task, f"the naive way fails after {made.failed['seconds']:.1f} s ({made.failed['step']}): {made.failed['why']}")
            self.failed.append(made.failed)
        return made


def set_up(url: str, row: dict[str, Any], python: str, place: Path, cache: Path) -> Naive:
    """Set a task up at `place`, which is left there. `cache` is pip's."""
    remove_tree(place)
    checkout, venv = paths.make_dir(place) / "testbed", place / "venv"
    env = clean_env({"PIP_CACHE_DIR": str(cache), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "GIT_TERMINAL_PROMPT": "0"})
    patches = "".join(text if text.endswith("\n") or not text else text + "\n" for text in (row["patch"], row["test_patch"]))
    steps: list[tuple[str, tuple[Any, ...], Path, bytes | None]] = [
        ("checkout", ("git", "clone", "--quiet", f"{url}/{paths.slug(row['repo'])}.git", checkout), place, None),
        ("checkout", ("git", "checkout", "--quiet", row["base_commit"]), checkout, None),
        ("environment", (python, "-m", "venv", venv), place, None),
        ("environment", (venv / "bin" / "python", "-m", "pip", "install", "--quiet", "-e", "."), checkout, None),
        ("patches", ("git", "apply", "-"), checkout, patches.encode()),
    ]
    seconds = {} if patches else {"patches": 0.0}
    cpu = 0.0
    for step, words, folder, data in steps if patches else steps[:-1]:
        start = time.monotonic()
        try:
            used = spent(*words, env=env, cwd=folder, input=data, timeout=LIMIT)
        except CommandFailed as error:
            took = seconds.pop(step, 0.0) + time.monotonic() - start
            why = next((line for line in reversed(error.stderr.splitlines()) if "rror" in line), str(error))
            return Naive(seconds, cpu, {"instance_id": row["instance_id"], "step": step, "seconds": round(took, 3), "why": why.strip()[:200]})
        seconds[step] = seconds.get(step, 0.0) + used.seconds
        cpu += used.cpu
    return Naive(seconds, cpu, None)
