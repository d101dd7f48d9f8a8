"""The errors that a person is told about in one line. Anything else that escapes is a bug."""


class Fatal(Exception):
    """A failure we understand: exit 1. Wording: the failure first, the subject in quotes, then what mends it."""


class Usage(Fatal):
    """The command was called wrongly: exit 2, before anything was done."""


class CommandFailed(Fatal):
    """A command of ours ended with another code than 0; carries what is needed to see why."""

    def __init__(self, argv: tuple[str, ...], returncode: int, stdout: str, stderr: str):
        self.argv, self.returncode, self.stdout, self.stderr = argv, returncode, stdout, stderr
        # git prints its progress first and the reason last
        lines = [line for line in stderr.replace("\r", "\n").splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "no message"
        super().__init__(f"'{' '.join(argv[:6])}' failed with {returncode}: {reason}")


class TryLater(Fatal):
    """Somebody else's fault for now (an agent that exits 75): no state is written, the next run tries again."""


class NotYet(Fatal):
    """Something that a later step of the same run brings by itself: a doctor says when it comes, and not that it is missing."""
