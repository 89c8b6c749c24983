"""``--assert "mac_ratio <= 1/8"``: a condition on one field of a record."""

import operator
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fractions import Fraction
from typing import NamedTuple

from dscalc import words
from dscalc.errors import DscalcError
from dscalc.record.fields import Value

_HOLDS = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(.*)", re.DOTALL)


class Assertion(NamedTuple):
    """A field, a comparison and the exact number to compare with."""

    field: str
    operator: str
    number: Fraction
    text: str

    @classmethod
    def parse(
        cls, text: str, fields: Iterable[str], numbers: Iterable[str] | None = None
    ) -> "Assertion":
        """Read ``FIELD OP NUMBER``; OP is one of ``< <= == != >= >``.

        Raises:
            DscalcError: it does not have that form, the field is not one of ``fields``, or not one
                of ``numbers``, or the number is none.
        """
        match = _CONDITION.fullmatch(text)
        if not match:
            raise DscalcError(
                "an assertion must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
                f"with < <= == != >= or >, got {words.shown(text)}"
            )
        field, symbol, right = match.groups()
        check_field(field, fields)
        if numbers is not None and field not in numbers:
            raise DscalcError(f"cannot check {words.shown(text)}: {field} is not a number")
        number = words.number(right, f"the right side of {words.shown(text)}")
        return cls(field, symbol, number, f"{field} {symbol} {right.strip()}")

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether the record satisfies it, exactly.

        Raises:
            DscalcError: the field holds no number in this record.
        """
        value = values[self.field]
        if value is None:
            raise DscalcError(
                f"cannot check {self.text!r}: {self.field} has no value in this record"
            )
        if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
            raise DscalcError(f"cannot check {self.text!r}: {self.field} is not a number")
        return bool(_HOLDS[self.operator](value, self.number))


def check_field(field: str, fields: Iterable[str]) -> None:
    """Refuse a field that the records do not have, and name the nearest that they have."""
    known = list(fields)
    if field in known:
        return
    near = get_close_matches(field, known, n=3, cutoff=0.5)
    if field.replace("_flops", "_macs") in known:
        hint = "with --unit flops it is known"
    elif field.replace("_macs", "_flops") in known:
        hint = f"with --unit flops it is called {field.replace('_macs', '_flops')}"
    else:
        hint = f"did you mean {' or '.join(near)}?" if near else f"the fields are {' '.join(known)}"
    raise DscalcError(f"unknown field {words.shown(field)}; {hint}")
