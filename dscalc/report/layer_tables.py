"""What people read of one layer, of a grid of layers, and of the blocks that build a layer."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from dscalc.core.blocks import STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.core.fields import closed_form
from dscalc.core.row import Row, Side
from dscalc.report.report import Report
from dscalc.report.sentences import (
    DIFFERENT,
    PENDING,
    SAME,
    UNIT_SENTENCE,
    bar,
    crosschecked,
    factor,
    layer_convention,
    layer_options,
    layer_saving,
    percent_in_column,
    ratio_in_full,
)
from dscalc.report.sheet import Column, Counts, Sheet, params, ratio, varying
from dscalc.show import times


def sheet(report: Report) -> Sheet:
    """What people read of a report of layers."""
    rows = list(report.rows)
    if not rows:
        return Sheet(report.title, notes=report.notes)
    if report.command == "blocks":
        return _blocks_sheet(report, rows)
    return one_layer(report, rows[0]) if report.total else _grid_sheet(report, rows)


class Part(NamedTuple):
    """A layer as it is, a step of its block, or the block: by formula and as it is counted."""

    name: str
    size: tuple[int, ...]
    cost: Cost
    counted: Cost | None


def parts(row: Row) -> Iterator[Part]:
    """A layer as it is, each step of its block, and the block."""
    assert isinstance(row.layer, Conv)

    def counted(side: Side, name: str) -> Cost | None:
        return side.counted.get(name) if side.counted else None

    size = row.layer.output_size
    yield Part("standard", size, row.as_is.cost, counted(row.as_is, ""))
    for step in row.rewritten.steps if len(row.rewritten.steps) > 1 else ():
        assert isinstance(step.layer, Conv)
        found = counted(row.rewritten, step.name)
        yield Part(step.name, step.layer.output_size, step.cost, found)
    assert row.block is not None
    yield Part(row.block.name, size, row.rewritten.cost, counted(row.rewritten, ""))


def one_layer(report: Report, row: Row, *, pending: bool = False) -> Sheet:
    """A single layer, step by step; ``pending`` leaves room for what is not counted yet."""
    counts = Counts(report.unit)

    def held(part: Part) -> str:
        if pending:
            return f"{part.cost.params:,} {PENDING}"
        if not part.counted:
            return f"{part.cost.params:,}"
        found = part.counted.params
        mark = SAME if part.cost.params == found else f"{DIFFERENT} {found:,}"
        return f"{part.cost.params:,} {mark}"

    def counted(part: Part) -> str:
        if not part.counted:
            return PENDING if pending else ""
        mark = SAME if part.cost.macs == part.counted.macs else DIFFERENT
        return f"{counts.text(part.counted.macs)} {mark}"

    def of_standard(part: Part) -> str:
        return percent_in_column(Fraction(part.cost.macs, row.as_is.cost.macs))

    columns = [
        Column("", lambda part: part.name, role="name"),
        Column("output", lambda part: times(part.size), rank=1),
        Column(counts.label, lambda part: counts.text(part.cost.macs)),
        Column("params", held, rank=2),
        Column("of standard", of_standard),
    ]
    if row.as_is.counted or pending:
        columns.append(Column(f"fvcore {counts.label}", counted))
    assert isinstance(row.layer, Conv)
    notes = [
        *(_worked(row.layer, [STANDARD, report.block]) if report.work else ()),
        *report.remarks,
        f"{report.block.name} / standard = {ratio_in_full(row, row.layer, report.block)}",
        layer_saving(row, row.layer, report.block, counts.label),
        *crosschecked([row]),
        *layer_options(row, row.layer, report.block, report.unit),
    ]
    *rows, result = parts(row)
    return Sheet.of(report.title, columns, rows, notes, result)


def _blocks_sheet(report: Report, rows: Sequence[Row]) -> Sheet:
    """The ways to build a layer, one a row."""
    title, sizes = varying(report.title, rows, selected=report.selected)
    counts = Counts(report.unit)

    def held(row: Row) -> str:
        counted = row.rewritten.counted
        wrong = counted is not None and counted[""].params != row.rewritten.cost.params
        return f"{row.rewritten.cost.params:,}{f' {DIFFERENT}' if wrong else ''}"

    def steps(row: Row) -> str:
        return ", ".join(
            f"{step.name} {times(step.layer.kernel_size)}"
            for step in row.rewritten.steps
            if isinstance(step.layer, Conv)
        )

    columns = [
        Column(
            "block", lambda row: f"{row.name}{' *' if row.block == STANDARD else ''}", role="name"
        ),
        *sizes,
        Column("steps", steps, rank=2, role="listed"),
        counts.rewritten(counts.label, marked=True),
        Column("params", held, rank=3),
        ratio("of standard"),
        Column("closed form", lambda row: closed_form(row) or "", rank=1),
    ]
    starred = any(row.block == STANDARD for row in rows)
    notes = ["* the standard convolution, which the others replace"] if starred else []
    if report.work:
        assert isinstance(rows[0].layer, Conv)
        notes += _worked(rows[0].layer, [row.block or STANDARD for row in rows])
    notes += [*report.remarks, *crosschecked(rows), UNIT_SENTENCE[report.unit]]
    return Sheet.of(title, columns, rows, notes)


def _worked(conv: Conv, blocks: Iterable[Block]) -> Iterator[str]:
    """The arithmetic of the steps of each block."""
    from dscalc.core.work import worked

    for block in blocks:
        yield from worked(conv, block)


def _grid_sheet(report: Report, rows: Sequence[Row]) -> Sheet:
    """A sweep, one row a layer."""
    title, sizes = varying(report.title, rows, selected=report.selected)
    counts, name = Counts(report.unit), report.block.name
    columns = [
        *sizes,
        Column(f"standard {counts.label}", lambda row: counts.text(row.as_is.cost.macs), rank=4),
        counts.rewritten(name, marked=True),
        params("rewritten", rank=2),
        ratio(legend=f"ratio = {name} / standard"),
        Column("0 to 100%", lambda row: bar(row.mac_ratio), rank=1, role="bar"),
        Column("fewer", _fewer, rank=3, legend=f"fewer = standard / {name}"),
    ]
    biased = any(row.layer.bias for row in rows)
    notes = [*crosschecked(rows), *report.remarks, layer_convention(report.unit, biased=biased)]
    return Sheet.of(title, columns, rows, notes)


def _fewer(row: Row) -> str:
    return factor(1 / row.mac_ratio) if row.mac_ratio else ""
