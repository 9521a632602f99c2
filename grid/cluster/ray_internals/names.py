"""The names of Ray's that are used here, and whether the installed Ray has them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection
from enum import Enum
from types import ModuleType
from typing import Any

from grid.errors import UserError

TESTED, RANGE = "2.60", "ray>=2.60,<2.61"  # pyproject.toml has the same

WORKERS_PATH = "_py_driver_sys_path"  # a keyword of JobConfig


class Name(Enum):
    """A module of Ray's, and what it has."""

    HEAD_RESOURCE = ("ray._common.constants", "HEAD_NODE_RESOURCE_NAME")
    JOB_VARIABLE = ("ray._private.runtime_env.constants", "RAY_JOB_CONFIG_JSON_ENV_VAR")
    OWN_NODE = ("ray._private.worker", "_global_node")
    NODES_SESSION = ("ray._private.node", "Node.get_session_dir_path")
    NODES_RAYLET = ("ray._private.node", "Node.raylet_socket_name")
    DRAINING_NODES = ("ray._private.state", "state.get_draining_nodes")
    STATE = ("ray._private.state", "state._connect_and_get_accessor")
    GROUP_TABLE = ("ray._raylet", "GlobalStateAccessor.get_placement_group_table")
    GROUP = ("ray.core.generated.gcs_pb2", "PlacementGroupTableData.FromString")
    GROUP_REMOVED = ("ray.core.generated.gcs_pb2", "PlacementGroupTableData.REMOVED")
    GROUPS_ID = ("ray.core.generated.gcs_pb2", "PlacementGroupTableData.PLACEMENT_GROUP_ID_FIELD_NUMBER")
    GROUPS_JOB = ("ray.core.generated.gcs_pb2", "PlacementGroupTableData.CREATOR_JOB_ID_FIELD_NUMBER")
    GROUPS_CREATOR_DEAD = ("ray.core.generated.gcs_pb2", "PlacementGroupTableData.CREATOR_ACTOR_DEAD_FIELD_NUMBER")
    GROUPS_STATE = ("ray.core.generated.gcs_pb2", "PlacementGroupTableData.STATE_FIELD_NUMBER")
    READ_SETTINGS = ("ray._raylet", "Config.initialize")
    TOKENS = ("ray._raylet", "AuthenticationTokenLoader.instance")
    FORGET_TOKEN = ("ray._raylet", "AuthenticationTokenLoader.reset_cache")
    TOKEN_MODE = ("ray._raylet", "get_authentication_mode")
    NO_TOKEN = ("ray._raylet", "AuthenticationMode.DISABLED")
    JOBS_WORKING_FOLDER = ("ray.job_config", "JobConfig._runtime_env_has_working_dir")
    FORWARDED = ("ray.tune.execution.class_cache", "ENV_VARS_TO_PROPAGATE")
    END_IDLE = ("ray.tune.execution.tune_controller", "TuneController._cleanup_cached_actors")
    REUSE = ("ray.tune.execution.tune_controller", "TuneController._maybe_reuse_cached_actor")
    TASK_FAILED = ("ray.air.execution._internal.actor_manager", "RayActorManager._actor_task_failed")
    NEXT_EVENT = ("ray.air.execution._internal.actor_manager", "RayActorManager.next")
    PROGRESS = ("ray.tune.progress_reporter", "TrialProgressCallback")
    WRAP_FUNCTION = ("ray.tune.trainable.function_trainable", "wrap_function")
    TRAINS_FIT = ("ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer.fit")
    TRAINS_WRAPPER = ("ray.train.v2.api.data_parallel_trainer", "ObjectRefWrapper")

    @property
    def is_of_a_library(self) -> bool:
        return self.value[0].split(".")[1] in ("air", "train", "tune")

    def get(self) -> Any:
        """Raises UserError where the installed Ray has none."""
        module, path = self.value
        try:
            found = import_whole(module)
            for part in path.split("."):
                found = getattr(found, part)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # what Ray needs is missing, not what is Ray's
                raise
            raise without(module) from None
        except AttributeError:
            raise without(f"{module}.{path}") from None
        return found


def import_whole(module: str) -> ModuleType:
    """Import its packages before it, each waiting for another thread that is importing it. Python does not wait for the
    package of a module that is asked for: the module and its package, each in a thread, would then wait for each
    other, and one of them be given half of the other."""
    places = module.split(".")
    for depth in range(1, len(places)):
        importlib.import_module(".".join(places[:depth]))
    return importlib.import_module(module)


def check_core() -> None:
    """Raises UserError, which says what is missing and which Ray to install, where the installed Ray lacks a name of
    its own that is used here."""
    for name in Name:
        if not name.is_of_a_library:
            name.get()
    from ray.job_config import JobConfig

    if WORKERS_PATH not in inspect.signature(JobConfig).parameters:
        raise without(f"ray.job_config.JobConfig({WORKERS_PATH}=...)")


def check_libraries() -> None:
    """As `check_core`, of Ray Tune and Ray Train, which take seconds to import, and where they would not notice that it
    has been replaced."""
    for name in Name:
        if name.is_of_a_library:
            name.get()
    module, wrapper = Name.TRAINS_WRAPPER.value
    if wrapper not in Name.TRAINS_FIT.get().__code__.co_names:
        raise without(f"{module}.DataParallelTrainer.fit with an {wrapper}")


def without(name: str) -> UserError:
    import ray

    return UserError(f"ray {ray.__version__} has no {name}: this program is tested with ray {TESTED}; install {RANGE}")


def check_instance(instance: Any, names: Collection[str]) -> None:
    """Raises UserError. What answers for whatever it has not itself is not asked."""
    for name in names:
        if not hasattr(type(instance), name) and name not in vars(instance):
            raise without(f"{type(instance).__name__}.{name}")
