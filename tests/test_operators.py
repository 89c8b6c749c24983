"""The MACs of each product, against loops that compute what torch computes."""

from itertools import product

import pytest
import torch
from layers import Calling
from torch.nn import functional as F  # noqa: N812

from dscalc.pytorch import audit
from dscalc.pytorch.operators import LEAVES, attention_macs


class Loop:
    """Adds up products into a tensor, and counts them."""

    def __init__(self, shape, start=0):
        self.result, self.macs = torch.zeros(shape) + start, 0

    def add(self, index, left, right):
        self.result[index] += left * right
        self.macs += 1


def whole(*shape):
    """Small whole numbers, so that any order of sums gives the same."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-3, 4, shape, generator=generator).float()


def matrix_product(left, right, start=0):
    (rows, inner), columns = left.shape, right.shape[1]
    loop = Loop((rows, columns), start)
    for i, j, k in product(range(rows), range(columns), range(inner)):
        loop.add((i, j), left[i, k], right[k, j])
    return loop


def batched(left, right, start=0):
    loops = [matrix_product(*both) for both in zip(left, right, strict=True)]
    whole = Loop(())
    whole.result = torch.stack([loop.result for loop in loops]) + start
    whole.macs = sum(loop.macs for loop in loops)
    return whole


def summed(left, right, start=0):
    loop = batched(left, right)
    loop.result = loop.result.sum(0) + start
    return loop


def in_groups(left, right, ends):
    """Each group of rows of ``left`` times its own matrix."""
    loop = Loop((left.shape[0], right.shape[2]))
    starts = [0, *ends[:-1].tolist()]
    for group, (start, end) in enumerate(zip(starts, ends.tolist(), strict=True)):
        for i, j, k in product(range(start, end), range(right.shape[2]), range(right.shape[1])):
            loop.add((i, j), left[i, k], right[group, k, j])
    return loop


def over_inner_groups(left, right, ends):
    """Each group of columns of ``left`` times its group of rows of ``right``: matrices, stacked."""
    starts = [0, *ends[:-1].tolist()]
    loops = [
        matrix_product(left[:, start:end], right[start:end])
        for start, end in zip(starts, ends.tolist(), strict=True)
    ]
    whole = Loop(())
    whole.result = torch.stack([loop.result for loop in loops])
    whole.macs = sum(loop.macs for loop in loops)
    return whole


def outer(left, right, start=0):
    loop = Loop((len(left), len(right)), start)
    for i, j in product(range(len(left)), range(len(right))):
        loop.add((i, j), left[i], right[j])
    return loop


def kronecker(left, right):
    (a, b), (c, d) = left.shape, right.shape
    loop = Loop((a * c, b * d))
    for i, j, k, m in product(range(a), range(b), range(c), range(d)):
        loop.add((i * c + k, j * d + m), left[i, j], right[k, m])
    return loop


def over_time(features, kernel, bias):
    taps, channels, filters = kernel.shape
    steps, batch, _ = features.shape
    loop = Loop((steps - taps + 1, batch, filters), bias)
    for t, n, f in product(*map(range, loop.result.shape)):
        for tap, channel in product(range(taps), range(channels)):
            loop.add((t, n, f), features[t + tap, n, channel], kernel[tap, channel, f])
    return loop


def weighted_bags(bags, table, weights):
    loop = Loop((len(bags), table.shape[1]))
    for bag, (rows, scales) in enumerate(zip(bags.tolist(), weights, strict=True)):
        for (row, scale), column in product(zip(rows, scales, strict=True), range(table.shape[1])):
            loop.add((bag, column), table[row, column], scale)
    return loop


def attended(query, key, value):
    """Scores and their sums, of one head."""
    scores = matrix_product(query, key.T)
    whole = matrix_product(torch.softmax(scores.result / query.shape[-1] ** 0.5, -1), value)
    whole.macs += scores.macs
    return whole


bf16 = torch.Tensor.bfloat16
ENDS = torch.tensor([2, 2, 7], dtype=torch.int32)  # one of the groups is empty
BAGS = torch.tensor([[0, 2, 2], [3, 1, 0]])
POSITIONS = torch.tensor(2 * [[(x / 2, y, 1) for y in (-1, 0, 1) for x in range(-2, 3)]])

# What torch computes, on what; the same by loops.
PRODUCTS = {
    "addmm_": (
        lambda y, a, b: y.clone().addmm_(a, b), (whole(5, 6), whole(5, 3), whole(3, 6)),
        lambda y, a, b: matrix_product(a, b, y),
    ),
    "addmv_": (
        lambda y, a, b: y.clone().addmv_(a, b), (whole(5), whole(5, 3), whole(3)),
        lambda y, a, b: summed(a[None], b[None, :, None], y[:, None]),
    ),
    "baddbmm_": (
        lambda y, a, b: y.clone().baddbmm_(a, b), (whole(2, 5, 6), whole(2, 5, 3), whole(2, 3, 6)),
        lambda y, a, b: batched(a, b, y),
    ),
    "addbmm": (
        torch.addbmm, (whole(5, 6), whole(2, 5, 3), whole(2, 3, 6)),
        lambda y, a, b: summed(a, b, y),
    ),
    "addbmm_": (
        lambda y, a, b: y.clone().addbmm_(a, b), (whole(5, 6), whole(2, 5, 3), whole(2, 3, 6)),
        lambda y, a, b: summed(a, b, y),
    ),
    "_addmm_activation": (
        lambda y, a, b: torch._addmm_activation(y, a, b, use_gelu=False),
        (whole(6) + 100, whole(5, 3), whole(3, 6)), lambda y, a, b: matrix_product(a, b, y),
    ),
    "_int_mm": (
        lambda a, b: torch._int_mm(a.to(torch.int8), b.to(torch.int8)).float(),
        (whole(32, 16), whole(16, 8)), matrix_product,
    ),
    "_grouped_mm": (
        lambda a, b, ends: torch._grouped_mm(bf16(a), bf16(b), offs=ends).float(),
        (whole(7, 8), whole(3, 8, 16), ENDS), in_groups,
    ),
    "_grouped_mm of batches": (
        lambda a, b: torch._grouped_mm(bf16(a), bf16(b)).float(),
        (whole(3, 5, 8), whole(3, 8, 16)), batched,
    ),
    "_grouped_mm over inner groups": (
        lambda a, b, ends: torch._grouped_mm(bf16(a), bf16(b), offs=ends).float(),
        (whole(8, 8), whole(8, 16), ENDS + 1), over_inner_groups,
    ),
    "addr": (torch.addr, (whole(4, 5), whole(4), whole(5)), lambda y, a, b: outer(a, b, y)),
    "addr_": (
        lambda y, a, b: y.clone().addr_(a, b), (whole(4, 5), whole(4), whole(5)),
        lambda y, a, b: outer(a, b, y),
    ),
    "kron": (torch.kron, (whole(2, 3), whole(4, 5)), kronecker),
    "conv_tbc": (torch.conv_tbc, (whole(7, 2, 3), whole(3, 3, 4), whole(4)), over_time),
    "affine_grid": (
        lambda theta: F.affine_grid(theta, (2, 1, 3, 5), align_corners=True).flatten(1, 2),
        (whole(2, 2, 3),), lambda theta: batched(POSITIONS, theta.mT),
    ),
    "a weighted embedding bag": (
        lambda bags, table, weights: F.embedding_bag(
            bags, table, per_sample_weights=weights, mode="sum"
        ),
        (BAGS, whole(4, 5), whole(2, 3)), weighted_bags,
    ),
    "fused attention by name": (
        lambda q, k, v: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[None, None], k[None, None], v[None, None]
        )[0][0, 0],
        (whole(5, 8), whole(7, 8), whole(7, 8)), attended,
    ),
    "attention": (
        F.scaled_dot_product_attention, (whole(5, 8), whole(7, 8), whole(7, 6)), attended,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("function", "inputs", "loop"), PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_costs_what_a_loop_multiplies(function, inputs, loop, request):
    if "_grouped_mm" in request.node.name and not hasattr(torch, "_grouped_mm"):
        pytest.skip("torch 2.4 has no grouped product")
    by_loop = loop(*inputs)
    torch.testing.assert_close(function(*inputs), by_loop.result.squeeze(), check_stride=False)
    report = audit(Calling(lambda m, *x: function(*x)), *inputs)
    assert (report.macs, report.faults) == (by_loop.macs, [])
    assert report.total.crosscheck in ("exact", "not proved")  # torch counts some of them


def test_an_embedding_bag_without_weights_adds_alone():
    report = audit(Calling(lambda m, table: F.embedding_bag(BAGS.to(table.device), table)),
                   torch.zeros(4, 5))  # fmt: skip
    assert report.macs == 0


def test_a_fused_attention_of_each_name_has_the_formula():
    query, key, value = (2, 4, 10, 16), (2, 4, 12, 16), (2, 4, 12, 8)
    named = [formula for name, formula in LEAVES.items() if "scaled_dot_product" in name]
    assert {formula(query, key, value, output=(2, 4, 10, 8)) for formula in named} == {
        2 * 4 * 10 * 12 * (16 + 8)
    }
    assert named.count(attention_macs) == len(named) == 5
