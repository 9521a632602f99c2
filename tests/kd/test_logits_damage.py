"""Stored logits that are not what was asked for are refused, by the name of their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kd.logits import (
    HEADER_BYTES,
    LogitsError,
    StoredLogits,
    check_header,
    logits_to_bytes,
    open_logits,
    store_logits,
)
from kd.recipe import LogitsFormat
from tests.kd.helpers import MADE_FROM, normal, same_logits

DENSE, TOP = LogitsFormat(), LogitsFormat(top_k=2)
SAMPLES, CLASSES = 3, 5


def stored(stored_as: LogitsFormat) -> StoredLogits:
    return store_logits(normal(SAMPLES, CLASSES), stored_as, what="x")


def written(stored_as: LogitsFormat) -> bytes:
    return logits_to_bytes(stored(stored_as), fingerprint=MADE_FROM)


def read(path: Path, data: bytes, *, made_from: str = MADE_FROM) -> StoredLogits:
    path.write_bytes(data)
    return open_logits(path, fingerprint=made_from, samples=SAMPLES, classes=CLASSES)


@pytest.mark.parametrize("stored_as", [DENSE, TOP], ids=["dense", "top-k"])
def test_every_truncation_is_refused(tmp_path: Path, stored_as: LogitsFormat) -> None:
    path, data = tmp_path / "logits", written(stored_as)
    for kept in range(len(data)):
        with pytest.raises(LogitsError, match=f"{path}: damaged"):
            read(path, data[:kept])
    assert same_logits(read(path, data), stored(stored_as))


def test_an_empty_file_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(LogitsError, match=f"{tmp_path}/logits: damaged: it is empty"):
        read(tmp_path / "logits", b"")


@pytest.mark.long
@pytest.mark.parametrize("stored_as", [DENSE, TOP], ids=["dense", "top-k"])
def test_no_flipped_bit_is_ever_read_as_other_logits(tmp_path: Path, stored_as: LogitsFormat) -> None:
    """Wherever it flips, in the header as in the tensors: the file is refused, or its logits are still right."""
    path, data, right = tmp_path / "logits", written(stored_as), stored(stored_as)
    wrong = []
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                if not same_logits(read(path, bytes(damaged)), right):
                    wrong.append((at, bit, "other logits"))
            except LogitsError as error:
                assert str(path) in str(error)  # noqa: PT017
            except Exception as error:
                wrong.append((at, bit, type(error).__name__))
    assert wrong == []


@pytest.mark.parametrize("stored_as", [DENSE, TOP], ids=["dense", "top-k"])
def test_any_flipped_bit_of_the_tensors_is_refused(tmp_path: Path, stored_as: LogitsFormat) -> None:
    path, data = tmp_path / "logits", written(stored_as)
    body = 8 + int.from_bytes(data[:8], "little")
    for at in range(body, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(LogitsError, match=f"{path}: damaged: it does not have the checksum"):
            read(path, bytes(damaged))


def test_bytes_appended_are_refused(tmp_path: Path) -> None:
    data = written(DENSE)
    message = f"{tmp_path}/logits: damaged: {len(data) + 1} bytes long, its header says {len(data)}"
    with pytest.raises(LogitsError, match=message):
        read(tmp_path / "logits", data + b"\0")


def test_logits_made_from_something_else_are_refused(tmp_path: Path) -> None:
    message = f"{tmp_path}/logits: computed from something else \\(0123456789ab, expected ffffffffffff\\)"
    with pytest.raises(LogitsError, match=message):
        read(tmp_path / "logits", written(DENSE), made_from="f" * 32)


@pytest.mark.parametrize("stored_as", [DENSE, TOP], ids=["dense", "top-k"])
@pytest.mark.parametrize(("samples", "classes"), [(4, 5), (2, 5), (3, 4), (3, 6), (5, 3), (3, 2)])
def test_logits_of_another_shape_are_refused(
    tmp_path: Path, stored_as: LogitsFormat, samples: int, classes: int
) -> None:
    path = tmp_path / "logits"
    path.write_bytes(written(stored_as))
    message = rf"{path}: holds logits of \[3, 5\] samples and classes, expected \[{samples}, {classes}\]"
    with pytest.raises(LogitsError, match=message):
        open_logits(path, fingerprint=MADE_FROM, samples=samples, classes=classes)


@pytest.mark.parametrize("kind", ["npy", "zip", "json", "zeros", "ones", "text"])
def test_files_of_something_else_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "logits"
    if kind in ("npy", "zip"):
        with path.open("wb") as file:
            (np.save if kind == "npy" else np.savez)(file, np.zeros((3, 5), dtype=np.float16))
        data = path.read_bytes()
    else:
        header = b"[1, 2]"
        data = {
            "json": len(header).to_bytes(8, "little") + header,
            "zeros": bytes(100),
            "ones": b"\xff" * 100,
            "text": b"no logits at all",
        }[kind]
    with pytest.raises(LogitsError, match=f"{path}: damaged"):
        read(path, data)


def test_a_header_is_checked_from_the_first_bytes_and_the_length() -> None:
    data = logits_to_bytes(store_logits(normal(300, 100), TOP, what="x"), fingerprint=MADE_FROM)
    big = logits_to_bytes(store_logits(normal(300, 100), DENSE, what="x"), fingerprint=MADE_FROM)
    assert len(big) > 10 * HEADER_BYTES
    for whole in (data, big):
        start = whole[:HEADER_BYTES]
        check_header(start, length=len(whole), fingerprint=MADE_FROM, what="x")
        for length in (len(whole) - 1, len(whole) + 1, 0):
            with pytest.raises(LogitsError, match=f"^x: damaged: {length} bytes long, its header says {len(whole)}$"):
                check_header(start, length=length, fingerprint=MADE_FROM, what="x")
        with pytest.raises(LogitsError, match=r"^x: computed from something else"):
            check_header(start, length=len(whole), fingerprint="f" * 32, what="x")
        for kept in range(int.from_bytes(whole[:8], "little")):  # the last eight may be spaces
            with pytest.raises(LogitsError, match=r"^x: damaged: no readable header"):
                check_header(whole[:kept], length=len(whole), fingerprint=MADE_FROM, what="x")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 7e4])
def test_logits_that_float16_cannot_hold_are_refused(bad: float) -> None:
    logits_NC = torch.zeros(3, 4)
    logits_NC[2, 1] = bad
    for stored_as in (DENSE, LogitsFormat(top_k=2)):
        with pytest.raises(LogitsError, match="teacher a, epoch 3: logits are not finite or exceed float16's range"):
            store_logits(logits_NC, stored_as, what="teacher a, epoch 3")


def test_float32_holds_more() -> None:
    logits_NC = torch.zeros(3, 4)
    logits_NC[2, 1] = 7e4
    stored_as = LogitsFormat(dtype="float32")
    assert torch.equal(store_logits(logits_NC, stored_as, what="x").values, logits_NC)
    logits_NC[0, 0] = float("nan")
    with pytest.raises(LogitsError, match="x: logits are not finite or exceed float32's range"):
        store_logits(logits_NC, stored_as, what="x")


def test_moments_that_float16_cannot_hold_are_refused() -> None:
    """The others' variance is a square: it leaves the type's range long before a logit does."""
    logits_NC = torch.tensor([[2000.0, 1000.0, -1000.0, 1000.0, -1000.0]])
    with pytest.raises(LogitsError, match=r"x: .*float16's range"):
        store_logits(logits_NC, LogitsFormat(top_k=1), what="x")
    kept = store_logits(logits_NC, LogitsFormat(dtype="float32", top_k=1), what="x")
    assert kept.at(torch.tensor([0]), temperature=4.0).isfinite().all()
