"""Which rows are shown: --where, --sort, --reverse and --top; and several networks or models."""

import operator
from fractions import Fraction
from json import loads

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabulary import find

from dscalc import Conv
from dscalc.checks.assertion import Assertion
from dscalc.checks.selection import Selection
from dscalc.core.blocks import SEPARABLE
from dscalc.core.row import layer_row

HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
# Fields and their formulas, of a 3x3 layer on an 8x8 map.
FORMULAS = {
    "in_channels": lambda ic, oc: ic,
    "out_channels": lambda ic, oc: oc,
    "standard_macs": lambda ic, oc: ic * oc * 9 * 64,
    "separable_macs": lambda ic, oc: ic * 9 * 64 + ic * oc * 64,
    "separable_params": lambda ic, oc: ic * 9 + ic * oc,
    "mac_ratio": lambda ic, oc: Fraction(1, oc) + Fraction(1, 9),
}


def known(name):
    return find(name, "compare", SEPARABLE)


@st.composite
def conditions(draw):
    """A field, a comparison, and a number that some row may have."""
    name = draw(st.sampled_from(sorted(FORMULAS)))
    channels = st.integers(1, 12)
    return (
        name,
        draw(st.sampled_from(sorted(HOLDS))),
        FORMULAS[name](draw(channels), draw(channels)),
    )


channels = st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True)


@given(
    channels,
    channels,
    st.lists(conditions(), max_size=3),
    st.none() | st.sampled_from(sorted(FORMULAS)),
    st.booleans(),
    st.none() | st.integers(1, 6),
)
def test_the_rows_are_those_of_a_loop_over_the_formulas(ics, ocs, where, key, reverse, top):
    grid = [(ic, oc) for ic in ics for oc in ocs]
    expected = [
        sizes
        for sizes in grid
        if all(HOLDS[symbol](FORMULAS[name](*sizes), number) for name, symbol, number in where)
    ]
    if key:
        expected.sort(key=lambda sizes: FORMULAS[key](*sizes), reverse=not reverse)
    selection = Selection(
        [Assertion.parse(f"{name} {symbol} {number}", known) for name, symbol, number in where],
        known(key) if key else None,
        reverse=reverse,
        top=top,
    )
    rows = (layer_row(Conv(ic, oc, 3, 8), SEPARABLE) for ic, oc in grid)
    found = [(row.layer.in_channels, row.layer.out_channels) for row in selection.of(rows)]
    assert found == expected[:top]
    assert selection.none_left is (bool(where) and not expected)
    if selection.none_left:
        nearest = min(
            grid,
            key=lambda sizes: (
                len(missed := missed_by(sizes, where)),
                max(missed),
            ),
        )
        said = selection.why_none(lambda row: f"{row.layer.in_channels}x{row.layer.out_channels}")
        assert f"; nearest: {nearest[0]}x{nearest[1]}: " in said


def missed_by(sizes, where):
    """How far the numbers of a layer are from each condition that it fails."""
    return [
        abs(FORMULAS[name](*sizes) - number) / Fraction(number)
        for name, symbol, number in where
        if not HOLDS[symbol](FORMULAS[name](*sizes), number)
    ]


WIDEST = ("64", "8:1024:8", "3", "56", "--sort", "out_channels", "--top", "1", "--where")


def test_the_widest_layer_that_fits(run):
    result = run(*WIDEST, "separable_macs <= 50M", "--get", "out_channels")
    assert (result.code, result.stdout) == (0, "240\n")  # 64 * 56^2 * (9 + 240) is 49,975,296


def test_the_only_layer_needs_no_name(run):
    result = run("3", "64", "3", "14", "--where", "standard_macs <= 5")
    assert result.stderr.endswith("; nearest: standard_macs is 338,688\n")


@pytest.mark.parametrize("form", ["table", "csv", "json", "markdown"])
def test_no_row_left_is_a_no_and_the_nearest_is_said(form, run):
    result = run(*WIDEST, "separable_macs <= 1M", "-f", form)
    assert result.code == 1
    assert result.stderr == (
        "failed: no row has separable_macs <= 1M; nearest: 64 -> 8 channels, 3x3 kernel, "
        "56x56 map, padding same: separable_macs is 3,411,968\n"
    )
    if form == "json":
        assert loads(result.stdout)["rows"] == []
    if form == "table":
        assert result.stdout.splitlines()[-1] == (
            "shown: separable_macs <= 1M; largest out_channels first; at most 1 row"
        )


def test_the_first_rows_of_a_huge_grid_come_at_once(run):
    result = run("1:100000 1:10000 3 8 --top 2 --get out_channels")
    assert (result.code, result.stdout) == (0, "1\n2\n")


