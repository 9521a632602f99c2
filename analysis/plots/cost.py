"""Accuracy against what a model costs: parameters, multiply-adds and latency, with the Pareto front."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from analysis.measures.efficiency import efficiency
from analysis.plots.fonts import wrap
from analysis.plots.labels import Label, Spot, place
from analysis.plots.picture import Picture, caption, dataset, said_n
from analysis.plots.style import Theme, color, key, legend, legend_height, marker, new_figure, settle
from analysis.plots.ways import KEYS, Ways, ways
from analysis.read.grids import Grid
from grid.contract.text import on_one_line
from grid.contract.units import human

SIDE_BY_SIDE = (6, 12)  # at most so many models, with names of at most so many characters
COSTS = {"parameters": "Parameters", "macs": "Multiply-adds of one image", "latency_ms": "Latency (ms per batch)"}


@dataclass(frozen=True)
class Model:
    """A model and what it costs."""

    name: str
    way: int | None
    """None for a teacher itself."""
    accuracy: float
    n: int
    costs: dict[str, float | None]
    quartiles: tuple[float, float] | None
    place: tuple[object, object]
    """What its latency was measured with."""


def cost(grid: Grid, frame: pl.DataFrame) -> Picture | str:
    found = ways(grid, frame)
    if isinstance(found, str):
        return found
    models = _models(efficiency(grid, frame), found)
    timed = Counter(model.place for model in models if model.costs["latency_ms"])
    where = timed.most_common(1)[0][0] if timed else None
    shown = [name for name in COSTS if len({model.costs[name] for model in _within(models, name, where)}) > 1]
    if not shown:
        return "no accuracy is known, or no cost in which models differ"
    notes = []
    if where is not None and "latency_ms" in shown:
        notes.append(
            f"Latency: of {where[1]} images on {where[0]}, median, with lines between its quartiles; it was measured "
            "beside whatever else the machine ran."
        )
        elsewhere = sorted({model.name for model in models if model.costs["latency_ms"] and model.place != where})
        if elsewhere:
            notes.append(f"Not in that panel, being measured otherwise: {', '.join(elsewhere)}.")
    seeds = [model.n for model in models if model.way is not None]
    absent = [COSTS[name] for name in COSTS if name not in shown]
    text = caption(
        grid,
        f"Mean top-1 accuracy on the test split of {dataset(grid)} at the last epoch against "
        f"{', '.join(COSTS[name][0].lower() + COSTS[name][1:] for name in shown)} (logarithmic)."
        + (f" Not on record, or the same for all: {', '.join(absent)}." if absent else ""),
        "Stars: the teachers. Dotted lines join what is one student trained in several ways. Stepped line: the Pareto "
        "front, the highest accuracy that any model, teachers included, has at a cost or below it.",
        f"Students: {said_n(seeds)}; the picture of accuracy has the intervals." if seeds else "",
        *notes,
        found.note,
    )
    title = f"{on_one_line(grid.name)}: accuracy against cost"
    return Picture("cost", title, text, lambda theme: _draw(theme, title, found, models, shown, where))


def _models(costs: pl.DataFrame, found: Ways) -> list[Model]:
    """Teachers, students alone and in the ways that are drawn, with an accuracy."""
    drawn = {tuple(row[:-1]): row[-1] for row in found.cells.select(*KEYS, "way").unique().iter_rows()}
    models = []
    for row in costs.filter(pl.col("accuracy_percent").is_not_null()).iter_rows(named=True):
        way = None
        if row["mode"] is not None:
            way = drawn.get(tuple(row["model"] if name == "student" else row[name] for name in KEYS))
            if way is None:
                continue
        models.append(_model(row, way))
    return models


def _model(row: dict[str, Any], way: int | None) -> Model:
    quartiles = (row["latency_ms_q1"], row["latency_ms_q3"])
    return Model(
        name=on_one_line(row["model"]),
        way=way,
        accuracy=row["accuracy_percent"],
        n=row["accuracy_n"],
        costs={name: row[name] for name in COSTS},
        quartiles=None if None in quartiles else quartiles,
        place=(row["latency_device"], row["latency_batch"]),
    )


def _within(models: list[Model], name: str, where: tuple[object, object] | None) -> list[Model]:
    """The models that a panel shows: times of different devices do not compare."""
    return [model for model in models if model.costs[name] and (name != "latency_ms" or model.place == where)]


def front(points: Sequence[Spot]) -> list[Spot]:
    """Of (cost, accuracy) those to which no other is at once as cheap and better, or cheaper and as good; by cost."""
    best: list[Spot] = []
    for cost_, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost_, accuracy))
    return best


def _stairs(steps: list[Spot]) -> list[tuple[Spot, Spot]]:
    """The level and upright lines of a front."""
    corners = [(right[0], left[1]) for left, right in itertools.pairwise(steps)]
    return [*zip(steps, corners, strict=False), *zip(corners, steps[1:], strict=True)]


def _draw(
    theme: Theme, title: str, found: Ways, models: list[Model], shown: list[str], where: tuple[object, object] | None
) -> Figure:
    names = {(model.way is None, model.name) for model in models}
    few = len(names) <= SIDE_BY_SIDE[0] and max(len(name) for _, name in names) <= SIDE_BY_SIDE[1]
    handles: list[Artist] = [
        key(theme, way, found.names[way]) for way in sorted({m.way for m in models if m.way is not None})
    ]
    for handle in handles:
        assert isinstance(handle, Line2D)
        handle.set_linestyle("none")
    star: dict[str, Any] = {"marker": "*", "markersize": 9, "markeredgewidth": 0.4, "linestyle": "none"}
    if any(model.way is None for model in models):
        handles.append(Line2D([], [], color=theme.muted, label="teacher itself", **star))
    handles.append(Line2D([], [], color=theme.muted, linewidth=1, label="Pareto front"))
    below = 0.5 + legend_height(handles)
    if few:
        figure = new_figure(2.9 + below, title)
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    else:
        figure = new_figure(max(2.4, 0.8 + 0.17 * len(names)) * len(shown) + below, title)
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    panels = {}
    for ax, name in zip(axes, shown, strict=True):
        there = _within(models, name, where)
        panels[name] = (ax, there)
        _panel(ax, theme, name, there, found)
        if not few or ax is axes[0]:
            ax.set_ylabel("Top-1 (%)")
    legend(figure, handles)
    settle(figure)
    for name, (ax, there) in panels.items():
        spots = [(float(model.costs[name] or 0), model.accuracy) for model in there]
        labels: dict[tuple[bool, str], Label] = {}
        for model, (x, y) in sorted(zip(there, spots, strict=True), key=lambda item: -item[1][1]):
            labels.setdefault((model.way is None, model.name), Label(x, y, wrap(model.name, 24)))
        steps = front(spots)
        lines = _stairs([*steps, (ax.get_xlim()[1], steps[-1][1])])
        if name == "latency_ms":
            lines += [((q[0], m.accuracy), (q[1], m.accuracy)) for m in there if (q := m.quartiles) is not None]
        place(ax, theme, list(labels.values()), spots, lines)
    return figure


def _ticks(span: float) -> Locator:
    """Three or more within so many times the lowest, and no more than are legible."""
    if span < 8:
        return MaxNLocator(4, steps=[1, 2, 5, 10])
    subs = (1.0, 2.0, 5.0) if span < 40 else (1.0, 3.0) if span < 1000 else (1.0,)
    return LogLocator(subs=subs, numticks=8)


def _panel(ax: Axes, theme: Theme, name: str, models: list[Model], found: Ways) -> None:
    spots = [(float(model.costs[name] or 0), model.accuracy) for model in models]
    for model, (x, y) in zip(models, spots, strict=True):
        if name == "latency_ms" and model.quartiles is not None:
            shade = color(theme, found.teachers[model.name] if model.way is None else model.way)
            ax.plot(model.quartiles, [y, y], color=shade, linewidth=0.8, zorder=2)
        if model.way is None:
            shade = color(theme, found.teachers.get(model.name, 0))
            ax.plot([x], [y], "*", color=shade, mec=theme.page, mew=0.4, ms=10, zorder=4)
        else:
            ax.plot(
                [x], [y], marker(model.way), color=color(theme, model.way), mec=theme.page, mew=0.4, ms=5.5, zorder=3
            )
    students: dict[str, list[Spot]] = {}
    for model, spot in zip(models, spots, strict=True):
        if model.way is not None:
            students.setdefault(model.name, []).append(spot)
    for same in students.values():
        ax.plot(*zip(*sorted(same, key=lambda spot: spot[1]), strict=True), ":", color=theme.muted, lw=0.8, zorder=1)
    ax.set_xscale("log")
    low, high = min(x for x, _ in spots), max(x for x, _ in spots)
    room = max(1.15, (high / low) ** 0.12)
    ax.set_xlim(low / room, high * room)
    steps = front(spots)
    steps.append((high * room, steps[-1][1]))  # as good at any higher cost
    ax.plot(*zip(*steps, strict=True), drawstyle="steps-post", color=theme.muted, linewidth=1, zorder=1)
    ax.margins(y=0.12)
    ax.set_xlabel(COSTS[name])
    ax.xaxis.set_major_locator(_ticks(high / low * room**2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: human(x, billion="G").replace(".0", "")))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid()
