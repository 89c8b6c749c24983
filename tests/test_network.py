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
from vocabulary import fields

from dscalc import Block, compare, network, scaled_channels
from dscalc.core.blocks import SEPARABLE, STANDARD
from dscalc.errors import FileError
from dscalc.inputs.network_file import load_network, read_network, shipped
from dscalc.pytorch import crosscheck

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
    assert all(line.startswith("net:") and line.isprintable() for line in lines)
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


@pytest.fixture
def written(tmp_path):
    """Write a file and give its path, as the command line takes it."""

    def write(text, name="net"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# Kinds.

INPUT = "in,norm,8,,,5,,,,\n"  # 8 channels on a 5x5 map
COLUMNS = (
    "name,kind,in_channels,out_channels,kernel_size,input_size,stride,groups,"
    "depth_multiplier,bias\n"
)


@pytest.mark.parametrize(
    ("cells", "output", "standard", "as_is"),
    [
        ("conv,,16,3,,,,,", (16, (5, 5)), (28_800, 1152), (28_800, 1152)),
        ("conv,,16,3,,2,,,", (16, (3, 3)), (10_368, 1152), (10_368, 1152)),
        ("conv,,16,3,,,2,,", (16, (5, 5)), (14_400, 576), (14_400, 576)),
        ("conv,,16,3,,,,,true", (16, (5, 5)), (28_800, 1168), (28_800, 1168)),
        ("conv,,16,1x3,,1x2,,,", (16, (5, 3)), (5760, 384), (5760, 384)),
        ("separable,,16,3,,,,,", (16, (5, 5)), (28_800, 1152), (5000, 200)),
        ("separable,,16,3,,,,2,", (16, (5, 5)), (28_800, 1152), (10_000, 400)),
        ("separable,,16,3,,2,,,true", (16, (3, 3)), (10_368, 1168), (1800, 224)),
        ("depthwise,,,3,,,,,", (8, (5, 5)), (14_400, 576), (1800, 72)),
        ("depthwise,,,3,,,,2,", (16, (5, 5)), (28_800, 1152), (3600, 144)),
        ("depthwise,,,3,,2,,,true", (8, (3, 3)), (5184, 584), (648, 80)),
        ("linear,,10,,,,,,", (10, ()), (2000, 2000), (2000, 2000)),
        ("linear,,10,,,,,,true", (10, ()), (2000, 2010), (2000, 2010)),
        ("pool,,,2,,,,,", (8, (2, 2)), (0, 0), (0, 0)),
        ("pool,,,3,,1,,,", (8, (3, 3)), (0, 0), (0, 0)),
        ("pool,,,global,,,,,", (8, (1, 1)), (0, 0), (0, 0)),
        ("norm,,,,,,,,", (8, (5, 5)), (0, 16), (0, 16)),
    ],
)
def test_each_kind_has_its_costs_which_fvcore_and_torch_count_too(cells, output, standard, as_is):
    _, row = read(f"{COLUMNS}{INPUT},{cells}\n", block=STANDARD)
    assert (row.layer.out_channels, row.layer.output_size) == output
    proved = crosscheck(row)
    assert proved.crosscheck == "exact"
    for side, counts in ((proved.rewritten, standard), (proved.as_is, as_is)):
        assert (side.cost.macs, side.cost.params) == counts
        assert (side.counted[""].macs, side.counted[""].params) == counts


@pytest.mark.parametrize(
    ("columns", "cells", "options"),
    [
        ("stride,bias", "2,true", {"stride": 2, "bias": True}),
        ("padding,dilation", "valid,2x1", {"padding": "valid", "dilation": (2, 1)}),
        ("depth_multiplier", "3", {"block": "separable:3"}),
        ("name", "", {}),  # all else has a default
    ],
)
def test_a_separable_row_is_the_comparison_of_its_sizes(columns, cells, options):
    [row] = read(
        f"kind,in_channels,out_channels,kernel_size,input_size,{columns}\n"
        f"separable,8,16,3x5,9,{cells}\n",
        block=STANDARD,
    )
    [same] = compare(8, 16, (3, 5), 9, **options).rows
    assert (row.layer, row.rewritten, row.as_is) == (same.layer, same.as_is, same.rewritten)


def test_a_depthwise_row_stands_beside_the_full_convolution_of_its_channels():
    _, row = read(f"{COLUMNS}{INPUT},depthwise,,,3,,,,,\n", block=STANDARD)
    [same] = compare(8, 8, 3, 5).rows
    assert row.rewritten == same.as_is
    assert row.as_is.steps == same.rewritten.steps[:1]


def test_a_linear_layer_takes_the_whole_map_and_may_come_first():
    _, row = read(
        "kind,in_channels,out_channels,kernel_size,input_size\npool,8,,2,9x7\nlinear,,3,,"
    )
    assert row.layer.in_channels == 8 * 4 * 3
    [row] = read("kind,in_channels,out_channels\nlinear,784,10\n")
    assert (row.layer.in_channels, row.as_is.cost.macs) == (784, 7840)


@pytest.mark.parametrize(
    ("padding", "size"), [("same", (3, 3)), ("valid", (2, 2)), ("1x0", (3, 2)), ("", (3, 3))]
)
@pytest.mark.parametrize("kind", ["conv", "separable", "depthwise", "pool"])
def test_padding_is_that_of_a_convolution_but_a_pool_has_none_as_in_torch(kind, padding, size):
    out_channels = "4" if kind in ("conv", "separable") else ""
    [row] = read(
        "kind,in_channels,out_channels,kernel_size,stride,padding,input_size\n"
        f"{kind},4,{out_channels},3,2,{padding},5x5\n"
    )
    assert row.layer.output_size == ((2, 2) if kind == "pool" and not padding else size)


def test_an_unnamed_row_is_named_after_its_kind_and_place():
    rows = read("kind,in_channels,kernel_size,input_size\nnorm,4,,9\npool,,2,\nnorm,,,\n")
    assert [row.name for row in rows] == ["norm1", "pool2", "norm3"]


# What rows are rewritten as.

MIXED = (
    "name,kind,in_channels,out_channels,kernel_size,input_size,groups\n"
    "plain,conv,3,8,3,9,\ngrouped,conv,,8,3,,2\nown,conv,,8,3,,8\nmixing,conv,,16,1,,\n"
    "narrow,conv,,1,3,,\nsep,separable,,4,3,,\ndw,depthwise,,,3,,\nnorm,norm,,,,,\n"
    "pool,pool,,,2,,\nfc,linear,,2,,,\n"
)
KEPT = {"norm": "norm", "pool": "pool", "fc": "linear"}


def test_as_standard_each_block_is_a_plain_convolution_and_all_else_is_kept():
    kept = {"plain": "conv", "grouped": "grouped", "own": "depthwise", "mixing": "pointwise"}
    kept |= {"narrow": "conv", "sep": "", "dw": "", **KEPT}
    assert {row.name: row.kept for row in read(MIXED, block=STANDARD)} == kept


def test_as_separable_a_plain_convolution_is_rewritten_where_that_saves():
    rows = {row.name: row for row in read(MIXED, block=SEPARABLE)}
    kept = {"plain": "", "grouped": "grouped", "own": "depthwise", "mixing": "pointwise"}
    kept |= {"narrow": "no saving", "sep": "separable", "dw": "depthwise"}
    assert {name: row.kept for name, row in rows.items()} == kept | KEPT
    assert all((row.rewritten == row.as_is) == bool(row.kept) for row in rows.values())
    [same] = compare(3, 8, 3, 9).rows
    assert rows["plain"].rewritten == same.rewritten


def test_the_network_as_it_is_does_not_depend_on_what_it_is_rewritten_as(run):
    for name in NAMES:
        plain = network(name)
        assert plain.block is plain.total.rewritten is None
        assert {row.rewritten for row in plain.rows} == {None}
        for block in ("standard", "separable"):
            other = network(name, block=block)
            assert [row.as_is for row in plain.rows] == [row.as_is for row in other.rows]
            assert plain.total.as_is == other.total.as_is
    result = run("network resnet50 --as separable --verify --get separable_macs --get crosscheck")
    assert result == (0, "2343674112\texact\n", "")


# Connections.


def test_a_row_is_fed_by_the_one_before_or_by_the_one_it_names():
    rows = read(
        "name,kind,in_channels,out_channels,kernel_size,stride,input_size,from\n"
        "stem,conv,3,8,3,2,16,\n"
        "body,conv,,32,3,2,,\n"
        "shortcut,conv,,32,1,2,,stem\n"
        "again,depthwise,,,3,,,body\n"
        "next,conv,,4,1,,,\n"
    )
    fed = [(row.layer.in_channels, row.layer.input_size) for row in rows]
    assert fed == [(3, (16, 16)), (8, (8, 8)), (8, (8, 8)), (32, (4, 4)), (32, (4, 4))]


def test_what_a_row_says_of_its_input_may_be_said_again():
    rows = read(
        "name,kind,in_channels,out_channels,kernel_size,input_size,from\n"
        "a,conv,3,8,3,16,\nb,pool,8,,2,16x16,\nc,conv,8,4,1,8,\nd,linear,512,2,,8,b\n"
    )
    assert [row.layer.input_size for row in rows] == [(16, 16), (16, 16), (8, 8), ()]


def test_repeat_stands_for_as_many_rows_in_a_chain():
    header = "name,kind,in_channels,out_channels,kernel_size,stride,input_size,repeat\n"
    first = "a,conv,3,8,3,,32,\n"
    short = read(f"{header}{first}b,separable,,8,3,2,,3\nc,norm,,,,,,\n")
    copies = "".join(f"b/{copy},separable,,8,3,2,,\n" for copy in (1, 2, 3))
    assert short == read(f"{header}{first}{copies}c,norm,,,,,,\n")
    assert [row.layer.output_size[0] for row in short] == [32, 16, 8, 4, 4]


def test_a_row_is_fed_by_the_last_copy_of_a_repeated_one():
    rows = read(
        "name,kind,in_channels,out_channels,kernel_size,stride,input_size,repeat,from\n"
        "a,conv,3,8,3,2,32,1,\nb,depthwise,,,3,2,,3,\nc,norm,,,,,,,a\nd,norm,,,,,,,b\n"
    )
    assert [row.layer.input_size[0] for row in rows[-2:]] == [16, 2]


def test_expansion_multiplies_the_channels_that_come_in():
    rows = read(
        "kind,in_channels,out_channels,expansion,kernel_size,input_size\n"
        "conv,3,8,,3,9\nconv,,,6,1,\nseparable,,,2,3,\nlinear,,,1,,\n"
    )
    assert [row.layer.out_channels for row in rows] == [8, 48, 96, 96 * 81]


# Formats.


@pytest.mark.parametrize("name", NAMES)
def test_csv_and_json_lines_give_the_same_rows(name):
    text = text_of(name)
    assert read(rows_in_json(text)) == read(text)


def test_a_format_is_told_by_what_is_in_a_file_and_not_by_its_name(written, run):
    endings, texts = (".csv", ".jsonl", ".txt", ""), (SMALL, rows_in_json(SMALL))
    for ending, text in product(endings, texts):
        assert run("network", written(text, f"net{ending}"), "--get", "macs").stdout == "10560\n"


def test_json_takes_numbers_as_text_sizes_as_lists_and_null_as_empty():
    typed = {"kernel_size": [3, 5], "input_size": [9, 7], "bias": False, "repeat": None}
    words = {"kernel_size": "3x5", "input_size": "9x7", "bias": "false", "repeat": ""}
    first, second = (
        read(json.dumps({"kind": "conv", "in_channels": 3, "out_channels": "4", **row}))
        for row in (typed, words)
    )
    assert first == second


@pytest.mark.parametrize("text", [SMALL, rows_in_json(SMALL)], ids=["csv", "jsonl"])
def test_a_network_is_read_from_stdin(text, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run("network - --get macs --verify --get crosscheck") == (0, "10560\texact\n", "")
    bad = text.replace("pool", "poool").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bad)))
    line = text[: text.index("pool")].count("\n") + 1
    error = f"stdin:{line}: unknown kind 'poool'; did you mean pool?\n"
    assert run("network -") == (2, "", error)


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
    rows = read(
        'kind , name,in_channels,out_channels,"kernel_size",input_size\n'
        '"conv","stem, the ""first""",3, 8 ,3,9\n'
        ",,,,,\n"
        'conv,"two\nlines",,8,3,\n'
    )
    assert [row.name for row in rows] == ['stem, the "first"', r"two\nlines"]


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
    rows = read(text, width_multiplier="0.5")
    channels = [(row.layer.in_channels, row.layer.out_channels) for row in rows]
    assert channels == [(3, 16), (16, 32), (32 * 64, 50), (50, 10)]
    last_is_norm = read(text + "norm,,,,\n", width_multiplier="0.5")
    assert last_is_norm[-1].layer.out_channels == 5


