"""Compare layers, blocks and networks from Python; the commands call these functions too.

Functions import what ``import dscalc`` does not load anyway, so that ``dscalc`` starts quickly.
"""

from os import fspath
from typing import TYPE_CHECKING, Any

from dscalc.core.blocks import DEFAULTS, SEPARABLE, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.row import Sizes, cheapest_first, existing, layer_row, total, with_shares
from dscalc.errors import DscalcError
from dscalc.show import for_who_asks, times

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

    from dscalc.core.fields import Fields, Unit
    from dscalc.core.patterns import Patterns
    from dscalc.core.row import Count, Row
    from dscalc.core.scale import Multiplier
    from dscalc.inputs.grid import Grid, Values
    from dscalc.parse import Padding, Size
    from dscalc.report.report import Report

_LARGE_KERNEL = 15  # taps along an axis: few filters are wider


def compare(
    in_channels: "Values",
    out_channels: "Values",
    kernel_size: "Values",
    input_size: "Values | None" = None,
    *,
    block: "Block | str" = SEPARABLE,
    stride: "Size" = 1,
    padding: "Padding" = "same",
    dilation: "Size" = 1,
    groups: int = 1,
    bias: bool = False,
    batch_size: int = 1,
    dims: int | None = None,
    width_multiplier: "Multiplier" = 1,
    resolution_multiplier: "Multiplier" = 1,
    verify: bool = False,
    unit: "Unit" = "macs",
    work: bool = False,
) -> "Report":
    """Compare a standard convolution with a block that replaces it, as ``dscalc compare`` does.

    Each of the first four arguments is one value, a list, or text as on the command line, such as
    ``"32:1024:x2"``. Several values make a grid, one row per combination. Each time you read the
    rows of a grid, they are made anew, unless ``verify``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of the filter, (H, W) in 2-D.
        input_size: size of the input feature map; if omitted, count one output position.
        block: the replacement, such as ``"separable:2"``.
        stride: step of the filter.
        padding: zeros at each end of an axis; or ``"valid"``, none; or ``"same"``, as many as make
            the output ``ceil(input_size / stride)``.
        dilation: distance between taps.
        groups: groups of channels of the standard convolution.
        bias: whether every convolution has a bias.
        batch_size: samples; multiplies the MACs.
        dims: number of axes of a size that is one number; by default as many as a size that is a
            tuple has, else 2.
        width_multiplier: scales both channel counts, as in `scaled_channels`.
        resolution_multiplier: scales the input size, as in `scaled_size`.
        verify: whether fvcore and torch count both; this imports torch.
        unit: of the counts in the report: ``"macs"``, or ``"flops"``, 2 per MAC.
        work: whether tables show the arithmetic of each step; only for one layer.

    Raises:
        DscalcError: a value is out of its range, the kernel does not fit the padded input, the
            block does not exist for this convolution, or ``work`` is asked for several layers.
        CrosscheckError: torch refuses modules of these sizes.
    """
    from dscalc.core.describe import described
    from dscalc.core.fields import layer_fields
    from dscalc.inputs.grid import Grid

    block = _block(block, standard="what the layer is compared with")
    layers = Grid(
        in_channels, out_channels, kernel_size, input_size, dims, stride=stride, padding=padding,
        dilation=dilation, groups=groups, bias=bias, batch_size=batch_size,
        width_multiplier=width_multiplier, resolution_multiplier=resolution_multiplier,
    )  # fmt: skip
    block = block.along(layers.dims)
    report = _without_rows("compare", layers, block, layer_fields(block, unit), unit, work)
    if layers.count == 1:
        row = layer_row(layers.first, block)
        report.rows, report.total = [row], total([row])
        report.notes += _remarks(layers, block, padding)
    else:
        report.rows = _Rows(lambda: existing(layers, [block], report.left_out))
        report.name = lambda row: described(_layer_of(row), block)
    return report.proved(_counter()) if verify else report


