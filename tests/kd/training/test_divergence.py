"""A loss that is not a number ends the run, and nothing is handed out that holds such numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from kd.checkpoint import state_from_bytes, state_to_bytes
from kd.data.views.views import EpochViews, Labels
from kd.methods.method import Seen
from kd.objective import HardLabels, Loss
from kd.recipe import Recipe
from kd.training.errors import DivergedError
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import AnyRow, linear, noisy_model, same_weights, tensors_in, untimed

Run = Callable[..., list[AnyRow]]
RECIPE = Recipe(epochs=4, batch_size=64, learning_rate=0.002, schedule="constant", ema_decay=0.9)


class Failing(HardLabels):
    """Labels that fail at one step of one epoch, both counted from 0."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(label_smoothing=0)
        self.at = (epoch, step)
        self.epoch: int | None = None
        self.step = -1

    def start_epoch(self, views: EpochViews, *, progress: float) -> None:
        self.epoch, self.step = views.epoch, -1

    def __call__(self, student: Seen, labels: Labels, **facts: Any) -> Loss:
        self.step += 1
        loss = super().__call__(student, labels, **facts)
        return Loss(self.failed(loss.total, student.logits_BC)) if (self.epoch, self.step) == self.at else loss

    def failed(self, loss: Tensor, logits_BC: Tensor) -> Tensor:
        raise NotImplementedError


class FailingLoss(Failing):
    """The loss has another value there."""

    def __init__(self, epoch: int, step: int, value: float) -> None:
        super().__init__(epoch, step)
        self.value = value

    def failed(self, loss: Tensor, logits_BC: Tensor) -> Tensor:
        return loss * self.value


class FailingGradient(Failing):
    """The loss is as it was, its gradient is not: the root's slope at 0 is infinite, and 0 times that is no number."""

    def failed(self, loss: Tensor, logits_BC: Tensor) -> Tensor:
        return loss + (0 * logits_BC).sum().sqrt()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_says_where(run: Run, value: float) -> None:
    states: list[TrainState] = []
    evaluated: list[nn.Module] = []

    def evaluate(model: nn.Module) -> CurveRow:
        evaluated.append(model)
        return {}

    message = (
        rf"^the loss is {value} at epoch 3, step 2 of 5, learning rate 0.002: lower learning_rate, warm up longer, or "
        "set clip_norm$"
    )
    with pytest.raises(DivergedError, match=message):
        run(linear(), RECIPE, objective=FailingLoss(2, 1, value), on_state=states.append, evaluate=evaluate)
    assert [len(state.curve) for state in states] == [1, 2]
    assert len(evaluated) == 2
    assert all(tensor.isfinite().all() for state in states for tensor in tensors_in(state))


@pytest.mark.parametrize(
    ("objective", "message"),
    [(FailingLoss(1, 2, math.nan), "the loss is nan at epoch 2, step 3 of 5"), (FailingGradient(1, 2), "epoch 2")],
    ids=["loss", "gradient"],
)
def test_a_state_asked_for_within_an_epoch_holds_numbers_or_is_not_handed_out(
    run: Run, objective: Failing, message: str
) -> None:
    states: list[TrainState] = []
    with pytest.raises(DivergedError, match=message):
        run(linear(), RECIPE, objective=objective, on_state=states.append, save_now=lambda: True)
    assert [(len(state.curve), state.step) for state in states] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert all(tensor.isfinite().all() for state in states for tensor in tensors_in(state))


@pytest.mark.parametrize("epoch", [1, 3])
def test_weights_after_an_epoch_are_numbers_or_the_run_ends(run: Run, epoch: int) -> None:
    """An epoch's last step fails, whose loss still was a number: of one between, and of the last."""
    states: list[TrainState] = []
    with pytest.raises(DivergedError):
        run(linear(), RECIPE, objective=FailingGradient(epoch, 4), on_state=states.append)
    assert [len(state.curve) for state in states] == list(range(1, epoch + 1))
    assert all(tensor.isfinite().all() for state in states for tensor in tensors_in(state))


def test_the_last_state_before_it_loads_and_goes_on(run: Run) -> None:
    written: list[bytes] = []

    def keep(state: TrainState) -> None:
        written.append(state_to_bytes(state.to_dict()))

    with pytest.raises(DivergedError):
        run(noisy_model(0), RECIPE, objective=FailingLoss(2, 1, math.nan), on_state=keep)
    whole, resumed = noisy_model(0), noisy_model(1)
    expected = run(whole, RECIPE)
    state = TrainState.from_dict(state_from_bytes(written[-1]))
    assert untimed(run(resumed, RECIPE, resume=state)) == untimed(expected)
    assert same_weights(resumed, whole)


def test_a_huge_learning_rate_diverges(run: Run) -> None:
    states: list[TrainState] = []
    evaluated: list[nn.Module] = []
    recipe = Recipe(epochs=2, batch_size=64, optimizer="sgd", learning_rate=1e38)

    def evaluate(model: nn.Module) -> CurveRow:
        evaluated.append(model)
        return {}

    # The first loss is that of the initial weights; the step after it goes far beyond float32.
    with pytest.raises(DivergedError, match=r"at epoch 1, step [23] of 5, learning rate"):
        run(linear(), recipe, on_state=states.append, evaluate=evaluate)
    assert not states
    assert not evaluated


@pytest.mark.parametrize("options", [{"learning_rate": 0.25}, {"learning_rate": 0.25, "warmup_epochs": 2.0}])
def test_the_learning_rate_named_is_that_of_the_step(run: Run, options: dict[str, Any]) -> None:
    recipe = Recipe(epochs=4, batch_size=64, optimizer="sgd", **options)
    rate = recipe.learning_rate_at(1 * 5 + 3, steps_per_epoch=5)
    with pytest.raises(DivergedError, match=f"epoch 2, step 4 of 5, learning rate {rate:.3g}:"):
        run(linear(), recipe, objective=FailingLoss(1, 3, math.nan))
