"""Stages run and fail the same with or without Ray, and leave records that are true: here without."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch

import grid.work.publish
import grid.work.training
from grid.contract.files.layout import FAILURE, PROGRESS
from grid.contract.record import FIELDS, curve_file, predictions_file, weights_file
from grid.plan import CellStage, Plan, TeacherStage
from grid.store.failures import record_failure
from grid.store.store import CHECKPOINT, TRACEBACK, Store
from grid.work.dataset import opened, prepare_dataset
from grid.work.execute import Runtime
from grid.work.results import model_facts
from kd.machine import measure
from kd.machine.measure import Latency
from tests.conftest import tiny_grid
from tests.grid.running import (
    Killed,
    WatchedStore,
    cell_of,
    curve,
    dying,
    prepare,
    saving_every_step,
    train,
    weights,
    weights_bytes,
)

Planner = Callable[..., Plan]


def test_a_grid_of_stages_leaves_complete_records(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    for cell in plan.cells:
        assert train(cell, store, runtime) is None
    for stage in plan.stages:
        assert store.is_done(stage)
        record = store.record(stage)
        assert (record.stage_id, record.status, record.launch) == (stage.id, "done", "launch-1")
    distilled = cell_of(plan, "distilled")
    record = store.record(distilled)
    absent = {name for name in FIELDS if getattr(record, name) is None}
    assert absent == {"error", "warning", "class_names"}
    assert record.teacher_id == plan.teachers[0].id
    assert json.loads(str(record.recipe))["epochs"] == 2
    assert store.names(distilled.folder) == sorted(
        [curve_file(record), "identity.json", weights_file(record), str(predictions_file(record)), "record.json"]
    )


def test_a_record_says_what_was_learned_from(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    """Its own weights and its teacher's by their hashes, the kind of targets, the views and the images."""
    store, fields = Store(str(tmp_path)), ("targets", "view_stream", "teacher_id", "logits_id", "precision")
    cached = tiny_plan(seeds=[5, 3], view_streams=2)
    online = tiny_plan(seeds=[5, 3], view_streams=2, targets="online")
    for plan in (cached, online):
        prepare(plan, store, runtime)
    (teacher,), (logits,) = cached.teachers, cached.logits
    sha256 = store.record(teacher).weights_sha256
    fingerprint = json.loads(store.read(f"{cached.data.folder}/dataset.json"))["fingerprint"]
    expected = [
        (cell_of(cached, "baseline"), (None, 0, None, None, "float32"), None),
        (cell_of(cached, "distilled"), ("cached", 0, teacher.id, logits.id, "float32"), sha256),
        (cell_of(online, "distilled"), ("online", 0, teacher.id, None, "float32"), sha256),
        (cached.cells[-1], ("cached", 1, teacher.id, logits.id, "float32"), sha256),
    ]
    for cell, facts, teacher_sha256 in expected:
        assert train(cell, store, runtime) is None
        record = store.record(cell)
        assert tuple(getattr(record, name) for name in fields) == facts
        assert record.teacher_sha256 == teacher_sha256
        taught = {of.id: teacher_sha256 for of in cell.sources}
        assert json.loads(record.inputs or "") == {cell.data.id: record.dataset_fingerprint, **taught}
        assert record.weights_sha256 == hashlib.sha256(weights_bytes(store, cell)).hexdigest()
        assert record.dataset_fingerprint == fingerprint
        assert json.loads(str(record.recipe))["precision"] == "auto"
    record = store.record(teacher)
    assert sha256 == hashlib.sha256(weights_bytes(store, teacher)).hexdigest()
    assert (record.teacher_sha256, record.targets, record.view_stream) == (None, None, 0)
    assert record.dataset_fingerprint == store.record(cached.data).dataset_fingerprint == fingerprint


