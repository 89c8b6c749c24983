"""What the times of a layer mean: its roofline, the record of a measurement and its verdict.

Fewer MACs are not always less time: beside each time stand the bytes that must move and the
arithmetic intensity, which say whether a layer can be limited by memory rather than arithmetic.
Times are microseconds (us), rates GFLOP/s, intensities FLOP/byte; 1 MAC is 2 FLOPs.
"""

from fractions import Fraction
from math import prod
from typing import NamedTuple

from dscalc.core.blocks import Comparison
from dscalc.core.conv import Conv
from dscalc.core.describe import described
from dscalc.errors import DscalcError
from dscalc.record.fields import record

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
NOISY = 0.1  # of the median; an interquartile range above it is noise


class Time(NamedTuple):
    """Median and interquartile range of one candidate, in microseconds."""

    time_us: float
    time_iqr_us: float


class Measurement(NamedTuple):
    """The times of a layer: the standard module, the separable one, and its parts alone."""

    standard: Time
    depthwise: Time
    pointwise: Time
    separable: Time


class Environment(NamedTuple):
    """What a measurement depends on besides the layer."""

    device: str
    device_name: str
    torch_version: str
    threads: int
    dtype: str
    channels_last: bool
    compile: bool


class BenchRecord(NamedTuple):
    """One measured layer, flat; what it shares with `dscalc.record.fields.Record` means the same.

    MACs and bytes are exact ints, ratios and intensities of them exact Fractions; what was
    measured, and what is derived from it, is a float. ``speedup`` is standard / separable time.
    """

    name: str | None
    kind: str
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    depth_multiplier: int
    bias: bool
    depthwise_bias: bool
    batch_size: int
    standard_macs: int
    depthwise_macs: int
    pointwise_macs: int
    separable_macs: int
    mac_ratio: Fraction
    mac_reduction: Fraction
    standard_time_us: float
    standard_time_iqr_us: float
    depthwise_time_us: float
    depthwise_time_iqr_us: float
    pointwise_time_us: float
    pointwise_time_iqr_us: float
    separable_time_us: float
    separable_time_iqr_us: float
    speedup: float
    standard_gflops_per_s: float
    separable_gflops_per_s: float
    standard_bytes: int
    depthwise_bytes: int
    pointwise_bytes: int
    separable_bytes: int
    standard_intensity: Fraction
    separable_intensity: Fraction
    noisy: bool
    device: str
    device_name: str
    torch_version: str
    threads: int
    dtype: str
    channels_last: bool
    compile: bool


def bench_record(
    layer: Comparison,
    measurement: Measurement,
    environment: Environment,
    name: str | None = None,
) -> BenchRecord:
    """The record of a measured layer; runs nothing.

    Raises:
        DscalcError: the layer lacks a part.
    """
    depthwise, pointwise = parts(layer)
    size = BYTES_PER_ELEMENT[environment.dtype]
    standard_bytes = least_bytes(layer.standard, size)
    depthwise_bytes, pointwise_bytes = least_bytes(depthwise, size), least_bytes(pointwise, size)
    separable_bytes = depthwise_bytes + pointwise_bytes
    standard, separable = measurement.standard, measurement.separable
    shared = record(layer, name=name)._asdict()
    return BenchRecord(
        **{field: shared[field] for field in BenchRecord._fields if field in shared},
        **{
            f"{part}_{field}": value
            for part, time in measurement._asdict().items()
            for field, value in time._asdict().items()
        },
        speedup=standard.time_us / separable.time_us,
        standard_gflops_per_s=gflops_per_s(layer.standard.macs, standard.time_us),
        separable_gflops_per_s=gflops_per_s(layer.separable_macs, separable.time_us),
        standard_bytes=standard_bytes,
        depthwise_bytes=depthwise_bytes,
        pointwise_bytes=pointwise_bytes,
        separable_bytes=separable_bytes,
        standard_intensity=intensity(layer.standard.macs, standard_bytes),
        separable_intensity=intensity(layer.separable_macs, separable_bytes),
        noisy=any(time.time_iqr_us > NOISY * time.time_us for time in (standard, separable)),
        **environment._asdict(),
    )


