"""The networks that ship: the figures that papers, documentation and other tools print."""

import io
import json
import re
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from dscalc.inputs.network import read_network, shipped
from dscalc.pytorch import crosscheck

FACTS = json.loads((Path(__file__).parent / "data/published_networks.json").read_text("utf-8"))
NAMES = ["convnext_tiny", "mobilenet_v1", "mobilenet_v2", "resnet50", "xception"]
UNITS = {"": 1, "M": 10**6, "G": 10**9}
ROUNDING = {"rounded": ROUND_HALF_UP, "truncated": ROUND_DOWN, "exact": ROUND_HALF_UP}


def text_of(name):
    return (files("dscalc") / f"inputs/networks/{name}.csv").read_text("utf-8")


def layers_of(name, edit=str, **options):
    return read_network(io.BytesIO(edit(text_of(name)).encode()), name, **options)


def with_stride_in_first_1x1(text):
    """ResNet-50 as its paper has it: blocks that halve the map do so in conv1, not in conv2."""
    text, moved_from = re.subn(r"(?m)^(layer\d\.0\.conv2,conv,,\d+,3),2,", r"\1,,", text)
    text, moved_to = re.subn(r"(?m)^(layer[2-4]\.0\.conv1,conv,,\d+,1),,", r"\1,2,", text)
    assert moved_from == moved_to == 3
    return text


def normalised_channels(layer):
    """Channels of the convolutions of a layer, as a batch normalisation after each would have."""
    if layer.kind == "separable":
        return layer.comparison.depthwise.out_channels + layer.out_channels
    return layer.out_channels if layer.kind == "conv" else 0


def figures(fact):
    """Our MACs and parameters of a network, counted by the conventions of who printed it."""
    conventions = fact["conventions"]
    edit = with_stride_in_first_1x1 if conventions.get("stride_in_first_1x1") else str
    layers = layers_of(fact["network"], edit, **fact["arguments"])
    side = conventions.get("side", "separable")
    macs = {layer.name: getattr(layer.counts, f"{side}_macs") for layer in layers}
    params = {layer.name: getattr(layer.counts, f"{side}_params") for layer in layers}
    classifier = layers[-1]
    if classes := conventions.get("classes"):
        more = (classes - classifier.out_channels) * classifier.in_channels
        macs[classifier.name] += more
        params[classifier.name] += more
        params[classifier.name] += classes * conventions.get("fc_bias", False)
    for layer in layers:
        normalised = conventions.get("bn_params_per_channel", 0) * normalised_channels(layer)
        scaled = layer.out_channels * (layer.kind == "depthwise")
        params[layer.name] += normalised + scaled * conventions.get("layer_scale", False)
    left_out = {"macs": macs, "params": params}
    for quantity, counts in left_out.items():
        for name in conventions.get(f"{quantity}_without", ()):
            del counts[name]
    return {quantity: sum(counts.values()) for quantity, counts in left_out.items()}


def as_printed(count, printed, rounding):
    """A count in the unit and with the digits of a printed figure such as 4.24M."""
    digits, unit = re.fullmatch(r"([0-9.]+)([MG]?)", printed).groups()
    return f"{(Decimal(count) / UNITS[unit]).quantize(Decimal(digits), rounding)}{unit}"


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["id"])
def test_a_network_has_the_figures_that_are_printed(fact):
    """To the last printed digit, which some round and some truncate; and not where it is wrong."""
    ours = figures(fact)
    assert fact["match"].keys() == fact["printed"].keys()
    for quantity, printed in fact["printed"].items():
        match = fact["match"][quantity]
        if match == "no":
            assert as_printed(ours[quantity], printed, ROUND_HALF_UP) != printed
            assert as_printed(ours[quantity], printed, ROUND_DOWN) != printed
        else:
            assert as_printed(ours[quantity], printed, ROUNDING[match]) == printed, quantity


def test_there_are_facts_of_every_network():
    assert len(FACTS) == len({fact["id"] for fact in FACTS}) == 33
    assert {fact["network"] for fact in FACTS} == set(NAMES)
    right = [match for fact in FACTS for match in fact["match"].values() if match != "no"]
    assert len(right) == 54


