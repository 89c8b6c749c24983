"""The cross-check: equal to the formulas and to other ways of counting, and able to fail."""

import json
import sys

import pytest
import torch
from faults import FAULTS, built_otherwise, one_bias_more, one_mac_more
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rewrites
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dscalc import Conv, Cost, CrosscheckError, compare
from dscalc.core.blocks import SEPARABLE, STANDARD, Norm, Step
from dscalc.core.row import layer_row
from dscalc.pytorch import DepthwiseSeparableConv, crosscheck
from dscalc.pytorch.crosscheck import count
from dscalc.pytorch.modules import block_module

TEXTBOOK = Conv(3, 64, 3, 224)


def counted_on_real_tensors(module, conv):
    """Of a module that runs: MACs by fvcore and by torch, params, activations and output shape."""
    features = torch.zeros(conv.batch_size, conv.in_channels, *conv.input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        output = module(features)
    flops = FlopCountAnalysis(module, features).unsupported_ops_warnings(False)
    made = ActivationCountAnalysis(module, features).unsupported_ops_warnings(False)
    params = sum(parameter.numel() for parameter in module.parameters())
    by_torch, odd = divmod(mode.get_total_flops(), 2)
    assert not odd
    return flops.by_operator()["conv"], by_torch, params, made.total(), output.shape


@settings(max_examples=max(100, settings().max_examples))
@given(rewrites())
def test_formulas_crosscheck_fvcore_on_real_tensors_and_torch_all_agree(rewrite):
    conv, block = rewrite
    row = crosscheck(layer_row(conv, block))
    assert row.crosscheck == "exact"
    shape = (conv.batch_size, conv.out_channels, *conv.output_size)
    depthwise, _ = row.rewritten.steps
    public = DepthwiseSeparableConv(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias,
        depth_multiplier=block.numbers[0],
        depthwise_bias=depthwise.layer.bias,
        dims=len(conv.kernel_size),
    )
    for side, module in (
        (row.as_is, block_module(row.as_is.steps)),
        (row.rewritten, block_module(row.rewritten.steps)),
        (row.rewritten, public),
    ):
        macs, params, made = side.cost.macs, side.cost.params, side.cost.activations
        assert side.counted == {
            "": Cost(macs, params),
            **{step.name: Cost(step.cost.macs, step.cost.params) for step in side.steps},
        }
        assert macs == sum(step.cost.macs for step in side.steps)
        assert counted_on_real_tensors(module, conv) == (macs, macs, params, made, shape)


@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(1, 3))
def test_a_fully_connected_layer_is_counted_too(inputs, outputs, bias, batch_size):
    linear = Conv(inputs, outputs, (), (), bias=bias, batch_size=batch_size)
    made = ActivationCountAnalysis(nn.Linear(inputs, outputs), torch.zeros(batch_size, inputs))
    assert count(STANDARD.steps(linear))[""] == Cost(linear.cost.macs, linear.cost.params)
    assert made.total() == linear.cost.activations


@pytest.mark.parametrize(
    ("layers", "macs", "params"),
    [
        ({}, 0, 0),
        ({"depthwise": Conv(8, 8, 3, 14, groups=8, stride=2, bias=True)}, 72 * 49, 80),
        ({"pointwise": Conv(3, 64, 1, 14)}, 192 * 196, 192),
        ({"conv": Conv(3, 8, 3, 14), "norm": Norm(8)}, 216 * 196, 216 + 16),
        ({"norm": Norm(8)}, 0, 16),
    ],
    ids=["nothing", "depthwise", "pointwise", "with a norm", "a norm alone"],
)
def test_any_steps_are_counted_by_name(layers, macs, params):
    steps = tuple(Step(name, layer, layer.cost) for name, layer in layers.items())
    costs = {step.name: Cost(step.cost.macs, step.cost.params) for step in steps}
    assert count(steps) == {"": Cost(macs, params), **costs}


@pytest.mark.parametrize(
    "conv",
    [
        Conv(1024, 2048, 7, 4096),
        Conv(8, 16, 3, 10**8),
        Conv(8, 16, 3, 224, batch_size=10**30),
        Conv(3, 4, 3, 10**6, padding=10**6, dilation=10**5, stride=10**4),
    ],
    ids=["a large layer", "a large map", "a large batch", "large steps"],
)
def test_counts_are_exact_where_no_memory_would_suffice(conv):
    assert crosscheck(layer_row(conv, SEPARABLE)).crosscheck == "exact"


