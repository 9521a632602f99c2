"""Errors a user can act on: one line that names the thing and the way out."""


class UserError(Exception):
    """Bad input: printed as one line, exit status 2, before anything has started."""


def one_line(error: BaseException) -> str:
    """'ValueError: what it says', without line breaks: how a failed stage is recorded and shown."""
    return " ".join(f"{type(error).__name__}: {error}".split())
