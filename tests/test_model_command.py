"""``dscalc model``: a user's own file, from the command line."""

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest
from vocabulary import fields

from dscalc.core.blocks import SEPARABLE
from dscalc.pytorch import operators
from dscalc.report.layout import fitted
from dscalc.report.sheet import LATE, Column, Sheet

AUDIT = import_module("dscalc.pytorch.audit")  # the package exports a function of this name

MODELS = '''
"""What a user might have written."""

import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """A layer of each kind; the tower runs twice."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        conv = nn.Conv2d(width, width, 3, padding="same")
        self.tower = nn.Sequential(conv, nn.BatchNorm2d(width))
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
        self.aux = nn.Conv2d(32, 64, 3)

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


class OneDict(Two):
    def forward(self, batch):
        return super().forward(batch["image"], batch["mask"])


def batch():
    return ({"image": torch.zeros(1, 3, 8, 8), "mask": torch.zeros(1, 1, 8, 8)},)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(10, 16), nn.Conv1d(16, 32, 3)

    def forward(self, tokens):
        return self.conv(self.embedding(tokens).transpose(1, 2))


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return torch.linalg.inv(self.conv(x))


class Decides(Unknown):
    def forward(self, x):
        print("called")
        return self.conv(x) if x.sum().item() > -1e9 else x


class OnCuda(Unknown):
    def __init__(self):
        super().__init__()
        self.conv.cuda()


class Exits(Unknown):
    def forward(self, x):
        raise SystemExit("bye")


class Catches(Unknown):
    def forward(self, x):
        try:
            return self.conv(x[:, :1])
        except RuntimeError:
            return self.conv(x)


class Ghost(nn.Module):
    """A block with module paths as long as they come."""

    def __init__(self, width):
        super().__init__()
        half = width // 2
        self.primary_conv = nn.Sequential(nn.Conv2d(width, half, 1), nn.BatchNorm2d(half))
        self.cheap_operation = nn.Sequential(nn.Conv2d(half, half, 3, padding=1))

    def forward(self, x):
        x = self.primary_conv(x)
        return torch.cat([x, self.cheap_operation(x)], 1)


class Needy(nn.Module):
    def __init__(self, channels, *, classes):
        super().__init__()


def ghosts():
    root = nn.Sequential()
    for name in ("feature_extractor_stage_one", "feature_extractor_stage_two"):
        root.add_module(name, nn.Sequential(*[Ghost(64) for _ in range(4)]))
    return root


def net(width=16, kernel_size=3):
    return nn.Sequential(nn.Conv2d(3, width, kernel_size), nn.ReLU(), nn.Conv2d(width, 8, 1))


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def wrong():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(16, 8, 3)))


def marked():
    model = nn.Sequential()
    model.add_module("[red]|<b>\\x1b[31m", nn.Conv2d(3, 8, 3))
    return model


def scripted():
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3)))


def quantised():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


instance = net()
'''
NET = "nets.py:net --input 3x8x8"
NET_MACS = 3 * 16 * 9 * 36 + 16 * 8 * 36
FULL = "nets.py:Net --input 3x32x32"
FULL_AS = f"{FULL} --as separable"
GHOSTS = "nets.py:ghosts --input 64x56x56"
UNKNOWN = "nets.py:Unknown --input 3x8x8"


@pytest.fixture(autouse=True)
def here(here, monkeypatch):
    """A working directory with nets.py; nothing that it imports stays."""
    (here / "nets.py").write_text(MODELS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield here
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(here)):
            del sys.modules[name]


@pytest.fixture
def model(run):
    """Run dscalc model: ``model("nets.py:net --input 3x8x8 -q")``."""
    return lambda args, **options: run("model", *shlex.split(args), **options)


def read_json(result):
    assert (result.code, result.stderr) == (0, "")
    return json.loads(result.stdout)


# What is answered.


def test_inputs_are_all_inputs(model):
    error = model("nets.py:net --inputs nets.py:nothing --input 3x8x8").error
    assert error == "--inputs gives every input as it is; drop --input"


GOLDEN = {
    "each_kind": (FULL, (40, 80)),
    "rewritten": (FULL_AS, (40, 80, 120)),
    "attention": ("nets.py:Attention --input 3x32x32", (40, 80)),
    "largest": (f"{FULL} --sort flops --top 2 --unit flops --assert 'flops<4M'", (80,)),
    "parts": (f"{FULL} --depth 1 --sort params", (80,)),
    "paths": (f"{GHOSTS} --sort macs --top 4", (60, 80, 110)),
    "folded": (GHOSTS, (40, 80)),
    "not_known": (UNKNOWN, (80,)),
    "several": (f"{UNKNOWN} nets.py:net --as separable", (80,)),
    "refused": ("nets.py:wrong --input 3x8x8", (80,)),
}


@pytest.mark.parametrize(
    ("name", "columns"),
    [(name, columns) for name, (_, widths) in GOLDEN.items() for columns in widths],
)
def test_golden_output(name, columns, model, snapshot):
    """Exit code, stdout and stderr together."""
    args = GOLDEN[name][0]
    result = model(args, columns=columns)
    lines = [
        f"$ COLUMNS={columns} dscalc model {args}",
        f"exit code {result.code}",
        *(["--- stdout", result.stdout] if result.stdout else []),
        *(["--- stderr", result.stderr] if result.stderr else []),
    ]
    assert "\n".join(lines) == snapshot


