"""An image data set in memory: uint8 pixels and labels, split, with the statistics that normalisation needs.

A prepared data set is one folder of `.npy` files and a `dataset.json`. The arrays are opened memory-mapped and
copy-on-write: every process of a node shares one copy through the page cache, and a stray write stays private.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd.data.catalog import DatasetInfo
from kd.data.classes import listed
from kd.data.sources import DatasetError, Images, Source
from kd.data.splits import draw

SPLITS = ("train", "val", "test")

COUNTED_AT_ONCE = 10_000  # images
FACTS_BYTES = 2**20
MADE_AGAIN = "; delete the folder to have it made again"


@dataclass(frozen=True)
class Split:
    """Both on the CPU."""

    images_NHWC: Tensor
    """uint8, channels last."""
    labels_N: Tensor
    """int64."""

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True)
class DatasetMeta:
    name: str
    classes: int
    channels: int
    mean: tuple[float, ...]
    """Per channel, of the training split's pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Per channel, of the training split's pixels scaled to [0, 1]."""
    fingerprint: str
    """sha256 of the splits as drawn, pixels and labels."""


@dataclass(frozen=True)
class Dataset:
    meta: DatasetMeta
    train: Split
    val: Split
    test: Split

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that there are to evaluate on."""
        return tuple(name for name in ("val", "test") if len(self.split(name)))

    def split(self, name: str) -> Split:
        split: Split = getattr(self, name)
        return split


def prepare(
    source: Source, info: DatasetInfo, *, train_size: int | None, val_size: int, test_size: int | None, split_seed: int
) -> tuple[DatasetMeta, dict[str, np.ndarray]]:
    """Read a source and draw its splits. Returns its facts and its arrays by file stem ("train_images", ...).

    info: what the source was planned to be. Official val and test splits are taken whole; others are drawn from the
    training images. train_size None takes all that they leave.
    Raises DatasetError where the images are not those of `info`, or the splits cannot be drawn.
    """
    read = source.read()
    pool = read["train"]
    _check(read, info)
    drawn = draw(
        pool.labels_N, info, train_size=train_size, val_size=val_size, test_size=test_size, split_seed=split_seed
    )
    arrays: dict[str, np.ndarray] = {}
    for split in SPLITS:
        images = read.get(split) if split != "train" else None
        if images is None:
            images = Images(pool.images_NHWC[drawn[split]], pool.labels_N[drawn[split]])
        arrays[f"{split}_images"] = np.ascontiguousarray(images.images_NHWC)
        arrays[f"{split}_labels"] = images.labels_N
    _check_varied(arrays["train_images"], info)
    mean, std = _statistics(arrays["train_images"])
    meta = DatasetMeta(
        name=info.name,
        classes=info.classes,
        channels=info.channels,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(arrays),
    )
    return meta, arrays


def _check_varied(images_NHWC: np.ndarray, info: DatasetInfo) -> None:
    """Raises DatasetError for training images that all show the same."""
    value_C = images_NHWC[0, 0, 0]
    if (images_NHWC[0] == value_C).all() and (images_NHWC == value_C).all():
        shown = " ".join(map(str, value_C.tolist()))
        raise DatasetError(
            f"data set {info.name}: all pixels of its {len(images_NHWC)} training images have the value {shown}, which "
            "nothing can be learned from: look at what its files hold"
        )


