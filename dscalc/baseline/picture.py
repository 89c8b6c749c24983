"""The plot of changes. It imports matplotlib."""

from pathlib import Path

from dscalc.baseline.changes import count_of
from dscalc.baseline.view import Compared
from dscalc.report.drawing import bars, plain_style, save


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
    title = f"{report.title} against {report.baseline.name}"
    with plain_style():
        save(bars(report, title, ("before", "now"), changed), path, kind, report.title)
