"""The cross-check: equal to the formulas and to other ways of counting, and able to fail."""

import json
import sys
from importlib import import_module

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import comparisons
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dscalc import Comparison, Conv, compare
from dscalc.errors import CrosscheckError
from dscalc.pytorch import DepthwiseSeparableConv, crosscheck
from dscalc.pytorch.modules import convolution

# The package also exports the function of this name.
THE_MODULE = import_module("dscalc.pytorch.crosscheck")


def counted_on_real_tensors(module, conv):
    """MACs by fvcore and by torch of a module that runs, its params and its output shape."""
    features = torch.zeros(conv.batch_size, conv.in_channels, *conv.input_size)
    analysis = FlopCountAnalysis(module, features).unsupported_ops_warnings(False)
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        output = module(features)
    flops = mode.get_total_flops()
    assert flops % 2 == 0
    params = sum(parameter.numel() for parameter in module.parameters())
    return analysis.by_operator()["conv"], flops // 2, params, output.shape


@settings(max_examples=max(300, settings().max_examples))
@given(comparisons())
def test_formulas_crosscheck_fvcore_on_real_tensors_and_torch_all_agree(arguments):
    layer = compare(**arguments)
    counts = crosscheck(layer)
    assert counts == layer.counts

    standard = convolution(layer.standard)
    separable = DepthwiseSeparableConv(
        arguments["in_channels"],
        arguments["out_channels"],
        arguments["kernel_size"],
        arguments["stride"],
        arguments["padding"],
        arguments["dilation"],
        bias=arguments["bias"],
        depth_multiplier=arguments["depth_multiplier"],
        depthwise_bias=arguments["depthwise_bias"],
        dims=len(arguments["input_size"]),
    )
    shape = (arguments["batch_size"], arguments["out_channels"], *layer.standard.output_size)
    for module, macs, params in (
        (standard, counts.standard_macs, counts.standard_params),
        (separable, counts.separable_macs, counts.separable_params),
    ):
        assert counted_on_real_tensors(module, layer.standard) == (macs, macs, params, shape)


@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(1, 3))
def test_a_fully_connected_layer_is_counted_too(inputs, outputs, bias, batch_size):
    layer = Comparison(Conv(inputs, outputs, (), (), bias=bias, batch_size=batch_size))
    assert crosscheck(layer) == layer.counts


def test_a_replacement_without_a_pointwise_step_is_counted():
    depthwise = Conv(8, 8, 3, 14, groups=8, stride=2, bias=True)
    layer = Comparison(depthwise, depthwise)
    assert crosscheck(layer) == layer.counts


@pytest.mark.parametrize(
    "layer",
    [
        compare(1024, 2048, 7, 4096),
        compare(8, 16, 3, 10**8),
        compare(8, 16, 3, 224, batch_size=10**30),
        compare(3, 4, 3, 10**6, padding=10**6, dilation=10**5, stride=10**4),
    ],
    ids=["a large layer", "a large map", "a large batch", "large steps"],
)
def test_counts_are_exact_where_no_memory_would_suffice(layer):
    assert crosscheck(layer) == layer.counts


def test_crosscheck_does_not_touch_the_random_numbers():
    before = torch.get_rng_state()
    crosscheck(compare(3, 64, 3, 224))
    assert torch.equal(torch.get_rng_state(), before)


# Faults that are planted in one of the two counts.


def one_mac_more(monkeypatch):
    count = THE_MODULE.conv_flop_count
    monkeypatch.setattr(THE_MODULE, "conv_flop_count", lambda *shapes: count(*shapes) + 1)


def one_bias_more(monkeypatch):
    def with_bias(conv, device):
        module = convolution(conv, device)
        module.bias = nn.Parameter(torch.empty(conv.out_channels, device=device))
        return module

    monkeypatch.setattr(THE_MODULE, "convolution", with_bias)


def one_forgotten_tap(monkeypatch):
    def narrower(depthwise, pointwise, device):
        ic, oc = depthwise.in_channels, pointwise.out_channels
        return DepthwiseSeparableConv(ic, oc, (1, 3), 1, (0, 1), bias=False, device=device)

    monkeypatch.setattr(THE_MODULE, "separable_convolution", narrower)


def a_wrong_formula(monkeypatch):
    from dscalc.core import conv

    count = conv.conv_macs
    monkeypatch.setattr(conv, "conv_macs", lambda *sizes: count(*sizes) + 1)


FAULTS = {
    one_mac_more: [
        "fvcore_standard_macs is 86,704,129 and the formula gives 86,704,128",
        "fvcore_separable_macs is 10,988,546 and the formula gives 10,988,544",
    ],
    one_bias_more: ["torch_standard_params is 1,792 and the formula gives 1,728"],
    one_forgotten_tap: [
        "fvcore_separable_macs is 10,085,376 and the formula gives 10,988,544",
        "torch_separable_params is 201 and the formula gives 219",
    ],
    a_wrong_formula: [
        "fvcore_standard_macs is 86,704,128 and the formula gives 86,704,129",
        "fvcore_separable_macs is 10,988,544 and the formula gives 10,988,546",
    ],
}
faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


@faults
def test_a_fault_exits_with_1_and_names_the_numbers_that_differ(fault, run, monkeypatch):
    fault(monkeypatch)
    result = run("3 64 3 224")
    assert result.code == 1
    assert result.stderr == f"failed: mismatch: {'; '.join(FAULTS[fault])}\n"


