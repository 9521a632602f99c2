"""Train a teacher with Ray Train: one TorchTrainer a teacher, 1..N data-parallel workers."""

from __future__ import annotations

import logging
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from grid.cluster.session import MAX_WORKER_DEATHS, Capacity
from grid.errors import one_line
from grid.plan import TeacherStage, stage_from_json, stage_to_json
from grid.stages import Runtime, execute, run_trainable
from grid.store import Store
from kd.train import Shard

log = logging.getLogger("kd_grid")


def train_teacher(
    stage: TeacherStage, store: Store, capacity: Capacity, *, scratch: str, run: dict[str, str]
) -> str | None:
    """Returns None, or the error on one line. Worker deaths are retried from the teacher's own checkpoint."""
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "stage": stage_to_json(stage),
            "storage": store.url,
            "threads": capacity.teacher_worker.cpus,
            "run": run,
        },
        scaling_config=ScalingConfig(
            num_workers=capacity.teacher_workers,
            use_gpu=capacity.teacher_worker.gpus > 0,
            resources_per_worker=capacity.teacher_worker.as_dict(),
        ),
        run_config=RunConfig(
            name=f"teacher-{stage.id}",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=MAX_WORKER_DEATHS),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray's own failures, after its retries
        if store.is_done(stage):
            log.warning("teacher %s is done; Ray Train ended with %s", stage.id, error)
            return None
        return one_line(error)
    if store.is_done(stage):
        return None
    failure = store.failure(stage, launch=run["launch"])
    return str(failure["error"]) if failure else "its workers ended without a result"


class _PeerLostError(BaseException):
    """Another worker of the group is gone: no failure of this one's, so nothing that catches errors may record it."""


def _worker(config: dict[str, Any]) -> None:
    """Runs in each Ray Train worker. An error of the code becomes the stage's failure and is not retried."""
    from ray.train.torch import get_device, prepare_model

    stage = stage_from_json(config["stage"])
    assert isinstance(stage, TeacherStage)
    store = Store(config["storage"])
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    runtime = Runtime.here(threads=config["threads"], **config["run"], device=str(get_device()))

    def work() -> None:
        try:
            run_trainable(stage, store, runtime, shard=shard, wrap=prepare_model)
        except (torch.distributed.DistError, RuntimeError) as error:
            if shard.world > 1 and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
                raise _PeerLostError from error
            raise

    # After an error of the code Ray restarts the group: it must not try again.
    if shard.world > 1 and store.failure(stage, launch=runtime.launch) is not None:
        return
    try:
        error = execute(stage, store, runtime, work)
    except _PeerLostError as lost:
        raise RuntimeError("another worker was lost") from lost
    if error is not None and shard.world > 1:
        # The others wait in a collective: the error must end the group.
        raise RuntimeError(error)
