"""Reports of layers, networks and models -> PNG, SVG and PDF. It imports matplotlib."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dscalc.core.blocks import STANDARD
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.core.fields import UNITS, Value
from dscalc.core.row import Row
from dscalc.report.area import asks_memory, draw_memory
from dscalc.report.drawing import (
    AS_IS,
    AXES,
    OTHER,
    are_lengths,
    axis_symbol,
    axis_value,
    bars,
    draw_lines,
    fixed_axis,
    label_ends,
    label_points,
    new_figure,
    plain_style,
    save,
    scale,
    varying_axes,
    widest,
)
from dscalc.report.report import Report
from dscalc.report.sentences import full
from dscalc.show import plural, times


def draw(report: Report, path: Path, kind: str) -> None:
    """The picture of a report, written to ``path``; ``kind`` is png, svg or pdf.

    Raises:
        DscalcError: there is more in the report than a picture can show.
    """
    with plain_style():
        save(_draw_report(report), path, kind, report.title)


def _draw_report(report: Report) -> Figure:
    if report.command in ("compare", "blocks"):
        rows = list(report.rows)
        if varying_axes(rows):
            return _draw_ratios(report, rows)
        title = f"{len(rows)} {plural('block', len(rows))} for {report.title}"
        return _points(report, title, "rewritten", [row.name or "" for row in rows])
    if report.total is None:
        return _draw_totals(report)
    if report.total.memory and asks_memory(report):
        return draw_memory(report, report.total.memory)
    return _draw_network(report)


def _draw_ratios(report: Report, rows: Sequence[Row]) -> Figure:
    """The ratio of MACs over the axis that varies most.

    Of one block there is a line for each of the other sizes that matter. Of several there is a
    line for each block, and a panel for each of those sizes.

    Raises:
        DscalcError: there would be more lines or panels than can be told apart.
    """
    across, several = widest(rows), report.command == "blocks"
    named = _matter(rows, across)
    block = "block" if several else report.replacement.name
    panels: dict[str, dict[str, dict[Value, Fraction]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        assert row.mac_ratio is not None
        sizes = ", ".join(
            f"{axis_symbol(axis)} {axis_value(getattr(row.layer, axis))}" for axis in named
        )
        panel, line = (sizes, row.name or "") if several else ("", sizes or block)
        panels[panel][line][getattr(row.layer, across)] = row.mac_ratio
    xs = [getattr(row.layer, across) for row in rows]
    dashed: Mapping[Value, Mapping[Value, Fraction]]
    names = list(dict.fromkeys(chain(*panels.values())))
    rest = ", ".join(fixed_axis(axis, rows) for axis in AXES if axis not in (across, *named))
    said = [rest] if rest else []
    if several:
        names = sorted({*names} - {STANDARD.name})  # for colours that any order of rows has
        dashed = {(): dict.fromkeys(xs, Fraction(1))}
        title = (
            f"MACs of {len(names)} {plural('block', len(names))} / standard convolution (dashed)"
        )
        said += [f"panels: {', '.join(AXES[axis] for axis in named)}"] if named else []
    else:
        dashed, limit = _ratio_limits(report, rows, across)
        title = f"MACs of {block} / standard convolution"
        said += [f"dashed: {limit}"] if dashed else []
    title += f": {'some of ' if report.selected else ''}{report.title}"
    figure, drawn = new_figure(
        4.5, AXES[across], f"MACs, {block} / standard", title, "; ".join(said),
        panels=list(panels),
    )  # fmt: skip
    for axes, lines in zip(drawn, panels.values(), strict=True):
        _draw_dashed(axes, draw_lines(axes, {name: lines[name] for name in names}, xs), dashed)
    every = chain(dashed.values(), *(lines.values() for lines in panels.values()))
    scale(drawn[0], "y", [float(y) for line in every for y in line.values()])
    label_ends(figure, drawn)
    return figure


def _draw_dashed(
    axes: Axes, places: Mapping[Value, float], dashed: Mapping[Value, Mapping[Value, Fraction]]
) -> None:
    style: dict[str, Any] = {"linestyle": "--"}
    if not are_lengths(places):
        style = {"linestyle": "none", "marker": "_", "markersize": 24}
    for line in dashed.values():
        points = sorted((places[x], float(y)) for x, y in line.items())
        axes.plot(*zip(*points, strict=True), color="0.4", linewidth=1, **style)


def _ratio_limits(
    report: Report, rows: Sequence[Row], across: str
) -> tuple[dict[Value, dict[Value, Fraction]], str]:
    """The limit of a block's ratio for many output channels, by kernel; and what it is."""
    limits: dict[Value, dict[Value, Fraction]] = defaultdict(dict)
    symbols = set()
    for row in rows:
        assert isinstance(row.layer, Conv)
        if limit := report.replacement.limit(row.layer):
            kernel = () if across == "kernel_size" else row.layer.kernel_size
            limits[kernel][getattr(row.layer, across)] = limit[1]
            symbols.add(f"{limit[0]}, ")
    return limits, f"{symbols.pop() if len(symbols) == 1 else ''}the limit for large OC"


