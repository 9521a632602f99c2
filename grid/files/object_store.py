"""Of a storage by URL: writes that one of several succeeds with, and listings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import fsspec
from fsspec.asyn import sync
from fsspec.implementations.memory import MemoryFileSystem

from grid.contract.files.limits import answer_of

NONCE = "kd-grid-created-by"

_memory_lock = threading.Lock()


def put_new(fs: fsspec.AbstractFileSystem, full: str, data: bytes, nonce: str) -> bool:
    """Create a file unless there is one. nonce: of this caller and call, over all tries."""
    if isinstance(fs, MemoryFileSystem):
        return _create_memory(fs, full, data)
    on_s3 = "s3" in fs.protocol
    try:
        fs.pipe_file(full, data, mode="create", **({"Metadata": {NONCE: nonce}} if on_s3 else {}))
    except OSError as error:
        if not isinstance(error, FileExistsError) and (answer_of(error) or (0, ""))[0] != 412:
            raise
        return on_s3 and fs.metadata(full).get(NONCE) == nonce
    return True


def _create_memory(fs: MemoryFileSystem, full: str, data: bytes) -> bool:
    with _memory_lock:
        try:
            fs.info(full)
        except FileNotFoundError:
            fs.pipe_file(full, data)
            return True
        return False


def replaces_at_once(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether `put_instead` can be had: the others know no condition for a write that replaces."""
    return isinstance(fs, MemoryFileSystem) or "s3" in fs.protocol


def put_instead(
    fs: fsspec.AbstractFileSystem, full: str, data: bytes, nonce: str, is_meant: Callable[[], bool]
) -> bool:
    """Replace a file unless another has come in its place. is_meant: looks whether it is the one to replace. nonce: as
    `put_new` takes it."""
    if isinstance(fs, MemoryFileSystem):
        with _memory_lock:
            if not is_meant():
                return False
            fs.pipe_file(full, data)
            return True
    try:
        state = fs.info(full)["ETag"]
        # The state first: what was read is of that one, or of a later one, and then nothing is replaced.
        if is_meant():
            fs.pipe_file(full, data, IfMatch=state, Metadata={NONCE: nonce})
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if (answer_of(error) or (0, ""))[0] != 412:
            raise
    # As in `put_new`: the answer to the first of several tries may have been lost.
    return bool(fs.metadata(full).get(NONCE) == nonce)


def entries(fs: fsspec.AbstractFileSystem, full: str) -> list[dict[str, Any]]:
    """What lies in a folder, as fsspec lists it. Raises FileNotFoundError."""
    if "s3" in fs.protocol:
        # Its `ls` goes on to list the folder above, with all that is in it, where there is nothing.
        found = sync(fs.loop, fs._lsdir, full.rstrip("/"), refresh=True)
    else:
        found = fs.ls(full, detail=True, refresh=True)
    # Object stores have empty objects in place of folders, the folder itself among them.
    return [entry for entry in found if entry["name"].rstrip("/") != full.rstrip("/")]
