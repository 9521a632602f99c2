"""What a model says of the val and test images at its last epoch is kept, and costs no second look at them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import analysis
import grid.work.training
from analysis import cli
from analysis.report import report
from grid.contract.record import predictions_file
from grid.plan import Plan, make_plan
from grid.read.grid_file import load_grid
from grid.store.plan_file import write_plan
from grid.store.store import Store
from grid.work.dataset import opened
from grid.work.execute import Runtime
from grid.work.models import pixels_of, untrained
from kd.checkpoint import load_weights
from kd.evaluate import INFERENCE_BATCH, predict
from kd.recipe import Precision
from tests.conftest import tiny_grid
from tests.grid.running import Trained, cell_of, curve, predictions, prepare, results, train, weights_bytes
from tests.images import png

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


def test_a_stage_whose_predictions_are_gone_or_cut_is_not_done(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    """As with weights and curve: its record names them."""
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    prepare(plan, store, runtime)
    (teacher,) = plan.teachers
    path = f"{teacher.folder}/{predictions_file(store.record(teacher))}"
    data = store.read(path)
    store.write(path, data[:-1])
    assert f"has {len(data) - 1} bytes, its record says {len(data)}" in str(store.standing(teacher).damage)
    store.remove(path)
    assert "predictions-" in str(store.standing(teacher).damage)
    assert "is missing, though its record names it" in str(store.standing(teacher).damage)
    store.write(path, data)
    assert store.is_done(teacher)


def test_without_a_validation_split_those_of_test_are_kept(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    dataset = {"name": "digits", "train_size": 60, "val_size": 0, "test_size": 40}
    plan, store = tiny_plan(seeds=[0], dataset=dataset), Store(str(tmp_path))
    prepare(plan, store, runtime)
    assert {name: [*of.shape] for name, of in predictions(store, plan.teachers[0]).items()} == {"test": [40, 10]}


def few_pictures(folder: Path, counts: dict[str, int]) -> None:
    """A folder of so many pictures a class, each class of a brightness of its own, as many as a tenth of them to test
    on."""
    rng = np.random.default_rng(0)
    for place, (name, count) in enumerate(counts.items()):
        level = np.clip(rng.normal(20 + 20 * place, 25, (count + max(3, count // 10), 8, 8)), 0, 255).astype(np.uint8)
        for number, image in enumerate(level):
            where = folder / ("train" if number < count else "test") / name
            where.mkdir(parents=True, exist_ok=True)
            (where / f"{number}.png").write_bytes(png(image))


@pytest.mark.long
def test_of_an_imbalanced_folder_the_classes_that_are_never_right_are_said(
    tmp_path: Path, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    """From pictures to the command and the report; what they say is recomputed of the files."""
    names = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]
    counts = dict(zip(names, [500, 300, 8, 7, 5, 6, 5, 5, 9, 5], strict=True))
    few_pictures(tmp_path / "data", counts)
    dataset = {"name": "few", "folder": str(tmp_path / "data"), "channels": 1}
    recipe = {"epochs": 2, "batch_size": 50}
    (tmp_path / "few.json").write_text(json.dumps(tiny_grid(name="few", dataset=dataset, recipe=recipe)))
    plan, store = make_plan(load_grid(str(tmp_path / "few.json"))), Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    for cell in plan.cells:
        assert train(cell, store, runtime) is None
    write_plan(plan, store)
    assert json.loads(str(store.record(plan.data).class_names)) == names

    assert cli.main(["classes", "few", "--storage", store.url, "--only", "classes", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    labels_N = np.load(tmp_path / "runs" / plan.data.folder / "test_labels.npy")
    alone = [cell for cell in plan.cells if cell.mode == "baseline" and cell.model.label == "ViT-S"]
    hits_SN = np.array([predictions(store, cell)["test"].argmax(dim=1).numpy() == labels_N for cell in alone])
    recall_SC = np.array([[hits_N[labels_N == label].mean() for label in range(10)] for hits_N in hits_SN])
    never = [name for name, recall in zip(names, recall_SC.max(axis=0), strict=True) if recall == 0]
    (row,) = (row for row in rows if (row["student"], row["mode"]) == ("ViT-S", "baseline"))
    assert (row["never_right"], row["never_right_classes"].split(", ")[:2]) == (len(never), never[:2])
    assert len(never) >= 5
    assert row["top1_percent"] == pytest.approx(100 * hits_SN.mean())
    assert row["balanced_percent"] == pytest.approx(100 * recall_SC.mean())
    assert row["balanced_percent"] < row["top1_percent"] - 20

    page = report(analysis.load_grid(store.url, "few"))
    assert f"{len(never)} of 10: {', '.join(never[:5])}" in page
