"""From a model's spec to the module: its code, its weights to start from, its pixels and its cost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from grid.identity import canonical_json
from grid.plan import Plan, Trainable, image_size, model_payload
from grid.read.code import load_factory
from grid.read.weights import publish_user_weights, read_user_weights, start_weights
from grid.spec.dataset import DatasetSpec
from grid.spec.model import ModelSpec
from grid.store.store import Store
from kd.data.dataset import DatasetMeta
from kd.data.views.pixels import Pixels
from kd.models.build import ModelError, ModelFacts, build, describe, passing_buffers, pretrained_name
from kd.models.weights import compare_weights, put_weights

log = logging.getLogger("kd_grid")


def untrained(model: ModelSpec, meta: DatasetMeta, *, seed: int) -> nn.Module:
    """The model, to load weights into. seed: that of its training, for whatever it draws that weights do not hold."""
    factory = factory_of(model)
    return build(model.name, args=model.args, classes=meta.classes, channels=meta.channels, factory=factory, seed=seed)


def at_start(stage: Trainable, store: Store, meta: DatasetMeta, *, seed: int) -> nn.Module:
    """The model as its training starts, or as a given teacher is: drawn from the seed, timm's weights, or those of its
    checkpoint."""
    spec = stage.model
    module = build(
        spec.name,
        args=spec.args,
        classes=meta.classes,
        channels=meta.channels,
        factory=factory_of(spec),
        pretrained=spec.pretrained,
        seed=seed,
    )
    if spec.factory is not None:
        _check_drawn_alike(module, untrained(spec, meta, seed=seed), spec)
    if spec.checkpoint is not None:
        what, state = f"checkpoint {spec.checkpoint}", start_weights(spec, store)
        # What is trained may learn a new classifier; a given teacher must have its own.
        head = put_weights(module, state, classes=meta.classes, new_head=not spec.is_given, what=what)
        if head:
            log.info("stage %s: %s is for other classes than these: starts anew", stage.id, " and ".join(head))
    return module


def _check_drawn_alike(module: nn.Module, again: nn.Module, spec: ModelSpec) -> None:
    """Raises ModelError for users' code that builds another model each time: no run of it could be gone on with, and
    no teacher be asked, by another process."""
    first, second = ({**one.state_dict(), **passing_buffers(one)} for one in (module, again))
    same = first.keys() == second.keys()
    other = [name for name in first if not (same and torch.equal(first[name], second[name]))]
    if other:
        raise ModelError(
            f"model {spec.shown}: {spec.factory} gives other values of {other[0]} each time it is called: draw them "
            "with torch, NumPy or random, which are seeded before the call, and do not seed those yourself"
        )


def pixels_of(model: ModelSpec, meta: DatasetMeta, device: torch.device) -> Pixels:
    """What the model is fed."""
    given = model.normalize
    return Pixels.of(
        meta,
        size=model.image_size,
        device=device,
        mean=given.mean if given is not None else None,
        std=given.std if given is not None else None,
    )


def facts_of(model: ModelSpec, dataset: DatasetSpec) -> ModelFacts:
    """Counted once a process: many cells train the same student. Raises ModelError, and UserError for its code."""
    info = dataset.info
    bare = ModelSpec(name=model.name, factory=model.factory, args=model.args, code=model.code)
    return _facts(bare.model_dump_json(), info.classes, info.channels, image_size(model, dataset))


@lru_cache
def _facts(model: str, classes: int, channels: int, size: tuple[int, int]) -> ModelFacts:
    spec = ModelSpec.model_validate_json(model)
    return describe(spec.name, args=spec.args, classes=classes, channels=channels, size=size, factory=factory_of(spec))


def start_of(model: ModelSpec) -> str:
    """Which weights it begins with, for the record."""
    if model.checkpoint is not None:
        return f"{'given' if model.is_given else 'checkpoint'}:{model.checkpoint_sha256}"
    return f"pretrained:{pretrained_name(model.name)}" if model.pretrained else "scratch"


def check_checkpoint(model: ModelSpec, dataset: DatasetSpec) -> None:
    """Raises CheckpointError or UserError where the model's checkpoint is not for it."""
    assert model.checkpoint is not None
    info, what, state = dataset.info, f"checkpoint {model.checkpoint}", read_user_weights(model.checkpoint)
    module = build(model.name, args=model.args, classes=info.classes, channels=info.channels, factory=factory_of(model))
    compare_weights(module, state, classes=info.classes, new_head=not model.is_given, what=what)


def provide_weights(plan: Plan, done: Collection[str], store: Store) -> None:
    """Have at hand, before anything runs, the weights that unfinished stages start from: checkpoints on the storage,
    timm's in this machine's cache. Raises ModelError, CheckpointError or UserError."""
    info = plan.data.dataset.info
    for model in models_with_weights(plan, done):
        if model.checkpoint is not None:
            publish_user_weights(model, store)
        else:
            build(model.name, args=model.args, classes=info.classes, channels=info.channels, pretrained=True)


def models_with_weights(plan: Plan, done: Collection[str]) -> list[ModelSpec]:
    """Models of unfinished stages that start from weights, each once."""
    needed: dict[str, ModelSpec] = {}
    stages: list[Trainable] = [*plan.teachers, *plan.cells]
    for stage in stages:
        if stage.id not in done and (stage.model.pretrained or stage.model.checkpoint is not None):
            needed.setdefault(canonical_json(model_payload(stage.model, plan.data.dataset)), stage.model)
    return [*needed.values()]


def factory_of(model: ModelSpec) -> Callable[..., Any] | None:
    """Raises UserError where its code fails."""
    return load_factory(model) if model.factory is not None else None
