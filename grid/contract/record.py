"""The result record: one schema, versioned. What the grid writes and the analysis believes.

Fractions are in [0, 1], times in seconds unless the name says otherwise, `..._at` are ISO 8601 in UTC. Metrics are
named <split>_<metric>_<point>; point `last` is the last epoch, `best` the epoch with the best top1 on val (absent
without a val split). `best_test_top1` is selected on the test split itself: published tables use it, and it is
optimistic.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from grid.contract.figures import FRACTION, POINTS, RANGES, SPLITS, UNBOUNDED, Range, check_figures, metric_field
from grid.contract.parsing import parse_json, parse_object

SCHEMA_VERSION = 1

# The names of a stage's files before names held their hash, and what those of today are made of.
WEIGHTS, CURVE, PREDICTIONS = "model.safetensors", "curve.parquet", "predictions.safetensors"
# The fields of a record that have their hashes.
SUMS = {WEIGHTS: "weights_sha256", CURVE: "curve_sha256", PREDICTIONS: "predictions_sha256"}
NAME_DIGITS = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a stage left, or why it failed: a field is None where it does not apply, or where an earlier version of the
    program did not write it. Raises TypeError for a value of another type, and ValueError for a figure that cannot have
    been measured."""

    schema_version: int = SCHEMA_VERSION
    stage_id: str | None = None
    kind: str | None = None
    status: str | None = None  # done | failed
    error: str | None = None
    warning: str | None = None  # what looks wrong with a given teacher
    # the grid's axes
    dataset: str | None = None
    teacher: str | None = None
    teacher_args: str | None = None  # JSON
    student: str | None = None
    student_args: str | None = None  # JSON
    mode: str | None = None
    method: str | None = None
    temperature: float | None = None
    alpha: float | None = None
    params: str | None = None  # JSON: all of the method's parameters; temperature and alpha are those of kd
    seed: int | None = None
    start: str | None = None  # scratch | pretrained:NAME | checkpoint:SHA256 | given:SHA256 (not trained)
    targets: str | None = None  # where the teacher's logits came from: cached | online
    view_stream: int | None = None
    # the stages it was computed from
    dataset_id: str | None = None
    teacher_id: str | None = None
    logits_id: str | None = None
    teacher_sha256: str | None = None  # of the teacher's weights that were used
    inputs: str | None = None  # JSON: by the id of each, the sha256 of what was used of it: weights, or a fingerprint
    # what it left: see weights_file, curve_file and predictions_file
    files: str | None = None  # JSON: the size in bytes of each file by its name
    weights_sha256: str | None = None
    curve_sha256: str | None = None
    predictions_sha256: str | None = None  # of the logits of the plain val and test images at the last epoch
    # the model: the student's for a cell, the teacher's for a teacher
    parameters: int | None = None
    size_bytes: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    latency_ms_q1: float | None = None
    latency_ms_q3: float | None = None
    latency_batch: int | None = None  # images
    latency_runs: int | None = None  # batches measured
    throughput: float | None = None  # images per second at that batch
    latency_device: str | None = None
    # metrics
    epochs: int | None = None
    best_epoch: int | None = None
    val_top1_last: float | None = None
    val_top1_best: float | None = None
    val_top5_last: float | None = None
    val_top5_best: float | None = None
    val_nll_last: float | None = None
    val_nll_best: float | None = None
    val_ece_last: float | None = None
    val_ece_best: float | None = None
    val_agreement_last: float | None = None
    val_agreement_best: float | None = None
    test_top1_last: float | None = None
    test_top1_best: float | None = None
    test_top5_last: float | None = None
    test_top5_best: float | None = None
    test_nll_last: float | None = None
    test_nll_best: float | None = None
    test_ece_last: float | None = None
    test_ece_best: float | None = None
    test_agreement_last: float | None = None
    test_agreement_best: float | None = None
    best_test_top1: float | None = None
    best_test_epoch: int | None = None
    train_loss_last: float | None = None
    train_top1_last: float | None = None
    # time
    started_at: str | None = None
    finished_at: str | None = None
    seconds_setup: float | None = None
    seconds_train: float | None = None
    seconds_evaluate: float | None = None
    seconds_total: float | None = None
    device_seconds: float | None = None
    # provenance
    launch: str | None = None
    tries: int | None = None  # how often that launch began the stage; each but the last ended with the loss of a worker
    code_version: str | None = None
    versions: str | None = None  # JSON
    device: str | None = None
    threads: int | None = None
    workers: int | None = None
    precision: str | None = None
    deterministic: bool | None = None
    dataset_fingerprint: str | None = None
    class_names: str | None = None  # of a data set, JSON: by number; None where they have numbers alone
    recipe: str | None = None  # JSON

    def __post_init__(self) -> None:
        for name, expected in FIELDS.items():
            value = getattr(self, name)
            if expected is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif value is not None and type(value) is not expected:
                raise TypeError(f"record field {name}: expected {expected.__name__}, got {value!r}")
        check_figures(vars(self), FIGURES)

    def metric(self, split: str, metric: str, point: str = "last") -> float | None:
        value: float | None = getattr(self, metric_field(split, metric, point))
        return value


