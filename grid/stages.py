"""What each stage does, in plain Python, free of Ray. `execute` is the edge at which errors become records."""

from __future__ import annotations

import io
import json
import logging
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor, nn

from grid.errors import one_line
from grid.plan import CellStage, DatasetStage, LogitsStage, Stage, TeacherStage, Trainable
from grid.records import Record, Value, make_record, record_to_json
from grid.results import axes_of, curve_to_parquet, metrics_of, model_facts, provenance
from grid.store import CHECKPOINT, CURVE, FAILURE, PROGRESS, RECORD, TRACEBACK, WEIGHTS, Store
from kd.checkpoint import CheckpointError, load_weights, state_from_bytes, state_to_bytes, weights_to_bytes
from kd.data.dataset import Dataset, meta_to_json, open_dataset, prepare
from kd.data.views import Pixels, ViewStream
from kd.evaluate import predict, score
from kd.logits import compute_logits, logits_from_bytes, logits_to_bytes
from kd.models.build import build
from kd.objective import Distillation, HardLabels, Objective
from kd.train import WHOLE, Row, Shard, TrainState, train

log = logging.getLogger("kd_grid")

EVALUATION_BATCH = 512
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Runtime:
    """Where a stage runs: facts that go on its record and never into its id."""

    threads: int = 1
    device: str = "cpu"
    launch: str = ""
    code_version: str = "unknown"

    @classmethod
    def here(cls, *, threads: int, launch: str, code_version: str, device: str | None = None) -> Runtime:
        """The given device, or the first GPU this process may use, or the CPU with so many threads."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(threads)
        return cls(threads=threads, device=device, launch=launch, code_version=code_version)

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


def prepare_dataset(stage: DatasetStage, store: Store, runtime: Runtime) -> None:
    """Read and split the images and publish them as arrays."""
    started = time.perf_counter()
    spec = stage.dataset
    meta, arrays = prepare(
        spec.name,
        train_size=spec.train_size,
        val_size=spec.val_size,
        test_size=spec.test_size,
        split_seed=spec.split_seed,
    )
    for name, array in arrays.items():
        store.write(f"{stage.folder}/{name}.npy", _npy(array))
    store.write(f"{stage.folder}/dataset.json", meta_to_json(meta).encode())
    seconds = time.perf_counter() - started
    values = axes_of(stage) | runtime.provenance() | {"dataset_fingerprint": meta.sha256, "seconds_total": seconds}
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
    device = torch.device(runtime.device)
    dataset = open_dataset(store.local_folder(stage.data.folder))
    model = _build(stage, dataset, device)
    pixels = Pixels.of(dataset.meta, size=stage.model.image_size, device=device)
    views = ViewStream(dataset.train, stage.recipe.views, pixels, device=device)
    objective, teacher_logits = _objective(stage, store, dataset, device)
    resume = _load_checkpoint(stage, store)
    setup = time.perf_counter() - started
    epochs = stage.recipe.epochs
    progress = _Progress(stage, store, epochs=epochs)
    if shard.rank == 0:
        progress.report(len(resume.curve) if resume else 0)

    def evaluate(model: nn.Module) -> Row:
        row: Row = {}
        for name in ("val", "test"):
            split = dataset.split(name)
            if len(split):
                logits_NC = predict(model, split, pixels, batch_size=EVALUATION_BATCH, device=device)
                metrics = score(logits_NC, split.labels_N, teacher_logits_NC=teacher_logits.get(name))
                row |= {f"{name}_{metric}": value for metric, value in asdict(metrics).items() if value is not None}
        return row

    def on_epoch(state: TrainState) -> None:
        if state.epochs_done < epochs:
            store.write(f"{stage.folder}/{CHECKPOINT}", state_to_bytes(state.to_dict()))
        progress.report(state.epochs_done)

    curve = train(
        model,
        split=dataset.train,
        views=views,
        objective=objective,
        recipe=stage.recipe,
        seed=stage.seed if isinstance(stage, CellStage) else stage.model.seed,
        evaluate=evaluate,
        resume=resume,
        on_epoch=on_epoch,
        shard=shard,
        wrap=wrap,
    )
    if shard.rank != 0:
        return
    store.write(f"{stage.folder}/{WEIGHTS}", weights_to_bytes(model))
    store.write(f"{stage.folder}/{CURVE}", curve_to_parquet(curve))
    seconds = {name: sum(float(row[name] or 0) for row in curve) for name in ("seconds_train", "seconds_evaluate")}
    values = axes_of(stage) | model_facts(stage, model, dataset.meta, device) | metrics_of(curve) | seconds
    values |= {
        "started_at": started_at,
        "seconds_setup": setup,
        "seconds_total": setup + sum(seconds.values()),
        "device_seconds": sum(seconds.values()) * shard.world,
        "dataset_fingerprint": dataset.meta.sha256,
        "workers": shard.world,
        **runtime.provenance(),
        **provenance(device),
    }
    _publish(stage, store, values)
    for leftover in (CHECKPOINT, PROGRESS):
        store.remove(f"{stage.folder}/{leftover}")


def missing_logits(stage: LogitsStage, store: Store) -> list[int]:
    """The epochs whose logits are not stored yet."""
    stored = set(store.names(stage.folder))
    return [epoch for epoch in range(stage.epochs) if _epoch_file(epoch) not in stored]


def run_logits(stage: LogitsStage, store: Store, runtime: Runtime, epochs: Iterable[int]) -> None:
    """Compute and publish the teacher's logits for these epochs' views."""
    device = torch.device(runtime.device)
    dataset = open_dataset(store.local_folder(stage.teacher.data.folder))
    teacher = _load_teacher(stage.teacher, store, dataset, device)
    pixels = Pixels.of(dataset.meta, size=stage.teacher.model.image_size, device=device)
    views = ViewStream(dataset.train, stage.views, pixels, device=device)
    for epoch in epochs:
        logits_NC = compute_logits(teacher, views.epoch(epoch), batch_size=EVALUATION_BATCH)
        path = f"{stage.folder}/{_epoch_file(epoch)}"
        store.write(path, logits_to_bytes(logits_NC, what=store.location(path)))


def finish_logits(stage: LogitsStage, store: Store, runtime: Runtime, *, seconds: float) -> None:
    """Publish the teacher's logits of the plain val and test images, then the record: the stage is done."""
    device = torch.device(runtime.device)
    dataset = open_dataset(store.local_folder(stage.teacher.data.folder))
    teacher = _load_teacher(stage.teacher, store, dataset, device)
    pixels = Pixels.of(dataset.meta, size=stage.teacher.model.image_size, device=device)
    for name in ("val", "test"):
        split = dataset.split(name)
        if len(split):
            logits_NC = predict(teacher, split, pixels, batch_size=EVALUATION_BATCH, device=device)
            path = f"{stage.folder}/{name}.npy"
            store.write(path, logits_to_bytes(logits_NC, what=store.location(path)))
    values = axes_of(stage) | {
        "epochs": stage.epochs,
        "seconds_total": seconds,
        "device_seconds": seconds,
        "dataset_fingerprint": dataset.meta.sha256,
        **runtime.provenance(),
        **provenance(device),
    }
    _publish(stage, store, values)


