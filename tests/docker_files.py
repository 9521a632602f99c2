"""What lies in docker/, read: for the tests that hold these files together."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Files of the user's own, which the manifests read.
MADE_BY_THE_USER = {"docker/.env", "docker/ray-token"}


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


def shared(kind: str) -> Any:
    """What both manifests for KubeRay stand on: the claim, or the network policy."""
    documents = yaml.safe_load_all((DOCKER / "kuberay/shared.yaml").read_text())
    return next(document for document in documents if document["kind"] == kind)


def ray_cluster_specs() -> dict[str, Any]:
    return {
        "raycluster.yaml": load("kuberay/raycluster.yaml")["spec"],
        "rayjob.yaml": load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"],
    }


def templates() -> dict[str, Any]:
    """Every pod of the manifests with its labels, by where it stands."""
    found = {"submitter": load("kuberay/rayjob.yaml")["spec"]["submitterPodTemplate"]}
    for name, spec in ray_cluster_specs().items():
        found[f"{name} head"] = spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            found[f"{name} {group['groupName']}"] = group["template"]
    return found


def pods() -> dict[str, Any]:
    return {name: template["spec"] for name, template in templates().items()}


def nodes() -> dict[str, Any]:
    """The pods that are nodes of a Ray."""
    return {name: pod for name, pod in pods().items() if name != "submitter"}


def containers() -> dict[str, Any]:
    """Every container of every pod."""
    return {
        f"{name} {container['name']}": container
        for name, pod in pods().items()
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    }


def services() -> dict[str, Any]:
    """Every service of compose."""
    found: dict[str, Any] = load("compose.yaml")["services"]
    return found