@pytest.mark.parametrize(
    ("args", "macs"),
    [
        (NET, NET_MACS),
        ("nets:net --input 3x8x8", NET_MACS),
        ("nets.py:instance --input 3x8x8 --dtype float16", NET_MACS),
        ("nets.py:Two --input 3x8x8 --input mask=1x8x8 --batch 3", 3 * 4 * 8 * 9 * 36),
        ("nets.py:OneDict --inputs nets.py:batch", 4 * 8 * 9 * 36),
        ("nets.py:Text --input 20:int64 -b 2", 2 * 16 * 32 * 3 * 18),
        ("nets.py:perceptron --input 3x8x8", 192 * 5),
        ("nets.py:Catches --input 3x8x8", 3 * 8 * 9 * 36),
        (f"""{NET} --kwargs '{{"width": 4, "kernel_size": 5}}'""", 16 * (3 * 4 * 25 + 32)),
        (
            """torch.nn:Conv2d --input 3x8x8 --kwargs '{"in_channels": 3, "out_channels": 8, """
            """"kernel_size": [3, 3]}'""",
            3 * 8 * 9 * 36,
        ),
    ],
)
def test_a_model_is_answered_and_proved(args, macs, model):
    assert model(f"{args} --get macs --get torch_macs --get crosscheck") == (
        0, f"{macs}\t{macs}\texact\n", ""
    )  # fmt: skip


def test_a_file_of_a_package_is_imported_as_part_of_it(model, here):
    package = here / "my_package" / "models"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "nets.py").write_text(MODELS)
    (package / "best.py").write_text("from .nets import net\n")
    for target in ("my_package/models/best.py:net", "my_package.models.best:net"):
        assert model(f"{target} --input 3x8x8 --get macs") == (0, f"{NET_MACS}\n", "")


def test_what_the_model_prints_does_not_reach_the_report(model):
    result = model("nets.py:Decides --input 3x8x8 --get macs")
    assert (result.code, result.stdout) == (0, f"{3 * 8 * 9 * 36}\n")
    assert set(result.stderr.splitlines()) == {"called"}


def test_a_model_that_needs_values_says_so_in_one_short_line(model):
    shown = model("nets.py:Decides --input 3x8x8", columns=200).stdout
    note = (
        r"the model needs values \(RuntimeError: Tensor.item\(\) cannot be called on meta tensors, "
        r"at nets.py:\d+\): it ran on real tensors"
    )
    assert re.search(f"^note: {note}$", shown, re.MULTILINE)
    [said] = json.loads(model("nets.py:Decides --input 3x8x8 -f json").stdout)["notes"]
    assert re.fullmatch(note, said)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_is_counted_and_not_rewritten(model):
    result = model("nets.py:scripted --input 3x8x8 --as separable")
    assert result.code == 0
    assert "\nkept: 1 scripted (100% of the MACs)\n" in result.stdout
    assert "dscalc" not in result.stderr


def test_help_names_the_options_and_warns_of_the_models_code(model):
    result = model("--help")
    assert (result.code, result.stderr) == (0, "")
    assert "Load only code that you trust." in " ".join(result.stdout.split())
    for option in (
        *("--input", "--inputs", "--kwargs", "--batch", "--dtype", "--only", "--except", "--sort"),
        *("--top", "--depth", "--as", "--format", "--output", "--get", "--assert", "--unit"),
        *("--no-verify", "--plot"),
    ):
        assert option in result.stdout
    assert len(re.findall(r"^ *dscalc model .*", result.stdout, re.MULTILINE)) >= 4


# Which rows are shown, and what is rewritten.


def names(result):
    return [row["name"] for row in read_json(result)["rows"]]


def test_rows_come_in_the_order_of_their_first_calls_and_then_those_without_macs(model):
    assert names(model(f"{FULL} -f json")) == [
        *("stem", "tower.0", "depthwise", "grouped", "up", "mix", "the model", "head", "tower.1")
    ]
    rows = read_json(model(f"{FULL} -f json"))["rows"]
    assert {row["name"]: row["calls"] for row in rows if row["calls"] != 1} == {"tower.0": 2}


@pytest.mark.parametrize(
    ("field", "first"),
    [
        ("macs", "tower.0"),
        ("separable_params", "up"),
        ("mac_ratio", "depthwise"),
        ("share", "tower.0"),
        ("kind", "up"),
        ("output_size", "stem"),
        ("depthwise_macs", "tower.0"),
        ("padding", "stem"),
    ],
)
def test_sort_shows_the_largest_first_and_what_has_no_value_last(field, first, model):
    rows = read_json(model(f"{FULL_AS} -f json --sort {field}"))["rows"]
    assert rows[0]["name"] == first
    values = [row[field] for row in rows]
    numbers = [value for value in values if isinstance(value, int | float)]
    assert numbers == sorted(numbers, reverse=True)
    known = sum(value is not None for value in values)
    assert values[known:] == [None] * (len(values) - known)


