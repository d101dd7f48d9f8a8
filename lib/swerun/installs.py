"""Running a spec's own commands: `pre_install` and `install`, offline, with nothing but what the lock put there."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from swerun import downloads, environments, paths, slots, venvs
from swerun.environments import Say
from swerun.errors import Fatal
from swerun.process import MARK, Tick, run_limited, task_env, telling
from swerun.spec import Spec

INSTALL_TIMEOUT = 3600
# pip must take nothing but what the lock put there: no index, no isolated build that would fetch its own
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1",
           "PIP_NO_INPUT": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_CACHE_DIR": "1"}
# read by every distutils from the home folder of a build: what it compiles is kept in the checkout, for the next build to find up to date.
# (An editable install by pip's newer way would compile in a temporary folder, and so everything anew each time.)
KEEP_COMPILED = "[build_ext]\nbuild_temp = build/temp\nbuild_lib = build/lib\n"
CCACHE_SIZE = "1G"
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++")
# a line that says why; pip's own words about the command that failed come after it
REASON = re.compile(r"[\w.]*Error\b|(ERROR|error|fatal error|fatal): (?!subprocess-exited|metadata-gen|legacy-install|Failed building|Could not build)|.*: (fatal )?error: ")
# what a machine lacks, by what compilers and build tools say of it
LACKING = (
    (re.compile(r"(unable to execute|command) '?\S*\b(cc|gcc|g\+\+|c\+\+|clang)'?.*No such file|No such file or directory: '\S*\b(cc|gcc|g\+\+|c\+\+|clang)'|\b(cc|gcc|g\+\+|c\+\+): (command )?not found"),
     "there is no C compiler on PATH"),
    (re.compile(r"fatal error: '?([\w./+-]+\.h(pp)?)'?(: No such file|  *file not found)"), "a header is not on this machine: {0}"),
)


def lacking(said: str) -> str:
    """What a build lacked of the machine, with the way to get it; an empty text where its log does not tell."""
    for pattern, sentence in LACKING:
        found = pattern.search(said)
        if found:
            return f"{sentence.format(found[1])} ('make doctor' names what installs it), "
    return ""


def install(spec: Spec, checkout: Path, venv: Path, env_key: str, log: Path, say: Say) -> None:
    """Run the spec's install command as it stands, offline. Raises Fatal with its last line and its log."""
    downloads.give_home(spec, venv.parent)
    env = venvs.activated(venv, with_ccache(task_env(venv.parent, spec.environment), venv.parent)) | OFFLINE
    build = environments.build_path(env_key)
    if spec.editable():  # where it is copied into the venv, it is taken from where distutils has it by itself
        (venv.parent / ".pydistutils.cfg").write_text(KEEP_COMPILED)
    with slots.slot(say):
        say("installing the project")
        shell(spec.install, checkout, env | ({"PYTHONPATH": str(build)} if build else {}), log, telling(say, "installing the project"))


def with_ccache(env: dict[str, str], place: Path) -> dict[str, str]:
    """An environment in which compilers are called through ccache, where there is one: with the same words, and by their names.

    What a commit compiles is mostly what its neighbours compiled, in another folder: `place` counts for nothing.
    """
    ccache = shutil.which("ccache", path=env["PATH"])
    if not ccache:
        return env
    cache = paths.cache("ccache")
    named = (env[name] for name in ("CC", "CXX") if "/" not in env.get(name, "/") and " " not in env[name])
    for name in {*COMPILERS, *named}:
        link = paths.make_dir(cache / "compilers") / name
        if shutil.which(name, path=env["PATH"]) and not link.exists():  # ccache may have moved
            with contextlib.suppress(FileExistsError):  # another process was faster
                link.unlink(missing_ok=True)
                link.symlink_to(ccache)
    return env | {"PATH": f"{cache}/compilers:{env['PATH']}", "CCACHE_DIR": str(cache), "CCACHE_MAXSIZE": CCACHE_SIZE, "CCACHE_BASEDIR": str(place), "CCACHE_NOHASHDIR": "1"}


def said_since(log: Path, start: int) -> str:
    """What was written into a log after its first `start` bytes."""
    return log.read_bytes()[start:].decode(errors="replace")


def shell(command: str, folder: Path, env: dict[str, str], log: Path, tick: Tick | None = None) -> None:
    with open(log, "ab") as file:
        start = file.tell()
        file.write(f"+ {command}\n".encode())
        file.flush()
        ended = run_limited(["bash", "-c", command], cwd=folder, env=env | {MARK: str(folder.parent)}, timeout=INSTALL_TIMEOUT, stdin=subprocess.DEVNULL,
                            stdout=file, stderr=subprocess.STDOUT, tick=tick)
    if ended.returncode:
        said = said_since(log, start)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        why = "did not end in an hour" if ended.timed_out else next(filter(REASON.match, reversed(lines)), lines[-1])
        raise Fatal(f"'{command[:80]}' failed: {lacking(said)}{why[:300]} (the log is {log})")


def needs_install(spec: Spec, changed: list[str]) -> bool:
    """Whether a patch to these files may change what was built. In doubt, yes: a patch that names none, for one."""
    if not spec.install:
        return False
    return not changed or not spec.editable() or not all(_inert(name) for name in changed)


def _inert(name: str) -> bool:
    """A Python module that only runs when it is imported, or prose; what a build reads is neither."""
    path = Path(name)
    if path.suffix in (".rst", ".md"):
        return True
    return path.suffix == ".py" and not any(part.startswith(("setup", "_setup", "versioneer", "_build")) for part in path.parts) and len(path.parts) > 1
