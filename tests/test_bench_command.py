"""``dscalc bench``: what is shown of given times, in every format. Never a time."""

import json
import sys

import pytest
from vocabulary import fields

from dscalc import Conv, DscalcError, benchmark
from dscalc.bench import timing
from dscalc.core.blocks import Block
from dscalc.core.row import layer_row

LAYER = "512 512 3 14"
GRID = "2,4 8 3 14"


def test_one_layer_is_shown_part_by_part_with_a_verdict(timed, run):
    result = run(f"bench {LAYER}")
    assert (result.code, result.stderr) == (0, "")
    title, _, header, _, *rows = result.stdout.splitlines()[:8]
    assert title == "512 -> 512 channels, 3x3 kernel, 14x14 map, padding same"
    assert header.split()[:3] == ["time,", "us", "IQR,"]
    assert rows[0].split() == (
        ["standard", "1,000.0", "10.0", "462,422,016", "924.8", "10,240,000", "90.3"]
    )
    assert rows[3].split()[:4] == ["separable", "2.0", "0.0", "52,283,392"]
    assert "8.84x fewer MACs, 510x faster (510 to 520)\n" in result.stdout
    assert "Some CPU, 2 threads, float32, torch 2.13.0" in result.stdout.replace("\n", " ")


def test_progress_moves_during_a_layer(timed):
    report, shares = benchmark([8, 16], 8, 3, 14, blocks=["separable", "grouped:2"]), []
    report.progress = shares.append
    assert len(list(report.rows)) == 4
    assert shares == [1, 1]  # half of the time of two rows, twice


def test_a_grid_is_one_row_a_layer(timed, run):
    result = run("bench 2,4 8 3 14,28")
    assert [row.layer for row in timed.rows] == [
        Conv(ic, 8, 3, d) for ic in (2, 4) for d in (14, 28)
    ]
    rows = [line for line in result.stdout.splitlines() if "->" in line]
    verdicts = ["2x faster"] * 2 + ["4x faster"] * 2
    assert all(verdict in row for verdict, row in zip(verdicts, rows, strict=True))
    assert result.stdout.startswith("4 layers, padding same, F 3x3\n")


def test_every_option_reaches_the_layer_and_the_settings(timed, run):
    options = "--dtype bfloat16 --threads 1 --channels-last --min-run-time 0.25 --backward"
    assert run(f"bench 8 16 3x5 14 -s 2 --bias -b 4 -m 2 {options}").code == 0
    assert timed.settings == [timing.Settings("cpu", "bfloat16", 1, True, False, 0.25, True)]
    conv = Conv(8, 16, (3, 5), 14, stride=2, bias=True, batch_size=4)
    [row] = timed.rows
    assert row == layer_row(conv, Block("separable", (2,)), row.name)


def test_machine_formats_hold_the_times_and_where_they_were_taken(timed, run):
    report = json.loads(run(f"bench {GRID} -f json").stdout)
    assert report["total"] is None
    assert [row["speedup"] for row in report["rows"]] == [2.0, 4.0]
    for row in report["rows"]:
        assert (row["device_name"], row["threads"], row["compile"]) == ("Some CPU", 2, False)
        assert (row["depthwise_time_us"], row["pointwise_time_us"]) == (10.0, 10.0)
    [macs] = json.loads(run(f"bench {LAYER} -f json").stdout)["rows"]
    [flops] = json.loads(run(f"bench {LAYER} -f json --unit flops").stdout)["rows"]
    assert flops["standard_flops"] == 2 * macs["standard_macs"]
    assert flops["standard_intensity"] == macs["standard_intensity"]
    assert "FLOPs" in run(f"bench {LAYER} --unit flops").stdout


def test_values_and_assertions(timed, run):
    values = "--get speedup --get standard_time_us --get noisy"
    assert run(f"bench {GRID} {values}").stdout == "2.0\t1000.0\tfalse\n4.0\t1000.0\tfalse\n"
    for form in ("table", "csv"):
        failing = run(f"bench {GRID} -f {form} --assert speedup>=3")
        assert failing.code == 1
        assert failing.stderr == (
            "failed: speedup >= 3: 2 -> 8 channels, 3x3 kernel, 14x14 map, padding same: "
            "speedup is 2\n"
        )
    holding = run(f"bench {GRID} --assert speedup>=2")
    assert holding[::2] == (0, "holds: speedup >= 2 in all 2 rows\n")


@pytest.mark.parametrize("field", ["speedup", "speedup_low", "separable_time_us"])
def test_times_that_decide_nothing_answer_no_assertion(field, timed, run):
    timed.spread = 2.0
    result = run(f"bench {LAYER} --assert {field}<=1e9 --assert mac_ratio<=1/8 -f markdown")
    first, second = result.stderr.splitlines()
    assert result.code == 2
    assert first == (
        f"error: cannot check '{field} <= 1e9': 512 -> 512 channels, 3x3 kernel, 14x14 map, "
        "padding same: it is not decided which is faster; measure longer with "
        "a larger --min-run-time"
    )
    assert second == "holds: mac_ratio <= 1/8"
    assert "8.84x fewer MACs, not decided\n" in result.stdout
    assert f"- [ ] {field} \\<= 1e9: not known".replace("_", r"\_") in result.stdout


