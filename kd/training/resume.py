"""Whether a training state that was read back fits the training that is to go on from it. A whole file may still hold
what does not: another version of a model's code names its weights otherwise, and a storage may have been written to by
anybody. What does not fit is told before the first step, so that the training can start again instead of failing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd.checkpoint import CheckpointError, optimizer_state
from kd.recipe import Recipe
from kd.training.learner import Learner
from kd.training.optim import make_optimizer
from kd.training.state import TrainState
from kd.training.train import steps_of

COLUMNS = ("learning_rate", "train_loss", "train_top1", "seconds_train", "seconds_evaluate")


def fitting_state(
    state: Mapping[str, Any],
    model: nn.Module,
    recipe: Recipe,
    *,
    beside: nn.Module | None = None,
    images: int,
    evaluated: Sequence[str],
) -> TrainState:
    """The state to go on from. beside: what is learned beside the model; images: in the training split; evaluated: the
    splits that the curve has figures of. Raises CheckpointError that names what does not fit."""
    learner = Learner(model, nn.Module() if beside is None else beside)
    try:
        found = TrainState.from_dict(state)
        steps = steps_of(recipe, images)
        _check_curve(found.curve, recipe, evaluated, steps=steps)
        _check_sums(found, steps=steps, images=images)
        _check_weights("model", found.model, model)
        _check_weights("beside", found.beside, learner.beside)
        if recipe.ema_decay is not None:
            _check_weights("averaged", found.averaged, model)
        elif found.averaged is not None:
            raise CheckpointError("it has averaged weights, which this recipe has not")
        _check_optimizer(found.optimizer, learner, recipe, taken=len(found.curve) * steps + found.step)
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"it lacks {error}") from None
    except Exception as error:  # values of other types than any that is looked for
        raise CheckpointError(f"it holds something else: {type(error).__name__}: {error}") from None
    return found


def _check_curve(curve: Any, recipe: Recipe, evaluated: Sequence[str], *, steps: int) -> None:
    """steps: in an epoch, on which the learning rate depends."""
    if not isinstance(curve, list) or len(curve) >= recipe.epochs:
        raise CheckpointError(f"its curve is not that of less than {recipe.epochs} epochs")
    for epoch, row in enumerate(curve, start=1):
        metrics = [f"{split}_top1" for split in evaluated] if epoch % recipe.evaluate_every == 0 else []
        if row["epoch"] != epoch or not all(_is_number(row[name]) for name in (*COLUMNS, *metrics)):
            raise CheckpointError(f"its curve has not the figures of epoch {epoch}")
        if not all(isinstance(name, str) and type(value) in (int, float) for name, value in row.items()):
            raise CheckpointError(f"its curve has something else than figures at epoch {epoch}")
        if not all(0 <= value <= 1 for name, value in row.items() if name.endswith(("_top1", "_top5"))):
            raise CheckpointError(f"its curve has shares outside of 0 to 1 at epoch {epoch}")
        rate = recipe.learning_rate_at(epoch * steps - 1, steps_per_epoch=steps)
        # Another machine's cosine may differ in its last digit.
        if not math.isclose(row["learning_rate"], rate, rel_tol=1e-9, abs_tol=1e-12 * recipe.learning_rate):
            raise CheckpointError(f"its curve has another learning rate than the recipe at epoch {epoch}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check_sums(state: TrainState, *, steps: int, images: int) -> None:
    if type(state.step) is not int or not 0 <= state.step <= steps:
        raise CheckpointError(f"its step is {str(state.step)[:40]}, of {steps} in an epoch")
    if not _is_number(state.seconds) or state.seconds < 0:
        raise CheckpointError("its seconds are no time")
    loss_S, hits = state.loss_S, state.hits
    if state.step == 0 and loss_S is None and hits is None:
        return
    if loss_S is None or hits is None or loss_S.shape != (steps,) or hits.shape != () or hits.dtype != torch.int64:
        raise CheckpointError("the sums of its epoch are not those of its steps")
    if not loss_S.is_floating_point() or not torch.isfinite(loss_S).all() or not 0 <= int(hits) <= images:
        raise CheckpointError("the sums of its epoch are not those of its images")
    for name, value_S in state.terms_S.items():
        if not name.isidentifier() or value_S.shape != (steps,) or value_S.dtype != loss_S.dtype:
            raise CheckpointError("the sums of its epoch are not those of its terms")


def _check_weights(what: str, found: Any, model: nn.Module) -> None:
    """The names, shapes and types of the model's, and every number finite, as it was when it was saved."""
    expected = model.state_dict()
    if not isinstance(found, dict) or found.keys() != expected.keys():
        other = sorted(map(str, expected.keys() ^ found.keys())) if isinstance(found, dict) else []
        raise CheckpointError(f"its weights ({what}) are not the model's{f': {_some(other)}' if other else ''}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise CheckpointError(f"its weights ({what}) are not the model's: {name} is of another shape or type")
        if what != "averaged" and tensor.is_floating_point() and not torch.isfinite(found[name]).all():
            raise CheckpointError(f"its weights ({what}) are not finite: {name}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_optimizer(found: Any, learner: Learner, recipe: Recipe, *, taken: int) -> None:
    """The groups and settings of a fresh one, but for the learning rate, which is set at each step; and for each
    parameter that has one, the state that this optimizer keeps. taken: the steps that curve and step stand for, which
    an optimizer that counts them has counted too."""
    optimizer = make_optimizer(learner, recipe)
    fresh = optimizer_state(optimizer)["param_groups"]
    groups = [{**group, "lr": None} for group in found["param_groups"]]
    if groups != [{**group, "lr": None} for group in fresh]:
        raise CheckpointError("its optimizer is another, or of other parameters")
    parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    kept = _kept_state(recipe)
    for number, values in found["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or values.keys() != kept:
            raise CheckpointError("its optimizer keeps something else of the parameters")
        for name, value in values.items():
            if value is not None and value.shape != (() if name == "step" else parameters[number].shape):
                raise CheckpointError(f"its optimizer keeps {name} of another shape")
    if "step" in kept:
        counted = max((int(values["step"]) for values in found["state"].values()), default=0)
        if counted != taken:
            raise CheckpointError(f"its optimizer has taken {counted} steps, its curve and its step stand for {taken}")


def _kept_state(recipe: Recipe) -> set[str]:
    """What the recipe's optimizer keeps of each parameter, as one of a single weight shows."""
    probe = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer(probe, recipe)
    probe(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    return set(optimizer.state[probe.weight])
