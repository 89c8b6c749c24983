"""The reader of networks, their totals, and what is said of a bad file."""

import csv
import io
import json
import re
import sys
import zlib
from importlib import import_module
from importlib.resources import files
from itertools import product
from xml.etree import ElementTree

import pytest

from dscalc import compare, scaled_channels
from dscalc.errors import FileError
from dscalc.inputs.network import read_network, shipped
from dscalc.pytorch import crosscheck
from dscalc.record.fields import Record

# The package also exports the function of this name.
THE_MODULE = import_module("dscalc.pytorch.crosscheck")

NAMES = list(shipped())
FORMATS = ["table", "json", "jsonl", "csv", "markdown", "svg"]
SMALL = """\
name,kind,in_channels,out_channels,kernel_size,stride,input_size
stem,conv,3,8,3,2,9
mix,separable,,16,3,,
pool,pool,,,global,,
fc,linear,,10,,,
"""


def read(text, **options):
    data = text if isinstance(text, bytes) else text.encode()
    return read_network(io.BytesIO(data), "net", **options)


def refused(data, **options):
    """The lines of the error, without the name of the file."""
    with pytest.raises(FileError) as raised:
        read(data, **options)
    lines = str(raised.value).split("\n")
    assert all(line.startswith("net:") for line in lines)
    assert all(line.isprintable() for line in lines)
    return [line.removeprefix("net:") for line in lines]


def starts(lines, reasons):
    """Whether there is a line for each reason, in their order, and one for nothing else."""
    assert len(lines) == len(reasons), lines
    for line, reason in zip(lines, reasons, strict=True):
        assert line.startswith(reason)


def rows_in_json(text):
    """A network in CSV as JSON Lines: numbers as numbers, sizes as lists."""

    def value(cell):
        if cell.isdigit():
            return int(cell)
        if re.fullmatch(r"\d+(x\d+)+", cell):
            return [int(length) for length in cell.split("x")]
        return {"true": True, "false": False}.get(cell, cell)

    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return "".join(
        json.dumps({column: value(cell) for column, cell in row.items() if cell}) + "\n"
        for row in csv.DictReader(lines)
    )


def text_of(name):
    return (files("dscalc") / f"inputs/networks/{name}.csv").read_text("utf-8")


# Kinds.

INPUT = "in,norm,8,,,5,,,,\n"  # 8 channels on a 5x5 map
COLUMNS = (
    "name,kind,in_channels,out_channels,kernel_size,input_size,stride,groups,"
    "depth_multiplier,bias\n"
)


@pytest.mark.parametrize(
    ("row", "output", "counts"),
    [
        ("conv,,16,3,,,,,", (16, (5, 5)), (28_800, 1152, 28_800, 1152)),
        ("conv,,16,3,,2,,,", (16, (3, 3)), (10_368, 1152, 10_368, 1152)),
        ("conv,,16,3,,,2,,", (16, (5, 5)), (14_400, 576, 14_400, 576)),
        ("conv,,16,3,,,,,true", (16, (5, 5)), (28_800, 1168, 28_800, 1168)),
        ("conv,,16,1x3,,1x2,,,", (16, (5, 3)), (5760, 384, 5760, 384)),
        ("separable,,16,3,,,,,", (16, (5, 5)), (28_800, 1152, 5000, 200)),
        ("separable,,16,3,,,,2,", (16, (5, 5)), (28_800, 1152, 10_000, 400)),
        ("separable,,16,3,,2,,,true", (16, (3, 3)), (10_368, 1168, 1800, 224)),
        ("depthwise,,,3,,,,,", (8, (5, 5)), (14_400, 576, 1800, 72)),
        ("depthwise,,,3,,,,2,", (16, (5, 5)), (28_800, 1152, 3600, 144)),
        ("depthwise,,,3,,2,,,true", (8, (3, 3)), (5184, 584, 648, 80)),
        ("linear,,10,,,,,,", (10, ()), (2000, 2000, 2000, 2000)),
        ("linear,,10,,,,,,true", (10, ()), (2000, 2010, 2000, 2010)),
        ("pool,,,2,,,,,", (8, (2, 2)), (0, 0, 0, 0)),
        ("pool,,,3,,1,,,", (8, (3, 3)), (0, 0, 0, 0)),
        ("pool,,,global,,,,,", (8, (1, 1)), (0, 0, 0, 0)),
        ("norm,,,,,,,,", (8, (5, 5)), (0, 16, 0, 16)),
    ],
)
def test_each_kind_has_its_costs(row, output, counts):
    _, layer = read(f"{COLUMNS}{INPUT},{row}\n")
    assert (layer.out_channels, layer.output_size) == output
    standard_macs, standard_params, *_, separable_macs, separable_params = layer.counts
    assert (standard_macs, standard_params, separable_macs, separable_params) == counts
    assert crosscheck(layer) == layer.counts


def test_a_separable_layer_is_the_comparison_of_its_sizes():
    _, layer = read(f"{COLUMNS}{INPUT},separable,,16,3x5,,2,,3,true\n")
    assert layer.comparison == compare(
        8, 16, (3, 5), (5, 5), stride=2, depth_multiplier=3, bias=True
    )


def test_a_depthwise_layer_stands_beside_the_full_convolution_of_its_channels():
    _, layer = read(f"{COLUMNS}{INPUT},depthwise,,,3,,,,,\n")
    assert layer.comparison.standard == compare(8, 8, 3, 5).standard
    assert layer.comparison.depthwise == compare(8, 8, 3, 5).depthwise
    assert layer.comparison.pointwise is None


def test_a_conv_is_the_same_on_both_sides():
    _, layer = read(f"{COLUMNS}{INPUT},conv,,16,3,,,,,\n")
    assert layer.comparison == (layer.comparison.standard, None, None)


def test_a_linear_layer_takes_the_whole_map():
    layers = read(
        "kind,in_channels,out_channels,kernel_size,input_size\npool,8,,2,9x7\nlinear,,3,,"
    )
    assert layers[1].in_channels == 8 * 4 * 3


@pytest.mark.parametrize(
    ("padding", "size"), [("same", (3, 3)), ("valid", (2, 2)), ("1x0", (3, 2))]
)
@pytest.mark.parametrize("kind", ["conv", "separable", "depthwise", "pool"])
def test_padding_is_that_of_a_convolution(kind, padding, size):
    out_channels = "4" if kind in ("conv", "separable") else ""
    [layer] = read(
        "kind,in_channels,out_channels,kernel_size,stride,padding,input_size\n"
        f"{kind},4,{out_channels},3,2,{padding},5x5\n"
    )
    assert layer.output_size == size


