"""Run a plan: skip what is done, run the rest on Ray, and say what became of it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console

from grid.contract.layout import PROGRESS, grid_folder
from grid.contract.program.version import code_version
from grid.errors import UserError, one_line
from grid.interruption import STOP_SECONDS, on_first_signal
from grid.launch.launch_folder import LaunchFolder, launch_folder
from grid.launch.machine_memory import check_address_space, short_of_memory
from grid.plan import Plan, Stage
from grid.plan.schedule import Schedule, State, TeacherJob, unneeded_logits
from grid.store.failures import record_failure
from grid.store.lease import LOOK_SECONDS, Leases
from grid.store.plan_file import write_plan
from grid.store.standing import look, of_other_inputs, without_damaged_teachers
from grid.store.store import Inputs, Store
from kd.machine.alive import tell_alive

if TYPE_CHECKING:
    from grid.cluster.nodes.capacity import Capacity
    from grid.cluster.nodes.fleet import Fleet
    from grid.cluster.pulse import Pulse
    from grid.cluster.session import Dashboard

log = logging.getLogger("kd_grid")

GRACE_SECONDS = 1.0


@dataclass
class Outcome:
    """What a launch did. reused: stages that were done before; errors: by stage id, of failed and blocked stages; left:
    by stage id, how far those were that an interruption ended. lost_ray: how Ray was lost, where that interrupted it.
    lost_workers: how many were lost at stages that are done now."""

    plan: Plan
    reused: int
    done: int = 0
    failed: list[Stage] = field(default_factory=list)
    blocked: list[Stage] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    left: dict[str, str] = field(default_factory=dict)
    lost_ray: str | None = None
    lost_workers: int = 0


@dataclass(frozen=True)
class Options:
    """address: of a running Ray, None to start one here. cpus, dashboard: of the Ray started here."""

    address: str | None = None
    cpus: int | None = None
    dashboard: Dashboard | None = None


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
    done = set(stands.done)
    done |= unneeded_logits(plan, done)
    outcome = Outcome(plan, reused=len(done))
    if len(done) == len(plan.stages):
        write_plan(plan, store)
        return outcome
    # Models come with torch and timm: not before there is something to do.
    check_address_space()
    short = short_of_memory() if options.address is None else ""
    if short:
        console.print(f"warning: {short}", markup=False, highlight=False)
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
    run = _Run(
        plan,
        store,
        options,
        console,
        on_done=on_done,
        on_lost_ray=on_lost_ray,
        done=done,
        waits=stands.waits,
        costs=costs,
        written=written,
        outcome=outcome,
    )
    return run.run()


class _Run:
    """One launch: the teachers' lanes in threads, the cells in the main thread."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        options: Options,
        console: Console,
        *,
        on_done: Callable[[Stage], None],
        on_lost_ray: Callable[[Outcome], None] | None,
        done: set[str],
        waits: frozenset[str],
        costs: dict[str, float],
        written: dict[str, int],
        outcome: Outcome,
    ) -> None:
        from grid.watch.progress import Reporter

        self.plan, self.store, self.options, self.console = plan, store, options, console
        self.outcome, self._on_done, self._on_lost_ray = outcome, on_done, on_lost_ray
        self.done, self.waits, self.written = done, waits, written
        self.reporter = Reporter(plan, store, console, done=done, costs=costs)
        self.schedule = Schedule(plan, done=done, costs=costs, observer=self)
        self.launch = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        self.scratch = f"{grid_folder(plan.spec.name)}/ray/{self.launch}"
        self.run_facts: dict[str, Any] = {
            "launch": self.launch,
            "code_version": code_version(),
            "checkpoint_minutes": plan.spec.resources.checkpoint_minutes,
            "stall_minutes": plan.spec.resources.stall_minutes,
            "deterministic": plan.spec.resources.deterministic,
            "stop": f"{self.scratch}/stop",
        }
        self.leases = Leases(store, self.launch, stop=self.run_facts["stop"])
        self.busy, self.lock = 0, threading.Lock()
        self.lanes: list[threading.Thread] = []
        self.folder: LaunchFolder
        self.prepared = threading.Event()
        self.stopped: list[Stage] = []
        self.pulse: Pulse | None = None

    def on_change(self, stage: Stage, state: State, error: str | None) -> None:
        record = None
        if state == "done":
            record = self.store.record(stage)
            if record.launch == self.launch:
                self.outcome.done += 1
                self.outcome.lost_workers += (record.tries or 1) - 1
            else:
                self.outcome.reused += 1  # another launch was at it
            self._on_done(stage)
        elif state == "reused":
            self.outcome.reused += 1
        elif state == "failed":
            self.outcome.failed.append(stage)
        elif state == "blocked":
            self.outcome.blocked.append(stage)
        try:
            self.reporter.on_change(stage, state, error, record)
        except Exception:  # what cannot be shown must not end the thread that does the work
            log.exception("stage %s could not be reported as %s", stage.id, state)

    def run(self) -> Outcome:
        if self._on_lost_ray is not None:
            return self._run()
        from grid.cluster.guest import check_free, leave_ray

        check_free()
        try:
            return self._run()
        finally:
            if any(lane.is_alive() for lane in self.lanes):
                self.leases.stop()  # again: what told of it first went with the scratch folder
            leave_ray(self.lanes)
            self.store.remove_folder(self.scratch)

    def _run(self) -> Outcome:
        from grid.cluster.session import log_folder, quiet, session, session_folder

        preparing = threading.Thread(target=self._prepare, name="prepare", daemon=True)
        try:
            with contextlib.ExitStack() as stack:
                quiet(self.options.address)
                self.folder = stack.enter_context(launch_folder(self.launch))
                preparing.start()
                with self.console.status("Starting Ray" if self.options.address is None else "Joining Ray"):
                    started = session(self.options.address, cpus=self.options.cpus, dashboard=self.options.dashboard)
                    stack.enter_context(started)
                    if self.options.address is None:
                        self.folder.owns_session(session_folder())
                    from grid.cluster.nodes.fleet import Fleet
                    from grid.cluster.nodes.preflight import check_own_worker
                    from grid.cluster.pulse import PATIENCE_SECONDS, Pulse, watched

                    fleet = Fleet(self.plan.spec.resources, say=self.reporter.say)
                    if self.options.address is not None:
                        self._check_nodes(fleet, self.options.address)
                    else:
                        check_own_worker()
                self.pulse = Pulse(patience=0 if self.options.address is None else PATIENCE_SECONDS)
                stack.enter_context(self.reporter)
                for teacher in self.plan.teachers:
                    if teacher.id in self.done and teacher.model.is_given:
                        self.reporter.warn(teacher, self.store.record(teacher))
                self._interrupt = stack.enter_context(on_first_signal(self._stop))
                stack.enter_context(watched(self.pulse, self._ray_is_lost))
                log.info("launch %s; Ray's own logs: %s", self.launch, log_folder())
                self.reporter.estimate.slots = max(1, fleet.capacity().slots(0))
                self.prepared.wait()
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

    def _concluded(self) -> Outcome:
        pending = {stage.id for stage in self.schedule.pending()}
        self.outcome.left = {s.id: self.reporter.how_far(s) for s in self.stopped if s.id in pending}
        for stage in self.stopped:
            self.store.remove(f"{stage.folder}/{PROGRESS}")  # it does not run any more
        self.outcome.errors = dict(self.schedule.errors)
        return self.outcome

    def _ray_is_lost(self, reason: str) -> None:
        # What has sent SIGTERM to all processes at once, Ray's among them, has interrupted the launch as well.
        time.sleep(GRACE_SECONDS)
        self.outcome.interrupted = True
        if not self.schedule.stopped:
            self.stopped, self.outcome.lost_ray = self.schedule.running(), reason
            self.schedule.stop()
            self.folder.keep_session()
        log.error("%s", reason)
        self.reporter.__exit__(None, None, None)
        self.store.remove_folder(self.scratch)
        if self._on_lost_ray is None:
            self._interrupt()
        else:
            self._on_lost_ray(self._concluded())

    def _check_nodes(self, fleet: Fleet, address: str) -> None:
        from grid.cluster.nodes.preflight import Needs, check_nodes
        from grid.cluster.ray_internals.core import asks_for_token
        from grid.work.models import models_with_weights

        info = self.plan.data.dataset.info
        self.reporter.say(f"Ray at {address}: {fleet}")
        if not asks_for_token():
            self.reporter.say(
                f"warning: the Ray at {address} asks for no token: whoever reaches its ports can run code there"
            )
        models = [model for model in models_with_weights(self.plan, self.done) if model.pretrained]
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
        self.reporter.say(f"Stopping: {what} (again to leave at once)")
        self.stopped = running
        self.leases.stop()

    def _run_stages(self, fleet: Fleet) -> None:
        from grid.cluster.cells.pool import run_cells
        from grid.cluster.nodes.packing import Packing

        packing, capacity = Packing(self.plan, self.store, self.schedule, fleet.capacity), fleet.capacity()
        packing.measure()  # before teachers take the GPUs
        location = str(self.folder.ray)
        jobs = self.schedule.teacher_jobs()
        self.lanes = [
            threading.Thread(target=self._lane, args=(lane, capacity, location), name=f"teachers-{i}", daemon=True)
            for i, lane in enumerate(self.schedule.lanes(capacity.lanes(len(jobs))))
        ]
        self.busy = len(self.lanes)
        for lane in self.lanes:
            lane.start()
        try:
            if self.schedule.cells_left():
                run_cells(
                    self.schedule,
                    self.store,
                    fleet,
                    packing,
                    busy_lanes=lambda: self.busy,
                    finish=self._finish,
                    say=lambda cell, text: self.reporter.say(f"{self.reporter.titles[cell.id]}: {text}"),
                    scratch=location,
                    run=self.run_facts,
                )
            for lane in self.lanes:
                lane.join()
        except BaseException:
            # Before the scratch folder goes: what that ends has been interrupted, it has not failed.
            self.schedule.stop()
            raise
        finally:
            self.store.remove_folder(self.scratch)

    def _prepare(self) -> None:
        """Runs in a thread. Whatever becomes of it, the launch does not wait for it any more."""
        try:
            self._make_data()
            import grid.cluster.cells.pool
            import grid.cluster.teachers.groups  # noqa: F401 (what takes seconds)
        finally:
            self.prepared.set()

    def _make_data(self) -> None:
        """Make the data set while Ray starts."""
        data = self.plan.data
        if self.schedule.state(data) != "reused":
            from grid.work.execute import Runtime, execute, prepare_dataset
            from kd.train import StoppedError

            self.schedule.start(data)
            runtime = Runtime(**self.run_facts)

            def work() -> None:
                # Another launch may be at it, or just have done it.
                while not self.store.is_done(data):
                    lease = self.leases.take(data.folder)
                    if lease is None:
                        time.sleep(LOOK_SECONDS * self.store.slowness)
                        tell_alive()
                        continue
                    with lease, contextlib.suppress(StoppedError):  # by another launch that has taken it over
                        prepare_dataset(data, self.store, runtime, holds=lease.holds)

            def give_up(error: str) -> None:
                self._finish(data, error)
                self.prepared.set()  # this thread hangs, and nothing ends a thread

            error = execute(data, self.store, runtime, work, on_stall=give_up)
            if not self.prepared.is_set():  # else it went on after it had been given up
                self._finish(data, error)

    def _lane(self, jobs: list[TeacherJob], capacity: Capacity, scratch: str) -> None:
        """Train teachers and compute their logits, one after the other."""
        from grid.cluster.teachers.groups import run_lane

        group = None
        try:
            group = run_lane(
                jobs,
                self.store,
                capacity,
                scratch=scratch,
                run=self.run_facts,
                start=self._start,
                finish=self._finish,
            )
        except Exception as problem:
            log.exception("a lane of teachers ended early")
            for stage in (stage for job in jobs for stage in job.stages):
                if self.schedule.state(stage) in ("waiting", "running"):
                    self._finish(stage, one_line(problem))
        finally:
            with self.lock:
                self.busy -= 1
        if group is not None:
            group.join()

    def _start(self, stage: Stage) -> bool:
        """Mark a stage as running, unless a failure has blocked it or nothing more is to be done."""
        wanted = self.schedule.state(stage) == "waiting" and not self.schedule.stopped
        if wanted:
            self.schedule.start(stage)
        return wanted

    def _finish(self, stage: Stage, error: str | None) -> None:
        recorded = error is None or self.store.failure(stage, launch=self.launch) is not None
        if not recorded and (self.schedule.stopped or (self.pulse is not None and self.pulse.loss() is not None)):
            return  # interrupted, not failed
        if not recorded:
            # Its worker died before it could write a record of its own.
            record_failure(stage, self.store, str(error), launch=self.launch)
        if error is None and self.waits:
            self._reuse(stage)
        self.schedule.finish(stage, error)

    def _reuse(self, made: Stage) -> None:
        """Of the stages that were complete but for one that was made again, reuse those that learned from the very same
        and say how many did not."""
        inputs, others = Inputs(self.store), []
        finished = {i for i, state in self.schedule.states().items() if state in ("done", "reused")} | {made.id}
        for stage in self.plan.stages:
            known = all(of is None or of.id in finished for of in (stage.images, stage.source))
            if stage.id not in self.waits or stage.id in finished or not known:
                continue
            standing = self.store.standing(stage, inputs)
            if standing.is_done and self.schedule.reuse(stage):
                finished.add(stage.id)
            elif made.id in {of.id for of in (stage.images, stage.source) if of is not None}:
                others.append((stage, standing))
        for stage in self.plan.logits:
            if stage.id in unneeded_logits(self.plan, finished) - finished:
                self.schedule.reuse(stage)
        for line in of_other_inputs(others, self.plan, self.store):
            log.warning("%s", line)
            self.reporter.say(f"warning: {line}")
