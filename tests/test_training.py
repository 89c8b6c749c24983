"""What a step of training costs: autograd's own products, and two counters that agree."""

import json
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import architectures
import pytest
import torch
from layers import Calling
from torch import nn
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

from dscalc.core.row import summed_by_path
from dscalc.errors import DscalcError
from dscalc.pytorch import audit
from dscalc.pytorch.training import torch_counts_all_groups

DOCS = Path(__file__).parents[1] / "docs"
IMAGES = (2, 3, 224, 224)


def on_meta(make, *args):
    with torch.device("meta"):
        return make(*args)


def step_of(model, *inputs):
    """The step of training of a model, proved unless the test says otherwise."""
    return audit(model, *inputs, backward=True).total.training


def counted_by_torch(model, *shapes):
    """MACs of a step of training by torch's FlopCounterMode, in a run of its own on meta."""
    model = model.to("meta").train()
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
        output = model(*(torch.zeros(shape) for shape in shapes))
        sum(tensor.sum() for tensor in tree_leaves(output)).backward()
    return mode.get_total_flops() // 2


def grouped_excess(report):
    """What torch counts too much, of a model of which every weight needs a gradient."""
    return sum(
        (row.layer.groups - 1) * row.as_is.cost.macs for row in report.rows if row.layer.groups
    )


# The figures are those of torchvision's models of these names, with torch 2.14, by two hooks of
# torch alone: a dispatch mode around forward and backward, and saved_tensors_hooks.
PUBLISHED = {
    "resnet50": (8_178_368_512, 16_120_709_120, 172_031_488),
    # torchvision's has a dropout, whose mask is 10,240 bytes more.
    "mobilenet_v2": (601_548_544, 1_181_421_056, 156_555_520 - 10_240),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_step_of_published_networks(name):
    model = on_meta(getattr(architectures, name))
    report = audit(model, IMAGES, backward=True)
    forward, backward, saved = PUBLISHED[name]
    assert report.total.training == (forward, backward, saved, "exact")
    assert report.faults == report.notes == []
    torchs = counted_by_torch(model, IMAGES)
    assert torchs == forward + backward + grouped_excess(report)
    line = f"| {name} | {forward:,} | {forward + backward:,} | 2.9[67] | {torchs:,} |"
    assert re.search(line.replace("|", r"\|"), (DOCS / "disagree.md").read_text("utf-8"))


@pytest.mark.parametrize(
    ("frozen", "backward"),
    [("first", 1_152_519_680), ("features", 2_560_000), ("classifier", 1_178_861_056)],
)
def test_frozen_parameters_of_mobilenet_v2(frozen, backward):
    model = on_meta(architectures.mobilenet_v2)
    numbers = {name: int(name.partition(".")[0]) for name, _ in model.named_parameters()}
    last = max(numbers.values())
    chosen = {"first": range(2), "features": range(last), "classifier": [last]}[frozen]
    for name, parameter in model.named_parameters():
        if numbers[name] in chosen:
            parameter.requires_grad_(False)
    step = step_of(model, IMAGES)
    assert step[:2] == (601_548_544, backward)
    assert step.crosscheck == "exact"


class GPT(nn.Module):
    """A transformer that knows what came before."""

    def __init__(self, width, layers, heads, words):
        super().__init__()
        self.words = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, batch_first=True, bias=False
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, ids):
        return self.head(self.body(self.words(ids)))


def test_a_transformer_takes_six_operations_a_weight_and_token_and_those_of_attention():
    """(6 N + 12 L d T) FLOPs a token (PaLM, arXiv 2204.02311, appendix B)."""
    model = GPT(64, 3, 4, 100)
    batch, tokens = 2, 16
    step = step_of(model, torch.zeros(batch, tokens, dtype=torch.int64))
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1) - 64 * 100
    assert 2 * step.macs == batch * tokens * (6 * weights + 12 * 3 * 64 * tokens)
    assert step.crosscheck == "exact"


# ---- Bytes that are saved. ----


class Attending(nn.Module):
    """Attention by function, of which some results are not saved."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(16, 48)
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        queries, keys, values = self.mix(self.norm(x)).view(2, 8, 3, 2, 8).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


class Last(nn.Module):
    """The last output of an LSTM."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2)

    def forward(self, x):
        return self.lstm(x)[0][-1]


def small(*layers):
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers)


