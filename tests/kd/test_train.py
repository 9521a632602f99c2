from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd.checkpoint import state_from_bytes, state_to_bytes
from kd.data.dataset import Dataset
from kd.data.views import EpochViews, Pixels, ViewStream
from kd.evaluate import predict, score
from kd.logits import compute_logits, logits_from_bytes, logits_to_bytes
from kd.losses.soft_targets import soft_target_loss
from kd.models.build import build
from kd.objective import Distillation, HardLabels, Objective
from kd.recipe import Recipe, Views
from kd.train import DivergedError, Row, Shard, TrainState, train

CPU = torch.device("cpu")
AUGMENTED = Views(crop_padding=1, horizontal_flip=True)

NoisyModel = Callable[[int], nn.Module]
AnyRow = dict[str, Any]
Run = Callable[..., list[AnyRow]]


@pytest.fixture
def run(digits: Dataset, digits_views: Callable[[Views], ViewStream]) -> Run:
    """`train` on 300 digits, from labels unless told otherwise."""

    def start(model: nn.Module, recipe: Recipe, **options: Any) -> list[AnyRow]:
        defaults: dict[str, Any] = {
            "objective": HardLabels(label_smoothing=recipe.label_smoothing),
            "seed": 0,
            "evaluate": lambda model: {},
            "split": digits.train,
            "views": digits_views(recipe.views),
        }
        return [dict(row) for row in train(model, recipe=recipe, **(defaults | options))]

    return start


@pytest.fixture
def evaluate(digits: Dataset) -> Callable[[nn.Module], Row]:
    """Scores on the validation split."""
    pixels = Pixels.of(digits.meta, size=None, device=CPU)

    def measure(model: nn.Module) -> Row:
        metrics = score(predict(model, digits.val, pixels, batch_size=50, device=CPU), digits.val.labels_N)
        return {"val_top1": metrics.top1, "val_nll": metrics.nll}

    return measure


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def untimed(curve: list[AnyRow]) -> list[AnyRow]:
    return [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in curve]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class CutOffError(Exception):
    """The run is cut off here."""


RECIPES = {
    "adamw": Recipe(
        epochs=4, batch_size=64, optimizer="adamw", learning_rate=3e-3, warmup_epochs=1, clip_norm=1.0, views=AUGMENTED
    ),
    "sgd": Recipe(
        epochs=4, batch_size=64, optimizer="sgd", learning_rate=0.1, schedule="step", step_epochs=(2,), views=AUGMENTED
    ),
    "adam": Recipe(epochs=4, batch_size=64, optimizer="adam", label_smoothing=0.1, evaluate_every=3, views=AUGMENTED),
}


@pytest.mark.parametrize("name", RECIPES)
def test_an_interrupted_run_ends_with_the_same_bits(
    name: str, run: Run, evaluate: Callable[[nn.Module], Row], noisy_model: NoisyModel
) -> None:
    recipe = RECIPES[name]
    whole = noisy_model(0)
    curve = run(whole, recipe, evaluate=evaluate)
    assert len(curve) == 4
    for after in (1, 2, 3):
        saved: list[bytes] = []

        def cut_off(state: TrainState, *, after: int = after, saved: list[bytes] = saved) -> None:
            if state.epochs_done == after:
                saved.append(state_to_bytes(state.to_dict()))
                raise CutOffError

        with pytest.raises(CutOffError):
            run(noisy_model(0), recipe, evaluate=evaluate, on_epoch=cut_off)
        torch.rand(17)  # another process would not have the random state of this one
        resumed = noisy_model(99)  # all of its weights must come from the state
        state = TrainState.from_dict(state_from_bytes(saved[0]))
        assert state.epochs_done == after == len(state.curve)
        assert untimed(run(resumed, recipe, evaluate=evaluate, resume=state)) == untimed(curve)
        assert same_weights(resumed, whole)


def test_resuming_depends_on_the_optimizers_state(run: Run, noisy_model: NoisyModel) -> None:
    """Or the comparison of bits above would say nothing of it."""
    recipe = RECIPES["adamw"]
    states: list[TrainState] = []
    whole = noisy_model(0)
    run(whole, recipe, on_epoch=states.append)
    state = states[1]
    state.optimizer["state"] = {}
    resumed = noisy_model(0)
    run(resumed, recipe, resume=state)
    assert not same_weights(resumed, whole)


