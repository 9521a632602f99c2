"""Train / val / test by a seeded, stratified draw: pure, and the same on every machine."""

from __future__ import annotations

import numpy as np

from kd.data.catalog import DatasetInfo
from kd.data.classes import counted, listed
from kd.data.sources import DatasetError
from kd.draws import uniform


def stratified_draw(labels_N: np.ndarray, *, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Disjoint index sets of the given sizes in which each class has its share of the pool, as near as whole images go.

    Each class is shuffled by the seed; a split takes from each class its exact share rounded down, and the images
    still missing go to the classes with the largest remainders (Hamilton's method), then by class number. Splits are
    drawn in the order of `sizes`; indices come back sorted.

    Raises ValueError where the pool is too small, or a non-empty split would miss a class.
    """
    if min(sizes.values()) < 0:
        raise ValueError(f"a split cannot have {min(sizes.values())} images")
    if sum(sizes.values()) > len(labels_N):
        wanted = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"splits ask for {sum(sizes.values())} images ({wanted}), the data set has {len(labels_N)}")
    classes = np.unique(labels_N)
    order = np.argsort(uniform(len(labels_N), key=("split", seed)), kind="stable")
    left = {int(c): order[labels_N[order] == c] for c in classes}
    drawn: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        pool = sum(len(members) for members in left.values())
        exact = {c: size * len(members) / max(pool, 1) for c, members in left.items()}
        take = {c: int(share) for c, share in exact.items()}
        by_remainder = sorted(exact, key=lambda c: (take[c] - exact[c], c))
        for c in by_remainder[: size - sum(take.values())]:
            take[c] += 1
        missing = [c for c in take if size > 0 and take[c] == 0]
        if missing:
            few = listed([f"{c} ({counted(len(left[c]), 'image')} left)" for c in missing])
            raise ValueError(
                f"a {name} split of {size} images leaves out class {few}: make it larger, or give the class more images"
            )
        drawn[name] = np.sort(np.concatenate([left[c][: take[c]] for c in left]))
        left = {c: members[take[c] :] for c, members in left.items()}
    return drawn


def draw(
    labels_N: np.ndarray,
    info: DatasetInfo,
    *,
    train_size: int | None,
    val_size: int,
    test_size: int | None,
    split_seed: int,
) -> dict[str, np.ndarray]:
    """Which of the training images each split takes that is not official. Raises DatasetError where they do not do."""
    wanted = {
        "test": (test_size or 0) if info.test_images is None else 0,
        "val": val_size if info.val_images is None else 0,
    }
    rest = len(labels_N) - sum(wanted.values())
    if rest < 1:
        raise DatasetError(
            f"data set {info.name}: val and test take all of its {len(labels_N)} images: make them smaller"
        )
    sizes = {**wanted, "train": rest if train_size is None else train_size}
    try:
        return stratified_draw(labels_N, sizes=sizes, seed=split_seed)
    except ValueError as error:
        raise DatasetError(f"data set {info.name}: {error}") from None
