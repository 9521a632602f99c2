"""What every picture keeps to: told apart by anyone, literal names, the same bytes."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import plots
from analysis.errors import AnalysisError
from analysis.plots import DARK, LIGHT, Picture, Theme, pictures, style, write
from analysis.plots.style import MARKERS, color, dash, marker
from analysis.read.load import load_grid
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.plots.conftest import filled

Maker = Callable[..., SyntheticGrid]


def of(grid: SyntheticGrid) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(load_grid(grid.storage, grid.name))}


def shown(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]


# Colours

LUMINANCE = np.array([0.2126729, 0.7151522, 0.072175])


def linear(color: str) -> np.ndarray:
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB under D65."""
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], LUMINANCE, [0.0193339, 0.119192, 0.9503041]])
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb / to_xyz.sum(axis=1), 0.0089, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira and Fernandes 2009, severity 1, of linear sRGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_series_are_told_apart_by_all_eyes_and_in_grey(theme: Theme) -> None:
    seen = [lab(linear(shade)) for shade in theme.series]
    weak = [lab(np.clip(DEUTERANOPIA @ linear(shade), 0, 1)) for shade in theme.series]
    pairs = list(itertools.combinations(range(len(theme.series)), 2))
    assert min(np.linalg.norm(seen[a] - seen[b]) for a, b in pairs) > 25
    assert min(np.linalg.norm(weak[a] - weak[b]) for a, b in pairs) > 20
    assert min(abs(seen[a][0] - seen[b][0]) for a, b in pairs) > 5
    gain, loss = (lab(np.clip(DEUTERANOPIA @ linear(shade), 0, 1)) for shade in (theme.gain, theme.loss))
    assert np.linalg.norm(gain - loss) > 40


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_everything_stands_out_from_the_page(theme: Theme) -> None:
    for shade in (*theme.series, theme.muted, theme.ink, theme.gain, theme.loss):
        light, dark = sorted((float(LUMINANCE @ linear(of)) for of in (shade, theme.page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= (4.5 if shade in (theme.ink, theme.muted) else 3)


def test_markers_and_dashes_differ_too() -> None:
    assert len({marker(i) for i in range(len(MARKERS))}) == len(MARKERS)
    assert len({str(dash(i)) for i in range(7)}) == 7
    assert len({(color(LIGHT, i), marker(i)) for i in range(25)}) == 25
    assert len({(color(LIGHT, i), str(dash(i))) for i in range(25)}) == 25


def test_nothing_looks_like_the_student_alone() -> None:
    for look in (lambda i: color(LIGHT, i), lambda i: color(DARK, i), marker, dash):
        assert look(0) not in [look(i) for i in range(1, 50)]


# Text


NAMES = ("T$1$_x", "a_b|<c>&$x^2$", "résumé→β", r"back\slash\$ **bold** [x]")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_literal(make_grid: Maker, name: str) -> None:
    found = of(filled(make_grid(teachers=[f"{name}."], students=[name], seeds=[0, 1])))
    figures = {picture.name: picture.figure() for picture in found.values()}
    for kind, figure in figures.items():
        said = [text.get_text() for text in shown(figure)]
        assert any(name in text.replace("\n", "") for text in said), kind
        assert not any(text.get_parse_math() for text in shown(figure))
    svg = found["accuracy"].to_bytes(figures["accuracy"], LIGHT, "svg").decode()
    assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg


def test_svg_keeps_text_as_text(make_grid: Maker) -> None:
    picture = of(filled(make_grid()))["gains"]
    svg = picture.to_bytes(picture.figure(), LIGHT, "svg").decode()
    assert "n = 3  +1.50" in re.sub(r"&#160;|\u00a0", " ", svg)
    assert "<dc:date>" not in svg


# Files


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_files_and_their_names(make_grid: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_KINDS", {name: plots._KINDS[name] for name in ("accuracy", "gains")})
    written = write(load_grid(filled(make_grid(seeds=[0])).storage), tmp_path / "a/b")
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "a/b").iterdir())
    accuracy = {"accuracy.png", "accuracy.svg", "accuracy-dark.png", "accuracy-dark.svg"}
    assert {path.name for path in written if path.name.startswith("acc")} == accuracy
    assert (tmp_path / "a/b/captions.md").read_text(encoding="utf-8").startswith("### tiny\n\n#### tiny: accuracy\n\n")
    png = (tmp_path / "a/b/accuracy.png").read_bytes()
    assert int.from_bytes(png[16:20], "big") == 1400  # 7 inches at 200 dpi


def test_an_unknown_format_is_refused(make_grid: Maker, tmp_path: Path) -> None:
    grid = load_grid(make_grid().storage)
    with pytest.raises(AnalysisError, match=r"^unknown format gif: there are png, svg$"):
        write(grid, tmp_path / "out", formats=["png", "gif"])
    assert not (tmp_path / "out").exists()
    assert write(grid, tmp_path / "out") == []


@pytest.fixture
def two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose layout is matplotlib's and one whose labels are placed by us, of few dots an inch."""
    monkeypatch.setattr(plots, "_KINDS", {name: plots._KINDS[name] for name in ("gains", "cost")})
    monkeypatch.setattr(style, "DPI", 50)


@pytest.mark.long
@pytest.mark.usefixtures("two_kinds")
def test_equal_bytes_whatever_the_users_settings_and_in_threads(make_grid: Maker, tmp_path: Path) -> None:
    grid = load_grid(filled(make_grid()).storage)
    write(grid, tmp_path / "first")
    with mpl.rc_context({"font.size": 20, "text.usetex": True, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        threads = [threading.Thread(target=write, args=(grid, tmp_path / name)) for name in ("second", "third")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert dict(mpl.rcParams) == before
    assert digests(tmp_path / "first") == digests(tmp_path / "second") == digests(tmp_path / "third")


def test_one_format_alone_has_the_same_bytes(make_grid: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_KINDS", {"gains": plots._KINDS["gains"]})
    grid = load_grid(filled(make_grid()).storage)
    write(grid, tmp_path / "both")
    write(grid, tmp_path / "svg", formats=["svg"])
    both = digests(tmp_path / "both")
    assert {name: both[name] for name in digests(tmp_path / "svg")} == digests(tmp_path / "svg")


def test_figures_have_an_agg_canvas(make_grid: Maker) -> None:
    (picture, *_) = of(filled(make_grid())).values()
    assert isinstance(picture.figure(DARK).canvas, FigureCanvasAgg)
