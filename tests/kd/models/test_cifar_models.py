"""The models of the CIFAR literature, by the sizes their papers state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kd.models.build import build, describe

# Millions of parameters: He et al., 2016, table 6 (CIFAR-10); Zagoruyko and Komodakis, 2016, table 4 (CIFAR-10).
STATED_AT_10_CLASSES = {
    "resnet20": "0.27",
    "resnet32": "0.46",
    "resnet44": "0.66",
    "resnet56": "0.85",
    "resnet110": "1.7",
    "wrn_40_1": "0.6",
    "wrn_40_2": "2.2",
}
# With 100 classes, exactly: what the reference code of Tian et al., 2020, has, which distillation papers compare with.
AT_100_CLASSES = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
}


@pytest.mark.parametrize(("name", "parameters"), AT_100_CLASSES.items())
def test_parameters_with_100_classes(name: str, parameters: int) -> None:
    assert describe(name, args={}, classes=100, channels=3, size=(32, 32)).parameters == parameters


@pytest.mark.parametrize(("name", "millions"), STATED_AT_10_CLASSES.items())
def test_parameters_are_those_of_the_papers(name: str, millions: str) -> None:
    parameters = describe(name, args={}, classes=10, channels=3, size=(32, 32)).parameters
    decimals = len(millions.partition(".")[2])
    # The paper counts no projections, and cuts rather than rounds.
    assert abs(parameters / 1e6 - float(millions)) < 1.01 * 10**-decimals


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "wrn_16_1"])
def test_stages_halve_the_image_twice_and_every_weight_learns(name: str) -> None:
    model = build(name, args={}, classes=7, channels=1)
    sizes: list[tuple[int, ...]] = []
    last = model.layer3 if name.startswith("resnet") else model.block3
    assert isinstance(last, torch.nn.Module)
    last.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[-2:])))
    logits_BC = model(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert sizes == [(8, 8)]
    assert logits_BC.shape == (2, 7)
    logits_BC.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("wrn_16_2", {"depth": 21}, "depth must be 6n"),
        ("cifar_resnet18", {"channels": [8, 16, 32]}, "channels: expected one number a stage, four, got 3"),
    ],
)
def test_a_shape_that_does_not_exist_is_refused(name: str, args: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build(name, args=args, classes=10, channels=3)


@pytest.mark.parametrize(("stem_stride", "side"), [(1, 4), (2, 2)])
def test_resnet18_for_small_images_keeps_some_of_their_grid(stem_stride: int, side: int) -> None:
    args = {"channels": [4, 8, 16, 24], "stem_stride": stem_stride}
    model = build("cifar_resnet18", args=args, classes=7, channels=1)
    sizes: list[tuple[int, ...]] = []
    last = model.layer4
    assert isinstance(last, torch.nn.Module)
    last.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    logits_BC = model(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert sizes == [(24, side, side)]
    logits_BC.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_resnet18_for_small_images_has_its_well_known_size() -> None:
    # What its usual CIFAR-10 code counts.
    assert describe("cifar_resnet18", args={}, classes=10, channels=3, size=(32, 32)).parameters == 11_173_962
