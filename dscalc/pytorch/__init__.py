"""The real thing: modules, the cross-check. The only folder that imports torch and fvcore."""

from dscalc.pytorch.crosscheck import crosscheck
from dscalc.pytorch.modules import DepthwiseSeparableConv

__all__ = ["DepthwiseSeparableConv", "crosscheck"]
