"""What a record says of a stage whatever became of it, and the record of one that failed. Needs neither Ray nor torch:
an error may be that they cannot be imported."""

from __future__ import annotations

import logging

from grid.contract.files.layout import FAILURE
from grid.errors import one_line
from grid.plan import Stage
from grid.store.records import make_record, now, record_to_json
from grid.store.store import TRACEBACK, Store

log = logging.getLogger("kd_grid")


def record_failure(stage: Stage, store: Store, error: str, *, launch: str, trace: str = "") -> None:
    """Write the failure, and its traceback, beside the stage's outputs; one that cannot be written is only logged."""
    if store.failure(stage, launch=launch) is not None:
        return  # the first of several workers to fail knows why
    values = {"status": "failed", "error": error, "finished_at": now(), "launch": launch}
    record = make_record(stage.axes() | values)
    log.error("stage %s failed: %s\n%s", stage.id, error, trace)
    try:
        store.write(f"{stage.folder}/{TRACEBACK}", (trace or error).encode())
        store.write(f"{stage.folder}/{FAILURE}", record_to_json(record))
    except Exception as problem:
        log.error("stage %s: its failure could not be recorded: %s", stage.id, one_line(problem))
