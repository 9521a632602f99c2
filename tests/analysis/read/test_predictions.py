"""Predictions are read with the labels that they are of, and what is wrong with them is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from analysis.errors import AnalysisError
from analysis.read.load import load_grid
from analysis.read.predictions import OUTCOMES, class_names, outcomes, predictions, read_logits, without_predictions
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.predicting import DATA, logits_for, npy, predicts, prepare_data

Maker = Callable[..., SyntheticGrid]

LABELS = {"val": [0, 1], "test": [0, 1, 2, 2]}


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    made = make_grid(seeds=[0], val_size=2)
    prepare_data(made, classes=3, names=["cat", "dog", "eel"], **LABELS)
    return made


def test_a_row_an_image_with_its_label_its_predicted_class_and_its_confidence(grid: SyntheticGrid) -> None:
    row = grid.one(mode="baseline")
    predicts(grid, row, {"val": logits_for([0, 0], 3), "test": logits_for([0, 2, 2, 1], 3)}, LABELS)
    loaded = load_grid(grid.storage)
    frame = outcomes(loaded)
    assert frame.schema == OUTCOMES
    assert frame.drop("stage_id", "confidence").rows() == [
        ("val", 0, 0, 0),
        ("val", 1, 1, 0),
        ("test", 0, 0, 0),
        ("test", 1, 1, 2),
        ("test", 2, 2, 2),
        ("test", 3, 2, 1),
    ]
    assert frame["confidence"].to_list() == pytest.approx([np.e**2 / (np.e**2 + 2)] * 6, rel=1e-6)
    assert set(frame["stage_id"]) == {row["stage_id"]}
    with_axes = predictions(loaded)
    assert with_axes.select("student", "mode", "seed", "split", "image").row(2) == (
        "ResNet-S",
        "baseline",
        0,
        "test",
        0,
    )
    assert class_names(loaded) == {DATA: ["cat", "dog", "eel"]}
    assert loaded.problems == []


def test_the_first_of_equal_logits_is_the_predicted_class(grid: SyntheticGrid) -> None:
    row = grid.one(mode="baseline")
    predicts(grid, row, {"test": np.zeros((4, 3), dtype=np.float16)}, LABELS)
    assert outcomes(load_grid(grid.storage))["predicted"].to_list() == [0, 0, 0, 0]


def test_what_keeps_none_is_told_apart_and_is_no_problem(grid: SyntheticGrid) -> None:
    for row in grid.rows:
        grid.done(row, 50.0)
    loaded = load_grid(grid.storage)
    assert outcomes(loaded).is_empty()
    assert without_predictions(loaded).height == 3
    assert loaded.problems == []
    with pytest.raises(AnalysisError, match="keeps no predictions"):
        read_logits(loaded, grid.rows[0]["stage_id"])
    with pytest.raises(AnalysisError, match="'abc' is no teacher or cell of grid tiny that is done"):
        read_logits(loaded, "abc")


def test_logits_are_given_as_they_are_kept(grid: SyntheticGrid) -> None:
    row, logits_NC = grid.one(mode="baseline"), logits_for([0, 1, 2, 0], 3)
    predicts(grid, row, {"test": logits_NC}, LABELS)
    found = read_logits(load_grid(grid.storage), row["stage_id"])
    assert [*found] == ["test"]
    assert found["test"].dtype == np.float16
    assert (found["test"] == logits_NC).all()


@pytest.mark.parametrize(
    ("logits", "facts", "reason"),
    [
        (logits_for([0, 1], 3), {}, "not predictions of its data set: test has 2 images and 3 classes, the data set 4"),
        (logits_for([0, 1, 2, 2], 4), {}, "not predictions of its data set: test has 4 images and 4 classes"),
        (logits_for([0, 1, 2, 2], 3).astype(np.float32), {}, "not predictions: test is float32 of shape (4, 3)"),
        (np.full((4, 3), np.inf, dtype=np.float16), {}, "not predictions: test has logits that are not finite"),
        (
            logits_for([0, 1, 2, 2], 3),
            {"test_top1_last": 0.5},
            "not predictions of its images: test has top-1 1.0000, its record says 0.5000",
        ),
        (
            logits_for([0, 1, 2, 2], 3),
            {"predictions_sha256": "0" * 64},
            "missing",
        ),
    ],
)
def test_predictions_that_are_not_those_of_their_record_and_images_are_named(
    grid: SyntheticGrid, logits: np.ndarray, facts: dict[str, float | str], reason: str
) -> None:
    labels = {**LABELS, "test": LABELS["test"][: len(logits)]}
    predicts(grid, grid.one(mode="baseline"), {"test": logits}, labels, **facts)
    loaded = load_grid(grid.storage)
    assert outcomes(loaded).is_empty()
    assert outcomes(loaded).is_empty()
    (problem,) = loaded.problems
    folder = grid.folder(grid.one(mode="baseline"))
    assert problem.startswith(f"{folder}/predictions-")
    assert f".safetensors: {reason}" in problem


def test_damaged_bytes_and_another_trainings_file_are_named_and_the_others_shown(grid: SyntheticGrid) -> None:
    good, bad = grid.one(mode="baseline"), grid.one(mode="distilled")
    predicts(grid, good, {"test": logits_for([0, 1, 2, 2], 3)}, LABELS)
    path = predicts(grid, bad, {"test": logits_for([0, 0, 2, 2], 3)}, LABELS)
    data = bytearray((grid.root / path).read_bytes())
    data[-1] ^= 1
    grid.write(path, bytes(data))
    loaded = load_grid(grid.storage)
    assert set(outcomes(loaded)["stage_id"]) == {good["stage_id"]}
    assert loaded.problems == [f"{path}: not the predictions of its record: damaged, or of another training"]


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"train": np.zeros((4, 3), dtype=np.float16)}, "not predictions: they are of train"),
        ({}, "not predictions: they are of nothing"),
        (None, "not predictions: SafetensorError: "),
    ],
)
def test_a_file_of_something_else_is_none(
    grid: SyntheticGrid, tensors: dict[str, np.ndarray] | None, reason: str
) -> None:
    """Even where its hash is on the record."""
    data = b"no safetensors" if tensors is None else safetensors.numpy.save(tensors)
    sha256, row = hashlib.sha256(data).hexdigest(), grid.one(mode="baseline")
    name = f"predictions-{sha256[:16]}.safetensors"
    grid.done(row, 50.0, predictions_sha256=sha256, files=json.dumps({name: len(data)}), dataset_id=DATA)
    grid.write(f"{grid.folder(row)}/{name}", data)
    loaded = load_grid(grid.storage)
    assert outcomes(loaded).is_empty()
    (problem,) = loaded.problems
    assert problem.startswith(f"{grid.folder(row)}/{name}: {reason}")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("file", "data", "reason"),
    [
        ("test_labels.npy", None, "missing, and nobody knows without it which predictions are right"),
        ("test_labels.npy", b"no numbers", "no labels: not an array of numbers"),
        ("test_labels.npy", npy(np.zeros(4)), "no labels: float64 of shape (4,)"),
        ("test_labels.npy", npy(np.array([0, 1, 2, 3])), "no labels: they are outside of 0 to 2"),
        ("dataset.json", b"{}", "it does not say how many classes there are"),
        ("dataset.json", None, "missing, and nobody knows"),
    ],
)
def test_labels_that_cannot_be_read_are_named_once_for_all_that_are_of_them(
    grid: SyntheticGrid, file: str, data: bytes | None, reason: str
) -> None:
    for row in grid.rows:
        predicts(grid, row, {"test": logits_for([0, 1, 2, 2], 3)}, LABELS)
    path = f"datasets/{DATA}/{file}"
    (grid.root / path).unlink()
    if data is not None:
        grid.write(path, data)
    loaded = load_grid(grid.storage)
    assert outcomes(loaded).is_empty()
    (problem,) = loaded.problems
    assert problem.startswith(f"{path}: ")
    assert reason in problem


@pytest.mark.parametrize("names", ["no JSON", "[1, 2, 3]", '{"a": 1}', None])
def test_names_that_are_none_are_passed_over(grid: SyntheticGrid, names: str | None) -> None:
    row = {"stage_id": DATA, "kind": "dataset", "teacher": None, "student": None}
    grid.write(f"datasets/{DATA}/record.json", grid.record(row, status="done", class_names=names))
    loaded = load_grid(grid.storage)
    assert class_names(loaded) == {}
    assert loaded.stages.filter(pl.col("kind") == "dataset")["status"].to_list() == ["done"]
