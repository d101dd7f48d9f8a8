"""What builds would download: fetched once, its checksum looked at; what stands in for it is said in the result."""

import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import ROWS, TOOLKIT, Place

ROW = ROWS["swerun-sample__textkit-19"]
DATA = b"what a build downloads\n" * 1000
SHA = hashlib.sha256(DATA).hexdigest()
DEAD = "http://127.0.0.1:9/given.txt"  # where nobody listens
# a build of a second: no pip, no project; it takes what it was given, and makes a file that a part of a wheel may replace
TINY = ROW["install_config"] | {
    "seed": [], "pip_packages": ["iniconfig==2.0.0"], "pre_install": ["rm -f pyproject.toml setup.py setup.cfg"],
    "install": "cp ~/deep/given.txt got.txt || cp stand-in.txt got.txt; mkdir -p over; echo built > over/__init__.py; echo >> builds.txt",
    "test_cmd": "cat got.txt | wc -c; head -c 99 over/__init__.py; wc -l builds.txt; true"}
WHEEL = {"wheel": "iniconfig==2.0.0", "hashes": ["b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374"], "files": {"iniconfig/__init__.py": "over"}}
OTHERWISE = {"reason": "built from a stand-in", "commands": ["echo stand-in > stand-in.txt"]}


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA, and counts; `stall` holds back the second half, `data` is something else."""

    def __init__(self) -> None:
        self.asked, self.stall, self.data = 0, False, DATA
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(server.data)))
                self.end_headers()
                half = len(server.data) // 2
                self.wfile.write(server.data[:half])
                self.wfile.flush()
                for _ in range(300):
                    if server.stall:
                        time.sleep(0.1)
                self.wfile.write(server.data[half:])

            def log_message(self, *words: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/given.txt"


@pytest.fixture
def server():
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.stall = False
        made.shutdown()


def dataset(folder: Path, *urls: str, **more: object) -> Path:
    """Two tasks at two commits that need the same file."""
    table = {"name": "given.txt", "urls": urls, "sha256": SHA, "to": "~/deep/given.txt"} | more
    file = folder / f"{len(list(folder.glob('*.jsonl')))}.jsonl"
    rows = [row | {"instance_id": f"tiny-{number}", "install_config": TINY | {"downloads": [table]}} for number, row in enumerate((ROW, ROWS["swerun-sample__textkit-14"]))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def kept(place: Place) -> list[str]:
    return sorted(file.name for file in place.artifacts.glob("cache/downloads/*") if file.suffix != ".lock")


def setup(place: Place, tasks: Path, code: int = 0, name: str = "tiny-0") -> str:
    done = place.run("bin/setup-venv", "--dataset", tasks, "--run", "r", name, code=code)
    return done.stderr


def got(place: Place) -> list[bytes]:
    """What each layer's build made of what it was given."""
    return [file.read_bytes() for file in place.artifacts.glob("cache/layers/*/kept/testbed/got.txt")]


def graded(place: Place, tasks: Path, name: str = "tiny-0") -> tuple[dict, str]:
    record = {"instance_id": name, "dataset": str(tasks), "run": "graded", "model_patch": ROW["patch"], "model_name_or_path": "x"}
    made = place.records("bin/run-tests", input=json.dumps(record) + "\n")[0]
    return made["tests"], place.state("graded", name, "test_output.txt")


def test_it_is_fetched_once_for_all_builds_and_for_patched_trees(place: Place, server: Server, tmp_path: Path):
    tasks = dataset(tmp_path, DEAD, server.url)
    place.run("bin/precache", "--jobs", "2", "--dataset", tasks, "tiny-0", "tiny-1")
    assert server.asked == 1 and kept(place) == [f"{SHA}-given.txt"] and got(place) == [DATA, DATA]
    server.shutdown()
    tests, output = graded(place, tasks)
    assert f"\n{len(DATA)}\n" in output and "2 builds.txt" in output  # built again, for a patch touches what it reads
    assert "substitutes" not in tests and server.asked == 1


def test_a_file_url_is_as_good(place: Place, tmp_path: Path):
    (tmp_path / "given.txt").write_bytes(DATA)
    setup(place, dataset(tmp_path, (tmp_path / "given.txt").as_uri()))
    assert got(place) == [DATA]


