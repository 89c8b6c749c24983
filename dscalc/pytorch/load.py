"""``MODULE:ATTR`` -> a torch model. Loading runs the user's code; errors name the user's lines."""

import io
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.machinery import SourceFileLoader
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from dscalc.errors import DscalcError
from dscalc.pytorch.importing import imported
from dscalc.pytorch.user_errors import (
    OWN,
    USER_ERRORS,
    exits_refused,
    failure_of,
    is_users,
    named_error,
    user_line,
)
from dscalc.show import did_you_mean, first_line, message_of, printable, quoted

DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)


def load_model(
    target: str, arguments: dict[str, Any], dtype: str | None = None, *, meta: bool = True
) -> nn.Module:
    """Import a model, or call the callable that makes one.

    Args:
        target: ``MODULE:ATTR``; MODULE is a dotted name or a path to a ``.py`` file, ATTR an
            ``nn.Module`` or a callable that returns one, with dots for attributes of attributes.
        arguments: keywords for the callable.
        dtype: the new dtype of its params, if it is a dtype of floats.
        meta: whether to call on the meta device first, where nothing is initialised. If that fails,
            as for code that asks for values, it is called again for real.

    Raises:
        DscalcError: the module cannot be imported or has no such attribute, or the attribute makes
            no model.
    """
    precision = torch_dtype(dtype) if dtype else None
    with user_code(target):
        model = load_object(target, "a model", "Net")
        if isinstance(model, nn.Module):
            if arguments:
                raise DscalcError(f"{target} is already a module and takes no --kwargs")
        elif not callable(model):
            raise DscalcError(
                f"{target} is of type {type(model).__name__}; it must be an nn.Module, or a "
                "callable that returns one"
            )
        else:
            model = call_users(target, model, arguments, meta=meta)
    if not isinstance(model, nn.Module):
        raise DscalcError(f"{target} returns a {type(model).__name__}; it must return an nn.Module")
    return model.to(precision) if precision and precision.is_floating_point else model


def load_object(target: str, what: str, example: str) -> Any:
    """Import MODULE and follow ATTR; ``what`` and ``example`` are for the error.

    Raises:
        DscalcError: the module cannot be imported, or has no such attribute.
    """
    name, colon, attributes = target.rpartition(":")
    if not colon or not name or not attributes:
        raise DscalcError(
            f"{what} must be MODULE:ATTR, such as mymodels.py:{example}, got {quoted(target)}"
        )
    found: Any = imported(name)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            hint = did_you_mean(attribute, dir(found), "check the spelling")
            raise DscalcError(f"{name} has no attribute {quoted(attribute)}; {hint}") from error
        except USER_ERRORS as error:  # a module may compute its attributes
            raise failure_of(f"reading {target}", error) from error
    return found


def call_users(
    target: str, make: Callable[..., Any], arguments: dict[str, Any] | None, *, meta: bool = False
) -> Any:
    """Call the user's callable with the keywords of ``--kwargs``; without any if they are None.

    Raises:
        DscalcError: the call fails (the error names the user's own line), or its arguments do not
            fit.
    """
    given = arguments or {}
    for operator in _formulas_of.pop(target, ()):
        flop_registry.pop(operator, None)
    before = dict(flop_registry)
    if meta and (made := _made_on_meta(make, given)) is not None:
        _formulas_of[target] = flop_registry.keys() - before
        return made
    flop_registry.clear()
    flop_registry.update(before)
    try:
        made = make(**given)
        _formulas_of[target] = flop_registry.keys() - before
        return made
    except USER_ERRORS as error:
        inside = error.__traceback__ and error.__traceback__.tb_next
        if isinstance(error, TypeError) and (not inside or misfit(make, (), given)):
            fix = "it is called without arguments"
            if arguments is not None:
                fix = _kwargs_needed(make, arguments)
            message = message_of(error)
            message = message.partition(". Did you mean")[0]  # Python 3.13's hint; ours follows
            raise DscalcError(
                f"{target} cannot be called like this ({printable(message)}); it takes "
                f"{signature_text(make)}: {fix}"
            ) from error
        called = f"{target.rpartition(':')[2]}()" if user_line(error) else target
        hint = ""
        if given and re.search("'(dict|list|str)' object has no attribute", message_of(error)):
            hint = f"; JSON gives plain values: {_of_your_own(make, given)}"
        raise failure_of(called, error, hint) from error


# What torch's register_flop_formula got from each callable; torch takes an operator only once.
_formulas_of: dict[str, set[Any]] = {}


