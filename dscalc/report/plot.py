"""Reports -> PNG, SVG and PDF. The only importer of matplotlib."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import assert_never

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullLocator

from dscalc.core.blocks import STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
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
        case "network" | "model" if report.total is None:
            figure = _totals(report)
        case "network" | "model":
            figure = _network(report)
        case "bench":
            figure = _benchmarks(report)
        case "compare":
            figure = _grid(report)
        case "check":
            raise DscalcError("there is no picture of checks")
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
        lines.setdefault(name or f"{block.name} / standard", {})[x] = row.mac_ratio
        kernel = () if across == "kernel_size" else row.layer.kernel_size
        if limit := block.limit(row.layer):
            limits.setdefault(kernel, {})[x] = limit[1]
    figure, axes = _figure(7, 4.5)
    places = _draw_lines(axes, lines, [getattr(row.layer, across) for row in rows])
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
    several = len({row.layer for row in report.rows}) > 1
    names = [
        f"{row.name} {row.layer.in_channels}->{row.layer.out_channels}" if several else row.name
        for row in report.rows
    ]
    return _points(report, "rewritten", names)


def _points(report: Report, side: str, names: Iterable[str | None]) -> Figure:
    """MACs against params, on log axes if they span much, each point labelled."""
    label, scale = UNITS[report.unit]
    figure, axes = _figure(7, 5)
    costs: list[Cost] = [getattr(row, side).cost for row in report.rows]
    points = [(cost.params, cost.macs * scale) for cost in costs]
    for row, (x, y) in zip(report.rows, points, strict=True):
        inside = "white" if row.block == STANDARD and side == "rewritten" else _DARK
        axes.plot(x, y, "o", color=_DARK, markerfacecolor=inside)
    xs = [x for x, _ in points]
    if min(xs) > 0 and max(xs) > 10 * min(xs):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(x=0.2, y=0.1)
    else:
        axes.set_xlim(left=0, right=1.25 * max(xs) or None)
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel("params")
    axes.set_ylabel(label)
    axes.set_title(report.title, loc="left", fontsize="medium")
    axes.grid(color="0.9")
    _label(axes, points, names)
    return figure


def _label(axes: Axes, points: Sequence[tuple[float, float]], names: Iterable[str | None]) -> None:
    """Write each name beside its point, above those of the points that are near and below it."""
    line, width = 12, 80  # of a label, in points of type
    taken: list[tuple[float, float]] = []
    for (x, y), name in sorted(zip(points, names, strict=True), key=lambda pair: pair[0][1]):
        left, bottom = axes.transData.transform((x, y)) * 72 / axes.figure.dpi
        up = bottom + 4
        for other_left, other_up in sorted(taken, key=lambda place: place[1]):
            if abs(left - other_left) < width and abs(up - other_up) < line:
                up = other_up + line
        taken.append((left, up))
        axes.annotate(
            name or "", (x, y), (6, up - bottom), textcoords="offset points", fontsize="small"
        ).set_parse_math(False)


def _totals(report: Report) -> Figure:
    """MACs of several networks: over the input size or the width if one varies, else params.

    Raises:
        DscalcError: there would be more lines than can be told apart.
    """
    rows, (label, scale) = list(report.rows), UNITS[report.unit]
    across: dict[str, Callable[[Row], Value]] = {
        "input size": lambda row: row.layer.input_size,
        "width multiplier": lambda row: row.width_multiplier and float(row.width_multiplier),
    }
    names = {row.name for row in rows}
    varies = [
        axis for axis, read in across.items() if len({(r.name, read(r)) for r in rows}) > len(names)
    ]
    if not varies:
        return _points(report, "as_is", [row.name or "" for row in rows])
    axis, rest = varies[0], varies[1:]
    lines: dict[str, dict[Value, int]] = {}
    for row in rows:
        parts = [row.name or "", *(f"{name} {across[name](row)}" for name in rest)]
        lines.setdefault(", ".join(parts), {})[across[axis](row)] = row.as_is.cost.macs * scale
    figure, axes = _figure(7, 4.5)
    _draw_lines(axes, lines, [across[axis](row) for row in rows])
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel(axis)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.set_title(report.title, loc="left", fontsize="medium")
    axes.grid(color="0.9")
    axes.legend(frameon=False)
    return figure


def _draw_lines(
    axes: Axes, lines: Mapping[str, Mapping[Value, Fraction | int]], xs: Iterable[Value]
) -> dict[Value, float]:
    """A line each, told apart in greyscale too; where each of the ``xs`` is on its axis.

    Raises:
        DscalcError: there are more lines than can be told apart.
    """
    if len(lines) > len(_MARKERS):
        raise DscalcError(
            f"a plot shows at most {len(_MARKERS)} lines, and here are {len(lines)}; "
            "vary fewer values"
        )
    places = _places(list(dict.fromkeys(xs)), axes)
    for number, (name, line) in enumerate(lines.items()):
        axes.plot(
            [places[x] for x in line],
            [float(y) for y in line.values()],
            color=str(0.1 + 0.55 * number / max(1, len(lines) - 1)),
            marker=_MARKERS[number],
            label=name,
        )
    return places


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
    tops, points, labels = [1.0], [], []
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
        points.append((x, y))
        labels.append(" ".join([*([row.name or ""] if several else []), *sizes]))
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
    _label(axes, points, labels)
    threads = f", {here.threads} {plural('thread', here.threads)}" if here.device == "cpu" else ""
    passes = ", forward and backward" if here.backward else ""
    axes.set_title(
        f"{report.title}\n{here.device_name}{threads}, {here.dtype}{passes}",
        loc="left", fontsize="small",
    )  # fmt: skip
    axes.grid(color="0.9")
    axes.legend(frameon=False, fontsize="small")
    return figure


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
