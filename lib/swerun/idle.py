"""Idle tasks: copies of one task of the sample whose tests do nothing, so that what they cost is the machinery."""

import statistics
from pathlib import Path
from typing import Any, Callable

import orjson

from swerun import datasets, paths
from swerun.benches import PREFIX, Bench
from swerun.git import git
from swerun.measures import Row
from swerun.naive import Naive
from swerun.state import make_dir, read_json, write_file, write_json

AGENT = "#!/bin/sh\nmkdir nothing && echo >nothing/nothing.py\n"
ASKED = 10  # tasks that are asked one by one


def rows(count: int) -> list[dict[str, Any]]:
    row = next(orjson.loads(line) for line in datasets.load("sample").rows.values() if b"textkit" in line)
    config = row["install_config"] | {"test_cmd": "true"}
    return [row | {"instance_id": f"bench-{number:05d}", "install_config": config} for number in range(count)]


def dataset(bench: Bench, count: int) -> str:
    file = bench.root / f"idle-{count}.jsonl"
    write_file(file, b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows(count)))
    return str(file)


def rerun(bench: Bench, count: int, repeats: int) -> Row:
    """`make run` over so many finished tasks; the naive way is to ask each by a command of its own."""
    made = Row(f"make run, {count} tasks, all done", "their tests.json, read once")
    bench.run("make", "run", "-j1", DATASET=dataset(bench, 1), AGENT="null", RUN="one")
    file, folder = dataset(bench, count), paths.run_dir(f"{PREFIX}finished")
    one = paths.run_dir(f"{PREFIX}one") / "bench-00000"
    ids = [row["instance_id"] for row in rows(count)]
    for task in ids:  # run one by one they would take minutes, and be the same
        make_dir(folder / task)
        for name in ("agent.json", "tests.json"):
            write_json(folder / task / name, read_json(one / name) | {"instance_id": task, "run": folder.name, "dataset": file})
    words, env = ("make", "run", "-j2"), {"DATASET": file, "AGENT": "null", "RUN": "finished"}
    bench.run(*words, **env)
    for _ in range(repeats):
        made.add("copies", ours=bench.run(*words, **env).seconds)
        made.add("copies", limit=bench.run("find", folder, "-name", "tests.json", "-exec", "cat", "{}", "+").seconds)
    asked = [bench.run(paths.BIN / "run-tests", "--once", task, **env).seconds for task in ids[:ASKED]]
    made.add("copies", naive=statistics.mean(asked) * count)
    return made


def cpu(bench: Bench, count: int, repeats: int, naive_once: Callable[[], Naive | None]) -> Row:
    """CPU of all stages for a task whose agent writes one file; the naive way, and cp, only set it up, and once at that."""
    made = Row("CPU of all stages, a task", "cp -a of its files")
    agent = bench.root / "nothing"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    file = dataset(bench, count)
    bench.run("make", "run", "-j2", DATASET=dataset(bench, min(count, 3)), AGENT=str(agent), FEEDBACK="none", RUN="warm-up")
    for number in range(repeats):
        made.add("copies", ours=bench.run("make", "run", "-j2", DATASET=file, AGENT=str(agent), FEEDBACK="none", RUN=f"idle-{number}").cpu / count)
        made.add("copies", limit=bench.set_up("bench-00000", copy_first=False, DATASET=file).copy_cpu)
        naive = naive_once()
        if naive and not naive.failed:
            made.add("copies", naive=naive.cpu)
    return made


def attempt(bench: Bench, repeats: int) -> Row:
    """What `run-agent` takes for an attempt beyond the agent's own time, in a worktree that is there; naive is the agent and `git diff`."""
    made = Row("an attempt, its agent's time aside", "the agent alone")
    agent, count = bench.root / "sleeps", max(repeats, 3)
    agent.write_text('#!/bin/sh\nsleep 0.5\n[ -z "$AGENT_OUT" ] || echo x >x.txt\n')
    agent.chmod(0o755)
    env = {"DATASET": dataset(bench, count + 1), "AGENT": str(agent), "FEEDBACK": "none", "RUN": "attempts"}
    for number in range(count + 1):
        record = bench.run(paths.BIN / "make-worktree", f"bench-{number:05d}", **env).stdout
        record = bench.run(paths.BIN / "setup-venv", input=record, **env).stdout
        bare = bench.run(agent, DATASET=env["DATASET"]).seconds
        checkout = orjson.loads(record)["worktree"]
        plain = bench.run("sh", "-c", f"cd {checkout} && AGENT_OUT=. {agent} && git add --intent-to-add . && git diff && git reset -q && rm x.txt", **env).seconds
        ours = bench.run(paths.BIN / "run-agent", input=record, **env).seconds
        if number:  # the first one opens the run
            made.add("copies", ours=ours - bare, naive=plain - bare, limit=bare - 0.5)
    return made


def at_once(bench: Bench, count: int, url: str) -> tuple[Row, int]:
    """So many checkouts of one repository at once, and how many of them are right."""
    made = Row(f"{count} checkouts at once, all", "as many cp -a at once")
    row, parallel = rows(1)[0], ("parallel", "--will-cite", f"-j{count}")
    file, there = dataset(bench, count), make_dir(bench.root / "at-once")
    lines = "\n".join(one["instance_id"] for one in rows(count)).encode()
    used = bench.run(*parallel, str(paths.BIN / "make-worktree"), input=lines, DATASET=file, RUN="at-once")
    places = [Path(orjson.loads(line)["worktree"]) for line in used.stdout.splitlines()]
    right = sum(_is_right(place, row["base_commit"]) for place in places)
    copied = bench.run(*parallel, f"cp -a {places[0]} {there}/{{}}", input=lines)
    clone = f"git clone --quiet {url}/{paths.slug(row['repo'])}.git {there}/{{}}.git && git -C {there}/{{}}.git checkout --quiet {row['base_commit']}"
    cloned = bench.run(*parallel, clone, input=lines)
    made.add("copies", ours=used.seconds, naive=cloned.seconds, limit=copied.seconds)
    return made, right


def _is_right(checkout: Path, commit: str) -> bool:
    state, head = git(checkout, "status", "--porcelain", check=False), git(checkout, "rev-parse", "HEAD", check=False)
    return state.returncode == 0 and not state.stdout and head.stdout.strip() == commit
