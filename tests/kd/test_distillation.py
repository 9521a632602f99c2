"""Cached logits teach what the teacher itself would teach: the same bits where its batches are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kd.data.dataset import Dataset
from kd.data.views.pixels import Pixels
from kd.data.views.policy import Mixing, RandAugment, ViewPolicy
from kd.data.views.views import EpochViews
from kd.draws import permutation
from kd.logits import StoredLogits, compute_logits, gather, store_logits
from kd.methods.soft_targets import SoftTargets
from kd.objective import CachedTeacher, Distillation, OnlineTeacher, Teacher
from kd.recipe import LogitsDtype, LogitsFormat, Recipe
from tests.kd import helpers
from tests.kd.helpers import CPU, AnyRow, noisy_model, same_weights, through_a_file, untimed, views_of

Run = Callable[..., list[AnyRow]]
Cache = Callable[[EpochViews], StoredLogits]

SEED = 5
AUGMENTED = ViewPolicy(crop_padding=1, horizontal_flip=True, stream=1)
RECIPE = Recipe(epochs=3, batch_size=64, learning_rate=3e-3, views=AUGMENTED)
POLICIES = {
    "plain": ViewPolicy(),
    "crop, flip": AUGMENTED,
    "mixed": replace(AUGMENTED, mixing=Mixing(mixup_alpha=0.4, cutmix_alpha=1.0)),
    "rand augment, cutout, mixed": ViewPolicy(rand_augment=RandAugment(), cutout=3, mixing=Mixing(cutmix_alpha=1.0)),
}


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> dict[str, Tensor]:
    """Weights of a teacher with dropout and batch norm, for images of any size."""
    model = any_size(7)
    helpers.run(model, Recipe(epochs=3, batch_size=32, learning_rate=0.01), data=digits)
    return model.state_dict()


def any_size(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 4 * 4, 10),
    )


@pytest.fixture
def teacher(trained: dict[str, Tensor]) -> nn.Module:
    """In training mode, as it may come."""
    model = any_size(0)
    model.load_state_dict(trained)
    return model.train()


def distill(run: Run, recipe: Recipe, teacher: Teacher, *, alpha: float = 0.9) -> tuple[nn.Module, list[AnyRow]]:
    student = noisy_model(0)
    objective = Distillation(SoftTargets(temperature=4, alpha=alpha), teacher, label_smoothing=0)
    return student, untimed(run(student, recipe, objective=objective, seed=SEED))


def cache_of_batches(teacher: nn.Module, recipe: Recipe, pixels: Pixels, path: Path, *, dtype: LogitsDtype) -> Cache:
    """Logits computed batch by batch in the order of training, and stored; a file an epoch."""

    def read(views: EpochViews) -> StoredLogits:
        order_N = torch.from_numpy(permutation(len(views), key=("order", SEED, views.epoch or 0)))
        logits_NC = torch.empty(len(views), 10)
        with torch.inference_mode():
            for batch_B in torch.split(order_N, recipe.batch_size):
                for index_B in torch.split(batch_B, recipe.micro_batch_size or recipe.batch_size):
                    logits_NC[index_B] = teacher.eval()(views.seen_through(pixels).batch(index_B))
        return through_a_file(store_logits(logits_NC, LogitsFormat(dtype=dtype), what="x"), path)

    return read


def native(digits: Dataset, size: int | None = None) -> Pixels:
    return Pixels.of(digits.meta, size=size, device=CPU)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("size", "micro_batch_size"), [(None, None), (12, None), (None, 24)])
def test_a_float32_cache_gives_the_bits_of_the_teacher_online(
    run: Run,
    digits: Dataset,
    teacher: nn.Module,
    tmp_path: Path,
    name: str,
    size: int | None,
    micro_batch_size: int | None,
) -> None:
    """The teacher may take images of another size than the student."""
    recipe = replace(RECIPE, views=POLICIES[name], micro_batch_size=micro_batch_size)
    pixels = native(digits, size)
    read = cache_of_batches(teacher, recipe, pixels, tmp_path / "logits", dtype="float32")
    cached, curve = distill(run, recipe, CachedTeacher(read, device=CPU))
    online, expected = distill(run, recipe, OnlineTeacher(teacher, pixels=pixels, precision="float32"))
    assert curve == expected
    assert same_weights(cached, online)
    assert expected[-1]["train_loss"] < expected[0]["train_loss"]


def test_the_teacher_is_as_it_was(run: Run, digits: Dataset, teacher: nn.Module, trained: dict[str, Tensor]) -> None:
    before = {k: v.clone() for k, v in trained.items()}
    distill(run, RECIPE, OnlineTeacher(teacher, pixels=native(digits), precision="float32"))
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", ["crop, flip", "mixed"])
def test_a_float16_cache_moves_the_loss_by_less_than_a_thousandth(
    run: Run, digits: Dataset, teacher: nn.Module, tmp_path: Path, name: str
) -> None:
    recipe = replace(RECIPE, views=POLICIES[name])
    read = cache_of_batches(teacher, recipe, native(digits), tmp_path / "logits", dtype="float16")
    cached, curve = distill(run, recipe, CachedTeacher(read, device=CPU))
    online, expected = distill(run, recipe, OnlineTeacher(teacher, pixels=native(digits), precision="float32"))
    assert [row["train_loss"] for row in curve] == pytest.approx([row["train_loss"] for row in expected], rel=1e-3)
    assert not same_weights(cached, online)  # the files were read


def test_a_cache_in_sample_order_teaches_the_same_but_for_rounding(
    run: Run, digits: Dataset, teacher: nn.Module
) -> None:
    """Computed without knowing the order of training, with another batch size."""

    def read(views: EpochViews) -> StoredLogits:
        logits_NC = compute_logits(teacher, views, batch_size=100, precision="float32")
        return store_logits(logits_NC, LogitsFormat(dtype="float32"), what="x")

    _, curve = distill(run, RECIPE, CachedTeacher(read, device=CPU))
    _, expected = distill(run, RECIPE, OnlineTeacher(teacher, pixels=native(digits), precision="float32"))
    assert [row["train_loss"] for row in curve] == pytest.approx([row["train_loss"] for row in expected], rel=1e-5)


def test_a_cache_of_all_numbered_views_teaches_the_same_but_for_rounding(
    run: Run, digits: Dataset, teacher: nn.Module
) -> None:
    views = views_of(digits, AUGMENTED)
    tables = [
        store_logits(
            compute_logits(teacher, views.numbered(number), batch_size=100, precision="float32"),
            LogitsFormat(dtype="float32"),
            what="x",
        )
        for number in range(18)
    ]
    _, curve = distill(run, RECIPE, CachedTeacher(lambda views: gather(tables, views.numbers), device=CPU))
    _, expected = distill(run, RECIPE, OnlineTeacher(teacher, pixels=native(digits), precision="float32"))
    assert [row["train_loss"] for row in curve] == pytest.approx([row["train_loss"] for row in expected], rel=1e-5)


def test_logits_of_other_views_are_told_apart(run: Run, digits: Dataset, teacher: nn.Module) -> None:
    """One epoch's logits for all epochs: the loss of the first is right, and of the others wrong by more than any
    tolerance above."""
    views = views_of(digits, AUGMENTED)
    logits_NC = compute_logits(teacher, views.epoch(0), batch_size=100, precision="float32")
    stale = store_logits(logits_NC, LogitsFormat(dtype="float32"), what="x")
    _, curve = distill(run, RECIPE, CachedTeacher(lambda views: stale, device=CPU), alpha=1.0)
    _, expected = distill(run, RECIPE, OnlineTeacher(teacher, pixels=native(digits), precision="float32"), alpha=1.0)
    assert curve[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-5)
    assert curve[1]["train_loss"] != pytest.approx(expected[1]["train_loss"], rel=1e-2)


def test_partners_of_the_batch_are_seen_by_the_teacher_too(run: Run, digits: Dataset, teacher: nn.Module) -> None:
    """Views that no cache can hold are taught online."""
    policy = replace(AUGMENTED, mixing=Mixing(mixup_alpha=1.0, partners="batch"))
    shown: list[Tensor] = []
    teacher.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0].clone()))
    student, seen = noisy_model(0), []
    student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    online = OnlineTeacher(teacher, pixels=native(digits), precision="float32")
    objective = Distillation(SoftTargets(temperature=4, alpha=0.9), online, label_smoothing=0)
    run(student, replace(RECIPE, epochs=1, views=policy), objective=objective)
    assert len(shown) == len(seen) == 5
    assert all(map(torch.equal, shown, seen))
