"""What a task's environment is made of and how its tests are run: from the row itself, the tables in specs/, or packaging files."""

import functools
import hashlib
import os
import re
import tomllib
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from swerun import evalscripts, installconfigs, paths
from swerun.errors import Fatal, Usage
from swerun.state import read_json, write_json

NON_TEST = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")  # swebench.harness.constants.NON_TEST_EXTS

RUN_ONLY = ("test_cmd", "log_parser", "eval_commands", "directives", "reruns", "rerun_if", "services", "system", "internet")
SPECS: ContextVar[str] = ContextVar("SPECS", default="")  # the option, where a run says it and the environment does not
# what decides a spec from packaging files: another rule is another spec
RULES = ("packaging.py", "declared.py", "setuppy.py", "wishes.py", "testtools.py", "trees.py", "evalscripts.py")
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
    directives: str = "files"  # how test files are named to the test command: files, modules (django's runner), or none (it names them itself)
    wishes: list[str] = field(default_factory=list)  # requirements, and the project's extras as `.[test]`: those that can be had together are installed
    downloads: list[dict[str, Any]] = field(default_factory=list)  # what a build would fetch by itself (swerun.downloads)
    services: list[str] = field(default_factory=list)              # what tests talk to (swerun.services)
    system: list[dict[str, Any]] = field(default_factory=list)     # headers and programs of the machine (swerun.system)
    internet: list[dict[str, str]] = field(default_factory=list)   # tests (a pattern) that need it all the same, and why

    def digest(self) -> str:
        """Of all that decides what is resolved and installed, and of nothing that only decides how tests are run.

        A fact that is as it is by default is left out, so that a new kind of fact makes no lock stale.
        """
        facts = {key: value for key, value in asdict(self).items() if key not in RUN_ONLY and value != USUAL[key]}
        return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

    def extras(self) -> list[str]:
        """The extras that the install command asks of the project: `pip install -e .[test]` is ["test"]."""
        found = re.search(r"\.\[([\w,.\s-]+)\]", self.install)
        return [name.strip() for name in found[1].split(",")] if found else []

    def editable(self) -> bool:
        """Whether an edit to a Python file is seen without installing again."""
        return bool(re.search(r"(^|\s)(-e|--editable)\s|setup\.py\s+develop", self.install)) or not self.install


USUAL = asdict(Spec("", "", ""))


def of(row: dict[str, Any]) -> Spec:
    """The spec of a row. Raises NotYet where it is to be read off a repository that is not there yet."""
    match source(row):
        case "row":
            return _made(installconfigs.facts(row))
        case "tables":
            made = from_tables(row["repo"], row["version"])
            usual = " ".join([made.test_cmd, *test_directives(made, row.get("test_patch") or "")])
        case _:
            made, usual = from_packaging(row), ""
    return replace(made, **(evalscripts.test_facts(row, usual) if row.get("eval_script") else {}))


def source(row: dict[str, Any]) -> str:
    """What describes a row's environment: the `row` itself, the `tables` of its repository and version, or its `packaging` files."""
    if row.get("install_config"):
        return "row"
    return "tables" if table_of(row["repo"], row["version"]) else "packaging"


def folders() -> list[Path]:
    """Where tables are looked for, in this order: SPECS, then the toolkit's own; nowhere where SPECS is `none`."""
    own = SPECS.get() or os.environ.get("SPECS", "")
    if own == "none":
        return []
    if own and not os.path.isdir(own):
        raise Usage(f"SPECS is '{own}', which is no folder (name one with files like {paths.SPECS / 'psf__requests.toml'}, or none)")
    return [*([Path(own)] if own else []), paths.SPECS]


def table_of(repo: str, version: str) -> Path | None:
    """The file that has this repository and version."""
    for folder in folders():
        file = folder / f"{paths.slug(repo)}.toml"
        if file.is_file() and any(version in one["versions"] or "*" in one["versions"] for one in _facts(file).get("official", _facts(file).get("ours", ()))):
            return file
    return None


