"""Curves are read beside the grid's axes, and what cannot be read is named."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from analysis.read.curves import CURVE, curves
from analysis.read.load import load_grid
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]

POINTS = [
    {"epoch": 1, "train_loss": 2.0, "test_top1": None},
    {"epoch": 2, "train_loss": 1.0, "test_top1": 0.5},
]


def test_a_row_a_stage_and_epoch_with_the_grids_axes(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    for row in grid.rows:
        grid.done(row, 50.0)
        grid.curve(row, POINTS)
    loaded = load_grid(grid.storage)
    frame = curves(loaded)
    assert frame.columns[-len(CURVE) :] == list(CURVE)
    rows = frame.select("kind", "teacher", "student", "mode", "temperature", "epoch", "train_loss", "test_top1").rows()
    assert rows == [
        ("teacher", "ViT-T", None, None, None, 1, 2.0, None),
        ("teacher", "ViT-T", None, None, None, 2, 1.0, 0.5),
        ("cell", None, "ResNet-S", "baseline", None, 1, 2.0, None),
        ("cell", None, "ResNet-S", "baseline", None, 2, 1.0, 0.5),
        ("cell", "ViT-T", "ResNet-S", "distilled", 4.0, 1, 2.0, None),
        ("cell", "ViT-T", "ResNet-S", "distilled", 4.0, 2, 1.0, 0.5),
    ]
    assert frame["val_top1"].null_count() == frame.height
    assert loaded.problems == []


def test_each_term_of_a_loss_is_a_column_and_null_where_a_cell_has_none(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    terms = [{**point, "train_loss_kd": 3.0 - epoch, "train_loss_ce": 0.5} for epoch, point in enumerate(POINTS)]
    for row in grid.rows:
        grid.done(row, 50.0)
        points = terms if row.get("mode") == "distilled" else POINTS
        grid.curve(row, [{**point, "strange": 1.0, "train_loss_of a name": 1.0} for point in points])
    frame = curves(load_grid(grid.storage))
    assert frame.columns[-len(CURVE) - 2 :] == [*CURVE, "train_loss_kd", "train_loss_ce"]
    rows = frame.select("mode", "epoch", "train_loss", "train_loss_kd", "train_loss_ce").rows()
    assert rows == [
        (None, 1, 2.0, None, None),
        (None, 2, 1.0, None, None),
        ("baseline", 1, 2.0, None, None),
        ("baseline", 2, 1.0, None, None),
        ("distilled", 1, 2.0, 3.0, 0.5),
        ("distilled", 2, 1.0, 2.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(None, "missing"), (b"PAR1 cut off", "not a curve: "), ("no epochs", "not a curve: it has no epochs")],
)
def test_a_curve_that_cannot_be_read_is_named_once(make_grid: Maker, data: bytes | str | None, reason: str) -> None:
    grid = make_grid(seeds=[0], modes=["baseline"])
    (row,) = grid.rows
    grid.done(row, 50.0)
    if isinstance(data, bytes):
        grid.write(f"{grid.folder(row)}/curve.parquet", data)
    elif data is not None:
        grid.curve(row, [{"train_loss": 1.0}])
    loaded = load_grid(grid.storage)
    assert curves(loaded).is_empty()
    assert curves(loaded).is_empty()
    (problem,) = loaded.problems
    assert problem.startswith(f"{grid.folder(row)}/curve.parquet: {reason}")
    assert "\n" not in problem


@pytest.mark.parametrize("column", ["train_loss", "train_loss_kd"])
def test_a_column_of_another_type_is_no_curve(make_grid: Maker, column: str) -> None:
    grid = make_grid(seeds=[0], modes=["baseline"])
    grid.done(grid.rows[0], 50.0)
    grid.curve(grid.rows[0], [{"epoch": 1, column: "low"}])
    loaded = load_grid(grid.storage)
    assert curves(loaded).is_empty()
    assert "not a curve" in loaded.problems[0]


def test_bytes_on_which_polars_panics_are_no_curve(make_grid: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(source: object) -> None:
        raise pl.exceptions.PanicException("range end index 9 out of range\nfor slice of length 7")

    grid = make_grid(seeds=[0], modes=["baseline"])
    grid.done(grid.rows[0], 50.0)
    grid.curve(grid.rows[0], POINTS)
    monkeypatch.setattr(pl, "read_parquet", panic)
    loaded = load_grid(grid.storage)
    assert curves(loaded).is_empty()
    reason = "not a curve: range end index 9 out of range for slice of length 7"
    assert loaded.problems == [f"{grid.folder(grid.rows[0])}/curve.parquet: {reason}"]


def test_what_is_not_done_has_no_curve_and_no_problem(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    grid.fail(grid.one(mode="baseline"))
    loaded = load_grid(grid.storage)
    assert curves(loaded).is_empty()
    assert loaded.problems == []
