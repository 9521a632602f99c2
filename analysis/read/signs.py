"""Which stages are worked on, by what lies in their folders: as the grid's own status says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from analysis.read.storage import Reader, said
from grid.contract.files.layout import FOLDERS, PROGRESS, stage_folder
from grid.contract.record import Record
from grid.contract.signs import Sign, lease_sign, numbered, progress_sign, state_of, together


@dataclass(frozen=True)
class AtWork:
    """Which stages without a result are at work."""

    running: dict[str, float | None]
    """How far each is that runs, by id, None where it does not tell."""
    silent: list[str]
    """Those that were worked on and tell nothing any more."""
    problems: list[str]
    """What cannot be read, a line each."""


def at_work(reader: Reader, records: pl.DataFrame, kinds: Mapping[str, str], now: datetime) -> AtWork:
    """Of the stages without a result. records: of what is done or has failed; kinds: of all stages, by id."""
    done = set(records.filter(pl.col("status") == "done")["stage_id"])
    signs, problems = _read_signs(reader, {i: kind for i, kind in kinds.items() if i not in done}, now)
    facts = records.filter(pl.col("stage_id").is_in([*signs])).select("stage_id", "launch", "finished_at")
    failures = {stage_id: Record(launch=launch, finished_at=at) for stage_id, launch, at in facts.iter_rows()}
    states = {i: state_of(done=False, failure=failures.get(i), sign=sign, now=now) for i, sign in signs.items()}
    running = {i: signs[i].fraction for i, state in states.items() if state == "running"}
    return AtWork(running, [i for i, state in states.items() if state == "silent"], problems)


def _read_signs(reader: Reader, kinds: Mapping[str, str], now: datetime) -> tuple[dict[str, Sign], list[str]]:
    """What these stages last told of themselves: of several storages the one where that is alive, or else later."""
    found: dict[str, Sign] = {}
    problems: list[str] = []
    for one in reader.of_each().values():
        for stage_id, sign in _of_one_storage(one, kinds, now, problems).items():
            before = found.get(stage_id)
            if before is None or (before.is_alive(now), before.at) < (sign.is_alive(now), sign.at):
                found[stage_id] = sign
    return found, problems


def _of_one_storage(reader: Reader, kinds: Mapping[str, str], now: datetime, problems: list[str]) -> dict[str, Sign]:
    there = reader.names([FOLDERS[kind] for kind in dict.fromkeys(kinds.values())], problems)
    folders = {i: stage_folder(kind, i) for i, kind in kinds.items() if i in there[FOLDERS[kind]]}
    names = reader.names([*folders.values()], problems)
    leases: dict[str, str] = {}
    progress: dict[str, str] = {}
    for stage_id, folder in folders.items():
        last = [*numbered(names[folder]).values()][-1:]
        leases |= {f"{folder}/{name}": stage_id for name in last}
        if PROGRESS in names[folder]:
            progress[f"{folder}/{PROGRESS}"] = stage_id
    read = reader.read_many([*leases, *progress], problems)

    def parsed(paths: Mapping[str, str], parse: Callable[[bytes, datetime], Sign]) -> dict[str, Sign]:
        good = {}
        for path, stage_id in paths.items():
            try:
                if path in read:
                    good[stage_id] = parse(read[path], now)
            except Exception as error:  # whatever is wrong with one file, the others are shown
                problems.append(f"{path}: {said(error)}")
        return good

    held, told = parsed(leases, lease_sign), parsed(progress, progress_sign)
    signs = {i: together(held.get(i), told.get(i)) for i in folders}
    return {i: sign for i, sign in signs.items() if sign is not None}
