"""What a person sees while a grid runs: bars and an estimate on a terminal, plain lines when piped."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from grid.contract.files.layout import PROGRESS
from grid.contract.parsing import parse_object, parse_progress
from grid.contract.record import Record
from grid.contract.units import duration
from grid.identity import canonical_json
from grid.plan import Plan, Stage
from grid.plan.schedule import StageState
from grid.store.store import Store

POLL_SECONDS = 1.0

WIDE, WIDE_BAR, NARROW_BAR = 80, 28, 8  # columns of a terminal


ENOUGH, LEAST_BUSY = 10, 0.05


class TimeLeft:
    """Seconds left, from what finished stages took: a stage is expected to take what others of its model and recipe
    took, or else its share of work at the pace so far. Once enough have ended, what lies between stages counts as well:
    where they are short it is half of the time."""

    def __init__(self, costs: Mapping[str, float]) -> None:
        self.costs = costs
        self.slots = 1
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._seconds = self._cost = 0.0
        self._first = self._last = math.inf
        self._since_first: list[float] = []

    def add(self, stage: Stage, seconds: float, *, at: float | None = None) -> None:
        """at: when it ended, by a clock that runs on."""
        if at is not None and stage.needs:  # Ray starts after the data set
            if self._first < math.inf:
                self._since_first.append(seconds)
            self._first, self._last = min(self._first, at), at
        self._taken[self._key(stage)].append(seconds)
        self._seconds += seconds
        self._cost += self.costs.get(stage.id, 0.0)

    def expected_seconds(self, stage: Stage) -> float | None:
        taken = self._taken.get(self._key(stage))
        if taken:
            return sum(taken) / len(taken)
        if not self._cost:
            return None
        return self.costs.get(stage.id, 0.0) * self._seconds / self._cost

    def seconds_for(self, waiting: list[Stage], running: Mapping[str, tuple[Stage, float]]) -> float | None:
        """None while nothing has finished. `running`: stage and the fraction of it that is done, by id."""
        work, longest, begun = 0.0, 0.0, 0.0
        for stage, fraction in [*((s, 0.0) for s in waiting), *running.values()]:
            expected = self.expected_seconds(stage)
            if expected is None:
                return None
            work += expected * (1 - fraction)
            longest = max(longest, expected * (1 - fraction))
            begun += expected * fraction
        return max(work / self.slots / self._busy(begun), longest)

    def _busy(self, begun: float) -> float:
        """The share of the slots' time that stages took by their own records; begun: seconds of those that run."""
        passed = (self._last - self._first) * self.slots
        if len(self._since_first) < ENOUGH or passed <= 0:
            return 1.0
        return min(1.0, max(LEAST_BUSY, (sum(self._since_first) + begun) / passed))

    @staticmethod
    def _key(stage: Stage) -> str:
        return canonical_json(stage.alike)


def _text(template: str) -> TextColumn:
    """Folded where there is no room, for a title that is cut may be that of several stages."""
    return TextColumn(template, table_column=Column(overflow="fold"))


