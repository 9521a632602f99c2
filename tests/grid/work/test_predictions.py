"""What a model says of the val and test images at its last epoch is kept, and costs no second look at them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import grid.work.training
from grid.contract.record import predictions_file
from grid.plan import Plan
from grid.store.store import Store
from grid.work.dataset import opened
from grid.work.execute import Runtime
from grid.work.models import pixels_of, untrained
from kd.checkpoint import load_weights
from kd.evaluate import INFERENCE_BATCH, predict
from kd.recipe import Precision
from tests.grid.running import Trained, cell_of, curve, predictions, prepare, results, train, weights_bytes

Planner = Callable[..., Plan]
CPU = torch.device("cpu")


def again(store: Store, stage: Trained, runtime: Runtime, precision: Precision) -> dict[str, torch.Tensor]:
    """What its weights say of each split."""
    dataset = opened(stage.data, store, runtime)
    model = untrained(stage.model, dataset.meta, seed=stage.seed)
    load_weights(model, weights_bytes(store, stage), what="it")
    pixels = pixels_of(stage.model, dataset.meta, CPU)
    return {
        name: predict(model, dataset.split(name), pixels, batch_size=INFERENCE_BATCH, device=CPU, precision=precision)
        for name in dataset.evaluated
    }


@pytest.mark.parametrize(
    ("recipe", "precision", "mode"),
    [
        ({}, "float32", "distilled"),
        ({"ema_decay": 0.9}, "float32", "distilled"),
        ({"precision": "bfloat16"}, "bfloat16", "baseline"),
    ],
    ids=["plain", "averaged", "bfloat16"],
)
def test_predictions_are_the_float16_logits_of_the_weights_that_are_kept(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, recipe: dict[str, Any], precision: Precision, mode: str
) -> None:
    recipe = {"epochs": 2, "batch_size": 20, **recipe}
    only = {"teachers": [], "modes": ["baseline"]} if mode == "baseline" else {}
    plan = tiny_plan(seeds=[0], recipe=recipe, **only)
    store = Store(str(tmp_path))
    prepare(plan, store, runtime)
    cell = cell_of(plan, mode, student="vit_tiny_patch16_224")
    assert train(cell, store, runtime) is None
    for stage in (*plan.teachers, cell):
        record, kept = store.record(stage), predictions(store, stage)
        data = store.read(f"{stage.folder}/{predictions_file(record)}")
        assert record.predictions_sha256 == hashlib.sha256(data).hexdigest()
        assert json.loads(str(record.files))[predictions_file(record)] == len(data)
        assert kept.keys() == {"val", "test"}
        for name, logits_NC in again(store, stage, runtime, precision).items():
            labels_N = opened(plan.data, store, runtime).split(name).labels_N
            assert kept[name].dtype == torch.float16
            torch.testing.assert_close(kept[name].float(), logits_NC, rtol=2**-10, atol=1e-6)
            assert torch.equal(kept[name].argmax(dim=1), logits_NC.argmax(dim=1))
            hits = int((kept[name].argmax(dim=1) == labels_N).sum())
            assert hits / len(labels_N) == record.metric(name, "top1")  # to the last bit


def test_a_model_is_not_run_a_second_time_for_them_and_all_else_is_the_same_without(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    def counted(*args: Any, **named: Any) -> torch.Tensor:
        nonlocal runs
        runs += 1
        return predict(*args, **named)

    monkeypatch.setattr(grid.work.training, "predict", counted)
    plan, took = tiny_plan(seeds=[0]), []
    stores = [Store(str(tmp_path / name)) for name in ("kept", "not kept")]
    for store, is_kept in zip(stores, (True, False), strict=True):
        how, runs = replace(runtime, keep_predictions=is_kept), 0
        prepare(plan, store, how)
        for cell in plan.cells:
            assert train(cell, store, how) is None
        took.append(runs)
    assert took[0] == took[1]
    kept, other = stores
    for stage in (*plan.teachers, *plan.cells):
        assert other.is_done(stage)
        record = other.record(stage)
        assert (record.predictions_sha256, predictions_file(record)) == (None, None)
        assert not [name for name in other.names(stage.folder) if name.startswith("predictions")]
        assert weights_bytes(kept, stage) == weights_bytes(other, stage)
        assert curve(kept, stage).equals(curve(other, stage))
        assert results(replace(kept.record(stage), predictions_sha256=None)) == results(record)


def test_a_grid_that_is_asked_to_keep_them_later_computes_nothing_again(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    store = Store(str(tmp_path))
    before = tiny_plan(seeds=[0], resources={"keep_predictions": False})
    prepare(before, store, replace(runtime, keep_predictions=False))
    now = tiny_plan(seeds=[0])
    assert all(store.is_done(stage) for stage in now.teachers)


def test_without_a_validation_split_those_of_test_are_kept(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    dataset = {"name": "digits", "train_size": 60, "val_size": 0, "test_size": 40}
    plan, store = tiny_plan(seeds=[0], dataset=dataset), Store(str(tmp_path))
    prepare(plan, store, runtime)
    assert {name: [*of.shape] for name, of in predictions(store, plan.teachers[0]).items()} == {"test": [40, 10]}
