"""Train teachers with Ray Train and compute their logits: one TorchTrainer a lane, whose 1..N data-parallel workers
take the lane's teachers in turn. Starting a worker group costs seconds; it is paid once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from grid.cluster.lost_groups import free_what_lost_groups_held
from grid.cluster.nodes.capacity import MAX_WORKER_DEATHS, Capacity
from grid.cluster.nodes.memory_kills import in_short
from grid.cluster.ray_internals.train import carry_training_functions
from grid.cluster.teachers.group_worker import train_lane
from grid.cluster.teachers.process_group import PrivateTorchConfig
from grid.cluster.work import import_work
from grid.contract.layout import FAILURE, RECORD
from grid.contract.text import on_one_line
from grid.errors import one_line
from grid.plan import LogitsStage, Stage, stage_from_json, stage_to_json
from grid.plan.schedule import TeacherJob
from grid.store.lease import Leases
from grid.store.store import Store

log = logging.getLogger("kd_grid")

POLL_SECONDS = 0.2


# Ray Train would put the training function into the object store. A process that owns an object there is ended by Ray,
# with status 1 and without a word, as soon as its node ends: of a launch that would be before it has said how to go on.
carry_training_functions()


def run_lane(
    jobs: list[TeacherJob],
    store: Store,
    capacity: Capacity,
    *,
    scratch: str,
    run: dict[str, Any],
    start: Callable[[Stage], bool],
    finish: Callable[[Stage, str | None], None],
) -> threading.Thread | None:
    """Do a lane's jobs in turn. start(stage) says whether it is still wanted; finish is told the error on one line.
    Returns what is left to wait for: the last group's end, for which its resources need not.

    Worker deaths are retried from the stage's own checkpoint, and so is the loss of the group's controller; a group
    that dies for good fails the stage it was at, and another group does the rest.
    """
    stages: list[Stage] = [stage for job in jobs for stage in job.stages]
    failed: set[str] = set()
    group: _Group | None = None

    def another(place: int) -> _Group:
        if group is not None:
            group.thread.join()
        possible = [later for later in stages[place:] if not failed & set(later.inputs().values())]
        return _Group(possible, store, capacity, scratch=scratch, run=run)

    for place, stage in enumerate(stages):
        if not start(stage):
            continue
        if group is None or (group.ended and not group.has_settled(stage)):
            group = another(place)
        helpers = _help(stage, store, capacity, run) if isinstance(stage, LogitsStage) else []
        error = group.wait(stage)
        for _ in range(MAX_WORKER_DEATHS):
            if error is None or group.has_settled(stage) or not group.is_lost:
                break
            group = another(place)
            error = group.wait(stage)
        if error is not None:
            failed.add(stage.id)
        finish(stage, error)
        for helper in helpers:
            ray.cancel(helper)  # whatever it has not begun, the group has done
    return None if group is None else group.thread


class _Group:
    """A worker group at work on some stages, seen through the store."""

    def __init__(
        self, stages: list[Stage], store: Store, capacity: Capacity, *, scratch: str, run: dict[str, Any]
    ) -> None:
        self.store, self.launch = store, run["launch"]
        self.error: str | None = None
        self.is_lost = False
        self.trainer = TorchTrainer(
            train_lane,
            train_loop_config={
                "stages": [stage_to_json(stage) for stage in stages],
                "storage": store.url,
                "threads": capacity.teacher_worker.cpus,
                "run": run,
            },
            torch_config=PrivateTorchConfig(),
            scaling_config=ScalingConfig(
                num_workers=capacity.most if capacity.fewest == capacity.most else (capacity.fewest, capacity.most),
                use_gpu=capacity.teacher_worker.gpus > 0,
                resources_per_worker=capacity.teacher_worker.as_dict(),
            ),
            run_config=RunConfig(
                name=f"teachers-{stages[0].id}",
                storage_path=scratch,
                # So often may each stage lose its workers, which the lane itself counts; with several workers, an
                # error of the code ends the group as well.
                failure_config=FailureConfig(max_failures=(MAX_WORKER_DEATHS + 1) * len(stages)),
            ),
        )
        self.thread = threading.Thread(target=self._fit, name=f"group-{stages[0].id}", daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            self.trainer.fit()
        # Its controller, which Ray Train does not replace, is lost, or was ended for lack of memory.
        except ray.exceptions.RayActorError as error:
            self._lost(one_line(error))
        except ray.exceptions.OutOfMemoryError as error:
            self._lost(on_one_line(in_short(error)))
        except Exception as error:  # Ray's own failures, after its retries
            self.error = one_line(error)
            log.warning("worker group %s ended: %s", self.thread.name, self.error)

    def _lost(self, why: str) -> None:
        log.warning("worker group %s has lost its controller: %s", self.thread.name, why)
        free_what_lost_groups_held()
        self.error, self.is_lost = why, True

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def has_settled(self, stage: Stage) -> bool:
        return self.store.is_done(stage) or self.store.failure(stage, launch=self.launch) is not None

    def wait(self, stage: Stage) -> str | None:
        """Until the stage is done (None) or failed (why)."""
        while True:
            ended = self.ended
            there = self.store.names(stage.folder)
            if RECORD in there and self.store.is_done(stage):
                return None
            failure = self.store.failure(stage, launch=self.launch) if FAILURE in there else None
            if failure is not None:
                return str(failure.error)
            if ended:
                return self.error or "its workers ended without a result"
            time.sleep(POLL_SECONDS * self.store.slowness)


def _help(stage: LogitsStage, store: Store, capacity: Capacity, run: dict[str, Any]) -> list[Any]:
    """Put devices that are free at this moment to work on a teacher's logits, beside the group."""
    share, group = capacity.teacher_worker, capacity.most
    free = capacity.fitting(share, ray.available_resources())
    parts = group + min(free, max(0, len(stage.units) - group))
    # max_calls: such a process would keep what it holds of a GPU.
    task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0, max_calls=1)(_units)
    return [
        task.remote(stage_to_json(stage), store.url, share.cpus, run, part=part, parts=parts)
        for part in range(group, parts)
    ]


def _units(stage_json: str, storage: str, threads: int, run: dict[str, Any], *, part: int, parts: int) -> None:
    import_work()
    from grid.work.execute import Runtime, run_logits
    from kd.machine.workers import Shard
    from kd.train import StoppedError

    stage = stage_from_json(stage_json)
    assert isinstance(stage, LogitsStage)
    store, runtime = Store(storage), Runtime.here(threads=threads, **run)
    leave = Leases(store, runtime.launch, stop=runtime.stop).stopping
    with contextlib.suppress(StoppedError):
        run_logits(stage, store, runtime, leave=leave, shard=Shard(part, parts))
