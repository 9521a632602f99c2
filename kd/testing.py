"""What every method of distillation has to hold, as tests to subclass, which pytest then runs:

    class TestFocal(MethodTestCase):
        method = Focal(gamma=2.0)

What its loss is, and which values of its parameters it refuses, is for tests of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from kd.data.views.views import Labels
from kd.methods.method import Batch, Facts, Method, Needs, Seen, Term
from kd.training.learner import build_beside

SPLIT, IMAGES, CLASSES = 64, 12, 7


@dataclass(frozen=True)
class Inputs:
    """A batch of a training split: what student and teacher see in it."""

    student: Seen
    teacher: Seen
    index_B: Tensor
    labels_N: Tensor
    """of the split"""

    @property
    def labels(self) -> Tensor:
        """[B]"""
        return self.labels_N[self.index_B]

    @property
    def classes(self) -> int:
        return self.student.logits_BC.shape[1]

    def of(self, images: Tensor) -> Inputs:
        """Some of the images, by their places in the batch, in this order."""
        student, teacher = (changed(seen, lambda tensor: tensor[images]) for seen in (self.student, self.teacher))
        return replace(self, student=student, teacher=teacher, index_B=self.index_B[images])


def draw_inputs(needs: Needs = Needs.LOGITS, *, seed: int = 0) -> Inputs:
    """12 images out of 64, of 7 classes; logits with a standard deviation of 3, and what else a method needs of a
    teacher, of both sides, in other sizes."""
    generator = torch.Generator().manual_seed(seed)

    def seen(width: int) -> Seen:
        logits_BC = torch.randn(IMAGES, CLASSES, generator=generator) * 3
        embedding_BD = torch.randn(IMAGES, width, generator=generator) if Needs.EMBEDDING in needs else None
        maps = {"last": torch.randn(IMAGES, width, 4, 4, generator=generator)} if Needs.MAPS in needs else {}
        return Seen(logits_BC, embedding_BD, maps)

    student, teacher = seen(5), seen(6)
    index_B = torch.randperm(SPLIT, generator=generator)[:IMAGES]
    return Inputs(student, teacher, index_B, torch.randint(0, CLASSES, (SPLIT,), generator=generator))


def changed(seen: Seen, change: Callable[[Tensor], Tensor]) -> Seen:
    """With each of its tensors changed, in the order of `tensors_of`."""
    return Seen(
        change(seen.logits_BC),
        None if seen.embedding_BD is None else change(seen.embedding_BD),
        {tap: change(map_BDHW) for tap, map_BDHW in seen.maps.items()},
    )


def tensors_of(seen: Seen) -> list[Tensor]:
    return [tensor for tensor in (seen.logits_BC, seen.embedding_BD, *seen.maps.values()) if tensor is not None]


def terms_of(
    method: Method, inputs: Inputs, *, beside: nn.Module | None = None, progress: float = 1.0
) -> dict[str, Term]:
    """The method's terms, its cross-entropy without smoothing; beside what it makes anew unless it is given."""
    labels_B = inputs.labels
    batch = Batch(
        labels=Labels(labels_B),
        index_B=inputs.index_B,
        cross_entropy=lambda logits_BC: F.cross_entropy(logits_BC.float(), labels_B),
        progress=progress,
        key=("testing",),
    )
    beside = beside_of(method, inputs) if beside is None else beside
    return method.terms(inputs.student, inputs.teacher, batch, beside)


def beside_of(method: Method, inputs: Inputs) -> nn.Module:
    return build_beside(method, Facts(classes=inputs.classes, labels_N=inputs.labels_N), seed=0)


def total(terms: dict[str, Term]) -> Tensor:
    """The loss."""
    return torch.stack([term.weight * term.value for term in terms.values()]).sum()


