"""DepthwiseSeparableConv: in place of nn.Conv2d, and equal to its two steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions, geometries, rewrites
from torch import nn
from torch.nn import functional

from dscalc import Conv, DscalcError
from dscalc.core.blocks import SEPARABLE, STANDARD, Norm, Step
from dscalc.pytorch import DepthwiseSeparableConv
from dscalc.pytorch.modules import block_module

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MODES = ["zeros", "reflect", "replicate", "circular"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning"
)


def whole_numbers(*shape):
    """Random whole numbers, so that sums are exact in any order."""
    return torch.randint(-9, 10, shape, dtype=torch.float64)


def with_whole_numbers(module):
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(whole_numbers(*parameter.shape))
    return module


@st.composite
def torch_geometries(draw):
    """What torch's own convolutions accept: no stride with same, no map too small for a mode.

    A circle needs a map as large as the padding, a reflection a larger one.
    """
    sizes = draw(
        geometries(paddings=["same"], most_stride=1) | geometries(paddings=["valid", "size"])
    )
    pads, input_size = Conv(1, 1, **sizes).pads, sizes.pop("input_size")
    room = min(size - max(ends) for ends, size in zip(pads, input_size, strict=True))
    needed = {"zeros": room, "reflect": 1, "replicate": room, "circular": 0}
    mode = draw(st.sampled_from([mode for mode in MODES if room >= needed[mode]]))
    return input_size, {**sizes, "padding_mode": mode}


def convolved(conv, features, weight, bias):
    """What a convolution gives by torch's function, with the zeros written out."""
    zeros = [end for ends in reversed(conv.pads) for end in ends]
    return getattr(functional, f"conv{len(conv.kernel_size)}d")(
        functional.pad(features, zeros),
        weight,
        bias,
        conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
    )


@given(torch_geometries(), st.integers(1, 3))
def test_it_is_its_two_convolutions_one_after_the_other(geometry, depth_multiplier):
    input_size, options = geometry
    dims, filters = len(input_size), 3 * depth_multiplier
    module = with_whole_numbers(
        DepthwiseSeparableConv(3, 4, **options, depth_multiplier=depth_multiplier, dims=dims)
    )
    depthwise = CONVOLUTIONS[dims](3, filters, **options, groups=3, dtype=torch.float64)
    pointwise = CONVOLUTIONS[dims](filters, 4, 1, dtype=torch.float64)
    depthwise.load_state_dict(module.depthwise.state_dict())
    pointwise.load_state_dict(module.pointwise.state_dict())
    features = whole_numbers(2, 3, *input_size)
    assert torch.equal(module(features), pointwise(depthwise(features)))


