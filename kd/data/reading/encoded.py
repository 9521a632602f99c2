"""Data sets of encoded pictures, whatever they are kept in."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypedDict

import numpy as np

from kd.data.catalog import ClassOrder, DatasetInfo
from kd.data.classes import SHOWN, Labelled, counted, listed, missing_classes
from kd.data.reading.decode import TO_16_BITS, decode, decode_all, largest_level, look
from kd.data.reading.depth import FULL
from kd.data.sources import DatasetError, Images

# Of what reads pictures: raise it when some are read otherwise, and have `Looked.otherwise` tell which. Sets that hold
# such then have another source, and all others keep theirs.
READER = 2


class How(TypedDict, total=False):
    """Arguments of EncodedImages."""

    channels: int
    size: int | None
    white: int | None
    classes: Sequence[str] | None
    class_order: ClassOrder


@dataclass
class Looked:
    """What the files say of a set's pictures: how many there are of each kind, or what odd ones are called."""

    pictures: int = 0
    deep: int = 0
    deep_colour: list[str] = field(default_factory=list)
    turned: int = 0
    unknown: list[str] = field(default_factory=list)
    largest: int = 0
    """The largest value of 16-bit pictures whose files do not say what white is."""
    problems: list[str] = field(default_factory=list)
    """Why no more was looked at."""

    def add(self, what: str, data: bytes) -> None:
        """Raises DatasetError for a 16-bit picture that is damaged."""
        seen = look(data)
        self.pictures += 1
        self.turned += seen.turned
        if seen.deep:
            self.deep += 1
            largest, white = largest_level(data, what=what)
            self.largest = max(self.largest, largest if white == FULL else 0)
        if seen.deep_colour:
            self.deep_colour.append(what)
        if seen.unknown is not None:
            self.unknown.append(what)

    @property
    def scale(self) -> int:
        """What may be white, if no bit is wasted."""
        return int(2 ** self.largest.bit_length() - 1)

    @property
    def otherwise(self) -> bool:
        """Whether the first reader read some of them otherwise than this one."""
        return bool(self.deep or self.turned)


