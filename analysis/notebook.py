"""Grids as a person has them in a notebook: what is made of them is asked of them, and each shows itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.document import Document, Table
from analysis.measures.gains import gains
from analysis.measures.images.disagreement import disagreement
from analysis.measures.images.image_noise import with_image_noise
from analysis.measures.images.predictions import classes, confusion, recalls, reliability
from analysis.read import load
from analysis.read.curves import curves
from analysis.read.grids import Grid, Grids, Records
from analysis.read.predictions import outcomes, predictions, read_logits
from analysis.read.where import filtered
from analysis.tables.grid_tables import tables
from analysis.tables.grids_tables import many_tables
from analysis.write.html import html_notebook

if TYPE_CHECKING:
    from analysis.plots import Picture
    from analysis.report import Page

# matplotlib comes with pictures and reports: who asks for tables does not wait for it.


class ShownTable(Table):
    def _repr_html_(self) -> str:
        return html_notebook(Document("", [self]))


class ShownDocument(Document):
    @property
    def tables(self) -> dict[str, Table]:
        return {name: ShownTable(**vars(table)) for name, table in super().tables.items()}

    def _repr_html_(self) -> str:
        return html_notebook(self)


class NotebookRecords(Records):
    """What one grid and several have in common."""

    def where(self, *wanted: str) -> Self:
        """These alone, such as `grid.where("student=ResNet-S")`: as `analysis.read.where.filtered`."""
        return filtered(self, wanted)

    def gains(self) -> pl.DataFrame:
        """A row a pair and setting, in percent and points: `analysis.measures.gains.gains` says what is in it."""
        return gains(self)

    def curves(self) -> pl.DataFrame:
        """A row an epoch, read now: `analysis.read.curves.curves`, which says what is in it."""
        return curves(self)

    def predictions(self) -> pl.DataFrame:
        """A row an image of val and test, read now: `analysis.read.predictions.predictions`."""
        return predictions(self)

    def classes(self, split: str = "test") -> pl.DataFrame:
        """A row a way of training, with balanced accuracy and the numbers of the classes that are never right:
        `analysis.measures.images.predictions.classes`."""
        return classes(self, outcomes(self), split=split)

    def recalls(self, split: str = "test") -> pl.DataFrame:
        """A row a way of training and class, in percent: `analysis.measures.images.predictions.recalls`."""
        return recalls(self, outcomes(self), split=split)

    def confusion(self) -> pl.DataFrame:
        """A row a stage, split, class and predicted class: `analysis.measures.images.predictions.confusion`."""
        return confusion(outcomes(self))

    def reliability(self) -> pl.DataFrame:
        """A row a stage, split and bin of confidence: `analysis.measures.images.predictions.reliability`."""
        return reliability(outcomes(self))

    def disagreement(self, split: str = "test") -> pl.DataFrame:
        """A row a distilled cell, beside its baseline and its teacher:
        `analysis.measures.images.disagreement.disagreement`."""
        return disagreement(self, outcomes(self), split=split)

    def image_noise(self, split: str = "test") -> pl.DataFrame:
        """A row a student and setting, with intervals that have the noise of seeds and images:
        `analysis.measures.images.image_noise.with_image_noise`."""
        return with_image_noise(self, outcomes(self), split=split)

    def logits(self, stage_id: str) -> dict[str, NDArray[np.float16]]:
        """The logits [image, class] of a teacher or cell by split. Raises AnalysisError where it keeps none."""
        return read_logits(self, stage_id)

    @abstractmethod
    def tables(self) -> ShownDocument:
        """What `kd-analysis table` shows."""

    def _repr_html_(self) -> str:
        return html_notebook(self.tables().opening())


class NotebookGrid(NotebookRecords, Grid):
    """One grid."""

    def tables(self) -> ShownDocument:
        return ShownDocument(**vars(tables(self)))

    def pictures(self) -> list[Picture]:
        """Those that there is something to show in."""
        from analysis.plots import pictures

        return pictures(self)

    def report(self) -> Page:
        """The whole page, as HTML."""
        from analysis.report import report

        return report(self)


class NotebookGrids(NotebookRecords, Grids):
    """Several grids."""

    def tables(self) -> ShownDocument:
        return ShownDocument(**vars(many_tables(self)))


def load_grid(storage: str | Sequence[str], name: str | None = None) -> NotebookGrid:
    """The named grid, or the one launched last, of a storage or of several. Raises AnalysisError where there is none,
    and where storages hold different grids of that name."""
    return NotebookGrid(**vars(load.load_grid(storage, name)))


def load_grids(storage: str | Sequence[str], names: Sequence[str] | None = None) -> NotebookGrids:
    """The named grids, or all there are, of a storage or of several. Different grids of one name are told apart by
    their storages. Raises AnalysisError for a name that is not there, and where there is no grid at all."""
    return NotebookGrids(**vars(load.load_grids(storage, names)))
