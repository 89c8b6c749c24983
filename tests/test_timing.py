"""Measured: what reaches torch, what is said of given times, and the refusals. Never a time."""

import platform
from timeit import default_timer
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dscalc import Conv, DscalcError
from dscalc.core.blocks import SEPARABLE, Block
from dscalc.core.describe import described
from dscalc.core.measurement import Environment, Measurement, Time
from dscalc.core.row import layer_row
from dscalc.pytorch import timing
from dscalc.pytorch.timing import Settings, bytes_needed, environment, measured
from dscalc.record.fields import find
from dscalc.report.sentences import measured as verdict

HERE = Environment("cpu", "Some CPU", "2.13.0", 2, "float32", False, False)
PARTS = ["standard", "depthwise", "pointwise", "separable"]


def layer(*sizes, block=SEPARABLE, **options):
    conv = Conv(*sizes, **options)
    return layer_row(conv, block, described(conv, block))


TEXTBOOK = layer(3, 64, 3, 224)
DEEP = layer(512, 512, 3, 14)
SMALL = layer(4, 6, 3, 8)


def taken(row, as_is, rewritten, iqr=0.0, step_iqr=0.0):
    """The row, and that its modules took these microseconds."""
    steps = dict.fromkeys(("depthwise", "pointwise"), Time(10.0, step_iqr))
    return row._replace(measured=Measurement(Time(as_is, iqr), Time(rewritten, 0.0), steps, HERE))


def read(row, name):
    return find(name, "bench", SEPARABLE).read(row)


class FakeTimer:
    """Runs its statement once to warm up, and gives invented times from then on."""

    made: list["FakeTimer"]
    turns: list[str]
    times: dict[str, list[list[float]]]

    def __init__(self, stmt, **given):
        self.stmt, self.given = stmt, given
        self.part = PARTS[len(self.made)]
        self.asked = []
        self.module, self.features = given["globals"]["module"], given["globals"]["features"]
        self.made.append(self)

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
    for name, empty in (("made", []), ("turns", []), ("times", {})):
        monkeypatch.setattr(FakeTimer, name, empty, raising=False)
    monkeypatch.setattr(timing, "Timer", FakeTimer)
    return FakeTimer


def tensors(timer):
    return [t for made in timer.made for t in (made.features, *made.module.parameters())]


# What is said of given times


def test_every_time_and_the_environment_have_their_fields():
    steps = {"depthwise": Time(3, 4), "pointwise": Time(5, 6)}
    row = DEEP._replace(measured=Measurement(Time(1, 2), Time(7, 8), steps, HERE))
    names = [f"{part}_{time}" for part in PARTS for time in ("time_us", "time_iqr_us")]
    assert [read(row, name) for name in names] == list(range(1, 9))
    assert {name: read(row, name) for name in HERE._asdict()} == HERE._asdict()


@pytest.mark.parametrize(
    ("row", "as_is", "rewritten", "said"),
    [
        (DEEP, 6.8, 1.0, "8.84x fewer MACs, 6.8x faster"),
        (DEEP, 1.001, 1.0, "8.84x fewer MACs, about as fast"),
        (DEEP, 0.998, 1.0, "8.84x fewer MACs, about as fast"),
        (DEEP, 1.01, 1.0, "8.84x fewer MACs, 1.01x faster"),
        (DEEP, 123.4, 1.0, "8.84x fewer MACs, 123x faster"),
        (DEEP, 12345.6, 1.0, "8.84x fewer MACs, 12,346x faster"),
        (
            TEXTBOOK, 1.0, 1.37,
            "7.89x fewer MACs, but 1.37x slower: it moves 14.65 MB in place of 13.45 MB "
            "and does 1.5 FLOP per byte in place of 12.9",
        ),
        (  # less traffic: not explained away
            DEEP, 1.0, 2.0,
            "8.84x fewer MACs, but 2x slower: bytes and intensity do not explain it, since it "
            "moves 2.673 MB in place of 10.24 MB and does 39.1 FLOP per byte in place of 90.3",
        ),
        (layer(64, 1, 3, 56), 3.0, 2.0, "1.11x more MACs, but 1.5x faster"),
    ],
)  # fmt: skip
def test_the_verdict_of_given_times(row, as_is, rewritten, said):
    assert verdict(taken(row, as_is, rewritten)) == said


