"""A row of any answer: its two sides, what was counted, totals, and what its fields are called."""

import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from strategies import rewrites
from vocabulary import fields, find, values

from dscalc import Block, Conv, Cost, DscalcError, Row, compare
from dscalc.core.blocks import SEPARABLE, Step
from dscalc.core.row import layer_row, proved, side, total, with_shares

TEXTBOOK = layer_row(Conv(3, 64, 3, 224), SEPARABLE, "conv1")
DEEP = layer_row(Conv(512, 512, 3, 14), SEPARABLE)


def kept(conv):
    """A row that stays as it is: both sides are one."""
    same = side((Step("conv", conv, conv.cost),))
    return Row("kept", "conv", conv, same, same, kept="grouped")


def right(steps):
    """A count that agrees with the formulas."""
    costs = {step.name: Cost(step.cost.macs, step.cost.params) for step in steps}
    return {"": sum(costs.values(), Cost(0, 0)), **costs}


def one_more(steps):
    """A count with one MAC too many in the first step."""
    counts = right(steps)
    counts[steps[0].name] += Cost(1, 0)
    return counts


@given(rewrites())
def test_each_side_is_the_sum_of_its_steps(rewrite):
    row = layer_row(*rewrite)
    for one in (row.as_is, row.rewritten):
        assert one.cost == sum((step.cost for step in one.steps), Cost(0, 0))
    assert row.as_is.cost == row.layer.cost
    assert row.mac_ratio == Fraction(row.rewritten.cost.macs, row.as_is.cost.macs)


def test_with_bias_the_ratio_of_params_is_not_the_ratio_of_macs():
    row = layer_row(Conv(3, 64, 3, 224, bias=True), SEPARABLE)
    assert (row.mac_ratio, row.param_ratio) == (Fraction(73, 576), Fraction(286, 1792))


def test_a_row_that_is_kept_costs_the_same_and_has_no_steps_of_a_block():
    row = kept(Conv(8, 8, 3, 14))
    assert row.mac_ratio == row.param_ratio == 1
    found = values(row, fields("network", SEPARABLE))
    assert (found["macs"], found["separable_macs"]) == (112_896, 112_896)
    assert found["depthwise_macs"] is found["pointwise_params"] is None


def test_a_row_without_macs_has_no_ratios():
    nothing = side((Step("pool", None, Cost(0, 0)),))
    row = Row("pool", "pool", Conv(8, 8, 2, 14), nothing, nothing)
    found = values(row, fields("compare", SEPARABLE))
    ratios = ("mac_ratio", "mac_ratio_exact", "mac_reduction", "param_ratio")
    assert {found[name] for name in ratios} == {row.mac_ratio} == {row.param_ratio} == {None}


def test_a_row_pickles():
    assert pickle.loads(pickle.dumps(DEEP)) == DEEP == layer_row(DEEP.layer, SEPARABLE)


# What was counted.


@pytest.mark.parametrize(
    ("count", "verdict", "differences"),
    [
        (right, "exact", []),
        (one_more, "mismatch", [("standard", "macs", 86_704_128, 86_704_129)]),
        (lambda steps: None, "skipped", []),
        (
            lambda steps: right(steps) | {"": Cost(86_704_128, 1_729)},
            "mismatch",
            [("", "params", 1_728, 1_729)],
        ),
    ],
    ids=["right", "wrong in a step", "nothing", "wrong in all"],
)
def test_a_row_is_exact_where_every_count_is_what_its_formula_gives(count, verdict, differences):
    row = proved(TEXTBOOK, count)
    assert (row.crosscheck, row.as_is.differences) == (verdict, differences)
    assert TEXTBOOK.crosscheck == "skipped"


def test_a_side_that_cannot_be_counted_leaves_the_row_skipped():
    row = proved(TEXTBOOK, lambda steps: right(steps) if len(steps) == 1 else None)
    assert row == TEXTBOOK


def test_a_row_that_is_kept_is_counted_once():
    asked = []
    row = proved(kept(Conv(8, 8, 3, 14)), lambda steps: asked.append(steps) or right(steps))
    assert (row.crosscheck, len(asked)) == ("exact", 1)


