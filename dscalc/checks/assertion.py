"""``--assert "mac_ratio <= 1/8"``: a condition on one field of a row."""

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from dscalc import words
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.record.fields import Field

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
    """A field, a comparison and the exact number to compare with."""

    field: Field
    operator: str
    number: Fraction
    text: str

    @classmethod
    def parse(cls, text: str, find: Callable[[str], Field]) -> "Assertion":
        """Read ``FIELD OP NUMBER``; OP is one of ``< <= == != >= >``.

        Raises:
            DscalcError: it does not have that form, the field is none that ``find`` knows or has
                no number, or the number is none.
        """
        match = re.fullmatch(_CONDITION, text, re.DOTALL)
        if not match:
            raise DscalcError(
                "an assertion must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
                f"with < <= == != >= or >, got {words.shown(text)}"
            )
        name, symbol, right = match.groups()
        field = find(name)
        if not field.is_number:
            raise DscalcError(f"cannot check {words.shown(text)}: {name} is not a number")
        number = words.number(right, f"the right side of {words.shown(text)}")
        return cls(field, symbol, number, f"{name} {symbol} {right.strip()}")

    def holds(self, row: Row) -> bool:
        """Whether the row satisfies it, exactly.

        Raises:
            DscalcError: the field has no value in this row, or is a time that decided nothing.
        """
        if self.field.timed and row.measured and not row.measured.speedup.decided:
            raise DscalcError(
                f"cannot check {self.text!r}: {row.name}: not decided which is faster; "
                "measure longer, with a larger --min-run-time"
            )
        value = self.field.read(row)
        if value is None:
            reason = f"{self.field.name} has no value in this record"
            if row.unknown:
                reason = f"{self.field.name} is not known: no formula for {', '.join(row.unknown)}"
            raise DscalcError(f"cannot check {self.text!r}: {reason}")
        return bool(_HOLDS[self.operator](value, self.number))
