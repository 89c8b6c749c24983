"""Memory limits of a layer: the bytes that must move, and the FLOPs per byte.

Intensities are FLOP/byte; 1 MAC is 2 FLOPs.
"""

from fractions import Fraction

from dscalc.core.cost import Cost


def least_bytes(cost: Cost, bytes_per_element: int = 4) -> int:
    """Bytes that must move: inputs, weights, biases and outputs, once each.

    The whole input counts, even if a stride skips some of it. A block is the sum of its steps: one
    step writes the map between them, and the next reads it.

    Source: the compulsory traffic of Williams, Waterman, Patterson, Roofline, 2009; the memory
    access cost of Ma et al., ShuffleNet V2, 2018 (arXiv 1807.11164), section 2, guideline G1.
    """
    return (cost.inputs + cost.params + cost.activations) * bytes_per_element


def intensity(cost: Cost, bytes_per_element: int = 4) -> Fraction:
    """Arithmetic intensity in FLOP/byte.

    Memory limits a layer if this is less than the peak FLOP/s / bandwidth of the machine. Source:
    Williams, Waterman, Patterson, Roofline, 2009.
    """
    return Fraction(2 * cost.macs, least_bytes(cost, bytes_per_element))
