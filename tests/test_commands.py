"""What every command has in common: help, being called from anywhere, what is said where something is not as it must be."""

import json
import os
import pty
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from conftest import SAMPLE_IDS, TOOLKIT, Place

COMMANDS = [file for folder in ("bin", "scripts") for file in sorted((TOOLKIT / folder).iterdir()) if file.is_file()]
READERS = ("make-worktree", "setup-venv", "run-agent", "run-tests", "precache", "collect")
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda file: file.name)


def copied(folder: Path, venv: bool = False) -> Path:
    """The toolkit without what bootstrap.sh makes, or with the one it made here."""
    shutil.copytree(TOOLKIT, folder, ignore=shutil.ignore_patterns(".venv", "artifacts", ".git", "__pycache__"), symlinks=True)
    if venv:
        (folder / ".venv").symlink_to(TOOLKIT / ".venv")
    return folder


def tools(folder: Path, *without: str) -> str:
    """A PATH that has every program of this one but some."""
    folder.mkdir()
    for program in (file for place in reversed(os.get_exec_path()) if os.path.isdir(place) for file in os.scandir(place)):
        link = folder / program.name
        link.unlink(missing_ok=True)
        if program.name not in without:
            link.symlink_to(program.path)
    return str(folder)


@each_command
def test_help_has_an_example_that_names_the_command(place: Place, command: Path):
    assert os.access(command, os.X_OK)
    done = place.run(command, "--help")
    example = re.search(r"^\s*example: (.+)$", done.stdout, re.M)
    assert example and command.name in example[1] and done.stderr == ""


@each_command
def test_an_option_that_nobody_knows_is_a_usage_error(place: Place, command: Path):
    done = place.run(command, "--no-such-option", code=2)
    assert done.stdout == "" and "--no-such-option" in done.stderr and not place.artifacts.exists()


@each_command
def test_it_runs_through_a_link_from_any_folder_whatever_the_shell_has_for_python(place: Place, tmp_path: Path, command: Path):
    for name in ("argparse", "json", "orjson", "swerun", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module from elsewhere')\n")
    link = tmp_path / "on-path" / command.name
    link.parent.mkdir()
    link.symlink_to(command)
    path = f"{link.parent}:{place.env['PATH']}"
    done = place.run(command.name, "--help", cwd=tmp_path, PATH=path, PYTHONPATH=str(tmp_path), PYTHONHOME="/nonexistent", PYTHONSTARTUP="/nonexistent", VIRTUAL_ENV="/nonexistent")
    assert "example:" in done.stdout


def test_a_pipe_of_linked_commands_works_in_another_folder(place: Place, tmp_path: Path):
    (tmp_path / "on-path").symlink_to(TOOLKIT / "bin")
    line = "set -o pipefail; tasks --dataset sample | run-agent --agent null | collect 2>&1 >table"
    done = place.run("bash", "-c", line, cwd=tmp_path, PATH=f"{tmp_path}/on-path:{place.env['PATH']}", PYTHONPATH="/nonexistent")
    assert done.stdout.startswith("collect: wrote ") and "all" in (tmp_path / "table").read_text()
    report = json.loads((place.artifacts / "results/sample-null/report.json").read_text())
    assert report["empty_patch_ids"] == SAMPLE_IDS


@pytest.mark.parametrize("name", READERS)
def test_a_terminal_and_no_arguments_is_a_usage_error_and_no_wait(place: Place, name: str):
    ours, terminal = pty.openpty()
    try:
        done = subprocess.run([TOOLKIT / "bin" / name], stdin=terminal, capture_output=True, text=True, timeout=10, env=place.env)
    finally:
        os.close(ours)
        os.close(terminal)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "terminal" in done.stderr and done.stderr.startswith(f"{name}: ")


def test_without_its_environment_a_command_says_how_to_make_it(place: Place, tmp_path: Path):
    toolkit = copied(tmp_path / "copy")
    for command in COMMANDS:
        done = place.run(toolkit / command.relative_to(TOOLKIT), "--help", code=1)
        assert done.stdout == "" and done.stderr.count("\n") == 1 and "./bootstrap.sh" in done.stderr


def test_bootstrap_says_how_to_install_what_is_missing(place: Place, tmp_path: Path):
    done = place.run("./bootstrap.sh", code=1, PATH=tools(tmp_path / "tools", "parallel", "jq"))
    assert "no 'parallel'" in done.stderr and "no 'jq'" in done.stderr and "no 'git'" not in done.stderr
    for words in ("apt-get install parallel", "dnf install parallel", "brew install parallel", "conda-forge parallel"):
        assert words in done.stderr


def test_bootstrap_again_does_nothing_in_no_time(place: Place):
    place.run("./bootstrap.sh")
    before, start = (TOOLKIT / ".venv/bootstrapped").stat().st_mtime_ns, time.monotonic()
    done = place.run("./bootstrap.sh")
    assert time.monotonic() - start < 2 and done.stdout + done.stderr == ""
    assert (TOOLKIT / ".venv/bootstrapped").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["a b", "a:b"], ids=["space", "colon"])
