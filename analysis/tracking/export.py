"""Write finished stages to Weights & Biases, from their records: a run a teacher or cell, grouped by grid.

The run's id is the stage's id, so a stage that is written again continues its run. It all happens in one thread of
the launching process, so that no cell waits for it, and whatever goes wrong is a warning, never a failed stage: one for
each stage that cannot be read, and one for W&B itself, which ends it.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import polars as pl

from analysis.errors import AnalysisError
from analysis.read.curves import parse_curve
from analysis.read.load import parse_record
from analysis.read.plans import parse_plan
from analysis.read.schema import AXES, RECORD
from analysis.read.storage import Reader, local_root, said
from analysis.shown import title
from analysis.tracking.mark import Mark
from grid.contract.credentials import redacted
from grid.contract.files import layout
from grid.contract.files.local_files import make_folder
from grid.contract.parsing import parse_json
from grid.contract.record import METRIC_FIELDS, Record, curve_file, other_inputs

Mode = Literal["offline", "online", "disabled"]

PROJECT = "kd-grid"
TAG_LENGTH = 64  # the most W&B takes

_CONFIG_FIELDS = (
    *("kind", "dataset", "teacher", "student", "mode", *(axis for axis in AXES if axis in RECORD), "params", "seed"),
    *("targets", "view_stream", "epochs"),
    *("teacher_id", "logits_id", "parameters", "size_bytes", "macs", "precision", "device", "threads", "workers"),
    *("code_version", "dataset_fingerprint"),
)
_JSON_FIELDS = ("recipe", "versions", "teacher_args", "student_args", "params")


class Exporter:
    """`add` takes stage ids from any thread; leaving the context waits until all are written.

    mode None: what WANDB_MODE says, or online where wandb finds a key and offline otherwise. Offline runs lie in
    <storage>/grids/<grid>/wandb (for a storage by URL, in ./wandb). others: storages that are read too. failure: why
    nothing more is written, if so.
    """

    def __init__(
        self, storage: str, grid: str, *, others: Sequence[str] = (), mode: Mode | None, warn: Callable[[str], None]
    ) -> None:
        self.grid, self.warn = grid, warn
        # W&B's own switch counts where the caller leaves the choice.
        environment = os.environ.get("WANDB_MODE")
        self.mode: Mode | None = mode or next((known for known in get_args(Mode) if known == environment), None)
        self.storage = storage
        root = local_root(storage)
        self.root, self.below = (str(Path.cwd()), "") if root is None else (root, f"{layout.grid_folder(grid)}/")
        self.folder = Path(self.root) / self.below
        self.reader = Reader(storage, *others)
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._rows: dict[str, dict[str, Any]] = {}
        self._mark: Mark | None = None
        self.failure: str | None = None

    def __enter__(self) -> Self:
        if self.mode != "disabled":
            self._thread.start()
        return self

    def add(self, stage_id: str) -> None:
        """Have a finished stage written; ids that are no teacher or cell of the grid are passed over."""
        if self.mode != "disabled":
            self._queue.put(stage_id)

    def add_all(self) -> None:
        """Have every stage of the grid written that is finished and was not written in this mode before."""
        self._queue.put("*")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.mode != "disabled" and error is None:
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self.failure is not None:
                continue
            try:
                self._open()
                for stage_id in list(self._rows) if item == "*" else [item]:
                    self._write(stage_id)
            except Exception as error:  # whatever W&B does wrong, the grid goes on
                detail = " ".join(f"{type(error).__name__}: {error}".split())
                self.failure = redacted(f"Weights & Biases: {detail}")
                self.warn(f"warning: {self.failure}; nothing more is logged there (--wandb disabled)")

    def _open(self) -> None:
        """Read the plan and what was written before; settle the mode."""
        if self._rows:
            return
        path = layout.plan_file(self.grid)
        try:
            plan = parse_plan(self.reader.read(path), storage=self.storage, name=self.grid)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; launch the grid again") from None
        self._rows = {row["stage_id"]: row for row in plan.rows.iter_rows(named=True)}
        make_folder(self.root, f"{self.below}wandb")
        self._mark = Mark(self.root, self.below)
        if self.mode is None:
            self.mode = default_mode()

    def _write(self, stage_id: str) -> None:
        row = self._rows.get(stage_id)
        if row is None:
            return
        assert self.mode is not None
        assert self._mark is not None
        folder = layout.stage_folder(row["kind"], stage_id)
        try:
            data = self._read(f"{folder}/{layout.RECORD}")
            if data is None or self._mark.has(stage_id, self.mode, data):
                return
            record, curve = self._parsed(data, folder, stage_id)
        except ValueError as error:
            self.warn(f"warning: {error}; its run is not written to Weights & Biases")
            return
        write_run(record, row, curve, grid=self.grid, mode=self.mode, folder=self.folder)
        self._mark.add(stage_id, self.mode, data)

    def _read(self, path: str) -> bytes | None:
        """None where there is no such file. Raises ValueError that names it and says why it cannot be read."""
        try:
            return self.reader.read(path)
        except FileNotFoundError:
            return None
        except AnalysisError as error:
            raise ValueError(str(error)) from None

    def _parsed(self, data: bytes, folder: str, stage_id: str) -> tuple[dict[str, Any], pl.DataFrame]:
        """A stage's record and curve. Raises ValueError that names the file and says why."""
        path = f"{folder}/{layout.RECORD}"
        try:
            record = parse_record(data, stage_id=stage_id)
            for name in _JSON_FIELDS:
                parse_json(record[name] or "null")
            typed = Record(**record)
            kinds = {record["dataset_id"]: "dataset", record["teacher_id"]: "teacher"}
            there = {of: self._input(kind, of) for of, kind in kinds.items() if of not in (None, stage_id)}
            others = other_inputs(typed, there)
            if others:
                what = layout.CALLED[kinds[others[-1]]]
                raise ValueError(f"learned from another {what} than lies there now: launch the grid again")
            path = f"{folder}/{curve_file(typed)}"
            return record, parse_curve(self.reader.read(path), typed)
        except FileNotFoundError:
            raise ValueError(f"{path}: missing") from None
        except AnalysisError as error:  # of the storage, which names the path
            raise ValueError(str(error)) from None
        except Exception as error:  # whatever is wrong with one stage, the others are written
            raise ValueError(f"{path}: {said(error)}") from None

    def _input(self, kind: str, stage_id: str | None) -> Record | None:
        """The record of what a stage learned from; None where there is none that can be read."""
        try:
            path = f"{layout.stage_folder(kind, str(stage_id))}/{layout.RECORD}"
            return Record(**parse_record(self.reader.read(path), stage_id=str(stage_id)))
        except (FileNotFoundError, AnalysisError, ValueError):
            return None


