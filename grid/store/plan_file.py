"""A grid's plan as it was run, on the storage: what belongs to the grid, and what each stage is called in it."""

from __future__ import annotations

import json
from typing import Any

from grid.contract.files.layout import plan_file
from grid.contract.plan import PLAN_SCHEMA_VERSION
from grid.plan import Plan
from grid.store.records import now
from grid.store.store import Store


def write_plan(plan: Plan, store: Store) -> None:
    """Publish the plan as run, which tells the analysis what belongs to the grid and what each stage is called."""
    rows = []
    for row in plan.rows:
        stage = row.stage
        axes: dict[str, Any] = {
            "kind": stage.kind,
            "stage_id": stage.id,
            "teacher": row.teacher,
            "student": row.student,
        }
        if stage.kind == "cell":
            axes |= {"mode": stage.mode, "seed": stage.seed, **stage.how, "setting": plan.setting_of(stage)}
            axes |= {"teacher_id": stage.teacher.id if stage.teacher is not None else None}
        rows.append(axes)
    document = {
        "schema_version": PLAN_SCHEMA_VERSION,
        "grid": plan.spec.name,
        "written_at": now(),
        "spec": json.loads(plan.spec.model_dump_json()),
        "stages": [{"id": stage.id, "kind": stage.kind} for stage in plan.stages],
        "rows": rows,
    }
    store.write(plan_file(plan.spec.name), json.dumps(document, indent=1).encode())
