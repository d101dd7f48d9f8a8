"""What tests talk to, on this machine's loopback interface for as long as they run: `services` of a spec names folders of lib/services.

A service is a folder with `service.toml` (`host`, what tests call it; `python`, `packages` and `exclude_newer` of an environment of its own, else
the toolkit's Python runs it) and `serve.py`, which is given the hosts that it stands for. Once it listens it prints one JSON line: `ports`
({port of the host, or "" for all: port of 127.0.0.1}), and if it has them `trust` (a file of certificates) and `environment` (variables).
lib/services/redirect.py leads tests there.
"""

import contextlib
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, Iterator, Mapping

import orjson

from swerun import environments, paths
from swerun.environments import Say
from swerun.errors import Fatal
from swerun.locks import Lock
from swerun.process import MARK, die_with_parent, task_env
from swerun.spec import Spec

START_TIMEOUT = 20.0  # seconds
HOST = re.compile(r"[\w.-]+")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def named(spec: Spec) -> dict[str, list[str]]:
    """The services of a spec, each with the hosts that it stands for: "httpbin" is its own, "httpbin@example.com" another beside."""
    known = sorted(file.parent.name for file in paths.SERVICES.glob("*/service.toml"))
    if not isinstance(spec.services, list):
        raise Fatal(f"'services' is a list of names, not {spec.services!r} (there are {', '.join(known)})")
    found: dict[str, list[str]] = {}
    for name, at, host in (str(one).partition("@") for one in spec.services):
        if name not in known or (at and not HOST.fullmatch(host)):
            raise Fatal(f"no service '{name}{at}{host}' (there are {', '.join(known)}, and each with '@host')")
        found.setdefault(name, []).append(host or _facts(name)["host"])
    return found


def _facts(name: str) -> dict[str, Any]:
    return tomllib.loads((paths.SERVICES / name / "service.toml").read_text())


def lock(name: str) -> Lock | None:
    """What a service's own environment holds; None where it needs nothing but Python."""
    facts = _facts(name)
    return Lock(facts["python"], facts["packages"], [], facts["exclude_newer"]) if "packages" in facts else None


def missing(spec: Spec) -> list[str]:
    """The services of a spec whose environments are not there."""
    return [name for name in named(spec) if (own := lock(name)) and environments.why_not(own.key())]


def prepare(spec: Spec, say: Say = lambda text: None) -> None:
    """Build the environments of a spec's services. Never under a CPU slot, for it waits for a lock."""
    for name in named(spec):
        own = lock(name)
        if own:
            log = paths.make_dir(paths.cache("logs")) / f"service-{name}.log"
            environments.ensure(own, lambda text: say(f"service {name}: {text}"), log)


class _Service:
    """A service that was started: its process, and what it said."""

    def __init__(self, name: str, hosts: list[str], place: Path):
        own = lock(name)
        python = str(paths.environment(own.key()) / "venv" / "bin" / "python") if own else sys.executable
        folder = paths.make_dir(place / "services" / name)
        self.hosts, self.name, self.log = hosts, name, folder / "log.txt"
        with open(self.log, "wb") as log:
            try:
                # a session of its own: what is typed at a terminal is not for it
                self.process = subprocess.Popen((python, "-I", str(paths.SERVICES / name / "serve.py"), *hosts), cwd=folder, env=task_env(folder, {MARK: str(place)}),
                                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True, preexec_fn=die_with_parent)
            except OSError as error:
                raise Fatal(f"service '{name}' does not start: {error.strerror}: '{python}' (run 'make precache' first)") from None

    def facts(self) -> dict[str, Any]:
        """What it says once it listens. Raises Fatal where it does not in time."""
        end, told = time.monotonic() + START_TIMEOUT, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not told.endswith(b"\n") and selector.select(max(0.0, end - time.monotonic())):
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    break
                told += data
        if not told.endswith(b"\n"):
            why = "it ended" if time.monotonic() < end else f"it says nothing for {START_TIMEOUT:.0f} s"
            lines = self.log.read_text(errors="replace").split("\n")
            said = next((line.strip() for line in reversed(lines) if line.strip()), "")
            raise Fatal(f"service '{self.name}' does not start: {why}{f': {said[:200]}' if said else ''} (the log is {self.log})")
        return orjson.loads(told)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # who ends a task's processes ends this one, too
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def running(spec: Spec, venv: Path, place: Path, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run a spec's services; gives `env` with what leads the Python of this venv to them. Their processes end with the caller's.

    `place` is the task's: their folders are in it, and their processes carry its mark. Their environments are there (prepare).
    """
    with contextlib.ExitStack() as ends:
        started = []
        for name, hosts in named(spec).items():
            service = _Service(name, hosts, place)
            ends.callback(service.end)
            started.append(service)
        yield _environment([(service.hosts, service.facts()) for service in started], venv, env) if started else dict(env)


def _environment(told: list[tuple[list[str], dict[str, Any]]], venv: Path, env: Mapping[str, str]) -> dict[str, str]:
    packages = environments.site_packages(venv)
    shutil.copyfile(paths.SERVICES / "redirect.py", packages / "_swerun_redirect.py")
    (packages / "_swerun_redirect.pth").write_text("import _swerun_redirect\n")
    made, redirects = dict(env), []
    for hosts, facts in told:
        made |= facts.get("environment") or {}
        redirects += [f"{host}{port and ':'}{port}=127.0.0.1:{to}" for host in hosts for port, to in facts["ports"].items()]
    made["SWERUN_REDIRECT"] = " ".join(redirects)
    made["SWERUN_TRUST"] = " ".join(facts["trust"] for _, facts in told if facts.get("trust"))
    if any(made.get(name) for proxy in PROXIES for name in (proxy, proxy.upper())):
        for name in ("no_proxy", "NO_PROXY"):
            made[name] = ",".join(filter(None, (made.get(name), *(host for hosts, _ in told for host in hosts))))
    return made
