"""What a task's environment is made of and how its tests are run: from the row itself, else from the tables in specs/."""

import functools
import hashlib
import re
import tomllib
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from swerun import paths
from swerun.errors import Fatal

NON_TEST = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")  # swebench.harness.constants.NON_TEST_EXTS

RUN_ONLY = ("test_cmd", "log_parser", "eval_commands", "directives", "reruns", "rerun_if", "services", "system", "internet")
ADDING = ("downloads", "system", "internet")  # each [[ours]] adds to these, where it replaces what others say of anything else


@dataclass(frozen=True)
class Spec:
    """Facts of the official harness under its own names, and those we add (see specs/*.toml for each one's reason)."""

    python: str
    test_cmd: str
    log_parser: str
    install: str = ""
    packages: str = ""
    pip_packages: list[str] = field(default_factory=list)
    pre_install: list[str] = field(default_factory=list)
    eval_commands: list[str] = field(default_factory=list)
    requirements_paths: list[str] = field(default_factory=list)
    environment_yml_paths: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    seed: list[str] = field(default_factory=lambda: ["pip", "setuptools", "wheel"])  # what an environment begins with
    pins: list[str] = field(default_factory=list)
    conda_to_pip: dict[str, str] = field(default_factory=dict)
    conda_absent: list[str] = field(default_factory=list)
    exclude_newer: str = ""
    pip: str = ""  # masked: tasks have no pip, for pip carries a copy of what the repository is about
    reruns: int = 0     # how often an unresolved run is repeated, where tests of this version are decided by dice
    rerun_if: str = ""  # and only if the log of the run matches this
    directives: str = "files"  # how test files are named to the test command: files, or modules (django's runner)
    downloads: list[dict[str, Any]] = field(default_factory=list)  # what a build would fetch by itself (swerun.downloads)
    services: list[str] = field(default_factory=list)              # what tests talk to (swerun.services)
    system: list[dict[str, Any]] = field(default_factory=list)     # headers and programs of the machine (swerun.system)
    internet: list[dict[str, str]] = field(default_factory=list)   # tests (a pattern) that need it all the same, and why

    def digest(self) -> str:
        """Of all that decides what is resolved and installed, and of nothing that only decides how tests are run.

        A fact that is as it is by default is left out, so that a new kind of fact makes no lock stale.
        """
        usual = asdict(Spec("", "", ""))
        facts = {key: value for key, value in asdict(self).items() if key not in RUN_ONLY and value != usual[key]}
        return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

    def extras(self) -> list[str]:
        """The extras that the install command asks of the project: `pip install -e .[test]` is ["test"]."""
        found = re.search(r"\.\[([\w,.\s-]+)\]", self.install)
        return [name.strip() for name in found[1].split(",")] if found else []

    def editable(self) -> bool:
        """Whether an edit to a Python file is seen without installing again."""
        return bool(re.search(r"(^|\s)(-e|--editable)\s|setup\.py\s+develop", self.install)) or not self.install


def of(row: dict[str, Any]) -> Spec:
    """The spec of a row. Raises Fatal where nobody has described its repository or version."""
    if row.get("install_config"):
        return from_install_config(row["install_config"], row["instance_id"])
    return from_tables(row["repo"], row["version"])


def from_install_config(config: dict[str, Any], instance_id: str) -> Spec:
    """A spec from a row's own `install_config`, as SWE-rebench rows carry it."""
    names = {"reqs_path": "requirements_paths", "env_yml_path": "environment_yml_paths", "env_vars": "environment"}
    values = {names.get(key, key): value for key, value in config.items() if value not in (None, "")}
    values = {key: value for key, value in values.items() if key in Spec.__dataclass_fields__}
    for key in ("install", "test_cmd"):
        if isinstance(values.get(key), list):
            values[key] = " && ".join(values[key])
    if isinstance(values.get("python"), float | int):
        values["python"] = str(values["python"])
    absent = [key for key in ("python", "test_cmd", "log_parser") if key not in values]
    if absent:
        raise Fatal(f"install_config of '{instance_id}' has no {', '.join(absent)}")
    return Spec(**values)


@functools.cache
def _facts(name: str) -> dict[str, Any]:
    return tomllib.loads((paths.SPECS / name).read_text())


def from_tables(repo: str, version: str) -> Spec:
    file = paths.SPECS / f"{paths.slug(repo)}.toml"
    if not file.is_file():
        raise Fatal(f"no spec for repository '{repo}' (a row may carry its own as 'install_config'; {paths.SPECS} has the others)")
    table = _facts(file.name)
    facts = next((dict(one) for one in table.get("official", ()) if version in one["versions"]), {})
    ours = [one for one in table.get("ours", ()) if version in one["versions"] or "*" in one["versions"]]
    for one in ours:
        facts |= {key: [*facts.get(key, ()), *value] if key in ADDING else value for key, value in one.items() if key not in ("reason", "drop", "versions")}
    if "test_cmd" not in facts:
        known = ", ".join(v for one in table.get("official", ()) for v in one["versions"])
        raise Fatal(f"no spec for version '{version}' of '{repo}' ('{file.name}' has {known})")
    seeds = _facts("_conda.toml")["seeds"]
    if facts.get("python") in seeds:
        facts = {"seed": seeds[facts["python"]]} | facts
    drop = [text for one in ours for text in one.get("drop", ())]
    for key in ("pre_install", "eval_commands"):
        facts[key] = [command for command in facts.get(key, ()) if not any(text in command for text in drop)]
    facts |= {key: table[key] for key in ("log_parser", "requirements_paths", "environment_yml_paths", "exclude_newer") if key in table and key not in facts}
    return Spec(**{key: value for key, value in facts.items() if key in Spec.__dataclass_fields__})


def changed_files(patch: str) -> list[str]:
    """The paths that a patch leaves behind or removes, as its `diff --git` lines name them, else its `+++` lines."""
    found = re.findall(r'^diff --git "?a/.* "?b/(.*?)"?$', patch, re.M)
    return found or re.findall(r"^\+\+\+ b/(.*?)(?:\t.*)?$", patch, re.M)


def test_directives(spec: Spec, test_patch: str) -> list[str]:
    """What the test command is given: the official harness's get_test_directives (4.1.0)."""
    files = [name for name in changed_files(test_patch) if not name.endswith(NON_TEST)]
    if spec.directives == "modules":
        return [name.removesuffix(".py").removeprefix("tests/").replace("/", ".") for name in files]
    return files
