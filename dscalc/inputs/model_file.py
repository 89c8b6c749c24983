"""What a file that holds no Python is; nothing in it is unpickled to find out."""

import re
from pathlib import Path
from typing import IO

from dscalc.errors import DscalcError
from dscalc.show import did_you_mean, printable, quoted

_SOURCE = "such as mymodels.py:Net"
_GRAPHS = "{} and no PyTorch model; give the one that it was made from, " + _SOURCE
_WEIGHTS = f"weights and no model; give the code of the model, {_SOURCE}"
_CONTENTS = {  # by the ending of a file; those of torch say themselves what they hold
    ".onnx": _GRAPHS.format("an ONNX graph"),
    ".tflite": _GRAPHS.format("a TensorFlow Lite graph"),
    **dict.fromkeys((".keras", ".h5"), _GRAPHS.format("a Keras model")),
    ".pb": _GRAPHS.format("a TensorFlow graph"),
    ".mlmodel": _GRAPHS.format("a Core ML graph"),
    ".engine": _GRAPHS.format("a TensorRT engine"),
    **dict.fromkeys((".safetensors", ".gguf"), _WEIGHTS),
    **dict.fromkeys((".pt2", ".pt", ".pth", ".ckpt", ".bin", ".pkl"), ""),
}
_PROGRAM = re.compile(r"(.*/)?models/[^/]+\.json|serialized_exported_program\.json")
_COMPILED = re.compile(r"(.*/)?data/aotinductor/.*")
_SCRIPT = re.compile(r"[^/]+/code/.*")
_OF_TENSORS = ("collections", "torch", "torch._utils", "torch._tensor", "torch.storage", "_codecs")


def program_file(target: str) -> Path | None:
    """The file of an exported program; None if the target names code.

    Raises:
        DscalcError: there is no such file, or it holds something else.
    """
    name = target.rpartition(":")[0] or target
    path = Path(name)
    holds = _CONTENTS.get(path.suffix.lower())
    if holds is None or (":" in target and not path.is_file()):
        return None
    if not path.is_file():
        raise no_such_file(path)
    if holds := holds or _held_by(path):
        raise DscalcError(f"{name} holds {holds}")
    if name != target:
        rest = printable(target[len(name) :])
        raise DscalcError(f"{name} is an exported program, which is one model; drop {rest}")
    return path


def no_such_file(path: Path) -> DscalcError:
    """The error that there is no such file, with a near name of a file of its kind."""
    beside = map(str, path.parent.glob(f"*{path.suffix}"))
    hint = did_you_mean(str(path), beside, "check the path", cutoff=0.75)
    return DscalcError(f"there is no file {quoted(str(path))}; {hint}")


def _held_by(path: Path) -> str:
    """What a file of torch holds, read without unpickling; "" if it is an exported program."""
    from zipfile import BadZipFile, ZipFile  # few runs need it

    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            if any(map(_COMPILED.fullmatch, names)):
                return "compiled code, which dscalc does not start; save it by torch.export.save"
            if any(map(_PROGRAM.fullmatch, names)):
                return ""
            if any(map(_SCRIPT.fullmatch, names)):
                return f"TorchScript; give the nn.Module that it was made from, {_SOURCE}"
            with archive.open(next(name for name in names if name.endswith("data.pkl"))) as file:
                return _pickled_in(file)
    except (BadZipFile, StopIteration):
        with path.open("rb") as file:
            return _pickled_in(file)


def _pickled_in(file: IO[bytes]) -> str:
    """What pickles hold: weights, or a model, whose parameters are those of modules."""
    import pickletools

    names: list[str] = []
    try:
        for _ in range(5):  # the older format has the version and the system before
            names += [str(arg) for op, arg, _ in pickletools.genops(file) if op.name == "GLOBAL"]
    except (ValueError, IndexError, UnicodeDecodeError):  # the end
        pass
    if "torch._utils _rebuild_parameter" in names:
        objects = [name for name in names if name.split()[0] not in _OF_TENSORS]
        what = (
            f"a pickled {printable('.'.join(objects[0].split()))}, and to unpickle is to run code"
        )
        return f"{what}; give its code, {_SOURCE}, or a function of your own that loads it"
    return _WEIGHTS if names else f"nothing that torch knows; give the code of a model, {_SOURCE}"
