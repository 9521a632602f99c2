"""Documents by format, and frames as documents or as CSV, JSON or parquet."""

from __future__ import annotations

import io
from collections.abc import Callable

import polars as pl

from analysis.document import Document, Table
from analysis.write.html import html_page
from analysis.write.latex import latex
from analysis.write.markdown import markdown
from grid.contract.text import harmless_json

DOCUMENTS: dict[str, Callable[[Document], str]] = {"md": markdown, "html": html_page, "latex": latex}


def as_document(frame: pl.DataFrame, name: str) -> Document:
    """A frame as a document of one table, every value as it is."""
    lines = [["" if value is None else f"{value}" for value in row] for row in frame.iter_rows()]
    right = [kind.is_numeric() for kind in frame.schema.values()]
    return Document(name, [Table(name, frame, frame.columns, lines, right)])


# How a formula starts for a spreadsheet, as OWASP lists it under CSV injection; the last four are full-width.
FORMULA = r"^([=+\-@\t\r\n\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"


def _plain_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """Text, the header's too, that no spreadsheet calculates: what it would begins with a quote. Numbers are left."""
    cells = frame.with_columns(pl.col(pl.String).str.replace(FORMULA, "'${1}"))
    cells.columns = pl.Series(frame.columns, dtype=pl.String).str.replace(FORMULA, "'${1}").to_list()
    return cells


def data(frame: pl.DataFrame, how: str) -> bytes:
    """A frame as csv, json (a list of rows) or parquet."""
    buffer = io.BytesIO()
    if how == "csv":
        _plain_cells(frame).write_csv(buffer)
    elif how == "json":
        buffer.write(f"{harmless_json(frame.write_json())}\n".encode())
    else:
        frame.write_parquet(buffer)
    return buffer.getvalue()
