"""Grids in which nothing gains, as files, and what a reader of their tables is told."""

from __future__ import annotations

import pytest

from tests.benchmarks.noise import noisy_claims


@pytest.mark.slow
def test_at_most_one_grid_of_noise_in_twenty_claims_anything() -> None:
    """By a mark beside a gain, the legend or a sentence; `python -m tests.benchmarks.noise` has 500."""
    assert noisy_claims(grids=200) <= 10
