"""A run: its name, and run.json, which says what the run is so that nothing else is mixed into it."""

import hashlib
import os
import platform
import re
import time
from pathlib import Path
from typing import Any, Iterable, Mapping

from swerun import datasets, paths
from swerun.errors import Usage
from swerun.git import git
from swerun.options import FIXED
from swerun.process import run as run_command
from swerun.state import locked, read_json, write_file, write_json

Run = dict[str, Any]


def agent_label(agent: str) -> str:
    """`replay:/x/preds.jsonl` is replay-preds, `/x/my-agent.sh` is my-agent."""
    kind, _, rest = agent.partition(":")
    name = f"{kind}-{Path(rest).stem}" if rest else (Path(agent).stem if "/" in agent else agent)
    return re.sub(r"[^A-Za-z0-9._+-]", "-", name)


def default_name(dataset: str, agent: str) -> str:
    return f"{datasets.label(dataset)}-{agent_label(agent)}"


def file(run: str) -> Path:
    return paths.run_dir(run) / "run.json"


def read(run: str) -> Run | None:
    return read_json(file(run)) if paths.safe_name(run) else None


def stop(run: str, why: str = "") -> None:
    """Let a run start no more agents; without a reason, by a person's wish, no grading either."""
    write_file(paths.run_dir(run) / "stop", why.encode())


def stopped(run: str, since: float = 0.0, by_itself: bool = False) -> str | None:
    """Why a run starts nothing more; None where it goes on, or was stopped before a time at which somebody called a stage by hand.

    `by_itself`: only where money or a log-in stopped it, which ends a task between two attempts; a person's wish lets it finish.
    """
    file = paths.run_dir(run) / "stop"
    try:
        if file.stat().st_mtime < since:
            return None
        return file.read_text("utf-8", "replace") or (None if by_itself else "somebody asked for it")
    except FileNotFoundError:
        return None


def canonical(name: str, value: str) -> str:
    """An option's value as run.json keeps it: paths absolute, so that the folder of the call does not matter."""
    if name == "DATASET":
        return datasets.canonical(value)
    if name == "AGENT" and value.startswith("replay:"):
        return "replay:" + os.path.abspath(value.removeprefix("replay:"))
    if value and (name == "PROMPT" or name == "SPECS" and value != "none" or name == "AGENT" and "/" in value):
        return os.path.abspath(value)
    return value


def check_name(run: str) -> None:
    if not paths.safe_name(run):
        raise Usage(f"RUN is '{run}', and a run's name is made of letters, digits and . _ + -")


def open_run(run: str, chosen: Mapping[str, str], rows: Iterable[tuple[str, bytes]] | None) -> Run:
    """Make a run, or go on with it. Raises Usage where the name is taken by other rows, agent or options.

    `rows` are (instance_id, row as JSON) of the instances that the run is over; None for a stage called by hand,
    which may open a run but says nothing of its extent.
    """
    check_name(run)
    wanted = {name: canonical(name, chosen[name]) for name in FIXED if name in chosen}
    listed = list(rows) if rows is not None else None
    digest = hashlib.sha256(b"".join(line for _, line in listed)).hexdigest() if listed is not None else None
    with locked(paths.run_dir(run) / ".lock"):
        known = read(run)
        if known is None:
            known = {"run": run, "options": wanted, "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **host()}
        differ = [f"{name} is '{known['options'].get(name, '')}', not '{value}'" for name, value in wanted.items()
                  if known["options"].get(name, value) != value]
        if digest and known.get("rows_sha256", digest) != digest:
            differ.append(_other_rows(known["instance_ids"], [instance_id for instance_id, _ in listed]))
        if differ:
            raise Usage(f"run '{run}' is there already and differs: {'; '.join(differ)} (take another name with RUN=…)")
        if listed is not None and "instance_ids" not in known:
            known |= {"instance_ids": [instance_id for instance_id, _ in listed], "rows_sha256": digest}
        known["options"] = wanted | known["options"]
        if read(run) != known:
            write_json(file(run), known)
    return known


def _other_rows(before: list[str], now: list[str]) -> str:
    """In what the rows of a run differ from those asked for now."""
    gone, new = [i for i in before if i not in now], [i for i in now if i not in before]
    which = f"it has '{gone[0]}'" if gone else f"it has no '{new[0]}'" if new else "the same ids, in another order or with other content"
    return f"its {len(before)} rows are others than these {len(now)}: {which}"


def host() -> dict[str, Any]:
    """Where a run takes place and with what."""
    requirements = (paths.TOOLKIT / "requirements.txt").read_text()
    commit = git(paths.TOOLKIT, "rev-parse", "HEAD", check=False)
    return {
        "toolkit": commit.stdout.strip() if commit.returncode == 0 else None,
        "git": run_command("git", "version").stdout.split()[2],
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": re.findall(r"^(\w+==[\w.]+)", requirements, re.M),
        "isolation": "none",
    }
