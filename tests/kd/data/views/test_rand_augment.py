from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from kd.data.views import rand_augment as module
from kd.data.views.policy import RandAugment, ViewPolicy
from kd.data.views.rand_augment import OPERATIONS, Operation, rand_augment, rand_augment_draws
from tests.kd.helpers import noise, stream, whole

# By number, under the names of torchvision's RandAugment, in its order.
NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
GEOMETRY = {
    "ShearX": module.shear_x,
    "ShearY": module.shear_y,
    "TranslateX": module.translate_x,
    "TranslateY": module.translate_y,
    "Rotate": module.rotate,
}
COLOUR = {
    "Brightness": module.brightness,
    "Color": module.saturation,
    "Contrast": module.contrast,
    "Sharpness": module.sharpness,
}
SHAPES = [(32, 40, 3), (33, 33, 3), (32, 32, 1), (8, 8, 1)]


def images(shape: tuple[int, int, int]) -> Tensor:
    height, width, channels = shape
    return noise(8, channels=channels, size=(height, width)).images_NHWC


def torchvisions_magnitude(name: str, magnitude: int, *, height: int, width: int) -> float:
    magnitudes = v2.RandAugment._AUGMENTATION_SPACE[name][0](31, height, width)
    return 0.0 if magnitudes is None else float(magnitudes[magnitude])


def torchvisions(name: str, images_BHWC: Tensor, magnitude: float) -> Tensor:
    """What torchvision's RandAugment does to an image once it has drawn an operation and its signed magnitude."""
    out_BCHW: Tensor = v2.RandAugment()._apply_image_or_video_transform(
        images_BHWC.permute(0, 3, 1, 2),
        name,
        magnitude,
        interpolation=v2.InterpolationMode.NEAREST,
        fill={torch.Tensor: None},
    )
    return out_BCHW.permute(0, 2, 3, 1)


def apply(operation: Operation, images_BHWC: Tensor, strength: float) -> Tensor:
    before = images_BHWC.clone()
    out_BHWC = operation(images_BHWC, torch.full((len(images_BHWC),), strength, dtype=torch.float64))
    assert out_BHWC.dtype == torch.uint8
    assert out_BHWC.shape == images_BHWC.shape
    assert torch.equal(images_BHWC, before)
    return out_BHWC


def share_equal(a: Tensor, b: Tensor) -> float:
    return (a == b).float().mean().item()


