"""The result record: one flat JSON object a stage, one schema, versioned.

Fractions are in [0, 1], times in seconds unless the name says otherwise, `..._at` are ISO 8601 in UTC. Metrics are
named <split>_<metric>_<point>; point `last` is the last epoch, `best` the epoch with the best top1 on val (absent
without a val split). `best_test_top1` is selected on the test split itself: published tables use it, and it is
optimistic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

SCHEMA_VERSION = 1

Value = str | int | float | bool | None
Record = dict[str, Value]

METRICS = ("top1", "top5", "nll", "ece", "agreement")
POINTS = ("last", "best")

FIELDS: dict[str, type] = {
    "schema_version": int,
    "stage_id": str,
    "kind": str,
    "status": str,  # done | failed
    "error": str,
    # the grid's axes
    "dataset": str,
    "teacher": str,
    "teacher_args": str,  # JSON
    "student": str,
    "student_args": str,  # JSON
    "mode": str,
    "method": str,
    "temperature": float,
    "alpha": float,
    "seed": int,
    "start": str,  # scratch | pretrained:NAME | checkpoint:SHA256 | given:SHA256 (not trained)
    "targets": str,  # where the teacher's logits came from: cached | online
    "view_stream": int,
    # the stages it was computed from
    "dataset_id": str,
    "teacher_id": str,
    "logits_id": str,
    "weights_sha256": str,  # of model.safetensors
    "teacher_sha256": str,  # of the teacher's weights that were used
    # the model: the student's for a cell, the teacher's for a teacher
    "parameters": int,
    "size_bytes": int,
    "macs": int,
    "latency_ms": float,
    "latency_ms_q1": float,
    "latency_ms_q3": float,
    "latency_batch": int,  # images
    "latency_runs": int,  # batches measured
    "throughput": float,  # images per second at that batch
    "latency_device": str,
    # metrics
    "epochs": int,
    "best_epoch": int,
    **{f"{split}_{metric}_{point}": float for split in ("val", "test") for metric in METRICS for point in POINTS},
    "best_test_top1": float,
    "best_test_epoch": int,
    "train_loss_last": float,
    "train_top1_last": float,
    # time
    "started_at": str,
    "finished_at": str,
    "seconds_setup": float,
    "seconds_train": float,
    "seconds_evaluate": float,
    "seconds_total": float,
    "device_seconds": float,
    # provenance
    "launch": str,
    "tries": int,  # how often that launch began the stage; each but the last ended with the loss of a worker
    "code_version": str,
    "versions": str,  # JSON
    "device": str,
    "threads": int,
    "workers": int,
    "precision": str,
    "deterministic": bool,
    "dataset_fingerprint": str,
    "recipe": str,  # JSON
}


class RecordError(ValueError):
    """Bytes that are no record, or one of a schema this version cannot read."""


def now() -> str:
    """As the fields `..._at` have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def make_record(values: Mapping[str, Value]) -> Record:
    """A whole record: every field present, None where it does not apply. Raises TypeError for a wrong name or type."""
    unknown = values.keys() - FIELDS.keys()
    if unknown:
        raise TypeError(f"not fields of a record: {', '.join(sorted(unknown))}")
    record: Record = dict.fromkeys(FIELDS)
    for name, value in {**values, "schema_version": SCHEMA_VERSION}.items():
        expected = FIELDS[name]
        if expected is float and type(value) is int:
            value = float(value)
        if value is not None and type(value) is not expected:
            raise TypeError(f"record field {name}: expected {expected.__name__}, got {value!r}")
        record[name] = value
    return record


def record_to_json(record: Record) -> bytes:
    return json.dumps(record, indent=1).encode()


def record_from_json(data: bytes) -> Record:
    """Raises RecordError with the reason. Fields that a later version adds are absent from older records: None."""
    try:
        values: Any = json.loads(data)
    except ValueError as error:
        raise RecordError(f"not a record: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("schema_version"), int):
        raise RecordError("not a record: it has no schema_version")
    version = values["schema_version"]
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"record of schema version {version}; this program reads up to {SCHEMA_VERSION}: use a newer one"
        )
    return {name: values.get(name) for name in FIELDS}
