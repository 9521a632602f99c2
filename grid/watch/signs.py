"""What lies on a storage of a grid: its plan, and what each stage left there or tells of itself while it runs. What
cannot be read is named and passed over. Needs neither Ray nor torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from grid.contract.credentials import redacted
from grid.contract.files.layout import FAILURE, FOLDERS, GRIDS, PROGRESS, RECORD, plan_file, stage_folder
from grid.contract.files.local_files import OddFileError
from grid.contract.parsing import parse_time, told_at
from grid.contract.program.installed import grid_command
from grid.contract.record import Record, other_inputs
from grid.contract.signs import Sign, lease_sign, numbered, progress_sign, together
from grid.errors import UserError, one_line
from grid.plan import Stage
from grid.store.damage import damage_of
from grid.store.records import RecordError, record_from_json
from grid.store.standing import READS_AT_A_TIME, of_other_inputs
from grid.store.store import Standing, Store
from grid.watch.planned import Planned, grid_name, launched_at, parse_plan

AGAIN = "launch the grid again to have it computed again"

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What lies in a stage's folder."""

    record: Record | None = None
    """Only where the outputs are complete."""
    failure: Record | None = None
    sign: Sign | None = None


@dataclass(frozen=True)
class GridReading:
    """A grid as it was found."""

    planned: Planned
    storage: str
    found: Mapping[str, Found]
    """By stage id."""
    problems: tuple[str, ...] = ()
    """What was passed over, a line each."""


