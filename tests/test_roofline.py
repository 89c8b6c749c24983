"""The bytes that must move and the FLOPs for each: by hand, and of real tensors."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions

from dscalc import Conv
from dscalc.core.blocks import SEPARABLE, STANDARD
from dscalc.core.measurement import Environment, Measurement, Time
from dscalc.core.roofline import intensity, least_bytes
from dscalc.core.row import layer_row
from dscalc.pytorch.modules import block_module
from dscalc.record.fields import find

TEXTBOOK = layer_row(Conv(3, 64, 3, 224), SEPARABLE)
DEEP = layer_row(Conv(512, 512, 3, 14), SEPARABLE)


def value(name, row, command="compare"):
    return find(name, command, SEPARABLE).read(row)


def measured(row, as_is, rewritten, iqr=0.0, dtype="float32"):
    """The row, had it taken these microseconds."""
    steady = Time(10.0, 0.0)
    return row._replace(
        measured=Measurement(
            Time(as_is, iqr),
            Time(rewritten, 0.0),
            {"depthwise": steady, "pointwise": steady},
            Environment("cpu", "Some CPU", "2.13.0", 2, dtype, False, False),
        ),
    )


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
    half, whole = measured(DEEP, 1, 1, dtype=dtype), measured(DEEP, 1, 1)
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


def test_rates_and_speedup_come_from_the_given_times():
    row = measured(DEEP, as_is=2000.0, rewritten=500.0)
    assert row.measured.speedup == value("speedup", row, "bench") == 4.0
    assert row.measured.as_is.gflops_per_s(row.as_is.cost) == pytest.approx(462.422016)
    assert value("separable_gflops_per_s", row, "bench") == pytest.approx(2 * 52_283_392 / 5e5)


@pytest.mark.parametrize(("iqr", "noisy"), [(0.0, False), (10.0, False), (10.1, True)])
def test_a_spread_above_a_tenth_of_the_median_is_noise(iqr, noisy):
    assert value("noisy", measured(DEEP, 100.0, 10.0, iqr), "bench") is noisy
