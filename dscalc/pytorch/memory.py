"""Which storages are alive while a model runs, and how many bytes they take.

One run has two peaks. What torch takes: a storage lives as long as something holds it. What a
planner needs, such as TFLite Micro or ExecuTorch: it lives until its last reading, and a pointwise
operator writes over what nothing reads later. Both are sums at the ends of the operators that
Python calls. What a composite makes for itself, as fused attention its scores, is in neither.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dscalc.core.peaks import AUTOCAST, Memory, Moment
from dscalc.pytorch.operators import name_of, tensors_of, writes_over
from dscalc.pytorch.storages import in_bits, replaces_operators, tensors_within
from dscalc.pytorch.walk import named_modules


class _Step(NamedTuple):
    """An operator that Python called, and the numbers of the storages that it took and made."""

    path: str
    name: str
    held: int
    touched: list[int | None]
    made: range
    over: bool  # whether it may write over what it took


class MemoryObserver:
    """Follows each storage from its making to its end.

    Args:
        model: that runs.
        inputs: that it runs on, in any nest.
        weights: see `Memory.weights`.
        bits: the size of a floating element; as it is by default.
    """

    def __init__(
        self, model: nn.Module, inputs: Any, weights: Mapping[str, int], bits: int | None = None
    ) -> None:
        self._weights, self._bits = weights, bits
        self._unknown = ""
        self._held = 0
        self._needed: list[int] = []  # bytes of each storage that counts, by its number
        self._steps: list[_Step] = []
        # Of living storages, by address: the number, None if it does not count; the true size; and
        # what tells its end, or keeps it from that, because an address is used again.
        self._alive: dict[int, tuple[int | None, int, Any]] = {}
        # A graph that was exported holds fakes, which say what it was exported with, and never run.
        held = (each for each in tensors_within(model) if not isinstance(each, FakeTensor))
        self._own = {id(tensor): tensor for tensor in held}
        for tensor in self._own.values():
            self._number(tensor, "the model")
        for tensor in tensors_within(inputs):
            self._number(tensor, "the input", new=True)
        self._inputs = len(self._needed)
        if any(isinstance(module, torch.jit.ScriptModule) for _, module in named_modules(model)):
            self._look_for_script()

    @contextmanager
    def on(self) -> Iterator[None]:
        """See what runs, and also what no operator knows of."""
        # A mode imports it at its first operator. That leaves frames in cycles, which hold tensors.
        import_module("torch._dynamo")
        self._look_for_autocast()
        with ExitStack() as stack:
            stack.enter_context(_telling(torch.autocast, "__enter__", self._look_for_autocast))
            stack.enter_context(
                _telling(torch._C.ScriptFunction, "__call__", self._look_for_script)
            )
            yield

    def _look_for_autocast(self) -> None:
        if torch._C._is_any_autocast_enabled():
            self._not_known(AUTOCAST)

    def _look_for_script(self) -> None:
        self._not_known("parts of it are scripted, which frees tensors at other times")

    def _not_known(self, reason: str) -> None:
        self._unknown = self._unknown or reason

    def after(self, operator: Any, args: Any, read: list[Tensor], output: Any, path: str) -> None:
        """Note what an operator that Python called took and made, and what is alive at its end.

        Args:
            operator: an ``OpOverload``, or one of higher order.
            args: what it was called with, by position.
            read: all tensors that it was called with.
            output: what it returned.
            path: that of the running module.
        """
        if self._unknown:
            return
        name, first = name_of(operator), len(self._needed)
        if not isinstance(operator, torch._ops.OpOverload):
            self._not_known(f"{name} is a higher-order operator")
            return
        # What Python makes of numbers is announced by these on the CPU. On meta it comes without a
        # word, but there it is the only thing that is not known: models hold what else they read.
        fresh = name in ("aten::lift_fresh", "aten::set_")
        touched = [
            self._number(tensor, name, new=fresh or tensor.device.type == "meta")
            for tensor in read
            if id(tensor) not in self._own
        ]
        if isinstance(output, Tensor):
            touched.append(self._number(output, name, new=True, alone=True))
        else:
            touched += [self._number(tensor, name, new=True) for tensor in tensors_of((output,))]
        made = range(first, len(self._needed))
        over = bool(made) and writes_over(operator, args)
        self._steps.append(_Step(path, name, self._held, touched, made, over))

    def result(self, output: Any) -> Memory:
        """The memory of the run, which gave this output."""
        known, results = len(self._needed), tensors_within(output)
        outputs = [
            self._number(one, "the output", new=one.device.type == "meta") for one in results
        ]
        if len(self._needed) > known:
            self._not_known("the output has a tensor that no operator made")
        for tensor in self._own.values():
            self._number(tensor, "the model")  # which did not grow
        return Memory(self._weights, tuple(self._moments(outputs)), self._unknown, self._bits)

    def _number(
        self, tensor: Tensor, name: str, *, new: bool = False, alone: bool = False
    ) -> int | None:
        """The number of the storage of a tensor, if it counts; else None.

        Args:
            tensor: that is seen.
            name: of where.
            new: if the storage is seen for the first time, it counts; not if it is NumPy's.
            alone: if so, the tensor is all that is ever read of it.
        """
        wrapper = replaces_operators(type(tensor))
        if wrapper or tensor.layout is not torch.strided or tensor.is_nested:
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            self._not_known(f"{name} has a {type(tensor).__name__ if wrapper else kind} tensor")
            return None
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if known := self._alive.get(address):
            if known[1] != size:
                self._not_known(f"{name} has a storage that was resized")
            return known[0]
        if not new or not storage.resizable():
            self._alive[address] = None, size, storage
            return None
        number, held = len(self._needed), in_bits(size, tensor.dtype, self._bits)
        used = min(size, tensor.numel() * tensor.itemsize) if alone else size
        self._needed.append(in_bits(used, tensor.dtype, self._bits))
        self._held += held

        def gone(_: Any) -> None:
            del self._alive[address]
            self._held -= held

        self._alive[address] = number, size, weakref.ref(storage, gone)
        return number

    # ---- What a planner needs. ----

    def _moments(self, outputs: list[int | None]) -> Iterator[Moment]:
        """The start, and the end of each operator."""
        last = {number: at for at, step in enumerate(self._steps) for number in step.touched}
        last |= dict.fromkeys(outputs, len(self._steps))
        ends: list[list[int]] = [[] for _ in range(len(self._steps) + 2)]
        for number in range(len(self._needed)):
            ends[last.get(number, -1)].append(number)  # the last of all if nothing reads it
        planned = self._bytes(range(self._inputs))
        yield Moment("", "the inputs", planned, planned)
        planned -= self._bytes(ends[-1])
        for step, ending in zip(self._steps, ends, strict=False):
            planned += self._bytes(step.made)
            over = self._written_over(step, ending) if step.over else 0
            yield Moment(step.path, step.name.removeprefix("aten::"), step.held, planned - over)
            planned -= self._bytes(ending)

    def _written_over(self, step: _Step, ending: list[int]) -> int:
        """Bytes that an operator makes, if it can make them in what nothing reads after it."""
        made = self._bytes(step.made)
        spare = (self._needed[number] for number in ending if number not in step.made)
        return made if max(spare, default=0) >= made else 0

    def _bytes(self, numbers: Iterable[int]) -> int:
        return sum(self._needed[number] for number in numbers)


@contextmanager
def _telling(owner: Any, method: str, tell: Callable[[], None]) -> Iterator[None]:
    """Call a function after each call of a method of a class of torch."""
    original = getattr(owner, method)

    def telling(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        tell()
        return result

    setattr(owner, method, telling)
    try:
        yield
    finally:
        setattr(owner, method, original)
