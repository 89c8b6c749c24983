"""Blocks: other ways to build a convolution, and why a convolution is kept.

A block maps the same input shape to the same output shape as one standard convolution, so that it
can replace the convolution. The FxF step carries stride, padding and dilation. 1x1 steps before it
run on the input map, those after it on the output map. To add a block, write its function and its
entry in `BLOCKS`.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import prod
from typing import NamedTuple

from dscalc import parse, show
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost, made
from dscalc.core.kinds import convolution_kind
from dscalc.errors import DscalcError

Steps = Mapping[str, Conv]
Form = tuple[str, Fraction]


def standard(conv: Conv) -> Steps:
    """The convolution, unchanged."""
    return {"standard": conv}


def separable(conv: Conv, m: int) -> Steps:
    """Depthwise FxF, IC -> m*IC; pointwise 1x1 -> OC.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.1; Chollet, Xception,
    2017 (arXiv 1610.02357).
    """
    wide = m * conv.in_channels
    return {
        "depthwise": _filter(conv, conv.in_channels, wide, groups=conv.in_channels),
        "pointwise": _mix(conv, wide, conv.out_channels, conv.output_size),
    }


def separable_form(conv: Conv, m: int) -> Form:
    """The ratio m * (1/OC + 1/F^2).

    It tends to m/F^2 if OC is much larger than F^2, and is over 1 if OC or F is 1.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.1.
    """
    value = m * (Fraction(1, conv.out_channels) + Fraction(1, prod(conv.kernel_size)))
    return "1/OC + 1/F^2" if m == 1 else "m * (1/OC + 1/F^2)", value


def separable_limit(conv: Conv, m: int) -> Form:
    """The limit of the ratio for many output channels: m/F^2."""
    return f"{m}/F^2", Fraction(m, prod(conv.kernel_size))


def blueprint(conv: Conv) -> Steps:
    """Pointwise 1x1, IC -> OC; depthwise FxF on OC: separable in reverse order.

    Source: Haase, Amthor, BSConv, 2020 (arXiv 2003.13549), section 3.
    """
    return {
        "pointwise": _mix(conv, conv.in_channels, conv.out_channels, conv.input_size),
        "depthwise": _filter(conv, conv.out_channels, conv.out_channels, conv.out_channels),
    }


def blueprint_form(conv: Conv) -> Form:
    """The ratio 1/F^2 + 1/IC, if the map keeps its size.

    Source: Haase, Amthor, BSConv, 2020 (arXiv 2003.13549), section 3.
    """
    return "1/F^2 + 1/IC", Fraction(1, prod(conv.kernel_size)) + Fraction(1, conv.in_channels)


def grouped(conv: Conv, g: int) -> Steps:
    """Conv FxF in g groups.

    Source: Krizhevsky et al., AlexNet, 2012; Xie et al., ResNeXt, 2017 (arXiv 1611.05431).

    Raises:
        DscalcError: g does not divide IC and OC.
    """
    for channels in (conv.in_channels, conv.out_channels):
        if channels % g:
            raise DscalcError(f"{g} groups do not divide {channels} channels")
    return {"conv": _filter(conv, conv.in_channels, conv.out_channels, groups=g)}


def grouped_form(conv: Conv, g: int) -> Form:
    """The ratio 1/g: each output channel reads one group of the input channels."""
    return "1/g", Fraction(1, g)


def spatial(conv: Conv) -> Steps:
    """One 1-D step per axis, with the stride, padding and dilation of that axis.

    In 2-D: vertical Fx1, IC -> OC; horizontal 1xF, OC -> OC. Source: Szegedy et al., 2016 (arXiv
    1512.00567), section 3.2.
    """
    steps, read, size = {}, conv.in_channels, conv.input_size
    for axis, name in enumerate(_AXES[-len(size) :]):

        def along(sizes: tuple[int, ...], other: int, axis: int = axis) -> tuple[int, ...]:
            return tuple(own if at == axis else other for at, own in enumerate(sizes))

        left = (*conv.output_size[: axis + 1], *size[axis + 1 :])
        steps[name] = conv.like(
            in_channels=read, groups=1, input_size=size, output_size=left,
            kernel_size=along(conv.kernel_size, 1), stride=along(conv.stride, 1),
            dilation=along(conv.dilation, 1),
            padding=conv.padding if isinstance(conv.padding, str) else along(conv.padding, 0),
        )  # fmt: skip
        read, size = conv.out_channels, left
    return steps


def spatial_form(conv: Conv) -> Form:
    """The ratio (1 + OC/IC) / F, if the filter is square and 2-D and the map keeps its size."""
    ratio = (1 + Fraction(conv.out_channels, conv.in_channels)) / conv.kernel_size[0]
    return "(1 + OC/IC) / F", ratio


def bottleneck(conv: Conv, r: int, g: int) -> Steps:
    """Reduce 1x1, IC -> OC/r; conv FxF in g groups; expand 1x1 -> OC.

    Source: He et al., ResNet, 2016 (arXiv 1512.03385), figure 5; with groups Xie et al., ResNeXt,
    2017 (arXiv 1611.05431), figure 3.

    Raises:
        DscalcError: r does not divide OC, or g does not divide OC/r.
    """
    if conv.out_channels % r:
        raise DscalcError(f"{r} does not divide {conv.out_channels} output channels")
    narrow = conv.out_channels // r
    if narrow % g:
        raise DscalcError(f"{g} groups do not divide {narrow} channels")
    return {
        "reduce": _mix(conv, conv.in_channels, narrow, conv.input_size),
        "conv": _filter(conv, narrow, narrow, groups=g),
        "expand": _mix(conv, narrow, conv.out_channels, conv.output_size),
    }


def inverted(conv: Conv, t: int) -> Steps:
    """Expand 1x1, IC -> t*IC; depthwise FxF; project 1x1 -> OC. If t = 1, there is no expand step.

    Source: Sandler et al., MobileNetV2, 2018 (arXiv 1801.04381), table 1, and the authors' code.
    """
    wide = t * conv.in_channels
    expand = {"expand": _mix(conv, conv.in_channels, wide, conv.input_size)} if t > 1 else {}
    return {
        **expand,
        "depthwise": _filter(conv, wide, wide, groups=wide),
        "project": _mix(conv, wide, conv.out_channels, conv.output_size),
    }


def fused(conv: Conv, t: int) -> Steps:
    """Expand FxF, IC -> t*IC; project 1x1 -> OC. If t = 1, the convolution itself.

    Source: Tan, Le, EfficientNetV2, 2021 (arXiv 2104.00298), figure 2, and the authors' code.
    """
    if t == 1:
        return {"expand": conv}
    wide = t * conv.in_channels
    return {
        "expand": _filter(conv, conv.in_channels, wide, groups=1),
        "project": _mix(conv, wide, conv.out_channels, conv.output_size),
    }


def convnext(conv: Conv, t: int) -> Steps:
    """Depthwise FxF on IC; expand 1x1 -> t*IC; project 1x1 -> OC.

    Source: Liu et al., ConvNeXt, 2022 (arXiv 2201.03545), figure 4.
    """
    wide = t * conv.in_channels
    return {
        "depthwise": _filter(conv, conv.in_channels, conv.in_channels, groups=conv.in_channels),
        "expand": _mix(conv, conv.in_channels, wide, conv.output_size),
        "project": _mix(conv, wide, conv.out_channels, conv.output_size),
    }


_AXES = ("depth", "vertical", "horizontal")


def _filter(conv: Conv, in_channels: int, out_channels: int, groups: int) -> Conv:
    """The convolution with other channels and groups."""
    return conv.like(in_channels=in_channels, out_channels=out_channels, groups=groups)


def _mix(conv: Conv, in_channels: int, out_channels: int, size: tuple[int, ...]) -> Conv:
    """A 1x1 convolution on a map of ``size``."""
    ones = (1,) * len(size)
    return conv.like(
        in_channels=in_channels, out_channels=out_channels, kernel_size=ones, input_size=size,
        stride=ones, padding="same", dilation=ones, groups=1, output_size=size,
    )  # fmt: skip


class BlockNumber(NamedTuple):
    """A number that a block takes after a colon: M of ``separable:M``.

    ``usual`` is the default, unless ``needed``.
    """

    symbol: str
    usual: int
    meaning: str
    needed: bool = False


class BlockKind(NamedTuple):
    """How a block is built: its function, its step names and the numbers that it takes.

    ``form`` gives the MACs of the block / those of an ungrouped convolution. ``limit`` gives the
    limit of that ratio for many output channels. Each returns the symbols and their value.
    """

    build: Callable[..., Steps]
    steps: tuple[str, ...]
    numbers: tuple[BlockNumber, ...] = ()
    form: Callable[..., Form] | None = None
    limit: Callable[..., Form] | None = None


BLOCKS = {
    "standard": BlockKind(standard, ("standard",)),
    "separable": BlockKind(
        separable,
        ("depthwise", "pointwise"),
        (BlockNumber("m", 1, "depth multiplier"),),
        separable_form,
        separable_limit,
    ),
    "blueprint": BlockKind(blueprint, ("pointwise", "depthwise"), (), blueprint_form),
    "grouped": BlockKind(
        grouped, ("conv",), (BlockNumber("g", 8, "groups", needed=True),), grouped_form
    ),
    "spatial": BlockKind(spatial, _AXES, (), spatial_form),
    "bottleneck": BlockKind(
        bottleneck,
        ("reduce", "conv", "expand"),
        (BlockNumber("r", 4, "reduction"), BlockNumber("g", 1, "inner groups")),
    ),
    "inverted": BlockKind(
        inverted, ("expand", "depthwise", "project"), (BlockNumber("t", 6, "expansion"),)
    ),
    "fused": BlockKind(fused, ("expand", "project"), (BlockNumber("t", 4, "expansion"),)),
    "convnext": BlockKind(
        convnext, ("depthwise", "expand", "project"), (BlockNumber("t", 4, "expansion"),)
    ),
}

DEFAULTS = [  # with the numbers that a block needs: grouped:8
    ":".join([name, *(str(number.usual) for number in kind.numbers if number.needed)])
    for name, kind in BLOCKS.items()
]
REPLACEMENTS = DEFAULTS[1:]  # all but standard


def block_meant(word: str) -> str:
    """The block of that name, spelled otherwise, or with that first step; "" if there is none.

    It is separable for depthwise, and grouped:8 for grouped=8.
    """
    spelled = re.fullmatch(r"([a-z]+)[-_=]?(\d*)", word.strip().lower())
    if not spelled:
        return ""
    name, number = spelled.groups()
    for default in DEFAULTS:
        base = default.partition(":")[0]
        first = BLOCKS[base].steps[0] if len(BLOCKS[base].steps) > 1 else base
        if name in (base, first):
            return f"{base}:{number}" if number and BLOCKS[base].numbers else default
    return ""


class Norm(NamedTuple):
    """A normalisation: a scale and a shift per channel, no MACs."""

    channels: int

    @property
    def cost(self) -> Cost:
        """The cost by formula: 2 params per channel."""
        return Cost(0, 2 * self.channels)


class Step(NamedTuple):
    """A part of a block.

    Args:
        name: such as depthwise.
        layer: its convolution or norm; None in a total.
        cost: its cost, by formula.
    """

    name: str
    layer: Conv | Norm | None
    cost: Cost


class Block(NamedTuple):
    """A block with its numbers, such as ``separable:2``; `steps` applies it to a convolution.

    ``biases`` overrides the bias of the convolution for some steps: pairs of step name and bias.
    ``dims`` is the number of axes of the filter; 3, the most that there are, if layers may differ.
    """

    name: str
    numbers: tuple[int, ...] = ()
    biases: tuple[tuple[str, bool], ...] = ()
    dims: int = 3

    @classmethod
    def parse(cls, text: str, option: str = "block", *, standard: str = "") -> "Block":
        """Read ``NAME``, ``NAME:NUMBER`` or ``NAME:NUMBER:NUMBER``.

        Args:
            text: the block as written.
            option: the option that it is from, for errors.
            standard: what ``standard`` stands for, if it is not allowed; ``""`` if it is.

        Raises:
            DscalcError: there is no such block, it takes no such number, a number that it needs is
                missing, or ``standard`` is not allowed.
        """
        name, *given = text.strip().split(":")
        if name not in BLOCKS:
            choices = [name for name in BLOCKS if not (standard and name == "standard")]
            meant = block_meant(text)
            hint = f"did you mean {meant}?" if meant else show.did_you_mean(name, choices)
            raise DscalcError(f"{option}: unknown block {show.quoted(name)}; {hint}")
        numbers = BLOCKS[name].numbers
        spelled = ":".join([name, *(number.symbol.upper() for number in numbers)])
        if len(given) > len(numbers):
            raise DscalcError(f"{option}: write the block as {spelled}, got {show.quoted(text)}")
        pairs = zip(given, numbers, strict=False)
        read = [
            parse.whole(value, f"{name} {number.meaning}", such_as=number.usual)
            for value, number in pairs
        ]
        for number in numbers[len(read) :]:
            if number.needed:
                raise DscalcError(
                    f"{option}: {name} needs its {number.meaning}, such as {name}:{number.usual}, "
                    f"got {show.quoted(text)}"
                )
            read.append(number.usual)
        if name == "standard" and standard:
            raise DscalcError(f"{option} standard is {standard}; name another block")
        return cls(name, tuple(read))

    @property
    def kind(self) -> BlockKind:
        """The entry of the block in `BLOCKS`."""
        return BLOCKS[self.name]

    @property
    def step_names(self) -> tuple[str, ...]:
        """The names of all steps that the block can have, in order; empty if there is only one."""
        names = self.kind.steps
        if names is _AXES:  # one step per axis
            names = _AXES[-self.dims :]
        return names if len(names) > 1 else ()

    def along(self, dims: int) -> "Block":
        """The block for filters of that many axes: a spatial one has a step for each."""
        return self._replace(dims=dims) if self.kind.steps is _AXES else self

    def built(self, conv: Conv, *numbers: int) -> Steps:
        """The convolutions that replace ``conv``, by step name.

        Raises:
            DscalcError: the block does not exist for this convolution.
        """
        try:
            return self.kind.build(conv, *numbers)
        except DscalcError as error:
            raise DscalcError(f"{self}: {error}") from None

    def steps(self, conv: Conv) -> tuple[Step, ...]:
        """The steps that replace ``conv``, each with its cost.

        Raises:
            DscalcError: the block does not exist for this convolution.
        """
        layers = self.built(conv, *self.numbers)
        if self.biases:
            chosen = dict(self.biases)
            layers = {
                name: layer.like(bias=chosen.get(name, layer.bias))
                for name, layer in layers.items()
            }
        return tuple([made(Step, (name, layer, layer.cost)) for name, layer in layers.items()])

    def closed_form(self, conv: Conv) -> tuple[str, str, Fraction] | None:
        """The MACs / those of the standard convolution: in symbols, in numbers, and as a value.

        None if the block has no closed form. The value is exact if the standard convolution is
        ungrouped; for blueprint the map must also keep its size, for spatial the filter must also
        be square and 2-D.
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
        known["F"] = conv.kernel_size[0] if conv.kernel_size else 1
        known |= {n.symbol: m for n, m in zip(self.kind.numbers, self.numbers, strict=True)}
        spelled = re.compile("|".join(rf"(?<!\w){re.escape(symbol)}(?!\w)" for symbol in known))
        return symbols, spelled.sub(lambda match: str(known[match[0]]), symbols), value

    def limit(self, conv: Conv) -> Form | None:
        """The limit of the MAC ratio for many output channels: in symbols, and as a value.

        None if the block has no such form.
        """
        if self.kind.limit is None:
            return None
        symbols, value = self.kind.limit(conv, *self.numbers)
        return symbols.replace("F^2", taps_symbol(conv.kernel_size)), value

    def unusual(self, conv: Conv) -> list[str]:
        """The numbers and biases that differ from their defaults, in words."""
        found = [
            f"{number.meaning} {value}"
            for number, value in zip(self.kind.numbers, self.numbers, strict=True)
            if value != number.usual and not number.needed
        ]
        for name, bias in self.biases:
            if bias != conv.bias:
                found.append(f"bias {'on' if bias else 'but on'} {name}")
        return found

    def __str__(self) -> str:
        """The block as written, without default numbers at the end."""
        numbers = list(self.numbers)
        for number, value in zip(self.kind.numbers[::-1], self.numbers[::-1], strict=True):
            if value != number.usual or number.needed:
                break
            numbers.pop()
        return ":".join([self.name, *map(str, numbers)])


