"""The dispatch mode that sees every operator of a run, and counts its MACs.

In inference mode composite operators (linear, attention, lstm, einsum) arrive whole: the mode notes
what they are and takes them apart, down to the few products of `operators.LEAVES`. Every other
operator is listed as one without MACs, or is named.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dscalc.core.conv import Conv
from dscalc.core.transposed import TransposedConv
from dscalc.errors import DscalcError
from dscalc.pytorch.caches import MadeTensors
from dscalc.pytorch.copies import Copy
from dscalc.pytorch.failures import at_line
from dscalc.pytorch.memory import MemoryObserver
from dscalc.pytorch.modules import CONVOLUTIONS
from dscalc.pytorch.operators import (
    FACTORS,
    KINDS,
    LEAVES,
    NO_MACS,
    RECURRENT,
    Shape,
    convolution_of,
    has_no_macs,
    is_listed,
    linear_of,
    name_of,
    tensors_of,
)
from dscalc.pytorch.storages import replaces_operators
from dscalc.pytorch.strides import as_stored
from dscalc.pytorch.traced import InPlace, Operator
from dscalc.pytorch.user_errors import USER_ERRORS, named_error
from dscalc.pytorch.walk import named_modules, own_parameters, parameters_in
from dscalc.show import first_few, first_line, printable


class RunObserver(Protocol):
    """What else sees a run."""

    def on(self) -> AbstractContextManager[None]:
        """See what runs inside."""

    def paused(self) -> AbstractContextManager[None]:
        """See nothing of what runs inside: a block beside the model."""

    def result(self, operators: Sequence[Operator]) -> Any:
        """What it saw, given the products that ran."""


class _Place(NamedTuple):
    """Where a module stands in the model."""

    path: str
    step: str
    holds: frozenset[int]  # ids of its own parameters


_Origin = tuple[str, nn.Parameter | None]  # a path, and the parameter that is multiplied with


class _Composite(NamedTuple):
    """A composite operator that is being taken apart."""

    kind: str
    call: int
    path: str
    weight: nn.Parameter | None
    conv: Conv | None = None
    factor: Tensor | None = None  # the weight, even if it was computed


class ReachesOriginal(BaseException):
    """A copy that runs reaches its original; no ``except Exception`` of a model catches this."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: counts it, takes it apart, knows that it holds no MACs, or names it."""

    supports_higher_order_operators = True

    def __init__(
        self,
        made: Copy,
        counter: FlopCounterMode,
        memory: MemoryObserver | None = None,
        observer: RunObserver | None = None,
        blocks: Mapping[str, nn.Module] = MappingProxyType({}),
        *,
        lent: bool,
        nonzero: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []
        self.unknown_in: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.ran: set[str] = set()
        self.in_place = {path: InPlace() for path in blocks}
        self.functional: set[str] = set()
        self._forward = ""  # the path of the convolution of these whose forward runs
        self._counter = counter
        self.memory, self.observer = memory, observer
        self.made = MadeTensors()
        self._whole = True  # whether Python calls what comes, and not a composite or a block
        self._calls = 0
        self._inside: _Composite | None = None
        self._string_padding: tuple[str, Shape] | None = None  # and the size that it pads
        self._lock = threading.RLock()  # a scripted fork is a thread that dispatches here too
        self._modules = modules = dict(named_modules(made.model))
        self._entered: set[str] = set()
        self._taken: set[int] = set()  # ids of parameters
        self._left: dict[str, None] = {}  # how values left torch
        self._blocks = [(path, modules[path], block) for path, block in blocks.items()]
        self._places = _places(modules, blocks)
        self.doubts: list[str] = []
        self.doubtful: set[tuple[str, str]] = set()
        self.without_values: list[Exception] = []  # errors that the model may catch
        self._reached = False  # whether the run came to the original
        self._running = [(made.model, self._places[id(made.model)])]
        self._owners: dict[int, tuple[str, nn.Parameter]] = {}
        for path, module in modules.items():
            for parameter in own_parameters(module).values():
                self._owners.setdefault(id(parameter), (path, parameter))
        self._lent, self._nonzero = lent, nonzero
        self._weights = set(map(_storage_of, parameters_in(made.model) if nonzero else ()))
        self._fault: DscalcError | None = None  # of a formula of the user's
        self._originals = {id(module): twin for module, twin in made.modules}
        self._twins = {id(tensor): twin for tensor, twin in made.tensors}
        if lent:
            self._places |= {
                own: self._places[id(twin)]
                for own, twin in self._originals.items()
                if id(twin) in self._places
            }

    def torch_macs(self) -> int:
        """What FlopCounterMode counts of the model as it is."""
        return self._torch_macs() - sum(block.torch_macs for block in self.in_place.values())

    def _torch_macs(self) -> int:
        macs, odd = divmod(self._counter.get_total_flops(), 2)
        return macs + odd  # half a MAC is none, and then both counts differ

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Let its observers see what runs."""
        other = self.observer.on() if self.observer else nullcontext()
        memory = self.memory.on() if self.memory else nullcontext()
        with other, memory:
            yield

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Know the running module, and run the blocks."""
        with ExitStack() as stack:
            stack.enter_context(register_module_forward_pre_hook(self._enter))
            stack.enter_context(register_module_forward_hook(self._leave, always_call=True))
            for path, module, block in self._blocks:
                held = vars(module)
                back = held.__setitem__ if "forward" in held else held.pop
                stack.callback(back, "forward", held.get("forward"))
                held["forward"] = self._both(path, module, block)
            yield

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        parent = self._running[-1][1]
        place = self._places.get(id(module))
        if place is None:
            if id(module) in self._originals:
                self._refuse_original()
            place = parent._replace(holds=frozenset())
        self._running.append((module, place))
        self.ran.add(place.path)
        self._entered.add(place.path)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        while len(self._running) > 1 and self._running.pop()[0] is not module:
            pass

    def _both(self, path: str, module: nn.Module, block: nn.Module) -> Callable[..., Any]:
        """A forward that runs a convolution, and a block beside it."""
        found, forward, weight = self.in_place[path], module.forward, module.weight

        def both(*args: Any, **kwargs: Any) -> Any:  # a function, which deepcopy does not copy
            if module.weight is not weight:  # as where one module runs the weights of many
                self.functional.add(path)
                return forward(*args, **kwargs)
            start = self._torch_macs()
            self._forward = path
            output = forward(*args, **kwargs)
            middle = self._torch_macs()
            before, self._inside = self._inside, self._composite("conv", (path, None))
            mine, self.operators = self.operators, found.operators
            whole, self._whole = self._whole, False
            with self.observer.paused() if self.observer else nullcontext():
                beside = block(*args, *kwargs.values())
            self.operators, self._inside, self._forward = mine, before, ""
            self._whole = whole
            assert not isinstance(output, Tensor) or beside.shape == output.shape
            found.instead_of += middle - start
            found.torch_macs += self._torch_macs() - middle
            return output

        return both

    def _refuse_original(self) -> None:
        """Stop a run that reaches the original, unless that is lent."""
        if not self._lent:
            self._reached = True
            raise ReachesOriginal

    def settle(self, device: str) -> None:
        """Raise what the model caught in a run that must be made again, or is refused."""
        if self._fault:
            raise self._fault
        if self._reached:
            raise ReachesOriginal
        if device == "meta" and self.without_values:
            error = self.without_values[0]
            raise DscalcError(f"values are needed ({first_line(error)})") from error

    def takes(self, tensor: Any) -> None:
        """Know that values of a parameter were taken by other means than an operator."""
        self._taken.add(id(tensor))

    def leaves(self, tensor: Any, function: str) -> None:
        """Know that a tensor leaves torch; sizes and masks may.

        Raises:
            NotImplementedError: it has no values.
        """
        if not tensor.is_floating_point() or tensor.numel() < 2:
            return
        if tensor.is_meta:
            raise NotImplementedError(f"{function} of a meta tensor")
        where = self._running[-1][1].path
        self._left[f"{function} in {printable(where)}" if where else function] = None

    def whole(self) -> set[str]:
        """Torch's names of operators that count, or are not known, with all that runs in them."""
        by_formula = {operator.leaf for operator in self.operators if operator.formula}
        unknown = {name.partition(" ")[0] for found in self.unknown_in.values() for name in found}
        return by_formula | unknown

    def escapes(self) -> Iterator[str]:
        """What may have computed outside of torch."""
        if self._left:
            yield (
                f"values leave torch ({', '.join(self._left)}): what is computed of them there is "
                "not counted"
            )
        unread = [
            path
            for path, module in self._modules.items()
            if path in self._entered
            and (held := own_parameters(module).values())
            and self._taken.isdisjoint(map(id, held))
        ]
        if unread:
            named = [printable(path) or "the model" for path in unread]
            yield (
                f"no operator took the parameters of {first_few(named)} when it ran: if other code "
                "did, such as an extension, its products are not counted"
            )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        types = [kind for kind in types if replaces_operators(kind)]
        tensors = list(tensors_of((*args, *kwargs.values())))
        if not self._twins.keys().isdisjoint(map(id, tensors)):
            self._refuse_original()
            args, kwargs = tree_map_only(
                Tensor, lambda tensor: self._twins.get(id(tensor), tensor), (args, kwargs)
            )
            tensors = list(tensors_of((*args, *kwargs.values())))
        with self._lock:
            before = len(self.operators)
            output = self._see(func, types, args, kwargs, tensors)
            if types:
                self._doubt(types, self.operators[before:])
            else:
                output = as_stored(func, output, args)
            self.made.note(output, tensors)
            if self._whole and self.memory:
                self.memory.after(func, args, tensors, output, self._running[-1][1].path)
        return output

    def _see(self, func: Any, types: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        name, origin = name_of(func), self._origin(tensors)
        product = name in LEAVES or name.removeprefix("aten::") in KINDS
        if (types or product) and any(tensor.is_nested for tensor in tensors):
            raise DscalcError(
                f"{printable(origin[0]) or 'the model'} runs on a nested tensor, which is not "
                "supported; give one padded tensor"
            )
        if name in LEAVES:
            return self._count(func, name, args, kwargs, tensors, origin)
        if not isinstance(func, torch._ops.OpOverload) and name not in KINDS:
            self._not_known(name, origin, name)
            return _run_alone(func, args, kwargs)
        if name in KINDS or not has_no_macs(func):
            return self._take_apart(func, name, args, kwargs, tensors, origin)
        if types and not (func.is_view or is_listed(func)):
            self._not_known(f"{name} on {types[0].__name__}", origin, name)
        if name == "aten::native_batch_norm" and args[0].device.type == "meta" and not args[5]:
            # Its meta kernel is slow, being Python; its caller checks the shapes.
            return torch.empty_like(args[0]), *(args[0].new_empty(0) for _ in range(2))
        return func(*args, **kwargs)

    def _doubt(self, types: Any, operators: list[Operator]) -> None:
        for kind in types:
            doubt = (
                f"{printable(kind.__name__)} is a tensor with operators of its own "
                "(__torch_dispatch__): its products count by their shapes, which nothing proves"
            )
            if doubt not in self.doubts:
                self.doubts.append(doubt)
        self.doubtful.update((operator.path, operator.kind) for operator in operators)

    def _origin(self, tensors: list[Tensor]) -> _Origin:
        # A view of a parameter, such as one third of in_proj_weight, counts as the parameter.
        origins = [self._owners.get(id(t)) or self._owners.get(id(t._base)) for t in tensors]
        owned = [origin for origin in origins if origin]
        for path, parameter in owned:
            self.ran.add(path)
            self._taken.add(id(parameter))
        running = self._running[-1][1]
        if not owned:
            return running.path, None
        # The last of them: what comes before a weight may be a parameter too, such as a query.
        path, weight = next((one for one in reversed(owned) if one[1].dim() > 1), owned[0])
        if id(weight) in running.holds:
            path = running.path
        return path, weight if weight.dim() > 1 else None

    def _composite(self, kind: str, origin: _Origin, *more: Any) -> _Composite:
        self._calls += 1
        return _Composite(kind, self._calls, *origin, *more)

    def _not_known(self, name: str, origin: _Origin, kind: str) -> None:
        self.unknown_in[origin[0], kind.removeprefix("aten::")][name] += 1

    def _take_apart(
        self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], origin: _Origin
    ) -> Any:
        before = self._inside, self._string_padding, self._whole
        self._whole = False
        kind = KINDS.get(name.removeprefix("aten::"))
        if kind and not self._inside:
            more = (linear_of(args), args[1]) if kind == "linear" else ()
            self._inside = self._composite(kind, origin, *more)
            if any(tensor.is_complex() for tensor in tensors):
                self._not_known(f"{name} on complex numbers", origin, kind)
        if kind == "conv" and len(args) > 4 and isinstance(args[4], str):
            self._string_padding = args[4], args[0].shape
        apart: AbstractContextManager[Any] = nullcontext()
        if kind in RECURRENT:  # mkldnn would make one operator of it; without it others are slow
            apart = torch.backends.mkldnn.flags(enabled=False)
        elif kind == "attention":  # the model may have set another backend
            apart = sdpa_kernel(SDPBackend.MATH)
        try:
            with apart, self:
                output = _parts_of(func)(*args, **kwargs)
        finally:
            self._inside, self._string_padding, self._whole = before
        if output is NotImplemented:
            output = func(*args, **kwargs)
            # torch 2.4 registers the overload.
            formula = flop_registry.get(func._overloadpacket, flop_registry.get(func))
            if formula is None or not is_registered_by_user(formula) or name.startswith("aten::"):
                self._not_known(name, origin, name)
            else:
                self._count_by(formula, name, args, kwargs, origin, output)
        return output

    def _count_by(
        self, formula: Any, name: str, args: Any, kwargs: Any, origin: _Origin, output: Any
    ) -> None:
        """Count an operator by what the user registered with torch's ``register_flop_formula``."""
        called = getattr(formula, "__name__", "formula")
        try:
            flops = formula(*args, **kwargs, out_val=output)
            macs, odd = divmod(int(flops), 2)
            why = "" if flops >= 0 and flops == int(flops) and not odd else f"gives {flops:,} FLOPs"
        except USER_ERRORS as error:
            why = f"failed ({named_error(error, first_line(error))}{at_line(error)})"
        if why:
            self._fault = self._fault or DscalcError(
                f"your formula for {name}, {printable(called)}, {why}; it must give the FLOPs as a "
                "whole number, 2 a MAC"
            )
            return
        within = self._inside or self._composite(name, origin)
        elements = sum(tensor.numel() for tensor in tensors_of([output]))
        self.operators.append(
            Operator(
                within.path, within.kind, name, within.call, macs, elements,
                self._running[-1][1].step, None, False, within.weight, printable(called), macs,
            )
        )  # fmt: skip

    def _count(
        self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], origin: _Origin
    ) -> Any:
        output = func(*args, **kwargs)
        if any(tensor.is_complex() for tensor in tensors):
            if not self._inside:  # then that is named
                self._not_known(f"{name} on complex numbers", origin, name)
            return output
        if any(tensor.layout != torch.strided for tensor in tensors):
            self._not_known(f"{name} on sparse tensors", origin, name)
            return output
        shapes: list[Any] = [tuple(arg.shape) if isinstance(arg, Tensor) else arg for arg in args]
        whole: Tensor = output[0] if isinstance(output, tuple) else output  # the others are small
        macs = LEAVES[name](*shapes, output=tuple(whole.shape))
        if not macs and name in NO_MACS:
            return output
        conv = None
        kind = KINDS.get(name.removeprefix("aten::"), "matmul")
        if "convolution" in name:
            asked = self._string_padding or self._padded_by(args)
            conv = convolution_of(*shapes, output=tuple(whole.shape), asked=asked)
            kind = "transposed" if isinstance(conv, TransposedConv) else "conv"
        within = self._inside or self._composite(kind, origin)
        if within.path in self.in_place and within.path != self._forward:
            self.functional.add(within.path)
        self.operators.append(
            Operator(
                within.path,
                within.kind,
                "convolution" if conv else name.removeprefix("aten::"),
                within.call,
                macs,
                whole.numel(),
                self._running[-1][1].step,
                conv or within.conv,
                func._overloadpacket in self._counter.flop_registry,
                within.weight,
                nonzero=self._without_zeros(macs, name, args, within) if self._nonzero else None,
            )
        )
        return output

    def _padded_by(self, args: Any) -> tuple[Any, Shape] | None:
        """The padding of the running module, if it pads with other than zeros, and what it pads."""
        module = self._running[-1][0]
        if type(module) not in CONVOLUTIONS.values() or args[1] is not module.weight:
            return None
        if module.padding_mode == "zeros":
            return None
        pads: Any = module._reversed_padding_repeated_twice  # the last axis first
        both = [pads[i] + pads[i + 1] for i in range(len(pads) - 2, -1, -2)]
        sizes = [size - pad for size, pad in zip(args[0].shape[2:], both, strict=True)]
        return module.padding, (*args[0].shape[:2], *sizes)

    def _without_zeros(self, macs: int, name: str, args: Any, within: _Composite) -> int:
        """MACs of the weights that are not zero: each weight is multiplied equally often."""
        factor = within.factor
        if within.kind in ("conv", "transposed"):
            factor = args[1]
        elif factor is None:
            where = FACTORS.get(LEAVES[name])
            factors = [
                t for t in tensors_of(args[where] if where else args) if where or t.dim() > 1
            ]
            weights = [tensor for tensor in factors if _storage_of(tensor) in self._weights]
            if not weights and within.weight is not None:  # an einsum may copy it in another order
                weights = [tensor for tensor in factors if _is_permuted(tensor, within.weight)]
            factor = weights[-1] if weights else None
        if factor is None or not factor.numel():
            return macs
        with _disable_current_modes():
            return macs * int(factor.count_nonzero()) // factor.numel()


