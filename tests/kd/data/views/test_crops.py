from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kd.data.views.crops import Cropper
from kd.data.views.policy import Padding, ViewPolicy
from kd.data.views.views import ViewStream
from tests.kd.helpers import noise, stream, whole

CROPPED = ViewPolicy(crop_padding=2, horizontal_flip=True)


def reflected(at: int, size: int) -> int:
    """The pixel that a place outside shows: mirrored at the border pixel, which is not repeated."""
    while not 0 <= at < size:
        at = -at if at < 0 else 2 * (size - 1) - at
    return at


def naive_view(image_HWC: np.ndarray, *, pad: int, mode: Padding, top: int, left: int, flip: bool) -> np.ndarray:
    """A padded image, cropped back to its size, then mirrored: a pixel at a time."""
    height, width, _ = image_HWC.shape
    view_HWC = np.zeros_like(image_HWC)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + top - pad, x + left - pad
            inside = 0 <= from_y < height and 0 <= from_x < width
            to_x = width - 1 - x if flip else x
            if inside or mode == "reflect":
                view_HWC[y, to_x] = image_HWC[reflected(from_y, height), reflected(from_x, width)]
    return view_HWC


def drawn(views: ViewStream, index_B: Tensor, *, epoch: int) -> dict[str, Tensor | None]:
    """The arguments of a Cropper for some of an epoch's samples."""
    draws = views.epoch(epoch).draws
    return {f"{name}_B": draws[name][index_B].clone() if name in draws else None for name in ("top", "left", "flip")}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(("padding", "flips"), [(2, True), (3, False), (0, True), (4, True)])
def test_views_are_a_padded_crop_then_a_mirror(mode: Padding, padding: int, flips: bool, channels: int) -> None:
    split = noise(40, channels=channels, size=(6, 9))
    views = stream(split, ViewPolicy(crop_padding=padding, padding=mode, horizontal_flip=flips))
    index_B = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:30]
    draws = drawn(views, index_B, epoch=5)
    expected_BHWC = np.stack(
        [
            naive_view(
                split.images_NHWC[i].numpy(),
                pad=padding,
                mode=mode,
                top=0 if draws["top_B"] is None else int(draws["top_B"][at]),
                left=0 if draws["left_B"] is None else int(draws["left_B"][at]),
                flip=draws["flip_B"] is not None and bool(draws["flip_B"][at]),
            )
            for at, i in enumerate(index_B.tolist())
        ]
    )
    got_BHWC = views.crop(index_B, top_B=draws["top_B"], left_B=draws["left_B"], flip_B=draws["flip_B"])
    assert got_BHWC.dtype == torch.uint8
    assert got_BHWC.shape == expected_BHWC.shape
    assert (got_BHWC.numpy() == expected_BHWC).all()
    batch_BCHW = views.epoch(5).batch(index_B)
    assert torch.equal(batch_BCHW, views.pixels(torch.from_numpy(expected_BHWC)))


class Elsewhere:
    """Images that say they are on no CPU, and hand themselves out all the same."""

    device = torch.device("meta")

    def __init__(self, images_NHWC: Tensor) -> None:
        self.images_NHWC, self.shape = images_NHWC, images_NHWC.shape

    def __getitem__(self, index_B: Tensor) -> Tensor:
        return self.images_NHWC[index_B]


def outcome(images_NHWC: Any, views: ViewPolicy, index_B: Tensor, draws: dict[str, Tensor | None]) -> Tensor | str:
    """The views, or that they are refused."""
    try:
        crop: Callable[..., Tensor] = Cropper(images_NHWC, padding=views.crop_padding, mode=views.padding)
        return crop(index_B, **draws)
    except (ValueError, RuntimeError):
        return "refused"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("flips", [True, False])
def test_numpy_and_torch_give_the_same_pixels(mode: Padding, padding: int, flips: bool, channels: int) -> None:
    split = noise(60, channels=channels, size=(6, 9))
    policy = ViewPolicy(crop_padding=padding, padding=mode, horizontal_flip=flips)
    index_B = torch.tensor([59, 0, 3, 3, 17, *range(20, 50)])
    draws = drawn(stream(split, policy), index_B, epoch=1)
    numpy, other = (outcome(i, policy, index_B, draws) for i in (split.images_NHWC, Elsewhere(split.images_NHWC)))
    assert isinstance(numpy, Tensor)
    assert isinstance(other, Tensor)
    assert torch.equal(numpy, other)


@pytest.mark.parametrize("padding", [6, 13])
def test_a_reflection_wider_than_the_image_is_the_same_everywhere_or_refused_everywhere(padding: int) -> None:
    split = noise(10, size=(6, 6))
    policy = ViewPolicy(crop_padding=padding, padding="reflect")
    draws = drawn(stream(split, replace(policy, padding="zeros")), torch.arange(10), epoch=1)
    numpy, other = (
        outcome(i, policy, torch.arange(10), draws) for i in (split.images_NHWC, Elsewhere(split.images_NHWC))
    )
    assert type(numpy) is type(other)
    assert numpy == "refused" or (isinstance(numpy, Tensor) and isinstance(other, Tensor) and torch.equal(numpy, other))


def test_half_of_the_images_are_flipped() -> None:
    flip_N = stream(noise(4000, channels=1, size=(1, 2)), ViewPolicy(horizontal_flip=True)).epoch(0).draws["flip"]
    assert flip_N.dtype == torch.bool
    assert abs(flip_N.float().mean().item() - 0.5) < 0.032  # 4 sigma


def test_crops_take_every_offset_equally_often() -> None:
    draws = stream(noise(4000, channels=1, size=(1, 2)), ViewPolicy(crop_padding=2)).epoch(0).draws
    for name in ("top", "left"):
        counts = torch.bincount(draws[name], minlength=5)
        assert len(counts) == 5
        assert (counts - 800).abs().max() < 4 * 25.3  # sigma of a fifth of 4,000
    same = (draws["top"] == draws["left"]).float().mean().item()
    assert abs(same - 0.2) < 0.026  # rows and columns are drawn apart; 4 sigma


def test_crops_and_flips_are_drawn_apart() -> None:
    draws = stream(noise(4000, channels=1, size=(1, 2)), CROPPED).epoch(0).draws
    for name in ("top", "left"):
        flipped = draws[name][draws["flip"]].float().mean().item()
        kept = draws[name][~draws["flip"]].float().mean().item()
        assert abs(flipped - kept) < 0.18  # 4 sigma of the difference of two means of 2,000


def test_padding_is_black_before_it_is_normalised() -> None:
    views = stream(noise(30, channels=1), ViewPolicy(crop_padding=8))
    epoch = views.epoch(0)
    shifted = int((epoch.draws["top"] > 10).nonzero()[0])  # the last rows come from below the image
    assert whole(epoch)[shifted, 0, -1].tolist() == pytest.approx([-0.4911 / 0.247] * 8)


def test_crops_are_taken_before_the_resize() -> None:
    split = noise(20)
    native, resized = stream(split, CROPPED), stream(split, CROPPED, size=13)
    index_N = torch.arange(20)
    cropped_NHWC = native.crop(index_N, **drawn(native, index_N, epoch=0))
    assert torch.equal(whole(resized.epoch(0)), resized.pixels(cropped_NHWC))
