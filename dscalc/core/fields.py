"""The vocabulary: the name, unit, type, meaning and value of each field of a row.

Every format, ``--get``, ``--assert`` and ``--sort`` read these tables; no name of a field is
spelled anywhere else. Counts are exact ints, ratios exact Fractions. One function reads a group of
fields, so that a long grid stays quick.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from dscalc.core.blocks import SEPARABLE, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.roofline import least_bytes
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.show import did_you_mean, quoted

Unit = Literal["macs", "flops"]
Value = int | str | bool | float | Fraction | tuple[int, ...] | list[Any] | None
UNITS = {"macs": ("MACs", 1), "flops": ("FLOPs", 2)}  # 1 MAC = 2 FLOPs
_OTHER: dict[Unit, Unit] = {"macs": "flops", "flops": "macs"}


class Field(NamedTuple):
    """One value of a row.

    Args:
        name: what every format calls it.
        unit: of its number; "" where it has none.
        type: of its value, where it has one.
        doc: what it is, in a few words.
        read: fetches it from a row.
        formula: what the cross-check compares it with; None where nothing counts it.
        undecided: says of a row why this value decides nothing; "" where it does.
    """

    name: str
    unit: str
    type: type
    doc: str
    read: Callable[[Any], Any]
    formula: Callable[[Any], Any] | None = None
    undecided: Callable[[Any], str] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it can be compared and sorted."""
        return self.type in (int, float, Fraction)


class Group(NamedTuple):
    """Fields that one function reads from a row, in their order, with ratios as floats."""

    fields: tuple[Field, ...]
    read: Callable[[Any], tuple[Any, ...]]


class Fields:
    """The fields of a kind of row, in their order."""

    def __init__(self, *groups: Group) -> None:
        self._fields = tuple(field for group in groups for field in group.fields)
        self._reads = [group.read for group in groups]

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields)

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [field.name for field in self]

    def read(self, row: Any) -> list[Any]:
        """The value of each field in a row, as machine formats write it: ratios as floats."""
        values: list[Any] = []
        for read in self._reads:
            values += read(row)
        return values

    def record(self, row: Any) -> dict[str, Value]:
        """A row by the names of its fields."""
        return dict(zip(self.names, self.read(row), strict=True))

    def records(self, rows: Iterable[Any]) -> Iterator[dict[str, Value]]:
        """Each row by the names of its fields."""
        names = self.names
        for row in rows:
            yield dict(zip(names, self.read(row), strict=True))

    def exact(self, row: Any) -> dict[str, Value]:
        """A row by the names of its fields, with ratios as Fractions."""
        return {field.name: field.read(row) for field in self}


Vocabulary = Callable[[Block, Unit], Fields]


def group(
    read: Callable[[Any], tuple[Any, ...]], *fields: tuple[str, str, type, str], **more: Any
) -> Group:
    """Fields by name, unit, type and meaning, and the function that reads them all."""

    def one(at: int) -> Callable[[Any], Any]:
        return lambda row: read(row)[at]

    return Group(tuple(Field(*field, one(at), **more) for at, field in enumerate(fields)), read)


def alone(field: Field) -> Group:
    """A field by itself."""
    if field.type is Fraction:
        return Group((field,), lambda row: (_as_float(field.read(row)),))
    return Group((field,), lambda row: (field.read(row),))


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, Fraction) else value


def attributes(path: str, *fields: tuple[str, type, str]) -> Group:
    """Fields by name, type and meaning: attributes of their own names, at a path of a row."""
    named = [Field(name, "", type_, doc, attrgetter(path + name)) for name, type_, doc in fields]
    if len(named) == 1:
        return alone(named[0])
    read = attrgetter(*(path + name for name, *_ in fields))
    if all(field.type is not Fraction for field in named):
        return Group(tuple(named), read)
    return Group(tuple(named), lambda row: tuple(map(_as_float, read(row))))


