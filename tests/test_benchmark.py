"""Measured: the arithmetic beside the times, what reaches torch, and the refusals. Never a time."""

import platform
from fractions import Fraction
from importlib import import_module
from timeit import default_timer
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import convolutions
from torch import nn

from dscalc import Comparison, Conv, DscalcError, compare
from dscalc.pytorch.modules import convolution
from dscalc.pytorch.timing import Settings, benchmark, bytes_needed, environment
from dscalc.record.fields import Record
from dscalc.record.measured import (
    BenchRecord,
    Environment,
    Measurement,
    Time,
    bench_record,
    least_bytes,
    verdict_sentence,
)

THE_MODULE = import_module("dscalc.pytorch.timing")
TEXTBOOK = compare(3, 64, 3, 224)
DEEP = compare(512, 512, 3, 14)
SMALL = compare(4, 6, 3, 8)
PARTS = ["standard", "depthwise", "pointwise", "separable"]
HERE = Environment("cpu", "Some CPU", "2.13.0", 2, "float32", False, False)


def measured(layer, standard, separable, iqr=0.0, dtype="float32"):
    """The record of a layer whose modules took these microseconds."""
    steady = Time(10.0, 0.0)
    measurement = Measurement(Time(standard, iqr), steady, steady, Time(separable, 0.0))
    return bench_record(layer, measurement, HERE._replace(dtype=dtype))


class FakeTimer:
    """Runs its statement once to warm up, and gives invented times from then on."""

    made: list["FakeTimer"]
    turns: list[str]
    times: dict[str, list[list[float]]]

    def __init__(self, stmt, **given):
        self.stmt, self.given = stmt, given
        self.part = PARTS[len(self.made)]
        self.asked = []
        self.made.append(self)

    @property
    def module(self):
        return self.given["globals"]["module"]

    @property
    def features(self):
        return self.given["globals"]["features"]

    def timeit(self, number):
        self.output = eval(self.stmt, self.given["globals"])
        self.inference = torch.is_inference_mode_enabled()

    def blocked_autorange(self, min_run_time):
        self.asked.append(min_run_time)
        self.turns.append(self.part)
        rounds = self.times.get(self.part, [[1e-3]])
        return SimpleNamespace(times=rounds[(len(self.asked) - 1) % len(rounds)])


@pytest.fixture
def timer(monkeypatch):
    """In place of torch's Timer; keeps every instance in ``made`` and whose turn it was."""
    monkeypatch.setattr(FakeTimer, "made", [], raising=False)
    monkeypatch.setattr(FakeTimer, "turns", [], raising=False)
    monkeypatch.setattr(FakeTimer, "times", {}, raising=False)
    monkeypatch.setattr(THE_MODULE, "Timer", FakeTimer)
    return FakeTimer


# The arithmetic


def test_the_bytes_of_the_textbook_layer_by_hand():
    row = measured(TEXTBOOK, 1, 1)
    assert row.standard_bytes == (3 * 224**2 + 3 * 64 * 9 + 64 * 224**2) * 4 == 13_454_080
    assert row.depthwise_bytes == (3 * 224**2 + 3 * 9 + 3 * 224**2) * 4 == 1_204_332
    assert row.pointwise_bytes == (3 * 224**2 + 3 * 64 + 64 * 224**2) * 4 == 13_447_936
    assert row.separable_bytes == 1_204_332 + 13_447_936


def test_the_intensity_of_the_textbook_layer_by_hand():
    row = measured(TEXTBOOK, 1, 1)
    assert row.standard_intensity == Fraction(2 * 86_704_128, 13_454_080)
    assert row.separable_intensity == Fraction(2 * (1_354_752 + 9_633_792), 14_652_268)


def test_half_precision_halves_the_bytes_and_doubles_the_intensity():
    whole, half = measured(DEEP, 1, 1), measured(DEEP, 1, 1, dtype="bfloat16")
    assert 2 * half.separable_bytes == whole.separable_bytes
    assert half.separable_intensity == 2 * whole.separable_intensity


