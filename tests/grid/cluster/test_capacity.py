"""What fits on the nodes: teachers' lanes, cells beside them, and what never can is refused."""

from __future__ import annotations

from typing import Any

import pytest

from grid.cluster.nodes.capacity import Capacity, Share
from grid.errors import UserError
from grid.spec.resources import Resources


def capacity(nodes: list[tuple[float, float]], **wanted: Any) -> Capacity:
    return Capacity.of([{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes], Resources(**wanted))


@pytest.mark.parametrize(
    ("nodes", "wanted", "lanes", "beside", "alone"),
    [
        ([(2, 0)], {}, 1, 1, 2),
        ([(1, 0)], {}, 1, 0, 1),
        ([(8, 0)], {}, 2, 6, 8),
        ([(8, 0)], {"concurrency": 3}, 2, 3, 3),
        ([(8, 0)], {"cpus_per_cell": 3}, 2, 2, 2),
        ([(4, 0), (4, 0)], {"cpus_per_cell": 3}, 2, 2, 2),  # a cell does not spread over nodes
        ([(8, 0)], {"teacher_workers": 4}, 1, 4, 8),
        ([(16, 2)], {}, 1, 4, 8),  # a GPU a teacher, a quarter of one a cell
        ([(16, 2)], {"gpus_per_cell": 1, "gpus_per_teacher_worker": 0.5}, 2, 1, 2),
        ([(16, 2)], {"gpus_per_cell": 0, "gpus_per_teacher_worker": 0}, 2, 14, 16),
    ],
)
def test_lanes_and_slots(
    nodes: list[tuple[float, float]], wanted: dict[str, Any], lanes: int, beside: int, alone: int
) -> None:
    has = capacity(nodes, **wanted)
    assert (has.lanes(2), has.slots(has.lanes(2)), has.slots(0)) == (lanes, beside, alone)


@pytest.mark.parametrize(
    ("nodes", "wanted", "who"),
    [
        ([(2, 0)], {"cpus_per_cell": 3}, "a cell"),
        ([(4, 0), (4, 0)], {"cpus_per_cell": 5}, "a cell"),
        ([(4, 1), (4, 1)], {"gpus_per_cell": 2}, "a cell"),
        ([(2, 0)], {"teacher_workers": 3}, "a teacher"),
        ([(2, 0)], {"gpus_per_teacher_worker": 1}, "a teacher"),
    ],
)
def test_what_can_never_be_placed_is_refused(
    nodes: list[tuple[float, float]], wanted: dict[str, Any], who: str
) -> None:
    with pytest.raises(UserError, match=f"^{who} asks for .* Ray's nodes offer .* lower the grid's resources"):
        capacity(nodes, **wanted)


@pytest.mark.parametrize(
    ("share", "nodes", "workers"),
    [
        (Share(1, 0.0), [(3, 0)], 3),
        (Share(2, 0.0), [(5, 0)], 2),
        (Share(2, 0.0), [(1, 0)], 0),
        (Share(2, 0.0), [(3, 0), (3, 0)], 2),  # none on two nodes
        (Share(1, 1.0), [(8, 2)], 2),
        (Share(4, 1.0), [(7, 2)], 1),
        (Share(1, 0.25), [(8, 2)], 8),
        (Share(1, 0.4), [(8, 2)], 4),  # a part is of one GPU
        (Share(1, 0.5), [(8, 0)], 0),
        (Share(1, 1.0), [(4, 2), (1, 0)], 2),
    ],
)
def test_how_many_workers_fit_where_nothing_else_runs(
    share: Share, nodes: list[tuple[float, float]], workers: int
) -> None:
    has = Capacity.of([{"CPU": 1.0, "GPU": 1.0}], Resources())
    assert has.on([{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes]).room_for(share) == workers


@pytest.mark.parametrize(
    ("nodes", "wanted", "taken", "held"),
    [
        ([(16, 24)], {}, 1, 0),  # sixteen of them fit
        ([(16, 24)], {}, 2, 2),
        ([(16, 24)], {"concurrency": 12}, 2, 0),
        ([(16, 24)], {"cpus_per_cell": 2}, 2, 0),
        ([(16, 24)], {}, 30, 24),  # none fits: one at a time is the best there is
        ([(2, 24), (16, 24)], {}, 2, 2),
        ([(2, 24)], {}, 2, 0),
    ],
)
def test_cells_hold_memory_where_they_would_crowd_a_node(
    nodes: list[tuple[float, float]], wanted: dict[str, Any], taken: int, held: int
) -> None:
    """As cells of 2 GB do of which sixteen are put on 24 GB."""
    gib = 2**30
    has = Capacity.of([{"CPU": cpus, "memory": memory * gib} for cpus, memory in nodes], Resources(**wanted))
    assert has.may_crowd(taken * gib) == held * gib
    share = Share(1, 0.0, held * gib)
    assert share.as_dict() == ({"CPU": 1, "memory": held * gib} if held else {"CPU": 1})


def test_no_more_cells_run_than_a_node_has_memory_for() -> None:
    has = Capacity.of([{"CPU": 16.0, "memory": 24.0}], Resources())
    assert has.has_room(Share(1, 0.0, 2), running=[Share(1, 0.0, 2)] * 11, busy_lanes=0)
    assert not has.has_room(Share(1, 0.0, 2), running=[Share(1, 0.0, 2)] * 12, busy_lanes=0)
    assert has.has_room(Share(1, 0.0), running=[Share(1, 0.0, 2)] * 12, busy_lanes=0)
    assert has.on([{"CPU": 16.0}]).has_room(Share(1, 0.0, 2), running=[Share(1, 0.0, 2)] * 12, busy_lanes=0), "unknown"
