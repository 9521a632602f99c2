"""A grid's plan as it lies on a storage: what must be there, and of which types, for anything else to be read by it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from grid.contract.files.layout import FOLDERS
from grid.contract.parsing import parse_json, parse_time

PLAN_SCHEMA_VERSION = 1

# What a plan's rows say of each teacher and cell. A row may lack what does not apply to it.
ROW: dict[str, type] = {
    "kind": str,
    "stage_id": str,
    "teacher": str,
    "student": str,
    "mode": str,
    "seed": int,
    "method": str,
    "temperature": float,
    "alpha": float,
    "params": str,  # JSON: all of the method's parameters
    "setting": str,  # what tells it from others of its method; None of kd
    "teacher_id": str,
}

# The axes of a grid: what tells the ways of distilling one student from one teacher apart, and of those the numbers.
METHOD, SETTING = "method", "setting"
AXES = (METHOD, "temperature", "alpha", SETTING)
NUMBERS = tuple(axis for axis in AXES if ROW[axis] is float)

# Ids are parts of paths.
_ID = re.compile(r"[\w-]{1,100}")


class OtherVersionError(ValueError):
    """A plan that another version of the program wrote."""

    def __init__(self) -> None:
        super().__init__("of another version of this program")


@dataclass(frozen=True)
class PlanDocument:
    launched_at: datetime
    """When the grid was launched last."""
    kinds: dict[str, str]
    """Of each stage, by id."""
    spec: Any
    """Whatever lies there, and None where nothing does, which is for those to judge who read it."""
    rows: Any
    """As `spec`."""


def parse_plan(data: bytes) -> PlanDocument:
    """Raises ValueError with the reason that it is no plan, on one line."""
    try:
        plan = parse_json(data)
    except ValueError as error:
        raise ValueError(f"not a plan: {error}") from None
    if not isinstance(plan, dict) or plan.get("schema_version") != PLAN_SCHEMA_VERSION:
        raise OtherVersionError
    try:
        kinds, launched_at = _kinds(plan), parse_time(plan.get("written_at"))
    except ValueError as error:
        raise ValueError(f"not a plan: {error}") from None
    return PlanDocument(launched_at, kinds, plan.get("spec"), plan.get("rows"))


def _kinds(plan: dict[str, Any]) -> dict[str, str]:
    stages = plan.get("stages")
    if not isinstance(stages, list) or not stages:
        raise ValueError("it has no stages")
    kinds: dict[str, str] = {}
    for stage in stages:
        stage_id, kind = (stage.get("id"), stage.get("kind")) if isinstance(stage, dict) else (None, None)
        if not isinstance(stage_id, str) or not _ID.fullmatch(stage_id):
            raise ValueError("it has a stage without an id")
        if not isinstance(kind, str) or kind not in FOLDERS:
            raise ValueError(f"its stage {stage_id} is of no known kind")
        kinds[stage_id] = kind
    return kinds
