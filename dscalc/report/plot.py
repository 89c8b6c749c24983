"""Reports of layers, networks and models -> PNG, SVG and PDF. It imports matplotlib."""

from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from dscalc.core.blocks import STANDARD
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.core.fields import UNITS, Value
from dscalc.core.row import Row
from dscalc.report.drawing import (
    AXES,
    MARKERS,
    add_legend,
    are_lengths,
    axis_symbol,
    axis_value,
    bars,
    draw_lines,
    fixed_axis,
    label_points,
    new_figure,
    plain_style,
    refuse_many,
    save,
    scale_y,
    shade,
    varying_axes,
    widest,
)
from dscalc.report.report import Report
from dscalc.report.sentences import full


def draw(report: Report, path: Path, kind: str) -> None:
    """The picture of a report, written to ``path``; ``kind`` is png, svg or pdf.

    Raises:
        DscalcError: there is more in the report than a picture can show.
    """
    with plain_style():
        save(_draw_report(report), path, kind, report.title)


def _draw_report(report: Report) -> Figure:
    if report.command == "compare":
        return _draw_grid(report)
    if report.command == "blocks":
        return _draw_blocks(report)
    return _draw_totals(report) if report.total is None else _draw_network(report)


def _draw_grid(report: Report) -> Figure:
    """The ratio of MACs over the axis that varies most, one line per kernel size.

    Other axes get lines of their own if the ratio depends on them. Dashed is the limit for many
    output channels, where the block has one.

    Raises:
        DscalcError: there would be more lines than can be told apart.
    """
    rows, block = list(report.rows), report.replacement
    across = widest(rows)
    named = _matter(rows, across)
    lines: dict[str, dict[Value, Fraction]] = {}
    limits: dict[tuple[Value, ...], dict[Value, Fraction]] = {}
    symbols = set()
    for row in rows:
        assert row.mac_ratio is not None
        assert isinstance(row.layer, Conv)
        x = getattr(row.layer, across)
        name = ", ".join(
            f"{axis_symbol(axis)} = {axis_value(getattr(row.layer, axis))}" for axis in named
        )
        lines.setdefault(name or f"{block.name} / standard", {})[x] = row.mac_ratio
        kernel = () if across == "kernel_size" else row.layer.kernel_size
        if limit := block.limit(row.layer):
            limits.setdefault(kernel, {})[x] = limit[1]
            symbols.add(limit[0])
    rest = [axis for axis in AXES if axis not in (across, *named)]
    title = ", ".join(fixed_axis(axis, rows) for axis in rest)
    figure, axes = new_figure(4.5, AXES[across], f"MACs, {block.name} / standard", title)
    places = draw_lines(axes, lines, [getattr(row.layer, across) for row in rows])
    style: dict[str, Any] = {"linestyle": "--"}
    if not are_lengths(places):
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
    scale_y(axes, ratios)
    add_legend(figure, axes, len(lines))
    return figure


def _matter(rows: Sequence[Row], across: str) -> list[str]:
    """The other axes that vary and change the ratio; F and OC even if they do not."""
    varies = [axis for axis in varying_axes(rows) if axis != across]
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


def _draw_blocks(report: Report) -> Figure:
    """MACs against params of each block; the standard layer is hollow.

    A block is a labelled point. Of several layers it is a mark, and the label says which layer.

    Raises:
        DscalcError: there are more blocks than can be told apart.
    """
    rows = list(report.rows)
    varies = varying_axes(rows)
    if not varies:
        return _points(report, "rewritten", [row.name or "" for row in rows])
    blocks = list(dict.fromkeys(row.name or "" for row in rows))
    refuse_many(len(blocks))
    names = [
        " ".join(f"{axis_symbol(axis)} {axis_value(getattr(row.layer, axis))}" for axis in varies)
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
    figure, axes = new_figure(5, "params", label, report.title)
    rows = list(report.rows)
    costs: list[Cost] = [getattr(row, side).cost for row in rows]
    points = [(cost.params, cost.macs * scale) for cost in costs]
    seen: set[str | None] = set()
    for row, (x, y) in zip(rows, points, strict=True):
        number = series.index(row.name or "") if series else 0
        color = shade(number, len(series))
        inside = "white" if row.block == STANDARD and side == "rewritten" else color
        axes.plot(
            x, y, MARKERS[number], color=color, markerfacecolor=inside,
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
    label_points(figure, axes, points, names)
    return figure


def _draw_totals(report: Report) -> Figure:
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
    figure, axes = new_figure(4.5, axis, label, report.title)
    draw_lines(axes, lines, [across[axis](row) for row in rows])
    scale_y(axes, [y for line in lines.values() for y in line.values()])
    axes.yaxis.set_major_formatter(EngFormatter())
    add_legend(figure, axes, len(lines))
    return figure


def _draw_network(report: Report) -> Figure:
    """MACs by layer, and as rewritten beside it; layers without any are left out."""
    sides = ("as it is", *([f"as {report.block}"] if report.block else []))
    rows = [
        (row.name or "", [side.cost.macs for side in (row.as_is, row.rewritten) if side])
        for row in report.rows
    ]
    total = full((report.macs or 0) * UNITS[report.unit][1], UNITS[report.unit][0])
    return bars(report, f"{report.title}{report.at}: {total}", sides, rows)
