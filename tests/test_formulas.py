"""Formulas of one's own: what a user registers with torch's ``register_flop_formula``."""

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from dscalc import DscalcError
from dscalc.pytorch import audit


def operator(name):
    """An operator that torch cannot take apart: a product and more."""

    @torch.library.custom_op(f"dscalc_test::{name}", mutates_args=())
    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (x @ weight).cumsum(1)

    @product.register_fake
    def _(x, weight):
        return x.new_empty(x.shape[0], weight.shape[1])

    return getattr(torch.ops.dscalc_test, name)


SCAN, OTHER = operator("scan"), operator("other")


class Net(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 4))
        self.head = nn.Linear(4, 4)
        self.product = product

    def forward(self, x):
        return self.head(self.product(x, self.weight))


X = torch.zeros(3, 8)


@pytest.fixture
def register():
    """Register a formula, which is gone after the test."""
    before = dict(flop_registry)

    def register(operator, formula):
        register_flop_formula(operator)(formula)

    yield register
    flop_registry.clear()
    flop_registry.update(before)


def scan_flops(x, weight, out_shape=None, **_):
    assert out_shape == (x[0], weight[1])
    return 2 * x[0] * x[1] * weight[1]


def test_a_formula_counts_and_proves_nothing(register):
    register(SCAN, scan_flops)
    report = audit(Net(SCAN), X)
    scan, head = report.rows
    assert (scan.name, scan.kind, scan.as_is.cost.macs) == ("the model", "dscalc_test::scan", 96)
    assert (scan.as_is.cost.params, scan.as_is.cost.activations) == (32, 12)
    assert (scan.crosscheck, head.crosscheck) == ("not proved", "exact")
    assert report.macs == 96 + 3 * 16
    assert report.total.crosscheck == "not proved"
    assert report.total.torch_macs == 3 * 16
    assert report.faults == []
    assert report.notes == [
        "96 MACs of dscalc_test::scan are by your formula, scan_flops, which nothing proves"
    ]


def test_a_formula_counts_what_runs_inside_its_operator_on_real_tensors_too(register):
    class NeedsValues(Net):
        def forward(self, x):
            y = super().forward(x)
            return y if y.sum().item() < 1e9 else x

    register(SCAN, scan_flops)
    report = audit(NeedsValues(SCAN), X)
    assert (report.macs, report.total.torch_macs) == (96 + 3 * 16, 3 * 16)
    assert len(report.notes) == 2


def test_without_one_the_total_is_not_known_and_says_how_to_give_one():
    report = audit(Net(OTHER), X)
    assert report.total.unknown == {"dscalc_test::other": 1}
    assert report.notes == [
        "a formula of your own counts: register_flop_formula of torch, for dscalc_test::other"
    ]


@pytest.mark.parametrize(
    ("flops", "said"),
    [
        (3, "gives 3 FLOPs"),
        (-2, "gives -2 FLOPs"),
        (2.5, "gives 2.5 FLOPs"),
        (None, "failed (TypeError: int() argument must be "),
    ],
)
def test_what_is_no_count_is_refused(register, flops, said):
    def own(*shapes, **_):
        return flops

    register(OTHER, own)
    with pytest.raises(DscalcError) as caught:
        audit(Net(OTHER), X)
    message = str(caught.value)
    assert message.startswith(f"your formula for dscalc_test::other, own, {said}")
    assert message.endswith("it must give the FLOPs as a whole number, 2 a MAC")


def test_a_fault_of_a_formula_is_not_lost_where_the_model_catches_all(register):
    class Catches(Net):
        def forward(self, x):
            try:
                return super().forward(x)
            except Exception:
                return x

    register(OTHER, lambda *_, **__: 1 / 0)
    with pytest.raises(DscalcError, match=r"failed \(ZeroDivisionError: "):
        audit(Catches(OTHER), X)


def test_operators_of_torch_keep_their_own_formulas(register):
    flop_registry.pop(torch.ops.aten.addmm)
    register(torch.ops.aten.addmm, lambda *_, **__: 2)
    register(torch.ops.aten.relu, lambda *_, **__: 2)
    report = audit(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), X)
    assert report.macs == 3 * 32
    assert report.notes == []


def test_the_command_line_names_it(run, here):
    (here / "scans.py").write_text(
        """
import torch
from torch.utils.flop_counter import register_flop_formula
from test_formulas import OTHER, Net

@register_flop_formula(OTHER)
def other_flops(x, weight, **_):
    return 2 * x[0] * x[1] * weight[1]

def net():
    return Net(OTHER)
"""
    )
    before = dict(flop_registry)
    answer = json.loads(run("model scans.py:net --input 8 -f json").stdout)
    table = run("model scans.py:net --input 8 -f markdown").stdout
    flop_registry.clear()
    flop_registry.update(before)
    assert answer["total"]["macs"] == 48
    assert answer["notes"] == [
        "32 MACs of dscalc_test::other are by your formula, other_flops, which nothing proves"
    ]
    assert "are by your formula" in table
