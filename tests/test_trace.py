"""A trace sees every operator of a model once: counted, known to hold no MACs, or named."""

import os
import random
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layers import Calling
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry

from dscalc.core.conv import Conv
from dscalc.core.transposed import TransposedConv
from dscalc.errors import DscalcError
from dscalc.peers.observer import CallObserver
from dscalc.pytorch.copies import copy_of
from dscalc.pytorch.operators import LEAVES, NO_MACS, has_no_macs
from dscalc.pytorch.trace import trace, trace_either


class Hidden(torch.autograd.Function):
    """Work that autograd sees as one step."""

    @staticmethod
    def forward(ctx, x, weight):
        return F.conv2d(x, weight, padding=1, groups=3)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@torch.library.custom_op("tests::scan", mutates_args=())
def scan(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return (a @ x).clone()


@scan.register_fake
def _(x, a):
    return torch.empty_like(x)


IMAGE = torch.zeros(1, 3, 8, 8)


def conv(*args, **kwargs):
    return nn.Conv2d(*(args or (3, 4, 3)), **{"padding": 1, **kwargs})


def weight(*shape):
    return nn.Parameter(torch.randn(shape))


def seen(model, *args, **kwargs):
    return trace_either(model, args, kwargs)[0]


def rows(found):
    return {(operator.path, operator.kind) for operator in found.operators}


def rope(model, x):
    turned = torch.outer(torch.arange(x.shape[1], dtype=x.dtype), x[0, 0])
    return torch.softmax((x * turned.cos()) @ x.transpose(1, 2), -1) @ x


MACS_3_4 = 64 * 4 * 27  # 3 -> 4 channels, 3x3, over 8x8 positions
ONE = {("conv", "conv")}

# What runs, on which inputs, its MACs by hand, its rows.
FORWARD_MODE = [torch.zeros(2, 8)]

EXACT = {
    "a string padding": (nn.Conv2d(3, 4, 3, padding="same"), [IMAGE], MACS_3_4, {("", "conv")}),
    "an even kernel, padded by hand": (
        nn.Conv2d(3, 4, 4, padding="same"), [IMAGE], 64 * 4 * 48, {("", "conv")},
    ),
    "no batch": (conv(), [IMAGE[0]], MACS_3_4, {("", "conv")}),
    "groups": (conv(3, 6, 3, groups=3), [IMAGE], 64 * 6 * 9, {("", "conv")}),
    "a transposed convolution counts input positions": (
        nn.ConvTranspose2d(4, 8, 3, 2, groups=2), [torch.zeros(1, 4, 8, 8)], 64 * 8 * 18,
        {("", "transposed")},
    ),
    "one block, many calls": (
        Calling(lambda m, x: m.conv(m.conv(x)), conv=conv(3, 3, 3)), [IMAGE], 2 * 64 * 81, ONE,
    ),
    "a weight used by a function": (
        Calling(lambda m, x: F.conv2d(x, m.conv.weight, padding=1), conv=conv()),
        [IMAGE], MACS_3_4, ONE,
    ),
    "a weight times a constant": (
        Calling(lambda m, x: F.conv2d(x, m.conv.weight * 2, padding=1), conv=conv()),
        [IMAGE], MACS_3_4, {("", "conv")},
    ),
    "a decoder that is the encoder transposed": (
        Calling(
            lambda m, x: F.conv_transpose2d(m.conv(x), m.conv.weight, padding=1), conv=conv()
        ),
        [IMAGE], 2 * MACS_3_4, {("conv", "conv"), ("conv", "transposed")},
    ),
    "a view of an embedding as a linear layer": (
        Calling(lambda m, x: x @ m.table.weight.t(), table=nn.Embedding(7, 4)),
        [torch.zeros(2, 4)], 56, {("table", "matmul")},
    ),
    "aten by name": (
        Calling(
            lambda m, x: torch.convolution(
                torch.ops.aten.conv2d.default(x, m.w, None, [1, 1], [1, 1]), m.v, None, [1, 1],
                [0, 0], [1, 1], False, [0, 0], 1,
            ),
            w=weight(4, 3, 3, 3), v=weight(8, 4, 1, 1),
        ),
        [IMAGE], MACS_3_4 + 64 * 32, {("", "conv")},
    ),
    "an autograd.Function": (
        Calling(lambda m, x: Hidden.apply(x, m.w), w=weight(3, 1, 3, 3)),
        [IMAGE], 64 * 27, {("", "conv")},
    ),
    "a reentrant checkpoint": (
        Calling(lambda m, x: checkpoint(m.conv, x, use_reentrant=True), conv=conv()),
        [IMAGE], MACS_3_4, ONE,
    ),
    "a checkpoint": (
        Calling(lambda m, x: checkpoint(m.conv, x, use_reentrant=False), conv=conv()),
        [IMAGE], MACS_3_4, ONE,
    ),
    "vmap over weights": (
        Calling(lambda m, x, w: torch.vmap(lambda w: F.conv2d(x, w, padding=1))(w)),
        [IMAGE, torch.zeros(5, 4, 3, 3, 3)], 5 * MACS_3_4, {("", "conv")},
    ),
    "a derivative in forward mode": (  # the last factor has a tangent too, of zeros
        Calling(lambda m, x: torch.func.jvp(lambda v: v @ m.a, (x,), (x,)), a=weight(8, 5)),
        FORWARD_MODE, 3 * 80, {("", "matmul")},
    ),
    "layers without rows or columns": (
        Calling(
            lambda m, x: m.c(F.linear(F.linear(x, m.a), m.b)), a=weight(0, 4), b=weight(5, 0),
            c=nn.Linear(5, 2),
        ),
        [torch.zeros(3, 4)], 3 * 10, {("", "linear"), ("c", "linear")},
    ),
    "vmap of a matrix product": (
        Calling(lambda m, x: torch.vmap(lambda w: x @ w)(m.w), w=weight(5, 8, 4)),
        [torch.zeros(3, 8)], 5 * 96, {("", "matmul")},
    ),
    "weight norm": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(conv())), [IMAGE], MACS_3_4,
        {("0", "conv")},
    ),
    "a lazy convolution": (nn.Sequential(nn.LazyConv2d(4, 3, padding=1)), [IMAGE], MACS_3_4,
        {("0", "conv")}),
    "convolutions in a plain list": (
        Calling(lambda m, x: m.list[1](m.list[0](x)), list=[conv(), conv(4, 3, 1, padding=0)]),
        [IMAGE], MACS_3_4 + 64 * 12, {("", "conv")},
    ),
    "compiled as a whole": (
        torch.compile(nn.Sequential(conv()), backend="eager"), [IMAGE], MACS_3_4, {("0", "conv")},
    ),
    "compiled in part": (
        nn.Sequential(torch.compile(conv(), backend="eager")), [IMAGE], MACS_3_4, {("0", "conv")},
    ),
    "einsum with dots": (
        Calling(lambda m, x: torch.einsum("...ij,jk->...ik", x, m.a), a=weight(8, 5)),
        [IMAGE], 24 * 40, {("", "einsum")},
    ),
    "a table made by an outer product": (
        Calling(rope), [torch.zeros(1, 4, 6)], 2 * 4 * 4 * 6, {("", "matmul")},
    ),
    "an error that the model catches": (
        Calling(lambda m, x: m.conv(x) if fails(m.conv, x[:, :1]) else x, conv=conv()),
        [IMAGE], MACS_3_4, ONE,
    ),
    "attention": (
        nn.MultiheadAttention(8, 2, batch_first=True), [torch.zeros(1, 4, 8)] * 3,
        4 * 8 * 24 + 4 * 64 + 2 * 4 * 4 * 8,
        {("", "linear"), ("", "matmul"), ("out_proj", "linear")},
    ),
    "fused attention": (
        Calling(lambda m, q: F.scaled_dot_product_attention(q, q, q)),
        [torch.zeros(2, 4, 10, 16)], 2 * 4 * 2 * 10 * 10 * 16, {("", "attention")},
    ),
    "a transformer layer": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [torch.zeros(1, 4, 8)],
        4 * 8 * 24 + 4 * 64 + 2 * 4 * 4 * 8 + 2 * 4 * 128,
        {("self_attn", "linear"), ("self_attn", "attention"), ("self_attn.out_proj", "linear"),
         ("linear1", "linear"), ("linear2", "linear")},
    ),
    "an LSTM": (
        nn.LSTM(8, 6, 2, bidirectional=True), [torch.zeros(5, 1, 8)],
        5 * 2 * 4 * 6 * (8 + 6) + 5 * 2 * 4 * 6 * (12 + 6), {("", "lstm")},
    ),
    "a GRU": (nn.GRU(8, 6), [torch.zeros(5, 1, 8)], 5 * 3 * 6 * 14, {("", "gru")}),
    "an RNN cell": (nn.RNNCell(8, 6), [torch.zeros(5, 8)], 5 * 6 * 14, {("", "rnn")}),
    "a network": (
        nn.Sequential(
            conv(), nn.BatchNorm2d(4), nn.PReLU(), nn.MaxPool2d(2), nn.Dropout(),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.GroupNorm(2, 4), nn.PixelShuffle(2),
            nn.ZeroPad2d(1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 5), nn.Softmax(1),
        ),
        [IMAGE], MACS_3_4 + 20, {("0", "conv"), ("11", "linear")},
    ),
    "a derivative in one direction, for which torch also multiplies with the zeros of weights": (
        Calling(lambda m, x: torch.func.jvp(lambda x: m.b(m.a(x).sin()), (x,), (x,)),
                a=nn.Linear(8, 6), b=nn.Linear(6, 8)),
        FORWARD_MODE, 3 * 2 * 96, {("a", "matmul"), ("b", "matmul")},
    ),
    "a shape alone on the meta device": (
        Calling(
            lambda m, x: m.conv(x) if x.is_cpu and not x.is_meta else x.new_empty(1, 4, 8, 8),
            conv=conv(),
        ),
        [IMAGE], MACS_3_4, ONE,
    ),
    "nothing that multiplies": (
        Calling(lambda m, x: x.roll(1).sort(-1)[0].cumsum(1).topk(2)[1].flip(1)), [IMAGE], 0, set(),
    ),
}  # fmt: skip