class GridReader:
    """Reads a grid as often as it is asked to; the records of what is done once."""

    def __init__(self, store: Store, asked: str | None = None) -> None:
        """asked: a grid's name or a grid file, None for the grid launched last. Raises UserError for one that is not
        there, and for a storage that cannot be read."""
        self.store = store
        self._records: dict[str, Record] = {}
        self._passed_over: dict[str, str] = {}
        with _readable(store):
            names = store.names(GRIDS)
            self.name = self._last(names) if asked is None else self._find(asked, names)
        self._unread_plans = dict(self._passed_over)

    def read(self, now: datetime | None = None) -> GridReading:
        """As of a moment, or of this one. Raises UserError where the storage, or the plan, cannot be read."""
        with _readable(self.store):
            return self._read_all(now or datetime.now(UTC))

    def _read_all(self, now: datetime) -> GridReading:
        path = plan_file(self.name)
        self._passed_over = dict(self._unread_plans)
        try:
            planned = parse_plan(self.store.read(path), self.name)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.store.location(path)}: {error}; launch the grid again") from None
        folders = {kind: set(self.store.names(folder)) for kind, folder in FOLDERS.items()}
        there = [stage for stage, kind in planned.kinds.items() if stage in folders[kind]]
        with ThreadPoolExecutor(READS_AT_A_TIME) as pool:
            looks = pool.map(lambda stage: self._look(stage, planned, now), there)
            found = dict(zip(there, looks, strict=True))
        problems = [*self._leave_out_other_inputs(planned, found, now)]
        for stage in planned.stages.values():
            if stage.grows and stage.id in found and not self._covers(stage, found):
                found[stage.id] = replace(found[stage.id], record=None)
        problems += [self._passed_over[path] for path in sorted(self._passed_over)]
        return GridReading(planned, self.store.url, found, tuple(problems))

    def _leave_out_other_inputs(self, planned: Planned, found: dict[str, Found], now: datetime) -> list[str]:
        """Take for not done what another teacher, or other images, than there are now were learned from; a line for
        each of these."""
        records = {stage: one.record for stage, one in found.items()}
        standings: list[tuple[Stage, Standing]] = []
        for stage in planned.stages.values():
            record = records.get(stage.id)
            there = {of.id: records.get(of.id) for of in stage.computed_from}
            others = [] if record is None else other_inputs(record, there)
            if others:
                standings.append((stage, Standing(other=others[-1])))
        with ThreadPoolExecutor(READS_AT_A_TIME) as pool:
            looks = pool.map(lambda one: (one[0].id, self._at_work(one[0].folder, None, now)), standings)
            found.update(looks)
        return of_other_inputs(standings, planned.plan, self.store) if planned.plan is not None else []

    def _find(self, asked: str, names: list[str]) -> str:
        name = asked if asked in names else grid_name(asked)
        if name in names and self.store.exists(plan_file(name)):
            return name
        known = ", ".join(self._launches(names))
        raise UserError(f"no grid {name!r} was run in {self.store.url}; there {f'are {known}' if known else 'is none'}")

    def _last(self, names: list[str]) -> str:
        launches = self._launches(names)
        if launches:
            return max(launches, key=lambda name: (launches[name], name))
        unread = "".join(f"; {problem}" for problem in self._passed_over.values())
        hint = f"run {grid_command()} --grid digits, or give --storage"
        raise UserError(f"no grid was run in {self.store.url}: {hint}{unread}")

    def _launches(self, names: list[str]) -> dict[str, datetime]:
        """When each grid was launched last."""
        plans = {name: self._read(plan_file(name), launched_at) for name in names}
        return {name: at for name, at in plans.items() if at is not None}

    def _look(self, stage: str, planned: Planned, now: datetime) -> Found:
        if stage in self._records:
            return Found(self._records[stage])
        kind = planned.kinds[stage]
        folder = stage_folder(kind, stage)
        record = self._finished(f"{folder}/{RECORD}", now)
        if record is not None and stage in planned.stages:
            damage = damage_of(planned.stages[stage], record, self.store.sizes(folder))
            if damage is not None:
                self._passed_over[folder] = f"{self.store.location(folder)}/{damage}; {AGAIN}"
                record = None
        if record is not None and kind != "logits":
            if record.finished_at is not None:  # else it is named each time
                self._records[stage] = record
            return Found(record)
        # Beside a record of logits there may be the signs of a launch that adds to them, for a longer schedule.
        return self._at_work(folder, record, now)

    def _at_work(self, folder: str, record: Record | None, now: datetime) -> Found:
        """What lies beside a record, or where there is none."""
        names = self.store.names(folder)
        leases = [*numbered(names).values()]
        failure = self._finished(f"{folder}/{FAILURE}", now) if FAILURE in names else None
        told = PROGRESS in names
        progress = self._read(f"{folder}/{PROGRESS}", lambda data: progress_sign(data, now)) if told else None
        lease = self._read(f"{folder}/{leases[-1]}", lambda data: lease_sign(data, now)) if leases else None
        return Found(record, failure, together(lease, progress))

    def _finished(self, path: str, now: datetime) -> Record | None:
        """A record, or a failure; of one that has finished in the future nobody knows when it did."""
        record = self._read(path, _record)
        if record is None or record.finished_at is None:
            return record
        try:
            told_at(record.finished_at, now)
        except ValueError as error:
            self._passed_over[path] = f"{self.store.location(path)}: {error}"
            return replace(record, finished_at=None)
        return record

    def _covers(self, stage: Stage, found: Mapping[str, Found]) -> bool:
        needed = [stage.id, *(of.id for of in stage.sources)]
        return all(found.get(of, Found()).record is not None for of in needed) and self.store.covers(stage)

    def _read(self, path: str, parse: Callable[[bytes], T]) -> T | None:
        """None where there is no such file, or none that can be read."""
        try:
            return parse(self.store.read(path))
        except FileNotFoundError:
            return None
        except OddFileError as error:
            self._passed_over[path] = str(error.strerror)  # it names the place
        except Exception as error:  # whatever is wrong with one file, the others are told of
            reason = redacted(str(error)) if isinstance(error, OSError | ValueError) else one_line(error)
            self._passed_over[path] = f"{self.store.location(path)}: {reason}"
        return None


@contextlib.contextmanager
def _readable(store: Store) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each backend has exceptions of its own; all mean the same to the user
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"--storage {store.url}: cannot be read: {reason}") from None


def _record(data: bytes) -> Record:
    try:
        record = record_from_json(data)
        if record.finished_at is not None:
            parse_time(record.finished_at)
    except RecordError as error:
        raise ValueError(f"{error}; {AGAIN}") from None
    return record