@given(convolutions(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_bytes_are_those_of_real_tensors(arguments, dtype):
    """Of the module's input, parameters and output, without the zeros of an explicit padding."""
    conv = Conv(**arguments)
    module = convolution(conv, "meta").to(dtype)
    features = torch.empty(
        conv.batch_size, conv.in_channels, *conv.input_size, dtype=dtype, device="meta"
    )
    moved = [features, *module.parameters(), module(features)]
    expected = sum(tensor.numel() * tensor.element_size() for tensor in moved)
    assert least_bytes(conv, dtype.itemsize) == expected


def test_biases_move_too():
    with_bias = Conv(4, 6, 3, 8, bias=True)
    assert least_bytes(with_bias, 2) - least_bytes(Conv(4, 6, 3, 8), 2) == 6 * 2


def test_rates_and_speedup_come_from_the_given_times():
    row = measured(DEEP, standard=2000.0, separable=500.0)
    assert row.speedup == 4.0
    assert row.standard_gflops_per_s == pytest.approx(2 * 462_422_016 / 2e-3 / 1e9)
    assert row.separable_gflops_per_s == pytest.approx(2 * 52_283_392 / 5e-4 / 1e9)


def test_a_record_begins_as_every_record_does():
    shared = [field for field in Record._fields if field in BenchRecord._fields]
    assert list(BenchRecord._fields[: len(shared)]) == shared
    assert shared[:15] == list(Record._fields[:15])
    row = measured(DEEP, 1, 1)
    assert row[:5] == (None, "separable", 512, 512, (3, 3))
    assert (row.standard_macs, row.separable_macs) == (462_422_016, 52_283_392)
    assert row.mac_ratio == 1 / row.mac_reduction == Fraction(521, 4608)


def test_a_record_holds_every_time_and_the_environment():
    measurement = Measurement(Time(1, 2), Time(3, 4), Time(5, 6), Time(7, 8))
    row = bench_record(DEEP, measurement, HERE, name="block 1")._asdict()
    assert row["name"] == "block 1"
    assert [
        row[f"{part}_{field}"] for part in PARTS for field in ("time_us", "time_iqr_us")
    ] == list(range(1, 9))
    assert {field: row[field] for field in HERE._fields} == HERE._asdict()


# The verdict


def test_fewer_macs_and_faster():
    assert verdict_sentence(measured(DEEP, 6.8, 1.0)) == "8.84x fewer MACs, 6.8x faster"


def test_slower_is_explained_by_bytes_and_intensity():
    assert verdict_sentence(measured(TEXTBOOK, 1.0, 1.37)) == (
        "7.89x fewer MACs, but 1.37x slower: it moves 14.65 MB in place of 13.45 MB "
        "and does 1.5 FLOP per byte in place of 12.9"
    )


def test_slower_with_less_traffic_is_not_explained_away():
    assert verdict_sentence(measured(DEEP, 1.0, 2.0)) == (
        "8.84x fewer MACs, but 2x slower: bytes and intensity do not explain it, since it moves "
        "2.673 MB in place of 10.24 MB and does 39.1 FLOP per byte in place of 90.3"
    )


def test_more_macs():
    """With one output channel a separable convolution costs more: 1 + 1/9 of the MACs."""
    layer = compare(64, 1, 3, 56)
    assert verdict_sentence(measured(layer, 1.0, 2.0)).startswith("1.11x more MACs, 2x slower: it")
    assert verdict_sentence(measured(layer, 3.0, 2.0)) == "1.11x more MACs, but 1.5x faster"


@pytest.mark.parametrize(
    ("speedup", "said"),
    [
        (1.001, "about as fast"),
        (0.998, "about as fast"),
        (1.01, "1.01x faster"),
        (0.99, "1.01x slower"),
        (123.4, "123x faster"),
        (12345.6, "12,346x faster"),
    ],
)
def test_three_digits_of_the_speedup(speedup, said):
    assert said in verdict_sentence(measured(DEEP, speedup, 1.0))


def test_noise_is_called_noise_and_not_explained():
    row = measured(TEXTBOOK, 100.0, 137.0, iqr=23.0)
    assert row.noisy
    assert verdict_sentence(row) == (
        "7.89x fewer MACs, but 1.37x slower; noisy: the interquartile range is 23% of the median "
        "time (more than 10%), so measure again on a quiet machine"
    )


def test_a_tenth_is_not_yet_noise():
    assert not measured(DEEP, 100.0, 50.0, iqr=10.0).noisy
    assert measured(DEEP, 100.0, 50.0, iqr=10.1).noisy


def test_noise_in_a_part_alone_does_not_touch_the_verdict():
    wide = Time(10.0, 10.0)
    row = bench_record(DEEP, Measurement(Time(9, 0), wide, wide, Time(3, 0)), HERE)
    assert not row.noisy


# The measurement


def test_a_real_measurement_fills_every_field():
    settings = Settings(threads=1, min_run_time=0.002)
    threads = torch.get_num_threads()
    measurement = benchmark(compare(4, 6, 4, 9, stride=2, bias=True, batch_size=2), settings)
    assert all(time.time_us > 0 and time.time_iqr_us >= 0 for time in measurement)
    assert torch.get_num_threads() == threads
    row = bench_record(SMALL, measurement, environment(settings))
    assert None not in row[1:]


def test_median_and_quartiles_are_microseconds_over_all_rounds(timer):
    timer.times = {"standard": [[2e-3], [2e-3], [4e-3], [4e-3]]}
    measurement = benchmark(SMALL, Settings())
    assert measurement.standard == pytest.approx((3000.0, 2000.0))
    assert measurement.separable == pytest.approx((1000.0, 0.0))


def test_a_slow_spell_is_noise_though_it_leaves_few_times(timer):
    timer.times = {"standard": [[1e-3] * 1000, [1e-3] * 1000, [0.5], [0.5]]}
    assert bench_record(SMALL, benchmark(SMALL, Settings()), HERE).noisy


def test_candidates_take_turns_in_alternating_order(timer):
    benchmark(SMALL, Settings())
    assert timer.turns == [*PARTS, *reversed(PARTS)] * 2


def test_the_run_time_is_that_of_all_rounds(timer):
    benchmark(SMALL, Settings(min_run_time=3.0))
    assert [sum(made.asked) for made in timer.made] == [3.0] * 4


def test_modules_are_real_and_ready(timer):
    layer = compare(4, 6, (3, 5), (8, 7), stride=2, bias=True, depth_multiplier=2, batch_size=3)
    benchmark(layer, Settings())
    shapes = [(tuple(made.features.shape), tuple(made.output.shape)) for made in timer.made]
    full, middle, output = (3, 4, 8, 7), (3, 8, 4, 4), (3, 6, 4, 4)
    assert shapes == [(full, output), (full, middle), (middle, output), (full, output)]
    for made in timer.made:
        assert made.inference
        assert not made.module.training
        for parameter in made.module.parameters():
            values = parameter.detach()
            assert 0 < values.abs().max() <= 1  # as torch initialises these sizes
            assert values.unique().numel() == values.numel()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_torch(timer, threads):
    benchmark(SMALL, Settings(threads=threads))
    assert {made.given["num_threads"] for made in timer.made} == {threads}
    assert environment(Settings(threads=threads)).threads == threads


def test_without_threads_torch_uses_its_own_number(timer):
    benchmark(SMALL, Settings())
    assert {made.given["num_threads"] for made in timer.made} == {torch.get_num_threads()}
    assert environment(Settings()).threads == torch.get_num_threads()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_reaches_torch(timer, dtype):
    benchmark(SMALL, Settings(dtype=dtype))
    held = [t for made in timer.made for t in (made.features, *made.module.parameters())]
    assert {tensor.dtype for tensor in held} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_reaches_torch(timer, dims, layout, channels_last):
    benchmark(compare(4, 6, 3, (8,) * dims), Settings(channels_last=channels_last))
    standard = timer.made[0]
    for tensor in (standard.features, standard.module.weight):
        assert tensor.is_contiguous(memory_format=layout) == channels_last


def test_the_device_reaches_torch(timer, monkeypatch):
    """The meta device stands in for one that this machine may lack."""
    monkeypatch.setitem(THE_MODULE._DEVICES, "meta", lambda: True)
    monkeypatch.setattr(THE_MODULE, "_clock", {"meta": "clock of meta"}.get)
    benchmark(SMALL, Settings(device="meta"))
    held = [t for made in timer.made for t in (made.features, *made.module.parameters())]
    assert {tensor.device.type for tensor in held} == {"meta"}
    assert {made.given["timer"] for made in timer.made} == {"clock of meta"}


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_the_clock_waits_for_the_device(monkeypatch, device):
    waited = []
    monkeypatch.setattr(getattr(torch, device), "synchronize", lambda: waited.append(device))
    assert THE_MODULE._clock(device)() > 0
    assert waited == [device]


def test_on_the_cpu_no_other_device_is_waited_for(timer):
    benchmark(SMALL, Settings())
    assert {made.given["timer"] for made in timer.made} == {default_timer}


def test_compile_reaches_torch(timer, monkeypatch):
    compiled = []

    def compile_(module, **options):
        compiled.append((module, options))
        return lambda features: module(features)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "reset", lambda: compiled.append("reset"))
    benchmark(SMALL, Settings(compile=True))
    assert compiled[0] == "reset"
    assert [options for _, options in compiled[1:]] == [{"fullgraph": True, "dynamic": False}] * 4
    assert not any(isinstance(made.module, nn.Module) for made in timer.made)


def test_without_compile_nothing_is_compiled(timer, monkeypatch):
    monkeypatch.delattr(torch, "compile")
    benchmark(SMALL, Settings())


def test_an_interrupt_comes_through(timer, monkeypatch):
    def interrupted(self, min_run_time):
        raise KeyboardInterrupt

    monkeypatch.setattr(timer, "blocked_autorange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmark(SMALL, Settings())
    assert not torch.is_inference_mode_enabled()


# The refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "tpu"}, "device must be cpu, cuda or mps, got 'tpu'"),
        ({"dtype": "int8"}, "dtype must be float32 or bfloat16 or float16, got 'int8'"),
        (
            {"threads": 0},
            "threads must be from 1 to 1024, got 0; "
            "leave it out for as many as torch uses by itself",
        ),
        (
            {"threads": 1025},
            "threads must be from 1 to 1024, got 1025; "
            "leave it out for as many as torch uses by itself",
        ),
        (
            {"min_run_time": 0},
            "min_run_time must be a number of seconds greater than 0, got 0",
        ),
        (
            {"min_run_time": float("nan")},
            "min_run_time must be a number of seconds greater than 0, got nan",
        ),
    ],
)
def test_a_setting_out_of_its_range(given, message):
    with pytest.raises(DscalcError) as refused:
        Settings(**given)
    assert str(refused.value) == message


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_missing_device(monkeypatch, device):
    monkeypatch.setitem(THE_MODULE._DEVICES, "cuda", lambda: False)
    monkeypatch.setitem(THE_MODULE._DEVICES, "mps", lambda: False)
    with pytest.raises(DscalcError) as refused:
        Settings(device=device)
    assert str(refused.value) == (
        f"device {device} is not available to torch {torch.__version__} on this machine; use cpu"
    )