def fails(module, x):
    try:
        module(x)
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize(("model", "inputs", "macs", "expected"), EXACT.values(), ids=EXACT)
def test_counts_what_runs(model, inputs, macs, expected):
    """By hand, by torch's own counter, and the same on real tensors."""
    if inputs is FORWARD_MODE and torch.__version__.startswith("2.4."):
        pytest.skip("there nothing has a derivative in inference mode")
    found = seen(model, *inputs)
    assert found.macs == macs == found.torch_macs == found.known_to_torch
    assert rows(found) == expected
    assert not found.unknown
    # A checkpoint asks torch 2.4 for torch.meta.
    assert not found.real or "module 'torch' has no attribute 'meta'" in found.reason
    real = trace(copy_of("cpu", model), tuple(inputs), {}, "cpu")
    assert (real.operators, real.torch_macs) == (found.operators, found.torch_macs)


@pytest.mark.skipif(
    torch.__version__.startswith("2.4."), reason="nothing has a derivative in inference mode there"
)
@pytest.mark.parametrize(
    "part",
    [nn.LeakyReLU(), nn.ELU(), nn.Softplus(), nn.Mish(), nn.LayerNorm(5), nn.Hardswish(), nn.GLU()],
)
def test_a_derivative_in_the_forward_pass_has_the_products_of_its_layers(part):
    """Those of autograd for the input, as of forces or a score: twice those of the layer."""
    model = Calling(
        lambda m, x: torch.func.grad(lambda x: m.part(m.layer(x)).sum())(x),
        layer=nn.Linear(4, 5 + isinstance(part, nn.GLU)), part=part,
    )  # fmt: skip
    found = seen(model, torch.ones(3, 4))
    assert not found.unknown
    assert found.macs == found.torch_macs == 2 * 3 * model.layer.weight.numel()


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (torch.mv, [(3, 4), (4,)], 12),
        (torch.dot, [(4,), (4,)], 4),
        (torch.vdot, [(4,), (4,)], 4),
        (torch.addmv, [(3,), (3, 4), (4,)], 12),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (torch.inner, [(3, 4), (5, 4)], 60),
        (lambda a, b: torch.tensordot(a, b, 1), [(3, 4), (4, 5)], 60),
    ],
)
def test_products_by_other_names(function, shapes, macs):
    found = seen(Calling(lambda m, *x: function(*x)), *map(torch.zeros, shapes))
    assert found.macs == macs
    assert found.known_to_torch == found.torch_macs


