"""What every method of distillation must hold, whichever there are: nobody adds one that is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd.methods import METHODS, method_of
from kd.methods.method import Method, Seen
from kd.testing import CLASSES, Inputs, MethodTestCase, draw_inputs, terms_of, total
from tests.kd.methods import formulas

GOLDENS = Path(__file__).parents[4] / "shared" / "methods" / "goldens.json"
DOCS = Path(__file__).parents[3] / "docs" / "methods"
METHOD = pytest.mark.parametrize("method", [kind() for kind in METHODS.values()], ids=list(METHODS))


def loss(method: Method, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
    return total(terms_of(method, Inputs(Seen(student_BC), Seen(teacher_BC), torch.arange(len(labels_B)), labels_B)))


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    inputs = draw_inputs(seed=seed)
    return inputs.student.logits_BC, inputs.teacher.logits_BC, inputs.labels


class TestAll(MethodTestCase):
    @pytest.fixture(autouse=True, params=list(METHODS))
    def of_the_table(self, request: pytest.FixtureRequest) -> None:
        self.method = METHODS[request.param]()


def test_names_are_those_of_the_table_and_no_two_methods_share_a_class() -> None:
    assert {kind.name: kind for kind in METHODS.values()} == METHODS


@METHOD
def test_each_has_a_page_with_its_parameters(method: Method) -> None:
    page = (DOCS / f"{method.name}.md").read_text()
    assert all(f"`{name}`" in page for name in method.params)


@METHOD
def test_it_is_made_from_its_name_and_parameters(method: Method) -> None:
    assert method_of(method.name, method.params) == method
    with pytest.raises(TypeError, match="strange"):
        method_of(method.name, {"strange": 1})


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no method 'kdd'; there are {', '.join(METHODS)}"):
        method_of("kdd", {})


@METHOD
def test_its_loss_is_the_formula_in_float64(method: Method) -> None:
    expected: Callable[..., float] = getattr(formulas, method.name)
    for seed in range(3):
        student_BC, teacher_BC, labels_B = drawn(seed=seed)
        found = loss(method, student_BC, teacher_BC, labels_B).item()
        by_hand = expected(
            student_BC.double().numpy(), teacher_BC.double().numpy(), labels_B.numpy(), progress=1.0, **method.params
        )
        assert found == pytest.approx(by_hand, rel=2e-6)


@METHOD
def test_the_order_of_classes_does_not_matter(method: Method) -> None:
    student_BC, teacher_BC, labels_B = drawn()
    expected = loss(method, student_BC, teacher_BC, labels_B).item()
    classes = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(2))
    renamed_B = classes.argsort()[labels_B]
    assert loss(method, student_BC[:, classes], teacher_BC[:, classes], renamed_B).item() == pytest.approx(expected)


@METHOD
def test_it_says_whether_it_softens_the_teacher_once(method: Method) -> None:
    """Adding a constant to a teacher's logits changes no softmax, and so nothing of any method here; scaling the ones
    that are not the largest does."""
    student_BC, teacher_BC, labels_B = drawn()
    expected = loss(method, student_BC, teacher_BC, labels_B).item()
    assert loss(method, student_BC, teacher_BC + 100, labels_B).item() == pytest.approx(expected, rel=1e-4)
    assert method.several_temperatures or method.softened_at == method.params["temperature"]


@METHOD
def test_a_student_learns_by_it(method: Method) -> None:
    """64 images of noise, by heart, from a teacher that knows them."""
    generator = torch.Generator().manual_seed(3)
    images_BD, labels_B = (
        torch.randn(64, 32, generator=generator),
        torch.randint(0, CLASSES, (64,), generator=generator),
    )
    teacher_BC = 4.0 * F.one_hot(labels_B, CLASSES).float() + torch.randn(64, CLASSES, generator=generator)
    torch.manual_seed(0)
    student = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, CLASSES))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss(method, student(images_BD), teacher_BC, labels_B).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (student(images_BD).argmax(dim=1) == labels_B).float().mean() > 0.95


def goldens() -> list[dict[str, Any]]:
    if not GOLDENS.exists():
        return []
    return [case for case in json.loads(GOLDENS.read_text())["cases"] if case["method"] in METHODS]


@pytest.mark.skipif(not GOLDENS.exists(), reason="the values of the methods' own code are not at hand")
@pytest.mark.parametrize("case", goldens(), ids=lambda case: case["name"])
def test_it_gives_what_its_authors_code_gives(case: dict[str, Any]) -> None:
    """The part of the loss that is no cross-entropy, and its derivative in one direction."""

    def normal(key: int, scale: float) -> np.ndarray:
        return np.random.default_rng([101, key]).normal(size=(16, 100)) * scale

    labels_B = np.random.default_rng([101, 0]).integers(0, 100, 16)
    teacher_BC = normal(2, 3.0)
    teacher_BC[np.arange(12), labels_B[:12]] += 6
    student_BC = torch.from_numpy(normal(1, 2.0)).float().requires_grad_(True)
    fields = METHODS[case["method"]]().params
    params = {name: value for name, value in case["params"].items() if name in fields}
    method = method_of(case["method"], {**params, **({"alpha": 1.0} if case["method"] == "kd" else {})})
    seen = Seen(student_BC), Seen(torch.from_numpy(teacher_BC).float())
    terms = terms_of(method, Inputs(*seen, torch.arange(16), torch.from_numpy(labels_B)))
    found = torch.stack([term.weight * term.value for name, term in terms.items() if name != "ce"]).sum()
    assert found.item() == pytest.approx(case["values"]["101"], rel=2e-6)
    found.backward()  # type: ignore[no-untyped-call]
    assert student_BC.grad is not None
    direction_BC = np.random.default_rng([101, 1001]).normal(size=(16, 100))
    derivative = float((student_BC.grad.double().numpy() * direction_BC).sum())
    assert derivative == pytest.approx(case["directional_derivative"]["values"]["101"], rel=1e-4, abs=1e-5)
