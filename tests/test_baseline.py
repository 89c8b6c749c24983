"""What changed since an earlier report: reading it back, finding changes, showing them."""

import json
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import rewrites
from vocabulary import fields, find, values

from dscalc import Block, Cost, DscalcError, Row, network
from dscalc.baseline.call import changes_since
from dscalc.baseline.changes import changes
from dscalc.baseline.earlier import Baseline, read_baseline
from dscalc.baseline.view import change_fields, field_of_total
from dscalc.checks.assertion import Assertion
from dscalc.core.row import Side, Sizes, layer_row, total, with_shares
from dscalc.inputs.network_file import shipped
from dscalc.report import text
from dscalc.report.report import Report

HEADER = "name,kind,in_channels,out_channels,kernel_size,input_size\n"
BEFORE = "stem,conv,3,32,3,64\nbody,conv,,64,3,\nhead,conv,,10,1,\n"
AFTER = "stem,conv,3,32,3,64\nbody,separable,,64,3,\nextra,conv,,64,3,\nlast,conv,,10,1,\n"


@pytest.fixture
def files(here, run):
    """Two designs, a report of the first, and this folder to work in."""
    (here / "a.csv").write_text(HEADER + BEFORE)
    (here / "b.csv").write_text(HEADER + AFTER)
    assert run("network a.csv --no-verify -f json -o main.json").code == 0
    return here


def row(name, kind, channels, macs, params):
    side = Side(Cost(macs, params))
    return Row(name, kind, Sizes(in_channels=channels), side, side)


lists = st.lists(
    st.builds(
        row, st.sampled_from("abcdef"), st.sampled_from(["conv", "linear"]),
        st.integers(1, 3), st.integers(0, 3), st.integers(0, 2),
    ),
    max_size=8,
)  # fmt: skip


@given(lists, lists)
def test_every_row_changes_once_and_the_differences_come_to_that_of_the_totals(before, after):
    found = changes(before, after)
    assert Counter(map(id, before)) == Counter(id(c.before) for c in found if c.before)
    assert [id(row) for row in after] == [id(c.after) for c in found if c.after]
    for noun in ("macs", "params"):
        of_totals = [getattr(total(rows).as_is.cost, noun) for rows in (before, after)]
        assert sum(c.difference(noun) for c in found) == of_totals[1] - of_totals[0]
    for kind, one, other in found:
        if kind in ("added", "removed"):
            assert (one is None, other is None) == (kind == "added", kind == "removed")
            continue
        costs = [(side.as_is.cost.macs, side.as_is.cost.params) for side in (one, other)]
        sign = (costs[1] > costs[0]) - (costs[1] < costs[0])
        assert kind in ({1: ["dearer"], -1: ["cheaper"]}.get(sign, ["same", "renamed"]))
        assert (kind == "renamed") <= (one.name != other.name)
        assert (kind == "same") <= (one.name == other.name)


@given(lists)
def test_nothing_changes_from_rows_to_themselves(rows):
    assert all(change.kind == "same" for change in changes(rows, list(rows)))


def test_an_inserted_layer_renames_those_that_follow_it():
    before = [row("0", "conv", 1, 9, 1), row("1", "conv", 2, 8, 1), row("2", "relu", 2, 0, 0)]
    after = [before[0], row("1", "conv", 3, 7, 1), *(r._replace(name=f"{n}") for n, r in
             enumerate(before[1:], 2))]  # fmt: skip
    kinds = [(c.kind, c.before and c.before.name, c.row.name) for c in changes(before, after)]
    assert kinds == [
        *(("same", "0", "0"), ("added", None, "1")),
        *(("renamed", "1", "2"), ("renamed", "2", "3")),
    ]


def read_again(report, path):
    path.write_text("".join(text.json(report)), encoding="utf-8")
    return read_baseline(str(path), report.command, report.block)


def holds_against_itself(report, baseline):
    """Whether all that is a number equals itself, exactly."""
    asked = partial(find, command=report.command, block=report.block, unit=report.unit)
    for field in report.fields:
        if field.is_number and field.read(report.total) is not None:
            for operator in ("<=", "==", ">="):
                numbers = {"baseline": baseline.total}
                assertion = Assertion.parse(f"{field.name} {operator} baseline", asked, numbers)
                assert assertion.holds(report.total, numbers), field.name
    assert {change.kind for change in changes_since(report, baseline).changes} <= {"same"}


