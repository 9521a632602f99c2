"""Documents in every format: names come out as they are, and nothing of theirs is markup."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analysis.document import Document, Heading, Items, Note, Table
from analysis.write.html import html_page
from analysis.write.latex import LATEX, latex
from analysis.write.markdown import markdown
from analysis.write.render import as_document, data
from grid.contract.text import on_one_line

FRAME = pl.DataFrame({"name": ["a|b", "<i>"], "gain": [1.5, None]})


def document(name: str = "a|b") -> Document:
    table = Table("gains", FRAME, ["Name", "Gain"], [[name, "+1.50"], ["<i>", "—"]], [False, True], title=f"Of {name}:")
    return Document(name, [table, Note(f"of {name}", lead="Unfinished"), Items([name, "two"]), Heading(f"On {name}")])


def test_markdown() -> None:
    assert markdown(document("a_b")) == (
        "### a_b\n\nOf a_b:\n\n"
        "| Name  |  Gain |\n| ----- | ----: |\n| a_b   | +1.50 |\n| \\<i\\> |     — |\n\n"
        "**Unfinished**: of a_b\n\n- a_b\n- two\n\n#### On a_b\n"
    )


def test_latex() -> None:
    text = latex(document("a_b & 5 %"))
    needs = "% Needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs,amssymb,textcomp}"
    assert text.startswith(f"% a_b & 5 %\n{needs}\n\n\\begin{{table}}")
    caption = "\\caption{Of a\\_b \\& 5 \\%}\n\\label{tab:a-b-5-gains}\n"
    assert f"{caption}\\begin{{tabular}}{{lr}}\n" in text
    assert "\\begin{tabular}{lr}\n\\toprule\nName & Gain \\\\\n\\midrule\n" in text
    assert "a\\_b \\& 5 \\% & +1.50 \\\\\n\\textless{}i\\textgreater{} & --- \\\\\n\\bottomrule" in text
    assert "\\textbf{Unfinished}: of a\\_b \\& 5 \\%" in text
    assert "  \\item two\n\\end{itemize}" in text


def test_latex_takes_no_cell_for_an_argument() -> None:
    names = ["[0.2em]", "*", "a [b]"]
    table = Table("t", FRAME, names[:2], [[name, ""] for name in names], [False, False])
    text = latex(Document("t", [table, Items(names)]))
    assert "\\toprule\n{}[0.2em] & * \\\\\n\\midrule\n{}[0.2em] & " in text
    assert "\n{}* &  \\\\\na [b] &" in text
    assert "\\item {}[0.2em]\n  \\item {}*\n  \\item a [b]\n" in text


def test_latex_has_minus_signs_in_figures_and_hyphens_in_names() -> None:
    lines = [["-1-2", "-1.27 [-7.94, +5.41]"], ["ViT-T -2", "1e-05"]]
    text = latex(Document("t", [Table("t", FRAME, ["Name", "-1"], lines, [False, True]), Note("on -1")]))
    assert "-1-2 & $-$1.27 [$-$7.94, +5.41] \\\\\nViT-T -2 & 1e-05 \\\\\n" in text
    assert "Name & -1 \\\\" in text
    assert "\non -1\n" in text


def test_a_latex_table_is_called_as_its_heading_and_holds_its_notes() -> None:
    first, second = (Table(name, FRAME, ["a"], [["b"]], [False]) for name in ("gains", "settings-1"))
    parts = [first, Note("one"), Note("two", lead="But"), Heading("On models"), second, Items(["c"]), Note("three")]
    text = latex(Document("cifar_10", parts))
    assert re.findall(r"\\caption\{(.*)\}\n\\label\{(.*)\}", text) == [
        ("Gains", "tab:cifar-10-gains"),
        ("On models", "tab:cifar-10-settings-1"),
    ]
    floats = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    notes = "\\begin{minipage}{\\linewidth}\\footnotesize\none\n\n\\textbf{But}: two\n\\end{minipage}\n"
    assert [notes in each for each in floats] == [True, False]
    assert text.endswith("\\end{itemize}\n\nthree\n")


def test_data_has_types_and_no_escapes() -> None:
    assert data(FRAME, "csv") == b"name,gain\na|b,1.5\n<i>,\n"
    assert json.loads(data(FRAME, "json")) == [{"name": "a|b", "gain": 1.5}, {"name": "<i>", "gain": None}]
    assert pl.read_parquet(io.BytesIO(data(FRAME, "parquet"))).equals(FRAME)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", '=HYPERLINK("http://x")', "-"]
ORDINARY = ["ResNet-S", "a = b", "'=1", " ", "", "é@x", '{"depth": -2}', "a,b", "a\n=1", None]


def test_no_text_in_a_csv_is_a_formula() -> None:
    frame = pl.DataFrame({"=name": FORMULAS, "gain": [-1.5] * len(FORMULAS), "n": [-1] * len(FORMULAS)})
    header, *rows = csv.reader(io.StringIO(data(frame, "csv").decode(), newline=""))
    assert header == ["'=name", "gain", "n"]
    assert rows == [[f"'{text}", "-1.5", "-1"] for text in FORMULAS]
    assert frame.columns == ["=name", "gain", "n"], "the frame itself is left as it is"
    assert pl.read_parquet(io.BytesIO(data(frame, "parquet"))).equals(frame)
    assert [row["=name"] for row in json.loads(data(frame, "json"))] == FORMULAS


def test_other_text_goes_through_a_csv_as_it_is() -> None:
    frame = pl.DataFrame({"name": ORDINARY})
    assert pl.read_csv(io.BytesIO(data(frame, "csv")), infer_schema=False).equals(frame)


def test_a_frame_is_a_document_of_one_table() -> None:
    assert markdown(as_document(FRAME, "records")) == (
        "### records\n\n| name  | gain |\n| ----- | ---: |\n| a\\|b  |  1.5 |\n| \\<i\\> |      |\n"
    )


def test_one_table_can_be_had_alone_and_the_opening_ends_at_a_heading() -> None:
    whole = Document("t", [Note("first"), Heading("Models"), *document().parts])
    assert [type(part) for part in whole.only("gains").parts] == [Table]
    assert whole.opening() == Document("t", [Note("first")])


class Seen(HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


NASTY = "<script>alert(1)</script> & \"quotes\" 'single' a_b |pipe| $x$ {brace} \\back # ~ ^ %"


def test_nothing_in_a_name_is_html() -> None:
    page = html_page(document(NASTY))
    seen = Seen(page)
    assert "script" not in seen.tags
    assert seen.texts.count(NASTY) == 4  # title, heading, cell and list
    assert seen.tags.count("td") == 4
    assert page.count('class="right"') == 3


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)


@settings(max_examples=60)
@given(name=NAMES)
@example(name=NASTY)
@example(name="[a](b) ![c](d) **e** `f` <http://g.h> | \\| \\")
@example(name="[a] *b")
@example(name="-")
@example(name="- - -")
@example(name="+ a")
@example(name="1. a")
@example(name="12)")
@example(name="_a_ __b__ c_d ~~e~~ &amp; &#35; # x")
def test_every_format_shows_a_name_as_it_is(name: str) -> None:
    shown = on_one_line(name)
    whole = document(name)
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(whole))
    inline = [token for token in tokens if token.type == "inline"]
    texts = ["".join(child.content for child in token.children or []) for token in inline]
    kinds = {child.type for token in inline for child in token.children or []}
    assert kinds <= {"text", "strong_open", "strong_close"}
    assert texts.count(shown) == 3 if shown else True  # title, cell and list
    assert "".join(Seen(html_page(whole)).texts).count(shown) >= 6
    line = next(line for line in latex(whole).splitlines() if line.endswith(r"& +1.50 \\"))
    assert _plain(line.removeprefix("{}").removesuffix(r" & +1.50 \\")) == shown
    written = data(pl.DataFrame({"name": [name]}), "json")
    assert json.loads(written) == [{"name": name}]
    if shown == name:
        assert written == (json.dumps([{"name": name}], ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _plain(line: str) -> str:
    """What LaTeX would print."""
    back = {written: plain for plain, written in LATEX.items()}
    pattern = "|".join(re.escape(written) for written in sorted(back, key=len, reverse=True))
    return re.sub(pattern, lambda match: back[match[0]], line)


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("snake_case", "snake_case"),
        ("+1.0 [-2, +3] ▲", "+1.0 [-2, +3] ▲"),
        ("a # b", "a # b"),
        ("R & D", "R & D"),
        ("-1.5 and 2.5", "-1.5 and 2.5"),
    ],
)
def test_what_means_nothing_is_not_escaped(text: str, raw: str) -> None:
    assert markdown(Document("t", [Note(text)])) == f"### t\n\n{raw}\n"


def test_dollars_begin_no_formula() -> None:
    assert markdown(Document("t", [Note("$x$ for $5")])) == "### t\n\n\\$x\\$ for \\$5\n"


def test_columns_are_as_wide_as_what_is_seen_of_them() -> None:
    names = ["蒸馏", "e\u0301te\u0301", "a👍", "abcd"]
    lines = markdown(as_document(pl.DataFrame({"x": names, "n": [1, 2, 3, 4]}), "t")).splitlines()[2:]
    assert lines == [
        "| x    |   n |",
        "| ---- | --: |",
        "| 蒸馏 |   1 |",
        "| e\u0301te\u0301  |   2 |",
        "| a👍  |   3 |",
        "| abcd |   4 |",
    ]
