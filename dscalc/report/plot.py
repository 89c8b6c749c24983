"""Reports -> PNG, SVG and PDF. The only importer of matplotlib."""

import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import assert_never

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullLocator

from dscalc.core.blocks import STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.record.fields import UNITS, Value
from dscalc.record.report import Report
from dscalc.words import plural, times

_AXES = {
    "out_channels": "output channels (OC)",
    "in_channels": "input channels (IC)",
    "input_size": "feature map size (D)",
    "kernel_size": "filter size (F)",
}
_MARKERS = "osD^v<>Px"  # lines differ in marker and shade, so that they do in greyscale
_MOST_BARS = 500
_LIGHT, _DARK = "0.75", "0.15"
_APART = 1.05  # by what factor numbers differ that are worth an axis


def draw(report: Report, path: Path, kind: str) -> None:
    """The picture of a report, written to ``path``; ``kind`` is png, svg or pdf.

    Raises:
        DscalcError: there is more in the report than a picture can show.
    """
    match report.command:
        case "blocks":
            figure = _blocks(report)
        case "network" | "model":
            figure = _network(report)
        case "bench":
            figure = _benchmarks(report)
        case "compare":
            figure = _grid(report)
        case _:
            assert_never(report.command)
    _save(figure, path, kind)


def _grid(report: Report) -> Figure:
    """The ratio of MACs over the axis that varies most, one line per kernel size.

    Output channels get lines of their own where they vary along another axis. Dashed is the limit
    for many output channels, where the block has one.

    Raises:
        DscalcError: there would be more lines than can be told apart.
    """
    rows, block = list(report.rows), report.block
    across = max(_AXES, key=lambda axis: len({getattr(row.layer, axis) for row in rows}))
    others = [axis for axis in ("kernel_size", "out_channels") if axis != across]
    named = [axis for axis in others if len({getattr(row.layer, axis) for row in rows}) > 1]
    lines: dict[str, dict[Value, Fraction]] = {}
    limits: dict[tuple[Value, ...], dict[Value, Fraction]] = {}
    for row in rows:
        assert row.mac_ratio is not None
        assert isinstance(row.layer, Conv)
        x = getattr(row.layer, across)
        name = ", ".join(f"{_short(axis)} = {_shown(getattr(row.layer, axis))}" for axis in named)
        lines.setdefault(name, {})[x] = row.mac_ratio
        kernel = () if across == "kernel_size" else row.layer.kernel_size
        if limit := block.limit(row.layer):
            limits.setdefault(kernel, {})[x] = limit[1]
    if len(lines) > len(_MARKERS):
        raise DscalcError(
            f"a plot shows at most {len(_MARKERS)} lines, and this grid has {len(lines)}; "
            "vary F and OC over fewer values"
        )
    figure, axes = _figure(7, 4.5)
    xs = list(dict.fromkeys(getattr(row.layer, across) for row in rows))
    places = _places(xs, axes)
    for number, (name, line) in enumerate(lines.items()):
        shade = str(0.1 + 0.55 * number / max(1, len(lines) - 1))
        axes.plot(
            [places[x] for x in line],
            [float(ratio) for ratio in line.values()],
            color=shade,
            marker=_MARKERS[number],
            label=name or f"{block.name} / standard",
        )
    for number, limit_line in enumerate(limits.values()):
        axes.plot(
            [places[x] for x in limit_line],
            [float(limit) for limit in limit_line.values()],
            color="0.4",
            linestyle="--",
            linewidth=1,
            label="_" if number else f"{_limit_symbols(rows[0], block)}, the limit for large OC",
        )
    rest = [axis for axis in _AXES if axis not in (across, *named)]
    axes.set_title(", ".join(_fixed(axis, rows) for axis in rest), loc="left", fontsize="medium")
    axes.set_xlabel(_AXES[across])
    axes.set_ylabel(f"MACs, {block.name} / standard")
    axes.set_ylim(bottom=0)
    axes.grid(color="0.9")
    axes.legend(frameon=False)
    return figure


