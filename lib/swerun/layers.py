"""Build layers: what `pre_install` and `install` change at one base commit, made once and put into each checkout."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

from swerun import checkouts, environments, locks, paths
from swerun.errors import Fatal
from swerun.git import git
from swerun.locks import Lock
from swerun.process import MARK, Tick, kill_marked, run_limited, task_env, telling
from swerun.spec import Spec
from swerun.state import locked, read_json, remove_tree, require_space, write_json

INSTALL_TIMEOUT = 3600
CHECKOUT, VENV = b"@SWERUN_CHECKOUT@", b"@SWERUN_VENV@"
LEFTOVERS = ("__pycache__", ".pytest_cache")
# pip must take nothing but what the lock put there: no index, no isolated build that would fetch its own
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1",
           "PIP_NO_INPUT": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_CACHE_DIR": "1"}


def key(row: dict[str, Any], spec: Spec) -> str:
    return f"{paths.slug(row['repo'])}-{row['base_commit'][:12]}-{spec.digest()}"


def ensure(row: dict[str, Any], spec: Spec, say: Callable[[str], None] = lambda text: None) -> tuple[Path, dict[str, Any]]:
    """(folder, manifest) of a task's layer, built if it is not there; its shared environment is there too afterwards."""
    folder = paths.layer(key(row, spec))
    manifest = read_json(folder / "manifest.json")
    if manifest and environments.is_complete(manifest["env_key"]):
        return folder, manifest
    with locked(folder.with_name(folder.name + ".lock"), lambda: say("waiting for another process that builds it")):
        manifest = read_json(folder / "manifest.json")
        lock = Lock(**manifest["lock"]) if manifest else None
        if lock and os.path.exists(lock.python):
            environments.ensure(lock, say)
        else:
            manifest = _build(row, spec, folder, say)
    return folder, manifest


def _build(row: dict[str, Any], spec: Spec, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    start = time.monotonic()
    require_space(paths.make_dir(folder.parent))
    making = folder.with_name(folder.name + ".making")
    if making.exists():
        kill_marked(str(making))
        remove_tree(making)
    remove_tree(folder)
    checkout, venv, log = making / "testbed", making / "venv", paths.make_dir(paths.cache("logs")) / f"{folder.name}.log"
    log.write_bytes(b"")
    checkouts.create(checkout, row["repo"], row["base_commit"])
    for command in spec.pre_install:
        shell(command, checkout, task_env(making, spec.environment), log)
    say("resolving its environment")
    lock = locks.resolve(spec, row, checkout, making / "scratch")
    env_key = environments.ensure(lock, say)
    environments.make_venv(venv, env_key)
    before = set(_files(venv))
    if spec.install:
        say("installing the project")
        install(spec, checkout, venv, env_key, log, say)
    manifest = {"env_key": env_key, "lock": lock._asdict(), **_capture_checkout(checkout), "venv": sorted(set(_files(venv)) - before)}
    for name in [*manifest["edits"], *manifest["outputs"]]:
        _keep(checkout / name, making / "kept" / "testbed" / name, checkout, venv)
    for name in manifest["venv"]:
        _keep(venv / name, making / "kept" / "venv" / name, checkout, venv)
    paths.make_dir(making / "kept")
    manifest["seconds"] = round(time.monotonic() - start, 3)
    (making / "kept").rename(folder)
    write_json(folder / "manifest.json", manifest)
    remove_tree(making)
    return manifest


def install(spec: Spec, checkout: Path, venv: Path, env_key: str, log: Path, say: Callable[[str], None]) -> None:
    """Run the spec's install command as it stands, offline. Raises Fatal with its last line and its log."""
    env = environments.activated(venv, task_env(venv.parent, spec.environment)) | OFFLINE
    build = environments.build_path(env_key)
    shell(spec.install, checkout, env | ({"PYTHONPATH": str(build)} if build else {}), log, telling(say, "installing the project"))


def shell(command: str, folder: Path, env: dict[str, str], log: Path, tick: Tick | None = None) -> None:
    with open(log, "ab") as file:
        file.write(f"+ {command}\n".encode())
        file.flush()
        ended = run_limited(["bash", "-c", command], cwd=folder, env=env | {MARK: str(folder.parent)}, timeout=INSTALL_TIMEOUT, stdin=subprocess.DEVNULL,
                            stdout=file, stderr=subprocess.STDOUT, tick=tick)
    if ended.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = "did not end in an hour" if ended.timed_out else next((line for line in reversed(lines) if "rror" in line), lines[-1])
        raise Fatal(f"'{command[:80]}' failed: {why[:300]} (the log is {log})")


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
            source, target = folder / base / name, goal / name
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


def needs_install(spec: Spec, changed: list[str]) -> bool:
    """Whether a patch to these files may change what was built. In doubt, yes: a patch that names none, for one."""
    if not spec.install:
        return False
    return not changed or not spec.editable() or not all(_inert(name) for name in changed)


def _inert(name: str) -> bool:
    """A Python module that only runs when it is imported, or prose; what a build reads is neither."""
    path = Path(name)
    if path.suffix in (".rst", ".md"):
        return True
    return path.suffix == ".py" and not path.stem.startswith(("setup", "_setup", "versioneer", "_build")) and len(path.parts) > 1
