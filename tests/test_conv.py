"""One convolution: the formulas against counting, against torch, and at their limits."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from itertools import product
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions, geometries

from dscalc import Conv, Cost, DscalcError, conv_macs, conv_params, output_length


def positions(conv, axis):
    """Where along an axis the kernel can be laid on the padded map, one stride after another."""
    before, after = conv.pads[axis]
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
    length = before + conv.input_size[axis] + after
    return [start for start in range(0, length, conv.stride[axis]) if start + reach <= length]


def multiplications(conv):
    """Every multiplication of the convolution, as (sample, position, weight)."""
    places = product(*(positions(conv, axis) for axis in range(len(conv.kernel_size))))
    outputs = list(product(range(conv.batch_size), places, range(conv.out_channels)))
    inputs_of_a_group = conv.in_channels // conv.groups
    outputs_of_a_group = conv.out_channels // conv.groups
    for sample, place, output in outputs:
        first = output // outputs_of_a_group * inputs_of_a_group
        channels = range(first, first + inputs_of_a_group)
        for channel, tap in product(channels, product(*map(range, conv.kernel_size))):
            yield sample, place, (output, channel, tap)


@given(convolutions())
def test_the_cost_is_what_the_loops_multiply_use_write_and_read(arguments):
    conv = Conv(**arguments)
    done = list(multiplications(conv))
    weights = {weight for _, _, weight in done}
    outputs = {(sample, place, weight[0]) for sample, place, weight in done}
    inputs = np.empty((conv.batch_size, conv.in_channels, *conv.input_size))
    biases = conv.out_channels if conv.bias else 0
    assert conv.cost == Cost(len(done), len(weights) + biases, len(outputs), inputs.size)


@given(geometries())
def test_output_size_is_the_positions_of_the_kernel(sizes):
    conv = Conv(2, 2, **sizes)
    assert conv.output_size == tuple(len(positions(conv, axis)) for axis in range(len(conv.pads)))


@given(geometries(paddings=["same"], most_stride=5))
def test_padding_same_divides_the_size_by_the_stride_and_rounds_up(sizes):
    conv = Conv(2, 2, **sizes)
    pairs = zip(conv.input_size, conv.stride, strict=True)
    assert conv.output_size == tuple(ceil(length / stride) for length, stride in pairs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@given(geometries(paddings=["same", "valid"], most_stride=1))
def test_padding_words_mean_what_they_mean_in_torch(sizes):
    dims = len(sizes["input_size"])
    module = getattr(torch.nn, f"Conv{dims}d")(
        1, 1, sizes["kernel_size"], 1, sizes["padding"], sizes["dilation"], device="meta"
    )
    output = module(torch.empty(1, 1, *sizes["input_size"], device="meta"))
    assert Conv(1, 1, **sizes).output_size == output.shape[2:]


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "pads"),
    [
        (1, 1, (0, 0)),
        (2, 1, (0, 1)),
        (3, 1, (1, 1)),
        (4, 1, (1, 2)),
        (4, 2, (3, 3)),
        (2, 3, (1, 2)),
    ],
)
def test_padding_same_puts_an_odd_zero_at_the_far_end(kernel_size, dilation, pads):
    assert Conv(1, 1, kernel_size, 9, dilation=dilation).pads == (pads, pads)


def test_a_layer_is_two_dimensional_unless_a_size_tells():
    assert Conv(3, 64, 3, 224).kernel_size == (3, 3)
    assert Conv(3, 64, (3,), 224).input_size == (224,)
    assert Conv(3, 64, 3, 224, stride=(1, 1, 1)).input_size == (224, 224, 224)
    assert Conv(3, 64, 3, 224, padding=(0, 1, 0)).output_size == (222, 224, 222)


@pytest.mark.parametrize(
    ("conv", "cost"),
    [
        (Conv(3, 64, (3,), 8), Cost(4_608, 576, 512, 24)),
        (Conv(3, 64, 3, 224), Cost(86_704_128, 1_728, 3_211_264, 150_528)),
        (Conv(3, 64, (3, 3, 3), 8), Cost(2_654_208, 5_184, 32_768, 1_536)),
        (Conv(2, 5, (3, 1), (10, 7), (2, 3), (0, 1), (2, 1)), Cost(270, 30, 45, 140)),
        (Conv(7, 5, (), (), bias=True, batch_size=3), Cost(105, 40, 15, 21)),
        (
            Conv(10**30, 10**30, 10**30 + 1, 10**30, bias=True),
            Cost(
                10**120 * (10**30 + 1) ** 2,
                10**60 * (10**30 + 1) ** 2 + 10**30,
                *(10**90, 10**90),
            ),
        ),
    ],
    ids=["1-D", "2-D", "3-D", "rectangular", "fully connected", "of any size"],
)
def test_costs_by_hand(conv, cost):
    assert conv.cost == cost


def test_numpy_integers_become_ints_that_cannot_overflow():
    conv = Conv(*(np.int32(2**20) for _ in range(2)), np.int8(3), np.uint16(2**15))
    assert conv.cost.macs == 2**40 * 9 * 2**30
    assert type(conv.cost.macs) is int


def test_equal_layers_are_equal_and_hash_alike_however_they_are_written():
    assert Conv(3, 4, [3, 1], [8, 9], [1, 2], [0, 0], [1, 1]) == Conv(
        3, 4, (3, 1), (8, 9), (1, 2), (0, 0), (1, 1)
    )
    assert len({Conv(3, 64, 3, 224), Conv(3, 64, (3, 3), 224), Conv(3, 64, 5, 224)}) == 2


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_a_layer_can_be_copied_and_pickled_but_does_not_change(copied):
    layer = copied(Conv(3, 64, (3, 5), 14, stride=2, padding="valid", bias=True))
    assert layer == Conv(3, 64, (3, 5), 14, stride=2, padding="valid", bias=True)
    with pytest.raises(FrozenInstanceError):
        layer.in_channels = 4


def test_a_layer_with_other_arguments_is_checked_and_has_its_own_output():
    layer = replace(Conv(3, 64, 3, 224), stride=2)
    assert layer == Conv(3, 64, 3, 224, stride=2)
    assert layer.output_size == (112, 112)
    with pytest.raises(DscalcError, match=r"^stride must be at least 1, got 0$"):
        replace(layer, stride=0)


@pytest.mark.parametrize("yes", [1, np.True_])
def test_a_bias_is_there_or_not(yes):
    assert Conv(3, 64, 3, 224, bias=yes).bias is True


def test_what_is_no_bias_and_no_number_is_refused():
    with pytest.raises(DscalcError, match=r"^bias must be True or False, got 'false'$"):
        Conv(3, 64, 3, 224, bias="false")
    with pytest.raises(DscalcError, match=r"^in_channels must be a whole number, got True$"):
        Conv(True, 64, 3, 224)


lengths = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@given(lengths, lengths, lengths, lengths, st.sampled_from([np.int64, object]))
def test_conv_macs_broadcasts_over_arrays(ic, oc, kernel, output, dtype):
    """A grid at once is the same as one layer after another."""
    a, b, k, d = np.ix_(*(np.array(values, dtype) for values in (ic, oc, kernel, output)))
    macs = conv_macs(a, b, (k, k), (d, d + 1), batch_size=2)
    params = conv_params(a, b, (k, k), bias=True)
    assert macs.dtype == dtype
    for index, (i, o, f, size) in enumerate(product(ic, oc, kernel, output)):
        assert macs.flat[index] == conv_macs(i, o, (f, f), (size, size + 1), batch_size=2)
    for index, (i, o, f) in enumerate(product(ic, oc, kernel)):
        assert params.flat[index] == conv_params(i, o, (f, f), bias=True)


@given(lengths, st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.integers(1, 3))
def test_output_length_broadcasts_over_arrays(inputs, kernel, stride, padding, dilation):
    outputs = output_length(np.array(inputs), kernel, stride, padding, dilation)
    assert outputs.tolist() == [
        output_length(length, kernel, stride, padding, dilation) for length in inputs
    ]


def test_groups_and_bias_broadcast_over_arrays():
    groups, bias = np.array([[1], [2], [4]]), np.array([False, True])
    assert conv_macs(4, 8, (3,), (5,), groups).tolist() == [[480], [240], [120]]
    assert conv_params(4, 8, (3,), groups, bias).tolist() == [[96, 104], [48, 56], [24, 32]]


def test_object_arrays_stay_exact_past_int64():
    channels = np.array([10**15, 10**30], dtype=object)
    assert conv_macs(channels, channels, (3, 3), (7, 7)).tolist() == [441 * 10**30, 441 * 10**60]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"out_channels": -4}, "out_channels must be at least 1, got -4"),
        ({"in_channels": 3.0}, "in_channels must be a whole number, got 3.0"),
        ({"out_channels": "64"}, "out_channels must be a whole number, got '64'"),
        ({"in_channels": None}, "in_channels must be a whole number, got None"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 0)}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": 2.5}, "kernel_size must be a whole number, got 2.5"),
        ({"input_size": (0, 9)}, "input_size must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"dilation": 0}, "dilation must be at least 1, got 0"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": 0.5}, "padding must be a whole number, got 0.5"),
        ({"padding": "full"}, "padding must be same, valid or a size such as 1, got 'full'"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"kernel_size": (3, 3, 3), "input_size": (9, 9)},
            "input_size 9x9 has 2 axes, but the layer has 3",
        ),
        ({"groups": 4}, "groups must divide both channels, got groups 4 for 6 -> 8 channels"),
        (
            {"in_channels": 8, "out_channels": 6, "groups": 4},
            "groups must divide both channels, got groups 4 for 8 -> 6 channels",
        ),
        (
            {"kernel_size": (11, 3), "padding": "valid"},
            "the kernel spans 11x3, but the padded input is 9x9; "
            "use a smaller kernel or dilation, more padding or a larger map",
        ),
        (
            {"dilation": 6, "padding": (1, 1)},
            "the kernel spans 13x13, but the padded input is 11x11; "
            "use a smaller kernel or dilation, more padding or a larger map",
        ),
    ],
)
def test_an_argument_error_names_the_value_and_the_rule(wrong, message):
    right = {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "input_size": 9}
    with pytest.raises(DscalcError) as raised:
        Conv(**{**right, **wrong})
    assert str(raised.value) == message


@given(geometries(paddings=["valid", "size"]))
def test_a_kernel_one_longer_than_the_padded_map_does_not_fit(sizes):
    conv = Conv(1, 1, **sizes)
    padded = [length + sum(ends) for length, ends in zip(conv.input_size, conv.pads, strict=True)]
    assert Conv(
        1, 1, **{**sizes, "kernel_size": tuple(padded), "dilation": 1}
    ).output_size == tuple(1 for _ in padded)
    with pytest.raises(DscalcError, match="the kernel spans"):
        Conv(1, 1, **{**sizes, "kernel_size": (*padded[:-1], padded[-1] + 1), "dilation": 1})
