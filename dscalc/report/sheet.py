"""Reports -> the cells and sentences that people read, for the terminal, SVG and Markdown alike.

A number is written out in full, with thousands separators.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from dscalc.core.blocks import STANDARD
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.core.fields import UNITS, closed_form
from dscalc.core.roofline import intensity, least_bytes
from dscalc.core.row import Row, Side
from dscalc.report.report import Report
from dscalc.report.sentences import (
    CONVENTION,
    DIFFERENT,
    EIGHTHS,
    MARKS,
    PENDING,
    SAME,
    bar,
    crosschecked,
    decided,
    factor,
    layer_convention,
    layer_options,
    layer_saving,
    measured,
    percent_in_column,
    ratio_in_full,
    saving,
)
from dscalc.show import plural, rounded, times

_ASCII = {SAME: "ok", DIFFERENT: "NO", PENDING: "...", "█": "#", **dict.fromkeys(EIGHTHS[1:], "=")}


@dataclass(frozen=True)
class Sheet:
    """A titled table with a header, rows of cells, one row that sums them up, and sentences below.

    The first column is aligned left, the others right; the first ``names`` together name a row.
    ``bar`` is the column that holds bars, if there is one; its header is their scale. ``spare`` are
    columns that a narrow table can do without, the first of them first, and ``dear`` those that it
    gives up only once module paths are shortened; ``listed`` is the one whose cells then stand
    below the table. ``legend`` says what a column means, where that is shown.
    ``checks`` are sentences, and whether each holds.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    result: Sequence[str] | None
    notes: Sequence[str]
    bar: int | None = None
    spare: Sequence[int] = ()
    dear: Sequence[int] = ()
    listed: int | None = None
    names: int = 1
    legend: Mapping[int, str] = field(default_factory=dict)
    checks: Sequence[tuple[bool, str]] = ()
    paths: bool = False  # whether the first column holds module paths, which may be shortened
    result_first: bool = False  # whether a page, which is read from the top, begins with the result

    def said(self, left_out: Sequence[int] = ()) -> list[str]:
        """The sentences below the table: the legend of the columns that are shown, the notes."""
        shown = [what for column, what in self.legend.items() if column not in left_out]
        return [*(["; ".join(shown)] if shown else []), *self.notes]


def of(report: Report) -> Sheet:
    """What people read of a report."""
    rows = list(report.rows)
    if report.baseline:
        from dscalc.baseline.view import changed

        sheet = changed(report, report.baseline)
    elif report.command == "check":
        sheet = _checks(report, rows)
    elif not rows and report.total is None:
        sheet = Sheet(report.title, [], [], None, report.notes)
    elif report.total is None and report.command in ("network", "model"):
        sheet = _totals(report, rows)
    elif report.command == "network":
        sheet = _network(report, rows)
    elif report.command == "model":
        sheet = _model(report, rows)
    elif report.command == "blocks":
        sheet = _blocks(report, rows)
    elif report.command == "bench":
        alone = len(rows) == 1 and report.block != STANDARD
        sheet = _one_benchmark(report, rows[0]) if alone else _benchmarks(report, rows)
    else:
        sheet = one_layer(report, rows[0]) if report.total else _grid(report, rows)
    checks = [(check.holds, check.sentence) for check in report.checks]
    return replace(sheet, checks=checks)


def one_layer(report: Report, row: Row, *, pending: bool = False) -> Sheet:
    """A single layer, step by step; ``pending`` leaves room for what is not counted yet."""
    label, scale = UNITS[report.unit]
    header = ["", "output", label, "params", "of standard"]
    if row.as_is.counted or pending:
        header.append(f"fvcore {label}")
    assert isinstance(row.layer, Conv)
    cells = []
    for name, size, cost, counted in _parts(report, row):
        line = [
            name,
            times(size),
            f"{cost.macs * scale:,}",
            f"{cost.params:,}",
            percent_in_column(Fraction(cost.macs, row.as_is.cost.macs)),
        ]
        if pending:
            line[3] += f" {PENDING}"
            line.append(PENDING)
        if counted:
            same = cost.params == counted.params
            line[3] += f" {SAME}" if same else f" {DIFFERENT} {counted.params:,}"
            mark = SAME if cost.macs == counted.macs else DIFFERENT
            line.append(f"{counted.macs * scale:,} {mark}")
        cells.append(line)
    notes = [
        *report.notes,
        f"{report.block.name} / standard = {ratio_in_full(row, row.layer, report.block)}",
        layer_saving(row, row.layer, report.block, label),
        *crosschecked([row]),
        *layer_options(row, row.layer, report.block, report.unit),
    ]
    return Sheet(report.title, header, cells[:-1], cells[-1], notes, spare=(1, 3))


