"""``dscalc network NAME|FILE|-``: a list of layers, with totals."""

import sys
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from dscalc import words
from dscalc.commands.answer import Asked, counter, plotting, refuse_many, watched, write
from dscalc.commands.options import CheckOptions, OutputOptions, ScaleOptions
from dscalc.core.blocks import BLOCKS, STANDARD, Block
from dscalc.core.row import Row, proved, total, with_shares
from dscalc.inputs.network import load_network, shipped
from dscalc.record.report import Report

EXAMPLES = """
  dscalc network mobilenet_v1
  dscalc network mobilenet_v1 --width-multiplier 0.5 --input-size 160
  dscalc network mynet.csv --assert 'macs <= 600M'
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
    as_: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="BLOCK",
            help="What rows are rewritten as; standard: each block as the plain convolution that "
            "it stands for.",
            autocompletion=lambda incomplete: [n for n in BLOCKS if n.startswith(incomplete)],
            rich_help_panel="Layer",
        ),
    ] = "standard",
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

    macs and params are those of the network as it is; standard_macs those of the network with a
    full convolution in place of each separable and depthwise row. --get and --assert hold the
    total.
    """
    block = Block.parse(as_)
    asked = Asked("network", block, output)
    size = words.size(input_size, "--input-size") if input_size else None
    options = scale.parsed()
    options["dims"] = options["dims"] or 2
    rows = load_network(source, block=block, input_size=size, **options)
    refuse_many(len(rows), output)
    with asked.verdict.held():
        if check.wanted(not output.get, asked.fields):
            count = counter(asked.verdict, output.verbose)
            rows = [proved(row, count) for row in watched(rows, len(rows), output)]
        rows, sums = with_shares(rows), total(rows)
        title = shipped().get(source, "stdin" if source == "-" else words.printable(source))
        report = Report("network", block, rows, sums, title=title, unit=output.unit)
        for row in rows:
            asked.verdict.crosscheck(row, report, partial(str, row.name))
        asked.verdict.check(sums)
        report = replace(report, checks=asked.verdict.checks, notes=_notes(rows, block))
        if output.plot:
            with plotting(output.plot) as (plot, path, kind):
                plot.network(report, path, kind)
        write(report, output, asked.get)
    return asked.verdict.conclude()


def _notes(rows: list[Row], block: Block) -> list[str]:
    if block == STANDARD and all(row.kept for row in rows):
        return ["every row is plain already; --as separable says what separable would cost"]
    return []
