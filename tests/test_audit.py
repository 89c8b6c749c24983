"""Auditing a model, and converting it: right on real architectures, and without a trace."""

import copy
import pickle
import random
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from itertools import pairwise
from math import gcd, prod
from types import SimpleNamespace

import architectures
import layers
import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given
from hypothesis import strategies as st
from layers import Calling
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules import module as all_modules
from torch.utils.flop_counter import FlopCounterMode

from dscalc.core import conv as formulas
from dscalc.core.row import summed_by_path
from dscalc.errors import DscalcError
from dscalc.pytorch import audit, operators, to_separable
from dscalc.pytorch import trace as tracing
from dscalc.pytorch.copies import copy_of
from dscalc.pytorch.modules import BlockModule

as_separable = partial(audit, block="separable")
AUDIT = import_module("dscalc.pytorch.audit")  # the package exports a function of this name
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
IMAGE = (1, 3, 8, 8)
TOKENS = torch.zeros(1, 3, dtype=torch.int64)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning"
)


def conv(channels=3, filters=4, size=3, **options):
    return nn.Conv2d(channels, filters, size, **options)


def params_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def counted_by_torch(model, *inputs):
    """MACs by torch's FlopCounterMode, of a run of its own on the meta device."""
    twin = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as mode:
        twin(*(value.to("meta") for value in inputs))
    assert mode.get_total_flops() % 2 == 0
    return mode.get_total_flops() // 2


def cost(report):
    """MACs and params of the total, as it is and rewritten."""
    sides = report.total.as_is.cost, report.total.rewritten.cost
    return tuple((side.macs, side.params) for side in sides)


def rows_of(report):
    return {(row.name, row.kind): row for row in report.rows}


def kept_of(report):
    return {(row.name, row.kind): row.kept for row in report.rows}


def sentences(report):
    """What stands above and below the table."""
    paragraphs = str(report).strip().split("\n\n")
    return [each for each in paragraphs if not each.startswith(("**", "|"))]


def assert_adds_up(report, model):
    """Rows, total, torch and the parameters themselves are one answer."""
    total = report.total
    assert sum(row.as_is.cost.macs for row in report.rows) == total.as_is.cost.macs
    assert sum(row.as_is.cost.params for row in report.rows) == params_of(model)
    assert total.as_is.cost.params == params_of(model)
    assert total.torch_macs == total.as_is.cost.macs
    assert total.crosscheck == "exact"
    assert report.faults == []


# Real architectures.

ARCHITECTURES = {
    # arXiv 1611.05431: 4.1 G; torchvision: 25,557,032 params
    "resnet50": (architectures.resnet50, (3, 224, 224), 4_089_184_256, 25_557_032),
    # arXiv 1512.03385, table 1: 3.8 G (truncated)
    "resnet50 of the paper": (
        partial(architectures.resnet50, stride_in_1x1=True), (3, 224, 224), 3_857_973_248,
        25_557_032,
    ),
    # arXiv 1704.04861, table 4: 569 M, 4.2 M params; table 6: 149 M, 1.3 M params
    "mobilenet_v1": (architectures.mobilenet_v1, (3, 224, 224), 568_740_352, 4_231_976),
    "mobilenet_v1 of half the width": (
        partial(architectures.mobilenet_v1, alpha=0.5), (3, 224, 224), 149_497_088, 1_331_592,
    ),
    # arXiv 1801.04381, table 4: 300 M (truncated); torchvision: 3,504,872 params
    "mobilenet_v2": (architectures.mobilenet_v2, (3, 224, 224), 300_774_272, 3_504_872),
    # arXiv 2201.03545, table 1: 4.5 G, 28.6 M params; torchvision: 28,589,128
    "convnext_tiny": (architectures.convnext_tiny, (3, 224, 224), 4_455_531_264, 28_589_128),
    # arXiv 1505.04597, smaller; and its 23 convolutional layers, padded, at 64x64
    "unet": (architectures.unet, (1, 64, 64), 99_287_040, 116_770),
    "unet of the paper": (
        partial(architectures.unet, width=64, depth=4), (1, 64, 64), 3_006_005_248, 31_030_658,
    ),
    "detector": (architectures.shared_head_detector, (3, 128, 128), 51_896_320, 509_672),
    "net1d": (architectures.net1d, (1, 8000), 106_645_248, 111_948),
    "net3d": (architectures.net3d, (3, 8, 56, 56), 1_046_227_328, 365_881),
    "string padding": (architectures.string_padding_net, (3, 32, 32), 2_433_344, 9_162),
    "tied weights": (architectures.weight_tied_net, (3, 32, 32), 3_391_648, 2_954),
}  # fmt: skip


@pytest.fixture(scope="module", params=ARCHITECTURES)
def published(request):
    """One of them, built, with an input and its audit."""
    build, shape, macs, params = ARCHITECTURES[request.param]
    model, features = build(), torch.zeros(1, *shape)
    report = as_separable(model, features)
    return SimpleNamespace(
        name=request.param, model=model, features=features, macs=macs, params=params, report=report
    )


def test_published_macs_and_params_are_reproduced_and_rows_add_up(published):
    assert cost(published.report)[0] == (published.macs, published.params)
    assert_adds_up(published.report, published.model)
    assert counted_by_torch(published.model, published.features) == published.macs
    assert {row.crosscheck for row in published.report.rows if row.as_is.cost.macs} == {"exact"}


def test_without_a_block_nothing_is_replaced_and_all_else_is_the_same(published, monkeypatch):
    def as_it_is(row):
        return row._replace(rewritten=None, kept="")

    monkeypatch.setattr(AUDIT, "replacement", None)  # no block runs
    report = audit(published.model, published.features)
    assert report.rows == list(map(as_it_is, published.report.rows))
    assert report.total == as_it_is(published.report.total)
    assert (report.block, report.notes, report.faults) == (None, published.report.notes, [])
    assert {row.mac_ratio for row in [*report.rows, report.total]} == {None}


