"""A layer in words, for titles, verdicts and errors."""

from dscalc.core.blocks import Block
from dscalc.core.conv import Conv
from dscalc.words import times


def described(conv: Conv, block: Block) -> str:
    """What a layer is, and what of the block in its place is not as usual."""
    words = [
        f"{conv.in_channels} -> {conv.out_channels} channels",
        f"{times(conv.kernel_size)} kernel",
        f"{times(conv.input_size)} map",
    ]
    return ", ".join([*words, *unusual_options(conv, block)])


def unusual_options(conv: Conv, block: Block) -> list[str]:
    """The options of a layer that are not as usual."""
    words = []
    if max(conv.stride, default=1) > 1:
        words.append(f"stride {_short(conv.stride)}")
    if conv.padding != "same":
        padding = conv.padding
        words.append(f"padding {padding if isinstance(padding, str) else _short(padding)}")
    if max(conv.dilation, default=1) > 1:
        words.append(f"dilation {_short(conv.dilation)}")
    if conv.groups > 1:
        words.append(f"{conv.groups} groups")
    words += block.unusual(conv)
    if conv.bias and not any(bias != conv.bias for _, bias in block.biases):
        words.append("bias")
    if conv.batch_size > 1:
        words.append(f"batch of {conv.batch_size}")
    return words


def _short(size: tuple[int, ...]) -> str:
    return str(size[0]) if len(set(size)) == 1 else times(size)
