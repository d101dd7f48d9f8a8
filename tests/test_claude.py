"""The real Claude Code CLI against a scripted model API: what it is given, what is made of its stream, and every way it fails."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from conftest import ROWS, TOOLKIT, Place

VERSION = "2.1.330"
MODEL = "claude-sonnet-4-5"
TURN = 1000 * 3e-6 + 100 * 15e-6  # dollars: what a scripted answer says that it used, at this model's price
ID = "swerun-sample__textkit-14"
MODULE = "src/textkit/slug.py"
WRITES = {"tools": [{"name": "Bash", "input": {"command": "echo '# fine' >> README.md"}}]}
ONE = {"FEEDBACK": "none", "IDS": ID, "MODEL": MODEL}


@pytest.fixture(scope="session")
def claude(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with the CLI on it: the caller's, or one that npm installs for this session."""
    if shutil.which("claude"):
        return os.environ["PATH"]
    if not shutil.which("npm") and not os.environ.get("CI"):  # there it must be
        pytest.skip("neither claude nor npm is there")
    folder = tmp_path_factory.mktemp("claude")
    subprocess.run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), f"@anthropic-ai/claude-code@{VERSION}"], check=True, capture_output=True, timeout=300)
    return f"{os.environ['PATH']}:{folder}/node_modules/.bin"


class Api:
    """The scripted API, its log of requests, and commands run against it."""

    def __init__(self, place: Place, path: str, folder: Path):
        self.place, self.folder, self.log, self.run_name = place, folder, folder / "requests.jsonl", folder.name
        self.server: subprocess.Popen | None = None
        # not root's: the CLI is to work for both, and says so itself where it does not
        self.env = {"PATH": path, "ANTHROPIC_API_KEY": "dummy", "DATASET": "sample", "AGENT": "claude", "RUN": self.run_name, "PATIENCE": "60"}

    def serve(self, turns: list[dict[str, Any]], port: int = 0) -> None:
        self.stop()
        (self.folder / "script.json").write_text(json.dumps(turns))
        words = [TOOLKIT / ".venv/bin/python", TOOLKIT / "tests/scripted_api.py", self.folder / "script.json", "--log", self.log, "--port", str(port)]
        self.server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.env["ANTHROPIC_BASE_URL"] = self.server.stdout.readline().strip()

    def stop(self) -> None:
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None

    def make(self, jobs: int = 1, code: int | None = 0, **options: str) -> subprocess.CompletedProcess:
        return self.place.run("make", "-s", "run", f"-j{jobs}", code=code, **self.env | ONE | options)

    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests that ask the model."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [line["body"] for line in lines if line["method"] == "POST" and line["path"].split("?")[0].endswith("/messages")]

    def record(self, name: str = ID) -> dict[str, Any]:
        return self.place.state(self.run_name, name, "agent.json")

    def events(self, name: str = ID, attempt: int = 1) -> list[dict[str, Any]]:
        text = self.place.state(self.run_name, name, f"attempts/{attempt}/transcript.jsonl")
        return [json.loads(line) for line in text.splitlines()]

    def init(self) -> dict[str, Any]:
        return next(event for event in self.events() if event.get("subtype") == "init")


@pytest.fixture
def api(warm: Place, claude: str, tmp_path: Path) -> Iterator[Api]:
    made = Api(warm, claude, tmp_path)
    with contextlib.suppress(FileNotFoundError):
        (warm.artifacts / "cache/backoff/claude.json").unlink()
    yield made
    made.stop()


def config(folder: Path, server: str = "scripted_mcp.py") -> Path:
    (folder / ".claude/commands").mkdir(parents=True)
    (folder / ".claude/rules").mkdir()
    (folder / ".claude/CLAUDE.md").write_text("MARKER-CONFIG")
    (folder / ".claude/commands/greet.md").write_text("Say hello")
    hook = {"matcher": "*", "hooks": [{"type": "command", "command": f"echo $PPID >> {folder}/hooked"}]}
    (folder / ".claude/settings.json").write_text(json.dumps({"hooks": {"PreToolUse": [hook]}}))
    (folder / ".mcp.json").write_text(json.dumps({"mcpServers": {"index": {"command": "python3", "args": [str(TOOLKIT / "tests" / server)]}}}))
    return folder


