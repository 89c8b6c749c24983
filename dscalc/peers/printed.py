"""A number as people write it: 4133742592, 4.13 GMac, 30.94 Bn, 4.09x10^9, 97.8 MB."""

import re
from fractions import Fraction
from typing import NamedTuple
from unicodedata import normalize

from dscalc import show
from dscalc.errors import DscalcError
from dscalc.parse import THOUSANDS, WORDS

_POWERS = {**THOUSANDS, "B": 3}  # of 1000, by their names
_POWERS |= {word.upper(): THOUSANDS[letter] for word, letter in WORDS.items()}
_NOUNS = {
    "macs": "macc?s?|m(?:ult?-?)?adds?",
    "flops": "flops?|ops?",
    "params": "params?|parameters|weights",
    "bytes": "i?b|bytes",
}
_KNOWN_UNITS = "K M G T P, B or Bn, x10^9, each with MACs, FLOPs or params; MB or MiB of weights"
_WRITTEN = re.compile(
    r"([+-]?)(\d{0,99})(?:\.(\d{1,99}))?"
    r"(?:(?:e\+?| ?[x*] ?10 ?(?:\^|\*\*) ?)(\d{1,2}))? ?([a-z%][a-z%/ -]*)?",
    re.A | re.I,
)
_UNIT_WORDS = re.compile(
    rf"({'|'.join(sorted(_POWERS, key=len, reverse=True))}) ?"
    rf"(?:{'|'.join(f'(?P<{noun}>{words})' for noun, words in _NOUNS.items())}|)",
    re.I,
)
_WITH_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:([,' ])\d{3}(?:\1\d{3})*|(?:\.\d{3}){2,})(?!\d)")
_ONE_COMMA = re.compile(r"[1-9]\d{0,2},\d{3}(?![\d.,])")


class PrintedNumber(NamedTuple):
    """A number in print.

    Args:
        text: the number as written.
        value: its value.
        step: the value of one unit in its last digit; 0 for a whole number, which is exact.
        digits: the number of digits, without zeros in front.
        thousands: the power of 1000 of its unit: 3 in 4.13G.
        unit: macs, flops, params or bytes, as the number says; "" if it does not.
        binary: whether that power is of 1024, as in 97.8 MiB.
    """

    text: str
    value: Fraction
    step: Fraction
    digits: int
    thousands: int
    unit: str = ""
    binary: bool = False

    def fits(self, candidate: Fraction, spread: int = 0) -> bool:
        """Whether a candidate, rounded, is printed like this, or one within ``spread`` of it."""
        return abs(candidate - self.value) <= self.step / 2 + spread

    def truncates(self, candidate: Fraction) -> bool:
        """Whether a candidate, with later digits dropped, is printed like this."""
        return self.value <= candidate < self.value + self.step

    @property
    def few(self) -> bool:
        """Whether the digits are too few to prove anything; then all counters are listed."""
        return bool(self.step) and self.digits <= 3

    @property
    def most_assumptions(self) -> int:
        """The most assumptions that the digits can prove."""
        if not self.step or self.digits >= 8:
            return 3
        return 2 if self.digits >= 5 else 1 if self.digits == 4 else 0

    def near(self, macs: int) -> "PrintedNumber":
        """The number with the power of 1000 that it lacks: 4.1 of a model with 4 G MACs is 4.1G.

        It must then be within 30% of the MACs, or of the FLOPs at 2 per MAC. So must 4,089 G for
        its comma to be the point of 4.089 G.
        """

        def is_near(value: Fraction) -> bool:
            return any(abs(value - n) <= Fraction(3, 10) * n for n in (macs, 2 * macs))

        if self.thousands and _ONE_COMMA.match(self.text) and is_near(self.value / 1000):
            return self._replace(value=self.value / 1000, step=self.step / 1000)
        if not self.step or self.thousands or self.unit or self.value >= 1000:
            return self
        for letter, power in THOUSANDS.items():
            value, step = self.value * 1000**power, self.step * 1000**power
            if power and is_near(value):
                text = f"{self.text}{letter}"
                return self._replace(text=text, value=value, step=step, thousands=power)
        return self


def read_number(text: str, name: str) -> PrintedNumber:
    """Read a number in print.

    Raises:
        DscalcError: the text is not a number above 0, or has an unknown unit.
    """
    match = _WRITTEN.fullmatch(_plain(text))
    if not match or not (match[2] or match[3]):
        raise DscalcError(
            f"{name} must be a number such as 4133742592 or 4.13G, got {show.quoted(text)}"
        )
    sign, whole, decimals, exponent, words = match.groups(default="")
    unit = _UNIT_WORDS.fullmatch(words)
    if not unit:
        raise DscalcError(
            f"{name} has an unknown unit {show.quoted(words)}, got {show.quoted(text)}; "
            f"choose from {_KNOWN_UNITS}"
        )
    thousands = _POWERS[unit[1].upper()]
    binary = (unit["bytes"] or "").lower() == "ib"
    scale = Fraction(
        (1024 if binary else 1000) ** thousands * 10 ** int(exponent or 0), 10 ** len(decimals)
    )
    value = int(whole + decimals) * scale
    if sign == "-" or not value:
        raise DscalcError(f"{name} must be greater than 0, got {show.quoted(text)}")
    step = scale if decimals or exponent or thousands else Fraction(0)
    digits = len((whole + decimals).lstrip("0"))
    return PrintedNumber(text.strip(), value, step, digits, thousands, unit.lastgroup or "", binary)


def _plain(text: str) -> str:
    """The number with a point for decimals, and nothing between thousands."""
    plain = " ".join(text.replace("_", "").replace("\N{MULTIPLICATION SIGN}", "x").split())
    plain = re.sub("^[~\N{ALMOST EQUAL TO}] ?", "", plain)  # about
    plain = re.sub("[⁰¹²³⁴-⁹]+", lambda power: f"^{normalize('NFKC', power[0])}", plain)
    if match := _WITH_THOUSANDS.match(plain):
        plain = re.sub(r"\D", "", match[0]) + plain[match.end() :]
    return re.sub(r"^(\d+),(?=\d)", r"\1.", plain)
