"""Measured: what reaches torch, what is said of given times, and the refusals. Never a time."""

import ctypes
import platform
from types import SimpleNamespace

import pytest
import torch
from times import HERE, took
from torch import nn
from vocabulary import find

from dscalc import Conv, DscalcError
from dscalc.bench import timing
from dscalc.bench.measurement import Limits, Turn
from dscalc.bench.timing import Settings, bytes_needed, environment, take_turns, time_rows
from dscalc.bench.view import measurement_sentences as sentences
from dscalc.core.blocks import SEPARABLE, STANDARD, Block
from dscalc.core.describe import described
from dscalc.core.row import layer_row

PARTS = ["as it is", "depthwise", "pointwise", "separable"]


def layer(*sizes, block=SEPARABLE, **options):
    conv = Conv(*sizes, **options)
    return layer_row(conv, block, described(conv, block))


TEXTBOOK = layer(3, 64, 3, 224)
DEEP = layer(512, 512, 3, 14)
SMALL = layer(4, 6, 3, 8)


def read(row, name, block=SEPARABLE):
    return find(name, "bench", block).read(row)


@pytest.fixture
def runs(monkeypatch):
    """In place of the clock: each candidate runs once; keeps what ran, and for which settings."""
    kept = SimpleNamespace(candidates={}, outputs={}, settings=None, inference=None)
    real = timing._build_timed

    def candidates(rows, settings):
        kept.settings, kept.candidates = settings, real(rows, settings)
        kept.inference, kept.threads = torch.is_inference_mode_enabled(), torch.get_num_threads()
        return kept.candidates

    def turn(run, settings, aim):
        kept.outputs.setdefault(run, run())
        return Turn(1.0, 1000, 0)

    monkeypatch.setattr(timing, "_build_timed", candidates)
    monkeypatch.setattr(timing, "_turn", turn)
    monkeypatch.setattr(timing, "_limits", lambda row, settings: Limits(100.0, 10.0))
    return kept


def tensors(runs):
    return [
        tensor
        for candidate in runs.candidates.values()
        for tensor in (candidate.features, *candidate.module.parameters())
    ]


# What is said of given times


def test_every_time_and_the_environment_have_their_fields():
    row = took(DEEP, 8.0, 2.0, iqr=3.0, faults=4.0)
    names = [f"{part}_{time}" for part in ("standard", "depthwise", "separable")
             for time in ("time_us", "time_iqr_us", "page_faults")]  # fmt: skip
    assert [read(row, name) for name in names] == [8, 3, 4, 10, 0, 0, 2, 0, 0]
    assert {name: read(row, name) for name in HERE._asdict()} == HERE._asdict()
    fields = ("speedup", "speedup_low", "speedup_high", "verdict")
    assert [read(row, name) for name in fields] == [4.0, 4 / 1.01, 4 * 1.01, "faster"]
    assert [read(took(DEEP, 1, 1), name) for name in fields[::3]] == [None, "not decided"]
    assert (read(row, "peak_gflops_per_s"), read(row, "bandwidth_gb_per_s")) == (100.0, 10.0)


@pytest.mark.parametrize(
    ("row", "as_is", "rewritten", "said"),
    [
        (DEEP, 6.8, 1.0, "8.84x fewer MACs, 6.8x faster (6.7 to 6.9)"),
        (DEEP, 12345.6, 1.0, "8.84x fewer MACs, 12,000x faster"),
        (TEXTBOOK, 1.0, 1.37, "7.89x fewer MACs, but 1.4x slower"),
        (DEEP, 1.01, 1.0, "8.84x fewer MACs, not decided"),
        (layer(64, 1, 3, 56), 3.0, 2.0, "1.11x more MACs, but 1.5x faster"),
        (layer(64, 1, 3, 56), 1.0, 2.0, "1.11x more MACs, 2x slower"),
    ],
)
def test_the_verdict_of_given_times(row, as_is, rewritten, said):
    assert next(sentences(took(row, as_is, rewritten))) == said


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (1.01, "0.99x to 1.01x the time: too close: another run may say otherwise"),
        (1.5, "0.667x to 1.5x the time: measure longer with a larger min_run_time"),
    ],
)
def test_what_is_not_decided_has_a_range_and_no_factor(spread, said):
    _, undecided = sentences(took(DEEP, 1.0, 1.0, spread=spread))
    assert undecided == f"standard takes {said}"


