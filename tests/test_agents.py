"""bin/run-agent: what an agent is given, how it may end, and what is left of it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, Place

ID = "swerun-sample__textkit-14"
# the table of options in the design, and what make hands down
OURS = """DATASET SPLIT IDS WHERE START SAMPLE SEED AGENT MODEL EFFORT MAX_TURNS PROMPT RUN ITERATIONS TIMEOUT TEST_TIMEOUT FEEDBACK RESET BUDGET MAX_COST MCP
    CONFIG REMOTE REPEAT HOSTS ENGINE TEST_JOBS MEM ISOLATION NET ALLOW KEEP DRY V ARTIFACTS MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES""".split()


def start(place: Place, run: str, agent: Path | str, *words: str | Path, **more: Any) -> subprocess.CompletedProcess:
    return place.run("bin/run-agent", "--dataset", "sample", "--run", run, "--agent", agent, *words, ID, **more)


def attempt(place: Place, run: str) -> Path:
    return place.artifacts / "runs" / run / ID / "attempts/1"


def assert_gone(pids: Path, number: int) -> None:
    """Every process that an agent wrote into a file has ended (one whose parent has not looked yet counts as ended)."""
    listed = pids.read_text().split()
    assert len(listed) == number
    for pid in listed:
        state = Path(f"/proc/{pid}/stat")
        for _ in range(20):
            if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.1)
        else:
            os.kill(int(pid), signal.SIGKILL)
            raise AssertionError(f"process {pid} outlived its agent")


def test_an_agent_is_given_what_the_contract_says(warm: Place, agent: Any, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/.mcp.json").write_text("{}")
    looks = agent("""env -0 > "$AGENT_OUT/env"; cat > "$AGENT_OUT/stdin"; pwd -P > "$AGENT_OUT/cwd"; command -v python > "$AGENT_OUT/python"
        cd /; python -c 'import textkit; print(textkit.__file__)' > "$AGENT_OUT/imported"
        echo '{"cost_usd": 0.25, "tokens": {"input": 7}, "session_id": "of its own"}' > "$AGENT_OUT/usage.json"; cd - >/dev/null; echo x > x.txt""")
    chosen = ("--dataset", "sample", "--run", "contract", ID)
    made = warm.run("bin/make-worktree", *chosen, CONFIG=str(tmp_path / "config")).stdout
    made = warm.run("bin/setup-venv", input=made).stdout
    before = json.loads(made)
    [record] = warm.records("bin/run-agent", "--agent", looks, "--model", "big-1", "--effort", "high", "--max-turns", "9", "--timeout", "77", input=made)
    out = attempt(warm, "contract")
    env = dict(item.split("=", 1) for item in (out / "env").read_text().split("\0") if item)
    assert (out / "cwd").read_text().strip() == before["worktree"] and (out / "python").read_text().strip() == f"{before['venv']}/bin/python"
    assert (out / "imported").read_text().startswith(f"{before['worktree']}/")
    assert Path(env["AGENT_PROMPT_FILE"]).read_text() == (out / "stdin").read_text()
    assert ROWS[ID]["problem_statement"] in (out / "stdin").read_text() and before["worktree"] in (out / "stdin").read_text()
    given = {name: env[f"AGENT_{name}"] for name in ("OUT", "INSTANCE_ID", "ATTEMPT", "TIMEOUT_S", "MODEL", "EFFORT", "MAX_TURNS", "MCP_CONFIG", "FEEDBACK_FILE")}
    assert given == {"OUT": str(out), "INSTANCE_ID": ID, "ATTEMPT": "1", "TIMEOUT_S": "77", "MODEL": "big-1", "EFFORT": "high", "MAX_TURNS": "9",
                     "MCP_CONFIG": str(tmp_path / "config/.mcp.json"), "FEEDBACK_FILE": ""}
    assert env["AGENT_SESSION"] and env["AGENT_RUN_MARK"] and env["VIRTUAL_ENV"] == before["venv"]
    assert record["model_name_or_path"] == "an-agent-big-1" and {key: record[key] for key in before} == before
    told = {"status": "completed", "attempts": 1, "cost_usd": 0.25, "tokens": {"input": 7}, "session_id": "of its own"}
    assert {key: record["agent"][key] for key in told} == told and record["agent"]["seconds"] > 0
    more = {"best_attempt", "waited_seconds", "turns", "tool_calls", "permission_denials", "feedback", "comparable", "extracted"}
    assert set(record["agent"]) == set(told) | {"seconds", "isolation"} | more


def test_an_agent_sees_nothing_of_make_and_of_our_options_but_what_is_its_own(warm: Place, agent: Any) -> None:
    looks = agent('env -0 > "$AGENT_OUT/env"')
    chosen = {"DATASET": "sample", "RUN": "clean-environment", "AGENT": str(looks), "SPLIT": "test", "PROMPT": "", "CONFIG": "", "TIMEOUT": "60", "FEEDBACK": "none"}
    other = {"ARTIFACTS": str(warm.artifacts), "MAKEFLAGS": "-j8 --jobserver-auth=3,4", "GIT_DIR": "/nowhere", "PYTHONPATH": "/nowhere", "SOME_API_KEY": "its own"}
    warm.run("bin/run-agent", ID, **dict.fromkeys(OURS, "1") | chosen | other)
    env = dict(item.split("=", 1) for item in (attempt(warm, "clean-environment") / "env").read_text().split("\0") if item)
    assert not set(env) & ({*OURS} | {"GIT_DIR", "PYTHONPATH"})
    assert env["SOME_API_KEY"] == "its own" and env["HOME"] == str(warm.home) and env["AGENT_MCP_CONFIG"] == ""


@pytest.mark.parametrize(("ends", "status"), [("exit 0", "completed"), ("exit 1", "error"), ("exit 137", "error"), ("kill -SEGV $$", "crashed"), ("exec sleep 60", "timeout")])
def test_however_an_agent_ends_there_is_a_record_with_its_patch(warm: Place, agent: Any, ends: str, status: str) -> None:
    run = f"ends-{ends.replace(' ', '-').strip('-$')}"
    before = time.monotonic()
    done = start(warm, run, agent(f"echo hello > hello.txt; echo out; echo err >&2; {ends}"), "--timeout", "2" if status == "timeout" else "60")
    record = json.loads(done.stdout)
    assert record["agent"]["status"] == status and "+hello" in record["model_patch"]
    assert warm.state(run, ID, "agent.json") == record and warm.state(run, ID, "attempts/1/patch.diff") == record["model_patch"]
    assert [(attempt(warm, run) / name).read_text() for name in ("stdout.txt", "stderr.txt")] == ["out\n", "err\n"]
    assert time.monotonic() - before < 40 and not (warm.artifacts / "worktrees" / run / ID).exists()


@pytest.mark.parametrize(("code", "said"), [(75, "run again later"), (78, "cannot run at all")])
def test_an_agent_that_could_not_run_leaves_no_result(warm: Place, agent: Any, code: int, said: str) -> None:
    done = start(warm, f"could-not-{code}", agent(f"echo half > half.txt; echo first >&2; echo 'please log in' >&2; exit {code}"), "--patience", "0", code=1)
    [line] = [line for line in done.stderr.splitlines() if "failed" in line]
    assert done.stdout == "" and ID in line and "please log in" in line and said in line
    assert not (warm.artifacts / "runs" / f"could-not-{code}" / ID / "agent.json").exists()
    (warm.artifacts / "cache/backoff/an-agent.json").unlink(missing_ok=True)  # or time goes by
    assert json.loads(start(warm, f"could-not-{code}", agent("true")).stdout)["model_patch"] == ""


@pytest.fixture
def stays(agent: Any, tmp_path: Path) -> Path:
    """A program that writes its process id into `pids` and cannot be asked to end."""
    return agent(f"trap '' TERM HUP INT; echo $$ >> {tmp_path}/pids; while :; do sleep 1; done", "stays")


def test_a_daemon_does_not_outlive_its_agent(warm: Place, agent: Any, stays: Path, tmp_path: Path) -> None:
    # the second has no mark in its environment, and a parent that is gone
    daemons = f"(setsid {stays} &); (setsid env -i bash -c '(({stays}) &)' &)"
    starts = agent(f"{daemons}\nuntil [ -e {tmp_path}/pids ] && [ $(wc -l < {tmp_path}/pids) = 2 ]; do sleep 0.1; done; echo x > x.txt")
    record = json.loads(start(warm, "daemon", starts, timeout=60).stdout)
    assert record["agent"]["status"] == "completed" and "x.txt" in record["model_patch"]
    assert_gone(tmp_path / "pids", 2)


def test_at_the_time_limit_the_whole_tree_of_an_agent_is_dead(warm: Place, agent: Any, stays: Path, tmp_path: Path) -> None:
    starts = agent(f"{stays} &\nsetsid {stays} &\n(({stays}) &)\necho so-far > so-far.txt\nexec {stays}")
    record = json.loads(start(warm, "tree", starts, "--timeout", "2", timeout=60).stdout)
    assert record["agent"]["status"] == "timeout" and "+so-far" in record["model_patch"]
    assert_gone(tmp_path / "pids", 4)


def test_an_agent_may_print_thirty_megabytes(warm: Place, agent: Any) -> None:
    prints = agent("head -c 30000000 /dev/zero | tr '\\0' x | tee /dev/stderr; echo x > x.txt")
    record = json.loads(start(warm, "prints-much", prints, timeout=60).stdout)
    assert record["agent"]["status"] == "completed" and "x.txt" in record["model_patch"]
    assert [(attempt(warm, "prints-much") / name).stat().st_size for name in ("stdout.txt", "stderr.txt")] == [30_000_000] * 2


def test_an_agent_may_delete_its_output_folder(warm: Place, agent: Any) -> None:
    record = json.loads(start(warm, "deletes-output", agent('rm -rf "$AGENT_OUT"')).stdout)
    assert record["agent"]["status"] == "completed" and record["model_patch"] == ""


@pytest.mark.parametrize("usage", ["{broken", "[1]", '{"cost_usd": "\\udc80"}', b"\xff\xfe"], ids=repr)
def test_a_usage_file_that_says_nothing_useful_costs_no_result(warm: Place, agent: Any, tmp_path: Path, usage: str | bytes) -> None:
    (tmp_path / "usage").write_bytes(usage if isinstance(usage, bytes) else usage.encode())
    record = json.loads(start(warm, tmp_path.name, agent(f'cp {tmp_path}/usage "$AGENT_OUT/usage.json"; echo x > x.txt')).stdout)
    assert record["agent"]["status"] == "completed" and record["agent"]["cost_usd"] is None and "x.txt" in record["model_patch"]


@pytest.mark.parametrize("statement", [
    "- a dash", "--help", "# a hash\n## two", "", "long " * 60_000, "{{repo}} \\1 {{ x }} $HOME `id` \u00fc\u2028", "\r\nnot \r changed",
], ids=lambda text: text[:8])
def test_any_problem_statement_reaches_the_agent_unchanged(warm: Place, agent: Any, tmp_path: Path, statement: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[ID] | {"problem_statement": statement}) + "\n")
    (tmp_path / "template").write_text("{{problem_statement}}")
    echoes = agent('cmp - "$AGENT_PROMPT_FILE" && cp "$AGENT_PROMPT_FILE" "$AGENT_OUT/got"')
    done = warm.run("bin/run-agent", "--dataset", tmp_path / "rows.jsonl", "--run", tmp_path.name, "--prompt", tmp_path / "template", "--agent", echoes, ID)
    assert json.loads(done.stdout)["agent"]["status"] == "completed" and (attempt(warm, tmp_path.name) / "got").read_bytes() == statement.encode()


def test_a_prompt_template_is_filled_in(warm: Place, agent: Any, tmp_path: Path) -> None:
    (tmp_path / "template").write_text("# {{instance_id}} of {{repo}} {{version}} at {{base_commit}} {{unknown}} {{problem_statement}}")
    start(warm, "template", agent('cat > "$AGENT_OUT/got"'), "--prompt", tmp_path / "template")
    row = ROWS[ID]
    wanted = f"# {ID} of {row['repo']} {row['version']} at {row['base_commit']} {{{{unknown}}}} {row['problem_statement']}"
    assert (attempt(warm, "template") / "got").read_text() == wanted


def test_a_result_that_is_there_is_printed_and_the_agent_is_not_started_again(warm: Place, agent: Any, tmp_path: Path) -> None:
    counts = agent(f"echo started >> {tmp_path}/count; echo $RANDOM$RANDOM > x.txt")
    first = start(warm, "twice", counts).stdout
    assert start(warm, "twice", counts).stdout == first and (tmp_path / "count").read_text() == "started\n"
    again = start(warm, "twice", counts, "--again").stdout
    assert again != first and (tmp_path / "count").read_text() == "started\n" * 2
    assert start(warm, "twice", counts).stdout == again


def test_an_agent_starts_in_a_clean_worktree_each_time(warm: Place, agent: Any) -> None:
    made = warm.run("bin/make-worktree", "--dataset", "sample", "--run", "clean-worktree", ID).stdout
    made = warm.run("bin/setup-venv", input=made).stdout
    warm.run("bin/run-agent", "--agent", agent("echo half > half.txt; exit 75"), "--patience", "0", input=made, code=1)
    (warm.artifacts / "cache/backoff/an-agent.json").unlink()
    whole = agent("ls > \"$AGENT_OUT/files\"; echo whole > whole.txt")
    for again in ([], ["--again"]):
        [record] = warm.records("bin/run-agent", *again, "--agent", whole, input=made)
        files = (attempt(warm, "clean-worktree") / "files").read_text().split()
        assert "README.md" in files and not {"half.txt", "whole.txt"} & set(files) and "half.txt" not in record["model_patch"]


def test_an_environment_is_set_up_in_a_whole_checkout_alone(warm: Place) -> None:
    half = warm.artifacts / "worktrees/half-made" / ID / "testbed"
    (half / ".git").mkdir(parents=True)
    (half / "half-written.py").write_text("x")
    [record] = warm.records("bin/setup-venv", "--dataset", "sample", "--run", "half-made", ID)
    assert record["worktree"] == str(half) and (half / "README.md").is_file() and not (half / "half-written.py").exists()


def test_gold_null_and_replay_need_no_worktree(place: Place, tmp_path: Path) -> None:
    patch, other = ROWS[ID]["patch"], "swerun-sample__textkit-19"
    predictions = [{"instance_id": ID, "model_patch": patch, "model_name_or_path": "somebody's"}, {"instance_id": other, "model_patch": None, "model_name_or_path": "somebody's"}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, predictions)) + "\n\n")
    (tmp_path / "list.json").write_text(json.dumps(predictions, indent=1))
    (tmp_path / "object.json").write_text(json.dumps({one.pop("instance_id"): one for one in predictions}))
    for agent, name in (("gold", "gold"), ("null", "null"), *((f"replay:{tmp_path / file}", "somebody's") for file in ("lines.jsonl", "list.json", "object.json"))):
        records = place.records("bin/run-agent", "--dataset", "sample", "--agent", agent, ID, other)
        wanted = [patch, ROWS[other]["patch"]] if agent == "gold" else ["", ""] if agent == "null" else [patch, ""]
        assert [record["model_patch"] for record in records] == wanted
        assert {(record["model_name_or_path"], record["agent"]["status"], record["instance_id"]) for record in records} == {(name, "completed", ID), (name, "completed", other)}
        assert len({record["run"] for record in records}) == 1 and place.state(records[0]["run"], ID, "agent.json") == records[0]
    assert not (place.artifacts / "worktrees").exists() and not (place.artifacts / "cache/mirrors").exists()


def test_a_task_without_a_prediction_fails_and_the_others_go_on(place: Place, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"instance_id": ID, "model_patch": "x"}))
    done = place.run("bin/run-agent", "--dataset", "sample", "--agent", f"replay:{tmp_path}/p.jsonl", "swerun-sample__textkit-19", ID, code=1)
    assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == [ID]
    assert "swerun-sample__textkit-19: failed: no prediction" in done.stderr and not list(place.artifacts.glob("runs/*/*-19/agent.json"))


@pytest.mark.parametrize("data", ["{broken", "[[]]", "5", '[{"model_patch": "x"}]', b"\xff"], ids=repr)
def test_predictions_that_cannot_be_read_are_a_failure_of_one_line(place: Place, tmp_path: Path, data: str | bytes) -> None:
    (tmp_path / "p.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    done = place.run("bin/run-agent", "--dataset", "sample", "--agent", f"replay:{tmp_path}/p.json", ID, code=1)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and "cannot read predictions" in done.stderr


@pytest.mark.parametrize("words", [
    ["--agent", "no-such-agent"],
    ["--agent", "./no-such-agent"],
    ["--agent", "{tmp}/plain"],
    ["--agent", "{tmp}"],
    ["--agent", "replay:"],
    ["--agent", "replay:{tmp}/no-such-file"],
    ["--timeout", "0"],
    ["--timeout", "-5"],
    ["--timeout", "nan"],
    ["--timeout", "soon"],
    ["--prompt", "{tmp}/no-such-template"],
    ["--prompt", "{tmp}/latin-1"],
    ["--run", "../elsewhere"],
], ids=" ".join)
def test_a_wrong_call_ends_with_2_and_one_line_before_anything_is_done(warm: Place, agent: Any, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "latin-1").write_bytes(b"caf\xe9 {{problem_statement}}")
    chosen = [word.replace("{tmp}", str(tmp_path)) for word in words]
    named = [*([] if "--agent" in words else ["--agent", agent("true")]), *([] if "--run" in words else ["--run", tmp_path.name])]
    done = warm.run("bin/run-agent", "--dataset", "sample", *named, *chosen, ID, code=2, timeout=30)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("run-agent: "), done.stderr
    assert not (warm.artifacts / "runs" / tmp_path.name).exists()
