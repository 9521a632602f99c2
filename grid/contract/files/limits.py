"""How large a file of a storage can be, so that no command reads whatever somebody put in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grid.contract.files.layout import PLAN
from grid.contract.files.local_files import too_large

# Records, failures, progress, leases, identities, facts of a data set: a few thousand bytes each.
SMALL = 2**20
# A plan takes some 500 bytes a cell, a curve some 100 an epoch: half a million cells, or two million epochs.
LARGE = 2**28
LISTS = (PLAN, "written.json", "written.jsonl")


def size_limit(path: str) -> int | None:
    """In bytes; None for weights, checkpoints, logits and images, whose size the grid decides."""
    name = path.rpartition("/")[2]
    if name in LISTS or name.endswith(".parquet"):
        return LARGE
    return SMALL if name.endswith(".json") else None


def read_capped(cat_file: Callable[..., bytes], place: str, limit: int | None) -> bytes:
    """A file behind a URL, by fsspec's `cat_file`, in one request. Raises OddFileError where it is larger."""
    if limit is None:
        return cat_file(place)
    data = read_start(cat_file, place, limit + 1)
    if len(data) > limit:
        raise too_large(limit)
    return data


def read_start(cat_file: Callable[..., bytes], place: str, count: int) -> bytes:
    """The first bytes of a file behind a URL."""
    try:
        return cat_file(place, start=0, end=count)
    except OSError as error:
        if not has_no_range(error):
            raise
        return b""


def has_no_range(error: BaseException) -> bool:
    """Whether this is how a storage says that a file from which the first bytes were asked for is empty."""
    return (answer_of(error) or (0, ""))[0] == 416


def answer_of(error: BaseException) -> tuple[int, str] | None:
    """The HTTP status and the code that a storage answered with; None where it did not answer, or has no HTTP."""
    for one in (error, error.__cause__):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):  # botocore's
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return int(status), str(response.get("Error", {}).get("Code", ""))
        status = getattr(one, "status", None) or getattr(one, "code", None)  # aiohttp's, gcsfs's
        if isinstance(status, int) and 100 <= status < 600:
            return status, ""
    return None