@given(
    rewritten=st.lists(rewrites(dims=2), min_size=1, max_size=4),
    unit=st.sampled_from(["macs", "flops"]),
)
def test_a_report_is_read_back_as_it_was(rewritten, unit, tmp_path_factory):
    block = rewritten[0][1]._replace(biases=())
    rows = [layer_row(conv, block, f"r{n}") for n, (conv, _) in enumerate(rewritten)
            if conv.groups == 1]  # fmt: skip
    if not rows:
        return
    known = fields("network", block, unit)
    report = Report("network", block, known, with_shares(rows), total(rows), unit=unit)
    baseline = read_again(report, tmp_path_factory.getbasetemp() / "main.json")
    for written, read in zip([*report.rows, report.total], [*baseline.rows, baseline.total],
                             strict=True):  # fmt: skip
        assert values(read, report.fields) == values(written, report.fields)
    holds_against_itself(report, baseline)


@given(data=st.data())
def test_a_damaged_report_is_read_or_named_in_one_line(data, tmp_path_factory):
    report = network("alexnet")
    content = bytearray("".join(text.json(report)).encode())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.sampled_from(b'0123456789,:"[]{}-.ex\n\x00\xff'))
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(content)
    reason = ""
    try:
        since = changes_since(report, read_baseline(str(path), "network", report.block))
        assert "".join(text.json(since))
    except DscalcError as error:
        reason = str(error)
    assert not reason or reason.isprintable()


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("as_", [None, "standard", "separable", "bottleneck"])
def test_a_network_costs_what_it_cost(name, as_, tmp_path):
    report = network(name, block=as_)
    holds_against_itself(report, read_again(report, tmp_path / "main.json"))


def test_a_rounded_ratio_would_not_hold():
    """The reason why ratios are worked out again: here the float is below the exact ratio."""
    ratio = network("mobilenet_v2", block="standard").total.mac_ratio
    assert not ratio <= float(ratio)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("macs <= baseline", 1),
        ("macs <= 2.05 * baseline", 0),
        ("macs<=2.04*baseline", 1),
        ("macs <= 205% * baseline", 0),
        ("mac_ratio > baseline", 0),
        ("params_difference == 20768", 0),
        ("macs_difference <= 85065727", 1),
        ("baseline_macs == 81657856", 0),
    ],
)
@pytest.mark.parametrize("as_", [(), ("--as", "standard")], ids=["as it is", "as standard"])
def test_assertions_read_the_baseline(as_, asked, code, files, run):
    run("network", "a.csv", "--no-verify", *as_, "-o", "main.json")
    args = ("network", "b.csv", "--no-verify", *as_, "--baseline", "main.json", "--get", "macs")
    result = run(*args, "--assert", asked)
    if "ratio" in asked and not as_:
        assert result.error == "mac_ratio needs --as BLOCK, such as --as separable"
        return
    assert (result.code, result.stdout) == (code, "166723584\n")
    if "<= baseline" in asked:
        assert result.stderr == f"failed: {asked}: macs is 166,723,584; baseline is 81,657,856\n"


def test_flops_are_twice_the_macs_of_a_baseline_in_macs(files, run):
    args = "network b.csv --no-verify --unit flops --get baseline_flops --get flops_difference"
    assert run(f"{args} --baseline main.json").stdout == f"{2 * 81657856}\t{2 * 85065728}\n"
    run("network a.csv --no-verify --unit flops -f json -o flops.json")
    assert run(f"{args} --baseline flops.json").stdout == f"{2 * 81657856}\t{2 * 85065728}\n"


def test_every_machine_format_has_all_changes(files, run):
    args = "network b.csv --no-verify --baseline main.json"
    plain = json.loads(run("network b.csv --no-verify -f json").stdout)
    report = json.loads(run(f"{args} -f json").stdout)
    since = report.pop("baseline")
    assert report == plain
    assert since["file"] == "main.json"
    assert since["total"] == json.loads((files / "main.json").read_text())["total"]
    kinds = {change["name"]: change["change"] for change in since["changes"]}
    assert kinds == {"stem": "same", "body": "cheaper", "extra": "added", "last": "renamed"}
    lines = run(f"{args} -f jsonl").stdout.splitlines()
    assert list(map(json.loads, lines)) == since["changes"]
    header, *rows = run(f"{args} -f csv").stdout.splitlines()
    assert header.split(",") == [field.name for field in change_fields("macs")]
    assert rows[1:] == [
        "cheaper,body,separable,body,9568256,75497472,-65929216,2336,18432,-16096",
        "added,extra,conv,,150994944,0,150994944,36864,0,36864",
        "renamed,last,pointwise,head,2621440,2621440,0,640,640,0",
    ]