class EncodedImages(ABC):
    """Pictures are resized to squares of `size` (None: they all have one size) and have so many channels. white: the
    value of 16-bit pictures that becomes 255 (None: their upper 8 bits are read). classes: in the order of their
    numbers (None: in `class_order`, or as their labels number them)."""

    REMEDY: ClassVar[str]  # for classes without a training picture, where the user has listed none

    def __init__(
        self,
        name: str,
        *,
        channels: int,
        size: int | None,
        white: int | None = None,
        classes: Sequence[str] | None = None,
        class_order: ClassOrder = "text",
    ) -> None:
        self.name, self.channels, self.size, self.white = name, channels, size, white
        self.given, self.class_order = classes, class_order

    @property
    def classes(self) -> Sequence[Any]:
        """In the order of the labels."""
        return self._labelled.classes

    @property
    def train_labels(self) -> np.ndarray:
        return self._labelled.labels["train"]

    @abstractmethod
    def _counts(self) -> dict[str, int]:
        """Pictures in each split; "train" is one."""

    @abstractmethod
    def _pictures(self, split: str) -> Iterator[tuple[str, bytes]]:
        """What messages call each picture, and its bytes."""

    @abstractmethod
    def _label(self) -> Labelled:
        """The labels of all splits, with all that is wrong with them."""

    @abstractmethod
    def _source(self) -> str:
        """What the images are, for ids: a hash of the files, and how they are read."""

    @abstractmethod
    def _empty(self) -> str:
        """Why there is nothing to train on, where there is not."""

    def _class_remedy(self) -> str:
        """What may be done about classes that no training picture shows."""
        return self.REMEDY if self.given is None else "leave them out of dataset.classes, or add pictures"

    @cached_property
    def info(self) -> DatasetInfo:
        """Raises DatasetError with all that is wrong with labels and pictures at once."""
        problems, notes = self._of_labels
        looked = self._looked
        self._refuse([*problems, *looked.problems, *self._unreadable(looked)])
        self._refuse(self._flat(looked))
        height, width, channels = self._shape
        counts = self._counts()
        return DatasetInfo(
            name=self.name,
            classes=len(self.classes),
            channels=channels,
            height=height,
            width=width,
            pool_images=counts["train"],
            val_images=counts.get("val"),
            test_images=counts.get("test"),
            source=self._source() + self._otherwise(looked),
            some_classes=tuple(str(name) for name in self.classes[:SHOWN]),
            notes=(*notes, *self._notes(looked)),
        )

    def read(self) -> dict[str, Images]:
        self._refuse(self._of_labels[0])
        height, width, channels = self._shape
        return {
            split: Images(
                decode_all(
                    self._pictures(split),
                    count=count,
                    height=height,
                    width=width,
                    channels=channels,
                    size=self.size,
                    white=self.white,
                ),
                self._labelled.labels[split],
            )
            for split, count in self._counts().items()
        }

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise DatasetError(f"data set {self.name}: {'; '.join(problems)}")

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the first picture."""
        height, width, channels = self._decoded(*next(self._pictures("train"))).shape
        return height, width, channels

    def _decoded(self, what: str, data: bytes) -> np.ndarray:
        return decode(data, channels=self.channels, size=self.size, what=what, white=self.white)

    @cached_property
    def _labelled(self) -> Labelled:
        """Raises DatasetError for a set without training pictures."""
        if not self._counts()["train"]:
            raise DatasetError(f"data set {self.name}: {self._empty()}")
        return self._label()

    @cached_property
    def _of_labels(self) -> tuple[list[str], list[str]]:
        """Problems and notes."""
        labelled = self._labelled
        problems, notes = missing_classes(labelled.labels, labelled.classes, remedy=self._class_remedy())
        return [*labelled.problems, *problems], [*notes, *labelled.notes]

    @cached_property
    def _looked(self) -> Looked:
        looked = Looked()
        try:
            for split in self._counts():
                for what, data in self._pictures(split):
                    looked.add(what, data)
        except DatasetError as error:  # told together with what else is wrong
            looked.problems.append(str(error).removeprefix(f"data set {self.name}: "))
        return looked

    def _unreadable(self, looked: Looked) -> list[str]:
        """Of pictures whose values could be anything, and of a white for pictures that have their own."""
        problems = []
        if looked.unknown:
            problems.append(
                f"nothing tells which value is white in {counted(len(looked.unknown), 'picture')}, whose pixels are "
                f"floating-point numbers or integers of 32 bits: {listed(looked.unknown)}: {TO_16_BITS}"
            )
        if self.white is not None and looked.deep_colour:
            problems.append(
                f"dataset.white is for gray pictures: of {counted(len(looked.deep_colour), 'picture')} with 16 bits a "
                f"colour only the upper 8 can be read: {listed(looked.deep_colour)}: leave it out, or convert them"
            )
        elif self.white is not None and not looked.deep and not looked.problems:
            problems.append("dataset.white is for gray pictures of 16 bits, and there is none: leave it out")
        return problems

    def _flat(self, looked: Looked) -> list[str]:
        """Of training pictures that all show the same: decoded until one of them differs."""
        first: np.ndarray | None = None
        for what, data in self._pictures("train"):
            image_HWC = self._decoded(what, data)
            first = image_HWC[0, 0] if first is None else first
            if (image_HWC != first).any():
                return []
        value = "no value" if first is None else " ".join(map(str, np.unique(first).tolist()))
        scale = f": give dataset.white, such as {looked.scale}" if 0 < looked.largest < FULL else ""
        return [
            f"all pixels of its {counted(self._counts()['train'], 'training picture')} have the value {value}, which "
            f"nothing can be learned from{scale or ': look at what the files hold'}"
        ]

    def _otherwise(self, looked: Looked) -> str:
        """What an id has to know besides the files, and nothing where they are read as the first reader did."""
        how: dict[str, Any] = {}
        if looked.otherwise:
            how["reader"] = READER
        if self.white is not None:
            how["white"] = self.white
        names = [str(name) for name in self.classes]
        if names != [str(name) for name in self._labelled.usual]:
            how["classes"] = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        return f" {json.dumps(how)}" if how else ""

    def _notes(self, looked: Looked) -> list[str]:
        notes = []
        if looked.deep:
            note = f"{looked.deep:,} of {counted(looked.pictures, 'picture')} of 16 bits"
            if looked.largest:
                bits = looked.largest.bit_length()
                note += f", largest value {looked.largest}: {bits} of 16 bits used"
                if self.white is None and bits < 16:
                    note += f" (dataset.white: {looked.scale} reads them from black to white)"
            notes.append(note)
        if looked.deep_colour:
            notes.append(f"{counted(len(looked.deep_colour), 'picture')} of 16 bits a colour: the upper 8 are read")
        if looked.turned:
            notes.append(f"{counted(looked.turned, 'picture')} turned as EXIF says")
        return notes
