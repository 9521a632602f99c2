"""Files of one or more storages, local or by URL, as they are read."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from analysis.errors import AnalysisError
from grid.contract.credentials import redacted, storage_problem
from grid.contract.files.layout import GRIDS
from grid.contract.files.limits import has_no_range, read_capped, size_limit
from grid.contract.files.local_files import read_local, too_large
from grid.contract.program.imports import STORAGE_MODULES, broken
from grid.contract.program.installed import storage_hint

AT_ONCE = 5000  # files held in memory
READERS, IN_A_ROW = 4, 250
LISTERS = 16  # a storage by URL answers many as fast as one
NOT_THERE = (FileNotFoundError, NotADirectoryError)


def local_root(storage: str) -> str | None:
    """Where a storage lies on this machine; None for one by URL."""
    return None if "://" in storage else str(Path(storage).expanduser())


class Reader:
    """Files below storage roots. What lies in several of them is read from the first that has it: a stage's id says
    what it was computed from, so that its record is as good from one as from another.

    Raises AnalysisError, with the storage's name, for one of an unknown kind, for what is there and cannot be read, and
    for a path that leaves it: names and ids come from users and from files.
    """

    def __init__(self, *storages: str) -> None:
        self.storages = tuple(dict.fromkeys(storages))
        self._places: list[tuple[fsspec.AbstractFileSystem, str]] = []
        for storage in self.storages:
            self._places.append(_place(storage))

    def __str__(self) -> str:
        return ", ".join(self.storages)

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        _check_inside([path])
        for storage, (fs, root) in zip(self.storages, self._places, strict=True):
            full, limit = f"{root}/{path}", size_limit(path)
            try:
                if isinstance(fs, LocalFileSystem):
                    return read_local(full, limit)
                return read_capped(fs.cat_file, full, limit)
            except NOT_THERE:
                continue
            except Exception as error:  # each kind of storage has errors of its own
                raise _unreadable(storage, path, error) from error
        raise FileNotFoundError(path)

    def read_many(self, paths: Sequence[str], problems: list[str] | None = None) -> dict[str, bytes]:
        """Those that are there, at once where a storage can. What is there and cannot be read is added to problems, a
        line each; without them it is raised."""
        _check_inside(paths)
        found: dict[str, bytes] = {}
        for storage, (fs, root) in zip(self.storages, self._places, strict=True):
            wanted = [path for path in paths if path not in found]
            there = _read_local(root, wanted) if isinstance(fs, LocalFileSystem) else _read_url(fs, root, wanted)
            for path, data in there.items():
                if isinstance(data, bytes):
                    found[path] = data
                elif not isinstance(data, NOT_THERE):
                    if problems is None:
                        raise _unreadable(storage, path, data) from data
                    problems.append(f"{path}: {_reason(data)}")
        return found

    def batches(self, paths: Sequence[str], problems: list[str]) -> Iterator[dict[str, bytes]]:
        """As `read_many`, AT_ONCE of them at a time."""
        for start in range(0, len(paths), AT_ONCE):
            yield self.read_many(paths[start : start + AT_ONCE], problems)

    def grids(self) -> list[str]:
        """The names of the grids' folders, in the storages' order."""
        found: list[str] = []
        for storage, (fs, root) in zip(self.storages, self._places, strict=True):
            try:
                found += _names(fs, f"{root}/{GRIDS}")
            except Exception as error:  # each kind of storage has errors of its own
                raise _unreadable(storage, GRIDS, error) from error
        return found

    def names(self, folders: Sequence[str], problems: list[str]) -> dict[str, list[str]]:
        """What lies in each folder, of any storage, by name. What cannot be read is added to problems, a line each."""
        _check_inside(folders)
        found: dict[str, list[str]] = {folder: [] for folder in folders}
        for fs, root in self._places:

            def look(folder: str, fs: fsspec.AbstractFileSystem = fs, root: str = root) -> list[str] | Exception:
                try:
                    return _names(fs, f"{root}/{folder}")
                except Exception as error:  # whatever is wrong with one folder, the others are shown
                    return error

            with ThreadPoolExecutor(READERS if isinstance(fs, LocalFileSystem) else LISTERS) as pool:
                for folder, names in zip(folders, pool.map(look, folders), strict=True):
                    if isinstance(names, Exception):
                        problems.append(f"{folder}: {_reason(names)}")
                    else:
                        found[folder] += names
        return found


def _names(fs: fsspec.AbstractFileSystem, place: str) -> list[str]:
    """Sorted; none where there is no such folder."""
    try:
        if isinstance(fs, LocalFileSystem):
            return sorted(os.listdir(place))
        entries = fs.ls(place, detail=False, refresh=True)
    except NOT_THERE:
        return []
    # Object stores have empty objects in place of folders, the folder itself among them.
    return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry.rstrip("/") != place.rstrip("/"))


def _check_inside(paths: Sequence[str]) -> None:
    outside = next((path for path in paths if ".." in path.split("/") or "\0" in path), None)
    if outside is not None:
        raise AnalysisError(f"{outside!r} leaves the storage")


def _place(storage: str) -> tuple[fsspec.AbstractFileSystem, str]:
    problem = storage_problem(storage)
    if problem is not None:
        raise AnalysisError(problem)
    kind, _, rest = storage.partition("://")
    if not rest and "::" in storage:  # fsspec would read what lies before it
        raise AnalysisError(f"--storage {storage}: '::' chains URLs, and no folder of a grid has it in its name")
    try:
        fs, root = fsspec.core.url_to_fs(storage if rest else str(Path(storage).expanduser()))
    except ImportError as error:
        why = broken(error, *STORAGE_MODULES.get(kind, ())) or storage_hint(kind) or error
        raise AnalysisError(f"--storage {storage}: {why}") from None
    except ValueError as error:
        raise AnalysisError(f"--storage {storage}: {error}") from None
    return fs, root.rstrip("/")


def _unreadable(storage: str, path: str, error: Exception) -> AnalysisError:
    return AnalysisError(f"--storage {storage}: {path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return redacted(" ".join(str(getattr(error, "strerror", None) or error).split()))


def said(error: Exception) -> str:
    """What is wrong with one file, on one line."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _read_local(root: str, paths: Sequence[str]) -> dict[str, bytes | Exception]:
    """Without fsspec's wrapping, which takes longer than reading a small file; several at a time, for a disk that has
    to look for each."""

    def read(some: Sequence[str]) -> list[bytes | Exception]:
        found: list[bytes | Exception] = []
        for path in some:
            try:
                found.append(read_local(f"{root}/{path}", size_limit(path)))
            except Exception as error:  # whatever is wrong with one file, the others are read
                found.append(error)
        return found

    if len(paths) <= IN_A_ROW:
        return dict(zip(paths, read(paths), strict=True))
    with ThreadPoolExecutor(READERS) as pool:
        parts = pool.map(read, [paths[i : i + IN_A_ROW] for i in range(0, len(paths), IN_A_ROW)])
        return dict(zip(paths, itertools.chain.from_iterable(parts), strict=True))


def _read_url(fs: fsspec.AbstractFileSystem, root: str, paths: Sequence[str]) -> dict[str, bytes | Exception]:
    """In one go for all of one limit, which most often is the same for all; cut off just above it."""
    found: dict[str, bytes | Exception] = {}
    by_limit: dict[int | None, list[str]] = defaultdict(list)
    for path in paths:
        by_limit[size_limit(path)].append(f"{root}/{path}")
    for limit, places in by_limit.items():
        part = {} if limit is None else {"start": 0, "end": limit + 1}
        for place, data in fs.cat(places, on_error="return", **part).items():
            if isinstance(data, Exception) and has_no_range(data):
                data = b""
            if isinstance(data, bytes) and limit is not None and len(data) > limit:
                data = too_large(limit)
            found[place.removeprefix(root).lstrip("/")] = data
    return found
