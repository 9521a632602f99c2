"""How a grid stands, from storages written by hand, with chosen times (tests/cluster has a real launch)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

import launch
from grid.errors import UserError
from grid.plan import Plan
from grid.store.lease import Holder
from grid.store.store import Store
from grid.watch.progress import TimeLeft
from grid.watch.signs import GridReader
from grid.watch.status import grid_status
from tests.conftest import tiny_grid
from tests.grid.written import NOW, Written, ago, alone, taught
from tests.launching import ROOT, write_grid

Planner = Callable[..., Plan]


@pytest.fixture
def written(tiny_plan: Planner, tmp_path: Path) -> Written:
    """The plan of a data set, a teacher, its logits, and two students each alone and taught, launched hours ago."""
    return Written(tiny_plan(seeds=[0]), str(tmp_path))


@pytest.fixture
def in_memory() -> Iterator[str]:
    url = "memory://status"
    yield url
    fs = fsspec.filesystem("memory")
    if fs.exists("/status"):
        fs.rm("/status", recursive=True)


def test_a_grid_in_the_middle(written: Written) -> None:
    plan = written.plan
    first, second = alone(plan)
    written.done(plan.data, seconds_total=1.0)
    written.done(plan.teachers[0], seconds_total=100.0, device_seconds=90.0, device="GPU")
    written.done(first, seconds_total=40.0, device_seconds=30.0, device="GPU")
    written.progress(plan.logits[0], 1, 2, at=ago(seconds=5), started_at=ago(seconds=65))
    written.progress(taught(plan)[0], 0.5, 2, at=ago(minutes=4), started_at=ago(minutes=10))
    written.failed(second, "OSError: [Errno 28] No space left on device")
    assert written.told() == [
        f"Grid tiny in {written.store.url}, launched 3 h 0 min ago",
        "  data set        1 of 1 done",
        "  teachers        1 of 1 done",
        "  teacher logits  0 of 1 done, 1 running",
        "  cells           1 of 4 done, 1 running, 1 failed, 1 waiting",
        "",
        "Running:",
        "  logits of teacher ResNet-T: 1 of 2 views on node-3, for 1 min 5 s",
        "  ViT-S from ResNet-T, seed 0: epoch 1 of 2 on node-3, for 10 min; last sign of life 4 min ago",
        "",
        "Failed:",
        f"  ResNet-S alone, seed 0: OSError: [Errno 28] No space left on device ({second.folder}/failure.txt)",
        "",
        "Device time used by what is done: 2 min on GPU",
        "About 30 s left, 2 at a time, not counting 2 stages of which none alike is done yet",
    ]
    assert not written.status().is_well


def test_the_time_left_is_what_their_like_took_shared_by_how_many_run(written: Written) -> None:
    plan = written.plan
    vit, resnet = alone(plan)
    written.done(plan.data, *plan.teachers, *plan.logits, seconds_total=500.0)
    written.done(vit)
    written.progress(taught(plan)[0], 0.5, 2, at=ago(seconds=1))
    assert written.told()[-1] == "No estimate yet of the time left, 1 at a time"  # how long it took is not known
    written.done(vit, seconds_total=40.0)
    written.done(resnet, seconds_total=100.0)
    vit, resnet = taught(plan)
    written.progress(vit, 0.5, 2, at=ago(seconds=1))
    assert written.status().seconds_left == 0.75 * 40 + 100
    written.progress(resnet, 1, 2, at=ago(seconds=1))
    assert written.status().seconds_left == max((0.75 * 40 + 0.5 * 100) / 2, 0.5 * 100)
    assert written.told()[-1] == "About 50 s left, 2 at a time"
    assert written.status().is_well


def test_the_time_left_is_what_the_launch_says(tiny_plan: Planner, tmp_path: Path) -> None:
    """Of short cells what lies between them counts, too: two at a time, each of half a second, every two seconds."""
    plan = tiny_plan(seeds=[*range(20)])
    written, launch = Written(plan, str(tmp_path)), TimeLeft({})
    launch.slots = 2
    written.done(plan.data, *plan.teachers, *plan.logits)
    written.done(plan.cells[0], seconds_total=1.0, finished_at=ago(hours=9))  # by an earlier launch
    launch.add(plan.cells[0], 1.0)
    for number, cell in enumerate(plan.cells[1:41]):
        ended = 60 - 2 * (number // 2)
        written.done(cell, seconds_total=0.5, finished_at=ago(seconds=ended))
        launch.add(cell, 0.5, at=1000.0 - ended)
    first, second, *waiting = plan.cells[41:]
    written.lease(first, 1, at=ago(seconds=1))
    written.lease(second, 1, at=ago(seconds=1))
    told = launch.seconds_for([*waiting], {stage.id: (stage, 0.0) for stage in (first, second)})
    assert written.status().seconds_left == pytest.approx(told)
    assert told == pytest.approx(39 * 2 / 2, rel=0.1)
    written.store.remove(f"{second.folder}/lease-0001.json")  # looked at between two stages
    assert written.status().seconds_left == pytest.approx(told)


def test_what_tells_nothing_for_half_an_hour_may_have_ended(written: Written) -> None:
    cell = alone(written.plan)[0]
    written.progress(cell, 1.2, 2, at=ago(minutes=30))
    assert written.state(cell) == "running"
    written.progress(cell, 1.2, 2, at=ago(minutes=30, seconds=1))
    assert written.state(cell) == "silent"
    written.progress(cell, 1.2, 2, at=ago(hours=2))
    told = written.told()
    assert "  ViT-S alone, seed 0: epoch 2 of 2 on node-3; no sign for 2 h 0 min: ended?" in told
    assert "  cells           0 of 4 done, 1 without a sign of life, 3 waiting" in told
    assert told[-1] == "Nothing runs; last sign of life 2 h 0 min ago. To go on: GO ON"
    assert not written.status().is_well


@pytest.mark.parametrize(("seconds", "state"), [(59, "running"), (61, "silent")])
def test_a_lease_is_believed_for_a_minute_whatever_the_progress_says(
    written: Written, seconds: int, state: str
) -> None:
    cell = alone(written.plan)[0]
    written.progress(cell, 1, 2, at=ago(seconds=120 - seconds), started_at=ago(minutes=5))
    written.lease(cell, 9, at=ago(hours=1), host="node-1")
    written.lease(cell, 10, at=ago(seconds=seconds))
    (stage,) = written.status().of("running", "silent")
    assert stage.state == state
    assert stage.sign is not None
    assert (stage.sign.host, stage.sign.fraction) == ("node-7", 0.5)


def test_a_process_of_this_machine_that_has_ended_runs_nothing(written: Written) -> None:
    cell = alone(written.plan)[0]
    here = asdict(Holder.here("launch-1"))
    written.lease(cell, 1, **here | {"at": ago(seconds=1)})
    assert written.state(cell) == "running"
    written.lease(cell, 2, **here | {"born": "1", "at": ago(seconds=1)})
    assert written.state(cell) == "silent"


def test_a_data_set_has_a_lease_and_no_progress(written: Written) -> None:
    written.lease(written.plan.data, 1, at=ago(seconds=3), started_at=ago(seconds=20))
    assert "  data set digits: at work on node-7, for 20 s" in written.told()


def test_a_failed_stage_runs_again_once_it_tells_so_after_the_failure(written: Written) -> None:
    cell = alone(written.plan)[0]
    written.failed(cell, "OSError", finished_at=ago(minutes=10))
    written.progress(cell, 1, 2, at=ago(minutes=10))
    assert written.state(cell) == "failed"
    written.progress(cell, 1, 2, at=ago(minutes=9))
    assert written.state(cell) == "running"
    written.lease(cell, 1, at=ago(seconds=30), launch="launch-1")
    assert written.state(cell) == "failed"  # its lease outlives what failed under it
    written.lease(cell, 2, at=ago(seconds=20), launch="launch-2")
    assert written.state(cell) == "running"


def test_what_failed_in_an_earlier_launch_waits_for_the_one_that_runs(written: Written) -> None:
    failing, other = alone(written.plan)
    written.failed(failing, "OSError", finished_at=ago(hours=4))
    assert written.state(failing) == "failed"
    written.progress(other, 1, 2, at=ago(seconds=5))
    assert written.state(failing) == "waiting"
    written.failed(failing, "OSError", finished_at=ago(hours=2))
    assert written.state(failing) == "failed"


def test_what_needs_a_failed_stage_does_not_wait(written: Written) -> None:
    plan = written.plan
    written.done(plan.data, *alone(plan))
    written.failed(plan.teachers[0], "RuntimeError: no")
    status = written.status()
    assert [stage.state for stage in status.stages] == ["done", "failed", "blocked", *["done", "blocked"] * 2]
    assert status.is_over
    assert "  cells           2 of 4 done, 2 not run because of a failure" in written.told()
    assert written.told()[-1] == "Nothing else can run. To retry what failed: GO ON"
    assert not status.is_well


def test_a_launch_that_starts_runs_already(written: Written) -> None:
    assert written.told()[-1] == "Nothing runs; last sign of life 3 h 0 min ago. To go on: GO ON"
    assert not written.status().is_well
    written.change(written_at=ago(seconds=50))
    assert "No stage runs at this moment; last sign of life 50 s ago" in written.told()[-1]
    assert written.status().is_well


def test_a_done_grid_needs_none_of_its_logits(written: Written) -> None:
    plan = written.plan
    written.done(plan.data, *plan.teachers, *plan.cells)
    told = written.told()
    assert "  teacher logits  0 of 1 done, 1 not needed any more" in told
    assert told[-1] == "Done. To see the table: RESULTS"
    assert written.status().is_well


def test_logits_are_done_with_all_views_of_this_training_of_the_teacher(written: Written) -> None:
    plan = written.plan
    logits = plan.logits[0]
    written.done(plan.teachers[0], logits)
    assert written.state(logits) == "done"
    written.done(plan.teachers[0], weights_sha256="another training")
    assert written.state(logits) == "waiting"
    written.done(plan.teachers[0])
    written.store.remove(f"{logits.folder}/{logits.units[-1].file}")
    written.progress(logits, 1, 2, at=ago(seconds=2))
    assert written.state(logits) == "running"  # as where another grid's schedule was shorter


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("record.json", b'{"schema_version"', "not a record"),
        ("record.json", b'{"schema_version": 99}', "of schema version 99"),
        ("record.json", b'{"schema_version": 1, "finished_at": "soon"}', "soon"),
        ("failure.json", b"[]", "not a record"),
        ("progress.json", b"", "Expecting value"),
        ("progress.json", b'{"done": 1, "total": 0, "at": "2026-05-04T11:59:59+00:00"}', "1 of 0 is no progress"),
        ("progress.json", b'{"done": NaN, "total": 2, "at": "2026-05-04T11:59:59+00:00"}', "done is not finite"),
        ("progress.json", b'{"done": 1, "total": 2}', "None is no time"),
        ("progress.json", b'{"done": 1, "total": 2, "at": 7}', "7 is no time"),
        ("lease-0001.json", b"null", "not an object of JSON"),
        ("lease-0001.json", b'{"at": "now"}', "now"),
    ],
)
def test_a_damaged_file_is_named_and_passed_over(written: Written, file: str, damage: bytes, words: str) -> None:
    cell, other = alone(written.plan)
    written.done(other)
    written.store.write(f"{cell.folder}/{file}", damage)
    status = written.status()
    assert [stage.state for stage in status.stages if stage.kind == "cell"].count("waiting") == 3
    (problem,) = status.problems
    assert f"{cell.folder}/{file}: " in problem
    assert words in problem
    assert f"  {problem}" in written.told()


def test_a_plan_of_another_version_is_told_by_ids_and_kinds(written: Written) -> None:
    plan = written.plan
    written.done(plan.data, alone(plan)[0], seconds_total=5.0)
    written.progress(alone(plan)[1], 1, 2, at=ago(seconds=5))
    spec = json.loads(plan.spec.model_dump_json())
    for other in ({**spec, "seeds": [7]}, {**spec, "modes": ["imitated"]}, {}, None):
        written.change(spec=other)
        told = written.told()
        assert "  cells           1 of 4 done, 1 running, 2 waiting" in told
        assert f"  cell {alone(plan)[1].id}: epoch 2 of 2 on node-3, for 2 h 0 min" in told
        assert told[-1] == "No estimate yet of the time left, 1 at a time"


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"schema_version": 2}', b'{"schema_version": 1, "stages": []}'])
def test_a_plan_that_cannot_be_read_is_one_line(written: Written, damage: bytes) -> None:
    written.store.write(written.path, damage)
    with pytest.raises(UserError, match=re.escape(written.path)):
        written.status()


def test_names_and_errors_are_shown_as_they_are_on_one_line(tiny_plan: Planner, tmp_path: Path) -> None:
    students = [{**tiny_grid()["students"][0], "label": "[red]ViT \\[é]"}]
    written = Written(tiny_plan(seeds=[0], students=students), str(tmp_path))
    cell = alone(written.plan)[0]
    written.failed(cell, "ValueError: [/] \x1b[31m\n\x07")
    assert (
        f"  [red]ViT \\[é] alone, seed 0: ValueError: [/] \\x1b[31m \\x07 ({cell.folder}/failure.txt)" in written.told()
    )


def test_long_lists_are_cut_where_asked(written: Written) -> None:
    for cell in written.plan.cells:
        written.progress(cell, 1, 2, at=ago(seconds=5))
    assert "  ... and 1 more" in written.told(limit=3)
    assert "  ... and 1 more" not in written.told()


def test_what_is_done_is_read_once(written: Written) -> None:
    reader = GridReader(written.store, "tiny")
    first, second = alone(written.plan)
    written.done(first)
    assert grid_status(reader.read(), NOW).stages[3].state == "done"
    written.store.write(f"{first.folder}/record.json", b"read again")
    written.done(second)
    status = grid_status(reader.read(), NOW)
    assert len(status.of("done")) == 2
    assert not status.problems


def test_a_storage_by_url_is_read_and_left_as_it_is(tiny_plan: Planner, in_memory: str) -> None:
    written = Written(tiny_plan(seeds=[0]), in_memory)
    plan = written.plan
    written.done(plan.data, *plan.teachers, *plan.logits, alone(plan)[0])
    written.progress(alone(plan)[1], 1, 2, at=ago(seconds=5))
    before = written.store._fs.find("/status")
    assert [stage.state for stage in written.status().stages] == ["done"] * 4 + ["waiting", "running", "waiting"]
    assert written.store._fs.find("/status") == before


# The command.


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    status = launch.main(argv)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_without_a_name_it_is_the_grid_launched_last(
    tiny_plan: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ("--storage", str(tmp_path))
    Written(tiny_plan(name="newer"), str(tmp_path), at=ago(hours=1))
    Written(tiny_plan(name="older"), str(tmp_path), at=ago(hours=2))
    Store(str(tmp_path)).write("grids/zzz/plan.json", b"damaged")
    status, text = shown(capsys, "--status", *storage)
    assert (status, text.splitlines()[0].split(",")[0]) == (1, f"Grid newer in {tmp_path}")
    assert f"{tmp_path}/grids/zzz/plan.json: not a plan" in text
    assert "To go on: python launch.py --grid FILE --storage" in text
    assert "Grid older" in shown(capsys, "--status", "older", *storage)[1]
    file = write_grid(tmp_path, tiny_grid(name="older"))
    for argv in (("--status", file), ("--status", "--grid", file)):
        status, text = shown(capsys, *argv, *storage)
        assert "Grid older" in text
        assert f"To go on: python launch.py --grid {file} --storage {tmp_path}\n" in text


def test_a_named_grid_is_gone_on_with_as_it_was_launched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from grid.plan import make_plan
    from grid.read.grid_file import load_grid

    for overrides, hint in (([], ""), (["seeds=[0]"], " (with the --set and --data that it was launched with)")):
        Written(make_plan(load_grid("digits", overrides)), str(tmp_path))
        _, text = shown(capsys, "--status", "digits", "--storage", str(tmp_path))
        assert f"To go on: python launch.py --grid digits --storage {tmp_path}{hint}\n" in text


def test_a_grid_whose_images_are_elsewhere_is_shown_all_the_same(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = {"name": "pets", "folder": str(tmp_path / "on another machine"), "test_size": 9}
    file = write_grid(tmp_path, tiny_grid(dataset=pets))
    status, text = shown(capsys, "--status", file, "--storage", written.store.url)
    assert (status, text.splitlines()[0].split(",")[0]) == (1, f"Grid tiny in {written.store.url}")


def test_exit_statuses(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--status", "tiny", "--storage", written.store.url)
    written.progress(alone(written.plan)[0], 1, 2, at=datetime.now(UTC).isoformat())
    assert shown(capsys, *argv)[0] == 0
    written.failed(alone(written.plan)[1], "OSError")
    assert shown(capsys, *argv)[0] == 1
    written.done(*written.plan.stages)
    status, text = shown(capsys, *argv)
    assert (status, text.splitlines()[-1]) == (
        0,
        f"Done. To see the table: python -m analysis table tiny --storage {written.store.url}",
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--status", "tinny"], ["no grid 'tinny' was run in", "there are tiny"]),
        (["--status", "../tiny"], ["no grid '../tiny' was run in"]),
        (["--status", "none.yaml"], ["none.yaml: no such file"]),
        (["--status", "tiny", "--grid", "digits"], ["--status alone"]),
        (["--watch", "--grid", "digits"], ["--watch is for --status"]),
        (["--status", "--storage", "{tmp}/empty"], ["no grid was run in", "run python launch.py --grid digits"]),
        (["--status", "x", "--storage", "{tmp}/empty"], ["no grid 'x' was run in", "there is none"]),
        (["--status", "--storage", "{tmp}/file"], ["cannot be read: Not a directory"]),
        (["--status", "--storage", "nosuch://x"], ["--storage nosuch://x"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    argv = [part.format(tmp=tmp_path) for part in argv]
    status, text = shown(capsys, *argv, *([] if "--storage" in argv else ["--storage", str(tmp_path)]))
    assert (status, text.count("\n")) == (2, 1)
    for word in words:
        assert word in text


def test_watching_ends_with_the_grid_or_with_ctrl_c(
    written: Written, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("--status", "tiny", "--watch", "--storage", written.store.url)
    *most, last = written.plan.stages
    written.done(*most)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            written.done(last)

    monkeypatch.setattr("grid.watch.show_status.time.sleep", sleep)
    status, text = shown(capsys, *argv)
    assert (status, len(slept)) == (0, 2)
    assert text.count("Grid tiny") == 1  # piped, the end alone
    assert "  cells           4 of 4 done" in text

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    written.store.remove(f"{last.folder}/record.json")
    monkeypatch.setattr("grid.watch.show_status.time.sleep", interrupt)
    status, text = shown(capsys, *argv)
    assert status == 0
    assert "interrupted" not in text


def test_it_needs_neither_ray_nor_torch(written: Written) -> None:
    code = (
        f"import sys, launch; launch.main(['--status', '--storage', {written.store.url!r}]); "
        "print(*sorted({'torch', 'timm', 'ray', 'polars', 'wandb', 'sklearn', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Grid tiny in" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
