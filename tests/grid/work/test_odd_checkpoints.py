"""A checkpoint that does not fit its stage has it start again, to the bits that it would have without one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid.plan import CellStage, Plan
from grid.store.store import CHECKPOINT, Store
from grid.work.execute import Runtime
from kd.checkpoint import state_from_bytes, state_to_bytes
from tests.conftest import tiny_grid
from tests.grid.running import Killed, cell_of, dying, prepare, saving_every_step, train, weights_bytes

Planner = Callable[..., Plan]
Log = pytest.LogCaptureFixture


@pytest.fixture
def started(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> tuple[Store, CellStage]:
    """A cell that was killed within its second epoch."""
    recipe = {"epochs": 2, "batch_size": 20, "views": {"crop_padding": 1}}
    plan = tiny_plan(seeds=[3], students=tiny_grid()["students"][1:], teachers=[], modes=["baseline"], recipe=recipe)
    store, cell = Store(str(tmp_path)), cell_of(plan, "baseline")
    prepare(plan, store, runtime)
    with pytest.raises(Killed):
        train(cell, dying(store, after=4), saving_every_step(runtime))
    return store, cell


def renamed(state: dict[str, Any]) -> dict[str, Any]:
    """As another version of the model's code calls it."""
    weights = state["model"]
    return {**state, "model": {name.replace("conv1", "stem"): tensor for name, tensor in weights.items()}}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "a renamed weight": (renamed, r"its weights \(model\) are not the model's: .*conv1"),
    "no model": (lambda state: {**state, "model": None}, "its weights (model) are not the model's"),
    "ten to the nine steps": (lambda state: {**state, "step": 10**9}, "its step is 1000000000, of 3 in an epoch"),
    "a step of its last epoch": (
        lambda state: {**state, "step": 3},
        "its optimizer has taken 4 steps, its curve and its ",
    ),
    "a forged curve": (lambda state: {**state, "curve": []}, "its optimizer has taken 4 steps, its curve and its "),
    "another precision": (lambda state: {**state, "precision": "bfloat16"}, "of another precision"),
    "no precision": (lambda state: {k: v for k, v in state.items() if k != "precision"}, "of another precision"),
}


@pytest.mark.long
@pytest.mark.parametrize("what", CHANGES)
def test_what_does_not_fit_starts_the_stage_again(
    started: tuple[Store, CellStage], runtime: Runtime, caplog: Log, what: str
) -> None:
    store, cell = started
    change, reason = CHANGES[what]
    path = f"{cell.folder}/{CHECKPOINT}"
    state = state_from_bytes(store.read(path))
    store.write(path, state_to_bytes(change(state)))
    with caplog.at_level(logging.WARNING, logger="kd_grid"):
        assert train(cell, store, runtime) is None
    (line,) = [message for message in caplog.messages if "the stage starts again" in message]
    assert line.startswith(f"{store.location(path)}: ")
    assert reason.split(".*")[0].replace("\\", "") in line
    odd = weights_bytes(store, cell)
    store.remove(f"{cell.folder}/record.json")
    assert train(cell, store, runtime) is None
    assert weights_bytes(store, cell) == odd


def test_a_flipped_bit_starts_the_stage_again(
    started: tuple[Store, CellStage], runtime: Runtime, caplog: Log, tmp_path: Path
) -> None:
    """One of a weight, which torch reads as another number."""
    store, cell = started
    path = f"{cell.folder}/{CHECKPOINT}"
    data = store.read(path)
    weight = state_from_bytes(data)["model"]["conv1.weight"].numpy().tobytes()
    place = data.index(weight) + 5
    store.write(path, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with caplog.at_level(logging.WARNING, logger="kd_grid"):
        assert train(cell, store, runtime) is None
    assert caplog.messages == [
        f"{store.location(path)}: not to go on from: not a training state as it was saved: it has another checksum; "
        "the stage starts again"
    ]


def test_what_fits_is_gone_on_from(started: tuple[Store, CellStage], runtime: Runtime, caplog: Log) -> None:
    store, cell = started
    with caplog.at_level(logging.WARNING, logger="kd_grid"):
        assert train(cell, store, runtime) is None
    assert not [message for message in caplog.messages if "starts again" in message]


def test_a_pipe_in_a_checkpoints_place_is_not_waited_for(
    started: tuple[Store, CellStage], runtime: Runtime, caplog: Log
) -> None:
    store, cell = started
    path = Path(store.url) / cell.folder / CHECKPOINT
    path.unlink()
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # without the check its reader waits for bytes; with it the test ends
    try:
        with caplog.at_level(logging.WARNING, logger="kd_grid"):
            assert train(cell, store, runtime) is None
    finally:
        os.close(writer)
    assert any("is a named pipe, not a regular file; the stage starts again" in message for message in caplog.messages)
