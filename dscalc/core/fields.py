"""The vocabulary: the name, unit, type, meaning and value of each field of a row.

Every format, ``--get``, ``--assert`` and ``--sort`` read these tables. Slices and ``dscalc check``
add tables of their own. Counts are exact ints, ratios exact Fractions. One function reads a group
of fields, so that a long grid stays quick.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd
from operator import attrgetter
from typing import Any, Literal, NamedTuple, NoReturn

from dscalc.core.blocks import DEFAULTS, SEPARABLE, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.peaks import AUTOCAST
from dscalc.core.roofline import least_bytes
from dscalc.core.row import Row, Training
from dscalc.errors import DscalcError
from dscalc.show import did_you_mean, quoted

Unit = Literal["macs", "flops"]
Value = int | str | bool | float | Fraction | tuple[int, ...] | list[Any] | dict[str, int] | None


class _Units(dict[str, tuple[str, int]]):
    """The name of each unit, and how many of it a MAC is; another unit is an error."""

    def __missing__(self, unit: object) -> NoReturn:
        raise DscalcError(f"unit must be macs or flops, got {unit!r}")


UNITS = _Units(macs=("MACs", 1), flops=("FLOPs", 2))  # 1 MAC = 2 FLOPs
_OTHER: dict[Unit, Unit] = {"macs": "flops", "flops": "macs"}


class Field(NamedTuple):
    """One value of a row.

    Args:
        name: its name in every format.
        unit: of the number; ``""`` if there is none.
        type: of the value, if there is one.
        doc: its meaning, in a few words.
        read: reads it from a row.
        formula: reads the value that the cross-check expects; None if the cross-check counts no
            such field.
        undecided: says why the value of a row decides no assertion; ``""`` if it does.
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
        """Whether the value is a number, which assertions can compare."""
        return self.type in (int, float, Fraction)


class Group(NamedTuple):
    """Fields that one function reads from a row, in order, with ratios as floats."""

    fields: tuple[Field, ...]
    read: Callable[[Any], tuple[Any, ...]]


class Fields:
    """The fields of one kind of row, in order."""

    def __init__(self, *groups: Group) -> None:
        self._fields = tuple(field for group in groups for field in group.fields)
        self._groups = groups
        self._reads = [group.read for group in groups]

    def followed_by(self, *groups: Group) -> "Fields":
        """These fields, then those of more groups."""
        return Fields(*self._groups, *groups)

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields)

    @property
    def names(self) -> list[str]:
        """The names of the fields."""
        return [field.name for field in self]

    def read(self, row: Any) -> list[Any]:
        """The values of a row in order, as machine formats write them: ratios as floats."""
        values: list[Any] = []
        for read in self._reads:
            values += read(row)
        return values

    def record(self, row: Any) -> dict[str, Value]:
        """The values of a row by field name, with ratios as floats."""
        return dict(zip(self.names, self.read(row), strict=True))

    def records(self, rows: Iterable[Any]) -> Iterator[dict[str, Value]]:
        """The values of each row by field name, with ratios as floats."""
        names = self.names
        for row in rows:
            yield dict(zip(names, self.read(row), strict=True))

    def exact(self, row: Any) -> dict[str, Value]:
        """The values of a row by field name, with ratios as Fractions."""
        return {field.name: field.read(row) for field in self}


Vocabulary = Callable[[Block | None, Unit], Fields]  # None where nothing is rewritten


def group(
    read: Callable[[Any], tuple[Any, ...]], *fields: tuple[str, str, type, str], **more: Any
) -> Group:
    """Fields given as name, unit, type and meaning, and the function that reads them all."""

    def one(at: int) -> Callable[[Any], Any]:
        return lambda row: read(row)[at]

    return Group(tuple(Field(*field, one(at), **more) for at, field in enumerate(fields)), read)


def alone(
    name: str, unit: str, type_: type, doc: str, read: Callable[[Any], Any], **more: Any
) -> Group:
    """A group of one field."""
    field = Field(name, unit, type_, doc, read, **more)
    if type_ is Fraction:
        return Group((field,), lambda row: (_as_float(read(row)),))
    return Group((field,), lambda row: (read(row),))


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, Fraction) else value


