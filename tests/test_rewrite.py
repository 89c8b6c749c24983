"""A model with its eligible convolutions rewritten: what is replaced, why not, and no trace."""

import copy
import pickle
import random
from collections import OrderedDict
from dataclasses import replace

import architectures
import layers
import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import convolutions, rewrites
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dscalc import Conv, DscalcError
from dscalc.core.blocks import SEPARABLE
from dscalc.core.row import layer_row
from dscalc.pytorch import to_separable
from dscalc.pytorch.modules import CONVOLUTIONS, BlockModule, DepthwiseSeparableConv
from dscalc.pytorch.rewrite import as_conv, copied, reasons_to_keep, replacement

DESCRIBING = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    *("padding_mode", "output_padding", "transposed"),
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning"
)


def small(channels=3, filters=8, **options):
    return nn.Conv2d(channels, filters, 3, **options)


def params_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def replaced_in(model):
    return {name for name, module in model.named_modules() if isinstance(module, BlockModule)}


def shapes(output):
    if isinstance(output, torch.Tensor):
        return tuple(output.shape)
    outputs = output.values() if isinstance(output, dict) else output
    return [shapes(value) for value in outputs]


# Which convolutions.


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        *layers.and_why_they_stay(),
        (nn.utils.spectral_norm(nn.Conv2d(4, 8, 3)), "derived weight"),
        (nn.LazyConv2d(8, 3), "lazy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_convolution_that_stays_says_why(layer, reason):
    model = nn.Sequential(OrderedDict(layer=layer))
    assert reasons_to_keep(model, SEPARABLE) == {"layer": reason}
    assert replaced_in(to_separable(model)) == (set() if reason else {"layer"})


def test_tied_weights_are_kept():
    tied = nn.Sequential(small(3, 3), small(3, 3), small(3, 3))
    tied[1].weight = tied[0].weight
    reasons = reasons_to_keep(tied, SEPARABLE)
    assert reasons == {"0": "shared weight", "1": "shared weight", "2": ""}


def test_old_style_weight_norm_is_kept():
    with torch.no_grad(), pytest.warns(FutureWarning):  # else torch cannot copy it
        model = nn.Sequential(nn.utils.weight_norm(small()), small(8))
    converted = to_separable(model)
    assert replaced_in(converted) == {"1"}
    features = torch.ones(1, 3, 9, 9)
    assert torch.equal(converted[0](features), model[0](features))


@pytest.mark.parametrize(
    ("options", "chosen"),
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
def test_globs_choose_what_is_replaced_of_what_is_eligible(options, chosen):
    body = nn.Sequential(small(8), nn.ReLU(), small(8))
    model = nn.Sequential(OrderedDict(stem=small(), body=body, head=nn.Conv2d(8, 2, 1)))
    reasons = reasons_to_keep(model, SEPARABLE, **options)
    assert replaced_in(to_separable(model, **options)) == chosen
    assert {path for path, reason in reasons.items() if not reason} == chosen
    assert set(reasons.values()) <= {"", "excluded", "pointwise"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"only": "stam"}, "'stam' matches no convolution of the model; did you mean stem?"),
        (
            {"exclude": ["stem", "zzz*"]},
            "'zzz*' matches no convolution of the model; choose from stem, body.0",
        ),
        ({"only": "body"}, "'body' matches no convolution of the model; did you mean body.0?"),
    ],
)
def test_a_glob_that_matches_nothing_is_refused(options, reason):
    model = nn.Sequential(OrderedDict(stem=small(), body=nn.Sequential(small(8))))
    with pytest.raises(DscalcError) as raised:
        to_separable(model, **options)
    assert str(raised.value) == reason


def test_a_model_without_convolutions_says_that_it_has_none():
    with pytest.raises(DscalcError, match=r"it has none$"):
        to_separable(nn.Linear(2, 2), only="*")


# What stands in their place.


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", layers.OPTIONS, ids=str)
@pytest.mark.parametrize("kernel_size", [3, 2])
def test_a_replacement_has_the_options_of_what_it_replaces(kernel_size, options, dims):
    layer = CONVOLUTIONS[dims](3, 8, kernel_size, **options)
    replaced = to_separable(nn.Sequential(layer))[0]
    depthwise, pointwise = replaced.depthwise, replaced.pointwise
    assert type(depthwise) is type(pointwise) is type(layer)
    assert (depthwise.in_channels, depthwise.groups, pointwise.out_channels) == (3, 3, 8)
    for name in ("kernel_size", "stride", "dilation", "padding_mode"):
        assert getattr(depthwise, name) == getattr(layer, name)
    if not isinstance(layer.padding, str):
        assert depthwise.padding == layer.padding
    for name in DESCRIBING:
        assert getattr(replaced, name) == getattr(layer, name)
    assert (depthwise.bias is None) is (pointwise.bias is None) is (layer.bias is None)
    kinds = {(p.dtype, p.device) for p in replaced.parameters()}
    assert kinds == {(layer.weight.dtype, layer.weight.device)}
    features = torch.zeros(2, 3, *[7] * dims, dtype=layer.weight.dtype, device=layer.weight.device)
    assert replaced(features).shape == layer(features).shape


@given(convolutions())
def test_a_module_is_described_as_the_convolution_that_it_is(arguments):
    conv = Conv(**arguments)
    if conv.padding == "same" and max(conv.stride) > 1:  # torch has no such module
        conv = replace(conv, stride=(1,) * len(conv.stride))
    module = CONVOLUTIONS[len(conv.kernel_size)](
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
        *(conv.dilation, conv.groups, conv.bias),
        device="meta",
    )
    spans = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    assert as_conv(module) == replace(conv, batch_size=1, input_size=tuple(spans))


