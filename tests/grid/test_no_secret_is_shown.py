"""A secret in a URL is refused wherever a URL is taken, and one that a library repeats is shown and kept nowhere."""

from __future__ import annotations

import errno
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import launch
from analysis import cli
from grid.contract.files.layout import FAILURE
from grid.errors import UserError, one_line
from grid.files import connect
from grid.files.retry import retried
from grid.plan import Plan
from grid.store import probe
from grid.store.store import TRACEBACK, Store
from grid.watch.signs import GridReader
from grid.work.execute import Runtime, execute
from tests.conftest import tiny_grid
from tests.images import write_folder
from tests.launching import ROOT, write_grid
from tests.object_store import BUCKET, ObjectStore, as_environment

Capture = pytest.CaptureFixture[str]

WITH_A_SECRET = ["https://CANARY@host/x", "s3://me:CANARY@bucket/x", "https://host/x?auth=CANARY", "s3://b/x#CANARY"]
SAID = "https://me:CANARY@host/x?token=CANARY refused it"


def refused(capsys: Capture) -> str:
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert "CANARY" not in told.err
    return told.err


@pytest.mark.parametrize("url", WITH_A_SECRET)
def test_no_storage_with_a_secret_is_taken(url: str, tmp_path: Path, capsys: Capture) -> None:
    grid = write_grid(tmp_path, tiny_grid())
    before = sorted(tmp_path.rglob("*"))
    for more in ([], ["--dry-run"], ["--address", "ray://127.0.0.1:1"]):
        assert launch.main(["--grid", grid, "--storage", url, *more]) == 2
        launched = refused(capsys)
    assert launch.main(["--status", "--storage", url]) == 2
    status = refused(capsys)
    assert sorted(tmp_path.rglob("*")) == before
    for command in ("table", "compare", "records", "curves", "plots", "report", "wandb", "export"):
        more = ["--to", str(tmp_path / "out")] if command == "export" else []
        assert cli.main([command, "tiny", "--storage", url, *more]) == 2
        assert refused(capsys) == launched == status
    assert ": leave it out of the URL: credentials come from the environment alone" in launched


