"""Whether a folder that was sealed (an environment, a layer) still holds what it held then."""

import hashlib
import os
from pathlib import Path
from typing import Iterator, NamedTuple

from swerun.state import write_file

RECORD = "sealed"  # the first line is the folder's stamp, each other one a file: path, size, change time in ns, digest of the content


class File(NamedTuple):
    name: str  # below the folder
    path: str
    size: int  # bytes
    ctime_ns: int

    def line(self) -> str:
        return f"{self.name}\0{self.size}\0{self.ctime_ns}"


def seal(folder: Path, record: Path) -> None:
    """Note what a folder holds; `record` may be in it."""
    files = list(_files(folder))
    _write(record, files, {file.name: digest(file.path) for file in files})


def unbroken(folder: Path, record: Path) -> bool:
    """Whether every file is as it was: by name, size and change time, which nothing that writes one leaves as it was.

    A link more or less (`swerun.pool`) changes that time, too: then the content decides, and the new times are noted.
    """
    try:
        with open(record, encoding="utf-8", errors="surrogateescape") as file:
            known = file.readline().rstrip("\n")
            files = list(_files(folder))
            if _stamp(files) == known:
                return True
            before = dict(line.rstrip("\n").split("\0", 1) for line in file)
    except (OSError, ValueError):
        return False
    if {file.name for file in files} != set(before):
        return False
    digests = {}
    for file in files:
        size, ctime, digests[file.name] = before[file.name].split("\0")
        if file.size != int(size) or (file.ctime_ns != int(ctime) and digest(file.path) != digests[file.name]):
            return False
    _write(record, files, digests)
    return True


def digest(path: str | Path) -> str:
    """Of a file's content, or of what a symbolic link says."""
    data = os.readlink(path).encode("utf-8", "surrogateescape") if os.path.islink(path) else Path(path).read_bytes()
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def _files(folder: Path) -> Iterator[File]:
    """Every file but Python's caches: Python and pytest write some of them later."""
    top, waiting = len(str(folder)) + 1, [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        waiting.append(entry.path)
                elif entry.name not in (RECORD, f".{RECORD}.{os.getpid()}.tmp", "complete.json"):
                    at = entry.stat(follow_symlinks=False)
                    yield File(entry.path[top:], entry.path, at.st_size, at.st_ctime_ns)


def _stamp(files: list[File]) -> str:
    lines = sorted(file.line() for file in files)
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _write(record: Path, files: list[File], digests: dict[str, str]) -> None:
    lines = [_stamp(files), *(f"{file.line()}\0{digests[file.name]}" for file in files), ""]
    write_file(record, "\n".join(lines).encode("utf-8", "surrogateescape"))
