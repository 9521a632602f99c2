"""A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads, and `hf-hub:` after an upload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kd.models.build import OWN_MODELS


class TimmFolderError(ValueError):
    """timm does not give back the model that was put into the folder."""


def is_timm(name: str) -> bool:
    """Whether `kd.models.build.build` takes the name from timm."""
    return name not in OWN_MODELS


def hub_weights(name: str) -> str | None:
    """The hub's repository of timm's pretrained weights of that name."""
    config = timm.models.get_pretrained_cfg(name)
    return str(config.hf_hub_id) if config is not None and config.hf_hub_id else None


def timm_config(
    name: str,
    model: nn.Module,
    *,
    args: Mapping[str, Any],
    classes: int,
    input_size: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    label_names: Sequence[str] | None,
) -> dict[str, Any]:
    """config.json of a timm model as it is now. input_size: channels, height, width. Images are squashed to it whole:
    nothing is cropped."""
    built = dict(getattr(model, "pretrained_cfg", {}))
    return {
        "architecture": name.split(".")[0],
        "num_classes": classes,
        "num_features": getattr(model, "num_features", None),
        **({"label_names": list(label_names)} if label_names else {}),
        "model_args": dict(args),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": list(input_size),
            # timm would pass an img_size to every model that has one fixed.
            "fixed_input_size": bool(built.get("fixed_input_size")) and not args.get("dynamic_img_size"),
            "interpolation": interpolation,
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(mean),
            "std": list(std),
            "num_classes": classes,
            "pool_size": None,
            "first_conv": built.get("first_conv"),
            "classifier": built.get("classifier"),
        },
    }


def check_timm_folder(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Load the folder as a stranger would. Raises TimmFolderError where that does not give these very weights."""
    try:
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    except Exception as error:  # a model's constructor may raise anything
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise TimmFolderError(f"timm does not load it from a folder: {detail}") from error
    if loaded.keys() != state.keys() or not all(torch.equal(loaded[name], state[name]) for name in state):
        raise TimmFolderError("timm loads other weights than these from the folder")
