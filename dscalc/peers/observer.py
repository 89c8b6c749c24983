"""Quantities that other counters count, seen in a traced run: calls of modules and functions.

Counters look at different things: modules of exact types, subclasses of modules, functions,
operators. So each quantity has a prefix for who sees it; see `dscalc.peers.quantities`. The
observer runs only if it is asked for.
"""

import dis
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import dropwhile, takewhile
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from dscalc.peers.quantities import of_conv
from dscalc.pytorch.traced import Operator

Found = Iterator[tuple[str, int]]

_OF = {"torch": "torch", None: "tensor"}  # others are of torch.nn.functional
_WITH_VECTORS = {"mv", "addmv", "dot", "vdot"}  # other counters skip them; torchprofile has addmv
_KINDS = {"einsum": "matmul", "lstm": "recurrent", "gru": "recurrent", "rnn": "recurrent"}


def _of_operator(operator: Operator) -> Counter[str]:
    """The quantities of an operator: its products, and the biases added to them."""
    if operator.kind not in ("conv", "transposed", "linear") or not operator.conv:
        kind = "vector" if operator.leaf in _WITH_VECTORS else operator.kind
        return Counter({_KINDS.get(kind, kind): operator.macs})
    found = of_conv(operator.conv, operator.macs, operator.activations)
    if operator.kind == "conv" and isinstance(operator.conv.padding, str):
        found["conv.string_padding"] = operator.macs
    if operator.conv.bias and operator.leaf == "addmm":  # else another operator adds it
        found["linear.bias.addmm"] = operator.activations
    return found


def _last_linear(operators: Sequence[Operator]) -> list[Operator]:
    """The classifier: the last linear layer, or both of a distilled model, which are alike."""
    products = (operator for operator in reversed(operators) if operator.macs)
    from_last = dropwhile(lambda product: product.kind != "linear" or not product.conv, products)
    last = next(from_last, None)
    if not last or not last.conv:
        return []
    if last.conv.in_channels == last.conv.out_channels:  # the one before may feed it
        return [last]
    return [last, *takewhile(lambda product: product.conv == last.conv, from_last)]


