"""How a training ends before its last epoch. Free of heavy imports."""

from __future__ import annotations


class StoppedError(BaseException):
    """Training was asked to end before its last epoch. No error of it: nothing that catches errors may record it."""


class DivergedError(ArithmeticError):
    """The loss is no longer a number."""
