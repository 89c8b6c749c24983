"""What people type who do not know dscalc yet: one line that names the fix, which then works."""

import re
import shlex
import sys
from types import ModuleType

import architectures
import pytest

from dscalc.commands.meant import names_in

MODELS = """
from torch import nn
import os, torch

class Net(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(900 * width, 10))

class _Hidden(nn.Module):
    pass

def net():
    return Net()

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, 8), nn.LSTM(8, 4)
    def forward(self, ids):
        return self.linear(self.embedding(ids))[0]

TINY = Net(2)
"""
UNRELATED = (
    "kind,in_channels,out_channels,kernel_size,input_size\nconv,3,8,3,9\nconv,256,256,3,14\n"
)
BUDGETS = "[[check]]\nrun = '3 64 3 224'\nassert = 'mac_ratio < 1'\n"


@pytest.fixture
def here(here, monkeypatch):
    """A folder with a file of each kind, and a library that has ResNet-50."""
    (here / "models.py").write_text(MODELS)
    (here / "mynet.csv").write_text(UNRELATED)
    (here / "budgets.toml").write_text(BUDGETS)
    monkeypatch.delitem(sys.modules, "models", raising=False)
    library = {"torchvision": ModuleType(""), "torchvision.models": architectures}
    for name, module in library.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield
    sys.modules.pop("models", None)


