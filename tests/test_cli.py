"""The command line: what is answered, what is refused, and with which exit code."""

import io
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from shlex import split

import pytest

import dscalc
from dscalc import cli
from dscalc.__main__ import run as program
from dscalc.inputs.grid import Grid

HUGE = "1" + "0" * 30
LAYER = "3 64 3 224"


def test_the_command_is_installed():
    [script] = entry_points(group="console_scripts", name="dscalc")
    assert script.load() is program


def test_a_layer_is_answered_and_proved(run):
    result = run(LAYER)
    assert (result.code, result.stderr) == (0, "")
    for said in (
        "86,704,128 ✓",
        "= 1/OC + 1/F^2 = 1/64 + 1/9 = 73/576 = 0.126736",
        "7.89x fewer MACs and params",
        "✓ fvcore and torch count exactly this on the real modules",
    ):
        assert said in result.stdout


@pytest.mark.parametrize(
    "args", [LAYER, "-f json 3 64 3 224", "--no-verify 3,4 64 3x5 224", "3 64 -s 2 3 224"]
)
def test_compare_is_the_default_command(args, run):
    assert run(args) == run(f"compare {args}")


def test_the_module_runs_as_the_command_does(spawn):
    assert spawn(f"{LAYER} --get mac_ratio_exact") == (0, "73/576\n", "")


EXITS = """
import atexit
from dscalc import __main__ as program, cli

def main():
    atexit.register(print, "left")
    return 3

cli.main = main
program.run()
"""


def test_what_waits_for_the_exit_of_the_process_runs(tmp_path):
    done = subprocess.run([sys.executable, "-c", EXITS], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"left\n", b"")


def test_a_file_that_a_model_leaves_open_is_written(spawn, tmp_path):
    source = (
        "from torch import nn\nlog = open('log', 'w')\nlog.write('made')\nnet = nn.Linear(3, 2)"
    )
    (tmp_path / "net.py").write_text(source, "utf-8")
    assert spawn("model net.py:net --input 3 --get macs") == (0, "6\n", "")
    assert (tmp_path / "log").read_text("utf-8") == "made"


