"""Pictures that Pillow reads as all white or all black, or that lie on their side: what becomes of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from kd.data.reading.decode import ORIENTATION, TURNS, Look, decode, look
from kd.data.reading.folder import ImageFolder
from kd.data.reading.parquet import Parquet
from kd.data.sources import DatasetError
from tests.images import noise, png, write_folder, write_parquet

RAMP = np.array([[0, 255, 256], [4095, 32_768, 65_535]], dtype=np.uint16)


def encoded(picture: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **how)
    return buffer.getvalue()


def pgm(values_HW: np.ndarray, white: int) -> bytes:
    height, width = values_HW.shape
    return f"P5 # a comment\n{width} {height}\n{white}\n".encode() + values_HW.astype(">u2").tobytes()


def gray(data: bytes, **how: Any) -> list[list[int]]:
    return decode(data, channels=1, size=None, what="x", **how)[..., 0].tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_8_are_read(kind: str, channels: int) -> None:
    data = pgm(RAMP, 65_535) if kind == "PGM" else encoded(Image.fromarray(RAMP), kind)
    expected = (RAMP >> 8).astype(np.uint8)
    assert expected.tolist() == [[0, 0, 1], [15, 128, 255]]
    image_HWC = decode(data, channels=channels, size=None, what="x")
    assert (image_HWC == expected[..., None]).all()
    assert look(data) == Look(deep=True)


def test_a_white_of_the_users_is_255_and_more_is_cut_off() -> None:
    assert gray(encoded(Image.fromarray(RAMP), "PNG"), white=4095) == [[0, 16, 16], [255, 255, 255]]
    assert gray(encoded(Image.fromarray(RAMP), "PNG"), white=255) == [[0, 255, 255], [255, 255, 255]]


def test_a_file_that_says_what_is_white_is_read_by_it() -> None:
    values = np.array([[0, 16, 2048, 4095]], dtype=np.uint16)
    assert gray(pgm(values, 4095)) == [[0, 1, 128, 255]]
    assert gray(pgm(values, 4095), white=2048) == [[0, 2, 255, 255]], "as the file has them, not as Pillow spreads them"
    inverted = encoded(Image.fromarray(65_535 - RAMP), "TIFF", tiffinfo={262: 0})
    assert gray(inverted) == (RAMP >> 8).tolist()


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_values_of_unknown_range_are_refused(dtype: str) -> None:
    data = encoded(Image.fromarray(np.arange(6).reshape(2, 3).astype(dtype)), "TIFF")
    with pytest.raises(
        DatasetError, match=r"^x: its pixels are .*, and nothing tells which is white: convert to 8 bit"
    ):
        gray(data)


def test_pictures_of_8_bits_are_read_as_before() -> None:
    image = noise(1, height=5, width=7)[0]
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        picture = Image.fromarray(image).convert(mode)
        for kind in ("PNG", "TIFF", "BMP", "GIF", "WEBP"):
            if (mode, kind) in (("RGBA", "BMP"), ("LA", "BMP"), ("LA", "WEBP"), ("1", "WEBP")):
                continue
            data = encoded(picture, kind)
            assert look(data) == Look(), (mode, kind)
            assert gray(data) == np.asarray(Image.open(io.BytesIO(data)).convert("L")).tolist(), (mode, kind)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_as_pillows_own_function_turns_it(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(noise(1, height=8, width=16)[0]), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (decode(data, channels=3, size=None, what="x") == np.asarray(upright.convert("RGB"))).all()
    # Pillow has always turned a TIFF by itself.
    assert look(data).turned == (orientation != 1 and kind != "TIFF")
    assert upright.size == ((8, 16) if orientation > 4 else (16, 8))


def test_xmp_may_say_how_a_picture_lies() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(Image.fromarray(noise(1, height=8, width=16)[0]), "JPEG", xmp=xmp)
    assert look(data).turned
    assert decode(data, channels=3, size=None, what="x").shape == (16, 8, 3)


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    data = encoded(Image.fromarray(noise(1, height=8, width=16)[0]), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert look(data) == Look()
    assert decode(data, channels=3, size=None, what="x").shape == (8, 16, 3)
    assert set(TURNS) == set(range(2, 9))


def deep_folder(place: Path, *, scale: int) -> ImageFolder:
    write_folder(place, {"train": 2, "test": 1})
    for path in place.rglob("*.png"):
        values = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * scale
        path.write_bytes(png(values))
    return ImageFolder("deep", place, channels=1, size=None)


def test_a_set_of_16_bits_says_how_many_it_uses(tmp_path: Path) -> None:
    source = deep_folder(tmp_path, scale=16)
    (note,) = source.info.notes
    assert note.startswith("6 of 6 pictures of 16 bits, largest value 3")
    assert ": 12 of 16 bits used (dataset.white: 4095 " in note
    dark, bright = source.read()["train"], ImageFolder("deep", tmp_path, channels=1, size=None, white=4095)
    assert dark.images_NHWC.max() == 15
    found, upper = bright.read()["train"].images_NHWC.astype(int), dark.images_NHWC.astype(int)
    assert abs(found - 17 * upper).max() <= 17, "the same pictures, with four bits more"
    assert len(np.unique(found)) > 16
    assert len({source.info.source, bright.info.source}) == 2
    assert source.info.source.endswith(' [1, None] {"reader": 2}')
    assert bright.info.source.endswith(' [1, None] {"reader": 2, "white": 4095}')


def test_training_pictures_that_show_nothing_are_refused(tmp_path: Path) -> None:
    source = deep_folder(tmp_path, scale=1)  # 8 bits in 16: their upper half is empty
    line = (
        r"data set deep: all pixels of its 4 training pictures have the value 0, .*: give dataset.white, such as 255$"
    )
    with pytest.raises(DatasetError, match=line):
        _ = source.info
    assert ImageFolder("deep", tmp_path, channels=1, size=None, white=255).read()["train"].images_NHWC.max() > 240
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(png(np.full((4, 4, 3), 255, np.uint8)))
    with pytest.raises(
        DatasetError, match=r"of its 4 training pictures have the value 255, .*: look at what the files"
    ):
        _ = ImageFolder("deep", tmp_path, channels=3, size=None).info


def test_pictures_of_no_known_range_are_named_before_anything_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 2, "test": 1})
    for name in ("train/cat/0.png", "test/dog/0.png"):
        data = encoded(Image.fromarray(np.ones((12, 12), np.float32)), "TIFF")
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=r"white in 2 pictures, .*/train/cat/0.png, .*/test/dog/0.png: convert to 8"):
        _ = ImageFolder("floats", tmp_path, channels=1, size=None).info


def test_a_white_for_nothing_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 2})
    with pytest.raises(
        DatasetError, match=r"dataset.white is for gray pictures of 16 bits, and there is none: leave it out"
    ):
        _ = ImageFolder("plain", tmp_path, channels=1, size=None, white=255).info


def colour_16() -> bytes:
    """A PNG of 16 bits a colour, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = np.array([[0x0123, 0x4567, 0x89AB], [0xCDEF, 0, 0xFFFF]], ">u2").tobytes()
    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )


