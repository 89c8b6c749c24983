"""What a row is, by the shape of its layer: conv, pointwise, depthwise, grouped and so on."""

from collections.abc import Iterable
from math import prod

from dscalc.core.conv import Conv
from dscalc.show import times

CONVOLUTION_KINDS = ("conv", "pointwise", "depthwise", "grouped", "transposed")


def convolution_kind(conv: Conv) -> str:
    """Which convolution it is, by its groups and its filter."""
    if conv.groups > 1:
        return "depthwise" if conv.groups == conv.in_channels else "grouped"
    return "pointwise" if prod(conv.kernel_size) == 1 else "conv"


def common_kind(convs: Iterable[Conv]) -> str:
    """Which convolution all calls of a layer are; conv if they differ."""
    kinds = {convolution_kind(conv) for conv in convs}
    return kinds.pop() if len(kinds) == 1 else "conv"


def kind_and_size(kind: str, kernel_size: tuple[int, ...] | None, groups: int | None) -> str:
    """The kind with the size of its filter: conv 3x3, grouped:8 3x3, inverted 3x3, pointwise."""
    if kind == "pointwise":
        return kind
    return f"{kind}{f':{groups}' if kind == 'grouped' else ''} {times(kernel_size)}".rstrip()
