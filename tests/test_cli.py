"""The command line: what is answered, what is refused, and with which exit code."""

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import dscalc
from dscalc import cli
from dscalc.inputs.grid import Grid

HUGE = "1" + "0" * 30


def test_the_command_is_installed():
    [script] = entry_points(group="console_scripts", name="dscalc")
    assert script.load() is cli.main


def test_a_layer_is_answered_and_proved(run):
    result = run("3 64 3 224")
    assert result.code == 0
    assert result.stderr == ""
    assert "86,704,128 ✓" in result.stdout
    assert "= 1/OC + 1/F^2 = 1/64 + 1/9 = 73/576 = 0.126736" in result.stdout
    assert "7.89x fewer MACs and params" in result.stdout
    assert "✓ fvcore and torch count exactly this on the real modules" in result.stdout


@pytest.mark.parametrize(
    "args", ["3 64 3 224", "-f json 3 64 3 224", "--no-verify 3,4 64 3x5 224", "3 64 -s 2 3 224"]
)
def test_compare_is_the_default_command(args, run):
    assert run(args) == run(f"compare {args}")


def test_the_module_runs_as_the_command_does(spawn, run):
    assert spawn("3 64 3 224 --get mac_ratio_exact") == (0, "73/576\n", "")


def test_version(run):
    assert run("--version") == (0, f"dscalc {dscalc.__version__}\n", "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_the_commands_and_the_exit_codes(option, run):
    result = run(option)
    assert (result.code, result.stderr) == (0, "")
    for word in ("compare", "Exit codes", "130", "dscalc IC OC F D"):
        assert word in result.stdout


@pytest.mark.parametrize("args", ["compare -h", "compare --help", "3 64 3 224 -h"])
def test_help_of_compare_has_every_option_in_full_at_any_width(args, run):
    for columns in (40, 80, 120):
        result = run(args, columns=columns)
        assert (result.code, result.stderr) == (0, "")
        for option in (
            *("--stride", "--padding", "--dilation", "--depth-multiplier", "--bias", "--no-bias"),
            *("--depthwise-bias", "--no-depthwise-bias", "--batch", "--dims", "--format"),
            *("--width-multiplier", "--resolution-multiplier", "--output", "--get", "--assert"),
            *("--unit", "--verify", "--no-verify", "--quiet", "--verbose"),
        ):
            assert option in result.stdout


def examples(help_text):
    lines = [line.strip() for line in help_text.splitlines()]
    return [line for line in lines if line.startswith("dscalc ") and "IC OC F D" not in line]


def test_the_examples_in_the_help_run(run, tmp_path, monkeypatch):
    from shlex import split

    monkeypatch.chdir(tmp_path)
    found = examples(run("compare --help").stdout)
    assert len(found) == 5
    for example in found:
        assert run(*split(example)[1:]).code == 0, example


def test_without_arguments_the_help_is_shown_and_nothing_answered(run):
    assert run() == (2, run("--help").stdout, "")


def test_shell_completion_is_on(run):
    result = run("--help")
    assert "--install-completion" in result.stdout


# Layers.


@pytest.mark.parametrize(
    ("options", "fields", "values"),
    [
        ("3 64 3 224", "output_size", "224x224"),
        ("3 64 3 224 -s 2", "output_size", "112x112"),
        ("3 64 3 224 --stride 2x1", "output_size stride", "112x224\t2x1"),
        ("3 64 3 224 -p valid", "output_size padding", "222x222\tvalid"),
        ("3 64 3 224 --padding 1x0", "output_size padding", "224x222\t1x0"),
        ("3 64 3 224 -p valid --dilation 2", "output_size dilation", "220x220\t2x2"),
        ("3 64 3x5 224x160", "kernel_size input_size", "3x5\t224x160"),
        ("3 64 3 224 -m 2", "depth_multiplier depthwise_params", "2\t54"),
        ("3 64 3 224 -b 8", "batch_size standard_macs standard_params", "8\t693633024\t1728"),
        ("3 64 3 224 --bias", "bias depthwise_bias standard_params", "true\ttrue\t1792"),
        ("3 64 3 224 --bias --no-depthwise-bias", "separable_params", "283"),
        ("3 64 3 224 --depthwise-bias", "bias depthwise_bias separable_params", "false\ttrue\t222"),
        ("3 64 3 224 --dims 1", "kernel_size standard_macs", "3\t129024"),
        ("3 64 3 224 --dims 3", "kernel_size mac_ratio_exact", "3x3x3\t91/1728"),
        ("32 64 3 224 --width-multiplier 0.75", "in_channels out_channels", "24\t48"),
        ("32 64 3 14 --resolution-multiplier 0.714", "input_size", "10x10"),
        ("3 64 3 224 --unit flops", "standard_flops separable_flops", "173408256\t21977088"),
        ("512 512 3 14", "mac_ratio mac_ratio_exact", "0.1130642361111111\t521/4608"),
        ("512 512 3 14 --no-verify", "name kind crosscheck groups", "\tseparable\tskipped\t1"),
        ("512 512 3 14", "crosscheck", "exact"),
        ("512 512 3 14", "fvcore_standard_macs crosscheck", "462422016\texact"),
        ("512 512 3 14 --verify", "crosscheck fvcore_standard_macs", "exact\t462422016"),
        (f"{HUGE} 1 1 1", "in_channels standard_macs", f"{HUGE}\t{HUGE}"),
    ],
)
def test_get_prints_the_raw_values_of_a_layer(options, fields, values, run):
    wanted = [word for field in fields.split() for word in ("--get", field)]
    assert run(*options.split(), *wanted) == (0, f"{values}\n", "")


def test_get_prints_a_line_for_each_row_of_a_grid(run):
    result = run("4 8:16:x2 3,5 7 --get out_channels --get kernel_size")
    assert result == (0, "8\t3x3\n8\t5x5\n16\t3x3\n16\t5x5\n", "")


@pytest.mark.parametrize(
    ("args", "verified"),
    [
        ("3 64 3 224", True),
        ("3 64 3 224 --no-verify", False),
        ("3 32,64 3 224", False),
        ("3 32,64 3 224 --verify", True),
    ],
)
def test_a_layer_is_cross_checked_and_a_grid_only_on_request(args, verified, run):
    report = json.loads(run(f"{args} -f json").stdout)
    assert report["total"]["crosscheck"] == ("exact" if verified else "skipped")
    assert ("✓" in run(args).stdout) is verified


def test_an_assertion_leaves_the_cross_check_on(run):
    result = run("3", "64", "3", "224", "-f", "json", "--assert", "fvcore_standard_macs > 1")
    assert result.code == 0
    assert json.loads(result.stdout)["rows"][0]["crosscheck"] == "exact"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("3 64 3 224", "7.89x fewer MACs and params"),
        ("3 64 3 224 --unit flops", "7.89x fewer FLOPs and params"),
        ("3 64 3 224 --bias", "7.89x fewer MACs, 6.27x fewer params"),
        ("8 1 3 14", "separable costs MORE here: 1.11x the MACs; it saves only where "),
        ("1 3 7x1 9 -m 2 --depthwise-bias", "1.05x fewer MACs, but 1.05x the params"),
        ("1 1000 50 9", "714x fewer MACs and params"),
        ("1 2 1x2 9", "separable costs the same MACs here"),
    ],
)
def test_the_sentence_that_people_quote(args, sentence, run):
    assert sentence in run(f"{args} --no-verify").stdout


