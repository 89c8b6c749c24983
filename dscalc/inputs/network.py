"""CSV, JSON Lines or stdin -> the layers of a network."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fractions import Fraction
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dscalc import words
from dscalc.core.blocks import (
    Comparison,
    Counts,
    Multiplier,
    compare,
    exact_multiplier,
    scaled_channels,
    scaled_size,
)
from dscalc.core.conv import Conv, per_axis
from dscalc.errors import DscalcError, FileError
from dscalc.words import Padding, Size, times

_SHIPPED = Path(__file__).parent / "networks"
_MOST_LAYERS = 100_000
_MOST_ERRORS = 50
_LONGEST_LINE = 2**20  # bytes
_MOST_CHANNELS = 10**100  # so that no product of them reaches Python's 4300-digit limit

_ALWAYS = {"name", "kind", "in_channels", "input_size", "from", "repeat"}
_WIDE = {"out_channels", "rounding", "expansion"}
_SPATIAL = {"kernel_size", "stride", "padding", "dilation"}
_COLUMNS = {  # what a row of each kind may say
    "conv": _ALWAYS | _WIDE | _SPATIAL | {"bias", "groups"},
    "separable": _ALWAYS | _WIDE | _SPATIAL | {"bias", "depth_multiplier"},
    "depthwise": _ALWAYS | _SPATIAL | {"bias", "depth_multiplier"},
    "linear": _ALWAYS | _WIDE | {"bias"},
    "pool": _ALWAYS | _SPATIAL - {"dilation"},
    "norm": _ALWAYS,
}
_KNOWN = sorted(set().union(*_COLUMNS.values()))


class Layer(NamedTuple):
    """One layer of a network, resolved.

    ``kind`` is conv, separable, depthwise, linear, pool or norm. ``comparison`` is what it costs:
    a pool costs nothing and a norm has ``params`` alone, so that they have none.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    comparison: Comparison | None
    params: int = 0

    @property
    def counts(self) -> Counts:
        """MACs and parameters, by formula."""
        if self.comparison:
            return self.comparison.counts
        return Counts(0, self.params, None, None, None, None, 0, self.params)


class _Row(NamedTuple):
    """One row of a file, read but not yet connected to the others."""

    line: int
    name: str
    kind: str
    source: str  # the row that feeds this one; "" is the row before
    in_channels: int | None
    input_size: Size | None
    repeat: int
    out_channels: int | None
    expansion: int | None
    rounding: str
    kernel_size: Size | None  # None is global
    stride: Size | None
    padding: Padding
    dilation: Size
    groups: int
    depth_multiplier: int
    bias: bool


class _Scale(NamedTuple):
    """What applies to a network as a whole."""

    input_size: Size | None
    width: Fraction
    resolution: Fraction
    dims: int
    batch_size: int


class _Output(NamedTuple):
    channels: int
    size: tuple[int, ...]


