"""The networks that ship: the figures that papers, documentation and other tools print."""

import io
import json
import re
from collections import Counter
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib.resources import files
from pathlib import Path

import pytest
from published import with_stride_in_first_1x1

import dscalc
from dscalc import Block, Conv, DscalcError
from dscalc.core.blocks import STANDARD
from dscalc.inputs.network_file import read_network, shipped
from dscalc.pytorch import crosscheck

FACTS = json.loads((Path(__file__).parent / "data/published_networks.json").read_text("utf-8"))
PUBLISHED = ["convnext_tiny", "mobilenet_v1", "mobilenet_v2", "resnet50", "xception"]
NAMES = sorted([*PUBLISHED, "alexnet", "unet", "vgg16"])
UNITS = {"": 1, "M": 10**6, "G": 10**9}
ROUNDING = {"rounded": ROUND_HALF_UP, "truncated": ROUND_DOWN, "exact": ROUND_HALF_UP}


def text_of(name):
    return (files("dscalc") / f"inputs/networks/{name}.csv").read_text("utf-8")


def layers_of(name, edit=str, **options):
    return read_network(io.BytesIO(edit(text_of(name)).encode()), name, **options)


def figures(fact):
    """Our MACs and parameters of a network, counted by the conventions of who printed it."""
    conventions = fact["conventions"]
    edit = with_stride_in_first_1x1 if conventions.get("stride_in_first_1x1") else str
    rows = layers_of(fact["network"], edit, block=STANDARD, **fact["arguments"])
    classifier = rows[-1].layer
    macs, params = {}, {}
    for row in rows:
        side = row.rewritten if conventions.get("side") == "standard" else row.as_is
        layers = [step.layer for step in side.steps if row.kind != "linear"]
        filters = [layer.out_channels for layer in layers if isinstance(layer, Conv)]
        scaled = row.layer.out_channels * (row.kind == "convnext")
        macs[row.name] = side.cost.macs
        params[row.name] = side.cost.params
        params[row.name] += conventions.get("bn_params_per_channel", 0) * sum(filters)
        params[row.name] += conventions.get("layer_scale", False) * scaled
    if classes := conventions.get("classes"):
        more = (classes - classifier.out_channels) * classifier.in_channels
        macs[rows[-1].name] += more
        params[rows[-1].name] += more + classes * conventions.get("fc_bias", False)
    return {
        quantity: sum(count for name, count in counts.items() if name not in without)
        for quantity, counts in (("macs", macs), ("params", params))
        for without in [conventions.get(f"{quantity}_without", ())]
    }


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
    assert {fact["network"] for fact in FACTS} == set(PUBLISHED)
    right = [match for fact in FACTS for match in fact["match"].values() if match != "no"]
    assert len(right) == 54


@pytest.mark.parametrize(
    ("args", "values"),
    [
        (
            "mobilenet_v1 --as standard "
            "--get standard_macs --get macs --get standard_params --get params",
            "4867293184 568740352 29281120 4209088",
        ),
        ("mobilenet_v1 --width-multiplier 0.5 --input-size 160 --get macs", "76524800"),
        ("mobilenet_v1 --resolution-multiplier 0.714 --get macs", "290675200"),
        ("mobilenet_v1 --resolution-multiplier 5/7 --get macs", "290675200"),
        ("mobilenet_v2 --get macs --get params", "300774272 3469760"),
        ("mobilenet_v2 --width-multiplier 1.4 --get macs", "582195824"),
        ("xception --get params", "22855952"),
        ("convnext_tiny --get macs", "4455531264"),
        ("vgg16 --get macs --get params", "15470264320 138357544"),
        ("alexnet --get params", "62378344"),
        ("unet --get params", "31031810"),
        (
            "resnet50 --as standard "
            "--get standard_macs --get macs --get standard_params --get params",
            "25912934400 4089184256 160726312 25557032",
        ),
    ],
)
def test_totals_in_full(args, values, run):
    assert run(f"network {args}") == (0, values.replace(" ", "\t") + "\n", "")


def test_without_its_classifier_the_full_convolution_is_the_4866_of_the_paper():
    """4,866,269,184 without it and 4,867,293,184 with it."""
    *body, classifier = layers_of("mobilenet_v1", block=STANDARD)
    assert (classifier.kind, classifier.rewritten.cost.macs) == ("linear", 1_024_000)
    assert sum(row.rewritten.cost.macs for row in body) == 4_866_269_184


def test_convnext_lacks_only_the_layer_scale_of_its_18_blocks():
    rows = layers_of("convnext_tiny")
    scales = [row.layer.out_channels for row in rows if row.kind == "convnext"]
    assert (len(scales), sum(scales)) == (18, 6_624)
    assert sum(row.as_is.cost.params for row in rows) + sum(scales) == 28_589_128


