"""Before any work, within seconds: whether every node of a cluster can take part, and what is wrong where one cannot.

Each node is asked by a task of its own, which takes no CPU. What is asked is small: this module imports neither torch
nor timm, nor do the nodes unless pretrained weights are needed there.
"""

from __future__ import annotations

import platform
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grid.cluster.nodes.fleet import Node, alive_nodes
from grid.contract.program.version import WORKERS_RUN, content_hash, parts
from grid.contract.units import sized
from grid.errors import UserError, one_line
from grid.files.connect import reason_of
from grid.files.files import Files
from grid.private import machine_folder
from grid.store.probe import probing

# What a result may depend on, or what would not work together.
PACKAGES = ("ray", "torch", "torchvision", "timm", "numpy")
ANSWER_SECONDS = 90.0
SHOWN = 3  # of the nodes that cannot take part

LAUNCH = "launch"
SHARED = "the storage must be a folder that all nodes share, or a URL"


@dataclass(frozen=True)
class Needs:
    """What every node must have."""

    pretrained: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Names and arguments of models whose weights timm fetches, for so many classes and channels."""
    classes: int = 0
    channels: int = 0
    kept: int = 0
    """Bytes that a machine's copies of files behind a URL may take."""


def check_nodes(nodes: Sequence[Node], storage: Files, needs: Needs) -> None:
    """Raises UserError that names the nodes that cannot take part, with the reason and the way out."""
    folder = f"probe-{uuid.uuid4().hex[:8]}"
    word = uuid.uuid4().hex.encode()
    storage.write(f"{folder}/{LAUNCH}", word)
    try:
        found = _ask(nodes, storage.url, folder, word, needs)
        for node in nodes:
            if node.id not in found and _read(storage, f"{folder}/{node.id}") != word:
                found[node.id] = f"what it writes to {storage.url} is not seen here: {SHARED}"
    finally:
        storage.remove_folder(folder)
    there = {node.id for node in alive_nodes()} if found else set()  # one that was lost meanwhile keeps nobody waiting
    problems = [f"node {node.name}: {found[node.id]}" for node in nodes if node.id in found and node.id in there]
    if problems:
        shown = "; ".join(problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{len(problems)} of {len(nodes)} nodes cannot take part: {shown}{more}")


def _ask(nodes: Sequence[Node], url: str, folder: str, word: bytes, needs: Needs) -> dict[str, str]:
    """What keeps nodes from taking part, by their ids."""
    here = ray.get_runtime_context().get_node_id()
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {}
    for node in nodes:
        # This machine has fetched its weights already.
        wanted = replace(needs, pretrained=()) if node.id == here else needs
        place = NodeAffinitySchedulingStrategy(node.id, soft=False)
        asked[task.options(scheduling_strategy=place).remote(url, folder, node.id, word, wanted)] = node
    answered, silent = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_SECONDS)
    own = versions()
    problems = {asked[ref].id: f"does not answer within {ANSWER_SECONDS:.0f} s" for ref in silent}
    for ref in answered:
        try:
            there, problem = ray.get(ref)
        except Exception as error:  # whatever kept the node from answering
            problems[asked[ref].id] = f"cannot run this project's code: {one_line(error)[:500]}"
            continue
        problem = other_versions(there, here=own) or problem
        if problem:
            problems[asked[ref].id] = problem
    return problems


def check_own_worker() -> None:
    """Raises UserError where a worker on this machine runs other code than this launch: anything on its path may be
    called as this program's packages are."""
    own = content_hash(WORKERS_RUN)
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    asked = ray.remote(num_cpus=0, max_retries=0)(own_code).options(scheduling_strategy=node).remote()
    try:
        found, places = ray.get(asked, timeout=ANSWER_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return  # on a machine so busy nothing else answers either
    except Exception as error:  # whatever an import may raise
        raise UserError(f"Ray's workers cannot run this project's code: {one_line(error)[:500]}") from None
    if found != own:
        here = ", ".join(str(parts()[name]) for name in WORKERS_RUN)
        raise UserError(
            f"Ray's workers import other code than this launch ({', '.join(places)} instead of {here}): take those "
            "folders off PYTHONPATH, or rename what lies there"
        )


def own_code() -> tuple[str, list[str]]:
    """Runs in a worker: which code it has, and where."""
    return content_hash(WORKERS_RUN), [str(parts()[name]) for name in WORKERS_RUN]


def look(url: str, folder: str, node: str, word: bytes, needs: Needs) -> tuple[dict[str, str], str]:
    """Runs on a node: its versions, and what keeps it from taking part, empty where nothing does."""
    return versions(), _storage_problem(url, folder, node, word, needs.kept) or _weights_problem(needs)


def _storage_problem(url: str, folder: str, node: str, word: bytes, kept: int) -> str:
    try:
        root = machine_folder()
        storage = probing(url)
        if _read(storage, f"{folder}/{LAUNCH}") != word:
            return f"does not see in {url} what is written there from here: {SHARED}"
        storage.write(f"{folder}/{node}", word)
        free = kept if storage.is_local else shutil.disk_usage(root).free
    except UserError as error:
        return str(error)
    except Exception as error:  # each backend has exceptions of its own
        return f"--storage {url} cannot be written there: {reason_of(error)}"
    if free < kept:
        return f"{sized(free)} free in {root}, some {sized(kept)} are needed for copies of the storage's files"
    return ""


def _weights_problem(needs: Needs) -> str:
    if needs.pretrained:
        from kd.models.build import ModelError, build

        for name, args in needs.pretrained:
            try:
                build(name, args=args, classes=needs.classes, channels=needs.channels, pretrained=True)
            except ModelError as error:
                return str(error)
    return ""


def _read(storage: Files, path: str) -> bytes | None:
    try:
        return storage.read(path)
    except FileNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Of Python, of the packages, and of this project's code, as a hash."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return {**found, "kd-grid": content_hash(WORKERS_RUN)}


def other_versions(there: dict[str, str], *, here: dict[str, str]) -> str:
    other = [f"{name} {there[name]} (here {here[name]})" for name in here if there[name] != here[name]]
    return f"has {', '.join(other)}: install the same there, or use the same image" if other else ""
