"""Grading one prediction: a place that no agent touched, the patch, the test files, the official command, the official verdict."""

import hashlib
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

from swerun import downloads, freshness, histories, installs, patches, paths, services, slots, spec as specs, venvs, verdicts, workspace
from swerun.errors import Fatal
from swerun.git import git
from swerun.process import MARK, Ended, run_limited, task_env, telling
from swerun.spec import Spec
from swerun.state import write_file
from swerun.workspace import Workspace

# swebench 5.0.2, harness/constants
START, END, EXIT_CODE = ">>>>> Start Test Output", ">>>>> End Test Output", ">>>>> Test Exit Code"
SCRIPT = """set -uxo pipefail
{eval_commands}
: '{start}'
{test_cmd}
SWEBENCH_TEST_EXIT_CODE=$?
: '{end}'
echo "{exit_code}: $SWEBENCH_TEST_EXIT_CODE"
exit $SWEBENCH_TEST_EXIT_CODE
"""
Record = dict[str, Any]


def grade(row: dict[str, Any], record: Record, remote: str, timeout: float, say: Callable[[str], None], *, run_empty: bool = False) -> Record:
    """The keys that run-tests adds to a record. Raises Fatal where the machine, not the patch, is at fault.

    Officially an empty patch is not run; `run_empty` runs the tests of the unpatched tree. Where the spec says that tests
    are decided by dice, an unresolved run is repeated; `tests.runs` and `tests.flaky` (the tests that differed) say so.
    """
    patch = record["model_patch"] or ""
    folder = paths.task_dir(record["run"], record["instance_id"])
    if not patch.strip() and not run_empty:
        return verdict("empty_patch", patch, None, 0.0, None)
    histories.require(row["repo"], row["base_commit"], remote, say)  # a spec may be read off the repository
    spec, failing = specs.of(row), []
    for number in range(1 + spec.reruns):
        made, report = grade_once(row, spec, patch, workspace.grading_place(record), folder, remote, timeout, say)
        failing.append({name for kind in (report or {}).get("tests_status", {}).values() for name in kind["failure"]})
        if made["resolved"] or made["tests"]["status"] != "ran" or not re.search(spec.rerun_if, (folder / "test_output.txt").read_text(errors="replace")):
            break
        if number < spec.reruns:
            say("not resolved, and its tests are known to be decided by dice: once more")
    if spec.reruns:
        made["tests"] |= {"runs": len(failing), "flaky": sorted(set.union(*failing) - set.intersection(*failing))}
    return made


def grade_once(row: dict[str, Any], spec: Spec, patch: str, place: Path, folder: Path, remote: str, timeout: float, say: Callable[[str], None]) -> tuple[Record, Record | None]:
    """(what one run gave, the official report of it)."""
    start = time.monotonic()
    again = lambda: workspace.make(row, place, folder, remote, None, say)
    space = again()
    file = place / "patch.diff"
    file.write_text(patch if patch.endswith("\n") else patch + "\n")
    applied, log = patches.apply_as_official(space.checkout, file, again) if patch.strip() else (True, "")
    if not applied:
        write_file(folder / "setup.log", log.encode())
        return verdict("patch_failed", patch, None, time.monotonic() - start, None), None
    log += rebuild(spec, space, specs.changed_files(patch), say) if patch.strip() else ""
    log += restore_tests(row, space)
    write_file(folder / "setup.log", log.encode("utf-8", "surrogateescape"))
    output = folder / "test_output.txt"
    with slots.slot(say) as waited:  # the limit starts here
        say("running its tests")
        ended = run_tests(row, spec, space, place, output, timeout, say)
    seconds = time.monotonic() - start - waited
    report = None if ended.timed_out else verdicts.report(row, spec, patch, output)
    status = "timeout" if ended.timed_out else "ran" if "tests_status" in report else "no_tests_ran"
    made = verdict(status, patch, report, seconds, ended) | {"env_key": space.manifest["env_key"]}
    if space.manifest.get("substitutes"):  # its build lacked something that the official one has
        made["tests"]["substitutes"] = space.manifest["substitutes"]
    return made, report


