"""What is known of a student that is published: the analysis' choice, its record, and the form it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from grid.contract.record import Record
from grid.spec.grid import GridSpec
from grid.spec.model import ModelSpec
from grid.spec.strict import Strict
from grid.store.records import RecordError
from kd.models.onnx_file import OnnxFacts


class MeanWithInterval(Strict):
    """A mean over n seeds with its 95 % t interval, in percent or points; no interval where n is 1."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


class Choice(Strict):
    """What is published, and what is known of it beside its own record."""

    grid: str
    spec: dict[str, Any]
    stage_id: str
    student: str
    teacher: str | None
    teacher_top1: float | None
    teacher_parameters: int | None
    seed: int
    setting: str
    """How the setting was chosen, as a clause."""
    seed_why: str
    """How the seed was chosen, as a clause."""
    accuracy: MeanWithInterval
    """Of all seeds of the setting."""
    alone: MeanWithInterval | None
    """Of the same student without a teacher."""
    gain: MeanWithInterval | None
    effect: str | None
    """The verdict on the gain: 'gain' or 'negative transfer' where it is significant after the grid's correction."""


@dataclass(frozen=True)
class Known:
    """The fields that the record of every trained student has."""

    dataset_id: str
    dataset_fingerprint: str
    recipe: str
    parameters: int
    size_bytes: int
    macs: int
    test_top1_last: float

    @classmethod
    def of(cls, record: Record) -> Self:
        """Raises RecordError."""
        values: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(cls)}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            raise RecordError(f"it lacks {', '.join(missing)}")
        return cls(**values)


@dataclass(frozen=True)
class Facts:
    choice: Choice
    record: Record
    known: Known
    """What of the record is surely there."""
    spec: GridSpec
    model: ModelSpec
    base_model: str | None
    input_size: tuple[int, int, int]
    """Channels, height, width."""
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str
    labels: Sequence[str] | None
    weights_sha256: str
    timm: bool
    """Whether the folder is one that timm loads."""
    build: str
    """Python that makes `model` where timm does not load the folder."""
    files: Sequence[str]
    """The user's code beside it."""
    onnx: OnnxFacts | None
    """None where there is no model.onnx."""

    @property
    def title(self) -> str:
        """On one line, whatever labels hold."""
        how = f"distilled from {self.choice.teacher}" if self.choice.teacher is not None else "trained alone"
        return " ".join(f"{self.choice.student} {how} on {self.spec.dataset.name}".split())


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
