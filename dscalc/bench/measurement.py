"""The times of a row, and what they decide. Times are microseconds (us), rates GFLOP/s."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb
from typing import Literal, NamedTuple

from dscalc.core.cost import Cost
from dscalc.core.roofline import least_bytes

SpeedVerdict = Literal["faster", "slower", "not decided"]

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
NOISY = 0.1  # of the median; an interquartile range above it is noise
# How often the times are looked at before they decide, and how often an interval may miss: of two
# equal candidates less than one in a hundred is called faster or slower.
LOOKS = 3
MISSES = Fraction(1, 100) / LOOKS
# Two copies of one module can differ by as much, by where they lie in memory: Mytkowicz et al.,
# Producing wrong data without doing anything obviously wrong, 2009.
ALIKE = 1.02
WIDE = 2  # an interval whose ends are further apart leaves the factor open
FAULT_US = 1.0  # about what a minor page fault takes
_FAULTS_MATTER = 0.05  # of a time


class Turn(NamedTuple):
    """Some runs of a candidate, timed together.

    Args:
        seconds: of all runs.
        runs: how many.
        faults: minor page faults of the process meanwhile; None where the system does not tell.
        disturbed: whether another process held back one of several threads. The others then wait
            for it, once for each convolution, as long as the scheduler pleases: a turn that says
            nothing of the layer.
    """

    seconds: float
    runs: int
    faults: int | None = None
    disturbed: bool = False

    @property
    def time_us(self) -> float:
        """A run, in microseconds."""
        return self.seconds / self.runs * 1e6


class Time(NamedTuple):
    """Median and interquartile range of one candidate, in microseconds, and its page faults.

    Args:
        page_faults: minor page faults a run, the median over its turns; None where the system
            does not tell. They are near 0 where the allocator keeps its memory.
    """

    time_us: float
    time_iqr_us: float
    page_faults: float | None = None

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> "Time":
        """The time that turns show, of which there is at least one."""
        from statistics import median, quantiles  # which every table would load

        taken = [turn.time_us for turn in turns]
        lower, middle, upper = quantiles(taken * 2, n=4, method="inclusive")  # it needs two
        faults = [turn.faults / turn.runs for turn in turns if turn.faults is not None]
        return cls(middle, upper - lower, median(faults) if faults else None)

    @property
    def noisy(self) -> bool:
        """Whether it varies too much to be quoted."""
        return self.time_iqr_us > NOISY * self.time_us

    @property
    def faults_matter(self) -> bool:
        """Whether page faults are a part of it worth telling."""
        return (self.page_faults or 0) * FAULT_US > _FAULTS_MATTER * self.time_us


class Speedup(NamedTuple):
    """Time as it is / rewritten: the median over pairs of turns, and its interval.

    The turns of a pair came within a moment of each other, so that a machine that slows down does
    so for both. The interval is that of the sign test: it supposes nothing of how times are
    distributed. Disturbed turns do not count. ``low`` and ``high`` are None where there are too few
    pairs for one.
    """

    median: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, as_is: Sequence[Turn], rewritten: Sequence[Turn]) -> "Speedup":
        """From the turns of both, of which each pair stands at the same place."""
        from statistics import median

        pairs = list(zip(as_is, rewritten, strict=False))
        quiet = [pair for pair in pairs if not any(turn.disturbed for turn in pair)]
        ratios = [a.time_us / b.time_us for a, b in quiet or pairs[:1]]
        return cls(median(ratios), *(sign_interval(ratios) or (None, None)))

    @property
    def verdict(self) -> SpeedVerdict:
        """Whether rewritten is faster: decided where all of a narrow interval says so."""
        if self.low is None or self.high is None or self.high > WIDE * self.low:
            return "not decided"
        if self.low > ALIKE:
            return "faster"
        return "slower" if self.high < 1 / ALIKE else "not decided"

    @property
    def decided(self) -> bool:
        """Whether it is."""
        return self.verdict != "not decided"

    @property
    def factor(self) -> float | None:
        """The median, where that is decided."""
        return self.median if self.decided else None


def sign_interval(values: Sequence[float], misses: Fraction = MISSES) -> tuple[float, float] | None:
    """Two of the values between which their true median lies, but for a chance of ``misses``.

    None where there are too few values to say so. The number of values below the true median is
    binomial, with one half for each.

    Source: Conover, Practical Nonparametric Statistics, 1999, section 3.2.
    """
    ordered, ways = sorted(values), 2 ** len(values)
    rank = below = 0  # how many values to leave out at each end, and in how many ways
    while 2 * (below := below + comb(len(ordered), rank)) <= misses * ways:
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else None


class Limits(NamedTuple):
    """What a machine can do at the most, as it was measured.

    Args:
        peak_gflops_per_s: of a matrix product.
        bandwidth_gb_per_s: of a copy, read and written, of as many bytes as are asked about, so
            that what fits in a cache is held against that cache.
    """

    peak_gflops_per_s: float
    bandwidth_gb_per_s: float

    def least_us(self, flops: int, moved: int) -> float:
        """Microseconds that so many FLOPs and bytes take at the least, the two at once.

        Source: Williams, Waterman, Patterson, Roofline, 2009.
        """
        return max(flops / self.peak_gflops_per_s, moved / self.bandwidth_gb_per_s) / 1e3

    def is_memory(self, flops: int, moved: int) -> bool:
        """Whether moving the bytes takes longer than the FLOPs."""
        return moved / self.bandwidth_gb_per_s > flops / self.peak_gflops_per_s


class Environment(NamedTuple):
    """What a measurement depends on besides the layer."""

    device: str
    device_name: str
    torch_version: str
    threads: int
    dtype: str
    channels_last: bool
    compile: bool
    backward: bool = False


class Measurement(NamedTuple):
    """What was measured of a row.

    Args:
        as_is, rewritten: the times of both.
        steps: of each step alone, where that was asked for.
        environment: where and how.
        speedup: which of both is faster.
        limits: of the machine.
    """

    as_is: Time
    rewritten: Time
    steps: Mapping[str, Time]
    environment: Environment
    speedup: Speedup
    limits: Limits

    @property
    def noisy(self) -> bool:
        """Whether either time varies too much to be quoted."""
        return self.as_is.noisy or self.rewritten.noisy

    @property
    def bytes_per_element(self) -> int:
        """Of what was measured."""
        return BYTES_PER_ELEMENT[self.environment.dtype]

    @property
    def passes(self) -> int:
        """How often the MACs and bytes of a forward pass were spent.

        The gradients of the input and of the weights take as much as the forward pass each.
        """
        return 3 if self.environment.backward else 1

    def gflops_per_s(self, time: Time, cost: Cost) -> float:
        """Achieved GFLOP/s."""
        return 2 * cost.macs * self.passes / time.time_us / 1e3

    def least_us(self, cost: Cost) -> float:
        """What its MACs and bytes take on this machine at the least."""
        moved = least_bytes(cost, self.bytes_per_element)
        return self.passes * self.limits.least_us(2 * cost.macs, moved)

    def most_speedup(self, rewritten: Cost) -> float:
        """Time as it is / the least that what it is rewritten as takes on this machine."""
        return self.as_is.time_us / self.least_us(rewritten)
