"""The command line: what it prints and returns, without starting Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import launch
from tests.conftest import tiny_grid

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Ray would be the failure."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("grid.cluster.session.session", refuse)


def grid_file(folder: Path, **changes: object) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**tiny_grid(**changes), "description": "a tiny grid"}), encoding="utf-8")
    return str(path)


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run, expect bad input, return the one line."""
    assert launch.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("changes", "extra", "words"),
    [
        ({}, ["--grid", "digit"], ["unknown grid 'digit'", "did you mean 'digits'"]),
        ({}, ["--grid", "none.yaml"], ["none.yaml: no such file"]),
        ({"recipes": {}}, [], ["recipes: unknown key; did you mean 'recipe'"]),
        ({"teachers": []}, [], ["teachers is empty"]),
        ({"temperature": -4}, [], ["temperature", "greater than 0"]),
        ({"alpha": 1.01}, [], ["alpha", "less than or equal to 1"]),
        ({"students": ["resnet1888"]}, [], ["students.0", "unknown model 'resnet1888'", "did you mean resnet18"]),
        ({"students": [{"name": "resnet18", "args": {"depht": 3}}]}, [], ["students.0", "resnet18", "depht"]),
        ({"students": [{"name": "vit_tiny_patch16_224"}]}, [], ["students.0", "1 x 8 x 8", "224"]),
        ({}, ["--set", "recipe.epohs=3"], ["recipe.epohs: unknown key; did you mean 'epochs'"]),
        ({}, ["--set", "recipe.views.mixing.mixup=1"], ["recipe.views.mixing.mixup: unknown key", "'mixup_alpha'"]),
        (
            {},
            ["--set", "recipe.views.mixing={mixup_alpha: 1, partners: batch}"],
            ["students.0: views.mixing.partners 'batch'", "targets: online"],
        ),
        ({"view_streams": 2}, ["--set", "recipe.views.stream=1"], ["leave recipe.views.stream out"]),
        ({}, ["--cpus", "0"], ["--cpus must be >= 1"]),
        ({}, ["--cpus", "2", "--address", "auto"], ["--cpus", "leave it out"]),
        ({}, ["--storage", "nosuch://x"], ["--storage nosuch://x"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    extra: list[str],
    words: list[str],
) -> None:
    grid = [] if "--grid" in extra else ["--grid", grid_file(tmp_path, **changes)]
    storage = [] if "--storage" in extra else ["--storage", str(tmp_path / "runs")]
    line = fails(capsys, *grid, *storage, *extra)
    for word in words:
        assert word in line


def test_malformed_yaml_is_one_line_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("dataset: {name: digits\nseeds: [0\n", encoding="utf-8")
    line = fails(capsys, "--grid", str(path))
    assert "broken.yaml line 2" in line or "broken.yaml line 3" in line
    assert "malformed YAML" in line


def test_a_storage_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    line = fails(capsys, "--grid", grid_file(tmp_path), "--storage", str(tmp_path / "file" / "runs"))
    assert "cannot be written" in line


def test_a_foreign_result_under_an_id_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from grid.plan import make_plan
    from grid.read.grid_file import load_grid

    grid = grid_file(tmp_path)
    cell = make_plan(load_grid(grid)).cells[0]
    folder = tmp_path / "runs" / cell.folder
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"schema_version": 1}')
    (folder / "identity.json").write_text("{}")
    line = fails(capsys, "--grid", grid, "--storage", str(tmp_path / "runs"))
    assert cell.id in line
    assert "another computation" in line


def test_a_grid_that_is_refused_leaves_the_last_plan_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "runs/grids/tiny/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("the plan of a launch")
    fails(capsys, "--grid", grid_file(tmp_path, students=["resnet1888"]), "--storage", str(tmp_path / "runs"))
    assert plan.read_text() == "the plan of a launch"


def test_logits_that_nothing_needs_are_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after someone has deleted the logits of a finished grid to free the disk."""
    from grid.plan import make_plan
    from grid.read.grid_file import load_grid
    from grid.store.records import make_record, record_to_json
    from grid.store.store import Store

    grid, storage = grid_file(tmp_path), str(tmp_path / "runs")
    plan, store = make_plan(load_grid(grid)), Store(storage)
    for stage in plan.stages:
        if stage.kind != "logits":
            facts = make_record({"stage_id": stage.id, "kind": stage.kind, "status": "done"})
            store.write(f"{stage.folder}/record.json", record_to_json(facts))
    assert launch.main(["--grid", grid, "--storage", storage, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "not needed" in out
    assert "Nothing to do" in out
    assert launch.main(["--grid", grid, "--storage", storage, "--wandb", "disabled"]) == 0
    assert "Everything was done already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        ("ftp://localhost:9/x", "Connection refused"),
        (
            "memory://x",
            "one process alone would see what it holds: give a folder that all nodes see, or s3:// or gs://",
        ),
        ("http://localhost:9/x", "cannot be written: give a folder"),
        ("simplecache::s3://b/x", "a storage is one place"),
        ("foo://x", "Protocol not known: foo"),
    ],
)
def test_a_storage_that_can_be_none_is_a_line(
    storage: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["--grid", grid_file(tmp_path), "--dry-run", "--storage", storage]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: --storage {storage}: ")
    assert reason in err
    assert err.count("\n") == 1


def test_a_storage_that_went_away_in_the_middle_leaves_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.errors import AnalysisError
    from grid.plan import make_plan
    from grid.read.grid_file import load_grid
    from grid.store.records import make_record, record_to_json
    from grid.store.store import Store

    grid, storage = grid_file(tmp_path), str(tmp_path / "runs")
    plan, store = make_plan(load_grid(grid)), Store(storage)
    for stage in plan.stages:
        facts = make_record({"stage_id": stage.id, "kind": stage.kind, "status": "done"})
        store.write(f"{stage.folder}/record.json", record_to_json(facts))

    def gone(*_: object) -> str:
        raise AnalysisError(f"no grid 'tiny' was run in {storage}")

    monkeypatch.setattr("analysis.cli.table", gone)
    assert launch.main(["--grid", grid, "--storage", storage, "--wandb", "disabled"]) == 1
    assert f"There is no table: no grid 'tiny' was run in {storage}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["--gird", "digits"], ["--grid", "digits", "--cpus", "two"]])
def test_a_wrong_command_line_is_a_status_and_no_exit(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(argv) == 2
    assert capsys.readouterr().err.startswith("usage: python launch.py ")
    assert launch.main(["--help"]) == 0


def test_list_shows_each_grid_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("digits ") and len(line.split()) > 3 for line in lines)


def test_a_list_that_nobody_reads_to_its_end_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "launch.py", "--list"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_dry_run_shows_pairs_stages_and_what_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = tmp_path / "runs"
    grid = grid_file(tmp_path, teachers=[{"label": "big", "name": "resnet34"}], students=["resnet18"])
    assert launch.main(["--grid", grid, "--storage", str(storage), "--dry-run"]) == 0
    out = capsys.readouterr().out
    # torchvision's counts for one input channel and ten classes: 21,283,530 and 11,175,370 weights.
    assert "21.3M" in out
    assert "11.2M" in out
    assert "1.9x" in out
    assert "resnet18 from big, seed 1" in out
    assert "7 stages: 1 data set (1 to run), 1 teacher (1 to run), 1 teacher logits (1 to run)" in out
    assert not storage.exists()


def test_a_dry_run_means_the_images_of_the_last_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --data, too: with other images all stages have other ids."""
    from grid.plan import make_plan
    from grid.read.grid_file import load_grid
    from grid.store.plan_file import write_plan
    from grid.store.records import make_record, record_to_json
    from grid.store.store import Store
    from tests.images import noise, png, write_parquet

    data, storage = tmp_path / "my images", str(tmp_path / "runs")
    data.mkdir()
    for split, count in (("train", 20), ("test", 10)):
        write_parquet(data / f"{split}.parquet", [png(one) for one in noise(count)], [i % 10 for i in range(count)])
    grid = grid_file(tmp_path, dataset={"name": "cifar10"}, teachers=[], students=["resnet18"], modes=["baseline"])
    argv = ["--grid", grid, "--storage", storage, "--dry-run"]

    assert launch.main(argv) == 0
    before = capsys.readouterr().out
    assert "Its images would be downloaded. Give --data here, too, if it will be launched with it" in before

    plan, store = make_plan(load_grid(grid, data=str(data))), Store(storage)
    write_plan(plan, store)
    for stage in plan.stages:
        facts = make_record({"stage_id": stage.id, "kind": stage.kind, "status": "done"})
        store.write(f"{stage.folder}/record.json", record_to_json(facts))
    assert launch.main([*argv, "--data", str(data)]) == 0
    given = capsys.readouterr().out
    assert "Nothing to do: everything is done already" in given
    assert launch.main(argv) == 0
    found = capsys.readouterr().out
    assert f"Its images are those of its last launch on this storage, in {data}" in found.replace("\n", " ")
    assert [line for line in found.splitlines() if "done" in line] == [x for x in given.splitlines() if "done" in x]
    assert not any(stage.id in before for stage in plan.stages)


def test_dry_run_of_an_online_grid_plans_no_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--grid", grid_file(tmp_path), "--storage", str(tmp_path / "runs"), "--dry-run", "--set", "targets=online"]
    assert launch.main(argv) == 0
    out = capsys.readouterr().out
    assert (
        "10 stages: 1 data set (1 to run), 1 teacher (1 to run), 4 baseline (4 to run), 4 distilled (4 to run)" in out
    )
    assert "logits" not in out


def test_help_names_the_options_and_the_exit_statuses() -> None:
    done = subprocess.run(
        [sys.executable, "launch.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    assert "--dry-run" in done.stdout
    assert "130 interrupted" in done.stdout


def test_a_cluster_that_does_not_answer_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real session: it must refuse by itself
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        line = fails(
            capsys,
            "--grid",
            grid_file(tmp_path),
            "--storage",
            str(tmp_path / "runs"),
            "--address",
            address,
            "--wandb",
            "disabled",
        )
    assert f"--address {address}: nothing answers there" in line