def test_markdown_is_read_from_the_top(files, run):
    shown = run("network b.csv --no-verify --baseline main.json -f markdown").stdout.splitlines()
    assert shown[0] == "**104.2% more MACs, 104.2% more params: b.csv against main.json**"
    assert [line.split(" |")[0] for line in shown[4:8]] == [
        *("| **total**", "| extra", "| body", "| head -> last")
    ]
    assert shown[9] == "1 row stayed the same: 3,538,944 MACs, 864 params"


def test_people_read_the_dearest_twenty_and_how_many_more(files, run):
    rows = "".join(f"c{n},conv,,{n},1,\n" for n in range(1, 31))
    (files / "long.csv").write_text(HEADER + "stem,conv,3,32,3,64\n" + rows)
    args = "network long.csv --no-verify --baseline main.json"
    for form in ("table", "markdown", "svg"):
        shown = run(f"{args} -f {form}").stdout.replace("&#160;", " ")
        assert shown.count("added") == 20 + 1
        assert "12 more changes, which -f csv lists: 10 added, 2 removed;" in shown
    lines = run(f"{args} -f markdown").stdout.splitlines()[5:25]
    differences = [int(line.split(" | ")[4].replace(",", "")) for line in lines]
    assert differences == sorted(differences, reverse=True)


def test_a_list_of_layers_is_a_baseline_too(files, run):
    args = "network b.csv --no-verify --input-size 32 --get baseline_macs --baseline a.csv"
    assert run(args).stdout == f"{81657856 // 4}\n"


def test_a_folder_is_no_baseline_and_is_not_written_over(files, run):
    (files / "older").mkdir()
    error = run("network b.csv --no-verify --baseline older").error
    assert error == "cannot read the baseline older: Is a directory"
    (files / "older/x.json").mkdir()
    (files / "note.txt").write_text("an old note")
    error = run("network b.csv --no-verify --baseline note.txt").error
    assert error.endswith("network b.csv -o note.json; then give --baseline note.json")
    (files / "note.json").mkdir()
    error = run("network b.csv --no-verify --baseline note.txt").error
    assert error.endswith("network b.csv -o baseline.json; then give --baseline baseline.json")