def test_version(run):
    assert run("--version") == (0, f"dscalc {dscalc.__version__}\n", "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_the_commands_the_exit_codes_and_completion(option, run):
    result = run(option)
    assert (result.code, result.stderr) == (0, "")
    for word in ("compare", "Exit codes", "130", "dscalc IC OC F D", "--install-completion"):
        assert word in result.stdout


def test_without_arguments_the_help_is_shown_and_nothing_answered(run):
    assert run() == (2, run("--help").stdout, "")


@pytest.mark.parametrize("args", ["compare -h", "compare --help", f"{LAYER} -h"])
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_help_of_compare_has_every_option_in_full_at_any_width(args, columns, run):
    result = run(args, columns=columns)
    assert (result.code, result.stderr) == (0, "")
    for option in (
        *("--stride", "--padding", "--dilation", "--depth-multiplier", "--bias", "--no-bias"),
        *("--depthwise-bias", "--no-depthwise-bias", "--batch", "--dims", "--format"),
        *("--width-multiplier", "--resolution-multiplier", "--output", "--get", "--assert"),
        *("--unit", "--verify", "--no-verify", "--quiet", "--verbose", "--groups", "--as"),
    ):
        assert option in result.stdout


@pytest.mark.parametrize("command", ["", *cli._COMMANDS])
def test_help_fits_in_80_columns_and_80_lines_at_any_width(command, run):
    for columns in (80, 200):
        lines = run(f"{command} --help", columns=columns).stdout.splitlines()
        assert [line for line in lines if len(line) > 80] == []
        assert len(lines) <= 80


def test_the_help_of_a_command_begins_with_what_it_needs(run):
    for command, first in (("model", "--input"), ("network", "--input-size"), ("bench", "-s,")):
        options = [one for one in run(f"{command} --help").stdout.split("\n") if one[:3] == "  -"]
        assert options[0].split()[0] == first


def test_the_examples_in_the_help_run(run, here):
    lines = map(str.strip, run("compare --help").stdout.splitlines())
    examples = [line for line in lines if line.startswith("dscalc ") and "IC OC F D" not in line]
    assert len(examples) == 6
    for example in examples:
        assert run(*split(example)[1:]).code == 0, example


# Layers.


@pytest.mark.parametrize(
    ("options", "fields", "values"),
    [
        (LAYER, "output_size", "224x224"),
        ("3 64 3 224 -s 2", "output_size", "112x112"),
        ("3 64 3 224 --stride 2x1", "output_size stride", "112x224\t2x1"),
        ("3 64 3 224 -p valid", "output_size padding", "222x222\tvalid"),
        ("3 64 3 224 --padding 1x0", "output_size padding", "224x222\t1x0"),
        ("3 64 3 224 -p valid --dilation 2", "output_size dilation", "220x220\t2x2"),
        ("3 64 3x5 224x160", "kernel_size input_size", "3x5\t224x160"),
        ("3 64 3 224 -m 2", "depthwise_params separable_params", "54\t438"),
        ("3 64 3 224 --as separable:2", "depthwise_params separable_params", "54\t438"),
        ("3 64 3 224 -b 8", "batch_size standard_macs standard_params", "8\t693633024\t1728"),
        ("3 64 3 224 --bias", "bias standard_params separable_params", "true\t1792\t286"),
        ("3 64 3 224 --bias --no-depthwise-bias", "bias separable_params", "true\t283"),
        ("3 64 3 224 --depthwise-bias", "bias separable_params", "false\t222"),
        ("3 64 3 224 --dims 1", "kernel_size standard_macs", "3\t129024"),
        ("3 64 3 224 --dims 3", "kernel_size mac_ratio_exact", "3x3x3\t91/1728"),
        ("3 64 3x5x5 9", "kernel_size input_size", "3x5x5\t9x9x9"),
        ("3 64 3 9x8x7", "kernel_size input_size", "3x3x3\t9x8x7"),
        ("6 64 3 14 --groups 2", "groups standard_macs separable_macs", "2\t338688\t85848"),
        ("32 64 3 224 --width-multiplier 0.75", "in_channels out_channels", "24\t48"),
        ("32 64 3 14 --resolution-multiplier 0.714", "input_size", "10x10"),
        ("3 64 3 224 --unit flops", "standard_flops separable_flops", "173408256\t21977088"),
        ("3 64 3 224 --unit flops", "depthwise_flops saved_flops", "2709504\t151431168"),
        (LAYER, "standard_activations standard_bytes saved_macs", "3211264\t13454080\t75715584"),
        ("512 512 3 14", "mac_ratio mac_ratio_exact", "0.1130642361111111\t521/4608"),
        ("512 512 3 14 --no-verify", "name kind crosscheck groups", "\tconv\tskipped\t1"),
        ("512 512 3 14", "crosscheck", "exact"),
        ("512 512 3 14", "fvcore_standard_macs crosscheck", "462422016\texact"),
        ("512 512 3 14 --verify", "crosscheck fvcore_standard_macs", "exact\t462422016"),
        (f"{HUGE} 1 1 1", "in_channels standard_macs", f"{HUGE}\t{HUGE}"),
        (f"{HUGE} {HUGE} 3 {HUGE} --no-verify", "standard_macs", f"{9 * 10**120}"),
        ("4 8:16:x2 3,5 7", "out_channels kernel_size", "8\t3x3\n8\t5x5\n16\t3x3\n16\t5x5"),
        # It runs for a grid, too, where what it counts is asked for.
        ("3 32,64 3 14", "fvcore_standard_macs", f"{3 * 32 * 9 * 196}\n{3 * 64 * 9 * 196}"),
    ],
)
def test_get_prints_the_raw_values_of_each_row(options, fields, values, run):
    wanted = [word for field in fields.split() for word in ("--get", field)]
    assert run(*options.split(), *wanted) == (0, f"{values}\n", "")


@pytest.mark.parametrize(
    ("args", "verified"),
    [
        (LAYER, True),
        (f"{LAYER} --no-verify", False),
        ("3 32,64 3 224", False),
        ("3 32,64 3 224 --verify", True),
        (f"{LAYER} --assert fvcore_standard_macs>1", True),
    ],
)
def test_a_layer_is_cross_checked_and_a_grid_only_on_request(args, verified, run):
    result = run(f"{args} -f json")
    assert result.code == 0
    found = {row["crosscheck"] for row in json.loads(result.stdout)["rows"]}
    assert found == {"exact" if verified else "skipped"}
    assert ("✓" in run(args).stdout) is verified


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (LAYER, "7.89x fewer MACs and params"),
        ("3 64 3 224 --unit flops", "7.89x fewer FLOPs and params"),
        ("3 64 3 224 --bias", "7.89x fewer MACs, 6.27x fewer params"),
        ("8 1 3 14", "separable costs MORE here: 1.11x the MACs; it saves only if "),
        ("1 3 7x1 9 -m 2 --depthwise-bias", "1.05x fewer MACs, but 1.05x the params"),
        ("1 1000 50 9", "714x fewer MACs and params"),
        ("1 2 1x2 9", "separable has the same MACs here"),
        (
            "64 64 1 28",
            "a 1x1 convolution is already pointwise, so a depthwise step only adds to "
            "it:\n1.02x the MACs",
        ),
        ("1 1 3 5", "1.11x the MACs in\nall; --as spatial is Fx1, then 1xF"),
        # What pages often take for granted.
        (
            "3 256 5 12",
            "-p valid gives 8x8; --bias adds 256 params to standard, 259 to separable\n",
        ),
        ("3 1 5 12 -p 1", "\n--bias adds 1 param to standard, 4 to separable\n"),
        (
            "3 256 5 12 --bias",
            "\n-p valid gives 8x8\n1 MAC = 1 multiply-accumulate = 2 FLOPs; adding ",
        ),
        ("3 256 5", "\n--bias adds 256 params"),
        ("3 256 5", "for one output position: params and ratio do not depend on D\n"),
        ("3 256 5", "= 2 FLOPs; other or more layers: dscalc network\n"),
        ("1 1 3 --dilation 2", "3x3 kernel spanning 5x5, one output position, dilation 2\n"),
        ("1 1 3x1 9 --dilation 2", "3x1 kernel spanning 5x1, 9x9 map, padding same, dilation 2\n"),
        # The closed form, with its numbers, wherever it is true.
        (LAYER, "= 1/OC + 1/F^2 = 1/64 + 1/9 = 73/576 = 0.126736\n"),
        ("3 64 3 224 --dims 1", "= 1/OC + 1/F = 1/64 + 1/3 = 67/192 = 0.348958\n"),
        ("3 64 3 224 --dims 3", "= 1/OC + 1/F^3 = 1/64 + 1/27 = 91/1728 = 0.052662\n"),
        ("3 64 3x5 224", "= 1/OC + 1/(F1*F2) = 1/64 + 1/15 = 79/960 = 0.0822917\n"),
        ("3 64 3 224 -m 2", "= m * (1/OC + 1/F^2) = 2 * (1/64 + 1/9) = 73/288 = 0.253472\n"),
        ("6 64 3 14 --groups 2", "separable / standard = 73/288 = 0.253472\n"),
    ],
)
def test_the_sentence_that_people_quote(args, sentence, run):
    assert sentence in run(f"{args} --no-verify").stdout


