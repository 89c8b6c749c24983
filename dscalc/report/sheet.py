"""Records -> the cells and sentences that people read, for the terminal, SVG and Markdown alike.

A number is written out in full, with thousands separators.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import NamedTuple

from dscalc.core.blocks import Comparison, Counts
from dscalc.core.describe import described, taps_symbol
from dscalc.record.fields import UNITS, Model, Record, Unit, record
from dscalc.record.measured import BenchRecord, gflops_per_s, intensity, verdict_sentence
from dscalc.words import times

SAME, DIFFERENT, PENDING = "✓", "✗", "…"
_MARKS = {"exact": f" {SAME}", "mismatch": f" {DIFFERENT}", "skipped": ""}
_EIGHTHS = ("", *"▏▎▍▌▋▊▉")  # of a block, in a bar
_ASCII = {SAME: "ok", DIFFERENT: "NO", PENDING: "...", "█": "#", **dict.fromkeys(_EIGHTHS[1:], "=")}
CONVENTION = {
    "macs": "1 MAC = 1 multiply-accumulate = 2 FLOPs; adding a bias is not counted",
    "flops": "2 FLOPs = 1 multiply-accumulate (MAC, which fvcore calls a flop); "
    "adding a bias is not counted",
}


class Sheet(NamedTuple):
    """A titled table with a header, rows of cells, one row that sums them up, and sentences below.

    The first column names its row and is aligned left, the others right. ``bar`` is the column
    that holds bars, if there is one. ``spare`` are columns that a narrow table can do without,
    the first of them first.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    result: Sequence[str] | None
    notes: Sequence[str]
    bar: int | None = None
    spare: Sequence[int] = ()


def one_layer(
    layer: Comparison, unit: Unit, counted: Counts | None = None, *, pending: bool = False
) -> Sheet:
    """A single comparison, part by part.

    ``counted`` adds what fvcore and torch counted and whether it is the same; ``pending`` leaves
    room for it.
    """
    label, scale = UNITS[unit]
    header = ["", "output", label, "params", "of standard"]
    if counted or pending:
        header.append(f"fvcore {label}")
    rows = []
    for part in ("standard", "depthwise", "pointwise", "separable"):
        macs, params = _of(part, layer.counts)
        cells = [
            part,
            times(layer.standard.output_size),
            f"{macs * scale:,}",
            f"{params:,}",
            percent(Fraction(macs, layer.standard.macs)),
        ]
        if pending:
            cells[3] += f" {PENDING}"
            cells.append(PENDING)
        if counted:
            macs_counted, params_counted = _of(part, counted)
            same = params == params_counted
            cells[3] += f" {SAME}" if same else f" {DIFFERENT} {params_counted:,}"
            cells.append(f"{macs_counted * scale:,} {SAME if macs == macs_counted else DIFFERENT}")
        rows.append(cells)
    notes = [
        f"separable / standard = {ratio_in_full(layer)}",
        saving(layer.ratio, layer.param_ratio, label),
    ]
    notes += [*crosschecked([record(layer, counted)]), CONVENTION[unit]]
    return Sheet(described(layer), header, rows[:-1], rows[-1], notes)


def grid(layers: str, rows: Sequence[Record], unit: Unit) -> Sheet:
    """A sweep, one row a layer; ``layers`` says what they have in common."""
    label, scale = UNITS[unit]
    header = ["channels", "F", "D", f"standard {label}", "separable", "ratio", "", "fewer"]
    cells = [
        [
            _channels(row),
            times(row.kernel_size),
            times(row.input_size),
            f"{row.standard_macs * scale:,}",
            _separable(row, scale),
            percent(row.mac_ratio),
            bar(row.mac_ratio),
            factor(row.mac_reduction),
        ]
        for row in rows
    ]
    notes = ["ratio = separable / standard; fewer = standard / separable", *crosschecked(rows)]
    notes.append(CONVENTION[unit])
    return Sheet(f"{len(rows):,} {layers}", header, cells, None, notes, bar=6, spare=(6,))


