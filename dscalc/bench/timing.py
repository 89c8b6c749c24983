"""Time a row as it is and rewritten, on this machine. Times are microseconds (us)."""

import ctypes
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf, prod
from pathlib import Path
from random import Random
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from dscalc.bench.measurement import (
    BYTES_PER_ELEMENT,
    LOOKS,
    Device,
    Dtype,
    Environment,
    Limits,
    Measurement,
    Speedup,
    Time,
    Turn,
)
from dscalc.core.blocks import STANDARD
from dscalc.core.conv import Conv
from dscalc.core.describe import described
from dscalc.core.roofline import least_bytes
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.pytorch.modules import CONVOLUTIONS, block_module
from dscalc.show import amount, first_line

try:
    import resource
except ImportError:  # Windows does not count page faults like this
    resource = None  # type: ignore[assignment]

_DEVICES: dict[str, Callable[[], bool]] = {
    "cpu": lambda: True,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}  # by spatial axes
_MOST_THREADS = 1024  # if the system cannot start a thread, the process dies
_AS_IS = "as it is"
_SPARE = 3  # times the bytes of maps and weights
_TURNS = 100  # in min_run_time, unless turns get longer than _LONGEST or shorter than a run
_LONGEST = 0.005  # seconds of a turn
_WARM_UP = 5  # turns before the first that counts: caches fill, clocks rise, torch compiles
_LIMIT_TURNS = 10  # the best of them is the machine's limit
_PRODUCT = {"cpu": 1024, "cuda": 8192, "mps": 4096}  # rows and columns of the matrices
_HALF_PRODUCT = 256  # in half precision on a CPU, which may lack kernels for it
# From glibc's malloc.h. They keep freed memory; else the next run gets fresh pages to fill.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_FAILURES = (RuntimeError, TypeError, ValueError, MemoryError)  # torch and its compiler raise these


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Args:
        device: where to run.
        dtype: of weights and feature maps.
        threads: of torch on the CPU; None for as many as torch uses by itself.
        channels_last: store maps and weights with the channels innermost (2-D and 3-D layers).
        compile: run what ``torch.compile`` makes of each module.
        min_run_time: seconds to time each candidate; up to `LOOKS` times as long if it is not yet
            decided which is faster.
        backward: run forward and backward together, to the gradients of the input and of the
            weights.

    Raises:
        DscalcError: a value is out of its range, the device is not there, or it does not convolve
            in that dtype.
    """

    device: Device = "cpu"
    dtype: Dtype = "float32"
    threads: int | None = None
    channels_last: bool = False
    compile: bool = False
    min_run_time: float = 1.0
    backward: bool = False

    def __post_init__(self) -> None:
        if self.device not in _DEVICES:
            raise DscalcError(f"device must be cpu, cuda or mps, got {self.device!r}")
        if self.dtype not in BYTES_PER_ELEMENT:
            known = " or ".join(BYTES_PER_ELEMENT)
            raise DscalcError(f"dtype must be {known}, got {self.dtype!r}")
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise DscalcError(
                f"threads must be from 1 to {_MOST_THREADS}, got {self.threads}; "
                "omit it to use as many as torch does"
            )
        if not 0 < self.min_run_time < inf:
            raise DscalcError(
                f"min_run_time must be a number of seconds greater than 0, got {self.min_run_time}"
            )
        if not _DEVICES[self.device]():
            present = " or ".join(device for device, there in _DEVICES.items() if there())
            raise DscalcError(
                f"device {self.device} is not available to torch {torch.__version__} on this "
                f"machine; use {present}"
            )
        try:
            one = torch.ones(1, 1, 1, 1, dtype=self.torch_dtype, device=self.device)
            functional.conv2d(one, one)
        except _FAILURES as error:
            raise DscalcError(
                f"dtype {self.dtype} is not supported on {self.device} "
                f"({first_line(error) or repr(error)}); use float32"
            ) from error

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's own type."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


class Timed(NamedTuple):
    """A candidate: a module, the same module to call (compiled if asked for), and its input."""

    module: nn.Module
    call: Callable[[torch.Tensor], torch.Tensor]
    features: torch.Tensor


def time_rows(
    rows: Sequence[Row],
    settings: Settings,
    progress: Callable[[float], object] = lambda share: None,
) -> list[Row]:
    """Time a layer and each of its replacements, one per row.

    The steps of a single row are timed too, each alone. Modules run in eval mode, with initialised
    weights, in a process that keeps its memory. All candidates take turns of a few runs, in random
    order, until it is decided which are faster, or that two are too close, or the time is up;
    what is decided drops out. ``progress`` gets the share of the longest time that has passed. An
    interrupt propagates, and leaves torch's number of threads as it was.

    Raises:
        DscalcError: the layer does not have 1, 2 or 3 spatial axes, has no channels-last layout,
            does not fit in memory, or torch cannot run or compile it.
    """
    _keep_memory()
    _check(rows, settings)
    try:
        with torch.inference_mode(not settings.backward), _threads(settings.threads):
            ways = {str(row.block): row for row in rows}
            timed = {
                part: partial(_turn, _run(candidate, settings), settings)
                for part, candidate in _build_timed(rows, settings).items()
            }
            turns = take_turns(alike_long(timed, settings), ways, settings.min_run_time, progress)
            limits = [_limits(row, settings) for row in rows]
            here = environment(settings)
    except _FAILURES as error:
        what, fix = "run", "use a smaller layer or float32"
        if settings.compile:
            what, fix = "compile", "measure without compile"
        raise DscalcError(
            f"torch cannot {what} {_layer_name(rows)} on {settings.device} in {settings.dtype} "
            f"({first_line(error) or repr(error)}); {fix}"
        ) from error
    times = {part: Time.of(taken) for part, taken in turns.items()}
    steps = {part: time for part, time in times.items() if part not in (_AS_IS, *ways)}
    reached = max(_rates(rows, times, here))
    found = []
    for (name, row), limit in zip(ways.items(), limits, strict=True):
        speedup = Speedup.of(turns[_AS_IS], turns[name])
        limit = limit._replace(peak_gflops_per_s=max(limit.peak_gflops_per_s, reached))
        taken = Measurement(times[_AS_IS], times[name], steps, here, speedup, limit)
        found.append(row._replace(extra=taken))
    return found


def _rates(rows: Sequence[Row], times: Mapping[str, Time], here: Environment) -> Iterator[float]:
    """GFLOP/s of all that was timed, which no peak is below.

    A convolution can be faster than a matrix product, from a library that knows the processor
    better, or by an algorithm of fewer multiplications.
    """
    costs = {step.name: step.cost for step in rows[0].replacement.steps}
    costs |= {str(row.block): row.replacement.cost for row in rows}
    costs[_AS_IS] = rows[0].as_is.cost
    return (here.gflops_per_s(time, costs[part]) for part, time in times.items())


def alike_long(
    timed: Mapping[str, Callable[[float], Turn]], settings: Settings
) -> dict[str, Callable[[], Turn]]:
    """Functions that time a turn of each candidate, from functions that run it for some seconds.

    All turns are equally long, at least as long as the slowest run: a disturbance meets a long turn
    more often than a short one, and would make one candidate slower than another.
    """
    aim = min(_LONGEST, settings.min_run_time / _TURNS)
    runs = [min(run(aim).time_us for _ in range(_WARM_UP)) / 1e6 for run in timed.values()]
    return {part: partial(run, max(aim, *runs)) for part, run in timed.items()}


def take_turns(
    timed: Mapping[str, Callable[[], Turn]],
    ways: Iterable[str],
    min_run_time: float,
    progress: Callable[[float], object] = lambda share: None,
) -> dict[str, list[Turn]]:
    """The turns of each candidate: the layer as it is, each of the ``ways``, and the steps.

    In each round every candidate has one turn, in random order: disturbances meet all alike, and no
    candidate always runs after the same other one. ``min_run_time`` is in seconds per candidate.
    ``progress`` gets the share of the longest time that has passed.
    """
    turns: dict[str, list[Turn]] = {part: [] for part in timed}
    order, random = list(timed), Random(0)
    for look in range(LOOKS):
        spent, enough = 0.0, min_run_time * len(order)
        while spent < enough:
            progress((look + spent / enough) / LOOKS)
            random.shuffle(order)
            for part in order:
                turn = timed[part]()
                turns[part].append(turn)
                spent += turn.seconds * (1 + 1 / turn.runs)  # including the run before it
        found = {way: Speedup.of(turns[_AS_IS], turns[way]) for way in ways}
        order = [way for way, each in found.items() if not (each.decided or each.too_close)]
        if not order:
            break
        order.append(_AS_IS)
    return turns


def environment(settings: Settings) -> Environment:
    """The conditions of measurements with these settings."""
    return Environment(
        settings.device,
        torch.cuda.get_device_name() if settings.device == "cuda" else _processor(),
        str(torch.__version__),
        settings.threads or torch.get_num_threads(),
        settings.dtype,
        settings.channels_last,
        settings.compile,
        settings.backward,
    )


def bytes_needed(rows: Sequence[Row], settings: Settings) -> int:
    """Bytes of device memory to measure a layer and its replacements, besides torch itself.

    All weights and maps count three times, as libraries rearrange them, and as often again for
    gradients. A CPU without kernels for the dtype also unrolls the input, one element per tap.
    """
    bytes_ = BYTES_PER_ELEMENT[settings.dtype]
    sides = [rows[0].as_is, *(row.replacement for row in rows)]
    moved = sum(least_bytes(side.cost, bytes_) for side in sides)
    unrolls = settings.device == "cpu" and settings.dtype != "float32"
    spare = _SPARE * (2 if settings.backward else 1)
    return moved * (spare + (prod(_layer(rows).kernel_size) if unrolls else 0))


def _layer(rows: Sequence[Row]) -> Conv:
    """The layer that all rows build."""
    conv = rows[0].layer
    assert isinstance(conv, Conv)
    return conv


def _layer_name(rows: Sequence[Row]) -> str:
    return rows[0].name or described(_layer(rows), rows[0].block or STANDARD)


def _check(rows: Sequence[Row], settings: Settings) -> None:
    dims = len(_layer(rows).kernel_size)
    if dims not in CONVOLUTIONS:
        raise DscalcError(f"a measured layer must have 1, 2 or 3 spatial axes, got {dims}")
    if settings.channels_last and dims not in _CHANNELS_LAST:
        raise DscalcError(
            f"channels_last is a layout of 2-D and 3-D convolutions, got a {dims}-D one; omit it"
        )
    needed, free = bytes_needed(rows, settings), _free_bytes(settings.device)
    if free is not None and needed > free:
        raise DscalcError(
            f"{_layer_name(rows)} needs about {amount(needed)} to be measured, but "
            f"{settings.device} has {amount(free)} free; use a smaller layer or batch"
        )


def _build_timed(rows: Sequence[Row], settings: Settings) -> dict[str, Timed]:
    """The candidates: the layer as it is, each row's replacement, and each step of a single row."""
    row, conv = rows[0], _layer(rows)
    dims = len(conv.kernel_size)
    layout = _CHANNELS_LAST[dims] if settings.channels_last else torch.contiguous_format
    features = _features(conv, settings, layout)
    parts = {_AS_IS: (row.as_is.steps, features)}
    if len(rows) == 1 and len(row.replacement.steps) > 1:
        for step in row.replacement.steps:
            own = step.layer
            assert isinstance(own, Conv)
            same = (own.in_channels, own.input_size) == (conv.in_channels, conv.input_size)
            parts[step.name] = (step,), features if same else _features(own, settings, layout)
    parts |= {str(row.block): (row.replacement.steps, features) for row in rows}
    if settings.compile:
        torch.compiler.reset()  # else torch runs layers uncompiled after the first few
    candidates = {}
    for part, (steps, inputs) in parts.items():
        module = _ready(block_module(steps, "meta"), settings, layout)
        call: Callable[[torch.Tensor], torch.Tensor] = module
        if settings.compile:  # shapes are constants, and nothing falls back to eager mode
            call = torch.compile(module, fullgraph=True, dynamic=False)
        candidates[part] = Timed(module, call, inputs)
    return candidates


