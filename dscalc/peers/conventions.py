"""Numbers of other counters: the way of counting that gives them.

A counter is an entry of one table: the sum of quantities that it prints, derived from its source
and compared with its own totals (docs/counting.md). If no counter gives a number, combinations of a
few free conventions are tried, never more than its digits can prove.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, product
from typing import Any, Literal, NamedTuple

from dscalc import parse, show
from dscalc.core.fields import Unit
from dscalc.errors import DscalcError
from dscalc.peers.quantities import NORMS, Quantities

# ---- Counters. ----

Summand = tuple[str, int]  # words and count


class Term(NamedTuple):
    """A summand in words, and its quantities, each with a factor."""

    words: str
    parts: tuple[tuple[int, str], ...]

    def value(self, quantities: Quantities) -> int:
        """The sum of the quantities.

        Raises:
            KeyError: one of the quantities is not known.
        """
        return sum(factor * quantities[name] for factor, name in self.parts)


class Convention(NamedTuple):
    """One way to count.

    Args:
        name: the counter, with the version that was measured.
        products: its summands that are MACs.
        besides: its other summands.
        per_mac: its count per MAC.
        unless: if a model has any of these quantities, this counter is not predicted.
        superseded: whether later versions count differently, so that this version is an assumption.
        source: the file that counts so.
    """

    name: str
    products: tuple[Term, ...]
    besides: tuple[Term, ...] = ()
    per_mac: int = 1
    unless: tuple[str, ...] = ()
    superseded: bool = False
    source: str = ""

    def summands(self, quantities: Quantities) -> list[Summand] | None:
        """The summands that are not 0; None if the counter is not predicted."""
        try:
            if any(quantities[name] for name in self.unless):
                return None
            found = [(term.words, self.per_mac * term.value(quantities)) for term in self.products]
            found += [(term.words, term.value(quantities)) for term in self.besides]
        except KeyError:
            return None
        return [(what, value) for what, value in found if value]


_ALIASES = {
    "ANY": "module|subclass",
    "CALLS": "torch|tensor|sign",
    "NORMS": "|".join(NORMS),
    "POOLS": "max_pool|avg_pool|adaptive_avg_pool|adaptive_max_pool",
}


def _term(what: str, *parts: str) -> Term:
    """A term from parts such as ``"4 module.batch_norm|layer_norm.affine"``; a bar adds up both."""
    found = []
    for part in parts:
        factor, _, name = part.rpartition(" ")
        each = [_ALIASES.get(step, step).split("|") for step in name.split(".")]
        found += [(int(factor or 1), ".".join(steps)) for steps in product(*each)]
    return Term(what, tuple(found))


def _norms(what: str, seen_by: str, affine: int, plain: int) -> Term:
    return _term(what, f"{affine} {seen_by}.affine", f"{plain} {seen_by}.plain")


_CONV = _term("convolutions", "conv")
_TRANSPOSED = _term("transposed convolutions", "transposed")
_BY_OUTPUT = "transposed convolutions at output positions"
_LINEAR = _term("linear layers", "linear")
_MATRICES = _term("matrix products", "matmul")
_ATTENTION = _term("attention", "attention")
_RECURRENT = _term("recurrent layers", "recurrent", "bilinear")
_VECTORS = _term("products with vectors", "vector")
_SEEN_APART = (_CONV, _TRANSPOSED, _LINEAR, _MATRICES)  # a fused attention is not seen
_WITHOUT_SIGNS = (
    *_SEEN_APART[:3],
    _term("matrix products", "torch|tensor.matmul"),  # without a @ b
)
_KNOWN_TO_OTHERS = (*_SEEN_APART, _ATTENTION, _RECURRENT)
_MODULES_BY_OUTPUT = (
    _term("convolutions", "module.conv"),
    _term(_BY_OUTPUT, "module.transposed.by_output"),
    _term("linear layers", "module.linear"),
)
_SOFTMAX = "softmax (3 per element - 1 per row)"
_UPSAMPLING_11 = _term("bilinear upsampling (11 per output)", "11 module.upsample.bilinear.out")
_OLD_POOLS = _term("average pools", "module.avg_pool.out", "module.adaptive_avg_pool.mean_window")

MACS = Convention("MACs alone", (*_KNOWN_TO_OTHERS, _VECTORS))
PARAMETERS = "params, not MACs"
OLDER = "an older version"
TABLE = (
    Convention(
        "fvcore 0.1.5",
        (_term("convolutions", "conv", "-1 conv.string_padding"), *_SEEN_APART[1:]),
        (
            _norms("batch norm (2 per element)", "F.batch_norm", 2, 1),
            _norms("other norms (5 per element)", "F.layer_norm|group_norm|instance_norm", 5, 4),
            _term("adaptive average pools (1 per input)", "F.adaptive_avg_pool.in"),
            _term("bilinear upsampling (4 per output)", "4 F.upsample.bilinear.out"),
            _term("nearest upsampling (1 per output)", "F.upsample.nearest.out"),
        ),
        source="facebookresearch/fvcore, fvcore/nn/jit_handles.py",
    ),
    Convention(
        "ultralytics-thop 2.2.3",
        (
            _term("convolutions", "ANY.conv"),
            _term("transposed convolutions", "ANY.transposed"),
            *_KNOWN_TO_OTHERS[2:5],
        ),
        (
            _norms("norms (4 per element)", "ANY.NORMS", 4, 2),
            _term("average pools (windows and outputs)",
                  "ANY.avg_pool|adaptive_avg_pool.windows|out"),
            _term(_SOFTMAX, "3 ANY.softmax", "-1 ANY.softmax.rows",
                  "3 ANY.mha.softmax", "-1 ANY.mha.softmax.rows"),
            _term("PReLU (1 per element)", "ANY.prelu"),
            _term(_UPSAMPLING_11.words, "11 ANY.upsample.bilinear.out"),
        ),
        unless=("recurrent", "bilinear"),
        source="ultralytics/thop, thop/vision/basic_hooks.py",
    ),
    Convention(
        "thop 0.1.1",
        _MODULES_BY_OUTPUT,
        (
            _norms("norms (4 per element)", "module.batch_norm|layer_norm|instance_norm", 4, 2),
            _OLD_POOLS,
            _term(_SOFTMAX, "3 module.softmax", "-1 module.softmax.rows"),
            _term("PReLU (1 per element)", "module.prelu"),
            _UPSAMPLING_11,
        ),
        unless=("recurrent",),
        source="Lyken17/pytorch-OpCounter, thop/vision/basic_hooks.py",
    ),
    Convention(
        "thop 0.0.31",
        _MODULES_BY_OUTPUT,
        (
            _term("biases of convolutions (1 per output)", "module.conv|transposed.bias"),
            _norms("batch norm (2 per element)", "module.batch_norm", 2, 2),
            _OLD_POOLS,
            _term("leaky ReLU (1 per element)", "module.leaky_relu"),
            _UPSAMPLING_11,
        ),
        unless=("recurrent",),
        superseded=True,
        source="Lyken17/pytorch-OpCounter, thop/vision/basic_hooks.py",
    ),
    Convention(
        "ptflops 0.7.5",
        (
            _term("convolutions", "module.conv"),
            _term("transposed convolutions", "module.transposed"),
            _term("linear layers", "module.linear", "module.mha.projections"),
            _term("matrix products", "torch|tensor.matmul"),
            _term("attention", "module.mha.products"),
        ),
        (
            _term("biases (1 per output)", "module.conv|transposed|linear.bias"),
            _term("norms (2 per element, layer norm 1)",
                  "2 module.batch_norm|instance_norm|group_norm.affine",
                  "module.batch_norm|instance_norm|group_norm.plain",
                  "module.layer_norm.affine|plain"),
            _term("activations (1 for the module, 1 for the function)",
                  "module.relu|prelu|elu|leaky_relu|relu6|gelu",
                  "F.relu|elu|relu6|gelu|silu", "F|torch.prelu"),
            _term("pools (1 per input for the module, 1 for the function)", "module|F.POOLS.in"),
            _term("softmax (1 per element)", "F.softmax", "module.mha.softmax"),
            _term("upsampling (1 per output for the module, 1 for the function)",
                  "module|F.upsample.nearest|bilinear.out"),
            _term("scaling and biases of attention", "5 module.mha.tokens"),
            _term("calls of add and mul (1 per output)", "torch|tensor.add|mul"),
        ),
        unless=("recurrent", "timm.attention"),
        source="sovrasov/flops-counter.pytorch, ptflops/pytorch_ops.py",
    ),
    Convention(
        "ptflops 0.6.9",
        (
            _term("convolutions", "module.conv"),
            _term(_BY_OUTPUT, "module.transposed.by_output"),
            _term("linear layers", "module.linear", "module.mha.projections"),
            _term("attention", "module.mha.products"),
        ),
        (
            _term("biases (1 per output, of linear layers once)",
                  "module.conv|transposed.bias", "module.linear.bias.once"),
            _term("norms (2 per element)",
                  "2 module.batch_norm|instance_norm|group_norm.affine",
                  "module.batch_norm|instance_norm|group_norm.plain"),
            _term("activations (1 per element)",
                  "module.relu|prelu|elu|leaky_relu|relu6|gelu"),
            _term("pools (1 per input)", "module.POOLS.in"),
            _term("softmax of attention (1 per element)", "module.mha.softmax"),
            _term("upsampling (1 per output)", "module.upsample.nearest|bilinear.out"),
            _term("scaling and biases of attention", "5 module.mha.tokens"),
        ),
        unless=("recurrent",),
        superseded=True,
        source="sovrasov/flops-counter.pytorch, ptflops/pytorch_ops.py",
    ),
    Convention(
        "ptflops 0.7.5 (aten)",
        _SEEN_APART,
        (_term("biases (1 per output)", "conv|transposed.bias", "linear.bias.addmm"),),
        unless=("recurrent", "bilinear"),
        source="sovrasov/flops-counter.pytorch, ptflops/aten_ops.py",
    ),
    Convention(
        "torchinfo 1.8.0",
        (_term("convolutions", "parameters.conv.weight"),),
        (
            _term("biases of convolutions (1 per output)", "parameters.conv.bias"),
            _term("weights and biases of other modules, once", "parameters.others"),
        ),
        source="TylerYep/torchinfo, torchinfo/layer_info.py",
    ),
    Convention(
        "calflops 0.3.2",
        _WITHOUT_SIGNS,
        unless=("recurrent", "conv.string_padding", "subclass.conv", "transposed.grouped"),
        source="MrYxJ/calculate-flops.pytorch, calflops/pytorch_ops.py",
    ),
    Convention(
        "calflops 0.3.2 (FLOPs)",
        _WITHOUT_SIGNS,
        (
            _term("biases of convolutions", "conv.bias"),
            _norms("batch norm (2 per element)", "F.batch_norm", 2, 1),
            _norms("other norms (5 per element)", "F.layer_norm|group_norm|instance_norm", 5, 4),
            _term("activations (1 per element)", "F.relu|gelu|silu|prelu|leaky_relu|relu6|elu"),
            _term("pools (1 per input)", "F.POOLS.in"),
            _term("softmax (1 per element)", "F.softmax"),
            _term("upsampling (1 per input)", "F.upsample.nearest|bilinear.in"),
        ),
        per_mac=2,
        unless=("recurrent", "conv.string_padding", "subclass.conv", "transposed.grouped",
                "transposed.bias"),
        source="MrYxJ/calculate-flops.pytorch, calflops/pytorch_ops.py",
    ),
    Convention(
        "torchprofile 0.1.0",
        (
            _term("convolutions", "conv", "-1 conv.string_padding"),
            _term(_BY_OUTPUT, "transposed.by_output"),
            *_KNOWN_TO_OTHERS[2:],
        ),
        (
            _term("norms (1 per element)",
                  "F.batch_norm|instance_norm|layer_norm|group_norm.affine"),
            _term("average pools and means (1 per output)",
                  "F.avg_pool|adaptive_avg_pool.out", "CALLS.mean.out"),
            _term("multiplications (1 per output)", "CALLS.mul"),
            _term("leaky ReLU (1 per element)", "F.leaky_relu"),
            _term("bilinear upsampling (4 per output)", "4 F.upsample.bilinear.out"),
        ),
        # It adds 1 for each product of sizes in such models, which dscalc does not see.
        unless=("bilinear", "transposed.grouped", "attention", "matmul"),
        source="zhijian-liu/torchprofile, torchprofile/handlers.py",
    ),
    Convention(
        "torchscan 0.2.0",
        (
            _term("convolutions", "ANY.conv"),
            _term(_BY_OUTPUT, "ANY.transposed.by_output", "8 ANY.transposed.calls"),
            _term("linear layers", "ANY.linear"),
        ),
        (
            _norms("batch norm (2 per element)", "module.batch_norm", 2, 1),
            _term("pools", "module.max_pool.sides", "-1 module.max_pool.out",
                  "module.avg_pool.sides|out", "module.adaptive_avg_pool.in|out"),
        ),
        unless=("recurrent",),
        source="frgfm/torch-scan, torchscan/modules/flops.py",
    ),
    Convention(
        "rethinking-network-pruning",
        (_term("convolutions", "leaf.conv"), _term("linear layers", "leaf.linear")),
        (
            _term("biases of convolutions (1 per output)", "leaf.conv.bias"),
            _term("biases of linear layers, once", "leaf.linear.bias.once"),
            _norms("batch norm (2 per element)", "leaf.batch_norm", 2, 2),
            _term("ReLU (1 per element)", "leaf.relu"),
            _term("pools (1 for each tap of an output)", "leaf.max_pool|avg_pool.taps"),
            _term("upsampling (12 per output)", "12 leaf.upsample.nearest|bilinear.out"),
        ),
        per_mac=2,
        unless=("leaf.linear.tokens",),
        source="Eric-mingjie/rethinking-network-pruning, imagenet/thinet/compute_flops.py",
    ),
    Convention(
        "FlopCounterMode", _KNOWN_TO_OTHERS, per_mac=2,
        source="pytorch/pytorch, torch/utils/flop_counter.py",
    ),
    Convention(
        "FlopCounterMode, CPU", _SEEN_APART, per_mac=2, unless=("bilinear",),
        source="pytorch/pytorch, torch/utils/flop_counter.py",
    ),
    Convention(
        "FlopCounterMode, CPU, no_grad",
        (
            *_SEEN_APART[:2],
            _term("linear layers", "linear", "-1 module.mha.projections"),
            _MATRICES,
        ),
        per_mac=2, unless=("bilinear",),
        source="pytorch/pytorch, torch/utils/flop_counter.py",
    ),
)  # fmt: skip

# ---- A number and its digits. ----


class PrintedNumber(NamedTuple):
    """A number in print.

    Args:
        text: the number as written.
        value: its value.
        step: the value of one unit in its last digit; 0 for a whole number, which is exact.
        digits: the number of digits, without zeros in front.
        thousands: the power of 1000 of its unit: 3 in 4.13G.
    """

    text: str
    value: Fraction
    step: Fraction
    digits: int
    thousands: int

    def fits(self, candidate: Fraction) -> bool:
        """Whether a candidate, rounded, is printed like this."""
        return abs(candidate - self.value) <= self.step / 2

    def truncates(self, candidate: Fraction) -> bool:
        """Whether a candidate, with later digits dropped, is printed like this."""
        return self.value <= candidate < self.value + self.step

    @property
    def few(self) -> bool:
        """Whether the digits are too few to prove anything; then all counters are listed."""
        return bool(self.step) and self.digits <= 3

    @property
    def most_conventions(self) -> int:
        """The most free conventions that the digits can prove."""
        if not self.step or self.digits >= 8:
            return 3
        return 2 if self.digits >= 5 else 1 if self.digits == 4 else 0


_UNITS = parse.THOUSANDS | {"B": 3}  # billions in papers


def read_number(text: str, name: str) -> PrintedNumber:
    """Read a number in print: 4133742592, 4,133,742,592, 4.13G, 8.2120e9.

    Raises:
        DscalcError: the text is not a number above 0, or has an unknown unit.
    """
    plain = text.strip().replace("_", "")
    if re.fullmatch(r"\d{1,3}(,\d{3})+", plain, re.ASCII):
        plain = plain.replace(",", "")
    written = r"([+-]?)(\d{0,99})(?:\.(\d{1,99}))?(?:[eE]\+?(\d{1,2}))?\s*([a-zA-Z%]*)"
    match = re.fullmatch(written, plain, re.ASCII)
    if not match or not (match[2] or match[3]):
        raise DscalcError(
            f"{name} must be a number such as 4133742592 or 4.13G, got {show.quoted(text)}"
        )
    sign, whole, decimals, exponent, unit = match.groups(default="")
    if unit.upper() not in _UNITS:
        raise DscalcError(
            f"{name} has an unknown unit {show.quoted(unit)}, got {show.quoted(text)}; choose from "
            "K M G B T P, and say --unit flops if the number is called FLOPs"
        )
    thousands = _UNITS[unit.upper()]
    scale = Fraction(1000**thousands * 10 ** int(exponent or 0), 10 ** len(decimals))
    value = int(whole + decimals) * scale
    if sign == "-" or not value:
        raise DscalcError(f"{name} must be greater than 0, got {show.quoted(text)}")
    exact = not (decimals or exponent or unit)
    digits = len((whole + decimals).lstrip("0"))
    return PrintedNumber(text.strip(), value, Fraction(0) if exact else scale, digits, thousands)


def _with_unit(number: PrintedNumber, macs: int) -> PrintedNumber:
    """The number with the unit that it lacks: 4.1 of a model with 4 G MACs is 4.1G.

    It must then be within 30% of the MACs, or of the FLOPs at 2 per MAC.
    """
    if not number.step or number.thousands or number.value >= 1000:
        return number
    for letter, power in list(_UNITS.items())[1:]:
        value = number.value * 1000**power
        if any(abs(value - count) <= Fraction(3, 10) * count for count in (macs, 2 * macs)):
            step = number.step * 1000**power
            return number._replace(
                text=f"{number.text}{letter}", value=value, step=step, thousands=power
            )
    return number


# ---- Candidates. ----


class Source(NamedTuple):
    """A thing that may have been counted: the whole, a part, or the whole at another input size.

    Args:
        what: the thing in words; "" for the whole.
        quantities: its quantities.
        params: its params, if the number may be these.
        conventions: how many conventions it costs.
    """

    what: str
    quantities: Quantities
    params: int = 0
    conventions: int = 0


class Candidate(NamedTuple):
    """A number that somebody may have printed, and how to get it.

    Args:
        value: the number in print.
        total: the count; it differs from ``value`` if 1024 stands for 1000.
        of: the thing that was counted; "" for the whole.
        summands: the summands of the count.
        by: the counter; "" if free conventions give the count.
        left_out: products that the counter does not see, or not all of them.
        conventions: the assumptions, in words.
        cost: the number of conventions, including those of the source.
        doubled: whether the sum is taken twice, at 2 FLOPs per MAC.
        per_mac: the counter's count per MAC.
        published: whether papers print the figure, and may cut it short.
    """

    value: Fraction
    total: int
    summands: tuple[Summand, ...]
    of: str = ""
    by: str = ""
    left_out: tuple[Summand, ...] = ()
    conventions: tuple[str, ...] = ()
    cost: int = 0
    doubled: bool = False
    per_mac: int = 1
    published: bool = False


class _Free(NamedTuple):
    """A free convention and the count that it adds to the MACs; at most one per group applies."""

    group: str
    words: str
    value: int


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
}
_ACTIVATION_NAMES = (
    "relu|relu6|gelu|silu|hardswish|hardsigmoid|sigmoid|leaky_relu|prelu|elu|tanh|mish|hardtanh"
)
_CLASSES = (1, 10, 100, 1000)


def _free(quantities: Quantities) -> list[_Free]:
    """The free conventions that change the count of these quantities."""

    def known(*parts: str) -> int:
        try:
            return _term("", *parts).value(quantities)
        except KeyError:
            return 0

    norms = known("F|torch.NORMS.affine|plain")
    name = "batch norm" if norms == known("F|torch.batch_norm.affine|plain") else "norms"
    up = known("F.upsample.bilinear.out")
    features, classes = known("head.features"), known("head.classes")
    found = [
        *(("norms", f"{name} ({each} per element)", each * norms) for each in (1, 2, 4, 5)),
        ("biases", "biases (1 per output)", known("conv|transposed|linear.bias")),
        ("biases", "biases of convolutions (1 per output)", known("conv|transposed.bias")),
        ("pools", "pools (1 per input)", known("F.POOLS.in", "CALLS.mean.in")),
        ("pools", "pools (1 per output)", known("F.POOLS.out", "CALLS.mean.out")),
        ("pools", "global pools (1 per input)", known("F.adaptive_avg_pool.in")),
        ("pools", "global pools (1 per output)", known("F.adaptive_avg_pool.out")),
        ("activations", "activations (1 per element)", known(f"F|CALLS.{_ACTIVATION_NAMES}")),
        ("activations", "ReLU (1 per element)", known("F|CALLS.relu|relu6|hardtanh")),
        ("softmax", "softmax (1 per element)", known("F|CALLS.softmax", "module.mha.softmax")),
        *(("upsampling", f"upsampling ({each} per output)", each * up) for each in (1, 4, 11)),
        ("additions", "additions (1 per output)", known("CALLS.add")),
        ("multiplications", "multiplications (1 per output)", known("CALLS.mul")),
        ("transposed", _BY_OUTPUT, known("transposed.by_output", "-1 transposed")),
        ("convolutions", "convolutions left out", -known("conv", "transposed")),
        ("convolutions", "1x1 convolutions left out", -known("conv.pointwise")),
        ("convolutions", "depthwise convolutions left out", -known("conv.depthwise")),
        ("linear", "linear layers left out", -known("linear")),
        *(
            ("linear", f"{each:,} class{'es' if each > 1 else ''}", features * (each - classes))
            for each in _CLASSES
        ),
        ("attention", "attention left out", -known("attention", "matmul")),
        ("attention", "attention and its projections left out",
         -known("module.mha.projections", "module.mha.products")),
    ]  # fmt: skip
    merged: dict[tuple[str, int], str] = {}  # of two with the same value, either may be meant
    for group, what, value in found:
        if value:
            said = merged.get((group, value))
            merged[group, value] = f"{said}, or {what}" if said else what
    return [_Free(group, what, value) for (group, value), what in merged.items()]


def _by_counters(source: Source, number: PrintedNumber) -> Iterator[Candidate]:
    """Candidates: the count of each counter, the figures of papers, and the params."""
    alone = MACS.summands(source.quantities) or []
    for entry in (MACS, *TABLE):
        summands = entry.summands(source.quantities)
        if summands is not None:
            theirs = dict(summands)
            lost = ((what, macs - theirs.get(what, 0) // entry.per_mac) for what, macs in alone)
            assumed = (OLDER,) if entry.superseded and not number.few else ()
            yield _make_candidate(
                source, summands, entry.name, len(assumed), conventions=assumed,
                per_mac=entry.per_mac, published=entry is MACS,
                left_out=tuple((what, macs) for what, macs in lost if macs > 0),
            )  # fmt: skip
    if variant := _VARIANTS.get(_macs(source)):
        by, different = variant
        yield _make_candidate(source, [*alone, different], by, published=True)
    if source.params:
        yield _make_candidate(source, [("params", source.params)], PARAMETERS)


def _make_candidate(
    source: Source, summands: Sequence[Summand], by: str, cost: int = 0, **more: Any
) -> Candidate:
    count = sum(value for _, value in summands)
    cost += source.conventions
    return Candidate(Fraction(count), count, tuple(summands), source.what, by, cost=cost, **more)


def _macs(source: Source) -> int:
    return sum(value for _, value in MACS.summands(source.quantities) or ())


def _mixtures(source: Source, most: int) -> Iterator[Candidate]:
    """Candidates: the MACs with free conventions, at most ``most`` with those of the source."""
    alone, free = MACS.summands(source.quantities) or [], _free(source.quantities)
    for number in range(1, most - source.conventions + 1):
        for chosen in combinations(free, number):
            if len({one.group for one in chosen}) == number:
                summands = [*alone, *((one.words, one.value) for one in chosen)]
                found = _make_candidate(source, summands, "", number)
                if found.total > 0:
                    yield found._replace(conventions=tuple(one.words for one in chosen))


def _candidates(
    source: Source, number: PrintedNumber, unit: Unit, most: int
) -> Iterator[Candidate]:
    """All candidates of a source that cost at most ``most`` conventions."""
    for found in (*_by_counters(source, number), *_mixtures(source, most)):
        each = [found]
        if found.per_mac == 1 and found.by != PARAMETERS:
            cost = found.cost + (unit == "macs")
            value, total = 2 * found.value, 2 * found.total
            each.append(found._replace(value=value, total=total, doubled=True, cost=cost))
        for one in each:
            if one.cost <= most:
                yield one
            if number.thousands and one.cost < most:
                value = one.value * Fraction(1000, 1024) ** number.thousands
                said = (*one.conventions, "1024 for 1000")
                yield one._replace(value=value, conventions=said, cost=one.cost + 1)


# ---- The answer. ----

Certainty = Literal["explained", "could be", "consistent with"]


class Match(NamedTuple):
    """A way of counting that gives the number.

    Args:
        candidate: the count.
        verdict: how far the digits prove it.
        chance: the chance that as few conventions give a random number of as many digits.
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
        unit: macs or flops, as it is called.
        macs: the MACs of the whole.
        answers: the matches, fewest conventions first, and among equals counters first.
        nearest: the counters that come nearest, if nothing gives the number.
        elsewhere: counters that give it with one more assumption, such as another size, which its
            digits cannot prove.
    """

    number: PrintedNumber
    unit: Unit
    macs: int
    answers: list[Match]
    nearest: list[Candidate] = field(default_factory=list)
    elsewhere: list[Candidate] = field(default_factory=list)


def find_explanation(
    number: PrintedNumber,
    sources: Sequence[Source],
    unit: Unit = "macs",
    more: Iterable[Source] = (),
) -> Explanation:
    """Find the ways of counting that give a number.

    Args:
        number: the number in print; a missing unit is added.
        sources: things that may have been counted, the whole first.
        unit: macs or flops, as the number is called; FLOPs may be 2 per MAC.
        more: sources that cost a convention; read only if every match is "could be".
    """
    number = _with_unit(number, _macs(sources[0]))
    most = number.most_conventions
    found = [one for source in sources for one in _candidates(source, number, unit, most)]
    answers = _answers(number, found)
    elsewhere: list[Candidate] = []
    if not any(answer.verdict != "could be" for answer in answers):
        others = list(more)
        found += [one for each in others for one in _candidates(each, number, unit, most)]
        answers = _answers(number, found)
        if not answers:
            assumed = [
                one for each in (*sources, *others) for one in _candidates(each, number, unit, 1)
            ]
            elsewhere = [one for one in assumed if one.by and number.fits(one.value)]
    counters = {entry.name for entry in TABLE}
    named = [one for one in found if one.cost == 0 and one.by in counters]
    nearest = sorted(named, key=lambda one: abs(one.value - number.value))[:3]
    return Explanation(
        number, unit, _macs(sources[0]), answers, [] if answers else nearest, elsewhere
    )


def chance(number: PrintedNumber, candidates: Iterable[Candidate], cost: int) -> Fraction:
    """The chance that at most ``cost`` conventions give a random number of as many digits.

    It is the total width of the candidates within 3%, each as wide as the last digit, over the 6%
    that they lie in.
    """
    near = Fraction(3, 100) * number.value
    values = {
        one.value
        for one in candidates
        if one.cost <= cost and abs(one.value - number.value) <= near
    }
    return min(Fraction(1), len(values) * max(number.step, Fraction(1)) / (2 * near))


def _answers(number: PrintedNumber, candidates: Sequence[Candidate]) -> list[Match]:
    fitting: list[tuple[Candidate, bool]] = []
    for one in candidates:
        rounded = number.fits(one.value)
        if rounded or (number.few and one.published and number.truncates(one.value)):
            fitting.append((one, not rounded))
    fitting.sort(key=lambda each: (each[0].cost, not each[0].by))
    answers: list[Match] = []
    simplest: dict[int, tuple[int, str]] = {}  # the fewest conventions for each total
    for one, truncated in fitting:
        least, by = simplest.setdefault(one.total, (one.cost, one.by))
        if one.cost > least or (by and not one.by):
            continue
        odds = chance(number, candidates, one.cost)
        verdict: Certainty = "explained" if odds < Fraction(1, 100) else "could be"
        if number.few or (not one.cost and odds >= Fraction(1, 10)):
            verdict = "consistent with"
        elif odds >= Fraction(1, 10):
            continue
        answers.append(Match(one, verdict, odds, truncated))
    return answers
