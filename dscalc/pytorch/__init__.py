"""The real thing: modules, the cross-check, audits. All that imports torch and fvcore is here."""

import logging
import warnings
from contextlib import ExitStack

with warnings.catch_warnings(), ExitStack() as afterwards:  # so that later imports are silent
    # fvcore compiles its loss functions, which no one here uses, with torch.jit.script.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    # A torch for CUDA without triton, as on Windows, logs that it does not count triton's kernels.
    log = logging.getLogger("torch.utils.flop_counter")
    afterwards.callback(setattr, log, "disabled", log.disabled)
    log.disabled = True
    import fvcore.nn  # noqa: F401
    import torch.utils.flop_counter  # noqa: F401

from dscalc.pytorch.audit import audit
from dscalc.pytorch.crosscheck import crosscheck
from dscalc.pytorch.modules import DepthwiseSeparableConv
from dscalc.pytorch.rewrite import to_separable

__all__ = ["DepthwiseSeparableConv", "audit", "crosscheck", "to_separable"]
