"""Compute a teacher's logits."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from grid.plan import LogitsStage
from grid.store.lease import Holds, always
from grid.store.records import now
from grid.store.store import Store
from grid.work.dataset import opened
from grid.work.execute import Runtime
from grid.work.publish import Progress, publish
from grid.work.results import provenance, used
from grid.work.teacher_logits import LogitsCache
from kd.machine.workers import WHOLE, Shard
from kd.training.errors import StoppedError


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
    progress = Progress(stage, store)
    first = shard.rank == 0

    def on_stored(units: int) -> None:
        if first:
            progress.report(units)
        if leave():
            raise StoppedError

    before, making = set(store.names(stage.folder)), time.perf_counter()
    made = cache.make_all(part=shard.rank, parts=shard.world, on_stored=on_stored)
    if shard.rank != 0:
        return
    making = time.perf_counter() - making
    for name in dataset.evaluated:
        cache.make_plain(name)
    seconds = time.perf_counter() - started
    values = stage.axes() | {
        "epochs": max(stage.epochs),
        "started_at": started_at,
        "seconds_total": seconds,
        # Those of who helped are not told here: each file took about as long.
        "device_seconds": seconds + making * max(0, len({*stage.planned_files} - before) - made) / max(1, made),
        **used(stage, fingerprint=dataset.meta.fingerprint, weights={stage.teacher.id: cache.teacher_sha256}),
        **runtime.provenance(),
        **provenance(device, stage.teacher.recipe.precision),
    }
    publish(stage, store, values, left_over=left_over, holds=holds)
