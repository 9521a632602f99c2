"""Of Ray itself."""

from __future__ import annotations

from typing import Any

from grid.cluster.ray_internals.names import WORKERS_PATH, Name

TEMPORARY_FOLDER = "_temp_dir"  # a keyword of ray.init, which refuses those that it does not know


def head_resource() -> str:
    """The resource that the head of a cluster has, and no other node."""
    return str(Name.HEAD_RESOURCE.get())


def job_variable() -> str:
    """The variable in which `ray job submit` gives a job its environment."""
    return str(Name.JOB_VARIABLE.get())


def session_path() -> str | None:
    """The folder of the session of the Ray that this process has joined; None where none is on this machine."""
    node = Name.OWN_NODE.get()
    return None if node is None else str(node.get_session_dir_path())


def raylet_socket() -> str:
    """Where the raylet listens by which this process has joined a Ray."""
    return str(Name.OWN_NODE.get().raylet_socket_name)


def draining_nodes() -> set[str]:
    """Ids of nodes that Ray drains. Raises as Ray does where its state is out of reach."""
    return {*Name.DRAINING_NODES.get()()}


def groups_without_creator(job: str) -> list[Any]:
    """Ids of a job's placement groups that were made by actors which are dead by now."""
    import ray

    parse, removed = Name.GROUP.get(), Name.GROUP_REMOVED.get()
    table = [parse(data) for data in Name.STATE.get()().get_placement_group_table()]
    return [
        ray.PlacementGroupID(group.placement_group_id)
        for group in table
        if group.creator_job_id.hex() == job and group.creator_actor_dead and group.state != removed
    ]


def asks_for_token() -> bool:
    """Whether the Ray that this process has joined asks for a token."""
    return bool(Name.TOKEN_MODE.get()() != Name.NO_TOKEN.get())


def read_settings_again() -> None:
    """Ray reads its settings from the environment, and its token, once."""
    Name.READ_SETTINGS.get()("")
    Name.TOKENS.get()().reset_cache()


def job_with_path(code: list[str]) -> Any:
    """A JobConfig whose workers find this program in these folders. Ray would put those of the launching script and of
    the shell first on their paths, where modules may lie under names of this program's, or of Python's own."""
    from ray.job_config import JobConfig

    class Job(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # then neither is put there

    return Job(**{WORKERS_PATH: code})


def import_dashboard() -> None:
    """Raises ImportError where what Ray's dashboard needs is not installed."""
    import ray.dashboard.optional_deps  # noqa: F401