@pytest.mark.parametrize(
    ("kind", "size"), [("conv", 3), ("separable", 3), ("depthwise", 3), ("pool", 2)]
)
def test_without_a_padding_a_pool_has_none_as_in_torch_and_keras(kind, size):
    out_channels = "4" if kind in ("conv", "separable") else ""
    [layer] = read(
        "kind,in_channels,out_channels,kernel_size,stride,input_size\n"
        f"{kind},4,{out_channels},3,2,5x5\n"
    )
    assert layer.output_size == (size, size)


def test_dilation_is_that_of_a_convolution():
    [layer] = read(
        "kind,in_channels,out_channels,kernel_size,padding,dilation,input_size\n"
        "separable,4,8,3,valid,2x1,9\n"
    )
    assert layer.comparison == compare(4, 8, 3, 9, padding="valid", dilation=(2, 1))


def test_all_but_kind_and_what_its_layer_needs_has_a_default():
    layers = read("kind,in_channels,out_channels,kernel_size,input_size\nseparable,4,8,3,9\n")
    assert [layer.comparison for layer in layers] == [compare(4, 8, 3, 9)]
    assert layers[0].name == "separable1"


def test_an_unnamed_row_is_named_after_its_kind_and_place():
    layers = read("kind,in_channels,kernel_size,input_size\nnorm,4,,9\npool,,2,\nnorm,,,\n")
    assert [layer.name for layer in layers] == ["norm1", "pool2", "norm3"]


# Connections.


def test_a_row_is_fed_by_the_one_before_or_by_the_one_it_names():
    layers = read(
        "name,kind,in_channels,out_channels,kernel_size,stride,input_size,from\n"
        "stem,conv,3,8,3,2,16,\n"
        "body,conv,,32,3,2,,\n"
        "shortcut,conv,,32,1,2,,stem\n"
        "again,depthwise,,,3,,,body\n"
        "next,conv,,4,1,,,\n"
    )
    fed = [(layer.in_channels, layer.input_size) for layer in layers]
    assert fed == [(3, (16, 16)), (8, (8, 8)), (8, (8, 8)), (32, (4, 4)), (32, (4, 4))]


def test_what_a_row_says_of_its_input_may_be_said_again():
    said = read(
        "name,kind,in_channels,out_channels,kernel_size,input_size,from\n"
        "a,conv,3,8,3,16,\nb,pool,8,,2,16x16,\nc,conv,8,4,1,8,\nd,linear,512,2,,8,b\n"
    )
    assert [layer.input_size for layer in said] == [(16, 16), (16, 16), (8, 8), ()]


def test_repeat_stands_for_as_many_rows_in_a_chain():
    header = "name,kind,in_channels,out_channels,kernel_size,stride,input_size,repeat\n"
    first = "a,conv,3,8,3,,32,\n"
    short = read(f"{header}{first}b,separable,,8,3,2,,3\nc,norm,,,,,,\n")
    long = read(
        f"{header}{first}b/1,separable,,8,3,2,,\nb/2,separable,,8,3,2,,\nb/3,separable,,8,3,2,,\n"
        "c,norm,,,,,,\n"
    )
    assert short == long
    assert [layer.output_size[0] for layer in short] == [32, 16, 8, 4, 4]


def test_a_row_is_fed_by_the_last_copy_of_a_repeated_one():
    layers = read(
        "name,kind,in_channels,out_channels,kernel_size,stride,input_size,repeat,from\n"
        "a,conv,3,8,3,2,32,1,\nb,depthwise,,,3,2,,3,\nc,norm,,,,,,,a\nd,norm,,,,,,,b\n"
    )
    assert [layer.input_size[0] for layer in layers[-2:]] == [16, 2]


def test_expansion_multiplies_the_channels_that_come_in():
    layers = read(
        "kind,in_channels,out_channels,expansion,kernel_size,input_size\n"
        "conv,3,8,,3,9\nconv,,,6,1,\nseparable,,,2,3,\nlinear,,,1,,\n"
    )
    assert [layer.out_channels for layer in layers] == [8, 48, 96, 96 * 81]


# Formats.


@pytest.mark.parametrize("name", NAMES)
def test_csv_and_json_lines_give_the_same_layers(name):
    text = text_of(name)
    assert read(rows_in_json(text)) == read(text)


def test_a_format_is_told_by_what_is_in_a_file_and_not_by_its_name(tmp_path, run):
    for number, (ending, text) in enumerate(
        product((".csv", ".jsonl", ".txt", ""), (SMALL, rows_in_json(SMALL)))
    ):
        path = tmp_path / f"{number}{ending}"
        path.write_text(text)
        assert run("network", str(path), "--get", "separable_macs").stdout == "10560\n"


def test_json_takes_numbers_as_text_sizes_as_lists_and_null_as_empty():
    typed = {"kernel_size": [3, 5], "input_size": [9, 7], "bias": False, "repeat": None}
    words = {"kernel_size": "3x5", "input_size": "9x7", "bias": "false", "repeat": ""}
    first, second = (
        read(json.dumps({"kind": "conv", "in_channels": 3, "out_channels": "4", **row}))
        for row in (typed, words)
    )
    assert first == second


@pytest.fixture
def stdin(monkeypatch):
    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


@pytest.mark.parametrize("text", [SMALL, rows_in_json(SMALL)], ids=["csv", "jsonl"])
def test_a_network_is_read_from_stdin(text, run, stdin):
    stdin(text.encode())
    result = run("network - --get separable_macs --verify --get crosscheck")
    assert result == (0, "10560\texact\n", "")


def test_bad_rows_from_stdin_are_named_so(run, stdin):
    stdin(SMALL.replace("pool,pool", "pool,poool").encode())
    result = run("network -")
    assert result == (2, "", "stdin:4: unknown kind 'poool'; did you mean pool?\n")


DRESSED = {
    "a byte order mark": lambda text: "\ufeff" + text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "both": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "no line end at the end": lambda text: text.rstrip("\n"),
    "blank lines": lambda text: "\n  \n" + text.replace("\n", "\n\n \t\n"),
    "comments": lambda text: "# one\n" + text.replace("\n", "\n#,two\n"),
    "a comment with a byte order mark": lambda text: "\ufeff# one\n" + text,
}


@pytest.mark.parametrize("dress", DRESSED.values(), ids=DRESSED)
@pytest.mark.parametrize("text", [SMALL, rows_in_json(SMALL)], ids=["csv", "jsonl"])
def test_a_file_may_have(dress, text):
    assert read(dress(text)) == read(text)


