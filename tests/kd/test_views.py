from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kd.data.dataset import DatasetMeta, Split
from kd.data.views import EpochViews, Pixels, ViewStream
from kd.recipe import Views

CPU = torch.device("cpu")
AUGMENTED = Views(crop_padding=2, horizontal_flip=True)

MakeSplit = Callable[..., Split]


def plain(channels: int, *, size: int | None = None) -> Pixels:
    """Pixels scaled to [0, 1] and no more, so that a view can be turned back into bytes."""
    return Pixels(torch.zeros(channels), torch.ones(channels), size)


def stream(split: Split, views: Views, *, size: int | None = None) -> ViewStream:
    return ViewStream(split, views, plain(split.images_NCHW.shape[1], size=size), device=CPU)


def whole(epoch: EpochViews) -> Tensor:
    return epoch.batch(torch.arange(len(epoch)))


def naive_view(image_CHW: np.ndarray, *, pad: int, top: int, left: int, flip: bool) -> np.ndarray:
    """Zero padding, a crop back to the native size, then the mirror, a pixel at a time."""
    channels, height, width = image_CHW.shape
    view_CHW = np.zeros_like(image_CHW)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + top - pad, x + left - pad
                inside = 0 <= from_y < height and 0 <= from_x < width
                to_x = width - 1 - x if flip else x
                view_CHW[c, y, to_x] = image_CHW[c, from_y, from_x] if inside else 0
    return view_CHW


@pytest.mark.parametrize("views", [AUGMENTED, Views(crop_padding=3), Views(horizontal_flip=True)])
def test_views_are_a_padded_crop_then_a_mirror(random_split: MakeSplit, views: Views) -> None:
    split = random_split(40, size=(6, 9))
    epoch = stream(split, views).epoch(5)
    expected_NCHW = np.stack(
        [
            naive_view(
                split.images_NCHW[i].numpy(),
                pad=views.crop_padding,
                top=0 if epoch.top_N is None else int(epoch.top_N[i]),
                left=0 if epoch.left_N is None else int(epoch.left_N[i]),
                flip=False if epoch.flip_N is None else bool(epoch.flip_N[i]),
            )
            for i in range(40)
        ]
    )
    got_NCHW = (whole(epoch) * 255).round().to(torch.uint8).numpy()
    assert got_NCHW.shape == expected_NCHW.shape
    assert (got_NCHW == expected_NCHW).all()


@pytest.mark.parametrize("size", [None, 12])
def test_a_view_depends_on_neither_batch_order_nor_batch_size(random_split: MakeSplit, size: int | None) -> None:
    epoch = stream(random_split(50), AUGMENTED, size=size).epoch(3)
    expected_NCHW = whole(epoch)
    order_N = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for batch_size in (1, 7, 50):
        for index_B in torch.split(order_N, batch_size):
            assert torch.equal(epoch.batch(index_B), expected_NCHW[index_B])


def test_a_view_does_not_depend_on_which_epochs_came_before(random_split: MakeSplit) -> None:
    split = random_split(20)
    long = stream(split, AUGMENTED)
    for epoch in range(3):
        whole(long.epoch(epoch))
    assert torch.equal(whole(long.epoch(3)), whole(stream(split, AUGMENTED).epoch(3)))


def test_a_view_does_not_depend_on_how_many_images_follow_it(random_split: MakeSplit) -> None:
    split = random_split(50)
    head = Split(split.images_NCHW[:20], split.labels_N[:20])
    many, few = stream(split, AUGMENTED).epoch(2), stream(head, AUGMENTED).epoch(2)
    assert torch.equal(whole(few), many.batch(torch.arange(20)))


@pytest.mark.parametrize("views", [Views(crop_padding=2), Views(horizontal_flip=True)])
def test_epochs_and_streams_have_views_of_their_own(random_split: MakeSplit, views: Views) -> None:
    split = random_split(200)
    first_NCHW = whole(stream(split, views).epoch(0))
    other_stream = Views(crop_padding=views.crop_padding, horizontal_flip=views.horizontal_flip, stream=1)
    for other_NCHW in (whole(stream(split, views).epoch(1)), whole(stream(split, other_stream).epoch(0))):
        changed = (first_NCHW != other_NCHW).flatten(1).any(dim=1).float().mean().item()
        # A flip changes for every second image (sigma 0.035), a crop for 24 of 25.
        assert changed > 0.36


def test_the_stream_does_not_share_its_draws_with_the_next_epoch(random_split: MakeSplit) -> None:
    split = random_split(50)
    a = stream(split, Views(crop_padding=4, horizontal_flip=True, stream=0)).epoch(1)
    b = stream(split, Views(crop_padding=4, horizontal_flip=True, stream=1)).epoch(0)
    for x, y in ((a.top_N, b.top_N), (a.left_N, b.left_N), (a.flip_N, b.flip_N)):
        assert x is not None
        assert y is not None
        assert (x != y).any()


