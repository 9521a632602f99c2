"""Files on a local disk or NFS, published whole: finished and synced beside their place, then put there at once."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


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


def write_local(full: str, data: bytes) -> None:
    with _finished(full, data) as temporary:
        os.replace(temporary, full)


def create_local(full: str, data: bytes) -> bool:
    with _finished(full, data) as temporary:
        try:
            os.link(temporary, full)
        except OSError as error:
            if os.stat(temporary).st_nlink == 2:
                return True  # over NFS the answer to the link that was made can be lost
            if isinstance(error, FileExistsError):
                return False
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