def test_widths_are_those_of_mobilenet():
    plain = read(text_of("mobilenet_v1"))[:-1]
    for width in ("0.25", "0.5", "0.75", "1.4", "1/3"):
        rows = read(text_of("mobilenet_v1"), width_multiplier=width)[:-1]
        assert [row.layer.out_channels for row in rows] == [
            scaled_channels(row.layer.out_channels, width) for row in plain
        ]


@pytest.mark.parametrize(
    ("width", "rounded", "not_narrower"),
    [
        ("0.35", [16, 8, 8, 8, 16], 1280),  # 11.2, 5.6, 8.4, 0.35, 15.75
        ("0.5", [16, 8, 16, 8, 24], 1280),  # 16, 8, 12, 0.5, 22.5
        ("1.4", [48, 24, 32, 8, 64], 1792),  # 44.8, 22.4, 33.6, 1.4, 63
        ("1", [32, 16, 24, 1, 45], 1280),  # as written
    ],
)
def test_widths_round_to_multiples_of_8_where_a_row_says_so(width, rounded, not_narrower):
    text = "".join(f"conv,,{channels},1,,8\n" for channels in (32, 16, 24, 1, 45))
    rows = read(
        "kind,in_channels,out_channels,kernel_size,input_size,rounding\n"
        f"pool,3,,2,8,\n{text}conv,,1280,1,,8+\nlinear,,1000,,,\n",
        width_multiplier=width,
    )
    assert [row.layer.out_channels for row in rows] == [3, *rounded, not_narrower, 1000]


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
def test_what_rows_say_of_their_inputs_is_held_against_the_unscaled_ones(options, channels, sizes):
    rows = read(SAID, **options)
    assert [row.layer.in_channels for row in rows] == channels
    assert [row.layer.input_size[0] for row in rows[:-1]] == sizes
    wrong = SAID.replace("separable,32,64,3,2,32", "separable,33,64,3,2,")
    [line] = refused(wrong, **options)
    assert line.startswith("3: in_channels is 33, but the input has 32; a row that starts anew giv")