def test_csv_may_have_quotes_spaces_and_rows_of_commas():
    layers = read(
        'kind , name,in_channels,out_channels,"kernel_size",input_size\n'
        '"conv","stem, the ""first""",3, 8 ,3,9\n'
        ",,,,,\n"
        'conv,"two\nlines",,8,3,\n'
    )
    assert [layer.name for layer in layers] == ['stem, the "first"', r"two\nlines"]


def test_lines_are_counted_as_an_editor_does():
    """Over a byte order mark, comments, blank lines, line ends and a cell of several lines."""
    text = (
        "\ufeff# comment\r\n\r\nkind,name,in_channels,input_size\r\n"
        'norm,"two\r\nlines",4,5\r\n# comment\r\n\r\nnorm,bad,x,\r\n'
    )
    starts(refused(text), ["8: in_channels must be a whole number such as 64, got 'x'"])
    text = '\n#\n{"kind": "norm", "in_channels": 4, "input_size": 5}\n{"kind": "x"}\n'
    starts(refused(text), ["4: unknown kind 'x'; "])


# Scale.


def test_width_scales_all_channels_but_the_input_of_the_network_and_its_last_linear_layer():
    text = (
        "kind,in_channels,out_channels,kernel_size,input_size\n"
        "conv,3,32,3,8\nseparable,,65,3,\nlinear,,101,,\nlinear,,10,,\n"
    )
    layers = read(text, width_multiplier="0.5")
    channels = [(layer.in_channels, layer.out_channels) for layer in layers]
    assert channels == [(3, 16), (16, 32), (32 * 64, 50), (50, 10)]
    last_is_norm = read(text + "norm,,,,\n", width_multiplier="0.5")
    assert last_is_norm[-1].out_channels == 5


@pytest.mark.parametrize("width", ["0.25", "0.5", "0.75", "1.4", "1/3"])
def test_widths_are_those_of_mobilenet(width):
    layers = read(text_of("mobilenet_v1"), width_multiplier=width)
    plain = read(text_of("mobilenet_v1"))
    assert [layer.out_channels for layer in layers[:-1]] == (
        [scaled_channels(layer.out_channels, width) for layer in plain[:-1]]
    )


@pytest.mark.parametrize(
    ("width", "rounded", "not_narrower"),
    [
        ("0.35", [16, 8, 8, 8, 16], 1280),  # 11.2, 5.6, 8.4, 0.35, 15.75
        ("0.5", [16, 8, 16, 8, 24], 1280),  # 16, 8, 12, 0.5, 22.5
        ("1.4", [48, 24, 32, 8, 64], 1792),  # 44.8, 22.4, 33.6, 1.4, 63
    ],
)
def test_widths_round_to_multiples_of_8_where_a_row_says_so(width, rounded, not_narrower):
    rows = "".join(f"conv,,{channels},1,,8\n" for channels in (32, 16, 24, 1, 45))
    *layers, last, classifier = read(
        "kind,in_channels,out_channels,kernel_size,input_size,rounding\n"
        f"pool,3,,2,8,\n{rows}conv,,1280,1,,8+\nlinear,,1000,,,\n",
        width_multiplier=width,
    )
    assert [layer.out_channels for layer in layers[1:]] == rounded
    assert (last.out_channels, classifier.out_channels) == (not_narrower, 1000)


def test_without_a_width_multiplier_nothing_is_rounded():
    [layer] = read(
        "kind,in_channels,out_channels,kernel_size,input_size,rounding\nconv,3,13,1,8,8\n"
    )
    assert layer.out_channels == 13


SAID = (  # every row says what comes in
    "kind,in_channels,out_channels,kernel_size,stride,input_size\n"
    "conv,3,32,3,2,64\nseparable,32,64,3,2,32\npool,64,,global,,16\nlinear,64,10,,,1\n"
)


@pytest.mark.parametrize(
    ("options", "channels", "sizes"),
    [
        ({"width_multiplier": "0.5"}, [3, 16, 32, 32], [64, 32, 16]),
        ({"resolution_multiplier": "0.5"}, [3, 32, 64, 64], [32, 16, 8]),
        ({"input_size": 20}, [3, 32, 64, 64], [20, 10, 5]),
        ({"input_size": 20, "resolution_multiplier": "0.5"}, [3, 32, 64, 64], [10, 5, 3]),
    ],
)
def test_what_rows_say_of_their_inputs_is_not_held_against_the_scaled_ones(
    options, channels, sizes
):
    layers = read(SAID, **options)
    assert [layer.in_channels for layer in layers] == channels
    assert [layer.input_size[0] for layer in layers[:-1]] == sizes


def test_but_it_is_held_against_the_unscaled_ones():
    lines = refused(SAID.replace("separable,32", "separable,33"), width_multiplier="0.5")
    assert lines == ["3: in_channels is 33, but the input has 32"]


def test_the_input_size_may_be_given_from_outside_alone(tmp_path, run):
    path = tmp_path / "sizeless.csv"
    path.write_text(SMALL.replace(",2,9", ",2,"))
    assert run("network", str(path)).stderr == (
        f"{path}:2: the first row needs an input_size, or give --input-size\n"
    )
    for size in ("9", "9x9"):
        result = run("network", str(path), "--input-size", size, "--get", "separable_macs")
        assert result == (0, "10560\n", "")


def test_a_resolution_multiplier_rounds_the_input_size_as_mobilenet_does():
    [layer] = read("kind,in_channels,input_size\nnorm,3,14x224\n", resolution_multiplier="0.714")
    assert layer.input_size == (10, 160)


def test_a_batch_multiplies_macs_and_not_parameters(run):
    single, batch = (
        json.loads(run(f"network mobilenet_v2 -b {size} -f json").stdout) for size in (1, 32)
    )
    for row, rows in zip(
        [*single["rows"], single["total"]], [*batch["rows"], batch["total"]], strict=True
    ):
        assert rows["crosscheck"] == "exact"
        for field, value in row.items():
            if field.endswith("_macs") and value:
                assert rows[field] == 32 * value
            elif field.endswith("_params"):
                assert rows[field] == value


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_single_sizes_repeat_over_the_axes_of_the_network(dims, tmp_path, run):
    layers = read(SMALL, dims=dims)
    assert layers[0].output_size == (5,) * dims
    assert layers[1].counts.standard_params == 8 * 16 * 3**dims
    path = tmp_path / "net.csv"
    path.write_text(SMALL)
    result = run("network", str(path), "--dims", str(dims), "--verify", "--get", "crosscheck")
    assert result == (0, "exact\n", "")


# Totals.


def printed(table):
    """Name -> standard MACs, separable MACs and parameters, of each printed row."""
    rows = {}
    for line in table.splitlines():
        match = re.match(
            r" (\S+) .*?([\d,]+)  +([\d,]+)(?: [✓✗])?  +([\d,]+)  +[\d.]+% *[█▏▎▍▌▋▊▉ ]*$", line
        )
        if match:
            name, *cells = match.groups()
            rows[name] = [int(cell.replace(",", "")) for cell in cells]
    return rows