def test_a_file_with_another_checksum_is_refused_in_one_line_and_not_kept(place: Place, server: Server, tmp_path: Path):
    server.data = b"<html>log in to this network</html>"
    tasks = dataset(tmp_path, server.url, otherwise=OTHERWISE)
    said = setup(place, tasks, code=1).splitlines()
    [line] = [line for line in said if "failed" in line]
    file = place.artifacts / "cache/downloads" / f"{SHA}-given.txt"
    assert SHA in line and hashlib.sha256(server.data).hexdigest() in line and server.url in line and str(file) in line
    assert "Traceback" not in "".join(said) and not kept(place) and not got(place)
    # by hand: the wrong file is not used, the right one is
    file.write_bytes(b"another")
    assert re.search(f"'{file}' is not given.txt: its sha256 is [0-9a-f]+, not {SHA} \\(delete it", setup(place, tasks, code=1))
    file.write_bytes(DATA)
    setup(place, tasks)
    assert got(place) == [DATA] and server.asked == 1


def test_where_it_cannot_be_had_and_nothing_stands_in_one_line_says_what_to_do(place: Place, tmp_path: Path):
    tasks = dataset(tmp_path, DEAD)
    said = setup(place, tasks, code=1)
    file = place.artifacts / "cache/downloads" / f"{SHA}-given.txt"
    assert f"cannot download given.txt: '{DEAD}': " in said and f"put it at '{file}' by hand, its sha256 is {SHA}" in said and "Traceback" not in said
    file.write_bytes(DATA)
    setup(place, tasks)
    assert got(place) == [DATA]


@pytest.mark.parametrize("sources", ("^native/", "^src/"), ids=("a patch leaves the part alone", "a patch changes what the part is made of"))
def test_what_stands_in_is_used_and_said_in_the_result(place: Place, tmp_path: Path, sources: str):
    tasks = dataset(tmp_path, DEAD, otherwise=OTHERWISE | WHEEL | {"sources": sources})
    said = setup(place, tasks)
    sentence = "given.txt could not be downloaded: built from a stand-in"
    assert said.count(sentence) == 1 and got(place) == [b"stand-in\n"]
    [part] = place.artifacts.glob("cache/layers/*/kept/testbed/over/__init__.py")
    assert b"ini-style" in part.read_bytes()
    assert "installing" not in setup(place, tasks)  # good for ever
    tests, output = graded(place, tasks)
    assert tests["substitutes"] == [sentence] and place.state("graded", "tiny-0", "tests.json")["tests"]["substitutes"] == [sentence]
    assert "\n9\n" in output and "2 builds.txt" in output
    assert ("built" in output.split("\n9\n")[1]) == (sources == "^src/")  # patched trees have it too


def test_one_precache_asks_a_dead_server_once(place: Place, server: Server, tmp_path: Path):
    server.RequestHandlerClass.do_GET = lambda self: (setattr(server, "asked", server.asked + 1), self.send_error(404))
    tasks = dataset(tmp_path, server.url, otherwise=OTHERWISE)
    words = ("bin/precache", "--step", "layers", "--dataset", tasks, "tiny-0", "tiny-1")
    place.run("bin/make-worktree", "--dataset", tasks, "--run", "r", "tiny-0", "tiny-1")
    place.run(*words)
    assert server.asked == 1 and got(place) == [b"stand-in\n"] * 2


def test_a_download_that_was_killed_is_done_again(place: Place, server: Server, tmp_path: Path):
    server.stall = True
    tasks = dataset(tmp_path, server.url)
    process = subprocess.Popen([TOOLKIT / "bin/setup-venv", "--dataset", tasks, "--run", "r", "tiny-0"], env=place.env, cwd=TOOLKIT, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    part = place.artifacts / "cache/downloads" / f"{SHA}-given.txt.part"
    limit = time.monotonic() + 60
    while not (part.is_file() and server.asked):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert kept(place) == [part.name] and not got(place)
    server.stall = False
    setup(place, tasks)
    assert kept(place) == [f"{SHA}-given.txt"] and got(place) == [DATA]


def test_a_fact_that_is_misspelt_is_named(place: Place, tmp_path: Path):
    assert "'downloads' of a spec has unknown sha" in setup(place, dataset(tmp_path, DEAD, sha="x"), code=1)
    assert "'otherwise' of a spec lacks reason" in setup(place, dataset(tmp_path, DEAD, otherwise={}), code=1)
    assert "names a wheel without its hashes" in setup(place, dataset(tmp_path, DEAD, otherwise=OTHERWISE | {"wheel": "x==1"}), code=1)
