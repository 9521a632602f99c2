"""What counts as done: whole outputs, of the inputs that there are. The rest is computed again, and that is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from analysis import load_grid
from analysis.cli import table
from grid.contract.files.layout import RECORD
from grid.contract.record import CURVE, WEIGHTS, curve_file, weights_file
from grid.launch.books import Books
from grid.launch.launch import Launch, Options
from grid.plan import LogitsStage, Plan, Stage
from grid.store.plan_file import write_plan
from grid.store.records import Value
from grid.store.standing import look, without_damaged_teachers
from grid.store.store import UNREAD, Store
from grid.watch.signs import GridReader
from grid.watch.status import grid_status
from grid.work.publish import publish

Planner = Callable[..., Plan]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    return tiny_plan(seeds=[0])


def leave(store: Store, stage: Stage, *, weights: str = "", **facts: Value) -> None:
    """What a stage leaves, with weights of this text and, of its inputs, the hashes of those that lie there."""
    outputs: dict[str, bytes] = {}
    values = stage.axes()
    if stage.kind in ("teacher", "cell"):
        outputs = {WEIGHTS: f"weights {stage.id} {weights}".encode(), CURVE: f"curve {stage.id} {weights}".encode()}
    if isinstance(stage, LogitsStage):
        values["epochs"] = max(stage.epochs)
        for unit in stage.units:
            store.write(f"{stage.folder}/{unit.file}", bytes(1000))
    teacher = getattr(stage, "teacher", None)
    if teacher is not None:
        values["teacher_sha256"] = store.record(teacher).weights_sha256
    values |= {"dataset_fingerprint": "images", "test_top1_last": 0.5, "finished_at": None, **facts}
    publish(stage, store, values, outputs=outputs)


def leave_all(store: Store, plan: Plan) -> None:
    write_plan(plan, store)
    for stage in plan.stages:
        leave(store, stage)


def ids(*stages: Stage) -> set[str]:
    return {stage.id for stage in stages}


def undone(plan: Plan, store: Store) -> set[str]:
    return ids(*plan.stages) - look(plan, store).done


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


RECORDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "half": (cut, "not a record: "),
    "empty": (lambda data: b"", "not a record: "),
    "of version 99": (
        lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 99'),
        "of schema version 99, newer than this program: update it",
    ),
    "no JSON": (lambda data: b"\0\xff", "not a record: "),
    "of another stage": (
        lambda data: json.dumps({**json.loads(data), "stage_id": "0123456789abcdef"}).encode(),
        "the record of another stage, '0123456789abcdef'",
    ),
    "of files without sizes": (
        lambda data: json.dumps({**json.loads(data), "files": '{"model.safetensors": "big"}'}).encode(),
        "its files are no names with sizes",
    ),
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_damaged_record_is_not_done_and_is_replaced(store: Store, plan: Plan, what: str) -> None:
    leave_all(store, plan)
    assert look(plan, store).lines == ()
    damage, reason = RECORDS[what]
    cell, path = plan.cells[0], f"{plan.cells[0].folder}/{RECORD}"
    damaged = damage(store.read(path))
    store.write(path, damaged)
    stands = look(plan, store)
    assert ids(*plan.stages) - stands.done == {cell.id}
    (line,) = stands.lines
    assert line.startswith(f"{store.location(path)}: {reason}")
    assert "; it is computed again" in line
    leave(store, cell)
    assert undone(plan, store) == set()
    if what in ("half", "empty", "of version 99", "no JSON"):
        assert store.read(f"{cell.folder}/{UNREAD}") == damaged
    assert (UNREAD in line) == (what == "of version 99")


@pytest.mark.parametrize("of", ["weights", "curve"])
@pytest.mark.parametrize("how", ["gone", "half", "empty"])
def test_files_that_are_not_those_of_the_record_are_not_done(store: Store, plan: Plan, of: str, how: str) -> None:
    leave_all(store, plan)
    cell = plan.cells[0]
    record = store.record(cell)
    name = weights_file(record) if of == "weights" else curve_file(record)
    path = f"{cell.folder}/{name}"
    data = store.read(path)
    store.remove(path)
    if how != "gone":
        store.write(path, cut(data) if how == "half" else b"")
    stands = look(plan, store)
    assert ids(*plan.stages) - stands.done == {cell.id}
    size = len(data) // 2 if how == "half" else 0
    reason = (
        "is missing, though its record names it" if how == "gone" else f"has {size} bytes, its record says {len(data)}"
    )
    assert stands.lines == (f"{store.location(path)}: {reason}; it is computed again",)
    write_plan(plan, store)
    facts = GridReader(store, "tiny").read()
    assert facts.problems == (f"{store.location(path)}: {reason}; launch the grid again to have it computed again",)
    assert {s.id for s in grid_status(facts, facts.planned.launched_at).stages if s.state == "waiting"} == {cell.id}
    leave(store, cell)
    assert undone(plan, store) == set()


def test_of_many_damaged_stages_some_are_named(store: Store, tiny_plan: Planner) -> None:
    plan = tiny_plan(seeds=[0, 1, 2])
    leave_all(store, plan)
    trained = [*plan.teachers, *plan.cells]
    for stage in trained:
        store.remove(f"{stage.folder}/{weights_file(store.record(stage))}")
    stands = look(plan, store)
    assert stands.done == ids(*plan.stages) - ids(*trained, *plan.logits)
    assert [line.partition("/model-")[0] for line in stands.lines[:-1]] == [
        store.location(stage.folder) for stage in trained[:5]
    ]
    assert stands.lines[-1] == (
        f"{len(trained) - 5} more stages are damaged, or files of theirs are missing; they are computed again"
    )


def test_a_file_of_logits_that_was_cut_is_not_done(store: Store, plan: Plan) -> None:
    leave_all(store, plan)
    (logits,) = plan.logits
    path = f"{logits.folder}/{logits.units[1].file}"
    store.write(path, bytes(500))
    stands = look(plan, store)
    assert logits.id not in stands.done
    assert stands.lines == (
        f"{store.location(path)}: has 500 bytes, others of these logits have 1000; it is computed again",
    )


def test_a_damaged_identity_is_written_again(store: Store, plan: Plan) -> None:
    leave_all(store, plan)
    cell = plan.cells[0]
    store.claim(cell)
    path = f"{cell.folder}/identity.json"
    whole = store.read(path)
    store.write(path, cut(whole))
    assert store.is_done(cell)
    assert store.read(path) == whole


def of_the_teacher(plan: Plan) -> set[str]:
    return ids(*plan.logits, *(cell for cell in plan.cells if cell.teacher is not None))


def test_a_teacher_that_was_trained_again_makes_its_students_undone(store: Store, plan: Plan) -> None:
    leave_all(store, plan)
    (teacher,), students = plan.teachers, of_the_teacher(plan)
    store.remove(f"{teacher.folder}/{RECORD}")
    stands = look(plan, store)
    assert stands.waits == students
    assert stands.done == ids(*plan.stages) - students - {teacher.id}
    leave(store, teacher, weights="of another training")
    stands = look(plan, store)
    assert (ids(*plan.stages) - stands.done, stands.waits) == (students, frozenset())
    said = (
        f"{store.location(teacher.folder)}: 3 stages learned from another training of teacher ResNet-T than lies there "
        "now; they are computed again"
    )
    assert stands.lines == (said,)
    facts = GridReader(store, "tiny").read()
    assert facts.problems == (said,)
    states = {stage.id: stage.state for stage in grid_status(facts, facts.planned.launched_at).stages}
    assert {stage for stage, state in states.items() if state != "done"} == students
    for stage in plan.stages:
        if stage.id in students:
            leave(store, stage)
    assert undone(plan, store) == set()


def test_the_table_leaves_out_what_learned_from_another_teacher(store: Store, plan: Plan) -> None:
    leave_all(store, plan)
    (teacher,) = plan.teachers
    store.remove(f"{teacher.folder}/{RECORD}")
    assert load_grid(store.url, "tiny").problems == [], "which teacher comes is not known yet"
    leave(store, teacher, weights="of another training")
    grid = load_grid(store.url, "tiny")
    status = dict(grid.cells.select("stage_id", "status").iter_rows())
    assert {stage for stage, what in status.items() if what == "missing"} == of_the_teacher(plan) - ids(*plan.logits)
    said = (
        f"teachers/{teacher.id}: 3 results were learned from another training of this teacher than lies there now: "
        "left out; launch the grid again to have them computed again"
    )
    assert grid.problems == [said]
    shown = table(store.url, "tiny")
    assert f"Left out: {said}" in shown.replace("**", "").replace("*", "").replace("\\", "")
    assert grid.gains()["gain_mean_points"].to_list() == [None, None]


def test_other_images_make_undone_what_learned_from_the_old_ones(store: Store, plan: Plan) -> None:
    leave_all(store, plan)
    store.remove(f"{plan.data.folder}/{RECORD}")
    assert look(plan, store).waits == ids(*plan.stages) - {plan.data.id}
    leave(store, plan.data, dataset_fingerprint="others")
    stands = look(plan, store)
    assert stands.done == {plan.data.id}
    (line,) = stands.lines
    assert line == (
        f"{store.location(plan.data.folder)}: {len(plan.stages) - 1} stages learned from other images of data set "
        "digits than lies there now; they are computed again"
    )
    assert {*load_grid(store.url, "tiny").cells["status"]} == {"missing"}


def test_records_that_do_not_say_what_they_used_are_accepted(store: Store, plan: Plan) -> None:
    leave_all(store, plan)
    for stage in plan.stages:
        path = f"{stage.folder}/{RECORD}"
        record = json.loads(store.read(path))
        older = {k: v for k, v in record.items() if k not in ("teacher_sha256", "dataset_fingerprint")}
        store.write(path, json.dumps(older).encode())
    (teacher,) = plan.teachers
    store.remove(f"{teacher.folder}/{RECORD}")
    leave(store, teacher, weights="of another training")
    stands = look(plan, store)
    assert (stands.done, stands.lines) == (ids(*plan.stages), ())


@pytest.mark.parametrize("targets", ["cached", "online"])
def test_a_teacher_whose_weights_are_damaged_is_trained_again_before_it_teaches(
    store: Store, tiny_plan: Planner, targets: str
) -> None:
    plan = tiny_plan(seeds=[0], targets=targets)
    leave_all(store, plan)
    (teacher,) = plan.teachers
    path = f"{teacher.folder}/{weights_file(store.record(teacher))}"
    data = store.read(path)
    store.write(path, data[:-1] + bytes([data[-1] ^ 1]))
    stands = look(plan, store)
    assert without_damaged_teachers(plan, store, stands) == stands, "nobody is about to load them"
    store.remove(f"{plan.cells[-1].folder}/{RECORD}")
    if plan.logits:
        store.remove(f"{plan.logits[0].folder}/{plan.logits[0].units[0].file}")
    stands = without_damaged_teachers(plan, store, look(plan, store))
    assert teacher.id not in stands.done
    assert stands.lines == (
        f"{store.location(path)}: damaged: these are not the weights of its record; it is computed again",
    )
    assert not [name for name in store.names(teacher.folder) if name.startswith("lease")]
    leave(store, teacher)
    assert store.read(path) == data
    assert teacher.id in look(plan, store).done


@pytest.mark.parametrize("weights", ["", "of another training"])
def test_students_are_reused_once_their_teacher_is_the_same_again(
    store: Store, plan: Plan, tmp_path: Path, weights: str
) -> None:
    """And computed again once it is not: that shows only when it is trained."""
    leave_all(store, plan)
    (teacher,), students = plan.teachers, of_the_teacher(plan)
    store.remove_folder(teacher.folder)
    stands = look(plan, store)
    launch = Launch.of(plan, store, Options())
    with open(tmp_path / "said", "w") as said:
        console = Console(file=said, width=400)
        books = Books(launch, console, done=stands.done, waits=stands.waits, costs={}, on_done=lambda stage: None)
        assert books.start(teacher)
        leave(store, teacher, weights=weights, launch=launch.name)
        books.finish(teacher, None)
    outcome = books.outcome
    states = books.schedule.states()
    reused = weights == ""
    assert {states[stage] for stage in students} == {"reused" if reused else "waiting"}
    assert (outcome.done, outcome.reused) == (1, len(plan.stages) - 1 - (0 if reused else len(students)))
    assert ("learned from another training of teacher ResNet-T" in (tmp_path / "said").read_text()) is not reused