def network(name: str, rows: Sequence[Record], total: Record, unit: Unit) -> Sheet:
    """The layers of a network, where its MACs are, and its totals."""
    label, scale = UNITS[unit]
    header = [
        "layer",
        "channels",
        "output",
        f"standard {label}",
        "separable",
        "params",
        "share",
        "",
    ]
    most = max((row.separable_macs for row in rows), default=0) or 1
    cells = []
    for row in (*rows, total):
        cells.append(
            [
                row.name or "",
                _channels(row),
                times(row.output_size),
                f"{row.standard_macs * scale:,}",
                _separable(row, scale),
                f"{row.separable_params:,}",
                percent(Fraction(row.separable_macs, total.separable_macs or 1)),
                bar(Fraction(row.separable_macs, most)) if row is not total else "",
            ]
        )
    notes = []
    if total.mac_ratio is not None and total.param_ratio is not None:
        notes.append(
            f"separable / standard = {total.mac_ratio_exact} = {float(total.mac_ratio):.6g}"
        )
        notes.append(saving(total.mac_ratio, total.param_ratio, label))
    if not {row.kind for row in rows} & {"separable", "depthwise"}:
        notes.append(
            "no row is separable or depthwise, and a conv row stays as it is; change its kind to "
            "see what it would cost"
        )
    notes += [*crosschecked(rows), CONVENTION[unit]]
    return Sheet(name, header, cells[:-1], cells[-1], notes, bar=7, spare=(7, 6, 2, 5))


def model(
    name: str, rows: Sequence[Record], total: Record, whole: Model, unit: Unit, hidden: int = 0
) -> Sheet:
    """The convolutions of a model, their sum, and what the whole model costs.

    ``hidden`` is how many convolutions of the total are not among the rows.
    """
    label, scale = UNITS[unit]
    header = ["layer", "kind", "channels", "F", "output", label, "separable", "ratio"]
    cells = [
        [
            row.name or "",
            row.kind,
            _channels(row),
            times(row.kernel_size),
            times(row.output_size),
            f"{row.standard_macs * scale:,}",
            _separable(row, scale),
            percent(row.mac_ratio),
        ]
        for row in (*rows, total)
    ]
    notes = []
    if hidden:
        more = "more convolution is" if hidden == 1 else "more convolutions are"
        notes.append(f"{hidden:,} {more} in the total")
    if not rows and not hidden:
        notes.append("no convolution ran")
    if whole.macs is None:
        notes.append(f"the model: {whole.params:,} params; not all of its {label} were counted")
    else:
        notes.append(f"the model: {whole.macs * scale:,} {label}, {whole.params:,} params")
    if whole.separable_macs is not None:
        notes.append(
            f"with separable convolutions: {whole.separable_macs * scale:,} {label}, "
            f"{whole.separable_params:,} params"
        )
    elif whole.macs is not None:
        notes.append(
            f"with separable convolutions: {whole.separable_params:,} params; its {label} are not "
            "known, since what runs depends on the results of its convolutions"
        )
    if whole.macs and whole.separable_macs and whole.params:
        macs = Fraction(whole.separable_macs, whole.macs)
        notes.append(saving(macs, Fraction(whole.separable_params, whole.params), label))
    if whole.uncounted_operators:
        calls = ", ".join(f"{name} {count}" for name, count in whole.uncounted_operators.items())
        notes.append(f"not counted by fvcore (operator, calls): {calls}")
    notes += [*crosschecked([*rows, total]), CONVENTION[unit]]
    return Sheet(name, header, cells[:-1], cells[-1], notes, spare=(7, 3, 4))


def benchmarks(rows: Sequence[BenchRecord], unit: Unit) -> Sheet:
    """One measured layer part by part, or several, one a row."""
    return _one_benchmark(rows[0], unit) if len(rows) == 1 else _many_benchmarks(rows)


def _one_benchmark(row: BenchRecord, unit: Unit) -> Sheet:
    label, scale = UNITS[unit]
    header = ["", "time, us", "IQR, us", label, "GFLOP/s", "least bytes", "FLOP/byte"]
    cells = []
    for part in ("standard", "depthwise", "pointwise", "separable"):
        time, iqr = getattr(row, f"{part}_time_us"), getattr(row, f"{part}_time_iqr_us")
        macs, moved = getattr(row, f"{part}_macs"), getattr(row, f"{part}_bytes")
        cells.append(
            [
                part,
                f"{time:,.1f}",
                f"{iqr:,.1f}",
                f"{macs * scale:,}",
                f"{gflops_per_s(macs, time):,.1f}",
                f"{moved:,}",
                f"{float(intensity(macs, moved)):,.1f}",
            ]
        )
    notes = [verdict_sentence(row), *_measured_on(row)]
    return Sheet(row.name or "", header, cells[:-1], cells[-1], notes)


def _many_benchmarks(rows: Sequence[BenchRecord]) -> Sheet:
    header = ["channels", "F", "D", "standard, us", "separable, us", "fewer MACs", "faster", ""]
    cells = [
        [
            _channels(row),
            times(row.kernel_size),
            times(row.input_size),
            f"{row.standard_time_us:,.1f}",
            f"{row.separable_time_us:,.1f}",
            factor(row.mac_reduction),
            factor(Fraction(row.speedup)),
            "noisy" if row.noisy else "",
        ]
        for row in rows
    ]
    notes = ["fewer MACs, faster: standard / separable; below 1x separable is the larger"]
    if rows:
        notes += _measured_on(rows[0])
    return Sheet(f"{len(rows):,} layers measured", header, cells, None, notes)


