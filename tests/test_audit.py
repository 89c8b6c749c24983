"""Auditing a model, and converting it: right on real architectures, and without a trace."""

import copy
import pickle
import random
from collections import Counter, OrderedDict
from functools import partial
from importlib import import_module
from math import gcd, prod
from types import SimpleNamespace

import architectures
import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules import module as all_modules
from torch.utils.flop_counter import FlopCounterMode

from dscalc.errors import CrosscheckError, DscalcError
from dscalc.pytorch import DepthwiseSeparableConv, audit, to_separable
from dscalc.record.fields import Model

# The package also exports the function of this name.
THE_MODULE = import_module("dscalc.pytorch.audit")

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning"
)


def params_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def conv_paths(model):
    return {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def shapes(output):
    """The shapes of whatever a model returns."""
    if isinstance(output, torch.Tensor):
        return tuple(output.shape)
    if isinstance(output, dict):
        return {name: shapes(value) for name, value in output.items()}
    return [shapes(value) for value in output]


class Calling(nn.Module):
    """A model whose forward is a function of itself and the inputs."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


# Real architectures.


class Published:
    """A model, its input without the batch, and what is known of it."""

    def __init__(self, build, shape, macs, params, calls, source):
        self.build, self.shape, self.macs, self.params = build, shape, macs, params
        self.calls, self.source = calls, source


ARCHITECTURES = {
    "resnet50": Published(
        architectures.resnet50,
        (3, 224, 224),
        4_089_184_256,
        25_557_032,
        53,
        "arXiv 1611.05431: 4.1 G; torchvision: 25,557,032 params",
    ),
    "resnet50 of the paper": Published(
        partial(architectures.resnet50, stride_in_1x1=True),
        (3, 224, 224),
        3_857_973_248,
        25_557_032,
        53,
        "arXiv 1512.03385, table 1: 3.8 G (truncated)",
    ),
    "mobilenet_v1": Published(
        architectures.mobilenet_v1,
        (3, 224, 224),
        568_740_352,
        4_231_976,
        27,
        "arXiv 1704.04861, table 4: 569 M, 4.2 M params",
    ),
    "mobilenet_v1 of half the width": Published(
        partial(architectures.mobilenet_v1, alpha=0.5),
        (3, 224, 224),
        149_497_088,
        1_331_592,
        27,
        "arXiv 1704.04861, table 6: 149 M, 1.3 M params",
    ),
    "mobilenet_v2": Published(
        architectures.mobilenet_v2,
        (3, 224, 224),
        300_774_272,
        3_504_872,
        52,
        "arXiv 1801.04381, table 4: 300 M (truncated); torchvision: 3,504,872 params",
    ),
    "convnext_tiny": Published(
        architectures.convnext_tiny,
        (3, 224, 224),
        4_455_531_264,
        28_589_128,
        22,
        "arXiv 2201.03545, table 1: 4.5 G, 28.6 M params; torchvision: 28,589,128",
    ),
    "unet": Published(
        architectures.unet, (1, 64, 64), 99_287_040, 116_770, 13, "arXiv 1505.04597, smaller"
    ),
    "unet of the paper": Published(
        partial(architectures.unet, width=64, depth=4),
        (1, 64, 64),
        3_006_005_248,
        31_030_658,
        23,
        "arXiv 1505.04597: 23 convolutional layers; padded, at 64x64",
    ),
    "detector": Published(
        architectures.shared_head_detector,
        (3, 128, 128),
        51_896_320,
        509_672,
        20,
        "arXiv 1904.01355, smaller",
    ),
    "net1d": Published(
        architectures.net1d, (1, 8000), 106_645_248, 111_948, 21, "arXiv 1809.07454, smaller"
    ),
    "net3d": Published(
        architectures.net3d, (3, 8, 56, 56), 1_046_227_328, 365_881, 6, "arXiv 1711.11248, smaller"
    ),
    "string padding": Published(
        architectures.string_padding_net, (3, 32, 32), 2_433_344, 9_162, 3, "by hand"
    ),
    "tied weights": Published(
        architectures.weight_tied_net, (3, 32, 32), 3_391_648, 2_954, 3, "by hand"
    ),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def published(request):
    """One of them, built, with an input and its audit."""
    known = ARCHITECTURES[request.param]
    model, features = known.build(), torch.zeros(1, *known.shape)
    return SimpleNamespace(
        name=request.param,
        known=known,
        model=model,
        features=features,
        audit=audit(model, features),
    )


def test_published_macs_and_params_are_reproduced(published):
    found = published.audit.model
    assert (found.macs, found.params) == (published.known.macs, published.known.params)
    assert params_of(published.model) == published.known.params
    assert published.audit.crosscheck == "exact"


def test_each_call_of_a_convolution_is_a_record(published):
    records = published.audit.records
    assert len(records) == published.known.calls
    assert {record.crosscheck for record in records} == {"exact"}
    assert len({record.name for record in records}) == len(records)


def test_torch_counts_the_same_macs_twice(published):
    """Its FlopCounterMode counts a multiply-accumulate as two operations."""
    model = copy.deepcopy(published.model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        model(published.features)
    assert mode.get_total_flops() == 2 * published.audit.model.macs


def counted_by_fvcore(model, *inputs):
    """Convolutions and linear layers as fvcore counts them of itself."""
    analysis = FlopCountAnalysis(model.eval(), inputs)
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    operators = analysis.by_operator()
    return operators["conv"] + operators["linear"]


def test_fvcore_alone_counts_the_same_but_for_string_padding(published):
    unseen = {"string padding": published.known.macs - 320}.get(published.name, 0)
    plain = counted_by_fvcore(copy.deepcopy(published.model), published.features)
    assert plain == published.known.macs - unseen


def test_conversion_keeps_the_shapes_and_costs_what_the_audit_says(published):
    converted = to_separable(published.model).eval()
    original = copy.deepcopy(published.model).eval()
    with torch.no_grad():
        assert shapes(converted(published.features)) == shapes(original(published.features))
        with FlopCounterMode(display=False) as mode:
            converted(published.features)
    found = published.audit.model
    assert mode.get_total_flops() == 2 * found.separable_macs
    assert params_of(converted) == found.separable_params


def test_conversion_replaces_what_the_audit_calls_separable(published):
    replaced = {
        name
        for name, module in to_separable(published.model).named_modules()
        if isinstance(module, DepthwiseSeparableConv)
    }
    records = published.audit.records
    assert replaced == {
        record.name.partition(" ")[0] for record in records if record.kind == "separable"
    }


def test_the_sums_of_the_records_are_in_the_total(published):
    found, total = published.audit, published.audit.total
    linear = found.model.macs - sum(record.standard_macs for record in found.records)
    assert linear == found.model.separable_macs - total.separable_macs
    assert total.standard_macs == total.fvcore_standard_macs
    assert total.separable_params == total.torch_separable_params
    assert found.model.params - found.model.separable_params == (
        total.standard_params - total.separable_params
    )


def test_a_verdict_on_resnet50():
    found = audit(architectures.resnet50(), torch.zeros(1, 3, 224, 224))
    assert Counter(record.kind for record in found.records) == {"pointwise": 36, "separable": 17}
    assert found.model.separable_macs == 2_343_674_112
    assert found.model.separable_params == 15_522_171
    assert found.model.uncounted_operators == {"aten::add": 16, "aten::max_pool2d": 1}


def test_transposed_convolutions_count_their_input_positions():
    found = audit(architectures.unet(), torch.zeros(1, 1, 64, 64))
    up = next(record for record in found.records if record.kind == "transposed")
    assert (up.name, up.input_size, up.output_size) == ("up.0", (16, 16), (32, 32))
    assert (up.in_channels, up.out_channels) == (64, 32)
    assert up.standard_macs == up.separable_macs == 64 * 32 * 2 * 2 * 16 * 16
    assert up.standard_params == 64 * 32 * 2 * 2 + 32


def test_a_shared_head_counts_each_call_and_its_params_once():
    found = audit(architectures.shared_head_detector(), torch.zeros(1, 3, 128, 128))
    calls = [record for record in found.records if record.name.startswith("boxes")]
    assert [record.name for record in calls] == ["boxes", "boxes (call 2)", "boxes (call 3)"]
    assert [record.input_size for record in calls] == [(16, 16), (8, 8), (4, 4)]
    assert [record.standard_macs for record in calls] == [64 * 4 * 9 * n * n for n in (16, 8, 4)]
    assert [record.standard_params for record in calls] == [64 * 4 * 9 + 4, 0, 0]
    assert [record.separable_params for record in calls] == [64 * 10 + 65 * 4, 0, 0]


def test_a_tied_weight_counts_once_and_is_kept():
    found = audit(architectures.weight_tied_net(), torch.zeros(1, 3, 32, 32))
    assert [record.kind for record in found.records] == [
        "separable",
        "shared weight",
        "shared weight",
    ]
    assert [record.standard_params for record in found.records] == [448, 16 * 16 * 9 + 16, 16]


# The layers of a network, one kind at a time.


def small(channels=3, filters=8, **options):
    return nn.Conv2d(channels, filters, 3, **options)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Conv2d(4, 8, 3), "separable"),
        (nn.Conv1d(4, 8, 3), "separable"),
        (nn.Conv3d(4, 8, 3), "separable"),
        (nn.Conv2d(4, 8, (1, 3)), "separable"),
        (nn.Conv2d(4, 8, 1), "pointwise"),
        (nn.Conv2d(4, 4, 3, groups=4), "depthwise"),
        (nn.Conv2d(4, 8, 3, groups=4), "depthwise"),
        (nn.Conv2d(4, 8, 3, groups=2), "grouped"),
        (nn.ConvTranspose2d(4, 8, 3), "transposed"),
        (nn.ConvTranspose2d(4, 4, 3, groups=4), "transposed"),
        (nn.Conv2d(4, 1, 3), "no saving"),
        (nn.Conv2d(4, 2, (1, 2)), "no saving"),
        (type("Mine", (nn.Conv2d,), {})(4, 8, 3), "subclass"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 3)), "subclass"),
        (nn.utils.spectral_norm(nn.Conv2d(4, 8, 3)), "derived weight"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_convolution_that_stays_says_why(layer, kind):
    dims = layer.weight.dim() - 2
    features = torch.zeros(1, 4, *[5] * dims)
    model = nn.Sequential(OrderedDict(layer=layer))
    found = audit(model, features)
    [record] = found.records
    assert (record.kind, record.crosscheck, found.crosscheck) == (kind, "exact", "exact")
    replaced = isinstance(to_separable(model).layer, DepthwiseSeparableConv)
    assert replaced is (kind == "separable") is (record.separable_macs < record.standard_macs)
    if not replaced:
        assert record.mac_ratio == 1
        assert record.depthwise_macs is record.pointwise_macs is record.depth_multiplier is None


def test_old_style_weight_norm_is_kept():
    with torch.no_grad(), pytest.warns(FutureWarning):  # else torch cannot copy it
        model = nn.Sequential(nn.utils.weight_norm(small()), small(8))
    converted = to_separable(model)
    assert [type(layer) for layer in converted] == [nn.Conv2d, DepthwiseSeparableConv]
    features = torch.ones(1, 3, 9, 9)
    assert torch.equal(converted[0](features), model[0](features))


def test_functional_calls_are_recorded_with_their_module():
    weights = [nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8, 2, 4, 4))]

    def forward(self, x):
        x = F.conv2d(input=x, weight=self.first, stride=(2, 1), padding="valid")
        return F.conv_transpose2d(x, self.second, None, 2, 1, groups=2, dilation=1)

    inner = Calling(forward, first=weights[0], second=weights[1])
    found = audit(nn.Sequential(OrderedDict(inner=inner)), torch.zeros(2, 3, 9, 9))
    first, second = found.records
    assert [(record.name, record.kind) for record in found.records] == [
        ("inner", "functional"),
        ("inner (call 2)", "functional"),
    ]
    assert (first.stride, first.padding, first.bias) == ((2, 1), "valid", False)
    assert (first.output_size, first.standard_macs) == ((4, 7), 2 * 3 * 8 * 9 * 4 * 7)
    assert (second.groups, second.stride, second.padding) == (2, (2, 2), (1, 1))
    assert (second.in_channels, second.out_channels) == (8, 4)
    assert second.standard_macs == 2 * 8 * 4 // 2 * 16 * 4 * 7
    assert found.model == Model(
        first.standard_macs + second.standard_macs,
        params_of(inner),
        first.standard_macs + second.standard_macs,
        params_of(inner),
        {},
    )


def test_a_convolution_without_a_module_holds_no_params():
    found = audit(
        Calling(lambda self, x: F.conv2d(x, torch.ones(8, 3, 3, 3))), torch.zeros(3, 9, 9)
    )
    [record] = found.records
    assert (record.standard_macs, record.standard_params) == (3 * 8 * 9 * 49, 0)
    assert found.model.params == 0


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_a_bare_convolution_is_a_model_too(batch_size):
    model = small()
    features = torch.zeros(*([] if batch_size is None else [batch_size]), 3, 10, 10)
    found = audit(model, features)
    [record] = found.records
    samples = batch_size or 1
    assert record.name == "the model"
    assert (record.batch_size, record.kind, record.crosscheck) == (samples, "separable", "exact")
    assert record.standard_macs == samples * 3 * 8 * 9 * 8 * 8
    converted = to_separable(model)
    assert isinstance(converted, DepthwiseSeparableConv)
    assert converted(features).shape == model(features).shape
    assert type(model) is nn.Conv2d


def test_padding_in_words_is_counted():
    model = nn.Sequential(small(padding="same", dilation=2), nn.Conv2d(8, 8, 4, padding="same"))
    found = audit(model, torch.zeros(1, 3, 9, 9))
    assert [record.padding for record in found.records] == ["same", "same"]
    assert found.model.macs == (3 * 8 * 9 + 8 * 8 * 16) * 81
    assert found.crosscheck == "exact"
    assert counted_by_fvcore(model, torch.zeros(1, 3, 9, 9)) == 0


def test_linear_layers_and_products_are_macs_of_the_model():
    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return torch.bmm(tokens, tokens.transpose(1, 2)) @ self.linear(tokens)

    model = Calling(forward, patches=nn.Conv2d(3, 8, 4, 4), linear=nn.Linear(8, 5))
    found = audit(model, torch.zeros(1, 3, 16, 16))
    assert found.total.standard_macs == 3 * 8 * 16 * 16
    assert found.model.macs == 3 * 8 * 16 * 16 + 16 * 8 * 16 + 16 * 8 * 5 + 16 * 16 * 5


def test_norms_activations_and_pools_are_no_macs():
    model = nn.Sequential(
        *(small(padding=1), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")),
    )
    found = audit(model, torch.zeros(1, 3, 8, 8))
    assert found.model.macs == 3 * 8 * 9 * 64
    assert found.crosscheck == "exact"


def test_attention_is_its_two_products():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    found = audit(nn.TransformerEncoder(layer, 3), torch.zeros(2, 5, 16))
    linear, products = 5 * (4 * 16 * 16 + 2 * 16 * 32), 2 * 5 * 5 * 16
    assert found.model.macs == 2 * 3 * (linear + products)
    assert found.model.uncounted_operators["aten::add"] == 6
    assert not any("attention" in name for name in found.model.uncounted_operators)
    assert (found.records, found.crosscheck) == ([], "exact")


def test_attention_over_other_keys_counts_their_number_and_width():
    queries, keys, values = (torch.zeros(2, 4, n, width) for n, width in ((5, 8), (7, 8), (7, 6)))
    model = Calling(lambda self, *inputs: F.scaled_dot_product_attention(*inputs))
    found = audit(model, queries, keys, values)
    assert found.model == Model(*[2 * 4 * 5 * 7 * (8 + 6), 0] * 2, {})


@pytest.mark.parametrize(
    ("layer", "inputs", "operator"),
    [
        (nn.LSTM(8, 4), [(5, 1, 8)], "aten::lstm"),
        (nn.GRU(8, 4), [(5, 1, 8)], "aten::gru"),
        (nn.Bilinear(8, 4, 2), [(5, 8), (5, 4)], "aten::bilinear"),
        (Calling(lambda self, x: torch.tensordot(x, x)), [(5, 5)], "aten::tensordot"),
    ],
    ids=["lstm", "gru", "bilinear", "tensordot"],
)
def test_where_macs_cannot_be_counted_they_are_not_known(layer, inputs, operator):
    found = audit(layer, *map(torch.zeros, inputs))
    assert found.model == Model(None, params_of(layer), None, params_of(layer), {operator: 1})
    assert "not all of its MACs were counted" in str(found)
    assert f"{operator} 1" in str(found).replace("\\", "")


def test_a_convolution_that_never_runs_has_params_and_no_record():
    def forward(self, x):
        x = self.conv(x)
        return (x, self.auxiliary(x)) if self.training else x

    model = Calling(forward, conv=small(), auxiliary=small(8))
    found = audit(model, torch.zeros(1, 3, 8, 8))
    [record] = found.records
    assert (record.name, found.crosscheck) == ("conv", "exact")
    assert found.total.standard_params == 224
    assert found.model.params == 224 + 584
    assert found.model.separable_params == 62 + 152 == params_of(to_separable(model))


@pytest.mark.parametrize(
    ("model", "macs", "params"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 2)), 500, 512),
        (nn.Identity(), 0, 0),
    ],
    ids=["perceptron", "identity"],
)
def test_a_model_without_convolutions_has_its_own_costs(model, macs, params):
    found = audit(model, torch.zeros(1, 3, 4, 4))
    assert found.records == []
    assert found.model == Model(macs, params, macs, params, {})
    assert (found.total.standard_macs, found.total.mac_ratio) == (0, None)
    assert found.crosscheck == "exact"


def test_without_verification_nothing_is_counted():
    found = audit(nn.Sequential(small(), nn.Flatten(), nn.Linear(288, 2)), torch.zeros(1, 3, 8, 8),
                  verify=False)  # fmt: skip
    assert found.crosscheck == found.total.crosscheck == "skipped"
    assert found.model == Model(None, 224 + 578, None, 62 + 578, {})
    assert found.total.standard_macs == 3 * 8 * 9 * 36
    assert found.total.fvcore_standard_macs is None


# What models do.


OUTPUTS = {
    "a tensor": lambda x: x,
    "a dict": lambda x: {"logits": x, "more": {"deep": [x]}},
    "a tuple": lambda x: (x, (x, x)),
    "a list": lambda x: [x],
    "an object": lambda x: SimpleNamespace(logits=x),
    "nothing": lambda x: None,
    "numbers": lambda x: (x.shape[0], "words", x),
}


@pytest.mark.parametrize("wrap", OUTPUTS.values(), ids=OUTPUTS)
def test_a_model_may_return_anything(wrap):
    def forward(self, x):
        return wrap(self.linear(self.conv(x).mean((2, 3))))

    model = Calling(forward, conv=small(), linear=nn.Linear(8, 2))
    found = audit(model, torch.zeros(1, 3, 8, 8))
    assert (found.crosscheck, found.model.macs) == ("exact", 3 * 8 * 9 * 36 + 16)


@pytest.mark.parametrize("dead", ["conv", "linear"])
def test_a_dead_branch_is_counted(dead):
    def forward(self, x):
        x = self.conv(x)
        self.dead(x)
        return x

    parts = {"conv": (small(8), 8 * 8 * 9 * 16), "linear": (nn.Linear(6, 5), 8 * 36 * 5)}
    layer, macs = parts[dead]
    found = audit(Calling(forward, conv=small(), dead=layer), torch.zeros(1, 3, 8, 8))
    assert found.model.macs == 3 * 8 * 9 * 36 + macs
    assert found.crosscheck == "exact"


@pytest.mark.parametrize(("value", "calls"), [(0, 1), (1, 3)])
def test_control_flow_may_depend_on_data(value, calls):
    def forward(self, x):
        repeats = 3 if x.sum() > 0 else 1
        for _ in range(repeats):
            x = self.conv(x)
        return x

    model = Calling(forward, conv=small(3, 3, padding=1))
    found = audit(model, torch.full((1, 3, 8, 8), float(value)))
    assert found.crosscheck == "exact"
    assert len(found.records) == calls
    assert found.model.macs == calls * 3 * 3 * 9 * 64


def test_inputs_may_be_several_and_nested():
    def forward(self, first, others, scale):
        return self.first(first) + self.second(others["second"]) * scale

    model = Calling(forward, first=small(), second=small(1))
    image, mask = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    found = audit(model, image, {"second": mask}, 2.0)
    assert found.model.macs == 2 * (3 + 1) * 8 * 9 * 36
    assert found.crosscheck == "exact"


def test_embeddings_take_whole_numbers():
    def forward(self, tokens):
        return self.conv(self.embedding(tokens).transpose(1, 2))

    model = Calling(forward, embedding=nn.Embedding(10, 16), conv=nn.Conv1d(16, 32, 3))
    found = audit(model, torch.zeros(1, 20, dtype=torch.int64))
    assert found.model == Model(
        16 * 32 * 3 * 18, 160 + 1568, 16 * (3 + 32) * 18, 160 + 608, {"aten::embedding": 1}
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_dtype_of_floats_is_counted(dtype):
    found = audit(nn.Sequential(small()).to(dtype), torch.zeros(1, 3, 8, 8, dtype=dtype))
    assert (found.crosscheck, found.model.macs) == ("exact", 3 * 8 * 9 * 36)


def test_a_batch_multiplies_macs_and_not_params():
    one, many = (audit(architectures.unet(), torch.zeros(n, 1, 16, 16)).model for n in (1, 6))
    assert many.macs == 6 * one.macs
    assert many.separable_macs == 6 * one.separable_macs
    assert (many.params, many.separable_params) == (one.params, one.separable_params)


def test_a_convolution_that_runs_twice_in_a_row_is_two_calls():
    found = audit(Calling(lambda self, x: self.conv(self.conv(x)), conv=small(3, 3)),
                  torch.zeros(1, 3, 8, 8))  # fmt: skip
    assert [record.name for record in found.records] == ["conv", "conv (call 2)"]
    assert [record.output_size for record in found.records] == [(6, 6), (4, 4)]


def test_wrapped_and_checkpointed_modules_are_seen():
    from torch.utils.checkpoint import checkpoint

    def forward(self, x):
        with torch.autocast("cpu"):
            return checkpoint(self.inner, x, use_reentrant=False)

    model = Calling(forward, inner=nn.DataParallel(nn.Sequential(small())))
    found = audit(model, torch.zeros(1, 3, 8, 8))
    assert [record.name for record in found.records] == ["inner.module.0"]
    assert found.crosscheck == "exact"


# What is refused.


def scripted():
    return torch.jit.script(nn.Sequential(small()))


def quantised():
    quantization = pytest.importorskip("torch.ao.quantization")
    model = nn.Sequential(small(), nn.Flatten(), nn.Linear(288, 4))
    return quantization.quantize_dynamic(model, {nn.Linear})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per:UserWarning")
@pytest.mark.parametrize(
    ("build", "what"),
    [
        (scripted, "the model is a scripted module (RecursiveScriptModule)"),
        (lambda: nn.Sequential(nn.ReLU(), scripted()), "1 is a scripted module"),
        (quantised, "2 is a quantised module (Linear)"),
    ],
    ids=["scripted", "with a scripted part", "quantised"],
)
def test_a_module_whose_operators_are_hidden_is_refused(build, what):
    with pytest.raises(DscalcError) as raised:
        audit(build(), torch.zeros(1, 3, 8, 8))
    assert what in str(raised.value)
    assert str(raised.value).endswith("audit the float nn.Module that it was made from")


def test_the_module_that_refuses_its_input_is_named():
    model = nn.Sequential(OrderedDict(stem=small(), body=nn.Sequential(nn.ReLU(), small(16))))
    with pytest.raises(DscalcError) as raised:
        audit(model, torch.zeros(1, 3, 8, 8))
    assert str(raised.value).startswith(
        "body.1 (Conv2d) cannot run on these inputs (RuntimeError: Given groups=1, weight of size "
        "[8, 16, 3, 3], expected input[1, 8, 6, 6] to have 16 channels, but got 8 channels instead)"
    )


def test_a_model_that_cannot_be_copied_is_refused():
    class Single(nn.Conv2d):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

    with pytest.raises(DscalcError) as raised:
        audit(Single(3, 8, 3), torch.zeros(1, 3, 8, 8))
    assert (
        str(raised.value) == "the model cannot be copied, to leave it as it is (there is only one)"
    )


def test_a_convolution_out_of_sight_is_not_passed_over():
    def forward(self, x):
        ones, zeros = (1, 1), (0, 0)
        return torch.convolution(x, self.weight, None, ones, zeros, ones, False, zeros, 1)

    model = Calling(forward, weight=nn.Parameter(torch.zeros(8, 3, 3, 3)))
    with pytest.raises(CrosscheckError) as raised:
        audit(model, torch.zeros(1, 3, 8, 8))
    assert "some are reached by other ways than as submodules" in str(raised.value)


# Conversion.


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": 2},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "stride": 3},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": "same", "padding_mode": "circular"},
        {"padding": 1, "dtype": torch.float64},
        {"device": "meta"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel_size", [3, 2])
def test_a_replacement_has_the_options_of_what_it_replaces(kernel_size, options, dims):
    layer = CONVOLUTIONS[dims](3, 8, kernel_size, **options)
    replaced = to_separable(nn.Sequential(layer))[0]
    depthwise, pointwise = replaced.depthwise, replaced.pointwise
    assert type(depthwise) is type(pointwise) is type(layer)
    assert (depthwise.in_channels, depthwise.groups, pointwise.out_channels) == (3, 3, 8)
    assert depthwise.kernel_size == layer.kernel_size
    assert depthwise.stride == layer.stride
    assert depthwise.dilation == layer.dilation
    assert depthwise.padding_mode == layer.padding_mode
    if not isinstance(layer.padding, str):
        assert depthwise.padding == layer.padding
    assert (depthwise.bias is None) is (pointwise.bias is None) is (layer.bias is None)
    assert {p.dtype for p in replaced.parameters()} == {layer.weight.dtype}
    assert {p.device for p in replaced.parameters()} == {layer.weight.device}
    features = torch.zeros(2, 3, *[7] * dims, dtype=layer.weight.dtype, device=layer.weight.device)
    assert replaced(features).shape == layer(features).shape


@pytest.mark.parametrize("training", [True, False])
def test_a_replacement_has_the_training_flag(training):
    model = nn.Sequential(small(), nn.BatchNorm2d(8), small(8))
    model[0].train(training)
    model[2].train(not training)
    flags = [[part.training for part in layer.modules()] for layer in to_separable(model)]
    assert flags == [[training] * 3, [True], [not training] * 3]


def test_the_original_is_untouched_and_shares_nothing():
    model = architectures.unet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    converted = to_separable(model)
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.fill_(7)
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ours = {parameter.data_ptr() for parameter in model.parameters()}
    assert not ours & {parameter.data_ptr() for parameter in converted.parameters()}


def test_what_stays_keeps_its_weights():
    model = architectures.mobilenet_v1(0.25)
    converted = to_separable(model)
    assert isinstance(converted[0], DepthwiseSeparableConv)
    kept = {name: value for name, value in converted.state_dict().items() if name[:2] != "0."}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
    assert len(kept) == len(model.state_dict()) - 1


@pytest.mark.parametrize(
    ("options", "replaced"),
    [
        ({}, {"stem", "body.0", "body.2"}),
        ({"only": "body.*"}, {"body.0", "body.2"}),
        ({"only": ["stem", "body.2"]}, {"stem", "body.2"}),
        ({"exclude": "stem"}, {"body.0", "body.2"}),
        ({"exclude": ["*.2", "stem"]}, {"body.0"}),
        ({"only": "body.*", "exclude": "body.[01]"}, {"body.2"}),
        ({"only": "*"}, {"stem", "body.0", "body.2"}),
        ({"only": "head"}, set()),
        ({"only": []}, set()),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_globs_choose_what_is_replaced(options, replaced):
    body = nn.Sequential(small(8), nn.ReLU(), small(8))
    model = nn.Sequential(OrderedDict(stem=small(), body=body, head=nn.Conv2d(8, 2, 1)))
    converted = to_separable(model, **options)
    assert replaced == {
        name
        for name, module in converted.named_modules()
        if isinstance(module, DepthwiseSeparableConv)
    }
    found = audit(model, torch.zeros(1, 3, 12, 12), **options)
    assert {record.name for record in found.records if record.kind == "separable"} == replaced
    assert (found.crosscheck, found.model.separable_params) == ("exact", params_of(converted))
    kinds = {record.kind for record in found.records if record.name not in replaced}
    assert kinds <= {"excluded", "pointwise"}


@pytest.mark.parametrize("convert", [to_separable, audit])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"only": "stam"}, "'stam' matches no convolution of the model; did you mean stem?"),
        (
            {"exclude": ["stem", "zzz*"]},
            "'zzz*' matches no convolution of the model; they are stem, body.0",
        ),
        ({"only": "body"}, "'body' matches no convolution of the model; did you mean body.0?"),
    ],
)
def test_a_glob_that_matches_nothing_is_refused(options, reason, convert):
    model = nn.Sequential(OrderedDict(stem=small(), body=nn.Sequential(small(8))))
    inputs = [torch.zeros(1, 3, 8, 8)] if convert is audit else []
    with pytest.raises(DscalcError) as raised:
        convert(model, *inputs, **options)
    assert str(raised.value) == reason


def test_a_module_of_two_names_is_replaced_by_one_module():
    model = Calling(lambda self, x: self.second(self.first(x)), first=small(3, 3))
    model.second = model.first
    converted = to_separable(model)
    assert isinstance(converted.first, DepthwiseSeparableConv)
    assert converted.first is converted.second
    found = audit(model, torch.zeros(1, 3, 8, 8))
    assert [record.name for record in found.records] == ["first", "first (call 2)"]
    assert found.model.params == 84
    assert found.model.separable_params == params_of(converted) == 42
    assert found.crosscheck == "exact"


def test_a_module_in_two_places_is_replaced_in_both():
    shared = small(8, 8)
    model = nn.Sequential(small(), nn.Sequential(shared), nn.ModuleDict({"a": shared}))
    converted = to_separable(model)
    assert isinstance(converted[1][0], DepthwiseSeparableConv)
    assert converted[1][0] is converted[2]["a"]


def test_a_converted_model_pickles():
    converted = to_separable(architectures.unet(width=4)).eval()
    loaded = pickle.loads(pickle.dumps(converted))
    features = torch.randn(1, 1, 16, 16)
    assert torch.equal(loaded(features), converted(features))


def test_a_converted_model_learns():
    model = to_separable(nn.Sequential(small(), nn.ReLU(), nn.Flatten(), nn.Linear(288, 1)))
    model(torch.ones(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_converting_again_changes_nothing_more():
    once = to_separable(architectures.mobilenet_v2())
    twice = to_separable(once)
    assert [type(module) for module in twice.modules()] == [
        type(module) for module in once.modules()
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True)
    )


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
            yield layer, output.numel() * layer.in_features
        elif isinstance(layer, tuple(TRANSPOSED.values())):
            yield layer, x.numel() * prod(layer.weight.shape[1:])
        elif isinstance(layer, tuple(CONVOLUTIONS.values())):
            yield layer, output.numel() * prod(layer.weight.shape[1:])
        x = output


@given(networks())
def test_audit_fvcore_and_the_sum_by_hand_agree(network):
    model, features = network
    found = audit(model, features)
    by_hand = list(counted_by_hand(model, features))
    assert found.crosscheck == "exact"
    assert found.model.macs == sum(macs for _, macs in by_hand)
    assert found.model.params == params_of(model)
    assert [record.standard_macs for record in found.records] == [
        macs for layer, macs in by_hand if not isinstance(layer, nn.Linear)
    ]
    unseen = sum(macs for layer, macs in by_hand if isinstance(getattr(layer, "padding", 0), str))
    plain = counted_by_fvcore(copy.deepcopy(model), features)
    assert plain == found.model.macs - unseen


@given(networks())
def test_a_converted_network_keeps_its_shapes_and_costs_what_was_said(network):
    model, features = network
    found = audit(model, features)
    converted = to_separable(model).eval()
    with torch.no_grad():
        assert converted(features).shape == copy.deepcopy(model).eval()(features).shape
    again = audit(converted, features).model
    assert (again.macs, again.params) == (found.model.separable_macs, found.model.separable_params)
    assert (again.separable_macs, again.separable_params) == (again.macs, again.params)
    assert found.model.separable_macs <= found.model.macs
    assert params_of(converted) == found.model.separable_params


# Nothing is left behind.


class Restless(nn.Module):
    """Updates, draws and counts whatever a forward pass can."""

    def __init__(self):
        super().__init__()
        self.conv = small()
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.frozen = small(8).requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(1), persistent=False)
        self.history = []

    def forward(self, x):
        self.calls += 1
        self.history.append(tuple(x.shape))
        noise = torch.rand(()) + random.random() + np.random.rand()
        x = self.drop(self.norm(self.conv(x)))
        self.last = x.detach().mean().reshape(1)
        return self.frozen(x) * float(noise)


@pytest.fixture
def restless():
    model = Restless()
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    model.norm.eval()
    return model


def state_of(model):
    """All that a run could change."""
    return {
        "values": {
            name: value.detach().clone()
            for name, value in [*model.named_parameters(), *model.named_buffers()]
        },
        "grads": {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad},
        "places": {name: p.data_ptr() for name, p in model.named_parameters()},
        "versions": {name: p._version for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "types": {name: type(module) for name, module in model.named_modules()},
        "hooks": {
            name: [len(value) for key, value in vars(module).items() if key.endswith("_hooks")]
            for name, module in model.named_modules()
        },
        "global hooks": [
            len(value) for name, value in vars(all_modules).items() if name.endswith("_hooks")
        ],
        "history": [*model.history] if hasattr(model, "history") else None,
        "attributes": {name: set(vars(module)) for name, module in model.named_modules()},
        "torch random": torch.get_rng_state(),
        "python random": random.getstate(),
        "numpy random": [np.asarray(part).tolist() for part in np.random.get_state()],
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    else:
        assert one == other


@pytest.mark.parametrize("verify", [True, False])
def test_an_audit_leaves_the_model_and_all_random_states_as_they_were(restless, verify):
    before = state_of(restless)
    assert audit(restless, torch.zeros(2, 3, 8, 8), verify=verify).records
    assert_same(state_of(restless), before)


def test_an_audit_that_fails_leaves_them_too(restless):
    before = state_of(restless)
    with pytest.raises(DscalcError):
        audit(restless, torch.zeros(2, 4, 8, 8))
    with pytest.raises(DscalcError):
        audit(restless, torch.zeros(2, 3, 8, 8), only="nothing")
    assert_same(state_of(restless), before)


def test_a_conversion_leaves_the_model_as_it_was(restless):
    before = state_of(restless)
    to_separable(restless)
    for drawn in ("torch random",):  # for the new weights
        before.pop(drawn)
    after = state_of(restless)
    after.pop("torch random")
    assert_same(after, before)


def test_the_model_runs_in_evaluation_mode_and_without_gradients():
    seen = []

    def forward(self, x):
        seen.append((self.training, self.conv.training, torch.is_grad_enabled()))
        return self.conv(x)

    audit(Calling(forward, conv=small()).train(), torch.zeros(1, 3, 8, 8))
    assert set(seen) == {(False, False, False)}
    assert len(seen) == 3  # once to record, and fvcore twice


def test_own_hooks_still_work_after_an_audit():
    model, seen = nn.Sequential(small()), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(module))
    audit(model, torch.zeros(1, 3, 8, 8), verify=False)
    seen.clear()
    model(torch.zeros(1, 3, 8, 8))
    assert seen == [model[0]]


def test_lazy_modules_stay_lazy():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    found = audit(model, torch.zeros(1, 3, 8, 8))
    assert found.model == Model(
        3 * 8 * 9 * 36 + 288 * 4, 224 + 1156, 3 * (9 + 8) * 36 + 288 * 4, 62 + 1156, {}
    )
    assert [type(layer) for layer in model] == [nn.LazyConv2d, nn.ReLU, nn.Flatten, nn.LazyLinear]
    assert model[0].has_uninitialized_params()
    assert model[3].has_uninitialized_params()


def test_weights_that_a_forward_pass_writes_are_not_those_of_the_user():
    def forward(self, x):
        self.conv.weight.data = torch.renorm(self.conv.weight.data, 2, 0, 1e-3)
        self.linear.weight.clamp_(-1e-3, 1e-3)
        return self.linear(self.conv(x))

    model = Calling(forward, conv=nn.Conv2d(3, 8, 1), linear=nn.Linear(8, 8))
    before = copy.deepcopy(model.state_dict())
    audit(model, torch.zeros(1, 3, 8, 8))
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_results_that_a_model_kept_can_be_copied():
    """Old-style weight_norm keeps its weight so, and many a model its attention."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    model.kept = model(torch.zeros(1, 3, 8, 8))
    assert not model.kept.is_leaf
    assert audit(model, torch.zeros(1, 3, 8, 8)).crosscheck == "exact"
    assert isinstance(to_separable(model)[0], DepthwiseSeparableConv)


def test_lazy_batch_normalisation_stays_lazy():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d())
    result = audit(model, torch.zeros(1, 3, 8, 8))
    assert (result.crosscheck, result.records[0].kind) == ("exact", "separable")
    assert model[1].has_uninitialized_params()


