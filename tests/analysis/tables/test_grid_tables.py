from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from polars.testing import assert_frame_equal
from scipy import stats

from analysis.measures.gains import GAINS_SCHEMA, baselines, gains
from analysis.read.load import load_grid
from analysis.write.markdown import align, display_width
from grid.contract.text import on_one_line
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.reading import markdown_table

Maker = Callable[..., SyntheticGrid]

TEACHERS, STUDENTS = ("ViT-T", "ResNet-T"), ("ViT-S", "ResNet-S")
TESTED = ("gain_p", "gain_p_exact", "gain_p_holm", "gain_boot_low_points", "gain_boot_high_points")

# 2 teachers x 2 students x 2 modes x 3 seeds, in percent.
WHOLE = {
    "ViT-T": 90.0,
    "ResNet-T": 95.0,
    ("ViT-S", None): [80.0, 81.0, 82.0],
    ("ResNet-S", None): [70.0, 72.0, 74.0],
    ("ViT-S", "ViT-T"): [81.0, 83.0, 85.0],  # +1 +2 +3
    ("ResNet-S", "ViT-T"): [68.0, 69.0, 70.0],  # -2 -3 -4
    ("ViT-S", "ResNet-T"): [84.0, 85.0, 86.0],  # +4 +4 +4
    ("ResNet-S", "ResNet-T"): [75.0, 77.0, 76.0],  # +5 +5 +2
}


# Of WHOLE, what rows and seeds leave of each student, twice: (12/9) / 4 * 2 of ViT-S, (30/9) / 4 * 2 of ResNet-S; the
# variances of the pairs' own gains are 1, 1, 0 and 3. The larger counts, with 4 degrees of freedom.
VARIANCES = [1.0, 5 / 3, 2 / 3, 3.0]
MEANS = [2.0, -3.0, 4.0, 4.0]
HALVES = [stats.t.ppf(0.975, 4) * math.sqrt(variance / 3) for variance in VARIANCES]
P = [2 * stats.t.sf(abs(m) / math.sqrt(v / 3), 4) for m, v in zip(MEANS, VARIANCES, strict=True)]


def whole(make_grid: Maker) -> SyntheticGrid:
    grid = make_grid(teachers=TEACHERS, students=STUDENTS)
    grid.parameters = {"ViT-T": 8_000, "ResNet-T": 12_000, "ViT-S": 1_000, "ResNet-S": 5_000}
    return grid


def gains_of(grid: SyntheticGrid) -> pl.DataFrame:
    return gains(load_grid(grid.storage, grid.name))


def markdown_of(grid: SyntheticGrid) -> str:
    return markdown_table(load_grid(grid.storage, grid.name))


def table_lines(markdown: str) -> list[str]:
    """The lines of the first table."""
    lines = markdown.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))


