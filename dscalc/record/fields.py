"""The vocabulary: the name, unit, type, meaning and value of each field of a row.

Every format, ``--get``, ``--assert`` and ``--sort`` read this table; no name of a field is
spelled anywhere else. Counts are exact ints, ratios exact Fractions, times floats.

A value is written as Python over a row's parts, such as ``after.macs - before.macs``: all that a
report shows of a row is then compiled into one function, which a million rows need; see `reading`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any, Literal, NamedTuple

from dscalc import words
from dscalc.core.blocks import SEPARABLE, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.roofline import least_bytes
from dscalc.core.row import Row
from dscalc.errors import DscalcError

Command = Literal["compare", "blocks", "network", "model", "bench"]
Unit = Literal["macs", "flops"]
Value = int | str | bool | float | Fraction | tuple[int, ...] | list[Any] | None
DEFAULT: dict[str, Block] = {"network": STANDARD}  # else separable: what rows are rewritten as
UNITS = {"macs": ("MACs", 1), "flops": ("FLOPs", 2)}  # 1 MAC = 2 FLOPs


class Field(NamedTuple):
    """One value of a row.

    Args:
        name: what every format calls it.
        unit: of its number; "" where it has none.
        type: of its value, where it has one.
        doc: what it is, in a few words.
        value: how it is read from a row, as `reading` takes it.
        formula: the same of what the cross-check holds it against; "" where nothing counts it.
    """

    name: str
    unit: str
    type: type
    doc: str
    value: str
    formula: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it can be compared and sorted."""
        return self.type in (int, float, Fraction)

    def read(self, row: Row) -> Any:
        """Its value in a row."""
        return reading(self.value)(row)[0]

    def expected(self, row: Row) -> Any:
        """What the formulas give for it, if the cross-check counts it."""
        return reading(self.formula)(row)[0]


@lru_cache
def reading(*values: str, **names: Callable[..., Any]) -> Callable[[Row], tuple[Any, ...]]:
    """A function that reads all of the values of a row at once.

    They may speak of the ``row``, its ``layer``, its costs ``before`` and ``after`` it is
    rewritten, and the costs of its ``steps`` by name; of the functions of this module; and of
    further ``names``, or the same with another meaning.
    """
    known = {"ratio": Fraction, "least_bytes": least_bytes, "exact": _exact, **names}
    known |= {"closed_form": closed_form, "steps_of": _steps}
    read = eval(f"lambda row, layer, before, after, steps: ({', '.join(values)},)", known)

    def read_row(row: Row) -> tuple[Any, ...]:
        after = row.rewritten
        costs = {step.name: step.cost for step in after.steps}
        found: tuple[Any, ...] = read(row, row.layer, row.as_is.cost, after.cost, costs)
        return found

    return read_row


@lru_cache
def fields(command: Command, block: Block, unit: Unit = "macs") -> tuple[Field, ...]:
    """The fields of a command's rows where they are rewritten as a block."""
    if command == "blocks":
        return tuple(_block_fields(unit))
    label, scale = UNITS[unit]
    bench = command == "bench"
    named = STANDARD.name if command in ("compare", "bench") else ""
    found = [
        *_layer(command),
        *_counts(named, f"{named} convolution" if named else "the row", "before", unit),
    ]
    if named:
        found += _traffic(named, "before", bench)
    else:
        found.append(Field("share", "ratio", Fraction, "MACs of the row / of the total", _SHARE))
    found += _counts(block.name, block.name, "after", unit)
    if named:
        found += _traffic(block.name, "after", bench)
    for step in block.step_names:
        found += _step(step, block.name, unit)
    found += _RATIOS
    saved = f"before.macs * {scale} - after.macs * {scale}"
    found.append(Field(f"saved_{unit}", label, int, "as it is - rewritten", saved))
    if bench:
        found += _times(named, block)
    else:
        sides = {named: "before", block.name: "after"}
        found += _proof(sides, "fvcore", "macs", unit)
        found += _proof(sides, "torch", "params", unit)
        found.append(_CROSSCHECK)
    if command == "model":
        found = [
            field
            if field.formula or field.unit in ("", "params") or field.name == "param_ratio"
            else _if_known(field)
            for field in found
        ]
        doc = f"{label} as torch's FlopCounterMode counts them; of the total"
        counted = f"row.torch_macs and row.torch_macs * {scale}"
        found.append(Field(f"torch_{unit}", label, int, doc, counted, "row.torch_macs"))
    return tuple(found)


def _block_fields(unit: Unit) -> Iterator[Field]:
    """A row of ``blocks`` is a block in place of the standard layer."""
    yield from _layer("blocks")
    yield from _counts("", "the block", "after", unit)
    yield from _RATIOS
    doc = "the first ratio in symbols, if that is short"
    yield Field("closed_form", "", str, doc, "closed_form(row)")
    doc = "its steps in order, each with its sizes and cost"
    yield Field("steps", "", list, doc, f"steps_of(row, {unit!r})")
    yield from _proof({"": "after"}, "fvcore", "macs", unit)
    yield from _proof({"": "after"}, "torch", "params", unit)
    yield _CROSSCHECK


