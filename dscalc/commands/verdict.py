"""What the checks of a run say, on stderr, and the exit code that follows."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Check, Report
from dscalc.show import exact, printable

if TYPE_CHECKING:  # few runs assert anything
    from dscalc.checks.assertion import Assertion

_MOST_LINES = 10  # about one kind of failure, so that a large grid does not flood the terminal


def named(row: Row) -> str:
    """What a row is called; the only layer is not."""
    return row.name or ""


class Verdict:
    """Gathers the outcome of every check.

    ``exit_code`` is 0 where every check holds, 1 where an assertion fails or a cross-check
    differs, and 2 where something could not be answered.
    """

    def __init__(
        self, assertions: "Sequence[Assertion]", baseline: Row | None = None, *, quiet: bool
    ) -> None:
        """Nothing is checked yet.

        Raises:
            DscalcError: an assertion reads a baseline that there is not, or lacks the field.
        """
        self.exit_code = 0
        self._baseline = baseline
        self._quiet = quiet
        self._checks = {
            a: Check(a.text, True, None, "", 0, 0, a.limit(baseline)) for a in assertions
        }
        self._deciding: dict[Assertion, Callable[[], str]] = {}  # names are slow to make
        self._held: list[str] | None = None
        self._failed: Counter[str] = Counter()

    @property
    def checks(self) -> list[Check]:
        """What has become of each assertion so far."""
        return [
            check._replace(row=self._deciding.get(assertion, str)())
            for assertion, check in self._checks.items()
        ]

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

    def crosscheck(self, row: Row, report: Report, name: Callable[[Row], str] = named) -> None:
        """Say where the counts of a row differ from its formulas."""
        if row.crosscheck != "mismatch":
            return
        differences = [
            f"{field.name} is {found:,}, but the formula gives {expected:,}"
            for field in report.fields
            if field.is_number
            and field.formula
            and (expected := field.formula(row)) != (found := field.read(row))
        ]
        self._fail("mismatch", "; ".join(differences) or "a step differs", partial(name, row))

    @property
    def asserts(self) -> bool:
        """Whether there is anything to check."""
        return bool(self._checks)

    def check(
        self, row: Row, name: Callable[[Row], str] = named, *, each: bool | None = None
    ) -> None:
        """Say which assertions a row fails: all, those of each row, or those of the total."""
        for assertion, check in self._checks.items():
            if each is not None and assertion.each is not each:
                continue
            value = assertion.field.read(row)
            if assertion.each and value is None and not row.unknown:
                continue  # such as the ratio of a pool
            try:
                holds = assertion.holds(row, self._baseline)
            except DscalcError as error:
                self.refuse(str(error))
                holds, value = False, None
            else:
                if not holds:
                    reason = f"{assertion.field.name} is {exact(value)}"
                    if assertion.of_baseline:
                        reason += f"; baseline is {exact(assertion.field.read(self._baseline))}"
                    self._fail(assertion.text, reason, partial(name, row))
            if _decides(check, holds, value):
                check = check._replace(value=value)
                self._deciding[assertion] = partial(name, row)
            self._checks[assertion] = check._replace(
                holds=check.holds and holds,
                rows=check.rows + 1,
                failed=check.failed + (not holds),
            )

    def differs(self, reason: str) -> None:
        """A cross-check differs."""
        self._fail("mismatch", reason)

    def worse(self, code: int) -> None:
        """Another exit code, if that is worse."""
        self.exit_code = max(self.exit_code, code)

    def fails(self, reason: str) -> None:
        """The answer is no."""
        self.worse(1)
        self.note(f"failed: {reason}")

    def conclude(self) -> int:
        """Say what was left out, and which assertions hold; return the exit code."""
        for kind, failures in self._failed.items():
            if failures > _MOST_LINES:
                self.note(f"{kind}: {failures - _MOST_LINES:,} more")
        for assertion, check in self._checks.items():
            if assertion.each and not check.rows and not self.exit_code:
                self.refuse(f"cannot check {check.assertion!r}: no row has a value")
            if check.rows and check.holds:
                rows = f" in all {check.rows:,} rows" if check.rows > 1 else ""
                self.note(f"holds: {check.assertion}{rows}")
        return self.exit_code

    def _fail(self, kind: str, reason: str, name: Callable[[], str] = str) -> None:
        self.worse(1)
        self._failed[kind] += 1
        if self._failed[kind] <= _MOST_LINES:
            self.note(": ".join(part for part in ("failed", kind, name(), reason) if part))

    def note(self, line: str) -> None:
        """Write a line to stderr, unless the run is quiet."""
        if not self._quiet:
            self.say(line)


def _decides(check: Check, holds: bool, value: Any) -> bool:
    """Whether a row is nearer to the limit; once rows fail, whether it fails and is further off."""
    if not check.rows or (check.holds and not holds):
        return True
    if (holds and not check.holds) or check.value is None or value is None:
        return False
    further = abs(value - check.limit) - abs(check.value - check.limit)
    return bool(further < 0 if holds else further > 0)
