"""What the tests share: a plain environment and two ways to run the command line."""

import gc
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from hypothesis import settings
from looks import LOOKS
from times import took

from dscalc.cli import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads only get in each other's way here

# The default run is repeatable; `pytest --hypothesis-profile=search` looks for new failures.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=30
)
settings.register_profile("search", max_examples=2000, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_finish():
    """Leave what is imported out of the garbage collector's searches; it lives to the end."""
    gc.collect()
    gc.freeze()


class Result(NamedTuple):
    """What a run of dscalc left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self):
        """The reason of the one line on stderr that starts with ``error: ``."""
        [line] = self.stderr.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Nothing of the developer's terminal reaches a test."""
    for name in LOOKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "25")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, and the one to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run dscalc in this process: ``run("3", "64", "3", "224")``, or ``run("3 64 3 224")``."""

    def run(*args, columns=80):
        if len(args) == 1:
            args = args[0].split()
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        code = main(args)
        return Result(code, *capsys.readouterr())

    on_closed_pipe = signal.getsignal(signal.SIGPIPE)
    yield run
    signal.signal(signal.SIGPIPE, on_closed_pipe)


@pytest.fixture
def start(tmp_path):
    """Start dscalc as a process of its own: ``start("3 64 3 224", stdout=...)``."""
    started = []

    def start(args, env=None, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [sys.executable, "-m", "dscalc", *args.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
            **options,
        )
        started.append(process)
        return process

    # Python ignores Ctrl-C where it was started with it ignored, and a child inherits that.
    on_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, on_interrupt)
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def spawn(start):
    """Run dscalc as a process of its own, to its end."""

    def spawn(args, env=None):
        process = start(args, env)
        stdout, stderr = process.communicate(timeout=60)
        return Result(process.returncode, stdout.decode(), stderr.decode())

    return spawn


@pytest.fixture
def timed(monkeypatch):
    """Measure nothing: each layer takes 1000 us as it is, 1000 us / input channels rewritten.

    Keeps the rows that come and their settings, and raises what ``raising`` holds for a number of
    input channels. ``spread`` is how wide the interval of the speed-up is.
    """
    from dscalc.bench import timing  # imports torch

    timed = SimpleNamespace(rows=[], settings=[], raising={}, spread=1.01)

    def measured(rows, settings, progress):
        channels = rows[0].layer.in_channels
        timed.rows.extend(rows)
        timed.settings.append(settings)
        if channels in timed.raising:
            raise timed.raising[channels]
        progress(0.5)
        return [took(row, 1e3, 1000 / channels, 10.0, spread=timed.spread) for row in rows]

    monkeypatch.setattr(timing, "time_rows", measured)
    return timed
