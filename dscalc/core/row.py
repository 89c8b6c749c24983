"""One line of any answer, and what lines come to together."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from dscalc.core.blocks import Block, Step
from dscalc.core.conv import Conv
from dscalc.core.cost import NOTHING, Cost
from dscalc.core.patterns import Patterns, chosen
from dscalc.errors import DscalcError

Crosscheck = Literal["exact", "mismatch", "skipped"]
Counted = Mapping[str, Cost]  # MACs and params on real modules: of each step, and "" of all
Count = Callable[[tuple[Step, ...]], Counted | None]


class Sizes(NamedTuple):
    """What is known of the sizes of a row that is no convolution; the names are those of `Conv`."""

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
    """One way to build a row: its steps, the sum of their costs, and what was counted of them.

    In a total the steps are sums over rows, by name.
    """

    cost: Cost
    steps: tuple[Step, ...] = ()
    counted: Counted | None = None

    @property
    def differences(self) -> list[tuple[str, str, int, int]]:
        """Step ("" is all of them), noun, formula and count, wherever the last two differ."""
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
    """The side that some steps make."""
    cost = steps[0].cost
    for step in steps[1:]:
        cost += step.cost
    return Side(cost, steps)


class Row(NamedTuple):
    """What something is, what it costs as it is and rewritten, and what was counted.

    Args:
        name: name of the layer, block or model.
        kind: what it is: conv, linear, pool, norm, a block, an operator, or total.
        layer: the convolution that it is or stands for, or its shape.
        as_is: how it is built.
        rewritten: how it is built instead; the same if it is kept.
        kept: why it is not rewritten.
        block: what it is rewritten as.
        calls: number of calls in a forward pass of a model.
        share: its MACs / those of the total.
        crosscheck: whether all that was counted is what the formulas give.
        unknown: operators whose MACs are not known; the counts are then a part of them.
        torch_macs: MACs as torch's FlopCounterMode counts them, of a whole model.
        width_multiplier: width multiplier of a whole network.
        extra: what a slice knows of it besides, which nothing else reads.
    """

    name: str | None
    kind: str
    layer: Conv | Sizes
    as_is: Side
    rewritten: Side
    kept: str = ""
    block: Block | None = None
    calls: int | None = None
    share: Fraction | None = None
    crosscheck: Crosscheck = "skipped"
    unknown: tuple[str, ...] = ()
    torch_macs: int | None = None
    width_multiplier: Fraction | None = None
    extra: Any = None

    @property
    def mac_ratio(self) -> Fraction | None:
        """MACs, rewritten / as it is; None if it has none as it is."""
        macs = self.as_is.cost.macs
        return Fraction(self.rewritten.cost.macs, macs) if macs else None

    @property
    def no_formula(self) -> str:
        """Why its MACs are not known, if they are not."""
        return f"no formula for {', '.join(self.unknown)}" if self.unknown else ""

    @property
    def param_ratio(self) -> Fraction | None:
        """Params, rewritten / as it is; None where it has none as it is."""
        params = self.as_is.cost.params
        return Fraction(self.rewritten.cost.params, params) if params else None


def layer_row(conv: Conv, block: Block, name: str | None = None) -> Row:
    """A standard convolution, and the block in its place.

    Raises:
        DscalcError: the block does not exist for this convolution.
    """
    cost = conv.cost
    as_is = Side(cost, (Step("standard", conv, cost),))
    return Row(name, "conv", conv, as_is, side(block.steps(conv)), "", block)


def existing(
    layers: Iterable[Conv], blocks: Sequence[Block], left_out: Counter[str]
) -> Iterator[Row]:
    """A row for each block that exists for a layer; ``left_out`` counts why the others do not."""
    for conv in layers:
        for block in blocks:
            try:
                yield layer_row(conv, block)
            except DscalcError as error:
                left_out[str(error)] += 1


def cheapest_first(conv: Conv, blocks: Sequence[Block], left_out: Counter[str]) -> list[Row]:
    """The blocks that exist for a layer, each a row of its name; as `existing`."""
    rows = existing([conv], blocks, left_out)
    named = [row._replace(name=str(row.block)) for row in rows]
    return sorted(named, key=lambda row: row.rewritten.cost.macs)


def proved(row: Row, count: Count) -> Row:
    """The row with what is counted of it on real modules, where it can be counted."""
    as_is = count(row.as_is.steps)
    if as_is is None:
        return row
    rewritten = as_is if row.rewritten is row.as_is else count(row.rewritten.steps)
    if rewritten is None:
        return row
    sides = row.as_is._replace(counted=as_is), row.rewritten._replace(counted=rewritten)
    differ = any(side.differences for side in sides)
    return row._replace(
        as_is=sides[0], rewritten=sides[1], crosscheck="mismatch" if differ else "exact"
    )


def total(rows: Sequence[Row]) -> Row:
    """All rows together: counts added up."""
    checks = {row.crosscheck for row in rows}
    worst: Sequence[Crosscheck] = ("mismatch", "skipped", "exact")
    return Row(
        "total",
        "total",
        Sizes(),
        _together([row.as_is for row in rows], counted="skipped" not in checks),
        _together([row.rewritten for row in rows], counted="skipped" not in checks),
        calls=sum(row.calls for row in rows if row.calls) or None,
        share=Fraction(1) if any(row.as_is.cost.macs for row in rows) else Fraction(0),
        crosscheck=next((check for check in worst if check in checks), "exact"),
        unknown=tuple(dict.fromkeys(name for row in rows for name in row.unknown)),
    )


def summed_by_path(rows: Iterable[Row], depth: int) -> list[Row]:
    """The rows summed by the first ``depth`` parts of their names, which are module paths."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(".".join((row.name or "").split(".")[:depth]), []).append(row)
    return [_part(name, held) for name, held in parts.items()]


def _part(name: str, rows: list[Row]) -> Row:
    if len(rows) == 1 and rows[0].name == name:
        return rows[0]
    shares = [row.share for row in rows if row.share is not None]
    share = sum(shares, Fraction(0)) if len(shares) == len(rows) else None
    with_macs = [row for row in rows if row.as_is.cost.macs]
    check = total(with_macs).crosscheck if with_macs else "skipped"
    return total(rows)._replace(name=name, kind="part", kept="part", share=share, crosscheck=check)


def rewriting(
    rows: Sequence[Row], only: Patterns | None, exclude: Patterns | None = None
) -> list[Row]:
    """The rows of a network, with those alone rewritten whose names the globs choose.

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
    """The rows, each with its share of the MACs of all."""
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
