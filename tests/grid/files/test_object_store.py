"""What an object store alone can do to a grid: other processes' writes, failing for a while, refusing, being away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import launch
from grid.errors import StorageError, UserError
from grid.files import files, retry
from grid.files.object_store import NONCE
from grid.plan import Plan
from grid.store import probe
from grid.store.lease import Leases
from grid.store.probe import check_writable
from grid.store.store import Store
from grid.work.execute import Runtime, execute
from grid.work.training import run_trainable
from tests.conftest import tiny_grid
from tests.grid.running import prepare
from tests.launching import ROOT, write_grid
from tests.object_store import BUCKET, LOST, NO_SUCH_KEY_ID, ObjectStore, as_environment, first


@pytest.fixture
def store(s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("KD_GRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def elsewhere(store: Store, code: str) -> None:
    """Run with the same storage in another process."""
    script = f"from grid.store.store import Store; store = Store({store.url!r}); {code}"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_what_another_process_writes_is_seen_at_once(store: Store) -> None:
    """Everything is asked before, so that whatever could remember an answer has one."""
    store.write("a/old", b"1")
    store.write("a/gone", b"1")
    assert store.names("a") == ["gone", "old"]
    assert store.names("") == ["a"]
    assert not store.exists("a/new")
    assert store.local_file("a/old").read_bytes() == b"1"
    assert (store.local_folder("a") / "old").read_bytes() == b"1"
    elsewhere(store, "store.write('a/new', b'12345'); store.write('a/old', b'222'); store.remove('a/gone')")
    assert store.names("a") == ["new", "old"]
    assert store.exists("a/new")
    assert not store.exists("a/gone")
    assert store.size("a/new") == 5
    assert store.read_start("a/new", 2) == b"12"
    assert store.size("a/old") == 3
    assert store.read("a/old") == b"222"
    assert store.local_file("a/old").read_bytes() == b"222"
    assert {p.name for p in store.local_folder("a").iterdir()} == {"new", "old"}
    assert not store.create("a/new", b"1")


def test_a_cell_takes_few_requests(
    store: Store, s3: ObjectStore, tiny_plan: Callable[..., Plan], runtime: Runtime
) -> None:
    """Of a distilled cell, in a process that has done another: they are what hundreds of cells cost."""
    plan = tiny_plan(seeds=[0, 1])
    prepare(plan, store, runtime)
    first_one, cell = [cell for cell in plan.cells if cell.logits is not None][:2]
    leases = Leases(store, "launch-1")
    for stage in (first_one, cell):
        before = len(s3.seen)
        lease = leases.take(stage.folder)
        assert lease is not None
        with lease:
            work = partial(run_trainable, stage, store, runtime, holds=lease.holds, found=lease.found)
            assert execute(stage, store, runtime, work, holds=lease.holds) is None
    told = s3.seen[before:]
    kinds = Counter("LIST" if "list-type" in request else request.partition(" ")[0] for request in told)
    # Written: lease, identity, weights, curve, predictions, record. Listed: the cell thrice, its data set and the
    # logits. Read: the teacher's record.
    # A checkpoint of seconds of work is not written.
    assert kinds == {"PUT": 6, "LIST": 5, "GET": 1, "DELETE": 1}, "\n".join(told)
    assert store.is_done(cell)


def test_threads_and_a_forked_process_share_a_store(store: Store) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(5):
            store.write(f"t/{number}-{turn}", b"%d" % number)
            if store.read(f"t/{number}-{turn}") != b"%d" % number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(store.names("t")) == 30
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read("t/3-0") == b"3" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_busy_storage_is_waited_for(store: Store, s3: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    with s3.failing(first(5)):
        store.write("a/file", b"1")
    with s3.failing(first(5)):
        assert store.read("a/file") == b"1"
    with s3.failing(first(5)):
        assert store.exists("a/file")
    with s3.failing(first(5)):
        assert store.create("a/new", b"1")
    with s3.failing(first(5)):
        assert store.names("a") == ["file", "new"]
    assert "a/file: OSError: [Errno 16] Please reduce your request rate.; try 2 in" in caplog.text


def test_a_client_does_not_multiply_the_waits(store: Store, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request a try: botocore's five of its own, in s3fs's five, would make minutes of each."""
    tries: list[float] = []

    def once(call: Any, **_: Any) -> Any:
        tries.append(1)
        return call()

    monkeypatch.setattr(files, "retried", once)
    before = len(s3.seen)
    with s3.failing(first(10**6)), pytest.raises(StorageError, match="launch again when it answers"):
        store.write("a/file", b"1")
    assert len(s3.seen) - before == len(tries) == 1


def test_what_lies_in_a_folder_is_one_request(s3: ObjectStore) -> None:
    """Of an empty one too: what lies beside it may be thousands of stages."""
    store = Store(f"s3://{BUCKET}/runs")
    store.write("cells/a/record.json", b"{}")
    before = len(s3.seen)
    assert store.names("cells/a") == ["record.json"]
    assert store.sizes("cells/b") == {}
    assert len(s3.seen) - before == 2


