from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kd.data.dataset import Dataset
from kd.data.views.policy import Mixing, ViewPolicy
from kd.data.views.views import ViewStream
from kd.logits import (
    StoredLogits,
    compute_logits,
    fingerprint,
    gather,
    logits_to_bytes,
    open_logits,
    store_logits,
)
from kd.methods.soft_targets import soft_target_loss
from kd.recipe import LogitsFormat
from tests.kd.helpers import MADE_FROM, noisy_model, normal, same_logits, through_a_file, views_of

AUGMENTED = ViewPolicy(crop_padding=1, horizontal_flip=True)
MIXED = replace(AUGMENTED, mixing=Mixing(mixup_alpha=0.4, cutmix_alpha=1.0))
FORMATS = [
    LogitsFormat(dtype="float16"),
    LogitsFormat(dtype="float32"),
    LogitsFormat(dtype="float16", top_k=3),
    LogitsFormat(dtype="float32", top_k=3),
]


@pytest.fixture
def views(digits: Dataset) -> ViewStream:
    return views_of(digits, AUGMENTED)


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_computes_in_eval_mode_and_is_not_touched(views: ViewStream, training: bool) -> None:
    teacher = noisy_model(0).train(training)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    logits_NC = compute_logits(teacher, views.epoch(2), batch_size=64, precision="float32")
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    again_NC = compute_logits(teacher, views.epoch(2), batch_size=64, precision="float32")
    assert torch.equal(logits_NC, again_NC)  # no dropout


@pytest.mark.parametrize("policy", [AUGMENTED, MIXED], ids=["augmented", "mixed"])
def test_logits_are_those_of_each_samples_view_in_order(digits: Dataset, policy: ViewPolicy) -> None:
    teacher, epoch = noisy_model(0).eval(), views_of(digits, policy).epoch(2)
    logits_NC = compute_logits(teacher, epoch, batch_size=64, precision="float32")
    assert logits_NC.shape == (300, 10)
    assert logits_NC.dtype == torch.float32
    index_B = torch.tensor([299, 0, 63, 64, 150])
    with torch.no_grad():
        expected_BC = teacher(epoch.batch(index_B))
    # Kernels may sum in another order for another batch size.
    torch.testing.assert_close(logits_NC[index_B], expected_BC, atol=1e-5, rtol=1e-5)


def test_another_epoch_has_other_logits(views: ViewStream) -> None:
    first, second = (
        compute_logits(noisy_model(0), views.epoch(e), batch_size=100, precision="float32") for e in (0, 1)
    )
    assert (first != second).any(dim=1).float().mean() > 0.8  # a view stays in one of 18


def test_the_teacher_computes_in_the_precision_asked_for(views: ViewStream) -> None:
    teacher = noisy_model(0)
    seen: list[torch.dtype] = []
    teacher[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for precision in ("float32", "bfloat16", "auto"):
        logits_NC = compute_logits(teacher, views.epoch(0), batch_size=300, precision=precision)
        assert logits_NC.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16, torch.float32]  # a CPU computes in float32 where it may choose


@pytest.mark.parametrize("stored_as", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(50, 7), (1, 4), (33, 300)])
def test_logits_come_back_from_a_file_as_they_were_stored(
    tmp_path: Path, stored_as: LogitsFormat, shape: tuple[int, int]
) -> None:
    stored = store_logits(normal(*shape, scale=10), stored_as, what="x")
    back = through_a_file(stored, tmp_path / "logits")
    assert len(back) == shape[0]
    assert same_logits(back, stored)
    # Files may be opened where they cannot be written, and are not written to.
    back.values.zero_()
    assert same_logits(
        open_logits(tmp_path / "logits", fingerprint=MADE_FROM, samples=shape[0], classes=shape[1]), stored
    )


def test_all_logits_are_kept_in_their_type() -> None:
    logits_NC = normal(50, 7, scale=10)
    for dtype, kept_NC in (("float16", logits_NC.half()), ("float32", logits_NC)):
        stored = store_logits(logits_NC, LogitsFormat(dtype=dtype), what="x")  # type: ignore[arg-type]
        assert torch.equal(stored.values, kept_NC)
        assert stored.values.dtype == kept_NC.dtype
        index_B = torch.tensor([3, 49, 3])
        for temperature in (1.0, 20.0):
            assert torch.equal(stored.at(index_B, temperature=temperature), kept_NC[index_B])


