"""Start-up and the cross-check of one layer, as ratios of whole processes that take turns.

Not part of the default run: ``pytest tests/benchmarks -s`` prints each ratio and holds its bound.
"""

import os
import subprocess
import sys
import time
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


def dscalc(args):
    return [str(Path(sys.executable).with_name("dscalc")), *args.split()]


def run(command):
    """(seconds, peak kilobytes) of a process whose output goes nowhere."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return seconds, usage.ru_maxrss


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
