"""What some 1,600 command lines print: kept before a change of structure, compared after it.

    python docs/tools/same_output.py keep before.jsonl
    python docs/tools/same_output.py compare before.jsonl

Each runs in this process, and some also as a process of their own. The net holds stdout, stderr and
the exit code byte for byte; paths, versions, times and what a machine decides are left out.
"""

import difflib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from looks import LOOKS

from dscalc.cli import main

WIDTHS = (40, 60, 80, 120)
_WIDEST = 300  # characters of a line that differs
FORMATS = ("json", "jsonl", "csv", "markdown")

FILES = {
    "models.py": """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*[
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(3)
        ])
        self.wide = nn.Conv2d(width, 2 * width, (1, 5), stride=2, groups=2)
        self.up = nn.ConvTranspose2d(2 * width, 8, 2, 2)
        self.head = nn.Linear(8, 10)
        self.idle = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.up(self.wide(self.blocks(self.norm(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 32, 8, 8)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(32, 5)

    def forward(self, image):
        return self.head(self.encoder(self.conv_proj(image).flatten(2).mT).mean(1))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1000, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.fc = nn.Linear(32, 4)

    def forward(self, tokens):
        return self.fc(self.lstm(self.embed(tokens))[0])


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return torch.fft.rfft2(self.conv(x)).abs()


class Decides(Unknown):
    def forward(self, x):
        return self.conv(x) if x.sum() > -1e9 else x


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Linear(32, 8)

    def forward(self, image, mask):
        return self.a(image).sum() + self.b(mask).sum()


class Fails(Unknown):
    def forward(self, x):
        return self.conv(x).view(3, 7)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(40))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def inputs():
    return {"image": torch.ones(2, 3, 8, 8), "mask": torch.ones(2, 32)}


def shared():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), conv)


net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 256, 3, stride=2))
number = 3
""",
    "net.csv": """# A small network, made up
name,kind,in_channels,out_channels,kernel_size,stride,groups,bias,norm,input_size,from,repeat
stem,conv,3,32,3,2,,,true,64,,
a,separable,,64,3,,,,each,,,2
b,inverted:4,,64,3,,,,each,,,
c,conv,,64,1,,,,,,,
d,conv,,64,3,,,true,,,c+b,
e,conv,,64,3,,4,,,,,
pool,pool,,,global,,,,,,,
fc,linear,,10,,,,true,,,,
""",
    "wrong.csv": """name,kind,in_channels,out_channels,kernel_size,input_size
a,conv,3,32,3,64
b,convv,,32,3,
c,conv,,,3,
d,conv,,32,x,
""",
    "net.jsonl": """
{"kind": "conv", "in_channels": 3, "out_channels": 8, "kernel_size": 3, "input_size": 32}
{"kind": "transposed", "out_channels": 4, "kernel_size": 2, "stride": 2, "padding": 0}
{"kind": "upsample", "scale": 2}
{"kind": "depthwise", "kernel_size": 3, "depth_multiplier": 2}
{"kind": "norm"}
""",
    "budgets.toml": """
[[check]]
name = "half"
run = "network mobilenet_v1 --width-multiplier 0.5"
assert = ["macs <= 150M", "params <= 1.3M"]

[[check]]
name = "stem"
run = "3 32 3 224 --stride 2"
assert = "separable_macs <= 2M"

[[check]]
name = "every size"
run = "network mobilenet_v2 --input-size 96:224:32"
assert-each = "macs <= 0.31G"

[[check]]
run = "model models.py:Net --input 3x32x32"
assert = ["macs <= 5M", "nothing <= 3"]

[[check]]
name = "unknown"
run = "model models.py:Unknown --input 3x16x16"
assert = ["macs <= 5M", "params <= 1K"]

[[check]]
name = "none left"
run = "3 8:64:8 3 56 --where 'out_channels >= 100'"
assert = "mac_ratio <= 1"

[[check]]
name = "gone"
run = "network nothere"
assert = "macs <= 3"

[[check]]
name = "against main"
run = "network net.csv"
baseline = "net.json"
assert = "macs <= 1.05 * baseline"
""",
    "fine.toml": """
[[check]]
name = "half"
run = "network mobilenet_v1 --width-multiplier 0.5"
assert = "macs <= 150M"
""",
    "broken.toml": """
[[check]]
name = 3
run = "network mobilenet_v1 -f json"
assert = "macs <= 150M"
colour = "red"
""",
}
# Reports that the net itself writes first, as baselines.
WRITTEN = {
    "net.json": "network net.csv",
    "v1.json": "network mobilenet_v1",
    "model.json": "model models.py:Net --input 3x32x32",
    "flops.json": "network net.csv --unit flops",
    "top.json": "network net.csv --top 2",
}

