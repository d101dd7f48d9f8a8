"""The agent files of other CLIs, each run for real against a scripted model API: what it edits, what it says it cost, and how it fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import pytest
from conftest import TOOLKIT, Place

pytestmark = pytest.mark.slow
ID = "swerun-sample__textkit-14"
MODULE = "src/textkit/slug.py"
EDIT = f"command -v python; sed -i 's/return slug.:max_length.$/return slug[:max_length].rstrip(separator)/' {MODULE}"
BLOCK = f"{MODULE}\n```python\n<<<<<<< SEARCH\n    return slug[:max_length]\n=======\n    return slug[:max_length].rstrip(separator)\n>>>>>>> REPLACE\n```\n"
SONNET = "anthropic/claude-sonnet-4-5-20250929"  # its price is known to all: 3 and 15 dollars
ANTHROPIC = {"input_tokens": 1000, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 10, "output_tokens": 70}
COST = 1000 * 3e-6 + 500 * 0.3e-6 + 10 * 3.75e-6 + 70 * 15e-6
LATER = 1000 * 3e-6 + 100 * 15e-6  # of each answer without numbers of its own
TOKENS = {"input": 1000, "output": 70, "cache_read": 500, "cache_write": 10}


class Case(NamedTuple):
    program: str
    api: str                       # the scripted server
    model: str
    env: dict[str, str]            # {url} is the server's
    script: list[dict[str, Any]]   # the turns of a task
    answers: int                   # without numbers of their own: 1000 tokens in, 100 out
    cost: float | None
    tools: dict[str, int] | None
    mcp: dict[str, Any] | None     # the turn that asks the MCP server, where the CLI takes any
    options: tuple[str, ...] = ()  # of the server


CASES = {
    "codex": Case(
        "codex", "openai", "x", {"OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "dummy"},
        [{"text": "I edit it.", "tools": [{"name": "exec_command", "arguments": {"cmd": EDIT}}], "usage": {"input_tokens": 1500, "cached_tokens": 500, "output_tokens": 70}}, {"text": "It is mended."}],
        1, None, {"command_execution": 1}, {"tools": [{"name": "lookup", "namespace": "mcp__codeindex", "arguments": {"symbol": "slugify"}}]}),
    "gemini": Case(
        "gemini", "gemini", "gemini-2.5-pro", {"GOOGLE_GEMINI_BASE_URL": "{url}", "GEMINI_API_KEY": "dummy"},
        [{"text": "I edit it.", "tools": [{"name": "run_shell_command", "args": {"command": EDIT}}], "usage": {"promptTokenCount": 1500, "cachedContentTokenCount": 500, "candidatesTokenCount": 70}}, {"text": "It is mended."}],
        1, None, {"run_shell_command": 1}, {"tools": [{"name": "mcp_codeindex_lookup", "args": {"symbol": "slugify"}}]}),
    "opencode": Case(
        "opencode", "api", SONNET, {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": "dummy"},
        [{"text": "I edit it.", "tools": [{"name": "bash", "input": {"command": EDIT, "description": "edits"}}], "usage": ANTHROPIC}, {"text": "It is mended."}],
        1, COST + LATER, {"bash": 1}, {"tools": [{"name": "codeindex_lookup", "input": {"symbol": "slugify"}}]}),
    "aider": Case(
        "aider", "api", SONNET, {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": "dummy"},
        [{"text": f"I need {MODULE} for it."}, {"text": f"It is mended.\n\n{BLOCK}"}],
        2, 2 * LATER, None, None, ("--sequential",)),
    "mini-swe-agent": Case(
        "mini", "api", SONNET, {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": "dummy"},
        [{"text": "I edit it.", "tools": [{"name": "bash", "input": {"command": EDIT}}], "usage": ANTHROPIC},
         {"text": "It is mended.", "tools": [{"name": "bash", "input": {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}}]}],
        1, COST + LATER, {"bash": 2}, None),
}
TAKE_MCP = [name for name, case in CASES.items() if case.mcp]


class Lab:
    """Agents run against scripted servers."""

    def __init__(self, place: Place, folder: Path):
        self.place, self.folder, self.servers = place, folder, list[subprocess.Popen]()

    def start(self, agent: str, turns: list[dict[str, Any]], *words: str, **more: Any) -> subprocess.CompletedProcess:
        case = CASES[agent]
        if not shutil.which(case.program):
            pytest.skip(f"no '{case.program}' on PATH")
        (self.folder / "script.json").write_text(json.dumps(turns))
        argv = [sys.executable, TOOLKIT / f"tests/scripted_{case.api}.py", self.folder / "script.json", "--log", self.folder / "log.jsonl", *case.options]
        self.servers.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        url = self.servers[-1].stdout.readline().strip()
        (self.place.artifacts / f"cache/backoff/{agent}.json").unlink(missing_ok=True)
        env = {name: value.replace("{url}", url) for name, value in case.env.items()} | {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        chosen = {"--dataset": "sample", "--run": self.folder.name, "--agent": agent, "--model": case.model, "--feedback": "none", "--patience": "0"} | dict(zip(words[::2], words[1::2]))
        return self.place.run("bin/run-agent", *(word for pair in chosen.items() for word in pair), ID, **env | more)

    def left(self, name: str) -> str:
        return self.place.state(self.folder.name, ID, f"attempts/1/{name}")


@pytest.fixture
def lab(warm: Place, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(warm, tmp_path)
    yield made
    for server in made.servers:
        server.kill()
        server.wait()


def config(folder: Path, *command: str) -> str:
    (folder / "config").mkdir()
    (folder / "config/.mcp.json").write_text(json.dumps({"mcpServers": {"codeindex": {"command": command[0], "args": command[1:]}}}))
    return str(folder / "config")


@pytest.mark.parametrize("agent", CASES)
def test_its_edit_is_the_prediction_and_its_figures_are_the_apis(lab: Lab, agent: str) -> None:
    case = CASES[agent]
    record = json.loads(lab.start(agent, case.script).stdout)
    told = record["agent"]
    assert told["status"] == "completed" and told["extracted"] is None
    assert record["model_patch"].count("diff --git") == 1 and f"+++ b/{MODULE}" in record["model_patch"] and "+    return slug[:max_length].rstrip(separator)" in record["model_patch"]
    first = {"input": 0, "output": 0} if case.options else TOKENS if case.cost else TOKENS | {"cache_write": 0}
    assert told["tokens"] == first | {"input": first["input"] + 1000 * case.answers, "output": first["output"] + 100 * case.answers}
    assert told["cost_usd"] == (pytest.approx(case.cost, abs=2e-6) if case.cost else None) and told["tool_calls"] == case.tools
    asked = (lab.folder / "log.jsonl").read_text()
    assert "You are in a checkout of somebody's repository" in asked and "slugify with max_length can leave a dangling separator" in asked
    assert all(isinstance(json.loads(line), dict) for line in lab.left("transcript.jsonl").splitlines() if line) and "It is mended." in lab.left("answer.md")
    if case.tools:  # no login shell has put another Python before the task's
        assert f"{ID}/venv/bin/python" in lab.left("transcript.jsonl")


@pytest.mark.parametrize("agent", CASES)
def test_a_refused_key_is_no_result_but_one_clear_line(lab: Lab, agent: str) -> None:
    done = lab.start(agent, [{"status": 401, "message": "scripted refusal"}] * 50, code=1)
    [line] = [line for line in done.stderr.splitlines() if "failed" in line]
    assert done.stdout == "" and "exited 78" in line and "scripted refusal" in line and "cannot run at all" in line


@pytest.mark.parametrize("agent", CASES)
def test_an_api_that_stays_busy_is_tried_again_later(lab: Lab, agent: str) -> None:
    done = lab.start(agent, [{"status": 429, "message": "scripted limit"}] * 50, code=1)
    [line] = [line for line in done.stderr.splitlines() if "failed" in line]
    assert done.stdout == "" and "exited 75" in line and "run again later" in line


@pytest.mark.parametrize("agent", [name for name in CASES if name != "aider"])  # which bears a limit for a minute by itself
def test_one_that_was_interrupted_goes_on_in_the_same_worktree(lab: Lab, agent: str) -> None:
    case = CASES[agent]
    times = 1 if agent == "codex" else 3  # after which it gives up
    record = json.loads(lab.start(agent, [case.script[0], {"status": 429, "times": times} | case.script[1], *case.script[2:]], "--patience", "120").stdout)
    assert record["agent"]["status"] == "completed" and record["model_patch"].count("+    return slug[:max_length].rstrip(separator)") == 1
    again = "Please go on where you were interrupted." in (lab.folder / "log.jsonl").read_text()
    assert again or agent == "mini-swe-agent" and "started over" in str(record["agent"]["notes"])


@pytest.mark.parametrize("agent", TAKE_MCP)
def test_an_mcp_server_is_asked_and_with_mcp_0_is_not_there(lab: Lab, agent: str) -> None:
    case = CASES[agent]
    script = [case.script[0], case.mcp, case.script[1]]
    folder = config(lab.folder, sys.executable, str(TOOLKIT / "tests/scripted_mcp.py"))
    record = json.loads(lab.start(agent, script, CONFIG=folder).stdout)
    assert record["agent"]["status"] == "completed" and record["agent"]["mcp_servers"] == [{"name": "codeindex", "status": "connected"}]
    assert "slugify is in slug.py" in lab.left("transcript.jsonl")
    (lab.folder / "log.jsonl").unlink()
    record = json.loads(lab.start(agent, script[::2], "--mcp", "0", "--run", f"{lab.folder.name}-0", CONFIG=folder).stdout)
    assert record["agent"]["status"] == "completed" and "codeindex" not in (lab.folder / "log.jsonl").read_text()


@pytest.mark.parametrize("agent", TAKE_MCP)
def test_without_its_mcp_server_it_does_not_run(lab: Lab, agent: str) -> None:
    done = lab.start(agent, CASES[agent].script, CONFIG=config(lab.folder, "false"), code=1)
    [line] = [line for line in done.stderr.splitlines() if "failed" in line]
    assert "exited 78" in line and "codeindex" in line


@pytest.mark.parametrize("agent", ["gemini", "opencode", "mini-swe-agent"])
def test_a_limit_of_turns_holds(lab: Lab, agent: str) -> None:
    record = json.loads(lab.start(agent, CASES[agent].script, "--max-turns", "1").stdout)
    assert record["agent"]["status"] == "max_turns" and MODULE in record["model_patch"]


@pytest.mark.parametrize("agent", ["opencode", "mini-swe-agent"])
def test_a_cap_of_dollars_holds(lab: Lab, agent: str) -> None:
    first, *more = CASES[agent].script
    record = json.loads(lab.start(agent, [first | {"usage": {"input_tokens": 10000, "output_tokens": 100}}, *more], "--max-cost", "0.03").stdout)
    assert record["agent"]["status"] == "budget" and record["agent"]["cost_usd"] == pytest.approx(10000 * 3e-6 + 100 * 15e-6)


@pytest.mark.parametrize("agent", CASES)
def test_without_its_program_it_says_how_to_get_it(warm: Place, tmp_path: Path, agent: str) -> None:
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / CASES[agent].program).exists()]
    keys = {name: "dummy" for name in CASES[agent].env if name.endswith("_KEY")}
    chosen = ("--dataset", "sample", "--run", tmp_path.name, "--agent", agent, "--model", CASES[agent].model, "--feedback", "none", "--patience", "0")
    done = warm.run("bin/run-agent", *chosen, ID, code=1, PATH=os.pathsep.join(folders), **keys)
    assert f"no '{CASES[agent].program}' on PATH (install it: " in done.stderr and "exited 78" in done.stderr
