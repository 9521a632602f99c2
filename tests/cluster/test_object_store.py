"""A whole grid on an S3 that is busy at times: launched and read as a user would, it gives what a folder gives."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.cli import main, table
from analysis.read.load import load_grid
from grid.plan import make_plan
from grid.read.grid_file import spec_from_dict
from grid.store.plan_file import write_plan
from grid.store.store import Store
from grid.work.execute import Runtime
from tests.conftest import tiny_grid
from tests.grid.running import prepare, train
from tests.launching import Launch, write_grid
from tests.object_store import BUCKET, KEY, SECRET, SLOW_DOWN, Answer, ObjectStore, as_environment

PLANTED = {"WANDB_API_KEY": "planted" + "0a1b2c3d" * 5, "HF_TOKEN": "hf_plantedPlantedPlanted"}
PASSING = ("seconds", "latency", "throughput", "_at")


class Busy:
    """A storage that refuses everything for four seconds, once the launch has begun to work."""

    def __init__(self) -> None:
        self.requests, self.refused, self.until = 0, 0, float("inf")

    def __call__(self, environ: dict[str, Any]) -> Answer | None:
        self.requests += 1
        if self.requests == 60:
            self.until = time.monotonic() + 4
        bad = self.requests >= 60 and time.monotonic() < self.until
        self.refused += bad
        return SLOW_DOWN if bad else None


@pytest.fixture(scope="module")
def ran(s3_server: ObjectStore) -> Iterator[tuple[str, Path, Launch, Busy]]:
    """The storage, the folder it was launched in, the launch and what it had to bear."""
    # Short: the paths of Ray's sockets, which are below it, may have 107 bytes.
    folder, storage, busy = Path(tempfile.mkdtemp(prefix="kdr", dir="/tmp")), f"s3://{BUCKET}/kd", Busy()
    with as_environment(s3_server, **PLANTED, TMPDIR=str(folder)), s3_server.failing(busy):
        args = ("--grid", write_grid(folder, tiny_grid()), "--storage", storage, "--cpus", "2", "--wandb", "offline")
        launch = Launch(*args, folder=folder)
        assert launch.finish() == 0, launch.text()
    yield storage, folder, launch, busy
    shutil.rmtree(folder)


# A curve has its seconds too.
DIFFER = ("grid", "launch", "code_version", "workers", "files", "curve_sha256")


def test_the_table_is_that_of_a_folder(ran: tuple[str, Path, Launch, Busy], s3: ObjectStore, tmp_path: Path) -> None:
    storage, _, launch, busy = ran
    assert busy.refused > 0
    plan, store, runtime = (
        make_plan(spec_from_dict(tiny_grid(), what="tiny")),
        Store(str(tmp_path)),
        Runtime().here(threads=1),
    )
    prepare(plan, store, runtime)
    for cell in plan.cells:
        assert train(cell, store, runtime) is None
    write_plan(plan, store)
    there, here = load_grid(storage, "tiny"), load_grid(str(tmp_path), "tiny")
    measured = [name for name in here.cells.columns if not any(word in name for word in PASSING)]
    same = [name for name in measured if name not in DIFFER]
    assert there.cells.select(same).equals(here.cells.select(same))
    assert table(storage, "tiny") == table(str(tmp_path), "tiny")
    assert table(storage, "tiny") in launch.out.read_text()


def test_everything_is_read_from_there(
    ran: tuple[str, Path, Launch, Busy], s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ran[0]

    def read(*args: str) -> None:
        status = main([args[0], "tiny", "--storage", storage, *args[1:]])
        told = capsys.readouterr().err
        assert status == 0, told
        assert "warning" not in told

    read("curves", "--output", str(tmp_path / "curves.csv"))
    read("records", "--output", str(tmp_path / "records.csv"))
    read("report", "--output", str(tmp_path / "report.html"))
    read("table", "--output", str(tmp_path / "table.md"))
    assert pl.read_csv(tmp_path / "records.csv")["status"].to_list() == ["done"] * 9
    assert len(pl.read_csv(tmp_path / "curves.csv")) == 9 * 2
    assert table(storage, "tiny").splitlines()[2] in (tmp_path / "table.md").read_text()
    assert "ResNet-T" in (tmp_path / "report.html").read_text()


def test_ray_leaves_nothing_there(ran: tuple[str, Path, Launch, Busy], s3: ObjectStore) -> None:
    store = Store(ran[0])
    assert store.names("") == ["cells", "datasets", "grids", "logits", "teachers"]
    assert store.names("grids/tiny") == ["plan.json"]


def test_no_secret_is_in_any_file_of_a_run(ran: tuple[str, Path, Launch, Busy], s3: ObjectStore) -> None:
    """On the storage, in the logs, in Weights & Biases' files, in what was printed."""
    storage, folder, launch, _ = ran
    store = Store(storage)
    found = {path: store._fs.cat_file(path) for path in store._fs.find(store._root) if not path.endswith("/")}
    found |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len([path for path in found if path.startswith(BUCKET) and path.endswith("record.json")]) == 11
    assert any(path.endswith(".wandb") for path in found)
    assert any(path.endswith("launch.log") for path in found)
    for secret in (SECRET, KEY, *PLANTED.values()):
        assert [path for path, data in found.items() if secret.encode() in data] == []
    assert SECRET not in launch.text()
