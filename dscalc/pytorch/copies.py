"""Copies of models, so that the user's own is left as it is; and what still reaches that one."""

import copy
import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dscalc.errors import DscalcError
from dscalc.pytorch.inputs import Copying
from dscalc.pytorch.user_errors import USER_ERRORS
from dscalc.pytorch.walk import Held, holdings, named_modules, parameters_in, tensors_in
from dscalc.show import first_line, printable


class Copy(NamedTuple):
    """A copy of a model.

    Attributes:
        original: what it is a copy of.
        model: the copy, in evaluation mode.
        held: what its modules held before its own ``eval()`` ran.
        modules: each module of the original, with its copy.
        tensors: each parameter and buffer of the original, with its copy.
    """

    original: nn.Module
    model: nn.Module
    held: dict[str, Held]
    modules: list[tuple[nn.Module, nn.Module]]
    tensors: list[tuple[Tensor, Tensor]]

    @contextmanager
    def as_original(self) -> Iterator[None]:
        """Lend the modules of the original what those of the copy hold, inside the block.

        A function is not copied with the model that keeps it. One that reaches the original, such
        as a forward that was replaced, then runs the copy.
        """
        own = [(module, vars(module)) for module, _ in self.modules]
        try:
            for module, twin in self.modules:
                object.__setattr__(module, "__dict__", vars(twin))
            yield
        finally:
            for module, held in own:
                object.__setattr__(module, "__dict__", held)

    @property
    def reaches_original(self) -> bool:
        """Whether a function or a weak reference that the copy keeps leads to the original."""
        originals = {id(one) for one, _ in (*self.modules, *self.tensors)}
        seen: dict[int, Any] = {}
        return any(
            _reaches(value, originals, seen)
            for _, module in named_modules(self.model)
            for value in vars(module).values()
            if type(value) in _HOLDING
        )


@contextmanager
def seeded() -> Iterator[None]:
    """The same random states inside each time; the user's own afterwards."""
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        random.seed(0)
        if numpy := sys.modules.get("numpy"):
            stack.callback(numpy.random.set_state, numpy.random.get_state())
            numpy.random.seed(0)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(0)
        yield


def copy_of(device: str, model: nn.Module) -> Copy:
    """Copy a model in evaluation mode; to meta, where its tensors have no values, or to the CPU.

    Tied parameters stay tied, parameters have no gradients, a compiled module becomes the one that
    it was made from, and one that spreads over GPUs does not.

    Raises:
        DscalcError: the model cannot be copied, or has quantised modules.
    """
    parts = list(named_modules(model))
    for path, module in parts:
        if type(module).__name__ in ("DistributedDataParallel", "FullyShardedDataParallel"):
            raise DscalcError(
                f"{printable(path) or 'the model'} is spread over processes "
                f"({type(module).__name__}); audit its .module, before it is wrapped"
            )
        home = type(module).__module__
        packed = home.startswith("torch.") and ".quantized" in home
        if packed and not home.endswith(".functional_modules"):  # those stand in float models too
            raise DscalcError(
                f"{printable(path) or 'the model'} is a quantised module "
                f"({type(module).__name__}), whose weights are packed away; audit the float "
                "nn.Module that it was made from"
            )
    twin_of = partial(_twin, device)
    tensors = [(tensor, _twin_of_part(model, twin_of, tensor)) for tensor in tensors_in(model)]
    memo: dict[int, Any] = {id(tensor): twin for tensor, twin in tensors}
    try:
        with seeded(), warnings.catch_warnings(), Copying(twin_of):
            warnings.simplefilter("ignore")  # of gradients, in scripted modules
            for _, module in reversed(parts):  # what is inside a module comes first
                if type(module).__name__ == "OptimizedModule":
                    memo[id(module)] = copy.deepcopy(module._modules["_orig_mod"], memo)
            twin = copy.deepcopy(model, memo)
            held = _on_device(twin, device)
    except Exception as error:  # whatever the model's own attributes raise
        place = _not_copied(parts, tensors)
        raise DscalcError(
            f"the model cannot be copied, and dscalc runs only a copy ({first_line(error)}"
            f"{place and f': its {place}; set that to None first'})"
        ) from error
    own = {id(module) for _, module in parts}
    for path, (module, _) in held.items():
        if id(module) in own:
            raise DscalcError(
                f"{printable(path) or 'the model'} is its own copy (by __deepcopy__ of "
                f"{type(module).__name__}), and dscalc runs only a copy"
            )
    with seeded(), suppress(*USER_ERRORS):  # the model's own eval() may merge weights, and may fail
        twin.eval()
    set_training(twin, False)
    pairs = [(module, memo.get(id(module))) for _, module in parts]
    alike = [(module, part) for module, part in pairs if type(module) is type(part)]
    return Copy(model, twin, held, alike, tensors)


