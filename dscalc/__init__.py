"""Exact MACs and parameters of a convolution and of its depthwise separable replacement."""

from typing import Any

from dscalc._version import __version__
from dscalc.core.blocks import BLOCKS, Block
from dscalc.core.conv import Conv, conv_macs, conv_params, output_length
from dscalc.core.cost import Cost
from dscalc.core.row import Row
from dscalc.core.scale import scaled_channels, scaled_size
from dscalc.errors import CrosscheckError, DscalcError, FileError
from dscalc.library import blocks, compare, network

__all__ = [
    "BLOCKS",
    "Block",
    "Conv",
    "Cost",
    "CrosscheckError",
    "DscalcError",
    "FileError",
    "Row",
    "__version__",
    "blocks",
    "compare",
    "conv_macs",
    "conv_params",
    "network",
    "output_length",
    "scaled_channels",
    "scaled_size",
]


def __dir__() -> list[str]:
    """All names, with those that are imported when they are first asked for."""
    from dscalc.slices import SLICES

    return sorted({*globals(), *(call for slice_ in SLICES.values() for call in slice_.calls)})


def __getattr__(name: str) -> Any:
    """A function of a slice, imported when it is first asked for."""
    from dscalc.slices import find_call

    if (found := find_call(name)) is None:
        raise AttributeError(f"module 'dscalc' has no attribute {name!r}")
    return found
