"""The bytes that must move and the FLOPs for each: by hand, and of real tensors."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions
from times import HERE, took
from vocabulary import find

from dscalc import Conv
from dscalc.bench.measurement import Limits
from dscalc.core.blocks import SEPARABLE, STANDARD
from dscalc.core.roofline import intensity, least_bytes
from dscalc.core.row import layer_row
from dscalc.pytorch.modules import block_module

TEXTBOOK = layer_row(Conv(3, 64, 3, 224), SEPARABLE)
DEEP = layer_row(Conv(512, 512, 3, 14), SEPARABLE)


def value(name, row, command="compare"):
    return find(name, command, SEPARABLE).read(row)


def test_the_bytes_of_the_textbook_layer_by_hand():
    depthwise, pointwise = (step.cost for step in TEXTBOOK.rewritten.steps)
    assert value("standard_bytes", TEXTBOOK) == 13_454_080
    assert least_bytes(TEXTBOOK.as_is.cost) == (3 * 224**2 + 3 * 64 * 9 + 64 * 224**2) * 4
    assert least_bytes(depthwise) == (3 * 224**2 + 3 * 9 + 3 * 224**2) * 4 == 1_204_332
    assert least_bytes(pointwise) == (3 * 224**2 + 3 * 64 + 64 * 224**2) * 4 == 13_447_936
    assert value("separable_bytes", TEXTBOOK) == 1_204_332 + 13_447_936


def test_the_intensity_of_the_textbook_layer_by_hand():
    standard = Fraction(2 * 86_704_128, 13_454_080)
    separable = Fraction(2 * (1_354_752 + 9_633_792), 14_652_268)
    assert intensity(TEXTBOOK.as_is.cost) == value("standard_intensity", TEXTBOOK) == standard
    assert value("separable_intensity", TEXTBOOK) == separable


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_halves_the_bytes_and_doubles_the_intensity(dtype):
    half, whole = took(DEEP, 1, 1, here=HERE._replace(dtype=dtype)), took(DEEP, 1, 1)
    assert 2 * value("separable_bytes", half, "bench") == value("separable_bytes", DEEP)
    assert value("separable_bytes", whole, "bench") == value("separable_bytes", DEEP)
    assert value("separable_intensity", half, "bench") == 2 * value("separable_intensity", DEEP)


@given(convolutions(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_bytes_are_those_of_real_tensors(arguments, dtype):
    """Of the module's input, parameters and output, without the zeros of an explicit padding."""
    conv = Conv(**arguments)
    module = block_module(STANDARD.steps(conv), "meta", dtype)
    features = torch.empty(
        conv.batch_size, conv.in_channels, *conv.input_size, dtype=dtype, device="meta"
    )
    moved = [features, *module.parameters(), module(features)]
    expected = sum(tensor.numel() * tensor.element_size() for tensor in moved)
    assert least_bytes(conv.cost, dtype.itemsize) == expected
    assert intensity(conv.cost, dtype.itemsize) == Fraction(2 * conv.cost.macs, expected)


def test_rates_come_from_the_given_times():
    row = took(DEEP, 2000.0, 500.0)
    assert value("standard_gflops_per_s", row, "bench") == pytest.approx(462.422016)
    assert value("separable_gflops_per_s", row, "bench") == pytest.approx(2 * 52_283_392 / 5e5)


def test_the_slower_of_arithmetic_and_memory_limits():
    limits = Limits(peak_gflops_per_s=100.0, bandwidth_gb_per_s=10.0)
    assert limits.least_us(flops=10**9, moved=10**6) == 10_000.0
    assert limits.least_us(flops=10**6, moved=10**9) == 100_000.0
    assert [limits.is_memory(10**9, 10**6), limits.is_memory(10**6, 10**9)] == [False, True]
