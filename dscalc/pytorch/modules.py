"""Depthwise separable convolutions as torch modules."""

import copy
import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dscalc.core.blocks import separable
from dscalc.core.conv import Conv, checked_padding, pads, per_axis, whole_number
from dscalc.errors import DscalcError
from dscalc.words import Padding, Size, printable

Patterns = str | Sequence[str]
CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


class DepthwiseSeparableConv(nn.Module):
    """A depthwise convolution followed by a pointwise one, in place of an ``nn.Conv2d``.

    Takes the arguments of ``nn.Conv2d`` with the same defaults, and maps the same input shapes to
    the same output shapes. Stride, padding and dilation belong to the depthwise step.

    Args:
        padding: also ``"same"`` with a stride: ``ceil(size / stride)``. An odd number of zeros is
            padded explicitly, one more at the end, since torch's string padding refuses strides.
        groups: 1; a grouped convolution is not replaced.
        depth_multiplier: depthwise filters per input channel.
        depthwise_bias: overrides ``bias`` for the depthwise step.
        dims: spatial dimensions, 1, 2 or 3.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H', W'), with ``dims`` spatial sizes.

    Attributes:
        depthwise: the ``nn.Conv2d`` with ``groups=in_channels``.
        pointwise: the 1x1 ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        depth_multiplier: int = 1,
        depthwise_bias: bool | None = None,
        dims: int = 2,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise DscalcError(
                f"groups must be 1 in a depthwise separable convolution, got {groups}"
            )
        in_channels = whole_number("in_channels", in_channels)
        filters = in_channels * whole_number("depth_multiplier", depth_multiplier)
        convolution = _convolution_class(dims)
        kernel_size = per_axis("kernel_size", kernel_size, dims)
        dilation = per_axis("dilation", dilation, dims)
        padding = checked_padding(padding, dims)
        zeros, self.explicit_padding = _split(pads(padding, kernel_size, dilation))
        self.padding_mode = padding_mode
        self.depthwise = convolution(
            in_channels,
            filters,
            kernel_size,
            stride,
            zeros,
            dilation,
            groups=in_channels,
            bias=bias if depthwise_bias is None else depthwise_bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )
        self.pointwise = convolution(
            filters, out_channels, 1, bias=bias, device=device, dtype=dtype
        )

    def extra_repr(self) -> str:
        """Show the padding that the convolution itself does not show."""
        return f"explicit_padding={self.explicit_padding}" if self.explicit_padding else ""

    def forward(self, features: Tensor) -> Tensor:
        """Convolve each channel alone, then mix the channels at each position."""
        if self.explicit_padding:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            features = functional.pad(features, self.explicit_padding, mode)
        output: Tensor = self.pointwise(self.depthwise(features))
        return output


def convolution(conv: Conv, device: torch.device | str | None = None) -> nn.Module:
    """The torch module of a `Conv`.

    An ``nn.Conv2d``, behind an ``nn.ZeroPad2d`` where the padding is uneven; an ``nn.Linear``
    where there are no spatial axes.
    """
    dims = len(conv.kernel_size)
    if dims == 0:
        return nn.Linear(conv.in_channels, conv.out_channels, conv.bias, device=device)
    zeros, explicit_padding = _split(conv.pads)
    module = _convolution_class(dims)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        zeros,
        conv.dilation,
        conv.groups,
        conv.bias,
        device=device,
    )
    if not explicit_padding:
        return module
    pads_of: dict[int, Callable[..., nn.Module]] = {
        1: nn.ZeroPad1d,
        2: nn.ZeroPad2d,
        3: nn.ZeroPad3d,
    }
    return nn.Sequential(pads_of[dims](explicit_padding), module)


def separable_convolution(
    depthwise: Conv, pointwise: Conv, device: torch.device | str | None = None
) -> DepthwiseSeparableConv:
    """The torch module of the two parts of a comparison."""
    return DepthwiseSeparableConv(
        depthwise.in_channels,
        pointwise.out_channels,
        depthwise.kernel_size,
        depthwise.stride,
        depthwise.padding,
        depthwise.dilation,
        bias=pointwise.bias,
        device=device,
        depth_multiplier=depthwise.out_channels // depthwise.in_channels,
        depthwise_bias=depthwise.bias,
        dims=len(depthwise.kernel_size),
    )


def _convolution_class(dims: int) -> Callable[..., nn.Module]:
    """The convolution of so many dimensions; it takes as many sizes."""
    if dims not in CONVOLUTIONS:
        raise DscalcError(f"torch convolves in 1, 2 or 3 dimensions, got {dims}")
    return CONVOLUTIONS[dims]


def _split(pads: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide pads into what a convolution does itself, and what must be padded before it.

    A convolution pads both ends of an axis alike; where one axis cannot be padded so, all are
    padded explicitly. ``functional.pad`` takes (before, after) from the last axis to the first.
    """
    if all(before == after for before, after in pads):
        return tuple(before for before, _ in pads), ()
    return (0,) * len(pads), tuple(zeros for ends in reversed(pads) for zeros in ends)