@pytest.mark.parametrize(
    ("name", "kinds", "last_map"),
    [
        ("mobilenet_v1", {"conv": 1, "separable": 13, "pool": 1, "linear": 1}, (7, 7)),
        (
            "mobilenet_v2",
            {"conv": 1, "inverted": 17, "pointwise": 1, "pool": 1, "linear": 1},
            (7, 7),
        ),
        (
            "xception",
            {"conv": 2, "pointwise": 4, "separable": 34, "pool": 5, "linear": 1},
            (10, 10),
        ),
        (
            "convnext_tiny",
            {"conv": 4, "convnext": 18, "norm": 4, "pool": 1, "linear": 1},
            (7, 7),
        ),
        ("resnet50", {"conv": 1, "pointwise": 4, "bottleneck": 16, "pool": 2, "linear": 1}, (7, 7)),
    ],
)
def test_a_network_has_the_layers_of_its_paper(name, kinds, last_map):
    rows = layers_of(name)
    assert Counter(row.kind for row in rows) == kinds
    assert (rows[-1].kind, rows[-1].layer.out_channels) == ("linear", 1000)
    pooled = [row.layer for row in rows if row.layer.output_size == (1, 1)]
    assert pooled[0].input_size == last_map


def test_list_names_every_network_with_its_source_as_the_title_of_its_table(run):
    result = run("network --list")
    assert (result.code, result.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines == shipped()
    assert [*lines] == NAMES
    for name, title in lines.items():
        assert re.search(r": .+, 20\d\d, .*(Table|Figure|section) ", title)
        table = run("network", name, "--no-verify", columns=300).stdout
        assert table.splitlines()[0] == title


@pytest.mark.parametrize("block", ["standard", "separable"])
@pytest.mark.parametrize("name", NAMES)
def test_fvcore_and_torch_count_exactly_this(name, block):
    scales = [{}, {"width_multiplier": "0.25", "input_size": 112}, {"width_multiplier": "1.5"}]
    rows = [row for scale in scales for row in layers_of(name, block=Block.parse(block), **scale)]
    for row in {(row.as_is, row.rewritten): row for row in rows}.values():
        proved = crosscheck(row)
        assert proved.crosscheck == "exact", row.name
        for side in (proved.as_is, proved.rewritten):
            found = side.counted[""]
            assert (found.macs, found.params) == (side.cost.macs, side.cost.params), row.name


@pytest.mark.parametrize(
    ("widths", "of"), [("0.5,1", "1/2, 224"), ("0.5", "224")], ids=["two", "one"]
)
def test_a_network_of_several_is_named_with_its_width_if_they_differ(widths, of, run):
    sizes = "--input-size 224,192"
    result = run(f"network mobilenet_v1 {sizes} --width-multiplier {widths} --assert-each macs>1G")
    first = result.stderr.splitlines()[0]
    width = "width " if "/" in of else ""
    assert first.startswith(f"failed: macs > 1G: mobilenet_v1, {width}{of}x224: macs is ")


@pytest.mark.parametrize("name", NAMES)
def test_the_command_says_that_the_counts_are_exact(name, run):
    result = run(f"network {name} --verify --get crosscheck --get fvcore_macs --get macs")
    assert (result.code, result.stderr) == (0, "")
    verdict, counted, expected = result.stdout.split()
    assert (verdict, counted) == ("exact", expected)


def test_other_classes_and_channels_need_only_another_file(tmp_path, run):
    """The files are ordinary input: a copy answers as the original does."""
    path = tmp_path / "copy"
    path.write_text(text_of("mobilenet_v1").replace("1000", "10"), "utf-8")
    [count] = run("network", str(path), "--get", "macs").stdout.split()
    assert int(count) == 568_740_352 - 990 * 1024


def test_a_call_takes_a_path_and_refuses_what_the_command_refuses(tmp_path):
    file = tmp_path / "net.csv"
    file.write_text(
        "kind,in_channels,out_channels,kernel_size,input_size,bias\nconv,3,4,3,8,TRUE\n"
    )
    report = dscalc.network(file)
    assert (report.total.as_is.cost.macs, report.total.as_is.cost.params) == (6912, 112)
    with pytest.raises(DscalcError, match=r"input_size must be at least 1, got 0$"):
        dscalc.network(file, input_size=0)
    with pytest.raises(TypeError, match=r"^network\(\) got an unexpected keyword argument 'widht'"):
        dscalc.network(file, widht=3)


def test_a_shipped_network_is_a_baseline(run):
    before = json.loads(run("network vgg16 --baseline alexnet -f json").stdout)["baseline"]
    assert before["file"] == "alexnet"
    assert before["total"]["macs"] == dscalc.network("alexnet").total.as_is.cost.macs
