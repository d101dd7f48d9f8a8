"""Build layers: what `pre_install` and `install` change at one base commit, made once and put into each checkout."""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from swerun import checkouts, environments, installs, locks, paths, resolving, slots, venvs
from swerun.environments import Say
from swerun.errors import Fatal
from swerun.git import git
from swerun.locks import Lock
from swerun.process import kill_marked, task_env
from swerun.spec import Spec
from swerun.state import locked, read_json, remove_tree, require_space, write_json

CHECKOUT, VENV = b"@SWERUN_CHECKOUT@", b"@SWERUN_VENV@"
LEFTOVERS = ("__pycache__", ".pytest_cache")
# what pip says when it would need something that the lock does not have
LACKING = re.compile("No matching distribution found|Could not find a version that satisfies|No module named")


def key(row: dict[str, Any], spec: Spec) -> str:
    return f"{paths.slug(row['repo'])}-{row['base_commit'][:12]}-{spec.digest()}"


def usable(row: dict[str, Any], spec: Spec, kept: Path | None = None) -> tuple[Path, dict[str, Any] | None]:
    """(folder, manifest) of a task's layer; no manifest where it is not there, or was made for another lock."""
    folder = paths.layer(key(row, spec))
    manifest = read_json(folder / "manifest.json")
    wanted = _wanted(row, spec, kept)
    if manifest and (wanted is None or wanted.key() in (manifest["env_key"], manifest["unfit"])) and manifest["files"] == environments.stamp(folder / "kept"):
        return folder, manifest
    return folder, None


def is_ready(row: dict[str, Any], spec: Spec) -> bool:
    manifest = usable(row, spec)[1]
    return manifest is not None and environments.why_not(manifest["env_key"]) is None


def _wanted(row: dict[str, Any], spec: Spec, kept: Path | None) -> Lock | None:
    """The lock that was kept with the run, else the shipped one; None where one is still to be resolved."""
    return (locks.read(kept, spec) if kept else None) or locks.shipped(row, spec)


