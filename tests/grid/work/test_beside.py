"""A cell whose method learns something beside the student, from the grid file to the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from grid.plan import Plan
from grid.store.store import Store
from grid.work.execute import Runtime
from grid.work.memory.gpu import _use
from kd.methods import METHODS
from tests.grid.running import (
    Killed,
    cell_of,
    checkpoint,
    curve,
    dying,
    prepare,
    results,
    saving_every_step,
    train,
    weights,
    weights_bytes,
)
from tests.kd.methods.own import WithBank

Planner = Callable[..., Plan]


@pytest.fixture
def plan(tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setitem(METHODS, WithBank.name, WithBank)
    return tiny_plan(seeds=[3], method=["kd", WithBank.name])


def terms_of(store: Store, cell: Any) -> set[str]:
    return {name for name in curve(store, cell).columns if name.startswith("train_loss_")}


def test_killed_in_an_epoch_it_goes_on_to_the_same_bits(tmp_path: Path, plan: Plan, runtime: Runtime) -> None:
    alone = cell_of(plan, "baseline")
    kd, banked = (cell for cell in plan.cells if cell.mode == "distilled" and cell.model == alone.model)
    whole, broken = Store(str(tmp_path / "whole")), Store(str(tmp_path / "broken"))
    for store in (whole, broken):
        prepare(plan, store, runtime)
    for cell in (alone, kd, banked):
        assert train(cell, whole, runtime) is None
    assert terms_of(whole, alone) == set()
    assert terms_of(whole, kd) == {"train_loss_kd", "train_loss_ce"}
    assert terms_of(whole, banked) == {"train_loss_ce", "train_loss_adapted", "train_loss_bank"}
    assert curve(whole, banked).null_count().select("^train_loss_.*$").row(0) == (0, 0, 0)

    for after in (2, 2):
        with pytest.raises(Killed):
            train(banked, dying(broken, after=after), saving_every_step(runtime))
        assert "rows_NC" in checkpoint(broken, banked).beside
    assert train(banked, broken, runtime) is None
    assert weights_bytes(broken, banked) == weights_bytes(whole, banked)
    assert curve(broken, banked).equals(curve(whole, banked))
    assert results(broken.record(banked)) == results(whole.record(banked))
    # What is published is the student alone.
    assert weights(whole, banked).keys() == weights(whole, alone).keys()
    sizes = {str(whole.record(cell).parameters) for cell in (alone, kd, banked)}
    assert len(sizes) == 1


def test_its_memory_can_be_measured(tmp_path: Path, plan: Plan, runtime: Runtime) -> None:
    """By the steps that a GPU would be looked at after."""
    store = Store(str(tmp_path))
    prepare(plan, store, runtime)
    for cell in plan.cells:
        _use(cell, store, torch.device("cpu"))
