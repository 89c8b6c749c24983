"""A layer in words, for titles, verdicts and errors."""

from dscalc.core.blocks import Block
from dscalc.core.conv import Conv, span
from dscalc.parse import Padding
from dscalc.show import times


def described(conv: Conv, block: Block, *, one_position: bool = False) -> str:
    """A layer in words, with the options and block numbers that differ from their defaults.

    If ``one_position``, the layer was given without a map.
    """
    reach = span(conv.kernel_size, conv.dilation)
    spanning = f" spanning {times(reach)}" if reach != conv.kernel_size else ""
    words = [
        f"{conv.in_channels} -> {conv.out_channels} channels",
        f"{times(conv.kernel_size)} kernel{spanning}",
        *([] if one_position else [f"{times(conv.input_size)} map"]),
    ]
    return ", ".join([*words, *in_common(conv, block, one_position=one_position)])


def in_common(conv: Conv, block: Block, *, one_position: bool) -> list[str]:
    """What all layers of a grid share: the padding, and options that differ from their defaults."""
    padding = conv.padding if isinstance(conv.padding, str) else _short_size(conv.padding)
    at = "one output position" if one_position else f"padding {padding}"
    return [at, *_unusual_options(conv, block)]


def beyond_one_position(conv: Conv, block: Block, padding: Padding) -> str:
    """Which results for one output position hold for every map.

    The params do. The ratio does too if ``padding`` is ``"same"`` and each step leaves a map of the
    output's size.
    """
    at_output = all(
        isinstance(step.layer, Conv) and step.layer.output_size == conv.output_size
        for step in block.steps(conv)
    )
    known = "params and ratio" if at_output and padding == "same" else "params"
    return f"for one output position: {known} do not depend on D"


def _unusual_options(conv: Conv, block: Block) -> list[str]:
    """Options that differ from their defaults, except padding."""
    words = []
    if max(conv.stride, default=1) > 1:
        words.append(f"stride {_short_size(conv.stride)}")
    if max(conv.dilation, default=1) > 1:
        words.append(f"dilation {_short_size(conv.dilation)}")
    if conv.groups > 1:
        words.append(f"{conv.groups} groups")
    words += block.unusual(conv)
    if conv.bias and not any(bias != conv.bias for _, bias in block.biases):
        words.append("bias")
    if conv.batch_size > 1:
        words.append(f"batch of {conv.batch_size}")
    return words


def _short_size(size: tuple[int, ...]) -> str:
    return str(size[0]) if len(set(size)) == 1 else times(size)
