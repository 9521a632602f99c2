"""Who gets into what docker/ starts: nobody without Ray's token, and nobody who gets in finds more than he needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import ray.dashboard

from tests.docker_files import (
    DOCKER,
    MADE_BY_THE_USER,
    ROOT,
    containers,
    load,
    nodes,
    pods,
    ray_cluster_specs,
    services,
    shared,
    templates,
)

FILES = [path for path in DOCKER.rglob("*") if path.is_file() and str(path.relative_to(ROOT)) not in MADE_BY_THE_USER]
PART = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
OPERATOR = {COMPONENT: "kuberay-operator"}
STRANGER = {"ray.io/is-ray-node": "yes", PART: "another"}


def environment(container: dict[str, Any]) -> dict[str, Any]:
    """A container's variables: their values, or where in a Secret they come from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def admits(labels: dict[str, str], *, namespace: str, port: int) -> bool:
    """Whether the network policy lets a pod connect to a pod of this project, which is in `default`."""
    for rule in shared("NetworkPolicy")["spec"]["ingress"]:
        known = any(
            peer["podSelector"]["matchLabels"].items() <= labels.items()
            and (namespace == "default" or peer.get("namespaceSelector") == {})
            for peer in rule["from"]
        )
        if known and ("ports" not in rule or port in [entry["port"] for entry in rule["ports"]]):
            return True
    return False


def test_every_pod_wants_the_token() -> None:
    for name, spec in ray_cluster_specs().items():
        assert spec["authOptions"] == {"mode": "token"}, name
    for name, container in containers().items():
        found = environment(container)
        assert found["RAY_AUTH_MODE"] == "token", f"{name} would start without a token where KubeRay makes none"
        assert "RAY_AUTH_TOKEN" not in found, "it is the operator's to give"


def test_every_service_wants_the_token_and_none_is_in_the_file() -> None:
    for name, service in services().items():
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name
        message = re.fullmatch(r"\$\{RAY_AUTH_TOKEN:\?([^}]*)\}", service["environment"]["RAY_AUTH_TOKEN"])
        assert message, "without a token compose stops, and has no default"
        assert "docker/.env" in message[1]


def test_the_cluster_launcher_takes_the_token_along() -> None:
    config = load("autoscaler.yaml")
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"], "nothing starts where the file is missing"
    assert config["file_mounts"] == {"~/.ray/auth_token": "docker/ray-token"}


def test_the_users_token_files_are_kept_out_of_git_and_of_the_image() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for path in MADE_BY_THE_USER:
        assert path in ignored
    sent = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert not [line for line in sent if line.startswith("!docker")]


def test_the_readme_makes_the_token_files_for_their_owner_alone() -> None:
    lines = (DOCKER / "README.md").read_text().splitlines()
    for path in MADE_BY_THE_USER:
        [made] = [line for line in lines if line.endswith(f"> {path})")]
        assert made.startswith("    (umask 077; ")
        assert "openssl rand -hex 32" in made


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_no_file_holds_a_secret(path: Path) -> None:
    text = path.read_text()
    assert "kind: Secret" not in text
    assert not re.search(r"name: \w*(KEY|TOKEN|SECRET|PASSWORD)\w*, value:", text)
    assert not re.search(r"\b[0-9a-f]{32,}\b", text)


def test_health_checks_need_no_token() -> None:
    """Ray answers these addresses for everybody, and all others for whoever has the token."""
    dashboard = Path(ray.dashboard.__file__).parent
    public = "".join((dashboard / f"http_server_{part}.py").read_text() for part in ("head", "agent"))
    for name in ("head", "worker"):
        address = re.search(r"http://localhost:\d+(/\S+)", services()[name]["healthcheck"]["test"][1])
        assert address
        assert f'"{address[1]}"' in public


def test_pods_are_not_root() -> None:
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, container in containers().items():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_pods_have_no_word_in_kubernetes() -> None:
    for name, pod in pods().items():
        assert pod["automountServiceAccountToken"] is False, name