def test_top_hides_rows_and_not_their_costs(model):
    complete = read_json(model(f"{FULL} -f json --sort macs"))
    report = read_json(model(f"{FULL} -f json --sort macs --top 3"))
    assert report["rows"] == complete["rows"][:3]
    assert report["total"] == complete["total"]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ("--top 3", "3 of 8 rows, the first"),
        ("--top 99", "8 of 8 rows, the first"),
        ("--sort macs --top 2", "2 of 8 rows by macs"),
        ("--where 'params < 100'", "3 of 9 rows where params < 100"),
        ("--where 'macs > 1T'", "0 of 8 rows where macs > 1T"),
    ],
)
def test_the_title_says_which_rows_are_shown_and_the_total_is_the_models(options, chosen, model):
    title, _, _, _, *lines = model(f"{FULL} {options}", columns=120).stdout.splitlines()
    assert title == f"nets.py:Net at 3x32x32: {chosen}"
    assert lines[int(chosen[0])].split() == ["total", "Net", "1,654,672", "6,106", "100%"]


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ("--where 'macs > 150K'", ["tower.0\t1179648", "grouped\t172032"]),
        ("--sort params --top 1", ["tower.0\t1179648"]),
        ("--top 1 --assert 'macs == 1654672'", ["stem\t110592"]),
        ("--assert 'macs == 1654672'", ["total\t1654672"]),
    ],
)
def test_get_reads_the_rows_that_are_chosen_and_an_assertion_the_total(options, values, model):
    result = model(f"{FULL} {options} --get name --get macs -q")
    assert result == (0, "".join(f"{line}\n" for line in values), "")


@pytest.mark.parametrize("columns", [40, 60, 120])
@pytest.mark.parametrize(
    ("options", "head"),
    [
        ("--sort activations --top 3", "activations"),
        ("--where 'groups > 0'", "groups"),
        ("--assert-each 'batch_size < 2'", "batch size"),
        ("--as separable --sort mac_ratio --top 3", "ratio"),  # of rows that are all kept
        ("--as separable --where 'separable_params > 1000'", "separable params"),
    ],
)
def test_what_the_command_line_names_has_a_column_at_any_width(options, head, columns, model):
    _, rest = model(f"{FULL} {options}", columns=columns).stdout.split("\n\n", 1)
    table, sentences = rest.split("1,654,672 MACs")
    assert all(re.search(rf"\b{word}\b", table) for word in head.split())
    assert head not in " ".join(sentences.partition("not shown: ")[2].split())


def test_several_models_are_a_row_each_and_one_fault_hides_none(model):
    result = model("nets.py:net nets.py:nothing nets.py:Net --input 3x32x32 -f json --sort macs")
    assert result.code == 2
    assert result.error.startswith("nets.py:nothing: nets.py has no attribute 'nothing'")
    alone = read_json(model(f"{FULL} -f json"))["total"]
    report = json.loads(result.stdout)
    assert [row["name"] for row in report["rows"]] == ["nets.py:Net", "nets.py:net"]
    assert report["rows"][0] == alone | {"name": "nets.py:Net", "kind": "model"}
    assert report["total"] is None
    assert model("nets.py:net nets.py:Net --input 3x32x32 --depth 1").error == (
        "--depth sums the rows of one model; give one, or drop it"
    )


def test_depth_sums_rows_by_their_paths(model):
    report = read_json(model(f"{FULL} -f json --depth 1"))
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [
        *("stem", "tower", "depthwise", "grouped", "up", "mix", "the model", "head")
    ]
    assert sum(row["macs"] for row in rows.values()) == report["total"]["macs"]
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert (rows["tower"]["kind"], rows["tower"]["params"]) == ("Sequential", 2320 + 32)
    assert rows["tower"]["crosscheck"] == "exact"
    assert names(model(f"{FULL} -f json --depth 9")) == names(model(f"{FULL} -f json"))
    assert "--depth all" not in model(f"{FULL} --depth 1").stdout  # where nothing is summed
    assert "16 operators in 2 rows; --depth all shows" in model(f"{GHOSTS} --depth 1").stdout


def test_what_a_table_folds_by_itself_and_its_width_do_not_reach_a_machine(model):
    expected = model(f"{GHOSTS} -f json", columns=80)
    assert len(read_json(expected)["rows"]) == 24
    assert model(f"{GHOSTS} -f json", columns=40) == expected
    assert model(f"{GHOSTS} -f json --depth all", columns=200) == expected
    folded, unfolded = (model(f"{GHOSTS} {depth}").stdout for depth in ("", "--depth all"))
    assert (folded.count("pointwise"), unfolded.count("pointwise")) == (2, 8)
    page = model(f"{GHOSTS} -f markdown").stdout
    assert [
        re.match(r"\| (\S+) \| 4 x", line)[1] for line in page.splitlines() if " 4 x" in line
    ] == [
        f"feature\\_extractor\\_stage\\_{stage}.0-3{part}"
        for stage in ("one", "two")
        for part in ("", ".primary\\_conv.0", ".cheap\\_operation.0")
    ]


