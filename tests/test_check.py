"""``dscalc check``: every budget of a project, in one run."""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from faults import one_mac_more

BUDGETS = """
[[check]]
name = "half"
run = "network mobilenet_v1 --width-multiplier 0.5 --as standard"
assert = ["macs <= 150M", "params <= 1.3M", "mac_reduction >= 0"]

[[check]]
run = "dscalc 64 8:64:8 3 56"
assert-each = "separable_macs <= 20M"

[[check]]
name = "gone"
run = "network nothere"
assert = "macs <= 3"
"""
GONE = "[[check]]" + BUDGETS.rpartition("[[check]]")[2]
# By hand: mobilenet_v1 at half its width has 149,497,088 MACs and 1,319,648 params.
HALF = [
    {"assertion": "macs <= 150M", "holds": True, "value": 149497088, "left": 502912},
    {"assertion": "params <= 1.3M", "holds": False, "value": 1319648, "left": -19648},
]


@pytest.fixture
def check(run, here):
    """Run dscalc check on a text, from another folder than its own."""
    (here / "project").mkdir()

    def check(text, *args, name="project/budgets.toml", columns=80):
        Path(name).write_text(text, "utf-8")
        return run("check", name, *args, columns=columns)

    return check


def test_each_assertion_is_a_row_and_the_worst_code_is_the_answer(check):
    result = check(BUDGETS, "-f", "json")
    assert result.code == 2
    report = json.loads(result.stdout)
    assert (report["command"], "as" in report) == ("check", False)
    *rows, last = report["rows"]
    assert [row["budget"] for row in rows] == ["half"] * 3 + ["dscalc 64 8:64:8 3 56"]
    for row, expected in zip(rows, HALF, strict=False):
        assert {key: row[key] for key in expected} == expected
    assert rows[3]["value"] == 64 * 56 * 56 * (9 + 64)
    assert (last["budget"], last["holds"]) == ("gone", None)
    assert last["error"].startswith("no network or file named 'nothere'")
    assert result.stderr == (
        "failed: half: params <= 1.3M: 1,319,648\n"
        "error: gone: no network or file named 'nothere'; choose from alexnet, "
        "convnext_tiny, mobilenet_v1, mobilenet_v2, resnet50, unet, vgg16, xception\n"
    )


def test_the_verdicts_are_those_of_one_command_each(check, run):
    lines = [
        ("3 64 3 224", "mac_ratio <= 1/8", 1),
        ("3 64 3 224", "mac_ratio == 73/576", 0),
        ("blocks 64 64 3 28 --only separable", "macs <= 200M", 0),
        ("network resnet50 --as separable", "mac_ratio <= 0.4", 1),
        ("network resnet50", "nothing <= 0.4", 2),
        ("network resnet50", "mac_ratio <= 0.4", 2),
        ("3 64 3 0", "mac_ratio <= 1", 2),
    ]
    for command, assertion, code in lines:
        assert run(*command.split(), "--assert", assertion).code == code
        budget = f"[[check]]\nrun = '{command}'\nassert = '{assertion}'\n"
        result = check(budget, "-f", "json")
        assert result.code == code
        [row] = json.loads(result.stdout)["rows"]
        assert row["holds"] == {0: True, 1: False, 2: None}[code]


def test_the_value_of_many_rows_is_the_one_nearest_to_the_limit(check):
    budget = "[[check]]\nrun = '64 {} 3 56'\nassert = 'out_channels <= {}'\n"
    for values, limit, nearest in [("8,64,16", 100, 64), ("64,8,16", 100, 64), ("8,64,16", 10, 64)]:
        result = check(budget.format(values, limit), "-f", "json")
        [row] = json.loads(result.stdout)["rows"]
        assert (row["value"], row["left"]) == (nearest, limit - nearest)


def test_tables_name_what_is_left_and_what_has_no_answer(check):
    shown = check(BUDGETS).stdout
    assert shown.startswith("5 assertions: 3 hold, 1 fails, 1 not answered\n")
    [line] = [line for line in shown.splitlines() if "params" in line]
    assert line.split() == ["half", "params", "<=", "1.3M", "✗", "1,319,648", "-19,648"]
    assert "gone: no network or file named 'nothere'" in shown
    assert "| half | params \\<= 1.3M ✗ | 1,319,648 | 1,300,000 | -19,648 |  |" in (
        check(BUDGETS, "-f", "markdown").stdout
    )
    lines = check(BUDGETS, "-f", "csv", "-q").stdout.splitlines()
    assert lines[0] == "budget,assertion,each,holds,value,limit,left,row,error,line"
    assert lines[2] == "half,params <= 1.3M,false,false,1319648,1300000,-19648,,,5"
    assert json.loads(check(BUDGETS, "-f", "jsonl").stdout.splitlines()[0])["limit"] == 150000000


