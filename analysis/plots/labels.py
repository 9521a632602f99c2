"""Names beside points that cover neither one another nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from analysis.plots.fonts import FONT_SIZE
from analysis.plots.style import Theme

RADII = (6.0, 9.0, 13.0, 18.0, 24.0, 31.0, 39.0, 48.0, 58.0, 70.0, 84.0, 100.0, 120.0)  # points
ANGLES = (90, 270, 0, 180, 45, 135, 315, 225, 20, 160, 340, 200, 65, 115, 295, 245)  # degrees, the best first
AROUND = 4.0  # points that a marker takes on each side
FAR = 12  # from here on a line leads to the point


Spot = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str


def place(
    ax: Axes, theme: Theme, labels: Sequence[Label], points: Sequence[Spot], lines: Sequence[tuple[Spot, Spot]] = ()
) -> list[Annotation]:
    """Write each label where it covers neither another nor a point nor a (level or upright) line, as near as there is
    room, in this order; where there is no room at all, where it covers least. The figure's layout must be final."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    unit = figure.dpi / 72
    inside: Box = ax.get_window_extent().extents
    taken = [_around([ax.transData.transform(point)], AROUND * unit) for point in points]
    taken += [_around(ax.transData.transform(line), unit) for line in lines]
    placed = []
    for label in labels:
        x, y = ax.transData.transform((label.x, label.y))
        width, height = _size(ax, label.text)
        best: tuple[float, float, Spot, Box] | None = None
        for radius in RADII:
            for angle in ANGLES:
                dx, dy = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
                # The nearest point of the text's box lies on the circle.
                left = x + dx * unit - width / 2 * (1 - math.cos(math.radians(angle)))
                bottom = y + dy * unit - height / 2 * (1 - math.sin(math.radians(angle)))
                box = (left, bottom, left + width, bottom + height)
                covered = sum(shared(box, other) for other in taken) + 10 * (width * height - shared(box, inside))
                if best is None or round(covered, 3) < best[0]:
                    best = (round(covered, 3), radius, ((left - x) / unit, (bottom - y) / unit), box)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        _, radius, offset, box = best
        taken.append(_around([box[:2], box[2:]], 1.5 * unit))
        arrow = {"arrowstyle": "-", "color": theme.muted, "linewidth": 0.5, "shrinkA": 0, "shrinkB": AROUND}
        placed.append(
            ax.annotate(
                label.text,
                (label.x, label.y),
                xytext=offset,
                textcoords="offset points",
                ha="left",
                va="bottom",
                fontsize=FONT_SIZE,
                linespacing=1.0,
                arrowprops=arrow if radius >= FAR else None,
                zorder=6,
            )
        )
    return placed


def _size(ax: Axes, text: str) -> tuple[float, float]:
    probe: Text = ax.text(0, 0, text, fontsize=FONT_SIZE, linespacing=1.0, transform=None)
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _around(ends: Any, reach: float) -> Box:
    """The box about these points and so much more."""
    xs, ys = zip(*ends, strict=True)
    return min(xs) - reach, min(ys) - reach, max(xs) + reach, max(ys) + reach


def shared(a: Box, b: Box) -> float:
    """The area that two boxes have in common."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
