"""``dscalc network NAME|FILE|-``: a list of layers, with totals."""

import sys
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dscalc import parse, show
from dscalc.baseline.command import BaselineOptions, options_given
from dscalc.commands.answer import Asked, counter, watched, write_alternatives, write_with_total
from dscalc.commands.options import (
    CheckOptions,
    ConventionOptions,
    OutputOptions,
    ScaleOptions,
    as_option,
    except_option,
    layer_option,
    only_option,
)
from dscalc.core.blocks import STANDARD, Block
from dscalc.core.row import Count, Row, Shape, proved, total, with_shares
from dscalc.errors import DscalcError, FileError
from dscalc.inputs.grid import Axis
from dscalc.inputs.network_file import (
    load_network,
    load_scaled,
    read_network,
    shipped,
    source_name,
    source_text,
    titled,
)
from dscalc.parse import Size

if TYPE_CHECKING:  # few runs have one
    from dscalc.baseline.earlier import Baseline

EXAMPLES = """
  dscalc network mobilenet_v1
  dscalc network mobilenet_v1 --width-multiplier 0.5 --input-size 160
  dscalc network mynet.csv --assert 'macs <= 600M'
  dscalc network mobilenet_v1 --width-multiplier 0.5,1 --input-size 128:224:32
  dscalc network vgg16 resnet50 --sort macs
  dscalc network resnet50 --as separable
  dscalc network mynet.csv --baseline main.json --assert 'macs <= baseline'
  dscalc network resnet50 --show > mynet.csv
  cat mynet.jsonl | dscalc network - -f csv
  dscalc network --list
"""


def _print_networks(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        titles = shipped()
        width = max(map(len, titles))
        for name, title in titles.items():
            sys.stdout.write(f"{name:<{width}}  {title}\n")
        raise typer.Exit


def network(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|FILE|-...",
            help="Shipped network, file, or - for stdin. Several networks: one row of totals each.",
            autocompletion=lambda incomplete: [n for n in shipped() if n.startswith(incomplete)],
        ),
    ],
    scale: ScaleOptions,
    output: OutputOptions,
    check: CheckOptions,
    held_against: BaselineOptions,
    conventions: ConventionOptions,
    ctx: typer.Context,
    input_size: Annotated[
        str | None,
        layer_option(
            "--input-size",
            metavar="N|HxW,...",
            help="Input size of the first row. Several sizes: one row of totals each.",
        ),
    ] = None,
    as_: Annotated[
        str,
        as_option(
            help="Block that replaces convolutions; standard replaces each block by the plain "
            "convolution that it stands for.",
        ),
    ] = "standard",
    only: Annotated[
        list[str], only_option(help="Replace only rows whose name matches GLOB. Repeatable.")
    ] = [],  # noqa: B006  # typer copies it
    exclude: Annotated[
        list[str], except_option(help="Do not replace rows whose name matches GLOB. Repeatable.")
    ] = [],  # noqa: B006
    bias: Annotated[
        bool, layer_option("--bias/--no-bias", help="Add a bias to rows that do not say.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the network file and exit.")] = False,
    list_: Annotated[
        bool,
        typer.Option(
            "--list",
            is_eager=True,
            callback=_print_networks,
            help="List the shipped networks and exit.",
        ),
    ] = False,
) -> int:
    """Add up a list of layers, as it is and with other blocks.

    The list is CSV with a header row, or JSON Lines. Its columns are name, kind, in_channels,
    out_channels, kernel_size, stride, padding, output_padding, dilation, groups,
    depth_multiplier, bias, norm, scale, input_size, from, repeat, rounding and expansion. kind is
    conv, linear, pool, norm, transposed, upsample, depthwise or a block such as separable,
    bottleneck:4 or inverted:6. Each row takes the previous row's output as its input, or the
    output of the rows that "from" names: one, several joined by +, or input.

    macs and params are those of the network as it is; standard_macs are those with one plain
    convolution in place of each block. --get and --assert read the total.

    Several networks, and lists in --input-size and the multipliers, give one row of totals each.
    """
    if show:
        if len(sources) > 1:
            raise DscalcError(f"--show prints one file, got {len(sources)}")
        if others := [word for word in options_given(ctx) if word != "--show"]:
            raise DscalcError(f"--show prints the file as it is; drop {' and '.join(others)}")
        sys.stdout.write(source_text(sources[0]))
        return 0
    block = Block.parse(as_, "--as")
    common = {"block": block, "bias": bias, "only": only or None, "exclude": exclude or None}
    variants = [
        {**options, **common, "dims": options["dims"] or 2, "input_size": size}
        for options in scale.variants()
        for size in (_sizes(input_size) if input_size is not None else [None])
    ]
    if sources.count("-") > 1:
        raise DscalcError("stdin can be read only once; give - once")
    several = len(sources) * len(variants) > 1
    conventions.check(output, scale.batch, baseline=held_against.baseline, several=several)
    if several:
        held_against.refuse_several()
    before = _shipped(held_against.baseline, variants[0]) or held_against.read(
        ctx, "network", block, partial(_layers, variants[0])
    )
    asked = Asked("network", block, output, before)
    proves = asked.proves(check, by_default=conventions.proved and not several)
    count = counter(asked) if proves else None
    if several:
        _show_totals(sources, variants, asked, count)
    else:
        [variant] = variants
        load = partial(load_network, sources[0], **variant)
        _show_rows(sources[0], load, asked, count, conventions)
    return asked.verdict.conclude()