def test_pods_write_to_their_own_tmp_and_to_the_storage_alone() -> None:
    for name, pod in pods().items():
        [tmp] = [volume for volume in pod["volumes"] if volume["name"] == "tmp"]
        assert tmp["emptyDir"]["sizeLimit"], name
        assert {volume["name"] for volume in pod["volumes"]} <= {"tmp", "storage"}
    for name, container in containers().items():
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


def test_pods_cannot_take_all_of_their_machine() -> None:
    for name, container in containers().items():
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"]), name


def test_services_cannot_take_all_of_their_machine_nor_change_themselves() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        [tmp] = service["tmpfs"]
        assert tmp.startswith("/tmp:mode=0700,uid=1000,gid=1000,size="), name
        assert "exec" in tmp.split(","), "what `compile: true` builds is run from there"
        assert service["mem_limit"], name
        assert service["pids_limit"] > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name, service in load("compose.gpu.yaml")["services"].items():
        assert set(service) <= {"image", "build", "deploy"}, f"{name}: what compose.yaml closes stays closed"


def test_only_pods_of_this_project_connect_to_one_another() -> None:
    policy = shared("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    labels = {name: template["metadata"]["labels"] for name, template in templates().items()}
    for name, own in labels.items():
        assert policy["podSelector"]["matchLabels"].items() <= own.items(), f"the policy does not cover {name}"
    for name in nodes():
        # torch's process groups listen on ports of their own choice
        assert all(admits(labels[name], namespace="default", port=port) for port in (6379, 8265, 10001, 41234)), name
        assert not admits(labels[name], namespace="another", port=6379)
    for port in (6379, 8265, 10001, 41234):
        assert not admits(STRANGER, namespace="default", port=port)
        assert admits(labels["submitter"], namespace="default", port=port) == (port == 8265)
        assert admits(OPERATOR, namespace="another", port=port) == (port == 8265)


def test_the_key_of_wandb_is_where_launches_run_and_nowhere_else() -> None:
    for name, container in containers().items():
        whole = [{"secretRef": {"name": "kd-grid-secrets", "optional": True}}] if name.endswith("ray-head") else None
        assert container.get("envFrom") == whole, name
        assert "WANDB_API_KEY" not in environment(container)
    for name, service in services().items():
        assert ("WANDB_API_KEY" in service["environment"]) == (name == "head"), name


def test_every_node_has_the_keys_of_the_storage() -> None:
    for name, pod in nodes().items():
        found = environment(pod["containers"][0])
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "HF_TOKEN"):
            assert found[key] == {"secretKeyRef": {"name": "kd-grid-secrets", "key": key, "optional": True}}, name


def test_a_login_at_hugging_face_does_not_reach_the_shared_volume() -> None:
    """It lies in HF_HOME, which is below XDG_CACHE_HOME where nobody says otherwise."""
    found = [environment(pod["containers"][0]) for pod in nodes().values()]
    found += [service["environment"] for service in services().values()]
    for variables in found:
        assert variables["HF_HOME"].startswith("/tmp/")
        assert variables["HF_HUB_CACHE"].startswith("/storage/")


def test_on_aws_only_the_groups_members_and_the_user_reach_the_nodes() -> None:
    """Ray's launcher adds to its own group what the file asks for, and never takes port 22 for all away."""
    config = load("autoscaler.yaml")
    for name, kind in config["available_node_types"].items():
        assert kind["node_config"]["SecurityGroupIds"], name
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required", name
    assert "security_group" not in config["provider"]
    head, worker = (config["available_node_types"][name]["node_config"] for name in ("head", "gpu"))
    assert head["IamInstanceProfile"] != worker["IamInstanceProfile"], "workers may not start machines"
    options = config["docker"]["run_options"]
    assert {"--cap-drop ALL", "--security-opt no-new-privileges:true"} <= set(options)
    assert any(option.startswith("--pids-limit") for option in options)