# At 100 GFLOP/s and 10 GB/s, 14,652,268 bytes take 1,465.2 us, and 21,977,088 FLOPs 219.8 us.
MOVES = (
    "separable moves 14.65 MB instead of 13.45 MB and does 1.5 FLOP per byte instead of 12.9; at "
    "the 100 GFLOP/s and 10 GB/s measured here it takes at least 1,465.2 us, so it is at most"
)


def test_times_near_what_the_machine_can_do_are_consistent_with_that():
    _, limited = sentences(took(TEXTBOOK, 2000.0, 2740.0))
    fits = "consistent with a limit set by memory"
    assert limited == f"{fits}: {MOVES} 1.36x faster on this machine"
    _, limited = sentences(took(TEXTBOOK, 20_000.0, 3000.0))
    assert limited.startswith("not explained by a limit set by memory: ")
    # 104,566,784 FLOPs take 1,045.7 us, and 2,672,640 bytes 267.3 us.
    _, limited = sentences(took(DEEP, 9000.0, 2000.0))
    assert limited.startswith("consistent with a limit set by arithmetic: ")
    assert limited.endswith("it takes at least 1,045.7 us, so it is at most 8.61x faster on "
                            "this machine")  # fmt: skip
    assert read(took(DEEP, 9000.0, 2000.0), "speedup_limit") == pytest.approx(9000 / 1045.66784)


def test_a_limit_that_was_measured_on_a_busier_machine_is_not_told():
    assert len(list(sentences(took(TEXTBOOK, 2000.0, 1400.0)))) == 1


def test_forward_and_backward_are_named_and_cost_three_passes():
    both = took(TEXTBOOK, 20_000.0, 5000.0, here=HERE._replace(backward=True))
    verdict, limited = sentences(both)
    assert verdict.endswith("4x faster forward and backward")
    assert "it takes at least 4,395.7 us" in limited
    forward = took(TEXTBOOK, 20_000.0, 5000.0)
    rate = "separable_gflops_per_s"
    assert read(both, rate) == pytest.approx(3 * read(forward, rate))


def test_noise_and_page_faults_are_told():
    row = took(TEXTBOOK, 1000.0, 1370.0, iqr=230.0, faults=6241.0)
    assert read(row, "noisy")
    assert list(sentences(row))[1:] == [
        "each run of standard makes 6,241 page faults: part of its time goes to getting memory "
        "from the system",
        "noisy: the interquartile range is 23% of the median time (more than 10%); measure again "
        "on a quiet machine",
    ]


# The measurement


def test_a_real_measurement_fills_every_field():
    threads = torch.get_num_threads()
    row = layer(4, 6, 4, 9, stride=2, bias=True, batch_size=2)
    [found] = time_rows([row], Settings(threads=1, min_run_time=0.002))
    times = [found.extra.as_is, *found.extra.steps.values(), found.extra.rewritten]
    assert [*found.extra.steps] == ["depthwise", "pointwise"]
    assert all(time.time_us > 0 and time.time_iqr_us >= 0 for time in times)
    assert all(limit > 0 for limit in found.extra.limits)
    assert found._replace(extra=None) == row
    assert torch.get_num_threads() == threads
    assert found.extra.environment == environment(Settings(threads=1))


def test_forward_and_backward_are_run_together():
    [found] = time_rows([layer(4, 6, 3, 9)], Settings(backward=True, min_run_time=0.002))
    assert found.extra.environment.backward
    module = nn.Conv1d(2, 3, 1)
    features = torch.ones(1, 2, 5, requires_grad=True)
    candidate = timing.Timed(module, module, features)
    gradients = timing._run(candidate, Settings(backward=True))()
    wanted = [features, *module.parameters()]
    assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in wanted]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_a_run_finds_the_memory_of_the_one_before():
    """A map of 12.8 MB has 3,136 pages, which malloc would give back to the system as it comes."""
    [found] = time_rows([TEXTBOOK], Settings(threads=1, min_run_time=0.05))
    assert found.extra.as_is.page_faults < 10
    assert found.extra.rewritten.page_faults < 10


