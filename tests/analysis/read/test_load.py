"""What stands in a storage is shown, and what cannot be read is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import fsspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.errors import AnalysisError
from analysis.read.load import load_grid
from analysis.read.schema import RECORD, ROW
from grid.plan import Plan
from grid.store.plan_file import write_plan
from grid.store.records import Value, make_record, record_to_json
from grid.store.store import Store
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]


def statuses(grid: SyntheticGrid) -> dict[str, str]:
    return dict(load_grid(grid.storage, grid.name).cells.select("stage_id", "status").iter_rows())


# Which grid


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an empty grids folder"])
def test_a_storage_in_which_no_grid_was_run(tmp_path: Path, there: str) -> None:
    storage = tmp_path / "runs"
    if there != "nothing":
        (storage / "grids" if "grids" in there else storage).mkdir(parents=True)
    with pytest.raises(
        AnalysisError, match=r"^no grid was run in .*runs: run (python launch\.py|kd-grid) .*--storage$"
    ):
        load_grid(str(storage))


def test_an_unknown_grid_names_those_there_are(make_grid: Maker) -> None:
    make_grid("first", written_at="2026-01-01T00:00:00+00:00")
    grid = make_grid("second", written_at="2026-01-02T00:00:00+00:00")
    with pytest.raises(AnalysisError) as error:
        load_grid(grid.storage, "third")
    assert str(error.value) == f"no grid 'third' was run in {grid.storage}; there are first, second"


def test_an_unknown_grid_in_an_empty_storage(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"no grid 'digits' was run in .*; there is none: run kd-grid"):
        load_grid(str(tmp_path), "digits")


def test_the_default_grid_is_the_one_launched_last(make_grid: Maker) -> None:
    # Neither the last written file nor the last name.
    grid = make_grid("middle", written_at="2026-03-01T00:00:00+00:00")
    make_grid("a", written_at="2026-01-01T00:00:00+00:00")
    make_grid("z", written_at="2026-02-01T00:00:00+00:00")
    assert load_grid(grid.storage).name == "middle"
    assert load_grid(grid.storage, "a").name == "a"


def test_a_relaunched_grid_is_the_last_again(make_grid: Maker) -> None:
    first = make_grid("first", written_at="2026-01-01T00:00:00+00:00")
    make_grid("second", written_at="2026-01-02T00:00:00+00:00")
    first.write_plan(written_at="2026-01-03T00:00:00+00:00")
    assert load_grid(first.storage).name == "first"


def test_what_is_no_plan_is_no_known_grid(make_grid: Maker) -> None:
    grid = make_grid("good")
    grid.write("grids/empty/launch.log", b"")
    grid.write("grids/truncated/plan.json", b'{"schema_version": 1, "written_at": "2027')
    grid.write("grids/list/plan.json", b"[]")
    grid.write("grids/notes.txt", b"")
    assert load_grid(grid.storage).name == "good"
    with pytest.raises(AnalysisError, match=r"there are good$"):
        load_grid(grid.storage, "empty")


@pytest.mark.parametrize("data", [b"", b'{"schema_version": 1, "rows": [', b"\xff\xfe\x00"])
def test_a_damaged_plan(make_grid: Maker, data: bytes) -> None:
    grid = make_grid()
    grid.write("grids/tiny/plan.json", data)
    with pytest.raises(AnalysisError, match=r"runs/grids/tiny/plan\.json: not a plan: .*; launch the grid again$"):
        load_grid(grid.storage, "tiny")


@pytest.mark.parametrize("data", [b"[1, 2]", b"{}", b'{"schema_version": 2, "rows": [], "spec": {}}'])
def test_a_plan_of_another_version(make_grid: Maker, data: bytes) -> None:
    grid = make_grid()
    grid.write("grids/tiny/plan.json", data)
    with pytest.raises(AnalysisError, match=r"plan\.json: of another version of this program; launch the grid again"):
        load_grid(grid.storage, "tiny")


def test_a_storage_of_an_unknown_kind() -> None:
    with pytest.raises(AnalysisError, match=r"^--storage nowhere://there: .*nowhere"):
        load_grid("nowhere://there")


def test_a_storage_in_the_home_folder(make_grid: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_grid("at home")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_grid("~/runs").name == "at home"


@pytest.mark.parametrize("end", ["", "/"])
def test_a_storage_by_url(make_grid: Maker, end: str) -> None:
    grid = make_grid().fill({"ViT-T": 90.0, ("ResNet-S", None): [80.0, 81.0, 82.0]})
    memory = fsspec.filesystem("memory")
    memory.put(grid.storage, "/bucket/runs", recursive=True)
    try:
        from_url, local = load_grid(f"memory://bucket/runs{end}"), load_grid(grid.storage)
    finally:
        memory.rm("/bucket", recursive=True)
    assert from_url.cells.equals(local.cells)
    assert from_url.cells["status"].to_list().count("done") == 4


# What became of its cells


def test_a_grid_that_was_only_planned_is_all_missing(make_grid: Maker) -> None:
    grid = make_grid()
    loaded = load_grid(grid.storage)
    assert (loaded.name, loaded.problems) == ("tiny", [])
    assert loaded.spec["dataset"]["name"] == "digits"
    assert loaded.cells.height == len(grid.rows) == 7
    assert set(loaded.cells["status"]) == {"missing"}


def test_done_failed_and_missing(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1])
    teacher = grid.one(kind="teacher")
    first, second = grid.find(mode="baseline")
    grid.done(teacher, 90.0)
    grid.done(first, 80.0, seconds_total=1.5)
    grid.fail(second, "RuntimeError: out of luck")
    cells = load_grid(grid.storage).cells
    assert cells["status"].to_list() == ["done", "done", "missing", "failed", "missing"]
    assert cells["error"].to_list() == [None, None, None, "RuntimeError: out of luck", None]
    assert cells["test_top1_last"].to_list() == [0.9, 0.8, None, None, None]
    assert cells["seconds_total"].to_list() == [None, 1.5, None, None, None]


def test_a_result_outweighs_the_failure_before_it(make_grid: Maker) -> None:
    grid = make_grid()
    teacher = grid.one(kind="teacher")
    grid.fail(teacher)
    assert statuses(grid)[teacher["stage_id"]] == "failed"
    grid.done(teacher, 90.0)
    assert statuses(grid)[teacher["stage_id"]] == "done"


def test_rows_are_in_the_plans_order_with_every_column_once(make_grid: Maker) -> None:
    grid = make_grid(teachers=["B", "A"], students=["D", "C"], temperature=[2.0, 1.0])
    for row in reversed(grid.rows):
        grid.done(row, 50.0)
    cells = load_grid(grid.storage).cells
    assert cells["stage_id"].to_list() == [row["stage_id"] for row in grid.rows]
    assert dict(cells.schema) == {"grid": pl.String, **ROW, **RECORD, "progress": pl.Float64}
    assert len(cells.columns) == len(set(cells.columns))


def test_the_plan_says_what_a_model_is_called(make_grid: Maker) -> None:
    grid = make_grid().fill({"ViT-T": 90.0, ("ResNet-S", "ViT-T"): [80.0, 81.0, 82.0]})
    assert b"ViT-T in the records" in (grid.root / grid.folder(grid.rows[0]) / "record.json").read_bytes()
    done = load_grid(grid.storage).cells.filter(pl.col("status") == "done")
    assert set(done["teacher"]) == {"ViT-T"}
    assert set(done["student"].drop_nulls()) == {"ResNet-S"}


def test_two_rows_may_share_a_record(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0], modes=["baseline"])
    (row,) = grid.rows
    grid.write_plan(rows=[row, {**row, "student": "the same by another name"}])
    grid.done(row, 80.0)
    cells = load_grid(grid.storage).cells
    assert cells["student"].to_list() == ["ResNet-S", "the same by another name"]
    assert cells["test_top1_last"].to_list() == [0.8, 0.8]


def test_a_column_may_be_empty_but_for_its_last_row(make_grid: Maker) -> None:
    grid = make_grid(seeds=range(150), modes=["baseline"])
    for row in grid.rows[:-1]:
        grid.fail(row)
    grid.done(grid.rows[-1], 80.0, deterministic=True)
    last = load_grid(grid.storage).cells[-1]
    assert (last["test_top1_last"].item(), last["deterministic"].item()) == (0.8, True)


def test_what_a_launch_plans_is_what_is_loaded(tmp_path: Path, tiny_plan: Callable[..., Plan]) -> None:
    plan = tiny_plan(temperature=[1, 4])
    store = Store(str(tmp_path / "runs"))
    write_plan(plan, store)
    cell = plan.cells[-1]
    values: dict[str, Value] = {"stage_id": cell.id, "kind": "cell", "status": "done", "test_top1_last": 0.75}
    store.write(f"{cell.folder}/record.json", record_to_json(make_record(values)))
    grid = load_grid(str(tmp_path / "runs"))
    assert grid.name == plan.spec.name
    assert grid.spec == json.loads(plan.spec.model_dump_json())
    assert grid.cells["stage_id"].to_list() == [row.stage.id for row in plan.rows]
    assert grid.cells["teacher"].to_list() == [row.teacher for row in plan.rows]
    assert grid.cells["temperature"].unique().sort().to_list() == [None, 1.0, 4.0]
    assert grid.cells.filter(pl.col("status") == "done")["stage_id"].to_list() == [cell.id]


# Records that cannot be read


def newer(record: bytes) -> bytes:
    return json.dumps({**json.loads(record), "schema_version": 2}).encode()


def changed(**facts: object) -> Callable[[bytes], bytes]:
    return lambda record: json.dumps({**json.loads(record), **facts}).encode()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda record: record[: len(record) // 2], ""),
        (lambda record: b"", ""),
        (lambda record: b"\x89PNG\r\n\xff", ""),
        (lambda record: b'["foreign"]', "not a record: it has no schema_version"),
        (lambda record: b'{"name": "foreign"}', "not a record: it has no schema_version"),
        (lambda record: b'{"schema_version": "1"}', "not a record: it has no schema_version"),
        (
            lambda record: json.dumps({**json.loads(record), "stage_id": "another"}).encode(),
            "the record of another stage",
        ),
        (lambda record: b'{"schema_version": 1}', "the record of another stage: None"),
        (newer, "of schema version 2, newer than this program: update it"),
        (changed(status="weird"), "not a record: its status is 'weird'"),
        (changed(status=None), "not a record: its status is None"),
        (changed(test_top1_last=math.nan), "not a record: test_top1_last is not finite"),
        (changed(test_top1_last=math.inf, seconds_total=-math.inf), "not a record: test_top1_last, seconds_total are"),
    ],
    ids=[
        "truncated",
        "empty",
        "binary",
        "a list",
        "another object",
        "version as text",
        "another stage",
        "no stage",
        "newer",
        "unknown status",
        "no status",
        "NaN",
        "infinite",
    ],
)
@pytest.mark.parametrize("file", ["record.json", "failure.json"])
def test_an_unreadable_record_is_named_and_the_rest_is_shown(
    make_grid: Maker, damage: Callable[[bytes], bytes], reason: str, file: str
) -> None:
    grid = make_grid().fill({"ViT-T": 90.0, ("ResNet-S", None): [80.0, 81.0, 82.0]})
    row = grid.find(mode="distilled")[1]
    path = f"{grid.folder(row)}/{file}"
    grid.write(path, damage(grid.record(row, status="done")))
    loaded = load_grid(grid.storage)
    (problem,) = loaded.problems
    assert problem.startswith(f"{path}: {reason}")
    assert len(problem) > len(f"{path}: ")
    assert "\n" not in problem
    assert statuses(grid)[row["stage_id"]] == "missing"
    assert loaded.cells["status"].to_list().count("done") == 4


@pytest.mark.parametrize("value", ["many", [1.5], {"a": 1}, 10**400])
def test_a_field_of_a_foreign_type_makes_it_no_record(make_grid: Maker, value: object) -> None:
    grid = make_grid().fill({"ViT-T": 90.0, ("ResNet-S", None): [80.0, 81.0, 82.0]})
    row = grid.find(mode="distilled")[0]
    path = f"{grid.folder(row)}/record.json"
    foreign = {**json.loads(grid.record(row, status="done")), "parameters": value}
    grid.write(path, json.dumps(foreign).encode())
    loaded = load_grid(grid.storage)
    assert [problem.split(": ")[:2] for problem in loaded.problems] == [[path, "not a record"]]
    assert "\n" not in loaded.problems[0]
    assert loaded.cells["status"].to_list().count("done") == 4


def test_a_folder_in_a_records_place_is_named(make_grid: Maker) -> None:
    grid = make_grid().fill({"ViT-T": 90.0})
    path = f"{grid.folder(grid.rows[-1])}/record.json"
    (grid.root / path).mkdir(parents=True)
    loaded = load_grid(grid.storage)
    assert loaded.problems == [f"{path}: Is a directory"]
    assert loaded.cells["status"].to_list().count("done") == 1


@pytest.mark.parametrize(
    "change", [{"rows": [{"kind": "cell", "stage_id": "a", "seed": "x"}]}, {"rows": 1}, {"spec": {}}, {"stages": [1]}]
)
def test_a_foreign_plan(make_grid: Maker, change: dict[str, object]) -> None:
    grid = make_grid()
    grid.write_plan(**change)
    with pytest.raises(AnalysisError, match=r"^.*/grids/tiny/plan\.json: [^\n]*; launch the grid again$"):
        load_grid(grid.storage)


def test_every_unreadable_record_is_named(make_grid: Maker) -> None:
    grid = make_grid()
    for row in grid.rows:
        grid.write(f"{grid.folder(row)}/record.json", b"{")
    loaded = load_grid(grid.storage)
    assert [problem.split(":")[0] for problem in loaded.problems] == [
        f"{grid.folder(row)}/record.json" for row in grid.rows
    ]
    assert set(loaded.cells["status"]) == {"missing"}


def test_a_field_that_an_older_record_lacks_is_null(make_grid: Maker) -> None:
    grid = make_grid()
    row = grid.one(kind="teacher")
    older = json.loads(grid.record(row, status="done", test_top1_last=0.9, macs=5))
    del older["macs"], older["deterministic"]
    grid.write(f"{grid.folder(row)}/record.json", json.dumps(older).encode())
    loaded = load_grid(grid.storage)
    assert loaded.problems == []
    teacher = loaded.cells.row(0, named=True)
    assert (teacher["status"], teacher["test_top1_last"]) == ("done", 0.9)
    assert (teacher["macs"], teacher["deterministic"]) == (None, None)


def test_the_frame_says_what_each_stage_learned_from(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    learned = {"teacher_sha256": "aa", "targets": "online"}
    grid.done(grid.one(kind="teacher"), 90.0, view_stream=0, weights_sha256="aa")
    grid.done(grid.one(mode="baseline"), 80.0, view_stream=1, weights_sha256="bb")
    grid.done(grid.one(mode="distilled"), 85.0, view_stream=1, weights_sha256="cc", **learned)
    expected = pl.DataFrame(
        {
            "kind": ["teacher", "cell", "cell"],
            "mode": [None, "baseline", "distilled"],
            "targets": [None, None, "online"],
            "view_stream": [0, 1, 1],
            "weights_sha256": ["aa", "bb", "cc"],
            "teacher_sha256": [None, None, "aa"],
        }
    )
    assert_frame_equal(load_grid(grid.storage).cells.select(expected.columns), expected)


def test_a_record_from_before_targets_were_recorded_still_loads(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    row = grid.one(mode="distilled")
    older = json.loads(grid.record(row, status="done", test_top1_last=0.75))
    for name in ("targets", "view_stream", "weights_sha256", "teacher_sha256"):
        del older[name]
    grid.write(f"{grid.folder(row)}/record.json", json.dumps(older).encode())
    loaded = load_grid(grid.storage)
    assert loaded.problems == []
    cell = loaded.cells.row(by_predicate=pl.col("mode") == "distilled", named=True)
    assert (cell["status"], cell["test_top1_last"], cell["targets"], cell["view_stream"]) == ("done", 0.75, None, None)


def test_a_field_of_no_column_is_passed_over(make_grid: Maker) -> None:
    grid = make_grid()
    row = grid.one(kind="teacher")
    record = {**json.loads(grid.record(row, status="done")), "colour": "blue"}
    grid.write(f"{grid.folder(row)}/record.json", json.dumps(record).encode())
    loaded = load_grid(grid.storage)
    assert loaded.problems == []
    assert statuses(grid)[row["stage_id"]] == "done"
    assert "colour" not in loaded.cells.columns
