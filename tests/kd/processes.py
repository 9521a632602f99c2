"""What the tests' own processes run. They import this by name, so that it stands apart from the tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kd.checkpoint import state_from_bytes, state_to_bytes
from kd.data.dataset import Dataset, Split
from kd.machine.workers import Shard
from kd.recipe import Recipe
from kd.training.state import TrainState
from tests.kd.helpers import AnyRow, load_digits, noisy_model, run, untimed

_barrier: Barrier | None = None


@dataclass
class Result:
    """A run's end: curve without seconds, weights, and the states it reported as bytes."""

    curve: list[AnyRow]
    weights: dict[str, torch.Tensor]
    states: list[bytes]


def start(barrier: Barrier) -> None:
    """Each process, first: one thread, and where to meet the others."""
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)


def network(seed: int) -> nn.Sequential:
    """Without batch norm and dropout, of which each worker has its own."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )


def odd_digits() -> Dataset:
    """289 digits: in batches of 16, the 19th has one image, which is no work for a second worker."""
    data = load_digits()
    return Dataset(data.meta, Split(data.train.images_NHWC[:289], data.train.labels_N[:289]), data.val, data.test)


def finish(model: nn.Module, curve: list[AnyRow], states: list[bytes]) -> Result:
    return Result(untimed(curve), {k: v.clone() for k, v in model.state_dict().items()}, states)


def train_noisy(recipe: Recipe, *, together: bool) -> Result:
    """A model with batch norm and dropout, on its own; together: not before the other process starts too."""
    if together:
        assert _barrier is not None
        _barrier.wait(timeout=120)
    model = noisy_model(0)
    return finish(model, run(model, recipe, data=load_digits()), [])


def train_sharded(recipe: Recipe, *, rank: int, world: int, rendezvous: Path, resume: bytes | None) -> Result:
    """One worker of several, which exchange gradients; a state is kept whenever the workers can agree on one."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),  # a worker does not outlive the other's failure for long
    )
    try:
        model = network(0 if resume is None else 99)
        states: list[bytes] = []
        options: dict[str, Any] = {
            "shard": Shard(rank, world),
            "wrap": DistributedDataParallel,
            "save_now": lambda: True,
            "on_state": lambda state: states.append(state_to_bytes(state.to_dict())),
            "resume": None if resume is None else TrainState.from_dict(state_from_bytes(resume)),
        }
        return finish(model, run(model, recipe, data=odd_digits(), **options), states)
    finally:
        torch.distributed.destroy_process_group()
