"""The report of ``dscalc check``: what became of each assertion of each budget."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from dscalc.checks.verdict import Check
from dscalc.core.fields import Fields, attributes
from dscalc.report.report import Report
from dscalc.report.sentences import DIFFERENT, SAME
from dscalc.report.sheet import Column, Sheet
from dscalc.show import exact, in_six_digits, plural

FIELDS = Fields(
    attributes(
        "",
        ("budget", str, "the name of the budget"),
        ("assertion", str, "the assertion as written"),
        ("each", bool, "whether it is about each row, as assert-each is"),
        ("holds", bool, "whether it holds; null if it cannot be checked"),
        (
            "value", Fraction,
            "value of its field, in the row nearest to the limit or furthest past it",
        ),
        ("limit", Fraction, "what the value is compared with"),
        ("left", Fraction, "how much of the limit is left; negative if over it"),
        ("row", str, "the row that the value is of; empty for a total"),
        ("error", str, "why it cannot be checked"),
        ("line", int, "the line of the file that states it"),
    )
)  # fmt: skip


class Outcome(NamedTuple):
    """A check of a budget, or why there is none: a row of ``dscalc check``.

    Args:
        budget: the name of the budget.
        assertion: as it is written.
        each: whether it is about each row.
        holds: whether it holds; None where there is no answer.
        value: of its field, as in `Check`.
        limit: what the value is compared with.
        left: how much of the limit is left; below 0 it is exceeded; None where it is no limit.
        row: the name of the row that the value is of; "" for a total.
        error: why there is no value.
        line: of the file; None if it is not found.
    """

    budget: str
    assertion: str = ""
    each: bool = False
    holds: bool | None = None
    value: int | float | Fraction | None = None
    limit: int | float | Fraction | None = None
    left: int | float | Fraction | None = None
    row: str = ""
    error: str = ""
    line: int | None = None

    @classmethod
    def of(cls, budget: str, check: Check) -> "Outcome":
        """What became of an assertion of a budget."""
        limit = _as_plain_number(check.limit)
        if check.value is None:
            unknown = check.sentence
            return cls(budget, check.assertion, check.each, limit=limit, error=unknown)
        symbol, left = check.assertion.split()[1], None
        if symbol[0] in "<>":  # a float is the decimal that it is written as
            room = Fraction(str(check.limit)) - Fraction(str(check.value))
            left = _as_plain_number(room if symbol[0] == "<" else -room)
        value = _as_plain_number(check.value)
        return cls(budget, check.assertion, check.each, check.holds, value, limit, left, check.row)

    @property
    def condition(self) -> str:
        """The assertion, told apart from one about the total."""
        return f"each {self.assertion}" if self.each else self.assertion

    @property
    def sentence(self) -> str:
        """What became of it, in words."""
        if self.error:
            return self.error
        where = f"{self.row}: " if self.row else ""
        return f"{self.condition}: {where}{exact(self.value)}"

    def annotation(self, file: str) -> str:
        """A workflow command of GitHub Actions, which shows the outcome beside the line.

        Source:
            ``::error file={name},line={line},title={title}::{message}``, GitHub's "Workflow
            commands for GitHub Actions"; escapes as in ``command.ts`` of actions/toolkit.
        """
        said = self.sentence
        if self.left is not None:
            left = exact(abs(self.left))
            said += f"; {left} left" if self.holds else f"; off by {left}"
        places = {"file": file, "line": self.line and str(self.line), "title": self.budget}
        named = [f"{name}={_escaped(place, ':,')}" for name, place in places.items() if place]
        return f"::{'notice' if self.holds else 'error'} {','.join(named)}::{_escaped(said)}\n"


def _escaped(text: str, more: str = "") -> str:
    """Text with what ends a part of a workflow command as its number in hexadecimal."""
    return "".join(f"%{ord(char):02X}" if char in f"%\r\n{more}" else char for char in text)


def _as_plain_number(number: float | Fraction) -> int | float:
    """A whole number as an int; another Fraction as a float."""
    if isinstance(number, Fraction):
        return number.numerator if number.denominator == 1 else float(number)
    return number


@dataclass(eq=False, repr=False)
class Outcomes(Report):
    """What became of each budget of a project, one assertion a row; and their exit codes."""

    rows: Sequence[Any]
    codes: Sequence[int] = ()

    def head(self) -> dict[str, Any]:
        """What the JSON says before its rows; they are rewritten as nothing."""
        head = super().head()
        del head["as"], head["inputs"]
        return head

    def foot(self) -> dict[str, Any]:
        """What the JSON says after its rows, which are the checks."""
        return {"total": None}

    def table(self) -> Sheet:
        """What people read of it."""
        columns = [
            Column("budget", lambda row: row.budget, role="name"),
            Column("assertion", _assertion_cell),
            Column("value", _value_cell),
            Column("limit", lambda row: _number_cell(row.limit), rank=1),
            Column("left", lambda row: _number_cell(row.left), rank=2),
        ]
        if any(row.row for row in self.rows):
            columns.append(Column("row", lambda row: row.row, rank=3, role="listed"))
        errors = [f"{row.budget}: {row.error}" for row in self.rows if row.error]
        notes = list(dict.fromkeys(errors))
        return Sheet.of(self.title, columns, self.rows, notes, paths=True, last=self.sentence)

    @property
    def sentence(self) -> str:
        """How many budgets fail."""
        number, failing, unknown = len(self.codes), self.codes.count(1), self.codes.count(2)
        if not failing and not unknown:
            return {1: "the budget holds", 2: "both budgets hold"}.get(
                number, f"all {number:,} budgets hold"
            )
        said = f"{failing:,} of {number:,} {plural('budget', number)} {_verb('fail', failing)}"
        return f"{said}, {unknown:,} without an answer" if unknown else said

    def annotations(self, file: str) -> Iterator[str]:
        """Workflow commands of GitHub Actions, one an assertion; then the sentence."""
        yield from (outcome.annotation(file) for outcome in self.rows)
        yield f"{self.sentence}\n"


def _assertion_cell(row: Outcome) -> str:
    mark = {True: f" {SAME}", False: f" {DIFFERENT}", None: ""}[row.holds]
    return f"{row.condition}{mark}"


def _value_cell(row: Outcome) -> str:
    return "not answered" if row.holds is None else _number_cell(row.value)


def _number_cell(value: float | Fraction | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    number = float(value)
    return f"{number:,.10g}" if abs(number) >= 1000 else in_six_digits(number)


def _verb(verb: str, number: int) -> str:
    return f"{verb}s" if number == 1 else verb


def outcomes_title(outcomes: Sequence[Outcome]) -> str:
    """How many there are, and how many hold."""
    count = Counter(outcome.holds for outcome in outcomes)
    holding, failing, unknown = count[True], count[False], count[None]
    parts = [f"{holding:,} {_verb('hold', holding)}"]
    if failing:
        parts.append(f"{failing:,} {_verb('fail', failing)}")
    if unknown:
        parts.append(f"{unknown:,} not answered")
    return f"{len(outcomes):,} {plural('assertion', len(outcomes))}: {', '.join(parts)}"
