"""Whether a file of weights may be read at all: what it says and what it makes of that are of one size.

A few kilobytes can stand for terabytes: a compressed archive, a tensor that shows one number a million times, a pickle
of lists within lists. torch.save and safetensors write every number once and compress nothing, so a file that would
become much more than it is was made by something else.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

# Tied weights are in a file once and count as often as they are used.
TIMES = 4
TENSORS = 100_000
HEADER_BYTES = 10_000_000  # of safetensors: some hundred a tensor
OPERATIONS = 2_000_000  # of a pickle: some thirty a tensor, and a few of its own for every number beside them

KINDS = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


class WeightsFileError(ValueError):
    """Why a file is not read; a clause."""


def check_file(path: Path) -> None:
    """Looks at what stands at the front, before anything is made of it. Raises WeightsFileError, OSError, and what
    pickletools and zipfile raise for damaged files."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _check_archive(archive, path.stat().st_size)
            return
        file.seek(0)
        start = file.read(9)
        if start[8:] == b"{":
            if int.from_bytes(start[:8], "little") > HEADER_BYTES:
                raise WeightsFileError("it has more tensors than any model")
        elif start[:1] == b"\x80":  # as torch wrote before archives: a few pickles, then the numbers
            file.seek(0)
            left = OPERATIONS
            for _ in range(5):
                left = _count(file, left)


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsFileError("it is compressed, which torch.save never does: unpack it and save it anew")
    if len(members) > TENSORS or sum(member.file_size for member in members) > size:
        raise WeightsFileError("it has more tensors than any model, or the same bytes several times")
    for member in members:
        if member.filename.endswith("data.pkl"):
            with archive.open(member) as pickled:
                _count(pickled, OPERATIONS)


def _count(pickled: IO[bytes], left: int) -> int:
    """How many operations are left after those of one pickle, none of which is run."""
    for _ in pickletools.genops(pickled):
        left -= 1
        if left < 0:
            raise WeightsFileError("it has more parts than the weights of any model")
    return left


def check_tensors(state: Mapping[str, Tensor], *, size: int) -> None:
    """size: of the file, in bytes. Raises WeightsFileError for what no model's weights can be."""
    total = 0
    for name, value in state.items():
        if not _is_plain(value):
            kind = f"{value.layout} {value.dtype} on {value.device}".replace("torch.", "")
            raise WeightsFileError(f"{name} is a tensor of another kind than weights are ({kind}): save plain ones")
        total += value.numel() * value.element_size()
    if total > TIMES * size:
        raise WeightsFileError(f"its {size:,} bytes would become {total:,}: the same numbers are shown several times")


def _is_plain(value: Any) -> bool:
    plain = isinstance(value, Tensor) and not value.is_nested and not value.is_quantized
    return plain and value.layout == torch.strided and value.device.type == "cpu" and value.dtype in KINDS