LAYERS = """
3 64 3 224
512 512 3 14
512 512 3
64 128 5 28 --stride 2
96 96 7x3 56 --bias
8 16 1 7
1 32 3 28
16 1 3 28
64 64 3 14 -m 2
64 64 3 14 -p valid -b 8
64 64 3 14 --as spatial
64 64 3 14 --as bottleneck
64 64 3 14 --as grouped:8
64 64 3 14 --as inverted:6 --bias
64 64 3 14 --as fused
64 64 3 14 --as convnext
64 64 3 14 --as blueprint
8 16 3x3x3 9
8 16 3 9 --dims 1
64 64 3 14 --groups 4
64 64 3 14 --dilation 2 --depthwise-bias
64 64 9 4
64 128 3 14 --width-multiplier 0.5
64 64 3 14 --unit flops
64 64 3 14 --work
64 64 3 14 --no-verify
64 64 3 14 -q -v
100000 100000 3 1000
3x1 4 3 5
64 64 3 14 --cite
64 64 3 14 --explain 0.9M
64 64 3 14 --explain 5M
64 64 3 14 --explain 1024
64 64 3 14 --explain 7.2M
"""
GRIDS = """
64 32:256:x2 3,5 14
64 32:64:8 3 14 --verify
3,64 64 3 14,28x20
8:64:8 8 3 7 --bias
64 32:256:x2 3,5 14 --sort mac_ratio
64 32:256:x2 3,5 14 --top 3 --sort separable_macs
64 32:256:x2 3 14 --where 'mac_ratio <= 0.12'
64 32:256:x2 3 14 --where 'mac_ratio < 0'
64 32:256:x2 3,5 14 --sort name --reverse
64 8,12,16 3 14 --as grouped:8
8,16 9,7 3 4 --top 2
64 32:256:x2 3 14 --assert 'mac_ratio <= 0.12'
64 32:256:x2 3 14 --assert 'mac_ratio <= 1'
64 32:256:x2 3 14 --assert-each 'mac_ratio <= 1' --unit flops
1 2:40 1 3 --assert 'mac_ratio < 0'
64 32 3 14 --where 'mac_ratio <= 1'
64 32,40 3 --stride 2
5,7 5,7 3,4 5,6 --sort kernel_size
"""
BLOCKS = """
256 256 3 56
64 128 3 56 --stride 2
64 64 3 28 --only inverted --work
7 64 3 28
64 64:256:x2 3 28
64 64 3 28 --only separable,bottleneck:4
64 64 3
8 8 3 14 --verify --bias
64 64 3 28 --sort params
64 64,128 3 28 --where 'mac_ratio <= 0.2'
64 64 3x3x3 8 --unit flops
64 64 3 28 --assert 'macs <= 20M'
7 5 3 4 --only grouped:2
64 64 3 28 --top 3
"""
NETWORKS = """
mobilenet_v1
mobilenet_v2 --as separable
resnet50 --as separable
vgg16 --no-verify
xception --no-verify
convnext_tiny --no-verify
net.csv
net.jsonl
net.csv --as separable
net.csv --as separable --only 'd*'
net.csv --as separable --except stem
net.csv --bias -b 2
net.csv --sort macs --top 3
net.csv --where 'macs >= 1M'
net.csv --where 'macs < 0'
mobilenet_v1 --width-multiplier 0.5 --input-size 160
mobilenet_v1 mobilenet_v2
net.csv vgg16 --sort macs
mobilenet_v1 --width-multiplier 0.5,1 --input-size 128:224:32
net.csv --input-size 32,64x48 --verify
net.csv --unit flops
net.csv --baseline net.json
net.csv --width-multiplier 2 --baseline net.json
mobilenet_v1 --width-multiplier 0.75 --baseline v1.json
net.csv --baseline mobilenet_v1 --no-verify
net.csv --baseline flops.json
net.csv -b 2 --baseline net.jsonl
net.csv --baseline net.csv --unit flops
net.csv --assert 'macs <= 1.05 * baseline' --baseline net.json
net.csv --assert 'macs <= 1K'
net.csv --assert-each 'macs <= 1M' --assert-each 'params <= 1'
net.csv --as separable --assert 'mac_ratio <= 1'
mobilenet_v1 --explain 569M
mobilenet_v1 --explain 1.1G --unit flops
mobilenet_v1 --explain 5M
net.csv --cite
resnet50 --explain 3.8G
resnet50 --explain 4.1
resnet50 --explain 25,549,352
mobilenet_v1 --cite --no-verify
mobilenet_v1 -q --assert 'macs <= 1'
net.csv --resolution-multiplier 0.5 --dims 2
"""
MODELS = """
models.py:Net --input 3x32x32
models.py:Net --input 3x32x32 --as spatial
models.py:net --input 3x32x32 -b 4
models.py:Net --input 3x32x32 --sort params
models.py:Net --input 3x32x32 --sort macs --top 2
models.py:Net --input 3x32x32 --depth 1
models.py:Net --input 3x32x32 --where 'macs >= 1M'
models.py:Net --input 3x32x32 --only 'blocks*'
models.py:Net --input 3x32x32 --except stem --unit flops
models.py:Net --input 3x32x32 --kwargs '{"width": 32}' --baseline model.json
models.py:Net --input 3x32x32 --baseline model.json
models.py:Attention --input 3x32x32
models.py:Text --input 12:int64
models.py:Unknown --input 3x16x16
models.py:Decides --input 3x16x16
models.py:Two --inputs models.py:inputs
models.py:Two --input image=3x9x9 --input mask=32
models.py:shared --input 8x9x9
models.py:net models.py:Net --input 3x32x32
models.py:net models.py:Unknown --input 3x32x32
models.py:Plain --input 8x9x9
models.py:Plain --input 8x9x9 --depth 1 --no-verify
models.py:Net --input 3x32x32 --no-verify
models.py:net --input 3x32x32 --assert 'macs <= 30M'
models.py:Net --input 3x32x32 --assert-each 'macs <= 1M'
models.py:net --input 3x32x32 --peers
models.py:Attention --input 3x32x32 --peers
models.py:Net --input 3x32x32 --cite
models.py:net --input 3x32x32 --explain 35M
models.py:net --input 3x32x32 --explain 34.95M
models.py:net --input 3x32x32 --explain 999
models.py:net --input 3x32x32 --dtype float16
models.py:Unknown --input 3x16x16 --assert 'macs <= 5M'
models.py:Net --input 3x32x32 --backward
models.py:Attention --input 3x32x32 --backward --unit flops
models.py:Unknown --input 3x16x16 --backward
models.py:net models.py:Net --input 3x32x32 --backward
"""
FIELDS = """
3 64 3 224: mac_ratio separable_macs mac_ratio_exact kernel_size crosscheck fvcore_separable_macs
64 32:64:8 3 14: out_channels mac_reduction depthwise_params standard_bytes separable_intensity
blocks 64 64 3 28: name macs closed_form steps param_ratio fvcore_macs
network net.csv: macs params standard_macs mac_ratio activations torch_params share name
network net.csv --rows: name kept kind share stride padding
network net.csv vgg16: name macs width_multiplier
network net.csv --baseline v1.json: baseline_macs macs_difference params
model models.py:Net --input 3x32x32: macs separable_macs params torch_macs mac_ratio crosscheck
model models.py:Net --input 3x32x32 --rows: name kind kept calls output_size
model models.py:Unknown --input 3x16x16: macs params
"""
CHECKS = """
budgets.toml
budgets.toml -q
budgets.toml -v
fine.toml
fine.toml -v
broken.toml
gone.toml
"""
COMMANDS = ("compare", "blocks", "network", "model", "bench", "check")
HELP = ["", "--help", "-h", *(f"{name} --help" for name in COMMANDS)]
ERRORS = """
3 64
3 64 3 0
3 64 -3 4
a 64 3 4
3 64 3 4 5
3 64 3 224 224
64:32 64 3 4
64:32:x1 3 3 3
64,128 3 3x3x3 7x7
5 5 5x5x5 12x12x5
1,024 64 3 14
3 64 99 4 -p valid
6 64 3 4 --groups 4
3 64 3 4 --dims 4
3 64 3 4 --as nothing
3 64 3 4 --as separabel
3 64 3 4 --as grouped
3 64 3 4 --as grouped:7
3 64 3 4 --as standard
3 64 3 4 --as all
3 64 3 4 --as separable:2:3
3 64 3 4 -m 0
3 64 3 4 -m 2 --as spatial
3 64 3 4 --as spatial --depthwise-bias
3 64 3 4 --get nothing
3 64 3 4 --get ratio
3 64 3 4 --get macs
3 64 3 4 --get separable_flops
3 64 3 4 --get fewer --unit flops
3 64 3 4 --get fvcore_standard_macs --no-verify
3 64 3 4 --get mac_ratio -f json
3 64 3 4 --rows
3 64 3 4 --reverse
3 64 3 4 --assert nonsense
3 64 3 4 --assert 'name <= 3'
3 64 3 4 --assert 'mac_ratio <= x'
3 64 3 4 --assert 'mac_ratio <= baseline'
3 64 3 4 --where 'mac_ratio <= 2 * baseline'
3 64 3 4 --where 'mac_ratio = 1'
3 64 3 4 --sort mac_rati
3 64 3 4 --top x
3 64 3 4 --top 0
3 64 3 4 --stride x
3 64 3 4 --stride 0
3 64 3 4 --padding same,valid
3 64 3 4 --padding -1
3 64 3 4 --batch 0
3 64 3 4 -b two
3 64 3 4 --width-multiplier 0
3 64 3 4 --width-multiplier 0.5,1
3 64 3 4 --resolution-multiplier x
3 64 3 4 --width-multiplier 1/0
3 64 3 4 --format xml
3 64 3 4 --unit mac
3 64 3 4 -o file.xyz
3 64 3 4 -o
3 64 3 4 --nothing
3 64 3 4 --pad 1
3 64 3 4 --input 3
3 64 3 4 --baseline x
3 64 3 4 --plot a.png
3 64,32 3 4 --plot a.gif
3 64,32 3 4 --cite
3 64,32 3 4 --work
3 64,32 3 4 --explain 3
3 64 3 4 --explain x
3 64 3 4 --explain -3
3 64 3 4 --explain 3 --cite
3 64 3 4 --cite -f json
3 64 3 4 --explain 3 -f csv
3 64 3 4 --explain 3 --get macs
3 64 3 4 -b 2 --explain 3
3 64 3 4 --explain 4.1Q
1:200 1:200 3 14
1:200 1:200 3 14 --sort mac_ratio
1:100000 1:100000 3 14
1:200 1:200 3 14 --plot a.png -f csv
nothing
bloch
help
resnet50
net.csv
models.py:Net
-5 3
--nothing
compare
compare 3
blocks 3 64
bench 3 64 3 4 --nothing
blocks 3 64 3 4 --only nothing
blocks 3 64 3 4 --only grouped:5
blocks 3 64,8 3 4 --work
blocks 3 64 3 4 --as separable
blocks 3 64 3 4 --get nothing
network
network nothere
network mobilenetv1
network wrong.csv
network models.py
network net.csv --as nothing
network net.csv --only zzz
network net.csv --input-size 0
network net.csv --input-size 3x3x3
network net.csv --baseline gone.json
network net.csv --baseline v1.json vgg16
network net.csv --baseline wrong.csv
network net.csv --baseline model.json
network net.csv --baseline top.json
network net.csv --as separable --baseline net.json
network net.csv --baseline net.json --sort macs
network net.csv --baseline net.json --explain 3
network net.csv --assert 'macs <= 2*baseline'
network net.csv --baseline models.py
network net.csv --assert-each 'macs <= baseline' --baseline net.json
network net.csv --get separable_macs
network net.csv --get flops
network net.csv --show vgg16
network net.csv --show --as separable
network vgg16 net.csv --explain 3
network --list extra
network - -
network net.csv --get mac_reduction,macs
model
model nothere
model models.py
model models.py:Nothing
model models.py:number
model models.py:Net
model models.py:Net --input 3
model gone.py:Net --input 3
model models.py:Net --input 3x32
model models.py:Net --input 3x32x32:float
model models.py:Net --input 3,32,32
model models.py:Net --input x=3x32x32
model models.py:Net --input =3
model models.py:Net --input 3x32x32 --kwargs 3
model models.py:Net --input 3x32x32 --kwargs '{"wdth": 3}'
model models.py:net --input 3x32x32 --kwargs '{"a": 3}'
model models.py:Net --input 3x32x32 --as standard
model models.py:Net --input 3x32x32 --only zzz
model models.py:Net --input 3x32x32 --depth x
model models.py:Fails --input 3x16x16
model models.py:Net --inputs models.py:inputs --input 3
model models.py:Two --inputs models.py:Net
model models.py:Two --inputs models.py:gone
model models.py:Two --input 3x9x9
model models.py:Net models.py:net --input 3x32x32 --depth 1
model models.py:net models.py:Fails --input 3x32x32
model models.py:Unknown --input 3x16x16 --explain 3
model models.py:Unknown --input 3x16x16 --cite
model models.py:Net --input 3x32x32 --baseline net.json
model models.py:Net --input 3x32x32 --peers --unit flops
model models.py:Net --input 3x32x32 --peers --explain 3
model models.py:net models.py:Net --input 3x32x32 --peers
check broken.toml
check gone.toml
check models.py
check fine.toml -f xml
check fine.toml --get macs
check fine.toml fine.toml
bench 3 64
bench 3 64 3 4 --threads 0
bench 3 64 3 4 --min-run-time 0
bench 3 64 3 4 --device tpu
bench 3 64 3 4 --get nothing
bench 3 64 3 4 --plot a.png
"""
PLOTS = """
64 32:1024:x2 3,5 14 --plot plot.svg
3,64 64 3 8:64:8 --plot plot.svg
64 64 3,3x5,7 14 --plot plot.svg
blocks 64 64 3 28 --plot plot.svg
blocks 64 64:256:x2 3 28 --plot plot.svg
network mobilenet_v1 --plot plot.svg
network net.csv --as separable --plot plot.svg
network mobilenet_v1 mobilenet_v2 resnet50 --plot plot.svg
network mobilenet_v1 mobilenet_v2 --input-size 128:224:32 --plot plot.svg
network net.csv --baseline v1.json --plot plot.svg
model models.py:Net --input 3x32x32 --plot plot.svg
3 64,32 3 4 --get mac_ratio --plot plot.svg
3 64,32 3 4 -f csv -o file.csv --plot plot.svg
network net.csv -o file.json
3 64 3 4 -o file.md
network net.csv -o file.txt --assert 'macs <= 3'
"""