def nested(x):
    return torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, (x,))


SQUARE = torch.eye(4)
SHOWN = pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "supports_higher_order_operators"),
    reason="torch 2.4 hides what is in a higher-order operator",
)


@pytest.mark.parametrize(
    ("function", "inputs", "name"),
    [
        (lambda *x: scan(*x), [SQUARE, SQUARE], "tests::scan"),
        (torch.linalg.inv, [SQUARE], "aten::linalg_inv_ex"),
        (torch.cdist, [SQUARE, SQUARE], "aten::_cdist_forward"),
        (torch.fft.rfft, [SQUARE], "aten::_fft_r2c"),
        (nn.Bilinear(4, 4, 5), [SQUARE, SQUARE], "aten::_trilinear"),
        (torch.mm, [SQUARE.cfloat()] * 2, "aten::mm on complex numbers"),
        (conv(dtype=torch.cfloat), [IMAGE.cfloat()], "aten::conv2d on complex numbers"),
        (lambda x: torch.sparse.mm(x.to_sparse(), x), [SQUARE], "aten::_sparse_addmm"),
        (lambda x: torch.mm(x.to_sparse(), x), [SQUARE], "aten::mm on sparse tensors"),
        pytest.param(nested, [SQUARE], "cond", marks=SHOWN),
    ],
)
def test_names_what_it_cannot_count(function, inputs, name):
    """There is no silent zero: the total is then not known."""
    found = seen(Calling(lambda m, *x: m.part(*x), part=function), *inputs)
    assert dict(found.unknown) == {name: 1}
    assert found.macs is None


