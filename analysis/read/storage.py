"""Files of one or more storages, as they are read: folders and URLs, and bundles."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from analysis.errors import AnalysisError
from analysis.read.bundle import ENDING, LARGEST_DOWNLOAD, Bundle
from analysis.read.places import NOT_THERE, LocalPlace, Place, UrlPlace
from grid.contract.credentials import redacted, storage_problem
from grid.contract.files.layout import GRIDS
from grid.contract.files.limits import read_capped
from grid.contract.files.local_files import check_regular
from grid.contract.program.imports import STORAGE_MODULES, broken
from grid.contract.program.installed import storage_hint

AT_ONCE = 5000  # files held in memory


def local_root(storage: str) -> str | None:
    """The folder on this machine that a storage is; None for one by URL, and for a bundle."""
    return None if "://" in storage or is_bundle(storage) else str(Path(storage).expanduser())


def is_bundle(storage: str) -> bool:
    """Whether a storage is one file: by a URL or a path that ends in .zip, or a file of any name on this machine."""
    if "://" in storage:
        return storage.endswith(ENDING)
    path = os.path.expanduser(storage)
    return os.path.isfile(path) or (storage.endswith(ENDING) and not os.path.isdir(path))


class Reader:
    """Files below storage roots. What lies in several of them is read from the first that has it: a stage's id says
    what it was computed from, so that its record is as good from one as from another.

    Raises AnalysisError, with the storage's name, for one of an unknown kind, for what is there and cannot be read, and
    for a path that leaves it: names and ids come from users and from files.
    """

    def __init__(self, *storages: str) -> None:
        self._places: dict[str, Place] = {storage: _place(storage) for storage in dict.fromkeys(storages)}

    def __str__(self) -> str:
        return ", ".join(self.storages)

    @property
    def storages(self) -> tuple[str, ...]:
        return tuple(self._places)

    def of_each(self) -> dict[str, Reader]:
        """A reader of each storage alone, by its name."""
        found = {}
        for storage, place in self._places.items():
            found[storage] = Reader()
            found[storage]._places = {storage: place}
        return found

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        _check_inside([path])
        for storage, place in self._places.items():
            try:
                return place.read(path)
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
        for storage, place in self._places.items():
            for path, data in place.read_many([path for path in paths if path not in found]).items():
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
        for storage, place in self._places.items():
            try:
                found += place.names(GRIDS)
            except Exception as error:  # each kind of storage has errors of its own
                raise _unreadable(storage, GRIDS, error) from error
        return found

    def names(self, folders: Sequence[str], problems: list[str]) -> dict[str, list[str]]:
        """What lies in each folder, of any storage, by name. What cannot be read is added to problems, a line each."""
        _check_inside(folders)
        found: dict[str, list[str]] = {folder: [] for folder in folders}
        for place in self._places.values():

            def look(folder: str, place: Place = place) -> list[str] | Exception:
                try:
                    return place.names(folder)
                except Exception as error:  # whatever is wrong with one folder, the others are shown
                    return error

            with ThreadPoolExecutor(place.listers) as pool:
                for folder, names in zip(folders, pool.map(look, folders), strict=True):
                    if isinstance(names, Exception):
                        problems.append(f"{folder}: {_reason(names)}")
                    else:
                        found[folder] += names
        return found


def _check_inside(paths: Sequence[str]) -> None:
    outside = next((path for path in paths if ".." in path.split("/") or "\0" in path), None)
    if outside is not None:
        raise AnalysisError(f"{outside!r} leaves the storage")


def _place(storage: str) -> Place:
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
    root = root.rstrip("/")
    local = isinstance(fs, LocalFileSystem)
    if is_bundle(root if local else storage):
        return _bundle(storage, fs, root, local=local)
    return LocalPlace(root) if local else UrlPlace(fs, root)


def _bundle(storage: str, fs: fsspec.AbstractFileSystem, root: str, *, local: bool) -> Bundle:
    try:
        if not local:
            return Bundle(io.BytesIO(read_capped(fs.cat_file, root, LARGEST_DOWNLOAD)))
        check_regular(root)
        return Bundle(root)
    except NOT_THERE:
        raise AnalysisError(f"--storage {storage}: there is no such file") from None
    except Exception as error:  # each kind of storage has errors of its own
        raise AnalysisError(f"--storage {storage}: {_reason(error)}") from None


def _unreadable(storage: str, path: str, error: Exception) -> AnalysisError:
    return AnalysisError(f"--storage {storage}: {path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return redacted(" ".join(str(getattr(error, "strerror", None) or error).split()))


def said(error: Exception) -> str:
    """What is wrong with one file, on one line."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
