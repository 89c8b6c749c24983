"""A model in a file that holds no Python: an exported program, read as data.

``torch.export.load`` trusts what it reads. It unpickles, evaluates the text of sizes, makes Python
source of names, and starts compiled code. Here an archive is data: each of these is refused.
"""

import json
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dscalc.errors import DscalcError
from dscalc.pytorch.inputs import Inputs
from dscalc.pytorch.user_errors import error_in_words
from dscalc.show import quoted


class Program(NamedTuple):
    """An exported program: its modules, named as in its source, its own inputs, and remarks."""

    model: nn.Module
    inputs: Inputs | None
    notes: list[str]


def load_program(path: Path) -> Program:
    """Load an exported program, without running anything in its file.

    Raises:
        DscalcError: this torch cannot read it, or it holds what could be code.
    """
    if not find_spec("torch.export.pt2_archive"):
        raise DscalcError(
            f"{path} is read by torch 2.8 or later; this is torch {torch.__version__}"
        )
    load_it = f"torch.export.unflatten(torch.export.load({str(path)!r}))"
    trusted = "if you trust it, load it in a function of your own:"
    try:
        with _as_data():
            read = torch.export.load(path)
            model = torch.export.unflatten(read)
    except _CodeError as error:
        raise DscalcError(f"{path} holds {error}; {trusted} {load_it}") from error
    except Exception as error:  # whatever torch raises for an archive that it cannot read
        raise DscalcError(
            f"torch {torch.__version__} cannot read {path} ({error_in_words(error)}); export it "
            f"again; {trusted} {load_it}"
        ) from error
    _as_in_its_source(model)
    args, kwargs = read.example_inputs or ((), {})
    notes = []
    if _in_training_mode(read):
        notes.append("it was exported in training mode; call eval() before torch.export.export")
    return Program(model, Inputs(tuple(args), kwargs) if read.example_inputs else None, notes)


class _CodeError(Exception):
    """What in an archive could be code, or an operator with effects."""


# Operators that have no effect but their results; others of torch read and write files.
_OF_TORCH = (
    r"torch\.ops\.(aten|prims|higher_order|quantized_decomposed)"
    r"\.(?!__|save\b|from_file|debug)\w+(\.(?!__)\w+)?"
)
# Strings that torch makes Python source of, or evaluates, and what they may be: a name is a word, a
# path does not end the string that it stands in, keys call nothing.
_NAME, _PATH = r"[\w.]*", r'[^"\\\r\n]*'
_ALLOWED = {
    **dict.fromkeys(("name", "as_name", "user_input_name", "forward_arg_names"), _NAME),
    **dict.fromkeys(("fqn", "nn_module_stack", "parameter_name", "buffer_name"), _PATH),
    **dict.fromkeys(("tensor_constant_name", "custom_obj_name"), _PATH),
    "target": rf"{_OF_TORCH}|(_operator|math)\.\w+|torch\._?sym_\w+",
    "as_operator": _OF_TORCH,
    "context": r"[^();\\\r\n]*",
}
# SymPy evaluates sizes, and calls what they call; some of its classes would evaluate a string.
_QUOTED = re.compile(r"\b(Symbol|Float|Integer)\('[\w.+-]*'")
_SIZE = re.compile(r"(?a)(?!.*\.[A-Za-z_])[\w ()+\-*/%<>=!&|~,.]*")
_CALLED = re.compile(r"(\w*|\)|\.)\s*\(")
_ARITHMETIC = re.compile(
    r"|Symbol|Float|Integer|Rational|Add|Mul|\w*Pow\w*|Max|Min|\w*Mod|\w*Div|floor|ceiling|Abs|\w*ToInt"
    r"|ToFloat|RoundDecimal|Where|ModularIndexing|[LR]Shift|BitwiseFn_\w+|OpaqueUnaryFn_\w+|Identity"
    r"|(Strict)?(Less|Greater)Than|Equality|Unequality|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not"
    r"|Piecewise|ExprCondPair"
)