@pytest.mark.parametrize("magnitude", range(31))
def test_strengths_are_those_of_torchvision(magnitude: int) -> None:
    assert list(v2.RandAugment._AUGMENTATION_SPACE) == list(NAMES)
    ours = module.operations_at(magnitude, height=24, width=40)
    assert len(ours) == OPERATIONS == 14
    for name, (operation, strength, signed) in zip(NAMES, ours, strict=True):
        assert (operation is None) == (name == "Identity")
        assert signed == v2.RandAugment._AUGMENTATION_SPACE[name][1]
        theirs = torchvisions_magnitude(name, magnitude, height=24, width=40)
        # Theirs is a float32 and, of solarize, a share of 255.
        assert strength == pytest.approx(theirs * (255 if name == "Solarize" else 1), rel=1e-6, abs=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_moves_pixels_as_torchvision_does(name: str, sign: int, shape: tuple[int, int, int]) -> None:
    images_BHWC = images(shape)
    for magnitude in (1, 9, 15, 22, 30):
        strength = sign * torchvisions_magnitude(name, magnitude, height=shape[0], width=shape[1])
        theirs = torchvisions(name, images_BHWC, strength)
        # Of a place in the middle between two pixels, float32 and float64 may find another one the nearer.
        assert share_equal(apply(GEOMETRY[name], images_BHWC, strength), theirs) >= 0.98
    # The other sign is told apart.
    assert share_equal(apply(GEOMETRY[name], images_BHWC, -strength), theirs) < 0.5


@pytest.mark.parametrize("name", GEOMETRY)
def test_no_strength_moves_nothing(name: str) -> None:
    images_BHWC = images((32, 40, 3))
    assert torch.equal(apply(GEOMETRY[name], images_BHWC, 0.0), images_BHWC)


def test_translation_moves_right_and_down_by_whole_pixels() -> None:
    images_BHWC = images((10, 12, 3))
    for pixels, whole_pixels in ((3.0, 3), (3.9, 3), (-2.7, -2), (20.0, 20)):
        right, down = (np.zeros_like(images_BHWC.numpy()) for _ in range(2))
        for place in range(12):
            if 0 <= place - whole_pixels < 12:
                right[:, :, place] = images_BHWC[:, :, place - whole_pixels]
            if place < 10 and 0 <= place - whole_pixels < 10:
                down[:, place] = images_BHWC[:, place - whole_pixels]
        assert (apply(module.translate_x, images_BHWC, pixels).numpy() == right).all()
        assert (apply(module.translate_y, images_BHWC, pixels).numpy() == down).all()


def test_a_quarter_turn_is_counter_clockwise() -> None:
    images_BHWC = images((9, 9, 3))
    for turns in (1, 2, 3):
        assert torch.equal(apply(module.rotate, images_BHWC, 90.0 * turns), torch.rot90(images_BHWC, turns, (1, 2)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", COLOUR)
def test_colours_change_as_torchvisions_do(name: str, sign: int, shape: tuple[int, int, int]) -> None:
    images_BHWC = images(shape)
    for magnitude in (0, 1, 9, 20, 30):
        strength = sign * torchvisions_magnitude(name, magnitude, height=shape[0], width=shape[1])
        ours, theirs = apply(COLOUR[name], images_BHWC, strength), torchvisions(name, images_BHWC, strength)
        # Both cut off the fraction, so that where a blend lies on a whole number a rounding moves it by one level.
        assert (ours.int() - theirs.int()).abs().max() <= 1
        assert share_equal(ours, theirs) > 0.85
    # The border stays where it is sharpened: 28 of 64 pixels of the smallest.
    assert share_equal(ours, images_BHWC) < 0.6 or (name == "Color" and shape[2] == 1)


@pytest.mark.parametrize("strength", [-0.9, -0.3, 0.27, 0.9])
def test_saturation_leaves_single_channel_images_alone(strength: float) -> None:
    images_BHWC = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert torch.equal(apply(module.saturation, images_BHWC, strength), images_BHWC)


@pytest.mark.parametrize("shape", SHAPES)
def test_posterize_and_solarize_are_torchvisions(shape: tuple[int, int, int]) -> None:
    images_BHWC = images(shape)
    for bits in (4, 5, 6, 7, 8):
        assert torch.equal(apply(module.posterize, images_BHWC, bits), torchvisions("Posterize", images_BHWC, bits))
    for threshold in (0.0, 0.5, 127.5, 128.0, 254.0, 255.0):
        theirs = v2.functional.solarize(images_BHWC, threshold)
        assert torch.equal(apply(module.solarize, images_BHWC, threshold), theirs)


def test_posterize_and_solarize_by_hand() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert apply(module.posterize, levels, 4).flatten().tolist() == [v // 16 * 16 for v in range(256)]
    assert apply(module.posterize, levels, 7).flatten().tolist() == [v // 2 * 2 for v in range(256)]
    assert apply(module.solarize, levels, 100.0).flatten().tolist() == [v if v < 100 else 255 - v for v in range(256)]


def with_flat_ones(images_BHWC: Tensor) -> Tensor:
    """Images of few levels, of one level, and of a narrow range among them."""
    images_BHWC = images_BHWC.clone()
    images_BHWC[0] = 77
    images_BHWC[1] = images_BHWC[1] // 64 * 64
    images_BHWC[2] = 100 + images_BHWC[2] // 16
    return images_BHWC


@pytest.mark.parametrize("shape", SHAPES)
def test_autocontrast_is_torchvisions(shape: tuple[int, int, int]) -> None:
    images_BHWC = with_flat_ones(images(shape))
    ours, theirs = apply(module.autocontrast, images_BHWC, 0.0), torchvisions("AutoContrast", images_BHWC, 0.0)
    # Theirs divides by a rounded 1 / 255, which may fall short of a whole number before the fraction is cut off.
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert torch.equal(ours[0], images_BHWC[0])


def test_autocontrast_stretches_every_range_from_0_to_255() -> None:
    for high in range(1, 256):
        levels = torch.arange(high + 1, dtype=torch.uint8).view(1, 1, -1, 1)
        stretched = apply(module.autocontrast, levels, 0.0).flatten().tolist()
        assert (stretched[0], stretched[-1]) == (0, 255), f"a range of {high}"


@pytest.mark.parametrize("shape", SHAPES)
def test_equalize_is_torchvisions(shape: tuple[int, int, int]) -> None:
    images_BHWC = with_flat_ones(images(shape))
    ours = apply(module.equalize, images_BHWC, 0.0)
    assert torch.equal(ours, torchvisions("Equalize", images_BHWC, 0.0))  # whole numbers: exact
    assert torch.equal(ours[0], images_BHWC[0])


def naive_sharpness(image_HWC: np.ndarray, factor: float) -> np.ndarray:
    """Away from the 3 x 3 blur of weight 5 in the middle and 1 around; in float64, the border as it is."""
    x_HWC = image_HWC.astype(np.float64)
    blurred_HWC = x_HWC.copy()
    height, width, _ = x_HWC.shape
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            around = x_HWC[y - 1 : y + 2, x - 1 : x + 2].sum(axis=(0, 1)) + 4 * x_HWC[y, x]
            blurred_HWC[y, x] = np.rint(around / 13)
    return np.clip(factor * x_HWC + (1 - factor) * blurred_HWC, 0, 255)


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.5, 1.9])
def test_sharpness_by_a_loop(factor: float) -> None:
    images_BHWC = images((9, 12, 3))
    got = apply(module.sharpness, images_BHWC, factor - 1).numpy().astype(np.float64)
    expected = np.stack([naive_sharpness(image_HWC.numpy(), factor) for image_HWC in images_BHWC])
    # The fraction is cut off, and a rounding of float32 may come before that.
    assert (got <= expected + 1e-3).all()
    assert (got > expected - 1 - 1e-3).all()


def test_images_too_small_for_a_blur_are_left_alone() -> None:
    images_BHWC = images((2, 9, 3))
    assert torch.equal(apply(module.sharpness, images_BHWC, 0.9), images_BHWC)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_each_image_goes_through_its_own_operations_in_turn(magnitude: int, channels: int) -> None:
    images_BHWC = noise(120, channels=channels, size=(8, 10)).images_NHWC
    policy = RandAugment(operations=3, magnitude=magnitude)
    draws = {name: torch.from_numpy(x) for name, x in rand_augment_draws(120, policy, key=(0, 0)).items()}
    operations = module.operations_at(magnitude, height=8, width=10)
    expected = []
    for i in range(120):
        image_1HWC = images_BHWC[i : i + 1]
        for number, negative in zip(draws["operation_NR"][i], draws["negative_NR"][i], strict=True):
            operation, strength, signed = operations[number]
            if operation is not None:
                image_1HWC = apply(operation, image_1HWC, -strength if signed and negative else strength)
        expected.append(image_1HWC)
    before = images_BHWC.clone()
    got_BHWC = rand_augment(images_BHWC, policy, operation_BR=draws["operation_NR"], negative_BR=draws["negative_NR"])
    assert torch.equal(got_BHWC, torch.cat(expected))
    assert torch.equal(images_BHWC, before)


def test_operations_and_signs_are_drawn_evenly_and_apart() -> None:
    draws = rand_augment_draws(7000, RandAugment(operations=2), key=(0, 0))
    operation_NR, negative_NR = draws["operation_NR"], draws["negative_NR"]
    assert operation_NR.shape == negative_NR.shape == (7000, 2)
    for r in range(2):
        counts = np.bincount(operation_NR[:, r], minlength=14)
        assert len(counts) == 14
        assert abs(counts - 500).max() < 5 * 21.5  # sigma of a fourteenth of 7,000
        assert abs(negative_NR[:, r].mean() - 0.5) < 4 * 0.5 / math.sqrt(7000)
    # One round says nothing of the next: 4 sigma of a fourteenth, and of a half.
    assert abs((operation_NR[:, 0] == operation_NR[:, 1]).mean() - 1 / 14) < 4 * 0.0031
    assert abs((negative_NR[:, 0] == negative_NR[:, 1]).mean() - 0.5) < 4 * 0.006


def test_views_are_cropped_then_augmented_then_normalised() -> None:
    split = noise(60)
    policy = RandAugment(operations=2, magnitude=12)
    cropped = ViewPolicy(crop_padding=2, horizontal_flip=True)
    views = stream(split, ViewPolicy(crop_padding=2, horizontal_flip=True, rand_augment=policy))
    epoch = views.epoch(1)
    bare = stream(split, cropped)
    draws = bare.epoch(1).draws
    cropped_NHWC = bare.crop(torch.arange(60), top_B=draws["top"], left_B=draws["left"], flip_B=draws["flip"])
    augmented_NHWC = rand_augment(
        cropped_NHWC, policy, operation_BR=epoch.draws["operation_NR"], negative_BR=epoch.draws["negative_NR"]
    )
    assert torch.equal(whole(epoch), views.pixels(augmented_NHWC))
