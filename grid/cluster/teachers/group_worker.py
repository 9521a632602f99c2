"""What runs in each worker of a lane of teachers.

torch, timm and what needs them are imported by the work itself, not by this module: Ray Train's controller imports the
module too, and would take seconds for what it never uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from grid.cluster.work import import_work
from grid.errors import one_line

if TYPE_CHECKING:
    from grid.plan import Stage
    from grid.store.store import Store
    from grid.work.execute import Holds, Runtime
    from kd.machine.workers import Shard


NODE_ID_BYTES = 64
CANNOT_IMPORT = "its worker cannot import what it needs"
DIED = "its workers died too often (out of memory?); see Ray's logs"


class _PeerLostError(BaseException):
    """Another worker of the group is gone: no failure of this one's, so nothing that catches errors may record it."""


class DepartureError(RuntimeError):
    """A machine of the group is about to be taken away: Ray Train starts another group, which goes on."""


def train_lane(config: dict[str, Any]) -> None:
    """Do the stages of `config` in turn, waiting for one that another launch is at. An error of the code becomes the
    stage's failure and is not retried, nor is what a node cannot import. Ends early where the launch is to stop; raises
    DepartureError, once a checkpoint is stored, where a machine is about to go."""
    import ray.train

    from grid.plan import stage_from_json
    from grid.store.failures import record_failure
    from grid.store.store import Store

    try:
        import_work()
    except ImportError as error:
        store, launch = Store(config["storage"]), config["run"]["launch"]
        for stage in map(stage_from_json, config["stages"]):
            if not store.is_done(stage):
                record_failure(stage, store, f"{CANNOT_IMPORT}: {one_line(error)}", launch=launch)
        if ray.train.get_context().get_world_size() > 1:
            raise  # the others may wait for this one
    else:
        _train_lane(config)


def _train_lane(config: dict[str, Any]) -> None:
    import ray
    import ray.train
    import torch
    from ray.train.torch import get_device

    from grid.cluster.nodes.capacity import MAX_WORKER_DEATHS
    from grid.cluster.nodes.departure import Departure
    from grid.plan import stage_from_json
    from grid.store.failures import record_failure
    from grid.store.lease import LOOK_SECONDS, Lease, Leases
    from grid.store.store import Store
    from grid.work.execute import Runtime, always, free_gpu
    from kd.machine.workers import Shard, all_say, first_decides

    store = Store(config["storage"])
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    runtime = Runtime.here(threads=config["threads"], **config["run"], device=str(get_device()))
    device = torch.device(runtime.device)
    leases = Leases(store, runtime.launch, stop=runtime.stop)
    departure = Departure(all_say(ray.get_runtime_context().get_node_id(), shard, device, longest=NODE_ID_BYTES))
    failed: set[str] = set()
    for text in config["stages"]:
        stage = stage_from_json(text)

        def wanted(stage: Stage = stage) -> bool:
            # A group that is started again finds what it had done, and what had failed.
            settled = store.is_done(stage) or store.failure(stage, launch=runtime.launch) is not None
            return not settled and not failed & set(stage.inputs().values())

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
                if tries > MAX_WORKER_DEATHS + 1:
                    record_failure(stage, store, DIED, launch=runtime.launch)

                def leave(lease: Lease | None = lease) -> bool:
                    return departure.is_near() or (leases.stopping() if lease is None else lease.leave())

                # What came in between the look and the lease was done by another launch.
                if first_decides(wanted, shard, device):
                    holds = always if lease is None else lease.holds
                    _run(stage, store, replace(runtime, tries=tries), shard, leave=leave, holds=holds)
            finally:
                if lease is not None:
                    lease.release()
            free_gpu()
        if not store.is_done(stage):
            failed.add(stage.id)


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

    from grid.plan import LogitsStage, TeacherStage
    from grid.work.execute import execute, run_logits
    from grid.work.training import run_trainable
    from kd.train import StoppedError

    def work() -> None:
        try:
            if isinstance(stage, TeacherStage):
                run_trainable(stage, store, runtime, leave=leave, holds=holds, shard=shard, wrap=prepare_model)
            elif isinstance(stage, LogitsStage):
                run_logits(stage, store, runtime, leave=leave, holds=holds, shard=shard)
        except (torch.distributed.DistError, RuntimeError) as error:
            if shard.world > 1 and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
                raise _PeerLostError from error
            raise

    error = None
    try:
        error = execute(stage, store, runtime, work, holds=holds)
    except StoppedError as stopped:
        # A checkpoint is stored, or it is between two files of logits; or an error came after another launch took over.
        error = None if stopped.__cause__ is None else one_line(stopped.__cause__)
    except _PeerLostError as lost:
        raise RuntimeError("another worker was lost") from lost
    if shard.world > 1:
        if error is not None:
            # The others wait in a collective: the error must end the group.
            raise RuntimeError(error)
        # The first worker publishes what the others go on from.
        torch.distributed.barrier()
