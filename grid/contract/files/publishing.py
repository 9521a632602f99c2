"""Files and folders of this user's own, published whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """A path beside `target` for a file or a folder that a library writes, or that is written in pieces. At the end it
    takes the target's place, whole; after an exception it is removed.

    For this user's own folders and for what can be fetched or made again: unlike `local_files.write_local` this follows
    links on the way, and does not wait for the disk.
    """
    part = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}.tmp")  # a name of 255 bytes leaves no room
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                part.unlink()
        raise
