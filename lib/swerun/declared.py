"""What the packaging files of a repository declare: Pythons, dependencies, extras, groups of packages for its development."""

import configparser
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from swerun import setuppy
from swerun.trees import Tree

MINOR = re.compile(r"\b3\.(\d+)\b")


@dataclass
class Declared:
    requires_python: list[str] = field(default_factory=list)
    minors: set[int] = field(default_factory=set)  # of the classifiers: 9 is 3.9
    dependencies: list[str] = field(default_factory=list)
    extras: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)


def read(tree: Tree) -> Declared:
    """All that pyproject.toml, setup.cfg, setup.py and Pipfile say; a file that cannot be read says nothing."""
    made = Declared()
    _pyproject(made, toml(tree.read("pyproject.toml")))
    _setup_cfg(made, ini(tree.read("setup.cfg")))
    _setup_py(made, setuppy.keywords(tree.read("setup.py")))
    pipfile = toml(tree.read("Pipfile"))
    _group(made, "dev", [_poetry(name, value) for name, value in pipfile.get("dev-packages", {}).items()])
    return made


def name_of(line: str) -> str:
    """The normal name of what a requirement asks for, "" where it is none or one of a place and not of an index."""
    try:
        found = Requirement(line)
    except InvalidRequirement:
        return ""
    return "" if found.url else canonicalize_name(found.name)


def toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def ini(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=", ":"))
    try:
        parser.read_string(text)
    except configparser.Error:
        return configparser.RawConfigParser()
    return parser


def lines(value: Any) -> list[str]:
    """A list of texts, whether it is one or is written as lines or after semicolons and commas."""
    if isinstance(value, str):
        value = value.splitlines()
    return [one.strip() for one in value if isinstance(one, str) and one.strip()] if isinstance(value, list | tuple) else []


def _group(made: Declared, name: str, wanted: list[str]) -> None:
    if wanted:
        made.groups.setdefault(name.lower(), []).extend(wanted)


def _classifiers(made: Declared, value: Any) -> None:
    for line in lines(value):
        found = re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line)
        made.minors |= {int(found[1])} if found else set()


def _pyproject(made: Declared, data: dict[str, Any]) -> None:
    project, tool = data.get("project", {}), data.get("tool", {})
    poetry, flit, hatch = tool.get("poetry", {}), tool.get("flit", {}).get("metadata", {}), tool.get("hatch", {})
    made.requires_python += [text for text in (project.get("requires-python"), flit.get("requires-python")) if isinstance(text, str)]
    for table in (project, poetry, flit):
        _classifiers(made, table.get("classifiers"))
    made.dependencies += lines(project.get("dependencies")) + lines(flit.get("requires"))
    for extras in (project.get("optional-dependencies"), flit.get("requires-extra")):
        made.extras |= {name: lines(wanted) for name, wanted in (extras or {}).items()}
    for name, wanted in data.get("dependency-groups", {}).items():
        _group(made, name, _dependency_group(data["dependency-groups"], wanted))
    for name, wanted in tool.get("pdm", {}).get("dev-dependencies", {}).items():
        _group(made, name, lines(wanted))
    _group(made, "dev", lines(tool.get("uv", {}).get("dev-dependencies")))
    for name, environment in hatch.get("envs", {}).items():
        _group(made, name, [*lines(environment.get("dependencies")), *lines(environment.get("extra-dependencies")),
                            *(f".[{extra}]" for extra in lines(environment.get("features")))])
    wanted = dict(poetry.get("dependencies", {}))
    if isinstance(python := wanted.pop("python", None), str):
        made.requires_python.append(_caret(python))
    made.dependencies += [_poetry(name, value) for name, value in wanted.items()]
    # an optional dependency is asked for by its name in an extra, and by its version in the table of all
    made.extras |= {name: [_poetry(one, wanted.get(one, "*")) for one in lines(names)] for name, names in poetry.get("extras", {}).items()}
    groups = {"dev": {"dependencies": poetry.get("dev-dependencies", {})}} | poetry.get("group", {})
    for name, group in groups.items():
        _group(made, name, [_poetry(one, value) for one, value in group.get("dependencies", {}).items()])


def _dependency_group(groups: dict[str, Any], wanted: Any, depth: int = 5) -> list[str]:
    """PEP 735: a group may include others."""
    found = lines(wanted)
    for one in wanted if isinstance(wanted, list) and depth else ():
        if isinstance(one, dict):
            found += _dependency_group(groups, groups.get(one.get("include-group"), []), depth - 1)
    return found


def _poetry(name: str, value: Any) -> str:
    """A requirement from a table of Poetry's or pipenv's: `^1.2` is >=1.2,<2."""
    if isinstance(value, list):  # one for each Python: none of them is the one
        return name
    if isinstance(value, dict):
        if not isinstance(value.get("version"), str):
            return "" if value.keys() & {"path", "git", "url"} else name
        extras = f"[{','.join(lines(value.get('extras')))}]" if value.get("extras") else ""
        return _poetry(name + extras, value["version"]) + (f"; {value['markers']}" if value.get("markers") else "")
    return name if not isinstance(value, str) or value == "*" else name + _caret(value)


def _caret(text: str) -> str:
    """Poetry's `^` and `~`, and a version alone, as PEP 440 has them."""
    made = []
    for part in re.split(r"\s*,\s*", text.split("||")[0].strip()):
        found = re.fullmatch(r"([\^~])\s*(\d+)(?:\.(\d+))?(?:\.(\d+))?(\S*)", part)
        if found:
            sign, numbers = found[1], [int(one) for one in found.groups()[1:4] if one is not None]
            at = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1) if sign == "^" else min(1, len(numbers) - 1)
            above = ".".join(map(str, [*numbers[:at], numbers[at] + 1]))
            made.append(f">={part[1:].strip()},<{above}")
        else:
            made.append(f"=={part}" if re.match(r"\d", part) else part)
    return ",".join(made)


def _setup_cfg(made: Declared, parser: configparser.RawConfigParser) -> None:
    get = lambda section, option: parser.get(section, option, fallback="") or ""
    made.requires_python += [get("options", "python_requires")] * bool(get("options", "python_requires"))
    _classifiers(made, get("metadata", "classifiers") or get("metadata", "classifier"))
    made.dependencies += lines(get("options", "install_requires"))
    if parser.has_section("options.extras_require"):
        made.extras |= {name: lines(value or "") for name, value in parser.items("options.extras_require")}
    _group(made, "test", lines(get("options", "tests_require")))


def _setup_py(made: Declared, words: dict[str, Any]) -> None:
    python = words.get("python_requires")
    made.requires_python += [python] if isinstance(python, str) else []
    _classifiers(made, words.get("classifiers"))
    made.dependencies += lines(words.get("install_requires"))
    extras = words.get("extras_require")
    made.extras |= {name: lines(wanted) for name, wanted in extras.items() if not name.startswith(":")} if isinstance(extras, dict) else {}
    _group(made, "test", lines(words.get("tests_require")))