@pytest.mark.parametrize(
    ("product", "macs"),
    [
        (lambda x, p: torch.mm(x.flatten(1), p), 192 * 1000),
        (lambda x, p: torch.einsum("abcd,cde->abe", x, torch.zeros(8, 8, 123)), 3 * 8 * 8 * 123),
        (lambda x, p: torch.zeros(5, 8) @ x, 3 * 5 * 8 * 8),
        (lambda x, p: x @ torch.zeros(8), 3 * 8 * 8),
        (lambda x, p: torch.baddbmm(torch.zeros(1), x[0], x[0]), 3 * 8 * 8 * 8),
    ],
    ids=["mm", "einsum", "broadcast", "vector", "baddbmm"],
)
def test_other_products_count_their_multiplications(product, macs):
    def forward(self, x):
        return self.conv(x), product(x, self.p)

    conv = nn.Conv2d(3, 8, 1, bias=False)
    model = Calling(forward, conv=conv, p=nn.Parameter(torch.zeros(192, 1000)))
    result = audit(model, torch.zeros(1, 3, 8, 8))
    assert (result.crosscheck, result.model.macs) == ("exact", 3 * 8 * 64 + macs)


def test_einsum_of_more_than_two_tensors_has_no_count():
    def forward(self, x):
        return torch.einsum("abcd,d,d->abc", self.conv(x), torch.zeros(8), torch.zeros(8))

    result = audit(Calling(forward, conv=nn.Conv2d(3, 8, 1)), torch.zeros(1, 3, 8, 8))
    assert result.model.macs is None
    assert result.model.uncounted_operators["aten::einsum"] == 1


