"""``--where``, ``--sort``, ``--reverse`` and ``--top``: which rows are shown, in which order."""

import sys
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
    """Chooses which rows are shown, in which order, and how many.

    Args:
        where: conditions, which a shown row satisfies; a row without a value does not.
        key: sort by this field, largest first, rows without a value last.
        reverse: smallest first.
        top: show at most this many rows.
    """

    def __init__(
        self,
        where: Sequence[Assertion],
        key: Field | None,
        *,
        reverse: bool,
        top: int | None,
    ) -> None:
        self._where, self._key, self._reverse = where, key, reverse
        self._top = None if top is None else min(top, sys.maxsize)  # as Python counts at most
        self._nearest: tuple[tuple[int, Fraction], Row, list[Assertion]] | None = None
        self._kept = False

    @property
    def fields(self) -> list[Field]:
        """The fields that it reads."""
        conditions = [condition.field for condition in self._where]
        return [*conditions, self._key] if self._key else conditions

    @property
    def holds_all(self) -> bool:
        """Whether it must hold every row to know the first."""
        return bool(self._key) and self._top is None

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows to show; no other rows are held."""
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
    def none_left(self) -> bool:
        """Whether there are conditions, and no row so far satisfies them all."""
        return bool(self._where) and not self._kept

    def sentence(self) -> str:
        """The selection in words."""
        parts = [condition.text for condition in self._where]
        if self._key:
            parts.append(f"{'smallest' if self._reverse else 'largest'} {self._key.name} first")
        if self._top is not None:
            parts.append(f"at most {self._top:,} {plural('row', self._top)}")
        return f"shown: {'; '.join(parts)}"

    def after_rows(self) -> str:
        """The selection as it follows "5 of 54 rows": where macs > 1M, by params."""
        where = " and ".join(condition.text for condition in self._where)
        parts = [f" where {where}"] if where else []
        if self._key:
            parts.append(f" by {self._key.name}{', smallest first' if self._reverse else ''}")
        return ",".join(parts) or ", the first"

    def why_none(self, name: Callable[[Row], str]) -> str:
        """No row satisfies the conditions, in words, with the nearest row, which ``name`` names."""
        reason = f"no row has {' and '.join(condition.text for condition in self._where)}"
        if self._nearest is None:
            return reason
        _, row, failed = self._nearest
        has = dict.fromkeys(f"{c.field.name} is {exact(c.field.read(row))}" for c in failed)
        return f"{reason}; nearest: {': '.join(filter(None, (name(row), ', '.join(has))))}"


def _satisfies(condition: Assertion, row: Row) -> bool:
    try:
        return condition.holds(row)
    except DscalcError:  # the row has no value
        return False


def _rank(key: Field, nothing: int, row: Row) -> tuple[int, Any, str]:
    """A sort key: numbers and sizes, then words, then rows without a value.

    A size is as large as its product. ``nothing`` is 1 if the largest come first, else -1.
    """
    value: Value = key.read(row)
    if value is None:
        return -2 * nothing, 0, ""
    if isinstance(value, int | float | Fraction):
        return 0, value, ""
    if isinstance(value, tuple):
        return 0, prod(value), ""
    return -nothing, 0, str(value)
