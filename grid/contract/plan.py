"""A grid's plan as it lies on a storage: what must be there, and of which types, for anything else to be read by it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from grid.contract.layout import FOLDERS
from grid.contract.parsing import parse_json, parse_time

PLAN_SCHEMA_VERSION = 1

# Ids are parts of paths.
_ID = re.compile(r"[\w-]{1,100}")


def parse_plan(data: bytes) -> dict[str, Any]:
    """The document, of which schema_version, stages and written_at are as they must be. Raises ValueError with the
    reason that it is no plan, on one line."""
    try:
        plan = parse_json(data)
    except ValueError as error:
        raise ValueError(f"not a plan: {error}") from None
    if not isinstance(plan, dict) or plan.get("schema_version") != PLAN_SCHEMA_VERSION:
        raise ValueError("of another version of this program")
    try:
        plan_kinds(plan)
        plan_time(plan)
    except ValueError as error:
        raise ValueError(f"not a plan: {error}") from None
    return plan


def plan_kinds(plan: dict[str, Any]) -> dict[str, str]:
    """The kind of each stage, by id. Raises ValueError."""
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


def plan_time(plan: dict[str, Any]) -> datetime:
    """When the grid was launched last. Raises ValueError."""
    return parse_time(plan.get("written_at"))
