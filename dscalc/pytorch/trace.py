"""See every operator of one forward pass, and count its MACs, without running it.

A copy of the model on the meta device, where tensors have shapes and no values, runs once under a
dispatch mode. In inference mode composite operators (linear, attention, lstm, einsum) arrive whole:
the mode notes what they are and takes them apart, down to the few products below. Every other
operator is known to hold no MACs, or is named. torch's own FlopCounterMode counts the same run.
"""

import gc
import re
import sys
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from traceback import walk_tb
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import (  # type: ignore[attr-defined]
    TorchDispatchMode,
    _disable_current_modes,
    _len_torch_dispatch_stack,
    _pop_mode,
)
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dscalc.core.conv import Conv
from dscalc.core.peaks import Memory
from dscalc.core.transposed import TransposedConv
from dscalc.errors import DscalcError
from dscalc.pytorch.copies import Copy, copy_of, seeded
from dscalc.pytorch.inputs import Inputs, input_hint, materialised
from dscalc.pytorch.load import USER_ERRORS, exits_refused, named_error, user_line
from dscalc.pytorch.memory import MemoryObserver
from dscalc.pytorch.operators import (
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
from dscalc.pytorch.storages import weights_of
from dscalc.pytorch.strides import as_stored
from dscalc.pytorch.walk import (
    Held,
    changed_parts,
    holdings,
    named_modules,
    own_parameters,
    parameters_in,
    tensors_in,
)
from dscalc.pytorch.witness import Witness
from dscalc.show import first_few, first_line, message_of, plural, printable

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
        formula: the user's formula that gave the MACs; "" if it is one of dscalc.
        nonzero: its MACs without those of zeros among the weights; None if nobody asked.
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
    formula: str = ""
    nonzero: int | None = None


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
        functional: paths of those among them whose weight also ran outside of their forward, or
            that ran with another weight.
        held: what each module held before the run, by path.
        changes: what the model changed of that, such as "aux is deleted".
        doubts: why the counts are not proved, though they may be right: one sentence each.
        doubtful: the module and the kind of operator of rows that are meant.
        memory: what the model takes.
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
    held: dict[str, Held]
    changes: list[str]
    doubts: list[str]
    doubtful: set[tuple[str, str]]
    memory: Memory
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
_Run = TypeVar("_Run")
_W = TypeVar("_W", bound="Watch")
_MOST_YIELDED = 10_000  # by a forward that is a generator


def trace_either(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rebuild: Callable[[], nn.Module] | None = None,
    *,
    blocks: Blocks | None = None,
    observe: Observe | None = None,
    bits: int | None = None,
    nonzero: bool = False,
) -> tuple[Trace, nn.Module]:
    """Trace a copy on the meta device; on the CPU where the model needs values.

    Args:
        model: any module; it is left as it is.
        args: what its ``forward`` takes: tensors, or any nest of them.
        kwargs: the same, by keyword.
        rebuild: makes the model with values, if it was built on the meta device and needs them.
        blocks: what to run beside which convolutions of the copy; see `trace`.
        observe: makes an observer of the run; a run that is made again has a new one.
        bits: of a floating element in memory; as it is by default.
        nonzero: whether zeros among the weights are counted, which needs their values.

    Returns:
        The trace, and the copy that ran.

    Raises:
        DscalcError: the model cannot be copied, or cannot run on these inputs.
    """
    run = partial(trace, blocks=blocks, observe=observe, bits=bits, nonzero=nonzero, original=model)
    why = "to count zeros among the weights" if nonzero else ""
    return run_either(run, model, args, kwargs, rebuild, needs_values=why)


def run_either(
    run: Callable[..., _Run],
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rebuild: Callable[[], nn.Module] | None,
    *,
    needs_values: str = "",
) -> tuple[_Run, nn.Module]:
    """Run a copy on the meta device; on the CPU where the model needs values.

    Args:
        run: runs a copy, as `trace` does, and returns a dataclass that has a ``reason``.
        model, args, kwargs, rebuild: as in `trace_either`.
        needs_values: why it is not run on the meta device at all.

    Raises:
        DscalcError: the model cannot be copied, or cannot run on these inputs.
    """
    cause, reason = None, needs_values
    if not needs_values:
        try:
            return _run_a_copy(run, "meta", model, args, kwargs)
        except DscalcError as error:
            if isinstance(error.__cause__, RecursionError | None):  # values would change nothing
                raise
            cause = error.__cause__
        said = first_line(cause).partition(". ")[0]
        said = f"{said[:77].rpartition(' ')[0]}..." if len(said) > 80 else said
        reason = f"{named_error(cause, said)}{_at(cause)}"
    if any(tensor.is_meta for tensor in tensors_in(model)):
        if rebuild is None:
            raise DscalcError(
                f"the model does not run without values ({reason}), but its weights are on the "
                "meta device, which has none; build it on the CPU"
            ) from cause
        model = rebuild()
    found: Any
    found, twin = _run_a_copy(run, "cpu", model, args, kwargs)
    return replace(found, reason=reason), twin


def _run_a_copy(
    run: Callable[..., _Run],
    device: str,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[_Run, nn.Module]:
    """Run a copy of a model; if a function leads to the original, let that be another copy."""
    made = copy_of(device, model)
    if not made.reaches_original:
        with suppress(_ReachesOriginal):
            return run(made.model, args, kwargs, device, made=made), made.model
        made = copy_of(device, model)  # the run may have changed the first
    with made.as_original():
        found = run(made.model, args, kwargs, device, made=made, lent=True)
    return found, made.model


class _ReachesOriginal(BaseException):
    """A copy that runs reaches its original; no ``except Exception`` of a model catches this."""


def trace(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    device: str = "meta",
    *,
    blocks: Blocks | None = None,
    observe: Observe | None = None,
    bits: int | None = None,
    original: nn.Module | None = None,
    nonzero: bool = False,
    made: Copy | None = None,
    lent: bool = False,
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
        bits: of a floating element in memory; as it is by default.
        original: what it is a copy of, which may share storages where the copy does not.
        nonzero: whether zeros among the weights are counted; not on meta.
        made: the copy, with what it is a copy of.
        lent: whether the original is the copy meanwhile; see `Copy.as_original`.

    Raises:
        DscalcError: the model cannot run on these inputs.
    """
    inputs = Inputs(args, kwargs)
    made = made or Copy(model, holdings(model), [], [])
    lazy = any(map(is_lazy, tensors_in(model)))
    if lazy:
        # It gets its shapes; torch 2.4 cannot give them under a mode.
        with _say_why(model, inputs), _surroundings(device, None):
            given = materialised(inputs, device)
            run_to_the_end(model, given)
    weights = weights_of(model if lazy or original is None else original, bits)
    in_place = blocks(model) if blocks else {}

    def make(counter: FlopCounterMode, given: Inputs) -> Watch:
        observer = observe() if observe else None
        watch = Watch(made, in_place, counter, observer, lent=lent, nonzero=nonzero)
        watch.memory = MemoryObserver(model, given, weights, bits)
        watch.witness = Witness(LEAVES)
        return watch

    def run(watch: Watch, given: Inputs) -> Any:
        with watch.observed():
            return run_to_the_end(model, given)

    watch, output, with_torch = run_watched(model, inputs, device, make, run)
    watch.doubts += chain(_unwitnessed(watch.witness, watch.whole()), watch.escapes())
    return Trace(
        watch.operators,
        watch.unknown_in,
        watch.torch_macs() if with_torch else None,
        watch.ran,
        watch.in_place,
        watch.functional,
        made.held,
        changed_parts(made.held, holdings(model)),
        watch.doubts,
        watch.doubtful,
        watch.memory.result(output),
        device != "meta",
        observed=watch.observer.result(watch.operators) if watch.observer else None,
    )


def run_watched(
    model: nn.Module,
    inputs: Inputs,
    device: str,
    make: Callable[[FlopCounterMode, Inputs], _W],
    run: Callable[[_W, Inputs], Any],
    *,
    gradients: bool = False,
) -> tuple[_W, Any, bool]:
    """Run a model under a watch, and under torch's own counter if that can count it.

    Args:
        model, inputs, device: as in `trace`.
        make: makes the watch, given that counter and the inputs that run.
        run: runs the model on these.
        gradients: whether autograd records.

    Returns:
        The watch, what ``run`` returns, and whether torch counted.
    """
    for with_torch in (True, False):
        counter: Any = FlopCounterMode(display=False)
        # By global totals alone: the tracker of modules that it comes with needs gradients.
        counter.mod_tracker = _OnlyGlobal()
        # What a user registered proves nothing.
        counter.flop_registry = {
            op: f for op, f in flop_registry.items() if not _is_registered_by_user(f)
        }
        try:
            with _say_why(model, inputs), ExitStack() as stack:
                given = materialised(inputs, device)
                watch = make(counter, given)
                stack.enter_context(_surroundings(device, watch, gradients))
                stack.enter_context(watch.hooks())
                if with_torch:
                    stack.enter_context(counter)
                stack.enter_context(watch)  # innermost, so that composites come here first
                output = run(watch, given)
        except DscalcError as error:
            if with_torch and error.__cause__ and _counter_failed(error.__cause__):
                continue
            raise
        break
    watch.settle(device)
    return watch, output, with_torch


def run_to_the_end(model: nn.Module, inputs: Inputs) -> Any:
    """Run a model, to the end of what it yields."""
    output = model(*inputs.args, **inputs.kwargs)
    _exhaust(output, type(model).__name__)
    return output


def _exhaust(output: Any, name: str) -> None:
    for later in tree_leaves(output):
        if isinstance(later, Coroutine | AsyncIterator):
            if isinstance(later, Coroutine):
                later.close()  # else Python warns that nobody waits for it
            raise DscalcError(
                f"forward of {name} is asynchronous, and runs only where it is awaited; audit a "
                "model whose forward is a plain function"
            )
        if isinstance(later, Iterator):
            for number, value in enumerate(later):
                if number == _MOST_YIELDED:
                    raise DscalcError(
                        f"forward of {name} yields more than {_MOST_YIELDED:,} values; audit a "
                        "model that comes to an end"
                    )
                _exhaust(value, name)


@contextmanager
def _say_why(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Tell in one line why a model cannot run."""
    try:
        yield
    except DscalcError:
        raise
    except (*USER_ERRORS, GeneratorExit) as error:
        raise _cannot_run(model, inputs, error) from error


def _is_registered_by_user(formula: Callable[..., Any]) -> bool:
    return formula.__module__ != FlopCounterMode.__module__


class _OnlyGlobal(nullcontext[None]):
    parents: frozenset[str] = frozenset({"Global"})


def _unwitnessed(witness: Witness, whole: Collection[str]) -> Iterator[str]:
    """Why products may be missing, but for those inside the operators that are taken whole.

    Raises:
        DscalcError: some are.
    """
    for place, products in witness.unseen(whole).items():
        number = products.total()
        ran = f"{number:,} {plural('product', number)} ({first_few(sorted(products))}) ran {place}"
        if place == "on an older thread":
            yield f"{ran} than this run's: if the model started it, the total lacks what it ran"
            continue
        fix = "have forward run all products on its own thread"
        if place != "on another thread":
            fix = "have forward run all products with it on, and not from a __torch_dispatch__"
        raise DscalcError(f"{ran}, which dscalc cannot see; {fix}")
    if witness.is_blind:
        yield (
            "products on threads that the run started would not be seen by this torch, or another "
            "profiler was on: nothing proves that none is missing"
        )


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_LEAVING = {  # what takes values out of torch
    getattr(Tensor, name): name
    for name in ("numpy", "tolist", "data_ptr", "__array__", "__dlpack__")
}


class _Device(DeviceContext):
    """Where new tensors are; it tells a watch of values that are missing, or that leave torch."""

    def __init__(self, device: str, watch: "Watch | None") -> None:
        super().__init__(torch.device(device))
        self._watch = watch

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        watch = self._watch
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
def _surroundings(device: str, watch: "Watch | None", gradients: bool = False) -> Iterator[None]:
    """What holds around a run; all of it is put back, random states too."""
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
        stack.enter_context(torch.enable_grad() if gradients else torch.inference_mode())
        stack.enter_context(_Device(device, watch))
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
    factor: Tensor | None = None  # the weight, even if it was computed


_TORCHS_DISPATCH = Tensor.__torch_dispatch__  # of tensors that replace no operators


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: counts it, takes it apart, knows that it holds no MACs, or names it."""

    supports_higher_order_operators = True

    def __init__(
        self,
        made: Copy,
        blocks: Mapping[str, nn.Module],
        counter: FlopCounterMode,
        observer: RunObserver | None,
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
        self.observer = observer
        self.memory: MemoryObserver
        self.witness: Witness
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
        with self.witness.on(), other, self.memory.on():
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
            raise _ReachesOriginal

    def settle(self, device: str) -> None:
        """Raise what the model caught in a run that must be made again, or is refused."""
        if self._fault:
            raise self._fault
        if self._reached:
            raise _ReachesOriginal
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
        types = [kind for kind in types if kind.__torch_dispatch__ is not _TORCHS_DISPATCH]
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
            if self._whole:
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
        if name == "aten::native_batch_norm" and args[0].is_meta and not args[5]:
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
            formula = flop_registry.get(func._overloadpacket)
            if formula is None or not _is_registered_by_user(formula) or name.startswith("aten::"):
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
            why = f"failed ({named_error(error, first_line(error))}{_at(error)})"
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
            conv = convolution_of(*shapes, output=tuple(whole.shape), asked=self._string_padding)
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
                nonzero=self._without_zeros(macs, args, within) if self._nonzero else None,
            )
        )
        return output

    def _without_zeros(self, macs: int, args: Any, within: _Composite) -> int:
        """MACs of the weights that are not zero: each weight is multiplied equally often."""
        factor = within.factor
        if within.kind in ("conv", "transposed"):
            factor = args[1]
        elif factor is None:
            weights = [
                t for t in tensors_of(args) if t.dim() > 1 and _storage_of(t) in self._weights
            ]
            factor = weights[-1] if weights else None
        if factor is None or not factor.numel():
            return macs
        with _disable_current_modes():
            return macs * int(factor.count_nonzero()) // factor.numel()


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


# ---- What went wrong, in one line. ----


def _cannot_run(model: nn.Module, inputs: Inputs, error: BaseException) -> DscalcError:
    """Name the innermost module of the model that was running, and the user's own line."""
    paths = {id(module): path for path, module in named_modules(model)}
    path, module = "", model
    for frame, _ in walk_tb(error.__traceback__):
        running = frame.f_locals.get("self")
        if isinstance(running, nn.Module) and id(running) in paths:
            path, module = paths[id(running)], running
    name = type(module).__name__
    what = f"{printable(path)} ({name})" if path else name
    line = _at(error)
    why = f"{named_error(error, first_line(error))}{line}"
    advice = input_hint(model, inputs, error)
    if any(isinstance(part, torch.jit.ScriptModule) for _, part in named_modules(model)):
        advice = "parts of it are scripted: audit the float nn.Module that they were made from"
    elif isinstance(error, SystemExit | GeneratorExit):
        advice = "it ends what calls it; take that out of forward"
    elif isinstance(error, RecursionError):
        advice = "it calls itself without end, or too deeply for Python"
    elif "require grad" in message_of(error):
        advice = "models run without gradients here"
    elif "active mode" in message_of(error):  # which names dscalc's own
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
