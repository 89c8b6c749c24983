"""Why a model cannot run, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dscalc.errors import DscalcError
from dscalc.pytorch.inputs import Inputs, input_hint
from dscalc.pytorch.user_errors import USER_ERRORS, named_error, user_line
from dscalc.pytorch.walk import named_modules
from dscalc.show import first_line, message_of, printable


@contextmanager
def say_why(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Tell in one line why a model cannot run."""
    try:
        yield
    except DscalcError:
        raise
    except (*USER_ERRORS, GeneratorExit) as error:
        raise _cannot_run(model, inputs, error) from error


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
    line = at_line(error)
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


def at_line(error: BaseException) -> str:
    """Say ", at model.py:12", of the user's own line."""
    line = user_line(error, packages=True)
    return f", at {line.file}:{line.number}" if line else ""


def counter_failed(error: BaseException) -> bool:
    """Whether torch's own counter raised, and not the operator that it saw."""
    functions = [
        frame.f_code.co_name
        for frame, _ in walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == FlopCounterMode.__module__
    ]
    refused = isinstance(error, TypeError) and "no implementation found" in str(error)
    return refused or (bool(functions) and functions[-1] != "__torch_dispatch__")
