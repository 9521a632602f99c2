from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from kd.data.views.policy import ColorJitter, Mixing, RandAugment, RandomErasing, ViewPolicy


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ViewPolicy, {"crop_padding": -1}, "crop_padding must be >= 0, got -1"),
        (ViewPolicy, {"cutout": -1}, "cutout must be >= 0, got -1"),
        (ViewPolicy, {"stream": -1}, "stream must be >= 0, got -1"),
        (ViewPolicy, {"padding": "edge"}, "padding must be one of zeros, reflect, got 'edge'"),
        (ColorJitter, {"brightness": -0.1}, "brightness must be between 0 and 10, got -0.1"),
        (ColorJitter, {"contrast": 11}, "contrast must be between 0 and 10, got 11"),
        (ColorJitter, {"saturation": math.nan}, "saturation must be between 0 and 10, got nan"),
        (ColorJitter, {"hue": 0.6}, "hue must be between 0 and 0.5, got 0.6"),
        (ColorJitter, {"hue": -0.1}, "hue must be between 0 and 0.5, got -0.1"),
        (RandAugment, {"operations": 0}, "operations must be between 1 and 10, got 0"),
        (RandAugment, {"operations": 11}, "operations must be between 1 and 10, got 11"),
        (RandAugment, {"magnitude": -1}, "magnitude must be between 0 and 30, got -1"),
        (RandAugment, {"magnitude": 31}, "magnitude must be between 0 and 30, got 31"),
        (RandomErasing, {"probability": 1.1}, "probability must be between 0 and 1, got 1.1"),
        (RandomErasing, {"probability": math.nan}, "probability must be between 0 and 1, got nan"),
        (RandomErasing, {"area": (0.0, 0.3)}, "area must be between 1e-06 and 1, got 0.0"),
        (RandomErasing, {"area": (0.3, 0.2)}, "area must be between 0.3 and 1, got 0.2"),
        (RandomErasing, {"area": (0.3, 1.2)}, "area must be between 0.3 and 1, got 1.2"),
        (RandomErasing, {"ratio": (0.0, 3.0)}, "ratio must be between 1e-06 and 100, got 0.0"),
        (RandomErasing, {"ratio": (0.3, math.inf)}, "ratio must be between 0.3 and 100, got inf"),
        (Mixing, {}, "give mixup_alpha, cutmix_alpha or both"),
        (Mixing, {"mixup_alpha": -0.2}, "mixup_alpha must be between 0 and 4, got -0.2"),
        (Mixing, {"cutmix_alpha": math.inf}, "cutmix_alpha must be between 0 and 4, got inf"),
        (Mixing, {"mixup_alpha": 1, "probability": -1}, "probability must be between 0 and 1, got -1"),
        (Mixing, {"mixup_alpha": 1, "partners": "all"}, "partners must be one of epoch, batch, got 'all'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(kind: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**options)


def test_the_edges_of_what_is_allowed_are_allowed() -> None:
    ColorJitter(brightness=0, contrast=10, saturation=10, hue=0.5)
    for magnitude in (0, 30):
        RandAugment(operations=10, magnitude=magnitude)
    RandomErasing(probability=0, area=(0.1, 0.1), ratio=(1.0, 1.0))
    RandomErasing(probability=1, area=(1e-6, 1.0), ratio=(1e-6, 100.0))
    Mixing(mixup_alpha=4, cutmix_alpha=4, probability=0)
    ViewPolicy(crop_padding=0, cutout=0, stream=0)


@pytest.mark.parametrize("value", [ViewPolicy(), ColorJitter(), RandAugment(), RandomErasing(), Mixing(mixup_alpha=1)])
def test_policies_are_frozen_values(value: Any) -> None:
    assert value == dataclasses.replace(value)
    assert hash(value) == hash(dataclasses.replace(value))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 4},
        {"padding": "edge"},
        {"rand_augment": {"magnitudes": 9}},
        {"rand_augment": {"magnitude": 31}},
        {"color_jitter": {"gamma": 0.2}},
        {"random_erasing": {"area": [0.1]}},
        {"mixing": {}},
        {"mixing": {"mixup_alpha": 1, "partner": "epoch"}},
    ],
)
def test_a_grid_file_cannot_hold_what_a_policy_does_not(wrong: dict[str, Any]) -> None:
    reader = TypeAdapter(ViewPolicy)
    read = reader.validate_python({"cutout": 8, "mixing": {"mixup_alpha": 1}, "random_erasing": {"area": [0.1, 0.2]}})
    assert read == ViewPolicy(cutout=8, mixing=Mixing(mixup_alpha=1), random_erasing=RandomErasing(area=(0.1, 0.2)))
    with pytest.raises(ValidationError):
        reader.validate_python(wrong)


def test_only_partners_of_the_batch_make_a_view_unrepeatable() -> None:
    assert ViewPolicy().unrepeatable is None
    assert ViewPolicy(mixing=Mixing(mixup_alpha=1)).unrepeatable is None
    everything = ViewPolicy(
        crop_padding=4,
        horizontal_flip=True,
        rand_augment=RandAugment(),
        color_jitter=ColorJitter(hue=0.1),
        cutout=8,
        random_erasing=RandomErasing(),
        mixing=Mixing(mixup_alpha=1, cutmix_alpha=1),
    )
    assert everything.unrepeatable is None
    reason = dataclasses.replace(everything, mixing=Mixing(mixup_alpha=1, partners="batch")).unrepeatable
    assert reason is not None
    assert reason.startswith("views.mixing.partners 'batch'")
