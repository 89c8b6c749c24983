"""Grids: verified against fvcore on real tensors, and unverified against csv.writer alone.

Not part of the default run: ``pytest tests/benchmarks -s`` prints each ratio and holds its bound.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import time
from fractions import Fraction
from itertools import islice, product
from pathlib import Path

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from measuring import Measured
from torch import nn
from vocabulary import fields

from dscalc.core.blocks import SEPARABLE
from dscalc.core.row import layer_row
from dscalc.inputs.grid import Grid
from dscalc.pytorch import crosscheck
from dscalc.report import text
from dscalc.report.report import Report
from dscalc.show import times

FIELDS = fields("compare", SEPARABLE)
NAMES = [field.name for field in FIELDS]


def say(line):
    sys.stdout.write(f"\n{line}\n")


def seconds(function, repeats=3):
    """Processor time, the best of a few runs: what else the machine does counts little."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return min(spent)


def verified(oc, d):
    """What a verified grid of 256 input channels and a 3x3 kernel does, up to its report."""
    rows = (crosscheck(layer_row(layer, SEPARABLE)) for layer in Grid("256", oc, "3", d))
    lines = list(text.csv(Report("compare", SEPARABLE, FIELDS, rows)))
    assert all(line.endswith(",exact\n") for line in lines[1:])


def on_real_tensors(channels, d):
    """The same counts as one has them from fvcore: build the layers, run them, count."""
    features = torch.zeros(1, 256, d, d)
    for oc in channels:
        standard = nn.Conv2d(256, oc, 3, padding=1, bias=False)
        separable = nn.Sequential(
            nn.Conv2d(256, 256, 3, padding=1, groups=256, bias=False),
            nn.Conv2d(256, oc, 1, bias=False),
        )
        for module, macs in (
            (standard, 256 * oc * 9 * d * d),
            (separable, 256 * d * d * (9 + oc)),
        ):
            assert FlopCountAnalysis(module, features).total() == macs
            sum(parameter.numel() for parameter in module.parameters())


def seconds_a_row():
    """Seconds for one row: by the empty batch on a small, a usual and a large map; and really."""
    torch.set_num_threads(1)
    verified("256", "56")
    on_real_tensors([256], 56)
    return {
        "14": seconds(lambda: verified("225:256", "14"), 5) / 32,
        "56": seconds(lambda: verified("225:256", "56"), 5) / 32,
        "112": seconds(lambda: verified("225:256", "112"), 5) / 32,
        "real": seconds(lambda: on_real_tensors(range(253, 257), 56), 5) / 4,
    }


@pytest.fixture(scope="module")
def row():
    """Measured in a process of its own: torch traces more slowly under pytest's deep stack."""
    command = [sys.executable, "-W", "ignore", __file__]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)


def test_a_verified_grid_against_fvcore_on_real_tensors(row):
    """256 -> 256 channels and a few beside it, so that no row is the same, on a 56x56 map."""
    say(
        f"verified grid: {1 / row['56']:,.0f} rows a second, fvcore on real tensors "
        f"{1 / row['real']:,.1f}: {row['real'] / row['56']:.1f} times as fast (at least 5)"
    )
    assert row["real"] / row["56"] >= 5


def test_a_verified_grid_is_flat_in_the_size_of_the_map(row):
    say(
        f"verified grid: {row['14'] * 1e3:.2f} ms a row at 14x14, {row['112'] * 1e3:.2f} at "
        f"112x112: {row['112'] / row['14']:.2f} times as long (at most 1.5)"
    )
    assert row["112"] / row["14"] <= 1.5


# A million rows.

MILLION = "1:1000 1:1000 3 14"


def processor_seconds(args):
    """Processor time of dscalc as a process of its own, its report to /dev/null."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dscalc", *args.split()]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def as_written(row):
    """The values of a row as csv.writer takes them."""

    def plain(value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return times(value)
        return float(value) if isinstance(value, Fraction) else value

    return tuple(plain(field.read(row)) for field in FIELDS)


def precomputed():
    """The rows of the grid, a part at a time, as values that have only to be written."""
    rows = (as_written(layer_row(conv, SEPARABLE)) for conv in Grid(*MILLION.split()))
    while part := list(islice(rows, 10_000)):
        yield part


def processor_seconds_of_csv_writer():
    """Processor time of writing the precomputed rows to /dev/null, and how many they are."""
    spent, count = 0.0, 0
    with open(os.devnull, "w", encoding="utf-8", newline="") as stream:  # noqa: PTH123
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(NAMES)
        for part in precomputed():
            start = time.process_time()
            writer.writerows(part)
            spent += time.process_time() - start
            count += len(part)
    return spent, count


def test_the_precomputed_rows_are_those_of_the_command(tmp_path, run):
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(NAMES)
        writer.writerows(next(precomputed()))
    assert path.read_text("utf-8") == run("1:10 1:1000 3 14 -f csv").stdout


def test_a_million_rows_against_csv_writer():
    nothing = min(processor_seconds("1 1,2 3 14 -f csv") for _ in range(3))
    ours = min(processor_seconds(f"{MILLION} -f csv") for _ in range(2)) - nothing
    bare, count = processor_seconds_of_csv_writer()
    assert count == 1_000_000
    say(
        f"a million rows to CSV: {ours:.2f} s beyond the start, csv.writer alone {bare:.2f}: "
        f"{ours / bare:.2f} times as long (at most 4)"
    )
    assert ours / bare <= 4


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_million_rows_in_constant_memory(form):
    few, many = (Measured(f"{grid} -f {form}") for grid in ("1:10 1:1000 3 14", MILLION))
    few, many = few.peak(), many.peak()
    say(f"peak memory ({form}): {few:,} KB for 10,000 rows, {many:,} KB for 1,000,000")
    assert many - few < 3000


def test_every_row_of_a_million_is_there(tmp_path):
    """Counted in the file, line by line."""
    path = tmp_path / "rows.csv"
    subprocess.run(
        [sys.executable, "-m", "dscalc", *MILLION.split(), *("-f", "csv", "-o", str(path))],
        check=True,
    )
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        assert next(rows) == NAMES
        for (ic, oc), row in zip(product(range(1, 1001), repeat=2), rows, strict=True):
            assert (row[2], row[3]) == (str(ic), str(oc))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(seconds_a_row()))
