"""A list of layers in a file -> rows: each row reads the output of the row before it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from dscalc import parse, show
from dscalc.core.blocks import BLOCKS, STANDARD, Block, Norm, Step, why_kept, with_norms
from dscalc.core.conv import Conv, per_axis, whole_number
from dscalc.core.cost import NOTHING
from dscalc.core.kinds import convolution_kind
from dscalc.core.patterns import Patterns
from dscalc.core.row import Row, Side, Sizes, rewriting, side
from dscalc.core.scale import Multiplier, exact_multiplier, scaled_channels, scaled_size
from dscalc.core.transposed import TransposedConv
from dscalc.errors import DscalcError
from dscalc.inputs.rows import Cells, Problems, read_cells, suggestion, unknown
from dscalc.parse import Padding, Size
from dscalc.show import times

_SHIPPED = Path(__file__).parent / "networks"
_MOST_LAYERS = 100_000
_MOST_CHANNELS = 10**100  # keeps their products below Python's 4300-digit limit

_ALWAYS = {"name", "kind", "in_channels", "input_size", "from", "repeat"}
_WIDE = {"out_channels", "rounding", "expansion"}
_SPATIAL = {"kernel_size", "stride", "padding", "dilation"}
_FILTERS = _ALWAYS | _WIDE | _SPATIAL | {"bias", "norm"}
_COLUMNS = {  # the columns of each kind
    "conv": _FILTERS | {"groups"},
    **dict.fromkeys(BLOCKS, _FILTERS),
    "separable": _FILTERS | {"depth_multiplier"},
    "depthwise": _FILTERS - _WIDE | {"depth_multiplier"},
    "transposed": _FILTERS | {"groups", "output_padding"},
    "linear": _ALWAYS | _WIDE | {"bias"},
    "pool": _ALWAYS | _SPATIAL - {"dilation"},
    "upsample": _ALWAYS | {"scale"},
    "norm": _ALWAYS,
}
del _COLUMNS["standard"]  # its kind is conv
_KNOWN = sorted(set().union(*_COLUMNS.values()))


@dataclass(frozen=True)
class _Entry:
    """A row of a file, not yet connected to the others; without a kind if it cannot be read."""

    line: int
    name: str
    kind: str = ""
    block: Block | None = None
    sources: tuple[str, ...] = ()  # rows that feed this one; empty: the row before
    in_channels: int | None = None
    input_size: Size | None = None
    repeat: int = 1
    out_channels: int | None = None
    expansion: int | None = None
    rounding: str = ""
    kernel_size: Size | None = None  # None: global
    stride: Size | None = None
    padding: Padding = "same"
    output_padding: Size = 0
    scale: Size = 2
    dilation: Size = 1
    groups: int = 1
    depth_multiplier: int = 1
    bias: bool | None = None
    norm: str = ""


@dataclass(frozen=True)
class _Scale:
    """Options of a network as a whole."""

    input_size: Size | None
    dims: int
    batch_size: int
    bias: bool  # of rows that do not say
    width: Fraction = Fraction(1)
    resolution: Fraction = Fraction(1)


@dataclass(frozen=True)
class _Map:
    channels: int
    size: tuple[int, ...]


def shipped() -> dict[str, str]:
    """The networks that come with dscalc: name -> title and source."""
    titles = {}
    for path in sorted(_SHIPPED.glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            titles[path.stem] = file.readline().lstrip("# ").rstrip()
    return titles


def source_name(source: str) -> str:
    """The name of a network without a title."""
    return "stdin" if source == "-" else show.printable(source)


def network_title(source: str, rows: Sequence[Row], scale: Mapping[str, Any]) -> str:
    """The title of a network, with its scale: the arguments of `load_network`."""
    title = shipped().get(source) or source_name(source)
    given = []
    if (width := scale.get("width_multiplier", 1)) != 1:
        given.append(f"width multiplier {width}")
    resized = scale.get("input_size") is not None or scale.get("resolution_multiplier", 1) != 1
    if resized and rows[0].layer.input_size:
        given.append(f"input {show.times(rows[0].layer.input_size)}")
    if (batch_size := scale.get("batch_size", 1)) != 1:
        given.append(f"batch {batch_size}")
    return f"{title}; here {', '.join(given)}" if given else title


def load_network(source: str, **scale: Any) -> list[Row]:
    """Read a shipped network by name, a file, or stdin as ``-``.

    ``scale`` is as for `read_network`.

    Raises:
        DscalcError: there is no such network or file, it cannot be read, or as `read_network`.
        FileError: rows are wrong; the message names each.
    """
    [rows] = load_scaled(source, [scale])
    return rows


def load_scaled(source: str, scales: Iterable[Mapping[str, Any]]) -> list[list[Row]]:
    """As `load_network`, for several scales; the file is read once."""
    with _opened(source) as (stream, name):
        problems = Problems(name)
        entries = _read(stream, problems)
        return [_scaled_rows(entries, problems, **scale) for scale in scales]


def read_network(stream: BinaryIO, name: str, **scale: Any) -> list[Row]:
    """Read a network, one layer per row: CSV with a header, or JSON Lines.

    Args:
        stream: UTF-8 bytes.
        name: the file's name in errors.
        scale: by keyword

            - ``block``: what rows are rewritten as, if anything; as the standard block, each block
              becomes the one plain convolution that it stands for.
            - ``input_size`` replaces the input size of the first row.
            - ``width_multiplier`` scales every channel count but the network's input and the
              outputs of a linear layer that comes last.
            - ``resolution_multiplier`` scales the input size.
            - ``dims``: spatial dimensions that a single int stands for.
            - ``batch_size``: samples.
            - ``bias``: whether rows that do not say have biases.
            - ``only``, ``exclude``: globs on names; rewrite only the former, keep the latter.
            - ``note``: gets a sentence if rows start anew, on an input of their own.

    Raises:
        DscalcError: a multiplier is not above 0, or a glob matches no row.
        FileError: rows are wrong; the message names each.
    """
    problems = Problems(name)
    return _scaled_rows(_read(stream, problems), problems, **scale)


def _read(stream: BinaryIO, problems: Problems) -> list[_Entry]:
    entries = list(_entries(stream, problems))
    if not entries and not problems.found:
        problems.add(1, "it has no layers; give a header row and one row per layer")
    return entries


def _scaled_rows(
    entries: list[_Entry],
    problems: Problems,
    *,
    block: Block | None = None,
    input_size: Size | None = None,
    width_multiplier: Multiplier = 1,
    resolution_multiplier: Multiplier = 1,
    dims: int = 2,
    batch_size: int = 1,
    bias: bool = False,
    only: Patterns | None = None,
    exclude: Patterns | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> list[Row]:
    own = entries[0].input_size if entries else None
    dims = whole_number("dims", dims)
    as_written = _Scale(input_size if own is None else None, dims, batch_size, bias)
    anew: dict[str, None] = {}
    rows = _connected(entries, as_written, block, problems, anew, check=True)
    problems.raise_any()
    scale = replace(
        as_written,
        input_size=input_size,
        width=exact_multiplier("width_multiplier", width_multiplier),
        resolution=exact_multiplier("resolution_multiplier", resolution_multiplier),
    )
    if scale != as_written:  # what rows say of their input no longer holds
        rows = _connected(entries, scale, block, problems, anew, check=False)
        problems.raise_any()
    if anew:
        rows_start = "rows start" if len(anew) > 1 else "row starts"
        names = show.first_few([*anew])
        note(f"{len(anew):,} {rows_start} anew, on another in_channels and input_size: {names}")
    return rewriting(rows, only, exclude)


def source_text(source: str) -> str:
    """The text of a network.

    Raises:
        DscalcError: there is no such network or file, or it cannot be read.
    """
    with _opened(source) as (stream, _):
        return stream.read().decode(errors="backslashreplace")


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The bytes of a shipped network, a file or ``-`` (stdin), and its name in errors."""
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
        if path.suffix or path.name != name:
            beside = map(str, path.parent.glob("*"))
            hint = show.did_you_mean(name, beside, "check the path", cutoff=0.75)
        else:
            hint = show.did_you_mean(name.lower(), shipped(), cutoff=0.82)
        raise DscalcError(f"no network or file named {show.quoted(name)}; {hint}") from None
    except OSError as error:
        raise DscalcError(f"cannot read {name}: {error.strerror or error}") from None


