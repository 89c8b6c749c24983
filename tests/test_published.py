"""Numbers that papers, documentation and other tools print, against ours."""

import json
from math import prod
from pathlib import Path

import pytest

from dscalc import Conv, compare

LAYERS = json.loads((Path(__file__).parent / "data/published_layers.json").read_text("utf-8"))


def answer(layer):
    """Our numbers for a published layer, under the names that its row uses."""
    arguments = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in layer["arguments"].items()
    }
    if layer["op"] == "conv":
        standard, counts = Conv(**arguments), {}
    else:
        comparison = compare(**arguments)
        standard, counts = comparison.standard, comparison.counts._asdict()
    additions = standard.batch_size * standard.out_channels * prod(standard.output_size)
    return {
        **counts,
        "standard_macs": standard.macs,
        "standard_params": standard.params,
        "standard_macs_plus_bias": standard.macs + additions,
        "output_size": list(standard.output_size),
    }


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer["id"])
def test_we_answer_what_is_published(layer):
    """Exactly where integers are printed in full, else to the last printed digit."""
    ours = answer(layer)
    rounded_to = layer.get("rounded_to", {})
    for name, printed in layer["expected"].items():
        unit = rounded_to.get(name)
        assert (ours[name] if unit is None else round(ours[name] / unit) * unit) == printed, name


def test_there_are_published_layers():
    assert len(LAYERS) == 56
    assert len({layer["id"] for layer in LAYERS}) == len(LAYERS)


# What was printed, what is right, and where the difference comes from.
WRONG = {
    "a textbook excerpt forgets the padding and the 3x3 taps": (
        9_462_528,
        Conv(3, 64, 3, 224, padding=1).macs,
        86_704_128,
    ),
    "an exercise sheet has the standard number of another example": (
        120_422_400,
        Conv(64, 128, 3, 56).macs,
        231_211_008,
    ),
    "an exercise sheet has the separable number of another example": (
        26_705_920,
        compare(64, 128, 3, 56).separable_macs,
        27_496_448,
    ),
    "copies of the Inception bottleneck slip a digit": (
        12_433_648,
        Conv(192, 16, 1, 28).macs + Conv(16, 32, 5, 28).macs,
        12_443_648,
    ),
    "madanswer.com drops a digit": (
        128_800,
        Conv(3, 256, 5, 12, padding="valid").macs,
        1_228_800,
    ),
    "a Keras cheat-sheet forgets the bias that DepthwiseConv2D has by default": (
        27,
        Conv(3, 3, 3, 32, groups=3, bias=True).params,
        30,
    ),
    "daimami.com prints the pointwise weights for all of them": (
        12,
        compare(3, 4, 3, 5).separable_params,
        39,
    ),
    "MobileNets, Table 1, prints stride 2 for a layer from 7x7 to 7x7": (
        Conv(1024, 1024, 3, 7, stride=2, groups=1024).output_size,
        Conv(1024, 1024, 3, 7, stride=1, groups=1024).output_size,
        (7, 7),
    ),
}


@pytest.mark.parametrize("slip", WRONG)
def test_we_do_not_repeat_a_published_slip(slip):
    printed, ours, right = WRONG[slip]
    assert ours == right
    assert ours != printed
