"""The cost of one convolution.

`output_length`, `conv_macs` and `conv_params` are the whole arithmetic of dscalc. They use only ``+
- * //``, so they are exact on Python ints of any size and broadcast over NumPy arrays
(``dtype=object`` stays exact past int64). `Conv` checks its fields and calls them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from operator import index
from typing import Any, Literal

from dscalc.core.cost import Cost, made
from dscalc.errors import DscalcError
from dscalc.parse import Padding, Size
from dscalc.show import times


def output_length(input_length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The output size along one axis, in elements; less than 1 if the kernel does not fit.

    ``padding`` is the total of both ends. Source: the shape formula of ``torch.nn.Conv2d``.
    """
    return (input_length + padding - dilation * (kernel - 1) - 1) // stride + 1


def conv_macs(
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    output_size: Sequence[int],
    groups: int = 1,
    batch_size: int = 1,
) -> int:
    """Multiply-accumulates (MACs) of one grouped convolution in ``len(kernel_size)`` dimensions.

    Each of the ``out_channels * prod(output_size)`` outputs of a sample is a dot product over
    ``in_channels / groups`` channels and ``prod(kernel_size)`` taps. 1 MAC is 2 FLOPs; adding a
    bias is not a MAC. Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.1.
    """
    taps = in_channels // groups * prod(kernel_size)
    return batch_size * out_channels * prod(output_size) * taps


def conv_params(
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    groups: int = 1,
    bias: bool = False,
) -> int:
    """Params of one grouped convolution: weights, and if ``bias``, one bias per output channel.

    Source: the weight and bias shapes of ``torch.nn.Conv2d``.
    """
    return in_channels // groups * out_channels * prod(kernel_size) + bias * out_channels


