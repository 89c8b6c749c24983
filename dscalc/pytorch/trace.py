"""See every operator of one forward pass, and count its MACs, without running it.

A copy of the model on the meta device, where tensors have shapes and no values, runs once under a
dispatch mode. In inference mode composite operators (linear, attention, lstm, einsum) arrive whole:
the mode notes what they are and takes them apart, down to the few products below. Every other
operator is known to hold no MACs, or is named. torch's own FlopCounterMode counts the same run.
"""

import copy
import random
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from traceback import walk_tb
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dscalc.core.conv import Conv
from dscalc.core.transposed import TransposedConv
from dscalc.errors import DscalcError
from dscalc.pytorch.inputs import Copying, Inputs, input_hint, materialised
from dscalc.pytorch.load import user_line
from dscalc.pytorch.operators import (
    KINDS,
    LEAVES,
    RECURRENT,
    Shape,
    convolution_of,
    has_no_macs,
    linear_of,
    name_of,
)
from dscalc.show import first_line, printable

# ---- What a trace says. ----


@dataclass(frozen=True)
class Operator:
    """One product that ran: where, as part of what, and what it costs.

    Attributes:
        path: the running module if it holds the weight, else the module that owns the weight, else
            the running module; "" is the model.
        kind: the outermost composite (conv, transposed, linear, matmul, attention, einsum, lstm,
            gru, rnn); a product on its own is conv, transposed or matmul.
        leaf: torch's name of the product, such as "addmm".
        call: products of one call of a composite share a number; it increases.
        macs: multiply-accumulates, for the whole batch.
        activations: elements of the output.
        step: the child of the block that ran in place of a convolution, else "".
        conv: the convolution, or the linear layer: one without axes, with its rows as the batch.
        by_torch: whether torch's FlopCounterMode counts it too.
        weight: the parameter of the model that is multiplied with, where it is one itself.
    """

    path: str
    kind: str
    leaf: str
    call: int
    macs: int
    activations: int
    step: str
    conv: Conv | None
    by_torch: bool
    weight: nn.Parameter | None = field(compare=False, repr=False)


@dataclass
class InPlace:
    """What ran in place of a convolution, at each of its calls and on its input.

    Attributes:
        operators: those of the block.
        torch_macs: what torch's FlopCounterMode counts of them.
        instead_of: what it counts of the convolution.
    """

    operators: list[Operator] = field(default_factory=list)
    torch_macs: int = 0
    instead_of: int = 0


@dataclass(frozen=True)
class Trace:
    """All that ran in one forward pass.

    Attributes:
        operators: in the order that they ran, without those of blocks.
        unknown_in: of each module and kind of operator, those without a formula that are not known
            to hold no MACs, and how often they ran.
        torch_macs: what torch's FlopCounterMode counts of the same run, halved; None if it failed.
        ran: paths of modules that ran, or that own a parameter which an operator took.
        blocks: what ran in place of convolutions, by their paths.
        functional: paths of those among them whose weight also ran outside of their forward.
        real: whether real tensors ran, since the model needs values.
        reason: why, in that case.
        observed: what the observer of the run saw, if there was one.
    """

    operators: list[Operator]
    unknown_in: dict[tuple[str, str], Counter[str]]
    torch_macs: int | None
    ran: set[str]
    blocks: dict[str, InPlace]
    functional: set[str]
    real: bool = False
    reason: str = ""
    observed: Any = None

    @property
    def unknown(self) -> Counter[str]:
        """The operators that are not known, and how often they ran."""
        return sum(self.unknown_in.values(), Counter())

    @property
    def macs(self) -> int | None:
        """The sum; None where an operator is unknown."""
        return None if self.unknown else sum(operator.macs for operator in self.operators)

    @property
    def known_to_torch(self) -> int:
        """MACs that FlopCounterMode knows; where nothing is unknown `torch_macs` is the same."""
        return sum(operator.macs for operator in self.operators if operator.by_torch)


# ---- Copies, so that the user's model is left as it is. ----