@pytest.mark.parametrize(
    ("args", "form"),
    [
        ("3 64 3 224", "1/OC + 1/F^2 = 1/64 + 1/9 = 73/576 = 0.126736"),
        ("3 64 3 224 --dims 1", "1/OC + 1/F = 1/64 + 1/3 = 67/192 = 0.348958"),
        ("3 64 3 224 --dims 3", "1/OC + 1/F^3 = 1/64 + 1/27 = 91/1728 = 0.052662"),
        ("3 64 3x5 224", "1/OC + 1/(F1*F2) = 1/64 + 1/15 = 79/960 = 0.0822917"),
        ("3 64 3 224 -m 2", "m * (1/OC + 1/F^2) = 2 * (1/64 + 1/9) = 73/288 = 0.253472"),
    ],
)
def test_the_closed_form_is_printed_with_its_numbers(args, form, run):
    assert f"separable / standard = {form}\n" in run(f"{args} --no-verify").stdout


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
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_an_assertion_decides_the_exit_code_and_not_the_report(form, condition, code, stderr, run):
    args = ("3", "64", "3", "224", "--no-verify", "-f", form)
    report = run(*args)
    assert run(*args, "--assert", condition) == (code, report.stdout, stderr)
    assert run(*args, "--assert", condition, "-q") == (code, report.stdout, "")


