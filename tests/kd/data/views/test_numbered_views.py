"""Views that can be counted off: a sample's crop corner and flip as one number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kd.data.views.policy import ColorJitter, Mixing, RandAugment, RandomErasing, ViewPolicy
from tests.kd.helpers import noise, stream, whole

COUNTED = [
    (ViewPolicy(), 1),
    (ViewPolicy(stream=5), 1),
    (ViewPolicy(horizontal_flip=True), 2),
    (ViewPolicy(crop_padding=1), 9),
    (ViewPolicy(crop_padding=2, horizontal_flip=True), 50),
    (ViewPolicy(crop_padding=1, padding="reflect", horizontal_flip=True), 18),
    (ViewPolicy(crop_padding=4, horizontal_flip=True), 162),
]


@pytest.mark.parametrize(("views", "count"), COUNTED)
def test_views_are_counted(views: ViewPolicy, count: int) -> None:
    assert views.distinct == count


@pytest.mark.parametrize(
    "more",
    [
        {"rand_augment": RandAugment()},
        {"color_jitter": ColorJitter(hue=0.1)},
        {"cutout": 1},
        {"random_erasing": RandomErasing()},
        {"mixing": Mixing(mixup_alpha=0.2)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_views_that_cannot_be_counted_off_have_no_numbers(more: dict[str, object]) -> None:
    views = replace(ViewPolicy(crop_padding=1), **more)  # type: ignore[arg-type]
    assert views.distinct is None
    with pytest.raises(AssertionError, match="these views have no numbers"):
        stream(noise(4), views).numbered(0)


@pytest.mark.parametrize(("views", "count"), COUNTED)
def test_a_drawn_view_is_the_view_of_its_number(views: ViewPolicy, count: int) -> None:
    drawn = stream(noise(60, size=(6, 9)), views)
    tables = [whole(drawn.numbered(number)) for number in range(count)]
    for epoch in (0, 7):
        views_of_epoch = drawn.epoch(epoch)
        number_N = views_of_epoch.numbers
        assert number_N.dtype == torch.int64
        assert number_N.shape == (60,)
        picked_NCHW = torch.stack([tables[number][i] for i, number in enumerate(number_N.tolist())])
        assert torch.equal(whole(views_of_epoch), picked_NCHW)


@pytest.mark.parametrize(("views", "count"), COUNTED)
def test_each_number_is_a_view_of_its_own(views: ViewPolicy, count: int) -> None:
    drawn = stream(noise(2, size=(6, 9)), views)
    seen = {whole(drawn.numbered(number))[0].numpy().tobytes() for number in range(count)}
    assert len(seen) == count


def test_all_numbers_are_drawn_equally_often() -> None:
    drawn = stream(noise(1800, channels=1, size=(1, 2)), ViewPolicy(crop_padding=1, horizontal_flip=True))
    counts = torch.bincount(drawn.epoch(0).numbers, minlength=18)
    assert len(counts) == 18
    assert (counts - 100).abs().max() < 5 * 9.7  # sigma of an eighteenth of 1,800


def test_a_numbered_view_says_its_number_and_no_epoch() -> None:
    drawn = stream(noise(10), ViewPolicy(crop_padding=1, horizontal_flip=True))
    for number in (0, 7, 17):
        assert drawn.numbered(number).numbers.tolist() == [number] * 10
        assert drawn.numbered(number).epoch is None
    assert drawn.epoch(3).epoch == 3


def test_the_numbers_do_not_depend_on_the_stream() -> None:
    split = noise(10)
    a, b = (stream(split, ViewPolicy(crop_padding=1, horizontal_flip=True, stream=s)) for s in (0, 1))
    assert all(torch.equal(whole(a.numbered(n)), whole(b.numbered(n))) for n in range(18))


def test_a_numbered_view_shows_the_samples_own_labels() -> None:
    split = noise(10)
    labels = stream(split, ViewPolicy(crop_padding=1)).numbered(4).labels(torch.tensor([3, 3, 9]))
    assert torch.equal(labels.first_B, split.labels_N[[3, 3, 9]])
    assert labels.second_B is None