def shipped() -> dict[str, str]:
    """The networks that come with dscalc: name -> what it is and its source."""
    titles = {}
    for path in sorted(_SHIPPED.glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            titles[path.stem] = file.readline().lstrip("# ").rstrip()
    return titles


def load_network(source: str, **scale: Any) -> list[Layer]:
    """Read a shipped network by its name, a file, or stdin as ``-``.

    ``scale`` is as for `read_network`.

    Raises:
        DscalcError: there is no such network or file, or it cannot be read.
        FileError: names every row that is wrong.
    """
    with _opened(source) as (stream, name):
        return read_network(stream, name, **scale)


def read_network(
    stream: BinaryIO,
    name: str,
    *,
    input_size: Size | None = None,
    width_multiplier: Multiplier = 1,
    resolution_multiplier: Multiplier = 1,
    dims: int = 2,
    batch_size: int = 1,
) -> list[Layer]:
    """Read a network, one layer a row: CSV with a header, or JSON Lines.

    Args:
        stream: UTF-8 bytes.
        name: what errors call it.
        input_size: replaces the input size of the first row.
        width_multiplier: scales every channel count but the network's input and the outputs of a
            linear layer that comes last.
        resolution_multiplier: scales the input size.
        dims: spatial dimensions that a single int stands for.
        batch_size: samples.

    Raises:
        FileError: names every row that is wrong.
    """
    problems = _Problems(name)
    rows = list(_read_rows(_lines(stream, problems), problems))
    if not rows and not problems.found:
        problems.add(1, "there are no layers in it; give a header row and one row a layer")
    as_written = _Scale(input_size, Fraction(1), Fraction(1), dims, batch_size)
    layers = _connected(rows, as_written, problems, check=True)
    problems.raise_any()
    scale = as_written._replace(
        width=exact_multiplier("width_multiplier", width_multiplier),
        resolution=exact_multiplier("resolution_multiplier", resolution_multiplier),
    )
    if scale != as_written:
        layers = _connected(rows, scale, problems, check=False)
        problems.raise_any()
    return layers


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The bytes of a shipped network, a file or ``-`` (stdin), and their name in errors."""
    if name == "-":
        if sys.stdin is None:
            raise DscalcError("stdin is closed; name a file")
        yield sys.stdin.buffer, "stdin"
        return
    path = _SHIPPED / f"{name}.csv" if name in shipped() else Path(name)
    try:
        with path.open("rb") as stream:
            yield stream, name
    except FileNotFoundError:
        near = get_close_matches(name, shipped(), cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see dscalc network --list"
        raise DscalcError(f"no network or file named {words.shown(name)}; {hint}") from None
    except OSError as error:
        raise DscalcError(f"cannot read {name}: {error.strerror or error}") from None


class _Problems:
    """Gathers what is wrong with a file, so that one run names every bad row."""

    def __init__(self, file: str) -> None:
        self.file = words.printable(file)
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, reason: object) -> None:
        self.found.append((line, f"{self.file}:{line}: {words.printable(str(reason))}"))
        if len(self.found) >= _MOST_ERRORS:
            self.found.append((line, f"{self.file}:{line}: too many errors; the rest is not read"))
            self.raise_any()

    def raise_any(self) -> None:
        if self.found:
            self.found.sort(key=lambda problem: problem[0])
            raise FileError("\n".join(text for _, text in self.found))


def _lines(stream: BinaryIO, problems: _Problems) -> Iterator[str]:
    """The lines as text; those that cannot be read, and comments, come as blank ones."""
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            problems.add(number, f"the line is longer than {_LONGEST_LINE:,} bytes")
            problems.raise_any()
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            problems.add(number, "the line is not UTF-8 text")
            text = ""
        yield "\n" if not text.strip() or text.startswith("#") else text


def _read_rows(lines: Iterator[str], problems: _Problems) -> Iterator[_Row]:
    """The rows of either format, told apart by the first line that is not blank.

    A row that cannot be read comes without a kind.
    """
    skipped, first = 0, "\n"
    while first == "\n":
        skipped, first = skipped + 1, next(lines, "")
    lines = chain(["\n"] * (skipped - 1), [first], lines)
    read = _json_cells if first.lstrip().startswith("{") else _csv_cells
    named: dict[str, int] = {}
    for number, (line, cells) in enumerate(read(lines, problems), 1):
        if number > _MOST_LAYERS:
            problems.add(line, f"a network has at most {_MOST_LAYERS:,} layers")
            problems.raise_any()
        name = words.printable(cells.get("name") or f"{cells.get('kind', '')}{number}")
        row = _unread(line, name)
        if cells:  # or else the reader has said why not
            try:
                parsed = _parsed(cells, line, name)
                if name in named:
                    raise DscalcError(f"line {named[name]} has the name {name} already")
                row = parsed
            except DscalcError as error:
                problems.add(line, error)
        named.setdefault(name, line)
        yield row


def _unread(line: int, name: str) -> _Row:
    """Stand in for a row that cannot be read, so that those which it feeds are known."""
    return _Row(line, name, "", "", None, None, 1, None, None, "", None, None, 0, 1, 1, 1, False)


def _csv_cells(lines: Iterable[str], problems: _Problems) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row; no cells where they cannot be told apart."""
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add(reader.line_num, f"malformed CSV: {error}")
            if not header:
                problems.raise_any()
            yield reader.line_num, {}
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            _check_columns(header, reader.line_num, problems)
        elif len(cells) != len(header):
            problems.add(
                reader.line_num, f"{len(cells)} values for the {len(header)} columns of the header"
            )
            yield reader.line_num, {}
        else:
            yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))


