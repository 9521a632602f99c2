"""What is learned beside a student: where it starts, what sees it, how it is gone on with; and that the teacher is no
part of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kd.checkpoint import CheckpointError, state_from_bytes, state_to_bytes
from kd.data.dataset import Dataset
from kd.data.views.pixels import Pixels
from kd.data.views.views import EpochViews
from kd.logits import StoredLogits
from kd.methods.decoupled import Decoupled
from kd.methods.method import Facts, Method
from kd.methods.soft_targets import SoftTargets
from kd.objective import CachedTeacher, Distillation, OnlineTeacher
from kd.recipe import Recipe
from kd.training.learner import Learner, build_beside
from kd.training.resume import fitting_state
from kd.training.state import CurveRow, TrainState
from tests.kd.helpers import CPU, AnyRow, flat, linear, noisy_model, normal, same_weights, untimed, views_of
from tests.kd.methods.own import WithBank
from tests.kd.training.test_resume import AUGMENTED, RECIPES

Run = Callable[..., list[AnyRow]]
Evaluate = Callable[[nn.Module], CurveRow]

RECIPE = replace(RECIPES["adamw, warm-up, clipping, average"], epochs=2)
METHOD = WithBank()


def cached(method: Method) -> Distillation:
    def read(views: EpochViews) -> StoredLogits:
        return StoredLogits(normal(300, 10, scale=3, seed=views.epoch or 0), 10)

    return Distillation(method, CachedTeacher(read, device=CPU), label_smoothing=0)


def beside(digits: Dataset, *, seed: int = 0, method: Method = METHOD) -> nn.Module:
    return build_beside(method, Facts(classes=10, labels_N=digits.train.labels_N), seed=seed)


def with_bank(run: Run, digits: Dataset, model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> Any:
    """A run's curve, states as bytes, and what it learned beside the model."""
    written: list[bytes] = []
    defaults: dict[str, Any] = {
        "beside": beside(digits),
        "objective": cached(METHOD),
        "on_state": lambda state: written.append(state_to_bytes(state.to_dict())),
        "save_now": lambda: True,
    }
    options = defaults | options
    return run(model, recipe, **options), written, options["beside"]


def test_what_is_beside_depends_on_its_own_seed_and_is_nothing_of_most_methods(digits: Dataset) -> None:
    torch.manual_seed(1)
    first = beside(digits, seed=3)
    torch.manual_seed(2)
    again, other = beside(digits, seed=3), beside(digits, seed=4)
    assert same_weights(first, again)
    assert not torch.equal(flat(first), flat(other))
    assert METHOD.has_beside
    for method in (SoftTargets(), Decoupled()):
        assert not method.has_beside
        assert not beside(digits, method=method).state_dict()


def test_a_learner_is_the_student_first_and_says_what_it_sees(digits: Dataset) -> None:
    student, extra = noisy_model(0).eval(), beside(digits)
    learner = Learner(student, extra)
    assert [id(p) for p in learner.parameters()] == [id(p) for p in (*student.parameters(), *extra.parameters())]
    images_BCHW = views_of(digits, AUGMENTED).epoch(0).batch(torch.arange(4))
    seen = learner(images_BCHW)
    assert torch.equal(seen.logits_BC, student(images_BCHW))
    assert (seen.embedding_BD, dict(seen.maps)) == (None, {})


def test_what_is_beside_is_trained_and_saved_and_no_part_of_the_model(
    run: Run, digits: Dataset, evaluate: Evaluate
) -> None:
    evaluated: list[nn.Module] = []

    def note(model: nn.Module) -> CurveRow:
        evaluated.append(model)
        return evaluate(model)

    model, start = noisy_model(0), beside(digits).state_dict()
    curve, written, extra = with_bank(run, digits, model, evaluate=note)
    state = TrainState.from_dict(state_from_bytes(written[-1]))
    assert list(state.model) == list(state.averaged or {}) == list(noisy_model(0).state_dict())
    assert all(list(seen.state_dict()) == list(state.model) for seen in evaluated)
    assert state.beside.keys() == start.keys()
    assert all(torch.equal(value, extra.state_dict()[name]) for name, value in state.beside.items())
    for name in ("adapter.0.weight", "adapter.1.running_mean", "rows_NC"):
        assert not torch.equal(state.beside[name], start[name]), name
    (group,) = state.optimizer["param_groups"]
    assert len(group["params"]) == len([*model.parameters(), *extra.parameters()])
    assert {"train_loss_ce", "train_loss_adapted", "train_loss_bank"} <= curve[0].keys()


