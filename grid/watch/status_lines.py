"""What a person is told of how a grid stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from grid.contract.signs import LEASE_SILENT
from grid.contract.text import on_one_line
from grid.contract.units import duration
from grid.store.store import TRACEBACK
from grid.watch.status import GridStatus, ShownState, StageStatus

KINDS = {"dataset": "data set", "teacher": "teachers", "logits": "teacher logits", "cell": "cells"}
COUNTED: dict[ShownState, str] = {
    "running": "running",
    "silent": "without a sign of life",
    "failed": "failed",
    "blocked": "not run because of a failure",
    "waiting": "waiting",
    "unneeded": "not needed any more",
}


def lines(status: GridStatus, *, again: str, results: str, limit: int | None = None) -> list[str]:
    """What a person is told. again: the command that goes on; results: the one that shows the table; limit: of each
    state, at most so many stages are listed."""
    told = [f"Grid {status.name} in {status.storage}, launched {_since(status.launched_at, status)} ago"]
    width = max(map(len, KINDS.values()))
    for kind, words in KINDS.items():
        counts = Counter(stage.state for stage in status.stages if stage.kind == kind)
        if counts:
            rest = "".join(f", {counts[state]} {text}" for state, text in COUNTED.items() if counts[state])
            told.append(f"  {words:<{width}}  {counts['done']} of {counts.total()} done{rest}")
    told += _listed("Running:", status.of("running"), lambda stage: _at_work(stage, status), limit)
    told += _listed("No sign of life:", status.of("silent"), lambda stage: _at_work(stage, status), limit)
    told += _listed("Failed:", status.of("failed"), lambda s: f"{s.error} ({s.folder}/{TRACEBACK})", limit)
    if status.problems:
        told += [
            "",
            "Cannot be read, or not be believed:",
            *(f"  {on_one_line(problem)}" for problem in status.problems),
        ]
    told.append("")
    if status.device_seconds:
        by_device = ", ".join(f"{duration(seconds)} on {device}" for device, seconds in status.device_seconds.items())
        told.append(f"Device time used by what is done: {by_device}")
    return [*told, _outlook(status, again=again, results=results)]


def _outlook(status: GridStatus, *, again: str, results: str) -> str:
    at_a_time = len(status.of("running"))
    if status.is_done:
        return f"Done. To see the table: {results}"
    if status.is_over:
        return f"Nothing else can run. To retry what failed: {again}"
    last_sign = f"last sign of life {_since(status.last_sign, status)} ago"
    if not status.runs:
        return f"Nothing runs; {last_sign}. To go on: {again}"
    if not at_a_time:
        return f"No stage runs at this moment; {last_sign}. Unless the launch is still starting, to go on: {again}"
    if status.seconds_left is None:
        return f"No estimate yet of the time left, {at_a_time} at a time"
    if not status.unknown:
        return f"About {duration(status.seconds_left)} left, {at_a_time} at a time"
    others = f"not counting {status.unknown} stages of which none alike is done yet"
    return f"About {duration(status.seconds_left)} left, {at_a_time} at a time, {others}"


def _listed(
    heading: str, stages: Sequence[StageStatus], tell: Callable[[StageStatus], str], limit: int | None
) -> list[str]:
    if not stages:
        return []
    shown = [f"  {stage.title}: {tell(stage)}" for stage in stages[:limit]]
    more = [f"  ... and {len(stages) - len(shown)} more"] if len(shown) < len(stages) else []
    return ["", heading, *shown, *more]


def _at_work(stage: StageStatus, status: GridStatus) -> str:
    """'epoch 12 of 32 on node-3, for 2 min 5 s; last sign of life 4 min ago'."""
    sign = stage.sign
    if sign is None:
        return stage.state
    told = ["at work"]
    if not stage.is_trained:
        told = ["being evaluated"]
    elif sign.done is not None and sign.total is not None:
        epoch = f"epoch {min(int(sign.done) + 1, int(sign.total))} of {sign.total:.0f}"
        told = [f"{sign.done:.0f} of {sign.total:.0f} views" if stage.kind == "logits" else epoch]
    text = " ".join([*told, *([f"on {on_one_line(sign.host)}"] if sign.host else [])])
    if stage.state == "silent":
        return f"{text}; no sign for {_since(sign.at, status)}: ended?"
    text += f", for {_since(sign.started_at, status)}" if sign.started_at is not None else ""
    old = status.now - sign.at > LEASE_SILENT
    return text + (f"; last sign of life {_since(sign.at, status)} ago" if old else "")


def _since(time: datetime, status: GridStatus) -> str:
    return duration((status.now - time).total_seconds())