def test_a_dtype_that_the_device_does_not_have(monkeypatch):
    def refuse(*_):
        raise RuntimeError("\"conv\" not implemented for 'Half'\nsee the trace")

    monkeypatch.setattr(THE_MODULE.functional, "conv2d", refuse)
    with pytest.raises(DscalcError) as refused:
        Settings(dtype="float16")
    assert str(refused.value) == (
        "dtype float16 is not supported on cpu (\"conv\" not implemented for 'Half'); use float32"
    )


def test_channels_last_of_a_1d_layer():
    with pytest.raises(DscalcError, match="2-D and 3-D convolutions, got a 1-D one; leave it out"):
        benchmark(compare(4, 6, 3, (8,)), Settings(channels_last=True))


@pytest.mark.parametrize("axes", [0, 4])
def test_a_layer_that_torch_has_no_convolution_for(axes):
    with pytest.raises(DscalcError, match=f"1, 2 or 3 spatial axes, got {axes}"):
        benchmark(compare(4, 6, (1,) * axes, (8,) * axes), Settings())


def test_a_layer_without_its_parts():
    layer = Comparison(Conv(4, 6, 3, 8))
    with pytest.raises(DscalcError, match="must have a depthwise and a pointwise part"):
        benchmark(layer, Settings())
    with pytest.raises(DscalcError, match="must have a depthwise and a pointwise part"):
        bench_record(layer, Measurement(*[Time(1, 0)] * 4), HERE)


