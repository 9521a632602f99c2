"""What every command says where something is damaged or not there: the damage by its file, with all the rest shown, or
one line of refusal where there is nothing to show."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image

import grid.publish.folder
from analysis.cli import main
from analysis.plots import Picture
from analysis.tracking import export as wandb_export
from analysis.tracking import summary as wandb_summary
from grid.store.records import Value
from tests.analysis.conftest import Row, SyntheticGrid
from tests.analysis.tables.test_compare import PUBLISHED
from tests.analysis.test_cli import refused
from tests.analysis.test_digits_records import change_plan, copied, records_of, weighed
from tests.analysis.tracking.test_export import folders

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]

COMMANDS = ("table", "compare", "records", "curves", "plots", "report", "wandb")
OF_RECORDS = ("table", "compare", "records")  # they read no curve
DOCUMENTS = ("table", "compare")  # their notes name what is damaged
MORE = {"wandb": ["--mode", "offline"], "export": ["--to", "published"], "bundle": ["tiny.zip"]}


class Runs(list[str]):
    """Stands in for W&B: the ids of the runs that were started."""

    summary: ClassVar[dict[str, Any]] = {}

    def start(self, **about: Any) -> Any:
        self.append(about["id"])
        return self

    def log(self, *args: object, **options: object) -> None: ...

    def log_artifact(self, *args: object) -> None: ...

    def finish(self) -> None: ...


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """Pictures are a pixel each and runs go nowhere: what is said can be asked often."""
    started, image = Runs(), io.BytesIO()
    for module in (wandb_export, wandb_summary):
        monkeypatch.setattr(module, "start_run", started.start)
    Image.new("RGB", (1, 1)).save(image, format="png")
    monkeypatch.setattr(Picture, "figure", lambda *_: Figure())
    monkeypatch.setattr(Picture, "to_bytes", lambda *_: image.getvalue())
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb data"))
    return started


@pytest.fixture
def tiny(make_grid: Maker) -> SyntheticGrid:
    """All of it done, and beside a study."""
    made = make_grid(seeds=[0, 1])
    made.write_plan(spec={**made.plan["spec"], "published": PUBLISHED})
    for row in made.rows:
        finish(made, row)
    return made


def finish(made: SyntheticGrid, row: Row) -> None:
    """A teacher gives 90 %, a student alone 80 and 81, from its teacher 84 and 85."""
    top1 = 90.0 if row["kind"] == "teacher" else 80.0 + row["seed"] + 4 * (row["mode"] == "distilled")
    times: dict[str, Value] = {"latency_ms": 2.0, "latency_ms_q1": 1.0, "latency_ms_q3": 3.0, "latency_batch": 32}
    costs: dict[str, Value] = {"latency_device": "CPU", "size_bytes": 4000, "device_seconds": 9.0}
    made.done(row, top1, best_test_top1=top1 / 100, test_ece_last=0.1, test_nll_last=0.5, **times, **costs)
    made.curve(row, [{"epoch": epoch, "train_loss": 1 / epoch, "test_top1": top1 / 100} for epoch in (1, 2)])


def call(command: str, storage: object, name: str | None = "tiny") -> int:
    return main([command, *([name] if name else []), "--storage", str(storage), *MORE.get(command, [])])


# Damage to one stage


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@dataclass(frozen=True)
class Damage:
    """What a file of a stage becomes, and what is said of it."""

    file: str
    done: Callable[[bytes], bytes]
    reason: str


OTHERS = (
    b'{"schema_version": 1, "stage_id": "0123456789abcdef", "kind": "cell", "status": "done", "test_top1_last": 0.99}'
)
DAMAGES = {
    "truncated": Damage("record.json", half, "not a record: (Expecting|Unterminated|Invalid).* line"),
    "empty": Damage("record.json", lambda data: b"", "not a record: Expecting value"),
    "binary": Damage("record.json", lambda data: b"\xff\xfe\x00", "not a record: not text in UTF-8: "),
    "of another stage": Damage("record.json", lambda data: OTHERS, "the record of another stage: '0123456789abcdef'"),
    "no record": Damage("record.json", lambda data: b'{"hello": "world"}', "not a record: it has no schema_version"),
    "a list": Damage("record.json", lambda data: b"[1, 2]", "not a record: it has no schema_version"),
    "of other types": Damage(
        "record.json", lambda data: data.replace(b'"seed": 1', b'"seed": "one"'), "not a record: .*"
    ),
    "newer": Damage(
        "record.json",
        lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 99'),
        "of schema version 99, newer than this program: update it",
    ),
    "truncated curve": Damage("curve.parquet", half, "not a curve: "),
    "foreign curve": Damage("curve.parquet", lambda data: b'{"epoch": 1, "test_top1": 0.99}', "not a curve: "),
    "empty curve": Damage("curve.parquet", lambda data: b"", "not a curve: "),
}


def damage(made: SyntheticGrid, row: Row, what: Damage) -> str:
    """Damages that stage's file; its path in the storage."""
    path = f"{made.folder(row)}/{what.file}"
    before = (made.root / path).read_bytes()
    after = what.done(before)
    assert after != before
    made.write(path, after)
    return path


