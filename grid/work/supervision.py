"""What a stage learns from: labels, a teacher's cached logits, or the teacher itself."""

from __future__ import annotations

import torch
from torch import nn

from grid.plan import Trainable
from grid.store.store import Store
from grid.work.models import pixels_of
from grid.work.teacher_logits import LogitsCache, load_teacher, logits_of_teacher, sha256_of_weights
from kd.data.dataset import Dataset
from kd.methods.method import Facts, Method
from kd.models.build import on_device
from kd.objective import CachedTeacher, Distillation, HardLabels, Objective, OnlineTeacher
from kd.training.learner import build_beside


class Supervision:
    """What a stage learns from, and what it learns beside its model."""

    plain_logits: dict[str, torch.Tensor]
    """its teacher's logits of the plain splits, float [N, C], by split"""
    weights: dict[str, str]
    """the sha256 of its teacher's weights, by the teacher's id"""

    def __init__(self, stage: Trainable, store: Store, dataset: Dataset, device: torch.device) -> None:
        smoothing = stage.recipe.label_smoothing
        self.objective: Objective = HardLabels(label_smoothing=smoothing)
        self.beside = nn.Module()
        self.plain_logits = {}
        self.weights = {}
        if stage.kind == "teacher" or stage.teacher is None:
            return
        assert stage.setting is not None
        teacher: CachedTeacher | OnlineTeacher
        if stage.logits is not None:
            cache = LogitsCache(stage.logits, store, dataset, device)
            self.weights[stage.teacher.id] = cache.teacher_sha256
            teacher = CachedTeacher(cache.epoch, device=device)
            for name in dataset.evaluated:
                stored = cache.plain(name)
                self.plain_logits[name] = stored.at(torch.arange(len(stored)), temperature=1.0)
        else:
            self.weights[stage.teacher.id] = sha256_of_weights(store.record(stage.teacher))
            model = load_teacher(stage.teacher, store, dataset, device)
            pixels = pixels_of(stage.teacher.model, dataset.meta, device)
            teacher = OnlineTeacher(model, pixels=pixels, precision=stage.teacher.recipe.precision)
            for name in dataset.evaluated:
                self.plain_logits[name] = logits_of_teacher(model, stage.teacher, name, store, dataset, device)
        method = stage.setting.built
        self.beside = beside_of(method, dataset, device, seed=stage.seed)
        self.objective = Distillation(method, teacher, label_smoothing=smoothing)

    @property
    def weights_sha256(self) -> str | None:
        """Of all of its teachers' weights together; None without one."""
        return " ".join(self.weights.values()) or None


def beside_of(method: Method, dataset: Dataset, device: torch.device, *, seed: int) -> nn.Module:
    """What the method learns beside a student of this seed."""
    facts = Facts(classes=dataset.meta.classes, labels_N=dataset.train.labels_N)
    return on_device(build_beside(method, facts, seed=seed), device)
