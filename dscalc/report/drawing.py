"""What pictures share: axes, lines, bars, labels that cover nothing. It imports matplotlib."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate, pairwise
from math import ceil, log2
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from dscalc.core.fields import UNITS, Value
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report
from dscalc.report.sentences import scaled, share, wrapped
from dscalc.show import times

AXES = {  # as a layer is written
    "in_channels": "input channels (IC)",
    "out_channels": "output channels (OC)",
    "kernel_size": "filter size (F)",
    "input_size": "feature map size (D)",
}
# Colours of Paul Tol and ColorBrewer that every colour vision tells apart. Grey print does too:
# CIE L* is at least 12 apart for the first four, and 6 for all.
COLOURS = ("#332288", "#D95F02", "#7BAFDE", "#666633", "#000000", "#DD7788", "#4477AA", "#BBCC33",
           "#882255")  # fmt: skip
MARKERS = "osD^v<>Px"
AS_IS, OTHER = COLOURS[0], COLOURS[2]
_ENGINEERING = EngFormatter()
COUNTS = FuncFormatter(lambda value, _: _ENGINEERING(value).replace("k", "K"))  # 100 M
_NUMBERS = FuncFormatter(lambda value, _: f"{value:.9f}".rstrip("0").rstrip("."))
MUCH = 16  # by what factor numbers differ that a linear axis would squeeze
_PIXELS, _MOST_PIXELS = 2000, 60_000  # of the width, and of the height that matplotlib can draw
_MOST_BARS = 500
_MOST_LABELS = 30
_MOST_PANELS = 16
_NAME = 48  # characters in a line of a layer's name
_NAME_OF_LINE = 24
_SIDES = ((1, 0), (-1, 0), (0, 1), (1, 1), (-1, 1), (0, -1), (1, -1), (-1, -1))  # right, up
_NEAR_A_LABEL = 10  # points of type between a label and its point


def save(figure: Figure, path: Path, kind: str, title: str) -> None:
    """Write a picture to a file; ``kind`` is png, svg or pdf."""
    metadata: dict[str, str | None] = {"Title": title}
    metadata |= {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    figure.draw_without_rendering()
    box = figure.get_tightbbox().padded(rcParams["savefig.pad_inches"])
    dpi = min(_PIXELS / box.width, _MOST_PIXELS / box.height)
    figure.savefig(path, format=kind, dpi=dpi, metadata=metadata, bbox_inches=box)


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw in matplotlib's own style: a reader's may be white on nothing."""
    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        # A name may have a letter that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        rcParams["svg.hashsalt"] = "dscalc"  # makes the same file of the same records
        rcParams["text.parse_math"] = False  # a name may have a $
        yield


