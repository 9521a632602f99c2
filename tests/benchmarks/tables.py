"""(h): a table from a storage with far more grids than anybody has today."""

from __future__ import annotations

import io
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from grid.store.records import make_record, record_to_json
from tests.benchmarks.harness import Row

GRIDS, CELLS, EPOCHS = 1000, 100, 100
SEEDS = 5


def table_of_1000() -> list[Row]:
    """Seconds of `table` for one of GRIDS grids of CELLS cells each, and for all of them, in a process of its own, with
    the memory it took; every cell has a curve of EPOCHS."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_grids(Path(folder), grids=GRIDS)
        for which, asked in (("one", "grid-0007"), ("all", "--all")):
            runs = [_table(folder, "table", asked) for _ in range(5)]
            for name, unit, values in zip(("s", "mb"), ("s", "MB"), zip(*runs, strict=True), strict=True):
                median = statistics.median(values)
                rows.append(Row(f"table_{which}_of_1000_{name}", median, unit, min(values), max(values)))
    return rows


def write_grids(folder: Path, *, grids: int) -> None:
    """Grids of 2 teachers and CELLS - 2 cells each: students alone and from both teachers, SEEDS seeds."""
    draw = random.Random(0)
    curve = _curve()
    students = (CELLS - 2) // (3 * SEEDS)
    for number in range(grids):
        rows = []
        for place, (student, teacher, seed) in enumerate(
            [(None, f"T{t}", 0) for t in range(2)]
            + list(itertools.product([f"S{s}" for s in range(students)], [None, "T0", "T1"], range(SEEDS)))
        ):
            stage_id, kind = f"{number:08d}{place:08d}", "teacher" if student is None else "cell"
            how = {"method": "kd", "temperature": 4.0, "alpha": 0.5} if student and teacher else {}
            axes = {"seed": seed, **({"mode": "distilled" if teacher else "baseline"} if student else {}), **how}
            rows.append({"kind": kind, "stage_id": stage_id, "teacher": teacher, "student": student, **axes})
            record = make_record(
                {
                    "stage_id": stage_id,
                    "kind": kind,
                    "status": "done",
                    "dataset": "digits",
                    "teacher": teacher,
                    "student": student,
                    **axes,
                    "parameters": 1000,
                    "size_bytes": 4000,
                    "test_top1_last": draw.gauss(0.8, 0.01),
                    "best_test_top1": 0.82,
                    "macs": 10_000,
                    "latency_ms": 1.0,
                    "latency_ms_q1": 0.9,
                    "latency_ms_q3": 1.1,
                    "latency_batch": 32,
                    "latency_device": "CPU",
                    "device_seconds": 10.0,
                    "epochs": EPOCHS,
                    "precision": "float32",
                }
            )
            place_of = folder / f"{kind}s" / stage_id
            place_of.mkdir(parents=True)
            (place_of / "record.json").write_bytes(record_to_json(record))
            (place_of / "curve.parquet").write_bytes(curve)
        name = f"grid-{number:04d}"
        plan = {
            "schema_version": 1,
            "grid": name,
            "written_at": "2026-01-02T03:04:05+00:00",
            "rows": rows,
            "spec": {"name": name, "dataset": {"name": "digits"}},
            "stages": [{"id": row["stage_id"], "kind": row["kind"]} for row in rows],
        }
        (folder / "grids" / name).mkdir(parents=True)
        (folder / "grids" / name / "plan.json").write_text(json.dumps(plan))


def _curve() -> bytes:
    buffer = io.BytesIO()
    points = [{"epoch": e + 1, "train_loss": 1 / (e + 1), "test_top1": e / EPOCHS} for e in range(EPOCHS)]
    pl.DataFrame(points).write_parquet(buffer)
    return buffer.getvalue()


def _table(storage: str, *command: str) -> tuple[float, float]:
    """Wall seconds and peak MB of a command of the analysis."""
    script = (
        "import sys, time; started = time.perf_counter(); from analysis.cli import main\n"
        "status = main(sys.argv[1:]); seconds = time.perf_counter() - started\n"
        # Of this program alone: ru_maxrss would count the process that started it.
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(seconds, int(peak) / 1e3, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--storage", storage], capture_output=True, text=True, check=True
    )
    seconds, megabytes = done.stderr.split()[-2:]
    return float(seconds), float(megabytes)
