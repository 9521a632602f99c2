"""Runs are written offline here, and read back from the files that `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from analysis.cli import main
from analysis.tracking import export as wandb_export
from analysis.tracking import summary as wandb_summary
from analysis.tracking.export import Exporter, default_mode, title
from grid.store.records import Value
from tests.analysis.conftest import Row, SyntheticGrid

Maker = Callable[..., SyntheticGrid]

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")  # of a chunk: checksum, length and kind
FULL, LAST = 1, 4
WRITTEN_SECONDS = 30.0


def read_records(file: Path) -> list[Record]:
    """The records of a .wandb file, once W&B's own process has written that the run has ended."""
    until = time.monotonic() + WRITTEN_SECONDS
    while True:
        found = [*_records(file.read_bytes())]
        kinds = [record.WhichOneof("record_type") for record in found]
        if "exit" in kinds:
            return found
        assert time.monotonic() < until, f"{file} has no end: {kinds}"
        time.sleep(0.05)


def _records(data: bytes) -> Iterator[Record]:
    """7 bytes of its own, then chunks that never cross a block's end; a chunk that is being written is none yet."""
    assert data[:4] in (b"", b":W&B")
    at, message = 7, b""
    while at + HEADER.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER.size:  # padding
            at += left
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size + length
        if at > len(data):
            return
        message += data[at - length : at]
        if kind in (FULL, LAST):
            yield Record.FromString(message)
            message = b""


@dataclass
class Run:
    """A run as W&B would show it."""

    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def read_run(folder: Path) -> Run:
    def values(items: Any) -> dict[str, Any]:
        # What W&B adds of itself starts with an underscore.
        named = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
        return {name: value for name, value in named.items() if not name.startswith("_")}

    run = Run()
    (file,) = folder.glob("*.wandb")
    for record in read_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.about = record.run
            run.config |= values(record.run.config.update)
        elif kind == "config":
            run.config |= values(record.config.update)
        elif kind == "history":
            run.history.append(values(record.history.item))
        elif kind == "summary":
            run.summary |= values(record.summary.update)
    return run


def folders(grid: SyntheticGrid) -> list[Path]:
    return sorted((grid.root / "grids" / grid.name / "wandb").glob("*run-*"))


def export(
    grid: SyntheticGrid, *stages: str, mode: Any = "offline", storage: str | None = None, warns: int = 0
) -> list[str]:
    """Export the given stages ("*", or none given: all), which warns so many times; returns the warnings."""
    warnings: list[str] = []
    with Exporter(storage or grid.storage, grid.name, mode=mode, warn=warnings.append) as exporter:
        for stage in stages or ("*",):
            if stage == "*":
                exporter.add_all()
            else:
                exporter.add(stage)
    assert len(warnings) == warns, warnings
    return warnings


CURVE: list[dict[str, float | None]] = [
    {"epoch": 1, "train_loss": 2.5, "test_top1": None},
    {"epoch": 2, "train_loss": 1.25, "test_top1": 0.5},
    {"epoch": 3, "train_loss": 0.625, "test_top1": 0.75},
]
MEASURED: dict[str, Value] = {
    "best_test_top1": 0.8,
    "best_test_epoch": 2,
    "val_nll_best": 0.25,
    "seconds_train": 4.5,
    "latency_ms": 1.5,
    "latency_device": "CPU",
    "epochs": 3,
    "macs": 77,
    "threads": 1,
    "launch": "20260102T030405-abcdef",
    "recipe": '{"epochs": 3, "views": {"crop_padding": 1}}',
    "student_args": '{"depth": 2}',
}


def terms_of(row: Row) -> dict[str, float | None]:
    return {"train_loss_kd": 1.5, "train_loss_ce": 0.25} if row.get("mode") == "distilled" else {}


def finish(grid: SyntheticGrid, row: Row, top1: float = 75.0) -> None:
    grid.curve(row, [{**point, **terms_of(row)} for point in CURVE])
    grid.done(row, top1, **MEASURED)


