"""What is hidden in a text is found in names and spelled out where it is shown; the words of all scripts stay."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest

from grid.contract.text import (
    IN_ASCII,
    JOINERS,
    harmless,
    harmless_json,
    hidden_character,
    in_encoding,
    is_hidden,
    on_one_line,
    shown_on,
)

HIDDEN = {
    "\x1b[31mred": ("U+001B", "\\x1b[31mred"),
    "a\x07b": ("U+0007", "a\\x07b"),
    "a\rb": ("U+000D", "a\\rb"),
    "a\0b": ("U+0000", "a\\x00b"),
    "a\x7fb": ("U+007F", "a\\x7fb"),
    "a\x9b2Jb": ("U+009B", "a\\x9b2Jb"),
    "a\u202eb": ("U+202E", "a\\u202eb"),
    "a\u2066b": ("U+2066", "a\\u2066b"),
    "a\u200bb": ("U+200B", "a\\u200bb"),
    "a\u2028b": ("U+2028", "a\\u2028b"),
    "a\ufeffb": ("U+FEFF", "a\\ufeffb"),
    "a\ud800b": ("U+D800", "a\\ud800b"),
    "a\ue000b": ("U+E000", "a\\ue000b"),
    "a\uffffb": ("U+FFFF", "a\\uffffb"),
    "a\U0001fffeb": ("U+1FFFE", "a\\U0001fffeb"),
    "a\U000e0041b": ("U+E0041", "a\\U000e0041b"),
}


@pytest.mark.parametrize("text", HIDDEN, ids=ascii)
def test_what_is_hidden_is_named_and_spelled_out(text: str) -> None:
    code, shown = HIDDEN[text]
    assert hidden_character(text) == code
    assert harmless(text) == shown
    assert not any(map(is_hidden, shown))


@pytest.mark.parametrize(
    "text",
    [
        *("ResNet-S", "größe ±", "学生模型", "نموذج", "mo\u0308del", "a b", r"a\x1b"),
        "می\u200cخواهم",  # Persian, with its non-joiner
        "\U0001f469\u200d\U0001f52c",  # a woman, joined to a microscope
        "\U00018cd6",  # a Khitan letter that Python 3.11 does not know yet
    ],
)
def test_words_of_all_scripts_are_left_alone(text: str) -> None:
    assert hidden_character(text) is None
    assert harmless(text) == text


def test_every_character_that_is_no_letter_or_sign_is_hidden_but_the_joiners() -> None:
    everything = [*map(chr, range(sys.maxunicode + 1))]
    acting = {c for c in everything if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} - {*JOINERS}
    noncharacters = {c for c in everything if is_hidden(c)} - acting
    assert acting <= {c for c in everything if is_hidden(c)}
    assert len(noncharacters) == 66  # as many as Unicode has
    assert {unicodedata.category(c) for c in noncharacters} == {"Cn"}


def test_line_breaks_and_tabs_are_kept_where_a_text_is_shown_and_refused_in_a_name() -> None:
    assert harmless("a\n\tb") == "a\n\tb"
    assert [hidden_character(text) for text in ("a\nb", "a\tb")] == ["U+000A", "U+0009"]
    assert on_one_line(" a\r\n\tb \x1b[1m") == "a b \\x1b[1m"


@pytest.mark.parametrize("text", HIDDEN, ids=ascii)
def test_json_says_the_same_afterwards(text: str) -> None:
    written = json.dumps({"error": text}, ensure_ascii=False)
    shown = harmless_json(written)
    assert json.loads(shown) == {"error": text}
    assert not any(map(is_hidden, shown))


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "▲ ▼ ▽ → ± — Élève 学 \U0001f52c"),
        ("latin-1", r"(+) (-) (v) -> ± -- Élève \u5b66 \U0001f52c"),
        ("ascii", r"(+) (-) (v) -> +- -- \xc9l\xe8ve \u5b66 \U0001f52c"),
        ("gb2312", r"▲ (-) (v) → ± -- \xc9lève 学 \U0001f52c"),
    ],
)
def test_what_an_encoding_does_not_have_is_spelled_out(encoding: str, shown: str) -> None:
    text = "▲ ▼ ▽ → ± — Élève 学 \U0001f52c"
    assert in_encoding(text, encoding) == shown
    assert shown.encode(encoding).decode(encoding) == shown


def test_signs_stay_different_in_ascii() -> None:
    assert "".join(IN_ASCII.values()).isascii()
    assert len(set(IN_ASCII.values())) == len(IN_ASCII)


def test_what_a_stream_is_given_is_harmless_and_in_its_encoding() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert shown_on(ascii_only, "é\x1b[2J\udcfc ▲") == r"\xe9\x1b[2J\udcfc (+)"
    assert shown_on(io.StringIO(), "é\x1b[2J\udcfc ▲") == r"é\x1b[2J\udcfc ▲"
