"""The venvs of tasks: each one's own, standing on a shared environment, made in milliseconds."""

import os
import shutil
from pathlib import Path

from swerun import paths
from swerun.environments import site_packages
from swerun.state import remove_tree

# pip carries copies of other projects inside; where the task is about one of those, a later copy would show its fix
MASKED = "pip is masked in this environment: it carries a later copy of what the repository is about"


def make(venv: Path, env_key: str) -> Path:
    """A venv of the task's own that stands on a shared environment: what is installed in it shadows the shared package.

    It holds what `uv venv` makes, the shared entry points made anew, and one .pth line.
    """
    shared = paths.environment(env_key) / "venv"
    remove_tree(venv)
    paths.make_dir(venv / "bin")
    shutil.copyfile(shared / "pyvenv.cfg", venv / "pyvenv.cfg")
    old, new = str(shared).encode(), str(venv).encode()
    for entry in os.scandir(shared / "bin"):
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), venv / "bin" / entry.name)
            continue
        with open(entry.path, "rb") as file:
            data = file.read(65536)
            if b"\0" in data:
                os.symlink(entry.path, venv / "bin" / entry.name)
                continue
            data += file.read()
        target = venv / "bin" / entry.name
        target.write_bytes(startable(data.replace(old, new)))
        target.chmod(0o755)
    packages = site_packages(shared)
    own = paths.make_dir(venv / packages.relative_to(shared))
    for name in ("_virtualenv.py", "_virtualenv.pth"):
        if (packages / name).is_file():
            shutil.copyfile(packages / name, own / name)
    if not (packages / "pip").is_dir():
        _mask_pip(venv, own)
    # addsitedir, unlike a plain line, also runs the .pth files of the shared packages
    # last of all by its name: what another .pth file adds, that of an editable install for one, shadows what is shared
    (own / "zzzz_shared_environment.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    return venv


def startable(data: bytes) -> bytes:
    """A script whose first line the kernel takes: it cuts one at 255 characters, an old one at 127. As pip and uv do it."""
    line, _, rest = data.partition(b"\n")
    if len(line) <= 127 or not line.startswith(b"#!/"):
        return data
    return b"#!/bin/sh\n'''exec' " + line[2:] + b' "$0" "$@"\n' + b"' '''\n" + rest


def _mask_pip(venv: Path, own: Path) -> None:
    """Say why there is no pip, to whoever runs it."""
    paths.make_dir(own / "pip")
    (own / "pip" / "__init__.py").write_text("")
    (own / "pip" / "__main__.py").write_text(f"raise SystemExit({MASKED!r})\n")
    for name in ("pip", "pip3"):
        (venv / "bin" / name).write_text(f"#!/bin/sh\necho '{MASKED}' >&2\nexit 1\n")
        (venv / "bin" / name).chmod(0o755)


def activated(venv: Path, base: dict[str, str]) -> dict[str, str]:
    """An environment in which the venv's commands come first, as after `activate`."""
    return base | {"VIRTUAL_ENV": str(venv), "PATH": f"{venv}/bin:{base.get('PATH', os.defpath)}"}
