"""The small words of the command line."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc import DscalcError, words


@given(st.integers(1, 10**99))
def test_a_whole_number_is_read_as_it_is_written(number):
    assert words.whole(str(number), "IC") == number


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        *((words.whole, text, 64) for text in ("64", " 64 ", "+64", "064")),
        (words.whole, "9" * 100, 10**100 - 1),
        *((words.size, text, size) for text, size in (("3", 3), ("3x5", (3, 5)))),
        *(
            (words.size, f"1{cross}2x3", (1, 2, 3))
            for cross in ("x", "X", "\N{MULTIPLICATION SIGN}")
        ),
        (words.shape, "77", (77,)),
        (words.shape, "3x224x224", (3, 224, 224)),
        *((words.padding, word, word) for word in ("same", "valid")),
        *((words.padding, text, size) for text, size in (("0", 0), ("1", 1), ("1x0", (1, 0)))),
        *((words.number, text, 60 * 10**6) for text in ("60M", "60m", "60 M")),
        *((words.number, text, Fraction(1, 8)) for text in ("1/8", "12.5%", ".125", "125e-3")),
        (words.number, "60", 60),
        (words.number, "1.5G", 15 * 10**8),
        (words.number, "2K", 2000),
        (words.number, "1T", 10**12),
        (words.number, "1P", 10**15),
        (words.number, "521/4608", Fraction(521, 4608)),
        (words.number, "0.1", Fraction(1, 10)),
        (words.number, "1e9", 10**9),
        (words.number, "1E-3", Fraction(1, 1000)),
        (words.number, "-3", -3),
        (words.number, "+3", 3),
        (words.number, " 7 ", 7),
        (words.number, "9" * 30, 10**30 - 1),
        (words.multiplier, "3/4", Fraction(3, 4)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_word_is_read_exactly_however_it_is_written(read, text, value):
    assert read(text, "it") == value


@given(st.fractions(), st.sampled_from([("", 1), ("K", 10**3), ("%", Fraction(1, 100))]))
def test_any_fraction_is_read_exactly(fraction, suffix):
    letter, scale = suffix
    assert words.number(f"{fraction}{letter}", "it") == fraction * scale


WHOLE = "must be a whole number such as 64, got "
SIZE = "must be a size such as 3 or 3x5, got "
PADDING = "must be same, valid (none) or a size of 0 or more, such as 1 or 1x2, got "
NUMBER = "must be a number such as 60M, 1.5G, 0.125 or 1/8, got "
MULTIPLIER = "must be greater than 0, such as 0.75 or 3/4, got "
REFUSED = [
    (words.whole, WHOLE, ["", "x", "1.5", "1e3", "1_000", "1,000", "0x40", "²", "६४"]),
    (words.size, SIZE, ["3x", "x3", "3xx5", "3x5x", "3x-", "3x 5y"]),
    (words.shape, "must be a shape such as 3x224x224, got ", ["", "3x", "0x3"]),
    (words.padding, PADDING, ["Same", "full", "", "-1", "1x", "1.5"]),
    (words.number, NUMBER, ["", "M", "x", "1/0", "1.5/2", "60MB", "60 MM", "1,000", "nan", "inf"]),
    (words.number, NUMBER, ["1\u212a", "1e9999", "--3"]),
    (words.multiplier, MULTIPLIER, ["0", "-1/2"]),
]


@pytest.mark.parametrize(
    ("read", "rule", "text"),
    [(read, rule, text) for read, rule, texts in REFUSED for text in texts],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_such_word_is_refused_by_its_name_and_quoted(read, rule, text):
    with pytest.raises(DscalcError) as raised:
        read(text, "the width")
    assert str(raised.value) == f"the width {rule}{text!r}"


@pytest.mark.parametrize(
    ("read", "text", "rule"),
    [
        (words.whole, "0", "at least 1, got 0"),
        (words.whole, "-5", "at least 1, got -5"),
        (lambda text, name: words.whole(text, name, 0), "-1", "at least 0, got -1"),
        (words.whole, "9" * 5000, "at most 100 digits, got 5000"),
        (words.size, "0x3", "at least 1, got 0"),
        (words.size, "3x0", "at least 1, got 0"),
    ],
    ids=range(6),
)
def test_a_whole_number_and_each_part_of_a_size_has_its_limits(read, text, rule):
    with pytest.raises(DscalcError, match=rf"^F must \w+ {re.escape(rule)}$"):
        read(text, "F")


@given(st.text())
def test_no_text_makes_anything_but_a_value_or_one_line(text):
    for read in (words.whole, words.size, words.padding, words.number):
        try:
            value = read(text, "it")
        except DscalcError as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert value in ("same", "valid") or isinstance(value, int | tuple | Fraction)


def test_a_value_is_shown_in_full_and_once():
    values = 4096, Fraction(73, 576), Fraction(1), 2.5
    assert [*map(words.exact, values)] == ["4,096", "0.126736 (73/576)", "1", "2.5"]


def test_an_error_does_not_quote_at_length():
    assert words.shown("7" * 60) == repr("7" * 60)
    assert words.shown("7" * 61) == repr("7" * 57 + "...")
