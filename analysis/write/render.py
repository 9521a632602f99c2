"""Documents as markdown, HTML or LaTeX; frames as CSV, JSON or parquet."""

from __future__ import annotations

import html
import io
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence

import polars as pl

from analysis.document import Document, Heading, Items, Note, Part, Table
from grid.contract.markdown import escape_markdown
from grid.contract.text import harmless_json, in_encoding, on_one_line

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "▽": r"$\triangledown$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "—": "---",
}


def escape_html(text: str) -> str:
    return html.escape(on_one_line(text))


def escape_latex(text: str) -> str:
    """For pdfLaTeX with T1 fonts and amssymb; other letters than Latin ones need XeLaTeX or LuaLaTeX."""
    return "".join(LATEX.get(character, character) for character in on_one_line(text))


def markdown(document: Document, *, encoding: str = "utf-8") -> str:
    """In characters that the encoding has, before the columns of tables are aligned."""

    def written(text: str) -> str:
        return in_encoding(escape_markdown(text), encoding)

    return "\n\n".join([f"### {written(document.title)}", *(_markdown_part(p, written) for p in document.parts)]) + "\n"


def _markdown_part(part: Part, written: Callable[[str], str]) -> str:
    if isinstance(part, Heading):
        return f"{'#' * (part.level + 2)} {written(part.text)}"
    if isinstance(part, Note):
        lead = f"**{written(part.lead)}**: " if part.lead else ""
        return lead + written(part.text)
    if isinstance(part, Items):
        return "\n".join(f"- {written(line)}" for line in part.lines)
    table = align(
        [written(name) for name in part.header],
        [[written(cell) for cell in line] for line in part.lines],
        right=part.right,
    )
    return f"{written(part.title)}\n\n{table}" if part.title else table


def align(header: Sequence[str], lines: Sequence[Sequence[str]], *, right: Sequence[bool]) -> str:
    """A markdown table padded so that it reads well raw. Cells are markdown already."""
    rows = [header, *lines]
    widths = [max(3, *(display_width(line[i]) for line in rows)) for i in range(len(header))]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    padded = [[_pad(cell, w, right=r) for cell, w, r in zip(line, widths, right, strict=True)] for line in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


# Latin letters, arrows and the marks of gains: nearly every cell, at once.
NARROW = re.compile("[ -~\u00a0-\u00ac\u00ae-\u02ff\u2014\u2190-\u21ff\u25b2\u25bc\u25bd]*")


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if right else text + space


def display_width(text: str) -> int:
    """How many columns of a terminal it takes: letters of East Asia and emoji two, what joins the one before none."""
    if NARROW.fullmatch(text):
        return len(text)
    seen = [character for character in text if unicodedata.category(character) not in ("Mn", "Me", "Cf")]
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in seen)


FOLDED = 40  # rows of a table: more are shown when they are asked for


def html_fragment(parts: Sequence[Part], *, anchors: bool = True) -> str:
    """The parts as HTML, without the page around them. A table without a title is called as the heading above it.
    anchors: with the tables' names as ids, of which a page may have one each."""
    written, heading = [], ""
    for part in parts:
        heading = part.text if isinstance(part, Heading) else heading
        written.append(_html_part(part, heading, anchors=anchors))
    return "\n".join(written)


def html_notebook(document: Document) -> str:
    """For a page of somebody else's, which it does not style: its rules hold within it alone."""
    title = f"<h3>{escape_html(document.title)}</h3>\n" if document.title else ""
    body = html_fragment(document.parts, anchors=False)
    return f'<div class="kd-grid">\n<style>{NOTEBOOK_STYLE}</style>\n{title}{body}\n</div>\n'


def html_page(document: Document, *, style: str = "") -> str:
    title = escape_html(document.title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{style or PLAIN_STYLE}</style>\n'
        f"</head>\n<body>\n<h1>{title}</h1>\n{html_fragment(document.parts)}\n</body>\n</html>\n"
    )


