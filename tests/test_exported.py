"""An exported program: it is its model, and nothing in its file is run."""

import io
import json
import logging
import os
import pickle
import warnings
import zipfile
from importlib.util import find_spec

import pytest
import torch
from architectures import mobilenet_v2, unet
from torch import nn
from torch.nn import functional as F  # noqa: N812

from dscalc import DscalcError
from dscalc.pytorch import audit
from dscalc.pytorch.target import target_of

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.skipif(
        not find_spec("torch.export.pt2_archive"), reason="this torch writes another archive"
    ),
]


class Tower(nn.Module):
    """Layers of each kind; the tower runs twice, one layer never."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"), nn.BatchNorm2d(3))
        self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.blur = nn.Parameter(torch.ones(3, 1, 3, 3))
        self.unused = nn.Linear(3, 4)
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x):
        x = self.depthwise(self.tower(self.tower(x))) + self.table.view(1, 3, 1, 1)
        return F.conv2d(x, self.blur, groups=3)


class Recurrent(nn.Module):
    """An LSTM on whole numbers, with a tensor that it makes on its own device."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.lstm = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 4)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.lstm(self.embedding(ids + positions * 0))[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x, *, scale):
        x = self.encoder(x) * scale
        return self.attention(x, x, x)[0]


IMAGE = torch.zeros(1, 3, 32, 32)
MODELS = {
    "shared": (Tower, (IMAGE,), {}),
    "lstm": (Recurrent, (torch.zeros(1, 7, dtype=torch.int64),), {}),
    "attention": (Attention, (torch.zeros(1, 5, 16),), {"scale": torch.ones(1)}),
    "mobilenet_v2": (lambda: mobilenet_v2()[:5], (IMAGE,), {}),
    "unet": (lambda: unet(3), (IMAGE,), {}),
}


def exported(model, args, kwargs=None, dynamic=None, name="net.pt2", *, core=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of LSTMs, and of its own
        program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic)
        torch.export.save(program.run_decompositions() if core else program, name)
    return name


def rows(report):
    """What each row is; a program does not know the class of a module that did not run."""
    return [
        (row.name, row.kind if row.calls else "", row.as_is.cost, row.calls) for row in report.rows
    ]