def _blocks(report: Report) -> Figure:
    """MACs against params, a point a block, labelled; the standard layer is hollow."""
    label, scale = UNITS[report.unit]
    figure, axes = _figure(7, 5)
    several = len({row.layer for row in report.rows}) > 1
    for row in report.rows:
        cost = row.rewritten.cost
        hollow = row.block == STANDARD
        axes.plot(
            cost.params, cost.macs * scale, "o",
            color=_DARK, markerfacecolor="white" if hollow else _DARK,
        )  # fmt: skip
        name = f"{row.name} {row.layer.in_channels}->{row.layer.out_channels}"
        axes.annotate(
            name if several else row.name or "", (cost.params, cost.macs * scale), (5, 4),
            textcoords="offset points", fontsize="small",
        )  # fmt: skip
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_xlim(left=0, right=1.25 * max(row.rewritten.cost.params for row in report.rows))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("params")
    axes.set_ylabel(label)
    axes.set_title(report.title, loc="left", fontsize="medium")
    axes.grid(color="0.9")
    return figure


def _network(report: Report) -> Figure:
    """MACs by layer, as it is beside rewritten; layers without any are left out.

    Raises:
        DscalcError: there are too many layers to see.
    """
    label, scale = UNITS[report.unit]
    counted = [row for row in report.rows if row.as_is.cost.macs or row.rewritten.cost.macs]
    if len(counted) > _MOST_BARS:
        raise DscalcError(
            f"a plot shows at most {_MOST_BARS} layers, and {len(counted):,} have MACs; plot a part"
        )
    figure, axes = _figure(7, 1.5 + 0.28 * len(counted))
    places = range(len(counted))
    as_is = [row.as_is.cost.macs * scale for row in counted]
    rewritten = [row.rewritten.cost.macs * scale for row in counted]
    axes.barh([place - 0.2 for place in places], as_is, 0.4, color=_LIGHT, label="as it is")
    axes.barh(
        [place + 0.2 for place in places], rewritten, 0.4, color=_DARK, label=f"as {report.block}"
    )
    for tick in axes.set_yticks(places, [row.name or "" for row in counted]):
        tick.label1.set_parse_math(False)
    axes.set_ylim(len(counted) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("layer")
    axes.set_title(report.title, loc="left", fontsize="medium").set_parse_math(False)
    axes.grid(axis="x", color="0.9")
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return figure


def _benchmarks(report: Report) -> Figure:
    """Speed-up with its interval, a point a row; what is not decided is hollow.

    It stands over the MAC reduction, where that varies: on the diagonal both are the same. Else
    over the axis of the grid that varies most.
    """
    rows, block = list(report.rows), report.block
    several = block == STANDARD
    name = "block" if several else block.name
    across = max(_AXES, key=lambda axis: len({getattr(row.layer, axis) for row in rows}))
    reductions = [float(1 / row.mac_ratio) for row in rows if row.mac_ratio]
    by_macs = max(reductions) > _APART * min(reductions)
    figure, axes = _figure(7, 5)
    if by_macs:
        xs = reductions
    else:
        places = _places(list(dict.fromkeys(getattr(row.layer, across) for row in rows)), axes)
        xs = [places[getattr(row.layer, across)] for row in rows]
    named = [
        axis
        for axis in ("in_channels", "out_channels", "kernel_size", "input_size")
        if len({getattr(row.layer, axis) for row in rows}) > 1 and (by_macs or axis != across)
    ]
    shown: set[str] = set()
    tops, labels = [1.0], []
    for x, row in zip(xs, rows, strict=True):
        assert row.measured is not None
        speedup, here = row.measured.speedup, row.measured.environment
        y = speedup.median
        low, high = speedup.low or y, speedup.high or y
        tops.append(high if speedup.decided else y)  # a whisker that tells little may be cut
        legend = "not decided" if not speedup.decided else "decided"
        axes.errorbar(
            x, y, [[y - low], [high - y]], fmt="o", capsize=3, color=_DARK,
            markerfacecolor=_DARK if speedup.decided else "white",
            label="_" if legend in shown else legend,
        )  # fmt: skip
        shown.add(legend)
        sizes = [f"{_short(axis)} {_shown(getattr(row.layer, axis))}" for axis in named]
        labels.append((x, y, " ".join([*([row.name or ""] if several else []), *sizes])))
    if by_macs:
        axes.axline((0, 0), slope=1, linestyle="--", color="0.4", linewidth=1,
                    label="speed-up = MAC reduction")  # fmt: skip
        axes.set_xlim(0, 1.3 * max(xs))  # room for the names
        axes.set_xlabel(f"MAC reduction, standard / {name}")
    else:
        axes.set_xlabel(_AXES[across])
    axes.axhline(1, color="0.6", linewidth=1, label="no speed-up")
    axes.set_ylabel(f"speed-up, standard / {name} time")
    axes.set_ylim(0, 1.15 * max(tops))
    _label(axes, labels)
    threads = f", {here.threads} {plural('thread', here.threads)}" if here.device == "cpu" else ""
    passes = ", forward and backward" if here.backward else ""
    axes.set_title(
        f"{report.title}\n{here.device_name}{threads}, {here.dtype}{passes}",
        loc="left", fontsize="small",
    )  # fmt: skip
    axes.grid(color="0.9")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _label(axes: Axes, labels: list[tuple[float, float, str]]) -> None:
    """Text at the right of each point, moved up where it would cover another."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = 0.17 * (right - left), 0.035 * (top - bottom)
    placed: list[tuple[float, float]] = []
    for x, y, text in sorted(labels, key=lambda label: label[1]):
        place = y
        while any(abs(x - a) < wide and abs(place - b) < high for a, b in placed):
            place += high / 4
        placed.append((x, place))
        axes.annotate(
            text, (x, place), (6, 0), textcoords="offset points", fontsize="small", va="center"
        )


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _places(values: list[Value], axes: Axes) -> dict[Value, float]:
    """Where each value goes on the x axis, and the axis to match."""
    lengths = [_length(value) for value in values]
    if None in lengths:
        axes.set_xticks(range(len(values)), [_shown(value) for value in values])
        return {value: place for place, value in enumerate(values)}
    numbers = [length for length in lengths if length is not None]
    if max(numbers) > 16 * min(numbers):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    if len(numbers) <= 12:
        axes.set_xticks(numbers, [str(number) for number in numbers])
    return dict(zip(values, numbers, strict=True))


def _length(value: Value) -> int | None:
    """The one number that a channel count or a square size is; None for 3x5."""
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else None
    return value if isinstance(value, int) else None


def _shown(value: Value) -> str:
    return times(value) if isinstance(value, tuple) else str(value)


def _limit_symbols(row: Row, block: Block) -> str:
    assert isinstance(row.layer, Conv)
    limit = block.limit(row.layer)
    return limit[0] if limit else ""


def _fixed(axis: str, rows: Sequence[Row]) -> str:
    values = list(dict.fromkeys(getattr(row.layer, axis) for row in rows))
    shown = _shown(values[0]) if len(values) == 1 else f"any of {len(values)} values"
    return f"{_short(axis)} = {shown}"


def _short(axis: str) -> str:
    return _AXES[axis].rpartition("(")[2].rstrip(")")


def _save(figure: Figure, path: Path, kind: str) -> None:
    metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
    with rc_context({"svg.hashsalt": "dscalc"}), warnings.catch_warnings():
        # The salt makes the same file of the same records; a name may have a letter that the font
        # lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(path, format=kind, dpi=150, metadata=metadata)
