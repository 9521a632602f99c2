"""What a grid says in a few sentences: which student to deploy, what distillation gave, how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.measures.efficiency import efficiency, only_selected
from analysis.measures.gains import crossed, gains
from analysis.measures.selection import select
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import number, pair, setting, shown_gain, with_setting
from analysis.tables.models import shown_training
from analysis.tables.verdicts import correction_sentences, counted, design_sentence
from grid.contract.units import human

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
    part = f"Of {', '.join(grid.only)} alone: " if grid.only else ""
    return Conclusion(part + _deploy(grid, frame), part + _distillation(frame), _certainty(grid, frame))


def _ways(grid: Grid, frame: pl.DataFrame) -> pl.DataFrame:
    """The ways of training a student that may be chosen, of those with an accuracy: alone, and from each teacher; of
    crossed settings only what validation selects."""
    rows = efficiency(grid, frame).filter(pl.col("mode").is_not_null(), pl.col("accuracy_percent").is_not_null())
    return only_selected(rows, frame) if crossed(frame) else rows


def _deploy(grid: Grid, frame: pl.DataFrame) -> str:
    ways = _ways(grid, frame)
    if ways.is_empty():
        return "No student has been trained yet."
    axes = crossed(frame)
    by = "accuracy_percent" if ways["val_percent"].has_nulls() else "val_percent"
    # Rounded: equal means of other accuracies differ in their last bits.
    best = ways.sort(pl.col(by).round(9), descending=True, maintain_order=True).row(0, named=True)
    split = "validation" if by == "val_percent" else "test"
    text = f"{best['model']}, {shown_training(best, axes)}"
    if ways.height > 1:
        text += f", the most accurate on {split} of {ways.height} ways of training"
    text += f": {_facts(best)}.{_against_alone(best, frame)}"
    size = best["parameters"]
    smaller = (
        ways.filter(pl.col("accuracy_percent") >= best["accuracy_percent"] - CLOSE, pl.col("parameters") < size)
        .sort("parameters", "accuracy_percent", descending=[False, True], maintain_order=True)
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
    if ways.height > 1 and by == "accuracy_percent":
        text += " Chosen by test itself, so the figure of the best is a little optimistic."
    return text + _left_out(ways, frame)


def _against_alone(best: dict[str, Any], frame: pl.DataFrame) -> str:
    """Whether the student is better for its teacher."""
    if best["mode"] != "distilled":
        return ""
    same = [pl.col(key).eq_missing(pl.lit(best[key], dtype=frame.schema[key])) for key in ("teacher", *AXES)]
    row = frame.filter(pl.col("student") == best["model"], *same).row(0, named=True)
    if row["gain_mean_points"] is None:
        return ""
    said = {"gain": "significantly better", "negative transfer": "significantly worse"}
    verdict = said.get(row["effect"], "not a significant difference")
    return f" Against the same student alone: {shown_gain(row)} points, {verdict}."


def _left_out(ways: pl.DataFrame, frame: pl.DataFrame) -> str:
    """Crossed settings of which none may be chosen, for there is no validation split."""
    if not crossed(frame) or ways.filter(pl.col("mode") == "distilled").height:
        return ""
    known = frame.filter(pl.col("gain_mean_points").is_not_null())
    if known.is_empty():
        return ""
    above = known.filter(pl.col("gain_mean_points") > 0).height
    return (
        f" Of the {known.height} distilled settings none may be chosen without a validation split (dataset.val_size); "
        f"{above} of them {'lies' if above == 1 else 'lie'} above their student alone on test."
    )


def _facts(row: dict[str, Any]) -> str:
    facts = [f"{number(row['accuracy_percent'])} % on test (n={row['accuracy_n']})"]
    if row["parameters"] is not None:
        facts.append(f"{human(row['parameters'])} parameters")
    if row["latency_ms"] is not None:
        facts.append(f"{row['latency_ms']:.3g} ms for {row['latency_batch']} images on {row['latency_device']}")
    if row["retention_percent"] is not None:
        facts.append(f"{row['retention_percent']:.1f} % of its teacher's accuracy")
    return ", ".join(facts)


def _distillation(frame: pl.DataFrame) -> str:
    known = frame.filter(pl.col("gain_mean_points").is_not_null())
    if known.is_empty():
        return "No student stands here both alone and with a teacher."
    axes = crossed(frame)
    what = ("setting" if axes else "pair") + ("" if known.height == 1 else "s")
    above = (known["gain_mean_points"] > 0).sum()
    text = f"{known.height} {what} of teacher and student: {counted(known)}; "
    text += f"the mean of {above} is above 0." if above == 1 else f"the means of {above} are above 0."
    if axes:
        text += _selected(select(frame).filter(pl.col("gain_mean_points").is_not_null()), axes)
    ordered = known.sort("gain_mean_points", descending=True, maintain_order=True).to_dicts()
    named = [("The largest gain by test is" if axes else "The largest gain is", ordered[0])]
    if len(ordered) > 1:
        named.append(("the smallest", ordered[-1]))
    shown = [f"{words} {shown_gain(row)} points, {with_setting(pair(row), row, axes)}" for words, row in named]
    return f"{text} {'; '.join(shown)}."


def _selected(chosen: pl.DataFrame, axes: list[str]) -> str:
    """The gains of what was chosen without test; nothing where validation selects none."""
    if chosen.is_empty():
        return ""
    if chosen.height == 1:
        row = chosen.row(0, named=True)
        return f" What validation selects, {setting(row, axes)}, gave {shown_gain(row)} points."
    found = chosen["gain_mean_points"].to_list()
    return f" What validation selects for each pair gave {min(found):+.2f} to {max(found):+.2f} points."


def _certainty(grid: Grid, frame: pl.DataFrame) -> str:
    seeds = sorted({n for n in frame["gain_n"] if n})
    if not seeds:
        return "Nothing can be said of chance yet."
    n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if seeds[-1] == 1:
        return "One seed each: nothing tells a gain from chance. Launch the grid with more seeds."
    text = f"Each gain is the mean over {n} seeds, paired with the same seed alone."
    text = " ".join([text, *correction_sentences(frame), design_sentence(grid)])
    cells = (grid.whole or grid).cells
    done, total = cells.filter(pl.col("status") == "done").height, cells.height
    if done < total:
        text += f" The grid is unfinished: {done} of {total} teachers and cells."
    return text