def _entries(stream: BinaryIO, problems: Problems) -> Iterator[_Entry]:
    named: dict[str, int] = {}
    for number, (line, cells) in enumerate(read_cells(stream, problems, _KNOWN), 1):
        if number > _MOST_LAYERS:
            problems.stop(line, f"a network has at most {_MOST_LAYERS:,} layers")
        name = show.printable(cells.get("name") or f"{cells.get('kind', '')}{number}")
        entry = _Entry(line, name)  # known to the rows that it feeds, even if it is wrong
        if cells:  # else the reader has reported the row
            try:
                parsed = _parsed(cells, line, name)
                if name in named:
                    raise DscalcError(f"line {named[name]} already has the name {name}")
                entry = parsed
            except DscalcError as error:
                problems.add(line, error)
        named.setdefault(name, line)
        yield entry


def _parsed(cells: Cells, line: int, name: str) -> _Entry:
    """Read the cells of one row.

    Raises:
        DscalcError: a cell is malformed, missing, or not for rows of this kind.
    """
    cells = {column: text for column, text in cells.items() if text}
    spelled = cells.get("kind", "")
    kind = spelled.partition(":")[0]
    if not kind:
        raise DscalcError(f"kind is missing; choose from {', '.join(_COLUMNS)}")
    if kind not in _COLUMNS:
        raise DscalcError(unknown("kind", kind, _COLUMNS))
    for column in cells:
        if column not in _KNOWN:
            raise DscalcError(unknown("field", column, _KNOWN))
        if column not in _COLUMNS[kind]:
            raise DscalcError(f"{column} has no meaning for kind {kind}; leave it empty")
    if "out_channels" in _COLUMNS[kind] and ("out_channels" in cells) == ("expansion" in cells):
        raise DscalcError(f"{kind} needs either out_channels or expansion")
    if "kernel_size" in _COLUMNS[kind] and "kernel_size" not in cells:
        raise DscalcError(f"{kind} needs a kernel_size{' or global' * (kind == 'pool')}")
    if name == "input":
        raise DscalcError(
            "the name input stands for the network's input; give the row another name"
        )
    block = Block.parse(spelled, "kind") if kind in BLOCKS else None
    if block is None and ":" in spelled:
        raise DscalcError(f"kind {kind} takes no number, got {show.quoted(spelled)}")
    if block and "depth_multiplier" in cells:
        number = parse.whole(cells["depth_multiplier"], "depth_multiplier")
        block = block._replace(numbers=(number,))
    if kind == "pool":
        cells.setdefault("padding", "valid")
        if cells["kernel_size"] == "global":
            del cells["kernel_size"]
    said = {
        column: read(cells[column], column) for column, read in _READERS.items() if column in cells
    }
    fed_by = show.printable(cells["from"]).split("+") if "from" in cells else []
    return _Entry(line, name, kind, block, tuple(map(str.strip, fed_by)), **said)