def test_a_row_is_a_module_and_a_kind(published):
    names = dict(published.model.named_modules())
    assert all(row.name in names or row.name == "the model" for row in published.report.rows)
    assert len(rows_of(published.report)) == len(published.report.rows)
    macs = [row.as_is.cost.macs for row in published.report.rows]
    assert all(earlier > 0 or later == 0 for earlier, later in pairwise(macs))


def test_fvcore_alone_counts_the_same_but_for_string_padding(published):
    analysis = FlopCountAnalysis(copy.deepcopy(published.model).eval(), (published.features,))
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    found = analysis.by_operator()
    unseen = published.macs - 320 if published.name == "string padding" else 0
    assert found["conv"] + found["linear"] == published.macs - unseen


def test_conversion_costs_what_the_audit_says_and_replaces_what_it_rewrites(published):
    converted = to_separable(published.model)
    macs, params = cost(published.report)[1]
    assert counted_by_torch(converted, published.features) == macs
    assert params_of(converted) == params
    replaced = {
        name for name, module in converted.named_modules() if isinstance(module, BlockModule)
    }
    assert replaced == {row.name for row in published.report.rows if not row.kept}


SMALL = ("unet", "detector", "net1d", "string padding", "tied weights")


@pytest.mark.parametrize("published", SMALL, indirect=True)
def test_the_rows_on_real_tensors_are_those_on_meta(published, monkeypatch):
    def real(model, args, kwargs, rebuild=None, **asked):
        made = copy_of("cpu", model)
        return tracing.trace(made, args, kwargs, "cpu", **asked), made.model

    monkeypatch.setattr(AUDIT, "trace_either", real)
    report = as_separable(published.model, published.features)
    assert (report.rows, report.total) == (published.report.rows, published.report.total)
    assert any("it ran on real tensors" in note for note in report.notes)


def test_a_verdict_on_resnet50():
    report = as_separable(architectures.resnet50(), (1, 3, 224, 224))
    assert Counter((row.kind, row.kept) for row in report.rows if row.as_is.cost.macs) == {
        ("pointwise", "pointwise"): 36,
        ("conv", ""): 17,
        ("linear", "linear"): 1,
    }
    assert cost(report)[1] == (2_343_674_112, 15_522_171)
    assert sentences(report)[:3] == [
        "4,089,184,256 MACs (4.09 G), as separable 2,343,674,112 (2.34 G): 1.74x fewer",
        "25,557,032 params (25.6 M), as separable 15,522,171 (15.5 M): 1.65x fewer",
        "kept: 36 pointwise (51.8% of the MACs); 1 MAC = 2 FLOPs",
    ]


def test_a_transposed_convolution_counts_its_input_positions():
    report = as_separable(architectures.unet(), (1, 1, 64, 64))
    up = rows_of(report)["up.0", "transposed"]
    assert (up.layer.input_size, up.layer.output_size, up.kept) == (
        (16, 16),
        (32, 32),
        "transposed",
    )
    assert up.as_is == up.rewritten
    assert up.as_is.cost.macs == 64 * 32 * 2 * 2 * 16 * 16
    assert up.as_is.cost.params == 64 * 32 * 2 * 2 + 32


def test_a_shared_head_is_one_row_of_all_its_calls():
    report = as_separable(architectures.shared_head_detector(), (1, 3, 128, 128))
    boxes = rows_of(report)["boxes", "conv"]
    assert (boxes.calls, boxes.layer.in_channels, boxes.layer.input_size) == (3, 64, None)
    positions = 16**2 + 8**2 + 4**2
    assert boxes.as_is.cost.macs == 64 * 4 * 9 * positions
    assert boxes.rewritten.cost.macs == 64 * (9 + 4) * positions
    assert boxes.as_is.cost.params == 64 * 4 * 9 + 4
    assert boxes.rewritten.cost.params == 64 * 10 + 65 * 4


# Each kind of layer, one at a time.


