"""Training in processes of its own: two side by side, and two workers on one model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from kd.checkpoint import state_from_bytes
from kd.data.views.policy import Mixing, ViewPolicy
from kd.recipe import Recipe
from tests.kd.helpers import flat, run, untimed
from tests.kd.processes import Result, network, odd_digits, start, train_noisy, train_sharded

AUGMENTED = ViewPolicy(crop_padding=1, horizontal_flip=True, mixing=Mixing(mixup_alpha=0.4))
# 19 batches an epoch; workers of eight images each, in parts of three.
SHARDED = Recipe(
    epochs=2, batch_size=16, micro_batch_size=3, learning_rate=3e-3, clip_norm=1.0, ema_decay=0.9, views=AUGMENTED
)


@pytest.fixture(scope="module")
def two() -> Iterator[Executor]:
    """Two processes that know nothing of this one."""
    context = get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=start, initargs=(context.Barrier(2),)) as pool:
        yield pool


def same_result(a: Result, b: Result) -> bool:
    return a.curve == b.curve and all(torch.equal(v, b.weights[k]) for k, v in a.weights.items())


@pytest.mark.long
def test_two_at_a_time_give_the_bits_of_one(two: Executor) -> None:
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=3e-3, views=AUGMENTED)
    together = [two.submit(train_noisy, recipe, together=True) for _ in range(2)]
    here = train_noisy(recipe, together=False)
    for other in together:
        assert same_result(other.result(), here)


def sharded(two: Executor, folder: Path, *, resume: bytes | None) -> list[Result]:
    work = partial(train_sharded, SHARDED, world=2, rendezvous=folder / "rendezvous", resume=resume)
    return [future.result(timeout=120) for future in [two.submit(work, rank=rank) for rank in (0, 1)]]


def test_two_workers_train_as_one_and_resume_to_the_same_bits(two: Executor, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    first, second = sharded(two, tmp_path / "whole", resume=None)
    model = network(0)
    expected = untimed(run(model, replace(SHARDED, micro_batch_size=None), data=odd_digits()))
    # Sums are taken in another order.
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(first.weights[name], weight, atol=1e-5, rtol=1e-4)
        assert torch.equal(first.weights[name], second.weights[name])
    assert (flat(model) - flat(network(0))).abs().max() > 1e-3
    for row, other, alone in zip(first.curve, second.curve, expected, strict=True):
        assert row == other
        assert row["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-5)
        assert row["train_top1"] == pytest.approx(alone["train_top1"], abs=1.1 / 289)  # an image may lie on the edge

    assert second.states == []
    states = [state_from_bytes(data) for data in first.states]
    assert [(len(state["curve"]), state["step"]) for state in states] == [(0, 16), (1, 0), (1, 16), (2, 0)]
    for number in (0, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for rank, resumed in enumerate(sharded(two, folder, resume=first.states[number])):
            assert same_result(resumed, (first, second)[rank])
