"""The result record's fields, and which figures they can hold: what the grid writes and the analysis believes.

Fractions are in [0, 1], times in seconds unless the name says otherwise, `..._at` are ISO 8601 in UTC. Metrics are
named <split>_<metric>_<point>; point `last` is the last epoch, `best` the epoch with the best top1 on val (absent
without a val split). `best_test_top1` is selected on the test split itself: published tables use it, and it is
optimistic.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from grid.contract.parsing import check_finite, parse_json, parse_object

SCHEMA_VERSION = 1

# The names of a stage's files before names held their hash, and what those of today are made of.
WEIGHTS, CURVE = "model.safetensors", "curve.parquet"
SUMS = {WEIGHTS: "weights_sha256", CURVE: "curve_sha256"}  # the fields of a record that have their hashes
NAME_DIGITS = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")

METRICS = ("top1", "top5", "nll", "ece", "agreement")
POINTS = ("last", "best")
SPLITS = ("val", "test")  # that are evaluated


def metric_field(split: str, metric: str, point: str) -> str:
    return f"{split}_{metric}_{point}"


# The fields of metrics, with the metric of each.
METRIC_FIELDS = {metric_field(s, metric, point): metric for s in SPLITS for metric in METRICS for point in POINTS}

FIELDS: dict[str, type] = {
    "schema_version": int,
    "stage_id": str,
    "kind": str,
    "status": str,  # done | failed
    "error": str,
    "warning": str,  # what looks wrong with a given teacher
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
    "params": str,  # JSON: all of the method's parameters; temperature and alpha are those of kd
    "seed": int,
    "start": str,  # scratch | pretrained:NAME | checkpoint:SHA256 | given:SHA256 (not trained)
    "targets": str,  # where the teacher's logits came from: cached | online
    "view_stream": int,
    # the stages it was computed from
    "dataset_id": str,
    "teacher_id": str,
    "logits_id": str,
    "teacher_sha256": str,  # of the teacher's weights that were used
    # what it left: see weights_file and curve_file
    "files": str,  # JSON: the size in bytes of each file by its name
    "weights_sha256": str,
    "curve_sha256": str,
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
    **dict.fromkeys(METRIC_FIELDS, float),
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

_FRACTIONS = ("top1", "top5", "ece", "agreement")
_COUNTED = (
    *("parameters", "size_bytes", "macs", "latency_ms", "latency_ms_q1", "latency_ms_q3", "latency_batch"),
    *("latency_runs", "throughput", "epochs", "best_epoch", "best_test_epoch", "seconds_setup", "seconds_train"),
    *("seconds_evaluate", "seconds_total", "device_seconds", "tries", "threads", "workers"),
)
# A float64 counts exactly up to here, and sums of so large figures stay finite.
MOST = 2.0**53
LOSS = 3.5e38  # a float32 holds no more

# The least and the most of each figure, both included. Shares computed in floats may miss 1 by their rounding.
RANGES: dict[str, tuple[float, float]] = {
    **{name: (0.0, 1.0 + 1e-6) if metric in _FRACTIONS else (-LOSS, LOSS) for name, metric in METRIC_FIELDS.items()},
    "best_test_top1": (0.0, 1.0),
    "train_top1_last": (0.0, 1.0),
    "train_loss_last": (-LOSS, LOSS),
    **dict.fromkeys(_COUNTED, (0.0, MOST)),
}


def parse_record(data: bytes) -> dict[str, Any]:
    """The value of every field, None where a record of an earlier version lacks it. Raises ValueError with the reason
    that it is none, on one line."""
    try:
        values = parse_json(data)
        if not isinstance(values, dict) or type(values.get("schema_version")) is not int:
            raise ValueError("it has no schema_version")
        version = values["schema_version"]
        if version > SCHEMA_VERSION:
            raise NewerRecordError(f"of schema version {version}, newer than this program: update it")
        record = {name: _typed(name, values.get(name), expected) for name, expected in FIELDS.items()}
        check_figures(record)
    except NewerRecordError:
        raise
    except ValueError as error:
        raise ValueError(f"not a record: {error}") from None
    return record


def hashed_name(name: str, sha256: str) -> str:
    """'model.safetensors' -> 'model-0123456789abcdef.safetensors': of these very bytes, so that nothing that is written
    later takes their place."""
    stem, dot, ending = name.partition(".")
    return f"{stem}-{sha256[:NAME_DIGITS]}{dot}{ending}"


def weights_file(record: Mapping[str, Any]) -> str:
    """The file of a record's weights."""
    return _named(WEIGHTS, record)


def curve_file(record: Mapping[str, Any]) -> str:
    """The file of a record's curve."""
    return _named(CURVE, record)


def _named(name: str, record: Mapping[str, Any]) -> str:
    sha256 = record[SUMS[name]]
    # A record may be anybody's: no name is made of anything but hexadecimal digits.
    if sha256 is None or record["files"] is None or not _SHA256.fullmatch(sha256):
        return name
    return hashed_name(name, sha256)


def is_of_record(record: Mapping[str, Any], name: str, data: bytes) -> bool:
    """Whether these are the bytes of a record's weights or curve (name: WEIGHTS or CURVE); of records of before those
    were hashed nobody knows, and they are taken for it."""
    return record[SUMS[name]] in (None, hashlib.sha256(data).hexdigest())


def files_of(record: Mapping[str, Any]) -> dict[str, int] | None:
    """The sizes of a record's files by their names; None where it is older than that. Raises ValueError."""
    if record["files"] is None:
        return None
    files = parse_object(record["files"].encode())
    if not all(type(size) is int for size in files.values()):
        raise ValueError("its files have no sizes")
    return files


def other_inputs(
    record: Mapping[str, Any], *, dataset: Mapping[str, Any] | None, teacher: Mapping[str, Any] | None
) -> str | None:
    """Which input of a stage is another one now than the one it was computed from, None where none is known to be: the
    records of the stages that it needs are None where there are none, and older ones do not say what they used."""
    for what, used, there in (
        ("teacher", record["teacher_sha256"], teacher and teacher["weights_sha256"]),
        ("data set", record["dataset_fingerprint"], dataset and dataset["dataset_fingerprint"]),
    ):
        if None not in (used, there) and used != there:
            return what
    return None


class NewerRecordError(ValueError):
    """A record that a later version of the program wrote."""


def _typed(name: str, value: Any, expected: type) -> Any:
    if expected is float and type(value) is int:
        value = float(value)
    if value is not None and type(value) is not expected:
        raise ValueError(f"{name} is of type {type(value).__name__}, not {expected.__name__}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is far too large a number")
    return value


def check_figures(record: Mapping[str, Any]) -> None:
    """Raises ValueError that names the figures of a record that cannot be what was measured."""
    check_finite(record)
    numbers = {name: value for name, value in record.items() if type(value) in (int, float)}
    outside = [
        f"{name} is {numbers[name]:g}, outside of {low:g} to {high:.6g}"
        for name, (low, high) in RANGES.items()
        if name in numbers and not low <= numbers[name] <= high
    ]
    if outside:
        raise ValueError("; ".join(outside))
