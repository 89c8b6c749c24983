"""Reports -> PNG, SVG and PDF. The only importer of matplotlib."""

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, assert_never

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from dscalc.baseline.changes import count
from dscalc.core.blocks import STANDARD
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.core.fields import UNITS, Value
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report
from dscalc.show import plural, times

_AXES = {
    "out_channels": "output channels (OC)",
    "in_channels": "input channels (IC)",
    "input_size": "feature map size (D)",
    "kernel_size": "filter size (F)",
}
_MARKERS = "osD^v<>Px"  # lines differ in marker and shade, so that they do in greyscale
_MOST_BARS = 500
_MOST_LABELS = 30
_SMALL_LEGEND = 4  # lines
_NAME = 48  # characters in a line of a layer's name
_LIGHT, _DARK = "0.75", "0.15"
_SIDES = ((1, 0), (-1, 0), (0, 1), (1, 1), (-1, 1), (0, -1), (1, -1), (-1, -1))  # right, up
_NEAR = 16  # points of type between a label and its point
_APART = 1.05  # by what factor numbers differ that are worth an axis
_MUCH = 16  # by what factor numbers differ that a linear axis would squeeze


def draw(report: Report, path: Path, kind: str) -> None:
    """The picture of a report, written to ``path``; ``kind`` is png, svg or pdf.

    Raises:
        DscalcError: there is more in the report than a picture can show.
    """
    metadata: dict[str, str | None] = {"Title": report.title}
    metadata |= {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with rc_context(), warnings.catch_warnings():
        rcdefaults()  # a reader's own style may be white on nothing
        rcParams["svg.hashsalt"] = "dscalc"  # makes the same file of the same records
        # A name may have a letter that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        _drawn(report).savefig(path, format=kind, dpi=150, metadata=metadata, bbox_inches="tight")


def _drawn(report: Report) -> Figure:
    match report.command:
        case "blocks":
            return _blocks(report)
        case "network" | "model" if report.total is None:
            return _totals(report)
        case "network" | "model":
            return _changes(report) if report.baseline else _network(report)
        case "bench":
            return _benchmarks(report)
        case "compare":
            return _grid(report)
        case "check":
            raise DscalcError("there is no picture of checks")
        case _:
            assert_never(report.command)


def _grid(report: Report) -> Figure:
    """The ratio of MACs over the axis that varies most, one line per kernel size.

    Other axes get lines of their own if the ratio depends on them. Dashed is the limit for many
    output channels, where the block has one.

    Raises:
        DscalcError: there would be more lines than can be told apart.
    """
    rows, block = list(report.rows), report.block
    across = _widest(rows)
    named = _matter(rows, across)
    lines: dict[str, dict[Value, Fraction]] = {}
    limits: dict[tuple[Value, ...], dict[Value, Fraction]] = {}
    symbols = set()
    for row in rows:
        assert row.mac_ratio is not None
        assert isinstance(row.layer, Conv)
        x = getattr(row.layer, across)
        name = ", ".join(f"{_short(axis)} = {_shown(getattr(row.layer, axis))}" for axis in named)
        lines.setdefault(name or f"{block.name} / standard", {})[x] = row.mac_ratio
        kernel = () if across == "kernel_size" else row.layer.kernel_size
        if limit := block.limit(row.layer):
            limits.setdefault(kernel, {})[x] = limit[1]
            symbols.add(limit[0])
    rest = [axis for axis in _AXES if axis not in (across, *named)]
    title = ", ".join(_fixed(axis, rows) for axis in rest)
    figure, axes = _figure(4.5, _AXES[across], f"MACs, {block.name} / standard", title)
    places = _draw_lines(axes, lines, [getattr(row.layer, across) for row in rows])
    style: dict[str, Any] = {"linestyle": "--"}
    if not _are_lengths(places):
        style = {"linestyle": "none", "marker": "_", "markersize": 24}
    limit_name = f"{symbols.pop()}, the limit" if len(symbols) == 1 else "the limit"
    for number, limit_line in enumerate(limits.values()):
        axes.plot(
            [places[x] for x in limit_line],
            [float(limit) for limit in limit_line.values()],
            color="0.4",
            linewidth=1,
            label="_" if number else f"{limit_name} for large OC",
            **style,
        )
    ratios = [
        float(ratio) for line in (*lines.values(), *limits.values()) for ratio in line.values()
    ]
    _scale_y(axes, ratios)
    _legend(figure, axes, len(lines))
    return figure


def _widest(rows: Sequence[Row]) -> str:
    """The axis of a grid that varies most."""
    return max(_AXES, key=lambda axis: len({getattr(row.layer, axis) for row in rows}))


def _varying(rows: Sequence[Row]) -> list[str]:
    """The axes of a grid that vary, as a layer is written."""
    order = ("in_channels", "out_channels", "kernel_size", "input_size")
    return [axis for axis in order if len({getattr(row.layer, axis) for row in rows}) > 1]


def _matter(rows: Sequence[Row], across: str) -> list[str]:
    """The other axes that vary and change the ratio; F and OC even if they do not."""
    varies = [axis for axis in _varying(rows) if axis != across]
    named: list[str] = [axis for axis in ("kernel_size", "out_channels") if axis in varies]
    for axis in ("in_channels", "input_size"):
        if axis in varies and _is_open(rows, [across, *named]):
            named.append(axis)
    return named


def _is_open(rows: Sequence[Row], axes: Sequence[str]) -> bool:
    """Whether layers that are alike along these axes differ in their ratio."""
    found: dict[Hashable, Fraction | None] = {}
    return any(
        found.setdefault(tuple(getattr(row.layer, axis) for axis in axes), row.mac_ratio)
        != row.mac_ratio
        for row in rows
    )


def _blocks(report: Report) -> Figure:
    """MACs against params of each block; the standard layer is hollow.

    A block is a labelled point. Of several layers it is a mark, and the label says which layer.

    Raises:
        DscalcError: there are more blocks than can be told apart.
    """
    rows = list(report.rows)
    varies = _varying(rows)
    if not varies:
        return _points(report, "rewritten", [row.name or "" for row in rows])
    blocks = list(dict.fromkeys(row.name or "" for row in rows))
    _refuse_many(len(blocks))
    names = [
        " ".join(f"{_short(axis)} {_shown(getattr(row.layer, axis))}" for axis in varies)
        if row.block == STANDARD
        else ""
        for row in rows
    ]
    return _points(report, "rewritten", names, blocks)


def _points(report: Report, side: str, names: Sequence[str], series: Sequence[str] = ()) -> Figure:
    """MACs against params, on log axes if they span much, each point labelled.

    Points of one of the ``series`` have a mark of their own, and a legend.
    """
    label, scale = UNITS[report.unit]
    figure, axes = _figure(5, "params", label, report.title)
    rows = list(report.rows)
    costs: list[Cost] = [getattr(row, side).cost for row in rows]
    points = [(cost.params, cost.macs * scale) for cost in costs]
    seen: set[str | None] = set()
    for row, (x, y) in zip(rows, points, strict=True):
        number = series.index(row.name or "") if series else 0
        color = _shade(number, len(series))
        inside = "white" if row.block == STANDARD and side == "rewritten" else color
        axes.plot(
            x, y, _MARKERS[number], color=color, markerfacecolor=inside,
            label="_" if row.name in seen else row.name,
        )  # fmt: skip
        seen.add(row.name)
    xs = [x for x, _ in points]
    if min(xs) > 0 and max(xs) > 10 * min(xs):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(x=0.2, y=0.1)
    else:
        axes.set_xlim(left=0, right=1.25 * max(xs) or None)
        axes.set_ylim(0, 1.1 * max(y for _, y in points) or None)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.yaxis.set_major_formatter(EngFormatter())
    if series:
        axes.legend(frameon=False, fontsize="small")
    _label(figure, axes, points, names)
    return figure


def _label(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    lines: Sequence[tuple[float, float]] = (),
) -> None:
    """Write each name at its point where it covers no other, with a line to the point if far.

    It covers no points of ``lines`` either. More names than can be read are left out.
    """
    if sum(map(bool, names)) > _MOST_LABELS:
        return
    figure.draw_without_rendering()  # which says where the points are
    dot = 4 * figure.dpi / 72
    spots = [axes.transData.transform(point) for point in (*points, *lines)]
    taken = [Bbox.from_extents(x - dot, y - dot, x + dot, y + dot) for x, y in spots]
    for point, name in sorted(zip(points, names, strict=True)):
        if name:
            text = axes.annotate(
                "\n".join(_in_lines(name)), point, (0, 0), textcoords="offset points",
                fontsize="small", va="center",
            )  # fmt: skip
            text.set_parse_math(False)
            text.set_in_layout(False)
            taken.append(_placed(text, axes.bbox, taken))
            if max(map(abs, text.get_position())) > _NEAR:
                line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5}
                axes.annotate(
                    "", point, text.get_position(), textcoords="offset points", arrowprops=line
                )