def test_an_error_that_the_model_catches_cannot_be_traced():
    def forward(self, x):
        try:
            return self.conv(x)
        except RuntimeError:
            return x

    with pytest.raises(DscalcError, match="raised an error that the model caught"):
        audit(Calling(forward, conv=nn.Conv2d(4, 8, 1)), torch.zeros(1, 3, 8, 8))


def test_a_forward_called_by_name_is_a_call_of_its_module():
    def forward(self, x):
        return self.conv.forward(x)

    result = audit(Calling(forward, conv=nn.Conv2d(3, 8, 3)), torch.zeros(1, 3, 8, 8))
    assert (result.crosscheck, result.records[0].name) == ("exact", "conv")


# Faults that are planted.


FEATURES = torch.zeros(1, 3, 8, 8)


def planted_net():
    return nn.Sequential(
        OrderedDict(stem=small(), body=small(8), squeeze=nn.Flatten(), head=nn.Linear(128, 2))
    )


def checks(found):
    return {record.name: record.crosscheck for record in found.records}


def test_a_wrong_count_of_one_layer_is_a_mismatch_there_alone(monkeypatch):
    count = THE_MODULE.conv_flop_count

    def one_more(x, weight, *rest, **options):
        return count(x, weight, *rest, **options) + (list(weight) == [8, 8, 3, 3])

    monkeypatch.setattr(THE_MODULE, "conv_flop_count", one_more)
    found = audit(planted_net(), FEATURES)
    assert checks(found) == {"stem": "exact", "body": "mismatch"}
    assert found.crosscheck == found.total.crosscheck == "mismatch"
    body = found.records[1]
    assert body.fvcore_standard_macs == body.standard_macs + 1
    assert body.fvcore_separable_macs == body.separable_macs


