"""A model of the grid's, as ids and inputs know it."""

from __future__ import annotations

from typing import Any

from grid.spec.dataset import DatasetSpec
from grid.spec.model import ModelSpec


def model_payload(model: ModelSpec, dataset: DatasetSpec) -> dict[str, Any]:
    """A model as an id knows it: by what its weights and its inputs depend on."""
    payload = model.architecture
    if model.pretrained:
        payload["pretrained"] = True
    if model.checkpoint is not None:
        payload["checkpoint"] = model.checkpoint_sha256
    if model.normalize is not None:
        payload["normalize"] = model.normalize.model_dump()
    if model.image_size is not None and (model.image_size,) * 2 != (dataset.info.height, dataset.info.width):
        payload["image_size"] = model.image_size
    return payload


def image_size(model: ModelSpec, dataset: DatasetSpec) -> tuple[int, int]:
    """Height and width of what the model is fed."""
    if model.image_size is not None:
        return (model.image_size, model.image_size)
    return (dataset.info.height, dataset.info.width)
