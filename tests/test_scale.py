"""Width and resolution multipliers: exact where floats are not."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc import DscalcError, compare, scaled_channels, scaled_size


@pytest.mark.parametrize(
    ("channels", "alpha", "scaled"),
    [
        (32, 1, 32),
        (32, 0.75, 24),
        (10, 0.1, 1),  # 0.1 is a little more than 1/10 as a float
        (100, 0.29, 29),  # 0.29 * 100 is 28.999999999999996 in floats
        (100, "0.29", 29),
        (100, Fraction(29, 100), 29),
        (9, "1/3", 3),
        (7, 0.5, 3),
        (3, 0.25, 1),
        (1, "1e-9", 1),
        (3, 2, 6),
        (10**30, "0.1", 10**29),
    ],
)
def test_channels_are_scaled_exactly_and_rounded_down_to_one_at_least(channels, alpha, scaled):
    assert scaled_channels(channels, alpha) == scaled


@given(st.integers(1, 10**40), st.fractions(min_value="1/1000", max_value=10))
def test_scaled_channels_is_the_floor_at_any_size(channels, alpha):
    assert scaled_channels(channels, alpha) == max(1, floor(alpha * channels))


@pytest.mark.parametrize(
    ("size", "rho", "scaled"),
    [
        (14, 0.714, 10),  # 9.996
        (224, "0.714", 160),  # 159.936
        (224, Fraction(6, 7), 192),
        (14, 0.5, 7),
        (1, 0.25, 1),
        ((224, 160), 0.5, (112, 80)),
        ([224, 160], 0.5, (112, 80)),
        ((), 0.5, ()),
    ],
)
def test_sizes_are_scaled_to_the_nearest(size, rho, scaled):
    assert scaled_size(size, rho) == scaled


@pytest.mark.parametrize("name", ["width_multiplier", "resolution_multiplier"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, f"must be greater than 0, got {value}") for value in (0, -0.5, "-1/2")),
        *(
            (value, f"must be a number such as 0.75 or 3/4, got {value!r}")
            for value in ("half", "", "1/0", float("nan"), float("inf"), None)
        ),
    ],
)
def test_a_multiplier_must_be_a_positive_number(name, value, message):
    with pytest.raises(DscalcError) as raised:
        compare(3, 64, 3, 224, **{name: value})
    assert str(raised.value) == f"{name} {message}"


@pytest.mark.parametrize("size", [0, -5, 14.5, (14, 0)])
def test_a_size_is_checked_before_it_is_scaled(size):
    with pytest.raises(DscalcError, match=r"^input_size must be"):
        compare(3, 64, 1, size, resolution_multiplier="0.5")
