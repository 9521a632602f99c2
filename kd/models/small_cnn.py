"""A plain four-block CNN for 32 px images: 106,826 parameters with 3 channels and 10 classes."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn


def small_cnn(*, num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    """Four blocks of conv 3x3 (16, 32, 64, 128), batch norm, ReLU, 2x2 max pool; global average pool; 128 -> 64 ->
    num_classes. Four halvings: the input must be at least 16 px."""
    widths = (in_chans, 16, 32, 64, 128)
    blocks: list[nn.Module] = []
    for before, after in pairwise(widths):
        conv = nn.Conv2d(before, after, kernel_size=3, padding=1)
        blocks.append(nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)))
    head = nn.Sequential(nn.Linear(128, 64), nn.ReLU(inplace=True), nn.Linear(64, num_classes))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), pool=pool, head=head))