@pytest.mark.parametrize(
    ("options", "rewritten"),
    [
        ("", ["stem", "tower.0"]),
        ("--only 'tower.*'", ["tower.0"]),
        ("--except stem", ["tower.0"]),
        ("--only stem --only 'tow*' --except '*.0'", ["stem"]),
        ("--only mix", []),
    ],
)
def test_only_and_except_choose_what_is_rewritten(options, rewritten, model):
    report = read_json(model(f"{FULL_AS} -f json {options}"))
    assert [row["name"] for row in report["rows"] if not row["kept"]] == rewritten
    saved = sum(row["saved_macs"] for row in report["rows"])
    assert report["total"]["macs"] - report["total"]["separable_macs"] == saved
    assert report["total"]["crosscheck"] == "exact"
    shown = model(f"{FULL_AS} {options}").stdout
    assert ("as separable: the same; there is no convolution to rewrite" in shown) is not rewritten


# The table.


def test_long_module_paths_are_shortened_before_the_table_is_stacked(model):
    args = f"{GHOSTS} --sort macs"
    paths = names(model(f"{args} -f json"))[:16]
    wide, narrow = (model(args, columns=n).stdout.splitlines() for n in (200, 60))
    assert len(narrow) <= len(wide) + 4  # sentences that are wrapped, and columns not shown
    rows = [line for line in narrow if "…" in line]
    assert len(rows) == 16
    assert all(len(line) <= 60 for line in narrow)
    for path, line in zip(paths, rows, strict=True):
        assert re.fullmatch(re.escape(line.split()[0]).replace("…", ".+"), path)
    assert len({line.split()[0] for line in rows}) == 16
    numbers = re.compile(r"  ([\d,]+) +([\d,]+) +([\d.]+%)")
    assert [numbers.findall(line) for line in rows] == [
        numbers.findall(line) for line in wide if line.startswith("feature_")
    ]
    assert narrow[-1] == "not shown: columns kind, channels, output"


@pytest.mark.parametrize(
    ("path", "shortened"),
    [
        ("backbone.low_level_features.{}.conv.0.0", "b.l.{}.conv.0.0"),
        ("backbone.low_level.branch_pool.{}.conv.inner.0", "b.l.b.{}.c.i.0"),
    ],
)
def test_paths_that_begin_alike_are_told_apart_by_all_but_their_first_names(path, shortened):
    paths = [path.format(n) for n in range(9)]
    columns = [Column("layer", str, role="name"), Column("kind", lambda _: "conv", LATE)]
    layout = fitted(Sheet.of("", columns, paths, [], paths=True, flat=True), 16, len, "…")
    assert layout.rows == [[shortened.format(n)] for n in range(9)]


def test_paths_are_shortened_with_dots_in_ascii_and_never_for_machines(model, monkeypatch):
    args = f"{GHOSTS} --sort macs"
    assert "…" not in "".join(model(f"{args} -f {form}").stdout for form in ("csv", "markdown"))
    assert "…" not in model(f"{args} -f svg").stdout
    monkeypatch.setattr("rich.console.ConsoleOptions.ascii_only", property(lambda self: True))
    narrow = model(args).stdout
    assert narrow.isascii()
    assert re.search(r"^feature\S*\.\.\.\S*_conv\.0 ", narrow, re.MULTILINE)


# Machines.


@pytest.mark.parametrize(("args", "block"), [(FULL, None), (FULL_AS, SEPARABLE)])
def test_json_is_rows_and_their_total(args, block, model):
    report = read_json(model(f"{args} -f json"))
    known = [field.name for field in fields("model", block)]
    assert list(report) == [
        *("schema", "version", "convention", "command", "as", "inputs"),
        *("rows", "total", "notes", "checks"),
    ]
    assert report["as"] == (block and "separable")
    assert (report["inputs"], report["notes"]) == ("1x3x32x32", [])
    assert [list(row) for row in [*report["rows"], report["total"]]] == [known] * 10
    replaced = ("separable_macs", "separable_params") if block else ()
    for name in ("macs", "params", "trainable_params", "known_macs", "activations", *replaced):
        assert sum(row[name] for row in report["rows"]) == report["total"][name]
    assert report["total"]["torch_macs"] == report["total"]["macs"]
    assert report["total"]["torch_params"] == report["total"]["params"]


def test_flops_are_twice_the_macs_under_their_own_name(model):
    macs = read_json(model(f"{FULL_AS} -f json"))["total"]
    flops = read_json(model(f"{FULL_AS} -f json --unit flops"))["total"]
    for name in ("macs", "known_macs", "separable_macs", "torch_macs", "depthwise_macs"):
        assert flops[name.replace("macs", "flops")] == 2 * macs[name]
    assert flops["params"] == macs["params"]


@pytest.mark.parametrize(("args", "block"), [(FULL, None), (FULL_AS, SEPARABLE)])
@pytest.mark.parametrize("unit", ["macs", "flops"])
def test_all_machine_formats_have_the_same_rows(unit, args, block, model):
    outputs = {form: model(f"{args} -f {form} --unit {unit}") for form in ("json", "jsonl", "csv")}
    rows = read_json(outputs["json"])["rows"]
    assert [json.loads(line) for line in outputs["jsonl"].stdout.splitlines()] == rows
    lines = list(csv.DictReader(io.StringIO(outputs["csv"].stdout)))
    assert list(lines[0]) == [field.name for field in fields("model", block, unit)]
    assert [(line["name"], int(line[unit])) for line in lines] == [
        (row["name"], row[unit]) for row in rows
    ]


