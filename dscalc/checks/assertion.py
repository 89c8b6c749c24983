"""``--assert "mac_ratio <= 1/8"``, and ``--where``: a condition on one field of a row."""

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from dscalc import parse, show
from dscalc.core.fields import Field
from dscalc.core.row import Row
from dscalc.errors import DscalcError

_HOLDS = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_CONDITION = r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(.*)"


class Assertion(NamedTuple):
    """A field, a comparison and the exact number to compare with.

    ``each`` says that it is of every row, even where there is a total; ``of_baseline`` that the
    number is a factor of what the field is in a baseline.
    """

    field: Field
    operator: str
    number: Fraction
    text: str
    of_baseline: bool = False
    each: bool = False

    @classmethod
    def parse(
        cls, text: str, find: Callable[[str], Field], *, what: str = "an assertion"
    ) -> "Assertion":
        """Read ``FIELD OP NUMBER``; OP is one of ``< <= == != >= >``.

        ``baseline`` and ``NUMBER * baseline`` are numbers too.

        Raises:
            DscalcError: it does not have that form, the field is none that ``find`` knows or has
                no number, or the number is none.
        """
        match = re.fullmatch(_CONDITION, text, re.DOTALL)
        if not match:
            raise DscalcError(
                f"{what} must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
                f"with < <= == != >= or >, got {show.shown(text)}"
            )
        name, symbol, right = match.groups()
        field = find(name)
        if not field.is_number:
            raise DscalcError(f"cannot check {show.shown(text)}: {name} is not a number")
        side = f"the right side of {show.shown(text)}"
        of_baseline = re.fullmatch(r"(?:(.*)\*)?\s*baseline\s*", right, re.DOTALL)
        if "baseline" in right and not of_baseline:
            raise DscalcError(f"{side} must be baseline or NUMBER * baseline")
        factor = right
        if of_baseline:
            factor = "1" if of_baseline[1] is None else of_baseline[1].strip()
        number = parse.number(factor, side)
        return cls(field, symbol, number, f"{name} {symbol} {right.strip()}", bool(of_baseline))

    def holds(self, row: Row, baseline: Row | None = None) -> bool:
        """Whether the row satisfies it, exactly.

        Raises:
            DscalcError: the field has no value in this row, or in the baseline, or is a time that
                decided nothing.
        """
        if self._undecided(row):
            raise DscalcError(
                f"cannot check {self.text!r}: {row.name}: it is not decided which is faster; "
                "measure longer with a larger --min-run-time"
            )
        return bool(_HOLDS[self.operator](self._value(row), self.limit(baseline)))

    def limit(self, baseline: Row | None) -> int | Fraction:
        """What the right side comes to; an int if it is whole.

        Raises:
            DscalcError: it is of a baseline, and the field has no value there.
        """
        if not self.of_baseline:
            return _whole(self.number)
        if baseline is None:
            raise DscalcError(
                f"cannot check {self.text!r}: baseline needs --baseline FILE, an option of "
                "network and model"
            )
        return _whole(self.number * Fraction(self._value(baseline, " in the baseline")))

    def _value(self, row: Row, where: str = "") -> int | float | Fraction:
        value: int | float | Fraction | None = self.field.read(row)
        if value is None:
            reason = f"{self.field.name} has no value{where or ' in this row'}"
            if row.unknown:
                operators = ", ".join(row.unknown)
                reason = f"{self.field.name} is not known{where}: no formula for {operators}"
            raise DscalcError(f"cannot check {self.text!r}: {reason}")
        return value

    def _undecided(self, row: Row) -> bool:
        return bool(self.field.timed and row.measured and not row.measured.speedup.decided)

    def without_baseline(self, option: str) -> "Assertion":
        """The same, where a row has no baseline of its own.

        Raises:
            DscalcError: it reads a baseline.
        """
        if self.of_baseline:
            raise DscalcError(f"{option} cannot use baseline, got {show.shown(self.text)}")
        return self

    def distance(self, row: Row) -> Fraction | None:
        """How far the row is from the number, as a share of that; None where that is not known."""
        value = self.field.read(row)
        if value is None or self._undecided(row):
            return None
        return abs(Fraction(value) - self.number) / (abs(self.number) or 1)


def _whole(number: Fraction) -> int | Fraction:
    return number.numerator if number.denominator == 1 else number