# The type of each field, but for None.
FIELDS: dict[str, type] = {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(Record).items()}

# The metrics, and what each can be where that is no fraction.
METRICS = tuple(name[len("test_") : -len("_last")] for name in FIELDS if re.fullmatch("test_[a-z0-9_]+_last", name))
_RANGES: dict[str, Range] = {"nll": UNBOUNDED}

# The fields of metrics, with the metric of each; and what each figure can be.
METRIC_FIELDS = {metric_field(s, metric, point): metric for s in SPLITS for metric in METRICS for point in POINTS}
FIGURES: dict[str, Range] = {
    **{name: _RANGES.get(metric, FRACTION) for name, metric in METRIC_FIELDS.items()},
    **RANGES,
}


def parse_record(data: bytes) -> Record:
    """Fields that a later version has added are passed over. Raises ValueError with the reason that it is none, on one
    line."""
    try:
        values = parse_json(data)
        if not isinstance(values, dict) or type(values.get("schema_version")) is not int:
            raise ValueError("it has no schema_version")
        version = values["schema_version"]
        if version > SCHEMA_VERSION:
            raise NewerRecordError(f"of schema version {version}, newer than this program: update it")
        return Record(**{name: _typed(name, values.get(name), expected) for name, expected in FIELDS.items()})
    except NewerRecordError:
        raise
    except ValueError as error:
        raise ValueError(f"not a record: {error}") from None


def hashed_name(name: str, sha256: str) -> str:
    """'model.safetensors' -> 'model-0123456789abcdef.safetensors': of these very bytes, so that nothing that is written
    later takes their place."""
    stem, dot, ending = name.partition(".")
    return f"{stem}-{sha256[:NAME_DIGITS]}{dot}{ending}"


def weights_file(record: Record) -> str:
    """The file of a record's weights."""
    return _named(WEIGHTS, record)


def curve_file(record: Record) -> str:
    """The file of a record's curve."""
    return _named(CURVE, record)


def predictions_file(record: Record) -> str | None:
    """The file of a record's predictions; None where none were kept."""
    return None if record.predictions_sha256 is None else _named(PREDICTIONS, record)


def _named(name: str, record: Record) -> str:
    sha256 = _sum(name, record)
    # A record may be anybody's: no name is made of anything but hexadecimal digits.
    if sha256 is None or record.files is None or not _SHA256.fullmatch(sha256):
        return name
    return hashed_name(name, sha256)


def _sum(name: str, record: Record) -> str | None:
    sha256: str | None = getattr(record, SUMS[name])
    return sha256


def is_of_record(record: Record, name: str, data: bytes) -> bool:
    """Whether these are the bytes of a record's weights, curve or predictions (name: as in SUMS); of records of before
    those were hashed nobody knows, and they are taken for it."""
    return _sum(name, record) in (None, hashlib.sha256(data).hexdigest())


def files_of(record: Record) -> dict[str, int] | None:
    """The sizes of a record's files by their names; None where it is older than that. Raises ValueError."""
    if record.files is None:
        return None
    files = parse_object(record.files.encode())
    if not all(type(size) is int for size in files.values()):
        raise ValueError("its files have no sizes")
    return files


def used_inputs(record: Mapping[str, Any]) -> dict[str, str]:
    """By the id of each stage that a record's was computed from, the sha256 of what was used of it. Older records have
    it of the data set and the teacher, in fields of their own; still older ones do not say."""
    with contextlib.suppress(ValueError):
        found = parse_object((record["inputs"] or "{}").encode())
        if found and all(isinstance(sha256, str) for sha256 in found.values()):
            return found
    before = {record["teacher_id"]: record["teacher_sha256"], record["dataset_id"]: record["dataset_fingerprint"]}
    return {of: used for of, used in before.items() if None not in (of, used) and of != record["stage_id"]}


def contents(record: Mapping[str, Any]) -> str | None:
    """What others use of a record's stage, as their records have it."""
    sha256: str | None = record["dataset_fingerprint" if record["kind"] == "dataset" else "weights_sha256"]
    return sha256


def other_inputs(record: Record, inputs: Mapping[str, Record | None]) -> list[str]:
    """The ids of a stage's inputs that are others now than those it was computed from. inputs: the records of the
    stages that it needs, None where there are none."""
    now = {of: None if found is None else contents(vars(found)) for of, found in inputs.items()}
    used = used_inputs(vars(record))
    return [of for of in inputs if None not in (used.get(of), now[of]) and used[of] != now[of]]


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