# What is typed, what of the error is the fix, and the command line with it.
LAYER, NET = "3 64 3 224", "model models.py:Net --input 3x32x32"
STRANGERS = [
    # Options of other tools, and of other commands.
    (f"{LAYER} --json", "did you mean -f json?", f"{LAYER} -f json"),
    (f"{NET} --csv", "did you mean -f csv?", f"{NET} -f csv"),
    (f"{LAYER} --format=JSON", "did you mean json?", f"{LAYER} --format=json"),
    (f"{LAYER} -f=json", "did you mean json?", f"{LAYER} -f json"),
    (f"{LAYER} -f md", "did you mean markdown?", f"{LAYER} -f markdown"),
    (f"{NET} --flops", "did you mean --unit flops?", f"{NET} --unit flops"),
    (f"{NET} --gflops", "did you mean --unit flops?", f"{NET} --unit flops"),
    (f"{LAYER} --GMACs", "did you mean --unit macs?", f"{LAYER} --unit macs"),
    (f"{LAYER} --unit GFLOPs", "did you mean flops?", f"{LAYER} --unit flops"),
    (f"{LAYER} --depthwise", "did you mean --as separable?", f"{LAYER} --as separable"),
    (f"blocks {LAYER} --fused", "did you mean --only fused?", f"blocks {LAYER} --only fused"),
    (f"{NET} --batch-size 8", "did you mean --batch?", f"{NET} --batch 8"),
    ("model models.py:Net --input-size 3x32x32", "did you mean --input?", NET),
    ("model models.py:Net -input 3x32x32", "did you mean --input?", NET),
    (
        "network vgg16 --input_size 64",
        "did you mean --input-size?",
        "network vgg16 --input-size 64",
    ),
    (
        "network vgg16 --alpha 0.5",
        "did you mean --width-multiplier?",
        "network vgg16 --width-multiplier 0.5",
    ),
    (f"{LAYER} --input-size 224", "such as 3 64 3 224?", LAYER),
    (f"{NET} --params", "did you mean --get params?", f"{NET} --get params"),
    (f"{NET} --fp16", "did you mean --dtype float16?", f"{NET} --dtype float16"),
    (f"{NET} --dtype half", "did you mean float16 or bfloat16?", f"{NET} --dtype float16"),
    (
        f"{NET} --max-macs 600M",
        "did you mean --assert 'macs <= 600M'?",
        f"{NET} --assert 'macs <= 600M'",
    ),
    (f"{LAYER} --bias=1", "give --bias or --no-bias", f"{LAYER} --bias"),
    (
        f"{LAYER} -w 2",
        "did you mean --work or --width-multiplier or --where?",
        f"{LAYER} --width-multiplier 2",
    ),
    # Words in the wrong place.
    ("help", "did you mean dscalc --help?", "--help"),
    ("help model", "did you mean dscalc model --help?", "model --help"),
    ("version", "did you mean dscalc --version?", "--version"),
    (f"{LAYER} stride 2", "did you mean --stride 2?", f"{LAYER} --stride 2"),
    ("3x64x3x224", "did you mean dscalc compare 3 64 3 224?", "compare 3 64 3 224"),
    ("3, 64, 3, 224", "IC 3, ends in a comma; write 3", LAYER),
    ("compare vgg16", "did you mean dscalc network vgg16?", "network vgg16"),
    ("compare vgg16 unet 3", "did you mean dscalc network vgg16?", "network vgg16 unet"),
    # A model that is no MODULE:ATTR, and files of other commands.
    ("model models.py:Net 3x32x32", "did you mean --input 3x32x32?", NET),
    ("model models.py:Net 1x3x32x32", "did you mean --input 3x32x32?", NET),
    ("model models.py:Net '(1, 3, 32, 32)'", "did you mean --input 3x32x32?", NET),
    ("model models.py:Net \N{EM DASH}input 3x32x32", "did you mean --input?", NET),
    (
        "model models.py --input 3x32x32",
        "did you mean models.py:Net or models.py:Tokens or models.py:net?",
        NET,
    ),
    (
        "model models.Net --input 3x32x32",
        "did you mean models:Net?",
        "model models:Net --input 3x32x32",
    ),
    (
        "model resnet50 --input 3x64x64",
        "did you mean torchvision.models:resnet50 or dscalc network resnet50?",
        "model torchvision.models:resnet50 --input 3x64x64",
    ),
    (
        "network vit_b_16",
        "did you mean dscalc model torchvision.models:vit_b_16 --input 3x224x224?",
        "model torchvision.models:vit_b_16 --input 3x224x224",
    ),
    ("model mynet.csv", "did you mean dscalc network mynet.csv?", "network mynet.csv"),
    ("check mynet.csv", "did you mean dscalc network mynet.csv?", "network mynet.csv"),
    (
        "network models.py:net",
        "did you mean dscalc model models.py:net?",
        "model models.py:net --input 3x32x32",
    ),
    ("network models.py", "did you mean dscalc model models.py:Net?", NET),
    ("network budgets.toml", "did you mean dscalc check budgets.toml?", "check budgets.toml"),
    ("budgets.toml", "did you mean dscalc check budgets.toml?", "check budgets.toml"),
    ("network MobileNetV1", "did you mean mobilenet_v1?", "network mobilenet_v1"),
    # A batch axis that is given, and other shapes.
    ("model models.py:Net --input 1x3x32x32", "no batch axis: give --input 3x32x32", NET),
    (
        "model models.py:Net --input 8x3x32x32",
        "no batch axis: give --input 3x32x32 --batch 8",
        f"{NET} --batch 8",
    ),
    ("model models.py:Net --input '(1,3,32,32)'", "write 3x32x32", NET),
    ("model models.py:Net --input 3,32,32", "write 3x32x32", NET),
    ("model models.py:Net --input 32x32x3", "channels come first: give --input 3x32x32", NET),
    (
        "model models.py:Tokens --input 1x7:int64",
        "no batch axis: give --input 7:int64",
        "model models.py:Tokens --input 7:int64",
    ),
    ("network vgg16 --input-size 3x64x64", "write 64x64", "network vgg16 --input-size 64x64"),
    (f"{LAYER} --stride 2,2", "write 2x2", f"{LAYER} --stride 2x2"),
    # Values.
    (f"{LAYER} --as depthwise", "did you mean separable?", f"{LAYER} --as separable"),
    (f"{LAYER} --as separable=2", "did you mean separable:2?", f"{LAYER} --as separable:2"),
    (f"{NET} --kwargs width=4", """write '{"width": 4}'""", f"""{NET} --kwargs '{{"width": 4}}'"""),
    (
        f"{NET} --kwargs \"{{'width': 4}}\"",
        """write '{"width": 4}'""",
        f"""{NET} --kwargs '{{"width": 4}}'""",
    ),
    # Fields and conditions.
    (f"{NET} --get MACs", "did you mean macs?", f"{NET} --get macs"),
    (
        f"{NET} --get FLOPs",
        "did you mean flops with --unit flops?",
        f"{NET} --get flops --unit flops",
    ),
    (f"{NET} --get frobs", "-f json shows every field", f"{NET} -f json"),
    (f"{NET} --sort -macs", "did you mean macs?", f"{NET} --sort macs"),
    (f"{NET} --assert 'macs =< 9M'", "write 'macs <= 9M'", f"{NET} --assert 'macs <= 9M'"),
    (f"{NET} --assert macs=9M", "write 'macs==9M'", f"{NET} --assert 'macs==9M'"),
    (f"{NET} --assert 'macs < 9 MMACs'", "write 9M", f"{NET} --assert 'macs < 9M'"),
]


