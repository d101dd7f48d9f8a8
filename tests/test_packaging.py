"""Rows of repositories that nobody has described: environments from packaging files, from eval_script, install_config and SPECS."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import TOOLKIT, Place

PYPROJECT = """
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"
[project]
name = "tool"
version = "1.0"
requires-python = ">=3.9"
classifiers = ["Programming Language :: Python :: 3.9", "Programming Language :: Python :: 3.11"]
dependencies = ["colorama"]
[project.optional-dependencies]
test = ["tomli>=2", "no-such-package-of-anybody-9"]
speed = ["iniconfig"]
[tool.pytest.ini_options]
addopts = "--strict-markers"
"""
BROKEN, FIXED = "def double(n):\n    return n + 2\n", "def double(n):\n    return n * 2\n"
TESTS = "import tomli\nimport iniconfig\nimport colorama\nfrom tool import double\n\n\ndef test_two():\n    assert double(2) == 4\n"
FIX = "diff --git a/src/tool.py b/src/tool.py\n--- a/src/tool.py\n+++ b/src/tool.py\n@@ -1,2 +1,2 @@\n def double(n):\n-    return n + 2\n+    return n * 2\n"
MORE = "\n\ndef test_three():\n    assert double(3) == 6\n"
TEST_PATCH = "diff --git a/tests/test_tool.py b/tests/test_tool.py\n--- a/tests/test_tool.py\n+++ b/tests/test_tool.py\n@@ -6,3 +6,7 @@\n \n def test_two():\n     assert double(2) == 4\n+\n+\n+def test_three():\n+    assert double(3) == 6\n"
SCRIPT = """#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
export SAID_BEFORE=/testbed/tests
apt-get update && apt-get install -y locales
git config --global --add safe.directory /testbed
cd /testbed
git status
git show
git -c core.fileMode=false diff {base}
source /opt/miniconda3/bin/activate
conda activate testbed
python -m pip install -e . pytest
git checkout {base} tests/test_tool.py
git apply -v - <<'EOF_114329324912'
pip install nothing
EOF_114329324912
: '>>>>> Start Test Output'
test -d "$SAID_BEFORE" && pytest -rA -p no:cacheprovider /testbed/tests/test_tool.py
: '>>>>> End Test Output'
git checkout {base} tests/test_tool.py
"""
CONFIG = {"python": "3.11", "install": "pip install -e .[speed]", "packages": "requirements.txt", "pip_packages": ["pytest", "tomli"], "reqs_path": ["needs.txt"],
          "pre_install": ["apt-get update", "echo made > made.txt"], "test_cmd": "pytest --no-header -rA", "log_parser": "parse_log_pytest", "env_vars": None, "no_use_env": None}


class Project:
    """A repository with nothing but packaging files, its row, and a place to run it in."""

    def __init__(self, place: Place, folder: Path, commit: str, file: Path):
        self.place, self.file, self.commit = place, file, commit
        self.env = {"REMOTE": str(folder), "DATASET": str(file)}

    def rows(self, *changes: dict[str, Any]) -> None:
        usual = {"instance_id": "acme__tool-1", "repo": "acme/tool", "base_commit": self.commit, "problem_statement": "It adds.", "created_at": "2023-06-01T00:00:00Z",
                 "patch": FIX, "test_patch": TEST_PATCH, "FAIL_TO_PASS": ["tests/test_tool.py::test_three"], "PASS_TO_PASS": ["tests/test_tool.py::test_two"]}
        self.file.write_text("".join(f"{json.dumps(usual | change)}\n" for change in changes))

    def graded(self, run: str, agent: str = "gold", **env: str) -> dict[str, Any]:
        more = self.env | {"RUN": run, "AGENT": agent, "EMPTY_PATCH": "1"} | env
        self.place.make("run", "-j1", **more)
        return self.place.state(run, "acme__tool-1", "tests.json")

    def log(self, run: str) -> str:
        return self.place.state(run, "acme__tool-1", "test_output.txt")


@pytest.fixture
def project(place: Place, git_repository, tmp_path: Path) -> Project:
    files = {"pyproject.toml": PYPROJECT, "src/tool.py": BROKEN, "tests/test_tool.py": TESTS, "needs.txt": "packaging<23\n"}
    folder, commits = git_repository("tool", [files, {"src/tool.py": FIXED, "tests/test_tool.py": TESTS + MORE}])
    return Project(place, folder, commits[0], tmp_path / "mine.jsonl")


def test_a_row_of_an_unknown_repository_resolves_from_its_packaging_files(project: Project) -> None:
    project.rows({})
    assert project.graded("none", "null")["resolved"] is False
    made = project.graded("gold")
    assert made["resolved"] is True and made["tests"]["PASS_TO_PASS"] == {"success": 1, "failure": 0}
    lock = project.place.state("gold", "acme__tool-1", "lock.toml")
    assert 'python = "3.11"' in lock and 'exclude_newer = "2023-06-01T00:00:00Z"' in lock
    # of the extras what can be had, and what the tests import; pytest as of the date
    assert all(f'"{name}==' in lock for name in ("tomli", "iniconfig", "colorama")) and '"pytest==7.3.1"' in lock
    # what it decided is kept: neither the mirror nor the history is asked again
    kept = list((project.place.artifacts / "cache/specs").iterdir())
    assert len(kept) == 1
    shutil.rmtree(project.place.artifacts / "cache/mirrors")
    assert project.place.records("bin/setup-venv", "--run", "again", "acme__tool-1", **project.env)[0]["env_key"] == made["env_key"]
    # and without it, the sealed history says the same
    kept[0].unlink()
    assert project.place.records("bin/setup-venv", "--run", "again", "acme__tool-1", **project.env)[0]["env_key"] == made["env_key"]


def test_a_row_runs_by_its_own_eval_script(project: Project) -> None:
    project.rows({"version": "1.0", "eval_script": SCRIPT.format(base=project.commit), "log_parser": "parse_log_pytest_v2", "eval_type": "pass_and_fail"})
    assert project.graded("gold")["resolved"] is True
    log = project.log("gold")
    assert "-p no:cacheprovider" in log and "apt-get" not in log and "conda" not in log
    assert log.count("tests/test_tool.py::test_three") == 1  # the script names the files itself
    assert project.graded("none", "null")["resolved"] is False


@pytest.mark.slow
def test_a_row_runs_by_its_own_install_config(project: Project) -> None:
    project.rows({"install_config": CONFIG, "version": "0.0"})
    assert project.graded("gold")["resolved"] is True
    lock = project.place.state("gold", "acme__tool-1", "lock.toml")
    assert '"packaging==22.0"' in lock and '"iniconfig==' in lock
    assert "--no-header" in project.log("gold")
    # SWE-rebench freezes what its environment had: those versions, whatever their dates
    project.rows({"install_config": CONFIG, "version": "0.0", "requirements": "tomli==2.0.1\npytest==8.0.0\n-e git+https://example.com/tool@0#egg=tool\n"})
    project.graded("frozen")
    lock = project.place.state("frozen", "acme__tool-1", "lock.toml")
    assert '"pytest==8.0.0"' in lock and '"tomli==2.0.1"' in lock


def test_specs_of_the_user_come_first_and_belong_to_the_run(project: Project, tmp_path: Path) -> None:
    mine = tmp_path / "specs"
    mine.mkdir()
    (mine / "acme__tool.toml").write_text("""