@pytest.mark.skipif(timing.resource is None, reason="needs Unix")
@pytest.mark.parametrize(("threads", "disturbed"), [(1, False), (2, True)])
def test_threads_that_wait_for_each_other_are_disturbed_by_who_takes_the_cpu(
    threads, disturbed, monkeypatch
):
    usage = iter([(100, 7), (130, 8)])
    monkeypatch.setattr(timing, "_resource_usage", lambda: next(usage))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    turn = timing._turn(lambda: None, Settings(), 1e-9)
    assert (turn.faults, turn.disturbed) == (30, disturbed)


class Clock:
    """Turns of given microseconds, over and over; keeps whose turn it was."""

    def __init__(self, **microseconds):
        self.order = []
        self.timed = {
            part.replace("_", " "): lambda part=part, given=given: self.turn(part, given)
            for part, given in microseconds.items()
        }

    def turn(self, part, given):
        self.order.append(part)
        return Turn(given[self.order.count(part) % len(given)] / 1e6, 1)


def test_every_round_has_a_turn_of_each_in_random_order():
    clock = Clock(as_it_is=[1000], depthwise=[1000], separable=[500])
    turns = take_turns(clock.timed, ["separable"], 0.02)
    rounds = list(zip(*[iter(clock.order)] * 3, strict=True))
    assert {part: len(taken) for part, taken in turns.items()} == dict.fromkeys(
        clock.timed, len(rounds)
    )
    assert all(len(set(order)) == 3 for order in rounds)
    assert len(set(rounds)) > 3
    assert [turn.time_us for turn in turns["separable"]] == pytest.approx([500] * len(rounds))


def test_it_goes_on_until_all_are_decided_or_the_time_is_up():
    clock = Clock(as_it_is=[1000], conv=[1000], fast=[500], close=[1000, 1001], open=[950, 1100])
    shares = []
    turns = {part: len(taken) for part, taken in take_turns(
        clock.timed, ["fast", "close", "open"], 0.05, shares.append).items()}  # fmt: skip
    # A turn and the run before it take 2 ms, so that 50 ms have 25 to 28; the fast one, the step
    # and the one that is too close then drop out, and the open one has its three times.
    assert turns["fast"] == turns["conv"] == turns["close"] == 28
    assert turns["open"] == turns["as it is"] == 28 + 25 + 25
    assert shares == sorted(shares)
    assert (shares[0], shares[28]) == (0, 1 / 3)
    assert 0.98 < shares[-1] < 1


def test_all_turns_are_as_long_as_the_slowest_run():
    aims = []

    def timed(us):
        return lambda aim: aims.append(aim) or Turn(us / 1e6, 1)

    for turn in timing.alike_long({"a": timed(300), "b": timed(9000)}, Settings()).values():
        turn()
    assert aims[-2:] == [0.009, 0.009]
    [turn] = timing.alike_long({"a": timed(300)}, Settings(min_run_time=0.1)).values()
    turn()
    assert aims[-1] == 0.001


@pytest.mark.parametrize(("backward", "passes"), [(False, 1), (True, 3)])
@pytest.mark.parametrize("block", [SEPARABLE, Block.parse("fused")], ids=str)
def test_nothing_is_faster_than_the_peak(backward, passes, block, runs):
    """Each turn is a millisecond a run, and the matrix product would be of 100 GFLOP/s."""
    row = layer(256, 128, 3, 14, block=block)
    [found] = time_rows([row], Settings(backward=backward))
    macs = [row.as_is.cost.macs, row.replacement.cost.macs]
    assert found.extra.limits == (2 * max(macs) * passes / 1000 / 1e3, 10.0)
    [small] = time_rows([SMALL], Settings(backward=backward))
    assert small.extra.limits == (100.0, 10.0)


def test_several_blocks_share_the_layer_as_it_is_and_have_no_steps(runs):
    blocks = [Block.parse(name) for name in ("separable", "separable:2", "grouped:2")]
    rows = [layer(4, 6, 3, 8, block=block) for block in blocks]
    found = time_rows(rows, Settings())
    assert [*runs.candidates] == ["as it is", "separable", "separable:2", "grouped:2"]
    assert [row.block for row in found] == blocks
    assert not any(row.extra.steps for row in found)
    assert read(found[0], "time_us", STANDARD) == 1000.0


