"""The place of a task in flight: a sealed checkout and a venv, made together or one after the other."""

import contextlib
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

from swerun import checkouts, histories, layers, paths, placing, process, services, spec as specs, venvs
from swerun.spec import Spec
from swerun.state import remove_tree

Say = Callable[[str], None]


class Workspace(NamedTuple):
    checkout: Path
    venv: Path
    layer: Path
    manifest: dict[str, Any]


def agent_place(record: dict[str, Any]) -> Path:
    return paths.worktrees(record["run"], record["instance_id"])


def grading_place(record: dict[str, Any]) -> Path:
    """Where grading happens: never where the agent was."""
    return agent_place(record) / "grading"


def make_checkout(row: dict[str, Any], place: Path, remote: str, config: Path | None, say: Say) -> Path:
    """A fresh sealed checkout at `place`/testbed; what an interrupted attempt left there is removed first, its processes too."""
    if place.exists():
        process.kill_marked(str(place))
        for old in ("venv", "home"):
            remove_tree(place / old)
    histories.require(row["repo"], row["base_commit"], remote, say)
    placing.make(place)
    checkout = checkouts.create(place / "testbed", row["repo"], row["base_commit"])
    checkouts.link_config(checkout, config)
    return checkout


def make_venv(row: dict[str, Any], spec: Spec, place: Path, task: Path, checkout: Path, say: Say) -> Workspace:
    """A fresh venv at `place`/venv, and what the spec's installation leaves in the checkout.

    `task` is the task's folder in the run, where a lock is kept that does not come with the toolkit.
    """
    services.prepare(spec, say)
    folder, manifest = layers.ensure(row, spec, say, task / "lock.toml")
    paths.make_dir(place / "home")
    venv = venvs.make(place / "venv", manifest["env_key"])
    layers.put(folder, manifest, checkout, venv)
    (venv / "complete").touch()
    return Workspace(checkout, venv, folder, manifest)


def make(row: dict[str, Any], place: Path, task: Path, remote: str, config: Path | None, say: Say) -> Workspace:
    checkout = make_checkout(row, place, remote, config, say)
    return make_venv(row, specs.of(row), place, task, checkout, say)


def existing(record: dict[str, Any], row: dict[str, Any]) -> Workspace | None:
    """The workspace that earlier stages of a pipeline made for this record, if it is still there."""
    if not record.get("worktree") or not record.get("venv"):
        return None
    checkout, venv = Path(record["worktree"]), Path(record["venv"])
    if not checkouts.is_complete(checkout) or not (venv / "complete").is_file():
        return None
    folder, manifest = layers.ensure(row, specs.of(row), kept=paths.task_dir(record["run"], record["instance_id"]) / "lock.toml")
    return Workspace(checkout, venv, folder, manifest)


def remove(record: dict[str, Any]) -> None:
    """Remove the places of a task that is done, and the run's folder with the last of them."""
    place = agent_place(record)
    placing.remove(place)
    with contextlib.suppress(OSError):
        place.parent.rmdir()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.monotonic()
    return work(), round(time.monotonic() - start, 3)