def ensure(row: dict[str, Any], spec: Spec, say: Say = lambda text: None, kept: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """(folder, manifest) of a task's layer, built if it is not there; its shared environment is there too afterwards.

    `kept` is the file in which a run keeps a lock that does not come with the toolkit.
    """
    folder, manifest = usable(row, spec, kept)
    if manifest is None or environments.why_not(manifest["env_key"]):
        with locked(folder.with_name(folder.name + ".lock"), lambda: say("waiting for another process that builds it")):
            manifest = usable(row, spec, kept)[1]
            if manifest is None:
                manifest = _build(row, spec, folder, say, _wanted(row, spec, kept))
            else:
                environments.ensure(Lock(**manifest["lock"]), say, _log(folder))
    if kept and manifest["env_key"] != getattr(_wanted(row, spec, kept), "key", str)():
        locks.write(kept, Lock(**manifest["lock"]), row, spec, resolving.upload_limit(spec, row))
    return folder, manifest


def relock(row: dict[str, Any], spec: Spec, file: Path, say: Say) -> Lock:
    """Resolve a row's spec anew and write the lock to a file."""
    folder = paths.layer(key(row, spec))
    with locked(folder.with_name(folder.name + ".lock"), lambda: say("waiting for another process that builds it")):
        making = _begin(folder)
        checkout = _prepare(row, spec, making, _log(folder, fresh=True))
        lock = _resolve(row, spec, checkout, making, _log(folder), say)
        remove_tree(making)
    locks.write(file, lock, row, spec, resolving.upload_limit(spec, row))
    return lock


def _log(folder: Path, fresh: bool = False) -> Path:
    log = paths.make_dir(paths.cache("logs")) / f"{folder.name}.log"
    if fresh:
        log.write_bytes(b"")
    return log


def _begin(folder: Path) -> Path:
    """An empty folder to build in; what a killed build left there is gone, its processes too."""
    require_space(paths.make_dir(folder.parent))
    making = folder.with_name(folder.name + ".making")
    if making.exists():
        kill_marked(str(making))
        remove_tree(making)
    return making


def _prepare(row: dict[str, Any], spec: Spec, making: Path, log: Path) -> Path:
    """A checkout in which `pre_install` was run."""
    checkout = checkouts.create(making / "testbed", row["repo"], row["base_commit"])
    for command in spec.pre_install:
        installs.shell(command, checkout, task_env(making, spec.environment), log)
    return checkout


def _resolve(row: dict[str, Any], spec: Spec, checkout: Path, making: Path, log: Path, say: Say) -> Lock:
    with slots.slot(say):
        say("resolving its environment")
        return resolving.resolve(spec, row, checkout, making / "scratch", log)


def _build(row: dict[str, Any], spec: Spec, folder: Path, say: Say, lock: Lock | None) -> dict[str, Any]:
    start, unfit = time.monotonic(), None
    making, log = _begin(folder), _log(folder, fresh=True)
    remove_tree(folder)
    checkout, venv = _prepare(row, spec, making, log), making / "venv"
    shipped = lock
    lock = lock or _resolve(row, spec, checkout, making, log, say)
    try:
        before = _installed(spec, lock, checkout, venv, log, say)
    except Fatal as error:
        own = _resolve(row, spec, _prepare(row, spec, making, log), making, log, say) if shipped and LACKING.search(log.read_text(errors="replace")) else lock
        if own == lock:
            raise
        say(f"the lock of {row['repo']} {row['version']} does not fit this commit ({error}); using one of its own")
        unfit, lock = lock.key(), own
        before = _installed(spec, lock, checkout, venv, log, say)
    manifest = {"env_key": lock.key(), "unfit": unfit, "lock": lock._asdict(), **_capture_checkout(checkout), "venv": sorted(set(_files(venv)) - before)}
    for name in [*manifest["edits"], *manifest["outputs"]]:
        _keep(checkout / name, making / "layer" / "kept" / "testbed" / name, checkout, venv)
    for name in manifest["venv"]:
        _keep(venv / name, making / "layer" / "kept" / "venv" / name, checkout, venv)
    paths.make_dir(making / "layer" / "kept")
    (making / "layer").rename(folder)
    manifest |= {"seconds": round(time.monotonic() - start, 3), "files": environments.stamp(folder / "kept")}
    write_json(folder / "manifest.json", manifest)
    remove_tree(making)
    return manifest


def _installed(spec: Spec, lock: Lock, checkout: Path, venv: Path, log: Path, say: Say) -> set[str]:
    """Build the environment and install the project; returns the files that the venv had before."""
    env_key = environments.ensure(lock, say, log)
    venvs.make(venv, env_key)
    before = set(_files(venv))
    if spec.install:
        installs.install(spec, checkout, venv, env_key, log, say)
    return before


def _capture_checkout(checkout: Path) -> dict[str, list[str]]:
    """Tracked files that were changed (edits) or deleted, and files that were made (outputs)."""
    listing = git(checkout, "status", "--porcelain=v1", "-z", "--ignored", "--untracked-files=all", "--no-renames").stdout
    found: dict[str, list[str]] = {"edits": [], "deleted": [], "outputs": []}
    for entry in filter(None, listing.split("\0")):
        state, name = entry[:2], entry[3:]
        if any(part in LEFTOVERS for part in Path(name).parts) or name.endswith(".pyc"):
            continue
        found["outputs" if state in ("??", "!!") else "deleted" if "D" in state else "edits"].append(name)
    return found


def _files(folder: Path) -> list[str]:
    return [os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names if not name.endswith(".pyc")]


def _keep(source: Path, target: Path, checkout: Path, venv: Path) -> None:
    """Copy a file into the layer, with the two folders that it names replaced by marks."""
    if source.is_dir() and not source.is_symlink():
        return  # an empty folder or a nested repository: nothing a test needs
    paths.make_dir(target.parent)
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
        return
    data = source.read_bytes()
    if b"\0" not in data:
        data = data.replace(str(checkout).encode(), CHECKOUT).replace(str(venv).encode(), VENV)
    target.write_bytes(data)
    shutil.copymode(source, target)


def put(folder: Path, manifest: dict[str, Any], checkout: Path, venv: Path) -> None:
    """Put a layer into a fresh checkout and a fresh venv.

    Everything it brings is dated now, later than any source of the checkout, so that a build finds it up to date.
    """
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
                data = data.replace(CHECKOUT, str(checkout).encode()).replace(VENV, str(venv).encode())
            target.write_bytes(data)
            shutil.copymode(source, target)
    if manifest["edits"] or manifest["deleted"]:
        # the images commit these edits; staged, they are out of the way of `git diff` and of patches all the same
        git(checkout, "add", "--update")