def attributes(path: str, *fields: tuple[str, type, str]) -> Group:
    """Several fields, given as name, type and meaning: attributes at a path of a row."""
    named = [Field(name, "", type_, doc, attrgetter(path + name)) for name, type_, doc in fields]
    read = attrgetter(*(path + name for name, *_ in fields))
    if all(field.type is not Fraction for field in named):
        return Group(tuple(named), read)
    return Group(tuple(named), lambda row: tuple(map(_as_float, read(row))))


def find(name: str, vocabulary: Vocabulary, block: Block | None, unit: Unit = "macs") -> Field:
    """The field called ``name``.

    Raises:
        DscalcError: there is none; the message names the option that adds it, or the nearest names.
    """
    known = {field.name: field for field in vocabulary(block, unit)}
    if name in known:
        return known[name]
    of_model = "trainable_params" in known and "saved_bytes" not in known
    if of_model and any(
        name in training_fields(block, each).names and name not in model_fields(block, each).names
        for each in UNITS
    ):
        raise DscalcError(f"{name} needs --backward")
    other = _OTHER[unit]
    if name in vocabulary(block, other).names:
        raise DscalcError(f"{name} needs --unit {other}")
    blocks = [each for each in map(Block.parse, DEFAULTS) if not block or each.name != block.name]
    if vocabulary is not network_fields:  # nothing else is rewritten as standard
        blocks = [each for each in blocks if each != STANDARD]
    for scale, needed in ((unit, ""), (other, f" and --unit {other}")):
        having = [each for each in blocks if name in vocabulary(each, scale).names]
        if having:
            which = "BLOCK, such as --as separable" if SEPARABLE in having[:-1] else str(having[0])
            raise DscalcError(f"{name} needs --as {which}{needed}")
    rewritten = vocabulary(block or SEPARABLE, unit).names
    parts = [part.strip() for part in name.split(",")]
    if len(parts) > 1 and all(part in known for part in parts):
        raise DscalcError(f"{quoted(name)} is not one field; give {' and '.join(parts)} each alone")
    if (word := name.lstrip("-").lower()) in vocabulary(block, other).names:
        raise DscalcError(f"unknown field {quoted(name)}; did you mean {word} with --unit {other}?")
    within = [each for names in (known, rewritten) for each in names if word in each][:3]
    meant = word.removeprefix("standard_")  # what 0.2.0 called some of them
    exact = [each for each in (word, meant) if each in known]
    within = exact[:1] or list(dict.fromkeys(within))
    hint = f"did you mean {' or '.join(within)}?" if word and within else ""
    hint = hint or did_you_mean(word, rewritten, "-f json shows every field")
    raise DscalcError(f"unknown field {quoted(name)}; {hint}")


# ---- Fields of each kind of row. ----


@lru_cache
def layer_fields(block: Block | None, unit: Unit) -> Fields:
    """Fields of a standard convolution beside the block that replaces it."""
    assert block is not None
    return Fields(
        *compared(block, block.name, unit, lambda row: 4),
        *_proof({"standard": "as_is", block.name: "rewritten"}, unit),
    )


@lru_cache
def block_fields(block: Block | None, unit: Unit) -> Fields:
    """Fields of a block that replaces the standard convolution, one per row."""
    return Fields(
        _IDENTITY,
        _LAYER,
        counts("", "the block", "rewritten", unit),
        _RATIOS,
        alone("closed_form", "", str, "mac_ratio in symbols, if it is short", closed_form),
        alone(
            "steps", "", list, "its steps in order, each with its sizes and cost",
            lambda row: _steps_in_full(row, unit),
        ),
        *_proof({"": "rewritten"}, unit),
    )  # fmt: skip


