"""Views: what a model sees of an image in an epoch, as a pure function.

The view of sample i in epoch e depends on (stream, e, i) alone: its draws are made for the whole epoch at once, by a
counter-based generator, and indexed by the sample. Batch order, batch size, resuming and the number of workers cannot
change it, which is what makes teacher logits exactly cacheable. All work is on whole batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kd.data.dataset import Split
from kd.data.views.boxes import box_area, box_mask, cutmix_boxes, cutout_boxes, erasing_boxes
from kd.data.views.color import JITTERS, jitter_draws
from kd.data.views.crops import Cropper
from kd.data.views.pixels import Pixels
from kd.data.views.policy import Mixing, ViewPolicy
from kd.data.views.rand_augment import rand_augment, rand_augment_draws
from kd.draws import Key, integers, permutation, raw, uniform


@dataclass(frozen=True)
class Labels:
    """What a batch of views shows: int64 [B], or two labels where images are mixed, the first with weight_B (float32
    [B], the second with the rest)."""

    first_B: Tensor
    second_B: Tensor | None = None
    weight_B: Tensor | None = None

    @property
    def main(self) -> Tensor:
        """The label that weighs most."""
        if self.second_B is None or self.weight_B is None:
            return self.first_B
        return torch.where(self.weight_B >= 0.5, self.first_B, self.second_B)


class ViewStream:
    """The random views of one training split under one policy, on one device."""

    def __init__(self, split: Split, views: ViewPolicy, pixels: Pixels, *, device: torch.device) -> None:
        self.images_NHWC = split.images_NHWC.to(device)
        self.labels_N = split.labels_N.to(device)
        self.views = views
        self.pixels = pixels
        self.device = device
        self.crop = Cropper(self.images_NHWC, padding=views.crop_padding, mode=views.padding)

    def __len__(self) -> int:
        return len(self.labels_N)

    def epoch(self, epoch: int, *, batches: tuple[Tensor, ...] | None = None) -> EpochViews:
        """All draws of one epoch (a few bytes a sample). batches: the epoch's batches as sample numbers, which only a
        policy that cannot be replayed asks for.

        Raises ValueError for such a policy without its batches.
        """
        views, count = self.views, len(self)
        height, width = self.images_NHWC.shape[1:3]
        key: Key = (views.stream, epoch)
        draws: dict[str, np.ndarray] = {}
        if views.crop_padding:
            places = 2 * views.crop_padding + 1
            draws["top"] = integers(count, below=places, key=("crop_top", *key))
            draws["left"] = integers(count, below=places, key=("crop_left", *key))
        if views.horizontal_flip:
            draws["flip"] = (raw(count, key=("flip", *key)) >> np.uint64(63)).astype(bool)
        if views.rand_augment is not None:
            draws |= rand_augment_draws(count, views.rand_augment, key=key)
        if views.color_jitter is not None:
            draws |= jitter_draws(count, views.color_jitter, key=key)
        if views.cutout:
            draws["cutout"] = cutout_boxes(count, side=views.cutout, height=height, width=width, key=key)
        if views.random_erasing is not None:
            draws["erased"] = erasing_boxes(count, views.random_erasing, height=height, width=width, key=key)
        if views.mixing is not None:
            draws |= _mixing_draws(count, views.mixing, height=height, width=width, key=key)
            if views.mixing.partners == "batch":
                draws["partner"] = self._partners_in(batches)
        return EpochViews(self, self.pixels, epoch, {k: torch.from_numpy(v).to(self.device) for k, v in draws.items()})

    def numbered(self, number: int) -> EpochViews:
        """The same view of every sample: number 0 .. distinct - 1 of a policy whose views can be counted off."""
        views = self.views
        assert views.distinct is not None, "these views have no numbers"
        places = 2 * views.crop_padding + 1
        corner, flip = divmod(number, 2) if views.horizontal_flip else (number, 0)
        draws: dict[str, Tensor] = {}
        if views.crop_padding:
            draws["top"] = torch.full((len(self),), corner // places, device=self.device)
            draws["left"] = torch.full((len(self),), corner % places, device=self.device)
        if views.horizontal_flip:
            draws["flip"] = torch.full((len(self),), bool(flip), device=self.device)
        return EpochViews(self, self.pixels, None, draws)

    def _partners_in(self, batches: tuple[Tensor, ...] | None) -> np.ndarray:
        if batches is None:
            raise ValueError(self.views.unrepeatable)
        partner_N = np.arange(len(self))
        for batch_B in batches:
            partner_N[batch_B.cpu().numpy()] = batch_B.flip(0).cpu().numpy()
        return partner_N


@dataclass(frozen=True)
class EpochViews:
    """The views of one epoch."""

    stream: ViewStream
    pixels: Pixels
    epoch: int | None
    """None: one numbered view of every sample."""
    draws: Mapping[str, Tensor]
    """A value or row for each sample."""

    def __len__(self) -> int:
        return len(self.stream)

    def seen_through(self, pixels: Pixels) -> EpochViews:
        """The same views, brought to another model's input size."""
        return replace(self, pixels=pixels)

    @property
    def numbers(self) -> Tensor:
        """Each sample's view by its number, int64, of a policy whose views can be counted off."""
        views, zero = self.stream.views, torch.zeros(len(self), dtype=torch.int64, device=self.stream.device)
        top, left = self.draws.get("top", zero), self.draws.get("left", zero)
        corner = top * (2 * views.crop_padding + 1) + left
        return corner * 2 + self.draws["flip"] if views.horizontal_flip else corner

    def batch(self, index_B: Tensor) -> Tensor:
        """The model's input for these samples, float32 [B, C, size, size]."""
        x_BHWC = self._single(index_B)
        if self.stream.views.mixing is not None:
            x_BHWC = self._mix(x_BHWC, self._single(self.draws["partner"][index_B]), index_B)
        return self.pixels.resize(x_BHWC)

    def labels(self, index_B: Tensor) -> Labels:
        labels_N = self.stream.labels_N
        if self.stream.views.mixing is None:
            return Labels(labels_N[index_B])
        weight_B = self.draws["weight"][index_B].float()
        return Labels(labels_N[index_B], labels_N[self.draws["partner"][index_B]], weight_B)

    def _single(self, index_B: Tensor) -> Tensor:
        """Views before mixing, normalised, float32 [B, H, W, C]."""
        stream, views = self.stream, self.stream.views
        at = {name: values[index_B] for name, values in self.draws.items()}
        x_BHWC = stream.crop(index_B, top_B=at.get("top"), left_B=at.get("left"), flip_B=at.get("flip"))
        if views.rand_augment is not None:
            x_BHWC = rand_augment(
                x_BHWC, views.rand_augment, operation_BR=at["operation_NR"], negative_BR=at["negative_NR"]
            )
        for name, change in JITTERS.items():
            if name in at:
                x_BHWC = change(x_BHWC, at[name])
        x_BHWC = self.pixels.normalise(x_BHWC)
        height, width = x_BHWC.shape[1:3]
        for hole in ("cutout", "erased"):
            if hole in at:
                # Zero is the mean, once normalised.
                x_BHWC.masked_fill_(box_mask(at[hole], height=height, width=width)[..., None], 0)
        return x_BHWC

    def _mix(self, x_BHWC: Tensor, partner_BHWC: Tensor, index_B: Tensor) -> Tensor:
        weight_B111 = self.draws["weight"][index_B].float()[:, None, None, None]
        patch_B4 = self.draws["patch"][index_B]
        inside_BHW1 = box_mask(patch_B4, height=x_BHWC.shape[1], width=x_BHWC.shape[2])[..., None]
        pasted_BHWC = torch.where(inside_BHW1, partner_BHWC, x_BHWC)
        blended_BHWC = weight_B111 * x_BHWC + (1 - weight_B111) * partner_BHWC
        return torch.where(self.draws["pasted"][index_B][:, None, None, None], pasted_BHWC, blended_BHWC)


