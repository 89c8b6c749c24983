"""The rooms of the package: what stands where, what may go, and how long a function is."""

import ast
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import dscalc
from dscalc.slices import SLICES

PACKAGE = Path(dscalc.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 60  # lines of a function's body
MODEL = "from torch import nn\nnet = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())\n"
BUDGET = "[[check]]\nrun = '3 64 3 224'\nassert = 'mac_ratio <= 1'\n"


def test_a_file_name_stands_once_but_for_the_roles_of_slices():
    places = defaultdict(set)
    for path in MODULES:
        places[path.name].add(path.parent.relative_to(PACKAGE).as_posix())
    del places["__init__.py"]
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if not where <= SLICES.keys()} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_function_is_long(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST, (node.name, lines)


@pytest.fixture(params=SLICES)
def without(request, tmp_path):
    """The name of a slice, and what runs a copy of dscalc without its folder and its line."""
    name, copy = request.param, tmp_path / "copy"
    shutil.copytree(PACKAGE, copy / "dscalc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(copy / "dscalc" / name)
    table = copy / "dscalc/slices.py"
    table.write_text(table.read_text("utf-8") + f"\ndel SLICES[{name!r}]\n", "utf-8")
    (tmp_path / "nets.py").write_text(MODEL)
    (tmp_path / "budgets.toml").write_text(BUDGET)

    def run(args):
        return subprocess.run(
            [sys.executable, "-m", "dscalc", *args.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            check=False,
            text=True,
        )

    return name, run


def test_without_a_slice_the_rest_works(without):
    name, run = without
    for args in (
        "3 64 3 224",
        "3 64,32 3 224 -f csv",
        "blocks 64 64 3 28",
        "network mobilenet_v1 --no-verify",
        "model nets.py:net --input 3x8x8",
        "check budgets.toml",
        "--help",
    ):
        done = run(args)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), (args, done.stderr)
    slice_ = SLICES[name]
    assert not set(slice_.commands) & set(run("--help").stdout.split())
    for command in slice_.commands:
        assert run(f"{command} 3 64 3 8").stderr.startswith(f"error: no such command '{command}'")
    for command in slice_.options_of:
        help_ = run(f"{command} --help").stdout
        assert help_
        assert not {f"--{option}" for option in OPTIONS[name]} & set(help_.split())


OPTIONS = {
    "bench": (),
    "peers": ("explain", "peers"),
    "cite": ("cite",),
    "baseline": ("baseline",),
}
