"""The letters of the pictures: which fonts have them, how wide a text is, where it is broken."""

from __future__ import annotations

import re
from functools import cache

from matplotlib.font_manager import findfont, get_font_names
from matplotlib.ft2font import FT2Font

from grid.contract.text import on_one_line

FONT = "DejaVu Sans"  # comes with matplotlib
FONT_SIZE = 8.0
CHARACTER = 0.0625  # inches, of FONT_SIZE: a narrow one
MISSING = FONT_SIZE / 72 / CHARACTER  # as wide as it is high

# For what FONT lacks: what the systems bring, or their users install.
FALLBACKS = (
    *(f"Noto Sans {kind}" for kind in ("CJK SC", "CJK JP", "CJK TC", "CJK KR", "SC", "JP", "TC", "KR")),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "Arial Unicode MS"),
)


@cache
def families() -> tuple[str, ...]:
    """What to look for a letter in, in this order: matplotlib warns of each name that is not there."""
    there = set(get_font_names())
    return (FONT, *(name for name in FALLBACKS if name in there))


@cache
def _font(family: str) -> FT2Font:
    font = FT2Font(findfont(family))
    font.set_size(FONT_SIZE, 72)
    return font


def missing(text: str) -> str:
    """The letters that no font here has."""
    fonts = [_font(family) for family in families()]
    return "".join(
        letter
        for letter in dict.fromkeys(text)
        if not letter.isspace() and not any(font.get_char_index(ord(letter)) for font in fonts)
    )


@cache
def _width(letter: str) -> float:
    font = _font(FONT)
    if not font.get_char_index(ord(letter)):
        return MISSING
    return max(1.0, font.load_char(ord(letter)).linearHoriAdvance / 65536 / 72 / CHARACTER)


def width(text: str) -> float:
    """Of the longest line, in CHARACTERs; a letter counts at least one."""
    return max(sum(map(_width, line)) for line in text.split("\n"))


_LETTER = r"(?:[^ \-_./]|(?<=\d)\.(?=\d))"


def wrap(text: str, most: float) -> str:
    """Text in lines of at most so many CHARACTERs, broken after a space or one of - _ . / where there is one, but not
    within a number."""
    pieces = re.findall(rf"{_LETTER}*(?:(?!{_LETTER})[ \-_./])+|{_LETTER}+", on_one_line(text))
    lines = [""]
    for piece in pieces:
        if lines[-1] and width((lines[-1] + piece).rstrip()) > most:
            lines.append("")
        for letter in piece:
            if lines[-1] and width((lines[-1] + letter).rstrip()) > most:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.strip() for line in lines)
