"""What the cache takes of the disk."""

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from swerun import paths
from swerun.state import read_json

GIB = 2**30
KINDS = ("mirrors", "histories", "environments", "layers", "pool", "downloads", "ccache", "uv", "datasets", "logs")


class Taken(NamedTuple):
    bytes: int
    count: int  # of mirrors, histories, environments, layers; of files in the others


def size(folder: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Bytes that a folder takes on the disk; what is linked from several places is counted once for all calls with one `seen`."""
    seen = set() if seen is None else seen
    total, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    at = entry.stat(follow_symlinks=False)
                    if at.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (at.st_dev, at.st_ino) in seen:
                            continue
                        seen.add((at.st_dev, at.st_ino))
                    total += at.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


def own_size(*folders: Path, elsewhere: int = 0) -> int:
    """Bytes that go when these folders go: of files that are linked nowhere else, or only `elsewhere` times (by the pool, once)."""
    links: Counter[int] = Counter()
    found: dict[int, os.stat_result] = {}
    total = 0
    for folder in folders:
        for at, _, names in os.walk(folder):
            total += os.lstat(at).st_blocks * 512
            for name in names:
                with contextlib.suppress(OSError):
                    stat = os.lstat(os.path.join(at, name))
                    links[stat.st_ino] += 1
                    found[stat.st_ino] = stat
    return total + sum(stat.st_blocks * 512 for inode, stat in found.items() if stat.st_nlink <= links[inode] + elsewhere)


def known_size(folder: Path) -> int:
    """The same of an environment or a layer, which note it when they are built: their files are many."""
    for name in ("complete.json", "manifest.json"):
        made = read_json(folder / name)
        if made and "bytes" in made:
            return made["bytes"]
    return own_size(folder)


def folders(kind: str) -> list[Path]:
    """The mirrors, histories, environments or layers that are there; not what is half made or half gone."""
    pattern = "*/*" if kind == "histories" else "*"
    return sorted(path for path in paths.cache(kind).glob(pattern) if path.is_dir() and path.suffix not in (".making", ".gone"))


def taken() -> dict[str, Taken]:
    found = {}
    for kind in KINDS:
        root, seen = paths.cache(kind), set()
        if not root.is_dir():
            continue
        if kind in ("environments", "layers"):
            there = folders(kind)
            found[kind] = Taken(sum(map(known_size, there)), len(there))
        else:
            count = len(folders(kind)) if kind in ("mirrors", "histories") else sum(len(names) for _, _, names in os.walk(root))
            found[kind] = Taken(size(root, seen), count)
    return found


def summary() -> tuple[int, str]:
    """(bytes, `9.1 GiB: environments 3.8 (44), mirrors 1.4 (9), …`), the largest first."""
    found = sorted(taken().items(), key=lambda one: one[1].bytes, reverse=True)
    total = sum(one.bytes for _, one in found)
    parts = ", ".join(f"{kind} {one.bytes / GIB:.1f} ({one.count})" for kind, one in found if one.bytes > GIB / 100)
    return total, f"{total / GIB:.1f} GiB{': ' if parts else ''}{parts}"
