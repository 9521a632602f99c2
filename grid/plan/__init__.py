"""The plan: what a grid needs, as stages that say of themselves all that depends on their kind."""

from __future__ import annotations

from grid.plan.base import STAGE_VERSIONS
from grid.plan.cell import CellStage
from grid.plan.dataset import DatasetStage
from grid.plan.grid_plan import Plan, PlanRow, make_plan
from grid.plan.logits import LogitsStage, LogitsUnit
from grid.plan.models import image_size, model_payload
from grid.plan.stages import Stage, Trainable, stage_from_json, stage_to_json
from grid.plan.teacher import TeacherStage

__all__ = [
    "STAGE_VERSIONS",
    "CellStage",
    "DatasetStage",
    "LogitsStage",
    "LogitsUnit",
    "Plan",
    "PlanRow",
    "Stage",
    "TeacherStage",
    "Trainable",
    "image_size",
    "make_plan",
    "model_payload",
    "stage_from_json",
    "stage_to_json",
]
