"""Stands between a CLI and an MCP server on stdio, passes everything on as it is, and notes what the server says that it is.

No CLI tells the version of a server; the server does, in its first answer. Started as
`python -m swerun.mcptap FILE COMMAND…`; FILE gets {"name", "version"}.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import orjson

MOST = 1 << 20  # bytes of the first answers that are looked at


def main(argv: list[str]) -> int:
    file, command = Path(argv[0]), argv[1:]
    try:
        server = subprocess.Popen(command, stdout=subprocess.PIPE)  # its stdin is ours: it sees the end of it by itself
    except OSError as error:
        print(f"cannot start '{command[0]}': {error.strerror}", file=sys.stderr)
        return 127
    seen = b""
    with server:
        while data := os.read(server.stdout.fileno(), 65536):
            with contextlib.suppress(BrokenPipeError):
                _write(data)
            if len(seen) < MOST:
                seen = _note(file, seen + data)
    return server.returncode


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data):]


def _note(file: Path, data: bytes) -> bytes:
    """What is still to be looked at; no more than MOST once the server has said what it is."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
            info = orjson.loads(line)["result"]["serverInfo"]
            file.write_bytes(orjson.dumps({"name": str(info["name"]), "version": str(info.get("version") or "")}))
            return b" " * MOST
    return rest


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
