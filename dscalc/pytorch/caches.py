"""Caches of functions, which would keep tensors of a run: without values, or without gradients.

A function under ``functools.lru_cache`` that makes a table for a model belongs to no copy of it.
The next run, or the user's own, would get the table that was made on the meta device.
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from dscalc.pytorch.operators import tensors_of
from dscalc.pytorch.walk import parameters_in

_WRAPPER: Any = type(lru_cache(id))
_NESTS = (tuple, list, dict, set, frozenset)


class MadeTensors:
    """Knows which of the tensors that a run made are alive, and holds none of them."""

    def __init__(self) -> None:
        self._alive: dict[int, ref[Tensor]] = {}  # by id

    def note(self, output: Any, taken: Iterable[Tensor]) -> None:
        """Know what an operator returned, but for what it took."""
        before, alive = set(map(id, taken)), self._alive
        for tensor in tensors_of((output,)):
            key = id(tensor)
            if key not in before and key not in alive:
                alive[key] = ref(tensor, partial(self._gone, key))

    def _gone(self, key: int, _: Any) -> None:
        self._alive.pop(key, None)

    def clear(self, model: nn.Module) -> None:
        """Clear each cache of ``functools`` that holds one, after the run of a model.

        To look at all objects takes time, so that nothing is looked for unless another tensor is
        alive than the gradients of the model. Its output should not be any more.
        """
        if not self._alive.keys() <= {id(tensor.grad) for tensor in parameters_in(model)}:
            self._clear()

    @contextmanager
    def cleared_if_it_fails(self) -> Iterator[None]:
        """The same if the run inside fails, where the error holds what ran."""
        try:
            yield
        except BaseException:
            self._clear()
            raise

    def _clear(self) -> None:
        if not self._alive:
            return
        with torch._C.DisableTorchFunctionSubclass():  # which is code of the user's
            for cache in [each for each in gc.get_objects() if type(each) is _WRAPPER]:
                if any(map(self._is_made, _tensors_kept_in(cache))):
                    cache.cache_clear()

    def _is_made(self, tensor: Tensor) -> bool:
        """Whether the run made it, or what it is a view of."""
        return id(tensor) in self._alive or id(tensor._base) in self._alive


def _tensors_kept_in(cache: Any) -> Iterator[Tensor]:
    """The tensors among the results of a function, and in containers among them."""
    if not cache.cache_info().currsize:
        return
    seen: dict[int, Any] = {}
    level = gc.get_referents(cache)
    while level:
        inside = []
        for one in level:
            if issubclass(type(one), Tensor):
                yield one
            elif issubclass(type(one), _NESTS) and id(one) not in seen:
                seen[id(one)] = one
                inside.append(one)
        level = gc.get_referents(*inside)