@lru_cache
def network_fields(block: Block | None, unit: Unit) -> Fields:
    """Fields of a layer of a network, and of its replacement if there is one; or of a network."""
    width = "width_multiplier"
    return Fields(
        _IDENTITY,
        *([_KEPT] if block else ()),
        _LAYER,
        alone(width, "", Fraction, "width multiplier of a whole network", attrgetter(width)),
        *_as_it_is(unit),
        *_instead(block, unit),
    )


@lru_cache
def model_fields(block: Block | None, unit: Unit, *, nonzero: bool = False) -> Fields:
    """Fields of the operators of a kind in a module, and of their replacement; or of a model.

    ``nonzero`` adds the counts without zeros among the weights, which exist if asked for.
    """
    label, scale = UNITS[unit]

    def torch_macs(row: Row) -> int | None:
        return None if row.torch_macs is None else row.torch_macs * scale

    doc = f"{label} as torch's FlopCounterMode counts them; of the total"
    torch = field_name("torch", unit)
    return Fields(
        _IDENTITY,
        *([_KEPT] if block else ()),
        _LAYER,
        alone("calls", "", int, "number of calls in a forward pass", attrgetter("calls")),
        *map(_if_known, _as_it_is(unit)),
        alone(
            "trainable_params", "params", int, "params that require a gradient",
            attrgetter("trainable_params"),
        ),
        *_MEMORY,
        *([_if_known(_nonzero(unit))] if nonzero else ()),
        *_known_part(unit),
        *map(_if_known, _instead(block, unit)),
        alone(torch, label, int, doc, torch_macs, formula=torch_macs),
    )  # fmt: skip


@lru_cache
def training_fields(block: Block | None, unit: Unit, *, nonzero: bool = False) -> Fields:
    """The fields of `model_fields`, then those of a step of training."""
    label, scale = UNITS[unit]

    def read(row: Row) -> tuple[int | None, ...]:
        step = row.training or Training()
        macs = step.backward_macs, step.macs
        return tuple(None if count is None else count * scale for count in macs)

    def undecided(row: Row) -> str:
        if row.training and row.training.macs is None:
            return "training mode runs it otherwise"
        return "" if row.training else "it was written without --backward"

    def unsaved(row: Row) -> str:
        if row.training is None:
            return undecided(row)
        known = row.training.saved_bytes is not None
        return "" if known else AUTOCAST

    doc = "bytes that are saved for the backward pass"
    own = (
        group(
            read,
            (f"backward_{unit}", label, int, f"{label} of the backward pass"),
            (f"training_{unit}", label, int, f"{label} of both passes, in training mode"),
            undecided=undecided,
        ),
        alone(
            "saved_bytes", "bytes", int, doc,
            lambda row: row.training and row.training.saved_bytes,
            undecided=unsaved,
        ),
    )  # fmt: skip
    return model_fields(block, unit, nonzero=nonzero).followed_by(*own)


def compared(block: Block, name: str, unit: Unit, element: Callable[[Row], int]) -> Iterator[Group]:
    """Fields of `compare` and `bench` for a layer and its block.

    Names of the block's fields begin with ``name``. ``element`` returns the bytes per element of a
    row.
    """
    yield _IDENTITY
    yield _LAYER
    yield counts("standard", "standard convolution", "as_is", unit)
    yield _traffic("standard", "as_is", element)
    yield counts(name, name or "the block", "rewritten", unit)
    yield _traffic(name, "rewritten", element)
    yield from _steps_and_ratios(block, unit)


def _as_it_is(unit: Unit) -> Iterator[Group]:
    """Fields of the costs of a row as it is."""
    yield counts("", "the row", "as_is", unit)
    doc = "MACs of the row / of the total"
    yield alone("share", "ratio", Fraction, doc, attrgetter("share"))


def _nonzero(unit: Unit) -> Group:
    """Fields of what pruning leaves."""
    label, scale = UNITS[unit]

    def read(row: Row) -> tuple[int | None, int | None]:
        return (row.nonzero.macs * scale, row.nonzero.params) if row.nonzero else (None, None)

    return group(
        read,
        (f"nonzero_{unit}", label, int, f"{label} of weights that are not zero; if asked for"),
        ("nonzero_params", "params", int, "params that are not zero; if asked for"),
    )


