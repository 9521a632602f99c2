"""Documents as LaTeX."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from analysis.document import Document, Heading, Items, Note, Table
from grid.contract.text import on_one_line

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


def escape_latex(text: str) -> str:
    """For pdfLaTeX with T1 fonts and amssymb; other letters than Latin ones need XeLaTeX or LuaLaTeX."""
    return "".join(LATEX.get(character, character) for character in on_one_line(text))


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
