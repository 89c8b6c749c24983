"""The small words of the command line are read, and values written."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc import DscalcError, parse, show


@given(st.integers(1, 10**99))
def test_a_whole_number_is_read_as_it_is_written(number):
    assert parse.whole(str(number), "IC") == number


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        *((parse.whole, text, 64) for text in ("64", " 64 ", "+64", "064")),
        (parse.whole, "9" * 100, 10**100 - 1),
        *((parse.size, text, size) for text, size in (("3", 3), ("3x5", (3, 5)))),
        *(
            (parse.size, f"1{cross}2x3", (1, 2, 3))
            for cross in ("x", "X", "\N{MULTIPLICATION SIGN}")
        ),
        (parse.shape, "77", (77,)),
        (parse.shape, "3x224x224", (3, 224, 224)),
        *((parse.padding, word, word) for word in ("same", "valid")),
        *((parse.padding, text, size) for text, size in (("0", 0), ("1", 1), ("1x0", (1, 0)))),
        *((parse.number, text, 60 * 10**6) for text in ("60M", "60m", "60 M")),
        *((parse.number, text, Fraction(1, 8)) for text in ("1/8", "12.5%", ".125", "125e-3")),
        (parse.number, "60", 60),
        (parse.number, "1.5G", 15 * 10**8),
        (parse.number, "2K", 2000),
        (parse.number, "1T", 10**12),
        (parse.number, "1P", 10**15),
        *((parse.number, text, 320 * 1024) for text in ("320Ki", "320ki", "320 KI", "0.3125Mi")),
        *((parse.number, text, 2**30) for text in ("1Gi", "1024Mi")),
        *((parse.number, text, 2**50) for text in ("1Pi", "1024Ti")),
        (parse.number, "1/8Ki", 128),
        (parse.number, "521/4608", Fraction(521, 4608)),
        (parse.number, "0.1", Fraction(1, 10)),
        (parse.number, "1e9", 10**9),
        (parse.number, "1E-3", Fraction(1, 1000)),
        (parse.number, "-3", -3),
        (parse.number, "+3", 3),
        (parse.number, " 7 ", 7),
        (parse.number, "9" * 30, 10**30 - 1),
        (parse.multiplier, "3/4", Fraction(3, 4)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_word_is_read_exactly_however_it_is_written(read, text, value):
    assert read(text, "it") == value


@given(
    st.fractions(), st.sampled_from([("", 1), ("K", 10**3), ("Ki", 2**10), ("%", Fraction(1, 100))])
)
def test_any_fraction_is_read_exactly(fraction, suffix):
    letter, scale = suffix
    assert parse.number(f"{fraction}{letter}", "it") == fraction * scale


WHOLE = "must be a whole number such as 64, got "
SIZE = "must be a size such as 3 or 3x5, got "
PADDING = "must be same, valid (none) or a size of 0 or more, such as 1 or 1x2, got "
NUMBER = "must be a number such as 60M, 320Ki, 0.125 or 1/8, got "
MULTIPLIER = "must be greater than 0, such as 0.75 or 3/4, got "
REFUSED = [
    (parse.whole, WHOLE, ["", "x", "1.5", "1e3", "1_000", "1,000", "0x40", "²", "६४"]),
    (parse.size, SIZE, ["3x", "x3", "3xx5", "3x5x", "3x-", "3x 5y"]),
    (parse.shape, "must be a shape such as 3x224x224, got ", ["", "3x", "0x3"]),
    (parse.padding, PADDING, ["Samey", "full", "", "-1", "1x", "1.5"]),
    (parse.number, NUMBER, ["", "M", "x", "1/0", "1.5/2", "60MB", "60 MM", "1,000", "nan", "inf"]),
    (parse.number, NUMBER, ["1\u212a", "1e9999", "--3", "3i", "3KiB", "3K i", "3%i", "Ki"]),
    (parse.number, NUMBER, ["1 million", "1.5 billion MACs", "5 thousand", "2 giga", "1,000,000"]),
    (parse.multiplier, MULTIPLIER, ["0", "-1/2"]),
]


@pytest.mark.parametrize(
    ("read", "rule", "text"),
    [(read, rule, text) for read, rule, texts in REFUSED for text in texts],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_such_word_is_refused_by_its_name_and_quoted(read, rule, text):
    with pytest.raises(DscalcError) as raised:
        read(text, "the width")
    reason, write, fix = str(raised.value).partition("; write ")
    assert reason == f"the width {rule}{text!r}"
    meant = {"60MB": 60_000_000, "60 MM": 60_000_000, "3KiB": 3072, "3K i": 3000}
    meant |= {"1 million": 10**6, "1.5 billion MACs": 1_500_000_000, "5 thousand": 5000}
    meant |= {"2 giga": 2 * 10**9, "1,000,000": 10**6}
    assert bool(write) == (text in meant)
    if write:
        assert read(fix, "the width") == meant[text]


@pytest.mark.parametrize(
    ("read", "text", "rule"),
    [
        (parse.whole, "0", "at least 1, got 0"),
        (parse.whole, "-5", "at least 1, got -5"),
        (lambda text, name: parse.whole(text, name, 0), "-1", "at least 0, got -1"),
        (parse.whole, "9" * 5000, "at most 100 digits, got 5000"),
        (parse.size, "0x3", "at least 1, got 0"),
        (parse.size, "3x0", "at least 1, got 0"),
    ],
    ids=range(6),
)
def test_a_whole_number_and_each_part_of_a_size_has_its_limits(read, text, rule):
    with pytest.raises(DscalcError, match=rf"^F must \w+ {re.escape(rule)}$"):
        read(text, "F")


@given(st.text())
def test_no_text_makes_anything_but_a_value_or_one_line(text):
    for read in (parse.whole, parse.size, parse.padding, parse.number):
        try:
            value = read(text, "it")
        except DscalcError as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert value in ("same", "valid") or isinstance(value, int | tuple | Fraction)


def test_a_value_is_shown_in_full_and_once():
    values = 4096, Fraction(73, 576), Fraction(1), 2.5
    assert [*map(show.exact, values)] == ["4,096", "0.126736 (73/576)", "1", "2.5"]


def test_an_error_does_not_quote_at_length():
    assert parse.quoted("7" * 60) == repr("7" * 60)
    assert parse.quoted("7" * 61) == repr("7" * 57 + "...")
