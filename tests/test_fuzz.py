"""Whatever is written, there is a result or a DscalcError; and networks that fit add up."""

import csv
import io
import json
from functools import partial
from importlib.resources import files
from itertools import chain, islice
from math import prod

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import geometries, per_axis, sizes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vocabulary import fields, find

from dscalc import Conv, DscalcError, parse, show
from dscalc.checks.assertion import Assertion
from dscalc.core.blocks import SEPARABLE, STANDARD, Block
from dscalc.core.row import Row, layer_row, total
from dscalc.errors import FileError
from dscalc.inputs.grid import Axis, Grid
from dscalc.inputs.network_file import read_network, shipped

COLUMNS = (
    *("name", "kind", "in_channels", "out_channels", "kernel_size", "stride", "padding"),
    *("dilation", "groups", "depth_multiplier", "bias", "input_size", "from", "repeat"),
    *("rounding", "expansion"),
)
KINDS = ("conv", "separable", "depthwise", "linear", "pool", "norm")
WORDS = (
    *("", "1", "2", "3", "8", "16", "0", "-1", "+4", " 5 ", "1.5", "1e3", "9" * 100, "9" * 101),
    *("3x5", "7x7", "3x", "x", "1x1x1", "same", "valid", "global", "true", "false", "8+", "None"),
    *("a", "b", "conv1", "[red]", "\x1b[31m", "\0", "é", "\u202e", '"', "a,b", "#", "'", "\r", ";"),
)
many = settings(max_examples=max(100, settings().max_examples))


def answer(function, *args, **options):
    """What a function answers; None where it refuses."""
    try:
        return function(*args, **options)
    except DscalcError:
        return None


def read(data, **options):
    """What the reader answers; where it refuses, each line of its error names a place."""
    try:
        rows = read_network(io.BytesIO(data), "net", **options)
    except FileError as error:
        for line in str(error).split("\n"):
            name, number, reason = line.split(":", 2)
            assert name == "net"
            assert int(number) >= 1
            assert reason.strip()
            assert line.isprintable()
    else:
        assert rows
        assert all(isinstance(row, Row) for row in rows)


# The readers.

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=5))
NEEDED = {
    "conv": ("out_channels", "kernel_size"),
    "separable": ("out_channels", "kernel_size"),
    "depthwise": ("kernel_size",),
    "linear": ("out_channels",),
    "pool": ("kernel_size",),
}
LIKELY = {
    "padding": ("same", "valid", "1"),
    "bias": ("true", "false"),
    "input_size": ("9",),
    "from": ("a", "b", "conv1"),
    "rounding": ("8", "8+"),
    "name": ("a", "b", "c", "d"),
}
multipliers = st.sampled_from([1, "0.1", "0.75", "1.4", "7/3", "1e3"])
scales = st.fixed_dictionaries(
    {},
    optional={
        "input_size": st.sampled_from([1, 7, 224, (5, 9), (3, 3, 3), 10**30]),
        "width_multiplier": multipliers,
        "resolution_multiplier": multipliers,
        "dims": st.sampled_from([1, 2, 3]),
        "batch_size": st.sampled_from([1, 8]),
        "block": st.sampled_from([STANDARD, SEPARABLE, Block("separable", (3,))]),
    },
)


@st.composite
def rows(draw):
    """The cells of a few rows that are right or nearly so, under columns that mostly are."""
    columns = ["kind", "in_channels", "out_channels", "kernel_size", "input_size"]
    columns += draw(st.lists(st.sampled_from(COLUMNS), max_size=3))
    columns = list(dict.fromkeys(columns))
    if draw(st.integers(0, 19)) == 0:
        columns.append(draw(st.one_of(st.sampled_from(COLUMNS), words)))
    table = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.one_of(*[st.sampled_from(KINDS)] * 9, words))
        needed = NEEDED.get(kind, ()) if number else ("in_channels", "input_size", *NEEDED["conv"])
        row = []
        for column in columns:
            if column == "kind":
                row.append(kind if number else "conv")
            elif draw(st.integers(0, 29)) == 0:
                row.append(draw(words))
            elif column in needed or draw(st.integers(0, 5)) == 0:
                row.append(draw(st.sampled_from(LIKELY.get(column, ("1", "2", "3", "8")))))
            else:
                row.append("")
        table.append(tuple(row))
    return columns, table


