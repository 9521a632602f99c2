"""Read a grid's plan and records from its storage into polars frames. What cannot be read is named, never dropped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import polars as pl

from analysis.errors import AnalysisError
from analysis.schema import PLAN_SCHEMA_VERSION, RECORD, RECORD_SCHEMA_VERSION, ROW

FOLDERS = {"dataset": "datasets", "teacher": "teachers", "logits": "logits", "cell": "cells"}
STAGE = ("stage_id", "kind")


@dataclass(frozen=True)
class Grid:
    """A grid as it stands. cells: one row a planned teacher or cell, the plan's labels joined with the record's facts;
    stages: one row a stage of any kind, likewise; status is done, failed or missing. problems: what could not be read
    so far, a line each. reader: of the storage, for what is read only when it is asked for."""

    name: str
    spec: dict[str, Any]
    cells: pl.DataFrame
    stages: pl.DataFrame
    problems: list[str]
    reader: Reader


class Reader:
    """Files below a storage root, local or by URL."""

    def __init__(self, storage: str) -> None:
        self.storage = storage
        try:
            local = "://" not in storage
            self._fs, self._root = fsspec.core.url_to_fs(str(Path(storage).expanduser()) if local else storage)
        except (ValueError, ImportError) as error:
            raise AnalysisError(f"--storage {storage}: {error}") from None

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        data: bytes = self._fs.cat_file(f"{self._root.rstrip('/')}/{path}")
        return data

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Those that are there, at once where the storage can."""
        root = self._root.rstrip("/")
        found = self._fs.cat([f"{root}/{path}" for path in paths], on_error="return") if paths else {}
        by_place = {place.removeprefix(root).lstrip("/"): data for place, data in found.items()}
        for path, data in by_place.items():
            if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                raise OSError(f"{self.storage}/{path}: {data}") from data
        return {path: by_place[path] for path in paths if isinstance(by_place[path], bytes)}

    def grids(self) -> list[str]:
        """Names of the grids that were run here, the latest last."""
        try:
            entries = self._fs.ls(f"{self._root.rstrip('/')}/grids", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        written = []
        for entry in entries:
            name = entry.rstrip("/").rsplit("/", 1)[-1]
            try:
                written.append((json.loads(self.read(f"grids/{name}/plan.json"))["written_at"] or "", name))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return [name for _, name in sorted(written)]


def load_grid(storage: str, name: str | None = None) -> Grid:
    """The named grid, or the one launched last. Raises AnalysisError where there is none."""
    reader = Reader(storage)
    if name is None:
        known = reader.grids()
        if not known:
            raise AnalysisError(f"no grid was run in {storage}: run python launch.py --grid digits, or give --storage")
        name = known[-1]
    try:
        plan = json.loads(reader.read(f"grids/{name}/plan.json"))
    except FileNotFoundError:
        known = reader.grids()
        there = f"there are {', '.join(known)}" if known else "there is none"
        raise AnalysisError(f"no grid {name!r} was run in {storage}; {there}") from None
    except ValueError as error:
        raise AnalysisError(f"{storage}/grids/{name}/plan.json: not a plan: {error}; launch the grid again") from None
    complete = isinstance(plan, dict) and {"schema_version", "spec", "rows", "stages"} <= plan.keys()
    if not complete or plan["schema_version"] != PLAN_SCHEMA_VERSION:
        raise AnalysisError(f"{storage}/grids/{name}/plan.json: of another version of this program; launch it again")
    rows = pl.DataFrame(plan["rows"], schema=ROW)
    kinds = {stage["id"]: stage["kind"] for stage in plan["stages"]}
    records, problems = load_records(reader, kinds)
    cells = _joined(rows, records)
    planned = pl.DataFrame({"stage_id": [*kinds], "kind": [*kinds.values()]}, schema={n: ROW[n] for n in STAGE})
    labels = rows.drop("kind").unique("stage_id", keep="first")
    stages = _joined(planned.join(labels, on="stage_id", how="left", maintain_order="left").select(*ROW), records)
    return Grid(name=name, spec=plan["spec"], cells=cells, stages=stages, problems=problems, reader=reader)


def _joined(rows: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """The plan's labels with the records' facts; what the record says of itself in the same words gives way."""
    facts = records.drop([column for column in ROW if column != "stage_id"])
    return rows.join(facts, on="stage_id", how="left", maintain_order="left").with_columns(
        pl.col("status").fill_null("missing")
    )


def load_records(reader: Reader, kinds: dict[str, str]) -> tuple[pl.DataFrame, list[str]]:
    """Records by stage id (the result, or else the failure), and what could not be read. `kinds`: id -> kind."""
    frames: list[pl.DataFrame] = []
    problems: list[str] = []
    wanted = dict(kinds)
    for file in ("record.json", "failure.json"):
        paths = {f"{FOLDERS[kind]}/{stage_id}/{file}": stage_id for stage_id, kind in wanted.items()}
        found = reader.read_many([*paths])
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
    with contextlib.suppress(pl.exceptions.PolarsError):
        frame = pl.read_ndjson(lines, schema=RECORD)
        version = frame["schema_version"]
        if (
            frame["stage_id"].to_list() == [ids[path] for path in found]
            and version.null_count() == 0
            and (version <= RECORD_SCHEMA_VERSION).all()
        ):
            return frame, []
    rows, problems = [], []
    for path, data in found.items():
        try:
            rows.append(parse_record(data, stage_id=ids[path]))
        except ValueError as error:
            problems.append(f"{path}: {error}")
    return pl.DataFrame(rows, schema=RECORD), problems


def parse_record(data: bytes, *, stage_id: str) -> dict[str, Any]:
    """A stage's record as a row of RECORD. Raises ValueError with the reason it is none, on one line."""
    record = json.loads(data)
    if not isinstance(record, dict) or not isinstance(record.get("schema_version"), int):
        raise ValueError("not a record: it has no schema_version")
    if record["schema_version"] > RECORD_SCHEMA_VERSION:
        raise ValueError(f"of schema version {record['schema_version']}, newer than this program: update it")
    row = {name: record.get(name) for name in RECORD}
    try:
        pl.DataFrame([row], schema=RECORD)
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise ValueError(f"not a record: {' '.join(str(error).split())}") from None
    if row["stage_id"] != stage_id:
        raise ValueError(f"the record of another stage: {row['stage_id']!r}")
    return row