def force(model, positions, *, backward=False):
    with torch.enable_grad():
        positions = positions.detach().requires_grad_()
        energy = model.last(model.first(positions).tanh()).sum()
        if backward:
            energy.backward()
            return energy, -positions.grad
        return energy, -torch.autograd.grad(energy, positions)[0]


def test_a_model_that_differentiates_within_its_forward_is_counted():
    """Such as a field of forces: the negative gradient of an energy."""
    model = Calling(force, first=nn.Linear(3, 16), last=nn.Linear(16, 1))
    positions, forward = torch.ones(5, 3), 5 * (3 * 16 + 16)
    found = seen(model, positions)
    assert found.macs == found.torch_macs == 2 * forward
    assert (rows(found), found.doubts) == ({("first", "matmul"), ("last", "matmul")}, [])
    model.function = lambda m, x: force(m, x, backward=True)  # gradients of the weights too
    found = seen(model, positions)
    assert found.macs == found.torch_macs == 3 * forward
    assert model.first.weight.grad is None
    model.first.requires_grad_(False)
    assert seen(model, positions).macs == 3 * forward - 5 * 3 * 16


def test_a_gradient_of_a_gradient_is_counted():
    def residual(model, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            u = model.last(model.first(x).tanh())
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            return u, torch.autograd.grad(slope[:, 0].softmax(0).sum(), x)[0]

    found = seen(Calling(residual, first=nn.Linear(2, 16), last=nn.Linear(16, 1)), torch.ones(5, 2))
    first, last = 5 * 2 * 16, 5 * 16
    assert found.macs == found.torch_macs == 4 * first + 2 * last


def test_an_operator_of_a_gradient_without_a_formula_is_named():
    def slope(model, x):
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(model.conv(x).sum(), x)[0]

    found = seen(Calling(slope, conv=conv()), IMAGE)
    assert (dict(found.unknown), found.known_to_torch) == (
        {"aten::convolution_backward": 1},
        MACS_3_4,
    )


def test_operator_missing_from_the_table_is_named(monkeypatch):
    monkeypatch.delitem(NO_MACS, "aten::cumsum")
    found = seen(Calling(lambda m, x: x.cumsum(1)), IMAGE)
    assert (dict(found.unknown), found.macs) == ({"aten::cumsum": 1}, None)


@pytest.mark.parametrize("leaf", ["convolution", "addmm", "mm", "bmm"])
def test_wrong_formula_differs_from_torch(monkeypatch, leaf):
    right = LEAVES[f"aten::{leaf}"]
    monkeypatch.setitem(LEAVES, f"aten::{leaf}", lambda *a, **k: right(*a, **k) + 1)
    parts = {"conv": conv(), "linear": nn.Linear(8, 8)}
    model = Calling(lambda m, x: (y := m.linear(m.conv(x))) @ y.mT + x[0, 0] @ x[0, 0].T, **parts)
    found = seen(model, IMAGE)
    if leaf != "convolution":
        assert leaf in {operator.leaf for operator in found.operators}
    assert found.known_to_torch != found.torch_macs


WITH_MACS = """\
    mm bmm addmm baddbmm mv addmv dot vdot addbmm addr convolution _convolution conv2d
    conv_transpose2d conv_tbc linear matmul inner einsum tensordot scaled_dot_product_attention
    _scaled_dot_product_flash_attention_for_cpu _native_multi_head_attention lstm gru lstm_cell
    _transformer_encoder_layer_fwd mkldnn_rnn_layer _trilinear bilinear _cdist_forward
    _euclidean_dist _fft_r2c _fft_c2c linalg_inv_ex linalg_vecdot linalg_multi_dot _scaled_mm
    _int_mm _sparse_mm _sparse_addmm affine_grid_generator linalg_cholesky_ex linalg_lu_factor_ex
    convolution_backward slow_conv3d_forward mkldnn_convolution"""


@pytest.mark.parametrize("name", WITH_MACS.split())
def test_no_operator_with_macs_is_taken_for_one_without(name):
    packet = getattr(torch.ops.aten, name)
    assert not any(has_no_macs(getattr(packet, overload)) for overload in packet.overloads())


def test_each_operator_tells_the_layer_that_it_is():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 4, padding="same"),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, bias=False),
        nn.Linear(16, 5),
    )
    same, transposed, linear = (op.conv for op in seen(model, IMAGE.expand(2, 3, 8, 8)).operators)
    assert same == Conv(3, 4, 4, 8, padding="same", bias=True, batch_size=2)
    assert isinstance(transposed, TransposedConv)
    assert (transposed.in_channels, transposed.out_channels, transposed.groups) == (4, 6, 2)
    assert (transposed.input_size, transposed.output_size) == ((8, 8), (16, 16))
    assert transposed.output_padding == (1, 1)
    assert (linear.in_channels, linear.out_channels, linear.bias) == (16, 5, True)
    assert linear.batch_size == 2 * 6 * 16
    assert linear.cost.macs == linear.batch_size * 80


