"""The rooms of the package: what stands where, what may go, and how long a function is."""

import ast
import json
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
BUDGET = "[[check]]\nrun = '3 64 3 224 --no-verify'\nassert = 'mac_ratio <= 1'\n"


def test_a_file_name_stands_once_but_for_the_roles_of_slices():
    places = defaultdict(set)
    for path in MODULES:
        places[path.name].add(path.parent.relative_to(PACKAGE).as_posix())
    del places["__init__.py"]
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if not where <= SLICES.keys()} == {}


ROLES = {  # names of one meaning in several modules: a part that its kin have too
    *("EXAMPLES", "FIELDS", "OPTIONS", "draw", "sheet"),
    *("compare", "blocks", "network"),  # a command, and the call that it is of
    "__all__",
}


def test_a_name_at_the_top_of_a_module_means_one_thing():
    places = defaultdict(set)
    for path in MODULES:
        for node in ast.parse(path.read_text("utf-8")).body:
            named = [node] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            assigned = getattr(node, "targets", [getattr(node, "target", None)])
            names = [one.name for one in named]
            names += [target.id for target in assigned if isinstance(target, ast.Name)]
            for name in names:
                places[name].add(path.relative_to(PACKAGE).as_posix())
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in ROLES} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_function_is_long(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST, (node.name, lines)


@pytest.fixture(params=[*([name] for name in SLICES), [*SLICES]], ids=" ".join)
def without(request, tmp_path):
    """Names of slices, and what a copy of dscalc without their folders and lines answers."""
    names, copy = request.param, tmp_path / "copy"
    shutil.copytree(PACKAGE, copy / "dscalc", ignore=shutil.ignore_patterns("__pycache__"))
    table = copy / "dscalc/slices.py"
    for name in names:
        shutil.rmtree(copy / "dscalc" / name)
        table.write_text(table.read_text("utf-8") + f"\ndel SLICES[{name!r}]\n", "utf-8")
    (tmp_path / "nets.py").write_text(MODEL)
    (tmp_path / "budgets.toml").write_text(BUDGET)

    commands = [*(WITH_TORCH if len(names) > 1 else ()), *RUN]
    for name in names:
        commands += [f"{command} --help" for command in SLICES[name].options_of]
        commands += map(GONE.format, SLICES[name].commands)
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        check=True,
        text=True,
    )
    return names, {args: tuple(result) for args, result in json.loads(done.stdout).items()}


GONE = "{} 3 64 3 8"
RUN = (
    "3 64 3 224 --no-verify",
    "3 64,32 3 224 -f csv",
    "blocks 64 64 3 28 --no-verify",
    "network mobilenet_v1 --no-verify",
    "check budgets.toml",
    "model --help",
    "--help",
)
WITH_TORCH = ("3 64 3 224", "network mobilenet_v1", "model nets.py:net --input 3x8x8")
# In one process, which imports torch once: the code, stdout and stderr of each command line.
RUN_ALL = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from dscalc.cli import main
found = {}
for args in sys.argv[1:]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        code = main(args.split())
    said = []
    for stream in streams:
        stream.seek(0)
        said.append(stream.read())
    found[args] = [code, *said]
print(json.dumps(found))
"""
OPTIONS = {
    "bench": (),
    "peers": ("--explain", "--peers"),
    "citation": ("--cite",),
    "baseline": ("--baseline",),
}


def test_without_a_slice_the_rest_works(without):
    names, found = without
    codes = {args: code for args, (code, _, _) in found.items() if args[-7:] != GONE[-7:]}
    assert set(codes.values()) == {0}, codes
    for name in names:
        slice_ = SLICES[name]
        assert not set(slice_.commands) & set(found["--help"][1].split())
        for command in slice_.commands:
            error = f"error: no such command '{command}'"
            assert found[GONE.format(command)][2].startswith(error)
        for command in slice_.options_of:
            assert not set(OPTIONS[name]) & set(found[f"{command} --help"][1].split())