def _one_of(known: Mapping[str, Any]) -> Callable[[str, str], Any]:
    """A reader of a column that takes one of the words in ``known`` and returns its value."""

    def read(text: str, column: str) -> Any:
        word = text.lower()  # spreadsheets write TRUE
        if word not in known:
            raise DscalcError(f"{column} must be {' or '.join(known)}, got {show.quoted(text)}")
        return known[word]

    return read


_READERS: dict[str, Callable[[str, str], Any]] = {  # in the order of errors
    "bias": _one_of({"true": True, "false": False}),
    "norm": _one_of(
        {"each": "each", "first": "first", "last": "last", "true": "each", "false": ""}
    ),
    "in_channels": parse.whole,
    "input_size": parse.size,
    "repeat": parse.whole,
    "out_channels": parse.whole,
    "expansion": parse.whole,
    "rounding": _one_of({"8": "8", "8+": "8+"}),
    "kernel_size": parse.size,
    "stride": parse.size,
    "padding": parse.padding,
    "output_padding": partial(parse.size, least=0),
    "scale": parse.size,
    "dilation": parse.size,
    "groups": parse.whole,
    "depth_multiplier": parse.whole,
}


def _connected(
    entries: list[_Entry],
    scale: _Scale,
    block: Block | None,
    problems: Problems,
    anew: dict[str, None],
    *,
    check: bool,
) -> list[Row]:
    """Feed each row from its sources.

    Rows fed by an invalid row are skipped, so that only the invalid row is reported. If ``check``,
    the stated input of each row is compared with the real one, and ``anew`` gets the names of rows
    that start anew.
    """
    rows: list[Row] = []
    outputs: dict[str, _Map | None] = {"input": None}
    before: _Map | None = None
    for entry in entries:
        try:
            first = entry is entries[0]
            if first and entry.kind:
                before = outputs["input"] = _network_input(entry, scale)
            fed = _joined(entry, entries, outputs) if entry.sources else before
            if not entry.kind:
                fed = None
            if check and fed and not first and _starts_anew(entry, fed, scale):
                anew[entry.name] = None
            if fed and entry.name in anew:
                fed = _network_input(entry, replace(scale, input_size=None))
            elif check and fed and not first:
                _check_said(entry, fed, "")
            for copy in range(1, entry.repeat + 1):
                if not fed:
                    break
                if check and copy == 2:
                    _check_said(entry, fed, " of its second copy")
                if len(rows) >= _MOST_LAYERS:
                    raise DscalcError(f"a network has at most {_MOST_LAYERS:,} layers")
                name = entry.name if entry.repeat == 1 else f"{entry.name}/{copy}"
                row = _row(entry, name, fed, scale, block, last=entry is entries[-1])
                fed = _left_by(row)
                rows.append(row)
            before = outputs[entry.name] = fed
        except DscalcError as error:
            problems.add(entry.line, error)
            before = outputs[entry.name] = None
    return rows


