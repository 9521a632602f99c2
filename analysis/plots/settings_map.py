"""The gain by two numeric axes: a panel a teacher, student and what else is crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.measures.selection import Crossing, crossing, has_validation, select
from analysis.plots.fonts import CHARACTER, wrap
from analysis.plots.picture import Picture, caption, dataset, pages, pair, said_n
from analysis.plots.style import WIDTH, Theme, legend, legend_height, new_figure
from analysis.plots.ways import may_change
from analysis.read.grids import Grid
from analysis.shown import GAIN_CLEAR, NEGATIVE, NEGATIVE_CLEAR, shown_gain, with_setting
from grid.contract.plan import NUMBERS
from grid.contract.text import on_one_line

PANELS = 12  # of one picture
CELL = (0.54, 0.36)  # inches: the number and its mark fit
SELECTED = "★"


@dataclass(frozen=True)
class MapPanel:
    title: str
    cells: dict[tuple[float, float], dict[str, Any]]
    """Rows of `gains` by their values of both axes."""
    selected: tuple[float, float] | None


def settings_maps(grid: Grid, frame: pl.DataFrame) -> list[Picture] | str:
    """As many pictures as the pairs need; all of one scale."""
    found = crossing(frame)
    if found is None:
        return f"{' and '.join(NUMBERS)} are not both crossed"
    if frame["gain_mean_points"].count() == 0:
        return "no gain is known"
    chosen = select(frame) if has_validation(grid) else frame.clear()
    panels = _panels(found, chosen)
    known = frame.filter(pl.col("gain_mean_points").is_not_null())
    widest = max(abs(gain) for gain in known["gain_mean_points"]) or 1.0
    text = caption(
        grid,
        f"Gain of distillation in points of top-1 on the test split of {dataset(grid)} at the last epoch, by "
        f"{found.down} and {found.across}: distilled minus the same student alone, which is the 0 of the scale; paired "
        f"by seed, {said_n(known['gain_n'])}.",
        f"Outlined: a significant gain ({GAIN_CLEAR}) or loss ({NEGATIVE_CLEAR}), after correction for all settings "
        f"that the grid plans; {NEGATIVE}: negative, but not significantly.",
        f"{SELECTED}: what validation selects; test takes no part{may_change(frame)}."
        if chosen.height
        else "Nothing is selected: there is no validation accuracy.",
        "Hatched: not known." if known.height < frame.height else "",
    )
    pictures = []
    whole = f"{on_one_line(grid.name)}: gain by {found.down} and {found.across}"
    for name, title, shown in pages(panels, PANELS, name=f"{found.down}-{found.across}", title=whole):

        def draw(theme: Theme, title: str = title, shown: list[MapPanel] = shown) -> Figure:
            return _draw(theme, title, found, shown, widest)

        pictures.append(Picture(name, title, text, draw))
    return pictures


def _panels(found: Crossing, chosen: pl.DataFrame) -> list[MapPanel]:
    best = {(row["teacher"], row["student"]): row for row in chosen.iter_rows(named=True)}
    panels = []
    for rows in found.maps:
        first = rows.row(0, named=True)
        row = best.get((first["teacher"], first["student"]))
        is_here = row is not None and all(row[axis] == first[axis] for axis in found.others)
        selected = (row[found.down], row[found.across]) if row is not None and is_here else None
        alone = (
            ""
            if first["baseline_mean_percent"] is None
            else f"\n0: the student alone, {first['baseline_mean_percent']:.2f} %"
        )
        cells = {(cell[found.down], cell[found.across]): cell for cell in rows.iter_rows(named=True)}
        panels.append(MapPanel(f"{with_setting(pair(first), first, found.others)}{alone}", cells, selected))
    return panels


def _draw(theme: Theme, title: str, found: Crossing, panels: list[MapPanel], widest: float) -> Figure:
    most_across = max(len({across for _, across in panel.cells}) for panel in panels)
    most_down = max(len({down for down, _ in panel.cells}) for panel in panels)
    panel_width = CELL[0] * most_across + 0.55
    width = max(WIDTH, panel_width + 0.9)
    columns = max(1, min(len(panels), int((width - 0.9) / panel_width)))
    rows = -(-len(panels) // columns)
    letters = int((width - 0.9) / columns / CHARACTER / 1.2)
    titles = [_wrapped(panel.title, letters) for panel in panels]
    lines = max(text.count("\n") for text in titles) + 1
    handles = _handles(theme, panels)
    below = legend_height(handles) if handles else 0
    figure = new_figure(rows * (CELL[1] * most_down + 0.6 + 0.16 * lines) + 0.35 + below, title, width=width)
    axes = figure.subplots(rows, columns, squeeze=False)
    shades = LinearSegmentedColormap.from_list("gain", list(theme.diverging))
    scale = Normalize(-widest, widest)
    for ax, panel, text in zip(axes.flat, panels, titles, strict=False):
        _panel(ax, theme, panel, shades, scale)
        ax.set_xlabel(found.across)
        ax.set_ylabel(found.down)
        ax.set_title(text, loc="left", fontsize=8.5)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    mappable = axes.flat[0].collections[0]
    bar = figure.colorbar(mappable, ax=axes, aspect=30, pad=0.02, shrink=min(1.0, 0.5 + 0.5 / rows))
    bar.set_label("Gain (points); 0 = the student alone")
    bar.outline.set_visible(False)
    bar.ax.axhline(0, color=theme.ink, linewidth=1)
    if handles:
        legend(figure, handles)
    return figure


def _handles(theme: Theme, panels: list[MapPanel]) -> list[Artist]:
    cells = [cell for panel in panels for cell in panel.cells.values()]
    handles: list[Artist] = []
    if any(cell["effect"] in ("gain", "negative transfer") for cell in cells):
        handles.append(_outline(theme, (0, 0), 1, 1, label="significant"))
    if any(panel.selected for panel in panels):
        star: dict[str, Any] = {"marker": "*", "markersize": 7, "linestyle": "none", "color": theme.ink}
        handles.append(Line2D([], [], label="validation selects", **star))
    if any(cell["gain_mean_points"] is None for cell in cells):
        handles.append(_hatch(theme, (0, 0), label="not known"))
    return handles


def _outline(theme: Theme, corner: tuple[float, float], width: float, height: float, label: str = "") -> Rectangle:
    return Rectangle(corner, width, height, fill=False, edgecolor=theme.ink, lw=1.4, zorder=3, label=label)


def _hatch(theme: Theme, corner: tuple[float, float], label: str = "") -> Rectangle:
    return Rectangle(corner, 1, 1, fill=False, hatch="///", edgecolor=theme.hairline, lw=0, label=label)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(wrap(line, width) for line in text.split("\n"))


def _panel(ax: Axes, theme: Theme, panel: MapPanel, shades: Colormap, scale: Normalize) -> None:
    downs, acrosses = (sorted({key[i] for key in panel.cells}) for i in range(2))
    known = {key: cell for key, cell in panel.cells.items() if cell["gain_mean_points"] is not None}
    values = [[known.get((d, a), {}).get("gain_mean_points", float("nan")) for a in acrosses] for d in downs]
    ax.pcolormesh(values, cmap=shades, norm=scale, edgecolors=theme.page, linewidth=1)
    for row, down in enumerate(downs):
        for column, across in enumerate(acrosses):
            cell = known.get((down, across))
            if cell is None:
                ax.add_patch(_hatch(theme, (column, row)))
                continue
            shade = shades(scale(cell["gain_mean_points"]))
            ink = "#000000" if _luminance(shade) > 0.18 else "#ffffff"
            text = shown_gain(cell, interval=False).replace("-", "−")
            if (down, across) == panel.selected:
                text = f"{SELECTED}\n{text}"
            ax.text(column + 0.5, row + 0.5, text, color=ink, ha="center", va="center", linespacing=1.0)
            if cell["effect"] in ("gain", "negative transfer"):
                ax.add_patch(_outline(theme, (column + 0.04, row + 0.06), 0.92, 0.88))
    ax.set_xticks([i + 0.5 for i in range(len(acrosses))], [f"{across:g}" for across in acrosses])
    ax.set_yticks([i + 0.5 for i in range(len(downs))], [f"{down:g}" for down in downs])
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _luminance(shade: Any) -> float:
    """Relative, of an sRGB colour: black on it reads better than white above 0.18."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(shade)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