def _measured_on(row: BenchRecord) -> list[str]:
    layout = ", channels last" if row.channels_last else ""
    compiled = ", compiled" if row.compile else ""
    threads = f", {row.threads} threads" if row.device == "cpu" else ""
    return [
        f"median and interquartile range (IQR) on {row.device_name}{threads}, {row.dtype}"
        f"{layout}{compiled}, torch {row.torch_version}",
        "GFLOP/s at 2 FLOPs per MAC; least bytes: inputs, weights and outputs moved once each",
    ]


def crosschecked(rows: Sequence[Record]) -> list[str]:
    """What the marks mean."""
    checks = {row.crosscheck for row in rows}
    notes = []
    if "exact" in checks:
        notes.append(f"{SAME} fvcore and torch count exactly this on the real modules")
    if "mismatch" in checks:
        notes.append(f"{DIFFERENT} fvcore or torch count something else on the real modules")
    return notes


def ratio_in_full(layer: Comparison) -> str:
    """The ratio of MACs: its closed form, where that is true, then exactly and as a decimal."""
    out_channels, kernel_size = layer.standard.out_channels, layer.standard.kernel_size
    taps, m = prod(kernel_size), 1
    if layer.depthwise:
        m = layer.depthwise.out_channels // layer.depthwise.in_channels
    steps = []
    if layer.ratio == m * (Fraction(1, out_channels) + Fraction(1, taps)):
        symbols, numbers = f"1/OC + 1/{taps_symbol(kernel_size)}", f"1/{out_channels} + 1/{taps}"
        steps = [symbols, numbers] if m == 1 else [f"m * ({symbols})", f"{m} * ({numbers})"]
    return " = ".join([*steps, str(layer.ratio), f"{float(layer.ratio):.6g}"])


def saving(macs: Fraction, params: Fraction, label: str) -> str:
    """The sentence that people quote, from the ratios separable / standard."""
    if macs > 1:
        return (
            f"separable costs MORE here: {factor(macs)} the {label}; "
            "it saves only where that ratio is below 1"
        )
    if macs == 1:
        return f"separable costs the same {label} here"
    if params == macs:
        return f"{factor(1 / macs)} fewer {label} and params"
    if params > 1:
        return f"{factor(1 / macs)} fewer {label}, but {factor(params)} the params"
    return f"{factor(1 / macs)} fewer {label}, {factor(1 / params)} fewer params"


def in_ascii(sheet: Sheet) -> Sheet:
    """The sheet in plain characters, for a stream that carries no others."""

    def plain(text: str) -> str:
        for mark, word in _ASCII.items():
            text = text.replace(mark, word)
        return text.encode("ascii", "backslashreplace").decode()

    return sheet._replace(
        title=plain(sheet.title),
        header=[plain(name) for name in sheet.header],
        rows=[[plain(cell) for cell in row] for row in sheet.rows],
        result=sheet.result and [plain(cell) for cell in sheet.result],
        notes=[plain(note) for note in sheet.notes],
    )


def percent(ratio: Fraction | None) -> str:
    """A share, to four significant digits: 12.67%, 0.01234%, 1,234%."""
    if ratio is None:
        return ""
    if not ratio:
        return "0%"
    value = float(ratio * 100)
    if value < 0.0001:
        return f"{value:.2e}%"
    return f"{value:,.0f}%" if value >= 1000 else f"{value:.4g}%"


def factor(ratio: Fraction | None) -> str:
    """Times as many: 7.89x, 123x."""
    if ratio is None:
        return ""
    if ratio >= 100:
        return f"{float(ratio):,.0f}x"
    near_one = ratio != 1 and abs(ratio - 1) < Fraction(5, 1000)  # which two digits would hide
    return f"{float(ratio):.6g}x" if near_one else f"{float(ratio):.2f}x"


def bar(ratio: Fraction | None) -> str:
    """A share as a bar of ten blocks, full at 1 and beyond."""
    full, eighths = divmod(min(80, max(1, round(ratio * 80))) if ratio else 0, 8)
    return f"{'█' * full}{_EIGHTHS[eighths]}".ljust(10)


def _channels(row: Record | BenchRecord) -> str:
    return f"{row.in_channels} -> {row.out_channels}" if row.in_channels else ""


def _separable(row: Record, scale: int) -> str:
    return f"{row.separable_macs * scale:,}{_MARKS[row.crosscheck]}"


def _of(part: str, counts: Counts) -> tuple[int, int]:
    return getattr(counts, f"{part}_macs"), getattr(counts, f"{part}_params")
