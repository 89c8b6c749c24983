"""What the commands answer, as calls. Nothing is imported before it is needed: see `cli`."""

from os import fspath
from typing import TYPE_CHECKING, Any

from dscalc.core.blocks import DEFAULTS, SEPARABLE, STANDARD, Block
from dscalc.errors import DscalcError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from dscalc.core.conv import Conv
    from dscalc.core.patterns import Patterns
    from dscalc.core.row import Row
    from dscalc.core.scale import Multiplier
    from dscalc.parse import Padding, Size
    from dscalc.report.report import Report


def compare(
    in_channels: int,
    out_channels: int,
    kernel_size: "Size",
    input_size: "Size | None" = None,
    *,
    block: "Block | str" = SEPARABLE,
    stride: "Size" = 1,
    padding: "Padding" = "same",
    dilation: "Size" = 1,
    groups: int = 1,
    bias: bool = False,
    batch_size: int = 1,
    width_multiplier: "Multiplier" = 1,
    resolution_multiplier: "Multiplier" = 1,
    verify: bool = False,
) -> "Report":
    """Compare a standard convolution with a block that replaces it, as ``dscalc compare`` does.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in `Conv`.
        bias, batch_size: as in `Conv`.
        input_size: size of the input feature map; if omitted, count one output position.
        block: the replacement, such as ``"separable:2"``.
        width_multiplier: scales both channels, as in `scaled_channels`.
        resolution_multiplier: scales the input size, as in `scaled_size`.
        verify: whether fvcore and torch count both; this imports torch.

    Raises:
        DscalcError: as `Conv`; or the block does not exist for this convolution.
        CrosscheckError: torch refuses modules of these sizes.
    """
    from dscalc.core.describe import described
    from dscalc.core.row import layer_row, total
    from dscalc.report.report import Report

    block = _block(block, standard="what the layer is compared with")
    conv = _layer(
        in_channels, out_channels, kernel_size, input_size, stride, padding, dilation, groups,
        bias, batch_size, width_multiplier, resolution_multiplier,
    )  # fmt: skip
    rows = _proved([layer_row(conv, block)], verify)
    title = described(conv, block, one_position=input_size is None)
    return Report("compare", block, rows, total(rows), title=title)


def blocks(
    in_channels: int,
    out_channels: int,
    kernel_size: "Size",
    input_size: "Size | None" = None,
    *,
    only: "Iterable[Block | str] | str" = DEFAULTS,
    verify: bool = False,
    **options: Any,
) -> "Report":
    """Set the ways to build a layer side by side, cheapest first; ``dscalc blocks``.

    Args:
        in_channels, out_channels, kernel_size, input_size: as in `compare`.
        only: these blocks, by default all that exist for this layer; a note says which do not.
            The standard convolution is always among them.
        verify: whether fvcore and torch count each; this imports torch.
        options: ``stride`` to ``resolution_multiplier``, as in `compare`.

    Raises:
        DscalcError: as `Conv`; or one of ``only`` does not exist for this convolution.
        CrosscheckError: torch refuses modules of these sizes.
    """
    from collections import Counter

    from dscalc.core.describe import described
    from dscalc.core.row import cheapest_first
    from dscalc.report.report import Report

    conv = _layer(in_channels, out_channels, kernel_size, input_size, **options)
    left_out: Counter[str] = Counter()
    chosen = [*map(_block, [only] if isinstance(only, str) else only), STANDARD]
    found = cheapest_first(conv, list(dict.fromkeys(chosen)), left_out)
    if only is not DEFAULTS and left_out:  # what is asked for by name must exist
        raise DscalcError(next(iter(left_out)))
    rows = _proved(found, verify)
    title = described(conv, STANDARD, one_position=input_size is None)
    notes = [f"left out: {why}" for why in left_out]
    return Report("blocks", STANDARD, rows, title=title, notes=notes)


def _layer(
    in_channels: int,
    out_channels: int,
    kernel_size: "Size",
    input_size: "Size | None",
    stride: "Size" = 1,
    padding: "Padding" = "same",
    dilation: "Size" = 1,
    groups: int = 1,
    bias: bool = False,
    batch_size: int = 1,
    width_multiplier: "Multiplier" = 1,
    resolution_multiplier: "Multiplier" = 1,
) -> "Conv":
    """The standard convolution; without an input size, of one output position."""
    from dscalc.core.conv import Conv
    from dscalc.core.scale import scaled_channels, scaled_size

    if width_multiplier != 1:
        in_channels = scaled_channels(in_channels, width_multiplier)
        out_channels = scaled_channels(out_channels, width_multiplier)
    if input_size is None:
        input_size, padding, resolution_multiplier = stride, "same", 1
    if resolution_multiplier != 1:
        input_size = scaled_size(input_size, resolution_multiplier)
    return Conv(
        in_channels, out_channels, kernel_size, input_size, stride, padding, dilation, groups,
        bias, batch_size,
    )  # fmt: skip


def network(
    source: "str | PathLike[str]",
    *,
    block: "Block | str" = STANDARD,
    input_size: "Size | None" = None,
    width_multiplier: "Multiplier" = 1,
    resolution_multiplier: "Multiplier" = 1,
    batch_size: int = 1,
    dims: int = 2,
    bias: bool = False,
    only: "Patterns | None" = None,
    exclude: "Patterns | None" = None,
    verify: bool = False,
) -> "Report":
    """Add up a list of layers, as ``dscalc network`` does.

    Args:
        source: name of a shipped network, or a file.
        block: what replaces its convolutions; ``"standard"`` replaces each block by the plain
            convolution that it stands for.
        input_size: of its first row, in place of its own.
        width_multiplier: scales every channel count but the network's input and the outputs of a
            linear layer that comes last.
        resolution_multiplier: scales the input size.
        batch_size: samples.
        dims: axes of sizes that are one number.
        bias: whether rows that do not say have a bias.
        only, exclude: globs on the rows that are replaced.
        verify: whether fvcore and torch count every row; this imports torch.

    Raises:
        DscalcError: there is no such network or file, or it cannot be read.
        FileError: rows of the file are wrong; it names each.
        CrosscheckError: torch refuses modules of these sizes.
    """
    from dscalc.core.row import total, with_shares
    from dscalc.inputs.network_file import load_network, titled
    from dscalc.report.report import Report

    source, block = fspath(source), _block(block)
    scale: dict[str, Any] = {
        "input_size": input_size, "width_multiplier": width_multiplier,
        "resolution_multiplier": resolution_multiplier, "batch_size": batch_size,
    }  # fmt: skip
    loaded = load_network(
        source, block=block, dims=dims, bias=bias, only=only, exclude=exclude, **scale
    )
    rows = with_shares(_proved(loaded, verify))
    return Report("network", block, rows, total(rows), title=titled(source, rows, scale))


def _block(block: "Block | str", *, standard: str = "") -> Block:
    if isinstance(block, Block) and not (standard and block == STANDARD):
        return block
    return Block.parse(str(block), standard=standard)


def _proved(rows: "list[Row]", verify: bool) -> "list[Row]":
    if not verify:
        return rows
    from dscalc.core.row import proved
    from dscalc.pytorch.crosscheck import count

    return [proved(row, count) for row in rows]
