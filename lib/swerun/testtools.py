"""Packages that tests use, by the names that tests and their settings give away."""

import re

# what a project is kept tidy and published with: big, often in conflict, and of no use to a test that does not import it
TOOLS = re.compile(
    r"(flake8|mypy|types|pylint|sphinx|sphinxcontrib|mkdocs|jupyter|zest)([-.].*)?|black|isort|ruff|bandit|safety|pyright|autopep8|autoflake"
    r"|pyupgrade|pydocstyle|pycodestyle|doc8|tox|nox|pre-commit|coveralls|codecov|tbump|towncrier|twine|bumpversion|bump2version|commitizen"
    r"|check-manifest|furo|myst-parser|ipython|notebook|wheel|build|pip|contributors-txt")
# what an import is called and what it comes in, where the two differ
DISTRIBUTIONS = {
    "yaml": "pyyaml", "PIL": "pillow", "attr": "attrs", "dateutil": "python-dateutil", "sklearn": "scikit-learn", "skimage": "scikit-image",
    "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "factory": "factory-boy", "vcr": "vcrpy", "OpenSSL": "pyopenssl", "jwt": "pyjwt",
    "dotenv": "python-dotenv", "serial": "pyserial", "zmq": "pyzmq", "Crypto": "pycryptodome", "git": "gitpython", "docx": "python-docx",
    "rest_framework": "djangorestframework", "ruamel": "ruamel.yaml", "google": "protobuf", "usb": "pyusb",
}
# what tests import first of all and their projects forget to name; nothing else is taken by its import's name alone
KNOWN = frozenset("""
    aiohttp anyio attrs beautifulsoup4 coverage cryptography ddt django docutils factory-boy faker flask freezegun httpretty httpx hypothesis
    jinja2 lxml matplotlib mock moto nose numpy packaging pandas parameterized pexpect pillow psutil pyfakefs python-dateutil pytz pyyaml
    requests requests-mock respx responses scipy setuptools simplejson six sqlalchemy sybil syrupy testfixtures time-machine toml tomli trio
    trustme typing-extensions unittest2 vcrpy webtest""".split())
# of the standard library of Python 2, or of an older Python 3 than the one that this runs with
GONE = {"imp", "distutils", "asyncore", "asynchat", "smtpd", "StringIO", "urllib2", "ConfigParser", "Queue", "cPickle", "__builtin__", "builtins"}
# by what pytest's own settings say, in small letters: without its plugin pytest stops at an option that it does not know
PLUGINS = {
    "--cov": "pytest-cov", "--numprocesses": "pytest-xdist", "-n auto": "pytest-xdist", "--dist": "pytest-xdist", "asyncio_mode": "pytest-asyncio",
    "--timeout": "pytest-timeout", "timeout=": "pytest-timeout", "--benchmark": "pytest-benchmark", "--mpl": "pytest-mpl",
    "--reruns": "pytest-rerunfailures", "--flake8": "pytest-flake8", "--mypy": "pytest-mypy", "--black": "pytest-black",
    "--doctest-plus": "pytest-doctestplus", "--snapshot": "syrupy", "--isort": "pytest-isort", "--disable-socket": "pytest-socket",
    "django_settings_module": "pytest-django", "--randomly-seed": "pytest-randomly", "--html": "pytest-html", "--forked": "pytest-forked",
}
# by what the code of tests says
FIXTURES = {
    r"\bmocker\b": "pytest-mock", r"pytest\.mark\.asyncio\b": "pytest-asyncio", r"pytest\.mark\.timeout\b": "pytest-timeout",
    r"\bhttpx_mock\b": "pytest-httpx", r"\brequests_mock\b": "requests-mock", r"\bhttpserver\b": "pytest-httpserver",
    r"pytest\.mark\.django_db\b": "pytest-django", r"pytest\.mark\.flaky\b": "pytest-rerunfailures", r"\bfile_regression\b": "pytest-regressions",
    r"pytest\.mark\.remote_data\b": "pytest-remotedata", r"pytest\.mark\.trio\b": "pytest-trio", r"pytest\.mark\.freeze_time\b": "pytest-freezegun",
}
