"""Other people's numbers, as people read them: sheets, sentences, and the same as plain data."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from dscalc._version import __version__
from dscalc.core.fields import UNITS
from dscalc.peers.conventions import MACS, OLDER, TABLE, Answer, Candidate, Explanation, Summand
from dscalc.peers.quantities import Quantities
from dscalc.report.report import Report
from dscalc.report.sentences import percent_in_column
from dscalc.report.sheet import Sheet
from dscalc.show import plural

_PRODUCTS = {term.words for term in MACS.products}
_COUNTERS = {entry.name for entry in TABLE}
_MOST_SHOWN = 8  # explanations that people read; machine formats have all
_ASK = "ask how it was counted: input size, classes, fused norms, where the stride sits, shortcuts"


def explained(report: Report, found: Explanation) -> Sheet:
    """What gives a number; or, if nothing does, what comes nearest and what to ask."""
    label = UNITS[found.unit][0]
    title = f"{found.number.text}, as {label} of {report.title}"
    if not found.answers:
        return Sheet(title, *_nearest(found), None, list(_unexplained(report, found)))
    groups = _grouped(found.answers)
    shown = groups[:_MOST_SHOWN]
    cells = [
        [
            answer.candidate.by or f"{answer.candidate.cost} free",
            f"{answer.candidate.total:,}",
            f"{answer.verdict}{', cut short' if answer.truncated else ''}",
            percent_in_column(answer.chance),
        ]
        for group in shown
        for answer in group
    ]
    notes = [_sentence(group) for group in shown]
    if len(groups) > len(shown):
        notes.append(f"{len(groups) - len(shown):,} more; -f json has all")
    notes += _verdicts(found)
    return Sheet(
        title, ["counted by", "count", "verdict", "chance"], cells, None, notes, spare=(3,)
    )


def _grouped(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Counters that count alike are one explanation."""
    groups: dict[Candidate, list[Answer]] = {}
    for answer in answers:
        alike = answer.candidate
        if alike.by:
            alike = alike._replace(summands=(), by="", per_mac=1, left_out=(), published=False)
        groups.setdefault(alike, []).append(answer)
    return list(groups.values())


def _sentence(group: Sequence[Answer], *, brief: bool = False) -> str:
    """``4,111,512,576 = 4,089,184,256 convolutions and linear layers + ...: as ... counts``."""
    one = group[0].candidate
    said = f"{one.total:,}" if brief else f"{one.total:,} = {_sum(one)}"
    counters = [answer.candidate.by for answer in group if answer.candidate.by in _COUNTERS]
    if counters:
        verb = "counts" if len(counters) == 1 else "count"
        said += f"{',' if brief else ':'} as {_listed(counters)} {verb}"
        said += f" ({OLDER})" if OLDER in one.conventions else ""
    if one.left_out and not brief:
        lost = _listed([f"{macs:,} MACs of {what}" for what, macs in one.left_out])
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
        said = f"{per_mac}{sum(value for _, value in products) // one.per_mac:,} {_listed(names)}"
    said = f"{said} {_signed(others)}".strip().removeprefix("+ ")
    return f"2 x ({said})" if one.doubled else said


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _signed(summands: Sequence[Summand]) -> str:
    return " ".join(
        f"{'-' if value < 0 else '+'} {abs(value):,} {what}" for what, value in summands
    )


def _verdicts(found: Explanation) -> Iterator[str]:
    """What the digits can bear, in words."""
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


def _nearest(found: Explanation) -> tuple[list[str], list[list[str]]]:
    asked = found.number.value
    rows = [
        [
            one.by,
            f"{one.total:,}",
            percent_in_column((one.value - asked) / asked, signed=True),
        ]
        for one in found.nearest
    ]
    return ["nearest counters", "count", "off by"], rows


