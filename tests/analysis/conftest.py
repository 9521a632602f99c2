"""Storages as a launch leaves them, written by hand: no training, so that every number in a test is chosen."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from grid.store.records import Value, make_record, record_to_json

ROOT = Path(__file__).parents[2]
FOLDERS = {"teacher": "teachers", "cell": "cells"}

Row = dict[str, Any]


class SyntheticGrid:
    """A planned grid in the storage `root`, of which `done`, `fail` and `fill` write what has finished.

    Labels are what the plan calls a model; the records name it otherwise, as they do when a grid gives labels.
    """

    def __init__(
        self,
        root: Path,
        name: str = "tiny",
        *,
        teachers: Sequence[str] = ("ViT-T",),
        students: Sequence[str] = ("ResNet-S",),
        modes: Sequence[str] = ("baseline", "distilled"),
        seeds: Sequence[int] = (0, 1, 2),
        method: Sequence[str] = ("kd",),
        temperature: Sequence[float] = (4.0,),
        alpha: Sequence[float] = (0.5,),
        dataset: str = "digits",
        val_size: int = 0,
        written_at: str = "2026-01-02T03:04:05+00:00",
    ) -> None:
        self.root, self.name, self.dataset, self.seeds = root, name, dataset, tuple(seeds)
        self.parameters = dict.fromkeys(teachers, 10_000) | dict.fromkeys(students, 1_000)
        self.costs: dict[str, dict[str, Value]] = {}  # by label: what its records say of size and time
        data = {"name": dataset, "val_size": val_size}
        spec = {"name": name, "dataset": data, "modes": list(modes), "seeds": list(seeds)}
        self.rows = self._plan(teachers, students, modes, list(itertools.product(method, temperature, alpha)))
        stages = {row["stage_id"]: row["kind"] for row in self.rows}
        self.plan: dict[str, Any] = {
            "schema_version": 1,
            "grid": name,
            "written_at": written_at,
            "spec": spec,
            "stages": [{"id": stage, "kind": kind} for stage, kind in stages.items()],
            "rows": self.rows,
        }
        self.write_plan()

    @property
    def storage(self) -> str:
        return str(self.root)

    def _plan(
        self,
        teachers: Sequence[str],
        students: Sequence[str],
        modes: Sequence[str],
        settings: Sequence[tuple[Any, ...]],
    ) -> list[Row]:
        teachers = teachers if "distilled" in modes else ()
        rows: list[Row] = [
            {"kind": "teacher", "stage_id": self._id("teacher", label), "teacher": label, "student": None}
            for label in teachers
        ]
        for seed in self.seeds:
            for student in students:
                if "baseline" in modes:
                    rows.append(self._cell(None, student, "baseline", seed, (None, None, None)))
                rows += [self._cell(t, student, "distilled", seed, setting) for t in teachers for setting in settings]
        return rows

    def _cell(
        self,
        teacher: str | None,
        student: str,
        mode: str,
        seed: int,
        setting: tuple[Any, ...],
    ) -> Row:
        method, temperature, alpha, *own = setting
        params = None if method is None else json.dumps({"alpha": alpha, "temperature": temperature})
        return {
            "kind": "cell",
            "stage_id": self._id("cell", teacher, student, seed, *setting),
            "teacher": teacher,
            "student": student,
            "mode": mode,
            "seed": seed,
            "method": method,
            "temperature": temperature,
            "alpha": alpha,
            "params": params,
            "setting": own[0] if own else None,
            "teacher_id": None if teacher is None else self._id("teacher", teacher),
        }

    def _id(self, *what: object) -> str:
        return hashlib.sha256(repr((self.dataset, what)).encode()).hexdigest()[:16]

    def find(self, **wanted: Any) -> list[Row]:
        return [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]

    def one(self, **wanted: Any) -> Row:
        (row,) = self.find(**wanted)
        return row

    def folder(self, row: Row) -> str:
        return f"{FOLDERS[row['kind']]}/{row['stage_id']}"

    def write(self, path: str, data: bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def write_plan(self, **changes: Any) -> None:
        self.write(f"grids/{self.name}/plan.json", json.dumps({**self.plan, **changes}, indent=1).encode())

    def record(self, row: Row, **facts: Value) -> bytes:
        """A record of the row's stage as JSON, by the code that writes them in a launch."""
        axes = {name: row.get(name) for name in ("stage_id", "kind", "mode", "seed", "method", "temperature", "alpha")}
        names = {role: None if row[role] is None else f"{row[role]} in the records" for role in ("teacher", "student")}
        axes |= names | {"teacher_id": row.get("teacher_id"), "dataset": self.dataset}
        return record_to_json(make_record({**axes, **facts}))

    def done(self, row: Row, top1: float, **facts: Value) -> None:
        """The stage is done, with so many percent on the test split."""
        model = row["teacher"] if row["kind"] == "teacher" else row["student"]
        values = {"status": "done", "test_top1_last": top1 / 100, "parameters": self.parameters[model]}
        values |= self.costs.get(model, {}) | facts
        self.write(f"{self.folder(row)}/record.json", self.record(row, **values))

    def fail(self, row: Row, error: str = "ValueError: no") -> None:
        self.write(f"{self.folder(row)}/failure.json", self.record(row, status="failed", error=error))

    def curve(self, row: Row, points: Sequence[Mapping[str, float | None]]) -> None:
        buffer = io.BytesIO()
        pl.DataFrame(list(points)).write_parquet(buffer)
        self.write(f"{self.folder(row)}/curve.parquet", buffer.getvalue())

    def fill(self, top1: Mapping[Any, Any]) -> SyntheticGrid:
        """Percentages: of a teacher by its label, of cells by (student, teacher or None) in the order of the seeds.
        None leaves a cell missing, and so does what is not given."""
        for key, value in top1.items():
            if isinstance(key, str):
                assert isinstance(value, int | float)
                self.done(self.one(kind="teacher", teacher=key), value)
                continue
            assert isinstance(value, Sequence)
            student, teacher = key
            for seed, percent in zip(self.seeds, value, strict=True):
                if percent is not None:
                    self.done(self.one(kind="cell", student=student, teacher=teacher, seed=seed), percent)
        return self


@pytest.fixture
def make_grid(tmp_path: Path) -> Callable[..., SyntheticGrid]:
    """Plan a grid in this test's storage: make_grid(students=["A", "B"])."""
    return lambda *args, **options: SyntheticGrid(tmp_path / "runs", *args, **options)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes to the current folder stays out of the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B keeps to this test's folder, reaches nobody, and leaves no process to the next test."""
    import wandb

    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    yield
    wandb.teardown()


@pytest.fixture(autouse=True, scope="session")
def repository_stays_clean() -> Iterator[None]:
    def existing() -> set[Path]:
        return {path for path in [ROOT / "wandb", *(ROOT / "wandb").glob("*")] if path.exists()}

    before = existing()
    yield
    assert existing() <= before