def test_markdown_and_svg_hold_the_rows_with_macs(model):
    title, answer, table, *notes = model(f"{FULL} -f markdown").stdout.strip().split("\n\n")
    assert title == "**nets.py:Net at 3x32x32**"
    assert answer == "1,654,672 MACs (1.65 M), 6,106 params; 1 MAC = 2 FLOPs"
    assert len(table.splitlines()) == 2 + 8 + 1
    assert notes[-1] == "not shown: 1 BatchNorm2d without MACs (32 params)"
    picture = ElementTree.fromstring(model(f"{FULL} -f svg").stdout)
    drawn = " ".join(
        " ".join(element.itertext()) for element in picture.iter() if "text" in element.tag
    )
    for row in read_json(model(f"{FULL} -f json"))["rows"][:8]:
        name = row["name"].replace("the model", "(depthwise)")
        assert name in drawn.replace("\N{NO-BREAK SPACE}", " ")
        assert f"{row['macs']:,}" in drawn


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_file_holds_what_stdout_would(form, model, here):
    expected = model(f"{FULL} -f {form}", columns=300).stdout
    assert model(f"{FULL} -f {form} -o report", columns=300) == (0, "", "")
    assert (here / "report").read_text("utf-8") == expected


@pytest.mark.parametrize(
    ("args", "name", "start"),
    [(FULL, "a.png", b"\x89PNG"), (FULL, "a.PDF", b"%PDF"), (UNKNOWN, "a.svg", b"<?xml")],
)
def test_a_plot_is_drawn_beside_the_report(args, name, start, model, here):
    assert model(f"{args} --plot {name} --get params") == model(f"{args} --get params")
    assert (here / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("args", "title", "values"),
    [
        (FULL, "nets.py:Net at 3x32x32: 1,654,672 MACs (1.65 M)", True),
        (UNKNOWN, "nets.py:Unknown at 3x8x8: at least 7,776 MACs", False),
    ],
)
def test_bars_have_shares_if_the_total_is_known(args, title, values, model, here):
    model(f"{args} --plot a.svg")
    shown = re.findall("<!-- (.*) -->", (here / "a.svg").read_text("utf-8"))
    assert title in shown
    assert any(re.fullmatch(r"[\d.,]+( [KM])? \([\d.]+%\)", text) for text in shown) is values


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize(
    ("condition", "code", "verdict"),
    [
        ("macs <= 600M", 0, "holds: macs <= 600M\n"),
        ("macs <= 20K", 1, "failed: macs <= 20K: macs is 20,160\n"),
        ("params == 584", 0, "holds: params == 584\n"),
        ("mac_ratio <= 1/3", 1, "failed: mac_ratio <= 1/3: mac_ratio is 0.3625 (29/80)\n"),
        ("torch_macs == 20160", 0, "holds: torch_macs == 20160\n"),
    ],
)
def test_an_assertion_decides_the_exit_code_and_is_in_the_json(
    form, condition, code, verdict, model
):
    args = f"{NET} -f {form} --assert '{condition}'"
    args += " --as separable" if "ratio" in condition else ""
    result = model(args)
    assert (result.code, result.stderr) == (code, verdict)
    assert model(f"{args} -q") == (code, result.stdout, "")
    if form == "json":
        [check] = json.loads(result.stdout)["checks"]
        assert (check["assertion"], check["holds"]) == (condition, code == 0)


def test_without_verification_torch_alone_has_counted(model):
    total = read_json(model(f"{FULL} -f json --no-verify"))["total"]
    verified = read_json(model(f"{FULL} -f json"))["total"]
    assert (total["macs"], total["torch_macs"]) == (verified["macs"], verified["macs"])
    assert (total["fvcore_macs"], total["crosscheck"]) == (None, "skipped")
    shown = model(f"{FULL} --no-verify").stdout
    assert "\nnot checked (--no-verify)\n" in shown
    assert "✓" not in shown
    for wish in ("--get fvcore_macs", "--assert 'fvcore_macs < 1'"):
        result = model(f"{FULL} --no-verify {wish}")
        assert (result.code, result.stdout) == (2, "")
        assert result.error == "fvcore_macs comes from the cross-check; drop --no-verify"


# What is not known.


def test_a_total_that_is_not_known_is_null_and_names_the_operator(model):
    report = read_json(model(f"{UNKNOWN} --as separable -f json"))
    total = report["total"]
    assert (total["known_macs"], total["unknown"]) == (7776, {"aten::linalg_inv_ex": 1})
    assert report["notes"] == ["no formula for aten::linalg_inv_ex"]
    nulls = ("macs", "separable_macs", "mac_ratio", "mac_ratio_exact", "saved_macs", "share")
    assert [total[name] for name in nulls] == [None] * len(nulls)
    assert (total["params"], total["separable_params"]) == (224, 62)
    assert total["crosscheck"] == "not proved"
    assert total["param_ratio"] == pytest.approx(62 / 224)
    assert model(f"{UNKNOWN} --get params --get kernel_size") == (0, "224\t\n", "")