def warnings(err: str) -> list[str]:
    assert "Traceback" not in err
    assert err == "" or err.endswith("\n")
    return err.splitlines()


def shown(command: str, made: SyntheticGrid, out: str, runs: Runs) -> set[str]:
    """The stages of which a command shows what they gave."""
    if command in ("records", "curves"):
        frame = pl.read_csv(io.StringIO(out), infer_schema=False)
        return set((frame if command == "curves" else frame.filter(pl.col("status") == "done"))["stage_id"])
    if command == "wandb":
        assert runs[-1] == "summary-tiny"
        return set(runs[:-1])
    if command == "report":
        page = (made.root / "grids/tiny/report.html").read_text(encoding="utf-8")
        return set(re.findall(r'<a href="#record-(\w+)">[^<]*</a> <span>\d+\.\d\d %', page))
    raise ValueError(command)


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("command", COMMANDS)
def test_damage_is_named_and_the_rest_is_shown(
    tiny: SyntheticGrid, runs: Runs, capsys: Capture, command: str, what: str
) -> None:
    row = tiny.one(mode="distilled", seed=1)
    path = damage(tiny, row, DAMAGES[what])
    of_a_curve = DAMAGES[what].file == "curve.parquet"
    assert call(command, tiny.storage) == 0
    out, err = capsys.readouterr()
    named = rf"{re.escape(path)}: {DAMAGES[what].reason}"
    if of_a_curve and command in OF_RECORDS:
        assert (err, path in out) == ("", False)
    elif command in DOCUMENTS:
        assert re.search(rf"^\*\*Unreadable\*\*: {named}", out, re.MULTILINE)
        assert err == ""
    else:
        (line,) = warnings(err)
        assert re.match(rf"warning: {named}", line)

    if command in DOCUMENTS:
        assert "80.50 ± 0.71 (n=2)" in out
        assert ("84.50 ± 0.71 (n=2)" if of_a_curve else "84.00 (n=1)") in out
    elif command == "plots":
        files = {file.name for file in (tiny.root / "grids/tiny/plots").iterdir()}
        assert {"gains.png", "gains-dark.svg", "cost.png", "curves.png", "captions.md"} <= files
    else:
        # A record stands without its curve.
        stands = of_a_curve and command in ("records", "report")
        assert shown(command, tiny, out, runs) == {other["stage_id"] for other in tiny.rows if other != row or stands}


@pytest.mark.parametrize("arguments", [["--format", "csv"], ["--format", "json"], ["--only", "gains"]])
@pytest.mark.parametrize("command", DOCUMENTS)
def test_a_table_without_notes_names_damage_beside_it(
    tiny: SyntheticGrid, capsys: Capture, command: str, arguments: list[str]
) -> None:
    path = damage(tiny, tiny.one(mode="distilled", seed=1), DAMAGES["newer"])
    if command == "compare" and "--only" in arguments:
        arguments = ["--only", "pairs"]
    assert main([command, "tiny", "--storage", tiny.storage, *arguments]) == 0
    out, err = capsys.readouterr()
    assert warnings(err) == [f"warning: {path}: {DAMAGES['newer'].reason}"]
    assert out
    assert path not in out