@given(rewrites(paddings=["valid", "size"]))
def test_a_replacement_costs_what_its_row_says(rewrite):
    conv, block = replace(rewrite[0], groups=1), rewrite[1]._replace(biases=())
    module = CONVOLUTIONS[len(conv.kernel_size)](
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
        *(conv.dilation, 1, conv.bias),
        device="meta",
    )
    features = torch.zeros(conv.batch_size, conv.in_channels, *conv.input_size, device="meta")
    cost = layer_row(conv, block).rewritten.cost
    built = replacement(module, block)
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        built(features)
    assert (mode.get_total_flops(), params_of(built)) == (2 * cost.macs, cost.params)


# Whole models.

MODELS = {
    "resnet50": (architectures.resnet50, (3, 64, 64)),
    "mobilenet_v2": (architectures.mobilenet_v2, (3, 64, 64)),
    "convnext_tiny": (architectures.convnext_tiny, (3, 64, 64)),
    "unet": (architectures.unet, (1, 32, 32)),
    "detector": (architectures.shared_head_detector, (3, 128, 128)),
    "net1d": (architectures.net1d, (1, 8000)),
    "net3d": (architectures.net3d, (3, 8, 56, 56)),
    "string padding": (architectures.string_padding_net, (3, 32, 32)),
    "tied weights": (architectures.weight_tied_net, (3, 32, 32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_keeps_its_shapes_and_has_the_params_of_its_rows(name):
    build, shape = MODELS[name]
    with torch.device("meta"):
        model, features = build().eval(), torch.zeros(2, *shape)
    converted = to_separable(model)
    with torch.no_grad():
        assert shapes(converted(features)) == shapes(model(features))
    eligible = {path for path, why in reasons_to_keep(model, SEPARABLE).items() if not why}
    assert replaced_in(converted) == eligible != set()
    rows = [layer_row(as_conv(model.get_submodule(path)), SEPARABLE) for path in eligible]
    saved = sum(row.as_is.cost.params - row.rewritten.cost.params for row in rows)
    assert params_of(model) - params_of(converted) == saved


def test_a_bare_convolution_is_a_model_too():
    model = small()
    converted = to_separable(model)
    assert (type(model), type(converted)) == (nn.Conv2d, DepthwiseSeparableConv)
    features = torch.zeros(3, 10, 10)
    assert converted(features).shape == model(features).shape


@pytest.mark.parametrize("training", [True, False])
def test_a_replacement_has_the_training_flag(training):
    model = nn.Sequential(small(), nn.BatchNorm2d(8), small(8))
    model[0].train(training)
    model[2].train(not training)
    flags = [[part.training for part in layer.modules()] for layer in to_separable(model)]
    assert flags == [[training] * 3, [True], [not training] * 3]


def test_what_stays_keeps_its_weights():
    model = architectures.mobilenet_v1(0.25)
    converted = to_separable(model)
    assert replaced_in(converted) == {"0"}
    kept = {name: value for name, value in converted.state_dict().items() if name[:2] != "0."}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
    assert len(kept) == len(model.state_dict()) - 1


def test_a_module_in_several_places_is_replaced_by_one_module_in_all():
    shared = small(8, 8)
    model = nn.Sequential(small(), nn.Sequential(shared), nn.ModuleDict({"a": shared, "b": shared}))
    converted = to_separable(model)
    assert isinstance(converted[1][0], BlockModule)
    assert converted[1][0] is converted[2]["a"] is converted[2]["b"]
    assert params_of(converted) == 27 + 3 + 24 + 8 + 72 + 8 + 64 + 8


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
    assert [type(part) for part in twice.modules()] == [type(part) for part in once.modules()]
    pairs = zip(once.parameters(), twice.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


# The model itself.


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


def test_a_conversion_leaves_gradients_flags_hooks_and_random_numbers_of_others():
    model, seen = nn.Sequential(small(), nn.BatchNorm2d(8), small(8).requires_grad_(False)), []
    model[0].register_forward_hook(lambda *given: seen.append(given))
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    model[1].eval()
    gradients = [copy.copy(parameter.grad) for parameter in model.parameters()]
    before = random.getstate(), np.random.get_state()[1].tolist(), len(seen)
    to_separable(model)
    assert (random.getstate(), np.random.get_state()[1].tolist(), len(seen)) == before
    assert [part.training for part in model] == [True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False] * 2
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert gradient is None is parameter.grad or torch.equal(gradient, parameter.grad)


def test_results_that_a_model_kept_can_be_copied():
    """Old-style weight_norm keeps its weight so, and many a model its attention."""
    model = nn.Sequential(small())
    model.kept = model(torch.zeros(1, 3, 8, 8))
    assert not model.kept.is_leaf
    assert replaced_in(to_separable(model)) == {"0"}


def test_lazy_modules_are_copied_and_stay_lazy():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), small(8), nn.LazyLinear(4))
    converted = to_separable(model)
    assert replaced_in(converted) == {"2"}
    for part in (*model[:2], model[3], *converted[:2], converted[3]):
        assert part.has_uninitialized_params()


def test_a_model_that_cannot_be_copied_is_refused():
    model = nn.Sequential(small())
    model.held = (number for number in range(3))
    with pytest.raises(DscalcError) as raised:
        copied(model)
    assert str(raised.value) == (
        "the model cannot be copied, and dscalc rewrites only a copy "
        "(cannot pickle 'generator' object)"
    )
