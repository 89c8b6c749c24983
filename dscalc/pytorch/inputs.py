"""What a model is run on: the words of ``--input``, or whatever the user's own code makes."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dscalc.errors import DscalcError
from dscalc.parse import shape
from dscalc.pytorch.load import (
    call_users,
    error_in_words,
    load_object,
    misfit,
    parameters_of,
    signature_text,
    torch_dtype,
    user_code,
)
from dscalc.show import did_you_mean, quoted, times

_OTHER_SHAPE = re.compile(r"[(\[]?\d+(?:[\s,*×X]+\d+)*[)\]]?")  # noqa: RUF001  # as people write it


@dataclass(frozen=True)
class Inputs:
    """What ``forward`` is called with: ``model(*args, **kwargs)``."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def read_inputs(
    words: Sequence[str], batch: int, dtype: str | None = None, device: str = "meta"
) -> Inputs:
    """Make a tensor for each ``--input``.

    Args:
        words: ``[KEYWORD=]SHAPE[:DTYPE]``, such as ``3x224x224``, ``mask=1x32``, ``ids=77:int64``;
            without a shape, as in ``t=:int64``, it is one number a sample.
        batch: the size that goes in front of each shape.
        dtype: of those that name none; float32 by default.
        device: ``meta``, where tensors take no memory, or one where they have values.

    Raises:
        DscalcError: a word is none of that form, a keyword is there twice, torch refuses a size.
    """
    args: list[Tensor] = []
    kwargs: dict[str, Tensor] = {}
    make = _maker(device)
    for word in words:
        keyword, equals, rest = word.rpartition("=")
        sizes, colon, named = rest.partition(":")
        if equals and not keyword.isidentifier():
            raise DscalcError(
                f"the keyword of an --input must be a name such as mask=1x32, got {quoted(word)}"
            )
        if keyword in kwargs:
            raise DscalcError(f"--input {keyword} is given twice, got {quoted(word)}; give it once")
        try:
            kind = torch_dtype(named if colon else dtype or "float32")
        except DscalcError as error:
            raise DscalcError(f"--input {quoted(word)}: {error}" if colon else str(error)) from None
        lone = colon and not sizes.strip()  # one number a sample
        tensor = make((batch, *(() if lone else _shape_of(sizes, word))), kind)
        if keyword:
            kwargs[keyword] = tensor
        else:
            args.append(tensor)
    return Inputs(tuple(args), kwargs)


def inputs_from(target: str) -> Inputs:
    """Import inputs of any kind, or call what makes them: ``--inputs MODULE:ATTR``.

    A dict, or what is like one, gives keywords; a tuple or list positions; anything else is the one
    input. So a model that takes one dict is given a tuple of it: ``({"left": x, "right": y},)``.

    Raises:
        DscalcError: they cannot be imported or made, or a keyword is not a name.
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


def materialised(inputs: Inputs, device: str) -> Inputs:
    """The same inputs with a copy on a device of each tensor in them, however deep.

    From meta to another device they become random numbers, zeros, or True; see `read_inputs`.

    Raises:
        DscalcError: they hold something that cannot be copied, or torch has no memory for them.
    """
    make = _maker(device)

    def moved(tensor: Tensor) -> Tensor:
        if tensor.is_meta and device != "meta":
            return make(tuple(tensor.shape), tensor.dtype)
        return tensor.detach().to(device, copy=True)

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
    """Has ``copy.deepcopy``, which walks any nest, make its copies of tensors by a function."""

    def __init__(self, twin_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._twin_of = twin_of

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (Tensor.__deepcopy__, Tensor.clone):  # a parameter clones itself
            return self._twin_of(args[0])
        return function(*args, **kwargs or {})


def check_inputs(model: nn.Module, inputs: Inputs) -> None:
    """Refuse inputs that do not fit the signature of ``forward``, before anything runs.

    Raises:
        DscalcError: one is missing, or there is one too many, or a keyword is unknown.
    """
    misfit = _misfit(model, inputs)
    if misfit:
        name = type(model).__name__
        raise DscalcError(
            f"{name} cannot run on these inputs ({misfit}); {input_hint(model, inputs)}"
        )


def input_hint(model: nn.Module, inputs: Inputs, error: BaseException | None = None) -> str:
    """What to give instead, in words that follow a semicolon.

    Args:
        model: whose ``forward`` was called, or would be.
        inputs: that it was called with.
        error: what came of it.
    """
    asks = f"forward takes {signature_text(_forward(model))}"
    parameters = parameters_of(_forward(model))
    needed = [each for each in parameters.values() if each.default is Parameter.empty]
    if _misfit(model, inputs):
        unknown = next((name for name in inputs.kwargs if name not in parameters), None)
        if unknown and (near := did_you_mean(unknown, parameters, "")):
            return f"{asks}: for {quoted(unknown)}, {near}"
        words = [
            "--input CxHxW"
            if each.kind is Parameter.POSITIONAL_ONLY
            else f"--input {each.name}=CxHxW"
            for each in needed
            if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        ]
        return f"{asks}: give {' '.join(words) or 'no --input'}"
    given = (*inputs.args, *inputs.kwargs.values())
    if len(needed) == 1 and len(given) == 1 and isinstance(given[0], Tensor):
        # A dict is asked for names, a list is unpacked; a tensor answers like this.
        wanted = (
            "'Tensor' object has no attribute|invalid data type 'str'|too many indices for tensor|"
            "values to unpack"
        )
        if re.search(wanted, str(error)):
            return (
                f"{asks}, which seems not to be a plain tensor: write a function that returns "
                "(it,) and name it with --inputs MODULE:ATTR"
            )
    return f"{asks}: check the shapes and dtypes"


def _misfit(model: nn.Module, inputs: Inputs) -> str:
    """What Python says of the call, or nothing where it fits or only calling can tell."""
    if type(model).__call__ is not nn.Module.__call__ or model._forward_pre_hooks:
        return ""  # which may hand other arguments on
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
        numbers = re.findall(r"\d+", text)
        if len(numbers) > 1 and _OTHER_SHAPE.fullmatch(text.strip()):
            rule += f"; write {quoted('x'.join(numbers))[1:-1]}"
        elif re.fullmatch(r"-?\d+(x-?\d+)*", text.strip()):
            rule += "; each size is at least 1"
        raise DscalcError(rule) from None


def _maker(device: str) -> Callable[[tuple[int, ...], torch.dtype], Tensor]:
    """What makes one input after another, the same ones each time.

    Numbers are random where they can be, since a model may treat equal ones alike; whole ones are
    0, an index of anything; of a mask all is True, so that what it selects is not empty.
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