@pytest.mark.parametrize("formula", ["conv_macs", "conv_params"])
def test_a_wrong_formula_is_a_mismatch(formula, monkeypatch):
    from dscalc.core import conv

    right = getattr(conv, formula)
    monkeypatch.setattr(conv, formula, lambda *sizes: right(*sizes) + 1)
    found = audit(planted_net(), FEATURES)
    assert checks(found) == {"stem": "mismatch", "body": "mismatch"}


def test_a_wrong_replacement_is_a_mismatch(monkeypatch):
    class Narrower(DepthwiseSeparableConv):
        def __init__(self, ic, oc, kernel_size, stride, padding, *rest, **options):
            super().__init__(ic, oc, (1, 3), stride, padding, *rest, **options)
            self.depthwise.padding = (0, 0)

        def forward(self, x):
            return super().forward(x)[..., :-2, :]

    monkeypatch.setattr("dscalc.pytorch.modules.DepthwiseSeparableConv", Narrower)
    found = audit(planted_net(), FEATURES)
    assert checks(found) == {"stem": "mismatch", "body": "mismatch"}
    stem = found.records[0]
    assert stem.torch_separable_params == stem.separable_params - 3 * 6


def test_a_replacement_that_changes_the_rest_of_the_model_is_a_mismatch(monkeypatch):
    replace = THE_MODULE.replace_eligible

    def careless(model, reasons):
        model.head = nn.Linear(128, 2, bias=False)
        return replace(model, reasons)

    monkeypatch.setattr(THE_MODULE, "replace_eligible", careless)
    found = audit(planted_net(), FEATURES)
    assert checks(found) == {"stem": "exact", "body": "exact"}
    assert found.total.crosscheck == "exact"
    assert found.crosscheck == "mismatch"


