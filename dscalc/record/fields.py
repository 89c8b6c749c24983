"""One layer, or a total, as a flat record: the vocabulary of every format, --get and --assert."""

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dscalc.core.blocks import Comparison, Counts

if TYPE_CHECKING:  # a single layer needs no reader of networks
    from dscalc.inputs.network import Layer

Value = int | str | bool | float | Fraction | tuple[int, ...] | None
Crosscheck = Literal["exact", "mismatch", "skipped"]
Unit = Literal["macs", "flops"]
UNITS = {"macs": ("MACs", 1), "flops": ("FLOPs", 2)}  # 1 MAC = 2 FLOPs


class Record(NamedTuple):
    """One layer as a standard and as a depthwise separable convolution.

    Counts are exact ints: MACs and parameters. Ratios are exact Fractions, separable / standard
    but for ``mac_reduction``, which is standard / separable. Sizes are one int per axis. What
    does not apply is None: the sizes of a total, the counts of a skipped cross-check.
    """

    name: str | None
    kind: str
    in_channels: int | None
    out_channels: int | None
    kernel_size: tuple[int, ...] | None
    input_size: tuple[int, ...] | None
    output_size: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: str | tuple[int, ...] | None
    dilation: tuple[int, ...] | None
    groups: int | None
    depth_multiplier: int | None
    bias: bool | None
    depthwise_bias: bool | None
    batch_size: int | None
    standard_macs: int
    standard_params: int
    depthwise_macs: int | None
    depthwise_params: int | None
    pointwise_macs: int | None
    pointwise_params: int | None
    separable_macs: int
    separable_params: int
    mac_ratio: Fraction | None
    mac_ratio_exact: str | None
    mac_reduction: Fraction | None
    param_ratio: Fraction | None
    fvcore_standard_macs: int | None
    fvcore_separable_macs: int | None
    torch_standard_params: int | None
    torch_separable_params: int | None
    crosscheck: Crosscheck


class Model(NamedTuple):
    """A whole model, as it is and with its eligible convolutions replaced.

    MACs are None where some of them were not counted. ``uncounted_operators`` are those that
    fvcore has no count for, with their numbers of calls.
    """

    macs: int | None
    params: int
    separable_macs: int | None
    separable_params: int
    uncounted_operators: dict[str, int]


MODEL_FIELDS = tuple(f"model_{field}" for field in Model._fields[:-1])  # the counts
RATIOS = ("mac_ratio", "mac_ratio_exact", "mac_reduction", "param_ratio")
_ALWAYS = ("standard_macs", "standard_params", "separable_macs", "separable_params")
CHECKED = {  # what a formula gives: what is counted on real modules
    "standard_macs": "fvcore_standard_macs",
    "separable_macs": "fvcore_separable_macs",
    "standard_params": "torch_standard_params",
    "separable_params": "torch_separable_params",
}


def record(
    comparison: Comparison,
    counted: Counts | None = None,
    *,
    name: str | None = None,
    kind: str = "separable",
    counts: Counts | None = None,
) -> Record:
    """The record of a comparison.

    ``counted`` is what the cross-check counted, if it ran; ``counts`` replaces what the formulas
    give for one call of a module.
    """
    standard, depthwise = comparison.standard, comparison.depthwise
    described = (
        name,
        kind,
        standard.in_channels,
        standard.out_channels,
        standard.kernel_size,
        standard.input_size,
        standard.output_size,
        standard.stride,
        standard.padding,
        standard.dilation,
        standard.groups,
        depthwise.out_channels // depthwise.in_channels if depthwise else None,
        standard.bias,
        depthwise.bias if depthwise else None,
        standard.batch_size,
    )
    return Record._make(described + _numbers(counts or comparison.counts, counted))


_NOT_OF_LINEAR: dict[str, Any] = dict.fromkeys(
    ("kernel_size", "input_size", "output_size", "stride", "padding", "dilation", "groups")
)


