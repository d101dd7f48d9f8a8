"""What builds would download: fetched once, its checksum verified, and given to each build; and what stands in where it cannot be had.

A spec's `downloads` is a list of tables, of which each is one file:

    name = "freetype-2.6.1.tar.gz"
    urls = ["https://…", "https://…"]           # tried in turn; file:// too
    sha256 = "0a3c…"
    to = "~/.cache/matplotlib/0a3c…"             # where the build looks for it: in its HOME (~/), else in the checkout
    otherwise = {…}                              # where none of the urls answers; without it the build fails, and says how to mend it

What `otherwise` may hold. Whatever of it was used is said while building, and is in each result (`tests.substitutes`):

    reason = "…"                                 # ends the sentence 'freetype-2.6.1.tar.gz could not be downloaded: …'
    commands = ["…"]                             # run after the spec's pre_install, in the checkout
    wheel = "matplotlib==3.7.1"                  # a release of which compiled parts are put over the built ones
    hashes = ["a867…"]                           # its sha256, one for each platform
    files = { "matplotlib/ft2font.*.so" = "lib/matplotlib" }   # which, and into which folder of the checkout
    sources = "^src/ft2font"                     # a patch to one of these: then what is built is left as it is
"""

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable, NamedTuple

from swerun import paths
from swerun.errors import Fatal
from swerun.spec import Spec
from swerun.state import locked, remove_tree, require_space
from swerun.uv import uv

Say = Callable[[str], None]
Table = dict[str, Any]
PATIENCE = 10.0     # seconds until a server has to answer, and between two of its packets
FORGOTTEN = 3600.0  # seconds after which a failure does not count any more
KEYS = {"name", "urls", "sha256", "to"}, {"otherwise"}
OTHERWISE = {"reason"}, {"commands", "wheel", "hashes", "files", "sources"}


class Given(NamedTuple):
    """What a build was given in place of what it could not have."""

    substitutes: list[str]  # a sentence for each
    commands: list[str]     # still to be run
    wheels: list[Table]     # `otherwise` tables whose files are still to be put over the built ones


def prepare(spec: Spec, checkout: Path, home: Path, say: Say) -> Given:
    """Fetch what the spec names and put it where the build looks for it. Raises Fatal where one is not to be had, and nothing stands in."""
    given = Given([], [], [])
    for table in spec.downloads:
        _check(table)
        file, why = fetch(table, say)
        if file:
            _copy(file, table["to"], checkout, home)
            continue
        if "otherwise" not in table:
            raise Fatal(f"cannot download {table['name']}: {why} (put it at '{cached(table)}' by hand, its sha256 is {table['sha256']})")
        given.substitutes.append(f"{table['name']} could not be downloaded: {' '.join(table['otherwise']['reason'].split())}")
        given.commands.extend(table["otherwise"].get("commands", ()))
        if "wheel" in table["otherwise"]:
            given.wheels.append(table["otherwise"])
        say(f"{given.substitutes[-1]} (or put it at '{cached(table)}' by hand before a project is built)")
    return given


def give_home(spec: Spec, home: Path) -> None:
    """Put what was fetched before into the HOME of a later build; what lies in the checkout came with the layer."""
    for table in spec.downloads:
        if table["to"].startswith("~/") and (file := cached(table)).is_file():
            _copy(_verified(file, table), table["to"], home, home)


def put_over(given: Given, checkout: Path, python: Path, scratch: Path, log: Path) -> dict[str, str]:
    """Put compiled parts of releases over the built ones; returns the files, and the pattern of each one's sources."""
    done: dict[str, str] = {}
    for table in given.wheels:
        remove_tree(scratch)
        wanted = paths.make_dir(scratch.parent) / f"{scratch.name}.txt"
        wanted.write_text(" ".join([table["wheel"], *(f"--hash=sha256:{digest}" for digest in table["hashes"])]) + "\n")
        uv("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--link-mode", "copy",
           "--python", python, "--target", scratch, "-r", wanted, log=log)
        for pattern, folder in table["files"].items():
            found = sorted(scratch.glob(pattern))
            if not found:
                raise Fatal(f"the wheel of {table['wheel']} has no '{pattern}' (mend 'downloads' of the spec)")
            for file in found:
                _write(file, checkout / folder / file.name)
                done[os.path.normpath(f"{folder}/{file.name}")] = table.get("sources", "")
        remove_tree(scratch)
    return done