def test_the_nearest_pyproject_with_budgets_is_read(run, tmp_path, monkeypatch):
    inner = tmp_path / "package" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "package" / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    text = BUDGETS.replace("[[check]]", "[[tool.dscalc.check]]")
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = 'x'\n{text}")
    monkeypatch.chdir(inner)
    assert run("check -f json").code == 2
    assert len(json.loads(run("check -f json").stdout)["rows"]) == 5


def test_paths_are_relative_to_the_file(check, tmp_path, run):
    project = tmp_path / "project"
    (project / "net.csv").write_text(
        "kind,in_channels,out_channels,kernel_size,input_size\nconv,1,1,3,8\n"
    )
    budget = (
        "[[check]]\nrun = 'network net.csv'\nassert = 'macs <= baseline'\nbaseline = 'a.json'\n"
    )
    missing = check(budget)
    assert missing.code == 2
    assert missing.stderr.startswith("error: network net.csv: there is no baseline a.json; write ")
    run("network", str(project / "net.csv"), "-f", "json", "-o", str(project / "a.json"))
    result = check(budget, "-f", "json", "-o", "out.json")
    assert result.code == 0
    [row] = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["value"], row["limit"], row["left"]) == (576, 576, 0)


def test_a_count_that_differs_fails_its_budget(check, monkeypatch):
    one_mac_more(monkeypatch)
    result = check(
        "[[check]]\nname = 'b'\nrun = '8 8 3 4'\nassert = 'mac_ratio <= 1'\n", "-f", "json"
    )
    holds, differs = json.loads(result.stdout)["rows"]
    assert (result.code, holds["holds"], differs["holds"]) == (1, True, False)
    assert differs["error"].startswith("mismatch: fvcore_standard_macs is 9,217, but the formula ")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("mac <= 3", "unknown field 'mac'; did you mean macs or fvcore_macs?"),
        ("mac_ratio <= 3", "mac_ratio needs --as BLOCK, such as --as separable"),
    ],
)
def test_each_assertion_of_a_run_without_an_answer_is_a_row(wrong, reason, check):
    budget = (
        f"[[check]]\nname = 'a'\nrun = 'network resnet50'\nassert = ['macs <= 9G', '{wrong}']\n"
    )
    result = check(budget, "-f", "json")
    assert (result.code, result.stderr) == (2, f"error: a: {reason}\n")
    rows = json.loads(result.stdout)["rows"]
    assert [(row["assertion"], row["holds"], row["error"]) for row in rows] == [
        ("macs <= 9G", None, reason),
        (wrong, None, reason),
    ]


def test_where_no_row_is_left_the_answer_is_no(check):
    budget = """
[[check]]
name = "layer"
run = "3 8:64:x2 3 224 --where 'standard_macs > 1T'"
assert = "mac_ratio < 1/4"

[[check]]
name = "net"
run = "network mobilenet_v1 --where 'macs > 1T'"
assert = "macs < 1G"
"""
    result = check(budget, "-f", "json")
    layer, net, none = json.loads(result.stdout)["rows"]
    assert result.code == 1
    assert (layer["assertion"], layer["holds"], layer["value"]) == ("mac_ratio < 1/4", False, None)
    assert layer["error"].startswith("no row has standard_macs > 1T; nearest: ")
    assert (net["holds"], none["holds"]) == (True, False)
    assert none["error"] == "no row has macs > 1T; nearest: sep3: macs is 54,992,896"
    assert result.stderr.startswith("failed: layer: no row has standard_macs > 1T; nearest: ")