def _matter(rows: Sequence[Row], across: str) -> list[str]:
    """The other axes that vary and change a ratio; OC and F even if they do not."""
    varies = [axis for axis in varying_axes(rows) if axis != across]
    named = [axis for axis in varies if axis in ("out_channels", "kernel_size")]
    for axis in varies:
        if axis not in named and _is_open(rows, [across, *named]):
            named.append(axis)
    return sorted(named, key=list(AXES).index)


def _is_open(rows: Sequence[Row], axes: Sequence[str]) -> bool:
    """Whether a block has different ratios for layers that are alike along these axes."""
    found: dict[Hashable, Fraction | None] = {}
    return any(
        found.setdefault((row.name, *(getattr(row.layer, axis) for axis in axes)), row.mac_ratio)
        != row.mac_ratio
        for row in rows
    )


def _points(report: Report, title: str, side: str, names: Sequence[str]) -> Figure:
    """MACs against params, each point labelled; what blocks replace is hollow."""
    label, per_mac = UNITS[report.unit]
    figure, [axes] = new_figure(5, "params", label, title)
    rows = list(report.rows)
    costs: list[Cost] = [getattr(row, side).cost for row in rows]
    points = [(cost.params, cost.macs * per_mac) for cost in costs]
    for row, (x, y) in zip(rows, points, strict=True):
        replaced = row.block == STANDARD and side == "rewritten"
        axes.plot(x, y, "o", color=AS_IS, markerfacecolor="white" if replaced else AS_IS)
    scale(axes, "x", [x for x, _ in points], counts=True, room=0.25)
    scale(axes, "y", [y for _, y in points], counts=True)
    label_points(figure, axes, points, names)
    return figure


def _draw_totals(report: Report) -> Figure:
    """MACs of several networks: over the input size or the width if one varies, else params.

    Raises:
        DscalcError: there would be more lines than can be told apart.
    """
    rows, (label, per_mac) = list(report.rows), UNITS[report.unit]
    across: dict[str, Callable[[Row], Value]] = {
        "input size": lambda row: row.layer.input_size,
        "width multiplier": lambda row: row.width_multiplier and float(row.width_multiplier),
    }
    networks = list(dict.fromkeys(row.name or "" for row in rows))
    varies = [
        axis for axis, read in across.items()
        if len({(r.name, read(r)) for r in rows}) > len(networks)
    ]  # fmt: skip
    if not varies:
        sizes = [times(row.layer.input_size) for row in rows]
        names = [
            f"{row.name} {size}" if len(set(sizes)) > 1 else row.name or ""
            for row, size in zip(rows, sizes, strict=True)
        ]
        at = f" at {sizes[0]}" if len(set(sizes)) == 1 else ""
        return _points(report, f"{len(rows)} networks{at}: MACs and params", "as_is", names)
    axis, rest = varies[0], varies[1:]
    lines: dict[str, dict[Value, int]] = defaultdict(dict)
    for row in rows:
        parts = [row.name or "", *(f"width {across[name](row):g}" for name in rest)]
        lines[", ".join(parts)][across[axis](row)] = row.as_is.cost.macs * per_mac
    title = f"{label} of {', '.join(networks)} by {' and '.join(varies)}"
    figure, [axes] = new_figure(4.5, axis, label, title)
    draw_lines(axes, lines, [across[axis](row) for row in rows])
    scale(axes, "y", [y for line in lines.values() for y in line.values()], counts=True)
    label_ends(figure, [axes])
    return figure


def _draw_network(report: Report) -> Figure:
    """MACs by layer, and as rewritten beside it; layers without any are left out."""
    sides = {"as it is": AS_IS, **({f"as {report.block}": OTHER} if report.block else {})}
    rows = list(report.rows)
    names = Counter(row.name for row in rows if row.as_is.cost.macs)
    costs = [
        (
            f"{row.name} ({row.kind})" if names[row.name] > 1 else row.name or "",
            [side.cost.macs for side in (row.as_is, row.rewritten) if side],
        )
        for row in rows
    ]
    total, (label, per_mac) = report.whole, UNITS[report.unit]
    macs = total.as_is.cost.macs
    part = f"{len(rows)} {plural('row', len(rows))}{report.selected} of " if report.selected else ""
    part += "at least " if total.unknown else ""
    title = f"{report.title}{report.at}: {part}{full(macs * per_mac, label)}"
    if total.rewritten:
        title += f", as {report.block} {full(total.rewritten.cost.macs * per_mac)}"
    return bars(report, title, sides, costs, whole=None if total.unknown else macs)
