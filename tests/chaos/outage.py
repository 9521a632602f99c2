"""A whole grid on an S3 that is out now and then, to the same table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.results import Results
from tests.launching import Launch
from tests.object_store import BUCKET, SLOW_DOWN, Answer, ObjectStore, as_environment

# Seconds after the first checkpoint: out, and back again.
OUTAGES = ((2.0, 14.0), (30.0, 45.0))


class Out:
    """Every request is refused during the outages."""

    def __init__(self) -> None:
        self.began = float("inf")
        self.answered = self.refused = 0

    def __call__(self, environ: dict[str, Any]) -> Answer | None:
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("/checkpoint.pt"):
            self.began = min(self.began, time.monotonic())
        since = time.monotonic() - self.began
        if any(start <= since < end for start, end in OUTAGES):
            self.refused += 1
            return SLOW_DOWN
        self.answered += 1
        return None


def through_outages(
    grid: str, overrides: Sequence[str], folder: Path, expected: Results, say: Callable[[str], None]
) -> list[str]:
    """Problems, one line each; none if the grid came to the same results."""
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server, storage = ObjectStore(), f"s3://{BUCKET}/chaos"
    sets = [word for change in overrides for word in ("--set", change)]
    try:
        with as_environment(server):
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)
            out = Out()
            with server.failing(out):
                started = time.monotonic()
                launch = Launch("--grid", grid, "--storage", storage, "--wandb", "disabled", *sets, folder=folder)
                status = launch.finish(1800)
            seconds = time.monotonic() - started
            say(f"S3: ended with {status} after {seconds:.0f} s; {out.answered} requests, and {out.refused} refused")
            problems = expected.differences(Results.of(storage, grid))
    finally:
        server.stop()
    if status != 0:
        problems.insert(0, f"the launch ended with {status}\n{launch.text()}")
    if not out.refused:
        problems.append("no request was refused")
    return [f"S3: {problem}" for problem in problems]
