"""The kinds of storages: folders of this machine, and whatever fsspec reads behind a URL."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import fsspec

from grid.contract.files.limits import has_no_range, read_capped, size_limit
from grid.contract.files.local_files import read_local, too_large

READERS, IN_A_ROW = 4, 250
LISTERS = 16  # a storage by URL answers many as fast as one
NOT_THERE = (FileNotFoundError, NotADirectoryError)


class Place(ABC):
    """Where the files of one storage lie. Paths are relative to its root, and stay inside."""

    listers: int = 1
    """How many folders are looked into at a time."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Raises one of NOT_THERE, and whatever else this kind of storage raises."""

    @abstractmethod
    def read_many(self, paths: Sequence[str]) -> dict[str, bytes | Exception]:
        """What `read` gives or raises of each; what is not there may be left out."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """What lies in a folder, sorted; none where there is no such folder."""


class LocalPlace(Place):
    """A folder. Files are read without fsspec's wrapping, which takes longer than reading a small file; several at a
    time, for a disk that has to look for each."""

    listers = READERS

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        return read_local(f"{self._root}/{path}", size_limit(path))

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes | Exception]:
        if len(paths) <= IN_A_ROW:
            return dict(zip(paths, self._in_a_row(paths), strict=True))
        with ThreadPoolExecutor(READERS) as pool:
            parts = pool.map(self._in_a_row, [paths[i : i + IN_A_ROW] for i in range(0, len(paths), IN_A_ROW)])
            return dict(zip(paths, itertools.chain.from_iterable(parts), strict=True))

    def _in_a_row(self, paths: Sequence[str]) -> list[bytes | Exception]:
        found: list[bytes | Exception] = []
        for path in paths:
            try:
                found.append(self.read(path))
            except Exception as error:  # whatever is wrong with one file, the others are read
                found.append(error)
        return found

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(f"{self._root}/{folder}"))
        except NOT_THERE:
            return []


class UrlPlace(Place):
    """A folder behind a URL."""

    listers = LISTERS

    def __init__(self, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self._fs, self._root = fs, root

    def read(self, path: str) -> bytes:
        return read_capped(self._fs.cat_file, f"{self._root}/{path}", size_limit(path))

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes | Exception]:
        """In one go for all of one limit, which most often is the same for all; cut off just above it."""
        found: dict[str, bytes | Exception] = {}
        by_limit: dict[int | None, list[str]] = defaultdict(list)
        for path in paths:
            by_limit[size_limit(path)].append(f"{self._root}/{path}")
        for limit, places in by_limit.items():
            part = {} if limit is None else {"start": 0, "end": limit + 1}
            for place, data in self._fs.cat(places, on_error="return", **part).items():
                if isinstance(data, Exception) and has_no_range(data):
                    data = b""
                if isinstance(data, bytes) and limit is not None and len(data) > limit:
                    data = too_large(limit)
                found[place.removeprefix(self._root).lstrip("/")] = data
        return found

    def names(self, folder: str) -> list[str]:
        place = f"{self._root}/{folder}"
        try:
            entries = self._fs.ls(place, detail=False, refresh=True)
        except NOT_THERE:
            return []
        # Object stores have empty objects in place of folders, the folder itself among them.
        inside = [entry.rstrip("/") for entry in entries if entry.rstrip("/") != place.rstrip("/")]
        return sorted(entry.rsplit("/", 1)[-1] for entry in inside)
