"""How much of a GPU's memory training a student takes: measured once, by a few steps of it, and kept on the storage."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
from dataclasses import asdict, dataclass

import torch

from grid.contract.files.local_files import OddFileError
from grid.contract.parsing import parse_object
from grid.identity import canonical_json
from grid.plan import CellStage, Stage
from grid.store.store import Store
from grid.work.dataset import open_prepared
from grid.work.models import at_start, pixels_of, untrained
from grid.work.supervision import beside_of
from kd.data.dataset import Dataset
from kd.data.views.views import ViewStream
from kd.evaluate import INFERENCE_BATCH, predict
from kd.logits import StoredLogits
from kd.machine.device import best_device, device_name, memory_of
from kd.machine.out_of_memory import is_out_of_gpu_memory
from kd.models.build import on_device
from kd.objective import CachedTeacher, Distillation, HardLabels, Objective, OnlineTeacher, Teacher
from kd.training.errors import StoppedError
from kd.training.train import train

log = logging.getLogger("kd_grid")

FOLDER = "memory"
STEPS = 3


@dataclass(frozen=True)
class Footprint:
    """What training a student takes of a GPU."""

    taken: int
    """bytes that the process takes, its CUDA context and its images included"""
    total: int
    """bytes that the GPU has"""
    gpu: str
    """its name"""


def memory_key(stage: Stage) -> str:
    """Of all that the memory of its worker depends on."""
    return hashlib.sha256(canonical_json(stage.memory_facts).encode()).hexdigest()[:16]


def kept_footprint(stage: CellStage, store: Store) -> Footprint | None:
    """What was measured before; None where nothing was that can be read."""
    try:
        facts = parse_object(store.read(f"{FOLDER}/{memory_key(stage)}.json"))
        found = Footprint(**{**facts, "taken": int(facts["taken"]), "total": int(facts["total"])})
    except (FileNotFoundError, OddFileError, ValueError, TypeError, KeyError):
        return None
    return found if 0 < found.taken <= found.total else None


def measure_footprint(stage: CellStage, store: Store) -> Footprint:
    """Train for a few steps, evaluate a batch, and see what is gone of the GPU, which must not be shared meanwhile."""
    device = torch.device(best_device())
    total = memory_of(device)[1]
    try:
        _use(stage, store, device)
        taken = total - memory_of(device)[0]
    except RuntimeError as error:
        if not is_out_of_gpu_memory(error):
            raise
        taken = total
    found = Footprint(taken, total, device_name(device))
    store.write(f"{FOLDER}/{memory_key(stage)}.json", json.dumps(asdict(found)).encode())
    return found


def _use(stage: CellStage, store: Store, device: torch.device) -> None:
    dataset, recipe = open_prepared(stage.data, store), stage.recipe
    model = on_device(at_start(stage, store, dataset.meta, seed=stage.seed), device)
    pixels = pixels_of(stage.model, dataset.meta, device)
    method = None if stage.setting is None else stage.setting.built
    steps = itertools.count(1)
    with contextlib.suppress(StoppedError):
        train(
            model,
            beside=None if method is None else beside_of(method, dataset, device, seed=stage.seed),
            views=ViewStream(dataset.train, recipe.views, pixels, device=device),
            objective=_objective(stage, dataset, device),
            recipe=recipe,
            seed=stage.seed,
            evaluate=lambda model: {},
            leave=lambda: next(steps) >= STEPS,
        )
    split = dataset.split(dataset.evaluated[-1])
    predict(model, split, pixels, batch_size=INFERENCE_BATCH, device=device, precision=recipe.precision)


def _objective(stage: CellStage, dataset: Dataset, device: torch.device) -> Objective:
    """A teacher that runs in the same process takes memory whatever its weights, and what is learned beside the student
    whatever the targets; a loss of logits alone takes next to none."""
    smoothing, setting = stage.recipe.label_smoothing, stage.setting
    if stage.teacher is None or setting is None or (stage.targets == "cached" and not setting.built.has_beside):
        return HardLabels(label_smoothing=smoothing)
    teacher: Teacher
    if stage.targets == "cached":
        classes = dataset.meta.classes
        zeros = StoredLogits(torch.zeros(len(dataset.train), classes, dtype=torch.float16), classes)
        teacher = CachedTeacher(lambda views: zeros, device=device)
    else:
        model = on_device(untrained(stage.teacher.model, dataset.meta, seed=stage.teacher.seed), device).eval()
        pixels = pixels_of(stage.teacher.model, dataset.meta, device)
        teacher = OnlineTeacher(model, pixels=pixels, precision=stage.teacher.recipe.precision)
    return Distillation(setting.built, teacher, label_smoothing=smoothing)
