"""Numbers of other counters, from Python."""

from collections.abc import Iterable
from typing import Any

from dscalc.core.conv import Conv
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.peers.explanation import Source, find_explanation
from dscalc.peers.printed import read_number
from dscalc.peers.quantities import layer_quantities, row_quantities
from dscalc.peers.view import Counters, Explained
from dscalc.report.report import Report


def explain(report: Report, number: str | int) -> Explained:
    """Find the counters that give a number from elsewhere.

    Args:
        report: of one layer, a network or a model; that of a model must come from `audit` with
            ``observe=CallObserver``, of ``dscalc.peers.observer``.
        number: as written: ``4133742592``, ``"4.13 GMac"`` or ``"97.8 MB"``.

    Raises:
        DscalcError: ``number`` is not a number, the report has no total, or its MACs are not
            known.
    """
    return explained(report, str(number), ())


def explained(report: Report, number: str, sized: Iterable[tuple[int, Report]]) -> Explained:
    """`explain` with reports at other input sizes, which are read only if needed."""
    more = (
        Source(f"an input of {size}x{size}", _quantities(other), assumes=True)
        for size, other in sized
    )
    found = find_explanation(read_number(number, "the number"), _sources(report), report.unit, more)
    return report.as_a(Explained, found=found, notes=report.doubts)


def counters(report: Report) -> Counters:
    """Predict the count of a layer, a network or a model by each counter that dscalc knows.

    Args:
        report: of one layer or a network; or from `audit` with ``observe=CallObserver``, of
            ``dscalc.peers.observer``.

    Raises:
        DscalcError: the report has no total, or its MACs are not known.
    """
    quantities = _sources(report)[0].quantities
    return report.as_a(Counters, quantities=quantities, notes=report.doubts)


def _sources(report: Report) -> list[Source]:
    """The sources that a number may count, the report as a whole first."""
    rows, whole = list(report.rows), report.whole
    if report.command == "compare":
        return _parts(rows[0])
    if whole.unknown:
        raise DscalcError(f"the MACs are not known: {whole.no_formula}")
    not_run = sum(row.as_is.cost.params for row in rows if row.calls == 0)
    sources = [Source("", _quantities(report), whole.as_is.cost.params, not_run=not_run)]
    if report.command == "network" and any(row.rewritten not in (None, row.as_is) for row in rows):
        rewritten = [row._replace(as_is=row.replacement) for row in rows]
        what = f"the network rewritten as {report.block}"
        params = sum(row.as_is.cost.params for row in rewritten)
        sources.append(Source(what, row_quantities(rewritten), params))
    return sources


def _quantities(report: Report) -> Any:
    return report.extra if report.command == "model" else row_quantities(report.rows)


def _parts(row: Row) -> list[Source]:
    """A layer, what it is rewritten as, and the steps of that."""
    steps = row.replacement.steps
    built = {"the standard convolution": row.as_is.steps, f"{row.block}": steps}
    if len(steps) > 1:
        built |= {f"the {step.name} step": (step,) for step in steps}
    return [
        Source(
            what,
            layer_quantities(step.layer for step in steps if isinstance(step.layer, Conv)),
            sum(step.cost.params for step in steps),
        )
        for what, steps in built.items()
    ]
