"""What a person sees: plain lines when piped, an estimate once something is known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from grid.plan import Plan
from grid.store.records import make_record, record_to_json
from grid.store.store import Store
from grid.watch.progress import Reporter, TimeLeft
from tests.conftest import tiny_grid

Planner = Callable[..., Plan]


def test_a_stage_is_expected_to_take_what_its_like_took(tiny_plan: Planner) -> None:
    cells = tiny_plan().cells
    time_left = TimeLeft({cell.id: 1.0 for cell in cells})
    assert time_left.seconds_for(list(cells), {}) is None
    first = cells[0]
    time_left.add(first, 8.0)
    alike = [cell for cell in cells if cell.model == first.model]
    assert [time_left.expected_seconds(cell) for cell in alike] == [8.0] * 4  # baseline or distilled, whatever the seed
    other = next(cell for cell in cells if cell.model != first.model)
    assert time_left.expected_seconds(other) == 8.0  # by its share of the work
    time_left.costs = {**time_left.costs, other.id: 0.25}
    assert time_left.expected_seconds(other) == 2.0


def test_a_cell_with_an_online_teacher_is_not_expected_to_take_what_a_baseline_took(tiny_plan: Planner) -> None:
    cells = tiny_plan(targets="online", students=tiny_grid()["students"][:1]).cells
    time_left = TimeLeft({cell.id: 5.0 if cell.teacher else 1.0 for cell in cells})
    alone, taught = (next(cell for cell in cells if cell.mode == mode) for mode in ("baseline", "distilled"))
    time_left.add(alone, 8.0)
    assert time_left.expected_seconds(taught) == 40.0  # by its share of the work
    time_left.add(taught, 20.0)
    assert (time_left.expected_seconds(alone), time_left.expected_seconds(taught)) == (8.0, 20.0)


def test_the_time_left_shares_the_work_among_the_slots_but_no_stage(tiny_plan: Planner) -> None:
    cells = tiny_plan().cells
    time_left = TimeLeft({cell.id: 1.0 for cell in cells})
    time_left.add(cells[0], 10.0)
    time_left.slots = 2
    assert time_left.seconds_for(list(cells[1:4]), {}) == 15.0
    assert time_left.seconds_for([], {cells[1].id: (cells[1], 0.25)}) == 7.5
    time_left.slots = 100
    assert time_left.seconds_for(list(cells[1:4]), {}) == 10.0


def test_the_time_left_counts_what_lies_between_short_stages(tiny_plan: Planner) -> None:
    plan = tiny_plan(seeds=[*range(20)])
    time_left = TimeLeft({})
    time_left.slots = 2
    time_left.add(plan.data, 5.0, at=0.0)
    waiting = list(plan.cells[40:])
    for number, cell in enumerate(plan.cells[:40]):  # two at a time, each of half a second, every two seconds
        time_left.add(cell, 0.5, at=100.0 + 2.0 * (number // 2))
        if number == 5:
            assert time_left.seconds_for(waiting, {}) == len(waiting) * 0.5 / 2, "too few to tell"
    assert time_left.seconds_for(waiting, {}) == pytest.approx(2.0 * len(waiting) / 2, rel=0.05)


def test_piped_it_prints_a_plain_line_for_each_stage(tiny_plan: Planner, tmp_path: Path) -> None:
    plan, store, out = tiny_plan(seeds=[0]), Store(str(tmp_path)), io.StringIO()
    data, teacher = plan.data, plan.teachers[0]
    record = make_record({"status": "done", "test_top1_last": 0.913, "seconds_total": 3.25})
    store.write(f"{teacher.folder}/record.json", record_to_json(record))
    console = Console(file=out, width=10_000)
    with Reporter(plan, store, console, done={data.id}, costs={stage.id: 1.0 for stage in plan.stages}) as reporter:
        reporter.on_change(teacher, "running", None)
        reporter.on_change(teacher, "done", None)
        reporter.on_change(plan.logits[0], "failed", "OSError: [Errno 28] No space left on device")
        reporter.on_change(plan.cells[1], "blocked", "not run: logits failed")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("[1/6 ")
    assert "teacher ResNet-T: top-1 91.30 % in 3.2 s; about " in lines[0]
    assert "logits of teacher ResNet-T: FAILED: OSError: [Errno 28] No space left on device" in lines[1]
    assert "ViT-S from ResNet-T, seed 0: not run: logits failed" in lines[2]
    assert "\x1b" not in out.getvalue()


def test_what_a_record_finds_odd_is_said_below_its_line(tiny_plan: Planner, tmp_path: Path) -> None:
    plan, store, out = tiny_plan(seeds=[0]), Store(str(tmp_path)), io.StringIO()
    teacher = plan.teachers[0]
    record = make_record({"status": "done", "test_top1_last": 0.0, "warning": "its classes stand in another order"})
    store.write(f"{teacher.folder}/record.json", record_to_json(record))
    with Reporter(plan, store, Console(file=out, width=10_000), done={plan.data.id}, costs={}) as reporter:
        reporter.on_change(teacher, "running", None)
        reporter.on_change(teacher, "done", None)
    lines = out.getvalue().splitlines()
    assert "teacher ResNet-T: top-1 0.00 %" in lines[0]
    assert lines[1] == "warning: teacher ResNet-T: its classes stand in another order"


def test_bars_follow_what_workers_publish(tiny_plan: Planner, tmp_path: Path) -> None:
    """Epochs with their parts for what is trained, views for logits; what cannot be read changes nothing."""
    plan, store = tiny_plan(seeds=[0]), Store(str(tmp_path))
    cell, logits = plan.cells[0], plan.logits[0]
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with Reporter(plan, store, console, done={plan.data.id}, costs={}) as reporter:
        for stage, done in ((cell, 1.5), (logits, 1)):
            reporter.on_change(stage, "running", None)
            store.write(f"{stage.folder}/progress.json", json.dumps({"done": done, "total": 2}).encode())
            reporter._poll(stage)
        for garbage in (b"", b"[]", b'{"done": 1}', b'{"done": null, "total": 2}'):
            store.write(f"{cell.folder}/progress.json", garbage)
            reporter._poll(cell)
        assert reporter._bars is not None
        seen = [(task.completed, task.total, task.fields["unit"]) for task in reporter._bars.tasks]
        assert seen[1:] == [(1.5, 2, "epochs"), (1, 2, "views")]
        assert [fraction for _, fraction in reporter.running.values()] == [0.75, 0.5]


def test_on_a_terminal_the_lines_stand_above_the_bars(tiny_plan: Planner, tmp_path: Path) -> None:
    plan, store, out = tiny_plan(seeds=[0]), Store(str(tmp_path)), io.StringIO()
    cell = plan.cells[0]
    store.write(f"{cell.folder}/record.json", record_to_json(make_record({"status": "done"})))
    console = Console(file=out, width=120, force_terminal=True)
    with Reporter(plan, store, console, done={plan.data.id}, costs={}) as reporter:
        reporter.on_change(cell, "running", None)
        assert reporter._bars is not None
        assert [task.description for task in reporter._bars.tasks] == ["[bold]grid", "  ViT-S alone, seed 0"]
        reporter.on_change(cell, "done", None)
        assert [task.description for task in reporter._bars.tasks] == ["[bold]grid"]
    assert "ViT-S alone, seed 0:" in out.getvalue()


def test_bars_on_a_narrow_terminal_fold_titles_and_cut_none(tiny_plan: Planner, tmp_path: Path) -> None:
    plan, file = tiny_plan(), io.StringIO()
    terminal = {"TERM": "xterm"}
    console = Console(file=file, width=40, force_terminal=True, color_system=None, _environ=terminal)
    with Reporter(plan, Store(str(tmp_path)), console, done=set(), costs={}) as reporter:
        for cell in plan.cells[:4]:
            reporter.on_change(cell, "running", None)
        assert reporter._bars is not None
        reporter._bars.refresh()
    told = Text.from_ansi(file.getvalue()).plain
    assert "…" not in told
    for label in ("ViT-S", "ResNet-S"):
        assert label in told
