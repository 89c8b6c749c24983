"""Ways to build a layer: each block by name, and why a layer is not rewritten as one.

A block maps the same input to the same output shape as one standard convolution, so that it may
stand in its place. The step that filters carries stride, padding and dilation; 1x1 steps before it
run on the input map, those after it on the map that it leaves. A new block is a function and its
entry in `BLOCKS`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import prod
from typing import NamedTuple

from dscalc import words
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.errors import DscalcError

Steps = Mapping[str, Conv]
Form = tuple[str, Fraction]


def standard(conv: Conv) -> Steps:
    """The convolution itself."""
    return {"standard": conv}


def separable(conv: Conv, m: int) -> Steps:
    """Depthwise FxF, IC -> m*IC; pointwise 1x1 -> OC.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.1; Chollet, Xception,
    2017 (arXiv 1610.02357).
    """
    wide = m * conv.in_channels
    return {
        "depthwise": _filtering(conv, conv.in_channels, wide, groups=conv.in_channels),
        "pointwise": _mixing(conv, wide, conv.out_channels, conv.output_size),
    }


def separable_form(conv: Conv, m: int) -> Form:
    """It tends to m/F^2 once OC is much larger than F^2, and is over 1 where OC or F is 1.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.1.
    """
    value = m * (Fraction(1, conv.out_channels) + Fraction(1, prod(conv.kernel_size)))
    return "1/OC + 1/F^2" if m == 1 else "m * (1/OC + 1/F^2)", value


def separable_limit(conv: Conv, m: int) -> Form:
    """The ratio for many output channels."""
    return f"{m}/F^2", Fraction(m, prod(conv.kernel_size))


def _filtering(conv: Conv, in_channels: int, out_channels: int, groups: int) -> Conv:
    """The step that filters the map as the standard convolution does."""
    return conv.like(in_channels=in_channels, out_channels=out_channels, groups=groups)


def _mixing(conv: Conv, in_channels: int, out_channels: int, size: tuple[int, ...]) -> Conv:
    """A 1x1 convolution on a map of that size."""
    ones = (1,) * len(size)
    return conv.like(
        in_channels=in_channels, out_channels=out_channels, kernel_size=ones, input_size=size,
        stride=ones, padding="same", dilation=ones, groups=1, output_size=size,
    )  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A number that a block takes after a colon: M of ``separable:M``."""

    symbol: str
    default: int
    meaning: str


@dataclass(frozen=True)
class Kind:
    """How a block is built: its steps and the numbers it takes.

    ``form`` is the closed form of its ratio to an ungrouped convolution, ``limit`` what that tends
    to for many output channels; each in symbols and its value.
    """

    build: Callable[..., Steps]
    steps: tuple[str, ...]
    numbers: tuple[Number, ...] = ()
    form: Callable[..., Form] | None = None
    limit: Callable[..., Form] | None = None


BLOCKS = {
    "standard": Kind(standard, ("standard",)),
    "separable": Kind(
        separable,
        ("depthwise", "pointwise"),
        (Number("m", 1, "depth multiplier"),),
        separable_form,
        separable_limit,
    ),
}


@dataclass(frozen=True)
class Norm:
    """A normalisation: a scale and a shift per channel, and no MACs."""

    channels: int

    @property
    def cost(self) -> Cost:
        """What it costs, by formula."""
        return Cost(0, 2 * self.channels)


class Step(NamedTuple):
    """One named part of a block, and its cost by formula."""

    name: str
    layer: Conv | Norm | None  # None in a total
    cost: Cost


