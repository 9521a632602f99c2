"""The nodes of a Ray as they come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from grid.cluster.nodes.capacity import Capacity
from grid.cluster.nodes.departure import draining_nodes
from grid.spec.resources import Resources

LOOK_SECONDS = 3.0


@dataclass(frozen=True)
class Node:
    id: str
    name: str
    """Its address, with its host's name."""
    resources: Mapping[str, float]
    """As Ray names them."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Node:
        """From an entry of ray.nodes()."""
        address, host = facts["NodeManagerAddress"], facts["NodeManagerHostname"]
        return cls(facts["NodeID"], address if host in ("", address) else f"{address} ({host})", facts["Resources"])

    @property
    def works(self) -> bool:
        """A head may be there without anything to run a stage on."""
        return bool(self.resources.get("CPU") or self.resources.get("GPU"))


def alive_nodes() -> list[Node]:
    """Those that stay."""
    leaving = draining_nodes()
    return [Node.of(facts) for facts in ray.nodes() if facts["Alive"] and facts["NodeID"] not in leaving]


class Fleet:
    """What the grid may use at the moment. say: is told, in a person's words, when that changes."""

    def __init__(self, wanted: Resources, *, say: Callable[[str], None]) -> None:
        """Raises UserError where a teacher or a cell fits on no node."""
        self.nodes, self._say = alive_nodes(), say
        self._capacity = Capacity.of([node.resources for node in self.nodes], wanted)
        self._looked = time.monotonic()

    def __str__(self) -> str:
        cpus, gpus = (sum(node.resources.get(kind, 0) for node in self.nodes) for kind in ("CPU", "GPU"))
        count = len([node for node in self.nodes if node.works])
        return f"{count} node{'s' * (count != 1)}, {cpus:g} CPUs, {gpus:g} GPUs"

    def capacity(self) -> Capacity:
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._look()
        return self._capacity

    def _look(self) -> None:
        before, self.nodes = {node.id: node for node in self.nodes}, alive_nodes()
        now = {node.id: node for node in self.nodes}
        changes = [f"{before[one].name} is gone" for one in before.keys() - now.keys() if before[one].works]
        changes += [f"{now[one].name} has joined" for one in now.keys() - before.keys() if now[one].works]
        if changes:
            self._capacity = self._capacity.on([node.resources for node in self.nodes])
            self._say(f"Nodes: {', '.join(changes)}; now {self}")
