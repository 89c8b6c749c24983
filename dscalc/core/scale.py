"""Width and resolution multipliers, computed exactly."""

from fractions import Fraction
from typing import overload

from dscalc.core.conv import whole_number
from dscalc.errors import DscalcError
from dscalc.parse import Size

Multiplier = Fraction | float | str


def scaled_channels(channels: int, width_multiplier: Multiplier) -> int:
    """floor(alpha * channels), at least 1, computed exactly: 0.29 * 100 is 29.

    Source: Howard et al., MobileNets, 2017 (arXiv 1704.04861), section 3.3.

    Raises:
        DscalcError: ``channels`` is not an int of at least 1, or the multiplier is not above 0.
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

    Raises:
        DscalcError: a size is not an int of at least 1, or the multiplier is not above 0.
    """
    rho = exact_multiplier("resolution_multiplier", resolution_multiplier)
    if isinstance(input_size, tuple | list):
        return tuple(scaled_size(length, rho) for length in input_size)
    return max(1, round(rho * whole_number("input_size", input_size)))


def exact_multiplier(name: str, value: Multiplier) -> Fraction:
    """The multiplier as an exact Fraction: the float 0.1 is 1/10.

    Raises:
        DscalcError: it is not a number above 0.
    """
    try:
        multiplier = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise DscalcError(f"{name} must be a number such as 0.75 or 3/4, got {value!r}") from None
    if multiplier <= 0:
        raise DscalcError(f"{name} must be greater than 0, got {value}")
    return multiplier