# Verdicts.


@pytest.mark.parametrize(
    ("condition", "code", "stderr"),
    [
        ("mac_ratio <= 1/8", 1, "failed: mac_ratio <= 1/8: mac_ratio is 0.126736 (73/576)\n"),
        ("mac_ratio<=73/576", 0, "holds: mac_ratio <= 73/576\n"),
        ("separable_macs < 10M", 1, "failed: separable_macs < 10M: separable_macs is 10,988,544\n"),
        ("separable_params == 219", 0, "holds: separable_params == 219\n"),
    ],
)
@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_an_assertion_decides_the_exit_code_and_not_the_report(form, condition, code, stderr, run):
    args = ("3", "64", "3", "224", "--no-verify", "-f", form)
    report = run(*args)
    assert run(*args, "--assert", condition) == (code, report.stdout, stderr)
    assert run(*args, "--assert", condition, "-q") == (code, report.stdout, "")


def test_json_and_markdown_end_with_what_became_of_every_assertion(run):
    conditions = ("mac_ratio < 1/8", "separable_macs < 60M", "separable_macs < 1M")
    asserted = [word for condition in conditions for word in ("--assert", condition)]
    shown, markdown = (
        run("3", "64", "3", "224", "--no-verify", *asserted, "-f", form)
        for form in ("json", "markdown")
    )
    assert shown.code == markdown.code == 1
    assert [line.split(":")[0] for line in shown.stderr.splitlines()] == (
        ["failed", "failed", "holds"]
    )
    assert markdown.stderr == shown.stderr
    checks = [tuple(check.values()) for check in json.loads(shown.stdout)["checks"]]
    assert checks == [
        ("mac_ratio < 1/8", False, 73 / 576, "", 1, 1, 1 / 8, False),
        ("separable_macs < 60M", True, 10_988_544, "", 1, 0, 60_000_000, False),
        ("separable_macs < 1M", False, 10_988_544, "", 1, 1, 1_000_000, False),
    ]
    assert markdown.stdout.splitlines()[-4:] == [
        "",
        r"- [ ] mac\_ratio \< 1/8: fails: 0.126736 (73/576)",
        r"- [x] separable\_macs \< 60M: holds, 10,988,544",
        r"- [ ] separable\_macs \< 1M: fails: 10,988,544",
    ]