UNRELATED = (
    "name,kind,in_channels,out_channels,kernel_size,input_size\n"
    "a,conv,3,64,3,224\nb,conv,256,256,3,14\nc,conv,256,8,3,14\nd,conv,256,8,3,7\n"
    "e,linear,,10,,\nf,conv,8,8,3,7\n"
)


@pytest.mark.parametrize("options", [{}, {"width_multiplier": 0.5}, {"input_size": 112}])
def test_a_row_with_another_input_of_its_own_starts_anew_and_that_is_said(options):
    notes = []
    rows = read(UNRELATED, note=notes.append, **options)
    inputs = [(row.layer.in_channels, row.layer.input_size) for row in rows]
    width = 128 if "width_multiplier" in options else 256
    size = options.get("input_size", 224)
    assert inputs == [
        *((3, (size, size)), (256, (14, 14)), (width, (14, 14)), (256, (7, 7))),
        *((4 * 49 if width == 128 else 8 * 49, ()), (8, (7, 7))),
    ]
    says = "3 rows start anew, on another in_channels and input_size: b, d, f"
    assert notes == [says]


def test_what_does_not_fit_and_states_too_little_to_start_anew_is_refused():
    for cells in ("256,256,3,", ",256,3,14"):
        [line] = refused(UNRELATED.replace("256,256,3,14", cells, 1))
        assert line.endswith(f"; a row that starts anew gives its {NEEDED[cells]} too")


NEEDED = {"256,256,3,": "input_size", ",256,3,14": "in_channels"}


def test_that_rows_start_anew_is_noted_beside_the_counts(written, run):
    path = written(UNRELATED)
    says = "3 rows start anew, on another in_channels and input_size: b, d, f"
    assert f"note: {says}\n" in run("network", path, "--no-verify").stdout
    assert json.loads(run("network", path, "-f", "json").stdout)["notes"] == [says]
    assert f"{path}: 3 rows start anew" in run("network", path, "vgg16", columns=200).stdout


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


def test_the_input_size_may_be_given_from_outside_alone(written, run):
    path = written(SMALL.replace(",2,9", ",2,"))
    assert run("network", path).stderr == (
        f"{path}:2: the first row needs an input_size, or give --input-size\n"
    )
    for size in ("9", "9x9"):
        assert run("network", path, "--input-size", size, "--get", "macs") == (0, "10560\n", "")


def test_a_resolution_multiplier_rounds_the_input_size_as_mobilenet_does():
    [row] = read("kind,in_channels,input_size\nnorm,3,14x224\n", resolution_multiplier="0.714")
    assert row.layer.input_size == (10, 160)


def test_a_batch_multiplies_macs_and_activations_and_not_parameters(run):
    single, batch = (
        json.loads(run(f"network mobilenet_v2 -b {size} -f json").stdout) for size in (1, 32)
    )
    for one, many in zip(
        [*single["rows"], single["total"]], [*batch["rows"], batch["total"]], strict=True
    ):
        assert many["crosscheck"] == "exact"
        for field, value in one.items():
            if field.endswith(("macs", "activations")):
                assert many[field] == 32 * value
            elif field.endswith("params"):
                assert many[field] == value


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_single_sizes_repeat_over_the_axes_of_the_network(dims, written, run):
    rows = read(SMALL, dims=dims, block=STANDARD)
    assert rows[0].layer.output_size == (5,) * dims
    assert rows[1].rewritten.cost.params == 8 * 16 * 3**dims
    result = run("network", written(SMALL), "--dims", str(dims), "--verify", "--get", "crosscheck")
    assert result == (0, "exact\n", "")


# Totals.


def printed(table, *heads):
    """Name -> the cells below these heads, of each row of a table in which all fits."""
    header, _, *lines = table.split("\n\n")[1].splitlines()
    ends = [re.search(rf"{head}(?=  |$)", header).end() for head in heads]
    return {line.split()[0]: [line[:end].split()[-1] for end in ends] for line in lines}


