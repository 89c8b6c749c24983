"""The counters that give a number from elsewhere, and what must be assumed for it.

Other assumptions than the counter, such as a model without its classifier or another input size,
are never more than the digits of the number can prove.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from dscalc.core.fields import UNITS, Unit
from dscalc.peers.conventions import FLOAT32, MACS, PARAMETERS, TABLE, Summand
from dscalc.peers.printed import PrintedNumber
from dscalc.peers.quantities import Quantities, without

BINARY = "with 1024 for 1000"
PARTS = {"head": "without the classifier", "pool": "without the pool before it"}
_IDLE = "in modules that do not run, such as auxiliary heads"
WEIGHTS = "weights, in bytes"
FILE = "a file of weights"
_IN_A_FILE = 220  # bytes per tensor besides its values; torchvision's files have 130 to 315
_FLOAT32 = 2**20  # a sum in float32 is off by less than 1 in so many

_OF_COUNTERS = {entry.assumes for entry in TABLE}

# Models whose published figure is of another structure than the common one: the MACs of the common
# one -> whose figure it is, and the difference.
_VARIANTS = {
    # He et al., 2016 (arXiv 1512.03385), Table 1: 3.8 G.
    4_089_184_256: (
        "ResNet-50 of its paper",
        ("by the stride in the first 1x1, not in the 3x3", -231_211_008),
    ),
    # github.com/tensorflow/models, research/slim/nets/mobilenet/README.md: 314 M.
    300_774_272: (
        "MobileNetV2 of TF-slim",
        ("of a 1x1, 32 -> 32, in the first block", 12_845_056),
    ),
    # Krizhevsky et al., 2012: two GPUs had half of the channels each. 724 M.
    1_135_256_096: (
        "AlexNet of its paper",
        ("by two groups in the second, fourth and fifth convolution", -410_849_280),
    ),
    714_188_480: (
        "AlexNet of its paper",
        ("of more channels, in two groups in three of the convolutions", 10_218_336),
    ),
}


class Source(NamedTuple):
    """A thing that may have been counted: the whole, a part, or the whole at another input size.

    Args:
        what: the thing in words; "" for the whole.
        quantities: its quantities.
        params: its params, if the number may be these.
        assumes: whether this thing is an assumption.
        not_run: the params of its modules that did not run.
    """

    what: str
    quantities: Quantities
    params: int = 0
    assumes: bool = False
    not_run: int = 0


CountOf = Literal["MACs", "FLOPs", "params", "bytes"]


class Candidate(NamedTuple):
    """A number that somebody may have printed, and how to get it.

    Args:
        value: the number in print.
        total: the count; it differs from ``value`` if 1024 stands for 1000.
        unit: the unit of the count.
        summands: the summands of the count.
        of: the thing that was counted; "" for the whole.
        by: the counter.
        left_out: products that the counter does not see, or not all of them.
        assumptions: the assumptions, in words.
        cost: the number of assumptions that the digits must prove.
        per_mac: the counter's count per MAC.
        doubled: whether the sum is taken twice, at 2 FLOPs per MAC.
        published: whether papers print the figure, and may cut it short.
        spread: by how much the printed number may differ.
    """

    value: Fraction
    total: int
    unit: CountOf
    summands: tuple[Summand, ...]
    of: str = ""
    by: str = ""
    left_out: tuple[Summand, ...] = ()
    assumptions: tuple[str, ...] = ()
    cost: int = 0
    per_mac: int = 1
    doubled: bool = False
    published: bool = False
    spread: int = 0

    @property
    def besides(self) -> tuple[str, ...]:
        """The assumptions other than the counter's own."""
        return tuple(what for what in self.assumptions if what not in _OF_COUNTERS)

    def fits(self, number: PrintedNumber) -> bool:
        """Whether the candidate, rounded, is printed like the number."""
        whole = not number.step and FLOAT32 in self.assumptions
        return number.fits(self.value, 0 if whole and not _is_float32(number) else self.spread)

    def assuming(self, what: str, cost: int = 1) -> "Candidate":
        """The candidate with one more assumption."""
        return self._replace(assumptions=(*self.assumptions, what), cost=self.cost + cost)


def _is_float32(number: PrintedNumber) -> bool:
    """Whether a whole number is a value of float32, which has 24 bits."""
    value = int(number.value)
    return value % (1 << max(0, value.bit_length() - 24)) == 0