@pytest.mark.parametrize("field", ["macs", "separable_macs", "mac_ratio", "activations"])
def test_asking_for_what_is_not_known_names_the_operator(field, model):
    reason = f"{field} is not known: no formula for aten::linalg_inv_ex"
    result = model(f"{UNKNOWN} --as separable --get {field}")
    assert (result.code, result.stdout, result.error) == (2, "", reason)
    result = model(f"{UNKNOWN} --as separable --assert '{field} < 1'")
    assert (result.code, result.error) == (2, f"cannot check '{field} < 1': {reason}")


def test_an_operator_dropped_from_those_without_macs_is_named(model, monkeypatch):
    for name in ("native_batch_norm", "_native_batch_norm_legit_no_training"):
        monkeypatch.delitem(operators.NO_MACS, f"aten::{name}")
    result = model(f"{FULL} --get macs")
    assert result.code == 2
    assert re.fullmatch(r"macs is not known: no formula for aten::\w*batch_norm\w*", result.error)


def test_without_macs_there_is_no_tick(model, here):
    (here / "none.py").write_text("from torch import nn\nnet = nn.Embedding(7, 4)\n")
    result = model("none.py:net --input 5:int64")
    assert (result.code, result.stderr) == (0, "")
    assert "\n0 MACs, 28 params; 1 MAC = 2 FLOPs\n" in result.stdout
    assert "✓" not in result.stdout


# Names of fields.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "ratio",
            "unknown field 'ratio'; did you mean mac_ratio or mac_ratio_exact or param_ratio?",
        ),
        ("flops", "flops needs --unit flops"),
        ("mac", "unknown field 'mac'; did you mean macs or nonzero_macs or known_macs?"),
    ],
)
def test_another_name_is_answered_with_what_was_meant(name, reason, model):
    assert model(f"{NET} --as separable --get {name}").error == reason


# Names are printed as they are.


def test_markup_and_escapes_in_a_module_path_are_printed_literally(model):
    args = "nets.py:marked --input 3x8x8"
    name = r"[red]|<b>\x1b[31m"
    for columns in (40, 200):
        result = model(args, columns=columns)
        assert (result.code, result.stderr) == (0, "")
        assert name in result.stdout
        assert "\x1b" not in result.stdout
    assert r"\[red]\|\<b>\\x1b\[31m" in model(f"{args} -f markdown").stdout
    assert names(model(f"{args} -f json")) == [name]
    assert "\x1b" not in model(f"{args} -f csv").stdout
    assert "<b>" not in model(f"{args} -f svg").stdout


# What is refused.


ERRORS = {
    "nets.py --input 3x8x8": "a model must be MODULE:ATTR, such as mymodels.py:Net, got 'nets.py'; "
    "did you mean nets.py:Net or nets.py:Attention or nets.py:Two?",
    "nets.py:nett --input 3x8x8": "nets.py has no attribute 'nett'; did you mean net?",
    "nets.py:Needy --input 3x8x8": "nets.py:Needy cannot be called like this (Needy.__init__() "
    "missing 1 required positional argument: 'channels'); it takes (channels, *, classes): give "
    '--kwargs \'{"channels": ..., "classes": ...}\', or name a function that calls it',
    "nets.py:net": "Sequential cannot run on these inputs (missing a required argument: 'input'); "
    "forward takes (input): give --input input=CxHxW",
    "nets.py:Two --input 3x8x8": "Two cannot run on these inputs (missing a required argument: "
    "'mask'); forward takes (image, mask): give --input image=CxHxW --input mask=CxHxW; if it is a "
    "flag or a number, mask:=true",
    "nets.py:Two --input 3x8x8 --input 1x8x8 --input 3": "Two cannot run on these inputs (too many "
    "positional arguments); forward takes (image, mask): give --input image=CxHxW --input "
    "mask=CxHxW; if it is a flag or a number, mask:=true",
    "nets.py:net --input 3xx8": "--input must be a shape such as 3x224x224, got '3xx8'",
    "nets.py:net --input 3x8x8 --batch 0": "--batch must be at least 1, got 0",
    "nets.py:wrong --input 3x8x8": "1.1 (Conv2d) cannot run on these inputs (RuntimeError: Given "
    "groups=1, weight of size [8, 16, 3, 3], expected input[1, 8, 6, 6] to have 16 channels, but "
    "got 8 channels instead); forward takes (input): check the shapes and dtypes",
    "nets.py:net --input 3x8x8 --sort mac_ratio": "mac_ratio needs --as BLOCK, such as --as "
    "separable",
    "nets.py:net --input 3x8x8 --get separable_macs": "separable_macs needs --as separable",
    "nets.py:net --input 3x8x8 --only 0": "--only needs --as BLOCK, such as --as separable",
    "nets.py:net --input 3x8x8 --except 0": "--except needs --as BLOCK, such as --as separable",
    "nets.py:net --input 3x8x8 --as fused --sort mac_rati": "unknown field 'mac_rati'; did you "
    "mean mac_ratio or mac_ratio_exact?",
    "nets.py:net --input 3x8x8 --top 0": "--top must be at least 1, got 0",
    "nets.py:net --input 3x8x8 --depth few": (
        "--depth, if it is not all, must be a whole number such as 2, got 'few'"
    ),
    "nets.py:net --input 3x8x8 --as fused --only 'zz*'": "'zz*' matches no convolution of the "
    "model; choose from 0, 2",
    "nets.py:Net --input 3x32x32 --as fused --except tower": "'tower' matches no convolution of "
    "the model; did you mean tower.0?",
    "nets.py:net --input 3x8x8 --as seperable": "--as: unknown block 'seperable'; did you mean "
    "separable?",
    "nets.py:net --input 3x8x8 --plot a.gif": "--plot needs a file that ends in .png, .svg or "
    ".pdf, got a.gif",
}