def _json_cells(lines: Iterable[str], problems: _Problems) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each object; no cells where it cannot be read."""
    for number, line in enumerate(lines, 1):
        if line == "\n":
            continue
        cells: dict[str, str] = {}
        try:
            values = json.loads(
                line.strip(), object_pairs_hook=_without_duplicates, parse_int=str, parse_float=str
            )
            if not isinstance(values, dict) or not values:
                raise DscalcError(f"each line must be one object, got {words.shown(line.strip())}")
            cells = {name: _as_cell(name, value) for name, value in values.items()}
        except json.JSONDecodeError as error:
            problems.add(number, f"malformed JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            problems.add(number, "malformed JSON: it is nested too deeply")
        except DscalcError as error:
            problems.add(number, error)
        yield number, cells


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DscalcError(f"{words.shown(twice)} is there twice")
    return values


def _as_cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # numbers too, as they are written
        return value.strip()
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return times(value)
    rule = "must be a string, a whole number, true or false"
    raise DscalcError(f"{words.printable(name)} {rule}, got {value!r:.60}")


def _check_columns(header: list[str], line: int, problems: _Problems) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        problems.add(line, "there is one column; separate columns with commas")
        problems.raise_any()
    if header[0].startswith("["):
        problems.add(line, "it begins like a JSON array; write one JSON object a line instead")
        problems.raise_any()
    for number, column in enumerate(header):
        if column in header[:number]:
            problems.add(line, f"the column {words.shown(column)} is there twice")
        elif column not in _KNOWN:
            problems.add(
                line, f"unknown column {words.shown(column)}; {_suggestion(column, _KNOWN)}"
            )
    if "kind" not in header:
        problems.add(line, "there is no column kind; the first row must name the columns")
    problems.raise_any()


def _suggestion(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _parsed(cells: dict[str, str], line: int, name: str) -> _Row:
    """Read the words of one row; what does not belong to its kind is an error."""
    cells = {column: text for column, text in cells.items() if text}
    kind = cells.get("kind", "")
    if not kind:
        raise DscalcError(f"kind is missing; it is one of {', '.join(_COLUMNS)}")
    if kind not in _COLUMNS:
        raise DscalcError(f"unknown kind {words.shown(kind)}; {_suggestion(kind, _COLUMNS)}")
    for column in cells:
        if column not in _KNOWN:
            raise DscalcError(f"unknown field {words.shown(column)}; {_suggestion(column, _KNOWN)}")
        if column not in _COLUMNS[kind]:
            raise DscalcError(f"{column} has no meaning for kind {kind}; leave it empty")
    if "out_channels" in _COLUMNS[kind] and ("out_channels" in cells) == ("expansion" in cells):
        raise DscalcError(f"{kind} needs either out_channels or expansion")
    if "kernel_size" in _COLUMNS[kind] and "kernel_size" not in cells:
        raise DscalcError(f"{kind} needs a kernel_size{' or global' * (kind == 'pool')}")
    pools_all = kind == "pool" and cells.get("kernel_size") == "global"

    def whole(column: str) -> int | None:
        return words.whole(cells[column], column) if column in cells else None

    def size(column: str) -> Size | None:
        return words.size(cells[column], column) if column in cells else None

    def choice(column: str, *known: str) -> str:
        if cells.get(column, "") not in ("", *known):
            raise DscalcError(
                f"{column} must be {' or '.join(known)}, got {words.shown(cells[column])}"
            )
        return cells.get(column, "")

    return _Row(
        line,
        name,
        kind,
        words.printable(cells.get("from", "")),
        whole("in_channels"),
        size("input_size"),
        whole("repeat") or 1,
        whole("out_channels"),
        whole("expansion"),
        choice("rounding", "8", "8+"),
        None if pools_all else size("kernel_size"),
        size("stride"),
        words.padding(cells.get("padding", "valid" if kind == "pool" else "same"), "padding"),
        size("dilation") or 1,
        whole("groups") or 1,
        whole("depth_multiplier") or 1,
        choice("bias", "true", "false") == "true",
    )


def _connected(rows: list[_Row], scale: _Scale, problems: _Problems, *, check: bool) -> list[Layer]:
    """Feed each row from its source; with ``check``, hold what it says of its input against that.

    A row that hangs on a wrong one is passed over, so that only the wrong one is reported.
    """
    layers: list[Layer] = []
    outputs: dict[str, _Output | None] = {}
    before: _Output | None = None
    for row in rows:
        try:
            fed = before
            if not row.kind:
                fed = None
            elif row.source:
                fed = _named_source(row, rows, outputs)
            elif row is rows[0]:
                fed = _network_input(row, scale)
            if fed and check and (row.source or row is not rows[0]):
                _check_input(row, fed, sizes=scale.input_size is None)
            before = outputs[row.name] = None  # until it is known
            for copy in range(1, row.repeat + 1):
                if not fed:
                    break
                if copy == 2 and check:
                    _check_input(row, fed, " of its second copy", sizes=scale.input_size is None)
                if len(layers) >= _MOST_LAYERS:
                    raise DscalcError(f"a network has at most {_MOST_LAYERS:,} layers")
                name = row.name if row.repeat == 1 else f"{row.name}/{copy}"
                layer = _layer(row, name, fed, scale, last=row is rows[-1])
                if max(layer.in_channels, layer.out_channels) > _MOST_CHANNELS:
                    raise DscalcError("its channels have more than 100 digits")
                layers.append(layer)
                fed = _Output(layer.out_channels, layer.output_size)
            before = outputs[row.name] = fed
        except DscalcError as error:
            problems.add(row.line, error)
            before = outputs[row.name] = None
    return layers


def _named_source(
    row: _Row, rows: list[_Row], outputs: dict[str, _Output | None]
) -> _Output | None:
    if row.source in outputs:
        return outputs[row.source]
    wanted = f"from names {words.shown(row.source)}, but"
    if any(row.source == other.name for other in rows):
        raise DscalcError(f"{wanted} it must come before")
    if not outputs:
        raise DscalcError(f"{wanted} no row comes before this one; leave it empty")
    raise DscalcError(f"{wanted} there is no such row; {_suggestion(row.source, outputs)}")


def _network_input(row: _Row, scale: _Scale) -> _Output:
    if row.in_channels is None:
        raise DscalcError("the first row needs in_channels")
    if row.kind == "linear":
        if row.input_size is not None:
            raise DscalcError(
                "a linear layer that comes first has its features as in_channels and no input_size"
            )
        return _Output(row.in_channels, ())
    size = scale.input_size or row.input_size
    if size is None:
        raise DscalcError("the first row needs an input_size, or give --input-size")
    size = per_axis("input_size", size, scale.dims if isinstance(size, int) else len(size))
    if scale.resolution != 1:
        size = scaled_size(size, scale.resolution)
    return _Output(row.in_channels, size)


def _check_input(row: _Row, fed: _Output, which: str = "", *, sizes: bool) -> None:
    """Hold what a row says of its input against what feeds it; sizes where they are the file's."""
    if sizes or row.kind != "linear":
        channels = fed.channels * prod(fed.size) if row.kind == "linear" else fed.channels
        if row.in_channels not in (None, channels):
            raise DscalcError(
                f"in_channels is {row.in_channels}, but the input{which} has {channels:,}"
            )
    if sizes and row.input_size is not None:
        size = per_axis("input_size", row.input_size, len(fed.size))
        if size != fed.size:
            raise DscalcError(
                f"input_size is {times(size)}, but the input{which} is {times(fed.size)}"
            )