def rebuild(spec: Spec, space: Workspace, changed: list[str], say: Callable[[str], None]) -> str:
    """Install again where the patch touched what a build reads. That it fails is the patch's doing, as in the official script."""
    if not installs.needs_install(spec, changed):
        return ""
    freshness.tell(space.checkout, changed, space.manifest["outputs"])
    log = space.venv.with_name("install.log")
    log.write_bytes(b"")
    parts = downloads.kept_parts(space.manifest, space.checkout, changed)
    try:
        installs.install(spec, space.checkout, space.venv, space.manifest["env_key"], log, say)
    except Fatal as error:
        return log.read_text(errors="replace") + f"{error}\n"
    for name, data in parts.items():
        (space.checkout / name).write_bytes(data)
    return log.read_text(errors="replace")


def restore_tests(row: dict[str, Any], space: Workspace) -> str:
    """Put the files of the test patch back to the base commit, whatever the model patch did to them, and apply it."""
    names = specs.changed_files(row["test_patch"])
    known = set(git(space.checkout, "ls-tree", "-r", "-z", "--name-only", row["base_commit"], "--", *names).stdout.split("\0"))
    for name in names:
        if name not in known and (space.checkout / name).is_file():
            (space.checkout / name).unlink()
    log = ""
    if known - {""}:
        done = git(space.checkout, "checkout", row["base_commit"], "--", *sorted(known - {""}), check=False)
        log += done.stdout + done.stderr
    if not row["test_patch"].strip():
        return log
    text = row["test_patch"] if row["test_patch"].endswith("\n") else row["test_patch"] + "\n"
    done = git(space.checkout, "apply", "--verbose", "-", input=text.encode(), check=False)
    return log + f"+ git apply (test patch)\n{done.stdout}{done.stderr}"


def run_tests(row: dict[str, Any], spec: Spec, space: Workspace, place: Path, output: Path, timeout: float, say: Callable[[str], None]) -> Ended:
    """Run the official test command; the log is one that the official tools can grade again."""
    command = " ".join([spec.test_cmd, *map(shlex.quote, specs.test_directives(spec, row["test_patch"]))])
    script = SCRIPT.format(eval_commands="\n".join(spec.eval_commands), start=START, test_cmd=command, end=END, exit_code=EXIT_CODE)
    env = venvs.activated(space.venv, task_env(place / "home", spec.environment)) | {MARK: str(place)}
    with services.running(spec, space.venv, place, env) as env, open(output, "wb") as file:
        ended = run_limited(["bash", "-c", script], cwd=space.checkout, env=env, timeout=timeout, stdin=subprocess.DEVNULL,
                            stdout=file, stderr=subprocess.STDOUT, tick=telling(say, "running its tests"))
        if ended.timed_out:
            file.write(f"\n\nTimeout error: {timeout:.0f} seconds exceeded.\n".encode())
    data = output.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError:  # a test printed bytes: the official parsers take text alone
        output.write_text(data.decode("utf-8", "replace"), "utf-8", newline="")
    return ended


def verdict(status: str, patch: str, report: dict[str, Any] | None, seconds: float, ended: Ended | None) -> Record:
    tests: Record = {"status": status}
    for name in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        found = (report or {}).get("tests_status", {}).get(name, {})
        tests[name] = {kind: len(found.get(kind, ())) for kind in ("success", "failure")}
    tests |= {
        "seconds": round(ended.seconds if ended else 0.0, 3),
        "overhead_seconds": round(seconds - (ended.seconds if ended else 0.0), 3),
        "exit_code": ended.returncode if ended else None,
        "isolation": "none",
        "flaky": None,
        "patch_sha256": hashlib.sha256(patch.encode("utf-8", "surrogateescape")).hexdigest(),
    }
    # null: nobody has judged it strictly yet, or looked for flakiness
    return {"resolved": bool(report and report["resolved"]), "strict_resolved": None, "flags": [], "tests": tests}