@pytest.mark.parametrize(
    ("layer", "kept"),
    layers.and_why_they_stay(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_convolution_that_stays_says_why(layer, kept):
    features = torch.zeros(1, 4, *[5] * (layer.weight.dim() - 2))
    layer(features)  # which makes a derived weight
    model = nn.Sequential(OrderedDict(layer=layer))
    report = as_separable(model, features)
    row = report.rows[0]
    assert (row.name, row.kept, row.calls) == ("layer", kept, 1)
    assert_adds_up(report, model)
    assert (row.mac_ratio == 1) is bool(kept)
    assert (type(to_separable(model).layer) is type(layer)) is bool(kept)


FUNCTIONAL = {("conv", "conv"): ("functional", 3888, 112)}
ELIGIBLE = {("conv", "conv"): ("", 3888, 112)}
REACHED = {
    "by a function": (lambda m, x: F.conv2d(x, m.conv.weight, m.conv.bias), FUNCTIONAL),
    "by a function, without its bias": (lambda m, x: F.conv2d(x, m.conv.weight), FUNCTIONAL),
    "by its forward and by a function": (
        lambda m, x: m.conv(x) + F.conv2d(x, m.conv.weight),
        {("conv", "conv"): ("functional", 7776, 112)},
    ),
    "scaled": (
        lambda m, x: F.conv2d(x, m.conv.weight * 2),
        {("the model", "conv"): ("functional", 3888, 0), ("conv", "Conv2d"): ("Conv2d", 0, 112)},
    ),
    "transposed, by its decoder": (
        lambda m, x: F.conv_transpose2d(m.conv(x), m.conv.weight),
        FUNCTIONAL | {("conv", "transposed"): ("functional", 3888, 0)},
    ),
    "first by its decoder": (
        lambda m, x: m.conv(F.conv_transpose2d(torch.zeros(1, 4, 6, 6), m.conv.weight)),
        {("conv", kind): ("functional", 3888, params)
         for kind, params in (("transposed", 112), ("conv", 0))},
    ),
    "by a product": (
        lambda m, x: x.flatten(2).transpose(1, 2) @ m.conv.weight[:, :, 0, 0].t(),
        {("conv", "matmul"): ("functional", 64 * 12, 112)},
    ),
    "by forward itself": (lambda m, x: m.conv.forward(x), ELIGIBLE),
    "also for its attributes": (lambda m, x: m.conv(x.to(m.conv.weight.dtype)), ELIGIBLE),
    "with a parameter for its input": (
        lambda m, x: m.conv(m.const), ELIGIBLE | {("the model", "Calling"): ("Calling", 0, 192)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "expected"), REACHED.values(), ids=REACHED)
def test_a_weight_is_a_row_of_its_module_however_it_is_reached(forward, expected):
    parts = {"conv": conv()}
    if ("the model", "Calling") in expected:
        parts["const"] = nn.Parameter(torch.zeros(IMAGE))
    model = Calling(forward, **parts)
    report = as_separable(model, IMAGE)
    assert {
        key: (row.kept, row.as_is.cost.macs, row.as_is.cost.params)
        for key, row in rows_of(report).items()
    } == expected
    assert_adds_up(report, model)


def tied(model, there, here):
    """The model with one weight for two modules."""
    model.get_submodule(there).weight = model.get_submodule(here).weight
    return model


def registered_twice():
    layer = conv()
    return Calling(lambda m, x: m.conv(x) + m.weight.sum(), weight=layer.weight, conv=layer)


TIED = {
    "a head and its embedding": (
        tied(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)), "1", "0"), TOKENS,
        {("1", "linear"): 7, ("0", "Embedding"): 28}, {"linear", "Embedding"},
    ),
    "an embedding as its own head": (
        Calling(lambda m, i: F.linear(m.e(i), m.e.weight), e=nn.Embedding(7, 4)), TOKENS,
        {("e", "linear"): 28}, {"linear"},
    ),
    "a linear layer's weight in a product": (
        Calling(lambda m, x: x @ m.fc.weight.t(), fc=nn.Linear(8, 5)), torch.zeros(IMAGE),
        {("fc", "matmul"): 45}, {"matmul"},
    ),
    "two convolutions": (
        tied(nn.Sequential(conv(3, 3), conv(3, 3)), "1", "0"), torch.zeros(IMAGE),
        {("0", "conv"): 84, ("1", "conv"): 3}, {"shared weight"},
    ),
    "a convolution and its parent": (
        registered_twice(), torch.zeros(IMAGE),
        {("conv", "conv"): 4, ("the model", "Calling"): 108}, {"shared weight", "Calling"},
    ),
    "one module under two names": (
        (lambda layer: Calling(lambda m, x: m.b(m.a(x)), a=layer, b=layer))(conv(3, 3)),
        torch.zeros(IMAGE), {("a", "conv"): 84}, {""},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "given", "params", "kept"), TIED.values(), ids=TIED)
def test_a_parameter_counts_once_where_several_hold_it(model, given, params, kept):
    report = as_separable(model, given)
    assert {key: row.as_is.cost.params for key, row in rows_of(report).items()} == params
    assert {row.kept for row in report.rows} == kept
    assert_adds_up(report, model)
    assert cost(report)[1][1] == params_of(to_separable(model))


def test_calls_that_differ_share_what_they_have_in_common():
    weights = {
        "a": nn.Parameter(torch.zeros(8, 3, 3, 3)),
        "b": nn.Parameter(torch.zeros(5, 8, 1, 1)),
    }
    report = as_separable(Calling(lambda m, x: F.conv2d(F.conv2d(x, m.a), m.b), **weights), IMAGE)
    [row] = report.rows
    assert (row.calls, row.as_is.cost.macs) == (2, 36 * (216 + 40))
    assert (row.layer.in_channels, row.layer.out_channels, row.layer.bias) == (None, None, False)


def test_one_block_of_many_calls_is_one_row():
    model = Calling(lambda m, x: m.conv(m.conv(m.conv(x))), conv=conv(3, 3, padding=1))
    report = as_separable(model, IMAGE)
    [row] = report.rows
    assert (row.calls, row.as_is.cost.macs, row.layer.output_size) == (3, 3 * 64 * 81, (8, 8))
    assert row.rewritten.cost.params == params_of(to_separable(model)) == 42


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_a_bare_convolution_is_a_model_too(batch_size):
    shape = (*([] if batch_size is None else [batch_size]), 3, 8, 8)
    report = as_separable(conv(), shape)
    [row] = report.rows
    assert (row.name, row.kind, row.kept) == ("the model", "conv", "")
    assert cost(report) == (((batch_size or 1) * 3888, 112), ((batch_size or 1) * 1404, 46))
    assert report.total.as_is.cost.activations == (batch_size or 1) * 4 * 36


def test_modules_without_macs_have_rows_for_their_parameters():
    model = nn.Sequential(
        conv(padding=1), nn.BatchNorm2d(4), nn.PReLU(), nn.AdaptiveAvgPool2d(2), nn.LayerNorm(2)
    )
    report = as_separable(model, IMAGE)
    assert [(row.name, row.kind, row.as_is.cost.params) for row in report.rows] == [
        ("0", "conv", 112),
        ("1", "BatchNorm2d", 8),
        ("2", "PReLU", 1),
        ("4", "LayerNorm", 4),
    ]
    assert_adds_up(report, model)


# What it would cost otherwise.


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", layers.OPTIONS, ids=str)
@pytest.mark.parametrize("kernel_size", [3, 2])
def test_any_convolution_costs_rewritten_what_its_replacement_costs(kernel_size, options, dims):
    layer = CONVOLUTIONS[dims](3, 8, kernel_size, **options)
    like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
    features = torch.zeros(2, 3, *[7] * dims, **like)
    report = as_separable(nn.Sequential(layer), features)
    replaced = to_separable(nn.Sequential(layer))[0]
    again = as_separable(replaced, features)
    assert report.total.crosscheck == again.total.crosscheck == "exact"
    assert cost(report)[1] == cost(again)[0] == cost(again)[1]
    assert replaced(features).shape == layer(features).shape
    described = ("kernel_size", "stride", "dilation", "padding_mode", "in_channels", "padding")
    assert all(getattr(replaced, name) == getattr(layer, name) for name in described)
    assert {(p.dtype, p.device) for p in replaced.parameters()} == {tuple(like.values())}
    biases = [part.bias is not None for part in (replaced.depthwise, replaced.pointwise)]
    assert biases == [layer.bias is not None] * 2


def test_another_block_may_stand_in_its_place():
    report = as_separable(nn.Sequential(conv(3, 32)), IMAGE, block="separable:2")
    assert cost(report)[1] == (36 * (6 * 9 + 6 * 32), 6 * 9 + 6 + 6 * 32 + 32)
    assert (report.total.crosscheck, str(report.block)) == ("exact", "separable:2")


@pytest.mark.parametrize("block", ["bottleneck:2", "inverted:2", "separable"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": (2, 1), "padding_mode": "replicate", "stride": 2},
        {"padding": "same", "padding_mode": "circular", "dilation": 2},
    ],
    ids=str,
)
def test_a_block_takes_the_map_before_a_padding_of_any_mode(options, block):
    """The convolution itself takes the padded map."""
    zeros = {**options, "padding_mode": "zeros"}
    report, expected = (
        as_separable(nn.Sequential(nn.Conv2d(8, 8, 3, **each)), (2, 8, 16, 12), block=block)
        for each in (options, zeros)
    )
    assert cost(report) == cost(expected)
    assert report.total.crosscheck == "exact"
    assert (report.rows[0].layer, report.rows[0].kept) == (
        expected.rows[0].layer, expected.rows[0].kept,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "size", "macs"),
    [
        # 16x16: 256 * 128 to expand, then 14 * 14 * (16 * 9 + 128); as it is 14 * 14 * 576.
        ({}, (16, 16), 86_080),
        # 12x16 to 6x8: 192 * 128 to expand, then 48 * (16 * 9 + 128); as it is 48 * 576.
        ({"stride": 2, "padding": 1}, (16, 12), None),
        # 3x3 to 1x1: 9 * 128 to expand; as it is 576.
        ({}, (3, 3), None),
    ],
)
def test_whether_a_block_saves_is_decided_on_the_sizes_that_run(options, size, macs):
    layer = nn.Conv2d(8, 8, 3, bias=False, **options)
    report = as_separable(nn.Sequential(layer), (1, 8, *size), block="inverted:2")
    [row] = report.rows
    assert row.kept == ("" if macs else "no saving")
    assert row.replacement.cost.macs == (macs or row.as_is.cost.macs)
    assert report.total.crosscheck == "exact"