def rounded(m, x):
    """As in training that is aware of quantisation."""
    scales, zeros = x.new_ones(4), x.new_zeros(4, dtype=torch.int32)
    whole = torch.fake_quantize_per_tensor_affine(x, scales[0], zeros[0], 0, 255)
    whole = torch.fake_quantize_per_tensor_affine(whole, 0.1, 0, 0, 255)
    weight = torch.fake_quantize_per_channel_affine(m.conv.weight, scales, zeros, 0, -128, 127)
    low, high, one = x.new_zeros(1), x.new_ones(1), x.new_ones(1, dtype=torch.int64)
    whole = torch.fused_moving_avg_obs_fake_quant(
        whole, one, one, low, high, high.clone(), zeros[:1].clone(), 0.01, 0, 255, 0
    )
    return F.conv2d(whole, weight, padding=1)


def test_rounding_as_a_quantised_model_would_has_no_macs():
    found = seen(Calling(rounded, conv=conv()), IMAGE)
    assert found.macs == MACS_3_4 == found.torch_macs


def test_one_call_of_a_composite_is_one_number():
    lstm = nn.LSTM(8, 6)
    twice = Calling(lambda m, x: (m.lstm(x), m.lstm(x)), lstm=lstm)
    calls = [operator.call for operator in seen(twice, torch.zeros(5, 1, 8)).operators]
    assert calls == [1] * 6 + [2] * 6


def test_activations_are_the_elements_that_products_put_out():
    found = seen(nn.Sequential(conv(), nn.ReLU(), nn.Linear(8, 2)), IMAGE)
    assert [operator.activations for operator in found.operators] == [256, 64]


def test_tells_the_weight_and_what_ran():
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), Calling(lambda m, x: x, aux=conv()))
    found, twin = trace_either(model, (IMAGE,), {})
    assert found.operators[0].weight is twin[0].weight
    assert found.ran == {"", "0", "1", "2"}
    functional = Calling(lambda m, x: F.layer_norm(x, [8], m.norm.weight), norm=nn.LayerNorm(8))
    assert seen(functional, IMAGE).ran == {"", "norm"}


def test_a_block_runs_beside_its_convolution_and_changes_nothing_else():
    made = copy_of("meta", nn.Sequential(conv(), nn.ReLU(), conv(4, 4, 1, padding=0)))
    block = nn.Sequential()
    block.add_module("depthwise", nn.Conv2d(3, 3, 3, padding=1, groups=3, device="meta"))
    block.add_module("pointwise", nn.Conv2d(3, 4, 1, device="meta"))
    found = trace(made, (IMAGE,), {}, blocks=lambda _: {"0": block}, observe=CallObserver)
    plain = trace(made, (IMAGE,), {}, observe=CallObserver)
    ran = found.blocks["0"]
    assert [(op.path, op.kind, op.step, op.macs) for op in ran.operators] == [
        ("0", "conv", "depthwise", 64 * 27),
        ("0", "conv", "pointwise", 64 * 12),
    ]
    assert (ran.torch_macs, ran.instead_of) == (64 * (27 + 12), MACS_3_4)
    assert [op.macs for op in found.operators] == [op.macs for op in plain.operators]
    assert (found.torch_macs, found.observed) == (plain.torch_macs, plain.observed)
    assert "forward" not in vars(made.model[0])


