"""What of a figure a test looks at."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots import Picture, pictures
from analysis.read.load import load_grid
from tests.analysis.conftest import SyntheticGrid


def drawn(grid: SyntheticGrid) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(load_grid(grid.storage, grid.name))}


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for ax in figure.axes for text in ax.texts]
    for ax in figure.axes:
        found += [tick.get_text() for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())]
        found += [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
    found += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [text for text in [*found, *(text.get_text() for text in figure.texts)] if text]


def spots(ax: Axes, marker: str, size: float) -> list[tuple[float, float]]:
    """Where markers of that kind and size are."""
    lines = [line for line in ax.lines if line.get_marker() == marker and line.get_markersize() == size]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def spans(ax: Axes) -> list[tuple[float, float]]:
    """The ends of level lines, intervals that is."""
    data = [line.get_data() for line in ax.lines if line.get_linewidth() == 1.3]
    return [(float(xs[0]), float(xs[1])) for xs, ys in data if len(xs) == 2 and ys[0] == ys[1]]