GLOBS = [
    ({}, {"stem", "body.0", "body.2"}),
    ({"only": "body.*"}, {"body.0", "body.2"}),
    ({"only": ["stem", "body.2"]}, {"stem", "body.2"}),
    ({"exclude": ["*.2", "stem"]}, {"body.0"}),
    ({"only": "body.*", "exclude": "body.[01]"}, {"body.2"}),
    ({"only": "head"}, set()),
    ({"only": []}, set()),
]


def staged():
    body = nn.Sequential(conv(4), nn.ReLU(), conv(4))
    return nn.Sequential(OrderedDict(stem=conv(), body=body, head=conv(4, 2, 1)))


@pytest.mark.parametrize(("options", "rewritten"), GLOBS, ids=str)
def test_globs_choose_what_is_rewritten(options, rewritten):
    report = as_separable(staged(), (1, 3, 12, 12), **options)
    assert {row.name for row in report.rows if not row.kept} == rewritten
    assert {row.kept for row in report.rows if row.kept} <= {"excluded", "pointwise"}
    converted = to_separable(staged(), **options)
    assert cost(report)[1][1] == params_of(converted)
    assert report.total.crosscheck == "exact"


# What is said besides.

SAME = "as separable: the same; there is no convolution to rewrite"
AGREED = "✓ torch's FlopCounterMode counts exactly this, fvcore each conv and linear layer"
SAID = {
    "what is not rewritten": (
        nn.Sequential(type("Mine", (nn.Conv2d,), {})(3, 8, 3), nn.Conv2d(8, 8, 1)),
        [SAME, "kept: 1 subclass, 1 pointwise (100% of the MACs)", AGREED],
    ),
    "several of one reason": (
        tied(nn.Sequential(conv(3, 3), conv(3, 3)), "1", "0"),
        [SAME, "kept: 2 shared weight (100% of the MACs)", AGREED],
    ),
    "how much of it is not rewritten": (
        nn.Sequential(conv(), conv(4, 4, 1)),
        ["kept: 1 pointwise (12.9% of the MACs); 1 MAC = 2 FLOPs", AGREED],
    ),
    "what did not run": (
        Calling(lambda m, x: m.conv(x), conv=conv(3, 8), aux=conv(8, 256)),
        ["note: 1 module did not run: aux (18,688 params)", AGREED],
    ),
    "how much of many did not run": (
        Calling(lambda m, x: m.conv(x), conv=conv(), aux=nn.ModuleList(map(nn.PReLU, [1] * 4))),
        ["note: 4 modules did not run: aux.0, aux.1, aux.2, ... (4 params)", AGREED],
    ),
    "what did not run under an odd name": (
        Calling(lambda m, x: m.conv(x), **{"conv": conv(), "x\x1b": nn.PReLU()}),
        ["note: 1 module did not run: x\\\\x1b (1 param)", AGREED],
    ),
    "what no other counter knows": (
        Calling(lambda m, x: m.conv(x) @ torch.zeros(6), conv=conv()),
        ["not checked as a whole: neither fvcore nor torch counts the model (matmul); fvcore "
         "counts each conv and linear layer"],
    ),
    "what is not known": (
        Calling(lambda m, x: torch.linalg.inv(m.conv(x)), conv=conv()),
        ["at least 3,888 MACs, 112 params: no formula for aten::linalg\\_inv\\_ex",
         "not checked as a whole: operators without a formula; fvcore counts each conv and linear "
         "layer"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "said"), SAID.values(), ids=SAID)
def test_it_says(model, said):
    report, as_it_is = as_separable(model, IMAGE), audit(model, IMAGE)
    assert [each for each in sentences(report) if each in said] == said
    assert [each for each in said if each.startswith("note: ")] == [
        "note: " + note.replace("\\", "\\\\") for note in report.notes
    ]
    assert (report.faults, as_it_is.notes) == ([], report.notes)
    assert (report.total.crosscheck == "exact") is (AGREED in said)
    assert not any(word in str(as_it_is) for word in ("separable", "kept", "ratio"))
    assert set(said) - set(sentences(as_it_is)) == {
        each for each in said if each.startswith(("kept", "as separable"))
    }


def test_params_that_require_a_gradient_are_counted_apart():
    model = nn.Sequential(conv().requires_grad_(False), nn.BatchNorm2d(4))
    model[1].bias.requires_grad_(False)
    report = audit(model, IMAGE)
    assert [row.trainable_params for row in [*report.rows, report.total]] == [0, 4, 4]
    assert sentences(report)[0] == "3,888 MACs, 120 params, 4 trainable; 1 MAC = 2 FLOPs"


def test_what_did_not_run_saves_nothing():
    model = Calling(lambda m, x: m.conv(x), conv=conv(3, 8, 1), aux=conv(8, 256))
    report = as_separable(model, IMAGE)
    assert cost(report)[0] == cost(report)[1] == (3 * 8 * 64, 32 + 18_688)
    assert rows_of(report)["aux", "Conv2d"].calls == 0


def test_where_an_operator_is_not_known_torch_is_not_compared():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False, dtype=torch.complex64))
    report = as_separable(model, torch.zeros(1, 2, 8, 8, dtype=torch.complex64))
    assert report.total.unknown == {"aten::conv2d on complex numbers": 1}
    assert (report.faults, report.total.crosscheck) == ([], "not proved")
    [record] = report.to_records()
    assert (record["name"], record["kind"], record["kept"]) == ("0", "conv", "MACs not known")
    for field in ("macs", "activations", "share", "separable_macs", "mac_ratio", "fvcore_macs"):
        assert record[field] is None
    assert record["unknown"] == report.total.unknown
    assert record["known_macs"] == 3 * (2 * 4 * 9 * 36)  # the real ones that torch runs instead


