"""Quantities that a counter may count: products and elements, by name. A convention sums them.

Those of a model come from its trace (`dscalc.peers.observer`), those of layers from their rows,
here. A name that is missing in a Counter is 0; a name that is missing in a dict, which is of a
network, is not known.

Products, in MACs: ``conv`` ``transposed`` ``linear`` ``matmul`` ``attention`` ``recurrent``
``bilinear``; ``vector``, those with a vector; of these ``conv.string_padding``; and
``transposed.by_output``, at output instead of input positions.

Elements: ``conv.out``, and of those with a bias ``conv.bias``; norms with their scale and shift
(``batch_norm.affine``) or without (``batch_norm.plain``); ``relu`` and its kin; ``softmax``,
``softmax.rows``; pools by ``.in``, ``.out``, ``.windows`` (the elements in all windows), ``.taps``
and ``.steps`` (outputs * kernel, * stride); ``upsample.bilinear.in``, ``.out``; ``add``, ``mul``.

A prefix says who sees the quantity: ``module``, calls of torch's own modules; ``subclass``, of
modules derived from them; ``leaf``, of either if no module is inside, and ``last``, the last call
of each; ``F``, functions of ``torch.nn.functional``, which most modules call; ``torch``, functions
of torch; ``tensor``, methods of tensors; ``sign``, ``+ * @`` of tensors. In front of
all this, ``head`` and ``pool`` mean the part of the classifier and of the global pool before it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy
from math import prod

from dscalc.core.conv import Conv
from dscalc.core.row import Row
from dscalc.core.transposed import TransposedConv

Quantities = Mapping[str, int]
PRODUCTS = (
    *("conv", "transposed", "linear", "matmul"),
    *("attention", "recurrent", "bilinear", "vector"),
)
NORMS = ("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm")


def of_conv(conv: Conv, macs: int, outputs: int) -> Counter[str]:
    """Quantities of one call of a convolution or of a linear layer, a `Conv` without axes."""
    kind = "conv" if conv.kernel_size else "linear"
    if isinstance(conv, TransposedConv):
        kind = "transposed"
    found = Counter({kind: macs, f"{kind}.out": outputs})
    found[f"{kind}.bias"] = outputs if conv.bias else 0
    if kind == "transposed":
        taps = prod(conv.kernel_size)
        found["transposed.by_output"] = outputs * taps * conv.in_channels // conv.groups
        found["transposed.grouped"] = int(conv.groups > 1)
        found["transposed.calls"] = 1
    return found


def without(quantities: Quantities, *parts: str) -> Quantities:
    """The quantities without ``parts``: ``head``, the classifier, or ``pool``, before it."""
    found = copy(quantities)
    assert isinstance(found, dict)
    for name, number in quantities.items():
        part, _, rest = name.partition(".")
        if part in parts:
            found[rest] -= number
    return found


def layer_quantities(convs: Iterable[Conv]) -> Counter[str]:
    """Quantities of convolutions and linear layers alone, as torch's own modules."""
    found: Counter[str] = Counter()
    for conv in convs:
        cost = conv.cost
        own = of_conv(conv, cost.macs, cost.activations)
        found += own
        for seer in ("module", "leaf", "last"):
            found += Counter({f"{seer}.{name}": number for name, number in own.items()})
        if conv.kernel_size:
            found["parameters.conv.weight"] += own["transposed.by_output"] or cost.macs
            found["parameters.conv.bias"] += own["conv.bias"] + own["transposed.bias"]
        else:
            found["parameters.others"] += cost.params * conv.batch_size
            found["linear.bias.addmm"] += own["linear.bias"]
            for seer in ("module", "leaf"):
                found[f"{seer}.linear.bias.once"] += conv.out_channels if conv.bias else 0
    return found


def row_quantities(rows: Iterable[Row]) -> Quantities:
    """Quantities of a network: its layers, norms and global pools.

    Activations are not known: a network lists none. Other pools are not known: a network does not
    say their kind.
    """
    rows = list(rows)
    steps = [step for row in rows for step in row.as_is.steps]
    convs = [step.layer for step in steps if isinstance(step.layer, Conv)]
    found, batch_size = layer_quantities(convs), convs[0].batch_size if convs else 1
    known = set(_OF_NETWORKS)
    for row in rows:
        channels, size = row.layer.out_channels or 0, row.layer.output_size or ()
        outputs = batch_size * channels * prod(size)
        for step in row.as_is.steps:
            if isinstance(step.layer, Conv):
                outputs = step.cost.activations
            elif step.layer:  # a norm of the output of the step before it, or of the row
                found["batch_norm.affine"] += outputs
                found["parameters.others"] += step.cost.params * batch_size
        if row.kind == "pool" and prod(size) == 1:
            inputs = batch_size * channels * prod(row.layer.input_size or ())
            found["adaptive_avg_pool.in"] += inputs
            found["adaptive_avg_pool.windows"] += inputs
            found["adaptive_avg_pool.out"] += outputs
            for window in ("mean_window", "whole_window"):
                found[f"adaptive_avg_pool.{window}"] += inputs + outputs
        elif row.kind in ("pool", "upsample"):
            known -= {name for name in known if name.startswith(("max", "avg", "upsample"))}
    for name in known:
        if name.split(".")[0].endswith(("norm", "pool")):
            found[f"module.{name}"] = found[f"F.{name}"] = found[name]
    seers = ("", "module.", "subclass.", "F.", "torch.", "tensor.")
    everything = {f"{seer}{name}": found[f"{seer}{name}"] for name in known for seer in seers}
    for name in ("conv.weight", "conv.bias", "others"):
        everything[f"parameters.{name}"] = found[f"parameters.{name}"]
    head = layer_quantities([conv for conv in convs if not conv.kernel_size][-1:])
    everything |= {f"head.{name}": head[name] for name in head if name in everything}
    return everything | {"sign.mean.in": 0, "sign.mean.out": 0}


_ENDS = ("in", "out", "windows", "mean_window", "whole_window")
_OF_NETWORKS = (
    *PRODUCTS,
    *("conv.bias", "conv.string_padding", "linear.bias", "mean.in", "mean.out"),
    *("transposed.bias", "transposed.by_output", "transposed.calls"),
    *(f"{norm}.{kind}" for norm in NORMS for kind in ("affine", "plain")),
    *(
        f"{pool}_pool.{end}"
        for pool in ("max", "avg", "adaptive_avg", "adaptive_max")
        for end in _ENDS
    ),
    *(f"upsample.{mode}.{end}" for mode in ("nearest", "bilinear", "bicubic") for end in _ENDS),
    *("softmax", "softmax.rows", "prelu", "linear.bias.addmm", "linear.tokens"),
    *("mha.projections", "mha.products", "mha.softmax", "mha.softmax.rows"),
    "transposed.grouped",
)
