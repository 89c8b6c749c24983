"""The vocabulary: the name, unit, type, meaning and value of each field of a row.

Every format, ``--get``, ``--assert`` and ``--sort`` read this table; no name of a field is
spelled anywhere else. Counts are exact ints, ratios exact Fractions, times floats.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from math import gcd
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dscalc import show
from dscalc.core.blocks import SEPARABLE, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.roofline import least_bytes
from dscalc.core.row import Row
from dscalc.errors import DscalcError

if TYPE_CHECKING:  # but few rows are measured
    from dscalc.bench.measurement import Measurement, Time
    from dscalc.core.cost import Cost

Command = Literal["compare", "blocks", "network", "model", "bench", "check"]
Unit = Literal["macs", "flops"]
Value = int | str | bool | float | Fraction | tuple[int, ...] | list[Any] | None
DEFAULT: dict[str, Block] = {"network": STANDARD}  # else separable: what rows are rewritten as
UNITS = {"macs": ("MACs", 1), "flops": ("FLOPs", 2)}  # 1 MAC = 2 FLOPs


class Expression:
    """Reads a value of a row; as it is text, all that a report reads is compiled into one function.

    It is Python that speaks of the ``row``, its `_PARTS` and `_NAMES`.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, row: Any) -> Any:
        """The value in a row."""
        return self._read(row)[0]

    @cached_property
    def _read(self) -> Callable[[Row], tuple[Any, ...]]:
        return _compiled([self.text])


class Path(Expression):
    """Reads an attribute of an attribute of a row, or of anything."""

    def __init__(self, path: str) -> None:
        super().__init__(f"row.{path}")
        self.path = path
        self._get = attrgetter(path)

    def __call__(self, row: Any) -> Any:
        """The value in a row."""
        return self._get(row)