@pytest.mark.parametrize(("typed", "says", "fixed"), STRANGERS, ids=[one for one, *_ in STRANGERS])
def test_a_mistake_is_one_line_whose_fix_works(typed, says, fixed, here, run):
    result = run(*shlex.split(typed))
    assert (result.code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.removesuffix("; see dscalc compare --help").endswith(says)
    fix = re.sub(r".*(did you mean|write|give|such as) ", "", says).removesuffix("?")
    ways = re.split(" or | with | shows ", fix)
    assert any(way in f"dscalc {fixed}" for way in ways)
    assert run(*shlex.split(fixed)).code in (0, 1)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (f"{NET} --get macs,params", "'macs,params' is not one field; give macs and params each a"),
        (f"{NET} --depth full", "--depth, if it is not all, must be a whole number such as 2, got"),
        (f"{NET} --top 5%", "--top must be a whole number such as 10, got '5%'"),
        (
            "blocks 8 8 3 9 --only fused spatial",
            "got unexpected extra argument(s) (spatial); a laye",
        ),
        ("check a.toml b.toml", "got unexpected extra argument(s) (b.toml); give one file; see"),
        (
            "model",
            "missing argument 'MODULE:ATTR...'; a model is MODULE:ATTR, such as mymodels.py:",
        ),
        ("network", "missing argument 'NAME|FILE|-...'; dscalc network --list names those that s"),
        ("resnet18", "no such command 'resnet18'; a layer is IC OC F [D], such as 3 64 3 224; a m"),
        ("network resnet34", "no network or file named 'resnet34'; choose from alexnet, convnext_"),
        ("network mynt.csv", "no network or file named 'mynt.csv'; did you mean mynet.csv?"),
        (f"{LAYER} --frob", "no such option: --frob; see dscalc compare --help"),
    ],
)
def test_a_mistake_of_another_kind_names_the_rule(typed, says, here, run):
    result = run(*shlex.split(typed))
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(says)


@pytest.mark.parametrize("args", ["network vgg16 --width-multiplier 0.25:1:0.25 --get macs"])
def test_a_range_of_multipliers_is_read_with_both_ends(args, run):
    """As a list of them is."""
    listed = run(args.replace("0.25:1:0.25", "0.25,0.5,3/4,1"))
    assert run(args) == listed
    assert len(listed.stdout.split()) == 4


@pytest.mark.parametrize("text", ["0.25:1", "1:0.5:0.1", "1:2:0", "1:2:1e-4", "1:2:1:1"])
def test_a_range_of_multipliers_has_two_ends_and_a_step(text, run):
    result = run(f"network vgg16 --width-multiplier {text}")
    assert (result.code, result.stdout) == (2, "")
    assert "--width-multiplier must be " in result.error


@pytest.mark.parametrize("command", ["", "blocks "])
def test_a_map_in_the_place_of_the_filter_is_said_and_answered(command, run):
    note = "F is 56 here; if that is D, write IC OC F D, such as 64 64 3 56\n"
    assert note in run(f"{command}64 3 56 --no-verify").stdout
    assert "if that is D" not in run(f"{command}64 3 15 --no-verify").stdout
    assert "if that is D" not in run(f"{command}64 3 56 56 --no-verify").stdout
    assert run("64 64 3 56 --no-verify").code == 0


def test_the_names_of_a_file_are_its_public_ones(here, tmp_path):
    assert names_in("models.py") == ["Net", "Tokens", "net", "TINY"]
    assert names_in("nothere.py") == []
    (tmp_path / "broken.py").write_text("class (\n")
    assert names_in("broken.py") == []
