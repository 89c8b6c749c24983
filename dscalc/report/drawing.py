"""What pictures share: axes, lines, bars, labels that cover nothing. It imports matplotlib."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from typing import Literal

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from dscalc.core.fields import UNITS, Value
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report
from dscalc.show import times

AXES = {
    "out_channels": "output channels (OC)",
    "in_channels": "input channels (IC)",
    "input_size": "feature map size (D)",
    "kernel_size": "filter size (F)",
}
MARKERS = "osD^v<>Px"  # lines differ in marker and shade, so that they do in greyscale
LIGHT, DARK = "0.75", "0.15"
MUCH = 16  # by what factor numbers differ that a linear axis would squeeze
_MOST_BARS = 500
_MOST_LABELS = 30
_SMALL_LEGEND = 4  # lines
_NAME = 48  # characters in a line of a layer's name
_SIDES = ((1, 0), (-1, 0), (0, 1), (1, 1), (-1, 1), (0, -1), (1, -1), (-1, -1))  # right, up
_NEAR_A_LABEL = 16  # points of type between a label and its point


def save(figure: Figure, path: Path, kind: str, title: str) -> None:
    """Write a picture to a file; ``kind`` is png, svg or pdf."""
    metadata: dict[str, str | None] = {"Title": title}
    metadata |= {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    figure.savefig(path, format=kind, dpi=150, metadata=metadata, bbox_inches="tight")


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw in matplotlib's own style: a reader's may be white on nothing."""
    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        # A name may have a letter that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        rcParams["svg.hashsalt"] = "dscalc"  # makes the same file of the same records
        yield


def new_figure(
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


def add_legend(figure: Figure, axes: Axes, lines: int) -> None:
    """In the picture if it is small, else below."""
    if lines > _SMALL_LEGEND:
        figure.legend(loc="outside lower left", ncols=2, frameon=False)
    else:
        axes.legend(frameon=False)


def draw_lines(
    axes: Axes, lines: Mapping[str, Mapping[Value, Fraction | int]], xs: Iterable[Value]
) -> dict[Value, float]:
    """A line each, told apart in greyscale too; where each of the ``xs`` is on its axis.

    Only lengths are joined: between 3x5 and 7x1 there is nothing.

    Raises:
        DscalcError: there are more lines than can be told apart.
    """
    refuse_many(len(lines))
    places = place_values(list(dict.fromkeys(xs)), axes)
    for number, (name, line) in enumerate(lines.items()):
        axes.plot(
            [places[x] for x in line],
            [float(y) for y in line.values()],
            color=shade(number, len(lines)),
            marker=MARKERS[number],
            linestyle="-" if are_lengths(places) else "none",
            label="\n".join(_in_lines(name)),
        )
    return places


def refuse_many(lines: int) -> None:
    """Refuse more lines than can be told apart."""
    if lines > len(MARKERS):
        raise DscalcError(
            f"a plot shows at most {len(MARKERS)} lines, and here are {lines}; vary fewer values"
        )


def shade(number: int, count: int) -> str:
    """A grey of its own for each of ``count``."""
    return str(0.1 + 0.55 * number / max(1, count - 1))


def bars(
    report: Report, title: str, sides: Sequence[str], bars: Iterable[tuple[str, Sequence[int]]]
) -> Figure:
    """A bar a layer, or one of each side, for each layer that has any MACs.

    Raises:
        DscalcError: there are too many layers to see.
    """
    label, scale = UNITS[report.unit]
    counted = [bar for bar in bars if any(bar[1])]
    if len(counted) > _MOST_BARS:
        raise DscalcError(
            f"a plot shows at most {_MOST_BARS} layers, and {len(counted):,} have MACs; plot a part"
        )
    names = [_in_lines(name) for name, _ in counted]
    heights = [max(1, 0.6 * len(name)) for name in names]
    places = [end - height / 2 for end, height in zip(accumulate(heights), heights, strict=True)]
    figure, axes = new_figure(1.5 + 0.28 * sum(heights), label, "layer", title, grid="x")
    width = 0.8 / len(sides)
    for number, (side, color) in enumerate(zip(sides, (LIGHT, DARK)[-len(sides) :], strict=True)):
        shift = (number - (len(sides) - 1) / 2) * width
        axes.barh(
            [place + shift for place in places], [macs[number] * scale for _, macs in counted],
            width, color=color, label=side,
        )  # fmt: skip
    for tick in axes.set_yticks(places, ["\n".join(name) for name in names]):
        tick.label1.set_parse_math(False)
    axes.set_ylim(sum(heights) + 0.1, -0.1)
    axes.xaxis.set_major_formatter(EngFormatter())
    if len(sides) > 1:
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return figure


def label_points(
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
            if max(map(abs, text.get_position())) > _NEAR_A_LABEL:
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


def _in_lines(name: str) -> list[str]:
    """A name, in several lines if it is long; a very long one loses its end."""
    if len(name) <= _NAME:
        return [name]
    return wrap(name, _NAME, max_lines=6, placeholder="...")


def scale_y(axes: Axes, values: Sequence[float], *, log: bool = False) -> None:
    """An axis from 0 with room above; a logarithmic one if they span much."""
    least, most = min(values), max(values)
    if least > 0 and (log or most > MUCH * least):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(plain_tick))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(least / 1.3, most * 1.3)
    else:
        axes.set_ylim(0, 1.1 * most or None)


def place_values(values: list[Value], axes: Axes) -> dict[Value, float]:
    """Where each value goes on the x axis, and the axis to match."""
    numbers = [length for value in values if (length := _as_length(value)) is not None]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), [axis_value(value) for value in values])
        return {value: place for place, value in enumerate(values)}
    if max(numbers) > 16 * min(numbers):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(plain_tick))
        axes.xaxis.set_minor_locator(NullLocator())
    if len(numbers) <= 12:
        axes.set_xticks(numbers, [str(number) for number in numbers])
    return dict(zip(values, numbers, strict=True))


