"""What a convolution costs, and what it costs as a depthwise separable convolution."""

from dscalc.core.blocks import Comparison, Counts, compare, scaled_channels, scaled_size
from dscalc.core.conv import Conv, conv_macs, conv_params, output_length
from dscalc.errors import CrosscheckError, DscalcError, FileError

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Conv",
    "Counts",
    "CrosscheckError",
    "DscalcError",
    "FileError",
    "compare",
    "conv_macs",
    "conv_params",
    "output_length",
    "scaled_channels",
    "scaled_size",
]
