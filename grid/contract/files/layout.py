"""What lies where on a storage that both sides read, and what people call it."""

from __future__ import annotations

STORAGE = "./runs"  # where none is named

GRIDS = "grids"
FOLDERS = {"dataset": "datasets", "teacher": "teachers", "logits": "logits", "cell": "cells"}
CALLED = {"dataset": "data set", "teacher": "teacher", "logits": "teacher logits", "cell": "cell"}

PLAN = "plan.json"
RECORD = "record.json"
FAILURE = "failure.json"
PROGRESS = "progress.json"


def grid_folder(grid: str) -> str:
    return f"{GRIDS}/{grid}"


def plan_file(grid: str) -> str:
    return f"{grid_folder(grid)}/{PLAN}"


def stage_folder(kind: str, stage_id: str) -> str:
    return f"{FOLDERS[kind]}/{stage_id}"