@pytest.mark.parametrize("how", ["md", "html", "latex"])
def test_notes_name_damage_in_every_kind_of_document(tiny: SyntheticGrid, capsys: Capture, how: str) -> None:
    path = damage(tiny, tiny.one(mode="distilled", seed=1), DAMAGES["newer"])
    assert main(["table", "tiny", "--storage", tiny.storage, "--format", how]) == 0
    out, err = capsys.readouterr()
    assert f"{path}: of schema version 99, newer than this program: update it" in out
    assert err == ""


@pytest.fixture
def riddled(tiny: SyntheticGrid) -> dict[str, str]:
    """Four of the five stages damaged, each in another way: paths by the way."""
    ways = ("truncated", "of another stage", "newer", "truncated curve")
    return {way: damage(tiny, row, DAMAGES[way]) for way, row in zip(ways, tiny.rows[1:], strict=True)}


@pytest.mark.parametrize("command", ["plots", "report"])
def test_what_is_left_is_drawn(
    tiny: SyntheticGrid, riddled: dict[str, str], capsys: Capture, command: str, tmp_path: Path
) -> None:
    # Nothing stands in for the pictures here.
    assert main([command, "tiny", "--storage", tiny.storage, "--output", str(tmp_path / "drawn")]) == 0
    lines = warnings(capsys.readouterr().err)
    assert sorted(line.split(": ")[1] for line in lines) == sorted(riddled.values())


@pytest.mark.usefixtures("own_wandb")
def test_w_and_b_gets_what_is_left(tiny: SyntheticGrid, riddled: dict[str, str], capsys: Capture) -> None:
    assert call("wandb", tiny.storage) == 0
    out, err = capsys.readouterr()
    assert out == f"tiny: offline, in {tiny.storage}/grids/tiny/wandb\n"
    assert sorted(line.split(": ")[1] for line in warnings(err)) == sorted(riddled.values())
    written = {folder.name.split("-", 3)[-1] for folder in folders(tiny)}
    assert written == {tiny.rows[0]["stage_id"], "summary-tiny"}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_every_record_is_damaged_each_is_named(
    tiny: SyntheticGrid, runs: Runs, capsys: Capture, command: str
) -> None:
    paths = [damage(tiny, row, DAMAGES["truncated"]) for row in tiny.rows]
    assert call(command, tiny.storage) == 0
    out, err = capsys.readouterr()
    said = out if command in DOCUMENTS else "\n".join(warnings(err))
    assert [said.count(f"{path}: ") for path in paths] == [1] * len(paths)
    assert runs == (["summary-tiny"] if command == "wandb" else [])


# W&B itself


def test_w_and_b_that_fails_ends_the_upload(
    tiny: SyntheticGrid, runs: Runs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**about: object) -> None:
        raise OSError("quota\nexceeded")

    damage(tiny, tiny.rows[0], DAMAGES["truncated"])
    with monkeypatch.context() as patch:
        patch.setattr(wandb_export, "start_run", refuse)
        assert call("wandb", tiny.storage) == 2
        line = "Weights & Biases: OSError: quota exceeded: what is written stays; run this again for the rest"
        assert refused(capsys) == f"error: {line}\n"
    assert runs == []
    monkeypatch.setattr(wandb_summary, "start_run", refuse)
    assert call("wandb", tiny.storage) == 2
    assert refused(capsys) == "error: Weights & Biases: OSError: quota exceeded: run this again for the summary\n"