def test_a_block_that_gives_another_shape_is_refused():
    made, block = copy_of("meta", nn.Sequential(conv())), nn.Conv2d(3, 4, 3, device="meta")
    with pytest.raises(DscalcError, match="AssertionError"):
        trace(made, (IMAGE,), {}, blocks=lambda _: {"0": block})


@dataclass
class Batch:
    """What a tensor may stand in."""

    image: torch.Tensor


@pytest.mark.parametrize(
    ("read", "batch"),
    [
        (lambda batch: batch["image"], {"image": IMAGE}),
        (lambda batch: batch[0][0], [(IMAGE,)]),
        (lambda batch: batch.image, Batch(IMAGE)),
        (lambda batch: batch, weight(*IMAGE.shape)),
    ],
)
def test_inputs_are_any_nest(read, batch):
    model = Calling(lambda m, *, batch: m.conv(read(batch)), conv=conv())
    found = seen(model, batch=batch)
    assert (found.macs, found.real) == (MACS_3_4, False)


def test_what_a_model_holds_is_copied_wherever_it_is():
    """Attributes, results of a computation and nests of them; tied parameters stay tied."""
    held = SimpleNamespace(nest={"a": [weight(8, 8)]}, result=torch.ones(8) * weight(8))
    model = Calling(lambda m, x: x @ m.held.nest["a"][0] + m.held.result * m.own, held=held)
    model.own = torch.ones(8) * weight(8)
    model.one, model.two = nn.Linear(2, 2), nn.Linear(2, 2)
    model.two.weight = model.one.weight
    assert seen(model, IMAGE).macs == 3 * 8 * 64
    twin = copy_of("meta", model).model
    assert twin.two.weight is twin.one.weight
    assert not any(p.requires_grad for p in twin.parameters())
    assert held.nest["a"][0].device.type == "cpu"


@pytest.mark.parametrize(
    "part", [nn.LSTM(8, 6), nn.TransformerEncoderLayer(8, 2), nn.MultiheadAttention(8, 2)]
)
def test_model_that_needs_values_runs_on_real_tensors(part):
    """And counts the same."""
    inputs = [torch.zeros(4, 1, 8)] * (3 if isinstance(part, nn.MultiheadAttention) else 1)
    plain = seen(Calling(lambda m, *x: m.part(*x), part=part), *inputs)
    model = Calling(lambda m, *x: m.part(*x) if x[0].sum() < 1 else None, part=part)
    found = seen(model, *inputs)
    assert found.real
    assert found.reason.startswith("RuntimeError: Tensor.item() cannot be called on meta tensors")
    assert f"{__name__}.py:" in found.reason
    assert found.operators == plain.operators
    assert found.torch_macs == plain.torch_macs == plain.macs


def test_model_on_meta_that_needs_values_is_built_again():
    def build():
        return Calling(lambda m, x: m.conv(x) if x.sum() < 1 else x, conv=conv())

    with torch.device("meta"):
        model = build()
    found, twin = trace_either(model, (IMAGE,), {}, build)
    assert (found.macs, twin.conv.weight.device.type) == (MACS_3_4, "cpu")
    with pytest.raises(DscalcError, match="build it on the CPU"):
        trace_either(model, (IMAGE,), {})


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_are_seen_and_quantised_ones_refused():
    scripted = nn.Sequential(torch.jit.script(conv()), conv(4, 4, 1, padding=0))
    found = seen(scripted, IMAGE)
    assert found.macs == found.torch_macs == MACS_3_4 + 64 * 16
    assert rows(found) == {("0", "conv"), ("1", "conv")}
    with pytest.raises(DscalcError, match=r"audit the float nn.Module that they were made from$"):
        seen(scripted, IMAGE[:, :1])
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8)))
    with pytest.raises(DscalcError, match=r"^0 is a quantised module"):
        seen(quantised, IMAGE)


def test_float_models_made_to_be_quantised_are_counted():
    """Their sums and concatenations are modules of torch.ao.nn.quantized, without weights."""
    added = torch.ao.nn.quantized.FloatFunctional()
    model = Calling(lambda m, x: m.added.add(m.conv(x), m.conv(x)), conv=conv(), added=added)
    assert seen(model, IMAGE).macs == 2 * MACS_3_4


def test_a_model_spread_over_gpus_is_counted_without_one():
    model = nn.DataParallel(conv())
    model.device_ids, model.src_device_obj = [0], torch.device("cuda:0")  # as on such a machine
    assert seen(model, IMAGE).macs == MACS_3_4
    assert model.device_ids == [0]


