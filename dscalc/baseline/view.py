"""What changed since a baseline -> a sheet, made to be read at a glance in a pull request."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from dscalc.baseline.changes import NOUNS, Change, Noun, count
from dscalc.baseline.earlier import Baseline
from dscalc.core.fields import UNITS
from dscalc.core.row import Row
from dscalc.report.report import Report
from dscalc.report.sentences import CONVENTION, MARKS, crosschecked, percent, percent_in_column
from dscalc.report.sheet import Sheet
from dscalc.show import plural, times

_MOST = 20  # changes; machine formats have all


def changed(report: Report, baseline: Baseline) -> Sheet:
    """The total before and after, and the dearest changes."""
    label, scale = UNITS[report.unit]
    assert report.total is not None
    total = Change("same", baseline.total, report.total)
    header = ["layer", "change", f"{label} before", label, f"{label} +/-", "%"]
    header += ["params before", "params", "params +/-"]
    found = [change for change in report.changes if change.kind != "same"]
    costly = sorted(filter(_has_cost, found), key=_dearest_first)
    cells = [[_name(change), change.kind, *_cells(change, scale)] for change in costly[:_MOST]]
    notes = [
        *_of_other_inputs(list(report.rows), baseline.rows),
        *_more(costly[_MOST:], label, scale),
        *_without_cost([change for change in found if not _has_cost(change)], label),
        *_same([change for change in report.changes if change.kind == "same"], label, scale),
        *(note for note in report.notes if report.total.unknown),
        *crosschecked([report.total] if report.total.as_is.cost.macs else []),
        CONVENTION[report.unit],
    ]
    result = ["total", "", *_cells(total, scale)]
    result[3] += MARKS[report.total.crosscheck]
    return Sheet(
        f"{_verdict(total, label)}: {report.title} against {baseline.name}",
        header, cells, result, notes,
        spare=(6, 7, 2, 1, 8, 5), paths=report.command == "model", result_first=True,
    )  # fmt: skip


def _of_other_inputs(now: Sequence[Row], before: Sequence[Row]) -> Iterator[str]:
    """That the two were counted on other inputs, by the first row of both."""
    if not now or not before or now[0].name != before[0].name:
        return
    new, old = now[0].layer, before[0].layer
    if new.batch_size and old.batch_size and new.batch_size != old.batch_size:
        yield f"the baseline has a batch of {old.batch_size}, and this one of {new.batch_size}"
    if new.input_size and old.input_size and new.input_size != old.input_size:
        yield f"the baseline begins at {times(old.input_size)}, and this at {times(new.input_size)}"


def _verdict(total: Change, label: str) -> str:
    """How much more or less it is."""
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
    """The difference as a share of before."""
    before, difference = count(change.before, noun), change.difference(noun)
    return Fraction(difference, before) if before and difference is not None else None


def _has_cost(change: Change) -> bool:
    return any(count(row, noun) for row in (change.before, change.after) for noun in NOUNS)


def _dearest_first(change: Change) -> tuple[int, int, int]:
    """What got dearer, the most first; then what got cheaper, the most first; then the rest."""
    macs, params = change.difference("macs") or 0, change.difference("params") or 0
    sign = macs or params
    return -1 if sign > 0 else 1 if not sign else 0, -abs(macs), -abs(params)


def _name(change: Change) -> str:
    name = change.row.name or ""
    return f"{change.before.name} -> {name}" if change.renamed and change.before else name


def _cells(change: Change, scale: int) -> Iterator[str]:
    """Before, now and the difference, of MACs and of params; of the MACs also in percent."""
    for noun, by in zip(NOUNS, (scale, 1), strict=True):
        before, now = count(change.before, noun), count(change.after, noun)
        difference = change.difference(noun)
        yield "not known" if before is None else f"{before * by:,}" if change.before else ""
        yield "not known" if now is None else f"{now * by:,}" if change.after else ""
        yield "" if difference is None else _signed(difference * by)
        if noun == "macs":
            yield percent_in_column(_growth(change, noun), signed=True)


def _signed(number: int) -> str:
    return f"{number:+,}" if number else "0"


def _more(left_out: Sequence[Change], label: str, scale: int) -> Iterator[str]:
    """What the sheet does not list."""
    if left_out:
        macs = sum(change.difference("macs") or 0 for change in left_out) * scale
        params = sum(change.difference("params") or 0 for change in left_out)
        noun = plural("change", len(left_out))
        yield (
            f"{len(left_out):,} more {noun}, which -f csv lists: {_kinds(left_out)}; "
            f"{_signed(macs)} {label}, {_signed(params)} params"
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
        macs = sum(count(change.after, "macs") or 0 for change in same) * scale
        params = sum(count(change.after, "params") or 0 for change in same)
        noun = plural("row", len(same))
        yield f"{len(same):,} {noun} stayed the same: {macs:,} {label}, {params:,} params"
