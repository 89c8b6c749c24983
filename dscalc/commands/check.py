"""``dscalc check``: every budget of a project, in one run."""

import os
import sys
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

import typer

from dscalc.checks.budgets import Budget, find_budgets, read_budgets
from dscalc.checks.verdict import Fault
from dscalc.commands.meant import refuse_for
from dscalc.commands.options import ReportOptions, Run, output_option
from dscalc.commands.writing import write, write_pieces
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


@dataclass(init=False, eq=False, repr=False)
class CheckOptions(ReportOptions):
    """How to write the report."""

    asked_format: Annotated[
        Literal["table", "json", "jsonl", "csv", "markdown", "svg", "github"] | None,
        output_option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="table, json, jsonl, csv, markdown or svg; or github: an error or a notice beside "
            "the line of each assertion, in GitHub Actions.",
        ),
    ] = None  # type: ignore[assignment]  # one more than others have


def check(
    ctx: typer.Context,
    output: CheckOptions,
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
    them: assert is about the total if there is one, assert-each about each row. It may have a
    name, and a baseline, an earlier JSON report. Paths are relative to the file. The report has
    one row for each assertion; the exit code is the worst of all.
    """
    if source:
        refuse_for("check", str(source))
    found = source or find_budgets(Path.cwd())
    output.refuse_to_replace([found], "the file of the budgets")
    budgets = read_budgets(found)
    codes, outcomes, notes = list[int](), list[Outcome](), dict[str, None]()
    with chdir(found.resolve().parent):
        for budget in budgets:
            code, rows, doubts = _check_budget(budget, ctx.obj, verbose=output.verbose)
            if code == 130:
                return code
            codes.append(code)
            outcomes += rows
            notes |= {f"note: {budget.name}: {doubt}": None for doubt in doubts}
    for line in () if output.quiet else notes:
        sys.stderr.write(f"{printable(line)}\n")
    report = Outcomes("check", None, FIELDS, outcomes, title=outcomes_title(outcomes), codes=codes)
    if output.asked_format == "github":
        write_pieces(report.annotations(_in_workspace(found)), output)
        return max(codes)
    said = dict.fromkeys(
        f"{'error' if outcome.holds is None else 'failed'}: {outcome.budget}: {outcome.sentence}"
        for outcome in outcomes
        if outcome.holds is None or (outcome.holds is False and not output.quiet)
    )
    for line in said:
        sys.stderr.write(f"{printable(line)}\n")
    write(report, output, ctx)
    return max(codes)


def _in_workspace(file: Path) -> str:
    """The path of a file in the repository, as GitHub Actions knows it."""
    top = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    whole = file.resolve()
    return (whole.relative_to(top) if whole.is_relative_to(top) else file).as_posix()


def _check_budget(
    budget: Budget, run: Run, *, verbose: bool
) -> tuple[int, list[Outcome], list[str]]:
    """The exit code of a budget, the outcome of each of its assertions, and why to doubt them."""
    more = ["-v"] if verbose else []
    loud = sys.stderr if verbose else StringIO()
    try:
        with redirect_stdout(loud), redirect_stderr(loud) if not verbose else nullcontext():
            answer = run.answer([*budget.run, *more])
            code = answer.settle()
    except KeyboardInterrupt:
        return 130, [], []
    except DscalcError as error:
        reason = str(error)
        return (
            2,
            [
                Outcome(budget.name, text, each, error=reason, line=budget.line_of(text, each=each))
                for text, each in budget.assertions
            ],
            [],
        )
    verdict, outcomes = answer.verdict, []
    faults = list(dict.fromkeys(verdict.faults))
    for one in verdict.checks:
        outcome = Outcome.of(budget.name, one)
        if outcome.holds is None and (own := _own_faults(one.assertion, one.rows, faults)):
            faults = [fault for fault in faults if fault not in own]
            why, said = f"cannot check {one.assertion!r}: ", f"{one.assertion}: "
            reason = own[0].reason.replace(why, said)
            outcome = outcome._replace(holds=False if own[0].answers else None, error=reason)
        outcomes.append(outcome._replace(line=budget.line_of(one.assertion, each=one.each)))
    rest = (
        Outcome(
            budget.name, holds=False if fault.answers else None, error=fault.reason,
            line=budget.line,
        )
        for fault in faults
    )  # fmt: skip
    return code, [*outcomes, *rest], verdict.doubts


def _own_faults(assertion: str, rows: int, faults: list[Fault]) -> list[Fault]:
    """The faults that leave an assertion without an answer: its own, or that no row is left."""
    return [
        fault
        for fault in faults
        if fault.assertion == assertion
        or (not rows and fault.answers and fault.reason.startswith("no row "))
    ]
