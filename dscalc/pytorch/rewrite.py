"""Rewrite the eligible convolutions of a model as a block; say why others are kept."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dscalc.core.blocks import SEPARABLE, Block, why_kept, why_unfit
from dscalc.core.conv import Conv, span
from dscalc.core.patterns import Patterns, chosen
from dscalc.errors import DscalcError
from dscalc.pytorch.modules import CONVOLUTIONS, BlockModule, DepthwiseSeparableConv, block_module
from dscalc.pytorch.walk import named_modules, own_parameters
from dscalc.show import first_line

_DESCRIBING = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    *("padding_mode", "output_padding", "transposed"),
)


def to_separable(
    model: nn.Module, only: Patterns | None = None, exclude: Patterns | None = None
) -> nn.Module:
    """Copy a model, with depthwise separable convolutions in place of its eligible ones.

    An ungrouped ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d`` is eligible if it costs fewer MACs
    that way and shares no weight. The model itself does not change. The new modules have fresh
    weights, and the stride, padding, dilation, bias, dtype, device and training flag of those that
    they replace.

    Args:
        model: any module.
        only: globs on module paths, such as ``"layer1.*"``; all others are kept.
        exclude: globs on module paths to keep.

    Raises:
        DscalcError: a glob matches no convolution, or the model cannot be copied.
    """
    twin = copied(model)
    made = replacements(twin, reasons_to_keep(model, SEPARABLE, only, exclude), _as_separable)
    modules = dict(named_modules(twin))
    in_place_of = {id(modules[path]): built for path, built in made.items()}
    for parent in modules.values():
        for name, child in list(parent._modules.items()):  # a module may have a child twice
            if id(child) in in_place_of:
                setattr(parent, name, in_place_of[id(child)])
    return in_place_of.get(id(twin), twin)


def _as_separable(module: _ConvNd) -> BlockModule:
    """A `DepthwiseSeparableConv` with the options of the convolution."""
    padding: Any = module.padding
    mode: Any = module.padding_mode
    built = DepthwiseSeparableConv(
        module.in_channels, module.out_channels, module.kernel_size, module.stride, padding,
        module.dilation, bias=module.bias is not None, padding_mode=mode,
        device=module.weight.device, dtype=module.weight.dtype, dims=len(module.kernel_size),
    )  # fmt: skip
    return _described_as(module, built)


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, and tensors that torch does not copy by itself: results of a forward pass.

    Raises:
        DscalcError: something in the model cannot be copied, or it is not a model.
    """
    if not isinstance(model, nn.Module):
        fix = "; call it to make one" if isinstance(model, type) else ""
        raise DscalcError(f"a model is an nn.Module, got {model!r:.80}{fix}")
    memo: dict[int, Any] = {}
    for _, module in named_modules(model):
        for tensor in (*vars(module).values(), *module._buffers.values()):
            if isinstance(tensor, UninitializedBuffer):
                empty: Any = UninitializedBuffer  # its type stub has other arguments
                memo[id(tensor)] = empty(False, tensor.device, tensor.dtype)
            elif isinstance(tensor, Tensor) and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # the model's own attributes can raise anything
        reason = first_line(error)
        raise DscalcError(
            f"the model cannot be copied, and dscalc rewrites only a copy ({reason})"
        ) from error


def reasons_to_keep(
    model: nn.Module,
    block: Block,
    only: Patterns | None = None,
    exclude: Patterns | None = None,
    *,
    at_any_size: bool = False,
) -> dict[str, str]:
    """Why each convolution stays as it is, by module path; "" if it is eligible.

    Args:
        model: any module.
        block: what convolutions are rewritten as.
        only: globs on module paths: only those are rewritten.
        exclude: globs on module paths that are not rewritten.
        at_any_size: whether one is eligible that saves nothing on a map as large as its kernel, as
            it may on another; by default it is not.

    Raises:
        DscalcError: a glob matches no convolution.
    """
    convolutions = {
        path: module for path, module in named_modules(model) if isinstance(module, _ConvNd)
    }
    owners = Counter(
        id(held) for _, module in named_modules(model) for held in own_parameters(module).values()
    )
    why = why_unfit if at_any_size else why_kept
    wanted = chosen(convolutions, only, exclude, "convolution of the model")
    return {
        path: (
            _reason_to_keep(module, owners[id(module._parameters.get("weight"))], block, why)
            if path in wanted
            else "excluded"
        )
        for path, module in convolutions.items()
    }


def replacements(
    model: nn.Module, reasons: Mapping[str, str], make: Callable[[_ConvNd], nn.Module]
) -> dict[str, nn.Module]:
    """The results of ``make`` for the convolutions with no reason to keep them, by module path."""
    return {
        path: make(module)
        for path, module in named_modules(model)
        if not reasons.get(path, "kept") and isinstance(module, _ConvNd)
    }


def replacement(module: _ConvNd, block: Block) -> BlockModule:
    """A block with the input and output shapes of a convolution, and its attributes."""
    built = block_module(
        block.steps(as_conv(module)), module.weight.device, module.weight.dtype,
        module.padding_mode,
    )  # fmt: skip
    return _described_as(module, built)


def _described_as(module: _ConvNd, built: BlockModule) -> BlockModule:
    """The block, with the attributes of a convolution that other code reads."""
    for name in _DESCRIBING:
        setattr(built, name, getattr(module, name))
    return built.train(module.training)


def as_conv(module: _ConvNd) -> Conv:
    """A torch convolution as a `Conv`, on a map of its own kernel's span."""
    padding: Any = module.padding
    return Conv(
        module.in_channels, module.out_channels, module.kernel_size,
        span(module.kernel_size, module.dilation), module.stride, padding, module.dilation,
        module.groups, module.bias is not None,
    )  # fmt: skip


def _reason_to_keep(
    module: _ConvNd, owners: int, block: Block, why: Callable[[Conv, Block], str]
) -> str:
    weight = module._parameters.get("weight")
    if isinstance(weight, UninitializedParameter):
        return "lazy"
    if module.transposed:
        return "transposed"
    if reason := why(as_conv(module), block):
        return reason
    if "forward" in vars(module):
        return "own forward"
    if weight is None:
        return "derived weight"
    if type(module) not in CONVOLUTIONS.values():
        return "subclass"
    return "shared weight" if owners > 1 else ""
