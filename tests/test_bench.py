"""scripts/bench: every row with our way, the naive one and a limit, and nothing of it left behind."""

import json
import os
from pathlib import Path

import pytest
from conftest import TOOLKIT, Place

ROWS = {"checkout", "environment", "set_up", "grading_overhead", "grading", "rerun", "attempt", "cpu", "at_once"}
QUICK = ("--repeats", "1", "--naive", "1", "--naive-repeats", "1", "--tasks", "1", "--finished", "3", "--at-once", "3")
TEXT = "swerun-sample__textkit-14"


def daemons(place: Place) -> list[str]:
    """The git servers that serve this place."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        found += [words] if "daemon" in words and str(place.artifacts) in words else []
    return found


@pytest.fixture(scope="module")
def results(warm: Place) -> dict:
    done = warm.run("scripts/bench", *QUICK, IDS=TEXT, RUN="ignored", AGENT="ignored", timeout=280)
    assert "bench: " + TEXT in done.stderr and "set-up: checkout and environment" in done.stdout
    return json.loads((warm.artifacts / "bench/results.json").read_text())


@pytest.mark.slow
def test_every_row_has_ours_the_naive_way_and_a_limit(results: dict):
    assert set(results["rows"]) == ROWS and results["dataset"] == "sample" and results["tasks"] == 1
    for row in results["rows"].values():
        assert all(0 < row[column]["p50"] <= row[column]["p95"] and row[column]["samples"] for column in ("ours", "naive", "limit")), row
        assert row["ours_to_naive"] > 0 and row["ours_to_limit"] > 0, row
    assert results["rows"]["grading"]["ours"]["samples"] == 1
    assert results["naive"] == {"from": "git", "tasks": 1, "repeats": 1, "failed": []}


@pytest.mark.slow
def test_the_rows_stand_in_sane_relations(results: dict):
    rows = results["rows"]
    for name in ("environment", "set_up", "grading_overhead", "grading", "cpu"):
        assert rows[name]["ours"]["p50"] < rows[name]["naive"]["p50"], name
    assert rows["set_up"]["ours"]["p50"] == pytest.approx(rows["checkout"]["ours"]["p50"] + rows["environment"]["ours"]["p50"])
    assert rows["rerun"]["limit"]["p50"] < rows["rerun"]["ours"]["p50"]
    assert results["checkouts_at_once"] == {"count": 3, "right": 3}
    [found] = results["repositories"].values()
    assert (found["tasks"], found["rows"]["checkout"]) == (1, rows["checkout"]) and found["files"] > 5


@pytest.mark.slow
def test_nothing_stays_of_a_bench_but_its_results(results: dict, warm: Place):
    assert daemons(warm) == []
    for name in ("runs", "worktrees", "results"):
        assert not list((warm.artifacts / name).glob("make-bench.*"))
    assert not {"naive", "at-once"} & set(os.listdir(warm.artifacts / "bench"))


@pytest.mark.slow
def test_a_project_that_pip_cannot_install_is_counted_apart(warm: Place, git_repository, tmp_path: Path):
    folder, commits = git_repository("odd", [{"odd.py": "one = 1\n", "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'nowhere'\n"}])
    [row] = [json.loads(line) for line in (TOOLKIT / "lib/sample/sample.jsonl").read_text().splitlines() if TEXT in line]
    odd = {"instance_id": "odd-1", "repo": "acme/odd", "base_commit": commits[0], "patch": "", "test_patch": "", "FAIL_TO_PASS": [], "PASS_TO_PASS": []}
    (tmp_path / "odd.jsonl").write_text(json.dumps(row | odd | {"install_config": row["install_config"] | {"install": "", "test_cmd": "true"}}))
    quick = ("--repeats", "1", "--tasks", "1", "--finished", "1", "--at-once", "1", "--naive-repeats", "1")
    done = warm.run("scripts/bench", *quick, DATASET=str(tmp_path / "odd.jsonl"), REMOTE=f"{folder.parent}/{{name}}", timeout=280)
    found = json.loads((warm.artifacts / "bench/results.json").read_text())
    [failed] = found["naive"]["failed"]
    assert (failed["instance_id"], failed["step"]) == ("odd-1", "environment") and failed["seconds"] > 0 and failed["why"]
    assert found["rows"]["environment"]["naive"] is None and found["rows"]["set_up"]["ours_to_naive"] is None
    assert "1 failed, and are not in its times" in done.stdout and "odd-1: grading" in done.stderr


@pytest.mark.parametrize("words, why", [(("--ids", "nobody"), "no instance 'nobody'"), (("--repeats", "0"), "1 or more"), (("--where", "false"), "no tasks chosen")])
def test_wrong_usage_is_said_before_anything_is_measured(warm: Place, words: tuple[str, str], why: str):
    done = warm.run("scripts/bench", *words, code=2)
    assert why in done.stderr and done.stderr.count("\n") == 1