def unfolded(name):
    """The rows that a line stands for: sep7/1-5 is sep7/1 to sep7/5."""
    first, _, last = name.partition("-")
    path, _, number = first.rpartition("/")
    return [f"{path}/{at}" for at in range(int(number), int(last) + 1)] if last else [name]


@pytest.mark.parametrize(
    ("options", "heads"),
    [
        ("--unit flops -b 3 --no-verify", ["FLOPs", "params"]),
        (
            "--width-multiplier 0.25 --as separable",
            ["MACs", "params", "separable", "separable params"],
        ),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_printed_rows_add_up_to_the_printed_total(name, options, heads, run):
    """What has no MACs has no line; alike rows have one; ``-`` is a count as it is."""
    table = run(f"network {name} {options}", columns=300).stdout
    *lines, total = printed(table, *heads).items()
    hidden = re.search(r"not shown: .* without \w+(?: \((\d+,?\d*) params\))?\n", table)

    def counts(cells):
        cells = [cells[at % 2] if cell == "-" else cell for at, cell in enumerate(cells)]
        return [int(cell.replace(",", "")) for cell in cells]

    without = [0, int((hidden[1] or "0").replace(",", ""))] * (len(heads) // 2)
    added_up = map(sum, zip(without, *(counts(cells) for _, cells in lines), strict=True))
    assert total == ("total", [f"{count:,}" for count in added_up])
    with_macs = [row.name for row in network(name).rows if row.as_is.cost.macs]
    assert [each for line, _ in lines for each in unfolded(line)] == with_macs


def test_no_number_is_broken_at_any_width(run):
    def counts(table):
        return sorted(re.findall(r"\d{1,3}(?:,\d{3})+", table))

    wide = counts(run("network mobilenet_v2", columns=300).stdout)
    for columns in (40, 60, 80, 120):
        narrow = run("network mobilenet_v2", columns=columns).stdout
        rounded = "numbers of the table are rounded" in narrow.replace("\n", " ")
        assert rounded == (columns == 40)
        assert set(counts(narrow)) <= set(wide) if rounded else counts(narrow) == wide
        assert max(map(len, narrow.splitlines())) <= columns


@pytest.mark.parametrize("options", ["", "--as standard", "--as separable"])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_fits_any_terminal_and_says_macs_params_and_share(name, options, run):
    for columns in (40, 60, 80, 100, 120):
        stdout = run(f"network {name} {options} --no-verify", columns=columns).stdout
        assert max(map(len, stdout.splitlines())) <= columns
        heads = stdout.split("\n\n")[1].partition("─")[0].split()
        assert {"MACs", "params"} <= {*heads}
        assert "share" in heads or (options and columns == 40 and "ratio" in heads)


def test_the_share_of_a_row_is_that_of_all_macs(run):
    table = run("network mobilenet_v1 --no-verify", columns=300).stdout
    bars = {line.split()[0]: line.count("█") for line in table.splitlines() if "->" in line}
    assert "pool" not in bars
    assert max(bars, key=bars.get) == "sep7/1-5"
    assert printed(table, "share")["sep7/1-5"] == ["46.0%"]
    report = network("mobilenet_v1")
    assert sum(row.share for row in report.rows) == report.total.share == 1


@pytest.mark.parametrize("options", ["--no-verify", "--no-verify --as standard", "--as separable"])
@pytest.mark.parametrize("name", NAMES)
def test_totals_are_the_sums_of_the_rows_in_json(name, options, run):
    report = json.loads(run(f"network {name} {options} -f json").stdout)
    block, rows, total = report["as"], report["rows"], report["total"]
    counts = [field.name for field in fields("network", block and Block.parse(block)) if field.unit]
    for field in [name for name in counts if name.endswith(("macs", "params", "activations"))]:
        known = [row[field] for row in rows if row[field] is not None]
        assert total[field] == (sum(known) if known else None)
    assert (total["depthwise_macs"] > 0) if block == "separable" else "depthwise_macs" not in total
    ratio = total[f"{block}_macs"] / total["macs"] if block else None
    assert total.get("mac_ratio") == ratio
    assert total["crosscheck"] == ("skipped" if "--no-verify" in options else "exact")


def test_machine_formats_hold_the_rows_and_json_the_total_and_the_checks_too(run):
    csv_rows = list(csv.DictReader(run("network mobilenet_v1 -f csv").stdout.splitlines()))
    json_rows = [*map(json.loads, run("network mobilenet_v1 -f jsonl").stdout.splitlines())]
    result = run("network", "mobilenet_v1", "-f", "json", "--assert", "macs < 568M")
    report = json.loads(result.stdout)
    assert " ".join(report) == "schema version convention command as inputs rows total notes checks"
    said = [report[key] for key in ("schema", "command", "as")]
    assert said == ["dscalc/3", "network", None]
    assert [row["name"] for row in csv_rows] == [row["name"] for row in report["rows"]]
    assert [*csv_rows[0]] == [*json_rows[0]] == [*report["total"]]
    assert len(csv_rows) == len(json_rows) == 16
    assert report["rows"] == json_rows
    assert report["total"]["name"] == "total"
    [check] = report["checks"]
    assert (result.code, check["holds"], check["value"]) == (1, False, 568_740_352)


def test_get_holds_the_total(run):
    result = run("network mobilenet_v1 --as standard --get name --get macs --get mac_ratio_exact")
    assert result == (0, "total\t568740352\t9506432/1110821\n", "")
    result = run("network mobilenet_v1 --unit flops --get flops --get input_size")
    assert result == (0, f"{2 * 568_740_352}\t\n", "")


@pytest.mark.parametrize(
    ("condition", "verdict", "column"),
    [
        ("macs <= 569M", "holds: macs <= 569M\n", ("MACs", "568,740,352")),
        ("macs < 568M", "failed: macs < 568M: macs is 568,740,352\n", ("MACs", "568,740,352")),
        (
            "fvcore_standard_macs == 4867293184",
            "holds: fvcore_standard_macs == 4867293184\n",
            ("fvcore standard macs", "4,867,293,184"),
        ),
        (
            "mac_reduction < 1/9",
            "failed: mac_reduction < 1/9: mac_reduction is 0.116849 (1110821/9506432)\n",
            ("mac reduction", "0.116849"),
        ),
    ],
)
def test_an_assertion_holds_the_total(condition, verdict, column, run):
    """And the table has a column of what it reads."""
    args = ("network", "mobilenet_v1", "--as", "standard", "--assert", condition)
    result = run(*args, columns=300)
    assert (result.code, result.stderr) == (int(verdict.startswith("failed")), verdict)
    head, total = column
    assert printed(result.stdout, head)["total"] == [total]


def test_the_footer_says_what_the_network_saves(run):
    plain = run("network mobilenet_v1 --no-verify").stdout
    lead = "568,740,352 MACs (569 M), 4,209,088 params (4.21 M); 1 MAC = 2 FLOPs\n"
    assert lead in plain
    assert "standard" not in plain
    stdout = run("network mobilenet_v1 --no-verify --as standard").stdout
    assert (
        "568,740,352 MACs (569 M), as standard 4,867,293,184 (4.87 G): 8.56x as many\n"
        "4,209,088 params (4.21 M), as standard 29,281,120 (29.3 M): 6.96x as many\n"
    ) in stdout
    stdout = run("network vgg16 --no-verify --as standard").stdout
    assert "\nas standard: the same; every row is already plain\n" in stdout


def test_a_network_without_macs_has_totals_too(written, run):
    path = written("name,kind,in_channels,kernel_size,input_size\nn,norm,4,,8\np,pool,,2,\n")
    for form in FORMATS:
        result = run("network", path, "-f", form)
        assert (result.code, result.stderr) == (0, "")
    table = run("network", path).stdout
    assert printed(table, "MACs", "params") == {"n": ["0", "8"], "total": ["0", "8"]}
    assert "\nnot shown: 1 pool without MACs\n" in table


# Names of fields.


@pytest.mark.parametrize("step", ["depthwise", "pointwise"])
@pytest.mark.parametrize("noun", ["macs", "params"])
def test_a_step_of_a_block_needs_that_block(step, noun, run):
    name = f"{step}_{noun}"
    result = run("network", "mobilenet_v1", "--get", name)
    assert result.error == f"{name} needs --as BLOCK, such as --as separable"
    assert run(f"network mobilenet_v1 --as separable --get {name}").code == 0


# A planted fault.


@pytest.fixture
def fault(monkeypatch):
    """One MAC more than there is, in the pointwise step of sep4 alone."""
    count = THE_MODULE.conv_flop_count

    def miscount(inputs, weight, outputs, transposed):
        return count(inputs, weight, outputs, transposed) + (weight == [256, 128, 1, 1])

    monkeypatch.setattr(THE_MODULE, "conv_flop_count", miscount)


def test_a_fault_in_one_row_is_found_and_named(fault, run):
    result = run("network mobilenet_v1", columns=300)
    assert result.code == 1
    assert result.stderr == (
        "failed: mismatch: sep4: fvcore_macs is 26,593,281, but the formula gives 26,593,280\n"
    )
    marked = [line.split()[0] for line in result.stdout.splitlines() if "✗" in line]
    assert marked == ["sep4", "total", "✗"]


def test_a_fault_in_one_row_is_in_every_machine_format_and_the_exit_code(fault, run):
    report = json.loads(run("network mobilenet_v1 -f json").stdout)
    assert report["total"]["crosscheck"] == "mismatch"
    in_csv = csv.DictReader(run("network mobilenet_v1 -f csv").stdout.splitlines())
    in_jsonl = map(json.loads, run("network mobilenet_v1 -f jsonl").stdout.splitlines())
    for rows in (report["rows"], in_csv, in_jsonl):
        assert [row["name"] for row in rows if row["crosscheck"] != "exact"] == ["sep4"]
    assert run("network mobilenet_v1 --verify --get crosscheck")[:2] == (1, "mismatch\n")
    beside = run("network", "mobilenet_v1", "-q", "--assert", "macs < 600M")
    assert beside[::2] == (1, "")


def test_a_row_that_torch_refuses_leaves_the_others_checked(written, run):
    path = written(
        "name,kind,in_channels,out_channels,kernel_size,input_size\n"
        f"a,conv,3,8,3,9\nb,conv,,{10**30},3,\nc,norm,,,,\nd,conv,,8,3,\n"
    )
    result = run("network", path, "-f", "csv")
    assert result.code == 2
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [row["crosscheck"] for row in rows] == ["exact", "skipped", "skipped", "skipped"]
    assert rows[1]["macs"] == str(8 * 10**30 * 9 * 81)
    assert len(result.stderr.splitlines()) == 3
    for line in result.stderr.splitlines():
        assert line.startswith("error: torch refuses a layer of these sizes, so it is not counted")


# Bad input.

TOP = "name,kind,in_channels,out_channels,kernel_size,stride,input_size,from,repeat\n"
FIRST = "a,conv,3,8,3,,9,,\n"
EMPTY = "1: it has no layers; give a header row and one row per layer"
NO_KIND = "1: there is no column kind; the first row must name the columns"
WHOLE = "must be a whole number such as 64, got"
ELSE = "must be a string, a whole number, true or false, got"
KINDS = (
    "conv, separable, blueprint, grouped, spatial, bottleneck, inverted, fused, convnext, "
    "depthwise, transposed, linear, pool, upsample, norm"
)
NO_FIT = "the kernel spans 9x9, but the padded input is 7x7; use a smaller kernel or "
LINEAR_FIRST = "a first linear layer takes its features as in_channels; leave input_size empty"
PADDING = "must be same, valid (none) or a size of 0 or more, such as 1 or 1x2, got"
SECOND = {  # the row after the header and the first row: what is said of it
    "b,conv,,8,3,,,,,": "10 values for the 9 columns of the header",
    "b,conv,,8,3": "5 values for the 9 columns of the header",
    'b,"conv,,8,3,,,,': "malformed CSV: unexpected end of data",
    'b,"con"v,,8,3,,,,': "malformed CSV: ',' expected after '\"'",
    "b,conv\rv,,8,3,,,,": "malformed CSV: new-line character seen in unquoted field",
    "b,,,8,3,,,,": f"kind is missing; choose from {KINDS}",
    "b,seperable,,8,3,,,,": "unknown kind 'seperable'; did you mean separable?",
    "b,attention,,8,3,,,,": f"unknown kind 'attention'; choose from {KINDS}",
    "b,con\0v,,8,3,,,,": r"unknown kind 'con\x00v'; did you mean conv?",
    "b,\x1b[31m,,8,3,,,,": r"unknown kind '\x1b[31m'; choose from",
    "b,conv,,8,,,,,": "conv needs a kernel_size",
    "b,pool,,,,,,,": "pool needs a kernel_size or global",
    "b,conv,,,3,,,,": "conv needs either out_channels or expansion",
    "b,linear,,,,,,,": "linear needs either out_channels or expansion",
    "b,norm,,8,,,,,": "out_channels has no meaning for kind norm; leave it empty",
    "b,depthwise,,8,3,,,,": "out_channels has no meaning for kind depthwise; leave it empty",
    "b,linear,,8,3,,,,": "kernel_size has no meaning for kind linear; leave it empty",
    "b,conv,three,8,3,,,,": f"in_channels {WHOLE} 'three'",
    "b,conv,,1.5,3,,,,": f"out_channels {WHOLE} '1.5'",
    "b,conv,,8\0,3,,,,": rf"out_channels {WHOLE} '8\x00'",
    "b,conv,,8,3x,,,,": "kernel_size must be a size such as 3 or 3x5, got '3x'",
    "b,conv,,8,global,,,,": "kernel_size must be a size such as 3 or 3x5, got 'global'",
    "b,conv,,8,3,,,,many": f"repeat {WHOLE} 'many'",
    "b,conv,0,8,3,,,,": "in_channels must be at least 1, got 0",
    "b,conv,,-8,3,,,,": "out_channels must be at least 1, got -8",
    "b,conv,,8,3,0,,,": "stride must be at least 1, got 0",
    "b,conv,,8,3,,,,0": "repeat must be at least 1, got 0",
    f"b,conv,{'9' * 101},8,3,,9,,": "in_channels must have at most 100 digits, got 101",
    f"b,conv,,{'7' * 2**17},3,,,,": "out_channels must have at most 100 digits, got 131072",
    f"b,{'x' * 2**20}": "the line is longer than 1,048,576 bytes",
    "b,conv,,8,3,,,alas,": "from names 'alas', but there is no such row; choose from input, a",
    "b,conv,,8,3,,,b,": "from names 'b', which must come before this row",
    "b,norm,,,,,,\x1b]0;x\x07\u202e,": r"from names '\\x1b]0;x\\x07\\u202e', but there is no such",
    "b,conv,9,8,3,,,,": "in_channels is 9, but the input has 8",
    "b,conv,9,8,3,,,a,": "in_channels is 9, but the input has 8",
    "b,linear,8,2,,,,,": "in_channels is 8, but the input has 648",
    "b,conv,8,9,3,,,,2": "in_channels is 8, but the input of its second copy has 9",
    "b,conv,,8,3,,9x8,,": "input_size is 9x8, but the input is 9x9",
    "b,conv,,8,3,,8,a,": "input_size is 8x8, but the input is 9x9",
    "b,conv,,8,3x3x3,,,,": "input_size 9x9 has 2 axes, but the layer has 3",
    "b,conv,,8,3,,9x9x9,,": "input_size 9x9x9 has 3 axes, but the layer has 2",
    "a,norm,,,,,,,": "line 2 already has the name a",
    # A wrong row is not held against those that hang on it.
    "b,conv,,bad,3,,,,\nc,conv,64,8,3,,,,\nd,conv,64,8,3,,,b,": f"out_channels {WHOLE} 'bad'",
    "b,conv,9,8,3,,,,\nc,conv,1,8,3,,1,,\nd,norm,,,,,,b,": "in_channels is 9, but the input has 8",
}
SIZED = "kind,in_channels,out_channels,kernel_size,input_size"
ALONE = {  # more columns, and the first row: what is said of it
    "from\nconv,,8,3,9,": "the first row needs in_channels",
    "from\nconv,3,8,3,,": "the first row needs an input_size, or give ",
    "from\nconv,3,8,3,9,norm2\nnorm,,,,,": "from names 'norm2', which must come before this row",
    "from\nconv,3,bad,3,9,\nconv,64,8,3,,": f"out_channels {WHOLE} 'bad'",
    "from\nconvv,3,8,3,9,\nconv,,8,3,,input": "unknown kind 'convv'; did you mean conv?",
    "from\nconv,,8,3,9,\nconv,,8,3,,input": "the first row needs in_channels",
    "from\nlinear,784,10,,28,": LINEAR_FIRST,
    "expansion\nconv,3,8,3,9,2": "conv needs either out_channels or expansion",
    "padding\nconv,3,8,3,9,full": f"padding {PADDING} 'full'",
    "padding\nconv,3,8,9,7,valid\npool,,,3,,": NO_FIT,
    "padding\npool,3,,9,7,valid\npool,,,3,,": NO_FIT,
    "bias\nconv,3,8,3,9,yes": "bias must be true or false, got 'yes'",
    "rounding\nconv,3,8,3,9,16": "rounding must be 8 or 8+, got '16'",
    "groups\nconv,3,8,3,9,2": "groups must divide both channels, got groups 2 for 3 -> 8 channels",
}
OBJECTS = {  # a line of JSON: what is said of it
    '{"kind": "norm", "in_channels": 3': "malformed JSON: Expecting ',' delimiter at column ",
    '{"kind": ' + "[" * 100_000: "",
    '{"kind": "norm", "in_channels": 3.5}': f"in_channels {WHOLE} '3.5'",
    '{"kind": "norm", "in_channels": '
    + "9" * 5000
    + "}": "in_channels must have at most 100 digit",
    '{"kind": "norm", "kind": "norm"}': "'kind' is given twice",
    '{"kind": "norm", "in_channel": 3}': "unknown field 'in_channel'; did you mean in_channels?",
    '{"kind": "norm", "\\u001b[31m\\n\\u202e": 1}': r"unknown field '\x1b[31m\n\u202e'; choose ",
    '{"kind": {"conv": 1}}': f"kind {ELSE} an object",
    '[{"kind": "conv"}]': "it begins like a JSON array; write one JSON object per line instead",
    '{"kind": NaN}': f"kind {ELSE} nan",
    '{"kind": "conv", "kernel_size": [3, true]}': f"kernel_size {ELSE} an array",
    '{"kind": "conv", "kernel_size": []}': f"kernel_size {ELSE} an array",
}
HEADERS = {  # a first line: what is said of it
    TOP.replace("stride", "strides"): "1: unknown column 'strides'; did you mean stride?",
    TOP.replace("stride", "zzz"): "1: unknown column 'zzz'; choose from bias, depth_multiplier, ",
    TOP.replace("stride", "kind"): "1: the column 'kind' is given twice",
    TOP.replace(",kind", ""): NO_KIND,
    "name;kind;in_channels\n": "1: there is only one column; separate columns with commas",
    "[\n": "1: it begins like a JSON array; write one JSON object per line instead",
    'name,"kind\x00"x,in_channels\n': "1: malformed CSV: ",
}
SYMBOLS = {"IC": "in_channels", "oc": "out_channels", "F": "kernel_size", "D": "input_size"}
SEVERAL = [
    ("", EMPTY),
    (
        f"kind,{','.join(SYMBOLS)}\n",
        *(f"1: unknown column '{s}'; did you mean {name}?" for s, name in SYMBOLS.items()),
    ),
    ("\n \n# comment\n", EMPTY),
    (TOP, EMPTY),
    (bytes(2000), "1: unknown column '" + r"\x00" * 57 + "...'; choose from", NO_KIND),
    (
        "3,conv,8\n",
        *(f"1: unknown column '{cell}'; choose" for cell in ("3", "conv", "8")),
        NO_KIND,
    ),
    (
        f"{SIZED},repeat,depth_multiplier\nnorm,4,,,9,,\ndepthwise,,,3,,5000,10\n",
        "3: its channels have more than 100 digits",
    ),
    (f"{TOP}{FIRST}größe,conv,,8,3\n".encode("latin-1"), "3: the line is not UTF-8 text"),
    (f"{TOP}{FIRST}".encode("utf-16"), "1: the file is UTF-16 text; save it as UTF-8"),
    (
        f"{TOP}{FIRST}b,convv,,8,3,,,,\nc,conv,,8,3,,,d,\nd,norm,9,,,,,a,\ne,norm\n"
        "stem,linear,,8,,,,a,\nf,conv,,8,3,,,,\ng,pool,,,2,,,stem,\nh,norm,,,,,,stm,\n",
        "3: unknown kind 'convv'; did you mean conv?",
        "4: from names 'd', which must come before this row",
        "5: in_channels is 9, but the input has 8",
        "6: 2 values for the 9 columns of the header",
        "8: conv needs a map, but its input is the output of a linear layer",
        "9: pool needs a map, but its input is the output of a linear layer",
        "10: from names 'stm', but there is no such row; did you mean stem?",
    ),
    (
        '{"kind": "norm", "in_channels": 3, "input_size": 9}\nnorm,3,9\n["norm"]\n3\nnull\n',
        "2: malformed JSON: Expecting value at column 1",
        "3: each line must be one JSON object, got '[\"norm\"]'",
        "4: each line must be one JSON object, got '3'",
        "5: each line must be one JSON object, got 'null'",
    ),
    (
        '{\n "kind": "norm"\n}\n',
        "1: it is one JSON object over many lines, like a report of dscalc; write one "
        "object per line, one for each layer",
    ),
]
BAD = [
    *((f"{TOP}{FIRST}{rows}\n", f"3: {reason}") for rows, reason in SECOND.items()),
    *((f"{SIZED},{rows}\n", f"2: {reason}") for rows, reason in ALONE.items()),
    *((f"{line}\n", f"1: {reason}") for line, reason in OBJECTS.items()),
    *((header + FIRST, reason) for header, reason in HEADERS.items()),
    *SEVERAL,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[-1][:60])
def test_every_bad_row_is_one_line_that_names_it(bad):
    data, *reasons = bad
    starts(refused(data), reasons)


def test_a_bad_file_is_no_answer_and_leaves_no_file(tmp_path, run, written):
    path, old = written("", "net"), written("old", "old")
    for (data, *reasons), form in zip(BAD[::5], FORMATS * len(BAD), strict=False):
        written(data, "net")
        for output in (str(tmp_path / "new"), old):
            result = run("network", path, "-f", form, "-o", output)
            assert (result.code, result.stdout) == (2, "")
            starts(result.stderr.splitlines(), [f"{path}:{reason}" for reason in reasons])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net", "old"]
    assert (tmp_path / "old").read_text() == "old"


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


@pytest.mark.parametrize(
    ("line", "count", "reason"),
    [
        (b"x", 1, "2: the line is longer than 1,048,576 bytes"),
        (b"nrom,,\n", 51, "51: too many errors; dscalc stopped reading here"),
    ],
)
def test_of_a_long_file_only_a_little_is_read(line, count, reason):
    stream = io.BytesIO(b"kind,in_channels,input_size\n" + line * 2**22)
    with pytest.raises(FileError) as raised:
        read_network(stream, "net")
    lines = str(raised.value).split("\n")
    assert (len(lines), lines[-1]) == (count, f"net:{reason}")
    assert stream.tell() < 2**21


@pytest.mark.parametrize("rows", ["norm,3,8\n" * 6, "norm,3,8\nconv,,,8,3,9999999999\n"])
def test_a_network_has_at_most_so_many_layers(rows, monkeypatch):
    monkeypatch.setattr("dscalc.inputs.network_file._MOST_LAYERS", 5)
    header = "kind,in_channels,input_size"
    header += ",out_channels,kernel_size,repeat" if "conv" in rows else ""
    rows = rows.replace("norm,3,8", "norm,3,8,,,") if "conv" in rows else rows
    with pytest.raises(FileError, match="a network has at most 5 layers"):
        read_network(io.BytesIO(f"{header}\n{rows}".encode()), "net")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("mobilenet_v3", "no network or file named 'mobilenet_v3'; did you mean mobilenet_v"),
        ("resnet-50", "no network or file named 'resnet-50'; did you mean resnet50"),
        ("nowhere/net.csv", "no network or file named 'nowhere/net.csv'; check the path"),
        (".", "cannot read .: Is a directory"),
        ("x" * 5000, "cannot read "),
    ],
)
def test_what_cannot_be_opened_is_an_error_of_one_line(source, reason, run, here):
    result = run("network", source, "-o", "report.txt")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason)
    assert list(here.iterdir()) == []


