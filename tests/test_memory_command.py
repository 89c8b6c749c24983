"""What people and machines read of memory: fields, the sentence, columns, budgets, a picture."""

import json
import re
import shlex

import pytest
from test_plot import words
from torch import nn

from dscalc.pytorch import audit

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False))
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 1))
        self.aux = nn.Linear(4, 2)
        self.table = nn.Embedding(6, 2)

    def forward(self, x):
        y = self.b(self.a(x))
        return y.mean((2, 3)) @ self.table.weight[:4]


class Autocast(Net):
    def forward(self, x):
        with torch.autocast("cpu"):
            return super().forward(x)


def grouped():
    return nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Identity())


whole = nn.Identity()
double = nn.Sequential(nn.Conv2d(3, 6, 3).double())
"""
NET = "nets.py:Net --input 3x16x16"
MAP = 8 * 16 * 16 * 4
INPUT = 3 * 16 * 16 * 4


@pytest.fixture
def model(run, here):
    (here / "nets.py").write_text(NETS)
    return lambda args, **options: run("model", *shlex.split(args), **options)


def read(result):
    assert (result.code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_a_row_has_the_weights_and_the_peak_of_its_module(model):
    report = read(model(f"{NET} -f json"))
    rows = {row["name"]: row for row in report["rows"]}
    weights = {"a.0": 4 * 224, "a.1": 4 * 16 + 8, "b.0": 4 * 584, "b.2": 4 * 36, "aux": 4 * 10}
    weights["table"] = 4 * 12
    assert {name: row["weight_bytes"] for name, row in rows.items() if name in weights} == weights
    assert report["total"]["weight_bytes"] == sum(row["weight_bytes"] for row in report["rows"])
    # By hand: the input, then the maps that forward and the sequences hold.
    assert {name: row["peak_bytes"] for name, row in rows.items()} == {
        "a.0": INPUT + MAP,
        "a.1": INPUT + 2 * MAP,
        "b.0": INPUT + 2 * MAP,
        "b.2": INPUT + 2 * MAP + MAP // 2,
        "aux": None,  # it does not run
        "table": INPUT + 3 * MAP,  # whose weights the model itself runs
    }
    total = report["total"]
    assert total["peak_bytes"] == INPUT + 3 * MAP
    assert total["peak_at"] == "b.1 gelu"  # which has no row
    assert total["least_peak_bytes"] == 2 * MAP
    assert report["notes"] == ["1 module did not run: aux (10 params)"]


def test_modules_that_are_summed_have_the_peak_of_all_that_runs_in_them(model):
    rows = {row["name"]: row for row in read(model(f"{NET} -f json --depth 1"))["rows"]}
    assert rows["b"]["peak_bytes"] == INPUT + 3 * MAP
    assert rows["b"]["peak_at"] == "b.1 gelu"
    assert rows["b"]["weight_bytes"] == 4 * (584 + 36)
    assert rows["a"]["weight_bytes"] == 4 * 224 + 4 * 16 + 8
    table = model(f"{NET} --assert-each 'weight_bytes < 1M' --assert 'peak_bytes < 1M'").stdout
    [line] = [line for line in table.splitlines() if line.startswith("b ")]
    assert "2,480 B  27.6 kB" in line


def test_the_sentence(model):
    def sentence(args):
        return re.search("^memory.*", model(args, columns=200).stdout, re.M)[0]

    assert sentence(NET) == (
        "memory: weights 3,536 B; activation peak 27.6 kB in torch (b.1), 16.4 kB planned"
    )
    assert sentence(f"{NET} --bits 8") == (
        "memory at 8 bits: weights 890 B; activation peak 6,912 B in torch (b.1), 4,096 B planned"
    )
    assert sentence("nets.py:Autocast --input 3x16x16") == (
        "memory: weights 3,536 B; activation peak not known: autocast is on, which casts inside of "
        "operators"
    )
    assert "(the inputs)" in model("nets.py:whole --input 3x16x16").stdout
    assert "memory" not in model(f"{NET} --as separable").stdout
    assert "memory" not in model(f"{NET} nets.py:grouped").stdout


def test_columns_of_several_models_and_of_fields_that_are_named(model):
    several = model(f"{NET} nets.py:grouped", columns=100).stdout
    assert re.search(r"^Net .* 3,536 B  27\.6 kB  16\.4 kB$", several, re.M)
    assert "peak" not in model(NET).stdout.split("\n\n")[1]
    rows = model(f"{NET} --sort peak_bytes --top 2", columns=60).stdout
    assert re.search(r"^table .* 27\.6 kB$", rows, re.M)
    assert re.search(r"^total .* 27\.6 kB$", rows, re.M)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ("", " --bits 16", ["memory is as it is in then.json"]),
        (" --bits 8", "", ["memory is at 8 bits a floating element in then.json"]),
        (" --bits 8", " --bits 16", ["memory is at 8 bits a floating element in then.json"]),
        (" --bits 8", " --bits 8", []),
        ("", "", []),
    ],
)
def test_a_baseline_at_other_bits_is_said(then, now, said, model):
    model(f"{NET}{then} -o then.json")
    found = json.loads(model(f"{NET}{now} --baseline then.json -f json").stdout)
    assert [note for note in found["notes"] if "then.json" in note] == said
    table = model(f"{NET}{now} --baseline then.json").stdout
    assert [line for line in table.splitlines() if "then.json" in line][1:] == [
        f"note: {note}" for note in said
    ]


@pytest.mark.parametrize("bits", ["eight", True, [8]])
def test_damaged_bits_of_a_baseline_are_named(bits, model, here):
    model(f"{NET} -o then.json")
    (here / "then.json").write_text(
        json.dumps(json.loads((here / "then.json").read_text()) | {"bits": bits})
    )
    error = model(f"{NET} --baseline then.json").error
    assert error.startswith(f"the baseline then.json is damaged: bits is {bits!r}; write one with")


def test_bits_are_those_of_floats(model):
    for bits, least in ((8, MAP // 2), (16, MAP), (32, 2 * MAP)):
        args = f"{NET} --bits {bits} --get least_peak_bytes --get weight_bytes"
        weights = bits // 8 * 882 + 8  # num_batches_tracked is a whole number
        assert model(args).stdout == f"{least}\t{weights}\n"
    double = model("nets.py:double --input 3x8x8 --dtype float64 --get weight_bytes")
    assert double.stdout == f"{8 * 168}\n"
    assert model("nets.py:double --input 3x8x8:float64 --bits 32 --get weight_bytes").stdout == (
        f"{4 * 168}\n"
    )
    assert read(model(f"{NET} --bits 8 -f json"))["notes"][-1] == (
        "memory is at 8 bits a floating element"
    )


ERRORS = {
    f"{NET} --bits 3": "invalid value for '--bits': '3' is not one of '8', '16', '32'; "
    "did you mean 32?",
    f"{NET} --bits 8 --dtype float64": "--bits 8 and --dtype float64 both give the size of a "
    "float; drop one",
    "nets.py:Autocast --input 3x16x16 --get peak_bytes": "peak_bytes is not known: autocast is on, "
    "which casts inside of operators",
    "nets.py:Autocast --input 3x16x16 --assert 'least_peak_bytes <= 320Ki'": "cannot check "
    "'least_peak_bytes <= 320Ki': total: autocast is on, which casts inside of operators",
    "nets.py:Autocast --input 3x16x16 --sort peak_bytes --plot a.svg": "there is no memory to "
    "draw: autocast is on, which casts inside of operators",
}


@pytest.mark.parametrize(("args", "error"), ERRORS.items())
def test_bad_input_is_one_line(args, error, model):
    result = model(args)
    assert (result.code, result.error) == (2, error)


def test_each_row_is_refused_where_peaks_are_not_known_but_one_that_did_not_run_is_skipped(model):
    asked = "--input 3x16x16 --assert-each 'peak_bytes > 0'"
    assert model(f"nets.py:Autocast {asked}").code == 2
    assert model(f"nets.py:Net {asked}").stderr == "holds: peak_bytes > 0 in all 5 rows\n"


def test_bits_in_python():
    with pytest.raises(ValueError, match="bits of a floating element are 8, 16 or 32, got 3"):
        audit(nn.Identity(), bits=3)


def test_weights_are_known_where_peaks_are_not(model):
    result = model("nets.py:Autocast --input 3x16x16 --get weight_bytes --assert 'weight_bytes>1'")
    assert (result.code, result.stdout) == (0, "3536\n")


def test_budgets(model, run, tmp_path):
    assert model(f"{NET} --assert 'least_peak_bytes <= 16Ki'").code == 0
    assert model(f"{NET} --assert 'least_peak_bytes < 16Ki'").code == 1
    assert model(f"{NET} -o before.json").code == 0
    assert model(f"{NET} --baseline before.json --assert 'peak_bytes <= baseline'").code == 0
    smaller = f"{NET} --bits 8 --baseline before.json --assert"
    assert model(f"{smaller} 'peak_bytes == 1/4 * baseline'").code == 0
    assert model(f"{smaller} 'peak_bytes < 1/4 * baseline'").code == 1
    (tmp_path / "budgets.toml").write_text(
        f'[[check]]\nrun = "model {NET} --bits 8"\n'
        'assert = ["least_peak_bytes <= 4Ki", "weight_bytes <= 1K"]\n'
    )
    assert run("check", "budgets.toml").code == 0


def test_a_baseline_without_peaks_decides_nothing_of_them(model):
    assert model("nets.py:Autocast --input 3x16x16 -o before.json").code == 0
    args = f"{NET} --baseline before.json --assert"
    assert model(f"{args} 'weight_bytes == baseline'").code == 0
    assert model(f"{args} 'peak_bytes <= baseline'").error == (
        "cannot check 'peak_bytes <= baseline': peak_bytes is not known in the baseline: the "
        "report has none"
    )


def test_the_picture_of_memory(model):
    assert model(f"{NET} --sort peak_bytes --plot a.svg").code == 0
    labels = words("a.svg")
    assert "nets.py:Net at 3x16x16: activation peak 27.6 kB in torch" in labels
    assert {"27.6 kB: b.1 gelu", "held by torch", "weights, 3,536 B"} - {*labels} == set()
