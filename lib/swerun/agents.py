"""Agents: the three built in, and any executable; what each declares that it needs."""

import os
import re
import shutil
from pathlib import Path
from typing import Any, Mapping, NamedTuple

import orjson

from swerun import paths
from swerun.errors import Fatal, Usage
from swerun.runs import agent_label

BUILT_IN = ("gold", "null", "replay")
Record = dict[str, Any]


def check(agent: str) -> str:
    """The agent as it will be started: a built-in name or an absolute path. Raises Usage where there is none."""
    kind, _, rest = agent.partition(":")
    if agent in ("gold", "null"):
        return agent
    if kind == "replay":
        if not rest or not Path(rest).is_file():
            raise Usage(f"no predictions at '{rest}' (AGENT=replay:<predictions.jsonl>)")
        return f"replay:{os.path.abspath(rest)}"
    path = Path(os.path.abspath(agent)) if "/" in agent else paths.AGENTS / agent
    if path.is_file() and os.access(path, os.X_OK):
        return str(path)
    if path.is_file():
        raise Usage(f"agent '{path}' is not executable (chmod +x it)")
    there = sorted(file.name for file in paths.AGENTS.glob("*") if os.access(file, os.X_OK) and file.is_file())
    raise Usage(f"no agent '{agent}' (use gold, null, replay:<predictions.jsonl>, {''.join(f'{name}, ' for name in there)}or the path of an executable)")


def needs_worktree(agent: str) -> bool:
    return agent.partition(":")[0] not in BUILT_IN


def built_in(agent: str, row: dict[str, Any]) -> Record:
    """What gold, null and replay add to a record; they need no worktree."""
    name = agent_label(agent)
    if agent == "gold":
        patch = row["patch"]
    elif agent == "null":
        patch = ""
    else:
        found = predictions(agent.removeprefix("replay:")).get(row["instance_id"])
        if found is None:
            raise Fatal(f"no prediction for it in '{agent.removeprefix('replay:')}'")
        patch, name = found.get("model_patch") or "", found.get("model_name_or_path") or name
    return {"model_patch": patch, "model_name_or_path": name, "agent": outcome("completed", 0.0)}


def predictions(file: str) -> dict[str, Record]:
    """Predictions by instance id, from a .jsonl, a JSON list, or a JSON object keyed by instance id. Raises Fatal."""
    try:
        data = Path(file).read_bytes()
        if file.endswith(".json"):
            rows = orjson.loads(data)
            rows = [{"instance_id": key, **value} for key, value in rows.items()] if isinstance(rows, dict) else rows
        else:
            rows = [orjson.loads(line) for line in data.splitlines() if line.strip()]
        return {one["instance_id"]: one for one in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Fatal(f"cannot read predictions '{file}': {error} (one JSON object a line, with instance_id and model_patch)") from None


def outcome(status: str, seconds: float) -> Record:
    """What is said of an agent that asked no model."""
    return {"status": status, "attempts": 1, "seconds": round(seconds, 3), "cost_usd": None, "tokens": None, "session_id": None, "isolation": "none"}


class Needs(NamedTuple):
    """What an agent's file declares that it needs, in its first lines: `# agent: hosts=api.example.com env=EXAMPLE_KEY login=.example`."""

    hosts: list[str]  # that it talks to; none means no network
    env: list[str]    # variables, `A|B` where one of them will do
    login: list[str]  # files and folders of its user's home with its log-in
    needs: list[str]  # programs
    install: str      # the command that installs them


HEADER = re.compile(rb"^#\s*agent:\s*(.*)$", re.M)
PART = re.compile(r"(\w+)=(?:\"([^\"]*)\"|(\S*))")


def needs(agent: str) -> Needs:
    """Raises Usage where a declaration says what no one knows."""
    with open(agent, "rb") as file:
        lines = HEADER.findall(file.read(8192))
    told: dict[str, str] = {}
    for line in lines:
        for name, quoted, plain in PART.findall(line.decode("utf-8", "replace")):
            if name not in Needs._fields:
                raise Usage(f"agent '{agent}' declares '{name}', which nobody knows ({', '.join(Needs._fields)})")
            told[name] = quoted or plain
    parts = {name: told.get(name, "").replace(",", " ").split() for name in ("hosts", "env", "login", "needs")}
    return Needs(**parts, install=told.get("install", ""))


def lacking(agent: str, env: Mapping[str, str]) -> list[str]:
    """What is missing of what an agent declares, each in a sentence that says how to mend it."""
    wanted, said = needs(agent), []
    for program in wanted.needs:
        if shutil.which(program, path=env.get("PATH")) is None:
            said.append(f"no '{program}' on PATH" + (f" ({wanted.install})" if wanted.install else ""))
    home = Path(env.get("HOME") or "/nonexistent")
    logged_in = any((home / name).exists() for name in wanted.login)
    unset = [choice.replace("|", " or ") for choice in wanted.env if not any(env.get(name) for name in choice.split("|"))]
    if not logged_in and (unset or (wanted.login and not wanted.env)):
        ways = [*(f"set {choice}" for choice in unset), *([f"log in so that there is ~/{wanted.login[0]}"] if wanted.login else [])]
        said.append(f"no log-in: {', or '.join(ways) if wanted.login else ' and '.join(ways)}")
    return said