def blocks(
    in_channels: "Values",
    out_channels: "Values",
    kernel_size: "Values",
    input_size: "Values | None" = None,
    *,
    only: "Iterable[Block | str] | Block | str" = DEFAULTS,
    stride: "Size" = 1,
    padding: "Padding" = "same",
    dilation: "Size" = 1,
    groups: int = 1,
    bias: bool = False,
    batch_size: int = 1,
    dims: int | None = None,
    width_multiplier: "Multiplier" = 1,
    resolution_multiplier: "Multiplier" = 1,
    verify: bool = False,
    unit: "Unit" = "macs",
    work: bool = False,
) -> "Report":
    """Compare the ways to build a layer, cheapest first, as ``dscalc blocks`` does.

    Args:
        in_channels, out_channels, kernel_size, input_size: as in `compare`; each of several layers
            has one row per block.
        only: these blocks; by default all that exist for a layer, and a note lists the others. The
            standard convolution is always included.
        stride, padding, dilation, groups, bias, batch_size, dims: as in `compare`.
        width_multiplier, resolution_multiplier, unit, work: as in `compare`.
        verify: whether fvcore and torch count each; this imports torch.

    Raises:
        DscalcError: as `compare`; or one of ``only`` does not exist for the only layer.
        CrosscheckError: torch refuses modules of these sizes.
    """
    from dscalc.core.describe import described
    from dscalc.core.fields import block_fields
    from dscalc.inputs.grid import Grid

    named = [_block(each) for each in ([only] if isinstance(only, str | Block) else only)]
    chosen = list(dict.fromkeys([*named, STANDARD]))
    layers = Grid(
        in_channels, out_channels, kernel_size, input_size, dims, stride=stride, padding=padding,
        dilation=dilation, groups=groups, bias=bias, batch_size=batch_size,
        width_multiplier=width_multiplier, resolution_multiplier=resolution_multiplier,
    )  # fmt: skip
    report = _without_rows("blocks", layers, STANDARD, block_fields(STANDARD, unit), unit, work)
    report.count = layers.count * len(chosen)
    if layers.count == 1:
        report.rows = cheapest_first(layers.first, chosen, report.left_out)
        if only is not DEFAULTS and report.left_out:  # a block that is asked for by name must exist
            raise DscalcError(next(iter(report.left_out)))
    else:
        left_out = report.left_out
        report.rows = _Rows(
            lambda: (row for conv in layers for row in cheapest_first(conv, chosen, left_out))
        )
        report.name = lambda row: f"{row.name} of {described(_layer_of(row), STANDARD)}"
    return report.proved(_counter()) if verify else report


def network(
    source: "str | PathLike[str] | list[str | PathLike[str]]",
    *,
    block: "Block | str | None" = None,
    input_size: "Size | list[Size] | None" = None,
    width_multiplier: "Multiplier | list[Multiplier]" = 1,
    resolution_multiplier: "Multiplier | list[Multiplier]" = 1,
    batch_size: int = 1,
    dims: int = 2,
    bias: bool = False,
    only: "Patterns | None" = None,
    exclude: "Patterns | None" = None,
    verify: bool = False,
    unit: "Unit" = "macs",
) -> "Report":
    """Add up a list of layers, as ``dscalc network`` does.

    Lists of sources, of sizes or of multipliers give one row of totals for each combination, and
    no total.

    Args:
        source: name of a shipped network, or a file; ``"-"`` is stdin.
        block: what replaces its convolutions, if anything; ``"standard"`` replaces each block by
            the plain convolution that it stands for.
        input_size: of its first row, in place of its own.
        width_multiplier: scales every channel count but the network's input and the outputs of a
            linear layer that comes last.
        resolution_multiplier: scales the input size.
        batch_size: samples.
        dims: number of axes of a size that is one number.
        bias: whether rows that do not say have a bias.
        only, exclude: globs on the rows that are replaced; they need a block.
        verify: whether fvcore and torch count every row; this imports torch.
        unit: of the counts in the report: ``"macs"``, or ``"flops"``, 2 per MAC.

    Raises:
        DscalcError: there is no such network or file, it cannot be read, a multiplier is not above
            0, or a glob matches no row.
        FileError: rows of the file are wrong; the message names each.
        CrosscheckError: torch refuses modules of these sizes.
    """
    scale: dict[str, Any] = {
        "input_size": input_size, "width_multiplier": width_multiplier,
        "resolution_multiplier": resolution_multiplier, "batch_size": batch_size, "dims": dims,
        "bias": bias, "only": only, "exclude": exclude, "block": block and _block(block),
    }  # fmt: skip
    if block is None and (only or exclude):
        raise DscalcError("only and exclude choose what is replaced; give a block too")
    listed = ("width_multiplier", "resolution_multiplier", "input_size")
    if isinstance(source, list) or any(isinstance(scale[name], list) for name in listed):
        from itertools import product

        each = {name: _as_list_of(name, scale[name]) for name in listed}
        scales = [scale | dict(zip(listed, one, strict=True)) for one in product(*each.values())]
        report = networks(_as_list_of("source", source), scales, unit)
        return report.proved(_counter()) if verify else report
    from dscalc.inputs.network_file import load_network

    source = fspath(source)
    notes: list[str] = []
    rows = load_network(source, **scale, note=notes.append)
    report = _summed(source, rows, scale, unit)
    report.notes = notes
    return report.proved(_counter()) if verify else report


