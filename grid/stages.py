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
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import nn

from grid.datasets import source_of
from grid.errors import one_line
from grid.plan import CellStage, DatasetStage, LogitsStage, Stage, Trainable
from grid.records import Record, Value, make_record, record_to_json
from grid.results import axes_of, curve_to_parquet, metrics_of, model_facts, provenance
from grid.store import CHECKPOINT, CURVE, FAILURE, PROGRESS, RECORD, TRACEBACK, WEIGHTS, Store
from grid.supervision import Supervision
from grid.teacher_logits import INFERENCE_BATCH, LogitsCache
from kd.checkpoint import CheckpointError, state_from_bytes, state_to_bytes, weights_to_bytes
from kd.data.dataset import Dataset, meta_to_json, open_dataset, prepare
from kd.data.pixels import Pixels
from kd.data.views import ViewStream
from kd.evaluate import predict, score
from kd.models.build import build, on_device
from kd.precision import resolve
from kd.train import WHOLE, Row, Shard, TrainState, train

log = logging.getLogger("kd_grid")

PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage runs: facts that go on its record and never into its id."""

    threads: int = 1
    device: str = "cpu"
    launch: str = ""
    code_version: str = "unknown"
    checkpoint_minutes: float = 10.0
    deterministic: bool = False

    @classmethod
    def here(cls, *, threads: int, device: str | None = None, **facts: Any) -> Runtime:
        """The given device, or the first GPU this process may use, or the CPU with so many threads; sets torch up."""
        runtime = cls(threads=threads, device=device or ("cuda" if torch.cuda.is_available() else "cpu"), **facts)
        torch.set_num_threads(threads)
        if runtime.deterministic and runtime.device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants it before its first call
        torch.use_deterministic_algorithms(runtime.deterministic and runtime.device != "cpu")
        return runtime

    def provenance(self) -> dict[str, Value]:
        return {"launch": self.launch, "code_version": self.code_version}


def execute(stage: Stage, store: Store, runtime: Runtime, run: Callable[[], None]) -> str | None:
    """Run a stage's work; an error is logged, recorded as the stage's failure and returned as one line."""
    try:
        store.claim(stage)
        run()
    except Exception as error:  # the one place that catches: whatever went wrong belongs on the stage's record
        line = one_line(error)
        record_failure(stage, store, line, launch=runtime.launch, trace=traceback.format_exc())
        return line
    return None


def record_failure(stage: Stage, store: Store, error: str, *, launch: str, trace: str = "") -> None:
    """Write the failure, and its traceback, beside the stage's outputs; one that cannot be written is only logged."""
    if store.failure(stage, launch=launch) is not None:
        return  # the first of several workers to fail knows why
    values = {"status": "failed", "error": error, "finished_at": _now(), "launch": launch}
    record = make_record({**axes_of(stage), **values})
    log.error("stage %s failed: %s\n%s", stage.id, error, trace)
    try:
        store.write(f"{stage.folder}/{TRACEBACK}", (trace or error).encode())
        store.write(f"{stage.folder}/{FAILURE}", record_to_json(record))
    except Exception:
        log.exception("stage %s: its failure could not be recorded", stage.id)