@pytest.mark.parametrize("storage", ["me:CANARY@home?a#b", "file://{}/runs?x#y"])
def test_a_folder_of_any_name_is_taken(
    storage: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = write_grid(tmp_path, tiny_grid())
    assert launch.main(["--grid", grid, "--storage", storage.format(tmp_path), "--dry-run"]) == 0
    assert "ViT-S" in capsys.readouterr().out


@pytest.mark.parametrize("url", WITH_A_SECRET)
def test_no_grid_with_a_secret_is_taken(url: str, tmp_path: Path, capsys: Capture) -> None:
    teacher = tiny_grid()["teachers"][0]
    changes: list[tuple[dict[str, object], str]] = [
        ({"teachers": [{**teacher, "checkpoint": url}]}, "teachers.0.checkpoint: the URL holds a "),
        ({"students": [f"{url}/net.py:Net"]}, "students.0.factory: "),
        ({"dataset": {"name": "pets", "parquet": {"train": f"{url}/*.parquet"}}}, "dataset.parquet.train: "),
        ({"dataset": {"name": "pets", "folder": url}}, "dataset.folder: "),
    ]
    for change, words in changes:
        for more in ([], ["--dry-run"]):
            assert launch.main(["--grid", write_grid(tmp_path, tiny_grid(**change)), *more]) == 2
            line = refused(capsys)
            assert words in line
            assert "give its path" in line
    assert launch.main(["--grid", "cifar10_light", "--data", url, "--dry-run"]) == 2
    assert "--data: " in refused(capsys)


@pytest.mark.parametrize("address", ["ray://me:CANARY@host:10001", "me:CANARY@host:6379", "ray://host:1?token=CANARY"])
def test_no_address_with_a_secret_is_taken(address: str, tmp_path: Path, capsys: Capture) -> None:
    for more in ([], ["--dry-run"]):
        argv = ["--grid", write_grid(tmp_path, tiny_grid()), "--storage", str(tmp_path / "runs"), "--address", address]
        assert launch.main([*argv, *more]) == 2
        assert refused(capsys).startswith("error: --address ray://...: holds a ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("argv", [["--grid", "https:/me:CANARY@host/x.yaml"], ["--set", "https://me:CANARY@host"]])
def test_what_is_repeated_of_other_options_holds_none(argv: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert launch.main(["--grid", write_grid(tmp_path, tiny_grid()), *argv]) == 2
    assert "***@host" in refused(capsys)


def test_images_behind_a_question_mark_are_read(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "me@home?a;b"
    write_folder(folder, {"train": 40, "test": 20})
    data = {"name": "pets", "folder": str(folder), "image_size": 8}
    grid = write_grid(tmp_path, tiny_grid(dataset=data))
    assert launch.main(["--grid", grid, "--storage", str(tmp_path / "runs"), "--dry-run"]) == 0
    assert str(folder) not in capsys.readouterr().err


def test_an_endpoint_with_a_secret_is_not_repeated(
    s3: ObjectStore, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROBE", (0.5, 0.5))
    monkeypatch.setattr(probe, "PROBE_PATIENCE", 1.0)
    grid = write_grid(tmp_path, tiny_grid())
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    for endpoint in (f"http://{host}/CANARYinthepath", f"http://me:CANARY@{host}", f"http://{host}?token=CANARY"):
        with as_environment(s3, AWS_ENDPOINT_URL=endpoint):
            for more in ([], ["--dry-run"]):
                assert launch.main(["--grid", grid, "--storage", f"s3://{BUCKET}/kd", *more]) == 2
                assert f"--storage s3://{BUCKET}/kd: cannot be " in refused(capsys)


def fails(*args: object, **options: object) -> None:
    raise ValueError(SAID)


def test_what_a_storage_says_to_the_analysis_is_told_without_it(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "ls", fails)
    assert cli.main(["table", "--storage", "memory://there"]) == 2
    assert refused(capsys) == "error: --storage memory://there: grids: https://***@host/x?*** refused it\n"
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fails)
    assert launch.main(["--status", "tiny", "--storage", "memory://there"]) == 2
    assert "cannot be read: ValueError: https://***@host/x?*** refused it" in refused(capsys)


def test_a_file_that_is_passed_over_is_told_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("grids/tiny/plan.json", b"{}")

    def unreadable(path: str) -> bytes:
        raise OSError(errno.EACCES, SAID)

    monkeypatch.setattr(store, "read", unreadable)
    with pytest.raises(UserError, match=r"plan.json: .*https://\*\*\*@host/x\?\*\*\* refused it") as told:
        GridReader(store)
    assert "CANARY" not in str(told.value)


def test_a_failed_stages_record_and_traceback_hold_none(
    tmp_path: Path, tiny_plan: Callable[..., Plan], runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    (stage, *_), store = tiny_plan().cells, Store(str(tmp_path))
    said = execute(stage, store, runtime, fails)
    assert said == "ValueError: https://***@host/x?*** refused it"
    written = [store.read(f"{stage.folder}/{name}").decode() for name in (FAILURE, TRACEBACK)]
    for text in (*written, caplog.text):
        assert "refused it" in text
        assert "CANARY" not in text
    assert "Traceback (most recent call last)" in written[1]


def test_a_failure_that_cannot_be_recorded_is_logged_without_it(
    tmp_path: Path,
    tiny_plan: Callable[..., Plan],
    runtime: Runtime,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(str(tmp_path))
    monkeypatch.setattr(store, "write", fails)
    execute(tiny_plan().cells[0], store, runtime, fails)
    assert "its failure could not be recorded: ValueError: https://***@host/x?*** refused it" in caplog.text
    assert "CANARY" not in caplog.text


def test_a_line_on_another_try_holds_none(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([ConnectionError(SAID)])

    def call() -> str:
        for error in answers:
            raise error
        return "done"

    assert retried(call, what="s3://bucket/x") == "done"
    assert "ConnectionError: https://***@host/x?*** refused it; try 2" in caplog.text
    assert "CANARY" not in caplog.text


def test_the_log_of_a_launch_holds_none(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: object, **options: object) -> None:
        logging.getLogger("some.library").warning("GET %s", SAID)
        raise UserError("it ends here")

    monkeypatch.setattr("grid.launch.logged.run_grid", run)
    storage = str(tmp_path / "runs")
    assert launch.main(["--grid", write_grid(tmp_path, tiny_grid()), "--storage", storage, "--wandb", "disabled"]) == 2
    told = capsys.readouterr()
    logged = told.out + told.err + (tmp_path / "runs" / "grids" / "tiny" / "launch.log").read_text()
    assert "some.library WARNING GET https://***@host/x?*** refused it" in logged
    assert "CANARY" not in logged


@pytest.mark.long
@pytest.mark.parametrize(
    "script",
    [
        "import launch; launch.list_grids = fails; sys.argv[1:] = ['--list']; launch.command()",
        "from analysis import cli; cli.RUN['table'] = fails; sys.argv[1:] = ['table']; cli.command()",
    ],
)
def test_a_traceback_holds_none(script: str) -> None:
    code = f"import sys\nfrom tests.grid.test_no_secret_is_shown import fails\n{script}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ValueError: https://***@host/x?*** refused it" in done.stderr
    assert "CANARY" not in done.stderr


def test_errors_of_both_sides_are_told_without_it() -> None:
    from analysis.errors import AnalysisError

    for error in (UserError(SAID), AnalysisError(SAID), connect.reason_of(OSError(errno.EIO, SAID))):
        assert str(error) == "https://***@host/x?*** refused it"
    assert one_line(KeyError(SAID)) == "KeyError: 'https://***@host/x?*** refused it'"
