from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd.data.dataset import Dataset
from kd.data.views.pixels import Pixels
from kd.data.views.policy import Mixing, ViewPolicy
from kd.data.views.views import EpochViews, Labels, ViewStream
from kd.logits import StoredLogits, store_logits
from kd.methods.method import Seen
from kd.methods.soft_targets import SoftTargets, soft_target_loss
from kd.objective import CachedTeacher, Distillation, HardLabels, OnlineTeacher
from kd.recipe import LogitsFormat
from tests.kd.helpers import CPU, loss_of, noisy_model, normal, views_of


@dataclass
class Table:
    """A teacher with the same logits in every epoch, that notes what it is asked."""

    logits_NC: Tensor
    epochs: list[EpochViews] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)

    def start_epoch(self, views: EpochViews) -> None:
        self.epochs.append(views)

    def seen(self, index_B: Tensor, *, temperature: float) -> Seen:
        self.temperatures.append(temperature)
        return Seen(self.logits_NC[index_B])


# A batch of 16 out of 40 samples, not in order.
INDEX = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:16]
STUDENT, TEACHER = normal(16, 10, scale=3), normal(40, 10, scale=3, seed=1).half()
FIRST, SECOND = torch.randint(10, (2, 16), generator=torch.Generator().manual_seed(2))
PLAIN = Labels(FIRST)
MIXED = Labels(FIRST, SECOND, torch.rand(16, generator=torch.Generator().manual_seed(3)))


