"""Other counters: the sum of quantities that each of them prints.

A counter is an entry of one table, derived from its source and compared with its own totals
(docs/counting.md).
"""

from itertools import product
from typing import NamedTuple

from dscalc.peers.quantities import NORMS, Quantities

Summand = tuple[str, int]  # words and count


class Term(NamedTuple):
    """A summand in words, and its quantities, each with a factor."""

    words: str
    parts: tuple[tuple[int, str], ...]

    def value(self, quantities: Quantities) -> int:
        """The sum of the quantities.

        Raises:
            KeyError: one of the quantities is not known.
        """
        return sum(factor * quantities[name] for factor, name in self.parts)


class Convention(NamedTuple):
    """One way to count.

    Args:
        name: the counter, with the version that was measured.
        source: the file that counts so.
        products: its summands that are MACs.
        besides: its other summands.
        per_mac: its count per MAC.
        unless: if a model has any of these quantities, this counter is not predicted.
        assumes: what must be true if this counter is meant; "" if nothing.
    """

    name: str
    source: str
    products: tuple[Term, ...]
    besides: tuple[Term, ...] = ()
    per_mac: int = 1
    unless: tuple[str, ...] = ()
    assumes: str = ""

    def summands(self, quantities: Quantities) -> list[Summand] | None:
        """The summands that are not 0; None if the counter is not predicted."""
        try:
            if any(quantities[name] for name in self.unless):
                return None
            found = [(term.words, self.per_mac * term.value(quantities)) for term in self.products]
            found += [(term.words, term.value(quantities)) for term in self.besides]
        except KeyError:
            return None
        return [(what, value) for what, value in found if value]


_ALIASES = {
    "ANY": "module|subclass",
    "CALLS": "torch|tensor|sign",
    "NORMS": "|".join(NORMS),
    "WINDOWS": "max_pool|avg_pool",
    "POOLS": "max_pool|avg_pool|adaptive_avg_pool|adaptive_max_pool",
    "CHANNEL_NORMS": "batch_norm|instance_norm|group_norm",
}


