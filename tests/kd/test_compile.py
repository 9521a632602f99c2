from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from kd.recipe import Recipe
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import AnyRow, same_weights, untimed

Run = Callable[..., list[AnyRow]]


@pytest.fixture
def compiler() -> Iterator[None]:
    """Forgets what was compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small(seed: int) -> nn.Module:
    """With batch norm, and without dropout, whose masks compiled code draws in another way."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


@pytest.mark.long
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.usefixtures("compiler")
def test_a_compiled_model_trains_as_an_eager_one_and_resumes(
    run: Run, evaluate: Callable[[nn.Module], CurveRow]
) -> None:
    # Not AdamW: weights without a gradient (those of pixels that are always black, a bias before batch norm) have only
    # rounding for one, which it would scale up until two ways to round end in two models.
    recipe = Recipe(epochs=2, batch_size=100, optimizer="sgd", momentum=0.9, learning_rate=0.05)
    compiled = replace(recipe, compile=True)
    states: list[TrainState] = []
    model, eager, resumed = (small(seed) for seed in (0, 0, 1))
    counters.clear()
    expected = run(eager, recipe, evaluate=evaluate)
    assert counters["stats"]["unique_graphs"] == 0
    curve = run(model, compiled, evaluate=evaluate, on_state=states.append, save_now=lambda: True)
    assert counters["stats"]["unique_graphs"] > 0
    # Fused kernels round otherwise.
    for name in ("train_loss", "val_nll"):
        assert [row[name] for row in curve] == pytest.approx([row[name] for row in expected], rel=1e-5)
    assert list(states[-1].model) == list(eager.state_dict())  # weights under their own names
    assert untimed(run(resumed, compiled, evaluate=evaluate, resume=states[1])) == untimed(curve)
    assert same_weights(resumed, model)
