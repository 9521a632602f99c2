"""The exact p of one pair's gains, and what testing many pairs does to p values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis.stats import holm, p_sign_flip, show_spread

# Gains as accuracies give them: steps of 0.1 points, so that ties and zeros occur.
gains = st.lists(st.integers(-50, 50).map(lambda tenths: tenths / 10), min_size=2, max_size=8)
p_values = st.lists(st.none() | st.floats(0, 1), max_size=12)


@settings(max_examples=50)
@given(gain=gains)
def test_the_sign_flips_are_scipys_permutation_test(gain: list[float]) -> None:
    def difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray((x - y).sum(axis=axis))

    tenths = np.round(np.multiply(gain, 10))  # whole numbers, of which equal sums are equal
    samples = (tenths, np.zeros_like(tenths))
    test = stats.permutation_test(samples, difference, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert p_sign_flip(gain) == pytest.approx(test.pvalue)


def test_three_gains_by_hand() -> None:
    # Of 8 ways to sign 1, 2 and 4, the sums 7 and -7 reach |7|; 5, 7 and their negatives reach |-1 + 2 + 4|.
    assert p_sign_flip([1.0, 2.0, 4.0]) == 0.25
    assert p_sign_flip([-1.0, 2.0, 4.0]) == 0.5


@pytest.mark.parametrize(("n", "least"), [(2, 0.5), (3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125), (20, 2 / 2**20)])
def test_the_least_exact_p_of_n_gains(n: int, least: float) -> None:
    large = [100.0 + i for i in range(n)]
    assert p_sign_flip(large) == pytest.approx(least)


def test_too_many_gains_are_not_flipped() -> None:
    assert p_sign_flip([1.0] * 21) is None


@pytest.mark.parametrize("gain", [[], [3.0]])
def test_fewer_than_two_gains_have_no_p(gain: list[float]) -> None:
    assert p_sign_flip(gain) is None


def test_equal_gains_say_nothing_of_chance_but_by_their_signs() -> None:
    assert [p_sign_flip([4.0] * 3), p_sign_flip([0.0] * 3)] == [0.25, 1.0]
    assert not show_spread([4.0] * 3)
    assert show_spread([4.0, 4.0, 4.1])


def test_sums_that_differ_in_their_last_bits_are_equal() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floats: every way to sign them reaches that 0.
    assert p_sign_flip([0.1, 0.2, -0.3]) == 1.0


@given(gain=gains)
def test_a_p_lies_in_0_to_1_and_is_the_same_for_swapped_arms(gain: list[float]) -> None:
    p = p_sign_flip(gain)
    assert p is not None
    assert 0 <= p <= 1
    assert p_sign_flip([-g for g in gain]) == pytest.approx(p)


# Many pairs


def test_holm_by_hand() -> None:
    # Ascending 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.03, 0.01, 0.04], tests=3) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9], tests=2) == [1.0, 1.0]
    assert holm([0.04], tests=1) == [0.04]
    assert holm([], tests=0) == []


def test_tests_without_a_p_count_in_the_family() -> None:
    # 0.01, 0.03, 0.04 times 4, 3, 2.
    assert holm([0.03, None, 0.01, 0.04], tests=4) == pytest.approx([0.09, None, 0.04, 0.09])
    assert holm([0.02], tests=3) == pytest.approx([0.06])
    assert holm([None, None], tests=2) == [None, None]


def test_a_family_is_not_smaller_than_its_p_values() -> None:
    with pytest.raises(ValueError, match="2 p values of a family of 1 test"):
        holm([0.1, None], tests=1)


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12), data=st.data())
def test_what_is_significant_of_a_part_is_so_whatever_the_rest_gives(p: list[float], data: st.DataObject) -> None:
    there = data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p)))
    so_far = holm([value if known else None for value, known in zip(p, there, strict=True)], tests=len(p))
    whole = holm([*p], tests=len(p))
    for early, late in zip(so_far, whole, strict=True):
        assert early is None or late is None or late <= early


@given(p=p_values)
def test_holm_is_at_least_the_raw_p_and_at_most_bonferronis(p: list[float | None]) -> None:
    tests = len(p)
    for raw, corrected in zip(p, holm(p, tests=tests), strict=True):
        assert (raw is None) == (corrected is None)
        if raw is not None and corrected is not None:
            assert raw <= corrected <= min(1.0, tests * raw)


@given(p=p_values)
def test_holm_keeps_the_order(p: list[float | None]) -> None:
    both = [(raw, corrected) for raw, corrected in zip(p, holm(p, tests=len(p)), strict=True) if raw is not None]
    corrected = [corrected for _, corrected in sorted(both)]
    assert corrected == sorted(corrected)


@given(p=st.lists(st.floats(0, 1), max_size=12), level=st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_its_step_down_rule_rejects(p: list[float], level: float) -> None:
    rejected, remaining = set(), dict(enumerate(p))
    while remaining:
        i = min(remaining, key=lambda i: (remaining[i], i))
        if remaining[i] * len(remaining) > level:
            break
        rejected.add(i)
        del remaining[i]
    assert {i for i, value in enumerate(holm([*p], tests=len(p))) if value <= level} == rejected
