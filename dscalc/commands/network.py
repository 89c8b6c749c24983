"""``dscalc network NAME|FILE|-``: a list of layers, with totals."""

import sys
from functools import partial
from typing import Annotated

import typer

from dscalc import words
from dscalc.commands.answer import (
    Answer,
    counter,
    plotting,
    refuse_many,
    uncounted,
    verdict_on,
    watched,
    write,
)
from dscalc.commands.options import CheckOptions, OutputOptions, ScaleOptions
from dscalc.inputs.network import load_network, shipped
from dscalc.record.fields import layer_record, total, values
from dscalc.report import sheet

EXAMPLES = """
  dscalc network mobilenet_v1
  dscalc network mobilenet_v1 --width-multiplier 0.5 --input-size 160
  dscalc network mynet.csv --assert 'separable_macs <= 600M'
  cat mynet.jsonl | dscalc network - -f csv
  dscalc network --list
"""


def _print_networks(wanted: bool) -> None:
    if wanted:
        titles = shipped()
        width = max(map(len, titles))
        for name, title in titles.items():
            sys.stdout.write(f"{name:<{width}}  {title}\n")
        raise typer.Exit


def network(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|-",
            help="A shipped network, a file, or stdin.",
            autocompletion=lambda incomplete: [n for n in shipped() if n.startswith(incomplete)],
        ),
    ],
    scale: ScaleOptions,
    output: OutputOptions,
    check: CheckOptions,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            metavar="N|HxW",
            help="Replaces the first row's input size.",
            rich_help_panel="Layer",
        ),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", is_eager=True, callback=_print_networks, help="Name the shipped networks."
        ),
    ] = False,
) -> int:
    """Add up a list of layers, as standard and as depthwise separable convolutions.

    The list is CSV with a header row, or JSON Lines. Its columns are name, kind, in_channels,
    out_channels, kernel_size, stride, padding, dilation, groups, depth_multiplier, bias,
    input_size, from, repeat, rounding and expansion; kind is conv, separable, depthwise, linear,
    pool or norm. A row reads from the one before, or from the row that "from" names.

    Here separable is the network as it is, and standard the network with a full convolution in
    place of each separable and depthwise row. --get and --assert hold the total.
    """
    verdict = verdict_on(output)
    size = words.size(input_size, "--input-size") if input_size else None
    layers = load_network(source, input_size=size, **scale.parsed())
    refuse_many(len(layers), output)
    if check.wanted(not output.get, [*verdict.assertion_fields, *output.get]):
        count, in_turn = counter(verdict, output.verbose), watched(layers, len(layers), output)
    else:
        count, in_turn = uncounted, layers
    rows = [layer_record(layer, count(layer)) for layer in in_turn]
    sums = total(rows)
    known = values(sums, output.unit)
    title = shipped().get(source, "stdin" if source == "-" else words.printable(source))
    if output.plot:
        with plotting(output.plot) as (plot, path, kind):
            sides = ("as standard convolutions", "as it is")
            plot.network(rows, path, kind, output.unit, title, sides)
    write(
        Answer(
            rows, lambda _: sheet.network(title, rows, sums, output.unit), [known], lambda _: sums
        ),
        output,
    )
    for row in rows:
        verdict.crosscheck(row, partial(str, row.name))
    verdict.check(known)
    return verdict.conclude()
