"""Files below a root on a local disk or NFS: published whole, and read only where they are files.

Whoever may write to a storage must not choose which other file of the user's is written, or have a program wait for
ever. So the last name of a path is never written through a link, a folder below the root is entered through a link only
where the link is the user's own or root's (a data folder that was put on another disk still works; a stranger's link
would lead wherever the stranger likes), and only regular files are read. The root itself may be any link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

PIECE = 2**26  # bytes read at a time

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
}


class OddFileError(OSError):
    """What lies in a file's place must not be read or written; strerror says what it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)


def check_link(link: os.stat_result, place: str) -> None:
    """Raises OddFileError for a link that is neither the user's own nor root's."""
    if link.st_uid not in (os.geteuid(), 0):
        raise OddFileError(
            f"{place} is a link that user {link.st_uid} made, which is not followed: replace it by a folder or a file, "
            "or by a link of your own"
        )


def _enter(at: int, name: str, place: str, *, make: bool) -> int:
    """A descriptor of the folder `name` in the folder `at`."""
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=at)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        there = os.stat(name, dir_fd=at, follow_symlinks=False)
        if not stat.S_ISLNK(there.st_mode):
            raise
        check_link(there, place)
        return os.open(name, _FOLDER, dir_fd=at)


@contextlib.contextmanager
def _folder_of(root: str, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that a file lies in, and the file's name there. Each folder is opened from the one
    before, so that none can be exchanged for a link between a check and its use."""
    *folders, name = [part for part in path.split("/") if part not in ("", ".")]
    if make:
        Path(root or "/").mkdir(parents=True, exist_ok=True)
    at, place = os.open(root or "/", _FOLDER), root
    try:
        for folder in folders:
            place = f"{place}/{folder}"
            inner = _enter(at, folder, place, make=make)
            os.close(at)
            at = inner
        yield at, name
    finally:
        os.close(at)


@contextlib.contextmanager
def _finished(at: int, name: str, data: bytes) -> Iterator[str]:
    """A temporary file beside its place, written and synced; removed at the end if it is still there."""
    temporary = f"{name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o666, dir_fd=at), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=at)


def write_local(root: str, path: str, data: bytes) -> None:
    """Publish the file `path` below `root`, replacing whatever lies there; a link is replaced, not followed."""
    with _folder_of(root, path, make=True) as (at, name), _finished(at, name, data) as temporary:
        os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)


def create_local(root: str, path: str, data: bytes) -> bool:
    """Publish a file unless something lies there: of many that race, exactly one is told True."""
    with _folder_of(root, path, make=True) as (at, name):
        with _finished(at, name, data) as temporary:
            try:
                os.link(temporary, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            except OSError as error:
                if os.stat(temporary, dir_fd=at, follow_symlinks=False).st_nlink == 2:
                    return True  # over NFS the answer to the link that was made can be lost
                if isinstance(error, FileExistsError):
                    return False
                if error.errno not in NO_LINKS:
                    raise
            else:
                return True
        try:
            descriptor = os.open(name, _NEW, 0o666, dir_fd=at)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=at)
            raise
        return True


def move_local(root: str, path: str, name: str) -> None:
    """Give whatever lies at `path` another name in its folder. Raises FileNotFoundError."""
    with _folder_of(root, path, make=False) as (at, old):
        os.rename(old, name, src_dir_fd=at, dst_dir_fd=at)


def sizes_local(root: str, path: str) -> dict[str, int]:
    """The size in bytes of whatever lies in a folder, by name, links followed. Raises FileNotFoundError."""
    sizes = {}
    with os.scandir(os.path.join(root or "/", path)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone since, or a link to nothing
                sizes[entry.name] = entry.stat().st_size
    return sizes


def remove_local(root: str, path: str) -> None:
    """Raises FileNotFoundError."""
    with _folder_of(root, path, make=False) as (at, name):
        os.unlink(name, dir_fd=at)


def make_folder(root: str, path: str) -> None:
    """Make the folder `path` below `root` unless it is there, for a library that writes into it by itself."""
    with _folder_of(root, path, make=True) as (at, name):
        os.close(_enter(at, name, f"{root}/{path}", make=True))


def open_to_append(root: str, path: str) -> int:
    """A descriptor of a file that grows. Raises OddFileError for a link, a second name of another file, and whatever is
    no regular file."""
    with _folder_of(root, path, make=True) as (at, name):
        try:
            descriptor = os.open(name, _APPEND, 0o666, dir_fd=at)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a pipe that nobody reads
                raise
            kind = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            raise OddFileError(f"is {_kind(kind)}, which nothing is written to: remove it") from None
    try:
        there = os.fstat(descriptor)
        if not stat.S_ISREG(there.st_mode):
            raise OddFileError(f"is {_kind(there.st_mode)}, which nothing is written to: remove it")
        if there.st_nlink > 1:
            raise OddFileError("has a second name elsewhere (a hard link), so nothing is written to it: remove it")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_local(full: str, limit: int | None = None) -> bytes:
    """A regular file's bytes; a link to one is followed. limit: the most that such a file can hold.

    Raises FileNotFoundError, and OddFileError at once for a pipe or a device, and for what is larger.
    """
    with _opened(full) as (descriptor, size):
        if limit is not None and size > limit:
            raise too_large(limit)
        parts, total = [], 0
        # Beyond the size that is said, too: the file may grow, and some file systems know no sizes.
        while part := os.read(descriptor, min(size + 1 - total, PIECE) if total <= size else PIECE):
            parts.append(part)
            total += len(part)
            if limit is not None and total > limit:
                raise too_large(limit)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def read_local_start(full: str, count: int) -> bytes:
    """A regular file's first bytes. Raises as `read_local` does."""
    with _opened(full) as (descriptor, _):
        return os.read(descriptor, count)


def check_regular(full: str) -> None:
    """Raises FileNotFoundError, and OddFileError for a pipe or a device: what opens it next would wait or never end."""
    with _opened(full):
        pass


def too_large(limit: int) -> OddFileError:
    return OddFileError(f"is larger than {limit / 2**20:.0f} MiB, which no file of its kind is")


@contextlib.contextmanager
def _opened(full: str) -> Iterator[tuple[int, int]]:
    descriptor = os.open(full, _READ)
    try:
        there = os.fstat(descriptor)
        if stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), full)
        if not stat.S_ISREG(there.st_mode):
            raise OddFileError(f"is {_kind(there.st_mode)}, not a regular file")
        yield descriptor, there.st_size
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")
