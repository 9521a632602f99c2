"""A Ray of several nodes on this machine, in a process of its own: nodes come and go, and nobody else is touched."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import psutil

# For whoever is to join.
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
START_SECONDS = 120.0


@dataclass(frozen=True)
class Node:
    """raylet: the id of its process, below which the node's workers are."""

    number: int
    raylet: int
    cpus: int
    gpus: int


class RayCluster:
    """A head without CPUs, where drivers and Ray's own services are, and nodes that do the work."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self._started: list[psutil.Process] = []
        self._folder = tempfile.mkdtemp(prefix="kdr", dir="/tmp")  # the paths of Ray's sockets may have 107 bytes
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        served = (theirs, self._folder, ENVIRONMENT)
        self._process = spawn.Process(target=_serve, args=served, name="ray-cluster", daemon=True)
        self._process.start()
        theirs.close()
        self.address: str = self._answer()

    def add_node(self, *, cpus: int, gpus: int = 0) -> Node:
        number, raylet = self._ask("add", cpus, gpus)
        node = Node(number, raylet, cpus, gpus)
        self.nodes[number] = node
        return node

    def remove_node(self, node: Node, *, at_once: bool = True) -> None:
        """Lose a node, its raylet by kill -9. at_once: with all its processes, as a machine that is switched off; else
        its workers live until they notice."""
        below = _below(node.raylet)
        self._started += below
        for process in below if at_once else []:
            _send(process, signal.SIGSTOP)  # none may tell of the others
        self._ask("remove", node.number)
        for process in below if at_once else []:
            _send(process, signal.SIGKILL)
        del self.nodes[node.number]

    def drain_node(self, node: Node, *, seconds: float) -> None:
        """Announce that a node is to be taken away so soon, as a cloud does of a spot instance. Ray ends it then."""
        self._started += _below(node.raylet)
        self._ask("drain", node.number, seconds)
        del self.nodes[node.number]

    def node_of(self, pid: int) -> Node | None:
        """The node that a process runs on, None for one that runs on none of those that are left."""
        raylets = {node.raylet: node for node in self.nodes.values()}
        try:
            above = [process.pid for process in psutil.Process(pid).parents()]
        except psutil.NoSuchProcess:
            return None
        return next((raylets[parent] for parent in above if parent in raylets), None)

    def close(self) -> None:
        """End it, and by their ids whatever processes of it are left."""
        self._pipe.close()
        self._process.join(60)
        self._process.kill()
        for process in self._started:  # of nodes that are gone
            _send(process, signal.SIGKILL)
        psutil.wait_procs(self._started, timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        return self._answer()

    def _answer(self) -> Any:
        if not self._pipe.poll(START_SECONDS):
            raise TimeoutError("the Ray cluster does not answer")
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _serve(pipe: Connection, folder: str, environment: dict[str, str]) -> None:
    """Keeps the cluster until the other end of the pipe is closed, or its process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever holds the other end
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update({**environment, "RAY_TMPDIR": folder, "RAY_worker_niceness": "0"})
    try:
        with contextlib.suppress(EOFError):
            _obey(pipe)
    finally:
        for process in _below(os.getpid()):
            _send(process, signal.SIGKILL)


def _obey(pipe: Connection) -> None:
    from ray._raylet import GcsClient
    from ray.cluster_utils import Cluster
    from ray.core.generated import autoscaler_pb2

    common = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    nodes: list[Any] = []
    pipe.send(cluster.address)
    while True:
        what, *given = pipe.recv()
        try:
            if what == "add":
                nodes.append(cluster.add_node(num_cpus=given[0], num_gpus=given[1], **common))
                pipe.send((len(nodes), nodes[-1].all_processes["raylet"][0].process.pid))
            elif what == "drain":
                until_ms = int(1000 * (time.time() + given[1]))
                reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
                node = nodes[given[0] - 1].node_id
                pipe.send(GcsClient(address=cluster.address).drain_node(node, reason, "taken away", until_ms))
            else:
                cluster.remove_node(nodes[given[0] - 1], allow_graceful=False)
                pipe.send(None)
        except Exception as error:  # for the other end to raise
            pipe.send(RuntimeError(repr(error)))
