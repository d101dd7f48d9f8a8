"""What the tests of a repository would like to have installed: read off tox, extras, groups, requirement files and the tests."""

import os
import re
import sys
from typing import Iterator

from packaging.requirements import Requirement

from swerun.declared import Declared, ini, name_of, toml
from swerun.testtools import DISTRIBUTIONS, FIXTURES, GONE, KNOWN, PLUGINS, TOOLS
from swerun.trees import Tree

# names of extras, of groups and of tox's environments
TESTS = re.compile(r"(unit[-_]?)?tests?|testing|tests?[-_](require(ment)?s|deps|dependencies|extras?|min|base|core)|(ci|dev|unit)[-_]tests?|pytest", re.I)
DEVELOPMENT = re.compile(r"dev|develop|development|ci|default", re.I)
# requirements-test.txt, test_requirements.pip, requirements/testing/all.txt, tests/requirements.txt
FILES = re.compile(r"([\w.-]+/)*(requirements?|reqs?|requires)(/[\w.-]+)*/[\w.-]+\.(txt|pip)|([\w.-]+/)?[\w.-]*(req|depend)[\w.-]*\.(txt|pip)", re.I)
OTHER = re.compile(r"(^|[-_.])(min|minver|minimum|minimal|oldest|lowest)\b|pre[-_]?commit|mypy|typing|lint|docs?\b", re.I)  # tests that are not the usual ones
TEST_CODE = (":(glob)**/test*/**/*.py", ":(glob)**/*test*.py", ":(glob)**/conftest.py")

# every pytest that reports what the parsers read (see packaging.REPORTING)
PYTESTS = [f"{major}.{minor}.{patch}" for major, minors in ((4, (6,)), (5, range(5)), (6, range(3)), (7, range(5)), (8, range(6)), (9, range(4)))
           for minor in minors for patch in range(13)]


def listed(tree: Tree, declared: Declared, minor: int) -> list[str]:
    """Requirements, and extras as `.[test]`, the most trusted first; some may ask for what is not to be had together."""
    found = [*from_tox(tree, minor)]
    found += [f".[{name}]" for name in declared.extras if TESTS.fullmatch(name)]
    found += [line for name, wanted in declared.groups.items() if TESTS.fullmatch(name) for line in wanted]
    files = [name for name in sorted(tree.names) if FILES.fullmatch(name) and not OTHER.search(os.path.basename(name))]
    found += [line for name in files if "test" in name.lower() for line in requirements(tree, name)]
    if not any(name_of(line).startswith(("pytest", "nose")) or line.startswith(".[") for line in found):  # nothing that is for tests alone
        found += [f".[{name}]" for name in declared.extras if DEVELOPMENT.fullmatch(name)]
        found += [line for name, wanted in declared.groups.items() if DEVELOPMENT.fullmatch(name) for line in wanted]
        found += [line for name in files if re.search(r"dev", os.path.basename(name), re.I) for line in requirements(tree, name)]
    if not declared.dependencies:  # it may read them from here, or be no package at all
        found += requirements(tree, "requirements.txt") or requirements(tree, "requirements/base.txt")
    return [*(line for line in found if not TOOLS.fullmatch(name_of(line))), *from_tests(tree, declared)]


def sound(found: list[str]) -> list[str]:
    """Each of them once that an index can answer, or the project itself; of a package that several ask for in versions what the first asks for."""
    made, pinned = [], set()
    for line in dict.fromkeys(found):
        name, versions = name_of(line), re.search(r"[<>=~!]", line) and ";" not in line
        if name == "pytest" and not any(Requirement(line).specifier.contains(one) for one in PYTESTS):
            continue
        if (name and not (versions and name in pinned)) or re.fullmatch(r"\.\[[\w,. -]+\]", line):
            made.append(line)
            pinned |= {name} if versions else set()
    return made


def requirements(tree: Tree, name: str, depth: int = 5) -> list[str]:
    """The lines of a requirements file and of those that it includes, less what is not of an index."""
    folder, found = os.path.dirname(name), []
    for line in re.sub(r"\\\n", " ", tree.read(name)).splitlines():
        line = re.sub(r"(^|\s)#.*$|\s--hash=\S+", "", line).strip()
        included = re.match(r"(?:-r|--requirement)[\s=]*(\S+)", line)
        if included and depth:
            found += requirements(tree, os.path.normpath(os.path.join(folder, included[1])), depth - 1)
        elif local := re.fullmatch(r"(?:-e\s*)?(?:file:)?\.(\[[\w, .-]+\])?", line):
            found += [f".{local[1]}"] if local[1] else []
        elif line and not line.startswith("-"):
            found.append(line)
    return found