def test_rows_that_are_shown_are_those_that_are_checked_and_proved(run):
    result = run(
        "8:64:8 64 3 8 --sort in_channels --top 2 --verify --assert in_channels>=56 -f json"
    )
    report = loads(result.stdout)
    assert [row["crosscheck"] for row in report["rows"]] == ["exact", "exact"]
    [check] = report["checks"]
    assert (check["holds"], check["rows"]) == (True, 2)


def test_a_condition_on_what_is_counted_counts_first(run):
    arguments = "8:64:8 64 3 8 --get fvcore_separable_macs --where fvcore_separable_macs>=290000"
    result = run(arguments)
    assert result.stdout.split() == [str(64 * ic * (9 + 64)) for ic in (64,)]


def test_blocks_are_sorted_by_any_field(run):
    result = run("blocks 64 64 3 28 --sort params --reverse --where mac_ratio<=0.13 --get name")
    assert result.stdout.split() == ["bottleneck", "grouped:8", "separable", "blueprint"]


def test_what_a_network_shows_changes_no_total(run):
    whole = loads(run("network mobilenet_v1 -f json").stdout)
    result = run("network mobilenet_v1 -f json --sort macs --top 3 --where macs>=30M")
    report = loads(result.stdout)
    assert report["total"] == whole["total"]
    heavy = sorted((row["macs"] for row in whole["rows"]), reverse=True)
    assert [row["macs"] for row in report["rows"]] == heavy[:3]
    shown = run("network mobilenet_v1 --sort macs --top 3 --where macs>=30M", columns=200).stdout
    title, table, lead = shown.split("\n\n")
    assert title.endswith("Table 1: 3 of 15 rows where macs >= 30M, by macs")
    _, _, *rows, total = table.splitlines()
    assert [row.split()[0] for row in rows] == ["sep3", "sep5", "sep7/1"]
    assert " 568,740,352 " in total
    assert lead.startswith("568,740,352 MACs (569 M), 4,209,088 params (4.21 M)")


@pytest.mark.parametrize("columns", [46, 80, 120])
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ("--sort activations", "activations"),
        ("--where activations>100K --top 3", "activations"),
        ("--assert activations>0", "activations"),
        ("--assert-each activations>=0 --sort macs", "activations"),
        ("--sort macs", "macs"),
        ("--as standard --where standard_macs<2M", "standard"),  # which replaces none of these
    ],
)
def test_a_field_that_is_named_has_one_column_at_any_width(options, field, columns, run):
    stdout = run(f"network mobilenet_v1 --no-verify {options}", columns=columns).stdout
    heads, rule, _ = stdout.split("\n\n")[1].partition("─")
    assert rule
    assert heads.lower().split().count(field) == 1


def test_rows_are_what_get_reads_if_asked(run):
    assert run("network vgg16 --get macs").stdout == "15470264320\n"
    each = run("network vgg16 --get macs --rows").stdout.split()
    assert sum(map(int, each)) == 15470264320
    assert len(each) > 16


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ("--top 2", "86704128 1849688064"),
        ("--sort params --top 1", "102760448"),
        ("--where macs<20M", "0 0 0 0 0 16777216 4096000"),
        ("--where macs<20M --assert macs>=15G", "0 0 0 0 0 16777216 4096000"),  # of the total
    ],
)
def test_rows_are_what_get_reads_if_rows_are_chosen(options, values, run):
    result = run(f"network vgg16 --no-verify --get macs {options}")
    assert (result.code, result.stdout.split()) == (0, values.split())


@pytest.mark.parametrize(
    ("assertion", "code", "said"),
    [
        ("macs<=60M", 0, "holds: macs <= 60M in all 16 rows\n"),
        ("macs<=54M", 1, "failed: macs <= 54M: sep3: macs is 54,992,896\n"),
        ("mac_ratio>=0", 0, "holds: mac_ratio >= 0 in all 15 rows\n"),  # the pool has none
    ],
)
def test_each_row_is_checked_if_asked(assertion, code, said, run):
    command = "network mobilenet_v1 --as separable --no-verify --assert-each"
    result = run(*command.split(), assertion)
    assert (result.code, result.stderr) == (code, said)


# Howard et al., MobileNets, 2017 (arXiv 1704.04861), Tables 6 and 7: million MACs.
WIDTHS = {"1": 569, "0.75": 325, "0.5": 149, "0.25": 41}
SIZES = {224: 569, 192: 418, 160: 290, 128: 186}


def test_the_tables_of_mobilenet_in_one_command(run):
    result = run(
        "network mobilenet_v1 --width-multiplier 0.25,0.5,0.75,1 --input-size 128:224:32 -f json"
    )
    report = loads(result.stdout)
    assert report["total"] is None
    assert len(report["rows"]) == 16
    macs = {(row["width_multiplier"], row["input_size"][0]): row["macs"] for row in report["rows"]}
    for width, millions in WIDTHS.items():
        assert abs(macs[float(width), 224] / 10**6 - millions) < 1
    for size, millions in SIZES.items():
        assert abs(macs[1, size] / 10**6 - millions) < 1
    alone = loads(
        run("network mobilenet_v1 --width-multiplier 0.5 --input-size 160 -f json").stdout
    )
    assert macs[0.5, 160] == alone["total"]["macs"]