def _instead(block: Block | None, unit: Unit) -> Iterator[Group]:
    """Fields of its costs with the block, if there is one, and of what counters give."""
    sides = {"": "as_is"}
    if block:
        yield _if_replaced(counts(block.name, block.name, "rewritten", unit))
        yield from map(_if_replaced, _steps_and_ratios(block, unit))
        sides[block.name] = "rewritten"
    yield from _proof(sides, unit)


def _known_part(unit: Unit) -> Iterator[Group]:
    """What is known of a count of which a part is not, and which operators are not."""
    label, scale = UNITS[unit]
    doc = f"{label} of the operators that have a formula"
    yield alone(f"known_{unit}", label, int, doc, lambda row: row.as_is.cost.macs * scale)
    doc = "calls of each operator without a formula"
    yield alone("unknown", "", dict, doc, lambda row: dict(row.unknown) or None)


def _steps_and_ratios(block: Block, unit: Unit) -> Iterator[Group]:
    label, scale = UNITS[unit]
    if block.step_names:
        yield _steps(block, unit)
    yield _RATIOS
    yield alone(
        f"saved_{unit}", label, int, "as it is - rewritten",
        lambda row: (row.as_is.cost.macs - row.replacement.cost.macs) * scale,
    )  # fmt: skip


def _if_replaced(known: Group) -> Group:
    """The group, without values where nothing replaces a row, as in a baseline without --as."""
    nothing = (None,) * len(known.fields)

    def read_one(field: Field) -> Field:
        return field._replace(read=lambda row: field.read(row) if row.rewritten else None)

    return Group(
        tuple(map(read_one, known.fields)),
        lambda row: known.read(row) if row.rewritten else nothing,
    )


def _if_known(known: Group) -> Group:
    """The group; if a row has unknown operators, MACs, elements and their ratios are None."""

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
    ("kind", str, "what it is: conv, depthwise, linear, attention, ..., total"),
)
_KEPT = alone(
    "kept", "", str, "why it is not rewritten; empty if it is, and in sums", attrgetter("kept")
)
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


def _read_peak(row: Row) -> tuple[int | str | None, ...]:
    memory = row.memory
    if memory is None:
        return None, None, None
    return memory.peak_bytes, memory.least_peak_bytes, memory.peak_at


_MEMORY = (
    alone(
        "weight_bytes", "bytes", int, "its parameters and buffers, each storage once",
        lambda row: row.memory and row.memory.weight_bytes,
    ),
    group(
        _read_peak,
        ("peak_bytes", "bytes", int, "the most that torch holds while it runs, without weights"),
        ("least_peak_bytes", "bytes", int, "the most that a planner needs, a lower bound"),
        ("peak_at", "", str, "module and operator at whose end torch holds the most"),
        undecided=lambda row: row.memory.run.unknown if row.memory else "",
    ),
)  # fmt: skip


def field_name(*parts: str) -> str:
    """The name of a field from its parts, of which some may be empty: counter, side or step, noun.

    The side "" is all that a row has.
    """
    return "_".join(filter(None, parts))


def count_names(name: str, unit: Unit) -> list[str]:
    """The field names of the MACs, params and activations of a side or a step."""
    return [field_name(name, noun) for noun in (unit, "params", "activations")]


def counts(name: str, what: str, side: str, unit: Unit) -> Group:
    """Fields of the MACs, params and activations of a side."""
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
    """Fields of the bytes that a side moves, and of its FLOPs per byte."""
    cost_of = attrgetter(f"{side}.cost")

    def read(row: Row) -> tuple[int, float | None]:
        cost = cost_of(row)
        moved = least_bytes(cost, element(row))
        return moved, 2 * cost.macs / moved if moved else None

    def intensity(row: Row) -> Fraction | None:
        cost = cost_of(row)
        return _ratio(2 * cost.macs, least_bytes(cost, element(row)))

    doc = "least bytes moved: inputs, parameters and outputs, once each"
    moved = Field(field_name(name, "bytes"), "bytes", int, doc, lambda row: read(row)[0])
    doc, ratio = "FLOPs per byte of these", field_name(name, "intensity")
    return Group((moved, Field(ratio, "FLOP/byte", Fraction, doc, intensity)), read)


