"""Numbers of other counters for people: sheets and sentences; and the same as plain data."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dscalc.core.fields import UNITS
from dscalc.peers.conventions import ELSEWHERE, MACS, OPENMMLAB, TABLE, Summand
from dscalc.peers.explanation import Candidate, Explanation, Match
from dscalc.peers.printed import PrintedNumber
from dscalc.peers.quantities import Quantities
from dscalc.report.report import Report
from dscalc.report.sentences import percent_in_column
from dscalc.report.sheet import Column, Sheet
from dscalc.show import plural

_PRODUCTS = {term.words for term in MACS.products}
_COUNTERS = {entry.name: entry for entry in TABLE}
_WIDEST = 34  # characters of counters on one line
_MOST_SHOWN = 8  # explanations in the table; machine formats have all
_ASK = "ask how it was counted: input size, classes, fused norms, where the stride sits, shortcuts"


@dataclass(eq=False, repr=False)
class _OwnData(Report):
    """A report whose JSON is `to_dict`, and no rows."""

    def json(self) -> Iterator[str]:
        """The JSON as text."""
        from json import dumps

        yield f"{dumps(self.to_dict(), indent=2)}\n"


@dataclass(eq=False, repr=False)
class Explained(_OwnData):
    """The explanation of a number, in place of a report.

    Args:
        found: the explanation.
    """

    found: Explanation = field(kw_only=True)

    @property
    def exit_code(self) -> int:
        """1 if nothing gives the number."""
        return 0 if self.found.answers else 1

    def table(self) -> Sheet:
        """The explanation as a sheet for people."""
        return _explained_sheet(self, self.found)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the explanation."""
        return self.head() | _explained_data(self.found) | {"notes": self.notes}