def test_an_assertion_is_checked_on_every_row_of_a_grid(run):
    args = ("3", "4,64,8", "3", "14", "--assert")
    failed = run(*args, "mac_ratio < 1/4", "-f", "csv")
    assert failed.code == 1
    assert failed.stderr == (
        "failed: mac_ratio < 1/4: 3 -> 4 channels, 3x3 kernel, 14x14 map, padding same: "
        "mac_ratio is 0.361111 (13/36)\n"
    )
    assert len(failed.stdout.splitlines()) == 4
    [check] = json.loads(run(*args, "mac_ratio < 1/4", "-f", "json").stdout)["checks"]
    assert (check["holds"], check["value"], check["failed"]) == (False, 13 / 36, 1)
    holds = run(*args, "mac_ratio < 1/2", "-f", "markdown")
    assert holds[::2] == (0, "holds: mac_ratio < 1/2 in all 3 rows\n")
    assert holds.stdout.endswith("- [x] mac\\_ratio \\< 1/2: holds in all 3 rows\n")


def test_an_assertion_about_what_has_no_value_is_an_error_under_the_whole_report(run):
    result = run("network mobilenet_v1 --no-verify -f json --assert in_channels>1")
    assert (result.code, result.error) == (
        2,
        "cannot check 'in_channels > 1': in_channels has no value in this row",
    )
    report = json.loads(result.stdout)
    assert len(report["rows"]) == 16
    [check] = report["checks"]
    assert (check["holds"], check["value"]) == (False, None)


