"""Read grids' plans and records from their storages into polars frames. What cannot be read is named, never dropped."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import polars as pl

from analysis.errors import AnalysisError
from analysis.read.grids import Grid, Grids
from analysis.read.plans import StoredPlan, read_plans
from analysis.read.schema import RECORD, ROW
from analysis.read.signs import at_work
from analysis.read.storage import Reader, said
from grid.contract import record as contract
from grid.contract.files import layout
from grid.contract.parsing import CLOCK_SKEW, of_the_future
from grid.contract.program.installed import grid_command
from grid.contract.record import FIGURES

STATUSES = ("done", "failed")
LABELS = {"grid": pl.String, **ROW}
_CONTENTS = ("stage_id", "kind", "weights_sha256", "dataset_fingerprint")
_INPUTS = ("stage_id", "inputs", "dataset_id", "dataset_fingerprint", "teacher_id", "teacher_sha256")
LEFT_OUT = "left out; launch the grid again to have them computed again"


def load_grid(storage: str | Sequence[str], name: str | None = None) -> Grid:
    """The named grid, or the one launched last. Raises AnalysisError where there is none, and where storages hold
    different grids of that name."""
    reader = _reader(storage)
    plans, problems = read_plans(reader, None if name is None else [name])
    if not plans:
        if problems:
            raise AnalysisError("; ".join(problems))
        raise _unknown(reader, name)
    plan = plans[-1]
    named = [other for other in plans if other.name == plan.name]
    if len(named) > 1:
        places = " and ".join(other.storage for other in named)
        raise AnalysisError(f"different grids called {plan.name!r} were run in {places}: give one --storage")
    cells, stages, unread = _join({plan.name: plan}, reader)
    problems += unread
    about: dict[str, Any] = {"name": plan.name, "storage": plan.storage, "spec": plan.spec}
    return Grid(**about, cells=cells, stages=stages, problems=problems, reader=reader)


def load_grids(storage: str | Sequence[str], names: Sequence[str] | None = None) -> Grids:
    """The named grids, or all there are. Different grids of one name are told apart by their storages. Raises
    AnalysisError for a name that is not there, and where there is no grid at all."""
    reader = _reader(storage)
    plans, problems = read_plans(reader, names)
    known = {plan.name for plan in plans}
    for name in names or ():
        if name not in known:
            raise AnalysisError("; ".join(problems)) if problems else _unknown(reader, name)
    if not plans:
        raise AnalysisError("; ".join(problems)) if problems else _unknown(reader, None)
    called = {}
    for plan in plans:
        alone = sum(other.name == plan.name for other in plans) == 1
        called[plan.name if alone else f"{plan.name} ({plan.storage})"] = plan
    cells, stages, unread = _join(called, reader)
    specs = {name: plan.spec for name, plan in called.items()}
    return Grids(specs=specs, cells=cells, stages=stages, problems=problems + unread, reader=reader)


def _reader(storage: str | Sequence[str]) -> Reader:
    return Reader(storage) if isinstance(storage, str) else Reader(*storage)


def _unknown(reader: Reader, name: str | None) -> AnalysisError:
    plans, _ = read_plans(reader)
    known = ", ".join(dict.fromkeys(plan.name for plan in plans))
    if name is not None and known:
        return AnalysisError(f"no grid {name!r} was run in {reader}; there are {known}")
    what, none = ("no grid", "") if name is None else (f"no grid {name!r}", "; there is none")
    return AnalysisError(f"{what} was run in {reader}{none}: run {grid_command()} --grid digits, or give --storage")


def _join(plans: Mapping[str, StoredPlan], reader: Reader) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """The cells and the stages of the plans, by what their grids are called, and what could not be read."""
    kinds = {stage_id: kind for plan in plans.values() for stage_id, kind in plan.kinds.items()}
    records, problems = load_records(reader, kinds)
    records, others, left_out = _without_other_inputs(records)
    failures, unread = load_records(reader, {stage_id: kinds[stage_id] for stage_id in others}, (layout.FAILURE,))
    records = pl.concat([records, failures])
    problems += [*left_out, *unread]
    names = pl.Series("grid", [name for name, plan in plans.items() for _ in range(plan.rows.height)], dtype=pl.String)
    rows = pl.concat([plan.rows for plan in plans.values()]).insert_column(0, names)
    planned = pl.DataFrame(
        [(name, stage_id, kind) for name, plan in plans.items() for stage_id, kind in plan.kinds.items()],
        schema=dict.fromkeys(("grid", "stage_id", "kind"), pl.String),
        orient="row",
    )
    on = ["grid", "stage_id"]
    labels = rows.drop("kind").unique(on, keep="first")
    stages = planned.join(labels, on=on, how="left", maintain_order="left").select(*LABELS)
    with_progress, unread = _with_progress(reader, records, kinds)
    facts = with_progress.drop([name for name in ROW if name != "stage_id"], strict=False)
    return _joined(rows, facts), _joined(stages, facts), problems + unread


def _without_other_inputs(records: pl.DataFrame) -> tuple[pl.DataFrame, list[str], list[str]]:
    """The records without those of stages that were computed from others than there are now, as from another training
    of their teacher: they do not belong beside these. The ids of those, too, and a line for each such input."""
    done = records.filter(pl.col("status") == "done")
    now, kinds = dict[str, str | None](), dict[str, str]()
    for facts in done.select(_CONTENTS).iter_rows(named=True):
        now[facts["stage_id"]], kinds[facts["stage_id"]] = contract.contents(facts), facts["kind"]
    others: dict[str, list[str]] = {}
    for facts in done.select(_INPUTS).iter_rows(named=True):
        for of, used in contract.used_inputs(facts).items():
            if now.get(of) not in (None, used):
                others.setdefault(of, []).append(facts["stage_id"])
    lines: list[str] = []
    for of in sorted(others, key=lambda one: kinds[one] == "dataset"):
        count, folder = len(others[of]), layout.FOLDERS[kinds[of]]
        what = "other images" if kinds[of] == "dataset" else f"another training of this {layout.CALLED[kinds[of]]}"
        results = "1 result was" if count == 1 else f"{count} results were"
        lines.append(f"{folder}/{of}: {results} learned from {what} than lies there now: {LEFT_OUT}")
    left_out = [*dict.fromkeys(stage_id for of in others for stage_id in others[of])]
    return records.filter(~pl.col("stage_id").is_in(left_out)), left_out, lines


def _joined(rows: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """The plan's labels with the records' facts; what the record says of itself in the same words gives way."""
    return rows.join(facts, on="stage_id", how="left", maintain_order="left").with_columns(
        pl.col("status").fill_null("missing")
    )


def _with_progress(reader: Reader, records: pl.DataFrame, kinds: Mapping[str, str]) -> tuple[pl.DataFrame, list[str]]:
    """The records, with a row for each stage that has none and runs; one that runs again after a failure runs, and one
    that was worked on again and is silent is missing. And what cannot be believed of times."""
    now = datetime.now(UTC)
    finished = pl.col("finished_at").str.to_datetime(time_zone="UTC", strict=False)
    problems = _of_the_future(records.filter(finished > now + CLOCK_SKEW), kinds)
    work = at_work(reader, records, kinds, now)
    schema = {"stage_id": pl.String, "progress": pl.Float64}
    running = pl.DataFrame([*work.running.items()], schema=schema, orient="row")
    there = records.filter(~pl.col("stage_id").is_in(work.silent))
    with_it = there.join(running, on="stage_id", how="full", coalesce=True, maintain_order="left_right")
    runs = pl.col("stage_id").is_in([*work.running])
    frame = with_it.with_columns(
        status=pl.when(runs).then(pl.lit("running")).otherwise("status"), error=pl.when(~runs).then("error")
    )
    return frame, problems + work.problems


def _of_the_future(records: pl.DataFrame, kinds: Mapping[str, str]) -> list[str]:
    """Lines on results and failures that are yet to come: they are shown, but a clock was wrong."""
    lines = []
    for stage_id, status, at in records.select("stage_id", "status", "finished_at").iter_rows():
        file = layout.RECORD if status == "done" else layout.FAILURE
        path = f"{layout.stage_folder(kinds[stage_id], stage_id)}/{file}"
        lines.append(f"{path}: {of_the_future(at)}")
    return lines


def load_records(
    reader: Reader, kinds: Mapping[str, str], files: Sequence[str] = (layout.RECORD, layout.FAILURE)
) -> tuple[pl.DataFrame, list[str]]:
    """Records by stage id (the result, or else the failure), and what could not be read. `kinds`: id -> kind."""
    frames: list[pl.DataFrame] = [pl.DataFrame(schema=RECORD)]
    problems: list[str] = []
    wanted = dict(kinds)
    for file in files:
        paths = {f"{layout.stage_folder(kind, stage_id)}/{file}": stage_id for stage_id, kind in wanted.items()}
        for found in reader.batches([*paths], problems):
            frame, refused = _parsed(found, paths)
            frames.append(frame)
            problems += refused
            for path in found:
                del wanted[paths[path]]
    return pl.concat(frames), problems


def _parsed(found: Mapping[str, bytes], ids: Mapping[str, str]) -> tuple[pl.DataFrame, list[str]]:
    """Records by path, at once: one by one, as below, takes too long for a hundred thousand."""
    if not found:
        return pl.DataFrame(schema=RECORD), []
    lines = b"\n".join(data.replace(b"\n", b" ") for data in found.values())
    with contextlib.suppress(pl.exceptions.PolarsError, pl.exceptions.PanicException):  # which some bytes make it do
        frame = pl.read_ndjson(lines, schema=RECORD)
        version = frame["schema_version"]
        floats = frame.select(pl.col(pl.Float64))
        ranges = [pl.col(name).is_between(low, high).all() for name, (low, high) in FIGURES.items()]
        if (
            frame["stage_id"].to_list() == [ids[path] for path in found]
            and version.null_count() == 0
            and (version <= contract.SCHEMA_VERSION).all()
            and frame["status"].is_in(STATUSES).sum() == frame.height
            and all(column.is_finite().all() for column in floats.iter_columns())
            and all(frame.select(ranges).row(0))
        ):
            return frame, []
    rows, problems = [], []
    for path, data in found.items():
        try:
            rows.append(parse_record(data, stage_id=ids[path]))
        except Exception as error:  # whatever is wrong with one record, the others are shown
            problems.append(f"{path}: {said(error)}")
    return pl.DataFrame(rows, schema=RECORD), problems


def parse_record(data: bytes, *, stage_id: str) -> dict[str, Any]:
    """A stage's record as a row of RECORD. Raises ValueError with the reason it is none, on one line."""
    record = contract.parse_record(data)
    if record.stage_id != stage_id:
        raise ValueError(f"the record of another stage: {record.stage_id!r}")
    if record.status not in STATUSES:
        raise ValueError(f"not a record: its status is {record.status!r}")
    return asdict(record)
