"""Time a row as it is and as it is rewritten, on this machine. Times are microseconds (us)."""

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from statistics import quantiles
from timeit import default_timer
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils.benchmark import Timer

from dscalc.core.conv import Conv
from dscalc.core.measurement import Environment, Measurement, Time
from dscalc.core.roofline import BYTES_PER_ELEMENT, least_bytes
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.pytorch.modules import CONVOLUTIONS, block_module
from dscalc.words import amount

Device = Literal["cpu", "cuda", "mps"]
Dtype = Literal["float32", "bfloat16", "float16"]

_DEVICES: dict[str, Callable[[], bool]] = {
    "cpu": lambda: True,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}  # by spatial axes
_MOST_THREADS = 1024  # threads that the system cannot start kill the process
_AS_IS, _REWRITTEN = "as it is", "rewritten"
_SPARE = 3  # times what the maps and weights take
_ROUNDS = 4  # an even number, so that a steady drift cancels out
_FAILURES = (RuntimeError, TypeError, ValueError, MemoryError)  # what torch and its compiler raise


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Args:
        device: where to run.
        dtype: of weights and feature maps.
        threads: of torch on the CPU; None for as many as torch uses by itself.
        channels_last: store maps and weights with the channels innermost (2-D and 3-D layers).
        compile: run what ``torch.compile`` makes of each module.
        min_run_time: seconds to time each candidate, over all rounds.

    Raises:
        DscalcError: a value is out of its range, the device is not there, or it does not
            convolve in that dtype.
    """

    device: Device = "cpu"
    dtype: Dtype = "float32"
    threads: int | None = None
    channels_last: bool = False
    compile: bool = False
    min_run_time: float = 1.0

    def __post_init__(self) -> None:
        if self.device not in _DEVICES:
            raise DscalcError(f"device must be cpu, cuda or mps, got {self.device!r}")
        if self.dtype not in BYTES_PER_ELEMENT:
            raise DscalcError(f"dtype must be {_either(BYTES_PER_ELEMENT)}, got {self.dtype!r}")
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise DscalcError(
                f"threads must be from 1 to {_MOST_THREADS}, got {self.threads}; "
                "leave it out for as many as torch uses by itself"
            )
        if not 0 < self.min_run_time < inf:
            raise DscalcError(
                f"min_run_time must be a number of seconds greater than 0, got {self.min_run_time}"
            )
        if not _DEVICES[self.device]():
            present = [device for device, available in _DEVICES.items() if available()]
            raise DscalcError(
                f"device {self.device} is not available to torch {torch.__version__} on this "
                f"machine; use {_either(present)}"
            )
        try:
            one = torch.ones(1, 1, 1, 1, dtype=self.torch_dtype, device=self.device)
            functional.conv2d(one, one)
        except _FAILURES as error:
            raise DscalcError(
                f"dtype {self.dtype} is not supported on {self.device} ({_reason(error)}); "
                "use float32"
            ) from error

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def measured(row: Row, settings: Settings) -> Row:
    """Time a row as it is, rewritten, and each step of that alone.

    Modules run in eval mode, with initialised weights, under inference mode. The candidates take
    turns over several rounds, in alternating order, so that a machine that slows down or speeds
    up meanwhile does so for all of them. An interrupt propagates, and leaves torch's number of
    threads as it was.

    Raises:
        DscalcError: the row has no spatial axis or no channels-last layout, does not fit in
            memory, or torch cannot run or compile it.
    """
    _check(row, settings)
    try:
        with torch.inference_mode():
            timers = _timers(row, settings)
            for timer in timers.values():
                timer.timeit(1)  # a warm-up, and compilation for the number of threads timed
            order = list(timers)
            rounds: dict[str, list[list[float]]] = {part: [] for part in order}
            for _ in range(_ROUNDS):
                for part in order:
                    timed = timers[part].blocked_autorange(
                        min_run_time=settings.min_run_time / _ROUNDS
                    )
                    rounds[part].append(timed.times)
                order.reverse()
    except _FAILURES as error:
        what, fix = (
            ("compile", "measure without compile")
            if settings.compile
            else ("run", "use a smaller layer or float32")
        )
        raise DscalcError(
            f"torch cannot {what} {row.name} on {settings.device} in {settings.dtype} "
            f"({_reason(error)}); {fix}"
        ) from error
    times = {part: _merged(taken) for part, taken in rounds.items()}
    as_is, rewritten = times.pop(_AS_IS), times.pop(_REWRITTEN)
    return row._replace(measured=Measurement(as_is, rewritten, times, environment(settings)))


def environment(settings: Settings) -> Environment:
    """What measurements with these settings depend on."""
    return Environment(
        settings.device,
        torch.cuda.get_device_name() if settings.device == "cuda" else _processor(),
        str(torch.__version__),
        settings.threads or torch.get_num_threads(),
        settings.dtype,
        settings.channels_last,
        settings.compile,
    )


def bytes_needed(row: Row, settings: Settings) -> int:
    """Bytes of the device that measuring a row takes, about, beside torch itself.

    Both sides with their maps, three times over for what libraries rearrange; a CPU without
    kernels for the dtype also unrolls the input, one element for each tap.
    """
    bytes_ = BYTES_PER_ELEMENT[settings.dtype]
    both = sum(least_bytes(side.cost, bytes_) for side in (row.as_is, row.rewritten))
    assert isinstance(row.layer, Conv)
    unrolls = settings.device == "cpu" and settings.dtype != "float32"
    return both * (_SPARE + (prod(row.layer.kernel_size) if unrolls else 0))


def _check(row: Row, settings: Settings) -> None:
    assert isinstance(row.layer, Conv)
    dims = len(row.layer.kernel_size)
    if dims not in CONVOLUTIONS:
        raise DscalcError(f"a measured layer must have 1, 2 or 3 spatial axes, got {dims}")
    if settings.channels_last and dims not in _CHANNELS_LAST:
        raise DscalcError(
            f"channels_last is a layout of 2-D and 3-D convolutions, got a {dims}-D one; "
            "leave it out"
        )
    needed, free = bytes_needed(row, settings), _free_bytes(settings.device)
    if free is not None and needed > free:
        raise DscalcError(
            f"{row.name} needs about {amount(needed)} to be measured, and "
            f"{settings.device} has {amount(free)} free; use a smaller layer or batch"
        )


def _timers(row: Row, settings: Settings) -> dict[str, Timer]:
    """A timer for the row as it is, for each step of what it is rewritten as, and for that."""
    assert isinstance(row.layer, Conv)
    dims = len(row.layer.kernel_size)
    layout = _CHANNELS_LAST[dims] if settings.channels_last else torch.contiguous_format
    features = _features(row.layer, settings, layout)
    candidates = {_AS_IS: (block_module(row.as_is.steps, "meta"), features)}
    for step in row.rewritten.steps if len(row.rewritten.steps) > 1 else ():
        own = step.layer
        assert isinstance(own, Conv)
        same = (own.in_channels, own.input_size) == (row.layer.in_channels, row.layer.input_size)
        inputs = features if same else _features(own, settings, layout)
        candidates[step.name] = (block_module([step], "meta"), inputs)
    candidates[_REWRITTEN] = (block_module(row.rewritten.steps, "meta"), features)
    if settings.compile:
        torch.compiler.reset()  # else, after a few layers, torch gives up and runs them uncompiled
    return {
        part: Timer(
            "module(features)",
            timer=_clock(settings.device),
            globals={"module": _ready(module, settings, layout), "features": inputs},
            num_threads=settings.threads or torch.get_num_threads(),
        )
        for part, (module, inputs) in candidates.items()
    }


def _features(conv: Conv, settings: Settings, layout: torch.memory_format) -> torch.Tensor:
    """A random input of a convolution: (N, in_channels, *input_size)."""
    shape = (conv.batch_size, conv.in_channels, *conv.input_size)
    return torch.empty(
        shape, dtype=settings.torch_dtype, device=settings.device, memory_format=layout
    ).normal_()


def _ready(
    module: nn.Module, settings: Settings, layout: torch.memory_format
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A module on the meta device, made real and fit to be timed.

    It gets its dtype and layout while it has no memory, so that no second copy is ever held.
    """
    module.to(dtype=settings.torch_dtype, memory_format=layout)  # type: ignore[call-overload]
    module.to_empty(device=settings.device).eval()
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            part.reset_parameters()
    if settings.compile:
        # Shapes are constants and nothing falls back to eager mode in silence.
        return torch.compile(module, fullgraph=True, dynamic=False)
    return module


