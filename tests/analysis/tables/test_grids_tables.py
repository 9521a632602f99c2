"""Several grids, from one storage or several, as one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import polars as pl
import pytest

from analysis.cli import main
from analysis.errors import AnalysisError
from analysis.measures.by_grid import GRIDS_SCHEMA, by_grid
from analysis.measures.costs import costs
from analysis.measures.gains import gains
from analysis.read.curves import curves
from analysis.read.grids import Grids
from analysis.read.load import load_grid, load_grids
from analysis.read.where import filtered
from analysis.tables.grids_tables import many_tables
from analysis.write.markdown import markdown
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]

MNIST = {"ViT-T": 90.0, ("ResNet-S", None): [80.0, 81.0, 82.0], ("ResNet-S", "ViT-T"): [84.0, 85.5, 86.0]}
DIGITS = {"ViT-T": 95.0, ("ResNet-S", None): [70.0, 71.0, 75.0], ("ResNet-S", "ViT-T"): [69.0, 70.5, 75.0]}


def two(make_grid: Maker) -> Grids:
    make_grid("mnist", dataset="mnist").fill(MNIST)
    grid = make_grid("digits", written_at="2027-01-01T00:00:00+00:00").fill(DIGITS)
    return load_grids(grid.storage)


def test_the_gains_of_each_grid_are_those_of_its_own_table(make_grid: Maker) -> None:
    grids = two(make_grid)
    found = gains(grids)
    for name in ("mnist", "digits"):
        own = gains(load_grid(grids.reader.storages[0], name))
        assert found.filter(pl.col("grid") == name).equals(own)
    assert found["grid"].to_list() == ["mnist", "digits"]


def test_each_grid_is_a_family_of_its_own(make_grid: Maker) -> None:
    rows = gains(two(make_grid)).to_dicts()
    assert [(row["gain_tests"], row["gain_p_holm"]) for row in rows] == [(1, row["gain_p"]) for row in rows]


def test_a_line_a_grid(make_grid: Maker) -> None:
    make_grid("mnist", dataset="mnist").fill(MNIST)
    half = make_grid("half").fill({"ViT-T": 95.0, ("ResNet-S", None): [70.0, 71.0, None]})
    half.fail(half.find(mode="distilled")[0])
    grids = load_grids(half.storage)
    found = by_grid(grids, gains(grids))
    assert dict(found.schema) == GRIDS_SCHEMA
    mnist, other = found.sort("dataset", descending=True).to_dicts()
    assert mnist == {
        "grid": "mnist",
        "dataset": "mnist",
        "done": 7,
        "planned": 7,
        "failed": 0,
        "running": 0,
        "gains": 1,
        "gain": 1,
        "negative_transfer": 0,
        "gain_mean_points": pytest.approx(12.5 / 3),
        "device_hours": 0.0,
    }
    assert other == {
        "grid": "half",
        "dataset": "digits",
        "done": 3,
        "planned": 7,
        "failed": 1,
        "running": 0,
        "gains": 0,
        "gain": 0,
        "negative_transfer": 0,
        "gain_mean_points": None,
        "device_hours": 0.0,
    }


def test_the_document_names_each_row_s_grid_and_the_stages_that_failed(make_grid: Maker) -> None:
    make_grid("mnist", dataset="mnist").fill(MNIST)
    failing = make_grid("digits", written_at="2027-01-01T00:00:00+00:00")
    failing.fill(DIGITS | {("ResNet-S", "ViT-T"): [69.0, 70.5, None]}).fail(failing.find(mode="distilled")[2])
    grids = load_grids(failing.storage)
    document = many_tables(grids)
    assert document.title == "2 grids"
    assert [*document.tables] == ["gains", "grids", "failures"]
    assert [line[0] for line in document.tables["gains"].lines] == ["mnist", "digits"]
    assert document.tables["failures"].lines[0][:2] == ["digits", "ResNet-S from ViT-T, seed 2, T 4, alpha 0.5"]
    text = markdown(document)
    assert "stands on 13 of 14 teachers and cells (1 failed, 0 missing)" in text
    assert "**Verdict**: Each grid is corrected for the pairs that it plans (Holm): 1 of 2 gained significantly" in text


def test_a_grid_of_baselines_alone_has_a_table_of_its_own(make_grid: Maker) -> None:
    make_grid("taught", dataset="mnist").fill(MNIST)
    grid = make_grid("alone", modes=["baseline"]).fill({("ResNet-S", None): [70.0, 71.0, 72.0]})
    tables = many_tables(load_grids(grid.storage)).tables
    assert [line[0] for line in tables["gains"].lines] == ["taught"]
    assert tables["baselines"].lines == [["alone", "ResNet-S (1.0K)", "71.00 ± 1.00 (n=3)"]]
    alone = many_tables(load_grids(grid.storage, ["alone"]))
    assert alone.title == "1 grid"
    assert alone.tables["gains"].lines == [["alone", "ResNet-S (1.0K)", "71.00 ± 1.00 (n=3)"]]


def test_a_stage_that_grids_share_costs_once(make_grid: Maker) -> None:
    for name, seeds in (("a", [0, 1]), ("b", [0, 1, 2])):
        grid = make_grid(name, seeds=seeds, modes=["baseline"])
        for row in grid.rows:
            grid.done(row, 80.0, device_seconds=3600.0)
    grids = load_grids(grid.storage)
    total = costs(grids).filter(pl.col("stage") == "total").to_dicts()[0]
    assert (total["done"], total["planned"], total["device_hours"]) == (3, 3, 3.0)
    hours = dict(by_grid(grids, gains(grids)).select("grid", "device_hours").iter_rows())
    assert hours == {"a": 2.0, "b": 3.0}


def test_a_damaged_plan_is_named_and_the_other_grids_are_shown(make_grid: Maker) -> None:
    grid = make_grid("good").fill(DIGITS)
    grid.write("grids/bad/plan.json", b"{")
    grids = load_grids(grid.storage)
    assert [*grids.specs] == ["good"]
    assert "grids/bad/plan.json: not a plan" in grids.problems[0]
    assert "Unreadable" in markdown(many_tables(grids))
    with pytest.raises(AnalysisError, match=r"grids/bad/plan\.json: not a plan"):
        load_grids(grid.storage, ["good", "bad"])


def test_an_unknown_name_among_several(make_grid: Maker) -> None:
    grid = make_grid("good")
    with pytest.raises(AnalysisError, match=r"^no grid 'bad' was run in .*; there are good$"):
        load_grids(grid.storage, ["good", "bad"])


def test_where_leaves_out_grids_of_which_nothing_is_left(make_grid: Maker) -> None:
    grids = filtered(two(make_grid), ["dataset=mnist"])
    assert [*grids.specs] == ["mnist"]
    assert many_tables(grids).title == "1 grid, only dataset=mnist"
    with pytest.raises(
        AnalysisError, match=r"--where grid=cifar: nothing in 2 grids is so; grid is one of mnist, digits$"
    ):
        filtered(two(make_grid), ["grid=cifar"])


def test_curves_say_which_grid_they_are_of(make_grid: Maker) -> None:
    for name in ("a", "b"):
        grid = make_grid(name, seeds=[0], modes=["baseline"]).fill({("ResNet-S", None): [80.0]})
        grid.curve(grid.rows[0], [{"epoch": 1, "test_top1": 0.5}, {"epoch": 2, "test_top1": 0.8}])
    assert curves(load_grids(grid.storage)).select("grid", "epoch").rows() == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


# Several storages


def storages(tmp_path: Path, **options: object) -> tuple[SyntheticGrid, SyntheticGrid]:
    return (
        SyntheticGrid(tmp_path / "here", "grid", **options),  # type: ignore[arg-type]
        SyntheticGrid(tmp_path / "there", "grid", **options),  # type: ignore[arg-type]
    )


def test_a_grid_that_two_storages_hold_parts_of_is_whole_together(tmp_path: Path) -> None:
    here, there = storages(tmp_path)
    here.fill({"ViT-T": 95.0, ("ResNet-S", None): [70.0, 71.0, None]})
    there.fill({("ResNet-S", None): [None, None, 75.0], ("ResNet-S", "ViT-T"): [69.0, 70.5, 75.0]})
    there.fail(there.one(kind="teacher"))
    there.curve(there.rows[-1], [{"epoch": 1}])
    grid = load_grid([here.storage, there.storage])
    assert grid.cells["status"].to_list() == ["done"] * 7
    assert gains(grid)["gain_n"].to_list() == [3]
    assert grid.reader.read(f"{there.folder(there.rows[-1])}/curve.parquet")
    both = load_grids([there.storage, here.storage])
    assert [*both.specs] == ["grid"]
    assert both.cells["status"].to_list() == ["done"] * 7


def test_a_storage_by_url_beside_a_folder(tmp_path: Path) -> None:
    here, there = storages(tmp_path)
    here.fill({"ViT-T": 95.0})
    there.fill({("ResNet-S", None): [70.0, 71.0, 75.0]})
    memory = fsspec.filesystem("memory")
    memory.put(there.storage, "/beside/runs", recursive=True)
    try:
        grid = load_grid([here.storage, "memory://beside/runs"])
    finally:
        memory.rm("/beside", recursive=True)
    assert grid.cells["status"].to_list().count("done") == 4


def test_different_grids_of_one_name_are_told_apart(tmp_path: Path, capsys: Capture) -> None:
    here = SyntheticGrid(tmp_path / "here", "grid").fill(DIGITS)
    there = SyntheticGrid(tmp_path / "there", "grid", dataset="mnist").fill(MNIST)
    places = [here.storage, there.storage]
    assert {*load_grids(places).specs} == {f"grid ({place})" for place in places}
    with pytest.raises(AnalysisError, match=r"different grids called 'grid' .*: give one --storage$"):
        load_grid(places)
    asked = [word for place in places for word in ("--storage", place)]
    assert main(["table", "--all", *asked]) == 0
    shown = capsys.readouterr().out
    assert all(f"| grid ({place}) " in shown for place in places)


def test_storages_where_nothing_was_run_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"^no grid was run in a, b: "):
        load_grids(["a", "b"])


# What runs


@pytest.mark.parametrize(
    ("minutes", "status", "progress"), [(0.0, "running", 0.25), (29.0, "running", 0.25), (31.0, "missing", None)]
)
def test_a_stage_that_told_of_itself_lately_runs(
    make_grid: Maker, minutes: float, status: str, progress: float | None
) -> None:
    grid = make_grid(seeds=[0])
    tell(grid, minutes)
    cell = load_grid(grid.storage).cells.row(by_predicate=pl.col("mode") == "baseline", named=True)
    assert (cell["status"], cell["progress"]) == (status, progress)


def test_running_stages_are_shown_with_how_far_they_are(make_grid: Maker, capsys: Capture) -> None:
    grid = make_grid(seeds=[0]).fill({"ViT-T": 95.0})
    tell(grid, 1)
    assert main(["table", "--storage", grid.storage]) == 0
    shown = capsys.readouterr().out
    assert "stands on 1 of 3 teachers and cells (0 failed, 1 running, 1 missing)" in shown
    assert "#### Running" in shown
    assert f"| ResNet-S alone, seed 0 | {grid.one(mode='baseline')['stage_id']} | 25 %     |" in shown


@pytest.mark.parametrize(("failed", "status"), [(10, "running"), (1, "failed")])
def test_a_stage_runs_again_after_its_failure_and_not_before(make_grid: Maker, failed: float, status: str) -> None:
    grid = make_grid(seeds=[0])
    row = grid.one(mode="baseline")
    at = (datetime.now(UTC) - timedelta(minutes=failed)).isoformat(timespec="seconds")
    facts = grid.record(row, status="failed", error="ValueError: no", finished_at=at)
    grid.write(f"{grid.folder(row)}/failure.json", facts)
    tell(grid, 5)
    cell = load_grid(grid.storage).cells.row(by_predicate=pl.col("mode") == "baseline", named=True)
    assert (cell["status"], cell["error"]) == (status, None if status == "running" else "ValueError: no")


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"done": 1, "total": 0, "at": "2999-01-01T00:00:00+00:00"}', b"\xff"])
def test_progress_that_cannot_be_read_is_named_and_none(make_grid: Maker, data: bytes) -> None:
    grid = make_grid(seeds=[0])
    grid.write(f"{grid.folder(grid.rows[0])}/progress.json", data)
    loaded = load_grid(grid.storage)
    assert loaded.cells["status"].to_list() == ["missing"] * 3
    (problem,) = loaded.problems
    assert problem.startswith(f"{grid.folder(grid.rows[0])}/progress.json: ")


def test_a_done_stage_does_not_run(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0]).fill({("ResNet-S", None): [80.0]})
    tell(grid, 0)
    cell = load_grid(grid.storage).cells.row(by_predicate=pl.col("mode") == "baseline", named=True)
    assert (cell["status"], cell["progress"]) == ("done", None)


def tell(grid: SyntheticGrid, minutes: float) -> None:
    """The baseline told of itself so many minutes ago."""
    at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")
    facts = {"done": 2, "total": 8, "started_at": at, "host": "here", "at": at}
    grid.write(f"{grid.folder(grid.one(mode='baseline'))}/progress.json", json.dumps(facts).encode())


# The command


def test_the_command_takes_names_or_all(make_grid: Maker, tmp_path: Path, capsys: Capture) -> None:
    two(make_grid)
    assert main(["table", "mnist", "digits"]) == 0
    assert capsys.readouterr().out.startswith("### 2 grids\n")
    assert main(["table", "--all", "--only", "grids"]) == 0
    assert "| mnist  | mnist    | 7 of 7 |" in capsys.readouterr().out
    assert main(["records", "--all", "--output", str(tmp_path / "all.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "all.parquet")["grid"].to_list() == ["mnist"] * 7 + ["digits"] * 7
    assert main(["table", "mnist", "--all"]) == 2
    assert capsys.readouterr().err == "error: give grids' names or --all, not both\n"
