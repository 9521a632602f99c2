"""Stages run, resume and fail the same with or without Ray: here without."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch

from grid.plan import CellStage, Plan, TeacherStage
from grid.records import FIELDS, Record
from grid.stages import (
    Runtime,
    execute,
    finish_logits,
    missing_logits,
    prepare_dataset,
    record_failure,
    run_logits,
    run_trainable,
)
from grid.store import CHECKPOINT, CURVE, FAILURE, PROGRESS, TRACEBACK, WEIGHTS, Store

Planner = Callable[..., Plan]


@pytest.fixture
def runtime() -> Runtime:
    return Runtime.here(threads=1, launch="launch-1", code_version="test")


def run_all(plan: Plan, store: Store, runtime: Runtime) -> None:
    """Everything but the cells, as a launch would."""
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    for teacher in plan.teachers:
        train(teacher, store, runtime)
    for stage in plan.logits:
        run_logits(stage, store, runtime, missing_logits(stage, store))
        finish_logits(stage, store, runtime, seconds=1.0)


def train(stage: TeacherStage | CellStage, store: Store, runtime: Runtime) -> str | None:
    return execute(stage, store, runtime, lambda: run_trainable(stage, store, runtime))


def weights(store: Store, stage: TeacherStage | CellStage) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(store.read(f"{stage.folder}/{WEIGHTS}"))


def distilled(plan: Plan) -> CellStage:
    return next(cell for cell in plan.cells if cell.mode == "distilled")


def curve(store: Store, stage: TeacherStage | CellStage) -> pl.DataFrame:
    frame = pl.read_parquet(io.BytesIO(store.read(f"{stage.folder}/{CURVE}")))
    return frame.drop([name for name in frame.columns if name.startswith("seconds_")])


def test_a_grid_of_stages_leaves_complete_records(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    run_all(plan, store, runtime)
    for cell in plan.cells:
        assert train(cell, store, runtime) is None
    for stage in plan.stages:
        assert store.is_done(stage)
        record = store.record(stage)
        assert (record["stage_id"], record["status"], record["launch"]) == (stage.id, "done", "launch-1")
    record = store.record(distilled(plan))
    absent = {name for name in FIELDS if record[name] is None}
    assert absent == {"error"}
    assert record["teacher_id"] == plan.teachers[0].id
    assert json.loads(str(record["recipe"]))["epochs"] == 2
    assert store.names(distilled(plan).folder) == sorted(["curve.parquet", "identity.json", WEIGHTS, "record.json"])


def test_record_metrics_are_those_of_the_saved_weights(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    """Recomputed from the files alone, with a plain loop."""
    from kd.models.build import build

    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    run_all(plan, store, runtime)
    cell = distilled(plan)
    assert train(cell, store, runtime) is None
    folder = tmp_path / plan.data.folder
    meta = json.loads((folder / "dataset.json").read_text())
    images = np.load(folder / "test_images.npy").astype(np.float32) / 255
    inputs = torch.from_numpy((images - meta["mean"][0]) / meta["std"][0])
    model = build(cell.model.name, args=cell.model.args, classes=10, channels=1)
    model.load_state_dict(weights(store, cell))
    predicted = model.eval()(inputs).argmax(dim=1).numpy()
    top1 = float((predicted == np.load(folder / "test_labels.npy")).mean())
    record = store.record(cell)
    assert record["test_top1_last"] == pytest.approx(top1, abs=1e-6)
    teacher_says = np.load(tmp_path / plan.logits[0].folder / "test.npy").argmax(axis=1)
    assert record["test_agreement_last"] == pytest.approx(float((predicted == teacher_says).mean()), abs=1e-6)
    rows = curve(store, cell)
    assert record["best_test_top1"] == rows["test_top1"].max()
    best = rows.row(by_predicate=pl.col("epoch") == record["best_epoch"], named=True)
    assert best["val_top1"] == rows["val_top1"].max()
    assert record["test_top1_best"] == best["test_top1"]


class Killed(BaseException):
    """Stands for a kill: no handler of the program's own catches it."""


class DyingStore(Store):
    """A storage whose process dies just after it has published the checkpoint of some epoch."""

    def __init__(self, url: str, *, checkpoints: int) -> None:
        super().__init__(url)
        self.left = checkpoints

    def write(self, path: str, data: bytes) -> None:
        super().write(path, data)
        if path.endswith(CHECKPOINT):
            self.left -= 1
            if self.left == 0:
                raise Killed