def _is_plain(key: str, text: str) -> bool:
    if key == "expr_str":
        text = _QUOTED.sub(r"\1(", text)
        called = [call[1] for call in _CALLED.finditer(text)]
        return bool(_SIZE.fullmatch(text)) and all(map(_ARITHMETIC.fullmatch, called))
    return key not in _ALLOWED or bool(re.fullmatch(_ALLOWED[key], text))


def _checked(held: dict[str, Any]) -> dict[str, Any]:
    """An object of an archive, on the CPU.

    Raises:
        _CodeError: one of its strings could be code, or has a module imported.
    """
    if isinstance(held.get("from_node"), str):  # which nodes a node was made from: nobody asks
        held = {key: value for key, value in held.items() if key != "from_node"}
    for key, value in held.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not _is_plain(key, text):
                operator = text.startswith("torch.ops.")
                what = "the operator" if operator else "text that could be code,"
                raise _CodeError(f"{what} {quoted(text)}")
    module = held.get("default_factory_module", "sys")
    if "__enum__" in held:
        module = str(held.get("fqn")).partition(":")[0]
    if module not in sys.modules:
        raise _CodeError(f"values of the module {quoted(str(module))}")
    return {"type": "cpu", "index": None} if held.keys() == {"type", "index"} else held


@contextmanager
def _as_data() -> Iterator[None]:
    """Keep torch from running what it reads, and from warning of it."""
    read_json, read_tensors = json.loads, torch.load

    def tensors(*args: Any, **options: Any) -> Any:
        try:
            return read_tensors(*args, **{**options, "weights_only": True, "map_location": "cpu"})
        except pickle.UnpicklingError as error:
            raise _CodeError("pickled code") from error

    def plain(text: Any, **options: Any) -> Any:
        plain = read_json(text, object_hook=_checked)
        return read_json(text, **options) if options else plain

    def refused(*_: Any, **__: Any) -> Any:
        raise _CodeError("pickled code")

    instead: list[tuple[Any, str, Callable[..., Any]]] = [
        (torch, "load", tensors), (json, "loads", plain), (pickle, "loads", refused),
        (torch._C, "_pickle_load_obj", refused),
        (getattr(torch._C, "_aoti", None), "AOTIModelPackageLoader", refused),
    ]  # fmt: skip
    with ExitStack() as stack:
        for place, name, function in instead:
            if not hasattr(place, name):  # another version of torch
                continue
            stack.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, function)
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def on_device_of_run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Call an operator of a graph on the device of the run, whatever it was exported for."""
    device = torch.get_default_device()
    args = tuple(device if isinstance(arg, torch.device) else arg for arg in args)
    return operator(*args, **(kwargs | ({"device": device} if "device" in kwargs else {})))


def _as_in_its_source(model: nn.Module) -> None:
    """Call modules by their classes, and let no operator name a device of its own."""
    for module in model.modules():
        if isinstance(module, torch.fx.GraphModule):  # a branch, which has no name in the source
            continue
        of = getattr(module, "type_name", lambda: None)() or type(module).__name__
        module.__class__ = type(of.rpartition(".")[2], (type(module),), {})
        if "graph_module" in vars(module):  # compiled, which an interpreter does not need
            vars(module)["graph_module"] = True  # and torch cannot always copy
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            values = (*node.args, *node.kwargs.values())
            if any(isinstance(value, torch.device) for value in values):
                node.args, node.target = (node.target, *node.args), on_device_of_run


def _in_training_mode(program: torch.export.ExportedProgram) -> bool:
    for node in program.graph.nodes:
        if schema := getattr(node.target, "_schema", None):
            names = [argument.name for argument in schema.arguments]
            passed = dict(zip(names, node.args, strict=False)) | node.kwargs
            has_statistics = passed.get("running_mean", ...) is not None
            if has_statistics and True in (passed.get("train"), passed.get("training")):
                return True
    return False