PLAIN_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
div.table { overflow-x: auto; } table { border-collapse: collapse; } caption { text-align: left; padding: .4rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: left; white-space: nowrap; }
th.right, td.right { text-align: right; font-variant-numeric: tabular-nums; }
"""


# Colours and fonts are the page's own; notebooks align cells to the right.
NOTEBOOK_STYLE = """
.kd-grid div.table { overflow-x: auto; } .kd-grid table { border-collapse: collapse; }
.kd-grid caption { text-align: left; padding: .4rem 0; }
.kd-grid th, .kd-grid td { padding: .3rem .7rem; text-align: left; white-space: nowrap; }
.kd-grid th.right, .kd-grid td.right { text-align: right; font-variant-numeric: tabular-nums; }
"""


def _html_part(part: Part, heading: str, *, anchors: bool) -> str:
    if isinstance(part, Heading):
        level = min(part.level, 6)
        return f"<h{level}>{escape_html(part.text)}</h{level}>"
    if isinstance(part, Note):
        lead = f"<strong>{escape_html(part.lead)}</strong>: " if part.lead else ""
        return f"<p>{lead}{escape_html(part.text)}</p>"
    if isinstance(part, Items):
        return "<ul>" + "".join(f"<li>{escape_html(line)}</li>" for line in part.lines) + "</ul>"
    classes = [' class="right"' if right else "" for right in part.right]
    head = "".join(f'<th scope="col"{c}>{escape_html(name)}</th>' for name, c in zip(part.header, classes, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{c}>{escape_html(cell)}</td>" for cell, c in zip(line, classes, strict=True)) + "</tr>"
        for line in part.lines
    )
    caption = f"<caption>{escape_html(part.title)}</caption>" if part.title else ""
    called = "" if part.title else f' aria-label="{escape_html(heading or part.name)}"'
    anchor = f' id="{escape_html(part.name)}"' if anchors else ""
    table = (
        f'<div class="table"><table{anchor}{called}>{caption}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
    if len(part.lines) <= FOLDED:
        return table
    summary = f"{part.title or heading or part.name} ({len(part.lines)} rows)"
    return f'<details class="long"><summary>{escape_html(summary)}</summary>\n{table}\n</details>'


def latex(document: Document) -> str:
    """Each table as a table float in booktabs' style, with the notes that follow it; to be \\input into a paper."""
    needs = r"% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs,amssymb,textcomp}"
    written, heading, rest = [f"% {on_one_line(document.title)}\n{needs}"], "", deque(document.parts)
    while rest:
        part = rest.popleft()
        if not isinstance(part, Table):
            heading = part.text if isinstance(part, Heading) else heading
            written.append(_latex_part(part))
            continue
        notes = []
        while rest and isinstance(note := rest[0], Note):
            notes.append(_latex_part(note))
            rest.popleft()
        caption = part.title.removesuffix(":") or heading or part.name.capitalize()
        label = re.sub(r"[^A-Za-z0-9.]+", "-", f"{document.title}-{part.name}").strip("-")
        about = f"\\caption{{{escape_latex(caption)}}}\n\\label{{tab:{label}}}"
        written.append(f"\\begin{{table}}\n\\centering\n{about}\n{_tabular(part)}\n{_below(notes)}\\end{{table}}")
    return "\n\n".join(written) + "\n"


def _latex_part(part: Heading | Note | Items) -> str:
    if isinstance(part, Heading):
        return rf"\paragraph{{{escape_latex(part.text)}}}"
    if isinstance(part, Note):
        lead = rf"\textbf{{{escape_latex(part.lead)}}}: " if part.lead else ""
        return lead + escape_latex(part.text)
    lines = "\n".join(rf"  \item {_no_argument(escape_latex(line))}" for line in part.lines)
    return f"\\begin{{itemize}}\n{lines}\n\\end{{itemize}}"


def _tabular(table: Table) -> str:
    columns = "".join("r" if right else "l" for right in table.right)
    rows = [[*map(escape_latex, table.header)]]
    rows += [
        [_figure(c) if r else escape_latex(c) for c, r in zip(line, table.right, strict=True)] for line in table.lines
    ]
    header, *lines = [_no_argument(" & ".join(cells)) + r" \\" for cells in rows]
    body = "\n".join(lines)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}"


def _below(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    text = "\n\n".join(notes)
    return f"\\par\\medskip\n\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{text}\n\\end{{minipage}}\n"


def _figure(cell: str) -> str:
    """Figures have minus signs where text has hyphens."""
    return re.sub(r"(?<![^\s\[(/])-(?=\d)", "$-$", escape_latex(cell))


def _no_argument(written: str) -> str:
    """What follows a rule, the end of a row or an \\item, which would take a bracket or a star for themselves."""
    return f"{{}}{written}" if written.startswith(("[", "*")) else written


DOCUMENTS: dict[str, Callable[[Document], str]] = {"md": markdown, "html": html_page, "latex": latex}


def as_document(frame: pl.DataFrame, name: str) -> Document:
    """A frame as a document of one table, every value as it is."""
    lines = [["" if value is None else f"{value}" for value in row] for row in frame.iter_rows()]
    right = [kind.is_numeric() for kind in frame.schema.values()]
    return Document(name, [Table(name, frame, frame.columns, lines, right)])


# How a formula starts for a spreadsheet, as OWASP lists it under CSV injection; the last four are full-width.
FORMULA = r"^([=+\-@\t\r\n\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"


def _plain_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """Text, the header's too, that no spreadsheet calculates: what it would begins with a quote. Numbers are left."""
    cells = frame.with_columns(pl.col(pl.String).str.replace(FORMULA, "'${1}"))
    cells.columns = pl.Series(frame.columns, dtype=pl.String).str.replace(FORMULA, "'${1}").to_list()
    return cells


def data(frame: pl.DataFrame, how: str) -> bytes:
    """A frame as csv, json (a list of rows) or parquet."""
    buffer = io.BytesIO()
    if how == "csv":
        _plain_cells(frame).write_csv(buffer)
    elif how == "json":
        buffer.write(f"{harmless_json(frame.write_json())}\n".encode())
    else:
        frame.write_parquet(buffer)
    return buffer.getvalue()