@dataclass(frozen=True)
class Block:
    """A block with its numbers, such as ``separable:2``; `steps` applies it to a convolution.

    ``biases`` say which steps have biases, by name, where that differs from the convolution.
    """

    name: str
    numbers: tuple[int, ...] = ()
    biases: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def parse(cls, text: str, option: str = "--as") -> "Block":
        """Read ``NAME`` or ``NAME:NUMBER``.

        Raises:
            DscalcError: there is no such block, or a number is none that it takes.
        """
        name, *given = text.strip().split(":")
        if name not in BLOCKS:
            near = get_close_matches(name, BLOCKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(BLOCKS)}"
            raise DscalcError(f"{option}: unknown block {words.shown(name)}; {hint}")
        numbers = BLOCKS[name].numbers
        if len(given) > len(numbers):
            takes = ":".join([name, *(number.symbol.upper() for number in numbers)])
            raise DscalcError(f"{option}: the block is {takes}, got {words.shown(text)}")
        read = [
            words.whole(value, number.meaning)
            for value, number in zip(given, numbers, strict=False)
        ]
        return cls(name, (*read, *(number.default for number in numbers[len(read) :])))

    @property
    def kind(self) -> Kind:
        """How it is built."""
        return BLOCKS[self.name]

    @property
    def step_names(self) -> tuple[str, ...]:
        """Its steps in order; none where the block is one step, which then has its name."""
        return self.kind.steps if len(self.kind.steps) > 1 else ()

    def steps(self, conv: Conv) -> tuple[Step, ...]:
        """What stands in place of a convolution, with the cost of each step.

        Raises:
            DscalcError: the block does not exist for this convolution.
        """
        layers = self.kind.build(conv, *self.numbers)
        if self.biases:
            chosen = dict(self.biases)
            layers = {
                name: layer.like(bias=chosen.get(name, layer.bias))
                for name, layer in layers.items()
            }
        return tuple([Step(name, layer, layer.cost) for name, layer in layers.items()])

    def closed_form(self, conv: Conv) -> tuple[str, str, Fraction] | None:
        """The ratio of MACs to the standard convolution, in symbols, in numbers, and its value.

        True where that convolution is ungrouped.
        """
        if self.kind.form is None:
            return None
        symbols, value = self.kind.form(conv, *self.numbers)
        symbols = symbols.replace("F^2", taps_symbol(conv.kernel_size))
        known = {
            "IC": conv.in_channels,
            "OC": conv.out_channels,
            taps_symbol(conv.kernel_size): prod(conv.kernel_size),
        }
        known |= {n.symbol: m for n, m in zip(self.kind.numbers, self.numbers, strict=True)}
        spelled = re.compile("|".join(rf"(?<!\w){re.escape(symbol)}(?!\w)" for symbol in known))
        return symbols, spelled.sub(lambda match: str(known[match[0]]), symbols), value

    def limit(self, conv: Conv) -> Form | None:
        """What the ratio of MACs tends to for many output channels, in symbols, and its value."""
        if self.kind.limit is None:
            return None
        symbols, value = self.kind.limit(conv, *self.numbers)
        return symbols.replace("F^2", taps_symbol(conv.kernel_size)), value

    def unusual(self, conv: Conv) -> list[str]:
        """What of it is not as usual, in words."""
        found = [
            f"{number.meaning} {value}"
            for number, value in zip(self.kind.numbers, self.numbers, strict=True)
            if value != number.default
        ]
        for name, bias in self.biases:
            if bias != conv.bias:
                found.append(f"bias {'on' if bias else 'but on'} {name}")
        return found

    def __str__(self) -> str:
        """As it is written, without numbers that are as usual."""
        numbers = list(self.numbers)
        while numbers and numbers[-1] == self.kind.numbers[len(numbers) - 1].default:
            numbers.pop()
        return ":".join([self.name, *map(str, numbers)])


STANDARD = Block("standard")
SEPARABLE = Block("separable", (1,))


def why_kept(conv: Conv, block: Block) -> str:
    """Why a convolution is not rewritten as a block; "" if it is."""
    if conv.groups > 1:
        return "depthwise" if conv.groups == conv.in_channels else "grouped"
    if prod(conv.kernel_size) == 1:
        return "pointwise"
    try:
        steps = block.steps(conv)
    except DscalcError as error:
        return str(error)
    if sum(step.cost.macs for step in steps) >= conv.cost.macs:
        return "no saving"
    return ""


def taps_symbol(kernel_size: tuple[int, ...]) -> str:
    """The product of the axes of a filter, as a formula has it: F^2, or (F1*F2)."""
    if len(set(kernel_size)) > 1:
        return f"({'*'.join(f'F{axis}' for axis, _ in enumerate(kernel_size, 1))})"
    return "F" if len(kernel_size) == 1 else f"F^{len(kernel_size)}"
