"""What a user can act on."""

from __future__ import annotations

from grid.contract.credentials import redacted


class AnalysisError(Exception):
    """Nothing to analyse, or something unreadable: one line that names it and the way out. What it takes over from
    libraries is shown without the credentials that it may repeat."""

    def __init__(self, line: str) -> None:
        super().__init__(redacted(line))
