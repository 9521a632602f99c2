"""What workers tell each other arrives, and a pickle among it is never run."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from kd.checkpoint import CheckpointError, state_from_bytes
from kd.machine.workers import WHOLE, Shard, first_reads, gather_texts

CPU = torch.device("cpu")


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def _worker(rank: int, folder: Path, do: Callable[[Shard, Path], None]) -> None:
    """Runs in a process of its own."""
    torch.set_num_threads(1)
    method, limit = f"file://{folder}/meeting-place", timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=2, timeout=limit)
    do(Shard(rank, 2), folder)
    torch.distributed.destroy_process_group()


def two_workers(do: Callable[[Shard, Path], None], folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(rank, folder, do)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        worker.kill()
    assert [worker.exitcode for worker in workers] == [0, 0]


def _exchange(shard: Shard, folder: Path) -> None:
    for sent in (b"", b"\0\1\0", bytes(range(256)) * 1000, None):
        assert first_reads(lambda sent=sent: sent if shard.rank == 0 else b"mine", shard, CPU) == sent  # type: ignore[misc]
    assert gather_texts(f"node {shard.rank} ø", shard, CPU, longest=20) == ["node 0 ø", "node 1 ø"]
    # A stranger in the first worker's place sends a pickle where a checkpoint is expected.
    evil = pickle.dumps(Canary(folder / "ran"))
    arrived = first_reads(lambda: evil, shard, CPU)
    assert arrived == evil
    with pytest.raises(CheckpointError):
        state_from_bytes(arrived)


def _exchange_objects(shard: Shard, folder: Path) -> None:
    """As it was done before."""
    objects: list[Any] = [Canary(folder / "ran") if shard.rank == 0 else None]
    torch.distributed.broadcast_object_list(objects, src=0)


@pytest.mark.long
def test_bytes_and_texts_arrive_and_are_not_run(tmp_path: Path) -> None:
    two_workers(_exchange, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.long
def test_a_pickle_among_objects_is_run(tmp_path: Path) -> None:
    """The control: what the test above would see."""
    two_workers(_exchange_objects, tmp_path)
    assert (tmp_path / "ran").exists()


def test_one_worker_alone_tells_itself() -> None:
    assert first_reads(lambda: b"mine", WHOLE, CPU) == b"mine"
    assert first_reads(lambda: None, WHOLE, CPU) is None
    assert gather_texts("here", WHOLE, CPU, longest=4) == ["here"]


def test_a_text_that_does_not_fit_is_no_text_cut_off() -> None:
    with pytest.raises(ValueError, match="more than 4 bytes"):
        gather_texts("there", WHOLE, CPU, longest=4)
