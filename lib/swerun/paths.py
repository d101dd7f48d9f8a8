"""Every path of the toolkit and of its state, absolute. No other module spells one."""

import os
import re
from pathlib import Path

from swerun.errors import Fatal, Usage

TOOLKIT = Path(__file__).resolve().parents[2]
BIN = TOOLKIT / "bin"
SCRIPTS = TOOLKIT / "scripts"
AGENTS = TOOLKIT / "lib" / "agents"
PROMPTS = TOOLKIT / "lib" / "prompts"
SAMPLE = TOOLKIT / "lib" / "sample"
SERVICES = TOOLKIT / "lib" / "services"
SPECS = Path(__file__).parent / "specs"
LOCKS = Path(__file__).parent / "locks"
LEDGER = Path(__file__).parent / "ledger"
UV = TOOLKIT / ".venv" / "bin" / "uv"

NAME = re.compile(r"[A-Za-z0-9._+-]+")


def safe_name(name: str) -> bool:
    """Whether a name can be one component of a path: instance ids and run names must be."""
    return bool(NAME.fullmatch(name)) and name not in (".", "..")


def artifacts() -> Path:
    """The root of all state: ARTIFACTS, else `artifacts/` in the toolkit."""
    root = Path(os.path.abspath(os.environ.get("ARTIFACTS") or TOOLKIT / "artifacts"))
    for what, path in (("toolkit", TOOLKIT), ("ARTIFACTS", root)):
        # pip, make and PATH each break on one of these
        if re.search(r"[\s:]", str(path)):
            raise Usage(f"the {what} path '{path}' holds a space or a colon (move it)")
    return root


def make_dir(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fatal(f"cannot write '{path}': {error.strerror} (set ARTIFACTS to a folder you can write)") from None
    return path


def cache(*parts: str) -> Path:
    return artifacts().joinpath("cache", *parts)


def slug(repo: str) -> str:
    return repo.replace("/", "__")


def mirror(repo: str) -> Path:
    return cache("mirrors", f"{slug(repo)}.git")


def history(repo: str, base_commit: str) -> Path:
    """The ancestor-only object store of one base commit."""
    return cache("histories", slug(repo), base_commit)


def environment(env_key: str) -> Path:
    return cache("environments", env_key)


def layer(layer_key: str) -> Path:
    return cache("layers", layer_key)


def run_dir(run: str) -> Path:
    return artifacts() / "runs" / run


def task_dir(run: str, instance_id: str) -> Path:
    return run_dir(run) / instance_id


def worktrees(run: str, instance_id: str) -> Path:
    return artifacts() / "worktrees" / run / instance_id


def results(run: str) -> Path:
    return artifacts() / "results" / run
