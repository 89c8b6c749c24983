"""The picture of what changed. It imports matplotlib."""

from pathlib import Path

from dscalc.baseline.changes import count_of
from dscalc.baseline.view import Compared
from dscalc.report.drawing import bars, plain_style, save


def draw(report: Compared, path: Path, kind: str) -> None:
    """MACs of the layers that changed, before beside now; ``kind`` is png, svg or pdf."""
    changed = [
        (
            change.row.name or "",
            count_of(change.before, "macs") or 0,
            count_of(change.after, "macs") or 0,
        )
        for change in report.changes
        if change.difference("macs")
    ]
    title = f"{report.title} against {report.baseline.name}"
    with plain_style():
        save(bars(report, title, ("before", "now"), changed), path, kind, report.title)