# Totals.


def test_a_total_adds_up_sides_and_steps_by_name():
    rows = [proved(TEXTBOOK, right), proved(DEEP, right)]
    both = total(rows)
    assert (both.name, both.kind, both.crosscheck) == ("total", "total", "exact")
    assert both.as_is.cost == TEXTBOOK.as_is.cost + DEEP.as_is.cost
    depthwise, _ = both.rewritten.steps
    assert depthwise.name == "depthwise"
    assert depthwise.cost == Cost(
        1_354_752 + 903_168, 27 + 4_608, 150_528 + 100_352, 150_528 + 100_352
    )
    assert both.rewritten.counted == {"": Cost(10_988_544 + 52_283_392, 219 + 266_752)}
    assert both.mac_ratio == Fraction(10_988_544 + 52_283_392, 86_704_128 + 462_422_016)
    layer = ("in_channels", "kernel_size", "padding", "bias", "batch_size")
    assert {getattr(both.layer, name) for name in layer} == {None}


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ([right, right], "exact"),
        ([right, None], "skipped"),
        ([right, one_more], "mismatch"),
        ([None, one_more], "mismatch"),
        ([], "exact"),
    ],
)
def test_a_total_is_as_right_as_its_worst_row_and_claims_no_count_it_lacks(counts, verdict):
    rows = [proved(DEEP, count) if count else DEEP for count in counts]
    whole = total(rows)
    assert whole.crosscheck == verdict
    assert (whole.as_is.counted is None) is (None in counts)


def test_shares_are_of_the_macs_of_all_rows():
    first, second = with_shares([TEXTBOOK, DEEP])
    assert first.share == Fraction(86_704_128, 86_704_128 + 462_422_016)
    assert first.share + second.share == total([first, second]).share == 1
    nothing = TEXTBOOK._replace(as_is=side((Step("pool", None, Cost(0, 0)),)))
    assert with_shares([nothing])[0].share == total([nothing]).share == 0


# The library's answer.


@given(rewrites())
def test_compare_answers_with_the_row_and_its_total(rewrite):
    conv, block = rewrite
    given = {name: value for name, value in vars(conv).items() if name != "output_size"}
    report = compare(**given, block=block)
    assert report.rows == [layer_row(conv, block)]
    assert report.total == total(report.rows)
    assert (report.checks, report.block, report.command) == ([], block, "compare")


def test_multipliers_of_compare_scale_channels_and_sizes():
    scaled = compare(32, 64, 3, 224, width_multiplier=0.75, resolution_multiplier="0.714")
    assert scaled.rows == compare(24, 48, 3, 160).rows


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block": "separable:0"}, "separable depth multiplier must be at least 1, got 0"),
        ({"block": "seprable"}, "block: unknown block 'seprable'; did you mean separable?"),
        ({"stride": -1}, "stride must be at least 1, got -1"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"in_channels": 0, "width_multiplier": 0.5}, "in_channels must be at least 1, got 0"),
    ],
)
def test_an_argument_error_names_the_value_and_the_rule(wrong, message):
    right = {"in_channels": 3, "out_channels": 64, "kernel_size": 3, "input_size": 224}
    with pytest.raises(DscalcError) as raised:
        compare(**right | wrong)
    assert str(raised.value) == message


def test_a_report_is_plain_data():
    plain = compare(3, 64, (3, 5), 224, block="separable:2", verify=True).to_dict()
    assert list(plain) == [
        *("schema", "version", "convention", "command", "as", "inputs"),
        *("rows", "total", "notes", "checks"),
    ]
    assert (plain["schema"], plain["command"], plain["as"]) == (
        *("dscalc/3", "compare", "separable:2"),
    )
    assert (plain["inputs"], plain["notes"]) == (None, [])
    [row] = plain["rows"]
    assert (row["kernel_size"], row["padding"], row["crosscheck"]) == ([3, 5], "same", "exact")
    assert (row["mac_ratio"], row["mac_ratio_exact"]) == (
        row["separable_macs"] / row["standard_macs"],
        "79/480",
    )
    assert row.keys() == plain["total"].keys()