def test_crosscheck_does_not_touch_the_random_numbers():
    before = torch.get_rng_state()
    count(STANDARD.steps(TEXTBOOK))
    assert torch.equal(torch.get_rng_state(), before)


# Faults that are planted in one of the two counts.

faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


@faults
def test_a_fault_exits_with_1_names_the_numbers_and_is_marked(fault, run, monkeypatch):
    fault(monkeypatch)
    result = run("3 64 3 224")
    assert result.code == 1
    assert result.stderr == f"failed: mismatch: {'; '.join(FAULTS[fault])}\n"
    assert "✗ fvcore or torch count something else on the real modules" in result.stdout
    assert "exactly" not in result.stdout


@faults
@pytest.mark.parametrize("layer", ["3 64 3 224", "3 8,64 3 224 --verify"])
def test_a_fault_is_a_mismatch_in_every_machine_format(layer, fault, run, monkeypatch):
    fault(monkeypatch)
    result = run(f"{layer} -f json")
    report = json.loads(result.stdout)
    rows = [*report["rows"], *filter(None, [report["total"]])]
    assert (result.code, {row["crosscheck"] for row in rows}) == (1, {"mismatch"})
    assert set(run(f"{layer} --verify --get crosscheck").stdout.split()) == {"mismatch"}


def test_the_mark_stands_at_the_number_that_differs(run, monkeypatch):
    one_bias_more(monkeypatch)
    lines = run("3 64 3 224").stdout.splitlines()
    [standard] = [line for line in lines if line.strip().startswith("standard ")]
    assert standard.split() == [
        *("standard", "224x224", "86,704,128", "1,728", "✗", "(1,792)", "100.00%"),
        *("86,704,128", "✓"),
    ]


def test_a_fault_fails_even_a_quiet_run_and_beside_assertions_that_hold(run, monkeypatch):
    one_mac_more(monkeypatch)
    assert run("3", "64", "3", "224", "-q", "--assert", "mac_ratio < 1")[::2] == (1, "")


def test_failing_layers_of_a_grid_are_named_ten_of_them_and_the_rest_counted(run, monkeypatch):
    one_bias_more(monkeypatch)
    result = run("3 8,64 3 9,7 --verify")
    assert result.code == 1
    assert [line.split(": ")[:3] for line in result.stderr.splitlines()] == [
        ["failed", "mismatch", f"3 -> {oc} channels, 3x3 kernel, {d}x{d} map, padding same"]
        for oc in (8, 64)
        for d in (9, 7)
    ]
    lines = run("3 1:25 3 9 --verify").stderr.splitlines()
    assert (len(lines), lines[-1]) == (11, "mismatch: 15 more")


def test_the_library_tells_a_mismatch_too(monkeypatch):
    one_mac_more(monkeypatch)
    report = compare(3, 64, 3, 224, verify=True)
    assert report.rows[0].crosscheck == report.total.crosscheck == "mismatch"
    assert report.rows[0].as_is.differences == [
        *(("", "macs", 86_704_128, 86_704_129), ("standard", "macs", 86_704_128, 86_704_129)),
    ]


# What cannot be counted.

HUGE = "1" + "0" * 30
REFUSED = {
    "channels": f"{HUGE} 64 3 224",
    "kernel": f"3 64 {HUGE} 224",
    "map": f"3 64 3 {HUGE}",
    "stride": f"3 64 3 224 --stride {HUGE}",
    "multiplier": f"3 64 3 224 -m {HUGE}",
    "memory": "1000000000 1000000000 3 224",
}


@pytest.mark.parametrize("layer", REFUSED.values(), ids=REFUSED)
def test_where_torch_refuses_the_sizes_the_analytic_answer_stands(layer, run):
    analytic, refused = run(f"{layer} --no-verify"), run(layer)
    assert analytic.code == 0
    assert refused.code == 2
    assert refused.stdout == analytic.stdout
    assert refused.error.startswith("torch refuses a layer of these sizes, so it is not counted (")
    assert refused.error.endswith("; skip the check with --no-verify")


