"""What each of several workers does of a global batch. Nothing is exchanged here: the sums that workers would
make together are made in the tests."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from kd.machine.workers import Shard
from kd.recipe import Recipe
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import AnyRow, Watching, flat, linear

Run = Callable[..., list[AnyRow]]


@pytest.fixture(autouse=True)
def nothing_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    for collective in ("all_reduce", "broadcast"):
        monkeypatch.setattr(torch.distributed, collective, lambda tensor, **options: None)


def plain_sgd(batch_size: int, *, learning_rate: float = 0.5) -> Recipe:
    """A step is linear in the gradient, so that the mean of the workers' weights after it is what the mean of their
    gradients would have given."""
    return Recipe(
        epochs=1,
        batch_size=batch_size,
        optimizer="sgd",
        learning_rate=learning_rate,
        momentum=0,
        weight_decay=0,
        schedule="constant",
    )


def test_dropout_differs_by_seed_epoch_step_and_worker(run: Run) -> None:
    drawn: list[float] = []

    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            drawn.append(torch.rand(()).item())
            return x

    recipe = Recipe(epochs=2, batch_size=150)
    for seed, shard in ((0, Shard()), (1, Shard()), (0, Shard(1, 2))):
        torch.manual_seed(0)
        run(nn.Sequential(Drawing(), linear()), recipe, seed=seed, shard=shard)
    assert len(drawn) == len(set(drawn)) == 12
    run(nn.Sequential(Drawing(), linear()), recipe, seed=0)
    assert drawn[12:] == drawn[:4]


def test_workers_parts_make_up_each_global_batch(run: Run) -> None:
    whole, parts = Watching(), [Watching() for _ in range(3)]
    recipe = Recipe(epochs=1, batch_size=64)
    run(linear(), recipe, objective=whole)
    for rank, part in enumerate(parts):
        run(linear(), recipe, objective=part, shard=Shard(rank, 3))
    for step, batch in enumerate(whole.batches[0]):
        mine = [part.batches[0][step] for part in parts]
        assert sorted(chain(*mine)) == sorted(batch)
        assert max(map(len, mine)) - min(map(len, mine)) <= 1


@pytest.mark.parametrize("world", [2, 7])
def test_averaging_workers_gives_the_global_mean(run: Run, world: int) -> None:
    """300 samples do not divide by 7."""
    recipe = plain_sgd(300)
    single = linear()
    (expected,) = run(single, recipe)
    workers = [linear() for _ in range(world)]
    rows = [run(model, recipe, shard=Shard(rank, world))[0] for rank, model in enumerate(workers)]
    mean = torch.stack([flat(model) for model in workers]).mean(dim=0)
    assert (flat(single) - flat(linear())).abs().max() > 0.01
    torch.testing.assert_close(mean, flat(single), atol=1e-6, rtol=1e-5)  # float32 sums in another order
    # Each row holds its worker's share of the sums, the loss already divided by the number of workers.
    assert sum(row["train_loss"] for row in rows) == pytest.approx(expected["train_loss"], rel=1e-6)
    assert sum(row["train_top1"] for row in rows) == pytest.approx(expected["train_top1"], rel=1e-9)


def test_a_worker_without_a_part_of_the_last_batch_adds_nothing(run: Run) -> None:
    """300 samples in batches of 298: the second batch has two samples, none for the third worker."""
    assert len(torch.arange(298, 300)[2::3]) == 0
    recipe = plain_sgd(298, learning_rate=1e-12)  # the weights stay
    (expected,) = run(linear(), recipe)
    rows = [run(linear(), recipe, shard=Shard(rank, 3))[0] for rank in range(3)]
    assert sum(row["train_loss"] for row in rows) == pytest.approx(expected["train_loss"], rel=1e-6)
    assert sum(row["train_top1"] for row in rows) == pytest.approx(expected["train_top1"], rel=1e-9)


def test_a_worker_without_a_part_takes_its_step_with_no_gradient(run: Run) -> None:
    recipe = plain_sgd(1)
    first = linear()
    run(first, recipe, shard=Shard(1, 2))
    assert torch.equal(flat(first), flat(linear()))


def test_batch_norm_over_one_pixel_takes_a_part_of_one_image(run: Run) -> None:
    """300 samples in batches of 297: of the second batch the second worker has one image."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Unflatten(1, (8, 1, 1)), nn.BatchNorm2d(8), nn.Flatten())
    model.append(nn.Linear(8, 10))
    model(torch.zeros(2, 1, 8, 8))
    (row,) = run(model, plain_sgd(297), shard=Shard(1, 2))
    assert row["train_loss"] is not None
    assert torch.isfinite(flat(model)).all()


def test_workers_but_the_first_neither_evaluate_nor_report(run: Run) -> None:
    recipe = Recipe(epochs=2, batch_size=100)
    for rank, times in ((0, 2), (1, 0)):
        evaluated: list[nn.Module] = []
        states: list[TrainState] = []

        def note(model: nn.Module, *, evaluated: list[nn.Module] = evaluated) -> CurveRow:
            evaluated.append(model)
            return {}

        curve = run(linear(), recipe, shard=Shard(rank, 2), evaluate=note, on_state=states.append)
        assert (len(evaluated), len(states), len(curve)) == (times, times, 2)


def test_workers_agree_on_saving_every_sixteen_steps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message goes between them each time: the first decides, the others are told."""
    told: list[int] = []

    def broadcast(tensor: Tensor, *, src: int) -> None:
        assert src == 0
        told.append(int(tensor.item()))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    for rank, saved in ((0, [16, 32, 0]), (1, [])):
        states: list[TrainState] = []
        told.clear()
        recipe = Recipe(epochs=1, batch_size=8)  # 38 steps
        run(linear(), recipe, shard=Shard(rank, 2), save_now=lambda: True, on_state=states.append)
        assert [state.step for state in states] == saved
        assert told == ([1, 1] if rank == 0 else [0, 0])


@pytest.mark.parametrize("world", [2, 3])
def test_a_state_within_an_epoch_is_carried_on_by_the_first_worker_alone(run: Run, world: int) -> None:
    """It holds the sums of all workers: each adding them up again would count them once a worker."""
    recipe = plain_sgd(64, learning_rate=1e-12)  # the weights stay
    single: list[TrainState] = []
    (expected,) = run(linear(), recipe, on_state=single.append, save_now=lambda: True)
    rows = []
    for rank in range(world):
        state = TrainState.from_dict(single[2].to_dict())
        assert state.step == 3
        assert state.hits is not None
        state.hits = state.hits.clone()
        rows.append(run(linear(), recipe, shard=Shard(rank, world), resume=state)[0])
    assert sum(row["train_loss"] for row in rows) == pytest.approx(expected["train_loss"], rel=1e-6)
    assert sum(row["train_top1"] for row in rows) == pytest.approx(expected["train_top1"], rel=1e-9)
