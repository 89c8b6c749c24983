"""The plot of a benchmark. It imports matplotlib."""

from pathlib import Path

from matplotlib.figure import Figure

from dscalc.bench.view import measurement
from dscalc.core.blocks import STANDARD
from dscalc.core.row import Row
from dscalc.report.drawing import (
    AXES,
    COLOURS,
    MUCH,
    axis_symbol,
    axis_value,
    fixed_axis,
    label_points,
    new_figure,
    place_values,
    plain_style,
    save,
    scale,
    varying_axes,
    widest,
)
from dscalc.report.report import Report
from dscalc.show import plural

_APART = 1.05  # an axis must vary by more than this factor


def draw(report: Report, path: Path, kind: str) -> None:
    """Write the plot to ``path``; ``kind`` is png, svg or pdf."""
    with plain_style():
        save(_figure(report), path, kind, report.title)


def _figure(report: Report) -> Figure:
    """Speed-up with its interval, a point per row; hollow if not decided, a diamond if noisy.

    The x axis is the MAC reduction, if that varies; on the diagonal both are equal. Else it is the
    axis of the grid that varies most.
    """
    rows, block = list(report.rows), report.replacement
    several = block == STANDARD
    name = "block" if several else block.name
    blocks = len({row.name for row in rows})
    compared = f"{blocks} {plural('block', blocks)}" if several else name
    title = f"speed-up of {compared} over standard: {report.title}"
    across = widest(rows)
    reductions = [float(1 / row.mac_ratio) for row in rows if row.mac_ratio]
    by_macs = max(reductions) > _APART * min(reductions)
    varies = varying_axes(rows)
    named = [axis for axis in varies if by_macs or axis != across]
    rest = ", ".join(fixed_axis(axis, rows) for axis in AXES if varies and axis not in varies)
    figure, [axes] = new_figure(
        5, f"MAC reduction, standard / {name}" if by_macs else AXES[across],
        f"speed-up, standard / {name} time", title,
        "; ".join([*([rest] if rest else []), _where(rows[0])]),
    )  # fmt: skip
    if by_macs:
        xs = reductions
    else:
        places = place_values(list(dict.fromkeys(getattr(row.layer, across) for row in rows)), axes)
        xs = [places[getattr(row.layer, across)] for row in rows]
    shown: set[str] = set()
    seen, points, labels, whiskers = [1.0], [], [], []
    for x, row in zip(xs, rows, strict=True):
        speedup = measurement(row).speedup
        y = speedup.median
        low, high = speedup.low or y, speedup.high or y
        seen += [low, high] if speedup.decided else [y]  # an undecided whisker may be cut off
        legend = "decided" if speedup.decided else "not decided"
        legend += ", noisy" if measurement(row).noisy else ""
        axes.errorbar(
            x, y, [[y - low], [high - y]], fmt="D" if measurement(row).noisy else "o", capsize=3,
            color=COLOURS[0], markerfacecolor=COLOURS[0] if speedup.decided else "white",
            label="_" if legend in shown else legend,
        )  # fmt: skip
        shown.add(legend)
        sizes = [f"{axis_symbol(axis)} {axis_value(getattr(row.layer, axis))}" for axis in named]
        points.append((x, y))
        whiskers += [(x, low + (high - low) * step / 16) for step in range(17)]
        labels.append(" ".join([*([row.name or ""] if several else []), *sizes]))
    wide = by_macs and max(xs) > MUCH * min(xs)
    scale(axes, "y", seen, log=wide)
    if by_macs:
        scale(axes, "x", xs, room=0.3)  # for the names
        steps = [max(xs) * 2 ** (-step / 8) for step in range(100)]
        axes.plot(steps, steps, linestyle="--", color="0.4", linewidth=1,
                  label="speed-up = MAC reduction", scalex=False, scaley=False)  # fmt: skip
        whiskers += zip(steps, steps, strict=True)
    axes.axhline(1, color="0.6", linewidth=1, label="no speed-up")
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize="small")
    label_points(figure, axes, points, labels, whiskers)
    return figure


def _where(row: Row) -> str:
    """The machine and settings of a row's times."""
    here = measurement(row).environment
    return f"{here.machine}{', forward and backward' if here.backward else ''}"
