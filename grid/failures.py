"""What a record says of a stage whatever became of it, and the record of one that failed. Needs neither Ray nor torch:
an error may be that they cannot be imported."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from grid.contract.layout import FAILURE
from grid.errors import one_line
from grid.plan import CellStage, DatasetStage, LogitsStage, Stage, TeacherStage
from grid.records import Value, make_record, now, record_to_json
from grid.store import TRACEBACK, Store

log = logging.getLogger("kd_grid")


def axes_of(stage: Stage) -> dict[str, Value]:
    """Where the stage stands in the grid, and the stages it was computed from."""
    axes: dict[str, Value] = {"stage_id": stage.id, "kind": stage.kind}
    if isinstance(stage, DatasetStage):
        return axes | {"dataset": stage.dataset.name, "dataset_id": stage.id}
    teacher = stage if isinstance(stage, TeacherStage) else None
    if isinstance(stage, LogitsStage):
        teacher = stage.teacher
    if isinstance(stage, CellStage):
        axes |= {
            "student": stage.model.name,
            "student_args": json.dumps(stage.model.args, sort_keys=True),
            "mode": stage.mode,
            **stage.how,
            "seed": stage.seed,
            "targets": stage.targets,
        }
        if stage.logits is not None:
            axes["logits_id"] = stage.logits.id
        teacher = stage.teacher
    if teacher is not None:
        axes |= {
            "teacher": teacher.model.name,
            "teacher_args": json.dumps(teacher.model.args, sort_keys=True),
            "teacher_id": teacher.id,
        }
    if isinstance(stage, TeacherStage):
        axes["seed"] = stage.model.seed
    if isinstance(stage, TeacherStage | CellStage):
        axes["recipe"] = json.dumps(asdict(stage.recipe), sort_keys=True)
        axes["view_stream"] = stage.recipe.views.stream
    data = stage.teacher.data if isinstance(stage, LogitsStage) else stage.data
    return axes | {"dataset": data.dataset.name, "dataset_id": data.id}


def record_failure(stage: Stage, store: Store, error: str, *, launch: str, trace: str = "") -> None:
    """Write the failure, and its traceback, beside the stage's outputs; one that cannot be written is only logged."""
    if store.failure(stage, launch=launch) is not None:
        return  # the first of several workers to fail knows why
    values = {"status": "failed", "error": error, "finished_at": now(), "launch": launch}
    record = make_record({**axes_of(stage), **values})
    log.error("stage %s failed: %s\n%s", stage.id, error, trace)
    try:
        store.write(f"{stage.folder}/{TRACEBACK}", (trace or error).encode())
        store.write(f"{stage.folder}/{FAILURE}", record_to_json(record))
    except Exception as problem:
        log.error("stage %s: its failure could not be recorded: %s", stage.id, one_line(problem))
