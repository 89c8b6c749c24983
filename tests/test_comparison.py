"""A standard convolution beside its depthwise separable replacement."""

from fractions import Fraction
from math import floor, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import comparisons

from dscalc import Comparison, Conv, DscalcError, compare, scaled_channels, scaled_size


def test_the_layer_of_the_mobilenets_paper():
    c = compare(512, 512, 3, 14)
    assert c.standard.macs == 462_422_016
    assert c.depthwise.macs == 903_168
    assert c.pointwise.macs == 51_380_224
    assert c.separable_macs == 52_283_392
    assert c.separable_params == 266_752
    assert c.ratio == c.param_ratio == Fraction(521, 4608)


@given(comparisons())
def test_separable_is_depthwise_and_pointwise(arguments):
    c = compare(**arguments)
    assert c.separable_macs == c.depthwise.macs + c.pointwise.macs
    assert c.separable_params == c.depthwise.params + c.pointwise.params


@given(comparisons())
def test_the_parts_are_convolutions_of_their_own(arguments):
    """A depthwise step with all that moves the kernel, and a 1x1 on the map that it leaves."""
    c = compare(**arguments)
    channels, m = arguments["in_channels"], arguments["depth_multiplier"]
    sizes = {name: arguments[name] for name in ("kernel_size", "stride", "padding", "dilation")}
    batch_size, bias = arguments["batch_size"], arguments["bias"]
    depthwise_bias = bias if arguments["depthwise_bias"] is None else arguments["depthwise_bias"]
    assert c.depthwise == Conv(
        channels,
        channels * m,
        input_size=arguments["input_size"],
        groups=channels,
        bias=depthwise_bias,
        batch_size=batch_size,
        **sizes,
    )
    assert c.pointwise == Conv(
        channels * m,
        arguments["out_channels"],
        (1,) * len(arguments["input_size"]),
        c.depthwise.output_size,
        bias=bias,
        batch_size=batch_size,
    )


@given(comparisons())
def test_all_outputs_have_the_same_size(arguments):
    c = compare(**arguments)
    assert c.standard.output_size == c.depthwise.output_size == c.pointwise.output_size
    assert c.standard.out_channels == c.pointwise.out_channels


@given(comparisons())
def test_ratio_is_the_closed_form_whatever_moves_the_kernel(arguments):
    """m * (1/OC + 1/F^2), for any stride, padding, dilation, batch and bias, without groups."""
    c = compare(**{**arguments, "groups": 1})
    m, taps = arguments["depth_multiplier"], prod(c.standard.kernel_size)
    assert c.ratio == m * (Fraction(1, arguments["out_channels"]) + Fraction(1, taps))


@given(comparisons())
def test_params_shrink_as_macs_do_without_bias(arguments):
    c = compare(**{**arguments, "bias": False, "depthwise_bias": None})
    assert c.param_ratio == c.ratio


@given(comparisons())
def test_with_groups_the_standard_convolution_is_that_much_cheaper(arguments):
    groups = arguments["groups"]
    grouped, plain = compare(**arguments), compare(**{**arguments, "groups": 1})
    assert grouped.standard.macs * groups == plain.standard.macs
    assert grouped.separable_macs == plain.separable_macs
    assert grouped.ratio == groups * plain.ratio


@given(comparisons())
def test_counts_are_those_of_the_parts(arguments):
    c = compare(**arguments)
    assert c.counts == (
        c.standard.macs,
        c.standard.params,
        c.depthwise.macs,
        c.depthwise.params,
        c.pointwise.macs,
        c.pointwise.params,
        c.separable_macs,
        c.separable_params,
    )


@pytest.mark.parametrize(("out_channels", "kernel_size"), [(1, 1), (1, 3), (1, 7), (64, 1)])
def test_separable_costs_more_where_oc_or_f_is_one(out_channels, kernel_size):
    assert compare(8, out_channels, kernel_size, 14).ratio > 1


def test_ratio_tends_to_the_taps_once_oc_is_much_larger_than_them():
    """Larger than F^2, whatever D is: D cancels."""
    assert {compare(8, 900, 3, size).ratio for size in (1, 14, 4096)} == {Fraction(101, 900)}
    assert compare(8, 10**30, 3, 14).ratio - Fraction(1, 9) == Fraction(1, 10**30)


@pytest.mark.parametrize(
    ("bias", "depthwise_bias", "params"),
    [
        (False, None, 27 + 192),
        (True, None, 27 + 3 + 192 + 64),
        (True, False, 27 + 192 + 64),
        (False, True, 27 + 3 + 192),
        (True, True, 27 + 3 + 192 + 64),
        (False, False, 27 + 192),
    ],
)
def test_depthwise_bias_overrides_bias_on_the_depthwise_step(bias, depthwise_bias, params):
    c = compare(3, 64, 3, 224, bias=bias, depthwise_bias=depthwise_bias)
    assert c.separable_params == params
    assert c.standard.bias is bias