def test_what_w_and_b_says_is_told_without_secrets(
    tiny: SyntheticGrid, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**about: object) -> None:
        raise OSError("https://me:CANARY@host/graphql?api_key=CANARY")

    told: list[str] = []
    monkeypatch.setattr(wandb_export, "start_run", refuse)
    with wandb_export.Exporter(tiny.storage, tiny.name, mode="offline", warn=told.append) as exporter:
        exporter.add_all()
    line = "Weights & Biases: OSError: https://***@host/graphql?***"
    assert exporter.failure == line
    assert told == [f"warning: {line}; nothing more is logged there (--wandb disabled)"]
    monkeypatch.setattr(wandb_export, "Exporter", lambda *args, **options: contextlib.nullcontext(exporter))
    assert call("wandb", tiny.storage) == 2
    assert refused(capsys) == f"error: {line}: what is written stays; run this again for the rest\n"


# Nothing to read


@pytest.fixture(params=["empty", "missing", "of another grid"])
def elsewhere_done(request: pytest.FixtureRequest, tmp_path: Path, make_grid: Maker) -> tuple[Path, str]:
    """A storage in which the grid was not run, and what is there."""
    if request.param == "of another grid":
        return make_grid("other").root, "there are other"
    if request.param == "empty":
        (tmp_path / "runs").mkdir()
    return tmp_path / "runs", "there is none: run kd-grid --grid digits, or give --storage"


@pytest.mark.parametrize("command", [*COMMANDS, "export"])
def test_a_grid_that_was_not_run_is_refused(elsewhere_done: tuple[Path, str], capsys: Capture, command: str) -> None:
    storage, there = elsewhere_done
    before = sorted(storage.parent.rglob("*"))
    assert call(command, storage) == 2
    assert refused(capsys) == f"error: no grid 'tiny' was run in {storage}; {there}\n"
    assert sorted(storage.parent.rglob("*")) == before


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("command", [*COMMANDS, "export"])
def test_a_storage_without_any_grid_is_refused(tmp_path: Path, capsys: Capture, command: str, made: bool) -> None:
    storage = tmp_path / "runs"
    if made:
        storage.mkdir()
    assert call(command, storage, None) == 2
    line = f"error: no grid was run in {storage}: run kd-grid --grid digits, or give --storage\n"
    assert refused(capsys) == line
    assert storage.exists() == made


@pytest.mark.parametrize("command", [*COMMANDS, "export"])
def test_a_plan_that_cannot_be_read_is_refused(tiny: SyntheticGrid, capsys: Capture, command: str) -> None:
    plan = tiny.root / "grids/tiny/plan.json"
    for content in (half(plan.read_bytes()), b"[]", b'{"schema_version": 99}'):
        plan.write_bytes(content)
        assert call(command, tiny.storage) == 2
        assert re.match(rf"error: {re.escape(str(plan))}: (not a plan|of another version).*; launch", refused(capsys))


# Little to read


@pytest.fixture(params=["baselines alone", "nothing done"])
def little(request: pytest.FixtureRequest, make_grid: Maker) -> SyntheticGrid:
    made = make_grid(
        seeds=[0, 1], modes=["baseline"] if request.param == "baselines alone" else ["baseline", "distilled"]
    )
    if request.param == "baselines alone":
        for row in made.rows:
            finish(made, row)
    return made


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "compare"])
def test_little_is_shown_as_it_is(little: SyntheticGrid, runs: Runs, capsys: Capture, command: str) -> None:
    done = {row["stage_id"] for row in little.rows} if "distilled" not in little.plan["spec"]["modes"] else set()
    assert call(command, little.storage) == 0
    out, err = capsys.readouterr()
    assert err == ("nothing to draw yet\n" if command == "plots" and not done else "")
    if command == "table":
        assert ("80.50 ± 0.71 (n=2)" if done else "stands on 0 of 5 teachers and cells (0 failed, 5 missing)") in out
    elif command == "plots":
        assert ("accuracy.png" in out) == bool(done)
    else:
        assert shown(command, little, out, runs) == done


def test_little_has_no_study(little: SyntheticGrid, capsys: Capture) -> None:
    assert call("compare", little.storage) == 2
    assert refused(capsys) == "error: grid tiny states no published figures: give it published: in its file\n"