@dataclass(eq=False, repr=False)
class Counters(_OwnData):
    """The count of each counter, in place of a report.

    Args:
        quantities: the quantities of the model.
    """

    quantities: Quantities = field(kw_only=True)

    def table(self) -> Sheet:
        """The counts as a sheet for people."""
        return _peers(self, self.quantities)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the counts."""
        return self.head() | peers_data(self.quantities) | {"notes": self.notes}


def _explained_sheet(report: Report, found: Explanation) -> Sheet:
    """The matches of a number; without any, the nearest counters and the questions to ask."""
    title = f"{found.number.text}, as {found.label} of {report.title}"
    if not found.answers:
        notes = [*_said_doubts(report), *_unexplained(report, found)]
        return Sheet.of(title, _nearest(found.number, found.label), found.nearest, notes)
    groups = _grouped(found.answers)
    shown = groups[:_MOST_SHOWN]
    label = found.label
    columns = [
        Column(
            "counted by", lambda group: _on_one_line(one.candidate.by for one in group), role="name"
        ),
        Column(label, lambda group: _in_unit(group[0].candidate, label)),
        Column("verdict", lambda group: f"{group[0].verdict}{', cut short' * group[0].truncated}"),
        Column(
            "by accident",
            lambda group: percent_in_column(group[0].chance),
            rank=1,
            legend="by accident: how often a random number of as many digits gets as good an "
            "answer",
        ),
    ]
    notes = list(_said_doubts(report))
    notes += [_explanation_sentence([each.candidate for each in group]) for group in shown]
    if len(groups) > len(shown):
        notes.append(f"{len(groups) - len(shown):,} more; -f json has all")
    return Sheet.of(title, columns, shown, [*notes, *_verdicts(found), *_hints(report)])


def _said_doubts(report: Report) -> Iterator[str]:
    """Why the MACs may be too low, which others are compared with."""
    return (f"note: {doubt}" for doubt in report.notes)


def _in_unit(one: Candidate, label: str) -> str:
    """The count, with its unit if the column has another."""
    return f"{one.total:,}" if one.unit == label else f"{one.total:,} {one.unit}"


def _on_one_line(names: Iterable[str]) -> str:
    """Counters with the same count, on one line."""
    first, *others = dict.fromkeys(names)
    whole = ", ".join([first, *others])
    return whole if len(whole) <= _WIDEST or not others else f"{first} and {len(others)} more"


def _grouped(answers: Iterable[Match]) -> list[list[Match]]:
    """The matches in groups: counters with the same count are one explanation."""
    groups: dict[tuple[Any, ...], list[Match]] = {}
    for answer in answers:
        one = answer.candidate
        groups.setdefault((one.value, one.total, one.unit, one.of, one.besides), []).append(answer)
    return list(groups.values())


def _explanation_sentence(group: Sequence[Candidate], *, brief: bool = False) -> str:
    """``4,111,512,576 = 4,089,184,256 convolutions and linear layers + ...: as ... counts``."""
    one = group[0]
    said = f"{one.total:,} {one.unit}" if brief else _sum(one)
    counters = [each.by for each in group if each.by in _COUNTERS]
    if one.by in _COUNTERS and _COUNTERS[one.by].assumes:  # so have all of them
        counters = [_with_assumption(by) for by in counters]
    if counters:
        verb = "counts" if len(counters) == 1 else "count"
        said += f"{',' if brief else ':'} as {_enumerated(counters)} {verb}"
    if one.left_out and not brief:
        lost = _enumerated([f"{macs:,} MACs of {what}" for what, macs in one.left_out])
        said += f", without {lost}"
    said += f", for {one.of}" if one.of else ""
    return said + "".join(f", {what}" for what in one.besides if what != one.of)


def _with_assumption(by: str) -> str:
    assumed = _COUNTERS[by].assumes
    return by if assumed in by or assumed == OPENMMLAB else f"{by} ({assumed})"


def _sum(one: Candidate) -> str:
    per_mac = f"{one.per_mac} x " if one.per_mac > 1 else ""
    products = [(what, value) for what, value in one.summands if what in _PRODUCTS]
    others = [(what, value) for what, value in one.summands if what not in _PRODUCTS]
    said = ""
    if products:
        macs = sum(value for _, value in products) // one.per_mac
        said = f"{per_mac}{macs:,} {_enumerated([what for what, _ in products])}"
    said = f"{said} {_signed_summands(others)}".strip().removeprefix("+ ")
    said = f"2 x ({said})" if one.doubled else said
    return said if said.startswith(f"{one.total:,} ") else f"{one.total:,} = {said}"


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _signed_summands(summands: Sequence[Summand]) -> str:
    return " ".join(
        f"{'-' if value < 0 else '+'} {abs(value):,} {what}" for what, value in summands
    )


def _verdicts(found: Explanation) -> Iterator[str]:
    """Sentences on how far the digits prove the matches."""
    number = found.number
    if number.unit in UNITS and {answer.candidate.unit for answer in found.answers} - {found.label}:
        yield f"the number says {found.label}; in MACs a multiply-accumulate is 1, in FLOPs 2"
    if any(answer.verdict == "consistent with" for answer in found.answers):
        yield f"{number.digits} {plural('digit', number.digits)} cannot tell which"
    elif number.step:
        yield "explained: below 1% by accident, could be: below 10%"


def _hints(report: Report) -> Iterator[str]:
    """Sentences on what makes the count another than was meant."""
    if isinstance(report.extra, Counter) and (modules := report.extra["sequence_first"]):
        yield (
            f"batch_first=False ({modules} {plural('module', modules)}) reads the first axis as "
            "the sequence, and --input puts the batch first: a sequence of 1 was counted"
        )


def _nearest(asked: PrintedNumber, label: str) -> list[Column]:
    """Columns of the counters nearest to a number."""
    return [
        Column("nearest counters", lambda one: one.by, role="name"),
        Column(label, lambda one: _in_unit(one, label)),
        Column(
            "off by",
            lambda one: percent_in_column((one.value - asked.value) / asked.value, signed=True),
        ),
    ]


def _unexplained(report: Report, found: Explanation) -> Iterator[str]:
    yield f"no known counter prints {found.number.text} for this as it is"
    elsewhere = _grouped([Match(one, "could be", Fraction(0)) for one in found.elsewhere])
    for group in elsewhere[:_MOST_SHOWN]:
        said = _explanation_sentence([each.candidate for each in group], brief=True)
        yield f"perhaps {said}; its digits cannot prove it"
    params = report.whole.as_is.cost.params
    yield f"{_ASK}; the number of params ({params:,} here) settles most of these"
    yield from _hints(report)


def _explained_data(found: Explanation) -> dict[str, Any]:
    """The explanation as plain data."""
    number = found.number
    return {
        "explain": {
            "number": number.text,
            "unit": found.unit,
            "digits": number.digits,
            "exact": not number.step,
            "macs": found.macs,
            "explained": bool(found.answers),
            "answers": [
                _candidate_data(answer.candidate)
                | {
                    "verdict": answer.verdict,
                    "chance": float(answer.chance),
                    "truncated": answer.truncated,
                }
                for answer in found.answers
            ],
            "nearest": [_candidate_data(one) for one in found.nearest],
            "on_one_more_assumption": [_candidate_data(one) for one in found.elsewhere],
        }
    }


def _candidate_data(one: Candidate) -> dict[str, Any]:
    return {
        "by": one.by or None,
        "count": one.total,
        "unit": one.unit.lower(),
        "of": one.of or None,
        "conventions": list(one.assumptions),
        "doubled": one.doubled,
        "left_out": [{"what": what, "count": macs} for what, macs in one.left_out],
        "summands": [{"what": what, "count": value} for what, value in one.summands],
    }


# ---- The count of each counter. ----


def _peers(report: Report, quantities: Quantities) -> Sheet:
    """The sheet of each counter's count and its difference from the MACs."""
    known = peers_data(quantities)
    macs = known["macs"]
    alike: dict[tuple[str, int | None], list[dict[str, Any]]] = {}  # counters with the same count
    for peer in known["peers"]:
        unit = "" if peer["count"] is None else peer["unit"]
        alike.setdefault((unit, peer["count"]), []).append(peer)
    rows = sorted(alike.values(), key=lambda row: row[0]["count"] is None)
    own = [{"counter": "dscalc", "unit": "macs", "count": macs}]

    def prints(row: list[dict[str, Any]]) -> str:
        count, unit = row[0]["count"], UNITS[row[0]["unit"]][0]
        return "not known" if count is None else f"{count:,} {unit}"

    def off(row: list[dict[str, Any]]) -> str:
        count, ours = row[0]["count"], macs * UNITS[row[0]["unit"]][1]
        if count is None or row is own:
            return ""
        if count == ours or not ours:
            return "same"
        return percent_in_column(Fraction(count - ours, ours), signed=True)

    columns = [
        Column("counter", lambda row: _on_one_line(peer["counter"] for peer in row), role="name"),
        Column("prints", prints),
        Column("difference", off),
    ]
    abroad = _enumerated([entry.name for entry in TABLE if entry.assumes == ELSEWHERE])
    notes = [
        *_said_doubts(report),
        *filter(None, map(_peer_note, rows)),
        f"{abroad} count the same network in a framework of their own",
        "computed from what each was measured to count, not by running it",
        *_hints(report),
    ]
    return Sheet.of(report.title, columns, rows, notes, own)


