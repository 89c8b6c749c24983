"""A layer in words, for titles, verdicts and errors."""

from dscalc.core.blocks import Comparison
from dscalc.words import times


def described(layer: Comparison) -> str:
    """What a layer is."""
    standard = layer.standard
    words = [
        f"{standard.in_channels} -> {standard.out_channels} channels",
        f"{times(standard.kernel_size)} kernel",
        f"{times(standard.input_size)} map",
    ]
    return ", ".join([*words, *unusual_options(layer)])


def unusual_options(layer: Comparison) -> list[str]:
    """The options of a layer that are not as usual."""
    standard, depthwise = layer.standard, layer.depthwise
    words = []
    if max(standard.stride) > 1:
        words.append(f"stride {_short(standard.stride)}")
    if standard.padding != "same":
        padding = standard.padding
        words.append(f"padding {padding if isinstance(padding, str) else _short(padding)}")
    if max(standard.dilation) > 1:
        words.append(f"dilation {_short(standard.dilation)}")
    if standard.groups > 1:
        words.append(f"{standard.groups} groups")
    if depthwise and depthwise.out_channels > depthwise.in_channels:
        words.append(f"depth multiplier {depthwise.out_channels // depthwise.in_channels}")
    if depthwise and depthwise.bias != standard.bias:
        words.append("bias but on depthwise" if standard.bias else "bias on depthwise")
    elif standard.bias:
        words.append("bias")
    if standard.batch_size > 1:
        words.append(f"batch of {standard.batch_size}")
    return words


def taps_symbol(kernel_size: tuple[int, ...]) -> str:
    """The product of the axes of a filter, as a formula has it: F^2, or (F1*F2)."""
    if len(set(kernel_size)) > 1:
        return f"({'*'.join(f'F{axis}' for axis, _ in enumerate(kernel_size, 1))})"
    return "F" if len(kernel_size) == 1 else f"F^{len(kernel_size)}"


def _short(size: tuple[int, ...]) -> str:
    return str(size[0]) if len(set(size)) == 1 else times(size)
