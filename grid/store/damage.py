"""Whether what a stage left is as its record says."""

from __future__ import annotations

from collections.abc import Mapping

from grid.contract.files.layout import RECORD
from grid.contract.record import CURVE, WEIGHTS, Record, files_of
from grid.plan import Stage

HEADERS_DIFFER = 64  # bytes, between files with as many logits


def damage_of(stage: Stage, record: Record, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with a stage's record or files, by the names and sizes of what lies in its folder; None where all
    is as it was left."""
    if record.stage_id not in (None, stage.id):
        return f"{RECORD}: the record of another stage, {record.stage_id!r}"
    if record.status not in (None, "done"):
        return record.error if record.error is not None else f"{RECORD}: of a stage that is not done"
    try:
        files = files_of(record)
    except ValueError as error:
        return f"{RECORD}: its files are no names with sizes: {error}"
    if files is None:
        # Older ones have these beside them, of sizes that nobody knows.
        old = (WEIGHTS, CURVE) if record.weights_sha256 is not None and stage.is_trained else ()
        files = {name: sizes.get(name, -1) for name in old}
    for name, size in files.items():
        if sizes.get(name, -1) < 0:
            return f"{name}: is missing, though its record names it"
        if sizes[name] != size:
            return f"{name}: has {sizes[name]} bytes, its record says {size}"
    there = {name: sizes[name] for name in sorted(stage.planned_files) if name in sizes}
    for name, size in there.items():
        if size < max(there.values()) - HEADERS_DIFFER:
            return f"{name}: has {size} bytes, others of these logits have {max(there.values())}"
    return None
