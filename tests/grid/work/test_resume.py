"""Killed at any step and continued, or trained beside others, a stage ends with the very same bits."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import kd.training.train
from grid.contract.files.layout import RECORD
from grid.plan import CellStage, Plan, stage_from_json, stage_to_json
from grid.store.store import CHECKPOINT, Store
from grid.work.execute import Runtime
from kd.training.optim import make_optimizer
from tests.conftest import tiny_grid
from tests.grid.running import (
    Killed,
    cell_of,
    checkpoint,
    compute,
    curve,
    dying,
    holds,
    prepare,
    results,
    retrain,
    saving_every_step,
    train,
    weights_bytes,
)

Planner = Callable[..., Plan]

VIT_S, RESNET_S = tiny_grid()["students"]
DROPOUT = {**VIT_S, "args": {**VIT_S["args"], "drop_rate": 0.2}}
EVERYTHING = {
    "optimizer": "sgd",
    "nesterov": True,
    "micro_batch_size": 7,
    "ema_decay": 0.8,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "warmup_epochs": 0.5,
}
AUGMENTED = {"crop_padding": 1, "rand_augment": {"operations": 1}, "random_erasing": {}, "mixing": {"cutmix_alpha": 1}}
MIXED_IN_BATCHES = {"crop_padding": 1, "mixing": {"mixup_alpha": 0.4, "partners": "batch"}}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "alone": ("baseline", {}),
    "distilled": ("distilled", {}),
    "dropout": ("distilled", {"students": [DROPOUT]}),
    "every option": ("distilled", {"recipe": EVERYTHING}),
    "augmented": ("distilled", {"recipe": {"views": AUGMENTED}}),
    "online, mixed in batches": ("distilled", {"recipe": {"views": MIXED_IN_BATCHES}, "targets": "online"}),
}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each optimizer step from here on."""
    taken: list[int] = []

    def counted(*args: Any) -> torch.optim.Optimizer:
        optimizer = make_optimizer(*args)
        optimizer.register_step_post_hook(lambda *ignored: taken.append(1))
        return optimizer

    monkeypatch.setattr(kd.training.train, "make_optimizer", counted)
    return taken


def plan_of(tiny_plan: Planner, *, epochs: int = 4, **changes: Any) -> Plan:
    """One student, and three steps an epoch."""
    recipe = {"epochs": epochs, "batch_size": 20, "views": {"crop_padding": 1}, "evaluate_every": 2}
    recipe |= changes.pop("recipe", {})
    return tiny_plan(**{"seeds": [3], "students": [RESNET_S], "recipe": recipe} | changes)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_killed_after_any_step_it_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, steps: list[int], case: str
) -> None:
    mode, changes = CASES[case]
    plan = plan_of(tiny_plan, **changes)
    cell = next(cell for cell in plan.cells if cell.mode == mode)
    whole, broken = Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken"))
    for store in (whole, broken):
        prepare(plan, store, runtime)
    del steps[:]
    assert train(cell, whole, runtime) is None
    assert len(steps) == 12

    # (checkpoints until the kill, the epochs that are done then, the steps in the next)
    del steps[:]
    for after, epochs, step in ((2, 0, 2), (2, 1, 1), (1, 1, 2), (5, 3, 1)):
        with pytest.raises(Killed):
            train(cell, dying(broken, after=after), saving_every_step(runtime))
        state = checkpoint(broken, cell)
        assert (len(state.curve), state.step) == (epochs, step)
        assert not broken.is_done(cell)
    assert train(cell, broken, runtime) is None
    assert len(steps) == 12, "no step is taken twice"
    assert CHECKPOINT not in broken.names(cell.folder)
    assert weights_bytes(broken, cell) == weights_bytes(whole, cell)
    assert curve(broken, cell).equals(curve(whole, cell))
    assert results(broken.record(cell)) == results(whole.record(cell))


def test_a_teacher_killed_in_an_epoch_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan = plan_of(tiny_plan)
    (teacher,) = plan.teachers
    whole, broken = Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken"))
    for store in (whole, broken):
        prepare(plan_of(tiny_plan, teachers=[], modes=["baseline"]), store, runtime)
    assert train(teacher, whole, runtime) is None
    with pytest.raises(Killed):
        train(teacher, dying(broken, after=5), saving_every_step(runtime))
    assert checkpoint(broken, teacher).step == 2
    assert train(teacher, broken, runtime) is None
    assert weights_bytes(broken, teacher) == weights_bytes(whole, teacher)
    assert broken.record(teacher).weights_sha256 == whole.record(teacher).weights_sha256


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "done"),
    [
        ("model-*.safetensors", False),
        ("curve-*.parquet", False),
        ("predictions-*.safetensors", False),
        (RECORD, True),
    ],
)
def test_killed_while_it_publishes_a_stage_is_done_with_its_record(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, file: str, done: bool
) -> None:
    plan = plan_of(tiny_plan)
    whole, broken = Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken"))
    cell = cell_of(plan, "distilled")
    for store in (whole, broken):
        prepare(plan, store, runtime)
    assert train(cell, whole, runtime) is None
    with pytest.raises(Killed):
        train(cell, dying(broken, after=1, ending=f"{cell.folder}/{file}"), runtime)
    assert broken.is_done(cell) is done
    if not done:
        assert train(cell, broken, runtime) is None
    assert weights_bytes(broken, cell) == weights_bytes(whole, cell)
    assert curve(broken, cell).equals(curve(whole, cell))
    assert results(broken.record(cell)) == results(whole.record(cell))


