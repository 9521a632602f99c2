"""Importing what stages need into a worker's process."""

from __future__ import annotations

import sys

CANNOT_IMPORT = "its worker cannot import what it needs"


def import_work() -> None:
    """Raises ImportError. timm imports wandb wherever that is installed, which takes more than half a second and leaves
    two folders in the temporary one when Ray ends the process; workers write nothing to Weights & Biases."""
    hidden = "wandb" not in sys.modules
    if hidden:
        sys.modules["wandb"] = None  # type: ignore[assignment]
    try:
        import grid.work.logits
        import grid.work.training  # noqa: F401
    finally:
        if hidden:
            del sys.modules["wandb"]