def _parts(report: Report, row: Row) -> Iterator[tuple[str, tuple[int, ...], Cost, Cost | None]]:
    """Name, output size, formula and count of a layer as it is, of each step, and of the block."""
    assert isinstance(row.layer, Conv)

    def counted(side: Side, name: str) -> Cost | None:
        return side.counted.get(name) if side.counted else None

    size = row.layer.output_size
    yield "standard", size, row.as_is.cost, counted(row.as_is, "")
    for step in row.rewritten.steps if len(row.rewritten.steps) > 1 else ():
        assert isinstance(step.layer, Conv)
        yield step.name, step.layer.output_size, step.cost, counted(row.rewritten, step.name)
    yield report.block.name, size, row.rewritten.cost, counted(row.rewritten, "")


def _blocks(report: Report, rows: Sequence[Row]) -> Sheet:
    """The ways to build a layer, one a row."""
    label, scale = UNITS[report.unit]
    title, varying, sizes = _varying(report, rows)
    header = ["block", *varying, "steps", label, "params", "of standard", "closed form"]
    cells = []
    for row, size in zip(rows, sizes, strict=True):
        counted = row.rewritten.counted
        wrong = counted is not None and counted[""].params != row.rewritten.cost.params
        cells.append(
            [
                f"{row.name}{' *' if row.block == STANDARD else ''}",
                *size,
                ", ".join(
                    f"{step.name} {times(step.layer.kernel_size)}"
                    for step in row.rewritten.steps
                    if isinstance(step.layer, Conv)
                ),
                f"{row.rewritten.cost.macs * scale:,}{MARKS[row.crosscheck]}",
                f"{row.rewritten.cost.params:,}{f' {DIFFERENT}' if wrong else ''}",
                percent_in_column(row.mac_ratio),
                closed_form(row) or "",
            ]
        )
    first = len(header) - 5
    starred = any(row.block == STANDARD for row in rows)
    notes = ["* the standard convolution, which the others replace"] if starred else []
    notes += [*report.notes, *crosschecked(rows), CONVENTION[report.unit]]
    spare = (first + 4, first, first + 2)
    return Sheet(title, header, cells, None, notes, spare=spare, listed=first, names=first)


def _grid(report: Report, rows: Sequence[Row]) -> Sheet:
    """A sweep, one row a layer."""
    label, scale = UNITS[report.unit]
    name = report.block.name
    title, varying, sizes = _varying(report, rows)
    header = [*varying, f"standard {label}", name, "params", "ratio", "0 to 100%", "fewer"]
    cells = [
        [
            *size,
            f"{row.as_is.cost.macs * scale:,}",
            f"{row.rewritten.cost.macs * scale:,}{MARKS[row.crosscheck]}",
            f"{row.rewritten.cost.params:,}",
            percent_in_column(row.mac_ratio),
            bar(row.mac_ratio),
            factor(1 / row.mac_ratio) if row.mac_ratio else "",
        ]
        for row, size in zip(rows, sizes, strict=True)
    ]
    biased = any(row.layer.bias for row in rows)
    notes = [*crosschecked(rows), *report.notes]
    notes.append(layer_convention(report.unit, biased=biased))
    names = len(varying)
    standard, _, params, ratio, bars, fewer = range(names, len(header))
    legend = {ratio: f"ratio = {name} / standard", fewer: f"fewer = standard / {name}"}
    spare = (bars, params, fewer, standard)
    return Sheet(
        title, header, cells, None, notes, bar=bars, spare=spare, names=names, legend=legend
    )


