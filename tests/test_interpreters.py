"""Interpreters are found where people have them, the newest that works; what is missing is said in one line; a changed one is noticed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place
from test_commands import tools

MINOR = "3.77"  # which no machine has
REAL = os.path.realpath(sys._base_executable)

# a real interpreter that claims to be another: $0 is where it is, the last argument what it is asked
CLAIM = """#!/bin/sh
echo "$0" >> {log}
for asked; do :; done
exec {real} -I -S -c '
import sys, sysconfig
sysconfig.get_paths = lambda *asked, get=sysconfig.get_paths: get(*asked) if {headers} else dict(get(*asked), include="/nonexistent")
sys.version_info = {version}
sys.implementation.name = "{name}"
sys._base_executable = sys.argv[1]
exec(sys.argv[2])' "$0" "$asked"
"""


class Machine:
    """A place with no interpreter but those that a test puts there."""

    def __init__(self, place: Place, root: Path):
        self.place, self.root, self.log = place, root, root / "asked"
        self.env = {"PATH": f"{root}/on-path", "PYENV_ROOT": f"{root}/pyenv"}

    def put(self, where: str, patch: int, *, name: str = "cpython", level: str = "final", headers: bool = True) -> str:
        version = f'({", ".join(MINOR.split("."))}, {patch}, "{level}", 0)'
        return self.script(where, CLAIM.format(log=self.log, real=REAL, version=version, name=name, headers=headers))

    def script(self, where: str, text: str) -> str:
        file = self.root / where
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return str(file)

    def find(self, version: str | float = MINOR, code: int = 0, **env: str) -> str:
        """What is found, or the error."""
        program = f"from swerun import cli, interpreters; raise SystemExit(cli.door(lambda: print(interpreters.find({version!r})) or 0))"
        done = self.place.run(TOOLKIT / ".venv/bin/python", "-I", "-c", program, code=code, **self.env | env)
        return (done.stderr if code else done.stdout).removesuffix("\n")


@pytest.fixture
def machine(place: Place, tmp_path: Path) -> Machine:
    return Machine(place, tmp_path)


PYENV, BIN = "pyenv/versions/{}/bin/python" + MINOR, "bin/python" + MINOR


def test_the_newest_patch_release_is_found_and_the_older_ones_are_not_even_asked(machine: Machine):
    for patch in (2, 9, 10):
        machine.put(PYENV.format(f"{MINOR}.{patch}"), patch)
    assert machine.find() == f"{machine.root}/{PYENV.format(f'{MINOR}.10')}"
    assert machine.log.read_text().splitlines() == [machine.find()]


PLACES = {
    "PATH": ("on-path/python" + MINOR, {}),
    "PATH, as python3": ("on-path/python3", {}),
    "pyenv in HOME": ("home/.pyenv/versions/3.77.8/" + BIN, {"PYENV_ROOT": ""}),
    "a conda that pyenv installed": ("pyenv/versions/miniforge3-latest/" + BIN, {}),
    "uv": ("home/.local/share/uv/python/cpython-3.77.8-linux-x86_64-gnu/" + BIN, {}),
    "uv elsewhere": ("uv/cpython-3.77.8-linux-x86_64-gnu/" + BIN, {"UV_PYTHON_INSTALL_DIR": "{root}/uv"}),
    "uv by XDG": ("data/uv/python/cpython-3.77.8-linux-x86_64-gnu/" + BIN, {"XDG_DATA_HOME": "{root}/data"}),
    "the active conda environment": ("anywhere/" + BIN, {"CONDA_PREFIX": "{root}/anywhere"}),
    "conda's base": ("conda/" + BIN, {"CONDA_EXE": "{root}/conda/bin/conda"}),
    "a conda environment": ("conda/envs/mine/" + BIN, {"CONDA_EXE": "{root}/conda/bin/conda"}),
    "a conda environment in HOME": ("home/miniforge3/envs/mine/" + BIN, {}),
    "a micromamba environment": ("mamba/envs/mine/" + BIN, {"MAMBA_ROOT_PREFIX": "{root}/mamba"}),
    "conda's other environments": ("envs/mine/" + BIN, {"CONDA_ENVS_PATH": "/nonexistent:{root}/envs"}),
}


@pytest.mark.parametrize("where", PLACES)
def test_an_interpreter_is_found_wherever_it_was_installed(machine: Machine, where: str):
    file, env = PLACES[where]
    wanted = machine.put(file, 8)
    machine.put(PYENV.format(f"{MINOR}.7"), 7)
    assert machine.find(**{"PYENV_ROOT": machine.env["PYENV_ROOT"]} | {name: value.format(root=machine.root) for name, value in env.items()}) == wanted


def test_a_conda_environment_says_its_version_without_being_asked_and_is_found_through_condas_list(machine: Machine):
    old = Path(machine.put("somewhere/" + BIN, 6)).parents[1]
    (old / "conda-meta").mkdir()
    (old / "conda-meta" / f"python-{MINOR}.6-h955ad1f_0_cpython.json").write_text("{}")
    (machine.place.home / ".conda").mkdir()
    (machine.place.home / ".conda/environments.txt").write_text(f"/gone\n{old}\n")
    assert machine.find() == str(old / BIN)
    new = machine.put(PYENV.format(f"{MINOR}.7"), 7)
    machine.log.unlink()
    assert machine.find() == new and machine.log.read_text().splitlines() == [new]


def test_what_does_not_run_is_passed_over(machine: Machine):
    wanted = machine.put(PYENV.format(f"{MINOR}.1"), 1)
    machine.put(PYENV.format("pypy3.77-7.3.99"), 90, name="pypy")
    machine.put(PYENV.format(f"{MINOR}.0rc1"), 91, level="candidate")
    machine.script(PYENV.format(f"{MINOR}.92"), "#!/bin/sh\nkill -SEGV $$\n")
    machine.script(PYENV.format(f"{MINOR}.93"), "#!/nonexistent/sh\n")
    machine.script(PYENV.format(f"{MINOR}.94"), "#!/bin/sh\necho 1\n")
    Path(machine.script(PYENV.format(f"{MINOR}.95"), "#!/bin/sh\n")).chmod(0o644)
    dangling = machine.root / PYENV.format(f"{MINOR}.96")
    dangling.parent.mkdir(parents=True)
    dangling.symlink_to("/nonexistent/python")
    machine.put("on-path/shims/python" + MINOR, 97)  # pyenv's own, which choose by folder
    assert machine.find(PATH=f"{machine.root}/on-path/shims:{machine.root}/on-path") == wanted


def test_one_that_builds_extensions_is_better_than_a_newer_one_that_cannot_and_that_better_than_none(machine: Machine):
    bare = machine.put("on-path/python" + MINOR, 9, headers=False)
    assert machine.find() == bare
    wanted = machine.put(PYENV.format(f"{MINOR}.8"), 8)
    assert machine.find() == wanted


def test_a_wrapper_and_a_venv_stand_for_the_interpreter_behind_them(machine: Machine):
    minor = "{}.{}".format(*sys.version_info)
    machine.script(f"on-path/python{minor}", f'#!/bin/sh\nexec {REAL} "$@"\n')
    assert machine.find(minor) == REAL
    (machine.root / f"on-path/python{minor}").unlink()
    subprocess.run([REAL, "-m", "venv", "--without-pip", machine.root / "venv"], check=True)
    assert machine.find(minor, PATH=f"{machine.root}/venv/bin") == REAL


@pytest.mark.parametrize("version", ["2.7", "3.5", "3.6", "3.7"])
def test_a_missing_interpreter_that_uv_has_not_got_is_one_line_with_what_gets_it(machine: Machine, version: str):
    said = machine.find(version, code=1)
    assert said == f"-c: no Python {version} (get it with 'pyenv install {version}' or 'micromamba create -y -n py{version} -c conda-forge python={version}')"
    machine.script("pyenv/bin/pyenv", "#!/bin/sh\n")
    assert machine.find(version, code=1) == f"-c: no Python {version} (get it with 'pyenv install {version}')"
    assert not (machine.place.home / ".local").exists()


def test_why_an_interpreter_that_is_there_will_not_do_is_in_the_line(machine: Machine):
    broken = machine.script(PYENV.format(f"{MINOR}.3"), "#!/bin/sh\necho 'libssl.so.1.1: cannot open shared object file' >&2; exit 127\n")
    said = machine.find(code=1)
    assert said.endswith(f": '{broken}' does not run: libssl.so.1.1: cannot open shared object file") and "\n" not in said


@pytest.mark.parametrize("env, reason", [({"UV_OFFLINE": "1"}, "Network connectivity is disabled"), ({"UV_PYTHON_DOWNLOADS": "never"}, "downloads are not allowed")])
def test_an_interpreter_that_uv_cannot_install_is_one_short_line_with_the_reason(machine: Machine, env: dict, reason: str):
    said = machine.find("3.8", code=1, **env)
    assert "no Python 3.8 (get it with '" in said and "uv python install 3.8'" in said
    assert reason in said and "\n" not in said and len(said) < 400 and "http" not in said


@pytest.mark.parametrize("version", [">=3.9", "", 3.1])
def test_a_version_that_is_none_is_said(machine: Machine, version):
    assert f"{version!r} is not a version of Python" in machine.find(version, code=1)


def real_copy(prefix: Path) -> Path:
    """An installation of its own, as far as a copy of a real interpreter can be one."""
    name = "python{}.{}".format(*sys.version_info)
    (prefix / "bin").mkdir(parents=True)
    for folder in ("lib", "include"):
        (prefix / folder).symlink_to(Path(sys.base_prefix) / folder)
    shutil.copy(REAL, prefix / "bin" / name)
    return prefix / "bin" / name


@pytest.mark.slow
def test_an_interpreter_that_is_removed_or_upgraded_makes_its_environment_be_built_again(machine: Machine, tmp_path: Path):
    row = ROWS["swerun-sample__textkit-14"]
    minor = "{}.{}".format(*sys.version_info)
    config = row["install_config"] | {"python": minor, "pip_packages": [], "install": "", "pip": "masked"}  # little to build
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text(json.dumps(row | {"install_config": config}) + "\n")
    path = tools(tmp_path / "tools", f"python{minor}", "python3", "python")
    first, second = (real_copy(tmp_path / "pyenv/versions" / f"{minor}.{patch}") for patch in (99, 98))

    def set_up() -> tuple[str, str]:
        done = machine.place.run("bin/setup-venv", "--dataset", dataset, row["instance_id"], **machine.env | {"PATH": path})
        python = Path(json.loads(done.stdout)["venv"]) / "bin/python"
        return os.path.realpath(python), done.stderr

    assert set_up()[0] == str(first)
    python, said = set_up()
    assert python == str(first) and "building environment" not in said
    first.unlink()
    python, said = set_up()
    assert python == str(second) and f"for its interpreter '{first}' was removed or changed" in said
    shutil.copy(REAL, second)
    os.utime(second, (0, 0))
    python, said = set_up()
    assert python == str(second) and f"for its interpreter '{second}' was removed or changed" in said