@pytest.mark.parametrize(
    ("args", "fields", "values"),
    [
        ("mobilenet_v1", "standard_macs separable_macs", "4867293184\t568740352"),
        ("mobilenet_v1", "standard_params separable_params", "29281120\t4209088"),
        ("mobilenet_v1 --width-multiplier 0.5 --input-size 160", "separable_macs", "76524800"),
        ("mobilenet_v1 --resolution-multiplier 0.714", "separable_macs", "290675200"),
        ("mobilenet_v1 --resolution-multiplier 5/7", "separable_macs", "290675200"),
        ("mobilenet_v2", "separable_macs separable_params", "300774272\t3469760"),
        ("mobilenet_v2 --width-multiplier 1.4", "separable_macs", "582195824"),
        ("xception", "separable_params", "22855952"),
        ("convnext_tiny", "separable_macs", "4455531264"),
        ("resnet50", "standard_macs separable_macs", "4089184256\t4089184256"),
        ("resnet50", "standard_params separable_params", "25557032\t25557032"),
    ],
)
def test_totals_in_full(args, fields, values, run):
    wanted = [word for field in fields.split() for word in ("--get", field)]
    assert run("network", *args.split(), *wanted) == (0, f"{values}\n", "")


def test_without_its_classifier_the_full_convolution_is_the_4866_of_the_paper():
    """4,866,269,184 without it and 4,867,293,184 with it."""
    *body, classifier = layers_of("mobilenet_v1")
    assert classifier.kind == "linear"
    assert sum(layer.counts.standard_macs for layer in body) == 4_866_269_184
    assert classifier.counts.standard_macs == 1_024_000


def test_convnext_lacks_only_the_layer_scale_of_its_18_blocks():
    layers = layers_of("convnext_tiny")
    blocks = [layer for layer in layers if layer.kind == "depthwise"]
    assert len(blocks) == 18
    scales = sum(layer.out_channels for layer in blocks)
    assert scales == 6_624
    assert sum(layer.counts.separable_params for layer in layers) + scales == 28_589_128


@pytest.mark.parametrize(
    ("name", "kinds", "last_map"),
    [
        ("mobilenet_v1", {"conv": 1, "separable": 13, "pool": 1, "linear": 1}, (7, 7)),
        ("mobilenet_v2", {"conv": 35, "depthwise": 17, "pool": 1, "linear": 1}, (7, 7)),
        (
            "xception",
            {"conv": 6, "separable": 34, "pool": 5, "norm": 40, "linear": 1},
            (10, 10),
        ),
        (
            "convnext_tiny",
            {"conv": 40, "depthwise": 18, "norm": 23, "pool": 1, "linear": 1},
            (7, 7),
        ),
        ("resnet50", {"conv": 53, "norm": 53, "pool": 2, "linear": 1}, (7, 7)),
    ],
)
def test_a_network_has_the_layers_of_its_paper(name, kinds, last_map):
    layers = layers_of(name)
    found = [layer.kind for layer in layers]
    assert {kind: found.count(kind) for kind in found} == kinds
    [classifier] = [layer for layer in layers if layer.kind == "linear"]
    assert classifier is layers[-1]
    assert classifier.out_channels == 1000
    pooled = [layer for layer in layers if layer.output_size == (1, 1)]
    assert pooled[0].input_size == last_map


def test_list_names_every_network_with_its_source(run):
    result = run("network --list")
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    for line in lines:
        assert re.search(r" {2}\S.*: .+ et al\., 20\d\d, arXiv \d{4}\.\d{5}, \S+ \d+$", line) or (
            re.search(r" {2}\S.*: Chollet, 2017, arXiv 1610\.02357, Figure 5$", line)
        )


def test_a_table_is_titled_with_what_the_network_is(run):
    for name, title in shipped().items():
        table = run("network", name, "--no-verify", columns=300).stdout
        assert table.splitlines()[0] == title


@pytest.mark.parametrize(
    "options",
    [{}, {"width_multiplier": "0.35", "input_size": 97}, {"width_multiplier": "1.4"}],
    ids=["as printed", "smaller", "wider"],
)
@pytest.mark.parametrize("name", NAMES)
def test_fvcore_and_torch_count_exactly_this(name, options):
    for layer in dict.fromkeys(layers_of(name, **options)):
        assert crosscheck(layer) == layer.counts, layer.name


@pytest.mark.parametrize("name", NAMES)
def test_the_command_says_that_the_counts_are_exact(name, run):
    args = f"network {name} --verify --get crosscheck --get fvcore_separable_macs"
    result = run(f"{args} --get separable_macs")
    assert (result.code, result.stderr) == (0, "")
    verdict, counted, expected = result.stdout.split()
    assert verdict == "exact"
    assert counted == expected


def test_other_classes_and_channels_need_only_another_file(tmp_path, run):
    """The files are ordinary input: a copy answers as the original does."""
    path = tmp_path / "copy"
    path.write_text(text_of("mobilenet_v1").replace("1000", "10"), "utf-8")
    [count] = run("network", str(path), "--get", "separable_macs").stdout.split()
    assert int(count) == 568_740_352 - 990 * 1024
