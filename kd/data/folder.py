"""A folder of images: train/<class>/*.png|jpg|..., with or without val/ and test/ of the same form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from kd.data.catalog import DatasetInfo
from kd.data.decode import decode, decode_all
from kd.data.sources import DatasetError, Images, sha256_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


class ImageFolder:
    def __init__(self, name: str, folder: Path, *, channels: int, size: int | None) -> None:
        self.name, self.folder, self.channels, self.size = name, folder, channels, size

    @cached_property
    def info(self) -> DatasetInfo:
        if not self._files["train"]:
            raise DatasetError(
                f"data set {self.name}: {self.folder} has no images in train/<class>/ (of {', '.join(SUFFIXES)})"
            )
        first = self._files["train"][0][0]
        height, width, _ = decode(first.read_bytes(), channels=self.channels, size=self.size, what=str(first)).shape
        counts = {split: len(files) for split, files in self._files.items()}
        hashed = {path.relative_to(self.folder).as_posix(): path for files in self._files.values() for path, _ in files}
        return DatasetInfo(
            name=self.name,
            classes=len(self.classes),
            channels=self.channels,
            height=height,
            width=width,
            pool_images=counts["train"],
            val_images=counts.get("val"),
            test_images=counts.get("test"),
            source=f"{sha256_of(hashed)} [{self.channels}, {self.size}]",
        )

    def read(self) -> dict[str, Images]:
        info = self.info
        return {
            split: Images(
                decode_all(
                    _contents(files),
                    count=len(files),
                    height=info.height,
                    width=info.width,
                    channels=info.channels,
                    size=self.size,
                ),
                np.array([label for _, label in files], dtype=np.int64),
            )
            for split, files in self._files.items()
        }

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
            for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
                name = path.relative_to(folder).parts[0]
                if name not in numbers:
                    raise DatasetError(f"data set {self.name}: {path} is of class {name}, which train/ does not have")
                found[split].append((path, numbers[name]))
        return found


def _contents(files: list[tuple[Path, int]]) -> Iterator[tuple[str, bytes]]:
    for path, _ in files:
        yield str(path), path.read_bytes()
