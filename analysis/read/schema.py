"""The columns of the frames, as polars types. What is in them is said by `grid.contract`: `record` and `plan`."""

from __future__ import annotations

import polars as pl

from grid.contract import plan
from grid.contract.record import FIELDS

_TYPES: dict[type, type[pl.DataType]] = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}

RECORD = {name: _TYPES[kind] for name, kind in FIELDS.items()}

# The plan's rows: what a grid calls its cells. Labels come from here, since several grids may share a record.
ROW = {name: _TYPES[kind] for name, kind in plan.ROW.items()}

AXES = {axis: ROW[axis] for axis in plan.AXES}
