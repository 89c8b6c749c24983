"""What --explain, --peers and --cite answer in place of the report."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dscalc.commands.answer import sheet_pieces, write_pieces
from dscalc.commands.options import ConventionOptions, OutputOptions
from dscalc.core.conv import Conv
from dscalc.core.row import Count, Row, proved, total
from dscalc.errors import DscalcError
from dscalc.peers import view as shown
from dscalc.peers.conventions import Source, explain, read_number
from dscalc.peers.quantities import of_layers, of_rows
from dscalc.report.report import Report
from dscalc.show import times

if TYPE_CHECKING:  # only a model needs torch
    from dscalc.pytorch.inputs import Inputs

SIZES = (128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 512, 640)  # that people give


def answer_layer(
    row: Row,
    report: Report,
    count: Count | None,
    options: ConventionOptions,
    output: OutputOptions,
) -> int:
    """Answer of a layer, of what it is rewritten as, and of the steps of that."""
    row = proved(row, count) if count else row
    built = {"the standard convolution": row.as_is.steps, f"{report.block}": row.rewritten.steps}
    if len(row.rewritten.steps) > 1:
        built |= {f"the {step.name} step": (step,) for step in row.rewritten.steps}
    sources = [
        Source(
            what,
            of_layers(step.layer for step in steps if isinstance(step.layer, Conv)),
            sum(step.cost.params for step in steps),
        )
        for what, steps in built.items()
    ]
    report = replace(report, rows=[row], total=total([row]), notes=[])
    return answer(report, options, output, sources)


def answer_rows(
    report: Report,
    options: ConventionOptions,
    output: OutputOptions,
    sized: Iterable[tuple[int, Sequence[Row]]],
) -> int:
    """Answer of a network, as it is and rewritten; ``sized`` has its rows at other sizes."""
    rows = list(report.rows)
    sources = [_source("", rows)]
    if any(row.rewritten is not row.as_is for row in rows):
        what = f"the network rewritten as {report.block}"
        sources.append(_source(what, [row._replace(as_is=row.rewritten) for row in rows]))
    more = (_source(f"an input of {size}x{size}", at, 1) for size, at in sized)
    first = rows[0].layer
    inputs = ""
    if isinstance(first, Conv):
        inputs = times((first.batch_size, first.in_channels, *first.input_size))
    return answer(report, options, output, sources, more, inputs)


def answer_model(
    report: Report,
    options: ConventionOptions,
    output: OutputOptions,
    model: Any,
    given: "Inputs",
) -> int:
    """Answer of a model; it is traced at other sizes only if its own explains nothing."""
    from dscalc.peers.observer import quantities_at

    assert report.extra is not None
    assert report.total is not None
    if report.total.unknown:
        operators = ", ".join(report.total.unknown)
        raise DscalcError(f"the MACs are not known: no formula for {operators}")
    sources = [Source("", report.extra, report.total.as_is.cost.params)]

    def more() -> Iterator[Source]:
        for size, quantities in quantities_at(model, given, SIZES):
            yield Source(f"an input of {size}x{size}", quantities, 0, 1)

    return answer(report, options, output, sources, more(), _shapes(given))


def _source(what: str, rows: Sequence[Row], conventions: int = 0) -> Source:
    params = 0 if conventions else sum(row.as_is.cost.params for row in rows)
    return Source(what, of_rows(rows), params, conventions)


def _shapes(given: "Inputs") -> str:
    """The inputs as they are given: 1x3x224x224."""
    values = [*given.args, *given.kwargs.values()]
    shapes = [times(value.shape) for value in values if hasattr(value, "shape")]
    return ", ".join(shapes)


def answer(
    report: Report,
    options: ConventionOptions,
    output: OutputOptions,
    sources: Sequence[Source],
    more: Iterable[Source] = (),
    inputs: str = "",
) -> int:
    """Write what was asked, and return the exit code.

    Args:
        report: of the thing itself.
        options: what was asked.
        output: how it is written.
        sources: what may have been counted, the thing itself first.
        more: the same at other sizes.
        inputs: what it was counted on.
    """
    if options.cite:
        write_pieces([shown.cited(report, inputs, _versions(report)), "\n"], output)
        return int(report.total is not None and report.total.crosscheck == "mismatch")
    code = 0
    if options.explain is not None:
        found = explain(read_number(options.explain, "--explain"), sources, output.unit, more)
        code = 0 if found.answers else 1
        data, sheet = shown.explained_data(found), shown.explained(report, found)
    else:
        quantities = sources[0].quantities
        data, sheet = shown.peers_data(quantities), shown.peers(report, quantities)
    if output.format == "json":
        from json import dumps

        write_pieces([dumps(report.head() | data, indent=2), "\n"], output)
    else:
        write_pieces(sheet_pieces(sheet, output), output)
    return code


def _versions(report: Report) -> str:
    """Of what counted it, if anything did."""
    assert report.total is not None
    if report.total.crosscheck == "skipped":
        return ""
    from dscalc.pytorch.crosscheck import versions

    return versions()
