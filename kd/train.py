"""The training loop: one readable function. Everything random in it is a pure function of seed, epoch and rank, so
that a run continued from a checkpoint gives the same bits as one that was never interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kd.checkpoint import cloned, model_state, optimizer_state
from kd.data.dataset import Split
from kd.data.draws import derive_seed, permutation
from kd.data.views import ViewStream
from kd.objective import Objective
from kd.optim import make_optimizer
from kd.recipe import Recipe

Row = dict[str, float | int | None]


class DivergedError(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Shard:
    """Which part of each global batch this worker computes."""

    rank: int = 0
    world: int = 1


WHOLE = Shard()


@dataclass
class TrainState:
    """All that is needed to go on after `epochs_done` epochs. `curve`: one row an epoch."""

    epochs_done: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    curve: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "epochs_done": self.epochs_done,
            "model": self.model,
            "optimizer": self.optimizer,
            "curve": self.curve,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TrainState:
        return cls(state["epochs_done"], state["model"], state["optimizer"], state["curve"])


def train(
    model: nn.Module,
    *,
    split: Split,
    views: ViewStream,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    evaluate: Callable[[nn.Module], Row],
    resume: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] = lambda state: None,
    shard: Shard = WHOLE,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> list[Row]:
    """Train `model` in place and return its curve, a row an epoch.

    split, views: the training images on one device; the model is on it already. seed decides batch order and dropout.
    evaluate(model) -> columns for the row, called every `recipe.evaluate_every` epochs and at the last; wrap makes the
    module whose forward is trained (DistributedDataParallel, say). on_epoch receives a state that is safe to keep.
    With several workers each computes its part of every global batch; rank 0 alone evaluates and reports.

    Raises DivergedError at the end of the first epoch with a loss that is not finite, before on_epoch is called.
    """
    device = views.device
    optimizer = make_optimizer(model, recipe)
    curve: list[Row] = []
    if resume is not None:
        model.load_state_dict(resume.model)
        # The optimizer keeps and changes the tensors it is given.
        optimizer.load_state_dict(cloned(resume.optimizer))
        curve = list(resume.curve)
    trained = wrap(model)
    labels_N = split.labels_N.to(device)
    steps_per_epoch = -(-len(split) // recipe.batch_size)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")

    for epoch in range(len(curve), recipe.epochs):
        started = time.perf_counter()
        torch.manual_seed(derive_seed("dropout", seed, epoch, shard.rank))
        epoch_views = views.epoch(epoch)
        objective.start_epoch(epoch)
        order_N = torch.from_numpy(permutation(len(split), key=("order", seed, epoch))).to(device)
        loss_S = torch.zeros(steps_per_epoch, device=device)
        hits = torch.zeros((), dtype=torch.int64, device=device)
        trained.train()
        for step, batch_B in enumerate(torch.split(order_N, recipe.batch_size)):
            rate = recipe.learning_rate_at(epoch * steps_per_epoch + step, steps_per_epoch=steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            mine_B = batch_B[shard.rank :: shard.world]
            # A worker without a part of the last batch still takes its step, with a sample of weight 0.
            index_B = mine_B if len(mine_B) else batch_B[:1]
            with autocast:
                logits_BC = trained(epoch_views.batch(index_B))
            # The mean over this worker's part, weighted so that averaging over workers gives the global mean.
            loss = objective(logits_BC, labels_N[index_B], index_B=index_B) * (len(mine_B) * shard.world / len(batch_B))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            loss_S[step] = loss.detach() * (len(batch_B) / len(split))
            hits += (logits_BC.detach().argmax(dim=1) == labels_N[index_B])[: len(mine_B)].sum()
        if shard.world > 1:
            torch.distributed.all_reduce(loss_S, op=torch.distributed.ReduceOp.SUM)
            loss_S /= shard.world
            torch.distributed.all_reduce(hits)
        _check_finite(loss_S, epoch=epoch, recipe=recipe)
        trained_at = time.perf_counter()
        row: Row = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "train_loss": loss_S.sum().item(),
            "train_top1": hits.item() / len(split),
            "seconds_train": trained_at - started,
        }
        if shard.rank == 0:
            if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                row |= evaluate(model)
            row["seconds_evaluate"] = time.perf_counter() - trained_at
        curve.append(row)
        if shard.rank == 0:
            on_epoch(TrainState(epoch + 1, model_state(model), optimizer_state(optimizer), list(curve)))
    return curve


def _check_finite(loss_S: Tensor, *, epoch: int, recipe: Recipe) -> None:
    bad_S = ~torch.isfinite(loss_S)
    if bad_S.any():
        step = int(bad_S.nonzero()[0].item())
        rate = recipe.learning_rate_at(epoch * len(loss_S) + step, steps_per_epoch=len(loss_S))
        raise DivergedError(
            f"the loss is {loss_S[step].item()} at epoch {epoch + 1}, step {step + 1} of {len(loss_S)}, learning rate "
            f"{rate:.3g}: lower learning_rate, warm up longer, or set clip_norm"
        )