def test_an_interrupted_distillation_ends_with_the_same_bits(run: Run, noisy_model: NoisyModel) -> None:
    recipe = RECIPES["adamw"]
    read: list[int] = []

    def read_epoch(epoch: int) -> Tensor:
        read.append(epoch)
        return torch.randn(300, 10, generator=torch.Generator().manual_seed(epoch)).half()

    def student() -> Distillation:
        return Distillation(read_epoch, temperature=4, alpha=0.9, label_smoothing=0, device=CPU)

    states: list[bytes] = []
    whole, resumed = noisy_model(0), noisy_model(1)
    curve = run(whole, recipe, objective=student(), on_epoch=lambda s: states.append(state_to_bytes(s.to_dict())))
    assert read == [0, 1, 2, 3]
    state = TrainState.from_dict(state_from_bytes(states[1]))
    assert untimed(run(resumed, recipe, objective=student(), resume=state)) == untimed(curve)
    assert same_weights(resumed, whole)
    assert read == [0, 1, 2, 3, 2, 3]


def test_a_finished_run_resumes_to_its_end(run: Run, noisy_model: NoisyModel) -> None:
    states: list[TrainState] = []
    whole, resumed = noisy_model(0), noisy_model(1)
    curve = run(whole, RECIPES["sgd"], on_epoch=states.append)
    assert run(resumed, RECIPES["sgd"], resume=states[-1], on_epoch=states.append) == curve
    assert same_weights(resumed, whole)
    assert len(states) == 4


def test_a_reported_state_does_not_change_as_training_goes_on(run: Run, noisy_model: NoisyModel) -> None:
    kept: list[TrainState] = []
    written: list[bytes] = []

    def keep(state: TrainState) -> None:
        kept.append(state)
        written.append(state_to_bytes(state.to_dict()))

    run(noisy_model(0), RECIPES["adamw"], on_epoch=keep)
    assert [state_to_bytes(state.to_dict()) for state in kept] == written
    assert len(set(written)) == 4
    assert [state.epochs_done for state in kept] == [1, 2, 3, 4]
    assert [len(state.curve) for state in kept] == [1, 2, 3, 4]


def test_the_seed_decides_order_and_dropout(run: Run, noisy_model: NoisyModel) -> None:
    recipe = Recipe(epochs=1, batch_size=64)
    models = [noisy_model(0) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        torch.rand(3)
        run(model, recipe, seed=seed)
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


class Watching(HardLabels):
    """Hard labels that note the samples of every batch, and epochs."""

    def __init__(self) -> None:
        super().__init__(label_smoothing=0)
        self.epochs: list[int] = []
        self.batches: list[list[list[int]]] = []

    def start_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.batches.append([])

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
        self.batches[-1].append(index_B.tolist())
        return super().__call__(logits_BC, labels_B, index_B=index_B)


def test_each_epoch_sees_each_sample_once_in_an_order_of_its_own(run: Run) -> None:
    watching = Watching()
    run(linear(), Recipe(epochs=2, batch_size=64), objective=watching)
    assert watching.epochs == [0, 1]
    for batches in watching.batches:
        assert [len(batch) for batch in batches] == [64, 64, 64, 64, 44]
        assert sorted(chain(*batches)) == list(range(300))
    assert watching.batches[0] != watching.batches[1]


def test_the_model_is_shown_each_batchs_views_of_the_epoch(
    run: Run, digits_views: Callable[[Views], ViewStream]
) -> None:
    shown: list[Tensor] = []

    class Shown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x.clone())
            return x

    watching = Watching()
    run(nn.Sequential(Shown(), linear()), Recipe(epochs=2, batch_size=100, views=AUGMENTED), objective=watching)
    views = digits_views(AUGMENTED)
    expected = [views.epoch(epoch).batch(torch.tensor(index)) for epoch in (0, 1) for index in watching.batches[epoch]]
    assert len(shown) == len(expected) == 6
    assert all(map(torch.equal, shown, expected))


def test_the_seed_decides_the_order(run: Run) -> None:
    batches = []
    for seed in (3, 3, 4):
        watching = Watching()
        run(linear(), Recipe(epochs=1, batch_size=64), objective=watching, seed=seed)
        batches.append(watching.batches)
    assert batches[0] == batches[1]
    assert batches[0] != batches[2]


