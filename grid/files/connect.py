"""The file system of a storage, as fsspec connects to it."""

from __future__ import annotations

import os
from typing import Any

import fsspec

from grid.contract.credentials import redacted
from grid.contract.program.imports import STORAGE_MODULES, broken
from grid.contract.program.installed import storage_hint
from grid.errors import StorageError, UserError, one_line

# Seconds to connect, and without a byte.
STEADY, PROBE = (5, 30), (4, 8)


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