def test_the_record_says_the_precision_that_was_asked_for(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    recipe = {"epochs": 1, "batch_size": 20, "precision": "bfloat16"}
    plan, store = tiny_plan(teachers=[], modes=["baseline"], seeds=[0], recipe=recipe), Store(str(tmp_path))
    prepare(plan, store, runtime)
    assert train(plan.cells[0], store, runtime) is None
    assert store.record(plan.cells[0]).precision == "bfloat16"


def test_other_splits_have_another_fingerprint(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    store, fingerprints = Store(str(tmp_path)), set()
    for change in ({}, {"split_seed": 1}, {"train_size": 61}, {"val_size": 21}):
        dataset = {**tiny_grid()["dataset"], **change}
        plan = tiny_plan(teachers=[], modes=["baseline"], dataset=dataset)
        prepare(plan, store, runtime)
        fingerprints.add(store.record(plan.data).dataset_fingerprint)
    assert len(fingerprints) == 4


def test_record_metrics_are_those_of_the_saved_weights(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    """Recomputed from the files alone, with a plain loop."""
    from kd.models.build import build

    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    cell = cell_of(plan, "distilled")
    assert train(cell, store, runtime) is None
    folder = tmp_path / plan.data.folder
    meta = json.loads((folder / "dataset.json").read_text())
    images_NHWC = np.load(folder / "test_images.npy").astype(np.float32) / 255
    inputs = torch.from_numpy((images_NHWC - meta["mean"][0]) / meta["std"][0]).permute(0, 3, 1, 2)

    def predicted_by(stage: TeacherStage | CellStage) -> np.ndarray:
        model = build(stage.model.name, args=stage.model.args, classes=10, channels=1)
        model.load_state_dict(weights(store, stage))
        classes: np.ndarray = model.eval()(inputs).argmax(dim=1).numpy()
        return classes

    predicted = predicted_by(cell)
    top1 = float((predicted == np.load(folder / "test_labels.npy")).mean())
    record = store.record(cell)
    assert record.test_top1_last == pytest.approx(top1, abs=1e-6)
    agreement = float((predicted == predicted_by(plan.teachers[0])).mean())
    assert record.test_agreement_last == pytest.approx(agreement, abs=1e-6)
    stored = safetensors.torch.load(store.read(f"{plan.logits[0].folder}/test.safetensors"))["values"]
    assert float((predicted == stored.argmax(dim=1).numpy()).mean()) == pytest.approx(agreement, abs=1e-6)
    rows = curve(store, cell)
    assert record.best_test_top1 == rows["test_top1"].max()
    best = rows.row(by_predicate=pl.col("epoch") == record.best_epoch, named=True)
    assert best["val_top1"] == rows["val_top1"].max()
    assert record.test_top1_best == best["test_top1"]


@pytest.mark.parametrize(("seconds_train", "limit"), [(0.0, 10.0), (0.02, 0.002), (3.0, 0.3), (3600.0, 10.0)])
def test_a_latency_takes_a_tenth_of_the_training_at_most(
    tmp_path: Path,
    tiny_plan: Planner,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    seconds_train: float,
    limit: float,
) -> None:
    """Of a model that was not trained here, ten seconds."""
    limits: list[float] = []

    def latency(model: torch.nn.Module, *, seconds: float, **options: Any) -> Latency:
        limits.append(seconds)
        return Latency(2.0, 1.5, 3.0, batch=4, runs=3, device="CPU")

    monkeypatch.setattr(measure, "latency", latency)
    plan, store = tiny_plan(), Store(str(tmp_path))
    cell, device = plan.cells[0], torch.device("cpu")
    prepare_dataset(plan.data, store, runtime)
    meta = opened(plan.data, store, runtime).meta
    facts = model_facts(cell, torch.nn.Identity(), meta, device, seconds_train=seconds_train)
    assert limits == [pytest.approx(limit)]
    assert (facts["latency_ms"], facts["throughput"]) == (2.0, 2000.0)


@pytest.mark.parametrize("student", ["resnet18", "vit_tiny_patch16_224"])
def test_an_online_teacher_teaches_what_exact_logits_do(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, student: str
) -> None:
    """They differ by the rounding of float32 alone, which on some machines is none."""
    store = Store(str(tmp_path))
    cells = []
    for how in ({"logits": {"dtype": "float32"}}, {"targets": "online"}):
        plan = tiny_plan(seeds=[0], **how)
        prepare(plan, store, runtime)
        cells.append(cell_of(plan, "distilled", student=student))
        assert train(cells[-1], store, runtime) is None
    cached, online = (store.record(cell) for cell in cells)
    for name in ("train_loss_last", "val_nll_last", "test_nll_last"):
        assert getattr(online, name) == pytest.approx(getattr(cached, name), abs=1e-3), name
    for name in ("test_top1_last", "test_agreement_last", "val_agreement_last"):
        assert getattr(online, name) == pytest.approx(getattr(cached, name), abs=0.021), name
    alone = cell_of(plan, "baseline", student=student)
    assert train(alone, store, runtime) is None
    assert abs(store.record(alone).train_loss_last - online.train_loss_last) > 0.1


def test_an_online_teacher_serves_views_that_depend_on_the_batch(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    views = {"crop_padding": 1, "mixing": {"mixup_alpha": 0.4, "partners": "batch"}}
    recipe = {"epochs": 2, "batch_size": 20, "views": views}
    plan, store = tiny_plan(seeds=[0], recipe=recipe, targets="online"), Store(str(tmp_path))
    prepare(plan, store, runtime)
    cell = cell_of(plan, "distilled")
    assert train(cell, store, runtime) is None
    assert store.record(cell).targets == "online"
    assert store.record(cell).test_agreement_last is not None


def test_progress_is_done_of_total_epochs_with_their_parts(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid.work.publish, "PROGRESS_SECONDS", 0.0)
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    reports: list[tuple[float, float]] = []

    def note(path: str) -> None:
        if path.endswith(PROGRESS):
            facts = json.loads(store.read(path))
            reports.append((round(facts["done"], 3), facts["total"]))

    assert train(plan.cells[0], WatchedStore(store.url, note), saving_every_step(runtime)) is None
    assert reports == [(0, 2), (0.333, 2), (0.667, 2), (1, 2), (1.333, 2), (1.667, 2), (2, 2)]
    assert PROGRESS not in store.names(plan.cells[0].folder)


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    cell = plan.cells[0]
    with pytest.raises(Killed):
        train(cell, dying(store, after=1), runtime)
    data = store.read(f"{cell.folder}/{CHECKPOINT}")
    store.write(f"{cell.folder}/{CHECKPOINT}", data[: len(data) // 2])
    assert train(cell, store, runtime) is None
    assert store.record(cell).epochs == 2


def test_an_error_becomes_a_record_that_a_later_success_removes(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    cell = plan.cells[0]

    def fails(*args: object, **how: object) -> None:
        raise ValueError("no such\nmodel")

    with monkeypatch.context() as patch:
        patch.setattr(grid.work.training, "at_start", fails)
        error = train(cell, store, runtime)
    assert error == "ValueError: no such model"
    failure = store.failure(cell, launch=runtime.launch)
    assert failure is not None
    assert (failure.status, failure.error, failure.stage_id) == ("failed", error, cell.id)
    assert b"Traceback" in store.read(f"{cell.folder}/{TRACEBACK}")
    assert not store.is_done(cell)
    record_failure(cell, store, "said later by another worker", launch=runtime.launch)
    first = store.failure(cell, launch=runtime.launch)
    assert first is not None
    assert first.error == error
    assert train(cell, store, runtime) is None
    assert not {FAILURE, TRACEBACK, PROGRESS, CHECKPOINT} & set(store.names(cell.folder))


def test_a_diverging_cell_says_where(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    recipe = {"epochs": 3, "batch_size": 20, "optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"}
    plan, store = tiny_plan(teachers=[], modes=["baseline"], seeds=[0], recipe=recipe), Store(str(tmp_path))
    prepare(plan, store, runtime)
    error = train(plan.cells[1], store, runtime)
    assert error is not None
    assert error.startswith("DivergedError: the loss is")
    assert "epoch 1, step 2 of 3" in error
    assert "1e+30" in error


def test_a_cell_without_its_teacher_fails_and_names_the_file(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    store = Store(str(tmp_path))
    for how in ({}, {"targets": "online"}):
        plan = tiny_plan(seeds=[0], **how)
        prepare(plan, store, runtime)
        cell = cell_of(plan, "distilled")
        store.remove_folder(plan.teachers[0].folder)
        error = train(cell, store, runtime)
        assert error is not None
        assert plan.teachers[0].id in error
        assert not store.is_done(cell)


def test_a_teacher_is_shared_by_grids_and_its_files_stay_as_they_are(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    other = tiny_plan(name="another", seeds=[0], temperature=2.0, students=["vit_tiny_patch16_224"])
    assert store.is_done(other.teachers[0])
    assert store.is_done(other.logits[0])
    assert not any(store.is_done(cell) for cell in other.cells)
