"""Rows of an answer, and their totals."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from dscalc.core.blocks import Block, Step
from dscalc.core.conv import Conv
from dscalc.core.cost import NOTHING, Cost, sum_costs
from dscalc.core.kinds import convolution_kind
from dscalc.core.patterns import Patterns, chosen
from dscalc.core.peaks import Footprint
from dscalc.errors import DscalcError

Crosscheck = Literal["exact", "mismatch", "not proved", "skipped"]
Counted = Mapping[str, Cost]  # MACs and params of real modules, by step; "" is all steps
Count = Callable[[tuple[Step, ...]], Counted | None]


class Sizes(NamedTuple):
    """Known sizes of a row that is not a convolution; the names are those of `Conv`."""

    in_channels: int | None = None
    out_channels: int | None = None
    input_size: tuple[int, ...] | None = None
    output_size: tuple[int, ...] | None = None
    bias: bool | None = None
    batch_size: int | None = None
    kernel_size: None = None
    stride: None = None
    padding: None = None
    dilation: None = None
    groups: None = None


class Side(NamedTuple):
    """One way to build a row: its steps, the sum of their costs, and the counts of the cross-check.

    In a total, a step is the sum over all rows of the steps of that name.
    """

    cost: Cost
    steps: tuple[Step, ...] = ()
    counted: Counted | None = None

    @property
    def differences(self) -> list[tuple[str, str, int, int]]:
        """Counts that differ from their formula: step ("" for all), noun, formula and count."""
        if self.counted is None:
            return []
        expected = {"": self.cost, **{step.name: step.cost for step in self.steps}}
        return [
            (name, noun, getattr(expected[name], noun), getattr(found, noun))
            for name, found in self.counted.items()
            for noun in ("macs", "params")
            if getattr(expected[name], noun) != getattr(found, noun)
        ]


def side(steps: tuple[Step, ...]) -> Side:
    """The side of one or more steps."""
    cost = steps[0].cost
    for step in steps[1:]:
        cost += step.cost
    return Side(cost, steps)


class Training(NamedTuple):
    """What a step of training costs; what is not known is None.

    Args:
        forward_macs: MACs of the forward pass in training mode.
        backward_macs: MACs of the backward pass.
        saved_bytes: bytes that the forward pass saves for the backward pass.
        crosscheck: whether both counters of the backward pass of a whole model agree.
    """

    forward_macs: int | None = None
    backward_macs: int | None = None
    saved_bytes: int | None = None
    crosscheck: Crosscheck = "skipped"

    @property
    def macs(self) -> int | None:
        """MACs of both passes."""
        if self.forward_macs is None or self.backward_macs is None:
            return None
        return self.forward_macs + self.backward_macs


class Row(NamedTuple):
    """What a layer, block, module or model is, costs and was counted as; and its replacement.

    Args:
        name: name of the layer, block or model.
        kind: what it is: conv, depthwise, linear, pool, a block, an operator, a module, or total.
        layer: the convolution that it is or stands for, or its shape.
        as_is: how it is built: its ``steps``, and the ``cost`` of all.
        rewritten: how it is built instead; the same as `as_is` if it is kept, None without a block.
        kept: why it is not rewritten.
        block: what it is rewritten as.
        calls: number of calls in a forward pass of a model; 0 if the module did not run.
        share: its MACs / those of the total.
        crosscheck: whether every count equals its formula; not proved if no counter can say.
        unknown: calls of each operator without a formula; the counts leave them out.
        trainable_params: those of its params that require a gradient, of a model.
        memory: the bytes that it takes in a model's run, as it is.
        nonzero: of a model, its cost without zeros among the weights; None if not asked for.
        torch_macs: MACs as torch's FlopCounterMode counts them, of a whole model.
        training: of a model, what a step of training costs; None if not asked for.
        width_multiplier: width multiplier of a whole network.
        extra: data of a slice, or the report of a row that is a whole network or model.
    """

    name: str | None
    kind: str
    layer: Conv | Sizes
    as_is: Side
    rewritten: Side | None = None
    kept: str = ""
    block: Block | None = None
    calls: int | None = None
    share: Fraction | None = None
    crosscheck: Crosscheck = "skipped"
    unknown: Mapping[str, int] = {}
    trainable_params: int | None = None
    memory: Footprint | None = None
    nonzero: Cost | None = None
    torch_macs: int | None = None
    training: Training | None = None
    width_multiplier: Fraction | None = None
    extra: Any = None

    @property
    def replacement(self) -> Side:
        """How it is built instead, of a row that has a replacement."""
        assert self.rewritten is not None
        return self.rewritten

    @property
    def mac_ratio(self) -> Fraction | None:
        """MACs, rewritten / as it is; None if it has none, or nothing replaces it."""
        macs = self.as_is.cost.macs
        return Fraction(self.rewritten.cost.macs, macs) if self.rewritten and macs else None

    @property
    def param_ratio(self) -> Fraction | None:
        """Params, rewritten / as it is; None if it has none, or nothing replaces it."""
        params = self.as_is.cost.params
        return Fraction(self.rewritten.cost.params, params) if self.rewritten and params else None

    @property
    def no_formula(self) -> str:
        """Why the MACs are not known; "" if they are."""
        return f"no formula for {', '.join(self.unknown)}" if self.unknown else ""


def layer_row(conv: Conv, block: Block, name: str | None = None) -> Row:
    """The row of a standard convolution and the block that replaces it.

    Raises:
        DscalcError: the block does not exist for this convolution.
    """
    cost = conv.cost
    as_is = Side(cost, (Step("standard", conv, cost),))
    return Row(name, convolution_kind(conv), conv, as_is, side(block.steps(conv)), "", block)


def existing(
    layers: Iterable[Conv], blocks: Sequence[Block], left_out: Counter[str]
) -> Iterator[Row]:
    """A row per layer and block that exists for it; ``left_out`` counts why others do not."""
    for conv in layers:
        for block in blocks:
            try:
                yield layer_row(conv, block)
            except DscalcError as error:
                left_out[str(error)] += 1


def cheapest_first(conv: Conv, blocks: Sequence[Block], left_out: Counter[str]) -> list[Row]:
    """The rows of `existing` for one layer, named after their blocks, fewest MACs first."""
    rows = existing([conv], blocks, left_out)
    named = [row._replace(name=str(row.block)) for row in rows]
    return sorted(named, key=lambda row: row.replacement.cost.macs)


def proved(row: Row, count: Count) -> Row:
    """The row with the counts of its real modules; unchanged if ``count`` returns None."""
    as_is = _counted(row.as_is, count)
    if as_is is None:
        return row
    rewritten = as_is if row.rewritten is row.as_is else _counted(row.rewritten, count)
    if row.rewritten and rewritten is None:
        return row
    differ = any(side.differences for side in (as_is, rewritten) if side)
    return row._replace(
        as_is=as_is, rewritten=rewritten, crosscheck="mismatch" if differ else "exact"
    )


def _counted(built: Side | None, count: Count) -> Side | None:
    """The side with what is counted of it; None where it cannot be counted."""
    counted = count(built.steps) if built else None
    return built._replace(counted=counted) if built and counted is not None else None


def total(rows: Sequence[Row]) -> Row:
    """The sum of all rows, with the worst of their cross-checks."""
    counted = {row.crosscheck for row in rows} <= {"exact", "mismatch"}
    rewritten = [row.rewritten for row in rows if row.rewritten]
    nonzero = [row.nonzero for row in rows if row.nonzero]
    trained = [row.trainable_params for row in rows if row.trainable_params is not None]
    return Row(
        "total",
        "total",
        Sizes(),
        _together([row.as_is for row in rows], counted=counted),
        _together(rewritten, counted=counted) if len(rewritten) == len(rows) else None,
        calls=sum(row.calls for row in rows if row.calls) or None,
        share=Fraction(1) if any(row.as_is.cost.macs for row in rows) else Fraction(0),
        crosscheck=_worst_crosscheck(rows),
        unknown=sum((Counter(row.unknown) for row in rows if row.unknown), Counter()),
        trainable_params=sum(trained) if len(trained) == len(rows) else None,
        nonzero=sum_costs(nonzero) if nonzero and len(nonzero) == len(rows) else None,
        training=_training_together([row.training for row in rows if row.training]),
    )


def _worst_crosscheck(rows: Iterable[Row]) -> Crosscheck:
    checks = {row.crosscheck for row in rows}
    worst_first: Sequence[Crosscheck] = ("mismatch", "not proved", "skipped")
    return next((check for check in worst_first if check in checks), "exact")


def _training_together(steps: Sequence[Training]) -> Training | None:
    """The sums; None where one is not known."""

    def together(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(steps) else None

    if not steps:
        return None
    return Training(
        together([step.forward_macs for step in steps]),
        together([step.backward_macs for step in steps]),
        together([step.saved_bytes for step in steps]),
    )


def summed_by_path(rows: Iterable[Row], depth: int, classes: Mapping[str, str]) -> list[Row]:
    """The rows summed by the first ``depth`` parts of their names, which are module paths.

    ``classes`` says of what class each module is.
    """
    modules: dict[str, list[Row]] = {}
    for row in rows:
        modules.setdefault(".".join((row.name or "").split(".")[:depth]), []).append(row)
    return [
        held[0]
        if len(held) == 1 and held[0].name == path
        else module(path, classes.get(path, "module"), held)
        for path, held in modules.items()
    ]


def module(path: str, kind: str, rows: Sequence[Row]) -> Row:
    """A module with its rows together, those of its parts too."""
    shares = [row.share for row in rows if row.share is not None]
    share = sum(shares, Fraction(0)) if len(shares) == len(rows) else None
    with_macs = [row for row in rows if row.as_is.cost.macs]
    check = _worst_crosscheck(with_macs) if with_macs else "skipped"
    held = [row.memory for row in rows if row.memory]
    memory = Footprint.together(held, path.count(".") + 1) if held else None
    return total(rows)._replace(name=path, kind=kind, share=share, crosscheck=check, memory=memory)


def rewriting(rows: Sequence[Row], only: Patterns | None, exclude: Patterns | None) -> list[Row]:
    """The rows of a network; those that the globs do not choose are not rewritten.

    Raises:
        DscalcError: a glob matches no row.
    """
    if only is None and exclude is None:
        return list(rows)
    names = dict.fromkeys(row.name or "" for row in rows)
    wanted = chosen(names, only, exclude, "row of the network")
    return [
        row if row.kept or row.name in wanted
        else row._replace(rewritten=row.as_is, kept="excluded")
        for row in rows
    ]  # fmt: skip


def with_shares(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its share of all MACs."""
    macs = sum(row.as_is.cost.macs for row in rows)
    return [row._replace(share=Fraction(row.as_is.cost.macs, macs or 1)) for row in rows]


def _together(sides: Iterable[Side], *, counted: bool) -> Side:
    cost, found, parts = NOTHING, NOTHING, dict[str, Cost]()
    for side in sides:
        cost += side.cost
        if side.counted:
            found += side.counted[""]
        for step in side.steps:
            parts[step.name] = parts.get(step.name, NOTHING) + step.cost
    steps = tuple(Step(name, None, part) for name, part in parts.items())
    return Side(cost, steps, {"": found} if counted else None)