def broken(model, x):
    raise KeyError("no\nsuch key")


def test_error_names_the_module_and_the_line():
    with pytest.raises(DscalcError) as info:
        seen(nn.Sequential(nn.ReLU(), nn.Sequential(conv())), IMAGE[:, :1])
    assert str(info.value).startswith("1.0 (Conv2d) cannot run on these inputs (RuntimeError: ")
    assert str(info.value).endswith("; forward takes (input): check the shapes and dtypes")
    with pytest.raises(DscalcError) as info:
        seen(nn.Sequential(Calling(broken)), IMAGE)
    line = broken.__code__.co_firstlineno + 1
    assert str(info.value).startswith("0 (Calling) cannot run on these inputs (KeyError: ")
    assert f"{__name__}.py:{line}); forward takes (input)" in str(info.value)


def unregistered(model, x):
    raise AssertionError("Current active mode <dscalc.pytorch.trace._Watch> not registered")


def test_error_of_torch_2_4_names_nothing_of_ours():
    with pytest.raises(DscalcError, match="a higher-order operator, at ") as info:
        seen(Calling(unregistered), IMAGE)
    assert "_Watch" not in str(info.value)


def noisy(model, x):
    warnings.warn("noise", stacklevel=1)
    torch.rand(1), np.random.rand(), random.random()
    return model.conv(x) if x.sum() < 1 else x


