"""Every command in every format on what a real launch of `digits` left, read back; and its figures computed again from
the JSON files alone."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from PIL import Image
from polars.testing import assert_frame_equal

import grid.publish.folder
from analysis.cli import main
from analysis.document import Document, Table
from analysis.plots import pictures
from analysis.read.curves import curves
from analysis.read.grids import Grid
from analysis.read.load import load_grid
from analysis.read.schema import RECORD, ROW
from analysis.tables.compare import comparison
from analysis.tables.grid_tables import tables
from analysis.tracking import summary as wandb_summary
from grid.contract.program.installed import hint
from grid.spec.published import PublishedModel, PublishedPair, PublishedStudy
from tests.analysis.reading import markdown_comparison, markdown_rows, markdown_table
from tests.analysis.test_cli import refused
from tests.analysis.tracking.test_export import read_run

Capture = pytest.CaptureFixture[str]

RECORDS = Path(__file__).parent / "digits_records"
DOCUMENTS, DATA = ("md", "html", "latex"), ("csv", "json", "parquet")
STUDY = PublishedStudy(
    study="a study",
    protocol="one run",
    models=(
        PublishedModel(model="ResNet-T", accuracy=97.5, parameters=1_200_000, size_mb=4.5, inference_ms=7.0),
        PublishedModel(model="ViT-S", mode="baseline", accuracy=80.0, parameters=26_000, size_mb=0.1),
    ),
    pairs=(PublishedPair(teacher="ResNet-T", student="ViT-S", baseline=80.0, distilled=84.0, compression=45.0),),
)


def copied(to: Path) -> Path:
    """A copy to write to."""
    shutil.copytree(RECORDS, to, ignore=shutil.ignore_patterns("README.md"))
    return to


def change_plan(storage: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = storage / "grids/digits/plan.json"
    plan = json.loads(file.read_text())
    change(plan)
    file.write_text(json.dumps(plan))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("digits") / "runs")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same beside a study's figures."""
    storage = copied(tmp_path_factory.mktemp("studied") / "runs")
    change_plan(storage, lambda plan: plan["spec"].update(published=STUDY.model_dump(mode="json")))
    return storage


def said(*arguments: str, storage: Path, to: Path | None = None) -> bytes:
    """What a command writes, to a file: what it prints is the same."""
    file = to or storage.parent / "output"
    assert main([*arguments, "digits", "--storage", str(storage), "--output", str(file)]) == 0
    return file.read_bytes()


# Reading each format back


def frame_of(data: bytes, how: str, schema: pl.Schema) -> pl.DataFrame:
    """Data as a reader gets it, who knows the columns' types."""
    if how == "parquet":
        return pl.read_parquet(io.BytesIO(data))
    if how == "csv":
        return pl.read_csv(io.BytesIO(data), schema_overrides=schema, infer_schema=False)
    return pl.DataFrame(json.loads(data), schema=schema)