@faults
def test_a_fault_is_marked_in_the_table(fault, run, monkeypatch):
    fault(monkeypatch)
    stdout = run("3 64 3 224").stdout
    assert "✗" in stdout
    assert "✗ fvcore or torch count something else on the real modules" in stdout
    assert "exactly" not in stdout


@faults
@pytest.mark.parametrize("layer", ["3 64 3 224", "3 8,64 3 224 --verify"])
def test_a_fault_is_a_mismatch_in_every_machine_format(layer, fault, run, monkeypatch):
    fault(monkeypatch)
    result = run(f"{layer} -f json")
    report = json.loads(result.stdout)
    assert result.code == 1
    assert {row["crosscheck"] for row in [*report["rows"], report["total"]]} == {"mismatch"}
    assert set(run(f"{layer} --verify --get crosscheck").stdout.split()) == {"mismatch"}


def test_the_mark_stands_at_the_number_that_differs(run, monkeypatch):
    one_bias_more(monkeypatch)
    lines = run("3 64 3 224").stdout.splitlines()
    [standard] = [line for line in lines if line.strip().startswith("standard ")]
    assert standard.split() == [
        *("standard", "224x224", "86,704,128", "1,728", "✗", "1,792", "100%", "86,704,128", "✓")
    ]


def test_a_fault_fails_even_a_quiet_run_and_beside_assertions_that_hold(run, monkeypatch):
    one_mac_more(monkeypatch)
    assert run("3", "64", "3", "224", "-q", "--assert", "mac_ratio < 1")[::2] == (1, "")


def test_every_failing_layer_of_a_grid_is_named(run, monkeypatch):
    one_bias_more(monkeypatch)
    result = run("3 8,64 3 9,7 --verify")
    assert result.code == 1
    assert [line.split(": ")[:3] for line in result.stderr.splitlines()] == [
        ["failed", "mismatch", f"3 -> {oc} channels, 3x3 kernel, {d}x{d} map"]
        for oc in (8, 64)
        for d in (9, 7)
    ]


def test_of_many_failures_ten_are_named_and_the_rest_counted(run, monkeypatch):
    one_bias_more(monkeypatch)
    lines = run("3 1:25 3 9 --verify").stderr.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "mismatch: 15 more"


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
    assert refused.error.endswith("; add --no-verify to do without")


def test_a_comparison_with_one_step_alone_is_counted_as_that_step():
    pointwise = Conv(3, 64, 1, 14)
    layer = Comparison(Conv(3, 64, 3, 14), pointwise=pointwise)
    assert crosscheck(layer) == layer.counts
    assert layer.separable_macs == pointwise.macs


@pytest.mark.parametrize("sizes", [(), (3, 3, 3, 3)])
def test_layers_that_torch_has_no_convolution_for_are_refused(sizes):
    with pytest.raises(CrosscheckError, match="torch convolves in 1, 2 or 3 dimensions"):
        crosscheck(compare(3, 4, sizes, sizes))


def test_refused_sizes_raise_in_the_library():
    with pytest.raises(CrosscheckError, match="torch refuses a layer of these sizes"):
        crosscheck(compare(10**30, 64, 3, 224))


def test_one_refused_layer_leaves_the_others_of_a_grid_checked(run):
    result = run(f"3,{HUGE},4 64 3 9 --verify --get crosscheck")
    assert result.code == 2
    assert result.stdout.split() == ["exact", "skipped", "exact"]
    assert len(result.stderr.splitlines()) == 1


def test_a_total_of_layers_that_were_not_all_counted_claims_no_count(run):
    total = json.loads(run(f"3,{HUGE} 64 3 9 --verify -f json").stdout)["total"]
    assert total["crosscheck"] == "skipped"
    counted = [value for name, value in total.items() if name.startswith(("fvcore_", "torch_"))]
    assert counted == [None] * 4


def test_a_refused_layer_does_not_hide_a_mismatch(run, monkeypatch):
    one_bias_more(monkeypatch)
    result = run(f"3,{HUGE} 64 3 9 --verify -f json")
    assert json.loads(result.stdout)["total"]["crosscheck"] == "mismatch"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["failed", "error"]
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
    assert result.error.endswith("add --no-verify")


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


def test_an_operator_that_fvcore_cannot_count_is_an_error_and_not_0(monkeypatch):
    def with_sine(conv, device):
        return nn.Sequential(convolution(conv, device), Sine())

    monkeypatch.setattr(THE_MODULE, "convolution", with_sine)
    with pytest.raises(CrosscheckError, match=r"^fvcore cannot count aten::sin$"):
        crosscheck(compare(3, 64, 3, 224))


def test_string_padding_is_counted_where_plain_fvcore_counts_0(monkeypatch):
    def string_padded(conv, device):
        return nn.Conv2d(
            conv.in_channels, conv.out_channels, 3, padding="same", bias=False, device=device
        )

    monkeypatch.setattr(THE_MODULE, "convolution", string_padded)
    layer = compare(3, 64, 3, 224)
    assert crosscheck(layer) == layer.counts


class Sine(nn.Module):
    def forward(self, features):
        return features.sin()


def test_plain_fvcore_counts_string_padding_as_0():
    """Why modules are built with the zeros written out."""
    module = nn.Conv2d(8, 16, 3, padding="same")
    analysis = FlopCountAnalysis(module, torch.zeros(1, 8, 10, 10)).unsupported_ops_warnings(False)
    assert analysis.total() == 0
    assert crosscheck(compare(8, 16, 3, 10)).standard_macs == 115_200
