"""The small words of the command line."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc import DscalcError, words


@given(st.integers(1, 10**99))
def test_a_whole_number_is_read_as_it_is_written(number):
    assert words.whole(str(number), "IC") == number


@pytest.mark.parametrize("text", ["64", " 64 ", "+64", "064"])
def test_a_whole_number_may_be_written_loosely(text):
    assert words.whole(text, "IC") == 64


@pytest.mark.parametrize("text", ["", " ", "x", "1.5", "1e3", "1_000", "1,000", "0x40", "²", "६४"])
def test_what_is_no_whole_number_is_refused_by_its_name(text):
    with pytest.raises(DscalcError) as raised:
        words.whole(text, "IC")
    assert str(raised.value) == f"IC must be a whole number such as 64, got {text.strip()!r}"


@pytest.mark.parametrize(("text", "least"), [("0", 1), ("-5", 1), ("-1", 0)])
def test_a_whole_number_has_a_least_value(text, least):
    with pytest.raises(DscalcError, match=f"^IC must be at least {least}, got {text}$"):
        words.whole(text, "IC", least)


def test_a_whole_number_has_at_most_a_hundred_digits():
    assert words.whole("9" * 100, "IC") == 10**100 - 1
    with pytest.raises(DscalcError, match=r"^IC must have at most 100 digits, got 5000$"):
        words.whole("9" * 5000, "IC")


@pytest.mark.parametrize(("text", "size"), [("3", 3), ("3x5", (3, 5)), ("1x2x3", (1, 2, 3))])
def test_a_size_is_one_number_or_one_an_axis(text, size):
    assert words.size(text, "F") == size


@pytest.mark.parametrize("text", ["3x", "x3", "3xx5", "3x5x", "3X5", "3x-", "3x 5y"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(DscalcError, match=f"^F must be .*got '{text}'$"):
        words.size(text, "F")


@pytest.mark.parametrize("text", ["0x3", "3x0", "3x-1"])
def test_every_part_of_a_size_has_a_least_value(text):
    with pytest.raises(DscalcError, match=r"^F must be at least 1, got "):
        words.size(text, "F")


@pytest.mark.parametrize(
    ("text", "padding"),
    [("same", "same"), ("valid", "valid"), ("0", 0), ("1", 1), ("1x0", (1, 0))],
)
def test_padding_is_a_word_or_a_size(text, padding):
    assert words.padding(text) == padding


@pytest.mark.parametrize("text", ["Same", "full", "", "-1", "1x", "1.5"])
def test_what_is_no_padding_is_refused(text):
    with pytest.raises(DscalcError, match=r"^padding must be same, valid or a size of 0 or more, "):
        words.padding(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("60", 60),
        ("60M", 60 * 10**6),
        ("60m", 60 * 10**6),
        ("1.5G", 15 * 10**8),
        ("2K", 2000),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1/8", Fraction(1, 8)),
        ("521/4608", Fraction(521, 4608)),
        ("12.5%", Fraction(1, 8)),
        (".125", Fraction(1, 8)),
        ("0.1", Fraction(1, 10)),
        ("1e9", 10**9),
        ("1E-3", Fraction(1, 1000)),
        ("-3", -3),
        ("+3", 3),
        (" 7 ", 7),
        ("9" * 30, 10**30 - 1),
    ],
)
def test_a_number_is_read_exactly(text, number):
    assert words.number(text, "it") == number


@given(st.fractions(), st.sampled_from([("", 1), ("K", 10**3), ("%", Fraction(1, 100))]))
def test_any_fraction_is_read_exactly(fraction, suffix):
    letter, scale = suffix
    assert words.number(f"{fraction}{letter}", "it") == fraction * scale


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "x",
        "1/0",
        "1.5/2",
        "60MB",
        "60 MM",
        "1,000",
        "nan",
        "inf",
        "1\u212a",
        "1e9999",
        "--3",
    ],
)
def test_what_is_no_number_is_refused_by_its_name(text):
    with pytest.raises(DscalcError) as raised:
        words.number(text, "the width")
    assert str(raised.value) == (
        f"the width must be a number such as 60M, 1.5G, 0.125 or 1/8, got {text!r}"
    )


@given(st.text())
def test_no_text_makes_anything_but_a_value_or_one_line(text):
    for read in (words.whole, words.size, words.padding, words.number):
        try:
            value = read(text, "it")
        except DscalcError as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert value in ("same", "valid") or isinstance(value, int | tuple | Fraction)


def test_an_error_does_not_quote_at_length():
    assert words.shown("7" * 60) == repr("7" * 60)
    assert words.shown("7" * 61) == repr("7" * 57 + "...")