class MethodTestCase:
    method: Method
    logits: tuple[Tensor, Tensor, Tensor] | None = None
    """the student's [B, C], the teacher's [B, C] and labels [B], where the drawn ones will not do"""

    def inputs(self) -> Inputs:
        if self.logits is None:
            return draw_inputs(self.method.needs)
        student_BC, teacher_BC, labels_B = self.logits
        return Inputs(Seen(student_BC), Seen(teacher_BC), torch.arange(len(labels_B)), labels_B)

    def loss(self, inputs: Inputs, *, beside: nn.Module | None = None) -> Tensor:
        return total(terms_of(self.method, inputs, beside=beside))

    def test_it_is_told_whole(self) -> None:
        kind = type(self.method)
        assert "__doc__" in vars(kind), f"{kind.__name__} needs a docstring: the formula and its source"
        assert not str(kind.__doc__).startswith(f"{kind.__name__}("), "a dataclass writes this docstring itself"
        assert self.method.name
        assert self.method.formula
        assert self.method.source
        assert isinstance(self.method.needs, Needs)
        assert type(self.method.version) is int
        assert self.method.version >= 1

    def test_its_parameters_are_what_it_is_made_of(self) -> None:
        """They are part of an id, as JSON, and what it is made from again."""
        kind, params = type(self.method), self.method.params
        assert kind(**params) == self.method
        assert kind(**json.loads(json.dumps(params, allow_nan=False))) == self.method
        assert kind().params.keys() == params.keys(), "each has a default"
        assert _raised(lambda: setattr(self.method, next(iter(params), "x"), 1)) is dataclasses.FrozenInstanceError
        strange = {"strange": 1}
        assert _raised(lambda: kind(**params, **strange)) is TypeError

    def test_its_terms_are_scalars_with_names_that_stay(self) -> None:
        inputs = self.inputs()
        terms = terms_of(self.method, inputs)
        for name, term in terms.items():
            assert name.isidentifier(), f"{name!r} becomes the column train_loss_{name}"
            assert term.value.shape == (), name
            assert term.value.dtype == torch.float32, name
        first = terms_of(self.method, inputs.of(torch.arange(2)), progress=0.01)
        assert list(first) == list(terms)

    def test_the_gradient_reaches_the_student_alone(self) -> None:
        """And all that is learned beside it: DistributedDataParallel waits for each parameter."""
        inputs = self.inputs()
        before = [tensor.clone() for tensor in tensors_of(inputs.teacher)]
        student = changed(inputs.student, lambda tensor: tensor.clone().requires_grad_(True))
        beside = beside_of(self.method, inputs)
        self.loss(replace(inputs, student=student), beside=beside).backward()  # type: ignore[no-untyped-call]
        assert sum(leaf.grad.abs().sum().item() for leaf in tensors_of(student) if leaf.grad is not None) > 0
        for name, parameter in beside.named_parameters():
            assert parameter.grad is not None, f"{name} gets no gradient"
        for tensor, original in zip(tensors_of(inputs.teacher), before, strict=True):
            assert not tensor.requires_grad
            assert torch.equal(tensor, original), "what the teacher said was changed in place"

    def test_the_gradient_is_the_slope_of_the_loss(self) -> None:
        """In float64 by finite differences wherever its float32 comes of `.float()`, and in float32 as there; else by
        differences of float32 losses, which are only good to a few per cent."""
        inputs = self.inputs()
        parts = tensors_of(inputs.student)

        def loss(*leaves: Tensor) -> Tensor:
            left = iter(leaves)
            return self.loss(replace(inputs, student=changed(inputs.student, lambda _: next(left))))

        def in_double(*leaves: Tensor) -> Tensor:
            wide = replace(inputs, teacher=changed(inputs.teacher, Tensor.double))
            left = iter(leaves)
            with _FloatIsDouble():
                student = changed(inputs.student, lambda _: next(left))
                return self.loss(replace(wide, student=student), beside=beside_of(self.method, inputs).double())

        def slope(function: Callable[..., Tensor], leaves: list[Tensor]) -> float:
            leaves = [leaf.clone().requires_grad_(True) for leaf in leaves]
            found = torch.autograd.grad(function(*leaves), leaves, allow_unused=True)
            pairs = zip(found, direction, strict=True)
            return sum((slope.double() * along).sum().item() for slope, along in pairs if slope is not None)

        generator = torch.Generator().manual_seed(1)
        direction = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in parts]
        narrow = slope(loss, parts)
        wide_parts = [part.double() for part in parts]
        if in_double(*wide_parts).dtype == torch.float64:
            assert torch.autograd.gradcheck(in_double, tuple(part.requires_grad_(True) for part in wide_parts))
            wide = slope(in_double, [part.detach() for part in wide_parts])
            assert math.isclose(narrow, wide, rel_tol=1e-4, abs_tol=1e-5), (narrow, wide)
        else:
            step = 1e-2
            up, down = (
                loss(*(part + sign * step * along.float() for part, along in zip(parts, direction, strict=True))).item()
                for sign in (1, -1)
            )
            assert math.isclose(narrow, (up - down) / (2 * step), rel_tol=0.05, abs_tol=0.01), (narrow, up, down)

    def test_the_order_of_images_does_not_matter(self) -> None:
        inputs = self.inputs()
        shuffled = inputs.of(torch.randperm(len(inputs.index_B), generator=torch.Generator().manual_seed(1)))
        assert _close(self.loss(shuffled), self.loss(inputs), rel=1e-6)

    def test_it_is_a_mean_over_images_unless_it_says_otherwise(self) -> None:
        inputs = self.inputs()
        half = len(inputs.index_B) // 2
        whole = self.loss(inputs.of(torch.arange(2 * half)))
        halves = [self.loss(inputs.of(torch.arange(start, start + half))) for start in (0, half)]
        is_mean = _close((halves[0] + halves[1]) / 2, whole, rel=1e-6)
        assert is_mean is not self.method.batch_coupled, f"batch_coupled is {self.method.batch_coupled}"

    def test_it_is_finite_wherever_logits_are(self) -> None:
        """The student sure of a wrong class, the teacher of the label."""
        inputs = self.inputs()
        images_B = torch.arange(len(inputs.index_B))
        wrong_B = (inputs.labels + 1) % inputs.classes
        for gap, dtype in product((110.0, 1000.0), (torch.float32, torch.bfloat16)):
            student = changed(inputs.student, partial(Tensor.to, dtype=dtype, copy=True))
            teacher = changed(inputs.teacher, partial(Tensor.to, dtype=dtype, copy=True))
            student.logits_BC[images_B, wrong_B] = gap
            teacher.logits_BC[images_B, inputs.labels] = gap
            leaves = [leaf.requires_grad_(True) for leaf in tensors_of(student)]
            found = self.loss(replace(inputs, student=student, teacher=teacher))
            assert found.dtype == torch.float32, dtype
            assert math.isfinite(found.item()), (gap, dtype)
            found.backward()  # type: ignore[no-untyped-call]
            gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
            assert gradients
            assert all(torch.isfinite(gradient).all() for gradient in gradients), (gap, dtype)


def _raised(call: Callable[[], object]) -> type[Exception] | None:
    try:
        call()
    except Exception as error:
        return type(error)
    return None


def _close(a: Tensor, b: Tensor, *, rel: float) -> bool:
    return math.isclose(a.item(), b.item(), rel_tol=rel, abs_tol=1e-12)


class _FloatIsDouble(TorchFunctionMode):
    """Whatever is asked for in float32 comes in float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return (Tensor.double if func is Tensor.float else func)(*args, **(kwargs or {}))
