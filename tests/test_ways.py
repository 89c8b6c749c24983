"""Every way to build a layer: the figures of the papers, side by side, and the arithmetic."""

import json
from fractions import Fraction
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import geometries
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import dscalc
from dscalc import Block, Conv, DscalcError, compare
from dscalc.core.cost import sum_costs
from dscalc.core.describe import beyond_one_position
from dscalc.core.row import layer_row
from dscalc.core.transposed import TransposedConv
from dscalc.core.work import worked
from dscalc.inputs.grid import Grid
from dscalc.inputs.network_file import load_network


def cost_of(conv, block):
    return sum_costs(step.cost for step in Block.parse(block).steps(conv))


# Figures of the papers.


@pytest.mark.parametrize(
    ("block", "weights"), [("bottleneck:4", 69_632), ("bottleneck:2:32", 70_144)]
)
def test_both_blocks_of_resnext_have_about_70_k_weights(block, weights):
    """Xie et al., 2017, figure 1 and table 1, at 256 channels."""
    assert cost_of(Conv(256, 256, 3, 56), block).params == weights


def test_a_3x1_and_a_1x3_save_a_third():
    """Szegedy et al., 2016, section 3.2: 33% cheaper for the same number of output filters."""
    conv = Conv(64, 64, 3, 28)
    assert Fraction(cost_of(conv, "spatial").macs, conv.cost.macs) == Fraction(2, 3)


@given(*[st.integers(1, 9)] * 3, st.integers(2, 6), st.sampled_from([3, 5]))
def test_an_inverted_residual_costs_what_its_paper_says(size, wide, out, t, k):
    """Sandler et al., 2018, section 3.4: h * w * d' * t * (d' + k^2 + d'')."""
    conv = Conv(wide, out, k, size)
    assert cost_of(conv, f"inverted:{t}").macs == size * size * wide * t * (wide + k * k + out)


def test_the_inverted_residual_of_64_channels_costs_more_than_a_plain_convolution():
    conv = Conv(64, 64, 3, 28)
    assert (cost_of(conv, "inverted").macs, conv.cost.macs) == (41_244_672, 28_901_376)


# Input of each stage, its operator, expansion, output channels, repetitions, stride: table 2.
MOBILENET_V2 = [
    *((112, 32, 1, 16, 1, 1), (112, 16, 6, 24, 2, 2), (56, 24, 6, 32, 3, 2), (28, 32, 6, 64, 4, 2)),
    *((14, 64, 6, 96, 3, 1), (14, 96, 6, 160, 3, 2), (7, 160, 6, 320, 1, 1)),
]


def test_mobilenet_v2_has_the_blocks_of_its_table():
    rows = [row for row in load_network("mobilenet_v2") if row.block]
    expected = [
        (size if copy == 0 else size // s, c if copy == 0 else out, t, out, s if copy == 0 else 1)
        for size, c, t, out, n, s in MOBILENET_V2
        for copy in range(n)
    ]
    assert [
        (row.layer.input_size[0], row.layer.in_channels, row.block.numbers[0],
         row.layer.out_channels, row.layer.stride[0])
        for row in rows
    ] == expected  # fmt: skip


def test_the_block_of_convnext_at_96_channels():
    """Liu et al., 2022, figure 4: 96, 7x7 depthwise; 384, 1x1; 96, 1x1."""
    steps = Block.parse("convnext").steps(Conv(96, 96, 7, 56, bias=True))
    assert [step.cost.params for step in steps] == [96 * 50, 97 * 384, 385 * 96]


def test_a_blueprint_costs_1_over_f2_plus_1_over_ic():
    """Haase, Amthor, 2020, section 3."""
    conv = Conv(32, 48, 5, 14)
    ratio = Fraction(cost_of(conv, "blueprint").macs, conv.cost.macs)
    assert ratio == Fraction(1, 25) + Fraction(1, 32)
    assert Block.parse("blueprint").closed_form(conv) == ("1/F^2 + 1/IC", "1/25 + 1/32", ratio)


def test_a_fused_block_expands_with_its_filter():
    """Tan, Le, 2021, figure 2."""
    conv = Conv(24, 48, 3, 64, stride=2)
    assert cost_of(conv, "fused:4").macs == 32 * 32 * (24 * 96 * 9 + 96 * 48)


@given(geometries(paddings=("same",)), st.integers(1, 5), st.integers(1, 5))
def test_closed_forms_are_true_where_the_map_keeps_its_size(sizes, in_channels, out_channels):
    conv = Conv(4 * in_channels, 4 * out_channels, **{**sizes, "stride": 1})
    for name in ("separable", "separable:3", "blueprint", "grouped:4"):
        form = Block.parse(name).closed_form(conv)
        assert form[2] == Fraction(cost_of(conv, name).macs, conv.cost.macs), name


WAYS = ("separable", "separable:2", "blueprint", "grouped:2", "spatial", "bottleneck", "convnext")


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 12), st.sampled_from(WAYS))
def test_what_is_said_of_one_output_position_holds_for_every_map(stride, kernel, size, way):
    """The ratio where it says so, and else for maps that the stride divides; params always."""
    block = Block.parse(way)
    [one] = Grid("4", "8", str(kernel), stride=stride)
    assert one.output_size == (1, 1)
    sentence = beyond_one_position(one, block, "same")
    map_size = size if "ratio" in sentence else size * stride
    found = [layer_row(conv, block) for conv in (one, Conv(4, 8, kernel, map_size, stride))]
    assert found[0].mac_ratio == found[1].mac_ratio
    assert found[0].param_ratio == found[1].param_ratio
    library = compare(4, 8, kernel, stride=stride, block=block, resolution_multiplier=0.5)
    assert library.total.mac_ratio == found[0].mac_ratio
    assert ("ratio" in sentence) or (stride > 1 and "separable" not in way)
    assert "ratio" not in beyond_one_position(one, block, "valid")


