"""A picture: what it is called, what it says, and how it is drawn on a light or a dark page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import polars as pl
from matplotlib.figure import Figure

from analysis.plots.style import LIGHT, Theme, settings, settle, to_bytes
from analysis.read.curves import is_of_a_curve
from analysis.read.grids import Grid
from analysis.read.predictions import is_of_predictions
from analysis.shown import FrameRow
from analysis.stats import CONFIDENCE
from grid.contract.text import on_one_line

T = TypeVar("T")

MOST_NAMED = 3  # problems; the tables name all
PIXELS_PER_INCH = 96  # of CSS
INTERVAL = f"{100 * CONFIDENCE:g} % t interval"


@dataclass(frozen=True)
class Picture:
    """What is drawn of a grid, for a light or a dark page."""

    name: str
    """Of its files."""
    title: str
    caption: str
    """Plain text that says what is shown, on how many seeds and with which interval."""
    draw: Callable[[Theme], Figure] = field(repr=False)

    def figure(self, theme: Theme = LIGHT) -> Figure:
        with settings(theme):
            figure = self.draw(theme)
            if figure.get_layout_engine() is not None:
                settle(figure)
            return figure

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """For a notebook: the picture for light pages, at the size that it is drawn for."""
        figure = self.figure()
        width = round(PIXELS_PER_INCH * figure.get_figwidth())
        return self.to_bytes(figure, LIGHT, "png"), {"width": width}

    def file_name(self, theme: Theme, suffix: str) -> str:
        """NAME.png, NAME-dark.png."""
        return f"{self.name}{'' if theme == LIGHT else f'-{theme.name}'}.{suffix}"

    def to_bytes(self, figure: Figure, theme: Theme, suffix: str) -> bytes:
        """Of its figure on that theme, as png or svg."""
        return to_bytes(figure, theme, suffix, title=self.title, caption=self.caption)


def caption(grid: Grid, *sentences: str, of_curves: bool = False) -> str:
    """The sentences that say something, and what the picture does not stand on: records, and curves where it is made of
    them."""
    problems = [problem for problem in grid.problems if of_curves or not is_of_a_curve(problem)]
    problems = [problem for problem in problems if not is_of_predictions(problem)]  # no picture is made of them
    return " ".join(sentence for sentence in (*sentences, *_missing(grid, problems)) if sentence)


def _missing(grid: Grid, problems: list[str]) -> list[str]:
    total = grid.cells.height
    done = grid.cells.filter(pl.col("status") == "done").height
    failed = grid.cells.filter(pl.col("status") == "failed").height
    said = []
    if done < total:
        said.append(
            f"Unfinished: this picture stands on {done} of {total} teachers and cells ({failed} failed, "
            f"{total - done - failed} missing)."
        )
    if problems:
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        said.append(f"Unreadable: {'; '.join(on_one_line(problem) for problem in problems[:MOST_NAMED])}{more}.")
    return said


def said_n(counts: Iterable[int]) -> str:
    """'n = 3 seeds', 'n = 1 to 3 seeds'."""
    found = sorted(set(counts))
    if found == [1]:
        return "n = 1 seed"
    return f"n = {found[0]} seeds" if len(found) == 1 else f"n = {found[0]} to {found[-1]} seeds"


def said_interval(counts: Iterable[int], what: str, *, cut: bool) -> str:
    """What a line through a point is, or that one seed has none."""
    found = list(counts)
    if max(found) == 1:
        return f"One seed gives no interval ({said_n(found)})."
    but = " (none where there is one seed)" if min(found) == 1 else ""
    beyond = "; arrows where it goes on beyond the axis" if cut else ""
    return f"Lines: {INTERVAL} of {what}{but}, {said_n(found)}{beyond}."


def axis_said(label: str, counts: Iterable[int], *, sep: str = "; ") -> str:
    """An axis' label with what the points and lines along it are, for who sees the picture without its caption."""
    found = list(counts)
    interval = f"mean and {INTERVAL}, " if max(found) > 1 else ""
    return f"{label}{sep}{interval}{said_n(found)}"


def pair(row: FrameRow) -> str:
    return f"{on_one_line(row['teacher'])} → {on_one_line(row['student'])}"


def pages(items: Sequence[T], size: int, *, name: str, title: str) -> Iterator[tuple[str, str, list[T]]]:
    """Name, title and items of each picture, where more than `size` take several."""
    for page, start in enumerate(range(0, len(items), size), start=1):
        several = f" ({page} of {-(-len(items) // size)})" if len(items) > size else ""
        yield name + (f"-{page}" if page > 1 else ""), title + several, list(items[start : start + size])


def dataset(grid: Grid) -> str:
    return on_one_line(str(grid.spec["dataset"]["name"]))