class Field(NamedTuple):
    """One value of a row.

    Args:
        name: what every format calls it.
        unit: of its number; "" where it has none.
        type: of its value, where it has one.
        doc: what it is, in a few words.
        read: fetches it from a row, or from a change.
        formula: what the cross-check holds it against; None where nothing counts it.
        timed: whether it is known only as well as the times are.
    """

    name: str
    unit: str
    type: type
    doc: str
    read: Callable[[Any], Any]
    formula: Callable[[Row], Any] | None = None
    timed: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it can be compared and sorted."""
        return self.type in (int, float, Fraction)


_PARTS = {  # worked out once for each row, if an expression speaks of them
    "before": "row.as_is.cost",
    "after": "row.rewritten.cost",
    "steps": "{step.name: step.cost for step in row.rewritten.steps}",
    "element": "row.measured.bytes_per_element if row.measured else 4",
    "moved_before": "least_bytes(before, element)",
    "moved_after": "least_bytes(after, element)",
}


def _compiled(texts: Sequence[str], **names: Any) -> Callable[[Row], tuple[Any, ...]]:
    values = f"({', '.join(texts)},)"
    for name, part in reversed(_PARTS.items()):  # a part speaks of parts above it
        if re.search(rf"(?<![\w.]){name}\b", values):
            values = f"[{name} := {part}] and {values}"
    # Compiled first: an interrupt while eval compiles text ends Python by the signal, not by 130.
    code = compile(f"lambda row: {values}", "<fields>", "eval")
    read: Callable[[Row], tuple[Any, ...]] = eval(code, _NAMES | names)
    return read


@lru_cache(maxsize=16)
def reading(
    known: tuple[Field, ...], cell: Callable[[Field], str] = lambda field: "{}", **names: Any
) -> Callable[[Row], tuple[Any, ...]]:
    """One function that reads all of the fields of a row, which takes a third of the time.

    ``cell`` gives what is made of each value, such as ``str({})``, with the help of ``names``.
    """
    readers = [field.read for field in known]
    texts = [
        read.text if isinstance(read, Expression) else f"readers[{at}](row)"
        for at, read in enumerate(readers)
    ]
    texts = [cell(field).format(text) for field, text in zip(known, texts, strict=True)]
    return _compiled(texts, readers=readers, **names)


@lru_cache
def fields(command: Command, block: Block, unit: Unit = "macs") -> tuple[Field, ...]:
    """The fields of a command's rows where they are rewritten as a block.

    In ``bench`` the block `STANDARD` stands for several: each row is then one of them, as in
    ``blocks``.
    """
    if command == "blocks":
        return tuple(_block_fields(unit))
    if command == "check":
        return _OUTCOME
    bench = command == "bench"
    name = "" if bench and block == STANDARD else block.name
    named = STANDARD.name if command in ("compare", "bench") else ""
    found = [
        *_layer(command),
        *_counts(named, f"{named} convolution" if named else "the row", "as_is", unit),
    ]
    if not named:
        share = Expression("None if row.share is None else ratio(*row.share.as_integer_ratio())")
        found.append(Field("share", "ratio", Fraction, "MACs of the row / of the total", share))
    if named:
        found += _traffic(named, "as_is")
    found += _counts(name, name or "the block", "rewritten", unit)
    if named:
        found += _traffic(name, "rewritten")
    for step in block.step_names:
        found += _step(step, block.name, unit)
    found += _RATIOS
    label, scale = UNITS[unit]
    saved = Expression(_scaled("(before.macs - after.macs)", scale))
    found.append(Field(f"saved_{unit}", label, int, "as it is - rewritten", saved))
    if bench:
        found += _times(named, name, block.step_names)
    else:
        sides = {named: "as_is", block.name: "rewritten"}
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
        count = _scaled("row.torch_macs", scale)
        macs = Expression(f"None if row.torch_macs is None else {count}")
        found.append(Field(proof_name("torch", "", unit), label, int, doc, macs, macs))
    return tuple(found)


def _block_fields(unit: Unit) -> Iterator[Field]:
    """A row of ``blocks`` is a block in place of the standard layer."""
    yield from _layer("blocks")
    yield from _counts("", "the block", "rewritten", unit)
    yield from _RATIOS
    yield Field("closed_form", "", str, "the first ratio in symbols, if that is short", closed_form)
    yield Field("steps", "", list, "its steps in order, each with its sizes and cost", _steps(unit))
    yield from _proof({"": "rewritten"}, "fvcore", "macs", unit)
    yield from _proof({"": "rewritten"}, "torch", "params", unit)
    yield _CROSSCHECK


def closed_form(row: Row) -> str | None:
    """The ratio of MACs of a row of ``blocks`` in symbols, if that is short and true of it."""
    assert isinstance(row.layer, Conv)
    form = row.block.closed_form(row.layer) if row.block else None
    return form[0] if form and form[2] == row.mac_ratio else None


def _steps(unit: Unit) -> Callable[[Row], list[dict[str, Value]]]:
    def read(row: Row) -> list[dict[str, Value]]:
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

    return read


def _if_known(field: Field) -> Field:
    """The field, without a value where some operators have no count."""
    assert isinstance(field.read, Expression)
    return field._replace(read=Expression(f"None if row.unknown else {field.read.text}"))


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
    within = [other for other in known if name in other][:3]
    near = within or get_close_matches(name, known, 3)
    if name in renamed:
        now = renamed[name]
        hint = now if " " in now else f"{command} calls it {now}"
    elif name in (others := [field.name for field in fields(command, block, other)]):
        hint = f"with --unit {unit} it is called {list(known)[others.index(name)]}"
        if unit == "macs":
            hint = "it needs --unit flops"
    elif not within and (counts := [counted for counted in others if name in counted]):
        hint = f"with --unit {other} there is {' or '.join(counts[:3])}"
    elif blocks := [
        block
        for block in (STANDARD, SEPARABLE)
        if name in (field.name for field in fields(command, block, unit))
    ]:
        hint = f"it needs --as {blocks[0]}"
    else:
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {' '.join(known)}"
    raise DscalcError(f"unknown field {show.shown(name)}; {hint}")


def _renamed(command: Command, block: Block, unit: Unit) -> dict[str, str]:
    """What schema dscalc/1 called a field: its name now, or where to find it."""
    names = {
        "ratio": "mac_ratio",
        "fewer": "mac_reduction",
        "depth_multiplier": "it is the number of --as separable:M",
        "depthwise_bias": "it is the option --depthwise-bias",
    }
    if command == "network":
        names |= {
            f"separable_{unit}": unit,
            "separable_params": "params",
            "depth_multiplier": "it is a column of network files, not a field",
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


def values(row: Any, known: Sequence[Field]) -> dict[str, Value]:
    """The row, or the change, by the names of its fields."""
    return next(records([row], known))


def records(rows: Iterable[Any], known: Sequence[Field]) -> Iterator[dict[str, Value]]:
    """Each row, or change, by the names of its fields."""
    names, read = [field.name for field in known], reading(tuple(known))
    for row in rows:
        yield dict(zip(names, read(row), strict=True))


def _layer(command: Command) -> Iterator[Field]:
    yield Field("name", "", str, "name of the row", Path("name"))
    yield Field("kind", "", str, "kind of the row: conv, linear, pool, ..., total", Path("kind"))
    if command in ("network", "model"):
        yield Field("kept", "", str, "why it is not rewritten; empty if it is", Path("kept"))
    for name, type_, doc in (
        ("in_channels", int, "channels of the input"),
        ("out_channels", int, "channels of the output"),
        ("kernel_size", tuple, "taps of the filter along each axis"),
        ("input_size", tuple, "size of the input map along each axis"),
        ("output_size", tuple, "size of the output map along each axis"),
        ("stride", tuple, "step of the filter along each axis"),
        ("padding", object, "same, valid, or zeros at each end of each axis"),
        ("dilation", tuple, "distance between taps along each axis"),
        ("groups", int, "number of groups"),
        ("bias", bool, "whether each output channel adds a bias"),
        ("batch_size", int, "samples"),
    ):
        yield Field(name, "", type_, doc, Path(f"layer.{name}"))
    if command == "network":
        doc = "width multiplier of a whole network"
        yield Field("width_multiplier", "", Fraction, doc, Path("width_multiplier"))
    if command == "model":
        yield Field("calls", "", int, "number of calls in a forward pass", Path("calls"))


_COSTS = {"as_is": "before", "rewritten": "after"}


def _count(side: str, noun: str, scale: int = 1) -> Expression:
    """Reads one count of a side."""
    return Expression(_scaled(f"{_COSTS[side]}.{noun}", scale))


def _scaled(count: str, scale: int) -> str:
    return f"{count} * {scale}" if scale > 1 else count


def count_names(name: str, unit: Unit) -> list[str]:
    """What the MACs, params and activations of a side or a step are called."""
    return [f"{name}_{noun}" if name else noun for noun in (unit, "params", "activations")]


def proof_name(counter: str, name: str, noun: str) -> str:
    """What a counter's count of a side is called."""
    return "_".join(filter(None, (counter, name, noun)))


