"""What limits a layer besides arithmetic: bytes that must move, and FLOPs for each of them.

Intensities are FLOP/byte; 1 MAC is 2 FLOPs.
"""

from fractions import Fraction
from typing import NamedTuple

from dscalc.core.cost import Cost

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


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
