"""Times as rows have them."""

import datetime
from typing import Any


def text(value: Any) -> str:
    """A time as uv takes it for a limit: rows have it as seconds or milliseconds since 1970 too; "" for what is no time."""
    said = str(value if value is not None else "").removesuffix(" UTC").strip()
    try:
        if isinstance(value, int | float) or said.isdecimal():
            number = float(said)
            found = datetime.datetime.fromtimestamp(number / 1000 if number > 1e11 else number, datetime.UTC)
            return found.strftime("%Y-%m-%dT%H:%M:%SZ")
        datetime.datetime.fromisoformat(said)
    except (ValueError, OverflowError, OSError):
        return ""
    return said