def kept_parts(manifest: Table, checkout: Path, changed: list[str]) -> dict[str, bytes]:
    """The parts that stand in for built ones, to be put back after a patched tree was built, unless it changes what they are made of."""
    return {name: (checkout / name).read_bytes() for name, sources in manifest.get("put_over", {}).items()
            if (checkout / name).is_file() and not (sources and any(re.search(sources, one) for one in changed))}


def cached(table: Table) -> Path:
    return paths.cache("downloads") / f"{table['sha256']}-{table['name']}"


def fetch(table: Table, say: Say = lambda text: None) -> tuple[Path | None, str]:
    """(the file, "") or (None, why not). Raises Fatal where what there is has another checksum."""
    file = cached(table)
    require_space(paths.make_dir(file.parent))
    with locked(file.with_name(file.name + ".lock"), lambda: say(f"waiting for another process that downloads {table['name']}")):
        if file.is_file():
            return _verified(file, table), ""
        failed, part = file.with_name(file.name + ".failed"), file.with_name(file.name + ".part")
        why = _failed_just_now(failed)
        if why:
            return None, why
        say(f"downloading {table['name']}")
        wrong = ""
        for url in table["urls"]:
            try:
                _get(url, part)
            except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: not a URL
                why = f"'{url}': {getattr(error, 'reason', None) or error}"
                continue
            found = _digest(part)
            if found == table["sha256"]:
                os.rename(part, file)
                failed.unlink(missing_ok=True)
                return file, ""
            wrong = f"'{url}' gave a file whose sha256 is {found}, not {table['sha256']} (it was not kept; put the right one at '{file}' by hand)"
        part.unlink(missing_ok=True)
        if wrong:
            raise Fatal(wrong)
        failed.write_text(f"{_who()}\n{why}")
        return None, why


def _get(url: str, part: Path) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "curl"}), timeout=PATIENCE) as answer, open(part, "wb") as target:
        shutil.copyfileobj(answer, target)
        size = answer.headers.get("Content-Length")
        if size and int(size) != target.tell():
            raise OSError(f"the connection ended after {target.tell()} of {size} bytes")


def _who() -> str:
    """What remembers a failure: this process, or all that one GNU parallel started."""
    return f"{os.uname().nodename} {os.environ.get('PARALLEL_PID') or os.getpid()}"


def _failed_just_now(failed: Path) -> str:
    """Why it failed; empty where nothing is remembered."""
    try:
        who, _, why = failed.read_text().partition("\n")
        return why if who == _who() and time.time() - failed.stat().st_mtime < FORGOTTEN else ""
    except FileNotFoundError:
        return ""


def _verified(file: Path, table: Table) -> Path:
    found = _digest(file)
    if found != table["sha256"]:
        raise Fatal(f"'{file}' is not {table['name']}: its sha256 is {found}, not {table['sha256']} (delete it, or put the right one there)")
    return file


def _digest(file: Path) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _copy(file: Path, to: str, checkout: Path, home: Path) -> None:
    _write(file, home / to.removeprefix("~/") if to.startswith("~/") else checkout / to)


def _write(source: Path, target: Path) -> None:
    """A copy, dated now: later than the sources that a build compares it with."""
    paths.make_dir(target.parent)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)


def _check(table: Table) -> None:
    """Raise Fatal for a fact that is not as the head of this file has it."""
    for what, facts, (needed, more) in (("downloads", table, KEYS), ("otherwise", table.get("otherwise", {"reason": ""}), OTHERWISE)):
        wrong = (needed - facts.keys()) or (facts.keys() - needed - more)
        if wrong:
            raise Fatal(f"'{what}' of a spec {'lacks' if needed - facts.keys() else 'has unknown'} {', '.join(sorted(wrong))} (swerun/downloads.py has what it may say)")
    if "wheel" in table.get("otherwise", ()) and not (table["otherwise"].get("hashes") and table["otherwise"].get("files")):
        raise Fatal(f"'otherwise' of {table['name']} names a wheel without its hashes or files (swerun/downloads.py has what it may say)")
