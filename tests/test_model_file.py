"""Files that hold no Python: what each is, in one line, without unpickling it."""

import pickle
import zipfile

import pytest
import torch
from torch import nn

from dscalc import DscalcError
from dscalc.inputs.model_file import program_file

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
OLD = {"_use_new_zipfile_serialization": False}
WEIGHTS = "weights and no model; give the code of the model, such as mymodels.py:Net"
PICKLED = (
    "a pickled torch.nn.modules.container.Sequential, and to unpickle is to run code; give its "
    "code, such as mymodels.py:Net, or a function of your own that loads it"
)
MADE_FROM = "and no PyTorch model; give the one that it was made from, such as mymodels.py:Net"


class Malicious:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('ran').touch()",)


def compiled(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data/aotinductor/model/net.so", b"")
        archive.writestr("net/models/model.json", "{}")


FILES = {
    "net.onnx": (b"", f"an ONNX graph {MADE_FROM}"),
    "net.TFLITE": (b"", f"a TensorFlow Lite graph {MADE_FROM}"),
    "net.h5": (b"", f"a Keras model {MADE_FROM}"),
    "net.keras": (b"", f"a Keras model {MADE_FROM}"),
    "net.safetensors": (b"", WEIGHTS),
    "net.gguf": (b"", WEIGHTS),
    "net.pth": (lambda file: torch.save(NET.state_dict(), file), WEIGHTS),
    "old.pth": (lambda file: torch.save(NET.state_dict(), file, **OLD), WEIGHTS),
    "last.ckpt": (lambda file: torch.save({"epoch": 1, "state": NET.state_dict()}, file), WEIGHTS),
    "net.pt": (lambda file: torch.save(NET, file), PICKLED),
    "old.pt": (lambda file: torch.save(NET, file, **OLD), PICKLED),
    "net.bin": (b"\x00\x01", "nothing that torch knows; give the code of a model, such as "
                "mymodels.py:Net"),
    "empty.pt": (b"", "nothing that torch knows; give the code of a model, such as "
                 "mymodels.py:Net"),
    "net.pt2": (compiled, "compiled code, which dscalc does not start; save it by "
                "torch.export.save"),
}  # fmt: skip


def reason(target):
    with pytest.raises(DscalcError) as caught:
        program_file(target)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_named_for_what_it_holds(name, here):
    make, holds = FILES[name]
    if callable(make):
        make(name)
    else:
        (here / name).write_bytes(make)
    assert reason(name) == f"{name} holds {holds}"
    assert reason(f"{name}:net") == reason(name)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_script_is_named(here):
    torch.jit.save(torch.jit.trace(NET.eval(), torch.zeros(1, 3, 8, 8)), "net.pt")
    assert reason("net.pt") == (
        "net.pt holds TorchScript; give the nn.Module that it was made from, such as "
        "mymodels.py:Net"
    )


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.ckpt", "net.bin", "net.pkl", "net.pt2"])
@pytest.mark.parametrize("by_torch", [False, True], ids=["a pickle", "by torch.save"])
def test_nothing_is_unpickled_to_find_out(name, by_torch, here):
    if by_torch:
        torch.save({"weight": torch.zeros(1), "more": Malicious()}, name)
    else:
        (here / name).write_bytes(pickle.dumps(Malicious()))
    reason(name)
    assert not (here / "ran").exists()


@pytest.mark.parametrize("target", ["net.py:Net", "pkg.bin:net", "timm:resnet18", "net", "a.pb:x"])
def test_a_module_is_no_file(target, here):
    assert program_file(target) is None


def test_a_file_that_is_not_there_has_a_near_name(here):
    (here / "resnet.onnx").write_bytes(b"")
    assert reason("resnt.onnx") == "there is no file 'resnt.onnx'; did you mean resnet.onnx?"


def test_the_command_line_says_it_in_one_line(run, here):
    (here / "net.onnx").write_bytes(b"")
    assert run("model net.onnx") == (2, "", f"error: net.onnx holds an ONNX graph {MADE_FROM}\n")