def _network(report: Report, rows: Sequence[Row]) -> Sheet:
    """The layers of a network, where its MACs are, and its totals."""
    label, scale = UNITS[report.unit]
    total, name = report.total, report.block.name
    assert total is not None
    shown = (*rows, total)
    differs = any(row.rewritten.cost.macs != row.as_is.cost.macs for row in shown)
    most = max((row.share or Fraction(0) for row in rows), default=Fraction(0))
    header = ["layer", "channels", "output", label, *([name] if differs else []), "params"]
    header += ["share", f"0 to {percent_in_column(most)}" if most else ""]
    cells = [
        [
            row.name or "",
            _channels(row),
            times(row.layer.output_size),
            f"{row.as_is.cost.macs * scale:,}{MARKS[row.crosscheck]}",
            *([f"{row.rewritten.cost.macs * scale:,}"] if differs else []),
            f"{row.as_is.cost.params:,}",
            percent_in_column(row.share),
            bar(row.share / most) if row is not total and row.share else "",
        ]
        for row in shown
    ]
    notes = []
    if not all(row.kept for row in rows) and total.mac_ratio and total.param_ratio:
        ratio, param_ratio, new, old = total.mac_ratio, total.param_ratio, name, "as it is"
        if report.block == STANDARD:  # what it saves as it is, then
            ratio, param_ratio, new, old = 1 / ratio, 1 / param_ratio, old, new
        saved = saving(ratio, param_ratio, label, new)
        if report.block == STANDARD and ratio < 1:
            saved += " than as plain convolutions"
        notes += [f"{new} / {old} = {ratio} = {float(ratio):.6g}", saved]
    notes += [*report.notes, *crosschecked(rows), CONVENTION[report.unit]]
    last = len(header) - 1
    spare = (last, 2, last - 1, last - 2, 1)
    return Sheet(report.title, header, cells[:-1], cells[-1], notes, bar=last, spare=spare)


def _model(report: Report, rows: Sequence[Row]) -> Sheet:
    """The operators of a model that have MACs, and the model, as it is and rewritten."""
    label, scale = UNITS[report.unit]
    whole, name = report.total, report.block.name
    assert whole is not None
    shown = (*(row for row in rows if row.as_is.cost.macs or row.unknown), whole)
    differs = any(row.rewritten.cost.macs != row.as_is.cost.macs for row in shown)
    header = ["layer", "kind", "channels", "F", "output", label]
    header += [name, "ratio"] if differs else []
    cells = [
        [
            row.name or "",
            row.kind if row.kept == row.kind or row is whole else row.kept or name,
            _channels(row),
            times(row.layer.kernel_size),
            times(row.layer.output_size),
            f"{row.as_is.cost.macs * scale:,}"
            f"{MARKS[row.crosscheck] if row.as_is.cost.macs else ''}",
            *([f"{row.rewritten.cost.macs * scale:,}"] if differs else []),
            *([percent_in_column(row.mac_ratio)] if differs else []),
        ]
        for row in shown
    ]
    for row, line in zip(shown, cells, strict=True):
        if row.unknown:
            line[5:] = ["not known", *([""] * (len(header) - 6))]
    notes = list(_whole_model(report, rows, whole))
    notes += [*report.notes, *crosschecked([whole] if whole.as_is.cost.macs else [])]
    notes.append(CONVENTION[report.unit])
    return Sheet(
        report.title, header, cells[:-1], cells[-1], notes,
        spare=(3, 4, 2, 1), dear=(6,) if differs else (), paths=True,
    )  # fmt: skip


def _whole_model(report: Report, rows: Sequence[Row], whole: Row) -> Iterator[str]:
    label, scale = UNITS[report.unit]
    without = [row for row in rows if not row.as_is.cost.macs and not row.unknown]
    if without:
        params = sum(row.as_is.cost.params for row in without)
        kinds = Counter(row.kind for row in without)
        most = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(3))
        most += ", ..." if len(kinds) > 3 else ""
        noun = plural("row", len(without))
        yield f"{len(without):,} more {noun} without {label}: {params:,} params ({most})"

    def costs(cost: Cost) -> str:
        macs = "" if whole.unknown else f"{cost.macs * scale:,} {label}, "
        return f"{macs}{cost.params:,} params"

    yield f"the model: {costs(whole.as_is.cost)}"
    if whole.as_is.cost == whole.rewritten.cost:
        return
    yield f"with {report.block.name} convolutions: {costs(whole.rewritten.cost)}"
    if whole.mac_ratio and whole.param_ratio and not whole.unknown:
        yield saving(whole.mac_ratio, whole.param_ratio, label, report.block.name)


