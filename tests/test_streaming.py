"""Large grids: memory, refusals, what is counted and what is held."""

import csv
import json
import re
import time
from importlib import import_module

import pytest
from measuring import Measured

from dscalc.core.blocks import STANDARD
from dscalc.inputs.network_file import load_network

# The package also exports the function of this name.
THE_MODULE = import_module("dscalc.pytorch.crosscheck")

STREAMED = ["-f csv", "-f jsonl"]


def test_a_grid_is_streamed_in_constant_memory():
    """Peaks in kilobytes of grids of 2,000 and of 40,000 rows, all run at once."""
    runs = {
        (rows, form): Measured(f"1:{rows // 1000} 1:1000 3 14 {form}")
        for rows in (2000, 40_000)
        for form in STREAMED
    }
    peaks = {key: run.peak() for key, run in runs.items()}
    for form in STREAMED:
        assert peaks[40_000, form] - peaks[2000, form] < 1500


def test_a_streamed_grid_is_complete_and_in_order(run):
    rows = list(csv.DictReader(run("1:4 1:500 3 14:15 -f csv").stdout.splitlines()))
    assert [(row["in_channels"], row["out_channels"], row["input_size"]) for row in rows] == [
        (str(ic), str(oc), f"{d}x{d}")
        for ic in range(1, 5)
        for oc in range(1, 501)
        for d in (14, 15)
    ]
    lines = run("1:4 1:500 3 14:15 -f jsonl").stdout.splitlines()
    assert [json.loads(line)["standard_macs"] for line in lines] == (
        [int(row["standard_macs"]) for row in rows]
    )


def test_the_first_rows_of_a_billion_come_at_once(start):
    process = start("1:1000 1:1000 3,5 1:500 -f csv")
    assert process.stdout.readline().startswith(b"name,kind,")
    assert process.stdout.readline().startswith(b",conv,1,1,3x3,1x1,")


# Refusals.


@pytest.mark.parametrize("form", ["table", "markdown", "svg", "json"])
def test_what_holds_all_rows_is_refused_beyond_10_000(form, run, tmp_path):
    for count in (10_001, 1_000_000):
        result = run(f"1:{count} 64 3 14 -f {form} -o {tmp_path / 'report'}")
        assert (result.code, result.stdout) == (2, "")
        assert result.error == (
            f"{form} takes at most 10,000 rows, got {count:,}; "
            "use only -f csv or -f jsonl, or add --top N"
        )
    assert list(tmp_path.iterdir()) == []


def test_10_000_rows_are_not_refused(run):
    report = json.loads(run("1:10000 64 3 14 -f json").stdout)
    assert [row["standard_macs"] for row in report["rows"]] == (
        [ic * 64 * 9 * 14 * 14 for ic in range(1, 10_001)]
    )
    assert report["total"] is None  # rows of a grid are alternatives


TOO_MANY = "a grid has at most 1,000,000,000 layers, got"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ("1:1000000000:1 1:1000000000:1 3 14", f"{TOO_MANY} {10**18:,}"),
        ("1:1000000000:1 1:1000000000:1 3 14 -f csv", f"{TOO_MANY} {10**18:,}"),
        ("1:1000 1:1000 1:1000 1:2 -f jsonl --verify", f"{TOO_MANY} 2,000,000,000"),
        ("1:1000000001 64 3 14 --get mac_ratio", f"{TOO_MANY} 1,000,000,001"),
        (f"1:{10**99} 1:{10**99} 3 14 -f csv", f"{TOO_MANY} {10**198:,}"),
        ("3 512:32 3 14", "OC range 512:32 runs backwards; write 32:512:1"),
        ("3 32:512:0 3 14", "OC step must be at least 1, got 0"),
        ("3 32:512:x1 3 14", "OC factor must be at least 2, got 1"),
        ("3 32:512:x0 3 14", "OC factor must be at least 2, got 0"),
        ("3 1:1000000 3 14 -f csv --padding valid --dilation 9", "the kernel spans 19x19, but "),
    ],
)
def test_an_absurd_or_bad_grid_is_refused_at_once_before_its_first_row(args, reason, run):
    before = time.monotonic()
    result = run(args)
    assert time.monotonic() - before < 2
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason)


# The cross-check.


@pytest.fixture
def counted(monkeypatch):
    """The steps that are counted on real modules, in turn."""
    found, count = [], THE_MODULE.count
    monkeypatch.setattr(THE_MODULE, "count", lambda steps: found.append(steps) or count(steps))
    return found


