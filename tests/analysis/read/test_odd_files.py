"""What somebody may have put in a file's place is one line that names it, and everything else is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import analysis.report
import launch
from analysis.cli import main
from tests.analysis.conftest import ROOT, SyntheticGrid
from tests.analysis.test_refusals import finish

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]

DEEP = b"[" * 200_000
HUGE = b'{"done": 1' + b"0" * 400 + b', "total": 2, "at": "2026-05-04T12:00:00+00:00"}'
LATER = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="seconds")
COMMANDS = ("table", "records", "curves", "report", "table --all", "--status")


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are of the same frames as the tables, and take seconds."""
    monkeypatch.setattr(analysis.report, "pictures", lambda grid: [])


@pytest.fixture
def odd(make_grid: Maker) -> SyntheticGrid:
    """All of it done but the last cell; and beside it a grid that nothing is done to."""
    other = make_grid("other", dataset="cifar10", seeds=[0], written_at="2026-01-01T00:00:00+00:00")
    made = make_grid(seeds=[0, 1])
    for grid in (other, made):
        for row in grid.rows[: -1 if grid is made else None]:
            finish(grid, row)
    return made


def told(command: str, grid: SyntheticGrid, capsys: Capture) -> tuple[int, str]:
    """The exit status, and all that is said."""
    if command == "--status":
        status = launch.main(["--status", "tiny", "--storage", grid.storage])
    else:
        name, *options = command.split()
        status = main([name, *(options or ["tiny"]), "--storage", grid.storage])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out + err


def last(grid: SyntheticGrid) -> str:
    return grid.folder(grid.rows[-1])


def record(**facts: Any) -> Callable[[SyntheticGrid], bytes]:
    def changed(grid: SyntheticGrid) -> bytes:
        whole = json.loads(grid.record(grid.rows[-1], status="done", test_top1_last=0.85))
        return json.dumps({**whole, **facts}).encode()

    return changed


def sign(**facts: Any) -> Callable[[SyntheticGrid], bytes]:
    told = {"done": 1, "total": 2, "at": datetime.now(UTC).isoformat(), "host": "far", "launch": "one", **facts}
    return lambda grid: json.dumps(told).encode()


@dataclass(frozen=True)
class Odd:
    """A file of the last cell, what it holds, and what is said of it."""

    file: str
    data: Callable[[SyntheticGrid], bytes]
    reason: str


