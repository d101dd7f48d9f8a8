"""What a row's own `install_config` says, as rows of SWE-rebench carry it, in the words of a spec."""

import re
from typing import Any

from swerun.errors import Fatal
from swerun.evalscripts import ROOT

NAMES = {"reqs_path": "requirements_paths", "env_yml_path": "environment_yml_paths", "env_vars": "environment"}
LISTS = ("pip_packages", "pre_install", "eval_commands", "requirements_paths", "environment_yml_paths")
# where nobody says which file `requirements.txt` and `environment.yml` stand for
USUAL = {"requirements.txt": ("requirements_paths", ["requirements.txt", "requirements/base.txt", "requirements-dev.txt", "requirements/dev.txt"]),
         "environment.yml": ("environment_yml_paths", ["environment.yml", "environment.yaml", "ci/environment.yml", "requirements/environment.yml"])}
NO_LIMIT = "2100-01-01T00:00:00Z"  # what is frozen is older than any date of ours


def facts(row: dict[str, Any]) -> dict[str, Any]:
    """Raises Fatal where the row says too little to build an environment from."""
    config = row["install_config"]
    if not isinstance(config, dict):
        raise Fatal(f"install_config of '{row['instance_id']}' is not an object")
    values = {NAMES.get(key, key): value for key, value in config.items() if value not in (None, "", [], {}) or (key, value) == ("seed", [])}  # nothing to begin with is something said
    for key in LISTS:
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    for key in ("install", "test_cmd"):
        if isinstance(values.get(key), list):
            values[key] = " && ".join(values[key])
    if isinstance(values.get("packages"), list):
        values["packages"] = " ".join(values["packages"])
    values["pre_install"] = [command for command in values.get("pre_install", ()) if not ROOT.search(command)]
    if isinstance(values.get("python"), float | int):
        values["python"] = str(values["python"])
    values.setdefault("log_parser", row.get("log_parser"))
    absent = [key for key in ("python", "test_cmd", "log_parser") if not values.get(key)]
    if absent:
        raise Fatal(f"install_config of '{row['instance_id']}' has no {', '.join(absent)}")
    if not values["log_parser"].startswith("parse_log_"):
        values["log_parser"] = f"parse_log_{values['log_parser']}"
    paths, usual = USUAL.get(values.get("packages"), ("", []))
    if paths:
        values.setdefault(paths, usual)
    # SWE-rebench keeps with a row what its environment had: the versions in which its tests were seen to pass
    frozen = re.findall(r"^[\w.-]+==[\w.!+-]+$", str(row.get("requirements") or ""), re.M)
    return values | ({"pins": frozen, "exclude_newer": NO_LIMIT} if frozen else {})