def with_norms(steps: tuple[Step, ...], where: str) -> tuple[Step, ...]:
    """The steps, with a normalisation after ``each`` step, the ``first`` or the ``last``."""
    after = {"first": steps[:1], "last": steps[-1:], "each": steps}[where]
    found: list[Step] = []
    for step in steps:
        found.append(step)
        if step in after and isinstance(step.layer, Conv):
            norm = Norm(step.layer.out_channels)
            found.append(Step(f"{step.name}_norm", norm, norm.cost))
    return tuple(found)


STANDARD = Block("standard")
SEPARABLE = Block("separable", (1,))


def why_kept(conv: Conv, block: Block) -> str:
    """Why the block does not replace a convolution; "" if it does."""
    if reason := why_unfit(conv, block):
        return reason
    cost = sum(step.cost.macs for step in block.steps(conv))
    return "no saving" if cost >= conv.cost.macs else ""


def why_unfit(conv: Conv, block: Block) -> str:
    """Why the block cannot replace a convolution on a map of any size; "" if it can."""
    if (kind := convolution_kind(conv)) != "conv":
        return kind
    try:
        block.steps(conv)
    except DscalcError as error:
        return str(error).removeprefix(f"{block}: ")  # the report names the block
    return ""


def taps_symbol(kernel_size: tuple[int, ...]) -> str:
    """The number of taps of a filter as a symbol: F^2, or (F1*F2) if its sides differ."""
    if len(set(kernel_size)) > 1:
        return f"({'*'.join(f'F{axis}' for axis, _ in enumerate(kernel_size, 1))})"
    return "F" if len(kernel_size) == 1 else f"F^{len(kernel_size)}"
