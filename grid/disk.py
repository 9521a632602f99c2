"""How much a grid writes, and whether there is room for it."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping

import numpy as np

from grid.contract.units import sized
from grid.errors import UserError
from grid.plan import CellStage, LogitsStage, Plan, Stage, TeacherStage
from grid.spec.dataset import DatasetSpec
from grid.store import Store
from kd.recipe import LogitsFormat

# Beside weights, logits and images: the record, the curve, what W&B keeps of a run; in blocks of a disk.
FACTS_BYTES, TRAINED_FACTS_BYTES = 12 * 2**10, 32 * 2**10


def written_bytes(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """Of each stage, by id, when it is done, to some per cent: images, logits, weights, and what is told of them.
    sizes: of models, in bytes, by stage."""
    return {stage.id: _written(stage, sizes) + _facts(stage) for stage in plan.stages}


def _facts(stage: Stage) -> int:
    return TRAINED_FACTS_BYTES if isinstance(stage, TeacherStage | CellStage) else FACTS_BYTES


def _written(stage: Stage, sizes: Mapping[str, int]) -> int:
    if isinstance(stage, TeacherStage | CellStage):
        return sizes[stage.id]
    if isinstance(stage, LogitsStage):
        dataset = stage.teacher.data.dataset
        row = _bytes_of_a_row(stage.stored_as, dataset.info.classes)
        evaluated = dataset.splits["val"] + dataset.splits["test"]
        return row * (len(stage.units) * dataset.splits["train"] + evaluated)
    return _bytes_of_images(stage.dataset)


def _bytes_of_a_row(stored_as: LogitsFormat, classes: int) -> int:
    each, k = np.dtype(stored_as.dtype).itemsize, stored_as.top_k
    if k is None or k >= classes:
        return each * classes
    place = 1 if classes <= 2**8 else 2 if classes <= 2**15 else 4
    return k * (each + place) + 2 * each  # mean and variance of the rest


def _bytes_of_images(dataset: DatasetSpec) -> int:
    info = dataset.info
    return sum(dataset.splits.values()) * (info.height * info.width * info.channels + 8)


def check_room(plan: Plan, done: Collection[str], written: Mapping[str, int], store: Store) -> None:
    """Raises UserError where a storage on a disk has less room than what is not done yet will take. A checkpoint is of
    the weights and up to three more of their size, while a stage runs."""
    if not store.is_local:
        return
    left = [stage for stage in plan.stages if stage.id not in done]
    running = max((written[stage.id] for stage in left if isinstance(stage, TeacherStage | CellStage)), default=0)
    needed = sum(written[stage.id] for stage in left) + 4 * running
    free = shutil.disk_usage(store.url).free
    if free < needed:
        raise UserError(
            f"--storage {store.url}: {sized(free)} free, grid {plan.spec.name} writes some {sized(needed)}: free some, "
            "or use another --storage"
        )