@pytest.mark.parametrize("args", ERRORS)
def test_an_error_is_one_line_that_names_the_value_and_the_fix(args, model):
    result = model(args)
    assert (result.code, result.stdout) == (2, "")
    assert result.error == ERRORS[args]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("args", "pattern"),
    [
        (f"net --input 3x8x8 -b {10**30}", f"torch cannot make an input of {10**30}x3x8x8 .*"),
        ("net --input 3x8x8 --dtype int64", r"0 \(Conv2d\) cannot run on these inputs \(.*"),
        ("OneDict --input 3x8x8", r"OneDict cannot run .*; forward takes \(batch\), which seems "
         r"not to be a plain tensor: write a function .* name it with --inputs MODULE:ATTR"),
        ("Exits --input 3x8x8", r"Exits cannot run on these inputs \(SystemExit: bye, at nets.*"),
        ("OnCuda --input 3x8x8", r"nets\.py:\d+: OnCuda\(\) needs CUDA in 'self\.conv\.cuda.*"),
        ("quantised --input 3x8x8", r"1 is a quantised module \(Linear\), .*; audit the float .*"),
        ("net --input 3x8x8 --dtype int8", "invalid value for '--dtype': 'int8' is not .*"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_line_too(args, pattern, model):
    result = model(f"nets.py:{args}")
    assert (result.code, result.stdout) == (2, "")
    assert re.fullmatch(pattern, result.error)


BROKEN = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "import argparse; argparse.ArgumentParser().parse_args(['--nope'])": "SystemExit: 2",
    "raise ValueError('two\\nlines')": "ValueError: two",
}


@pytest.mark.parametrize("code", BROKEN)
def test_an_error_in_the_users_file_names_its_line_and_with_v_shows_it_alone(code, model, here):
    (here / "broken_model.py").write_text(f"import torch\n{code}\n")
    result = model("broken_model.py:net --input 3x8x8")
    assert (result.code, result.stdout) == (2, "")
    reason = f"broken_model.py:2: importing broken_model.py failed ({BROKEN[code]})"
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"error: {reason}")
    verbose = model("broken_model.py:net --input 3x8x8 -v").stderr
    assert re.search(r'File ".*broken_model.py", line 2', verbose)
    assert verbose.splitlines()[-1] == error


def test_a_file_is_run_with_its_own_name_for_a_command_line(model, here):
    (here / "script.py").write_text(
        "import sys\nassert sys.argv == ['script.py']\nfrom nets import net\n"
    )
    assert model("script.py:net --input 3x8x8 --get macs -q") == (0, f"{NET_MACS}\n", "")


def test_without_torch_there_is_one_line(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "dscalc.pytorch.target", None)
    result = model(NET)
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith("this needs torch and fvcore, but importing them failed (")


# Planted faults.


@pytest.fixture
def fault(monkeypatch):
    """One MAC too few for each convolution of 16 channels to 16, by a wrong leaf formula."""
    right = operators.LEAVES["aten::convolution"]

    def wrong(features, weight, *rest, output):
        return right(features, weight, *rest, output=output) - (tuple(weight) == (16, 16, 3, 3))

    monkeypatch.setitem(operators.LEAVES, "aten::convolution", wrong)


@pytest.mark.usefixtures("fault")
def test_a_fault_is_marked_named_and_exits_with_1(model):
    result = model(FULL, columns=110)
    assert result.code == 1
    assert result.stderr == (
        "failed: mismatch: tower.0: fvcore_macs is 1,179,648, but the formula gives 1,179,646\n"
        "failed: mismatch: torch's FlopCounterMode gives 1,654,672 MACs for the model, but the "
        "formulas give 1,654,670\n"
    )
    marks = re.findall(r"^(\S+)  .* ([\d,]+ ✗) .*%", result.stdout, re.MULTILINE)
    assert dict(marks) == {"tower.0": "1,179,646 ✗", "total": "1,654,670 ✗"}
    assert "\n✗ torch's FlopCounterMode gives 1,654,672 MACs for the model, but " in result.stdout
    assert "✓" not in result.stdout


@pytest.mark.usefixtures("fault")
def test_a_fault_in_one_of_several_models_is_said_once(model):
    target, options = FULL.split(" ", 1)
    result = model(f"{target} {target} {options} --verify --unit flops")
    once = (
        "failed: mismatch: tower.0: fvcore_flops is 2,359,296, but the formula gives 2,359,292\n"
        "failed: mismatch: torch's FlopCounterMode gives 1,654,672 MACs for the model, but the "
        "formulas give 1,654,670\n"
    )
    assert (result.code, result.stderr) == (1, once * 2)