# Transposed convolutions.


@given(geometries(paddings=("valid", "size")), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_a_transposed_convolution_is_that_of_torch(sizes, in_channels, out_channels, bias):
    try:
        conv = TransposedConv(in_channels, out_channels, **sizes, bias=bias, batch_size=2)
    except DscalcError as error:
        assert "removes the whole output" in str(error)  # noqa: PT017
        return
    dims = len(conv.kernel_size)
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    module = kind(
        in_channels, out_channels, conv.kernel_size, conv.stride, conv.padding,
        conv.output_padding, bias=bias, dilation=conv.dilation, device="meta",
    )  # fmt: skip
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        output = module(torch.empty(2, in_channels, *conv.input_size, device="meta"))
    assert tuple(output.shape[2:]) == conv.output_size
    assert conv.cost.macs == mode.get_total_flops() // 2
    assert conv.cost.params == sum(parameter.numel() for parameter in module.parameters())


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 9))
def test_a_transposed_convolution_with_same_padding_multiplies_the_map(kernel, stride, size):
    if kernel > stride and (kernel - stride) % 2 and stride == 1:
        with pytest.raises(DscalcError, match="torch cannot pad a"):
            TransposedConv(2, 3, kernel, size, stride)
        return
    conv = TransposedConv(2, 3, kernel, size, stride)
    assert conv.output_size == (size * stride,) * 2
    module = nn.ConvTranspose2d(2, 3, kernel, stride, conv.padding, conv.output_padding)
    assert tuple(module(torch.empty(0, 2, size, size)).shape[2:]) == conv.output_size


# Side by side.


def test_blocks_are_shown_cheapest_first_with_the_standard_layer_marked(run):
    stdout = run("blocks 256 256 3 56").stdout
    lines = [line.split() for line in stdout.splitlines() if "✓" in line and "%" in line]
    macs = [int(next(word for word in line if "," in word).replace(",", "")) for line in lines]
    assert len(lines) == 9
    assert macs == sorted(macs)
    assert [line[:2] for line in lines if line[1] == "*"] == [["standard", "*"]]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_steps_of_each_block_are_shown_at_any_width(columns, run):
    """Beside its numbers, or below the table where there is no room."""
    report = run("blocks 256 256 3 56 --no-verify", columns=columns).stdout
    words = " ".join(report.split())
    for line in (
        *(
            "separable: depthwise 3x3, pointwise 1x1",
            "bottleneck: reduce 1x1, conv 3x3, expand 1x1",
        ),
        *("grouped:8: conv 3x3", "convnext: depthwise 3x3, expand 1x1, project 1x1"),
    ):
        assert (line if columns < 120 else line.replace(": ", " ")) in words
    hidden = report.partition("not shown at this width: ")[2].split()
    assert "steps," not in hidden
    assert "steps" not in hidden


def test_blocks_are_data_with_their_steps(run):
    report = json.loads(run("blocks 64 64 3 28 --only inverted,separable -f json").stdout)
    assert report["total"] is None
    assert [row["name"] for row in report["rows"]] == ["separable", "standard", "inverted"]
    inverted = report["rows"][2]
    assert (inverted["macs"], inverted["crosscheck"]) == (41_244_672, "exact")
    assert [step["name"] for step in inverted["steps"]] == ["expand", "depthwise", "project"]
    assert sum(step["macs"] for step in inverted["steps"]) == inverted["macs"]
    [header, first, *_] = run("blocks 64 64 3 28 --only separable -f csv").stdout.splitlines()
    assert "depthwise 3x3 64 -> 64; pointwise 1x1 64 -> 64" in first
    assert header.startswith("name,kind,in_channels")


