"""Which images a distilled student wins and loses: against the same student alone, and beside its teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import bdtr

from analysis.measures.gains import percentage
from analysis.measures.pairs import KEYS
from analysis.read.grids import Records
from analysis.stats import holm

DISAGREEMENT: dict[str, type[pl.DataType]] = {
    "stage_id": pl.String,
    "baseline_id": pl.String,
    "split": pl.String,
    "seed": pl.Int64,
    "images": pl.Int64,
    "both_right": pl.Int64,
    "only_distilled": pl.Int64,
    "only_baseline": pl.Int64,
    "neither": pl.Int64,
    "mcnemar_p": pl.Float64,
    "mcnemar_p_holm": pl.Float64,
    "error_overlap_percent": pl.Float64,
    "teacher_agreement_percent": pl.Float64,
    "teacher_wrong": pl.Int64,
    "teacher_wrong_agreement_percent": pl.Float64,
}

Outcome = tuple[NDArray[Any], NDArray[Any]]  # of each image, the predicted class and the true one


def by_stage(images: pl.DataFrame, split: str) -> dict[str, Outcome]:
    """Of each stage that has predictions of the split. images: of `outcomes`."""
    of_split = images.filter(pl.col("split") == split)
    return {
        str(stage_id): (rows["predicted"].to_numpy(), rows["label"].to_numpy())
        for (stage_id,), rows in of_split.group_by("stage_id", maintain_order=True)
    }


def disagreement(records: Records, images: pl.DataFrame, *, split: str = "test") -> pl.DataFrame:
    """One row a distilled cell whose student alone, of the same seed, has predictions too; with KEYS. images: of
    `outcomes`.

    both_right, only_distilled, only_baseline, neither: of so many images each. mcnemar_p: two-sided exact McNemar test
    that neither is right more often than the other, of those images alone that one of the two gets right (Q. McNemar,
    Psychometrika 12, 1947); it speaks of these two trained models on images like these, and not of other seeds.
    mcnemar_p_holm: after Holm's correction for all rows. error_overlap_percent: of the images that one of the two gets
    wrong, those that both do. teacher_agreement_percent: of all images, those of which student and teacher predict the
    same class (S. Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021), and
    teacher_wrong_agreement_percent of the teacher_wrong images that the teacher gets wrong: mistakes that were handed
    on. What has no such images, or no predictions of its teacher, is null there. The agreement on a record is measured
    before logits are rounded, and may differ from this by an image."""
    found = by_stage(images, split)
    done = records.cells.filter(pl.col("stage_id").is_in([*found]))
    alone = stage_ids(done.filter(pl.col("mode") == "baseline"), ("grid", "student", "seed"))
    teachers = stage_ids(done.filter(pl.col("kind") == "teacher"), ("grid", "teacher"))
    rows: list[dict[str, Any]] = []
    for row in done.filter(pl.col("mode") == "distilled").iter_rows(named=True):
        baseline = alone.get((row["grid"], row["student"], row["seed"]))
        if baseline is None or len(found[baseline][0]) != len(found[row["stage_id"]][0]):
            continue
        teacher = found.get(str(teachers.get((row["grid"], row["teacher"]))))
        rows.append(
            {name: row[name] for name in (*KEYS, "stage_id", "seed")}
            | {"baseline_id": baseline, "split": split}
            | _compared(found[row["stage_id"]], found[baseline])
            | _beside(found[row["stage_id"]], teacher)
        )
    for row, p in zip(rows, holm([row["mcnemar_p"] for row in rows], tests=len(rows)), strict=True):
        row["mcnemar_p_holm"] = p
    keys = {name: records.cells.schema[name] for name in KEYS}
    return pl.DataFrame(rows, schema={**keys, **DISAGREEMENT})


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided p of the exact test: of n images that one of two alone gets right, twice the chance that a fair coin
    gives at most the smaller number, and at most 1."""
    n = only_one + only_other
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), n, 0.5))) if n else 1.0


def stage_ids(rows: pl.DataFrame, keys: tuple[str, ...]) -> dict[tuple[Any, ...], str]:
    """The stage of each row, by these columns."""
    return {tuple(key): stage_id for *key, stage_id in rows.select(*keys, "stage_id").iter_rows()}


def _compared(distilled: Outcome, baseline: Outcome) -> dict[str, Any]:
    right_N, alone_N = (predicted_N == labels_N for predicted_N, labels_N in (distilled, baseline))
    only_distilled, only_baseline = int((right_N & ~alone_N).sum()), int((~right_N & alone_N).sum())
    neither = int((~right_N & ~alone_N).sum())
    return {
        "images": len(right_N),
        "both_right": int((right_N & alone_N).sum()),
        "only_distilled": only_distilled,
        "only_baseline": only_baseline,
        "neither": neither,
        "mcnemar_p": mcnemar(only_distilled, only_baseline),
        "error_overlap_percent": percentage(neither, neither + only_distilled + only_baseline),
    }


def _beside(student: Outcome, teacher: Outcome | None) -> dict[str, Any]:
    if teacher is None or len(teacher[0]) != len(student[0]):
        return {}
    same_N, wrong_N = student[0] == teacher[0], teacher[0] != teacher[1]
    return {
        "teacher_agreement_percent": percentage(int(same_N.sum()), len(same_N)),
        "teacher_wrong": int(wrong_N.sum()),
        "teacher_wrong_agreement_percent": percentage(int((same_N & wrong_N).sum()), int(np.count_nonzero(wrong_N))),
    }
