"""One self-contained page: the conclusion, the tables, the pictures, the plan, provenance, and every record."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import polars as pl

from analysis.document import Document, Heading, Note, Part
from analysis.plots import DARK, LIGHT, Picture, pictures
from analysis.read.grids import Grid
from analysis.read.load import LABELS
from analysis.read.predictions import outcomes
from analysis.shown import title
from analysis.tables.classes import classes_parts
from analysis.tables.compare import comparison
from analysis.tables.conclusion import conclude
from analysis.tables.grid_tables import tables
from analysis.write.html import escape_html, html_fragment
from grid.contract.parsing import parse_json
from grid.contract.program.installed import grid_command
from grid.contract.text import harmless_json

PROVENANCE = {
    "code_version": "Code",
    "versions": "Versions",
    "device": "Device",
    "threads": "Threads",
    "workers": "Workers",
    "precision": "Precision",
    "deterministic": "Deterministic",
    "dataset_fingerprint": "Data set",
    "launch": "Launch",
}


class Page(str):
    """A whole page as HTML, with styles for all of it. In a notebook it is shown in a frame of its own, which leaves
    the notebook's styles alone (`IPython.display.HTML(page)` would not)."""

    def _repr_html_(self) -> str:
        # A frame's links lead into the page around it unless they are told where they are.
        page = self.replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
        style = "width: 100%; height: 80vh; border: 1px solid #8884;"
        return f'<iframe srcdoc="{html.escape(page)}" style="{style}" title="Report" sandbox="allow-scripts"></iframe>'

    def __repr__(self) -> str:
        return f"<a page of {len(self):,} characters: write it to a file to open it in a browser>"


def report(grid: Grid) -> Page:
    """The page as HTML; it needs no network and no other file."""
    sections = [_tables(tables(grid)), _classes(grid), _pictures(pictures(grid))]
    if (grid.spec.get("published") or {}).get("models") is not None:
        sections.insert(1, Section("published", "Beside the study", html_fragment(comparison(grid).parts)))
    sections = [section for section in [*sections, _plan(grid), _provenance(grid), _records(grid)] if section.body]
    files = resources.files("analysis") / "page"
    style, script = ((files / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    name = escape_html(grid.name)
    description = escape_html(str(grid.spec.get("description") or ""))
    return Page(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{name}</h1><p>{description}</p></header>\n<main>\n"
        + "\n".join([_conclusion(grid), _contents(sections), *map(Section.html, sections)])
        + f"\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


@dataclass(frozen=True)
class Section:
    name: str
    heading: str
    body: str

    def html(self) -> str:
        return f'<section id="{self.name}">\n<h2>{escape_html(self.heading)}</h2>\n{self.body}\n</section>'


def _contents(sections: list[Section]) -> str:
    links = "".join(f'<li><a href="#{part.name}">{escape_html(part.heading)}</a></li>' for part in sections)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _conclusion(grid: Grid) -> str:
    said = conclude(grid)
    questions = (
        ("Which student to deploy", said.deploy),
        ("What distillation gave", said.distillation),
        ("How sure that is", said.certainty),
    )
    body = "\n".join(f"<div><dt>{escape_html(what)}</dt><dd>{escape_html(text)}</dd></div>" for what, text in questions)
    return f'<section id="conclusion">\n<dl>\n{body}\n</dl>\n</section>'


def _tables(document: Document) -> Section:
    return Section("tables", "Results", html_fragment([_deeper(part) for part in document.parts]))


def _classes(grid: Grid) -> Section:
    """Nothing where nothing keeps predictions."""
    known = len(grid.problems)
    images = outcomes(grid)
    parts: list[Part] = [Note(problem, lead="Unreadable") for problem in grid.problems[known:]]
    parts += [] if images.is_empty() else classes_parts(grid, images)
    return Section("class-accuracy", "Classes", html_fragment([_deeper(part) for part in parts]))


def _deeper(part: Any) -> Any:
    return Heading(part.text, part.level + 1) if isinstance(part, Heading) else part


def _pictures(found: list[Picture]) -> Section:
    figures = []
    for picture in found:
        light, dark = (_data_url(picture.to_bytes(picture.figure(theme), theme, "svg")) for theme in (LIGHT, DARK))
        caption = escape_html(picture.caption)
        figures.append(
            f'<figure id="picture-{escape_html(picture.name)}">\n<div class="picture"><picture>'
            f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{escape_html(picture.title)}"></picture></div>\n'
            f"<figcaption><strong>{escape_html(picture.title)}.</strong> {caption}</figcaption>\n</figure>"
        )
    return Section("pictures", "Pictures", "\n".join(figures))


def _data_url(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _plan(grid: Grid) -> Section:
    spec = html.escape(harmless_json(json.dumps(grid.spec, indent=2, ensure_ascii=False)))
    counts = grid.stages.group_by("kind", "status", maintain_order=True).len()
    lines = "".join(f"<li>{escape_html(f'{n} {kind}: {status}')}</li>" for kind, status, n in counts.iter_rows())
    how = (
        "<p>To compute it again, save the plan below as grid.yaml (JSON is YAML) and run:</p>\n"
        f"<pre>{escape_html(grid_command())} --grid grid.yaml</pre>\n"
        "<p>What is stored already is not computed twice; on the CPU, at the same number of threads, the results are "
        "the same to the bit.</p>"
    )
    return Section(
        "plan",
        "Plan and how to reproduce it",
        f"<ul>{lines}</ul>\n{how}\n<details><summary>The plan</summary><pre>{spec}</pre></details>",
    )


def _provenance(grid: Grid) -> Section:
    """What the stages ran on: each fact with how many of them state it."""
    rows = []
    done = grid.cells.filter(pl.col("status") == "done")
    for name, words in PROVENANCE.items():
        counts = done[name].drop_nulls().value_counts(sort=True)
        stated = [
            f"{_plain(value)} ({count})" if counts.height > 1 else _plain(value) for value, count in counts.iter_rows()
        ]
        if stated:
            rows.append(f'<tr><th scope="row">{escape_html(words)}</th><td>{escape_html("; ".join(stated))}</td></tr>')
    body = "\n".join(rows)
    return Section("provenance", "Provenance", f'<div class="table"><table class="plain">\n{body}\n</table></div>')


def _plain(value: object) -> str:
    """A JSON object, as versions are recorded, in words."""
    try:
        said = parse_json(value) if isinstance(value, str) else None
    except ValueError:
        said = None
    return ", ".join(f"{name} {of}" for name, of in said.items()) if isinstance(said, dict) else f"{value}"


def _records(grid: Grid) -> Section:
    """Every teacher and cell with its whole record, which the list of them links to."""
    links, records = [], []
    for row in grid.cells.unique("stage_id", keep="first", maintain_order=True).iter_rows(named=True):
        anchor = f"record-{escape_html(row['stage_id'])}"
        name = escape_html(title(row))
        top1 = row["test_top1_last"]
        shown = escape_html(row["status"] if top1 is None else f"{100 * top1:.2f} %")
        links.append(f'<li><a href="#{anchor}">{name}</a> <span>{shown}</span></li>')
        facts = {
            key: value for key, value in row.items() if value is not None and (key not in LABELS or key == "stage_id")
        }
        text = html.escape(harmless_json(json.dumps(facts, indent=1, ensure_ascii=False)))
        records.append(f'<details id="{anchor}"><summary>{name}</summary><pre>{text}</pre></details>')
    body = f'<ol class="links">{"".join(links)}</ol>\n' + "\n".join(records)
    return Section("records", "Records", body)