def _features(conv: Conv, settings: Settings, layout: torch.memory_format) -> torch.Tensor:
    """A random input of a convolution: (N, in_channels, *input_size)."""
    shape = (conv.batch_size, conv.in_channels, *conv.input_size)
    features = torch.empty(
        shape, dtype=settings.torch_dtype, device=settings.device, memory_format=layout
    )
    return features.normal_().requires_grad_(settings.backward)


def _ready(module: nn.Module, settings: Settings, layout: torch.memory_format) -> nn.Module:
    """A module from the meta device, with memory and weights, ready to be timed.

    It gets its dtype and layout before its memory, so that there is never a second copy.
    """
    module.to(dtype=settings.torch_dtype, memory_format=layout)  # type: ignore[call-overload]
    module.to_empty(device=settings.device).eval().requires_grad_(settings.backward)
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            part.reset_parameters()
    return module


def _run(candidate: Timed, settings: Settings) -> Callable[[], object]:
    """A function for one run: forward, or forward and backward."""
    module, call, features = candidate
    if not settings.backward:
        return partial(call, features)
    wanted = [features, *module.parameters()]
    gradient = torch.ones_like(call(features))
    return lambda: torch.autograd.grad(call(features), wanted, gradient)


def _turn(run: Callable[[], object], settings: Settings, aim: float) -> Turn:
    """Time runs for ``aim`` seconds, after one run that brings their data back into the caches."""
    run()
    faults, switches = _resource_usage()
    seconds, runs = _TIMERS[settings.device](run, aim)
    more_faults, more_switches = _resource_usage()
    if settings.device != "cpu" or resource is None:
        return Turn(seconds, runs)
    several = torch.get_num_threads() > 1
    return Turn(seconds, runs, more_faults - faults, several and more_switches > switches)