def test_of_many_failures_ten_are_named_and_the_rest_counted(run):
    result = run("3", "1:25", "3", "14", "-f", "csv", "--assert", "mac_ratio > 10")
    assert result.code == 1
    assert len(result.stderr.splitlines()) == 11
    assert result.stderr.endswith("\nmac_ratio > 10: 15 more\n")


# Bad input.

BAD_INPUT = [
    ("0 64 3 224", "IC must be at least 1, got 0"),
    ("3 64 3,0 224", "F must be at least 1, got 0"),
    ("3 -64 3 224", "IC, OC, F and D must be at least 1, got -64"),
    ("-3 64 3 224", "IC, OC, F and D must be at least 1, got -3"),
    ("-- 3 -64 3 224", "OC must be at least 1, got -64"),
    ("3 64 3 224 --frob -1", "no such option: --frob"),
    ("3 64 3 224 --stride 1,2", "--stride must be a size such as 3 or 3x5"),
    ("3 64 3 224 --stride 0", "--stride must be at least 1, got 0"),
    ("3 64 3 224 -s -1", "--stride must be at least 1, got -1"),
    ("3 64 3 9 -s 1x1x1", "stride 1x1x1 has 3 axes, but the layer has 2"),
    ("3 6.5 3 224", "OC must be a whole number such as 64, got '6.5'"),
    ("3 64 3x 224", "F must be a size such as 3 or 3x5, got '3x'"),
    ("3 64 3x3x3 9 --dims 2", "F 3x3x3 has 3 sizes in 2-D; --dims 3 makes it 3-D"),
    (
        "1:10000 1:10000 1:10 1:10",
        "a grid has at most 1,000,000,000 layers, got 10,000,000,000",
    ),
    pytest.param("3 64 3 " + "9" * 5000, "D must have at most 100 digits, got 5000", id="digits"),
    (
        "3 64 9 7 -p valid",
        "the kernel spans 9x9, but the padded input is 7x7; "
        "use a smaller kernel or dilation, more padding or a larger map",
    ),
    (
        "3 64 3 224 -p -1",
        "--padding must be same, valid (none) or a size of 0 or more, such as 1 or 1x2, ",
    ),
    ("3 64 3 224 --dilation 0", "--dilation must be at least 1, got 0"),
    ("3 64 3 224 -b 0", "--batch must be at least 1, got 0"),
    (
        "3 64 3 224 --width-multiplier 1e999",
        "--width-multiplier must have at most 100 digits, got '1e999'",
    ),
    (
        "3 64 3 224 --width-multiplier 0",
        "--width-multiplier must be greater than 0, such as 0.75 or 3/4, got '0'",
    ),
    (
        "3 64 3 224 --resolution-multiplier x",
        "--resolution-multiplier must be a number such as 0.75 or 3/4, got 'x'",
    ),
    (
        "3 64 3 224 --dims 4",
        "invalid value for '--dims': '4' is not one of '1', '2', '3'; see dscalc compare --help",
    ),
    ("3 64 3 224 --get mac_rato", "unknown field 'mac_rato'; did you mean mac_r"),
    (
        "3 64 3 224 --assert seperable_macs<1",
        "unknown field 'seperable_macs'; did you mean separable_macs",
    ),
    (
        "3 64 3 224 --unit flops --get standard_macs",
        "standard_macs needs --unit macs",
    ),
    ("3 64 3 224 --assert mac_ratio", "an assertion must be FIELD OP NUMBER, such as "),
    (
        "3 64 3 224 --assert mac_ratio<many",
        "the right side of 'mac_ratio<many' must be a number such as 60M, 320Ki, 0.125 or 1/8, "
        "got 'many'",
    ),
    (
        "3 64",
        "missing argument 'F'; a layer is IC OC F [D], such as 3 64 3 224; "
        "see dscalc compare --help",
    ),
    (
        "3 64 3 224 5",
        "got unexpected extra argument(s) (5); a map that is not square is one argument, such as "
        "224x5; see dscalc compare --help",
    ),
    # As pages write layers.
    (
        "3 256 5x5x3 12x12x3",
        "channels are IC: write 5 for F and 12 for D, got 5x5x3 and 12x12x3; if",
    ),
    (
        "3 256 5\N{MULTIPLICATION SIGN}5\N{MULTIPLICATION SIGN}3 12",
        "channels are IC: write 5 for F, got 5x5x3; if the layer is 3-D, add --dims 3",
    ),
    (
        "3 64 3 5x7x3",
        "channels are IC: write 5x7 for D, got 5x7x3; if the layer is 3-D, add --dims",
    ),
    (
        "12x12 256 5 12",
        "IC is a number of channels, got '12x12'; the order is IC OC F D, and sizes",
    ),
    (
        "12X12\N{MULTIPLICATION SIGN}3 256 5",
        "IC is a number of channels, got '12x12x3'; the order is IC OC F D, and sizes",
    ),
    ("3 1,000 3 14", "OC 1,000 is a list of numbers; write 1000 for one number"),
    ("3 64 3 1,024,000", "D 1,024,000 is a list of numbers; write 1024000 for one number"),
    ("3 b 3 14", "OC must be a whole number such as 64, got 'b'"),
    (
        "3 64 3 14 -p none",
        "--padding must be same, valid (none) or a size of 0 or more, such as 1 or",
    ),
    ("compute 3 64 3 224", "no such command 'compute'; did you mean compare?"),
    ("bloch", "no such command 'bloch'; did you mean blocks or bench?"),
    ("model x --inp 3", "no such option: --inp; did you mean --input or --inputs?"),
    ("model x --as", "option '--as' requires an argument; see dscalc model --help"),
    ("3 64 3 224 --strid 2", "no such option: --strid; did you mean --stride?"),
    ("3 64 3 224 --depth 1", "no such option here: --depth; dscalc model has it; see dscalc comp"),
    (
        "bench 3 64 3 224 --cite",
        "no such option here: --cite; dscalc compare, dscalc network and d",
    ),
    ("three 64 3 224", "no such command 'three'; a layer is IC OC F [D], such as 3 64 3 224; see"),
    ("resnet50", "no such command 'resnet50'; did you mean dscalc network resnet50?"),
    ("mynet.csv", "no such command 'mynet.csv'; did you mean dscalc network mynet.csv?"),
    ("unet.py:UNet", "no such command 'unet.py:UNet'; did you mean dscalc model unet.py:UNet?"),
    ("3 64 3 224 --strides 2", "no such option: --strides"),
    ("3 64 3 224 -f xml", "invalid value for '-f' / '--format': 'xml'"),
    ("3 64 3 224 -s", "option '-s' requires an argument; see dscalc compare --help"),
    ("3 64 3 224 -f json -o /", "cannot write /: it is a directory"),
    ("3 64 3 224 -o /missing/x.txt", "cannot write /missing/x.txt: No such file"),
    (
        "1:101 1:100 3 14 -f json",
        "json takes at most 10,000 rows, got 10,100; use only -f csv or -f jsonl",
    ),
    (
        "3 64 3 224 --no-verify --assert fvcore_standard_macs>1",
        "fvcore_standard_macs comes from the cross-check; drop --no-verify",
    ),
    (
        "3 64 3 224 --no-verify --get torch_standard_params",
        "torch_standard_params comes from the cross-check; drop --no-verify",
    ),
]


