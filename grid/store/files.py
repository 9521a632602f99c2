"""Files under one root, a folder or a URL, through fsspec. Every file is published whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from grid.contract.credentials import redacted, storage_problem
from grid.contract.limits import answer_of, read_capped, read_start, size_limit
from grid.contract.local_files import (
    OddFileError,
    check_regular,
    create_local,
    move_local,
    read_local,
    read_local_start,
    remove_local,
    sizes_local,
    write_local,
)
from grid.contract.program.imports import STORAGE_MODULES, broken
from grid.contract.program.installed import storage_hint
from grid.errors import StorageError, UserError, one_line
from grid.store.copies import Copies
from grid.store.retry import PATIENCE, passes, retried

NONCE = "kd-grid-created-by"
FULL = {errno.ENOSPC, errno.EDQUOT}


# Kinds of storage that fsspec knows and a grid cannot run on.
UNFIT = {
    "memory": "one process alone would see what it holds",
    **dict.fromkeys(("data", "git", "gist", "github", "http", "https", "tar", "zip"), "cannot be written"),
    **dict.fromkeys(
        ("dropbox", "ftp", "gdrive", "sftp", "smb", "ssh", "webdav"), "cannot tell which of two launches was first"
    ),
}

# Seconds to connect, and without a byte.
STEADY, PROBE = (5, 30), (4, 8)
PROBE_PATIENCE = 10.0

_memory_lock = threading.Lock()

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
        self._copies = Copies(self.url)

    @property
    def _fs(self) -> fsspec.AbstractFileSystem:
        if self._process != os.getpid():  # a client's connections and threads do not survive a fork
            self._connected, self._process = connect(self.url, self._waits)[0], os.getpid()
        return self._connected

    @property
    def is_local(self) -> bool:
        return self._local

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
        if isinstance(self._fs, MemoryFileSystem):
            return self._try(path, lambda full: _create_memory(self._fs, full, data))
        # A request whose answer is lost is sent again: whether the file is that of the first try is on it.
        nonce = uuid.uuid4().hex
        return self._try(path, lambda full: self._put_new(full, data, nonce))

    def _put_new(self, full: str, data: bytes, nonce: str) -> bool:
        on_s3 = "s3" in self._fs.protocol
        try:
            self._fs.pipe_file(full, data, mode="create", **({"Metadata": {NONCE: nonce}} if on_s3 else {}))
        except OSError as error:
            if not isinstance(error, FileExistsError) and (answer_of(error) or (0, ""))[0] != 412:
                raise
            return on_s3 and self._fs.metadata(full).get(NONCE) == nonce
        return True

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
        if isinstance(self._fs, MemoryFileSystem):
            with _memory_lock:
                if self._found(path) != (old,):
                    return False
                self._fs.pipe_file(self._full(path), data)
                return True
        if "s3" in self._fs.protocol:
            nonce = uuid.uuid4().hex
            return self._try(path, lambda full: self._put_instead(full, data, nonce, path, old))
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

    def _put_instead(self, full: str, data: bytes, nonce: str, path: str, old: bytes | None) -> bool:
        try:
            state = self._fs.info(full)["ETag"]
            # The state first: what was read is of that one, or of a later one, and then nothing is replaced.
            if self._found(path) == (old,):
                self._fs.pipe_file(full, data, IfMatch=state, Metadata={NONCE: nonce})
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if (answer_of(error) or (0, ""))[0] != 412:
                raise
        # As in `create`: the answer to the first of several tries may have been lost.
        return bool(self._fs.metadata(full).get(NONCE) == nonce)

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
                remove = self._fs.rm_file if "s3" in self._fs.protocol else self._fs.rmdir
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
        def entries(full: str) -> list[dict[str, Any]]:
            if "s3" in self._fs.protocol:
                # Its `ls` goes on to list the folder above, with all that is in it, where there is nothing.
                found = sync(self._fs.loop, self._fs._lsdir, full.rstrip("/"), refresh=True)
            else:
                found = self._fs.ls(full, detail=True, refresh=True)
            # Object stores have empty objects in place of folders, the folder itself among them.
            return [entry for entry in found if entry["name"].rstrip("/") != full.rstrip("/")]

        try:
            return self._try(folder, entries)
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

    def states(self, folder: str) -> dict[str, dict[str, Any]]:
        """Of a storage by URL: what tells the files in a folder, as they are now, from other contents, by name."""
        if self._local:
            return {}
        return {info["name"].rsplit("/", 1)[-1]: info for info in self._list(folder) if info["type"] == "file"}

    def local_file(self, path: str, state: dict[str, Any] | None = None) -> Path:
        """A file on this machine's disk: itself, or a copy made once per machine. state: as `states` gave it, which
        saves a request. Raises FileNotFoundError."""
        if self._local:
            self._try(path, check_regular)
            return Path(self._full(path))
        info = self._try(path, self._fs.info) if state is None else state
        return self._copies.provide(path, [info], self._fetch)[0]

    def local_folder(self, folder: str) -> Path:
        """A folder's files on this machine's disk, as `local_file`."""
        if self._local:
            return Path(self._full(folder))
        infos = [*self.states(folder).values()]
        self._copies.provide(folder, infos, self._fetch)
        return self._copies.folder(folder, infos)

    def drop_copy(self, path: str) -> bool:
        """Remove this machine's copy of a file, so that it is fetched anew; False where the file itself lies here."""
        if not self._local:
            with contextlib.suppress(FileNotFoundError):
                self._copies.drop(path, [self._try(path, self._fs.info)])
        return not self._local

    def _fetch(self, info: dict[str, Any], target: Path) -> None:
        path = info["name"].removeprefix(self._root.rstrip("/")).lstrip("/")
        self._try(path, lambda full: self._fs.get_file(full, str(target)))

    def check_writable(self) -> None:
        """Write, read and remove a probe. Raises UserError saying what failed, within seconds."""
        name = f"probe-{uuid.uuid4().hex[:8]}"

        def write(probe: Files) -> bytes:
            probe.write(name, b"probe")
            back = probe.read(name)
            probe.remove(name)
            return back

        if self._probe(write, "written") != b"probe":
            raise UserError(f"--storage {self.url}: what is written there does not come back the same")

    def check_readable(self) -> None:
        """Raises UserError, within seconds, where nobody answers or nothing may be read; it may be empty."""
        self._probe(lambda probe: probe.exists("probe"), "read")

    def check_fit(self) -> None:
        """Raises UserError for a kind of storage that a grid cannot run on."""
        protocols = self._connected.protocol
        for kind in [protocols] if isinstance(protocols, str) else protocols:
            if kind in UNFIT:
                raise UserError(
                    f"--storage {self.url}: {UNFIT[kind]}: give a folder that all nodes see, or s3:// or gs://"
                )

    def _probe(self, call: Callable[[Files], T], how: str) -> T:
        try:
            return call(Files(self.url, waits=PROBE, patience=PROBE_PATIENCE, level=logging.DEBUG))
        except Exception as error:  # each backend has exceptions of its own; all mean the same to the user
            raise UserError(f"--storage {self.url}: cannot be {how}: {reason_of(error)}") from None


