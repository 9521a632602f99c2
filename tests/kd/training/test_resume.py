"""A run continued from any of its states ends with the same bits as one that was never interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from kd.checkpoint import state_from_bytes, state_to_bytes
from kd.data.views.policy import ColorJitter, Mixing, RandAugment, RandomErasing, ViewPolicy
from kd.data.views.views import EpochViews
from kd.logits import StoredLogits, store_logits
from kd.methods.soft_targets import SoftTargets
from kd.objective import CachedTeacher, Distillation
from kd.recipe import LogitsFormat, Recipe
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import CPU, AnyRow, noisy_model, normal, same_weights, untimed

Run = Callable[..., list[AnyRow]]
Evaluate = Callable[[nn.Module], CurveRow]

AUGMENTED = ViewPolicy(crop_padding=1, horizontal_flip=True)
# The model has batch norm and dropout; five batches an epoch, the last of another size.
RECIPES = {
    "adamw, warm-up, clipping, average": Recipe(
        epochs=3,
        batch_size=64,
        optimizer="adamw",
        learning_rate=3e-3,
        warmup_epochs=1.5,
        clip_norm=1.0,
        ema_decay=0.9,
        views=AUGMENTED,
    ),
    "sgd, nesterov, steps, mixing": Recipe(
        epochs=3,
        batch_size=64,
        optimizer="sgd",
        nesterov=True,
        learning_rate=0.1,
        schedule="step",
        step_epochs=(2,),
        views=replace(AUGMENTED, mixing=Mixing(mixup_alpha=0.4, cutmix_alpha=1.0), cutout=3),
    ),
    "adam, smoothing, micro-batches, colours": Recipe(
        epochs=3,
        batch_size=64,
        micro_batch_size=24,
        optimizer="adam",
        label_smoothing=0.1,
        evaluate_every=2,
        views=ViewPolicy(
            crop_padding=2,
            padding="reflect",
            rand_augment=RandAugment(),
            color_jitter=ColorJitter(brightness=0.3, contrast=0.3),
            random_erasing=RandomErasing(),
        ),
    ),
    "sgd, bfloat16, partners of the batch": Recipe(
        epochs=3,
        batch_size=64,
        optimizer="sgd",
        precision="bfloat16",
        ema_decay=0.5,
        views=replace(AUGMENTED, mixing=Mixing(mixup_alpha=0.4, partners="batch")),
    ),
}


class CutOffError(Exception):
    """The run is cut off here."""


def kept_states(run: Run, recipe: Recipe, **options: Any) -> tuple[nn.Module, list[AnyRow], list[bytes]]:
    """A whole run, and its states after every step as they would lie in a file."""
    written: list[bytes] = []
    model = noisy_model(0)
    curve = run(
        model,
        recipe,
        save_now=lambda: True,
        on_state=lambda state: written.append(state_to_bytes(state.to_dict())),
        **options,
    )
    return model, curve, written


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_resumed_after_any_step_ends_with_the_same_bits(name: str, run: Run, evaluate: Evaluate) -> None:
    recipe = RECIPES[name]
    undisturbed = noisy_model(0)
    expected = run(undisturbed, recipe, evaluate=evaluate)
    whole, curve, written = kept_states(run, recipe, evaluate=evaluate)
    # Keeping states changes nothing.
    assert untimed(curve) == untimed(expected)
    assert same_weights(whole, undisturbed)
    steps = []
    for data in written:
        state = TrainState.from_dict(state_from_bytes(data))
        steps.append((len(state.curve), state.step))
        torch.rand(17)  # another process would not have the random state of this one
        resumed = noisy_model(99)  # all of its weights must come from the state
        assert untimed(run(resumed, recipe, evaluate=evaluate, resume=state)) == untimed(expected)
        assert same_weights(resumed, whole)
    # Epochs done, and steps done in the next.
    assert steps == [(epoch, step) for epoch in range(3) for step in range(5) if (epoch, step) != (0, 0)] + [(3, 0)]


def test_a_run_cut_off_twice_ends_with_the_same_bits(run: Run, evaluate: Evaluate) -> None:
    recipe = RECIPES["adamw, warm-up, clipping, average"]
    whole, model = noisy_model(0), noisy_model(0)
    expected = run(whole, recipe, evaluate=evaluate)
    saved: list[bytes] = []

    def cut_off(state: TrainState) -> None:
        saved.append(state_to_bytes(state.to_dict()))
        raise CutOffError

    resume: TrainState | None = None
    for after in (3, 4):  # within the first epoch, then within the second
        calls = iter(range(1, 100))
        with pytest.raises(CutOffError):
            run(
                model,
                recipe,
                evaluate=evaluate,
                resume=resume,
                save_now=lambda calls=calls, after=after: next(calls) == after,
                on_state=lambda state: cut_off(state) if state.step else None,
            )
        resume = TrainState.from_dict(state_from_bytes(saved[-1]))
        model = noisy_model(after)
    assert [len(state_from_bytes(data)["curve"]) for data in saved] == [0, 1]
    assert untimed(run(model, recipe, evaluate=evaluate, resume=resume)) == untimed(expected)
    assert same_weights(model, whole)


@pytest.mark.parametrize("top_k", [None, 3])
def test_a_distillation_resumed_after_any_step_ends_with_the_same_bits(run: Run, top_k: int | None) -> None:
    recipe = replace(RECIPES["adamw, warm-up, clipping, average"], epochs=2)
    read: list[int] = []

    def read_epoch(views: EpochViews) -> StoredLogits:
        assert views.epoch is not None
        read.append(views.epoch)
        return store_logits(normal(300, 10, seed=views.epoch), LogitsFormat(top_k=top_k), what="x")

    def student() -> Distillation:
        return Distillation(
            SoftTargets(temperature=4, alpha=0.9), CachedTeacher(read_epoch, device=CPU), label_smoothing=0
        )

    whole, curve, written = kept_states(run, recipe, objective=student())
    assert read == [0, 1]
    for data in written[1::3]:  # after steps 2 and 5 of the first epoch, and 3 of the second
        state, resumed = TrainState.from_dict(state_from_bytes(data)), noisy_model(1)
        assert untimed(run(resumed, recipe, objective=student(), resume=state)) == untimed(curve)
        assert same_weights(resumed, whole)
    assert read == [0, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("part", ["optimizer", "averaged", "loss_S", "hits", "model"])
def test_each_part_of_a_state_matters(run: Run, part: str) -> None:
    """Or the comparisons of bits would say nothing of it."""
    recipe = RECIPES["adamw, warm-up, clipping, average"]
    whole, curve, written = kept_states(run, recipe)
    state = TrainState.from_dict(state_from_bytes(written[6]))
    assert (len(state.curve), state.step) == (1, 2)
    value = getattr(state, part)
    if part == "optimizer":
        value["state"] = {}
    else:
        for tensor in value.values() if isinstance(value, dict) else [value]:
            tensor.add_(1)
    resumed = noisy_model(0)
    again = run(resumed, recipe, resume=state)
    if part in ("loss_S", "hits"):
        assert untimed(again) != untimed(curve)
        assert same_weights(resumed, whole)
    else:
        assert not same_weights(resumed, whole)


def test_the_seconds_of_an_epoch_add_up_over_interruptions(run: Run) -> None:
    _, _, written = kept_states(run, RECIPES["sgd, nesterov, steps, mixing"])
    state = TrainState.from_dict(state_from_bytes(written[6]))
    assert state.seconds > 0
    state.seconds = 1000.0
    curve = run(noisy_model(0), RECIPES["sgd, nesterov, steps, mixing"], resume=state)
    assert curve[1]["seconds_train"] > 1000
    assert curve[2]["seconds_train"] < 1000


def test_a_finished_run_resumes_to_its_end(run: Run) -> None:
    recipe = RECIPES["adamw, warm-up, clipping, average"]
    states: list[TrainState] = []
    whole, resumed = noisy_model(0), noisy_model(1)
    curve = run(whole, recipe, on_state=states.append)
    assert run(resumed, recipe, resume=states[-1], on_state=states.append) == curve
    assert same_weights(resumed, whole)  # the averaged weights
    assert len(states) == 3


def test_a_reported_state_does_not_change_as_training_goes_on(run: Run) -> None:
    kept: list[TrainState] = []
    written: list[bytes] = []

    def keep(state: TrainState) -> None:
        kept.append(state)
        written.append(state_to_bytes(state.to_dict()))

    recipe = replace(RECIPES["adamw, warm-up, clipping, average"], epochs=2)
    run(noisy_model(0), recipe, on_state=keep, save_now=lambda: True)
    assert [state_to_bytes(state.to_dict()) for state in kept] == written
    assert len(set(written)) == 10


@pytest.mark.parametrize("name", RECIPES)
def test_a_state_can_be_resumed_from_twice(name: str, run: Run) -> None:
    recipe = replace(RECIPES[name], epochs=2, schedule="cosine", step_epochs=())
    states: list[TrainState] = []
    run(noisy_model(0), recipe, on_state=states.append, save_now=lambda: True)
    models = [noisy_model(seed) for seed in (1, 2)]
    curves = [untimed(run(model, recipe, resume=states[2])) for model in models]
    assert curves[0] == curves[1]
    assert same_weights(*models)


def test_states_come_after_each_epoch_and_whenever_one_is_asked_for(run: Run) -> None:
    asked = iter([False, True, False, False, True, True, False, True])
    states: list[TrainState] = []
    run(noisy_model(0), Recipe(epochs=2, batch_size=64), save_now=lambda: next(asked), on_state=states.append)
    assert [(len(state.curve), state.step) for state in states] == [(0, 2), (1, 0), (1, 1), (1, 2), (1, 4), (2, 0)]
    assert next(asked, None) is None  # not after an epoch's last step, which has a state anyway


def test_a_state_within_an_epoch_holds_the_sums_of_its_steps(run: Run) -> None:
    states: list[TrainState] = []
    curve = run(noisy_model(0), Recipe(epochs=1, batch_size=64), save_now=lambda: True, on_state=states.append)
    for step, state in enumerate(states[:-1], start=1):
        assert state.loss_S is not None
        assert state.hits is not None
        assert state.loss_S.shape == (5,)
        assert (state.loss_S[:step] > 0).all()
        assert (state.loss_S[step:] == 0).all()
        assert state.hits.item() <= 64 * step
    assert states[-2].loss_S is not None
    assert 0 < states[-2].loss_S.sum().item() < curve[0]["train_loss"]
    assert states[-1].loss_S is states[-1].hits is None


def test_a_state_that_lacks_a_part_is_refused(run: Run) -> None:
    states: list[TrainState] = []
    run(noisy_model(0), Recipe(epochs=1, batch_size=100), on_state=states.append)
    for part in ("step", "model", "optimizer", "averaged", "loss_S", "curve"):
        lacking = states[0].to_dict()
        del lacking[part]
        with pytest.raises(KeyError, match=part):
            TrainState.from_dict(lacking)
