"""The times of a row. Times are microseconds (us), rates GFLOP/s."""

from collections.abc import Mapping
from typing import NamedTuple

from dscalc.core.cost import Cost
from dscalc.core.roofline import BYTES_PER_ELEMENT

NOISY = 0.1  # of the median; an interquartile range above it is noise


class Time(NamedTuple):
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


class Environment(NamedTuple):
    """What a measurement depends on besides the layer."""

    device: str
    device_name: str
    torch_version: str
    threads: int
    dtype: str
    channels_last: bool
    compile: bool


class Measurement(NamedTuple):
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
