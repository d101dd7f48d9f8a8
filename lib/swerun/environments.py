"""Shared environments, one a lock, built once and never written again; and the venvs of tasks, which stand on them."""

import os
import shutil
from pathlib import Path
from typing import Callable

from swerun import locks, paths, process
from swerun.locks import Lock
from swerun.state import locked, read_json, remove_tree, write_json


def is_complete(env_key: str) -> bool:
    """Whether the environment is there whole, where it was built (it holds its own path), and its interpreter still is."""
    folder = paths.environment(env_key)
    made = read_json(folder / "complete.json")
    return made is not None and made["folder"] == str(folder) and os.path.exists(made["python"])


def ensure(lock: Lock, say: Callable[[str], None] = lambda text: None) -> str:
    """Build the environment of a lock if it is not there; returns its key. Built in place: a venv holds its own path."""
    key = lock.key()
    folder = paths.environment(key)
    if is_complete(key):
        return key
    with locked(folder.with_suffix(".lock"), lambda: say("waiting for another process that builds its environment")):
        if not is_complete(key):
            say(f"building environment {key} ({len(lock.packages)} packages)")
            remove_tree(folder)
            paths.make_dir(folder)
            (folder / "lock.txt").write_text("\n".join([*lock.packages, ""]))
            (folder / "build.txt").write_text("\n".join([*lock.build, ""]))
            locks.uv("venv", "--quiet", "--python", lock.python, folder / "venv")
            python = folder / "venv" / "bin" / "python"
            install = ("pip", "install", "--quiet", "--no-deps", "--python", python)
            locks.uv(*install, "-r", folder / "lock.txt")
            if lock.build:
                locks.uv(*install, "--target", folder / "build", "-r", folder / "build.txt")
            # uv's own --compile-bytecode needs Python 3.7; files that do not compile (templates, Python 2) are meant not to
            process.run(python, "-I", "-m", "compileall", "-qq", site_packages(folder / "venv"), check=False)
            write_json(folder / "complete.json", {"folder": str(folder), "python": lock.python, "packages": lock.packages, "build": lock.build})
    return key


def build_path(env_key: str) -> Path | None:
    """Where the packages lie that only builds see."""
    folder = paths.environment(env_key) / "build"
    return folder if folder.is_dir() else None


def make_venv(venv: Path, env_key: str) -> Path:
    """A venv of the task's own that stands on a shared environment: what is installed in it shadows the shared package.

    It holds what `uv venv` makes, the shared entry points made anew, and one .pth line.
    """
    shared = paths.environment(env_key) / "venv"
    remove_tree(venv)
    paths.make_dir(venv / "bin")
    shutil.copy2(shared / "pyvenv.cfg", venv / "pyvenv.cfg")
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
        target.write_bytes(data.replace(old, new))
        target.chmod(0o755)
    packages = site_packages(shared)
    own = paths.make_dir(venv / packages.relative_to(shared))
    for name in ("_virtualenv.py", "_virtualenv.pth"):
        if (packages / name).is_file():
            shutil.copyfile(packages / name, own / name)
    # addsitedir, unlike a plain line, also runs the .pth files of the shared packages
    (own / "_shared_environment.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    return venv


def site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python*")) / "site-packages"


def activated(venv: Path, base: dict[str, str]) -> dict[str, str]:
    """An environment in which the venv's commands come first, as after `activate`."""
    return base | {"VIRTUAL_ENV": str(venv), "PATH": f"{venv}/bin:{base.get('PATH', os.defpath)}"}