def test_times_that_decide_nothing_satisfy_no_condition_and_are_not_near_it(timed, run):
    timed.spread = 2.0
    result = run(f"bench {LAYER} --where standard_time_us>=1 --get verdict")
    assert result == (1, "", "failed: no row has standard_time_us >= 1\n")


@pytest.mark.parametrize("layer", ["100000 100000 99 9999", "100000,99999 100000 99 9999"])
def test_a_layer_too_large_to_be_measured_is_named(layer, run):
    first = run(f"bench {layer}").stderr.splitlines()[0]
    assert first.startswith("error: 100000 -> 100000 channels, 99x99 kernel, 9999x9999 map, ")
    assert " needs about 1,896 TB to be measured, but cpu has " in first


def test_several_blocks_are_a_row_each_and_cheapest_first(timed, run):
    result = run("bench 64 64 3 56 --as fused,separable,grouped:8", columns=100)
    names = [str(row.block) for row in timed.rows]
    assert names == ["fused", "separable", "grouped:8"]
    assert len(timed.settings) == 1  # they take turns with each other
    lines = result.stdout.splitlines()
    assert lines[0] == "64 -> 64 channels, 3x3 kernel, 56x56 map, padding same"
    assert [line.split()[0] for line in lines[4:8]] == [
        "grouped:8", "separable", "fused", "standard",
    ]  # fmt: skip
    assert lines[7].split() == ["standard", "1,000.0", "115,605,504"]
    fields = "name macs standard_macs time_us speedup verdict page_faults"
    got = run(f"bench 64 64 3 56 --as separable,spatial --get {fields.replace(' ', ' --get ')}")
    assert got.stdout.splitlines()[0].split("\t") == [
        "separable", "14651392", "115605504", "15.625", "64.0", "faster", "0.0",
    ]  # fmt: skip


def test_all_blocks_of_a_grid_and_why_some_are_left_out(timed, run):
    result = run("bench 3,64 64 3 56 --as all --get name")
    assert result.stderr == "left out: grouped:8: 8 groups do not divide 3 channels\n"
    assert len(result.stdout.splitlines()) == 7 + 8
    table = run("bench 3 64 3 56 --as all").stdout
    assert "left out: grouped:8: 8 groups do not divide 3 channels" in table
    # Asked for by its name, it must exist.
    refused = run("bench 3 64 3 56 --as separable,grouped:8")
    assert (refused.code, refused.error) == (
        2,
        "grouped:8: 8 groups do not divide 3 channels",
    )
    assert run("bench 3,5 64 3 56 --as grouped:8").error.startswith("no layer is left; left out")


def test_forward_and_backward_are_named_together(timed, run, monkeypatch):
    from times import HERE, took

    both = HERE._replace(backward=True)
    monkeypatch.setattr(timing, "time_rows", lambda rows, *_: [took(rows[0], 9, 3, here=both)])
    text = run(f"bench {LAYER} --backward").stdout.replace("\n", " ")
    assert "3x faster forward and backward " in text
    assert "of forward and backward together on Some CPU" in text


def test_a_plot_of_one_reduction_has_the_axis_that_varies(timed, run, tmp_path):
    path = tmp_path / "speed.svg"
    assert run(f"bench 64 64 3 14,28 --plot {path}").code == 0
    picture = path.read_text("utf-8")
    assert "<!-- feature map size (D) -->" in picture
    assert "<!-- speed-up, standard / separable time -->" in picture
    assert "MAC reduction" not in picture


def test_a_plot_over_the_reduction_names_only_what_varies(timed, run, tmp_path):
    path = tmp_path / "speed.svg"
    assert run(f"bench 64 64 3 56 --as all --plot {path}").code == 0
    picture = path.read_text("utf-8")
    assert "<!-- MAC reduction, standard / block -->" in picture
    assert "<!-- speed-up of 8 blocks over standard: 64 -&gt; 64 channels" in picture
    assert "<!-- bottleneck -->" in picture
    assert run(f"bench 64 8,64 3 56 --plot {path}").code == 0
    assert "<!-- OC 8 -->" in path.read_text("utf-8")