class Line(NamedTuple):
    """A command line, the width of its terminal, and whether it is a process of its own."""

    args: str
    columns: int = 80
    process: bool = False


class Printed(NamedTuple):
    """What a command line left behind; files by their names."""

    code: int
    stdout: str
    stderr: str
    files: dict[str, str]


def lines() -> Iterator[Line]:
    """Every command line of the net."""
    groups = {"": LAYERS + GRIDS, "blocks ": BLOCKS, "network ": NETWORKS, "model ": MODELS}
    groups["check "] = CHECKS
    answered = ["check"]
    answered += [command + args for command, group in groups.items() for args in _each(group)]
    for args in answered:
        yield from (Line(args, columns) for columns in WIDTHS)
        yield from (Line(f"{args} -f {form}") for form in FORMATS)
    for args in ("3 64 3 224", "64 8:64:8 3 14", "blocks 256 256 3 56", "network net.csv", "check"):
        yield Line(f"{args} -f svg")
    for line in _each(FIELDS):
        args, _, names = line.rpartition(": ")
        yield from (Line(f"{args} --get {name}") for name in names.split())
        yield Line(f"{args} --get {names.replace(' ', ' --get ')}")
    for args in HELP:
        yield from (Line(args, columns) for columns in (80, 120))
    for args in ("network --list", "network net.csv --show", "network resnet50 --show"):
        yield Line(args)
    yield from map(Line, [*_each(ERRORS), *_each(PLOTS)])
    for args in [*answered[::3], *HELP[:3], *[*_each(ERRORS)][::8]]:
        yield Line(args, process=True)


