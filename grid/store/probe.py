"""Whether a storage can be used, found out before anything runs, within seconds."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import TypeVar

from grid.errors import UserError
from grid.files.connect import PROBE, reason_of
from grid.files.files import Files
from grid.files.retry import PROBE_PATIENCE

# Kinds of storage that fsspec knows and a grid cannot run on.
UNFIT = {
    "memory": "one process alone would see what it holds",
    **dict.fromkeys(("data", "git", "gist", "github", "http", "https", "tar", "zip"), "cannot be written"),
    **dict.fromkeys(
        ("dropbox", "ftp", "gdrive", "sftp", "smb", "ssh", "webdav"), "cannot tell which of two launches was first"
    ),
}

T = TypeVar("T")


def probing(url: str) -> Files:
    """Files that wait for nobody for long."""
    return Files(url, waits=PROBE, patience=PROBE_PATIENCE, level=logging.DEBUG)


def check_writable(storage: Files) -> None:
    """Write, read and remove a probe. Raises UserError saying what failed."""
    name = f"probe-{uuid.uuid4().hex[:8]}"

    def write(probe: Files) -> bytes:
        probe.write(name, b"probe")
        back = probe.read(name)
        probe.remove(name)
        return back

    if _tried(storage, write, "written") != b"probe":
        raise UserError(f"--storage {storage.url}: what is written there does not come back the same")


def check_readable(storage: Files) -> None:
    """Raises UserError where nobody answers or nothing may be read; it may be empty."""
    _tried(storage, lambda probe: probe.exists("probe"), "read")


def check_fit(storage: Files) -> None:
    """Raises UserError for a kind of storage that a grid cannot run on."""
    for kind in storage.kinds:
        if kind in UNFIT:
            raise UserError(
                f"--storage {storage.url}: {UNFIT[kind]}: give a folder that all nodes see, or s3:// or gs://"
            )


def _tried(storage: Files, call: Callable[[Files], T], how: str) -> T:
    try:
        return call(probing(storage.url))
    except Exception as error:  # each backend has exceptions of its own; all mean the same to the user
        raise UserError(f"--storage {storage.url}: cannot be {how}: {reason_of(error)}") from None
