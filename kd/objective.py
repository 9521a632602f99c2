"""What a student learns from: labels alone, or labels and a teacher. One interface for the training loop."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd.data.views.pixels import Pixels
from kd.data.views.views import EpochViews, Labels
from kd.draws import Key
from kd.logits import StoredLogits
from kd.methods.method import Batch, Method, Seen
from kd.precision import autocast
from kd.recipe import Precision


@dataclass(frozen=True)
class Loss:
    total: Tensor
    """a float32 scalar, mean over the batch"""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """the values of a method's terms by name, without their weights; of labels alone there are none"""


class Objective(Protocol):
    def start_epoch(self, views: EpochViews, *, progress: float) -> None:
        """Called before the first batch of an epoch: the time to fetch that epoch's targets. progress: the share of the
        training that the epoch ends, from 1 / epochs to 1."""

    def __call__(self, student: Seen, labels: Labels, *, index_B: Tensor, key: Key, beside: nn.Module) -> Loss:
        """index_B: the samples' numbers in the training split. key: of what is drawn for the batch. beside: what is
        learned beside the student."""


class HardLabels:
    """Cross-entropy with the labels, optionally smoothed: how baselines and teachers learn."""

    def __init__(self, *, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def start_epoch(self, views: EpochViews, *, progress: float) -> None:
        pass

    def __call__(self, student: Seen, labels: Labels, *, index_B: Tensor, key: Key, beside: nn.Module) -> Loss:
        return Loss(cross_entropy(student.logits_BC, labels, label_smoothing=self.label_smoothing))


def cross_entropy(logits_BC: Tensor, labels: Labels, *, label_smoothing: float) -> Tensor:
    """A float32 scalar, mean over the batch. Of a mixed image it is the weighted mean over both labels."""
    logits_BC = logits_BC.float()
    if labels.second_B is None or labels.weight_B is None:
        return F.cross_entropy(logits_BC, labels.first_B, label_smoothing=label_smoothing)
    first_B, second_B = (
        F.cross_entropy(logits_BC, labels_B, label_smoothing=label_smoothing, reduction="none")
        for labels_B in (labels.first_B, labels.second_B)
    )
    return (labels.weight_B * first_B + (1 - labels.weight_B) * second_B).mean()


class Teacher(Protocol):
    """Where what a teacher sees comes from."""

    def start_epoch(self, views: EpochViews) -> None: ...

    def seen(self, index_B: Tensor, *, temperature: float) -> Seen:
        """What it sees in these samples' views of this epoch, on the student's device, without gradient. temperature:
        at which its logits are softened, where only the largest are kept."""


class CachedTeacher:
    """Logits computed beforehand, read an epoch at a time."""

    def __init__(self, read_epoch: Callable[[EpochViews], StoredLogits], *, device: torch.device) -> None:
        self.read_epoch = read_epoch
        self.device = device
        self.stored: StoredLogits | None = None

    def start_epoch(self, views: EpochViews) -> None:
        self.stored = self.read_epoch(views).to(self.device)

    def seen(self, index_B: Tensor, *, temperature: float) -> Seen:
        assert self.stored is not None, "start_epoch comes first"
        return Seen(self.stored.at(index_B, temperature=temperature))


class OnlineTeacher:
    """The teacher itself, on the same views: for what cannot be cached. In eval mode; nothing of it changes."""

    def __init__(self, teacher: nn.Module, *, pixels: Pixels, precision: Precision) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.pixels = pixels
        self.precision: Precision = precision
        self.views: EpochViews | None = None

    def start_epoch(self, views: EpochViews) -> None:
        self.views = views.seen_through(self.pixels)

    @torch.no_grad()
    def seen(self, index_B: Tensor, *, temperature: float) -> Seen:
        assert self.views is not None, "start_epoch comes first"
        images_BCHW = self.views.batch(index_B)
        with autocast(self.precision, images_BCHW.device):
            logits_BC: Tensor = self.teacher(images_BCHW)
        return Seen(logits_BC.float())


class Distillation:
    """What a method makes of what a student sees, of the teacher's logits and of the labels."""

    def __init__(self, method: Method, teacher: Teacher, *, label_smoothing: float) -> None:
        self.method, self.teacher = method, teacher
        self.label_smoothing = label_smoothing
        self.progress = 0.0

    def start_epoch(self, views: EpochViews, *, progress: float) -> None:
        self.progress = progress
        self.teacher.start_epoch(views)

    def __call__(self, student: Seen, labels: Labels, *, index_B: Tensor, key: Key, beside: nn.Module) -> Loss:
        batch = Batch(
            labels=labels,
            index_B=index_B,
            cross_entropy=partial(cross_entropy, labels=labels, label_smoothing=self.label_smoothing),
            progress=self.progress,
            key=key,
        )
        teacher = self.teacher.seen(index_B, temperature=self.method.softened_at)
        terms = self.method.terms(student, teacher, batch, beside)
        total = reduce(operator.add, (term.weight * term.value for term in terms.values()))
        return Loss(total, {name: term.value for name, term in terms.items()})
