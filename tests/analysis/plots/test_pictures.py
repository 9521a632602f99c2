"""Each picture shows the numbers it is made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.patches import Rectangle

from analysis.plots import DARK
from analysis.plots.settings_map import SELECTED
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.plots.conftest import filled
from tests.analysis.plots.reading import drawn, spans, spots, texts

Maker = Callable[..., SyntheticGrid]


def test_all_there_are_and_their_order(make_grid: Maker, swept: SyntheticGrid) -> None:
    assert list(drawn(swept)) == ["temperature-alpha", "accuracy", "gains", "cost", "curves", "calibration"]
    assert list(drawn(filled(make_grid("plain")))) == ["accuracy", "gains", "cost", "curves", "calibration"]
    alone = filled(make_grid("alone", modes=["baseline"], students=["A", "B"]))
    assert list(drawn(alone)) == ["accuracy", "cost", "curves", "calibration"]


def test_nothing_done_is_no_picture_and_the_log_says_why(make_grid: Maker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="kd_grid"):
        assert drawn(make_grid()) == {}
    assert "no picture accuracy of grid tiny: no cell is done" in caplog.messages
    assert len(caplog.messages) == 6


def test_accuracy_is_means_intervals_and_every_seed(make_grid: Maker) -> None:
    picture = drawn(filled(make_grid()))["accuracy"]
    figure = picture.figure()
    (ax,) = figure.axes
    assert [x for x, _ in spots(ax, "o", 5.5)] == [81.0]  # 80, 81, 82
    assert [x for x, _ in spots(ax, "s", 5.5)] == [82.5]  # 81, 82.5, 84
    assert [x for x, _ in spots(ax, "o", 3)] == [80.0, 81.0, 82.0]
    assert [x for x, _ in spots(ax, "s", 3)] == [81.0, 82.5, 84.0]
    half = 4.30265 / 3**0.5
    assert spans(ax) == [
        pytest.approx((81 - half, 81 + half), abs=1e-4),
        pytest.approx((82.5 - 1.5 * half, 82.5 + 1.5 * half), abs=1e-4),
    ]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == 1] == [90.0]
    assert {"ResNet-S", "alone", "from ViT-T", "teacher ViT-T", "tiny: accuracy"} <= set(texts(figure))
    assert ax.get_xlabel() == "Top-1 (%); mean and 95 % t interval, n = 3 seeds"
    assert "95 % t interval of the mean, n = 3 seeds" in picture.caption
    assert "does not start at 0" in picture.caption


def test_one_seed_has_no_interval(make_grid: Maker) -> None:
    found = drawn(filled(make_grid(seeds=[0])))
    for name in ("accuracy", "gains", "calibration"):
        assert spans(found[name].figure().axes[0]) == []
        assert "One seed gives no interval (n = 1 seed)." in found[name].caption
        handles = found[name].figure().legends[0].legend_handles
        assert {handle.get_linestyle() for handle in handles if handle.get_marker() != "None"} == {"None"}
    assert "Bands" not in found["curves"].caption
    assert not found["curves"].figure().axes[0].collections
    assert "n = 1  +1.00" in texts(found["gains"].figure())


def test_huge_intervals_are_cut_with_an_arrow_and_no_accuracy_is_beyond_100(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1])
    filled(grid, lambda row: 95.0 + 4 * row["seed"])
    found = drawn(grid)
    (ax,) = found["accuracy"].figure().axes
    assert ax.get_xlim()[1] == 100
    arrows = [line for line in ax.lines if line.get_marker() in (4, 5)]
    assert [line.get_xdata()[0] for line in arrows] == [100]
    assert "arrows where it goes on beyond the axis" in found["accuracy"].caption


def test_an_unfinished_grid_says_on_how_much_it_stands(make_grid: Maker) -> None:
    grid = make_grid()
    row = filled(grid).one(mode="distilled", seed=2)
    (grid.root / f"{grid.folder(row)}/record.json").unlink()
    for picture in drawn(grid).values():
        assert "stands on 6 of 7 teachers and cells (0 failed, 1 missing)" in picture.caption
    assert "n = 2 to 3 seeds" in drawn(grid)["accuracy"].caption


def test_an_unreadable_curve_is_named_where_it_matters(make_grid: Maker) -> None:
    grid = filled(make_grid())
    path = f"{grid.folder(grid.one(mode='baseline', seed=0))}/curve.parquet"
    grid.write(path, b"no")
    found = drawn(grid)
    assert f"Unreadable: {path}: " in found["curves"].caption
    assert "Unreadable" not in found["accuracy"].caption


def test_gains_significant_and_not_with_n(make_grid: Maker) -> None:
    grid = make_grid(students=["A", "B"])
    filled(grid, lambda row: 80 + row["seed"] + (2 + 0.1 * row["seed"] if row["student"] == "A" else row["seed"] - 1))
    picture = drawn(grid)["gains"]
    figure = picture.figure()
    (ax,) = figure.axes
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([2.1, 0.0])
    filled_, hollow = (line.get_markerfacecolor() for line in points)
    assert filled_ != hollow == "#ffffff"
    assert len(spans(ax)) == 2
    assert [text.get_text() for text in ax.texts] == [
        "n = 3  +2.10 [+1.85, +2.35] ▲",
        "n = 3  +0.00 [−2.48, +2.48]",
    ]
    assert "Diamonds" not in picture.caption


def test_the_published_gain_is_a_diamond(swept: SyntheticGrid, make_grid: Maker) -> None:
    said = {"teacher": "ViT-T", "student": "ResNet-S", "baseline": 72.5, "distilled": 70.0}
    published = {"study": "A Study", "protocol": "best test epoch", "models": [], "pairs": [said]}
    for grid in (filled(make_grid("plain")), swept):
        grid.plan["spec"]["published"] = published
        grid.write_plan()
        picture = drawn(grid)["gains"]
        assert [x for x, _ in spots(picture.figure().axes[0], "D", 5)] == [-2.5]
        assert "published by A Study (best test epoch)" in picture.caption


def test_long_settings_break_within_no_number(make_grid: Maker) -> None:
    crossed = {"temperature": [1.0, 4.0], "alpha": [0.1, 0.9], "seeds": [0]}
    two = texts(drawn(filled(make_grid("two", **crossed)))["gains"].figure())
    assert "temperature 4, alpha 0.9" in two
    three = texts(drawn(filled(make_grid("three", method=["kd", "multilevel"], **crossed)))["gains"].figure())
    assert {"method kd, T 1, alpha 0.1", "method multilevel, T 4, alpha 0.9"} <= set(three)


def test_many_gains_are_several_pictures_of_one_scale(make_grid: Maker) -> None:
    grid = filled(make_grid(students=[f"S{i}" for i in range(61)], seeds=[0]))
    found = drawn(grid)
    assert found["gains"].title.endswith("(1 of 2)")
    limits = [found[name].figure().axes[0].get_xlim() for name in ("gains", "gains-2")]
    assert limits[0] == limits[1]


def test_a_pair_that_goes_on_in_the_next_picture_is_named_there(make_grid: Maker) -> None:
    alphas = [i / 40 for i in range(32)]
    found = drawn(filled(make_grid(students=["A", "B"], seeds=[0], alpha=alphas)))
    labels = [tick.get_text() for tick in found["gains-2"].figure().axes[0].get_yticklabels()]
    assert labels[:2] == ["ViT-T → B", "alpha 0.65"]
    assert len(labels) == 7  # 2 headings and 64 settings: 60 rows, the 6 others, and the heading again


@pytest.mark.parametrize("theme_name", ["light", "dark"])
def test_the_map_of_settings(swept: SyntheticGrid, theme_name: str) -> None:
    picture = drawn(swept)["temperature-alpha"]
    figure = picture.figure(DARK) if theme_name == "dark" else picture.figure()
    ax, bar = figure.axes
    assert [text.get_text() for text in ax.texts] == ["−2.00 ▼", f"{SELECTED}\n+1.00 ▲", "+3.00 ▲", "+0.00"]
    outlined = [patch.get_xy() for patch in ax.patches if isinstance(patch, Rectangle) and not patch.get_hatch()]
    assert [(int(x), int(y)) for x, y in outlined] == [(0, 0), (1, 0), (0, 1)]
    assert {"significant", "validation selects"} <= set(texts(figure))
    scale = ax.collections[0].norm
    assert (scale.vmin, scale.vmax) == (-3, 3)
    assert "0 = the student alone" in bar.get_ylabel()
    assert ax.get_title(loc="left") == "ViT-T → ResNet-S\n0: the student alone, 80.50 %"
    assert ax.yaxis_inverted()


def test_unknown_settings_are_hatched(swept: SyntheticGrid) -> None:
    for row in swept.find(mode="distilled", temperature=4.0, alpha=0.9):
        (swept.root / f"{swept.folder(row)}/record.json").unlink()
    picture = drawn(swept)["temperature-alpha"]
    ax = picture.figure().axes[0]
    assert [patch.get_xy() for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()] == [(1, 1)]
    assert "Hatched: not known." in picture.caption


def test_of_crossed_settings_the_others_show_what_validation_selects(swept: SyntheticGrid) -> None:
    found = drawn(swept)
    (ax,) = found["accuracy"].figure().axes
    assert [x for x, _ in spots(ax, "s", 5.5)] == [81.5]  # not the best by test, +3
    for name in ("accuracy", "cost", "curves", "calibration"):
        assert "what validation selects: ViT-T → ResNet-S temperature 1, alpha 0.9." in found[name].caption


def test_without_validation_every_setting_is_drawn_or_none(make_grid: Maker) -> None:
    few = drawn(filled(make_grid("few", alpha=[0.1, 0.9])))["accuracy"].figure()
    assert {"from ViT-T, alpha 0.1", "from ViT-T, alpha 0.9"} <= set(texts(few))
    many = drawn(filled(make_grid("many", seeds=[0], alpha=[i / 20 for i in range(13)])))
    assert list(many) == ["gains"]


def test_curves_are_means_with_bands(make_grid: Maker) -> None:
    grid = filled(make_grid())
    picture = drawn(grid)["curves"]
    accuracy, loss = picture.figure().axes
    assert [list(map(tuple, zip(*line.get_data(), strict=True))) for line in accuracy.lines] == [
        [(2, pytest.approx(40.5)), (3, pytest.approx(81.0))],
        [(2, pytest.approx(41.25)), (3, pytest.approx(82.5))],
    ]
    assert [list(line.get_ydata()) for line in loss.lines] == [[3.0, 1.0, 1.0], [3.0, 1.0, 1.0]]
    band = loss.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1.0, 4.0)
    assert "from the lowest to the highest seed" in picture.caption
    assert "do not compare" in picture.caption


def test_an_accuracy_of_one_epoch_is_no_curve(make_grid: Maker) -> None:
    grid = filled(make_grid())
    for row in grid.rows:
        losses = [{"epoch": e, "train_loss": 3.0 - e, "test_top1": 0.8 if e == 2 else None} for e in (1, 2)]
        grid.curve(row, losses)
    picture = drawn(grid)["curves"]
    assert [ax.get_ylabel() for ax in picture.figure().axes] == ["Training loss"]
    assert picture.caption.startswith("Loss on the training split of digits by epoch")
    assert "Accuracy was evaluated at one epoch only" in picture.caption


def test_calibration_has_both_quantities(make_grid: Maker) -> None:
    figure = drawn(filled(make_grid()))["calibration"].figure()
    assert [[x for x, _ in spots(ax, "s", 5.5)] for ax in figure.axes] == [[pytest.approx(5.0)], [pytest.approx(0.7)]]
    assert len(drawn(filled(make_grid("old"), test_nll_last=None))["calibration"].figure().axes) == 1


def test_unknown_gains_are_left_out_and_counted(swept: SyntheticGrid) -> None:
    for row in swept.find(mode="distilled", temperature=4.0):
        (swept.root / f"{swept.folder(row)}/record.json").unlink()
    found = drawn(swept)
    assert len(found["gains"].figure().axes[0].texts) == 2
    assert "Left out: 2 of 4 rows" in found["gains"].caption
    for name in ("temperature-alpha", "accuracy"):
        assert "may change while settings stand on unequal numbers of seeds" in found[name].caption