def test_points_have_whiskers_and_are_hollow_where_not_decided(timed):
    from times import took

    from dscalc.bench.picture import _figure
    from dscalc.core.blocks import SEPARABLE
    from dscalc.report.drawing import COLOURS
    from dscalc.report.report import Report

    rows = [layer_row(Conv(64, 64, 3, d), SEPARABLE) for d in (14, 28)]
    given = [took(rows[0], 4.0, 2.0, spread=1.1), took(rows[1], 1.0, 1.0, spread=1.5)]
    [axes] = _figure(Report("bench", SEPARABLE, fields("bench", SEPARABLE), given)).axes
    points = {bar.get_label(): bar for bar in axes.containers}
    assert points["decided"][0].get_markerfacecolor() == COLOURS[0]
    assert points["not decided"][0].get_markerfacecolor() == "white"
    [[(_, low), (_, high)]] = points["decided"][2][0].get_segments()
    assert (low, high) == (2 / 1.1, 2 * 1.1)


def test_noisy_points_are_diamonds_and_wide_spans_have_logarithmic_axes(timed):
    from times import took

    from dscalc.bench.picture import _figure
    from dscalc.core.blocks import SEPARABLE
    from dscalc.report.report import Report

    rows = [layer_row(Conv(64, 64, f, 14), SEPARABLE) for f in (1, 9)]
    given = [took(rows[0], 4.0, 2.0, iqr=1.0), took(rows[1], 1.0, 1.0)]
    [axes] = _figure(Report("bench", SEPARABLE, fields("bench", SEPARABLE), given)).axes
    points = {bar.get_label(): bar for bar in axes.containers}
    assert points["decided, noisy"][0].get_marker() == "D"
    assert points["not decided"][0].get_marker() == "o"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_ctrl_c_shows_what_was_measured_and_exits_with_130(timed, run):
    timed.raising[4] = KeyboardInterrupt()
    result = run("bench 2,3,4,5 8 3 14 --get speedup")
    assert result.code == 130
    assert [round(float(line)) for line in result.stdout.splitlines()] == [2, 3]


def test_ctrl_c_before_anything_was_measured_leaves_the_file_of_before(timed, run, tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("old")
    timed.raising[2] = KeyboardInterrupt()
    assert run(f"bench 2,3 8 3 14 -o {path}") == (130, "", "interrupted\n")
    assert path.read_text() == "old"
    del timed.raising[2]
    timed.raising[3] = KeyboardInterrupt()
    assert run(f"bench 2,3 8 3 14 -o {path}").code == 130
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("form", ["csv", "table"])
def test_a_layer_that_is_refused_leaves_the_others(form, timed, run):
    timed.raising[3] = DscalcError("it does not fit")
    result = run(f"bench 2,3,4 8 3 14 -f {form}")
    assert (result.code, result.stderr) == (2, "error: it does not fit\n")
    assert result.stdout.count("2.0" if form == "csv" else "->") >= 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--threads 0", "--threads must be at least 1, got 0"),
        ("--threads two", "--threads must be a whole number such as 64, got 'two'"),
        ("--min-run-time 0", "min_run_time must be a number of seconds greater than 0, got 0.0"),
        ("--device tpu", "invalid value for '--device': 'tpu' is not one of 'cpu', 'cuda', 'mps'"),
        ("--dtype int8", "invalid value for '--dtype': 'int8' is not one of 'float32'"),
        ("--min-run-time soon", "--min-run-time must be a number such as 0.5"),
        ("--assert speedupp>1", "unknown field 'speedupp'; did you mean speedup"),
        ("--assert verdict>1", "cannot check 'verdict>1': verdict is not a number"),
        ("--as separable,standard", "--as standard is what the layer is compared with"),
        ("--as all -m 2", "--depth-multiplier is short for --as separable:2; drop one of them"),
        ("--assert device>1", "cannot check 'device>1': device is not a number"),
        ("--plot x.png", "--plot needs more than one row; give a list or a range, or --as all,"),
        ("--device cuda", "device cuda is not available to torch "),
    ],
)
def test_bad_input_is_one_line_before_any_measurement(options, reason, timed, run, monkeypatch):
    monkeypatch.setitem(timing._DEVICES, "cuda", lambda: False)
    result = run(f"bench {LAYER} {options}")
    assert (result.code, result.stdout, timed.rows) == (2, "", [])
    assert result.error.startswith(reason)


def test_a_real_measurement_runs_through(run):
    result = run("bench 2 3 3 4 --min-run-time 0.01 --get standard_time_us --get separable_time_us")
    assert result.code == 0
    assert all(float(value) > 0 for value in result.stdout.split("\t"))


def test_measurements_are_streamed(timed, run, monkeypatch):
    written = []

    def write(lines):
        written.extend((line, len(timed.rows)) for line in lines)

    monkeypatch.setattr(sys.stdout, "writelines", write)
    assert run("bench 2,3 8 3 14 -f csv").code == 0
    assert [measured for _, measured in written] == [0, 1, 2]


def test_rows_are_picked_once_they_are_measured(timed, run):
    ask = "bench 64 64 3 14,28,56 --get input_size"
    assert run(f"{ask} --where mac_reduction>=8").code == 1
    assert run(f"{ask} --sort standard_macs --top 2").stdout == "56x56\n28x28\n"