def test_a_value_names_its_row_and_that_of_the_total_names_none(check):
    budget = """
[[check]]
run = "network mobilenet_v1"
assert = "macs <= 30M"
assert-each = "macs <= 30M"
"""
    result = check(budget, "-f", "json")
    rows = json.loads(result.stdout)["rows"]
    assert [(row["value"], row["row"]) for row in rows] == [(568740352, ""), (54992896, "sep3")]
    assert result.stderr.splitlines() == [
        "failed: network mobilenet_v1: macs <= 30M: 568,740,352",
        "failed: network mobilenet_v1: each macs <= 30M: sep3: 54,992,896",
    ]
    total, each = check(budget, columns=120).stdout.splitlines()[4:6]
    assert total.endswith("macs <= 30M ✗  568,740,352  30,000,000  -538,740,352")
    assert each.endswith("each macs <= 30M ✗   54,992,896  30,000,000   -24,992,896  sep3")
    for columns in (80, 70):  # before it does, limit and left give way
        assert check(budget, columns=columns).stdout.splitlines()[5].endswith("  sep3")
    assert "\nnetwork mobilenet_v1: sep3\n" in check(budget, columns=50).stdout


ANNOTATED = """
# [[check]]
[[check]]
name = "half: a, 50%2C"
run = "network mobilenet_v1 --width-multiplier 0.5"
assert = ["macs <= 150M",
  "params <= 1.3M"]
[[ tool.dscalc.check ]]
run = "network mobilenet_v1"
name = "each"
assert = "macs <= 50M"
assert-each = [
  'macs <= 50M'  # not the one above
]
"""


def annotations(text):
    """Workflow commands as the runner of GitHub Actions reads them: kind, properties, message."""
    found = []
    for line in text.splitlines():
        if command := re.fullmatch(r"::(\w+) (.*?)::(.*)", line):
            named = [one.partition("=")[::2] for one in command[2].split(",")]
            found.append((command[1], {k: unquote(v) for k, v in named}, unquote(command[3])))
    return found


def test_github_shows_each_assertion_at_its_line(check, monkeypatch, tmp_path):
    text = ANNOTATED.replace("tool.dscalc.", "")
    result = check(text, "-f", "github", name="project/a,b.toml")
    assert (result.code, result.stderr) == (1, "")
    *lines, last = result.stdout.splitlines()
    assert (len(lines), last) == (4, "2 of 2 budgets fail")
    half, each = "half: a, 50%2C", "each"
    expected = [
        ("notice", "6", half, "macs <= 150M: 149,497,088; 502,912 left"),
        ("error", "7", half, "params <= 1.3M: 1,319,648; off by 19,648"),
        ("error", "11", each, "macs <= 50M: 568,740,352; off by 518,740,352"),
        ("error", "13", each, "each macs <= 50M: sep3: 54,992,896; off by 4,992,896"),
    ]
    assert annotations(result.stdout) == [
        (kind, {"file": "project/a,b.toml", "line": line, "title": title}, said)
        for kind, line, title, said in expected
    ]
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "project"))  # a path is below it
    [[_, place, said]] = annotations(check(GONE, "-f", "github").stdout)
    assert place == {"file": "budgets.toml", "line": "4", "title": "gone"}
    assert said.startswith("no network or file named 'nothere'; choose from")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no file stands for a pipe here")
def test_lines_are_those_of_a_pipe_too(run):
    end, written = os.pipe()
    os.write(written, GONE.encode())
    os.close(written)
    result = run("check", f"/dev/fd/{end}", "-f", "json")
    os.close(end)
    [one] = json.loads(result.stdout)["rows"]
    assert (one["budget"], one["line"]) == ("gone", 4)


def test_budgets_that_are_no_tables_of_their_own_have_no_line(check):
    inline = "check = [{run = '3 64 3 224', assert = 'mac_ratio < 1'}]"
    assert check(inline, "-f", "github").stdout == (
        "::notice file=project/budgets.toml,title=3 64 3 224::"
        "mac_ratio < 1: 0.126736; 0.873264 left\nthe budget holds\n"
    )


@pytest.mark.parametrize("columns", [120, 80, 60, 42])
def test_how_many_budgets_fail_comes_last(columns, check):
    said = "1 of 3 budgets fails, 1 without an answer"
    assert check(BUDGETS, columns=columns).stdout.splitlines()[-1] == said
    assert check(BUDGETS, "-f", "markdown").stdout.splitlines()[-1] == said


MODELS = """
import os, torch
def net():
    return torch.nn.Conv2d(3, 8, 3)
def moves():
    os.chdir("/")
    return net()
def doubles():
    torch.set_default_dtype(torch.float64)
    return net()
def elsewhere():
    torch.set_default_device("meta")
    return net()
class Unknown(torch.nn.Conv2d):
    def forward(self, x):
        return torch.fft.fft(super().forward(x))
def unknown():
    return Unknown(3, 8, 3)
"""