def test_what_torch_cannot_run(timer, monkeypatch):
    def refuse(self, number):
        raise RuntimeError("no kernel\nsee the trace")

    monkeypatch.setattr(timer, "timeit", refuse)
    with pytest.raises(DscalcError) as refused:
        benchmark(SMALL, Settings(dtype="bfloat16"))
    assert str(refused.value) == (
        "torch cannot run 4 -> 6 channels, 3x3 kernel, 8x8 map on cpu in bfloat16 (no kernel); "
        "use a smaller layer or float32"
    )


def test_what_torch_cannot_compile(timer, monkeypatch):
    """Older versions name the backend in a line of its own, before the reason."""

    def refuse(features):
        raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: no compiler\n\nhint")

    monkeypatch.setattr(torch, "compile", lambda module, **options: refuse)
    with pytest.raises(DscalcError) as refused:
        benchmark(SMALL, Settings(compile=True))
    assert str(refused.value) == (
        "torch cannot compile 4 -> 6 channels, 3x3 kernel, 8x8 map on cpu in float32 "
        "(InvalidCxxCompiler: no compiler); measure without compile"
    )


# The memory


def test_the_memory_of_a_layer_by_hand():
    """512 -> 512, 3x3 on 14x14; with padding, the depthwise input is 16x16."""
    standard, depthwise, pointwise = 512 * 512 * 9, 512 * 9, 512 * 512
    maps, padded = 512 * 14**2, 512 * 16**2
    weights = standard + 2 * (depthwise + pointwise)
    workspace = padded + standard + maps
    assert bytes_needed(DEEP, Settings()) == 4 * (weights + 4 * maps + workspace)


