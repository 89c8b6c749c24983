"""What people see: at any width, in any encoding, on a terminal and in a pipe."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from fractions import Fraction
from importlib import import_module

import pytest
from faults import one_mac_more

from dscalc import compare
from dscalc.report import sentences, table

LAYER = "3 64 3 224"
GRID = "32 32:128:x2 3,5 14"
SHOWN = {
    "layer": LAYER,
    "costs_more": "32 1 3 56",
    "bias_and_stride": "64 128 3 56 --stride 2 --bias",
    "multiplier_in_flops": "64 128 3x5 56 -m 2 -p valid --no-depthwise-bias --bias --unit flops",
    "grid": GRID,
    "verified_grid": f"{GRID} --verify",
    "failing_assertion": f"{LAYER} --assert mac_ratio<=1/8 --assert separable_macs<60M",
    "error": "3 64 3x 224",
}


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", SHOWN)
def test_golden_output(name, columns, run, snapshot):
    """Exit code, stdout and stderr together."""
    result = run(SHOWN[name], columns=columns)
    lines = [
        f"$ COLUMNS={columns} dscalc {SHOWN[name]}",
        f"exit code {result.code}",
        *(["--- stdout", result.stdout] if result.stdout else []),
        *(["--- stderr", result.stderr] if result.stderr else []),
    ]
    assert "\n".join(lines) == snapshot


def without_colour(text):
    """Also without the spaces that end a line on a terminal."""
    return re.sub(r" +$", "", re.sub(r"\x1b\[[0-9;]*m", "", text), flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "fits_in"),
    [
        (LAYER, 40),
        (GRID, 40),
        ("32 1 3 56 --bias", 40),
        ("7 64 3 224 --no-verify -b 1000 --bias", 40),
        (f"{10**15} {10**14} 3 {10**9} --no-verify", 90),
    ],
)
def test_at_any_width_no_number_is_broken_and_from_40_columns_on_a_usual_layer_fits(
    args, fits_in, run
):
    def numbers(shown):
        return {word.strip(",;") for word in shown.split() if word[0].isdigit()}

    wide = run(args, columns=1000).stdout
    markdown = run(f"{args} -f markdown").stdout.splitlines()
    columns_of = {
        column[0].strip(): numbers(" ".join(column[2:]).replace("*", ""))
        for column in zip(*(line.split("|") for line in markdown if line[:1] == "|"), strict=True)
    }
    for columns in (20, 33, 40, 47, 60, 72, 80, 96, 130):
        shown = run(args, columns=columns).stdout
        left_out = re.search(r"not shown: columns? ([^;]+)", " ".join(shown.split()))
        names = left_out[1].split(", ") if left_out else []
        hidden = set().union(*(columns_of[name.strip()] for name in names))
        hidden |= {"0", "100%"}  # the scale of bars
        short = {  # with one decimal, where two are too wide
            share: sentences.share(Fraction(share[:-1].replace(",", "")) / 100)
            for head in ("of standard", "ratio")
            for share in columns_of.get(head, ())
        }
        # Nothing but the order and the spaces between words depends on the width.
        assert numbers(shown) <= numbers(wide) | {*short.values()}, columns
        assert {short.get(number, number) for number in numbers(wide) - hidden} <= {
            short.get(number, number) for number in numbers(shown)
        }, columns
        assert columns < fits_in or max(map(len, shown.splitlines())) <= columns


@pytest.mark.parametrize(
    "args",
    [
        LAYER,
        f"{GRID} --verify",
        "blocks 64 128 3 56 --verify",
        "network mobilenet_v1",
        "network mobilenet_v1 vgg16 --verify",
    ],
)
def test_a_mismatch_is_marked_in_the_table_at_any_width(args, run, monkeypatch):
    module = import_module("dscalc.pytorch.crosscheck")
    count = module.conv_flop_count
    monkeypatch.setattr(module, "conv_flop_count", lambda *sizes: count(*sizes) + 1)
    for columns in (36, 40, 60, 80, 120):
        result = run(args, columns=columns)
        assert result.code == 1
        assert re.search(r"[\dKMG] ✗", result.stdout), columns


WAYS = "8 8,16 3 8,16 --as separable,grouped:2"


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ("64 64:512:x2 3,5 112,224 --verify", "64 -> 64, F 3x3, D 112x112"),
        (f"bench {WAYS}", "separable, channels 8 -> 8, D 8x8"),
        (
            "network vgg16 resnet50 --width-multiplier 0.5,1 --as separable",
            "vgg16, width 0.5, input 224x224",
        ),
    ],
)
def test_a_row_laid_out_vertically_has_its_whole_name(args, name, run, timed):
    assert f"\n{name}\n" in run(args, columns=34).stdout.replace(",\n", ", ")


def test_sizes_in_which_no_layer_differs_are_in_the_title(run):
    title, _, header, *_ = run("64 64 3,5,7 14").stdout.splitlines()
    assert title == "3 layers, padding same, channels 64 -> 64, D 14x14"
    assert header.split()[:3] == ["F", "standard", "MACs"]
    for args in ("64 32,64 3 14", "blocks 64 32,64 3 14"):  # the title names not the one left
        assert "64 -> 32  3x3  14x14 " in run(f"{args} --top 1").stdout


POINTS = r"[<+-]?[\d,]+\.\d\d%"


@pytest.mark.parametrize(
    ("args", "column", "form"),
    [
        (LAYER, "of standard", POINTS),
        (GRID, "ratio", POINTS),
        ("blocks 256 256 3 56", "of standard", POINTS),
        ("network mobilenet_v1 --no-verify", "share", r"<?\d+\.\d%|100%"),
        ("network mobilenet_v1 --no-verify --as standard", "ratio", POINTS),
        ("network resnet50 --explain 3.14159G", "off by", POINTS),
    ],
)
def test_percentages_stand_with_their_points_in_line(args, column, form, run):
    lines = run(args, columns=130).stdout.splitlines()
    [header] = [line for line in lines if f"  {column}" in line]
    end = header.index(column) + len(column)
    cells = [line[:end].split()[-1] for line in lines if line[:end].endswith("%")]
    assert len(cells) >= 3
    assert [cell for cell in cells if not re.fullmatch(form, cell)] == []


@pytest.mark.parametrize(
    ("ratio", "signed", "shown"),
    [
        (Fraction(0), False, "0.00%"),
        (Fraction(1, 10**6), False, "<0.01%"),
        (Fraction(1, 10**4), False, "0.01%"),
        (Fraction(12345, 1000), False, "1,234.50%"),
        (Fraction(1, 4), True, "+25.00%"),
        (Fraction(-1, 4), True, "-25.00%"),
        (Fraction(-1, 10**6), True, ">-0.01%"),
        (Fraction(0), True, "0.00%"),
        (None, True, ""),
    ],
)
def test_a_percentage_of_a_column(ratio, signed, shown):
    assert sentences.percent_in_column(ratio, signed=signed) == shown


def test_bars_say_their_scale(run):
    grid = run(GRID, columns=120).stdout
    assert "  ratio  0 to 100%" in grid
    network = run("network mobilenet_v1 --no-verify", columns=120).stdout
    assert "  share  0 to 46.0%\n" in network
    assert [line.split()[0] for line in network.splitlines() if "█" * 10 in line] == ["sep7/1-5"]
    assert " 46.0%  ██████████\n" in network


def test_a_table_that_does_not_fit_is_laid_out_one_number_a_line(run):
    lines = run(LAYER, columns=30).stdout.splitlines()
    assert "  MACs           86,704,128" in lines
    assert all(len(line.split()) <= 4 for line in lines[4:30])


def test_the_format_does_not_depend_on_being_in_a_pipe(spawn, run):
    assert spawn(f"{LAYER} --no-verify", {"COLUMNS": "80"}) == run(f"{LAYER} --no-verify")


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (LAYER, "\nok fvcore and torch count exactly this on the real modules\n"),
        (f"{LAYER} -f markdown", "86,704,128 ok"),
    ],
)
def test_ascii_streams_get_plain_characters(args, shown, spawn):
    result = spawn(args, {"PYTHONIOENCODING": "ascii"})
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.isascii()
    assert "\\u" not in result.stdout
    assert shown in result.stdout
    assert "86,704,128" in result.stdout


@pytest.mark.parametrize(
    "args",
    [
        f"{GRID} --no-verify",
        "blocks 64 64 3 14 --no-verify",
        "network vgg16 --no-verify",
        "network resnet50 --explain 4.1G --no-verify",
        "check budgets.toml",
    ],
)
def test_every_command_has_plain_characters_for_ascii_streams(args, spawn, tmp_path):
    budget = f'[[check]]\nrun = "{LAYER} --no-verify"\nassert = "mac_ratio <= 1/4"\n'
    (tmp_path / "budgets.toml").write_text(budget, "utf-8")
    result = spawn(args, {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"})
    assert (result.code, result.stderr) == (0, "")
    assert "\\u" not in result.stdout


def test_ascii_streams_get_bars_of_plain_characters(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    shown = table.render(compare(4, 16, [3, 5], 14).sheet(), stream)
    assert shown.isascii()
    assert re.findall(r"([0-9.]+%)  ([#=]+) ", shown) == [("17.36%", "#="), ("10.25%", "#")]


def test_an_error_on_an_ascii_stream_is_one_line(spawn):
    result = spawn("3 64 3 224 --get größe", {"PYTHONIOENCODING": "ascii"})
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(r"unknown field 'gr\xf6\xdfe'")


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),
        ({"NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_in_a_pipe_is_as_the_environment_says(variables, coloured, run, monkeypatch):
    plain = run(LAYER).stdout
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stdout = run(LAYER).stdout
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9][;m]", stdout)) is coloured
    assert without_colour(stdout) == plain


class Terminal:
    """A process on a terminal of its own, and the screen that it leaves."""

    def __init__(self, start, args, columns=80, lines=40):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {"COLUMNS": "", "LINES": "", "TERM": "xterm-256color"}
        self.process = start(args, env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.output = ""

    def finish(self):
        received = b""
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux says so once the other end is closed
                break
            if not data:
                break
            received += data
        os.close(self._ours)
        self.output = received.decode()
        return self.process.wait(timeout=60)

    def screen(self):
        """The lines at the end, as the few control sequences in use leave them."""
        lines, row, column = [""], 0, 0
        for control, text in re.findall(
            r"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", self.output
        ):
            if text:
                line = lines[row].ljust(column)
                lines[row] = line[:column] + text + line[column + len(text) :]
                column += len(text)
            elif control == "\r":
                column = 0
            elif control == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif control == "\x1b[1A":
                row -= 1
            elif control == "\x1b[2K":
                lines[row] = ""
            else:
                assert control[-1] == "m" or control in ("\x1b[?25l", "\x1b[?25h"), control
        return [line.rstrip() for line in lines]


def test_on_a_terminal_the_table_appears_at_once_and_the_check_fills_in(start, run):
    terminal = Terminal(start, LAYER)
    assert terminal.finish() == 0
    first, *_, last = terminal.output.split("\x1b[2K")
    assert sentences.PENDING in first
    assert "86,704,128" in first
    assert sentences.SAME not in first
    assert sentences.PENDING not in last
    assert terminal.screen() == [line.rstrip() for line in run(LAYER).stdout.split("\n")]


@pytest.mark.parametrize("columns", [80, 60, 50, 44, 40])
def test_the_columns_stay_when_the_check_fills_in(columns, start):
    terminal = Terminal(start, "512 512 3 14", columns)
    assert terminal.finish() == 0
    without, *_, last = terminal.output.split("\x1b[2K")
    heads = next(line for line in without_colour(last).splitlines() if " params" in line)
    assert heads.split() in [line.split() for line in without_colour(without).splitlines()]


@pytest.fixture
def run_on_terminal(run, monkeypatch):
    """Run dscalc in this process, with a stdout that says that it is a terminal."""

    def run_on_terminal(args, lines=25, term="xterm-256color"):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setenv("TERM", term)
        return run(args)

    return run_on_terminal


@pytest.mark.parametrize("options", [{"lines": 8}, {"term": "dumb"}], ids=["low", "dumb"])
def test_a_terminal_that_cannot_be_redrawn_gets_the_complete_table_once(
    options, run, run_on_terminal
):
    complete = run(LAYER).stdout
    result = run_on_terminal(LAYER, **options)
    assert result.code == 0
    assert without_colour(result.stdout) == complete


@pytest.mark.parametrize(
    "args", [f"{LAYER} --no-verify", f"{LAYER} -f json", f"{LAYER} --get kind"]
)
def test_nothing_is_redrawn_where_nothing_is_pending(args, run_on_terminal):
    assert "\x1b[2K" not in run_on_terminal(args).stdout


def test_a_verdict_follows_the_table_on_a_terminal(start):
    terminal = Terminal(start, f"{LAYER} --assert mac_ratio<=1/8")
    assert terminal.finish() == 1
    assert terminal.screen()[-3:] == [
        "1 MAC = 1 multiply-accumulate = 2 FLOPs; other or more layers: dscalc network",
        "failed: mac_ratio <= 1/8: mac_ratio is 0.126736 (73/576)",
        "",
    ]


def test_an_error_of_the_cross_check_follows_the_table_on_a_terminal(start):
    terminal = Terminal(start, f"{10**10} {10**10} 3 224")
    assert terminal.finish() == 2
    assert f"{9 * 10**20 * 224**2:,}" in "\n".join(terminal.screen())
    assert any(line.startswith("error: torch refuses") for line in terminal.screen())


def test_a_terminal_of_no_width_is_taken_as_80_columns(run):
    assert run(LAYER, columns=0) == run(LAYER, columns=80)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
@pytest.mark.parametrize("args", [f"{LAYER} --no-verify", "3 64 3x 224"])
def test_a_closed_stream_is_no_fault(args, closed, tmp_path):
    number = {"stdout": 1, "stderr": 2}[closed]
    command = f"{sys.executable} -m dscalc {args} {number}>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == (2 if "3x" in args else 0)
    assert b"Traceback" not in done.stdout + done.stderr


def test_progress_on_a_terminal_leaves_no_trace(start, run):
    grid = "3,64 32,64 3 14:20 --verify"
    terminal = Terminal(start, grid)
    assert terminal.finish() == 0
    assert "counting" in terminal.output
    assert terminal.screen() == [line.rstrip() for line in run(grid).stdout.split("\n")]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "markdown"])
def test_machine_formats_are_the_same_on_a_terminal(form, start, run):
    terminal = Terminal(start, f"{LAYER} --no-verify -f {form}")
    assert terminal.finish() == 0
    assert terminal.output.replace("\r\n", "\n") == run(f"{LAYER} --no-verify -f {form}").stdout


BIG = "1:1000 1:1000 3 14 -f csv"


def test_a_closed_pipe_ends_it_in_silence_as_it_does_any_filter(start):
    process = start(BIG)
    assert process.stdout.readline().startswith(b"name,kind,")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == -signal.SIGPIPE


def test_ctrl_c_ends_a_long_grid_with_130(start):
    process = start(BIG)
    assert process.stdout.readline().startswith(b"name,kind,")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    assert b"error" not in stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_file_as_before(number, code, start, tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("old")
    process = start(f"{BIG} -o {path}")
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:  # until it has begun to write
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "source",
    [
        "try:\n signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n pass",
        "try:\n signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n raise ImportError",
        "exec('raise KeyboardInterrupt')",  # after which Python would end by the signal
    ],
    ids=["swallowed", "broken", "in exec"],
)
def test_ctrl_c_while_torch_is_imported_exits_with_130(source, spawn, tmp_path):
    (tmp_path / "torch.py").write_text(f"import signal\n{source}\n", "utf-8")
    assert spawn("bench 3 8 3 8") == (130, "", "interrupted\n")


# Narrow terminals: what repeats gives way, and never params, the ratio or a digit of one layer.


@pytest.mark.parametrize(
    ("columns", "heads", "last"),
    [
        (80, "output MACs params of standard fvcore MACs", "266,752 ✓       11.31%   52,283,392 ✓"),
        (60, "output MACs params of standard", "14x14   52,283,392    266,752 ✓       11.31%"),
        (50, "MACs params of standard", "separable   52,283,392    266,752 ✓       11.31%"),
        (44, "MACs params ratio", "separable   52,283,392    266,752 ✓  11.3%"),
        (40, "MACs params ratio", "separable   52,283,392    266,752  11.3%"),
    ],
)
def test_one_layer_keeps_its_numbers_at_any_width(columns, heads, last, run):
    shown = run("512 512 3 14", columns=columns).stdout
    table = shown.partition("\n\n")[2].partition("\n\n")[0].split("\n")
    assert table[0].split() == heads.split()
    assert table[-1].endswith(last)
    assert max(map(len, shown.splitlines())) <= columns


def test_a_tick_that_gives_way_leaves_what_differs(run, monkeypatch):
    one_mac_more(monkeypatch)
    shown = run("8 8 3 4", columns=46).stdout
    assert "standard   9,216 ✗ (9,217)" in shown
    assert "fvcore MACs" in shown.partition("not shown:")[2].replace("\n", " ")


def test_a_grid_keeps_sizes_block_params_and_ratio(run):
    heads = [
        run("64 32:128:x2 3,5 14 --verify", columns=columns).stdout.split("\n")[2].split()
        for columns in (80, 70, 60, 45, 40)
    ]
    kept = ["channels", "F", "separable", "params", "ratio"]
    assert heads[0] == [*kept[:2], "standard", "MACs", *kept[2:], "0", "to", "100%", "fewer"]
    assert heads[1:] == [
        [*kept[:2], "standard", "MACs", *kept[2:], "fewer"],
        [*kept[:2], "standard", "MACs", *kept[2:]],
        kept,
        kept,
    ]
    narrow = run("64 32:128:x2 3,5 14 --verify", columns=40).stdout
    assert "64 -> 128  5x5  1,919,232   9,792   4.8%\n" in narrow
