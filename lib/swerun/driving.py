"""For the agent files in lib/agents: the contract read from the environment, a CLI run with its stream kept, what it cost left behind."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NoReturn

import orjson

from swerun.process import die_with_parent
from swerun.state import write_json

AGAIN_LATER, CANNOT_RUN = 75, 78
POLL = 0.05
# the HTTP answers after which asking again later helps, and those after which only a person can help
BUSY, REFUSED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529}), frozenset({401, 402, 403})
BUSY_WORDS = re.compile(r"(?i)rate.?limit|overloaded|too many requests|quota.*exceeded|usage limit|connection (error|refused|reset|closed|was closed)|unable to connect|ECONN|ETIMEDOUT|ENOTFOUND|fetch failed|socket hang up|service unavailable|bad gateway|\b(429|50[0234]|529)\b")
REFUSED_WORDS = re.compile(r"(?i)invalid.{0,9}api.?key|incorrect api key|authentication|unauthori[sz]ed|not logged in|please run /login|log ?in again|(token|login).{0,20}expired|credit balance|\b(401|403)\b")
Event = dict[str, Any]


class Given:
    """What the runner gives an agent, by name (README: Agents)."""

    def __init__(self, env: Mapping[str, str] = os.environ):
        self.prompt = Path(env["AGENT_PROMPT_FILE"])
        self.out, self.home = Path(env["AGENT_OUT"]), Path(env["AGENT_HOME"])
        self.session, self.resume = env["AGENT_SESSION"], env.get("AGENT_RESUME") == "1"
        self.model, self.effort = env.get("AGENT_MODEL", ""), env.get("AGENT_EFFORT", "")
        self.max_turns, self.max_cost = env.get("AGENT_MAX_TURNS", ""), env.get("AGENT_MAX_COST", "")
        self.instructions, self.mcp = Path(env["AGENT_INSTRUCTIONS_FILE"]), env.get("AGENT_MCP") != "0"
        self.config = Path(env["AGENT_CONFIG"]) if env.get("AGENT_CONFIG") else None
        self.mcp_config = env.get("AGENT_MCP_CONFIG", "")
        self.transcript = self.out / "transcript.jsonl"

    def servers(self) -> dict[str, Any]:
        """The MCP servers of the configuration that holds, by name; with MCP=0 none."""
        if not self.mcp or not self.mcp_config:
            return {}
        return json_file(Path(self.mcp_config)).get("mcpServers") or {}

    def tapped(self) -> str:
        """An MCP configuration of the same servers, those on stdio by way of swerun.mcptap, which notes their versions."""
        servers = {}
        for name, server in self.servers().items():
            if isinstance(server, dict) and server.get("command"):
                words = ["-I", "-m", "swerun.mcptap", str(self._noted(name)), server["command"], *server.get("args", ())]
                server = {**server, "command": sys.executable, "args": words}
            servers[name] = server
        write_json(self.out / "mcp.json", {"mcpServers": servers})
        return str(self.out / "mcp.json")

    def versions(self) -> dict[str, str]:
        """{MCP server: the version that it says it has}"""
        return {name: json_file(self._noted(name)).get("version", "") for name in self.servers() if self._noted(name).is_file()}

    def _noted(self, name: str) -> Path:
        return self.out / f"mcp-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.json"

    def asked(self) -> str:
        """The prompt with the instructions before it, for a CLI that has no place for these."""
        return f"{self.instructions.read_text('utf-8')}\n{self.prompt.read_text('utf-8', 'surrogatepass')}"


def json_file(file: Path) -> dict[str, Any]:
    """An object in a JSON file of the user's; ends the agent where it is none, for a CLI would ignore it silently."""
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        cannot(f"cannot read '{file}': {error}")
    if not isinstance(found, dict):
        cannot(f"'{file}' is no JSON object")
    return found


def program(name: str, install: str) -> str:
    return shutil.which(name) or cannot(f"no '{name}' on PATH (install it: {install})")


def cannot(why: str) -> NoReturn:
    """Nothing of this kind can run here: no log-in, no binary, no MCP server."""
    print(why, file=sys.stderr)
    raise SystemExit(CANNOT_RUN)


def later(given: Given, why: str, usage: Mapping[str, Any], retry_at: float | None = None) -> NoReturn:
    """The model cannot be had now."""
    write_json(given.out / "usage.json", {**usage, "retry_at": retry_at})
    print(why, file=sys.stderr)
    raise SystemExit(AGAIN_LATER)


def failed(given: Given, why: str, usage: Mapping[str, Any], status: int | None = None) -> NoReturn:
    """End as the reason says: a refused log-in, a model that cannot be had now, or a failure of the agent itself."""
    if status in REFUSED or (status is None and REFUSED_WORDS.search(why)):
        write_json(given.out / "usage.json", dict(usage))
        cannot(why)
    if status in BUSY or (status is None and BUSY_WORDS.search(why)):
        later(given, why, usage, reset_time(why))
    print(why, file=sys.stderr)
    leave(given, {**usage, "status": "error", "stop_reason": usage.get("stop_reason") or why[:200]})
    raise SystemExit(1)


def leave(given: Given, usage: Mapping[str, Any]) -> None:
    write_json(given.out / "usage.json", dict(usage))


def reset_time(why: str) -> float | None:
    """When a limit ends, where the message says it: `…limit reached|1750000000`."""
    found = re.search(r"\|(\d{10})\b", why)
    return float(found[1]) if found else None


def follow(given: Given, argv: list[str], env: Mapping[str, str], on_event: Callable[[Event], str | None], prompt: Path | None = None, errors: str = "cli-stderr.txt") -> tuple[int, str]:
    """Run a CLI to its end, its output kept as the transcript as it arrives; (its exit code, why we ended it or "").

    Every line that is a JSON object is given to `on_event`, which ends the CLI by giving a reason. Our own end ends it, too,
    and asks it first: then it writes down what it cost.
    """
    asked: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append("the time is up"))
    with open(given.transcript, "ab") as transcript, open(given.out / errors, "ab") as stderr, open(prompt or os.devnull, "rb") as stdin, open(given.transcript, "rb") as read:
        read.seek(0, os.SEEK_END)
        child = subprocess.Popen(argv, env=dict(env), stdin=stdin, stdout=transcript, stderr=stderr, start_new_session=True, preexec_fn=die_with_parent)
        rest, why = b"", ""
        while True:
            ended = child.poll() is not None
            rest, reason = _events(rest + read.read(), on_event, ended)
            why = why or reason or "".join(asked[:1])
            if ended:
                return child.returncode, why
            if why:
                _end(child)
                continue
            time.sleep(POLL)


def _events(data: bytes, on_event: Callable[[Event], str | None], last: bool) -> tuple[bytes, str]:
    *lines, rest = data.split(b"\n")
    why = ""
    for line in [*lines, rest] if last else lines:
        with contextlib.suppress(orjson.JSONDecodeError):
            event = orjson.loads(line)
            if isinstance(event, dict):
                why = why or on_event(event) or ""
    return b"" if last else rest, why


def _end(child: subprocess.Popen) -> None:
    for number, seconds in ((signal.SIGINT, 7), (signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
            return


def said(given: Given, errors: str = "cli-stderr.txt") -> str:
    """The last line that the CLI said as an error."""
    text = (given.out / errors).read_text("utf-8", "replace").strip().splitlines()
    return text[-1][:500] if text else ""


def end_as(returncode: int) -> NoReturn:
    """End as the CLI did, by its signal if it was killed by one."""
    if returncode < 0:
        signal.signal(-returncode, signal.SIG_DFL) if -returncode not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -returncode)
    raise SystemExit(returncode)
