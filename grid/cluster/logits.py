"""Compute teacher logits with plain Ray tasks: each takes some epochs of one teacher's view stream."""

from __future__ import annotations

import time

import ray

from grid.cluster.session import MAX_WORKER_DEATHS, Capacity
from grid.errors import one_line
from grid.plan import LogitsStage, stage_from_json, stage_to_json
from grid.stages import Runtime, execute, finish_logits, missing_logits, run_logits
from grid.store import Store


def compute_teacher_logits(stage: LogitsStage, store: Store, capacity: Capacity, *, run: dict[str, str]) -> str | None:
    """Returns None, or the error on one line. Only epochs that are not stored yet are computed."""
    share, count = capacity.teacher_worker, capacity.teacher_workers
    options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": MAX_WORKER_DEATHS}
    common = (stage_to_json(stage), store.url, share.cpus, run)
    missing = missing_logits(stage, store)
    started = time.perf_counter()
    try:
        epochs = ray.remote(_epochs).options(**options)
        errors = ray.get([epochs.remote(*common, missing[part::count]) for part in range(min(count, len(missing)))])
        if not any(errors):
            finish = ray.remote(_finish).options(**options)
            errors = [ray.get(finish.remote(*common, time.perf_counter() - started))]
    except ray.exceptions.RayError as error:
        return one_line(error)
    return next((error for error in errors if error is not None), None)


def _epochs(stage_json: str, storage: str, threads: int, run: dict[str, str], epochs: list[int]) -> str | None:
    stage, store, runtime = _context(stage_json, storage, threads, run)
    return execute(stage, store, runtime, lambda: run_logits(stage, store, runtime, epochs))


def _finish(stage_json: str, storage: str, threads: int, run: dict[str, str], seconds: float) -> str | None:
    stage, store, runtime = _context(stage_json, storage, threads, run)
    return execute(stage, store, runtime, lambda: finish_logits(stage, store, runtime, seconds=seconds))


def _context(stage_json: str, storage: str, threads: int, run: dict[str, str]) -> tuple[LogitsStage, Store, Runtime]:
    stage = stage_from_json(stage_json)
    assert isinstance(stage, LogitsStage)
    return stage, Store(storage), Runtime.here(threads=threads, **run)