def find(name: str, vocabulary: Vocabulary, block: Block, unit: Unit = "macs") -> Field:
    """The field of that name.

    Raises:
        DscalcError: there is none. It names the option that it needs, or the nearest names.
    """
    known = {field.name: field for field in vocabulary(block, unit)}
    if name in known:
        return known[name]
    other = _OTHER[unit]
    if name in vocabulary(block, other).names:
        hint = f"it needs --unit {other}"
    elif needed := [
        one
        for one in ((STANDARD, SEPARABLE) if vocabulary is network_fields else (SEPARABLE,))
        if name in vocabulary(one, unit).names
    ]:
        hint = f"it needs --as {needed[0]}"
    else:
        within = [each for each in known if name in each][:3]
        hint = f"did you mean {' or '.join(within)}?" if within else did_you_mean(name, known)
    raise DscalcError(f"unknown field {quoted(name)}; {hint}")


# ---- The fields of each kind of row. ----


@lru_cache
def layer_fields(block: Block, unit: Unit = "macs") -> Fields:
    """A standard convolution beside the block in its place."""
    return Fields(
        *compared(block, block.name, unit, lambda row: 4),
        *_proof({"standard": "as_is", block.name: "rewritten"}, unit),
    )


@lru_cache
def block_fields(block: Block, unit: Unit = "macs") -> Fields:
    """A block in place of the standard convolution, one a row."""
    return Fields(
        _IDENTITY,
        _LAYER,
        counts("", "the block", "rewritten", unit),
        _RATIOS,
        alone(Field("closed_form", "", str, "the first ratio in symbols, if short", closed_form)),
        alone(
            Field(
                "steps", "", list, "its steps in order, each with its sizes and cost",
                lambda row: _steps_in_full(row, unit),
            )
        ),
        *_proof({"": "rewritten"}, unit),
    )  # fmt: skip


@lru_cache
def network_fields(block: Block, unit: Unit = "macs") -> Fields:
    """A layer of a network, as it is and with the block in its place; or a whole network."""
    width = ("width_multiplier", Fraction, "width multiplier of a whole network")
    return Fields(_IDENTITY, _KEPT, _LAYER, attributes("", width), *_built(block, unit))


@lru_cache
def model_fields(block: Block, unit: Unit = "macs") -> Fields:
    """The operators of a kind in a module, as they are and rewritten; or a whole model."""
    label, scale = UNITS[unit]

    def torch_macs(row: Row) -> int | None:
        return None if row.torch_macs is None else row.torch_macs * scale

    doc = f"{label} as torch's FlopCounterMode counts them; of the total"
    calls = ("calls", int, "number of calls in a forward pass")
    return Fields(
        _IDENTITY,
        _KEPT,
        _LAYER,
        attributes("", calls),
        *map(_if_known, _built(block, unit)),
        alone(Field(proof_name("torch", "", unit), label, int, doc, torch_macs, torch_macs)),
    )


def compared(block: Block, name: str, unit: Unit, element: Callable[[Row], int]) -> Iterator[Group]:
    """What `compare` and `bench` say of a layer and its block, whose fields begin with ``name``.

    ``element`` gives the bytes of an element.
    """
    yield _IDENTITY
    yield _LAYER
    yield counts("standard", "standard convolution", "as_is", unit)
    yield _traffic("standard", "as_is", element)
    yield counts(name, name or "the block", "rewritten", unit)
    yield _traffic(name, "rewritten", element)
    yield from _steps_and_ratios(block, unit)


def _built(block: Block, unit: Unit) -> Iterator[Group]:
    """What it costs as it is, and with the block."""
    yield counts("", "the row", "as_is", unit)
    doc = "MACs of the row / of the total"
    yield alone(Field("share", "ratio", Fraction, doc, attrgetter("share")))
    yield counts(block.name, block.name, "rewritten", unit)
    yield from _steps_and_ratios(block, unit)
    yield from _proof({"": "as_is", block.name: "rewritten"}, unit)