def test_every_assertion_is_checked(run):
    conditions = ("mac_ratio < 1/8", "separable_macs < 60M", "separable_macs < 1M")
    asserted = [word for condition in conditions for word in ("--assert", condition)]
    result = run("3", "64", "3", "224", "--no-verify", *asserted)
    assert result.code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == (
        ["failed", "failed", "holds"]
    )


def test_an_assertion_is_checked_on_every_row_of_a_grid(run):
    args = ("3", "4,64,8", "3", "14", "-f", "csv", "--assert")
    failed = run(*args, "mac_ratio < 1/4")
    assert failed.code == 1
    assert failed.stderr == (
        "failed: mac_ratio < 1/4: 3 -> 4 channels, 3x3 kernel, 14x14 map: "
        "mac_ratio is 0.361111 (13/36)\n"
    )
    assert len(failed.stdout.splitlines()) == 4
    assert run(*args, "mac_ratio < 1/2")[::2] == (0, "holds: mac_ratio < 1/2 in all 3 rows\n")


def test_of_many_failures_ten_are_named_and_the_rest_counted(run):
    result = run("3", "1:25", "3", "14", "-f", "csv", "--assert", "mac_ratio > 10")
    assert result.code == 1
    assert len(result.stderr.splitlines()) == 11
    assert result.stderr.endswith("\nmac_ratio > 10: 15 more\n")


# Bad input.

