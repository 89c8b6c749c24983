"""The report in its formats, and its way into a file."""

import csv
import io
import json
import os
import re
from fractions import Fraction
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dscalc
from dscalc.record.fields import Record, names
from dscalc.report import text

ONE = "3 64 3 224"
GRID = "3,16 8:32:x2 3x5 14 --bias --stride 2"
COUNTS = [field for field in Record._fields if field.endswith("_macs")]
PARAMS = [field for field in Record._fields if field.endswith("_params")]
FORMATS = ["table", "json", "jsonl", "csv", "markdown", "svg"]

layers = pytest.mark.parametrize("layer", [ONE, GRID], ids=["layer", "grid"])
units = pytest.mark.parametrize("unit", ["macs", "flops"])


def read_csv(report):
    return list(csv.DictReader(io.StringIO(report)))


@units
@layers
def test_json_is_one_object_that_tells_its_schema_version_and_convention(layer, unit, run):
    report = json.loads(run(f"{layer} -f json --unit {unit}").stdout)
    assert list(report) == ["schema", "version", "convention", "rows", "total"]
    assert report["schema"] == "dscalc/1"
    assert report["version"] == dscalc.__version__
    assert report["convention"].startswith({"macs": "MACs are", "flops": "FLOPs are"}[unit])
    assert len(report["rows"]) == (1 if layer == ONE else 6)


@units
@layers
def test_all_machine_formats_have_the_same_keys(layer, unit, run):
    fields = names(Record._fields, unit)
    outputs = {form: run(f"{layer} -f {form} --unit {unit}").stdout for form in FORMATS[1:4]}
    report = json.loads(outputs["json"])
    rows = [json.loads(line) for line in outputs["jsonl"].splitlines()]
    assert [list(row) for row in [*report["rows"], report["total"], *rows]] == (
        [fields] * (2 * len(rows) + 1)
    )
    assert outputs["csv"].splitlines()[0].split(",") == fields
    assert report["rows"] == rows


def test_a_record_has_the_fields_that_scripts_rely_on():
    assert Record._fields == (
        *("name", "kind", "in_channels", "out_channels", "kernel_size", "input_size"),
        *("output_size", "stride", "padding", "dilation", "groups", "depth_multiplier", "bias"),
        *("depthwise_bias", "batch_size", "standard_macs", "standard_params", "depthwise_macs"),
        *("depthwise_params", "pointwise_macs", "pointwise_params", "separable_macs"),
        *("separable_params", "mac_ratio", "mac_ratio_exact", "mac_reduction", "param_ratio"),
        *("fvcore_standard_macs", "fvcore_separable_macs", "torch_standard_params"),
        *("torch_separable_params", "crosscheck"),
    )


def test_json_holds_numbers_as_numbers_and_sizes_as_lists(run):
    [row] = json.loads(run("512 512 3 14 -f json -p 1").stdout)["rows"]
    assert row["kernel_size"] == [3, 3]
    assert row["padding"] == [1, 1]
    assert row["bias"] is False
    assert row["name"] is None
    assert row["standard_macs"] == row["fvcore_standard_macs"] == 462_422_016
    assert row["separable_params"] == row["torch_separable_params"] == 266_752
    assert row["mac_ratio"] == row["param_ratio"] == 521 / 4608
    assert row["mac_ratio_exact"] == "521/4608"
    assert row["mac_reduction"] == 4608 / 521
    assert row["crosscheck"] == "exact"


def test_what_was_not_counted_is_null_in_json_and_empty_in_csv(run):
    [row] = json.loads(run(f"{ONE} --no-verify -f json").stdout)["rows"]
    [line] = read_csv(run(f"{ONE} --no-verify -f csv").stdout)
    counted = [field for field in Record._fields if field.startswith(("fvcore_", "torch_"))]
    assert [row[field] for field in counted] == [None] * 4
    assert [line[field] for field in counted] == [""] * 4
    assert row["crosscheck"] == line["crosscheck"] == "skipped"


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
@layers
def test_the_total_is_the_sum_of_the_rows(layer, verify, run):
    report = json.loads(run(f"{layer} -f json {verify}").stdout)
    rows, total = report["rows"], report["total"]
    for field in [*COUNTS, *PARAMS]:
        counted = not field.startswith(("fvcore_", "torch_")) or verify == "--verify"
        assert total[field] == (sum(row[field] for row in rows) if counted else None)
    assert total["mac_ratio"] == total["separable_macs"] / total["standard_macs"]
    assert total["param_ratio"] == total["separable_params"] / total["standard_params"]
    assert total["crosscheck"] == ("exact" if verify == "--verify" else "skipped")
    assert total["kind"] == total["name"] == "total"


@layers
def test_flops_are_twice_the_macs_under_their_own_name(layer, run):
    in_macs, in_flops = (
        json.loads(run(f"{layer} -f json --verify --unit {unit}").stdout)
        for unit in ("macs", "flops")
    )
    for macs, flops in zip(
        [*in_macs["rows"], in_macs["total"]], [*in_flops["rows"], in_flops["total"]], strict=True
    ):
        for field, value in macs.items():
            if field in COUNTS:
                assert flops.pop(field.replace("_macs", "_flops")) == 2 * value
            else:
                assert flops.pop(field) == value
        assert flops == {}