def _steps_and_ratios(block: Block, unit: Unit) -> Iterator[Group]:
    label, scale = UNITS[unit]
    if block.step_names:
        yield _steps(block, unit)
    yield _RATIOS
    yield alone(
        Field(
            f"saved_{unit}", label, int, "as it is - rewritten",
            lambda row: (row.as_is.cost.macs - row.rewritten.cost.macs) * scale,
        )
    )  # fmt: skip


def _if_known(known: Group) -> Group:
    """The group, without values of MACs and of elements where some operators have no count."""

    def is_counted(field: Field) -> bool:
        return (
            field.formula is not None or field.unit in ("", "params") or field.name == "param_ratio"
        )

    shown_anyway = [is_counted(field) for field in known.fields]

    def read(row: Row) -> tuple[Any, ...]:
        values = known.read(row)
        if not row.unknown:
            return values
        return tuple(
            value if anyway else None for value, anyway in zip(values, shown_anyway, strict=True)
        )

    def read_one(field: Field) -> Field:
        return field._replace(read=lambda row: None if row.unknown else field.read(row))

    fields = zip(known.fields, shown_anyway, strict=True)
    return Group(tuple(field if anyway else read_one(field) for field, anyway in fields), read)


_IDENTITY = attributes(
    "",
    ("name", str, "name of the row"),
    ("kind", str, "kind of the row: conv, linear, pool, ..., total"),
)
_KEPT = attributes("", ("kept", str, "why it is not rewritten; empty if it is"))
_LAYER = attributes(
    "layer.",
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
)


def count_names(name: str, unit: Unit) -> list[str]:
    """What the MACs, params and activations of a side or a step are called."""
    return [f"{name}_{noun}" if name else noun for noun in (unit, "params", "activations")]


def proof_name(counter: str, name: str, noun: str) -> str:
    """What a counter's count of a side is called."""
    return "_".join(filter(None, (counter, name, noun)))


def counts(name: str, what: str, side: str, unit: Unit) -> Group:
    """The counts of a side."""
    label, scale = UNITS[unit]
    macs, params, activations = count_names(name, unit)
    cost_of = attrgetter(f"{side}.cost")

    def read(row: Row) -> tuple[int, int, int]:
        cost = cost_of(row)
        return cost.macs * scale, cost.params, cost.activations

    return group(
        read,
        (macs, label, int, f"{label} of {what}"),
        (params, "params", int, f"weights and biases of {what}"),
        (activations, "elements", int, f"output elements of the products of {what}"),
    )


def _traffic(name: str, side: str, element: Callable[[Row], int]) -> Group:
    """The bytes that a side moves, and its FLOPs for each of them."""
    cost_of = attrgetter(f"{side}.cost")

    def read(row: Row) -> tuple[int, float | None]:
        cost = cost_of(row)
        moved = least_bytes(cost, element(row))
        return moved, 2 * cost.macs / moved if moved else None

    def intensity(row: Row) -> Fraction | None:
        cost = cost_of(row)
        return _ratio(2 * cost.macs, least_bytes(cost, element(row)))

    bytes_, per_byte = (f"{name}_{noun}" if name else noun for noun in ("bytes", "intensity"))
    doc = "least bytes moved: inputs, parameters and outputs, once each"
    moved = Field(bytes_, "bytes", int, doc, lambda row: read(row)[0])
    doc = "FLOPs per byte of these"
    return Group((moved, Field(per_byte, "FLOP/byte", Fraction, doc, intensity)), read)


def _steps(block: Block, unit: Unit) -> Group:
    """The MACs and params of each step of a block; None for a step that a row has not."""
    label, scale = UNITS[unit]

    def read(row: Row) -> tuple[int | None, ...]:
        cost_of = {step.name: step.cost for step in row.rewritten.steps}
        values: list[int | None] = []
        for name in block.step_names:
            cost = cost_of.get(name)
            values += (cost.macs * scale, cost.params) if cost else (None, None)
        return tuple(values)

    fields = []
    for name in block.step_names:
        macs, params, _ = count_names(name, unit)
        what = f"the {name} step of {block.name}"
        fields.append((macs, label, int, f"{label} of {what}"))
        fields.append((params, "params", int, f"weights and biases of {what}"))
    return group(read, *fields)


