"""Where the workers of a teacher meet: in a file that nobody else may open, or at one address; never on all interfaces.
The workers are real processes; Ray is not started."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from grid.cluster.teachers import process_group

Listening = set[tuple[str, int]]


def _worker(pipe: Connection) -> None:
    """Runs in a process of its own, and does what it is told."""
    torch.set_num_threads(1)
    while True:
        what, given, named = pipe.recv()
        if what == "sum":
            total = torch.tensor([given[0]])
            torch.distributed.all_reduce(total)
            pipe.send(int(total.item()))
        else:
            pipe.send(getattr(process_group, what)(*given, **named))


class Workers:
    """Two processes that Ray Train would have started."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def tell(self, rank: int, what: str, *given: Any, **named: Any) -> None:
        self.pipes[rank].send((what, given, named))

    def answer(self, rank: int) -> Any:
        assert self.pipes[rank].poll(120), "does not answer"
        return self.pipes[rank].recv()

    def join(self, place: Any) -> None:
        for rank in (0, 1):
            self.tell(rank, "join", "gloo", place, own_rank=rank, world=2, seconds=60)
        for rank in (0, 1):
            self.answer(rank)
        for rank in (0, 1):
            self.tell(rank, "sum", rank + 1)
        assert [self.answer(rank) for rank in (0, 1)] == [3, 3]

    def listening(self) -> Listening:
        found = [one for process in self.processes for one in psutil.Process(process.pid).net_connections("inet")]
        return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Workers]:
    monkeypatch.setenv("KD_GRID_CACHE", str(tmp_path / "cache"))
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    both = Workers()
    yield both
    for process in both.processes:
        process.kill()


def test_workers_of_one_node_meet_in_a_file_and_talk_over_loopback(workers: Workers, tmp_path: Path) -> None:
    workers.tell(0, "meeting_file")
    place = workers.answer(0)
    workers.join(place)
    assert Path(place).parent.stat().st_mode & 0o777 == 0o700
    assert Path(place).is_relative_to(tmp_path / "cache")
    assert {address for address, _ in workers.listening()} <= {"127.0.0.1", "::1"}
    workers.tell(0, "leave")
    workers.answer(0)


def test_workers_of_several_nodes_meet_at_one_address(workers: Workers) -> None:
    workers.tell(0, "listen")
    place = workers.answer(0)
    workers.join(place)
    assert place in workers.listening()
    assert not {address for address, _ in workers.listening()} & {"::", "0.0.0.0"}


def test_torchs_own_way_opens_a_store_to_everybody() -> None:
    """The control: why the way above is taken."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    found = psutil.Process().net_connections("inet")
    assert [one.laddr.ip for one in found if one.laddr.port == store.port and one.status == psutil.CONN_LISTEN] in (
        ["::"],
        ["0.0.0.0"],
    )


class Group:
    """Stands for Ray Train's worker group, on these nodes."""

    def __init__(self, *nodes: str) -> None:
        self.nodes, self.asked = nodes, list[str]()

    def __len__(self) -> int:
        return len(self.nodes)

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1}

    def execute(self, function: Any) -> list[str]:
        return list(self.nodes)

    def execute_single(self, rank: int, function: Any) -> str:
        self.asked.append(function.__name__)
        return "place"

    def execute_single_async(self, rank: int, function: Any, *given: Any, **named: Any) -> None:
        self.asked.append(f"{function.__name__} {given} {named['own_rank']} of {named['world']}")


@pytest.mark.parametrize(
    ("nodes", "asked"),
    [
        (["a"], []),
        (["a", "a"], ["meeting_file", "join ('gloo', 'place') 0 of 2", "join ('gloo', 'place') 1 of 2"]),
        (["a", "b"], ["listen", "join ('gloo', 'place') 0 of 2", "join ('gloo', 'place') 1 of 2"]),
    ],
)
def test_a_single_worker_has_no_group(monkeypatch: pytest.MonkeyPatch, nodes: list[str], asked: list[str]) -> None:
    monkeypatch.setattr(process_group.ray, "get", lambda futures: futures)
    group = Group(*nodes)
    process_group.PrivateBackend().on_start(group, process_group.PrivateTorchConfig())
    assert group.asked == asked