def _terms(lines: str) -> tuple[Term, ...]:
    """One term per line: ``words: 4 module.batch_norm|layer_norm.affine, -1 conv``.

    A bar adds up both; a line without words continues the line before.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for line in filter(None, map(str.strip, lines.split("\n"))):
        words, colon, parts = line.rpartition(":")
        summed = found.setdefault(words if colon else [*found][-1], [])
        for part in filter(None, map(str.strip, parts.split(","))):
            factor, _, name = part.rpartition(" ")
            each = [_ALIASES.get(step, step).split("|") for step in name.split(".")]
            summed += [(int(factor or 1), ".".join(steps)) for steps in product(*each)]
    return tuple(Term(words, tuple(parts)) for words, parts in found.items())


def _entry(
    name: str, source: str, products: str, besides: str = "", *,
    per_mac: int = 1, unless: str = "", assumes: str = "",
) -> Convention:  # fmt: skip
    """A counter whose terms are lines."""
    unless_any = tuple(unless.split())
    return Convention(
        name, source, _terms(products), _terms(besides), per_mac, unless_any, assumes
    )  # fmt: skip


# ---- Terms of several counters. ----

_CONV, _LINEAR = "convolutions: conv\n", "linear layers: linear\n"
_TRANSPOSED = "transposed convolutions: transposed\n"
_BY_OUTPUT = "transposed convolutions at output positions: "
_BEHIND_CONV = f"{_TRANSPOSED}{_LINEAR}"
_MATRICES = "matrix products: matmul\n"
_ATTENTION = "attention: attention\n"
_RECURRENT = "recurrent layers: recurrent, bilinear\n"
_SEEN_APART = f"{_CONV}{_BEHIND_CONV}{_MATRICES}"  # a fused attention is not seen
_WITHOUT_SIGNS = f"{_CONV}{_BEHIND_CONV}matrix products: torch|tensor.matmul"  # without a @ b
_KNOWN_TO_OTHERS = f"{_SEEN_APART}{_ATTENTION}{_RECURRENT}"
# A convolution that pads by a word is another operator, which these counters do not know.
_CONV_BY_NUMBERS = "convolutions: conv, -1 conv.string_padding\n"
_OF_MODULES = """convolutions: module.conv
    transposed convolutions: module.transposed
    linear layers: module.linear"""
_OF_MODULES_BY_OUTPUT = f"""convolutions: module.conv
    {_BY_OUTPUT}module.transposed.by_output
    linear layers: module.linear"""
_OF_LEAVES = "convolutions: leaf.conv\nlinear layers: leaf.linear"
_OF_LAST_CALLS = "convolutions: last.conv\nlinear layers: last.linear"
_LINEAR_AND_MHA = "linear layers: module.linear, module.mha.projections"

_CONV_BIASES = "biases of convolutions (1 per output): module.conv|transposed.bias"
_OTHER_NORMS = (
    "other norms (5 per element): 5 F.layer_norm|group_norm|instance_norm.affine, "
    "4 F.layer_norm|group_norm|instance_norm.plain"
)
_SOFTMAX = "softmax (3 per element - 1 per row): 3 {0}.softmax, -1 {0}.softmax.rows"
_GLOBAL_POOLS = "global pools (1 per input): F.global_pool.in, CALLS.mean.in"
_ADDED_AND_MULTIPLIED = """additions (1 per output): CALLS.add|iadd
    multiplications (1 per output): CALLS.mul|imul"""
_BILINEAR = "bilinear upsampling ({0} per output): {0} {1}.upsample.bilinear.out"
_TRANSFORMERS = "matmul attention recurrent bilinear F.layer_norm.affine"

_FVCORE = "facebookresearch/fvcore, fvcore/nn/jit_handles.py"
_THOP = "Lyken17/pytorch-OpCounter, thop/vision/basic_hooks.py"
_PTFLOPS = "sovrasov/flops-counter.pytorch, ptflops/pytorch_ops.py"
_CALFLOPS = "MrYxJ/calculate-flops.pytorch, calflops/pytorch_ops.py"
_TORCH_COUNTER = "pytorch/pytorch, torch/utils/flop_counter.py"

PARAMETERS = "params, not MACs"
OLDER = "an older counter"
FLOAT32 = "an older counter, in float32"
ELSEWHERE = "in its own framework"
OPENMMLAB = "on models of OpenMMLab's own"


def _fvcore(
    name: str, *, training: bool = False, fused: bool = True, own: bool = False,
    assumes: str = "", source: str = _FVCORE,
) -> Convention:  # fmt: skip
    """An entry of fvcore or a fork of it; ``own`` models write means as adaptive pools."""
    batch_norm = "batch norm (2 per element): 2 F.batch_norm.affine, F.batch_norm.plain"
    if training:
        batch_norm = (
            "batch norm (5 per element, in training mode): "
            "5 F.batch_norm.affine, 4 F.batch_norm.plain"
        )
    return _entry(
        name, source,
        f"{_CONV_BY_NUMBERS}{_BEHIND_CONV}{_MATRICES}{'' if fused else _ATTENTION}", f"""
        {batch_norm}
        {_OTHER_NORMS}
        adaptive average pools (1 per input): F.adaptive_avg_pool.in{', CALLS.mean.in' * own}
        {_BILINEAR.format(4, "F")}
        nearest upsampling (1 per output): F.upsample.nearest.out""", assumes=assumes,
    )  # fmt: skip


def _early_thop(name: str, again: str, norm: int, pools: str, bilinear: int) -> Convention:
    """A release of thop before April 2020, which also adds ``again`` for linear layers."""
    return _entry(
        name, "Lyken17/pytorch-OpCounter, thop/count_hooks.py", f"""{_OF_MODULES_BY_OUTPUT}
        linear layers a second time: module.linear, -1 module.linear.out{again}""", f"""
        {_CONV_BIASES}
        batch norm ({norm} per element): {norm} module.batch_norm.affine|plain
        average pools: module.avg_pool.{pools}, module.adaptive_avg_pool.whole_window
        leaky ReLU (1 per element): module.leaky_relu
        {_BILINEAR.format(bilinear, "module")}""", assumes=FLOAT32,
    )  # fmt: skip


def _mmcv(name: str, *, own: bool = False, assumes: str = OLDER) -> Convention:
    """The fork of ptflops in mmcv; ``own`` models call a module where others call a function."""
    seen, relu6 = ("F|CALLS", ", F.hardtanh") if own else ("module", "")  # which ReLU6 calls
    products, biases = (
        (f"{_CONV}{_BEHIND_CONV}", "conv|transposed.bias")
        if own
        else (_OF_MODULES, "module.conv|transposed.bias")
    )
    return _entry(
        name, "open-mmlab/mmcv, mmcv/cnn/utils/flops_counter.py", products, f"""
        biases of convolutions (1 per output): {biases}
        norms (2 per element): 2 {seen}.CHANNEL_NORMS.affine, {seen}.CHANNEL_NORMS.plain,
            2 module.layer_norm.affine, module.layer_norm.plain
        activations (1 per element): {seen}.relu|relu6|prelu|elu|leaky_relu{relu6}
        pools (1 per input): {seen}.POOLS.in
        upsampling (1 per output): {seen}.upsample.nearest|bilinear|bicubic.out""",
        assumes=assumes,
    )  # fmt: skip


# ---- The table. ----

MACS = _entry("MACs alone", "", f"{_KNOWN_TO_OTHERS}products with vectors: vector")
TABLE = (
    _fvcore("fvcore 0.1.5"),
    _fvcore("fvcore 0.1.5 in training mode", training=True, assumes="in training mode"),
    _fvcore("fvcore 0.1.5 (attention not fused)", fused=False, assumes=OLDER),
    _fvcore("mmengine 0.10 (OpenMMLab)", training=True, fused=False, own=True, assumes=OPENMMLAB,
            source="open-mmlab/mmengine, mmengine/analysis/jit_handles.py"),
    _entry("ultralytics-thop 2.2.3", "ultralytics/thop, thop/vision/basic_hooks.py", f"""
        convolutions: ANY.conv
        transposed convolutions: ANY.transposed
        {_LINEAR}{_MATRICES}{_ATTENTION}""", f"""
        norms (4 per element): 4 ANY.NORMS.affine, 2 ANY.NORMS.plain
        average pools (windows and outputs): ANY.avg_pool|adaptive_avg_pool.windows|out
        {_SOFTMAX.format("ANY")}, 3 ANY.mha.softmax, -1 ANY.mha.softmax.rows
        PReLU (1 per element): ANY.prelu
        {_BILINEAR.format(11, "ANY")}""", unless="recurrent bilinear"),
    _entry("thop 0.1.1", _THOP, _OF_MODULES_BY_OUTPUT, f"""
        norms (4 per element): 4 module.batch_norm|layer_norm|instance_norm.affine,
            2 module.batch_norm|layer_norm|instance_norm.plain
        average pools: module.avg_pool.out, module.adaptive_avg_pool.mean_window
        {_SOFTMAX.format("module")}
        PReLU (1 per element): module.prelu
        {_BILINEAR.format(11, "module")}""", unless="recurrent"),
    _entry("thop 0.0.31", _THOP, _OF_MODULES_BY_OUTPUT, f"""
        {_CONV_BIASES}
        batch norm (2 per element): 2 module.batch_norm.affine|plain
        average pools: module.avg_pool.out, module.adaptive_avg_pool.whole_window
        leaky ReLU (1 per element): module.leaky_relu
        {_BILINEAR.format(11, "module")}""", unless="recurrent", assumes=OLDER),
    _early_thop("thop of early 2020", ", module.linear.bias", 2, "out", 11),
    _early_thop("thop of late 2019", ", module.linear.bias", 4, "sides|out", 11),
    _early_thop("thop of 2019", "", 4, "sides|out", 13),
    _entry("ptflops 0.7.5", _PTFLOPS, f"""
        convolutions: module.conv
        transposed convolutions: module.transposed
        {_LINEAR_AND_MHA}
        matrix products: torch|tensor.matmul
        attention: module.mha.products""", """
        biases (1 per output): module.conv|transposed|linear.bias
        norms (2 per element, layer norm 1): 2 module.CHANNEL_NORMS.affine,
            module.CHANNEL_NORMS.plain, module.layer_norm.affine|plain
        activations (1 for the module, 1 for the function):
            module.relu|prelu|elu|leaky_relu|relu6|gelu, F.relu|elu|relu6|gelu|silu, F|torch.prelu
        pools (1 per input for the module, 1 for the function): module|F.POOLS.in
        softmax (1 per element): F.softmax, module.mha.softmax
        upsampling (1 per output for the module, 1 for the function):
            module|F.upsample.nearest|bilinear.out
        scaling and biases of attention: 5 module.mha.tokens
        calls of add and mul (1 per output): torch|tensor.add|mul""",
        unless="recurrent timm.attention"),
    _entry("ptflops 0.6.9", _PTFLOPS, f"""
        convolutions: module.conv
        {_BY_OUTPUT}module.transposed.by_output
        {_LINEAR_AND_MHA}
        attention: module.mha.products""", """
        biases (1 per output, of linear layers once): module.conv|transposed.bias,
            module.linear.bias.once
        norms (2 per element): 2 module.CHANNEL_NORMS.affine, module.CHANNEL_NORMS.plain
        activations (1 per element): module.relu|prelu|elu|leaky_relu|relu6|gelu
        pools (1 per input): module.POOLS.in
        softmax of attention (1 per element): module.mha.softmax
        upsampling (1 per output): module.upsample.nearest|bilinear.out
        scaling and biases of attention: 5 module.mha.tokens""",
        unless="recurrent", assumes=OLDER),
    _mmcv("mmcv 1.7"),
    _mmcv("mmcv 1.7 (OpenMMLab)", own=True, assumes=OPENMMLAB),
    _entry("ptflops 0.7.5 (aten)", "sovrasov/flops-counter.pytorch, ptflops/aten_ops.py",
             _SEEN_APART, "biases (1 per output): conv|transposed.bias, linear.bias.addmm",
             unless="recurrent bilinear"),
    _entry("torchinfo 1.8.0", "TylerYep/torchinfo, torchinfo/layer_info.py",
             "convolutions: parameters.conv.weight", """
        biases of convolutions (1 per output): parameters.conv.bias
        weights and biases of other modules, once: parameters.others"""),
    _entry("calflops 0.3.2", _CALFLOPS, _WITHOUT_SIGNS,
             unless="recurrent conv.string_padding subclass.conv transposed.grouped"),
    _entry("calflops 0.3.2 (FLOPs)", _CALFLOPS, _WITHOUT_SIGNS, f"""
        biases of convolutions: conv.bias
        batch norm (2 per element): 2 F.batch_norm.affine, F.batch_norm.plain
        {_OTHER_NORMS}
        activations (1 per element): F.relu|gelu|silu|prelu|leaky_relu|relu6|elu
        pools (1 per input): F.POOLS.in
        softmax (1 per element): F.softmax
        upsampling (1 per input): F.upsample.nearest|bilinear.in""", per_mac=2,
        unless="recurrent conv.string_padding subclass.conv transposed.grouped transposed.bias"),
    # It adds 1 for each product of sizes in transformers, which dscalc does not see.
    _entry("torchprofile 0.1.0", "zhijian-liu/torchprofile, torchprofile/handlers.py", f"""
        {_CONV_BY_NUMBERS}{_BY_OUTPUT}transposed.by_output
        {_LINEAR}{_MATRICES}{_ATTENTION}{_RECURRENT}""", f"""
        norms (1 per element): F.batch_norm|instance_norm|layer_norm|group_norm.affine
        average pools and means (1 per output): F.avg_pool|adaptive_avg_pool.out, CALLS.mean.out
        multiplications (1 per output): CALLS.mul
        leaky ReLU (1 per element): F.leaky_relu
        {_BILINEAR.format(4, "F")}""", unless="bilinear transposed.grouped attention matmul"),
    _entry("torchscan 0.2.0", "frgfm/torch-scan, torchscan/modules/flops.py", f"""
        convolutions: ANY.conv
        {_BY_OUTPUT}ANY.transposed.by_output, 8 ANY.transposed.calls
        linear layers: ANY.linear""", """
        batch norm (2 per element): 2 module.batch_norm.affine, module.batch_norm.plain
        pools: module.max_pool.sides, -1 module.max_pool.out, module.avg_pool.sides|out,
            module.adaptive_avg_pool.in|out""", unless="recurrent"),
    _entry("rethinking-network-pruning",
             "Eric-mingjie/rethinking-network-pruning, imagenet/thinet/compute_flops.py",
             _OF_LEAVES, """
        biases of convolutions (1 per output): leaf.conv.bias
        biases of linear layers, once: leaf.linear.bias.once
        batch norm (2 per element): 2 leaf.batch_norm.affine|plain
        ReLU (1 per element): leaf.relu
        pools (1 for each tap of an output): leaf.WINDOWS.taps
        upsampling (12 per output): 12 leaf.upsample.nearest|bilinear.out""",
        per_mac=2, unless="leaf.linear.tokens"),
    # It keeps the last call of a module that is called twice.
    _entry("torchstat 0.0.7", "Swall0w/torchstat, torchstat/compute_flops.py",
           _OF_LAST_CALLS, """
        biases of convolutions (1 per output): last.conv.bias
        batch norm (2 per element): 2 last.batch_norm.affine, last.batch_norm.plain
        activations (1 per element): last.relu|relu6|prelu|elu|leaky_relu
        pools (1 per input): last.WINDOWS.in""", assumes=OLDER,
        unless="last.linear.tokens last.upsample.nearest.out last.upsample.bilinear.out"),
    _entry("torchstat 0.0.7 (MAdd)", "Swall0w/torchstat, torchstat/compute_madd.py",
           _OF_LAST_CALLS, """
        missing additions (n products have n - 1): -1 last.conv|linear.out, last.conv.bias
        batch norm (4 per element): 4 last.batch_norm.affine|plain
        ReLU (1 per element): last.relu|relu6
        pools (1 per tap): last.WINDOWS.taps, -1 last.max_pool.out
        softmax (3 per element - 1): 3 last.softmax, -1 last.softmax.calls""",
        per_mac=2, unless="last.linear.tokens last.transposed", assumes=OLDER),
    _entry("paddle.flops 2.6", "PaddlePaddle/Paddle, python/paddle/hapi/dynamic_flops.py",
             f"{_CONV}{_BY_OUTPUT}transposed.by_output\n{_LINEAR}", """
        biases of convolutions (1 per output): conv|transposed.bias
        batch norm (2 per element): 2 F.batch_norm.affine|plain
        average pools: F.avg_pool.out, F.adaptive_avg_pool.whole_window, CALLS.mean.in|out
        leaky ReLU (1 per element): F.leaky_relu""", assumes=ELSEWHERE),
    _entry("TensorFlow's profiler 2.15",
             "tensorflow/tensorflow, tensorflow/python/profiler/internal/flops_registry.py",
             f"{_CONV}{_LINEAR}", f"""
        biases (1 per output): conv|linear.bias
        pools (1 for each tap of an output): F.WINDOWS.taps
        {_GLOBAL_POOLS}
        softmax (5 per element): 5 F.softmax, 5 logits
        {_ADDED_AND_MULTIPLIED}""", per_mac=2, unless=f"transposed {_TRANSFORMERS}",
        assumes=ELSEWHERE),
    _entry("convnet-burden", "albanie/convnet-burden, core/burden.m",
             f"{_CONV}{_BEHIND_CONV}", f"""
        biases (1 per output): conv|transposed|linear.bias
        ReLU (2 per element): 2 F|CALLS.relu|relu6, 2 F.hardtanh
        pools (2 for each step of an output): 2 F.WINDOWS.steps
        {_GLOBAL_POOLS}
        {_ADDED_AND_MULTIPLIED}
        {_BILINEAR.format(4, "F")}""", unless=_TRANSFORMERS, assumes=ELSEWHERE),
    _entry("FlopCounterMode", _TORCH_COUNTER, _KNOWN_TO_OTHERS, per_mac=2),
    _entry("FlopCounterMode, CPU", _TORCH_COUNTER, _SEEN_APART, per_mac=2, unless="bilinear"),
    _entry("FlopCounterMode, CPU, no_grad", _TORCH_COUNTER, f"""{_CONV}{_TRANSPOSED}
        linear layers: linear, -1 module.mha.projections
        {_MATRICES}""", per_mac=2, unless="bilinear"),
)  # fmt: skip