def test_a_block_that_does_not_exist_is_left_out_unless_it_is_asked_for(run):
    why = "8 groups do not divide 3 channels"
    assert f"left out: grouped:8: {why}" in run("blocks 3 64 3 28 --no-verify").stdout
    assert run("blocks 3 64 3 28 --only grouped:8").error == f"grouped:8: {why}"
    assert run("3 64 3 28 --as grouped:8").error == f"grouped:8: {why}"
    result = run("3,8,16 64 3 28 --as grouped:8 -f csv")
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == f"left out: grouped:8: {why}\n"


@pytest.mark.parametrize(
    ("dims", "steps"), [(2, ["vertical", "horizontal"]), (3, ["depth", "vertical", "horizontal"])]
)
def test_a_spatial_block_has_the_fields_of_each_of_its_axes(dims, steps, run):
    layer = f"8 8 3 9 --dims {dims} --as spatial"
    [row] = json.loads(run(f"{layer} --no-verify -f json").stdout)["rows"]
    found = [name for name in row if name.endswith("_macs") and name.partition("_")[0] in steps]
    assert found == [f"{step}_macs" for step in steps]
    assert sum(row[name] for name in found) == row["spatial_macs"] == 8 * 8 * 9**dims * 3 * dims
    assert run(f"{layer} --get {steps[0]}_macs").stdout == f"{row[found[0]]}\n"


def test_a_network_of_three_axes_has_the_fields_of_each(run, tmp_path):
    path = tmp_path / "net.csv"
    path.write_text("kind,in_channels,out_channels,kernel_size,input_size\nconv,8,8,3,9\n")
    for dims, count in ((3, "139968\t139968\n"), (2, "\t15552\n")):
        asked = f"network {path} --dims {dims} --as spatial --get depth_macs --get vertical_macs"
        assert run(asked).stdout == count


def test_a_count_before_a_reason_with_a_number_is_not_read_as_one(run, tmp_path):
    path = tmp_path / "net.csv"
    path.write_text("kind,in_channels,out_channels,kernel_size,input_size\nconv,8,9,3,9\n")
    said = run(f"network {path} --as grouped:8 --no-verify").stdout
    assert "kept: 1 since 8 groups do not divide 9 channels (100% of the MACs)" in said


def test_blocks_of_a_grid_have_a_row_each_and_a_picture(run, tmp_path):
    rows = json.loads(run("blocks 64 64:128:x2 3 28 --only separable -f json").stdout)["rows"]
    assert [(row["name"], row["out_channels"]) for row in rows] == [
        *(("separable", 64), ("standard", 64), ("separable", 128), ("standard", 128))
    ]
    file = tmp_path / "blocks.svg"
    assert run(f"blocks 64 64 3 28 --no-verify --plot {file}").code == 0
    assert "bottleneck" in file.read_text("utf-8") or file.stat().st_size > 5000


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ("blocks 64 64 3 28 --only grouped", "--only: grouped needs its groups, such as grouped:8"),
        ("64 64 3 28 --as fused --no-depthwise-bias", "fused has no depthwise step; drop --no-d"),
        ("64 64 3 28 --as grouped:0", "grouped groups must be at least 1, got 0"),
        ("64 64 3 28 --as bottleneck:3", "bottleneck:3: 3 does not divide 64 output channels"),
        ("64 64 3 28 --as grouped:3 --work", "grouped:3: 3 groups do not divide 64 channels"),
        (
            "64 64 3 28 --as separable:x",
            "separable depth multiplier must be a whole number such as 1,",
        ),
        (
            "64 64 3 28 --as bottleneck:4:x",
            "bottleneck inner groups must be a whole number such as 1, got",
        ),
        ("64 64 3 28 --as grouped:x", "grouped groups must be a whole number such as 8, got 'x'"),
        ("64 64 3 28 --as botleneck", "--as: unknown block 'botleneck'; did you mean bottleneck?"),
        ("bench 64 64 3 28 --as standard", "--as standard is what the layer is compared with"),
        ("model x:X --as standard", "--as standard is what the model already has"),
        ("64 64,128 3 28 --work", "--work shows one layer"),
        ("3,5 64 3 28 --as grouped:8", "no layer is left; left out: grouped:8: 8 groups do not"),
    ],
)
def test_what_cannot_be_built_is_one_line(args, error, run):
    result = run(args)
    assert result.code == 2
    assert result.error.startswith(error)


# The arithmetic.


