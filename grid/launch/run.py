"""Run a plan: skip what is done, run the rest on Ray, and say what became of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console

from grid.contract.files.layout import PROGRESS
from grid.errors import UserError
from grid.interruption import STOP_SECONDS, on_first_signal
from grid.launch.launch import Launch, Options, Outcome
from grid.launch.machine_memory import check_address_space, short_of_memory
from grid.plan import Plan, Stage
from grid.plan.schedule import unneeded_stages
from grid.store.lease import Leases
from grid.store.plan_file import write_plan
from grid.store.standing import look, without_damaged_teachers
from grid.store.store import Store

if TYPE_CHECKING:
    from grid.cluster.nodes.fleet import Fleet
    from grid.launch.books import Books
    from grid.launch.launch_folder import LaunchFolder

log = logging.getLogger("kd_grid")

GRACE_SECONDS = 1.0


def run_grid(
    plan: Plan,
    store: Store,
    options: Options,
    console: Console,
    *,
    on_done: Callable[[Stage], None],
    on_lost_ray: Callable[[Outcome], None] | None,
) -> Outcome:
    """Run what is not done yet. on_done is told of every stage that finishes, from any thread. on_lost_ray is told what
    came of the launch where Ray is lost, from a thread, and must end the process: this function may never return then.
    None is for a process that goes on: Ray is left before this returns, and where it is lost, the main thread is
    interrupted, wherever it waits.

    Raises UserError before Ray starts for a model that cannot be built; errors of stages are in the outcome instead.
    """
    stands = without_damaged_teachers(plan, store, look(plan, store))
    for line in stands.lines:
        log.warning("%s", line)
        console.print(f"warning: {line}", markup=False, highlight=False)
    done = stands.done | unneeded_stages(plan, stands.done)
    if len(done) == len(plan.stages):
        write_plan(plan, store)
        return Outcome(plan, reused=len(done))
    # Models come with torch and timm: not before there is something to do.
    check_address_space()
    short = short_of_memory() if options.address is None else ""
    if short:
        console.print(f"warning: {short}", markup=False, highlight=False)
    from grid.launch.books import Books
    from grid.store.disk import check_room
    from grid.watch.preview import inspect_models, stage_bytes, stage_costs
    from grid.work.models import provide_weights
    from kd.checkpoint import CheckpointError
    from kd.models.build import ModelError

    with console.status("Checking the models"):
        facts = inspect_models(plan)
        costs, written = stage_costs(plan, facts), stage_bytes(plan, facts)
        check_room(plan, done, written, store)
        try:
            provide_weights(plan, done, store)
        except (ModelError, CheckpointError) as error:
            raise UserError(f"grid {plan.spec.name}: {error}") from None
    write_plan(plan, store)
    launch = Launch.of(plan, store, options)
    books = Books(launch, console, done=done, waits=stands.waits, costs=costs, on_done=on_done)
    return _Run(launch, books, console, on_lost_ray=on_lost_ray, written=written).run()


class _Run:
    """Ray, from its start to its end: the pool in the main thread, the lanes of teachers in others."""

    def __init__(
        self,
        launch: Launch,
        books: Books,
        console: Console,
        *,
        on_lost_ray: Callable[[Outcome], None] | None,
        written: Mapping[str, int],
    ) -> None:
        self.launch, self.books, self.console = launch, books, console
        self.plan, self.store, self.options = launch.plan, launch.store, launch.options
        self.schedule, self.outcome = books.schedule, books.outcome
        self._on_lost_ray, self.written = on_lost_ray, written
        self.leases = Leases(launch.store, launch.name, stop=launch.runtime.stop)
        self.folder: LaunchFolder
        self.stopped: list[Stage] = []

    def run(self) -> Outcome:
        if self._on_lost_ray is not None:
            return self._run()
        from grid.cluster.guest import check_free, leave_ray

        check_free()
        try:
            return self._run()
        finally:
            lanes = self.books.lanes
            if lanes is not None and lanes.are_alive:
                self.leases.stop()  # again: what told of it first went with the scratch folder
            leave_ray([] if lanes is None else lanes.threads)
            self.store.remove_folder(self.launch.scratch)

    def _run(self) -> Outcome:
        from grid.cluster.session import log_folder, quiet, session, session_folder
        from grid.launch.data import Preparation
        from grid.launch.launch_folder import launch_folder

        reporter, preparation = self.books.reporter, Preparation(self.launch, self.books, self.leases)
        try:
            with contextlib.ExitStack() as stack:
                quiet(self.options.address)
                self.folder = stack.enter_context(launch_folder(self.launch.name))
                preparation.start()
                with self.console.status("Starting Ray" if self.options.address is None else "Joining Ray"):
                    started = session(self.options.address, cpus=self.options.cpus, dashboard=self.options.dashboard)
                    stack.enter_context(started)
                    if self.options.address is None:
                        self.folder.owns_session(session_folder())
                    from grid.cluster.nodes.fleet import Fleet
                    from grid.cluster.nodes.preflight import check_own_worker
                    from grid.cluster.pulse import PATIENCE_SECONDS, Pulse, watched

                    fleet = Fleet(self.plan.spec.resources, say=reporter.say)
                    if self.options.address is not None:
                        self._check_nodes(fleet, self.options.address)
                    else:
                        check_own_worker()
                self.books.pulse = Pulse(patience=0 if self.options.address is None else PATIENCE_SECONDS)
                stack.enter_context(reporter)
                for stage in self.plan.stages:
                    if stage.is_given and self.schedule.state(stage) == "reused":
                        reporter.warn(stage, self.store.record(stage))
                self._interrupt = stack.enter_context(on_first_signal(self._stop))
                stack.enter_context(watched(self.books.pulse, self._ray_is_lost))
                log.info("launch %s; Ray's own logs: %s", self.launch.name, log_folder())
                reporter.time_left.slots = max(1, fleet.capacity().slots(0))
                preparation.wait()
                if self.schedule.state(self.plan.data) in ("done", "reused"):
                    self._run_stages(fleet)
                if self.outcome.failed:
                    self.folder.keep_session()
        except BaseException as error:
            self.schedule.stop()
            if not isinstance(error, KeyboardInterrupt) and self.outcome.lost_ray is None:
                raise
            self.outcome.interrupted = True
        else:
            self.outcome.interrupted = self.schedule.stopped and bool(self.schedule.pending())
        if not self.outcome.interrupted:
            for stage in self.schedule.pending():
                self.schedule.finish(stage, f"ended without a result; see {self.store.location(stage.folder)}")
        return self._concluded()

    def _run_stages(self, fleet: Fleet) -> None:
        from grid.cluster.nodes.packing import Packing
        from grid.cluster.pool.search import Pool, run_pool
        from grid.cluster.teachers.lanes import Lanes

        packing = Packing(self.plan, self.store, self.schedule, fleet.capacity)
        packing.measure()  # before teachers take the GPUs
        runtime, scratch = self.launch.runtime, str(self.folder.ray)
        lanes = Lanes(self.schedule, self.store, fleet.capacity(), ledger=self.books, runtime=runtime, scratch=scratch)
        self.books.lanes = lanes
        lanes.deal()
        try:
            if self.schedule.is_left("pool"):
                pool = Pool(self.schedule, self.store, fleet, packing, lanes, ledger=self.books, runtime=runtime)
                run_pool(pool, scratch=scratch)
            lanes.join()
        except BaseException:
            # Before the scratch folder goes: what that ends has been interrupted, it has not failed.
            self.schedule.stop()
            raise
        finally:
            self.store.remove_folder(self.launch.scratch)

    def _check_nodes(self, fleet: Fleet, address: str) -> None:
        from grid.cluster.nodes.preflight import Needs, check_nodes
        from grid.cluster.ray_internals.core import asks_for_token
        from grid.work.models import models_with_weights

        info, say = self.plan.data.dataset.info, self.books.reporter.say
        say(f"Ray at {address}: {fleet}")
        if not asks_for_token():
            say(f"warning: the Ray at {address} asks for no token: whoever reaches its ports can run code there")
        done = {stage for stage, state in self.schedule.states().items() if state in ("done", "reused")}
        models = [model for model in models_with_weights(self.plan, done) if model.pretrained]
        needs = Needs(
            pretrained=tuple((model.name, model.args) for model in models),
            classes=info.classes,
            channels=info.channels,
            kept=sum(self.written[stage.id] for stage in (self.plan.data, *self.plan.teachers, *self.plan.logits)),
        )
        check_nodes([node for node in fleet.nodes if node.works], self.store, needs)

    def _stop(self) -> None:
        """Hand out nothing more, and have what runs save a checkpoint and leave."""
        running = self.schedule.running()
        self.schedule.stop()
        what = "leaving"
        if running:
            limit = f"{STOP_SECONDS / 60:.0f} minutes at most"
            what = f"waiting for {len(running)} running stages to save a checkpoint, {limit}"
        self.books.reporter.say(f"Stopping: {what} (again to leave at once)")
        self.stopped = running
        self.leases.stop()

    def _ray_is_lost(self, reason: str) -> None:
        # What has sent SIGTERM to all processes at once, Ray's among them, has interrupted the launch as well.
        time.sleep(GRACE_SECONDS)
        self.outcome.interrupted = True
        if not self.schedule.stopped:
            self.stopped, self.outcome.lost_ray = self.schedule.running(), reason
            self.schedule.stop()
            self.folder.keep_session()
        log.error("%s", reason)
        self.books.reporter.__exit__(None, None, None)
        self.store.remove_folder(self.launch.scratch)
        if self._on_lost_ray is None:
            self._interrupt()
        else:
            self._on_lost_ray(self._concluded())

    def _concluded(self) -> Outcome:
        pending = {stage.id for stage in self.schedule.pending()}
        self.outcome.stopped_at = {s.id: self.books.reporter.how_far(s) for s in self.stopped if s.id in pending}
        for stage in self.stopped:
            self.store.remove(f"{stage.folder}/{PROGRESS}")  # it does not run any more
        self.outcome.errors = dict(self.schedule.errors)
        return self.outcome
