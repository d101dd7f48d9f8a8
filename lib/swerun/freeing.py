"""Freeing the cache of what nobody needs, and keeping it under DISK_LIMIT; never what a running task uses."""

import os
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from swerun import disk, layers, options, paths, pool, services, spec as specs, uses
from swerun.disk import GIB
from swerun.errors import Fatal
from swerun.state import is_locked, locked, read_json, remove_tree
from swerun.uv import uv

Say = Callable[[str], None]
AT_ONCE = 100  # folders that are held together: each takes an open file


def needed(rows: Iterable[dict[str, Any]]) -> set[Path]:
    """The folders of the cache that the tasks of these rows stand on."""
    found: set[Path] = set()
    for row in rows:
        found |= {paths.mirror(row["repo"]), paths.history(row["repo"], row["base_commit"])}
        try:
            spec = specs.of(row)
            folder, manifest = layers.usable(row, spec)
            found |= {paths.environment(own.key()) for name in services.named(spec) if (own := services.lock(name))}
        except Fatal:
            continue  # nobody has described it, so nothing was built for it
        if manifest:
            found |= {folder, paths.environment(manifest["env_key"])}
    return found


def unneeded(rows: Iterable[dict[str, Any]]) -> list[Path]:
    """What none of these rows needs, of all that can be made again."""
    keep = needed(rows)
    # a rung of the ladder under a history that stays has its packs linked there: it costs nothing, and spares later ones much
    linked = {file.name for path in keep if path.parent.parent == paths.cache("histories") for file in _packs(path)}
    keep |= {path for path in disk.folders("histories") if (packs := {file.name for file in _packs(path)}) and packs <= linked}
    return [path for kind in ("layers", "environments", "histories", "mirrors") for path in disk.folders(kind) if path not in keep]


def _packs(history: Path) -> Iterator[Path]:
    return (history / "objects" / "pack").glob("*.pack")


def leftovers() -> Iterator[Path]:
    """What killed builds and removals left, where nobody is at work on it."""
    for path in (path for end in ("making", "gone") for pattern in (f"*/*.{end}", f"*/*/*.{end}") for path in paths.cache().glob(pattern)):
        locks = (path.with_suffix(".lock"), path.parent.with_name(path.parent.name + ".lock"))
        if not any(lock.exists() and is_locked(lock) for lock in locks):
            yield path


def free(folders: list[Path], say: Say) -> tuple[int, list[Path]]:
    """(bytes freed, folders that were left because a task uses them)."""
    total, left = 0, []
    for start in range(0, len(folders), AT_ONCE):
        part = folders[start:start + AT_ONCE]
        with uses.unused(part) as unused:
            left += [folder for folder in part if folder not in unused]
            for folder in unused:
                total += disk.known_size(folder)
                uses.free(folder)
        if len(folders) > AT_ONCE:
            say(f"{min(start + AT_ONCE, len(folders))} of {len(folders)} looked at")
    return total + (pool.prune() if len(left) < len(folders) else 0), left


def size(folders: list[Path]) -> int:
    """Bytes that freeing these would free."""
    pooled = [folder for folder in folders if folder.parent.name in ("environments", "layers")]
    return disk.own_size(*pooled, elsewhere=1) + disk.own_size(*(folder for folder in folders if folder not in pooled))


def shrink_uv() -> int:
    """Drop what uv keeps of packages that an index has; what it built from source stays. Returns the bytes freed."""
    if os.environ.get("UV_CACHE_DIR") or not paths.cache("uv").is_dir():
        return 0  # the user's own
    before = disk.size(paths.cache("uv"))
    uv("cache", "prune", "--ci", "--quiet")
    return before - disk.size(paths.cache("uv"))


def limit() -> int | None:
    """DISK_LIMIT in bytes; None where there is none."""
    chosen = options.resolve(("DISK_LIMIT",), {})["DISK_LIMIT"].value
    return int(options.number("DISK_LIMIT", chosen) * GIB) if chosen else None


def keep_limit(say: Say) -> None:
    """Free what is used least recently until the cache is under DISK_LIMIT: layers, environments that carry none, uv's cache, histories."""
    most = limit()
    if most is None:
        return
    with locked(paths.cache("limit.lock")):
        over = sum(one.bytes for one in disk.taken().values()) - most
        start, count = over, 0
        for step in (_layers, _bare_environments, _uv, _histories):
            for size in step() if over > 0 else ():
                over, count = over - size, count + 1
                if over <= 0:
                    break
    if count:
        say(f"DISK_LIMIT: {(start - over) / GIB:.2f} GiB freed of what was used least recently; it is made again when it is needed")
    if over > 0:
        say(f"DISK_LIMIT is {most / GIB:g} GiB and {(over + most) / GIB:.1f} GiB are in use: what is left is needed now")


def _one_by_one(folders: list[Path]) -> Iterator[int]:
    for folder in sorted(folders, key=uses.last_use):
        freed, left = free([folder], lambda text: None)
        if not left:
            yield freed


def _layers() -> Iterator[int]:
    yield from _one_by_one(disk.folders("layers"))


def _bare_environments() -> Iterator[int]:
    manifests = (read_json(folder / "manifest.json") for folder in disk.folders("layers"))
    carrying = {manifest["env_key"] for manifest in manifests if manifest}
    yield from _one_by_one([folder for folder in disk.folders("environments") if folder.name not in carrying])


def _uv() -> Iterator[int]:
    yield shrink_uv()


def _histories() -> Iterator[int]:
    yield from _one_by_one(disk.folders("histories"))


def remove_leftovers() -> int:
    removed = 0
    for path in leftovers():
        remove_tree(path)
        removed += 1
    return removed