def test_leaves_everything_as_it_is():
    model = Calling(noisy, conv=conv(3, 4, 4, padding="same")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen(model, IMAGE).real
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def of_torch(monkeypatch, formula):
    """Let torch have another formula for convolutions of its own, and not one of a user's."""
    formula.__module__ = flop_registry[torch.ops.aten.convolution].__module__
    monkeypatch.setitem(flop_registry, torch.ops.aten.convolution, formula)


def test_counter_that_fails_is_left_out(monkeypatch):
    of_torch(monkeypatch, lambda: 0)
    found = seen(conv(), IMAGE)
    assert (found.macs, found.torch_macs) == (MACS_3_4, None)


def test_an_odd_number_of_flops_is_no_count_of_macs(monkeypatch):
    right = flop_registry[torch.ops.aten.convolution]
    odd = lambda *a, **k: right(*a, **k) + 1  # noqa: E731
    odd._get_raw = True
    of_torch(monkeypatch, odd)
    found = seen(conv(), IMAGE)
    assert found.torch_macs > found.macs == MACS_3_4


# What the model asks of values, and goes on without them.

ASKED = {
    "item": lambda y: y.abs().max().item() >= 0,
    "float()": lambda y: float(y.abs().sum()) >= 0,
    "bool()": lambda y: bool((y == y).all()),
    "numpy()": lambda y: y.numpy() is not None,
    "np.asarray": lambda y: np.asarray(y) is not None,
    "tolist()": lambda y: len(y.tolist()) > 0,
    "cpu()": lambda y: y.cpu() is not None,
    "a mask": lambda y: y[y == y].numel() > 0,
    "equal": lambda y: torch.equal(y, y),
    "a format": lambda y: f"{y.sum():.2f}" != "",
    "in": lambda y: y[0, 0, 0, 0] in y,
    "DLPack": lambda y: torch.from_dlpack(y) is not None,
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_branch_on_values_that_the_model_catches_is_taken(ask):
    def forward(model, x):
        y = model.one(x)
        try:
            return model.two(y) if ask(y) else y
        except Exception:
            return y

    found = seen(Calling(forward, one=conv(), two=conv(4, 4, 3)), IMAGE)
    assert (found.macs, found.real) == (MACS_3_4 + 64 * 4 * 36, True)
    assert found.reason


def test_an_error_of_the_models_own_is_no_reason_for_values():
    def forward(model, x):
        try:
            model.conv(x[:, :1])
        except RuntimeError:
            return model.conv(x)

    assert not seen(Calling(forward, conv=conv()), IMAGE).real


# Tensors with operators of their own.


class Product(torch.Tensor):
    """Two factors, which are multiplied wherever it is used."""

    @staticmethod
    def __new__(cls, left, right):
        return torch.Tensor._make_wrapper_subclass(
            cls, (left.shape[0], right.shape[1]), dtype=left.dtype, device=left.device
        )

    def __init__(self, left, right):
        self.left, self.right = left, right

    def __tensor_flatten__(self):
        return ["left", "right"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return Product(inner["left"], inner["right"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._schema.name in ("aten::detach", "aten::_to_copy", "aten::clone", "aten::alias"):
            left, right = (
                func(part, *args[1:], **kwargs) for part in (args[0].left, args[0].right)
            )
            return Product(left, right)
        return func(*(v.left @ v.right if isinstance(v, Product) else v for v in args), **kwargs)


class Renamed(torch.Tensor):
    """A tensor that changes what functions, and no operators, do."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


def products():
    return nn.Parameter(Product(torch.ones(8, 2), torch.ones(2, 8)), requires_grad=False)


def test_products_of_a_tensor_with_its_own_operators_are_counted_and_not_proved():
    found = seen(Calling(lambda m, x: x @ m.w, w=products()), torch.zeros(4, 8))
    assert (found.macs, found.doubtful) == (4 * 8 * 8, {("", "matmul")})
    [doubt] = found.doubts
    assert doubt.startswith("Product is a tensor with operators of its own (__torch_dispatch__): ")


def test_another_operator_on_such_a_tensor_is_not_known():
    found = seen(Calling(lambda m, x: x + torch.relu(m.w), w=products()), torch.zeros(8, 8))
    assert (dict(found.unknown), found.macs) == ({"aten::relu on Product": 1}, None)


@pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="torch cannot make it there")
def test_a_tensor_with_its_own_functions_is_seen_as_what_it_calls():
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].weight = nn.Parameter(torch.ones(8, 8).as_subclass(Renamed))
    found = seen(model, torch.zeros(4, 8))
    assert (found.macs, found.torch_macs, found.doubts) == (256, 256, [])


# How a forward ends.


def yields(model, x):
    yield model.conv(x)
    yield (model.conv(x) for _ in range(2))


@pytest.mark.parametrize(
    ("forward", "calls"),
    [(yields, 3), (lambda m, x: {"all": map(m.conv, [x, x])}, 2), (lambda m, x: iter([x]), 0)],
)
def test_what_a_forward_yields_runs_to_its_end(forward, calls):
    assert seen(Calling(forward, conv=conv()), IMAGE).macs == calls * MACS_3_4


async def waits(model, x):
    return model.conv(x)


async def waits_and_yields(model, x):
    yield model.conv(x)


def never_ends(model, x):
    while True:
        yield x


def raising(error):
    def forward(model, x):
        raise error

    return forward


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("not even that")


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (waits, "^forward of Calling is asynchronous"),
        (waits_and_yields, "^forward of Calling is asynchronous"),
        (never_ends, "^forward of Calling yields more than 10,000 values"),
        (raising(GeneratorExit), r"\(GeneratorExit, at .*; it ends what calls it"),
        (raising(SystemExit(0)), r"\(SystemExit: 0, at .*; it ends what calls it"),
        (raising(SilentError()), r"\(SilentError, at .*; forward takes"),
    ],
)
def test_a_forward_that_gives_no_result_is_one_line(forward, said):
    with pytest.raises(DscalcError, match=said) as info:
        seen(Calling(lambda m, x: forward(m, x), conv=conv()), IMAGE)
    assert "\n" not in str(info.value)


def ends(model, x):
    try:
        os._exit(0)
    except BaseException:
        return model.conv(x)


def forks(model, x):
    child = os.fork()
    if not child:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    return model.conv(x)


def test_a_model_cannot_end_the_process_and_its_children_can():
    own = os._exit
    with pytest.raises(DscalcError, match=r"os\._exit\(0\), at .*test_trace.py:\d+, would end"):
        seen(Calling(ends, conv=conv()), IMAGE)
    assert seen(Calling(forks, conv=conv()), IMAGE).macs == MACS_3_4
    assert os._exit is own


class Forked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        b = torch.jit.fork(self.b, x)
        return self.a(x), torch.jit.wait(b)


@pytest.mark.parametrize("make", [Forked, lambda: torch.jit.script(Forked())])
def test_a_fork_of_torchs_is_seen_in_its_own_module(make):
    found = seen(make(), torch.zeros(4, 8))
    assert {operator.path: operator.macs for operator in found.operators} == {"a": 256, "b": 128}


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("backend", ["FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"])
def test_attention_is_its_plain_products_whatever_the_model_asks_for(backend, values):
    def forward(model, x):
        if values and x.sum() > 1:
            return x
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return F.scaled_dot_product_attention(x, x, x)

    found = seen(Calling(forward), torch.zeros(2, 4, 10, 16))
    assert (found.macs, found.real) == (2 * 4 * 2 * 10 * 10 * 16, values)
    assert found.torch_macs == found.macs
