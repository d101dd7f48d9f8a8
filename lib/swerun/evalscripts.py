"""What a row's `eval_script` says (harness 5): the bash script that ran in its image, read, never run as it stands."""

import re
import shlex
from typing import Any, NamedTuple

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
# what prepares the image's own place (conda, its folder, git): a task has a place of its own, and test files are restored by us
THEIRS = re.compile(r"#|set [-+]|source \S*activate|(\S*/)?conda (de)?activate|cd \S*$|export (PATH|CONDA\w*)=|:\s|:$"
                    r"|git (config|status|show|diff|-c \S+ diff|checkout|reset|apply|log|clean|stash)\b")
# takes root, which no task has here: what they install is the machine's
ROOT = re.compile(r"\b(sudo|apt|apt-get|yum|dnf|apk|locale-gen|update-locale|service|systemctl)\b|/etc/")
INSTALLS = re.compile(r"\bpip3? install\b|\bsetup\.py\b|\b(poetry|pdm|flit|uv|hatch|pipenv|conda|make) (install|sync|develop|build|env|pip)\b")


class Script(NamedTuple):
    install: list[str]
    eval_commands: list[str]
    test_cmd: str


def read(text: str) -> Script | None:
    """The commands of a script that install the project, that prepare its tests, and that run them; None where it marks no tests."""
    folder = next((found[1] for line in text.splitlines() if (found := re.fullmatch(r"cd (/\S+)\s*", line))), "/testbed")
    install, prepare, tests, part, until = [], [], [], "before", ""
    for line in text.splitlines():
        if until:  # in a here document: the test patch, which the row has too
            until = "" if line.strip() == until else until
            continue
        heredoc = re.search(r"<<-?\s*(['\"]?)(\w+)\1\s*$", line)
        until = heredoc[2] if heredoc and part == "before" else ""
        if START in line:
            part = "tests"
        elif END in line:
            part = "after"
        elif part == "tests":
            tests.append(_here(line, folder))
        elif part == "before" and line.strip() and not heredoc and not THEIRS.match(line.strip()) and not ROOT.search(line):
            (install if INSTALLS.search(line) else prepare).append(_here(line.strip(), folder))
    return Script(install, prepare, "\n".join(tests).strip()) if part == "after" and any(line.strip() for line in tests) else None


def _here(line: str, folder: str) -> str:
    """A command that names the image's folder, for a checkout, whose root is where it is started."""
    return re.sub(rf"{re.escape(folder)}(?![\w.-])", "$PWD", line)


def test_facts(row: dict[str, Any], known: str = "") -> dict[str, Any]:
    """How a row's tests are run by its own script; nothing where that is `known`, the command that its tables give."""
    script = read(row["eval_script"])
    if script is None or script.test_cmd == known:
        return {}
    facts = {"test_cmd": script.test_cmd, "directives": "none", "eval_commands": script.eval_commands}
    return facts | ({"log_parser": row["log_parser"]} if row.get("log_parser") else {})


def asked_for(commands: list[str]) -> tuple[list[str], list[str]]:
    """(requirements, requirement files) that commands like `pip install -r dev.txt tox .[test]` ask for."""
    packages: list[str] = []
    files: list[str] = []
    for part in re.split(r"&&|;|\|\||\n", "\n".join(commands)):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue
        if "install" not in words or not any(word in ("pip", "pip3") for word in words[:words.index("install")]):
            continue
        rest = iter(words[words.index("install") + 1:])
        for word in rest:
            if word in ("-r", "--requirement"):
                files.append(next(rest, ""))
            elif word in ("-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t", "--target"):
                next(rest, "")
            elif not word.startswith("-"):
                packages.append(word)
    return packages, files
