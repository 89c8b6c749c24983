"""Conditions on a row, and the names they may use: --assert."""

from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabulary import fields, find

from dscalc import Conv, Cost, DscalcError, Row
from dscalc.checks.assertion import Assertion
from dscalc.core.blocks import SEPARABLE, STANDARD
from dscalc.core.row import Side, Sizes, layer_row, total

PAPER = layer_row(Conv(512, 512, 3, 14), SEPARABLE)
known = partial(find, command="compare", block=SEPARABLE)


def parsed(text):
    return Assertion.parse(text, known)


def row(as_is, rewritten):
    """A row of so many MACs."""
    return Row(None, "conv", Sizes(), Side(Cost(as_is, 0)), Side(Cost(rewritten, 0)))


@pytest.mark.parametrize(
    ("operator", "below", "equal", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        ("==", False, True, False),
        ("!=", True, False, True),
        (">=", False, True, True),
        (">", False, False, True),
    ],
)
def test_each_operator(operator, below, equal, above):
    numbers = (52_283_393, 52_283_392, 52_283_391)  # separable_macs is below, equal, above
    found = [parsed(f"separable_macs {operator} {number}").holds(PAPER) for number in numbers]
    assert found == [below, equal, above]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mac_ratio == 521/4608", True),
        ("mac_ratio != 0.11306423611111112", True),  # repr(521 / 4608)
        ("mac_ratio < 1/8", True),
        ("mac_ratio < 12.5%", True),
        ("mac_reduction == 4608/521", True),
        ("separable_macs <= 60M", True),
        ("separable_macs >= 0.05G", True),
        ("standard_params == 2304Ki", True),
        ("standard_params <= 2.25Mi", True),
        ("standard_params < 2.25Mi", False),
        ("standard_params == 2359296", True),
        ("saved_macs == 410138624", True),
        ("in_channels == 512", True),
        ("  mac_ratio<=1/8  ", True),
        ("mac_ratio < 521/4608", False),
        ("mac_ratio == 0.113", False),
        ("separable_macs <= 50M", False),
    ],
)
def test_numbers_are_compared_exactly_however_they_are_written(text, expected):
    assert parsed(text).holds(PAPER) is expected


@given(st.integers(10**20, 10**40), st.integers(-1, 1))
def test_a_difference_of_one_counts_at_any_size(number, difference):
    huge = row(number, 1)
    assert parsed(f"standard_macs == {number + difference}").holds(huge) is (difference == 0)
    assert parsed(f"standard_macs <= {number + difference}").holds(huge) is (difference >= 0)


@given(st.fractions(min_value=0), st.fractions())
def test_ratios_are_compared_as_fractions(value, number):
    ratio = row(value.denominator, value.numerator)
    assert parsed(f"mac_ratio < {number}").holds(ratio) is (value < number)
    assert parsed(f"mac_ratio == {number}").holds(ratio) is (value == number)


def test_an_assertion_keeps_its_parts():
    expected = Assertion(known("mac_ratio"), "<=", Fraction(1, 8), "mac_ratio <= 1/8")
    assert parsed("mac_ratio<=1/8") == expected


@pytest.mark.parametrize("text", ["", "mac_ratio", "<= 1/8", "mac ratio < 1"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(DscalcError) as raised:
        parsed(text)
    assert str(raised.value) == (
        "an assertion must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
        f"with < <= == != >= or >, got {text!r}"
    )


@pytest.mark.parametrize("number", ["", "a lot", "1/0", "1,000", "mac_ratio", "= 1", "60MB"])
def test_a_condition_needs_a_number(number):
    with pytest.raises(
        DscalcError, match=r"must be a number such as 60M, 320Ki, 0.125 or 1/8, got"
    ):
        parsed(f"mac_ratio < {number}")


@pytest.mark.parametrize(
    ("name", "command", "block", "hint"),
    [
        ("mac_rato", "compare", SEPARABLE, "did you mean mac_ratio"),
        ("seperable_macs", "compare", SEPARABLE, "did you mean separable_macs"),
        ("nonsense", "compare", SEPARABLE, "-f json shows every field"),
        ("standard_macs", "model", SEPARABLE, "did you mean macs?"),  # not a block there
        ("standard_macs", "model", None, "did you mean macs?"),
    ],
)
def test_an_unknown_field_is_refused_with_what_may_be_meant(name, command, block, hint):
    with pytest.raises(DscalcError) as raised:
        find(name, command, block)
    assert str(raised.value).startswith(f"unknown field '{name}'; {hint}")


@pytest.mark.parametrize(
    ("name", "command", "block", "unit", "needed"),
    [
        ("standard_flops", "compare", SEPARABLE, "macs", "--unit flops"),
        ("separable_macs", "compare", SEPARABLE, "flops", "--unit macs"),
        ("separable_macs", "network", STANDARD, "macs", "--as separable"),
        ("standard_macs", "network", None, "macs", "--as standard"),
        ("spatial_macs", "model", None, "macs", "--as spatial"),
        ("mac_ratio", "network", None, "macs", "--as BLOCK, such as --as separable"),
        ("kept", "model", None, "macs", "--as BLOCK, such as --as separable"),
        ("saved_flops", "model", None, "flops", "--as BLOCK, such as --as separable"),
    ],
)
def test_a_field_that_another_option_has_says_which(name, command, block, unit, needed):
    with pytest.raises(DscalcError) as raised:
        find(name, command, block, unit)
    assert str(raised.value) == f"{name} needs {needed}"


@pytest.mark.parametrize("command", ["compare", "network", "model", "bench"])
def test_a_field_that_is_no_number_cannot_be_checked(command):
    words = [field.name for field in fields(command, SEPARABLE) if not field.is_number]
    assert {"name", "kind", "kernel_size", "padding", "bias", "mac_ratio_exact"} <= set(words)
    for name in words:
        with pytest.raises(DscalcError, match=rf"^cannot check '{name} > 0': {name} is not a numb"):
            Assertion.parse(f"{name} > 0", partial(find, command=command, block=SEPARABLE))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("fvcore_standard_macs", PAPER),  # not counted
        ("torch_separable_params", PAPER),
        ("in_channels", total([PAPER])),  # does not apply
        ("mac_ratio", row(0, 0)),
    ],
)
def test_what_has_no_value_cannot_be_checked(name, record):
    with pytest.raises(DscalcError, match=rf"'{name} > 0': {name} has no value in this row$"):
        parsed(f"{name} > 0").holds(record)
