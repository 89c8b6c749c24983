"""What a report says in words, and how it writes its numbers."""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from math import prod

from dscalc import show
from dscalc.core.blocks import Block
from dscalc.core.conv import Conv
from dscalc.core.row import Row
from dscalc.errors import DscalcError

SAME, DIFFERENT, PENDING = "✓", "✗", "…"
MARKS = {"exact": f" {SAME}", "mismatch": f" {DIFFERENT}", "not proved": "", "skipped": ""}
_MEANINGS = {
    "exact": f"{SAME} fvcore and torch count exactly this on the real modules",
    "mismatch": f"{DIFFERENT} fvcore or torch count something else on the real modules",
}
_LETTERS = "KMGTP"  # of the powers of 1000
EIGHTHS = ("", *"▏▎▍▌▋▊▉")  # of a block, in a bar
SHORT_UNIT = {"macs": "1 MAC = 2 FLOPs", "flops": "2 FLOPs = 1 MAC"}
_UNIT = {
    "macs": "1 MAC = 1 multiply-accumulate = 2 FLOPs",
    "flops": "2 FLOPs = 1 multiply-accumulate (MAC, which fvcore calls a flop)",
}
_TOGETHER = [
    re.compile(r"\d (?:[KMGTP]B?|kB)\b"),
    re.compile("|".join(SHORT_UNIT.values())),
]
UNIT_SENTENCE = {unit: f"{what}; adding a bias is not counted" for unit, what in _UNIT.items()}


def wrapped(sentence: str, width: int, *, cut: bool = False) -> list[str]:
    """The lines of a sentence, broken neither within a number nor before its letter or unit.

    A word that is longer than the width is broken if ``cut``.
    """
    for words in _TOGETHER:
        sentence = words.sub(lambda found: found[0].replace(" ", "\u00a0"), sentence)
    lines = textwrap.wrap(sentence, width, break_long_words=cut, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]


def crosschecked(rows: Iterable[Row]) -> list[str]:
    """What the marks mean."""
    checks = {row.crosscheck for row in rows}
    return [meaning for check, meaning in _MEANINGS.items() if check in checks]


def ratio_in_full(row: Row, conv: Conv, block: Block) -> str:
    """The ratio of MACs: its closed form, where that is true, then exactly and as a decimal."""
    ratio = row.mac_ratio
    assert ratio is not None
    form = block.closed_form(conv)
    forms = [*form[:2]] if form and form[2] == ratio else []
    # A number that is written alike twice is written once.
    return " = ".join(dict.fromkeys([*forms, str(ratio), f"{float(ratio):.6g}"]))


def layer_saving(row: Row, conv: Conv, block: Block, label: str) -> str:
    """The sentence of one layer: what its block saves, and which step costs most of that."""
    assert row.mac_ratio is not None
    assert row.param_ratio is not None
    if block.name == "separable" and prod(conv.kernel_size) == 1:
        return (
            f"a 1x1 convolution is already pointwise, so a depthwise step only adds to it: "
            f"{factor(row.mac_ratio)} the {label}"
        )
    if block.name == "separable" and conv.in_channels == 1 and row.mac_ratio > 1:
        spatial = show.for_who_asks("--as spatial", "block='spatial'")
        return (
            f"with one input channel, depthwise is the convolution itself: {factor(row.mac_ratio)} "
            f"the {label} in all; {spatial} is Fx1, then 1xF"
        )
    sentence = saving(row.mac_ratio, row.param_ratio, label, block.name)
    steps = row.replacement.steps
    if len(steps) > 1 and row.mac_ratio < 1:
        most = max(steps, key=lambda step: step.cost.macs)
        share = Fraction(most.cost.macs, row.replacement.cost.macs)
        sentence += f"; {percent(share)} of {block.name} is {most.name}"
    return sentence


def layer_options(row: Row, conv: Conv, block: Block, unit: str) -> list[str]:
    """What pages often take for granted, and which option or command answers as they do."""
    convs = [
        [step.layer for step in side.steps if isinstance(step.layer, Conv)]
        for side in (row.as_is, row.replacement)
    ]
    biased = any(conv.bias for side in convs for conv in side)
    options = []
    if unpadded := _unpadded(conv):
        valid = show.for_who_asks("-p valid", "padding='valid'")
        options.append(f"{valid} gives {show.times(unpadded)}")
    if not biased:
        standard, rewritten = (sum(conv.out_channels for conv in side) for side in convs)
        bias = show.for_who_asks("--bias", "bias=True")
        options.append(
            f"{bias} adds {standard:,} {show.plural('param', standard)} to standard, "
            f"{rewritten:,} to {block.name}"
        )
    return [*(["; ".join(options)] if options else []), layer_convention(unit, biased=biased)]