# The names of its fields.

LAYER = (
    *("name", "kind", "in_channels", "out_channels", "kernel_size", "input_size", "output_size"),
    *("stride", "padding", "dilation", "groups", "bias", "batch_size"),
)
COUNTS = ("macs", "params", "activations")
RATIOS = ("mac_ratio", "mac_ratio_exact", "mac_reduction", "param_ratio", "saved_macs")


def test_the_fields_of_compare():
    assert [field.name for field in fields("compare", SEPARABLE)] == [
        *LAYER,
        *(f"standard_{noun}" for noun in (*COUNTS, "bytes", "intensity")),
        *(f"separable_{noun}" for noun in (*COUNTS, "bytes", "intensity")),
        *(f"{step}_{noun}" for step in ("depthwise", "pointwise") for noun in COUNTS[:2]),
        *RATIOS,
        *("fvcore_standard_macs", "fvcore_separable_macs"),
        *("torch_standard_params", "torch_separable_params", "crosscheck"),
    ]


def test_in_flops_the_counts_are_doubled_and_have_other_names():
    in_macs, in_flops = (fields("compare", SEPARABLE, unit) for unit in ("macs", "flops"))
    row = proved(TEXTBOOK, right)
    for ours, theirs in zip(in_macs, in_flops, strict=True):
        counts = ours.unit == "MACs"
        assert theirs.name == (ours.name.replace("macs", "flops") if counts else ours.name)
        assert theirs.unit == ("FLOPs" if counts else ours.unit)
        assert theirs.read(row) == (2 * ours.read(row) if counts else ours.read(row))
    assert sum(field.unit == "MACs" for field in in_macs) == 7


def test_every_value_is_of_the_type_that_its_field_tells():
    row = proved(TEXTBOOK, right)._replace(share=Fraction(1))
    for field in fields("compare", SEPARABLE):
        assert isinstance(field.read(row), field.type), field.name
        assert field.doc


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("separable_mac", "did you mean separable_macs or fvcore_separable_macs?"),
        ("intensity", "did you mean standard_intensity or separable_intensity?"),
    ],
)
def test_an_unknown_field_is_answered_with_what_was_meant(name, hint):
    with pytest.raises(DscalcError) as raised:
        find(name, "compare", SEPARABLE)
    assert str(raised.value) == f"unknown field {name!r}; {hint}"


@pytest.mark.parametrize(
    ("command", "block", "unit", "name", "needs"),
    [
        ("compare", SEPARABLE, "macs", "separable_flops", "--unit flops"),
        ("compare", SEPARABLE, "flops", "separable_macs", "--unit macs"),
        ("network", None, "flops", "macs", "--unit macs"),
        ("network", None, "macs", "mac_ratio", "--as BLOCK, such as --as separable"),
        ("model", None, "macs", "kept", "--as BLOCK, such as --as separable"),
        ("model", None, "macs", "separable_macs", "--as separable"),
        ("model", SEPARABLE, "macs", "fused_params", "--as fused"),
        ("network", SEPARABLE, "macs", "standard_macs", "--as standard"),
    ],
)
def test_a_field_that_an_option_adds_is_answered_with_the_option(command, block, unit, name, needs):
    with pytest.raises(DscalcError) as raised:
        find(name, command, block, unit)
    assert str(raised.value) == f"{name} needs {needs}"


@pytest.mark.parametrize("command", ["network", "model"])
def test_without_a_block_no_field_is_of_a_replacement(command):
    as_it_is, replaced = (
        [field.name for field in fields(command, block)] for block in (None, SEPARABLE)
    )
    assert as_it_is == [
        name for name in replaced
        if name != "kept" and name not in RATIOS and "separable" not in name and "wise" not in name
    ]  # fmt: skip
    assert {"macs", "params", "share", "fvcore_macs", "crosscheck"} <= {*as_it_is}


def test_the_fields_follow_the_block():
    names = {field.name for field in fields("network", Block("standard"))}
    assert {"macs", "share", "standard_macs", "fvcore_macs", "torch_standard_params"} <= names
    assert not {name for name in names if "wise" in name or "separable" in name}