def test_slower_is_said_with_three_digits_and_more_macs_explain_it():
    assert "but 1.01x slower: " in verdict(taken(DEEP, 0.99, 1.0))
    # With one output channel a separable convolution costs more: 1 + 1/9 of the MACs.
    more = verdict(taken(layer(64, 1, 3, 56), 1.0, 2.0))
    assert more.startswith("1.11x more MACs, 2x slower: it moves")


def test_noise_is_called_noise_and_not_explained():
    row = taken(TEXTBOOK, 100.0, 137.0, iqr=23.0)
    assert read(row, "noisy")
    assert verdict(row) == (
        "7.89x fewer MACs, but 1.37x slower; noisy: the interquartile range is 23% of the median "
        "time (more than 10%), so measure again on a quiet machine"
    )


def test_a_tenth_of_either_time_is_not_yet_noise_and_steps_do_not_count():
    assert not read(taken(DEEP, 100.0, 50.0, iqr=10.0, step_iqr=10.0), "noisy")
    assert read(taken(DEEP, 100.0, 50.0, iqr=10.1), "noisy")


# The measurement


def test_a_real_measurement_fills_every_field():
    threads = torch.get_num_threads()
    row = layer(4, 6, 4, 9, stride=2, bias=True, batch_size=2)
    found = measured(row, Settings(threads=1, min_run_time=0.002))
    times = [found.measured.as_is, *found.measured.steps.values(), found.measured.rewritten]
    assert len(times) == 4
    assert all(time.time_us > 0 and time.time_iqr_us >= 0 for time in times)
    assert found._replace(measured=None) == row
    assert torch.get_num_threads() == threads
    assert found.measured.environment == environment(Settings(threads=1))


def test_median_and_quartiles_are_microseconds_over_all_rounds(timer):
    timer.times = {"standard": [[2e-3], [2e-3], [4e-3], [4e-3]]}
    found = measured(SMALL, Settings()).measured
    assert (found.as_is.time_us, found.as_is.time_iqr_us) == pytest.approx((3000.0, 2000.0))
    assert found.rewritten.time_us == pytest.approx(1000.0)
    assert found.rewritten.time_iqr_us == pytest.approx(0.0)


def test_a_slow_spell_is_noise_though_it_leaves_few_times(timer):
    timer.times = {"standard": [[1e-3] * 1000, [1e-3] * 1000, [0.5], [0.5]]}
    assert measured(SMALL, Settings()).measured.noisy


def test_candidates_take_turns_in_alternating_order_over_the_whole_run_time(timer):
    measured(SMALL, Settings(min_run_time=3.0))
    assert timer.turns == [*PARTS, *reversed(PARTS)] * 2
    assert [sum(made.asked) for made in timer.made] == [3.0] * 4


def test_modules_are_real_and_ready(timer):
    block = Block("separable", (2,))
    measured(layer(4, 6, (3, 5), (8, 7), block=block, stride=2, bias=True, batch_size=3),
             Settings())  # fmt: skip
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


@pytest.mark.parametrize("threads", [1, 3, None])
def test_threads_reach_torch_which_else_uses_its_own_number(timer, threads):
    found = measured(SMALL, Settings(threads=threads))
    expected = threads or torch.get_num_threads()
    assert {made.given["num_threads"] for made in timer.made} == {expected}
    assert found.measured.environment.threads == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_reaches_torch(timer, dtype):
    measured(SMALL, Settings(dtype=dtype))
    assert {tensor.dtype for tensor in tensors(timer)} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_reaches_torch(timer, dims, layout, channels_last):
    measured(layer(4, 6, 3, (8,) * dims), Settings(channels_last=channels_last))
    standard = timer.made[0]
    for tensor in (standard.features, *standard.module.parameters()):
        assert tensor.is_contiguous(memory_format=layout) == channels_last


