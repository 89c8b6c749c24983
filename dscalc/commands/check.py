"""``dscalc check``: every budget of a project, in one run."""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from fractions import Fraction
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import typer

from dscalc.checks.budgets import Budget, find_budgets, read_budgets
from dscalc.commands.answer import write
from dscalc.commands.options import ReportOptions
from dscalc.core.blocks import STANDARD
from dscalc.report.report import Check, Report
from dscalc.show import exact, plural, printable

EXAMPLES = """
  dscalc check
  dscalc check budgets.toml -f markdown

\b
budgets.toml, or a pyproject.toml with [[tool.dscalc.check]]:
  [[check]]
  name = "small"
  run = "network mobilenet_v1 --width-multiplier 0.5"
  assert = ["macs <= 150M", "params <= 1.4M"]
"""

Run = Callable[[list[str]], int]


class Outcome(NamedTuple):
    """A check of a budget, or why there is none: a row of ``dscalc check``.

    Args:
        budget: the name of the budget.
        assertion: as it is written.
        holds: whether it holds; None where there is no answer.
        value: of its field, as in `Check`.
        limit: what the value is held against.
        left: how much of the limit is left; below 0 it is exceeded; None where it is no limit.
        row: the name of the row that the value is of; "" for a total.
        error: why there is no value.
    """

    budget: str
    assertion: str = ""
    holds: bool | None = None
    value: int | float | Fraction | None = None
    limit: int | float | Fraction | None = None
    left: int | float | Fraction | None = None
    row: str = ""
    error: str = ""

    @classmethod
    def of(cls, budget: str, check: Check) -> "Outcome":
        """What became of an assertion of a budget."""
        if check.value is None:
            return cls(budget, check.assertion, limit=check.limit, error=check.sentence)
        symbol, left = check.assertion.split()[1], None
        if symbol[0] in "<>":
            # They are read from JSON; so written, a float is the decimal that it was meant as.
            value, limit = (Fraction(str(number)) for number in (check.value, check.limit))
            room = limit - value if symbol[0] == "<" else value - limit
            left = room.numerator if room.denominator == 1 else float(room)
        return cls(budget, check.assertion, check.holds, check.value, check.limit, left, check.row)

    @property
    def sentence(self) -> str:
        """What became of it, in words."""
        if self.error:
            return self.error
        where = f"{self.row}: " if self.row else ""
        return f"{self.assertion}: {where}{exact(self.value)}"


def check(
    ctx: typer.Context,
    output: ReportOptions,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            show_default=False,
            help="TOML file with [[check]]. Default: the nearest pyproject.toml, here or above, "
            "with [[tool.dscalc.check]].",
        ),
    ] = None,
) -> int:
    """Check every budget of a project in one run, even if some fail.

    Each budget has run, a command line, and assert or assert-each, an assertion or a list of
    them. It may have a name, and a baseline, an earlier JSON report. Paths are relative to the
    file. The report has one row for each assertion; the exit code is the worst of all.
    """
    found = source or find_budgets(Path.cwd())
    budgets = read_budgets(found)
    worst, outcomes = 0, list[Outcome]()
    with chdir(found.resolve().parent):
        for budget in budgets:
            code, rows = _checked(budget, ctx.obj, verbose=output.verbose)
            if code == 130:
                return code
            worst = max(worst, code)
            outcomes += rows
    said = dict.fromkeys(
        f"{'error' if outcome.holds is None else 'failed'}: {outcome.budget}: {outcome.sentence}"
        for outcome in outcomes
        if outcome.holds is None or (outcome.holds is False and not output.quiet)
    )
    for line in said:
        sys.stderr.write(f"{printable(line)}\n")
    report = Report("check", STANDARD, cast(Any, outcomes), title=_title(outcomes))
    write(report, output)
    return worst


def _checked(budget: Budget, run: Run, *, verbose: bool) -> tuple[int, list[Outcome]]:
    """The exit code of a budget, and what became of each of its assertions."""
    more = ["-v"] if verbose else []
    code, stdout, stderr = _captured(run, [*budget.run, "-f", "json", *more])
    if verbose:
        sys.stderr.write(stderr)
    report = _report(stdout)
    if report is None:
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        reason = "; ".join(errors or stderr.splitlines()).replace("error: ", "")
        reason = reason or "run printed no report"
        return max(code, 2), [
            Outcome(budget.name, text, error=reason) for text in budget.assertions
        ]
    faults = dict.fromkeys(  # of which "failed" is an answer
        Outcome(budget.name, holds=None if kind == "error" else False, error=reason)
        for kind, _, reason in (line.partition(": ") for line in stderr.splitlines())
        if kind == "error" or (kind == "failed" and reason.startswith(("mismatch", "no row ")))
    )
    outcomes, told = [], set[Outcome]()
    for check in report["checks"]:
        outcome = Outcome.of(budget.name, Check(**check))
        why = f"cannot check {outcome.assertion!r}: "
        beginnings = (why,) if check["rows"] else (why, "no row ")
        own = [fault for fault in faults if fault.error.startswith(beginnings)]
        if outcome.holds is None and own:
            told.update(own)
            said = own[0].error.replace(why, f"{outcome.assertion}: ")
            outcome = outcome._replace(holds=own[0].holds, error=said)
        outcomes.append(outcome)
    return code, [*outcomes, *(fault for fault in faults if fault not in told)]


def _captured(run: Run, args: list[str]) -> tuple[int, str, str]:
    """The exit code of a command line, and what it wrote."""
    streams = [TextIOWrapper(BytesIO(), encoding="utf-8") for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        code = run(args)
    for stream in streams:
        stream.seek(0)
    return code, streams[0].read(), streams[1].read()


def _report(text: str) -> dict[str, Any] | None:
    from json import loads

    try:
        report = loads(text)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "checks" in report else None


def _title(outcomes: list[Outcome]) -> str:
    count = Counter(outcome.holds for outcome in outcomes)
    holding, failing, unknown = count[True], count[False], count[None]
    parts = [f"{holding:,} {'holds' if holding == 1 else 'hold'}"]
    if failing:
        parts.append(f"{failing:,} {'fails' if failing == 1 else 'fail'}")
    if unknown:
        parts.append(f"{unknown:,} not answered")
    return f"{len(outcomes):,} {plural('check', len(outcomes))}: {', '.join(parts)}"
