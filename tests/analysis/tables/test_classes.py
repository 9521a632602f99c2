"""The tables of classes and images, of predictions that are written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.cli import main
from analysis.document import Note
from analysis.notebook import load_grid
from analysis.report import report
from analysis.tables.classes import classes_document
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.predicting import logits_for, predicts, prepare_data

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]

# Eight images of the first class, and one of each other.
LABELS = {"test": [0] * 8 + [1, 2]}
NAMES = ["cat", "dog", "<eel>"]


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    """Alone everything is a cat; distilled, one seed of two knows the dog, and loses a cat for it."""
    made = make_grid(seeds=[0, 1])
    prepare_data(made, classes=3, names=NAMES, **LABELS)
    predicts(made, made.one(kind="teacher"), {"test": logits_for(LABELS["test"], 3)}, LABELS)
    for seed in (0, 1):
        alone, taught = (made.one(mode=mode, seed=seed) for mode in ("baseline", "distilled"))
        predicts(made, alone, {"test": logits_for([0] * 10, 3)}, LABELS)
        predicts(made, taught, {"test": logits_for([0] * 10 if seed else [1, *[0] * 7, 1, 0], 3)}, LABELS)
    return made


def test_balanced_accuracy_stands_beside_top1_and_classes_that_are_never_right_are_named(grid: SyntheticGrid) -> None:
    table = classes_document(load_grid(grid.storage)).tables["classes"]
    assert table.header == ["Model", "Trained", "Top-1", "Balanced", "Weakest classes", "Never right"]
    lines = [[line[0], line[1], line[2].split(" [")[0], *line[3:]] for line in table.lines]
    assert lines == [
        ["ViT-T", "as a teacher", "100.00", "100.00", "—", "none"],
        ["ResNet-S", "alone", "80.00", "33.33", "—", "2 of 3: dog, <eel>"],
        # The mean of (7/8 + 1 + 0) / 3 and of (1 + 0 + 0) / 3.
        ["ResNet-S", "from ViT-T", "80.00", "47.92", "dog 50.0 %, cat 93.8 %", "1 of 3: <eel>"],
    ]
    assert table.lines[1][2].endswith("] (n=2)")
    frame = table.frame.select("student", "mode", "seeds", "images", "classes", "never_right", "never_right_classes")
    assert frame.row(1) == ("ResNet-S", "baseline", 2, 10, 3, 2, "dog, <eel>")


def test_a_row_a_class_says_what_distilling_changes(grid: SyntheticGrid) -> None:
    document = classes_document(load_grid(grid.storage))
    assert document.tables["by-class"].header == ["Class", "Test images", "Teachers", "Alone", "Distilled", "Change"]
    assert document.tables["by-class"].lines == [
        ["cat", "8", "100.0", "100.0", "93.8", "-6.2"],
        ["dog", "1", "100.0", "0.0", "50.0", "+50.0"],
        ["<eel>", "1", "100.0", "0.0", "0.0", "+0.0"],
    ]


def test_of_many_classes_those_that_change_most_are_shown_and_all_are_data(make_grid: Maker) -> None:
    made, labels = make_grid(seeds=[0]), {"test": [*range(30)]}
    prepare_data(made, classes=30, **labels)
    changed = [0 if label in (3, 28) else label for label in labels["test"]]
    for mode, predicted in (("baseline", labels["test"]), ("distilled", changed)):
        predicts(made, made.one(mode=mode), {"test": logits_for(predicted, 30)}, labels)
    document = classes_document(load_grid(made.storage))
    table = document.tables["by-class"]
    assert (len(table.lines), table.frame.height) == (20, 30)
    assert [line for line in table.lines if line[-1] == "-100.0"] == [
        ["3", "1", "100.0", "0.0", "-100.0"],
        ["28", "1", "100.0", "0.0", "-100.0"],
    ]
    assert any(
        "Of 30 classes, the 20 that change most." in part.text for part in document.parts if isinstance(part, Note)
    )


def test_images_won_and_lost(grid: SyntheticGrid) -> None:
    (line,) = classes_document(load_grid(grid.storage)).tables["images"].lines
    assert (line[0], line[1].split(" [")[0]) == ("ViT-T → ResNet-S", "+0.00")
    # One won and one lost of seed 0; wrong are 0, 8, 9 of the one or the other and 9 of both, and 8 and 9 of seed 1.
    assert line[4:] == ["0.5 / 0.5", "0 of 2", f"{(100 / 3 + 100) / 2:.1f} %", "80.0 %", "—"]


def test_what_keeps_no_predictions_is_counted(grid: SyntheticGrid) -> None:
    grid.done(grid.one(mode="distilled", seed=1), 80.0)
    document = classes_document(load_grid(grid.storage))
    assert [part.text.split(" are")[0] for part in document.parts if isinstance(part, Note) and part.lead] == [
        "1 of the 5 teachers and cells that"
    ]
    assert document.tables["classes"].lines[2][2].endswith("(n=1)")


def test_an_old_storage_says_that_it_keeps_none(make_grid: Maker, capsys: Capture) -> None:
    made = make_grid().fill({"ViT-T": 90.0, ("ResNet-S", None): [80.0] * 3, ("ResNet-S", "ViT-T"): [81.0] * 3})
    assert main(["classes", "--storage", made.storage]) == 0
    out, err = capsys.readouterr()
    assert "7 of the 7 teachers and cells that are done keep none: they were computed before" in " ".join(out.split())
    assert err == ""
    assert 'id="class-accuracy"' not in report(load_grid(made.storage))


def test_predictions_that_cannot_be_read_are_named_beside_the_table_and_in_the_report(grid: SyntheticGrid) -> None:
    row = grid.one(mode="distilled", seed=0)
    (path,) = (grid.root / grid.folder(row)).glob("predictions-*")
    path.write_bytes(b"damaged")
    problem = f"{grid.folder(row)}/{path.name}: not the predictions of its record: damaged, or of another training"
    notes = [part for part in classes_document(load_grid(grid.storage)).parts if isinstance(part, Note)]
    assert [note.text for note in notes if note.lead == "Unreadable"] == [problem]
    page = report(load_grid(grid.storage))
    assert page.count(problem) == 1
    assert 'id="class-accuracy"' in page


@pytest.mark.parametrize("how", ["md", "html", "latex", "csv", "json", "parquet"])
@pytest.mark.parametrize("only", [None, "classes", "by-class", "images"])
def test_every_format_is_written(grid: SyntheticGrid, tmp_path: Path, how: str, only: str | None) -> None:
    to = tmp_path / "file"
    asked = [] if only is None else ["--only", only]
    arguments = ["classes", "--storage", grid.storage, "--format", how, "--output", str(to), *asked]
    assert main(arguments) == 0
    written = to.read_bytes()
    assert written
    if how == "html":
        assert b"<eel>" not in written


def test_a_part_of_a_grid_is_shown(grid: SyntheticGrid, capsys: Capture) -> None:
    assert main(["classes", "--storage", grid.storage, "--where", "mode=baseline", "--only", "classes"]) == 0
    out = capsys.readouterr().out
    assert "from ViT-T" not in out
    assert "alone" in out


def test_python_gives_the_frames(grid: SyntheticGrid) -> None:
    loaded = load_grid(grid.storage)
    assert loaded.classes()["never_right"].to_list() == [[], [1, 2], [2]]
    assert loaded.recalls().filter(mode="distilled")["recall_percent"].to_list() == pytest.approx([93.75, 50.0, 0.0])
    assert loaded.confusion().height == 3 + 2 * 3 + 3 + 4
    assert loaded.reliability()["images"].sum() == 50
    assert loaded.disagreement()["seed"].to_list() == [0, 1]
    assert loaded.image_noise()["mode"].to_list() == ["baseline", "distilled"]
    assert loaded.predictions().height == 50
    logits_NC = loaded.logits(grid.one(kind="teacher")["stage_id"])["test"]
    assert (logits_NC.argmax(axis=1) == np.array(LABELS["test"])).all()