def copied_to(device: str, model: nn.Module) -> nn.Module:
    """Copy a model in evaluation mode; to meta, where its tensors have no values, or to the CPU.

    Tied parameters stay tied, parameters have no gradients, a compiled module becomes the one that
    it was made from, and one that spreads over GPUs does not.

    Raises:
        DscalcError: the model cannot be copied, or has quantised modules.
    """
    for path, module in model.named_modules():
        home = type(module).__module__
        packed = home.startswith("torch.") and ".quantized" in home
        if packed and not home.endswith(".functional_modules"):  # those stand in float models too
            raise DscalcError(
                f"{printable(path) or 'the model'} is a quantised module "
                f"({type(module).__name__}), whose weights are packed away; audit the float "
                "nn.Module that it was made from"
            )
    twin_of = partial(_twin, device)
    tensors = chain(model.parameters(), model.buffers())
    memo: dict[int, Any] = {id(tensor): twin_of(tensor) for tensor in tensors}
    try:
        with warnings.catch_warnings(), Copying(twin_of):
            warnings.simplefilter("ignore")  # of gradients, in scripted modules
            for module in reversed(list(model.modules())):  # what is inside a module comes first
                if type(module).__name__ == "OptimizedModule":
                    memo[id(module)] = copy.deepcopy(module._modules["_orig_mod"], memo)
            twin = copy.deepcopy(model, memo)
            for module in twin.modules():
                module.__dict__.pop("_compiled_call_impl", None)
                if isinstance(module, nn.DataParallel):
                    module.device_ids = []  # it then calls what it holds, without a GPU
                if isinstance(module, torch.jit.ScriptModule):  # copied in C++, past the memo
                    module.to(device)
    except Exception as error:  # whatever the model's own attributes raise
        raise DscalcError(
            f"the model cannot be copied, and dscalc runs only a copy ({first_line(error)})"
        ) from error
    return twin.eval()


def _twin(device: str, tensor: Tensor) -> Tensor:
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        empty: Any = type(tensor)  # the stub of a buffer has the arguments of another class
        with torch.inference_mode():  # where it gets its shape
            twin: Tensor = empty(requires_grad=False, device=device, dtype=tensor.dtype)
    else:
        twin = tensor.detach().to(device, copy=True)
        if isinstance(tensor, nn.Parameter):
            twin = nn.Parameter(twin, requires_grad=False)
    twin.trains = tensor.requires_grad  # type: ignore[attr-defined]
    return twin


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """Elements of those parameters of a copy that require a gradient in the user's model."""
    return sum(
        parameter.numel()
        for parameter in parameters
        if getattr(parameter, "trains", parameter.requires_grad)  # a scripted one has none of ours
    )


# ---- The run. ----


Blocks = Callable[[nn.Module], Mapping[str, nn.Module]]


class RunObserver(Protocol):
    """What else sees a run."""

    def on(self) -> AbstractContextManager[None]:
        """See what runs inside."""

    def paused(self) -> AbstractContextManager[None]:
        """See nothing of what runs inside: a block beside the model."""

    def result(self, operators: Sequence[Operator]) -> Any:
        """What it saw, given the products that ran."""


Observe = Callable[[], RunObserver]


