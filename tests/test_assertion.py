"""Conditions on a record: --assert."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc import DscalcError, compare
from dscalc.checks.assertion import Assertion, check_field
from dscalc.record.fields import Record, names, record, values

FIELDS = names(Record._fields, "macs")
PAPER = values(record(compare(512, 512, 3, 14)), "macs")


def holds(text, known=PAPER):
    return Assertion.parse(text, known).holds(known)


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
    found = [holds(f"separable_macs {operator} {number}") for number in numbers]
    assert found == [below, equal, above]


@pytest.mark.parametrize(
    "text",
    [
        "mac_ratio == 521/4608",
        "mac_ratio != 0.11306423611111112",  # repr(521 / 4608)
        "mac_ratio < 1/8",
        "mac_ratio < 12.5%",
        "mac_reduction == 4608/521",
        "separable_macs <= 60M",
        "separable_macs >= 0.05G",
        "standard_params == 2359296",
        "in_channels == 512",
        "depth_multiplier == 1",
        "  mac_ratio<=1/8  ",
    ],
)
def test_what_holds_holds_exactly(text):
    assert holds(text)


@pytest.mark.parametrize(
    "text", ["mac_ratio < 521/4608", "mac_ratio == 0.113", "separable_macs <= 50M"]
)
def test_what_does_not_hold_does_not(text):
    assert not holds(text)


@given(st.integers(10**20, 10**40), st.integers(-1, 1))
def test_a_difference_of_one_counts_at_any_size(number, difference):
    known = {"standard_macs": number}
    assert holds(f"standard_macs == {number + difference}", known) is (difference == 0)
    assert holds(f"standard_macs <= {number + difference}", known) is (difference >= 0)


@given(st.fractions(), st.fractions())
def test_ratios_are_compared_as_fractions(value, number):
    known = {"mac_ratio": value}
    assert holds(f"mac_ratio < {number}", known) is (value < number)
    assert holds(f"mac_ratio == {number}", known) is (value == number)


def test_an_assertion_keeps_its_parts():
    assert Assertion.parse("mac_ratio<=1/8", FIELDS) == (
        "mac_ratio",
        "<=",
        Fraction(1, 8),
        "mac_ratio <= 1/8",
    )


@pytest.mark.parametrize(
    "text", ["", "mac_ratio", "mac_ratio = 1/8", "mac_ratio => 1/8", "<= 1/8", "mac ratio < 1"]
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(DscalcError) as raised:
        Assertion.parse(text, FIELDS)
    assert str(raised.value) == (
        "an assertion must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
        f"with < <= == != >= or >, got {text!r}"
    )


@pytest.mark.parametrize("number", ["", "a lot", "1/0", "1,000", "mac_ratio", "= 1", "60MB"])
def test_a_condition_needs_a_number(number):
    with pytest.raises(DscalcError, match=r"must be a number such as 60M, 1.5G, 0.125 or 1/8, got"):
        Assertion.parse(f"mac_ratio < {number}", FIELDS)


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("mac_rato", "did you mean mac_ratio"),
        ("seperable_macs", "did you mean separable_macs"),
        ("standard_flops", "with --unit flops it is known"),
        ("nonsense", "the fields are name kind in_channels"),
    ],
)
def test_an_unknown_field_is_refused_with_what_may_be_meant(field, hint):
    with pytest.raises(DscalcError, match=f"^unknown field '{field}'; {hint}"):
        Assertion.parse(f"{field} < 1", FIELDS)


def test_in_flops_the_fields_have_other_names():
    with pytest.raises(DscalcError, match=r"with --unit flops it is called separable_flops$"):
        check_field("separable_macs", names(Record._fields, "flops"))


@pytest.mark.parametrize(
    "field", ["kind", "kernel_size", "output_size", "padding", "bias", "mac_ratio_exact"]
)
def test_a_field_that_is_no_number_cannot_be_checked(field):
    with pytest.raises(DscalcError, match=f"^cannot check '{field} > 0': {field} is not a number$"):
        holds(f"{field} > 0")


@pytest.mark.parametrize("field", ["fvcore_standard_macs", "torch_separable_params"])
def test_a_count_that_was_not_made_cannot_be_checked(field):
    with pytest.raises(DscalcError, match=f"{field} has no value in this record"):
        holds(f"{field} > 0")


def test_a_field_that_does_not_apply_cannot_be_checked():
    with pytest.raises(DscalcError, match=r"in_channels has no value in this record$"):
        holds("in_channels > 0", {"in_channels": None})
