"""CIFAR-10 and CIFAR-100 in their publisher's format: the "python version", as an archive or unpacked.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Addresses and checksums are
torchvision's.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kd.data.catalog import CATALOG, DatasetInfo
from kd.data.class_names import CLASS_NAMES
from kd.data.classes import missing_classes
from kd.data.sources import DatasetError, Images, sha256_of

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
FILES = {
    "cifar10": {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}


class Cifar:
    """folder: holds the standard folder or archive; None: the copy in the folder that `downloads` gives, downloaded if
    need be."""

    def __init__(self, name: str, folder: Path | None, *, downloads: Callable[[], Path]) -> None:
        self.name, self.folder, self._downloads = name, folder, downloads

    @staticmethod
    def is_in(name: str, folder: Path) -> bool:
        return (folder / FOLDERS[name]).is_dir() or (folder / ARCHIVES[name]).is_file()

    @cached_property
    def info(self) -> DatasetInfo:
        """The publisher's facts; of files that are not the publisher's, their own."""
        known = CATALOG[self.name]
        if self.folder is None:
            return known
        files = self._files(self.folder)
        if all(hashlib.md5(files[name], usedforsecurity=False).hexdigest() == md5 for name, md5 in self._checksums()):
            return known
        labels = {split: _images(files, names, known).labels_N for split, names in FILES[self.name].items()}
        remedy = "these files are not the publisher's: correct them"
        problems, notes = missing_classes(labels, CLASS_NAMES[self.name], remedy=remedy)
        if problems:
            raise DatasetError(f"data set {self.name}: {'; '.join(problems)}")
        return replace(
            known,
            pool_images=len(labels["train"]),
            test_images=len(labels["test"]),
            source=sha256_of(files),
            notes=tuple(notes),
        )

    def read(self) -> dict[str, Images]:
        files = self._files(self.folder or self._downloaded())
        return {split: _images(files, names, CATALOG[self.name]) for split, names in FILES[self.name].items()}

    def _files(self, folder: Path) -> dict[str, bytes]:
        """Contents by name, from the folder or else the archive."""
        wanted = [name for names in FILES[self.name].values() for name in names]
        unpacked, archive = folder / FOLDERS[self.name], folder / ARCHIVES[self.name]
        try:
            if unpacked.is_dir():
                return {name: (unpacked / name).read_bytes() for name in wanted}
            with tarfile.open(archive) as tar:
                files = {}
                for name in wanted:
                    member = tar.extractfile(f"{FOLDERS[self.name]}/{name}")
                    files[name] = member.read() if member is not None else b""
                return files
        except (OSError, KeyError, tarfile.TarError, EOFError) as error:
            places = f"{FOLDERS[self.name]}/ or {ARCHIVES[self.name]}"
            raise DatasetError(f"data set {self.name}: {folder} has no readable {places}: {error}") from None

    def _checksums(self) -> list[tuple[str, str]]:
        from torchvision.datasets import CIFAR10, CIFAR100

        publisher = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.name]
        return [(name, md5) for name, md5 in (*publisher.train_list, *publisher.test_list)]

    def _downloaded(self) -> Path:
        from torchvision.datasets import CIFAR10, CIFAR100
        from torchvision.datasets.utils import download_url

        folder = self._downloads()
        if not self.is_in(self.name, folder):
            publisher = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.name]
            try:
                download_url(publisher.url, folder, publisher.filename, publisher.tgz_md5)
            except Exception as error:  # urllib, sockets and checksums each have exceptions of their own
                raise DatasetError(
                    f"data set {self.name}: cannot be downloaded from {publisher.url} ({error}); download it elsewhere "
                    f"and name the folder that holds {publisher.filename} with --data"
                ) from None
        return folder


class _ArraysOnly(pickle.Unpickler):
    """The publisher's files are pickles of arrays, lists and strings: nothing else may be in them."""

    allowed: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _labels(values: Any, info: DatasetInfo) -> np.ndarray:
    """int64 [N]. Raises ValueError for what are no numbers of its classes."""
    labels_N = np.asarray(values)
    if labels_N.ndim != 1 or labels_N.dtype.kind not in "iu":
        raise ValueError(f"its labels are {labels_N.dtype} of shape {labels_N.shape}, not a whole number each")
    outside = np.flatnonzero((labels_N < 0) | (labels_N >= info.classes))
    if len(outside):
        place = int(outside[0])
        raise ValueError(f"label {labels_N[place]} of image {place} is outside of 0 to {info.classes - 1}")
    return labels_N.astype(np.int64)


def _images(files: dict[str, bytes], names: list[str], info: DatasetInfo) -> Images:
    pixels, labels = [], []
    for name in names:
        try:
            batch = _ArraysOnly(io.BytesIO(files[name]), encoding="latin1").load()
            data = np.asarray(batch["data"])
            if data.dtype != np.uint8:  # cast, they would be black, or wrap around
                raise ValueError(f"its pixels are {data.dtype}, not uint8")
            data = data.reshape(-1, info.channels, info.height, info.width)
            own = _labels(batch["fine_labels" if "fine_labels" in batch else "labels"], info)
        except Exception as error:  # pickle raises many types for bytes it cannot read
            raise DatasetError(f"data set {info.name}: {name} is damaged ({type(error).__name__}: {error})") from None
        if len(own) != len(data):
            raise DatasetError(f"data set {info.name}: {name} has {len(data)} images and {len(own)} labels")
        pixels.append(data)
        labels.append(own)
    return Images(np.concatenate(pixels).transpose(0, 2, 3, 1), np.concatenate(labels))
