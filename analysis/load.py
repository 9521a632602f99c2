"""Read a grid's plan and records from its storage into polars frames. What cannot be read is named, never dropped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import polars as pl

from analysis.errors import AnalysisError
from analysis.schema import PLAN_SCHEMA_VERSION, RECORD, RECORD_SCHEMA_VERSION, ROW

FOLDERS = {"teacher": "teachers", "cell": "cells"}


@dataclass(frozen=True)
class Grid:
    """A grid as it stands. cells: one row a planned teacher or cell, the plan's labels joined with the record's facts;
    status is done, failed or missing. problems: records that could not be read, a line each."""

    name: str
    spec: dict[str, Any]
    cells: pl.DataFrame
    problems: list[str]


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
    complete = isinstance(plan, dict) and {"schema_version", "spec", "rows"} <= plan.keys()
    if not complete or plan["schema_version"] != PLAN_SCHEMA_VERSION:
        raise AnalysisError(f"{storage}/grids/{name}/plan.json: of another version of this program; launch it again")
    rows = pl.DataFrame(plan["rows"], schema=ROW)
    records, problems = load_records(reader, dict(zip(rows["stage_id"], rows["kind"], strict=True)))
    facts = records.drop([column for column in ROW if column != "stage_id"])
    cells = rows.join(facts, on="stage_id", how="left", maintain_order="left").with_columns(
        pl.col("status").fill_null("missing")
    )
    return Grid(name=name, spec=plan["spec"], cells=cells, problems=problems)


def load_records(reader: Reader, kinds: dict[str, str]) -> tuple[pl.DataFrame, list[str]]:
    """Records by stage id (the result, or else the failure), and what could not be read. `kinds`: id -> kind."""
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for stage_id, kind in kinds.items():
        for file in ("record.json", "failure.json"):
            path = f"{FOLDERS[kind]}/{stage_id}/{file}"
            try:
                found.append(parse_record(reader.read(path), stage_id=stage_id))
            except FileNotFoundError:
                continue
            except ValueError as error:
                problems.append(f"{path}: {error}")
            break
    return pl.DataFrame(found, schema=RECORD), problems


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
