"""The real thing: modules, the cross-check, audits. All that imports torch and fvcore is here."""

from dscalc.pytorch.audit import Audit, audit
from dscalc.pytorch.crosscheck import crosscheck
from dscalc.pytorch.modules import DepthwiseSeparableConv, to_separable

__all__ = ["Audit", "DepthwiseSeparableConv", "audit", "crosscheck", "to_separable"]
