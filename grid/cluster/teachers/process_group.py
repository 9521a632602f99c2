"""The torch process group of a worker group, with as little open to others as torch allows.

Ray Train's own opens torch's TCPStore on all interfaces, for a single worker too, and neither the store nor gloo asks
for a password. Here a single worker has none. Workers of one node meet in a file that this user alone may open, and
talk over the loopback interface. Workers of several nodes meet at a store that listens on the first one's address in
the cluster alone: the network between nodes has to be private.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

from grid.private import machine_folder, private_folder

SHUTDOWN_SECONDS = 30.0

# The first worker's, from when it is asked for an address until the store takes it over.
_listening: socket.socket | None = None


@dataclass
class PrivateTorchConfig(TorchConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[Backend]:
        return PrivateBackend


class PrivateBackend(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        world = len(worker_group)
        if world == 1:
            return
        kind = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo"
        is_one_node = len(set(worker_group.execute(_node))) == 1
        place = worker_group.execute_single(0, meeting_file if is_one_node else listen)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, join, kind, place, own_rank=rank, world=world, seconds=backend_config.timeout_s
                )
                for rank in range(world)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        with contextlib.suppress(ray.exceptions.GetTimeoutError):  # one of them is gone, and the others wait for it
            ray.get(worker_group.execute_async(leave), timeout=SHUTDOWN_SECONDS)


def meeting_file() -> str:
    """Where workers of this node meet: a path that nobody else may open."""
    return str(private_folder(machine_folder() / "meeting") / uuid.uuid4().hex)


def listen() -> tuple[str, int]:
    """Where workers of several nodes meet: an address of this process, which listens there and nowhere else."""
    global _listening
    address = ray.util.get_node_ip_address()
    _listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    _listening.bind((address, 0))
    return address, int(_listening.getsockname()[1])


def join(kind: str, place: str | tuple[str, int], *, own_rank: int, world: int, seconds: float) -> None:
    """Join the process group of `world` workers that meet at a file or an address. kind: gloo or nccl."""
    from torch.distributed import FileStore, TCPStore, init_process_group  # type: ignore[attr-defined]

    timeout = timedelta(seconds=seconds)
    store: FileStore | TCPStore
    if isinstance(place, str):
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        for library in ("GLOO", "NCCL"):
            if loopback is not None:
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
        store = FileStore(place, world)
    else:
        host, port = place
        descriptor = _listening.detach() if own_rank == 0 and _listening is not None else None
        store = TCPStore(
            host,
            port,
            world,
            is_master=own_rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=descriptor,
        )
    init_process_group(kind, store=store, rank=own_rank, world_size=world, timeout=timeout)


def leave() -> None:
    import torch

    from kd.machine.device import free_memory

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    free_memory()


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