def test_a_width_changes_costs_and_no_names(files, run):
    """Of twice the width, a layer has the sizes that the next one had."""
    for name, width in (("narrow", 8), ("wide", 16)):
        rows = f"a,conv,3,{width},3,16\nb,conv,,{2 * width},3,\nc,conv,,{4 * width},3,\n"
        (files / f"{name}.csv").write_text(HEADER + rows)
    run("network narrow.csv --no-verify -o narrow.json")
    wide = "network wide.csv --no-verify --baseline narrow.json"
    changes = json.loads(run(f"{wide} -f json").stdout)["baseline"]["changes"]
    assert [(change["name"], change["change"]) for change in changes] == [
        ("a", "dearer"), ("b", "dearer"), ("c", "dearer")
    ]  # fmt: skip
    refused = run(f"{wide} --rows --get macs_difference")
    assert refused.error.startswith("unknown field 'macs_difference'")
    assert run(f"{wide} --rows --get macs").stdout.split() == ["110592", "1179648", "4718592"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no baseline x.json"),
        ("", "is neither a JSON report nor a list of layers (line 1: it has no"),
        ('{\n  "schema": "dscalc/3",\n', "is not JSON (Expecting"),
        ('{"schema": "dscalc/3"}', "does not say which command wrote it"),
        ("[1]", "is neither a JSON report nor a list of layers (line 1: it beg"),
        (("dscalc/3", "dscalc/2"), "has the schema dscalc/2, but this version reads dscalc/3; "),
        (('"network"', '"model"'), "is a report of dscalc model, but this"),
        (('"total": {', '"total": null, "x": {'), "has no total: it holds"),
        (("2621440", "2621440.0"), "is damaged: macs of row 3"),
        (("2621440", "-1"), "is damaged: macs of row 3 is -1"),
        (("2621440", "true"), "is damaged: macs of row 3 is"),
        (('"params": 640,', ""), "is damaged: params of row 3"),
        (('"head"', "7"), "is damaged: name of row 3 is 7"),
        (("2621440", "9"), "has a total of 81,657,856 MACs and 19,936 params, but its rows "),
        (("[3, 3]", "[3, {}]"), "is damaged: kernel_size of"),
        (("[3, 3]", "3"), "is damaged: kernel_size of"),
    ],
)  # fmt: skip
def test_a_wrong_baseline_is_one_line_and_nothing_is_written(content, reason, files, run):
    if isinstance(content, tuple):
        content = (files / "main.json").read_text().replace(*content)
    if content is not None:
        (files / "x.json").write_text(content)
    result = run("network b.csv -b 2 --baseline x.json -f json -o out.json")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.removeprefix("the baseline x.json ").startswith(reason)
    ours = content is None or ('"schema": "dscalc' in content and '"command": "network"' in content)
    ours |= result.error.startswith("the baseline x.json is not JSON")  # which began as a report
    file = "x.json" if ours else "baseline.json; then give --baseline baseline.json"
    assert result.error.endswith(f"write one with: dscalc network b.csv -b 2 -o {file}")
    assert not (files / "out.json").exists()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_rows_of_a_report_alone_are_no_baseline(form, files, run):
    run(f"network a.csv --no-verify -f {form} -o main.{form}")
    error = run(f"network b.csv --baseline main.{form}").error
    assert "which has no total" in error
    advice = "dscalc network b.csv -o baseline.json; then give --baseline baseline.json"
    assert error.endswith(advice)  # and not over the file that was given, or main.json


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("3 64 3 224 --assert separable_macs<=baseline", "baseline needs --baseline FILE"),
        ("network b.csv --assert macs<=baseline", "baseline needs --baseline FILE"),
        ("network b.csv --baseline main.json --assert macs<=*baseline", "must be a number"),
        ("network b.csv --baseline main.json --assert macs<=baseline*2", "NUMBER * baseline"),
        ("network b.csv --baseline main.json --assert kind==baseline", "kind is not a number"),
        ("network b.csv --get macs_difference", "unknown field 'macs_difference'"),
        ("network b.csv --baseline .", "cannot read the baseline .: Is a directory"),
    ],
)
def test_what_cannot_be_asked_of_a_baseline_is_one_line(command, reason, files, run):
    result = run(f"{command} --no-verify")
    assert result.code == 2
    assert reason in result.error


def test_what_the_baseline_does_not_know_is_an_error(files, run):
    result = run("network", "b.csv", "--no-verify", "-q", "--baseline", "a.csv", "--assert",
                 "fvcore_macs <= baseline")  # fmt: skip
    assert result.code == 2
    unknown = network("a.csv", block=Block.parse("separable")).total._replace(unknown={"an fft": 1})
    baseline = Baseline("main.json", [], unknown)
    with pytest.raises(DscalcError, match="macs_difference is not known"):
        field_of_total("macs_difference", baseline, str, "macs")


def test_nothing_changed_has_a_total_all_the_same(files, run):
    shown = run("network a.csv --no-verify --baseline main.json").stdout.splitlines()
    assert shown[0] == "the same MACs and params: a.csv against main.json"
    assert [line.split() for line in shown if line.startswith("total")] == [
        ["total", "81,657,856", "81,657,856", "0", "0.00%", "19,936", "0"]
    ]


def test_a_baseline_serves_a_run_as_it_is_and_one_with_the_same_block(files, run):
    """CI writes one file, without --as."""
    run("network a.csv --no-verify --as fused -o fused.json")
    ask = "network b.csv --no-verify --get macs_difference"
    for as_, baseline in [("", "fused"), ("--as fused", "main"), ("--as fused", "fused")]:
        assert run(f"{ask} {as_} --baseline {baseline}.json").stdout == f"{166723584 - 81657856}\n"
    args = "network b.csv --no-verify --as fused --baseline main.json"
    written = json.loads((files / "main.json").read_text())["total"]
    before = json.loads(run(f"{args} -f json").stdout)["baseline"]["total"]
    assert {name: before[name] for name in written} == written
    assert {before[name] for name in before.keys() - written.keys()} == {None, ""}  # kept is ""
    for field in ("mac_ratio", "fused_macs", "saved_macs", "fvcore_fused_macs"):
        assert run(f"{args} --assert {field}<=baseline".replace("--no-verify ", "")).error == (
            f"cannot check '{field} <= baseline': {field} has no value in the baseline, "
            "which was written without --as"
        )
    assert run(f"{ask} --as separable --baseline fused.json").error == (
        "the baseline fused.json was written with --as fused, but this is --as separable; write "
        "one with: dscalc network b.csv --as separable -o fused.json"
    )