BAD_INPUT = {
    "zero": ("0 64 3 224", "IC must be at least 1, got 0"),
    "zero among many": ("3 64 3,0 224", "F must be at least 1, got 0"),
    "zero in a size": ("3 64 3x0 224", "F must be at least 1, got 0"),
    "negative": ("3 -64 3 224", "IC, OC, F and D must be at least 1, got -64"),
    "negative first": ("-3 64 3 224", "IC, OC, F and D must be at least 1, got -3"),
    "negative after --": ("-- 3 -64 3 224", "OC must be at least 1, got -64"),
    "negative option value": ("3 64 3 224 --frob -1", "no such option: --frob"),
    "not an axis list": ("3 64 3 224 --stride 1,2", "--stride must be a size such as 3 or 3x5"),
    "huge multiplier": (
        "3 64 3 224 --width-multiplier 1e999",
        "--width-multiplier must have at most 100 digits, got '1e999'",
    ),
    "fraction": ("3 6.5 3 224", "OC must be a whole number such as 64, got '6.5'"),
    "word": ("3 64 three 224", "F must be a size such as 3 or 3x5, got 'three'"),
    "half a size": ("3 64 3x 224", "F must be a size such as 3 or 3x5, got '3x'"),
    "three axes of two": ("3 64 3x3x3 224", "F 3x3x3 has 3 sizes in 2-D; --dims 3 makes it 3-D"),
    "two axes of one": ("3 64 3x3 9 --dims 1", "F 3x3 has 2 sizes in 1-D; --dims 2 makes it 2-D"),
    "empty range": ("3 64:32 3 224", "OC range 64:32 runs backwards; write 32:64:1"),
    "huge grid": (
        "1:10000 1:10000 1:10 1:10",
        "a grid has at most 1,000,000,000 layers, got 10,000,000,000",
    ),
    "many digits": ("3 64 3 " + "9" * 5000, "D must have at most 100 digits, got 5000"),
    "kernel larger than the map": (
        "3 64 9 7 -p valid",
        "the kernel spans 9x9, but the padded input is 7x7; "
        "use a smaller kernel or dilation, more padding or a larger map",
    ),
    "kernel larger than the padded map": (
        "3 64 11 7 -p 1",
        "the kernel spans 11x11, but the padded input is 9x9; "
        "use a smaller kernel or dilation, more padding or a larger map",
    ),
    "dilation that leaves no output": (
        "3 64 3 7 -p valid --dilation 4",
        "the kernel spans 9x9, but the padded input is 7x7; "
        "use a smaller kernel or dilation, more padding or a larger map",
    ),
    "zero stride": ("3 64 3 224 -s 0", "--stride must be at least 1, got 0"),
    "stride of three axes": ("3 64 3 9 -s 1x1x1", "stride 1x1x1 has 3 axes, but the layer has 2"),
    "word as a stride": (
        "3 64 3 224 -s two",
        "--stride must be a size such as 3 or 3x5, got 'two'",
    ),
    "negative stride": ("3 64 3 224 -s -1", "--stride must be at least 1, got -1"),
    "negative padding": (
        "3 64 3 224 -p -1",
        "--padding must be same, valid or a size of 0 or more, such as 1 or 1x2, got '-1'",
    ),
    "word as padding": (
        "3 64 3 224 -p full",
        "--padding must be same, valid or a size of 0 or more, such as 1 or 1x2, got 'full'",
    ),
    "zero dilation": ("3 64 3 224 --dilation 0", "--dilation must be at least 1, got 0"),
    "zero multiplier": ("3 64 3 224 -m 0", "--depth-multiplier must be at least 1, got 0"),
    "zero batch": ("3 64 3 224 -b 0", "--batch must be at least 1, got 0"),
    "zero width": (
        "3 64 3 224 --width-multiplier 0",
        "--width-multiplier must be greater than 0, such as 0.75 or 3/4, got '0'",
    ),
    "word as a resolution": (
        "3 64 3 224 --resolution-multiplier x",
        "--resolution-multiplier must be a number such as 60M, 1.5G, 0.125 or 1/8, got 'x'",
    ),
    "four dimensions": (
        "3 64 3 224 --dims 4",
        "invalid value for '--dims': '4' is not one of '1', '2', '3'; see dscalc compare --help",
    ),
    "unknown field": ("3 64 3 224 --get mac_rato", "unknown field 'mac_rato'; did you mean mac_r"),
    "unknown field of an assertion": (
        "3 64 3 224 --assert seperable_macs<1",
        "unknown field 'seperable_macs'; did you mean separable_macs",
    ),
    "field of the other unit": (
        "3 64 3 224 --unit flops --get standard_macs",
        "unknown field 'standard_macs'; with --unit flops it is called standard_flops",
    ),
    "no condition": (
        "3 64 3 224 --assert mac_ratio",
        "an assertion must be FIELD OP NUMBER, such as 'mac_ratio <= 1/8', "
        "with < <= == != >= or >, got 'mac_ratio'",
    ),
    "bad number in a condition": (
        "3 64 3 224 --assert mac_ratio<many",
        "the right side of 'mac_ratio<many' must be a number such as 60M, 1.5G, 0.125 or 1/8, "
        "got 'many'",
    ),
    "too few arguments": ("3 64 3", "missing argument 'D'; see dscalc compare --help"),
    "too many arguments": (
        "3 64 3 224 5",
        "got unexpected extra argument(s) (5); see dscalc compare --help",
    ),
    "unknown command": ("compute 3 64 3 224", "no such command 'compute'"),
    "unknown option": ("3 64 3 224 --strides 2", "no such option: --strides"),
    "unknown format": ("3 64 3 224 -f xml", "invalid value for '-f' / '--format': 'xml'"),
    "option without its value": ("3 64 3 224 -s", "option '-s' requires an argument"),
    "directory as output": ("3 64 3 224 -o /", "cannot write /: it is a directory"),
    "missing directory": ("3 64 3 224 -o /missing/x", "cannot write /missing/x: No such file"),
    "many rows of a format that holds them all": (
        "1:101 1:100 3 14 -f json",
        "json holds at most 10,000 rows, and there are 10,100; use -f csv or -f jsonl",
    ),
}