def cells_of(line: str) -> list[str]:
    """The cells of a table's line, as written; pipes after a backslash divide nothing."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def column(markdown: str, name: str) -> list[str]:
    header, _, *lines = [cells_of(line) for line in table_lines(markdown)]
    return [line[header.index(name)] for line in lines]


# The frame


def test_gains_of_a_whole_grid(make_grid: Maker) -> None:
    found = gains_of(whole(make_grid).fill(WHOLE))
    vit_s = {"student": "ViT-S", "student_parameters": 1_000, "baseline_mean_percent": 81.0, "baseline_std_points": 1.0}
    resnet_s = {
        "student": "ResNet-S",
        "student_parameters": 5_000,
        "baseline_mean_percent": 72.0,
        "baseline_std_points": 2.0,
    }
    vit_t = {"teacher": "ViT-T", "teacher_parameters": 8_000, "teacher_percent": 90.0}
    resnet_t = {"teacher": "ResNet-T", "teacher_parameters": 12_000, "teacher_percent": 95.0}
    common = {
        "grid": "tiny",
        "method": "kd",
        "temperature": 4.0,
        "alpha": 0.5,
        "baseline_n": 3,
        "distilled_n": 3,
        "gain_n": 3,
    }
    common |= {"val_mean_percent": None, "val_n": 0, "gain_p_exact": 0.25, "gain_tests": 4}
    common |= {"gain_judged": 4, "gain_df": 4.0}
    expected = [
        {
            **(vit_t | vit_s),
            "experiment": "ViT → ViT",
            "distilled_mean_percent": 83.0,
            "distilled_std_points": 2.0,
            "gain_mean_points": 2.0,
            "gain_p_holm": 3 * P[1],  # raised to that of a smaller p
            "gain_boot_low_points": 1.0,
            "gain_boot_high_points": 3.0,
            "effect": "gain",
            "retention_percent": 100 * 83 / 90,
            "compression": 8.0,
        },
        {
            **(vit_t | resnet_s),
            "experiment": "ViT → ResNet",
            "distilled_mean_percent": 69.0,
            "distilled_std_points": 1.0,
            "gain_mean_points": -3.0,
            "gain_p_holm": 3 * P[1],
            "gain_boot_low_points": -4.0,
            "gain_boot_high_points": -2.0,
            "effect": "negative transfer",
            "retention_percent": 100 * 69 / 90,
            "compression": 1.6,
        },
        {
            **(resnet_t | vit_s),
            "experiment": "ResNet → ViT",
            "distilled_mean_percent": 85.0,
            "distilled_std_points": 1.0,
            "gain_mean_points": 4.0,
            "gain_p_holm": 4 * P[2],
            "effect": "gain",
            "retention_percent": 100 * 85 / 95,
            "compression": 12.0,
        },
        {
            **(resnet_t | resnet_s),
            "experiment": "ResNet → ResNet",
            "distilled_mean_percent": 76.0,
            "distilled_std_points": 1.0,
            "gain_mean_points": 4.0,
            "gain_p_holm": 3 * P[1],
            "gain_boot_low_points": 2.0,
            "gain_boot_high_points": 5.0,
            "effect": "gain",
            "retention_percent": 80.0,
            "compression": 2.4,
        },
    ]
    for row, mean, half, variance, p in zip(expected, MEANS, HALVES, VARIANCES, P, strict=True):
        row |= {"gain_low_points": mean - half, "gain_high_points": mean + half}
        row |= {"gain_sd_points": math.sqrt(variance), "gain_p": p}
    assert_frame_equal(found, pl.DataFrame([common | row for row in expected], schema=GAINS_SCHEMA), abs_tol=1e-9)


def test_gains_agree_with_numpy_and_scipy(make_grid: Maker) -> None:
    random = np.random.default_rng(7)
    baseline_SR, distilled_TSR = random.uniform(0, 100, (2, 3)), random.uniform(0, 100, (2, 2, 3))
    grid = whole(make_grid).fill({"ViT-T": 90.0, "ResNet-T": 95.0})
    for s, student in enumerate(STUDENTS):
        grid.fill({(student, None): baseline_SR[s].tolist()})
        for t, teacher in enumerate(TEACHERS):
            grid.fill({(student, teacher): distilled_TSR[t, s].tolist()})
    found = gains_of(grid)

    gain_XR = (distilled_TSR - baseline_SR).reshape(4, 3)
    runs_SAR = np.concatenate([baseline_SR[None], distilled_TSR]).swapaxes(0, 1)
    rest_SAR = runs_SAR - runs_SAR.mean(2, keepdims=True) - runs_SAR.mean(1, keepdims=True)
    rest_SAR += runs_SAR.mean((1, 2), keepdims=True)
    variance_X = np.maximum(np.tile(2 * (rest_SAR**2).sum((1, 2)) / 4, 2), gain_XR.var(1, ddof=1))
    low_X, high_X = stats.t.interval(0.95, 4, loc=gain_XR.mean(1), scale=np.sqrt(variance_X / 3))
    for name, expected_X in {
        "baseline_mean_percent": np.tile(baseline_SR.mean(1), 2),
        "baseline_std_points": np.tile(baseline_SR.std(1, ddof=1), 2),
        "distilled_mean_percent": distilled_TSR.mean(2).ravel(),
        "distilled_std_points": distilled_TSR.std(2, ddof=1).ravel(),
        "gain_mean_points": gain_XR.mean(1),
        "gain_low_points": low_X,
        "gain_high_points": high_X,
    }.items():
        np.testing.assert_allclose(found[name].to_numpy(), expected_X, rtol=1e-9, err_msg=name)


def test_teachers_are_in_the_plans_order_and_students_within(make_grid: Maker) -> None:
    grid = make_grid(teachers=["Z", "A"], students=["Y", "B"], seeds=[5])
    rows = gains_of(grid).select("teacher", "student").rows()
    assert rows == [("Z", "Y"), ("Z", "B"), ("A", "Y"), ("A", "B")]


def test_baselines_are_shared_by_all_teachers(make_grid: Maker) -> None:
    grid = whole(make_grid).fill(WHOLE)
    assert len(grid.find(mode="baseline")) == 6
    shared = gains_of(grid).select("student", "baseline_mean_percent", "baseline_std_points", "baseline_n").unique()
    assert sorted(shared.rows()) == [
        ("ResNet-S", pytest.approx(72.0), pytest.approx(2.0), 3),
        ("ViT-S", pytest.approx(81.0), pytest.approx(1.0), 3),
    ]


def test_a_seed_that_one_mode_lacks_pairs_with_nothing(make_grid: Maker) -> None:
    values = WHOLE | {("ViT-S", "ViT-T"): [81.0, None, 85.0], ("ResNet-S", None): [None, 72.0, 74.0]}
    rows = gains_of(whole(make_grid).fill(values)).rows_by_key(["teacher", "student"], named=True, unique=True)

    row = rows["ViT-T", "ViT-S"]
    assert (row["baseline_n"], row["distilled_n"], row["gain_n"]) == (3, 2, 2)
    # The mean of +1 and +3; that of the distilled less that of all baselines would be another.
    assert (row["distilled_mean_percent"], row["baseline_mean_percent"], row["gain_mean_points"]) == pytest.approx(
        (83.0, 81.0, 2.0)
    )
    # The pair's own variance of 2 is above twice the (12/9) / 3 that its student's 8 runs leave of 3 rows and 3 seeds.
    half = stats.t.ppf(0.975, 3)
    assert (row["gain_low_points"], row["gain_high_points"]) == pytest.approx((2.0 - half, 2.0 + half))

    row = rows["ViT-T", "ResNet-S"]
    assert (row["baseline_n"], row["distilled_n"], row["gain_n"]) == (2, 3, 2)
    assert (row["baseline_mean_percent"], row["gain_mean_points"]) == pytest.approx((73.0, -3.5))
    # Alone, from ViT-T and from ResNet-T: 8 runs, of which 3 rows and 3 seeds leave 3 degrees of freedom.
    values_R = np.array([72.0, 74.0, 68.0, 69.0, 70.0, 75.0, 77.0, 76.0])
    rows_R, seeds_R = np.array([0, 0, 1, 1, 1, 2, 2, 2]), np.array([1, 2, 0, 1, 2, 0, 1, 2])
    layout_RX = np.column_stack([np.eye(3)[rows_R], np.eye(3)[seeds_R][:, 1:]])
    variance = 2 * float(np.linalg.lstsq(layout_RX, values_R, rcond=None)[1][0]) / 3
    assert variance > 0.5, "that of its own gains, -3 and -4"
    p = 2 * stats.t.sf(3.5 / math.sqrt(variance / 2), 3)
    assert (row["gain_p"], row["gain_p_exact"]) == pytest.approx((p, 0.5))


def test_a_failed_cell_counts_for_nothing(make_grid: Maker) -> None:
    grid = whole(make_grid).fill(WHOLE | {("ViT-S", "ViT-T"): [81.0, 83.0, None]})
    before = gains_of(grid)
    cell = grid.one(student="ViT-S", teacher="ViT-T", seed=2)
    # Whatever a failed attempt had measured is no result.
    grid.write(f"{grid.folder(cell)}/failure.json", grid.record(cell, status="failed", test_top1_last=0.01))
    assert_frame_equal(gains_of(grid), before)
    assert before.row(0, named=True)["distilled_n"] == 2


def test_the_last_epoch_counts_and_not_the_best(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    for row, last in zip(grid.rows, (90.0, 80.0, 81.0), strict=True):
        grid.done(row, last, test_top1_best=0.99, best_test_top1=0.99, val_top1_last=0.5)
    row = gains_of(grid).row(0, named=True)
    names = ("teacher_percent", "baseline_mean_percent", "distilled_mean_percent", "gain_mean_points")
    assert [row[name] for name in names] == pytest.approx([90.0, 80.0, 81.0, 1.0])


def test_no_shared_seed_gives_no_gain(make_grid: Maker) -> None:
    grid = make_grid().fill({("ResNet-S", None): [80.0, None, None], ("ResNet-S", "ViT-T"): [None, 81.0, 82.0]})
    row = gains_of(grid).row(0, named=True)
    assert (row["baseline_n"], row["distilled_n"], row["gain_n"]) == (1, 2, 0)
    assert {row[name] for name in ("gain_mean_points", "gain_low_points", "gain_high_points", "effect")} == {None}
    assert {row[name] for name in TESTED} == {None}


def test_a_missing_teacher_leaves_its_columns_empty(make_grid: Maker) -> None:
    values = {key: value for key, value in WHOLE.items() if key != "ViT-T"}
    rows = gains_of(whole(make_grid).fill(values)).rows(named=True)
    for row in rows[:2]:
        names = ("teacher_parameters", "teacher_percent", "compression", "retention_percent")
        assert [row[name] for name in names] == [None] * 4
        assert row["gain_n"] == 3
    assert [row["compression"] for row in rows[2:]] == [12.0, 2.4]


def test_a_student_of_which_nothing_is_done_has_no_size(make_grid: Maker) -> None:
    values = {key: value for key, value in WHOLE.items() if key[0] != "ViT-S"}
    rows = gains_of(whole(make_grid).fill(values)).rows_by_key(["teacher", "student"], named=True, unique=True)
    row = rows["ViT-T", "ViT-S"]
    assert (row["teacher_parameters"], row["student_parameters"], row["compression"]) == (8_000, None, None)
    assert {
        row[name]
        for name in ("baseline_mean_percent", "baseline_std_points", "distilled_mean_percent", "distilled_std_points")
    } == {None}
    assert (row["baseline_n"], row["distilled_n"], row["gain_n"]) == (0, 0, 0)
    assert rows["ViT-T", "ResNet-S"]["gain_n"] == 3


def test_one_seed_has_no_spread(make_grid: Maker) -> None:
    grid = make_grid(seeds=[4]).fill({"ViT-T": 90.0, ("ResNet-S", None): [80.0], ("ResNet-S", "ViT-T"): [83.0]})
    row = gains_of(grid).row(0, named=True)
    assert (
        row["baseline_std_points"],
        row["distilled_std_points"],
        row["gain_low_points"],
        row["gain_high_points"],
    ) == (None, None, None, None)
    assert (row["gain_mean_points"], row["gain_n"], row["effect"]) == (pytest.approx(3.0), 1, "unclear")
    assert {row[name] for name in TESTED} == {None}


def test_the_family_is_what_the_grid_plans(make_grid: Maker) -> None:
    values = WHOLE | {("ViT-S", "ViT-T"): [81.0, None, None], ("ViT-S", "ResNet-T"): [None, None, None]}
    found = gains_of(whole(make_grid).fill(values))["gain_p_holm"].to_list()
    # One seed and no seed have no p, but count: of four tests these are the smallest, 4 P[1], and the next, 3 P[3].
    assert [found[0], found[2]] == [None, None]
    assert [found[1], found[3]] == pytest.approx([4 * P[1], max(4 * P[1], 3 * P[3])])
    text = markdown_of(whole(make_grid).fill(values))
    assert "After correction for the 4 pairs that the grid plans (Holm), none of 2 gained or lost significantly" in text
    assert "2 of the 4 cannot be judged yet, and the correction counts them too." in text


def swept(make_grid: Maker) -> SyntheticGrid:
    grid = make_grid(seeds=[0, 1], temperature=[1.0, 4.0], alpha=[0.25, 1.0])
    grid.fill({"ViT-T": 90.0, ("ResNet-S", None): [50.0, 60.0]})
    for row in grid.find(mode="distilled"):
        grid.done(row, 50.0 + 10 * row["seed"] + row["temperature"] + row["alpha"] + (row["seed"] - 0.5) / 100)
    return grid


def test_each_temperature_and_alpha_has_a_row_against_the_same_baseline(make_grid: Maker) -> None:
    columns = ["temperature", "alpha", "gain_mean_points", "gain_n", "baseline_mean_percent", "baseline_n"]
    expected = [
        (1.0, 0.25, 1.25, 2, 55.0, 2),
        (1.0, 1.0, 2.0, 2, 55.0, 2),
        (4.0, 0.25, 4.25, 2, 55.0, 2),
        (4.0, 1.0, 5.0, 2, 55.0, 2),
    ]
    found = gains_of(swept(make_grid)).select(columns)
    assert_frame_equal(found, pl.DataFrame(expected, schema=found.schema, orient="row"), abs_tol=1e-9)


@pytest.mark.parametrize(
    ("students", "titles"),
    [
        (["ResNet-S", "ConvNeXt_S"], ["ViT → ResNet", "ViT → ConvNeXt"]),
        (["ResNet-S", "ResNet-M"], ["ViT-T → ResNet-S", "ViT-T → ResNet-M"]),
        (["net", "-S"], ["ViT → net", "ViT → -S"]),
    ],
    ids=["families", "alike families", "no family"],
)
def test_experiments_are_called_by_families_unless_two_are_alike(
    make_grid: Maker, students: list[str], titles: list[str]
) -> None:
    assert gains_of(make_grid(students=students))["experiment"].to_list() == titles


def test_baselines_of_a_grid_without_teachers(make_grid: Maker) -> None:
    grid = make_grid(students=["B-S", "A-S", "C-S"], modes=["baseline"])
    grid.fill({("B-S", None): [80.0, 81.0, 82.0], ("A-S", None): [70.0, None, None]})
    grid.fail(grid.one(student="A-S", seed=1))
    loaded = load_grid(grid.storage)
    assert gains(loaded).is_empty()
    assert gains(loaded).schema == GAINS_SCHEMA
    found = baselines(loaded)
    students = [("B-S", 1_000, 81.0, 1.0, 3), ("A-S", 1_000, 70.0, None, 1), ("C-S", None, None, None, 0)]
    expected = [("tiny", *student, None) for student in students]
    assert_frame_equal(found, pl.DataFrame(expected, schema=found.schema, orient="row"), abs_tol=1e-9)


# Its markdown

WHOLE_TEXT = """\
### tiny

