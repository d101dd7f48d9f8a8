"""Every test drives the real commands as subprocesses, in a HOME, PATH and ARTIFACTS of its own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

TOOLKIT = Path(__file__).resolve().parents[1]
SAMPLE_IDS = [json.loads(line)["instance_id"] for line in (TOOLKIT / "lib/sample/sample.jsonl").read_text().splitlines()]
ROWS = {row["instance_id"]: row for row in map(json.loads, (TOOLKIT / "lib/sample/sample.jsonl").read_text().splitlines())}

# the guard: a command that a test starts outside its sealed place cannot make or change any state
os.environ["ARTIFACTS"] = "/dev/null/no-test-touches-the-real-artifacts"


class Place:
    """A sealed HOME, PATH and ARTIFACTS, and the commands run in them."""

    def __init__(self, root: Path, uv_cache: Path):
        self.root, self.home, self.artifacts = root, root / "home", root / "artifacts"
        self.home.mkdir(parents=True, exist_ok=True)
        self.env = {name: os.environ[name] for name in os.environ if name.endswith(("_PROXY", "_proxy")) or "SSL_CERT" in name or name.startswith(("UV_INDEX", "UV_DEFAULT_INDEX"))}
        self.env |= {"HOME": str(self.home), "PATH": os.environ["PATH"], "ARTIFACTS": str(self.artifacts), "UV_CACHE_DIR": str(uv_cache), "LANG": "C.UTF-8"}
        # pyenv's interpreters are found through its root, which is in the real HOME
        self.env["PYENV_ROOT"] = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))

    def run(self, *words: str | Path, input: str | bytes | None = None, code: int | None = 0, cwd: Path | None = None, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
        """Run a command (`bin/tasks` and `scripts/plan` are found in the toolkit) and demand its exit code; None takes any."""
        first = str(words[0])
        command = [str(TOOLKIT / first) if first.startswith(("bin/", "scripts/", "./")) else first, *map(str, words[1:])]
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(command, input=data, stdin=subprocess.DEVNULL if data is None else None, capture_output=True, cwd=cwd or TOOLKIT, timeout=timeout, env=self.env | env)
        done.stdout, done.stderr = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        assert code is None or done.returncode == code, f"{command} gave {done.returncode}, not {code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def records(self, *words: str | Path, **more: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*words, **more).stdout.split("\n") if line]

    def make(self, *words: str, **more: Any) -> subprocess.CompletedProcess:
        return self.run("make", "-C", str(TOOLKIT), *words, **more)

    def state(self, run: str, instance_id: str, name: str) -> Any:
        file = self.artifacts / "runs" / run / instance_id / name
        return json.loads(file.read_text()) if name.endswith(".json") else file.read_text()


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloads are shared by the tests of a session (and with the caller's, who may name a cache)."""
    return Path(os.environ.get("UV_CACHE_DIR") or tmp_path_factory.mktemp("uv"))


@pytest.fixture
def place(tmp_path: Path, uv_cache: Path) -> Place:
    """An empty place: no mirror, no environment, no run."""
    return Place(tmp_path, uv_cache)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> Place:
    """A place in which the sample is precached; tests share it, each with a run name of its own."""
    made = Place(tmp_path_factory.mktemp("warm"), uv_cache)
    made.run("make", "-C", str(TOOLKIT), "precache", "-j2", DATASET="sample", timeout=600)
    return made


@pytest.fixture
def agent(tmp_path: Path):
    """Make an executable agent from the lines of a shell script."""

    def make(script: str, name: str = "an-agent") -> Path:
        file = tmp_path / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)
        return file

    return make


@pytest.fixture
def git_repository(tmp_path: Path):
    """Make a real repository: git_repository(name, commits) -> (path, [commit ids])."""

    def make(name: str, commits: list[dict[str, str | None]]) -> tuple[Path, list[str]]:
        folder = tmp_path / "repositories" / name
        folder.mkdir(parents=True)
        env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
        who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "A"), ("EMAIL", "a@example.com"))}

        def git(*words: str, **more: str) -> str:
            return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, env=env | who | more).stdout.strip()

        git("init", "-q", "-b", "main")
        ids = []
        for number, files in enumerate(commits):
            for path, text in files.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True) if text is None else target.write_text(text)
            git("add", "-A")
            date = f"2020-01-{number % 28 + 1:02d}T12:00:00Z"
            git("commit", "-q", "--allow-empty", "-m", f"commit {number}", GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
            ids.append(git("rev-parse", "HEAD"))
        return folder, ids

    return make


__all__ = ["Place", "ROWS", "SAMPLE_IDS", "TOOLKIT"]
