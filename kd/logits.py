"""Teacher logits as files: one a unit of views, kept raw (before softmax), checked when read.

Raw logits serve every temperature, weight and logit-based method. A unit is the views of one epoch, one numbered view
of every sample, or the plain images of a split. A file is safetensors whose header names what it was computed from
(`fingerprint`) and the checksum of its contents, so that a stale, truncated or damaged one is never used.

Top-k files keep the k largest logits of a sample with their classes, and the mean and variance of the others. Read at
temperature T, each of the others becomes mean + variance / (2 T), which keeps their summed exp(z / T), and so the
softmax of the stored ones, to second order in 1/T. What is lost is which of the others is likelier: where that sum is
kept, KL(teacher || stored form) is the others' share of the probability times the divergence of their own distribution
from a uniform one. Of 100 normally distributed logits with standard deviation 3 and k = 10 it is 0.21, 0.11 and 0.007
nats at T = 1, 4 and 20: soften, or keep more, where the others matter.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kd.data.views.views import EpochViews
from kd.machine.alive import tell_alive
from kd.precision import autocast
from kd.recipe import LogitsFormat, Precision

DTYPES = {"float16": torch.float16, "float32": torch.float32}
HEADER_BYTES = 4096  # more than any header of ours takes
_STORED = {"F16": torch.float16, "F32": torch.float32, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32}


class LogitsError(ValueError):
    """Logits that cannot be stored, or stored ones that are not what was asked for."""


def fingerprint(*, dataset: str, teacher: str, views: str, stored_as: LogitsFormat, precision: Precision) -> str:
    """What logits depend on, hashed: the data set's fingerprint, the sha256 of the teacher's weights, the policy of the
    views (any text that names it), the format and the precision in which the teacher ran ("auto" resolved)."""
    parts = (dataset, teacher, views, stored_as.dtype, str(stored_as.top_k), precision)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


@torch.inference_mode()
def compute_logits(teacher: nn.Module, views: EpochViews, *, batch_size: int, precision: Precision) -> Tensor:
    """The teacher's logits for every sample's view, float32 [N, C], in sample order.

    The teacher is put into eval mode; its parameters and buffers are not touched.
    """
    teacher.eval()
    index_N = torch.arange(len(views), device=views.stream.device)
    batches = []
    for index_B in torch.split(index_N, batch_size):
        images_BCHW = views.batch(index_B)
        with autocast(precision, images_BCHW.device):
            batches.append(teacher(images_BCHW).float())
        tell_alive()
    return torch.cat(batches)


@dataclass(frozen=True)
class StoredLogits:
    """Logits of N samples as they are stored: all [N, C], or the largest k with their classes and two moments."""

    values: Tensor
    classes: int
    top_NK: Tensor | None = None
    rest_N2: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def at(self, index_B: Tensor, *, temperature: float) -> Tensor:
        """Logits [B, C] to be softened at this temperature (it matters to top-k alone)."""
        values = self.values[index_B]
        if self.top_NK is None or self.rest_N2 is None:
            return values
        mean_B1, variance_B1 = self.rest_N2[index_B].float().tensor_split(2, dim=1)
        rest_B1 = mean_B1 + variance_B1 / (2 * temperature)
        dense_BC = rest_B1.expand(len(index_B), self.classes).clone()
        return dense_BC.scatter_(1, self.top_NK[index_B].long(), values.float())

    def to(self, device: torch.device) -> StoredLogits:
        top_NK, rest_N2 = (t if t is None else t.to(device) for t in (self.top_NK, self.rest_N2))
        return StoredLogits(self.values.to(device), self.classes, top_NK, rest_N2)


def store_logits(logits_NC: Tensor, stored_as: LogitsFormat, *, what: str) -> StoredLogits:
    """Raises LogitsError where a logit is not finite or beyond the type's range."""
    dtype, classes = DTYPES[stored_as.dtype], logits_NC.shape[1]
    logits_NC = logits_NC.float().cpu()
    values = logits_NC.to(dtype)
    if not torch.isfinite(values).all():
        raise LogitsError(
            f"{what}: logits are not finite or exceed {stored_as.dtype}'s range (largest {logits_NC.abs().max()})"
        )
    k = stored_as.top_k
    if k is None or k >= classes:
        return StoredLogits(values, classes)
    top_NK = logits_NC.topk(k, dim=1).indices.sort(dim=1).values
    mask_NC = torch.ones_like(logits_NC, dtype=torch.bool).scatter_(1, top_NK, False)
    others = logits_NC[mask_NC].view(len(logits_NC), classes - k)
    variance_N, mean_N = torch.var_mean(others, dim=1, correction=0)
    rest_N2 = torch.stack([mean_N, variance_N], dim=1).to(dtype)
    if not torch.isfinite(rest_N2).all():
        raise LogitsError(f"{what}: the others' variance ({variance_N.max()}) exceeds {stored_as.dtype}'s range")
    index_type = torch.uint8 if classes <= 256 else torch.int16 if classes <= 32768 else torch.int32
    return StoredLogits(values.gather(1, top_NK), classes, top_NK.to(index_type), rest_N2)