def test_half_precision_on_the_cpu_may_unroll_the_input():
    """Which takes as many elements as the standard convolution has taps, per output position."""
    whole, half = (bytes_needed(DEEP, Settings(dtype=dtype)) for dtype in ("float32", "float16"))
    assert half == whole // 2 + 2 * 512 * 9 * 14**2


def test_an_uneven_padding_is_a_copy():
    even, uneven = compare(8, 8, 3, 100), compare(8, 8, 4, 100)
    weights = 2 * 8 * 8 * (4**2 - 3**2) + 2 * 8 * (4**2 - 3**2)
    padding = 2 * 8 * 103**2 - 8 * 102**2
    assert (
        bytes_needed(uneven, Settings()) - bytes_needed(even, Settings()) == (weights + padding) * 4
    )


def test_a_layer_that_does_not_fit_is_refused_with_the_numbers(timer, monkeypatch):
    monkeypatch.setattr(THE_MODULE, "_free_bytes", lambda device: 4_000_000)
    with pytest.raises(DscalcError) as refused:
        benchmark(DEEP, Settings())
    assert str(refused.value) == (
        "512 -> 512 channels, 3x3 kernel, 14x14 map needs about 23.54 MB to be measured, and cpu "
        "has 4 MB free; use a smaller layer or batch"
    )
    assert not timer.made


def test_a_layer_beyond_any_machine_is_refused_before_anything_is_allocated():
    with pytest.raises(DscalcError, match="needs about 24,080,016,000 TB to be measured"):
        benchmark(compare(10**9, 10**9, 3, 10**6), Settings())


def test_where_the_system_does_not_tell_torch_is_left_to_refuse(timer, monkeypatch):
    monkeypatch.setattr(THE_MODULE, "_free_bytes", lambda device: None)
    benchmark(SMALL, Settings())
    assert timer.turns


def test_free_memory_is_the_least_of_the_machine_and_its_groups(monkeypatch):
    monkeypatch.setattr(THE_MODULE, "_machine_bytes", lambda: iter([1000]))
    monkeypatch.setattr(THE_MODULE, "_cgroup_bytes", lambda: iter([300, 2000]))
    assert THE_MODULE._free_bytes("cpu") == 300


def test_free_memory_of_a_gpu_is_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (123, 456))
    assert THE_MODULE._free_bytes("cuda") == 123


def test_the_memory_that_linux_has_available(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n")
    assert list(THE_MODULE._machine_bytes(meminfo)) == [5000 * 1024]


def test_without_meminfo_it_is_the_memory_installed(tmp_path):
    assert all(free > 0 for free in THE_MODULE._machine_bytes(tmp_path / "missing"))


def write_group(folder, limit, usage, names):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text("active_file 7\ninactive_file 50\n")


def test_the_limits_of_control_groups(tmp_path):
    """Every group around the process counts, and its cache of files can be had again."""
    mount, membership = tmp_path / "cgroup", tmp_path / "membership"
    two = ("memory.max", "memory.current")
    write_group(mount / "outer/inner", "max", 10, two)
    write_group(mount / "outer", 1000, 400, two)
    membership.write_text("0::/outer/inner\n")
    assert list(THE_MODULE._cgroup_bytes(membership, mount)) == [1000 - 400 + 50]

    one = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    write_group(mount / "memory", 500, 100, one)
    membership.write_text("9:cpu:/\n4:memory:/not/here\n")
    assert list(THE_MODULE._cgroup_bytes(membership, mount)) == [500 - 100 + 50]


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert not list(THE_MODULE._cgroup_bytes(tmp_path / "missing", tmp_path))


# The environment


def test_the_environment_says_where_and_how():
    given = Settings(dtype="bfloat16", threads=2, channels_last=True)
    here = environment(given)
    assert here.device_name
    assert here == ("cpu", here.device_name, torch.__version__, 2, "bfloat16", True, False)


def test_a_gpu_has_a_name(monkeypatch):
    monkeypatch.setitem(THE_MODULE._DEVICES, "cuda", lambda: True)
    monkeypatch.setattr(THE_MODULE.functional, "conv2d", lambda *_: None)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert environment(Settings(device="cuda")).device_name == "Some GPU"


def test_a_processor_that_linux_does_not_name(monkeypatch):
    monkeypatch.setattr(THE_MODULE.Path, "read_text", lambda self: "BogoMIPS: 50\n")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert environment(Settings()).device_name == "aarch64"