def trace_either(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rebuild: Callable[[], nn.Module] | None = None,
    *,
    blocks: Blocks | None = None,
    observe: Observe | None = None,
) -> tuple[Trace, nn.Module]:
    """Trace a copy on the meta device; on the CPU where the model needs values.

    Args:
        model: any module; it is left as it is.
        args: what its ``forward`` takes: tensors, or any nest of them.
        kwargs: the same, by keyword.
        rebuild: makes the model with values, if it was built on the meta device and needs them.
        blocks: what to run beside which convolutions of the copy; see `trace`.
        observe: makes an observer of the run; a run that is made again has a new one.

    Returns:
        The trace, and the copy that ran.

    Raises:
        DscalcError: the model cannot be copied, or cannot run on these inputs.
    """
    try:
        twin = copied_to("meta", model)
        return trace(twin, args, kwargs, blocks=blocks, observe=observe), twin
    except DscalcError as error:
        if error.__cause__ is None:  # nothing that values would change
            raise
        cause = error.__cause__
    said = first_line(cause).partition(". ")[0]
    said = f"{said[:77].rpartition(' ')[0]}..." if len(said) > 80 else said
    reason = f"{type(cause).__name__}: {said}{_at(cause)}"
    if any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        if rebuild is None:
            raise DscalcError(
                f"the model does not run without values ({reason}), but its weights are on the "
                "meta device, which has none; build it on the CPU"
            ) from cause
        model = rebuild()
    twin = copied_to("cpu", model)
    found = trace(twin, args, kwargs, "cpu", blocks=blocks, observe=observe)
    return replace(found, reason=reason), twin


def trace(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    device: str = "meta",
    *,
    blocks: Blocks | None = None,
    observe: Observe | None = None,
) -> Trace:
    """Run a model once, as it stands, and see all of its operators.

    Args:
        model: a copy, as from `copied_to`; it may change itself while it runs.
        args: what its ``forward`` takes: tensors on any device, or any nest of them; copies run.
        kwargs: the same, by keyword.
        device: where the model's tensors are, "meta" or "cpu".
        blocks: gives, for the paths of some convolutions of the model, modules that map the same
            shapes. Each runs beside its convolution on the same input; what follows takes the
            output of the convolution.
        observe: makes an observer of the run; a run that is made again has a new one.

    Raises:
        DscalcError: the model cannot run on these inputs.
    """
    inputs = Inputs(args, kwargs)
    if any(map(is_lazy, chain(model.parameters(), model.buffers()))):
        # It gets its shapes; torch 2.4 cannot give them under a mode.
        with _say_why(model, inputs), _surroundings(device):
            given = materialised(inputs, device)
            model(*given.args, **given.kwargs)
    in_place = blocks(model) if blocks else {}
    for with_torch in (True, False):
        observer = observe() if observe else None
        counter = FlopCounterMode(display=False)
        # By global totals alone: the tracker of modules that it comes with needs gradients.
        counter.mod_tracker = _OnlyGlobal()  # type: ignore[assignment]
        watch = _Watch(model, in_place, counter, observer)
        try:
            with _say_why(model, inputs), ExitStack() as stack:
                given = materialised(inputs, device)
                stack.enter_context(_surroundings(device))
                stack.enter_context(watch.hooks())
                if with_torch:
                    stack.enter_context(counter)
                stack.enter_context(watch)  # innermost, so that composites come here first
                if observer:
                    stack.enter_context(observer.on())
                model(*given.args, **given.kwargs)
        except DscalcError as error:
            if with_torch and error.__cause__ and _counter_failed(error.__cause__):
                continue
            raise
        break
    return Trace(
        watch.operators,
        watch.unknown_in,
        watch.torch_macs() if with_torch else None,
        watch.ran,
        watch.in_place,
        watch.functional,
        device != "meta",
        observed=observer.result(watch.operators) if observer else None,
    )


