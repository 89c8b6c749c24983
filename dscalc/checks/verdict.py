"""The outcome of each check of a run, and the exit code."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from dscalc.checks.assertion import Assertion, Numbers
from dscalc.core.fields import Field
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.show import exact, printable

_MOST_LINES = 10  # per kind of failure, so that a large grid does not flood the terminal
Name = Callable[[Row], str]


class Check(NamedTuple):
    """The outcome of an assertion.

    Args:
        assertion: the assertion as written.
        holds: whether it holds in every row checked.
        value: the field's value in the row nearest to the limit; if rows fail, in the failing row
            furthest from it.
        row: the name of that row; ``""`` for a total and for the only layer.
        rows: the number of rows checked.
        failed: the number of these that fail.
        limit: the right-hand side.
        each: whether it is about each row, even if there is a total.
    """

    assertion: str
    holds: bool
    value: int | float | Fraction | None
    row: str
    rows: int
    failed: int
    limit: int | float | Fraction = 0
    each: bool = False

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if self.value is None:
            return f"{self.assertion}: not known"
        if self.holds:
            where = f" in all {self.rows:,} rows" if self.rows > 1 else ""
            return f"{self.assertion}: holds{where or f', {exact(self.value)}'}"
        where = f" in {self.failed:,} of {self.rows:,} rows, furthest" if self.rows > 1 else ""
        where += f" in {self.row}" if self.row else ""
        return f"{self.assertion}: fails{where}: {exact(self.value)}"


class Fault(NamedTuple):
    """A fault besides failed assertions.

    Args:
        reason: one sentence.
        answers: whether the answer is no; if not, there is no answer.
        assertion: the assertion that it leaves without an answer; "" for all of them.
    """

    reason: str
    answers: bool = False
    assertion: str = ""


def row_name(row: Row) -> str:
    """The name of a row; "" for the only layer."""
    return row.name or ""


class Verdict:
    """Gathers the outcome of every check.

    Attributes:
        exit_code: 0 if every check holds; 1 if an assertion fails, a cross-check differs or the
            answer is no; 2 if there is no answer to a question.
        faults: faults besides failed assertions, at most a few of a kind.
        doubts: why counts are not proved, though no other number is known.
    """

    def __init__(
        self,
        assertions: Sequence[Assertion],
        numbers: Numbers,
        *,
        write: Callable[[str], object],
        quiet: bool,
    ) -> None:
        """Check nothing yet.

        Args:
            assertions: the assertions to check.
            numbers: rows that assertions may name.
            write: writes text for people.
            quiet: whether to write errors alone.

        Raises:
            DscalcError: an assertion names a row that does not exist, or that lacks the field.
        """
        self.exit_code = 0
        self.faults: list[Fault] = []
        self.doubts: list[str] = []
        self._numbers, self._write, self._quiet = numbers, write, quiet
        self._checks = {
            a: Check(a.text, True, None, "", 0, 0, a.limit(numbers), a.each) for a in assertions
        }
        self._deciding: dict[Assertion, Callable[[], str]] = {}  # names are made on demand
        self._held: list[str] | None = None
        self._failed: Counter[str] = Counter()

    @property
    def checks(self) -> list[Check]:
        """The outcome of each assertion so far."""
        return [
            check._replace(row=self._deciding.get(assertion, str)())
            for assertion, check in self._checks.items()
        ]

    @property
    def assertions(self) -> list[Assertion]:
        """The assertions to check."""
        return list(self._checks)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold lines back until the block ends, while it writes the answer."""
        self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            for line in lines:
                self.say(line)

    def say(self, line: str) -> None:
        """Write a line."""
        if self._held is None:
            self._write(f"{printable(line)}\n")
        else:
            self._held.append(line)

    def note(self, line: str) -> None:
        """Write a line, unless the run is quiet."""
        if not self._quiet:
            self.say(line)

    def worse(self, code: int) -> None:
        """Set the exit code, if it gets worse."""
        self.exit_code = max(self.exit_code, code)

    def refuse(self, reason: str, assertion: str = "") -> None:
        """Report that there is no answer to something, such as an assertion."""
        self.exit_code = 2
        if self._is_one_of_few("error"):
            self.faults.append(Fault(reason, assertion=assertion))
            self.say(f"error: {reason}")

    def fails(self, reason: str) -> None:
        """Report that the answer is no."""
        self.worse(1)
        self.faults.append(Fault(reason, answers=True))
        self.note(f"failed: {reason}")

    def differs(self, reason: str, name: str = "") -> None:
        """Report that a cross-check differs."""
        self.worse(1)
        reason = ": ".join(part for part in ("mismatch", name, reason) if part)
        if self._is_one_of_few("mismatch"):
            self.faults.append(Fault(reason, answers=True))
            self.note(f"failed: {reason}")

    def _is_one_of_few(self, kind: str) -> bool:
        """Count a failure of a kind; False once there are too many to report."""
        self._failed[kind] += 1
        return self._failed[kind] <= _MOST_LINES

    def crosscheck(self, row: Row, fields: Iterable[Field], name: Name = row_name) -> None:
        """Report the counts of a row that differ from its formulas."""
        if row.crosscheck != "mismatch":
            return
        differences = [
            f"{field.name} is {found:,}, but the formula gives {expected:,}"
            for field in fields
            if field.is_number
            and field.formula
            and (expected := field.formula(row)) != (found := field.read(row))
        ]
        self.differs("; ".join(differences) or "a step differs", name(row))

    def check(self, row: Row, name: Name = row_name, *, each: bool | None = None) -> None:
        """Check a row against all assertions, or only those whose ``each`` is the same."""
        for assertion, check in self._checks.items():
            if each is not None and assertion.each is not each:
                continue
            value = assertion.field.read(row)
            decides = not row.unknown and not assertion.undecided(row)
            if assertion.each and value is None and decides:
                continue  # such as the MAC ratio of a pool
            try:
                holds = assertion.holds(row, self._numbers)
            except DscalcError as error:
                self.refuse(str(error), assertion.text)
                holds, value = False, None
            else:
                if not holds:
                    self._fail(assertion, row, name)
            if _decides(check, holds, value):
                check = check._replace(value=value)
                self._deciding[assertion] = partial(name, row)
            self._checks[assertion] = check._replace(
                holds=check.holds and holds,
                rows=check.rows + 1,
                failed=check.failed + (not holds),
            )

    def _fail(self, assertion: Assertion, row: Row, name: Name) -> None:
        self.worse(1)
        if not self._is_one_of_few(assertion.text):
            return
        field = assertion.field
        reason = f"{field.name} is {exact(field.read(row))}"
        if assertion.relative_to:
            other = field.read(self._numbers[assertion.relative_to])
            reason += f"; {assertion.relative_to} is {exact(other)}"
        self.note(": ".join(filter(None, ("failed", assertion.text, name(row), reason))))

    def conclude(self) -> int:
        """Report how much was left out and which assertions hold; return the exit code."""
        for kind, failures in self._failed.items():
            if failures > _MOST_LINES:
                self.note(f"{kind}: {failures - _MOST_LINES:,} more")
        for assertion, check in self._checks.items():
            if assertion.each and not check.rows and not self.exit_code:
                reason = f"cannot check {check.assertion!r}: no row has a value"
                self.refuse(reason, check.assertion)
            if check.rows and check.holds:
                rows = f" in all {check.rows:,} rows" if check.rows > 1 else ""
                self.note(f"holds: {check.assertion}{rows}")
        return self.exit_code


def _decides(check: Check, holds: bool, value: Any) -> bool:
    """Whether a row is the one to quote in a check.

    It is if it is the nearest to the limit; once rows fail, if it fails and is the furthest from
    it.
    """
    if not check.rows or (check.holds and not holds):
        return True
    if (holds and not check.holds) or check.value is None or value is None:
        return False
    further = abs(value - check.limit) - abs(check.value - check.limit)
    return bool(further < 0 if holds else further > 0)