# What a notebook shows.


def test_an_audit_prints_as_a_table():
    found = audit(planted_net(), FEATURES)
    assert found._repr_markdown_() == str(found)
    title, table, *notes = str(found).strip().split("\n\n")
    assert title == "**Sequential**"
    header, rule, *rows = table.splitlines()
    assert header.startswith("| layer | kind | channels |")
    assert set(rule) == set("|: -")
    assert [row.split(" | ")[0] for row in rows] == ["| stem", "| body", "| **total**"]
    assert f"the model: {found.model.macs:,} MACs, {found.model.params:,} params" in notes
    assert "✓ fvcore and torch count exactly this on the real modules" in notes


def test_an_audit_of_a_subclass_is_named_after_it():
    assert audit(Calling(lambda self, x: x), FEATURES).name == "Calling"


def test_an_audit_without_convolutions_prints_too():
    text = str(audit(nn.Linear(8, 2), FEATURES))
    assert "the model: 384 MACs, 18 params" in text


def test_a_model_without_parameters_has_an_answer():
    def forward(self, x):
        return F.conv2d(x, self.weight)

    model = Calling(forward)
    model.register_buffer("weight", torch.zeros(8, 3, 3, 3))
    assert "no saving" not in str(audit(model, torch.zeros(1, 3, 8, 8)))


