"""What no change of the program's shape may change: the ids of the named grids' stages, the bits of digits' models, and
the rows of its table."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import polars.selectors as cs
import pytest
import torch

from analysis.measures.gains import gains
from analysis.read.load import load_grid as load_records
from grid.plan import LogitsStage, Plan, Stage, make_plan
from grid.read.grid_file import load_grid, named_grids, spec_from_dict
from grid.store.records import record_from_json
from grid.store.store import CHECKPOINT, RECORD, Store
from grid.work.dataset import prepare_dataset
from grid.work.execute import Runtime, execute
from kd.machine.measure import device_name
from tests.grid.running import compute, results, train
from tests.grid.test_written_before import BEFORE, GRID

IDS = Path(__file__).parent / "pins" / "ids.json"
# Of a launch long before this one, on one thread a process.
DIGITS = Path(__file__).parents[1] / "analysis" / "digits_records"
# What a launch says of itself, and what records have since come to say.
ITS_OWN = {"code_version", "recipe", "versions"}

ROWS = [
    ("ViT-T", "ViT-S", 81.5333, 82.4667, 0.9333, -2.7826, 4.6492),
    ("ViT-T", "ResNet-S", 93.9667, 92.7, -1.2667, -5.3399, 2.8065),
    ("ViT-T", "ConvNeXt-S", 91.5, 91.3333, -0.1667, -3.8075, 3.4742),
    ("ResNet-T", "ViT-S", 81.5333, 85.3333, 3.8, 0.5718, 7.0282),
    ("ResNet-T", "ResNet-S", 93.9667, 95.2, 1.2333, -2.6929, 5.1596),
    ("ResNet-T", "ConvNeXt-S", 91.5, 93.0667, 1.5667, -1.9679, 5.1012),
]


def test_the_named_grids_keep_their_ids() -> None:
    planned: dict[str, dict[str, list[str]]] = {}
    for name in sorted(named_grids()):
        planned[name] = {}
        for stage in make_plan(load_grid(name)).stages:
            planned[name].setdefault(stage.kind, []).append(stage.id)
    assert planned == json.loads(IDS.read_text())


def test_digits_keeps_the_rows_of_its_table() -> None:
    means, gain = ("baseline_mean_percent", "distilled_mean_percent"), ("mean", "low", "high")
    columns = ("teacher", "student", *means, *(f"gain_{figure}_points" for figure in gain))
    frame = gains(load_records(str(DIGITS), "digits")).select(*columns)
    assert frame.with_columns(cs.float().round(4)).rows() == ROWS


def known_device() -> bool:
    """Other processors, and other versions of torch, round otherwise."""
    then = record_from_json(next(DIGITS.glob("cells/*/record.json")).read_bytes())
    return (then.device, json.loads(str(then.versions))["torch"]) == (
        device_name(torch.device("cpu")),
        importlib.metadata.version("torch"),
    )


def as_then(stage: Stage, store: Store) -> None:
    """Its record is the one that a launch left long ago, the hash of its weights included."""
    then, now = record_from_json((DIGITS / stage.folder / RECORD).read_bytes()), store.record(stage)
    expected = {name: value for name, value in results(then).items() if value is not None and name not in ITS_OWN}
    assert {name: getattr(now, name) for name in expected} == expected


def run(plan: Plan, stages: Sequence[Stage], store: Store, runtime: Runtime) -> None:
    if not known_device():
        pytest.skip("the bits are known of another processor or torch")
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    for stage in stages:
        error = compute(stage, store, runtime) if isinstance(stage, LogitsStage) else train(stage, store, runtime)  # type: ignore[arg-type]
        assert error is None
        as_then(stage, store)


def test_digits_keeps_the_bits_of_a_teacher_its_logits_and_students(tmp_path: Path, runtime: Runtime) -> None:
    plan = make_plan(load_grid("digits"))
    teacher = plan.teachers[0]
    taught = next(cell for cell in plan.cells if cell.teacher == teacher)
    alone = next(cell for cell in plan.cells if cell.teacher is None and cell.model.name == "convnext_atto")
    assert taught.logits is not None
    run(plan, [teacher, taught.logits, taught, alone], Store(str(tmp_path)), runtime)


@pytest.mark.slow
def test_digits_keeps_the_bits_of_all(tmp_path: Path, runtime: Runtime) -> None:
    plan = make_plan(load_grid("digits"))
    run(plan, plan.stages[1:], Store(str(tmp_path)), runtime)


def test_a_cell_that_was_saved_long_ago_in_the_middle_of_an_epoch_ends_in_the_bits_of_one_that_was_not(
    tmp_path: Path, runtime: Runtime
) -> None:
    if not known_device():
        pytest.skip("it was saved on another processor or torch")
    plan, stores = make_plan(spec_from_dict(GRID, what="grid tiny")), []
    for name in ("gone on from", "from its beginning"):
        shutil.copytree(BEFORE, tmp_path / name)
        stores.append(Store(str(tmp_path / name)))
    cell = plan.cells[-1]
    stores[1].remove(f"{cell.folder}/{CHECKPOINT}")
    for store in stores:
        assert train(cell, store, runtime) is None
    resumed, whole = (store.record(cell) for store in stores)
    assert results(resumed) == results(whole)
    assert resumed.weights_sha256 == whole.weights_sha256