@pytest.mark.parametrize(
    "options", ["", "--verify", "--unit flops -b 3", "--width-multiplier 0.35"]
)
@pytest.mark.parametrize("name", NAMES)
def test_printed_rows_add_up_to_the_printed_total(name, options, run):
    table = run(f"network {name} {options or '--no-verify'}", columns=300).stdout
    rows = printed(table)
    total = rows.pop("total")
    assert len(rows) == len(read(text_of(name)))
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == total


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_no_number_is_broken_at_any_width(columns, run):
    def counts(table):
        return sorted(re.findall(r"\d{1,3}(?:,\d{3})+", table))

    wide = run("network mobilenet_v2", columns=300).stdout
    narrow = run("network mobilenet_v2", columns=columns).stdout
    assert counts(narrow) == counts(wide)
    assert max(map(len, narrow.splitlines())) <= columns


def test_the_share_of_a_layer_is_that_of_all_macs(run):
    table = run("network mobilenet_v1 --no-verify", columns=300).stdout
    bars = {line.split()[0]: line for line in table.splitlines() if "->" in line}
    assert bars["pool"].count("█") == 0
    shares = {name: line.count("█") for name, line in bars.items()}
    assert max(shares, key=shares.get) in ("sep3", "sep5", "sep7/1")


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
@pytest.mark.parametrize("name", NAMES)
def test_totals_are_the_sums_of_the_rows_in_json(name, verify, run):
    report = json.loads(run(f"network {name} {verify} -f json").stdout)
    rows, total = report["rows"], report["total"]
    for field in Record._fields:
        if field.endswith(("_macs", "_params")):
            known = [row[field] for row in rows if row[field] is not None]
            assert total[field] == (sum(known) if known else None)
    assert total["mac_ratio"] == total["separable_macs"] / total["standard_macs"]
    assert total["crosscheck"] == ("exact" if verify == "--verify" else "skipped")


def test_machine_formats_hold_the_rows_and_json_the_total_too(run):
    csv_rows = list(csv.DictReader(run("network mobilenet_v1 -f csv").stdout.splitlines()))
    json_rows = [
        json.loads(line) for line in run("network mobilenet_v1 -f jsonl").stdout.splitlines()
    ]
    report = json.loads(run("network mobilenet_v1 -f json").stdout)
    assert [row["name"] for row in csv_rows] == [row["name"] for row in report["rows"]]
    assert len(csv_rows) == len(json_rows) == 16
    assert report["rows"] == json_rows
    assert report["total"]["name"] == "total"


def test_get_holds_the_total(run):
    result = run("network mobilenet_v1 --get name --get separable_macs --get mac_ratio_exact")
    assert result == (0, "total\t568740352\t1110821/9506432\n", "")
    result = run("network mobilenet_v1 --unit flops --get separable_flops --get input_size")
    assert result == (0, f"{2 * 568_740_352}\t\n", "")


@pytest.mark.parametrize(
    ("condition", "code", "verdict"),
    [
        ("separable_macs <= 569M", 0, "holds: separable_macs <= 569M\n"),
        (
            "separable_macs < 568M",
            1,
            "failed: separable_macs < 568M: separable_macs is 568,740,352\n",
        ),
        ("fvcore_standard_macs == 4867293184", 0, "holds: fvcore_standard_macs == 4867293184\n"),
        (
            "mac_ratio < 1/9",
            1,
            "failed: mac_ratio < 1/9: mac_ratio is 0.116849 (1110821/9506432)\n",
        ),
    ],
)
def test_an_assertion_holds_the_total(condition, code, verdict, run):
    report = run("network mobilenet_v1").stdout
    assert run("network", "mobilenet_v1", "--assert", condition) == (code, report, verdict)


def test_a_network_without_macs_has_totals_too(tmp_path, run):
    path = tmp_path / "net.csv"
    path.write_text("name,kind,in_channels,kernel_size,input_size\nn,norm,4,,8\np,pool,,2,\n")
    for form in FORMATS:
        result = run("network", str(path), "-f", form)
        assert (result.code, result.stderr) == (0, "")
    rows = printed(run("network", str(path)).stdout)
    assert rows == {"n": [0, 0, 8], "p": [0, 0, 0], "total": [0, 0, 8]}


# A planted fault.


@pytest.fixture
def fault(monkeypatch):
    """One MAC more than there is, in the pointwise step of sep4 alone."""
    count = THE_MODULE.conv_flop_count

    def miscount(inputs, weight, outputs, transposed):
        return count(inputs, weight, outputs, transposed) + (weight == [256, 128, 1, 1])

    monkeypatch.setattr(THE_MODULE, "conv_flop_count", miscount)


def test_a_fault_in_one_layer_is_found_and_named(fault, run):
    result = run("network mobilenet_v1", columns=300)
    assert result.code == 1
    assert result.stderr == (
        "failed: mismatch: sep4: fvcore_separable_macs is 26,593,281 "
        "and the formula gives 26,593,280\n"
    )
    marked = [line.split()[0] for line in result.stdout.splitlines() if "✗" in line]
    assert marked == ["sep4", "total", "✗"]


def test_a_fault_in_one_layer_is_in_every_machine_format(fault, run):
    report = json.loads(run("network mobilenet_v1 -f json").stdout)
    wrong = [row["name"] for row in report["rows"] if row["crosscheck"] != "exact"]
    assert wrong == ["sep4"]
    assert report["total"]["crosscheck"] == "mismatch"
    lines = csv.DictReader(run("network mobilenet_v1 -f csv").stdout.splitlines())
    assert [row["name"] for row in lines if row["crosscheck"] != "exact"] == ["sep4"]
    result = run("network mobilenet_v1 --verify --get crosscheck")
    assert result[:2] == (1, "mismatch\n")


def test_a_fault_fails_even_beside_assertions_that_hold(fault, run):
    result = run("network", "mobilenet_v1", "-q", "--assert", "separable_macs < 600M")
    assert result[::2] == (1, "")


def test_a_layer_that_torch_refuses_leaves_the_others_checked(tmp_path, run):
    path = tmp_path / "net.csv"
    huge = 10**30
    path.write_text(
        "name,kind,in_channels,out_channels,kernel_size,input_size\n"
        f"a,conv,3,8,3,9\nb,conv,,{huge},3,\nc,conv,,8,3,\n"
    )
    result = run("network", str(path), "-f", "csv")
    assert result.code == 2
    checks = [row["crosscheck"] for row in csv.DictReader(result.stdout.splitlines())]
    assert checks == ["exact", "skipped", "skipped"]
    for line in result.stderr.splitlines():
        assert line.startswith("error: torch refuses a layer of these sizes, so it is not counted")


