"""Start-up, the cross-check of one layer and models, as ratios of processes that take turns.

Not part of the default run: ``pytest tests/benchmarks -s`` prints each ratio and holds its bound.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

SMALLEST_APP = """
import typer
app = typer.Typer()
@app.command()
def main(number: int) -> None:
    print(number)
app()
"""
SMALLEST_TABLE = """
import typer
from rich.console import Console
from rich.table import Table
app = typer.Typer()
@app.command()
def main(number: int) -> None:
    table = Table("number")
    table.add_row(str(number))
    Console().print(table)
app()
"""
IMPORTS = "import torch, fvcore.nn, typer, rich.table"
# What one would write instead of `dscalc model`: FILE NAME C H W.
FLOP_COUNTER = """
import runpy, sys
import torch
from torch.utils.flop_counter import FlopCounterMode
file, name, *shape = sys.argv[1:]
with torch.device("meta"):
    model = runpy.run_path(file)[name]().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        model(torch.empty(1, *map(int, shape)))
print(mode.get_total_flops() // 2)
"""
THREE_LAYERS = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )
"""
AUDIT = """
import sys, time
import torch
import architectures
from dscalc.pytorch.audit import audit
model = architectures.resnet50()
audit(model, (1, 3, 32, 32))  # imports what torch imports when a model first runs
spent = []
for _ in range(3):
    start = time.process_time()
    audit(model, (1, 3, int(sys.argv[1]), int(sys.argv[1])))
    spent.append(time.process_time() - start)
print(min(spent))
"""
TESTS = Path(__file__).parents[1]


def dscalc(args):
    return [str(Path(sys.executable).with_name("dscalc")), *args.split()]


def run(command):
    """(processor seconds, peak kilobytes) of a process whose output goes nowhere."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def compared(ours, others, rounds):
    """(time, peak memory) of one command over another, medians of runs in turns."""
    for command in (ours, others):
        run(command)  # compiles what Python caches
    runs = [(run(ours), run(others)) for _ in range(rounds)]
    return tuple(median(a[i] for a, _ in runs) / median(b[i] for _, b in runs) for i in (0, 1))


@pytest.fixture
def app(tmp_path):
    def app(source):
        path = tmp_path / "app.py"
        path.write_text(source, "utf-8")
        return [sys.executable, str(path), "3"]

    return app


def hold(what, ratio, bound):
    sys.stdout.write(f"\n{what}: {ratio:.2f} (at most {bound})\n")
    assert ratio <= bound


@pytest.mark.parametrize(
    ("options", "smallest", "bound"),
    [("-f json", SMALLEST_APP, 1.2), ("", SMALLEST_TABLE, 1.15)],
    ids=["json", "table"],
)
def test_an_answer_by_formula_against_the_smallest_app_that_prints_one(
    options, smallest, bound, app
):
    time_ratio, _ = compared(dscalc(f"512 512 3 14 --no-verify {options}"), app(smallest), 25)
    hold(f"unverified {options} / smallest typer app", time_ratio, bound)


def test_a_verified_answer_against_its_imports():
    time_ratio, _ = compared(dscalc("512 512 3 14"), [sys.executable, "-c", IMPORTS], 9)
    hold("verified / importing torch, fvcore.nn, typer, rich.table", time_ratio, 1.05)


def test_a_verified_answer_costs_the_same_at_any_size():
    time_ratio, memory_ratio = compared(dscalc("4096 8192 7 4096"), dscalc("3 64 3 224"), 9)
    hold("verified 4096 8192 7 4096 / 3 64 3 224, time", time_ratio, 1.15)
    hold("verified 4096 8192 7 4096 / 3 64 3 224, peak memory", memory_ratio, 1.05)


def test_a_model_against_a_script_that_runs_flop_counter_mode(tmp_path):
    small, counter = tmp_path / "small.py", tmp_path / "counter.py"
    small.write_text(THREE_LAYERS, "utf-8")
    counter.write_text(FLOP_COUNTER, "utf-8")
    for file, name, size in (
        (TESTS / "architectures.py", "resnet50", "224"),
        (small, "net", "32"),
    ):
        ours = dscalc(f"model {file}:{name} --input 3x{size}x{size}")
        theirs = [sys.executable, str(counter), str(file), name, "3", size, size]
        time_ratio, memory_ratio = compared(ours, theirs, 5)
        hold(f"dscalc model {name} / FlopCounterMode on meta, time", time_ratio, 1.2)
        hold(f"dscalc model {name} / FlopCounterMode on meta, peak memory", memory_ratio, 1.2)


def test_a_model_costs_the_same_at_any_size():
    target = f"model {TESTS / 'architectures.py'}:resnet50"
    large, small = (dscalc(f"{target} --input 3x{size}x{size}") for size in (1024, 224))
    time_ratio, memory_ratio = compared(large, small, 3)
    hold("dscalc model resnet50 at 1024 / at 224, time", time_ratio, 1.1)
    hold("dscalc model resnet50 at 1024 / at 224, peak memory", memory_ratio, 1.1)

    def seconds(size):
        """Of the audit alone, without the imports."""
        paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        env = {**os.environ, "PYTHONPATH": paths}
        return float(subprocess.check_output([sys.executable, "-c", AUDIT, size], env=env))

    ratios = [seconds("1024") / seconds("224") for _ in range(3)]
    hold("audit of resnet50 at 1024 / at 224, time", median(ratios), 1.1)


def test_a_check_of_ten_models_against_an_audit_of_one_of_them(tmp_path):
    file = TESTS / "architectures.py"
    budget = f"run = 'model {file}:resnet50 --input 3x224x224'\nassert = 'macs <= 5G'\n"
    (tmp_path / "budgets.toml").write_text(f"[[check]]\n{budget}" * 10, "utf-8")
    one = dscalc(f"model {file}:resnet50 --input 3x224x224")
    time_ratio, _ = compared(dscalc(f"check {tmp_path / 'budgets.toml'}"), one, 5)
    hold("dscalc check of ten times resnet50 / dscalc model of one, time", time_ratio, 2)
