"""Services: what tests ask for under names of the internet is answered on this machine, and ends with them."""

import difflib
import json
import os
import re
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import ROWS, Place
from test_kill import alive, end, started, until

TEXT = "swerun-sample__textkit-19"
ASKING = '''
import json, os, socket, ssl, subprocess, sys, threading, time, urllib.error, urllib.request

import pytest


def get(url, **more):
    with urllib.request.urlopen(url, timeout=20, **more) as answer:
        return json.load(answer)


def test_the_address_in_the_environment():
    assert get(os.environ["HTTPBIN_URL"] + "get?a=1")["args"] == {"a": "1"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_in_the_code(scheme):
    assert get(scheme + "://httpbin.org/get")["url"] == scheme + "://httpbin.org/get"
    assert get(scheme + "://httpbin.org/redirect/2")["url"] == scheme + "://httpbin.org/get"


def test_who_trusts_nobody_does_not_trust_it():
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get("https://httpbin.org/get", context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_another_host():
    assert get("http://elsewhere.example/get")["headers"]["Host"] == "elsewhere.example"


def test_a_process():
    asks = "import urllib.request; print(urllib.request.urlopen('https://httpbin.org/status/200').status)"
    assert subprocess.check_output([sys.executable, "-c", asks]) == b"200\\n"


def test_sockets():
    with socket.socket() as one:
        one.connect(("httpbin.org", 80))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("httpbin.org", 1), 20)
    with pytest.raises(socket.gaierror):
        socket.create_connection(("nosuch.httpbin.org", 80), 20)


@pytest.mark.parametrize("seconds", [0.1, 1.5])
def test_nothing_answers_there(seconds):
    start = time.monotonic()
    with pytest.raises(socket.timeout):
        socket.create_connection(("10.255.255.1", 80), seconds)
    assert seconds <= time.monotonic() - start < seconds + 5


def test_forty_at_once():
    asking = [threading.Thread(target=get, args=("http://httpbin.org/delay/1",)) for _ in range(40)]
    start = time.monotonic()
    [one.start() for one in asking]
    [one.join() for one in asking]
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("name", ["httpbin", "flask", "trustme"])
def test_nothing_of_it_can_be_imported(name):
    with pytest.raises(ImportError):
        __import__(name)
'''
NAMES = [
    "test_the_address_in_the_environment", "test_an_address_in_the_code[http]", "test_an_address_in_the_code[https]", "test_who_trusts_nobody_does_not_trust_it",
    "test_another_host", "test_a_process", "test_sockets", "test_nothing_answers_there[0.1]", "test_nothing_answers_there[1.5]", "test_forty_at_once",
    *(f"test_nothing_of_it_can_be_imported[{name}]" for name in ("httpbin", "flask", "trustme"))]
SERVICES = ["httpbin", "httpbin@elsewhere.example", "tarpit"]


def dataset(folder: Path, rows: dict[str, dict]) -> Path:
    """Rows whose tests are those above, by name, each with more for its install_config."""
    new = "".join(difflib.unified_diff([], ASKING.splitlines(keepends=True), "/dev/null", "b/tests/test_asking.py"))
    patch = f"diff --git a/tests/test_asking.py b/tests/test_asking.py\nnew file mode 100644\n{new}"
    found = {"test_patch": patch, "FAIL_TO_PASS": [f"tests/test_asking.py::{name}" for name in NAMES], "PASS_TO_PASS": []}
    config = ROWS[TEXT]["install_config"]
    made = [ROWS[TEXT] | found | {"instance_id": name, "install_config": config | {"services": SERVICES} | more} for name, more in rows.items()]
    file = folder / "asking.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return file


@pytest.fixture(scope="module")
def served(warm: Place) -> Place:
    """A place in which the environment of the services is built, by precache."""
    done = warm.run("bin/precache", "--dataset", dataset(warm.root, {"first": {}}), "first")
    assert "service httpbin: building environment" in done.stderr
    assert "building" not in warm.run("bin/precache", "--dataset", warm.root / "asking.jsonl", "first").stderr
    return warm


def test_two_tasks_at_once_have_each_their_own_services(served: Place, tmp_path: Path):
    meet = f'echo "$SWERUN_REDIRECT" >{tmp_path}/$$; for i in {{1..200}}; do [ $(ls {tmp_path} | wc -l) -lt 3 ] || break; sleep 0.1; done'
    rows = dataset(tmp_path, {name: {"eval_commands": [meet]} for name in ("one", "two")})
    served.make("run", "-j2", DATASET=str(rows), AGENT="gold", RUN="asking", TEST_JOBS="2")
    for name in ("one", "two"):
        assert served.state("asking", name, "tests.json")["resolved"], served.state("asking", name, "test_output.txt")
    told = [file.read_text().split() for file in tmp_path.glob("[0-9]*")]
    assert [sorted(one.partition("=")[0] for one in redirects) for redirects in told] == 2 * [
        ["10.255.255.1", "elsewhere.example:443", "elsewhere.example:80", "httpbin.org:443", "httpbin.org:80"]]
    assert not {one.rpartition(":")[2] for one in told[0]} & {one.rpartition(":")[2] for one in told[1]}
    assert alive(served, "asking") == []