def test_it_is_gone_on_with_after_any_step_to_the_same_bits(run: Run, digits: Dataset, evaluate: Evaluate) -> None:
    whole = noisy_model(0)
    curve, written, extra = with_bank(run, digits, whole, evaluate=evaluate)
    for data in written:
        state = TrainState.from_dict(state_from_bytes(data))
        torch.rand(17)  # another process would not have the random state of this one
        model, new = noisy_model(9), beside(digits, seed=9)
        resumed, _, _ = with_bank(run, digits, model, beside=new, evaluate=evaluate, resume=state)
        assert untimed(resumed) == untimed(curve)
        assert same_weights(model, whole)
        assert same_weights(new, extra)


@pytest.mark.parametrize("part", ["beside", "terms_S"])
def test_each_of_its_parts_matters(run: Run, digits: Dataset, part: str) -> None:
    """Or the comparison of bits would say nothing of it."""
    curve, written, extra = with_bank(run, digits, noisy_model(0))
    state = TrainState.from_dict(state_from_bytes(written[6]))
    for tensor in getattr(state, part).values():
        tensor.add_(1)
    new = beside(digits)
    resumed, _, _ = with_bank(run, digits, noisy_model(0), beside=new, resume=state)
    assert untimed(resumed) != untimed(curve)
    assert same_weights(new, extra) is (part == "terms_S")


def test_a_state_fits_what_is_beside(run: Run, digits: Dataset) -> None:
    _, written, _ = with_bank(run, digits, noisy_model(0))
    state = state_from_bytes(written[6])

    def check(state: dict[str, Any], extra: nn.Module | None = None) -> TrainState:
        extra = beside(digits) if extra is None else extra
        return fitting_state(state, noisy_model(7), RECIPE, beside=extra, images=300, evaluated=[])

    assert check(state).step == 2
    missing = {name: value for name, value in state.items() if name != "beside"}
    with pytest.raises(CheckpointError, match=r"its weights \(beside\) are not the model's: adapter"):
        check(missing)
    with pytest.raises(CheckpointError, match=r"its weights \(beside\) are not the model's: adapter"):
        check(state, nn.Module())
    broken = {**state["beside"], "rows_NC": state["beside"]["rows_NC"] * torch.nan}
    with pytest.raises(CheckpointError, match=r"its weights \(beside\) are not finite: rows_NC"):
        check({**state, "beside": broken})
    for terms_S in ({"ce": torch.zeros(3)}, {"not a name": torch.zeros(5)}, {"ce": torch.zeros(5).long()}):
        with pytest.raises(CheckpointError, match="the sums of its epoch are not those of its terms"):
            check({**state, "terms_S": terms_S})
    with pytest.raises(CheckpointError, match="it holds something else"):
        check({**state, "terms_S": 7})


def test_a_student_starts_and_learns_as_it_would_without_what_has_no_part_in_its_loss(
    run: Run, digits: Dataset
) -> None:
    """Its bits are those of the same method with nothing beside."""
    recipe = replace(RECIPE, clip_norm=None)  # the norm is of all gradients
    alone, accompanied = noisy_model(0), noisy_model(0)
    curve = run(alone, recipe, objective=cached(SoftTargets()))
    extra = beside(digits)
    again = run(accompanied, recipe, objective=cached(SoftTargets()), beside=extra)
    assert untimed(again) == untimed(curve)
    assert same_weights(accompanied, alone)
    assert same_weights(extra, beside(digits))


def test_clipping_is_of_the_whole_gradient(run: Run, digits: Dataset) -> None:
    recipe = Recipe(
        epochs=1,
        batch_size=300,
        optimizer="sgd",
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        clip_norm=0.01,
    )
    model, extra = linear(), beside(digits)
    with_bank(run, digits, model, recipe, beside=extra)
    moved = torch.cat([flat(model) - flat(linear()), flat(extra) - flat(beside(digits))])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert (flat(extra) - flat(beside(digits))).norm() > 1e-4


