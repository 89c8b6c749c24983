"""``--assert "mac_ratio <= 1/8"`` and ``--where``: a condition on one field of a row."""

import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

from dscalc import parse
from dscalc.core.fields import Field
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.show import quoted

Numbers = Mapping[str, Row | str]  # by the name that a condition uses: a row, or why there is none

_HOLDS = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_MEANT = {"=": "==", "=<": "<=", "=>": ">="}
_CONDITION = r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(.*)"


class Assertion(NamedTuple):
    """A field, a comparison and an exact number.

    Args:
        field: the left-hand side.
        operator: one of ``< <= == != >= >``.
        number: the right-hand side; with ``relative_to``, the factor of that row's value.
        text: the assertion as written.
        relative_to: the name of a row with the same field, such as ``baseline``; ``""`` for none.
        each: whether it is about every row, even if there is a total.
    """

    field: Field
    operator: str
    number: Fraction
    text: str
    relative_to: str = ""
    each: bool = False

    @classmethod
    def parse(
        cls,
        text: str,
        find: Callable[[str], Field],
        numbers: Numbers = {},  # noqa: B006  # never changed
        *,
        what: str = "an assertion",
    ) -> "Assertion":
        """Read ``FIELD OP NUMBER``; OP is one of ``< <= == != >= >``.

        NUMBER can also be a name in ``numbers``, or ``NUMBER * NAME``.

        Raises:
            DscalcError: the text has another form, ``find`` knows no such field, the field has no
                number, or NUMBER is none.
        """
        match = re.fullmatch(_CONDITION, text, re.DOTALL)
        if not match:
            meant = re.sub(r"(=[<>]|(?<![<>=!])=(?!=))", lambda sign: _MEANT[sign[1]], text)
            write = f"; write {quoted(meant)}" if meant != text else ""
            raise DscalcError(
                f"{what} must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
                f"with < <= == != >= or >, got {quoted(text)}{write}"
            )
        name, symbol, right = match.groups()
        field = find(name)
        if not field.is_number:
            raise DscalcError(f"cannot check {quoted(text)}: {name} is not a number")
        side = f"the right side of {quoted(text)}"
        named, factor = next((number for number in numbers if number in right), ""), right
        if named:
            times = re.fullmatch(rf"(?:(.*)\*)?\s*{re.escape(named)}\s*", right, re.DOTALL)
            if not times:
                raise DscalcError(f"{side} must be {named} or NUMBER * {named}")
            factor = "1" if times[1] is None else times[1].strip()
        number = parse.number(factor, side)
        return cls(field, symbol, number, f"{name} {symbol} {right.strip()}", named)

    def holds(self, row: Row, numbers: Numbers = {}) -> bool:  # noqa: B006
        """Whether the row satisfies the assertion, exactly.

        Raises:
            DscalcError: this row or the named row has no value of the field, or the value is
                undecided.
        """
        if reason := self.undecided(row):
            raise DscalcError(f"cannot check {self.text!r}: {row.name}: {reason}")
        return bool(_HOLDS[self.operator](self._value(row), self.limit(numbers)))

    def limit(self, numbers: Numbers = {}) -> int | Fraction:  # noqa: B006
        """The right-hand side; an int if it is whole.

        Raises:
            DscalcError: the named row does not exist, or has no value of the field.
        """
        if not self.relative_to:
            return _as_int_if_whole(self.number)
        named = numbers[self.relative_to]
        if isinstance(named, str):
            raise DscalcError(f"cannot check {self.text!r}: {named}")
        where = f" in the {self.relative_to}"
        return _as_int_if_whole(self.number * Fraction(self._value(named, where)))

    def _value(self, row: Row, where: str = "") -> int | float | Fraction:
        value: int | float | Fraction | None = self.field.read(row)
        if value is None:
            reason = f"{self.field.name} has no value{where or ' in this row'}"
            if why := self.undecided(row):
                reason = f"{self.field.name} is not known{where}: {why}"
            elif where and row.rewritten is None:
                reason += ", which was written without --as"
            if row.unknown:
                reason = f"{self.field.name} is not known{where}: {row.no_formula}"
            raise DscalcError(f"cannot check {self.text!r}: {reason}")
        return value

    def undecided(self, row: Row) -> str:
        """Why the value of a row decides nothing; "" if it does."""
        return self.field.undecided(row) if self.field.undecided else ""

    def of_a_row(self, option: str) -> "Assertion":
        """The assertion as a condition on each row, which can use only its own numbers.

        Raises:
            DscalcError: the assertion names another row.
        """
        if self.relative_to:
            raise DscalcError(f"{option} cannot use {self.relative_to}, got {quoted(self.text)}")
        return self

    def distance(self, row: Row) -> Fraction | None:
        """The distance of the row from the number, relative to the number; None if it is not known.

        If the number is 0, the distance is absolute.
        """
        value = self.field.read(row)
        if value is None or self.undecided(row):
            return None
        return abs(Fraction(value) - self.number) / (abs(self.number) or 1)


def _as_int_if_whole(number: Fraction) -> int | Fraction:
    return number.numerator if number.denominator == 1 else number