class CallObserver(TorchFunctionMode):
    """Counts calls of modules and functions while it is on.

    Attributes:
        found: quantities by name, for the whole batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._linears: list[tuple[tuple[int, int], Counter[str]]] = []
        self._pool: Counter[str] = Counter()  # of the last global pool
        self._last: dict[int, Counter[str]] = {}  # of the last call of each module, by id
        self._outermost: nn.Module | None = None
        self._softmax = 0
        self._paused = False

    def result(self, operators: Sequence[Operator]) -> Counter[str]:
        """All quantities of the run: those of its operators and those of its calls."""
        found, heads = Counter(self.found), _last_linear(operators)
        for operator in operators:
            found += _of_operator(operator)
        ends = {(head.conv.in_channels, head.conv.out_channels) for head in heads if head.conv}
        modules = [own for each, own in self._linears if each in ends]
        parts = [("head", _of_operator(head)) for head in heads]
        parts += [("head", own) for own in modules[-len(heads) :]]  # if they are modules
        for part, own in (*parts, ("pool", self._pool)):
            found.update({f"{part}.{name}": number for name, number in own.items()})
        classes = found["head.linear.out"]
        if classes != self._softmax:  # else the model itself ends with it
            found += Counter({"logits": classes, "head.logits": classes})
        if model := self._outermost:
            tensors = {
                tensor
                for module in nn.Module.modules(model)
                for tensor in (*module._parameters.values(), *module._buffers.values())
                if tensor is not None
            }
            found["file.tensors"] = len(tensors)
            found["file.bytes"] = sum(one.numel() * one.element_size() for one in tensors)
        return found

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing inside the block."""
        self._paused = True
        yield
        self._paused = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count the calls inside the block."""
        with register_module_forward_hook(self._after), self:
            yield

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._outermost = module
        output = output[0] if isinstance(output, tuple | list) and output else output
        features = inputs[0] if inputs else output
        if self._paused or not isinstance(output, Tensor) or not isinstance(features, Tensor):
            return
        kinds = type(module).__mro__
        family = next(kind for kind in kinds if kind.__module__.startswith("torch.nn."))
        seen_by = "module" if family is type(module) else "subclass"
        leaf = next(module.children(), None) is None
        own: Counter[str] = Counter()
        if book := _MODULES.get(family.__name__):
            for name, number in book(module, features, output):
                for seer in (seen_by, "leaf", "last") if leaf else (seen_by,):
                    own[f"{seer}.{name}"] += number
        if type(module).__name__ == "Attention" and type(module).__module__.startswith("timm."):
            own["timm.attention"] = 1
        if leaf:
            for name, number in _parameters(module, output):
                own[name] += number
        if not getattr(module, "batch_first", True) and features.dim() == 3:
            own["sequence_first"] = int(features.shape[0] == 1 < features.shape[1])
        before = self._last.get(id(module), Counter())
        self.found.subtract({name: before[name] for name in before if name.startswith("last.")})
        self._last[id(module)] = own
        if isinstance(module, nn.Linear):
            self._linears.append(((module.in_features, module.out_features), own))
        if f"{seen_by}.global_pool.in" in own:  # its function has been counted
            self._pool += own
        self.found += own

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "").strip("_")
        book = _FUNCTIONS.get(name)
        features = (*args, *kwargs.values())[0] if args or kwargs else None
        # Before the call, which may change its input in place.
        elements = features.numel() if isinstance(features, Tensor) else 0
        output = function(*args, **kwargs)
        if book and isinstance(features, Tensor) and not self._paused:
            seen_by = _OF.get(getattr(function, "__module__", None), "F")
            if seen_by == "tensor" and _by_sign(sys._getframe(1)):
                seen_by = "sign"
            seen = {f"{seen_by}.{what}": number
                    for what, number in book(name, elements, args, kwargs, output)}  # fmt: skip
            self.found.update(seen)
            if name == "mean" or f"{seen_by}.global_pool.in" in seen:
                self._pool = Counter(seen)
            if name == "softmax":
                self._softmax = elements
        return output


def _by_sign(frame: Any) -> bool:
    """Whether the line that runs writes an operator such as ``a @ b``, not ``a.matmul(b)``.

    Some counters patch only the latter; torch calls the same function for both.
    """
    operation: str = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return operation.startswith("BINARY_OP")


# ---- Quantities of torch's modules, from their input and output. ----

Book = Callable[[Any, Tensor, Tensor], Found]


def _convolution(module: _ConvNd, features: Tensor, output: Tensor) -> Found:
    taps = prod(module.weight.shape[1:])  # per output, or if transposed, per input
    kind, macs = "conv", output.numel() * taps
    if isinstance(module, _ConvTransposeNd):
        kind, macs = "transposed", features.numel() * taps
        met = module.in_channels // module.groups * prod(module.kernel_size)
        yield "transposed.by_output", output.numel() * met
        yield "transposed.calls", 1
    yield kind, macs
    yield f"{kind}.out", output.numel()
    yield f"{kind}.bias", output.numel() if module.bias is not None else 0


def _linear(module: nn.Linear, features: Tensor, output: Tensor) -> Found:
    yield "linear", output.numel() * module.in_features
    yield "linear.out", output.numel()
    yield "linear.bias", output.numel() if module.bias is not None else 0
    yield "linear.tokens", output.numel() // module.out_features if output.dim() > 2 else 0
    yield "linear.bias.once", module.out_features if module.bias is not None else 0


def _norm(family: str, module: nn.Module, features: Tensor, output: Tensor) -> Found:
    affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    yield f"{family}.{'affine' if affine else 'plain'}", features.numel()


def _each(family: str, module: nn.Module, features: Tensor, output: Tensor) -> Found:
    yield family, output.numel()


def _softmax(module: nn.Softmax, features: Tensor, output: Tensor) -> Found:
    yield "softmax", output.numel()
    yield "softmax.rows", output.numel() // (output.shape[module.dim or 0] or 1)
    yield "softmax.calls", 1


def _pool(family: str, axes: int, module: Any, features: Tensor, output: Tensor) -> Found:
    given = module.kernel_size, module.stride, module.padding
    kernel, stride, padding = (_per_axis(sizes, axes) for sizes in given)
    yield f"{family}.in", features.numel()
    yield f"{family}.out", output.numel()
    yield f"{family}.taps", output.numel() * prod(kernel)
    side = module.kernel_size  # as given: one number, or one per axis
    yield f"{family}.sides", output.numel() * (side if type(side) is int else prod(side))
    inside = not getattr(module, "count_include_pad", False)
    windows = list(features.shape[:-axes])  # one image may have no batch axis
    across = zip(features.shape[-axes:], output.shape[-axes:], strict=True)
    for lengths, *way in zip(across, kernel, stride, padding, strict=True):
        windows.append(_windows(*lengths, *way, inside=inside))
    yield f"{family}.windows", prod(windows)


def _per_axis(given: Any, axes: int) -> tuple[int, ...]:
    sizes = tuple(given) if isinstance(given, tuple | list) else (given,)
    return sizes * axes if len(sizes) == 1 else sizes


def _adaptive_pool(family: str, module: nn.Module, features: Tensor, output: Tensor) -> Found:
    yield f"{family}.in", features.numel()
    yield f"{family}.out", output.numel()
    if output.shape[2:].numel() == 1:
        yield "global_pool.in", features.numel()
    sizes = list(zip(features.shape, output.shape, strict=True))
    yield f"{family}.windows", prod(_adaptive_windows(*lengths) for lengths in sizes)
    ratio = prod(length / found for length, found in sizes[2:])
    yield f"{family}.mean_window", int((ratio + 1) * output.numel())
    yield f"{family}.whole_window", _whole_window(features, output)


def _whole_window(features: Tensor, output: Tensor) -> int:
    """Elements in windows whose sides are rounded down, and the outputs."""
    sides = zip(features.shape[2:], output.shape[2:], strict=True)
    return (prod(length // found for length, found in sides) + 1) * output.numel()


def _adaptive_windows(length: int, found: int) -> int:
    """Elements in all windows along an axis.

    Output j of N spans [floor(j L / N), ceil((j + 1) L / N)) of L.
    """
    if length == found:
        return length
    return sum(-(-(j + 1) * length // found) - j * length // found for j in range(found))


def _windows(
    length: int, found: int, kernel: int, stride: int, padding: int, *, inside: bool
) -> int:
    """Elements in all windows along an axis, including the padding unless ``inside``."""
    first, last = (0, length) if inside else (-padding, length + padding)
    starts = [j * stride - padding for j in range(found)]
    return sum(max(min(start + kernel, last) - max(start, first), 0) for start in starts)


def _upsample(module: nn.Upsample, features: Tensor, output: Tensor) -> Found:
    yield f"upsample.{module.mode}.in", features.numel()
    yield f"upsample.{module.mode}.out", output.numel()


def _attention(module: nn.MultiheadAttention, features: Tensor, output: Tensor) -> Found:
    """Quantities of self-attention over L tokens of E features in h heads."""
    wide = module.embed_dim
    long = output.shape[-2] if module.batch_first or output.dim() == 2 else output.shape[0]
    samples = output.numel() // (long * wide)
    yield "mha.projections", samples * 4 * long * wide**2
    yield "mha.products", samples * 2 * long**2 * wide
    yield "mha.softmax", samples * module.num_heads * long**2
    yield "mha.softmax.rows", samples * module.num_heads * long
    yield "mha.tokens", samples * long * wide


def _parameters(module: nn.Module, output: Tensor) -> Found:
    """The params of a leaf: of convolutions at each output position, of others once per sample.

    Params with a longer name than weight or bias, such as ``weight_ih_l0``, count once per step
    too.
    """
    for name, parameter in module.named_parameters():
        size = parameter.numel()
        if name not in ("weight", "bias"):
            if "weight" in name or "bias" in name:
                yield "parameters.others", size * prod(output.shape[:2])
        elif "Conv" in type(module).__name__:
            yield f"parameters.conv.{name}", size * prod(output.shape[:1]) * prod(output.shape[2:])
        else:
            yield "parameters.others", size * prod(output.shape[:1])


_ACTIVATIONS = {
    "ReLU": "relu", "ReLU6": "relu6", "GELU": "gelu", "SiLU": "silu", "Hardswish": "hardswish",
    "Hardsigmoid": "hardsigmoid", "Sigmoid": "sigmoid", "LeakyReLU": "leaky_relu",
    "PReLU": "prelu", "ELU": "elu", "Tanh": "tanh", "Mish": "mish", "Hardtanh": "hardtanh",
}  # fmt: skip
_BY_AXES: dict[str, Book] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "BatchNorm": partial(_norm, "batch_norm"),
    "InstanceNorm": partial(_norm, "instance_norm"),
    "AdaptiveAvgPool": partial(_adaptive_pool, "adaptive_avg_pool"),
    "AdaptiveMaxPool": partial(_adaptive_pool, "adaptive_max_pool"),
}
_MODULES: dict[str, Book] = {
    **{f"{name}{axes}d": book for name, book in _BY_AXES.items() for axes in (1, 2, 3)},
    **{f"MaxPool{axes}d": partial(_pool, "max_pool", axes) for axes in (1, 2, 3)},
    **{f"AvgPool{axes}d": partial(_pool, "avg_pool", axes) for axes in (1, 2, 3)},
    **{name: partial(_each, family) for name, family in _ACTIVATIONS.items()},
    "SyncBatchNorm": partial(_norm, "batch_norm"),
    "LayerNorm": partial(_norm, "layer_norm"),
    "GroupNorm": partial(_norm, "group_norm"),
    "RMSNorm": partial(_norm, "rms_norm"),
    "Linear": _linear,
    "Softmax": _softmax,
    "Upsample": _upsample,
    "UpsamplingBilinear2d": _upsample,
    "UpsamplingNearest2d": _upsample,
    "MultiheadAttention": _attention,
}


# ---- Quantities of functions, from their arguments. ----

Call = Callable[[str, int, tuple[Any, ...], dict[str, Any], Any], Found]


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _elements(name: str, elements: int, args: Any, kwargs: Any, output: Any) -> Found:
    yield name, elements


def _outputs(name: str, elements: int, args: Any, kwargs: Any, output: Any) -> Found:
    yield name, output.numel()


def _both_ends(name: str, elements: int, args: Any, kwargs: Any, output: Any) -> Found:
    yield f"{name}.in", elements
    yield f"{name}.out", output.numel()


def _pool_call(name: str, elements: int, args: Any, kwargs: Any, output: Any) -> Found:
    output = output[0] if isinstance(output, tuple) else output
    name, axes = name[:-2], int(name[-2])
    yield from _both_ends(name, elements, args, kwargs, output)
    if name.startswith("adaptive"):
        yield f"{name}.whole_window", _whole_window((*args, *kwargs.values())[0], output)
        if output.shape[-axes:].numel() == 1:
            yield "global_pool.in", elements
        return
    kernel = _argument(args, kwargs, 1, "kernel_size")
    stride = _argument(args, kwargs, 2, "stride") or kernel  # [] is none, too
    for what, sizes in (("taps", kernel), ("steps", stride)):
        yield f"{name}.{what}", output.numel() * prod(_per_axis(sizes, axes))


def _norm_call(
    weight_at: int, name: str, elements: int, args: Any, kwargs: Any, output: Any
) -> Found:
    affine = _argument(args, kwargs, weight_at, "weight") is not None
    yield f"{name}.{'affine' if affine else 'plain'}", elements


def _upsample_call(name: str, elements: int, args: Any, kwargs: Any, output: Any) -> Found:
    mode = _argument(args, kwargs, 3, "mode") or "nearest"
    yield f"upsample.{mode}.in", elements
    yield f"upsample.{mode}.out", output.numel()


def _product(name: str, elements: int, args: Any, kwargs: Any, output: Any) -> Found:
    yield "matmul", output.numel() * (*args, *kwargs.values())[0].shape[-1]


_FUNCTIONS: dict[str, Call] = {
    **dict.fromkeys(_ACTIVATIONS.values(), _elements),
    **dict.fromkeys(("add", "mul", "iadd", "imul"), _outputs),
    **dict.fromkeys(
        [f"{pool}_pool{axes}d" for pool in ("max", "avg", "adaptive_avg", "adaptive_max")
         for axes in (1, 2, 3)],
        _pool_call,
    ),
    "mean": _both_ends,
    "softmax": _elements,
    "interpolate": _upsample_call,
    "batch_norm": partial(_norm_call, 3),
    "instance_norm": partial(_norm_call, 3),
    "layer_norm": partial(_norm_call, 2),
    "group_norm": partial(_norm_call, 2),
    "rms_norm": partial(_norm_call, 2),
    **dict.fromkeys(("matmul", "mm", "bmm"), _product),
}  # fmt: skip