@pytest.mark.parametrize("method", [SoftTargets(alpha=0.9), Decoupled(), METHOD], ids=lambda method: method.name)
def test_the_curve_has_the_mean_of_each_term(run: Run, digits: Dataset, method: Method) -> None:
    curve = run(linear(), RECIPE, objective=cached(method), beside=beside(digits, method=method))
    row = curve[-1]
    names = [name.removeprefix("train_loss_") for name in row if name.startswith("train_loss_")]
    weights = {
        "kd": {"kd": 0.9, "ce": 1 - 0.9},
        "dkd": {"tckd": 1.0, "nckd": 8.0, "ce": 1.0},
        "with_bank": {"ce": 0.5, "adapted": 1.0, "bank": 2.0},
    }[method.name]
    assert names == list(weights)
    total = sum(weight * row[f"train_loss_{name}"] for name, weight in weights.items())
    assert row["train_loss"] == pytest.approx(total, rel=1e-5)


def test_labels_alone_have_no_terms_in_the_curve(run: Run) -> None:
    curve = run(linear(), RECIPE)
    assert [name for name in curve[0] if name.startswith("train_loss")] == ["train_loss"]


def test_micro_batches_have_the_terms_of_the_batch(run: Run) -> None:
    method, recipe = SoftTargets(), replace(RECIPE, ema_decay=None, learning_rate=1e-12)
    (whole, parts) = (
        run(linear(), replace(recipe, micro_batch_size=size), objective=cached(method))[-1] for size in (None, 24)
    )
    for name in ("train_loss_kd", "train_loss_ce"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)


def test_an_epoch_that_began_when_no_terms_were_kept_has_none_in_its_row(run: Run, digits: Dataset) -> None:
    states: list[TrainState] = []
    whole = run(linear(), RECIPE, objective=cached(SoftTargets()), on_state=states.append, save_now=lambda: True)
    before = states[2].to_dict()
    del before["terms_S"], before["beside"]
    resumed = run(linear(), RECIPE, objective=cached(SoftTargets()), resume=TrainState.from_dict(before))
    ours = [name for name in whole[0] if name.startswith("train_loss_")]
    assert ours == ["train_loss_kd", "train_loss_ce"]
    assert not any(name in resumed[0] for name in ours)
    expected = [{name: value for name, value in whole[0].items() if name not in ours}, whole[1]]
    assert untimed(resumed) == untimed(expected)


def test_the_teacher_is_in_no_module_optimizer_or_checkpoint(
    run: Run, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = noisy_model(5)
    pixels = Pixels.of(digits.meta, size=None, device=CPU)
    objective = Distillation(METHOD, OnlineTeacher(teacher, pixels=pixels, precision="float32"), label_smoothing=0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    learners: list[nn.Module] = []
    optimizers: list[torch.optim.Optimizer] = []
    loop = importlib.import_module("kd.training.train")
    make = loop.make_optimizer

    def noted(*args: Any) -> torch.optim.Optimizer:
        optimizers.append(make(*args))
        return optimizers[-1]

    monkeypatch.setattr(loop, "make_optimizer", noted)

    def wrap(learner: nn.Module) -> nn.Module:
        learners.append(learner)
        return learner

    model = noisy_model(0)
    _, written, extra = with_bank(run, digits, model, objective=objective, wrap=wrap)
    of_the_teacher = {id(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}
    assert of_the_teacher
    ((learner,), (optimizer,)) = learners, optimizers
    assert not any(module is teacher for module in learner.modules())
    assert not of_the_teacher & {id(tensor) for tensor in (*learner.parameters(), *learner.buffers())}
    assert not of_the_teacher & {id(p) for group in optimizer.param_groups for p in group["params"]}
    state = TrainState.from_dict(state_from_bytes(written[-1]))
    assert len(state.model) + len(state.beside) == len(model.state_dict()) + len(extra.state_dict())
    assert len(state.optimizer["state"]) == len([*model.parameters(), *extra.parameters()])
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.fixture
def one_process(tmp_path: Path) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_wrapped_in_distributed_data_parallel_it_learns_the_same(run: Run, digits: Dataset) -> None:
    plain, wrapped = noisy_model(0), noisy_model(0)
    curve, _, extra = with_bank(run, digits, plain)
    parallel = nn.parallel.DistributedDataParallel
    again, _, other = with_bank(run, digits, wrapped, wrap=parallel)
    assert untimed(again) == untimed(curve)
    assert same_weights(wrapped, plain)
    assert same_weights(other, extra)
