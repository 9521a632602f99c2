"""What part of a GPU a cell gets: by the memory its student was seen to take, and twice as much where that was not
enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from grid.cluster.nodes.capacity import Capacity, Share
from grid.cluster.nodes.packing import Packing, part_of_a_gpu
from grid.plan import Plan, Stage
from grid.plan.schedule import Schedule, StageState
from grid.spec.resources import Resources
from grid.store.store import Store
from grid.work.memory.gpu import FOLDER, Footprint, kept_footprint, memory_key
from grid.work.memory.host import forget_peak, peak_bytes
from kd.methods import METHODS
from tests.conftest import tiny_grid
from tests.kd.methods.own import WithBank

Planner = Callable[..., Plan]


class Nobody:
    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None:
        pass


@pytest.mark.parametrize(
    ("taken", "cells", "gpus", "part"),
    [
        (0.30, 100, 1, 0.3333),  # three fit
        (0.46, 100, 1, 0.5),
        (0.47, 100, 1, 1.0),  # two would leave too little for the rest
        (1.00, 100, 1, 1.0),
        (1.20, 100, 1, 1.0),
        (0.01, 100, 1, 0.0625),  # never more than sixteen
        (0.01, 4, 1, 0.25),  # no more than there are cells
        (0.01, 4, 2, 0.5),  # Ray fills one GPU after the other: each has something to do
        (0.01, 1, 8, 1.0),
        (0.0, 100, 1, 0.0625),
    ],
)
def test_as_many_cells_as_fit_share_a_gpu(taken: float, cells: int, gpus: float, part: float) -> None:
    assert part_of_a_gpu(taken, cells=cells, gpus=gpus) == part
    assert part * int(1 / part) <= 1


def packing(plan: Plan, store: Store, *, gpus: float = 1.0) -> Packing:
    schedule = Schedule(plan, done={plan.data.id}, costs={}, observer=Nobody())
    capacity = Capacity.of([{"CPU": 8.0, "GPU": gpus}], plan.spec.resources)
    return Packing(plan, store, schedule, lambda: capacity)


def keep(store: Store, plan: Plan, label: str, taken: int) -> None:
    cell = next(cell for cell in plan.cells if cell.model.shown == label)
    facts = {"taken": taken, "total": 100, "gpu": "a GPU"}
    store.write(f"{FOLDER}/{memory_key(cell)}.json", json.dumps(facts).encode())


def test_what_was_measured_once_is_kept(tmp_path: Path, tiny_plan: Planner) -> None:
    plan = tiny_plan(resources={"gpus_per_cell": "auto", "cpus_per_cell": 2}, seeds=[0, 1, 2])
    store = Store(str(tmp_path))
    keep(store, plan, "ViT-S", 20)
    keep(store, plan, "ResNet-S", 60)
    found = packing(plan, store)
    found.measure()  # nothing is left to measure: Ray is not even there
    shares = {(cell.model.shown, found.share_of(cell)) for cell in plan.cells}
    assert shares == {("ViT-S", Share(2, 0.25)), ("ResNet-S", Share(2, 1.0))}


def test_a_given_part_and_a_ray_without_gpus_are_taken_as_they_are(tmp_path: Path, tiny_plan: Planner) -> None:
    store = Store(str(tmp_path))
    given = tiny_plan(resources={"gpus_per_cell": 0.5})
    assert packing(given, store).share_of(given.cells[0]) == Share(1, 0.5)
    auto = tiny_plan(resources={"gpus_per_cell": "auto"})
    alone = packing(auto, store, gpus=0)
    alone.measure()
    assert alone.share_of(auto.cells[0]) == Share(1, 0.0)


def test_out_of_memory_doubles_the_part_of_that_student_alone(tmp_path: Path, tiny_plan: Planner) -> None:
    plan = tiny_plan(resources={"gpus_per_cell": 0.3})
    found = packing(plan, Store(str(tmp_path)))
    vit, resnet = (next(c for c in plan.cells if c.model.shown == name) for name in ("ViT-S", "ResNet-S"))
    seen = [found.out_of_memory(vit, share).gpus for share in (Share(1, 0.3), Share(1, 0.6), Share(1, 1.0))]
    assert seen == [0.6, 1.0, 1.0]
    assert found.share_of(vit) == Share(1, 1.0)
    assert found.share_of(resnet) == Share(1, 0.3)
    # One of those that had started with less says it again later: nobody gets less than before.
    assert found.out_of_memory(vit, Share(1, 0.3)).gpus == 1.0


def test_the_memory_is_of_the_model_its_batch_and_its_images(tiny_plan: Planner) -> None:
    def key(**recipe: object) -> str:
        return memory_key(tiny_plan(recipe={**tiny_grid()["recipe"], **recipe}).cells[0])

    assert key() == key(epochs=7) == key(learning_rate=0.5)
    assert len({key(), key(batch_size=10), key(optimizer="sgd"), key(precision="float32"), key(ema_decay=0.9)}) == 5
    plan = tiny_plan()
    by_student = {(cell.model.shown, memory_key(cell)) for cell in plan.cells}
    assert len(by_student) == 2, "whatever the seed, alone or with cached logits"
    online = tiny_plan(targets="online")
    assert len({(cell.model.shown, memory_key(cell)) for cell in online.cells}) == 4, (
        "a teacher beside it takes its own"
    )


def test_the_memory_is_of_what_a_method_learns_beside_the_student(
    tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "with_bank", WithBank)
    methods = ["kd", "dkd", {"name": "with_bank", "momentum": [0.1, 0.2]}]
    cells = [cell for cell in tiny_plan(method=methods).cells if cell.model.shown == "ViT-S" and cell.seed == 0]
    keys = [memory_key(cell) for cell in cells]
    assert len(cells) == 5
    assert len({*keys[:3]}) == 1, "alone, kd and dkd take the same"
    assert len({*keys}) == 3


@pytest.mark.parametrize("data", [b"", b"[]", b'{"taken": 1}', b'{"taken": 1, "total": 2, "gpu": "x", "more": 3}'])
def test_what_cannot_be_read_is_measured_again(tmp_path: Path, tiny_plan: Planner, data: bytes) -> None:
    store, cell = Store(str(tmp_path)), tiny_plan().cells[0]
    assert kept_footprint(cell, store) is None
    store.write(f"{FOLDER}/{memory_key(cell)}.json", data)
    assert kept_footprint(cell, store) is None
    store.write(f"{FOLDER}/{memory_key(cell)}.json", b'{"taken": 1, "total": 2, "gpu": "x"}')
    assert kept_footprint(cell, store) == Footprint(1, 2, "x")


def test_wishes_are_checked() -> None:
    assert Resources(teacher_workers=2).workers == (2, 2)
    assert Resources.model_validate_json('{"teacher_workers": [1, 4]}').workers == (1, 4)
    for wrong in ('{"teacher_workers": [4, 1]}', '{"teacher_workers": [0, 1]}', '{"teacher_workers": [1]}'):
        with pytest.raises(ValueError, match="expected a number of workers, or the fewest and the most"):
            Resources.model_validate_json(wrong)
    for wrong in ('{"gpus_per_cell": "aut"}', '{"gpus_per_cell": -1}', '{"gpus_per_cell": true}'):
        with pytest.raises(ValueError, match=r"expected a number of GPUs, such as 0\.25, or auto"):
            Resources.model_validate_json(wrong)


def test_a_student_that_a_node_had_no_memory_for_gets_the_place_of_more_cpus(
    tiny_plan: Planner, tmp_path: Path
) -> None:
    """Up to a node of its own; other students keep theirs."""
    plan = tiny_plan()
    cells = packing(plan, Store(str(tmp_path)), gpus=0.0)
    one, same, other = (
        next(c for c in plan.cells if c.model.shown == label and c.mode == mode and c.seed == seed)
        for label, mode, seed in (("ViT-S", "baseline", 0), ("ViT-S", "distilled", 1), ("ResNet-S", "baseline", 0))
    )
    share: Share | None = cells.share_of(one)
    assert share == Share(1, 0.0)
    seen = []
    while share is not None:
        seen.append(share.cpus)
        share = cells.out_of_host_memory(one, share)
    assert seen == [1, 2, 4, 8]
    assert cells.share_of(same) == Share(8, 0.0)
    assert cells.share_of(other) == Share(1, 0.0)
    assert cells.out_of_host_memory(other, Share(1, 0.0)) == Share(2, 0.0), "two that were ended together count once"
    assert cells.out_of_host_memory(other, Share(1, 0.0)) == Share(2, 0.0)


def test_what_a_cell_took_of_its_node_is_kept_for_those_that_come(tiny_plan: Planner, tmp_path: Path) -> None:
    plan, store = tiny_plan(), Store(str(tmp_path))
    capacity = Capacity.of([{"CPU": 16.0, "memory": 24.0}], plan.spec.resources)
    schedule = Schedule(plan, done={plan.data.id}, costs={}, observer=Nobody())
    one, other = (next(c for c in plan.cells if c.model.shown == label) for label in ("ViT-S", "ResNet-S"))
    first = Packing(plan, store, schedule, lambda: capacity)
    assert first.share_of(one) == Share(1, 0.0)
    first.took(one, 1)
    assert store.names("") == [], "sixteen of them fit: nobody needs to know"
    for taken in (3, 2):
        first.took(one, taken)
    for packing in (first, Packing(plan, store, schedule, lambda: capacity)):
        assert packing.share_of(one) == Share(1, 0.0, 3), "the most that was seen, of any launch"
        assert packing.share_of(other) == Share(1, 0.0), "of another student nothing is known"


def test_a_process_knows_the_most_memory_that_it_had() -> None:
    size = 300 * 2**20
    forget_peak()
    before = peak_bytes()
    kept = b"\1" * size
    del kept
    assert peak_bytes() - before > 0.9 * size, "though it is given back"
    forget_peak()
    assert peak_bytes() - before < 0.5 * size
