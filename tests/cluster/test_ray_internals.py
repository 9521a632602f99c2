"""What is used of Ray without being public is there in the installed Ray; where it is not, a launch says so before it
starts anything."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from packaging.requirements import Requirement
from ray.exceptions import OutOfMemoryError
from ray.tune.execution import tune_controller

import grid.cluster
from grid.cluster.nodes.memory_kills import KilledForMemoryError, MemoryKills
from grid.cluster.ray_internals import core, train
from grid.cluster.ray_internals.names import RANGE, TESTED, Name, check_core, check_libraries, import_whole
from grid.cluster.ray_internals.tune import TuneController
from grid.cluster.session import session
from grid.errors import UserError

ROOT = Path(__file__).parents[2]
WAY_OUT = f": this program is tested with ray {TESTED}; install {RANGE}"
TRAINER = "ray.train.v2.api.data_parallel_trainer"


def message(missing: str) -> str:
    return f"ray {ray.__version__} has no {missing}{WAY_OUT}"


@pytest.mark.parametrize("name", Name)
def test_the_installed_ray_has_it(name: Name) -> None:
    name.get()


MISSING = (
    ("ray._private.worker", "_global_node"),
    ("ray._raylet", "get_authentication_mode"),
    ("ray.tune.execution.tune_controller", "TuneController._maybe_reuse_cached_actor"),
    ("ray.air.execution._internal.actor_manager", "RayActorManager._actor_task_failed"),
    ("ray.job_config", "JobConfig._runtime_env_has_working_dir"),
    (TRAINER, "ObjectRefWrapper"),
)


def check_internals() -> None:
    """As a launch does."""
    check_core()
    check_libraries()


def test_the_installed_ray_has_all_that_is_looked_for_at_the_start() -> None:
    check_internals()


@pytest.mark.parametrize(("module", "path"), MISSING)
def test_a_ray_without_it_is_refused(module: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    monkeypatch.delattr(owner, name)
    with pytest.raises(UserError) as caught:
        check_internals()
    assert str(caught.value) == message(f"{module}.{path}")


def test_so_is_one_without_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.tune.execution.class_cache", None)
    with pytest.raises(UserError) as caught:
        check_internals()
    assert str(caught.value) == message("ray.tune.execution.class_cache")


def test_a_package_that_ray_lacks_is_not_taken_for_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "progress_reporter.py").write_text("import no_such_package\n")
    monkeypatch.delitem(sys.modules, "ray.tune.progress_reporter")
    monkeypatch.setattr(ray.tune, "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        Name.PROGRESS.get()


def test_a_package_that_another_thread_is_importing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ray, when a launch imports it in two threads: it and its part need each other."""
    package = tmp_path / "slow_package"
    package.mkdir()
    (package / "__init__.py").write_text("import time\ntime.sleep(0.5)\nfrom slow_package.part import NAME\n")
    (package / "part.py").write_text("import slow_package\nNAME = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    other = threading.Thread(target=importlib.import_module, args=("slow_package",))
    other.start()
    while "slow_package" not in sys.modules:
        time.sleep(0.01)
    assert import_whole("slow_package.part").NAME == 7
    other.join()


def test_a_keyword_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class JobConfig:
        def __init__(self, metadata: dict[str, str]) -> None:
            pass

        def _runtime_env_has_working_dir(self) -> bool:
            return False

    monkeypatch.setattr("ray.job_config.JobConfig", JobConfig)
    with pytest.raises(UserError) as caught:
        check_internals()
    assert str(caught.value) == message("ray.job_config.JobConfig(_py_driver_sys_path=...)")


def test_a_trainer_that_would_not_use_what_is_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{TRAINER}.DataParallelTrainer.fit", lambda self: None)
    with pytest.raises(UserError) as caught:
        check_internals()
    assert str(caught.value) == message(f"{TRAINER}.DataParallelTrainer.fit with an ObjectRefWrapper")


def test_what_is_gone_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = importlib.import_module(TRAINER)
    monkeypatch.delattr(trainer, "ObjectRefWrapper")
    with pytest.raises(UserError, match=r"has no .*ObjectRefWrapper"):
        train.carry_training_functions()
    assert not hasattr(trainer, "ObjectRefWrapper")


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_a_launch_finds_out_before_it_starts_or_joins_a_ray(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.setattr("grid.cluster.session.quiet", lambda address: None)
    monkeypatch.setattr("grid.cluster.session.address_meant", lambda address: address)
    monkeypatch.delattr("ray._private.worker._global_node")
    with pytest.raises(UserError) as caught:
        session(address, cpus=1).__enter__()
    assert str(caught.value) == message("ray._private.worker._global_node")


def test_a_library_that_lacks_something_is_found_out_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once Ray is there: importing them takes as long as its start."""
    seen: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **_: seen.append("started"))
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append("ended"))
    monkeypatch.setattr("grid.cluster.session.quiet", lambda address: None)
    monkeypatch.delattr("ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE")
    with pytest.raises(UserError) as caught:
        session(None, cpus=1).__enter__()
    assert str(caught.value) == message("ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE")
    assert seen == ["started", "ended"]


def test_the_range_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    rays = [one for listed in lists for one in map(Requirement, listed) if one.name == "ray"]
    assert len(rays) == 4
    wanted = Requirement(RANGE)
    assert {one.specifier for one in rays} == {wanted.specifier}
    pinned = next(
        line.partition("==")[2]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith("ray==")
    )
    assert wanted.specifier.contains(pinned)
    assert pinned.startswith(f"{TESTED}.")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What Tune gives a scheduler, of a controller without any trial."""
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")  # else it would ask a Ray for its CPUs
    return tune_controller.TuneController()._wrapped()


def test_a_controller_of_the_installed_ray_has_what_is_used(given: Any) -> None:
    controller = TuneController(given)
    controller.end_idle_workers()
    controller.forget_finished_trials()
    controller.forget_unneeded_workers()
    assert not controller.pending
    assert not controller.running


@pytest.mark.parametrize("name", ["_pending_trials", "_trial_to_actor", "_actor_manager"])
def test_a_controller_without_it_is_refused(given: Any, name: str) -> None:
    delattr(given._tune_controller, name)
    with pytest.raises(UserError) as caught:
        TuneController(given)
    assert str(caught.value) == message(f"TuneController.{name}")


def test_so_is_one_whose_workers_are_kept_otherwise(given: Any) -> None:
    del given._tune_controller._actor_manager._pending_actors_to_attrs
    with pytest.raises(UserError, match=r"^ray \S+ has no RayActorManager\._pending_actors_to_attrs: "):
        TuneController(given)


def test_a_worker_that_becomes_free_is_kept_from_some_trials(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given._tune_controller, "_maybe_reuse_cached_actor", lambda trial: trial != "needs its own")
    TuneController(given).reuse_workers(unless=lambda trial: trial == "starts")
    asked = given._tune_controller._maybe_reuse_cached_actor
    assert [asked(trial) for trial in ("starts", "needs its own", "any")] == [False, False, True]


def test_tune_can_still_keep_copies_of_its_controller(given: Any) -> None:
    controller = TuneController(given)
    MemoryKills().watch(controller)
    controller.reuse_workers(unless=controller.has_worker)
    ray.cloudpickle.dumps(given._tune_controller)


def failing(given: Any, *, trial: Any) -> Callable[[Exception], Exception]:
    """Has a task of a trial's worker fail; returns what Tune is told of it."""
    told: list[Exception] = []
    controller, worker = given._tune_controller, object()
    controller._actor_to_trial[worker] = trial
    controller._actor_manager._actor_task_failed = lambda tracked_actor_task, exception: told.append(exception)

    def fail(error: Exception) -> Exception:
        task = SimpleNamespace(_tracked_actor=worker)
        controller._actor_manager._actor_task_failed(tracked_actor_task=task, exception=error)
        return told.pop()

    return fail


def test_a_worker_ended_for_lack_of_memory_is_the_loss_of_its_trial(given: Any) -> None:
    trial, kills = SimpleNamespace(trial_id="one", max_failures=3), MemoryKills()
    fail = failing(given, trial=trial)
    kills.watch(TuneController(given))
    other = ValueError("of the code")
    assert fail(other) is other
    assert (trial.max_failures, kills.take("one")) == (3, None)
    killed = fail(OutOfMemoryError("the node is full\nits processes: ..."))
    assert isinstance(killed, KilledForMemoryError)
    assert (trial.max_failures, kills.take("one"), kills.take("one")) == (0, "the node is full", None)


def test_no_class_replaces_what_its_base_in_ray_keeps_to_itself() -> None:
    for found in pkgutil.iter_modules(grid.cluster.__path__, "grid.cluster."):
        module = importlib.import_module(found.name)
        for kind in (one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == found.name):
            bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] == "ray"]
            private = {name for name, value in vars(kind).items() if name[0] == "_" and inspect.isfunction(value)}
            private -= {name for name in private if name.startswith("__")}
            assert not [name for name in private if any(name in vars(base) for base in bases)], kind


def test_workers_find_this_program_in_the_given_folders_alone() -> None:
    job = core.job_with_path(["/a/folder"])
    assert job._py_driver_sys_path == ["/a/folder"]
    assert job._runtime_env_has_working_dir()