def _layer(row: _Row, name: str, fed: _Output, scale: _Scale, *, last: bool) -> Layer:
    channels, size = fed
    if row.kind == "norm":
        return Layer(name, row.kind, channels, channels, size, size, None, 2 * channels)
    if row.kind == "linear":
        features = channels * prod(size)
        width = Fraction(1) if last else scale.width
        out_channels = _scaled(row, features, width)
        linear = Conv(features, out_channels, (), (), bias=row.bias, batch_size=scale.batch_size)
        return Layer(name, row.kind, features, out_channels, (), (), Comparison(linear))
    if not size:
        raise DscalcError(f"{row.kind} needs a map, but a linear layer feeds it")
    if row.kind == "pool":
        if row.kernel_size is None:
            return Layer(name, row.kind, channels, channels, size, (1,) * len(size), None)
        stride = row.stride or row.kernel_size
        window = Conv(1, 1, row.kernel_size, size, stride, row.padding)
        return Layer(name, row.kind, channels, channels, size, window.output_size, None)
    assert row.kernel_size is not None
    stride = row.stride or 1
    if row.kind == "conv":
        conv = Conv(
            channels, _scaled(row, channels, scale.width), row.kernel_size, size, stride,
            row.padding, row.dilation, row.groups, row.bias, scale.batch_size,
        )  # fmt: skip
        comparison = Comparison(conv)
    else:
        depthwise = row.kind == "depthwise"
        comparison = compare(
            channels,
            channels * row.depth_multiplier if depthwise else _scaled(row, channels, scale.width),
            row.kernel_size,
            size,
            stride=stride,
            padding=row.padding,
            dilation=row.dilation,
            depth_multiplier=row.depth_multiplier,
            bias=row.bias,
            batch_size=scale.batch_size,
        )
        if depthwise:
            comparison = Comparison(comparison.standard, comparison.depthwise)
    standard = comparison.standard
    return Layer(
        name, row.kind, channels, standard.out_channels, size, standard.output_size, comparison
    )


def _scaled(row: _Row, in_channels: int, width: Fraction) -> int:
    """The output channels of a row under a width multiplier."""
    if row.expansion:
        return row.expansion * in_channels
    assert row.out_channels is not None
    if row.rounding == "8+":
        width = max(width, Fraction(1))
    if width == 1:
        return row.out_channels
    if not row.rounding:
        return scaled_channels(row.out_channels, width)
    return _to_multiple_of_8(width * row.out_channels)


def _to_multiple_of_8(channels: Fraction) -> int:
    """The nearest multiple of 8, at least 8 and not below 90%.

    Source: Sandler et al., MobileNetV2, 2018 (arXiv 1801.04381), the authors' implementation.
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if 10 * nearest >= 9 * channels else nearest + 8
