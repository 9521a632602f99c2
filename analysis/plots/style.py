"""How every picture looks, and how it becomes a file: nothing of matplotlib's global state is kept or relied on."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WIDTH = 7.0  # inches, as printed
DPI = 200
FONT_SIZE = 8.0
CHARACTER = 0.0625  # inches, of FONT_SIZE: somewhat wider than the average
LINE = 0.15  # inches


@dataclass(frozen=True)
class Theme:
    """Colours for one kind of page. series[0] is the student alone; the others are Okabe and Ito's hues at lightnesses
    apart, so that they differ in grey too. diverging: below, at and above 0."""

    name: str
    page: str
    ink: str
    muted: str
    hairline: str
    series: tuple[str, ...]
    diverging: tuple[str, str, str]
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

# Marker and dash tell series apart without colour. There are 9 markers and 7 colours: 63 pairs before one comes again.
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
    return theme.series[series % len(theme.series)]


def marker(series: int) -> str:
    return MARKERS[series % len(MARKERS)]


def dash(series: int) -> Any:
    """Solid for the student alone, and for no other."""
    return DASHES[0] if series == 0 else DASHES[1 + (series - 1) % (len(DASHES) - 1)]


@contextmanager
def settings(theme: Theme) -> Iterator[None]:
    """matplotlib's defaults, whatever the user's are, and ours. They are global there: one thread at a time, and put
    back afterwards."""
    defaults: dict[Any, Any] = {name: v for name, v in mpl.rcParamsDefault.items() if not name.startswith(_LEFT_ALONE)}
    ours = {
        "text.parse_math": False,  # names with $ are names
        "font.family": ["DejaVu Sans", "sans-serif"],
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
    with _LOCK, mpl.rc_context(defaults | ours):
        yield


def new_figure(height: float, title: str, *, width: float = WIDTH) -> Figure:
    """An empty figure with a title at its left; the layout keeps everything inside."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(wrap(title, int(width / CHARACTER / 1.4)), x=0.01, ha="left")
    return figure


def wrap(text: str, width: int) -> str:
    """Text in lines of at most so many characters, broken after a space or one of - _ . / where there is one."""
    pieces = re.findall(r"[^ \-_./]*[ \-_./]+|[^ \-_./]+", " ".join(text.split()))
    lines = [""]
    for piece in (whole[i : i + width] for whole in pieces for i in range(0, len(whole), width)):
        if len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return "\n".join(line.strip() for line in lines)


def legend(figure: Figure, handles: list[Artist]) -> None:
    """Below the panels, in as many columns as the longest entry leaves room for."""
    labels = [wrap(str(handle.get_label()), 100) for handle in handles]
    figure.legend(handles, labels, loc="outside lower left", ncols=_columns(labels), handlelength=2.4)


def legend_height(labels: list[str]) -> float:
    """Inches that `legend` takes at most."""
    return 0.1 + 0.17 * -(-len(labels) // _columns(labels))


def _columns(labels: list[str]) -> int:
    longest = max(len(line) for label in labels for line in label.split("\n"))
    return max(1, min(len(labels), int(WIDTH / (CHARACTER * longest + 0.5))))


def key(theme: Theme, series: int, label: str, *, line: bool = False) -> Line2D:
    """A series' entry in the legend."""
    return Line2D(
        [],
        [],
        color=color(theme, series),
        marker=marker(series),
        markersize=5,
        linestyle=dash(series) if line else "-",
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
