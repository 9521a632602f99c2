"""Grids from nothing to their end, disturbed at random moments until there were enough faults."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.at_work import Ledger
from tests.chaos.faults import FAULTS, MEMORY, STALL_MINUTES, Deck, Faults
from tests.chaos.results import Results
from tests.launching import Launch
from tests.ray_cluster import RayCluster

NODES = 3
LOOK_SECONDS = 0.05
GAP_SECONDS = (1.0, 8.0)
TRY_SECONDS = (0.1, 1.0)
OTHER_KIND = 0.1  # how likely a kind that was not possible gives way to another one
GRID_SECONDS = 1800.0  # a grid that takes longer hangs

DONE, FAILED, INTERRUPTED, KILLED = 0, 1, 130, -9


@dataclass
class Tally:
    """problems: what is not as it should be, one line each."""

    happened: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    grids: int = 0
    launches: int = 0
    different: int = 0
    lost: int = 0
    recomputed: int = 0
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        total, lived = sum(self.happened.values()), sum(self.survived.values())
        return [
            f"{lived} of {total} faults survived, over {self.grids} grids and {self.launches} launches:",
            *(f"  {kind:<24} {self.survived[kind]:>3} of {self.happened[kind]:>3}" for kind in FAULTS),
            f"Stages lost: {self.lost}",
            f"Stages recomputed: {self.recomputed}",
            f"Grids whose table or weights differ from the undisturbed one's: {self.different}",
            *(f"  NOT AS IT SHOULD BE: {problem}" for problem in self.problems),
        ]


class Campaign:
    def __init__(
        self,
        grid: str,
        overrides: Sequence[str],
        *,
        cluster: RayCluster,
        folder: Path,
        chance: random.Random,
        memory: float | None,
        say: Callable[[str], None],
    ) -> None:
        """memory: the share in use at which Ray's monitor acts; without one that fault is left out."""
        self.grid, self.cluster, self.folder, self.chance, self.say = grid, cluster, folder, chance, say
        overrides = [*overrides, f"resources.stall_minutes={STALL_MINUTES}"]
        self.sets = [word for change in overrides for word in ("--set", change)]
        self.memory = memory
        self.deck = Deck([kind for kind in FAULTS if kind != MEMORY or memory is not None], chance)
        self.tally = Tally()
        self.started: list[Launch] = []

    def undisturbed(self) -> Results:
        storage, started = self.folder / "undisturbed", time.monotonic()
        launch = self._launch(storage)
        status = launch.finish(GRID_SECONDS)
        if status != DONE:
            raise RuntimeError(f"the undisturbed grid ended with {status}\n{launch.text()}")
        self.say(f"undisturbed: done in {time.monotonic() - started:.0f} s")
        return Results.of(str(storage), self.grid)

    def run(self, kills: int, expected: Results) -> Tally:
        while sum(self.tally.happened.values()) < kills:
            self.tally.grids += 1
            self._grid(self.folder / f"grid-{self.tally.grids}", kills, expected)
        return self.tally

    def _grid(self, storage: Path, kills: int, expected: Results) -> None:
        """One grid, launched until it ends by itself."""
        tally, ledger, happened = self.tally, Ledger(storage), Counter[str]()
        problems: list[str] = []
        until = time.monotonic() + GRID_SECONDS
        status: int | None = None
        while status != DONE and not problems:
            launch = self._launch(storage)
            tally.launches += 1
            done = f"{len(ledger.seen)} of {len(expected.stages)} stages done"
            self.say(f"{storage.name}: launch {tally.launches}, {done}")
            teachers = sum(folder.startswith("logits/") for folder in expected.stages)
            faults = Faults(
                launch,
                ledger,
                teachers=teachers,
                cluster=self.cluster,
                chance=self.chance,
                again=lambda: self._launch(storage, "--cpus", "1"),
                memory=self.memory,
            )
            kind, wait = self.deck.draw(faults.is_possible), GAP_SECONDS
            while self._pass(ledger, launch, wait):
                wait = TRY_SECONDS
                if kind is not None and sum(tally.happened.values()) < kills and (what := faults.do(kind)):
                    happened[kind] += 1
                    tally.happened[kind] += 1
                    self.say(f"  {sum(tally.happened.values()):>3} {what}")
                    kind, wait = self.deck.draw(faults.is_possible), GAP_SECONDS
                elif kind is None or not faults.is_possible(kind) or self.chance.random() < OTHER_KIND:
                    # It may be long until it is possible.
                    other = self.deck.draw(faults.is_possible)
                    if kind is not None:
                        self.deck.put_back(kind)
                    kind = other
                if time.monotonic() > until:
                    problems.append(f"{storage.name}: not done after {GRID_SECONDS:.0f} s")
                    launch.kill()
            if kind is not None:
                self.deck.put_back(kind)
            status = launch.finish()
            tally.launches += len(faults.others)
            for one in (launch, *faults.others):
                ended = one.finish(GRID_SECONDS)
                if ended not in (DONE, INTERRUPTED, KILLED) and not (ended == FAILED and faults.hung):
                    problems.append(f"{storage.name}: a launch ended with {ended}\n{one.text()}")
            ledger.look()
            problems += [f"{storage.name}: {problem}" for problem in faults.problems]
        found = Results.of(str(storage), self.grid)
        lost = {str(Path(path).parent.relative_to(storage)) for path in ledger.lost()} | {*expected.missing(found)}
        recomputed = ledger.recomputed()
        tally.lost += len(lost)
        tally.recomputed += len(recomputed)
        problems += [f"{storage.name}: lost {stage}" for stage in sorted(lost)]
        problems += [f"{storage.name}: recomputed {path}" for path in recomputed]
        different = expected.differences(found)
        tally.different += bool(different)
        problems += [f"{storage.name}: {difference}" for difference in different]
        problems += [f"{storage.name}: left behind {path}" for path in storage.glob("*/*/lease-*.json")]
        problems += [f"{storage.name}: left behind {path}" for path in storage.glob("*/*/failure.json")]
        tally.problems += problems
        if not problems:
            tally.survived += happened
        self.say(f"{storage.name}: {'as the undisturbed grid' if not problems else problems[0]}")

    def _pass(self, ledger: Ledger, launch: Launch, wait: tuple[float, float]) -> bool:
        """Let some time pass, looking at what is done; whether the launch is still running then."""
        until = time.monotonic() + self.chance.uniform(*wait)
        while time.monotonic() < until and launch.process.poll() is None:
            ledger.look()
            time.sleep(LOOK_SECONDS)
        return launch.process.poll() is None

    def _launch(self, storage: Path, *where: str) -> Launch:
        """where: on the cluster if nothing is given."""
        where = (*(where or ("--address", self.cluster.address)), "--storage", str(storage), "--wandb", "disabled")
        self.started.append(Launch("--grid", self.grid, *where, *self.sets, folder=self.folder / "output"))
        return self.started[-1]

    def end(self) -> None:
        """Leave no launch behind."""
        for launch in self.started:
            if launch.process.poll() is None:
                launch.kill()
