"""What whoever has stages run tells of them."""

from __future__ import annotations

from typing import Protocol

from grid.plan import Stage


class Ledger(Protocol):
    """Where it is kept what became of a launch's stages; told from any thread."""

    def start(self, stage: Stage) -> bool:
        """A worker is about to begin a stage; False where it is not wanted any more."""

    def give_back(self, stage: Stage) -> None:
        """A stage that was started waits again."""

    def finish(self, stage: Stage, error: str | None) -> None:
        """A stage is done, or has failed: why, on one line."""

    def say(self, stage: Stage, text: str) -> None:
        """What befalls a stage that goes on all the same, for people."""