def test_the_shown_command_writes_the_baseline(files, run):
    question = "network b.csv --width-multiplier 0.5 --as separable --bias --baseline new.json"
    advice = run(f"{question} --no-verify").error.partition("write one with: dscalc ")[2]
    assert run(advice).code == 0
    assert run(f"{question} --no-verify --get macs_difference").stdout == "0\n"


MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8, fft=False):
        super().__init__()
        self.convs, self.head, self.fft = nn.Conv2d(3, width, 3), nn.Linear(width, 2), fft

    def forward(self, x):
        x = self.head(torch.relu(self.convs(x)).mean((2, 3)))
        return torch.fft.fft(x).real if self.fft else x
"""


def test_a_model_is_held_against_an_earlier_one(files, run):
    (files / "baseline_nets.py").write_text(MODEL)
    args = ["model", "baseline_nets.py:Net", "--input", "3x8x8", "--as", "separable"]
    assert run(*args, "-f", "json", "-o", "model.json").code == 0
    args += ["--baseline", "model.json"]
    numbers = ("macs", "params", "mac_ratio", "mac_reduction", "param_ratio", "torch_macs",
               "trainable_params", "known_macs")  # fmt: skip
    same = [word for name in numbers for word in ("--assert", f"{name} == baseline")]
    assert run(*args, *same, "--get", "macs_difference").stdout == "0\n"
    report = json.loads(run(*args, "--kwargs", '{"width": 16}', "-f", "json").stdout)
    assert run(*args, "--top", "1").error == (
        "--baseline shows what changed; drop --where, --sort and --top"
    )
    found = report["baseline"]["changes"]
    assert {c["name"]: c["change"] for c in found if c["macs"]} == {
        "convs": "dearer", "head": "dearer",
    }  # fmt: skip
    for noun in ("macs", "params"):
        total = report["total"][noun] - report["baseline"]["total"][noun]
        assert sum(change[f"{noun}_difference"] for change in found) == total > 0
    fft = run(*args, "--kwargs", '{"fft": true}', "-f", "markdown", "--assert", "macs <= baseline")
    assert fft.code == 2
    assert fft.stdout.startswith("**MACs not known, the same params: baseline\\_nets.py:Net")
    assert "\n\nno formula for aten::\\_fft\\_r2c\n\n" in fft.stdout
    error = run("model", "baseline_nets.py:Net", "--input", "3x8x8", "--baseline", "a.csv").error
    assert error.endswith(
        "not a JSON report of dscalc; write one with: dscalc model baseline_nets.py:Net "
        "--input 3x8x8 -o a.json; then give --baseline a.json"
    )


def test_a_baseline_of_another_batch_or_size_is_said(files, run):
    shown = run("network a.csv -b 2 --input-size 16 --baseline main.json -f markdown").stdout
    assert "the baseline has a batch of 1, and this one of 2" in shown
    assert "the baseline begins at 64x64, and this at 16x16" in shown
    assert "begins at" not in run("network a.csv --baseline main.json -f markdown").stdout


def test_a_model_whose_macs_are_not_known_is_its_own_baseline(files, run):
    (files / "ffts.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Sequential):\n"
        "    def forward(self, x):\n        return torch.fft.rfft2(super().forward(x))\n"
        "net = Net(nn.Conv2d(3, 8, 3))\n"
    )
    args = "model ffts.py:net --input 3x8x8"
    assert run(f"{args} -o main.json").code == 0
    result = run(f"{args} --baseline main.json -f csv --assert known_macs==baseline -q")
    assert (result.code, result.stderr) == (0, "")
    assert run(f"{args} --baseline main.json --assert macs<=baseline").error == (
        "cannot check 'macs <= baseline': macs is not known in the baseline: no formula for "
        "aten::_fft_r2c"
    )
    assert [line.split(",")[0] for line in result.stdout.splitlines()[1:]] == ["same", "same"]
