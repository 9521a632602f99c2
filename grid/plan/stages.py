"""The stages, and how they travel."""

from __future__ import annotations

from pydantic import TypeAdapter

from grid.plan.cell import CellStage
from grid.plan.dataset import DatasetStage
from grid.plan.logits import LogitsStage
from grid.plan.teacher import TeacherStage

Stage = DatasetStage | TeacherStage | LogitsStage | CellStage
Trainable = TeacherStage | CellStage

_STAGE: TypeAdapter[Stage] = TypeAdapter(Stage)


def stage_to_json(stage: Stage) -> str:
    return stage.model_dump_json()


def stage_from_json(text: str) -> Stage:
    return _STAGE.validate_json(text)
