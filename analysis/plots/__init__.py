"""Pictures of a grid, for light and dark pages. Nothing else here loads matplotlib."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from analysis.document import Document, Heading, Note
from analysis.errors import AnalysisError
from analysis.measures.gains import gains
from analysis.plots.cost import cost
from analysis.plots.dots import accuracy, calibration
from analysis.plots.fonts import missing
from analysis.plots.forest import forest
from analysis.plots.picture import Picture, dataset
from analysis.plots.settings_map import settings_maps
from analysis.plots.style import DARK, LIGHT, THEMES, Theme
from analysis.plots.training import training
from analysis.read.grids import Grid
from analysis.write.markdown import markdown
from analysis.write.output import write_below
from grid.contract.plan import NUMBERS
from grid.contract.text import on_one_line

__all__ = ["DARK", "LIGHT", "Picture", "Theme", "pictures", "write"]

FORMATS = ("png", "svg")

log = logging.getLogger("kd_grid")

# Of a grid and its frame of `gains`; what is no picture says why there is none.
_KINDS: dict[str, Callable[[Grid, pl.DataFrame], Picture | list[Picture] | str]] = {
    "-".join(NUMBERS): settings_maps,  # of many settings they answer what the others only list
    "accuracy": accuracy,
    "gains": forest,
    "cost": cost,
    "curves": training,
    "calibration": calibration,
}


def pictures(grid: Grid) -> list[Picture]:
    """All that there is something to show in. Why there is no other is logged."""
    found = []
    frame = gains(grid)
    for name, make in _KINDS.items():
        made = make(grid, frame)
        if isinstance(made, str):
            log.info("no picture %s of grid %s: %s", name, grid.name, made)
        else:
            found += made if isinstance(made, list) else [made]
    return found


def write(grid: Grid, root: Path | str, folder: str = "", formats: Sequence[str] = FORMATS) -> list[Path]:
    """Every picture for light and for dark pages (NAME.png, NAME-dark.png) in each format, and their captions in
    captions.md, into a folder below `root`; the paths of all. The files' own metadata have title and caption too.

    Raises AnalysisError for an unknown format.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown:
        raise AnalysisError(f"unknown format {', '.join(sorted(unknown))}: there are {', '.join(FORMATS)}")
    made: dict[str, bytes] = {}
    found = pictures(grid)
    names = [grid.name, dataset(grid), *grid.cells["teacher"].drop_nulls(), *grid.cells["student"].drop_nulls()]
    lacking = missing(on_one_line("".join(names))) if found and "png" in formats else ""
    if lacking:
        log.warning("no font here has %s: boxes in PNG files; install Noto Sans CJK, or use the SVG files", lacking)
    for picture in found:
        for theme in THEMES:
            figure = picture.figure(theme)
            for suffix in dict.fromkeys(formats):
                made[picture.file_name(theme, suffix)] = picture.to_bytes(figure, theme, suffix)
    if found:
        parts = [part for picture in found for part in (Heading(picture.title), Note(picture.caption, picture.name))]
        made["captions.md"] = markdown(Document(grid.name, parts)).encode()
    paths = {f"{folder}/{name}" if folder else name: content for name, content in made.items()}
    for path, content in paths.items():
        write_below(str(root), path, content)
    return [Path(root) / path for path in paths]
