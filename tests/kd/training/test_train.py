"""The loop itself: what each step, row and evaluation is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd.data.dataset import Dataset
from kd.data.views.pixels import Pixels
from kd.data.views.policy import Mixing, ViewPolicy
from kd.data.views.views import Labels
from kd.evaluate import predict, score
from kd.methods.method import Seen
from kd.models.build import build
from kd.objective import HardLabels, Loss, cross_entropy
from kd.recipe import Precision, Recipe
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import CPU, AnyRow, Watching, flat, linear, noisy_model, same_weights, views_of

AUGMENTED = ViewPolicy(crop_padding=1, horizontal_flip=True)
Run = Callable[..., list[AnyRow]]


def test_each_epoch_sees_each_sample_once_in_an_order_of_its_own(run: Run) -> None:
    watching = Watching()
    run(linear(), Recipe(epochs=2, batch_size=64), objective=watching)
    assert [views.epoch for views in watching.epochs] == [0, 1]
    for batches in watching.batches:
        assert [len(batch) for batch in batches] == [64, 64, 64, 64, 44]
        assert sorted(chain(*batches)) == list(range(300))
    assert watching.batches[0] != watching.batches[1]


def test_the_seed_decides_the_order_and_not_the_views(run: Run) -> None:
    runs = []
    for seed in (3, 3, 4):
        runs.append(Watching())
        run(linear(), Recipe(epochs=2, batch_size=64, views=AUGMENTED), objective=runs[-1], seed=seed)
    assert runs[0].batches == runs[1].batches
    assert runs[0].batches != runs[2].batches
    index_N = torch.arange(300)
    for first, other in zip(runs[0].epochs, runs[2].epochs, strict=True):
        assert torch.equal(first.batch(index_N), other.batch(index_N))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(run: Run) -> None:
    models = [noisy_model(0) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        torch.rand(3)
        run(model, Recipe(epochs=1, batch_size=64), seed=seed)
    assert same_weights(models[0], models[1])
    assert (flat(models[0]) - flat(models[2])).abs().max() > 1e-4


@pytest.mark.parametrize("partners", [None, "epoch", "batch"])
def test_the_model_is_shown_each_batchs_views_of_the_epoch(run: Run, digits: Dataset, partners: Any) -> None:
    shown: list[Tensor] = []

    class Shown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x.clone())
            return x

    mixing = None if partners is None else Mixing(mixup_alpha=1.0, partners=partners)
    policy = ViewPolicy(crop_padding=1, horizontal_flip=True, mixing=mixing)
    watching = Watching()
    run(nn.Sequential(Shown(), linear()), Recipe(epochs=2, batch_size=100, views=policy), objective=watching)
    expected = []
    for epoch, batches in enumerate(watching.batches):
        order = tuple(torch.tensor(index) for index in batches)
        views = views_of(digits, policy).epoch(epoch, batches=order)
        expected += [views.batch(index_B) for index_B in order]
    assert len(shown) == len(expected) == 6
    assert all(map(torch.equal, shown, expected))


def test_hits_of_mixed_images_count_the_heavier_label(run: Run, digits: Dataset) -> None:
    policy = ViewPolicy(mixing=Mixing(mixup_alpha=1.0, cutmix_alpha=1.0))
    model = linear()
    recipe = Recipe(epochs=1, batch_size=64, learning_rate=1e-12, weight_decay=0, schedule="constant", views=policy)
    (row,) = run(model, recipe)
    index_N = torch.arange(300)
    views = views_of(digits, policy).epoch(0)
    with torch.no_grad():
        logits_NC = model(views.batch(index_N))
    labels = views.labels(index_N)
    assert row["train_top1"] == (logits_NC.argmax(dim=1) == labels.main).sum().item() / 300
    loss = cross_entropy(logits_NC, labels, label_smoothing=0)
    assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(("epochs", "every", "at"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 10, [3]), (2, 1, [1, 2])])
def test_evaluation_comes_every_so_many_epochs_and_last(run: Run, epochs: int, every: int, at: list[int]) -> None:
    called: list[bool] = []

    def evaluate(model: nn.Module) -> CurveRow:
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
    logits_NC = predict(model, digits.train, pixels, batch_size=300, device=CPU, precision="float32")
    expected = score(logits_NC, digits.train.labels_N)
    assert row["train_loss"] == pytest.approx(expected.nll, rel=1e-5)
    assert row["train_top1"] == expected.top1  # whole images: exact
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
            out: Tensor = self.model(x)
            return out

    class Slope(HardLabels):
        """A loss whose gradient by each bias is 1, so that a step of plain SGD moves it by the learning rate."""

        def __call__(self, student: Seen, labels: Labels, **facts: Any) -> Loss:
            return Loss(student.logits_BC.mean(dim=0).sum())

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


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_steps_with_momentum_as_written(run: Run, digits: Dataset, nesterov: bool) -> None:
    """v <- m v + g, w <- w - rate (v, or g + m v with Nesterov's); g includes the decay of the weights."""
    recipe = Recipe(
        epochs=3,
        batch_size=300,
        optimizer="sgd",
        momentum=0.9,
        nesterov=nesterov,
        weight_decay=0.01,
        learning_rate=0.1,
        schedule="constant",
    )
    model, by_hand = linear(), linear().double()
    images_NCHW = views_of(digits, ViewPolicy()).epoch(0).batch(torch.arange(300)).double()
    moving = [torch.zeros_like(p) for p in by_hand.parameters()]
    for _ in range(3):
        loss = nn.functional.cross_entropy(by_hand(images_NCHW), digits.train.labels_N)
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for w, v, slope in zip(by_hand.parameters(), moving, gradients, strict=True):
                g = slope + 0.01 * w
                v.mul_(0.9).add_(g)
                w.sub_(0.1 * (g + 0.9 * v if nesterov else v))
    run(model, recipe)
    torch.testing.assert_close(flat(model).double(), flat(by_hand), atol=1e-6, rtol=0)


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


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.float32)]
)
def test_precision_is_that_of_the_forward_pass_alone(run: Run, precision: Precision, dtype: torch.dtype) -> None:
    seen: set[torch.dtype] = set()

    class Noting(HardLabels):
        def __call__(self, student: Seen, labels: Labels, **facts: Any) -> Loss:
            seen.add(student.logits_BC.dtype)
            return super().__call__(student, labels, **facts)

    model = linear()
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.01, precision=precision)
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
            out: Tensor = self.inner(x)
            return out

    wrappers: list[Wrapper] = []
    evaluated: list[nn.Module] = []

    def wrap(model: nn.Module) -> nn.Module:
        wrappers.append(Wrapper(model))
        return wrappers[-1]

    def evaluate(model: nn.Module) -> CurveRow:
        evaluated.append(model)
        model.eval()  # left so: the next epoch must set it back
        return {}

    model, bare = linear(), linear()
    states: list[TrainState] = []
    recipe = Recipe(epochs=2, batch_size=100)
    run(model, recipe, wrap=wrap, evaluate=evaluate, on_state=states.append)
    run(bare, recipe)
    assert [wrapper.calls for wrapper in wrappers] == [6]
    assert [seen is model for seen in evaluated] == [True, True]
    assert list(states[0].model) == list(model.state_dict())
    assert same_weights(model, bare)


def test_the_loss_goes_down_and_digits_are_learnt(run: Run, evaluate: Callable[[nn.Module], CurveRow]) -> None:
    # Digits are 8 px, small_cnn takes 16 px and more.
    model = nn.Sequential(nn.Upsample(scale_factor=2), build("small_cnn", args={}, classes=10, channels=1, seed=0))
    curve = run(model, Recipe(epochs=6, batch_size=32, learning_rate=3e-3), evaluate=evaluate)
    losses = [row["train_loss"] for row in curve]
    assert losses[0] > losses[1] > losses[2]
    assert losses[-1] < 0.25 * losses[0]
    assert curve[-1]["val_top1"] > 0.8  # chance is 0.1
    assert curve[-1]["train_top1"] > curve[0]["train_top1"]
