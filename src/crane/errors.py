"""The one kind of error that a user sees: one line, and an exit code."""

from __future__ import annotations


class CraneError(Exception):
    """Something the user can understand and mend, said in one line.

    The message names the place and the mend. ``exit_code`` is what the command
    ends with: 1 an operation failed, 2 wrong usage or configuration, 126 the
    program cannot be replicated, 127 the program was not found.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


class UsageError(CraneError):
    """A wrong option, argument or configuration value; nothing was started."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=2)