def _placed(text: Annotation, inside: BboxBase, taken: Sequence[Bbox]) -> Bbox:
    """Move a label to the nearest free place beside its point; where it then stands."""
    for far in range(6, 150, 6):
        for right, up in _SIDES:
            text.set_position((far * right, (far + 4) * up))
            text.set_horizontalalignment(
                "left" if right > 0 else "right" if right < 0 else "center"
            )
            box = text.get_window_extent()
            inner = box.x0 > inside.x0 and box.x1 < inside.x1
            inner = inner and box.y0 > inside.y0 and box.y1 < inside.y1
            if inner and not any(box.overlaps(other) for other in taken):
                return box
    return text.get_window_extent()


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
    figure, axes = _figure(4.5, axis, label, report.title)
    _draw_lines(axes, lines, [across[axis](row) for row in rows])
    _scale_y(axes, [y for line in lines.values() for y in line.values()])
    axes.yaxis.set_major_formatter(EngFormatter())
    _legend(figure, axes, len(lines))
    return figure


def _draw_lines(
    axes: Axes, lines: Mapping[str, Mapping[Value, Fraction | int]], xs: Iterable[Value]
) -> dict[Value, float]:
    """A line each, told apart in greyscale too; where each of the ``xs`` is on its axis.

    Only lengths are joined: between 3x5 and 7x1 there is nothing.

    Raises:
        DscalcError: there are more lines than can be told apart.
    """
    _refuse_many(len(lines))
    places = _places(list(dict.fromkeys(xs)), axes)
    for number, (name, line) in enumerate(lines.items()):
        axes.plot(
            [places[x] for x in line],
            [float(y) for y in line.values()],
            color=_shade(number, len(lines)),
            marker=_MARKERS[number],
            linestyle="-" if _are_lengths(places) else "none",
            label="\n".join(_in_lines(name)),
        )
    return places


