"""The real thing: modules, the cross-check, audits. All that imports torch and fvcore is here."""

import warnings

with warnings.catch_warnings():
    # It compiles its loss functions, which no one here uses, with torch.jit.script.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    import fvcore.nn  # noqa: F401  # so that later imports of it are silent

from dscalc.pytorch.audit import audit
from dscalc.pytorch.crosscheck import crosscheck
from dscalc.pytorch.modules import DepthwiseSeparableConv
from dscalc.pytorch.rewrite import to_separable

__all__ = ["DepthwiseSeparableConv", "audit", "crosscheck", "to_separable"]