def _unexplained(report: Report, found: Explanation) -> Iterator[str]:
    yield f"no known counter and no small set of known conventions gives {found.number.text}"
    for group in _grouped([Answer(one, "could be", Fraction(0)) for one in found.elsewhere]):
        found_so = _sentence(group, brief=True)
        yield f"with one more assumption, which its digits cannot prove: {found_so}"
    if not found.number.most_conventions:
        digits = found.number.digits
        few = "1 digit is" if digits == 1 else f"{digits} digits are"
        yield f"{few} too few to try free conventions: give more"
    params = report.total.as_is.cost.params if report.total else 0
    yield f"{_ASK}; the number of params ({params:,} here) settles most of these"


def explained_data(found: Explanation) -> dict[str, Any]:
    """The same for machines."""
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
                _candidate(answer.candidate)
                | {
                    "verdict": answer.verdict,
                    "chance": float(answer.chance),
                    "truncated": answer.truncated,
                }
                for answer in found.answers
            ],
            "nearest": [_candidate(one) for one in found.nearest],
            "on_one_more_assumption": [_candidate(one) for one in found.elsewhere],
        }
    }


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "by": one.by or None,
        "count": one.total,
        "of": one.of or None,
        "conventions": list(one.conventions),
        "doubled": one.doubled,
        "left_out": [{"what": what, "count": macs} for what, macs in one.left_out],
        "summands": [{"what": what, "count": value} for what, value in one.summands],
    }


# ---- What each counter prints. ----


def peers(report: Report, quantities: Quantities) -> Sheet:
    """What each counter prints, and how that differs from the MACs."""
    ours = dict(MACS.summands(quantities) or ())
    macs = sum(ours.values())
    cells, notes = [], []
    for entry in TABLE:
        summands = entry.summands(quantities)
        if summands is None:
            cells.append([entry.name, "not known", ""])
            continue
        count = sum(value for _, value in summands)
        off = Fraction(count - entry.per_mac * macs, entry.per_mac * macs) if macs else Fraction(0)
        unit = "FLOPs" if entry.per_mac > 1 else "MACs"
        cells.append(
            [
                entry.name,
                f"{count:,} {unit}",
                percent_in_column(off, signed=True) if off else "same",
            ]
        )
        if differs := _differences(summands, ours, entry.per_mac):
            notes.append(f"{entry.name}: {_signed(differs)}")
    result = ["dscalc", f"{macs:,} MACs", ""]
    notes.append("computed from what each was measured to count, not by running it")
    return Sheet(report.title, ["counter", "prints", "difference"], cells, result, notes)


def peers_data(quantities: Quantities) -> dict[str, Any]:
    """The same for machines."""
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


# ---- One sentence for a paper. ----


def cited(report: Report, inputs: str, versions: str) -> str:
    """What a paper should say of the total.

    Args:
        report: with a total.
        inputs: what it was counted on; nothing where the title says so.
        versions: of what counted it too; nothing where nothing did.
    """
    assert report.total is not None
    cost, after = report.total.as_is.cost, report.total.rewritten.cost
    name, _, source = report.title.partition(": ")
    subject = f"{name} ({source})" if source else name
    flops = f"{2 * cost.macs:,} FLOPs at 2 for each MAC"
    has = f"{cost.macs:,} MACs ({flops}) and {cost.params:,} params"
    if report.command == "compare":
        subject = f"A convolution, {subject},"
        has += f", and as {report.block} {after.macs:,} MACs and {after.params:,} params"
    has += f" for an input of {inputs}" if inputs else ""
    whole = f"exactly as {versions} count it"
    if report.command == "model":  # of which fvcore's own total counts more, or misses some
        whole = (
            f"exactly as torch's FlopCounterMode counts it, and as {versions} count each "
            "convolution and linear layer"
        )
    counters = {
        "exact": whole,
        "mismatch": f"which {versions} count otherwise",
        "skipped": "by formula",
    }[report.total.crosscheck]
    return (
        f"{subject} has {has}: MACs are the products of convolutions, linear layers and matrices, "
        "without biases, norms, activations and pools "
        f"(dscalc {__version__}, {counters})."
    )