def _refuse_many(lines: int) -> None:
    if lines > len(_MARKERS):
        raise DscalcError(
            f"a plot shows at most {len(_MARKERS)} lines, and here are {lines}; vary fewer values"
        )


def _shade(number: int, count: int) -> str:
    """A grey of its own for each of ``count``."""
    return str(0.1 + 0.55 * number / max(1, count - 1))


def _network(report: Report) -> Figure:
    """MACs by layer, as it is beside rewritten; layers without any are left out."""
    sides = ("as it is", f"as {report.block}")
    bars = [(row.name or "", row.as_is.cost.macs, row.rewritten.cost.macs) for row in report.rows]
    return _bars(report, report.title, sides, bars)


def _changes(report: Report) -> Figure:
    """MACs of the layers that changed, before beside now."""
    assert report.baseline
    bars = [
        (change.row.name or "", count(change.before, "macs") or 0, count(change.after, "macs") or 0)
        for change in report.changes
        if change.difference("macs")
    ]
    title = f"{report.title} against {report.baseline.name}"
    return _bars(report, title, ("before", "now"), bars)


def _bars(
    report: Report, title: str, sides: tuple[str, str], bars: Iterable[tuple[str, int, int]]
) -> Figure:
    """Two bars a layer, for each that has any MACs.

    Raises:
        DscalcError: there are too many layers to see.
    """
    label, scale = UNITS[report.unit]
    counted = [bar for bar in bars if bar[1] or bar[2]]
    if len(counted) > _MOST_BARS:
        raise DscalcError(
            f"a plot shows at most {_MOST_BARS} layers, and {len(counted):,} have MACs; plot a part"
        )
    names = [_in_lines(name) for name, *_ in counted]
    heights = [max(1, 0.6 * len(name)) for name in names]
    places = [end - height / 2 for end, height in zip(accumulate(heights), heights, strict=True)]
    figure, axes = _figure(1.5 + 0.28 * sum(heights), label, "layer", title, grid="x")
    for shift, at, side, color in ((-0.2, 1, sides[0], _LIGHT), (0.2, 2, sides[1], _DARK)):
        axes.barh(
            [place + shift for place in places], [bar[at] * scale for bar in counted], 0.4,
            color=color, label=side,
        )  # fmt: skip
    for tick in axes.set_yticks(places, ["\n".join(name) for name in names]):
        tick.label1.set_parse_math(False)
    axes.set_ylim(sum(heights) + 0.1, -0.1)
    axes.xaxis.set_major_formatter(EngFormatter())
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return figure


