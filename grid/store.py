"""Where results live: a folder or a URL, through fsspec. Every file is published whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from grid.errors import UserError, one_line
from grid.identity import canonical_json
from grid.plan import LogitsStage, Stage
from grid.records import Record, RecordError, record_from_json

log = logging.getLogger("kd_grid")

RECORD = "record.json"
FAILURE = "failure.json"
TRACEBACK = "failure.txt"
IDENTITY = "identity.json"
CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
CURVE = "curve.parquet"
PROGRESS = "progress.json"

NONCE = "kd-grid-created-by"
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_memory_lock = threading.Lock()


class IdentityMismatchError(UserError):
    """What lies under an id was computed from something else."""


class Store:
    """Files under one root. Paths given to its methods are relative, with forward slashes.

    A write is atomic: local files are written beside their place, synced and renamed; object stores publish a
    finished upload. A reader never sees half a file.
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(os.path.expanduser(url))
        except (ValueError, ImportError) as error:
            raise UserError(f"--storage {url}: {error}") from None
        self._local = isinstance(self._fs, LocalFileSystem)
        self.url = self._root if self._local else url
        self._warned_of: set[str] = set()

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.url,))

    @property
    def is_local(self) -> bool:
        return self._local

    def location(self, path: str) -> str:
        """Where a relative path lies, for people and for messages."""
        return f"{self.url.rstrip('/')}/{path}"

    def _full(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} leaves the storage")
        return f"{self._root.rstrip('/')}/{path}"

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self._full(path)))

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        data: bytes = self._fs.cat_file(self._full(path))
        return data

    def write(self, path: str, data: bytes) -> None:
        """Publish a file atomically, replacing any."""
        full = self._full(path)
        if not self._local:
            self._fs.pipe_file(full, data)
            self.drop_copy(path)
            return
        with _finished(full, data) as temporary:
            os.replace(temporary, full)

    def create(self, path: str, data: bytes) -> bool:
        """Publish a file unless there is one: of many that race, on any machine, exactly one is told True.

        On a local disk without hard links a reader may see the file while it is being written.
        """
        full = self._full(path)
        if self._local:
            return _create_local(full, data)
        return _create_memory(self._fs, full, data) if isinstance(self._fs, MemoryFileSystem) else self._put(full, data)

    def _put(self, full: str, data: bytes) -> bool:
        # The client sends a request again whose answer was lost: whether the file is that of the first try is on it.
        nonce = uuid.uuid4().hex
        on_s3 = "s3" in self._fs.protocol
        try:
            self._fs.pipe_file(full, data, mode="create", **({"Metadata": {NONCE: nonce}} if on_s3 else {}))
        except OSError as error:
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if not isinstance(error, FileExistsError) and code != "PreconditionFailed":
                raise
            return on_s3 and self._fs.metadata(full, refresh=True).get(NONCE) == nonce
        return True

    def remove(self, path: str) -> None:
        """Remove a file; one that is already gone is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all that is in it, and its parent if that is then empty; best effort."""
        full = self._full(path)
        with contextlib.suppress(Exception):  # left-overs harm nobody, and each backend has errors of its own
            self._fs.rm(full, recursive=True)
            if not self._fs.ls(full.rsplit("/", 1)[0], detail=False):
                self._fs.rmdir(full.rsplit("/", 1)[0])

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        try:
            entries = self._fs.ls(self._full(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def size(self, path: str) -> int:
        """In bytes. Raises FileNotFoundError."""
        return int(self._fs.size(self._full(path)))

    def read_start(self, path: str, count: int) -> bytes:
        """A file's first bytes. Raises FileNotFoundError."""
        with self._fs.open(self._full(path), "rb") as file:
            data: bytes = file.read(count)
        return data

    def local_file(self, path: str) -> Path:
        """A file on this machine's disk: itself, or a copy made once per machine. Raises FileNotFoundError."""
        if self._local:
            return Path(self._full(path))
        target = self._copy(path)
        if not target.exists():
            data = self.read(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            part.write_bytes(data)
            part.replace(target)
        return target

    def local_folder(self, folder: str) -> Path:
        """A folder's files on this machine's disk, as `local_file`."""
        if not self._local:
            for name in self.names(folder):
                self.local_file(f"{folder}/{name}")
            return self._copy(folder)
        return Path(self._full(folder))

    def drop_copy(self, path: str) -> bool:
        """Remove this machine's copy of a file, so that it is fetched anew; False where the file itself lies here."""
        if not self._local:
            self._copy(path).unlink(missing_ok=True)
        return not self._local

    def _copy(self, path: str) -> Path:
        storage = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"kd-grid-cache-{os.getuid()}" / storage / path

    def check_writable(self) -> None:
        """Write, read and remove a probe. Raises UserError saying what failed."""
        probe = f"probe-{uuid.uuid4().hex[:8]}"
        try:
            self.write(probe, b"probe")
            back = self.read(probe)
            self.remove(probe)
        except Exception as error:  # each backend has exceptions of its own; all mean the same to the user
            reason = getattr(error, "strerror", None) or one_line(error)
            raise UserError(f"--storage {self.url}: cannot be written: {reason}") from None
        if back != b"probe":
            raise UserError(f"--storage {self.url}: what is written there does not come back the same")

    # What the store knows of stages.

    def claim(self, stage: Stage) -> None:
        """Put the stage's canonical payload beside its outputs, or compare it with the one that is there.

        Raises IdentityMismatchError where another payload lies under the same id.
        """
        path = f"{stage.folder}/{IDENTITY}"
        payload = canonical_json(stage.payload).encode()
        try:
            found = self.read(path)
        except FileNotFoundError:
            self.write(path, payload)
            return
        if found != payload:
            raise IdentityMismatchError(
                f"{self.location(path)}: holds another computation than the one asked for under the same id; move that "
                "folder away, or use another --storage"
            )

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage's outputs are complete. Raises as `claim` and `record` do."""
        if not self.exists(f"{stage.folder}/{RECORD}"):
            return False
        self.claim(stage)
        return not isinstance(stage, LogitsStage) or self.covers(stage)

    def covers(self, stage: LogitsStage) -> bool:
        """Whether the stored logits are all that are asked for, and of the teacher as it is now."""
        if not self.exists(f"{stage.teacher.folder}/{RECORD}"):
            return False
        if self.record(stage)["teacher_sha256"] != self.record(stage.teacher)["weights_sha256"]:
            if stage.id not in self._warned_of:
                self._warned_of.add(stage.id)
                log.warning("%s: made by another training of its teacher; computed again", self.location(stage.folder))
            return False
        return {unit.file for unit in stage.units} <= set(self.names(stage.folder))

    def record(self, stage: Stage) -> Record:
        """A done stage's record. Raises UserError where it cannot be read."""
        path = f"{stage.folder}/{RECORD}"
        try:
            return record_from_json(self.read(path))
        except RecordError as error:
            raise UserError(f"{self.location(path)}: {error}; remove that folder to have it computed again") from None

    def failure(self, stage: Stage, *, launch: str) -> Record | None:
        """The stage's failure in this launch, None where it left none that can be read."""
        try:
            record = record_from_json(self.read(f"{stage.folder}/{FAILURE}"))
        except (OSError, RecordError):
            return None
        return record if record["launch"] == launch else None


@contextlib.contextmanager
def _finished(full: str, data: bytes) -> Iterator[str]:
    """A temporary file beside its place, written and synced; removed at the end if it is still there."""
    Path(full).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{full}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def _create_local(full: str, data: bytes) -> bool:
    with _finished(full, data) as temporary:
        try:
            os.link(temporary, full)
        except FileExistsError:
            return os.stat(temporary).st_nlink == 2  # over NFS the answer to the link that was made can be lost
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            return True
    try:
        descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BaseException:
        Path(full).unlink(missing_ok=True)
        raise
    return True


def _create_memory(fs: MemoryFileSystem, full: str, data: bytes) -> bool:
    with _memory_lock:
        if fs.exists(full):
            return False
        fs.pipe_file(full, data)
        return True
