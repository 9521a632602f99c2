"""A grid's summary run, written offline and read back from its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.cli import main
from analysis.measures.gains import gains
from analysis.read.load import load_grid
from analysis.tables.grid_tables import tables
from analysis.tracking.summary import counts, report_blocks
from analysis.write.markdown import markdown
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.tracking.test_export import folders, read_records, read_run

Maker = Callable[..., SyntheticGrid]


def filled(make_grid: Maker) -> SyntheticGrid:
    grid = make_grid(seeds=[0, 1])
    for row in grid.rows:
        grid.curve(row, [{"epoch": 1, "train_loss": 2.0, "test_top1": 0.5}])
        grid.done(row, 80.0 + (row.get("seed") or 0), device_seconds=9.0)
    return grid


def artifacts(folder: Path) -> list[tuple[str, str, list[str]]]:
    """Name, type and files of what a run uploads beside its own files."""
    (file,) = folder.glob("*.wandb")
    requests = [r.request.log_artifact.artifact for r in read_records(file) if r.HasField("request")]
    found = [r.artifact for r in read_records(file) if r.WhichOneof("record_type") == "artifact"]
    return [(a.name, a.type, [entry.path for entry in a.manifest.contents]) for a in [*found, *requests] if a.name]


def test_a_finished_grid_is_written_with_its_tables_pictures_and_report(
    make_grid: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = filled(make_grid)
    assert main(["wandb", grid.name, "--storage", grid.storage, "--mode", "offline"]) == 0
    assert capsys.readouterr().out == f"tiny: offline, in {grid.root}/grids/tiny/wandb\n"
    assert len(folders(grid)) == len(grid.rows) + 1
    (summary,) = [folder for folder in folders(grid) if "summary-tiny" in folder.name]
    run = read_run(summary)
    assert (run.about.run_group, run.about.job_type, run.about.display_name) == ("tiny", "summary", "tiny: summary")
    assert run.config["dataset"]["name"] == "digits"
    (logged,) = run.history
    kinds = {name.removesuffix("._type"): kind for name, kind in logged.items() if name.endswith("._type")}
    assert kinds["tables/gains"] == kinds["tables/models"] == "table-file"
    assert kinds["pictures/gains"] == kinds["pictures/accuracy"] == "image-file"
    about = {name: count for name, count in run.summary.items() if "/" not in name}
    assert about == {"done": 5, "planned": 5, "significant_gains": 0, "negative_transfers": 0}
    (files,) = [files for name, kind, files in artifacts(summary) if (name, kind) == ("summary-tiny", "report")]
    assert {"report.html", "gains.png", "accuracy.png"} <= set(files)
    (written,) = (summary / "files/media/table/tables").glob("gains_*.table.json")
    table = json.loads(written.read_text())
    frame = gains(load_grid(grid.storage))
    assert table["columns"] == frame.columns
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == frame.to_dicts()


def test_the_summary_counts_the_significant_gains(make_grid: Maker) -> None:
    grid = make_grid(students=["A", "B", "C"])
    grid.fill({(name, None): [80.0, 81.0, 82.0] for name in ("A", "B", "C")})
    grid.fill(
        {("A", "ViT-T"): [82.0, 83.1, 84.0], ("B", "ViT-T"): [79.0, 80.1, 81.0], ("C", "ViT-T"): [70.0, 99.0, None]}
    )
    assert counts(load_grid(grid.storage)) == {
        "done": 17,
        "planned": 19,
        "significant_gains": 1,
        "negative_transfers": 1,
    }


def test_the_summary_of_baselines_counts_no_gains(make_grid: Maker) -> None:
    grid = make_grid(modes=["baseline"])
    assert counts(load_grid(grid.storage)) == {"done": 0, "planned": 3, "significant_gains": 0, "negative_transfers": 0}


def test_a_report_needs_to_be_online(make_grid: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    grid = filled(make_grid)
    assert main(["wandb", grid.name, "--storage", grid.storage, "--mode", "offline", "--report"]) == 2
    assert "error: --report is written at W&B itself: log in" in capsys.readouterr().err


def test_a_reports_blocks_are_the_tables_and_the_curves(make_grid: Maker) -> None:
    pytest.importorskip("wandb_workspaces")
    grid = load_grid(filled(make_grid).storage)
    contents, text, panels = report_blocks(grid, project="p")
    assert type(contents).__name__ == "TableOfContents"
    assert text.text == markdown(tables(grid))
    assert [panel.y for panel in panels.panels] == [["test_top1"], ["train_loss"]]
    assert panels.runsets[0].filters == "Group == 'tiny'"