def test_what_a_model_changes_reaches_no_other_budget(check, tmp_path):
    (tmp_path / "project" / "nets.py").write_text(MODELS, "utf-8")
    budget = "[[check]]\nrun = 'model nets.py:{} --input 3x8x8'\nassert = 'macs <= 8k'\n"
    models = "moves", "doubles", "unknown", "elsewhere", "net"
    result = check("".join(map(budget.format, models)), "-f", "json")
    moved, doubled, unknown, *others = json.loads(result.stdout)["rows"]
    assert [row["value"] for row in (moved, *others)] == [8 * 27 * 6 * 6] * 3
    assert "should be the same" in doubled["error"]  # its weights and the input
    reason = "macs is not known: no formula for aten::_fft_r2c"
    assert (unknown["assertion"], unknown["error"]) == ("macs <= 8k", f"macs <= 8k: {reason}")


ODD = """
import sys, torch
class Net(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 3)
class Closing(Net):
    def forward(self, x):
        sys.stdout.close()
        sys.stderr.close()
        return super().forward(x)
class Other(BaseException):
    pass
class Raising(Net):
    def forward(self, x):
        raise Other("stop")
class Unknown(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.product = torch.nn.Bilinear(8, 8, 4)
    def forward(self, x):
        return self.product(x[..., 0], x[..., 0])
class Drawn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    def forward(self, x):
        x = self.first(x)
        return self.second(x[x > 0.1].reshape(-1, 1).expand(-1, 8))
"""


def test_what_a_model_does_hides_no_other_budget(check, tmp_path):
    (tmp_path / "project" / "odd.py").write_text(ODD, "utf-8")
    budget = "[[check]]\nrun = 'model odd.py:{} --input {}'\nassert-each = 'macs <= 1M'\n"
    models = "Closing 3x8x8", "Raising 3x8x8", "Unknown 3x8x8", "Net 3x8x8"
    result = check("".join(budget.format(*model.split()) for model in models), "-f", "json")
    assert result.code == 2
    closing, raising, unknown, net = json.loads(result.stdout)["rows"]
    assert closing["value"] == net["value"] == 8 * 27 * 6 * 6
    assert raising["error"] == "odd.py:Raising raised Other: stop"
    assert unknown["error"].endswith("macs is not known: no formula for aten::_trilinear")


def test_what_a_model_draws_is_the_same_each_time(run, here):
    (here / "drawn.py").write_text(ODD, "utf-8")
    counts = {run("model drawn.py:Drawn --input 64x8 --get macs").stdout for _ in range(3)}
    assert len(counts) == 1


def test_the_row_that_exceeds_a_limit_most_decides(check):
    budget = """
[[check]]
run = "network mobilenet_v1"
assert-each = ["macs <= 1", "macs >= 1M", "macs <= 60M"]
"""
    one, some, all_ = json.loads(check(budget, "-f", "json").stdout)["rows"]
    assert (one["value"], one["left"]) == (54_992_896, -54_992_895)  # sep3, not conv0
    assert (some["holds"], some["value"]) == (False, 0)  # the pool
    assert (all_["holds"], all_["value"]) == (True, 54_992_896)


def test_a_limit_of_a_baseline_is_exact(check, run, tmp_path):
    run("network", "mobilenet_v1", "--no-verify", "-o", str(tmp_path / "project" / "a.json"))
    budget = """
[[check]]
run = "network mobilenet_v1"
baseline = "a.json"
assert = ["macs <= 1.05 * baseline", "params <= 1.01 * baseline"]
"""
    row, _ = json.loads(check(budget, "-f", "json").stdout)["rows"]
    assert (row["limit"], row["left"]) == (597_177_369.6, 28_437_017.6)
    shown = check(f"\ufeff{budget}", "-f", "markdown").stdout  # which some editors put first
    assert "28,437,017.6" in shown
    assert "| 4,209,088 | 4,251,178.88 | 42,090.88 |" in shown


def test_names_are_printed_literally(check):
    budget = '[[check]]\nname = "\\u001b[31m\\n|"\nrun = "3 8 3 5"\nassert = "mac_ratio < 1"\n'
    [row] = json.loads(check(budget, "-f", "json").stdout)["rows"]
    assert row["budget"] == r"\x1b[31m\n|"
    [row] = json.loads(check(GONE.replace('"gone"', '""'), "-f", "json").stdout)["rows"]
    assert row["budget"] == "network nothere"


