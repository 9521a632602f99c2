"""The figures of a study that a grid repeats."""

from __future__ import annotations

from pydantic import Field

from grid.spec.strict import Strict


class PublishedPair(Strict):
    """A study's figures for one teacher and student, in percent; gain is distilled minus baseline as printed there."""

    teacher: str
    student: str
    baseline: float
    distilled: float


class Published(Strict):
    """What a study reports, to be shown beside our results. protocol: how its accuracy was selected, in words.
    teachers: their accuracy in percent, by label."""

    study: str
    protocol: str
    teachers: dict[str, float] = Field(default_factory=dict)
    pairs: tuple[PublishedPair, ...] = ()