@pytest.mark.long
def test_a_cell_starts_again_where_its_checkpoint_learned_from_another_teacher(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    """The record names one teacher's weights: those of the teacher that taught every step."""
    plan = plan_of(tiny_plan)
    (teacher,), (logits,), cell = plan.teachers, plan.logits, cell_of(plan, "distilled")
    whole, broken = Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken"))
    for store in (whole, broken):
        prepare(plan, store, runtime)
    with pytest.raises(Killed):
        train(cell, dying(broken, after=2), runtime)
    for store in (whole, broken):
        retrain(teacher, store)
        assert compute(logits, store, runtime) is None
        assert train(cell, store, runtime) is None
    assert broken.record(cell).teacher_sha256 == broken.record(teacher).weights_sha256
    assert weights_bytes(broken, cell) == weights_bytes(whole, cell)


def test_without_saving_within_epochs_a_kill_costs_the_epoch(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, steps: list[int]
) -> None:
    plan, store = plan_of(tiny_plan), Store(str(tmp_path))
    prepare(plan, store, runtime)
    cell = cell_of(plan, "baseline")
    del steps[:]
    with pytest.raises(Killed):
        train(cell, dying(store, after=1), runtime)
    assert (len(checkpoint(store, cell).curve), checkpoint(store, cell).step) == (1, 0)
    assert train(cell, store, runtime) is None
    assert len(steps) == 12


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint_and_says_where(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    """The learning rate is multiplied by 1e35 after the second epoch."""
    recipe = {"optimizer": "sgd", "schedule": "step", "step_epochs": [2], "step_factor": 1e35, "learning_rate": 0.001}
    plan, store = plan_of(tiny_plan, recipe=recipe), Store(str(tmp_path))
    prepare(plan_of(tiny_plan, teachers=[], modes=["baseline"]), store, runtime)
    cell = cell_of(plan, "baseline")
    error = train(cell, store, runtime)
    assert error is not None
    assert error.startswith("DivergedError: the loss is nan at epoch 3, step 2 of 3, learning rate 1e+32: ")
    assert not store.is_done(cell)
    state = checkpoint(store, cell)
    assert [row["epoch"] for row in state.curve] == [1, 2]
    assert state.step == 0
    assert all(torch.isfinite(tensor).all() for tensor in state.model.values())
    assert train(cell, store, runtime) == error, "tried again from there, it says the same"


def test_a_loss_that_is_no_number_is_noticed_before_anything_is_saved_within_an_epoch(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    recipe = {"optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"}
    plan, store = plan_of(tiny_plan, recipe=recipe), Store(str(tmp_path))
    prepare(plan_of(tiny_plan, teachers=[], modes=["baseline"]), store, runtime)
    cell = cell_of(plan, "baseline")
    error = train(cell, store, saving_every_step(runtime))
    assert error is not None
    assert "at epoch 1, step 2 of 3, learning rate 1e+30" in error
    state = checkpoint(store, cell)
    assert (state.step, state.curve) == (1, [])
    assert state.loss_S is not None
    assert torch.isfinite(state.loss_S).all()


def _train_beside_another(
    stage: str, storage: str, runtime: Runtime, both_ready: multiprocessing.synchronize.Barrier
) -> None:
    """Runs in a process of its own."""
    torch.set_num_threads(runtime.threads)
    cell = stage_from_json(stage)
    assert isinstance(cell, CellStage)
    both_ready.wait(120)
    assert train(cell, Store(storage), runtime) is None


@pytest.mark.slow
def test_two_at_a_time_give_the_same_bits_as_one_after_the_other(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    """Though both find a file of their teacher's logits gone, and make it again."""
    plan = plan_of(tiny_plan, epochs=12, seeds=[0, 1])
    cells = [cell for cell in plan.cells if cell.mode == "distilled"]
    together, apart = Store(str(tmp_path / "together")), Store(str(tmp_path / "apart"))
    for store in (together, apart):
        prepare(plan, store, runtime)
    for cell in cells:
        assert train(cell, apart, runtime) is None
    (stage,) = plan.logits
    gone = f"{stage.folder}/{stage.units[1].file}"
    together.remove(gone)

    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    common = (together.url, runtime, barrier)
    processes = [context.Process(target=_train_beside_another, args=(stage_to_json(c), *common)) for c in cells]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    assert holds(together, gone, apart.read(gone))
    for cell in cells:
        assert weights_bytes(together, cell) == weights_bytes(apart, cell)
        assert curve(together, cell).equals(curve(apart, cell))
        assert results(together.record(cell)) == results(apart.record(cell))
    assert weights_bytes(apart, cells[0]) != weights_bytes(apart, cells[1])
