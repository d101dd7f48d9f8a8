"""What doctor lists: a need, the tasks that have it, and whether it is met."""

from typing import Any, NamedTuple

from swerun.spec import Spec

Row = dict[str, Any]


class Need(NamedTuple):
    need: str
    rows: list[Row]  # of the tasks that need it
    found: str       # where it is, "" where it is not
    get: str = ""    # the command that gets it
    comes: bool = False  # a run gets it by itself
    costs: bool = False  # single tasks cannot be graded rightly without it, whatever else is there

    def missing(self) -> bool:
        return not self.found and not self.comes


class Group(NamedTuple):
    """Rows of one environment: of a repository and version, or of the same description of their own."""

    rows: list[Row]
    spec: Spec
