"""Building a layer: a checkout prepared and installed in a place of its own, and what that changed kept. Its caller holds the lock."""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from swerun import checkouts, disk, downloads, environments, installs, paths, pool, resolving, seals, slots, venvs
from swerun.downloads import Given
from swerun.environments import Say
from swerun.errors import Fatal
from swerun.git import git
from swerun.layers import CHECKOUT, VENV
from swerun.locks import Lock
from swerun.process import kill_marked, task_env
from swerun.spec import Spec
from swerun.state import remove_tree, require_space, write_json

LEFTOVERS = ("__pycache__", ".pytest_cache")
# what pip says when it would need something that the lock does not have
LACKING = re.compile("No matching distribution found|Could not find a version that satisfies|No module named")


def log_of(folder: Path, fresh: bool = False) -> Path:
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


def resolve_only(row: dict[str, Any], spec: Spec, folder: Path, say: Say) -> Lock:
    making, log = _begin(folder), log_of(folder, fresh=True)
    lock = _resolve(row, spec, _prepare(row, spec, making, log, say)[0], making, log, say)
    remove_tree(making)
    return lock


def _prepare(row: dict[str, Any], spec: Spec, making: Path, log: Path, say: Say) -> tuple[Path, Given]:
    """(a checkout in which `pre_install` was run, what stands in for downloads that are not to be had)."""
    checkout = checkouts.create(making / "testbed", row["repo"], row["base_commit"])
    given = downloads.prepare(spec, checkout, making, say)
    for command in [*spec.pre_install, *given.commands]:
        installs.shell(command, checkout, task_env(making, spec.environment), log)
    return checkout, given


def _resolve(row: dict[str, Any], spec: Spec, checkout: Path, making: Path, log: Path, say: Say) -> Lock:
    with slots.slot(say):
        say("resolving its environment")
        return resolving.resolve(spec, row, checkout, making / "scratch", log)


def build(row: dict[str, Any], spec: Spec, folder: Path, say: Say, known: list[Lock]) -> dict[str, Any]:
    """Make a layer with the first of the known locks that has all the project asks for at this commit, else with one of its own."""
    start, log = time.monotonic(), log_of(folder, fresh=True)
    making, unfit = _begin(folder), []
    remove_tree(folder)
    (checkout, given), venv = _prepare(row, spec, making, log, say), making / "venv"
    for lock in known:
        start_of_log = log.stat().st_size
        try:
            before = _installed(spec, lock, checkout, venv, log, say)
            break
        except Fatal as error:
            if not LACKING.search(installs.said_since(log, start_of_log)):
                raise
            say(f"the lock of {row['repo']} {row['version']} does not fit this commit: {error}")
            unfit.append(lock.key())
            checkout, given = _prepare(row, spec, making, log, say)
    else:
        lock = _resolve(row, spec, checkout, making, log, say)
        if lock.key() in unfit:
            raise Fatal(f"{row['repo']} {row['version']} cannot be installed with what its lock has (the log is {log})")
        before = _installed(spec, lock, checkout, venv, log, say)
    over = downloads.put_over(given, checkout, venv / "bin" / "python", making / "wheel", log)
    manifest = {"env_key": lock.key(), "unfit": unfit, "lock": lock._asdict(), "substitutes": given.substitutes, "put_over": over}
    manifest |= {**_capture_checkout(checkout), "venv": sorted(set(_files(venv)) - before)}
    for name in [*manifest["edits"], *manifest["outputs"]]:
        _keep(checkout / name, making / "layer" / "kept" / "testbed" / name, checkout, venv)
    for name in manifest["venv"]:
        _keep(venv / name, making / "layer" / "kept" / "venv" / name, checkout, venv)
    paths.make_dir(making / "layer" / "kept")
    (making / "layer").rename(folder)
    pool.share(folder / "kept")
    seals.seal(folder / "kept", folder / seals.RECORD)
    manifest |= {"seconds": round(time.monotonic() - start, 3), "bytes": disk.own_size(folder)}
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
