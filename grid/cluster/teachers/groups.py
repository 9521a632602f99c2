"""Train teachers with Ray Train: one TorchTrainer a lane, whose 1..N data-parallel workers take the lane's teachers in
turn. Starting a worker group costs seconds; it is paid once."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from grid.cluster.ledger import Ledger
from grid.cluster.lost_groups import free_what_lost_groups_held
from grid.cluster.nodes.capacity import Capacity
from grid.cluster.nodes.memory_kills import in_short
from grid.cluster.ray_internals.train import carry_training_functions
from grid.cluster.retries import TRIES
from grid.cluster.teachers.group_worker import train_in_turn
from grid.cluster.teachers.process_group import PrivateTorchConfig
from grid.contract.files.layout import FAILURE, RECORD
from grid.contract.text import on_one_line
from grid.errors import one_line
from grid.plan import Stage, stage_to_json
from grid.store.store import Store
from grid.work.execute import Runtime

log = logging.getLogger("kd_grid")

POLL_SECONDS = 0.2


# Ray Train would put the training function into the object store. A process that owns an object there is ended by Ray,
# with status 1 and without a word, as soon as its node ends: of a launch that would be before it has said how to go on.
carry_training_functions()


def run_in_turn(
    stages: list[Stage], store: Store, capacity: Capacity, *, scratch: str, runtime: Runtime, ledger: Ledger
) -> threading.Thread | None:
    """Do stages in turn. Returns what is left to wait for: the thread in which the last group ends, whose resources are
    free already.

    Worker deaths are retried from the stage's own checkpoint, and so is the loss of the group's controller; a group
    that dies for good fails the stage it was at, and another group does the rest.
    """
    group: _Group | None = None

    def another(place: int) -> _Group:
        if group is not None:
            group.thread.join()
        return _Group(stages[place:], store, capacity, scratch=scratch, runtime=runtime)

    for place, stage in enumerate(stages):
        if not ledger.start(stage):
            continue
        if group is None or (group.ended and not group.has_settled(stage)):
            group = another(place)
        error = group.wait(stage)
        for _ in range(TRIES - 1):
            if error is None or group.has_settled(stage) or not group.is_lost:
                break
            group = another(place)
            error = group.wait(stage)
        ledger.finish(stage, error)
    return None if group is None else group.thread


class _Group:
    """A worker group at work on some stages, seen through the store."""

    def __init__(
        self, stages: list[Stage], store: Store, capacity: Capacity, *, scratch: str, runtime: Runtime
    ) -> None:
        self.store, self.launch = store, runtime.launch
        self.error: str | None = None
        self.is_lost = False
        self.trainer = TorchTrainer(
            train_in_turn,
            train_loop_config={
                "stages": [stage_to_json(stage) for stage in stages],
                "storage": store.url,
                "threads": capacity.teacher_worker.cpus,
                "runtime": asdict(runtime),
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
                failure_config=FailureConfig(max_failures=TRIES * len(stages)),
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
