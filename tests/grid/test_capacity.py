"""What fits on the nodes: teachers' lanes, cells beside them, and what never can is refused."""

from __future__ import annotations

from typing import Any

import pytest

from grid.cluster.capacity import Capacity, Share
from grid.errors import UserError
from grid.spec.grid import Resources


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
    ("share", "free", "workers"),
    [
        (Share(1, 0), {"CPU": 3.0}, 3),
        (Share(2, 0), {"CPU": 5.0}, 2),
        (Share(2, 0), {"CPU": 1.0}, 0),
        (Share(1, 0), {}, 0),
        (Share(1, 0), {"CPU": 2.0, "GPU": 0.0}, 2),
        (Share(1, 1.0), {"CPU": 8.0, "GPU": 2.0}, 2),
        (Share(4, 1.0), {"CPU": 7.0, "GPU": 2.0}, 1),
        (Share(1, 0.25), {"CPU": 8.0, "GPU": 0.75}, 3),
        (Share(1, 0.5), {"CPU": 8.0}, 0),
        (Share(1, 0), {"CPU": 0.5}, 0),
    ],
)
def test_how_many_workers_fit_into_what_is_free(share: Share, free: dict[str, float], workers: int) -> None:
    assert Capacity.fitting(share, free) == workers
