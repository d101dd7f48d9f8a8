"""One copy on the disk of every file that sealed folders (environments, layers) have in common, linked from each of them.

None of these files is a task's: tasks get copies, or read them where nobody writes. What is written by force all the same
`swerun.seals` sees in every folder that has it, and the next build puts a good copy here.
"""

import contextlib
import filecmp
import os
from pathlib import Path
from typing import Iterator

from swerun import paths, seals

DATE = 946684800  # of every file: what Python compiled says how old its source was, and is the same for all only if that is


def date(folder: Path) -> None:
    for entry in _regular(folder):
        os.utime(entry.path, (DATE, DATE))


def share(folder: Path) -> None:
    """Link every file of a folder to the pool's copy, which is made of it if there is none, or another one under its name."""
    for entry in _regular(folder):
        at = entry.stat(follow_symlinks=False)
        if at.st_size == 0:  # takes no room, and links to one inode end somewhere
            continue
        os.utime(entry.path, (DATE, DATE))
        name = seals.digest(entry.path)
        target = paths.make_dir(paths.cache("pool") / name[:2]) / f"{name[2:]}-{at.st_mode & 0o777:o}"
        with contextlib.suppress(OSError):  # a file system without links, or one link too many: it stays a copy
            _link(entry.path, target)


def _link(path: str, target: Path) -> None:
    temporary = f"{path}.{os.getpid()}.pool"
    try:
        os.link(target, temporary)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another build's, which is as good: the two stay apart
            os.link(path, target)
        return
    if filecmp.cmp(path, temporary, shallow=False) and os.stat(temporary).st_mtime == DATE:
        os.rename(temporary, path)
        return
    os.unlink(temporary)  # somebody wrote into the pool's
    os.link(path, temporary)
    os.rename(temporary, target)


def prune() -> int:
    """Drop what no folder has any more. Returns the bytes freed."""
    freed = 0
    for entry in _regular(paths.cache("pool")):
        with contextlib.suppress(FileNotFoundError):
            at = entry.stat(follow_symlinks=False)
            if at.st_nlink == 1:
                os.unlink(entry.path)
                freed += at.st_blocks * 512
    return freed


def _regular(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry
