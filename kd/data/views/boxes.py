"""Boxes inside an image: the holes of cutout and random erasing, the patches of cutmix."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kd.data.views.policy import RandomErasing
from kd.draws import Key, integers, uniform


def cutout_boxes(count: int, *, side: int, height: int, width: int, key: Key) -> np.ndarray:
    """A square of `side` pixels around a centre anywhere in the image, cut to the image. int64 [N, 4]: top, left,
    bottom, right (the last two exclusive)."""
    top_N = integers(count, below=height, key=("cutout_y", *key)) - side // 2
    left_N = integers(count, below=width, key=("cutout_x", *key)) - side // 2
    return _cut(top_N, left_N, top_N + side, left_N + side, height=height, width=width)


def erasing_boxes(count: int, policy: RandomErasing, *, height: int, width: int, key: Key) -> np.ndarray:
    """int64 [N, 4] as above; empty (all zero) where nothing is erased."""
    low, high = policy.area
    area_N = (low + (high - low) * uniform(count, key=("erase_area", *key))) * height * width
    low, high = (math.log(bound) for bound in policy.ratio)
    ratio_N = np.exp(low + (high - low) * uniform(count, key=("erase_ratio", *key)))
    tall_N = np.clip(np.rint(np.sqrt(area_N * ratio_N)), 1, height).astype(np.int64)
    wide_N = np.clip(np.rint(np.sqrt(area_N / ratio_N)), 1, width).astype(np.int64)
    top_N = (uniform(count, key=("erase_y", *key)) * (height - tall_N + 1)).astype(np.int64)
    left_N = (uniform(count, key=("erase_x", *key)) * (width - wide_N + 1)).astype(np.int64)
    boxes_N4 = np.stack([top_N, left_N, top_N + tall_N, left_N + wide_N], axis=1)
    boxes_N4[uniform(count, key=("erase", *key)) >= policy.probability] = 0
    return boxes_N4


def cutmix_boxes(weight_N: np.ndarray, *, height: int, width: int, key: Key) -> np.ndarray:
    """Patches that leave about `weight_N` of the image: sides sqrt(1 - weight) of the image's, centre anywhere, cut to
    the image (CutMix, equation 2). int64 [N, 4]."""
    side_N = np.sqrt(1 - weight_N)
    y_N = integers(len(weight_N), below=height, key=("cutmix_y", *key))
    x_N = integers(len(weight_N), below=width, key=("cutmix_x", *key))
    tall_N, wide_N = (side_N * height).astype(np.int64), (side_N * width).astype(np.int64)
    top_N, left_N = y_N - tall_N // 2, x_N - wide_N // 2
    return _cut(top_N, left_N, top_N + tall_N, left_N + wide_N, height=height, width=width)


def box_area(boxes_N4: np.ndarray) -> np.ndarray:
    """Pixels in each box, int64 [N]."""
    top_N, left_N, bottom_N, right_N = boxes_N4.T
    area_N: np.ndarray = (bottom_N - top_N) * (right_N - left_N)
    return area_N


def box_mask(boxes_B4: Tensor, *, height: int, width: int) -> Tensor:
    """True inside each box, bool [B, H, W]."""
    rows_H = torch.arange(height, device=boxes_B4.device)
    cols_W = torch.arange(width, device=boxes_B4.device)
    top_B, left_B, bottom_B, right_B = boxes_B4[:, :, None].unbind(1)
    inside_BH = (rows_H >= top_B) & (rows_H < bottom_B)
    inside_BW = (cols_W >= left_B) & (cols_W < right_B)
    return inside_BH[:, :, None] & inside_BW[:, None, :]


def _cut(
    top_N: np.ndarray, left_N: np.ndarray, bottom_N: np.ndarray, right_N: np.ndarray, *, height: int, width: int
) -> np.ndarray:
    rows, cols = (np.clip(edges, 0, size) for edges, size in (((top_N, bottom_N), height), ((left_N, right_N), width)))
    return np.stack([rows[0], cols[0], rows[1], cols[1]], axis=1)