@st.composite
def nearly_csv(draw):
    """Cells as CSV, with or without quotes."""
    columns, body = draw(rows())
    line_end, text = draw(st.sampled_from(["\n", "\r\n", "\r"])), io.StringIO()
    if draw(st.booleans()):
        csv.writer(text, lineterminator=line_end).writerows([columns, *body])
    else:
        text.write("".join(f"{','.join(row)}{line_end}" for row in [columns, *body]))
    return text.getvalue().encode("utf-8", "replace")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


def json_lines(values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


@st.composite
def nearly_json(draw):
    """Cells as objects, some with another value in them."""
    columns, body = draw(rows())
    columns = [column if column in COLUMNS else "unknown" for column in columns]
    objects = [dict(zip(columns, row, strict=True)) for row in body]
    changes = st.lists(st.tuples(st.sampled_from(COLUMNS), json_values), max_size=3)
    for number, (column, value) in enumerate(draw(changes)):
        objects[number % len(objects)][column] = value
    return json_lines(objects)


SHIPPED = [
    (files("dscalc") / f"inputs/networks/{name}.csv").read_bytes()[:3000] for name in shipped()
]


@st.composite
def damaged(draw):
    """A network that ships, with bytes cut out of it and put in."""
    data = draw(st.sampled_from(SHIPPED))
    damages = st.tuples(st.integers(0, 3000), st.integers(0, 40), st.binary(max_size=6))
    for place, removed, inserted in draw(st.lists(damages, min_size=1, max_size=4)):
        data = data[:place] + inserted + data[place + removed :]
    return data


NORM = {"kind": "norm", "in_channels": 3, "input_size": 9}
FILES = {
    "bytes": st.sampled_from([b"\xef\xbb\xbf", b"{", b'"', b"kind\n\0"]) | st.binary(max_size=200),
    "text": st.builds(
        lambda text, encoding: text.encode(encoding, "replace"),
        st.text(max_size=200),
        st.sampled_from(["utf-8", "utf-16", "utf-32-be", "utf-7"]),
    ),
    "JSON": st.lists(json_values, max_size=3).map(lambda values: json_lines([NORM, *values])),
    "nearly right CSV": nearly_csv(),
    "nearly right JSON": nearly_json(),
    "a damaged file": damaged(),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
@many
@given(data=st.data(), options=scales)
def test_whatever_is_written_is_a_network_or_refused(file, data, options):
    read(data.draw(file), **options)


# The command line.

numbers = st.text("0123456789:,x.-+ ", max_size=12)
axes = st.one_of(numbers, st.text(max_size=12), st.from_regex(r"[1-9]{1,3}:[1-9]{1,3}(:x?[0-9])?"))


@given(axes, st.sampled_from([None, 1, 2, 3]))
@example("1:" + "9" * 100 + ":x2", None)
@example("1:" + "9" * 100, 3)
@example(",".join("9" * 50), 2)
def test_any_text_is_an_axis_or_refused(text, dims):
    axis = answer(Axis, text, "F", dims)
    if axis:
        some = list(islice(axis, 20))
        assert len(some) == min(axis.count, 20)
        if dims is not None:
            some = list(chain.from_iterable(some))
        assert all(isinstance(value, int) and value >= 1 for value in some)


options = st.fixed_dictionaries(
    {},
    optional={
        "stride": sizes(2, 0, 3),
        "dilation": sizes(2, 0, 3),
        "groups": st.integers(0, 3),
        "bias": st.booleans(),
        "width_multiplier": multipliers,
        "resolution_multiplier": multipliers,
    },
)


@given(axes, axes, axes, axes, st.sampled_from([1, 2, 3]), options)
def test_any_texts_are_a_grid_or_refused(ic, oc, f, d, dims, layer):
    grid = answer(Grid, ic, oc, f, d, dims, **layer)
    if grid:
        some = list(islice(grid, 5))
        assert len(some) == min(grid.count, 5)
        assert all(layer_row(conv, SEPARABLE).mac_ratio > 0 for conv in some)


@given(axes, axes, axes, axes)
def test_the_values_of_a_grid_are_those_of_its_axes(ic, oc, f, d):
    written = [answer(Axis, text, "D", dims) for text, dims in ((ic, None), (oc, None))]
    written += [answer(Axis, text, "D", 2) for text in (f, d)]
    grid = answer(Grid, ic, oc, f, d, 2)
    if all(written):
        first = tuple(next(iter(axis)) for axis in written)
        assert grid is None or next(iter(grid)) == Conv(*first)
    else:
        assert grid is None


numerals = st.text("0123456789.eE+-/KMGTPkmgtp% ", max_size=12)


@pytest.mark.parametrize(
    "function",
    [parse.whole, parse.size, parse.shape, parse.padding, parse.number, parse.keywords],
    ids=lambda function: function.__name__,
)
@given(text=st.one_of(axes, numerals, st.text(max_size=20)))
def test_any_text_is_read_or_refused(function, text):
    answer(function, text, "it")


@given(st.text())
def test_any_text_is_printed_literally_and_on_one_line(text):
    for printed in (show.printable(text), show.quoted(text)):
        assert printed.isprintable()
    if text.isprintable():
        assert show.printable(text) == text


LAYER = layer_row(Conv(3, 64, 3, 224), SEPARABLE)
FIELDS = [field.name for field in fields("compare", SEPARABLE)]
conditions = st.builds(
    lambda *parts: "".join(parts),
    st.one_of(st.sampled_from(FIELDS), st.text(max_size=8)),
    st.sampled_from(["<", "<=", "==", "!=", ">=", ">", "=", " < ", "<>", ""]),
    st.one_of(numerals, st.text(max_size=8)),
)


@given(st.one_of(conditions, st.text(max_size=30)))
def test_any_text_is_a_condition_or_refused(text):
    known = partial(find, command="compare", block=SEPARABLE)
    assertion = answer(Assertion.parse, text, known)
    if assertion:
        assert assertion.field.name in FIELDS
        assert answer(assertion.holds, LAYER) in (True, False, None)


# Networks that fit together, against torch.


def padded(module, kernel_size, padding, dilation):
    """The module behind one that pads explicitly, as torch refuses some paddings by name."""
    ends = []
    for axis, kernel in enumerate(kernel_size):
        both = dilation[axis] * (kernel - 1) if padding == "same" else 0
        before, after = both // 2, both - both // 2
        if not isinstance(padding, str):
            before = after = padding[axis]
        ends = [before, after, *ends]  # torch counts axes from the last
    zeros = getattr(nn, f"ConstantPad{len(kernel_size)}d")(tuple(ends), 0)
    return nn.Sequential(zeros, module)


def conv(ic, oc, geometry, groups, bias):
    kernel_size, stride, padding, dilation = geometry
    layer = getattr(nn, f"Conv{len(kernel_size)}d")
    module = layer(ic, oc, kernel_size, stride, 0, dilation, groups, bias)
    return padded(module, kernel_size, padding, dilation)


def modules(row, ic, dims):
    """What a row is in torch: as a standard layer, and as it is."""
    kind, m, bias = row["kind"], row.get("depth_multiplier", 1), row.get("bias", False)
    oc = row.get("out_channels", ic * m)
    if kind == "norm":
        return (getattr(nn, f"BatchNorm{max(1, dims)}d")(ic).eval(),) * 2
    if kind == "linear":
        return (nn.Sequential(nn.Flatten(), nn.LazyLinear(oc, bias)),) * 2
    sizes = (row["kernel_size"], row["stride"], row["padding"], row.get("dilation", 1))
    geometry = [size if isinstance(size, str) else per_axis(size, dims) for size in sizes]
    if kind == "pool":
        pool = getattr(nn, f"MaxPool{dims}d")(*geometry[:2])
        return (padded(pool, geometry[0], *geometry[2:]),) * 2
    standard = conv(ic, oc, geometry, row.get("groups", 1), bias)
    if kind == "conv":
        return standard, standard
    depthwise = conv(ic, ic * m, geometry, ic, bias)
    if kind == "depthwise":
        return standard, depthwise
    pointwise = getattr(nn, f"Conv{dims}d")(ic * m, oc, 1, bias=bias)
    return standard, nn.Sequential(depthwise, pointwise)


@st.composite
def networks(draw):
    """A network that fits together: its rows, and what each is in torch with what feeds it."""
    dims, batch = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    maps = {"": (draw(st.integers(1, 4)), draw(st.tuples(*[st.integers(1, 6)] * dims)))}
    table, built, before = [], [], ""
    for number in range(draw(st.integers(1, 6))):
        source = draw(st.sampled_from([before, *list(maps)[1:]])) if number else ""
        ic, size = maps[source]
        kinds = [kind for kind in KINDS if size or kind in ("linear", "norm")]
        if not number:
            kinds.remove("linear")
        kind = draw(st.sampled_from(kinds))
        row = {"name": f"row{number}", "kind": kind}
        if source != before:
            row["from"] = source
        if kind not in ("norm", "linear"):
            row |= draw(geometries(dims, most_stride=2))
            if kind == "pool":
                row["dilation"] = 1
            try:  # the map is given here
                Conv(1, 1, **{name: row[name] for name in GEOMETRY}, input_size=size)
            except DscalcError:
                row["padding"] = "same"
            del row["input_size"]
        if kind not in ("norm", "pool"):
            row["bias"] = draw(st.booleans())
        if kind in ("separable", "depthwise"):
            row["depth_multiplier"] = draw(st.integers(1, 2))
        if kind in ("conv", "separable", "linear"):
            row["out_channels"] = draw(st.integers(1, 4))
        if kind == "conv" and draw(st.booleans()):
            row["groups"] = draw(st.sampled_from([n for n in (4, 3, 2, 1) if ic % n == 0]))
            row["out_channels"] *= row["groups"]
        pair = modules(row, ic, len(size))
        if kind == "pool":
            del row["dilation"]  # which has no meaning for it
        if not number or draw(st.booleans()):
            row["in_channels"] = ic * prod(size) if kind == "linear" else ic
            if size:
                row["input_size"] = size
        output = pair[1](torch.zeros(batch, ic, *size)).shape[1:]
        maps[row["name"]] = (output[0], tuple(output[1:]))
        table.append(row)
        built.append((*pair, (batch, ic, *size)))
        before = row["name"]
    return table, built, batch


GEOMETRY = ("kernel_size", "stride", "padding", "dilation")


def written(table, form):
    """The rows as a file."""
    if form == "jsonl":
        return json_lines(table)

    def cell(value):
        if isinstance(value, tuple):
            return "x".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else value

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({column: cell(value) for column, value in row.items()} for row in table)
    return text.getvalue().encode()


@given(networks(), st.sampled_from(["csv", "jsonl"]))
def test_the_totals_of_any_network_are_those_of_its_torch_modules(network, form):
    table, built, batch = network
    dims = len(built[0][2]) - 2
    rows = read_network(
        io.BytesIO(written(table, form)), "net", block=STANDARD, dims=dims, batch_size=batch
    )
    sums = total(rows)
    for number, cost in enumerate((sums.rewritten.cost, sums.as_is.cost)):
        with torch.no_grad(), FlopCounterMode(display=False) as mode:
            for row in built:
                row[number](torch.zeros(row[2]))
        assert cost.macs == mode.get_total_flops() // 2
        assert cost.params == sum(p.numel() for row in built for p in row[number].parameters())
