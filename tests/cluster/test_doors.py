"""What a launch opens on the machine, seen by a stranger who has no token: all that listens beyond the loopback
interface refuses him. With the token the same questions are answered: the refusals are not of something else."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from tests.at_work import workers
from tests.launching import Launch

SECONDS = 20.0
EVERYWHERE = ("::", "0.0.0.0")
LOOPBACK = ("127.0.0.1", "::1")
# Each of Ray's servers has one of these, and answers it without doing anything.
HARMLESS = ("ray.rpc.CoreWorkerService/GetCoreWorkerStats", "ray.rpc.ObjectManagerService/Pull")
HARMLESS += ("ray.rpc.NodeInfoGcsService/GetAllNodeInfo", "ray.rpc.NodeManagerService/GetSystemConfig")

WHO_AM_I = """
import subprocess, sys, ray
ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)
print("ran as", ray.get(ray.remote(num_cpus=0)(lambda: subprocess.check_output(["id", "-un"], text=True)).remote()))
"""


@dataclass(frozen=True)
class Door:
    """Where a process of the launch listens."""

    process: str
    pid: int
    address: str
    port: int


@dataclass(frozen=True)
class Opened:
    """A launch whose teacher's two workers are at work, with all that listens then."""

    launch: Launch
    doors: tuple[Door, ...]
    head: int
    token: str

    @property
    def for_others(self) -> list[Door]:
        return [door for door in self.doors if door.address not in LOOPBACK]


def family(launch: Launch) -> list[psutil.Process]:
    first = psutil.Process(launch.process.pid)
    return [first, *first.children(recursive=True)]


def doors_of(processes: list[psutil.Process]) -> Iterator[Door]:
    for process in processes:
        try:
            name, found = " ".join(process.cmdline())[:40] or process.name(), process.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        for one in found:
            if one.status == psutil.CONN_LISTEN:
                yield Door(name, process.pid, one.laddr.ip, one.laddr.port)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = strangers_folder(tmp_path_factory.mktemp("doors"))
    sets = ("--set", "seeds=[0]", "--set", "recipe.epochs=100000", "--set", "teachers.0.recipe.epochs=100000")
    launch = Launch("--grid", "digits", "--teacher-workers", "2", "--wandb", "offline", *sets, folder=folder)
    try:
        storage = folder / "runs"
        launch.wait_until(lambda: any(worker.has_saved() for worker in workers(storage, "teachers")))
        processes = family(launch)
        head = next(process for process in processes if process.name() == "gcs_server")
        (port,) = [door.port for door in doors_of([head])]
        yield Opened(launch, tuple(doors_of(processes)), port, head.environ()["RAY_AUTH_TOKEN"])
    finally:
        launch.kill()


def strangers_folder(folder: Path) -> Path:
    """Where a user may stand: modules lie there under names of this program's, and of libraries that it uses. Ray would
    put that folder first on the paths of its workers."""
    for name in ("kd/__init__.py", "analysis/__init__.py", "grid.py", "numpy.py", "polars.py"):
        module = folder / name
        module.parent.mkdir(exist_ok=True)
        module.write_text(f"import pathlib; pathlib.Path({str(folder)!r}, 'ran').touch(); raise SystemExit(1)\n")
    return folder


