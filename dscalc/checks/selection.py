"""``--where``, ``--sort``, ``--reverse`` and ``--top``: which rows are shown, in which order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from heapq import nlargest, nsmallest
from itertools import islice
from math import prod
from typing import Any

from dscalc.checks.assertion import Assertion
from dscalc.core.fields import Field, Value
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.show import exact, plural


class Selection:
    """The conditions that a row must satisfy to be shown, the order, and how many are.

    Args:
        where: a row is shown if all of them hold; one without a value does not.
        key: rows are shown by this field, largest first, those without a value last.
        reverse: smallest first instead.
        top: only so many.
    """

    def __init__(
        self,
        where: Sequence[Assertion] = (),
        key: Field | None = None,
        *,
        reverse: bool = False,
        top: int | None = None,
    ) -> None:
        self._where, self._key, self._reverse, self._top = where, key, reverse, top
        self._nearest: tuple[tuple[int, Fraction], Row, list[Assertion]] | None = None
        self._kept = False

    @property
    def fields(self) -> list[Field]:
        """What it reads of a row."""
        conditions = [condition.field for condition in self._where]
        return [*conditions, self._key] if self._key else conditions

    @property
    def holds_all(self) -> bool:
        """Whether every row must be held at once to know the first."""
        return bool(self._key) and self._top is None

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows that are shown; of many rows no more than those are held."""
        kept = filter(self._keeps, rows)
        if self._key is None:
            return islice(kept, self._top)
        rank = partial(_rank, self._key, -1 if self._reverse else 1)
        if self._top is not None:
            return iter((nsmallest if self._reverse else nlargest)(self._top, kept, rank))
        return iter(sorted(kept, key=rank, reverse=not self._reverse))

    def _keeps(self, row: Row) -> bool:
        failed = [condition for condition in self._where if not _satisfies(condition, row)]
        if not failed:
            self._kept = True
        elif not self._kept:
            distances = [condition.distance(row) for condition in failed]
            if None not in distances:
                near = len(failed), max(filter(None, distances), default=Fraction(0))
                if self._nearest is None or near < self._nearest[0]:
                    self._nearest = near, row, failed
        return not failed

    @property
    def leaves_out(self) -> bool:
        """Whether there are conditions."""
        return bool(self._where)

    @property
    def none_left(self) -> bool:
        """Whether there are conditions, and no row so far satisfies them."""
        return self.leaves_out and not self._kept

    def sentence(self) -> str:
        """What is shown, in words."""
        parts = [condition.text for condition in self._where]
        if self._key:
            parts.append(f"{'smallest' if self._reverse else 'largest'} {self._key.name} first")
        if self._top is not None:
            parts.append(f"at most {self._top:,} {plural('row', self._top)}")
        return f"shown: {'; '.join(parts)}"

    def why_none(self, name: Callable[[Row], str]) -> str:
        """That no row satisfies the conditions, and which came nearest; ``name`` names it."""
        reason = f"no row has {' and '.join(condition.text for condition in self._where)}"
        if self._nearest is None:
            return reason
        _, row, failed = self._nearest
        has = dict.fromkeys(f"{c.field.name} is {exact(c.field.read(row))}" for c in failed)
        return f"{reason}; nearest: {name(row)}: {', '.join(has)}"


def _satisfies(condition: Assertion, row: Row) -> bool:
    try:
        return condition.holds(row)
    except DscalcError:  # it has no value here
        return False


def _rank(key: Field, nothing: int, row: Row) -> tuple[int, Any, str]:
    """Numbers and sizes, then words; ``nothing`` says where what has no value goes."""
    value: Value = key.read(row)
    if value is None:
        return -2 * nothing, 0, ""
    if isinstance(value, int | float | Fraction):
        return 0, value, ""
    if isinstance(value, tuple):
        return 0, prod(value), ""
    return -nothing, 0, str(value)
