"""(b), (c): what views and cached teacher logits cost a training run."""

from __future__ import annotations

import torch

from kd.data.views import Pixels, ViewStream
from kd.models.build import build
from kd.objective import Distillation, HardLabels, Objective
from kd.optim import make_optimizer
from kd.recipe import Recipe, Views
from kd.train import train
from tests.benchmarks.harness import Row, ratio
from tests.benchmarks.views import META, noise

IMAGES, REPEATS = 4_096, 7
RECIPE = Recipe(epochs=2, batch_size=128, views=Views(crop_padding=4, horizontal_flip=True))
DEVICE = torch.device("cpu")


def _train(objective: Objective) -> None:
    split = noise(IMAGES)
    views = ViewStream(split, RECIPE.views, Pixels.of(META, size=None, device=DEVICE), device=DEVICE)
    model = build("small_cnn", args={}, classes=10, channels=3)
    train(model, split=split, views=views, objective=objective, recipe=RECIPE, seed=0, evaluate=lambda model: {})


def pipeline_vs_tensors() -> Row:
    """Images per second of training, with our views over a bare loop on ready-made float batches."""
    split = noise(IMAGES)
    pixels = Pixels.of(META, size=None, device=DEVICE)
    batches = [
        (pixels(images_BCHW).contiguous(memory_format=torch.channels_last), labels_B)
        for images_BCHW, labels_B in zip(
            split.images_NCHW.split(RECIPE.batch_size), split.labels_N.split(RECIPE.batch_size), strict=True
        )
    ]

    def bare() -> None:
        model = build("small_cnn", args={}, classes=10, channels=3).train()
        optimizer = make_optimizer(model, RECIPE)
        for _ in range(RECIPE.epochs):
            for images_BCHW, labels_B in batches:
                loss = torch.nn.functional.cross_entropy(model(images_BCHW), labels_B)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return ratio(
        "pipeline_vs_tensors",
        "x images/s",
        numerator=bare,
        denominator=lambda: _train(HardLabels(label_smoothing=0.0)),
        repeats=REPEATS,
    )


def cached_vs_baseline() -> Row:
    """Seconds of a distilled run with cached logits over those of a baseline."""
    logits_NC = torch.randn(IMAGES, 10, generator=torch.Generator().manual_seed(0)).half()

    def distilled() -> None:
        _train(Distillation(lambda epoch: logits_NC, temperature=4.0, alpha=0.5, label_smoothing=0.0, device=DEVICE))

    return ratio(
        "cached_vs_baseline",
        "x seconds",
        numerator=distilled,
        denominator=lambda: _train(HardLabels(label_smoothing=0.0)),
        repeats=REPEATS,
    )
