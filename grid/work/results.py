"""From a stage and what was measured to the values of its record."""

from __future__ import annotations

import io
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib import metadata

import polars as pl
import torch
from torch import nn

from grid.contract.figures import SPLITS, metric_field
from grid.contract.record import METRICS
from grid.plan import Stage, Trainable, image_size
from grid.store.records import Value
from grid.work.models import facts_of, start_of
from kd.data.dataset import DatasetMeta
from kd.machine import measure
from kd.machine.device import device_name
from kd.precision import resolve
from kd.recipe import Precision
from kd.training.state import CurveRow

LATENCY_BATCH = 32
LATENCY_RUNS = 100
LATENCY_SECONDS = 10.0  # a large model on one CPU core needs as much for a single batch
LATENCY_SHARE = 0.1  # of the seconds of a training: of short ones there are hundreds, and analyses take the median


def metrics_of(curve: list[CurveRow]) -> dict[str, Value]:
    """Last and best points of a curve."""
    evaluated = [row for row in curve if "test_top1" in row or "val_top1" in row]
    last = curve[-1]
    values: dict[str, Value] = {
        "train_loss_last": last.get("train_loss"),
        "train_top1_last": last.get("train_top1"),
    }
    points = {"last": last}
    if "val_top1" in last:
        # max() keeps the first of equals: the earliest epoch.
        points["best"] = max(evaluated, key=lambda row: float(row["val_top1"] or 0))
        values["best_epoch"] = points["best"]["epoch"]
    for point, row in points.items():
        values |= {metric_field(s, m, point): row.get(f"{s}_{m}") for s in SPLITS for m in METRICS}
    if "test_top1" in last:
        best = max(evaluated, key=lambda row: float(row["test_top1"] or 0))
        values |= {"best_test_top1": best["test_top1"], "best_test_epoch": best["epoch"]}
    return values


def model_facts(
    stage: Trainable, model: nn.Module, meta: DatasetMeta, device: torch.device, *, seconds_train: float
) -> dict[str, Value]:
    """Size and cost of the trained model, with its latency on this device. seconds_train: what its training took; 0 of
    a given model."""
    size = image_size(stage.model, stage.data.dataset)
    counted = facts_of(stage.model, stage.data.dataset)
    timed = measure.latency(
        model,
        channels=meta.channels,
        size=size,
        batch=LATENCY_BATCH,
        runs=LATENCY_RUNS,
        seconds=min(LATENCY_SECONDS, LATENCY_SHARE * (seconds_train or math.inf)),
        device=device,
    )
    return {
        **asdict(counted),
        "start": start_of(stage.model),
        "latency_ms": timed.median_ms,
        "latency_ms_q1": timed.q1_ms,
        "latency_ms_q3": timed.q3_ms,
        "latency_batch": timed.batch,
        "latency_runs": timed.runs,
        "throughput": timed.throughput,
        "latency_device": timed.device,
    }


def used(stage: Stage, *, fingerprint: str, weights: Mapping[str, str]) -> dict[str, Value]:
    """What a stage was computed from: by the id of each, and in the fields that have it alone. weights: the sha256 of
    those of each of its sources."""
    images = {} if stage.images is None else {stage.images.id: fingerprint}
    alone = weights[stage.sources[0].id] if len(stage.sources) == 1 else None
    inputs = json.dumps({**images, **weights}, sort_keys=True)
    return {"dataset_fingerprint": fingerprint, "teacher_sha256": alone, "inputs": inputs}


def provenance(device: torch.device, precision: Precision) -> dict[str, Value]:
    """precision: as asked for; the record says what "auto" meant here."""
    return {
        "precision": resolve(precision, device),
        "versions": _versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
    }


@lru_cache
def _versions() -> str:
    packages = ("torch", "torchvision", "timm", "numpy", "ray", "polars")
    return json.dumps({"python": platform.python_version(), **{name: metadata.version(name) for name in packages}})


def curve_to_parquet(curve: list[CurveRow]) -> bytes:
    """A row an epoch; the columns of epochs that were not evaluated are null."""
    buffer = io.BytesIO()
    columns = list(dict.fromkeys(key for row in curve for key in row))
    pl.DataFrame({name: [row.get(name) for row in curve] for name in columns}, strict=False).write_parquet(buffer)
    return buffer.getvalue()
