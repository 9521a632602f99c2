"""The training loop: one readable function. Everything random in it is a pure function of seed, epoch, step and rank,
so that a run continued from a checkpoint, at any step, gives the same bits as one that was never interrupted."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from kd.checkpoint import cloned
from kd.data.views.views import EpochViews, ViewStream
from kd.draws import Key, derive_seed, permutation
from kd.machine.alive import tell_alive
from kd.machine.device import seed_device
from kd.machine.workers import WHOLE, Shard, broadcast_number, first_decides
from kd.objective import Objective
from kd.precision import autocast
from kd.recipe import Recipe
from kd.training.errors import DivergedError, StoppedError
from kd.training.learner import Learner
from kd.training.optim import make_optimizer
from kd.training.state import CurveRow, TrainState, state_of, sums_at

# Several workers agree on whether to save this often: it takes a message between them.
AGREE_STEPS = 16


class AfterStep(IntEnum):
    """What a step is followed by."""

    GO_ON = 0
    SAVE = 1
    LEAVE = 2
    """Save, and end there."""


def train(
    model: nn.Module,
    *,
    beside: nn.Module | None = None,
    views: ViewStream,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    evaluate: Callable[[nn.Module], CurveRow],
    resume: TrainState | None = None,
    on_state: Callable[[TrainState], None] = lambda state: None,
    save_now: Callable[[], bool] = lambda: False,
    leave: Callable[[], bool] = lambda: False,
    shard: Shard = WHOLE,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> list[CurveRow]:
    """Train `model` in place and return its curve, a row an epoch, with a column `train_loss_<name>` for each term of
    the objective: its value without its weight, averaged over the epoch's images.

    views: the training images on one device; the model and what is learned beside it are on it already
    (`kd.models.build.on_device`). seed decides batch order and dropout. evaluate(model) -> columns for the row, called
    every `recipe.evaluate_every` epochs and at the last; wrap makes the module whose forward is trained of the Learner
    (DistributedDataParallel, say). on_state receives a state that is safe to keep: after each epoch, and within one
    whenever save_now() says so, or leave(), which then ends the training there. With `recipe.ema_decay` the averaged
    weights are what is evaluated, and what the model holds at the end.
    With several workers each computes its part of every global batch; rank 0 alone evaluates and reports.

    Raises StoppedError, on all workers, where leave() has ended it; and DivergedError for a loss or a weight that is
    not finite, noticed at the end of its epoch and before any state is handed out.
    """
    device, count = views.device, len(views)
    learner = Learner(model, nn.Module() if beside is None else beside)
    optimizer = make_optimizer(learner, recipe)
    averaged = None if recipe.ema_decay is None else ModelEmaV3(model, decay=recipe.ema_decay)
    curve: list[CurveRow] = []
    if resume is not None:
        model.load_state_dict(resume.model)
        learner.beside.load_state_dict(resume.beside)
        # The optimizer keeps and changes the tensors it is given.
        optimizer.load_state_dict(cloned(resume.optimizer))
        if averaged is not None and resume.averaged is not None:
            averaged.module.load_state_dict(resume.averaged)
        curve = list(resume.curve)
    trained: Any = wrap(learner)
    if recipe.compile:
        # Whatever this process compiled before, and whichever batch comes first: one graph for each shape.
        torch.compiler.reset()
        trained = torch.compile(trained, dynamic=False)
    current = model if averaged is None else averaged.module
    steps = steps_of(recipe, count)
    partial = resume

    for epoch in range(len(curve), recipe.epochs):
        started = time.perf_counter()
        order_N = torch.from_numpy(permutation(count, key=("order", seed, epoch))).to(device)
        batches = _batches(order_N, recipe.batch_size)
        epoch_views = views.epoch(epoch, batches=batches)
        objective.start_epoch(epoch_views, progress=(epoch + 1) / recipe.epochs)
        sums, done = sums_at(partial, steps, device, shard)
        partial = None
        trained.train()
        for step in range(done, steps):
            rate = recipe.learning_rate_at(epoch * steps + step, steps_per_epoch=steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            _seed(derive_seed("dropout", seed, epoch, step, shard.rank), device)
            optimizer.zero_grad(set_to_none=True)
            key = ("terms", seed, epoch, step)
            loss, terms, hits = _backward(
                trained, learner.beside, batches[step], epoch_views, objective, recipe, shard, key=key
            )
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip_norm)
            optimizer.step()
            if averaged is not None:
                averaged.update(model)
            share = len(batches[step]) / count
            sums.loss_S[step] = loss * share
            sums.add_terms(step, {name: value * share for name, value in terms.items()})
            sums.hits += hits
            tell_alive()
            decided = _decide(save_now, leave, step, shard, device) if step + 1 < steps else AfterStep.GO_ON
            if decided is not AfterStep.GO_ON:
                total = sums.of_all_workers(shard)
                _check_finite(total.loss_S, learner, epoch=epoch, step=step, recipe=recipe)
                if shard.rank == 0:
                    seconds = sums.seconds + time.perf_counter() - started
                    on_state(state_of(step + 1, learner, optimizer, averaged, curve, total, seconds))
                if decided is AfterStep.LEAVE:
                    raise StoppedError
        total = sums.of_all_workers(shard)
        _check_finite(total.loss_S, learner, epoch=epoch, step=steps - 1, recipe=recipe)
        trained_at = time.perf_counter()
        row: CurveRow = {
            "epoch": epoch + 1,
            "learning_rate": recipe.learning_rate_at((epoch + 1) * steps - 1, steps_per_epoch=steps),
            "train_loss": total.loss_S.sum().item(),
            **total.term_means,
            "train_top1": total.hits.item() / count,
            "seconds_train": sums.seconds + trained_at - started,
        }
        if shard.rank == 0:
            if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                row |= evaluate(current)
            row["seconds_evaluate"] = time.perf_counter() - trained_at
        curve.append(row)
        if shard.rank == 0:
            on_state(state_of(0, learner, optimizer, averaged, curve))
        if epoch + 1 < recipe.epochs and first_decides(leave, shard, device):
            raise StoppedError
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())
    return curve


def steps_of(recipe: Recipe, images: int) -> int:
    """Optimizer steps in an epoch."""
    return len(_batches(torch.arange(images), recipe.batch_size))


def _batches(order_N: Tensor, size: int) -> tuple[Tensor, ...]:
    """In order, the last with what is left over; but a single image joins the batch before, for batch norm cannot
    normalise one value a channel."""
    batches = torch.split(order_N, size)
    if size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        return (*batches[:-2], torch.cat(batches[-2:]))
    return batches


def _backward(
    trained: Any,
    beside: nn.Module,
    batch_B: Tensor,
    views: EpochViews,
    objective: Objective,
    recipe: Recipe,
    shard: Shard,
    *,
    key: Key,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Add up the gradient of this worker's part of a global batch, a micro-batch at a time. Returns the loss and the
    values of its terms, whose means over workers are those of the whole batch, and the number of hits; all without
    gradient, on the device."""
    mine_B = batch_B[shard.rank :: shard.world]
    parts = _batches(mine_B, recipe.micro_batch_size or recipe.batch_size)
    if shard.world > 1 and len(mine_B) < 2:
        # A worker without a part of the last batch still takes its step, with weight 0. One image is seen twice, for
        # batch norm cannot normalise one value a channel.
        parts = ((mine_B if len(mine_B) else batch_B[:1]).repeat(2),)
    total = torch.zeros((), device=batch_B.device)
    terms: dict[str, Tensor] = {}
    hits = torch.zeros((), dtype=torch.int64, device=batch_B.device)
    for number, part_B in enumerate(parts, start=1):
        # Workers exchange gradients once, with the last part.
        waits = number < len(parts) and shard.world > 1
        with trained.no_sync() if waits else contextlib.nullcontext():
            images_BCHW = views.batch(part_B)
            with autocast(recipe.precision, batch_B.device):
                student = trained(images_BCHW)
            labels = views.labels(part_B)
            real = min(len(part_B), len(mine_B))
            share = real * shard.world / len(batch_B)
            found = objective(student, labels, index_B=part_B, key=(*key, shard.rank, number), beside=beside)
            loss = found.total * share
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        for name, value in found.terms.items():
            value = value.detach() * share
            terms[name] = terms[name] + value if name in terms else value
        hits += (student.logits_BC.detach().argmax(dim=1) == labels.main)[:real].sum()
    return total, terms, hits