def test_the_device_reaches_torch(timer, monkeypatch):
    """The meta device stands in for one that this machine may lack."""
    monkeypatch.setitem(timing._DEVICES, "meta", lambda: True)
    monkeypatch.setattr(timing, "_clock", {"meta": "clock of meta"}.get)
    measured(SMALL, Settings(device="meta"))
    assert {tensor.device.type for tensor in tensors(timer)} == {"meta"}
    assert {made.given["timer"] for made in timer.made} == {"clock of meta"}


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_the_clock_waits_for_the_device(monkeypatch, device):
    waited = []
    monkeypatch.setattr(getattr(torch, device), "synchronize", lambda: waited.append(device))
    assert timing._clock(device)() > 0
    assert waited == [device]


def test_on_the_cpu_no_other_device_is_waited_for_and_nothing_is_compiled(timer, monkeypatch):
    monkeypatch.delattr(torch, "compile")
    measured(SMALL, Settings())
    assert {made.given["timer"] for made in timer.made} == {default_timer}


def test_compile_reaches_torch(timer, monkeypatch):
    compiled = []

    def compile_(module, **options):
        compiled.append(options)
        return lambda features: module(features)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "reset", lambda: compiled.append("reset"))
    measured(SMALL, Settings(compile=True))
    assert compiled == ["reset", *[{"fullgraph": True, "dynamic": False}] * 4]
    assert not any(isinstance(made.module, nn.Module) for made in timer.made)


def test_an_interrupt_comes_through(timer, monkeypatch):
    def interrupted(self, min_run_time):
        raise KeyboardInterrupt

    monkeypatch.setattr(timer, "blocked_autorange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(SMALL, Settings())
    assert not torch.is_inference_mode_enabled()


# The refusals

NOT_THERE = f"is not available to torch {torch.__version__} on this machine; use cpu"
ITS_OWN = "leave it out for as many as torch uses by itself"
SECONDS = "a number of seconds greater than 0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "tpu"}, "device must be cpu, cuda or mps, got 'tpu'"),
        ({"dtype": "int8"}, "dtype must be float32 or bfloat16 or float16, got 'int8'"),
        ({"threads": 0}, f"threads must be from 1 to 1024, got 0; {ITS_OWN}"),
        ({"threads": 1025}, f"threads must be from 1 to 1024, got 1025; {ITS_OWN}"),
        ({"min_run_time": 0}, f"min_run_time must be {SECONDS}, got 0"),
        ({"min_run_time": float("nan")}, f"min_run_time must be {SECONDS}, got nan"),
        ({"device": "cuda"}, f"device cuda {NOT_THERE}"),
        ({"device": "mps"}, f"device mps {NOT_THERE}"),
    ],
)
def test_a_setting_out_of_its_range(given, message, monkeypatch):
    for device in ("cuda", "mps"):
        monkeypatch.setitem(timing._DEVICES, device, lambda: False)
    with pytest.raises(DscalcError) as refused:
        Settings(**given)
    assert str(refused.value) == message


def raising(reason):
    def fail(*_):
        raise RuntimeError(reason)

    return fail


def test_a_dtype_that_the_device_does_not_have(monkeypatch):
    no_kernel = raising("\"conv\" not implemented for 'Half'\nsee the trace")
    monkeypatch.setattr(timing.functional, "conv2d", no_kernel)
    with pytest.raises(DscalcError) as refused:
        Settings(dtype="float16")
    assert str(refused.value) == (
        "dtype float16 is not supported on cpu (\"conv\" not implemented for 'Half'); use float32"
    )


def test_channels_last_of_a_1d_layer():
    with pytest.raises(DscalcError, match="2-D and 3-D convolutions, got a 1-D one; leave it out"):
        measured(layer(4, 6, 3, (8,)), Settings(channels_last=True))


