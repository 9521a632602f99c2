"""What the steps of an epoch add up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kd.checkpoint import cloned
from kd.machine.workers import Shard


@dataclass
class Sums:
    """What the steps of an epoch add up, on the device."""

    loss_S: Tensor
    """the loss of each step, weighted by its share of the epoch's images"""
    hits: Tensor
    """how many images were classified as labelled"""
    seconds: float = 0.0
    """spent in earlier sessions"""
    terms_S: dict[str, Tensor] = field(default_factory=dict)
    """as loss_S, the value of each of a method's terms, without its weight; no number of a step of which it is not
    known"""

    @classmethod
    def zeros(cls, steps: int, device: torch.device) -> Sums:
        return cls(torch.zeros(steps, device=device), torch.zeros((), dtype=torch.int64, device=device))

    def add_terms(self, step: int, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            if name not in self.terms_S:
                self.terms_S[name] = torch.full_like(self.loss_S, math.nan)
            self.terms_S[name][step] = value

    def of_all_workers(self, shard: Shard) -> Sums:
        """The sums over all workers; collective where there are several."""
        loss_S, hits = self.loss_S.clone(), self.hits.clone()
        terms_S = cloned(self.terms_S)
        if shard.world > 1:
            for sums_S in (loss_S, *terms_S.values()):
                torch.distributed.all_reduce(sums_S)
                sums_S /= shard.world
            torch.distributed.all_reduce(hits)
        return Sums(loss_S, hits, self.seconds, terms_S)

    @property
    def term_means(self) -> dict[str, float]:
        """Columns of the curve: the value of each term over the epoch. One that is not known of all steps, as after an
        epoch that began when none was kept, has none."""
        means = {f"train_loss_{name}": value_S.sum().item() for name, value_S in self.terms_S.items()}
        return {column: mean for column, mean in means.items() if math.isfinite(mean)}