@pytest.mark.parametrize("sizes", [(), (3, 3, 3, 3)])
def test_layers_that_torch_has_no_convolution_for_are_refused(sizes):
    with pytest.raises(CrosscheckError, match="torch convolves in 1, 2 or 3 dimensions"):
        compare(3, 4, sizes, sizes, verify=True)


def test_refused_sizes_raise_in_the_library():
    with pytest.raises(CrosscheckError, match="torch refuses a layer of these sizes"):
        compare(10**30, 64, 3, 224, verify=True)


def test_one_refused_layer_leaves_the_others_of_a_grid_checked(run):
    result = run(f"3,{HUGE},4 64 3 9 --verify -f json")
    assert result.code == 2
    assert len(result.stderr.splitlines()) == 1
    rows = json.loads(result.stdout)["rows"]
    assert [row["crosscheck"] for row in rows] == ["exact", "skipped", "exact"]
    counts = [name for name in rows[1] if name.startswith(("fvcore_", "torch_"))]
    assert [rows[1][name] for name in counts] == [None] * 4


def test_a_refused_layer_does_not_hide_a_mismatch(run, monkeypatch):
    one_bias_more(monkeypatch)
    result = run(f"3,{HUGE} 64 3 9 --verify")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["failed", "error"]
    assert "✗" in result.stdout
    assert result.code == 2


def test_no_answer_outweighs_a_failed_assertion(run):
    result = run(HUGE, "64", "3", "224", "--assert", "mac_ratio > 1")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "failed"]
    assert result.code == 2


def without_module(monkeypatch, name):
    """Make ``import name`` fail, and dscalc.pytorch import anew."""
    for loaded in list(sys.modules):
        if loaded.startswith("dscalc.pytorch"):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", ["torch", "fvcore.nn"])
@pytest.mark.parametrize("layer", ["3 64 3 224", "3 8,64 3 224 --verify"])
def test_without_torch_or_fvcore_the_analytic_answer_stands(layer, name, run, monkeypatch):
    without_module(monkeypatch, name)
    result = run(layer)
    assert result.code == 2
    assert result.stdout == run(layer.removesuffix(" --verify") + " --no-verify").stdout
    assert "torch and fvcore" in result.error
    assert f"(import of {name} halted; None in sys.modules)" in result.error
    assert result.error.endswith("skip the check with --no-verify")


def test_a_torch_that_breaks_at_import_is_reported_as_missing(run, monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                raise OSError("libtorch_cpu.so: cannot open shared object file\n\x1b[31mred")

    without_module(monkeypatch, "torch")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    result = run("3 64 3 224")
    assert result.code == 2
    reason = r"(libtorch_cpu.so: cannot open shared object file\n\x1b[31mred)"
    assert reason in result.error  # one line, and no colour


def test_without_torch_all_else_works(run, monkeypatch):
    without_module(monkeypatch, "torch")
    assert run("3 64 3 224 --no-verify")[::2] == (0, "")
    assert run("3 8,64 3 224")[::2] == (0, "")
    assert run("3 64 3 224 --get separable_macs") == (0, "10988544\n", "")


class Sine(nn.Module):
    def forward(self, features):
        return features.sin()


def test_an_operator_that_fvcore_cannot_count_is_an_error_and_not_0(monkeypatch):
    built_otherwise(monkeypatch, lambda steps, build: nn.Sequential(build(steps), Sine()))
    with pytest.raises(CrosscheckError, match=r"^fvcore cannot count aten::sin$"):
        count(STANDARD.steps(TEXTBOOK))


def test_string_padding_is_counted_where_plain_fvcore_counts_0(monkeypatch):
    """Why modules are built with the zeros written out."""
    module = nn.Conv2d(3, 64, 3, padding="same", bias=False)
    plain = FlopCountAnalysis(module, torch.zeros(1, 3, 224, 224)).unsupported_ops_warnings(False)
    assert plain.total() == 0

    def string_padded(steps, build):
        built = build(steps)
        built.standard = module
        return built

    built_otherwise(monkeypatch, string_padded)
    assert count(STANDARD.steps(TEXTBOOK))[""] == Cost(86_704_128, 1_728)