def layer_convention(unit: str, *, biased: bool) -> str:
    """What a MAC is, then what to know of biases, or else where other layers are answered."""
    return UNIT_SENTENCE[unit] if biased else f"{_UNIT[unit]}; other or more layers: dscalc network"


def _unpadded(conv: Conv) -> tuple[int, ...] | None:
    """The output size without the padding that nobody asked for, if it is another one."""
    if conv.padding != "same":
        return None
    try:
        size = replace(conv, padding="valid").output_size
    except DscalcError:
        return None
    return size if size != conv.output_size else None


def saving(macs: Fraction, params: Fraction, label: str, what: str) -> str:
    """The sentence that people quote, from the ratios of ``what`` to the other."""
    if macs > 1:
        return (
            f"{what} costs MORE here: {factor(macs)} the {label}; it saves only if that is below 1"
        )
    if macs == 1:
        return f"{what} has the same {label} here"
    if params == macs:
        return f"{factor(1 / macs)} fewer {label} and params"
    if params > 1:
        return f"{factor(1 / macs)} fewer {label}, but {factor(params)} the params"
    return f"{factor(1 / macs)} fewer {label}, {factor(1 / params)} fewer params"


def scaled(number: int) -> str:
    """Three digits and a letter for a power of 1000: 1.81 G; a number below 10,000 as it is."""
    if number < 10_000:
        return f"{number:,}"
    power = 1
    while number >= 999.5 * 1000**power and power < len(_LETTERS):
        power += 1
    value = Fraction(number, 1000**power)
    digits = 2 if 1000 * value < 9_995 else 1 if 100 * value < 9_995 else 0
    shown = f"{float(value):.{digits}f}" if digits else f"{round(value):,}"
    return f"{shown} {_LETTERS[power - 1]}"


def in_bytes(number: int) -> str:
    """Bytes in three digits: 46.8 MB, 98.6 kB; below 10,000 as they are: 4,096 B."""
    shown = scaled(number)
    return f"{shown.replace('K', 'k')}{'' if shown[-1].isalpha() else ' '}B"


def full(number: int, noun: str = "") -> str:
    """A count in full, and in three digits where it is long: 1,814,073,344 MACs (1.81 G)."""
    words = f"{number:,} {noun}".rstrip()
    return f"{words} ({scaled(number)})" if 10_000 <= number < 10**18 else words


def share(part: Fraction | None) -> str:
    """A share with one decimal: 0%, <0.1%, 12.7%, 100%, 111.1%."""
    if part is None or part == 0:
        return "" if part is None else "0%"
    if part < Fraction(5, 10_000):
        return "<0.1%"
    return "100%" if abs(part - 1) <= Fraction(5, 10_000) else f"{float(part * 100):,.1f}%"


def times_fewer(ratio: Fraction) -> str:
    """A ratio in words: 8.13x fewer, 8.56x as many, the same."""
    if ratio == 1 or not ratio:
        return "the same" if ratio else "none"
    return f"{factor(1 / ratio)} fewer" if ratio < 1 else f"{factor(ratio)} as many"


def short(value: Fraction | float) -> str:
    """Three significant digits, and no exponent."""
    return f"{float(value):.3g}" if value < 999.5 else f"{float(value):,.0f}"


def percent(ratio: Fraction) -> str:
    """A share above 0, to four significant digits: 12.67%, 0.01234%, 1,234%."""
    value = float(ratio * 100)
    if value < 0.0001:
        return f"{value:.2e}%"
    return f"{value:,.0f}%" if value >= 1000 else f"{value:.4g}%"


def percent_in_column(ratio: Fraction | None, *, signed: bool = False) -> str:
    """A share with two decimals, so that the decimal points of a column stand in line."""
    if ratio is None:
        return ""
    if 0 < abs(ratio) < Fraction(1, 10_000):
        return "<0.01%" if ratio > 0 else ">-0.01%"
    return f"{float(ratio * 100):{'+' if signed and ratio else ''},.2f}%"


def factor(ratio: Fraction | None) -> str:
    """Times as many: 7.89x, 123x."""
    if ratio is None:
        return ""
    if ratio >= 100:
        return f"{float(ratio):,.0f}x"
    near_one = ratio != 1 and abs(ratio - 1) < Fraction(5, 1000)  # which two digits would hide
    return f"{float(ratio):.6g}x" if near_one else f"{float(ratio):.2f}x"


def bar(ratio: Fraction | None) -> str:
    """A share as a bar of ten blocks, full at 1 and beyond."""
    full, eighths = divmod(min(80, max(1, round(ratio * 80))) if ratio else 0, 8)
    return f"{'█' * full}{EIGHTHS[eighths]}".ljust(10)
