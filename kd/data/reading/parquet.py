"""Images in parquet files as on the Hugging Face hub: a struct column with `bytes`, and a label column."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kd.data.classes import Labelled, counted, listed, ordered
from kd.data.reading.encoded import EncodedImages, How
from kd.data.sources import DatasetError, sha256_of
from kd.limits import CLASSES

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
SHOWN_LETTERS = 60  # of a label that is none


@dataclass(frozen=True)
class _Column:
    """The labels of one file."""

    path: Path
    values: list[Any]
    names: list[str] | None
    """Of the classes, where its schema has them as the hub writes it."""


class Parquet(EncodedImages):
    """files: by split; "train" is needed. image, label: columns (None: the hub's usual names)."""

    REMEDY = "list the labels in dataset.classes, or renumber them"

    def __init__(
        self,
        name: str,
        files: Mapping[str, Sequence[Path]],
        *,
        image: str | None = None,
        label: str | None = None,
        **how: Unpack[How],
    ) -> None:
        super().__init__(name, **how)
        self.files, self._image, self._label_column = files, image, label

    def _counts(self) -> dict[str, int]:
        return {split: sum(self._open(p).metadata.num_rows for p in paths) for split, paths in self.files.items()}

    def _source(self) -> str:
        hashed = {f"{split}/{i}": path for split, paths in self.files.items() for i, path in enumerate(paths)}
        how = json.dumps([self._image, self._label_column, self.channels, self.size])
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
        for path in self.files[split]:
            column, row = self._column(path, self._image, IMAGE_COLUMNS, "image"), 0
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

    def _label(self) -> Labelled:
        """Numbers where the labels of train are whole numbers, sorted names otherwise."""
        labelled = Labelled()
        columns = {split: [self._read(p, labelled.problems) for p in paths] for split, paths in self.files.items()}
        train = [value for column in columns["train"] for value in column.values]
        of_numbers = bool(train) and all(isinstance(value, int) for value in train)
        if not labelled.problems and not of_numbers and any(isinstance(value, int) for value in train):
            labelled.problems.append("some labels of train are whole numbers and others are not: write all alike")
        if labelled.problems:  # of columns that hold none, nothing else is of use
            return labelled
        if of_numbers and self.given is None:
            self._number(labelled, columns)
        else:
            names = self._names(labelled, columns) if of_numbers else None
            self._name(labelled, columns, names)
        return labelled

    def _number(self, labelled: Labelled, columns: Mapping[str, Sequence[_Column]]) -> None:
        """Labels that are the numbers of their classes."""
        present = {value for column in columns["train"] for value in column.values}
        smallest, largest, names = min(present), max(present), self._names(labelled, columns)
        if smallest < 0 or largest >= CLASSES:
            odd = smallest if smallest < 0 else largest
            labelled.problems.append(
                f"the label {odd} is no number of a class ({self._place(columns['train'], odd)}): they count from 0 up "
                f"to {CLASSES - 1:,} at most, without gaps: {self._class_remedy()}"
            )
            return
        if names is not None and largest >= len(names):
            labelled.problems.append(
                f"the label {largest} has no name among the {len(names)} of its files' schema "
                f"({self._place(columns['train'], largest)}): correct one of them"
            )
            return
        if self.class_order != "text":
            labelled.problems.append("its labels are numbers, which have an order: leave dataset.class_order out")
        count = int(largest) + 1
        labelled.classes = labelled.usual = list(range(count)) if names is None else names[:count]
        if names is not None and names[count:]:
            labelled.notes.append(f"class names that belong to no training picture left out: {listed(names[count:])}")
        numbers = {number: number for number in range(count)}
        self._find(labelled, columns, numbers, lambda value: value if isinstance(value, int) else str(value))

    def _name(self, labelled: Labelled, columns: Mapping[str, Sequence[_Column]], names: Sequence[str] | None) -> None:
        """Labels that are names, or whole numbers that the user has put in an order; these may have names."""

        def text(value: Any) -> str:
            if not isinstance(value, int):
                return str(value)
            return names[value] if names is not None and 0 <= value < len(names) else str(int(value))

        present = {value for column in columns["train"] for value in column.values}
        in_order = sorted(present) if all(isinstance(value, int) for value in present) else None
        if in_order is None:
            labelled.usual = ordered({text(value) for value in present}, "text")
        elif in_order == list(range(len(in_order))):
            labelled.usual = [text(value) for value in in_order]
        given = self.given
        labelled.classes = ordered({text(v) for v in present}, self.class_order) if given is None else list(given)
        self._find(labelled, columns, {name: number for number, name in enumerate(labelled.classes)}, text)

    def _find(
        self,
        labelled: Labelled,
        columns: Mapping[str, Sequence[_Column]],
        numbers: Mapping[Any, int],
        key: Callable[[Any], Any],
    ) -> None:
        """The number of each label."""
        for split, of_split in columns.items():
            values = [value for column in of_split for value in column.values]
            labelled.labels[split] = np.array([numbers.get(key(value), -1) for value in values], dtype=np.int64)
            unknown = dict.fromkeys(value for value in values if key(value) not in numbers)
            if not unknown:
                continue
            known = f"of the {len(numbers)} in train" if self.given is None else "of those in dataset.classes"
            first = next(iter(unknown))
            shown = f"label {listed([repr(key(value)) for value in unknown])} in {split} is none {known}"
            withheld = ": -1 stands for labels that are withheld: leave the split out" if first == -1 else ""
            labelled.problems.append(f"{shown} ({self._place(of_split, first)}){withheld}")

    def _names(self, labelled: Labelled, columns: Mapping[str, Sequence[_Column]]) -> list[str] | None:
        """What the files' schemas call the classes."""
        named = [column for of_split in columns.values() for column in of_split if column.names is not None]
        other = next((column for column in named if column.names != named[0].names), None)
        if other is not None:
            labelled.problems.append(
                f"{named[0].path} and {other.path} give the classes other names: write them with the same ClassLabel"
            )
        return named[0].names if named else None

    @staticmethod
    def _place(columns: Sequence[_Column], value: Any) -> str:
        """Where a label stands first."""
        column = next(column for column in columns if value in column.values)
        return f"{column.path}, row {column.values.index(value)}"

    def _read(self, path: Path, problems: list[str]) -> _Column:
        """The labels of a file; why some are none is added to the problems."""
        name = self._column(path, self._label_column, LABEL_COLUMNS, "label")
        with self._readable(path):
            file = self._open(path)
            values = file.read(columns=[name]).column(0).to_pylist()
        many = [row for row, value in enumerate(values) if isinstance(value, list | dict | tuple)]
        if many:
            shown = repr(values[many[0]])[:SHOWN_LETTERS]
            problems.append(
                f"{path}, row {many[0]}: the label is {shown}, and a picture has one, a number or a name "
                f"({counted(len(many), 'such row')}): name another column with dataset.parquet.label"
            )
        # NaN is nothing's equal, not even its own.
        none = [f"row {row}" for row, value in enumerate(values) if value is None or value != value]
        if none:
            has = "has" if len(none) == 1 else "have"
            problems.append(f"{path}: {listed(none)} {has} no label (null or NaN): label such rows, or remove them")
        return _Column(path, values, _class_names(file.schema_arrow.metadata, name))


def _class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str] | None:
    """Of a column that the hub's library wrote as ClassLabel; None where the schema says nothing of the kind."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if whole and names and len(set(names)) == len(names) else None
