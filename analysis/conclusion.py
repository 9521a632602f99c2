"""What a grid says in a few sentences: which student to deploy, what distillation gave, how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.efficiency import efficiency, shown_training
from analysis.gains import AXES, crossed, gains
from analysis.load import Grid
from analysis.selection import select
from analysis.shown import human, number, pair, setting, shown_gain

# A smaller student within so many points of the best is worth naming.
CLOSE = 1.0


@dataclass(frozen=True)
class Conclusion:
    """Three paragraphs of plain text."""

    deploy: str
    distillation: str
    certainty: str


def conclude(grid: Grid) -> Conclusion:
    """From the records alone. What is not known yet is said to be so."""
    frame = gains(grid)
    return Conclusion(_deploy(grid, frame), _distillation(frame), _certainty(grid, frame))


def _candidates(grid: Grid, frame: pl.DataFrame) -> pl.DataFrame:
    """Students with an accuracy, a row each way of training them; of crossed settings what validation selects."""
    rows = efficiency(grid).filter(pl.col("mode").is_not_null(), pl.col("accuracy").is_not_null())
    if not crossed(frame):
        return rows
    keys = ["teacher", *AXES]
    selected = select(frame).select(pl.col("student").alias("model"), *keys)
    taught = rows.join(selected, on=["model", *keys], how="semi", nulls_equal=True)
    return pl.concat([rows.filter(pl.col("mode") == "baseline"), taught])


def _deploy(grid: Grid, frame: pl.DataFrame) -> str:
    rows = _candidates(grid, frame)
    if rows.is_empty():
        return "No student has been trained yet."
    axes = crossed(frame)
    best = rows.sort("accuracy", descending=True, maintain_order=True).row(0, named=True)
    text = f"{best['model']}, {shown_training(best, axes)}, is the most accurate: {_facts(best)}."
    size = best["parameters"]
    smaller = (
        rows.filter(pl.col("accuracy") >= best["accuracy"] - CLOSE, pl.col("parameters") < size)
        .sort("parameters", "accuracy", descending=[False, True], maintain_order=True)
        .to_dicts()
        if size is not None
        else []
    )
    if smaller:
        close = smaller[0]
        ratio = size / close["parameters"]
        text += (
            f" {close['model']}, {shown_training(close, axes)}, is {ratio:.1f}x smaller and within {CLOSE:g} point of "
            f"it: {_facts(close)}."
        )
    if rows.height > 1:
        text += (
            f" Chosen by test accuracy among {rows.height} ways of training, so the figure of the best is a little "
            "optimistic."
        )
    return text


def _facts(row: dict[str, Any]) -> str:
    facts = [f"{number(row['accuracy'])} % (n={row['accuracy_n']})"]
    if row["parameters"] is not None:
        facts.append(f"{human(row['parameters'])} parameters")
    if row["latency_ms"] is not None:
        facts.append(f"{row['latency_ms']:.3g} ms for {row['latency_batch']} images on {row['latency_device']}")
    if row["retention"] is not None:
        facts.append(f"{row['retention']:.1f} % of its teacher's accuracy")
    return ", ".join(facts)


def _distillation(frame: pl.DataFrame) -> str:
    known = frame.filter(pl.col("gain_mean").is_not_null())
    if known.is_empty():
        return "No student has been trained both alone and with a teacher yet."
    axes = crossed(frame)
    counts = {effect: known.filter(pl.col("effect") == effect).height for effect in ("gain", "negative transfer")}
    what = "settings and pairs" if axes else "pairs"
    text = (
        f"{known.height} {what} of teacher and student; clear gains: {counts['gain']}, clear losses: "
        f"{counts['negative transfer']}, unclear: {known.height - sum(counts.values())}."
    )
    if axes:
        text += _selected(select(frame).filter(pl.col("gain_mean").is_not_null()), axes)
    ordered = known.sort("gain_mean", descending=True, maintain_order=True).to_dicts()
    named = [("The largest gain by test is" if axes else "The largest gain is", ordered[0])]
    if len(ordered) > 1:
        named.append(("the smallest", ordered[-1]))
    shown = [f"{words} {shown_gain(row)} points, {_where(row, axes)}" for words, row in named]
    return f"{text} {'; '.join(shown)}."


def _selected(chosen: pl.DataFrame, axes: list[str]) -> str:
    """The gains that no choice by test has flattered; nothing where validation selects none."""
    if chosen.is_empty():
        return ""
    if chosen.height == 1:
        row = chosen.row(0, named=True)
        return f" What validation selects, {setting(row, axes)}, gave {shown_gain(row)} points."
    found = chosen["gain_mean"].to_list()
    return f" What validation selects for each pair gave {min(found):+.2f} to {max(found):+.2f} points."


def _where(row: dict[str, Any], axes: list[str]) -> str:
    return ", ".join([pair(row), *([setting(row, axes)] if axes else [])])


def _certainty(grid: Grid, frame: pl.DataFrame) -> str:
    seeds = sorted({n for n in frame["gain_n"] if n})
    if not seeds:
        return "Nothing can be said of chance yet."
    n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if seeds[-1] == 1:
        return "One seed each: nothing tells a gain from chance. Launch the grid with more seeds."
    text = f"Each gain is the mean over {n} seeds, paired with the same seed alone, with its 95 % t interval."
    tested = frame["gain_p_holm"].drop_nulls()
    if len(tested) > 1:
        text += (
            f" With {len(tested)} intervals, about one in twenty would exclude 0 by chance alone; after Holm's "
            f"correction for their number {sum(p < 0.05 for p in tested)} of {len(tested)} stay clear of it."
        )
    done, total = grid.cells.filter(pl.col("status") == "done").height, grid.cells.height
    if done < total:
        text += f" The grid is unfinished: {done} of {total} teachers and cells."
    return text
