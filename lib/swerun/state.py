"""State on disk: whole files or none, and locks that a dead process cannot leave behind."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import orjson

from swerun.errors import Fatal
from swerun.paths import make_dir


def write_file(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename: nothing half-written ever has the final name."""
    make_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        hint = "free some space" if error.errno == errno.ENOSPC else "check its owner and mode"
        raise Fatal(f"cannot write '{path}': {error.strerror} ({hint}, then run again)") from None


def write_json(path: Path, value: Any) -> None:
    write_file(path, orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> Any | None:
    """The value, or None where there is no such file or it is not whole JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None


def require_space(path: Path, needed: int = 200 * 2**20) -> None:
    """Raise Fatal before a full disk does damage. `needed` in bytes."""
    at = os.statvfs(path)
    if at.f_bavail * at.f_frsize < needed:
        raise Fatal(f"less than {needed >> 20} MiB free at '{path}' (free some space, then run again: nothing was lost)")


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive flock on `path`; `waiting` is called once when somebody else has it for over 2 s."""
    make_dir(path.parent)
    with open(path, "ab") as file:
        told, start = False, time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if told or waiting is None else fcntl.LOCK_NB))
                break
            except BlockingIOError:
                if time.monotonic() - start > 2:
                    told = True
                    waiting and waiting()
                else:
                    time.sleep(0.05)
        yield


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock now."""
    try:
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def remove_tree(path: Path) -> None:
    """Remove a file or a folder for good, read-only folders in it and all; one that is not there is fine."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    for attempt in range(3):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        except OSError as error:
            # a read-only folder, or a process that is just ending still wrote into it
            if attempt == 2:
                raise Fatal(f"cannot remove '{path}': {error.strerror}") from None
            for folder, _, _ in os.walk(path):
                with contextlib.suppress(OSError):
                    os.chmod(folder, 0o700)
        else:
            return
