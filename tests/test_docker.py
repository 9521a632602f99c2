"""What lies in docker/: every file parses, is pinned, runs as nobody special, and says what the program understands."""

from __future__ import annotations

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import jsonschema
import ray.autoscaler

import launch
from grid.read.grid_file import named_grids
from tests.docker_files import (
    DOCKER,
    MADE_BY_THE_USER,
    PROJECT,
    ROOT,
    load,
    nodes,
    pods,
    ray_cluster_specs,
    services,
    shared,
)

PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, comments left out and continued lines put together."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, rest in (line.split(None, 1) for line in whole.splitlines() if line)]


def arguments() -> dict[str, str]:
    return dict(text.split("=", 1) for name, text in instructions() if name == "ARG")


def copied() -> list[str]:
    """Files and folders of the checkout that the image is built from."""
    sources = []
    for name, text in instructions():
        if name == "COPY" and "--from" not in text:
            sources += shlex.split(text)[:-1]
        sources += re.findall(r"--mount=type=bind,source=([^,\s]+)", text)
    return sources


def extras() -> list[str]:
    return [extra for _, text in instructions() for extra in re.findall(r"--extra (\S+)", text)]


def with_defaults(text: str) -> str:
    """`${NAME:-default}` as compose reads it where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def ran() -> dict[str, list[str]]:
    """Each command line of `kd-grid` in these files and their README, without the command itself."""
    service = services()["launch"]
    commands = {
        "compose.yaml": [*service["entrypoint"], *service["command"]],
        "rayjob.yaml": shlex.split(load("kuberay/rayjob.yaml")["spec"]["entrypoint"]),
    }
    readme = (DOCKER / "README.md").read_text()
    for i, line in enumerate(re.findall(r"^ {4}.*kd-grid (--[^'\n]*)", readme, re.MULTILINE)):
        commands[f"README.md {i}"] = ["kd-grid", *shlex.split(line.replace("BUCKET", "bucket"))]
    for i, line in enumerate(re.findall(r"^ {4}.*run --rm launch +(--.*)", readme, re.MULTILINE)):
        commands[f"README.md launch {i}"] = [*service["entrypoint"], *shlex.split(line)]
    assert all(command.pop(0) == "kd-grid" for command in commands.values())
    return commands


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "everything is left out that is not named"
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} is not sent to the builder"


def test_the_image_holds_all_that_the_package_is_made_of() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    patterns = setuptools["packages"]["find"]["include"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    wanted = {name for name in packages if any(fnmatch(name, pattern) for pattern in patterns)}
    wanted |= {f"{module}.py" for module in setuptools["py-modules"]}
    wanted |= {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert wanted <= set(copied())


def test_files_beside_the_code_are_in_the_package() -> None:
    """A wheel takes no data that package-data does not name, and every package needs its __init__.py."""
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("grid", "kd", "analysis"):
        for path in (ROOT / package).rglob("*"):
            if not path.is_file() or "__pycache__" in path.parts or path.suffix == ".pyc":
                continue
            if path.suffix == ".py":
                assert (path.parent / "__init__.py").exists(), f"{path} is in no package"
            else:
                inside = path.relative_to(ROOT / package).as_posix()
                assert any(fnmatch(inside, pattern) for pattern in data.get(package, [])), f"{path} is in no wheel"


def test_everything_in_the_image_is_pinned() -> None:
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", arguments()["PYTHON_IMAGE"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", arguments()["UV_VERSION"])
    stages = {text.rsplit(" ", 1)[-1] for name, text in instructions() if name == "FROM"}
    for name, text in instructions():
        if name == "FROM":
            assert text.split()[0] in {"${PYTHON_IMAGE}", *stages}
        for install in re.findall(r"uv pip install .*?(?=;;|&&|$)", text):
            assert "constraints" in install or "--no-deps" in install, install
    optional = PROJECT["project"]["optional-dependencies"]
    assert extras() == ["cluster", "s3"]
    requirements = [*PROJECT["project"]["dependencies"], *(text for extra in extras() for text in optional[extra])]
    names = {re.split(r"[\[><=~! ]", text)[0] for text in requirements}
    assert {*names, "setuptools"} <= set(PINS)


def test_the_image_is_run_by_nobody_special() -> None:
    users = [text for name, text in instructions() if name == "USER"]
    assert users == ["1000:1000"], "by number, which Kubernetes can tell from root"
    last = [name for name, _ in instructions()].index("USER")
    assert not [text for name, text in instructions()[last:] if name in {"RUN", "COPY", "ADD"}]


def test_compose_keeps_the_dashboard_to_this_machine_and_waits_for_the_head() -> None:
    found = services()
    ports = [port for service in found.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8265:8265"]
    assert found["worker"]["depends_on"] == {"head": {"condition": "service_healthy"}}
    assert found["worker"]["deploy"]["replicas"] == 2
    assert set(found["launch"]["depends_on"]) == {"head", "worker"}
    for name in ("head", "worker"):
        assert found[name]["restart"] == "unless-stopped"
        assert found[name]["healthcheck"]["test"]
    for name, service in found.items():
        assert service["volumes"] == ["storage:/storage"], name
        assert "shm_size" in service
        assert not {"user", "privileged"} & set(service), name


def test_the_compose_files_images_are_those_the_dockerfile_says_to_build() -> None:
    built = set(re.findall(r"-t (kd-grid:\S+)", (DOCKER / "Dockerfile").read_text()))
    for file in ("compose.yaml", "compose.gpu.yaml"):
        for service in load(file)["services"].values():
            assert with_defaults(service["image"]) in built


def test_the_dockerfile_of_compose_is_where_it_says() -> None:
    build = services()["head"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")


def test_both_manifests_describe_one_cluster() -> None:
    cluster, job = ray_cluster_specs().values()
    assert cluster == job


def test_manifests_ask_for_the_pinned_ray_and_the_shared_storage() -> None:
    claim = shared("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name, spec in ray_cluster_specs().items():
        assert spec["rayVersion"] == PINS["ray"], name
        assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
        gpus = [group["template"]["spec"]["containers"][0]["resources"] for group in spec["workerGroupSpecs"]]
        assert all(resources["limits"]["nvidia.com/gpu"] for resources in gpus)
    for pod in nodes().values():
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["terminationGracePeriodSeconds"] > int(
            pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        )


def test_images_carry_the_version_of_the_project() -> None:
    images = [container["image"] for pod in pods().values() for container in pod["containers"]]
    images += [load("autoscaler.yaml")["docker"]["image"]]
    assert images
    assert set(images) == {f"registry.example.org/kd-grid:{PROJECT['project']['version']}-cuda"}


def test_the_cluster_launchers_file_is_what_ray_reads() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = load("autoscaler.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    for kind in workers.values():
        assert 0 < kind["min_workers"] <= kind["max_workers"] <= config["max_workers"]
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["idle_timeout_minutes"] > 0


def test_commands_are_understood_and_name_grids_that_exist() -> None:
    commands = ran()
    assert {"compose.yaml", "rayjob.yaml", "README.md 0"} <= set(commands)
    for where, command in commands.items():
        args = launch.parser().parse_args(command)
        assert args.list or args.grid in named_grids(), where
        assert args.address or not where.endswith(".yaml"), where


def test_the_readme_names_files_that_exist() -> None:
    text = (DOCKER / "README.md").read_text()
    for path in {*re.findall(r"docker/[\w./-]+\w", text)} - MADE_BY_THE_USER:
        assert (ROOT / path).exists(), path