def test_modules_are_real_and_ready(runs):
    block = Block("separable", (2,))
    time_rows([layer(4, 6, (3, 5), (8, 7), block=block, stride=2, bias=True, batch_size=3)],
             Settings())  # fmt: skip
    outputs = [tuple(output.shape) for output in runs.outputs.values()]
    inputs = [tuple(candidate.features.shape) for candidate in runs.candidates.values()]
    full, middle, output = (3, 4, 8, 7), (3, 8, 4, 4), (3, 6, 4, 4)
    assert inputs == [full, full, middle, full]
    assert outputs == [output, middle, output, output]
    assert runs.inference
    for candidate in runs.candidates.values():
        assert not candidate.module.training
        for parameter in candidate.module.parameters():
            values = parameter.detach()
            assert 0 < values.abs().max() <= 1  # as torch initialises these sizes
            assert values.unique().numel() == values.numel()


@pytest.mark.parametrize("threads", [1, 3, None])
def test_threads_reach_torch_which_else_uses_its_own_number(runs, threads):
    before = torch.get_num_threads()
    [found] = time_rows([SMALL], Settings(threads=threads))
    assert runs.threads == found.extra.environment.threads == (threads or before)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_reaches_torch(runs, dtype):
    time_rows([SMALL], Settings(dtype=dtype))
    assert {tensor.dtype for tensor in tensors(runs)} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_reaches_torch(runs, dims, layout, channels_last):
    time_rows([layer(4, 6, 3, (8,) * dims)], Settings(channels_last=channels_last))
    standard = runs.candidates["as it is"]
    for tensor in (standard.features, *standard.module.parameters()):
        assert tensor.is_contiguous(memory_format=layout) == channels_last


def test_the_device_reaches_torch(runs, monkeypatch):
    """The meta device stands in for one that this machine may lack."""
    monkeypatch.setitem(timing._DEVICES, "meta", lambda: True)
    time_rows([SMALL], Settings(device="meta"))
    assert {tensor.device.type for tensor in tensors(runs)} == {"meta"}


class Queue:
    """A device that takes 2 ms a run and is asked by events, as torch.cuda is."""

    def __init__(self, monkeypatch):
        self.done = self.waited = 0
        monkeypatch.setattr(torch.cuda, "Event", lambda *, enable_timing: Queue.Event(self))

    def run(self):
        self.done += 1

    class Event:
        def __init__(self, queue):
            self.queue = queue

        def record(self):
            self.at = self.queue.done

        def synchronize(self):
            self.queue.waited += 1

        def elapsed_time(self, end):
            assert self.queue.waited  # until then it is not known
            return 2.0 * (end.at - self.at)


def test_cuda_is_timed_by_its_own_events_and_runs_twice_as_often_until_it_takes_long_enough(
    monkeypatch,
):
    queue = Queue(monkeypatch)
    turn = timing._turn(queue.run, SimpleNamespace(device="cuda"), 0.007)
    assert turn == (0.008, 4, None, False)
    assert queue.done == 1 + 1 + 2 + 4
    assert queue.waited == 3


def test_mps_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    seconds, runs = timing._on_mps(lambda: None, 1e-9)
    assert (seconds > 0, runs, waited) == (True, 1, ["mps", "mps"])


def test_compile_reaches_torch(runs, monkeypatch):
    compiled = []

    def compile_(module, **options):
        compiled.append(options)
        return lambda features: module(features)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "reset", lambda: compiled.append("reset"))
    time_rows([SMALL], Settings(compile=True))
    assert compiled == ["reset", *[{"fullgraph": True, "dynamic": False}] * 4]
    assert not any(isinstance(made.call, nn.Module) for made in runs.candidates.values())


