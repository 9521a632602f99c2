"""A folder of images: train/<class>/*.png|jpg|..., with or without val/ and test/ of the same form."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np

from kd.data.classes import Labelled, counted, listed, ordered
from kd.data.reading.decode import FORMATS
from kd.data.reading.encoded import EncodedImages, How
from kd.data.reading.walk import check_link, kind_of, pictures_below, told
from kd.data.sources import DatasetError, sha256_of

SPLITS = ("train", "val", "test")


class ImageFolder(EncodedImages):
    REMEDY = "add pictures, or remove the folders"

    def __init__(self, name: str, folder: Path, **how: Unpack[How]) -> None:
        super().__init__(name, **how)
        self.folder = folder
        self._left_out: Counter[str] = Counter()

    @cached_property
    def _found(self) -> dict[str, dict[str, list[Path]]]:
        """Pictures by split and class, "" for those in the folder of no class; each in the order of their names."""
        if not (self.folder / "train").is_dir():
            raise DatasetError(f"data set {self.name}: {self.folder} has no folder train/ with one folder a class")
        found: dict[str, dict[str, list[Path]]] = {}
        for split in SPLITS:
            place = self.folder / split
            if not place.is_dir():
                continue
            if place.is_symlink():
                check_link(place)
            found[split] = defaultdict(list)
            for path in sorted(place.iterdir()):
                kind = kind_of(path)
                if kind is not None:
                    self._left_out[kind] += 1
                elif path.is_dir():
                    around = (self.folder, place)
                    found[split][path.name] = pictures_below(path, around=around, left_out=self._left_out)
                else:
                    found[split][""].append(path)
        return found

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """By split, in the order of their names."""
        return {
            split: sorted(path for name, paths in classes.items() if name for path in paths)
            for split, classes in self._found.items()
        }

    def _label(self) -> Labelled:
        folders = [name for name in self._found["train"] if name]
        usual = ordered(folders, "text")
        classes = list(self.given) if self.given is not None else ordered(folders, self.class_order)
        labelled = Labelled(classes=classes, usual=usual, notes=self._told())
        numbers = {name: number for number, name in enumerate(classes)}
        for split, by_class in self._found.items():
            if by_class.get(""):
                loose = by_class[""]
                labelled.problems.append(
                    f"{counted(len(loose), 'picture')} in {split}/ but in no class's folder: {listed(loose)}: move "
                    f"{'it' if len(loose) == 1 else 'them'} to {split}/<class>/"
                )
            for name, paths in by_class.items():
                if name and name not in numbers and paths:
                    more = f" (and {len(paths) - 1:,} more)" if len(paths) > 1 else ""
                    known = "train/" if self.given is None else "dataset.classes"
                    labelled.problems.append(f"{paths[0]}{more} is of class {name}, which {known} does not have")
            labelled.labels[split] = np.array(
                [numbers.get(path.relative_to(self.folder / split).parts[0], -1) for path in self._files[split]],
                dtype=np.int64,
            )
        return labelled

    def _told(self) -> list[str]:
        others = sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name not in SPLITS and not path.name.startswith(".") and path.is_dir()
        )
        folders = f"left out beside train/, val/ and test/: {listed([f'{name}/' for name in others])}"
        return [*told(self._left_out), *([folders] if others else [])]

    def _counts(self) -> dict[str, int]:
        return {split: len(paths) for split, paths in self._files.items()}

    def _pictures(self, split: str) -> Iterator[tuple[str, bytes]]:
        for path in self._files[split]:
            yield str(path), path.read_bytes()

    def _source(self) -> str:
        hashed = {path.relative_to(self.folder).as_posix(): path for paths in self._files.values() for path in paths}
        return f"{sha256_of(hashed)} [{self.channels}, {self.size}]"

    def _empty(self) -> str:
        there = f"; {', '.join(told(self._left_out))}" if self._left_out else ""
        return f"{self.folder} has no images in train/<class>/ (of {', '.join(FORMATS)}){there}"
