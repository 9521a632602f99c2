from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # type: ignore[import-untyped]

from kd.data.views import color
from kd.data.views.color import jitter_draws
from kd.data.views.policy import ColorJitter, ViewPolicy
from tests.kd.helpers import noise, stream, whole

Change = Callable[[Tensor, Tensor], Tensor]
FACTORS = (0.0, 0.1, 0.6, 1.0, 1.4, 2.5)


def torchvisions(change: Callable[..., Tensor], images_BHWC: Tensor, strength: float) -> Tensor:
    changed: Tensor = change(images_BHWC.permute(0, 3, 1, 2), strength).permute(0, 2, 3, 1)
    return changed


def levels_apart(ours_BHWC: Tensor, theirs_BHWC: Tensor) -> Tensor:
    """Bytes from our float32 as torchvision makes them, by cutting off the fraction, against torchvision's."""
    return (ours_BHWC.to(torch.uint8).int() - theirs_BHWC.int()).abs()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (color.brightness, TF.adjust_brightness),
        (color.contrast, TF.adjust_contrast),
        (color.saturation, TF.adjust_saturation),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_strengths_are_torchvisions(ours: Change, theirs: Callable[..., Tensor], factor: float, channels: int) -> None:
    images_BHWC = noise(20, channels=channels, size=(16, 20)).images_NHWC
    changed_BHWC = ours(images_BHWC, torch.full((20,), factor, dtype=torch.float64))
    assert changed_BHWC.dtype == torch.float32
    apart = levels_apart(changed_BHWC, torchvisions(theirs, images_BHWC, factor))
    # Where a value lies on a whole number, float32 may round it to either side before its fraction is cut off.
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 0.15


@pytest.mark.parametrize("factor", FACTORS)
def test_brightness_contrast_and_saturation_in_float64(factor: float) -> None:
    images_BHWC = noise(20, size=(16, 20)).images_NHWC
    x = images_BHWC.double().numpy()
    luma = np.floor(0.2989 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:])
    mean = luma.mean(axis=(1, 2, 3), keepdims=True)
    for change, other in ((color.brightness, 0 * x), (color.contrast, mean), (color.saturation, luma)):
        expected = np.clip(factor * x + (1 - factor) * other, 0, 255)
        got = change(images_BHWC, torch.full((20,), factor)).numpy()
        # A few roundings of float32 on the scale of 2.5 * 255.
        np.testing.assert_allclose(got, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -0.37, -0.1, 0.0, 0.05, 0.25, 0.5])
def test_hue_is_torchvisions(turn: float) -> None:
    images_BHWC = noise(20, size=(16, 20)).images_NHWC
    images_BHWC[:5] = images_BHWC[:5, :, :, :1]  # grey pixels among them, which have no hue
    changed_BHWC = color.hue(images_BHWC, torch.full((20,), turn, dtype=torch.float64))
    # torchvision turns [0, 1] into 256 equal steps, so that its byte lies within one of ours.
    apart = (changed_BHWC - torchvisions(TF.adjust_hue, images_BHWC, turn).float()).abs()
    assert apart.max() <= 1.01


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.4])
def test_hue_turns_in_hsv(turn: float) -> None:
    images_BHWC = noise(2, size=(16, 20)).images_NHWC
    images_BHWC[1, :8] = images_BHWC[1, :8, :, :1]
    got = color.hue(images_BHWC, torch.full((2,), turn)).reshape(-1, 3)
    for pixel, turned in zip(images_BHWC.reshape(-1, 3).tolist(), got.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in pixel))
        assert turned == pytest.approx([255 * x for x in colorsys.hsv_to_rgb((h + turn) % 1, s, v)], abs=2e-3)


def test_a_third_of_the_circle_turns_red_into_green_into_blue() -> None:
    red, green, blue = torch.eye(3).mul(200).view(3, 1, 1, 1, 3)
    for start, end in ((red, green), (green, blue), (blue, red)):
        turned = color.hue(start, torch.tensor([1 / 3]))
        assert turned.flatten().tolist() == pytest.approx(end.flatten().tolist(), abs=1e-3)


def test_each_image_has_a_strength_of_its_own() -> None:
    images_BHWC = noise(4).images_NHWC
    for change, strengths in (
        (color.brightness, [0.3, 1.0, 1.5, 0.8]),
        (color.contrast, [0.3, 1.0, 1.5, 0.8]),
        (color.saturation, [0.3, 1.0, 1.5, 0.8]),
        (color.hue, [0.3, 0.0, -0.4, 0.1]),
    ):
        together = change(images_BHWC, torch.tensor(strengths))
        for i, strength in enumerate(strengths):
            assert torch.equal(together[i : i + 1], change(images_BHWC[i : i + 1], torch.tensor([strength])))


@pytest.mark.parametrize(("name", "strength"), [("saturation", 1.27), ("saturation", 0.1), ("hue", 0.3)])
def test_saturation_and_hue_leave_single_channel_images_alone(name: str, strength: float) -> None:
    images_BHWC = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert torch.equal(color.JITTERS[name](images_BHWC, torch.tensor([strength])), images_BHWC.float())


def test_strengths_are_drawn_evenly_from_their_ranges() -> None:
    policy = ColorJitter(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1)
    draws = jitter_draws(5000, policy, key=(0, 0))
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.0, 2.5), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    assert list(draws) == list(ranges)
    for name, (low, high) in ranges.items():
        unit_N = (draws[name] - low) / (high - low)
        assert 0 <= unit_N.min() < 0.002
        assert 0.998 < unit_N.max() <= 1
        counts = np.histogram(unit_N, bins=10, range=(0, 1))[0]
        assert abs(counts - 500).max() < 5 * 21.3  # sigma of a tenth of 5,000
    assert abs(np.corrcoef(list(draws.values())) - np.eye(4)).max() < 0.057  # apart; 4 sigma


def test_only_what_the_policy_asks_for_is_drawn() -> None:
    assert set(jitter_draws(3, ColorJitter(contrast=0.1), key=(0, 0))) == {"contrast"}
    assert jitter_draws(3, ColorJitter(), key=(0, 0)) == {}


def test_a_view_is_changed_in_the_order_brightness_contrast_saturation_hue() -> None:
    split = noise(30)
    views = stream(split, ViewPolicy(color_jitter=ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)))
    epoch = views.epoch(2)
    x_NHWC = split.images_NHWC
    for name in ("brightness", "contrast", "saturation", "hue"):
        x_NHWC = color.JITTERS[name](x_NHWC, epoch.draws[name])
    assert torch.equal(whole(epoch), views.pixels(x_NHWC))