def _left_by(row: Row) -> _Map:
    channels, size = row.layer.out_channels, row.layer.output_size
    assert channels is not None
    assert size is not None
    if max(channels, row.layer.in_channels or 0) > _MOST_CHANNELS:
        raise DscalcError("its channels have more than 100 digits")
    return _Map(channels, size)


def _joined(entry: _Entry, entries: list[_Entry], outputs: dict[str, _Map | None]) -> _Map | None:
    """The outputs of its sources, concatenated along channels; None if a source is invalid.

    Raises:
        DscalcError: there is no such source, or the sizes differ.
    """
    maps = [_named_source(source, entries, outputs) for source in entry.sources]
    known = [fed for fed in maps if fed]
    if len(known) < len(maps):
        return None
    sizes = {fed.size: None for fed in known}
    if len(sizes) > 1:
        raise DscalcError(
            f"from joins maps of the same size, got {' and '.join(times(size) for size in sizes)}"
        )
    return _Map(sum(fed.channels for fed in known), known[0].size)


def _named_source(
    source: str, entries: list[_Entry], outputs: dict[str, _Map | None]
) -> _Map | None:
    if source in outputs:
        return outputs[source]
    wanted = f"from names {show.quoted(source)},"
    if any(source == other.name for other in entries):
        raise DscalcError(f"{wanted} which must come before this row")
    if len(outputs) < 2:
        raise DscalcError(f"{wanted} but no row comes before this one; leave it empty")
    raise DscalcError(f"{wanted} but there is no such row; {suggestion(source, outputs)}")


def _network_input(row: _Entry, scale: _Scale) -> _Map:
    if row.in_channels is None:
        raise DscalcError("the first row needs in_channels")
    if row.kind == "linear":
        if row.input_size is not None:
            raise DscalcError(
                "a first linear layer takes its features as in_channels; leave input_size empty"
            )
        return _Map(row.in_channels, ())
    size = row.input_size if scale.input_size is None else scale.input_size
    own = len(row.input_size) if isinstance(row.input_size, tuple) else scale.dims
    if isinstance(size, tuple) and own < len(size) and size[0] == row.in_channels:
        map_alone = times(size[1:])
        raise DscalcError(f"input_size is the map without its channels: write {map_alone}")
    if size is None or size == ():
        option = show.for_who_asks("--input-size", "input_size to network()")
        raise DscalcError(f"the first row needs an input_size, or give {option}")
    size = per_axis("input_size", size, scale.dims if isinstance(size, int) else len(size))
    if scale.resolution != 1:
        size = scaled_size(size, scale.resolution)
    return _Map(row.in_channels, size)


def _starts_anew(row: _Entry, fed: _Map, scale: _Scale) -> bool:
    """Whether a row states an input of its own, of other channels or another size."""
    if row.sources or row.kind == "linear" or None in (row.in_channels, row.input_size):
        return False
    axes = len(fed.size) or scale.dims
    size = row.input_size if isinstance(row.input_size, tuple) else (row.input_size,) * axes
    return row.in_channels != fed.channels or size != fed.size


def _check_said(row: _Entry, fed: _Map, which: str) -> None:
    """Compare the stated input of a row with its real input.

    Raises:
        DscalcError: they differ.
    """
    linear = row.kind == "linear"
    channels = fed.channels * prod(fed.size) if linear else fed.channels
    anew = "" if which or linear or row.sources else "; a row that starts anew gives its {} too"
    if row.in_channels not in (None, channels):
        raise DscalcError(
            f"in_channels is {row.in_channels}, but the input{which} has {channels:,}"
            f"{anew.format('input_size')}"
        )
    if row.input_size is not None:
        size = per_axis("input_size", row.input_size, len(fed.size))
        if size != fed.size:
            raise DscalcError(
                f"input_size is {times(size)}, but the input{which} is {times(fed.size)}"
                f"{anew.format('in_channels')}"
            )


