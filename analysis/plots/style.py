"""How every picture looks, and how it becomes a file: nothing of matplotlib's global state is kept or relied on."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots.fonts import CHARACTER, FONT, FONT_SIZE, families, width, wrap

WIDTH = 7.0  # inches, as printed
DPI = 200
LINE = 0.15  # inches
TALL = 6.0  # inches: from here on an axis is labelled at its top too
ENTRY = 0.58  # inches of a legend's entry besides its text


@dataclass(frozen=True)
class Theme:
    """Colours for one kind of page."""

    name: str
    page: str
    ink: str
    muted: str
    hairline: str
    series: tuple[str, ...]
    """The first is the student alone; the others are Okabe and Ito's hues at lightnesses apart, so that they differ in
    grey too."""
    diverging: tuple[str, str, str]
    """Below, at and above 0."""
    gain: str
    loss: str


LIGHT = Theme(
    name="light",
    page="#ffffff",
    ink="#171717",
    muted="#5f6368",
    hairline="#dcdfe3",
    series=("#171717", "#d4581e", "#02729f", "#dc6abb", "#0b6347", "#663a00", "#47087e"),
    diverging=("#b3430c", "#f7f7f7", "#02658d"),
    gain="#02729f",
    loss="#d4581e",
)
DARK = Theme(
    name="dark",
    page="#0d1117",
    ink="#ffffff",
    muted="#a3abb5",
    hairline="#30363d",
    series=("#ffffff", "#fb7c47", "#1d8fed", "#bc4d9d", "#2bce98", "#fce344", "#d6c3fc"),
    diverging=("#f9813f", "#20262d", "#45a5ff"),
    gain="#45a5ff",
    loss="#fb7c47",
)
THEMES = (LIGHT, DARK)

# Marker and dash tell series apart without colour. The first of each is the student's alone and no other's: 8 markers
# and 6 colours are left, 24 pairs before one comes again.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (8, 1, 3, 1)),
)

_LOCK = threading.RLock()
_LEFT_ALONE = ("backend", "interactive", "toolbar", "timezone", "date", "webagg", "tk.", "figure.hooks")


def color(theme: Theme, series: int) -> str:
    return theme.series[_turn(series, len(theme.series))]


def marker(series: int) -> str:
    return MARKERS[_turn(series, len(MARKERS))]


def dash(series: int) -> Any:
    """One further in each round of the colours: a line has no marker to tell the rounds apart."""
    return DASHES[_turn(series + (series - 1) // (len(DASHES) - 1) if series else 0, len(DASHES))]


def _turn(series: int, length: int) -> int:
    return series if series == 0 else 1 + (series - 1) % (length - 1)


@contextmanager
def settings(theme: Theme) -> Iterator[None]:
    """matplotlib's defaults, whatever the user's are, and ours. They are global there: one thread at a time, and put
    back afterwards."""
    defaults: dict[Any, Any] = {name: v for name, v in mpl.rcParamsDefault.items() if not name.startswith(_LEFT_ALONE)}
    ours = {
        "text.parse_math": False,  # names with $ are names
        "font.family": [*families(), "sans-serif"],
        "font.sans-serif": [FONT, "Verdana", "Arial", "Helvetica"],  # an SVG names them all, and for every text
        "font.size": FONT_SIZE,
        "axes.titlesize": FONT_SIZE + 1,
        "axes.labelsize": FONT_SIZE,
        "xtick.labelsize": FONT_SIZE,
        "ytick.labelsize": FONT_SIZE,
        "legend.fontsize": FONT_SIZE,
        "legend.frameon": False,
        "figure.titlesize": FONT_SIZE + 2,
        "figure.titleweight": "bold",
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "figure.facecolor": theme.page,
        "axes.facecolor": theme.page,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "grid.color": theme.hairline,
        "grid.linewidth": 0.6,
        "hatch.color": theme.muted,
        "hatch.linewidth": 0.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "kd-grid",
    }
    with _LOCK, mpl.rc_context(defaults | ours), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # `write` says it once
        yield


def new_figure(height: float, title: str, *, width: float = WIDTH) -> Figure:
    """An empty figure with a title at its left; the layout keeps everything inside."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(wrap(title, int(width / CHARACTER / 1.4)), x=0.01, ha="left")
    return figure


def legend(figure: Figure, handles: list[Artist]) -> None:
    """Below the panels, in as few rows as there is room for."""
    labels = _labels(handles)
    figure.legend(handles, labels, loc="outside lower left", ncols=_columns(labels), handlelength=2.4)


def legend_height(handles: list[Artist]) -> float:
    """Inches that `legend` takes at most."""
    labels = _labels(handles)
    return 0.1 + 0.17 * -(-len(labels) // _columns(labels)) * max(label.count("\n") + 1 for label in labels)


def _labels(handles: list[Artist]) -> list[str]:
    return [wrap(str(handle.get_label()), 100) for handle in handles]


def _columns(labels: list[str]) -> int:
    """As many as there is room for, and as full as can be."""
    for columns in range(len(labels), 1, -1):
        longest = [max(map(width, column)) for column in np.array_split(labels, columns)]
        if sum(CHARACTER * of + ENTRY for of in longest) <= WIDTH:
            rows = -(-len(labels) // columns)
            return -(-len(labels) // rows)
    return 1


def key(theme: Theme, series: int, label: str, *, line: Any = "-") -> Line2D:
    """A series' entry in the legend: its marker on such a line."""
    return Line2D(
        [],
        [],
        color=color(theme, series),
        marker=marker(series),
        markersize=5,
        linestyle=line,
        linewidth=1.3,
        label=label,
    )


def settle(figure: Figure) -> None:
    """Lay the figure out, once: it is the same in every format."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def to_bytes(figure: Figure, theme: Theme, suffix: str, *, title: str, caption: str) -> bytes:
    """The figure as a file of that kind, png or svg: equal figures are equal bytes."""
    nameless: dict[str, Any] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[suffix]
    buffer = io.BytesIO()
    with settings(theme):
        figure.savefig(buffer, format=suffix, metadata={"Title": title, "Description": caption, **nameless})
    return buffer.getvalue()
