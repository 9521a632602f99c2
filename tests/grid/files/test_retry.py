"""A storage that fails for a while is waited for; one that refuses is not."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from grid.errors import StorageError
from grid.files import retry
from grid.files.retry import PATIENCE, passes, retried
from grid.store.store import Store


class Clock:
    """Time that passes in pauses alone."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def answered(status: int, code: str) -> OSError:
    """As s3fs tells of an answer."""
    cause = Exception(code)
    cause.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    error = OSError(errno.EIO, code)
    error.__cause__ = cause
    return error


def named(name: str, *bases: type[BaseException]) -> BaseException:
    return type(name, bases or (Exception,), {})()


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(getattr(errno, name), name) for name in ("EIO", "ESTALE", "ETIMEDOUT", "EBUSY", "EAGAIN")),
        *(ConnectionResetError(), ConnectionRefusedError(), TimeoutError()),
        *(answered(status, "x") for status in (429, 500, 502, 503, 504)),
        *(answered(503, "SlowDown"), answered(400, "RequestTimeout"), answered(409, "ConditionalRequestConflict")),
        *(named("EndpointConnectionError"), named("ReadTimeoutError", type("HTTPClientError", (Exception,), {}))),
    ],
    ids=repr,
)
def test_what_passes_by_itself(error: BaseException) -> None:
    assert passes(error)


@pytest.mark.parametrize(
    "error",
    [
        *(FileNotFoundError("gone"), FileNotFoundError(errno.ENOENT, "gone"), PermissionError(errno.EACCES, "no")),
        *(OSError(getattr(errno, name), name) for name in ("ENOSPC", "EROFS", "EDQUOT", "ENOTDIR", "EEXIST")),
        *(answered(404, "NoSuchBucket"), answered(403, "InvalidAccessKeyId"), answered(400, "EntityTooLarge")),
        *(answered(409, "BucketAlreadyExists"), answered(412, "PreconditionFailed"), answered(501, "NotImplemented")),
        *(named("NoCredentialsError"), named("SSLError", type("EndpointConnectionError", (Exception,), {}))),
        *(ValueError("of ours"), MemoryError()),
    ],
    ids=repr,
)
def test_what_does_not(error: BaseException) -> None:
    assert not passes(error)


def failing(times: int, error: Exception, then: Any = "done") -> Callable[[], Any]:
    left = iter([error] * times)

    def call() -> Any:
        for one in left:
            raise one
        return then

    return call


def test_pauses_grow_and_a_line_tells_of_each(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert retried(failing(5, OSError(errno.ESTALE, "stale")), what="s3://x/file") == "done"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 5
    assert "s3://x/file: OSError: [Errno 116] stale; try 2 in" in caplog.messages[0]
    for i, pause in enumerate(clock.pauses):
        assert 0.25 * 2**i <= pause <= 0.5 * 2**i


def test_pauses_are_not_the_same_for_all(clock: Clock) -> None:
    for _ in range(20):
        retried(failing(1, TimeoutError()), what="x")
    assert len(set(clock.pauses)) > 10


def test_patience_ends_after_two_minutes(clock: Clock) -> None:
    with pytest.raises(TimeoutError):
        retried(failing(10_000, TimeoutError("still")), what="x")
    assert PATIENCE - retry.LONGEST_PAUSE <= clock.now <= PATIENCE
    assert max(clock.pauses) <= retry.LONGEST_PAUSE
    assert len(clock.pauses) < 30


def test_what_is_refused_is_not_tried_again(clock: Clock) -> None:
    with pytest.raises(OSError, match="full"):
        retried(failing(1, OSError(errno.ENOSPC, "full")), what="x")
    assert clock.pauses == []


OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "read": lambda store: store.read("a/file"),
    "write": lambda store: store.write("a/file", b"12345"),
    "create": lambda store: store.create("a/new", b"1"),
    "exists": lambda store: store.exists("a/file"),
    "names": lambda store: store.names("a"),
    "size": lambda store: store.size("a/file"),
    "read_start": lambda store: store.read_start("a/file", 2),
    "remove": lambda store: store.remove("a/file"),
    "local_file": lambda store: store.local_file("a/file").read_bytes(),
    "local_folder": lambda store: (store.local_folder("a") / "file").read_bytes(),
}
FLAKY = ("cat_file", "pipe_file", "info", "ls", "rm_file", "get_file", "open")


class Flaky:
    """Before each thing that is asked of a file system it fails so many times; counts how often it did."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int, error: Exception) -> None:
        self.left, self.failures, self.error = times, 0, error
        for name in FLAKY:
            patch.setattr(MemoryFileSystem, name, self.instead_of(getattr(MemoryFileSystem, name)))

    def instead_of(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.left:
                self.left -= 1
                self.failures += 1
                raise self.error
            return method(*args, **kwargs)

        return call


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("KD_GRID_CACHE", str(tmp_path / "cache"))
    store = Store(f"memory://{tmp_path.name}")
    store.remove_folder("a")
    store.write("a/file", b"12345")
    return store


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_retried(
    operation: str, memory: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quiet = Store(f"memory://quiet-{tmp_path.name}")
    quiet.remove_folder("a")
    quiet.write("a/file", b"12345")
    expected = OPERATIONS[operation](quiet)
    flaky = Flaky(monkeypatch, 3, ConnectionResetError("by peer"))
    assert OPERATIONS[operation](memory) == expected
    assert flaky.failures == 3
    assert len(clock.pauses) == 3


def test_a_file_that_cannot_be_looked_at_is_not_said_to_be_missing(
    memory: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Flaky(monkeypatch, 10_000, TimeoutError("no answer"))
    with pytest.raises(StorageError, match=r"a/file: TimeoutError: no answer, for 120 s: launch again when it answers"):
        memory.exists("a/file")
    assert clock.now <= PATIENCE


def test_nfs_that_stalls_is_waited_for(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    store, replace, stalls = Store(str(tmp_path)), os.replace, iter([errno.ESTALE, errno.EIO])

    def stalling(source: str, target: str, **how: Any) -> None:
        for code in stalls:
            raise OSError(code, os.strerror(code))
        replace(source, target, **how)

    monkeypatch.setattr(os, "replace", stalling)
    store.write("a/file", b"1")
    assert len(clock.pauses) == 2
    assert store.names("a") == ["file"]
    assert store.read("a/file") == b"1"


def test_a_full_disk_is_named_with_the_way_out(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=rf"^{tmp_path}/a/file: No space left on device: free some, then launch"):
        Store(str(tmp_path)).write("a/file", b"1")
    assert clock.pauses == []
