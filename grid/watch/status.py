"""How a grid stands, by what lies on its storage. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from grid.contract.files.layout import stage_folder
from grid.contract.parsing import CLOCK_SKEW
from grid.contract.signs import Sign, SignedState, finished_at, state_of
from grid.contract.text import on_one_line
from grid.plan import Stage
from grid.plan.schedule import unneeded_stages
from grid.watch.progress import TimeLeft
from grid.watch.signs import Found, GridReading

# While Ray starts, on a busy machine or a large cluster, and between two stages, none tells of itself.
BETWEEN_STAGES = timedelta(minutes=5)

# blocked: waits for what failed. unneeded: logits that no unfinished cell reads.
ShownState = SignedState | Literal["blocked", "unneeded"]


@dataclass(frozen=True)
class StageStatus:
    """One stage."""

    id: str
    kind: str
    title: str
    state: ShownState
    folder: str
    """Where its outputs and its traceback are."""
    sign: Sign | None = None
    error: str | None = None
    """Why it failed."""
    is_trained: bool = True
    """Whether it counts epochs (a given teacher does not)."""


@dataclass(frozen=True)
class GridStatus:
    """A grid at a moment."""

    name: str
    storage: str
    now: datetime
    launched_at: datetime
    last_sign: datetime
    stages: tuple[StageStatus, ...]
    device_seconds: Mapping[str, float]
    """Of what is done, by device."""
    seconds_left: float | None
    """Without the `unknown` stages; None where there is no estimate."""
    unknown: int
    """How many stages there are of which none alike is done."""
    problems: tuple[str, ...]
    """What could not be read, a line each."""

    def of(self, *states: ShownState) -> list[StageStatus]:
        return [stage for stage in self.stages if stage.state in states]

    @property
    def is_done(self) -> bool:
        return len(self.of("done", "unneeded")) == len(self.stages)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left that could run."""
        return not self.of("running", "silent", "waiting")

    @property
    def runs(self) -> bool:
        return bool(self.of("running")) or (not self.is_over and is_recent(self.last_sign, self.now))

    @property
    def is_well(self) -> bool:
        """Done, or on the way there."""
        return self.is_done or (self.runs and not self.of("failed"))


def is_recent(sign: datetime, now: datetime) -> bool:
    """Whether what gave it may be between two stages. What lies in the future is no sign of anything."""
    return -CLOCK_SKEW <= now - sign <= BETWEEN_STAGES


def grid_status(reading: GridReading, now: datetime) -> GridStatus:
    """What the reading says at a moment."""
    planned, found = reading.planned, reading.found
    states = {stage: _state(found.get(stage, Found()), now) for stage in planned.kinds}
    last_sign = max([planned.launched_at, *(at for one in found.values() for at in _signs_of(one, now))])
    if "running" in states.values() or is_recent(last_sign, now):
        for stage, one in found.items():
            # What failed in an earlier launch is tried again by the one that runs.
            is_old = one.failure is not None and finished_at(one.failure, now) < planned.launched_at
            states[stage] = "waiting" if is_old and states[stage] == "failed" else states[stage]
    if planned.plan is not None:
        unneeded = unneeded_stages(planned.plan, {stage for stage, state in states.items() if state == "done"})
        states |= {stage: "unneeded" for stage in unneeded if states[stage] not in ("done", "running")}
    for what in planned.stages.values():
        if states[what.id] == "waiting" and any(states[i] in ("failed", "blocked") for i in what.inputs().values()):
            states[what.id] = "blocked"
    titles = planned.plan.titles() if planned.plan is not None else {}
    seconds_left, unknown = _seconds_left(reading, states, now)
    return GridStatus(
        name=planned.name,
        storage=reading.storage,
        now=now,
        launched_at=planned.launched_at,
        last_sign=last_sign,
        stages=tuple(
            StageStatus(
                id=stage,
                kind=kind,
                title=on_one_line(titles.get(stage, f"{kind} {stage}")),
                state=states[stage],
                folder=stage_folder(kind, stage),
                sign=found[stage].sign if stage in found else None,
                error=_error(found.get(stage, Found())),
                is_trained=not _is_given(planned.stages.get(stage)),
            )
            for stage, kind in planned.kinds.items()
        ),
        device_seconds=_device_seconds(found),
        seconds_left=seconds_left,
        unknown=unknown,
        problems=reading.problems,
    )


def _state(found: Found, now: datetime) -> ShownState:
    return state_of(done=found.record is not None, failure=found.failure, sign=found.sign, now=now)


def _error(found: Found) -> str | None:
    return on_one_line(str(found.failure.error)) if found.failure is not None else None


def _is_given(stage: Stage | None) -> bool:
    return stage is not None and stage.is_given


def _signs_of(found: Found, now: datetime) -> list[datetime]:
    records = [record for record in (found.record, found.failure) if record is not None and record.finished_at]
    return [finished_at(record, now) for record in records] + ([found.sign.at] if found.sign is not None else [])


def _seconds_left(reading: GridReading, states: Mapping[str, ShownState], now: datetime) -> tuple[float | None, int]:
    """Seconds left for the stages of which some alike are done, and how many others there are. As the launch estimates
    it, but that it does not know how much work those others are."""
    time_left, stages = TimeLeft({}), reading.planned.stages
    done = [(stages[i], one.record) for i, one in reading.found.items() if i in stages and one.record is not None]
    ended = sorted(((finished_at(record, now), stage, record) for stage, record in done), key=lambda one: one[0])
    for at, stage, record in ended:
        if record.seconds_total is not None:
            by_launch = record.finished_at is not None and at >= reading.planned.launched_at
            time_left.add(stage, record.seconds_total, at=at.timestamp() if by_launch else None)
    time_left.slots = max(1, sum(state == "running" for state in states.values()))
    waiting, running, unknown = [], {}, 0
    for stage_id, what in stages.items():
        if states[stage_id] not in ("running", "waiting", "silent"):
            continue
        sign = reading.found[stage_id].sign if states[stage_id] == "running" else None
        if time_left.expected_seconds(what) is None:
            unknown += 1
        elif sign is not None:
            running[stage_id] = (what, sign.fraction or 0.0)
        else:
            waiting.append(what)
    return (time_left.seconds_for(waiting, running) if waiting or running else None), unknown


def _device_seconds(found: Mapping[str, Found]) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for one in found.values():
        if one.record is not None and one.record.device_seconds is not None:
            seconds[on_one_line(str(one.record.device))] += one.record.device_seconds
    return dict(seconds)
