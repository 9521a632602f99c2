"""(b), (c), (d): what views, cached teacher logits and an online teacher cost a training run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from kd.data.views.pixels import Pixels
from kd.data.views.views import EpochViews, ViewStream
from kd.logits import StoredLogits, logits_to_bytes, open_logits, store_logits
from kd.methods.soft_targets import SoftTargets
from kd.models.build import build, describe, on_device
from kd.objective import CachedTeacher, Distillation, HardLabels, Objective, OnlineTeacher, Teacher
from kd.recipe import LogitsFormat, Recipe
from kd.training.optim import make_optimizer
from kd.training.train import train
from tests.benchmarks.data import CPU, CROP_AND_FLIP, META, noise, stream
from tests.benchmarks.harness import Row, ratio

IMAGES, REPEATS = 4_096, 25
RECIPE = Recipe(epochs=1, batch_size=128, views=CROP_AND_FLIP)
# Some ten times the multiply-adds of the student, which is the small CNN.
TEACHER = "resnet18"


def _student() -> nn.Module:
    return on_device(build("small_cnn", args={}, classes=10, channels=3), CPU)


@lru_cache
def _views() -> ViewStream:
    return stream(noise(IMAGES))


def _train(objective: Objective) -> None:
    train(_student(), views=_views(), objective=objective, recipe=RECIPE, seed=0, evaluate=lambda _: {})


def _baseline() -> None:
    _train(HardLabels(label_smoothing=0.0))


def _distilled(teacher: Teacher) -> None:
    _train(Distillation(SoftTargets(temperature=4.0, alpha=0.5), teacher, label_smoothing=0.0))


def pipeline_vs_tensors() -> list[Row]:
    """Images per second of training, with our views over a bare loop on ready-made float batches."""
    split = noise(IMAGES)
    _views()
    pixels = Pixels.of(META, size=None, device=CPU)
    batches = [
        (pixels(images_BHWC), labels_B)
        for images_BHWC, labels_B in zip(
            split.images_NHWC.split(RECIPE.batch_size), split.labels_N.split(RECIPE.batch_size), strict=True
        )
    ]

    def bare() -> None:
        model = _student().train()
        optimizer = make_optimizer(model, RECIPE)
        for _ in range(RECIPE.epochs):
            for images_BCHW, labels_B in batches:
                loss = nn.functional.cross_entropy(model(images_BCHW), labels_B)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return [ratio("pipeline_vs_tensors", "x images/s", numerator=bare, denominator=_baseline, repeats=REPEATS)]


def cached_vs_baseline() -> list[Row]:
    """Seconds of a distilled run over those of a baseline; its logits are read from a file each epoch and checked."""
    logits_NC = torch.randn(IMAGES, 10, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "epoch.safetensors"
        stored = store_logits(logits_NC, LogitsFormat(), what="noise")
        path.write_bytes(logits_to_bytes(stored, fingerprint="noise"))

        def read(views: EpochViews) -> StoredLogits:
            return open_logits(path, fingerprint="noise", samples=IMAGES, classes=10)

        return [
            ratio(
                "cached_vs_baseline",
                "x seconds",
                numerator=lambda: _distilled(CachedTeacher(read, device=CPU)),
                denominator=_baseline,
                repeats=REPEATS,
            )
        ]


def online_vs_baseline() -> list[Row]:
    """Seconds of a run with the teacher online over those of a baseline, and how many multiply-adds it costs more."""
    shape = {"classes": 10, "channels": 3}
    macs = [describe(name, args={}, **shape, size=(32, 32)).macs for name in (TEACHER, "small_cnn")]
    teacher = on_device(build(TEACHER, args={}, **shape), CPU)
    pixels = Pixels.of(META, size=None, device=CPU)
    return [
        ratio(
            "online_vs_baseline",
            f"x seconds (teacher {macs[0] / macs[1]:.1f}x the student's MACs)",
            numerator=lambda: _distilled(OnlineTeacher(teacher, pixels=pixels, precision="auto")),
            denominator=_baseline,
            repeats=5,
        )
    ]


def channels_last_vs_default() -> list[Row]:
    """Images per second of training steps of the small CNN, channels last over torch's own layout."""
    labels_B = torch.arange(RECIPE.batch_size) % 10

    def steps(model: nn.Module, images_BCHW: torch.Tensor) -> Callable[[], None]:
        optimizer = make_optimizer(model.train(), RECIPE)

        def some() -> None:
            for _ in range(10):
                loss = nn.functional.cross_entropy(model(images_BCHW), labels_B)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

        return some

    images_BCHW = torch.randn(RECIPE.batch_size, 3, 32, 32)
    default = steps(build("small_cnn", args={}, classes=10, channels=3), images_BCHW)
    last = steps(_student(), images_BCHW.contiguous(memory_format=torch.channels_last))
    return [ratio("channels_last_vs_default", "x images/s", numerator=default, denominator=last, repeats=9)]