def test_globs_choose_the_rows_that_are_rewritten(run):
    every = load_network("vgg16", block=SEPARABLE)
    told = (
        "network vgg16 --as separable --no-verify --rows --get name --get kept --get separable_macs"
    )
    shown = run(f"{told} --only conv4_* --only conv5_* --except *_3").stdout
    for row, line in zip(every, shown.splitlines(), strict=True):
        chosen = row.name in ("conv4_1", "conv4_2", "conv5_1", "conv5_2")
        side = row.rewritten if chosen else row.as_is
        assert line.split("\t") == [
            row.name, row.kept or ("" if chosen else "excluded"), str(side.cost.macs)
        ]  # fmt: skip
    total = run(told.replace("--rows ", "") + " --only conv4_1").stdout.split("\t")[2]
    report = network("vgg16", block="separable", only="conv4_1")
    assert int(total) == report.total.rewritten.cost.macs
    wrong = run("network vgg16 --as separable --only conv6_*")
    assert wrong.error.startswith("'conv6_*' matches no row of the network; did you mean conv5_3 ")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ("", "missing argument"),
        ("/dev/zero -q", "/dev/zero:1: the line is longer than 1,048,576 bytes"),
        ("--width-multiplier 0", "--width-multiplier must be greater than 0, such as 0.75"),
        ("--resolution-multiplier x", "--resolution-multiplier must be a number such as 0.75 "),
        ("--input-size 0", "--input-size must be at least 1, got 0"),
        ("--input-size 3x", "--input-size must be a size such as 3 or 3x5, got '3x'"),
        ("--batch 0", "--batch must be at least 1, got 0"),
        ("--get mac", "unknown field 'mac'; did you mean macs or fvcore_macs?"),
        ("--as seperable", "--as: unknown block 'seperable'; did you mean separable?"),
        ("--only sep*", "--only needs --as BLOCK, such as --as separable"),
        ("--except sep*", "--except needs --as BLOCK, such as --as separable"),
        ("--stride 2", "no such option here: --stride; dscalc compare, dscalc blocks and dscalc b"),
    ],
)
def test_bad_options_are_an_error_of_one_line(args, reason, run):
    source = " mobilenet_v1" if args.startswith("--") else ""
    result = run(f"network{source} {args}")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr


# Names.

LITERAL = "[bold red]x[/] |*_`<b>&amp;"
ESCAPES = "\x1b[31mred\x1b[0m\r\x07\u202e\u200b"
ESCAPED = r"\x1b[31mred\x1b[0m\r\x07\u202e\u200b"
OF_OTHER_SCRIPTS = "Faltung-größe-畳み込み"


def named(name):
    row = {"name": name, "kind": "conv", "in_channels": 3, "out_channels": 8, "kernel_size": 3}
    return json.dumps({**row, "input_size": 9}) + "\n"


def unescaped(report, form):
    """The text of a report of one row, with the escapes of its format undone."""
    if form.startswith("json"):
        parsed = json.loads(report)
        return parsed.get("rows", [parsed])[0]["name"]
    if form == "svg":
        text = "".join(ElementTree.fromstring(report).itertext())
        return text.replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r"\\(.)", r"\1", report) if form == "markdown" else report


@pytest.mark.parametrize(
    ("name", "shown"),
    [(LITERAL, LITERAL), (ESCAPES, ESCAPED), (OF_OTHER_SCRIPTS, OF_OTHER_SCRIPTS)],
    ids=["markup", "escapes", "other scripts"],
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_name_is_printed_literally(form, name, shown, written, run):
    result = run("network", written(named(name)), "-f", form, "--no-verify", columns=300)
    assert (result.code, result.stderr) == (0, "")
    assert shown in unescaped(result.stdout, form)
    assert all(char.isprintable() or char in "\n\N{NO-BREAK SPACE}" for char in result.stdout)


def test_raw_escapes_in_csv_are_printed_literally_too(written, run):
    stdout = run("network", written(SMALL.replace("stem", "\x1b[31mstem\x00")), columns=300).stdout
    assert r"\x1b[31mstem\x00" in stdout
    assert "\x1b" not in stdout


def test_a_failing_row_is_named_literally(written, run, monkeypatch):
    monkeypatch.setattr(THE_MODULE, "conv_flop_count", lambda *_: 1)
    path = written(named(f"{LITERAL}{ESCAPES}"))
    assert run("network", path, "-q")[::2] == (1, "")
    result = run("network", path)
    assert result.code == 1
    assert result.stderr.startswith(f"failed: mismatch: {LITERAL}{ESCAPED}: ")


def test_escapes_in_the_name_of_a_file_are_printed_literally(run, written):
    text = "kind,in_channels,input_size\nnorm,3,8\n"
    good = run("network", written(text, "\x1b[31mred.csv"), "--no-verify")
    bad = run("network", written(text.replace("norm", "nor"), "\x1b[31mred.csv"))
    assert "\x1b" not in good.stdout + bad.stderr
    assert r"\x1b[31mred.csv" in good.stdout
    assert r"\x1b[31mred.csv:2: unknown kind" in bad.stderr


def test_a_table_of_more_rows_than_can_be_read_is_refused(run, written):
    path = written(f"{SIZED},repeat\nconv,3,3,3,9,10001\n")
    for form in ("table", "json", "markdown", "svg"):
        result = run("network", path, "--no-verify", "-f", form)
        assert (result.code, result.stdout) == (2, "")
        assert result.error.startswith(f"{form} takes at most 10,000 rows, got 10,001; ")
    assert len(run("network", path, "--no-verify", "-f", "csv").stdout.splitlines()) == 10_002


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "args", ["3 64 3,5 14", "blocks 3 64 3 14", "network alexnet --unit flops", "network alexnet"]
)
def test_a_report_is_no_list_of_layers(args, form, run, tmp_path):
    run(f"{args} --no-verify -f {form} -o {tmp_path / 'report'}")
    result = run(f"network {tmp_path / 'report'}")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path / 'report'}:1: it is a report that dscalc wrote, not a list")
    assert result.code == 2


@pytest.mark.parametrize("command", ["compare", "blocks", "network", "model", "bench"])
def test_every_report_has_the_field_that_tells_it(command):
    assert "mac_ratio" in {field.name for field in fields(command, SEPARABLE)}