def _sizes(text: str) -> list[Size]:
    """The input sizes that are listed; a range is of square maps."""
    sizes: list[Size] = []
    for piece in text.split(","):
        one = ":" not in piece
        sizes += [parse.size(piece, "--input-size")] if one else Axis(piece, "--input-size")
    return sizes


def _show_rows(
    source: str,
    load: "partial[list[Row]]",
    asked: Asked,
    count: Count | None,
    conventions: ConventionOptions,
) -> None:
    rows = load()
    asked.refuse_many(len(rows))
    with asked.verdict.held():
        if count:
            rows = [proved(row, count) for row in watched(rows, len(rows), asked.output)]
        rows, sums = with_shares(rows), total(rows)
        title = titled(source, rows, load.keywords)
        report = asked.report(title, rows, total=sums, notes=_notes(rows, asked.block))
        if conventions.asked:
            from dscalc.peers.command import SIZES, answer_rows

            sizes = SIZES if source != "-" else ()  # which can be read once
            sized = ((size, load(input_size=size)) for size in sizes)
            asked.verdict.worse(answer_rows(report, conventions, asked.output, sized))
            return
        for row in rows:
            asked.verdict.crosscheck(row, report)
        write_with_total(report, asked)


def _show_totals(
    sources: list[str], variants: list[dict[str, Any]], asked: Asked, count: Count | None
) -> None:
    """A row for each network at each scale, of its totals."""
    asked.refuse_many(len(sources) * len(variants))

    def rows() -> Iterator[Row]:
        for source in sources:
            for rows, options in zip(load_scaled(source, variants), variants, strict=True):
                if count:
                    rows = [proved(row, count) for row in rows]
                first = rows[0].layer
                yield total(rows)._replace(
                    name=source_name(source),
                    kind="network",
                    layer=Shape(input_size=first.input_size, batch_size=options["batch_size"]),
                    width_multiplier=options["width_multiplier"],
                )

    def name(row: Row) -> str:
        width = ""
        if len({options["width_multiplier"] for options in variants}) > 1:
            width = f"width {row.width_multiplier}, "
        return f"{row.name}, {width}{show.times(row.layer.input_size)}"

    title = f"{len(sources) * len(variants):,} networks"
    report = asked.report(title)
    write_alternatives(report, asked.shown(rows(), report, None, name), asked, name)


def _shipped(baseline: Path | None, options: dict[str, Any]) -> "Baseline | None":
    """A network that ships with dscalc as what another one is held against."""
    if baseline is None or str(baseline) not in shipped() or baseline.exists():
        return None
    from dscalc.baseline.earlier import Baseline

    rows = with_shares(load_network(str(baseline), **options))
    return Baseline(str(baseline), rows, total(rows))


def _layers(options: dict[str, Any], content: bytes) -> list[Row]:
    """The rows of a baseline that is a list of layers too."""
    try:
        return read_network(BytesIO(content), "line", **options)
    except FileError as error:
        first = str(error).partition("\n")[0].replace(":", " ", 1)
        raise DscalcError(f"is neither a JSON report nor a list of layers ({first})") from None


def _notes(rows: list[Row], block: Block) -> list[str]:
    if not all(row.kept for row in rows):
        return []
    if block == STANDARD:
        return ["every row is already plain; --as separable shows what separable would cost"]
    return [f"no row can be rewritten as {block}"]
