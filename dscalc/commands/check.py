"""``dscalc check``: every budget of a project, in one run."""

import sys
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

from dscalc.checks.budgets import Budget, find_budgets, read_budgets
from dscalc.checks.verdict import Fault
from dscalc.commands.options import ReportOptions, Run
from dscalc.commands.writing import write
from dscalc.core.blocks import STANDARD
from dscalc.errors import DscalcError
from dscalc.report.outcomes import FIELDS, Outcome, Outcomes, outcomes_title
from dscalc.show import printable

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
            code, rows = _check_budget(budget, ctx.obj, verbose=output.verbose)
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
    write(
        Outcomes("check", STANDARD, FIELDS, outcomes, title=outcomes_title(outcomes)), output, ctx
    )
    return worst


def _check_budget(budget: Budget, run: Run, *, verbose: bool) -> tuple[int, list[Outcome]]:
    """The exit code of a budget, and the outcome of each of its assertions."""
    more = ["-v"] if verbose else []
    loud = sys.stderr if verbose else StringIO()
    try:
        with redirect_stdout(loud), redirect_stderr(loud) if not verbose else nullcontext():
            answer = run.answer([*budget.run, *more])
            code = answer.settle()
    except KeyboardInterrupt:
        return 130, []
    except DscalcError as error:
        reason = str(error)
        return 2, [Outcome(budget.name, text, error=reason) for text in budget.assertions]
    verdict, outcomes = answer.verdict, []
    faults = list(dict.fromkeys(verdict.faults))
    for one in verdict.checks:
        outcome = Outcome.of(budget.name, one)
        if outcome.holds is None and (own := _own_faults(one.assertion, one.rows, faults)):
            faults = [fault for fault in faults if fault not in own]
            why, said = f"cannot check {one.assertion!r}: ", f"{one.assertion}: "
            reason = own[0].reason.replace(why, said)
            outcome = outcome._replace(holds=False if own[0].answers else None, error=reason)
        outcomes.append(outcome)
    rest = (
        Outcome(budget.name, holds=False if fault.answers else None, error=fault.reason)
        for fault in faults
    )
    return code, [*outcomes, *rest]


def _own_faults(assertion: str, rows: int, faults: list[Fault]) -> list[Fault]:
    """The faults that leave an assertion without an answer: its own, or that no row is left."""
    return [
        fault
        for fault in faults
        if fault.assertion == assertion
        or (not rows and fault.answers and fault.reason.startswith("no row "))
    ]
