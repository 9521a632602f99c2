"""A folder of images: train/<class>/*.png|jpg|..., with or without val/ and test/ of the same form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from kd.data.decode import FORMATS
from kd.data.encoded import EncodedImages
from kd.data.sources import DatasetError, sha256_of


class ImageFolder(EncodedImages):
    def __init__(self, name: str, folder: Path, *, channels: int, size: int | None) -> None:
        super().__init__(name, channels=channels, size=size)
        self.folder = folder

    @cached_property
    def classes(self) -> list[str]:
        """Names in the order of the labels."""
        train = self.folder / "train"
        if not train.is_dir():
            raise DatasetError(f"data set {self.name}: {self.folder} has no folder train/ with one folder a class")
        return sorted(path.name for path in train.iterdir() if path.is_dir())

    @cached_property
    def _files(self) -> dict[str, list[tuple[Path, int]]]:
        """Images with their labels, by split, in the order of their names."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        found: dict[str, list[tuple[Path, int]]] = {}
        for split in ("train", "val", "test"):
            folder = self.folder / split
            if not folder.is_dir():
                continue
            found[split] = []
            for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in FORMATS and p.is_file()):
                name = path.relative_to(folder).parts[0]
                if name not in numbers:
                    raise DatasetError(f"data set {self.name}: {path} is of class {name}, which train/ does not have")
                found[split].append((path, numbers[name]))
        return found

    def _counts(self) -> dict[str, int]:
        return {split: len(files) for split, files in self._files.items()}

    def _pictures(self, split: str) -> Iterator[tuple[str, bytes]]:
        for path, _ in self._files[split]:
            yield str(path), path.read_bytes()

    def _labels(self, split: str) -> np.ndarray:
        return np.array([label for _, label in self._files[split]], dtype=np.int64)

    def _source(self) -> str:
        hashed = {path.relative_to(self.folder).as_posix(): path for files in self._files.values() for path, _ in files}
        return f"{sha256_of(hashed)} [{self.channels}, {self.size}]"

    def _empty(self) -> str:
        return f"{self.folder} has no images in train/<class>/ (of {', '.join(FORMATS)})"
