"""``dscalc network NAME|FILE|-``: a list of layers, with totals."""

import sys
from functools import partial
from typing import Annotated

import typer

from dscalc import library, parse
from dscalc.commands.answer import Answer
from dscalc.commands.asked import Asked
from dscalc.commands.meant import refuse_source
from dscalc.commands.options import (
    OutputOptions,
    ProofOptions,
    Questions,
    ScaleOptions,
    as_option,
    chosen_block,
    except_option,
    layer_option,
    only_option,
    options_given,
)
from dscalc.core import fields
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Axis
from dscalc.inputs.network_file import shipped, source_text
from dscalc.parse import Size

EXAMPLES = """
  dscalc network mobilenet_v1
  dscalc network mobilenet_v1 --width-multiplier 0.5 --input-size 160
  dscalc network mynet.csv --assert 'macs <= 600M'
  dscalc network mobilenet_v1 --width-multiplier 0.5,1 --input-size 128:224:32
  dscalc network vgg16 resnet50 --sort macs
  dscalc network resnet50 --as separable
  dscalc network resnet50 --show > mynet.csv
  cat mynet.jsonl | dscalc network - -f csv
  dscalc network --list
"""
FIELDS = fields.network_fields


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
    proof: ProofOptions,
    questions: Questions,
    ctx: typer.Context,
    input_size: Annotated[
        str | None,
        layer_option(
            "--input-size",
            metavar="N|HxW,...",
            help="Input size of the first row.",
        ),
    ] = None,
    as_: Annotated[
        str | None,
        as_option(
            help="Also show the cost as this block; standard turns blocks into plain convolutions.",
        ),
    ] = None,
    only: Annotated[
        list[str],
        only_option(help="Of --as: only rows whose name matches."),
    ] = [],  # noqa: B006  # typer copies it
    exclude: Annotated[list[str], except_option(help="Of --as: not these rows.")] = [],  # noqa: B006
    bias: Annotated[
        bool, layer_option("--bias/--no-bias", help="Bias in rows without a value.")
    ] = False,
    show: Annotated[bool, layer_option("--show", help="Print the network file and exit.")] = False,
    list_: Annotated[
        bool,
        layer_option(
            "--list",
            is_eager=True,
            callback=_print_networks,
            help="List the shipped networks and exit.",
        ),
    ] = False,
) -> Answer | int:
    """Add up a list of layers: MACs and params, where they are, and what a block would save.

    A file is CSV with a header row, or JSON Lines, one layer a row; --show prints one that
    ships, and the page "Network files" explains its columns.

    Several networks, and lists in --input-size and the multipliers, give one row of totals each.
    """
    for source in sources:
        refuse_source(source)
    if show:
        return _show(sources, ctx)
    block = chosen_block(as_, only, exclude)
    common = {"block": block, "bias": bias, "only": only or None, "exclude": exclude or None}
    variants = [
        {**options, **common, "dims": options["dims"] or 2, "input_size": size}
        for options in scale.variants()
        for size in (_input_sizes(input_size) if input_size is not None else [None])
    ]
    if sources.count("-") > 1:
        raise DscalcError("stdin can be read only once; give - once")
    output.refuse_to_replace(sources, "the list of layers itself")
    several = len(sources) * len(variants) > 1
    [variant, *_], [source, *_] = variants, sources
    one = partial(library.network, unit=output.unit)
    asked = Asked(
        ctx, FIELDS, block, output, proof, questions,
        several=several, batch_size=variant["batch_size"], other=partial(one, **variant),
        at_size=(lambda size: one(source, **{**variant, "input_size": size}))
        if source != "-"  # stdin can be read only once
        else None,
    )  # fmt: skip
    if several:
        return Answer(
            library.networks(sources, variants, output.unit),
            asked,
            prove=asked.proves(by_default=False),
        )
    return Answer(one(source, **variant), asked, prove=asked.proves(by_default=True))


def _show(sources: list[str], ctx: typer.Context) -> int:
    if len(sources) > 1:
        raise DscalcError(f"--show prints one file, got {len(sources)}")
    if others := [word for word in options_given(ctx) if word != "--show"]:
        raise DscalcError(f"--show prints the file as it is; drop {' and '.join(others)}")
    sys.stdout.write(source_text(sources[0]))
    return 0


def _input_sizes(text: str) -> list[Size]:
    """The input sizes in a list; a range gives square maps."""
    sizes: list[Size] = []
    for piece in text.split(","):
        one = ":" not in piece
        sizes += [parse.size(piece, "--input-size")] if one else Axis(piece, "--input-size")
    return sizes
