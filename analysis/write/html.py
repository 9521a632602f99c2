"""Documents as HTML: a page, a part of one, or what a notebook shows."""

from __future__ import annotations

import html
from collections.abc import Sequence

from analysis.document import Document, Heading, Items, Note, Part
from grid.contract.text import on_one_line

FOLDED = 40  # rows of a table: more are shown when they are asked for


def escape_html(text: str) -> str:
    return html.escape(on_one_line(text))


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
