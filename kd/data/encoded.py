"""Data sets of encoded pictures, whatever they are kept in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from kd.data.catalog import DatasetInfo
from kd.data.decode import decode, decode_all
from kd.data.sources import DatasetError, Images


class EncodedImages(ABC):
    """Pictures are resized to squares of `size` (None: they all have one size) and have so many channels."""

    def __init__(self, name: str, *, channels: int, size: int | None) -> None:
        self.name, self.channels, self.size = name, channels, size

    @property
    @abstractmethod
    def classes(self) -> Sequence[Any]:
        """In the order of the labels."""

    @abstractmethod
    def _counts(self) -> dict[str, int]:
        """Pictures in each split; "train" is one."""

    @abstractmethod
    def _pictures(self, split: str) -> Iterator[tuple[str, bytes]]:
        """What messages call each picture, and its bytes."""

    @abstractmethod
    def _labels(self, split: str) -> np.ndarray: ...

    @abstractmethod
    def _source(self) -> str:
        """What the images are, for ids: a hash of the files, and how they are read."""

    @abstractmethod
    def _empty(self) -> str:
        """Why there is nothing to train on, where there is not."""

    @cached_property
    def info(self) -> DatasetInfo:
        counts = self._counts()
        first = next(self._pictures("train"), None)
        if first is None:
            raise DatasetError(f"data set {self.name}: {self._empty()}")
        height, width, _ = decode(first[1], channels=self.channels, size=self.size, what=first[0]).shape
        return DatasetInfo(
            name=self.name,
            classes=len(self.classes),
            channels=self.channels,
            height=height,
            width=width,
            pool_images=counts["train"],
            val_images=counts.get("val"),
            test_images=counts.get("test"),
            source=self._source(),
        )

    def read(self) -> dict[str, Images]:
        info = self.info
        return {
            split: Images(
                decode_all(
                    self._pictures(split),
                    count=count,
                    height=info.height,
                    width=info.width,
                    channels=info.channels,
                    size=self.size,
                ),
                self._labels(split),
            )
            for split, count in self._counts().items()
        }
