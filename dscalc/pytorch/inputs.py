"""Inputs of a model: from the words of ``--input``, or from the user's own code."""

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dscalc.errors import DscalcError
from dscalc.parse import shape, shape_meant
from dscalc.pytorch.load import (
    DTYPES,
    call_users,
    load_object,
    misfit,
    parameters_of,
    signature_text,
    torch_dtype,
    user_code,
)
from dscalc.pytorch.user_errors import error_in_words
from dscalc.show import did_you_mean, for_who_asks, message_of, printable, quoted, times

_BY_HINT = {"bool": "true", "int": "1", "float": "0.5", "str": "'\"...\"'"}  # of hints
_OF_AN_INDEX = (  # what torch says of one that is no whole number
    r"'indices' to have one of|used as indices must be|expected (dtype int\S*( or int64)?|a long "
    r"tensor) for index|applicable to index tensor"
)
_SHOWN_VALUES = 4  # values are shown, and of more a shape


@dataclass(frozen=True)
class Inputs:
    """The arguments of ``forward``: ``model(*args, **kwargs)``."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def read_inputs(
    words: Sequence[str], batch: int, dtype: str | None = None, device: str = "meta"
) -> Inputs:
    """Make what each ``--input`` says.

    Args:
        words: ``[KEYWORD=]SHAPE[:DTYPE]``, such as ``3x224x224``, ``mask=1x32``, ``ids=77:int64``;
            without a shape, as in ``t=:int64``, one number per sample. Or ``[KEYWORD]:=JSON``, a
            value as it is: ``flag:=true``, ``t:=10``; lists are tensors, such as ``sizes:=[100]``.
        batch: the size in front of each shape.
        dtype: of words that name none; float32 by default.
        device: ``meta``, where tensors take no memory, or a device where they have values.

    Raises:
        DscalcError: a word has another form, a keyword is given twice, or torch refuses a size.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    make = _maker(device)
    for word in words:
        keyword, is_value, text = word.partition(":=")
        if not is_value:
            keyword, is_keyword, text = word.rpartition("=")
        if (keyword or (not is_value and is_keyword)) and not keyword.isidentifier():
            raise DscalcError(
                f"the keyword of an --input must be a name such as mask=1x32, got {quoted(word)}"
            )
        if keyword in kwargs:
            raise DscalcError(f"--input {keyword} is given twice, got {quoted(word)}; give it once")
        made = _value(text, word, dtype) if is_value else _tensor_of(text, word, batch, dtype, make)
        if keyword:
            kwargs[keyword] = made
        else:
            args.append(made)
    return Inputs(tuple(args), kwargs)


def _tensor_of(
    text: str, word: str, batch: int, dtype: str | None, make: Callable[..., Tensor]
) -> Tensor:
    """The tensor of ``SHAPE[:DTYPE]``."""
    sizes, colon, named = text.partition(":")
    try:
        kind = torch_dtype(named if colon else dtype or "float32")
    except DscalcError as error:
        raise DscalcError(f"--input {quoted(word)}: {error}" if colon else str(error)) from None
    lone = colon and not sizes.strip()  # one number per sample
    return make((batch, *(() if lone else _shape_of(sizes, word))), kind)


def _value(text: str, word: str, dtype: str | None) -> Any:
    """The value of JSON; of nested lists a tensor, of bool, int64 or float32."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        hint = "write JSON after :=, such as true, 10 or [100]"
        if text in DTYPES:
            hint = f"for one number per sample write {word.replace(':=', '=:')}"
        raise DscalcError(f"the value of --input {quoted(word)} is no JSON; {hint}") from None
    if not isinstance(value, list | dict):
        return value
    try:
        tensor = torch.tensor(value, device="cpu")
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise DscalcError(
            f"--input {quoted(word)} gives no tensor ({error_in_words(error)}); give numbers, or "
            "lists of them of one length, or write a function and name it with --inputs"
        ) from None
    precision = torch_dtype(dtype or "float32")
    floating = tensor.is_floating_point() and precision.is_floating_point
    return tensor.to(precision) if floating else tensor


def inputs_from(target: str) -> Inputs:
    """Import inputs of any kind, or call the callable that makes them: ``--inputs MODULE:ATTR``.

    A dict or another mapping gives keywords, a tuple or list positions, anything else the one
    input. For a model that takes one dict, give a tuple of it: ``({"left": x, "right": y},)``.

    Raises:
        DscalcError: the inputs cannot be imported or made, are a model, or have a key that is not a
            string.
    """
    with user_code(target):
        made = load_object(target, "--inputs", "inputs")
        if callable(made) and not isinstance(made, nn.Module):
            made = call_users(target, made, None)
    if isinstance(made, nn.Module):
        raise DscalcError(
            f"{target} is a model ({type(made).__name__}); --inputs names the inputs of a model"
        )
    if isinstance(made, Mapping):
        for name in made:
            if not isinstance(name, str):
                raise DscalcError(
                    f"{target} is a dict with the key {quoted(str(name))}, but its keys must "
                    "be keywords of forward; if it takes the dict itself, make it a tuple: (it,)"
                )
        return Inputs((), dict(made))
    return Inputs(tuple(made) if isinstance(made, tuple | list) else (made,))


def shapes_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The shapes of the tensors among the inputs: 1x3x224x224."""
    values = [*args, *kwargs.values()]
    return ", ".join(times(value.shape) for value in values if hasattr(value, "shape"))