def pads(
    padding: Literal["same", "valid"] | tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """Zeros (before, after) along each axis of the input; an odd total has one more after."""
    if padding == "valid":
        return ((0, 0),) * len(kernel_size)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        return tuple([(total // 2, total - total // 2) for total in totals])
    return tuple([(zeros, zeros) for zeros in padding])


def whole_number(name: str, value: int, least: int = 1) -> int:
    """The value as an int.

    Raises:
        DscalcError: it is not an int of at least ``least``.
    """
    if type(value) is not int:
        try:
            if isinstance(value, bool):
                raise TypeError
            value = index(value)  # a NumPy integer becomes an int, which cannot overflow
        except TypeError:
            raise DscalcError(f"{name} must be a whole number, got {value!r}") from None
    if value < least:
        raise DscalcError(f"{name} must be at least {least}, got {value}")
    return value


def per_axis(name: str, value: Size, axes: int, least: int = 1) -> tuple[int, ...]:
    """The size as one int per axis.

    Raises:
        DscalcError: a value is not an int of at least ``least``, or the number of axes differs.
    """
    if not isinstance(value, tuple | list):
        return (whole_number(name, value, least),) * axes
    if len(value) != axes:
        raise DscalcError(f"{name} {times(value)} has {len(value)} axes, but the layer has {axes}")
    return tuple([whole_number(name, length, least) for length in value])


def checked_padding(padding: Padding, axes: int) -> Literal["same", "valid"] | tuple[int, ...]:
    """The padding: a word, or one int per axis.

    Raises:
        DscalcError: it is another word, or `per_axis` refuses the size.
    """
    if not isinstance(padding, str):
        return per_axis("padding", padding, axes, least=0)
    if padding not in ("same", "valid"):
        raise DscalcError(f"padding must be same, valid or a size such as 1, got {padding!r}")
    return padding


def span(kernel_size: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """The span of a dilated kernel along each axis: dilation * (kernel_size - 1) + 1 elements."""
    return tuple(
        [gap * (kernel - 1) + 1 for kernel, gap in zip(kernel_size, dilation, strict=True)]
    )


def output_sizes(
    input_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """The size of the output feature map, `output_length` along each axis.

    Raises:
        DscalcError: the kernel does not fit the padded input.
    """
    axes = zip(input_size, kernel_size, stride, pads, dilation, strict=True)
    output_size = tuple(
        [
            output_length(length, kernel, step, before + after, gap)
            for length, kernel, step, (before, after), gap in axes
        ]
    )
    if output_size and min(output_size) < 1:
        padded = [length + sum(ends) for length, ends in zip(input_size, pads, strict=True)]
        raise DscalcError(
            f"the kernel spans {times(span(kernel_size, dilation))}, but the padded input is "
            f"{times(padded)}; use a smaller kernel or dilation, more padding or a larger map"
        )
    return output_size


@dataclass(frozen=True, init=False)
class Conv:
    """One grouped convolution over a batch of feature maps.

    Sizes are per axis, as in torch. An int stands for all axes: as many as a size that is a tuple
    has, else 2. With no axes at all (``kernel_size=()``, ``input_size=()``) the layer is fully
    connected.

    Args:
        in_channels: channels of the input; a multiple of ``groups``.
        out_channels: channels of the output; a multiple of ``groups``.
        kernel_size: taps of the filter, (H, W) in 2-D.
        input_size: size of the input feature map, (H, W) in 2-D.
        stride: step of the filter.
        padding: zeros at each end of an axis; or ``"valid"``, none; or ``"same"``, as many as make
            the output ``ceil(input_size / stride)``: ``dilation * (kernel_size - 1)`` over both
            ends, the extra zero of an odd total at the far end.
        dilation: distance between taps.
        groups: number of groups of channels; ``in_channels`` groups are depthwise.
        bias: whether each output channel adds a bias.
        batch_size: samples; multiplies the MACs, not the params.

    Raises:
        DscalcError: a value is not an int in its range, ``bias`` is not a bool, sizes differ in
            their number of axes, ``groups`` does not divide the channels, or the kernel does not
            fit the padded input.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    input_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Literal["same", "valid"] | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    bias: bool
    batch_size: int
    output_size: tuple[int, ...] = field(init=False)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        input_size: Size,
        stride: Size = 1,
        padding: Padding = "same",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = False,
        batch_size: int = 1,
    ) -> None:
        sizes = (kernel_size, input_size, stride, padding, dilation)
        axes = next((len(size) for size in sizes if isinstance(size, tuple | list)), 2)
        in_channels = whole_number("in_channels", in_channels)
        out_channels = whole_number("out_channels", out_channels)
        groups = whole_number("groups", groups)
        if in_channels % groups or out_channels % groups:
            raise DscalcError(
                f"groups must divide both channels, got groups {groups} for "
                f"{in_channels} -> {out_channels} channels"
            )
        padding = checked_padding(padding, axes)
        kernel_size = per_axis("kernel_size", kernel_size, axes)
        input_size = per_axis("input_size", input_size, axes)
        stride = per_axis("stride", stride, axes)
        dilation = per_axis("dilation", dilation, axes)
        batch_size = whole_number("batch_size", batch_size)
        if bias not in (True, False):
            raise DscalcError(f"bias must be True or False, got {bias!r}")
        zeros = pads(padding, kernel_size, dilation)
        self.__dict__.update(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            input_size=input_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bool(bias),
            batch_size=batch_size,
            output_size=output_sizes(input_size, kernel_size, stride, zeros, dilation),
        )

    @classmethod
    def unchecked(cls, **fields: Any) -> "Conv":
        """A convolution from all of its fields; nothing is checked."""
        conv = object.__new__(cls)
        conv.__dict__.update(fields)
        return conv

    def like(self, **fields: Any) -> "Conv":
        """A copy with some fields replaced; nothing is checked."""
        conv = object.__new__(type(self))
        conv.__dict__.update(self.__dict__)
        conv.__dict__.update(fields)
        return conv

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros (before, after) along each axis of the input."""
        return pads(self.padding, self.kernel_size, self.dilation)

    @property
    def positions(self) -> tuple[int, ...]:
        """The number of positions of each tap, along each axis."""
        return self.output_size

    @property
    def cost(self) -> Cost:
        """The cost by formula."""
        macs = conv_macs(
            self.in_channels, self.out_channels, self.kernel_size, self.positions,
            self.groups, self.batch_size,
        )  # fmt: skip
        params = conv_params(
            self.in_channels, self.out_channels, self.kernel_size, self.groups, self.bias
        )
        activations = self.batch_size * self.out_channels * prod(self.output_size)
        inputs = self.batch_size * self.in_channels * prod(self.input_size)
        return made(Cost, (macs, params, activations, inputs))
