"""This machine's copies of files that lie behind a URL: fetched once, whoever asks, and anew when the file changes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from grid.contract.files.local_files import check_regular
from grid.contract.files.publishing import publishing
from grid.files.files import Files
from grid.private import machine_folder, private_folder

# What tells one state of a file from another; an object store's tag is of the contents.
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")


class Copies:
    """Of one storage. They lie in this machine's folder, and may be deleted at any time."""

    def __init__(self, url: str) -> None:
        self._storage = hashlib.sha256(url.encode()).hexdigest()[:8]

    def folder(self, path: str, infos: Sequence[dict[str, Any]]) -> Path:
        """Where the copies lie of files in this state, as the storage describes them."""
        facts = [
            (info["name"], info["size"], [str(info.get(key)) for key in VERSIONS if info.get(key)][:1])
            for info in infos
        ]
        version = hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()[:12]
        return private_folder(machine_folder() / "copies") / self._storage / path / version

    def provide(
        self, path: str, infos: Sequence[dict[str, Any]], fetch: Callable[[dict[str, Any], Path], None]
    ) -> list[Path]:
        """The copies of these files; those that are missing or not whole are fetched, by one process at a time."""
        folder = self.folder(path, infos)
        targets = [folder / info["name"].rstrip("/").rsplit("/", 1)[-1] for info in infos]
        if all(map(_is_whole, targets, infos)):
            return targets
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for target, info in zip(targets, infos, strict=True):
                if _is_whole(target, info):
                    continue
                with publishing(target) as part:  # not synced: a copy that a crash cut short is fetched again
                    fetch(info, part)
        return targets

    def drop(self, path: str, infos: Sequence[dict[str, Any]]) -> None:
        folder = self.folder(path, infos)
        for info in infos:
            (folder / info["name"].rsplit("/", 1)[-1]).unlink(missing_ok=True)


def _is_whole(copy: Path, info: dict[str, Any]) -> bool:
    try:
        return copy.stat().st_size == int(info["size"])
    except FileNotFoundError:
        return False


class CopyingFiles(Files):
    """Files that are to be had as paths on this machine's disk as well."""

    @cached_property
    def _copies(self) -> Copies:
        return Copies(self.url)

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