def test_what_is_refused_is_not_tried_again(store: Store, s3: ObjectStore) -> None:
    before = len(s3.seen)
    with (
        s3.failing(first(10**6, NO_SUCH_KEY_ID)),
        pytest.raises(PermissionError, match="does not exist in our records"),
    ):
        store.write("a/file", b"1")
    assert len(s3.seen) - before == 1


def test_a_file_is_created_though_the_answer_is_lost(store: Store, s3: ObjectStore) -> None:
    with s3.failing(first(1, LOST)):
        assert store.create("lease", b"ours")
    assert store.read("lease") == b"ours"
    assert store._fs.metadata(f"{store._root}/lease").keys() == {NONCE}
    assert not store.create("lease", b"theirs")


def test_a_large_file_is_published_whole(store: Store, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, each of which may have to be sent again; until the last is there, the old file is."""
    from s3fs import S3FileSystem

    send, part = S3FileSystem._pipe_file, 5 * 2**20

    async def in_small_parts(self: Any, path: str, data: bytes, **options: Any) -> Any:
        return await send(self, path, data, chunksize=part, **options)

    monkeypatch.setattr(S3FileSystem, "_pipe_file", in_small_parts)
    store = Store(store.url)
    store.write("big", b"old")
    seen: list[bytes] = []
    broken = first(1)

    def fault(environ: dict[str, Any]) -> Any:
        if "partNumber=2" not in environ["QUERY_STRING"]:
            return None
        if not seen:
            seen.append(b"asked")
            elsewhere(store, "assert store.read('big') == b'old'; assert store.names('') == ['big']")
        return broken(environ)

    data = os.urandom(2 * part + 1)
    before = len(s3.seen)
    with s3.failing(fault):
        store.write("big", data)
    assert seen == [b"asked"]
    assert sum("partNumber=" in request for request in s3.seen[before:]) >= 4
    assert store.size("big") == len(data)
    assert store.read("big") == data


def refused(storage: str, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Launch there, expect bad input before any work, return the one line."""
    path = write_grid(folder, tiny_grid())
    assert launch.main(["--grid", path, "--storage", storage, *more]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"error: --storage {storage}: ")
    return told.err


def test_a_bucket_that_is_not_there(s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused("s3://bucket-of-nobody/kd", tmp_path, capsys)
    assert "cannot be written: FileNotFoundError: The specified bucket does not exist" in line


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_wrong_credentials(
    s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    with s3.failing(first(10**6, NO_SUCH_KEY_ID)):
        line = refused(f"s3://{BUCKET}/kd", tmp_path, capsys, *more)
    assert "PermissionError: " in line


def test_no_credentials(s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "Unable to locate credentials" in refused(f"s3://{BUCKET}/kd", tmp_path, capsys)


def test_an_endpoint_that_nobody_answers_at(
    s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing listens, and where what listens says nothing. The waits are seconds; here they are less."""
    assert sum(probe.PROBE) + probe.PROBE_PATIENCE < 30
    monkeypatch.setattr(probe, "PROBE", (0.5, 0.5))
    monkeypatch.setattr(probe, "PROBE_PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with as_environment(s3, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}"):
            assert "cannot be written: ReadTimeoutError: " in refused(f"s3://{BUCKET}/kd", tmp_path, capsys)
            assert "cannot be read: ReadTimeoutError: " in refused(f"s3://{BUCKET}/kd", tmp_path, capsys, "--dry-run")
    with as_environment(s3, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}"):
        line = refused(f"s3://{BUCKET}/kd", tmp_path, capsys)
    assert f'EndpointConnectionError: Could not connect to the endpoint URL: "http://127.0.0.1:{port}' in line


def test_the_package_that_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, "s3", raising=False)
    for package in ("s3fs", "aiobotocore.session"):
        monkeypatch.setitem(sys.modules, package, None)
    assert "pip install -e '.[s3]'" in refused(f"s3://{BUCKET}/kd", tmp_path, capsys)
    from analysis.cli import main

    assert main(["table", "--storage", f"s3://{BUCKET}/kd"]) == 2
    assert "pip install -e '.[s3]'" in capsys.readouterr().err


def test_a_read_only_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    root = os.geteuid() == 0
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=rf"^--storage {folder}: cannot be written: Permission denied$"):
            check_writable(Store(str(folder)))
    finally:
        if root:
            os.seteuid(0)


def test_a_path_below_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written: Not a directory" in refused(str(tmp_path / "file" / "runs"), tmp_path, capsys)


@pytest.mark.parametrize("url", ["s3://KEY:hunter2/x@bucket/kd", "ftp://me:hunter2@host/kd", "s3://b/kd?token=hunter2"])
def test_credentials_in_a_url_are_refused_and_not_repeated(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["--grid", write_grid(tmp_path, tiny_grid()), "--storage", url]) == 2
    told = capsys.readouterr()
    assert "which plans and logs would show" in told.err
    assert told.err.count("\n") == 1
    assert "hunter2" not in told.err + told.out
