"""The plot of changes. It imports matplotlib."""

from pathlib import Path

from dscalc.baseline.changes import count_of
from dscalc.baseline.view import Compared
from dscalc.core.fields import UNITS
from dscalc.report.drawing import AS_IS, OTHER, bars, plain_style, save
from dscalc.report.sentences import full


def draw(report: Compared, path: Path, kind: str) -> None:
    """Plot the MACs of layers that changed, before beside now; ``kind`` is png, svg or pdf."""
    changed = [
        (
            change.row.name or "",
            [count_of(row, "macs") or 0 for row in (change.before, change.after)],
        )
        for change in report.changes
        if change.difference("macs")
    ]
    label, scale = UNITS[report.unit]
    title = f"{report.title} against {report.baseline.name}"
    before, now = (count_of(row, "macs") for row in (report.baseline.total, report.total))
    if before is not None and now is not None:
        title += f": {full(before * scale, label)} before, {full(now * scale)} now"
    changed = changed or [("total", [before or 0, now or 0])]  # it stayed the same
    with plain_style():
        figure = bars(report, title, {"before": OTHER, "now": AS_IS}, changed)
        save(figure, path, kind, report.title)
