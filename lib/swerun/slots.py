"""CPU slots: how many test suites, builds and resolutions go on at once on this host, however many tasks are in flight."""

import contextlib
import fcntl
import os
import time
from typing import Callable, Iterator

from swerun import options, paths

TELL_AFTER = 5.0   # seconds of waiting
POLL = 0.1         # seconds


def count() -> int:
    """TEST_JOBS, else the cores that this process may use."""
    chosen = options.resolve(("TEST_JOBS",), {})["TEST_JOBS"].value
    return int(options.number("TEST_JOBS", chosen)) or 1 if chosen else len(os.sched_getaffinity(0))


@contextlib.contextmanager
def slot(say: Callable[[str], None] = lambda text: None) -> Iterator[float]:
    """Hold one of the host's slots; gives the seconds that were waited for it.

    A slot is a flock, so that one whose holder is killed is free again. Whoever holds one waits for no other lock:
    what is locked is locked before.
    """
    # named by the host, for a shared file system would make one machine of many
    folder = paths.make_dir(paths.cache("slots", os.uname().nodename))
    start, told = time.monotonic(), False
    with contextlib.ExitStack() as files:
        held = [files.enter_context(open(folder / str(number), "ab")) for number in range(count())]
        while not any(_take(file) for file in held):
            waited = time.monotonic() - start
            if waited > TELL_AFTER and not told:
                told = True
                say(f"waiting for one of {len(held)} CPU slots (TEST_JOBS)")
            time.sleep(POLL)
        yield time.monotonic() - start


def _take(file: object) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