def set_training(model: nn.Module, training: bool) -> None:
    """Set the flag of each module, whatever its own ``train`` or ``eval`` does."""
    for _, module in named_modules(model):
        put = setattr if isinstance(module, torch.jit.ScriptModule) else object.__setattr__
        put(module, "training", training)


def require_gradients(model: nn.Module) -> None:
    """Let those parameters of a copy require a gradient that do in the original."""
    for parameter in parameters_in(model):
        parameter.requires_grad_(getattr(parameter, "trains", parameter.requires_grad))


@contextmanager
def gradients_put_back(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Leave the gradients of these as they are, whatever a run does that reaches them."""
    held = [(tensor, tensor.grad) for tensor in tensors]
    for tensor, _ in held:
        tensor.grad = None
    try:
        yield
    finally:
        for tensor, gradient in held:
            tensor.grad = gradient


def _not_copied(parts: list[tuple[str, nn.Module]], tensors: list[tuple[Tensor, Tensor]]) -> str:
    """The path of an attribute, other than a module or a tensor, that cannot be copied."""
    known = [module for _, module in parts], [tensor for tensor, _ in tensors]
    memo = {id(each): each for some in known for each in some}
    for path, module in parts:
        for name, value in vars(module).items():
            if name not in ("_modules", "_parameters", "_buffers"):
                try:
                    copy.deepcopy(value, dict(memo))
                except Exception:
                    return printable(f"{path}.{name}".lstrip("."))
    return ""


def _twin(device: str, tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        empty: Any = type(tensor)  # the stub of a buffer has the arguments of another class
        with torch.inference_mode():  # where it gets its shape
            twin: Tensor = empty(requires_grad=False, device=device, dtype=tensor.dtype)
    else:
        twin = tensor.detach().to(device, copy=True)
        if isinstance(tensor, nn.Parameter):
            twin = nn.Parameter(twin, requires_grad=False)
    twin.trains = tensor.requires_grad  # type: ignore[attr-defined]
    return twin


def _twin_of_part(model: nn.Module, twin_of: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """The copy of a parameter or a buffer.

    Raises:
        DscalcError: the device has none of its kind, such as a quantised one on meta.
    """
    try:
        return twin_of(tensor)
    except (NotImplementedError, RuntimeError) as error:
        path = next(
            f"{path}.{name}".lstrip(".")
            for path, module in named_modules(model)
            for name, held in (*module._parameters.items(), *module._buffers.items())
            if held is tensor
        )
        raise DscalcError(
            f"the model cannot be copied, and dscalc runs only a copy ({first_line(error)}: its "
            f"{printable(path)})"
        ) from error


def _on_device(twin: nn.Module, device: str) -> dict[str, Held]:
    """Let a copy run on a device; say what its modules hold."""
    for _, module in named_modules(twin):
        module.__dict__.pop("_compiled_call_impl", None)
        if isinstance(module, nn.DataParallel):
            module.device_ids = []  # it then calls what it holds, without a GPU
        if isinstance(module, torch.jit.ScriptModule):  # it was copied in C++, past the memo
            parts: Any
            for parts in (module._parameters, module._buffers):
                for name, tensor in list(parts.items()):
                    parts[name] = _twin(device, tensor)
    return holdings(twin)


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """Elements of those parameters of a copy that require a gradient in the user's model."""
    return sum(
        parameter.numel()
        for parameter in parameters
        if getattr(parameter, "trains", parameter.requires_grad)  # a scripted one has none of ours
    )


# ---- What reaches the original. ----

_HOLDING = {FunctionType, MethodType, partial, ref, dict, OrderedDict, list, tuple, set}


def _reaches(value: Any, originals: set[int], seen: dict[int, Any]) -> bool:
    if id(value) in originals:
        return True
    if type(value) not in _HOLDING or id(value) in seen:
        return False
    seen[id(value)] = value  # and not its id alone, which another value could get
    return any(_reaches(inner, originals, seen) for inner in _inside(value))


def _inside(value: Any) -> Iterator[Any]:
    """What a value of a type in `_HOLDING` holds."""
    if isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # nothing is in it yet
                yield cell.cell_contents
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        around = value.__globals__
        for inner in map(around.get, _global_names(value.__code__)):
            if not isinstance(inner, FunctionType) or inner.__globals__ is around:
                yield inner  # a function of another file knows nothing of this model
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, ref):
        yield value()
    else:
        yield from value.values() if isinstance(value, dict) else value


def _global_names(code: CodeType) -> Iterator[str]:
    """The names that a function, and those inside it, may look up among its globals."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