def _totals(report: Report, rows: Sequence[Row]) -> Sheet:
    """Several networks or models, a row of totals each."""
    label, scale = UNITS[report.unit]
    name, plain = report.block.name, report.block == STANDARD
    header = [report.command, "width", "input", label, name, "params", "ratio"]
    cells = [
        [
            row.name or "",
            f"{float(row.width_multiplier):.6g}" if row.width_multiplier else "",
            times(row.layer.input_size),
            "not known" if row.unknown else f"{row.as_is.cost.macs * scale:,}{mark}",
            f"{row.rewritten.cost.macs * scale:,}",
            f"{row.as_is.cost.params:,}",
            percent_in_column(1 / row.mac_ratio if plain and row.mac_ratio else row.mac_ratio),
        ]
        for row in rows
        for mark in [MARKS[row.crosscheck]]
    ]
    if report.command == "model":  # what it says of sizes is of its operators
        header, cells = [header[0], *header[3:]], [[row[0], *row[3:]] for row in cells]
    legend = f"ratio = as it is / {name}" if plain else f"ratio = {name} / as it is"
    notes = [legend, *report.notes, *crosschecked(rows), CONVENTION[report.unit]]
    names = len(header) - 4
    alike = [column for column in range(1, names) if len({row[column] for row in cells}) == 1]
    last = len(header) - 1
    return Sheet(
        report.title, header, cells, None, notes,
        spare=(*alike, last - 1), dear=(last - 2,), names=names, paths=True,
    )  # fmt: skip


def _one_benchmark(report: Report, row: Row) -> Sheet:
    """A layer that is timed part by part."""
    assert row.measured is not None
    label, scale = UNITS[report.unit]
    header = ["", "time, us", "IQR, us", label, "GFLOP/s", "least bytes", "FLOP/byte"]
    cells = []
    taken = [row.measured.as_is, *row.measured.steps.values(), row.measured.rewritten]
    element = row.measured.bytes_per_element
    for (name, _, cost, _), time in zip(_parts(report, row), taken, strict=True):
        cells.append(
            [
                name,
                f"{time.time_us:,.1f}",
                f"{time.time_iqr_us:,.1f}",
                f"{cost.macs * scale:,}",
                f"{row.measured.gflops_per_s(time, cost):,.1f}",
                f"{least_bytes(cost, element):,}",
                f"{float(intensity(cost, element)):,.1f}",
            ]
        )
    notes = [*measured(row), *_measured_on(row)]
    notes.append(
        "GFLOP/s at 2 FLOPs per MAC; least bytes: inputs, weights and outputs moved once each"
    )
    return Sheet(row.name or "", header, cells[:-1], cells[-1], notes, spare=(6, 5, 4, 2))


def _benchmarks(report: Report, rows: Sequence[Row]) -> Sheet:
    """The layers of a grid, the ways to build one, or both."""
    label, scale = UNITS[report.unit]
    several, layers = report.block == STANDARD, len({row.layer for row in rows}) > 1
    name = "block" if several else report.block.name
    title, varying, sizes = _varying(report, rows)
    header = [
        *(["block"] if several else []), *varying,
        *(["standard, us"] if layers else []), f"{name if layers else 'time'}, us",
        label, f"fewer {label}", "time", "at most",
    ]  # fmt: skip
    cells = []
    for row, size in zip(rows, sizes, strict=True):
        times = row.measured
        assert times is not None
        cells.append(
            [
                *([row.name or ""] if several else []),
                *size,
                *([f"{times.as_is.time_us:,.1f}"] if layers else []),
                f"{times.rewritten.time_us:,.1f}",
                f"{row.rewritten.cost.macs * scale:,}",
                factor(1 / row.mac_ratio) if row.mac_ratio else "",
                decided(times.speedup),
                factor(Fraction(times.most_speedup(row.rewritten.cost))),
            ]
        )
    result, first = None, rows[0]
    if not layers:
        assert first.measured is not None
        alone = f"{first.measured.as_is.time_us:,.1f}"
        result = ["standard", *sizes[0], alone, f"{first.as_is.cost.macs * scale:,}", "", "", ""]
    notes = [*report.notes, *_measured_on(first)]
    taken, macs, fewer, time, most = range(len(header) - 5, len(header))
    legend = {
        fewer: f"fewer {label}: standard / {name}",
        time: "time: compared with standard, with its interval",
        most: "at most: the greatest speed-up that MACs and bytes allow on this machine",
    }
    spare = (macs, most, *([taken - 1] if layers else []), taken, fewer)
    names = several + len(varying)
    return Sheet(title, header, cells, result, notes, spare=spare, names=names, legend=legend)