def from_tox(tree: Tree, minor: int) -> Iterator[str]:
    """The `deps` and `extras` of tox's environments that test, for this Python."""
    parser = ini(tree.read("tox.ini") or toml(tree.read("pyproject.toml")).get("tool", {}).get("tox", {}).get("legacy_tox_ini", ""))
    factors = {f"py3{minor}", f"py3.{minor}", "py3", "py"}
    for section in parser.sections():
        name = section.removeprefix("testenv").removeprefix(":")
        if not section.startswith("testenv") or name and not (TESTS.fullmatch(name) or set(re.split(r"[-,{}]", name)) & factors):
            continue
        for line in _lines(parser, section, "deps"):
            condition = re.match(r"([\w.,{}!\s-]+?):\s+(.*)", line)
            if condition and not any(set(one.strip().split("-")) <= factors for one in condition[1].split(",")):
                continue
            line = (condition[2] if condition else line).replace("{toxinidir}/", "").replace("{tox_root}/", "")
            # an upgrade of what is as new as it can be: tox takes `-Ur file` as pip does
            included = re.match(r"-(?:U|-upgrade)?\s*(?:r|-requirement)[\s=]*(\S+)", line)
            yield from requirements(tree, os.path.normpath(included[1])) if included else [line]
        extras = ",".join(_lines(parser, section, "extras")).replace(" ", "")
        if extras and "{" not in extras and not re.search(r":", extras):
            yield f".[{extras.replace(',,', ',').strip(',')}]"


def _lines(parser, section: str, option: str, depth: int = 5) -> Iterator[str]:
    """An option's lines, with `{[testenv]deps}` replaced by what it names."""
    for line in (parser.get(section, option, fallback="") or "").splitlines():
        line = line.split(" #")[0].strip()
        other = re.fullmatch(r"\{\[([^\]]+)\](\w+)\}", line)
        if other and depth and parser.has_section(other[1]):
            yield from _lines(parser, other[1], other[2], depth - 1)
        elif line and not line.startswith("#"):
            yield line


def from_tests(tree: Tree, declared: Declared) -> Iterator[str]:
    """What test modules import and the project declares somewhere, what they cannot be imported without, and plugins that they use."""
    known = _own(tree) | GONE | set(sys.stdlib_module_names)
    lines = tree.grep(r"^\s*(import|from) +[A-Za-z_]\w*", *TEST_CODE)
    imports = {line.split()[1] for line in lines} - known
    needed = {line.split()[1] for line in lines if not line[0].isspace()} & imports  # what stands further in may be missing
    called = lambda modules: {re.sub("_", "-", DISTRIBUTIONS.get(one, one)).lower() for one in modules}
    yield from (line for table in (declared.extras, declared.groups) for wanted in table.values() for line in wanted if name_of(line) in called(imports))
    yield from sorted(called(needed) & KNOWN | {one for one in called(needed) if one.startswith("pytest-")})
    settings = tree.read("pyproject.toml").partition("[tool.pytest")[2].partition("\n[tool.")[0]
    for parser, section in ((ini(tree.read(name)), section) for name in ("pytest.ini", "setup.cfg", "tox.ini") for section in ("pytest", "tool:pytest")):
        settings += "".join(f"{option}={value}\n" for option, value in (parser.items(section) if parser.has_section(section) else ()))
    yield from (plugin for word, plugin in PLUGINS.items() if word in settings.lower())
    yield from (plugin for pattern, plugin in FIXTURES.items() if tree.grep(pattern, *TEST_CODE))


def _own(tree: Tree) -> set[str]:
    """Modules of the repository: at its root and in src, lib and python, and what stands beside tests."""
    found = set()
    for name in tree.names:
        first, *rest = name.split("/")
        found |= {first.removesuffix(".py"), *(rest[:1] if first in ("src", "lib", "python") else ()), *([rest[-1].removesuffix(".py")] if "test" in name and rest else ())}
    return found
