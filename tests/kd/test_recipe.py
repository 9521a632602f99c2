from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from kd.data.views.policy import ViewPolicy
from kd.recipe import LogitsFormat, Recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"evaluate_every": 0}, "evaluate_every must be >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be > 0, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be > 0, got inf"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"momentum": -0.1}, "momentum must be >= 0, got -0.1"),
        ({"momentum": math.nan}, "momentum must be >= 0, got nan"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be >= 0, got -1.0"),
        ({"step_factor": -0.1}, "step_factor must be >= 0, got -0.1"),
        ({"epochs": 3, "warmup_epochs": 3.5}, r"warmup_epochs \(3.5\) is longer than epochs \(3\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), got -0.1"),
        ({"clip_norm": 0.0}, "clip_norm must be > 0, got 0.0"),
        ({"clip_norm": math.nan}, "clip_norm must be > 0, got nan"),
        ({"schedule": "step", "step_epochs": (4, 2)}, r"step_epochs must be increasing and >= 1, got \[4, 2\]"),
        ({"schedule": "step", "step_epochs": (2, 2)}, "step_epochs must be increasing"),
        ({"schedule": "step", "step_epochs": (0, 2)}, "step_epochs must be increasing and >= 1"),
        ({"schedule": "step"}, "go together"),
        ({"schedule": "cosine", "step_epochs": (2,)}, "go together"),
        ({"batch_size": 64, "micro_batch_size": 0}, r"micro_batch_size must be between 1 and batch_size \(64\), got 0"),
        (
            {"batch_size": 64, "micro_batch_size": 65},
            r"must be between 1 and batch_size \(64\), got 65",
        ),
        ({"nesterov": True}, "nesterov needs optimizer 'sgd' and a momentum above 0"),
        ({"nesterov": True, "optimizer": "sgd", "momentum": 0.0}, "nesterov needs optimizer 'sgd'"),
        ({"ema_decay": 0.0}, "ema_decay must be between 0 and 1, got 0.0"),
        ({"ema_decay": 1.0}, "ema_decay must be between 0 and 1, got 1.0"),
        ({"ema_decay": math.nan}, "ema_decay must be between 0 and 1, got nan"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype must be one of float16, float32, got 'bfloat16'"),
        ({"top_k": 0}, "top_k must be >= 1, got 0"),
    ],
)
def test_a_format_of_logits_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LogitsFormat(**options)


def test_the_edges_of_what_is_allowed_are_allowed() -> None:
    Recipe(epochs=1, batch_size=1, evaluate_every=1, warmup_epochs=1.0, weight_decay=0.0, momentum=0.0, clip_norm=1e-9)
    Recipe(schedule="step", step_epochs=(1, 2), step_factor=0.0)
    Recipe(batch_size=64, micro_batch_size=64, optimizer="sgd", nesterov=True, ema_decay=0.999)
    Recipe(micro_batch_size=1)
    LogitsFormat(dtype="float32", top_k=1)


def test_recipes_are_frozen_values() -> None:
    assert Recipe(views=ViewPolicy(crop_padding=4)) == Recipe(views=ViewPolicy(crop_padding=4))
    assert Recipe(views=ViewPolicy(crop_padding=4)) != Recipe(views=ViewPolicy(crop_padding=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong", [{"epoch": 3}, {"views": {"crop": 4}}, {"optimizer": "lamb"}, {"schedule": "linear"}, {"epochs": 0}]
)
def test_a_grid_file_cannot_hold_what_a_recipe_does_not(wrong: dict[str, Any]) -> None:
    reader = TypeAdapter(Recipe)
    assert reader.validate_python({"epochs": 3, "views": {"crop_padding": 4}}).views == ViewPolicy(crop_padding=4)
    with pytest.raises(ValidationError):
        reader.validate_python(wrong)


def rates(recipe: Recipe, *, steps_per_epoch: int) -> list[float]:
    steps = range(recipe.epochs * steps_per_epoch)
    return [recipe.learning_rate_at(step, steps_per_epoch=steps_per_epoch) for step in steps]


def test_constant_rate() -> None:
    assert rates(Recipe(epochs=2, schedule="constant", learning_rate=0.3), steps_per_epoch=3) == [0.3] * 6


def test_constant_rate_after_warm_up() -> None:
    recipe = Recipe(epochs=3, schedule="constant", learning_rate=0.4, warmup_epochs=1)
    assert rates(recipe, steps_per_epoch=4) == pytest.approx([0.1, 0.2, 0.3, 0.4] + [0.4] * 8)


def test_warm_up_may_be_part_of_an_epoch() -> None:
    recipe = Recipe(epochs=1, schedule="constant", learning_rate=0.4, warmup_epochs=0.5)
    assert rates(recipe, steps_per_epoch=4) == pytest.approx([0.2, 0.4, 0.4, 0.4])


def test_warm_up_may_be_all_there_is() -> None:
    recipe = Recipe(epochs=2, schedule="cosine", learning_rate=0.4, warmup_epochs=2)
    assert rates(recipe, steps_per_epoch=2) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_cosine_rate_by_hand() -> None:
    recipe = Recipe(epochs=2, schedule="cosine", learning_rate=1.0)
    # cos of 0, 45, 90 and 135 degrees; the 180th would come with the step after the last.
    half_root = math.sqrt(0.5)
    assert rates(recipe, steps_per_epoch=2) == pytest.approx([1, (1 + half_root) / 2, 0.5, (1 - half_root) / 2])
    assert recipe.learning_rate_at(4, steps_per_epoch=2) == pytest.approx(0, abs=1e-12)


def test_cosine_rate_after_warm_up_by_hand() -> None:
    got = rates(Recipe(epochs=4, schedule="cosine", learning_rate=1.0, warmup_epochs=2), steps_per_epoch=5)
    assert got[0] == pytest.approx(0.1)
    assert got[9] == 1.0  # the last of warm-up is the peak,
    assert got[10] == 1.0  # from which the cosine starts
    assert got[15] == pytest.approx(0.5)
    assert got[19] == pytest.approx((1 - math.cos(math.radians(18))) / 2)
    assert all(later <= earlier for earlier, later in pairwise(got[10:]))


def test_step_rate_by_hand() -> None:
    recipe = Recipe(epochs=6, schedule="step", step_epochs=(2, 5), step_factor=0.1, learning_rate=2.0)
    assert rates(recipe, steps_per_epoch=2) == pytest.approx([2.0] * 4 + [0.2] * 6 + [0.02] * 2)


def test_step_rate_after_warm_up_counts_epochs_from_the_start() -> None:
    recipe = Recipe(epochs=3, schedule="step", step_epochs=(2,), step_factor=0.5, learning_rate=2.0, warmup_epochs=1)
    assert rates(recipe, steps_per_epoch=2) == pytest.approx([1.0, 2.0, 2.0, 2.0, 1.0, 1.0])


@pytest.mark.parametrize("wrong", [{"optimizer": "lamb"}, {"schedule": "linear"}, {"precision": "fp8"}])
def test_names_are_checked_on_construction(wrong: dict[str, Any]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
        Recipe(**wrong)
