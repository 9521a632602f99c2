"""Errors a user can act on: one line that names the thing and the way out. What they take over from libraries is shown
without the credentials that it may repeat."""

from __future__ import annotations

from grid.contract.credentials import redacted
from grid.contract.text import on_one_line, path_problem, shown_path


class UserError(Exception):
    """Bad input: printed as one line, exit status 2, before anything has started."""

    def __init__(self, line: str) -> None:
        super().__init__(redacted(line))


class StorageError(OSError):
    """A storage that is full, or did not answer for as long as one waits: names the place and the way out."""


def check_path(what: str, path: str) -> None:
    """Raises UserError for a path that plans cannot name, or that cannot be opened here."""
    problem = path_problem(path)
    if problem is not None:
        raise UserError(f"{what} {shown_path(path)}: {problem}")


def one_line(error: BaseException) -> str:
    """'ValueError: what it says', on one line, with nothing hidden and no credentials: so a failed stage is recorded
    and shown."""
    return redacted(on_one_line(f"{type(error).__name__}: {error}"))