@dataclass
class Exported:
    grid: SyntheticGrid
    runs: dict[str, Run]  # by stage
    folders: list[Path]
    later: list[Path]  # the folders after two more exports


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """A grid whose teacher, baseline and distilled cell of seed 0 are done, the rest failed or missing, once exported
    through add and add_all together."""
    root = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "NETRC"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(root / "home"))
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(root / "home" / name))
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
        patch.chdir(root)
        grid = SyntheticGrid(root / "runs", seeds=[0, 1])
        for row in [grid.one(kind="teacher"), *grid.find(seed=0)]:
            finish(grid, row)
        grid.fail(grid.one(seed=1, mode="baseline"))

        teacher = grid.rows[0]["stage_id"]
        export(grid, teacher, "*")
        once = folders(grid)
        export(grid, teacher, "*", "*")
        export(grid)
        read = {folder.name.rsplit("-", 1)[-1]: read_run(folder) for folder in once}
        yield Exported(grid, read, once, folders(grid))
        wandb.teardown()


def test_a_run_for_each_finished_stage_and_for_no_other(exported: Exported) -> None:
    finished = {exported.grid.rows[0]["stage_id"], *(row["stage_id"] for row in exported.grid.find(seed=0))}
    assert exported.runs.keys() == finished
    assert len(exported.folders) == len(finished) == 3
    assert all(folder.name.startswith("offline-run-") for folder in exported.folders)


def test_nothing_is_written_twice(exported: Exported) -> None:
    assert exported.later == exported.folders


def test_nothing_is_written_elsewhere(exported: Exported) -> None:
    root = exported.grid.root.parent
    assert not (root / "wandb").exists()
    assert not [path for path in exported.grid.root.rglob("wandb") if path.parent.name != "tiny"]


def test_runs_are_the_stages_grouped_by_grid(exported: Exported) -> None:
    for row in exported.grid.rows[:3]:
        about = exported.runs[row["stage_id"]].about
        assert about.run_id == row["stage_id"]
        assert about.run_group == "tiny"
        assert about.project == "kd-grid"
        assert about.job_type == row.get("mode", "teacher")
        assert about.display_name == title(row)
        assert set(about.tags) == {"digits", row["teacher"], row["student"]} - {None}


def test_the_config_is_what_was_run(exported: Exported) -> None:
    row = exported.grid.one(mode="distilled", seed=0)
    recipe = {"epochs": 3, "views": {"crop_padding": 1}}
    assert exported.runs[row["stage_id"]].config == {
        "grid": "tiny",
        "stage_id": row["stage_id"],
        "kind": "cell",
        "dataset": "digits",
        "teacher": "ViT-T in the records",
        "teacher_label": "ViT-T",
        "student": "ResNet-S in the records",
        "student_label": "ResNet-S",
        "student_args": {"depth": 2},
        "mode": "distilled",
        "method": "kd",
        "temperature": 4.0,
        "alpha": 0.5,
        "seed": 0,
        "teacher_id": exported.grid.rows[0]["stage_id"],
        "epochs": 3,
        "parameters": 1_000,
        "macs": 77,
        "threads": 1,
        "recipe": recipe,
    }


def test_the_config_has_nothing_that_does_not_apply(exported: Exported) -> None:
    baseline = exported.runs[exported.grid.one(mode="baseline", seed=0)["stage_id"]].config
    assert baseline.keys().isdisjoint({"teacher", "teacher_label", "teacher_id", "temperature", "alpha", "method"})
    teacher = exported.runs[exported.grid.rows[0]["stage_id"]].config
    assert teacher.keys().isdisjoint({"student", "student_label", "mode", "seed", "temperature"})
    assert (teacher["kind"], teacher["teacher_label"], teacher["parameters"]) == ("teacher", "ViT-T", 10_000)


def test_the_history_has_a_point_an_epoch(exported: Exported) -> None:
    for row in exported.grid.rows[:3]:
        terms = terms_of(row)
        assert exported.runs[row["stage_id"]].history == [
            {"epoch": 1, "train_loss": 2.5, **terms},
            {"epoch": 2, "train_loss": 1.25, "test_top1": 0.5, **terms},
            {"epoch": 3, "train_loss": 0.625, "test_top1": 0.75, **terms},
        ]


def test_the_epoch_is_the_step(exported: Exported) -> None:
    (file,) = exported.folders[0].glob("*.wandb")
    steps = [record.history.step.num for record in read_records(file) if record.HasField("history")]
    assert steps == [1, 2, 3]