def _mixing_draws(count: int, policy: Mixing, *, height: int, width: int, key: Key) -> dict[str, np.ndarray]:
    """partner: sample numbers; weight: of the image itself, float64; pasted: cutmix rather than mixup; patch: boxes."""
    both = bool(policy.mixup_alpha and policy.cutmix_alpha)
    pasted_N = np.full(count, bool(policy.cutmix_alpha))
    if both:
        pasted_N = uniform(count, key=("mix_kind", *key)) < 0.5
    weight_N = np.where(pasted_N, _beta(count, policy.cutmix_alpha, key=key), _beta(count, policy.mixup_alpha, key=key))
    weight_N[uniform(count, key=("mix", *key)) >= policy.probability] = 1
    patch_N4 = cutmix_boxes(weight_N, height=height, width=width, key=key)
    # What the cut patch really leaves of the image.
    weight_N = np.where(pasted_N, 1 - box_area(patch_N4) / (height * width), weight_N)
    partner_N = permutation(count, key=("mix_partner", *key))
    return {"partner": partner_N, "weight": weight_N, "pasted": pasted_N, "patch": patch_N4}


def _beta(count: int, alpha: float, *, key: Key) -> np.ndarray:
    """Beta(alpha, alpha), float64 [N]; ones for alpha 0. Each sample has candidates of its own, from raw numbers alone.

    Source: M. D. Jöhnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen", Metrika 8, 1964: u and v to
    the power 1 / alpha, accepted where their sum is at most 1, give u / (u + v).
    """
    weight_N, undecided = np.ones(count), np.full(count, bool(alpha))
    attempt = 0
    while undecided.any():
        u_N, v_N = (uniform(count, key=(f"mix_weight_{name}", attempt, *key)) ** (1 / alpha) for name in "uv")
        accepted = undecided & (u_N + v_N <= 1) & (u_N + v_N > 0)
        weight_N[accepted] = u_N[accepted] / (u_N + v_N)[accepted]
        undecided &= ~accepted
        attempt += 1
    return weight_N