FILES = {
    "a deep record": Odd("record.json", lambda grid: DEEP, "not a record: nested too deeply"),
    "a deep failure": Odd("failure.json", lambda grid: DEEP, "not a record: nested too deeply"),
    "deep progress": Odd("progress.json", lambda grid: DEEP, "nested too deeply"),
    "a deep lease": Odd("lease-0001.json", lambda grid: DEEP, "nested too deeply"),
    "progress of 10^400": Odd("progress.json", lambda grid: HUGE, "done is far too large a number"),
    "progress of a denormal": Odd("progress.json", sign(total=1e-308), "1 of 1e-308 is no progress"),
    "progress of the future": Odd("progress.json", sign(at=LATER), f"its time, {LATER}, lies in the future"),
    "a lease of the future": Odd("lease-0001.json", sign(at=LATER), f"its time, {LATER}, lies"),
    "a large record": Odd("record.json", lambda grid: b" " * (2**20 + 1), "is larger than 1 MiB"),
    "a share of 1e308": Odd("record.json", record(test_top1_last=1e308), "not a record: test_top1_last is 1e+308"),
    "negative parameters": Odd("record.json", record(parameters=-7), "not a record: parameters is -7"),
    "a record with a key twice": Odd(
        "record.json",
        lambda grid: record(parameters="x")(grid)[:-1] + b', "seed": 1}',
        "not a record: it has 'seed' twice",
    ),
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_odd_file_is_named_and_the_rest_is_shown(
    odd: SyntheticGrid, capsys: Capture, command: str, what: str
) -> None:
    case = FILES[what]
    odd.write(f"{last(odd)}/{case.file}", case.data(odd))
    status, said = told(command, odd, capsys)
    if command == "--status":
        assert status == 1  # one stage is missing, and nothing runs
        assert "3 of 4 done" in said
        assert "running" not in said
    else:
        assert status == 0
        if command == "table":
            assert "80.50" in said
            assert "84.00" in said
        elif command == "table --all":
            assert "other" in said
    assert f"{last(odd)}/{case.file}: {case.reason}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_whole_file_is_believed(odd: SyntheticGrid, capsys: Capture, command: str) -> None:
    odd.write(f"{last(odd)}/record.json", record()(odd))
    status, said = told(command, odd, capsys)
    assert status == 0
    assert "record.json: " not in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_result_of_the_future_is_shown_and_named(odd: SyntheticGrid, capsys: Capture, command: str) -> None:
    odd.write(f"{last(odd)}/record.json", record(finished_at=LATER)(odd))
    status, said = told(command, odd, capsys)
    assert status == 0
    assert f"{last(odd)}/record.json: its time, {LATER}, lies in the future: a clock is wrong" in said
    if command == "table":
        assert "84.50" in said


def planned(**facts: Any) -> Callable[[SyntheticGrid], bytes]:
    return lambda grid: json.dumps({**grid.plan, **facts}).encode()


def spec(**facts: Any) -> Callable[[SyntheticGrid], bytes]:
    return lambda grid: json.dumps({**grid.plan, "spec": {**grid.plan["spec"], **facts}}).encode()


def first_stage(**facts: Any) -> Callable[[SyntheticGrid], bytes]:
    def changed(grid: SyntheticGrid) -> bytes:
        stage, *others = grid.plan["stages"]
        return json.dumps({**grid.plan, "stages": [{**stage, **facts}, *others]}).encode()

    return changed


PLANS: dict[str, tuple[Callable[[SyntheticGrid], bytes], str]] = {
    "deep": (lambda grid: DEEP, "not a plan: nested too deeply"),
    "of an unknown kind": (first_stage(kind="student"), "of no known kind"),
    "of a kind that is a list": (first_stage(kind=["cell"]), "of no known kind"),
    "with an id that leads away": (first_stage(id="../../x"), "a stage without an id"),
    "without stages": (planned(stages=[]), "it has no stages"),
    "with stages as text": (planned(stages="cells"), "it has no stages"),
    "of no time": (planned(written_at=7), "7 is no time of ISO 8601"),
    "without a spec": (planned(spec=None), "its spec has no data set"),
    "with a spec as text": (planned(spec="dataset"), "its spec has no data set"),
    "with a spec as a list": (planned(spec=["dataset"]), "its spec has no data set"),
    "without a data set": (spec(dataset=None), "its spec has no data set"),
    "with a data set of no name": (spec(dataset={"name": 7}), "its data set has no name"),
    "with rows as text": (planned(rows="rows"), "not a plan: "),
    "with a row of no stage": (planned(rows=[{"kind": "cell", "stage_id": "elsewhere"}]), "a row of 'elsewhere'"),
    "with a number of 401 digits": (planned(extra=10**400), "extra is far too large a number"),
}


@pytest.mark.parametrize("what", PLANS)
@pytest.mark.parametrize("command", ["table", "records", "curves", "report"])
def test_an_odd_plan_is_one_line(odd: SyntheticGrid, capsys: Capture, command: str, what: str) -> None:
    data, reason = PLANS[what]
    path = odd.write("grids/tiny/plan.json", data(odd))
    status, said = told(command, odd, capsys)
    assert status == 2
    assert said.startswith(f"error: {path}: ")
    assert said.endswith("; launch the grid again\n")
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", PLANS)
def test_beside_an_odd_plan_other_grids_are_shown(odd: SyntheticGrid, capsys: Capture, what: str) -> None:
    path = odd.write("grids/tiny/plan.json", PLANS[what][0](odd))
    status, said = told("table --all", odd, capsys)
    assert status == 0
    assert f"{path}: " in said
    assert "cifar10" in said


STUDIES: dict[str, Any] = {
    "text": "a study",
    "a list": [1],
    "without a study": {"protocol": "best", "pairs": [], "models": []},
    "with pairs as text": {"study": "S", "protocol": "best", "pairs": "x", "models": []},
    "with a figure as text": {
        "study": "S",
        "protocol": "best",
        "models": [],
        "pairs": [{"teacher": "ViT-T", "student": "ResNet-S", "baseline": "80", "distilled": 81}],
    },
    "with models as numbers": {"study": "S", "protocol": "best", "pairs": [], "models": [1]},
}


@pytest.mark.parametrize("what", STUDIES)
@pytest.mark.parametrize("command", ["table", "compare", "report"])
def test_odd_published_figures_are_named_and_the_grid_is_shown(
    odd: SyntheticGrid, capsys: Capture, command: str, what: str
) -> None:
    path = odd.write("grids/tiny/plan.json", spec(published=STUDIES[what])(odd))
    status, said = told(command, odd, capsys)
    if command == "compare":
        assert (status, said.count("\n")) == (2, 1)
        return
    assert status == 0
    assert f"{path}: its published figures cannot be read: " in said


def test_odd_versions_of_a_record_are_shown_as_they_are(odd: SyntheticGrid, capsys: Capture) -> None:
    odd.write(f"{last(odd)}/record.json", record(versions="[" * 100_000)(odd))
    assert told("report", odd, capsys)[0] == 0


PLACES = ("record.json", "failure.json", "progress.json", "lease-0001.json", "curve.parquet")


def in_a_process_of_its_own(grid: SyntheticGrid, *commands: list[str]) -> str:
    """All that commands say: they may wait for ever."""
    script = "import sys, json; from analysis.cli import main; import launch\nfor command in json.loads(sys.argv[1]):\n"
    script += "    print((launch.main if command[0] == '--status' else main)(command))\n"
    told = [[*command, "--storage", grid.storage] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("odd_file", ["pipe", "endless", "sparse"])
def test_nothing_is_waited_for(odd: SyntheticGrid, odd_file: str) -> None:
    for file in PLACES:
        row = odd.rows[-1] if file != "curve.parquet" else odd.rows[0]
        place = odd.root / odd.folder(row) / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        put(odd_file, place)
    said = in_a_process_of_its_own(
        odd, ["records", "tiny"], ["curves", "tiny"], ["table", "--all"], ["--status", "tiny"]
    )
    for file in PLACES:
        assert f"/{file}: is " in said
    assert "80.50" in said


@pytest.mark.parametrize("odd_file", ["pipe", "endless", "sparse"])
def test_no_plan_is_waited_for(odd: SyntheticGrid, odd_file: str) -> None:
    place = odd.root / "grids/tiny/plan.json"
    place.unlink()
    put(odd_file, place)
    said = in_a_process_of_its_own(odd, ["table", "tiny"], ["table", "--all"], ["--status", "tiny"])
    assert said.count("grids/tiny/plan.json: is ") == 3
    assert "cifar10" in said


def put(odd_file: str, place: Path) -> None:
    if odd_file == "pipe":
        os.mkfifo(place)
    elif odd_file == "endless":
        place.symlink_to("/dev/zero")
    else:
        with open(place, "wb") as file:
            file.truncate(30 * 2**30)
