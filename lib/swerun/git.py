"""git's command line, called one way: no configuration but ours, no variables of the caller's, no questions."""

import os
import subprocess
from pathlib import Path
from typing import Mapping

from swerun.process import Tick, clean_env, run

LOCAL = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def environment(*trusted: Path | str, remote: bool = False) -> dict[str, str]:
    """git's environment. A remote needs the user's own configuration (proxies, credentials), a checkout must not have it."""
    env = clean_env({"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"} | ({} if remote else LOCAL))
    # git refuses a repository that somebody else owns, a mirror shared by a group for one
    for number, path in enumerate(trusted):
        env |= {f"GIT_CONFIG_KEY_{number}": "safe.directory", f"GIT_CONFIG_VALUE_{number}": str(path)}
    # where a folder is no repository, git must not take one that it lies in (the toolkit's own, for one)
    ceiling = {"GIT_CEILING_DIRECTORIES": os.path.dirname(trusted[0])} if trusted else {}
    return env | ceiling | {"GIT_CONFIG_COUNT": str(len(trusted))}


def git(folder: Path, *words: str | Path, input: bytes | None = None, check: bool = True, remote: bool = False,
        env: Mapping[str, str] | None = None, trusted: tuple[Path | str, ...] = (), tick: Tick | None = None) -> subprocess.CompletedProcess:
    """Run git in a folder. Raises CommandFailed with git's own reason."""
    made = environment(folder, *trusted, remote=remote) | dict(env or {})
    return run("git", "-C", folder, *words, input=input, check=check, env=made, tick=tick)
