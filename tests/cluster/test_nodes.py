"""The digits grid over the nodes of a cluster, undisturbed and not: workers, nodes and the launch are lost on the way,
and it ends with the very same table and weights, with nothing done twice."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from analysis.cli import table
from tests.at_work import Ledger, Worker, workers
from tests.launching import Launch, records, weights_of
from tests.ray_cluster import ENVIRONMENT, Node, RayCluster

pytestmark = pytest.mark.slow

STAGES = 14
SHORT = ("seeds=[0]", "recipe.epochs=8")
# Logical GPUs: a cell needs one, so that cells run on the two nodes that have one each; teachers run on any.
PLACES = ("resources.gpus_per_cell=1", "resources.gpus_per_teacher_worker=0")
GPUS = (0, 1, 1)
DRAIN = 60.0
SLOW = 500.0  # on a machine that has much else to do


class Grid:
    """One storage, the launches over it, and what was seen of them: which nodes the stages ran on, and what is done."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster, self.storage = cluster, folder / "runs"
        self.ran_on: dict[str, set[int]] = defaultdict(set)
        self.ledger = Ledger(self.storage)

    def launch(self) -> Launch:
        sets = [word for change in (*SHORT, *PLACES) for word in ("--set", change)]
        where = ("--address", self.cluster.address, "--storage", str(self.storage), "--wandb", "disabled")
        return Launch("--grid", "digits", *where, *sets, folder=self.storage.parent)

    def at_work(self, *kinds: str) -> list[tuple[Worker, Node]]:
        """Who is at work, and where; everything seen is remembered."""
        self.ledger.look()
        found = []
        for worker in workers(self.storage, "teachers", "logits", "cells"):
            node = self.cluster.node_of(worker.pid)
            if node is not None:
                self.ran_on[worker.stage].add(node.number)
                found.append((worker, node))
        return [(worker, node) for worker, node in found if worker.folder.parent.name in kinds]

    def finish(self, launch: Launch) -> None:
        while launch.process.poll() is None:
            self.at_work()
            time.sleep(0.1)
        assert launch.finish() == 0, launch.text()

    def catch(self, launch: Launch, kind: str) -> tuple[Worker, Node]:
        """A worker at a stage of that kind, halted in the middle of it, after a checkpoint."""
        caught: list[tuple[Worker, Node]] = []

        def halted() -> bool:
            for worker, node in self.at_work(kind):
                if worker.has_saved() and worker.stop():
                    caught.append((worker, node))
                    return True
            return False

        launch.wait_until(halted, SLOW)
        return caught[0]

    def goes_on(self, launch: Launch, lost: tuple[Worker, Node]) -> None:
        """Wait until the stage of a worker that was lost with its node is worked on again, on another node."""
        (worker, node), kind = lost, lost[0].folder.parent.name
        assert not (worker.folder / "record.json").exists()

        def elsewhere() -> bool:
            return any(w.folder == worker.folder and on.number != node.number for w, on in self.at_work(kind))

        launch.wait_until(elsewhere, SLOW)

    def text(self) -> str:
        # Without the models below it, which were timed.
        return table(str(self.storage), "digits").partition("#### Models")[0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with pytest.MonkeyPatch.context() as patch, RayCluster() as cluster:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for gpus in GPUS:
            cluster.add_node(cpus=2, gpus=gpus)
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    grid = Grid(cluster, tmp_path_factory.mktemp("undisturbed"))
    grid.finish(grid.launch())
    return grid


def test_stages_run_on_all_nodes_that_have_what_they_need(cluster: RayCluster, undisturbed: Grid) -> None:
    assert len(records(undisturbed.storage)) == STAGES
    with_gpu = {number for number, node in cluster.nodes.items() if node.gpus}
    assert set().union(*(on for stage, on in undisturbed.ran_on.items() if stage.startswith("cells/"))) == with_gpu
    assert len(with_gpu) == 2
    assert any(stage.startswith("teachers/") for stage in undisturbed.ran_on)
    assert undisturbed.ledger.recomputed() == []


def test_it_survives_the_loss_of_workers_nodes_and_of_the_launch(
    cluster: RayCluster, undisturbed: Grid, tmp_path: Path
) -> None:
    grid = Grid(cluster, tmp_path)
    first = grid.launch()

    # kill -9 a cell's worker: the cell goes on in another one.
    cell, _ = grid.catch(first, "cells")
    assert cell.kill()

    # SIGTERM to a cell's worker: it saves, gives the cell back and leaves, and the cell goes on in another one.
    asked, _ = grid.catch(first, "cells")
    process = psutil.Process(asked.pid)
    process.send_signal(signal.SIGTERM)
    process.resume()
    first.wait_until(lambda: not asked.is_at_it(), SLOW)
    assert not (asked.folder / "record.json").exists()
    first.wait_until(lambda: not process.is_running(), SLOW)

    # A teacher's node is to be taken away: the teacher saves a checkpoint, leaves, and goes on elsewhere.
    teacher, node = grid.catch(first, "teachers")
    cluster.drain_node(node, seconds=DRAIN)
    psutil.Process(teacher.pid).resume()
    first.wait_until(lambda: not teacher.is_at_it(), DRAIN)
    assert not (teacher.folder / "record.json").exists(), "it was not told"
    cluster.add_node(cpus=2, gpus=node.gpus)
    grid.goes_on(first, (teacher, node))

    # Lose a teacher's node in the middle of it.
    lost = grid.catch(first, "teachers")
    cluster.remove_node(lost[1])
    grid.goes_on(first, lost)
    cluster.add_node(cpus=2, gpus=lost[1].gpus)

    # Lose a cell's node in the middle of it; the other one goes on.
    lost = grid.catch(first, "cells")
    cluster.remove_node(lost[1])
    grid.goes_on(first, lost)

    # kill -9 the launch, and type the command again while Ray still counts a node that has been lost meanwhile.
    first.wait_until(lambda: bool(grid.at_work("cells")), SLOW)
    first.kill()
    grid.ledger.look()
    done = len(records(grid.storage))
    assert done < STAGES
    cluster.add_node(cpus=2, gpus=1)
    cluster.remove_node(next(node for node in cluster.nodes.values() if not node.gpus))
    second = grid.launch()
    grid.finish(second)
    assert f"Done: {STAGES - done} stages computed, {done} reused." in second.out.read_text()

    assert grid.ledger.lost() == []
    assert grid.ledger.recomputed() == [], "a finished stage was computed again"
    assert len(records(grid.storage)) == STAGES
    assert not list(grid.storage.glob("*/*/failure.json"))
    assert not list(grid.storage.glob("*/*/lease-*.json"))
    assert grid.text() == undisturbed.text()
    assert weights_of(grid.storage) == weights_of(undisturbed.storage)