def plain_tick(value: float, _: object) -> str:
    """A number on a logarithmic axis, which matplotlib would write as a power of ten."""
    return f"{value:g}"


def are_lengths(values: Iterable[Value]) -> bool:
    """Whether they have places on an axis, and something between them."""
    return all(_as_length(value) is not None for value in values)


def _as_length(value: Value) -> int | None:
    """The one number that a channel count or a square size is; None for 3x5."""
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else None
    return value if isinstance(value, int) else None


def widest(rows: Sequence[Row]) -> str:
    """The axis of a grid that varies most."""
    return max(AXES, key=lambda axis: len({getattr(row.layer, axis) for row in rows}))


def varying_axes(rows: Sequence[Row]) -> list[str]:
    """The axes of a grid that vary, as a layer is written."""
    order = ("in_channels", "out_channels", "kernel_size", "input_size")
    return [axis for axis in order if len({getattr(row.layer, axis) for row in rows}) > 1]


def axis_value(value: Value) -> str:
    """A value on an axis: 64, or 3x5."""
    return times(value) if isinstance(value, tuple) else str(value)


def fixed_axis(axis: str, rows: Sequence[Row]) -> str:
    """The value of an axis, or those between which nothing differs."""
    values = list(dict.fromkeys(getattr(row.layer, axis) for row in rows))
    if len(values) == 1:
        return f"{axis_symbol(axis)} = {axis_value(values[0])}"
    some = [axis_value(value) for value in values]
    listed = ", ".join(some) if len(some) <= 4 else f"{some[0]} ... {some[-1]}"
    return f"{axis_symbol(axis)} = {listed} (no effect)"


def axis_symbol(axis: str) -> str:
    """The symbol of an axis of a grid: OC."""
    return AXES[axis].rpartition("(")[2].rstrip(")")
