"""Time a convolution and its depthwise separable replacement on this machine.

Times are microseconds (us). What they mean is in `dscalc.record.measured`.
"""

import os
import platform
from collections.abc import Callable, Iterable, Iterator
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

from dscalc.core.blocks import Comparison
from dscalc.core.conv import Conv
from dscalc.core.describe import described
from dscalc.errors import DscalcError
from dscalc.pytorch.modules import CONVOLUTIONS, convolution, separable_convolution
from dscalc.record.measured import BYTES_PER_ELEMENT, Environment, Measurement, Time, amount, parts

Device = Literal["cpu", "cuda", "mps"]
Dtype = Literal["float32", "bfloat16", "float16"]

_DEVICES: dict[str, Callable[[], bool]] = {
    "cpu": lambda: True,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}  # by spatial axes
_MOST_THREADS = 1024  # threads that the system cannot start kill the process
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


def benchmark(layer: Comparison, settings: Settings) -> Measurement:
    """Time a layer: each module in eval mode, with initialised weights, under inference mode.

    The candidates take turns over several rounds, in alternating order, so that a machine that
    slows down or speeds up meanwhile does so for all of them. An interrupt propagates, and leaves
    torch's number of threads as it was.

    Raises:
        DscalcError: the layer lacks a part or a spatial axis, has no channels-last layout, does
            not fit in memory, or torch cannot run or compile it.
    """
    _check(layer, settings)
    try:
        with torch.inference_mode():
            timers = _timers(layer, settings)
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
            f"torch cannot {what} {described(layer)} on {settings.device} in {settings.dtype} "
            f"({_reason(error)}); {fix}"
        ) from error
    return Measurement(**{part: _merged(taken) for part, taken in rounds.items()})


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


def bytes_needed(layer: Comparison, settings: Settings) -> int:
    """Bytes of the device that measuring a layer takes, at most, beside torch itself.

    Weights of every candidate, the input, the map between the parts, an output and one more
    middle map while the separable module runs; and, as workspace, a copy of the padded input, the
    weights and the output of the largest convolution, for libraries that rearrange them.
    A CPU without kernels of oneDNN for the dtype also unrolls the input (im2col): one element for
    each tap at each output position. Half precision is taken to be such a case.
    """
    depthwise, pointwise = parts(layer)
    standard = layer.standard
    unrolls = settings.device == "cpu" and (
        settings.dtype != "float32" or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )
    weights = standard.params + 2 * layer.separable_params  # the parts are timed alone too
    inputs = prod((standard.batch_size, standard.in_channels, *standard.input_size))
    middle = prod((pointwise.batch_size, pointwise.in_channels, *pointwise.input_size))
    outputs = prod((standard.batch_size, standard.out_channels, *standard.output_size))
    workspace = max(_workspace(conv, unrolls) for conv in (standard, depthwise, pointwise))
    elements = weights + inputs + 2 * middle + outputs + workspace
    return elements * BYTES_PER_ELEMENT[settings.dtype]


def _check(layer: Comparison, settings: Settings) -> None:
    parts(layer)
    dims = len(layer.standard.kernel_size)
    if dims not in CONVOLUTIONS:
        raise DscalcError(f"a measured layer must have 1, 2 or 3 spatial axes, got {dims}")
    if settings.channels_last and dims not in _CHANNELS_LAST:
        raise DscalcError(
            f"channels_last is a layout of 2-D and 3-D convolutions, got a {dims}-D one; "
            "leave it out"
        )
    needed, free = bytes_needed(layer, settings), _free_bytes(settings.device)
    if free is not None and needed > free:
        raise DscalcError(
            f"{described(layer)} needs about {amount(needed)} to be measured, and "
            f"{settings.device} has {amount(free)} free; use a smaller layer or batch"
        )


def _timers(layer: Comparison, settings: Settings) -> dict[str, Timer]:
    """A timer for each field of a `Measurement`."""
    depthwise, pointwise = parts(layer)
    dims = len(layer.standard.kernel_size)
    layout = _CHANNELS_LAST[dims] if settings.channels_last else torch.contiguous_format
    features = _features(layer.standard, settings, layout)
    middle = _features(pointwise, settings, layout)
    candidates = {
        "standard": (convolution(layer.standard, "meta"), features),
        "depthwise": (convolution(depthwise, "meta"), features),
        "pointwise": (convolution(pointwise, "meta"), middle),
        "separable": (separable_convolution(depthwise, pointwise), features),
    }
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


def _workspace(conv: Conv, unrolls: bool) -> int:
    """Elements that a library may hold while it runs a convolution."""
    lengths = [
        length + before + after
        for length, (before, after) in zip(conv.input_size, conv.pads, strict=True)
    ]
    padded = conv.batch_size * conv.in_channels * prod(lengths)
    if any(before != after for before, after in conv.pads):
        padded *= 2  # an uneven padding is itself a copy, made before the convolution
    positions = conv.batch_size * prod(conv.output_size)
    columns = conv.in_channels // conv.groups * prod(conv.kernel_size) if unrolls else 0
    return padded + conv.params + positions * (conv.out_channels + columns)


def _free_bytes(device: str) -> int | None:
    """Bytes that the device can still give, or None where the system does not tell.

    Outside cuda that is the memory of the machine, which mps shares.
    """
    if device == "cuda":
        free: int = torch.cuda.mem_get_info()[0]
        return free
    return min([*_machine_bytes(), *_cgroup_bytes()], default=None)


def _machine_bytes(meminfo: Path = Path("/proc/meminfo")) -> Iterator[int]:
    try:
        lines = meminfo.read_text().splitlines()
        yield next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    except (OSError, StopIteration):
        try:  # macOS tells what is installed, not what is free
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return


def _cgroup_bytes(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """What each control group around this process leaves of its limit, in version 1 and 2."""
    try:
        groups = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers == "":
            root, limit, usage = mount, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inside = Path(path.lstrip("/"))
        for folder in (root / group for group in (inside, *inside.parents)):
            try:
                allowed = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
                lines = (folder / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):  # no such group here, or no limit: "max"
                continue
            # The kernel takes back the cache of files when the group runs short.
            cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file"))
            yield max(0, allowed - used + cached)


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
