"""What is loaded when: a number must not wait for torch."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "fvcore", "rich", "numpy", "matplotlib"}


def loaded(statements, tmp_path):
    """Those of the heavy packages that a new Python has loaded after the statements."""
    report = (
        f"import json, sys; print(json.dumps([m for m in {sorted(HEAVY)} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{statements}\n{report}"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


def running(args):
    return f"from dscalc.cli import main; assert main({args.split()!r}) == 0"


def test_the_library_loads_no_third_party(tmp_path):
    assert loaded("import dscalc", tmp_path) == set()


@pytest.mark.parametrize(
    "args",
    [
        "512 512 3 14 --no-verify -f json",
        "512 512 3 14 --no-verify -f csv",
        "512 512 3 14 --no-verify -f markdown",
        "512 512 3 14 --get mac_ratio",
        "512 32:512:x2 3 14 -f jsonl",
        "--help",
    ],
)
def test_machine_formats_load_neither_torch_nor_rich(args, tmp_path):
    assert loaded(running(args), tmp_path) == set()


@pytest.mark.parametrize("form", ["table", "svg"])
def test_a_table_loads_rich_and_not_torch(form, tmp_path):
    """This also shows that the guard can fail."""
    assert loaded(running(f"512 512 3 14 --no-verify -f {form}"), tmp_path) == {"rich"}


def test_the_cross_check_loads_torch_and_fvcore(tmp_path):
    cuda_on_windows = "import sys, torch; torch.version.cuda = '13.0'; sys.modules['triton'] = None"
    found = loaded(f"{cuda_on_windows}\n{running('512 512 3 14 -f json')}", tmp_path)
    assert {"torch", "fvcore"} <= found
    assert "rich" not in found
