"""Numbers that papers, documentation and other tools print of layers, against ours."""

import pytest
from published import agreement, figures, read
from vocabulary import fields, values

from dscalc import Block, Conv
from dscalc.core.blocks import SEPARABLE
from dscalc.core.row import layer_row

LAYERS = figures("layers")


def layer(arguments):
    """A published layer, and the block that it is compared with."""
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in arguments.items()
    }
    multiplier = options.pop("depth_multiplier", 1)
    biases = {"depthwise": options.pop("depthwise_bias")} if "depthwise_bias" in options else {}
    return Conv(**options), Block("separable", (multiplier,), tuple(biases.items()))


def answer(arguments):
    """Our numbers for a published layer, by the names of the fields."""
    row = layer_row(*layer(arguments))
    found = values(row, fields("compare", SEPARABLE))
    additions = row.as_is.cost.activations
    return found | {"standard_macs_plus_bias": found["standard_macs"] + additions}


@pytest.mark.parametrize("published", LAYERS, ids=lambda published: published["id"])
def test_we_answer_what_is_published(published):
    """Exactly where integers are printed in full, else to the last printed digit."""
    ours = answer(published["arguments"])
    for name, printed in published["printed"].items():
        if isinstance(printed, str):
            assert agreement(printed, ours[name]) == "rounded", name
        else:
            assert ours[name] == (tuple(printed) if isinstance(printed, list) else printed), name


def test_there_are_published_layers():
    assert len({published["id"] for published in LAYERS}) == len(LAYERS) == 56
    assert sum(len(published["printed"]) for published in LAYERS) == 125


@pytest.mark.parametrize(
    ("printed", "ours", "agrees"),
    [
        ("22,855,952", 22_855_952, "exact"),
        ("22855952", 22_855_953, "no"),
        ("569 M", 568_740_352, "rounded"),
        ("569M", 568_500_000, "rounded"),
        ("569M", 569_500_000, "truncated"),
        ("290M", 290_675_200, "truncated"),
        ("291M", 290_675_200, "rounded"),
        ("0.27M", 266_752, "rounded"),
        ("3.8G", 3_857_973_248, "truncated"),
        ("4866 M", 4_867_293_184, "no"),
        ("4.24M", 10**30 + 4_240_000, "no"),
    ],
)
def test_a_printed_number_is_ours_exactly_rounded_truncated_or_not(printed, ours, agrees):
    assert agreement(printed, ours) == agrees


def test_the_digits_of_a_printed_number_have_a_worth():
    assert [read(printed) for printed in ("4.24M", "3.8 G", "4,866")] == [
        *((424, 10_000), (38, 100_000_000), (4866, 1)),
    ]