def test_identical_layers_are_counted_once(counted, run):
    result = run("3,3,3 64,32,64 3,3 14 --verify --get crosscheck")
    assert result == (0, "exact\n" * 18, "")
    assert len(counted) == len(set(counted)) == 2 * 2  # both as standard and as separable
    for as_ in ("", " --as standard"):
        counted.clear()
        assert run(f"network mobilenet_v2{as_} --verify --get crosscheck").stdout == "exact\n"
        rows = load_network("mobilenet_v2", block=STANDARD if as_ else None)
        sides = [side for row in rows for side in (row.as_is, row.rewritten) if side]
        assert len(sides) == len(rows) * (2 if as_ else 1)
        assert len(counted) == len(set(counted)) < len(sides)
        assert set(counted) == {side.steps for side in sides}


def test_without_verify_nothing_of_a_grid_is_counted(counted, run):
    assert run("3,64 64,32 3 14 --no-verify --get crosscheck").stdout == "skipped\n" * 4
    assert counted == []


@pytest.mark.parametrize("options", ["", "--bias -m 2 -s 2", "-p valid --dilation 2 --dims 1"])
def test_verify_counts_and_marks_every_row_of_a_grid(options, run):
    args = f"3,64 32:128:x2 3,4 14 --verify {options}"
    table = run(args, columns=300)
    assert (table.code, table.stderr) == (0, "")
    assert [line.count("✓") for line in table.stdout.splitlines() if " -> " in line] == [1] * 12
    for row in json.loads(run(f"{args} -f json").stdout)["rows"]:
        assert row["crosscheck"] == "exact"
        for side in ("standard", "separable"):
            assert row[f"fvcore_{side}_macs"] == row[f"{side}_macs"]
            assert row[f"torch_{side}_params"] == row[f"{side}_params"]


def test_a_fault_in_one_row_of_a_grid_is_found_and_named(run, monkeypatch):
    count = THE_MODULE.conv_flop_count

    def miscount(inputs, weight, outputs, transposed):
        return count(inputs, weight, outputs, transposed) - (weight == [64, 3, 5, 5])

    monkeypatch.setattr(THE_MODULE, "conv_flop_count", miscount)
    result = run("3,8 32,64 3,5 14 --verify -f csv")
    assert result.code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(
        "failed: mismatch: 3 -> 64 channels, 5x5 kernel, 14x14 map, padding same: "
        "fvcore_standard_macs is "
    )
    checks = [row["crosscheck"] for row in csv.DictReader(result.stdout.splitlines())]
    assert checks == ["exact"] * 3 + ["mismatch"] + ["exact"] * 4


# Assertions.


@pytest.mark.parametrize("form", ["table", "csv", "jsonl", "json", "markdown"])
def test_an_assertion_holds_each_row_and_names_those_that_fail(form, run):
    args = ("64", "4:64:x2", "3,5", "14", "-f", form)
    report = run(*args).stdout
    result = run(*args, "--assert", "mac_ratio <= 1/4", "--assert", "separable_params < 1M")
    assert result.code == 1
    assert result.stderr.splitlines() == [
        "failed: mac_ratio <= 1/4: 64 -> 4 channels, 3x3 kernel, 14x14 map, padding same: "
        "mac_ratio is 0.361111 (13/36)",
        "failed: mac_ratio <= 1/4: 64 -> 4 channels, 5x5 kernel, 14x14 map, padding same: "
        "mac_ratio is 0.29 (29/100)",
        "holds: separable_params < 1M in all 10 rows",
    ]
    if form == "json":  # which ends with the checks
        before, after = json.loads(report), json.loads(result.stdout)
        counts = [(check["holds"], check["rows"], check["failed"]) for check in after["checks"]]
        assert counts == [(False, 10, 2), (True, 10, 0)]
        assert before == after | {"checks": []}
    else:
        checks = (
            "\n- [ ] mac\\_ratio \\<= 1/4: fails in 2 of 10 rows, furthest in 64 -> 4 channels, "
            "3x3 kernel, 14x14 map, padding same: 0.361111 (13/36)\n"
            "- [x] separable\\_params \\< 1M: holds in all 10 rows\n"
        )
        assert result.stdout == report + checks * (form == "markdown")


def test_an_assertion_holds_each_row_of_a_long_grid(run):
    result = run("1:30", "1:1000", "3", "14", "-f", "csv", "--assert", "mac_ratio < 1")
    assert result.code == 1
    assert len(result.stdout.splitlines()) == 30_001
    *named, rest = result.stderr.splitlines()
    assert len(named) == 10
    assert all(re.match(r"failed: mac_ratio < 1: \d+ -> 1 channels, ", line) for line in named)
    assert rest == "mac_ratio < 1: 20 more"


def test_an_assertion_on_a_count_of_fvcore_verifies_each_row(counted, run):
    args = ("3,64", "64", "3", "14", "-f", "csv", "--assert", "fvcore_separable_macs < 1G")
    result = run(*args)
    assert (result.code, len(counted)) == (0, 2 * 2)
    assert result.stderr == "holds: fvcore_separable_macs < 1G in all 2 rows\n"
    refused = run(*args, "--no-verify")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.error.startswith("fvcore_separable_macs comes from the cross-check")