def cross_entropies(logits_BC: Tensor, labels_B: Tensor, label_smoothing: float) -> np.ndarray:
    """-sum_c t_c log p_c of each sample in float64, t the label's 1 less the smoothing, which is shared by all."""
    x_BC = logits_BC.double().numpy()
    log_p_BC = x_BC - np.log(np.exp(x_BC).sum(axis=1, keepdims=True))
    target_BC = np.full_like(x_BC, label_smoothing / x_BC.shape[1])
    target_BC[np.arange(len(x_BC)), labels_B.numpy()] += 1 - label_smoothing
    return np.asarray(-(target_BC * log_p_BC).sum(axis=1))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_hard_labels_are_smoothed_cross_entropy(label_smoothing: float) -> None:
    loss = loss_of(HardLabels(label_smoothing=label_smoothing), STUDENT, PLAIN, index_B=INDEX)
    assert loss.item() == pytest.approx(cross_entropies(STUDENT, FIRST, label_smoothing).mean(), rel=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_mixed_image_is_charged_for_both_labels_by_their_weights(label_smoothing: float) -> None:
    assert MIXED.weight_B is not None
    weight_B = MIXED.weight_B.double().numpy()
    first_B, second_B = (cross_entropies(STUDENT, labels_B, label_smoothing) for labels_B in (FIRST, SECOND))
    expected = (weight_B * first_B + (1 - weight_B) * second_B).mean()
    loss = loss_of(HardLabels(label_smoothing=label_smoothing), STUDENT, MIXED, index_B=INDEX)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert abs(expected - first_B.mean()) > 0.1


def test_a_mixed_image_of_full_weight_is_charged_for_its_own_label() -> None:
    alone = Labels(FIRST, SECOND, torch.ones(16))
    loss = loss_of(HardLabels(label_smoothing=0), STUDENT, alone, index_B=INDEX)
    assert loss.item() == pytest.approx(F.cross_entropy(STUDENT, FIRST).item(), rel=1e-6)


@pytest.mark.parametrize("labels", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_hard_labels_compute_in_float32_whatever_the_logits_are(labels: Labels) -> None:
    hard = HardLabels(label_smoothing=0)
    loss = loss_of(hard, STUDENT.bfloat16(), labels, index_B=INDEX)
    assert loss.dtype == torch.float32
    assert loss.item() == loss_of(hard, STUDENT.bfloat16().float(), labels, index_B=INDEX).item()


@pytest.mark.parametrize("labels", [PLAIN, MIXED], ids=["plain", "mixed"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_alpha_zero_is_hard_labels(label_smoothing: float, labels: Labels) -> None:
    objective = Distillation(SoftTargets(temperature=4, alpha=0), Table(TEACHER), label_smoothing=label_smoothing)
    hard = loss_of(HardLabels(label_smoothing=label_smoothing), STUDENT, labels, index_B=INDEX)
    assert loss_of(objective, STUDENT, labels, index_B=INDEX).item() == hard.item()


def test_alpha_one_is_the_soft_term_of_the_batchs_samples() -> None:
    objective = Distillation(SoftTargets(temperature=20, alpha=1), Table(TEACHER), label_smoothing=0)
    soft = soft_target_loss(STUDENT, TEACHER[INDEX], temperature=20)
    in_order = soft_target_loss(STUDENT, TEACHER[:16], temperature=20)
    assert loss_of(objective, STUDENT, PLAIN, index_B=INDEX).item() == soft.item()
    assert soft.item() != in_order.item()


@pytest.mark.parametrize("labels", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_alpha_weights_the_soft_term_and_the_rest_goes_to_the_labels(labels: Labels) -> None:
    objective = Distillation(SoftTargets(temperature=4, alpha=0.9), Table(TEACHER), label_smoothing=0)
    soft = soft_target_loss(STUDENT, TEACHER[INDEX], temperature=4).item()
    hard = loss_of(HardLabels(label_smoothing=0), STUDENT, labels, index_B=INDEX).item()
    assert abs(soft - hard) > 0.1  # or the weights could not be told apart
    loss = loss_of(objective, STUDENT, labels, index_B=INDEX).item()
    assert loss == pytest.approx(0.9 * soft + 0.1 * hard, rel=1e-6)


def test_the_gradient_reaches_the_student_alone() -> None:
    leaf_BC = STUDENT.clone().requires_grad_()
    objective = Distillation(SoftTargets(temperature=4, alpha=0.5), Table(TEACHER), label_smoothing=0)
    (gradient_BC,) = torch.autograd.grad(loss_of(objective, leaf_BC, PLAIN, index_B=INDEX), leaf_BC)
    assert gradient_BC.norm() > 0
    assert not TEACHER.requires_grad


@pytest.fixture
def views(digits: Dataset) -> ViewStream:
    return views_of(digits, ViewPolicy(crop_padding=1, horizontal_flip=True))


def test_the_teacher_is_told_of_each_epoch_and_asked_at_the_temperature(views: ViewStream) -> None:
    teacher = Table(TEACHER)
    objective = Distillation(SoftTargets(temperature=3, alpha=0.5), teacher, label_smoothing=0)
    epochs = [views.epoch(epoch) for epoch in (0, 4)]
    for epoch_views in epochs:
        objective.start_epoch(epoch_views, progress=1.0)
        loss_of(objective, STUDENT, PLAIN, index_B=INDEX)
    assert [seen is expected for seen, expected in zip(teacher.epochs, epochs, strict=True)] == [True, True]
    assert teacher.temperatures == [3, 3]


def test_a_cached_teacher_reads_once_an_epoch_what_belongs_to_its_views(views: ViewStream) -> None:
    asked: list[int | None] = []

    def read(of: EpochViews) -> StoredLogits:
        asked.append(of.epoch)
        return StoredLogits(TEACHER * (of.epoch or 0), 10)

    teacher = CachedTeacher(read, device=CPU)
    for epoch in (1, 3):
        teacher.start_epoch(views.epoch(epoch))
        for _ in range(2):
            assert torch.equal(teacher.seen(INDEX, temperature=4).logits_BC, (TEACHER * epoch)[INDEX])
    assert asked == [1, 3]


def test_a_cached_teacher_needs_an_epoch() -> None:
    with pytest.raises(AssertionError, match="start_epoch comes first"):
        CachedTeacher(lambda views: StoredLogits(TEACHER, 10), device=CPU).seen(INDEX, temperature=4)


def test_what_is_kept_of_the_top_k_depends_on_the_temperature(views: ViewStream) -> None:
    stored = store_logits(TEACHER, LogitsFormat(dtype="float32", top_k=3), what="x")
    for temperature in (1.0, 4.0):
        teacher = CachedTeacher(lambda views: stored, device=CPU)
        objective = Distillation(SoftTargets(temperature=temperature, alpha=1), teacher, label_smoothing=0)
        objective.start_epoch(views.epoch(0), progress=1.0)
        expected = soft_target_loss(STUDENT, stored.at(INDEX, temperature=temperature), temperature=temperature)
        assert loss_of(objective, STUDENT, PLAIN, index_B=INDEX).item() == expected.item()
    assert not torch.equal(stored.at(INDEX, temperature=1), stored.at(INDEX, temperature=4))


class Seeing(nn.Module):
    """Notes what the teacher is shown, and in which precision it computes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = nn.Linear(size * size, 10)
        self.shown: list[Tensor] = []
        self.computed: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.shown.append(x)
        logits_BC: Tensor = self.head(x.flatten(1))
        self.computed.append(logits_BC.dtype)
        return logits_BC


@pytest.mark.parametrize("size", [None, 12])
def test_an_online_teacher_sees_the_students_views_at_its_own_size(digits: Dataset, size: int | None) -> None:
    policy = ViewPolicy(crop_padding=1, horizontal_flip=True, cutout=2, mixing=Mixing(mixup_alpha=1.0))
    students, teachers = views_of(digits, policy, size=16), views_of(digits, policy, size=size)
    model = Seeing(size or 8).train()
    teacher = OnlineTeacher(model, pixels=Pixels.of(digits.meta, size=size, device=CPU), precision="float32")
    for epoch in (0, 2):
        teacher.start_epoch(students.epoch(epoch))
        logits_BC = teacher.seen(INDEX, temperature=4).logits_BC
        assert not logits_BC.requires_grad
        assert torch.equal(model.shown[-1], teachers.epoch(epoch).batch(INDEX))
    assert model.shown[0].shape == (16, 1, size or 8, size or 8)
    assert not torch.equal(model.shown[0], model.shown[1])


def test_an_online_teachers_logits_are_float32_whatever_it_computes_in(digits: Dataset, views: ViewStream) -> None:
    model = Seeing(8)
    for precision in ("float32", "bfloat16", "auto"):
        pixels = Pixels.of(digits.meta, size=None, device=CPU)
        teacher = OnlineTeacher(model, pixels=pixels, precision=precision)
        teacher.start_epoch(views.epoch(0))
        assert teacher.seen(INDEX, temperature=4).logits_BC.dtype == torch.float32
    assert model.computed == [torch.float32, torch.bfloat16, torch.float32]


def test_an_online_teacher_is_in_eval_mode_and_nothing_of_it_changes(digits: Dataset, views: ViewStream) -> None:
    model = noisy_model(0).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    teacher = OnlineTeacher(model, pixels=Pixels.of(digits.meta, size=None, device=CPU), precision="float32")
    objective = Distillation(SoftTargets(temperature=4, alpha=1), teacher, label_smoothing=0)
    objective.start_epoch(views.epoch(0), progress=1.0)
    leaf_BC = STUDENT.clone().requires_grad_()
    first = loss_of(objective, leaf_BC, PLAIN, index_B=INDEX)
    first.backward()  # type: ignore[no-untyped-call]
    assert first.item() == loss_of(objective, leaf_BC, PLAIN, index_B=INDEX).item()  # no dropout
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_mixed_views_teach_the_teachers_logits_of_the_mixed_image(digits: Dataset, views: ViewStream) -> None:
    """One softmax of the mixed image, not a mixture of two."""
    mixed = views_of(digits, replace(views.views, mixing=Mixing(mixup_alpha=1.0)))
    model = noisy_model(0)
    teacher = OnlineTeacher(model, pixels=mixed.pixels, precision="float32")
    teacher.start_epoch(mixed.epoch(1))
    with torch.no_grad():
        expected_BC = model(mixed.epoch(1).batch(INDEX))
    assert torch.equal(teacher.seen(INDEX, temperature=4).logits_BC, expected_BC)
