"""The figures of a study that a grid repeats."""

from __future__ import annotations

from typing import Literal

from grid.spec.strict import Line, Name, Strict


class PublishedModel(Strict):
    """A study's figures for one trained model; what it does not state is null, and so is the mode of a teacher.

    accuracy in percent, size_mb as printed there, inference_ms per batch, efficiency: accuracy / inference_ms. A
    count that is printed rounded stands here as it is printed: 85.8M is 85800000.
    """

    model: Name
    mode: Literal["baseline", "distilled"] | None = None
    accuracy: float | None = None
    parameters: int | None = None
    size_mb: float | None = None
    inference_ms: float | None = None
    efficiency: float | None = None


class PublishedPair(Strict):
    """A study's figures for one teacher and student; the gain is distilled minus baseline.

    Accuracies and retention (distilled of teacher) in percent; teacher over student: compression in parameters,
    compression_size in bytes, speedup in time.
    """

    teacher: Name
    student: Name
    baseline: float
    distilled: float
    retention: float | None = None
    compression: float | None = None
    compression_size: float | None = None
    speedup: float | None = None


class PublishedStudy(Strict):
    """What a study reports, to be shown beside our results. protocol: how its accuracy was selected, in words."""

    study: Line
    protocol: Line
    models: tuple[PublishedModel, ...] = ()
    pairs: tuple[PublishedPair, ...] = ()