@contextmanager
def _say_why(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Tell in one line why a model cannot run."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise _cannot_run(model, inputs, error) from error


class _OnlyGlobal(nullcontext[None]):
    parents: frozenset[str] = frozenset({"Global"})


@contextmanager
def _surroundings(device: str) -> Iterator[None]:
    """What holds around a run; all of it is put back, random states too."""
    mha = torch.backends.mha
    with ExitStack() as stack:
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        stack.callback(random.setstate, random.getstate())
        random.seed(0)
        if numpy := sys.modules.get("numpy"):
            stack.callback(numpy.random.set_state, numpy.random.get_state())
            numpy.random.seed(0)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(0)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        # On a CPU attention would be one fused operator, whose products cannot be seen.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.device(device))
        yield


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


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: counts it, takes it apart, knows that it holds no MACs, or names it."""

    supports_higher_order_operators = True

    def __init__(
        self,
        model: nn.Module,
        blocks: Mapping[str, nn.Module],
        counter: FlopCounterMode,
        observer: RunObserver | None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []
        self.unknown_in: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.ran: set[str] = set()
        self.in_place = {path: InPlace() for path in blocks}
        self.functional: set[str] = set()
        self._blocks = [(path, model.get_submodule(path), block) for path, block in blocks.items()]
        self._forward = ""  # the path of the convolution of these whose forward runs
        self._counter = counter
        self._observer = observer
        self._calls = 0
        self._inside: _Composite | None = None
        self._string_padding: tuple[str, Shape] | None = None  # and the size that it pads
        self._places = _places(model, blocks)
        self._running = [(model, self._places[id(model)])]
        self._owners: dict[int, tuple[str, nn.Parameter]] = {}
        for path, module in model.named_modules():
            for parameter in module.parameters(recurse=False):
                self._owners.setdefault(id(parameter), (path, parameter))

    def torch_macs(self) -> int:
        """What FlopCounterMode counts of the model as it is."""
        return self._torch_macs() - sum(block.torch_macs for block in self.in_place.values())

    def _torch_macs(self) -> int:
        macs, odd = divmod(self._counter.get_total_flops(), 2)
        return macs + odd  # half a MAC is none, and then both counts differ

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
                held["forward"] = self._both(path, module.forward, block)
            yield

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        parent = self._running[-1][1]
        place = self._places.get(id(module), parent._replace(holds=frozenset()))
        self._running.append((module, place))
        self.ran.add(place.path)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        while len(self._running) > 1 and self._running.pop()[0] is not module:
            pass

    def _both(self, path: str, forward: Callable[..., Any], block: nn.Module) -> Callable[..., Any]:
        """A forward that runs a convolution, and a block beside it."""
        found = self.in_place[path]

        def both(*args: Any, **kwargs: Any) -> Any:  # a function, which deepcopy does not copy
            start = self._torch_macs()
            self._forward = path
            output = forward(*args, **kwargs)
            middle = self._torch_macs()
            before, self._inside = self._inside, self._composite("conv", (path, None))
            mine, self.operators = self.operators, found.operators
            with self._observer.paused() if self._observer else nullcontext():
                beside = block(*args, *kwargs.values())
            self.operators, self._inside, self._forward = mine, before, ""
            assert not isinstance(output, Tensor) or beside.shape == output.shape
            found.instead_of += middle - start
            found.torch_macs += self._torch_macs() - middle
            return output

        return both

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        tensors = list(_tensors((*args, *kwargs.values())))
        origin = self._origin(tensors)
        if not isinstance(func, torch._ops.OpOverload):  # a higher-order operator
            self._not_known(name, origin, name)
            return func(*args, **kwargs)
        if has_no_macs(func):
            if name == "aten::native_batch_norm" and args[0].is_meta and not args[5]:
                # Its meta kernel is slow, being Python; its caller checks the shapes.
                return torch.empty_like(args[0]), *(args[0].new_empty(0) for _ in range(2))
            return func(*args, **kwargs)
        see = self._count if name in LEAVES else self._take_apart
        return see(func, name, args, kwargs, tensors, origin)

    def _origin(self, tensors: list[Tensor]) -> _Origin:
        # A view of a parameter, such as one third of in_proj_weight, counts as the parameter.
        origins = [self._owners.get(id(t)) or self._owners.get(id(t._base)) for t in tensors]
        owned = [origin for origin in origins if origin]
        self.ran.update(path for path, _ in owned)
        running = self._running[-1][1]
        if not owned:
            return running.path, None
        # The last of them: what comes before a weight may be a parameter too, such as a query.
        path, weight = next((one for one in reversed(owned) if one[1].dim() > 1), owned[0])
        if id(weight) in running.holds:
            path = running.path
        return path, weight if weight.dim() > 1 else None

    def _composite(self, kind: str, origin: _Origin, conv: Conv | None = None) -> _Composite:
        self._calls += 1
        return _Composite(kind, self._calls, *origin, conv)

    def _not_known(self, name: str, origin: _Origin, kind: str) -> None:
        self.unknown_in[origin[0], kind.removeprefix("aten::")][name] += 1

    def _take_apart(
        self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], origin: _Origin
    ) -> Any:
        before = self._inside, self._string_padding
        kind = KINDS.get(name.removeprefix("aten::"))
        if kind and not self._inside:
            conv = linear_of(args) if kind == "linear" else None
            self._inside = self._composite(kind, origin, conv)
            if any(tensor.is_complex() for tensor in tensors):
                self._not_known(f"{name} on complex numbers", origin, kind)
        if kind == "conv" and len(args) > 4 and isinstance(args[4], str):
            self._string_padding = args[4], args[0].shape
        # mkldnn would make one operator of an LSTM; without it convolutions are slow.
        whole = torch.backends.mkldnn.flags(enabled=False) if kind in RECURRENT else nullcontext()
        try:
            with whole, self:
                output = func.decompose(*args, **kwargs)
        finally:
            self._inside, self._string_padding = before
        if output is NotImplemented:
            self._not_known(name, origin, name)
            return func(*args, **kwargs)
        return output

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
        macs = LEAVES[name](*shapes, output=tuple(output.shape))
        conv = None
        kind = "matmul"
        if "convolution" in name:
            conv = convolution_of(*shapes, output=tuple(output.shape), asked=self._string_padding)
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
                output.numel(),
                self._running[-1][1].step,
                conv or within.conv,
                func._overloadpacket in flop_registry,
                within.weight,
            )
        )
        return output


def _places(model: nn.Module, blocks: Mapping[str, nn.Module]) -> dict[int, _Place]:
    """Where each module stands, by id: parts of a block where the convolution does."""
    places = {}
    for path, module in model.named_modules():
        holds = frozenset(id(parameter) for parameter in module.parameters(recurse=False))
        places[id(module)] = _Place(path, "", holds)
    for path, block in blocks.items():
        for name, part in block.named_modules():
            places[id(part)] = _Place(path, name.partition(".")[0], frozenset())
    return places


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


# ---- What went wrong, in one line. ----


def _cannot_run(model: nn.Module, inputs: Inputs, error: BaseException) -> DscalcError:
    """Name the innermost module of the model that was running, and the user's own line."""
    paths = {id(module): path for path, module in model.named_modules()}
    path, module = "", model
    for frame, _ in walk_tb(error.__traceback__):
        running = frame.f_locals.get("self")
        if isinstance(running, nn.Module) and id(running) in paths:
            path, module = paths[id(running)], running
    name = type(module).__name__
    what = f"{printable(path)} ({name})" if path else name
    line = _at(error)
    why = f"{type(error).__name__}: {first_line(error)}{line}"
    advice = input_hint(model, inputs, error)
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        advice = "parts of it are scripted: audit the float nn.Module that they were made from"
    elif "require grad" in str(error):
        advice = "models run without gradients here"
    elif "active mode" in str(error):  # which names dscalc's own
        why = f"torch {torch.__version__} hides what is in a higher-order operator{line}"
        advice = "use a later torch"
    elif isinstance(error, NotImplementedError):
        return DscalcError(f"{what} cannot run on these inputs ({why})")
    return DscalcError(f"{what} cannot run on these inputs ({why}); {advice}")


def _at(error: BaseException) -> str:
    """Say ", at model.py:12", of the user's own line."""
    line = user_line(error, packages=True)
    return f", at {line.file}:{line.number}" if line else ""


def _counter_failed(error: BaseException) -> bool:
    """Whether torch's own counter raised, and not the operator that it saw."""
    functions = [
        frame.f_code.co_name
        for frame, _ in walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == FlopCounterMode.__module__
    ]
    refused = isinstance(error, TypeError) and "no implementation found" in str(error)
    return refused or (bool(functions) and functions[-1] != "__torch_dispatch__")
