"""Tensors that an object holds, and the bytes of their storages."""

import gc
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dscalc.pytorch.walk import named_modules, own_buffers, own_parameters

_PARTS = {  # of sparse tensors
    torch.sparse_coo: "_indices _values",
    torch.sparse_csr: "crow_indices col_indices values",
    torch.sparse_csc: "ccol_indices row_indices values",
    torch.sparse_bsr: "crow_indices col_indices values",
    torch.sparse_bsc: "ccol_indices row_indices values",
}


_TORCHS_DISPATCH = Tensor.__torch_dispatch__


def weights_of(model: nn.Module, bits: int | None = None) -> dict[str, int]:
    """Bytes of parameters and buffers by the path of their module, each storage once.

    Args:
        model: as it is given; a copy does not share storages as it does.
        bits: the size of a floating element; as it is by default.
    """
    found: dict[str, int] = {}
    seen = set()
    for path, module in named_modules(model):
        path = ".".join(name for name in path.split(".") if name != "_orig_mod")  # if compiled
        own = [*own_parameters(module).values(), *own_buffers(module)]
        for tensor in (plain for one in own for plain in _plain_tensors(one)):
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                size = in_bits(storage.nbytes(), tensor.dtype, bits)
                found[path] = found.get(path, 0) + size
    return found


def tensors_within(holder: Any) -> list[Tensor]:
    """All tensors that an object holds: in containers, attributes, slots and closures."""
    found: list[Tensor] = []
    seen: dict[int, Any] = {}
    level = [holder]
    while level:
        inside: list[Any] = []
        for one in filter(gc.is_tracked, level):  # numbers and words are not
            if id(one) in seen:
                continue
            seen[id(one)] = one
            kind = type(one)  # not what a proxy says that it is
            if issubclass(kind, Tensor):
                found.append(one)
            elif kind is FunctionType:  # not the module that it stands in
                inside += one.__closure__ or (), one.__defaults__, one.__kwdefaults__
            elif not issubclass(kind, type | ModuleType):
                inside.append(one)
        level = gc.get_referents(*inside)
    return found


def replaces_operators(kind: type[Tensor]) -> bool:
    """Whether tensors of a class run operators in a way of their own, on tensors inside of them."""
    return kind.__torch_dispatch__ is not _TORCHS_DISPATCH


def _plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors with storages that it is made of."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain_tensors(getattr(tensor, name))
    elif tensor.layout in _PARTS:
        for part in _PARTS[tensor.layout].split():
            yield getattr(tensor, part)()
    else:
        yield tensor


def in_bits(size: int, dtype: torch.dtype, bits: int | None) -> int:
    """Bytes, if floating elements had so many bits."""
    if bits is None or not (dtype.is_floating_point or dtype.is_complex):
        return size
    return size // (dtype.itemsize // (2 if dtype.is_complex else 1)) * bits // 8