def new_figure(
    height: float,
    xlabel: str,
    ylabel: str,
    *title: str,
    grid: Literal["both", "x"] = "both",
    panels: Sequence[str] = ("",),
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each name; the title is above all, in as many lines as it takes.

    Raises:
        DscalcError: there are more panels than can be seen.
    """
    _refuse_many(len(panels), _MOST_PANELS, "panels")
    down = ceil(len(panels) / 4)
    columns = ceil(len(panels) / down)
    figure = Figure(figsize=(7, max(height, 2.4 * down)), layout="constrained", facecolor="white")
    lines = [part for line in title for part in wrapped(line, 84, cut=True)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize="medium")
    every: list[Axes] = []
    for number, name in enumerate(panels):
        axes = figure.add_subplot(down, columns, number + 1, sharey=every[0] if every else None)
        axes.set_title(name, fontsize="medium")
        axes.tick_params(labelleft=number % columns == 0)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=grid, color="0.9")
        every.append(axes)
    if len(every) == 1:
        axes.set(xlabel=xlabel, ylabel=ylabel)
    else:
        figure.supxlabel(xlabel, fontsize="medium")
        figure.supylabel(ylabel, fontsize="medium")
    return figure, every


def draw_lines(
    axes: Axes, lines: Mapping[str, Mapping[Value, Fraction | int]], xs: Iterable[Value]
) -> dict[Value, float]:
    """A line each, told apart in greyscale too; where each of the ``xs`` is on its axis.

    Only lengths are joined: between 3x5 and 7x1 there is nothing.

    Raises:
        DscalcError: there are more lines than can be told apart.
    """
    _refuse_many(len(lines), len(MARKERS), "lines")
    places = place_values(list(dict.fromkeys(xs)), axes)
    axes.margins(x=0.08)
    for number, (name, line) in enumerate(lines.items()):
        points = sorted((places[x], float(y)) for x, y in line.items())
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=COLOURS[number],
            marker=MARKERS[number],
            linestyle="-" if are_lengths(places) else "none",
            gid=name,
        )
    return places


def _refuse_many(number: int, most: int, what: str) -> None:
    """Refuse more lines or panels than can be told apart."""
    if number > most:
        raise DscalcError(
            f"a plot shows at most {most} {what}, and here are {number}; vary fewer values"
        )


def label_ends(figure: Figure, panels: Iterable[Axes]) -> None:
    """Write the names of lines beside their last points, in the last column of panels."""
    figure.draw_without_rendering()  # which says how high the panels are
    for axes in panels:
        spec = axes.get_subplotspec()
        if spec and spec.is_last_col():
            row = 10.5 / 72 * figure.dpi / axes.bbox.height
            _label_ends(axes, row, 1 + 0.02 * spec.get_gridspec().ncols)


def _label_ends(axes: Axes, row: float, right: float) -> None:
    """A row of type is ``row`` of the height of the axes; names begin at ``right`` of the width."""
    named: dict[Line2D, Any] = {line: line.get_xydata() for line in axes.lines if line.get_gid()}
    # A line that is in other panels alone has its name at the foot of this one.
    within = axes.transData - axes.transAxes
    ends: dict[Line2D, Any] = {
        line: within.transform(xy[-1]) if len(xy) else (1, 0) for line, xy in named.items()
    }
    places = {line: end[1] for line, end in ends.items()}
    lines = sorted(ends, key=places.__getitem__)
    names = {line: "\n".join(_in_lines(str(line.get_gid()), _NAME_OF_LINE)) for line in lines}
    for _ in range(200):  # neighbours that overlap move apart, again and again
        for low, high in pairwise(lines):
            rows = 1 + (names[low] + names[high]).count("\n") / 2
            overlap = max(0, rows * row - places[high] + places[low])
            places[low] -= overlap / 2
            places[high] += overlap / 2
    for line, name in names.items():
        rule = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.7, "relpos": (0, 0.5)}
        axes.annotate(
            name, ends[line], (right, places[line]), "axes fraction", arrowprops=rule,
            fontsize="small", va="center", annotation_clip=False,
        )  # fmt: skip


def bars(
    report: Report,
    title: str,
    sides: Mapping[str, str],
    bars: Iterable[tuple[str, Sequence[int]]],
    whole: int | None = None,
) -> Figure:
    """For each layer that has any MACs a bar of each side, with its value; one if they are equal.

    Args:
        report: what is drawn.
        title: of the picture.
        sides: the colour of each, by its name.
        bars: the name of each layer, and its MACs on each side.
        whole: the MACs of which the first side shows a share.

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
    high = 0.28 if len(sides) == 1 else 0.36  # inches
    figure, [axes] = new_figure(1.5 + high * sum(heights), label, "layer", title, grid="x")
    width = 0.8 / len(sides)
    for number, (side, color) in enumerate(sides.items()):
        shown = [
            (place + (number - (len(set(macs)) - 1) / 2) * width, macs[number])
            for place, (_, macs) in zip(places, counted, strict=True)
            if number < len(set(macs))
        ]
        drawn = axes.barh(
            [place for place, _ in shown], [macs * scale for _, macs in shown], width,
            color=color, label=side,
        )  # fmt: skip
        values = [
            f"{scaled(macs * scale)}{f' ({share(Fraction(macs, whole))})' if whole else ''}"
            for _, macs in shown
        ]
        axes.bar_label(drawn, values, padding=3, fontsize=8 if len(sides) == 1 else 7)
        whole = None
    axes.set_yticks(places, ["\n".join(name) for name in names])
    axes.set_ylim(sum(heights) + 0.1, -0.1)
    axes.xaxis.set_major_formatter(COUNTS)
    if len(sides) > 1:
        colours = [Patch(color=color, label=side) for side, color in sides.items()]
        figure.legend(handles=colours, loc="outside lower right", ncols=2, frameon=False)
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


def _in_lines(name: str, width: int = _NAME) -> list[str]:
    """A name, in several lines if it is long; a very long one loses its end."""
    return wrap(name, width, max_lines=6, placeholder="...") if len(name) > width else [name]


def scale(
    axes: Axes,
    which: Literal["x", "y"],
    values: Sequence[float],
    *,
    counts: bool = False,
    room: float = 0.1,
    log: bool = False,
) -> None:
    """An axis from 0, a logarithmic one if the values span much, with ``room`` beyond them.

    It writes all its numbers in one way.
    """
    least, most = min(values), max(values)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if least > 0 and (log or most > MUCH * least):
        beyond = max(1.3, (most / least) ** room)
        axes.set(**{f"{which}scale": "log", f"{which}lim": (least / beyond, most * beyond)})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 1000 * least else (1,)))
        axis.set_major_formatter(_NUMBERS)
        axis.set_minor_formatter(NullFormatter())
    else:
        axes.set(**{f"{which}lim": (0, (1 + room) * most or None)})
    if counts:
        axis.set_major_formatter(COUNTS)