log_parser = "parse_log_pytest"
[[ours]]
versions = ["*"]
reason = "a test"
python = "3.11"
pip_packages = ["pytest<8", "tomli", "iniconfig"]
install = "python -m pip install -e ."
test_cmd = "pytest -rA -p no:cacheprovider"
""")
    project.rows({})
    assert project.graded("mine", SPECS=str(mine))["resolved"] is True
    assert "no:cacheprovider" in project.log("mine")
    # a stage by hand goes on with what the run says; another value is another run
    redone = project.place.records("bin/run-tests", "--run", "mine", "acme__tool-1", **{"DATASET": project.env["DATASET"], "REMOTE": project.env["REMOTE"]})
    assert redone[0]["resolved"] is True and "no:cacheprovider" in project.log("mine")
    other = project.place.make("run", "-j1", code=2, **project.env, RUN="mine", AGENT="gold", EMPTY_PATCH="1", SPECS="none")
    assert "SPECS" in other.stderr
    assert "is no folder" in project.place.run("bin/setup-venv", "--specs", tmp_path / "absent", "acme__tool-1", code=2, **project.env).stderr


def test_rows_of_other_languages_are_refused_in_one_line(place: Place, project: Project) -> None:
    script = "diff --git a/lib/a.js b/lib/a.js\n--- a/lib/a.js\n+++ b/lib/a.js\n"
    project.rows({}, *({"instance_id": f"acme__web-{n}", "patch": script, "test_patch": script} for n in range(3)), {"instance_id": "acme__go-1", "language": "Go"},
                 {"instance_id": "acme__marked-1", "log_parser": "parse_log_marked"}, {"instance_id": "acme__odd-1", "log_parser": "parse_log_of_mine"})
    done = place.run("bin/tasks", "--dataset", project.file, code=1)
    assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == ["acme__tool-1"]
    said = done.stderr.splitlines()
    assert len(said) == 3
    assert "row 7 ('acme__odd-1') refused: no log parser 'parse_log_of_mine'" in said[0]
    assert "4 rows refused, 'acme__web-0' for one: they are JavaScript, and this toolkit runs Python projects" in said[1]
    assert "row 'acme__go-1' refused: it is Go" in said[2]


@pytest.mark.parametrize("said, same", [("2021-03-05 09:35:34", "2021-03-05 09:35:34"), (1614936934000, "2021-03-05T09:35:34Z"), ("1614936934", "2021-03-05T09:35:34Z"),
                                        ("2021-03-05 09:35:34 UTC", "2021-03-05 09:35:34"), ("2021-03-05T10:35:34+01:00", "2021-03-05T10:35:34+01:00"), ("once", "")])
def test_a_date_of_a_row_is_one_that_an_upload_limit_can_be(project: Project, said: Any, same: str) -> None:
    project.rows({"created_at": said})
    assert project.place.records("bin/tasks", "--dataset", project.file)[0]["created_at"] == same


SETUP = """
import sys
from setuptools import setup
open("was-run", "w")
TESTS = ["pytest", "mock; python_version < '3'"]
if sys.version_info < (3, 0):
    TESTS.append("enum34")