def _on_the_cpu(run: Callable[[], object], aim: float) -> tuple[float, int]:
    """Seconds and runs, until ``aim`` seconds are over."""
    runs = 0
    start = now = perf_counter()
    while now - start < aim:
        run()
        runs += 1
        now = perf_counter()
    return now - start, runs


def _on_cuda(run: Callable[[], object], aim: float) -> tuple[float, int]:
    """Seconds and runs by the clock of the device, which excludes the waiting of the CPU."""
    event = partial(torch.cuda.Event, enable_timing=True)

    def seconds(runs: int) -> float:
        start, end = event(), event()
        start.record()
        for _ in range(runs):
            run()
        end.record()
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1e3

    return _doubled(seconds, aim)


def _on_mps(run: Callable[[], object], aim: float) -> tuple[float, int]:
    def seconds(runs: int) -> float:
        torch.mps.synchronize()
        start = perf_counter()
        for _ in range(runs):
            run()
        torch.mps.synchronize()
        return perf_counter() - start

    return _doubled(seconds, aim)


def _doubled(seconds: Callable[[int], float], aim: float) -> tuple[float, int]:
    """Seconds and runs; the runs double until they take ``aim`` seconds.

    The device has a queue, which hides when each run ends.
    """
    runs = 1
    while (took := seconds(runs)) < aim:
        runs *= 2
    return took, runs