def _benchmarks(report: Report) -> Figure:
    """Speed-up with its interval, a point a row; hollow if not decided, a diamond if noisy.

    It stands over the MAC reduction, where that varies: on the diagonal both are the same. Else
    over the axis of the grid that varies most.
    """
    rows, block = list(report.rows), report.block
    several = block == STANDARD
    name = "block" if several else block.name
    across = _widest(rows)
    reductions = [float(1 / row.mac_ratio) for row in rows if row.mac_ratio]
    by_macs = max(reductions) > _APART * min(reductions)
    varies = _varying(rows)
    named = [axis for axis in varies if by_macs or axis != across]
    fixed = [_fixed(axis, rows) for axis in _AXES if varies and axis not in varies]
    figure, axes = _figure(
        5, f"MAC reduction, standard / {name}" if by_macs else _AXES[across],
        f"speed-up, standard / {name} time", ", ".join([report.title, *fixed]), _where(rows[0]),
    )  # fmt: skip
    if by_macs:
        xs = reductions
    else:
        places = _places(list(dict.fromkeys(getattr(row.layer, across) for row in rows)), axes)
        xs = [places[getattr(row.layer, across)] for row in rows]
    shown: set[str] = set()
    seen, points, labels, whiskers = [1.0], [], [], []
    for x, row in zip(xs, rows, strict=True):
        assert row.measured is not None
        speedup = row.measured.speedup
        y = speedup.median
        low, high = speedup.low or y, speedup.high or y
        seen += [low, high] if speedup.decided else [y]  # a whisker that tells little may be cut
        legend = "decided" if speedup.decided else "not decided"
        legend += ", noisy" if row.measured.noisy else ""
        axes.errorbar(
            x, y, [[y - low], [high - y]], fmt="D" if row.measured.noisy else "o", capsize=3,
            color=_DARK, markerfacecolor=_DARK if speedup.decided else "white",
            label="_" if legend in shown else legend,
        )  # fmt: skip
        shown.add(legend)
        sizes = [f"{_short(axis)} {_shown(getattr(row.layer, axis))}" for axis in named]
        points.append((x, y))
        whiskers += [(x, low + (high - low) * step / 16) for step in range(17)]
        labels.append(" ".join([*([row.name or ""] if several else []), *sizes]))
    wide = by_macs and max(xs) > _MUCH * min(xs)
    _scale_y(axes, seen, log=wide)
    if by_macs:
        most = max(xs)
        if wide:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(min(xs) / 2, 2 * most)
        else:
            axes.set_xlim(0, 1.3 * most)  # room for the names
        steps = [most * 2 ** (-step / 8) for step in range(100)]
        axes.plot(steps, steps, linestyle="--", color="0.4", linewidth=1,
                  label="speed-up = MAC reduction", scalex=False, scaley=False)  # fmt: skip
    axes.axhline(1, color="0.6", linewidth=1, label="no speed-up")
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize="small")
    _label(figure, axes, points, labels, whiskers)
    return figure


