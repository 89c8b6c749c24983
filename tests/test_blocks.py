"""What stands in place of a standard convolution: its steps, its numbers, and why not."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rewrites

from dscalc import BLOCKS, Block, Conv, Cost, DscalcError
from dscalc.core.blocks import SEPARABLE, STANDARD, Norm, why_kept
from dscalc.core.cost import NOTHING, sum_costs
from dscalc.pytorch.crosscheck import count

DEEP = Conv(512, 512, 3, 14)


def cost_of(conv, block=SEPARABLE):
    return sum_costs(step.cost for step in block.steps(conv))


def ratio(conv, block=SEPARABLE):
    return Fraction(cost_of(conv, block).macs, conv.cost.macs)


def test_the_layer_of_the_mobilenets_paper():
    depthwise, pointwise = SEPARABLE.steps(DEEP)
    assert (depthwise.name, pointwise.name) == ("depthwise", "pointwise")
    assert DEEP.cost == Cost(462_422_016, 2_359_296, 100_352, 100_352)
    assert depthwise.cost == Cost(903_168, 4_608, 100_352, 100_352)
    assert pointwise.cost == Cost(51_380_224, 262_144, 100_352, 100_352)
    assert cost_of(DEEP) == Cost(52_283_392, 266_752, 200_704, 200_704)
    assert ratio(DEEP) == Fraction(cost_of(DEEP).params, DEEP.cost.params) == Fraction(521, 4608)


def test_the_standard_block_is_the_convolution_itself():
    [step] = STANDARD.steps(DEEP)
    assert (step.name, step.layer, step.cost) == ("standard", DEEP, DEEP.cost)
    assert STANDARD.step_names == ()
    assert STANDARD.closed_form(DEEP) is STANDARD.limit(DEEP) is None


@given(rewrites())
def test_the_steps_of_separable_are_convolutions_of_their_own(rewrite):
    """A depthwise step with all that moves the kernel, and a 1x1 on the map that it leaves."""
    conv, block = rewrite
    depthwise, pointwise = (step.layer for step in block.steps(conv))
    wide = conv.in_channels * block.numbers[0]
    assert depthwise == replace(
        conv,
        out_channels=wide,
        groups=conv.in_channels,
        bias=dict(block.biases).get("depthwise", conv.bias),
    )
    assert pointwise == Conv(
        wide,
        conv.out_channels,
        (1,) * len(conv.kernel_size),
        depthwise.output_size,
        bias=conv.bias,
        batch_size=conv.batch_size,
    )


WAYS = (
    *("standard", "separable", "separable:3", "blueprint", "grouped:2", "spatial", "bottleneck"),
    *("bottleneck:2:2", "inverted", "inverted:1", "fused", "fused:1", "convnext", "convnext:2"),
)


@settings(max_examples=max(150, settings().max_examples))
@given(name=st.sampled_from(WAYS), rewrite=rewrites())
def test_a_block_leaves_the_map_that_the_convolution_leaves(name, rewrite):
    conv, _ = rewrite
    # Channels that each of the numbers divides.
    conv = replace(
        conv, in_channels=4 * conv.in_channels, out_channels=4 * conv.out_channels, groups=1
    )
    block = Block.parse(name)._replace(dims=len(conv.kernel_size))
    steps = block.steps(conv)
    layers = [step.layer for step in steps]
    names = tuple(step.name for step in steps)
    assert names == (block.step_names or names) or name in ("inverted:1", "fused:1")
    counted = count(steps)
    assert counted[""].macs == sum(step.cost.macs for step in steps)
    assert {step.name: (step.cost.macs, step.cost.params) for step in steps} == {
        step: (cost.macs, cost.params) for step, cost in counted.items() if step
    }
    assert [step.cost for step in steps] == [layer.cost for layer in layers]
    assert (layers[0].in_channels, layers[0].input_size) == (conv.in_channels, conv.input_size)
    assert (layers[-1].out_channels, layers[-1].output_size) == (
        conv.out_channels,
        conv.output_size,
    )
    for before, after in pairwise(layers):
        assert (before.out_channels, before.output_size) == (after.in_channels, after.input_size)


# The ratio.


@given(rewrites())
def test_the_ratio_is_the_closed_form_whatever_moves_the_kernel(rewrite):
    """m * (1/OC + 1/F^2), for any stride, padding, dilation, batch and bias; times the groups."""
    conv, block = rewrite
    form = block.numbers[0] * (Fraction(1, conv.out_channels) + Fraction(1, prod(conv.kernel_size)))
    assert block.closed_form(conv)[2] == form
    assert ratio(replace(conv, groups=1), block) == form
    assert ratio(conv, block) == conv.groups * form


@given(rewrites())
def test_params_shrink_as_macs_do_without_bias(rewrite):
    conv, block = replace(rewrite[0], bias=False), rewrite[1]._replace(biases=())
    assert Fraction(cost_of(conv, block).params, conv.cost.params) == ratio(conv, block)


@pytest.mark.parametrize(("out_channels", "kernel_size"), [(1, 1), (1, 3), (1, 7), (64, 1)])
def test_separable_costs_more_where_oc_or_f_is_one(out_channels, kernel_size):
    assert ratio(Conv(8, out_channels, kernel_size, 14)) > 1


def test_the_ratio_tends_to_the_taps_once_oc_is_much_larger_than_them():
    """Larger than F^2, whatever D is: D cancels."""
    assert {ratio(Conv(8, 900, 3, size)) for size in (1, 14, 4096)} == {Fraction(101, 900)}
    many = Conv(8, 10**30, 3, 14)
    assert ratio(many) - SEPARABLE.limit(many)[1] == Fraction(1, 10**30)


@pytest.mark.parametrize(
    ("kernel_size", "block", "form", "limit"),
    [
        (3, "separable", ("1/OC + 1/F^2", "1/64 + 1/9"), "1/F^2"),
        (3, "separable:2", ("m * (1/OC + 1/F^2)", "2 * (1/64 + 1/9)"), "2/F^2"),
        ((3,), "separable", ("1/OC + 1/F", "1/64 + 1/3"), "1/F"),
        ((3, 3, 3), "separable", ("1/OC + 1/F^3", "1/64 + 1/27"), "1/F^3"),
        ((3, 5), "separable", ("1/OC + 1/(F1*F2)", "1/64 + 1/15"), "1/(F1*F2)"),
    ],
)
def test_the_closed_form_is_written_in_symbols_and_in_numbers(kernel_size, block, form, limit):
    conv, block = Conv(3, 64, kernel_size, 9), Block.parse(block)
    assert block.closed_form(conv) == (*form, ratio(conv, block))
    assert block.limit(conv) == (limit, Fraction(block.numbers[0], prod(conv.kernel_size)))


# Bias and normalisation.


@pytest.mark.parametrize(
    ("bias", "depthwise_bias", "params", "unusual"),
    [
        (False, None, 27 + 192, []),
        (True, None, 27 + 3 + 192 + 64, []),
        (True, False, 27 + 192 + 64, ["bias but on depthwise"]),
        (False, True, 27 + 3 + 192, ["bias on depthwise"]),
        (True, True, 27 + 3 + 192 + 64, []),
        (False, False, 27 + 192, []),
    ],
)
def test_the_depthwise_step_may_have_another_bias(bias, depthwise_bias, params, unusual):
    biases = () if depthwise_bias is None else (("depthwise", depthwise_bias),)
    conv, block = Conv(3, 64, 3, 224, bias=bias), Block("separable", (1,), biases)
    assert cost_of(conv, block).params == params
    assert block.unusual(conv) == unusual
    assert STANDARD.steps(conv)[0].layer.bias is bias


def test_a_normalisation_is_two_params_a_channel_and_nothing_else():
    assert Norm(8).cost == Cost(0, 16, 0, 0)


# As it is written.


@pytest.mark.parametrize(
    ("text", "block", "written"),
    [
        ("standard", STANDARD, "standard"),
        ("separable", SEPARABLE, "separable"),
        ("separable:1", SEPARABLE, "separable"),
        (" separable:2 ", Block("separable", (2,)), "separable:2"),
    ],
)
def test_a_block_is_read_and_written_by_its_name_and_numbers(text, block, written):
    assert Block.parse(text) == block
    assert str(block) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seprable", "block: unknown block 'seprable'; did you mean separable?"),
        ("", "block: unknown block ''; choose from " + ", ".join(BLOCKS)),
        ("separable:2:3", "block: write the block as separable:M, got 'separable:2:3'"),
        ("standard:2", "block: write the block as standard, got 'standard:2'"),
        ("separable:0", "separable depth multiplier must be at least 1, got 0"),
        (
            "separable:1.5",
            "separable depth multiplier must be a whole number such as 1, got '1.5'",
        ),
        ("separable:", "separable depth multiplier must be a whole number such as 1, got ''"),
    ],
)
def test_what_is_no_block_is_refused_with_a_hint(text, message):
    with pytest.raises(DscalcError) as raised:
        Block.parse(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--as standard", "--as standard is what the layer is compared with; name another block"),
        ("--as seprable", "--as: unknown block 'seprable'; did you mean separable?"),
        (
            "--as separable:2 -m 3",
            "--depth-multiplier is short for --as separable:3; drop one of them",
        ),
        ("-m 0", "--depth-multiplier must be at least 1, got 0"),
        ("--groups 0", "--groups must be at least 1, got 0"),
        ("--groups 2", "groups must divide both channels, got groups 2 for 3 -> 64 channels"),
    ],
)
def test_a_block_that_compare_cannot_set_beside_the_layer_is_refused(options, message, run):
    result = run(f"3 64 3 224 {options}")
    assert (result.code, result.stdout, result.error) == (2, "", message)


def test_the_command_rewrites_the_layer_as_the_block(run):
    shown = "--get standard_macs --get separable_macs --get mac_ratio_exact --get crosscheck"
    for option in ("--as separable:2", "-m 2"):
        result = run(f"4 64 3x5x5 9 --groups 2 {option} {shown}")
        macs = 64 * 2 * 75 * 9**3, 8 * (75 + 64) * 9**3
        assert result == (0, "\t".join(map(str, [*macs, "139/1200", "exact"])) + "\n", "")


def test_an_unusual_number_is_told():
    assert Block.parse("separable:2").unusual(DEEP) == ["depth multiplier 2"]


# Why a convolution stays as it is.


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (Conv(4, 8, 3, 9), ""),
        (Conv(4, 8, (1, 3), 9), ""),
        (Conv(4, 8, (3, 3, 3), 9), ""),
        (Conv(4, 8, 1, 9), "pointwise"),
        (Conv(4, 8, (), ()), "pointwise"),
        (Conv(4, 4, 3, 9, groups=4), "depthwise"),
        (Conv(4, 8, 3, 9, groups=4), "depthwise"),
        (Conv(4, 8, 3, 9, groups=2), "grouped"),
        (Conv(4, 1, 3, 9), "no saving"),
        (Conv(4, 2, (1, 2), 9), "no saving"),
    ],
)
def test_a_convolution_that_is_not_rewritten_says_why(conv, reason):
    assert why_kept(conv, SEPARABLE) == reason
    if not reason:
        assert cost_of(conv).macs < conv.cost.macs


def test_costs_add_up():
    assert Cost(1, 2, 3, 4) + Cost(10, 20, 30, 40) == Cost(11, 22, 33, 44)
    assert sum_costs([]) == NOTHING == Cost(0, 0, 0, 0)