| Experiment      | Teacher (params) | Student (params) |           Baseline |          Distilled |                   Gain | Retention | Compression |
| --------------- | ---------------- | ---------------- | -----------------: | -----------------: | ---------------------: | --------: | ----------: |
| ViT → ViT       | ViT-T (8.0K)     | ViT-S (1.0K)     | 81.00 ± 1.00 (n=3) | 83.00 ± 2.00 (n=3) |   +2.00 [+0.40, +3.60] |    92.2 % |        8.0x |
| ViT → ResNet    | ViT-T (8.0K)     | ResNet-S (5.0K)  | 72.00 ± 2.00 (n=3) | 69.00 ± 1.00 (n=3) | -3.00 [-5.07, -0.93] ▼ |    76.7 % |        1.6x |
| ResNet → ViT    | ResNet-T (12.0K) | ViT-S (1.0K)     | 81.00 ± 1.00 (n=3) | 85.10 ± 1.15 (n=3) | +4.10 [+2.87, +5.33] ▲ |    89.6 % |       12.0x |
| ResNet → ResNet | ResNet-T (12.0K) | ResNet-S (5.0K)  | 72.00 ± 2.00 (n=3) | 71.00 ± 1.00 (n=3) | -1.00 [-3.78, +1.78] ▽ |    74.7 % |        2.4x |