def _fingerprint(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for stem in sorted(arrays):
        digest.update(f"{stem} {arrays[stem].shape}".encode())
        digest.update(arrays[stem].data)
    return digest.hexdigest()


def _check(read: dict[str, Images], info: DatasetInfo) -> None:
    official = {"train": info.pool_images, "val": info.val_images, "test": info.test_images}
    planned = {split: count for split, count in official.items() if count is not None}
    found = {split: len(images) for split, images in read.items()}
    if found != planned:
        raise DatasetError(f"data set {info.name}: has {found} images, {planned} were planned: plan the grid again")
    for split, images in read.items():
        present = np.unique(images.labels_N)
        outside = present[(present < 0) | (present >= info.classes)]
        if len(outside):
            raise DatasetError(
                f"data set {info.name}: {split} has label {outside[0]}, outside of 0 to {info.classes - 1}"
            )
        missing = np.setdiff1d(np.arange(info.classes), present)
        if len(missing) and split == "train":
            raise DatasetError(f"data set {info.name}: {split} has no image of class {listed(missing.tolist())}")


def _channel_statistics(images_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel on the scale [0, 1], exact and without a float copy of the images."""
    counts_CL = np.zeros((images_NHWC.shape[-1], 256), dtype=np.int64)
    for start in range(0, len(images_NHWC), COUNTED_AT_ONCE):
        part_NHWC = images_NHWC[start : start + COUNTED_AT_ONCE]
        for channel, counts_L in enumerate(counts_CL):
            counts_L += np.bincount(part_NHWC[..., channel].ravel(), minlength=256)
    levels_L, total = np.arange(256), images_NHWC[..., 0].size
    mean_C = counts_CL @ levels_L / total
    variance_C = counts_CL @ levels_L**2 / total - mean_C**2
    return mean_C / 255, np.sqrt(np.maximum(variance_C, 0)) / 255


def _statistics(images_NHWC: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """As a data set's facts have them."""
    return tuple(tuple(float(round(value, 6)) for value in values_C) for values_C in _channel_statistics(images_NHWC))


def meta_to_json(meta: DatasetMeta) -> str:
    return json.dumps(asdict(meta), indent=1)


def open_dataset(folder: Path) -> Dataset:
    """A prepared folder, memory-mapped. Raises DatasetError where a file is missing or unreadable, or its array is not
    such as were prepared."""
    try:
        facts = json.loads(_regular(folder / "dataset.json", limit=FACTS_BYTES).read_text())
        meta = DatasetMeta(**{**facts, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])})
        splits = {}
        for split in SPLITS:
            images, labels = (folder / f"{split}_{what}.npy" for what in ("images", "labels"))
            splits[split] = _open_split(split, images, labels, meta)
    except Exception as error:  # NumPy raises many types for files it cannot read
        raise DatasetError(f"prepared data set {folder}: {error}{MADE_AGAIN}") from error
    return Dataset(meta, **splits)


def open_split(split: str, *, images: Path, labels: Path, meta: DatasetMeta) -> Split:
    """One split of a prepared data set, its images memory-mapped. Raises DatasetError as `open_dataset` does."""
    try:
        return _open_split(split, images, labels, meta)
    except Exception as error:
        raise DatasetError(f"prepared images {images}: {error}") from error


def _open_split(split: str, images: Path, labels: Path, meta: DatasetMeta) -> Split:
    images_NHWC, labels_N = np.load(_regular(images), mmap_mode="c"), np.load(_regular(labels))
    _check_arrays(split, images_NHWC, labels_N, meta)
    return Split(torch.from_numpy(images_NHWC), torch.from_numpy(labels_N))


def _regular(path: Path, *, limit: int | None = None) -> Path:
    """Opening a pipe would wait for ever. Raises DatasetError."""
    there = path.stat()
    if not stat.S_ISREG(there.st_mode):
        raise DatasetError(f"{path.name} is not a regular file")
    if limit is not None and there.st_size > limit:
        raise DatasetError(f"{path.name} is larger than {limit} bytes")
    return path


def _check_arrays(split: str, images_NHWC: np.ndarray, labels_N: np.ndarray, meta: DatasetMeta) -> None:
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[-1] != meta.channels:
        found = f"{images_NHWC.dtype} of shape {images_NHWC.shape}"
        raise DatasetError(f"{split}_images.npy holds {found}, not pixels with {meta.channels} channels")
    if labels_N.dtype != np.int64 or labels_N.shape != (len(images_NHWC),):
        found = f"{labels_N.dtype} of shape {labels_N.shape}"
        raise DatasetError(f"{split}_labels.npy holds {found}, not a label for each of {len(images_NHWC)} images")
    if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < meta.classes:
        raise DatasetError(f"{split}_labels.npy has labels outside of 0 to {meta.classes - 1}")


def check_fingerprint(dataset: Dataset, folder: Path) -> None:
    """Read a prepared folder through. Raises DatasetError where pixels, labels or statistics are not those that were
    prepared."""
    arrays: dict[str, np.ndarray] = {}
    for split in SPLITS:
        of = dataset.split(split)
        arrays |= {f"{split}_images": of.images_NHWC.numpy(), f"{split}_labels": of.labels_N.numpy()}
    if _fingerprint(arrays) != dataset.meta.fingerprint:
        changed = "images or labels"
    elif _statistics(arrays["train_images"]) != (dataset.meta.mean, dataset.meta.std):
        changed = "mean or deviation, in dataset.json,"
    else:
        return
    raise DatasetError(f"prepared data set {folder}: its {changed} changed after it was prepared{MADE_AGAIN}")
