"""Where a training stands: all that is needed to go on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from kd.checkpoint import cloned, model_state, optimizer_state
from kd.machine.workers import Shard
from kd.training.learner import Learner
from kd.training.sums import Sums

CurveRow = dict[str, float | int | None]

# Of a TrainState, from the beginning: what lacks one of these is none.
FIRST_PARTS = {"step", "model", "optimizer", "averaged", "loss_S", "hits", "seconds", "curve"}


@dataclass
class TrainState:
    """All that is needed to go on."""

    step: int
    """optimizer steps done in the epoch after the curve's last; loss_S, hits, seconds and terms_S are their sums"""
    model: dict[str, Tensor]
    """the student's, under its own names"""
    optimizer: dict[str, Any]
    averaged: dict[str, Tensor] | None = None
    loss_S: Tensor | None = None
    hits: Tensor | None = None
    seconds: float = 0.0
    curve: list[CurveRow] = field(default_factory=list)
    """one row an epoch"""
    beside: dict[str, Tensor] = field(default_factory=dict)
    """what is learned or kept beside the student"""
    terms_S: dict[str, Tensor] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TrainState:
        """Parts that came later have defaults, for a state of before. Raises KeyError for one that lacks another."""
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in FIRST_PARTS or f.name in state})


def sums_at(resume: TrainState | None, steps: int, device: torch.device, shard: Shard) -> tuple[Sums, int]:
    """The sums to go on from, and the steps already in them. Rank 0 carries what all workers had added up."""
    sums = Sums.zeros(steps, device)
    if resume is None or resume.loss_S is None or resume.hits is None:
        return sums, 0
    # Its own: the state may be resumed from again.
    if shard.rank == 0:
        sums = Sums(resume.loss_S.to(device) * shard.world, resume.hits.to(device, copy=True), resume.seconds)
        sums.terms_S = {name: value_S.to(device) * shard.world for name, value_S in resume.terms_S.items()}
    else:
        sums.terms_S = {name: torch.zeros_like(sums.loss_S) for name in resume.terms_S}
    return sums, resume.step


def state_of(
    step: int,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    averaged: ModelEmaV3 | None,
    curve: list[CurveRow],
    sums: Sums | None = None,
    seconds: float = 0.0,
) -> TrainState:
    return TrainState(
        step,
        model_state(learner.student),
        optimizer_state(optimizer),
        averaged=None if averaged is None else model_state(averaged.module),
        loss_S=None if sums is None else sums.loss_S.clone(),
        hits=None if sums is None else sums.hits.clone(),
        seconds=seconds,
        curve=list(curve),
        beside=model_state(learner.beside),
        terms_S={} if sums is None else cloned(sums.terms_S),
    )