Top-1 on the test split of digits in percent, last epoch, mean ± standard deviation over seeds. \
Gain: distilled minus baseline, paired by seed (n = 3), in points, with the 95 % interval of each pair alone. \
Retention: the distilled student's accuracy in percent of its teacher's.

▲ significant gain; ▼ significant loss (negative transfer); ▽ below the baseline, but not significantly.

**Verdict**: After correction for the 4 pairs that the grid plans (Holm), 1 of 4 gained significantly and 1 lost \
(smallest corrected p 0.003). An interval is of its pair alone, and of 20 such intervals one excludes 0 by chance: only \
▲ and ▼ say that a gain or a loss is significant. A pair is judged by the spread of all runs of its student, not of its \
own few alone (moderated t). In simulated whole grids of this design (2 students, each distilled in 2 ways, 3 seeds) in \
which nothing gains, 95 % intervals held the truth 96 % of the time, and 4 % of the grids called a pair significant.

Over all 4 pairs (6 runs alone, each counted for every teacher, and 12 distilled): interquartile mean 76.83 alone, \
76.83 distilled; of the paired gains +0.67 [...]; probability of improvement 0.56 [...]. These are 95 % stratified \
bootstrap intervals, too narrow for few seeds: in simulated grids of this design (2 students, each distilled in 2 ways, \
3 seeds) that of the gains held the truth 80 % of the time, and that of the probability 96 %.

