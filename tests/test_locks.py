"""Locks: what cannot be resolved is said in a line, what was resolved once is never resolved again, and nothing else gets in."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place

ROW = ROWS["swerun-sample__textkit-19"]
# no pip and no project: resolved and built in a second
TINY = ROW["install_config"] | {"seed": [], "pip_packages": ["iniconfig==2.0.0"], "install": ""}
NO_INDEX = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_INDEX_URL": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}


def dataset(folder: Path, *rows: dict) -> Path:
    file = folder / "tasks.jsonl"
    file.write_text("".join(json.dumps(ROW | row) + "\n" for row in rows))
    return file


def tiny(name: str = "tiny", **config: object) -> dict:
    return {"instance_id": name, "install_config": TINY | config}


def words(tasks: Path, run: str = "r") -> tuple[str | Path, ...]:
    return "bin/setup-venv", "--dataset", tasks, "--run", run


def failures(said: str) -> list[str]:
    assert "Traceback" not in said
    return [line for line in said.splitlines() if "failed: " in line]


def the_log(line: str) -> str:
    return Path(re.search(r"\(the log is ([^)]+)\)", line)[1]).read_text()


def pins(place: Place, run: str, name: str) -> list[str]:
    return tomllib.loads(place.state(run, name, "lock.toml"))["packages"]


def test_a_package_that_nobody_has_is_named_in_one_line_and_the_other_records_go_on(place: Place, tmp_path: Path):
    absent = "no-package-of-anybody-has-this-name"
    tasks = dataset(tmp_path, tiny("conda", packages=f"iniconfig {absent}"), tiny("pip", pip_packages=["iniconfig==2.0.0", f"{absent}==1.2"]),
                    tiny("version", pip_packages=["iniconfig==99.1"]), tiny("unspeakable", pip_packages=["iniconfig=="]), tiny("good"))
    done = place.run(*words(tasks), "conda", "pip", "version", "unspeakable", "good", code=1)
    assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == ["good"]
    for name, line, named in zip(("conda", "pip", "version", "unspeakable"), failures(done.stderr), (absent, absent, "iniconfig==99.1", "iniconfig=="), strict=True):
        assert line.startswith(f"setup-venv: {name}: failed: ") and named in line.partition(" (the log is ")[0] and len(line) < 1200, line
        assert named in the_log(line)
        assert not (place.artifacts / "runs/r" / name / "lock.toml").exists() and not (place.artifacts / "worktrees/r" / name / "venv").exists()


def test_an_index_that_is_not_there_is_said_in_one_line_and_leaves_nothing_that_passes_for_complete(place: Place, tmp_path: Path):
    tasks = dataset(tmp_path, tiny())
    for moment in ("resolving", "building"):
        done = place.run(*words(tasks), "tiny", code=1, UV_CACHE_DIR=str(tmp_path / f"no-uv-{moment}"), **NO_INDEX)
        [line] = failures(done.stderr)
        assert done.stdout == "" and "127.0.0.1:9" in line and "127.0.0.1:9" in the_log(line)
        assert not list(place.artifacts.glob("cache/environments/*/complete.json")) and not list(place.artifacts.glob("cache/layers/*/manifest.json"))
        # and the same with a lock, but no environment
        record = place.records(*words(tasks), "tiny")[0]
        for folder in ("environments", "layers"):
            subprocess.run(["rm", "-rf", *place.artifacts.glob(f"cache/{folder}/*")], check=True)
    assert Path(record["venv"], "bin/python").exists() and "resolving" not in done.stderr


DATED = {"instance_id": "dated", "created_at": "2022-03-01 12:00:00", "install_config": {**TINY, "pip_packages": ["pytest"], "exclude_newer": ""}}


def test_what_is_resolved_at_run_time_is_as_of_the_rows_date_and_is_kept_with_the_run(place: Place, tmp_path: Path):
    tasks = dataset(tmp_path, DATED)
    done = place.run(*words(tasks), "dated")
    first = json.loads(done.stdout)
    assert "resolving" in done.stderr and "pytest==7.0.1" in pins(place, "r", "dated")
    facts = tomllib.loads(place.state("r", "dated", "lock.toml"))
    assert (facts["repo"], facts["base_commit"], facts["validated"], facts["exclude_newer"]) == (ROW["repo"], ROW["base_commit"], False, DATED["created_at"])
    # years later: other dates at the index, nothing cached
    lock = place.artifacts / "runs/r/dated/lock.toml"
    older = lock.read_text().replace("pytest==7.0.1", "pytest==7.0.0")
    lock.write_text(older)
    subprocess.run(["rm", "-rf", place.artifacts / "cache", place.artifacts / "worktrees"], check=True)
    again = place.run(*words(tasks), "dated")
    second = json.loads(again.stdout)
    assert "resolving" not in again.stderr and lock.read_text() == older and second["env_key"] != first["env_key"]
    assert subprocess.run([Path(second["venv"]) / "bin/pytest", "--version"], capture_output=True, text=True).stdout.split() == ["pytest", "7.0.0"]
    # and only who asks for it gets a new one
    renewed = place.run(*words(tasks), "--relock", "dated")
    assert ": -pytest==7.0.0 +pytest==7.0.1" in renewed.stderr and json.loads(renewed.stdout)["env_key"] == first["env_key"]
    assert "pytest==7.0.1" in lock.read_text() and place.records(*words(tasks), "dated")[0]["env_key"] == first["env_key"]


def test_a_file_that_is_no_lock_is_said_in_one_line_that_says_what_mends_it(place: Place, tmp_path: Path):
    tasks, lock = dataset(tmp_path, tiny()), place.artifacts / "runs/r/tiny/lock.toml"
    place.run(*words(tasks), "tiny")
    right = lock.read_bytes()
    edits = ((b"build = []", b"build = 3"), (b"build = []", b'build = "six"'), (b'python = "', b'python = "x'), (b"==2.0.0", b" and more"))
    for garbage in (b"", b"\0\1\xff", right[:len(right) // 2], *(right.replace(*edit) for edit in edits)):
        lock.write_bytes(garbage)
        done = place.run(*words(tasks), "tiny", code=1)
        [line] = failures(done.stderr)
        assert done.stdout == "" and str(lock) in line and "--relock" in line, line
    place.run(*words(tasks), "--relock", "tiny")
    assert lock.read_bytes() == right


slow = lambda *values: pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("command,named", [("python -m pip install -e . && python -m pip install six", "six"), slow("python -m pip install -i https://pypi.org/simple six", "six"),
                                           slow("PIP_NO_BUILD_ISOLATION=1 python -m pip install -e .", "setuptools>=61")], ids=["another package", "an index", "isolation"])
def test_an_installation_reaches_nothing_but_its_lock(warm: Place, tmp_path: Path, command: str, named: str):
    done = warm.run(*words(dataset(tmp_path, {"instance_id": "reaches", "install_config": ROW["install_config"] | {"install": command}})), "reaches", code=1)
    [line] = failures(done.stderr.replace("' failed: ", "': "))
    assert done.stdout == "" and f"No matching distribution found for {named}" in the_log(line)


def test_what_builds_need_is_locked_too_and_only_builds_see_it(warm: Place, tmp_path: Path):
    record = warm.records("bin/setup-venv", "--dataset", "sample", "--run", "build", ROW["instance_id"])[0]
    facts = tomllib.loads(warm.state("build", ROW["instance_id"], "lock.toml"))
    assert any(pin.startswith("setuptools==") for pin in facts["build"])  # its pyproject.toml asks for it
    listed = subprocess.run([f"{record['venv']}/bin/python", "-c", "import sys; print(*sys.path)"], check=True, capture_output=True, text=True).stdout
    assert str(warm.artifacts / "cache/environments" / record["env_key"] / "build") not in listed.split()


def test_every_shipped_lock_is_one_of_the_spec_beside_it():
    from swerun import paths, spec

    for file in paths.LOCKS.glob("*.toml"):
        facts = tomllib.loads(file.read_text())
        made = spec.from_tables(facts["repo"], facts["version"])
        assert re.fullmatch(re.escape(f"{paths.slug(facts['repo'])}-{facts['version']}") + r"(~\d+)?", file.stem)
        assert facts["spec"] == made.digest(), f"{file.name} was made from another spec (bin/setup-venv --relock)"
        assert re.fullmatch(r"3\.([6-9]|1[0-3])", facts["python"]) and made.python in (facts["python"], "3") and isinstance(facts["validated"], bool)
        assert re.fullmatch(r"[0-9a-f]{40}", facts["base_commit"]) and facts["exclude_newer"] == made.exclude_newer != ""
        for pins in (facts["packages"], facts["build"]):
            assert pins == sorted(set(pins)) and all(re.fullmatch(r"[a-zA-Z0-9][\w.-]*==[\w.!+-]+", pin) for pin in pins), file.name
        assert made.pip != "masked" or not any(pin.startswith("pip==") for pin in facts["packages"])


SPEC = """
repo = "acme/gear"
log_parser = "parse_log_pytest"
exclude_newer = "2022-06-01T00:00:00Z"