def test_a_row_that_is_not_known_is_not_0():
    model = Calling(lambda m, x: m.product(m.conv(x).flatten(1), x.flatten(1)),
                    conv=conv(3, 4, 8), product=nn.Bilinear(4, 192, 5))  # fmt: skip
    report = as_separable(model, IMAGE)
    row = rows_of(report)["product", "_trilinear"]
    assert (row.unknown, row.as_is.cost.params) == ({"aten::_trilinear": 1}, 5 * 4 * 192 + 5)
    assert "| product | \\_trilinear |  |  | not known | 3,845 |" in str(report)
    assert "| **total** | **Calling** |  |  | **≥ 768** | **4,617** |" in str(report)
    assert [record["macs"] for record in report.to_records()] == [4 * 3 * 64, None]
    assert "without MACs" not in str(report)
    assert "% of the MACs" not in str(report)


def test_parts_add_up_and_are_exact_only_if_all_their_products_are():
    body = Calling(lambda m, x: m.conv(x) @ torch.zeros(6), conv=conv())
    first = nn.Sequential(conv(3, 3, padding=1), nn.BatchNorm2d(3))
    model = nn.Sequential(OrderedDict(a=first, b=body, c=nn.BatchNorm1d(4)))
    report = as_separable(model, IMAGE)
    parts = {row.name: row for row in summed_by_path(report.rows, 1, report.classes)}
    assert {name: (row.kind, row.crosscheck) for name, row in parts.items()} == {
        "a": ("Sequential", "exact"),
        "b": ("Calling", "not proved"),
        "c": ("BatchNorm1d", "skipped"),
    }
    assert {name: row.as_is.cost.params for name, row in parts.items()} == {
        "a": 90,
        "b": 112,
        "c": 8,
    }
    assert sum(row.as_is.cost.macs for row in parts.values()) == report.total.as_is.cost.macs


# Models that need values.


def depends(model, x):
    return model.conv(x) if x.sum().item() > -1e9 else x


def test_a_model_that_needs_values_is_rewritten_all_the_same():
    report = as_separable(Calling(depends, conv=conv()), IMAGE)
    assert cost(report) == ((3888, 112), (1404, 46))
    assert report.total.crosscheck == "exact"
    [note] = report.notes
    assert note.startswith("the model needs values (RuntimeError: ")
    line = depends.__code__.co_firstlineno + 1
    assert note.endswith(f"at tests/test_audit.py:{line}): it ran on real tensors")


@pytest.mark.parametrize(("device", "zeros"), [("meta", True), ("cpu", False)])
def test_a_model_that_needs_values_says_that_shapes_of_whole_numbers_were_0(device, zeros):
    model = Calling(lambda m, x, n: m.conv(x) if n.sum().item() == 0 else x, conv=conv())
    report = audit(model, IMAGE, torch.zeros(1, 3, dtype=torch.int64, device=device))
    assert report.total.as_is.cost.macs == 3888
    assert report.notes[0].endswith(", whole numbers as 0") is zeros


def test_a_model_without_parameters_may_need_values():
    model = Calling(lambda m, x: x @ torch.zeros(8, 4) if x.sum().item() > -1e9 else x)
    assert cost(as_separable(model, IMAGE))[0] == (3 * 8 * 8 * 4, 0)


