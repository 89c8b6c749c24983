"""Weights and peaks: equal to what others measured, to torch's profiler, and to sums by hand."""

import copy
import gc
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import architectures
import counted
import numpy as np
import pytest
import torch
from allocations import allocated
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import Calling
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from dscalc.core.peaks import Footprint
from dscalc.pytorch.copies import copy_of
from dscalc.pytorch.operators import POINTWISE, writes_over
from dscalc.pytorch.storages import tensors_within, weights_of
from dscalc.pytorch.trace import trace, trace_either

MAP = (1, 4, 16, 16)  # 4,096 bytes
OLD = torch.__version__.startswith("2.4.")


def conv(c_in=4, c_out=4, **options):
    return nn.Conv2d(c_in, c_out, 3, padding=1, **options)


def weighed(model, *shapes, **options):
    """The memory of a model, on inputs of these shapes."""
    inputs = tuple(torch.full(shape, 0.5) for shape in shapes)
    return trace_either(model, inputs, {}, **options)[0].memory


def fit(model, *shapes, **options):
    """What the whole model takes, on inputs of these shapes."""
    memory = weighed(model, *shapes, **options)
    return Footprint(memory, memory.weight_bytes)


def curve(memory):
    return [(moment.operator, moment.held) for moment in memory.moments[1:]]


# ---- Measured by others. ----


class Padded(nn.Module):
    """A convolution whose zeros an operator of its own adds, as a converter to TFLite writes it."""

    def __init__(self, conv):
        super().__init__()
        self.conv, (height, width) = conv, conv.padding
        self.zeros = nn.ZeroPad2d((width, width, height, height))
        conv.padding = (0, 0)

    def forward(self, x):
        return self.conv(self.zeros(x))


def with_pads(model):
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and any(module.padding):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, Padded(module))
    return model


def person_detect():
    model = architectures.mobilenet_v1(alpha=0.25)
    model[0] = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
    return model


LEAST = {
    # The head of the arena that tflite-micro 0.dev20261023 took for person_detect.tflite (int8) and
    # mobilenet_v2_quantized_1x3x224x224.tflite, which has operators of its own for padding.
    "TFLite Micro, person_detect": (person_detect, (1, 96, 96), 8, 55_296),
    "TFLite Micro, MobileNetV2": (
        lambda: with_pads(architectures.mobilenet_v2()), (3, 224, 224), 8, 2_451_840,
    ),
    # count_peak_activation_size of mit-han-lab/mcunet, on its own MobileNetV2, elements.
    "MCUNet, MobileNetV2": (architectures.mobilenet_v2, (3, 224, 224), 8, 1_505_280),
    "MCUNet, 0.5": (partial(architectures.mobilenet_v2, 0.5), (3, 160, 160), 8, 384_000),
    "MCUNet, 0.35": (partial(architectures.mobilenet_v2, 0.35), (3, 144, 144), 8, 311_040),
    "MCUNet, 0.35 at 96": (partial(architectures.mobilenet_v2, 0.35), (3, 96, 96), 8, 138_240),
    # arXiv 2007.10319, table 1: 7.2 MB in float32.
    "MCUNet, ResNet-50": (architectures.resnet50, (3, 224, 224), None, 7_225_344),
}  # fmt: skip


@pytest.mark.parametrize(("build", "image", "bits", "least"), LEAST.values(), ids=LEAST)
def test_a_planner_needs_what_others_measured(build, image, bits, least):
    with torch.device("meta"):
        model = build()
    assert fit(model, (1, *image), bits=bits).least_peak_bytes == least


# Weights, what torch's profiler saw at the ends of operators, where, and what a planner needs.
TRUTH = {
    "mobilenet_v2": (14_156_352, 11_038_720, "4.1 batch_norm", 6_021_120),
    "vit_b_16": (345_665_440, 8_469_504, "encoders.1.mlp.1 gelu", 4_236_288),
    "convnext_tiny": (114_356_512, 12_644_352, "2.mlp.2 gelu", 7_225_344),
}


