"""A grid's results beside those of the study it repeats, at the study's protocol and at ours."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.errors import AnalysisError
from analysis.load import Grid
from analysis.tables import AXES, BEST_TEST, POINT, align, escape, gains, shown_accuracy, shown_gain, unfinished

INSIDE, OUTSIDE, NO_INTERVAL = "inside", "outside", "no interval"


def compare(grid: Grid) -> pl.DataFrame:
    """One row a published pair, method, temperature and alpha of ours: the columns of `gains` at the best test epoch,
    and with the suffix _last at the last epoch; the study's figures as published_...; and `published_gain_is`: inside
    or outside of our interval at the study's protocol. Percent and points.

    Raises AnalysisError where the grid's file states no published figures.
    """
    published = _published(grid)
    ours = {point: gains(grid, point=point) for point in (BEST_TEST, POINT)}
    keys = ["teacher", "student", *AXES]
    joined = ours[BEST_TEST].join(ours[POINT], on=keys, how="inner", suffix="_last", nulls_equal=True)
    study = pl.DataFrame(
        [
            {
                "teacher": pair["teacher"],
                "student": pair["student"],
                "published_baseline": float(pair["baseline"]),
                "published_distilled": float(pair["distilled"]),
                "published_gain": round(pair["distilled"] - pair["baseline"], 6),
            }
            for pair in published["pairs"]
        ],
        schema={
            "teacher": pl.String,
            "student": pl.String,
            "published_baseline": pl.Float64,
            "published_distilled": pl.Float64,
            "published_gain": pl.Float64,
        },
    )
    inside = pl.col("published_gain").is_between("gain_low", "gain_high")
    return study.join(joined, on=["teacher", "student"], how="left", maintain_order="left").with_columns(
        published_gain_is=pl.when(inside).then(pl.lit(INSIDE)).when(~inside).then(pl.lit(OUTSIDE))
    )


def markdown_comparison(grid: Grid) -> str:
    """The study's line and our two for each pair, then the teachers."""
    published, frame = _published(grid), compare(grid)
    varying = [axis for axis in AXES if frame[axis].n_unique() > 1]
    header = ["Teacher", "Student", *(axis.capitalize() for axis in varying), "Whose", "Baseline", "Distilled", "Gain"]
    lines = []
    for row in frame.iter_rows(named=True):
        pair = [escape(row["teacher"]), escape(row["student"]), *(_value(row[axis]) for axis in varying)]
        said = [f"{row['published_baseline']:.2f}", f"{row['published_distilled']:.2f}"]
        lines.append([*pair, "published", *said, f"{row['published_gain']:+.2f}"])
        at_last = {name.removesuffix("_last"): value for name, value in row.items() if name.endswith("_last")}
        for whose, figures in (("ours, best test", row), ("ours, last epoch", at_last)):
            ours = [shown_accuracy(figures, "baseline"), shown_accuracy(figures, "distilled"), shown_gain(figures)]
            lines.append([*("" for _ in pair), whose, *ours])
    right = [name in ("Baseline", "Distilled", "Gain", *(a.capitalize() for a in varying)) for name in header]
    parts = [f"### {escape(grid.name)} beside {escape(published['study'])}", align(header, lines, right=right)]
    parts.append(
        f"Published: {escape(published['protocol'])}. Ours: top-1 on the test split of "
        f"{escape(str(grid.spec['dataset']['name']))} in percent, mean ± standard deviation over seeds; gains paired "
        "by seed, with their 95 % t interval. The best test epoch is selected on the test split itself, as published "
        "tables do, and is optimistic; the last epoch selects nothing."
    )
    parts += _verdicts(frame, varying)
    teachers = _teachers(grid, published)
    return "\n\n".join([*parts, *([teachers] if teachers else []), *unfinished(grid)]) + "\n"


def _published(grid: Grid) -> dict[str, Any]:
    published: dict[str, Any] | None = grid.spec.get("published")
    if not published:
        raise AnalysisError(f"grid {grid.name} states no published figures: give it published: in its file")
    return published


def _verdicts(frame: pl.DataFrame, varying: list[str]) -> list[str]:
    """For each pair, whether the published gain lies in our interval at the same protocol."""
    lines = []
    for row in frame.iter_rows(named=True):
        what = f"{escape(row['teacher'])} → {escape(row['student'])}"
        what += "".join(f", {axis} {_value(row[axis])}" for axis in varying)
        is_ = row["published_gain_is"] or NO_INTERVAL
        text = {
            INSIDE: "lies inside our interval",
            OUTSIDE: "lies outside of our interval",
            NO_INTERVAL: "cannot be judged: ours has no interval yet",
        }[is_]
        lines.append(f"- {what}: the published gain of {row['published_gain']:+.2f} {text} (best test).")
    return ["\n".join(lines)] if lines else []


def _teachers(grid: Grid, published: dict[str, Any]) -> str:
    rows = {row["teacher"]: row for row in grid.cells.filter(pl.col("kind") == "teacher").iter_rows(named=True)}
    lines = []
    for label, said in published["teachers"].items():
        row = rows.get(label, {})
        lines.append([escape(label), f"{said:.2f}", _percent(row.get(BEST_TEST)), _percent(row.get(POINT))])
    if not lines:
        return ""
    header = ["Teacher", "Published", "Ours, best test", "Ours, last epoch"]
    return align(header, lines, right=[False, True, True, True])


def _percent(fraction: float | None) -> str:
    return "—" if fraction is None else f"{100 * fraction:.2f}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
