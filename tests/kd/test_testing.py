"""The tests that a user's method inherits: good methods pass them, and each catches a method that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from kd.methods.method import Batch, Facts, Method, Needs, Seen, Term
from kd.methods.soft_targets import SoftTargets, soft_target_loss
from kd.testing import MethodTestCase, draw_inputs
from tests.kd.methods.own import OfEmbeddings, Smoothing, WithBank


class TestOfEmbeddings(MethodTestCase):
    method = OfEmbeddings()


class TestSmoothing(MethodTestCase):
    method = Smoothing(epsilon=0.3)


class TestWithLogitsOfItsOwn(MethodTestCase):
    method = SoftTargets(temperature=2.0)
    logits = (torch.linspace(-3, 3, 24).view(8, 3), torch.linspace(2, -2, 24).view(8, 3) ** 2, torch.arange(8) % 3)


class WithoutDropout(WithBank):
    """Whose masks go by the place in the batch."""

    def beside(self, facts: Facts) -> nn.Module:
        made = super().beside(facts)
        made.adapter[2].p = 0.0  # type: ignore[index, union-attr]
        return made


class TestWithBank(MethodTestCase):
    method = WithoutDropout()


class Wrong(SoftTargets):
    """As kd, but for what a test changes of it."""

    change: ClassVar[Callable[[Seen, Seen], Tensor]]

    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        return {"kd": Term(1.0, type(self).change(student, teacher))}


def plain(student: Seen, teacher: Seen) -> Tensor:
    return soft_target_loss(student.logits_BC, teacher.logits_BC, temperature=4)


def overflowing(student: Seen, teacher: Seen) -> Tensor:
    p_BC, q_BC = (seen.logits_BC.float().softmax(dim=1) for seen in (teacher, student))
    return (p_BC * (p_BC / q_BC).log()).sum(dim=1).mean()


def half_detached(student: Seen, teacher: Seen) -> Tensor:
    scale = student.logits_BC.float().std(dim=1, keepdim=True).detach()
    return plain(Seen(student.logits_BC / scale), teacher)


def changing_the_teacher(student: Seen, teacher: Seen) -> Tensor:
    teacher.logits_BC.sub_(teacher.logits_BC.mean(dim=1, keepdim=True))
    return plain(student, teacher)


def of_the_order(student: Seen, teacher: Seen) -> Tensor:
    weight_B1 = torch.linspace(0, 1, len(student.logits_BC))[:, None]
    return plain(Seen(student.logits_BC * weight_B1), teacher)


def of_the_batch(student: Seen, teacher: Seen) -> Tensor:
    return plain(Seen(student.logits_BC - student.logits_BC.mean(dim=0)), teacher)


def summed(student: Seen, teacher: Seen) -> Tensor:
    return plain(student, teacher) * len(student.logits_BC)


def of_the_teacher_alone(student: Seen, teacher: Seen) -> Tensor:
    return plain(teacher, Seen(teacher.logits_BC * 2)) + 0 * student.logits_BC.float().sum()


def in_the_type_of_the_logits(student: Seen, teacher: Seen) -> Tensor:
    return plain(student, teacher).to(student.logits_BC.dtype)


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (overflowing, "test_it_is_finite_wherever_logits_are"),
        (in_the_type_of_the_logits, "test_it_is_finite_wherever_logits_are"),
        (half_detached, "test_the_gradient_is_the_slope_of_the_loss"),
        (changing_the_teacher, "test_the_gradient_reaches_the_student_alone"),
        (of_the_teacher_alone, "test_the_gradient_reaches_the_student_alone"),
        (of_the_order, "test_the_order_of_images_does_not_matter"),
        (of_the_batch, "test_it_is_a_mean_over_images_unless_it_says_otherwise"),
        (summed, "test_it_is_a_mean_over_images_unless_it_says_otherwise"),
    ],
)
def test_what_is_wrong_is_caught(change: Callable[[Seen, Seen], Tensor], caught_by: str) -> None:
    class Changed(Wrong):
        """Wrong."""

    case = MethodTestCase()
    case.method = Changed()
    Changed.change = staticmethod(plain)
    getattr(case, caught_by)()
    Changed.change = staticmethod(change)
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(case, caught_by)()


def test_a_gradient_in_float32_alone_is_compared_with_differences() -> None:
    def narrow(student: Seen, teacher: Seen) -> Tensor:
        return plain(Seen(student.logits_BC.to(torch.float32)), Seen(teacher.logits_BC.to(torch.float32))).to(
            torch.float32
        )

    def detached(student: Seen, teacher: Seen) -> Tensor:
        return narrow(student, teacher) * student.logits_BC.to(torch.float32).std().detach()

    class Changed(Wrong):
        """Wrong."""

    case = MethodTestCase()
    case.method = Changed()
    Changed.change = staticmethod(narrow)
    case.test_the_gradient_is_the_slope_of_the_loss()
    Changed.change = staticmethod(detached)
    with pytest.raises(AssertionError):
        case.test_the_gradient_is_the_slope_of_the_loss()


def test_a_method_that_says_it_is_of_the_batch_and_is_not_is_caught() -> None:
    class Coupled(SoftTargets):
        """Not so."""

        batch_coupled = True

    case = MethodTestCase()
    case.method = Coupled()
    with pytest.raises(AssertionError, match="batch_coupled is True"):
        case.test_it_is_a_mean_over_images_unless_it_says_otherwise()


def test_a_method_without_a_docstring_or_that_can_be_changed_is_caught() -> None:
    @dataclass
    class Open(Method):
        name: ClassVar[str] = "open"
        formula: ClassVar[str] = "CE"
        source: ClassVar[str] = "tests"
        needs: ClassVar[Needs] = Needs.LOGITS

        weight: float = 1.0

        def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
            return {"ce": Term(self.weight, batch.cross_entropy(student.logits_BC))}

    case = MethodTestCase()
    case.method = Open()
    with pytest.raises(AssertionError, match="a dataclass writes this docstring itself"):
        case.test_it_is_told_whole()
    with pytest.raises(AssertionError):
        case.test_its_parameters_are_what_it_is_made_of()


def test_what_is_drawn_is_what_the_method_needs() -> None:
    inputs = draw_inputs(Needs.LOGITS | Needs.EMBEDDING | Needs.MAPS)
    for seen in (inputs.student, inputs.teacher):
        assert seen.embedding_BD is not None
        assert seen.embedding_BD.shape[0] == seen.maps["last"].shape[0] == 12
    assert draw_inputs(Needs.LOGITS).student.embedding_BD is None
    assert str(Needs.LOGITS | Needs.EMBEDDING) == "logits and embedding"
    assert str(Needs.NOTHING) == "nothing"