def _steps_in_full(row: Row, unit: Unit) -> list[dict[str, Value]]:
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


def closed_form(row: Row) -> str | None:
    """The ratio of MACs of a row of `blocks` in symbols, if that is short and true of it."""
    assert isinstance(row.layer, Conv)
    form = row.block.closed_form(row.layer) if row.block else None
    return form[0] if form and form[2] == row.mac_ratio else None


def _ratio(above: int, below: int) -> Fraction | None:
    return Fraction(above, below) if below else None


def _exact_ratio(row: Row) -> str | None:
    """In lowest terms, even if it is whole: 2/1."""
    above, below = row.rewritten.cost.macs, row.as_is.cost.macs
    if row.unknown or not below:
        return None
    common = gcd(above, below)
    return f"{above // common}/{below // common}"


def _read_ratios(row: Row) -> tuple[Any, ...]:
    before, after = row.as_is.cost, row.rewritten.cost
    return (
        after.macs / before.macs if before.macs else None,
        _exact_ratio(row),
        before.macs / after.macs if after.macs else None,
        after.params / before.params if before.params else None,
    )


_RATIOS = Group(
    (
        Field(
            "mac_ratio", "ratio", Fraction, "MACs, rewritten / as it is",
            lambda row: _ratio(row.rewritten.cost.macs, row.as_is.cost.macs),
        ),
        Field("mac_ratio_exact", "", str, "the same ratio as an exact fraction", _exact_ratio),
        Field(
            "mac_reduction", "ratio", Fraction, "MACs, as it is / rewritten",
            lambda row: _ratio(row.as_is.cost.macs, row.rewritten.cost.macs),
        ),
        Field(
            "param_ratio", "ratio", Fraction, "params, rewritten / as it is",
            lambda row: _ratio(row.rewritten.cost.params, row.as_is.cost.params),
        ),
    ),
    _read_ratios,
)  # fmt: skip


def _proof(sides: Mapping[str, str], unit: Unit) -> Iterator[Group]:
    """What fvcore and torch count of each side, the formulas beside it, and the verdict."""
    label, scale = UNITS[unit]
    fields = []
    for counter, noun, spelled, unit_, by in (
        ("fvcore", "macs", unit, label, scale),
        ("torch", "params", "params", "params", 1),
    ):
        for name, side in sides.items():
            doc = f"{unit_} as {counter} counts them"
            read = _read_counted(side, noun, by), _by_formula(side, noun, by)
            fields.append(Field(proof_name(counter, name, spelled), unit_, int, doc, *read))
    doc = "exact: fvcore and torch count what the formulas give; mismatch; or skipped"
    crosscheck = Field(
        "crosscheck", "", str, doc, attrgetter("crosscheck"), formula=lambda row: "exact"
    )
    reads = [field.read for field in fields]
    nothing = (None,) * len(fields)

    def read_all(row: Row) -> tuple[Any, ...]:
        if row.as_is.counted is None and row.rewritten.counted is None:
            return (*nothing, row.crosscheck)
        return (*(read(row) for read in reads), row.crosscheck)

    yield Group((*fields, crosscheck), read_all)


def _read_counted(side: str, noun: str, by: int) -> Callable[[Row], int | None]:
    counted = attrgetter(f"{side}.counted")

    def read(row: Row) -> int | None:
        counts = counted(row)
        return None if counts is None else getattr(counts[""], noun) * by

    return read


def _by_formula(side: str, noun: str, by: int) -> Callable[[Row], int]:
    count = attrgetter(f"{side}.cost.{noun}")
    return lambda row: count(row) * by
