"""What each stage does, in plain Python, free of Ray. `execute` is the edge at which errors become records."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import logging
import os
import platform
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol

import numpy as np
import torch

from grid.contract.credentials import redacted
from grid.contract.layout import FAILURE, PROGRESS, RECORD
from grid.contract.record import SUMS, hashed_name
from grid.errors import UserError, one_line
from grid.plan import DatasetStage, LogitsStage, Stage
from grid.private import use_private_compiler_caches
from grid.read.datasets import source_of
from grid.store.failures import record_failure
from grid.store.lease import LOOK_SECONDS, Leases
from grid.store.records import Value, make_record, now
from grid.store.store import CHECKPOINT, TRACEBACK, Store
from grid.work.prepared import open_prepared
from grid.work.results import provenance
from grid.work.stall import watched
from grid.work.teacher_logits import LogitsCache
from kd.data.dataset import MADE_AGAIN, Dataset, meta_to_json, prepare
from kd.data.sources import DatasetError
from kd.machine.workers import WHOLE, Shard
from kd.train import StoppedError

log = logging.getLogger("kd_grid")

PROGRESS_SECONDS = 1.0
RECORD_SECONDS = 60.0


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage runs: facts that go on its record and never into its id. stop: the file on the storage
    that tells the launch's stages to save what they have and leave. tries: how often the launch has begun the stage."""

    threads: int = 1
    device: str = "cpu"
    launch: str = ""
    code_version: str = "unknown"
    checkpoint_minutes: float = 10.0
    stall_minutes: float = 60.0
    deterministic: bool = False
    stop: str = ""
    tries: int = 1

    @classmethod
    def here(cls, *, threads: int, device: str | None = None, **facts: Any) -> Runtime:
        """The given device, or the first GPU this process may use, or the CPU with so many threads; sets torch up."""
        runtime = cls(threads=threads, device=device or ("cuda" if torch.cuda.is_available() else "cpu"), **facts)
        torch.set_num_threads(threads)
        use_private_compiler_caches()
        if runtime.deterministic and runtime.device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants it before its first call
        torch.use_deterministic_algorithms(runtime.deterministic and runtime.device != "cpu")
        return runtime

    def provenance(self) -> dict[str, Value]:
        return {"launch": self.launch, "code_version": self.code_version, "tries": self.tries}


class Holds(Protocol):
    """Whether a stage is still this launch's, as `Lease.holds`."""

    def __call__(self, names: Sequence[str] | None = None) -> bool: ...


def always(names: Sequence[str] | None = None) -> bool:
    """What is asked of the lease of a stage that nobody else can be at."""
    return True


def leave_process(error: str) -> None:
    """A worker that hangs ends: Ray gives its place to another, which finds the failure recorded."""
    os._exit(1)


def execute(
    stage: Stage,
    store: Store,
    runtime: Runtime,
    run: Callable[[], None],
    *,
    holds: Holds = always,
    on_stall: Callable[[str], None] = leave_process,
) -> str | None:
    """Run a stage's work; an error is logged, recorded as the stage's failure and returned as one line. Where it hangs
    that is recorded too, and on_stall is told, from another thread. holds: whether the stage is still this launch's;
    where it is not, an error is logged alone. Raises StoppedError then."""

    def stalled(error: str, stack: str) -> None:
        def write() -> None:
            if holds():  # a process that was stopped for that long finds itself taken over
                record_failure(stage, store, error, launch=runtime.launch, trace=f"{error}\n\n{stack}")

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(RECORD_SECONDS)  # the storage may be what hangs
        on_stall(error)

    try:
        with watched(runtime.stall_minutes, stalled):
            store.claim(stage, is_new=True)
            run()
    except Exception as error:  # the one place that catches: whatever went wrong belongs on the stage's record
        line = one_line(error)
        if not holds():
            log.warning("stage %s, which another launch has taken over: %s", stage.id, line)
            raise StoppedError from error
        record_failure(stage, store, line, launch=runtime.launch, trace=redacted(traceback.format_exc()))
        return line
    return None


