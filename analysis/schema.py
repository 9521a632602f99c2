"""The columns of the frames, as polars types. The record's fields are written by `grid.records`; this is the reader's
statement of them, so that an analysis stands without the code that ran the grid."""

from __future__ import annotations

import polars as pl

RECORD_SCHEMA_VERSION = 1
PLAN_SCHEMA_VERSION = 1

METRICS = ("top1", "top5", "nll", "ece", "agreement")
POINTS = ("last", "best")

RECORD: dict[str, type[pl.DataType]] = {
    "schema_version": pl.Int64,
    "stage_id": pl.String,
    "kind": pl.String,
    "status": pl.String,
    "error": pl.String,
    "dataset": pl.String,
    "teacher": pl.String,
    "teacher_args": pl.String,
    "student": pl.String,
    "student_args": pl.String,
    "mode": pl.String,
    "method": pl.String,
    "temperature": pl.Float64,
    "alpha": pl.Float64,
    "seed": pl.Int64,
    "start": pl.String,
    "targets": pl.String,
    "view_stream": pl.Int64,
    "dataset_id": pl.String,
    "teacher_id": pl.String,
    "logits_id": pl.String,
    "weights_sha256": pl.String,
    "teacher_sha256": pl.String,
    "parameters": pl.Int64,
    "size_bytes": pl.Int64,
    "macs": pl.Int64,
    "latency_ms": pl.Float64,
    "latency_ms_q1": pl.Float64,
    "latency_ms_q3": pl.Float64,
    "latency_batch": pl.Int64,
    "latency_runs": pl.Int64,
    "throughput": pl.Float64,
    "latency_device": pl.String,
    "epochs": pl.Int64,
    "best_epoch": pl.Int64,
    **{f"{split}_{metric}_{point}": pl.Float64 for split in ("val", "test") for metric in METRICS for point in POINTS},
    "best_test_top1": pl.Float64,
    "best_test_epoch": pl.Int64,
    "train_loss_last": pl.Float64,
    "train_top1_last": pl.Float64,
    "started_at": pl.String,
    "finished_at": pl.String,
    "seconds_setup": pl.Float64,
    "seconds_train": pl.Float64,
    "seconds_evaluate": pl.Float64,
    "seconds_total": pl.Float64,
    "device_seconds": pl.Float64,
    "launch": pl.String,
    "tries": pl.Int64,
    "code_version": pl.String,
    "versions": pl.String,
    "device": pl.String,
    "threads": pl.Int64,
    "workers": pl.Int64,
    "precision": pl.String,
    "deterministic": pl.Boolean,
    "dataset_fingerprint": pl.String,
    "recipe": pl.String,
}

# The plan's rows: what a grid calls its cells. Labels come from here, since several grids may share a record.
ROW: dict[str, type[pl.DataType]] = {
    "kind": pl.String,
    "stage_id": pl.String,
    "teacher": pl.String,
    "student": pl.String,
    "mode": pl.String,
    "seed": pl.Int64,
    "method": pl.String,
    "temperature": pl.Float64,
    "alpha": pl.Float64,
    "teacher_id": pl.String,
}