def test_little_is_put_beside_a_study(little: SyntheticGrid, capsys: Capture) -> None:
    little.write_plan(spec={**little.plan["spec"], "published": PUBLISHED})
    assert call("compare", little.storage) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "72.70" in out


# A student to publish: of the real records, since its weights are needed


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(grid.publish.folder, "missing_packages", lambda: ["onnx"])
    return copied(tmp_path / "runs")


def export(storage: Path) -> int:
    row = weighed()
    asked = [f"--{name}={row[name]}" for name in ("student", "teacher", "mode", "seed") if row[name] is not None]
    return main(["export", "digits", "--storage", str(storage), "--to", "published", *asked])


@pytest.mark.parametrize("what", [name for name, damage in DAMAGES.items() if damage.file == "record.json"])
def test_the_student_itself_is_not_published_from_a_damaged_record(
    real: Path, tmp_path: Path, capsys: Capture, what: str
) -> None:
    row = weighed()
    path = f"cells/{row['stage_id']}/record.json"
    seed = f'"seed": {row["seed"]}'.encode()
    (real / path).write_bytes(DAMAGES[what].done((real / path).read_bytes().replace(seed, b'"seed": 1')))
    assert export(real) == 2
    named = rf"{re.escape(path)}: {DAMAGES[what].reason}"
    assert re.match(rf"error: {row['student']} .*: its record cannot be read: {named}", refused(capsys))
    assert not (tmp_path / "published").exists()


LEFT_OUT = ("there are no test images in", "no model.onnx")  # of a storage that has neither images nor ONNX


def test_another_seeds_damage_is_named_and_the_card_stands_on_the_rest(
    real: Path, tmp_path: Path, capsys: Capture
) -> None:
    row = weighed()
    same = {name: row[name] for name in ("kind", "student", "teacher")}
    others = [record for record in records_of(real, **same) if record["stage_id"] != row["stage_id"]]
    path = f"cells/{others[0]['stage_id']}/record.json"
    (real / path).write_bytes(half((real / path).read_bytes()))
    assert export(real) == 0
    lines = warnings(capsys.readouterr().err)
    assert lines.pop(0).startswith(f"warning: {path}: ")
    assert all(said in line for said, line in zip(LEFT_OUT, lines, strict=True))
    assert f"n = {len(others)}" in (tmp_path / "published/README.md").read_text(encoding="utf-8")


def test_a_student_is_published_without_any_curve(real: Path, capsys: Capture) -> None:
    for file in real.rglob("curve.parquet"):
        file.write_bytes(half(file.read_bytes()))
    assert export(real) == 0
    lines = warnings(capsys.readouterr().err)
    assert all(said in line for said, line in zip(LEFT_OUT, lines, strict=True))


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        ("cells/{}/record.json", "error: .* is not done: launch the grid again to finish it"),
        ("cells/{}/model.safetensors", "error: .*/model.safetensors: cannot be read: "),
        ("datasets", "error: .*/dataset.json: cannot be read: "),
    ],
)
def test_a_student_that_is_not_all_there_is_refused(
    real: Path, tmp_path: Path, capsys: Capture, gone: str, line: str
) -> None:
    place = real / gone.format(weighed()["stage_id"])
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    assert export(real) == 2
    assert re.match(line, refused(capsys))
    assert not (tmp_path / "published").exists()


def test_baselines_alone_have_no_distilled_student(real: Path, capsys: Capture) -> None:
    def cut(plan: dict[str, Any]) -> None:
        plan["rows"] = [row for row in plan["rows"] if row.get("mode") == "baseline"]
        plan["spec"]["modes"] = ["baseline"]

    change_plan(real, cut)
    assert main(["export", "digits", "--storage", str(real), "--to", "p", "--student=ViT-S", "--mode=distilled"]) == 2
    assert refused(capsys) == "error: grid digits has no distilled cells: leave --mode out\n"