def layer_record(layer: "Layer", counted: Counts | None = None) -> Record:
    """The record of a layer of a network."""
    if layer.comparison:
        row = record(layer.comparison, counted, name=layer.name, kind=layer.kind)
        return row._replace(**_NOT_OF_LINEAR) if layer.kind == "linear" else row
    described = {
        "name": layer.name,
        "kind": layer.kind,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "input_size": layer.input_size,
        "output_size": layer.output_size,
    }
    numbers = _numbers(layer.counts, counted)
    fields = Record._fields
    return Record._make(
        [*(described.get(field) for field in fields[: len(fields) - len(numbers)]), *numbers]
    )


def total(records: Iterable[Record]) -> Record:
    """The record of all layers together: counts added up, and the ratios of the sums."""
    rows = list(records)
    values: dict[str, Any] = dict.fromkeys(Record._fields)
    for field in (*Counts._fields, *CHECKED.values()):
        known = [value for row in rows if (value := getattr(row, field)) is not None]
        values[field] = sum(known) if known or field in _ALWAYS else None
    checks = {row.crosscheck for row in rows}
    check = next((verdict for verdict in ("mismatch", "skipped") if verdict in checks), "exact")
    if "skipped" in checks:
        values.update(dict.fromkeys(CHECKED.values()))
    ratios = _ratios(Counts._make(values[field] for field in Counts._fields))
    values.update(zip(RATIOS, ratios, strict=True), name="total", kind="total", crosscheck=check)
    return Record(**values)


def _numbers(counts: Counts, counted: Counts | None) -> tuple[Any, ...]:
    """What a record holds from its counts on."""
    return (
        *counts,
        *_ratios(counts),
        counted and counted.standard_macs,
        counted and counted.separable_macs,
        counted and counted.standard_params,
        counted and counted.separable_params,
        "skipped" if counted is None else "exact" if counted == counts else "mismatch",
    )


def _ratios(counts: Counts) -> tuple[Fraction | None, str | None, Fraction | None, Fraction | None]:
    mac_ratio = param_ratio = None
    if counts.standard_macs:
        mac_ratio = Fraction(counts.separable_macs, counts.standard_macs)
    if counts.standard_params:
        param_ratio = Fraction(counts.separable_params, counts.standard_params)
    if mac_ratio is None:
        return None, None, None, param_ratio
    exact = f"{mac_ratio.numerator}/{mac_ratio.denominator}"
    return mac_ratio, exact, Fraction(mac_ratio.denominator, mac_ratio.numerator), param_ratio


def names(fields: Iterable[str], unit: Unit) -> list[str]:
    """The fields as a unit names them: ``standard_macs`` is ``standard_flops`` in FLOPs."""
    return [_in_unit(field, unit) for field in fields]


def values(row: NamedTuple, unit: Unit) -> dict[str, Value]:
    """The record in a unit: under its names there, the counts multiplied."""
    return _all_in_unit(row._asdict(), unit)


def model_values(model: Model, unit: Unit) -> dict[str, Value]:
    """The counts of a model as fields beside those of a record: ``model_macs`` and so on."""
    return _all_in_unit(dict(zip(MODEL_FIELDS, model[:-1], strict=True)), unit)


def model_object(model: Model, unit: Unit) -> dict[str, object]:
    """The model as JSON has it, in a unit."""
    counts = {name.removeprefix("model_"): n for name, n in model_values(model, unit).items()}
    return {**counts, "uncounted_operators": model.uncounted_operators}


def _all_in_unit(fields: dict[str, Value], unit: Unit) -> dict[str, Value]:
    scale = UNITS[unit][1]
    return {
        _in_unit(field, unit): value * scale if field.endswith("_macs") and value else value
        for field, value in fields.items()
    }


def _in_unit(field: str, unit: Unit) -> str:
    return field.removesuffix("macs") + unit if field.endswith("_macs") else field