def test_an_interrupt_comes_through_and_leaves_nothing(runs, monkeypatch):
    def interrupted(run, settings, aim):
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    monkeypatch.setattr(timing, "_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        time_rows([SMALL], Settings(threads=3))
    assert not torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before


# The refusals

NOT_THERE = f"is not available to torch {torch.__version__} on this machine; use cpu"
ITS_OWN = "omit it to use as many as torch does"
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
    with pytest.raises(DscalcError, match="2-D and 3-D convolutions, got a 1-D one; omit it"):
        time_rows([layer(4, 6, 3, (8,))], Settings(channels_last=True))


@pytest.mark.parametrize("axes", [0, 4])
def test_a_layer_that_torch_has_no_convolution_for(axes):
    with pytest.raises(DscalcError, match=f"1, 2 or 3 spatial axes, got {axes}"):
        time_rows([layer(4, 6, (1,) * axes, (8,) * axes)], Settings())


def test_what_torch_cannot_run(runs, monkeypatch):
    monkeypatch.setattr(timing, "_turn", raising("no kernel\nsee the trace"))
    with pytest.raises(DscalcError) as refused:
        time_rows([SMALL], Settings(dtype="bfloat16"))
    assert str(refused.value) == (
        "torch cannot run 4 -> 6 channels, 3x3 kernel, 8x8 map, padding same on cpu in bfloat16 "
        "(no kernel); "
        "use a smaller layer or float32"
    )


def test_what_torch_cannot_compile(runs, monkeypatch):
    """Older versions name the backend in a line of its own, before the reason."""
    refuse = raising("backend='inductor' raised:\nInvalidCxxCompiler: no compiler\n\nhint")
    monkeypatch.setattr(torch, "compile", lambda module, **options: refuse)
    with pytest.raises(DscalcError) as refused:
        time_rows([SMALL], Settings(compile=True))
    assert str(refused.value) == (
        "torch cannot compile 4 -> 6 channels, 3x3 kernel, 8x8 map, padding same on cpu in float32 "
        "(InvalidCxxCompiler: no compiler); measure without compile"
    )


# The memory


def test_the_memory_of_a_layer_by_hand():
    """512 -> 512, 3x3 on 14x14: what must move, on both sides, three times over."""
    moved = (2 * 512 * 14**2 + 512 * 512 * 9) + (4 * 512 * 14**2 + 512 * 9 + 512 * 512)
    assert bytes_needed([DEEP], Settings()) == 3 * 4 * moved
    assert bytes_needed([DEEP], Settings(backward=True)) == 2 * 3 * 4 * moved
    # Half precision on the CPU may unroll the input, an element for each tap.
    assert bytes_needed([DEEP], Settings(dtype="float16")) == (3 + 9) * 2 * moved


def test_a_layer_that_does_not_fit_is_refused_with_the_numbers(runs, monkeypatch):
    monkeypatch.setattr(timing, "_free_bytes", lambda device: 4_000_000)
    with pytest.raises(DscalcError) as refused:
        time_rows([DEEP], Settings())
    assert str(refused.value) == (
        "512 -> 512 channels, 3x3 kernel, 14x14 map, padding same needs about 38.74 MB to be "
        "measured, but cpu has 4 MB free; use a smaller layer or batch"
    )
    assert not runs.candidates


def test_a_layer_beyond_any_machine_is_refused_before_anything_is_allocated():
    with pytest.raises(DscalcError, match="needs about 72,120,000,000 TB to be measured"):
        time_rows([layer(10**9, 10**9, 3, 10**6)], Settings())


def test_where_the_system_does_not_tell_torch_is_left_to_refuse(runs, monkeypatch):
    monkeypatch.setattr(timing, "_free_bytes", lambda device: None)
    time_rows([SMALL], Settings())
    assert runs.candidates


def test_free_memory_is_what_linux_has_available_and_of_a_gpu_its_own(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n")
    assert timing._free_bytes("cpu", meminfo) == 5000 * 1024
    assert timing._free_bytes("cpu", tmp_path / "missing") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (123, 456))
    assert timing._free_bytes("cuda") == 123


# The environment


def test_the_environment_says_where_and_how():
    here = environment(Settings(dtype="bfloat16", threads=2, channels_last=True, backward=True))
    assert here.device_name
    expected = ("cpu", here.device_name, torch.__version__, 2, "bfloat16", True, False, True)
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
