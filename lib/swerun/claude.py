"""What Claude Code's stream says: how it ended, what it cost, and whether it runs as it was asked to."""

import re
from collections import Counter
from typing import Any

from swerun import driving
from swerun.driving import Event, Given
from swerun.state import read_json, write_json

# dollars for a million tokens (input, output) by family, of the published list of 2026-11; a cache read is a tenth of input, a write 1.25 of it.
# Only the watchdog uses them: what is recorded is the CLI's own sum
PRICES = {"haiku": (1.0, 5.0), "sonnet": (3.0, 15.0), "opus": (5.0, 25.0)}
LEFT_OUT = ("CLAUDE.md", "CLAUDE.local.md", "AGENTS.md", ".claude/CLAUDE.md", ".claude/rules", ".claude/output-styles")
MARGIN = 1.5  # how far past its cap our own rough sum may be before the CLI, which counts itself, is ended from outside
KINDS = {"input": "inputTokens", "output": "outputTokens", "cache_read": "cacheReadInputTokens", "cache_write": "cacheCreationInputTokens"}
LIMITS = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget"}


class Stream:
    """The events of one run of the CLI."""

    def __init__(self, given: Given):
        self.given = given
        self.result: Event = {}
        self.init: Event = {}
        self.tools: Counter[str] = Counter()
        self.spent: dict[str, float] = {}  # dollars by message, by our own rough sum
        self.turns: set[str] = set()
        self.text = ""
        self.refused = ""

    def event(self, event: Event) -> str | None:
        match event.get("type"), event.get("subtype"):
            case "system", "init":
                self.init = self.init or event
                return self._asked_for(event)
            case "system", "api_retry":
                if event.get("error_status") in driving.REFUSED:
                    self.refused = f"the API refuses the log-in ({event['error_status']} {event.get('error') or ''})"
                    return self.refused
            case "assistant", _:
                return self._message(event)
            case "result", _:
                self.result = event
        return None

    def _asked_for(self, event: Event) -> str | None:
        """A server that did not connect must not be a silent run without it."""
        status = {server["name"]: server["status"] for server in event.get("mcp_servers", ())}
        missing = [f"{name} ({status.get(name, 'not there')})" for name in self.given.servers() if status.get(name) != "connected"]
        if missing:
            self.refused = f"MCP server not connected: {', '.join(missing)} (mend '{self.given.mcp_config}', or MCP=0)"
        elif not self.given.mcp and status:
            self.refused = f"MCP=0, and the CLI has {', '.join(status)} all the same"
        return self.refused or None

    def _message(self, event: Event) -> str | None:
        message = event["message"]
        for block in message.get("content", ()):
            if block.get("type") == "tool_use":
                self.tools[block["name"]] += 1
            if block.get("type") == "text" and not event.get("parent_tool_use_id"):
                self.text = block["text"]
        if message.get("model") == "<synthetic>":
            return None
        self.spent[message["id"]] = self.spent.get(message["id"], _cost(message)) + _output(message)
        if not event.get("parent_tool_use_id"):
            self.turns.add(message["id"])
        if self.given.max_cost and sum(self.spent.values()) > MARGIN * float(self.given.max_cost):
            return "it costs more than its cap"
        if self.given.max_turns and len(self.turns) > int(self.given.max_turns) + 2:
            return "it takes more turns than its limit"
        return None

    def usage(self) -> dict[str, Any]:
        versions = self.given.versions()
        known = bool(self.result) or not self.spent
        cost, tokens = self._sums() if self.result else (round(sum(self.spent.values()), 6) or None, None)
        return {
            "cost_usd": cost,
            "tokens": tokens,
            "turns": len(self.turns),
            "stop_reason": self.result.get("terminal_reason") or self.result.get("stop_reason") or self.result.get("subtype"),
            "session_id": self.init.get("session_id") or self.given.session,
            "model": self.init.get("model"),
            "agent_version": self.init.get("claude_code_version"),
            "mcp_servers": [{"name": one["name"], "status": one["status"], **({"version": versions[one["name"]]} if one["name"] in versions else {})} for one in self.init.get("mcp_servers", ())] if self.init else None,
            "tool_calls": dict(self.tools),
            "permission_denials": len(self.result.get("permission_denials") or ()),
            "notes": [*self.switched_off(), *([] if known else ["cost_usd is our own estimate: the CLI ended without its sum"])],
        }

    def _sums(self) -> tuple[float, dict[str, int]]:
        """Cost and tokens of this start: a session that is resumed goes on counting from where it was."""
        models = self.result.get("modelUsage") or {}
        total = {name: sum(one.get(key, 0) for one in models.values()) for name, key in KINDS.items()} | {"cost": self.result.get("total_cost_usd") or 0.0}
        file = self.given.home / "claude-sums.json"
        before = (read_json(file) or {}).get(self.given.session) or dict.fromkeys(total, 0)
        if any(total[name] < before[name] for name in total):  # it began anew
            before = dict.fromkeys(total, 0)
        write_json(file, {self.given.session: total})
        tokens = {name: total[name] - before[name] for name in KINDS}
        return round(total["cost"] - before["cost"], 6), tokens

    def switched_off(self) -> list[str]:
        """What --setting-sources "" leaves out of what CONFIG has."""
        folder = self.given.config
        found = [name for name in LEFT_OUT if folder and (folder / name).exists()]
        return [f"{name} of CONFIG is not read (--setting-sources \"\")" for name in found]

    def end(self, code: int, why: str) -> None:
        """End as the run did: 0 or an outcome, 75 where the API could not be had, 78 where nothing of the kind can run."""
        usage, result = self.usage(), self.result
        if self.refused:
            driving.leave(self.given, usage)
            driving.cannot(self.refused)
        (self.given.out / "answer.md").write_text(self.text, "utf-8", "replace")
        if why:
            over = "budget" if "cap" in why else "max_turns" if "turns" in why else "error"
            driving.leave(self.given, usage | {"status": over, "stop_reason": why})
            return
        if result and not result.get("is_error") and result.get("subtype") == "success":
            driving.leave(self.given, usage)
            return
        if result.get("subtype") in LIMITS:
            driving.leave(self.given, usage | {"status": LIMITS[result["subtype"]], "stop_reason": result["subtype"]})
            return
        if result:
            text = str(result.get("result") or " ".join(map(str, result.get("errors") or ())) or result.get("subtype"))
            driving.failed(self.given, text[:500], usage, result.get("api_error_status") or _status_in(text))
        if code < 0:
            driving.leave(self.given, usage)
            driving.end_as(code)
        reason = driving.said(self.given) or f"claude exited {code} and said nothing"
        if not self.init:
            driving.cannot(f"claude did not start: {reason}")  # a flag it does not know, a session in use, a file that is not there
        driving.failed(self.given, reason, usage)


def merged(one: Any, other: Any) -> Any:
    """Settings with those of another file over them: objects key by key, lists one after the other, as the CLI itself merges its files."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one[key], other[key]) if key in one and key in other else {**one, **other}[key] for key in {**one, **other}}
    return [*one, *other] if isinstance(one, list) and isinstance(other, list) else other


def _status_in(text: str) -> int | None:
    found = re.search(r"API Error: (\d{3})\b", text)
    return int(found[1]) if found else None


def _price(model: str) -> tuple[float, float]:
    return next((price for family, price in PRICES.items() if family in model), max(PRICES.values()))


def _cost(message: dict[str, Any]) -> float:
    usage, (price, _) = message.get("usage") or {}, _price(message.get("model", ""))
    weights = {"input_tokens": 1.0, "cache_read_input_tokens": 0.1, "cache_creation_input_tokens": 1.25}
    return sum((usage.get(name) or 0) * weight for name, weight in weights.items()) * price / 1e6


def _output(message: dict[str, Any]) -> float:
    """By the length of what was said: the stream's own number is not final."""
    return len(driving.orjson.dumps(message.get("content"))) / 4 * _price(message.get("model", ""))[1] / 1e6
