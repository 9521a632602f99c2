"""There is room for everything: names cover nothing and leave no picture; a letter that is missing is told."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import plots
from analysis.plots import LIGHT, pictures, write
from analysis.plots.fonts import CHARACTER, FONT_SIZE, missing, width, wrap
from analysis.plots.labels import AROUND, Label, place
from analysis.plots.style import new_figure, settings, settle
from analysis.read.load import load_grid
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.plots.conftest import filled

Maker = Callable[..., SyntheticGrid]

LONG = ["vit_huge_patch14_clip_quickgelu_224.laio", "efficientnet $x^2$ <b>|_β_ résumé, & long", "模Wm" * 20]
NOWHERE = "\u0378"  # no letter of any script yet: no font has it


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Figure]:
    """Pictures of 12 students and 6 teachers, some with long names, each drawn once."""
    grid = SyntheticGrid(
        tmp_path_factory.mktemp("crowded"),
        teachers=[f"T{i}" for i in range(5)] + LONG[:1],
        students=[f"S{i}" for i in range(10)] + LONG[1:],
        seeds=[0, 1],
    )
    filled(grid, lambda row: 75 + 7 * (len(row["student"]) % 3) + row["seed"])
    found = {picture.name: picture for picture in pictures(load_grid(grid.storage, grid.name))}
    figures: dict[str, Figure] = {}
    return lambda name: figures.get(name) or figures.setdefault(name, found[name].figure())


def test_names_beside_points_cover_neither_one_another_nor_leave_the_panel(
    crowded: Callable[[str], Figure],
) -> None:
    for ax in crowded("cost").axes:
        boxes = [Text.get_window_extent(label) for label in ax.texts]
        assert len(boxes) == 18
        assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        panel = ax.get_window_extent().padded(1)
        assert all(panel.contains(*corner) for box in boxes for corner in (box.min, box.max))


@pytest.mark.parametrize("name", ["accuracy", "gains", "cost", "curves", "calibration"])
def test_a_crowded_grid_stays_legible(crowded: Callable[[str], Figure], name: str) -> None:
    figure = crowded(name)
    shown = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]
    assert figure.get_figwidth() == 7
    assert min(text.get_fontsize() for text in shown) >= 8
    page = figure.bbox.padded(1)
    titles = []
    for ax in figure.axes:
        low, high = sorted(ax.get_ylim())
        ticks = [tick for tick in ax.get_yticklabels() if tick.get_text() and low <= tick.get_position()[1] <= high]
        labels = [tick.get_window_extent() for tick in ticks]
        assert not [pair for pair in itertools.combinations(labels, 2) if pair[0].overlaps(pair[1])]
        assert all(page.contains(*corner) for box in labels for corner in (box.min, box.max))
        titles += [text.get_window_extent() for text in (ax.title, ax._left_title) if text.get_text()]
    assert all(page.contains(*corner) for box in titles for corner in (box.min, box.max))
    assert not [pair for pair in itertools.combinations(titles, 2) if pair[0].overlaps(pair[1])]
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert all(page.contains(*corner) for corner in (box.min, box.max))
        assert not [ax for ax in figure.axes if ax.get_window_extent().overlaps(box)]


def test_labels_avoid_points_where_there_is_room() -> None:
    with settings(LIGHT):
        figure = new_figure(3, "points")
        ax = figure.subplots()
        points = [(float(x), float(y)) for x in range(5) for y in range(4)]
        ax.plot(*zip(*points, strict=True), "o")
        settle(figure)
        labels = place(ax, LIGHT, [Label(*point, "label") for point in points[:8]], points, [((0, 1.5), (4, 1.5))])
        reach = AROUND * figure.dpi / 72 * 0.99
        for label in labels:
            box = Text.get_window_extent(label)
            for x, y in (ax.transData.transform(point) for point in points):
                assert not (box.x0 - reach < x < box.x1 + reach and box.y0 - reach < y < box.y1 + reach)
            assert not box.y0 < ax.transData.transform((0, 1.5))[1] < box.y1


@pytest.mark.parametrize("text", [*LONG, "plain", "ViT-T → a_b.c"])
@pytest.mark.parametrize("most", [10, 24])
def test_wrapping_loses_nothing(text: str, most: int) -> None:
    wrapped = wrap(text, most)
    assert width(wrapped) <= most
    assert wrapped.replace("\n", "").replace(" ", "") == text.replace(" ", "")


def test_a_number_is_not_broken() -> None:
    assert wrap("temperature 4, alpha 0.25, of vit.laion", 24) == "temperature 4, alpha\n0.25, of vit.laion"


@pytest.mark.parametrize("text", ["wwww", "WMWM@", "plain words", "iiii", "ViT-B/16"])
def test_no_text_is_wider_than_it_is_held_to_be(text: str) -> None:
    with settings(LIGHT):
        figure = new_figure(1, "a")
        drawn = figure.text(0, 0, text, fontsize=FONT_SIZE).get_window_extent().width / figure.dpi
    assert 0.4 * width(text) * CHARACTER < drawn <= width(text) * CHARACTER + 0.02


def test_a_letter_that_no_font_has_is_told_once(
    make_grid: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_KINDS", {"gains": plots._KINDS["gains"]})
    assert missing(f"aé{NOWHERE} b{NOWHERE}") == NOWHERE
    grid = filled(make_grid(students=[f"S{NOWHERE}"], seeds=[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(load_grid(grid.storage), tmp_path / "out", formats=["svg"])
        assert not caplog.messages
        write(load_grid(grid.storage), tmp_path / "out", formats=["png"])
    assert [f"no font here has {NOWHERE}:" in message for message in caplog.messages] == [True]
    assert f"S{NOWHERE}" in (tmp_path / "out/gains.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["accuracy", "gains"])
def test_tall_pictures_have_figures_at_both_ends(crowded: Callable[[str], Figure], make_grid: Maker, name: str) -> None:
    small = {picture.name: picture for picture in pictures(load_grid(filled(make_grid(seeds=[0])).storage))}
    for figure, both in ((crowded(name), True), (small[name].figure(), False)):
        (ax,) = figure.axes
        assert ax.xaxis.get_tick_params()["labeltop"] == both
        assert ax.xaxis.get_tick_params()["labelbottom"]
