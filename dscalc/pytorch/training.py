"""What a step of training costs: a forward pass in training mode, and the backward pass to it.

A second copy runs once, with gradients, and autograd then runs backward from all outputs that
require one. The products that run are the answer. Each belongs to the product of the forward pass
whose node of the graph runs it. Two counters prove the sum: the factors that need a gradient, each
of which costs a product once more, and torch's FlopCounterMode.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dscalc.errors import DscalcError
from dscalc.pytorch.copies import (
    Copy,
    gradients_put_back,
    require_gradients,
    seeded,
    set_training,
)
from dscalc.pytorch.inputs import Inputs
from dscalc.pytorch.operators import (
    FACTORS,
    LEAVES,
    convolution_macs,
    has_no_macs,
    name_of,
    tensors_of,
)
from dscalc.pytorch.storages import in_bits, tensors_within
from dscalc.pytorch.trace import run_either, run_to_the_end, run_watched
from dscalc.pytorch.traced import Operator
from dscalc.pytorch.user_errors import USER_ERRORS
from dscalc.pytorch.walk import named_modules, parameters_in, tensors_in
from dscalc.pytorch.watch import Watch
from dscalc.show import first_line, for_who_asks, printable

_CONVOLUTION_BACKWARD = "aten::convolution_backward"
_BY_VECTOR = {"mv", "dot", "vdot", "addmv", "addmv_"}


@dataclass(eq=False)
class Product:
    """A product of the forward pass.

    Attributes:
        operator: what it is.
        factors: how many of its factors need a gradient; None if no rule says so.
        backward: MACs that autograd runs for it.
    """

    operator: Operator
    factors: int | None
    backward: int = 0

    @property
    def path(self) -> str:
        """The module that it belongs to."""
        return self.operator.path

    @property
    def macs(self) -> int:
        """Its MACs in the forward pass."""
        return self.operator.macs


class _Saved(NamedTuple):
    """A storage that is saved for backward, its bytes, and the paths of the modules that do so."""

    storage: torch.UntypedStorage  # held, so that no other has its address
    size: int
    paths: list[str]


@dataclass(frozen=True)
class TrainingRun:
    """All that ran in one step of training.

    Attributes:
        products: those of the forward pass, in order.
        again: those that ran once more during the backward pass, as under checkpointing.
        elsewhere: backward MACs that belong to no product, or to several of different modules.
        mixed: paths of these modules.
        saved: what is saved for backward.
        casts: whether autocast was on meanwhile, so that torch may save what it casts instead.
        torch_macs: what torch's FlopCounterMode counts, less its excess; None if it failed.
        known_to_torch: MACs of the products that it knows.
        unknown: operators without a formula that ran.
        doubts: why the counts are not proved, though they may be right.
        reason: why real tensors ran, if they did.
    """

    products: list[Product]
    again: list[Product]
    elsewhere: int
    mixed: set[str]
    saved: list[_Saved]
    casts: bool
    torch_macs: int | None
    known_to_torch: int
    unknown: Counter[str]
    doubts: list[str]
    reason: str = ""

    @property
    def forward_macs(self) -> int:
        """MACs of the forward pass."""
        return macs_of(self.products)

    @property
    def backward_macs(self) -> int:
        """MACs of the backward pass, without those that ran once more."""
        ran = sum(product.backward for product in (*self.products, *self.again))
        return ran + self.elsewhere

    @property
    def saved_bytes(self) -> int | None:
        """Bytes that are saved for backward; None if that is not known."""
        return None if self.casts else sum(one.size for one in self.saved)


def train(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rebuild: Any = None,
    *,
    bits: int | None = None,
) -> TrainingRun:
    """Run a step of training of a copy of a model; see `run_either`.

    Args:
        model, args, kwargs, rebuild: as there.
        bits: of a floating element in what is saved; as it is by default.

    Raises:
        DscalcError: nothing requires a gradient, or the model cannot be trained on these inputs
            alone.
    """
    if not any(parameter.requires_grad for parameter in parameters_in(model)):
        raise DscalcError(
            f"no parameter requires a gradient, so there is no backward pass; {_drop_it()}"
        )
    if any(map(is_lazy, tensors_in(model))):
        raise DscalcError(
            "the model has lazy parameters, which have no shape before its first run; run it once "
            f"in a function of your own, or {_drop_it()}"
        )
    try:
        run, _ = run_either(partial(_train_copy, bits=bits), model, args, kwargs, rebuild)
    except DscalcError as error:
        cause = error.__cause__
        said = first_line(cause) if cause else ""
        if "more than 1 value per channel" in said:
            what = str(error).partition(" cannot run")[0]
            raise DscalcError(
                f"{what} sees one value per channel in training mode, which has no variance; give "
                + for_who_asks("--batch 2 or more", "2 samples or more")
            ) from cause
        if "support saved tensor hooks" in said:  # as grad and vjp of torch.func say
            raise _differentiates_itself() from cause
        if not cause:
            raise
        raise DscalcError(f"in training mode {error}; or {_drop_it()}") from cause
    if run.unknown:
        raise DscalcError(
            f"in training mode there is no formula for {', '.join(run.unknown)}; {_drop_it()}"
        )
    return run


def _differentiates_itself() -> DscalcError:
    return DscalcError(
        "the model differentiates within its forward, so that its backward pass is not one of "
        f"products alone; {_drop_it()}"
    )


def _drop_it() -> str:
    return for_who_asks("drop --backward", "drop backward=True")


def _train_copy(
    made: Copy,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    device: str,
    *,
    lent: bool = False,
    bits: int | None = None,
) -> TrainingRun:
    """Run a step of training of a copy, as `trace` runs a forward pass."""
    model = made.model
    require_gradients(model)
    with seeded(), suppress(*USER_ERRORS):  # its own train() may keep parts in evaluation mode
        model.train()
    if not model.training:
        set_training(model, True)
    recurrent = any(isinstance(module, nn.RNNBase) for _, module in named_modules(model))

    def make(counter: FlopCounterMode, given: Inputs) -> _TrainingWatch:
        return _TrainingWatch(made, counter, lent=lent, bits=bits)

    def run(watch: _TrainingWatch, given: Inputs) -> None:
        with ExitStack() as stack:
            if lent:
                stack.enter_context(gradients_put_back(own for own, _ in made.tensors))
            if recurrent:  # of which mkldnn would make one operator
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            watch.step(model, given)

    watch, _, with_torch = run_watched(
        model, Inputs(args, kwargs), device, make, run, gradients=True
    )
    watch.made.clear(model)
    return watch.result(with_torch=with_torch)


class _TrainingWatch(Watch):  # type: ignore[no-untyped-call]
    """Sees every operator of a step of training."""

    def __init__(
        self, made: Copy, counter: FlopCounterMode, *, lent: bool, bits: int | None
    ) -> None:
        super().__init__(made, counter, lent=lent)
        self._bits = bits
        self._products: list[Product] = []
        self._again: list[Product] = []
        self._elsewhere = self._excess = self._known_to_torch = 0
        self._mixed: set[str] = set()
        self._at_node: dict[int, Product] = {}  # by its number
        self._in_node: defaultdict[int, list[Product]] = defaultdict(list)  # run without gradients
        self._backward = False
        self._weights = {tensor.untyped_storage()._cdata for tensor in tensors_in(made.model)}
        self._saved: dict[int, _Saved] = {}
        self._casts = False

    def step(self, model: nn.Module, inputs: Inputs) -> None:
        """Run forward, then backward."""
        with saved_tensors_hooks(self._save, _as_saved):
            output = run_to_the_end(model, inputs)
        results = {id(each): each for each in tensors_within(output) if each.requires_grad}
        if not results:
            raise DscalcError(
                "no output requires a gradient in training mode, so there is no backward pass; "
                f"{_drop_it()}"
            )
        self._backward = True
        ends = list(results.values())
        torch.autograd.backward(ends, [torch.ones_like(end) for end in ends])

    def result(self, *, with_torch: bool) -> TrainingRun:
        """What ran."""
        torch_macs = None
        if with_torch:
            torch_macs = self.torch_macs() - self._excess * torch_counts_all_groups()
        return TrainingRun(
            self._products, self._again, self._elsewhere, self._mixed, list(self._saved.values()),
            self._casts, torch_macs, self._known_to_torch,
            sum(self.unknown_in.values(), Counter()), self.doubts,
        )  # fmt: skip

    def _save(self, tensor: Tensor) -> tuple[Tensor, int, str]:
        self._casts = self._casts or torch._C._is_any_autocast_enabled()
        storage, path = tensor.untyped_storage(), self._running[-1][1].path
        if storage._cdata not in self._weights:
            size = in_bits(storage.nbytes(), tensor.dtype, self._bits)
            saved = self._saved.setdefault(storage._cdata, _Saved(storage, size, []))
            saved.paths.append(path)
        return tensor, tensor._version, path

    @property
    def _differentiates(self) -> bool:
        """Whether what runs is a gradient, and not the forward pass once more."""
        return self._backward and not torch.is_grad_enabled() and len(self._running) == 1

    def _see(self, func: Any, types: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        name = name_of(func)
        node: Any = torch._C._current_autograd_node()
        if not self._backward and node is not None:
            raise _differentiates_itself()
        if not self._differentiates:
            return super()._see(func, types, args, kwargs, tensors)
        products = self._products_of(node)
        if name == _CONVOLUTION_BACKWARD:
            return self._count_convolution_backward(func, args, kwargs)
        outer = name == "aten::mul" and any(p.operator.leaf in _BY_VECTOR for p in products)
        if outer:  # the gradient of a matrix that meets a vector
            output = func(*args, **kwargs)
            self._book(output.numel(), by_torch=False)
            return output
        if has_no_macs(func) or ("backward" in name and not products):
            return func(*args, **kwargs)  # the forward pass had none either
        return super()._see(func, types, args, kwargs, tensors)

    def _count(
        self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], origin: Any
    ) -> Any:
        before = len(self.operators)
        output = super()._count(func, name, args, kwargs, tensors, origin)
        self._note(before, _factors_with_gradients(name, args))
        return output

    def _count_by(
        self, formula: Any, name: str, args: Any, kwargs: Any, origin: Any, output: Any
    ) -> None:
        before = len(self.operators)
        super()._count_by(formula, name, args, kwargs, origin, output)
        needs = any(tensor.requires_grad for tensor in tensors_of((*args, *kwargs.values())))
        self._note(before, None if needs else 0)

    def _note(self, before: int, factors: int | None) -> None:
        """Note the products that were counted since there were so many, as what they are here."""
        seen, self.operators = self.operators[before:], self.operators[:before]
        for operator in seen:
            if self._differentiates:
                self._book(operator.macs, by_torch=operator.by_torch)
                continue
            product = Product(operator, factors)
            (self._again if self._backward else self._products).append(product)
            self._known_to_torch += operator.macs * operator.by_torch
            node = torch.autograd._get_sequence_nr() - 1  # type: ignore[attr-defined]
            if product.factors:
                self._at_node[node] = product
            else:
                self._in_node[node].append(product)

    def _count_convolution_backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        grad, features, weight, _, *options = args
        stride, padding, dilation, transposed, _, groups, mask = options
        macs = convolution_macs(
            features.shape, weight.shape, None, stride, padding, dilation, transposed,
            output=grad.shape,
        )  # fmt: skip
        of_input, of_weight, _ = mask
        self._excess += of_weight * (groups - 1) * macs
        self._book((of_input + of_weight) * macs, by_torch=func._overloadpacket in flop_registry)
        return func(*args, **kwargs)

    def _products_of(self, node: Any) -> list[Product]:
        """The products of the forward pass to which a node of the graph belongs."""
        number = -1 if node is None else node._sequence_nr()
        one = self._at_node.get(number)
        return [one] if one else self._in_node.get(number, [])

    def _book(self, macs: int, *, by_torch: bool) -> None:
        """Count MACs of the node that runs."""
        self._known_to_torch += macs * by_torch
        products = self._products_of(torch._C._current_autograd_node())
        paths = {product.path for product in products}
        if len(paths) == 1:
            products[0].backward += macs
        else:
            self._elsewhere += macs
            self._mixed |= paths


def _as_saved(saved: tuple[Tensor, int, str]) -> Tensor:
    """The tensor, if it is as it was; torch does not look where hooks hold what is saved."""
    tensor, version, path = saved
    if tensor._version != version:
        raise DscalcError(
            f"torch refuses the backward pass: {printable(path) or 'the model'} saves a tensor for "
            "it that is changed in place later; drop inplace=True, or change a copy there, or "
            f"{_drop_it()}"
        )
    return tensor


def macs_of(each: Iterable[Operator | Product]) -> int:
    """Their MACs in the forward pass."""
    return sum(one.macs for one in each)


def _factors_with_gradients(name: str, args: Any) -> int | None:
    """How many factors of a product need a gradient."""
    if not torch.is_grad_enabled():
        return 0
    where = FACTORS.get(LEAVES[name])
    if where is None:
        return 0 if not any(isinstance(a, Tensor) and a.requires_grad for a in args) else None
    return sum(bool(factor.requires_grad) for factor in args[where])


@cache
def torch_counts_all_groups() -> bool:
    """Whether torch's FlopCounterMode does not divide the gradient of a weight by its groups."""
    one: Any = flop_registry[torch.ops.aten.convolution_backward]
    grad = features = torch.empty(1, 2, 1, device="meta")
    weight = torch.empty(2, 1, 1, device="meta")
    counted: int = one(
        grad, features, weight, None, [1], [0], [1], False, [0], 2, [False, True, False],
        out_val=(None, weight, None),
    )  # fmt: skip
    return counted > 2 * weight.numel()
