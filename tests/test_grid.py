"""Sweeps: what is written for IC, OC, F and D, and the layers that it makes."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscalc import Conv, DscalcError
from dscalc.inputs.grid import Axis, Grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("32", [32]),
        ("32,64,128", [32, 64, 128]),
        ("128,32,32", [128, 32, 32]),
        ("32:512:160", [32, 192, 352, 512]),
        ("32:511:160", [32, 192, 352]),
        ("14:17", [14, 15, 16, 17]),
        ("7:7", [7]),
        ("7:9:100", [7]),
        ("32:1024:x2", [32, 64, 128, 256, 512, 1024]),
        ("3:100:x5", [3, 15, 75]),
        ("7:7:x2", [7]),
        ("1,8:10,64:256:x2,3", [1, 8, 9, 10, 64, 128, 256, 3]),
    ],
)
def test_lists_and_ranges_in_the_order_written(text, values):
    axis = Axis(text, "IC")
    assert list(axis) == values
    assert axis.count == len(values)


@pytest.mark.parametrize(
    ("text", "dims", "values"),
    [
        ("3", 2, [(3, 3)]),
        ("3", 1, [(3,)]),
        ("3,5", 3, [(3, 3, 3), (5, 5, 5)]),
        ("3x5", 2, [(3, 5)]),
        ("3,3x5,1:2", 2, [(3, 3), (3, 5), (1, 1), (2, 2)]),
        ("1x2x3", 3, [(1, 2, 3)]),
    ],
)
def test_sizes_repeat_over_the_axes(text, dims, values):
    assert list(Axis(text, "F", dims)) == values


@given(st.integers(1, 10**6), st.integers(0, 3000), st.integers(1, 100))
def test_a_range_counts_up_by_its_step_and_includes_its_end(start, steps, step):
    stop = start + steps * step
    axis = Axis(f"{start}:{stop}:{step}", "IC")
    assert list(axis) == list(range(start, stop + 1, step))
    assert axis.count == steps + 1


@given(st.integers(1, 10**6), st.integers(0, 40), st.integers(2, 10))
def test_a_geometric_range_multiplies_and_includes_its_end(start, steps, factor):
    axis = Axis(f"{start}:{start * factor**steps}:x{factor}", "IC")
    assert list(axis) == [start * factor**n for n in range(steps + 1)]


values = st.lists(st.integers(1, 9), min_size=1, max_size=3)


@given(values, values, values, values)
def test_the_rightmost_varies_fastest(ic, oc, f, d):
    grid = Grid(*(",".join(map(str, axis)) for axis in (ic, oc, f, d)))
    assert list(grid) == [Conv(*layer) for layer in product(ic, oc, f, d)]
    assert grid.count == len(ic) * len(oc) * len(f) * len(d)


@pytest.mark.parametrize("few", [1000, 0], ids=["sizes kept", "sizes made again"])
def test_options_hold_for_every_layer(few, monkeypatch):
    monkeypatch.setattr("dscalc.inputs.grid._FEW", few)
    options = {"stride": 2, "padding": 1, "groups": 2, "bias": True, "batch_size": 3}
    layers = list(Grid("4,6", "8,16", "3,4", "9", 1, **options))
    assert layers == [
        Conv(ic, oc, (f,), 9, **options) for ic, oc, f in product((4, 6), (8, 16), (3, 4))
    ]


def test_multipliers_scale_every_layer():
    grid = Grid("32,64", "8", "3", "14,7", width_multiplier="0.75", resolution_multiplier=0.5)
    assert list(grid) == [Conv(ic, 6, 3, d) for ic in (24, 48) for d in (7, 4)]


@pytest.mark.parametrize(
    ("f", "d", "axes"),
    [("3", "9", 2), ("3x5x5", "9", 3), ("3", "9,8x8x8", 3), ("3,3x5", "9", 2), ("3:5", "9", 2)],
)
def test_a_written_size_says_how_many_axes_there_are(f, d, axes):
    assert {len(layer.kernel_size) for layer in Grid("3", "4", f, d)} == {axes}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "IC must be a whole number such as 64, got ''"),
        ("32,", "IC 32, ends in a comma; write 32"),
        ("32,,64", "IC must be a whole number such as 64, got ''"),
        ("3.5", "IC must be a whole number such as 64, got '3.5'"),
        (
            "3x5",
            "IC is a number of channels, got '3x5'; the order is IC OC F D, and sizes are F and D",
        ),
        ("0", "IC must be at least 1, got 0"),
        ("0:4", "IC must be at least 1, got 0"),
        ("-4:4", "IC must be at least 1, got -4"),
        ("4:", "IC must be a whole number such as 64, got ''"),
        (":4", "IC must be a whole number such as 64, got ''"),
        ("1:4:", "IC step must be a whole number such as 64, got ''"),
        ("1:4:0", "IC step must be at least 1, got 0"),
        ("1:4:-1", "IC step must be at least 1, got -1"),
        ("1:4:x", "IC factor must be a whole number such as 64, got ''"),
        ("1:4:x1", "IC factor must be at least 2, got 1"),
        ("1:4:1:1", "IC must be like 32:512:32 or 32:1024:x2, got '1:4:1:1'"),
        ("4:1", "IC range 4:1 runs backwards; write 1:4:1"),
        ("512:32:x2", "IC range 512:32:x2 runs backwards; write 32:512:x2"),
    ],
)
def test_a_malformed_axis_is_refused_by_its_name(text, message):
    with pytest.raises(DscalcError) as raised:
        Axis(text, "IC")
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "dims", "message"),
    [
        ("3x3x3", 2, "F 3x3x3 has 3 sizes in 2-D; dims=3 makes it 3-D"),
        ("3x3", 1, "F 3x3 has 2 sizes in 1-D; dims=2 makes it 2-D"),
        ("3,5x5", 3, "F 5x5 has 2 sizes in 3-D; dims=2 makes it 2-D"),
        ("1x1x1x1", 2, "F 1x1x1x1 has 4 sizes in 2-D; give one for every axis, such as 3 or 3x5"),
        ("3x", 2, "F must be a size such as 3 or 3x5, got '3x'"),
        ("3x5:7x9", 2, "F must be a whole number such as 64, got '3x5'"),
    ],
)
def test_a_size_of_the_wrong_number_of_axes_is_refused(text, dims, message):
    with pytest.raises(DscalcError) as raised:
        Axis(text, "F", dims)
    assert str(raised.value) == message


@pytest.mark.parametrize(("f", "d"), [("3x5x5", "224x5"), ("3x3,3x3x3", "9"), ("3", "9x9,9x9x9")])
def test_written_sizes_must_agree_in_their_number_of_axes(f, d):
    with pytest.raises(DscalcError) as raised:
        Grid("3", "4", f, d)
    assert str(raised.value) == f"the sizes of F {f} and D {d} differ in their number of axes"


def test_a_grid_is_made_one_layer_at_a_time():
    grid = Grid("1:1000", "1:1000", "1:10", "1:100")
    assert grid.count == 10**9
    assert next(iter(grid)) == Conv(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("ic", "count"),
    [("1:1000000001", "1,000,000,001"), ("1:9" + "0" * 99, "9" + ",000" * 33)],
)
def test_a_huge_grid_is_refused_without_being_made(ic, count):
    with pytest.raises(DscalcError) as raised:
        Grid(ic, "1", "1", "1")
    assert str(raised.value) == f"a grid has at most 1,000,000,000 layers, got {count}"


def test_kernels_that_fit_each_map_are_taken_though_none_is_smallest_on_all_axes():
    layers = list(Grid("3", "4", "1x5,5x1", "5,6x5", padding="valid"))
    assert [layer.output_size for layer in layers] == [(5, 1), (6, 1), (1, 5), (2, 5)]


@pytest.mark.parametrize(
    ("axes", "options", "message"),
    [
        (("3", "4", "3,9", "7,5"), {"padding": "valid"}, "9x9.*7x7"),
        (("3", "4", "1x9,3", "9,8x8"), {"padding": "valid"}, "1x9.*8x8"),
        (("3", "4", "3,5", "4"), {"padding": "valid"}, "5x5.*4x4"),
        (("3", "64", "1:30000", "29999:59998"), {"padding": "valid"}, "spans 30000x30000"),
        (("3", "1:100000", "3", "1:10000"), {"stride": 0}, "stride must be at least 1, got 0"),
        (("3", "1:100000", "3", "1:10000"), {"stride": (1, 2, 3)}, "has 3 axes"),
        (("4:6", "4", "3", "9"), {"groups": 2}, "groups 2 for 5 -> 4 channels"),
    ],
)
def test_a_grid_with_one_wrong_layer_is_refused_at_once_before_its_first(axes, options, message):
    with pytest.raises(DscalcError, match=message):
        Grid(*axes, **options)


def test_groups_that_do_not_divide_are_found_on_the_way_where_the_channels_are_many():
    layers = iter(Grid("2:3000", "4", "3", "9", groups=2))
    assert next(layers).groups == 2
    with pytest.raises(DscalcError, match="groups 2 for 3 -> 4 channels"):
        next(layers)
