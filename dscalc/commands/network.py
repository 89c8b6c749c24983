"""``dscalc network NAME|FILE|-``: a list of layers, with totals."""

import sys
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from dscalc import words
from dscalc.commands.answer import Asked, counter, refuse_many, watched, write
from dscalc.commands.options import (
    CheckOptions,
    ConventionOptions,
    OutputOptions,
    ScaleOptions,
    as_option,
)
from dscalc.core.blocks import STANDARD, Block
from dscalc.core.row import Row, proved, total, with_shares
from dscalc.inputs.network import load_network, shipped, source_text
from dscalc.record.report import Report

EXAMPLES = """
  dscalc network mobilenet_v1
  dscalc network mobilenet_v1 --width-multiplier 0.5 --input-size 160
  dscalc network mynet.csv --assert 'macs <= 600M'
  dscalc network resnet50 --as separable
  dscalc network resnet50 --show > mynet.csv
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
    conventions: ConventionOptions,
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
        as_option(
            help="What rows are rewritten as; standard: each block as the plain convolution that "
            "it stands for.",
            rich_help_panel="Layer",
        ),
    ] = "standard",
    bias: Annotated[
        bool,
        typer.Option(
            "--bias/--no-bias", help="A bias where a row does not say.", rich_help_panel="Layer"
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the file itself, and do nothing else.")
    ] = False,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", is_eager=True, callback=_print_networks, help="Name the shipped networks."
        ),
    ] = False,
) -> int:
    """Add up a list of layers, as it is and with its blocks built another way.

    The list is CSV with a header row, or JSON Lines. Its columns are name, kind, in_channels,
    out_channels, kernel_size, stride, padding, output_padding, dilation, groups,
    depth_multiplier, bias, norm, scale, input_size, from, repeat, rounding and expansion. kind is
    conv, linear, pool, norm, transposed, upsample, depthwise or a block such as separable,
    bottleneck:4 or inverted:6. Each row reads what the row before it leaves, or the rows that
    "from" names: one, several joined by +, or input.

    macs and params are those of the network as it is; standard_macs those of the network with one
    plain convolution in place of each block. --get and --assert read the total.
    """
    if show:
        sys.stdout.write(source_text(source))
        return 0
    block = Block.parse(as_)
    conventions.check(output, scale.batch)
    asked = Asked("network", block, output)
    size = words.size(input_size, "--input-size") if input_size else None
    options = scale.parsed()
    options["dims"] = options["dims"] or 2
    load = partial(load_network, source, block=block, bias=bias, **options)
    rows = load(input_size=size)
    refuse_many(len(rows), output)
    with asked.verdict.held():
        if check.wanted(conventions.proved and not output.get, asked.fields):
            count = counter(asked.verdict, output.verbose)
            rows = [proved(row, count) for row in watched(rows, len(rows), output)]
        rows, sums = with_shares(rows), total(rows)
        title = shipped().get(source, "stdin" if source == "-" else words.printable(source))
        report = Report("network", block, rows, sums, title=title, unit=output.unit)
        if conventions.asked:
            from dscalc.commands.conventions import SIZES, answer_rows

            sized = ((size, load(input_size=size)) for size in SIZES)
            return max(answer_rows(report, conventions, output, sized), asked.verdict.exit_code)
        for row in rows:
            asked.verdict.crosscheck(row, report, partial(str, row.name))
        asked.verdict.check(sums)
        report = replace(report, checks=asked.verdict.checks, notes=_notes(rows, block))
        write(report, output, asked.get)
    return asked.verdict.conclude()


def _notes(rows: list[Row], block: Block) -> list[str]:
    if not all(row.kept for row in rows):
        return []
    if block == STANDARD:
        return ["every row is plain already; --as separable says what separable would cost"]
    return [f"no row can be rewritten as {block}"]
