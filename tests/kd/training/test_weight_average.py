"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from kd.recipe import Recipe
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import AnyRow, noisy_model, same_weights

Run = Callable[..., list[AnyRow]]
RECIPE = Recipe(epochs=2, batch_size=64, learning_rate=0.01, ema_decay=0.8)


@pytest.mark.parametrize("decay", [0.8, 0.999])
def test_the_average_moves_by_a_part_of_the_way_after_each_step(run: Run, decay: float) -> None:
    states: list[TrainState] = []
    recipe = Recipe(epochs=2, batch_size=64, learning_rate=0.01, ema_decay=decay)
    run(noisy_model(0), recipe, on_state=states.append, save_now=lambda: True)
    assert len(states) == 10
    for name, start in noisy_model(0).state_dict().items():
        average = start.double().numpy()
        weight = decay if start.is_floating_point() else 0  # batch norm's counter is taken as it is
        for state in states:
            assert state.averaged is not None
            average = weight * average + (1 - weight) * state.model[name].double().numpy()
            np.testing.assert_allclose(state.averaged[name].double().numpy(), average, atol=1e-6, rtol=1e-6)
        apart = abs(average - states[-1].model[name].double().numpy()).max()
        assert apart > 1e-4 or not start.is_floating_point()


def test_the_average_is_evaluated_and_kept(run: Run) -> None:
    evaluated: list[dict[str, torch.Tensor]] = []
    states: list[TrainState] = []

    def evaluate(model: nn.Module) -> CurveRow:
        evaluated.append({k: v.clone() for k, v in model.state_dict().items()})
        return {}

    model = noisy_model(0)
    run(model, RECIPE, evaluate=evaluate, on_state=states.append)
    for weights, state in zip(evaluated, states, strict=True):
        assert state.averaged is not None
        assert all(torch.equal(weights[k], v) for k, v in state.averaged.items())
        assert any(not torch.equal(weights[k], v) for k, v in state.model.items())
    assert all(torch.equal(v, evaluated[-1][k]) for k, v in model.state_dict().items())


def test_averaging_does_not_change_what_is_trained(run: Run) -> None:
    with_average: list[TrainState] = []
    without: list[TrainState] = []
    run(noisy_model(0), RECIPE, on_state=with_average.append)
    run(noisy_model(0), Recipe(epochs=2, batch_size=64, learning_rate=0.01), on_state=without.append)
    for a, b in zip(with_average, without, strict=True):
        assert all(torch.equal(v, b.model[k]) for k, v in a.model.items())
        assert b.averaged is None


def test_without_a_decay_the_weights_themselves_are_evaluated_and_kept(run: Run) -> None:
    evaluated: list[nn.Module] = []
    states: list[TrainState] = []

    def evaluate(model: nn.Module) -> CurveRow:
        evaluated.append(model)
        return {}

    model, other = noisy_model(0), noisy_model(1)
    run(model, Recipe(epochs=1, batch_size=64), evaluate=evaluate, on_state=states.append)
    assert [seen is model for seen in evaluated] == [True]
    other.load_state_dict(states[-1].model)
    assert same_weights(model, other)
