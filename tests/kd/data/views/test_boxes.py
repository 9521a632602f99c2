"""Cutout and random erasing, and the boxes that cutmix pastes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kd.data.views.boxes import box_area, box_mask, cutmix_boxes, cutout_boxes, erasing_boxes
from kd.data.views.policy import RandAugment, RandomErasing, ViewPolicy
from tests.kd.helpers import noise, stream, whole

SIZES = [(8, 9), (6, 5), (1, 3), (32, 32)]


def assert_inside(boxes_N4: np.ndarray, height: int, width: int) -> None:
    top_N, left_N, bottom_N, right_N = boxes_N4.T
    assert ((top_N >= 0) & (top_N <= bottom_N) & (bottom_N <= height)).all()
    assert ((left_N >= 0) & (left_N <= right_N) & (right_N <= width)).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("side", [1, 3, 4, 50])
def test_a_hole_is_a_square_around_any_pixel_cut_to_the_image(side: int, height: int, width: int) -> None:
    boxes_N4 = cutout_boxes(5000, side=side, height=height, width=width, key=(0, 0))
    assert boxes_N4.dtype == np.int64
    assert_inside(boxes_N4, height, width)
    for size, low, high in ((height, 0, 2), (width, 1, 3)):
        starts = [centre - side // 2 for centre in range(size)]
        possible = sorted((max(start, 0), min(start + side, size)) for start in starts)
        edges, counts = np.unique(boxes_N4[:, [low, high]], axis=0, return_counts=True)
        assert [tuple(edge) for edge in edges] == sorted(set(possible))
        # Each centre is as likely as any other (5 sigma, for the largest of up to 32 counts).
        shares = np.array([possible.count(tuple(edge)) for edge in edges]) / size
        assert (abs(counts - 5000 * shares) <= 5 * np.sqrt(5000 * shares * (1 - shares))).all()


def test_rows_and_columns_of_a_hole_are_drawn_apart() -> None:
    boxes_N4 = cutout_boxes(5000, side=1, height=8, width=8, key=(0, 0))
    assert abs(np.corrcoef(boxes_N4[:, 0], boxes_N4[:, 1])[0, 1]) < 0.057  # 4 sigma


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("policy", [RandomErasing(probability=1), RandomErasing(probability=1, area=(0.9, 1.0))])
def test_erased_boxes_lie_inside_the_image_and_are_never_empty(policy: RandomErasing, height: int, width: int) -> None:
    boxes_N4 = erasing_boxes(2000, policy, height=height, width=width, key=(0, 0))
    assert boxes_N4.dtype == np.int64
    assert_inside(boxes_N4, height, width)
    assert box_area(boxes_N4).min() >= 1


def test_erased_boxes_have_the_area_and_ratio_asked_for() -> None:
    policy = RandomErasing(probability=1, area=(0.02, 0.25), ratio=(0.5, 3.0))
    boxes_N4 = erasing_boxes(5000, policy, height=1000, width=800, key=(0, 0))
    top_N, left_N, bottom_N, right_N = boxes_N4.T
    tall_N, wide_N = bottom_N - top_N, right_N - left_N
    share_N, ratio_N = tall_N * wide_N / 800_000, tall_N / wide_N
    # Sides of 70 pixels and more are rounded to whole ones: by less than 1 % each.
    assert 0.0198 < share_N.min() < 0.021
    assert 0.248 < share_N.max() < 0.2525
    assert share_N.mean() == pytest.approx(0.135, abs=0.0038)  # uniform; 4 sigma of 0.0664 / sqrt(5,000)
    assert 0.495 < ratio_N.min() < 0.51
    assert 2.95 < ratio_N.max() < 3.03
    # Uniform in its logarithm: the middle is the geometric mean of the bounds; 4 sigma of 0.517 / sqrt(5,000).
    assert np.log(ratio_N).mean() == pytest.approx(np.log(np.sqrt(0.5 * 3.0)), abs=0.03)
    # Wherever it fits: the free room above is as often used as that below.
    assert (top_N / (1000 - tall_N)).mean() == pytest.approx(0.5, abs=0.017)
    assert (left_N / (800 - wide_N)).mean() == pytest.approx(0.5, abs=0.017)
    assert (bottom_N == 1000).any()
    assert (top_N == 0).any()


def test_a_box_larger_than_the_image_is_cut_to_it() -> None:
    policy = RandomErasing(probability=1, area=(0.5, 0.5), ratio=(100.0, 100.0))
    boxes_N4 = erasing_boxes(100, policy, height=10, width=10, key=(0, 0))
    # 50 pixels at 100 to 1 are 71 high and 0.7 wide.
    assert {tuple(box) for box in boxes_N4[:, [0, 2]]} == {(0, 10)}
    assert (boxes_N4[:, 3] - boxes_N4[:, 1] == 1).all()


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_erasing_happens_with_its_probability(probability: float) -> None:
    boxes_N4 = erasing_boxes(4000, RandomErasing(probability=probability), height=8, width=8, key=(0, 0))
    empty_N = box_area(boxes_N4) == 0
    assert (boxes_N4[empty_N] == 0).all()
    sigma = np.sqrt(probability * (1 - probability) / 4000)
    assert abs(1 - empty_N.mean() - probability) <= 4 * sigma


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_patches_lie_inside_the_image_and_take_about_what_the_weight_leaves(height: int, width: int) -> None:
    weight_N = np.linspace(0, 1, 3000)
    boxes_N4 = cutmix_boxes(weight_N, height=height, width=width, key=(0, 0))
    assert boxes_N4.dtype == np.int64
    assert_inside(boxes_N4, height, width)
    assert (box_area(boxes_N4) <= (1 - weight_N) * height * width + 1e-9).all()  # rounded down, and cut
    assert box_area(boxes_N4)[-1] == 0


def test_a_patch_that_is_not_cut_has_the_images_proportions() -> None:
    boxes_N4 = cutmix_boxes(np.full(2000, 0.75), height=40, width=20, key=(0, 0))
    top_N, left_N, bottom_N, right_N = boxes_N4.T
    within_N = (top_N > 0) & (left_N > 0) & (bottom_N < 40) & (right_N < 20)
    assert within_N.sum() > 300  # a quarter of the places is expected
    # The root of a quarter of the area is half of each side.
    assert (bottom_N - top_N)[within_N].tolist() == [20] * within_N.sum()
    assert (right_N - left_N)[within_N].tolist() == [10] * within_N.sum()


def test_areas_and_masks_are_those_of_the_pixels_in_the_boxes() -> None:
    boxes_N4 = np.concatenate(
        [cutout_boxes(50, side=4, height=6, width=9, key=(0, 0)), [[0, 0, 0, 0], [0, 0, 6, 9], [2, 3, 3, 4]]]
    )
    mask_NHW = box_mask(torch.from_numpy(boxes_N4), height=6, width=9)
    for (top, left, bottom, right), mask_HW in zip(boxes_N4, mask_NHW, strict=True):
        inside = [(y, x) for y in range(6) for x in range(9) if top <= y < bottom and left <= x < right]
        assert [tuple(place) for place in mask_HW.nonzero().tolist()] == inside
    assert box_area(boxes_N4).tolist() == mask_NHW.sum(dim=(1, 2)).tolist()


@pytest.mark.parametrize("draw", ["cutout", "erased"])
@pytest.mark.parametrize(
    "views",
    [ViewPolicy(), ViewPolicy(crop_padding=2, horizontal_flip=True, rand_augment=RandAugment())],
    ids=["bare", "more"],
)
def test_a_hole_is_exactly_the_mean_and_the_rest_is_as_without_it(draw: str, views: ViewPolicy) -> None:
    split = noise(200)
    hole = replace(views, cutout=4) if draw == "cutout" else replace(views, random_erasing=RandomErasing())
    epoch = stream(split, hole).epoch(3)
    inside_NHW = box_mask(epoch.draws[draw], height=8, width=8)
    holed_NHWC, bare_NHWC = (whole(e).permute(0, 2, 3, 1) for e in (epoch, stream(split, views).epoch(3)))
    assert (holed_NHWC[inside_NHW] == 0).all()
    assert torch.equal(holed_NHWC[~inside_NHW], bare_NHWC[~inside_NHW])
    assert (holed_NHWC[~inside_NHW] != 0).all()  # the mean is not the value of any pixel
    assert 0 < inside_NHW.float().mean() < 0.5
