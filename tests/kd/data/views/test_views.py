"""What holds for the views of every policy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.dataset import Split
from kd.data.views.policy import ColorJitter, Mixing, RandAugment, RandomErasing, ViewPolicy
from tests.kd.helpers import noise, stream, whole

JITTER = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
ALONE = {
    "crop": ViewPolicy(crop_padding=2),
    "reflected crop": ViewPolicy(crop_padding=2, padding="reflect"),
    "flip": ViewPolicy(horizontal_flip=True),
    "cutout": ViewPolicy(cutout=4),
    "random erasing": ViewPolicy(random_erasing=RandomErasing(probability=0.7)),
    "color jitter": ViewPolicy(color_jitter=JITTER),
    "rand augment": ViewPolicy(rand_augment=RandAugment(operations=3, magnitude=20)),
    "mixup": ViewPolicy(mixing=Mixing(mixup_alpha=0.5)),
    "cutmix": ViewPolicy(mixing=Mixing(cutmix_alpha=1.0, probability=0.8)),
}
ALL = ViewPolicy(
    crop_padding=2,
    padding="reflect",
    horizontal_flip=True,
    rand_augment=RandAugment(),
    color_jitter=JITTER,
    cutout=2,
    random_erasing=RandomErasing(probability=0.5),
    mixing=Mixing(mixup_alpha=0.3, cutmix_alpha=1.0),
)
POLICIES = {**ALONE, "all": ALL}


def maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), strategy)


def policies() -> st.SearchStrategy[ViewPolicy]:
    """Any combination whose views can be made again."""
    unit, alpha = st.floats(0, 1), st.sampled_from([0.2, 1.0, 4.0])
    return st.builds(
        ViewPolicy,
        crop_padding=st.integers(0, 4),
        padding=st.sampled_from(["zeros", "reflect"]),
        horizontal_flip=st.booleans(),
        rand_augment=maybe(st.builds(RandAugment, operations=st.integers(1, 3), magnitude=st.integers(0, 30))),
        color_jitter=maybe(
            st.builds(ColorJitter, brightness=unit, contrast=unit, saturation=unit, hue=st.floats(0, 0.5))
        ),
        cutout=st.integers(0, 12),
        random_erasing=maybe(st.builds(RandomErasing, probability=unit)),
        mixing=maybe(st.builds(Mixing, mixup_alpha=alpha, cutmix_alpha=alpha, probability=unit)),
        stream=st.integers(0, 3),
    )


@settings(max_examples=40)
@given(
    views=policies(),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([None, 5, 12]),
    epoch=st.integers(0, 5),
    index=st.lists(st.integers(0, 24), min_size=1, max_size=40),
)
def test_a_view_depends_on_its_sample_alone_and_not_on_the_batch(
    views: ViewPolicy, channels: int, size: int | None, epoch: int, index: list[int]
) -> None:
    """Bit for bit, whichever other samples are in the batch, in which order, and how often."""
    split = noise(25, channels=channels, size=(8, 10))
    expected_NCHW = whole(stream(split, views, size=size).epoch(epoch))
    index_B = torch.tensor(index)
    again = stream(split, views, size=size).epoch(epoch)
    assert torch.equal(again.batch(index_B), expected_NCHW[index_B])
    assert torch.equal(again.batch(index_B[:1]), expected_NCHW[index_B[:1]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize("name", POLICIES)
def test_a_view_depends_on_neither_batch_order_nor_batch_size(name: str, size: int | None, channels: int) -> None:
    epoch = stream(noise(50, channels=channels), POLICIES[name], size=size).epoch(3)
    expected_NCHW = whole(epoch)
    order_N = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for batch_size in (1, 7, 50):
        for index_B in torch.split(order_N, batch_size):
            assert torch.equal(epoch.batch(index_B), expected_NCHW[index_B])


@pytest.mark.parametrize("name", POLICIES)
def test_a_view_does_not_depend_on_the_number_of_threads(name: str) -> None:
    epoch = stream(noise(40, size=(32, 32)), POLICIES[name], size=24).epoch(3)
    expected_NCHW = whole(epoch)
    torch.set_num_threads(3)
    assert torch.equal(whole(epoch), expected_NCHW)


@pytest.mark.parametrize("name", POLICIES)
def test_a_view_does_not_depend_on_which_epochs_came_before(name: str) -> None:
    split, views = noise(20), POLICIES[name]
    long = stream(split, views)
    for epoch in range(3):
        whole(long.epoch(epoch))
    torch.rand(3)
    assert torch.equal(whole(long.epoch(3)), whole(stream(split, views).epoch(3)))


@pytest.mark.parametrize("name", [name for name, views in POLICIES.items() if views.mixing is None])
def test_a_view_does_not_depend_on_how_many_images_follow_it(name: str) -> None:
    """Those that mix depend on it: a partner may be any of the images."""
    split = noise(50)
    head = Split(split.images_NHWC[:20], split.labels_N[:20])
    many, few = (stream(part, POLICIES[name]).epoch(2) for part in (split, head))
    assert torch.equal(whole(few), many.batch(torch.arange(20)))


@pytest.mark.parametrize("name", POLICIES)
def test_epochs_and_streams_have_views_of_their_own(name: str) -> None:
    split, views = noise(200), POLICIES[name]
    first_NCHW = whole(stream(split, views).epoch(0))
    other_stream = replace(views, stream=1)
    for other_NCHW in (whole(stream(split, views).epoch(1)), whole(stream(split, other_stream).epoch(0))):
        changed = (first_NCHW != other_NCHW).flatten(1).any(dim=1).float().mean().item()
        # A flip changes for every second image (sigma 0.035), everything else for more of them.
        assert changed > 0.36


@pytest.mark.parametrize("name", POLICIES)
def test_a_stream_does_not_share_its_draws_with_the_next_epoch(name: str) -> None:
    split, views = noise(50), POLICIES[name]
    a = stream(split, replace(views, stream=0)).epoch(1)
    b = stream(split, replace(views, stream=1)).epoch(0)
    assert set(a.draws) == set(b.draws)
    assert set(a.draws) != set()
    for draw in set(a.draws) - {"pasted"}:  # always true, where all mixing is cutmix
        assert (a.draws[draw] != b.draws[draw]).any(), draw


@pytest.mark.parametrize("name", ALONE)
def test_each_part_of_a_policy_draws_the_same_beside_others(name: str) -> None:
    """So that a policy with one part more has the same crops, say."""
    split = noise(50)
    alone = stream(split, ALONE[name]).epoch(4)
    beside = stream(split, replace(ALONE[name], crop_padding=2, horizontal_flip=True, cutout=4)).epoch(4)
    assert all(torch.equal(alone.draws[draw], beside.draws[draw]) for draw in alone.draws)


@pytest.mark.parametrize("name", POLICIES)
def test_the_images_are_not_written_to(name: str) -> None:
    split = noise(30)
    images_NHWC, labels_N = split.images_NHWC.clone(), split.labels_N.clone()
    epoch = stream(split, POLICIES[name]).epoch(1)
    first_NCHW = whole(epoch)
    expected_NCHW = first_NCHW.clone()
    first_NCHW.zero_()  # a view has memory of its own
    assert torch.equal(whole(epoch), expected_NCHW)
    assert torch.equal(split.images_NHWC, images_NHWC)
    assert torch.equal(split.labels_N, labels_N)


@pytest.mark.parametrize("size", [None, 12, 5])
@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_is_float32_with_channels_last_in_memory(name: str, size: int | None) -> None:
    batch_BCHW = stream(noise(12, size=(8, 10)), POLICIES[name], size=size).epoch(0).batch(torch.arange(7))
    assert batch_BCHW.dtype == torch.float32
    assert batch_BCHW.shape == (7, 3, size or 8, size or 10)
    assert batch_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert batch_BCHW.isfinite().all()


def test_a_policy_that_changes_nothing_draws_nothing() -> None:
    split = noise(20)
    views = stream(split, ViewPolicy(stream=3))
    assert dict(views.epoch(5).draws) == {}
    assert torch.equal(whole(views.epoch(5)), views.pixels(split.images_NHWC))


def test_another_models_input_size_shows_the_same_views() -> None:
    split = noise(20)
    small, large = stream(split, ALL), stream(split, ALL, size=13)
    through = small.epoch(2).seen_through(large.pixels)
    assert torch.equal(whole(through), whole(large.epoch(2)))
    assert whole(small.epoch(2)).shape[-1] == 8


def test_pinned_draws() -> None:
    """Cached logits depend on these: a change here must be a decision."""
    draws = stream(noise(1000), ALL).epoch(1).draws
    assert {name: values[:2].tolist() for name, values in draws.items()} == {
        "top": [2, 2],
        "left": [2, 4],
        "flip": [False, True],
        "operation_NR": [[12, 13], [5, 2]],
        "negative_NR": [[True, True], [True, False]],
        "brightness": [0.9908664172283486, 1.334082948260185],
        "contrast": [0.910692729727282, 1.1874454354457455],
        "saturation": [1.2530261176488535, 1.0005165448607243],
        "hue": [0.07208817713727816, -0.06612529019443791],
        "cutout": [[2, 2, 4, 4], [1, 0, 3, 1]],
        "erased": [[3, 4, 8, 7], [0, 0, 0, 0]],
        "partner": [678, 114],
        "weight": [pytest.approx(0.5256756686620434, rel=1e-9), 0.4375],
        "pasted": [False, True],
        "patch": [[0, 5, 4, 8], [0, 1, 6, 7]],
    }
