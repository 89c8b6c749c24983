"""The memory of a model over its operators, as an area with its peak. It imports matplotlib."""

from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dscalc.core.peaks import Footprint, Moment
from dscalc.errors import DscalcError
from dscalc.report.drawing import AS_IS, COLOURS, OTHER, new_figure
from dscalc.report.report import Report
from dscalc.report.sentences import in_bytes
from dscalc.show import plural, printable

_FIELDS = {"weight_bytes", "peak_bytes", "least_peak_bytes", "peak_at"}
_MOST_MODULES = 16  # that are named below
_LONGEST_NAME = 24


def asks_memory(report: Report) -> bool:
    """Whether the command line names a field of memory."""
    return not _FIELDS.isdisjoint(field.name for field in report.asked)


def draw_memory(report: Report, memory: Footprint) -> Figure:
    """What torch holds and what a planner needs at the end of each operator, and the weights.

    Raises:
        DscalcError: it is not known.
    """
    run, peak = memory.run, memory.peak
    if peak is None:
        raise DscalcError(f"there is no memory to draw: {run.unknown}")
    most, at = peak.held, run.moments.index(peak)
    bits = f", {run.bits} bits a float" if run.bits else ""
    figure, [axes] = new_figure(
        4, f"{len(run.moments) - 1:,} {plural('operator', len(run.moments) - 1)} in order", "bytes",
        f"{report.title}{report.at}{bits}: activation peak {in_bytes(most)} in torch",
    )  # fmt: skip
    xs = [x - 0.5 for x in range(len(run.moments) + 1)]
    for name, colour, heights in (
        ("held by torch", OTHER, [moment.held for moment in run.moments]),
        (f"needed by a planner, {in_bytes(memory.least_peak_bytes or 0)} at most", AS_IS,
         [moment.planned for moment in run.moments]),
    ):  # fmt: skip
        axes.fill_between(xs, [*heights, heights[-1]], step="post", color=colour, label=name)
    axes.plot(at, most, "v", color="black", clip_on=False)
    side = "left" if 2 * at < len(run.moments) else "right"
    axes.annotate(
        f"{in_bytes(most)}: {memory.peak_at}", (at, most), (0, 7), textcoords="offset points",
        ha=side, fontsize="small", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip
    weights = f"weights, {in_bytes(memory.weight_bytes)}"
    dashed: dict[str, Any] = {"linestyle": "--", "color": COLOURS[1]}
    if memory.weight_bytes <= 1.5 * most:
        axes.axhline(memory.weight_bytes, label=weights, **dashed)
    else:  # which would squeeze the rest
        axes.plot([], label=f"{weights}: above this", **dashed)
    axes.set(xlim=(xs[0], xs[-1]), ylim=(0, 1.15 * max(most, axes.dataLim.y1)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_bytes(round(value))))
    _name_modules(axes, run.moments)
    figure.legend(loc="outside lower left", ncols=2, frameon=False)
    return figure


def _name_modules(axes: Axes, moments: tuple[Moment, ...]) -> None:
    """Name modules where their operators begin: those of the deepest level that are few."""
    deepest = max(moment.path.count(".") for moment in moments) + 1
    starts: dict[int, str] = {}
    for depth in range(1, deepest + 1):
        within: dict[int, str] = {}
        paths = [".".join(moment.path.split(".")[:depth]) for moment in moments]
        at = 0
        for path, run in groupby(paths):
            if path:
                within[at] = printable(path)
            at += len(list(run))
        if len(within) > _MOST_MODULES and starts:
            break
        starts = within
    apart, last, named = len(moments) / 40, -len(moments), {}
    for at, name in starts.items():
        if at - last >= apart:  # else one would cover the other
            named[at] = name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"
            last = at
    axes.set_xticks([*named], [*named.values()], rotation=45, ha="right", fontsize="small")