def test_a_file_takes_two_bytes_a_logit_and_a_small_header() -> None:
    data = logits_to_bytes(store_logits(normal(500, 100), LogitsFormat(), what="x"), fingerprint=MADE_FROM)
    assert 0 < len(data) - 2 * 500 * 100 < 300
    # Of ten a sample: two bytes of logit and one of class each, and two moments.
    top = store_logits(normal(500, 100), LogitsFormat(top_k=10), what="x")
    assert 0 < len(logits_to_bytes(top, fingerprint=MADE_FROM)) - 500 * (10 * 3 + 2 * 2) < 500


def test_logits_not_in_memory_order_roundtrip(tmp_path: Path) -> None:
    logits_NC = torch.arange(12.0).reshape(3, 4).T
    for stored_as in FORMATS:
        stored = store_logits(logits_NC, replace(stored_as, top_k=stored_as.top_k and 2), what="x")
        assert same_logits(through_a_file(stored, tmp_path / "logits"), stored)


def test_the_same_logits_are_the_same_bytes() -> None:
    for stored_as in FORMATS:
        first, second = (store_logits(normal(20, 10), stored_as, what="x") for _ in range(2))
        assert logits_to_bytes(first, fingerprint=MADE_FROM) == logits_to_bytes(second, fingerprint=MADE_FROM)


def test_float16_moves_the_loss_by_less_than_a_thousandth() -> None:
    student_BC, teacher_BC = normal(64, 100, scale=5), normal(64, 100, scale=5, seed=1)
    for temperature in (1.0, 4.0, 20.0):
        exact = soft_target_loss(student_BC, teacher_BC, temperature=temperature).item()
        stored = soft_target_loss(student_BC, teacher_BC.half(), temperature=temperature).item()
        assert stored == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("stored_as", FORMATS, ids=str)
def test_gathering_picks_each_samples_row_from_the_table_of_its_number(
    digits: Dataset, views: ViewStream, stored_as: LogitsFormat
) -> None:
    teacher = noisy_model(0)
    tables = [
        store_logits(
            compute_logits(teacher, views.numbered(number), batch_size=100, precision="float32"), stored_as, what="x"
        )
        for number in range(18)
    ]
    number_N = views.epoch(3).numbers
    gathered = gather(tables, number_N)

    def by_hand(part: str) -> Tensor:
        rows: list[Any] = [getattr(tables[number], part)[i] for i, number in enumerate(number_N.tolist())]
        return torch.stack(rows)

    top_NK, rest_N2 = (None, None) if stored_as.top_k is None else (by_hand("top_NK"), by_hand("rest_N2"))
    assert same_logits(gathered, StoredLogits(by_hand("values"), 10, top_NK, rest_N2))
    # They are the logits of the epoch's own views.
    drawn = store_logits(
        compute_logits(teacher, views.epoch(3), batch_size=100, precision="float32"), stored_as, what="x"
    )
    index_N = torch.arange(300)
    torch.testing.assert_close(
        gathered.at(index_N, temperature=4).float(), drawn.at(index_N, temperature=4).float(), atol=2e-3, rtol=0
    )


def test_gathering_from_one_table_is_that_table() -> None:
    for stored_as in FORMATS:
        table = store_logits(normal(20, 10), stored_as, what="x")
        assert same_logits(gather([table], torch.zeros(20, dtype=torch.int64)), table)


def test_a_fingerprint_depends_on_each_of_its_parts() -> None:
    parts: dict[str, Any] = {
        "dataset": "d",
        "teacher": "t",
        "views": "v",
        "stored_as": LogitsFormat(),
        "precision": "float32",
    }
    changes: list[dict[str, Any]] = [
        {},
        {"dataset": "e"},
        {"teacher": "e"},
        {"views": "e"},
        {"stored_as": LogitsFormat(dtype="float32")},
        {"stored_as": LogitsFormat(top_k=1)},
        {"stored_as": LogitsFormat(top_k=10)},
        {"precision": "bfloat16"},
        {"dataset": "dt", "teacher": ""},
        {"dataset": "", "teacher": "dt"},
    ]
    found = [fingerprint(**{**parts, **change}) for change in changes]
    assert len(set(found)) == len(changes)
    assert all(len(text) == 32 for text in found)
    assert fingerprint(**parts) == found[0]
    # Stored files name it: another value would have all of them computed again.
    assert found[0] == "7bf6b62e706f791406f603326852d4db"