def _clock(device: str) -> Callable[[], float]:
    """Seconds, once the device has done what it was given.

    The clock of `Timer` waits for whatever accelerator there is, even for work on the CPU, and
    in torch 2.4 not for mps.
    """
    if device == "cpu":
        return default_timer
    wait: Callable[[], None] = getattr(torch, device).synchronize

    def seconds() -> float:
        wait()
        return default_timer()

    return seconds


def _merged(rounds: Iterable[list[float]]) -> Time:
    """The spread over rounds of times in seconds.

    A slow round has fewer times than a fast one, so each is brought in as its 99 percentiles: a
    spell of slowness then shows in the interquartile range.
    """
    seconds = [
        percentile
        for taken in rounds
        for percentile in quantiles(taken * 2, n=100, method="inclusive")  # it needs two times
    ]
    lower, middle, upper = quantiles(seconds, n=4, method="inclusive")
    return Time(middle * 1e6, (upper - lower) * 1e6)


def _free_bytes(device: str, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the device can still give, or None where the system does not tell.

    Outside cuda that is the memory of the machine, which mps shares.
    """
    if device == "cuda":
        free: int = torch.cuda.mem_get_info()[0]
        return free
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return next((kB * 1024 for kB in kilobytes), None)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _reason(error: Exception) -> str:
    """The first line that says something: before it, torch may name the compiler that raised."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith("raised:")), repr(error))


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)