def _made_on_meta(make: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Try a callable on the meta device; None if that fails, which a real call then reports.

    What it says is shown only if it succeeds, so that nothing is shown twice.
    """
    said = _Lent(io.StringIO())
    torch.set_default_device(None)  # torch loses track of one around torch.device
    try:
        with (
            redirect_stdout(said),
            redirect_stderr(said),
            warnings.catch_warnings(record=True) as warned,
            _imports_with_values(),
            torch.device("meta"),
        ):
            try:
                made = make(**given)
            finally:
                torch.set_default_device(None)
    except USER_ERRORS:
        return None
    finally:
        text, said.stream = said.stream.getvalue(), sys.stderr  # something may have kept it
    sys.stderr.write(text)
    shown_once: dict[Any, Any] = {}
    for warning in warned:
        if "meta" not in str(warning.message):  # such as about weights that are not copied
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno,
                registry=shown_once,
            )  # fmt: skip
    return made


@contextmanager
def _imports_with_values() -> Iterator[None]:
    """Keep modules off the meta device: they stay imported, and the real call takes their values.

    To import them again would run twice what a process can do only once, such as to register an
    operator.
    """
    loader: Any = SourceFileLoader

    def exec_module(self: Any, module: ModuleType) -> None:
        with torch._C.DisableTorchFunction():
            super(SourceFileLoader, self).exec_module(module)

    loader.exec_module = exec_module
    try:
        yield
    finally:
        del loader.exec_module


class _Lent:
    """A stream that nobody can close."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def user_code(target: str) -> Iterator[None]:
    """Run the block as a script of the user's would run.

    ``sys.argv`` is the file alone. Printed text goes to stderr, which the code cannot close. A
    warning that names only a line of dscalc is shown with the target instead; one of a package,
    which the user cannot change, is not shown. Afterwards the working folder is the same as before.

    Raises:
        DscalcError: the code raised something other than an `Exception`, an exit or an interrupt.
    """
    arguments, format_warning, folder = sys.argv, warnings.formatwarning, Path.cwd()

    def formatted(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if Path(filename).is_relative_to(OWN):
            return f"{target}: {category.__name__}: {message}\n"
        if not is_users(filename):
            return ""
        return format_warning(message, category, filename, lineno, line)

    sys.argv = [target.rpartition(":")[0]]
    warnings.formatwarning = formatted
    try:
        lent: Any = _Lent(sys.stderr)
        with exits_refused(), redirect_stdout(lent), redirect_stderr(lent):
            yield
    except (*USER_ERRORS, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise DscalcError(f"{target} raised {named_error(error, first_line(error))}") from error
    finally:
        sys.argv, warnings.formatwarning = arguments, format_warning
        os.chdir(folder)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Restore torch's default dtype and clear its default device afterwards: models may set them.

    Random states get a fixed seed, so that a model draws the same each time, such as weights that
    decide which branch it takes.
    """
    dtype = torch.get_default_dtype()
    torch.manual_seed(0)
    random.seed(0)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)


def torch_dtype(name: str) -> torch.dtype:
    """A dtype by any of its names in torch: float16 or half, int64 or long, bool.

    Raises:
        DscalcError: there is no such dtype, or an input cannot have it.
    """
    dtype = getattr(torch, name, None)
    if isinstance(dtype, torch.dtype) and dtype in {getattr(torch, each) for each in DTYPES}:
        return dtype
    hint = did_you_mean(name, DTYPES, f"give one of {', '.join(DTYPES)}")
    raise DscalcError(f"{quoted(name)} is not a dtype for an input; {hint}")


def signature_text(function: Callable[..., Any]) -> str:
    """A signature without type hints and long defaults: ``(*, left, right, scale=None)``."""
    try:
        parameters = [
            parameter.replace(annotation=Parameter.empty, default=_short_default(parameter.default))
            for parameter in signature(function).parameters.values()
        ]
    except (TypeError, ValueError):  # written in C
        return "(...)"
    return printable(str(Signature(parameters)).replace("Ellipsis", "..."))


def _short_default(default: Any) -> Any:
    return default if default is Parameter.empty or len(repr(default)) <= 20 else ...


def parameters_of(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a function by name; none if it is written in C."""
    try:
        return signature(function).parameters
    except (TypeError, ValueError):
        return {}


def misfit(function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
    """Python's error if the arguments do not fit; "" if they do or only a call can tell."""
    try:
        signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return printable(str(error))
    except ValueError:  # written in C
        pass
    return ""


def _kwargs_needed(make: Callable[..., Any], arguments: dict[str, Any]) -> str:
    parameters = parameters_of(make)
    anything = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if parameters and name not in parameters and not anything:
            return did_you_mean(name, parameters, f"leave {quoted(name)} out")
    needed = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is Parameter.empty
        and parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]
    given = ", ".join(f'"{name}": ...' for name in needed or ["width"])
    objects = [name for name in needed if _takes_object(parameters[name])]
    if objects:
        return (
            f"{objects[0]} seems to be an object, which JSON cannot give; "
            f"{_of_your_own(make, needed)}"
        )
    return f"give --kwargs '{{{given}}}', or name a function that calls it"


def _of_your_own(make: Callable[..., Any], keywords: Iterable[str]) -> str:
    name = printable(getattr(make, "__name__", "the model"))
    given = ", ".join(f"{keyword}=..." for keyword in keywords)
    return f"name a function of your own that returns {name}({given})"


def _takes_object(parameter: Parameter) -> bool:
    """Whether a parameter is of a class of somebody's own, or is called like a configuration."""
    hint = parameter.annotation
    named = re.search(r"conf|cfg|^args$|hparams|^opts?$", parameter.name)
    plain = hint is Parameter.empty or isinstance(hint, str)
    return bool(named) if plain else isinstance(hint, type) and hint.__module__ != "builtins"
