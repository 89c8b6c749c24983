"""See every operator of one forward pass, and count its MACs, without running it.

A copy of the model on the meta device, where tensors have shapes and no values, runs once under a
dispatch mode. torch's own FlopCounterMode counts the same run.
"""

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dscalc.errors import DscalcError
from dscalc.pytorch.copies import Copy, copy_of, gradients_put_back, require_gradients
from dscalc.pytorch.failures import at_line, counter_failed, say_why
from dscalc.pytorch.inputs import Inputs, materialised
from dscalc.pytorch.memory import MemoryObserver
from dscalc.pytorch.operators import LEAVES
from dscalc.pytorch.storages import weights_of
from dscalc.pytorch.surroundings import surroundings
from dscalc.pytorch.traced import Trace
from dscalc.pytorch.user_errors import named_error
from dscalc.pytorch.walk import changed_parts, holdings, tensors_in
from dscalc.pytorch.watch import ReachesOriginal, RunObserver, Watch, is_registered_by_user
from dscalc.pytorch.witness import Witness, unwitnessed
from dscalc.show import first_line, message_of

Blocks = Callable[[nn.Module], Mapping[str, nn.Module]]
Observe = Callable[[], RunObserver]
_Run = TypeVar("_Run")
_W = TypeVar("_W", bound=Watch)
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
        blocks: gives modules to run beside convolutions of the copy, by their paths.
        observe: makes an observer of the run; a run that is made again has a new one.
        bits: of a floating element in memory; as it is by default.
        nonzero: whether zeros among the weights are counted, which needs their values.

    Returns:
        The trace, and the copy that ran.

    Raises:
        DscalcError: the model cannot be copied, or cannot run on these inputs.
    """
    run = partial(trace, blocks=blocks, observe=observe, bits=bits, nonzero=nonzero)
    why = "to count zeros among the weights" if nonzero else ""
    try:
        return run_either(run, model, args, kwargs, rebuild, needs_values=why)
    except DscalcError as error:
        if not _needs_graph(error):
            raise
    # It differentiates within its forward. In other runs that is off, since autograd takes apart
    # composites before anything sees them, and with them the kinds of rows.
    run = partial(run, differentiates=True)
    return run_either(run, model, args, kwargs, rebuild, needs_values=why)


def _needs_graph(error: DscalcError) -> bool:
    """Whether a model failed since nothing is recorded for autograd."""
    said = message_of(error.__cause__)
    return bool(re.search("does not require grad|Inference tensors", said))


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
            if isinstance(error.__cause__, RecursionError | None) or _needs_graph(error):
                raise  # values would change nothing
            cause = error.__cause__
        said = first_line(cause).partition(". ")[0]
        said = f"{said[:77].rpartition(' ')[0]}..." if len(said) > 80 else said
        reason = f"{named_error(cause, said)}{at_line(cause)}"
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
        with suppress(ReachesOriginal):
            return run(made, args, kwargs, device), made.model
        made = copy_of(device, model)  # the run may have changed the first
    with made.as_original():
        found = run(made, args, kwargs, device, lent=True)
    return found, made.model


def trace(
    made: Copy,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    device: str = "meta",
    *,
    blocks: Blocks | None = None,
    observe: Observe | None = None,
    bits: int | None = None,
    nonzero: bool = False,
    lent: bool = False,
    differentiates: bool = False,
) -> Trace:
    """Run a copy of a model once, as it stands, and see all of its operators.

    Args:
        made: the copy, on ``device``; it may change itself while it runs.
        args: what its ``forward`` takes: tensors on any device, or any nest of them; copies run.
        kwargs: the same, by keyword.
        device: where the tensors of the copy are, "meta" or "cpu".
        blocks: gives, for the paths of some convolutions of the model, modules that map the same
            shapes. Each runs beside its convolution on the same input; what follows takes the
            output of the convolution.
        observe: makes an observer of the run; a run that is made again has a new one.
        bits: of a floating element in memory; as it is by default.
        nonzero: whether zeros among the weights are counted; not on meta.
        lent: whether the original is the copy meanwhile; see `Copy.as_original`.
        differentiates: whether the model may, within its forward.

    Raises:
        DscalcError: the model cannot run on these inputs.
    """
    model, inputs = made.model, Inputs(args, kwargs)
    lazy = any(map(is_lazy, tensors_in(model)))
    if lazy:
        # It gets its shapes; torch 2.4 cannot give them under a mode.
        with say_why(model, inputs), surroundings(device, None):
            given = materialised(inputs, device)
            run_to_the_end(model, given)
    weights = weights_of(model if lazy else made.original, bits)
    in_place = blocks(model) if blocks else {}

    def make(counter: FlopCounterMode, given: Inputs) -> Watch:
        memory = MemoryObserver(model, given, weights, bits)
        observer = observe() if observe else None
        return Watch(made, counter, memory, observer, in_place, lent=lent, nonzero=nonzero)

    witness = Witness(LEAVES)
    if differentiates:
        require_gradients(model)

    def run(watch: Watch, given: Inputs) -> Any:
        originals = [own for own, _ in made.tensors] if differentiates and lent else []
        with gradients_put_back(originals), witness.on(), watch.observed():
            return run_to_the_end(model, given)

    watch, output, with_torch = run_watched(
        model, inputs, device, make, run, differentiates=differentiates
    )
    assert watch.memory is not None
    memory = watch.memory.result(output)
    del output
    watch.made.clear(model)
    watch.doubts += chain(unwitnessed(witness, watch.whole()), watch.escapes())
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
        memory,
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
    differentiates: bool = False,
) -> tuple[_W, Any, bool]:
    """Run a model under a watch, and under torch's own counter if that can count it.

    Args:
        model, inputs, device: as in `trace`.
        make: makes the watch, given that counter and the inputs that run.
        run: runs the model on these.
        gradients: whether autograd records.
        differentiates: as in `trace`.

    Returns:
        The watch, what ``run`` returns, and whether torch counted.
    """
    for with_torch in (True, False):
        counter: Any = FlopCounterMode(display=False)
        # By global totals alone: the tracker of modules that it comes with needs gradients.
        counter.mod_tracker = _OnlyGlobal()
        # What a user registered proves nothing.
        counter.flop_registry = {
            op: f for op, f in flop_registry.items() if not is_registered_by_user(f)
        }
        try:
            with say_why(model, inputs), ExitStack() as stack:
                given = materialised(inputs, device, gradients=gradients)
                watch = make(counter, given)
                stack.enter_context(watch.made.cleared_if_it_fails())
                stack.enter_context(
                    surroundings(device, watch, gradients, differentiates=differentiates)
                )
                stack.enter_context(watch.hooks())
                if with_torch:
                    stack.enter_context(counter)
                stack.enter_context(watch)  # innermost, so that composites come here first
                output = run(watch, given)
        except DscalcError as error:
            if with_torch and error.__cause__ and counter_failed(error.__cause__):
                continue
            raise
        break
    with watch.made.cleared_if_it_fails():
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


class _OnlyGlobal(nullcontext[None]):
    parents: frozenset[str] = frozenset({"Global"})