def networks(
    sources: "Sequence[str | PathLike[str]]",
    scales: "Sequence[dict[str, Any]]",
    unit: "Unit",
) -> "Report":
    """The totals of several networks, or of one at several scales, one row each.

    Args:
        sources: as in `network`.
        scales: the keywords of `load_network`, once per row of a source.
        unit: of the counts in the report.

    Raises:
        DscalcError, FileError: as `network`, once the rows are read.
    """
    from dscalc.core.fields import network_fields
    from dscalc.inputs.network_file import load_scaled, source_name
    from dscalc.report.report import Report

    block = scales[0]["block"]
    several_widths = len({scale["width_multiplier"] for scale in scales}) > 1
    notes: list[str] = []

    def rows() -> "Iterator[Row]":
        for source in [fspath(each) for each in sources]:
            said: dict[str, None] = {}
            noting = [{**scale, "note": said.setdefault} for scale in scales]
            every = load_scaled(source, noting)
            notes.extend(f"{source_name(source)}: {note}" for note in said)
            for rows, scale in zip(every, scales, strict=True):
                report = _summed(source, rows, scale, unit)
                yield report.whole._replace(
                    name=source_name(source), kind="network", extra=report,
                    width_multiplier=scale["width_multiplier"],
                    layer=Sizes(
                        input_size=rows[0].layer.input_size, batch_size=scale["batch_size"]
                    ),
                )  # fmt: skip

    def name(row: "Row") -> str:
        width = f"width {row.width_multiplier}, " if several_widths else ""
        return f"{row.name}, {width}{times(row.layer.input_size)}"

    def prove(row: "Row", count: "Count") -> "Row":
        whole: Row = row.extra.proved(count).whole
        return whole._replace(
            name=row.name, kind=row.kind, layer=row.layer, width_multiplier=row.width_multiplier
        )

    count = len(sources) * len(scales)
    return Report(
        "network", block, network_fields(block, unit), _Rows(rows), unit=unit, count=count,
        title=f"{count:,} networks", name=name, prove=prove, notes=notes,
    )  # fmt: skip


def _without_rows(
    command: str, layers: "Grid", block: Block, fields: "Fields", unit: "Unit", work: bool
) -> "Report":
    """The report of one or more layers, before it has rows."""
    from dscalc.report.report import Report

    if work and layers.count > 1:
        asked = for_who_asks("--work shows", "work=True shows")
        sizes = for_who_asks("IC, OC, F and D", "the channels and sizes")
        raise DscalcError(f"{asked} one layer; give one value for each of {sizes}")
    return Report(
        command, block, fields, (), unit=unit, count=layers.count, work=work,
        title=layers.in_words(block), notes=[*_forgotten(layers)],
    )  # fmt: skip


def _summed(source: str, rows: "list[Row]", scale: "dict[str, Any]", unit: "Unit") -> "Report":
    """The report of a network, from its rows."""
    from dscalc.core.fields import network_fields
    from dscalc.inputs.network_file import network_title
    from dscalc.report.report import Report

    block, first = scale["block"], rows[0].layer
    inputs = ""
    if isinstance(first, Conv):
        inputs = times((first.batch_size, first.in_channels, *first.input_size))
    rows = with_shares(rows)
    return Report(
        "network", block, network_fields(block, unit), rows, total(rows), unit=unit,
        count=len(rows), title=network_title(source, rows, scale), inputs=inputs,
    )  # fmt: skip


class _Rows:
    """Rows that are made anew at each iteration."""

    def __init__(self, make: "Any") -> None:
        self._make = make

    def __iter__(self) -> "Iterator[Row]":
        rows: Iterator[Row] = self._make()
        return rows


def _as_list_of(name: str, value: "Any") -> "list[Any]":
    """The values of a list, or the only value."""
    if value == []:
        raise DscalcError(f"{name} must have a value, got an empty list")
    return value if isinstance(value, list) else [value]


def _layer_of(row: "Row") -> Conv:
    assert isinstance(row.layer, Conv)
    return row.layer


def _remarks(layers: "Grid", block: Block, padding: "Padding") -> "Iterator[str]":
    """Notes on the sizes of the only layer."""
    from operator import gt

    from dscalc.core.describe import beyond_one_position

    conv = layers.first
    if layers.one_position:
        yield beyond_one_position(conv, block, padding)
    elif any(map(gt, conv.kernel_size, [2 * size - 1 for size in conv.input_size])):
        order = "in_channels, out_channels, kernel_size, input_size"
        order = for_who_asks("IC OC F D", order)
        yield f"some taps of the filter read only padding; the order is {order}"


def _forgotten(layers: "Grid") -> "Iterator[str]":
    """A note if F is so large that it was probably meant as D, and OC was forgotten."""
    conv = layers.first
    if layers.one_position and (large := max(conv.kernel_size)) > _LARGE_KERNEL:
        ic, oc = conv.in_channels, conv.out_channels
        write = f"if that is D, write IC OC F D, such as {ic} {ic} {oc} {large}"
        call = f"if that is input_size, call compare({ic}, {ic}, {oc}, {large})"
        filter_size = for_who_asks("F", "kernel_size")
        yield f"{filter_size} is {large} here; {for_who_asks(write, call)}"


def _block(block: "Block | str", *, standard: str = "") -> Block:
    if isinstance(block, Block) and not (standard and block == STANDARD):
        return block
    return Block.parse(str(block), standard=standard)


def _counter() -> "Count":
    from dscalc.pytorch.crosscheck import count

    return count