def test_a_run_of_the_sample_solves_what_it_can_and_learns_from_tests_where_it_cannot(api: Api, tmp_path: Path):
    for name, row in ROWS.items():
        (tmp_path / f"{name}.diff").write_text(row["patch"])
    (tmp_path / "solve.sh").write_text(f"""name=$(basename "$(dirname "$PWD")")
        if [ $name = {ID} ]; then echo 'raise ValueError("broken on purpose")' >> {MODULE}; else git apply {tmp_path}/$name.diff; fi""")
    api.serve([{"text": "Looking.", "tools": [{"name": "Bash", "input": {"command": f"sh {tmp_path}/solve.sh"}}]}, {"tools": [{"name": "mcp__index__lookup", "input": {"symbol": "slug"}}]}, {"text": "Solved."}])
    folder = config(tmp_path / "config", "scripted_mcp.py")
    options = {"IDS": "", "FEEDBACK": "visible", "ITERATIONS": "3", "CONFIG": str(folder)}
    api.make(4, **options)
    for name in ROWS:
        record = api.place.state(api.run_name, name, "tests.json")
        attempts = 3 if name == ID else 1
        assert (record["resolved"], record["agent"]["attempts"], record["agent"]["status"]) == (name != ID, attempts, "completed")
        assert record["agent"]["cost_usd"] == pytest.approx(3 * TURN * attempts)
        assert record["agent"]["tokens"] == {"input": 3000 * attempts, "output": 300 * attempts, "cache_read": 0, "cache_write": 0}
        assert record["agent"]["turns"] == 3 * attempts and record["agent"]["tool_calls"] == {"Bash": attempts, "mcp__index__lookup": attempts}
        assert record["agent"]["mcp_servers"] == [{"name": "index", "status": "connected", "version": "0.1"}] and record["agent"]["permission_denials"] == 0
        assert (record["agent"]["model"], record["model_name_or_path"]) == (MODEL, f"claude-{MODEL}") and record["agent"]["agent_version"]
        assert [event["type"] for event in api.events(name)][-1] == "result"
    assert any("broken on purpose" in json.dumps(body["messages"][0]) and "These tests failed" in json.dumps(body["messages"][0]) for body in api.asked())
    assert len((folder / "hooked").read_text().split()) == 2 * 7  # each tool call of each attempt
    before = len(api.asked())
    assert before == 3 * 7
    api.make(4, **options)
    assert len(api.asked()) == before