def test_where_results_decide_what_runs_the_calls_that_ran_are_rewritten():
    def forward(self, x):
        features = self.conv(x)
        rows = 1 if bool((features == 0).all()) else 2
        return self.linear(torch.zeros(rows, 4))

    model = Calling(forward, conv=conv(bias=False), linear=nn.Linear(4, 4, bias=False))
    nn.init.zeros_(model.conv.weight)
    report = as_separable(model, torch.ones(IMAGE))
    assert cost(report) == ((3888 + 16, 108 + 16), (36 * (27 + 12) + 16, 27 + 12 + 16))
    assert report.total.crosscheck == "exact"


def test_what_follows_a_rewritten_convolution_takes_its_own_results():
    def forward(self, x):
        features = self.conv(x)
        assert not features.any()
        return features

    model = Calling(forward, conv=conv(bias=False))
    nn.init.zeros_(model.conv.weight)
    report = as_separable(model, IMAGE)
    assert kept_of(report) == {("conv", "conv"): ""}
    assert report.total.crosscheck == "exact"


def test_a_convolution_that_a_model_copies_while_it_runs_is_rewritten_too():
    model = Calling(lambda m, x: copy.deepcopy(m.conv)(x), conv=conv(bias=False))
    report = as_separable(model, IMAGE)
    assert cost(report) == ((3888, 108), (36 * (27 + 12), 27 + 12))
    assert report.total.crosscheck == "exact"


def test_a_model_on_meta_that_needs_values_is_built_again():
    with torch.device("meta"):
        model = Calling(depends, conv=conv())
    with pytest.raises(DscalcError, match="build it on the CPU"):
        as_separable(model, IMAGE)
    report = as_separable(model, IMAGE, rebuild=lambda: Calling(depends, conv=conv()))
    assert cost(report) == ((3888, 112), (1404, 46))


# What is refused.


def test_a_norm_of_other_channels_is_refused():
    model = nn.Sequential(conv(), nn.BatchNorm2d(8))
    with pytest.raises(DscalcError, match=r"^1 \(BatchNorm2d\) cannot run .*4 elements not 8"):
        as_separable(model, IMAGE)


def test_a_model_that_cannot_be_copied_is_refused():
    class Single(nn.Conv2d):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

    reason = r"the model cannot be copied, and dscalc runs only a copy \(there is only one\)"
    with pytest.raises(DscalcError, match=reason):
        as_separable(Single(3, 8, 3), IMAGE)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:DeprecationWarning")
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_scripted_part_is_counted_and_kept():
    model = nn.Sequential(torch.jit.script(conv(3, 3)), conv())
    report = as_separable(model, IMAGE)
    assert kept_of(report) == {("0", "conv"): "scripted", ("1", "conv"): ""}
    assert_adds_up(report, model)


# Nothing is left behind.


class Restless(nn.Module):
    """Updates, draws and counts whatever a forward pass can."""

    def __init__(self, real):
        super().__init__()
        self.conv, self.frozen = conv(), conv(4).requires_grad_(False)
        self.norm, self.drop, self.real = nn.BatchNorm2d(4), nn.Dropout(0.5), real
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(1), persistent=False)
        self.history = []

    def forward(self, x):
        self.calls += 1
        self.history.append((tuple(x.shape), self.training, torch.is_grad_enabled()))
        noise = torch.rand(()) + random.random() + np.random.rand()
        with torch.no_grad():
            self.conv.weight.clamp_(-0.1, 0.1)
        x = self.drop(self.norm(self.conv(x)))
        self.last = x.detach().mean().reshape(1)
        return self.frozen(x) * (float(noise) if self.real else noise)


@pytest.fixture(params=[False, True], ids=["on meta", "on real tensors"])
def restless(request):
    model = Restless(request.param)
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    model.norm.eval()
    return model


def state_of(model):
    """All that a run could change."""
    named = dict(model.named_parameters())
    return {
        "values": {k: v.clone() for k, v in (model.state_dict() | {"last": model.last}).items()},
        "grads": {name: p.grad.clone() for name, p in named.items() if p.requires_grad},
        "places": {name: (p.data_ptr(), p._version, p.requires_grad) for name, p in named.items()},
        "modules": {
            name: (module.training, type(module), set(vars(module)))
            for name, module in model.named_modules()
        },
        "hooks": [len(held) for name, held in vars(all_modules).items() if name.endswith("_hooks")],
        "history": [*model.history],
        "torch random": torch.get_rng_state(),
        "python random": random.getstate(),
        "numpy random": [np.asarray(part).tolist() for part in np.random.get_state()],
        "modes": (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()),
    }  # fmt: skip


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    else:
        assert one == other


def test_an_audit_leaves_the_model_and_all_random_states_as_they_were(restless):
    before = state_of(restless)
    report = as_separable(restless, (2, 3, 8, 8))
    assert report.total.crosscheck == "exact"
    assert restless.real is any("real tensors" in note for note in report.notes)
    with pytest.raises(DscalcError):
        as_separable(restless, (2, 4, 8, 8))
    with pytest.raises(DscalcError):
        as_separable(restless, (2, 3, 8, 8), only="nothing")
    assert_same(state_of(restless), before)


def test_a_conversion_leaves_the_model_as_it_was(restless):
    before = state_of(restless)
    to_separable(restless)
    drawn = {"torch random": None}  # for the new weights
    assert_same(state_of(restless) | drawn, before | drawn)


def test_lazy_modules_are_counted_and_stay_lazy():
    layers = nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4)
    model = nn.Sequential(*layers)
    report = as_separable(model, IMAGE)
    assert cost(report) == ((7776 + 1152, 224 + 16 + 1156), (36 * 51 + 1152, 62 + 16 + 1156))
    assert report.total.crosscheck == "exact"
    assert all(model[n].has_uninitialized_params() for n in (0, 1, 3))


