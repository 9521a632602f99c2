"""`python -m tests.benchmarks.noise`: 500 grids in which nothing gains, as files, and how many of them tell a reader of
their tables or of their conclusion of a gain or a loss. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.document import Note
from analysis.read.load import load_grid
from analysis.tables.conclusion import conclude
from analysis.tables.grid_tables import tables
from tests.analysis.conftest import SyntheticGrid

CLAIMS = ("gained significantly and", "its gain is significant", "its loss is significant")


@dataclass(frozen=True)
class NoiseDesign:
    """Of grids as files."""

    teachers: int
    temperatures: int
    spreads: tuple[float, ...]
    """Standard deviations of a run by student, in points."""
    seeds: int


NOISE = (
    NoiseDesign(2, 1, (3.5, 1.5, 1.3), 3),  # as digits
    NoiseDesign(1, 1, (1.0,), 3),
    NoiseDesign(1, 12, (0.4,), 3),
    NoiseDesign(1, 1, (2.0, 1.0, 1.0, 0.5, 0.5, 0.3), 3),
    NoiseDesign(4, 1, (1.0, 0.5), 5),
)


def noise_grid(root: Path, generator: np.random.Generator, design: NoiseDesign) -> SyntheticGrid:
    """A grid without any gain, of 1,000 test images."""
    students = [f"S{i}" for i, _ in enumerate(design.spreads)]
    grid = SyntheticGrid(
        root,
        teachers=[f"T{i}" for i in range(design.teachers)],
        students=students,
        seeds=range(design.seeds),
        temperature=[float(2**i) for i in range(design.temperatures)],
    )
    shared: dict[tuple[str, int], float] = {}
    for row in grid.find(kind="cell"):
        spread = design.spreads[students.index(row["student"])]
        seed = shared.setdefault((row["student"], row["seed"]), generator.standard_normal())
        grid.done(row, round(80 + spread * (seed + generator.standard_normal()) / math.sqrt(2), 1))
    for row in grid.find(kind="teacher"):
        grid.done(row, 90.0)
    return grid


def claims(storage: str) -> bool:
    """Whether a reader of the tables or of the conclusion is told of any gain or loss, by a mark or in words; both must
    say the same."""
    grid = load_grid(storage)
    document, said = tables(grid), conclude(grid)
    marked = any(mark in cell for line in document.tables["gains"].lines for cell in line for mark in "▲▼")
    notes = " ".join(part.text for part in document.parts if isinstance(part, Note))
    for text in (notes, said.distillation):
        assert marked == any(words in text for words in CLAIMS), text
    assert marked or not any(words in said.deploy for words in ("significantly better", "significantly worse"))
    return marked


def noisy_claims(*, grids: int) -> int:
    """How many of so many grids, of the designs of NOISE in turn, claim something."""
    found = 0
    for number in range(grids):
        with tempfile.TemporaryDirectory() as folder:
            generator = np.random.default_rng((2024, number))
            found += claims(noise_grid(Path(folder), generator, NOISE[number % len(NOISE)]).storage)
    return found


def main() -> None:
    parse = argparse.ArgumentParser(prog="python -m tests.benchmarks.noise")
    parse.add_argument("--grids", type=int, default=500)
    grids = parse.parse_args().grids
    found = noisy_claims(grids=grids)
    print(f"{found} of {grids} grids of pure noise claim a gain or a loss ({100 * found / grids:.1f} %)")


if __name__ == "__main__":
    main()
