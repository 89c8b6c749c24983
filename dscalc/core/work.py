"""The arithmetic of a layer, one line per step: symbols, numbers and result."""

from collections.abc import Iterator
from math import prod
from typing import Any

from dscalc.core.blocks import Block, taps_symbol
from dscalc.core.conv import Conv


class _Symbol(int):
    """An int that remembers its symbol, so that a block spells its own formula."""

    text: str

    def __new__(cls, value: int, text: str) -> "_Symbol":
        symbol = super().__new__(cls, value)
        symbol.text = text
        return symbol

    def __mul__(self, other: Any) -> "_Symbol":
        if other == 1:
            return self
        return _Symbol(int(self) * int(other), f"{self.text}*{_text(other)}")

    def __rmul__(self, other: Any) -> "_Symbol":
        return self if other == 1 else _Symbol(other, _text(other)) * self

    def __floordiv__(self, other: Any) -> "_Symbol":
        return _Symbol(int(self) // int(other), f"{self.text}/{_text(other)}")


def worked(conv: Conv, block: Block) -> Iterator[str]:
    """The MACs of each step of a block, and their sum, one line each.

    Raises:
        DscalcError: the block does not exist for this convolution.
    """
    pairs = zip(block.kind.numbers, block.numbers, strict=True)
    numbers = [1 if value == 1 else _Symbol(value, number.symbol) for number, value in pairs]
    spelled = conv.like(
        in_channels=_Symbol(conv.in_channels, "IC"), out_channels=_Symbol(conv.out_channels, "OC")
    )
    steps = block.built(spelled, *numbers)
    width = max(map(len, (block.name, *steps)))
    for name, step in steps.items():
        factors = list(_factors(step, conv))
        symbols_, values = zip(*factors, strict=True)
        macs = int(step.cost.macs)
        yield f"{name:<{width}}  {' * '.join(symbols_)} = {' * '.join(values)} = {macs:,}"
    if len(steps) > 1:
        sums = [int(step.cost.macs) for step in steps.values()]
        parts = " + ".join(f"{part:,}" for part in sums)
        yield f"{block.name:<{width}}  {' + '.join(steps)} = {parts} = {sum(sums):,}"


def _factors(step: Conv, conv: Conv) -> Iterator[tuple[str, str]]:
    """The factors of a step's MACs, in symbols and in numbers.

    A factor of 1 is left out, unless it is of output channels or positions.
    """
    read, left, groups = step.in_channels, step.out_channels, step.groups
    if groups != read:
        symbol, number = _text(read), f"{int(read):,}"
        if groups > 1:
            symbol, number = f"{symbol}/{_text(groups)}", f"{number}/{int(groups):,}"
        yield symbol, number
    yield _text(left), f"{int(left):,}"
    taps = tuple(size for size in step.kernel_size if size > 1)
    if taps:
        yield taps_symbol(taps), f"{prod(taps):,}"
    if step.output_size:
        yield _positions(step.output_size, conv), f"{prod(step.output_size):,}"
    if step.batch_size > 1:
        yield "N", f"{step.batch_size:,}"


def _positions(size: tuple[int, ...], conv: Conv) -> str:
    """The size of a map in symbols: D is the side of the input map, D' that of the output map."""
    if size == conv.input_size:
        return taps_symbol(size).replace("F", "D")
    if size == conv.output_size:
        return taps_symbol(size).replace("F", "D'")
    each = zip(size, conv.input_size, strict=True)
    return "*".join("D" if own == before else "D'" for own, before in each)


def _text(value: int) -> str:
    return value.text if isinstance(value, _Symbol) else f"{value:,}"