@pytest.mark.parametrize("axes", [0, 4])
def test_a_layer_that_torch_has_no_convolution_for(axes):
    with pytest.raises(DscalcError, match=f"1, 2 or 3 spatial axes, got {axes}"):
        measured(layer(4, 6, (1,) * axes, (8,) * axes), Settings())


def test_what_torch_cannot_run(timer, monkeypatch):
    monkeypatch.setattr(timer, "timeit", raising("no kernel\nsee the trace"))
    with pytest.raises(DscalcError) as refused:
        measured(SMALL, Settings(dtype="bfloat16"))
    assert str(refused.value) == (
        "torch cannot run 4 -> 6 channels, 3x3 kernel, 8x8 map, padding same on cpu in bfloat16 "
        "(no kernel); "
        "use a smaller layer or float32"
    )


def test_what_torch_cannot_compile(timer, monkeypatch):
    """Older versions name the backend in a line of its own, before the reason."""
    refuse = raising("backend='inductor' raised:\nInvalidCxxCompiler: no compiler\n\nhint")
    monkeypatch.setattr(torch, "compile", lambda module, **options: refuse)
    with pytest.raises(DscalcError) as refused:
        measured(SMALL, Settings(compile=True))
    assert str(refused.value) == (
        "torch cannot compile 4 -> 6 channels, 3x3 kernel, 8x8 map, padding same on cpu in float32 "
        "(InvalidCxxCompiler: no compiler); measure without compile"
    )


# The memory


def test_the_memory_of_a_layer_by_hand():
    """512 -> 512, 3x3 on 14x14: what must move, on both sides, three times over."""
    moved = (2 * 512 * 14**2 + 512 * 512 * 9) + (4 * 512 * 14**2 + 512 * 9 + 512 * 512)
    assert bytes_needed(DEEP, Settings()) == 3 * 4 * moved
    # Half precision on the CPU may unroll the input, an element for each tap.
    assert bytes_needed(DEEP, Settings(dtype="float16")) == (3 + 9) * 2 * moved


def test_a_layer_that_does_not_fit_is_refused_with_the_numbers(timer, monkeypatch):
    monkeypatch.setattr(timing, "_free_bytes", lambda device: 4_000_000)
    with pytest.raises(DscalcError) as refused:
        measured(DEEP, Settings())
    assert str(refused.value) == (
        "512 -> 512 channels, 3x3 kernel, 14x14 map, padding same needs about 38.74 MB to be "
        "measured, and cpu has 4 MB free; use a smaller layer or batch"
    )
    assert not timer.made


def test_a_layer_beyond_any_machine_is_refused_before_anything_is_allocated():
    with pytest.raises(DscalcError, match="needs about 72,120,000,000 TB to be measured"):
        measured(layer(10**9, 10**9, 3, 10**6), Settings())


def test_where_the_system_does_not_tell_torch_is_left_to_refuse(timer, monkeypatch):
    monkeypatch.setattr(timing, "_free_bytes", lambda device: None)
    measured(SMALL, Settings())
    assert timer.turns


def test_free_memory_is_what_linux_has_available_and_of_a_gpu_its_own(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n")
    assert timing._free_bytes("cpu", meminfo) == 5000 * 1024
    assert timing._free_bytes("cpu", tmp_path / "missing") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (123, 456))
    assert timing._free_bytes("cuda") == 123


# The environment


def test_the_environment_says_where_and_how():
    here = environment(Settings(dtype="bfloat16", threads=2, channels_last=True))
    assert here.device_name
    expected = ("cpu", here.device_name, torch.__version__, 2, "bfloat16", True, False)
    assert tuple(here._asdict().values()) == expected


def test_a_gpu_has_a_name(monkeypatch):
    monkeypatch.setitem(timing._DEVICES, "cuda", lambda: True)
    monkeypatch.setattr(timing.functional, "conv2d", lambda *_: None)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert environment(Settings(device="cuda")).device_name == "Some GPU"


def test_a_processor_that_linux_does_not_name(monkeypatch):
    monkeypatch.setattr(timing.Path, "read_text", lambda self: "BogoMIPS: 50\n")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert environment(Settings()).device_name == "aarch64"