def test_dropout_differs_by_seed_epoch_step_and_worker(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **options: None)
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


def test_workers_parts_make_up_each_global_batch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **options: None)
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
def test_averaging_workers_gives_the_global_mean(run: Run, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """One step of plain SGD is linear in the gradient, so that the mean of the workers' weights after it is what the
    mean of their gradients would have given; 300 samples do not divide by 7. Nothing is exchanged here: the sums that
    all_reduce would make are made below."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **options: None)
    recipe = Recipe(
        epochs=1, batch_size=300, optimizer="sgd", learning_rate=0.5, momentum=0, weight_decay=0, schedule="constant"
    )
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


def test_a_worker_without_a_part_of_the_last_batch_adds_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 samples in batches of 299: the second batch has one sample, for the first worker alone."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **options: None)
    recipe = Recipe(
        epochs=1, batch_size=299, optimizer="sgd", learning_rate=1e-3, momentum=0, weight_decay=0, schedule="constant"
    )
    (expected,) = run(linear(), recipe)
    rows = [run(linear(), recipe, shard=Shard(rank, 2))[0] for rank in range(2)]
    assert sum(row["train_loss"] for row in rows) == pytest.approx(expected["train_loss"], rel=1e-4)
    assert sum(row["train_top1"] for row in rows) == pytest.approx(expected["train_top1"], rel=0.05)


def test_a_state_can_be_resumed_from_twice(run: Run, noisy_model: NoisyModel) -> None:
    for recipe in RECIPES.values():
        states: list[TrainState] = []
        run(noisy_model(0), recipe, on_epoch=states.append)
        first, second = noisy_model(1), noisy_model(2)
        run(first, recipe, resume=states[0])
        run(second, recipe, resume=states[0])
        assert same_weights(first, second)


def test_workers_but_the_first_neither_evaluate_nor_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **options: None)
    recipe = Recipe(epochs=2, batch_size=100)
    for rank, times in ((0, 2), (1, 0)):
        evaluated: list[nn.Module] = []
        states: list[TrainState] = []

        def note(model: nn.Module, *, evaluated: list[nn.Module] = evaluated) -> Row:
            evaluated.append(model)
            return {}

        curve = run(linear(), recipe, shard=Shard(rank, 2), evaluate=note, on_epoch=states.append)
        assert (len(evaluated), len(states), len(curve)) == (times, times, 2)


@pytest.mark.parametrize(("epochs", "every", "at"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 10, [3]), (2, 1, [1, 2])])
def test_evaluation_comes_every_so_many_epochs_and_last(run: Run, epochs: int, every: int, at: list[int]) -> None:
    called: list[bool] = []

    def evaluate(model: nn.Module) -> Row:
        called.append(True)
        return {"val_top1": 0.5}

    curve = run(linear(), Recipe(epochs=epochs, batch_size=100, evaluate_every=every), evaluate=evaluate)
    assert [row["epoch"] for row in curve] == list(range(1, epochs + 1))
    assert [row["epoch"] for row in curve if "val_top1" in row] == at
    assert len(called) == len(at)


def test_a_row_says_what_the_epoch_was(run: Run, digits: Dataset) -> None:
    # At a learning rate next to nothing the weights stay, so that the epoch's means are those of the fixed model.
    model = linear()
    (row,) = run(model, Recipe(epochs=1, batch_size=64, learning_rate=1e-12, weight_decay=0, schedule="constant"))
    pixels = Pixels.of(digits.meta, size=None, device=CPU)
    logits_NC = predict(model, digits.train, pixels, batch_size=300, device=CPU)
    expected = score(logits_NC, digits.train.labels_N)
    assert row["train_loss"] == pytest.approx(expected.nll, rel=1e-5)
    assert row["train_top1"] == pytest.approx(expected.top1, abs=1e-6)
    assert row["seconds_train"] > 0
    assert row["seconds_evaluate"] >= 0


def test_a_row_holds_the_rate_of_the_epochs_last_step(run: Run) -> None:
    recipe = Recipe(epochs=3, batch_size=100, learning_rate=0.01, warmup_epochs=1)
    curve = run(linear(), recipe)
    assert [row["learning_rate"] for row in curve] == [
        recipe.learning_rate_at(step, steps_per_epoch=3) for step in (2, 5, 8)
    ]
    assert curve[0]["learning_rate"] == 0.01


def test_each_step_takes_its_rate_from_the_schedule(run: Run) -> None:
    rates: list[float] = []

    class Spy(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model, self.before = model, flat(model)

        def forward(self, x: Tensor) -> Tensor:
            rates.append((flat(self.model) - self.before).abs().max().item())
            self.before = flat(self.model)
            return self.model(x)

    class Slope(HardLabels):
        """A loss whose gradient by each bias is 1, so that a step of plain SGD moves it by the learning rate."""

        def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
            return logits_BC.mean(dim=0).sum()

    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias.expand(len(x), 10)

    recipe = Recipe(
        epochs=3,
        batch_size=100,
        optimizer="sgd",
        momentum=0,
        weight_decay=0,
        learning_rate=0.5,
        warmup_epochs=1,
        schedule="cosine",
    )
    run(Bias(), recipe, objective=Slope(label_smoothing=0), wrap=Spy)
    expected = [recipe.learning_rate_at(step, steps_per_epoch=3) for step in range(8)]
    # The first forward comes before any step; a bias near 2 has float32 steps of 2e-7.
    assert rates == pytest.approx([0, *expected], abs=1e-6)


def test_clipping_bounds_the_whole_gradient(run: Run) -> None:
    options: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 300,
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
    }
    moved = {}
    for clip_norm in (None, 0.01):
        model = linear()
        run(model, Recipe(clip_norm=clip_norm, **options))
        moved[clip_norm] = (flat(model) - flat(linear())).norm().item()
    assert moved[None] > 0.1
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)  # differences of weights near 0.1 in float32


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_the_forward_pass_alone(run: Run, precision: str, dtype: torch.dtype) -> None:
    seen: set[torch.dtype] = set()

    class Noting(HardLabels):
        def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
            seen.add(logits_BC.dtype)
            return super().__call__(logits_BC, labels_B, index_B=index_B)

    model = linear()
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.01, precision=precision)  # type: ignore[arg-type]
    curve = run(model, recipe, objective=Noting(label_smoothing=0))
    assert seen == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]


def test_the_wrapped_module_is_trained_and_the_bare_one_evaluated(run: Run) -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x: Tensor) -> Tensor:
            assert all(module.training for module in self.modules())
            self.calls += 1
            return self.inner(x)

    wrappers: list[Wrapper] = []
    evaluated: list[nn.Module] = []

    def wrap(model: nn.Module) -> nn.Module:
        wrappers.append(Wrapper(model))
        return wrappers[-1]

    def evaluate(model: nn.Module) -> Row:
        evaluated.append(model)
        model.eval()  # left so: the next epoch must set it back
        return {}

    model, bare = linear(), linear()
    states: list[TrainState] = []
    recipe = Recipe(epochs=2, batch_size=100)
    run(model, recipe, wrap=wrap, evaluate=evaluate, on_epoch=states.append)
    run(bare, recipe)
    assert [wrapper.calls for wrapper in wrappers] == [6]
    assert all(seen is model for seen in evaluated)
    assert list(states[0].model) == list(model.state_dict())
    assert same_weights(model, bare)


class NotANumber(HardLabels):
    """A loss that is not finite at one step of one epoch, both counted from 0."""

    def __init__(self, epoch: int, step: int, value: float) -> None:
        super().__init__(label_smoothing=0)
        self.at, self.value = (epoch, step), value
        self.epoch, self.step = -1, -1

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.step = epoch, -1

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
        self.step += 1
        loss = super().__call__(logits_BC, labels_B, index_B=index_B)
        return loss * self.value if (self.epoch, self.step) == self.at else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_says_where(run: Run, value: float) -> None:
    states: list[TrainState] = []
    recipe = Recipe(epochs=4, batch_size=64, learning_rate=0.002, schedule="constant")
    with pytest.raises(
        DivergedError, match=rf"the loss is {value} at epoch 3, step 2 of 5, learning rate 0.002: lower learning_rate"
    ):
        run(linear(), recipe, objective=NotANumber(2, 1, value), on_epoch=states.append)
    assert [state.epochs_done for state in states] == [1, 2]
    assert all(v.isfinite().all() for v in states[-1].model.values())


def test_a_huge_learning_rate_diverges(run: Run) -> None:
    states: list[TrainState] = []
    evaluated: list[nn.Module] = []
    recipe = Recipe(epochs=2, batch_size=64, optimizer="sgd", learning_rate=1e38)

    def evaluate(model: nn.Module) -> Row:
        evaluated.append(model)
        return {}

    # The first loss is that of the initial weights; the step after it goes far beyond float32.
    with pytest.raises(DivergedError, match=r"at epoch 1, step [23] of 5, learning rate"):
        run(linear(), recipe, on_epoch=states.append, evaluate=evaluate)
    assert not states
    assert not evaluated


def test_the_loss_goes_down_and_digits_are_learnt(run: Run, evaluate: Callable[[nn.Module], Row]) -> None:
    # Digits are 8 px, small_cnn takes 16 px and more.
    model = nn.Sequential(nn.Upsample(scale_factor=2), build("small_cnn", args={}, classes=10, channels=1, seed=0))
    curve = run(model, Recipe(epochs=6, batch_size=32, learning_rate=3e-3), evaluate=evaluate)
    losses = [row["train_loss"] for row in curve]
    assert losses[0] > losses[1] > losses[2]
    assert losses[-1] < 0.25 * losses[0]
    assert curve[-1]["val_top1"] > 0.8  # chance is 0.1
    assert curve[-1]["train_top1"] > curve[0]["train_top1"]


class OnlineTeacher(HardLabels):
    """The soft term with the teacher run on the very batch the student sees, nothing stored."""

    def __init__(self, teacher: nn.Module, views: ViewStream, *, temperature: float) -> None:
        super().__init__(label_smoothing=0)
        self.teacher, self.views, self.temperature = teacher.eval(), views, temperature
        self.epoch_views: EpochViews | None = None

    def start_epoch(self, epoch: int) -> None:
        self.epoch_views = self.views.epoch(epoch)

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
        assert self.epoch_views is not None
        with torch.no_grad():
            teacher_BC = self.teacher(self.epoch_views.batch(index_B))
        soft = soft_target_loss(logits_BC, teacher_BC, temperature=self.temperature)
        return 0.9 * soft + 0.1 * F.cross_entropy(logits_BC, labels_B)


def test_stored_logits_teach_what_the_teacher_would(
    run: Run, noisy_model: NoisyModel, digits_views: Callable[[Views], ViewStream]
) -> None:
    teacher = noisy_model(7)
    run(teacher, Recipe(epochs=3, batch_size=32, learning_rate=0.01, views=AUGMENTED))
    recipe = Recipe(epochs=3, batch_size=64, learning_rate=3e-3, views=Views(crop_padding=1, stream=1))
    views = digits_views(recipe.views)

    def stored(epoch: int) -> Tensor:
        data = logits_to_bytes(compute_logits(teacher, views.epoch(epoch), batch_size=100), what="x")
        return logits_from_bytes(data, samples=300, classes=10, what="x")

    def losses(objective: Objective) -> list[float]:
        return [row["train_loss"] for row in run(noisy_model(0), recipe, objective=objective)]

    def student(read: Callable[[int], Tensor]) -> Distillation:
        return Distillation(read, temperature=4, alpha=0.9, label_smoothing=0, device=CPU)

    online = losses(OnlineTeacher(teacher, views, temperature=4))
    # float16 moves a loss by less than a thousandth; the views are the same ones.
    assert losses(student(stored)) == pytest.approx(online, rel=1e-3)
    # Logits of one epoch's views for all epochs are told apart.
    stale = losses(student(lambda epoch: stored(0)))
    assert stale[0] == pytest.approx(online[0], rel=1e-3)
    assert stale[1] != pytest.approx(online[1], rel=1e-2)


def test_logits_of_the_teacher_need_not_be_stored_to_teach(
    run: Run, noisy_model: NoisyModel, digits_views: Callable[[Views], ViewStream]
) -> None:
    teacher, views = noisy_model(7), digits_views(Views())
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    objective = Distillation(
        lambda epoch: compute_logits(teacher, views.epoch(epoch), batch_size=100),
        temperature=4,
        alpha=1,
        label_smoothing=0,
        device=CPU,
    )
    curve = run(noisy_model(0), Recipe(epochs=3, batch_size=32, learning_rate=0.01), objective=objective)
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
