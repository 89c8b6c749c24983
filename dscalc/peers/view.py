"""Numbers of other counters for people: sheets and sentences; and the same as plain data."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dscalc.core.fields import UNITS
from dscalc.peers.conventions import (
    MACS,
    OLDER,
    TABLE,
    Candidate,
    Convention,
    Explanation,
    Match,
    PrintedNumber,
    Summand,
)
from dscalc.peers.quantities import Quantities
from dscalc.report.report import Report
from dscalc.report.sentences import percent_in_column
from dscalc.report.sheet import Column, Sheet
from dscalc.show import plural

_PRODUCTS = {term.words for term in MACS.products}
_COUNTERS = {entry.name for entry in TABLE}
_MOST_SHOWN = 8  # explanations in the table; machine formats have all
_ASK = "ask how it was counted: input size, classes, fused norms, where the stride sits, shortcuts"


@dataclass(eq=False, repr=False)
class Explained(Report):
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

    def json(self) -> Iterator[str]:
        """The explanation as JSON."""
        yield from _dumped(self.head() | explained_data(self.found))


@dataclass(eq=False, repr=False)
class Counters(Report):
    """The count of each counter, in place of a report.

    Args:
        quantities: the quantities of the model.
    """

    quantities: Quantities = field(kw_only=True)

    def table(self) -> Sheet:
        """The counts as a sheet for people."""
        return _peers(self, self.quantities)

    def json(self) -> Iterator[str]:
        """The counts as JSON."""
        yield from _dumped(self.head() | peers_data(self.quantities))


def _dumped(data: dict[str, Any]) -> Iterator[str]:
    from json import dumps

    yield dumps(data, indent=2)
    yield "\n"


def _explained_sheet(report: Report, found: Explanation) -> Sheet:
    """The matches of a number; without any, the nearest counters and the questions to ask."""
    label = UNITS[found.unit][0]
    title = f"{found.number.text}, as {label} of {report.title}"
    if not found.answers:
        notes = list(_unexplained(report, found))
        return Sheet.of(title, _nearest(found.number), found.nearest, notes)
    groups = _grouped(found.answers)
    shown = groups[:_MOST_SHOWN]
    columns = [
        Column(
            "counted by",
            lambda answer: answer.candidate.by or f"{answer.candidate.cost} free",
            role="name",
        ),
        Column("count", lambda answer: f"{answer.candidate.total:,}"),
        Column(
            "verdict",
            lambda answer: f"{answer.verdict}{', cut short' if answer.truncated else ''}",
        ),
        Column("chance", lambda answer: percent_in_column(answer.chance), rank=1),
    ]
    notes = [_explanation_sentence(group) for group in shown]
    if len(groups) > len(shown):
        notes.append(f"{len(groups) - len(shown):,} more; -f json has all")
    notes += _verdicts(found)
    return Sheet.of(title, columns, [answer for group in shown for answer in group], notes)


def _grouped(answers: Sequence[Match]) -> list[list[Match]]:
    """The matches in groups: counters that count alike are one explanation."""
    groups: dict[Candidate, list[Match]] = {}
    for answer in answers:
        alike = answer.candidate
        if alike.by:
            alike = alike._replace(summands=(), by="", per_mac=1, left_out=(), published=False)
        groups.setdefault(alike, []).append(answer)
    return list(groups.values())


def _explanation_sentence(group: Sequence[Match], *, brief: bool = False) -> str:
    """``4,111,512,576 = 4,089,184,256 convolutions and linear layers + ...: as ... counts``."""
    one = group[0].candidate
    said = f"{one.total:,}" if brief else f"{one.total:,} = {_sum(one)}"
    counters = [answer.candidate.by for answer in group if answer.candidate.by in _COUNTERS]
    if counters:
        verb = "counts" if len(counters) == 1 else "count"
        said += f"{',' if brief else ':'} as {_enumerated(counters)} {verb}"
        said += f" ({OLDER})" if OLDER in one.conventions else ""
    if one.left_out and not brief:
        lost = _enumerated([f"{macs:,} MACs of {what}" for what, macs in one.left_out])
        said += f", without {lost}"
    said += f", for {one.of}" if one.of else ""
    return f"{said}, with 1024 for 1000" if one.value != one.total else said


def _sum(one: Candidate) -> str:
    per_mac = f"{one.per_mac} x " if one.per_mac > 1 else ""
    products = [(what, value) for what, value in one.summands if what in _PRODUCTS]
    others = [(what, value) for what, value in one.summands if what not in _PRODUCTS]
    said = ""
    if products:
        names = [what for what, _ in products]
        said = (
            f"{per_mac}{sum(value for _, value in products) // one.per_mac:,} {_enumerated(names)}"
        )
    said = f"{said} {_signed_summands(others)}".strip().removeprefix("+ ")
    return f"2 x ({said})" if one.doubled else said


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _signed_summands(summands: Sequence[Summand]) -> str:
    return " ".join(
        f"{'-' if value < 0 else '+'} {abs(value):,} {what}" for what, value in summands
    )


def _verdicts(found: Explanation) -> Iterator[str]:
    """Sentences on how far the digits prove the matches."""
    digits = f"{found.number.digits} {plural('digit', found.number.digits)}"
    verdicts = {answer.verdict for answer in found.answers}
    if "consistent with" in verdicts:
        yield (
            f"{digits} cannot tell which: the chance is that of a random number with as many digits"
        )
    elif found.number.step:
        yield (
            f"chance: that so few conventions give {digits} by accident; "
            "explained: below 1%, could be: below 10%"
        )


def _nearest(asked: PrintedNumber) -> list[Column]:
    """Columns of the counters nearest to a number."""
    return [
        Column("nearest counters", lambda one: one.by, role="name"),
        Column("count", lambda one: f"{one.total:,}"),
        Column(
            "off by",
            lambda one: percent_in_column((one.value - asked.value) / asked.value, signed=True),
        ),
    ]


def _unexplained(report: Report, found: Explanation) -> Iterator[str]:
    yield f"no known counter and no small set of known conventions gives {found.number.text}"
    for group in _grouped([Match(one, "could be", Fraction(0)) for one in found.elsewhere]):
        found_so = _explanation_sentence(group, brief=True)
        yield f"with one more assumption, which its digits cannot prove: {found_so}"
    if not found.number.most_conventions:
        digits = found.number.digits
        few = "1 digit is" if digits == 1 else f"{digits} digits are"
        yield f"{few} too few to try free conventions: give more"
    params = report.total.as_is.cost.params if report.total else 0
    yield f"{_ASK}; the number of params ({params:,} here) settles most of these"


def explained_data(found: Explanation) -> dict[str, Any]:
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
        "of": one.of or None,
        "conventions": list(one.conventions),
        "doubled": one.doubled,
        "left_out": [{"what": what, "count": macs} for what, macs in one.left_out],
        "summands": [{"what": what, "count": value} for what, value in one.summands],
    }


# ---- The count of each counter. ----


def _peers(report: Report, quantities: Quantities) -> Sheet:
    """The sheet of each counter's count and its difference from the MACs."""
    ours = dict(MACS.summands(quantities) or ())
    macs = sum(ours.values())

    def prints(entry: Convention) -> str:
        summands = entry.summands(quantities)
        if summands is None:
            return "not known"
        count = sum(value for _, value in summands)
        return f"{count:,} {'FLOPs' if entry.per_mac > 1 else 'MACs'}"

    def off(entry: Convention) -> str:
        summands = entry.summands(quantities)
        if entry is MACS or summands is None:
            return ""
        differs = sum(value for _, value in summands) - entry.per_mac * macs
        if not differs or not macs:
            return "same"
        return percent_in_column(Fraction(differs, entry.per_mac * macs), signed=True)

    columns = [
        Column("counter", lambda entry: "dscalc" if entry is MACS else entry.name, role="name"),
        Column("prints", prints),
        Column("difference", off),
    ]
    notes = []
    for entry in TABLE:
        summands = entry.summands(quantities) or []
        if summands and (differs := _differences(summands, ours, entry.per_mac)):
            notes.append(f"{entry.name}: {_signed_summands(differs)}")
    notes.append("computed from what each was measured to count, not by running it")
    return Sheet.of(report.title, columns, TABLE, notes, MACS)


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
                "source": entry.source,
            }
        )
    return {"macs": sum(ours.values()), "peers": found}


def _differences(summands: Sequence[Summand], ours: dict[str, int], per_mac: int) -> list[Summand]:
    both = Counter({what: -per_mac * macs for what, macs in ours.items()})
    both.update(dict(summands))
    return [(what, value) for what, value in both.items() if value]
