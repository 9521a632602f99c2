"""Images in parquet files as on the Hugging Face hub: a struct column with `bytes`, and a label column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kd.data.catalog import DatasetInfo
from kd.data.decode import decode, decode_all
from kd.data.sources import DatasetError, Images, sha256_of

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")


class Parquet:
    """files: by split; "train" is needed. image, label: columns (None: the hub's usual names)."""

    def __init__(
        self,
        name: str,
        files: Mapping[str, Sequence[Path]],
        *,
        channels: int,
        size: int | None,
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        self.name, self.files, self.channels, self.size = name, files, channels, size
        self._image, self._label = image, label

    @cached_property
    def info(self) -> DatasetInfo:
        counts = {split: sum(self._open(path).metadata.num_rows for path in paths) for split, paths in self._all()}
        first = next(self._pictures("train"), None)
        if first is None:
            raise DatasetError(f"data set {self.name}: its training files have no rows")
        height, width, _ = decode(first[1], channels=self.channels, size=self.size, what=first[0]).shape
        hashed = {f"{split}/{i}": path for split, paths in self._all() for i, path in enumerate(paths)}
        how = json.dumps([self._image, self._label, self.channels, self.size])
        return DatasetInfo(
            name=self.name,
            classes=len(self.classes),
            channels=self.channels,
            height=height,
            width=width,
            pool_images=counts["train"],
            val_images=counts.get("val"),
            test_images=counts.get("test"),
            source=f"{sha256_of(hashed)} {how}",
        )

    def read(self) -> dict[str, Images]:
        info = self.info
        return {
            split: Images(
                decode_all(
                    self._pictures(split),
                    count=sum(self._open(path).metadata.num_rows for path in paths),
                    height=info.height,
                    width=info.width,
                    channels=info.channels,
                    size=self.size,
                ),
                self._labels(split),
            )
            for split, paths in self._all()
        }

    def _all(self) -> list[tuple[str, Sequence[Path]]]:
        return list(self.files.items())

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"data set {self.name}: {path}: not a readable parquet file: {error}") from None

    def _column(self, path: Path, given: str | None, usual: Sequence[str], what: str) -> str:
        names = self._open(path).schema_arrow.names
        column = next((name for name in ((given,) if given else usual) if name in names), None)
        if column is None:
            asked = given or " or ".join(usual)
            raise DatasetError(
                f"data set {self.name}: {path} has no {what} column {asked}; it has {', '.join(names)}: name it with "
                f"dataset.parquet.{what}"
            )
        return column

    def _pictures(self, split: str) -> Iterator[tuple[str, bytes]]:
        row = 0
        for path in self.files[split]:
            column = self._column(path, self._image, IMAGE_COLUMNS, "image")
            for batch in self._open(path).iter_batches(batch_size=1000, columns=[column]):
                for value in batch.column(0):
                    item = value.as_py()
                    data = item.get("bytes") if isinstance(item, dict) else item
                    what = f"data set {self.name}: {path}, row {row}"
                    if not isinstance(data, bytes):
                        raise DatasetError(f"{what}: column {column} holds no image bytes")
                    yield what, data
                    row += 1

    @cached_property
    def classes(self) -> list[Any]:
        """Labels in order: 0, 1, ... where they are whole numbers, sorted names otherwise."""
        values = self._raw_labels("train")
        if all(isinstance(value, int) for value in values):
            return list(range(max(values, default=-1) + 1))
        return sorted({str(value) for value in values})

    def _labels(self, split: str) -> np.ndarray:
        classes, values = self.classes, self._raw_labels(split)
        numbers = {value: number for number, value in enumerate(classes)}
        try:
            return np.array([numbers[v if isinstance(v, int) else str(v)] for v in values], dtype=np.int64)
        except KeyError as error:
            raise DatasetError(
                f"data set {self.name}: label {error} in {split} is none of the {len(classes)} in train"
            ) from None

    def _raw_labels(self, split: str) -> list[Any]:
        values: list[Any] = []
        for path in self.files[split]:
            column = self._column(path, self._label, LABEL_COLUMNS, "label")
            values += pq.read_table(path, columns=[column]).column(0).to_pylist()
        return values
