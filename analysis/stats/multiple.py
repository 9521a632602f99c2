"""What testing many pairs at once costs: corrected p values."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None], *, tests: int) -> list[float | None]:
    """Holm's step-down correction, in the order given, for a family of so many tests. None, a test that has no p (yet),
    passes through and counts as one of them: whatever its p will be, those that are there now hold.

    Of m tests and their p values in ascending order, the i-th becomes max over j <= i of min(1, (m - j + 1) p_j). Those
    below 0.05 hold together: the chance that any of them is a false one is at most 5 %, however the tests depend on
    each other (pairs of one student share its baselines). S. Holm, Scandinavian Journal of Statistics 6 (1979). Raises
    ValueError for fewer tests than p values.
    """
    if tests < len(p_values):
        raise ValueError(f"{len(p_values)} p values of a family of {tests} tests")
    ascending = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ascending):
        highest = max(highest, min(1.0, (tests - rank) * p))
        corrected[i] = highest
    return corrected
