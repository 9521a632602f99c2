"""What runs in each worker of a group that trains models together.

torch, timm and what needs them are imported by the work itself, not by this module: Ray Train's controller imports the
module too, and would take seconds for what it never uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from grid.cluster.work import CANNOT_IMPORT, import_work
from grid.errors import one_line

if TYPE_CHECKING:
    from grid.plan import Stage
    from grid.store.lease import Holds, Lease
    from grid.store.store import Store
    from grid.work.execute import Runtime
    from kd.machine.workers import Shard

NODE_ID_BYTES = 64
DIED = "its workers died too often (out of memory?); see Ray's logs"


class _PeerLostError(BaseException):
    """Another worker of the group is gone: no failure of this one's, so nothing that catches errors may record it."""


class DepartureError(RuntimeError):
    """A machine of the group is about to be taken away: Ray Train starts another group, which goes on."""


def train_in_turn(config: dict[str, Any]) -> None:
    """Do the stages of `config` in turn, waiting for one that another launch is at. An error of the code becomes the
    stage's failure and is not retried, nor is what a node cannot import. Ends early where the launch is to stop; raises
    DepartureError, once a checkpoint is stored, where a machine is about to go."""
    import ray.train

    from grid.plan import stage_from_json
    from grid.store.failures import record_failure
    from grid.store.store import Store
    from grid.work.execute import Runtime

    stages, store = [stage_from_json(text) for text in config["stages"]], Store(config["storage"])
    runtime = Runtime(**config["runtime"])
    try:
        import_work()
    except ImportError as error:
        for stage in stages:
            if not store.is_done(stage):
                record_failure(stage, store, f"{CANNOT_IMPORT}: {one_line(error)}", launch=runtime.launch)
        if ray.train.get_context().get_world_size() > 1:
            raise  # the others may wait for this one
    else:
        _train_in_turn(stages, store, runtime, threads=config["threads"])


def _train_in_turn(stages: list[Stage], store: Store, runtime: Runtime, *, threads: int) -> None:
    import ray
    import ray.train
    import torch
    from ray.train.torch import get_device

    from grid.cluster.nodes.departure import Departure
    from grid.cluster.retries import is_given_up
    from grid.store.failures import record_failure
    from grid.store.lease import LOOK_SECONDS, Leases, always
    from kd.machine.device import free_memory
    from kd.machine.workers import Shard, first_decides, gather_texts

    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = torch.device(str(get_device()))
    leases = Leases(store, runtime.launch, stop=runtime.stop)
    departure = Departure(gather_texts(ray.get_runtime_context().get_node_id(), shard, device, longest=NODE_ID_BYTES))
    for stage in stages:

        def wanted(stage: Stage = stage) -> bool:
            # A group that is started again finds what it had done, and what had failed.
            return not store.is_done(stage) and store.failure(stage, launch=runtime.launch) is None

        while first_decides(wanted, shard, device):
            if first_decides(leases.stopping, shard, device):
                return
            if first_decides(departure.is_near, shard, device):
                raise DepartureError
            lease = leases.take(stage.folder) if shard.rank == 0 else None
            try:
                if not first_decides(partial(bool, lease), shard, device):
                    time.sleep(LOOK_SECONDS * store.slowness)
                    continue
                tries = 1 if lease is None else lease.holder.tries
                if is_given_up(tries - 1):
                    record_failure(stage, store, DIED, launch=runtime.launch)

                def leave(lease: Lease | None = lease) -> bool:
                    return departure.is_near() or (leases.stopping() if lease is None else lease.leave())

                # What came in between the look and the lease was done by another launch.
                if first_decides(wanted, shard, device):
                    here = runtime.here(threads=threads, device=str(device), tries=tries)
                    _run(stage, store, here, shard, leave=leave, holds=always if lease is None else lease.holds)
            finally:
                if lease is not None:
                    lease.release()
            free_memory()


def _run(
    stage: Stage,
    store: Store,
    runtime: Runtime,
    shard: Shard,
    *,
    leave: Callable[[], bool],
    holds: Holds,
) -> None:
    import torch
    from ray.train.torch import prepare_model

    from grid.work.execute import execute
    from grid.work.run_stage import run_stage
    from kd.training.errors import StoppedError

    def work() -> None:
        try:
            run_stage(stage, store, runtime, leave=leave, holds=holds, shard=shard, wrap=prepare_model)
        except (torch.distributed.DistError, RuntimeError) as error:
            if shard.world > 1 and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
                raise _PeerLostError from error
            raise

    error = None
    try:
        error = execute(stage, store, runtime, work, holds=holds)
    except StoppedError as stopped:
        # A checkpoint is stored; or an error came after another launch took over.
        error = None if stopped.__cause__ is None else one_line(stopped.__cause__)
    except _PeerLostError as lost:
        raise RuntimeError("another worker was lost") from lost
    if shard.world > 1:
        if error is not None:
            # The others wait in a collective: the error must end the group.
            raise RuntimeError(error)
        # The first worker publishes what the others go on from.
        torch.distributed.barrier()
