"""Build layers: what `pre_install` and `install` change at one base commit, made once and put into each checkout."""

import os
import shutil
import time
from pathlib import Path
from typing import Any, ContextManager

from swerun import environments, locks, paths, seals, uses, venvs
from swerun.environments import Say
from swerun.git import git
from swerun.locks import Lock
from swerun.spec import Spec
from swerun.state import locked, read_json

CHECKOUT, VENV = b"@SWERUN_CHECKOUT@", b"@SWERUN_VENV@"  # in the files of a layer, for the two folders


def key(row: dict[str, Any], spec: Spec) -> str:
    return f"{paths.slug(row['repo'])}-{row['base_commit'][:12]}-{spec.digest()}"


def usable(row: dict[str, Any], spec: Spec, kept: Path | None = None) -> tuple[Path, dict[str, Any] | None]:
    """(folder, manifest) of a task's layer; no manifest where it is not there, or was made for another lock."""
    folder = paths.layer(key(row, spec))
    return folder, _usable(folder, _wanted(row, spec, kept))


def _usable(folder: Path, wanted: list[Lock]) -> dict[str, Any] | None:
    manifest = read_json(folder / "manifest.json")
    if not manifest or "exclude_newer" not in manifest["lock"]:  # of an earlier version of the toolkit
        return None
    fitting = [lock.key() for lock in wanted if lock.key() not in (manifest["unfit"] or ())]
    if (not fitting or manifest["env_key"] in fitting) and seals.unbroken(folder / "kept", folder / seals.RECORD):
        return manifest
    return None


def _wanted(row: dict[str, Any], spec: Spec, kept: Path | None) -> list[Lock]:
    """The lock that was kept with the run, else the shipped ones, the likeliest first; none where one is still to be resolved."""
    mine = locks.read(kept, spec) if kept else None
    return [mine] if mine else list(locks.shipped(row, spec).values())


def _alone(folder: Path, say: Say) -> ContextManager[None]:
    return locked(folder.with_name(folder.name + ".lock"), lambda: say("waiting for another process that builds it"))


def ensure(row: dict[str, Any], spec: Spec, say: Say = lambda text: None, kept: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """(folder, manifest) of a task's layer, built if it is not there; its shared environment is there too afterwards.

    `kept` is the file in which a run keeps a lock that does not come with the toolkit.
    """
    folder, wanted = paths.layer(key(row, spec)), _wanted(row, spec, kept)
    uses.hold(folder)
    manifest = _usable(folder, wanted)
    if manifest is None or not environments.held(manifest["env_key"]):
        from swerun import building, freeing  # what most tasks never need

        with _alone(folder, say):
            manifest = _usable(folder, wanted)
            if manifest is None:
                manifest = building.build(row, spec, folder, say, wanted)
            else:
                environments.ensure(Lock(**manifest["lock"]), say, building.log_of(folder))
        freeing.keep_limit(say)
    if kept and manifest["env_key"] not in [lock.key() for lock in wanted]:
        locks.write(kept, Lock(**manifest["lock"]), row, spec)
    return folder, manifest


def relock(row: dict[str, Any], spec: Spec, file: Path, say: Say) -> Lock:
    """Resolve a row's spec anew and write the lock to a file."""
    from swerun import building

    folder = paths.layer(key(row, spec))
    with _alone(folder, say):
        lock = building.resolve_only(row, spec, folder, say)
    locks.write(file, lock, row, spec)
    return lock


def put(folder: Path, manifest: dict[str, Any], checkout: Path, venv: Path) -> None:
    """Put a layer into a fresh checkout and a fresh venv.

    Everything it brings is dated now, later than any source of the checkout, so that a build finds it up to date; and to the
    same moment, for a build compares what it made with what it made of that, too.
    """
    now = time.time_ns()
    for name in manifest["deleted"]:
        (checkout / name).unlink(missing_ok=True)
    made: dict[str, None] = {}
    for base, names, goal in (("testbed", [*manifest["edits"], *manifest["outputs"]], checkout), ("venv", manifest["venv"], venv)):
        for name in names:
            source, target = folder / "kept" / base / name, goal / name
            if not os.path.lexists(source):
                continue
            if str(target.parent) not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made[str(target.parent)] = None
            target.unlink(missing_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
                continue
            data = source.read_bytes()
            if b"@SWERUN_" in data and b"\0" not in data:
                data = venvs.startable(data.replace(CHECKOUT, str(checkout).encode()).replace(VENV, str(venv).encode()))
            target.write_bytes(data)
            shutil.copymode(source, target)
            os.utime(target, ns=(now, now))
    if manifest["edits"] or manifest["deleted"]:
        # the images commit these edits; staged, they are out of the way of `git diff` and of patches all the same
        git(checkout, "add", "--update")
