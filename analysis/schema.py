"""The columns of the frames, as polars types. The record's fields are those of `grid.contract.record`."""

from __future__ import annotations

import polars as pl

from grid.contract.record import FIELDS

_TYPES: dict[type, type[pl.DataType]] = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}

RECORD = {name: _TYPES[kind] for name, kind in FIELDS.items()}

# The plan's rows: what a grid calls its cells. Labels come from here, since several grids may share a record.
ROW: dict[str, type[pl.DataType]] = {
    "kind": pl.String,
    "stage_id": pl.String,
    "teacher": pl.String,
    "student": pl.String,
    "mode": pl.String,
    "seed": pl.Int64,
    "method": pl.String,
    "temperature": pl.Float64,
    "alpha": pl.Float64,
    "params": pl.String,
    "setting": pl.String,
    "teacher_id": pl.String,
}
