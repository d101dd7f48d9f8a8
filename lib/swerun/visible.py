"""What an agent could have found out itself: the tests of the base commit that concern what it changed, and those it wrote, with its patch."""

import re
from pathlib import Path
from typing import NamedTuple

from swerun import grading, patches, slots, spec as specs, verdicts, workspace
from swerun.git import git
from swerun.launches import Task
from swerun.spec import Spec
from swerun.state import read_json, write_json
from swerun.workspace import Workspace

TEST_FILE = re.compile(r"(^|/)(test_[^/]*|[^/]*_tests?|tests)\.py$")
MOST_FILES = 12
MOST_OUTPUT = 6000  # characters of a log that an agent is shown
BAD = ("FAILED", "ERROR")
NOTHING = "Your last attempt left no change in the worktree. Edit the files that the issue is about, in place."


class Judged(NamedTuple):
    """What came of an attempt. `failed` are tests that fail now and did not before, or that the agent wrote itself."""

    passed: bool
    count: int  # of tests that ran
    failed: list[str]
    feedback: str

    def rank(self) -> tuple[bool, bool, int]:
        """Better attempts are larger."""
        return self.passed, self.count > 0, -len(self.failed)


def concerned(names: list[str], changed: list[str], imports: dict[str, set[str]]) -> list[str]:
    """The test files among the tracked names that concern the changed files, the likeliest first.

    `imports` are the modules that a test file names, by test file. A test file that was changed concerns itself; a module's
    are those called after it, then those that import it, then those in the nearest folder of tests.
    """
    tests = [name for name in names if TEST_FILE.search(name)]
    found: dict[str, int] = {name: 0 for name in changed if name in tests}
    for name in (name for name in changed if name.endswith(".py") and name not in found):
        path = Path(name)
        stem = path.parent.name if path.stem == "__init__" else path.stem.strip("_")
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__").removeprefix("src.").removeprefix("lib.")
        for test in tests:
            called = re.sub(r"^test_|_tests?$", "", Path(test).stem)
            near = _shared(test, name)
            if called == stem:
                rank = 10 - near
            elif module in imports.get(test, ()):
                rank = 30 - near
            elif stem in called.split("_") and near:
                rank = 50 - near
            else:
                continue
            found[test] = min(rank, found.get(test, rank))
    return sorted(found, key=lambda name: (found[name], name))[:MOST_FILES]


def _shared(one: str, other: str) -> int:
    """How many folders two paths have in common, at most nine."""
    count = 0
    for left, right in zip(one.split("/")[:-1], other.split("/")[:-1]):
        if left != right:
            break
        count += 1
    return min(count, 9)


IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\s+\(?([\w ,]*)|import\s+([\w., ]+))", re.M)


def imported(text: str) -> set[str]:
    """The modules that a file names in its imports, each `from a import b` as a and as a.b."""
    found = set()
    for source, names, plain in IMPORT.findall(text):
        found |= {source, *(f"{source}.{name.split()[0]}" for name in names.split(",") if name.strip())} if source else {name.split()[0] for name in plain.split(",") if name.strip()}
    return found


def judge(task: Task, patch: str) -> Judged:
    """Run the tests that concern a patch in a place of its own, and say what the agent may know of it."""
    spec, place = specs.of(task.row), workspace.grading_place(task.record)
    space = _space(task, place)
    file = place / "patch.diff"
    file.write_text(patch if patch.endswith("\n") else patch + "\n")
    applied, log = patches.apply_as_official(space.checkout, file, lambda: _space(task, place))
    if not applied:
        return Judged(False, 0, [], f"Your patch does not apply to the repository:\n{_middle(log)}")
    changed = specs.changed_files(patch)
    names = [name for name in git(space.checkout, "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0") if (space.checkout / name).is_file()]
    texts = {name: imported((space.checkout / name).read_text("utf-8", "replace")) for name in names if TEST_FILE.search(name)}
    removed = [name for name in changed if TEST_FILE.search(name) and name not in names]
    tests = concerned(names, changed, texts)
    if not tests and not removed and spec.directives != "none":
        return Judged(True, 0, [], "No existing tests were found that concern what you changed.")
    task.say(f"running {len(tests)} test files that concern what it changed")
    grading.rebuild(spec, space, changed, task.say)
    after, output, timed_out = _run(task, spec, space, place, tests)
    tests += removed  # their tests passed before, maybe, and are gone
    if timed_out:
        return Judged(False, 0, [], f"The tests of {', '.join(tests)} did not end within {task.chosen['TEST_TIMEOUT']} seconds.")
    bad = sorted(name for name, status in after.items() if status in BAD)
    # the base is asked only where it can matter: something fails, or tests were changed, so that some may be gone
    before = _before(task, spec, place, tests) if bad or not after or set(tests) & set(changed) else {}
    failed = [name for name in bad if before.get(name) not in BAD]
    lost = sorted(name for name, status in before.items() if status == "PASSED" and name not in after)
    if not failed and not lost:
        return Judged(True, len(after), [], f"All {len(after)} tests of {', '.join(tests)} passed." if after else "No test of what you changed could be run.")
    told = [f"These tests failed with your change, and do not fail without it ({len(after)} ran, of {', '.join(tests)}):", *(f"- {name}" for name in failed[:30])]
    told += [f"- and {len(failed) - 30} more"] * (len(failed) > 30)
    if lost:
        told += [f"{len(lost)} tests that passed before did not run at all, such as {', '.join(lost[:5])}"]
    return Judged(False, len(after), failed + lost, "\n".join([*told, "", shown(output)]))


