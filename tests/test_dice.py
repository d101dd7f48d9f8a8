"""Tests that dice decide: repeated where the spec says so and the log shows it, never otherwise, and always said."""

import json
from pathlib import Path

import pytest
from conftest import ROWS, Place

TEXT = "swerun-sample__textkit-19"
FAILING = json.loads(ROWS[TEXT]["FAIL_TO_PASS"])


def row(folder: Path, name: str, good: int, **more) -> dict:
    """A row whose tests see the fix only in so many-th runs and later ones."""
    config = ROWS[TEXT]["install_config"]
    config = json.loads(config) if isinstance(config, str) else config
    dice = f"echo x >>{folder}/{name}; [ $(wc -l <{folder}/{name}) -ge {good} ] || git show HEAD:src/textkit/template.py >src/textkit/template.py"
    return ROWS[TEXT] | {"instance_id": name, "install_config": config | more | {"eval_commands": [dice]}}


@pytest.fixture(scope="module")
def graded(warm: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("dice")
    twice = {"reruns": 2, "rerun_if": "FAILED tests"}
    rows = [row(folder, "second", 2, **twice), row(folder, "never", 9, **twice), row(folder, "other", 2, **twice | {"rerun_if": "no such word"}), row(folder, "official", 2)]
    (folder / "dice.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    words = ("--dataset", folder / "dice.jsonl", "--run", "dice")
    made = warm.run("bin/run-agent", *words, "--agent", "gold", *(one["instance_id"] for one in rows)).stdout
    found = {record["instance_id"]: record for record in warm.records("bin/run-tests", input=made)}
    return {name: record | {"ran": len((folder / name).read_text().splitlines())} for name, record in found.items()}


def test_an_unresolved_run_is_repeated_and_what_differed_is_in_the_record(graded: dict[str, dict]):
    found = graded["second"]
    assert (found["resolved"], found["ran"], found["tests"]["runs"], found["tests"]["flaky"]) == (True, 2, 2, FAILING)


def test_a_patch_that_no_run_resolves_stays_unresolved(graded: dict[str, dict]):
    found = graded["never"]
    assert (found["resolved"], found["ran"], found["tests"]["runs"], found["tests"]["flaky"]) == (False, 3, 3, [])


def test_a_run_whose_log_shows_another_failure_is_not_repeated(graded: dict[str, dict]):
    assert (graded["other"]["resolved"], graded["other"]["ran"], graded["other"]["tests"]["runs"]) == (False, 1, 1)


def test_nothing_is_repeated_where_no_spec_says_so(graded: dict[str, dict]):
    assert (graded["official"]["resolved"], graded["official"]["ran"]) == (False, 1) and graded["official"]["tests"]["flaky"] is None
