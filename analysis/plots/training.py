"""Training curves: test accuracy and training loss by epoch, of each student in each way."""

from __future__ import annotations

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.plots.fonts import wrap
from analysis.plots.picture import Picture, caption, dataset, said_n
from analysis.plots.style import Theme, color, dash, key, legend, legend_height, marker, new_figure
from analysis.plots.ways import Ways, students, ways
from analysis.read.curves import curves
from analysis.read.grids import Grid
from grid.contract.text import on_one_line

COLUMNS = {"test_top1": ("Test top-1 (%)", 100.0), "train_loss": ("Training loss", 1.0)}
SAID = {"test_top1": "Top-1 accuracy on the test split", "train_loss": "Loss on the training split"}
MOST_MARKERS = 10


def training(grid: Grid, frame: pl.DataFrame) -> Picture | str:
    """Needs the curves: what of them is missing is in grid.problems afterwards."""
    found = ways(grid, frame)
    if isinstance(found, str):
        return found
    read = curves(grid).join(found.cells.select("stage_id", "way").unique(), on="stage_id", how="inner")
    by_epoch = spread(read)
    by_epoch = by_epoch.filter(pl.col("epoch").n_unique().over("metric") > 1)  # one epoch is no curve
    if by_epoch.is_empty():
        return "no curve of two epochs can be read"
    shown = set(by_epoch["metric"])
    seeds = by_epoch["n"].to_list()
    band = "Bands: from the lowest to the highest seed." if max(seeds) > 1 else ""
    losses = by_epoch.filter(pl.col("metric") == "train_loss")["way"].n_unique() > 1
    text = caption(
        grid,
        f"{' and '.join(SAID[name] for name in COLUMNS if name in shown)} of {dataset(grid)} by epoch, of each student "
        f"alone and from each teacher. Lines: the mean over seeds, {said_n(seeds)}.",
        band,
        "Accuracy is drawn where it was evaluated, with straight lines between."
        if "test_top1" in shown
        else "Accuracy was evaluated at one epoch only, which is no curve.",
        "Losses are each way's own objective, which for a distilled student includes the teacher's soft targets: their "
        "heights do not compare between ways."
        if losses
        else "",
        found.note,
        of_curves=True,
    )
    title = f"{on_one_line(grid.name)}: training curves"
    names = [name for name in students(grid) if name in set(by_epoch["student"])]
    return Picture("curves", title, text, lambda theme: _draw(theme, title, found, by_epoch, names))


def spread(read: pl.DataFrame) -> pl.DataFrame:
    """One row a metric, student, way and epoch: mean, lowest and highest over the seeds that have it, and their n."""
    parts = [
        read.filter(pl.col(name).is_finite())
        .group_by("student", "way", "epoch")
        .agg(
            metric=pl.lit(name),
            mean=scale * pl.col(name).mean(),
            low=scale * pl.col(name).min(),
            high=scale * pl.col(name).max(),
            n=pl.len(),
        )
        for name, (_, scale) in COLUMNS.items()
    ]
    return pl.concat(parts).sort("metric", "student", "way", "epoch")


def _draw(theme: Theme, title: str, found: Ways, by_epoch: pl.DataFrame, names: list[str]) -> Figure:
    handles: list[Artist] = [
        key(theme, way, found.names[way], line=dash(way)) for way in sorted(by_epoch["way"].unique())
    ]
    below = 0.75 + legend_height(handles)
    shown = [name for name in COLUMNS if name in set(by_epoch["metric"])]
    figure = new_figure(1.75 * len(names) + below, title)
    panels = figure.subplots(len(names), len(shown), sharex=True, sharey="col", squeeze=False)
    for row, student in zip(panels, names, strict=True):
        for ax, name in zip(row, shown, strict=True):
            _panel(ax, theme, by_epoch.filter(pl.col("student") == student, pl.col("metric") == name))
            ax.set_title(wrap(student, 40 if len(shown) > 1 else 90), loc="left")
            ax.set_ylabel(COLUMNS[name][0])
    for ax in panels[-1]:
        ax.set_xlabel("Epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax, name in zip(panels[0], shown, strict=True):
        lowest, highest = (by_epoch.filter(pl.col("metric") == name)[end] for end in ("low", "high"))
        if name == "train_loss" and lowest.min() > 0 and highest.max() > 20 * lowest.min():  # type: ignore[operator]
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
    legend(figure, handles)
    return figure


def _panel(ax: Axes, theme: Theme, rows: pl.DataFrame) -> None:
    for (way,), line in rows.group_by("way", maintain_order=True):
        assert isinstance(way, int)
        shade, every = color(theme, way), max(1, line.height // MOST_MARKERS)
        if line["n"].max() != 1:
            ax.fill_between(line["epoch"], line["low"], line["high"], color=shade, alpha=0.16, linewidth=0, zorder=1)
        ax.plot(
            line["epoch"],
            line["mean"],
            color=shade,
            linestyle=dash(way),
            marker=marker(way),
            markevery=(way * every // 4 % every, every),
            markersize=4,
            linewidth=1.3,
            zorder=2,
        )
    ax.grid()
