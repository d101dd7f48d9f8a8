"""What a patch made stale of what a build left: told by times, for that is what build tools go by."""

import os
import re
import time
from pathlib import Path

from swerun.git import git

INCLUDED = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*[<"](?:[^>"\n]*/)?([^/>"\n]+)[>"]', re.M)
C_LIKE = (".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".inc", ".tpp")
# files that say how things are compiled, of which build tools keep no account
RECIPES = re.compile(r"(^|/)(_?setup[^/]*\.(py|cfg)|pyproject\.toml|_build[^/]*(/.*)?\.py|meson\.build|CMakeLists\.txt)$")
LONG_AGO = 10 ** 9


def tell(checkout: Path, changed: list[str], outputs: list[str]) -> None:
    """Date files so that installing again makes anew what these changes concern, and nothing else.

    What changed is later than everything the build left (`outputs`), and so are the C files that include it, for few
    build tools know of those. Where a recipe changed, all that the build left is older than any source.
    """
    later = time.time() + 2  # on file systems with whole seconds too
    if any(RECIPES.search(name) for name in changed):
        for name in outputs:
            _date(checkout / name, LONG_AGO)
    for name in {*changed, *_including(checkout, changed, outputs)}:
        _date(checkout / name, later)


def _date(file: Path, moment: float) -> None:
    if file.is_file() and not file.is_symlink():
        os.utime(file, (moment, moment))


def _including(checkout: Path, changed: list[str], outputs: list[str]) -> set[str]:
    """The files that include one of these, directly or not. Told by the last part of its name: one too many costs a compiler call."""
    wanted = {os.path.basename(name).encode() for name in changed if name.endswith(C_LIKE)}
    if not wanted:
        return set()
    tracked = git(checkout, "ls-files", "-z").stdout.split("\0")
    users: dict[bytes, set[str]] = {}
    for name in filter(lambda name: name.endswith(C_LIKE) and (checkout / name).is_file(), [*tracked, *outputs]):
        for included in INCLUDED.findall((checkout / name).read_bytes()):
            users.setdefault(included, set()).add(name)
    found: set[str] = set()
    while wanted:
        new = users.get(wanted.pop(), set()) - found
        found |= new
        wanted |= {os.path.basename(name).encode() for name in new}
    return found
