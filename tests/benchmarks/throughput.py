"""`make throughput`: images per second of training at 224 px, alone, from cached logits and with the teacher online.

Three students of CIFAR-100 with ViT-Base as their teacher, through the loop that the grid uses; weights are random, for
they do not matter to speed. On a GPU also the share of the card's dense bfloat16 peak that the multiply-adds make up.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import nn

from kd.data.dataset import DatasetMeta, Split
from kd.data.views.pixels import Pixels
from kd.data.views.views import ViewStream
from kd.logits import StoredLogits
from kd.machine.measure import device_name
from kd.methods.soft_targets import SoftTargets
from kd.models.build import build, describe, on_device
from kd.objective import CachedTeacher, Distillation, HardLabels, Objective, OnlineTeacher
from kd.precision import resolve
from kd.recipe import Recipe
from kd.training.train import train
from tests.benchmarks.data import CROP_AND_FLIP

STUDENTS = {"ViT-Tiny": "vit_tiny_patch16_224", "ResNet-18": "resnet18", "MobileViT-S": "mobilevit_s"}
TEACHER = "vit_base_patch16_224"
SIZE, CLASSES = 224, 100
SHAPE = {"args": {}, "classes": CLASSES, "channels": 3}
META = DatasetMeta(name="noise", classes=CLASSES, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3, fingerprint="none")
# Dense bfloat16, in FLOP/s, as the vendor states it for the SXM card.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def main() -> None:
    parse = argparse.ArgumentParser(prog="make throughput", description=(__doc__ or "").split("\n")[0])
    parse.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parse.add_argument("--batch", type=int, help="default: 128 on a GPU, 16 on a CPU")
    parse.add_argument("--steps", type=int, help="a measured epoch; default: 60 on a GPU, 2 on a CPU")
    parse.add_argument("--repeats", type=int, default=3)
    args = parse.parse_args()
    device = torch.device(args.device)
    gpu = device.type == "cuda"
    batch, steps = args.batch or (128 if gpu else 16), args.steps or (60 if gpu else 2)
    peak = next((flops for card, flops in PEAKS.items() if card in device_name(device)), None) if gpu else None
    print(f"{device_name(device)}, torch {torch.__version__}, {resolve('auto', device)}, batch {batch}, {SIZE} px")
    print(f"Images per second, median of {args.repeats} (lowest to highest) epochs of {steps} steps\n")

    generator = torch.Generator().manual_seed(0)
    count = batch * steps
    images_NHWC = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    split = Split(images_NHWC, torch.randint(0, CLASSES, (count,), generator=generator))
    pixels = Pixels.of(META, size=SIZE, device=device)
    views = ViewStream(split, CROP_AND_FLIP, pixels, device=device)
    teacher = on_device(build(TEACHER, **SHAPE), device)
    logits_NC = torch.randn(count, CLASSES, generator=generator).half()

    def objective(how: str) -> Objective:
        if how == "baseline":
            return HardLabels(label_smoothing=0.0)
        cached = CachedTeacher(lambda _: StoredLogits(logits_NC, CLASSES), device=device)
        online = OnlineTeacher(teacher, pixels=pixels, precision="auto")
        source = cached if how == "cached" else online
        return Distillation(SoftTargets(temperature=4.0, alpha=0.5), source, label_smoothing=0.0)

    size = (SIZE, SIZE)
    teacher_macs = describe(TEACHER, **SHAPE, size=size).macs
    share = " | bf16 peak" if peak else ""
    print(f"| Student | MACs | | images/s | of baseline{share} |")
    print(f"| --- | --: | --- | --: | --: |{' --: |' if peak else ''}")
    for label, name in STUDENTS.items():
        macs = describe(name, **SHAPE, size=size).macs
        seen: dict[str, list[float]] = {"baseline": [], "cached": [], "online": []}
        for _ in range(args.repeats):
            for how, rates in seen.items():
                model = on_device(build(name, **SHAPE), device)
                rates.append(count / _epoch_seconds(model, views, objective(how), batch))
        baseline = statistics.median(seen["baseline"])
        for how, rates in seen.items():
            rate = statistics.median(rates)
            # A backward pass costs two forward passes; the teacher is run forward alone.
            flops = 2 * (3 * macs + (teacher_macs if how == "online" else 0))
            of_peak = f" {rate * flops / peak:.1%} |" if peak else ""
            spread = f"{rate:.1f} ({min(rates):.1f} to {max(rates):.1f})"
            print(f"| {label} | {macs / 1e9:.2f} G | {how} | {spread} | {rate / baseline:.2f} |{of_peak}", flush=True)


def _epoch_seconds(model: nn.Module, views: ViewStream, objective: Objective, batch: int) -> float:
    """Of the second epoch: the first warms up."""
    recipe = Recipe(epochs=2, batch_size=batch, views=CROP_AND_FLIP)
    curve = train(model, views=views, objective=objective, recipe=recipe, seed=0, evaluate=lambda _: {})
    return float(curve[1]["seconds_train"] or 0)


if __name__ == "__main__":
    main()
