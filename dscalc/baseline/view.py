"""Changes since a baseline, to be read at a glance in a pull request."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from dscalc.baseline.changes import NOUNS, Change, Noun, count_of
from dscalc.baseline.earlier import Baseline
from dscalc.core.fields import (
    UNITS,
    Field,
    Fields,
    Group,
    Unit,
    alone,
    attributes,
    group,
)
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report
from dscalc.report.sentences import MARKS, UNIT_SENTENCE, crosschecked, percent, percent_in_column
from dscalc.report.sheet import Column, Sheet
from dscalc.show import plural, times

_MOST_CHANGES = 20  # changes in the table; machine formats have all


@dataclass(eq=False, repr=False)
class Compared(Report):
    """A report, and its changes since a baseline.

    Args:
        baseline: the earlier report.
        changes: the change of each row.
    """

    baseline: Baseline = field(kw_only=True)
    changes: list[Change] = field(kw_only=True)

    @property
    def lines(self) -> tuple[Iterable[Any], Fields]:
        """The changes, and their fields, for CSV and JSON Lines."""
        return self.changes, change_fields(self.unit)

    def foot(self) -> dict[str, Any]:
        """The JSON after the rows."""
        before = {
            "file": self.baseline.name,
            "total": self.fields.record(self.baseline.total),
            "changes": list(change_fields(self.unit).records(self.changes)),
        }
        foot = super().foot()
        return {"total": foot.pop("total"), "baseline": before, **foot}

    def table(self) -> Sheet:
        """The report as a sheet for people."""
        return _changed(self)

    def draw(self, path: Path, kind: str) -> None:
        """Draw the plot; ``kind`` is png, svg or pdf."""
        from dscalc.baseline.picture import draw

        draw(self, path, kind)


# ---- Fields. ----


@lru_cache
def change_fields(unit: Unit) -> Fields:
    """The fields of a change."""
    return Fields(
        alone(
            "change", "", str, "added, removed, dearer, cheaper, renamed or same",
            attrgetter("kind"),
        ),
        attributes(
            "row.",
            ("name", str, "its name now, or before if it was removed"),
            ("kind", str, "its kind now, or before if it was removed"),
        ),
        alone(
            "baseline_name", "", str, "its name in the baseline; none if it was added",
            lambda change: change.before and change.before.name,
        ),
        *(_count_group(noun, unit) for noun in NOUNS),
    )  # fmt: skip


def _count_group(noun: Noun, unit: Unit) -> Group:
    name, (label, scale) = (unit, UNITS[unit]) if noun == "macs" else (noun, (noun, 1))

    def read(change: Change) -> tuple[int | None, ...]:
        numbers = (
            count_of(change.after, noun),
            count_of(change.before, noun),
            change.difference(noun),
        )
        return tuple(None if number is None else number * scale for number in numbers)

    return group(
        read,
        (name, label, int, f"{label} now; 0 if it was removed"),
        (f"baseline_{name}", label, int, f"{label} in the baseline; 0 if it was added"),
        (f"{name}_difference", label, int, "now - in the baseline"),
    )


def field_of_total(
    name: str, baseline: Baseline, find: Callable[[str], Field], unit: Unit
) -> Field:
    """The field called ``name`` of a total, or of its change since a baseline.

    Raises:
        DscalcError: as ``find``; or the baseline does not know the field.
    """
    known = {field.name: field for field in change_fields(unit) if field.is_number}
    if name not in known or name in (unit, "params"):
        return find(name)
    found = known[name]
    if found.read(Change("same", baseline.total, baseline.total)) is None:
        raise DscalcError(f"{name} is not known: the baseline has operators without a formula")
    return found._replace(read=lambda total: found.read(Change("same", baseline.total, total)))


# ---- The table. ----


def _changed(report: Compared) -> Sheet:
    """The sheet: the total before and after, and the dearest changes."""
    label, scale = UNITS[report.unit]
    baseline, whole = report.baseline, report.whole
    total = Change("same", baseline.total, whole)
    found = [change for change in report.changes if change.kind != "same"]
    costly = sorted(filter(_has_cost, found), key=_dearest_first)
    notes = [
        *(f"note: {note}" for note in report.notes),
        *_of_other_inputs(list(report.rows), baseline.rows),
        *_more(costly[_MOST_CHANGES:], label, scale),
        *_without_cost([change for change in found if not _has_cost(change)], label),
        *_same([change for change in report.changes if change.kind == "same"], label, scale),
        *([whole.no_formula] if whole.unknown else []),
        *crosschecked([whole] if whole.as_is.cost.macs else []),
        UNIT_SENTENCE[report.unit],
    ]

    def mark(change: Change) -> str:
        return MARKS[whole.crosscheck] if change is total else ""

    def growth(change: Change) -> str:
        return percent_in_column(_growth(change, "macs"), signed=True)

    columns = [
        Column(
            "layer", lambda change: "total" if change is total else _name_cell(change), role="name"
        ),
        Column("change", lambda change: "" if change is total else change.kind, rank=4),
        Column(f"{label} before", lambda change: _count_cell(change.before, "macs", scale), rank=3),
        Column(label, lambda change: _count_cell(change.after, "macs", scale) + mark(change)),
        Column(f"{label} +/-", lambda change: _difference(change, "macs", scale)),
        Column("%", growth, rank=6),
        Column("params before", lambda change: _count_cell(change.before, "params"), rank=1),
        Column("params", lambda change: _count_cell(change.after, "params"), rank=2),
        Column("params +/-", lambda change: _difference(change, "params"), rank=5),
    ]
    title = f"{_verdict(total, label)}: {report.title} against {baseline.name}"
    paths = report.command == "model"
    return Sheet.of(
        title, columns, costly[:_MOST_CHANGES], notes, total, paths=paths, result_first=True
    )


def _count_cell(row: Row | None, noun: Noun, scale: int = 1) -> str:
    number = count_of(row, noun)
    if number is None:
        return "not known"
    return f"{number * scale:,}" if row else ""


def _difference(change: Change, noun: Noun, scale: int = 1) -> str:
    difference = change.difference(noun)
    return "" if difference is None else _signed_count(difference * scale)


def _of_other_inputs(now: Sequence[Row], before: Sequence[Row]) -> Iterator[str]:
    """A note if the first rows show that the two were counted on different inputs."""
    if not now or not before or now[0].name != before[0].name:
        return
    new, old = now[0].layer, before[0].layer
    if new.batch_size and old.batch_size and new.batch_size != old.batch_size:
        yield f"the baseline has a batch of {old.batch_size}, and this one of {new.batch_size}"
    if new.input_size and old.input_size and new.input_size != old.input_size:
        yield f"the baseline begins at {times(old.input_size)}, and this at {times(new.input_size)}"


def _verdict(total: Change, label: str) -> str:
    """The change of the total, in words."""
    differences = total.difference("macs"), total.difference("params")
    if differences == (0, 0):
        return f"the same {label} and params"
    return ", ".join([_compared(total, "macs", label), _compared(total, "params", "params")])


def _compared(total: Change, noun: Noun, label: str) -> str:
    difference, ratio = total.difference(noun), _growth(total, noun)
    if difference is None:
        return f"{label} not known"
    if not difference:
        return f"the same {label}"
    more = "more" if difference > 0 else "fewer"
    return f"{percent(abs(ratio)) if ratio else format(difference, ',')} {more} {label}"


def _growth(change: Change, noun: Noun) -> Fraction | None:
    """The difference / the count before; None if there is none."""
    before, difference = count_of(change.before, noun), change.difference(noun)
    return Fraction(difference, before) if before and difference is not None else None


def _has_cost(change: Change) -> bool:
    return any(count_of(row, noun) for row in (change.before, change.after) for noun in NOUNS)


def _dearest_first(change: Change) -> tuple[int, int, int]:
    """A sort key: dearer rows, then cheaper rows, each the largest change first; then the rest."""
    macs, params = change.difference("macs") or 0, change.difference("params") or 0
    sign = macs or params
    return -1 if sign > 0 else 1 if not sign else 0, -abs(macs), -abs(params)


def _name_cell(change: Change) -> str:
    name = change.row.name or ""
    return f"{change.before.name} -> {name}" if change.renamed and change.before else name


def _signed_count(number: int) -> str:
    return f"{number:+,}" if number else "0"


def _more(left_out: Sequence[Change], label: str, scale: int) -> Iterator[str]:
    """A note on the changes that the sheet does not list."""
    if left_out:
        macs = sum(change.difference("macs") or 0 for change in left_out) * scale
        params = sum(change.difference("params") or 0 for change in left_out)
        noun = plural("change", len(left_out))
        yield (
            f"{len(left_out):,} more {noun}, which -f csv lists: {_kinds(left_out)}; "
            f"{_signed_count(macs)} {label}, {_signed_count(params)} params"
        )


def _without_cost(found: Sequence[Change], label: str) -> Iterator[str]:
    if found:
        noun = plural("change", len(found))
        yield f"{len(found):,} {noun} without {label} or params: {_kinds(found)}"


def _kinds(found: Sequence[Change]) -> str:
    kinds = Counter(change.kind for change in found)
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())


def _same(same: Sequence[Change], label: str, scale: int) -> Iterator[str]:
    if same:
        macs = sum(count_of(change.after, "macs") or 0 for change in same) * scale
        params = sum(count_of(change.after, "params") or 0 for change in same)
        noun = plural("row", len(same))
        yield f"{len(same):,} {noun} stayed the same: {macs:,} {label}, {params:,} params"