def _row(
    entry: _Entry, name: str, fed: _Map, scale: _Scale, block: Block | None, *, last: bool
) -> Row:
    channels, size = fed.channels, fed.size
    bias = scale.bias if entry.bias is None else entry.bias
    if entry.kind == "norm":
        shape = Sizes(channels, channels, size, size)
        return _row_as_it_is(name, entry.kind, shape, block, Norm(channels))
    if entry.kind == "linear":
        features = channels * prod(size)
        out_channels = _scaled(entry, features, Fraction(1) if last else scale.width)
        linear = Conv(features, out_channels, (), (), bias=bias, batch_size=scale.batch_size)
        shape = Sizes(features, out_channels, (), (), bias, scale.batch_size)
        return _row_as_it_is(name, entry.kind, shape, block, linear)
    if not size:
        raise DscalcError(
            f"{entry.kind} needs a map, but its input is the output of a linear layer"
        )
    if entry.kind in ("pool", "upsample"):
        output_size = (1,) * len(size)
        if entry.kind == "upsample":
            scales = per_axis("scale", entry.scale, len(size))
            output_size = tuple(length * by for length, by in zip(size, scales, strict=True))
        elif entry.kernel_size is not None:
            stride = entry.stride or entry.kernel_size
            output_size = Conv(1, 1, entry.kernel_size, size, stride, entry.padding).output_size
        shape = Sizes(channels, channels, size, output_size)
        return _row_as_it_is(name, entry.kind, shape, block)
    assert entry.kernel_size is not None
    made: Callable[..., Conv] = Conv
    if entry.kind == "transposed":
        made = partial(TransposedConv, output_padding=entry.output_padding)
    conv = made(
        in_channels=channels, out_channels=_scaled(entry, channels, scale.width),
        kernel_size=entry.kernel_size, input_size=size, stride=entry.stride or 1,
        padding=entry.padding, dilation=entry.dilation, groups=entry.groups, bias=bias,
        batch_size=scale.batch_size,
    )  # fmt: skip
    return _filtering(entry, name, conv, block)


def _filtering(entry: _Entry, name: str, conv: Conv, block: Block | None) -> Row:
    """The row of a convolution or a block, as it is, and rewritten if there is a block."""

    def built(steps: tuple[Step, ...]) -> Side:
        return side(with_norms(steps, entry.norm) if entry.norm else steps)

    own = replace(conv, groups=conv.in_channels) if entry.kind == "depthwise" else conv
    kind = convolution_kind(own) if entry.kind == "conv" else entry.kind
    steps = entry.block.steps(conv) if entry.block else (Step(entry.kind, own, own.cost),)
    row = Row(name, kind, own, built(steps), block=entry.block)
    if block is None:
        return row
    kept = ""
    if block == STANDARD:
        stands_in = entry.block or entry.kind == "depthwise"
        after, kept = STANDARD.steps(conv), "" if stands_in else kind
    elif entry.block:
        after = _plain_rewritten(steps, block)
        kept = entry.kind if after == steps else ""
    else:
        kept = why_kept(own, block) if entry.kind == "conv" else entry.kind
        after = () if kept else block.steps(conv)
    return row._replace(rewritten=row.as_is if kept else built(after), kept=kept)


def _plain_rewritten(steps: tuple[Step, ...], block: Block) -> tuple[Step, ...]:
    """The steps, with the block in place of each plain convolution."""
    found: list[Step] = []
    for step in steps:
        if isinstance(step.layer, Conv) and not why_kept(step.layer, block):
            found += block.steps(step.layer)
        else:
            found.append(step)
    if len({step.name for step in found}) < len(found):
        return steps  # two steps would have the same name
    return tuple(found)


def _row_as_it_is(
    name: str, kind: str, shape: Conv | Sizes, block: Block | None, part: Conv | Norm | None = None
) -> Row:
    """A row with nothing to rewrite."""
    as_is = side((Step(kind, part, part.cost),)) if part else Side(NOTHING)
    row = Row(name, kind, shape, as_is)
    return row._replace(rewritten=as_is, kept=kind) if block else row


def _scaled(row: _Entry, in_channels: int, width: Fraction) -> int:
    """The output channels of a row with a width multiplier."""
    if row.kind == "depthwise":
        return row.depth_multiplier * in_channels
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
    """The nearest multiple of 8, at least 8 and at least 90% of ``channels``.

    Source: Sandler et al., MobileNetV2, 2018 (arXiv 1801.04381), the authors' implementation.
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if 10 * nearest >= 9 * channels else nearest + 8
