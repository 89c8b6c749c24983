"""``32:1024:x2``, or a list of values -> the layers of a grid."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, product
from math import prod
from typing import Any

from dscalc import parse
from dscalc.core.blocks import Block
from dscalc.core.conv import Conv, output_sizes, pads, per_axis, whole_number
from dscalc.core.describe import described, in_common
from dscalc.core.scale import Multiplier, exact_multiplier, scaled_channels, scaled_size
from dscalc.errors import DscalcError
from dscalc.parse import Size
from dscalc.show import for_who_asks, printable, quoted, times

_LARGEST_GRID = 10**9
_FEW = 1000  # combinations to keep in memory, or to try in advance

Values = str | Size | Iterable[Size]  # text, a value, or values; a tuple is one size


class Axis:
    """The values of one of IC, OC, F and D, in the order written.

    In text, ``3,5,7`` is a list; ``32:512:32`` counts up by a step and ``32:1024:x2`` by a factor,
    both inclusive; ``14:17`` has the step 1. Items of a list may be ranges. With ``dims``, values
    are sizes of that many axes, and a single value may be ``3x5``.

    Raises:
        DscalcError: an item is malformed, a range runs backwards or stands still, a value is not an
            int of at least 1, or a size has the wrong number of axes.
    """

    def __init__(self, values: Values, name: str, dims: int | None = None) -> None:
        self.name, self.dims = name, dims
        self._pieces = self._read(values) if isinstance(values, str) else [self._checked(values)]
        self.count = sum(_number_of_values(piece) for piece in self._pieces)

    def _read(self, text: str) -> list[Sequence[Size]]:
        name = self.name
        if "," in text and re.fullmatch(r"\s*[0-9]{1,3}(,0[0-9]{2})+\s*", text):
            number = text.strip().replace(",", "")
            raise DscalcError(
                f"{name} {text.strip()} is a list of numbers; write {number} for one number"
            )
        if (bare := text.strip().rstrip(",")) != text.strip():
            raise DscalcError(f"{name} {text.strip()} ends in a comma; write {bare}")
        return [self._piece(piece) for piece in text.split(",")]

    def _checked(self, values: Size | Iterable[Size]) -> Sequence[Size]:
        one = isinstance(values, tuple) and self.dims is not None  # a size, one number an axis
        several = isinstance(values, Iterable) and not one
        each: list[Any] = [*values] if several else [values]  # type: ignore[misc]
        if not each:
            raise DscalcError(f"{self.name} must have a value, got an empty list")
        if self.dims is not None:
            return [per_axis(self.name, value, self.dims) for value in each]
        return [whole_number(self.name, value) for value in each]

    def __iter__(self) -> Iterator[Any]:
        for value in chain.from_iterable(self._pieces):
            yield value if self.dims is None else self._sized(value)

    @property
    def ends(self) -> list[tuple[int, ...]]:
        """The first and last size of each piece: for a range, the smallest and the largest."""
        return [self._sized(piece[end]) for piece in self._pieces for end in (0, -1)]

    def _piece(self, text: str) -> Sequence[Size]:
        if ":" not in text and self.dims is not None:
            return (self._sized(parse.size(text, self.name)),)
        if ":" not in text:
            if "x" in text and re.fullmatch(r"\s*\d+(x\d+)+\s*", text):
                raise DscalcError(
                    f"{self.name} is a number of channels, got {quoted(text)}; the order is "
                    "IC OC F D, and sizes are F and D"
                )
            return (parse.whole(text, self.name),)
        first, last, *steps = map(str.strip, text.split(":"))
        start, stop = parse.whole(first, self.name), parse.whole(last, self.name)
        step = steps[0] if steps else "1"
        if len(steps) > 1:
            raise DscalcError(
                f"{self.name} must be like 32:512:32 or 32:1024:x2, got {quoted(text)}"
            )
        if start > stop:
            written = ":".join([first, last, *steps])
            fix = f"{stop}:{start}:{step}"
            raise DscalcError(f"{self.name} range {written} runs backwards; write {fix}")
        if not step.startswith("x"):
            return range(start, stop + 1, parse.whole(step, f"{self.name} step"))
        factor = parse.whole(step[1:], f"{self.name} factor", least=2)
        values = [start]
        while values[-1] * factor <= stop:
            values.append(values[-1] * factor)
        return values

    def _sized(self, value: Size) -> tuple[int, ...]:
        assert self.dims is not None
        if isinstance(value, tuple) and len(value) != self.dims:
            fix = "; give one for every axis, such as 3 or 3x5"
            if len(value) <= 3:
                dims = for_who_asks("--dims ", "dims=")
                fix = f"; {dims}{len(value)} makes it {len(value)}-D"
            raise DscalcError(
                f"{self.name} {times(value)} has {len(value)} sizes in {self.dims}-D{fix}"
            )
        return per_axis(self.name, value, self.dims)


class Grid:
    """One `Conv` per combination of the values of IC, OC, F and D, rightmost fastest.

    Each iteration makes the layers anew, one at a time. ``options`` are those of `Conv`. Without
    ``dims``, a size such as 3x5x5 gives the number of axes, else it is 2. Without D there is one
    output position.

    Raises:
        DscalcError: a combination makes no layer, or there are more than 10^9. Some combinations
            raise it only once the iteration reaches them.
    """

    def __init__(
        self,
        ic: Values,
        oc: Values,
        f: Values,
        d: Values | None = None,
        dims: int | None = None,
        *,
        width_multiplier: Multiplier = 1,
        resolution_multiplier: Multiplier = 1,
        **options: Any,
    ) -> None:
        self.one_position = d is None
        if d is None:  # with "same" padding, a map of the stride's size has one output
            d = options.get("stride", 1)
            options["padding"], resolution_multiplier = "same", 1
        ic, oc, f, d = map(_normal, (ic, oc, f, d))
        if dims is None:
            _refuse_channels(ic, f, d)
        written = _axes(f, d)
        if dims is None and len(written) > 1:
            sizes = f"F {printable(str(f))} and D {printable(str(d))}"
            raise DscalcError(f"the sizes of {sizes:.80} differ in their number of axes")
        self.dims = dims = dims or next(iter(written), 2)
        self.axes = (
            Axis(ic, _axis_name(ic, "IC", "in_channels")),
            Axis(oc, _axis_name(oc, "OC", "out_channels")),
            Axis(f, _axis_name(f, "F", "kernel_size"), dims),
            Axis(d, _axis_name(d, "D", "input_size"), dims),
        )
        self.count = prod(axis.count for axis in self.axes)
        if self.count > _LARGEST_GRID:
            raise DscalcError(f"a grid has at most {_LARGEST_GRID:,} layers, got {self.count:,}")
        self._width = exact_multiplier("width_multiplier", width_multiplier)
        self._resolution = exact_multiplier("resolution_multiplier", resolution_multiplier)
        self._groups = whole_number("groups", options.get("groups", 1))
        self._options = options
        self._check()

    def __iter__(self) -> Iterator[Conv]:
        ic, oc, f, d = self.axes
        groups = self._groups
        like = self._layer(groups, groups, f.ends[0], self._on_map(d.ends[0]))
        few = f.count * d.count <= _FEW  # then compute them once
        kept = list(self._sizes(like)) if few else None
        for in_channels in map(self._wide, ic):
            for out_channels in map(self._wide, oc):
                if groups > 1:  # they must divide both
                    self._layer(in_channels, out_channels, f.ends[0], self._on_map(d.ends[0]))
                for kernel_size, input_size, output_size in kept or self._sizes(like):
                    yield Conv.unchecked(
                        in_channels=in_channels, out_channels=out_channels,
                        kernel_size=kernel_size, input_size=input_size, stride=like.stride,
                        padding=like.padding, dilation=like.dilation, groups=groups,
                        bias=like.bias, batch_size=like.batch_size, output_size=output_size,
                    )  # fmt: skip

    @cached_property
    def first(self) -> Conv:
        """The first layer."""
        return next(iter(self))

    def in_words(self, block: Block) -> str:
        """The only layer in words, or what all layers share."""
        if self.count == 1:
            return described(self.first, block, one_position=self.one_position)
        shared = in_common(self.first, block, one_position=self.one_position)
        return ", ".join([f"{self.count:,} layers", *shared])

    def _layer(
        self, in_channels: int, out_channels: int, kernel: tuple[int, ...], size: tuple[int, ...]
    ) -> Conv:
        return Conv(in_channels, out_channels, kernel, size, **self._options)

    def _sizes(
        self, like: Conv
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """Kernel, input and output size of each combination of F and D."""
        _, _, f, d = self.axes
        for kernel_size in f:
            zeros = pads(like.padding, kernel_size, like.dilation)
            for input_size in map(self._on_map, d):
                yield (
                    kernel_size,
                    input_size,
                    output_sizes(input_size, kernel_size, like.stride, zeros, like.dilation),
                )

    def _wide(self, channels: int) -> int:
        return channels if self._width == 1 else scaled_channels(channels, self._width)

    def _on_map(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return size if self._resolution == 1 else scaled_size(size, self._resolution)

    def _check(self) -> None:
        """Raise before the first layer if the ends of an axis make no layer.

        Groups are tried on all combinations of channels, unless there are many.
        """
        ic, oc, f, d = self.axes
        groups = self._groups
        largest = tuple(max(lengths) for lengths in zip(*f.ends, strict=True))
        smallest = tuple(min(lengths) for lengths in zip(*d.ends, strict=True))
        try:
            self._layer(groups, groups, largest, self._on_map(smallest))
        except DscalcError:
            for kernel_size in f.ends:  # if any does not fit, an end does not
                for input_size in d.ends:
                    self._layer(groups, groups, kernel_size, self._on_map(input_size))
        if groups > 1 and ic.count * oc.count <= _FEW:
            for in_channels, out_channels in product(map(self._wide, ic), map(self._wide, oc)):
                self._layer(in_channels, out_channels, largest, self._on_map(smallest))


def _normal(values: Values) -> Values:
    """Text with multiplication signs as x; several values as a list."""
    if isinstance(values, str):
        return parse.with_x(values)
    return list(values) if isinstance(values, Iterable) and type(values) is not tuple else values


def _axis_name(values: Values, typed: str, named: str) -> str:
    """The name of an axis in errors: ``typed`` if its values are text, else ``named``."""
    return typed if isinstance(values, str) else named


def _refuse_channels(ic: Values, f: Values, d: Values) -> None:
    """Refuse 5x5x3 and 12x12x3 if the 3 is IC: papers write 2-D layers so.

    Raises:
        DscalcError: F and D that have three sizes end in IC.
    """
    if not (isinstance(ic, str) and isinstance(f, str) and isinstance(d, str)):
        return
    sizes = {"F": f.strip().split("x"), "D": d.strip().split("x")}
    solid = {name: parts for name, parts in sizes.items() if len(parts) == 3}
    if solid and all(parts[2] == ic.strip() for parts in solid.values()):
        fixes = " and ".join(
            f"{parts[0] if parts[0] == parts[1] else 'x'.join(parts[:2])} for {name}"
            for name, parts in solid.items()
        )
        written = " and ".join("x".join(parts) for parts in solid.values())
        raise DscalcError(
            f"channels are IC: write {fixes}, got {written}; if the layer is 3-D, add --dims 3"
        )


def _axes(*sizes: Values) -> set[int]:
    """The numbers of axes that the sizes of F and D show, such as 3 for 3x5x5 or (3, 5, 5)."""
    counts: set[int] = set()
    for values in sizes:
        if isinstance(values, str):
            counts |= {size.partition(":")[0].count("x") + 1 for size in values.split(",")} & {2, 3}
        else:
            each = values if isinstance(values, list) else [values]
            counts |= {len(size) for size in each if isinstance(size, tuple)}
    return counts


def _number_of_values(values: Sequence[Size]) -> int:
    if isinstance(values, range):  # len() stops at 2^63
        return (values[-1] - values[0]) // values.step + 1
    return len(values)