def connect(url: str, waits: tuple[float, float]) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and the path in it. Raises UserError for a kind that is unknown or not installed."""
    kind = url.partition("://")[0]
    if "::" in url:
        raise UserError(f"--storage {url}: a storage is one place: chained URLs (::) are for reading alone")
    try:
        options = _for_s3(waits) if kind in ("s3", "s3a") else {}
        fs, root = fsspec.core.url_to_fs(os.path.expanduser(url), **options)
    except ImportError as error:
        why = broken(error, *STORAGE_MODULES.get(kind, ())) or storage_hint(kind) or error
        raise UserError(f"--storage {url}: {why}") from None
    except Exception as error:  # a server that is not there, or a URL that is none: each backend has its own
        raise UserError(f"--storage {url}: {reason_of(error)}") from None
    if options:
        fs.retries = 1
    return fs, root


def _for_s3(waits: tuple[float, float]) -> dict[str, Any]:
    """Another process's files are seen at once, and waiting for a storage is this module's alone."""
    from aiobotocore.session import AioSession

    session = AioSession()
    session.register("before-call.s3", _send_at_once)
    to_connect, without_a_byte = waits
    client = {"connect_timeout": to_connect, "read_timeout": without_a_byte, "retries": {"total_max_attempts": 1}}
    return {"session": session, "use_listings_cache": False, "skip_instance_cache": True, "config_kwargs": client}


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    # Told to wait for a go-ahead before it sends, the client waits for ever where none comes.
    params["headers"].pop("Expect", None)


def reason_of(error: BaseException) -> str:
    """What a user is told of a storage that cannot be used."""
    if isinstance(error, StorageError) and error.__cause__ is not None:
        error = error.__cause__
    return redacted(getattr(error, "strerror", None) or one_line(error))


def _create_memory(fs: MemoryFileSystem, full: str, data: bytes) -> bool:
    with _memory_lock:
        try:
            fs.info(full)
        except FileNotFoundError:
            fs.pipe_file(full, data)
            return True
        return False
