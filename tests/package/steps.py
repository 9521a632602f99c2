"""Steps that are tried one after the other, a line for each."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Of `digits`, so that it takes seconds: what it gives is looked at elsewhere.
SHORT = ("--set", "recipe.epochs=2", "--set", "seeds=[0]", "--wandb", "disabled")
LIMIT_SECONDS = 900


class StepError(Exception):
    """A step did not do what it should; the message says what it did."""


class SkippedError(Exception):
    """A step cannot be tried here; the message says why."""


def run(command: Sequence[str], folder: Path, *, status: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints on both streams. Raises StepError where it ends with another status, or not in time."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**inherited, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{' '.join(command)} took more than {LIMIT_SECONDS} s") from None
    if done.returncode != status:
        raise StepError(f"{' '.join(command)} ended with status {done.returncode}:\n{_end_of(done.stdout)}")
    return done.stdout


def expect(text: str, wanted: str) -> None:
    """Raises StepError where `wanted` does not stand in the text."""
    if wanted not in text:
        raise StepError(f"{wanted!r} was expected in:\n{_end_of(text)}")


def try_all(steps: Sequence[tuple[str, Callable[[], None]]]) -> int:
    """Try every step, also after one that failed; the number of those that did."""
    failed = 0
    for name, step in steps:
        started = time.monotonic()
        try:
            step()
            verdict = "ok"
        except SkippedError as why:
            verdict = f"skipped: {why}"
        except StepError as why:
            failed += 1
            verdict = "FAILED: " + str(why).replace("\n", "\n    ")
        print(f"{name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    return failed


def _end_of(text: str) -> str:
    return "\n".join(text.splitlines()[-12:])
