"""Build the real modules of a comparison and let fvcore count them.

fvcore traces a real forward pass, so on ordinary tensors a count takes the time and memory of
running the layer. Here it costs the same for any layer:

- modules are built on the meta device, and each parameter is then replaced by ``torch.empty`` on
  the CPU: no initialisation, and memory that is reserved but never touched;
- the input has an empty batch: torch infers every real shape and computes nothing;
- a handle applies fvcore's own `conv_flop_count` to one sample of those shapes, and the count is
  multiplied by the batch size.

fvcore's "flops" are MACs; from here on they are called MACs.
"""

from collections import Counter
from typing import Any

import fvcore
import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import nn

from dscalc.core.blocks import Step
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost
from dscalc.core.row import Counted, Row, proved
from dscalc.errors import CrosscheckError
from dscalc.pytorch.modules import block_module
from dscalc.show import first_line


def crosscheck(row: Row) -> Row:
    """The row with the counts of fvcore and torch on its real modules, and the verdict.

    Raises:
        CrosscheckError: torch cannot build or run a layer of these sizes, or fvcore met an operator
            that it cannot count.
    """
    return proved(row, count)


def count(steps: tuple[Step, ...]) -> Counted:
    """MACs by fvcore and params by torch on real modules, by step; "" is all steps.

    Raises:
        CrosscheckError: torch cannot build or run a layer of these sizes, or fvcore met an operator
            that it cannot count.
    """
    if not steps:
        return {"": Cost(0, 0)}
    try:
        with torch._C.DisableTorchFunction():  # torch.jit cannot trace under a user's modes
            return _count_module(block_module(steps, "meta"), steps[0])
    except CrosscheckError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise CrosscheckError(
            f"torch refuses a layer of these sizes, so it is not counted ({reason})"
        ) from error


def versions() -> str:
    """The versions of fvcore and torch, in words."""
    return f"fvcore {fvcore.__version__} on torch {torch.__version__}"


def _count_module(module: nn.Module, first: Step) -> Counted:
    """Counts of a module on the meta device and of its parts; ``first`` is its first step."""
    layer = first.layer
    if isinstance(layer, Conv):
        batch_size, sample = layer.batch_size, (layer.in_channels, *layer.input_size)
    else:
        assert layer is not None
        batch_size, sample = 1, (layer.channels,)
    _reserve_parameters(module)
    analysis = FlopCountAnalysis(module, torch.empty(0, *sample))
    handles = {
        "aten::_convolution": _conv_per_sample,
        "aten::_convolution_mode": _conv_per_sample,  # string padding: fvcore has no handle
        "aten::linear": _linear_per_sample,
        "aten::pad": None,  # without MACs
        "aten::group_norm": None,
    }
    analysis.set_op_handle(**handles)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    macs = analysis.by_module()
    if uncounted := analysis.unsupported_ops():
        raise CrosscheckError(f"fvcore cannot count {', '.join(sorted(uncounted))}")
    return {
        name: Cost(macs[name] * batch_size, sum(p.numel() for p in part.parameters()))
        for name, part in module.named_modules()
    }


def _reserve_parameters(module: nn.Module) -> None:
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            reserved = nn.Parameter(torch.empty(parameter.shape), requires_grad=False)
            setattr(part, name, reserved)


def _conv_per_sample(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count a convolution as fvcore does; the empty batch counts as one sample."""
    _, *input_shape = get_shape(inputs[0])
    _, *output_shape = get_shape(outputs[0])
    weight_shape = get_shape(inputs[1])
    # aten::_convolution_mode has no transposed form.
    transposed = len(inputs) > 7 and bool(inputs[6].toIValue())
    macs = conv_flop_count([1, *input_shape], weight_shape, [1, *output_shape], transposed)
    return Counter(conv=macs)


def _linear_per_sample(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count in_features * out_features; the empty batch counts as one sample."""
    return Counter(linear=get_shape(inputs[0])[-1] * get_shape(outputs[0])[-1])
