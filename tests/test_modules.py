"""DepthwiseSeparableConv: in place of nn.Conv2d, and equal to its two steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import geometries, per_axis
from torch import nn
from torch.nn import functional

from dscalc import Conv, DscalcError
from dscalc.pytorch import DepthwiseSeparableConv
from dscalc.pytorch.modules import convolution

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
    """Sizes that torch's own convolutions accept: no stride with same, no wide reflection."""
    sizes = draw(
        geometries(paddings=["same"], most_stride=1) | geometries(paddings=["valid", "size"])
    )
    return sizes.pop("input_size"), sizes, draw(st.sampled_from(MODES))


def padding_fits(input_size, sizes, mode):
    """Whether torch can pad: a circle needs a map as large as the zeros, a reflection larger."""
    conv = Conv(1, 1, input_size=input_size, **sizes)
    room = {"zeros": 10**6, "replicate": 10**6, "circular": 0, "reflect": -1}[mode]
    return all(max(ends) <= size + room for ends, size in zip(conv.pads, input_size, strict=True))


@given(torch_geometries(), st.integers(1, 3))
def test_it_is_its_two_convolutions_one_after_the_other(geometry, depth_multiplier):
    input_size, sizes, mode = geometry
    if not padding_fits(input_size, sizes, mode):
        mode = "zeros"
    dims, options = len(input_size), {"dtype": torch.float64}
    module = with_whole_numbers(
        DepthwiseSeparableConv(
            3, 4, **sizes, padding_mode=mode, depth_multiplier=depth_multiplier, dims=dims
        )
    )
    filters = 3 * depth_multiplier
    depthwise = CONVOLUTIONS[dims](3, filters, **sizes, groups=3, padding_mode=mode, **options)
    pointwise = CONVOLUTIONS[dims](filters, 4, 1, **options)
    depthwise.load_state_dict(module.depthwise.state_dict())
    pointwise.load_state_dict(module.pointwise.state_dict())
    features = whole_numbers(2, 3, *input_size)
    assert torch.equal(module(features), pointwise(depthwise(features)))


@given(torch_geometries(), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_it_maps_shapes_as_the_convolution_it_replaces(geometry, ic, oc, bias):
    input_size, sizes, mode = geometry
    if not padding_fits(input_size, sizes, mode):
        mode = "zeros"
    dims = len(input_size)
    ours = DepthwiseSeparableConv(ic, oc, **sizes, bias=bias, padding_mode=mode, dims=dims)
    theirs = CONVOLUTIONS[dims](ic, oc, **sizes, bias=bias, padding_mode=mode)
    features = torch.zeros(2, ic, *input_size)
    assert ours(features).shape == theirs(features).shape
    assert ours(features[0]).shape == theirs(features[0]).shape


@given(geometries(paddings=["same"], most_stride=4))
def test_padding_same_takes_a_stride_too(sizes):
    """Where torch's own string padding refuses it; with the zeros written out it is the same."""
    input_size = sizes.pop("input_size")
    dims, conv = len(input_size), Conv(2, 2, input_size=input_size, **sizes)
    module = with_whole_numbers(DepthwiseSeparableConv(2, 3, **sizes, dims=dims))
    features = whole_numbers(1, 2, *input_size)
    zeros = [end for ends in reversed(conv.pads) for end in ends]
    depthwise = getattr(functional, f"conv{dims}d")(
        functional.pad(features, zeros),
        module.depthwise.weight,
        module.depthwise.bias,
        conv.stride,
        dilation=conv.dilation,
        groups=2,
    )
    output = module(features)
    assert torch.equal(output, module.pointwise(depthwise))
    assert output.shape[2:] == conv.output_size


@given(geometries(), st.booleans())
def test_a_conv_is_built_as_the_module_that_makes_its_output(sizes, bias):
    conv = Conv(4, 6, **sizes, groups=2, bias=bias)
    module = with_whole_numbers(convolution(conv))
    features = whole_numbers(1, 4, *conv.input_size)
    weight, *biases = module.parameters()
    expected = getattr(functional, f"conv{len(conv.kernel_size)}d")(
        functional.pad(features, [end for ends in reversed(conv.pads) for end in ends]),
        weight,
        *(biases or [None]),
        stride=per_axis(sizes["stride"], len(conv.kernel_size)),
        dilation=conv.dilation,
        groups=2,
    )
    assert torch.equal(module(features), expected)
    assert len(biases) == bias


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


def test_its_steps_are_named_convolutions():
    module = DepthwiseSeparableConv(3, 64, 3, depth_multiplier=2)
    assert isinstance(module.depthwise, nn.Conv2d)
    assert isinstance(module.pointwise, nn.Conv2d)
    assert (module.depthwise.groups, module.depthwise.out_channels) == (3, 6)
    assert module.pointwise.kernel_size == (1, 1)
    assert [name for name, _ in module.named_children()] == ["depthwise", "pointwise"]


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
def test_dims_choose_the_convolution(dims):
    module = DepthwiseSeparableConv(3, 8, 3, padding=1, dims=dims)
    assert type(module.depthwise) is type(module.pointwise) is CONVOLUTIONS[dims]
    assert module(torch.zeros(2, 3, *[9] * dims)).shape == (2, 8, *[9] * dims)


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


def test_a_grouped_convolution_is_refused():
    with pytest.raises(DscalcError) as raised:
        DepthwiseSeparableConv(4, 8, 3, groups=2)
    assert str(raised.value) == "groups must be 1 in a depthwise separable convolution, got 2"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size 3x3x3 has 3 axes, but the layer has 2"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": 1.5}, "padding must be a whole number, got 1.5"),
        ({"padding": "SAME"}, "padding must be same, valid or a size such as 1, got 'SAME'"),
        ({"dilation": (1,)}, "dilation 1 has 1 axes, but the layer has 2"),
        ({"dims": 4}, "torch convolves in 1, 2 or 3 dimensions, got 4"),
    ],
)
def test_an_argument_error_names_the_value_and_the_rule(wrong, message):
    with pytest.raises(DscalcError) as raised:
        DepthwiseSeparableConv(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **wrong})
    assert str(raised.value) == message
