"""Ended by Ctrl-C and by kill -9 in the middle, a grid ends with the very same table, and nothing done is redone."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from analysis.cli import table
from tests.conftest import tiny_grid
from tests.launching import Launch, records, signature, write_grid


def test_interrupted_and_killed_it_ends_with_the_same_table(tmp_path: Path) -> None:
    recipe = {"epochs": 40, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 20}
    # Checkpoints many times an epoch: most of what ends it comes within one.
    path = write_grid(tmp_path, tiny_grid(recipe=recipe, name="killed", resources={"checkpoint_minutes": 1e-3}))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    common = ("--grid", path, "--wandb", "disabled", "--cpus", "2")

    def launch() -> Launch:
        return Launch(*common, "--storage", str(broken), folder=tmp_path)

    def checkpoints() -> list[Path]:
        return list(broken.glob("*/*/checkpoint.pt"))

    undisturbed = Launch(*common, "--storage", str(whole), folder=tmp_path)
    assert undisturbed.finish() == 0, undisturbed.text()

    # Ctrl-C while something is being trained: it saves a checkpoint and leaves.
    first = launch()
    first.wait_until(lambda: bool(checkpoints()))
    first.interrupt(signal.SIGINT)
    assert first.finish(60) == 130, first.text()
    assert "Stopping: waiting for" in first.out.read_text()
    assert "Interrupted" in first.err.read_text()
    assert f"To go on: python launch.py --grid {path}" in first.err.read_text()
    assert re.search(r"^  .*: saved at epoch [0-9.]+ of 40$", first.err.read_text(), re.MULTILINE), first.text()
    assert first.left_over(timeout=20) == []
    assert not list(broken.glob("*/*/failure.json")), "interrupted is not failed"
    assert not list(broken.glob("*/*/lease-*.json")), "given back"
    assert checkpoints(), "what was running goes on from its last step saved"

    # SIGTERM, as a scheduler would send it, and once more: it leaves at once.
    preempted = launch()
    preempted.wait_until(lambda: len(records(broken, "cells")) >= 1 and bool(checkpoints()))
    preempted.interrupt(signal.SIGTERM)
    preempted.wait_until(lambda: "Stopping" in preempted.out.read_text())
    preempted.interrupt(signal.SIGTERM)
    assert preempted.finish(60) == 130, preempted.text()
    assert "Interrupted" in preempted.err.read_text()
    assert not list(broken.glob("*/*/failure.json")), "interrupted is not failed"

    # kill -9 once a distilled cell, too, has a checkpoint.
    done = signature(broken)
    second = launch()
    second.wait_until(lambda: len(records(broken, "cells")) >= 5 and bool(checkpoints()))
    second.kill()
    assert signature(broken).items() >= done.items()
    done = signature(broken)
    total = len(records(whole))
    assert len(done) < total

    third = launch()
    assert third.finish() == 0, third.text()
    assert signature(broken).items() >= done.items(), "a finished stage was computed again"
    assert len(records(broken)) == total
    assert f"Done: {total - len(done)} stages computed, {len(done)} reused." in third.out.read_text()
    # Without the models below it, which were timed.
    first, second = (table(str(storage), "killed").partition("#### Models")[0] for storage in (broken, whole))
    assert first == second
    for record in records(whole):
        name = record.relative_to(whole).parent / "model.safetensors"
        if (whole / name).exists():
            assert (broken / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
    assert preempted.left_over() == [], "Ray's agents outlive a launch that left at once by a minute at most"
