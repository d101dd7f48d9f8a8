"""What an agent leaves in AGENT_OUT, read without believing it: whatever it is, it costs no result."""

from pathlib import Path
from typing import Any, Mapping

import orjson

from swerun.state import remove_tree


def left(file: Path) -> str:
    """The text of a file that an agent may have left; "" where there is none, or where it is no answer but a flood."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > 5_000_000:
        return ""
    return file.read_text("utf-8", "replace")


def put(file: Path, data: bytes) -> None:
    """Write a file where an agent may have left something else under its name. No state, and so not forced to the disk, which takes its time."""
    if file.is_symlink() or file.is_dir():
        remove_tree(file)
    file.write_bytes(data)


NUMBERS = ("cost_usd", "turns", "permission_denials")
COUNTED = ("tokens", "tool_calls")  # {kind: number}
WORDS = ("session_id", "model", "agent_version", "stop_reason", "status")


def read_usage(file: Path) -> dict[str, Any]:
    """What an agent says of one start, in the keys and kinds of value that are known; whatever else it left is left out."""
    try:
        told = orjson.loads(left(file) or "{}")
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(told, dict):
        return {}
    found: dict[str, Any] = {name: told[name] for name in (*NUMBERS, "retry_at") if _is_number(told.get(name))}
    found |= {name: {str(kind): number for kind, number in told[name].items() if _is_number(number)} for name in COUNTED if isinstance(told.get(name), dict)}
    found |= {name: told[name][:500] for name in WORDS if isinstance(told.get(name), str)}
    servers, notes = told.get("mcp_servers"), told.get("notes")
    if isinstance(servers, list):
        found["mcp_servers"] = [{str(key): str(value)[:200] for key, value in one.items()} for one in servers[:100] if isinstance(one, dict)]
    if isinstance(notes, list):
        found["notes"] = [note[:500] for note in notes[:50] if isinstance(note, str)]
    return found


def add(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two usages as one: numbers added up, everything else as the later one says."""
    both = {**first, **second}
    for name in NUMBERS:
        numbers = [told[name] for told in (first, second) if told.get(name) is not None]
        both[name] = round(sum(numbers), 6) if numbers else None
    for name in COUNTED:
        kinds = [told[name] for told in (first, second) if told.get(name) is not None]
        both[name] = {kind: sum(one.get(kind, 0) for one in kinds) for kind in dict.fromkeys(key for one in kinds for key in one)} if kinds else None
    return both


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
