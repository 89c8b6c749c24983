"""What somebody meets who asks from Python and not from a shell."""

import json
import re

import pandas
import pytest
import torch
from torch import nn

import dscalc
from dscalc.cli import main
from dscalc.core.blocks import SEPARABLE
from dscalc.pytorch import audit
from dscalc.slices import SLICES

NET = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
MACS, PARAMS = 8 * 27 * 36 + 2880, 8 * 27 + 8 + 2890  # by hand


class Pair(nn.Module):
    """Two inputs, one of which has the name of an argument of `audit`."""

    def forward(self, images, input_size):
        """Multiply them."""
        return images @ input_size


@pytest.mark.parametrize(
    "inputs",
    [
        lambda: audit(NET, torch.zeros(1, 3, 8, 8)),
        lambda: audit(NET, (1, 3, 8, 8)),
        lambda: audit(NET, [1, 3, 8, 8]),
        lambda: audit(NET, torch.Size([1, 3, 8, 8])),
        lambda: audit(NET, input_size=(1, 3, 8, 8)),
        lambda: audit(NET, input_size=[(1, 3, 8, 8)]),
    ],
)
def test_a_model_is_counted_on_a_tensor_or_on_a_shape(inputs):
    report = inputs()
    assert (report.macs, report.params) == (MACS, PARAMS)
    assert [row.as_is.cost.macs for row in report] == [8 * 27 * 36, 2880]


def test_several_shapes_are_several_inputs():
    assert audit(Pair(), input_size=[(1, 5, 7), (1, 7, 3)]).macs == 5 * 7 * 3
    both = {"images": torch.zeros(1, 5, 7), "input_size": torch.zeros(1, 7, 3)}
    assert audit(Pair(), named=both).macs == 5 * 7 * 3


def test_lists_make_a_grid_or_several_networks():
    for channels in ([32, 64], (32, 64), range(32, 65, 32), "32,64"):
        grid = dscalc.compare(16, channels, 3, 14)
        assert [row.layer.out_channels for row in grid] == [32, 64]
        assert [*grid] == [*grid.rows]
    several = dscalc.network(["vgg16", "resnet50"], input_size=[64, (64, 96)], width_multiplier=[1])
    alone = [
        dscalc.network(name, input_size=size).macs
        for name in ("vgg16", "resnet50")
        for size in (64, (64, 96))
    ]
    assert [row.as_is.cost.macs for row in several] == alone
    assert several.macs is None  # they are alternatives
    proved = dscalc.network(["vgg16"], width_multiplier=["0.5", 0.25], verify=True)
    assert [row.crosscheck for row in proved] == ["exact"] * 2


def test_a_frame_keeps_counts_whole():
    """Also where some are not known, as of a linear layer among rows of convolutions."""
    frame = audit(NET, (1, 3, 8, 8)).to_frame()
    assert frame.macs.tolist() == [8 * 27 * 36, 2880]
    assert {str(frame[name].dtype) for name in ("macs", "params", "in_channels")} == {"Int64"}
    unknown = pandas.DataFrame(dscalc.network("vgg16").to_records()).fvcore_macs
    assert unknown.isna().all()  # not verified
    frame = dscalc.network("vgg16").to_frame()
    assert str(frame.fvcore_macs.dtype) == "Int64"
    assert frame.macs.sum() == dscalc.network("vgg16").macs
    huge = dscalc.compare(2**31, [2**31, 2**31 + 1], 3, 224).to_frame()
    assert huge.standard_macs[0] == 9 * 2**62 * 224**2  # past 64 bits as Python's own


def test_a_function_of_a_slice_stays_what_it_is():
    """Also once its folder is imported, which must not take its place."""
    for name in [name for slice_ in SLICES.values() for name in slice_.calls]:
        first, again = getattr(dscalc, name), getattr(dscalc, name)
        assert again is first
        assert callable(first)
        assert name in dir(dscalc)


def test_data_of_other_counters_are_those_of_the_json():
    report = dscalc.network("vgg16")
    explained = dscalc.explain(report, 15_470_264_320)
    for found, key in ((explained, "explain"), (dscalc.counters(report), "peers")):
        assert key in found.to_dict()
        assert found.to_dict() == json.loads("".join(found.json()))


