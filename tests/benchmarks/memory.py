"""(g): memory that a further concurrent cell adds, with the data set shared through the page cache."""

from __future__ import annotations

import multiprocessing
import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from kd.data.dataset import Dataset, meta_to_json, open_dataset
from kd.models.build import build, on_device
from kd.objective import HardLabels
from kd.recipe import Recipe
from kd.training.train import train
from tests.benchmarks.data import CPU, CROP_AND_FLIP, META, noise, stream
from tests.benchmarks.harness import Row

IMAGES, TIMES, CELLS, REPEATS = 50_000, 3, 3, 3
MB = 1e6


def cell_extra_mb() -> list[Row]:
    """Proportional memory of CELLS concurrent cells, less that of one, for each further cell: on a data set of CIFAR's
    size and on one TIMES as large, whose difference says how much of the data set each further cell copies."""
    small, large = [], []
    for _ in range(REPEATS):
        small.append(_extra_mb(IMAGES))
        large.append(_extra_mb(IMAGES * TIMES))
    size = IMAGES * (TIMES - 1) * 3 * 32 * 32 / MB
    copied = [(more - less) / size for more, less in zip(large, small, strict=True)]
    return [
        Row("cell_extra_mb", statistics.median(small), "MB", min(small), max(small)),
        Row("cell_data_copies", statistics.median(copied), "copies of the data set", min(copied), max(copied)),
    ]


def _extra_mb(images: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = noise(images)
        for part in ("train", "val", "test"):
            count = images if part == "train" else 100
            np.save(folder / f"{part}_images.npy", split.images_NHWC[:count].numpy())
            np.save(folder / f"{part}_labels.npy", split.labels_N[:count].numpy())
        (folder / "dataset.json").write_text(meta_to_json(META))
        with _cells(folder, 1) as one:
            alone = sum(map(_proportional_mb, one))
        with _cells(folder, CELLS) as several:
            together = sum(map(_proportional_mb, several))
    return (together - alone) / (CELLS - 1)


@contextmanager
def _cells(folder: Path, count: int) -> Iterator[list[int]]:
    """Process ids of cells that have trained, and seen every image, and are still there."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=_cell, args=(folder, theirs)) for _, theirs in pipes]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        ours.recv()
    yield [process.pid or 0 for process in processes]
    for ours, _ in pipes:
        ours.send("leave")
    for process in processes:
        process.join()


def _cell(folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dataset: Dataset = open_dataset(folder)
    views = stream(dataset.train)
    epoch = views.epoch(0)
    for index_B in torch.arange(len(views)).split(1000):
        epoch.batch(index_B)
    few = Dataset(dataset.meta, *[dataset.val] * 3)
    model = on_device(build("small_cnn", args={}, classes=10, channels=3), CPU)
    recipe = Recipe(epochs=1, batch_size=128, views=CROP_AND_FLIP)
    objective = HardLabels(label_smoothing=0.0)
    train(model, views=stream(few.train), objective=objective, recipe=recipe, seed=0, evaluate=lambda _: {})
    pipe.send("ready")
    pipe.recv()


def _proportional_mb(pid: int) -> float:
    """A process's memory, with what it shares counted in equal parts (Linux)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / MB
