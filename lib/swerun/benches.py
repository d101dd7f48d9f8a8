"""A bench: the real commands, run in the caller's own ARTIFACTS under run names of its own, and what they cost."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Callable, NamedTuple

import orjson

from swerun import datasets, options, paths, process, runs, spec as specs, venvs
from swerun.errors import CommandFailed, Fatal
from swerun.measures import Spent, spent
from swerun.spec import Spec
from swerun.state import remove_tree, write_file

PREFIX = "make-bench."
TESTS_LIMIT = 3600.0  # seconds


class SetUp(NamedTuple):
    checkout: float
    environment: float
    copy_checkout: float     # the same files by `cp -a`
    copy_environment: float
    copy_cpu: float


class Graded(NamedTuple):
    overhead: float
    tests: float
    bare: float


class Bench:
    def __init__(self, root: Path, chosen: dict[str, str]):
        self.root, self.chosen = root, chosen
        self.files: dict[str, int] = {}  # of each task's checkout
        self.failed: dict[str, str] = {}  # tasks that a stage fails on, and why
        self.fixed: dict[str, bytes] = {}  # records with the reference fix in them
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS")) and k not in options.NAMES}
        self.env = clean | {"ARTIFACTS": str(paths.artifacts())} | {name: chosen[name] for name in ("DATASET", "SPLIT", "REMOTE", "TEST_JOBS")}

    def clear(self) -> None:
        for name in ("runs", "worktrees", "results"):
            for path in (paths.artifacts() / name).glob(f"{PREFIX}*"):
                remove_tree(path)
        for name in ("naive", "at-once", "reference"):
            remove_tree(self.root / name)

    def run(self, *words: str | Path, input: bytes | None = None, **env: str) -> Spent:
        if "RUN" in env:
            env["RUN"] = PREFIX + env["RUN"]
        try:
            return spent(*words, env=self.env | env, cwd=paths.TOOLKIT, input=input)
        except CommandFailed as error:
            log = self.root / "failed.log"
            write_file(log, (error.stdout + error.stderr).encode("utf-8", "surrogateescape"))
            raise Fatal(f"{error} (the log is {log})") from None

    def fail(self, task: str, error: Fatal, say: Callable[..., None]) -> None:
        """One bad task does not stop the others."""
        self.failed[task] = str(error)
        say(task, f"failed, and is left out: {error}")

    def stage(self, name: str, *words: str, input: bytes | None = None, **env: str) -> dict[str, Any]:
        """What a stage makes of one record."""
        return orjson.loads(self.run(paths.BIN / name, *words, input=input, **env).stdout)

    def precache(self, ids: list[str]) -> set[str]:
        """The sample, then the chosen tasks; returns the ids of those that have all they need."""
        ready: set[str] = set()
        for dataset, wanted in (("sample", list(datasets.load("sample").rows)), (self.chosen["DATASET"], ids)):
            words = (str(paths.BIN / "precache"), "--jobs", str(min(4, os.cpu_count() or 1)))
            env = self.env | {"DATASET": dataset, "RUN": f"{PREFIX}precache"}
            done = subprocess.run(words, input="\n".join(wanted).encode(), stdout=subprocess.PIPE, env=env)  # it tells people how far it is
            ready |= {orjson.loads(line)["instance_id"] for line in done.stdout.splitlines()}
        return ready & set(ids)

    def set_up(self, task: str, *, copy_first: bool, **env: str) -> SetUp:
        """A task's place through the two stages, and copies of what they made; nothing of it stays but the files to copy.

        Which comes first matters, for the disk is still busy with that when the other begins: callers alternate.
        """
        reference = self.root / "reference" / task
        copy_first = copy_first and reference.exists()
        tree = self._copy(reference) if copy_first else None
        record = self.stage("make-worktree", task, RUN="setup", **env)
        checkout = Path(record["worktree"])
        if not reference.exists():
            away = (checkout / ".git").rename(checkout.with_name("git.away"))
            paths.make_dir(reference.parent)
            self.run("cp", "-a", checkout, reference)
            away.rename(checkout / ".git")
            self.files[task] = sum(len(names) for _, _, names in os.walk(reference))
        tree = tree or self._copy(reference)
        record = self.stage("setup-venv", input=orjson.dumps(record), **env)
        venv = self._copy(Path(record["venv"]))
        remove_tree(checkout.parent)
        return SetUp(record["worktree_seconds"], record["venv_seconds"], tree.seconds, venv.seconds, tree.cpu + venv.cpu)

    def _copy(self, folder: Path) -> Spent:
        copy = folder.with_name(f"{folder.name}.copy")
        used = self.run("cp", "-a", folder, copy)
        remove_tree(copy)
        return used

    def grade(self, row: dict[str, Any]) -> Graded | None:
        """The reference fix through run-tests, and the tests alone once more in that place; None where they do not run."""
        task = row["instance_id"]
        if task not in self.fixed:
            self.fixed[task] = orjson.dumps(self.stage("run-agent", "--agent", "gold", task, RUN="grading"))
        tests = self.stage("run-tests", input=self.fixed[task], KEEP="1")["tests"]
        place = paths.worktrees(f"{PREFIX}grading", task)
        spec = specs.of(row)
        bare = self._bare(spec, row, place / "grading") if tests["status"] == "ran" else None
        remove_tree(place)
        return bare and Graded(tests["overhead_seconds"], tests["seconds"], bare.seconds)

    def _bare(self, spec: Spec, row: dict[str, Any], place: Path) -> Spent:
        tests = " ".join([spec.test_cmd, *specs.test_directives(spec, row["test_patch"])])
        env = venvs.activated(place / "venv", process.task_env(place / "home", spec.environment))
        # that tests fail is no matter here
        return spent("bash", "-c", "\n".join([*spec.eval_commands, tests, "exit 0"]), env=env, cwd=place / "testbed", timeout=TESTS_LIMIT)


def machine() -> dict[str, Any]:
    return runs.host() | {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "machine": platform.machine()}