def _steps(block: Block, unit: Unit) -> Group:
    """Fields of the MACs and params of each step of a block; None if a row has no such step."""
    label, scale = UNITS[unit]

    def read(row: Row) -> tuple[int | None, ...]:
        cost_of = {step.name: step.cost for step in row.replacement.steps}
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
        for step in row.replacement.steps
        if isinstance(step.layer, Conv)
    ]


def closed_form(row: Row) -> str | None:
    """The MAC ratio of a row of `blocks` in symbols; None if no closed form gives it."""
    assert isinstance(row.layer, Conv)
    form = row.block.closed_form(row.layer) if row.block else None
    return form[0] if form and form[2] == row.mac_ratio else None


def _ratio(above: int, below: int) -> Fraction | None:
    return Fraction(above, below) if below else None


def _exact_ratio(row: Row) -> str | None:
    """The MAC ratio in lowest terms, even if it is whole: 2/1."""
    above, below = row.replacement.cost.macs, row.as_is.cost.macs
    if row.unknown or not below:
        return None
    common = gcd(above, below)
    return f"{above // common}/{below // common}"


def _read_ratios(row: Row) -> tuple[Any, ...]:
    before, after = row.as_is.cost, row.replacement.cost
    return (
        after.macs / before.macs if before.macs else None,
        _exact_ratio(row),
        before.macs / after.macs if after.macs else None,
        after.params / before.params if before.params else None,
    )


_RATIOS = Group(
    (
        Field(
            "mac_ratio", "ratio", Fraction, "MACs, rewritten / as it is", attrgetter("mac_ratio")
        ),
        Field("mac_ratio_exact", "", str, "the same ratio as an exact fraction", _exact_ratio),
        Field(
            "mac_reduction", "ratio", Fraction, "MACs, as it is / rewritten",
            lambda row: _ratio(row.as_is.cost.macs, row.replacement.cost.macs),
        ),
        Field(
            "param_ratio", "ratio", Fraction, "params, rewritten / as it is",
            attrgetter("param_ratio"),
        ),
    ),
    _read_ratios,
)  # fmt: skip


def _proof(sides: Mapping[str, str], unit: Unit) -> Iterator[Group]:
    """Fields of the MACs by fvcore and the params by torch of each side, and of the verdict."""
    label, scale = UNITS[unit]
    fields = []
    for counter, noun, spelled, unit_, by in (
        ("fvcore", "macs", unit, label, scale),
        ("torch", "params", "params", "params", 1),
    ):
        for name, side in sides.items():
            doc = f"{unit_} as {counter} counts them"
            read = _read_counted(side, noun, by), _by_formula(side, noun, by)
            fields.append(Field(field_name(counter, name, spelled), unit_, int, doc, *read))
    doc = "exact: fvcore and torch count what the formulas give; mismatch; not proved; or skipped"
    crosscheck = Field(
        "crosscheck", "", str, doc, attrgetter("crosscheck"), formula=lambda row: "exact"
    )
    reads = [field.read for field in fields]
    nothing = (None,) * len(fields)

    def read_all(row: Row) -> tuple[Any, ...]:
        if row.as_is.counted is None and (not row.rewritten or row.rewritten.counted is None):
            return (*nothing, row.crosscheck)
        return (*(read(row) for read in reads), row.crosscheck)

    yield Group((*fields, crosscheck), read_all)


def _read_counted(side: str, noun: str, by: int) -> Callable[[Row], int | None]:
    built = attrgetter(side)

    def read(row: Row) -> int | None:
        counted = built(row) and built(row).counted
        return None if counted is None else getattr(counted[""], noun) * by

    return read


def _by_formula(side: str, noun: str, by: int) -> Callable[[Row], int]:
    count = attrgetter(f"{side}.cost.{noun}")
    return lambda row: count(row) * by
