"""``dscalc model``: a user's own file, from the command line."""

import csv
import io
import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dscalc.record.fields import Record, names

MODELS = '''
"""What a user might have written."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """A layer of each kind; the tower runs twice."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.tower = nn.Sequential(nn.Conv2d(width, width, 3, padding="same"), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.grouped = nn.Conv2d(width, 2 * width, (3, 1), groups=2)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.mix = nn.Conv2d(width, 8, 1)
        self.blur = nn.Parameter(torch.ones(8, 1, 3, 3))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.tower(self.tower(self.stem(x)))
        x = self.mix(self.up(self.pool(self.grouped(self.depthwise(x)))))
        return self.head(F.conv2d(x, self.blur, groups=8).amax((2, 3)))


class Attention(nn.Module):
    """A patch embedding, one block of attention, and an output of two parts."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.mix = nn.Linear(32, 96, bias=False)
        self.head = nn.Linear(32, 10)

    def forward(self, image):
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = F.scaled_dot_product_attention(*self.mix(tokens).chunk(3, dim=-1))
        return {"tokens": tokens, "logits": self.head(tokens[:, 0])}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.mask = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)

    def forward(self, image, mask):
        return self.image(image) + self.mask(mask)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(10, 16), nn.Conv1d(16, 32, 3)

    def forward(self, tokens):
        return self.conv(self.embedding(tokens).transpose(1, 2))


class OutOfSight(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.weight = nn.Conv2d(3, 8, 3), nn.Parameter(torch.zeros(8, 8, 3, 3))

    def forward(self, x):
        return torch.convolution(
            self.conv(x), self.weight, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1
        )


class Needy(nn.Module):
    def __init__(self, channels, *, classes):
        super().__init__()


class Unfinished(nn.Module):
    pass


class Huge(nn.Module):
    def forward(self, x):
        return F.interpolate(x, size=(10**7, 10**7))


def net(width=16, kernel_size=3):
    return nn.Sequential(nn.Conv2d(3, width, kernel_size), nn.ReLU(), nn.Conv2d(width, 8, 1))


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def recurrent():
    return nn.LSTM(8, 4, batch_first=True)


def wrong():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(16, 8, 3)))


def marked():
    model = nn.Sequential()
    model.add_module("[red]|<b>\\x1b[31m", nn.Conv2d(3, 8, 3))
    return model


def scripted():
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3)))


def too_large():
    return nn.Linear(10**7, 10**7)


def fails():
    raise ValueError("no weights\\nat all")


def words():
    return "a model"


instance = net()
number = 7
family = SimpleNamespace(small=SimpleNamespace(net=net), Net=Net)
'''
NET = "nets.py:net --input 3x8x8"
NET_MACS = 3 * 16 * 9 * 36 + 16 * 8 * 36
FULL = "nets.py:Net --input 3x32x32"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with nets.py; nothing that it imports stays."""
    (tmp_path / "nets.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def model(run):
    """Run dscalc model: ``model("nets.py:net --input 3x8x8 -q")``."""
    return lambda args, **options: run("model", *shlex.split(args), **options)


def read_json(result):
    assert (result.code, result.stderr) == (0, "")
    return json.loads(result.stdout)


# What is answered.


def test_a_model_is_answered_and_proved(model):
    result = model(NET)
    assert (result.code, result.stderr) == (0, "")
    macs, params = NET_MACS, 3 * 16 * 9 + 16 + 16 * 8 + 8
    assert f"the model: {macs:,} MACs, {params:,} params" in result.stdout
    assert "with separable convolutions: 7,308 MACs, " in result.stdout
    assert re.search(r"0 +separable +3 -> 16 +3x3 +6x6 +15,552 +2,700 ✓ +17.36%", result.stdout)
    assert re.search(r"2 +pointwise +16 -> 8 +1x1 +6x6 +4,608 +4,608 ✓ +100%", result.stdout)
    assert "✓ fvcore and torch count exactly this on the real modules" in result.stdout


GOLDEN = {
    "each_kind": FULL,
    "attention": "nets.py:Attention --input 3x32x32",
    "largest": f"{FULL} --sort standard_flops --top 2 --unit flops --assert 'model_flops<4M'",
    "refused": "nets.py:wrong --input 3x8x8",
}


@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_output(name, columns, model, snapshot):
    """Exit code, stdout and stderr together."""
    result = model(GOLDEN[name], columns=columns)
    lines = [
        f"$ COLUMNS={columns} dscalc model {GOLDEN[name]}",
        f"exit code {result.code}",
        *(["--- stdout", result.stdout] if result.stdout else []),
        *(["--- stderr", result.stderr] if result.stderr else []),
    ]
    assert "\n".join(lines) == snapshot


@pytest.mark.parametrize(
    "target",
    [
        "nets.py:net",
        "./nets.py:net",
        "nets:net",
        "nets.py:instance",
        "nets:family.small.net",
    ],
)
def test_a_model_is_found_by_its_module_and_attribute(target, model):
    assert model(f"{target} --input 3x8x8 --get model_macs") == (0, f"{NET_MACS}\n", "")


def test_a_model_may_be_a_class(model):
    expected = model(f"{FULL} --get model_macs")
    assert expected.code == 0
    assert model("nets:family.Net --input 3x32x32 --get model_macs") == expected


def test_a_module_of_torch_is_a_model(model):
    arguments = '{"in_channels": 3, "out_channels": 8, "kernel_size": [3, 3], "bias": false}'
    result = model(f"torch.nn:Conv2d --input 3x8x8 --kwargs '{arguments}' --get model_macs")
    assert result == (0, f"{3 * 8 * 9 * 36}\n", "")


def test_kwargs_reach_the_callable(model):
    result = model(f"""{NET} --kwargs '{{"width": 4, "kernel_size": 5}}' --get model_macs""")
    assert result == (0, f"{3 * 4 * 25 * 16 + 4 * 8 * 16}\n", "")


def test_a_file_may_import_the_files_beside_it(model, here):
    package = here / "deep" / "down"
    package.mkdir(parents=True)
    (package / "neighbour_blocks.py").write_text("from nets import net as block\n")
    (package / "mine.py").write_text("from neighbour_blocks import block\n")
    (package / "nets.py").write_text(MODELS)
    (here / "nets.py").unlink()
    expected = (0, f"{NET_MACS}\n", "")
    assert model("deep/down/mine.py:block --input 3x8x8 --get model_macs") == expected
    assert model(f"{package}/mine.py:block --input 3x8x8 --get model_macs") == expected


def test_a_dotted_module_may_import_its_siblings(model, here):
    package = here / "my_package" / "models"
    package.mkdir(parents=True)
    (package / "nets.py").write_text(MODELS)
    (package / "best.py").write_text("from .nets import net\n")
    result = model("my_package.models.best:net --input 3x8x8 --get model_macs")
    assert result == (0, f"{NET_MACS}\n", "")


@pytest.mark.parametrize(
    ("args", "macs"),
    [
        ("nets.py:Two --input 3x8x8 --input 1x8x8", 4 * 8 * 9 * 36),
        ("nets.py:Two --input 3x8x8 --input 1x8x8 --batch 3", 3 * 4 * 8 * 9 * 36),
        ("nets.py:Text --input 20 --dtype int64", 16 * 32 * 3 * 18),
        ("nets.py:Text --input 20 --dtype int64 -b 2", 2 * 16 * 32 * 3 * 18),
        ("nets.py:net --input 3x8x8 --dtype float64", NET_MACS),
        ("nets.py:instance --input 3x8x8 --dtype float16", NET_MACS),
        ("nets.py:net --input 3x8x8 --dtype bfloat16", NET_MACS),
        ("nets.py:perceptron --input 3x8x8", 192 * 5),
    ],
)
def test_inputs_have_the_shapes_and_the_dtype_that_are_given(args, macs, model):
    assert model(f"{args} --get model_macs --get crosscheck") == (0, f"{macs}\texact\n", "")


def test_a_model_without_convolutions_says_what_it_costs(model):
    result = model("nets.py:perceptron --input 3x8x8")
    assert (result.code, result.stderr) == (0, "")
    assert "the model: 960 MACs, 965 params" in result.stdout
    report = read_json(model("nets.py:perceptron --input 3x8x8 -f json"))
    assert report["rows"] == []
    assert report["total"]["standard_macs"] == 0
    assert report["model"]["macs"] == report["model"]["separable_macs"] == 960


def test_what_is_not_counted_is_named_with_its_calls(model):
    result = model(FULL, columns=200)
    assert "not counted by fvcore (operator, calls): aten::max_pool2d 1, aten::amax 1\n" in (
        result.stdout
    )


def test_where_an_operator_hides_macs_the_model_has_no_number_of_them(model):
    report = read_json(model("nets.py:recurrent --input 5x8 -f json"))
    assert report["model"]["macs"] is report["model"]["separable_macs"] is None
    assert report["model"]["uncounted_operators"] == {"aten::lstm": 1}
    table = model("nets.py:recurrent --input 5x8").stdout
    assert "the model: 224 params; not all of its MACs were counted" in table
    assert "not counted by fvcore (operator, calls): aten::lstm 1" in table
    refused = model("nets.py:recurrent --input 5x8 --get kind --assert 'model_macs < 1G'")
    assert refused.code == 2
    assert refused.stdout == ""
    assert refused.error.endswith("fvcore has no count for one of aten::lstm")


def test_help_says_that_the_code_of_the_model_is_executed(model):
    result = model("--help")
    assert (result.code, result.stderr) == (0, "")
    text = " ".join(result.stdout.split())
    assert "The model's code is imported and run" in text
    assert "run only code that you trust" in text
    for option in (
        *("--input", "--kwargs", "--batch", "--dtype", "--only", "--except", "--sort", "--top"),
        *("--format", "--output", "--get", "--assert", "--unit", "--no-verify", "--plot"),
    ):
        assert option in result.stdout
    examples = re.findall(r"^ *dscalc model .*", result.stdout, re.MULTILINE)
    assert len(examples) >= 4


# Which rows are shown, and what is replaced.


def shown(result):
    return [row["name"] for row in read_json(result)["rows"]]


def test_rows_come_in_the_order_of_the_calls(model):
    assert shown(model(f"{FULL} -f json")) == [
        *("stem", "tower.0", "tower.0 (call 2)", "depthwise", "grouped", "up", "mix"),
        "the model",  # in its own forward
    ]


@pytest.mark.parametrize(
    "field",
    [
        "standard_macs",
        "separable_params",
        "mac_ratio",
        "in_channels",
        "kernel_size",
        "kind",
        "bias",
    ],
)
def test_sort_shows_the_largest_first(field, model):
    rows = read_json(model(f"{FULL} -f json --sort {field}"))["rows"]
    values = [row[field] for row in rows]
    assert values == sorted(values, reverse=True)
    assert len(values) == 8


def test_sort_puts_what_has_no_value_last(model):
    rows = read_json(model(f"{FULL} -f json --sort depthwise_macs"))["rows"]
    values = [row["depthwise_macs"] for row in rows]
    assert values[:3] == sorted(values[:3], reverse=True)
    assert values[3:] == [None] * 5


def test_top_hides_rows_and_not_their_costs(model):
    complete = read_json(model(f"{FULL} -f json --sort standard_macs"))
    report = read_json(model(f"{FULL} -f json --sort standard_macs --top 3"))
    assert report["rows"] == complete["rows"][:3]
    assert report["total"] == complete["total"]
    assert report["model"] == complete["model"]
    assert "5 more convolutions are in the total" in model(f"{FULL} --top 3").stdout
    assert "more convolutions" not in model(f"{FULL} --top 8").stdout
    assert shown(model(f"{FULL} -f json --top 999")) == shown(model(f"{FULL} -f json"))


@pytest.mark.parametrize(
    ("options", "replaced"),
    [
        ("", ["stem", "tower.0", "tower.0 (call 2)"]),
        ("--only 'tower.*'", ["tower.0", "tower.0 (call 2)"]),
        ("--except stem", ["tower.0", "tower.0 (call 2)"]),
        ("--only stem --only 'tow*' --except '*.0'", ["stem"]),
        ("--only mix", []),
    ],
)
def test_only_and_except_choose_what_is_replaced(options, replaced, model):
    report = read_json(model(f"{FULL} -f json {options}"))
    assert [row["name"] for row in report["rows"] if row["kind"] == "separable"] == replaced
    assert len(report["rows"]) == 8
    saved = sum(row["standard_macs"] - row["separable_macs"] for row in report["rows"])
    assert report["model"]["macs"] - report["model"]["separable_macs"] == saved
    assert report["total"]["crosscheck"] == "exact"


# Machines.


def test_json_has_the_whole_model_beside_the_rows(model):
    report = read_json(model(f"{FULL} -f json"))
    assert list(report) == ["schema", "version", "convention", "rows", "total", "model"]
    assert list(report["model"]) == [
        *("macs", "params", "separable_macs", "separable_params", "uncounted_operators")
    ]
    assert report["model"]["uncounted_operators"] == {"aten::max_pool2d": 1, "aten::amax": 1}
    assert [list(row) for row in [*report["rows"], report["total"]]] == [list(Record._fields)] * 9
    convolutions = sum(row["standard_macs"] for row in report["rows"])
    assert report["model"]["macs"] == convolutions + 8 * 10
    assert report["total"]["standard_macs"] == convolutions
    assert report["total"]["standard_params"] == report["model"]["params"] - 90  # of the head


def test_flops_are_twice_the_macs_under_their_own_name(model):
    macs = read_json(model(f"{FULL} -f json"))["model"]
    flops = read_json(model(f"{FULL} -f json --unit flops"))["model"]
    assert flops == {
        "flops": 2 * macs["macs"],
        "params": macs["params"],
        "separable_flops": 2 * macs["separable_macs"],
        "separable_params": macs["separable_params"],
        "uncounted_operators": macs["uncounted_operators"],
    }
    assert model(f"{NET} --unit flops --get model_flops") == (0, f"{2 * NET_MACS}\n", "")


@pytest.mark.parametrize("unit", ["macs", "flops"])
def test_all_machine_formats_have_the_same_rows(unit, model):
    outputs = {form: model(f"{FULL} -f {form} --unit {unit}") for form in ("json", "jsonl", "csv")}
    rows = read_json(outputs["json"])["rows"]
    assert [json.loads(line) for line in outputs["jsonl"].stdout.splitlines()] == rows
    lines = list(csv.DictReader(io.StringIO(outputs["csv"].stdout)))
    assert list(lines[0]) == names(Record._fields, unit)
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    field = f"standard_{unit}"
    assert [int(line[field]) for line in lines] == [row[field] for row in rows]


def test_markdown_holds_a_row_for_each_call(model):
    title, table, *notes = model(f"{FULL} -f markdown").stdout.strip().split("\n\n")
    assert title == "**nets.py:Net**"
    header, _, *rows = table.splitlines()
    assert header.startswith("| layer | kind | channels | F | output | MACs | separable |")
    assert len(rows) == 9
    assert rows[-1].startswith("| **total** |")
    assert any(note.startswith("the model: ") for note in notes)


def test_svg_contains_the_names_and_the_counts(model):
    picture = ElementTree.fromstring(model(f"{FULL} -f svg").stdout)
    drawn = " ".join(
        " ".join(element.itertext()) for element in picture.iter() if "text" in element.tag
    ).replace("\N{NO-BREAK SPACE}", " ")
    for row in read_json(model(f"{FULL} -f json"))["rows"]:
        assert row["name"] in drawn
        assert f"{row['standard_macs']:,}" in drawn


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_file_holds_what_stdout_would(form, model, here):
    expected = model(f"{FULL} -f {form}", columns=300).stdout
    assert model(f"{FULL} -f {form} -o report", columns=300) == (0, "", "")
    assert (here / "report").read_text("utf-8") == expected


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")]
)
def test_a_plot_is_drawn_beside_the_report(name, start, model, here):
    assert model(f"{FULL} --plot {name} --get model_params") == model(f"{FULL} --get model_params")
    assert (here / name).read_bytes().startswith(start)


def test_a_model_without_convolutions_can_be_plotted(model, here):
    assert model("nets.py:perceptron --input 3x8x8 --plot a.svg").code == 0
    assert ElementTree.fromstring((here / "a.svg").read_text("utf-8")).tag.endswith("svg")


def test_get_holds_the_whole_model_and_the_total(model):
    report = read_json(model(f"{FULL} -f json"))
    whole, total = report["model"], report["total"]
    fields = ("model_macs", "model_params", "model_separable_macs", "model_separable_params")
    wanted = " ".join(f"--get {field}" for field in (*fields, "standard_macs", "crosscheck"))
    expected = [*(whole[field.removeprefix("model_")] for field in fields)]
    expected += [total["standard_macs"], "exact"]
    assert model(f"{FULL} {wanted}") == (0, "\t".join(map(str, expected)) + "\n", "")


@pytest.mark.parametrize(
    ("condition", "code", "verdict"),
    [
        ("model_macs <= 600M", 0, "holds: model_macs <= 600M\n"),
        ("model_macs <= 20K", 1, "failed: model_macs <= 20K: model_macs is 20,160\n"),
        ("model_params == 584", 0, "holds: model_params == 584\n"),
        ("model_separable_macs<=7308", 0, "holds: model_separable_macs <= 7308\n"),
        ("mac_ratio <= 1/3", 1, "failed: mac_ratio <= 1/3: mac_ratio is 0.3625 (29/80)\n"),
        ("fvcore_standard_macs == 20160", 0, "holds: fvcore_standard_macs == 20160\n"),
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_an_assertion_decides_the_exit_code_and_not_the_report(
    form, condition, code, verdict, model
):
    report = model(f"{NET} -f {form}").stdout
    assert model(f"{NET} -f {form} --assert '{condition}'") == (code, report, verdict)
    assert model(f"{NET} -f {form} --assert '{condition}' -q") == (code, report, "")


def test_an_assertion_in_flops(model):
    result = model(f"{NET} --unit flops --assert 'model_flops < 40K' --get model_flops")
    assert result == (
        1, "40320\n", "failed: model_flops < 40K: model_flops is 40,320\n"
    )  # fmt: skip


def test_without_verification_the_macs_of_the_whole_model_are_not_known(model):
    report = read_json(model(f"{FULL} -f json --no-verify"))
    whole = report["model"]
    assert whole["macs"] is whole["separable_macs"] is None
    assert whole["params"] == read_json(model(f"{FULL} -f json"))["model"]["params"]
    assert whole["uncounted_operators"] == {}
    assert report["total"]["crosscheck"] == "skipped"
    assert report["total"]["standard_macs"] > 0
    assert model(f"{NET} --no-verify --get model_params --get crosscheck") == (
        0, "584\tskipped\n", ""
    )  # fmt: skip
    table = model(f"{NET} --no-verify")
    assert (table.code, table.stderr) == (0, "")
    assert "✓" not in table.stdout
    assert "the model: 584 params" in table.stdout


@pytest.mark.parametrize(
    "wish", ["--get model_macs", "--assert 'model_macs <= 600M'", "--get fvcore_standard_macs"]
)
def test_what_is_not_counted_cannot_be_asked_for(wish, model):
    result = model(f"{NET} --no-verify {wish}")
    assert (result.code, result.stdout) == (2, "")
    assert re.fullmatch(r"\w+_macs is what the cross-check counts; drop --no-verify", result.error)


# Names are printed as they are.


def test_markup_and_escapes_in_a_module_path_are_printed_literally(model):
    args = "nets.py:marked --input 3x8x8"
    name = r"[red]|<b>\x1b[31m"
    for columns in (60, 200):
        result = model(f"{args} --no-verify", columns=columns)
        assert (result.code, result.stderr) == (0, "")
        assert name in result.stdout
        assert "\x1b" not in result.stdout
    assert r"\[red]\|\<b>\\x1b\[31m" in model(f"{args} --no-verify -f markdown").stdout
    assert shown(model(f"{args} --no-verify -f json")) == [name]
    assert "\x1b" not in model(f"{args} --no-verify -f csv").stdout
    assert "<b>" not in model(f"{args} --no-verify -f svg").stdout


def test_names_in_errors_are_printed_literally(model, here):
    result = model("'[red]\x1b[31m.py:net' --input 3x8x8")
    assert result.code == 2
    assert result.error == r"there is no file '[red]\x1b[31m.py'; check the path"


# What is refused.


ERRORS = {
    # targets
    "nets.py --input 3x8x8": "a model is MODULE:ATTR, such as mymodels.py:Net, got 'nets.py'",
    ":net --input 3x8x8": "a model is MODULE:ATTR, such as mymodels.py:Net, got ':net'",
    "nets.py: --input 3x8x8": "a model is MODULE:ATTR, such as mymodels.py:Net, got 'nets.py:'",
    "'' --input 3x8x8": "a model is MODULE:ATTR, such as mymodels.py:Net, got ''",
    "missing.py:net --input 3x8x8": "there is no file 'missing.py'; check the path",
    "missing:net --input 3x8x8": "there is no module 'missing' here; a file is given with its "
    "ending, such as mymodels.py:Net",
    "missing.deep:net --input 3x8x8": "there is no module 'missing.deep' here; a file is given "
    "with its ending, such as mymodels.py:Net",
    "nets.py:nett --input 3x8x8": "nets.py has no attribute 'nett'; did you mean net?",
    "nets:zzz --input 3x8x8": "nets has no attribute 'zzz'; check the spelling",
    "nets.py:family.smal --input 3x8x8": "nets.py has no attribute 'smal'; did you mean small?",
    "nets.py:number --input 3x8x8": "nets.py:number is of type int; it must be an nn.Module, or a "
    "callable that returns one",
    "nets.py:words --input 3x8x8": "nets.py:words returns a str; it must return an nn.Module",
    # callables
    "nets.py:Needy --input 3x8x8": "nets.py:Needy cannot be called so (Needy.__init__() missing 1 "
    "required positional argument: 'channels'); give its arguments with --kwargs, such as "
    "'{\"width\": 64}'",
    """nets.py:net --input 3x8x8 --kwargs '{"wide": 1}'""": "nets.py:net cannot be called so "
    "(net() got an unexpected keyword argument 'wide'); give its arguments with --kwargs, such as "
    "'{\"width\": 64}'",
    """nets.py:instance --input 3x8x8 --kwargs '{"width": 1}'""": "nets.py:instance is a module "
    "already and takes no --kwargs",
    "nets.py:fails --input 3x8x8": "nets.py:fails failed (ValueError: no weights); -v shows where",
    "nets.py:net --input 3x8x8 --kwargs '{'": "--kwargs must be a JSON object such as "
    "'{\"width\": 64}', got '{'",
    "nets.py:net --input 3x8x8 --kwargs '[1]'": "--kwargs must be a JSON object such as "
    "'{\"width\": 64}', got '[1]'",
    # inputs
    "nets.py:net": "missing option '--input'; see dscalc model --help",
    "nets.py:net --input 3xx8": "--input must be a shape such as 3x224x224, got '3xx8'",
    "nets.py:net --input ''": "--input must be a shape such as 3x224x224, got ''",
    "nets.py:net --input 3x0x8": "--input must be a shape such as 3x224x224, got '3x0x8'",
    "nets.py:net --input 3x-8": "--input must be a shape such as 3x224x224, got '3x-8'",
    "nets.py:net --input 3x8x8 --batch 0": "--batch must be at least 1, got 0",
    "nets.py:wrong --input 3x8x8": "1.1 (Conv2d) cannot run on these inputs (RuntimeError: Given "
    "groups=1, weight of size [8, 16, 3, 3], expected input[1, 8, 6, 6] to have 16 channels, but "
    "got 8 channels instead); check their shapes and dtype",
    "nets.py:Two --input 3x8x8": "Two cannot run on these inputs (TypeError: Two.forward() missing "
    "1 required positional argument: 'mask'); check their shapes and dtype",
    "nets.py:Unfinished --input 3": "Unfinished cannot run on these inputs (NotImplementedError: "
    'Module [Unfinished] is missing the required "forward" function)',
    # choices
    "nets.py:net --input 3x8x8 --sort standard_mac": "unknown field 'standard_mac'; did you mean "
    "standard_macs or fvcore_standard_macs or standard_params?",
    "nets.py:net --input 3x8x8 --sort standard_macs --unit flops": "unknown field 'standard_macs'; "
    "with --unit flops it is called standard_flops",
    "nets.py:net --input 3x8x8 --get model_flops": "unknown field 'model_flops'; with --unit flops "
    "it is known",
    "nets.py:net --input 3x8x8 --top 0": "--top must be at least 1, got 0",
    "nets.py:net --input 3x8x8 --top few": "--top must be a whole number such as 64, got 'few'",
    "nets.py:net --input 3x8x8 --only 'zz*'": "'zz*' matches no convolution of the model; they "
    "are 0, 2",
    "nets.py:Net --input 3x32x32 --except tower": "'tower' matches no convolution of the model; "
    "did you mean tower.0?",
    "nets.py:net --input 3x8x8 --plot a.gif": "--plot needs a file that ends in .png, .svg or "
    ".pdf, got a.gif",
}


@pytest.mark.parametrize("args", ERRORS)
def test_an_error_is_one_line_that_names_the_value_and_the_fix(args, model):
    result = model(args)
    assert (result.code, result.stdout) == (2, "")
    assert result.error == ERRORS[args]


@pytest.mark.parametrize(
    ("args", "start"),
    [
        ("nets.py:net --input 3x1000000x1000000", "torch cannot make an input of 1x3x1000000x"),
        (f"nets.py:net --input 3x{10**30}x8", f"torch cannot make an input of 1x3x{10**30}x8 ("),
        (f"nets.py:net --input 3x8x8 -b {10**30}", f"torch cannot make an input of {10**30}x3x8x8"),
        ("nets.py:Huge --input 3x8x8", "Huge cannot run on these inputs (RuntimeError: "),
        ("nets.py:too_large --input 3", "nets.py:too_large failed (RuntimeError: "),
        ("nets.py:net --input 3x8x8 --dtype int64", "0 (Conv2d) cannot run on these inputs ("),
        ("nets.py:net --input 3x8x8 --dtype int8", "invalid value for '--dtype': 'int8' is not "),
        (
            "nets.py:net --input 3x8x8 --assert 'model_mac < 1'",
            "unknown field 'model_mac'; did you",
        ),
    ],
)
def test_what_cannot_be_answered_is_one_line_too(args, start, model):
    result = model(args)
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(start)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_is_refused(model):
    result = model("nets.py:scripted --input 3x8x8")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == (
        "the model is a scripted module (RecursiveScriptModule), whose operators cannot be seen; "
        "audit the float nn.Module that it was made from"
    )


BROKEN = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "def f(:": "SyntaxError: invalid syntax",
    "import no_such_thing": "No module named 'no_such_thing'",
    "from nets import no_such_thing": "ImportError: cannot import name 'no_such_thing' from 'nets'",
    "raise ValueError('two\\nlines')": "ValueError: two",
}


@pytest.mark.parametrize("target", ["broken_model.py:net", "broken_model:net"])
@pytest.mark.parametrize("code", BROKEN)
def test_an_error_in_the_users_file_is_one_line_and_with_v_a_traceback(code, target, model, here):
    (here / "broken_model.py").write_text(f"import torch\n{code}\n")
    result = model(f"{target} --input 3x8x8")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(f"importing {target.partition(':')[0]} failed ({BROKEN[code]}")
    assert result.error.endswith("; -v shows where")

    verbose = model(f"{target} --input 3x8x8 -v")
    assert (verbose.code, verbose.stdout) == (2, "")
    assert verbose.stderr.startswith("Traceback (most recent call last):\n")
    assert re.search(r'File ".*broken_model.py", line 2', verbose.stderr)
    assert verbose.stderr.splitlines()[-1] == f"error: {result.error}"


def test_a_traceback_of_the_model_is_shown_with_v(model):
    assert "Traceback" not in model("nets.py:wrong --input 3x8x8").stderr
    assert "in _conv_forward" in model("nets.py:wrong --input 3x8x8 -v").stderr


def test_where_fvcore_cannot_count_the_rest_is_still_answered(model):
    result = model("nets.py:OutOfSight --input 3x8x8")
    assert result.code == 2
    assert result.error.startswith(
        "fvcore sees 2 and 3 convolutions in the model and its copy, where 1 and 2 are expected; "
    )
    assert result.error.endswith("; add --no-verify to do without")
    assert "7,776" in result.stdout
    assert "✓" not in result.stdout
    unverified = model("nets.py:OutOfSight --input 3x8x8 --no-verify")
    assert unverified == (0, result.stdout, "")


def test_without_torch_there_is_one_line(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "dscalc.pytorch.audit", None)
    result = model(NET)
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith("this needs torch and fvcore, and importing them failed (")


# A planted fault.


@pytest.fixture
def fault(monkeypatch):
    """One MAC too many for each 3x3 convolution of 16 channels to 16."""
    module = import_module("dscalc.pytorch.audit")
    count = module.conv_flop_count

    def one_more(x, weight, *rest, **options):
        return count(x, weight, *rest, **options) + (list(weight) == [16, 16, 3, 3])

    monkeypatch.setattr(module, "conv_flop_count", one_more)


@pytest.mark.usefixtures("fault")
def test_a_fault_is_marked_named_and_exits_with_1(model):
    result = model(FULL, columns=110)
    assert result.code == 1
    difference = "fvcore_standard_macs is 589,825 and the formula gives 589,824"
    assert result.stderr == (
        f"failed: mismatch: tower.0: {difference}\n"
        f"failed: mismatch: tower.0 (call 2): {difference}\n"
    )
    marks = re.findall(r"^ (\w.*?)  .*([✓✗]) .*%", result.stdout, re.MULTILINE)
    assert dict(marks) == {
        **dict.fromkeys(("stem", "depthwise", "grouped", "up", "mix", "the model"), "✓"),
        **dict.fromkeys(("tower.0", "tower.0 (call 2)", "total"), "✗"),
    }
    assert "✗ fvcore or torch count something else on the real modules" in result.stdout


@pytest.mark.usefixtures("fault")
def test_a_fault_is_a_mismatch_for_machines_too(model):
    result = model(f"{FULL} -f json -q")
    report = json.loads(result.stdout)
    assert (result.code, result.stderr) == (1, "")
    wrong = [row["name"] for row in report["rows"] if row["crosscheck"] != "exact"]
    assert wrong == ["tower.0", "tower.0 (call 2)"]
    assert report["total"]["crosscheck"] == "mismatch"
    assert model(f"{FULL} --get crosscheck -q") == (1, "mismatch\n", "")


@pytest.mark.usefixtures("fault")
def test_a_fault_in_a_row_that_is_not_shown_is_named(model):
    result = model(f"{FULL} --top 1 --get model_macs")
    assert result.code == 1
    assert "tower.0 (call 2)" in result.stderr


# Progress.


def test_progress_is_shown_on_a_terminal_and_not_elsewhere(model, monkeypatch):
    expected = model(NET)
    assert expected.stderr == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    watched = model(NET)
    assert watched.stdout == expected.stdout
    assert "running nets.py:net" in watched.stderr
    assert model(f"{NET} -q") == expected


def test_the_command_runs_as_a_process(spawn):
    result = spawn(f"model {NET} --get model_macs --get crosscheck")
    assert result == (0, f"{NET_MACS}\texact\n", "")


def test_nothing_is_written_beside_the_model(model, here):
    assert model(NET).code == 0
    left = {path.name for path in Path(here).iterdir()} - {"__pycache__"}
    assert left == {"nets.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.exit()\n",
        "import sys\ndef net():\n    sys.exit(3)\n",
        "from torch import nn\nclass net(nn.Module):\n"
        "    def forward(self, x):\n        raise SystemExit('bye')\n",
    ],
    ids=["import", "factory", "forward"],
)
def test_a_model_that_exits_is_no_answer(source, run, tmp_path):
    path = tmp_path / "exits.py"
    path.write_text(source, "utf-8")
    result = run("model", f"{path}:net", "--input", "3x8x8", "--assert", "model_macs <= 1")
    assert (result.code, result.stdout) == (2, "")
    assert "SystemExit" in result.error


def test_what_the_model_prints_does_not_reach_the_report(run, tmp_path):
    path = tmp_path / "prints.py"
    path.write_text(
        "from torch import nn\nprint('imported')\nclass Net(nn.Conv2d):\n"
        "    def forward(self, x):\n        print('called')\n        return super().forward(x)\n"
        "net = Net(3, 8, 3)\n",
        "utf-8",
    )
    result = run("model", f"{path}:net", "--input", "3x8x8", "--get", "standard_macs")
    assert (result.code, result.stdout) == (0, f"{3 * 8 * 9 * 36}\n")
    assert "imported" in result.stderr


def test_a_missing_dependency_of_a_file_is_not_a_missing_file(run, tmp_path):
    path = tmp_path / "nosuch_models.py"
    path.write_text("import nosuch\n", "utf-8")
    result = run("model", f"{path}:net", "--input", "3x8x8")
    assert result.error == f"importing {path} failed (No module named 'nosuch'); -v shows where"


def test_an_error_inside_a_constructor_is_not_one_of_its_arguments(run, tmp_path):
    path = tmp_path / "fails.py"
    path.write_text("def net():\n    return len(3)\n", "utf-8")
    result = run("model", f"{path}:net", "--input", "3x8x8")
    assert result.error.startswith(f"{path}:net failed (TypeError: object of type 'int'")


def test_rows_of_mixed_paddings_can_be_sorted(run, tmp_path):
    path = tmp_path / "mixed.py"
    path.write_text(
        "from torch import nn\n"
        "net = nn.Sequential(nn.Conv2d(3, 8, 3, padding='same'), nn.Conv2d(8, 8, 3))\n",
        "utf-8",
    )
    assert run("model", f"{path}:net", "--input", "3x8x8", "--sort", "padding").code == 0


def test_a_model_without_convolutions_says_so(run, tmp_path):
    path = tmp_path / "mlp.py"
    path.write_text("from torch import nn\nnet = nn.Linear(8, 4)\n", "utf-8")
    assert "no convolution ran\n" in run("model", f"{path}:net", "--input", "8").stdout