def _seed(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, which at every step would cost as much as the views, for it visits all backends."""
    torch.default_generator.manual_seed(seed)
    seed_device(device, seed)


def _decide(
    save_now: Callable[[], bool], leave: Callable[[], bool], step: int, shard: Shard, device: torch.device
) -> AfterStep:
    """What to do after this step: rank 0 decides, and all must know, for saving adds up their sums."""
    if shard.world > 1 and (step + 1) % AGREE_STEPS:
        return AfterStep.GO_ON

    # One number for both: a broadcast for each would cost twice.
    def decide() -> AfterStep:
        if leave():
            return AfterStep.LEAVE
        return AfterStep.SAVE if save_now() else AfterStep.GO_ON

    return AfterStep(broadcast_number(decide, shard, device))


def _check_finite(loss_S: Tensor, learner: Learner, *, epoch: int, step: int, recipe: Recipe) -> None:
    """step: the last one taken."""
    what = "the loss"
    bad_S = (~torch.isfinite(loss_S)).nonzero()
    if len(bad_S):
        step = int(bad_S[0].item())
        value = loss_S[step].item()
    else:
        # A finite loss may have a gradient that is not, or come beside a running statistic that is not.
        floats = [t.detach().abs().amax().float() for t in learner.state_dict().values() if t.is_floating_point()]
        largest = torch.stack(floats).amax().item()
        if math.isfinite(largest):
            return
        what, value = "a weight", largest
    rate = recipe.learning_rate_at(epoch * len(loss_S) + step, steps_per_epoch=len(loss_S))
    raise DivergedError(
        f"{what} is {value} at epoch {epoch + 1}, step {step + 1} of {len(loss_S)}, learning rate {rate:.3g}: lower "
        "learning_rate, warm up longer, or set clip_norm"
    )
