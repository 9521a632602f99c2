from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kd.data.dataset import DatasetMeta
from kd.data.views.pixels import Pixels
from kd.data.views.policy import ViewPolicy
from tests.kd.helpers import COLOURS, CPU, GREYS, noise, stream, whole

METAS = {1: GREYS, 3: COLOURS}


def pixels(channels: int, *, size: int | None = None) -> Pixels:
    return Pixels.of(METAS[channels], size=size, device=CPU)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_are_scaled_shifted_and_divided(channels: int, dtype: torch.dtype) -> None:
    images_NHWC = noise(30, channels=channels, size=(6, 9)).images_NHWC.to(dtype)
    before = images_NHWC.clone()
    x_NHWC = images_NHWC.double().numpy() / 255
    expected_NHWC = (x_NHWC - np.array(METAS[channels].mean)) / np.array(METAS[channels].std)
    got_NHWC = pixels(channels).normalise(images_NHWC)
    assert got_NHWC.dtype == torch.float32
    # Values reach 2.3 and come out of a product and a sum of that size, each rounded to float32.
    np.testing.assert_allclose(got_NHWC.numpy(), expected_NHWC, atol=6e-7, rtol=0)
    got_NHWC.zero_()  # memory of its own
    assert torch.equal(images_NHWC, before)


def test_pixels_need_not_lie_in_memory_order() -> None:
    images_NHWC = noise(10, size=(6, 9)).images_NHWC
    turned_NWHC = images_NHWC.transpose(1, 2)
    for turned in (turned_NWHC, turned_NWHC.float()):
        assert torch.equal(pixels(3).normalise(turned), pixels(3).normalise(turned_NWHC.contiguous()))


def test_views_without_augmentation_are_the_normalised_pixels() -> None:
    split = noise(30)
    views = stream(split, ViewPolicy())
    for epoch in (0, 9):
        assert torch.equal(whole(views.epoch(epoch)), pixels(3).normalise(split.images_NHWC).permute(0, 3, 1, 2))


def test_a_channel_that_never_varies_stays_finite() -> None:
    meta = DatasetMeta(name="noise", classes=10, channels=3, mean=(0.0,) * 3, std=(0.0, 1.0, 1.0), fingerprint="")
    assert Pixels.of(meta, size=None, device=CPU)(noise(4).images_NHWC).isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("native", [(32, 32), (24, 32), (32, 24)])
@pytest.mark.parametrize(("size", "antialias"), [(48, False), (24, True), (13, True)])
def test_resizing_is_bilinear_and_antialiased_where_it_shrinks(
    channels: int, native: tuple[int, int], size: int, antialias: bool
) -> None:
    images_NHWC = noise(5, channels=channels, size=native).images_NHWC
    normalised_NCHW = pixels(channels).normalise(images_NHWC).permute(0, 3, 1, 2).contiguous()
    expected_NCHW = F.interpolate(normalised_NCHW, size=(size, size), mode="bilinear", antialias=antialias)
    got_NCHW = pixels(channels, size=size)(images_NHWC)
    assert got_NCHW.shape == (5, channels, size, size)
    assert got_NCHW.is_contiguous(memory_format=torch.channels_last)
    # Another memory order sums the same four (or few) neighbours in another order.
    torch.testing.assert_close(got_NCHW, expected_NCHW, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [8, None])
def test_the_native_size_is_not_resampled(size: int | None) -> None:
    images_NHWC = noise(5).images_NHWC
    assert torch.equal(pixels(3, size=size)(images_NHWC), pixels(3).normalise(images_NHWC).permute(0, 3, 1, 2))


def test_resizing_keeps_a_flat_image_flat_and_averages_what_it_shrinks() -> None:
    plain = [Pixels(torch.zeros(1), torch.ones(1), size) for size in (3, 20, 4)]
    flat = torch.full((1, 8, 8, 1), 51, dtype=torch.uint8)
    for to_size in plain[:2]:
        assert torch.allclose(to_size(flat), torch.tensor(0.2))
    # One bright column in four: without antialiasing a shrink by four would look between the bright columns.
    stripes = torch.zeros(1, 16, 16, 1, dtype=torch.uint8)
    stripes[:, :, ::4] = 255
    assert plain[2](stripes)[0, 0, :, 1:-1].mean().item() == pytest.approx(0.25, abs=0.05)