def test_tests_without_services_are_told_of_none(served: Place, tmp_path: Path):
    rows = dataset(tmp_path, {"plain": {"services": [], "test_cmd": "env; ls $VIRTUAL_ENV/lib/*/site-packages; true"}})
    served.run("bin/run-tests", "--dataset", rows, "--run", "plain", input=served.run("bin/run-agent", "--dataset", rows, "--agent", "gold", "--run", "plain", "plain").stdout)
    said = served.state("plain", "plain", "test_output.txt")
    assert "VIRTUAL_ENV=" in said and "swerun_redirect" not in said.lower() and "HTTPBIN" not in said


def test_an_agent_can_run_these_tests_whatever_proxy_it_has(served: Place, tmp_path: Path, agent):
    rows = dataset(tmp_path, {"agents": {}})
    asks = agent("""python -c "import urllib.request as r; print(r.urlopen('https://httpbin.org/status/200').status, r.urlopen('http://httpbin.org/status/200').status)" >answer.txt""")
    proxy = {name: "http://127.0.0.1:1" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    [record] = served.records("bin/run-agent", "--dataset", rows, "--agent", asks, "--run", "agents", "agents", **proxy)
    assert "+200 200" in record["model_patch"]
    assert alive(served, "agents") == []


def test_services_end_with_a_run_that_is_killed_and_with_tests_that_time_out(served: Place, tmp_path: Path):
    rows = dataset(tmp_path, {"slow": {"eval_commands": [f"touch {tmp_path}/begun; sleep 600"]}})
    served.run("bin/run-agent", "--dataset", rows, "--agent", "gold", "--run", "ending", "slow")
    words = ("bin/run-tests", "--dataset", str(rows), "--run", "ending", "slow")
    run = started(served, *words)
    until((tmp_path / "begun").exists)
    services = lambda: [name for name in alive(served, "ending") if "serve.py" in name]
    assert len(services()) == 2
    end(run, signal.SIGKILL, whole_group=False)
    until(lambda: services() == [], 5)
    [record] = served.records(*words, "--test-timeout", "1")
    assert record["tests"]["status"] == "timeout" and alive(served, "ending") == []


@pytest.mark.parametrize("services, said", [(["nosuch"], "no service 'nosuch' (there are httpbin, tarpit, and each with '@host')"),
                                            (["httpbin@a b"], "no service 'httpbin@a b' ("), ("httpbin", "'services' is a list of names, not 'httpbin' (")])
def test_a_service_that_there_is_not_is_named_in_a_line(served: Place, tmp_path: Path, services, said: str):
    rows = dataset(tmp_path, {"unknown": {"services": services}})
    for command in ("bin/setup-venv", "bin/precache"):
        done = served.run(command, "--dataset", rows, "--run", "unknown", "unknown", code=1)
        [line] = [line for line in done.stderr.splitlines() if "service" in line and "ready" not in line][:1]
        assert f"unknown: failed: {said}" in line and "Traceback" not in done.stderr


def test_a_service_that_does_not_start_is_no_outcome_and_says_why(served: Place, tmp_path: Path):
    alone = ("unshare", "--user", "--net")  # a network without even a loopback interface
    if subprocess.run([*alone, "true"], capture_output=True, env=os.environ).returncode:
        pytest.skip("cannot make a network namespace here")
    rows = dataset(tmp_path, {"cut-off": {"services": ["tarpit"]}})
    served.run("bin/run-agent", "--dataset", rows, "--agent", "gold", "--run", "cut", "cut-off")
    done = served.run(*alone, Path(__file__).parents[1] / "bin/run-tests", "--dataset", rows, "--run", "cut", "cut-off", code=1)
    [line] = [line for line in done.stderr.splitlines() if "service" in line]
    assert "cut-off: failed: service 'tarpit' does not start: it ended: " in line and "log.txt)" in line
    assert not (served.artifacts / "runs/cut/cut-off/tests.json").exists()


def test_specs_name_services_that_there_are_and_mark_with_a_reason_what_needs_the_internet():
    from swerun import paths, services, spec

    marked = 0
    for file in paths.SPECS.glob("[!_]*.toml"):
        table = tomllib.loads(file.read_text())
        for version in {version for one in table["official"] for version in one["versions"]}:
            made = spec.from_tables(table["repo"], version)
            services.named(made)
            for one in made.internet:
                assert one.keys() == {"tests", "reason"} and re.compile(one["tests"]) and one["reason"], f"{file.name}: {one}"
                marked += 1
    assert marked
