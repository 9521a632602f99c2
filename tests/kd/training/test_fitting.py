"""Every state that a run hands out fits the run that goes on from it; nothing else does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from kd.checkpoint import CheckpointError, state_from_bytes
from kd.training.resume import fitting_state
from kd.training.state import TrainState
from tests.kd.helpers import noisy_model
from tests.kd.training.test_resume import RECIPES, Evaluate, Run, kept_states

IMAGES, STEPS = 300, 5
NAME = "adamw, warm-up, clipping, average"
State = dict[str, Any]


@pytest.fixture
def saved(run: Run, evaluate: Evaluate) -> State:
    """After an epoch and two steps."""
    _, _, written = kept_states(run, RECIPES[NAME], evaluate=evaluate)
    return state_from_bytes(written[STEPS + 1])


def check(state: State, name: str = NAME) -> None:
    fitting_state(state, noisy_model(7), RECIPES[name], images=IMAGES, evaluated=["val"])


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_run_hands_out_fits(name: str, run: Run, evaluate: Evaluate) -> None:
    *_, written = kept_states(run, RECIPES[name], evaluate=evaluate)
    for data in written[:-1]:
        check(state_from_bytes(data), name)
    with pytest.raises(CheckpointError, match="its curve is not that of less than 3 epochs"):
        check(state_from_bytes(written[-1]), name)


@dataclass
class Newer(TrainState):
    """Of a later version."""

    since: int = 7


def test_a_state_of_before_a_part_came_has_its_default(saved: State) -> None:
    assert Newer.from_dict(saved).since == 7
    assert Newer.from_dict({**saved, "since": 8}).since == 8
    with pytest.raises(KeyError, match="curve"):
        Newer.from_dict({name: value for name, value in saved.items() if name != "curve"})


def weights(change: Callable[[State], State], of: str = "model") -> Callable[[State], State]:
    return lambda state: {**state, of: change(dict(state[of]))}


def row(**figures: Any) -> Callable[[State], State]:
    return lambda state: {**state, "curve": [{**state["curve"][0], **figures}]}


def kept(**values: Any) -> Callable[[State], State]:
    def changed(state: State) -> State:
        first, *others = state["optimizer"]["state"].items()
        return {
            **state,
            "optimizer": {**state["optimizer"], "state": dict([(first[0], {**first[1], **values}), *others])},
        }

    return changed


def group(**values: Any) -> Callable[[State], State]:
    def changed(state: State) -> State:
        (only,) = state["optimizer"]["param_groups"]
        return {**state, "optimizer": {**state["optimizer"], "param_groups": [{**only, **values}]}}

    return changed


def put(**values: Any) -> Callable[[State], State]:
    return lambda state: {**state, **values}


def first(state: State) -> str:
    return next(iter(state))


CHANGES: dict[str, tuple[Callable[[State], State], str]] = {
    "nothing": (lambda state: {}, "it lacks 'step'"),
    "no curve": (lambda state: {k: v for k, v in state.items() if k != "curve"}, "it lacks 'curve'"),
    "model None": (put(model=None), "its weights (model) are not the model's"),
    "model a list": (put(model=[1]), "its weights (model) are not the model's"),
    "a renamed weight": (weights(lambda w: {f"x.{name}": t for name, t in w.items()}), "are not the model's: "),
    "a weight more": (weights(lambda w: {**w, "more": torch.zeros(1)}), "are not the model's: more"),
    "a weight of another shape": (weights(lambda w: {**w, first(w): torch.zeros(1)}), "is of another shape or type"),
    "a weight of another type": (weights(lambda w: {**w, first(w): w[first(w)].double()}), "of another shape or type"),
    "a weight as text": (weights(lambda w: {**w, first(w): "a"}), "it holds something else: AttributeError"),
    "a weight of no number": (weights(lambda w: {**w, first(w): w[first(w)] * math.nan}), "are not finite"),
    "no average": (put(averaged=None), "its weights (averaged) are not the model's"),
    "another average": (weights(lambda w: {}, "averaged"), "its weights (averaged) are not the model's"),
    "optimizer {}": (put(optimizer={}), "it lacks 'param_groups'"),
    "optimizer None": (put(optimizer=None), "it holds something else: TypeError"),
    "no groups": (lambda s: put(optimizer={**s["optimizer"], "param_groups": []})(s), "its optimizer is another"),
    "another decay": (group(weight_decay=9.0), "its optimizer is another"),
    "other parameters": (group(params=[0]), "its optimizer is another"),
    "a moment of another shape": (kept(exp_avg=torch.zeros(1)), "its optimizer keeps exp_avg of another shape"),
    "a moment as text": (kept(exp_avg="a"), "it holds something else"),
    "a moment of another optimizer": (kept(momentum_buffer=torch.zeros(1)), "its optimizer keeps something else"),
    "step as text": (put(step="7"), "its step is 7, of 5 in an epoch"),
    "step 10^9": (put(step=10**9), "its step is 1000000000, of 5"),
    "step -1": (put(step=-1), "its step is -1, of 5"),
    "step True": (put(step=True), "its step is True, of 5"),
    "hits as text": (put(hits="a"), "it holds something else: AttributeError"),
    "more hits than images": (put(hits=torch.tensor(IMAGES + 1)), "are not those of its images"),
    "losses of other steps": (put(loss_S=torch.zeros(3)), "are not those of its steps"),
    "a loss of no number": (put(loss_S=torch.full((STEPS,), math.nan)), "are not those of its images"),
    "no losses": (put(loss_S=None), "are not those of its steps"),
    "negative seconds": (put(seconds=-1.0), "its seconds are no time"),
    "curve as text": (put(curve="x"), "its curve is not that of less than 3 epochs"),
    "a full curve": (lambda s: put(curve=[{**s["curve"][0], "epoch": i} for i in (1, 2, 3)])(s), "less than 3 epochs"),
    "a curve of rows that are none": (put(curve=[7]), "it holds something else: TypeError"),
    "a row that lacks a column": (put(curve=[{"epoch": 1}]), "it lacks 'learning_rate'"),
    "a row of another epoch": (row(epoch=2), "its curve has not the figures of epoch 1"),
    "a row that was not evaluated": (
        lambda s: put(curve=[{k: v for k, v in s["curve"][0].items() if not k.startswith("val")}])(s),
        "it lacks 'val_top1'",
    ),
    "a figure as text": (row(val_nll="a"), "its curve has something else than figures at epoch 1"),
    "another learning rate": (row(learning_rate=1e-6), "another learning rate than the recipe at epoch 1"),
    "an epoch less": (put(curve=[]), "its optimizer has taken 7 steps, its curve and its step stand for 2"),
    "a step more": (put(step=3), "its optimizer has taken 7 steps, its curve and its step stand for 8"),
    "an optimizer before its first step": (
        lambda s: put(optimizer={**s["optimizer"], "state": {}})(s),
        "its optimizer has taken 0 steps, its curve and its step stand for 7",
    ),
    "a share of 10": (row(train_top1=10.0), "its curve has shares outside of 0 to 1 at epoch 1"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_does_not_fit_is_named(saved: State, what: str) -> None:
    check(saved)
    change, reason = CHANGES[what]
    with pytest.raises(CheckpointError) as error:
        check(change(saved))
    assert reason in str(error.value)


def test_averages_that_a_recipe_has_not_do_not_fit(saved: State) -> None:
    name = "adam, smoothing, micro-batches, colours"
    with pytest.raises(CheckpointError, match="it has averaged weights, which this recipe has not"):
        check({**saved, "curve": []}, name)
