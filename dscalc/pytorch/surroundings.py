"""What holds around a run: where tensors are new, and which settings of torch and Python."""

import gc
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _len_torch_dispatch_stack, _pop_mode  # type: ignore[attr-defined]

from dscalc.pytorch.copies import seeded
from dscalc.pytorch.user_errors import exits_refused
from dscalc.pytorch.watch import Watch
from dscalc.show import message_of

_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_LEAVING = {  # what takes values out of torch
    getattr(Tensor, name): name
    for name in ("numpy", "tolist", "data_ptr", "__array__", "__dlpack__")
}
_ON_A_CPU = {  # what a tensor on the meta device answers, so that a model runs as it would there
    Tensor.is_meta.__get__: False,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: True,  # type: ignore[attr-defined]
}


class _Device(DeviceContext):
    """Where new tensors are; it tells a watch of values that are missing, or that leave torch."""

    def __init__(self, device: str, watch: Watch | None) -> None:
        super().__init__(torch.device(device))
        self._watch = watch

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        watch = self._watch
        if watch and function in _ON_A_CPU and args[0].device.type == "meta":
            return _ON_A_CPU[function]
        try:
            if watch and function in _LEAVING:
                watch.leaves(args[0], _LEAVING[function])
            elif watch and function is _DATA:
                watch.takes(args[0])
            return super().__torch_function__(function, types, args, kwargs)  # type: ignore[no-untyped-call]
        except Exception as error:
            of_values = isinstance(error, NotImplementedError) or function is Tensor.__format__
            if watch and (of_values or re.search(r"\bmeta\b", message_of(error))):
                watch.without_values.append(error)
            raise


def _pop_modes(number: int) -> None:
    """Leave modes that did not leave themselves, as after too deep a recursion."""
    while _len_torch_dispatch_stack() > number:
        _pop_mode()


@contextmanager
def surroundings(
    device: str, watch: Watch | None, gradients: bool = False, *, differentiates: bool = False
) -> Iterator[None]:
    """What holds around a run; all of it is put back, random states too.

    Args:
        device: where new tensors are.
        watch: what sees the run.
        gradients: whether autograd records.
        differentiates: without ``gradients``: whether the model may turn that on, in its forward.
    """
    mha = torch.backends.mha
    with ExitStack() as stack:
        stack.callback(_pop_modes, _len_torch_dispatch_stack())
        stack.enter_context(exits_refused())
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        stack.enter_context(seeded())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        # On a CPU attention would be one fused operator, whose products cannot be seen.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if gc.isenabled():  # cycles would hold memory until it comes, at any time
            gc.disable()
            stack.callback(gc.enable)
        off = torch.no_grad() if differentiates else torch.inference_mode()
        stack.enter_context(torch.enable_grad() if gradients else off)
        stack.enter_context(_Device(device, watch))
        yield