EXTRAS = {"tests": TESTS, "lint": ["flake8==3.7.8"], "odd": unknown()}
EXTRAS["dev"] = EXTRAS["tests"] + EXTRAS["lint"] + ["tox"]
EXTRAS.update(all=sorted(set(sum(EXTRAS.values(), []))))
def main():
    words = dict(name="x", python_requires=">=3.6", tests_require=["nose"] if sys.version_info[0] == 2 else ["hypothesis"])
    setup(extras_require=EXTRAS, classifiers=["Programming Language :: Python :: 3.7"], install_requires=open("r.txt").read(), **words)
main()
"""


def test_a_setup_py_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swerun import setuppy

    monkeypatch.chdir(tmp_path)
    found = setuppy.keywords(SETUP)
    assert not list(tmp_path.iterdir())
    assert found["extras_require"]["tests"] == ["pytest", "mock; python_version < '3'"]
    assert found["extras_require"]["dev"] == ["pytest", "mock; python_version < '3'", "flake8==3.7.8", "tox"]
    assert found["extras_require"]["odd"] == [] and "tox" in found["extras_require"]["all"]
    assert found["tests_require"] == ["hypothesis"] and found["python_requires"] == ">=3.6" and "install_requires" not in found
    assert setuppy.keywords("print 'Python 2'") == {}


def listing(git_repository, files: dict[str, str], date: str) -> Any:
    from swerun import packaging, trees

    folder, commits = git_repository("some", [files])
    return packaging.made_from(trees._tree(folder, commits[0]), date, [])


TOX = """
[tox]
envlist = lint, py{36,37}-{a,b}, py38
[base]
deps =
    coverage<5
