"""Walk a model: what its convolutions cost, and what they would cost as separable ones."""

import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from dscalc.core.blocks import Comparison, Counts, separable
from dscalc.core.conv import Conv, conv_macs, conv_params
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.pytorch.crosscheck import is_transposed
from dscalc.pytorch.load import USER_ERRORS
from dscalc.pytorch.modules import Patterns, copied, reasons_to_keep, replace_eligible
from dscalc.record.fields import Crosscheck, Model, Record, record, total
from dscalc.report import sheet, text
from dscalc.words import printable, times

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONV_TRANSPOSE = (*_CONV[:5], "output_padding", "groups", "dilation")
_CONVOLUTIONS: dict[Callable[..., Any], tuple[str, ...]] = {
    torch.conv1d: _CONV,
    torch.conv2d: _CONV,
    torch.conv3d: _CONV,
    torch.conv_transpose1d: _CONV_TRANSPOSE,
    torch.conv_transpose2d: _CONV_TRANSPOSE,
    torch.conv_transpose3d: _CONV_TRANSPOSE,
}
# Other operators with MACs, and which operand has the summed axis last. fvcore's own handles leave
# out broadcasting and round einsum; a new handle multiplies shapes out.
_PRODUCTS = {
    "aten::linear": 0,
    "aten::matmul": 0,
    "aten::mm": 0,
    "aten::bmm": 0,
    "aten::mv": 0,
    "aten::dot": 0,
    "aten::addmm": 1,
    "aten::baddbmm": 1,
    "aten::addmv": 1,
}
# Operators with MACs that have no count; where one runs, the model's MACs are not known.
_UNKNOWN_MACS = re.compile(
    "aten::(bilinear|conv_tbc|lstm|gru|rnn_|quantized_|_native_multi_head_attention"
    "|_transformer_encoder_layer_fwd|fft_|tensordot|cdist|addbmm|addr|vdot|inner|outer|ger|kron"
    "|chain_matmul|linalg_(multi_dot|matrix_power|vecdot|matmul)|einsum$)|.*conv"
)
# Functions whose results tracing must not drop as unused, for then fvcore would not see them.
_KEPT_ALIVE = {
    *("linear", "addmm", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum"),
    *("scaled_dot_product_attention", "multi_head_attention_forward", "mv", "dot", "baddbmm"),
}


class Audit(NamedTuple):
    """A model's convolutions, one record a call in the order that they run, and its totals.

    ``crosscheck`` is exact where fvcore and torch count what the records say of the whole model,
    before and after.
    """

    name: str
    records: list[Record]
    model: Model
    crosscheck: Crosscheck

    @property
    def total(self) -> Record:
        """All convolutions together."""
        return total(self.records)

    def __str__(self) -> str:
        """Show the table as Markdown, which reads well as plain text too."""
        return "".join(
            text.markdown(sheet.model(self.name, self.records, self.total, self.model, "macs"))
        )

    def _repr_markdown_(self) -> str:
        return str(self)  # what a notebook shows


def audit(
    model: nn.Module,
    *inputs: Any,
    only: Patterns | None = None,
    exclude: Patterns | None = None,
    verify: bool = True,
) -> Audit:
    """Run a model once and say what its convolutions cost, and would cost as separable ones.

    A copy runs, in evaluation mode and without gradients; the model and all random states are left
    as they are. Then fvcore counts the copy, and again with its eligible convolutions replaced:
    each call of a convolution must count what its record says.

    Args:
        model: any module; see `to_separable` for which of its convolutions are eligible.
        *inputs: what its ``forward`` takes, such as one tensor (N, C, H, W).
        only: globs on module paths: only those are replaced.
        exclude: globs on module paths to keep.
        verify: whether fvcore counts.

    Raises:
        DscalcError: the model cannot be copied or run on these inputs, or a glob matches nothing.
        CrosscheckError: fvcore cannot trace the model.
    """
    _check_visible(model)
    with _random_states_kept(), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        original = copied(model).eval()
        calls = _recorded_calls(original, inputs)
        reasons = reasons_to_keep(original, only, exclude)
        converted = replace_eligible(copied(original, share_parameters=True), reasons)
        layers = _layers(calls, reasons, original)
        if verify:
            as_is, replaced = _traced(original, inputs), _traced(converted, inputs)
    params = _size(original.parameters())
    separable_params = _size(converted.parameters())
    name = type(model).__name__
    if not verify:
        records = [layer.record(None) for layer in layers]
        return Audit(name, records, Model(None, params, None, separable_params, {}), "skipped")
    records = [
        layer.record(counted)
        for layer, counted in zip(layers, _counted(layers, as_is, replaced, converted), strict=True)
    ]
    sums = total(records)
    added = sum(
        _params_added(original.get_submodule(path))
        for path, reason in reasons.items()
        if not reason
    )
    agree = params + added == separable_params
    known = not any(map(_UNKNOWN_MACS.match, as_is.uncounted))
    steady = as_is.other_macs == replaced.other_macs  # unless results decide what runs
    whole = Model(
        sums.standard_macs + as_is.other_macs if known else None,
        params,
        sums.separable_macs + replaced.other_macs if known and steady else None,
        separable_params,
        dict(as_is.uncounted.most_common()),
    )
    return Audit(name, records, whole, sums.crosscheck if agree else "mismatch")


def make_input(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Random numbers of a shape; zeros where the dtype is one of whole numbers.

    Raises:
        DscalcError: torch cannot make it, for want of memory.
    """
    try:
        if dtype == "int64":
            return torch.zeros(shape, dtype=torch.int64)
        generator = torch.Generator().manual_seed(0)  # leaves the global random state alone
        return torch.randn(shape, generator=generator).to(getattr(torch, dtype))
    except (RuntimeError, TypeError) as error:
        raise DscalcError(
            f"torch cannot make an input of {times(shape)} ({_first_line(error)})"
        ) from error


class _Call(NamedTuple):
    """One call of a convolution function."""

    path: str
    transposed: bool
    conv: Conv  # with the output size that torch gave it
    weight: Tensor
    bias: Tensor | None


class _Layer(NamedTuple):
    """One call, and what it would be if its module were replaced."""

    name: str
    path: str
    kind: str  # "separable", or why it stays as it is
    comparison: Comparison
    counts: Counts
    params_held: int  # parameters as torch holds them, of the first call alone

    @property
    def replaced(self) -> bool:
        return self.comparison.pointwise is not None

    def record(self, counted: Counts | None) -> Record:
        return record(self.comparison, counted, name=self.name, kind=self.kind, counts=self.counts)


class _Trace(NamedTuple):
    """What fvcore counts of one forward pass."""

    conv_macs: list[int]  # of each call in turn
    other_macs: int
    uncounted: Counter[str]


def _check_visible(model: nn.Module) -> None:
    """Refuse modules whose convolutions run where no one can see them."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = "scripted"
        elif ".quantized" in type(module).__module__:
            what = "quantised"
        else:
            continue
        raise DscalcError(
            f"{printable(path) or 'the model'} is a {what} module ({type(module).__name__}), whose "
            f"operators cannot be seen; audit the float nn.Module that it was made from"
        )


@contextmanager
def _random_states_kept() -> Iterator[None]:
    state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(state)
            if numpy:
                numpy.random.set_state(numpy_state)


def _recorded_calls(model: nn.Module, inputs: tuple[Any, ...]) -> list[_Call]:
    calls: list[_Call] = []
    paths = [""]

    def see(function: Callable[..., Any], values: dict[str, Any], output: Tensor) -> None:
        calls.append(_call(paths[-1], function, values, output))

    handles = []
    for path, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda *_, path=path: paths.append(path)),
            module.register_forward_hook(lambda *_: paths.pop() and None),
        ]
    try:
        with _Watch(see):
            model(*inputs)
    except USER_ERRORS as error:
        place = printable(paths[-1])
        module = model.get_submodule(paths[-1])
        what = f"{place} ({type(module).__name__})" if place else type(module).__name__
        raise DscalcError(
            f"{what} cannot run on these inputs ({type(error).__name__}: {_first_line(error)})"
            f"{'' if isinstance(error, NotImplementedError) else '; check their shapes and dtype'}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if len(paths) > 1:
        raise DscalcError(
            f"{printable(paths[1])} raised an error that the model caught; such a model cannot be "
            "traced"
        )
    return calls


class _Watch(TorchFunctionMode):
    """Tells of every convolution that runs, and keeps the results that fvcore must see."""

    def __init__(
        self, see: Callable[[Callable[..., Any], dict[str, Any], Tensor], None] | None = None
    ) -> None:
        super().__init__()
        self._see = see
        self.kept: list[Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        convolves = function in _CONVOLUTIONS
        if self._see and convolves:
            names = _CONVOLUTIONS[function]
            self._see(function, dict(zip(names, args, strict=False)) | kwargs, output)
        elif convolves or getattr(function, "__name__", "") in _KEPT_ALIVE:
            self.kept.extend(_tensors(output))
        return output


def _call(path: str, function: Callable[..., Any], values: dict[str, Any], output: Tensor) -> _Call:
    weight, bias = values["weight"], values.get("bias")
    transposed = "output_padding" in _CONVOLUTIONS[function]
    groups = values.get("groups", 1)
    kernel_size = tuple(weight.shape[2:])
    batched = values["input"].dim() == len(kernel_size) + 2
    input_size = tuple(values["input"].shape[-len(kernel_size) :])
    in_channels, out_channels = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        in_channels, out_channels = weight.shape[0], weight.shape[1] * groups

    def per_axis(name: str, default: int) -> Any:
        value = values.get(name, default)
        if isinstance(value, str):
            return value
        value = (value,) if isinstance(value, int) else tuple(value)
        return value * len(kernel_size) if len(value) == 1 else value

    conv = Conv._make(
        (
            in_channels,
            out_channels,
            kernel_size,
            input_size,
            per_axis("stride", 1),
            per_axis("padding", 0),
            per_axis("dilation", 1),
            groups,
            bias is not None,
            values["input"].shape[0] if batched else 1,
            tuple(output.shape[-len(kernel_size) :]),
        )
    )
    return _Call(path, transposed, conv, weight, bias)


def _layers(calls: list[_Call], reasons: dict[str, str], model: nn.Module) -> list[_Layer]:
    own = {id(parameter) for parameter in model.parameters()}
    owners = {
        id(module._parameters.get("weight")): path
        for path, module in model.named_modules()
        if path in reasons and reasons[path] != "shared weight"
    }
    times_called: Counter[str] = Counter()
    layers = []
    for called in calls:  # by way of its module, or of its module's forward() alone
        call = called._replace(path=owners.get(id(called.weight), called.path))
        times_called[call.path] += 1
        name = printable(call.path) or "the model"
        if times_called[call.path] > 1:
            name += f" (call {times_called[call.path]})"
        tensors = [t for t in (call.weight, call.bias) if t is not None and id(t) in own]
        own -= {id(tensor) for tensor in tensors}  # a parameter counts once
        conv, kind = call.conv, reasons.get(call.path, "functional") or "separable"
        if kind == "separable":
            comparison = separable(conv, 1, conv.bias)
            counts = comparison.counts
            if not tensors:
                counts = counts._replace(
                    standard_params=0, depthwise_params=0, pointwise_params=0, separable_params=0
                )
        else:
            comparison = Comparison(conv)
            counts = _unchanged(call, {id(tensor) for tensor in tensors})
        layers.append(_Layer(name, call.path, kind, comparison, counts, _size(tensors)))
    return layers


def _unchanged(call: _Call, counted: set[int]) -> Counts:
    """The cost of a call that stays as it is, with those of its parameters that count."""
    conv = call.conv
    macs = conv.macs
    if call.transposed:  # each position of the input, not the output, meets each tap
        macs = conv_macs(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.input_size,
            conv.groups, conv.batch_size,
        )  # fmt: skip
    params = 0
    if id(call.weight) in counted:
        params += conv_params(conv.in_channels, conv.out_channels, conv.kernel_size, conv.groups)
    if id(call.bias) in counted:
        params += conv.out_channels
    return Counts(macs, params, None, None, None, None, macs, params)


def _traced(model: nn.Module, inputs: tuple[Any, ...]) -> _Trace:
    of_each_call: list[int] = []

    def count(operands: list[Any], results: list[Any]) -> Counter[str]:
        shapes = get_shape(operands[0]), get_shape(operands[1]), get_shape(results[0])
        of_each_call.append(conv_flop_count(*shapes, transposed=is_transposed(operands)))
        return Counter(conv=of_each_call[-1])

    def einsum(operands: list[Any], results: list[Any]) -> Counter[str]:
        macs = _einsum(operands)
        if macs is None:
            unknown["aten::einsum"] += 1
        return Counter(macs=macs or 0)

    unknown: Counter[str] = Counter()
    analysis = FlopCountAnalysis(_AllResults(model), inputs)
    analysis.set_op_handle(
        *("aten::_convolution", count),
        *("aten::_convolution_mode", count),
        *("aten::scaled_dot_product_attention", _attention),
        *("aten::einsum", einsum),
        **{name: partial(_product, operand) for name, operand in _PRODUCTS.items()},
    )
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    try:
        operators = analysis.by_operator()
    except USER_ERRORS as error:
        raise CrosscheckError(f"fvcore cannot trace the model ({_first_line(error)})") from error
    return _Trace(of_each_call, operators["macs"], analysis.unsupported_ops() + unknown)


def _attention(operands: list[Any], results: list[Any]) -> Counter[str]:
    """MACs of softmax(Q K^T) V, as fvcore counts the two products where they are not fused."""
    *batch, queries, width = get_shape(operands[0])
    keys, value_width = get_shape(operands[1])[-2], get_shape(operands[2])[-1]
    return Counter(macs=prod(batch) * queries * keys * (width + value_width))


def _product(operand: int, operands: list[Any], results: list[Any]) -> Counter[str]:
    """MACs of a matrix product: one for each element of the result and of the summed axis."""
    return Counter(macs=prod(get_shape(results[0])) * get_shape(operands[operand])[-1])


def _einsum(operands: list[Any]) -> int | None:
    """MACs of a product of two tensors over named axes; None where it is not that simple."""
    equation = operands[0].toIValue().replace(" ", "")
    inputs = equation.partition("->")[0].split(",")
    shapes = [get_shape(tensor) for tensor in operands[1].node().inputs()]
    if len(inputs) != 2 or "." in equation:
        return None
    lengths: dict[str, int] = {}
    for axes, shape in zip(inputs, shapes, strict=True):
        lengths.update(zip(axes, shape, strict=True))
    return prod(lengths.values())


class _AllResults(nn.Module):
    """Returns every result with MACs behind it: tracing drops what has no use."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Tensor, ...]:
        with _Watch() as watch:
            output = self.model(*inputs)
        return (*_tensors(output), *watch.kept)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


def _counted(
    layers: list[_Layer], as_is: _Trace, replaced: _Trace, converted: nn.Module
) -> Iterator[Counts]:
    """What fvcore and torch count of each layer, before and after."""
    expected = len(layers), sum(2 if layer.replaced else 1 for layer in layers)
    found = len(as_is.conv_macs), len(replaced.conv_macs)
    if found != expected:
        raise CrosscheckError(
            f"fvcore sees {found[0]} and {found[1]} convolutions in the model and its copy, where "
            f"{expected[0]} and {expected[1]} are expected; some are reached by other ways than "
            "as submodules, such as a plain list, or their results decide what runs"
        )
    after = iter(replaced.conv_macs)
    for layer, macs in zip(layers, as_is.conv_macs, strict=True):
        params = layer.params_held
        if not layer.replaced:
            yield Counts(macs, params, None, None, None, None, next(after), params)
            continue
        module = converted.get_submodule(layer.path)
        held = [0, 0]
        if params:
            held = [_size(part.parameters()) for part in module.children()]
        depthwise, pointwise = next(after), next(after)
        yield Counts(
            macs, params, depthwise, held[0], pointwise, held[1], depthwise + pointwise, sum(held)
        )


def _params_added(module: nn.Module) -> int:
    """By formula, what replacing a convolution adds to the parameters, whether it runs or not."""
    assert isinstance(module, _ConvNd)
    bias = module.bias is not None
    standard = Conv(
        module.in_channels, module.out_channels, module.kernel_size, module.kernel_size, bias=bias
    )
    counts = separable(standard, 1, bias).counts
    return counts.separable_params - counts.standard_params


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _first_line(error: BaseException) -> str:
    return printable(str(error).strip().partition("\n")[0])