def test_an_interrupt_ends_the_run(check, monkeypatch):
    ran = []
    monkeypatch.setattr(
        "dscalc.commands.check._check_budget", lambda *_, **__: ran.append(1) or (130, [], [])
    )
    result = check(BUDGETS)
    assert (result.code, result.stdout, len(ran)) == (130, "", 1)


def test_a_run_that_prints_no_report_is_said(check):
    result = check("[[check]]\nrun = '-V network vgg16'\nassert = 'macs <= 3'\n", "-q")
    assert result.code == 2
    assert result.stderr == "error: -V network vgg16: run printed no report\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["error: project/budgets.toml has no [[check]] or [[tool.dscalc.check]]; add one"]),
        ("[[check\n", ["project/budgets.toml:1: Expected ']]' at the end of an array"]),
        ("a = 1\nb = \n", ["project/budgets.toml:2: Invalid value"]),
        ("check = 3", ["project/budgets.toml: check 1: it must be a table"]),
        ("[[chek]]\nrun = '3 4 5 6'", ["project/budgets.toml: unknown key 'chek'; did you mean"]),
        (f"a = {'[' * 5000}", ["project/budgets.toml: it is nested too deeply"]),
        (f"a = 1{'0' * 5000}", ["project/budgets.toml: a number has too many digits"]),
        ("[tool.dscalc]\nchecks = 3", ["project/budgets.toml: unknown key 'checks'; did you mean"]),
        (
            "[[check]]\nrun = '3 4 5 6'\nasert = 'macs <= 3'\n",
            [
                "project/budgets.toml: check 1: unknown key 'asert'; did you mean assert?",
                "project/budgets.toml: check 1: assert is missing; add an assertion such as",
            ],
        ),
        (
            "[[check]]\nassert = 3\n[[check]]\nrun = 3\nassert = 'x'\n",
            [
                "project/budgets.toml: check 1: assert must be a string or a list of strings, ",
                "project/budgets.toml: check 1: run is missing; add a command line such as",
                "project/budgets.toml: check 2: run must be a string, got 3",
            ],
        ),
        (
            "[[check]]\nrun = 'check'\nassert = 'x'\n[[check]]\nrun = \"3 '4\"\nassert = 'x'\n",
            [
                "project/budgets.toml: check 1: run cannot be another check",
                'project/budgets.toml: check 2: run "3 \'4" is not a command line: no closing quot',
            ],
        ),
        ("[[check]]\nrun = ''\nassert = 'x'\n", ["project/budgets.toml: check 1: run is empty; "]),
        *(
            (
                f"[[check]]\nrun = '3 64 3 8 {option}'\nassert = 'mac_ratio < 1'\n",
                [f"project/budgets.toml: check 1: run only checks assertions; drop {shown}"],
            )
            for option, shown in [
                ("-f csv", "-f"),
                ("-fcsv", "-f"),
                ("--format=csv", "--format"),
                ("-o x", "-o"),
                ("--plot x.png", "--plot"),
                ("--get macs", "--get"),
                ("--explain 4G", "--explain"),
                ("--cite", "--cite"),
                ("-q", "-q"),
            ]
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_at_once(text, problems, check):
    result = check(text)
    assert (result.code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(problem)


def test_files_that_are_none(run, here):
    assert run("check no.toml").error == "cannot read no.toml: No such file or directory"
    assert run("check").error.startswith(
        "no pyproject.toml here or above has [[tool.dscalc.check]]"
    )
    Path("latin.toml").write_bytes(b"a = '\xff'")
    assert run("check latin.toml").error == "cannot read latin.toml: it is not UTF-8 text"


def test_the_example_of_the_help_works_as_it_stands(run, here):
    shown = run("check --help").stdout
    example = shown.partition("[[tool.dscalc.check]]:\n")[2].partition("\n\n")[0]
    Path("budgets.toml").write_text(example)
    assert run("check budgets.toml -f markdown").code == 0


def test_what_is_left_counts_toward_the_limit_from_either_side(check):
    budget = (
        "[[check]]\nname = 'a'\nrun = '8 8 3 4 --no-verify'\n"
        "assert = ['standard_macs >= 9K', 'standard_macs > 10K', 'standard_macs == 9216']\n"
    )
    rows = json.loads(check(budget, "-f", "json").stdout)["rows"]
    assert [(row["holds"], row["left"]) for row in rows] == [
        (True, 216),
        (False, -784),
        (True, None),
    ]