@layers
def test_csv_reads_back_as_the_json_rows(layer, run):
    lines = read_csv(run(f"{layer} -f csv --verify").stdout)
    rows = json.loads(run(f"{layer} -f json --verify").stdout)["rows"]

    def plain(value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return "x".join(map(str, value))
        return "" if value is None else str(value)

    assert lines == [{field: plain(value) for field, value in row.items()} for row in rows]


def test_csv_and_jsonl_are_written_row_by_row(run, monkeypatch):
    """A grid of 10^9 rows starts at once."""
    from dscalc.inputs.grid import Grid
    from dscalc.record.fields import record

    rows = (record(layer) for layer in Grid("1:1000", "1:1000", "3", "1:1000"))
    assert next(text.jsonl(rows, "macs")).startswith('{"name": null')
    lines = text.csv(rows, "macs")
    assert [next(lines).split(",")[1] for _ in range(2)] == ["kind", "separable"]


def test_huge_counts_are_exact_in_every_format(run):
    huge = 10**30
    expected = huge * huge * 9 * huge**2
    for form in ("json", "jsonl", "csv", "markdown", "table"):
        stdout = run(f"{huge} {huge} 3 {huge} --no-verify -f {form}", columns=300).stdout
        assert str(expected) in stdout.replace(",", "")


@layers
def test_markdown_is_a_table_between_its_title_and_its_notes(layer, run):
    title, table, *notes = run(f"{layer} -f markdown").stdout.strip().split("\n\n")
    assert re.fullmatch(r"\*\*[^*\n]+\*\*", title)
    header, rule, *rows = [
        re.fullmatch(r"\| (.*) \|", line)[1].split(" | ") for line in table.splitlines()
    ]
    assert rule == [":--", *["--:"] * (len(header) - 1)]
    assert {len(row) for row in rows} == {len(header)}
    assert len(rows) == (4 if layer == ONE else 6)
    assert all("\n" not in note for note in notes)
    assert len(notes) >= 2


def test_markdown_escapes_what_it_would_interpret():
    assert text._literal("a|b*c_d`e<f[g\\h") == "a\\|b\\*c\\_d\\`e\\<f\\[g\\\\h"


def svg_text(picture):
    words = [" ".join(element.itertext()) for element in picture.iter() if "text" in element.tag]
    return " ".join(words).replace("\N{NO-BREAK SPACE}", " ")


@layers
def test_svg_is_well_formed_and_contains_every_number_of_the_table(layer, run):
    picture = ElementTree.fromstring(run(f"{layer} -f svg").stdout)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    table = run(layer, columns=300).stdout
    drawn = svg_text(picture)
    numbers = re.findall(r"[0-9][0-9,.x/%]*", table)
    assert len(numbers) > 20
    assert [number for number in numbers if number not in drawn] == []


@layers
def test_svg_stands_alone(layer, run):
    """No font, style sheet, picture or link from elsewhere: only its own clip paths."""
    svg = run(f"{layer} -f svg").stdout
    assert re.findall(r"https?:[^\"' ]*", svg) == ["http://www.w3.org/2000/svg"]
    assert set(re.findall(r"url\((.)", svg)) == {"#"}
    assert not re.search(r"href|src=|@import|@font-face|<script|<image", svg)


def cells(table, row):
    """The cells of a printed row, without the marks of the cross-check."""
    [line] = [line for line in table.splitlines() if line.startswith(f" {row} ")]
    return [cell for cell in line.split()[1:] if cell not in "✓✗"]


def number(cell):
    return int(cell.replace(",", ""))


LAYERS = [
    " ".join(parts)
    for parts in product(
        ("3 64 3 224", "512 7 5x2 31x9", f"{10**12} {10**15} 3 {10**9}"),
        ("", "--bias -m 3", "--no-bias --depthwise-bias -s 2", "--unit flops -b 16"),
    )
]


@pytest.mark.parametrize("layer", LAYERS)
def test_printed_parts_add_up_to_the_printed_sum(layer, run):
    table = run(f"{layer} --no-verify", columns=300).stdout
    depthwise, pointwise, separable = (
        cells(table, row) for row in ("depthwise", "pointwise", "separable")
    )
    for column in (1, 2):  # MACs or FLOPs, params
        parts = number(depthwise[column]) + number(pointwise[column])
        assert parts == number(separable[column])


@pytest.mark.parametrize("layer", LAYERS)
def test_printed_shares_are_those_of_the_printed_counts(layer, run):
    table = run(f"{layer} --no-verify", columns=300).stdout
    standard = number(cells(table, "standard")[1])
    for row in ("standard", "depthwise", "pointwise", "separable"):
        _, macs, _, share = cells(table, row)
        expected = float(Fraction(number(macs), standard) * 100)
        assert float(share.rstrip("%").replace(",", "")) == float(f"{expected:.4g}")


def test_printed_counts_of_fvcore_are_those_of_the_formulas(run):
    table = run(f"{ONE} --bias", columns=300).stdout
    for row in ("standard", "depthwise", "pointwise", "separable"):
        _, macs, _, _, counted = cells(table, row)
        assert macs == counted
    assert table.count("✓") == 2 * 4 + 1


def test_a_printed_grid_has_the_numbers_of_the_records(run):
    table = run(GRID, columns=300).stdout.splitlines()
    rows = read_csv(run(f"{GRID} -f csv").stdout)
    printed = [re.split(r" {2,}", line.strip()) for line in table if " -> " in line]
    assert [(number(line[3]), number(line[4])) for line in printed] == [
        (int(row["standard_macs"]), int(row["separable_macs"])) for row in rows
    ]


# Files.


@pytest.mark.parametrize("form", FORMATS)
@layers
def test_a_file_holds_what_stdout_would(layer, form, run, tmp_path):
    path = tmp_path / "report"
    stdout = run(f"{layer} -f {form}", columns=300).stdout
    assert run(f"{layer} -f {form} -o {path}", columns=300) == (0, "", "")
    assert path.read_text("utf-8") == stdout
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_holds_the_values_of_get(run, tmp_path):
    assert run(f"{ONE} --get mac_ratio_exact -o {tmp_path / 'ratio'}") == (0, "", "")
    assert (tmp_path / "ratio").read_text() == "73/576\n"


def test_a_table_in_a_file_does_not_depend_on_the_terminal(run, tmp_path):
    for columns in (20, 300):
        run(f"{ONE} -o {tmp_path / str(columns)}", columns=columns)
    assert (tmp_path / "20").read_text("utf-8") == (tmp_path / "300").read_text("utf-8")


UNFINISHED = {
    "a field without a value": f"{GRID} -f csv --no-verify --assert fvcore_standard_macs>1",
    "bad input": "3 64 3x 224",
    "an unknown field": f"{ONE} --get nonsense",
    "too many rows": "1:200 1:200 3 14 -f json",
}


@pytest.mark.parametrize("args", UNFINISHED.values(), ids=UNFINISHED)
def test_where_there_is_no_answer_the_file_is_as_before(args, run, tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("old")
    for path in (new, old):
        result = run(f"{args} -o {path}")
        assert (result.code, result.stdout) == (2, "")
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_crash_in_the_middle_leaves_the_file_as_before(run, tmp_path, monkeypatch):
    calls = iter(range(100))

    def fail_later(value):
        if next(calls) > 50:
            raise RuntimeError("planted")
        return str(value)

    monkeypatch.setattr(text, "plain", fail_later)
    path = tmp_path / "old"
    path.write_text("old")
    assert run(f"{GRID} -f csv -o {path}").code == 2
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_assertion_still_answers_into_the_file(run, tmp_path):
    path = tmp_path / "report.csv"
    result = run("3", "64", "3", "224", "-f", "csv", "-o", str(path), "--assert", "mac_ratio > 1")
    assert (result.code, result.stdout) == (1, "")
    assert len(read_csv(path.read_text())) == 1


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(exists, run, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    assert run(f"{ONE} --get kind -o {link}").code == 0
    assert link.is_symlink()
    assert target.read_text() == "separable\n"


def test_a_file_keeps_its_permissions_and_a_new_one_has_the_usual(run, tmp_path):
    private, fresh, usual = (tmp_path / name for name in ("private", "fresh", "usual"))
    private.touch(0o600)
    usual.touch()
    for path in (private, fresh):
        run(f"{ONE} --get kind -o {path}")
    assert private.stat().st_mode & 0o777 == 0o600
    assert fresh.stat().st_mode == usual.stat().st_mode


def test_a_device_is_written_to(run):
    assert run(f"{ONE} -f csv -o {os.devnull}") == (0, "", "")
    assert not Path(os.devnull).is_file()


def test_a_full_device_is_an_error_of_one_line(run):
    result = run(f"{ONE} --no-verify -f csv -o /dev/full")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == "cannot write /dev/full: No space left on device"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is a directory; name a file in it"),
        ("missing/report", "No such file or directory"),
        ("file/report", "Not a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_of_one_line(name, reason, run, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / name
    result = run(f"{ONE} --no-verify -o {path}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == f"cannot write {path}: {reason}"


def test_a_file_that_may_not_be_written_is_an_error_of_one_line(run, tmp_path, monkeypatch):
    path = tmp_path / "locked"
    path.touch(0o400)
    may = os.access
    monkeypatch.setattr(  # root may write everywhere
        os, "access", lambda file, mode: mode != os.W_OK and may(file, mode)
    )
    result = run(f"{ONE} --no-verify -o {path}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == f"cannot write {path}: permission denied; name another file"


def test_a_file_has_no_colour_whatever_the_environment_forces(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = tmp_path / "table.txt"
    assert run("3", "64", "3", "224", "-o", str(path)).code == 0
    assert "\x1b" not in path.read_text("utf-8")


def test_links_in_a_circle_are_an_error_of_one_line(run, tmp_path):
    path = tmp_path / "a"
    path.symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(path)
    result = run("3", "64", "3", "224", "--no-verify", "-o", str(path))
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(f"cannot write {path}: ")