def closed_form(row: Row) -> str | None:
    """The ratio of MACs of a row of ``blocks`` in symbols, if that is short and true of it."""
    assert isinstance(row.layer, Conv)
    form = row.block.closed_form(row.layer) if row.block else None
    return form[0] if form and form[2] == row.mac_ratio else None


def _steps(row: Row, unit: Unit) -> list[dict[str, Value]]:
    return [
        {
            "name": step.name,
            "in_channels": step.layer.in_channels,
            "out_channels": step.layer.out_channels,
            "kernel_size": step.layer.kernel_size,
            "groups": step.layer.groups,
            "output_size": step.layer.output_size,
            unit: step.cost.macs * UNITS[unit][1],
            "params": step.cost.params,
        }
        for step in row.rewritten.steps
        if isinstance(step.layer, Conv)
    ]


def _if_known(field: Field) -> Field:
    """The field, without a value where some operators have no count."""
    return field._replace(value=f"None if row.unknown else {field.value}")


def find(name: str, command: Command, block: Block, unit: Unit = "macs") -> Field:
    """The field of that name.

    Raises:
        DscalcError: there is none; it says what was probably meant, or what it is called now.
    """
    known = {field.name: field for field in fields(command, block, unit)}
    if name in known:
        return known[name]
    other: Unit = "flops" if unit == "macs" else "macs"
    renamed = _renamed(command, block, other) | _renamed(command, block, unit)
    near = [other for other in known if name in other][:3] or get_close_matches(name, known, 3, 0.5)
    if name in renamed:
        now = renamed[name]
        hint = now if " " in now else f"{command} calls it {now}"
    elif name in (others := [field.name for field in fields(command, block, other)]):
        hint = f"with --unit {unit} it is called {list(known)[others.index(name)]}"
        if unit == "macs":
            hint = "with --unit flops it is known"
    elif blocks := [
        block
        for block in (STANDARD, SEPARABLE)
        if name in (field.name for field in fields(command, block, unit))
    ]:
        hint = f"with --as {blocks[0]} it is known"
    else:
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {' '.join(known)}"
    raise DscalcError(f"unknown field {words.shown(name)}; {hint}")


def _renamed(command: Command, block: Block, unit: Unit) -> dict[str, str]:
    """What schema dscalc/1 called a field: its name now, or where to find it."""
    names = {
        "ratio": "mac_ratio",
        "fewer": "mac_reduction",
        "depth_multiplier": "it is the number of --as separable:M",
        "depthwise_bias": "it is what --depthwise-bias says",
    }
    if command == "network":
        names |= {
            f"separable_{unit}": unit,
            "separable_params": "params",
            "depth_multiplier": "it is a column of files, and no field",
            "depthwise_bias": "bias",
            f"fvcore_separable_{unit}": f"fvcore_{unit}",
            "torch_separable_params": "torch_params",
        }
    if command == "model":
        names |= {
            f"standard_{unit}": unit,
            "standard_params": "params",
            f"model_{unit}": unit,
            "model_params": "params",
            f"model_separable_{unit}": f"{block.name}_{unit}",
            "model_separable_params": f"{block.name}_params",
            f"fvcore_standard_{unit}": f"fvcore_{unit}",
            "torch_standard_params": "torch_params",
        }
    return names


def values(row: Row, known: Sequence[Field]) -> dict[str, Value]:
    """The row by the names of its fields."""
    read = reading(*[field.value for field in known])
    return dict(zip([field.name for field in known], read(row), strict=True))


def _layer(command: Command) -> Iterator[Field]:
    yield Field("name", "", str, "what people call it", "row.name")
    yield Field("kind", "", str, "what it is: conv, linear, pool, ..., total", "row.kind")
    if command in ("network", "model"):
        yield Field("kept", "", str, "why it is not rewritten; empty if it is", "row.kept")
    for name, type_, doc in (
        ("in_channels", int, "channels of the input"),
        ("out_channels", int, "channels of the output"),
        ("kernel_size", tuple, "taps of the filter along each axis"),
        ("input_size", tuple, "size of the input map along each axis"),
        ("output_size", tuple, "size of the output map along each axis"),
        ("stride", tuple, "step of the filter along each axis"),
        ("padding", object, "same, valid, or zeros at each end of each axis"),
        ("dilation", tuple, "distance between taps along each axis"),
        ("groups", int, "groups of channels convolved apart"),
        ("bias", bool, "whether each output channel adds a bias"),
        ("batch_size", int, "samples"),
    ):
        yield Field(name, "", type_, doc, f"layer.{name}")
    if command == "model":
        yield Field("calls", "", int, "how often it runs", "row.calls")