def free_gpu() -> None:
    """Between the stages of a process: the next one must find the memory free."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def prepare_dataset(stage: DatasetStage, store: Store, runtime: Runtime, *, holds: Holds = always) -> None:
    """Read and split the images and publish them as arrays. holds: as `publish`."""
    started = time.perf_counter()
    spec = stage.dataset
    meta, arrays = prepare(
        source_of(spec),
        spec.info,
        train_size=spec.train_size,
        val_size=spec.val_size,
        test_size=spec.test_size,
        split_seed=spec.split_seed,
    )
    files: dict[str, Callable[[], bytes]] = {f"{name}.npy": partial(_npy, array) for name, array in arrays.items()}
    files["dataset.json"] = meta_to_json(meta).encode
    sizes, left_over = {}, store.left_over(stage)
    for name, made in files.items():
        data = made()
        _check_held(stage, store, holds)
        store.write(f"{stage.folder}/{name}", data)
        sizes[name] = len(data)
    seconds = time.perf_counter() - started
    values = stage.axes() | runtime.provenance() | {"dataset_fingerprint": meta.fingerprint, "seconds_total": seconds}
    publish(stage, store, values, sizes=sizes, left_over=left_over, holds=holds)


def opened(stage: DatasetStage, store: Store, runtime: Runtime) -> Dataset:
    """The prepared images; where their files are not what was prepared, they are prepared again, once for all that open
    them. Raises DatasetError that says why they cannot be prepared here."""
    try:
        return open_prepared(stage, store)
    except DatasetError as error:
        problem = str(error).removesuffix(MADE_AGAIN)
        log.warning("%s; it is prepared again", problem)
    # A name of its own, for a launch's own leases are taken over.
    leases = Leases(store, f"{runtime.launch} {uuid.uuid4().hex[:8]}")
    while (lease := leases.take(stage.folder)) is None:
        time.sleep(LOOK_SECONDS * store.slowness)
    with lease:
        with contextlib.suppress(DatasetError):
            return open_prepared(stage, store)  # another has done it
        if store.is_done(stage):
            store.condemn(stage, "dataset.json: its images, or these facts of them, are not what was prepared")
        try:
            prepare_dataset(stage, store, runtime, holds=lease.holds)
        except (DatasetError, UserError, OSError) as error:
            raise DatasetError(
                f"{problem}; it cannot be prepared again here ({one_line(error)}): launch the grid again where its "
                "images are"
            ) from error
    return open_prepared(stage, store)


def run_logits(
    stage: LogitsStage,
    store: Store,
    runtime: Runtime,
    *,
    leave: Callable[[], bool] = lambda: False,
    holds: Holds = always,
    shard: Shard = WHOLE,
) -> None:
    """Compute what is missing of a teacher's logits; the first worker then publishes the record, as `publish`. Raises
    StoppedError once leave() says so, between two files."""
    started_at, started, left_over = now(), time.perf_counter(), store.left_over(stage)
    device = torch.device(runtime.device)
    dataset = opened(stage.teacher.data, store, runtime)
    cache = LogitsCache(stage, store, dataset, device)
    progress = Progress(stage, store, total=len(stage.units))
    first = shard.rank == 0

    def on_stored(units: int) -> None:
        if first:
            progress.report(units)
        if leave():
            raise StoppedError

    cache.make_all(part=shard.rank, parts=shard.world, on_stored=on_stored)
    if shard.rank != 0:
        return
    for name in dataset.evaluated:
        cache.make_plain(name)
    seconds = time.perf_counter() - started
    values = stage.axes() | {
        "epochs": max(stage.epochs),
        "started_at": started_at,
        "seconds_total": seconds,
        "device_seconds": seconds * shard.world,
        "dataset_fingerprint": dataset.meta.fingerprint,
        "teacher_sha256": cache.teacher_sha256,
        **runtime.provenance(),
        **provenance(device, stage.teacher.recipe.precision),
    }
    publish(stage, store, values, left_over=left_over, holds=holds)


class Progress:
    """How far a running stage is, published at most once a second for whoever watches; less often on an object store,
    and there of no stage that has ended before the first time."""

    def __init__(self, stage: Stage, store: Store, *, total: int) -> None:
        self.path, self.store, self.total = f"{stage.folder}/{PROGRESS}", store, total
        self.stage_id = stage.id
        self.started_at, self.host = now(), platform.node()
        self.written = time.monotonic() if store.slowness > 1 else -PROGRESS_SECONDS

    def report(self, done: float) -> None:
        """done: of `total` epochs or views."""
        if time.monotonic() - self.written < PROGRESS_SECONDS * self.store.slowness:
            return
        self.written = time.monotonic()
        facts = {"done": done, "total": self.total, "started_at": self.started_at, "host": self.host, "at": now()}
        try:
            self.store.write(self.path, json.dumps(facts).encode())
        except OSError as error:  # nothing is lost that anybody needs
            log.warning("stage %s: its progress is not shown: %s", self.stage_id, one_line(error))


def publish(
    stage: Stage,
    store: Store,
    values: Mapping[str, Value],
    *,
    outputs: Mapping[str, bytes] | None = None,
    sizes: Mapping[str, int] | None = None,
    left_over: bytes | None = None,
    holds: Holds = always,
) -> None:
    """Write the stage's files, and then the record that names them, which makes it done; what was only of the way there
    is removed.

    outputs: weights and curve, published under names that hold their hash, which goes on the record. sizes: of files
    that lie there already, by name; left_over: of before they were written.
    holds: whether the stage is still this launch's. Where another launch has taken it over, nothing that it may have
    published is changed: this returns once the stage is done, and raises StoppedError where it is not yet.
    """
    there = store.names(stage.folder)
    if left_over is None and RECORD in there:
        left_over = store.left_over(stage)
    outputs = outputs or {}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in outputs.items()}
    named = {hashed_name(name, sums[name]): data for name, data in outputs.items()}
    if named:
        _check_held(stage, store, holds, there)
    for name, data in named.items():
        store.write(f"{stage.folder}/{name}", data)
    files = {**(sizes or {}), **{name: len(data) for name, data in named.items()}}
    if files:
        values = {**values, "files": json.dumps(files), **{SUMS[name]: sums[name] for name in sums}}
    record = make_record({**values, "status": "done", "finished_at": now()})
    became = store.commit(stage, record, holds=holds, left_over=left_over)
    if became == "lost":
        _leave_to_another(stage, store)
    if became == "done" and not stage.grows:  # whose files serve whoever made them
        log.warning("%s: done by another launch meanwhile, whose result stands", store.location(stage.folder))
    passed = (CHECKPOINT, PROGRESS, *((FAILURE, TRACEBACK) if became == "published" else ()))
    for name in passed:
        if name in there:
            store.remove(f"{stage.folder}/{name}")


def _check_held(stage: Stage, store: Store, holds: Holds, names: Sequence[str] | None = None) -> None:
    if not holds(names):
        _leave_to_another(stage, store)


def _leave_to_another(stage: Stage, store: Store) -> NoReturn:
    log.warning("%s: what was computed is dropped: the stage is another launch's by now", store.location(stage.folder))
    raise StoppedError


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
