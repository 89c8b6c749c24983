"""What given times decide: from recorded and invented samples, without a clock."""

import json
from fractions import Fraction
from math import comb
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc.bench.measurement import Speedup, Time, Turn, sign_interval

RECORDED = json.loads((Path(__file__).parent / "data/times.json").read_text("utf-8"))


def turns(microseconds, runs=1, faults=None):
    return [Turn(us * runs / 1e6, runs, faults) for us in microseconds]


def recorded(factor=1.0, drift=1.0):
    """Two equal modules, the first made slower, and both slower and slower as time goes by."""
    first, second = RECORDED["first"], RECORDED["second"]
    slowed = [1 + (drift - 1) * i / (len(first) - 1) for i in range(len(first))]
    return Speedup.of(
        turns(us * factor * slow for us, slow in zip(first, slowed, strict=True)),
        turns(us * slow for us, slow in zip(second, slowed, strict=True)),
    )


def test_equal_modules_are_not_decided_and_have_no_factor():
    found = recorded()
    assert found.verdict == "not decided"
    assert found.factor is None
    assert found.low < 1 < found.high


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "faster"), (0.5, "slower")])
def test_twice_as_slow_is_decided(factor, verdict):
    found = recorded(factor)
    assert found.verdict == verdict
    assert found.factor == pytest.approx(factor, rel=0.1)
    assert found.low < factor < found.high


@pytest.mark.parametrize("drift", [3.0, 0.2])
def test_a_drift_that_both_share_changes_nothing(drift):
    """Their medians alone would spread by that drift; the ratios of pairs do not."""
    assert recorded(2.0, drift) == pytest.approx(recorded(2.0))
    assert recorded(2.0, drift).verdict == "faster"
    assert recorded(1.0, drift).verdict == "not decided"


def test_turns_are_paired_in_the_order_in_which_they_came():
    """The one that dropped out earlier has fewer."""
    found = Speedup.of(turns([10, 40, 90, 1e6]), turns([10, 20, 30]))
    assert (found.median, found.low, found.high) == (2.0, None, None)
    assert found.verdict == "not decided"


def test_of_disturbed_turns_nothing_counts():
    """Two threads that wait for each other make a run as long as the scheduler pleases."""
    quiet, slow = turns([10.0] * 10), turns([10.0] * 30)
    disturbed = [turn._replace(disturbed=True) for turn in turns([50.0] * 30)]
    assert Speedup.of([*quiet, *slow], [*quiet, *disturbed]) == (1.0, 1.0, 1.0)
    assert Speedup.of(slow, disturbed).low is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.11, 1.2, "faster"),
        (1.09, 1.2, "not decided"),  # another run may be as far from it
        (0.99, 1.01, "not decided"),
        (0.8, 0.9, "slower"),
        (0.8, 0.92, "not decided"),
        (1.5, 3.1, "not decided"),  # faster, but who knows by how much
        (None, None, "not decided"),
    ],
)
def test_all_of_a_narrow_interval_decides(low, high, verdict):
    assert Speedup(2.0, low, high).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "close"),
    [
        (0.99, 1.01, True),
        (1.06, 1.16, True),  # a longer run cannot move it out of what other runs say
        (0.95, 1.06, False),
        (1.5, 1.6, False),  # faster
        (None, None, False),
    ],
)
def test_what_is_too_close_is_narrow_and_not_decided(low, high, close):
    assert Speedup(1.0, low, high).too_close == close


def test_the_interval_by_hand():
    """Of ten values 2 * 1/1024 miss a median outside all of them, 2 * 11/1024 the next."""
    values = [*range(10)]
    assert sign_interval(values, Fraction(2, 1024)) == (0, 9)
    assert sign_interval(values, Fraction(1, 1024)) is None
    assert sign_interval(values, Fraction(22, 1024)) == (1, 8)
    assert sign_interval(values, Fraction(21, 1024)) == (0, 9)
    assert sign_interval([1.0] * 9) is None  # one look in three may miss by a third of 1%
    assert sign_interval([1.0] * 10) == (1.0, 1.0)


@given(st.integers(1, 300), st.fractions(Fraction(1, 1000), Fraction(1, 2)))
def test_the_interval_is_the_shortest_that_misses_no_more_than_that(count, misses):
    def chance(rank):
        """Of a true median outside the values of that rank from each end."""
        return Fraction(2 * sum(comb(count, below) for below in range(rank)), 2**count)

    found = sign_interval(range(1, count + 1), misses)
    rank = found[0] if found else 0
    assert chance(rank) <= misses < chance(rank + 1)
    assert not found or found == (rank, count + 1 - rank)


def test_of_equal_candidates_hardly_any_are_decided():
    """Noise as it is on a busy machine: 1,000 measurements of 100 pairs."""
    random = Random(1)
    noise = [us / min(RECORDED["first"]) for us in RECORDED["first"]]

    def taken():
        return turns(random.choices(noise, k=100))

    wrong = sum(Speedup.of(taken(), taken()).decided for _ in range(1000))
    assert wrong <= 10


def test_median_quartiles_and_faults_of_turns():
    found = Time.of([*turns([10, 20, 30, 40], runs=5, faults=10), *turns([50], faults=1000)])
    assert found.time_us == pytest.approx(30)
    assert found.time_iqr_us == pytest.approx(20)
    assert found.page_faults == 2  # the median over turns of the faults of a run
    assert Time.of(turns([7])) == (pytest.approx(7), pytest.approx(0), None)


@pytest.mark.parametrize(
    ("iqr", "faults", "noisy", "matter"),
    [(10.0, 0, False, False), (10.1, None, True, False), (0, 5, False, False), (0, 6, False, True)],
)
def test_noise_and_faults_that_matter(iqr, faults, noisy, matter):
    time = Time(100.0, iqr, faults)
    assert (time.noisy, time.faults_matter) == (noisy, matter)
