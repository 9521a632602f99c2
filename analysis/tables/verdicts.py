"""What is said of significance: which pairs gained or lost, after which correction, and how far that can be trusted."""

from __future__ import annotations

import polars as pl

from analysis.measures.gains import crossed
from analysis.measures.verdicts import Design, planned_design, shown_design
from analysis.read.grids import Grid
from analysis.shown import GAIN_CLEAR, NEGATIVE_CLEAR
from analysis.stats import Coverage, coverage

NOT_YET = "No pair can be judged yet: that takes two seeds that stand here both ways, and gains that differ."


def verdict_sentences(frame: pl.DataFrame) -> list[str]:
    """Of a frame of `gains`, of one grid or of several."""
    judged = _judged(frame)
    if judged.is_empty():
        return [NOT_YET]
    (tests, _), what = _family(frame), _what(frame)
    said = f"{counted(judged)} ({_least(judged)})"
    if tests == 1:
        first = f"The grid plans one pair, so nothing is corrected for: {said}."
    elif frame["grid"].n_unique() > 1:
        first = f"Each grid is corrected for the {what} that it plans (Holm): {said}."
    else:
        first = f"After correction for the {tests} {what} that the grid plans (Holm), {said}."
    return [first, *_waiting(frame)]


def correction_sentences(frame: pl.DataFrame) -> list[str]:
    """The same of one grid, where the verdicts are said already."""
    judged = _judged(frame)
    if judged.is_empty():
        return [NOT_YET]
    tests, _ = _family(frame)
    if tests == 1:
        return [f"The grid plans one pair, so nothing is corrected for ({_least(judged)})."]
    return [f"Verdicts are corrected for the {tests} {_what(frame)} planned ({_least(judged)}).", *_waiting(frame)]


def _judged(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("gain_p_holm").is_not_null())


def _what(frame: pl.DataFrame) -> str:
    return "settings" if crossed(frame) else "pairs"


def _family(frame: pl.DataFrame) -> tuple[int, int]:
    """How many pairs the grids plan, and how many of them have a p."""
    of_grids = frame.group_by("grid").agg(pl.col("gain_tests", "gain_judged").first())
    return int(of_grids["gain_tests"].sum()), int(of_grids["gain_judged"].sum())


def _waiting(frame: pl.DataFrame) -> list[str]:
    """How many pairs of the families have no p."""
    tests, judged = _family(frame)
    if tests == judged:
        return []
    too = "it" if tests - judged == 1 else "them"
    return [f"{tests - judged} of the {tests} cannot be judged yet, and the correction counts {too} too."]


def reading_sentences(frame: pl.DataFrame) -> list[str]:
    """What the intervals beside gains are, and are not; nothing where there are none."""
    if frame["gain_low_points"].count() == 0:
        return []
    sentences = []
    if frame.height > 1:
        sentences.append(
            "An interval is of its pair alone, and of 20 such intervals one excludes 0 by chance: only "
            f"{GAIN_CLEAR} and {NEGATIVE_CLEAR} say that a gain or a loss is significant."
        )
    sentences.append(
        "A pair is judged by the spread of all runs of its student, not of its own few alone (moderated t)."
    )
    return sentences


def counted(judged: pl.DataFrame) -> str:
    """'2 of 6 gained significantly and none lost', 'none of 6 gained or lost significantly': of rows of `gains`."""
    gained, lost = ((judged["effect"] == effect).sum() for effect in ("gain", "negative transfer"))
    if not gained and not lost:
        return f"none of {judged.height} gained or lost significantly" if judged.height > 1 else "it is not significant"
    if judged.height == 1:
        return "its gain is significant" if gained else "its loss is significant"
    return f"{gained or 'none'} of {judged.height} gained significantly and {lost or 'none'} lost"


def _least(judged: pl.DataFrame) -> str:
    least = judged["gain_p_holm"].min()
    assert isinstance(least, float)
    what = "p" if judged.height == 1 else "smallest corrected p"
    return f"{what} below 0.001" if least < 0.001 else f"{what} {least:.2g}"


def design_sentence(grid: Grid) -> str:
    """How often such intervals and verdicts are right, in simulated grids of the design that is planned."""
    planned = planned_design(grid)
    found = _simulated(planned)
    if found is None:
        return f"How often its intervals and verdicts are right was not simulated for {_called(planned)}."
    return (
        f"In simulated whole grids of {_called(planned)} in which nothing gains, 95 % intervals held the truth "
        f"{found.interval:.0f} % of the time, and {found.false_alarms:.0f} % of the grids called a pair significant."
    )


def bootstrap_sentence(grid: Grid) -> str:
    """How far the bootstrap intervals over all pairs that are shown can be trusted."""
    shown = shown_design(grid)
    found = _simulated(shown)
    what = "These are 95 % stratified bootstrap intervals, too narrow for few seeds"
    if found is None or found.gain_iqm is None or found.improvement is None:
        return f"{what}; by how much was not simulated for {_called(shown)}."
    return (
        f"{what}: in simulated grids of {_called(shown)} that of the gains held the truth {found.gain_iqm:.0f} % of "
        f"the time, and that of the probability {found.improvement:.0f} %."
    )


def _simulated(design: Design | None) -> Coverage | None:
    if design is None:
        return None
    return coverage(students=design.students, trainings=design.trainings, seeds=design.seeds)


def _called(design: Design | None) -> str:
    if design is None:
        return "so uneven a design (students with unequally many ways or seeds)"
    ways = f"{design.trainings} ways" if design.trainings > 1 else "one way"
    students = f"{design.students} students, each" if design.students > 1 else "one student,"
    seeds = f"{design.seeds} seeds" if design.seeds > 1 else "one seed"
    return f"this design ({students} distilled in {ways}, {seeds})"
