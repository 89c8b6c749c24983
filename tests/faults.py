"""Faults to plant in one of the two counts: each must be found, and said where it is."""

from importlib import import_module

from dscalc import Cost

# By its path: the package also exports a function of this name.
SEAM = import_module("dscalc.pytorch.crosscheck")


def built_otherwise(monkeypatch, change):
    """Let the cross-check build other modules: ``change`` makes them from steps and the builder."""
    build = SEAM.block_module
    monkeypatch.setattr(
        SEAM, "block_module", lambda steps, device: change(steps, lambda it: build(it, device))
    )


def counted_otherwise(monkeypatch, change):
    """Let the cross-check count something else: ``change`` makes it from what it counted."""
    count = SEAM.count
    monkeypatch.setattr(SEAM, "count", lambda steps: change(count(steps)))


def with_layers(steps, name, **fields):
    """The steps, with other fields in the layer of that name."""
    return [
        step._replace(layer=step.layer.like(**fields)) if step.name == name else step
        for step in steps
    ]


def one_mac_more(monkeypatch):
    """In the count of every step."""

    def more(counts):
        steps = len(counts) - 1
        return {name: cost + Cost(1 if name else steps, 0) for name, cost in counts.items()}

    counted_otherwise(monkeypatch, more)


def a_step_for_another(monkeypatch):
    """In the count of the steps, which still add up."""

    def swapped(counts):
        names = [name for name in counts if name]
        others = zip(names, reversed(names), strict=True)
        return {"": counts[""], **{name: counts[other] for name, other in others}}

    counted_otherwise(monkeypatch, swapped)


def one_bias_more(monkeypatch):
    """In the module of the standard convolution."""
    built_otherwise(
        monkeypatch, lambda steps, build: build(with_layers(steps, "standard", bias=True))
    )


def one_forgotten_tap(monkeypatch):
    """In the module of the depthwise step: a row of 3 taps is left of 3x3."""
    built_otherwise(
        monkeypatch,
        lambda steps, build: build(with_layers(steps, "depthwise", kernel_size=(1, 3))),
    )


def a_wrong_formula_for_macs(monkeypatch):
    """In the arithmetic."""
    _one_more(monkeypatch, "conv_macs")


def a_wrong_formula_for_params(monkeypatch):
    """In the arithmetic."""
    _one_more(monkeypatch, "conv_params")


def _one_more(monkeypatch, formula):
    from dscalc.core import conv

    right = getattr(conv, formula)
    monkeypatch.setattr(conv, formula, lambda *sizes: right(*sizes) + 1)


# Of the layer 3 -> 64 with 3x3 taps on 224x224, what each makes a run say.
FAULTS = {
    one_mac_more: [
        "fvcore_standard_macs is 86,704,129, but the formula gives 86,704,128",
        "fvcore_separable_macs is 10,988,546, but the formula gives 10,988,544",
    ],
    a_step_for_another: ["a step differs"],
    one_bias_more: ["torch_standard_params is 1,792, but the formula gives 1,728"],
    one_forgotten_tap: [
        "fvcore_separable_macs is 10,085,376, but the formula gives 10,988,544",
        "torch_separable_params is 201, but the formula gives 219",
    ],
    a_wrong_formula_for_macs: [
        "fvcore_standard_macs is 86,704,128, but the formula gives 86,704,129",
        "fvcore_separable_macs is 10,988,544, but the formula gives 10,988,546",
    ],
    a_wrong_formula_for_params: [
        "torch_standard_params is 1,728, but the formula gives 1,729",
        "torch_separable_params is 219, but the formula gives 221",
    ],
}