# Bad input.

TOP = "name,kind,in_channels,out_channels,kernel_size,stride,input_size,from,repeat\n"
FIRST = "a,conv,3,8,3,,9,,\n"
BAD = {
    "an empty file": (
        "",
        ["1: there are no layers in it; give a header row and one row a layer"],
    ),
    "blank lines alone": (
        "\n \n# comment\n",
        ["1: there are no layers in it; give a header row and one row a layer"],
    ),
    "a header alone": (
        TOP,
        ["1: there are no layers in it; give a header row and one row a layer"],
    ),
    "no header": (
        "conv1,conv,3,8",
        [
            "1: unknown column 'conv1'; known are",
            "1: unknown column 'conv'; known are",
            "1: unknown column '3'; known are",
            "1: unknown column '8'; known are",
            "1: there is no column kind; the first row must name the columns",
        ],
    ),
    "an unknown column": (
        TOP.replace("stride", "strides") + FIRST,
        ["1: unknown column 'strides'; did you mean stride?"],
    ),
    "a column of another program": (
        TOP.replace("stride", "zzz") + FIRST,
        ["1: unknown column 'zzz'; known are bias, depth_multiplier, dilation, "],
    ),
    "a column twice": (
        TOP.replace("stride", "kind") + FIRST,
        ["1: the column 'kind' is there twice"],
    ),
    "no column kind": (
        TOP.replace(",kind", "") + "a,3,8,3,,9,,\n",
        ["1: there is no column kind; the first row must name the columns"],
    ),
    "a semicolon between columns": (
        "name;kind;in_channels\na;conv;3\n",
        [
            "1: there is one column; separate columns with commas",
        ],
    ),
    "a JSON array": (
        '[\n  {"kind": "norm"}\n]\n',
        ["1: it begins like a JSON array; write one JSON object a line instead"],
    ),
    "too many values": (
        TOP + FIRST + "b,conv,,8,3,,,,,\n",
        ["3: 10 values for the 9 columns of the header"],
    ),
    "too few values": (
        TOP + FIRST + "b,conv,,8,3\n",
        ["3: 5 values for the 9 columns of the header"],
    ),
    "an open quote": (
        TOP + FIRST + 'b,"conv,,8,3,,,,\n',
        ["3: malformed CSV: unexpected end of data"],
    ),
    "a quote in the middle": (
        TOP + FIRST + 'b,"con"v,,8,3,,,,\n',
        ["3: malformed CSV: ',' expected after '\"'"],
    ),
    "a carriage return in the middle": (
        TOP + FIRST + "b,conv\rv,,8,3,,,,\n",
        ["3: malformed CSV: new-line character seen in unquoted field"],
    ),
    "no kind": (
        TOP + FIRST + "b,,,8,3,,,,\n",
        ["3: kind is missing; it is one of conv, separable, depthwise, linear, pool, norm"],
    ),
    "an unknown kind": (
        TOP + FIRST + "b,seperable,,8,3,,,,\n",
        ["3: unknown kind 'seperable'; did you mean separable?"],
    ),
    "a kind like no other": (
        TOP + FIRST + "b,attention,,8,3,,,,\n",
        ["3: unknown kind 'attention'; known are conv, separable, depthwise, linear, pool, norm"],
    ),
    "no kernel size": (TOP + FIRST + "b,conv,,8,,,,,\n", ["3: conv needs a kernel_size"]),
    "no kernel size of a pool": (
        TOP + FIRST + "b,pool,,,,,,,\n",
        ["3: pool needs a kernel_size or global"],
    ),
    "no output channels": (
        TOP + FIRST + "b,conv,,,3,,,,\n",
        ["3: conv needs either out_channels or expansion"],
    ),
    "no output channels of a linear layer": (
        TOP + FIRST + "b,linear,,,,,,,\n",
        ["3: linear needs either out_channels or expansion"],
    ),
    "two ways to say the output channels": (
        "kind,in_channels,out_channels,expansion,kernel_size,input_size\nconv,3,8,2,3,9\n",
        ["2: conv needs either out_channels or expansion"],
    ),
    "no input channels": (TOP + "a,conv,,8,3,,9,,\n", ["2: the first row needs in_channels"]),
    "no input size": (
        TOP + "a,conv,3,8,3,,,,\n",
        ["2: the first row needs an input_size, or give --input-size"],
    ),
    "words for numbers": (
        TOP + "a,conv,three,8,3,,9,,\nb,conv,,1.5,3,,,,\nc,conv,,8,3x,,,,\nd,conv,,8,3,,,,many\n",
        [
            "2: in_channels must be a whole number such as 64, got 'three'",
            "3: out_channels must be a whole number such as 64, got '1.5'",
            "4: kernel_size must be a size such as 3 or 3x5, got '3x'",
            "5: repeat must be a whole number such as 64, got 'many'",
        ],
    ),
    "numbers out of range": (
        TOP + "a,conv,0,8,3,,9,,\nb,conv,,-8,3,,,,\nc,conv,,8,3,0,,,\nd,conv,,8,3,,,,0\n",
        [
            "2: in_channels must be at least 1, got 0",
            "3: out_channels must be at least 1, got -8",
            "4: stride must be at least 1, got 0",
            "5: repeat must be at least 1, got 0",
        ],
    ),
    "too many digits": (
        TOP + f"a,conv,{'9' * 101},8,3,,9,,\n",
        ["2: in_channels must have at most 100 digits, got 101"],
    ),
    "a wrong padding, bias and rounding": (
        "name,kind,in_channels,out_channels,kernel_size,input_size,padding,bias,rounding\n"
        "a,conv,3,8,3,9,full,,\nb,conv,3,8,3,9,,yes,\nc,conv,3,8,3,9,,,16\n",
        [
            "2: padding must be same, valid or a size of 0 or more, such as 1 or 1x2, got 'full'",
            "3: bias must be true or false, got 'yes'",
            "4: rounding must be 8 or 8+, got '16'",
        ],
    ),
    "what a kind has not": (
        TOP + "a,norm,3,8,,,9,,\nb,pool,3,,2,,9,,\nc,depthwise,,8,3,,,,\nd,linear,,8,3,,,,\n",
        [
            "2: out_channels has no meaning for kind norm; leave it empty",
            "4: out_channels has no meaning for kind depthwise; leave it empty",
            "5: kernel_size has no meaning for kind linear; leave it empty",
        ],
    ),
    "a global convolution": (
        TOP + FIRST + "b,conv,,8,global,,,,\n",
        ["3: kernel_size must be a size such as 3 or 3x5, got 'global'"],
    ),
    "from that names nothing": (
        TOP + FIRST + "b,conv,,8,3,,,elsewhere,\n",
        ["3: from names 'elsewhere', but there is no such row; known are a"],
    ),
    "from that nearly names a row": (
        TOP + FIRST.replace("a,", "stem,") + "b,conv,,8,3,,,stm,\n",
        ["3: from names 'stm', but there is no such row; did you mean stem?"],
    ),
    "from that names a later row": (
        TOP + FIRST + "b,conv,,8,3,,,c,\nc,conv,,8,3,,,a,\n",
        ["3: from names 'c', but it must come before"],
    ),
    "from that names its own row": (
        TOP + FIRST + "b,conv,,8,3,,,b,\n",
        ["3: from names 'b', but it must come before"],
    ),
    "a first row from elsewhere": (
        TOP + "a,conv,3,8,3,,9,b,\nb,conv,3,8,3,,9,,\n",
        ["2: from names 'b', but it must come before"],
    ),
    "input channels that contradict": (
        TOP + FIRST + "b,conv,9,8,3,,,,\nc,linear,647,8,,,,,\nd,conv,9,8,3,,,a,\n",
        [
            "3: in_channels is 9, but the input has 8",
            "5: in_channels is 9, but the input has 8",
        ],
    ),
    "an input size that contradicts": (
        TOP + FIRST + "b,conv,,8,3,,9x8,,\nc,conv,,8,3,,8,a,\n",
        [
            "3: input_size is 9x8, but the input is 9x9",
            "4: input_size is 8x8, but the input is 9x9",
        ],
    ),
    "features that contradict the map": (
        TOP + FIRST + "b,linear,8,2,,,,,\n",
        ["3: in_channels is 8, but the input has 648"],
    ),
    "channels that contradict their own repetition": (
        TOP + "a,conv,3,8,3,,9,,2\n",
        ["2: in_channels is 3, but the input of its second copy has 8"],
    ),
    "a kernel that does not fit": (
        "kind,in_channels,out_channels,kernel_size,padding,input_size\n"
        "conv,3,8,9,valid,7\npool,,,3,,\n",
        ["2: the kernel spans 9x9, but the padded input is 7x7; use a smaller kernel or "],
    ),
    "a pool that does not fit": (
        "kind,in_channels,kernel_size,padding,input_size\npool,3,9,valid,7\n",
        ["2: the kernel spans 9x9, but the padded input is 7x7; use a smaller kernel or "],
    ),
    "sizes of other axes": (
        TOP + FIRST + "b,conv,,8,3x3x3,,,,\nc,conv,,8,3,,9x9x9,a,\n",
        [
            "3: input_size 9x9 has 2 axes, but the layer has 3",
            "4: input_size 9x9x9 has 3 axes, but the layer has 2",
        ],
    ),
    "groups that do not divide": (
        "kind,in_channels,out_channels,kernel_size,input_size,groups\nconv,3,8,3,9,2\n",
        ["2: groups must divide both channels, got groups 2 for 3 -> 8 channels"],
    ),
    "a convolution after a linear layer": (
        TOP + FIRST + "b,linear,,8,,,,,\nc,conv,,8,3,,,,\nd,pool,,,2,,,b,\n",
        [
            "4: conv needs a map, but a linear layer feeds it",
            "5: pool needs a map, but a linear layer feeds it",
        ],
    ),
    "a name twice": (
        TOP + FIRST + FIRST + "b,conv,,8,3,,,,\nb,conv,,8,3,,,,\n",
        ["3: line 2 has the name a already", "5: line 4 has the name b already"],
    ),
    "more layers than allowed": (
        TOP + FIRST + "b,conv,,8,3,,,,99999999999\n",
        ["3: a network has at most 100,000 layers"],
    ),
    "Latin-1": (
        (TOP + FIRST + "größe,conv,,8,3,,,,\nc,conv,,8,3,,,,\n").encode("latin-1"),
        ["3: the line is not UTF-8 text"],
    ),
    "NUL bytes": (
        TOP + FIRST + "b,con\0v,,8,3,,,,\nc,conv,,8\0,3,,,a,\n",
        [
            r"3: unknown kind 'con\x00v'; did you mean conv?",
            r"4: out_channels must be a whole number such as 64, got '8\x00'",
        ],
    ),
    "a disk of zeros": (
        bytes(2000),
        [
            "1: unknown column '" + r"\x00" * 57 + "...'; known are",
            "1: there is no column kind; the first row must name the columns",
        ],
    ),
    "control characters": (
        TOP + FIRST + "b,\x1b[31m,,8,3,,,,\nc,conv,,8,3,,,\x1b]0;x\x07\u202e,\n",
        [
            r"3: unknown kind '\x1b[31m'; known are",
            r"4: from names '\\x1b]0;x\\x07\\u202e', but there is no such row; known are a",
        ],
    ),
    "a very long line": (
        TOP + FIRST + "b," + "x" * 2**20,
        ["3: the line is longer than 1,048,576 bytes"],
    ),
    "a very long value": (
        TOP + FIRST + f"b,conv,,{'7' * 2**17},3,,,,\n",
        ["3: out_channels must have at most 100 digits, got 131072"],
    ),
    "JSON: a line that is none": (
        '{"kind": "norm", "in_channels": 3, "input_size": 9}\nnorm,3,9\n',
        ["2: malformed JSON: Expecting value at column 1"],
    ),
    "JSON: half an object": (
        '{"kind": "norm", "in_channels": 3\n',
        ["1: malformed JSON: Expecting ',' delimiter at column "],
    ),
    "JSON: over several lines": (
        '{\n "kind": "norm"\n}\n',
        [
            "1: malformed JSON: Expecting property name enclosed in double quotes at column ",
            "2: malformed JSON: Extra data at column 7",
            "3: malformed JSON: Expecting value at column 1",
        ],
    ),
    "JSON: no objects": (
        '{"kind": "norm", "in_channels": 3, "input_size": 9}\n["norm"]\n3\nnull\n',
        [
            "2: each line must be one object, got '[\"norm\"]'",
            "3: each line must be one object, got '3'",
            "4: each line must be one object, got 'null'",
        ],
    ),
    "JSON: values of other types": (
        '{"kind": "norm", "in_channels": 3.5}\n{"kind": {"conv": 1}}\n{"kind": NaN}\n'
        '{"kind": "conv", "kernel_size": [3, true]}\n{"kind": "conv", "kernel_size": []}\n',
        [
            "1: in_channels must be a whole number such as 64, got '3.5'",
            "2: kind must be a string, a whole number, true or false, got {'conv': '1'}",
            "3: kind must be a string, a whole number, true or false, got nan",
            "4: kernel_size must be a string, a whole number, true or false, got ['3', True]",
            "5: kernel_size must be a string, a whole number, true or false, got []",
        ],
    ),
    "JSON: an unknown field": (
        '{"kind": "norm", "in_channel": 3, "input_size": 9}\n',
        ["1: unknown field 'in_channel'; did you mean in_channels?"],
    ),
    "JSON: control characters in a field": (
        '{"kind": "norm", "\\u001b[31m\\n\\u202e": 1.5}\n',
        [r"1: unknown field '\x1b[31m\n\u202e'; known are "],
    ),
    "JSON: too deep": (
        '{"kind": ' + "[" * 100_000 + "\n",
        ["1: "],
    ),
    "JSON: too many digits": (
        '{"kind": "norm", "in_channels": ' + "9" * 5000 + "}\n",
        ["1: in_channels must have at most 100 digits, got 5000"],
    ),
    "JSON: a field twice": (
        '{"kind": "norm", "in_channels": 3, "in_channels": 4, "input_size": 9}\n',
        ["1: 'in_channels' is there twice"],
    ),
    "a wrong row is not held against those after it": (
        TOP + FIRST + "b,conv,,bad,3,,,,\nc,conv,64,128,3,,,,\nd,conv,64,8,3,,,b,\n",
        ["3: out_channels must be a whole number such as 64, got 'bad'"],
    ),
    "a wrong first row is not held against those after it": (
        TOP + "a,conv,3,bad,3,,9,,\nb,conv,64,128,3,,,,\n",
        ["2: out_channels must be a whole number such as 64, got 'bad'"],
    ),
    "a malformed header": (
        'name,"kind\x00"x,in_channels\na,conv,3\n',
        ["1: malformed CSV: "],
    ),
    "channels without end": (
        "kind,in_channels,kernel_size,input_size,repeat,depth_multiplier\n"
        "depthwise,4,3,4,1,1\ndepthwise,,3,,5000,10\n",
        ["3: its channels have more than 100 digits"],
    ),
    "a linear layer first with a size": (
        "kind,in_channels,out_channels,input_size\nlinear,784,10,28\n",
        ["2: a linear layer that comes first has its features as in_channels and no input_size"],
    ),
    "several kinds of errors": (
        TOP + "a,conv,3,8,3,,9,,\nb,convv,,8,3,,,,\nc,conv,,8,3,,,d,\nd,norm,9,,,,,a,\ne,norm\n",
        [
            "3: unknown kind 'convv'; did you mean conv?",
            "4: from names 'd', but it must come before",
            "5: in_channels is 9, but the input has 8",
            "6: 2 values for the 9 columns of the header",
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_row_is_one_line_that_names_it(name):
    data, reasons = BAD[name]
    starts(refused(data), reasons)


NOISE = {
    "UTF-16": (TOP + FIRST).encode("utf-16"),
    "UTF-16 without a mark": (TOP + "größe,conv,3,8,3,,9,,\n").encode("utf-16-le"),
    "a picture": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 8,
    "compressed text": zlib.compress(SMALL.encode()),
}


@pytest.mark.parametrize("data", NOISE.values(), ids=NOISE)
def test_noise_is_refused_in_printable_lines(data):
    assert len(refused(data)) < 60


@pytest.mark.parametrize("form", ["table", "csv"])
@pytest.mark.parametrize("name", [name for name in BAD if name != "more layers than allowed"])
def test_a_bad_file_is_no_answer_and_leaves_no_file(name, form, tmp_path, run):
    data, reasons = BAD[name]
    path, new, old = tmp_path / "net", tmp_path / "new", tmp_path / "old"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    old.write_text("old")
    for output in (new, old):
        result = run("network", str(path), "-f", form, "-o", str(output))
        assert (result.code, result.stdout) == (2, "")
        assert result.stderr.endswith("\n")
        starts(result.stderr.splitlines(), [f"{path}:{reason}" for reason in reasons])
    assert old.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path, old]


def test_a_row_that_hangs_on_a_bad_connection_is_not_reported_as_well():
    lines = refused(
        TOP + FIRST + "b,conv,9,8,3,,,,\nc,conv,1,8,3,,1,,\nd,norm,,,,,,b,\ne,pool,1,,2,,,c,\n"
    )
    assert lines == ["3: in_channels is 9, but the input has 8"]


def test_after_fifty_errors_the_rest_is_not_read():
    lines = refused(TOP + "a,x,,,,,,,\n" * 1000)
    assert len(lines) == 51
    assert lines[-1] == "51: too many errors; the rest is not read"


class Endless(io.RawIOBase):
    """A file that never ends."""

    def __init__(self, first, line):
        self.lines, self.line, self.given = [first], line, 0

    def readline(self, size=-1):
        line = self.lines.pop() if self.lines else self.line
        self.given += len(line[:size])
        return line[:size]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"x" * 2**20, "2: the line is longer than 1,048,576 bytes"),
        (b"norm,,\n", "100002: a network has at most 100,000 layers"),
        (b"nrom,,\n", "51: too many errors; the rest is not read"),
    ],
    ids=["in one line", "of layers", "of errors"],
)
def test_of_a_file_of_any_length_only_a_little_is_read(line, reason):
    stream = Endless(b"kind,in_channels,input_size\n", line)
    if line.startswith(b"norm"):
        stream.lines = [b"norm,3,9\n", b"kind,in_channels,input_size\n"]
    with pytest.raises(FileError) as raised:
        read_network(stream, "net")
    assert str(raised.value).split("\n")[-1] == f"net:{reason}"
    assert stream.given < 2**21


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("mobilenet_v3", "no network or file named 'mobilenet_v3'; did you mean mobilenet_v"),
        ("resnet-50", "no network or file named 'resnet-50'; did you mean resnet50?"),
        ("nowhere/net.csv", "no network or file named 'nowhere/net.csv'; see dscalc network "),
        (".", "cannot read .: Is a directory"),
        ("x" * 5000, "cannot read "),
    ],
)
def test_what_cannot_be_opened_is_an_error_of_one_line(source, reason, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("network", source, "-o", "report")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason)
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_end_is_refused(run):
    result = run("network /dev/zero")
    assert result == (2, "", "/dev/zero:1: the line is longer than 1,048,576 bytes\n")


