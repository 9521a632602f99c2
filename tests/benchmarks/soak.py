"""`make soak CELLS=1000`: what short cells cost beyond themselves on one machine, whether that grows, and what they
leave behind. `make soak S3=1` counts requests to an S3 on this machine, for two sizes of a grid."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from grid.private import PLACE
from tests.launching import Launch, write_grid
from tests.object_store import BUCKET, ObjectStore, as_environment

LOOK_SECONDS = 0.25
TEMPERATURES, SEEDS = (1, 2, 4, 8), 5
OF_CELLS = ("ray::Worker", "ray::ResourceTrainable")
RAYS = "ray::"
PARTS = ("start", "middle", "end")
SHARES = (0.1, 0.5, 0.98)  # of the cells, at which each part ends: after the last ones comes the table
DONE = re.compile(r"^\[ *(\d+)/(\d+) ", re.M)
S3_CELLS = (20, 60)
MB = 1e6


def soak_grid(cells: int) -> dict[str, Any]:
    """A teacher, and so many cells: a seed's baseline, and settings of the same student."""
    student = {"name": "resnet18", "args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}}
    seeds = max(1, cells // (len(TEMPERATURES) + 1))
    return {
        "name": "soak",
        "dataset": {"name": "digits", "train_size": 40, "val_size": 20, "test_size": 40},
        "teachers": [student],
        "students": [student],
        "seeds": list(range(seeds)),
        "temperature": [*TEMPERATURES],
        "recipe": {"epochs": 1, "batch_size": 20},
    }


@dataclass
class Family:
    """The processes of a launch, those that ended among them. cpu: seconds by process, as last seen."""

    launch: psutil.Process
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    workers: set[tuple[int, float]] = field(default_factory=set)
    of_cells: set[tuple[int, float]] = field(default_factory=set)
    own: float = 0.0

    def look(self) -> None:
        for process in (self.launch, *self.launch.children(recursive=True)):
            try:
                key, times = (process.pid, process.create_time()), process.cpu_times()
                self.cpu[key] = times.user + times.system
                title = " ".join(process.cmdline())
                if title.startswith(RAYS):
                    self.workers.add(key)
                if title.startswith(OF_CELLS):
                    self.of_cells.add(key)
            except psutil.Error:
                continue

    @property
    def seconds(self) -> float:
        return sum(self.cpu.values())

    def driver_mb(self) -> float:
        return float(self.launch.memory_full_info().uss / MB)


@dataclass(frozen=True)
class Moment:
    cells: int
    wall: float
    cpu: float
    driver_mb: float
    workers: int
    of_cells: int
    files: int


def soak(cells: int, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="kds") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        os.environ.update({PLACE: str(folder / "own"), "TMPDIR": str(folder / "tmp")})
        storage = folder / "runs"
        launch = Launch("--grid", write_grid(folder, soak_grid(cells)), "--storage", str(storage), folder=folder)
        moments = _watch(launch, storage, cells)
        if launch.finish() != 0:
            raise RuntimeError(launch.text())
        own = [_own_seconds(path) for path in sorted(storage.glob("cells/*/record.json"), key=_written_at)]
        left = [path for place in ("tmp", "own/ray", "own/launches") for path in _below(folder / place)]
    say(
        f"{len(own)} cells, {len(os.sched_getaffinity(0))} slots; a cell's own work: {sum(own) / len(own):.3f} core-s\n"
    )
    say(f"{'':<34}" + "".join(f"{part:>10}" for part in (*PARTS, "end/middle")))
    starts = [Moment(0, moments[0].wall, 0.0, moments[0].driver_mb, 0, 0, 0), *moments[1:]]
    pairs = list(zip(starts, moments[1:], strict=False))
    rows = {
        "cells a minute": [60 * (b.cells - a.cells) / (b.wall - a.wall) for a, b in pairs],
        "overhead a cell, core-s": [
            (b.cpu - a.cpu - sum(own[a.cells : b.cells])) / (b.cells - a.cells) for a, b in pairs
        ],
        "launching process, MB of its own": [b.driver_mb for _, b in pairs],
        "files on the storage a cell": [(b.files - a.files) / (b.cells - a.cells) for a, b in pairs],
        "processes that did cells, so far": [b.of_cells for _, b in pairs],
        "processes of Ray's workers, so far": [b.workers for _, b in pairs],
    }
    for title, values in rows.items():
        shown = (*values, values[-1] / values[-2])
        say(f"{title:<34}" + "".join(f"{value:>10.2f}" for value in shown))
    say(f"left behind in temporary folders: {len(left)} files and folders")
    for path in left[:10]:
        say(f"  {path}")


def _watch(launch: Launch, storage: Path, cells: int) -> list[Moment]:
    """The beginning, and where each part ends."""
    family, began = Family(psutil.Process(launch.process.pid)), time.monotonic()
    moments: list[Moment] = []

    def moment(done: int) -> Moment:
        files = len(_below(storage))
        counts = (len(family.workers), len(family.of_cells), files)
        return Moment(done, time.monotonic() - began, family.seconds, family.driver_mb(), *counts)

    while launch.process.poll() is None:
        launch.look()
        try:
            family.look()
            done = len(list(storage.glob("cells/*/record.json")))
            if not moments and done:
                moments.append(moment(0))
            if moments and len(moments) <= len(SHARES) and done >= SHARES[len(moments) - 1] * cells:
                moments.append(moment(done))
        except psutil.Error:
            break
        time.sleep(LOOK_SECONDS)
    if len(moments) != len(SHARES) + 1:
        raise RuntimeError(f"the launch ended before all was seen\n{launch.text()}")
    return moments


def _own_seconds(path: Path) -> float:
    record = json.loads(path.read_text())
    return float(record["seconds_train"] + record["seconds_evaluate"])


def _written_at(path: Path) -> float:
    return path.stat().st_mtime


def _below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.name.startswith(".")] if folder.exists() else []


def requests(say: Callable[[str], None]) -> None:
    """Requests of whole launches, by method and by what they are for."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server's line a request
    server = ObjectStore()
    try:
        with as_environment(server):
            import s3fs

            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)
            for cells in S3_CELLS:
                with tempfile.TemporaryDirectory() as name:
                    before, folder = len(server.seen), Path(name)
                    where = ("--storage", f"s3://{BUCKET}/{cells}", "--wandb", "disabled")
                    launch = Launch("--grid", write_grid(folder, soak_grid(cells)), *where, folder=folder)
                    if launch.finish(1800) != 0:
                        raise RuntimeError(launch.text())
                seen = server.seen[before:]
                stages = cells + 3
                say(f"{cells} cells: {len(seen)} requests, {len(seen) / stages:.1f} a stage")
                for (method, what), count in Counter(map(_kind, seen)).most_common(24):
                    say(f"  {count:>6}  {method:<7} {what}")
    finally:
        server.stop()


def _kind(request: str) -> tuple[str, str]:
    """Of 'PUT /bucket/20/cells/0123/record.json?': the method, and the name without what tells stages apart."""
    method, _, path = request.partition(" ")
    path, _, query = path.partition("?")
    if "list-type" in query:
        return "LIST", re.sub(r"[0-9a-f]{8,}", "*", re.sub(r".*prefix=([^&]*).*", r"\1", query))
    return method, re.sub(r"[0-9a-f]{8,}|\d{8}T\d+|lease-\d+", "*", path.partition(f"/{BUCKET}/")[2].partition("/")[2])


def main() -> None:
    parse = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parse.add_argument("--cells", type=int, default=1000)
    parse.add_argument("--s3", action="store_true", help="count requests to an object store instead")
    args = parse.parse_args()
    if args.s3:
        requests(print)
    else:
        soak(args.cells, print)


if __name__ == "__main__":
    main()
