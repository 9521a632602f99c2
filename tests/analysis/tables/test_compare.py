"""Our results beside the published ones, at the study's protocol and at ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import main
from analysis.errors import AnalysisError
from analysis.measures.published import compare
from analysis.read.grids import Grid
from analysis.read.load import load_grid
from grid.spec.published import PublishedModel, PublishedPair, PublishedStudy
from grid.store.records import Value
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.reading import markdown_comparison

Maker = Callable[..., SyntheticGrid]

PAIR = PublishedPair(
    teacher="ViT-T",
    student="ResNet-S",
    baseline=72.7,
    distilled=70.86,
    retention=85.2,
    compression=43.7,
    compression_size=43.4,
    speedup=4.3,
)
STUDY = PublishedStudy(
    study="a study",
    protocol="best test accuracy, one run",
    models=(
        PublishedModel(
            model="ViT-T", accuracy=83.13, parameters=4_664_970, size_mb=17.81, inference_ms=111.29, efficiency=0.75
        ),
        PublishedModel(model="ResNet-S", mode="baseline", accuracy=72.7, parameters=106_826),
        PublishedModel(model="ResNet-S", mode="distilled"),
    ),
    pairs=(PAIR,),
)
PUBLISHED: dict[str, Any] = STUDY.model_dump(mode="json")
# By seed: last epoch and best test epoch, of the student alone and from its teacher.
ALONE = [(70.0, 71.0), (71.0, 72.0), (72.0, 73.0)]
TAUGHT = [(71.0, 71.4), (72.5, 72.5), (72.5, 73.6)]


def studied(make_grid: Maker, *, published: dict[str, Any] | None = PUBLISHED) -> SyntheticGrid:
    grid = make_grid()
    grid.write_plan(spec={**grid.plan["spec"], "published": published})
    return grid


def filled(grid: SyntheticGrid) -> Grid:
    grid.done(grid.one(kind="teacher"), 88.0, best_test_top1=0.885)
    for teacher, figures in ((None, ALONE), ("ViT-T", TAUGHT)):
        for seed, (last, best) in enumerate(figures):
            row = grid.one(kind="cell", teacher=teacher, seed=seed)
            grid.done(row, last, best_test_top1=best / 100)
    return load_grid(grid.storage)


def tables_of(text: str) -> list[list[list[str]]]:
    """The cells of each table's lines."""
    blocks = [block.strip().split("\n") for block in text.split("\n\n") if block.startswith("|")]
    return [[[cell.strip() for cell in line.split("|")[1:-1]] for line in block] for block in blocks]


def test_a_pair_stands_beside_its_published_figures(make_grid: Maker) -> None:
    (row,) = compare(filled(studied(make_grid))).iter_rows(named=True)
    published = {name: row[f"published_{name}"] for name in ("baseline_percent", "distilled_percent", "gain_points")}
    assert published == {"baseline_percent": 72.7, "distilled_percent": 70.86, "gain_points": pytest.approx(-1.84)}
    # Gains at the best test epoch: 0.4, 0.5 and 0.6; at the last epoch: 1, 1.5 and 0.5.
    t = 4.302652729911275 / 3**0.5  # of 2 degrees of freedom
    assert (row["gain_mean_points"], row["gain_low_points"], row["gain_high_points"]) == pytest.approx(
        (0.5, 0.5 - 0.1 * t, 0.5 + 0.1 * t)
    )
    assert (row["gain_low_points_last"], row["gain_high_points_last"]) == pytest.approx((1 - 0.5 * t, 1 + 0.5 * t))
    assert (row["baseline_mean_percent"], row["baseline_mean_percent_last"]) == pytest.approx((72.0, 71.0))
    assert row["published_gain_is"] == "outside"


@pytest.mark.parametrize(("distilled", "verdict"), [(73.4, "inside"), (73.5, "outside")])
def test_a_published_gain_is_judged_at_the_studys_protocol(make_grid: Maker, distilled: float, verdict: str) -> None:
    pair = {**PUBLISHED["pairs"][0], "distilled": distilled}
    grid = filled(studied(make_grid, published={**PUBLISHED, "pairs": [pair]}))
    # The interval at the best test epoch ends at 0.75.
    assert compare(grid)["published_gain_is"].to_list() == [verdict]


def test_the_table_shows_three_lines_a_pair_the_verdict_and_the_teachers(make_grid: Maker) -> None:
    text = markdown_comparison(filled(studied(make_grid)))
    assert text.startswith("### tiny beside a study\n")
    pairs, teachers = tables_of(text)[:2]
    assert pairs[2:] == [
        ["ViT-T", "ResNet-S", "published", "72.70", "70.86", "-1.84", "85.2 %"],
        ["", "", "ours, best test", "72.00 ± 1.00 (n=3)", "72.50 ± 1.10 (n=3)", "+0.50 [+0.25, +0.75]", "81.9 %"],
        ["", "", "ours, last epoch", "71.00 ± 1.00 (n=3)", "72.00 ± 0.87 (n=3)", "+1.00 [-0.24, +2.24]", "81.8 %"],
    ]
    assert "- ViT-T → ResNet-S: the published gain of -1.84 lies outside of our interval (best test)." in text
    assert teachers[2:] == [["ViT-T", "83.13", "88.50", "88.00"]]
    assert "Unfinished" not in text


