"""What the checks of a run say, on stderr, and the exit code that follows."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction

from dscalc.checks.assertion import Assertion
from dscalc.record.fields import CHECKED, Record, Value
from dscalc.words import printable

_MOST_LINES = 10  # about one kind of failure, so that a large grid does not flood the terminal


class Verdict:
    """Gathers the outcome of every check.

    ``exit_code`` is 0 where every check holds, 1 where an assertion fails or a cross-check
    differs, and 2 where something could not be answered.
    """

    def __init__(
        self,
        assertions: Iterable[str],
        fields: Sequence[str],
        numbers: Collection[str] | None = None,
        *,
        quiet: bool,
    ) -> None:
        self.exit_code = 0
        self._quiet = quiet
        self._assertions = [Assertion.parse(text, fields, numbers) for text in assertions]
        self._checked = 0
        self._held: list[str] | None = None
        self._failed: Counter[str] = Counter()

    @property
    def assertion_fields(self) -> list[str]:
        """The fields that the assertions are about."""
        return [assertion.field for assertion in self._assertions]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Say nothing until the end, while a live display owns the terminal."""
        self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            for line in lines:
                self.say(line)

    def say(self, line: str) -> None:
        """Write a line to stderr."""
        if self._held is None:
            sys.stderr.write(f"{printable(line)}\n")
        else:
            self._held.append(line)

    def refuse(self, reason: str) -> None:
        """Something could not be answered."""
        self.exit_code = 2
        self._failed["error"] += 1
        if self._failed["error"] <= _MOST_LINES:
            self.say(f"error: {reason}")

    def crosscheck(self, row: Record, name: Callable[[], str] = str) -> None:
        """Say where the counts of a record differ from its formulas."""
        if row.crosscheck != "mismatch":
            return
        differences = [
            f"{counted} is {found:,} and the formula gives {expected:,}"
            for field, counted in CHECKED.items()
            if (expected := getattr(row, field)) != (found := getattr(row, counted))
        ]
        self._fail("mismatch", name, "; ".join(differences) or "a part of separable differs")

    def check(self, known: Mapping[str, Value], name: Callable[[], str] = str) -> None:
        """Say which assertions the fields of a record fail.

        Raises:
            DscalcError: a field holds no number in this record.
        """
        self._checked += 1
        for assertion in self._assertions:
            if not assertion.holds(known):
                value = _exact(known[assertion.field])
                self._fail(assertion.text, name, f"{assertion.field} is {value}")

    def differs(self, reason: str) -> None:
        """A cross-check differs."""
        self._fail("mismatch", str, reason)

    def conclude(self) -> int:
        """Say what was left out, and which assertions hold; return the exit code."""
        for kind, failures in self._failed.items():
            if failures > _MOST_LINES:
                self._note(f"{kind}: {failures - _MOST_LINES:,} more")
        for assertion in self._assertions:
            if self._checked and assertion.text not in self._failed:
                rows = f" in all {self._checked:,} rows" if self._checked > 1 else ""
                self._note(f"holds: {assertion.text}{rows}")
        return self.exit_code

    def _fail(self, kind: str, name: Callable[[], str], reason: str) -> None:
        self.exit_code = max(self.exit_code, 1)
        self._failed[kind] += 1
        if self._failed[kind] <= _MOST_LINES:
            self._note(": ".join(part for part in ("failed", kind, name(), reason) if part))

    def _note(self, line: str) -> None:
        if not self._quiet:
            self.say(line)


def _exact(value: Value) -> str:
    if isinstance(value, Fraction):
        return f"{float(value):.6g} ({value})"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