def place_values(values: list[Value], axes: Axes) -> dict[Value, float]:
    """Where each value goes on the x axis, and the axis to match."""
    numbers = [length for value in values if (length := _as_length(value)) is not None]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), [axis_value(value) for value in values])
        return {value: place for place, value in enumerate(values)}
    if _least_step([log2(number) for number in numbers]) > _least_step(numbers):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(_NUMBERS)
        axes.xaxis.set_minor_locator(NullLocator())
    spec = axes.get_subplotspec()
    if spec and len(numbers) <= 12 // spec.get_gridspec().ncols + 1:
        axes.set_xticks(numbers, [str(number) for number in numbers])
    return dict(zip(values, numbers, strict=True))


def _least_step(places: Sequence[float]) -> float:
    """The least distance between two of several places, as a share of that between all."""
    steps = [high - low for low, high in pairwise(sorted(places))]
    return min(steps) / sum(steps) if len(steps) > 1 else 0


def are_lengths(values: Iterable[Value]) -> bool:
    """Whether they have places on an axis, and something between them."""
    return all(_as_length(value) is not None for value in values)


def _as_length(value: Value) -> int | None:
    """The one number that a channel count or a square size is; None for 3x5."""
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else None
    return value if isinstance(value, int) else None


def widest(rows: Sequence[Row]) -> str:
    """The axis of a grid that varies most; of equals the output channels, if they vary."""
    return max(
        ("out_channels", *AXES), key=lambda axis: len({getattr(row.layer, axis) for row in rows})
    )


def varying_axes(rows: Sequence[Row]) -> list[str]:
    """The axes of a grid that vary, as a layer is written."""
    return [axis for axis in AXES if len({getattr(row.layer, axis) for row in rows}) > 1]


def axis_value(value: Value) -> str:
    """A value on an axis: 64, or 3x5."""
    return times(value) if isinstance(value, tuple) else str(value)


def fixed_axis(axis: str, rows: Sequence[Row]) -> str:
    """The value of an axis, or those between which nothing differs."""
    values = list(dict.fromkeys(getattr(row.layer, axis) for row in rows))
    if len(values) == 1:
        return f"{axis_symbol(axis)} {axis_value(values[0])}"
    some = [axis_value(value) for value in values]
    listed = ", ".join(some) if len(some) <= 4 else f"{some[0]} ... {some[-1]}"
    return f"{axis_symbol(axis)} {listed} (no effect)"


def axis_symbol(axis: str) -> str:
    """The symbol of an axis of a grid: OC."""
    return AXES[axis].rpartition("(")[2].rstrip(")")
