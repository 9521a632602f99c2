"""Which setting validation selects, and what is said where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from analysis.measures.gains import gains
from analysis.measures.selection import select
from analysis.read.load import load_grid
from analysis.tables.settings import gain_grids, selection_section
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.reading import markdown_table, section

Maker = Callable[..., SyntheticGrid]

# By temperature and alpha: test and val, in percent, of the seeds 0 and 1. Alone: 50 and 60.
Settings = Mapping[tuple[float, float], tuple[Sequence[float], Sequence[float]]]
SETTINGS: Settings = {
    (1.0, 0.25): ((51, 61), (70, 72)),
    (1.0, 1.0): ((55, 63), (72.9, 73.1)),
    (4.0, 0.25): ((52, 62), (74, 72)),  # as high as the one before it
    (4.0, 1.0): ((58, 66), (60, 60)),
}


def swept(make_grid: Maker, settings: Settings = SETTINGS, *, val_size: int = 100, **options: object) -> SyntheticGrid:
    grid = make_grid(seeds=[0, 1], temperature=[1.0, 4.0], alpha=[0.25, 1.0], val_size=val_size, **options)
    for row in grid.find(mode="baseline"):
        grid.done(row, 50.0 + 10 * row["seed"])
    for row in grid.find(mode="distilled"):
        figures = settings.get((row["temperature"], row["alpha"]))
        if figures is not None:
            val = {"val_top1_last": figures[1][row["seed"]] / 100} if val_size else {}
            grid.done(row, figures[0][row["seed"]], **val)
    return grid


def section_of(grid: SyntheticGrid) -> str:
    loaded = load_grid(grid.storage, grid.name)
    return section(selection_section(loaded, gains(loaded)))


def test_validation_selects_the_first_of_the_highest_means(make_grid: Maker) -> None:
    (row,) = select(gains(load_grid(swept(make_grid).storage))).to_dicts()
    assert (row["temperature"], row["alpha"], row["settings"]) == (1.0, 1.0, 4)
    assert (row["val_mean_percent"], row["distilled_mean_percent"], row["gain_mean_points"]) == pytest.approx(
        (73.0, 59.0, 4.0)
    )


def test_settings_that_are_all_equal_are_said_to_be(make_grid: Maker) -> None:
    grid = swept(make_grid, dict.fromkeys(SETTINGS, ((51, 61), (70, 72))))
    assert "with temperature 1, alpha 0.25 (val 71.00, as all 4 settings have). On test:" in section_of(grid)


def test_of_many_settings_the_answer_comes_before_the_list(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0], temperature=[1.0, 2.0, 4.0, 8.0], alpha=[0.1, 0.4, 0.7, 0.9], val_size=100)
    for row in grid.rows:
        grid.done(row, 50.0, val_top1_last=0.5)
    text = markdown_table(load_grid(grid.storage))
    places = [
        text.index(part) for part in ("- Selected", "Gain of ViT-T", "| Experiment", "Gain: distilled", "#### Mod")
    ]
    assert places == sorted(places)


def test_each_pair_has_a_selection_of_its_own(make_grid: Maker) -> None:
    grid = swept(make_grid, students=["A-S", "B-S"])
    for row in grid.find(student="B-S", temperature=4.0, alpha=1.0):
        grid.done(row, 58.0, val_top1_last=0.9)
    rows = select(gains(load_grid(grid.storage))).to_dicts()
    assert [(row["student"], row["temperature"], row["alpha"]) for row in rows] == [
        ("A-S", 1.0, 1.0),
        ("B-S", 4.0, 1.0),
    ]


def test_what_is_selected_is_reported_on_test_beside_the_best_by_test(make_grid: Maker) -> None:
    assert section_of(swept(make_grid)) == (
        "Val: the distilled students' mean top-1 on the validation split at the last epoch, in percent; it selects. "
        "The accuracy and gain of what it selected are on test, which took no part; but they are of the very runs that "
        "were selected, lucky ones among them: new seeds of the selected setting give its gain without that. Choosing "
        "the best of many settings by test itself is more optimistic still.\n\n"
        "- Selected on validation: ViT-T → ResNet-S with temperature 1, alpha 1 (val 73.00, the first of 2 with the "
        "highest, of 4 settings). On test: 59.00 ± 5.66 (n=2), gain +4.00 [+1.22, +6.78] ▲. The best by test, an "
        "optimistic choice, would be temperature 4, alpha 1: 62.00 ± 5.66 (n=2), gain +7.00 [+4.22, +9.78] ▲."
    )


def test_the_best_by_test_may_be_what_was_selected(make_grid: Maker) -> None:
    grid = swept(make_grid, {**SETTINGS, (4.0, 1.0): ((58, 66), (80, 80))})
    assert section_of(grid).endswith(
        "with temperature 4, alpha 1 (val 80.00, the highest of 4 settings). On test: 62.00 ± 5.66 (n=2), "
        "gain +7.00 [+4.22, +9.78] ▲. The best by test, an optimistic choice, would be the same."
    )


def test_the_table_has_a_val_column_and_then_the_selection(make_grid: Maker) -> None:
    text = markdown_table(load_grid(swept(make_grid).storage))
    header, _, *lines = ([c.strip() for c in line.split("|")[1:-1]] for line in text.split("\n\n")[1].split("\n"))
    assert header[3:] == ["Temperature", "Alpha", "Val", "Baseline", "Distilled", "Gain", "Retention", "Compression"]
    assert [line[5] for line in lines] == ["71.00", "73.00", "73.00", "60.00"]
    places = [text.index(part) for part in ("Gain: distilled", "- Selected", "Gain of ViT-T", "#### Models")]
    assert places == sorted(places)


def test_an_unfinished_grid_selects_among_what_is_there(make_grid: Maker) -> None:
    some = {key: figures for key, figures in SETTINGS.items() if key != (1.0, 1.0)}
    grid = swept(make_grid, some)
    assert "with temperature 4, alpha 0.25 (val 73.00, the highest of 3 settings)" in section_of(grid)
    assert "The settings stand on 0 to 2 seeds so far: the selection may change." in section_of(grid)
    assert section_of(make_grid("empty", temperature=[1.0, 4.0], val_size=100, seeds=[7])) == ""


def test_without_a_teacher_or_baseline_the_gain_is_unknown(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0], modes=["distilled"], alpha=[0.1, 0.9], val_size=100)
    for row in grid.find(mode="distilled"):
        grid.done(row, 60.0, val_top1_last=row["alpha"])
    assert "with alpha 0.9 (val 90.00, the highest of 2 settings). On test: 60.00 (n=1), gain —." in section_of(grid)


def test_without_a_validation_split_nothing_may_be_selected(make_grid: Maker) -> None:
    grid = swept(make_grid, val_size=0)
    assert section_of(grid) == (
        "**Nothing is selected**: this grid crosses temperature and alpha without a validation split, and nothing may "
        "be chosen by the test column. Give dataset.val_size to choose."
    )
    assert "| Val " not in markdown_table(load_grid(grid.storage))


def test_a_validation_split_of_files_shows_in_the_records(make_grid: Maker) -> None:
    grid = swept(make_grid, val_size=0)
    for row in grid.find(mode="distilled"):
        grid.done(row, 60.0, val_top1_last=0.5)
    assert "Selected on validation" in section_of(grid)


@pytest.mark.parametrize("modes", [["baseline"], ["baseline", "distilled"]])
def test_where_nothing_is_crossed_there_is_nothing_to_select(make_grid: Maker, modes: list[str]) -> None:
    grid = make_grid(modes=modes, seeds=[0], val_size=100)
    for row in grid.rows:
        grid.done(row, 80.0, val_top1_last=0.9)
    text = markdown_table(load_grid(grid.storage))
    assert "elected" not in text
    assert "| Val " not in text
    assert gain_grids(gains(load_grid(grid.storage))) == []


def test_names_are_escaped(make_grid: Maker) -> None:
    grid = swept(make_grid, teachers=["a|b"], students=["c_d"])
    assert r"- Selected on validation: a\|b → c_d with" in section_of(grid)
    assert section(gain_grids(gains(load_grid(grid.storage)))).startswith(r"Gain of a\|b → c_d by temperature")


def test_gains_by_temperature_and_alpha(make_grid: Maker) -> None:
    grid = swept(make_grid, {**SETTINGS, (4.0, 0.25): ((48, 57.9), (0, 0)), (1.0, 0.25): ((50, 59), (0, 0))})
    for row in grid.find(mode="distilled", temperature=1.0, alpha=1.0):
        (grid.root / grid.folder(row) / "record.json").unlink()
    assert section(gain_grids(gains(load_grid(grid.storage)))) == (
        "Gain of ViT-T → ResNet-S by temperature and alpha, in points (n = 0 to 2):\n\n"
        "| Temperature | alpha 0.25 | alpha 1 |\n"
        "| ----------: | ---------: | ------: |\n"
        "|           1 |    -0.50 ▽ |       — |\n"
        "|           4 |    -2.05 ▽ | +7.00 ▲ |"
    )


def test_each_pair_and_method_has_gains_of_its_own(make_grid: Maker) -> None:
    grid = make_grid(students=["A", "B"], method=["kd", "x_y"], temperature=[1.0, 2.0], alpha=[0.0, 1.0], seeds=[0])
    titles = [table.title for table in gain_grids(gains(load_grid(grid.storage)))]
    assert titles == [
        f"Gain of ViT-T → {student}, method {method} by temperature and alpha, in points (n = 0):"
        for student, method in (("A", "kd"), ("A", r"x_y"), ("B", "kd"), ("B", r"x_y"))
    ]
    assert gain_grids(gains(load_grid(make_grid("one", alpha=[0.0, 1.0]).storage, "one"))) == []