def _counts(name: str, what: str, side: str, unit: Unit) -> Iterator[Field]:
    label, scale = UNITS[unit]
    macs, params, activations = count_names(name, unit)
    yield Field(macs, label, int, f"{label} of {what}", _count(side, "macs", scale))
    for spelled, noun, unit_, doc in (
        (params, "params", "params", f"weights and biases of {what}"),
        (activations, "activations", "elements", f"output elements of the products of {what}"),
    ):
        yield Field(spelled, unit_, int, doc, _count(side, noun))


def _prefix(name: str) -> str:
    """What the fields of a side begin with."""
    return f"{name}_" if name else ""


def _traffic(name: str, side: str) -> Iterator[Field]:
    moved = Expression(f"moved_{_COSTS[side]}")
    doc = "least bytes moved: inputs, parameters and outputs, once each"
    yield Field(f"{_prefix(name)}bytes", "bytes", int, doc, moved)
    yield _ratio(
        f"{_prefix(name)}intensity", "FLOPs per byte of these", _count(side, "macs", 2),
        moved, "FLOP/byte",
    )  # fmt: skip


def _step(step: str, block: str, unit: Unit) -> Iterator[Field]:
    label, scale = UNITS[unit]

    def of(noun: str, scale: int = 1) -> Expression:
        cost = f"None if (step := steps.get({step!r})) is None else step"
        return Expression(_scaled(f"{cost}.{noun}", scale))

    what = f"the {step} step of {block}"
    macs, params, _ = count_names(step, unit)
    yield Field(macs, label, int, f"{label} of {what}", of("macs", scale))
    yield Field(params, "params", int, f"weights and biases of {what}", of("params"))


def _ratio(name: str, doc: str, above: Expression, below: Expression, unit: str = "ratio") -> Field:
    divided = f"ratio({above.text}, below) if (below := {below.text}) else None"
    return Field(name, unit, Fraction, doc, Expression(divided))


def _exact(above: int, below: int) -> str:
    common = gcd(above, below)
    return f"{above // common}/{below // common}"


_NAMES = {"ratio": Fraction, "exact": _exact, "least_bytes": least_bytes}
_MACS = _count("as_is", "macs"), _count("rewritten", "macs")
_RATIOS = (
    _ratio("mac_ratio", "MACs, rewritten / as it is", _MACS[1], _MACS[0]),
    Field(
        "mac_ratio_exact", "", str, "the same ratio as an exact fraction",
        Expression("exact(after.macs, before.macs) if before.macs and not row.unknown else None"),
    ),
    _ratio("mac_reduction", "MACs, as it is / rewritten", *_MACS),
    _ratio(
        "param_ratio", "params, rewritten / as it is",
        _count("rewritten", "params"), _count("as_is", "params"),
    ),
)  # fmt: skip


_OUTCOME = (
    Field("budget", "", str, "the name of the budget", Path("budget")),
    Field("assertion", "", str, "the assertion as written", Path("assertion")),
    Field("holds", "", bool, "whether it holds; null if it cannot be checked", Path("holds")),
    Field(
        "value",
        "",
        Fraction,
        "value of its field, in the row nearest to the limit or furthest past it",
        Path("value"),
    ),
    Field("limit", "", Fraction, "what the value is compared with", Path("limit")),
    Field("left", "", Fraction, "how much of the limit is left; negative if over it", Path("left")),
    Field("row", "", str, "the row that the value is of; empty for a total", Path("row")),
    Field("error", "", str, "why it cannot be checked", Path("error")),
)

