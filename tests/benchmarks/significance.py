"""How often verdicts and intervals are right, in simulated grids: `python -m tests.benchmarks.significance WHAT`.

coverage    the lines of `analysis/stats/coverage.py`: some minutes
power       how many true gains are found, and how many grids of pure noise claim one: the table of docs/statistics.md
limits      how many grids of pure noise claim a gain where spreads are unequal: its second table

Half of a run's variance is its seed's and half its own, so that with spreads of 1 the standard deviation of a gain is
1 point. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.stats

from analysis.stats import Arms, holm, interquartile_mean, interval_of, moderated_gains, probability_of_improvement
from analysis.stats.coverage import REPEATS, REPEATS_OF_BOOTSTRAP
from analysis.stats.moderated import ModeratedGain, Spread, moderate, prior

SEEDS = (2, 3, 4, 5, 6, 8, 10)
DESIGNS = (
    *((1, trainings) for trainings in (1, 2, 3, 4, 6, 9, 12, 25, 40)),
    *((2, trainings) for trainings in (1, 2, 3, 4, 6, 20)),
    *((3, trainings) for trainings in (1, 2, 3, 4)),
    *((4, trainings) for trainings in (1, 2, 3, 10)),
    *((6, trainings) for trainings in (1, 2)),
    *((8, trainings) for trainings in (1, 5)),
    (20, 2),
    (40, 1),
)
BOOTSTRAP_SEEDS = (2, 3, 5, 10)

Judge = Callable[[list[Arms]], list[float | None]]


def simulated(
    generator: np.random.Generator,
    *,
    students: int,
    trainings: int,
    seeds: int,
    gain: float = 0.0,
    spreads: Sequence[float] | None = None,
    unequal_arms: bool = False,
) -> list[Arms]:
    """Accuracies of each student; spreads: standard deviations of a run by student, in points. unequal_arms: the
    variances of the distilled runs are 4 / chi squared with 4 degrees of freedom, one an arm."""
    found = []
    for student in range(students):
        spread = 1.0 if spreads is None else spreads[student]
        shared_S, own_AS = generator.standard_normal(seeds), generator.standard_normal((trainings + 1, seeds))
        if unequal_arms:
            own_AS[1:] *= np.sqrt(4 / generator.chisquare(4, trainings))[:, None]
        runs_AS = 80 + spread * (shared_S + own_AS) / math.sqrt(2)
        runs_AS[1:] += gain
        alone, *taught = [dict(enumerate(runs.tolist())) for runs in runs_AS]
        found.append(Arms(alone, taught))
    return found


def gains_of(arms: Arms) -> list[list[float]]:
    return [[taught[seed] - arms.baseline[seed] for seed in taught] for taught in arms.distilled]


def paired_t(grid: list[Arms]) -> list[float | None]:
    """The ordinary paired t-test: each pair on its own."""
    return [float(scipy.stats.ttest_1samp(gains, 0).pvalue) for arms in grid for gains in gains_of(arms)]


def smyth_by_pair(grid: list[Arms]) -> list[float | None]:
    """limma's moderation of each pair's variance of gains, as if pairs shared nothing."""
    found = [gains for arms in grid for gains in gains_of(arms)]
    spreads = [Spread(float(np.var(gains, ddof=1)), len(gains) - 1) for gains in found]
    before, most = prior(spreads), sum(spread.df for spread in spreads)
    judged = [own if before is None else moderate(own, before, most=most) for own in spreads]
    return [ModeratedGain(len(g), float(np.mean(g)), s).p for g, s in zip(found, judged, strict=True)]


def moderated(grid: list[Arms]) -> list[float | None]:
    """What the tables use."""
    return [None if gain is None else gain.p for gains in moderated_gains(grid) for gain in gains]


JUDGES: dict[str, Judge] = {"paired t": paired_t, "Smyth by pair": smyth_by_pair, "moderated": moderated}


def significant(p_values: list[float | None]) -> list[bool]:
    return [p is not None and p < 0.05 for p in holm(p_values, tests=len(p_values))]


def coverage_lines(designs: tuple[tuple[int, int], ...] = DESIGNS) -> Iterator[str]:
    for students, trainings in designs:
        for seeds in SEEDS:
            generator = np.random.default_rng((students, trainings, seeds))
            held, alarms = 0, 0
            for _ in range(REPEATS):
                judged = moderated_gains(simulated(generator, students=students, trainings=trainings, seeds=seeds))
                gains = [gain for of in judged for gain in of if gain is not None and gain.spread is not None]
                bounds = [interval_of(gain.mean, gain.n, gain.spread) for gain in gains if gain.spread is not None]
                held += sum(low <= 0 <= high for low, high in bounds)
                alarms += any(significant([gain.p for gain in gains]))
            figures = [100 * held / (REPEATS * students * trainings), 100 * alarms / REPEATS]
            pairs = students * trainings
            boot: tuple[float | None, float | None] = (None, None)
            if seeds in BOOTSTRAP_SEEDS and pairs > 1:
                boot = bootstrap_held(generator, students=students, trainings=trainings, seeds=seeds)
            shown = ", ".join(f"{figure:.1f}" for figure in figures)
            rest = ", ".join("None" if figure is None else f"{figure:.1f}" for figure in boot)
            yield f"    ({students}, {trainings}, {seeds}): ({shown}, {rest}),"


def bootstrap_held(generator: np.random.Generator, *, students: int, trainings: int, seeds: int) -> tuple[float, float]:
    """How many bootstrap intervals over all pairs hold 0 and 1/2, in percent: drawn as `analysis.measures.overall`."""
    held = np.zeros(2)
    for _ in range(REPEATS_OF_BOOTSTRAP):
        grid = simulated(generator, students=students, trainings=trainings, seeds=seeds)
        together = [student for student in range(students) for _ in range(trainings)]
        gained = [gains for arms in grid for gains in gains_of(arms)]
        taught = [[*runs.values()] for arms in grid for runs in arms.distilled]
        alone = [[*arms.baseline.values()] for arms in grid for _ in arms.distilled]
        found = (
            (interquartile_mean(gained, together=together, resamples=1000), 0.0),
            (probability_of_improvement(taught, alone, together=together, resamples=1000), 0.5),
        )
        for i, (figure, truth) in enumerate(found):
            assert figure.low is not None
            assert figure.high is not None
            held[i] += figure.low <= truth <= figure.high
    gain, improvement = 100 * held / REPEATS_OF_BOOTSTRAP
    return float(gain), float(improvement)


def power_lines(*, repeats: int = 1000) -> Iterator[str]:
    """Of 2 teachers and 3 students: true gains found, and grids of noise that claim any, in percent."""
    yield "| Students' spreads | Seeds | Test | +0.5 | +1 | +2 | False alarms |"
    yield "| --- | --: | --- | --: | --: | --: | --: |"
    for called, spreads in (("alike", (1.0, 1.0, 1.0)), ("0.5, 1 and 2", (0.5, 1.0, 2.0))):
        for seeds in (3, 5, 10):
            for name, judge in JUDGES.items():
                found = []
                for gain in (0.5, 1.0, 2.0, 0.0):
                    generator = np.random.default_rng((seeds, int(10 * gain)))
                    marks = [
                        significant(
                            judge(
                                simulated(generator, students=3, trainings=2, seeds=seeds, gain=gain, spreads=spreads)
                            )
                        )
                        for _ in range(repeats)
                    ]
                    found.append(np.mean([any(of) if gain == 0 else np.mean(of) for of in marks]))
                yield f"| {called} | {seeds} | {name} | " + " | ".join(f"{100 * share:.0f} %" for share in found) + " |"


def limit_lines(*, repeats: int = 1000) -> Iterator[str]:
    """Of grids of noise, those that claim any gain or loss, in percent."""
    yield "| Students | Ways | Seeds | all alike | students unequal | arms unequal |"
    yield "| --: | --: | --: | --: | --: | --: |"
    for students, trainings in ((3, 2), (6, 1), (1, 12), (1, 40), (8, 5)):
        for seeds in (2, 3, 5):
            shares = []
            for kind in ("alike", "students", "arms"):
                generator, alarms = np.random.default_rng((students, trainings, seeds)), 0
                for _ in range(repeats):
                    spreads = (
                        np.exp(generator.normal(0, math.log(2), students)).tolist() if kind == "students" else None
                    )
                    options: dict[str, Any] = {"spreads": spreads, "unequal_arms": kind == "arms"}
                    grid = simulated(generator, students=students, trainings=trainings, seeds=seeds, **options)
                    alarms += any(significant(moderated(grid)))
                shares.append(f"{100 * alarms / repeats:.0f} %")
            yield f"| {students} | {trainings} | {seeds} | {' | '.join(shares)} |"


def main() -> None:
    parse = argparse.ArgumentParser(prog="python -m tests.benchmarks.significance")
    lines = {"coverage": coverage_lines, "power": power_lines, "limits": limit_lines}
    parse.add_argument("what", choices=[*lines])
    for line in lines[parse.parse_args().what]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
