"""`--address auto` means the Ray that was started to be joined, never one that another launch has for itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from grid.cluster import address
from grid.cluster.address import address_meant, rays_here
from grid.errors import UserError
from grid.private import OWN_RAY


def processes(folder: Path, *rays: tuple[str, Path]) -> Path:
    """As /proc shows raylets, their workers, and what else runs."""
    commands = []
    for gcs, place in rays:
        sockets = place / "session_2026" / "sockets"
        commands.append(["/x/raylet", f"--raylet_socket_name={sockets}/raylet", f"--gcs-address={gcs}", "--flag"])
        commands.append(["python", "worker.py", f"--gcs-address={gcs}", f"--raylet_socket_name={sockets}/raylet"])
    for number, words in enumerate([*commands, ["sleep", "1"], [""]], start=1):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "cmdline").write_text("\0".join(words))
    (folder / "self").mkdir()
    return folder


def own(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / OWN_RAY).touch()
    return folder / "ray"


def auto(monkeypatch: pytest.MonkeyPatch, rays: Sequence[tuple[str, Path]]) -> str:
    monkeypatch.setattr(address, "rays_here", lambda: list(rays))
    return address_meant("auto")


def test_rays_are_known_by_their_nodes(tmp_path: Path) -> None:
    rays = [("192.0.2.1:6379", tmp_path / "ray"), ("192.0.2.1:7000", tmp_path / "other")]
    assert sorted(rays_here(processes(tmp_path / "proc", *rays))) == sorted(rays)


def test_auto_is_the_ray_that_belongs_to_no_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, started = ("192.0.2.1:7000", own(tmp_path / "kd-grid-0")), ("192.0.2.1:6379", tmp_path / "ray")
    assert auto(monkeypatch, [private, started]) == "192.0.2.1:6379"
    with pytest.raises(UserError, match=r"^--address auto: the only Ray on this machine is another launch's own"):
        auto(monkeypatch, [private])
    with pytest.raises(
        UserError, match=r"several Rays run on this machine: name one of 192.0.2.1:6379, 192.0.2.1:8000"
    ):
        auto(monkeypatch, [private, started, ("192.0.2.1:8000", tmp_path / "third")])
    assert auto(monkeypatch, []) == "auto", "Ray says why it finds none"


def test_auto_is_what_ray_address_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.9:6379")
    assert auto(monkeypatch, [("192.0.2.1:6379", tmp_path / "ray")]) == "auto"
