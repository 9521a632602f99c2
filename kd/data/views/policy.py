"""The augmentation policy, as data: frozen, checked on construction, free of heavy imports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from kd.limits import IMAGE_SIDE, STREAMS, check_at_most

Padding = Literal["zeros", "reflect"]
Partners = Literal["epoch", "batch"]


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value}")


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Brightness, contrast and saturation are scaled by factors drawn from [max(0, 1 - x), 1 + x], hue is turned by a
    part of the circle drawn from [-hue, hue], in this order. Saturation and hue leave single-channel images alone."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _in_range(name, getattr(self, name), 0, 10)
        _in_range("hue", self.hue, 0, 0.5)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """`operations` of fourteen, drawn for each image, at one magnitude out of 0..30, with a random sign.

    Source: E. Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019;
    strengths as in torchvision's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        _in_range("operations", self.operations, 1, 10)
        _in_range("magnitude", self.magnitude, 0, 30)


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """With `probability`, a box is filled with the mean: its share of the image is drawn from `area`, its aspect ratio
    log-uniformly from `ratio`; a box that would be larger than the image is cut to it.

    Source: Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        _in_range("probability", self.probability, 0, 1)
        for name, high in (("area", 1.0), ("ratio", 100.0)):
            low, up = getattr(self, name)
            _in_range(name, low, 1e-6, high)
            _in_range(name, up, low, high)


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """With `probability`, an image is mixed with a partner, and so is its label. Where both alphas are given, each
    image draws one of the two.

    Sources: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; S. Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    mixup_alpha: float = 0.0
    """Of the Beta(alpha, alpha) that the weight is drawn from, at most 4; 0 leaves mixup out."""
    cutmix_alpha: float = 0.0
    """Of the Beta(alpha, alpha) that the weight is drawn from, at most 4; 0 leaves cutmix out."""
    probability: float = 1.0
    partners: Partners = "epoch"
    """Where they come from: "epoch" draws them from the view stream, so that the mixed image can be made again; "batch"
    takes them from the same batch, reversed, which depends on the run."""

    def __post_init__(self) -> None:
        _in_range("mixup_alpha", self.mixup_alpha, 0, 4)
        _in_range("cutmix_alpha", self.cutmix_alpha, 0, 4)
        _in_range("probability", self.probability, 0, 1)
        if not (self.mixup_alpha or self.cutmix_alpha):
            raise ValueError("give mixup_alpha, cutmix_alpha or both")
        if self.partners not in get_args(Partners):
            raise ValueError(f"partners must be one of {', '.join(get_args(Partners))}, got {self.partners!r}")


@dataclass(frozen=True, kw_only=True)
class ViewPolicy:
    """What happens to an image, in this order, on the native pixel grid; the resize to a model's input comes last."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    crop_padding: int = 0
    """Pixels of padding on each side before a random crop back to the native size."""
    padding: Padding = "zeros"
    """What that padding holds."""
    horizontal_flip: bool = False
    """Mirror each view with probability 1/2."""
    rand_augment: RandAugment | None = None
    """Changes of geometry and colour."""
    color_jitter: ColorJitter | None = None
    """Changes of colour."""
    cutout: int = 0
    """Side in pixels of a square hole, filled with the mean, whose centre may lie anywhere in the image (T. DeVries, G.
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017)."""
    random_erasing: RandomErasing | None = None
    """A box of random size and shape."""
    mixing: Mixing | None = None
    """Mixup and cutmix."""
    stream: int = 0
    """Which stream of random views; the view of sample i in epoch e depends on (stream, e, i) alone."""

    def __post_init__(self) -> None:
        for name, limit in (("crop_padding", IMAGE_SIDE), ("cutout", IMAGE_SIDE), ("stream", STREAMS)):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
            check_at_most(name, getattr(self, name), limit)
        if self.padding not in get_args(Padding):
            raise ValueError(f"padding must be one of {', '.join(get_args(Padding))}, got {self.padding!r}")

    @property
    def distinct(self) -> int | None:
        """How many views of an image there are at all; None where they cannot be counted off."""
        if self.rand_augment or self.color_jitter or self.cutout or self.random_erasing or self.mixing:
            return None
        return (2 * self.crop_padding + 1) ** 2 * (2 if self.horizontal_flip else 1)

    @property
    def unrepeatable(self) -> str | None:
        """Why a view cannot be made again from (stream, epoch, sample) alone; None where it can."""
        if self.mixing is not None and self.mixing.partners == "batch":
            return (
                "views.mixing.partners 'batch' takes each image's partner from its batch, which another run orders anew"
            )
        return None
