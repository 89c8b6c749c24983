"""How torch stores what an operator gives, where a trace would store it otherwise.

The order in memory decides whether a later ``reshape`` or ``contiguous`` copies, and so the peaks.
Of the samples in torch's own ``op_db``, meta and CPU then differ only in the order of FFTs, of
``linalg.eig``, ``nonzero_static`` and 3-D convolutions with channels last.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dscalc.pytorch.operators import name_of


def of_attention(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    *_: Any,
) -> Tensor:
    """Fused attention stores it like the query; a trace takes attention apart.

    What is fused is what torch's ``use_flash_attention_cpp`` says: no mask that needs a gradient.
    """
    factors = query, key, value
    if (
        dropout
        or any(factor.dim() != 4 or factor.stride(-1) != 1 for factor in factors)
        or len({factor.shape[-1] for factor in factors}) > 1
        or (mask is not None and (mask.dim() == 3 or getattr(mask, "trains", False)))
    ):
        return output
    return torch.empty_like(query).copy_(output)


def of_convolution(output: Tensor, features: Tensor, weight: Tensor, *_: Any) -> Tensor:
    """Real ones store it with channels last if an operand is."""
    if output.device.type != "meta" or output.dim() != 4:
        return output
    determine: Any = torch._C._conv_determine_backend_memory_format
    torch_c: Any = torch._C  # whose stub lacks the backends
    # Its rule exempts doubles, which those of other backends do not.
    order = determine(features.float(), weight.float(), torch_c._ConvBackend.Mkldnn)
    return output.contiguous(memory_format=order)


def of_dropout(output: Tensor, features: Tensor, _share: float, training: bool) -> Tensor:
    """In evaluation it is its operand; taken apart it is a copy."""
    return output if training else features


def like_the_features(output: Any, features: Tensor, *_: Any) -> Any:
    """Real ones store it with channels last if the operand is."""
    first, *others = output if isinstance(output, tuple) else (output,)
    if (
        first.device.type == "meta"
        and features.dim() == 4
        and features.is_contiguous(memory_format=torch.channels_last)
        and not features.is_contiguous()
    ):
        first = first.contiguous(memory_format=torch.channels_last)
    return (first, *others) if others else first


def shrunk(output: Tensor, features: Tensor, *_: Any) -> Tensor:
    """Real ones make room for the operand, and use some of it."""
    return (
        torch.empty_like(features).resize_(output.shape) if output.device.type == "meta" else output
    )


def of_bags(
    output: tuple[Tensor, ...],
    table: Tensor,
    indices: Tensor,
    offsets: Tensor,
    _scaled: bool = False,
    mode: int = 0,
    _sparse: bool = False,
    _weights: Tensor | None = None,
    ends: bool = False,
    padding: int = -1,
) -> tuple[Tensor, ...]:
    """Real ones keep room for one index more, or no index for plain sums; 1 is means, 2 maxima."""
    bags, owners, sizes, most = output
    if not bags.is_meta:
        return output
    plain = mode == 0 and padding < 0 and table.dtype is not torch.double and table.stride(1) == 1
    owners = indices.new_empty(0) if plain else indices.new_empty(indices.numel() + 1)[:-1]
    if mode != 2:
        most = offsets.new_empty(offsets.numel() - (ends and mode == 1))
    return bags, owners, sizes, most


_STORED: dict[Callable[..., Any], str] = {
    of_attention: "scaled_dot_product_attention",
    of_convolution: "convolution _convolution convolution_overrideable",
    of_dropout: "dropout",
    of_bags: "_embedding_bag _embedding_bag_forward_only",
    like_the_features: """
        group_norm native_group_norm reflection_pad2d max_unpool2d pixel_shuffle channel_shuffle""",
    shrunk: "col2im mse_loss smooth_l1_loss soft_margin_loss binary_cross_entropy",
}
_BY_NAME = {f"aten::{name}": store for store, names in _STORED.items() for name in names.split()}


def as_stored(operator: Any, output: Any, args: Any) -> Any:
    """The output of an operator that was called with these arguments, as torch stores it."""
    store = _BY_NAME.get(name_of(operator))
    return store(output, *args) if store else output
