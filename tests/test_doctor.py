"""make doctor says what the chosen tasks need, what of it is missing, and the command that gets it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROWS, Place
from test_commands import tools

ROW = ROWS["swerun-sample__textkit-14"]


def needs(place: Place, *words: str | Path, **more) -> dict[str, dict]:
    return {need["need"]: need for need in place.records("scripts/doctor", "--json", *words, **more)}


@pytest.fixture
def dataset(tmp_path: Path):
    """A file of rows, each the sample's one with something changed: dataset({"version": "9"}, …)."""

    def make(*changes: dict) -> Path:
        file = tmp_path / "rows.jsonl"
        rows = [ROW | {"instance_id": f"row-{number}"} | change for number, change in enumerate(changes)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return make


def test_the_sample_needs_nothing_that_is_not_here_and_nothing_is_made(place: Place):
    done = place.run("make", "doctor", DATASET="sample")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["need", "tasks", "of", "found", "how", "to", "get", "it"]
    for need in ("git 2.31 or newer", "GNU make 4.2 or newer", "GNU parallel", "jq", "patch", "bash", "C compiler", "Python 3", "locks", "mirrors", "package index", "disk"):
        assert any(line.startswith(need) for line in lines), need
    assert "missing" not in done.stdout and "all 12 needs are there" in done.stderr
    assert [file.name for file in (place.artifacts / "cache").iterdir()] == ["datasets"]


def test_json_has_a_line_for_each_need_with_what_was_found(place: Place):
    found = needs(place, IDS="swerun-sample__textkit-14 swerun-sample__gridlab-11", DATASET="sample")
    python = found["Python 3 of any minor version"]
    path, version = python["found"].removesuffix(")").split(" (")
    told = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    assert told == f"Python {version}\n"
    assert python == {"need": "Python 3 of any minor version", "tasks": 2, "repos": {"swerun-sample/textkit": ["0.2"], "swerun-sample/gridlab": ["0.2"]},
                      "instance_ids": ["swerun-sample__textkit-14", "swerun-sample__gridlab-11"],
                      "found": python["found"], "missing": False, "get": None}
    assert found["mirrors to make"]["missing"] is False and found["mirrors to make"]["get"] == "a run copies them from this disk"


def test_an_interpreter_that_is_nowhere_a_spec_and_a_mirror_are_missing_and_the_rest_is_still_told(place: Place, dataset):
    config = ROW["install_config"]
    rows = dataset({"install_config": config | {"python": "3.99"}}, {"install_config": config | {"python": "3.99", "pip_packages": []}},
                   {"install_config": {"python": "3.11"}, "version": "9"}, {"repo": "owner/name"}, {})
    done = place.run("scripts/doctor", "--dataset", rows, "--remote", "/copies/{name}", code=1, PYENV_ROOT="/nonexistent")
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert lines["Python 3.99"].split()[2:5] == ["2", "swerun-sample/textkit", "0.2"] and "  missing  " in lines["Python 3.99"]
    assert "pyenv install 3.99" in lines["Python 3.99"]
    assert "install_config of 'row-2' has no test_cmd, log_parser" in lines["spec of swerun-sample/textkit 9"]
    assert "nothing is at '/copies/name'" in lines["mirror of owner/name"]
    assert lines["jq"].split()[1:3] == ["5", "all"] and "missing" not in lines["jq"]
    assert "3 of 15 needs are missing" in done.stderr


def test_a_tool_that_is_not_there_or_too_old_is_missing_with_what_installs_it(place: Place, tmp_path: Path):
    path = tools(tmp_path / "tools", "jq", "git", "apt-get")
    old = Path(path) / "git"
    old.write_text("#!/bin/sh\necho git version 2.20.1\n")
    old.chmod(0o755)
    dnf = Path(path) / "dnf"
    dnf.unlink(missing_ok=True)
    dnf.symlink_to("/bin/true")
    found = needs(place, "--dataset", "sample", code=1, PATH=path)
    missing = {name: need["get"] for name, need in found.items() if need["missing"]}
    assert missing == {"git 2.31 or newer": "dnf install git", "jq": "dnf install jq"}


def test_an_index_that_cannot_be_reached_is_missing_in_no_time(place: Place):
    found = needs(place, "--dataset", "sample", code=1, UV_DEFAULT_INDEX="http://user:secret@127.0.0.1:9/simple", timeout=30)
    assert [name for name, need in found.items() if need["missing"]] == ["package index"]
    assert "UV_DEFAULT_INDEX" in found["package index"]["get"] and "secret" not in str(found)


def test_a_dataset_that_cannot_be_had_is_missing_and_the_machine_is_still_looked_at(place: Place):
    found = needs(place, "--dataset", "nobody/nothing", code=1, HF_HUB_OFFLINE="1")
    assert found["dataset nobody/nothing"]["missing"] and "local file" in found["dataset nobody/nothing"]["get"]
    assert found["jq"]["missing"] is False and found["package index"]["missing"] is False


@pytest.mark.parametrize("words", [("--dataset", "no-such"), ("--dataset", "sample", "--ids", "no-such"), ("--dataset", "sample", "--start", "9")], ids=" ".join)
def test_tasks_that_there_are_none_of_are_a_usage_error(place: Place, words: tuple):
    done = place.run("scripts/doctor", *words, code=2)
    assert done.stdout == "" and done.stderr.count("\n") == 1


def test_a_run_that_is_there_already_stands_for_its_tasks(place: Place):
    place.run("scripts/plan", DATASET="sample", AGENT="gold", RUN="mine", SAMPLE="2")
    assert needs(place, RUN="mine")["jq"]["tasks"] == 2


def test_hundreds_of_tasks_cost_no_more_than_a_few(place: Place, dataset):
    rows = dataset(*({"install_config": ROW["install_config"] | {"pip_packages": [f"pytest=={number}"]}} for number in range(1000)))
    before = os.times()
    assert needs(place, "--dataset", rows, code=None)["jq"]["tasks"] == 1000  # the disk may be too small for them
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 4


def test_a_header_or_program_that_is_missing_is_told_with_the_tasks_that_it_costs_and_its_package(place: Place, dataset):
    system = [
        {"name": "no such headers", "header": "no/such.h", "packages": "libno-dev no-devel - no", "reason": "its module is compiled against them"},
        {"name": "plotter", "program": "no-such-plotter", "packages": "plot+plot-extra plot plot plot", "tests": "test_plot", "reason": "it draws"},
        {"name": "C standard headers", "header": "stdio.h", "packages": "libc6-dev glibc-devel - -", "reason": "for the comparison"},
        {"name": "a shell", "probe": "exit 0", "packages": "bash bash bash bash", "reason": "for the comparison"},
        {"name": "a module", "pkg_config": "no-such-module", "packages": "- - - mod", "reason": "linked"},
    ]
    config = ROW["install_config"] | {"system": system}
    rows = dataset({"install_config": config}, {"install_config": config, "FAIL_TO_PASS": ["tests/test_plot.py::test_plot"]}, {})
    done = place.run("scripts/doctor", "--json", "--dataset", rows, code=1)
    found = {need["need"]: need for need in map(json.loads, done.stdout.splitlines())}
    assert found["no such headers"]["missing"] and found["no such headers"]["instance_ids"] == ["row-0", "row-1"]
    assert found["plotter"]["missing"] and found["plotter"]["instance_ids"] == ["row-1"] and found["plotter"]["get"].split()[-1] in ("plot", "plot-extra")
    assert not found["C standard headers"]["missing"] and not found["a shell"]["missing"]
    assert found["a module"]["missing"] and found["a module"]["get"].startswith("conda install")
    [line] = [line for line in place.run("scripts/doctor", "--dataset", rows, code=1).stdout.splitlines() if line.startswith("plotter ")]
    assert "row-1" in line and "missing" in line