Teachers: ViT-T 90.00, ResNet-T 95.00.
"""  # noqa: E501


def test_the_table_of_a_whole_grid(make_grid: Maker) -> None:
    values = WHOLE | {("ResNet-S", "ResNet-T"): [70.0, 72.0, 71.0]}  # 0 0 -3
    values |= {("ViT-S", "ResNet-T"): [84.0, 85.0, 86.3]}  # +4 +4 +4.3
    text, heading, models = markdown_of(whole(make_grid).fill(values)).partition("\n#### Models\n")
    # The bounds of the bootstrap intervals are checked where they are drawn.
    assert re.sub(r"(paired gains \S+|improvement \S+) \[[^]]*\]", r"\1 [...]", text) == WHOLE_TEXT
    assert heading
    assert len(table_lines(models)) == 2 + 2 + 2 + 4  # header, teachers, baselines, distilled


def test_the_table_of_baselines_alone(make_grid: Maker) -> None:
    grid = make_grid("alone", students=["ViT-S", "ResNet-S"], modes=["baseline"], dataset="mnist")
    grid.parameters = {"ViT-S": 26_474, "ResNet-S": 1_200_000}
    grid.fill({("ViT-S", None): [80.0, 81.0, 82.0], ("ResNet-S", None): [70.0, 71.0, 75.0]})
    assert markdown_of(grid) == (
        "### alone\n"
        "\n"
        "| Student (params) |           Baseline |\n"
        "| ---------------- | -----------------: |\n"
        "| ViT-S (26.5K)    | 81.00 ± 1.00 (n=3) |\n"
        "| ResNet-S (1.2M)  | 72.00 ± 2.65 (n=3) |\n"
        "\n"
        "Top-1 on the test split of mnist in percent, last epoch, mean ± standard deviation over seeds.\n"
        "\n"
        "#### Models\n"
        "\n"
        "| Model    | Trained |    Accuracy | Retention | Parameters | Size (MiB) | MACs | ms per batch | Images/s "
        "| Accuracy / ms | Accuracy / (MiB x ms) |\n"
        "| -------- | ------- | ----------: | --------: | ---------: | ---------: | ---: | -----------: | -------: "
        "| ------------: | --------------------: |\n"
        "| ViT-S    | alone   | 81.00 (n=3) |         — |      26.5K |          — |    — |            — |        — "
        "|             — |                     — |\n"
        "| ResNet-S | alone   | 72.00 (n=3) |         — |       1.2M |          — |    — |            — |        — "
        "|             — |                     — |\n"
        "\n"
        "Accuracy as above, mean over seeds. Size: parameters and buffers. MACs: multiply-adds of one image.\n"
    )


def test_the_table_of_a_grid_of_which_nothing_is_done(make_grid: Maker) -> None:
    text = markdown_of(make_grid())
    (row,) = [cells_of(line) for line in table_lines(text)[2:]]
    assert row == ["ViT → ResNet", "ViT-T", "ResNet-S", "—", "—", "—", "—", "—"]
    assert "Models" not in text
    assert "stands on 0 of 7 teachers and cells (0 failed, 7 missing)" in text
    assert not set("▲▼▽") & set(text)


def test_a_missing_teacher_is_shown_without_size_and_compression(make_grid: Maker) -> None:
    values = {key: value for key, value in WHOLE.items() if key != "ViT-T"}
    text = markdown_of(whole(make_grid).fill(values))
    assert column(text, "Teacher (params)") == ["ViT-T", "ViT-T", "ResNet-T (12.0K)", "ResNet-T (12.0K)"]
    assert column(text, "Compression") == ["—", "—", "12.0x", "2.4x"]
    assert "Teachers: ResNet-T 95.00." in text


def test_only_axes_that_vary_are_columns(make_grid: Maker) -> None:
    text = markdown_of(swept(make_grid))
    assert column(text, "Temperature") == ["1", "1", "4", "4"]
    assert column(text, "Alpha") == ["0.25", "1", "0.25", "1"]
    assert "Method" not in cells_of(table_lines(text)[0])
    # Numbers stand to the right, between the names and the accuracies.
    assert cells_of(table_lines(text)[0])[3:5] == ["Temperature", "Alpha"]
    assert [rule.endswith(":") for rule in cells_of(table_lines(text)[1])] == [False] * 3 + [True] * 7


def test_one_pair_is_neither_pooled_nor_corrected(make_grid: Maker) -> None:
    text = markdown_of(make_grid().fill({("ResNet-S", None): [80.0] * 3, ("ResNet-S", "ViT-T"): [81.0, 82.0, 83.0]}))
    assert "Over all" not in text
    # The paired t of +1 +2 +3: t = 2 sqrt(3) with two degrees of freedom, p = 0.074.
    assert "The grid plans one pair, so nothing is corrected for: it is not significant (p 0.074)." in text


def test_gains_of_crossed_settings_are_corrected_but_not_pooled(make_grid: Maker) -> None:
    text = markdown_of(swept(make_grid))
    assert "Over all" not in text
    assert "After correction for the 4 settings that the grid plans (Holm), " in text


@pytest.mark.parametrize(
    ("axes", "shown"),
    [
        ({}, []),
        ({"temperature": [1.0, 2.0]}, ["Temperature"]),
        ({"alpha": [0.1, 0.9]}, ["Alpha"]),
        ({"method": ["kd", "other"]}, ["Method"]),
        ({"method": ["kd", "other"], "alpha": [0.1, 0.9]}, ["Method", "Alpha"]),
    ],
)
def test_an_axis_of_one_value_is_no_column(make_grid: Maker, axes: dict[str, list[object]], shown: list[str]) -> None:
    header = cells_of(table_lines(markdown_of(make_grid(**axes)))[0])
    assert [name for name in header if name in ("Method", "Temperature", "Alpha")] == shown


LEGENDS = {
    "▲": "▲ significant gain",
    "▼": "▼ significant loss (negative transfer)",
    "▽": "▽ below the baseline, but not significantly",
}


@pytest.mark.parametrize(
    ("distilled", "gain", "mark"),
    [
        ([85.0, 86.0, 84.0], "+5.00 [+2.52, +7.48] ▲", "▲"),
        ([75.0, 76.0, 74.0], "-5.00 [-7.48, -2.52] ▼", "▼"),
        ([78.0, 79.0, 80.0], "-1.00 [-3.48, +1.48] ▽", "▽"),
        ([80.0, 81.0, 82.0], "+1.00 [-1.48, +3.48]", ""),
        ([80.1, 80.2, 79.7], "+0.00 [-0.66, +0.66]", ""),
        ([80.0, 80.0, 80.0], "+0.00 (n=3)", ""),
        ([79.0, 80.0, 80.99], "+0.00 [-2.48, +2.47]", ""),
    ],
    ids=[
        "significant gain",
        "negative transfer",
        "below but not significantly",
        "above but not significantly",
        "cancels out",
        "no difference",
        "rounds to none",
    ],
)
def test_marks_and_a_legend_of_those_that_occur(make_grid: Maker, distilled: list[float], gain: str, mark: str) -> None:
    grid = make_grid().fill({"ViT-T": 90.0, ("ResNet-S", None): [80.0] * 3, ("ResNet-S", "ViT-T"): distilled})
    text = markdown_of(grid)
    assert column(text, "Gain") == [gain]
    assert [sign for sign in LEGENDS if LEGENDS[sign] in text] == list(mark)
    outside = text.replace("\n".join(table_lines(text)), "")
    assert set(outside) & set(LEGENDS) == set(mark)


def test_a_teacher_without_an_accuracy_is_left_out(make_grid: Maker) -> None:
    grid = make_grid().fill({("ResNet-S", None): [80.0] * 3, ("ResNet-S", "ViT-T"): [81.0] * 3})
    teacher = grid.find(kind="teacher")[0]
    grid.write(f"{grid.folder(teacher)}/record.json", grid.record(teacher, status="done"))
    assert "Teachers:" not in markdown_of(grid)


def test_one_seed_gives_no_interval_and_says_so(make_grid: Maker) -> None:
    grid = make_grid(students=["ViT-S", "ResNet-S"], seeds=[0])
    grid.fill({("ViT-S", None): [80.0], ("ViT-S", "ViT-T"): [99.0]})
    grid.fill({("ResNet-S", None): [80.0], ("ResNet-S", "ViT-T"): [79.5]})
    text = markdown_of(grid)
    assert column(text, "Baseline") == ["80.00 (n=1)", "80.00 (n=1)"]
    assert column(text, "Gain") == ["+19.00 (n=1)", "-0.50 (n=1) ▽"]
    assert "paired by seed (n = 1), in points; one seed gives no interval." in text
    assert "95 % interval" not in text
    assert "Over all" not in text
    assert "**Verdict**: No pair can be judged yet: that takes two seeds" in text
    assert LEGENDS["▽"] in text


def test_rows_of_different_n_say_which(make_grid: Maker) -> None:
    values = WHOLE | {("ViT-S", "ViT-T"): [81.0, None, None], ("ViT-S", "ResNet-T"): [None, 85.0, 86.5]}
    text = markdown_of(whole(make_grid).fill(values))
    assert column(text, "Gain")[0] == "+1.00 (n=1)"
    assert column(text, "Distilled")[2] == "85.75 ± 1.06 (n=2)"
    assert "] (n=2)" in column(text, "Gain")[2], "the baseline has three"
    assert "paired by seed (n = 1 to 3), in points, with the 95 % interval of each pair alone." in text
    assert "Over all" not in text  # a pair of one seed shows no spread
    assert "After correction for the 4 pairs that the grid plans (Holm), " in text


def test_a_whole_grid_says_nothing_of_being_unfinished(make_grid: Maker) -> None:
    text = markdown_of(whole(make_grid).fill(WHOLE))
    assert "Unfinished" not in text
    assert "Unreadable" not in text


def test_an_unfinished_grid_says_what_it_stands_on(make_grid: Maker) -> None:
    grid = whole(make_grid).fill(WHOLE | {("ViT-S", "ViT-T"): [81.0, None, None], ("ResNet-S", None): [None, 1.0, 2.0]})
    grid.fail(grid.one(student="ViT-S", teacher="ViT-T", seed=1))
    parts = markdown_of(grid).split("\n\n")
    assert parts[parts.index("#### Models") - 1] == (
        "**Unfinished**: this table stands on 17 of 20 teachers and cells (1 failed, 2 missing). "
        "Launch the grid again to finish it; verdicts stand on what is there so far, and may change."
    )
    failed = grid.one(student="ViT-S", teacher="ViT-T", seed=1)["stage_id"]
    assert parts[-2:] == [
        "#### Failures",
        "| What                                     | Stage            | Why            |\n"
        "| ---------------------------------------- | ---------------- | -------------- |\n"
        f"| ViT-S from ViT-T, seed 1, T 4, alpha 0.5 | {failed} | ValueError: no |\n",
    ]


@pytest.mark.parametrize("modes", [["baseline"], ["baseline", "distilled"]])
def test_an_unreadable_record_is_named_under_the_table(make_grid: Maker, modes: list[str]) -> None:
    grid = make_grid(modes=modes)
    for row in grid.rows:
        grid.done(row, 80.0)
    damaged = f"{grid.folder(grid.rows[-1])}/record.json"
    grid.write(damaged, b"[]")
    text = markdown_of(grid)
    assert f"stands on {len(grid.rows) - 1} of {len(grid.rows)} teachers and cells (0 failed, 1 missing)" in text
    assert f"\n\n**Unreadable**: {damaged}: not a record: it has no schema_version\n\n#### Models" in text


# Names that mean something in markdown

NASTY = [
    ("a|b", r"a\|b"),
    ("<script>alert('x')</script>", r"\<script\>alert('x')\</script\>"),
    ("snake_case_name", "snake_case_name"),
    ("2*3*4", r"2\*3\*4"),
    ("R&D &amp; co", r"R\&D \&amp; co"),
    ('"quoted" `code`', r'"quoted" \`code\`'),
    ("two\nlines\r\nor\tmore\u2028here\x0cand\x85there", "two lines or more here and there"),
    ("[text](link) ![image](x)", r"[text\](link) ![image\](x)"),
    ("back\\slash\\", r"back\\slash\\"),
    ("\\| # 1", r"\\\| # 1"),
    ("_lead trail_ #1", r"\_lead trail\_ #1"),
    ("~~gone~~ ~5", r"\~\~gone\~\~ ~5"),
    ("Zürich 学生 😀", "Zürich 学生 😀"),
]


@pytest.mark.parametrize(("name", "escaped"), NASTY, ids=[repr(name) for name, _ in NASTY])
def test_names_are_escaped_wherever_they_stand(make_grid: Maker, name: str, escaped: str) -> None:
    grid = make_grid("t_1", teachers=[name], students=[f"S {name}"], seeds=[0], dataset=name)
    for row in grid.rows:
        grid.done(row, 50.0)
    text = markdown_of(grid)
    assert text.startswith("### t_1\n\n|")
    line = table_lines(text)[2]
    assert f"| {escaped} (10.0K) " in line
    assert f"| S {escaped} (1.0K) " in line
    assert f"Teachers: {escaped} 50.00.\n" in text
    assert f"the test split of {escaped} in percent" in text
    assert not re.search(r"(?<!\\)[<>]|[\r\u2028\x0c\x85]", text)


def test_names_are_escaped_in_experiments_and_in_tables_of_baselines(make_grid: Maker) -> None:
    both = make_grid(teachers=["a|*b-T"], students=["<i>-S"], seeds=[0])
    assert cells_of(table_lines(markdown_of(both))[2])[0] == r"a\|\*b → \<i\>"
    alone = make_grid("alone", students=["a|*b\nc"], modes=["baseline"])
    assert cells_of(table_lines(markdown_of(alone))[2])[0] == r"a\|\*b c"


def table_of_names(teacher: str, student: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        grid = SyntheticGrid(Path(folder), teachers=[teacher], students=[f"{student}."], seeds=[0])
        grid.done(grid.rows[0], 50.0)
        grid.done(grid.rows[1], 50.0)
        return markdown_of(grid)


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(teacher=st.text(min_size=1), student=st.text(min_size=1) | st.text(alphabet="|\\ `*_<>&\n\r\u2029a", min_size=1))
@example(teacher="\\|", student="|\n|\n| --- |")
def test_no_name_adds_a_column_or_a_line(teacher: str, student: str) -> None:
    plain, text = table_of_names("T", "S"), table_of_names(teacher, student)
    lines = table_lines(text)
    # A pipe divides cells unless an odd number of backslashes stands before it.
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [9, 9, 9]
    assert len({display_width(line) for line in lines}) == 1
    assert len(text.splitlines()) == len(plain.splitlines())


@settings(deadline=None, max_examples=60)
@given(
    teacher=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
    student=st.text(alphabet="|\\`*_[]()<>&#!\"'-+=:;.x1 \n", min_size=1),
)
@example(teacher="<b>&lt;</b>", student="[a](b) ![c](d) **e** `f` <http://g.h> | \\| \\")
def test_markdown_shows_names_as_they_are(teacher: str, student: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(table_of_names(teacher, student))
    inline = [token for token in tokens if token.type == "inline"]
    assert {child.type for token in inline[9:17] for child in token.children or []} <= {"text"}
    shown = ["".join(child.content for child in token.children or []) for token in inline[9:17]]
    assert shown[1] == f"{on_one_line(teacher)} (10.0K)".strip()
    assert shown[2] == f"{' '.join(f'{student}.'.split())} (1.0K)"


# Its parts


def test_align_pads_to_the_widest_cell_and_at_least_to_a_rule() -> None:
    assert align(["A", "Number"], [["long name", "1"], ["x", "12345678"]], right=[False, True]) == (
        "| A         |   Number |\n| --------- | -------: |\n| long name |        1 |\n| x         | 12345678 |"
    )
    assert align(["A", "B"], [], right=[True, False]) == "|   A | B   |\n| --: | --- |"