def least_bytes(conv: Conv, bytes_per_element: int) -> int:
    """Bytes that one convolution must move: its input, weights, biases and output, once each.

    The whole input counts, even where a stride skips some of it. A separable convolution is the
    sum of its parts: the map between them is written by one and read by the other.

    Source: the compulsory traffic of Williams, Waterman, Patterson, Roofline, 2009; the memory
    access cost of Ma et al., ShuffleNet V2, 2018 (arXiv 1807.11164), section 2, guideline G1.
    """
    inputs = conv.batch_size * conv.in_channels * prod(conv.input_size)
    outputs = conv.batch_size * conv.out_channels * prod(conv.output_size)
    return (inputs + conv.params + outputs) * bytes_per_element


def intensity(macs: int, moved_bytes: int) -> Fraction:
    """Arithmetic intensity in FLOP/byte.

    A layer is limited by memory where it is less than peak FLOP/s / bandwidth of the machine.
    Source: Williams, Waterman, Patterson, Roofline, 2009.
    """
    return Fraction(2 * macs, moved_bytes)


def gflops_per_s(macs: int, time_us: float) -> float:
    """Achieved GFLOP/s."""
    return 2 * macs / time_us / 1e3


def verdict_sentence(record: BenchRecord) -> str:
    """What a measurement says, such as "8.84x fewer MACs, 6.8x faster".

    A slower layer is explained by its bytes and intensity alone; a noisy one is called noisy.
    """
    saved, gained = record.mac_reduction, record.speedup
    surprising = _sign(saved) * _sign(gained) < 0
    sentence = (
        _compared(saved, "fewer MACs", "more MACs", "about as many MACs")
        + (", but " if surprising else ", ")
        + _compared(gained, "faster", "slower", "about as fast")
    )
    if record.noisy:  # what noise may have done needs no other explanation
        spread = max(
            record.standard_time_iqr_us / record.standard_time_us,
            record.separable_time_iqr_us / record.separable_time_us,
        )
        return (
            f"{sentence}; noisy: the interquartile range is {_short(100 * spread)}% of the median "
            f"time (more than {NOISY:.0%}), so measure again on a quiet machine"
        )
    return f"{sentence}: {_why_slower(record)}" if _sign(gained) < 0 else sentence


def parts(layer: Comparison) -> tuple[Conv, Conv]:
    """The depthwise and the pointwise part of a layer that has both."""
    if layer.depthwise is None or layer.pointwise is None:
        raise DscalcError(
            f"a measured layer must have a depthwise and a pointwise part, and {described(layer)} "
            "has not; use compare() to make it"
        )
    return layer.depthwise, layer.pointwise


def _why_slower(record: BenchRecord) -> str:
    numbers = (
        f"moves {amount(record.separable_bytes)} in place of {amount(record.standard_bytes)} "
        f"and does {_short(record.separable_intensity)} FLOP per byte "
        f"in place of {_short(record.standard_intensity)}"
    )
    if record.separable_bytes > record.standard_bytes or record.mac_reduction < 1:
        return f"it {numbers}"
    # Less arithmetic and less traffic: a roofline has it faster, so the reason lies elsewhere.
    return f"bytes and intensity do not explain it, since it {numbers}"


def _compared(ratio: Fraction | float, more: str, less: str, even: str) -> str:
    sign = _sign(ratio)
    return f"{_short(ratio**sign)}x {more if sign > 0 else less}" if sign else even


def _sign(ratio: Fraction | float) -> int:
    """1 for more than one, -1 for less, 0 where three digits cannot tell."""
    if _short(max(ratio, 1 / ratio)) == "1":
        return 0
    return 1 if ratio > 1 else -1


def _short(value: Fraction | float) -> str:
    """Three significant digits, and no exponent."""
    return f"{float(value):.3g}" if value < 999.5 else f"{float(value):,.0f}"


def amount(count: int) -> str:
    """Bytes in a unit that people read: 13.2 MB."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            amount = count / size
            return f"{amount:.4g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"
    return f"{count} bytes"
