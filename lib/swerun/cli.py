"""The outermost layer of every command: arguments, records in and out, what a person is told, exit codes."""

import argparse
import contextlib
import os
import signal
import sys
import traceback
from typing import Any, Callable, Iterable, Iterator

import orjson

from swerun import datasets, options, runs, spec as specs
from swerun.errors import Fatal, Usage
from swerun.paths import safe_name

Record = dict[str, Any]


def say(*words: str) -> None:
    """Tell a person: `make-worktree: django__django-11099: cloning`, on stderr, in one write so that lines stay whole."""
    command = os.path.basename(sys.argv[0])
    with contextlib.suppress(OSError):  # nobody listens any more: no reason to drop the work
        sys.stderr.write(": ".join((command, *words)) + "\n")
        sys.stderr.flush()


def parser(doc: str, names: Iterable[str] = (), records: bool = True) -> argparse.ArgumentParser:
    """A parser whose help is the command's docstring, with a flag for each option named."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    if records:
        made.add_argument("records", nargs="*", metavar="INSTANCE_ID", help="instance ids or records; none: read them from standard input")
    for name in names:
        option = options.BY_NAME[name]
        default = f" (default {option.default})" if option.default else ""
        made.add_argument(f"--{name.lower().replace('_', '-')}", help=(option.help + default).replace("%", "%%"), metavar="X")
    made.add_argument("-v", dest="verbose", action="store_true", help="print the commands that are run")
    return made


def parse(made: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    args = made.parse_args(argv)
    if args.verbose:
        os.environ["V"] = "1"
    for name in ("TEST_JOBS", "DISK_LIMIT"):  # wanted deep down, and by commands that this one starts
        if getattr(args, name.lower(), None):
            os.environ[name] = getattr(args, name.lower())
    return args


def door(main: Callable[[], int]) -> int:
    """Run a command's main and turn how it ends into the exit code that every command shares."""
    signal.signal(signal.SIGTERM, _terminated)
    # a job in the background of a shell has these ignored, and agents and tests would inherit that
    signal.signal(signal.SIGINT, _terminated)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    try:
        code = main()
        sys.stdout.flush()
        return code
    except Usage as error:
        say(str(error))
        return 2
    except Fatal as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read us has had enough; the interpreter must not complain when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        say(f"{error.strerror or error}: '{error.filename}' (check the disk and the permissions, then run again)")
        return 1
    except Exception:
        traceback.print_exc()
        say("this is a bug; the lines above say where")
        return 3


def _terminated(*_: Any) -> None:
    raise KeyboardInterrupt


def given(arguments: list[str]) -> Iterator[str]:
    """The records named on the command line, else the lines of standard input."""
    if arguments:
        yield from arguments
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise Usage("no instance ids, and standard input is a terminal (name some, or pipe records in; --help has an example)")
    for line in sys.stdin.buffer:
        if line.strip():
            yield line.decode("utf-8", "replace").strip()


def read_record(text: str, flags: dict[str, Any]) -> Record:
    """A record from its JSON line or from a bare instance id, completed from the dataset. Raises Fatal."""
    if text.startswith("{"):
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Fatal(f"not a record: {error}") from None
    else:
        record = {"instance_id": text}
    instance_id = record.get("instance_id")
    if not isinstance(instance_id, str) or not safe_name(instance_id):
        raise Fatal(f"'{instance_id}' is not an instance id")
    given_run = flags.get("run") or record.get("run") or os.environ.get("RUN")
    recorded = (runs.read(given_run) or {}).get("options") if given_run else None
    known = {"dataset": record.get("dataset"), "split": record.get("split")} | {k: v for k, v in flags.items() if v}
    chosen = {name: value.value for name, value in options.resolve(("DATASET", "SPLIT", "AGENT", "SPECS"), known, recorded).items()}
    specs.SPECS.set(chosen["SPECS"])
    if "base_commit" not in record:
        record = datasets.public(datasets.row(chosen["DATASET"], chosen["SPLIT"], instance_id)) | record
    record["dataset"] = datasets.canonical(chosen["DATASET"])
    if chosen["SPLIT"] != "test":
        record["split"] = chosen["SPLIT"]
    record["run"] = given_run or runs.default_name(chosen["DATASET"], chosen["AGENT"])
    runs.check_name(record["run"])
    return record


def each(arguments: list[str], flags: dict[str, Any], work: Callable[[Record], Record | None]) -> int:
    """Work on one record after the other; a bad one is said, left out of stdout, and does not stop the others."""
    code = 0
    for text in given(arguments):
        label = text[:60]
        try:
            record = read_record(text, flags)
            label = record["instance_id"]
            made = work(record)
        except Usage:
            raise
        except Fatal as error:
            say(label, f"failed: {error}")
            code = 1
            continue
        except OSError as error:
            say(label, f"failed: {error.strerror}: '{error.filename}' (free some space or mend the permissions, then run again)")
            code = 1
            continue
        if made is not None:
            write(made)
    return code


def write(record: Record) -> None:
    sys.stdout.buffer.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
