"""The analysis from Python: what a notebook imports, and how it is shown there."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import analysis
from analysis.measures.gains import gains
from analysis.measures.overall import overall
from analysis.notebook import NotebookGrid
from analysis.read.curves import curves
from analysis.read.where import filtered
from analysis.report import report
from analysis.tables.grid_tables import tables
from analysis.tables.grids_tables import many_tables
from tests.analysis.conftest import SyntheticGrid

ROOT = Path(__file__).parents[2]
Maker = Callable[..., SyntheticGrid]

# Figures that have no unit of accuracy, by how their columns begin.
OTHERS = (
    "gain_df",
    "temperature",
    "alpha",
    "gain_p",
    "improvement",
    "compression",
    "size",
    "latency",
    "throughput",
    "share",
)


@pytest.fixture
def grid(make_grid: Maker) -> NotebookGrid:
    made = make_grid(students=["A-S", "B-S"], seeds=[0, 1])
    for place, row in enumerate(made.rows):
        made.done(row, 70.0 + 1.7 * place % 25)
        made.curve(row, [{"epoch": e, "train_loss": 1 / e, "test_top1": 0.1 * e} for e in (1, 2, 3)])
    return analysis.load_grid(made.storage)


def test_the_package_gives_what_a_notebook_wants_and_loads_nothing_before() -> None:
    script = "import sys, analysis; assert not {'polars', 'matplotlib'} & set(sys.modules); "
    script += (
        "assert {'load_grid', 'load_grids', 'AnalysisError'} <= set(dir(analysis)); from analysis import load_grid"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    assert all(hasattr(analysis, name) for name in analysis.__all__)
    with pytest.raises(AttributeError, match="module 'analysis' has no attribute 'load_gird'"):
        analysis.__getattr__("load_gird")


def test_a_grid_gives_what_the_functions_make_of_it(grid: NotebookGrid) -> None:
    assert_frame_equal(grid.gains(), gains(grid))
    assert_frame_equal(grid.curves(), curves(grid))
    assert grid.report() == report(grid)
    assert grid.where("student=A-S").title == filtered(grid, ["student=A-S"]).title == "tiny, only student=A-S"
    assert [*grid.tables().tables] == [*tables(grid).tables]
    several = analysis.load_grids(grid.storage)
    assert several.tables().title == many_tables(several).title


def test_no_name_is_once_a_fraction_and_once_in_percent(grid: NotebookGrid) -> None:
    """Accuracies of records are fractions; the frames made of them are in percent and points, and say so."""
    for frame in (grid.gains(), overall(grid), *(table.frame for table in grid.tables().tables.values())):
        for name, kind in frame.schema.items():
            if kind == pl.Float64 and not re.search("percent|points|hours", name) and not name.startswith(OTHERS):
                raise AssertionError(f"{name} says no unit")
            if re.search("percent|points", name):
                assert name not in grid.cells.columns


def test_what_the_readme_says_of_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## From Python\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    shutil.copytree(ROOT / "tests" / "analysis" / "digits_records", tmp_path / "runs")
    found: dict[str, Any] = {}
    exec(code, found)
    assert capsys.readouterr().out.count("shape: ") == 2
    assert (found["gains"].height, found["curves"]["student"].drop_nulls().unique().to_list()) == (6, ["ViT-S"])


def test_documents_tables_and_grids_are_shown_and_style_nothing_else(grid: NotebookGrid) -> None:
    document = grid.tables()
    shown = [document, document.tables["gains"], grid, analysis.load_grids(grid.storage)]
    for page in (one._repr_html_() for one in shown):
        assert page.startswith('<div class="kd-grid">')
        assert "<td" in page
        assert " id=" not in page, "shown twice, it would be there twice"
        (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
        selectors = [one for rule in re.findall(r"([^{}]+)\{", style) for one in rule.split(",")]
        assert all(one.strip().startswith(".kd-grid ") for one in selectors)
    assert "<h3>" not in document.tables["gains"]._repr_html_(), "a table has no title of a document"
    assert repr(grid) == f"<tiny in {grid.storage}: {grid.cells.height} of {grid.cells.height} teachers and cells done>"


def test_a_report_is_shown_in_a_frame_of_its_own(grid: NotebookGrid) -> None:
    page = grid.report()
    (inner,) = re.findall(r'<iframe srcdoc="([^"]*)"', page._repr_html_())
    assert html.unescape(inner).replace('\n<base href="about:srcdoc">', "") == page
    assert "allow-same-origin" not in page._repr_html_()
    assert len(repr(page)) < 100


def test_a_picture_is_shown_at_the_size_that_it_is_drawn_for(grid: NotebookGrid) -> None:
    (picture, *_) = grid.pictures()
    png, about = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    pixels = int.from_bytes(png[16:20], "big")
    assert 500 < about["width"] < pixels
