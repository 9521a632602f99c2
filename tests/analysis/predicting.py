"""Predictions as a launch leaves them, of a synthetic grid: each image's label and predicted class are chosen."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy

from grid.contract.record import PREDICTIONS, hashed_name
from grid.store.records import Value
from tests.analysis.conftest import Row, SyntheticGrid

DATA = "d" * 16


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def prepare_data(
    grid: SyntheticGrid, *, classes: int, names: Sequence[str] | None = None, **labels: Sequence[int]
) -> None:
    """The data set's folder and record, with the labels of val and test."""
    grid.write(f"datasets/{DATA}/dataset.json", json.dumps({"classes": classes}).encode())
    for split in ("val", "test"):
        array = np.array(labels.get(split, []), dtype=np.int64)
        grid.write(f"datasets/{DATA}/{split}_labels.npy", npy(array))
    known = None if names is None else json.dumps(names)
    row = {"stage_id": DATA, "kind": "dataset", "teacher": None, "student": None}
    grid.write(f"datasets/{DATA}/record.json", grid.record(row, status="done", class_names=known))
    grid.plan["stages"] = [{"id": DATA, "kind": "dataset"}, *grid.plan["stages"]]
    grid.write_plan()


def logits_for(predicted_N: Sequence[int], classes: int, *, above: float = 2.0) -> np.ndarray:
    """float16 [N, C], of which the predicted class is above all others."""
    logits_NC = np.zeros((len(predicted_N), classes), dtype=np.float16)
    logits_NC[np.arange(len(predicted_N)), np.asarray(predicted_N)] = above
    return logits_NC


def predicts(
    grid: SyntheticGrid, row: Row, logits: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[int]], **facts: Value
) -> str:
    """The stage is done and keeps these logits; returns their file's path below the storage."""
    data = safetensors.numpy.save({split: np.ascontiguousarray(of) for split, of in logits.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    name = hashed_name(PREDICTIONS, sha256)
    top1: dict[str, Any] = {
        split: float((of.argmax(axis=1) == np.asarray(labels[split])).sum()) / len(of) for split, of in logits.items()
    }
    values: dict[str, Value] = {
        "predictions_sha256": sha256,
        "files": json.dumps({name: len(data)}),
        "dataset_id": DATA,
    }
    values |= {f"{split}_top1_last": share for split, share in top1.items() if split != "test"} | facts
    grid.write(f"{grid.folder(row)}/{name}", data)
    grid.done(row, 100 * top1["test"], **{"test_top1_last": top1["test"], **values})
    return f"{grid.folder(row)}/{name}"
