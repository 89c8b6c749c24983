"""What people read of one layer, of a grid of layers, and of the blocks that build a layer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
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
    share,
)
from dscalc.report.sheet import Column, Counts, Number, Sheet, params, ratio, varying, with_asked
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
    for step in row.replacement.steps if len(row.replacement.steps) > 1 else ():
        assert isinstance(step.layer, Conv)
        found = counted(row.replacement, step.name)
        yield Part(step.name, step.layer.output_size, step.cost, found)
    assert row.block is not None
    yield Part(row.block.name, size, row.replacement.cost, counted(row.replacement, ""))


def one_layer(report: Report, row: Row, *, pending: bool = False) -> Sheet:
    """A single layer, step by step; ``pending`` leaves room for what is not counted yet."""
    counts, block = Counts(report.unit), report.replacement

    def held(part: Part, *, ticked: bool = True) -> str:
        params, mark = part.cost.params, f" {PENDING}" if pending and ticked else ""
        if part.counted:
            found, same = part.counted.params, f" {SAME}" if ticked else ""
            mark = same if params == found else f" {DIFFERENT} ({found:,})"
        return f"{params:,}{mark}"

    def marked(part: Part) -> str:
        """Where fvcore's count is not shown: the mark of params says that both are the same."""
        found = part.counted.macs if part.counted else part.cost.macs
        differs = f" {DIFFERENT} ({counts.text(found)})" if found != part.cost.macs else ""
        return f"{counts.text(part.cost.macs)}{differs}"

    def counted(part: Part) -> str:
        if not part.counted:
            return PENDING if pending else ""
        same = part.cost.macs == part.counted.macs
        return f"{counts.text(part.counted.macs)} {SAME if same else DIFFERENT}"

    def of_standard(part: Part) -> Fraction:
        return Fraction(part.cost.macs, row.as_is.cost.macs)

    columns = [
        Column("", lambda part: part.name, role="name"),
        Column("output", lambda part: times(part.size), rank=1),
        Column(counts.label, lambda part: counts.text(part.cost.macs), narrow=(2, marked)),
        Column("params", held, narrow=(4, partial(held, ticked=False))),
        Column(
            "of standard", lambda part: percent_in_column(of_standard(part)),
            narrow=(3, lambda part: share(of_standard(part))), narrow_head="ratio",
        ),
    ]  # fmt: skip
    if row.as_is.counted or pending:
        columns.append(Column(f"fvcore {counts.label}", counted, rank=2))
    assert isinstance(row.layer, Conv)
    notes = [
        *(_worked(row.layer, [STANDARD, block]) if report.work else ()),
        *report.remarks,
        f"{block.name} / standard = {ratio_in_full(row, row.layer, block)}",
        layer_saving(row, row.layer, block, counts.label),
        *crosschecked([row]),
        *layer_options(row, row.layer, block, report.unit),
    ]
    *steps, whole = parts(row)
    return Sheet.of(report.title, columns, steps, notes, whole)


def _blocks_sheet(report: Report, rows: Sequence[Row]) -> Sheet:
    """The ways to build a layer, one a row."""
    title, sizes = varying(report.title, rows, selected=bool(report.selected))
    counts = Counts(report.unit)

    def held(row: Row) -> Number:
        counted, params = row.replacement.counted, row.replacement.cost.params
        wrong = counted is not None and counted[""].params != params
        return Number(params, mark=f" {DIFFERENT}" if wrong else "")

    def steps(row: Row) -> str:
        return ", ".join(
            f"{step.name} {times(step.layer.kernel_size)}"
            for step in row.replacement.steps
            if isinstance(step.layer, Conv)
        )

    columns = [
        Column(
            "block", lambda row: f"{row.name}{' *' if row.block == STANDARD else ''}", role="name"
        ),
        *sizes,
        Column("steps", steps, rank=2, role="listed"),
        counts.rewritten(
            counts.label, marked=True, narrow=(3, _without_tick(counts)), fields=(report.unit,)
        ),
        Column("params", held, fields=("params",)),
        ratio("of standard"),
        Column("closed form", lambda row: closed_form(row) or "", rank=1),
    ]
    starred = any(row.block == STANDARD for row in rows)
    notes = ["* the standard convolution, which the others replace"] if starred else []
    if report.work:
        assert isinstance(rows[0].layer, Conv)
        notes += _worked(rows[0].layer, [row.block or STANDARD for row in rows])
    notes += [*report.remarks, *crosschecked(rows), UNIT_SENTENCE[report.unit]]
    return Sheet.of(title, with_asked(columns, report.asked), rows, notes)


def _worked(conv: Conv, blocks: Iterable[Block]) -> Iterator[str]:
    """The arithmetic of the steps of each block."""
    from dscalc.core.work import worked

    for block in blocks:
        yield from worked(conv, block)


def _grid_sheet(report: Report, rows: Sequence[Row]) -> Sheet:
    """A sweep, one row a layer."""
    title, sizes = varying(report.title, rows, selected=bool(report.selected))
    counts, name = Counts(report.unit), report.replacement.name
    unmarked = _without_tick(counts)
    columns = [
        *sizes,
        Column(
            f"standard {counts.label}",
            lambda row: counts.number(row.as_is.cost.macs),
            rank=3,
            fields=(f"standard_{report.unit}",),
        ),
        counts.rewritten(
            name, marked=True, narrow=(4, unmarked), fields=(f"{name}_{report.unit}",)
        ),
        params("rewritten")._replace(fields=(f"{name}_params",)),
        ratio(legend=f"ratio = {name} / standard", narrow=(5, lambda row: share(row.mac_ratio))),
        Column("0 to 100%", lambda row: bar(row.mac_ratio), rank=1, role="bar"),
        Column(
            "fewer", _fewer, rank=2, fields=("mac_reduction",), legend=f"fewer = standard / {name}"
        ),
    ]
    biased = any(row.layer.bias for row in rows)
    notes = [*crosschecked(rows), *report.remarks, layer_convention(report.unit, biased=biased)]
    return Sheet.of(title, with_asked(columns, report.asked), rows, notes)


def _without_tick(counts: Counts) -> Callable[[Row], Number]:
    """Cells that mark only what differs: the tick below the table is about all of them."""

    def cell(row: Row) -> Number:
        differs = f" {DIFFERENT}" if row.crosscheck == "mismatch" else ""
        return counts.number(row.replacement.cost.macs, mark=differs)

    return cell


def _fewer(row: Row) -> str:
    return factor(1 / row.mac_ratio) if row.mac_ratio else ""