def test_a_network_must_be_named(run):
    result = run("network")
    assert (result.code, result.stdout) == (2, "")
    assert "missing argument" in result.error


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            "--width-multiplier 0",
            "--width-multiplier must be greater than 0, such as 0.75",
        ),
        ("--resolution-multiplier x", "--resolution-multiplier must be a number such as 60M, "),
        ("--input-size 0", "--input-size must be at least 1, got 0"),
        ("--input-size 3x", "--input-size must be a size such as 3 or 3x5, got '3x'"),
        ("--batch 0", "--batch must be at least 1, got 0"),
        ("--get separable", "unknown field 'separable'; did you mean separable_macs"),
        ("--stride 2", "no such option: --stride"),
    ],
)
def test_bad_options_are_an_error_of_one_line(options, reason, run):
    result = run(f"network mobilenet_v1 {options}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason)


def test_what_scaling_breaks_is_named_by_its_row():
    text = (
        "kind,in_channels,out_channels,kernel_size,padding,input_size,groups\n"
        "conv,4,8,3,valid,9,2\nconv,,8,5,valid,,\n"
    )
    assert len(read(text)) == 2
    [line] = refused(text, width_multiplier="0.7")
    assert line.startswith("2: groups must divide both channels, got groups 2 for 4 -> 5 channels")
    [line] = refused(text, input_size=6)
    assert line.startswith("3: the kernel spans 5x5, but the padded input is 4x4")


# Names.

LITERAL = "[bold red]x[/] |*_`<b>&amp;"
ESCAPES = "\x1b[31mred\x1b[0m\r\x07\u202e\u200b"
ESCAPED = r"\x1b[31mred\x1b[0m\r\x07\u202e\u200b"


def named(name):
    row = {"name": name, "kind": "conv", "in_channels": 3, "out_channels": 8, "kernel_size": 3}
    return json.dumps({**row, "input_size": 9}) + "\n"


def name_in(report, form):
    """The name of the only layer, as a report has it; with the escapes of its format undone."""
    match form:
        case "csv":
            return next(csv.DictReader(io.StringIO(report)))["name"]
        case "json":
            return json.loads(report)["rows"][0]["name"]
        case "jsonl":
            return json.loads(report)["name"]
        case "markdown":
            [line] = [line for line in report.splitlines() if "3 -> 8" in line]
            return re.sub(r"\\(.)", r"\1", line.removeprefix("| ").partition(" | 3 -> 8")[0])
        case "svg":
            picture = ElementTree.fromstring(report)
            texts = [part.text for part in picture.iter() if part.tag.endswith("}text")]
            cells = [text.replace("\N{NO-BREAK SPACE}", " ").strip() for text in texts]
            return cells[cells.index("3 -> 8") - 1]
        case _:
            [line] = [line for line in report.splitlines() if "3 -> 8" in line]
            return line.partition("3 -> 8")[0].strip()


@pytest.mark.parametrize(
    ("name", "shown"), [(LITERAL, LITERAL), (ESCAPES, ESCAPED)], ids=["markup", "escapes"]
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_name_is_printed_literally(form, name, shown, tmp_path, run):
    path = tmp_path / "net"
    path.write_text(named(name))
    result = run("network", str(path), "-f", form, "--no-verify", columns=300)
    assert (result.code, result.stderr) == (0, "")
    assert name_in(result.stdout, form) == shown
    assert all(char.isprintable() or char in "\n\N{NO-BREAK SPACE}" for char in result.stdout)


def test_raw_escapes_in_csv_are_printed_literally_too(tmp_path, run):
    path = tmp_path / "net"
    path.write_bytes(SMALL.replace("stem", "\x1b[31mstem\x00").encode())
    stdout = run("network", str(path), columns=300).stdout
    assert r"\x1b[31mstem\x00" in stdout
    assert "\x1b" not in stdout


def test_a_failing_layer_is_named_literally(tmp_path, run, monkeypatch):
    monkeypatch.setattr(THE_MODULE, "conv_flop_count", lambda *_: 1)
    path = tmp_path / "net"
    path.write_text(named(f"{LITERAL}{ESCAPES}"))
    result = run("network", str(path), "-q")
    assert result[::2] == (1, "")
    result = run("network", str(path))
    assert result.code == 1
    assert result.stderr.startswith(f"failed: mismatch: {LITERAL}{ESCAPED}: ")


def test_names_of_other_scripts_are_kept(tmp_path, run):
    path = tmp_path / "net"
    path.write_text(named("Faltung-größe-畳み込み"), "utf-8")
    assert "Faltung-größe-畳み込み" in run("network", str(path)).stdout


def test_a_linear_layer_may_come_first():
    [layer] = read_network(io.BytesIO(b"kind,in_channels,out_channels\nlinear,784,10\n"), "net")
    assert (layer.in_channels, layer.counts.standard_macs) == (784, 7840)


def test_an_input_size_given_leaves_the_channels_held_against_each_other():
    header = b"kind,in_channels,out_channels,kernel_size,input_size\n"
    text = header + b"conv,3,4,3,8\nconv,99,4,3,\n"
    with pytest.raises(FileError, match="net:3: in_channels is 99, but the input has 4"):
        read_network(io.BytesIO(text), "net", input_size=9)


def test_a_huge_norm_is_an_answer_that_torch_refuses_to_count(run, tmp_path):
    path = tmp_path / "net.csv"
    path.write_text(
        f"kind,in_channels,out_channels,kernel_size,input_size\nconv,3,{10**30},3,8\nnorm,,,,\n"
    )
    result = run("network", str(path))
    assert result.code == 2
    assert f"{27 * 10**30:,}" in result.stdout
    assert all(line.startswith("error: torch refuses") for line in result.stderr.splitlines())


def test_escapes_in_the_name_of_a_file_are_printed_literally(run, tmp_path):
    path = tmp_path / "\x1b[31mred.csv"
    path.write_text("kind,in_channels,input_size\nnorm,3,8\n")
    good = run("network", str(path), "--no-verify")
    path.write_text("kind,in_channels,input_size\nnor,3,8\n")
    bad = run("network", str(path))
    assert "\x1b" not in good.stdout + bad.stderr
    assert r"\x1b[31mred.csv" in good.stdout
    assert r"\x1b[31mred.csv:2: unknown kind" in bad.stderr


def test_a_table_of_more_layers_than_can_be_read_is_refused(run, tmp_path):
    path = tmp_path / "net.csv"
    path.write_text(
        "kind,in_channels,out_channels,kernel_size,input_size,repeat\nconv,3,3,3,9,10001\n"
    )
    for form in ("table", "json", "markdown", "svg"):
        result = run("network", str(path), "--no-verify", "-f", form)
        assert (result.code, result.stdout) == (2, "")
        assert result.error.startswith(f"{form} holds at most 10,000 rows, and there are 10,001; ")
    assert len(run("network", str(path), "--no-verify", "-f", "csv").stdout.splitlines()) == 10_002