def _is_permuted(tensor: Tensor, weight: Tensor) -> bool:
    """Whether a tensor may have the elements of a weight in another order, by its zeros."""
    if tensor.numel() != weight.numel():
        return False
    with _disable_current_modes():
        return int(tensor.count_nonzero()) == int(weight.count_nonzero())


def _storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _places(modules: Mapping[str, nn.Module], blocks: Mapping[str, nn.Module]) -> dict[int, _Place]:
    """Where each module stands, by id: parts of a block where the convolution does."""
    places = {}
    for path, module in modules.items():
        holds = frozenset(map(id, own_parameters(module).values()))
        places[id(module)] = _Place(path, "", holds)
    for path, block in blocks.items():
        for name, part in block.named_modules():
            places[id(part)] = _Place(path, name.partition(".")[0], frozenset())
    return places


def _parts_of(func: Any) -> Callable[..., Any]:
    """What a composite operator runs; of those of higher order, flex_attention alone is one."""
    if isinstance(func, torch._ops.OpOverload):
        return func.decompose
    dense: Callable[..., Any] = func.py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd]
    return dense


def _run_alone(func: Any, args: Any, kwargs: Any) -> Any:
    """Run a higher-order operator, unseen if torch's own counter cannot see it."""
    output = func(*args, **kwargs)
    if output is NotImplemented:
        with _disable_current_modes(), record_function(name_of(func)):
            output = func(*args, **kwargs)
    return output


def is_registered_by_user(formula: Callable[..., Any]) -> bool:
    """Whether a formula of the counter is none of torch's own."""
    return formula.__module__ != FlopCounterMode.__module__