def test_the_summary_is_the_records(exported: Exported) -> None:
    for row in exported.grid.rows[:3]:
        last_point = {"epoch": 3, "train_loss": 0.625, "test_top1": 0.75, **terms_of(row)}
        assert exported.runs[row["stage_id"]].summary == {
            **last_point,
            "test_top1_last": 0.75,
            "best_test_top1": 0.8,
            "best_test_epoch": 2,
            "val_nll_best": 0.25,
            "seconds_train": 4.5,
            "latency_ms": 1.5,
            "latency_device": "CPU",
        }


# Which stages are written when, without W&B


@dataclass
class Written:
    """Stands in for `write_run`: what it was asked to write."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    broken: bool = False

    def __call__(
        self, record: dict[str, Any], row: Row, curve: pl.DataFrame, *, grid: str, mode: str, folder: Path
    ) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.calls.append((record["stage_id"], mode))
        if self.broken:
            raise OSError("quota\nexceeded")

    @property
    def stages(self) -> list[str]:
        return [stage for stage, _ in self.calls]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    stand_in = Written()
    monkeypatch.setattr(wandb_export, "write_run", stand_in)
    return stand_in


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    grid = make_grid(seeds=[0])
    for row in grid.rows:
        finish(grid, row)
    return grid


def ids(grid: SyntheticGrid) -> list[str]:
    return [row["stage_id"] for row in grid.rows]


def test_all_is_in_the_plans_order_and_each_once(grid: SyntheticGrid, written: Written) -> None:
    export(grid, ids(grid)[1])
    export(grid)
    export(grid)
    assert written.stages == [ids(grid)[1], ids(grid)[0], ids(grid)[2]]


def test_what_finishes_later_is_written_then(make_grid: Maker, written: Written) -> None:
    grid = make_grid(seeds=[0])
    finish(grid, grid.rows[0])
    export(grid)
    finish(grid, grid.rows[2])
    export(grid)
    assert written.stages == [ids(grid)[0], ids(grid)[2]]


def test_leaving_waits_until_all_is_written(
    grid: SyntheticGrid, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()

    def slow(*args: Any, **options: Any) -> None:
        assert not left.wait(0.05)
        written(*args, **options)

    monkeypatch.setattr(wandb_export, "write_run", slow)
    export(grid)
    left.set()
    assert written.stages == ids(grid)


def test_stages_that_are_no_runs_are_passed_over(grid: SyntheticGrid, written: Written) -> None:
    # The data set's and the logits' stages finish too.
    export(grid, "0123456789abcdef", ids(grid)[0], "fedcba9876543210")
    assert written.stages == [ids(grid)[0]]


def test_failed_and_missing_stages_are_passed_over(make_grid: Maker, written: Written) -> None:
    grid = make_grid(seeds=[0])
    grid.fail(grid.rows[0])
    export(grid, *ids(grid))
    export(grid)
    assert written.calls == []


def test_what_was_written_offline_is_written_online_too(grid: SyntheticGrid, written: Written) -> None:
    export(grid, mode="offline")
    export(grid, mode="online")
    export(grid, mode="online")
    assert written.calls == [(stage, mode) for mode in ("offline", "online") for stage in ids(grid)]


def test_another_grids_marks_are_its_own(make_grid: Maker, written: Written) -> None:
    first, second = make_grid("first", seeds=[0]), make_grid("second", seeds=[0])
    assert ids(first) == ids(second)  # they share their stages
    finish(first, first.rows[0])
    export(first)
    export(second)
    assert written.stages == [ids(first)[0]] * 2


def test_disabled_writes_nothing(grid: SyntheticGrid, written: Written) -> None:
    before = sorted(grid.root.rglob("*"))
    export(grid, ids(grid)[0], "*", mode="disabled")
    assert written.calls == []
    assert sorted(grid.root.rglob("*")) == before


def test_disabled_needs_no_thread_and_no_storage(tmp_path: Path) -> None:
    warnings: list[str] = []
    threads = threading.active_count()
    with Exporter(str(tmp_path / "nothing"), "tiny", mode="disabled", warn=warnings.append) as exporter:
        exporter.add_all()
        assert threading.active_count() == threads
    assert warnings == []


def test_a_failure_is_one_warning_and_the_end_of_it(grid: SyntheticGrid, written: Written) -> None:
    written.broken = True
    assert export(grid, *ids(grid), "*", warns=1) == [
        "warning: Weights & Biases: OSError: quota exceeded; nothing more is logged there (--wandb disabled)"
    ]
    assert written.stages == [ids(grid)[0]]


def test_what_failed_is_written_by_the_next_launch(grid: SyntheticGrid, written: Written) -> None:
    export(grid, ids(grid)[1])
    written.broken = True
    export(grid, warns=1)
    written.broken = False
    written.calls.clear()
    export(grid)
    assert written.stages == [ids(grid)[0], ids(grid)[2]]


@pytest.mark.parametrize("damaged", ["record.json", "curve.parquet"])
def test_a_stage_that_cannot_be_read_is_named_and_the_rest_is_written(
    grid: SyntheticGrid, written: Written, damaged: str
) -> None:
    path = f"{grid.folder(grid.rows[1])}/{damaged}"
    grid.write(path, b"{")
    (warning,) = export(grid, warns=1)
    assert warning.startswith(f"warning: {path}: ")
    assert warning.endswith("; its run is not written to Weights & Biases")
    assert "\n" not in warning
    assert written.stages == [ids(grid)[0], ids(grid)[2]]
    finish(grid, grid.rows[1])  # mended
    export(grid)
    assert written.stages == [ids(grid)[0], ids(grid)[2], ids(grid)[1]]


def test_a_stage_without_its_curve_is_named_too(grid: SyntheticGrid, written: Written) -> None:
    path = f"{grid.folder(grid.rows[0])}/curve.parquet"
    (grid.root / path).unlink()
    assert export(grid, warns=1) == [f"warning: {path}: missing; its run is not written to Weights & Biases"]
    assert written.stages == ids(grid)[1:]


def test_a_record_whose_recipe_is_none_is_named_too(grid: SyntheticGrid, written: Written) -> None:
    grid.done(grid.rows[0], 75.0, recipe="{")
    (warning,) = export(grid, warns=1)
    assert warning.startswith(f"warning: {grid.folder(grid.rows[0])}/record.json: Expecting property name")
    assert written.stages == ids(grid)[1:]


@pytest.mark.parametrize("name", ["written.json", "written.jsonl"])
def test_damaged_marks_are_named(grid: SyntheticGrid, written: Written, name: str) -> None:
    mark = grid.write(f"grids/tiny/wandb/{name}", b"{\n")
    (warning,) = export(grid, warns=1)
    assert f"{mark}: damaged (Expecting" in warning
    assert written.stages == []
    mark.unlink()
    export(grid)
    assert written.stages == ids(grid)


def test_marks_of_earlier_versions_count(grid: SyntheticGrid, written: Written) -> None:
    first, *others = ids(grid)
    grid.write("grids/tiny/wandb/written.json", json.dumps({first: ["offline"], others[0]: ["online"]}).encode())
    export(grid)
    assert written.stages == others


def test_a_stage_that_was_computed_again_is_written_again(grid: SyntheticGrid, written: Written) -> None:
    export(grid)
    again = ids(grid)[1]
    grid.done(grid.rows[1], 33.0)
    export(grid)
    assert written.stages == [*ids(grid), again]


def test_a_mark_that_was_cut_is_of_a_stage_that_is_written_once_more(grid: SyntheticGrid, written: Written) -> None:
    export(grid)
    mark = grid.root / "grids/tiny/wandb/written.jsonl"
    whole = mark.read_bytes()
    assert whole.count(b"\n") == len(ids(grid))
    mark.write_bytes(whole[:-10])
    export(grid)
    assert written.stages == [*ids(grid), ids(grid)[-1]]
    assert mark.read_bytes() == whole


def test_a_grid_without_a_plan_is_a_warning_too(grid: SyntheticGrid, tmp_path: Path, written: Written) -> None:
    export(grid, storage=str(tmp_path / "elsewhere"), warns=1)
    assert written.calls == []


def test_an_error_of_the_launch_is_not_held_up(grid: SyntheticGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, release = threading.Event(), threading.Event()

    def stuck(*args: Any, **options: Any) -> None:
        writing.set()
        release.wait(10)
        raise OSError("the end of this thread's work")

    def launch() -> None:
        with Exporter(grid.storage, "tiny", mode="offline", warn=lambda text: None) as exporter:
            exporter.add_all()
            assert writing.wait(10)
            raise KeyboardInterrupt

    monkeypatch.setattr(wandb_export, "write_run", stuck)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch()
    assert time.monotonic() - started < 5
    release.set()


def test_runs_of_a_storage_by_url_lie_in_the_current_folder(
    grid: SyntheticGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(wandb_export, "write_run", lambda *args, folder, **options: asked.append(folder))
    memory = fsspec.filesystem("memory")
    memory.put(grid.storage, "/wandb-test", recursive=True)
    try:
        export(grid, storage="memory://wandb-test")
    finally:
        memory.rm("/wandb-test", recursive=True)
    assert asked == [tmp_path] * 3  # where wandb makes its folder wandb/


def test_several_storages_are_read_and_the_plans_own_is_written_to(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_summary, "write_summary", lambda *args, **options: None)
    plan, part = (SyntheticGrid(tmp_path / name, seeds=[0]) for name in ("plan", "part"))
    finish(plan, plan.rows[2])
    finish(part, part.rows[0])
    finish(part, part.rows[1])
    (part.root / "grids/tiny/plan.json").unlink()
    storages = ["--storage", part.storage, "--storage", plan.storage]
    assert main(["wandb", "tiny", *storages, "--mode", "offline"]) == 0
    assert capsys.readouterr() == (f"tiny: offline, in {plan.storage}/grids/tiny/wandb\n", "")
    assert written.stages == ids(plan)
    assert (plan.root / "grids/tiny/wandb/written.jsonl").is_file()
    assert not (part.root / "grids/tiny/wandb").exists()


def test_a_storage_in_the_home_folder(tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    grid = SyntheticGrid(tmp_path / "home/x", seeds=[0])
    finish(grid, grid.rows[0])
    export(grid, storage="~/x")
    assert written.stages == ids(grid)[:1]
    assert (grid.root / "grids/tiny/wandb/written.jsonl").is_file()
    assert not (tmp_path / "~").exists()


# Where to and by what name


@pytest.mark.parametrize(("found_a_key", "mode"), [(True, "online"), (False, "offline")])
def test_online_where_wandb_finds_a_key(monkeypatch: pytest.MonkeyPatch, found_a_key: bool, mode: str) -> None:
    asked: list[dict[str, Any]] = []

    def login(**options: Any) -> bool:
        asked.append(options)
        return found_a_key

    monkeypatch.setattr(wandb, "login", login)
    assert default_mode() == mode
    # It neither waits for an answer nor asks the network.
    assert asked == [{"prompt": False, "verify": False}]


@pytest.mark.parametrize(
    ("environment", "asked", "mode"),
    [
        ("offline", None, "offline"),
        ("disabled", None, "disabled"),
        ("disabled", "offline", "offline"),
        ("x", None, None),
    ],
)
def test_the_environment_has_its_say_where_the_caller_has_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str, asked: Any, mode: str | None
) -> None:
    monkeypatch.setenv("WANDB_MODE", environment)
    assert Exporter(str(tmp_path), "none", mode=asked, warn=pytest.fail).mode == mode


def test_disabled_by_the_environment_writes_nothing(
    grid: SyntheticGrid, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    export(grid, mode=None)
    assert written.calls == []


def test_each_mode_is_written_once_however_often_it_changes(grid: SyntheticGrid, written: Written) -> None:
    for mode in ("offline", "online", "offline", "online"):
        export(grid, mode=mode)
    assert sorted(written.calls) == sorted((stage, mode) for stage in ids(grid) for mode in ("offline", "online"))


def test_no_mode_is_the_default_mode(grid: SyntheticGrid, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_export, "default_mode", lambda: "online")
    export(grid, ids(grid)[0], mode=None)
    assert written.calls == [(ids(grid)[0], "online")]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"kind": "teacher", "teacher": "ViT", "student": None}, "teacher ViT"),
        (
            {"kind": "cell", "mode": "baseline", "teacher": None, "student": "ResNet", "seed": 3},
            "ResNet alone, seed 3",
        ),
        (
            {
                "kind": "cell",
                "mode": "distilled",
                "teacher": "ViT",
                "student": "ResNet",
                "seed": 0,
                "temperature": 4.0,
                "alpha": 0.25,
            },
            "ResNet from ViT, seed 0, T 4, alpha 0.25",
        ),
    ],
)
def test_runs_have_titles(row: Row, name: str) -> None:
    assert title(row) == name