def _checks(report: Report, rows: Sequence[Any]) -> Sheet:
    """The budgets of a project, an assertion a row."""
    named = any(row.row for row in rows)
    header = ["budget", "assertion", "value", "limit", "left", *(["row"] if named else [])]
    cells = []
    for row in rows:
        mark = {True: f" {SAME}", False: f" {DIFFERENT}", None: ""}[row.holds]
        value = "not answered" if row.holds is None else _number(row.value)
        numbers = [value, _number(row.limit), _number(row.left)]
        where = [row.row] if named else []
        cells.append([row.budget, f"{row.assertion}{mark}", *numbers, *where])
    notes = list(dict.fromkeys(f"{row.budget}: {row.error}" for row in rows if row.error))
    spare = (5, 3, 4) if named else (3, 4)
    listed = 5 if named else None
    return Sheet(report.title, header, cells, None, notes, spare=spare, listed=listed, paths=True)


def _number(value: float | Fraction | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    number = float(value)
    return f"{number:,.10g}" if abs(number) >= 1000 else rounded(number)


def _measured_on(row: Row) -> list[str]:
    assert row.measured is not None
    here = row.measured.environment
    layout = ", channels last" if here.channels_last else ""
    compiled = ", compiled" if here.compile else ""
    threads = f", {here.threads} {plural('thread', here.threads)}" if here.device == "cpu" else ""
    passes = "forward and backward together" if here.backward else "forward"
    return [
        f"median and interquartile range (IQR) of {passes} on {here.device_name}{threads}, "
        f"{here.dtype}{layout}{compiled}, torch {here.torch_version}; the factor is the median of "
        "paired turns, with the 99% interval of the sign test",
    ]


def in_ascii(sheet: Sheet) -> Sheet:
    """The sheet in plain characters, for a stream that carries no others."""

    def plain(text: str) -> str:
        for mark, word in _ASCII.items():
            text = text.replace(mark, word)
        return text.encode("ascii", "backslashreplace").decode()

    return replace(
        sheet,
        title=plain(sheet.title),
        header=[plain(name) for name in sheet.header],
        rows=[[plain(cell) for cell in row] for row in sheet.rows],
        result=sheet.result and [plain(cell) for cell in sheet.result],
        notes=[plain(note) for note in sheet.notes],
    )


_SIZES = ("channels", "F", "D")


def _varying(report: Report, rows: Sequence[Row]) -> tuple[str, list[str], list[list[str]]]:
    """The title, and as columns the sizes in which layers differ; the title has the others.

    A title that begins with the channels is that of one layer, and needs no columns.
    """
    title, sizes = report.title, [_sizes(row) for row in rows]
    if title.startswith(sizes[0][0]):
        return title, [], [[] for _ in rows]
    differ = [place for place in range(3) if len({size[place] for size in sizes}) > 1]
    places = differ or range(3)  # of the only row that is left, all
    alike = [f"{_SIZES[place]} {sizes[0][place]}" for place in range(3) if place not in places]
    columns = [[size[place] for place in places] for size in sizes]
    if alike:
        title += f"{'; shown: ' if report.selected else ', '}{', '.join(alike)}"
    return title, [_SIZES[place] for place in places], columns


def _sizes(row: Row) -> list[str]:
    return [_channels(row), times(row.layer.kernel_size), times(row.layer.input_size)]


def _channels(row: Row) -> str:
    layer = row.layer
    return f"{layer.in_channels} -> {layer.out_channels}" if layer.in_channels else ""
