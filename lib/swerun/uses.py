"""Who uses what of the cache, so that nothing is freed under a running task: a shared flock while a process works with a folder, and the worktrees that are left."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO, Iterator

from swerun import paths
from swerun.state import make_dir, remove_tree

_held: dict[str, tuple[Path, IO[bytes]]] = {}  # {kind of folder: what this process works with}


def _mark(folder: Path) -> Path:
    """Beside the folder, for it outlives it; its time is that of the last use."""
    return folder.with_name(f"{folder.name}.use")


def hold(folder: Path) -> None:
    """Hold a folder of the cache, there or not, until this process ends or turns to another of its kind.

    A process works on one task at a time. To be called before looking whether the folder is there: who frees one holds this lock.
    """
    kind = str(folder.relative_to(paths.cache()).parts[0])
    if kind in _held and _held[kind][0] == folder:
        return
    make_dir(folder.parent)
    file = _open_held(_mark(folder))
    os.utime(file.fileno())
    before = _held.pop(kind, None)
    _held[kind] = (folder, file)
    if before:
        before[1].close()


def _open_held(mark: Path) -> IO[bytes]:
    while True:
        file = open(mark, "ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), mark.stat()):
                return file
        file.close()  # removed while we waited for it, with what it stood for


def last_use(folder: Path) -> float:
    for path in (_mark(folder), folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


@contextlib.contextmanager
def unused(folders: list[Path]) -> Iterator[list[Path]]:
    """Those of the folders that no task uses; none of them can be taken up before the end of this."""
    with contextlib.ExitStack() as files:
        free = []
        for folder in folders:
            file = files.enter_context(open(_mark(folder), "ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(folder)
            except BlockingIOError:
                file.close()
        # asked now: whoever held one until just now has left a worktree that names it
        named = named_by_worktrees()
        yield [folder for folder in free if folder not in named]


def named_by_worktrees() -> set[Path]:
    """The histories and environments on which a worktree stands: of a task in flight, between two stages, or kept by KEEP=1."""
    found = set()
    for place in (paths.artifacts() / "worktrees").glob("*/*"):
        for root in (place, place / "grading"):
            with contextlib.suppress(OSError):
                found.add(Path((root / "testbed/.git/objects/info/alternates").read_text().strip()).parent)
            for file in root.glob("venv/lib/python*/site-packages/zzzz_shared_environment.pth"):
                with contextlib.suppress(OSError, IndexError):
                    # addsitedir('<environment>/venv/lib/pythonX.Y/site-packages')
                    found.add(Path(file.read_text().split("'")[1]).parents[3])
    return found


def free(folder: Path) -> None:
    """Remove a folder of the cache: gone at once for whoever looks, whatever happens to us on the way."""
    gone = folder.with_name(f"{folder.name}.gone")
    remove_tree(gone)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    remove_tree(gone)
    _mark(folder).unlink(missing_ok=True)
