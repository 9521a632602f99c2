"""Only the formats that are named are read, whatever a file is called, and only as many pixels as fit."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from kd.data.reading.decode import FORMATS, READ, decode
from kd.data.reading.folder import ImageFolder
from kd.data.reading.parquet import Parquet
from kd.data.sources import DatasetError
from tests.images import noise, png, write_folder, write_parquet

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""
OTHERS = ("DDS", "ICNS", "ICO", "IM", "JPEG2000", "MSP", "PCX", "QOI", "SGI", "TGA", "XBM")


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.convert("1" if kind in ("MSP", "XBM") else "RGB").save(buffer, format=kind)
    return buffer.getvalue()


def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a `gs` on the path that writes down how it was called; returns where."""
    calls, program = tmp_path / "calls", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "gs $*" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    return calls


def test_postscript_under_another_name_starts_no_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ghostscript(tmp_path, monkeypatch)
    write_folder(tmp_path, {"train": 2})
    (tmp_path / "train" / "cat" / "0.png").write_bytes(EPS)
    write_parquet(tmp_path / "train.parquet", [EPS, png(noise(1)[0])], [0, 1])
    folder = ImageFolder("pets", tmp_path, channels=3, size=8)
    parquet = Parquet("pets", {"train": [tmp_path / "train.parquet"]}, channels=3, size=8)
    for source, what in ((folder, "train/cat/0.png"), (parquet, "train.parquet, row 0")):
        with pytest.raises(DatasetError, match=f"{what}: not a readable image: its content is none of PNG, JPEG"):
            _ = source.info
    assert not calls.exists()


def test_pillow_left_to_itself_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ghostscript(tmp_path, monkeypatch)
    with pytest.raises(OSError, match=r"."):  # this one draws nothing
        Image.open(io.BytesIO(EPS)).load()
    assert "-dSAFER" in calls.read_text()


@pytest.mark.parametrize("kind", OTHERS)
def test_no_other_parser_is_reached(kind: str) -> None:
    data = encoded(Image.fromarray(noise(1, height=16, width=16)[0]), kind)
    assert Image.open(io.BytesIO(data)).format == kind
    with pytest.raises(DatasetError, match=r"^x.png: not a readable image: its content is none of"):
        decode(data, channels=3, size=None, what="x.png")


@pytest.mark.parametrize("kind", [*READ, "MPO"])
def test_every_format_is_read_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    """MPO: a JPEG with more pictures behind it, as phones write it."""
    data = encoded(Image.fromarray(noise(1, height=16, width=16)[0]), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    place = tmp_path / "train" / "cat"
    place.mkdir(parents=True)
    for suffix in FORMATS:
        (place / f"0{suffix}").write_bytes(data)
    images_NHWC = ImageFolder("pets", tmp_path, channels=3, size=None).read()["train"].images_NHWC
    assert len(images_NHWC) == len(FORMATS)
    assert (images_NHWC == expected).all()


def test_a_small_file_of_very_many_pixels_is_refused_with_its_size() -> None:
    for side in (13_000, 20_000):
        buffer = io.BytesIO()
        Image.new("1", (side, side)).save(buffer, format="PNG")
        assert len(buffer.getvalue()) < 100_000
        filters = [*warnings.filters]
        with pytest.raises(DatasetError, match=rf"^x.png: too large: .*\({side**2} pixels\).*: resize it first$"):
            decode(buffer.getvalue(), channels=3, size=8, what="x.png")
        assert [*warnings.filters] == filters
    assert Image.MAX_IMAGE_PIXELS == 2**30 // 12


def test_a_large_picture_is_read_as_long_as_it_is_no_bomb() -> None:
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000), 1).save(buffer, format="PNG")
    assert (decode(buffer.getvalue(), channels=1, size=8, what="x.png") == 255).all()


def test_only_the_warning_on_palettes_is_silenced() -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(1)[0]).convert("P").save(buffer, format="PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(buffer.getvalue(), channels=1, size=None, what="x.png")
        with pytest.raises(UserWarning, match="Palette images"):
            Image.open(buffer).convert("L")
