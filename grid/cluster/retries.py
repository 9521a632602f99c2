"""How often a stage is tried when its workers are lost: one rule for the pool and for groups of workers. Each try goes
on from the stage's checkpoint; errors of its code are not tried again."""

from __future__ import annotations

TRIES = 4
REST_SECONDS = 10.0  # before a try after an end for lack of memory, once more after each


def is_given_up(lost: int) -> bool:
    """Whether a stage that has lost so many workers is not tried again."""
    return lost >= TRIES


def next_try(lost: int) -> str:
    """For people, of a stage that has lost so many workers."""
    return f"try {lost + 1} of {TRIES}"


def rest_seconds(lost: int) -> float:
    """How long to wait before the next try, where memory was short."""
    return REST_SECONDS * lost