def test_half_of_the_images_are_flipped(random_split: MakeSplit) -> None:
    epoch = stream(random_split(4000, channels=1, size=(1, 2)), Views(horizontal_flip=True)).epoch(0)
    assert epoch.flip_N is not None
    assert abs(epoch.flip_N.float().mean().item() - 0.5) < 0.032  # 4 sigma


def test_crops_take_every_offset_equally_often(random_split: MakeSplit) -> None:
    epoch = stream(random_split(4000, channels=1, size=(1, 2)), Views(crop_padding=2)).epoch(0)
    for offset_N in (epoch.top_N, epoch.left_N):
        assert offset_N is not None
        counts = torch.bincount(offset_N, minlength=5)
        assert len(counts) == 5
        assert (counts - 800).abs().max() < 4 * 25.3  # sigma of a fifth of 4,000
    assert epoch.top_N is not None
    assert epoch.left_N is not None
    same = (epoch.top_N == epoch.left_N).float().mean().item()
    assert abs(same - 0.2) < 0.026  # rows and columns are drawn apart; 4 sigma


def test_crops_and_flips_are_drawn_apart(random_split: MakeSplit) -> None:
    epoch = stream(random_split(4000, channels=1, size=(1, 2)), Views(crop_padding=2, horizontal_flip=True)).epoch(0)
    assert epoch.flip_N is not None
    for offset_N in (epoch.top_N, epoch.left_N):
        assert offset_N is not None
        flipped = offset_N[epoch.flip_N].float().mean().item()
        kept = offset_N[~epoch.flip_N].float().mean().item()
        assert abs(flipped - kept) < 0.18  # 4 sigma of the difference of two means of 2,000


def test_without_augmentation_views_are_the_normalised_pixels(random_split: MakeSplit) -> None:
    split = random_split(30)
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    meta = DatasetMeta(name="noise", classes=10, channels=3, mean=mean, std=std, sha256="")
    views = ViewStream(split, Views(), Pixels.of(meta, size=None, device=CPU), device=CPU)
    x_NCHW = split.images_NCHW.double().numpy() / 255
    expected_NCHW = (x_NCHW - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    for epoch in (0, 9):
        got_NCHW = whole(views.epoch(epoch))
        assert got_NCHW.dtype == torch.float32
        # Values reach 10: four roundings of float32 on that scale.
        np.testing.assert_allclose(got_NCHW.numpy(), expected_NCHW, atol=4e-6, rtol=0)


def test_padding_is_black_before_it_is_normalised(random_split: MakeSplit) -> None:
    split = random_split(30, channels=1)
    meta = DatasetMeta(name="noise", classes=10, channels=1, mean=(0.5,), std=(0.25,), sha256="")
    views = ViewStream(split, Views(crop_padding=8), Pixels.of(meta, size=None, device=CPU), device=CPU)
    epoch = views.epoch(0)
    assert epoch.top_N is not None
    shifted = int((epoch.top_N > 10).nonzero()[0])  # the last rows come from below the image
    assert whole(epoch)[shifted, 0, -1].tolist() == pytest.approx([-2.0] * 8)


def test_a_channel_that_never_varies_stays_finite(random_split: MakeSplit) -> None:
    meta = DatasetMeta(name="noise", classes=10, channels=3, mean=(0.0,) * 3, std=(0.0, 1.0, 1.0), sha256="")
    assert Pixels.of(meta, size=None, device=CPU)(random_split(4).images_NCHW).isfinite().all()


@pytest.mark.parametrize("native", [(8, 10), (10, 8)])
@pytest.mark.parametrize("size", [4, 8, 20])
def test_images_are_resized_to_the_size_asked_for(random_split: MakeSplit, native: tuple[int, int], size: int) -> None:
    split = random_split(5, size=native)
    assert plain(3, size=size)(split.images_NCHW).shape == (5, 3, size, size)
    assert whole(stream(split, AUGMENTED, size=size).epoch(0)).shape == (5, 3, size, size)


def test_the_native_size_is_not_resampled(random_split: MakeSplit) -> None:
    images_NCHW = random_split(5).images_NCHW
    assert torch.equal(plain(3, size=8)(images_NCHW), plain(3)(images_NCHW))


def test_resizing_keeps_a_flat_image_flat_and_averages_what_it_shrinks() -> None:
    flat = torch.full((1, 1, 8, 8), 51, dtype=torch.uint8)
    for size in (3, 20):
        assert torch.allclose(plain(1, size=size)(flat), torch.tensor(0.2))
    # One bright column in four: without antialiasing a shrink by four would look between the bright columns.
    stripes = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    stripes[..., ::4] = 255
    shrunk_HW = plain(1, size=4)(stripes)[0, 0]
    assert shrunk_HW[:, 1:-1].mean().item() == pytest.approx(0.25, abs=0.05)


def test_crops_are_taken_before_the_resize(random_split: MakeSplit) -> None:
    split = random_split(20)
    native = (whole(stream(split, AUGMENTED).epoch(0)) * 255).round().to(torch.uint8)
    assert torch.equal(whole(stream(split, AUGMENTED, size=13).epoch(0)), plain(3, size=13)(native))