class Reporter:
    """Observes a schedule and tells the user. Use as a context manager around the run."""

    def __init__(
        self, plan: Plan, store: Store, console: Console, *, done: set[str], costs: Mapping[str, float]
    ) -> None:
        self.store, self.console = store, console
        self.titles = plan.titles()
        self.time_left = TimeLeft(costs)
        self.waiting = {stage.id: stage for stage in plan.stages if stage.id not in done}
        self.running: dict[str, tuple[Stage, float]] = {}
        self.total, self.finished = len(self.waiting), 0
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None
        self._overall: TaskID | None = None
        if console.is_terminal:
            columns = (
                _text("{task.description}"),
                BarColumn(bar_width=WIDE_BAR if console.width >= WIDE else NARROW_BAR),
                _text("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
                _text("{task.fields[note]}"),
            )
            self._bars = Progress(*columns, console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
            self._overall = self._bars.add_task("[bold]grid", total=self.total, unit="stages", note="")
        self._watcher = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        if self._bars is not None:
            self._bars.stop()

    def on_change(self, stage: Stage, state: StageState, error: str | None, record: Record | None = None) -> None:
        """record: of a stage that is done, where it has been read."""
        with self._lock:
            self.waiting.pop(stage.id, None)
            if state == "running":
                self._started(stage)
            elif state == "waiting":
                self._given_back(stage)
            elif state == "reused":
                self.total -= 1
            elif state == "done":
                record = self.store.record(stage) if record is None else record
                self._ended(stage, self._result(stage, record), style="green")
                self.warn(stage, record)
            elif state == "failed":
                self._ended(stage, f"FAILED: {error}", style="red")
            elif state == "blocked":
                self._ended(stage, error or "not run", style="yellow")

    def _started(self, stage: Stage) -> None:
        self.running[stage.id] = (stage, 0.0)
        if self._bars is not None and stage.steps is not None:
            total, unit = stage.steps
            title = escape(self.titles[stage.id])
            self._tasks[stage.id] = self._bars.add_task(f"  {title}", total=total, unit=unit, note="")

    def _given_back(self, stage: Stage) -> None:
        self.running.pop(stage.id, None)
        self.waiting[stage.id] = stage
        if self._bars is not None and stage.id in self._tasks:
            self._bars.remove_task(self._tasks.pop(stage.id))

    def _ended(self, stage: Stage, text: str, *, style: str) -> None:
        self.running.pop(stage.id, None)
        self.finished += 1
        left = self.time_left.seconds_for(list(self.waiting.values()), self.running)
        remaining = self.total - self.finished
        hint = f"; about {duration(left)} left" if left is not None and remaining else ""
        elapsed = duration(time.monotonic() - self.started)
        count = f"[{self.finished:>{len(str(self.total))}}/{self.total} {elapsed:>11}]"
        title = self.titles[stage.id]
        if self._bars is None:
            self.say(f"{count} {title}: {text}{hint}")
            return
        self.console.print(f"{escape(count)} {escape(title)}: [{style}]{escape(text)}[/]", highlight=False)
        if stage.id in self._tasks:
            self._bars.remove_task(self._tasks.pop(stage.id))

    def warn(self, stage: Stage, record: Record) -> None:
        """Say what its record finds odd."""
        if record.warning:
            self.say(f"warning: {self.titles[stage.id]}: {record.warning}")

    def _result(self, stage: Stage, record: Record) -> str:
        took = ""
        if record.seconds_total is not None:
            self.time_left.add(stage, record.seconds_total, at=time.monotonic())
            took = f" in {record.seconds_total:.1f} s"
        top1 = record.test_top1_last
        return (f"top-1 {100 * top1:.2f} %" if top1 is not None else "done") + took

    def _watch(self) -> None:
        """Read how far the running stages are from the storage, where their workers publish it."""
        while not self._over.wait(POLL_SECONDS * self.store.slowness):
            with self._lock:
                stages = [stage for stage, _ in self.running.values()]
            for stage in stages:
                self._poll(stage)
            if self._bars is not None and self._overall is not None:
                with self._lock:
                    left = self.time_left.seconds_for(list(self.waiting.values()), self.running)
                    note = "estimating the time left" if left is None else f"about {duration(left)} left"
                    self._bars.update(self._overall, completed=self.finished, note=note)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def how_far(self, stage: Stage) -> str:
        """'epoch 3.5 of 32', of what is stored; empty where nothing is."""
        facts = self._progress(stage)
        if facts is None or stage.steps is None:
            return ""
        return f"{stage.steps[1].removesuffix('s')} {facts[0]:.3g} of {facts[1]:g}"

    def _progress(self, stage: Stage) -> tuple[float, float] | None:
        try:
            return parse_progress(parse_object(self.store.read(f"{stage.folder}/{PROGRESS}")))
        except (OSError, ValueError):
            return None  # not started yet, or just finished

    def _poll(self, stage: Stage) -> None:
        facts = self._progress(stage)
        if facts is None:
            return
        done, total = facts
        with self._lock:
            if stage.id in self.running:
                self.running[stage.id] = (stage, min(1.0, done / total))
            if self._bars is not None and stage.id in self._tasks:
                self._bars.update(self._tasks[stage.id], completed=done)
