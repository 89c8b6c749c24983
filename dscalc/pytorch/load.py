"""``MODULE:ATTR`` -> a torch model. Loading runs the model's own code."""

import importlib
import importlib.util
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dscalc.errors import DscalcError
from dscalc.words import printable, shown

USER_ERRORS = (Exception, SystemExit)  # whatever a model's own code raises
_FLOATS = {
    None: None,
    "int64": None,
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_model(target: str, arguments: dict[str, Any], dtype: str | None = None) -> nn.Module:
    """Import a model, or call what makes one.

    Args:
        target: ``MODULE:ATTR``; MODULE is a dotted name or a path to a ``.py`` file, ATTR an
            ``nn.Module`` or a callable that returns one, with dots for attributes of attributes.
        arguments: keywords for the callable.
        dtype: what its parameters become, where that is given and one of floats.

    Raises:
        DscalcError: the module cannot be imported, has no such attribute, or that makes no model.
    """
    module_name, colon, attributes = target.rpartition(":")
    if not colon or not module_name or not attributes:
        raise DscalcError(f"a model is MODULE:ATTR, such as mymodels.py:Net, got {shown(target)}")
    found: Any = _imported(module_name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            near = get_close_matches(attribute, dir(found), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "check the spelling"
            raise DscalcError(f"{module_name} has no attribute {shown(attribute)}; {hint}")
        found = getattr(found, attribute)
    if isinstance(found, nn.Module):
        if arguments:
            raise DscalcError(f"{target} is a module already and takes no --kwargs")
        return found.to(_FLOATS[dtype])
    if not callable(found):
        raise DscalcError(
            f"{target} is of type {type(found).__name__}; it must be an nn.Module, or a callable "
            "that returns one"
        )
    try:
        model = found(**arguments)
    except USER_ERRORS as error:
        inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        if isinstance(error, TypeError) and not inside:
            raise DscalcError(
                f"{target} cannot be called so ({printable(str(error))}); give its arguments with "
                "--kwargs, such as '{\"width\": 64}'"
            ) from error
        raise DscalcError(f"{target} failed ({_described(error)}); -v shows where") from error
    if not isinstance(model, nn.Module):
        raise DscalcError(f"{target} returns a {type(model).__name__}; it must return an nn.Module")
    return model.to(_FLOATS[dtype])


def _imported(name: str) -> ModuleType:
    path = Path(name)
    try:
        if path.suffix == ".py":
            if not path.is_file():
                raise DscalcError(f"there is no file {shown(name)}; check the path")
            return _from_file(path)
        if str(Path.cwd()) not in sys.path:  # as python -m has it
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    except DscalcError:
        raise
    except ModuleNotFoundError as error:
        if path.suffix != ".py" and error.name and f"{name}.".startswith(f"{error.name}."):
            hint = "a file is given with its ending, such as mymodels.py:Net"
            raise DscalcError(f"there is no module {shown(name)} here; {hint}") from error
        raise DscalcError(f"importing {name} failed ({error}); -v shows where") from error
    except USER_ERRORS as error:
        raise DscalcError(
            f"importing {name} failed ({_described(error)}); -v shows where"
        ) from error


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # as import does, for what looks itself up there
    sys.path.insert(0, str(path.parent.resolve()))  # for the files beside it
    spec.loader.exec_module(module)
    return module


def _described(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}".partition("\n")[0])
