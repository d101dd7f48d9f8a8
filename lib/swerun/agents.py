"""Agents: the three built in, and any executable, started in the worktree by the contract that the README gives."""

import os
import re
import time
import uuid
from pathlib import Path
from typing import Any, Mapping

import orjson

from swerun import checkouts, patches, paths, services, spec as specs, venvs, workspace
from swerun.errors import Fatal, TryLater, Usage
from swerun.process import MARK, clean_env, run_limited
from swerun.runs import agent_label
from swerun.state import remove_tree, write_file
from swerun.workspace import Workspace

BUILT_IN = ("gold", "null", "replay")
AGAIN_LATER, CANNOT_RUN = 75, 78  # EX_TEMPFAIL and EX_CONFIG of sysexits.h
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


def outcome(status: str, seconds: float, usage: Mapping[str, Any] | None = None, session: str | None = None) -> Record:
    told = usage or {}
    return {
        "status": status,
        "attempts": 1,
        "seconds": round(seconds, 3),
        "cost_usd": told.get("cost_usd"),
        "tokens": told.get("tokens"),
        "session_id": told.get("session_id") or session,
        "isolation": "none",
    }


def read_template(template: str) -> str:
    """The text of PROMPT, or of the default one. Raises Usage."""
    file = Path(template) if template else paths.PROMPTS / "solve.md"
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read the prompt template '{file}': {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


def prompt_for(row: dict[str, Any], template: str, checkout: Path) -> bytes:
    """A prompt template with {{problem_statement}}, {{instance_id}}, {{repo}}, {{version}}, {{base_commit}} and {{worktree}} filled in."""
    text = read_template(template)
    known = {key: str(row.get(key, "")) for key in ("problem_statement", "instance_id", "repo", "version", "base_commit")} | {"worktree": str(checkout)}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: known.get(found[1], found[0]), text).encode("utf-8", "surrogatepass")


def run(agent: str, row: dict[str, Any], record: Record, space: Workspace, chosen: Mapping[str, str]) -> Record:
    """One attempt of an executable agent. Raises TryLater or Fatal where the agent says that the fault is not its own."""
    out = paths.task_dir(record["run"], record["instance_id"]) / "attempts" / "1"
    remove_tree(out)
    paths.make_dir(out)
    prompt = out / "prompt.md"
    write_file(prompt, prompt_for(row, chosen["PROMPT"], space.checkout))
    place, session = workspace.agent_place(record), str(uuid.uuid4())
    mcp = space.checkout / ".mcp.json"
    env = venvs.activated(space.venv, clean_env()) | {
        "AGENT_PROMPT_FILE": str(prompt),
        "AGENT_OUT": str(out),
        "AGENT_INSTANCE_ID": row["instance_id"],
        "AGENT_ATTEMPT": "1",
        "AGENT_TIMEOUT_S": chosen["TIMEOUT"],
        "AGENT_MODEL": chosen["MODEL"],
        "AGENT_EFFORT": chosen["EFFORT"],
        "AGENT_MAX_TURNS": chosen["MAX_TURNS"],
        "AGENT_MCP_CONFIG": str(mcp.resolve()) if chosen["MCP"] != "0" and mcp.is_symlink() else "",
        "AGENT_FEEDBACK_FILE": "",
        "AGENT_SESSION": session,
        # without a .git of its own, its git must not find a repository that the worktree lies in
        "GIT_CEILING_DIRECTORIES": str(space.checkout.parent),
        MARK: str(place),
    }
    start = time.monotonic()
    checkouts.mark_used(space.checkout)
    serving = services.running(specs.of(row), space.venv, place, env)
    with serving as env, open(prompt, "rb") as stdin, open(out / "stdout.txt", "wb") as stdout, open(out / "stderr.txt", "wb") as stderr:
        ended = run_limited([agent], cwd=space.checkout, env=env, timeout=float(chosen["TIMEOUT"]), stdin=stdin, stdout=stdout, stderr=stderr)
    paths.make_dir(out)  # an agent may delete even that
    status = _status(agent, ended.returncode, ended.timed_out, out)
    patch = _patch(row, space, out)
    write_file(out / "patch.diff", patch.encode())
    usage = _usage(out / "usage.json")
    name = agent_label(agent) + (f"-{chosen['MODEL']}" if chosen["MODEL"] else "")
    return {"model_patch": patch, "model_name_or_path": name, "agent": outcome(status, time.monotonic() - start, usage, session)}


def _status(agent: str, returncode: int, timed_out: bool, out: Path) -> str:
    if timed_out:
        return "timeout"
    if returncode in (AGAIN_LATER, CANNOT_RUN):
        said = _left(out / "stderr.txt").strip().splitlines()
        why = f"'{agent}' exited {returncode}: {said[-1][:200] if said else 'it said nothing'}"
        raise TryLater(f"{why} (run again later)") if returncode == AGAIN_LATER else Fatal(f"{why} (the agent cannot run at all here)")
    if returncode < 0:
        return "crashed"
    return "completed" if returncode == 0 else "error"


def _patch(row: dict[str, Any], space: Workspace, out: Path) -> str:
    """What the agent changed; where it changed nothing, the diff that it left in patch.diff or printed."""
    patch = patches.take(row, space)
    if patch.strip():
        return patch
    found = _left(out / "patch.diff")
    if not found.strip():
        found = patches.find(_left(out / "stdout.txt").replace("\r\n", "\n"))
    if not found.strip():
        return patch
    applied = patches.apply_printed(row, space, found)
    # one that does not apply is handed on as it is: grading has more ways to apply it, and then says so
    return patches.take(row, space) if applied else found


def _left(file: Path) -> str:
    """The text of a file that an agent may have left; "" where there is none, or where it is no answer but a flood."""
    if not file.is_file() or file.stat().st_size > 20_000_000:
        return ""
    return file.read_text("utf-8", "replace")


def _usage(file: Path) -> dict[str, Any]:
    try:
        told = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return told if isinstance(told, dict) else {}