def methods() -> list[str]:
    """Every call that Ray's servers know, as far as its Python package does."""
    import ray.core.generated as generated

    found = {"ray.rpc.ObjectManagerService/Push", "ray.rpc.ObjectManagerService/Pull"}
    for module in pkgutil.walk_packages(generated.__path__, f"{generated.__name__}."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                found |= {f"{service.full_name}/{method.name}" for method in service.methods}
    return sorted(found)


def ask(door: Door, methods: list[str] | tuple[str, ...], *, token: str | None = None) -> dict[str, str]:
    """What a server says to each call, in gRPC's words; a call that it does not know is left out."""
    host = "127.0.0.1" if door.address in EVERYWHERE else door.address
    sent = [("authorization", f"Bearer {token}")] if token is not None else []
    answers: dict[str, str] = {}
    with grpc.insecure_channel(f"{host}:{door.port}") as channel:
        for method in methods:
            call = channel.unary_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
            try:
                call(b"", metadata=sent, timeout=SECONDS)
                answers[method] = "OK"
            except grpc.RpcError as error:
                answers[method] = error.code().name
    return {method: answer for method, answer in answers.items() if answer != "UNIMPLEMENTED"}


def asks_over_http(door: Door) -> bool:
    try:
        urllib.request.urlopen(f"http://{door.address}:{door.port}/", timeout=SECONDS)
    except urllib.error.HTTPError as error:
        return error.code == 401
    return False


def test_all_that_listens_for_others_asks_for_the_token(opened: Opened) -> None:
    known = methods()
    assert len(known) > 100
    assert len(opened.for_others) >= 8, "the head, the node and its workers"
    for door in opened.for_others:
        answers = ask(door, known)
        if set(answers.values()) == {"UNAVAILABLE"}:
            assert asks_over_http(door), door
            continue
        assert set(answers.values()) == {"UNAUTHENTICATED"}, (door, answers)
        let_in = ask(door, HARMLESS, token=opened.token)
        assert let_in, door
        assert "UNAUTHENTICATED" not in let_in.values(), (door, let_in)


def test_workers_of_a_teacher_talk_over_the_loopback_interface(opened: Opened) -> None:
    """torch's servers and stores ask for nothing: for others each worker has Ray's server alone."""
    group = [door for door in opened.doors if "RayTrainWorker" in door.process]
    assert len({door.pid for door in group}) == 2
    for_others = [door.pid for door in group if door.address not in LOOPBACK]
    assert len(for_others) == len(set(for_others)) == 2


def test_a_stranger_runs_nothing_and_whoever_has_the_token_does(opened: Opened, tmp_path: Path) -> None:
    def start(**environment: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.Popen(
            [sys.executable, "-c", WHO_AM_I, f"{own_address(opened)}:{opened.head}"],
            env={**clean, "HOME": str(tmp_path), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    strangers = start(RAY_AUTH_MODE="disabled"), start(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    said, _ = start(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=opened.token).communicate(timeout=180)
    assert "ran as" in said
    for stranger in strangers:
        said, _ = stranger.communicate(timeout=180)
        assert "ran as" not in said
        assert "missing or incorrect" in said
        assert stranger.returncode != 0


def own_address(opened: Opened) -> str:
    """Of the node, as the launch's processes are told it."""
    words = " ".join(word for process in family(opened.launch) for word in process.cmdline())
    return words.partition("--node-ip-address=")[2].split()[0]


def test_modules_in_the_working_folder_are_not_run(opened: Opened) -> None:
    folder = opened.launch.out.parent
    assert not (folder / "ran").exists()
    subprocess.run([sys.executable, "-c", "import numpy"], cwd=folder)
    assert (folder / "ran").exists(), "the control: Python itself takes them from where it is started"
    (folder / "ran").unlink()


def test_the_token_is_in_no_file_and_on_no_command_line(opened: Opened) -> None:
    token = opened.token.encode()
    assert len(token) == 64
    for process in family(opened.launch):
        assert opened.token not in " ".join(process.cmdline())
    folder = opened.launch.out.parent
    session = session_folder(opened)
    files = [path for root in (folder, session) for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    assert [path for path in files if token in path.read_bytes()] == []


def test_rays_session_lies_in_a_folder_of_the_users_alone(opened: Opened) -> None:
    session = session_folder(opened)
    closed = [above for above in session.parents if above.stat().st_mode & 0o777 == 0o700]
    assert closed, "what Ray makes is open to everybody"
    assert all(above.stat().st_uid == os.getuid() for above in closed)


def session_folder(opened: Opened) -> Path:
    words = " ".join(word for process in family(opened.launch) for word in process.cmdline())
    return Path(words.partition("--session-dir=")[2].split()[0])
