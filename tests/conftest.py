"""Shared by all tests: no network, no key, and a grid small enough to run in seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from grid.plan import LogitsStage, Plan, make_plan
from grid.read.grid_file import spec_from_dict
from tests.launching import Launch
from tests.object_store import BUCKET, ObjectStore, as_environment
from tests.ray_cluster import RayCluster

# How long an example takes, or is sought, measures the machine and what else runs there.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "global_pool": "avg"}
RESNET = {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8]}

FIXTURES = {"s3_server": "s3", "browser": "browser"}  # who uses one gets the marker

# Ray starts its head in gdb where this is set, and refuses to without tmux: so a test without the marker `ray`, and any
# process that it starts, can start none.
NO_RAY = "RAY_GCS_SERVER_GDB"


def pytest_configure(config: pytest.Config) -> None:
    """Unless told what to run, pytest starts no Ray: those take long, and the whole machine."""
    if config.args_source is not config.ArgsSource.ARGS and config.option.markexpr == "not slow":
        config.option.markexpr = "not slow and not ray"


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assert isinstance(item, pytest.Function)
        for fixture, marker in FIXTURES.items():
            if fixture in item.fixturenames:
                item.add_marker(marker)
        if any(thing is Launch or thing is RayCluster for thing in vars(item.module).values()):
            item.add_marker("ray")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("ray") is None:
            patch.setenv(NO_RAY, "1")
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ray") is not None and int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        pytest.fail("a test that starts a Ray takes the whole machine: run it without -n", pytrace=False)


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def logging_to_open_streams() -> Iterator[None]:
    """A launch in this process logs to a stream that is closed when its test, or the tests it is made for, end."""

    def drop_closed() -> None:
        for handler in logging.root.handlers[:]:
            if getattr(getattr(handler, "stream", None), "closed", False):
                logging.root.removeHandler(handler)

    drop_closed()
    yield
    drop_closed()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ObjectStore()
    with as_environment(server):
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)
    yield server
    server.stop()


@pytest.fixture
def s3(request: pytest.FixtureRequest, s3_server: ObjectStore) -> Iterator[ObjectStore]:
    """An S3 with BUCKET in it, known to this process and to those that it starts by the usual environment."""
    assert request.node.get_closest_marker("s3"), "asked for by name while the test runs: mark its parameter s3"
    with as_environment(s3_server):
        yield s3_server


def tiny_grid(**changes: Any) -> dict[str, Any]:
    """A grid as it would stand in a file: one teacher, two students, two seeds, tiny models on few digits."""
    grid: dict[str, Any] = {
        "name": "tiny",
        "dataset": {"name": "digits", "train_size": 60, "val_size": 20, "test_size": 100},
        "teachers": [{"label": "ResNet-T", "name": "resnet18", "args": {**RESNET, "channels": [8, 8, 16, 16]}}],
        "students": [
            {"label": "ViT-S", "name": "vit_tiny_patch16_224", "args": {**VIT, "class_token": False}},
            {"label": "ResNet-S", "name": "resnet18", "args": RESNET},
        ],
        "seeds": [0, 1],
        "recipe": {"epochs": 2, "batch_size": 20, "views": {"crop_padding": 1}},
    }
    return {**grid, **changes}


def with_epochs(stage: LogitsStage, *epochs: int) -> LogitsStage:
    """The same logits for so many epochs of each stream."""
    return LogitsStage(teacher=stage.teacher, views=stage.views, stored_as=stage.stored_as, epochs=epochs)


@pytest.fixture
def tiny_plan() -> Callable[..., Plan]:
    """Plan a tiny grid with changes: tiny_plan(seeds=[3])."""

    def plan(**changes: Any) -> Plan:
        return make_plan(spec_from_dict(tiny_grid(**changes), what="grid tiny"))

    return plan