def inputs_in_words(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The inputs as ``--input`` names them: 3x224x224; 8 x 3x224x224 of a batch of 8, float16."""
    named = {f"{n}": value for n, value in enumerate(args)} | dict(kwargs)
    values = {name: _plain_value(value) for name, value in named.items()}
    tensors = {
        n: value for n, value in named.items() if isinstance(value, Tensor) and not values[n]
    }
    sizes = {tuple(value.shape[:1]) for value in tensors.values()}
    batch = sizes.pop() if len(sizes) == 1 else ()
    words, floats = [], dict[str, None]()
    for name, value in named.items():
        keyword = "" if name.isdecimal() else name
        if plain := values[name]:
            words.append(f"{keyword}:={plain}")
        if name not in tensors:
            continue
        dtype = str(value.dtype).removeprefix("torch.")
        if value.is_floating_point():
            floats[dtype] = None
        shape = times(value.shape[1:] if batch else value.shape)
        shape += "" if value.is_floating_point() else f":{dtype}"
        words.append(f"{keyword}={shape}" if keyword else shape)
    samples = f"{batch[0]:,} x " if batch and batch[0] != 1 else ""
    unusual = [dtype for dtype in floats if dtype != "float32"]
    return ", ".join([samples + ", ".join(words), *unusual]) if words else ""


def _plain_value(value: Any) -> str:
    """A flag, a number, a text or a few whole numbers, as JSON; "" for anything else."""
    if isinstance(value, Tensor):
        whole = not (value.is_meta or value.is_floating_point() or value.is_complex())
        if not whole or value.layout != torch.strided or value.numel() > _SHOWN_VALUES:
            return ""
        value = value.tolist()
    elif not isinstance(value, bool | int | float | str | None):
        return ""
    return printable(json.dumps(value, ensure_ascii=False))


def materialised(inputs: Inputs, device: str, *, gradients: bool = False) -> Inputs:
    """A copy of the inputs with a copy on a device of each tensor in them, however deep.

    From meta to another device, tensors become random numbers, zeros or True; see `_maker`. With
    ``gradients`` a copy requires one if its tensor does.

    Raises:
        DscalcError: something in them cannot be copied, or torch has no memory for them.
    """
    make = _maker(device)

    def moved(tensor: Tensor) -> Tensor:
        if tensor.is_meta and device != "meta":
            twin = make(tuple(tensor.shape), tensor.dtype)
        else:
            twin = tensor.detach().to(device, copy=True)
        return twin.requires_grad_(gradients and tensor.requires_grad)

    try:
        with Copying(moved):
            return copy.deepcopy(inputs)
    except DscalcError:
        raise
    except Exception as error:
        raise DscalcError(
            f"the inputs cannot be copied to {device} ({error_in_words(error)})"
        ) from error


class Copying(TorchFunctionMode):
    """Makes ``copy.deepcopy``, which walks any nest, copy tensors with a function."""

    def __init__(self, twin_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._twin_of = twin_of

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (Tensor.__deepcopy__, Tensor.clone):  # a parameter copies itself by clone
            return self._twin_of(args[0])
        return function(*args, **kwargs or {})


def check_inputs(model: nn.Module, inputs: Inputs) -> None:
    """Refuse inputs that do not fit the signature of ``forward``, before anything runs.

    Raises:
        DscalcError: an input is missing, there is one too many, or a keyword is unknown.
    """
    if why := _misfit(model, inputs):
        name = type(model).__name__
        raise DscalcError(f"{name} cannot run on these inputs ({why}); {input_hint(model, inputs)}")


def input_hint(model: nn.Module, inputs: Inputs, error: BaseException | None = None) -> str:
    """A hint at inputs that fit, to follow a semicolon.

    Args:
        model: the model that was called, or would be.
        inputs: the inputs that it was called with.
        error: the error of the call.
    """
    asks = f"forward takes {signature_text(_forward(model))}"
    parameters = parameters_of(_forward(model))
    needed = [each for each in parameters.values() if each.default is Parameter.empty]
    if _misfit(model, inputs):
        unknown = next((name for name in inputs.kwargs if name not in parameters), None)
        if unknown and (near := did_you_mean(unknown, parameters, "")):
            return f"{asks}: for {quoted(unknown)}, {near}"
        several = Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD
        needed = [each for each in needed if each.kind not in several]
        words = " ".join(f"--input {_example(each)}" for each in needed) or "no --input"
        unsaid = [
            each.name
            for each in needed[1:]
            if each.annotation is Parameter.empty and _example(each) == f"{each.name}=CxHxW"
        ]
        more = f"; if it is a flag or a number, {unsaid[0]}:=true" if unsaid else ""
        names = ", ".join(each.name for each in needed)
        called = f"{names}, each a tensor or a shape such as (1, 3, 224, 224)" if names else "none"
        return f"{asks}: give {for_who_asks(words + more, called)}"
    if "edge_index" in parameters:
        as_they_are = "--input adds a batch axis; --inputs MODULE:ATTR gives inputs as they are"
        return f"{asks}: {for_who_asks(as_they_are, 'check the shapes and dtypes')}"
    given = (*inputs.args, *inputs.kwargs.values())
    if len(needed) == 1 and len(given) == 1 and isinstance(given[0], Tensor):
        # The errors of a tensor that forward reads as a dict or unpacks as a list.
        wanted = (
            "'Tensor' object has no attribute|invalid data type 'str'|too many indices for tensor|"
            "values to unpack"
        )
        if re.search(wanted, message_of(error)):
            return f"{asks}, which seems not to be a plain tensor: " + for_who_asks(
                "write a function that returns (it,) and name it with --inputs MODULE:ATTR",
                "give what forward reads",
            )
    if re.search(_OF_AN_INDEX, message_of(error), re.IGNORECASE):
        named = {**{f"{n}": value for n, value in enumerate(inputs.args)}, **inputs.kwargs}
        for name, value in named.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                return f"{asks}: {_as_an_index(name, value, alone=len(given) == 1)}"
    return f"{asks}: check the shapes and dtypes"


def _as_an_index(name: str, tensor: Tensor, *, alone: bool) -> str:
    """Say how to give an input that holds indices, which are whole numbers."""
    word = f"{times(tensor.shape[1:])}:int64"
    typed = f"--input {word if name.isdecimal() else f'{name}={word}'}"
    called = f"torch.zeros({tuple(tensor.shape)}, dtype=torch.int64)"
    if alone:
        return f"if it holds indices, {for_who_asks(f'write {typed}', f'give {called}')}"
    return f"the input that holds indices needs a dtype, such as {for_who_asks(typed, called)}"


def _example(parameter: Parameter) -> str:
    """An ``--input`` for a parameter of ``forward``."""
    hint = parameter.annotation
    value = _BY_HINT.get(getattr(hint, "__name__", hint))
    name = "" if parameter.kind is Parameter.POSITIONAL_ONLY else parameter.name
    if name == "edge_index":
        value = "[[0,1],[1,0]]"
    if value:
        return f"{name}:={value}"
    return f"{name}=CxHxW" if name else "CxHxW"


def _misfit(model: nn.Module, inputs: Inputs) -> str:
    """Python's error if inputs do not fit ``forward``; "" if they do or only a call can tell."""
    if type(model).__call__ is not nn.Module.__call__ or model._forward_pre_hooks:
        return ""  # these may pass on other arguments
    return misfit(_forward(model), inputs.args, inputs.kwargs)


def _forward(model: nn.Module) -> Callable[..., Any]:
    compiled = type(model).__name__ == "OptimizedModule"
    called: Any = model._modules["_orig_mod"] if compiled else model
    forward: Callable[..., Any] = called.forward
    return forward


def _shape_of(text: str, word: str) -> tuple[int, ...]:
    try:
        return shape(text, "--input")
    except DscalcError:
        rule = f"--input must be a shape such as 3x224x224, got {quoted(word)}"
        if meant := shape_meant(text):
            rule += f"; write {quoted(meant)[1:-1]}"
        elif re.fullmatch(r"-?\d+(x-?\d+)*", text.strip()):
            rule += "; each size is at least 1"
        elif "=" in word and re.fullmatch(r"true|false|null|-?[\d.]+|\[.*\]|\".*\"", text):
            rule += f"; for a value write {quoted(word.replace('=', ':=', 1))[1:-1]}"
        raise DscalcError(rule) from None


def _maker(device: str) -> Callable[[tuple[int, ...], torch.dtype], Tensor]:
    """A function that makes one input after another, the same inputs each time.

    Floats are random, since a model may treat equal values alike. Whole numbers are 0, an index of
    anything. Masks are all True, so that they select something.
    """
    generator = torch.Generator().manual_seed(0)  # leaves the global random state alone

    def make(sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        try:
            if device == "meta":
                return torch.empty(sizes, dtype=dtype, device=device)
            if dtype is torch.bool:
                return torch.ones(sizes, dtype=dtype, device=device)
            if not dtype.is_floating_point and not dtype.is_complex:
                return torch.zeros(sizes, dtype=dtype, device=device)
            drawn = torch.complex64 if dtype.is_complex else torch.float32
            return torch.randn(sizes, dtype=drawn, generator=generator, device="cpu").to(
                device, dtype
            )
        except (RuntimeError, TypeError) as error:
            raise DscalcError(
                f"torch cannot make an input of {times(sizes)} ({error_in_words(error)})"
            ) from error

    return make
