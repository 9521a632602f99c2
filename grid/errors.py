"""Errors a user can act on: one line that names the thing and the way out."""


class UserError(Exception):
    """Bad input: printed as one line, exit status 2, before anything has started."""
