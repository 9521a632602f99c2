"""How large the numbers of a grid may be: above all that is known to be of use, and low enough that a slip of the
keyboard, or a stranger's grid, is told at once instead of filling memory or running for days. Free of heavy imports."""

from __future__ import annotations

EPOCHS = 1_000_000
IMAGES_AT_ONCE = 1_000_000  # a batch
IMAGE_SIDE = 8_192  # pixels: one such image takes 200 MB
STREAMS = 10_000  # of views; each has its own teacher logits
CLASSES = 1_000_000
LAYERS = 2_000  # of a model by name: more take minutes to build
WORKERS = 100_000  # or CPUs, GPUs, cells at a time
STAGES = 100_000  # of a grid: their plan takes some 600 MB
PASSES = 1_000_000  # of teachers over the training images, whose logits are kept
TEMPERATURE = 1e6
FACTOR = 3e38  # learning rate, weight decay and other factors: what float32 can hold


def check_at_most(name: str, value: float, limit: float) -> None:
    """Raises ValueError."""
    if value > limit:
        large = isinstance(value, int) and value.bit_length() > 64
        shown = f"a number of {int(value).bit_length()} bits" if large else f"{value}"
        bound = f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
        raise ValueError(f"{name} must be at most {bound}, got {shown}")