def _each(group: str) -> list[str]:
    return group.strip().splitlines()


def printed(line: Line) -> Printed:
    """What a command line prints, here and now."""
    args = shlex.split(line.args)
    os.environ["COLUMNS"] = str(line.columns)
    before = set(Path().iterdir())
    if line.process:
        command = [sys.executable, "-m", "dscalc", *args]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        code, said = done.returncode, [done.stdout, done.stderr]
    else:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            code = main(args)
        for stream in streams:
            stream.seek(0)
        said = [stream.read() for stream in streams]
    files = {}
    for path in sorted(set(Path().iterdir()) - before):
        if path.is_file() and path.name not in WRITTEN:
            files[path.name] = _plain(path.read_text("utf-8"))
            path.unlink()
    return Printed(code, *map(_plain, said), files)


def _plain(text: str) -> str:
    """The text without paths, versions and lines of code."""
    text = re.sub(r"(Traceback .*\n)(?:[ +].*\n)+", r"\1", text)
    text = text.replace(str(Path.cwd()), "HERE")
    text = re.sub(r"(torch|fvcore|dscalc|[Mm]atplotlib) v?\d[\w.+]*", r"\1 VERSION", text)
    return re.sub(r'"version": "[^"]*"', '"version": "VERSION"', text)


def kept() -> dict[str, list[object]]:
    """What every line prints, in a folder of its own."""
    for name in LOOKS:
        os.environ.pop(name, None)
    os.environ |= {"LINES": "25", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    with TemporaryDirectory() as folder, chdir(folder):
        for name, text in FILES.items():
            Path(name).write_text(text, encoding="utf-8")
        for name, args in WRITTEN.items():
            printed(Line(f"{args} -o {name}"))
        return {json.dumps(line): list(printed(line)) for line in dict.fromkeys(lines())}


def net(args: list[str]) -> int:
    """Keep what is printed now, or compare it with what was kept."""
    if len(args) != 2 or args[0] not in ("keep", "compare"):
        sys.stderr.write(__doc__ or "")
        return 2
    file, now = Path(args[1]), kept()
    if args[0] == "keep":
        file.write_text("".join(f"{json.dumps(each)}\n" for each in now.items()), "utf-8")
        sys.stdout.write(f"kept {len(now):,} command lines\n")
        return 0
    before = dict(json.loads(each) for each in file.read_text("utf-8").splitlines())
    differ = {line: (before.get(line), found) for line, found in now.items()}
    differ = {line: both for line, both in differ.items() if both[0] != both[1]}
    for line, both in differ.items():
        texts = ["\n".join(map(_laid_out, printed or ())).splitlines() for printed in both]
        sys.stdout.write(f"\n=== {line}\n")
        for part in difflib.unified_diff(*texts, "before", "now", lineterm="", n=1):
            sys.stdout.write(f"{part[:_WIDEST]}\n")
    sys.stdout.write(f"{len(differ):,} of {len(now):,} command lines differ\n")
    return 1 if differ else 0


def _laid_out(part: object) -> str:
    return part if isinstance(part, str) else json.dumps(part, indent=0)


if __name__ == "__main__":
    sys.exit(net(sys.argv[1:]))
