"""The figures of a study that a grid repeats."""

from __future__ import annotations

from typing import Literal

from grid.spec.strict import Line, Name, Strict


class PublishedModel(Strict):
    """A study's figures for one trained model; what it does not state is null, and so is the mode of a teacher.

    A count that is printed rounded stands here as it is printed: 85.8M is 85800000.
    """

    model: Name
    mode: Literal["baseline", "distilled"] | None = None
    accuracy: float | None = None
    """In percent."""
    parameters: int | None = None
    size_mb: float | None = None
    """As printed there."""
    inference_ms: float | None = None
    """Per batch."""
    efficiency: float | None = None
    """accuracy / inference_ms."""


class PublishedPair(Strict):
    """A study's figures for one teacher and student; the gain is distilled minus baseline."""

    teacher: Name
    student: Name
    baseline: float
    """Accuracy in percent."""
    distilled: float
    """Accuracy in percent."""
    retention: float | None = None
    """Distilled of teacher, in percent."""
    compression: float | None = None
    """Teacher over student, in parameters."""
    compression_size: float | None = None
    """Teacher over student, in bytes."""
    speedup: float | None = None
    """Teacher over student, in time."""


class PublishedStudy(Strict):
    """What a study reports, to be shown beside our results."""

    study: Line
    protocol: Line
    """How its accuracy was selected, in words."""
    models: tuple[PublishedModel, ...] = ()
    pairs: tuple[PublishedPair, ...] = ()
