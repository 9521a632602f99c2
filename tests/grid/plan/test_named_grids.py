"""The grids that come with the program: what they plan, and their true code paths on a few images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import grid.work.results
from grid.errors import UserError
from grid.plan import make_plan
from grid.read.grid_file import load_grid, named_grids
from grid.store.store import Store
from grid.watch.preview import inspect_models, saved_by_cache, stage_costs
from grid.work.dataset import prepare_dataset
from grid.work.execute import Runtime, execute
from tests.grid.running import compute, train
from tests.images import write_cifar

STUDY_A = {
    "teachers/ViT-Base": 85_875_556,
    "teachers/ResNet-152": 58_348_708,
    "students/ViT-Tiny": 5_543_716,
    "students/ResNet-18": 11_227_812,
    "students/MobileViT-S": 5_001_732,
}


def test_every_named_grid_is_planned_without_data_or_network() -> None:
    for name in named_grids():
        assert make_plan(load_grid(name)).cells, name


def test_cifar100_full_is_the_study_with_its_sixth_pair() -> None:
    plan = make_plan(load_grid("cifar100_full"))
    assert {name: facts.parameters for name, facts in inspect_models(plan).items()} == STUDY_A
    spec, published = plan.spec, plan.spec.published
    assert [(r.optimizer, r.learning_rate, r.epochs, r.batch_size) for r in [spec.recipe]] == [("adamw", 3e-4, 10, 64)]
    assert (spec.temperature, spec.alpha, spec.seeds) == ((4.0,), (0.5,), (0, 1, 2))
    assert all(model.pretrained and model.image_size == 224 for model in (*spec.teachers, *spec.students))
    assert plan.data.spec_payload()["splits"] == {"train": 50_000, "val": 0, "test": 10_000}
    assert (len(plan.teachers), len(plan.logits), len(plan.cells)) == (2, 2, 27)
    assert published is not None
    gains = [round(pair.distilled - pair.baseline, 2) for pair in published.pairs]
    assert gains == [6.47, 2.42, 0.55, 1.34, 0.94]
    assert [pair.compression for pair in published.pairs] == [15.5, 7.6, 17.2, 10.5, 5.2]
    assert [pair.retention for pair in published.pairs] == [91.5, None, None, None, None]
    assert {m.model: m.accuracy for m in published.models if m.mode is None} == {"ViT-Base": 91.12, "ResNet-152": None}
    # What the study prints is what our models have, rounded to 0.1M or cut there.
    for said, ours in zip(published.models, STUDY_A.values(), strict=True):
        assert said.parameters == pytest.approx(ours, abs=0.08e6)


def test_the_cache_saves_all_but_one_pass_of_the_teachers() -> None:
    plan = make_plan(load_grid("cifar100_full"))
    facts = inspect_models(plan)
    teachers = facts["teachers/ViT-Base"].macs + facts["teachers/ResNet-152"].macs
    # Nine distilled cells a teacher, of ten epochs, against ten passes.
    expected = teachers * 50_000 * 10 * (9 - 1)
    assert saved_by_cache(plan, facts, stage_costs(plan, facts)) == pytest.approx(expected, rel=1e-12)


def test_cifar10_light_is_the_other_study() -> None:
    plan = make_plan(load_grid("cifar10_light"))
    facts = inspect_models(plan)
    assert facts["students/CNN-107K"].parameters == 106_826
    assert facts["teachers/ResNet-18-N"].parameters == 4_657_226
    recipe, published = plan.spec.recipe, plan.spec.published
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adam", 1e-3, 1e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.schedule) == (15, 128, "step")
    assert (plan.spec.temperature, plan.spec.alpha) == ((4.0,), (0.7,))
    assert published is not None
    (pair,) = published.pairs
    assert (pair.baseline, pair.distilled) == (72.70, 70.86)
    assert (pair.compression, pair.compression_size, pair.speedup) == (43.7, 43.4, 4.3)
    assert [(m.mode, m.accuracy, m.parameters, m.size_mb) for m in published.models] == [
        (None, 83.13, 4_664_970, 17.81),
        ("baseline", 72.70, 106_826, 0.41),
        ("distilled", 70.86, 106_826, 0.41),
    ]
    assert [(m.inference_ms, m.efficiency) for m in published.models] == [(111.29, 0.75), (27.76, 2.62), (25.82, 2.74)]
    for model in published.models:
        assert model.accuracy is not None
        assert model.inference_ms is not None
        assert round(model.accuracy / model.inference_ms, 2) == model.efficiency


def test_cifar10_sweep_crosses_what_the_study_proposes() -> None:
    plan = make_plan(load_grid("cifar10_sweep"))
    crossed = {(cell.how["temperature"], cell.how["alpha"]) for cell in plan.cells if cell.mode == "distilled"}
    assert crossed == {(t, a) for t in (1, 2, 3, 4, 5) for a in (0.1, 0.3, 0.5, 0.7, 0.9)}
    assert plan.data.spec_payload()["splits"] == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert (len(plan.teachers), len(plan.logits), len(plan.cells)) == (1, 1, 3 + 75)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("pairs.0.teacher=ViT-Bass", "published names 'ViT-Bass', which is no teacher of the grid"),
        ("pairs.0.student=ViT-Base", "published names 'ViT-Base', which is no student of the grid"),
        ("models.0.model=ViT-Bass", "published names 'ViT-Bass', which is no teacher of the grid"),
        ("models.2.model=ViT-Base", "published names 'ViT-Base', which is no student of the grid"),
        ("models.2.mode=null", "published names 'ViT-Tiny', which is no teacher of the grid: give its mode"),
        ("models.3.model=ViT-Tiny", "published.models has two of ViT-Tiny, baseline"),
        ("pairs.1.student=ViT-Tiny", "published.pairs has two of ViT-Base, ViT-Tiny"),
        ("models.0.size=3", "published.models.0.size: unknown key; did you mean 'size_mb'?"),
        ("models.0.parameters=85.8M", "published.models.0.parameters"),
        ("teachers={}", "published.teachers: unknown key"),
    ],
)
def test_published_figures_are_those_of_models_of_the_grid(override: str, problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)):
        load_grid("cifar100_full", [f"published.{override}"])


SHRUNK = [
    *(f"{axis}.{i}.pretrained=false" for axis, count in (("teachers", 2), ("students", 3)) for i in range(count)),
    "recipe.epochs=1",
    "recipe.batch_size=4",
    "dataset.train_size=100",
    "seeds=0",
]


@pytest.mark.long
@pytest.mark.parametrize("student", ["ViT-Tiny", "ResNet-18", "MobileViT-S"])
@pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.slow)])
def test_cifar100_full_shrunk_runs_the_true_models(
    tmp_path: Path, size: int, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of each student alone, and from the logits of a small teacher; at the study's 224 px, and at fewer."""
    monkeypatch.setattr(grid.work.results, "LATENCY_BATCH", 1)
    monkeypatch.setattr(grid.work.results, "LATENCY_RUNS", 1)
    write_cifar(tmp_path / "data", "cifar100", train=100, test=100)
    small = ["teachers.0.name=resnet18", "recipe.batch_size=100", "recipe.micro_batch_size=4"]
    if size != 224:
        small += [f"{axis}.image_size={size}" for axis in ("teachers.0", "students.0", "students.1", "students.2")]
        small.append(f"students.0.args={{img_size: {size}}}")
    plan = make_plan(load_grid("cifar100_full", [*SHRUNK, *small], data=str(tmp_path / "data")))
    store, runtime = Store(str(tmp_path / "runs")), Runtime(launch="launch-1").here(threads=1, device="cpu")
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    cell = next(c for c in plan.cells if c.mode == "baseline" and c.model.label == student)
    assert train(cell, store, runtime) is None
    record = store.record(cell)
    if size == 224 or student != "ViT-Tiny":  # which learns an embedding of each of its places
        assert record.parameters == STUDY_A[f"students/{student}"]
    assert record.status == "done"
    assert 0 <= record.best_test_top1 <= 1
    if student == "ViT-Tiny":
        teacher, logits = plan.teachers[0], plan.logits[0]
        assert train(teacher, store, runtime) is None
        assert compute(logits, store, runtime) is None
        taught = next(c for c in plan.cells if c.mode == "distilled" and c.model.label == student)
        assert train(taught, store, runtime) is None
        assert store.record(taught).test_agreement_last is not None
