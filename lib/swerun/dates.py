"""Times as rows have them, in one form."""

import datetime
from typing import Any


def utc(value: Any) -> str:
    """A time as `2020-01-31T12:00:00Z`: rows have it as seconds or milliseconds since 1970 too, or without a zone. Text that is none stays."""
    try:
        if isinstance(value, int | float) or str(value).isdecimal():
            number = float(value)
            found = datetime.datetime.fromtimestamp(number / 1000 if number > 1e11 else number, datetime.UTC)
        else:
            found = datetime.datetime.fromisoformat(str(value or ""))
    except (ValueError, OverflowError, OSError):
        return str(value or "")
    return found.replace(tzinfo=found.tzinfo or datetime.UTC).astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
