"""Build a model by name, and describe one without spending memory on it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kd.data.draws import derive_seed
from kd.models.cifar_resnet import CIFAR_RESNETS
from kd.models.cifar_wrn import WIDE_RESNETS
from kd.models.small_cnn import small_cnn

OWN_MODELS: dict[str, Callable[..., nn.Module]] = {"small_cnn": small_cnn, **CIFAR_RESNETS, **WIDE_RESNETS}


class ModelError(ValueError):
    """The model cannot be built; the message names it and says why."""


@dataclass(frozen=True)
class ModelFacts:
    """parameters: count. size_bytes: parameters and buffers. macs: multiply-adds of one image's forward pass, as
    torch's flop counter gives them (FLOPs / 2)."""

    parameters: int
    size_bytes: int
    macs: int


def build(
    name: str, *, args: Mapping[str, Any], classes: int, channels: int, pretrained: bool = False, seed: int = 0
) -> nn.Module:
    """The model, its weights drawn from `seed` alone (or pretrained), on the CPU or the current default device.

    Raises ModelError for an unknown name (with the nearest known ones), arguments the model refuses, or weights that
    cannot be fetched.
    """
    torch.manual_seed(derive_seed("init", seed))
    options = {"num_classes": classes, "in_chans": channels, **args}
    if name in OWN_MODELS:
        if pretrained:
            raise ModelError(f"model {name}: there are no pretrained weights for it; set pretrained: false")
        return _call(name, OWN_MODELS[name], options)
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, [*OWN_MODELS, *timm.list_models()], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ModelError(f"unknown model {name!r}: neither ours ({', '.join(OWN_MODELS)}) nor timm's{hint}")
    return _call(name, timm.create_model, {"model_name": name, "pretrained": pretrained, **options})


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model there, with its convolutions' weights channels last, as its inputs are."""
    moved: nn.Module = model.to(device).to(memory_format=torch.channels_last)
    return moved


def _call(name: str, factory: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    try:
        model: nn.Module = factory(**options)
    except Exception as error:  # a model's constructor may raise anything: its message is what the user needs
        what = "its pretrained weights cannot be loaded" if options.get("pretrained") else "it cannot be built"
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"model {name}: {what} with these arguments: {detail}") from error
    return model


def describe(name: str, *, args: Mapping[str, Any], classes: int, channels: int, size: tuple[int, int]) -> ModelFacts:
    """A model's facts from the meta device: no memory, no download, and the same count whatever the device (fused
    attention kernels, which the counter would miss, do not exist there).

    Raises ModelError as `build` does, and where the model cannot take images of this size.
    """
    with torch.device("meta"):
        model = build(name, args=args, classes=classes, channels=channels).eval()
        try:
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                model(torch.zeros(1, channels, *size))
        except Exception as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            shape = f"{channels} x {size[0]} x {size[1]}"
            raise ModelError(f"model {name}: cannot take {shape} images: {detail}") from error
    tensors = [*model.parameters(), *model.buffers()]
    return ModelFacts(
        parameters=sum(p.numel() for p in model.parameters()),
        size_bytes=sum(t.numel() * t.element_size() for t in tensors),
        macs=counter.get_total_flops() // 2,
    )