def _by_counters(source: Source) -> Iterator[Candidate]:
    """Candidates: the count of each counter, with and without the classifier, and of papers."""
    before = None
    for left_out in ([], ["head"], ["head", "pool"]):
        quantities = without(source.quantities, *left_out)
        if quantities == before:  # the model has no such part
            continue
        before, ours = quantities, MACS.summands(quantities) or []
        for entry in (MACS, *TABLE):
            summands = entry.summands(quantities)
            if summands is None:
                continue
            theirs = dict(summands)
            lost = ((what, macs - theirs.get(what, 0) // entry.per_mac) for what, macs in ours)
            found = _candidate(
                source, "FLOPs" if entry.per_mac > 1 else "MACs", summands, entry.name,
                per_mac=entry.per_mac, published=entry is MACS,
                left_out=tuple((what, macs) for what, macs in lost if macs > 0),
            )  # fmt: skip
            if entry.assumes == FLOAT32:
                found = found._replace(spread=found.total // _FLOAT32)
            for assumed in filter(None, (entry.assumes, *(PARTS[part] for part in left_out))):
                found = found.assuming(assumed)
            yield found
    if variant := _VARIANTS.get(_macs(source)):
        by, different = variant
        summands = [*(MACS.summands(source.quantities) or ()), different]
        yield _candidate(source, "MACs", summands, by, published=True)


def _params(source: Source) -> Iterator[Candidate]:
    """Candidates: all params, those of modules that run, and all but the classifier's."""
    if not source.params:
        return
    idle, head = source.not_run, Counter(source.quantities)["head.parameters.others"]
    said = f"params, {idle:,} of them {_IDLE}" if idle else "params"
    yield _candidate(source, "params", [(said, source.params)], PARAMETERS)
    for words, less in ((_IDLE, idle), ("of the classifier", head)):
        if less:
            summands = [("params", source.params), (words, -less)]
            yield _candidate(source, "params", summands, PARAMETERS)


def _bytes(source: Source) -> Iterator[Candidate]:
    """Candidates: bytes of the weights, and of a file of them, which has buffers and names too."""
    for width, kind in ((4, "float32"), (2, "float16"), (1, "int8")):
        summands = [(f"bytes of {kind} weights", width * source.params)]
        yield _candidate(source, "bytes", summands, WEIGHTS)
    quantities = Counter(source.quantities)
    if size := quantities["file.bytes"]:
        more = _IN_A_FILE * quantities["file.tensors"]
        said = f"for the names and places of {quantities['file.tensors']:,} tensors, about"
        summands = [("bytes of weights and buffers", size), (said, more)]
        yield _candidate(source, "bytes", summands, FILE, spread=more // 2)


def _candidate(
    source: Source, unit: CountOf, summands: Sequence[Summand], by: str, **more: Any
) -> Candidate:
    count = sum(value for _, value in summands)
    found = Candidate(Fraction(count), count, unit, tuple(summands), source.what, by, **more)
    return found.assuming(source.what) if source.assumes else found


def _macs(source: Source) -> int:
    return sum(value for _, value in MACS.summands(source.quantities) or ())


def _candidates(source: Source, number: PrintedNumber, unit: str, most: int) -> Iterator[Candidate]:
    """All candidates of a source that cost at most ``most`` assumptions.

    Few digits prove nothing, so the assumptions of a counter are free for them.
    """
    named: list[Candidate] = []
    if unit == "bytes":
        named += _bytes(source)
    else:
        named += _by_counters(source) if unit != "params" else ()
        named += _params(source) if number.unit in ("", "params") else ()
    for one in named:
        bearable = most + (one.cost - source.assumes if number.few else 0)
        each = [one]
        if one.unit == "MACs":
            twice = one._replace(value=2 * one.value, total=2 * one.total, unit="FLOPs")
            each.append(twice._replace(doubled=True, cost=one.cost + (unit == "macs")))
        for found in each:
            if found.cost <= bearable:
                yield found
            free = found.unit == "bytes"  # a megabyte is either
            if number.thousands and not number.binary and found.cost + (not free) <= bearable:
                value = found.value * Fraction(1000, 1024) ** number.thousands
                yield found._replace(value=value).assuming(BINARY, int(not free))


# ---- The answer. ----

Certainty = Literal["explained", "could be", "consistent with"]


class Match(NamedTuple):
    """A way of counting that gives the number.

    Args:
        candidate: the count.
        verdict: how far the digits prove it.
        chance: the chance that as few assumptions give a random number of as many digits.
        truncated: whether digits were dropped instead of rounded.
    """

    candidate: Candidate
    verdict: Certainty
    chance: Fraction
    truncated: bool = False


@dataclass(frozen=True)
class Explanation:
    """The explanation of a number.

    Attributes:
        number: the number in question.
        unit: macs, flops, params or bytes, as it is called.
        macs: the MACs of the whole.
        answers: the matches, fewest assumptions first.
        nearest: the counters that come nearest, if nothing gives the number.
        elsewhere: counters that give it with one more assumption, such as another size, which its
            digits cannot prove.
    """

    number: PrintedNumber
    unit: str
    macs: int
    answers: list[Match]
    nearest: list[Candidate] = field(default_factory=list)
    elsewhere: list[Candidate] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The unit for people."""
        return UNITS[self.unit][0] if self.unit in UNITS else self.unit


def find_explanation(
    number: PrintedNumber,
    sources: Sequence[Source],
    unit: Unit = "macs",
    more: Iterable[Source] = (),
) -> Explanation:
    """Find the counters that give a number.

    Args:
        number: the number in print; a missing power of 1000 is added.
        sources: things that may have been counted, the whole first.
        unit: macs or flops, unless the number has a unit of its own; FLOPs may be 2 per MAC.
        more: sources that are an assumption; read only if every match is "could be".
    """
    called = number.unit or unit
    number = number.near(_macs(sources[0])) if called in UNITS else number
    most = number.most_assumptions
    found = [one for source in sources for one in _candidates(source, number, called, most)]
    answers = _answers(number, found)
    elsewhere: list[Candidate] = []
    if all(answer.verdict == "could be" for answer in answers):
        others = list(more)
        found += [one for each in others for one in _candidates(each, number, called, most)]
        answers = _answers(number, found)
        if not answers:
            assumed = [
                one for each in (*sources, *others)
                for one in _candidates(each, number, called, most + 1)
            ]  # fmt: skip
            elsewhere = list(_printed_so(number, assumed))
    named = [one for one in found if not one.cost and (one.by != PARAMETERS or called == "params")]
    nearest = sorted(named, key=lambda one: abs(one.value - number.value))[:3]
    return Explanation(
        number, called, _macs(sources[0]), answers, [] if answers else nearest, elsewhere
    )


def chance(number: PrintedNumber, candidates: Iterable[Candidate], cost: int) -> Fraction:
    """The chance that at most ``cost`` assumptions give a random number of as many digits.

    It is the total width of the candidates within 3%, each as wide as the last digit, over the 6%
    that they lie in.
    """
    near = Fraction(3, 100) * number.value
    spreads = {
        one.value: one.spread
        for one in candidates
        if one.cost <= cost and abs(one.value - number.value) <= near
    }
    wide = 2 * sum(spreads.values()) + len(spreads) * max(number.step, Fraction(1))
    return min(Fraction(1), wide / (2 * near))


def _printed_so(number: PrintedNumber, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Candidates that are printed like the number; of those alike the ones that assume least."""
    fitting: dict[tuple[str, str, Fraction], Candidate] = {}
    for one in sorted(candidates, key=lambda one: len(one.assumptions)):
        rounded = one.fits(number)
        if rounded or (number.few and one.published and number.truncates(one.value)):
            fitting.setdefault((one.by, one.of, one.value), one)
    exact = {key: one for key, one in fitting.items() if number.value == one.value}
    simplest: dict[int | str, int] = {}
    for one in (exact or fitting).values():
        cost = len(one.besides) + one.doubled
        if cost <= min(simplest.setdefault(key, cost) for key in (one.total, one.by)):
            yield one


def _answers(number: PrintedNumber, candidates: Sequence[Candidate]) -> list[Match]:
    answers: list[Match] = []
    for one in _printed_so(number, candidates):
        odds = chance(number, candidates, one.cost)
        verdict: Certainty = "explained" if odds < Fraction(1, 100) else "could be"
        if number.few or (odds >= Fraction(1, 10) and not (one.besides or one.doubled)):
            verdict = "consistent with"
        elif odds >= Fraction(1, 10):
            continue
        answers.append(Match(one, verdict, odds, not one.fits(number)))
    return answers