def test_a_toolkit_whose_path_would_break_tools_is_refused_in_one_line(place: Place, tmp_path: Path, name: str):
    toolkit = copied(tmp_path / name, venv=True)
    for words, code in (((toolkit / "bin/tasks", "--dataset", "sample"), 2), ((toolkit / "scripts/clean-temp",), 2), ((toolkit / "bootstrap.sh",), 1)):
        done = place.run(*words, code=code)
        assert done.stdout == "" and done.stderr.count("\n") == 1 and "move it" in done.stderr
    assert "move it" in place.run("make", "-C", toolkit, "run-sample", code=2).stderr


def test_the_readme_has_a_heading_for_every_command():
    readme = (TOOLKIT / "README.md").read_text()
    headings = re.findall(r"^#+ .*?\bbin/([\w-]+)", readme, re.M)
    assert sorted(headings) == sorted(file.name for file in (TOOLKIT / "bin").iterdir() if file.is_file())


def test_every_option_is_in_the_readme_and_known_to_make():
    from swerun.options import OPTIONS

    known = (TOOLKIT / "Makefile").read_text().partition("OPTIONS :=")[2].partition("$(foreach")[0].split()
    readme = (TOOLKIT / "README.md").read_text()
    assert {option.name for option in OPTIONS} <= set(known)
    assert not [option.name for option in OPTIONS if f"`{option.name}`" not in readme and f"{option.name}=" not in readme]


def test_every_version_of_every_repository_has_a_spec_with_an_official_parser():
    from swerun import spec

    program = "from swerun import verdicts; print(*verdicts.parsers())"
    parsers = set(subprocess.run([TOOLKIT / ".venv/bin/python", "-I", "-c", program], check=True, capture_output=True, text=True).stdout.split())
    loaded = 0
    for file in (TOOLKIT / "lib/swerun/specs").glob("[!_]*.toml"):
        table = tomllib.loads(file.read_text())
        assert file.stem == table["repo"].replace("/", "__")
        for version in (version for one in table["official"] for version in one["versions"]):
            made = spec.from_tables(table["repo"], version)
            assert made.log_parser in parsers and made.test_cmd and re.fullmatch(r"[23]\.\d+", made.python), (table["repo"], version)
            loaded += 1
    assert loaded > 150


def test_the_sample_is_what_its_histories_give(place: Place):
    place.run("scripts/make-sample", "--check", "--no-tests")


@pytest.mark.slow
def test_the_spec_tables_are_those_of_the_official_harness(place: Place):
    place.run("scripts/import-specs", "--check")


def test_a_command_of_ours_that_reads_may_take_longer_than_we_are_silent():
    program = "from swerun import process; process.TICK = 0.1; print(process.run('sh', '-c', 'sleep 0.5; wc -c', input=b'seven b').stdout)"
    done = subprocess.run([TOOLKIT / ".venv/bin/python", "-I", "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["7"], done.stderr
