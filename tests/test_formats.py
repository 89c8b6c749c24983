"""The report in its formats, and its way into a file."""

import csv
import io
import json
import os
import re
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import pytest
from vocabulary import fields

import dscalc
from dscalc.core.blocks import SEPARABLE, STANDARD
from dscalc.inputs.grid import Grid
from dscalc.report import text

ONE = "3 64 3 224"
GRID = "3,16 8:32:x2 3x5 14 --bias --stride 2"
MODEL = (
    "model torch.nn:Conv2d --input 3x9x9 "
    '--kwargs {"in_channels":3,"out_channels":8,"kernel_size":3}'
)
FORMATS = ["table", "json", "jsonl", "csv", "markdown", "svg"]
COMMANDS = {
    "compare": (SEPARABLE, f"{ONE} --verify"),
    "compare, a grid": (SEPARABLE, f"{GRID} --verify"),
    "network": (None, "network mobilenet_v1"),
    "network, standard": (STANDARD, "network mobilenet_v1 --as standard"),
    "network, separable": (SEPARABLE, "network mobilenet_v1 --as separable"),
    "bench": (SEPARABLE, "bench 2,4 8 3 14"),
    "model": (None, MODEL),
    "model, separable": (SEPARABLE, f"{MODEL} --as separable"),
}
WITH_TOTALS = ("network", "model")  # which --get and --assert take

layers = pytest.mark.parametrize("layer", [ONE, GRID], ids=["layer", "grid"])
units = pytest.mark.parametrize("unit", ["macs", "flops"])
commands = pytest.mark.parametrize("asked", COMMANDS)


def fields_of(asked, unit="macs"):
    return fields(asked.partition(",")[0], COMMANDS[asked][0], unit)


def read_csv(report):
    return list(csv.DictReader(io.StringIO(report)))


@units
@commands
def test_json_is_one_object_that_says_what_it_is(asked, unit, timed, run):
    block, args = COMMANDS[asked]
    report = json.loads(run(f"{args} -f json --unit {unit}").stdout)
    assert list(report) == [
        *("schema", "version", "convention", "command", "as", "inputs"),
        *("rows", "total", "notes", "checks"),
    ]
    assert (report["schema"], report["version"]) == ("dscalc/3", dscalc.__version__)
    assert report["convention"].startswith({"macs": "MACs are", "flops": "FLOPs are"}[unit])
    assert (report["command"], report["as"]) == (asked.partition(",")[0], block and str(block))
    assert report["checks"] == []
    # Rows that are alternatives have no sum.
    assert (report["total"] is None) is (asked in ("compare, a grid", "bench"))


@units
@commands
def test_one_vocabulary_names_the_values_of_every_format(asked, unit, timed, run):
    names = [field.name for field in fields_of(asked, unit)]
    assert len(set(names)) == len(names)
    ask = partial(run, *COMMANDS[asked][1].split(), "--unit", unit)
    report = json.loads(ask("-f", "json").stdout)
    rows = [json.loads(line) for line in ask("-f", "jsonl").stdout.splitlines()]
    assert report["rows"] == rows
    assert {tuple(row) for row in rows} == {tuple(names)}
    assert report["total"] is None or list(report["total"]) == names
    written = ask("-f", "csv").stdout
    assert written.splitlines()[0].split(",") == names
    assert read_csv(written) == [plain(row) for row in rows]
    got = ask(*(word for name in names for word in ("--get", name))).stdout
    shown = [report["total"]] if report["command"] in WITH_TOTALS else rows
    assert got.splitlines() == ["\t".join(plain(row).values()) for row in shown]


@units
@commands
def test_every_number_can_be_asserted(asked, unit, timed, run):
    args = f"{COMMANDS[asked][1]} --unit {unit} -f json"
    report = json.loads(run(args).stdout)
    checked = [report["total"]] if report["command"] in WITH_TOTALS else report["rows"]
    asserted = [field.name for field in fields_of(asked, unit) if field.is_number]
    asserted = [name for name in asserted if checked[0][name] is not None]
    result = run(*args.split(), *(f"--assert={name} != -1" for name in asserted))
    assert result.code == 0
    checks = json.loads(result.stdout)["checks"]
    assert [(check["assertion"], check["value"]) for check in checks] == [
        (f"{name} != -1", min(row[name] for row in checked)) for name in asserted
    ]