@pytest.mark.parametrize(("args", "reason"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_that_names_value_rule_and_fix(args, reason, run):
    result = run(args)
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason)


@pytest.mark.parametrize("position", range(4))
def test_an_empty_argument_is_refused(position, run):
    layer = ["3", "64", "3", "224"]
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


@pytest.mark.parametrize("field", ["kernel_size", "kind", "bias", "mac_ratio_exact", "crosscheck"])
def test_a_condition_on_what_is_no_number_is_refused_before_any_work(field, run):
    result = run(f"3 64 3 224 --assert {field}>1")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == f"cannot check '{field}>1': {field} is not a number"


@pytest.mark.parametrize(
    "asked", ["--assert fvcore_standard_macs>1", "--get torch_standard_params"]
)
def test_what_the_cross_check_counts_is_not_there_without_it(asked, run):
    result = run(f"3 64 3 224 --no-verify {asked}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.endswith(" is what the cross-check counts; drop --no-verify")


def test_asking_for_what_the_cross_check_counts_runs_it_for_a_grid_too(run):
    result = run("3 32,64 3 14 --get fvcore_standard_macs")
    assert result == (0, f"{3 * 32 * 9 * 196}\n{3 * 64 * 9 * 196}\n", "")


def test_integers_of_31_digits_are_answered(run):
    result = run(f"{HUGE} {HUGE} 3 {HUGE} --no-verify --get standard_macs")
    assert result == (0, f"{9 * 10**120}\n", "")


def test_verbose_says_what_was_counted_and_by_what(run):
    result = run("3 64 3 224 -v")
    assert (result.code, result.stdout) == (0, run("3 64 3 224").stdout)
    [line] = result.stderr.splitlines()
    assert re.match(r"counted by fvcore [0-9.]+\S* on torch [0-9.]+\S*: ", line)
    for count in (86_704_128, 1_728, 10_988_544, 219):
        assert f"={count}" in line


def test_a_traceback_is_shown_only_on_request(run):
    assert "Traceback" in run("3 64 3x 224 -v").stderr
    assert run("3 64 3x 224").error


def test_a_crash_is_one_line_and_with_v_a_traceback(run, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Grid, "__iter__", fail)
    result = run("3 64 3 224 --no-verify")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == "ZeroDivisionError: planted; this is a fault in dscalc, -v shows where"
    result = run("3 64 3 224 --no-verify -v")
    assert result.code == 2
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert 'raise ZeroDivisionError("planted")' in result.stderr
    assert result.stderr.endswith("-v shows where\n")


def test_an_interrupt_exits_with_130(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Grid, "__iter__", interrupt)
    result = run("3 64 3 224 --no-verify")
    assert (result.code, result.stdout) == (130, "")
    assert "error" not in result.stderr


def test_an_interrupt_before_the_command_exits_with_130(run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_app", interrupt)
    assert run("3 64 3 224") == (130, "", "")


def test_a_stdout_that_cannot_be_written_is_an_error_of_one_line(start):
    with Path("/dev/full").open("wb") as full:
        process = start("3 64 3 224 --no-verify", stdout=full)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr == (
        b"error: cannot write to stdout: No space left on device; is the disk full?\n"
    )