def _build(stage: Trainable, dataset: Dataset, device: torch.device) -> nn.Module:
    seed = stage.seed if isinstance(stage, CellStage) else stage.model.seed
    spec, meta = stage.model, dataset.meta
    model = build(
        spec.name, args=spec.args, classes=meta.classes, channels=meta.channels, pretrained=spec.pretrained, seed=seed
    )
    return model.to(device)


def _load_teacher(stage: TeacherStage, store: Store, dataset: Dataset, device: torch.device) -> nn.Module:
    spec, meta = stage.model, dataset.meta
    teacher = build(spec.name, args=spec.args, classes=meta.classes, channels=meta.channels).to(device)
    path = f"{stage.folder}/{WEIGHTS}"
    load_weights(teacher, store.read(path), what=store.location(path))
    return teacher.eval()


def _objective(
    stage: Trainable, store: Store, dataset: Dataset, device: torch.device
) -> tuple[Objective, dict[str, Tensor]]:
    """What the stage learns from, and its teacher's logits of the plain splits where it has one."""
    smoothing = stage.recipe.label_smoothing
    if isinstance(stage, TeacherStage) or stage.logits is None:
        return HardLabels(label_smoothing=smoothing), {}
    assert stage.temperature is not None
    assert stage.alpha is not None
    logits = stage.logits

    def read(name: str, samples: int) -> Tensor:
        path = f"{logits.folder}/{name}"
        data = store.read(path)
        return logits_from_bytes(data, samples=samples, classes=dataset.meta.classes, what=store.location(path))

    objective = Distillation(
        lambda epoch: read(_epoch_file(epoch), len(dataset.train)),
        temperature=stage.temperature,
        alpha=stage.alpha,
        label_smoothing=smoothing,
        device=device,
    )
    sizes = {name: len(dataset.split(name)) for name in ("val", "test")}
    return objective, {name: read(f"{name}.npy", size) for name, size in sizes.items() if size}


def _load_checkpoint(stage: Trainable, store: Store) -> TrainState | None:
    path = f"{stage.folder}/{CHECKPOINT}"
    try:
        return TrainState.from_dict(state_from_bytes(store.read(path)))
    except FileNotFoundError:
        return None
    except (CheckpointError, KeyError) as error:
        log.warning("%s: unreadable (%s); the stage starts again", store.location(path), error)
        return None


class _Progress:
    """How far a running stage is, published at most once a second for whoever watches."""

    def __init__(self, stage: Trainable, store: Store, *, epochs: int) -> None:
        self.path, self.store, self.epochs = f"{stage.folder}/{PROGRESS}", store, epochs
        self.started_at, self.host = _now(), platform.node()
        self.written = -PROGRESS_SECONDS

    def report(self, epoch: int) -> None:
        if time.monotonic() - self.written < PROGRESS_SECONDS:
            return
        self.written = time.monotonic()
        facts = {"epoch": epoch, "epochs": self.epochs, "started_at": self.started_at, "host": self.host, "at": _now()}
        self.store.write(self.path, json.dumps(facts).encode())


def _publish(stage: Stage, store: Store, values: Mapping[str, Value]) -> None:
    record: Record = make_record({**values, "status": "done", "finished_at": _now()})
    store.write(f"{stage.folder}/{RECORD}", record_to_json(record))
    for failure in (FAILURE, TRACEBACK):
        store.remove(f"{stage.folder}/{failure}")


def _epoch_file(epoch: int) -> str:
    return f"epoch-{epoch:05d}.npy"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
