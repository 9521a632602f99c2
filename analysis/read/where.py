"""`--where NAME=VALUE`: a grid cut down to some of its cells."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import polars as pl

from analysis.errors import AnalysisError
from analysis.read.grids import Grids, Records
from analysis.read.schema import ROW
from grid.contract.plan import NUMBERS

Some = TypeVar("Some", bound=Records)


def filtered(grid: Some, wanted: Sequence[str]) -> Some:
    """The cells and stages that agree with every name; the values of one name add up. A label that does not apply
    leaves a row in: baselines have no teacher, and teachers no student. Teacher logits stay where a cell is left that
    reads them.

    Raises AnalysisError for an unknown name, a value of another type or that nothing has, and where no cell is left.
    """
    values: dict[str, list[object]] = defaultdict(list)
    for text in wanted:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise AnalysisError(f"--where {text}: expected NAME=VALUE, such as student=ResNet-S")
        values[name].append(_typed(grid.cells, name, value, text))
        if grid.cells.filter(pl.col(name) == values[name][-1]).is_empty():
            raise AnalysisError(f"--where {text}: nothing in {grid.called} is so{_known(grid, [name])}")
    if not values:
        return grid
    # What is recorded of a stage applies to it, or is not known: then it is not so.
    agree = [pl.col(name).is_in(of) | (pl.lit(name in ROW) & pl.col(name).is_null()) for name, of in values.items()]
    keep = pl.all_horizontal(agree)
    cells = grid.cells.filter(keep)
    if cells.filter(pl.col("kind") == "cell").is_empty():
        raise AnalysisError(f"--where {' '.join(wanted)}: no cell of {grid.called} is so{_known(grid, [*values])}")
    unread = set(grid.cells["logits_id"].drop_nulls()) - set(cells["logits_id"].drop_nulls())
    stages = grid.stages.filter(keep, ~pl.col("stage_id").is_in(list(unread)))
    left: dict[str, Any] = {"cells": cells, "stages": stages, "only": tuple(wanted), "whole": grid}
    if isinstance(grid, Grids):
        names = set(cells["grid"])
        left["specs"] = {name: spec for name, spec in grid.specs.items() if name in names}
    return replace(grid, **left)


def _typed(cells: pl.DataFrame, name: str, value: str, text: str) -> object:
    if name not in cells.columns:
        near = difflib.get_close_matches(name, cells.columns, n=1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"known: student, teacher, mode, seed, {', '.join(NUMBERS)}, status, ..."
        )
        raise AnalysisError(f"--where {text}: records have no {name!r}; {hint}")
    kind = cells.schema[name]
    try:
        if kind == pl.Boolean:
            return {"true": True, "false": False}[value.lower()]
        if kind == pl.Int64:
            return int(value)
        if kind == pl.Float64 and not math.isfinite(float(value)):
            raise ValueError
        return float(value) if kind == pl.Float64 else value
    except (ValueError, KeyError):
        raise AnalysisError(f"--where {text}: {name} is {str(kind).lower()}, not {value!r}") from None


def _known(grid: Records, names: Sequence[str]) -> str:
    """What there is of names with few values."""
    shown = []
    for name in names:
        there = grid.cells[name].drop_nulls().unique(maintain_order=True).to_list()
        if 0 < len(there) <= 12:
            shown.append(f"{name} is one of {', '.join(map(str, there))}")
    return f"; {'; '.join(shown)}" if shown else ""
