"""Images in parquet files as on the Hugging Face hub: a struct column with `bytes`, and a label column."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kd.data.encoded import EncodedImages
from kd.data.sources import DatasetError, sha256_of
from kd.limits import CLASSES

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")


class Parquet(EncodedImages):
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
        super().__init__(name, channels=channels, size=size)
        self.files, self._image, self._label = files, image, label

    def _counts(self) -> dict[str, int]:
        return {split: sum(self._open(p).metadata.num_rows for p in paths) for split, paths in self.files.items()}

    def _source(self) -> str:
        hashed = {f"{split}/{i}": path for split, paths in self.files.items() for i, path in enumerate(paths)}
        how = json.dumps([self._image, self._label, self.channels, self.size])
        return f"{sha256_of(hashed)} {how}"

    def _empty(self) -> str:
        return "its training files have no rows"

    def _open(self, path: Path) -> pq.ParquetFile:
        with self._readable(path):
            return pq.ParquetFile(path)

    @contextlib.contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Turns what its reader raises for a damaged file into a DatasetError that names it."""
        try:
            yield
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            detail = " ".join(str(error).split())
            raise DatasetError(f"data set {self.name}: {path}: not a readable parquet file: {detail}") from None

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
            with self._readable(path):
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
            largest = max(values, default=-1)
            if largest >= CLASSES:
                raise DatasetError(
                    f"data set {self.name}: the label {largest} is no number of a class: they start at 0 and go up to "
                    f"{CLASSES - 1:,}"
                )
            return list(range(largest + 1))
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
            with self._readable(path):
                values += pq.read_table(path, columns=[column]).column(0).to_pylist()
        return values