@given(torch_geometries(), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_it_maps_shapes_as_the_convolution_it_replaces(geometry, ic, oc, bias):
    input_size, options = geometry
    dims = len(input_size)
    ours = DepthwiseSeparableConv(ic, oc, **options, bias=bias, dims=dims)
    theirs = CONVOLUTIONS[dims](ic, oc, **options, bias=bias)
    features = torch.zeros(2, ic, *input_size)
    assert ours(features).shape == theirs(features).shape
    assert ours(features[0]).shape == theirs(features[0]).shape


@given(rewrites(paddings=["same"], most_stride=4))
def test_padding_same_takes_a_stride_too(rewrite):
    """Where torch's own string padding refuses it; with the zeros written out it is the same."""
    conv, block = rewrite
    depthwise, pointwise = (step.layer for step in block.steps(conv))
    module = with_whole_numbers(
        DepthwiseSeparableConv(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            "same",
            conv.dilation,
            bias=conv.bias,
            depth_multiplier=block.numbers[0],
            depthwise_bias=depthwise.bias,
            dims=len(conv.kernel_size),
        )
    )
    features = whole_numbers(1, conv.in_channels, *conv.input_size)
    between = convolved(depthwise, features, module.depthwise.weight, module.depthwise.bias)
    expected = convolved(pointwise, between, module.pointwise.weight, module.pointwise.bias)
    assert torch.equal(module(features), expected)
    assert expected.shape[2:] == conv.output_size


# The module of any steps.


@given(convolutions())
def test_a_convolution_is_built_as_the_module_that_makes_its_output(arguments):
    conv = Conv(**arguments)
    module = with_whole_numbers(block_module(STANDARD.steps(conv)))
    features = whole_numbers(1, conv.in_channels, *conv.input_size)
    weight, bias = module.standard.weight, module.standard.bias
    assert torch.equal(module(features), convolved(conv, features, weight, bias))
    assert (bias is not None) is conv.bias


@given(torch_geometries())
def test_the_module_of_separable_steps_does_what_the_public_one_does(geometry):
    """With the same weights under the same names; the 1x1 step pads nothing, and says zeros."""
    input_size, options = geometry
    public = with_whole_numbers(
        DepthwiseSeparableConv(3, 4, **options, dims=len(input_size), dtype=torch.float64)
    )
    mode = options.pop("padding_mode")
    steps = SEPARABLE.steps(Conv(3, 4, input_size=input_size, **options, bias=True))
    built = block_module(steps, dtype=torch.float64, padding_mode=mode)
    built.load_state_dict(public.state_dict())
    features = whole_numbers(2, 3, *input_size)
    assert torch.equal(built(features), public(features))
    assert built.pointwise.padding_mode == "zeros"


def test_other_steps_are_linear_layers_and_normalisations():
    layers = {"linear": Conv(7, 5, (), (), bias=True), "norm": Norm(5)}
    steps = [Step(name, layer, layer.cost) for name, layer in layers.items()]
    module = block_module(steps, "meta", torch.float16)
    assert [name for name, _ in module.named_children()] == ["linear", "norm"]
    assert isinstance(module.linear, nn.Linear)
    assert sum(p.numel() for p in module.norm.parameters()) == layers["norm"].cost.params == 10
    assert module(torch.zeros(2, 7, dtype=torch.float16, device="meta")).shape == (2, 5)


def test_explicit_padding_is_shown():
    conv = Conv(3, 4, 4, 9)
    assert "explicit_padding={depthwise: (1, 2, 1, 2)}" in repr(block_module(SEPARABLE.steps(conv)))


# The public module.


@pytest.mark.parametrize(
    "arguments",
    [
        (3, 64, 3),
        (3, 64, 3, 2),
        (3, 64, 3, 2, 1),
        (3, 64, 3, 1, 2, 2),
        (3, 64, (3, 5), (2, 1), (1, 2), (1, 1), 1),
        (3, 64, 3, 1, "same", 1, 1, False),
        (3, 64, 3, 1, "valid", 1, 1, False, "circular"),
        (3, 64, 4, 1, "same", 1, 1, True, "reflect", None, torch.float64),
    ],
)
def test_it_takes_the_arguments_of_conv2d_by_position(arguments):
    ours, theirs = DepthwiseSeparableConv(*arguments), nn.Conv2d(*arguments)
    features = torch.zeros(1, 3, 19, 21, dtype=theirs.weight.dtype)
    assert ours(features).shape == theirs(features).shape
    assert ours(features).dtype == theirs(features).dtype


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["depthwise.weight", "depthwise.bias", "pointwise.weight", "pointwise.bias"]),
        ({"bias": False}, ["depthwise.weight", "pointwise.weight"]),
        ({"depthwise_bias": False}, ["depthwise.weight", "pointwise.weight", "pointwise.bias"]),
        (
            {"bias": False, "depthwise_bias": True},
            ["depthwise.weight", "depthwise.bias", "pointwise.weight"],
        ),
    ],
)
def test_its_state_is_the_weights_and_biases_of_its_steps(options, names):
    assert list(DepthwiseSeparableConv(3, 64, 3, padding="same", **options).state_dict()) == names


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_its_steps_are_convolutions_by_name_of_so_many_dimensions(dims):
    module = DepthwiseSeparableConv(3, 8, 3, depth_multiplier=2, dims=dims)
    assert [name for name, _ in module.named_children()] == ["depthwise", "pointwise"]
    assert type(module.depthwise) is type(module.pointwise) is CONVOLUTIONS[dims]
    assert (module.depthwise.groups, module.depthwise.out_channels) == (3, 6)
    assert module.pointwise.kernel_size == (1,) * dims


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_every_parameter_learns(kernel_size):
    torch.manual_seed(0)
    module = DepthwiseSeparableConv(3, 4, kernel_size, stride=2, padding="same")
    features, wanted = torch.randn(8, 3, 9, 9), torch.randn(8, 4, 5, 5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = functional.mse_loss(module(features), wanted)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
        optimizer.step()
    assert losses == sorted(losses, reverse=True)


def test_it_moves_with_its_device_and_dtype():
    module = DepthwiseSeparableConv(3, 4, 2, padding="same", device="meta", dtype=torch.float16)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float16)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size 3x3x3 has 3 axes, but the layer has 2"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": 1.5}, "padding must be a whole number, got 1.5"),
        ({"padding": "SAME"}, "padding must be same, valid or a size such as 1, got 'SAME'"),
        ({"dilation": (1,)}, "dilation 1 has 1 axes, but the layer has 2"),
        ({"groups": 2}, "groups must be 1 in a depthwise separable convolution, got 2"),
        ({"dims": 4}, "torch convolves in 1, 2 or 3 dimensions, got 4"),
    ],
)
def test_an_argument_error_names_the_value_and_the_rule(wrong, message):
    with pytest.raises(DscalcError) as raised:
        DepthwiseSeparableConv(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **wrong})
    assert str(raised.value) == message