def test_several_networks_are_a_row_each(run):
    result = run("network vgg16 resnet50 mobilenet_v2 --sort macs --reverse --verify -f json")
    rows = loads(result.stdout)["rows"]
    assert [(row["name"], row["macs"], row["crosscheck"]) for row in rows] == [
        ("mobilenet_v2", 300774272, "exact"),
        ("resnet50", 4089184256, "exact"),
        ("vgg16", 15470264320, "exact"),
    ]


def test_one_network_from_stdin_at_several_sizes(run, monkeypatch):
    from io import BytesIO, TextIOWrapper

    text = "kind,in_channels,out_channels,kernel_size,input_size\nconv,1,1,3,8\n"
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    assert run("network - --input-size 8,16,4x2 --get macs").stdout == "576\n2304\n72\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("3 64 3 8 --reverse", "--reverse needs --sort FIELD"),
        ("3 64 3 8 --top none", "--top must be a whole number such as 10, got 'none'"),
        ("3 64 3 8 --where kind>3", "cannot check 'kind>3': kind is not a number"),
        ("3 64 3 8 --where macs", "--where must be FIELD OP NUMBER, such as"),
        ("3 64 3 8 --sort mac_rati", "unknown field 'mac_rati'; did you mean mac_ratio"),
        (
            "1:20000 1 3 3 --sort mac_ratio -f csv",
            "--sort takes at most 10,000 rows, got",
        ),
        ("1:20000 1 3 3 --where in_channels>1", "more than 10,000 rows are left, too many for tab"),
        (
            "1:20000 1 3 3 --where in_channels>1 --plot x.svg -f csv",
            "more than 10,000 rows are left, too many for --plot; narrow --where, or add",
        ),
        (
            "1:20000 1 3 3 --top 15000",
            "more than 10,000 rows are left, too many for table; give a sm",
        ),
        ("3 64 3 8 --width-multiplier 1,2", "--width-multiplier takes a list only in dscalc netw"),
        ("3 64 3 8 --where mac_ratio<baseline", "--where cannot use baseline, got "),
        ("network vgg16 --assert-each macs<=baseline", "--assert-each cannot use baseline, "),
        ("network vgg16 alexnet --baseline x.json", "--baseline compares one network or mo"),
        ("network - -", "stdin can be read only once; give - once"),
        ("network vgg16 alexnet --show", "--show prints one file, got 2"),
        ("network vgg16 --input-size 8,x", "--input-size must be a size such as 3 or 3x5, got 'x'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments, reason, run):
    result = run(arguments)
    assert result.code == 2
    assert result.error.startswith(reason)


def test_a_picture_is_of_the_rows_that_are_left(run, tmp_path):
    picture = tmp_path / "a.svg"
    run(*["64", "8:64:8", "3", "8", "--where", "out_channels>=48", "--plot"], str(picture))
    drawn = picture.read_text("utf-8")
    assert "<!-- 56 -->" in drawn
    assert "<!-- 16 -->" not in drawn


def test_no_picture_is_drawn_of_nothing(run, tmp_path):
    picture = tmp_path / "a.svg"
    result = run(
        *["64", "8:64:8", "3", "8", "--where", "out_channels>=480", "--plot"], str(picture)
    )
    assert result.code == 1
    assert not picture.exists()


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ("--input-size 128,224 --width-multiplier 0.5,1", ["input size", "mobilenet_v2, width 1"]),
        ("--width-multiplier 0.5,1", ["width multiplier", "mobilenet_v2"]),
        ("", ["params", "mobilenet_v2"]),
    ],
)
def test_several_networks_are_drawn_over_what_varies(scales, said, run, tmp_path):
    picture = tmp_path / "a.svg"
    command = f"network mobilenet_v1 mobilenet_v2 {scales} --plot"
    assert run(*command.split(), str(picture)).code == 0
    drawn = picture.read_text("utf-8")
    assert all(words in drawn for words in said)


def test_what_only_the_rows_shown_share_is_not_said_of_all(run):
    shown = run("64 64:256:x2 3,5 56 --where mac_ratio<=5% --no-verify").stdout
    assert shown.startswith("6 layers, padding same; shown: F 5x5, D 56x56\n")
    starred = "* the standard convolution, which the others replace"
    assert starred in run("blocks 64 64 3 56 --only separable").stdout
    assert starred not in run("blocks 64 64 3 56 --only separable --where mac_ratio<1").stdout
