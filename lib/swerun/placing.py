"""Where on the disk a worktree is put: on ext4, files made where many were just deleted take up to forty times as long.

ext4 does not use an inode again for one to five minutes after it was deleted, and looks at every such one of a group before it takes
another: worktrees of thousands of files that are made and removed, task after task, in the same groups cost seconds each. So
a task's folder is made among those that ext4 spreads over the disk (`chattr +T`), under random names, which decide the group,
until it is in none where a worktree was removed lately.
"""

import contextlib
import fcntl
import os
import struct
import time
from pathlib import Path

from swerun import paths
from swerun.state import make_dir, remove_tree

GET, SET, TOPDIR = 0x80086601, 0x40086602, 0x00020000  # linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL
GROUP = 8192        # inodes; what mkfs.ext4 makes a group of, and a good neighbourhood where it did not
REST = 330.0        # seconds: RECENTCY_MIN and RECENTCY_DIRTY of fs/ext4/ialloc.c, 60 and 300 by default, and a little
NEEDED = 4          # groups from the first on that a worktree of thousands of files takes
TRIES = 40
RECORD = "removed"  # in the cache, a line a removal: time, groups
MOST = 1 << 16      # bytes of it


def make(folder: Path) -> Path:
    """Make a folder that is not there yet, where files are made fast; elsewhere than on ext4 just make it."""
    if folder.is_dir() or not _spread(make_dir(folder.parent)):
        return make_dir(folder)
    used, trials = _used(), []
    for _ in range(TRIES):
        trial = folder.with_name(f".new-{os.urandom(6).hex()}")
        trial.mkdir()
        first = trial.stat().st_ino // GROUP
        trials.append((max(used.get(group, 0) for group in range(first, first + NEEDED)), trial))
        if not trials[-1][0]:
            break
    _, chosen = min(trials)  # where none is free, where it is longest ago
    try:
        chosen.rename(folder)
    except OSError:  # another process was faster
        trials.append((0, chosen))
    for _, trial in trials:
        with contextlib.suppress(OSError):
            trial.rmdir()
    return folder


def remove(folder: Path) -> None:
    """Remove a folder that make() made, and note where it was."""
    groups = sorted(_groups(folder))
    remove_tree(folder)
    if groups:
        record = paths.cache(RECORD)
        with contextlib.suppress(OSError), open(record, "a") as file:  # one short write: whole lines, whoever else writes
            file.write(f"{time.time():.0f} {' '.join(map(str, groups))}\n")
        with contextlib.suppress(OSError):
            if record.stat().st_size > MOST:
                record.unlink()


def _groups(folder: Path) -> set[int]:
    """The groups of the folders of a worktree, down to the second level of each checkout in it."""
    found: set[int] = set()
    waiting = [(str(folder), 4)]
    while waiting:
        at, depth = waiting.pop()
        with contextlib.suppress(OSError):
            found.add(os.lstat(at).st_ino // GROUP)
            if depth:
                with os.scandir(at) as entries:
                    waiting += [(entry.path, depth - 1) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found


def _used() -> dict[int, int]:
    """{group: when a worktree was removed there}"""
    now, found = time.time(), {}
    with contextlib.suppress(OSError, ValueError):
        for line in paths.cache(RECORD).read_text().splitlines():
            at, *groups = map(int, line.split())
            if 0 <= now - at < REST:
                found |= dict.fromkeys(groups, at)
    return found


def _spread(folder: Path) -> bool:
    """Have ext4 spread the folders in this one; False where the file system knows nothing of that."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            [flags] = struct.unpack("L", fcntl.ioctl(opened, GET, struct.pack("L", 0)))
            if not flags & TOPDIR:
                fcntl.ioctl(opened, SET, struct.pack("L", flags | TOPDIR))
            return True
        finally:
            os.close(opened)
    return False