def _counts(name: str, what: str, cost: str, unit: Unit) -> Iterator[Field]:
    label, scale = UNITS[unit]
    prefix = f"{name}_" if name else ""
    yield Field(f"{prefix}{unit}", label, int, f"{label} of {what}", f"{cost}.macs * {scale}")
    for noun, unit_, doc in (
        ("params", "params", f"weights and biases of {what}"),
        ("activations", "elements", f"output elements of {what}"),
    ):
        yield Field(f"{prefix}{noun}", unit_, int, doc, f"{cost}.{noun}")


def _traffic(name: str, cost: str, measured: bool) -> Iterator[Field]:
    moved = f"least_bytes({cost}{', row.measured.bytes_per_element' if measured else ''})"
    doc = "bytes that must move: inputs, parameters, outputs, once"
    yield Field(f"{name}_bytes", "bytes", int, doc, moved)
    doc = "FLOPs for each of these bytes"
    value = f"ratio({cost}.macs * 2, moved) if (moved := {moved}) else None"
    yield Field(f"{name}_intensity", "FLOP/byte", Fraction, doc, value)


def _step(step: str, block: str, unit: Unit) -> Iterator[Field]:
    label, scale = UNITS[unit]
    what = f"the {step} step of {block}"
    macs, params = (
        f"{value} if {step!r} in steps else None"
        for value in (f"steps[{step!r}].macs * {scale}", f"steps[{step!r}].params")
    )
    yield Field(f"{step}_{unit}", label, int, f"{label} of {what}", macs)
    yield Field(f"{step}_params", "params", int, f"weights and biases of {what}", params)


def _ratio(name: str, doc: str, above: str, below: str) -> Field:
    return Field(name, "ratio", Fraction, doc, f"ratio({above}, {below}) if {below} else None")


def _exact(above: int, below: int) -> str:
    common = gcd(above, below)
    return f"{above // common}/{below // common}"


_SHARE = "None if row.share is None else ratio(row.share.numerator, row.share.denominator)"
_RATIOS = (
    _ratio("mac_ratio", "MACs, rewritten / as it is", "after.macs", "before.macs"),
    Field(
        "mac_ratio_exact", "", str, "the same as a fraction",
        "exact(after.macs, before.macs) if before.macs and not row.unknown else None",
    ),
    _ratio("mac_reduction", "MACs, as it is / rewritten", "before.macs", "after.macs"),
    _ratio("param_ratio", "params, rewritten / as it is", "after.params", "before.params"),
)  # fmt: skip


_CROSSCHECK = Field(
    "crosscheck", "", str,
    "exact: fvcore and torch count what the formulas give; mismatch; or skipped",
    "row.crosscheck", "'exact'",
)  # fmt: skip


def _proof(sides: Mapping[str, str], counter: str, noun: str, unit: Unit) -> Iterator[Field]:
    """What a counter finds of each side, and the formula beside it."""
    label, scale = UNITS[unit] if noun == "macs" else (noun, 1)
    for name, cost in sides.items():
        found = f"row.{'as_is' if cost == 'before' else 'rewritten'}.counted"
        spelled = "_".join(filter(None, (counter, name, unit if noun == "macs" else noun)))
        doc = f"{label} as {counter} counts them"
        value = f"{found} and {found}[''].{noun} * {scale}"
        yield Field(spelled, label, int, doc, value, f"{cost}.{noun} * {scale}")


def _times(named: str, block: Block) -> Iterator[Field]:
    steps = {step: f"row.measured.steps[{step!r}]" for step in block.step_names}
    times = {named: "row.measured.as_is", **steps, block.name: "row.measured.rewritten"}
    for name, time in times.items():
        doc = f"median time of {name}"
        yield Field(f"{name}_time_us", "us", float, doc, f"{time}.time_us")
        doc = f"interquartile range of the times of {name}"
        yield Field(f"{name}_time_iqr_us", "us", float, doc, f"{time}.time_iqr_us")
    for name, cost in ((named, "before"), (block.name, "after")):
        rate = f"{times[name]}.gflops_per_s({cost})"
        yield Field(f"{name}_gflops_per_s", "GFLOP/s", float, f"achieved by {name}", rate)
    doc = f"time, {named} / {block.name}"
    yield Field("speedup", "ratio", float, doc, "row.measured.speedup")
    doc = "whether an interquartile range is over 10% of its median"
    yield Field("noisy", "", bool, doc, "row.measured.noisy")
    for name, type_, doc in (
        ("device", str, "where it ran"),
        ("device_name", str, "what that is"),
        ("torch_version", str, "of the torch that ran it"),
        ("threads", int, "of torch on the CPU"),
        ("dtype", str, "of weights and maps"),
        ("channels_last", bool, "whether channels are stored innermost"),
        ("compile", bool, "whether torch.compile compiled it"),
    ):
        yield Field(name, "", type_, doc, f"row.measured.environment.{name}")