def _peer_note(row: list[dict[str, Any]]) -> str:
    """The difference of counters with the same count."""
    names, first = _enumerated([peer["counter"] for peer in row]), row[0]
    if first["count"] is None:
        return f"{names}: not known here"
    if first["differences"]:
        differences = [(each["what"], each["count"]) for each in first["differences"]]
        return f"{names}: {_signed_summands(differences)}"
    return f"{names}: the same" if len(row) > 1 else ""


def peers_data(quantities: Quantities) -> dict[str, Any]:
    """The counts as plain data."""
    ours = dict(MACS.summands(quantities) or ())
    found = []
    for entry in TABLE:
        known = entry.summands(quantities)
        differences = [] if known is None else _differences(known, ours, entry.per_mac)
        found.append(
            {
                "counter": entry.name,
                "unit": "flops" if entry.per_mac > 1 else "macs",
                "count": None if known is None else sum(value for _, value in known),
                "differences": [{"what": what, "count": value} for what, value in differences],
                "assumes": entry.assumes or None,
                "source": entry.source,
            }
        )
    return {"macs": sum(ours.values()), "peers": found}


def _differences(summands: Sequence[Summand], ours: dict[str, int], per_mac: int) -> list[Summand]:
    both = Counter({what: -per_mac * macs for what, macs in ours.items()})
    both.update(dict(summands))
    return [(what, value) for what, value in both.items() if value]