[[official]]
versions = ["1.0"]
python = "3"
pip_packages = ["iniconfig"]
install = "python check.py"
test_cmd = "python check.py"

[[ours]]
versions = ["*"]
reason = "quickly made"
seed = []
"""
PROJECT = "[build-system]\nrequires = []\n[project]\nname = 'gear'\nversion = '1.0'\ndependencies = {}\n"
COMMITS = [{"pyproject.toml": PROJECT.format(["iniconfig"]), "check.py": "import iniconfig\n"}, {"README": "nothing that is installed\n"},
           {"pyproject.toml": PROJECT.format(["iniconfig", "six"]), "check.py": "import iniconfig, six\n"}, {"check.py": "import helper_that_nobody_has\n"}]


class Shipped:
    """A copy of the toolkit with a spec for a repository of ours, and two places."""

    def __init__(self, root: Path, uv_cache: Path, repository: Path, commits: list[str]):
        self.toolkit, self.repository = root / "toolkit", repository
        for name in ("bin", "lib", "scripts"):
            shutil.copytree(TOOLKIT / name, self.toolkit / name, ignore=shutil.ignore_patterns("__pycache__"))
        (self.toolkit / ".venv").symlink_to(TOOLKIT / ".venv")
        self.spec, self.lock = self.toolkit / "lib/swerun/specs/acme__gear.toml", self.toolkit / "lib/swerun/locks/acme__gear-1.0.toml"
        self.spec.write_text(SPEC)
        rows = [{"instance_id": f"gear-{number}", "repo": "acme/gear", "version": "1.0", "base_commit": commit, "install_config": None} for number, commit in enumerate(commits)]
        self.tasks = dataset(root, *rows)
        self.here, self.there = Place(root / "here", uv_cache), Place(root / "there", uv_cache)

    def setup(self, place: Place, *more: str, code: int = 0) -> subprocess.CompletedProcess:
        return place.run(self.toolkit / "bin/setup-venv", *words(self.tasks)[1:], "--remote", self.repository, *more, code=code)


@pytest.fixture
def shipped(tmp_path: Path, uv_cache: Path, git_repository) -> Shipped:
    return Shipped(tmp_path, uv_cache, *git_repository("gear", COMMITS))


def test_a_lock_is_made_once_shipped_and_used_wherever_it_fits(shipped: Shipped):
    here, there, lock = shipped.here, shipped.there, shipped.lock
    made = shipped.setup(here, "--relock", "gear-0")
    facts, text = tomllib.loads(lock.read_text()), lock.read_text()
    assert f"locked in '{lock}'" in made.stderr and not list(here.artifacts.glob("runs/*/*/lock.toml")) and facts["packages"] == ["iniconfig==1.1.1"]
    # elsewhere, for another commit of the version
    used = shipped.setup(there, "gear-1")
    assert "resolving" not in used.stderr and json.loads(used.stdout)["env_key"] == json.loads(made.stdout)["env_key"]
    assert not list(there.artifacts.glob("runs/*/*/lock.toml")) and lock.read_text() == text
    # how tests are run decides nothing about a lock; what is installed does
    shipped.spec.write_text(SPEC.replace('test_cmd = "python check.py"', 'test_cmd = "python -m check"'))
    assert "resolving" not in shipped.setup(there, "gear-1").stderr
    shipped.spec.write_text(SPEC + 'pins = ["no-such-thing==1.0"]\n')
    stale = shipped.setup(there, "gear-1")
    assert "resolving" in stale.stderr and lock.read_text() == text and pins(there, "r", "gear-1") == facts["packages"]


def test_a_commit_that_a_lock_does_not_fit_gets_one_of_its_own_that_is_kept(shipped: Shipped):
    here = shipped.here
    shipped.setup(here, "--relock", "gear-0")
    unfit = shipped.setup(here, "gear-2")
    [said] = [line for line in unfit.stderr.splitlines() if re.search(r"lock.* of acme/gear 1.0 .*fits? this commit", line)]
    assert "No module named 'six'" in said and pins(here, "r", "gear-2") == ["iniconfig==1.1.1", "six==1.16.0"]
    assert "six" not in shipped.lock.read_text()
    shutil.rmtree(here.artifacts / "cache/layers")
    again = shipped.setup(here, "gear-2")
    assert "resolving" not in again.stderr and json.loads(again.stdout)["env_key"] == json.loads(unfit.stdout)["env_key"]
    # one that no lock can help, and the next record
    done = shipped.setup(here, "gear-3", "gear-1", code=1)
    [line] = [line for line in done.stderr.splitlines() if "gear-3: failed: " in line]
    assert "helper_that_nobody_has" in line and "helper_that_nobody_has" in the_log(line) and len(done.stdout.splitlines()) == 1


def test_a_repository_whose_pip_is_masked_is_installed_by_pip_and_sees_none_of_it(shipped: Shipped):
    shipped.spec.write_text(SPEC.replace('install = "python check.py"', 'install = "python -m pip install -e ."').replace("seed = []", 'seed = ["pip<22", "setuptools<60", "wheel"]\npip = "masked"'))
    setup = "from setuptools import setup\nsetup(name='gear', version='1.0', py_modules=['check'])\n"
    git = ("git", "-C", shipped.repository, "-c", "user.name=a", "-c", "user.email=a@example.com")
    (shipped.repository / "setup.py").write_text(setup)
    for words in (("rm", "-q", "pyproject.toml"), ("add", "setup.py"), ("commit", "-q", "-m", "setup.py")):
        subprocess.run([*git, *words], check=True)
    base = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    dataset(shipped.tasks.parent, {"instance_id": "masked", "repo": "acme/gear", "version": "1.0", "base_commit": base, "install_config": None})
    venv = Path(json.loads(shipped.setup(shipped.here, "--relock", "masked").stdout)["venv"])
    facts = tomllib.loads(shipped.lock.read_text())
    assert "pip==21.3.1" in facts["build"] and not any(pin.startswith("pip==") for pin in facts["packages"])
    ask = lambda *words: subprocess.run(words, capture_output=True, text=True, cwd="/", env={"PATH": f"{venv}/bin:{os.environ['PATH']}"})
    assert "helper_that_nobody_has" in ask("python", "-c", "import check").stderr  # pip installed it, and is gone
    for command in (("python", "-m", "pip", "list"), ("pip", "list"), ("pip3", "list")):
        answer = ask(*command)
        assert answer.returncode == 1 and "pip is masked" in answer.stderr and answer.stdout == ""
    answer = ask("python", "-c", "import os, sys; print([path for path in sys.path if os.path.exists(os.path.join(path, 'pip', '_vendor'))]); import pip._vendor")
    assert answer.stdout == "[]\n" and "ModuleNotFoundError" in answer.stderr
