"""Accuracy and calibration: for each student and way of training the mean, its interval and every seed."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures.pairs import POINT
from analysis.plots.fonts import wrap
from analysis.plots.picture import Picture, axis_said, caption, dataset, said_interval
from analysis.plots.style import (
    LINE,
    TALL,
    Theme,
    color,
    dash,
    key,
    legend,
    legend_height,
    marker,
    new_figure,
)
from analysis.plots.ways import Point, Ways, is_cut, limits, of_teachers, points, students, ways
from analysis.read.grids import Grid
from grid.contract.text import on_one_line

ROW = 0.17  # inches between two ways
SEEDS = 0.055  # inches from the mean down to its seeds
GAP = 0.14  # inches between two students


@dataclass(frozen=True)
class DotsPanel:
    """One quantity."""

    label: str
    points: list[Point]
    teachers: dict[str, float]
    """What each teacher has of it itself."""
    ceiling: float
    """It lies between 0 and this."""


def accuracy(grid: Grid, frame: pl.DataFrame) -> Picture | str:
    found = ways(grid, frame)
    if isinstance(found, str):
        return found
    panel = DotsPanel(
        "Top-1 (%)", points(found, students(grid), POINT, scale=100), of_teachers(grid, POINT, scale=100), 100
    )
    if not panel.points:
        return "no accuracy is known"
    text = caption(
        grid,
        f"Top-1 accuracy on the test split of {dataset(grid)} at the last epoch, of each student alone and from each "
        "teacher.",
        *_said([panel]),
        "Dashed lines: the teachers themselves." if panel.teachers else "",
        "The axis does not start at 0, so points are drawn and no bars: a bar's length would mislead.",
        found.note,
    )
    title = f"{on_one_line(grid.name)}: accuracy"
    return Picture("accuracy", title, text, lambda theme: _draw(theme, title, found, [panel]))


def calibration(grid: Grid, frame: pl.DataFrame) -> Picture | str:
    found = ways(grid, frame)
    if isinstance(found, str):
        return found
    names, panels = students(grid), []
    for label, column, scale, ceiling in (
        ("Expected calibration error (%)", "test_ece_last", 100.0, 100.0),
        ("Negative log-likelihood (nats)", "test_nll_last", 1.0, float("inf")),
    ):
        panel = DotsPanel(
            label, points(found, names, column, scale=scale), of_teachers(grid, column, scale=scale), ceiling
        )
        panels += [panel] if panel.points else []
    if not panels:
        return "no record has a calibration error or a likelihood"
    text = caption(
        grid,
        f"{' and '.join(panel.label for panel in panels)} on the test split of {dataset(grid)} at the last epoch, of "
        "each student alone and from each teacher; lower is better.",
        *_said(panels),
        "Dashed lines: the teachers themselves." if any(panel.teachers for panel in panels) else "",
        "The axes need not start at 0.",
        found.note,
    )
    title = f"{on_one_line(grid.name)}: calibration"
    return Picture("calibration", title, text, lambda theme: _draw(theme, title, found, panels))


def _said(panels: list[DotsPanel]) -> list[str]:
    summaries = [(panel, point.summary) for panel in panels for point in panel.points]
    cut = any(is_cut(end, *_limits(panel)) for panel, summary in summaries for end in (summary.low, summary.high))
    return [
        "Filled: the mean over seeds; small and hollow, below it: each seed.",
        said_interval([summary.n for _, summary in summaries], "the mean", cut=cut),
    ]


def _limits(panel: DotsPanel) -> tuple[float, float]:
    return limits(panel.points, list(panel.teachers.values()), floor=0, ceiling=panel.ceiling)


def _draw(theme: Theme, title: str, found: Ways, panels: list[DotsPanel]) -> Figure:
    shown = list(dict.fromkeys(point.student for panel in panels for point in panel.points))
    present = {(point.student, point.way) for panel in panels for point in panel.points}
    names = {student: wrap(student, 24) for student in shown}
    places: dict[tuple[str, int], float] = {}
    middles, edges, y = [], [], 0.0
    for student in shown:
        rows = [way for way in range(len(found.names)) if (student, way) in present]
        height = max(ROW * len(rows), LINE * (names[student].count("\n") + 1))
        start = y + (height - ROW * len(rows)) / 2
        places |= {(student, way): start + ROW * (i + 0.5) - SEEDS / 2 for i, way in enumerate(rows)}
        middles.append(y + height / 2)
        y += height + GAP
        edges.append(y - GAP / 2)
    teachers = list(dict.fromkeys(teacher for panel in panels for teacher in panel.teachers))
    line = "-" if any(point.summary.n > 1 for panel in panels for point in panel.points) else "none"
    handles: list[Artist] = [key(theme, way, found.names[way], line=line) for way in found.drawn()]
    for teacher in teachers:
        way = found.teachers[teacher]
        said = f"teacher {on_one_line(teacher)}"
        handles.append(Line2D([], [], color=color(theme, way), linestyle=dash(way), linewidth=1, label=said))
    figure = new_figure(y + (0.75 if len(panels) == 1 else 0.9) + legend_height(handles), title)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _panel(ax, theme, panel, found, places, alone=len(panels) == 1)
        for edge in edges[:-1]:
            ax.axhline(edge, color=theme.hairline, linewidth=0.6, zorder=0)
    for ax in axes:
        ax.tick_params(axis="x", labeltop=y > TALL)
    axes[0].set_ylim(y - GAP / 2, -GAP / 2)
    axes[0].set_yticks(middles, [names[student] for student in shown])
    legend(figure, handles)
    return figure


def _panel(
    ax: Axes, theme: Theme, panel: DotsPanel, found: Ways, places: dict[tuple[str, int], float], *, alone: bool
) -> None:
    low, high = _limits(panel)
    ax.set_xlim(low, high)
    counts = [point.summary.n for point in panel.points]
    ax.set_xlabel(axis_said(panel.label, counts, sep="; " if alone else "\n"))
    ax.locator_params(axis="x", nbins=9 if alone else 6)
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    for teacher, value in panel.teachers.items():
        way = found.teachers[teacher]
        ax.axvline(value, color=color(theme, way), linestyle=dash(way), linewidth=1, zorder=1)
    for point in panel.points:
        y, shade = places[point.student, point.way], color(theme, point.way)
        interval(ax, point.summary.low, point.summary.high, y, shade, low=low, high=high)
        shape = marker(point.way)
        if point.summary.n > 1:
            ax.plot(
                point.values,
                [y + SEEDS] * len(point.values),
                shape,
                color=shade,
                mfc="none",
                ms=3,
                mew=0.5,
                zorder=3,
                clip_on=False,
            )
        ax.plot([point.summary.mean], [y], shape, color=shade, mec=theme.page, mew=0.4, ms=5.5, zorder=4, clip_on=False)


def interval(
    ax: Axes, start: float | None, end: float | None, y: float, shade: str, *, low: float, high: float
) -> None:
    """A line from start to end; an arrow where it goes on beyond the axis."""
    if start is None or end is None:
        return
    ax.plot([max(start, low), min(end, high)], [y, y], color=shade, linewidth=1.3, solid_capstyle="butt", zorder=2)
    for value, limit, arrow in ((start, low, 8), (end, high, 9)):  # carets, with their tips there
        if is_cut(value, low, high):
            ax.plot([limit], [y], marker=arrow - 4, color=shade, ms=4, clip_on=False, zorder=2)
