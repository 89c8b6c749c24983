"""What limits a layer besides arithmetic: bytes that must move, and FLOPs for each of them.

Times are microseconds (us), rates GFLOP/s, intensities FLOP/byte; 1 MAC is 2 FLOPs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from dscalc.core.cost import Cost

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
NOISY = 0.1  # of the median; an interquartile range above it is noise


def least_bytes(cost: Cost, bytes_per_element: int = 4) -> int:
    """Bytes that must move: inputs, weights, biases and outputs, once each.

    The whole input counts, even where a stride skips some of it. A block is the sum of its steps:
    the map between them is written by one and read by the other.

    Source: the compulsory traffic of Williams, Waterman, Patterson, Roofline, 2009; the memory
    access cost of Ma et al., ShuffleNet V2, 2018 (arXiv 1807.11164), section 2, guideline G1.
    """
    return (cost.inputs + cost.params + cost.activations) * bytes_per_element


def intensity(cost: Cost, bytes_per_element: int = 4) -> Fraction:
    """Arithmetic intensity in FLOP/byte.

    A layer is limited by memory where it is less than peak FLOP/s / bandwidth of the machine.
    Source: Williams, Waterman, Patterson, Roofline, 2009.
    """
    return Fraction(2 * cost.macs, least_bytes(cost, bytes_per_element))


@dataclass(frozen=True)
class Time:
    """Median and interquartile range of one candidate, in microseconds."""

    time_us: float
    time_iqr_us: float

    @property
    def noisy(self) -> bool:
        """Whether it varies too much to be quoted."""
        return self.time_iqr_us > NOISY * self.time_us

    def gflops_per_s(self, cost: Cost) -> float:
        """Achieved GFLOP/s."""
        return 2 * cost.macs / self.time_us / 1e3


@dataclass(frozen=True)
class Environment:
    """What a measurement depends on besides the layer."""

    device: str
    device_name: str
    torch_version: str
    threads: int
    dtype: str
    channels_last: bool
    compile: bool


@dataclass(frozen=True)
class Measurement:
    """The times of a row: of it as it is, of what it is rewritten as, and of each step alone."""

    as_is: Time
    rewritten: Time
    steps: Mapping[str, Time]
    environment: Environment

    @property
    def speedup(self) -> float:
        """Time as it is / rewritten."""
        return self.as_is.time_us / self.rewritten.time_us

    @property
    def noisy(self) -> bool:
        """Whether either time varies too much to be quoted."""
        return self.as_is.noisy or self.rewritten.noisy

    @property
    def bytes_per_element(self) -> int:
        """Of what was measured."""
        return BYTES_PER_ELEMENT[self.environment.dtype]
