"""Every node is asked before any work, and one that cannot take part is named with the reason. What stands for Ray here
runs each node's task in this process."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import grid.cluster.nodes.preflight
import kd.models.build
from grid.cluster.nodes.fleet import Node
from grid.cluster.nodes.preflight import Needs, check_nodes, look, versions
from grid.errors import UserError
from grid.store.store import Store
from kd.models.build import ModelError

Look = Callable[..., Any]
DIGITS = 56  # of a node's id


class Cluster:
    """nodes: what each does instead of `look`; 'a' is where the launch is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: dict[str, Look] = {"a": look, "b": look, "c": look}
        self.asked: dict[str, Needs] = {}
        monkeypatch.setattr(ray, "remote", lambda **options: lambda function: self)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: self)
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(grid.cluster.nodes.preflight, "alive_nodes", lambda: self.nodes)

    @property
    def nodes(self) -> list[Node]:
        return [Node(name * DIGITS, f"node-{name}", {"CPU": 2.0}) for name in self.looks]

    def get_node_id(self) -> str:
        return "a" * DIGITS

    def options(self, *, scheduling_strategy: Any) -> Cluster:
        assert not scheduling_strategy.soft, "a node may not answer for another"
        self.place = scheduling_strategy.node_id
        return self

    def remote(self, url: str, folder: str, node: str, word: bytes, needs: Needs) -> tuple[Any, ...]:
        assert node == self.place
        self.asked[node[0]] = needs
        return (node[0], url, folder, node, word)

    def wait(self, tasks: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        silent = [task for task in tasks if self.looks[task[0]] is never]
        return [task for task in tasks if task not in silent], silent

    def get(self, task: tuple[Any, ...]) -> Any:
        node, *given = task
        return self.looks[node](*given, self.asked[node])


def never(*_: Any) -> None:
    raise AssertionError("nobody waits for it")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "runs"))
    store.write("grids/tiny/plan.json", b"{}")
    yield store
    assert store.names("") == ["grids"], "the probes are removed, whatever came of it"


def refused(cluster: Cluster, store: Store, needs: Needs | None = None) -> str:
    with pytest.raises(UserError) as error:
        check_nodes(cluster.nodes, store, needs or Needs())
    return str(error.value)


def test_nodes_that_share_the_storage_and_the_versions_take_part(cluster: Cluster, store: Store) -> None:
    check_nodes(cluster.nodes, store, Needs())
    assert cluster.asked.keys() == {"a", "b", "c"}


def test_a_folder_that_is_another_one_on_a_node_is_told(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    cluster.looks["b"] = lambda url, *rest: look(str(elsewhere), *rest)
    line = refused(cluster, store)
    assert line.startswith("1 of 3 nodes cannot take part: node node-b: does not see in")
    assert line.endswith("the storage must be a folder that all nodes share, or a URL")
    assert not elsewhere.exists(), "nothing is left behind there"


def test_what_a_node_writes_must_be_seen_here(cluster: Cluster, store: Store) -> None:
    cluster.looks["c"] = lambda *given: (versions(), "")
    assert "node node-c: what it writes to" in refused(cluster, store)


def test_a_node_that_may_not_write_is_told(cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*given: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grid.files.files.Files, "write", refuse)
            return look(*given)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    cluster.looks["b"] = read_only
    assert f"node node-b: --storage {store.url} cannot be written there: Permission denied" in refused(cluster, store)


@pytest.mark.parametrize("what", ["Python", "ray", "torch", "kd-grid"])
def test_other_versions_are_named(cluster: Cluster, store: Store, what: str) -> None:
    cluster.looks["b"] = lambda *given: ({**versions(), what: "0.0"}, "")
    line = refused(cluster, store)
    assert f"node node-b: has {what} 0.0 (here {versions()[what]}): install the same there" in line


def test_a_node_that_cannot_run_the_code_or_does_not_answer_is_named(cluster: Cluster, store: Store) -> None:
    def broken(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'pydantic'")

    cluster.looks |= {"b": broken, "c": never}
    line = refused(cluster, store)
    assert line.startswith("2 of 3 nodes cannot take part: node node-b: cannot run this project's code: ModuleNotFound")
    assert "node node-c: does not answer within 90 s" in line


def test_of_many_nodes_the_first_are_named(cluster: Cluster, store: Store) -> None:
    cluster.looks |= dict.fromkeys("bcde012", never)
    line = refused(cluster, store)
    assert line.startswith("7 of 8 nodes cannot take part: node node-b:")
    assert line.endswith("; and 4 more")


def test_pretrained_weights_are_looked_for_on_other_nodes_alone(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here they have been fetched by then."""

    def build(name: str, *, args: dict[str, Any], classes: int, channels: int, pretrained: bool) -> None:
        assert (args, classes, channels, pretrained) == ({"depth": 1}, 10, 3, True)
        raise ModelError(f"model {name}: its pretrained weights are neither here nor there")

    monkeypatch.setattr(kd.models.build, "build", build)
    line = refused(cluster, store, Needs(pretrained=(("resnet18", {"depth": 1}),), classes=10, channels=3))
    assert line.startswith("2 of 3 nodes cannot take part: node node-b: model resnet18: its pretrained weights")
    assert "node-a" not in line


def test_room_for_copies_is_asked_for_where_the_storage_is_a_url(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KD_GRID_CACHE", str(tmp_path))
    store = Store("memory://preflight")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    check_nodes(cluster.nodes, store, Needs(kept=2**20))
    line = refused(cluster, store, Needs(kept=2**30))
    assert f"node node-a: 1.0 MiB free in {tmp_path}, some 1.0 GiB are needed for copies" in line
    assert store.names("") == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