SAVING = {
    "relu": (small(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)), (2, 3, 9, 9)),
    "in place": (small(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1)), (2, 3, 9, 9)),
    "pools": (small(nn.MaxPool2d(3), nn.SiLU(), nn.AvgPool2d(2), nn.Softmax(1)), (2, 3, 18, 18)),
    "grouped": (small(nn.GroupNorm(2, 8), nn.GELU(), nn.Conv2d(8, 8, 3, groups=4)), (2, 3, 9, 9)),
    "dropout": (nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 4)), (2, 8)),
    "attention": (Attending(), (2, 8, 16)),
    "lstm": (Last(), (2, 5, 8)),
    "unet": (architectures.unet(), (2, 1, 32, 32)),
}


def held_after_forward(model, inputs):
    """Bytes that the allocator of a CPU still holds after a forward pass, less unsaved outputs."""
    saved = set()

    def keep(tensor):
        saved.add(tensor.untyped_storage().data_ptr())
        return tensor

    torch.manual_seed(0)
    with (
        sdpa_kernel(SDPBackend.MATH),
        warnings.catch_warnings(action="ignore"),
        torch.backends.mkldnn.flags(enabled=False),  # it makes one operator of an LSTM
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = model(inputs)
    held = 0
    events = list(seen.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            held += event.extra_fields.alloc_size
    storage = output.untyped_storage()
    return held - (storage.data_ptr() not in saved) * storage.nbytes()


@pytest.mark.parametrize("name", SAVING)
def test_saved_bytes_are_what_a_cpu_holds_after_a_forward_pass(name):
    model, shape = SAVING[name]
    report = audit(model, shape, backward=True)
    inputs = torch.rand(shape)  # the caller holds them
    saves_input = report.total.training.saved_bytes - held_after_forward(model.train(), inputs)
    assert saves_input == inputs.numel() * 4
    assert sum(row.training.saved_bytes for row in report.rows) <= report.total.training.saved_bytes


def test_a_storage_belongs_to_the_first_row_that_saves_it():
    report = audit(SAVING["relu"][0], (2, 3, 9, 9), backward=True)
    saved = {row.name: row.training.saved_bytes for row in report.rows}
    maps = 2 * 8 * 9 * 9 * 4
    statistics = 2 * 8 * 4  # a mean and a deviation a channel
    assert saved == {"0": 2 * 3 * 9 * 9 * 4, "1": maps + statistics, "3": maps}


# ---- Rows. ----


def test_rows_add_up_and_so_do_modules():
    report = audit(architectures.unet(), (1, 1, 32, 32), backward=True)
    whole = report.total.training
    for rows in (report.rows, summed_by_path(report.rows, 1, report.classes)):
        assert sum(row.training.backward_macs for row in rows) == whole.backward_macs
        assert sum(row.training.macs for row in rows) == whole.macs


def test_the_first_layer_takes_no_gradient_of_its_input():
    rows = audit(small(nn.Conv2d(8, 8, 3, groups=8)), (1, 3, 9, 9), backward=True).rows
    first, second = rows
    assert first.training.backward_macs == first.as_is.cost.macs
    assert second.training.backward_macs == 2 * second.as_is.cost.macs


def test_rows_of_one_module_are_told_apart_by_kind():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens = torch.zeros(1, 5, 8)
    report = audit(layer, tokens, tokens, tokens, need_weights=False, backward=True)
    found = {row.kind: row.training.backward_macs for row in report.rows if row.name == "the model"}
    assert found == {"linear": 3 * 5 * 8 * 8, "attention": 2 * 2 * 5 * 5 * 8}
    saved = [row.training.saved_bytes for row in report.rows if row.name == "the model"]
    assert saved[0] > 0  # what a module saves is in the first of its rows
    assert saved[1] == 0
    assert report.total.training.crosscheck == "exact"
    [note] = report.notes
    assert note.startswith("attention is trained as its plain products")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_is_not_that_of_a_fused_kernel(kind):
    """Plain products save the maps alone; oneDNN also its workspace, if it makes the layer."""
    layer, features = kind(8, 8), torch.rand(5, 2, 8)
    report = audit(layer, features, backward=True)
    assert report.notes == [
        "recurrent layers are trained as plain products: a fused kernel saves other bytes"
    ]
    assert report.total.training.crosscheck == "exact"
    assert audit(nn.Linear(8, 8), features, backward=True).notes == []


class Shared(nn.Module):
    """A head that runs once, and in training twice."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.aux = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x):
        x = self.body(x)
        if not self.training:
            return self.head(x)
        return {"out": self.head(x), "aux": [SimpleNamespace(of=self.head(self.aux(x)))]}


def test_where_modes_differ_a_row_is_null_and_the_total_that_of_the_run():
    report = audit(Shared(), (1, 8), backward=True)
    assert report.total.training[:2] == (4 * 64, 7 * 64)
    steps = {row.name: row.training[:2] for row in report.rows}
    assert steps == {"body": (64, 64), "head": (None, None), "aux": (None, None)}
    idle, note = report.notes
    assert idle.startswith("1 module did not run: aux")
    assert note == (
        "training mode runs otherwise in aux, head: 256 MACs forward, 128 in evaluation mode"
    )


# ---- Where the factors say something else. ----


class Two(nn.Module):
    """Two layers of 128 MACs, and something between them."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False)
        self.between = between

    def forward(self, x):
        return self.b(self.between(self.a, x))


def without_gradients(layer, x):
    with torch.no_grad():
        return layer(x)


def not_returned(layer, x):
    return torch.zeros_like(layer(x), requires_grad=False)


class Frugal(torch.autograd.Function):
    """A product that keeps nothing of its input, and takes a gradient of it alone."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx, gradient):
        [weight] = ctx.saved_tensors
        return gradient @ weight, None


UNPROVED = {
    "detached": (lambda layer, x: layer(x).detach(), 384, "(a result is detached"),
    "whole": (lambda layer, x: layer(x).long().float(), 384, "(a result is detached"),
    "not returned": (not_returned, 384, "(a result is detached"),
    "of its own": (
        lambda layer, x: Frugal.apply(x.requires_grad_(), layer.weight), 640,
        "(it has a backward pass of its own)",
    ),
}  # fmt: skip
PROVED = {
    "plain": (lambda layer, x: layer(x), 640),
    "no_grad": (without_gradients, 384),
    "checkpoint": (
        lambda layer, x: checkpoint(lambda y: layer(y).sigmoid(), x, use_reentrant=False), 640,
    ),
    "reentrant": (lambda layer, x: checkpoint(layer, x.requires_grad_(), use_reentrant=True), 768),
    "by function": (
        lambda layer, x: checkpoint(
            lambda y: F.linear(y, layer.weight).exp(), x, use_reentrant=False
        ), 640,
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", UNPROVED)
def test_what_autograd_runs_stands_without_a_tick_and_with_the_reason(how):
    between, macs, why = UNPROVED[how]
    report = audit(Two(between), (1, 8), backward=True)
    assert report.total.training.macs == macs
    assert report.total.training.crosscheck == "not proved"
    assert report.total.crosscheck == "exact"  # the forward pass is proved
    [note] = report.notes
    assert why in note
    sentence = str(report)
    assert "✓ training step" not in sentence
    assert f"training step: {macs} MACs" in sentence


@pytest.mark.parametrize("how", PROVED)
def test_gradients_that_are_off_and_what_runs_once_more(how):
    between, macs = PROVED[how]
    report = audit(Two(between), (1, 8), backward=True)
    assert report.total.training.macs == macs
    assert report.total.training.crosscheck == "exact"
    ran_again = how not in ("plain", "no_grad")
    again = [note for note in report.notes if note.startswith("128 MACs run once more")]
    assert len(again) == ran_again
    assert sum(row.training.macs for row in report.rows) == macs


def test_the_products_of_a_vector():
    class Vectors(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.vector = nn.Parameter(torch.ones(4, 8)), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return torch.dot(self.matrix @ x, self.vector)

    report = audit(Vectors(), (8,), backward=True)
    assert report.total.training[:2] == (32 + 4, 32 + 2 * 4)
    assert (report.total.crosscheck, report.total.training.crosscheck) == ("not proved",) * 2
    [doubt] = [note for note in report.notes if "not proved" in note]
    assert doubt == (
        "the step is not proved: torch's FlopCounterMode does not count dot, mv in the model"
    )


class Reversible(torch.autograd.Function):
    """A sum with what a layer makes of x, which runs again in the backward pass, twice."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        ctx.save_for_backward(x)
        return x + layer(x)

    @staticmethod
    def backward(ctx, gradient):
        [x] = ctx.saved_tensors
        ctx.layer(x)  # gradients are off: this would give x from the output
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            ctx.layer(again).backward(gradient)
        return gradient + again.grad, None


class Reversing(nn.Module):
    """A reversible block."""

    def __init__(self):
        super().__init__()
        self.first, self.body = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x):
        return Reversible.apply(self.first(x), self.body)


def test_a_module_that_runs_in_the_backward_pass_is_not_a_gradient():
    report = audit(Reversing(), (1, 8), backward=True)
    assert report.total.training[:2] == (2 * 64, 3 * 64)
    assert {row.name: row.training.backward_macs for row in report.rows} == {
        "first": 64,
        "body": 128,
    }
    assert report.notes[0].startswith("128 MACs run once more")


class Spanning(torch.autograd.Function):
    """A step of autograd with the weights of two modules."""

    @staticmethod
    def forward(ctx, x, a, b):
        ctx.save_for_backward(a, b)
        return (x @ a.t()) @ b.t()

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return (gradient @ b) @ a, None, None


def test_what_belongs_to_several_modules_is_in_the_total_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b = (nn.Linear(8, 8, bias=False) for _ in range(3))

        def forward(self, x):
            return Spanning.apply(self.first(x), self.a.weight, self.b.weight)

    report = audit(Net(), (1, 8), backward=True)
    assert report.total.training[:2] == (3 * 64, 3 * 64)
    steps = {row.name: row.training.backward_macs for row in report.rows}
    assert steps == {"first": 64, "a": None, "b": None}
    assert report.total.training.crosscheck == "not proved"
    assert report.notes == [
        "the backward pass is not proved: 128 MACs that autograd runs belong to no module alone"
    ]


def test_a_product_without_gradients_takes_none_of_the_one_before_it():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

        def forward(self, x):
            y = self.a(x)
            with torch.no_grad():
                gate = self.b(x)
            return y * gate

    report = audit(Gated(), (1, 8), backward=True)
    assert {row.name: row.training.backward_macs for row in report.rows} == {"a": 64, "b": 0}
    assert report.total.training.crosscheck == "exact"


# ---- torch's excess. ----


@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_torch_counts_the_gradient_of_a_grouped_weight_for_every_group(make, groups):
    """If this fails, torch divides by the groups now: the docs say otherwise."""
    layer = make(8, 8, 3, groups=groups)
    macs = audit(layer, (1, 8, 9, 9)).macs
    assert counted_by_torch(layer, (1, 8, 9, 9)) == macs + groups * macs
    assert torch_counts_all_groups()
    assert step_of(layer, (1, 8, 9, 9))[:2] == (macs, macs)


def test_a_frozen_weight_has_no_excess():
    layer = small(nn.Conv2d(8, 8, 3, groups=4, bias=False))
    layer[1].requires_grad_(False)
    report = audit(layer, (1, 3, 9, 9), backward=True)
    first, second = (row.as_is.cost.macs for row in report.rows)
    assert report.total.training[:2] == (first + second, first + second)
    assert report.total.training.crosscheck == "exact"


def test_a_backward_operator_of_a_product_is_taken_apart():
    class OverTime(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(3, 4, 5)), nn.Parameter(torch.ones(5))

        def forward(self, x):
            return torch.conv_tbc(x, self.weight, self.bias)

    report = audit(OverTime(), (7, 2, 4), backward=True)
    macs = 5 * 2 * 3 * 4 * 5
    assert report.total.training[:2] == (macs, 2 * macs)  # of its input too, though nobody asks
    assert "give no number (it has a backward pass of its own)" in report.notes[-1]


def test_a_spatial_transformer_is_trained_through_the_grid_that_it_computes():
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.locate = nn.Linear(3 * 8 * 8, 6)

        def forward(self, x):
            theta = self.locate(x.flatten(1)).view(-1, 2, 3)
            grid = F.affine_grid(theta, x.shape, align_corners=False)
            return F.grid_sample(x, grid, align_corners=False)

    report = audit(Transformer(), (2, 3, 8, 8), backward=True)
    macs = 2 * 3 * 8 * 8 * 6 + 2 * 8 * 8 * 2 * 3
    assert report.total.training[:2] == (macs, macs)
    assert report.total.training.crosscheck == "not proved"
    assert report.notes[-1] == (
        "the step is not proved: torch's FlopCounterMode does not count affine_grid_generator in "
        "the model"
    )


def test_what_autograd_takes_apart_is_not_proved():
    class Kron(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.weight = nn.Linear(4, 4), nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            return torch.kron(self.layer(x), self.weight)

    report = audit(Kron(), (2, 4), backward=True)
    assert report.total.training.crosscheck == "not proved"
    assert report.notes[-1].startswith("the step is not proved: its forward pass has fewer MACs")


def test_a_difference_from_torch_is_a_fault(monkeypatch):
    monkeypatch.setattr("dscalc.pytorch.training.torch_counts_all_groups", lambda: False)
    report = audit(nn.Conv2d(8, 8, 3, groups=8), (1, 8, 9, 9), backward=True)
    assert report.total.training.crosscheck == "mismatch"
    [fault] = report.faults
    assert fault.startswith("torch's FlopCounterMode gives ")
    assert "✗ training step" in str(report)


@pytest.mark.parametrize("name", ["convolution", "convolution_backward"])
def test_a_counter_that_fails_takes_the_tick(name, monkeypatch):
    wrong = lambda: 0  # noqa: E731
    wrong.__module__ = FlopCounterMode.__module__  # and not a formula of the user's
    monkeypatch.setitem(flop_registry, getattr(torch.ops.aten, name), wrong)
    report = audit(nn.Conv2d(8, 8, 3, groups=8), (1, 8, 9, 9), backward=True)
    assert report.total.training[:2] == (8 * 9 * 49, 8 * 9 * 49)
    assert report.total.training.crosscheck == "not proved"
    assert report.notes[-1].endswith("torch's FlopCounterMode cannot count it")


# ---- LoRA, and parts in evaluation mode. ----


class LoRA(nn.Module):
    """A frozen layer and what is learned beside it, of a low rank."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def test_lora_trains_what_is_added_and_passes_gradients_through_the_rest():
    model = nn.Sequential(LoRA(nn.Linear(32, 32), 4), LoRA(nn.Linear(32, 32), 4))
    report = audit(model, (1, 32), backward=True)
    macs = {row.name: row.training.backward_macs for row in report.rows}
    assert macs["0.layer"] == 0  # nothing before it needs a gradient
    assert macs["1.layer"] == 32 * 32
    assert macs["0.down"] == 32 * 4
    assert macs["1.down"] == macs["1.up"] == 2 * 32 * 4
    assert report.total.training.crosscheck == "exact"
    assert report.total.trainable_params == 4 * 32 * 4


def test_the_models_own_train_keeps_parts_in_evaluation_mode():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

        def train(self, mode=True):
            super().train(mode)
            self.body[1].eval()
            return self

        def forward(self, x):
            return self.body(x)

    assert step_of(Kept(), (1, 8)).crosscheck == "exact"


def test_the_model_is_left_as_it_is():
    model = small(nn.BatchNorm2d(8), nn.Dropout(0.5)).eval()
    model[0].requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    step_of(model, (2, 3, 9, 9))
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_forward_that_reaches_the_users_own_weights_leaves_their_gradients():
    model = nn.Sequential(nn.Linear(8, 8))
    weight = model[0].weight
    model.forward = lambda x: F.linear(x, weight)
    weight.grad = torch.ones(8, 8)
    assert step_of(model, (1, 8))[:2] == (64, 64)
    assert torch.equal(weight.grad, torch.ones(8, 8))


def test_a_model_that_needs_values_is_trained_on_real_tensors():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(8, 8)

        def forward(self, x):
            x, _ = self.layer(x)
            return x * 2 if x.sum() > 0 else x

    report = audit(Choosing(), (3, 1, 8), backward=True)
    assert report.total.training.crosscheck == "exact"
    assert report.total.training.forward_macs == report.macs == 3 * 4 * (8 + 8) * 8
    assert report.notes[0].startswith("the model needs values")


# ---- What is refused. ----


class Differentiating(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        if not self.training:
            return self.layer(x)
        energy = self.layer(x.requires_grad_()).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


class WantsTargets(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("targets should not be none when in training mode")
        return self.layer(x)


class NoGradients(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


REFUSED = {
    "frozen": (
        nn.Linear(8, 8).requires_grad_(False),
        "no parameter requires a gradient, so there is no backward pass; drop backward=True",
    ),
    "changed in place": (
        nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.ReLU(inplace=True)),
        "torch refuses the backward pass: 1 saves a tensor for it that is changed in place later; "
        "drop inplace=True, or change a copy there, or drop backward=True",
    ),
    "detached": (
        NoGradients(8, 8),
        "no output requires a gradient in training mode, so there is no backward pass; "
        "drop backward=True",
    ),
    "one value": (
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)),
        "1 (BatchNorm1d) sees one value per channel in training mode, which has no variance; give "
        "2 samples or more",
    ),
    "autograd.grad": (
        Differentiating(),
        "the model differentiates within its forward, so that its backward pass is not one of "
        "products alone; drop backward=True",
    ),
    "func.grad": (
        Calling(lambda m, x: torch.func.grad(lambda v: m.layer(v).sum())(x), layer=nn.Linear(8, 4)),
        "the model differentiates within its forward, so that its backward pass is not one of "
        "products alone; drop backward=True",
    ),
    "lazy": (
        nn.LazyLinear(4),
        "the model has lazy parameters, which have no shape before its first run; run it once in a "
        "function of your own, or drop backward=True",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused_in_one_line(why):
    model, message = REFUSED[why]
    assert audit(model, (1, 8)).macs  # without the option there is an answer
    with pytest.raises(DscalcError) as info:
        audit(model, (1, 8), backward=True)
    assert str(info.value) == message


def test_a_model_that_wants_targets_says_so():
    with pytest.raises(DscalcError) as info:
        audit(WantsTargets(), (1, 8), backward=True)
    said = str(info.value)
    assert said.startswith("in training mode WantsTargets cannot run on these inputs (ValueError: ")
    assert "targets should not be none when in training mode, at tests/test_training.py:" in said
    assert said.endswith("; or drop backward=True")
    assert "\n" not in said


def test_bits_are_those_of_what_is_saved_too():
    # The second layer saves its input, four floats; the embedding three indices of int64.
    floats = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    for bits, each in ((None, 4), (32, 4), (16, 2), (8, 1)):
        report = audit(floats, (1, 2), backward=True, bits=bits)
        assert report.total.training.saved_bytes == (2 + 4) * each
        assert [row.training.saved_bytes for row in report.rows] == [2 * each, 4 * each]
    ids = torch.zeros(1, 3, dtype=torch.int64)
    report = audit(nn.Embedding(5, 2), ids, backward=True, bits=8)
    assert report.total.training.saved_bytes == 3 * 8


class Autocast(nn.Linear):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


def test_what_autocast_saves_is_not_known():
    """On a CPU it saves the input in half as many bytes."""
    report = audit(nn.Sequential(Autocast(2, 4), nn.Linear(4, 1)), (1, 2), backward=True)
    assert [row.training.saved_bytes for row in report.rows] == [None, None]
    assert report.total.training == (12, 16, None, "exact")
    assert "the bytes saved for the backward pass are not known: autocast is on" in report.notes[0]
    assert "saved for it" not in str(report)


def test_sparse_gradients_of_a_table():
    model = nn.Sequential(nn.Embedding(10, 8, sparse=True), nn.Linear(8, 2))
    report = audit(model, torch.zeros(3, 4, dtype=torch.long), backward=True)
    assert report.total.training == (192, 384, 12 * 8 * (1 + 4), "exact")


# ---- Operators of the user's, by the formulas that they register. ----


@torch.library.custom_op("steps::mix", mutates_args=())
def mix(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight


@torch.library.custom_op("steps::mix_backward", mutates_args=())
def mix_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return grad @ weight.T, x.T @ grad


mix.register_fake(lambda x, weight: x.new_empty(x.shape[0], weight.shape[1]))
mix_backward.register_fake(lambda grad, x, weight: (torch.empty_like(x), torch.empty_like(weight)))
mix.register_autograd(
    lambda ctx, grad: mix_backward(grad, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@pytest.fixture
def formulas():
    """Of the registry of torch, which the test may add to."""
    registry = dict(flop_registry)
    yield register_flop_formula
    flop_registry.clear()
    flop_registry.update(registry)


def flops_of_mix(x, weight, out_shape=None, **_):
    return 2 * x[0] * x[1] * weight[1]


def flops_of_mix_backward(grad, x, weight, out_shape=None, **_):
    return 4 * x[0] * x[1] * weight[1]


def test_the_users_formulas_count_in_both_passes(formulas):
    formulas(torch.ops.steps.mix)(flops_of_mix)
    formulas(torch.ops.steps.mix_backward)(flops_of_mix_backward)
    weight = nn.Parameter(torch.ones(8, 4))
    model = Calling(lambda m, x: m.layer(mix(x, m.weight)), layer=nn.Linear(4, 2), weight=weight)
    report = audit(model, (3, 8), backward=True)
    assert report.total.training[:2] == (96 + 24, 192 + 48)
    assert [row.training[:2] for row in report.rows] == [(96, 192), (24, 48)]
    assert report.total.training.crosscheck == "not proved"
    assert report.notes[-1].endswith("give no number (it has a backward pass of its own)")


def test_a_backward_operator_without_a_formula_is_named(formulas):
    formulas(torch.ops.steps.mix)(flops_of_mix)
    model = Calling(lambda m, x: mix(x, m.weight), weight=nn.Parameter(torch.ones(8, 4)))
    message = "in training mode there is no formula for steps::mix_backward; drop backward=True"
    with pytest.raises(DscalcError, match=message):
        audit(model, (3, 8), backward=True)


def test_an_input_that_requires_a_gradient_has_one():
    """As where the output is differentiated by a position, or an image is attacked."""
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    x = torch.ones(3, 8, requires_grad=True)
    assert step_of(model, x)[:2] == (96 + 24, 2 * (96 + 24))
    assert step_of(model, (3, 8))[:2] == (96 + 24, 96 + 2 * 24)
    assert x.grad is None


PLAIN = {
    "a cross product": lambda x: torch.linalg.cross(x[:, :3], x[:, 3:]),
    "a margin": lambda x: F.multi_margin_loss(x, torch.zeros(3, dtype=torch.long)),
    "margins": lambda x: F.multilabel_margin_loss(x, torch.zeros(3, 6, dtype=torch.long)),
    "a label for each time": lambda x: F.ctc_loss(
        x[:, None].log_softmax(-1), torch.tensor([[1]]), torch.tensor([3]), torch.tensor([1])
    ),
    "a draw of Gamma": lambda x: torch.distributions.Gamma(x.exp(), x.exp()).rsample(),
    "a draw of Dirichlet": lambda x: torch.distributions.Dirichlet(x.exp()).rsample(),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_multiplies_no_matrices(name):
    model = Calling(lambda m, x: PLAIN[name](m.layer(x)), layer=nn.Linear(8, 6))
    report = audit(model, torch.ones(3, 8), backward=True)
    assert report.total.training[:2] == (3 * 48, 3 * 48)
    assert (report.total.crosscheck, report.total.training.crosscheck) == ("exact", "exact")


FAKE = {
    "observed": lambda: FusedMovingAvgObsFakeQuantize(),
    "by function": lambda: Calling(
        lambda m, x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)
    ),
    "by tensors": lambda: Calling(
        lambda m, x: torch.fake_quantize_per_tensor_affine(
            x, torch.ones(1), torch.zeros(1, dtype=torch.int32), -128, 127
        )
    ),
    "by channel": lambda: Calling(
        lambda m, x: torch.fake_quantize_per_channel_affine(
            x, torch.ones(4), torch.zeros(4, dtype=torch.int32), 1, -128, 127
        )
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", FAKE)
def test_training_for_fewer_bits_multiplies_nothing_more(how):
    model = nn.Sequential(nn.Linear(8, 4), FAKE[how](), nn.Linear(4, 2))
    report = audit(model, torch.ones(3, 8), backward=True)
    assert (report.macs, report.total.crosscheck) == (96 + 24, "exact")
    assert report.total.training[:2] == (96 + 24, 96 + 48)
    assert report.total.training.crosscheck == "exact"


def test_a_step_is_the_same_in_inference_mode():
    outside = step_of(nn.Linear(8, 4), (1, 8))
    with torch.inference_mode():
        assert step_of(nn.Linear(8, 4), (1, 8)) == outside
        assert torch.is_inference_mode_enabled()


# ---- On the command line. ----

NETS = """
from torch import nn

def net(frozen=False):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    model[0].requires_grad_(not frozen)
    return model
"""
FORWARD = 8 * 27 * 14 * 14 + 8 * 9 * 12 * 12
BACKWARD = 8 * 27 * 14 * 14 + 2 * 8 * 9 * 12 * 12


@pytest.fixture
def nets(here):
    (here / "nets.py").write_text(NETS)
    return "model nets.py:net --input 3x16x16"


def test_the_fields_of_a_step(run, nets):
    names = ["--get", "backward_macs", "--get", "training_macs", "--get", "saved_bytes"]
    result = run(*nets.split(), "--backward", *names)
    saved = (3 * 16 * 16 + 8 * 14 * 14) * 4
    assert result.stdout.split() == [str(n) for n in (BACKWARD, FORWARD + BACKWARD, saved)]
    flops = run(f"{nets} --backward --unit flops --get training_flops")
    assert int(flops.stdout) == 2 * (FORWARD + BACKWARD)
    rows = run(f"{nets} --backward --rows --get backward_macs")
    assert sum(map(int, rows.stdout.split())) == BACKWARD


@pytest.mark.parametrize("name", ["backward_macs", "training_flops", "saved_bytes"])
def test_without_the_option_a_field_says_that_it_needs_it(run, nets, name):
    assert run(f"{nets} --get {name}").error == f"{name} needs --backward"
    assert run(f"{nets} --backward --get backward_flops").error == (
        "backward_flops needs --unit flops"
    )


def test_a_table_has_the_step_and_one_sentence(run, nets):
    result = run(f"{nets} --backward", columns=200)
    head = result.stdout.splitlines()[2]
    assert re.search(r"share  backward +saved  ", head)
    [step] = [line for line in result.stdout.splitlines() if "training step" in line]
    assert step.startswith(
        f"✓ training step: {FORWARD + BACKWARD:,} MACs (116 K), {BACKWARD:,} of them backward: "
        "autograd, the formula and torch agree; 9,344 B saved for it"
    )
    plain = run(nets, columns=120).stdout
    assert "backward" not in plain
    assert "training" not in plain


def test_several_models_have_a_row_each(run, nets):
    result = run("model nets.py:net nets.py:net --input 3x16x16 --backward -f json")
    rows = json.loads(result.stdout)["rows"]
    assert [row["training_macs"] for row in rows] == [FORWARD + BACKWARD] * 2
    table = run("model nets.py:net nets.py:net --input 3x16x16 --backward").stdout
    assert "trainable" in table.splitlines()[2]


def test_a_budget_may_bound_a_step(run, nets, tmp_path):
    (tmp_path / "budgets.toml").write_text(
        f"[[check]]\nrun = '{nets} --backward'\n"
        f"assert = ['training_macs <= {FORWARD + BACKWARD}', 'saved_bytes < 1']\n"
    )
    result = run("check budgets.toml -f json")
    assert result.code == 1
    assert [row["holds"] for row in json.loads(result.stdout)["rows"]] == [True, False]


def test_a_baseline_bounds_a_step(run, nets):
    assert run(f"{nets} --backward -f json -o main.json").code == 0
    both = [*nets.split(), "--backward", "--baseline"]
    asserted = ["--assert", "training_macs <= baseline", "--assert", "saved_bytes == baseline"]
    assert run(*both, "main.json", *asserted).code == 0
    less = ["--assert", "backward_macs < baseline"]
    failed = run(*both, "main.json", *less)
    assert failed.code == 1
    assert f"backward_macs is {BACKWARD:,}; baseline is {BACKWARD:,}" in failed.stderr
    run(f"{nets} -f json -o plain.json")
    refused = run(*both, "plain.json", *less)
    assert refused.code == 2
    assert "written without --backward" in refused.stderr


def test_json_has_null_where_a_row_is_not_known(run, here):
    (here / "aux.py").write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)\n"
        "    def forward(self, x):\n"
        "        return (self.a(x), self.b(x)) if self.training else self.a(x)\n"
    )
    answer = json.loads(run("model aux.py:Net --input 8 --backward -f json").stdout)
    assert [row["backward_macs"] for row in answer["rows"]] == [64, None]
    assert answer["total"]["backward_macs"] == 128
    assert answer["notes"][-1].startswith("training mode runs otherwise in b: ")


ROUTED = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        chosen, out = self.gate(x).argmax(-1), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            (rows,) = torch.where(chosen == number)
            out.index_add_(0, rows, expert(x[rows]))
        return out
"""


def test_both_passes_of_a_model_whose_weights_route_have_the_same_weights(run, here):
    (here / "routed.py").write_text(ROUTED)
    answer = json.loads(run("model routed.py:Net --input 8 --batch 64 --backward -f json").stdout)
    assert not any("runs otherwise" in note for note in answer["notes"])
    assert sum(row["macs"] for row in answer["rows"]) == 64 * 8 * 4 + 64 * 8 * 8
    for row in answer["rows"]:
        assert row["training_macs"] - row["backward_macs"] == row["macs"]


def test_a_model_without_values_is_made_anew_once():
    made = []

    def rebuild():
        made.append(Calling(lambda m, x: m.a(x)[m.a(x) > 0], a=nn.Linear(8, 8)))
        return made[-1]

    with torch.device("meta"):
        model = Calling(lambda m, x: m.a(x)[m.a(x) > 0], a=nn.Linear(8, 8))
    found = audit(model, (2, 8), rebuild=rebuild, backward=True)
    assert found.macs == found.total.training.forward_macs == 2 * 2 * 64
    assert len(made) == 1


def test_without_the_option_training_is_not_imported(monkeypatch, run, nets):
    monkeypatch.setitem(sys.modules, "dscalc.pytorch.training", None)  # an import would fail
    assert run(nets).code == 0


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (torch.optim.SGD, 0),
        (lambda p: torch.optim.SGD(p, momentum=0.9), 4),
        (torch.optim.Adam, 8),
        (torch.optim.AdamW, 8),
    ],
)
def test_the_state_of_optimizers_in_bytes_a_trainable_param(make, state):
    """As the cookbook says; Adam also counts its steps, in one number a tensor."""
    layer = nn.Linear(8, 8)
    optimizer = make(layer.parameters())
    layer(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    held = [
        t for of in optimizer.state.values() for t in of.values() if isinstance(t, torch.Tensor)
    ]
    held = [tensor for tensor in held if tensor.dim()]
    params = sum(p.numel() for p in layer.parameters())
    assert sum(t.untyped_storage().nbytes() for t in held) == state * params


class Sealed(nn.Linear):
    """What sets an attribute of it fails, its own ``train()`` too."""

    def __setattr__(self, name, value):
        if "sealed" in vars(self):
            raise AttributeError("it is sealed")
        super().__setattr__(name, value)


def test_training_mode_is_set_whatever_the_model_overrides():
    model = Sealed(8, 8)
    vars(model)["sealed"] = True
    report = audit(model, (1, 8), backward=True)
    assert report.total.training[:3] == (64, 64, 32)
    assert report.total.training.crosscheck == "exact"