@pytest.mark.parametrize(
    ("conv", "block", "lines"),
    [
        (
            Conv(3, 64, 3, 224),
            "separable",
            [
                "depthwise  IC * F^2 * D^2 = 3 * 9 * 50,176 = 1,354,752",
                "pointwise  IC * OC * D^2 = 3 * 64 * 50,176 = 9,633,792",
                "separable  depthwise + pointwise = 1,354,752 + 9,633,792 = 10,988,544",
            ],
        ),
        (
            Conv(64, 64, 3, 28),
            "grouped:8",
            ["conv     IC/g * OC * F^2 * D^2 = 64/8 * 64 * 9 * 784 = 3,612,672"],
        ),
        (
            Conv(8, 8, 3, 28, stride=2),
            "spatial",
            [
                "vertical    IC * OC * F * D'*D = 8 * 8 * 3 * 392 = 75,264",
                "horizontal  OC * OC * F * D'^2 = 8 * 8 * 3 * 196 = 37,632",
                "spatial     vertical + horizontal = 75,264 + 37,632 = 112,896",
            ],
        ),
    ],
)
def test_work_shows_symbols_numbers_and_results(conv, block, lines):
    assert list(worked(conv, Block.parse(block))) == lines


@given(
    geometries(), st.sampled_from(["standard", "separable:2", "inverted:3", "convnext", "spatial"])
)
def test_what_work_multiplies_comes_to_what_it_says(sizes, name):
    conv = Conv(4, 6, **sizes, batch_size=3)
    for line in worked(conv, Block.parse(name)):
        _, numbers, result = line.rsplit(" = ", 2)
        value = int(result.replace(",", ""))
        if " + " in numbers:
            assert sum(int(part.replace(",", "")) for part in numbers.split(" + ")) == value
        else:
            parts = [Fraction(part.replace(",", "")) for part in numbers.split(" * ")]
            assert prod(parts) == value


def test_work_stands_under_the_table(run):
    lines = run("3 64 3 224 --work").stdout.splitlines()
    assert "pointwise  IC * OC * D^2 = 3 * 64 * 50,176 = 9,633,792" in lines


# Networks.


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "unet"])
def test_what_show_prints_can_be_read_back(name, run, tmp_path):
    file = tmp_path / "net"
    file.write_text(run(f"network {name} --show").stdout, "utf-8")
    asked = "--no-verify --get macs --get params --get standard_macs"
    assert run(f"network {file} {asked}") == run(f"network {name} {asked}")


def test_sources_are_joined_and_may_be_the_input(run, tmp_path):
    file = tmp_path / "net.csv"
    file.write_text(
        "name,kind,in_channels,out_channels,kernel_size,input_size,stride,scale,from\n"
        "a,conv,3,8,1,16,,,\nb,conv,,4,3,,2,,input\nup,upsample,,,,,,2,\nc,conv,,2,1,,,,a+up\n"
        "t,transposed,,5,2,,2,,\n"
    )
    rows = load_network(str(file))
    assert [(r.layer.in_channels, r.layer.output_size[0]) for r in rows] == [
        *((3, 16), (3, 8), (4, 16), (12, 16), (2, 32))
    ]
    file.write_text(file.read_text().replace("a+up", "a+b"))
    assert (
        run(f"network {file}")
        .stderr.strip()
        .endswith("net.csv:5: from joins maps of the same size, got 16x16 and 8x8")
    )


def test_rows_that_say_nothing_have_biases_by_option(run):
    plain, biased = (run(f"network mobilenet_v1 {o} --get params").stdout for o in ("", "--bias"))
    channels = 32 + 1000  # of conv0 and fc, and of each depthwise and pointwise step
    for row in load_network("mobilenet_v1"):
        if row.kind == "separable":
            channels += row.layer.in_channels + row.layer.out_channels
    assert int(biased) - int(plain) == channels


def test_the_library_sets_blocks_side_by_side_as_the_command_does(run):
    report = dscalc.blocks(3, 64, 3, 28, only="separable:2", stride=2, verify=True)
    shown = run("blocks 3 64 3 28 --stride 2 --only separable:2 -f json").stdout
    assert report.to_dict() == json.loads(shown)
    assert next(row.name for row in dscalc.blocks(64, 64, 3).rows) == "bottleneck"
    left_out = "grouped:8: 8 groups do not divide 3 channels"
    assert dscalc.blocks(3, 64, 3).remarks == [f"left out: {left_out}"]
    with pytest.raises(DscalcError, match=left_out):
        dscalc.blocks(3, 64, 3, only=["separable:2", "grouped:8"])
    with pytest.raises(DscalcError, match="standard is what the layer is compared with"):
        dscalc.compare(3, 64, 3, block="standard")