@pytest.mark.parametrize(("args", "reason"), BAD_INPUT)
def test_bad_input_is_one_line_that_names_value_rule_and_fix(args, reason, run):
    result = run(args)
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason)


@pytest.mark.parametrize("position", range(4))
def test_an_empty_argument_is_refused(position, run):
    layer = LAYER.split()
    layer[position] = ""
    result = run(*layer)
    assert (result.code, result.stdout) == (2, "")
    name = ("IC", "OC", "F", "D")[position]
    rule = "a whole number such as 64" if name in ("IC", "OC") else "a size such as 3 or 3x5"
    assert result.error == f"{name} must be {rule}, got ''"


@pytest.mark.parametrize("text", ["3\n4", "\x1b[31m3", "3\u202e", "3\r"])
def test_control_characters_do_not_reach_the_terminal(text, run):
    result = run(text, "64", "x", "224")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.isprintable()


def test_verbose_says_what_was_counted_and_by_what(run):
    result = run(f"{LAYER} -v")
    assert (result.code, result.stdout) == (0, run(LAYER).stdout)
    for line in result.stderr.splitlines():
        assert re.match(r"counted by fvcore [0-9.]+\S* on torch [0-9.]+\S*: ", line)
    for count in (86_704_128, 1_728, 10_988_544, 219):
        assert f"={count}" in result.stderr


