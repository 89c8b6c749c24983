"""The steps of a block as torch modules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dscalc.core.blocks import Norm, Step
from dscalc.core.conv import checked_padding, pads, per_axis, whole_number
from dscalc.core.transposed import TransposedConv
from dscalc.errors import DscalcError
from dscalc.parse import Padding, Size

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class BlockModule(nn.Module):
    """The steps of a block in order, each under its name.

    If a step's convolution cannot pad its own zeros, they are padded before it.
    """

    def __init__(self, steps: Mapping[str, nn.Module], zeros: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.explicit_padding = {name: tuple(ends) for name, ends in zeros.items() if ends}
        for name, module in steps.items():
            self.add_module(name, module)

    @property
    def weight(self) -> Any:
        """That of the last convolution: code asks a convolution for its dtype and its device."""
        return self._last_convolution.weight

    @property
    def bias(self) -> Any:
        """That of the last convolution."""
        return self._last_convolution.bias

    @property
    def _last_convolution(self) -> nn.Module:
        parts = [part for part in self._modules.values() if hasattr(part, "in_channels")]
        assert parts[-1] is not None
        return parts[-1]

    def extra_repr(self) -> str:
        """Show the padding that the convolutions do not show."""
        padded = (f"{name}: {ends}" for name, ends in self.explicit_padding.items())
        return f"explicit_padding={{{', '.join(padded)}}}" if self.explicit_padding else ""

    def forward(self, features: Tensor) -> Tensor:
        """Run the steps in order."""
        for name, module in self._modules.items():
            assert module is not None
            if name in self.explicit_padding:
                mode = getattr(module, "padding_mode", "zeros")
                features = functional.pad(
                    features,
                    self.explicit_padding[name],
                    "constant" if mode == "zeros" else mode,
                )
            features = module(features)
        return features


class DepthwiseSeparableConv(BlockModule):
    """A depthwise convolution and then a pointwise one, in place of an ``nn.Conv2d``.

    Takes the arguments of ``nn.Conv2d`` with the same defaults, and maps the same input shapes to
    the same output shapes. Stride, padding and dilation belong to the depthwise step.

    Args:
        padding: also ``"same"`` with a stride: ``ceil(size / stride)``. An odd number of zeros is
            padded explicitly, the extra zero at the end, since torch's string padding refuses
            strides.
        groups: 1; a grouped convolution is not replaced.
        depth_multiplier: depthwise filters per input channel.
        depthwise_bias: overrides ``bias`` for the depthwise step.
        dims: number of spatial axes, 1, 2 or 3.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H', W'), with ``dims`` spatial sizes.

    Raises:
        DscalcError: ``groups`` is not 1, or a value is out of its range.

    Attributes:
        depthwise: the ``nn.Conv2d`` with ``groups=in_channels``.
        pointwise: the 1x1 ``nn.Conv2d``.
    """

    depthwise: nn.Module
    pointwise: nn.Module

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
        zeros, explicit_padding = _split_pads(pads(padding, kernel_size, dilation))
        depthwise = convolution(
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
        pointwise = convolution(filters, out_channels, 1, bias=bias, device=device, dtype=dtype)
        steps = {"depthwise": depthwise, "pointwise": pointwise}
        super().__init__(steps, {"depthwise": explicit_padding})


def block_module(
    steps: Iterable[Step],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    padding_mode: str = "zeros",
) -> BlockModule:
    """The torch module of some steps, each under its name.

    Raises:
        DscalcError: torch has no convolution with so many axes.
    """
    modules: dict[str, nn.Module] = {}
    zeros: dict[str, Sequence[int]] = {}
    for step in steps:
        if isinstance(step.layer, Norm):  # it stands for every kind of normalisation
            modules[step.name] = nn.GroupNorm(1, step.layer.channels, device=device, dtype=dtype)
            continue
        conv = step.layer
        assert conv is not None
        if not conv.kernel_size and conv.groups == 1:  # torch has no grouped linear layer
            modules[step.name] = nn.Linear(
                conv.in_channels, conv.out_channels, conv.bias, device=device, dtype=dtype
            )
            continue
        own, zeros[step.name] = _split_pads(conv.pads)
        dims = len(conv.kernel_size)
        filters = any(size > 1 for size in conv.kernel_size) or any(map(any, conv.pads))
        options: dict[str, Any] = {
            "stride": conv.stride,
            "padding": own,
            "dilation": conv.dilation,
            "groups": conv.groups,
            "bias": conv.bias,
            "padding_mode": padding_mode if filters else "zeros",
            "device": device,
            "dtype": dtype,
        }
        kind = _convolution_class(dims)
        if isinstance(conv, TransposedConv):
            kind, options["output_padding"] = TRANSPOSED[dims], conv.output_padding
        modules[step.name] = kind(conv.in_channels, conv.out_channels, conv.kernel_size, **options)
    return BlockModule(modules, zeros)


def _convolution_class(dims: int) -> Callable[..., nn.Module]:
    """The torch class of a convolution with so many spatial axes.

    Raises:
        DscalcError: torch has none.
    """
    if dims not in CONVOLUTIONS:
        raise DscalcError(f"torch convolves in 1, 2 or 3 dimensions, got {dims}")
    return CONVOLUTIONS[dims]


def _split_pads(pads: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split pads into the convolution's own padding and explicit padding before it.

    A convolution pads both ends of an axis alike. If one axis cannot be padded so, all are padded
    explicitly. ``functional.pad`` takes (before, after) from the last axis to the first.
    """
    if all(before == after for before, after in pads):
        return tuple(before for before, _ in pads), ()
    return (0,) * len(pads), tuple(zeros for ends in reversed(pads) for zeros in ends)
