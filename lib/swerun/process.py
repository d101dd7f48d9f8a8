"""Commands of ours, and other people's programs that must end: agents, builds and tests."""

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Callable, Mapping, NamedTuple

from swerun.errors import CommandFailed, Fatal
from swerun.options import NAMES

MARK = "AGENT_RUN_MARK"
OURS = frozenset(NAMES) | {"ARTIFACTS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MAKEFILES", "MAKE_TERMOUT", "MAKE_TERMERR", "PLAN"}
# what would make a task's Python or pip behave as the caller's shell does, not as its spec says
DISTURBING = re.compile(r"GIT_|PYTHON|PIP_|VIRTUAL_ENV|CONDA_|PYTEST_|TOX_|_OLD_VIRTUAL|PARALLEL|DJANGO_SETTINGS_MODULE")
LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None) if LINUX else None
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
Tick = Callable[[float], None]  # told the seconds since the start, so that a person sees that something long goes on
TICK = 30.0  # seconds


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without make's variables, ours, and those that redirect git, Python or pip."""
    env = {k: v for k, v in os.environ.items() if k not in OURS and not DISTURBING.match(k)}
    return env | dict(extra or {})


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """In the child: a command whose caller was killed must not go on writing where the next one starts afresh."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, number)


def run(*argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, input: bytes | None = None,
        check: bool = True, tick: Tick | None = None) -> subprocess.CompletedProcess:
    """Run a command of ours to its end, output captured as text. Raises CommandFailed (check), or Fatal for no such program."""
    words = tuple(str(word) for word in argv)
    if os.environ.get("V") == "1":
        print(f"+ {shlex.join(words)}", file=sys.stderr)
    start = time.monotonic()
    try:
        child = subprocess.Popen(words, cwd=cwd, env=clean_env() if env is None else env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, preexec_fn=die_with_parent)
    except FileNotFoundError as error:
        raise Fatal(f"no '{error.filename}' (run './bootstrap.sh', which says how to get it)") from None
    with child:
        while True:
            try:
                out, err = child.communicate(input, timeout=TICK)
                break
            except subprocess.TimeoutExpired:
                input = None  # communicate keeps what it has not sent yet, and refuses to be given more
                tick and tick(time.monotonic() - start)
            except BaseException:
                child.kill()
                raise
    stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (out, err))
    if check and child.returncode:
        raise CommandFailed(words, child.returncode, stdout, stderr)
    return subprocess.CompletedProcess(words, child.returncode, stdout, stderr)


def task_env(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of builds and tests: as bare as in the official images, so that a shell's settings change no verdict."""
    kept = {name: os.environ[name] for name in ("PATH", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "CC", "CXX") if name in os.environ}
    return kept | {"HOME": str(home), "SHELL": "/bin/bash", "LANG": "C.UTF-8", "TZ": "Etc/UTC", **extra}


class Ended(NamedTuple):
    returncode: int
    timed_out: bool
    seconds: float


def run_limited(argv: list[str], *, cwd: Path, env: Mapping[str, str], timeout: float, stdin: IO | int, stdout: IO, stderr: IO | int,
                tick: Tick | None = None, grace: float = 5.0) -> Ended:
    """Run somebody's program in a session of its own; at the limit, and at its end, its whole tree is gone.

    Output goes to files: a daemon that keeps a pipe open would block a reader for ever.
    """
    if LIBC:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    start, timed_out = time.monotonic(), False
    try:
        child = subprocess.Popen(argv, cwd=cwd, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True,
                                 preexec_fn=die_with_parent)
    except OSError as error:
        raise Fatal(f"cannot start '{argv[0]}': {error.strerror} (is it for this machine, and does its first line name what runs it?)") from None
    try:
        while child.poll() is None and not timed_out:
            left = timeout - (time.monotonic() - start)
            try:
                child.wait(max(0.0, min(left, TICK)))
            except subprocess.TimeoutExpired:
                timed_out = left <= TICK
                if not timed_out and tick:
                    tick(time.monotonic() - start)
        if timed_out:
            _signal_group(child.pid, signal.SIGTERM)
            try:
                child.wait(grace)
            except subprocess.TimeoutExpired:
                pass
    finally:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()
        _kill_descendants()
        if env.get(MARK):
            kill_marked(env[MARK])
    return Ended(child.returncode, timed_out, time.monotonic() - start)


def telling(say: Callable[[str], None], what: str) -> Tick:
    """A tick that says what still goes on, every minute."""
    return lambda seconds: say(f"still {what} ({seconds / 60:.0f} min)") if seconds % 60 < TICK else None


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _kill_descendants() -> None:
    """Kill what the child left: being the subreaper, this process inherited every orphan of its tree."""
    for _ in range(100 if LINUX else 0):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for pid in map(int, children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass


def kill_marked(mark: str) -> int:
    """Kill every process whose environment carries our mark (what a killed run left behind); returns how many."""
    needle, killed = f"{MARK}={mark}".encode(), 0
    for proc in Path("/proc").glob("[0-9]*") if LINUX else ():
        try:
            if int(proc.name) != os.getpid() and needle in (proc / "environ").read_bytes().split(b"\0"):
                os.kill(int(proc.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    return killed