_CROSSCHECK = Field(
    "crosscheck", "", str,
    "exact: fvcore and torch count what the formulas give; mismatch; or skipped",
    Path("crosscheck"), lambda row: "exact",
)  # fmt: skip


def _proof(sides: Mapping[str, str], counter: str, noun: str, unit: Unit) -> Iterator[Field]:
    """What a counter finds of each side, and the formula beside it."""
    label, scale = UNITS[unit] if noun == "macs" else (noun, 1)
    for name, side in sides.items():
        found = f"row.{side}.counted"
        count = _scaled(f"{found}[''].{noun}", scale)
        counted = Expression(f"None if {found} is None else {count}")
        spelled = proof_name(counter, name, unit if noun == "macs" else noun)
        doc = f"{label} as {counter} counts them"
        yield Field(spelled, label, int, doc, counted, _count(side, noun, scale))


def _times(named: str, other: str, steps: Sequence[str]) -> Iterator[Field]:
    """The times of both sides and of the steps, what they decide, and what they depend on."""
    read: dict[str, Callable[[Measurement], Time]] = {
        named: lambda found: found.as_is,
        **{step: partial(_step_time, step) for step in steps},
        other: lambda found: found.rewritten,
    }

    def of(name: str, noun: str) -> Callable[[Row], Any]:
        return lambda row: getattr(read[name](_measured(row)), noun)

    def rate(name: str, side: str) -> Callable[[Row], float]:
        cost: Callable[[Row], Cost] = attrgetter(f"{side}.cost")
        return lambda row: _measured(row).gflops_per_s(read[name](_measured(row)), cost(row))

    for name in read:
        what, prefix = name or "the block", _prefix(name)
        for noun, unit, doc in (
            ("time_us", "us", "median time of"),
            ("time_iqr_us", "us", "interquartile range of the times of"),
            (
                "page_faults",
                "faults",
                "minor page faults per run, near 0 with a warm allocator, of",
            ),
        ):
            read_ = of(name, noun)
            yield Field(f"{prefix}{noun}", unit, float, f"{doc} {what}", read_, timed=unit == "us")
    for name, side in ((named, "as_is"), (other, "rewritten")):
        yield Field(
            f"{_prefix(name)}gflops_per_s", "GFLOP/s", float,
            f"achieved by {name or 'the block'}", rate(name, side), timed=True,
        )  # fmt: skip
    for name, unit, doc, path in (
        ("speedup", "ratio", f"time, {named} / {other or 'the block'}, if decided", "factor"),
        ("speedup_low", "ratio", "the lower end of its 99% interval", "low"),
        ("speedup_high", "ratio", "the upper end of its 99% interval", "high"),
    ):
        yield Field(name, unit, float, doc, Path(f"measured.speedup.{path}"), timed=True)
    doc = f"{other or 'the block'} is faster, slower, or not decided"
    yield Field("verdict", "", str, doc, Path("measured.speedup.verdict"))
    doc = f"greatest speed-up that MACs and bytes allow here: time of {named} / least time"
    yield Field("speedup_limit", "ratio", float, doc, _speedup_limit, timed=True)
    for name, unit in (("peak_gflops_per_s", "GFLOP/s"), ("bandwidth_gb_per_s", "GB/s")):
        doc = (
            "rate of a matrix product here" if unit == "GFLOP/s" else "rate of copying memory here"
        )
        yield Field(name, unit, float, doc, Path(f"measured.limits.{name}"))
    doc = "whether an interquartile range is over 10% of its median"
    yield Field("noisy", "", bool, doc, Path("measured.noisy"))
    for name, type_, doc in (
        ("device", str, "type of device that it ran on"),
        ("device_name", str, "name of that device"),
        ("torch_version", str, "version of torch"),
        ("threads", int, "threads of torch on the CPU"),
        ("dtype", str, "type of weights and feature maps"),
        ("channels_last", bool, "whether channels are stored innermost"),
        ("compile", bool, "whether torch.compile compiled it"),
        ("backward", bool, "whether a run is forward and backward together"),
    ):
        yield Field(name, "", type_, doc, Path(f"measured.environment.{name}"))


def _measured(row: Row) -> "Measurement":
    assert row.measured is not None
    return row.measured


def _step_time(step: str, found: "Measurement") -> "Time":
    return found.steps[step]


def _speedup_limit(row: Row) -> float:
    return _measured(row).most_speedup(row.rewritten.cost)