def test_colours_of_16_bits_are_read_as_before_and_told(tmp_path: Path) -> None:
    assert look(colour_16()) == Look(deep_colour=True)
    assert decode(colour_16(), channels=3, size=None, what="x").tolist() == [[[1, 0x45, 0x89], [0xCD, 0, 0xFF]]]
    write_parquet(tmp_path / "train.parquet", [colour_16()] * 2, [0, 1])
    files = {"train": [tmp_path / "train.parquet"]}
    info = Parquet("colours", files, channels=3, size=None).info
    assert info.notes == ("2 pictures of 16 bits a colour: the upper 8 are read",)
    assert info.source.endswith("[null, null, 3, null]")
    with pytest.raises(DatasetError, match=r"dataset.white is for gray pictures: of 2 pictures with 16 bits a colour"):
        _ = Parquet("colours", files, channels=3, size=None, white=4095).info


@pytest.mark.parametrize("odd", ["16 bits", "turned"])
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_only_a_set_that_is_read_otherwise_has_another_source(tmp_path: Path, kind: str, odd: str) -> None:
    """One such picture among the plain ones, in the test split."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = noise(1, height=12, width=12)[0]
    turned = encoded(Image.fromarray(image), "PNG", exif=exif)
    data = png(image[..., 0].astype(np.uint16) * 257) if odd == "16 bits" else turned
    if kind == "folder":
        write_folder(tmp_path, {"train": 2, "test": 1})
        plain = ImageFolder("pets", tmp_path, channels=3, size=None).info
        (tmp_path / "test" / "dog" / "0.png").write_bytes(data)
        other = ImageFolder("pets", tmp_path, channels=3, size=None).info
    else:
        files = {split: [tmp_path / f"{split}.parquet"] for split in ("train", "test")}
        pictures = [png(one) for one in noise(2, height=12, width=12)]
        for (path,) in files.values():
            write_parquet(path, pictures, [0, 1])
        plain = Parquet("pets", files, channels=3, size=None).info
        table = pa.table({"img": pa.array([pictures[0], data]), "label": [0, 1]})
        pq.write_table(table, files["test"][0])
        other = Parquet("pets", files, channels=3, size=None).info
    assert "reader" not in plain.source
    assert other.source.endswith(' {"reader": 2}')
    assert plain.notes == ()
    assert other.notes[0].startswith("1 of 6 pictures" if kind == "folder" and odd == "16 bits" else "1 ")