_TIMERS = {"cpu": _on_the_cpu, "cuda": _on_cuda, "mps": _on_mps}


def _resource_usage() -> tuple[int, int]:
    """Minor page faults so far, and how often another process took the CPU from this one.

    Both are 0 on Windows.
    """
    if resource is None:
        return 0, 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_nivcsw


def _keep_memory() -> None:
    """Make malloc keep memory freed from now on, and return memory freed before.

    By default glibc maps fresh pages for a large map at each run and returns them afterwards. The
    system then fills them with zeros, page fault by page fault, which can take longer than the
    convolution. Other C libraries stay as they are; the page faults tell.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.malloc_trim(0)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Set torch's number of threads on the CPU inside the block; None keeps it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _limits(row: Row, settings: Settings) -> Limits:
    """What the machine can do for a row: its peak, and its bandwidth for as many bytes."""
    moved = least_bytes(row.replacement.cost, BYTES_PER_ELEMENT[settings.dtype])
    source = torch.ones(
        max(1, moved // (2 * settings.torch_dtype.itemsize)),
        dtype=settings.torch_dtype,
        device=settings.device,
    )
    copied = 2 * source.numel() * source.element_size()
    copy = partial(torch.empty_like(source).copy_, source)
    return Limits(_peak(settings), copied / _best_us(copy, settings) / 1e3)


@lru_cache(maxsize=1)
def _peak(settings: Settings) -> float:
    """GFLOP/s of a matrix product, measured once in a process."""
    size = _PRODUCT[settings.device]
    if settings.device == "cpu" and settings.dtype != "float32":
        size = _HALF_PRODUCT
    one = torch.ones(size, size, dtype=settings.torch_dtype, device=settings.device)
    with _tf32_as_convolutions_have_it():
        return 2 * size**3 / _best_us(partial(torch.mm, one, one), settings) / 1e3


@contextmanager
def _tf32_as_convolutions_have_it() -> Iterator[None]:
    """Let a matrix product on cuda round like a convolution.

    By default torch uses TF32 only in convolutions.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def _best_us(run: Callable[[], object], settings: Settings) -> float:
    """Microseconds per run of the best of a few turns."""
    [timed] = alike_long({"": partial(_turn, run, settings)}, settings).values()
    return min(timed().time_us for _ in range(_LIMIT_TURNS))


def _free_bytes(device: str, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the device can still give; None if the system does not tell.

    Outside cuda it is the memory of the machine, which mps shares.
    """
    if device == "cuda":
        free: int = torch.cuda.mem_get_info()[0]
        return free
    available = _told(meminfo, "MemAvailable").removesuffix("kB")
    return int(available) * 1024 if available else None


def _processor() -> str:
    model = _told(Path("/proc/cpuinfo"), "model name")
    return model or platform.processor() or platform.machine()


def _told(file: Path, name: str) -> str:
    """The first value of a name in a file of ``NAME: VALUE``; "" if there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
