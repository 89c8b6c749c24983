"""A standard convolution beside the depthwise separable one that replaces it."""

from fractions import Fraction
from typing import NamedTuple, overload

from dscalc.core.conv import Conv, whole_number
from dscalc.errors import DscalcError
from dscalc.words import Padding, Size

Multiplier = Fraction | float | str


def scaled_channels(channels: int, width_multiplier: Multiplier) -> int:
    """floor(alpha * channels), at least 1, computed exactly: 0.29 * 100 is 29.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.3.
    """
    alpha = exact_multiplier("width_multiplier", width_multiplier)
    return max(1, int(alpha * whole_number("channels", channels)))


@overload
def scaled_size(input_size: int, resolution_multiplier: Multiplier) -> int: ...
@overload
def scaled_size(
    input_size: tuple[int, ...], resolution_multiplier: Multiplier
) -> tuple[int, ...]: ...
def scaled_size(input_size: Size, resolution_multiplier: Multiplier) -> Size:
    """round(rho * D) along each axis, at least 1, computed exactly: 0.714 * 14 = 9.996 is 10.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.4.
    """
    rho = exact_multiplier("resolution_multiplier", resolution_multiplier)
    if isinstance(input_size, tuple | list):
        return tuple(scaled_size(length, rho) for length in input_size)
    return max(1, round(rho * whole_number("input_size", input_size)))


def exact_multiplier(name: str, value: Multiplier) -> Fraction:
    """Read a multiplier as it is written: the float 0.1 means 1/10."""
    try:
        multiplier = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise DscalcError(f"{name} must be a number such as 0.75 or 3/4, got {value!r}") from None
    if multiplier <= 0:
        raise DscalcError(f"{name} must be greater than 0, got {value}")
    return multiplier


class Counts(NamedTuple):
    """MACs and parameters of a comparison, by formula or as counted on real modules."""

    standard_macs: int
    standard_params: int
    depthwise_macs: int | None
    depthwise_params: int | None
    pointwise_macs: int | None
    pointwise_params: int | None
    separable_macs: int
    separable_params: int


class Comparison(NamedTuple):
    """A standard convolution and its replacement, which is the sum of its parts.

    A depthwise separable convolution is a ``depthwise`` step, one filter per input channel, and a
    ``pointwise`` 1x1 convolution of what that leaves. A replacement may lack either; with neither,
    the standard convolution stays as it is.
    """

    standard: Conv
    depthwise: Conv | None = None
    pointwise: Conv | None = None

    @property
    def counts(self) -> Counts:
        """All MACs and parameters, by formula; the replacement is the sum of its parts."""
        macs, params = self.standard.macs, self.standard.params
        if not self.depthwise and not self.pointwise:
            return Counts(macs, params, None, None, None, None, macs, params)
        depthwise_macs = depthwise_params = pointwise_macs = pointwise_params = None
        if self.depthwise:
            depthwise_macs, depthwise_params = self.depthwise.macs, self.depthwise.params
        if self.pointwise:
            pointwise_macs, pointwise_params = self.pointwise.macs, self.pointwise.params
        return Counts(
            macs,
            params,
            depthwise_macs,
            depthwise_params,
            pointwise_macs,
            pointwise_params,
            (depthwise_macs or 0) + (pointwise_macs or 0),
            (depthwise_params or 0) + (pointwise_params or 0),
        )

    @property
    def separable_macs(self) -> int:
        """Multiply-accumulates of the replacement."""
        return self.counts.separable_macs

    @property
    def separable_params(self) -> int:
        """Weights and biases of the replacement."""
        return self.counts.separable_params

    @property
    def ratio(self) -> Fraction:
        """Separable / standard MACs, m * (1/OC + 1/F^2) where the standard one is ungrouped.

        Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.1. It tends to 1/F^2
        once OC is much larger than F^2, and is over 1, so separable costs more, where OC or F is 1.
        """
        return Fraction(self.separable_macs, self.standard.macs)

    @property
    def param_ratio(self) -> Fraction:
        """Separable / standard parameters, the same as the ratio of MACs where there is no bias."""
        return Fraction(self.separable_params, self.standard.params)


def compare(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    input_size: Size,
    *,
    stride: Size = 1,
    padding: Padding = "same",
    dilation: Size = 1,
    groups: int = 1,
    depth_multiplier: int = 1,
    bias: bool = False,
    depthwise_bias: bool | None = None,
    batch_size: int = 1,
    width_multiplier: Multiplier = 1,
    resolution_multiplier: Multiplier = 1,
) -> Comparison:
    """Compare a convolution with the depthwise separable convolution that replaces it.

    Stride, padding and dilation belong to the depthwise step; the pointwise step runs on the map
    that it leaves.

    Args:
        in_channels, out_channels, kernel_size, input_size, stride, padding, dilation: as in `Conv`.
        groups: groups of the standard convolution alone.
        depth_multiplier: depthwise filters per input channel (Keras' name).
        bias: whether every convolution has biases.
        depthwise_bias: overrides ``bias`` for the depthwise step; Keras' ``SeparableConv2D`` has
            none there.
        batch_size: samples.
        width_multiplier: scales both channels, as `scaled_channels`.
        resolution_multiplier: scales the input size, as `scaled_size`.

    Raises:
        DscalcError: as `Conv`.
    """
    if width_multiplier != 1:
        in_channels = scaled_channels(in_channels, width_multiplier)
        out_channels = scaled_channels(out_channels, width_multiplier)
    if resolution_multiplier != 1:
        input_size = scaled_size(input_size, resolution_multiplier)
    standard = Conv(
        in_channels, out_channels, kernel_size, input_size, stride, padding, dilation,
        groups, bias, batch_size,
    )  # fmt: skip
    return separable(
        standard,
        whole_number("depth_multiplier", depth_multiplier),
        bool(bias if depthwise_bias is None else depthwise_bias),
    )


def separable(standard: Conv, depth_multiplier: int, depthwise_bias: bool) -> Comparison:
    """Compare a convolution with its replacement, which has the same sizes and biases."""
    filters, ones = standard.in_channels * depth_multiplier, (1,) * len(standard.kernel_size)
    depthwise = Conv._make((
        standard.in_channels, filters, standard.kernel_size, standard.input_size, standard.stride,
        standard.padding, standard.dilation, standard.in_channels, depthwise_bias,
        standard.batch_size, standard.output_size,
    ))  # fmt: skip
    pointwise = Conv._make((
        filters, standard.out_channels, ones, standard.output_size, ones, "same", ones, 1,
        standard.bias, standard.batch_size, standard.output_size,
    ))  # fmt: skip
    return Comparison(standard, depthwise, pointwise)
