"""Compare a report with an earlier one from Python."""

from os import PathLike, fspath

from dscalc.baseline.changes import changes
from dscalc.baseline.earlier import Baseline, read_baseline
from dscalc.baseline.view import Compared
from dscalc.report.report import Report


def changes_since(report: Report, baseline: "Baseline | str | PathLike[str]") -> Compared:
    """Compare a report of a network or a model with an earlier one.

    Args:
        report: the report now.
        baseline: the earlier one, or the file that ``-f json`` wrote.

    Raises:
        DscalcError: the file cannot be read, or is not a report of the same command and block.
    """
    if not isinstance(baseline, Baseline):
        baseline = read_baseline(fspath(baseline), report.command, report.block)
    memory, notes = report.whole.memory, report.notes
    if memory and baseline.total.memory and memory.run.bits != baseline.bits:
        was = f"at {baseline.bits} bits a floating element" if baseline.bits else "as it is"
        notes = [*notes, f"memory is {was} in {baseline.name}"]
    rows = list(report.rows)
    return report.as_a(
        Compared, rows=rows, baseline=baseline, changes=changes(baseline.rows, rows), notes=notes
    )
