"""Stages run in this process as workers run them, without Ray; and what breaks them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
import torch

from grid.contract.files.layout import RECORD
from grid.contract.record import WEIGHTS, Record, curve_file, hashed_name, predictions_file, weights_file
from grid.plan import CellStage, LogitsStage, Plan, TeacherStage
from grid.store.records import record_to_json
from grid.store.store import CHECKPOINT, Store
from grid.work.dataset import open_prepared, prepare_dataset
from grid.work.execute import Runtime, execute
from grid.work.logits import run_logits
from grid.work.models import pixels_of, untrained
from grid.work.training import run_trainable
from kd.checkpoint import load_weights, state_from_bytes
from kd.evaluate import INFERENCE_BATCH, predict, score
from kd.training.state import TrainState

# A checkpoint after every step.
EVERY_STEP = 1e-9

Trained = TeacherStage | CellStage


def prepare(plan: Plan, store: Store, runtime: Runtime) -> None:
    """Everything but the cells, as a launch would."""
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    for teacher in plan.teachers:
        assert train(teacher, store, runtime) is None
    for stage in plan.logits:
        assert compute(stage, store, runtime) is None


def train(stage: Trained, store: Store, runtime: Runtime) -> str | None:
    return execute(stage, store, runtime, lambda: run_trainable(stage, store, runtime))


def compute(stage: LogitsStage, store: Store, runtime: Runtime) -> str | None:
    return execute(stage, store, runtime, lambda: run_logits(stage, store, runtime))


def saving_every_step(runtime: Runtime) -> Runtime:
    return replace(runtime, checkpoint_minutes=EVERY_STEP)


def cell_of(plan: Plan, mode: str, *, student: str = "resnet18") -> CellStage:
    return next(cell for cell in plan.cells if cell.mode == mode and cell.model.name == student)


def weights_bytes(store: Store, stage: Trained) -> bytes:
    return store.read(weights_path(store, stage))


def weights_path(store: Store, stage: Trained) -> str:
    return f"{stage.folder}/{weights_file(store.record(stage))}"


def weights(store: Store, stage: Trained) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(weights_bytes(store, stage))


def predictions(store: Store, stage: Trained) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(store.read(f"{stage.folder}/{predictions_file(store.record(stage))}"))


def curve(store: Store, stage: Trained) -> pl.DataFrame:
    """A row an epoch, without what passes differently each time."""
    frame = pl.read_parquet(io.BytesIO(store.read(f"{stage.folder}/{curve_file(store.record(stage))}")))
    return frame.drop([name for name in frame.columns if name.startswith("seconds_")])


def results(record: Record) -> dict[str, Any]:
    """A record without times, and what they are part of, and without the launch."""
    passing = ("seconds", "latency", "throughput", "_at", "files", "curve_sha256")
    return {k: v for k, v in asdict(record).items() if k != "launch" and not any(p in k for p in passing)}


def checkpoint(store: Store, stage: Trained) -> TrainState:
    return TrainState.from_dict(state_from_bytes(store.read(f"{stage.folder}/{CHECKPOINT}")))


def files(store: Store, stage: LogitsStage) -> dict[str, tuple[int, int]]:
    """Inode and time of each file of logits in a local storage: they change when it is written again."""
    folder = Path(store.url) / stage.folder
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("*.safetensors")}


def holds(store: Store, path: str, expected: bytes) -> bool:
    """Whether a file of logits has the very numbers of another."""
    ours, theirs = safetensors.torch.load(store.read(path)), safetensors.torch.load(expected)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def retrain(teacher: TeacherStage, store: Store) -> None:
    """Put another training of a teacher in its place: other weights, and the record that says so."""
    state = weights(store, teacher)
    state["fc.bias"] = state["fc.bias"] + torch.linspace(-1, 1, 10)
    data = safetensors.torch.save(state)
    record, sha256 = store.record(teacher), hashlib.sha256(data).hexdigest()
    files = json.loads(str(record.files))
    del files[weights_file(record)]
    files[hashed_name(WEIGHTS, sha256)] = len(data)
    values: dict[str, Any] = {"weights_sha256": sha256, "files": json.dumps(files)}
    dataset = open_prepared(teacher.data, store)
    model = untrained(teacher.model, dataset.meta, seed=teacher.model.seed)
    load_weights(model, data, what="another training")
    cpu = torch.device("cpu")
    pixels = pixels_of(teacher.model, dataset.meta, cpu)
    for name in dataset.evaluated:
        split = dataset.split(name)
        logits_NC = predict(model, split, pixels, batch_size=INFERENCE_BATCH, device=cpu, precision="float32")
        values[f"{name}_top1_last"] = score(logits_NC, split.labels_N).top1
    store.write(f"{teacher.folder}/{hashed_name(WEIGHTS, sha256)}", data)
    store.write(f"{teacher.folder}/{RECORD}", record_to_json(replace(record, **values)))


class Killed(BaseException):
    """Stands for a kill: no handler of the program's own catches it."""


class WatchedStore(Store):
    """A storage that tells what has just been published."""

    def __init__(self, url: str, on_written: Callable[[str], None]) -> None:
        super().__init__(url)
        self.on_written = on_written

    def write(self, path: str, data: bytes) -> None:
        super().write(path, data)
        self.on_written(path)

    def create(self, path: str, data: bytes) -> bool:
        created = super().create(path, data)
        if created:
            self.on_written(path)
        return created


def dying(store: Store, *, after: int, ending: str = CHECKPOINT) -> Store:
    """The same storage, to a process that dies just after it has published so many files with this ending, in which *
    is anything."""
    written: list[str] = []

    def die(path: str) -> None:
        if fnmatch(path, f"*{ending}"):
            written.append(path)
            if len(written) == after:
                raise Killed

    return WatchedStore(store.url, die)