@pytest.mark.parametrize(("name", "truth"), TRUTH.items(), ids=TRUTH)
def test_full_sizes(name, truth):
    with torch.device("meta"):
        model = getattr(architectures, name)()
    found = fit(model, (1, 3, 224, 224))
    assert truth == (
        found.weight_bytes, found.peak_bytes, found.peak_at, found.least_peak_bytes
    )  # fmt: skip


# ---- Measured here: each operator of a real run. ----


def attend(model, x, **options):
    """Self-attention in four heads, whose output is then copied if its heads come first."""
    samples, length, width = x.shape
    heads = model.qkv(x).reshape(samples, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(*heads, **options)
    return model.out(y.transpose(1, 2).reshape(x.shape))


def attention(**options):
    return Calling(partial(attend, **options), qkv=nn.Linear(64, 192), out=nn.Linear(64, 64))


def in_cycles(model, x):
    for _ in range(3):
        held = [model.conv(x)]
        held.append(held)
    return x.sum()


def in_place(model, x):
    y = model.conv(x)
    y.relu_().neg_().mul_(x)
    return y[0, 0].fill_(1)


def in_room(model, x):
    return torch.add(model.conv(x), x, out=torch.empty_like(x)).relu()


def views(model, x):
    first, second = model.conv(x).chunk(2, 1)
    flat = first.transpose(2, 3).reshape(1, -1)
    return torch.cat([flat, second.flatten(1), first[:, 0].expand(4, 16, 16).reshape(1, -1)], 1)


def replaced(model, x):
    model.seen = torch.cat([model.seen, x], 1)
    model.total = model.total + x
    return model.seen.mean()


def stateful():
    model = Calling(replaced, seen=torch.zeros(MAP))
    model.register_buffer("total", torch.zeros(MAP))
    model.before = model.seen, model.total  # else the profiler sees them go, and takes them off
    return model


def compiled():
    model = torch.compile(nn.Sequential(conv(), nn.ReLU()), backend="eager").eval()
    with torch.inference_mode():
        model(torch.full(MAP, 0.5))  # compiles it, which allocates
    return model


def channels_last(model, x):
    x = x.contiguous(memory_format=torch.channels_last)
    flat = [model.norm(F.pixel_shuffle(model.conv(x), 2)).flatten(1)]  # each flatten is a copy
    flat += [model.exact(x.double()).flatten(1), model.up(x).flatten(1)]
    return flat, F.pad(x, (1, 1, 1, 1), "reflect").flatten(1)


def by_value(model, x):
    chosen = x[x > 0]
    return model.conv(x) if chosen.sum() > 0 else chosen


@dataclass(slots=True)
class Answer:
    """What a model may return."""

    first: object
    second: object


SEQUENCE = (2, 12, 64)
MODELS = {
    "ResNet-50": (architectures.resnet50, (1, 3, 64, 64)),
    "MobileNetV1": (architectures.mobilenet_v1, (1, 3, 64, 64)),
    "MobileNetV2": (architectures.mobilenet_v2, (1, 3, 64, 64)),
    "ConvNeXt-T": (architectures.convnext_tiny, (1, 3, 64, 64)),
    "DeiT-S": (architectures.deit_s, (1, 3, 64, 64)),
    "U-Net": (architectures.unet, (1, 1, 64, 64)),
    "a detector": (architectures.shared_head_detector, (1, 3, 128, 128)),
    "Conv-TasNet": (architectures.net1d, (1, 1, 8000)),
    "R(2+1)D": (architectures.net3d, (1, 3, 8, 32, 32)),
    "string padding": (architectures.string_padding_net, (2, 3, 32, 32)),
    "tied weights": (architectures.weight_tied_net, (1, 3, 32, 32)),
    "a classifier": (counted.classifier, counted.IMAGE),
    "a decoder": (counted.decoder, counted.IMAGE),
    "an encoder": (counted.Encoder, counted.IMAGE),
    "attention": (attention, SEQUENCE),
    "causal attention": (partial(attention, is_causal=True), SEQUENCE),
    "masked attention": (partial(attention, attn_mask=torch.zeros(12, 12)), SEQUENCE),
    "attention with a mask a head": (
        partial(attention, attn_mask=torch.zeros(4, 12, 12)), SEQUENCE,
    ),
    "attention with a learned mask": (
        lambda: Calling(
            lambda m, x: attend(m, x, attn_mask=m.mask), qkv=nn.Linear(64, 192),
            out=nn.Linear(64, 64), mask=nn.Parameter(torch.zeros(12, 12)),
        ),
        SEQUENCE,
    ),
    "multi-head attention": (
        lambda: Calling(
            lambda m, x: m.heads(x, x, x, need_weights=False)[0], heads=nn.MultiheadAttention(64, 4)
        ),
        SEQUENCE,
    ),
    "a transformer": (
        partial(nn.Transformer, 64, 4, 1, 1, 64, batch_first=True), SEQUENCE, SEQUENCE,
    ),
    "an LSTM": (partial(nn.LSTM, 64, 32, 2, batch_first=True, bidirectional=True), SEQUENCE),
    "a GRU": (partial(nn.GRU, 64, 32, 2, batch_first=True), SEQUENCE),
    "an RNN": (partial(nn.RNN, 64, 32), SEQUENCE),
    "weight norm": (lambda: parametrizations.weight_norm(conv()), MAP),
    "spectral norm": (lambda: parametrizations.spectral_norm(conv()), MAP),
    "doubles": (
        lambda: Calling(lambda m, x: m.linear(x.double()), linear=nn.Linear(16, 8).double()), MAP,
    ),
    "compiled": (compiled, MAP),
    "cycles": (lambda: Calling(in_cycles, conv=conv()), MAP),
    "in place": (lambda: Calling(in_place, conv=conv()), MAP),
    "out= with room": (lambda: Calling(in_room, conv=conv()), MAP),
    "views": (lambda: Calling(views, conv=conv()), MAP),
    "state that is replaced": (stateful, MAP),
    "channels last": (
        lambda: Calling(
            channels_last, conv=conv(4, 16), norm=nn.GroupNorm(2, 4), exact=conv().double(),
            up=nn.ConvTranspose2d(4, 4, 2, 2),
        ),
        MAP,
    ),
    "folds": (lambda: Calling(lambda m, x: F.fold(F.unfold(x, 3), (16, 16), 3)), MAP),
    "values": (lambda: Calling(by_value, conv=conv()), MAP),
    "a dict": (lambda: Calling(lambda m, x: {"a": [m.conv(x)], "b": x.neg()}, conv=conv()), MAP),
    "an object": (lambda: Calling(lambda m, x: Answer(m.conv(x), x.neg()), conv=conv()), MAP),
    "a copy": (lambda: Calling(lambda m, x: x + m.conv(x).clone(), conv=conv()), MAP),
}  # fmt: skip


BAGS = {
    "sums": {"mode": "sum"},
    "sums without rows of padding": {"mode": "sum", "padding_idx": 0},
    "sums of doubles": {"mode": "sum", "dtype": torch.double},
    "means": {"mode": "mean"},
    "means up to the last offset": {"mode": "mean", "include_last_offset": True},
    "maxima": {"mode": "max"},
    "maxima up to the last offset": {"mode": "max", "include_last_offset": True},
}
for name, options in BAGS.items():
    MODELS[f"bags, {name}"] = (
        lambda options=options: Calling(
            lambda m, x: m.bags(x.long(), m.offsets), bags=nn.EmbeddingBag(9, 6, **options),
            offsets=torch.tensor([0, 3, 8]),
        ),
        (8,),
    )  # fmt: skip


@pytest.mark.parametrize(("build", "shapes"), [(b, s) for b, *s in MODELS.values()], ids=MODELS)
def test_torch_allocates_what_is_held_after_each_operator(build, shapes):
    """To the byte, and by the same operators; values or none make no difference."""
    if OLD and any(isinstance(part, nn.MultiheadAttention) for part in build().modules()):
        pytest.skip("its attention copies more on a CPU than on the meta device")
    torch.manual_seed(0)
    model = build().eval()
    found = weighed(model, *shapes)
    real = trace(copy_of("cpu", model), tuple(torch.full(s, 0.5) for s in shapes), {}, "cpu")
    assert real.memory.moments == found.moments
    assert curve(found) == allocated(model, *shapes)
    assert found.unknown == ""


def test_a_number_of_python_is_a_scalar_that_is_left_out():
    """torch makes a tensor of it, in the operator itself: 8 bytes."""
    model = Calling(lambda m, x: (x * 2.0).relu())
    [mul, relu] = curve(weighed(model, MAP))
    assert allocated(model, MAP) == [("mul", mul[1] + 8), relu]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("reentrant", [True, False])
def test_random_states_are_left_out(reentrant):
    body = nn.Sequential(conv(), nn.ReLU(), conv())
    model = Calling(lambda m, x: checkpoint(m.body, x, use_reentrant=reentrant), body=body)
    state = torch.get_rng_state().numel()
    assert allocated(model, MAP) == [
        (name, held + state) for name, held in curve(weighed(model, MAP))
    ]


# ---- Any program, by a second planner. ----

LENGTH = 8
PROGRAMS = st.lists(
    st.tuples(
        st.sampled_from(["relu", "relu_", "flip", "half", "sum", "cat", "add"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=12,
)


def interpreted(steps, values, apply):
    """Run each step on two values; ``apply`` gives the next; some values are let go after it."""
    values = list(values)
    for name, first, second, lets_go in steps:
        first %= len(values)
        values.append(apply(name, values[first], values[second % len(values)], values))
        if lets_go and len(values) > 1:
            del values[second % len(values)]
    return values


def fits(length, other):
    """Whether torch can add them, one element to each of the other."""
    return length == other or 1 in (length, other)


def computed(name, a, b, _):
    match name:
        case "add":
            return torch.add(a, b if fits(len(a), len(b)) else 1)
        case "sum":
            return a.sum(0, keepdim=True)
        case "cat":
            return torch.cat([a, b])
        case "flip":
            return a.flip(0)
        case "half":
            return a[: (len(a) + 1) // 2]
    return getattr(a, name)()


class Sums:
    """What is held and planned, by the definition, of storages that are numbers."""

    def __init__(self):
        self.sizes, self.made, self.last = [4 * LENGTH], [-1], {}
        self.held, self.over, self.step = [4 * LENGTH], [], -1

    def apply(self, name, a, b, values):
        """A value is the number of its storage, and its length."""
        self.step += 1
        both = name == "cat" or (name == "add" and fits(a[1], b[1]))
        length = {"half": (a[1] + 1) // 2, "cat": a[1] + b[1], "sum": 1}.get(name, a[1])
        length = max(length, b[1]) if name == "add" and both else length
        storage = a[0]
        if name not in ("half", "relu_"):
            storage = len(self.sizes)
            self.sizes.append(4 * length)
            self.made.append(self.step)
        read = {a[0], b[0]} if both else {a[0]}
        self.last |= dict.fromkeys(read | {storage}, self.step)
        if name in ("relu", "add"):
            self.over.append((self.step, storage, read))
        self.held.append(sum(self.sizes[n] for n in {0, storage, *(n for n, _ in values)}))
        return storage, length

    def planned(self, outputs):
        self.last |= dict.fromkeys((storage for storage, _ in outputs), self.step + 1)
        for step in range(-1, self.step + 1):
            alive = [n for n, at in enumerate(self.made) if at <= step <= self.last.get(n, -1)]
            written_over = sum(
                self.sizes[storage]
                for at, storage, read in self.over
                if at == step and any(
                    self.last[n] == step and self.sizes[n] >= self.sizes[storage]
                    for n in read - {storage}
                )
            )  # fmt: skip
            yield sum(self.sizes[n] for n in alive) - written_over


@settings(max_examples=100)
@given(PROGRAMS)
def test_any_program_takes_what_the_definition_says(steps):
    sums = Sums()
    outputs = interpreted(steps, [(0, LENGTH)], sums.apply)
    model = Calling(lambda m, x: interpreted(steps, [x], computed))
    found = trace(copy_of("meta", model), (torch.empty(LENGTH, device="meta"),), {}).memory
    assert [moment.held for moment in found.moments] == sums.held
    assert [moment.planned for moment in found.moments] == list(sums.planned(outputs))


# ---- What counts, and what does not. ----


def given_and_made(model, x):
    """Reads tensors that it holds in many ways, none of which count, and makes 64 bytes."""
    held = [model.listed[0], model.mapped["a"], model.slot.first, model.slot.second()]
    return sum(held, x) + torch.tensor([1.0] * 16)


def holds(size=16):
    tensor = torch.ones(size)
    return {
        "listed": [torch.ones(size)],
        "mapped": {"a": torch.ones(size)},
        "slot": Answer(torch.ones(size), lambda: tensor),
    }


def test_what_a_model_holds_does_not_count_and_what_it_makes_does():
    model = Calling(given_and_made, **holds())
    found = fit(model, MAP)
    assert (found.weight_bytes, found.run.moments[0].held) == (0, 4096)
    assert found.peak_bytes == 3 * 4096 + 64 == max(held for _, held in allocated(model, MAP))


@pytest.mark.skipif(OLD, reason="an index is several operators there")
def test_lists_become_tensors_that_count():
    model = Calling(lambda m, x: x[:, [0, 2]] + x[:, torch.as_tensor([1, 3])])
    kept = [("index", 4096 + 2048 + 16), ("index", 4096 + 2 * 2048 + 16), ("add", 4096 + 3 * 2048)]
    assert curve(weighed(model, MAP)) == kept
    assert [one for one in allocated(model, MAP) if one[0] in ("index", "add")] == kept


def test_what_numpy_holds_is_not_torchs():
    model = Calling(lambda m, x: x + torch.from_numpy(np.ones(16, "float32")))
    found = fit(model, MAP)  # a real run, since the two are on one device
    assert found.peak_bytes == 2 * 4096 == max(held for _, held in allocated(model, MAP))


TABLE = torch.ones(16)


def test_what_is_there_before_the_run_is_not_counted_wherever_it_is():
    model = Calling(lambda m, x: (x + TABLE).relu())
    assert curve(weighed(model, MAP)) == [("add", 2 * 4096), ("relu", 3 * 4096)]


def test_a_deep_copy_on_real_tensors_counts():
    model = Calling(lambda m, x: copy.deepcopy(x.neg()) if x.sum() > 0 else x)
    peak = max(held for _, held in allocated(model, MAP))
    assert fit(model, MAP).peak_bytes == peak == 3 * 4096 + 4


def test_tensors_are_found_in_any_nest_but_in_no_globals():
    inside = [torch.ones(1) for _ in range(7)]
    cycle = [inside[0]]
    cycle.append(cycle)
    closure, default = inside[1], inside[2]
    nest = {
        "a": (cycle, {"b": [inside[3]]}),
        "c": lambda x, y=default: closure + len(MODELS),
        "d": Answer(inside[4], partial(torch.add, inside[5])),
        "e": nn.Sequential(nn.Identity()),
    }
    nest["e"][0].own = inside[6]
    found = tensors_within(nest)
    assert {id(tensor) for tensor in found} == {id(tensor) for tensor in inside}
    assert len(found) == 7


def test_each_storage_is_weighed_once_at_its_first_owner():
    flat = torch.ones(100)
    model = nn.Sequential(conv(bias=False), conv(bias=False), nn.Linear(10, 10, bias=False))
    model[1].weight = model[0].weight
    model[2].weight = nn.Parameter(flat.view(10, 10))
    model[2].register_buffer("also", flat[:10])
    model.register_buffer("steps", torch.zeros(3, dtype=torch.int64), persistent=False)
    model.register_parameter("none", None)
    weights = {"": 24, "0": 4 * 144, "2": 400}
    assert weights_of(model) == weights
    found = weighed(model[:2], MAP)
    assert (found.weights, found.weight_bytes) == ({"0": 4 * 144}, 4 * 144)
    assert weights_of(model, bits=8) == {"": 24, "0": 144, "2": 100}


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_weights_are_their_indices_and_values():
    model = conv(bias=False)
    places, values = torch.tensor([[0, 1], [1, 0]]), torch.ones(2)
    model.register_buffer("pairs", torch.sparse_coo_tensor(places, values))
    starts, rows = torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    model.register_buffer("columns", torch.sparse_csc_tensor(starts, rows, values.clone()))
    found = weighed(model, MAP)
    assert found.weight_bytes == 4 * 144 + (2 * 2 * 8 + 2 * 4) + (3 * 8 + 2 * 8 + 2 * 4)
    assert found.unknown == "the model has a sparse_coo tensor"


def test_weights_are_those_of_the_model_that_was_given():
    """A copy has a storage for each tensor; a compiled part has a path of its own."""
    first, second = conv(bias=False), conv(bias=False)
    second.weight = nn.Parameter(first.weight.data)
    model = nn.Sequential(torch.compile(first, backend="eager"), second)
    assert weighed(model, MAP).weights == {"0": 4 * 144}
    lazy = nn.Sequential(nn.LazyConv2d(4, 3, bias=False))
    assert weighed(lazy, MAP).weights == {"0": 4 * 144}


@pytest.mark.parametrize(("bits", "size"), [(8, 1), (16, 2), (32, 4), (None, 4)])
def test_bits_are_the_size_of_a_floating_element(bits, size):
    model = Calling(lambda m, x: (m.conv(x), x > 0, x.argmax(1), x + 1j), conv=conv())
    memory = fit(model, MAP, bits=bits)
    assert memory.weight_bytes == size * (144 + 4)
    elements = 1024
    assert memory.peak_bytes == 2 * size * elements + elements + 8 * 256 + 2 * size * elements


def test_what_runs_beside_a_convolution_takes_nothing():
    twin = copy_of("meta", nn.Sequential(conv(), nn.ReLU(), conv()))
    image = torch.empty(MAP, device="meta")
    block = nn.Sequential(conv(4, 64), conv(64, 4)).to("meta")
    beside = trace(twin, (image,), {}, blocks=lambda _: {"0": block}).memory
    assert beside == trace(twin, (image,), {}).memory


def test_a_planner_keeps_no_input_that_is_not_read_and_no_room_that_is_not_used():
    first = Calling(lambda m, x, y: x.flip(0))
    assert [moment.planned for moment in weighed(first, MAP, MAP).moments] == [8192, 8192]
    # torch's fold keeps as much as it adds up: nine elements for each of its own.
    folds = weighed(Calling(lambda m, x: F.fold(x, (16, 16), 3, padding=1)), (1, 36, 256))
    assert [moment.held for moment in folds.moments] == [36_864, 2 * 36_864]
    assert [moment.planned for moment in folds.moments] == [36_864, 36_864 + 4096]


def test_where_the_peak_is():
    model = nn.Sequential(conv(), nn.Sequential(nn.ReLU(), conv(4, 16)), nn.Flatten())
    found = fit(model, MAP)
    assert (found.peak_at, found.peak.path) == ("1.1 conv2d", "1.1")
    peaks = {path: (peak.at.held, peak.planned) for path, peak in found.run.peaks.items()}
    assert peaks == {
        "0": (2 * 4096, 2 * 4096),
        "1": (7 * 4096, 5 * 4096),
        "1.0": (3 * 4096, 4096),
        "1.1": (7 * 4096, 5 * 4096),  # of which forwards hold the input and two maps
        "2": (5 * 4096, 4 * 4096),
        "": (7 * 4096, 5 * 4096),
    }
    both = found._replace(paths=("2", "1.0"))
    assert (both.peak_at, both.least_peak_bytes) == ("2 flatten", 4 * 4096)
    assert found._replace(paths=("3",)).peak_at is None
    assert fit(nn.Identity(), MAP).peak_at == "the inputs"
    assert fit(Calling(lambda m, x: x.neg()), MAP).peak_at == "the model neg"
    assert fit(Calling(lambda m, x, y: x[0]), MAP, MAP).peak_at == "the inputs"


FIRST = """
import torch
from torch import nn
from dscalc.pytorch.copies import copy_of
from dscalc.pytorch.trace import trace
with torch.device("meta"):
    model, image = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4))), torch.empty(1, 3, 8, 8)
first, second = (trace(copy_of("meta", model), (image,), {}).memory for _ in range(2))
assert first == second, first.moments
"""


def test_the_first_run_of_a_process_is_as_the_second():
    """Then torch imports what leaves frames in cycles, and they would hold the tensors."""
    subprocess.run([sys.executable, "-c", FIRST], check=True)


def test_the_collector_is_off_meanwhile_and_then_as_it_was():
    seen = []
    model = Calling(lambda m, x: seen.append(gc.isenabled()) or x)
    weighed(model, MAP)
    assert gc.isenabled()
    gc.disable()
    weighed(model, MAP)
    assert not gc.isenabled()
    gc.enable()
    assert seen == [False, False]


# ---- What is not known. ----


@torch.jit.script
def scripted(x: torch.Tensor) -> torch.Tensor:
    return x * x.sigmoid()


def under_autocast(model, x):
    with torch.autocast("cpu"):
        return model.conv(x)


def grown(model, x):
    model.table.resize_(64)
    return x.neg()


def nested(model, x):
    return torch.nested.nested_tensor([x[0], x[0, :2]], device=x.device).to_padded_tensor(0)


UNKNOWN = {
    "autocast": (under_autocast, "autocast is on, which casts inside of operators"),
    "a script": (lambda m, x: scripted(x), "parts of it are scripted, which frees tensors"),
    "sparse": (lambda m, x: x[0, 0].to_sparse() @ x[0, 0], "to_sparse has a sparse_coo tensor"),
    "nested": (nested, "has a nested tensor"),
    "resize_": (lambda m, x: m.conv(x).resize_(9000), "resize_ has a storage that was resized"),
    "out= that grows": (
        lambda m, x: torch.neg(x, out=x.new_empty(0)), "neg has a storage that was resized",
    ),
    "a storage that grows": (
        lambda m, x: (y := x.neg(), y.untyped_storage().resize_(9000), y.neg())[2],
        "neg has a storage that was resized",
    ),
    "a buffer that grows": (grown, "resize_ has a storage that was resized"),
    "a buffer whose storage grows": (
        lambda m, x: (m.table.untyped_storage().resize_(64), x.neg())[1],
        "the model has a storage that was resized",
    ),
    "an output from nowhere": (
        lambda m, x: torch.as_tensor([1.0], device="meta"),
        "the output has a tensor that no operator made",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("function", "reason"), UNKNOWN.values(), ids=UNKNOWN)
def test_is_not_known_with_the_reason(function, reason):
    model = Calling(function, conv=conv())
    model.register_buffer("table", torch.zeros(4))
    found = fit(model, MAP)
    assert reason in found.run.unknown
    nothing = found.peak_bytes, found.least_peak_bytes, found.peak_at, found.peak
    assert nothing == (None, None, None, None)
    assert found.weight_bytes == 4 * (144 + 4 + 4)
    assert torch.autocast.__enter__.__qualname__ == "autocast.__enter__"


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_are_not_known():
    assert "scripted" in weighed(nn.Sequential(torch.jit.script(conv())), MAP).unknown


def test_autocast_around_is_seen_and_off_is_off():
    with torch.autocast("cpu"):
        assert "autocast" in weighed(conv(), MAP).unknown

    def not_cast(model, x):
        with torch.autocast("cpu", enabled=False):
            return model.conv(x)

    assert fit(Calling(not_cast, conv=conv()), MAP).peak_bytes == 2 * 4096


@pytest.mark.skipif(OLD, reason="such operators are hidden there")
def test_higher_order_operators_are_not_known():
    model = Calling(lambda m, x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)))
    assert weighed(model, MAP).unknown == "cond is a higher-order operator"


# ---- The list of what writes over its operands. ----


def pointwise(operator):
    """Whether one element of an operand changes one of the result, the same one, and no other."""
    floats, others = torch.linspace(0.1, 0.9, 6), torch.tensor([0.3, 0.7, 0.2, 0.9, 0.4, 0.6])
    whole = torch.tensor([1, 2, 3, 1, 2, 3])
    mask = whole > 1
    for operands in (
        (floats,), (floats, others), (floats, others, floats.flip(0)), (whole,),
        (whole, whole.flip(0)), (floats, 0.3), (floats, 0.3, 0.5), (mask, floats, others),
        (floats, mask, 0.5), (floats, torch.ones(1)),
    ):  # fmt: skip
        try:
            before = operator(*operands)
        except (RuntimeError, TypeError):
            continue
        if not isinstance(before, torch.Tensor):
            continue
        changed = set()
        for place, operand in enumerate(operands):
            if isinstance(operand, torch.Tensor) and operand.shape == (6,):
                other = operand.clone()
                other[4] = operand[1]
                after = operator(*operands[:place], other, *operands[place + 1 :])
                same = (after == before) | ((after != after) & (before != before))
                changed |= set((~same).nonzero().flatten().tolist())
        return before.shape == (6,) and changed <= {4}
    raise AssertionError(f"no operands fit {operator}")


@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_what_writes_over_its_operands_needs_no_other_element(name):
    packet, _, overload = name.removeprefix("aten::").partition(".")
    operator = getattr(torch.ops.aten, packet)
    assert pointwise(getattr(operator, overload) if overload else operator)


@pytest.mark.parametrize("function", [torch.cumsum, torch.flip, torch.sum, F.softmax])
def test_what_needs_others_is_told_from_it(function):
    assert not pointwise(lambda x: function(x, (0,) if function is torch.flip else 0))


def test_the_list_lacks_little_that_torch_calls_pointwise():
    missing = set()
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        for overload in getattr(packet, "overloads", list)():
            operator = getattr(packet, overload)
            if torch.Tag.pointwise in operator.tags and str(operator._schema).endswith("-> Tensor"):
                missing |= set() if writes_over(operator, ()) else {name}
    missing = {name for name in missing if "backward" not in name and "special" not in name}
    # A clone may be in another order; of the others no model makes a feature map.
    assert missing <= {"clone", "frexp", "igamma", "igammac", "mvlgamma", "polygamma"}


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_norm_writes_over_its_operand_in_evaluation(training):
    scale = torch.ones(4)
    model = Calling(lambda m, x: F.batch_norm(x.neg(), scale, scale, training=training))
    assert fit(model, MAP).least_peak_bytes == (8192 if training else 4096)
