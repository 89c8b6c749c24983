"""The times of a row, and the verdict on them. Times are microseconds (us), rates GFLOP/s."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb
from typing import Literal, NamedTuple

from dscalc.core.cost import Cost
from dscalc.core.roofline import least_bytes
from dscalc.show import plural

Device = Literal["cpu", "cuda", "mps"]
Dtype = Literal["float32", "bfloat16", "float16"]
SpeedVerdict = Literal["faster", "slower", "not decided"]

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
NOISY = 0.1  # of the median; an interquartile range above it is noise
# How often the times may decide, and how often an interval may miss: then fewer than 1 in 100 pairs
# of equal candidates get the verdict faster or slower.
LOOKS = 3
MISSES = Fraction(1, 100) / LOOKS
# Two processes can differ by this factor in the same speed-up, by where things lie in memory, which
# no interval within one of them knows: Mytkowicz et al., Producing wrong data without doing
# anything obviously wrong, 2009. docs/latency.md has what was measured.
ALIKE = 1.10
WIDE = 2  # if the ends of an interval differ by more, nothing is decided
FAULT_US = 1.0  # about the time of a minor page fault
_FAULTS_MATTER = 0.05  # of the time


class Turn(NamedTuple):
    """Some runs of a candidate, timed together.

    Args:
        seconds: total of all runs.
        runs: number of runs.
        faults: minor page faults of the process in that time; None if the system does not tell.
        disturbed: whether another process held back one of several threads. The others then wait
            for it, once per convolution, as long as the scheduler pleases. Such a turn says nothing
            about the layer.
    """

    seconds: float
    runs: int
    faults: int | None = None
    disturbed: bool = False

    @property
    def time_us(self) -> float:
        """Microseconds per run."""
        return self.seconds / self.runs * 1e6


class Time(NamedTuple):
    """Median and interquartile range of one candidate, in microseconds, and its page faults.

    Args:
        page_faults: minor page faults per run, the median over its turns; None if the system does
            not tell. They are near 0 if the allocator keeps its memory.
    """

    time_us: float
    time_iqr_us: float
    page_faults: float | None = None

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> "Time":
        """The time of one or more turns."""
        from statistics import median, quantiles  # else every table would load it

        taken = [turn.time_us for turn in turns]
        lower, middle, upper = quantiles(taken * 2, n=4, method="inclusive")  # it needs two values
        faults = [turn.faults / turn.runs for turn in turns if turn.faults is not None]
        return cls(middle, upper - lower, median(faults) if faults else None)

    @property
    def noisy(self) -> bool:
        """Whether the time varies too much to quote it."""
        return self.time_iqr_us > NOISY * self.time_us

    @property
    def faults_matter(self) -> bool:
        """Whether page faults are a part of the time worth reporting."""
        return (self.page_faults or 0) * FAULT_US > _FAULTS_MATTER * self.time_us


class Speedup(NamedTuple):
    """Time as it is / rewritten: the median over pairs of turns, and its interval.

    The turns of a pair run close together, so that a slow moment of the machine affects both. The
    interval is that of the sign test, which assumes no distribution of times. Pairs with a
    disturbed turn do not count. ``low`` and ``high`` are None if there are too few pairs.
    """

    median: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, as_is: Sequence[Turn], rewritten: Sequence[Turn]) -> "Speedup":
        """The speed-up from the turns of both; turns at the same place are a pair."""
        from statistics import median

        pairs = list(zip(as_is, rewritten, strict=False))
        quiet = [pair for pair in pairs if not any(turn.disturbed for turn in pair)]
        ratios = [a.time_us / b.time_us for a, b in quiet or pairs[:1]]
        return cls(median(ratios), *(sign_interval(ratios) or (None, None)))

    @property
    def verdict(self) -> SpeedVerdict:
        """Whether rewritten is faster, decided if the interval is narrow and all of it agrees."""
        if self.low is None or self.high is None or self.high > WIDE * self.low:
            return "not decided"
        if self.low > ALIKE:
            return "faster"
        return "slower" if self.high < 1 / ALIKE else "not decided"

    @property
    def decided(self) -> bool:
        """Whether the verdict is faster or slower."""
        return self.verdict != "not decided"

    @property
    def too_close(self) -> bool:
        """Whether it is not decided, and measuring longer tells less than another run."""
        if self.decided or self.low is None or self.high is None:
            return False
        return self.high <= ALIKE * self.low

    @property
    def factor(self) -> float | None:
        """The median; None if it is not decided which is faster."""
        return self.median if self.decided else None


def sign_interval(values: Sequence[float], misses: Fraction = MISSES) -> tuple[float, float] | None:
    """An interval that misses the true median with a chance of at most ``misses``.

    Its ends are two of the values; None if there are too few values. The number of values below the
    true median is binomial, with probability one half.

    Source: Conover, Practical Nonparametric Statistics, 1999, section 3.2.
    """
    ordered, ways = sorted(values), 2 ** len(values)
    rank = below = 0  # values to leave out at each end, and in how many ways
    while 2 * (below := below + comb(len(ordered), rank)) <= misses * ways:
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else None


class Limits(NamedTuple):
    """The measured limits of a machine.

    Args:
        peak_gflops_per_s: highest rate of a matrix product and of all that was timed.
        bandwidth_gb_per_s: rate of a copy, reads and writes together, of as many bytes as the layer
            moves: a layer that fits in a cache is compared with that cache.
    """

    peak_gflops_per_s: float
    bandwidth_gb_per_s: float

    def least_us(self, flops: int, moved: int) -> float:
        """The least microseconds for so many FLOPs and bytes, done at the same time.

        Source: Williams, Waterman, Patterson, Roofline, 2009.
        """
        return max(flops / self.peak_gflops_per_s, moved / self.bandwidth_gb_per_s) / 1e3

    def is_memory(self, flops: int, moved: int) -> bool:
        """Whether moving the bytes takes longer than the FLOPs."""
        return moved / self.bandwidth_gb_per_s > flops / self.peak_gflops_per_s


class Environment(NamedTuple):
    """The conditions of a measurement, besides the layer."""

    device: str
    device_name: str
    torch_version: str
    threads: int
    dtype: str
    channels_last: bool
    compile: bool
    backward: bool = False

    @property
    def machine(self) -> str:
        """The device, the threads of a CPU, and the dtype."""
        threads = f", {self.threads} {plural('thread', self.threads)}"
        return f"{self.device_name}{threads if self.device == 'cpu' else ''}, {self.dtype}"

    @property
    def passes(self) -> int:
        """How many times a run spends the MACs and bytes of a forward pass.

        The gradients of the input and of the weights take as many as the forward pass each.
        """
        return 3 if self.backward else 1

    def gflops_per_s(self, time: Time, cost: Cost) -> float:
        """Achieved GFLOP/s."""
        return 2 * cost.macs * self.passes / time.time_us / 1e3


class Measurement(NamedTuple):
    """The measurement of a row.

    Args:
        as_is, rewritten: the times of both.
        steps: the time of each step alone, if the steps were timed.
        environment: the conditions.
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
        """Whether either time varies too much to quote it."""
        return self.as_is.noisy or self.rewritten.noisy

    @property
    def bytes_per_element(self) -> int:
        """Bytes per element of the measured dtype."""
        return BYTES_PER_ELEMENT[self.environment.dtype]

    def least_us(self, cost: Cost) -> float:
        """The least microseconds for the MACs and bytes of a cost on this machine."""
        moved = least_bytes(cost, self.bytes_per_element)
        return self.environment.passes * self.limits.least_us(2 * cost.macs, moved)

    def most_speedup(self, rewritten: Cost) -> float:
        """The greatest possible speed-up here: time as it is / the least time rewritten."""
        return self.as_is.time_us / self.least_us(rewritten)