def _where(row: Row) -> str:
    """What the times of a row were taken on."""
    assert row.measured is not None
    here = row.measured.environment
    threads = f", {here.threads} {plural('thread', here.threads)}" if here.device == "cpu" else ""
    passes = ", forward and backward" if here.backward else ""
    return f"{here.device_name}{threads}, {here.dtype}{passes}"


def _figure(
    height: float, xlabel: str, ylabel: str, *title: str, grid: Literal["both", "x"] = "both"
) -> tuple[Figure, Axes]:
    """Without anything in it; the title is above everything, in as many lines as it takes."""
    figure = Figure(figsize=(7, height), layout="constrained", facecolor="white")
    lines = [part for line in title for part in wrap(line, 84)]
    suptitle = figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize="medium")
    suptitle.set_parse_math(False)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9")
    return figure, axes


def _legend(figure: Figure, axes: Axes, lines: int) -> None:
    """In the picture if it is small, else below."""
    if lines > _SMALL_LEGEND:
        figure.legend(loc="outside lower left", ncols=2, frameon=False)
    else:
        axes.legend(frameon=False)


def _in_lines(name: str) -> list[str]:
    """A name, in several lines if it is long; a very long one loses its end."""
    if len(name) <= _NAME:
        return [name]
    return wrap(name, _NAME, max_lines=6, placeholder="...")


def _scale_y(axes: Axes, values: Sequence[float], *, log: bool = False) -> None:
    """An axis from 0 with room above; a logarithmic one if they span much."""
    least, most = min(values), max(values)
    if least > 0 and (log or most > _MUCH * least):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(least / 1.3, most * 1.3)
    else:
        axes.set_ylim(0, 1.1 * most or None)


def _places(values: list[Value], axes: Axes) -> dict[Value, float]:
    """Where each value goes on the x axis, and the axis to match."""
    numbers = [length for value in values if (length := _length(value)) is not None]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), [_shown(value) for value in values])
        return {value: place for place, value in enumerate(values)}
    if max(numbers) > 16 * min(numbers):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.xaxis.set_minor_locator(NullLocator())
    if len(numbers) <= 12:
        axes.set_xticks(numbers, [str(number) for number in numbers])
    return dict(zip(values, numbers, strict=True))


def _plain(value: float, _: object) -> str:
    """A number on a logarithmic axis, which matplotlib would write as a power of ten."""
    return f"{value:g}"


def _are_lengths(values: Iterable[Value]) -> bool:
    """Whether they have places on an axis, and something between them."""
    return all(_length(value) is not None for value in values)


def _length(value: Value) -> int | None:
    """The one number that a channel count or a square size is; None for 3x5."""
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else None
    return value if isinstance(value, int) else None


def _shown(value: Value) -> str:
    return times(value) if isinstance(value, tuple) else str(value)


def _fixed(axis: str, rows: Sequence[Row]) -> str:
    """The value of an axis, or those between which nothing differs."""
    values = list(dict.fromkeys(getattr(row.layer, axis) for row in rows))
    if len(values) == 1:
        return f"{_short(axis)} = {_shown(values[0])}"
    some = [_shown(value) for value in values]
    listed = ", ".join(some) if len(some) <= 4 else f"{some[0]} ... {some[-1]}"
    return f"{_short(axis)} = {listed} (no effect)"


def _short(axis: str) -> str:
    return _AXES[axis].rpartition("(")[2].rstrip(")")
