"""Whether a classifier numbers its classes as the labels do: one from elsewhere may have sorted them otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

CLASSES = 4096  # at most so many are matched: it takes time with the cube of them
FAR = 0.1  # the least gain in accuracy that is worth a word; of few images, more than two standard errors


@dataclass(frozen=True)
class Fit:
    top1: float
    """The share of images that are classified rightly."""
    reordered: float
    """The same with the classes in the order that fits best, found on half of the images and counted on the other."""
    chance: float
    """Of guessing among equally likely classes."""
    images: int
    """Of how many."""

    @property
    def doubt(self) -> str | None:
        """What looks wrong, if anything does."""
        far = max(FAR, 2 / math.sqrt(self.images))
        if self.reordered - max(self.top1, self.chance) >= far:
            return (
                f"its top-1 is {100 * self.top1:.2f} %, and would be {100 * self.reordered:.2f} % if its classes stood "
                "in another order"
            )
        if self.top1 < self.chance:
            return f"its top-1 is {100 * self.top1:.2f} %, below chance ({100 * self.chance:.2f} %)"
        return None


def fit_of(predicted_N: np.ndarray, labels_N: np.ndarray, *, classes: int) -> Fit:
    """predicted_N, labels_N: class numbers. At least one image."""
    top1 = float((predicted_N == labels_N).mean())
    reordered = top1
    if classes <= CLASSES:
        # Every other image of each class, for a split may be sorted by them.
        by_class_N = np.argsort(labels_N, kind="stable")
        half_N = np.empty(len(labels_N), dtype=bool)
        half_N[by_class_N] = np.arange(len(labels_N)) % 2 == 0
        first, second = (
            _confusion(predicted_N[chosen_N], labels_N[chosen_N], classes) for chosen_N in (half_N, ~half_N)
        )
        hits = sum(
            int(counted_CC[linear_sum_assignment(matched_CC, maximize=True)].sum())
            for matched_CC, counted_CC in ((first, second), (second, first))
        )
        reordered = hits / len(labels_N)
    return Fit(top1=top1, reordered=reordered, chance=1 / classes, images=len(labels_N))


def _confusion(predicted_N: np.ndarray, labels_N: np.ndarray, classes: int) -> np.ndarray:
    """Images by label and predicted class, int64 [C, C]."""
    return np.bincount(labels_N * classes + predicted_N, minlength=classes**2).reshape(classes, classes)