def hidden(task: Task, patch: str) -> Judged:
    """The same of the grading tests: what FEEDBACK=hidden asks for, and what makes a run not comparable."""
    folder = task.folder / "attempts" / "hidden"
    folder.mkdir(parents=True, exist_ok=True)
    spec = specs.of(task.row)
    made, _ = grading.grade_once(task.row, spec, patch, workspace.grading_place(task.record), folder, task.chosen["REMOTE"], float(task.chosen["TEST_TIMEOUT"]), task.say)
    log = folder / "test_output.txt"
    if made["tests"]["status"] != "ran":
        return Judged(False, 0, [], f"The tests did not run ({made['tests']['status']}).\n{_middle(log.read_text('utf-8', 'replace') if log.is_file() else '')}")
    failed = verdicts.failing(task.row, spec, patch, log)
    count = sum(sum(made["tests"][kind].values()) for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"))
    if made["resolved"]:
        return Judged(True, count, [], "All tests passed.")
    return Judged(False, count, failed, "\n".join(["These tests failed:", *(f"- {name}" for name in failed[:30]), "", shown(log.read_text("utf-8", "replace"))]))


def _space(task: Task, place: Path) -> Workspace:
    return workspace.make(task.row, place, task.folder, task.chosen["REMOTE"], None, task.say)


def _run(task: Task, spec: Spec, space: Workspace, place: Path, tests: list[str]) -> tuple[dict[str, str], str, bool]:
    """({test: status}, the log, whether it took too long) of some test files in a checkout, as grading runs them."""
    if not tests and spec.directives != "none":
        return {}, "", False  # a test command without a file to test would run them all
    output = place / "visible.txt"
    named = "".join(f"diff --git a/{name} b/{name}\n" for name in tests)
    with slots.slot(task.say):
        ended = grading.run_tests({"test_patch": named}, spec, space, place, output, float(task.chosen["TEST_TIMEOUT"]), task.say)
    text = output.read_text("utf-8", "replace")
    return ({} if ended.timed_out else verdicts.statuses(task.row, spec, output)), text, ended.timed_out


def _before(task: Task, spec: Spec, place: Path, tests: list[str]) -> dict[str, str]:
    """The same without any patch; kept, for the next attempt asks again."""
    file = task.folder / "attempts" / "before.json"
    kept = read_json(file) or {}
    key = " ".join(tests)
    if key not in kept:
        space = _space(task, place)
        kept[key], _, timed_out = _run(task, spec, space, place, [name for name in tests if (space.checkout / name).is_file()])
        if timed_out:
            return {}
        write_json(file, kept)
    return kept[key]


def shown(log: str) -> str:
    """What matters of a test log: from the first failure on, the middle left out where it is long."""
    log = log.split(grading.START)[-1].split(grading.END)[0]
    found = re.search(r"^(=+ (FAILURES|ERRORS) =+$|=+\n(FAIL|ERROR): |_{3,} .* _{3,}$|Traceback \(most recent call last\))", log, re.M)
    return _middle(log[found.start():] if found else log[-MOST_OUTPUT:])


def _middle(text: str) -> str:
    if len(text) <= MOST_OUTPUT:
        return text.strip()
    half = MOST_OUTPUT // 2
    return f"{text[:half]}\n[… {len(text) - MOST_OUTPUT} characters left out …]\n{text[-half:]}".strip()