@pytest.mark.parametrize("mode", ["baseline", "distilled"])
def test_interrupted_and_continued_is_uninterrupted_to_the_bit(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, mode: str
) -> None:
    recipe = {"epochs": 4, "batch_size": 20, "views": {"crop_padding": 1}, "evaluate_every": 2}
    plan = tiny_plan(seeds=[3], recipe=recipe)
    cell = next(cell for cell in plan.cells if cell.mode == mode and "resnet" in cell.model.name)
    whole, broken = Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken"))
    for store in (whole, broken):
        run_all(plan, store, runtime)
    assert train(cell, whole, runtime) is None
    for checkpoints in (1, 2):
        dying = DyingStore(broken.url, checkpoints=checkpoints)
        with pytest.raises(Killed):
            train(cell, dying, runtime)
        assert not broken.is_done(cell)
    assert train(cell, broken, runtime) is None
    ours, theirs = weights(broken, cell), weights(whole, cell)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert curve(broken, cell).equals(curve(whole, cell))

    def results(record: Record) -> dict[str, Any]:
        passing = ("seconds", "latency", "_at")
        return {k: v for k, v in record.items() if not any(p in k for p in (*passing, "device_seconds"))}

    assert results(broken.record(cell)) == results(whole.record(cell))


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    run_all(plan, store, runtime)
    cell = plan.cells[0]
    with pytest.raises(Killed):
        train(cell, DyingStore(store.url, checkpoints=1), runtime)
    data = store.read(f"{cell.folder}/{CHECKPOINT}")
    store.write(f"{cell.folder}/{CHECKPOINT}", data[: len(data) // 2])
    assert train(cell, store, runtime) is None
    assert store.record(cell)["epochs"] == 2


def test_an_error_becomes_a_record_that_a_later_success_removes(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    run_all(plan, store, runtime)
    cell = plan.cells[0]
    data = tmp_path / plan.data.folder / "train_images.npy"
    kept = data.read_bytes()
    data.write_bytes(kept[:100])
    error = train(cell, store, runtime)
    assert error is not None
    assert "prepared data set" in error
    assert "delete the folder" in error
    assert "\n" not in error
    failure = store.failure(cell, launch=runtime.launch)
    assert failure is not None
    assert (failure["status"], failure["error"], failure["stage_id"]) == ("failed", error, cell.id)
    assert b"Traceback" in store.read(f"{cell.folder}/{TRACEBACK}")
    assert not store.is_done(cell)
    again = Runtime(launch=runtime.launch)
    record_failure(cell, store, "said later by another worker", launch=again.launch)
    first = store.failure(cell, launch=runtime.launch)
    assert first is not None
    assert first["error"] == error
    data.write_bytes(kept)
    assert train(cell, store, runtime) is None
    assert not {FAILURE, TRACEBACK, PROGRESS, CHECKPOINT} & set(store.names(cell.folder))


def test_a_diverging_cell_says_where(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    recipe = {"epochs": 3, "batch_size": 20, "optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"}
    plan, store = tiny_plan(teachers=[], modes=["baseline"], seeds=[0], recipe=recipe), Store(str(tmp_path))
    run_all(plan, store, runtime)
    error = train(plan.cells[1], store, runtime)
    assert error is not None
    assert error.startswith("DivergedError: the loss is")
    assert "epoch 1, step 2 of 3" in error
    assert "1e+30" in error


def test_logits_are_extended_not_recomputed(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    run_all(plan, store, runtime)
    folder = tmp_path / plan.logits[0].folder
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("epoch-*.npy")}
    assert sorted(before) == ["epoch-00000.npy", "epoch-00001.npy"]
    longer = plan.logits[0].model_copy(update={"epochs": 4})
    assert longer.id == plan.logits[0].id
    assert not store.is_done(longer)
    assert missing_logits(longer, store) == [2, 3]
    run_logits(longer, store, runtime, missing_logits(longer, store))
    finish_logits(longer, store, runtime, seconds=1.0)
    assert store.is_done(longer)
    assert store.is_done(plan.logits[0])
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("epoch-*.npy")}
    assert {name: after[name] for name in before} == before
    array = np.load(folder / "epoch-00003.npy")
    assert (array.dtype, array.shape) == (np.float16, (60, 10))


def test_a_teacher_is_shared_by_grids_and_its_files_stay_as_they_are(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    run_all(plan, store, runtime)
    other = tiny_plan(name="another", seeds=[0], temperature=2.0, students=["vit_tiny_patch16_224"])
    assert store.is_done(other.teachers[0])
    assert store.is_done(other.logits[0])
    assert not any(store.is_done(cell) for cell in other.cells)
