"""Storages of a grid that is under way, written by hand, with chosen times."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from grid.plan import CellStage, LogitsStage, Plan, Stage
from grid.store.lease import Holder
from grid.store.plan_file import write_plan
from grid.store.records import Value, make_record, record_to_json
from grid.store.store import Store
from grid.watch.signs import GridReader
from grid.watch.status import GridStatus, grid_status
from grid.watch.status_lines import lines

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
LAUNCHED = NOW - timedelta(hours=3)


def ago(**time: float) -> str:
    return (NOW - timedelta(**time)).isoformat(timespec="seconds")


class Written:
    """A plan on a storage, and what its stages would leave there."""

    def __init__(self, plan: Plan, url: str, *, at: str = LAUNCHED.isoformat()) -> None:
        self.plan, self.store = plan, Store(url)
        write_plan(plan, self.store)
        self.path = f"grids/{plan.spec.name}/plan.json"
        self.change(written_at=at)

    def change(self, **facts: Any) -> None:
        self.store.write(self.path, json.dumps({**json.loads(self.store.read(self.path)), **facts}).encode())

    def done(self, *stages: Stage, **facts: Value) -> None:
        for stage in stages:
            values: dict[str, Value] = {**stage.axes(), "status": "done"}
            values |= {"finished_at": ago(hours=1), "weights_sha256": "w", "teacher_sha256": "w", "files": "{}"}
            self.store.write(f"{stage.folder}/record.json", record_to_json(make_record({**values, **facts})))
            for unit in stage.units if isinstance(stage, LogitsStage) else ():
                self.store.write(f"{stage.folder}/{unit.file}", b"")

    def failed(self, stage: Stage, error: str, **facts: Value) -> None:
        values: dict[str, Value] = {"stage_id": stage.id, "kind": stage.kind, "status": "failed", "error": error}
        values |= {"finished_at": ago(hours=1), "launch": "launch-1"}
        self.store.write(f"{stage.folder}/failure.json", record_to_json(make_record({**values, **facts})))

    def progress(self, stage: Stage, done: float, total: float, *, at: str, **facts: Any) -> None:
        told = {"done": done, "total": total, "started_at": ago(hours=2), "host": "node-3", "at": at, **facts}
        self.store.write(f"{stage.folder}/progress.json", json.dumps(told).encode())

    def lease(self, stage: Stage, number: int, *, at: str, **facts: Any) -> None:
        holder = Holder("launch-1", "node-7", machine="another", pid=1, born="1", beat=5, at=at)
        told = asdict(holder) | facts
        self.store.write(f"{stage.folder}/lease-{number:04d}.json", json.dumps(told).encode())

    def status(self, now: datetime = NOW) -> GridStatus:
        return grid_status(GridReader(self.store, self.plan.spec.name).read(now), now)

    def told(self, **how: Any) -> list[str]:
        return lines(self.status(), again="GO ON", results="RESULTS", **how)

    def state(self, stage: Stage) -> str:
        return next(one.state for one in self.status().stages if one.id == stage.id)


def alone(plan: Plan) -> list[CellStage]:
    return [cell for cell in plan.cells if cell.mode == "baseline"]


def taught(plan: Plan) -> list[CellStage]:
    return [cell for cell in plan.cells if cell.mode == "distilled"]