TEACHERS_COST: dict[str, Value] = {"size_bytes": 4 * 2**20, "latency_ms": 20.0, "latency_ms_q1": 19.0}
TEACHERS_COST |= {"latency_ms_q3": 21.0, "latency_batch": 32, "latency_device": "CPU", "latency_runs": 100}
STUDENTS_COST = TEACHERS_COST | {"size_bytes": 2**19, "latency_ms": 5.0, "latency_ms_q1": 4.5, "latency_ms_q3": 6.0}


def test_published_models_stand_beside_ours_with_both_scores(make_grid: Maker) -> None:
    grid = studied(make_grid)
    grid.costs = {"ViT-T": TEACHERS_COST, "ResNet-S": STUDENTS_COST}
    text = markdown_comparison(filled(grid))
    models, ratios = tables_of(text)[2:]
    assert models[0] == [
        *("Model", "Trained", "Whose", "Accuracy", "Parameters", "Size (MiB)", "ms per batch"),
        *("Accuracy / ms", "Accuracy / (MiB x ms)"),
    ]
    assert models[2:] == [
        ["ViT-T", "as a teacher", "published", "83.13", "4.7M", "17.81", "111.29", "0.75", "0.042"],
        ["", "", "ours", "88.00", "10.0K", "4.00", "20.00 [19.00, 21.00]", "4.40", "1.10"],
        ["ResNet-S", "alone", "published", "72.70", "106.8K", "—", "—", "—", "—"],
        ["", "", "ours", "71.00", "1.0K", "0.50", "5.00 [4.50, 6.00]", "14.20", "28.40"],
        ["ResNet-S", "distilled", "published", "—", "—", "—", "—", "—", "—"],
        ["", "from ViT-T", "ours", "72.00", "1.0K", "0.50", "5.00 [4.50, 6.00]", "14.40", "28.80"],
    ]
    assert "accuracy / (MiB x ms) is computed here from the printed ones" in text
    assert "**Times and scores**: of different machines and batches do not compare" in text
    assert ratios[0] == ["Teacher", "Student", "Whose", "Fewer parameters", "Smaller", "Faster"]
    assert ratios[2:] == [
        ["ViT-T", "ResNet-S", "published", "43.7x", "43.4x", "4.3x"],
        ["", "", "ours", "10.0x", "8.0x", "4.0x"],
    ]


def test_there_is_no_speedup_between_different_devices(make_grid: Maker) -> None:
    grid = studied(make_grid)
    grid.costs = {"ViT-T": TEACHERS_COST | {"latency_device": "GPU"}, "ResNet-S": STUDENTS_COST}
    text = markdown_comparison(filled(grid))
    assert tables_of(text)[3][-1] == ["", "", "ours", "10.0x", "8.0x", "—"]
    assert "**Not comparable**: ResNet-S with 32 images on CPU; ViT-T with 32 images on GPU." in text


def test_a_study_that_states_no_models_has_no_tables_of_them(make_grid: Maker) -> None:
    bare = PAIR.model_copy(update={"compression": None, "compression_size": None, "speedup": None})
    study = STUDY.model_copy(update={"models": (), "pairs": (bare,)})
    text = markdown_comparison(filled(studied(make_grid, published=study.model_dump(mode="json"))))
    assert len(tables_of(text)) == 1
    assert "ms per batch" not in text


def test_figures_of_an_older_version_are_refused(make_grid: Maker) -> None:
    older = {"study": "a study", "protocol": "one run", "teachers": {"ViT-T": 83.13}, "pairs": []}
    grid = studied(make_grid, published=older)
    with pytest.raises(AnalysisError, match="its published figures are an older version's; launch it again"):
        markdown_comparison(load_grid(grid.storage))


def test_what_is_missing_is_shown_as_such(make_grid: Maker) -> None:
    text = markdown_comparison(load_grid(studied(make_grid).storage))
    assert "the published gain of -1.84 cannot be judged: ours has no interval yet" in text
    assert "**Unfinished**: this table stands on 0 of 7 teachers and cells" in text
    assert "| published" in text


def test_one_seed_gives_no_verdict(make_grid: Maker) -> None:
    grid = make_grid(seeds=(0,))
    grid.write_plan(spec={**grid.plan["spec"], "published": PUBLISHED})
    for row in grid.find(kind="cell"):
        grid.done(row, 70.0, best_test_top1=0.71)
    loaded = load_grid(grid.storage)
    assert compare(loaded)["published_gain_is"].to_list() == [None]
    assert "cannot be judged" in markdown_comparison(loaded)


def test_each_temperature_has_lines_of_its_own(make_grid: Maker) -> None:
    grid = make_grid(temperature=(1.0, 4.0))
    grid.write_plan(spec={**grid.plan["spec"], "published": PUBLISHED})
    loaded = load_grid(grid.storage)
    assert compare(loaded)["temperature"].to_list() == [1.0, 4.0]
    assert "temperature 4: the published gain" in markdown_comparison(loaded)


def test_a_grid_without_published_figures_says_so(
    make_grid: Maker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = studied(make_grid, published=None)
    with pytest.raises(AnalysisError, match="grid tiny states no published figures"):
        compare(load_grid(grid.storage))
    assert main(["compare", "tiny", "--storage", grid.storage]) == 2
    assert "states no published figures" in capsys.readouterr().err
    written = filled(studied(make_grid))
    assert main(["compare", "--storage", grid.storage, "--output", str(tmp_path / "out.md")]) == 0
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == markdown_comparison(written)