def test_one_block_is_a_list_of_one():
    [one, several] = (dscalc.blocks(8, 8, 3, 9, only=only) for only in (SEPARABLE, [SEPARABLE]))
    assert list(one) == list(several)


def test_a_report_draws_itself(tmp_path):
    pytest.importorskip("matplotlib")
    dscalc.compare(64, [32, 64], 3, [14, 28]).plot(tmp_path / "grid.png")
    dscalc.network("vgg16").plot(str(tmp_path / "net.svg"))
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "net.svg").read_text()


MISTAKES = [
    (lambda: audit(NET), "give input, each a tensor or a shape such as (1, 3, 224, 224)"),
    (lambda: audit(Pair(), (1, 5, 7)), "give images, input_size, each a tensor or a shape such as"),
    (lambda: audit(NET, (1, 3, 8, 8), input_size=(1, 3, 8, 8)), "by input_size; drop one"),
    (lambda: dscalc.compare(3, [8, 16], 3, 5, work=True), "work=True shows one layer; give one"),
    (lambda: dscalc.compare(3, 8, [(3, 3, 3)], "5x5", dims=2), "3 axes, but the layer has 2"),
    (lambda: dscalc.compare(3, 8, "3x3x3", 5, dims=2), "; dims=3 makes it 3-D"),
    (lambda: dscalc.compare(4, 8, 3, 5, groups=0), "groups must be at least 1, got 0"),
    (lambda: dscalc.compare(4, 8, 3, 5, unit="ops"), "unit must be macs or flops, got 'ops'"),
    (lambda: dscalc.network("vgg16", dims=0), "dims must be at least 1, got 0"),
    (lambda: dscalc.network([]), "source must have a value, got an empty list"),
    (lambda: dscalc.benchmark(4, 8, 3, 5, blocks=[]), "blocks must have a value, got an empty"),
    (
        lambda: dscalc.network("vgg16", only="conv*"),
        "only and exclude choose what is replaced; giv",
    ),
    (lambda: dscalc.explain(dscalc.network("vgg16"), "3 Q"), "an unknown unit 'Q', got '3 Q'"),
    (lambda: dscalc.cite(dscalc.network(["vgg16", "unet"])), "no total of 2 networks; give the"),
    (lambda: dscalc.counters(dscalc.network(["vgg16", "unet"])), "there is no total of 2 networks"),
    (lambda: dscalc.explain(dscalc.compare(4, [8, 9], 3, 5), 9), "there is no total of 2 layers"),
    (lambda: dscalc.network("vgg16").plot("net.jpg"), "plot needs a file that ends in .png, .svg"),
]


@pytest.mark.parametrize(("call", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_an_error_speaks_of_python(call, says):
    with pytest.raises(dscalc.DscalcError) as caught:
        call()
    assert says in str(caught.value)
    assert not re.search(r"(^| )--?[a-z]|\bIC\b", str(caught.value))


@pytest.mark.parametrize(
    "report",
    [
        lambda: dscalc.compare(3, 64, 56),
        lambda: dscalc.compare(3, 64, 3, 7),
        lambda: dscalc.compare(1, 64, 3, 7),
        lambda: dscalc.compare(8, 64, 7, 3),
        lambda: dscalc.network(["vgg16", "resnet50"]),
        lambda: dscalc.network("resnet50", block="separable", exclude="*"),
        lambda: audit(NET, (1, 3, 8, 8), verify=False),
        lambda: audit(nn.Sequential(*(nn.Linear(4 + n, 5 + n) for n in range(40))), (1, 4)),
    ],
)
def test_a_report_speaks_of_python(report):
    assert not re.search(r" --?[a-z]|IC OC F", str(report()))


def test_a_command_line_speaks_of_options_and_python_not_after_it(capsys):
    assert main(["compare", "3", "64", "56", "--no-verify"]) == 0
    assert "if that is D, write IC OC F D" in capsys.readouterr().out
    [note, _] = dscalc.compare(3, 64, 56).remarks
    assert note == "kernel_size is 56 here; if that is input_size, call compare(3, 3, 64, 56)"