def to_separable(
    model: nn.Module, only: Patterns | None = None, exclude: Patterns | None = None
) -> nn.Module:
    """Copy a model, with its eligible convolutions as depthwise separable ones.

    Eligible is an ungrouped ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d`` that costs less so. The
    model itself is left as it is. The new modules have fresh weights, and the stride, padding,
    dilation, bias, dtype, device and training flag of those that they replace.

    Args:
        model: any module.
        only: globs on module paths, such as ``"layer1.*"``; all others are kept.
        exclude: globs on module paths to keep.

    Raises:
        DscalcError: a glob matches no convolution.
    """
    return replace_eligible(copied(model), reasons_to_keep(model, only, exclude))


def copied(model: nn.Module, *, share_parameters: bool = False) -> nn.Module:
    """Copy a model, and what torch does not copy by itself: results kept from a forward pass.

    With ``share_parameters`` the copy has the parameters of the model, for want of memory.

    Raises:
        DscalcError: something that the model holds cannot be copied.
    """
    memo: dict[int, Any] = {}
    if share_parameters:
        memo.update((id(parameter), parameter) for parameter in model.parameters())
    for module in model.modules():
        for tensor in (*vars(module).values(), *module._buffers.values()):
            if isinstance(tensor, UninitializedBuffer):
                empty: Any = UninitializedBuffer  # its stub has the arguments of another class
                memo[id(tensor)] = empty(False, tensor.device, tensor.dtype)
            elif isinstance(tensor, Tensor) and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever the model's own attributes raise
        reason = printable(str(error).partition("\n")[0])
        raise DscalcError(f"the model cannot be copied, to leave it as it is ({reason})") from error


def reasons_to_keep(
    model: nn.Module, only: Patterns | None = None, exclude: Patterns | None = None
) -> dict[str, str]:
    """Why each convolution stays as it is, by module path; "" where it is eligible.

    Raises:
        DscalcError: a glob matches no convolution.
    """
    convolutions = {
        path: module for path, module in model.named_modules() if isinstance(module, _ConvNd)
    }
    owners = Counter(id(module._parameters.get("weight")) for module in convolutions.values())
    chosen = set(convolutions) if only is None else _matching(only, convolutions)
    if exclude is not None:
        chosen -= _matching(exclude, convolutions)
    return {
        path: (
            _reason(module, owners[id(module._parameters.get("weight"))])
            if path in chosen
            else "excluded"
        )
        for path, module in convolutions.items()
    }


def replace_eligible(model: nn.Module, reasons: Mapping[str, str]) -> nn.Module:
    """Put a `DepthwiseSeparableConv` in place of each convolution that nothing keeps."""
    replacements: dict[nn.Module, nn.Module] = {}
    for path, reason in reasons.items():
        module = model.get_submodule(path)
        if not reason and isinstance(module, _ConvNd):
            replacements[module] = _replacement(module)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # a child may be there twice
            if child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(model, model)


def _reason(module: _ConvNd, owners: int) -> str:
    if isinstance(module._parameters.get("weight"), UninitializedParameter):
        return "lazy"
    if module.transposed:
        return "transposed"
    if module.groups > 1:
        return "depthwise" if module.groups == module.in_channels else "grouped"
    if prod(module.kernel_size) == 1:
        return "pointwise"
    if type(module) not in CONVOLUTIONS.values():
        return "subclass"
    weight = module._parameters.get("weight")
    if weight is None:
        return "derived weight"
    if owners > 1:
        return "shared weight"
    sizes = module.kernel_size, module.kernel_size  # of any map, on which the ratio does not depend
    if separable(Conv(module.in_channels, module.out_channels, *sizes), 1, False).ratio >= 1:
        return "no saving"
    return ""


def _replacement(module: _ConvNd) -> DepthwiseSeparableConv:
    return DepthwiseSeparableConv(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        module.padding,  # type: ignore[arg-type]  # torch has it as any str
        module.dilation,
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
        device=module.weight.device,
        dtype=module.weight.dtype,
        dims=len(module.kernel_size),
    ).train(module.training)


def _matching(patterns: Patterns, paths: Collection[str]) -> set[str]:
    matching: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found = fnmatch.filter(paths, pattern)
        if not found:
            near = get_close_matches(pattern, paths, n=1)
            hint = f"they are {', '.join(paths)}" if paths else "it has none"
            if near:
                hint = f"did you mean {near[0]}?"
            raise DscalcError(f"{pattern!r} matches no convolution of the model; {hint:.300}")
        matching.update(found)
    return matching
