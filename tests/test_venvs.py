"""The venvs of tasks: real ones, of their own, with everything of the shared environment in them and nothing of theirs in it."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROWS, TOOLKIT, Place

ROW = ROWS["swerun-sample__textkit-19"]
# the project as it may have been in the days of Python 3.6
LEGACY = ["rm pyproject.toml", """echo "from setuptools import setup; setup(name='textkit', version='0.2', package_dir={'': 'src'}, packages=['textkit'],"""
          """ entry_points={'console_scripts': ['kit = sysconfig:_main']})" >setup.py"""]
MODERN = [r"printf '[project.scripts]\nkit = \"sysconfig:_main\"\n' >>pyproject.toml"]
OFFLINE = ("install", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
slow = lambda value: pytest.param(value, marks=pytest.mark.slow)


class Task(NamedTuple):
    place: Place
    words: tuple[str, ...]
    name: str
    run: str
    venv: Path
    checkout: Path
    shared: Path

    def sh(self, *words: str | Path, code: int | None = 0, cwd: Path | str = "/", **more: str) -> str:
        """What a command says that is started as an agent's or a test's are."""
        env = {"PATH": f"{self.venv}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(self.venv), "HOME": str(self.venv.parent / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, env=env | more)
        assert code is None or done.returncode == code, done.stdout
        return done.stdout.strip()

    def python(self, program: str, **more) -> str:
        return self.sh("python", "-c", program, **more)

    def pip(self, *words: str | Path, **more) -> str:
        return self.sh("python", "-m", "pip", *words, **more)

    def packages(self) -> dict[str, str]:
        listed = self.pip("list", "--format=json", "--disable-pip-version-check")
        return {one["name"].lower(): one["version"] for one in json.loads(listed.splitlines()[0])}


@pytest.fixture(scope="module", params=["3", slow("3.6")])
def new(request, warm: Place, tmp_path_factory: pytest.TempPathFactory):
    """Make a task's venv: new(run), on the toolkit's own Python and on 3.6."""
    config = ROW["install_config"] | {"pre_install": MODERN}
    if request.param == "3.6":
        program = "from swerun import interpreters; interpreters.find('3.6')"
        if subprocess.run([TOOLKIT / ".venv/bin/python", "-I", "-c", program], env=warm.env, capture_output=True).returncode:
            pytest.skip("no Python 3.6 on this machine")
        config |= {"python": "3.6", "pip_packages": ["pytest==6.2.5"], "pre_install": LEGACY}
    file = tmp_path_factory.mktemp("venvs") / "tasks.jsonl"
    file.write_text(json.dumps(ROW | {"install_config": config}) + "\n")

    def make(run: str) -> Task:
        name = f"{run}-{request.param}"
        words = ("bin/setup-venv", "--dataset", str(file), "--run", name, ROW["instance_id"])
        [record] = warm.records(*words)
        return Task(warm, words, ROW["instance_id"], name, Path(record["venv"]), Path(record["worktree"]), warm.artifacts / "cache/environments" / record["env_key"])

    return make


@pytest.fixture(scope="module")
def task(new) -> Task:
    return new("venv")


def project(folder: Path, name: str, version: str, text: str = "", more: str = "") -> Path:
    """Somebody's own package on this disk, that is installed without a network."""
    folder.mkdir(parents=True)
    (folder / f"{name}.py").write_text(f"__version__ = {version!r}\n{text}")
    (folder / "setup.py").write_text(f"from setuptools import setup\nsetup(name={name!r}, version={version!r}, py_modules=[{name!r}], {more})\n")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts}


def test_it_is_a_venv_to_everything_that_asks(task: Task):
    [own] = task.venv.glob("lib/python3*/site-packages")
    program = "import json, os, site, sys, sysconfig; print(json.dumps([sys.prefix, sys.base_prefix != sys.prefix, site.getsitepackages(), site.ENABLE_USER_SITE," \
              " sysconfig.get_path('purelib'), sysconfig.get_path('scripts'), os.path.dirname(sys.executable)]))"
    bin = str(task.venv / "bin")
    for flags in ((), ("-I",), ("-E", "-s")):
        assert json.loads(task.sh("python", *flags, "-c", program)) == [str(task.venv), True, [str(own)], False, str(own), bin, bin]
    for shell in ("bash", "sh"):
        said = task.sh(shell, "-c", f". {task.venv}/bin/activate && echo $VIRTUAL_ENV && command -v python", VIRTUAL_ENV="", PATH=os.environ["PATH"])
        assert said.split() == [str(task.venv), f"{task.venv}/bin/python"]
    paths = json.loads(task.python("import json, sys; print(json.dumps(sys.path))"))
    [shared] = task.shared.glob("venv/lib/python3*/site-packages")
    assert paths.index(str(own)) < paths.index(str(shared)) and paths.index(str(task.checkout / "src")) < paths.index(str(shared))


def test_no_file_of_it_can_be_a_way_into_the_shared_one(task: Task):
    for path in task.venv.rglob("*"):
        assert path.is_symlink() or path.is_dir() or path.stat().st_nlink == 1
        assert not path.is_symlink() or not os.path.realpath(path).startswith(str(task.shared)), path
    shared, own = str(task.shared / "venv").encode(), [file for file in task.venv.glob("bin/*") if file.is_file() and not file.is_symlink()]
    assert len(own) > 5 and not [file for file in own if shared in file.read_bytes()]


def test_entry_points_of_shared_packages_are_its_own(task: Task, tmp_path: Path):
    (tmp_path / "test_it.py").write_text("import sys, pytest, textkit\ndef test_it(): print('at', sys.prefix, pytest.__file__)\n")
    said = task.sh("pytest", "-s", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
    assert f"at {task.venv} {task.shared}/" in said
    assert str(task.venv) in task.sh("kit")  # the project's own


def test_pth_files_of_the_shared_packages_are_run(task: Task):
    assert list(task.shared.glob("venv/lib/python3*/site-packages/distutils-precedence.pth"))
    assert task.python("import sys; print('_distutils_hack' in sys.modules)", SETUPTOOLS_USE_DISTUTILS="local") == "True"


def test_the_project_is_importable_from_anywhere_and_edits_of_it_are_seen(task: Task, tmp_path: Path):
    at = lambda: task.python("import textkit; print(textkit.__file__, getattr(textkit, 'edited', None))", cwd=tmp_path).split()
    source = task.checkout / "src/textkit/__init__.py"
    assert at() == [str(source), "None"]
    with open(source, "a") as file:
        file.write("\nedited = 'yes'\n")
    assert at() == [str(source), "yes"]


def test_a_package_installed_in_it_shadows_the_shared_one_and_is_seen_by_nobody_else(new, task: Task, tmp_path: Path):
    other, before, was = new("other"), files(task.shared), task.packages()
    assert other.shared == task.shared and was["iniconfig"][0] in "12" and {"pytest", "textkit", "setuptools", "pip"} <= set(was)
    said = task.pip(*OFFLINE, project(tmp_path / "iniconfig", "iniconfig", "99", "class IniConfig: pass\n"))
    assert "Successfully installed iniconfig-99" in said
    asks = "import iniconfig; print(getattr(iniconfig, '__version__', 'shared'), iniconfig.__file__.startswith({!r}))"
    assert task.python(asks.format(str(task.venv))) == "99 True" and task.packages() == was | {"iniconfig": "99"}
    # nobody else: another task of now, one of later, the shared environment
    for neighbour in (other, new("later")):
        assert "99" not in neighbour.python(asks.format(str(neighbour.shared))) and neighbour.packages() == was
    assert files(task.shared) == before and "building" not in task.place.run(*other.words).stderr
    # and back
    task.pip("uninstall", "-y", "iniconfig")
    assert task.packages() == was and task.python(asks.format(str(task.shared))).endswith("True")


def test_a_namesake_of_a_shared_package_that_is_installed_editably_shadows_it(new, tmp_path: Path):
    mine, source = new("editable"), project(tmp_path / "iniconfig", "iniconfig", "99", more="packages=['iniconfig'], package_dir={'': 'src'}")
    (source / "src/iniconfig").mkdir(parents=True)
    (source / "iniconfig.py").rename(source / "src/iniconfig/__init__.py")
    (source / "setup.py").write_text((source / "setup.py").read_text().replace("py_modules=['iniconfig'], ", ""))
    mine.pip(*OFFLINE, "-e", source)
    assert mine.python("import iniconfig; print(iniconfig.__file__)") == str(source / "src/iniconfig/__init__.py")


@pytest.mark.parametrize("seed", [["pip<22", "setuptools<60", "wheel<0.38"], slow(["pip", "setuptools", "wheel"])], ids=["then", "now"])
def test_a_project_that_its_own_tools_bring_too_is_the_one_of_the_checkout(place: Place, git_repository, tmp_path: Path, seed: list[str]):
    setup = "from setuptools import setup\nsetup(name='iniconfig', version='1.5', packages=['iniconfig'])\n"
    remote, [base] = git_repository("iniconfig", [{"setup.py": setup, "iniconfig/__init__.py": ""}])
    config = ROW["install_config"] | {"seed": seed, "pip_packages": ["iniconfig==2.0.0"]}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(ROW | {"repo": "acme/iniconfig", "base_commit": base, "install_config": config}) + "\n")
    [record] = place.records("bin/setup-venv", "--dataset", tmp_path / "tasks.jsonl", "--remote", remote, ROW["instance_id"])
    found = subprocess.run([f"{record['venv']}/bin/python", "-c", "import iniconfig; print(iniconfig.__file__)"], cwd="/", capture_output=True, text=True).stdout
    assert found.strip() == f"{record['worktree']}/iniconfig/__init__.py"
    assert "iniconfig" not in place.state("tasks-claude", ROW["instance_id"], "lock.toml").partition("packages = ")[2]


def test_what_is_shared_cannot_be_uninstalled_by_a_task(task: Task):
    before = files(task.shared)
    said = task.pip("uninstall", "-y", "pytest", "setuptools", code=None)
    assert "outside environment" in said and files(task.shared) == before
    assert {"pytest", "setuptools"} <= set(task.packages())


def test_the_project_itself_can_be_installed_anew_and_removed(new):
    mine = new("anew")
    assert "textkit" in mine.packages()
    mine.pip(*OFFLINE, "-e", mine.checkout)
    assert mine.python("import textkit; print(textkit.__file__)") == str(mine.checkout / "src/textkit/__init__.py")
    mine.pip("uninstall", "-y", "textkit")
    assert "textkit" not in mine.packages() and "No module named" in mine.python("import textkit", code=1)
    again = new("anew")
    assert again.venv == mine.venv and "textkit" in again.packages()  # a fresh one in its place


def test_a_pytest_plugin_and_a_script_installed_in_it_work(new, tmp_path: Path):
    mine = new("plugin")
    entries = "entry_points={'pytest11': ['herald = herald'], 'console_scripts': ['herald = herald:main']}"
    text = "import sys\ndef main(): print('script at', sys.prefix)\ndef pytest_report_header(config): return 'herald is loaded'\n"
    mine.pip(*OFFLINE, project(tmp_path / "herald", "herald", "1.0", text, entries))
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    for command in (("pytest",), ("python", "-m", "pytest")):
        said = mine.sh(*command, "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
        assert said.count("herald is loaded") == 1 and "herald-1.0" in said
    assert mine.sh("herald") == f"script at {mine.venv}"


def test_a_venv_made_from_it_is_an_ordinary_one(task: Task, tmp_path: Path):
    task.sh("python", "-m", "venv", "--without-pip", tmp_path / "nested")
    program = "import sys\ntry: import pytest\nexcept ImportError: print(sys.prefix)"
    assert task.sh(tmp_path / "nested/bin/python", "-c", program) == str(tmp_path / "nested")


def test_a_long_run_name_breaks_no_entry_point(new, tmp_path: Path):
    mine = new("long" * 50)
    (tmp_path / "test_it.py").write_text("import sys\ndef test_it(): print('at', sys.prefix)\n")
    assert f"at {mine.venv}" in mine.sh(mine.venv / "bin/pytest", "-s", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
    assert str(mine.venv) in mine.sh(mine.venv / "bin/kit")


def test_an_agent_is_in_it_and_what_it_installs_is_not_where_grading_happens(warm: Place, agent, tmp_path: Path):
    project(tmp_path / "textkit", "textkit", "99", "raise SystemExit('not the project')\n")
    installs = agent(f"echo $VIRTUAL_ENV; command -v python; cp -r {tmp_path}/textkit $AGENT_OUT/; git apply {tmp_path}/fix.diff\n"
                     f"python -m pip {' '.join(OFFLINE)} --force-reinstall $AGENT_OUT/textkit; cd /; python -c 'import textkit'; true")
    (tmp_path / "fix.diff").write_text(ROW["patch"])
    done = warm.run("bin/run-agent", "--dataset", "sample", "--agent", installs, "--run", "installs", ROW["instance_id"])
    said = (warm.artifacts / "runs/installs" / ROW["instance_id"] / "attempts/1/stdout.txt").read_text().splitlines()
    venv = warm.artifacts / "worktrees/installs" / ROW["instance_id"] / "venv"
    assert said[:2] == [str(venv), f"{venv}/bin/python"] and any("Successfully installed textkit-99" in line for line in said)
    assert "not the project" in (warm.artifacts / "runs/installs" / ROW["instance_id"] / "attempts/1/stderr.txt").read_text()
    assert json.loads(warm.run("bin/run-tests", input=done.stdout).stdout)["resolved"]