def test_with_bias_the_ratio_of_params_is_not_the_ratio_of_macs():
    c = compare(3, 64, 3, 224, bias=True)
    assert c.ratio == Fraction(73, 576)
    assert c.param_ratio == Fraction(286, 1792)


def test_with_neither_step_the_convolution_stays_as_it_is():
    kept = Comparison(Conv(8, 8, 3, 14))
    macs, params = kept.standard.macs, kept.standard.params
    assert kept.counts == (macs, params, None, None, None, None, macs, params)
    assert kept.ratio == kept.param_ratio == 1


def test_a_replacement_may_lack_a_step():
    standard, depthwise = Conv(8, 8, 3, 14), Conv(8, 8, 3, 14, groups=8)
    alone = Comparison(standard, depthwise)
    assert (alone.separable_macs, alone.separable_params) == (depthwise.macs, depthwise.params)
    assert (alone.counts.pointwise_macs, alone.counts.pointwise_params) == (None, None)
    assert alone.ratio == Fraction(1, 8)
    pointwise = Conv(8, 8, 1, 14)
    assert Comparison(standard, pointwise=pointwise).separable_macs == pointwise.macs


@pytest.mark.parametrize(
    ("channels", "alpha", "scaled"),
    [
        (32, 1, 32),
        (32, 0.75, 24),
        (10, 0.1, 1),  # 0.1 is a little more than 1/10 as a float
        (100, 0.29, 29),  # 0.29 * 100 is 28.999999999999996 in floats
        (100, "0.29", 29),
        (100, Fraction(29, 100), 29),
        (9, "1/3", 3),
        (7, 0.5, 3),
        (3, 0.25, 1),
        (1, "1e-9", 1),
        (3, 2, 6),
        (10**30, "0.1", 10**29),
    ],
)
def test_channels_are_scaled_exactly_and_rounded_down_to_one_at_least(channels, alpha, scaled):
    assert scaled_channels(channels, alpha) == scaled


@given(st.integers(1, 10**40), st.fractions(min_value="1/1000", max_value=10))
def test_scaled_channels_is_the_floor_at_any_size(channels, alpha):
    assert scaled_channels(channels, alpha) == max(1, floor(alpha * channels))


@pytest.mark.parametrize(
    ("size", "rho", "scaled"),
    [
        (14, 0.714, 10),  # 9.996
        (224, "0.714", 160),  # 159.936
        (224, Fraction(6, 7), 192),
        (14, 0.5, 7),
        (1, 0.25, 1),
        ((224, 160), 0.5, (112, 80)),
        ([224, 160], 0.5, (112, 80)),
        ((), 0.5, ()),
    ],
)
def test_sizes_are_scaled_to_the_nearest(size, rho, scaled):
    assert scaled_size(size, rho) == scaled


def test_multipliers_of_compare_scale_channels_and_sizes():
    assert compare(32, 64, 3, 224, width_multiplier=0.75, resolution_multiplier="0.714") == (
        compare(24, 48, 3, 160)
    )


@pytest.mark.parametrize("value", [0, -0.5, "-1/2"])
@pytest.mark.parametrize("name", ["width_multiplier", "resolution_multiplier"])
def test_a_multiplier_must_be_positive(name, value):
    with pytest.raises(DscalcError, match=f"{name} must be greater than 0, got {value}"):
        compare(3, 64, 3, 224, **{name: value})


@pytest.mark.parametrize("value", ["half", "", "1/0", float("nan"), float("inf"), None])
@pytest.mark.parametrize("name", ["width_multiplier", "resolution_multiplier"])
def test_a_multiplier_must_be_a_number(name, value):
    with pytest.raises(DscalcError, match=f"{name} must be a number such as 0.75 or 3/4, got "):
        compare(3, 64, 3, 224, **{name: value})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth_multiplier": 0}, "depth_multiplier must be at least 1, got 0"),
        ({"depth_multiplier": 1.5}, "depth_multiplier must be a whole number, got 1.5"),
        ({"stride": -1}, "stride must be at least 1, got -1"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"in_channels": 0, "width_multiplier": 0.5}, "channels must be at least 1, got 0"),
    ],
)
def test_an_argument_error_names_the_value_and_the_rule(wrong, message):
    right = {"in_channels": 3, "out_channels": 64, "kernel_size": 3, "input_size": 224}
    with pytest.raises(DscalcError) as raised:
        compare(**{**right, **wrong})
    assert str(raised.value) == message


@pytest.mark.parametrize("size", [0, -5, 14.5, (14, 0)])
def test_a_size_is_checked_before_it_is_scaled(size):
    with pytest.raises(DscalcError, match="input_size must be"):
        compare(3, 64, 1, size, resolution_multiplier="0.5")