@dataclass
class Page(HTMLParser):
    """A page's tables by id, the cells of each line; its text, its ids and links, and what it loads."""

    text: str
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        if tag not in ("meta", "link", "img", "source", "br"):
            self.open.append(tag)
        if "id" in about:
            self.ids.append(about["id"])
        self.links += [about["href"]] if tag == "a" else []
        self.loads += [about[name] for name in ("src", "srcset") if name in about]
        if tag == "table":
            self.tables[about.get("id", "")] = []
        elif tag == "tr":
            [*self.tables.values()][-1].append([])
        elif tag in ("td", "th"):
            [*self.tables.values()][-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            [*self.tables.values()][-1][-1][-1] += data
        elif self.open and self.open[-1] not in ("style", "script"):
            self.shown.append(data)


SIGNS = {
    r"$\blacktriangle$": "▲",
    r"$\triangledown$": "▽",
    r"$\pm$": "±",
    "$-$": "-",
    r"$\rightarrow$": "→",
    "---": "—",
}
SIGNS |= {r"\textquotedbl{}": '"', r"\textgreater{}": ">", r"\textless{}": "<", r"\textasciitilde{}": "~"}


def plain(cell: str) -> str:
    """What LaTeX sets of a cell; nothing in it means anything else to LaTeX."""
    for command, sign in SIGNS.items():
        cell = cell.replace(command, sign)
    assert not re.search(r"(?<!\\)[&%$#_{}^~]|\\[^&%$#_{}]", cell), cell
    return re.sub(r"\\(.)", r"\1", cell)


def latex_tables(text: str) -> list[list[list[str]]]:
    """The cells of each tabular's lines; what is opened is closed."""
    begun, ended = (re.findall(rf"\\{what}\{{(\w+)\}}", text) for what in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    bare = re.sub(r"\\[{}%&#$_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    found = []
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = re.findall(r"^(.*) \\\\$", body, re.MULTILINE)
        lines = [[*map(plain, re.split(r"(?<!\\) & ", row))] for row in rows]
        assert {len(line) for line in lines} == {len(columns)}
        found.append(lines)
    return found


def lines_of(table: Table) -> list[list[str]]:
    return [[*table.header], *map(list, table.lines)]


def check_document(data: bytes, how: str, found: list[Table]) -> None:
    """The document has these tables and no other, cell for cell."""
    text = data.decode()
    expected = [lines_of(table) for table in found]
    if how == "md":
        assert markdown_rows(text) == expected
    elif how == "html":
        assert Page(text).tables == {table.name: lines for table, lines in zip(found, expected, strict=True)}
    else:
        assert latex_tables(text) == expected


# Every command in every format


@dataclass(frozen=True)
class Command:
    arguments: tuple[str, ...]
    of: Callable[[Grid], list[Table]]
    study: bool = False

    def __str__(self) -> str:
        return " ".join(self.arguments)


def of_frame(name: str, frame: Callable[[Grid], pl.DataFrame]) -> Command:
    """What of a frame is shown: every value as it is."""

    def table(grid: Grid) -> list[Table]:
        whole = frame(grid)
        lines = [["" if value is None else str(value) for value in row] for row in whole.rows()]
        return [Table(name, whole, whole.columns, lines, [])]

    return Command((name,), table)


def of_document(name: str, only: str | None, document: Callable[[Grid], Document], *, study: bool = False) -> Command:
    def found(grid: Grid) -> list[Table]:
        there = document(grid).tables
        return [there[only]] if only else [*there.values()]

    return Command((name, *(["--only", only] if only else [])), found, study)


@functools.cache
def computed(command: Command, storage: Path) -> list[Table]:
    """Once for all formats."""
    return command.of(load_grid(str(storage), "digits"))


COMMANDS = [
    *(of_document("table", only, tables) for only in (None, "gains", "models", "costs")),
    *(of_document("compare", only, comparison, study=True) for only in (None, "pairs", "teachers", "models", "ratios")),
    of_frame("records", lambda grid: grid.cells),
    of_frame("curves", curves),
]


@pytest.mark.parametrize("how", [*DOCUMENTS, *DATA])
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_what_is_written_reads_back_as_what_was_computed(
    command: Command, how: str, storage: Path, studied: Path, capsys: Capture
) -> None:
    place = studied if command.study else storage
    found = computed(command, place)
    data = said(*command.arguments, "--format", how, storage=place)
    assert capsys.readouterr() == ("", "")
    if how in DOCUMENTS:
        check_document(data, how, found)
        return
    frame = found[0].frame
    assert frame.height > 0
    assert_frame_equal(frame_of(data, how, frame.schema), frame, check_exact=True)


def test_records_are_those_of_the_files(storage: Path) -> None:
    planned = plan_of(storage)["rows"]
    rows = json.loads(said("records", "--format", "json", storage=storage))
    for row, plans in zip(rows, planned, strict=True):
        # What the plan calls a stage stands before what its record calls it. A record may be older than a column.
        recorded = dict.fromkeys(RECORD) | record_of(storage, row["kind"], row["stage_id"])
        assert row == {"grid": "digits", **recorded, **dict.fromkeys(ROW), **plans, "progress": None}


def test_curves_are_those_of_the_files(storage: Path) -> None:
    frame = pl.read_parquet(io.BytesIO(said("curves", "--format", "parquet", storage=storage)))
    assert frame["stage_id"].unique(maintain_order=True).to_list() == [stage_id for _, stage_id in cells_of(storage)]
    for kind, stage_id in cells_of(storage):
        file = pl.read_parquet(storage / folder_of(kind, stage_id) / "curve.parquet")
        assert_frame_equal(
            frame.filter(pl.col("stage_id") == stage_id).select(file.columns),
            file,
            check_dtypes=False,
            check_exact=True,
        )


@pytest.mark.parametrize("ending", ["md", "html", "tex", "csv", "json", "parquet"])
def test_the_formats_by_ending_are_the_formats_by_name(ending: str, storage: Path, tmp_path: Path) -> None:
    name = {"tex": "latex"}.get(ending, ending)
    assert said("table", storage=storage, to=tmp_path / f"a.{ending}") == said(
        "table", "--format", name, storage=storage
    )


@pytest.mark.parametrize("command", ["table", "records", "curves"])
def test_what_is_printed_is_what_is_written(command: str, storage: Path, capsys: Capture) -> None:
    assert main([command, "digits", "--storage", str(storage)]) == 0
    out, err = capsys.readouterr()
    assert (out.encode(), err) == (said(command, storage=storage), "")


def test_the_documents_are_those_a_program_gets(storage: Path, studied: Path) -> None:
    assert said("table", storage=storage).decode() == markdown_table(load_grid(str(storage)))
    assert said("compare", storage=studied).decode() == markdown_comparison(load_grid(str(studied)))


@pytest.mark.parametrize("how", [*DOCUMENTS, *DATA])
def test_there_is_nothing_to_compare_without_a_study(how: str, storage: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "compared"
    arguments = ["compare", "digits", "--storage", str(storage), "--format", how, "--output", str(file)]
    assert main(arguments) == 2
    line = "error: grid digits states no published figures: give it published: in its file\n"
    assert refused(capsys) == line
    assert not file.exists()


# What is drawn


@pytest.fixture(scope="module")
def drawn(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "plots"
    assert main(["plots", "digits", "--storage", str(storage), "--output", str(folder)]) == 0
    return folder


@pytest.mark.long
def test_every_picture_opens_in_both_formats_and_themes_and_has_its_caption(drawn: Path, storage: Path) -> None:
    found = pictures(load_grid(str(storage)))
    assert {"gains", "cost", "curves"} <= {picture.name for picture in found}
    names = {f"{picture.name}{theme}" for picture in found for theme in ("", "-dark")}
    files = {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    assert {file.name for file in drawn.iterdir()} == {*files, "captions.md"}
    captions = (drawn / "captions.md").read_text(encoding="utf-8")
    for picture in found:
        assert captions.count(f"**{picture.name}**: ") == 1
    for name in names:
        with Image.open(drawn / f"{name}.png") as image:
            image.load()
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10  # not blank
        check_svg((drawn / f"{name}.svg").read_bytes())


def check_svg(data: bytes) -> None:
    root = ET.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len([*root.iter("{http://www.w3.org/2000/svg}path")]) > 10


@pytest.fixture(scope="module")
def page(storage: Path) -> Page:
    return Page(said("report", storage=storage).decode())


def test_the_report_has_the_tables_cell_for_cell(page: Page, storage: Path) -> None:
    found = tables(load_grid(str(storage))).tables.values()
    assert {name: page.tables[name] for name in ("gains", "models", "costs")} == {
        table.name: lines_of(table) for table in found
    }


def test_the_report_leads_to_every_record_as_it_is_stored(page: Page, storage: Path) -> None:
    ids = load_grid(str(storage)).cells["stage_id"].to_list()
    assert [link for link in page.links if "record-" in link] == [f"#record-{stage_id}" for stage_id in ids]
    assert set(page.ids) >= {link.removeprefix("#") for link in page.links}
    printed = [json.loads(text) for text in page.shown if text.startswith("{") and '"stage_id"' in text]
    stored = [record_of(storage, kind, stage_id) for kind, stage_id in cells_of(storage)]
    left_out = ROW.keys() - {"stage_id"}  # the plan's
    for record, facts in zip(printed, stored, strict=True):
        known = {name: value for name, value in facts.items() if value is not None}
        assert record == {name: value for name, value in known.items() if name not in left_out}


def test_the_reports_pictures_are_in_it(page: Page, storage: Path) -> None:
    assert len(page.loads) == 2 * len(pictures(load_grid(str(storage))))  # for light and for dark pages
    for load in page.loads:
        kind, _, content = load.partition(",")
        assert kind == "data:image/svg+xml;base64"
        check_svg(base64.b64decode(content))


# Weights & Biases, and one student to publish


@pytest.mark.usefixtures("own_wandb")
def test_runs_are_the_records_and_the_curves(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_summary, "report", lambda grid: "the page")  # drawn above
    # Of a few stages, since each run takes W&B half a second: what is missing is an unfinished grid's.
    storage = copied(tmp_path / "runs")
    wanted = {
        row["stage_id"]: row
        for row in plan_of(storage)["rows"]
        if row["kind"] == "teacher" or (row["student"], row["seed"]) == ("ViT-S", 0)
    }
    for folder in (storage / "cells").iterdir():
        if folder.name not in wanted:
            shutil.rmtree(folder)
    assert main(["wandb", "digits", "--storage", str(storage), "--mode", "offline"]) == 0
    assert capsys.readouterr() == (f"digits: offline, in {storage}/grids/digits/wandb\n", "")
    runs = {folder.name.rsplit("-", 1)[-1]: folder for folder in (storage / "grids/digits/wandb").glob("offline-run-*")}
    assert runs.keys() == {*wanted, "digits"}  # the summary's id is summary-digits
    for stage_id, row in wanted.items():
        run, record = read_run(runs[stage_id]), record_of(storage, row["kind"], stage_id)
        curve = pl.read_parquet(storage / folder_of(row["kind"], stage_id) / "curve.parquet")
        assert run.history == [
            {name: value for name, value in point.items() if value is not None} for point in curve.iter_rows(named=True)
        ]
        assert run.summary["test_top1_last"] == record["test_top1_last"]
        assert run.config["recipe"] == json.loads(record["recipe"])
        assert run.about.run_group == "digits"
    summary = read_run(runs["digits"])
    assert (summary.summary["done"], summary.summary["planned"]) == (len(wanted), 29)
    assert {f"pictures/{name}._type" for name in ("gains", "cost", "curves")} <= summary.history[0].keys()


def weighed() -> dict[str, Any]:
    """The plan's row of the cell whose weights are here."""
    (file,) = RECORDS.glob("cells/*/model.safetensors")
    (row,) = [row for row in plan_of(RECORDS)["rows"] if row["stage_id"] == file.parent.name]
    found: dict[str, Any] = row
    return found


def test_a_student_is_published_with_its_figures(
    storage: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ONNX takes seconds and is asked for in tests/grid/publish/test_export.py.
    monkeypatch.setattr(grid.publish.folder, "missing_packages", lambda: ["onnx"])
    row, folder = weighed(), tmp_path / "published"
    arguments = ["--student", row["student"], "--mode", row["mode"], "--seed", str(row["seed"]), "--to", str(folder)]
    arguments += ["--teacher", row["teacher"]] if row["teacher"] else []
    assert main(["export", "digits", "--storage", str(storage), *arguments]) == 0
    out, err = capsys.readouterr()
    files = ["README.md", "config.json", "model.safetensors", "record.json"]
    assert out.endswith(f"{folder} has {', '.join(files)}\n")
    images = f"{storage}/datasets/{record_of(storage, 'cell', row['stage_id'])['dataset_id']}"
    assert err.splitlines() == [
        f"warning: its accuracy was not compared with its record: there are no test images in {images}",
        f"warning: no model.onnx: onnx not installed: {hint('export')}",
    ]
    assert sorted(file.name for file in folder.iterdir()) == files
    assert json.loads((folder / "record.json").read_text()) == record_of(storage, "cell", row["stage_id"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    top1 = 100 * np.array(top1_of(storage, row["student"], row["teacher"]))
    assert f"{top1.mean():.2f}" in card
    assert f"{top1[row['seed']]:.2f}" in card


# The figures again, from the JSON files


def plan_of(storage: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((storage / "grids/digits/plan.json").read_text())
    return plan


def folder_of(kind: str, stage_id: str) -> str:
    return f"{'logits' if kind == 'logits' else kind + 's'}/{stage_id}"


def record_of(storage: Path, kind: str, stage_id: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((storage / folder_of(kind, stage_id) / "record.json").read_text())
    return record


def cells_of(storage: Path) -> list[tuple[str, str]]:
    return [(row["kind"], row["stage_id"]) for row in plan_of(storage)["rows"]]


def records_of(storage: Path, **wanted: Any) -> list[dict[str, Any]]:
    """Records of the plan's rows that are so, in the order of their seeds."""
    rows = [row for row in plan_of(storage)["rows"] if all(row.get(name) == value for name, value in wanted.items())]
    return [record_of(storage, row["kind"], row["stage_id"]) for row in sorted(rows, key=lambda r: r.get("seed") or 0)]


def top1_of(storage: Path, student: str, teacher: str | None) -> list[float]:
    return [record["test_top1_last"] for record in records_of(storage, kind="cell", student=student, teacher=teacher)]


@dataclass
class Pair:
    """A teacher and a student, in percent by seed."""

    teacher: str
    student: str
    taught_by: dict[str, Any]
    parameters: int
    alone: np.ndarray
    taught: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        return self.taught - self.alone

    variance: float = 0.0
    """Of a gain, as its interval has it."""
    df: float = 0.0

    @property
    def half_width(self) -> float:
        return float(scipy.stats.t.ppf(0.975, self.df) * np.sqrt(self.variance / len(self.gain)))

    @property
    def p(self) -> float:
        t = abs(self.gain.mean()) / np.sqrt(self.variance / len(self.gain))
        return float(2 * scipy.stats.t.sf(t, self.df))


def judge(found: list[Pair]) -> None:
    """The moderated t: of each student what rows and seeds leave, shrunk to what Smyth's prior of the three says, with
    1 / d0 + 3 / 2 for 1 / d0; and no less than the variance of the pair's own gains."""
    students = list(dict.fromkeys(pair.student for pair in found))
    variances = []
    for student in students:
        of = [pair for pair in found if pair.student == student]
        runs_AS = np.array([of[0].alone, *(pair.taught for pair in of)])
        rest_AS = runs_AS - runs_AS.mean(1, keepdims=True) - runs_AS.mean(0, keepdims=True) + runs_AS.mean()
        df = (runs_AS.shape[0] - 1) * (runs_AS.shape[1] - 1)
        variances.append((rest_AS**2).sum() / df)
    e = np.log(variances) - scipy.special.digamma(df / 2) + np.log(df / 2)
    excess = e.var(ddof=1) - scipy.special.polygamma(1, df / 2)
    if excess > 0:
        half = scipy.optimize.brentq(lambda x: scipy.special.polygamma(1, x) - excess, 1e-6, 1e9)
        before, prior_df = np.exp(e.mean() + scipy.special.digamma(half) - np.log(half)), 1 / (1 / (2 * half) + 3 / 2)
    else:
        before, prior_df = np.exp(e.mean()), 2 / 3
    for pair in found:
        own = variances[students.index(pair.student)]
        shared = (prior_df * before + df * own) / (prior_df + df)
        pair.variance, pair.df = max(2 * shared, pair.gain.var(ddof=1)), prior_df + df


@pytest.fixture(scope="module")
def all_pairs(storage: Path) -> list[Pair]:
    spec = plan_of(storage)["spec"]
    found = []
    for teacher in (model["label"] for model in spec["teachers"]):
        for student in (model["label"] for model in spec["students"]):
            (record,) = records_of(storage, kind="teacher", teacher=teacher)
            parameters = records_of(storage, kind="cell", student=student, teacher=None)[0]["parameters"]
            alone, taught = (100 * np.array(top1_of(storage, student, by)) for by in (None, teacher))
            assert len(alone) == len(taught) == len(spec["seeds"])
            found.append(Pair(teacher, student, record, parameters, alone, taught))
    judge(found)
    return found


def holm_of(p: list[float]) -> list[float]:
    order, corrected, least = np.argsort(p), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = least
    return corrected


def csv_of(storage: Path, name: str) -> list[dict[str, Any]]:
    data = said("table", "--only", name, "--format", "csv", storage=storage)
    return pl.read_csv(io.BytesIO(data), infer_schema_length=None).to_dicts()


def printed(storage: Path, name: str) -> list[dict[str, str]]:
    """The lines of a table as printed, by its header."""
    ((header, *lines),) = markdown_rows(said("table", "--only", name, storage=storage).decode())
    return [dict(zip(header, line, strict=True)) for line in lines]


def exactly(value: float) -> Any:
    return pytest.approx(value, abs=1e-9, rel=0)


def test_the_gains_are_those_of_the_files(storage: Path, all_pairs: list[Pair]) -> None:
    corrected = holm_of([pair.p for pair in all_pairs])
    for row, pair, p_holm in zip(csv_of(storage, "gains"), all_pairs, corrected, strict=True):
        assert (row["teacher"], row["student"]) == (pair.teacher, pair.student)
        for name, values in (("baseline", pair.alone), ("distilled", pair.taught)):
            assert row[f"{name}_mean_percent"] == exactly(values.mean())
            assert row[f"{name}_std_points"] == exactly(values.std(ddof=1))
            assert row[f"{name}_n"] == len(values)
        assert row["gain_mean_points"] == exactly(pair.gain.mean())
        assert row["gain_low_points"] == exactly(pair.gain.mean() - pair.half_width)
        assert row["gain_high_points"] == exactly(pair.gain.mean() + pair.half_width)
        assert row["gain_n"] == len(pair.gain)
        assert row["gain_p"] == exactly(pair.p)
        assert row["gain_p_holm"] == exactly(p_holm)
        assert row["retention_percent"] == exactly(pair.taught.mean() / pair.taught_by["test_top1_last"])
        assert row["compression"] == exactly(pair.taught_by["parameters"] / pair.parameters)


def test_the_printed_gains_are_those_of_the_files(storage: Path, all_pairs: list[Pair]) -> None:
    corrected = holm_of([pair.p for pair in all_pairs])
    for line, pair, p_holm in zip(printed(storage, "gains"), all_pairs, corrected, strict=True):
        assert line["Teacher (params)"].startswith(f"{pair.teacher} (")
        assert line["Student (params)"].startswith(f"{pair.student} (")
        for name, values in (("Baseline", pair.alone), ("Distilled", pair.taught)):
            assert line[name] == f"{values.mean():.2f} ± {values.std(ddof=1):.2f} (n={len(values)})"
        mean, half = pair.gain.mean(), pair.half_width
        mark = ("▲" if mean > 0 else "▼") if p_holm < 0.05 else "▽" if mean < 0 else ""
        assert line["Gain"] == f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] {mark}".rstrip()
        assert line["Retention"] == f"{pair.taught.mean() / pair.taught_by['test_top1_last']:.1f} %"
        assert line["Compression"] == f"{pair.taught_by['parameters'] / pair.parameters:.1f}x"


def test_what_all_pairs_say_is_that_of_the_files(storage: Path, all_pairs: list[Pair]) -> None:
    text = said("table", storage=storage).decode()
    corrected = holm_of([pair.p for pair in all_pairs])
    assert f"After correction for the {len(all_pairs)} pairs that the grid plans (Holm), " in text
    assert f"(smallest corrected p {min(corrected):.2g})" in text
    significant = [pair.gain.mean() > 0 for pair, p in zip(all_pairs, corrected, strict=True) if p < 0.05]
    assert (f"none of {len(all_pairs)} gained or lost significantly" in text) == (not significant)
    alone = [run for pair in all_pairs for run in pair.alone]
    taught = [run for pair in all_pairs for run in pair.taught]
    gained = [gain for pair in all_pairs for gain in pair.gain]
    iqm = [float(scipy.stats.trim_mean(runs, 0.25)) for runs in (alone, taught, gained)]
    assert f"interquartile mean {iqm[0]:.2f} alone, {iqm[1]:.2f} distilled; of the paired gains {iqm[2]:+.2f} [" in text
    better = [np.sign(pair.taught[:, None] - pair.alone[None, :]).mean() / 2 + 0.5 for pair in all_pairs]
    assert f"probability of improvement {np.mean(better):.2f} [" in text


def test_the_costs_are_those_of_the_files(storage: Path) -> None:
    logits = [stage["id"] for stage in plan_of(storage)["stages"] if stage["kind"] == "logits"]
    seconds = {
        "teachers": [record["device_seconds"] for record in records_of(storage, kind="teacher")],
        "teacher logits": [record_of(storage, "logits", stage_id)["device_seconds"] for stage_id in logits],
        "baselines": [record["device_seconds"] for record in records_of(storage, mode="baseline")],
        "distilled": [record["device_seconds"] for record in records_of(storage, mode="distilled")],
    }
    seconds["total"] = [second for stage in seconds.values() for second in stage]
    total = sum(seconds["total"])
    rows, lines = csv_of(storage, "costs"), printed(storage, "costs")
    assert [row["stage"] for row in rows] == [line["Stages"] for line in lines] == [*seconds]
    for row, line, stage in zip(rows, lines, seconds.values(), strict=True):
        assert (row["done"], row["planned"]) == (len(stage), len(stage))
        assert row["device_hours"] == exactly(sum(stage) / 3600)
        assert row["share"] == exactly(sum(stage) / total)
        shown = f"{sum(stage):.1f} s" if sum(stage) < 60 else f"{sum(stage) / 60:.1f} min"
        assert (line["Done"], line["Device time"]) == (f"{len(stage)} of {len(stage)}", shown)
        assert line["Share"] == f"{100 * sum(stage) / total:.0f} %"


def test_the_accuracy_per_ms_is_that_of_the_files(storage: Path, all_pairs: list[Pair]) -> None:
    rows, lines = csv_of(storage, "models"), printed(storage, "models")
    assert len(rows) == len(lines) == 2 + 3 * (1 + 2)
    for row, line in zip(rows, lines, strict=True):
        of = {"kind": "teacher", "teacher": row["model"]} if row["mode"] is None else {"student": row["model"]}
        timed = records_of(storage, **of)
        assert {record["latency_device"] for record in timed} == {row["latency_device"]}
        ms = float(np.median([record["latency_ms"] for record in timed]))
        same = timed if row["mode"] is None else records_of(storage, **of, mode=row["mode"], teacher=row["teacher"])
        accuracy = 100 * float(np.mean([record["test_top1_last"] for record in same]))
        mib = timed[0]["size_bytes"] / 2**20
        assert row["accuracy_percent"] == exactly(accuracy)
        assert row["latency_ms"] == exactly(ms)
        assert row["percent_per_ms"] == exactly(accuracy / ms)
        assert row["percent_per_mib_ms"] == exactly(accuracy / (mib * ms))
        assert line["Accuracy / ms"] == f"{accuracy / ms:.2f}"
        assert line["Accuracy / (MiB x ms)"] == f"{accuracy / (mib * ms):.2f}"
        assert line["ms per batch"].startswith(f"{ms:.2f} [")