# Faults.


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_traceback_is_shown_only_on_request(run, monkeypatch):
    assert "Traceback" in run("3 64 3x 224 -v").stderr
    assert run("3 64 3x 224").error
    monkeypatch.setattr(Grid, "__iter__", raising(ZeroDivisionError("planted")))
    result = run(f"{LAYER} --no-verify")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == "ZeroDivisionError: planted; this is a bug in dscalc; -v shows where"
    result = run(f"{LAYER} --no-verify -v")
    assert result.code == 2
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert "raise error\nZeroDivisionError: planted\n" in result.stderr
    assert result.stderr.endswith("-v shows where\n")


@pytest.mark.parametrize(("owner", "name"), [(Grid, "__iter__"), (cli, "_program")])
def test_an_interrupt_in_or_before_a_command_exits_with_130(owner, name, run, monkeypatch):
    monkeypatch.setattr(owner, name, raising(KeyboardInterrupt()))
    assert run(f"{LAYER} --no-verify") == (130, "", "interrupted\n")


@pytest.mark.parametrize("args", ["3 64 3x 224", "--no-verify 3 64 3 224 --assert 'macs < 1'"])
def test_a_stderr_that_cannot_be_written_leaves_the_exit_code(args, start):
    with Path("/dev/full").open("wb") as full:
        process = start(args, stderr=full)
        process.communicate(timeout=60)
    assert process.returncode == 2


def test_a_stdout_that_cannot_be_written_is_an_error_of_one_line(start):
    with Path("/dev/full").open("wb") as full:
        process = start(f"{LAYER} --no-verify", stdout=full)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr == (
        b"error: cannot write to stdout: No space left on device; is the disk full?\n"
    )


def test_ctrl_c_while_dscalc_is_imported_exits_with_130(tmp_path):
    planted = (
        "class Stop:\n def find_spec(*_): raise KeyboardInterrupt\nsys.meta_path[:] = [Stop]\n"
    )
    code = f"import sys\nfrom dscalc import __main__\n{planted}__main__.run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_closed_stream_of_a_host_is_no_fault(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    assert cli.main(f"{LAYER} --no-verify".split()) == 0
    sys.stdout.close()


def test_a_top_of_any_size_shows_all(run):
    assert run(f"blocks 3 64 3 28 --no-verify --top {10**30}").code == 0


def test_an_error_that_cannot_be_told_is_named(run, monkeypatch):
    error = type("Untold", (Exception,), {"__str__": raising(RuntimeError())})()
    monkeypatch.setattr(Grid, "__iter__", raising(error))
    assert run(f"{LAYER} --no-verify").error == "Untold: ; this is a bug in dscalc; -v shows where"


def test_what_is_left_out_of_a_large_grid_is_said_in_a_few_lines(run):
    result = run("blocks 8,16 1:400 3 --no-verify -f csv")
    lines = result.stderr.splitlines()
    assert len(lines) <= 21
    assert re.fullmatch(r"left out: [\d,]+ more, for [\d,]+ more reasons", lines[-1])