def is_shipped(row: dict[str, Any]) -> bool:
    """Whether the toolkit's own tables describe a row, so that a lock of its own may speak for its repository and version."""
    return source(row) == "tables" and table_of(row["repo"], row["version"]).parent == paths.SPECS


def group(row: dict[str, Any]) -> tuple[str, ...]:
    """What rows of one environment have in common: their description of it, their table's version, or their commit."""
    kind = source(row)
    return row["repo"], kind, {"row": repr(row.get("install_config")), "tables": row["version"], "packaging": row["base_commit"]}[kind]


def from_packaging(row: dict[str, Any]) -> Spec:
    """The spec that packaging files suggest, kept in the cache, so that a warm stage reads one small file."""
    folder, date, script = Path(__file__).parent, str(row.get("created_at") or ""), str(row.get("eval_script") or "")
    rules = hashlib.sha256(b"\0".join([*((folder / name).read_bytes() for name in RULES), date.encode(), script.encode()])).hexdigest()[:12]
    file = paths.cache("specs", f"{paths.slug(row['repo'])}-{row['base_commit'][:12]}-{rules}.json")
    known = read_json(file)
    if known is None:
        from swerun import packaging

        found = evalscripts.read(script)
        known = asdict(packaging.spec_of(row["repo"], row["base_commit"], date, found.install if found else []))
        write_json(file, known)
    return Spec(**known)


@functools.cache
def _facts(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except ValueError as error:
        raise Fatal(f"'{file}' is not a spec: {error}") from None


def from_tables(repo: str, version: str) -> Spec:
    file = table_of(repo, version)
    if file is None:
        raise Fatal(f"no spec for version '{version}' of '{repo}' in {' or '.join(map(str, folders())) or 'SPECS=none'}")
    table = _facts(file)
    facts = next((dict(one) for one in table.get("official", ()) if version in one["versions"]), {})
    ours = [one for one in table.get("ours", ()) if version in one["versions"] or "*" in one["versions"]]
    for one in ours:
        facts |= {key: [*facts.get(key, ()), *value] if key in ADDING else value for key, value in one.items() if key not in ("reason", "drop", "versions")}
    drop = [text for one in ours for text in one.get("drop", ())]
    for key in ("pre_install", "eval_commands"):
        facts[key] = [command for command in facts.get(key, ()) if not any(text in command for text in drop)]
    facts |= {key: table[key] for key in ("log_parser", "requirements_paths", "environment_yml_paths", "exclude_newer") if key in table and key not in facts}
    seeds = _facts(paths.SPECS / "_conda.toml")
    if facts.get("python") in seeds["seeds"] and facts.get("exclude_newer", "") >= seeds["since"]:
        facts = {"seed": seeds["seeds"][facts["python"]]} | facts
    absent = [key for key in ("python", "test_cmd", "log_parser") if key not in facts]
    if absent:
        raise Fatal(f"'{file}' has no {', '.join(absent)} for version '{version}' of '{repo}'")
    return _made(facts)


def _made(facts: dict[str, Any]) -> Spec:
    return Spec(**{key: value for key, value in facts.items() if key in Spec.__dataclass_fields__})


def changed_files(patch: str) -> list[str]:
    """The paths that a patch leaves behind or removes, as its `diff --git` lines name them, else its `+++` lines."""
    found = re.findall(r'^diff --git "?a/.* "?b/(.*?)"?$', patch, re.M)
    return found or re.findall(r"^\+\+\+ b/(.*?)(?:\t.*)?$", patch, re.M)


def test_directives(spec: Spec, test_patch: str) -> list[str]:
    """What the test command is given: the official harness's get_test_directives (4.1.0)."""
    if spec.directives == "none":
        return []
    files = [name for name in changed_files(test_patch) if not name.endswith(NON_TEST)]
    if spec.directives == "modules":
        return [name.removesuffix(".py").removeprefix("tests/").replace("/", ".") for name in files]
    return files
