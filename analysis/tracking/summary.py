"""A grid's summary in Weights & Biases: one run with the tables, the pictures and the report; and, asked for, a W&B
Report over all of its runs."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.document import Document
from analysis.errors import AnalysisError
from analysis.measures.gains import gains
from analysis.plots import LIGHT, Picture, pictures
from analysis.read.grids import Grid
from analysis.report import report
from analysis.tables.grid_tables import tables
from analysis.tracking.export import PROJECT, TAG_LENGTH, Mode, start_run
from analysis.write.markdown import markdown
from grid.contract.program.imports import broken
from grid.contract.program.installed import hint

JOB = "summary"
CURVES = (("Test top-1", "test_top1"), ("Training loss", "train_loss"))


def summary_id(grid: str) -> str:
    """The run's id: the same for every upload of a grid, so that the next one continues it."""
    return f"summary-{grid}"[:64]


def write_summary(grid: Grid, *, mode: Mode, folder: Path) -> None:
    """Tables as wandb.Table, pictures as images, and the report as an artifact, in the grid's group. Raises
    AnalysisError where W&B fails."""
    document, page = tables(grid), report(grid)
    drawn = [(picture, picture.to_bytes(picture.figure(LIGHT), LIGHT, "png")) for picture in pictures(grid)]
    try:
        _log(grid, document, drawn, page, mode=mode, folder=folder)
    except Exception as error:  # whatever W&B raises, the user can do the same about it
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise AnalysisError(f"Weights & Biases: {detail}: run this again for the summary") from None


def _log(
    grid: Grid, document: Document, drawn: Sequence[tuple[Picture, bytes]], page: str, *, mode: Mode, folder: Path
) -> None:
    import wandb

    run = start_run(
        id=summary_id(grid.name),
        name=f"{grid.name}: summary",
        group=grid.name,
        job_type=JOB,
        tags=[str(grid.spec["dataset"]["name"])[:TAG_LENGTH]],
        config=grid.spec,
        mode=mode,
        folder=folder,
    )
    with tempfile.TemporaryDirectory() as scratch:
        logged: dict[str, Any] = {
            f"tables/{name}": wandb.Table(columns=table.frame.columns, data=[*map(list, table.frame.rows())])
            for name, table in document.tables.items()
        }
        for picture, image in drawn:
            path = Path(scratch) / picture.file_name(LIGHT, "png")
            path.write_bytes(image)
            logged[f"pictures/{picture.name}"] = wandb.Image(str(path), caption=picture.caption)
        run.log(logged)
        file = Path(scratch) / "report.html"
        file.write_text(page, encoding="utf-8")
        artifact = wandb.Artifact(summary_id(grid.name), type="report")
        for written in sorted(Path(scratch).iterdir()):
            artifact.add_file(str(written))
        run.log_artifact(artifact)
        run.summary.update(counts(grid))
        run.finish()


def counts(grid: Grid) -> dict[str, int]:
    """How many teachers and cells there are, and of the pairs how many gained or lost significantly."""
    effects = gains(grid)["effect"]
    return {
        "done": int((grid.cells["status"] == "done").sum()),
        "planned": grid.cells.height,
        "significant_gains": int((effects == "gain").sum()),
        "negative_transfers": int((effects == "negative transfer").sum()),
    }


def write_report(grid: Grid) -> str:
    """A W&B Report with the tables, and the curves of the grid's runs; its address. Raises AnalysisError where the
    package is missing or W&B refuses."""
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    try:
        made = _reports().Report(
            project=project,
            title=grid.name,
            description=str(grid.spec.get("description") or ""),
            blocks=report_blocks(grid, project=project),
        )
        made.save()
    except AnalysisError:
        raise
    except Exception as error:  # whatever W&B raises, the user can do the same about it
        detail = " ".join(str(error).split())
        raise AnalysisError(f"--report: W&B did not take it: {detail}; log in (wandb login) and try again") from None
    return str(made.url)


def report_blocks(grid: Grid, *, project: str) -> list[Any]:
    """The tables as markdown, then the curves of the runs in the grid's group."""
    wr = _reports()
    runs = wr.Runset(project=project, name=grid.name, filters=f"Group == '{grid.name}'")
    panels = [wr.LinePlot(title=title, x="epoch", y=[column]) for title, column in CURVES]
    grids = wr.PanelGrid(runsets=[runs], panels=panels)
    return [wr.TableOfContents(), wr.MarkdownBlock(text=markdown(tables(grid))), grids]


def _reports() -> Any:
    try:
        return importlib.import_module("wandb_workspaces.reports.v2")
    except ImportError as error:
        if why := broken(error, "wandb_workspaces"):
            raise AnalysisError(f"--report: {why}") from None
        raise AnalysisError(f"--report needs wandb-workspaces: {hint('reports')}") from None