def logits_to_bytes(stored: StoredLogits, *, fingerprint: str) -> bytes:
    """A safetensors file, the same bytes for the same logits, whose header has the fingerprint and a checksum of all
    the rest."""
    tensors = {"values": stored.values, "top": stored.top_NK, "rest": stored.rest_N2}
    present = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    plain = safetensors.torch.save(present)
    start = _body_start(plain)
    header = json.loads(plain[8:start])
    facts = {"classes": str(stored.classes), "fingerprint": fingerprint}
    header["__metadata__"] = {**facts, "crc32": str(_checksum({**header, "__metadata__": facts}, plain[start:]))}
    text = _canonical(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + plain[start:]


def check_header(start: bytes, *, length: int, fingerprint: str, what: str) -> dict[str, Any]:
    """Read and check a file's header from its first bytes (at least HEADER_BYTES, or all there are) and its length.

    Raises LogitsError where it is truncated, damaged, or made from something else.
    """
    try:
        body = _body_start(start)
        header: dict[str, Any] = json.loads(start[8:body])
        facts = header["__metadata__"]
        end = body + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        made_from, _, _ = facts["fingerprint"], int(facts["crc32"]), int(facts["classes"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise LogitsError(f"{what}: damaged: no readable header ({type(error).__name__})") from None
    if end != length:
        raise LogitsError(f"{what}: damaged: {length} bytes long, its header says {end}")
    if made_from != fingerprint:
        raise LogitsError(f"{what}: computed from something else ({made_from[:12]}, expected {fingerprint[:12]})")
    return header


def open_logits(path: Path, *, fingerprint: str, samples: int, classes: int) -> StoredLogits:
    """A file's logits, memory-mapped. Raises LogitsError where it is truncated, damaged, made from something else, or
    of another shape."""
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise LogitsError(f"{path}: damaged: it is empty") from None
    header = check_header(mapped[:HEADER_BYTES], length=len(mapped), fingerprint=fingerprint, what=str(path))
    body = memoryview(mapped)[_body_start(mapped[:8]) :]
    facts = dict(header["__metadata__"])
    checksum = int(facts.pop("crc32"))
    if _checksum({**header, "__metadata__": facts}, body) != checksum:
        raise LogitsError(f"{path}: damaged: it does not have the checksum it was written with")
    del header["__metadata__"]
    tensors = {
        name: torch.frombuffer(body, dtype=_STORED[entry["dtype"]], offset=entry["data_offsets"][0], count=count).view(
            entry["shape"]
        )
        for name, entry in header.items()
        if (count := math.prod(entry["shape"]))
    }
    stored = StoredLogits(tensors["values"], int(facts["classes"]), tensors.get("top"), tensors.get("rest"))
    if len(stored) != samples or stored.classes != classes:
        have, want = [len(stored), stored.classes], [samples, classes]
        raise LogitsError(f"{path}: holds logits of {have} samples and classes, expected {want}")
    return stored


def _canonical(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _checksum(header: dict[str, Any], body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(_canonical(header)))


def gather(tables: Sequence[StoredLogits], number_N: Tensor) -> StoredLogits:
    """From logits of every numbered view of all samples, those of one view for each sample."""

    def pick(parts: list[Tensor]) -> Tensor:
        picked = torch.empty_like(parts[0])
        for number, part in enumerate(parts):
            rows = (number_N == number).nonzero()[:, 0]
            picked.index_copy_(0, rows, part.index_select(0, rows))
        return picked

    first = tables[0]
    return StoredLogits(
        pick([t.values for t in tables]),
        first.classes,
        None if first.top_NK is None else pick([t.top_NK for t in tables if t.top_NK is not None]),
        None if first.rest_N2 is None else pick([t.rest_N2 for t in tables if t.rest_N2 is not None]),
    )


def _body_start(data: bytes) -> int:
    """safetensors: eight bytes of header length, the header, then the tensors."""
    return 8 + int.from_bytes(data[:8], "little")
