"""Build the real modules of a comparison and let fvcore count them.

fvcore traces a real forward pass, so that on ordinary tensors counting costs as much time and
memory as running the layer. Here it costs the same for any layer, with public calls alone:

- modules are built on the meta device, and each parameter then replaced by ``torch.empty`` on the
  CPU: no initialisation, and memory that is reserved but never touched;
- the input has an empty batch: torch infers every real shape and computes nothing;
- a handle applies fvcore's own `conv_flop_count` to one sample of those shapes, and the count is
  multiplied by the batch size.

What fvcore calls "flops" are MACs; they have that name from here on.
"""

from collections import Counter
from typing import Any

import fvcore
import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import nn

from dscalc.comparison import Comparison, Counts
from dscalc.conv import Conv
from dscalc.errors import CrosscheckError
from dscalc.network import Layer
from dscalc.pytorch.modules import convolution, separable_convolution

_COST_FREE = {"aten::pad"}  # operators without a handle that hold no MACs


def crosscheck(layer: Comparison | Layer) -> Counts:
    """MACs as fvcore counts them, and parameters as torch holds them, on real modules.

    Equal to ``layer.counts`` where the formulas are right.

    Raises:
        CrosscheckError: torch cannot build or run a layer of these sizes, or fvcore met an
            operator that it cannot count.
    """
    try:
        if isinstance(layer, Comparison):
            return _comparison(layer)
        return _comparison(layer.comparison) if layer.comparison else _parameters(layer)
    except CrosscheckError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CrosscheckError(
            f"torch refuses a layer of these sizes, so it is not counted ({reason})"
        ) from error


def _parameters(layer: Layer) -> Counts:
    """The counts of a pool or a norm, which have no MACs."""
    module = (
        nn.MaxPool2d(1)
        if layer.kind == "pool"
        else nn.BatchNorm2d(layer.in_channels, device="meta")
    )
    params = sum(p.numel() for p in module.parameters())
    return Counts(0, params, None, None, None, None, 0, params)


def versions() -> str:
    """What counts."""
    return f"fvcore {fvcore.__version__} on torch {torch.__version__}"


def _comparison(comparison: Comparison) -> Counts:
    standard = _count(convolution(comparison.standard, "meta"), comparison.standard)
    depthwise, pointwise = comparison.depthwise, comparison.pointwise
    if depthwise and pointwise:
        separable = _count(separable_convolution(depthwise, pointwise, "meta"), depthwise)
    elif part := depthwise or pointwise:
        alone = _count(convolution(part, "meta"), part)
        separable = {**alone, "depthwise" if depthwise else "pointwise": alone[""]}
    else:
        separable = standard
    parts = (standard[""], separable.get("depthwise"), separable.get("pointwise"), separable[""])
    return Counts._make(count for part in parts for count in part or (None, None))


def _count(module: nn.Module, first: Conv) -> dict[str, tuple[int, int]]:
    """(MACs, parameters) of a module on the meta device and of each of its submodules, by name.

    ``first`` is the convolution that receives the input.
    """
    _reserve_parameters(module)
    inputs = torch.empty(0, first.in_channels, *first.input_size)
    analysis = FlopCountAnalysis(module, inputs)
    analysis.set_op_handle(
        "aten::_convolution",
        _conv_per_sample,
        "aten::_convolution_mode",
        _conv_per_sample,  # with string padding; fvcore has no handle
        "aten::linear",
        _linear_per_sample,
    )
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    macs = analysis.by_module()
    uncounted = analysis.unsupported_ops().keys() - _COST_FREE
    if uncounted:
        raise CrosscheckError(f"fvcore cannot count {', '.join(sorted(uncounted))}")
    return {
        name: (macs[name] * first.batch_size, sum(p.numel() for p in part.parameters()))
        for name, part in module.named_modules()
    }


def _reserve_parameters(module: nn.Module) -> None:
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            reserved = nn.Parameter(torch.empty(parameter.shape), requires_grad=False)
            setattr(part, name, reserved)


def _conv_per_sample(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count a convolution as fvcore does, with the empty batch taken as one sample."""
    _, *input_shape = get_shape(inputs[0])
    _, *output_shape = get_shape(outputs[0])
    weight_shape = get_shape(inputs[1])
    transposed = is_transposed(inputs)
    macs = conv_flop_count([1, *input_shape], weight_shape, [1, *output_shape], transposed)
    return Counter(conv=macs)


def is_transposed(inputs: list[Any]) -> bool:
    """Whether a convolution in a trace is: aten::_convolution says; with string padding none is."""
    return bool(inputs[6].toIValue()) if len(inputs) > 7 else False


def _linear_per_sample(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count in_features * out_features, with the empty batch taken as one sample."""
    return Counter(linear=get_shape(inputs[0])[-1] * get_shape(outputs[0])[-1])