def test_it_is_given_the_solving_part_of_CLAUDE_md_and_nothing_of_anybodys_memory(api: Api, tmp_path: Path):
    folder = config(tmp_path / "config")
    home = api.place.home
    for file in (home / ".claude/CLAUDE.md", home / "CLAUDE.md", api.place.artifacts / "CLAUDE.md", api.place.artifacts / "worktrees/CLAUDE.md", api.place.artifacts / "AGENTS.md", folder / "CLAUDE.md"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("MARKER of somebody")
    (home / ".claude/settings.json").write_text(json.dumps({"env": {"MARKER": "1"}, "hooks": {"PreToolUse": [{"matcher": "*", "hooks": [{"type": "command", "command": f"touch {tmp_path}/somebodys"}]}]}}))
    (home / ".claude.json").write_text(json.dumps({"mcpServers": {"somebodys": {"command": "false", "args": []}}}))
    api.serve([WRITES])
    api.make(CONFIG=str(folder), MCP="0")
    asked = json.dumps(api.asked())
    instructions = re.search(r"## When you solve a task\n(.*?)## When you work", (TOOLKIT / "CLAUDE.md").read_text(), re.S)[1]
    assert all(line.strip("- ") in json.loads(json.dumps(asked)).replace("\\n", "\n").replace('\\"', '"').replace('\\\\', "\\") for line in instructions.strip().splitlines()[2:4])
    assert "MARKER" not in asked and "When you work on this toolkit" not in asked and ROWS[ID]["problem_statement"][:40] in asked
    assert api.init()["mcp_servers"] == [] and not [name for name in api.init()["tools"] if name.startswith("mcp__")]
    assert (folder / "hooked").exists() and not (tmp_path / "somebodys").exists()  # CONFIG's hooks, nobody else's
    assert any("greet" in name for name in api.init()["slash_commands"])
    for file in (home / ".claude", home / ".claude.json"):
        subprocess.run(["rm", "-rf", file], check=True)


def test_a_configured_server_that_does_not_start_is_an_error(api: Api, tmp_path: Path):
    folder = config(tmp_path / "config", "no-such-server.py")
    api.serve([WRITES])
    done = api.make(code=2, CONFIG=str(folder))
    assert "MCP server not connected: index" in done.stderr and "was stopped" in done.stderr
    assert not (api.place.artifacts / "runs" / api.run_name / ID / "agent.json").exists()


@pytest.mark.parametrize("text", ["{broken", "[1]"])
def test_settings_that_are_no_json_are_said_and_not_silently_ignored(api: Api, tmp_path: Path, text: str):
    folder = config(tmp_path / "config")
    (folder / ".claude/settings.json").write_text(text)
    api.serve([WRITES])
    assert "settings.json" in api.make(code=2, CONFIG=str(folder), MCP="0").stderr and not api.asked()


@pytest.mark.parametrize(("status", "times"), [(429, 4), pytest.param(529, 7, marks=pytest.mark.slow)])
def test_a_limit_and_an_overload_are_waited_out_in_the_same_session(api: Api, status: int, times: int):
    api.serve([WRITES, {"status": status, "times": times, "message": "not now", "text": "Done."}])
    api.make()
    record = api.record()
    starts = [event for event in api.events() if event.get("subtype") == "init"]
    assert len(starts) >= 2 and len({event["session_id"] for event in starts}) == 1
    assert record["agent"]["status"] == "completed" and record["agent"]["waited_seconds"] > 3 and record["model_patch"].count("+# fine") == 1
    assert record["agent"]["cost_usd"] == pytest.approx(2 * TURN)  # a resumed session's sum goes on, and is not added up twice


def test_an_expired_log_in_stops_the_run_at_once_with_one_line(api: Api):
    api.serve([{"status": 401, "message": "OAuth token has expired"}])
    start = time.monotonic()
    done = api.make(2, code=2, IDS="")
    assert time.monotonic() - start < 40 and not list(api.place.artifacts.glob(f"runs/{api.run_name}/*/agent.json"))
    assert len([line for line in done.stderr.splitlines() if "was stopped: agent 'claude' cannot run" in line]) == 1


def test_a_connection_that_dies_in_the_middle_is_taken_up_again(api: Api):
    api.serve([WRITES, {"cut": True, "times": 2, "text": "Done."}])
    api.make()
    assert api.record()["agent"]["status"] == "completed" and api.record()["model_patch"].count("+# fine") == 1


def test_a_cli_that_hangs_ends_at_the_time_limit_with_what_it_did(api: Api):
    api.serve([WRITES, {"delay": 100, "text": "late"}])
    api.make(TIMEOUT="8")
    record = api.record()
    assert record["agent"]["status"] == "timeout" and "+# fine" in record["model_patch"] and 7 < record["agent"]["seconds"] < 30
    assert record["agent"]["cost_usd"] == pytest.approx(TURN, rel=0.5)  # what it had cost until then


def test_a_cli_that_is_killed_and_leaves_a_daemon_is_an_outcome_and_nothing_stays(api: Api, tmp_path: Path):
    command = f"echo '# fine' >> README.md; (setsid sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 300' >/dev/null 2>&1 &); sleep 0.5; kill -9 $(ps -o ppid= -p $$) $PPID"
    api.serve([{"tools": [{"name": "Bash", "input": {"command": command}}]}])
    api.make()
    assert api.record()["agent"]["status"] == "crashed" and "+# fine" in api.record()["model_patch"]
    assert not Path(f"/proc/{(tmp_path / 'daemon').read_text().strip()}").exists()


def test_an_api_that_is_down_gives_no_result_and_the_next_run_completes(api: Api):
    api.serve([WRITES])
    port = int(api.env["ANTHROPIC_BASE_URL"].rsplit(":", 1)[1])
    api.stop()
    done = api.make(2, code=2, IDS=" ".join(list(ROWS)[:3]), PATIENCE="5")
    assert "run again later" in done.stderr and not list(api.place.artifacts.glob(f"runs/{api.run_name}/*/agent.json"))
    api.serve([WRITES], port)
    api.make(2, IDS=" ".join(list(ROWS)[:3]))
    assert len(list(api.place.artifacts.glob(f"runs/{api.run_name}/*/tests.json"))) == 3


def test_limits_of_turns_and_money_are_outcomes(api: Api):
    api.serve([WRITES, *[{"tools": [{"name": "Bash", "input": {"command": "true"}}]}] * 9])
    api.make(MAX_TURNS="2")
    assert api.record()["agent"]["status"] == "max_turns" and "+# fine" in api.record()["model_patch"]
    api.run_name = api.env["RUN"] = api.run_name + "-cost"
    api.make(MAX_COST=f"{1.5 * TURN:.5f}")
    assert api.record()["agent"]["status"] == "budget" and api.record()["agent"]["cost_usd"] == pytest.approx(2 * TURN)


def test_a_budget_over_four_workers_is_passed_by_one_tasks_cap_at_most(api: Api):
    usage = {"input_tokens": 33_000, "output_tokens": 67}  # two answers cost 0.20 $
    api.serve([WRITES | {"usage": usage}, {"text": "Done.", "usage": usage}])
    done = api.make(4, code=2, IDS="", BUDGET="0.50", MAX_COST="0.2")
    costs = [api.place.state(api.run_name, name, "agent.json")["agent"]["cost_usd"] for name in ROWS if (api.place.artifacts / "runs" / api.run_name / name / "agent.json").exists()]
    assert costs == [pytest.approx(0.2, abs=0.001)] * 2 and "was stopped: BUDGET" in done.stderr
    api.make(4, IDS="", BUDGET="5", MAX_COST="0.25")
    assert len(list(api.place.artifacts.glob(f"runs/{api.run_name}/*/tests.json"))) == 5


def test_the_watchdog_ends_a_cli_that_goes_past_its_cap_by_its_own_stream(api: Api, tmp_path: Path):
    """A CLI that does not keep to its cap: the stream of one that says what it used, and goes on."""
    message = {"model": MODEL, "content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 100_000}}
    (tmp_path / "bin").mkdir()
    lines = "\n".join(f"echo '{json.dumps({'type': 'assistant', 'message': message | {'id': f'm{number}'}})}'; sleep 0.3" for number in range(60))
    (tmp_path / "bin/claude").write_text(f"#!/bin/sh\necho '# fine' >> README.md\necho '{json.dumps({'type': 'system', 'subtype': 'init', 'session_id': 's', 'mcp_servers': []})}'\n{lines}\n")
    (tmp_path / "bin/claude").chmod(0o755)
    api.env |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}
    start = time.monotonic()
    api.make(MAX_COST="1")
    assert time.monotonic() - start < 17 and api.record()["agent"]["status"] == "budget"
    assert 1.5 < api.record()["agent"]["cost_usd"] < 2.5 and "estimate" in api.record()["agent"]["notes"][0]


def test_check_tries_it(api: Api):
    api.serve([WRITES])
    said = api.place.run("bin/run-agent", "--check", "claude", "--model", MODEL, **api.env).stderr
    assert said.count("ok: ") == 3 and "note" not in said
    without = api.place.run("bin/run-agent", "--check", "claude", code=1, **api.env | {"ANTHROPIC_API_KEY": ""}).stderr
    assert "no log-in" in without and "ANTHROPIC_API_KEY" in without