@pytest.mark.usefixtures("fault")
def test_a_fault_is_a_mismatch_for_machines_and_in_rows_that_are_not_shown(model):
    result = model(f"{FULL} -f json -q")
    report = json.loads(result.stdout)
    assert (result.code, result.stderr) == (1, "")
    assert [row["name"] for row in report["rows"] if row["crosscheck"] == "mismatch"] == ["tower.0"]
    assert report["total"]["crosscheck"] == "mismatch"
    assert model(f"{FULL} --get crosscheck -q") == (1, "mismatch\n", "")
    assert "tower.0" in model(f"{FULL} --top 1").stderr
    parts = json.loads(model(f"{FULL} --depth 1 -f json -q").stdout)["rows"]
    assert [row["name"] for row in parts if row["crosscheck"] == "mismatch"] == ["tower"]


def test_where_fvcore_cannot_count_the_rest_is_still_answered(model, monkeypatch):
    def refuse(steps):
        raise import_module("dscalc.errors").CrosscheckError("fvcore cannot count aten::nope")

    monkeypatch.setattr(AUDIT, "count", refuse)
    result = model(FULL)
    assert result.code == 2
    assert result.error == "fvcore cannot count aten::nope; skip the check with --no-verify"
    assert (0, result.stdout, "") == model(f"{FULL} --no-verify")


# Around the run.


def test_progress_is_shown_on_a_terminal_and_not_elsewhere(model, monkeypatch):
    expected = model(NET)
    assert expected.stderr == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    watched = model(NET)
    assert watched.stdout == expected.stdout
    assert "counting nets.py:net" in watched.stderr
    assert model(f"{NET} -q") == expected


def test_the_command_runs_as_a_process_and_leaves_nothing_behind(spawn, here):
    result = spawn(f"model {NET} --get macs --get crosscheck")
    assert result == (0, f"{NET_MACS}\texact\n", "")
    assert {path.name for path in Path(here).iterdir()} - {"__pycache__"} == {"nets.py"}


# Models that write past Python, end the process, or bring tensors of their own.

UNUSUAL = """
import os, subprocess
import torch
from torch import nn
from torch.utils._pytree import tree_map_only


class Writes(nn.Conv2d):
    def forward(self, x):
        os.write(1, b"from C\\\\n")
        subprocess.run(["echo", "from a child"])
        print("from Python")
        return super().forward(x)


class Exits(nn.Conv2d):
    def forward(self, x):
        os._exit(0)


class Logged(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(cls, lambda tensor: tensor.inner, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, cls, func(*args, **kwargs))


def writes():
    return Writes(3, 8, 3)


def exits():
    return Exits(3, 8, 3)


def ends_at_once():
    os._exit(0)


def plain():
    return nn.Linear(8, 8)


def logged():
    linear = nn.Linear(8, 8)
    linear.weight = nn.Parameter(Logged(linear.weight.detach()))
    return nn.Sequential(linear)
"""


@pytest.fixture
def unusual(tmp_path):
    (tmp_path / "unusual.py").write_text(UNUSUAL.replace("\\\\n", "\\n"), "utf-8")


@pytest.mark.usefixtures("unusual")
def test_what_is_written_past_python_stays_out_of_the_answer(spawn):
    result = spawn("model unusual.py:writes --input 3x8x8 -f json")
    assert result.code == 0
    assert json.loads(result.stdout)["total"]["macs"] == 8 * 27 * 36
    assert set(result.stderr.splitlines()) == {"from C", "from a child", "from Python"}


@pytest.mark.usefixtures("unusual")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_model_runs_where_a_stream_is_closed(closed, tmp_path):
    line = f"{sys.executable} -m dscalc model unusual.py:writes --input 3x8x8 {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stdout + done.stderr
    assert (b"MACs" in done.stdout) == (closed == "2>&-")


@pytest.mark.usefixtures("unusual")
@pytest.mark.parametrize("name", ["exits", "ends_at_once"])
def test_a_model_that_ends_the_process_is_no_success(name, spawn):
    result = spawn(f"model unusual.py:{name} --input 3x8x8")
    assert (result.code, result.stdout) == (2, "")
    said = r"os\._exit\(0\), at unusual.py:\d+, would end dscalc without an answer; raise an error "
    assert re.match(f"(unusual.py:.*: )?{said}", result.error)


@pytest.mark.usefixtures("unusual")
def test_a_note_that_takes_the_tick_away_does_so_in_every_format(model):
    args = "unusual.py:logged --input 8"
    note = "Logged is a tensor with operators of its own (__torch_dispatch__): its products count "
    shown = model(args, columns=200).stdout
    assert f"\nnote: {note}" in shown
    assert "\nnot checked as a whole: a note says why\n" in shown
    assert "✓" not in shown + model(f"{args} -f markdown").stdout + model(f"{args} -f svg").stdout
    report = json.loads(model(f"{args} -f json").stdout)
    assert (report["total"]["macs"], report["total"]["crosscheck"]) == (64, "not proved")
    assert report["notes"][0].startswith(note)
    [row] = csv.DictReader(io.StringIO(model(f"{args} -f csv").stdout))
    assert (row["macs"], row["crosscheck"]) == ("64", "not proved")
    both = model(f"unusual.py:plain {args}", columns=200).stdout
    assert f"\nnote: unusual.py:logged: {note}" in both
    assert "\n✓" not in both