def default_mode() -> Mode:
    """Online where wandb finds a key (environment, settings, netrc), offline otherwise."""
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def write_run(
    record: dict[str, Any], row: dict[str, Any], curve: pl.DataFrame, *, grid: str, mode: Mode, folder: Path
) -> None:
    """One finished stage as a run: config, a point an epoch, and the record's metrics as its summary."""
    config = {name: record[name] for name in _CONFIG_FIELDS if record[name] is not None}
    config |= {name: json.loads(record[name]) for name in _JSON_FIELDS if record[name] is not None}
    config |= {"grid": grid, "stage_id": record["stage_id"]}
    config |= {f"{role}_label": row[role] for role in ("teacher", "student") if row[role] is not None}
    run = start_run(
        id=record["stage_id"],
        name=title(row),
        group=grid,
        job_type=row["mode"] if row["kind"] == "cell" else "teacher",
        tags=[label[:TAG_LENGTH] for label in (record["dataset"], row["teacher"], row["student"]) if label],
        config=config,
        mode=mode,
        folder=folder,
    )
    for point in curve.iter_rows(named=True):
        run.log({name: value for name, value in point.items() if value is not None}, step=point["epoch"])
    summary = [n for n in RECORD if n in METRIC_FIELDS or n.startswith(("best_", "seconds_", "latency_", "throughput"))]
    run.summary.update({name: record[name] for name in summary if record[name] is not None})
    run.finish()


def start_run(*, mode: Mode, folder: Path, **about: Any) -> Any:
    """A run of the project, which continues the one of the same id where there is one online; it logs nothing of its
    own."""
    import wandb

    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        mode=mode,
        dir=str(folder),
        resume="allow" if mode == "online" else None,
        reinit="finish_previous",
        settings=wandb.Settings(
            console="off",
            silent=True,
            x_disable_stats=True,
            x_disable_meta=True,
            init_timeout=60,
            save_code=False,
            # For each run anew: git started four times, and the facts of every installed package read twice. The
            # record has the program's version, and those of what matters.
            disable_git=True,
            x_save_requirements=False,
        ),
        **about,
    )
