"""What the tests of a repository would like to have installed: read off tox, extras, groups, requirement files and the tests."""

import os
import re
import sys
from typing import Iterator

from swerun.declared import Declared, ini, name_of, toml
from swerun.trees import Tree

TESTS = re.compile(r"(unit[-_]?)?tests?|testing|tests?[-_](require(ment)?s|deps|dependencies|extras?|min|base|core)|(ci|dev|unit)[-_]tests?|pytest", re.I)
DEVELOPMENT = re.compile(r"dev|develop|development|ci|default", re.I)
# requirements-test.txt, test_requirements.pip, requirements/testing/all.txt, tests/requirements.txt
FILES = re.compile(r"(?:[\w.-]+/)*(?:requirements?|reqs?|requires)(?:/[\w.-]+)*/[\w.-]+\.(?:txt|pip)|(?:[\w.-]+/)?[\w.-]*(?:req|depend)[\w.-]*\.(?:txt|pip)", re.I)
OLDEST = re.compile(r"(^|[-_.])(min|minver|minimum|minimal|oldest|lowest)\b|pre[-_]?commit|mypy|typing|lint|docs?\b", re.I)  # of a test that is not the usual one
TEST_CODE = (":(glob)**/test*/**/*.py", ":(glob)**/*test*.py", ":(glob)**/conftest.py")
# what an import is called and what it comes in, where the two differ
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "attr": "attrs", "dateutil": "python-dateutil", "sklearn": "scikit-learn", "skimage": "scikit-image",
                 "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "factory": "factory-boy", "vcr": "vcrpy", "OpenSSL": "pyopenssl", "jwt": "pyjwt",
                 "dotenv": "python-dotenv", "serial": "pyserial", "zmq": "pyzmq", "Crypto": "pycryptodome", "git": "gitpython", "docx": "python-docx",
                 "rest_framework": "djangorestframework", "ruamel": "ruamel.yaml", "google": "protobuf", "netCDF4": "netcdf4", "usb": "pyusb"}
# what tests import first of all and their projects forget to name; nothing else is taken by its import's name alone
KNOWN = frozenset("mock hypothesis six numpy pandas scipy nose responses freezegun requests requests-mock httpretty parameterized ddt testfixtures trustme vcrpy moto faker "
                  "factory-boy coverage psutil simplejson python-dateutil pytz attrs pyyaml jinja2 toml tomli lxml beautifulsoup4 pyfakefs webtest unittest2 pexpect "
                  "docutils pillow matplotlib packaging setuptools typing-extensions aiohttp httpx flask django sqlalchemy cryptography trio anyio syrupy sybil time-machine respx".split())
GONE = {"imp", "distutils", "asyncore", "asynchat", "smtpd", "StringIO", "urllib2", "ConfigParser", "Queue", "cPickle", "__builtin__", "__future__", "builtins"}
PLUGINS = {"--cov": "pytest-cov", "--numprocesses": "pytest-xdist", "-n auto": "pytest-xdist", "--dist": "pytest-xdist", "asyncio_mode": "pytest-asyncio",
           "--timeout": "pytest-timeout", "timeout=": "pytest-timeout", "--benchmark": "pytest-benchmark", "--mpl": "pytest-mpl", "--reruns": "pytest-rerunfailures",
           "--flake8": "pytest-flake8", "--mypy": "pytest-mypy", "--black": "pytest-black", "--doctest-glob-plus": "pytest-doctestplus", "--doctest-plus": "pytest-doctestplus",
           "--snapshot": "syrupy", "--isort": "pytest-isort", "--socket": "pytest-socket", "--disable-socket": "pytest-socket",
           "DJANGO_SETTINGS_MODULE": "pytest-django", "--randomly-seed": "pytest-randomly", "--html": "pytest-html", "--forked": "pytest-forked"}
FIXTURES = {r"\bmocker\b": "pytest-mock", r"pytest\.mark\.asyncio\b": "pytest-asyncio", r"pytest\.mark\.timeout\b": "pytest-timeout", r"\bhttpx_mock\b": "pytest-httpx",
            r"\brequests_mock\b": "requests-mock", r"\bhttpserver\b": "pytest-httpserver", r"pytest\.mark\.django_db\b": "pytest-django", r"pytest\.mark\.flaky\b": "pytest-rerunfailures",
            r"\bfile_regression\b": "pytest-regressions",
            r"pytest\.mark\.remote_data\b": "pytest-remotedata", r"pytest\.mark\.trio\b": "pytest-trio", r"pytest\.mark\.freeze_time\b": "pytest-freezegun"}


def listed(tree: Tree, declared: Declared, minor: int) -> list[str]:
    """Requirements, and extras as `.[test]`, the most trusted first; some may ask for what is not to be had together."""
    found = [*from_tox(tree, minor)]
    found += [f".[{name}]" for name in declared.extras if TESTS.fullmatch(name)]
    found += [line for name, wanted in declared.groups.items() if TESTS.fullmatch(name) for line in wanted]
    files = [name for name in sorted(tree.names) if FILES.fullmatch(name) and not OLDEST.search(os.path.basename(name))]
    found += [line for name in files if "test" in name.lower() for line in requirements(tree, name)]
    if not any(name_of(line).startswith(("pytest", "nose")) or line.startswith(".[") for line in found):  # nothing that is for tests alone
        found += [f".[{name}]" for name in declared.extras if DEVELOPMENT.fullmatch(name)]
        found += [line for name, wanted in declared.groups.items() if DEVELOPMENT.fullmatch(name) for line in wanted]
        found += [line for name in files if re.search(r"dev", os.path.basename(name), re.I) for line in requirements(tree, name)]
    if not declared.dependencies:  # it may read them from here, or be no package at all
        found += requirements(tree, "requirements.txt") or requirements(tree, "requirements/base.txt")
    found += from_tests(tree, declared)
    return found


def sound(found: list[str]) -> list[str]:
    """Each of them once that an index can answer, or the project itself."""
    return [line for line in dict.fromkeys(found) if re.fullmatch(r"\.\[[\w,. -]+\]", line) or name_of(line)]


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
    own = {os.path.basename(name).removesuffix(".py") for name in tree.names if name.endswith(".py")} | {part for name in tree.names for part in name.split("/")[:-1]}
    known = own | GONE | set(sys.stdlib_module_names)
    imports = {found[1] for line in tree.grep(r"^\s*(import|from) +[A-Za-z_]\w*", *TEST_CODE) if (found := re.match(r"\s*(?:import|from) +(\w+)", line))} - known
    needed = {line.split()[-1] for line in tree.grep(r"^(import|from) +[A-Za-z_]\w*", *TEST_CODE)} & imports
    called = lambda modules: {re.sub("_", "-", DISTRIBUTIONS.get(one, one)).lower() for one in modules}
    lines = [line for table in (declared.extras, declared.groups) for wanted in table.values() for line in wanted]
    yield from (line for line in lines if name_of(line) in called(imports))
    yield from sorted(called(needed) & KNOWN | {one for one in called(needed) if one.startswith("pytest-")})
    settings = tree.read("pyproject.toml").partition("[tool.pytest")[2].partition("\n[tool.")[0]
    for parser, section in ((ini(tree.read(name)), section) for name in ("pytest.ini", "setup.cfg", "tox.ini") for section in ("pytest", "tool:pytest")):
        settings += "".join(f"{option}={value}\n" for option, value in (parser.items(section) if parser.has_section(section) else ()))
    yield from (plugin for word, plugin in PLUGINS.items() if word in settings)
    yield from (plugin for pattern, plugin in FIXTURES.items() if tree.grep(pattern, *TEST_CODE))