def free_gpu() -> None:
    """Between the stages of a process: the next one must find the memory free."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def prepare_dataset(stage: DatasetStage, store: Store, runtime: Runtime) -> None:
    """Read and split the images and publish them as arrays."""
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
    for name, array in arrays.items():
        store.write(f"{stage.folder}/{name}.npy", _npy(array))
    store.write(f"{stage.folder}/dataset.json", meta_to_json(meta).encode())
    seconds = time.perf_counter() - started
    values = axes_of(stage) | runtime.provenance() | {"dataset_fingerprint": meta.fingerprint, "seconds_total": seconds}
    _publish(stage, store, values)


def run_trainable(
    stage: Trainable,
    store: Store,
    runtime: Runtime,
    *,
    shard: Shard = WHOLE,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> None:
    """Train a teacher or a student from wherever its checkpoint stands, and publish weights, curve and record."""
    started_at, started = _now(), time.perf_counter()
    device, recipe = torch.device(runtime.device), stage.recipe
    dataset = open_dataset(store.local_folder(stage.data.folder))
    seed = stage.seed if isinstance(stage, CellStage) else stage.model.seed
    model = on_device(_build(stage, dataset, seed=seed), device)
    pixels = Pixels.of(dataset.meta, size=stage.model.image_size, device=device)
    supervision = Supervision(stage, store, dataset, device)
    # What a checkpoint has to agree with: the id knows neither.
    how = {"teacher_sha256": supervision.teacher_sha256, "precision": resolve(recipe.precision, device)}
    resume = _load_checkpoint(stage, store, how, shard, device)
    setup = time.perf_counter() - started
    progress = Progress(stage, store, total=recipe.epochs)
    if shard.rank == 0:
        progress.report(len(resume.curve) if resume else 0)

    def evaluate(model: nn.Module) -> Row:
        row: Row = {}
        for name in dataset.evaluated:
            split = dataset.split(name)
            logits_NC = predict(
                model, split, pixels, batch_size=INFERENCE_BATCH, device=device, precision=recipe.precision
            )
            metrics = score(logits_NC, split.labels_N, teacher_logits_NC=supervision.plain_logits.get(name))
            row |= {f"{name}_{metric}": value for metric, value in asdict(metrics).items() if value is not None}
        return row

    saved_at = time.monotonic()

    def on_state(state: TrainState) -> None:
        nonlocal saved_at
        if len(state.curve) < recipe.epochs:
            store.write(f"{stage.folder}/{CHECKPOINT}", state_to_bytes(state.to_dict() | how))
        saved_at = time.monotonic()
        progress.report(len(state.curve) + (0 if state.loss_S is None else state.step / len(state.loss_S)))

    curve = train(
        model,
        views=ViewStream(dataset.train, recipe.views, pixels, device=device),
        objective=supervision.objective,
        recipe=recipe,
        seed=seed,
        evaluate=evaluate,
        resume=resume,
        on_state=on_state,
        save_now=lambda: time.monotonic() - saved_at >= 60 * runtime.checkpoint_minutes,
        shard=shard,
        wrap=wrap,
    )
    if shard.rank != 0:
        return
    trained_at = time.perf_counter()
    weights = weights_to_bytes(model)
    store.write(f"{stage.folder}/{WEIGHTS}", weights)
    store.write(f"{stage.folder}/{CURVE}", curve_to_parquet(curve))
    seconds = {name: sum(float(row[name] or 0) for row in curve) for name in ("seconds_train", "seconds_evaluate")}
    values = axes_of(stage) | model_facts(stage, model, dataset.meta, device) | metrics_of(curve) | seconds
    values |= {
        "started_at": started_at,
        "seconds_setup": setup,
        # Earlier sessions are in the curve.
        "seconds_total": setup + sum(seconds.values()) + time.perf_counter() - trained_at,
        "device_seconds": sum(seconds.values()) * shard.world,
        "dataset_fingerprint": dataset.meta.fingerprint,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "teacher_sha256": supervision.teacher_sha256,
        "workers": shard.world,
        **runtime.provenance(),
        **provenance(device, recipe.precision),
    }
    _publish(stage, store, values)
    for leftover in (CHECKPOINT, PROGRESS):
        store.remove(f"{stage.folder}/{leftover}")


def run_logits(stage: LogitsStage, store: Store, runtime: Runtime, *, shard: Shard = WHOLE) -> None:
    """Compute what is missing of a teacher's logits; the first worker then publishes the record."""
    started_at, started = _now(), time.perf_counter()
    device = torch.device(runtime.device)
    dataset = open_dataset(store.local_folder(stage.teacher.data.folder))
    cache = LogitsCache(stage, store, dataset, device)
    progress = Progress(stage, store, total=len(stage.units))
    first = shard.rank == 0
    cache.make_all(part=shard.rank, parts=shard.world, on_stored=progress.report if first else lambda _: None)
    if shard.rank != 0:
        return
    for name in dataset.evaluated:
        cache.make_plain(name)
    seconds = time.perf_counter() - started
    values = axes_of(stage) | {
        "epochs": max(stage.epochs),
        "started_at": started_at,
        "seconds_total": seconds,
        "device_seconds": seconds * shard.world,
        "dataset_fingerprint": dataset.meta.fingerprint,
        "teacher_sha256": cache.teacher_sha256,
        **runtime.provenance(),
        **provenance(device, stage.teacher.recipe.precision),
    }
    _publish(stage, store, values)
    store.remove(f"{stage.folder}/{PROGRESS}")


def _build(stage: Trainable, dataset: Dataset, *, seed: int) -> nn.Module:
    spec, meta = stage.model, dataset.meta
    return build(
        spec.name, args=spec.args, classes=meta.classes, channels=meta.channels, pretrained=spec.pretrained, seed=seed
    )


def _load_checkpoint(
    stage: Trainable, store: Store, how: Mapping[str, str | None], shard: Shard, device: torch.device
) -> TrainState | None:
    """Where to go on from; None to start from the beginning. The first worker reads for all: another launch could put
    another checkpoint in its place meanwhile."""
    path = f"{stage.folder}/{CHECKPOINT}"
    found: list[bytes | None] = [None]
    if shard.rank == 0:
        with contextlib.suppress(FileNotFoundError):
            found = [store.read(path)]
    if shard.world > 1:
        torch.distributed.broadcast_object_list(found, src=0, device=device)
    if found[0] is None:
        return None
    try:
        state = state_from_bytes(found[0])
        other = [name for name, value in how.items() if state[name] != value]
        if not other:
            return TrainState.from_dict(state)
        reason = f"of another {' and '.join(other)}"
    except (CheckpointError, KeyError) as error:
        reason = f"unreadable: {error}"
    log.warning("%s: %s; the stage starts again", store.location(path), reason)
    return None


class Progress:
    """How far a running stage is, published at most once a second for whoever watches."""

    def __init__(self, stage: Stage, store: Store, *, total: int) -> None:
        self.path, self.store, self.total = f"{stage.folder}/{PROGRESS}", store, total
        self.started_at, self.host = _now(), platform.node()
        self.written = -PROGRESS_SECONDS

    def report(self, done: float) -> None:
        """done: of `total` epochs or views."""
        if time.monotonic() - self.written < PROGRESS_SECONDS:
            return
        self.written = time.monotonic()
        facts = {"done": done, "total": self.total, "started_at": self.started_at, "host": self.host, "at": _now()}
        self.store.write(self.path, json.dumps(facts).encode())


def _publish(stage: Stage, store: Store, values: Mapping[str, Value]) -> None:
    record: Record = make_record({**values, "status": "done", "finished_at": _now()})
    store.write(f"{stage.folder}/{RECORD}", record_to_json(record))
    for failure in (FAILURE, TRACEBACK):
        store.remove(f"{stage.folder}/{failure}")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
