"""What is compiled anew for a patch: all that it concerns, and nothing else. Compiler calls are counted."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROWS, Place

CONFIG = ROWS["swerun-sample__gridlab-11"]["install_config"]
MODULE = '#include <Python.h>\n#include "{header}"\nstatic struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "{name}", "", -1, NULL}};\n' \
         "PyMODINIT_FUNC PyInit_{name}(void) {{ PyObject *made = PyModule_Create(&module); PyModule_AddIntConstant(made, \"value\", VALUE); return made; }}\n"
SETUP = """
from setuptools import Extension, setup
setup(name="pair", version="1", packages=["pair"], ext_modules=[Extension(f"pair.{name}", [f"pair/{name}.c"], define_macros=[("EXTRA", "0")]) for name in ("one", "two")])
"""
FILES = {
    "setup.py": SETUP, "pair/__init__.py": "", "pair/plain.py": "x = 1\n", ".gitignore": "build/\n*.so\n*.egg-info/\n", "pair/deep.h": "#define DEEP 1\n",
    "pair/one.h": '#include "deep.h"\n#define VALUE (DEEP + EXTRA)\n', "pair/two.h": "#define VALUE (10 + EXTRA)\n",
    "pair/one.c": MODULE.format(name="one", header="one.h"), "pair/two.c": MODULE.format(name="two", header="two.h"),
    "tests/test_pair.py": "from pair import one, two\ndef test_values():\n    print('values', one.value, two.value)\n",
}
CHANGES = {  # what a patch changes: the modules compiled for it, the values that they then have
    "a Python file": ({"pair/plain.py": "x = 2\n"}, [], "1 10"),
    "a C file": ({"pair/two.c": FILES["pair/two.c"].replace("VALUE)", "VALUE + 5)")}, ["two"], "1 15"),
    "a header that a header includes": ({"pair/deep.h": "#define DEEP 7\n"}, ["one"], "7 10"),
    "the recipe": ({"setup.py": SETUP.replace('"0"', '"3"')}, ["one", "two"], "4 13"),
}
WAYS = {"legacy": "python -m pip install --no-use-pep517 --no-build-isolation -e .", "newer": "python -m pip install -e ."}


@pytest.mark.parametrize("way", [pytest.param("legacy", marks=pytest.mark.slow), "newer"])
def test_a_patch_compiles_what_it_concerns_and_nothing_else(place: Place, git_repository, tmp_path: Path, way: str):
    files = FILES | ({"pyproject.toml": '[build-system]\nrequires = ["setuptools==75.8.0"]\nbuild-backend = "setuptools.build_meta"\n'} if way == "newer" else {})
    folder, commits = git_repository("pair", [files])
    log = tmp_path / "compiled"
    for name in ("cc", "gcc", "c++", "g++", "clang"):
        if real := shutil.which(name):
            compiler = tmp_path / "compilers" / name
            compiler.parent.mkdir(exist_ok=True)
            compiler.write_text(f'#!/bin/sh\ncase " $* " in *" -c "*) echo "$*" >> {log};; esac\nexec {real} "$@"\n')
            compiler.chmod(0o755)
    config = CONFIG | {"install": WAYS[way], "pre_install": [], "test_cmd": "pytest -rA -s", "pip_packages": ["pytest==8.3.4", "setuptools==75.8.0", "pip==24.3.1", "wheel==0.45.1"]}
    row = ROWS["swerun-sample__gridlab-11"] | {
        "instance_id": "pair-1", "repo": "a/pair", "base_commit": commits[0], "install_config": config, "FAIL_TO_PASS": json.dumps(["tests/test_pair.py::test_values"]), "PASS_TO_PASS": "[]",
        "test_patch": "diff --git a/tests/test_pair.py b/tests/test_pair.py\n--- a/tests/test_pair.py\n+++ b/tests/test_pair.py\n@@ -1 +1,2 @@\n+# tests\n from pair import one, two\n"}
    (tmp_path / "pair.jsonl").write_text(json.dumps(row) + "\n")
    env = {"PATH": f"{tmp_path / 'compilers'}:{place.env['PATH']}", "REMOTE": str(folder), "DATASET": str(tmp_path / "pair.jsonl")}

    def compiled() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return sorted(name for name in ("one", "two") for line in lines if f"pair/{name}.c" in line)

    place.run("bin/setup-venv", "--run", "first", "pair-1", **env)
    assert compiled() == ["one", "two"]
    place.run("bin/setup-venv", "--run", "second", "pair-1", **env)
    assert compiled() == []
    for number, (what, (change, modules, values)) in enumerate(CHANGES.items()):
        for name, text in change.items():
            (folder / name).write_text(text)
        patch = subprocess.run(["git", "-C", folder, "diff"], capture_output=True, text=True, check=True).stdout
        subprocess.run(["git", "-C", folder, "checkout", "-q", "."], check=True)
        record = {"instance_id": "pair-1", "dataset": env["DATASET"], "run": f"patch-{number}", "model_patch": patch, "model_name_or_path": "a-test"}
        made = place.records("bin/run-tests", input=json.dumps(record) + "\n", **env)[0]
        output = (place.artifacts / "runs" / f"patch-{number}" / "pair-1" / "test_output.txt").read_text()
        assert made["resolved"] and f"values {values}\n" in output, (what, output)
        assert compiled() == modules, what


@pytest.mark.slow
def test_a_build_may_need_another_version_of_what_is_installed(place: Place, git_repository, tmp_path: Path):
    files = {"pyproject.toml": '[build-system]\nrequires = ["setuptools==75.8.0", "iniconfig==1.1.1"]\nbuild-backend = "setuptools.build_meta"\n', "apart/__init__.py": "",
             "setup.py": "from importlib.metadata import version\nfrom setuptools import setup\nopen('built-with.txt', 'w').write(version('iniconfig'))\n"
                         "setup(name='apart', version='1', packages=['apart'], install_requires=['iniconfig>=2'])\n"}
    folder, commits = git_repository("apart", [files])
    config = CONFIG | {"install": WAYS["newer"], "pre_install": [], "pip_packages": ["pytest==8.3.4", "iniconfig==2.0.0", "pip==24.3.1"]}
    row = ROWS["swerun-sample__gridlab-11"] | {"instance_id": "apart-1", "repo": "an/apart", "base_commit": commits[0], "install_config": config}
    (tmp_path / "apart.jsonl").write_text(json.dumps(row) + "\n")
    made = place.records("bin/setup-venv", "--run", "apart", "apart-1", DATASET=str(tmp_path / "apart.jsonl"), REMOTE=str(folder))[0]
    assert (Path(made["worktree"]) / "built-with.txt").read_text() == "1.1.1"
    shown = subprocess.run([made["venv"] + "/bin/python", "-c", "import iniconfig, importlib.metadata as m; print(m.version('iniconfig'))"], capture_output=True, text=True, check=True)
    assert shown.stdout == "2.0.0\n"