@pytest.mark.parametrize(
    "hidden",
    [
        lambda x: torch.linalg.multi_dot([x[0, 0], x[0, 0], x[0, 0]]),
        lambda x: torch.outer(x[0, 0, 0], x[0, 0, 0]),
        lambda x: torch.conv_tbc(x[0], torch.zeros(3, 8, 4), torch.zeros(4)),
    ],
    ids=["multi_dot", "outer", "conv_tbc"],
)
def test_an_operator_with_macs_and_no_count_makes_the_macs_unknown(hidden):
    def forward(self, x):
        return self.conv(x), hidden(x)

    result = audit(Calling(forward, conv=nn.Conv2d(3, 8, 1)), torch.zeros(1, 3, 8, 8))
    assert result.model.macs is None


def test_where_results_decide_what_runs_the_macs_after_replacement_are_not_known():
    class Deciding(nn.Module):
        """Runs its linear layer on as many rows as the mean of the map says."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, bias=False)
            self.linear = nn.Linear(8, 4, bias=False)
            nn.init.constant_(self.conv.weight, 0.0)

        def forward(self, x):
            features = self.conv(x)
            rows = 1 if bool((features == 0).all()) else 2
            return self.linear(torch.zeros(rows, 8))

    result = audit(Deciding(), torch.ones(1, 3, 8, 8))
    assert result.crosscheck == "exact"
    assert result.model.macs == 3 * 8 * 9 * 36 + 32
    assert result.model.separable_macs is None
    assert "what runs depends on the results" in str(result)
