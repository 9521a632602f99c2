"""The gains with their intervals, a row a pair and setting, beside what a study published."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures.gains import crossed
from analysis.plots.dots import interval
from analysis.plots.fonts import width, wrap
from analysis.plots.picture import (
    Picture,
    axis_said,
    caption,
    dataset,
    pages,
    pair,
    said_interval,
)
from analysis.plots.style import LINE, TALL, Theme, legend, legend_height, new_figure
from analysis.plots.ways import is_cut
from analysis.read.grids import Grid
from analysis.shown import setting, shortened, shown_gain
from grid.contract.text import on_one_line

ROWS = 60  # of one picture
PAD = 0.07  # inches between rows
LABEL = 38  # CHARACTERs


@dataclass(frozen=True)
class ForestRow:
    """A line of the picture."""

    label: str
    gain: dict[str, Any] | None
    """A row of `gains`, or None for the heading of a pair whose settings follow."""
    published: float | None
    """The gain that a study published of the pair."""


def forest(grid: Grid, planned: pl.DataFrame) -> list[Picture] | str:
    """As many pictures as the rows need; all of one scale."""
    frame = planned.filter(pl.col("gain_mean_points").is_not_null())
    if frame.is_empty():
        return "no gain is known"
    study = grid.spec.get("published") or {}
    said = {(p["teacher"], p["student"]): p["distilled"] - p["baseline"] for p in study.get("pairs") or ()}
    rows = _rows(frame.to_dicts(), crossed(planned), said)
    known = frame.to_dicts()
    published = [row.published for row in rows if row.published is not None]
    low, high = _limits(known, published)
    cut = any(is_cut(gain[end], low, high) for gain in known for end in ("gain_low_points", "gain_high_points"))
    text = caption(
        grid,
        f"Gain of distillation in points of top-1 on the test split of {dataset(grid)} at the last epoch: distilled "
        "minus the same student alone, paired by seed.",
        said_interval([gain["gain_n"] for gain in known], "the mean gain", cut=cut),
        "Filled: a significant gain or loss, after correction for all pairs that the grid plans; hollow: not "
        "significant. A line is of its row alone: among many, some exclude 0 by chance.",
        f"Diamonds: the gain published by {on_one_line(str(study.get('study', 'the study')))} "
        f"({on_one_line(str(study.get('protocol', 'its protocol is not stated')))}); ours here is at the last epoch."
        if published
        else "",
        f"Left out: {planned.height - frame.height} of {planned.height} rows, whose gain is not known yet."
        if planned.height > frame.height
        else "",
    )
    pictures = []
    whole = f"{on_one_line(grid.name)}: gain of distillation"
    heading = None
    for name, title, page in pages(rows, ROWS, name="gains", title=whole):
        shown = [heading, *page] if heading and page[0].gain is not None else page
        heading = next((replace(row, published=None) for row in reversed(shown) if row.gain is None), None)

        def draw(theme: Theme, title: str = title, shown: list[ForestRow] = shown) -> Figure:
            return _draw(theme, title, shown, low, high)

        pictures.append(Picture(name, title, text, draw))
    return pictures


def _rows(found: list[dict[str, Any]], axes: list[str], said: dict[tuple[str, str], float]) -> list[ForestRow]:
    rows: list[ForestRow] = []
    last = None
    labels = [setting(gain, axes) for gain in found]
    if any(width(label) > LABEL for label in labels):
        labels = [shortened(label) for label in labels]
    for gain, label in zip(found, labels, strict=True):
        key = (gain["teacher"], gain["student"])
        published = said.get(key)
        if not axes:
            rows.append(ForestRow(pair(gain), gain, published))
            continue
        if key != last:
            rows.append(ForestRow(pair(gain), None, published))
            last = key
        rows.append(ForestRow(label, gain, None))
    return rows


def _limits(known: list[dict[str, Any]], published: list[float]) -> tuple[float, float]:
    """All means, 0 and what was published, and of the intervals as much as does not squeeze these."""
    means = [gain["gain_mean_points"] for gain in known] + published + [0.0]
    low, high = min(means), max(means)
    room = 2 * (high - low) or math.inf
    low = min(
        [low, *(max(gain["gain_low_points"], low - room) for gain in known if gain["gain_low_points"] is not None)]
    )
    high = max(
        [high, *(min(gain["gain_high_points"], high + room) for gain in known if gain["gain_high_points"] is not None)]
    )
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _draw(theme: Theme, title: str, rows: list[ForestRow], low: float, high: float) -> Figure:
    labels = [wrap(row.label, LABEL) for row in rows]
    heights = [LINE * (label.count("\n") + 1) + PAD for label in labels]
    places = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    handles: list[Artist] = []
    gains_ = [row.gain for row in rows if row.gain is not None]
    kinds = {gain["effect"] for gain in gains_}
    none = all(gain["gain_low_points"] is None for gain in gains_)
    line = "none" if none else "-"
    tests = max(gain["gain_tests"] for gain in gains_)
    corrected = f", corrected for {tests} comparisons" if tests > 1 else ""
    for effect, text in (
        ("gain", f"significant gain{corrected}"),
        ("negative transfer", f"significant loss (negative transfer){corrected}"),
        ("unclear", "one seed: no interval" if none else f"not significant{corrected}"),
    ):
        if effect in kinds:
            shade, face = _colors(theme, effect)
            handles.append(Line2D([], [], marker="o", ms=5, color=shade, mfc=face, lw=1.3, ls=line, label=text))
    diamond: dict[str, Any] = {
        "marker": "D",
        "ms": 5,
        "mfc": "none",
        "mew": 1.1,
        "color": theme.ink,
        "linestyle": "none",
    }
    if any(row.published is not None for row in rows):
        handles.append(Line2D([], [], label="published", **diamond))
    below = legend_height(handles) if handles else 0
    figure = new_figure(sum(heights) + 0.75 + below, title)
    ax = figure.subplots()
    ax.set_xlim(low, high)
    ax.set_ylim(sum(heights), 0)
    ax.axvline(0, color=theme.muted, linewidth=0.8, zorder=1)
    for row, y in zip(rows, places, strict=True):
        if row.published is not None:
            ax.plot([row.published], [y], zorder=5, **diamond)
        if row.gain is None:
            continue
        shade, face = _colors(theme, row.gain["effect"])
        interval(ax, row.gain["gain_low_points"], row.gain["gain_high_points"], y, shade, low=low, high=high)
        ax.plot([row.gain["gain_mean_points"]], [y], "o", ms=5.5, color=shade, mfc=face, mew=1.2, zorder=4)
        ax.text(1.02, y, figures(row.gain), transform=ax.get_yaxis_transform(), ha="left", va="center_baseline")
    ax.tick_params(axis="x", labeltop=sum(heights) > TALL)
    ax.set_yticks(places, labels)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.gain is None else "normal")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_xlabel(axis_said("Gain (points of top-1)", [gain["gain_n"] for gain in gains_]))
    if handles:
        legend(figure, handles)
    return figure


def figures(gain: dict[str, Any]) -> str:
    """'n = 3  +2.00 [+0.48, +3.52] ▲', with minus signs as wide as the plus."""
    shown = shown_gain(gain, interval=gain["gain_low_points"] is not None).replace("-", "−")
    return f"n = {gain['gain_n']}  {shown}"


def _colors(theme: Theme, effect: str) -> tuple[str, str]:
    """Of the line and of the point's inside."""
    shade = {"gain": theme.gain, "negative transfer": theme.loss}.get(effect)
    return (theme.muted, theme.page) if shade is None else (shade, shade)
