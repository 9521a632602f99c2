"""Files under one root, a folder or a URL, through fsspec. Every file is published whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from grid.contract.credentials import storage_problem
from grid.contract.files.limits import read_capped, read_start, size_limit
from grid.contract.files.local_files import (
    OddFileError,
    create_local,
    move_local,
    read_local,
    read_local_start,
    remove_local,
    sizes_local,
    write_local,
)
from grid.errors import StorageError, UserError, one_line
from grid.files.connect import STEADY, connect
from grid.files.object_store import entries, put_instead, put_new, replaces_at_once
from grid.files.retry import PATIENCE, PROBE_PATIENCE, passes, retried

FULL = {errno.ENOSPC, errno.EDQUOT}

T = TypeVar("T")


class Files:
    """Paths given to its methods are relative, with forward slashes.

    A write is atomic: local files are written beside their place, synced and renamed; object stores publish a
    finished upload. A reader never sees half a file, and nothing is remembered of what others may have changed.
    Storage that fails for a while is waited for. Any thread may use it, and a forked process. What lies in a file's
    place and is no file of its kind (a pipe, a device, far too large) raises OddFileError instead of being waited for.
    """

    def __init__(
        self,
        url: str,
        *,
        waits: tuple[float, float] = STEADY,
        patience: float = PATIENCE,
        level: int = logging.WARNING,
    ) -> None:
        problem = storage_problem(url)
        if problem is not None:
            raise UserError(problem)
        self._waits, self._patience, self._level = waits, patience, level
        self._connected, self._root = connect(url, waits)
        self._process = os.getpid()
        self._local = isinstance(self._connected, LocalFileSystem)
        self.url = self._root if self._local else url

    @property
    def _fs(self) -> fsspec.AbstractFileSystem:
        if self._process != os.getpid():  # a client's connections and threads do not survive a fork
            self._connected, self._process = connect(self.url, self._waits)[0], os.getpid()
        return self._connected

    @property
    def is_local(self) -> bool:
        return self._local

    @property
    def kinds(self) -> tuple[str, ...]:
        """What fsspec calls this kind of storage."""
        protocol = self._connected.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    @property
    def slowness(self) -> float:
        """How many times as long as on a disk to wait between two looks at what others write: a look at an object store
        is a request, which costs time and money."""
        return 1.0 if self._local or isinstance(self._connected, MemoryFileSystem) else 5.0

    def location(self, path: str) -> str:
        """Where a relative path lies, for people and for messages."""
        return f"{self.url.rstrip('/')}/{path}"

    def _full(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"{path!r} leaves the storage")
        return f"{self._root.rstrip('/')}/{path}"

    def _try(self, path: str, call: Callable[[str], T]) -> T:
        """call(full path), for as long as its errors pass. Raises StorageError where they do not, or it is full."""
        full, place = self._full(path), self.location(path)
        try:
            return retried(lambda: call(full), what=place, patience=self._patience, level=self._level)
        except Exception as error:
            if isinstance(error, OddFileError):
                raise OddFileError(f"{place}: {error.strerror}") from None
            if isinstance(error, OSError) and error.errno in FULL:
                reason = f"{os.strerror(error.errno)}: free some, then launch again: what is done is kept"
            elif passes(error):
                reason = (
                    f"{one_line(error)}, for {self._patience:.0f} s: launch again when it answers; what is done is kept"
                )
            else:
                raise
            raise StorageError(f"{place}: {reason}") from error

    def exists(self, path: str) -> bool:
        # fsspec's own says False of whatever cannot be read at the moment, and where there is none `info` asks an
        # object store twice: it might be a folder.
        try:
            if self._local:
                self._try(path, self._fs.info)
            else:
                self.read_start(path, 1)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        limit = size_limit(path)
        if self._local:
            return self._try(path, lambda full: read_local(full, limit))
        return self._try(path, lambda full: read_capped(self._fs.cat_file, full, limit))

    def write(self, path: str, data: bytes) -> None:
        """Publish a file atomically, replacing any."""
        if self._local:
            self._try(path, lambda _: write_local(self._root, path, data))
        else:
            self._try(path, lambda full: self._fs.pipe_file(full, data))

    def create(self, path: str, data: bytes) -> bool:
        """Publish a file unless there is one: of many that race, on any machine, exactly one is told True.

        On a local disk without hard links a reader may see the file while it is being written.
        """
        if self._local:
            return self._try(path, lambda _: create_local(self._root, path, data))
        # A request whose answer is lost is sent again: whether the file is that of the first try is on it.
        nonce = uuid.uuid4().hex
        return self._try(path, lambda full: put_new(self._fs, full, data, nonce))

    def peek(self, path: str) -> bytes | None:
        """What lies in a file's place; None for what cannot be read as one. Raises FileNotFoundError."""
        try:
            return self.read(path)
        except (OddFileError, IsADirectoryError):
            return None

    def replace(self, path: str, data: bytes, *, old: bytes | None) -> bool:
        """Publish a file in the place of what `peek` has found there; False where something else lies there by now, or
        nothing. Whoever was held up between the two, for however long, replaces nothing that came in between.

        On an object store this is one request. On a disk the old file is first given another name, and looked at once
        more under it: it is put back where it is not the one that was meant.
        """
        if self._local:
            return self._replace_local(path, data, old)
        if replaces_at_once(self._fs):
            nonce = uuid.uuid4().hex
            return self._try(
                path, lambda full: put_instead(self._fs, full, data, nonce, lambda: self._found(path) == (old,))
            )
        if self._found(path) != (old,):
            return False
        self.remove(path)
        return self.create(path, data)

    def _found(self, path: str) -> tuple[bytes | None] | None:
        try:
            return (self.peek(path),)
        except FileNotFoundError:
            return None

    def _replace_local(self, path: str, data: bytes, old: bytes | None) -> bool:
        folder, _, name = path.rpartition("/")
        stem, dot, ending = name.rpartition(".")
        aside = f"{stem}-{uuid.uuid4().hex[:8]}{dot}{ending}"
        try:
            self._try(path, lambda _: move_local(self._root, path, aside))
        except FileNotFoundError:
            return False
        aside = f"{folder}/{aside}" if folder else aside
        moved = self.peek(aside)
        published = moved == old and self.create(path, data)
        if moved is not None:
            if moved != old:
                self.create(path, moved)
            self.remove(aside)
        return published

    def remove(self, path: str) -> None:
        """Remove a file; one that is already gone is no error."""
        with contextlib.suppress(FileNotFoundError):
            if self._local:
                self._try(path, lambda _: remove_local(self._root, path))
            else:
                self._try(path, self._fs.rm_file)

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all that is in it, and its parent if that is then empty; best effort."""
        full, parent = self._full(path), path.rpartition("/")[0]
        with contextlib.suppress(Exception):  # left-overs harm nobody, and each backend has errors of its own
            retried(lambda: self._fs.rm(full, recursive=True), what=self.location(path), patience=PROBE_PATIENCE)
            if parent and not self.names(parent):
                # Ray puts an empty object in a folder's place on an object store.
                remove = self._fs.rm_file if "s3" in self.kinds else self._fs.rmdir
                remove(self._full(parent) + "/")

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        if not self._local:
            return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in self._list(folder))
        try:
            return sorted(self._try(folder, os.listdir))
        except FileNotFoundError:
            return []

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            return self._try(folder, lambda full: entries(self._fs, full))
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        """The size in bytes of what lies in a folder, by name; none where there is no such folder."""
        if not self._local:
            found = self._list(folder)
            return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: int(entry["size"] or 0) for entry in found}
        try:
            return self._try(folder, lambda _: sizes_local(self._root, folder))
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def size(self, path: str) -> int:
        """In bytes. Raises FileNotFoundError."""
        return int(self._try(path, self._fs.size))

    def read_start(self, path: str, count: int) -> bytes:
        """A file's first bytes. Raises FileNotFoundError."""
        if self._local:
            return self._try(path, lambda full: read_local_start(full, count))
        return self._try(path, lambda full: read_start(self._fs.cat_file, full, count))