def reason(*args, audited=None, **options):
    with pytest.raises(DscalcError) as caught:
        target_of(*args, **options).audit(**audited or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What it is.


@pytest.mark.parametrize("name", MODELS)
def test_a_program_has_the_rows_of_its_model_and_brings_its_inputs(name):
    make, args, kwargs = MODELS[name]
    model = make().eval()
    report = target_of(exported(model, args, kwargs)).audit()
    expected = audit(model, *args, named=kwargs)
    assert rows(report) == rows(expected)
    assert report.inputs == expected.inputs
    assert report.notes == expected.notes
    assert report.total.crosscheck == "exact"


def test_a_program_of_core_operators_is_read():
    """Its nodes say which nodes they were made from, operators among them."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    assert rows(target_of(exported(model, (IMAGE,), core=True)).audit()) == rows(
        audit(model, IMAGE)
    )


def test_a_program_tells_the_memory_of_its_model():
    model = Tower().eval()
    report = target_of(exported(model, (IMAGE,))).audit(bits=8)
    memory, expected = report.total.memory, audit(model, IMAGE, bits=8).total.memory
    fields = ("weight_bytes", "peak_bytes", "least_peak_bytes")
    assert [getattr(memory, f) for f in fields] == [getattr(expected, f) for f in fields]
    assert memory.peak_bytes


def test_inputs_may_differ_where_the_program_is_dynamic():
    size = 4 * torch.export.Dim("size", min=2, max=99)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3)).eval()
    file = exported(model, (IMAGE,), dynamic=({2: size, 3: size},))
    report = target_of(file, ["3x60x60"]).audit()
    assert rows(report) == rows(audit(model, (1, 3, 60, 60)))
    said = reason(file, ["3x60x61"])
    assert said.startswith("net.pt2 was exported with 3x32x32 and does not run with 3x60x61 (")
    assert said.endswith("); drop --input, or export it with dynamic_shapes")


class Branches(nn.Module):
    """A nest of inputs, and a branch on values, which no tracer follows."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, batch, *, options):
        x = batch["an image"] * options[0]
        return {"out": torch.cond(x.sum() > 0, self.left, self.right, (x,))}


def test_a_branch_on_values_is_not_known_in_a_program_either():
    model = Branches().eval()
    args = ({"an image": torch.zeros(2, 8), "n": torch.zeros(1)},)
    kwargs = {"options": [torch.ones(1), 3.5, True, "a (b)", None]}
    report = target_of(exported(model, args, kwargs)).audit()
    assert list(report.total.unknown) == ["cond"]
    assert report.params == 144


def test_a_program_exported_in_training_mode_says_so():
    [note] = target_of(exported(Tower().train(), (IMAGE,))).audit().notes[:1]
    assert note == "it was exported in training mode; call eval() before torch.export.export"


@pytest.mark.parametrize(
    ("words", "options", "audited", "said"),
    [
        (["3x48x48"], {}, {}, "was exported with 3x32x32 and does not run with 3x48x48 ("),
        (["3x8x8", "3x8x8"], {}, {}, "takes 3x32x32, got 3x8x8, 3x8x8"),
        (["x=3x8x8"], {}, {}, "takes 3x32x32, got x=3x8x8"),
        ([], {"batch": 2}, {}, "--batch needs --input: net.pt2 brings 3x32x32"),
        ([], {"arguments": {"a": 1}}, {}, "is an exported program and takes no --kwargs"),
        ([], {"dtype": "float16"}, {}, "is an exported program and takes no --dtype"),
        ([], {}, {"block": "separable"}, "is an exported program, which cannot be rewritten; "),
    ],
)
def test_what_a_program_does_not_take_is_one_line(words, options, audited, said):
    file = exported(nn.Conv2d(3, 4, 3).eval(), (IMAGE,))
    assert said in reason(file, words, audited=audited, **options)


def test_a_program_is_one_model(run):
    file = exported(nn.Conv2d(3, 4, 3).eval(), (IMAGE,))
    said = f"error: {file} is an exported program, which is one model; drop :Net\n"
    assert run("model", f"{file}:Net")[::2] == (2, said)


def test_a_file_that_is_no_program_of_this_torch_is_one_line(here):
    with zipfile.ZipFile("net.pt2", "w") as archive:
        archive.writestr("net/models/model.json", '{"schema_version": {"major": 99, "minor": 0}}')
    assert reason("net.pt2").startswith(f"torch {torch.__version__} cannot read net.pt2 (")


# Nothing in it is run.

RUN = "__import__('pathlib').Path('ran').touch()"


class Malicious:
    def __reduce__(self):
        return eval, (RUN,)


def changed(change):
    """Export a small program, and change its file: ``change`` maps a name and bytes to bytes."""
    size = torch.export.Dim("size", min=8, max=512)
    exported(nn.Conv2d(3, 4, 3).eval(), (IMAGE,), dynamic=({2: size, 3: size},), name="plain.pt2")
    with zipfile.ZipFile("plain.pt2") as plain, zipfile.ZipFile("net.pt2", "w") as archive:
        for info in plain.infolist():
            archive.writestr(info.filename, change(info.filename, plain.read(info.filename)))
    return "net.pt2"


def with_text(key, text):
    """Change each text of a key in the program."""

    def walk(value):
        if isinstance(value, dict):
            return {k: text if k == key and v else walk(v) for k, v in value.items()}
        return [walk(each) for each in value] if isinstance(value, list) else value

    def change(name, data):
        is_program = name.endswith(".json") and b"graph_module" in data
        return json.dumps(walk(json.loads(data))) if is_program else data

    return change


def with_pickled_inputs(name, data):
    saved = io.BytesIO()
    torch.save(((Malicious(),), {}), saved)
    return saved.getvalue() if "sample_inputs" in name else data


def with_call_of(function):
    """Have the first operator call a function with the name of a folder."""

    def change(name, data):
        if not (name.endswith(".json") and b"graph_module" in data):
            return data
        program = json.loads(data)
        [node, *_] = program["graph_module"]["graph"]["nodes"]
        node["target"] = "torch.ops.higher_order.wrap"
        node["is_hop_single_tensor_return"] = True
        node["inputs"] = [
            {"name": "", "arg": {"as_operator": function}, "kind": 1},
            {"name": "", "arg": {"as_string": "ran"}, "kind": 1},
        ]
        return json.dumps(program)

    return change


SPELLED = ", ".join(str(ord(letter)) for letter in RUN)
HARMFUL = {
    "pickled inputs": with_pickled_inputs,
    "a size that is a call": with_text("expr_str", RUN),
    "a size that sympy evaluates": with_text("expr_str", f"S('{'%c' * len(RUN)}' % ({SPELLED}))"),
    "a size of an attribute": with_text("expr_str", "Symbol('s0').func('x')"),
    "a name in the source": with_text("name", f"x={RUN}"),
    "an operator that is a function": with_text("target", "torch.os.getcwd"),
    "an operator that opens a file": with_text("target", "torch.ops.aten.from_file.default"),
    "an operator that writes a file": with_text("target", "torch.ops.aten.save.default"),
    "an operator that loads a library": with_text("target", "torch.ops.load_library"),
    "a function that an operator calls": with_call_of("torch.os.makedirs"),
    "names of arguments": with_text("forward_arg_names", [f"x={RUN}"]),
}


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL)
def test_nothing_in_a_program_is_run(change, here):
    said = reason(changed(change))
    assert not (here / "ran").exists()
    assert not list(here.glob("None*"))
    assert any(words in said for words in ("pickled", "could be code", "operator", "cannot read"))


def test_pickled_objects_among_its_constants_are_not_loaded(here):
    exported(Tower().eval(), (IMAGE,), name="plain.pt2")
    config = {"path_name": "opaque_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    with zipfile.ZipFile("plain.pt2") as plain, zipfile.ZipFile("net.pt2", "w") as archive:
        for info in plain.infolist():
            data = plain.read(info.filename)
            if info.filename.endswith("constants_config.json"):
                data = json.dumps({"config": {"table": config}})
            archive.writestr(info.filename, data)
        archive.writestr("plain/data/constants/opaque_0", pickle.dumps(Malicious()))
    reason("net.pt2")
    assert not (here / "ran").exists()


def test_the_command_line_refuses_pickled_inputs_in_one_line(run, here):
    done = run("model", changed(with_pickled_inputs))
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "error: net.pt2 holds pickled code; if you trust it, load it in a function of your own: "
        "torch.export.unflatten(torch.export.load('net.pt2'))\n"
    )
    assert not (here / "ran").exists()


def test_torch_itself_would_have_run_it(here, monkeypatch):
    changed(with_pickled_inputs)
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") is None
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # one message is broken
    torch.export.load("net.pt2")
    assert (here / "ran").exists()
