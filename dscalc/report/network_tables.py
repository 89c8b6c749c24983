"""What people read of a network, of a model, and of several of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from dscalc.core.blocks import STANDARD
from dscalc.core.cost import Cost
from dscalc.core.fields import UNITS
from dscalc.core.row import Row
from dscalc.report.report import Report
from dscalc.report.sentences import (
    MARKS,
    UNIT_SENTENCE,
    bar,
    crosschecked,
    percent_in_column,
    saving,
)
from dscalc.report.sheet import LATE, Column, Counts, Sheet, channels, name, params, ratio
from dscalc.show import plural, times


def sheet(report: Report) -> Sheet:
    """What people read of a report of a network or a model, or of several."""
    rows = list(report.rows)
    if report.total is None:
        return _totals_sheet(report, rows) if rows else Sheet(report.title, notes=report.notes)
    if report.command == "network":
        return _network_sheet(report, rows, report.total)
    return _model_sheet(report, rows, report.total)


_CHANNELS = Column("channels", channels)
_OUTPUT = Column("output", lambda row: times(row.layer.output_size), rank=2)


def _differs(rows: Sequence[Row]) -> bool:
    return any(row.rewritten.cost.macs != row.as_is.cost.macs for row in rows)


def _network_sheet(report: Report, rows: Sequence[Row], total: Row) -> Sheet:
    """The layers of a network, where its MACs are, and its totals."""
    block, counts = report.block.name, Counts(report.unit)
    most = max((row.share or Fraction(0) for row in rows), default=Fraction(0))
    columns = [
        name(),
        _CHANNELS._replace(rank=5),
        _OUTPUT,
        Column(
            counts.label,
            lambda row: f"{counts.text(row.as_is.cost.macs)}{MARKS[row.crosscheck]}",
        ),
        *([counts.rewritten(block)] if _differs([*rows, total]) else []),
        params("as_is", rank=4),
        Column("share", lambda row: percent_in_column(row.share), rank=3),
        Column(
            f"0 to {percent_in_column(most)}" if most else "",
            lambda row: bar(row.share / most) if row is not total and row.share else "",
            rank=1,
            role="bar",
        ),
    ]
    notes = [*_saved(report, rows, total), *report.notes, *crosschecked(rows)]
    return Sheet.of(report.title, columns, rows, [*notes, UNIT_SENTENCE[report.unit]], total)


def _saved(report: Report, rows: Sequence[Row], total: Row) -> Iterator[str]:
    """The ratio of a network, and what it saves."""
    if all(row.kept for row in rows) or not total.mac_ratio or not total.param_ratio:
        return
    label, block = UNITS[report.unit][0], report.block.name
    macs, held, new, old = total.mac_ratio, total.param_ratio, block, "as it is"
    if report.block == STANDARD:  # what it saves as it is, then
        macs, held, new, old = 1 / macs, 1 / held, old, new
    yield f"{new} / {old} = {macs} = {float(macs):.6g}"
    than = " than as plain convolutions" if report.block == STANDARD and macs < 1 else ""
    yield f"{saving(macs, held, label, new)}{than}"


def _model_sheet(report: Report, rows: Sequence[Row], whole: Row) -> Sheet:
    """The operators of a model that have MACs, and the model, as it is and rewritten."""
    block, counts = report.block.name, Counts(report.unit)
    shown = [row for row in rows if row.as_is.cost.macs or row.unknown]

    def kind(row: Row) -> str:
        return row.kind if row.kept == row.kind or row is whole else row.kept or block

    def if_known(column: Column) -> Column:
        return column._replace(cell=lambda row: "" if row.unknown else column.cell(row))

    rewritten = [counts.rewritten(block, rank=LATE), ratio()]
    columns = [
        name(),
        Column("kind", kind, rank=4),
        _CHANNELS._replace(rank=3),
        Column("F", lambda row: times(row.layer.kernel_size), rank=1),
        _OUTPUT,
        counts.as_is(),
        *(map(if_known, rewritten) if _differs([*shown, whole]) else ()),
    ]
    notes = [*_whole_model(report, rows, whole), *report.notes]
    notes += [*crosschecked([whole] if whole.as_is.cost.macs else []), UNIT_SENTENCE[report.unit]]
    return Sheet.of(report.title, columns, shown, notes, whole, paths=True)


def _whole_model(report: Report, rows: Sequence[Row], whole: Row) -> Iterator[str]:
    label, scale = UNITS[report.unit]
    without = [row for row in rows if not row.as_is.cost.macs and not row.unknown]
    if without:
        held = sum(row.as_is.cost.params for row in without)
        kinds = Counter(row.kind for row in without)
        most = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(3))
        most += ", ..." if len(kinds) > 3 else ""
        noun = plural("row", len(without))
        yield f"{len(without):,} more {noun} without {label}: {held:,} params ({most})"

    def costs(cost: Cost) -> str:
        macs = "" if whole.unknown else f"{cost.macs * scale:,} {label}, "
        return f"{macs}{cost.params:,} params"

    yield f"the model: {costs(whole.as_is.cost)}"
    if whole.as_is.cost == whole.rewritten.cost:
        return
    yield f"with {report.block.name} convolutions: {costs(whole.rewritten.cost)}"
    if whole.mac_ratio and whole.param_ratio and not whole.unknown:
        yield saving(whole.mac_ratio, whole.param_ratio, label, report.block.name)


def _totals_sheet(report: Report, rows: Sequence[Row]) -> Sheet:
    """Several networks or models, a row of totals each."""
    counts, block, plain = Counts(report.unit), report.block.name, report.block == STANDARD

    def width(row: Row) -> str:
        return f"{float(row.width_multiplier):.6g}" if row.width_multiplier else ""

    def one_way_round(row: Row) -> str:
        return percent_in_column(1 / row.mac_ratio if plain and row.mac_ratio else row.mac_ratio)

    sizes = []
    if report.command == "network":  # of a model, what it says of sizes is of its operators
        sizes = [
            Column("width", width, role="name"),
            Column("input", lambda row: times(row.layer.input_size), role="name"),
        ]
        sizes = [c._replace(rank=int(len({*map(c.cell, rows)}) == 1)) for c in sizes]
    columns = [
        name(report.command),
        *sizes,
        counts.as_is(),
        counts.rewritten(block, rank=LATE),
        params("as_is", rank=2),
        Column("ratio", one_way_round),
    ]
    legend = f"ratio = as it is / {block}" if plain else f"ratio = {block} / as it is"
    notes = [legend, *report.notes, *crosschecked(rows), UNIT_SENTENCE[report.unit]]
    return Sheet.of(report.title, columns, rows, notes, paths=True)