def plain(row):
    """The values of a JSON row as CSV has them."""

    def word(value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return "x".join(map(str, value))
        return "" if value is None else str(value)

    return {name: word(value) for name, value in row.items()}


LAYER_FIELDS = (
    *("in_channels", "out_channels", "kernel_size", "input_size", "output_size", "stride"),
    *("padding", "dilation", "groups", "bias", "batch_size"),
)
RATIOS = ("mac_ratio", "mac_ratio_exact", "mac_reduction", "param_ratio", "saved_macs")


def costs(*names):
    return [f"{name}_{noun}" for name in names for noun in ("macs", "params", "activations")]


def test_rows_have_the_fields_that_scripts_rely_on():
    standard, separable = (
        [*costs(side), f"{side}_bytes", f"{side}_intensity"] for side in ("standard", "separable")
    )
    steps = [f"{step}_{noun}" for step in ("depthwise", "pointwise") for noun in ("macs", "params")]
    built = [*standard, *separable, *steps, *RATIOS]
    proof = ["fvcore_standard_macs", "fvcore_separable_macs"]
    proof += ["torch_standard_params", "torch_separable_params", "crosscheck"]
    expected = {
        "compare": ["name", "kind", *LAYER_FIELDS, *built, *proof],
        "network": [
            *("name", "kind", *LAYER_FIELDS, "width_multiplier"),
            *("macs", "params", "activations", "share", "fvcore_macs", "torch_params"),
            "crosscheck",
        ],
        "network, standard": [
            *("name", "kind", "kept", *LAYER_FIELDS, "width_multiplier"),
            *("macs", "params", "activations", "share"),
            *(*costs("standard"), *RATIOS, "fvcore_macs", "fvcore_standard_macs", "torch_params"),
            *("torch_standard_params", "crosscheck"),
        ],
        "model": [
            *("name", "kind", *LAYER_FIELDS, "calls"),
            *("macs", "params", "activations", "share", "trainable_params", "weight_bytes"),
            *("peak_bytes", "least_peak_bytes", "peak_at", "known_macs"),
            *("unknown", "fvcore_macs", "torch_params", "crosscheck", "torch_macs"),
        ],
        "bench": [
            *("name", "kind", *LAYER_FIELDS, *built),
            *(
                f"{part}_{time}"
                for part in ("standard", "depthwise", "pointwise", "separable")
                for time in ("time_us", "time_iqr_us", "page_faults")
            ),
            *("standard_gflops_per_s", "separable_gflops_per_s", "speedup", "speedup_low"),
            *("speedup_high", "verdict", "speedup_limit", "peak_gflops_per_s"),
            *("bandwidth_gb_per_s", "noisy", "device", "device_name", "torch_version"),
            *("threads", "dtype", "channels_last", "compile", "backward"),
        ],
    }
    assert {asked: [field.name for field in fields_of(asked)] for asked in expected} == expected


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
    counted = [name for name in row if name.startswith(("fvcore_", "torch_"))]
    assert [row[name] for name in counted] == [None] * 4
    assert [line[name] for name in counted] == [""] * 4
    assert row["crosscheck"] == line["crosscheck"] == "skipped"


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
@pytest.mark.parametrize(
    ("asked", "as_is", "rewritten"),
    [
        ("compare", "standard_", "separable_"),
        ("network", "", None),
        ("network, standard", "", "standard_"),
        ("network, separable", "", "separable_"),
        ("model", "", None),
        ("model, separable", "", "separable_"),
    ],
)
def test_the_total_is_the_sum_of_the_rows(asked, as_is, rewritten, verify, run):
    report = json.loads(run(f"{COMMANDS[asked][1]} {verify} -f json").stdout)
    rows, total = report["rows"], report["total"]
    for field in fields_of(asked):
        if field.name != "torch_macs" and field.unit in ("MACs", "params", "elements"):
            counted = verify == "--verify" or not field.name.startswith(("fvcore_", "torch_"))
            sum_ = sum(row[field.name] or 0 for row in rows) if counted else None
            assert total[field.name] == sum_, field.name
    for noun in ("mac", "param"):
        before, after = f"{as_is}{noun}s", f"{rewritten}{noun}s"
        ratio = total[after] / total[before] if rewritten else None
        assert total.get(f"{noun}_ratio") == ratio
    assert total["crosscheck"] == ("exact" if verify == "--verify" else "skipped")
    assert total["kind"] == total["name"] == "total"


@commands
def test_flops_are_twice_the_macs_under_their_own_name(asked, timed, run):
    in_macs, in_flops = (
        json.loads(run(f"{COMMANDS[asked][1]} -f json --unit {unit}").stdout)
        for unit in ("macs", "flops")
    )
    counts = {field.name for field in fields_of(asked) if field.unit == "MACs"}
    for macs, flops in zip(in_macs["rows"], in_flops["rows"], strict=True):
        for name, value in macs.items():
            if name in counts:
                doubled = flops.pop(re.sub("macs$", "flops", name))
                assert doubled == (None if value is None else 2 * value), name
            else:
                assert flops.pop(name) == value
        assert flops == {}


def test_csv_and_jsonl_are_written_row_by_row():
    """A grid of 10^9 rows starts at once."""
    report = dscalc.compare("1:1000", "1:1000", "3", "1:1000")
    assert next(text.jsonl(report)).startswith('{"name": null')
    assert [line.split(",")[1] for line in islice(text.csv(report), 2)] == ["kind", "conv"]


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


@layers
def test_svg_is_well_formed_stands_alone_and_contains_every_number_of_the_table(layer, run):
    svg = run(f"{layer} -f svg").stdout
    picture = ElementTree.fromstring(svg)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    words = [" ".join(element.itertext()) for element in picture.iter() if "text" in element.tag]
    drawn = " ".join(words).replace("\N{NO-BREAK SPACE}", " ")
    numbers = re.findall(r"[0-9][0-9,.x/%]*", run(layer, columns=300).stdout)
    assert len(numbers) > 20
    assert [number for number in numbers if number not in drawn] == []
    # No font, style sheet, picture or link from elsewhere: only its own clip paths.
    assert re.findall(r"https?:[^\"' ]*", svg) == ["http://www.w3.org/2000/svg"]
    assert set(re.findall(r"url\((.)", svg)) == {"#"}
    assert not re.search(r"href|src=|@import|@font-face|<script|<image", svg)


def cells(printed, row):
    """The cells of a printed row, without the marks of the cross-check."""
    _, table, _ = printed.split("\n\n")
    [line] = [line for line in table.splitlines() if line.startswith(f"{row} ")]
    return [cell for cell in line.split()[1:] if cell not in "✓✗"]


def number(cell):
    return int(cell.replace(",", ""))


@pytest.mark.parametrize("sizes", ["3 64 3 224", "512 7 5x2 31x9", f"{10**12} {10**15} 3 {10**9}"])
@pytest.mark.parametrize(
    "options", ["", "--bias -m 3", "--no-bias --depthwise-bias -s 2", "--unit flops -b 16"]
)
def test_printed_parts_add_up_and_printed_shares_are_those_of_the_printed_counts(
    sizes, options, run
):
    table = run(f"{sizes} {options} --no-verify", columns=300).stdout
    rows = {
        name: cells(table, name) for name in ("standard", "depthwise", "pointwise", "separable")
    }
    for column in (1, 2):  # MACs or FLOPs, params
        parts = [number(rows[name][column]) for name in ("depthwise", "pointwise", "separable")]
        assert parts[0] + parts[1] == parts[2]
    for _, macs, _, share in rows.values():
        expected = float(Fraction(number(macs), number(rows["standard"][1])) * 100)
        assert share == ("<0.01%" if expected < 0.01 else f"{expected:,.2f}%")


def test_printed_counts_of_fvcore_are_those_of_the_formulas(run):
    table = run(f"{ONE} --bias", columns=300).stdout
    for row in ("standard", "depthwise", "pointwise", "separable"):
        _, macs, _, _, counted = cells(table, row)
        assert macs == counted
    assert table.count("✓") == 2 * 4 + 1


def test_a_printed_grid_has_the_numbers_of_the_rows(run):
    table = run(GRID, columns=300).stdout.splitlines()
    rows = read_csv(run(f"{GRID} -f csv").stdout)
    printed = [re.split(r" {2,}", line.strip()) for line in table if " -> " in line]
    assert [(number(line[1]), number(line[2])) for line in printed] == [
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


ENDINGS = {
    ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".md": "markdown", ".svg": "svg",
    ".txt": "table", ".JSON": "json",
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("command", [ONE, "network mobilenet_v1 --no-verify", "check {checks}"])
def test_the_ending_of_a_file_chooses_the_format(command, ending, run, tmp_path):
    checks, path = tmp_path / "checks.toml", tmp_path / f"report{ending}"
    checks.write_text('[[check]]\nrun = "3 64 3 224"\nassert = "mac_ratio < 1"\n', "utf-8")
    command = command.format(checks=checks)
    asked = path.with_suffix(".asked")
    assert run(f"{command} -o {path}").code == 0
    assert run(f"{command} -f {ENDINGS[ending]} -o {asked}").code == 0
    one, other = (file.read_text("utf-8").replace(f" {file}", "") for file in (path, asked))
    assert one == other


def test_another_ending_needs_a_format(run, tmp_path):
    for name in ("report", "report.tsv", "a.json.bak"):
        result = run(f"{ONE} -o {tmp_path / name}")
        assert (result.code, result.stdout) == (2, "")
        assert f"{name}: its ending says no format; end it in .json .jsonl .csv" in result.error
    assert run(f"{ONE} -f csv -o {tmp_path / 'report.json'}").code == 0
    assert (tmp_path / "report.json").read_text("utf-8") == run(f"{ONE} -f csv").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_dash_is_stdout(run, here):
    assert run(f"{ONE} -f csv -o -") == run(f"{ONE} -f csv")
    assert list(here.iterdir()) == []


def test_bare_values_have_no_format(run):
    result = run(f"{ONE} --get mac_ratio -f json")
    assert (result.code, result.error) == (2, "--get prints bare values; drop --format")


def test_a_file_holds_the_values_of_get(run, tmp_path):
    assert run(f"{ONE} --get mac_ratio_exact -o {tmp_path / 'ratio'}") == (0, "", "")
    assert (tmp_path / "ratio").read_text() == "73/576\n"


def test_a_table_in_a_file_does_not_depend_on_the_terminal(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for columns in (20, 300):
        run(f"{ONE} -o {tmp_path / str(columns)}.txt", columns=columns)
    table = (tmp_path / "20.txt").read_text("utf-8")
    assert table == (tmp_path / "300.txt").read_text("utf-8")
    assert "\x1b" not in table


@pytest.mark.parametrize(
    "args",
    [
        f"{GRID} -f csv --no-verify --assert fvcore_standard_macs>1",
        "3 64 3x 224",
        f"{ONE} --get nonsense",
        "1:200 1:200 3 14 -f json",
    ],
)
def test_where_there_is_no_answer_the_file_is_as_before(args, run, tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("old")
    for path in (new, old):
        result = run(f"{args} -o {path}")
        assert (result.code, result.stdout) == (2, "")
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_crash_in_the_middle_leaves_the_file_as_before(run, tmp_path, monkeypatch):
    complete = Grid.__iter__

    def failing(grid):
        yield from islice(complete(grid), 3)
        raise RuntimeError("planted")

    monkeypatch.setattr(Grid, "__iter__", failing)
    path = tmp_path / "old"
    path.write_text("old")
    result = run(f"{GRID} -f csv -o {path}")
    assert (result.code, result.stdout) == (2, "")
    assert "planted" in result.error
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
    assert target.read_text() == "conv\n"


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


@pytest.mark.parametrize("to", ["/dev/stdout", "/dev/fd/1", "report"])
def test_what_is_in_the_file_that_stdout_goes_to_is_kept(to, start, tmp_path):
    path = tmp_path / "report"
    path.write_text("before\n")
    with path.open("a") as stdout:
        process = start(f"{ONE} --no-verify -f csv -o {to}", stdout=stdout)
        _, error = process.communicate()
    before, *report = path.read_text().splitlines()
    assert before == "before"
    if to == "report":
        assert (report, process.returncode) == ([], 2)
        assert (
            error == b"error: cannot write report: stdout or stderr goes there; name another file\n"
        )
    else:
        assert (len(report), process.returncode) == (2, 0)


@pytest.mark.parametrize(
    ("command", "file", "text", "what"),
    [
        ("model net.py:net --input 3", "net.py", "from torch import nn\nnet = nn.Linear(3, 2)\n",
         "the file of the model, or of its inputs"),
        ("model torch.nn:ReLU --inputs in.py:x", "in.py", "x = 1\n",
         "the file of the model, or of its inputs"),
        ("check limits.toml", "limits.toml", '[[check]]\nrun = "3 64 3"\nassert = "macs < 1"\n',
         "the file of the budgets"),
    ],
)  # fmt: skip
def test_a_report_does_not_replace_what_it_is_about(command, file, text, what, here, run):
    (here / file).write_text(text)
    result = run(f"{command} -f json -o ./{file}")
    assert (result.code, (here / file).read_text()) == (2, text)
    assert result.error == f"--output {file} is {what}; name another file"


@pytest.mark.parametrize("option", ["-f csv -o", "--plot"])
def test_a_list_of_layers_is_not_written_over(option, run, tmp_path):
    path = tmp_path / "net.svg"
    path.write_text(net := "kind,in_channels,out_channels,kernel_size,input_size\nconv,8,9,3,9\n")
    result = run(f"network {path} {option} {path}")
    assert (result.code, path.read_text()) == (2, net)
    assert result.error.endswith("net.svg is the list of layers itself; name another file")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{}", "it is a directory; name a file in it"),
        ("{}/missing/report", "No such file or directory"),
        ("{}/file/report", "Not a directory"),
        ("{}/locked", "permission denied; name another file"),
        ("{}/circle", "links lead in a circle"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_of_one_line(
    path, reason, run, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    (tmp_path / "locked").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    may = os.access
    monkeypatch.setattr(  # root may write everywhere
        os, "access", lambda file, mode: Path(file).name != "locked" and may(file, mode)
    )
    path = path.format(tmp_path)
    result = run(f"{ONE} --no-verify -f csv -o {path}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(f"cannot write {path}: {reason}")


def test_an_svg_says_what_it_is_and_which_command_makes_it(run, tmp_path):
    path = tmp_path / "x.svg"
    typed = ["3", "64", "3", "224", "--format=svg", "--no-verify", "-o", str(path), "--bias"]
    assert run(*typed).code == 0
    picture = ElementTree.fromstring(path.read_text())
    title = picture.findtext("{http://www.w3.org/2000/svg}title")
    assert title == "3 -> 64 channels, 3x3 kernel, 224x224 map, padding same, bias"
    lines = [text.replace("\xa0", " ") for text in picture.itertext()]
    assert "$ dscalc 3 64 3 224 --no-verify --bias" in lines


def test_all_of_an_svg_can_be_read_on_a_light_and_on_a_dark_page(run):
    """WCAG asks for a contrast of 4.5 to 1."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(by * part for by, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    svg = run("3 64 3 224 -f svg").stdout
    light, dark = re.split(r"@media \(prefers-color-scheme: dark\) ", svg.partition("</style>")[0])
    pages = [(light, re.search(r'<rect fill="(#[0-9a-f]{6})"', svg)[1])]
    pages += [(dark, re.search(r" > rect \{ fill: (#[0-9a-f]{6})", dark)[1])]
    named = []
    for style, background in pages:
        colours = re.findall(r"\.[\w-]+-(r\d+|title) \{ fill: (#[0-9a-f]{6})", style)
        named.append([name for name, _ in colours if name != "title"])
        for _, colour in colours:
            low, high = sorted([luminance(colour), luminance(background)])
            assert (high + 0.05) / (low + 0.05) > 4.5
    assert named[0] == named[1]
    assert len(named[0]) >= 4
    assert [round(luminance(background), 2) for _, background in pages] == [1, 0.01]


@pytest.mark.parametrize("args", ["64 8:64:x2 3 14", "network resnet50 --as separable"])
def test_nothing_in_an_svg_is_clipped(args, run):
    """Every word ends before the clip path of its line does."""
    svg = run(f"{args} --no-verify -f svg").stdout
    width = float(re.search(r'clip-terminal">\s*<rect x="0" y="0" width="(.*?)"', svg)[1])
    word = r'<text class="[\w-]+" x="(.*?)" .*?textLength="(.*?)" [^>]*>(.*?)</text>'
    words = re.findall(word, svg, re.DOTALL)
    ends = [float(x) + float(length) for x, length, text in words if text.strip()]
    assert len(ends) >= 10
    assert max(ends) < width - 10


def test_sentences_in_an_svg_are_wrapped(run):
    widths = [
        float(re.search(r'viewBox="0 0 ([0-9.]+) ', run(f"{args} -f svg").stdout)[1])
        for args in ("3 64 3 224 --no-verify", "3 64 3 224 --explain 86.7M")
    ]
    assert max(widths) < 1050


HEAD = "name,kind,in_channels,out_channels,kernel_size,input_size\n"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum"])
def test_a_spreadsheet_reads_a_name_as_text(name, run, tmp_path):
    """It would run what begins like a formula."""
    file = tmp_path / "net.csv"
    file.write_text(f"{HEAD}{name},conv,3,8,3,8\n")
    cells = list(csv.DictReader(io.StringIO(run(f"network {file} --no-verify -f csv").stdout)))
    assert cells[0]["name"] == f"'{name}"
    assert int(cells[0]["params"]) > 0


def test_csv_is_utf_8_in_any_locale(spawn, tmp_path):
    (tmp_path / "net.csv").write_text(f"{HEAD}né,conv,3,8,3,8\n", "utf-8")
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    assert "\nné,conv," in spawn("network net.csv --no-verify -f csv", env=plain).stdout.replace(
        "\r", ""
    )