def test_results_that_a_model_kept_can_be_copied():
    model = nn.Sequential(conv())
    model.kept = model(torch.zeros(IMAGE))
    assert not model.kept.is_leaf
    assert as_separable(model, IMAGE).total.crosscheck == "exact"
    assert isinstance(to_separable(model)[0].depthwise, nn.Conv2d)


# Conversion.


@pytest.mark.parametrize("training", [True, False])
def test_a_replacement_has_the_training_flag(training):
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), conv(4))
    model[0].train(training)
    model[2].train(not training)
    flags = [{part.training for part in layer.modules()} for layer in to_separable(model)]
    assert flags == [{training}, {True}, {not training}]


def test_what_stays_keeps_its_weights_and_shares_none():
    model = architectures.mobilenet_v1(0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted = to_separable(model)
    kept = {name: value for name, value in converted.state_dict().items() if name[:2] != "0."}
    assert len(kept) == len(before) - 1
    assert all(torch.equal(value, before[name]) for name, value in kept.items())
    for parameter in converted.parameters():
        parameter.data.fill_(7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_module_in_two_places_is_replaced_in_both():
    shared = conv(4)
    converted = to_separable(
        nn.Sequential(conv(), nn.Sequential(shared), nn.ModuleDict({"a": shared}))
    )
    assert converted[1][0] is converted[2]["a"] is not shared


def test_a_converted_model_pickles_learns_and_converts_no_further():
    converted = to_separable(architectures.unet(width=4))
    features = torch.randn(1, 1, 16, 16)
    converted(features).sum().backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())
    loaded = pickle.loads(pickle.dumps(converted))
    assert torch.equal(loaded(features), converted(features))
    again = [type(module) for module in to_separable(converted).modules()]
    assert again == [type(module) for module in converted.modules()]


# Random networks.


@st.composite
def networks(draw):
    """An nn.Sequential of random layers, and an input for it."""
    dims = draw(st.integers(1, 3))
    most = {1: 9, 2: 6, 3: 4}[dims]
    channels = draw(st.integers(1, 4))
    size = [draw(st.integers(2, most)) for _ in range(dims)]
    features = torch.zeros(draw(st.integers(1, 2)), channels, *size)
    layers, x = [], features
    kinds = st.sampled_from(["conv", "conv", "conv", "transposed", "norm", "pool", "act", "linear"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=5)):
        layers.append(draw(layers_of(kind, dims, x)).eval())
        with torch.no_grad():
            x = layers[-1](x)
    if draw(st.booleans()):
        layers += [nn.Flatten(), nn.Linear(x[0].numel(), draw(st.integers(1, 5)))]
    return nn.Sequential(*layers).train(), features


@st.composite
def layers_of(draw, kind, dims, x):
    channels, least = x.shape[1], min(x.shape[2:])
    if kind == "norm":
        norms = [NORMS[dims](channels)]
        if x.numel() > 1:  # a group of one value has no variance
            norms.append(nn.GroupNorm(1, channels))
        return draw(st.sampled_from(norms))
    if kind == "pool":
        size = draw(st.integers(1, least))
        return draw(st.sampled_from([POOLS[dims](size), POOLS[dims](size, 1)]))
    if kind == "act":
        return draw(st.sampled_from([nn.ReLU(), nn.Dropout(0.5), nn.Sigmoid()]))
    if kind == "linear":
        return nn.Linear(x.shape[-1], draw(st.integers(1, 5)))
    filters, bias = draw(st.integers(1, 6)), draw(st.booleans())
    shared = gcd(channels, filters)
    groups = draw(st.sampled_from([n for n in range(1, shared + 1) if shared % n == 0]))
    if kind == "transposed":
        sizes = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        return TRANSPOSED[dims](channels, filters, *sizes, groups=groups, bias=bias)
    padding = draw(st.sampled_from([0, 1, "same", "valid"]))
    room = least + (2 if padding == 1 else 0)
    kernel = draw(st.integers(1, min(3, room)))
    dilation = draw(st.integers(1, max(1, (room - 1) // max(1, kernel - 1))))
    stride = 1 if padding == "same" else draw(st.integers(1, 2))
    return CONVOLUTIONS[dims](
        channels, filters, kernel, stride, padding, min(dilation, 3), groups, bias
    )


def counted_by_hand(model, x):
    """The MACs of each layer in turn, from its weight and the map that it runs on."""
    for layer in copy.deepcopy(model).eval():
        with torch.no_grad():
            output = layer(x)
        if isinstance(layer, nn.Linear):
            yield output.numel() * layer.in_features
        elif isinstance(layer, tuple(TRANSPOSED.values())):
            yield x.numel() * prod(layer.weight.shape[1:])
        elif isinstance(layer, tuple(CONVOLUTIONS.values())):
            yield output.numel() * prod(layer.weight.shape[1:])
        x = output


@given(networks())
def test_the_audit_and_the_sum_by_hand_agree_and_so_does_the_converted_network(network):
    model, features = network
    report = as_separable(model, features)
    by_hand = list(counted_by_hand(model, features))
    assert_adds_up(report, model)
    assert [
        row.as_is.cost.macs for row in report.rows if row.calls and row.as_is.cost.macs
    ] == by_hand
    converted = to_separable(model).eval()
    with torch.no_grad():
        assert converted(features).shape == copy.deepcopy(model).eval()(features).shape
    again = as_separable(converted, features)
    assert cost(again)[0] == cost(again)[1] == cost(report)[1]


# Faults that are planted.


def planted():
    """A shared convolution, a linear layer, and a product without parameters."""
    return Calling(
        lambda m, x: m.head(m.body(m.stem(x)).flatten(1)) @ torch.zeros(2, 5),
        stem=conv(),
        body=conv(4),
        head=nn.Linear(64, 2),
    )


def faulty(report):
    assert report.total.crosscheck == "mismatch"
    return {row.name for row in report.rows if row.crosscheck == "mismatch"}, report.faults


def test_the_model_without_a_fault_is_exact():
    assert_adds_up(as_separable(planted(), IMAGE), planted())


def test_a_wrong_count_of_one_layer_is_a_mismatch_there_alone(monkeypatch):
    count = AUDIT.count

    def one_more(steps):
        found = count(steps)
        wrong = (steps[0].layer.in_channels, len(steps)) == (4, 1)
        return {name: c._replace(macs=c.macs + wrong) for name, c in found.items()}

    monkeypatch.setattr(AUDIT, "count", one_more)
    assert faulty(as_separable(planted(), IMAGE)) == ({"body"}, [])


@pytest.mark.parametrize("leaf", ["convolution", "addmm", "mm"])
def test_a_wrong_leaf_formula_is_a_mismatch(leaf, monkeypatch):
    right = operators.LEAVES[f"aten::{leaf}"]
    wrong = lambda *shapes, **named: right(*shapes, **named) + 1  # noqa: E731
    monkeypatch.setitem(operators.LEAVES, f"aten::{leaf}", wrong)
    rows, faults = faulty(as_separable(planted(), IMAGE))
    assert rows >= {"convolution": {"stem", "body"}, "addmm": {"head"}, "mm": set()}[leaf]
    assert faults[0].startswith("torch's FlopCounterMode gives 6,330 MACs for the model, but the ")


@pytest.mark.parametrize("formula", ["conv_macs", "conv_params"])
def test_a_wrong_formula_of_a_layer_is_a_mismatch(formula, monkeypatch):
    right = getattr(formulas, formula)
    monkeypatch.setattr(formulas, formula, lambda *sizes: right(*sizes) + 1)
    assert faulty(as_separable(planted(), IMAGE))[0] >= {"stem", "body"}


@pytest.mark.parametrize("lost", ["stem", "head", "the model"])
def test_a_lost_row_is_a_mismatch(lost, monkeypatch):
    rows = AUDIT._make_rows
    monkeypatch.setattr(
        AUDIT, "_make_rows", lambda *given: [row for row in rows(*given) if row.name != lost]
    )
    _, faults = faulty(as_separable(planted(), IMAGE))
    assert any(fault.startswith("torch's FlopCounterMode gives 6,330") for fault in faults)
    assert (lost == "the model") is not any("parameters, but its rows" in f for f in faults)


def test_a_parameter_counted_twice_is_a_mismatch(monkeypatch):
    monkeypatch.setattr(AUDIT._Books, "take", lambda books, path: books.owned.get(path, []))
    _, faults = faulty(as_separable(planted(), IMAGE))
    assert faults == ["the model holds 390 parameters, but its rows have 780"]


def test_a_wrong_replacement_is_a_mismatch(monkeypatch):
    right = AUDIT.replacement

    def narrower(module, block):
        built = right(module, block)
        built.depthwise = nn.Conv2d(module.in_channels, module.in_channels, 1, device="meta",
                                    groups=module.in_channels)  # fmt: skip
        return Calling(lambda m, x: m.built(x)[..., :-2, :-2], built=built)

    monkeypatch.setattr(AUDIT, "replacement", narrower)
    assert faulty(as_separable(planted(), IMAGE))[0] == {"stem", "body"}


# What the library gives.


def test_a_report_prints_as_a_table_and_gives_records():
    report = as_separable(planted(), IMAGE)
    assert report._repr_markdown_() == str(report)
    title, *lead, table, _, agreed = str(report).strip().split("\n\n")
    assert (title, agreed) == ("**Calling at 3x8x8**", AGREED)
    header, rule, *rows = table.splitlines()
    assert header.startswith("| layer | kind | channels |")
    assert set(rule) == set("|: -")
    assert [row.split(" | ")[0] for row in rows] == [
        *("| (matmul)", "| stem", "| body", "| head", "| **total**")
    ]
    assert lead == [
        "6,330 MACs, as separable 2,374: 2.67x fewer",
        "390 params, as separable 236: 1.65x fewer",
    ]
    records = report.to_records()
    assert [record["macs"] for record in records] == [3888, 4 * 36 * 16, 128, 10]
    assert sum(record["share"] for record in report.to_records(exact=True)) == 1
    assert records[0]["share"] == 3888 / 6330  # a float, as DataFrames have them


def test_nothing_that_was_not_counted_is_ticked():
    assert "✓" in str(as_separable(planted(), IMAGE))
    assert "✓" not in str(as_separable(nn.Identity(), IMAGE))
    assert "✓" not in str(as_separable(planted(), IMAGE, verify=False))


def test_inputs_are_tensors_shapes_or_any_nest_by_place_or_keyword():
    model = Calling(lambda m, x, *, block, scale: m.conv(x) + m.mask(block["mask"]) * scale,
                    conv=conv(), mask=conv(1))  # fmt: skip
    nest = {"mask": torch.zeros(1, 1, 8, 8)}
    report = as_separable(model, IMAGE, named={"block": nest}, scale=2.0)
    assert cost(report)[0][0] == 4 * 4 * 9 * 36


@pytest.mark.parametrize(
    ("model", "got"),
    [(nn.Identity, "Identity"), (len, "len"), ("Net", "str")],
)
def test_what_is_no_module_is_refused(model, got):
    with pytest.raises(DscalcError) as info:
        audit(model, (1, 8))
    said = f"audit takes an nn.Module, made by a call such as Net(), got {got}"
    assert str(info.value) == said


_INSIDE: list[int] = []
_MOST: list[int] = []


class Slow(nn.Linear):
    def forward(self, x):
        _INSIDE.append(1)
        _MOST.append(len(_INSIDE))
        time.sleep(0.05)
        _INSIDE.pop()
        return super().forward(x)


def test_audits_of_several_threads_wait_for_each_other():
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: audit(Slow(8, 4), (1, 8)), range(4)))
    assert [report.macs for report in reports] == [32] * 4
    assert max(_MOST) == 1
