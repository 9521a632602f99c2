"""What the data-parallel workers of one model tell each other: numbers and bytes, in tensors. torch's collectives for
objects unpickle what arrives, and a pickle of a stranger's would be run: a process group asks nobody for a password."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Shard:
    """Which part of each global batch this worker computes."""

    rank: int = 0
    world: int = 1


WHOLE = Shard()


def first_decides(decide: Callable[[], bool], shard: Shard, device: torch.device) -> bool:
    """The first worker decides for all, who might see something else for themselves; collective where there are
    several."""
    return bool(broadcast_number(lambda: int(decide()), shard, device))


def broadcast_number(decide: Callable[[], int], shard: Shard, device: torch.device) -> int:
    """A number of the first worker's, for all; collective where there are several."""
    if shard.world == 1:
        return decide()
    number = torch.tensor(decide() if shard.rank == 0 else 0, device=device)
    torch.distributed.broadcast(number, src=0)
    return int(number.item())


def first_reads(read: Callable[[], bytes | None], shard: Shard, device: torch.device) -> bytes | None:
    """Bytes, or None, that the first worker reads, for all; collective where there are several."""
    if shard.world == 1:
        return read()
    data = read() if shard.rank == 0 else None
    size = broadcast_number(lambda: -1 if data is None else len(data), shard, device)
    if size <= 0:
        return None if size < 0 else b""
    bytes_B = torch.empty(size, dtype=torch.uint8, device=device) if data is None else _tensor(data, size, device)
    torch.distributed.broadcast(bytes_B, src=0)
    return bytes_B.cpu().numpy().tobytes()


def gather_texts(text: str, shard: Shard, device: torch.device, *, longest: int) -> list[str]:
    """A short text of each worker's, for all, in the order of their ranks; collective where there are several. Raises
    ValueError for one of more than `longest` bytes."""
    data = text.encode()
    if len(data) > longest:
        raise ValueError(f"{text!r} has more than {longest} bytes")
    if shard.world == 1:
        return [text]
    texts = [torch.empty(longest, dtype=torch.uint8, device=device) for _ in range(shard.world)]
    torch.distributed.all_gather(texts, _tensor(data, longest, device))
    return [one.cpu().numpy().tobytes().rstrip(b"\0").decode() for one in texts]


def _tensor(data: bytes, size: int, device: torch.device) -> torch.Tensor:
    """uint8 [size], filled up with zeros."""
    return torch.frombuffer(bytearray(data.ljust(size, b"\0")), dtype=torch.uint8).to(device)