[testenv]
deps =
    {[base]deps}
    -Urreqs/test.txt
    py36: dataclasses
    py38: only-for-this
    -e plugins/own
    ./local
extras = tests
setenv =
    HOME = {toxworkdir}
    SOME_FLAG = 1
[testenv:lint]
deps = flake8
"""


@pytest.mark.parametrize("files, date, python, wishes", [
    ({"tox.ini": TOX, "reqs/test.txt": "# for tests\n-r more.txt\npytest>=5 # why\ngit+https://example.com/x\n-c pins.txt\n", "reqs/more.txt": "mock\n-e .[extra]\n",
      "setup.py": "from setuptools import setup\nsetup(extras_require={'tests': ['six']}, install_requires=['six'])\n"}, "2021-06-01", "3.8",
     ["coverage<5", "mock", ".[extra]", "pytest>=5", "only-for-this", ".[tests]"]),
    ({"pyproject.toml": '[tool.poetry]\n[tool.poetry.dependencies]\npython = "^3.7"\nfastapi = {version = "^0.68.1", optional = true}\n[tool.poetry.extras]\nweb = ["fastapi"]\n'
      '[tool.poetry.group.test.dependencies]\npytest = "~7.1"\n'}, "2022-05-01", "3.10", ["pytest>=7.1,<7.2"]),
    ({"pyproject.toml": '[project]\nrequires-python = ">=3.7,<3.11"\ndependencies = ["six"]\n[dependency-groups]\nbase = ["mock"]\ntests = [{include-group = "base"}, "pytest"]\n'
      'docs = ["sphinx"]\n'}, "2023-10-01", "3.10", ["pytest", "mock"]),
    ({"setup.cfg": "[options]\npython_requires = >=3.6\ninstall_requires = six\n[options.extras_require]\ndev =\n  pytest\n  tox\n[tool:pytest]\naddopts = --cov=x\n"}, "2021-12-01", "3.9",
     [".[dev]", "pytest-cov"]),
    # classifiers of a Python that is no more are not kept up; those of a living one say what it is tested with
    ({"setup.cfg": "[metadata]\nclassifiers =\n  Programming Language :: Python :: 3.6\n[options]\ninstall_requires = six\n"}, "2024-06-01", "3.12", []),
    ({"setup.cfg": "[metadata]\nclassifiers =\n  Programming Language :: Python :: 3.6\n[options]\ninstall_requires = six\n"}, "2019-07-01", "3.6", []),
    ({"requirements.txt": "flask\n", "test_app.py": "import mock\nimport flask\nimport yaml\nimport whatever\ntry:\n    import numpy\nexcept ImportError:\n    pass\n"}, "2020-06-01", "3.8",
     ["flask", "mock", "pyyaml"]),
], ids=["tox", "poetry", "groups", "setup.cfg", "stale", "kept", "none"])
def test_what_packaging_files_say(git_repository, files: dict[str, str], date: str, python: str, wishes: list[str]) -> None:
    made = listing(git_repository, files, f"{date}T00:00:00Z")
    assert made.wishes == wishes and made.exclude_newer == f"{date}T00:00:00Z"
    assert made.python == python
    assert made.environment == ({"SOME_FLAG": "1"} if "tox.ini" in files else {})
    assert made.install == ("" if "requirements.txt" in files else "python -m pip install -e .")


def test_every_specification_file_of_the_toolkit_is_found_by_its_repository() -> None:
    from swerun import spec

    assert spec.source({"repo": "psf/requests", "version": "2.3"}) == "tables"
    assert spec.source({"repo": "psf/requests", "version": "99"}) == spec.source({"repo": "acme/tool", "version": ""}) == "packaging"
    assert (TOOLKIT / "lib/swerun/specs/psf__requests.toml").is_file()
