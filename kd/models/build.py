"""Build a model by name, and describe one without spending memory on it."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kd.draws import derive_seed
from kd.models.cifar_resnet import CIFAR_RESNETS
from kd.models.cifar_wrn import WIDE_RESNETS
from kd.models.small_cnn import small_cnn

OWN_MODELS: dict[str, Callable[..., nn.Module]] = {"small_cnn": small_cnn, **CIFAR_RESNETS, **WIDE_RESNETS}


class ModelError(ValueError):
    """The model cannot be built; the message names it and says why."""


@dataclass(frozen=True)
class ModelFacts:
    parameters: int
    """Count."""
    size_bytes: int
    """Parameters and buffers."""
    macs: int
    """Multiply-adds of one image's forward pass, as torch's flop counter gives them (FLOPs / 2)."""


def build(
    name: str,
    *,
    args: Mapping[str, Any],
    classes: int,
    channels: int,
    factory: Callable[..., Any] | None = None,
    pretrained: bool = False,
    seed: int = 0,
) -> nn.Module:
    """The model, its weights drawn from `seed` alone (or pretrained), on the CPU or the current default device.

    factory: makes it instead of ours or timm's of that name, and may draw from NumPy and `random` too.

    Raises ModelError for an unknown name (with the nearest known ones), arguments the model refuses, or weights that
    cannot be fetched.
    """
    torch.manual_seed(derive_seed("init", seed))
    options = constructor_options(args=args, classes=classes, channels=channels, factory=factory)
    if factory is not None:
        with _drawing_from(derive_seed("init", seed)):
            return _call(name, factory, options)
    if name in OWN_MODELS:
        if pretrained:
            check_pretrained(name)
        return _call(name, OWN_MODELS[name], options)
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, [*OWN_MODELS, *timm.list_models()], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ModelError(f"unknown model {name!r}: neither ours ({', '.join(OWN_MODELS)}) nor timm's{hint}")
    if pretrained:
        check_pretrained(name)
    return _call(name, timm.create_model, {"model_name": name, "pretrained": pretrained, **options})


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Users' code may draw from NumPy and `random`, too; whatever else draws from them goes on as before."""
    before = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])


def passing_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """By name, what a model computes with and its state dict does not hold: buffers that are not persistent."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in kept}


def constructor_options(
    *, args: Mapping[str, Any], classes: int, channels: int, factory: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """What a model's constructor, or the factory that makes it, is called with: in_chans, where a factory takes it."""
    options = {"num_classes": classes, "in_chans": channels, **args}
    if factory is None:
        return options
    try:
        takes = "in_chans" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        takes = False
    if not takes:
        del options["in_chans"]
    return options


def pretrained_name(name: str) -> str:
    """With the tag that says which of a model's weights are meant: 'resnet18' -> 'resnet18.a1_in1k'."""
    tag = timm.models.get_pretrained_cfg(name).tag
    return f"{name.split('.')[0]}.{tag}" if tag else name


def check_pretrained(name: str) -> None:
    """Raises ModelError where timm knows of no weights of this model; looks for none."""
    if name in OWN_MODELS:
        raise ModelError(f"model {name}: there are no pretrained weights for it; set pretrained: false")
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        known = timm.list_pretrained(f"{name.split('.')[0]}*")
        hint = f"; there are some for {', '.join(known[:3])}" if known else ""
        raise ModelError(
            f"model {name}: timm has no pretrained weights for it{hint}; give a checkpoint, or set pretrained: false"
        )


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model there, with its convolutions' weights channels last, as its inputs are."""
    moved: nn.Module = model.to(device).to(memory_format=torch.channels_last)
    return moved


def _call(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    try:
        model = factory(**options)
    except Exception as error:  # a model's constructor may raise anything: its message is what the user needs
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        wrong = RuntimeError | TypeError | ValueError | AttributeError | KeyError
        misfit = isinstance(error, wrong) and not isinstance(error, OSError)  # some releases of the hub's are both
        if options.get("pretrained") and not misfit:
            raise ModelError(_unfetched(name, detail)) from error
        raise ModelError(f"model {name}: it cannot be built with these arguments: {detail}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name}: its factory gave {type(model).__name__}, not a torch.nn.Module")
    return model


def _unfetched(name: str, detail: str) -> str:
    """Pretrained weights that could not be had: why, and what to do about it."""
    hub = timm.models.get_pretrained_cfg(name).hf_hub_id
    fetch = f"where there is a network, run `hf download {hub}` and copy its folder into" if hub else "have a copy in"
    return (
        f"model {name}: its pretrained weights are neither in the local cache nor can they be fetched: {fetch} "
        f"{HF_HUB_CACHE if hub else torch.hub.get_dir()}; or give the model a checkpoint; or set pretrained: false "
        f"({detail})"
    )


def describe(
    name: str,
    *,
    args: Mapping[str, Any],
    classes: int,
    channels: int,
    size: tuple[int, int],
    factory: Callable[..., Any] | None = None,
) -> ModelFacts:
    """A model's facts from the meta device: no memory, no download, and the same count whatever the device (fused
    attention kernels, which the counter would miss, do not exist there).

    Raises ModelError as `build` does, and where the model cannot take images of this size or gives no logits.
    """
    # A factory of the user's may read numbers from tensors, which the meta device has not.
    for device in ("meta",) if factory is None else ("meta", "cpu"):
        try:
            with torch.device(device):
                model = build(name, args=args, classes=classes, channels=channels, factory=factory).eval()
                logits, flops = _forward(name, model, torch.zeros(1, channels, *size))
        except ModelError:
            if device == "cpu" or factory is None:
                raise
        else:
            break
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, classes):
        given = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"model {name}: gives {given} for one image; expected logits of shape (1, {classes})")
    if factory is not None:
        with torch.device(device):
            _check_training(name, model, torch.zeros(2, channels, *size), classes)
    tensors = [*model.parameters(), *model.buffers()]
    return ModelFacts(
        parameters=sum(p.numel() for p in model.parameters()),
        size_bytes=sum(t.numel() * t.element_size() for t in tensors),
        macs=flops // 2,
    )


def _check_training(name: str, model: nn.Module, images: torch.Tensor, classes: int) -> None:
    """Raises ModelError for a model that cannot be trained or kept as it is."""
    try:
        logits = model.train()(images)
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"model {name}: cannot be trained on two images: {detail}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        raise ModelError(f"model {name}: in training it gives {type(logits).__name__}, not logits alone")
    if not logits.requires_grad:
        raise ModelError(f"model {name}: none of its parameters can be trained: set requires_grad")
    state = next((key for key, value in model.state_dict().items() if not isinstance(value, torch.Tensor)), None)
    if state is not None:
        raise ModelError(f"model {name}: its state {state!r} is no tensor and cannot be kept")


def _forward(name: str, model: nn.Module, images: torch.Tensor) -> tuple[Any, int]:
    """What the model gives for the images, and the FLOPs it took."""
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            return model(images), counter.get_total_flops()
    except Exception as error:
        shape = " x ".join(str(side) for side in images.shape[1:])
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"model {name}: cannot take {shape} images: {detail}") from error
