"""Where images come from: each source knows its facts cheaply, and reads everything once into uint8 arrays."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kd.data.catalog import DatasetInfo


class DatasetError(ValueError):
    """The data are not what the grid asked for; the message names what differs."""


@dataclass(frozen=True)
class Images:
    images_NHWC: np.ndarray
    """uint8."""
    labels_N: np.ndarray
    """int64."""

    def __len__(self) -> int:
        return len(self.labels_N)


class Source(Protocol):
    @property
    def info(self) -> DatasetInfo:
        """Read from headers and hashes. Raises DatasetError."""

    def read(self) -> dict[str, Images]:
        """ "train" and, where they are official, "val" and "test". Raises DatasetError naming what is wrong."""


def sha256_of(files: Mapping[str, Path | bytes]) -> str:
    """Of files' contents with the names they are known by. Raises DatasetError for a name that is no text."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        _check_text(name, content if isinstance(content, Path) else name)
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _check_text(name: str, place: Path | str) -> None:
    """File names are bytes, and those that are not in UTF-8 have no place in ids and records."""
    try:
        name.encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        if encoding == "utf-8":
            problem = "its name is not in UTF-8, which ids and records are made of: rename it"
        else:
            problem = f"its name cannot be read, for this locale's file names are in {encoding}: set PYTHONUTF8=1"
        raise DatasetError(f"{os.fsencode(place).decode('utf-8', 'backslashreplace')}: {problem}") from None
