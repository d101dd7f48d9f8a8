"""The official verdict: swebench's own log parsers and grading, without importing the rest of that package."""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

from swerun.errors import Fatal
from swerun.spec import Spec

VERSION = "5.0.2"  # what the bare parents below were checked against
Report = dict[str, Any]


def _grading() -> Any:
    """`swebench.harness.grading`, with its parents registered bare: run as they are they cost 3 s of CPU for Docker, Modal and datasets."""
    if "swebench.harness.grading" in sys.modules:
        return sys.modules["swebench.harness.grading"]
    root = next((Path(folder) / "swebench" for folder in sys.path if (Path(folder) / "swebench" / "harness").is_dir()), None)
    if root is None:
        raise Fatal("no package 'swebench' (run './bootstrap.sh')")
    for name, folder in (("swebench", root), ("swebench.harness", root / "harness")):
        bare = types.ModuleType(name)
        bare.__path__ = [str(folder)]
        sys.modules[name] = bare
    return importlib.import_module("swebench.harness.grading")


def parsers() -> set[str]:
    return set(_grading().PARSER_REGISTRY)


def parser_languages() -> dict[str, str]:
    """{name of a log parser: the language of the projects that it is for}, by the official package's own modules."""
    return {name: parser.__module__.rpartition(".")[2] for name, parser in _grading().PARSER_REGISTRY.items()}


def _test_spec(row: dict[str, Any], spec: Spec) -> Any:
    grading = _grading()
    if spec.log_parser not in grading.PARSER_REGISTRY:
        raise Fatal(f"no log parser '{spec.log_parser}' in swebench {VERSION}")
    return grading.TestSpec(
        instance_id=row["instance_id"], image="", eval_script_list=[], repo=row["repo"], version=row["version"],
        FAIL_TO_PASS=row["FAIL_TO_PASS"], PASS_TO_PASS=row["PASS_TO_PASS"], log_parser=spec.log_parser, eval_type=row.get("eval_type") or "pass_and_fail")


def statuses(row: dict[str, Any], spec: Spec, log: Path) -> dict[str, str]:
    """{test: PASSED, FAILED, ERROR, SKIPPED or XFAIL} of a log; none where it is of no test run."""
    return _grading().get_logs_eval(_test_spec(row, spec), str(log))[0]


def report(row: dict[str, Any], spec: Spec, model_patch: str | None, log: Path) -> Report:
    """get_eval_report of one instance: `resolved`, and `tests_status` where its log was of a run."""
    prediction = {"instance_id": row["instance_id"], "model_name_or_path": "", "model_patch": model_patch}
    return _grading().get_eval_report(_test_spec(row, spec), prediction, str(log), True)[row["instance_id"]]


def failing(row: dict[str, Any], spec: Spec, model_patch: str | None, log: Path) -> list[str]:
    """The tests for which a log is not one of a resolved instance; none, too, where it is of no test run."""
    found = report(row, spec, model_patch, log).get("tests_status", {})
    return [name for kind in ("FAIL_TO_PASS", "PASS_TO_PASS") for name in found.get(kind, {}).get("failure", ())]
